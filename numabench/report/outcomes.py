"""Outcomes as words: of a metric whose summary has a word for each of its values, a table of words and no numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..analysis.answers.cells import OUTCOME
from ..analysis.answers.evidence import matching
from ..model import BenchmarkRecord, Metric
from ..units import format_number
from .scales import format_value, in_order, plain
from .tables import Cell, Table, listed, sorted_rows, split_axes

if TYPE_CHECKING:
    import pandas as pd

SAID_OF = "{value}: "  # how the sentence of an outcome begins that says something of what follows
WHOLE = 1e-6  # of an estimate whose processes agree: a mean of logarithms is that far from the number
YES_OR_NO = 2  # words
TORN = "not the same each time"


def words_of(metric: Metric) -> dict[int, str]:
    """Value -> word; empty of a metric of quantities."""
    found = {int(number): word.strip() for number, word in OUTCOME.findall(metric.summary)}
    return found if len(found) > 1 else {}


def outcome_table(estimates: pd.DataFrame, descriptor: BenchmarkRecord, metric: Metric) -> Table | None:
    """Of one machine's cells: what is said of each, where all sentences about the metric say something; else the matrix. None for a metric of quantities."""
    if not words_of(metric):
        return None
    return _sayings(_cells(estimates, descriptor, metric), descriptor, metric) or matrix_table(estimates, descriptor, metric)


def _cells(estimates: pd.DataFrame, descriptor: BenchmarkRecord, metric: Metric) -> pd.DataFrame:
    rows = estimates[(estimates["benchmark"] == descriptor.name) & (estimates["metric"] == metric.name)]
    return rows[rows["main"] & rows["value"].notna()]


def _word(value: float, words: dict[int, str]) -> str:
    near = round(value)
    if abs(value - near) > WHOLE * max(1, abs(near)):
        return TORN
    return words.get(near, format_number(value))


def _sayings(rows: pd.DataFrame, descriptor: BenchmarkRecord, metric: Metric) -> Table | None:
    asked = [answer for answer in descriptor.answers if answer.metric == metric.name]
    if not asked or not all(answer.kind == "outcome" and answer.text.startswith(SAID_OF) for answer in asked):
        return None
    words, found = words_of(metric), []
    for answer in asked:
        at = matching(rows, answer.where)
        if len(at) == 1:
            where = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in answer.where.items())
            said = Cell(answer.text.removeprefix(SAID_OF)), Cell(_word(at["value"].iloc[0], words)), Cell(where, kind="remark")
            found.append(said)
    headings = ("what is said", False), ("here", False), ("tried by", False)
    return Table(metric.name.replace("_", " "), headings, tuple(found)) if found else None


def matrix_table(estimates: pd.DataFrame, descriptor: BenchmarkRecord, metric: Metric) -> Table | None:
    """A row for each point of the axes that go down, a column for each value of the one that goes across the benchmark's maps. None for a metric of quantities, and for a yes or no, of
    which sentences name the exceptions."""
    words, rows = words_of(metric), _cells(estimates, descriptor, metric)
    if rows.empty or len(words) <= YES_OR_NO:
        return None
    across = next((view.x for view in descriptor.views if view.kind == "heatmap"), None)
    axes, fixed = split_axes(rows, descriptor)
    shown, more = listed(sorted_rows(rows, axes))
    down = [axis for axis in axes if axis.name != across]
    column = next((axis for axis in axes if axis.name == across), None)
    columns = in_order(column, [plain(v) for v in shown[across].dropna().unique()]) if column else [None]
    found: dict[tuple, dict] = {}
    for row in shown.to_dict("records"):
        key = tuple((format_value(plain(row[axis.name]), axis.unit),) for axis in down)
        found.setdefault(key, {})[plain(row[across]) if column else None] = _word(row["value"], words)
    lines = merged([(key, tuple(at.get(value, "–") for value in columns)) for key, at in found.items()], len(down))
    headings = [
        *(axis.name.replace("_", " ") for axis in down),
        *(format_value(v, column.unit) if column else metric.name for v in columns),
    ]
    cells = tuple((*(Cell(", ".join(names)) for names in key), *map(Cell, said)) for key, said in lines)
    return Table(
        metric.name.replace("_", " "),
        tuple((heading, False) for heading in headings),
        cells,
        " ".join(filter(None, (fixed, more))),
    )


def merged(lines: Sequence[tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]], names: int) -> list:
    """Lines of (names of each axis, outcomes): those that differ in one axis alone and have the same outcomes are one, from the last axis to the first."""
    for axis in reversed(range(names)):
        groups: dict[tuple, tuple[str, ...]] = {}
        for key, said in lines:
            rest = (key[:axis], key[axis + 1 :], said)
            groups[rest] = groups.get(rest, ()) + key[axis]
        lines = [((*before, values, *behind), said) for (before, behind, said), values in groups.items()]
    return list(lines)
