"""What every kind of answer is found in and filled with: one benchmark's tables, rows at a point, and the words for them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ...model import Answer, BenchmarkRecord, Frozen, Metric
from ...units import format_bytes, format_number, format_quantity, plural
from ..estimate import CONFIDENCE, moved, summarise_pairs
from ..segments import text_of

NAN = float("nan")
NOTHING = "nothing was measured"
TOO_WIDE = 100.0  # times its lower end: an interval beyond says nothing of the value, only that it is of too few


class Found(Frozen):
    """What a kind of answer fills a template with; `problem` is a sentence saying what is missing or unresolved."""

    value: float = NAN
    low: float = NAN
    high: float = NAN
    unit: str = ""
    value_text: str = "–"
    interval_text: str = ""
    distance: str = ""
    ranking: str = ""
    other_text: str = ""  # of a sentence about two curves: the other one's value
    verdict: tuple[str, ...] = ()  # what it decides, where that is not its value; and what cannot be told from the first
    remark: str = ""  # a sentence more, of a settled answer
    instead: str = ""  # a verdict that the template has no place for: it is not usable then
    problem: str = ""
    alone: str = ""  # of an answer that several visits leave open: that one of them by itself would not, and what it says
    usable: bool = True  # the template makes sense in spite of a problem


class Data(Frozen):
    """One benchmark on one machine."""

    record: BenchmarkRecord
    medians: pd.DataFrame
    estimates: pd.DataFrame
    contrasts: pd.DataFrame
    topology: dict
    others: pd.DataFrame  # estimates of all benchmarks on the machine
    confidence: float = CONFIDENCE  # of all intervals

    def metric(self, name: str) -> Metric:
        return next((m for m in self.record.metrics if m.name == name), Metric(name=name, unit="", polarity="lower"))

    def summarise(self, pairs: pd.DataFrame) -> pd.DataFrame:
        """`summarise_pairs` with the intervals that are asked for here."""
        return summarise_pairs(pairs, self.confidence)


def matching(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """Rows at `where`; none where a column is missing."""
    if not where:
        return table
    if not where.keys() <= set(table.columns):
        return table.iloc[:0]
    return table[np.logical_and.reduce([equal(table[name], value) for name, value in where.items()])]


def equal(column: pd.Series, value: object) -> np.ndarray:
    """Which cells have a value; a missing one has none."""
    return (column == value).fillna(False).to_numpy(dtype=bool)


def select(table: pd.DataFrame, where: Mapping[str, object], record: BenchmarkRecord, free: str | None = None) -> pd.DataFrame:
    """Rows at `where`; an axis that it does not name is held at its first declared value that has rows (`free`: stays free)."""
    table = matching(table, where)
    held = np.ones(len(table), dtype=bool)  # rows are chosen once: each time all columns are copied
    for axis in record.axes:
        if axis.name in where or axis.name == free or axis.name not in table.columns:
            continue
        present = set(table[axis.name][held].dropna())
        first = next((v for v in axis.values if v in present), None)
        if first is not None:
            held &= equal(table[axis.name], first)
    return table if held.all() else table[held]


def main_cells(data: Data, answer: Answer) -> pd.DataFrame:
    """Estimates of the asked metric that have a value, each cell at its main distance."""
    rows = data.estimates
    return rows[(rows["metric"] == answer.metric) & rows["main"] & rows["value"].notna()]


def along(data: Data, answer: Answer, where: Mapping[str, object] | None = None) -> pd.DataFrame:
    """The asked metric at `where` (the answer's) for every value of the axis; no rows where the axis is unknown."""
    rows = data.estimates[(data.estimates["metric"] == answer.metric) & data.estimates["main"]]
    rows = select(rows, answer.where if where is None else where, data.record, free=answer.axis)
    return rows[rows["value"].notna()] if answer.axis in rows.columns else rows.iloc[:0]


def no_figure(data: Data, metric: str, where: Mapping[str, object]) -> Found:
    """That there is no figure at `where`: all of it was disturbed, or none of it was measured."""
    taken = matching(data.medians[data.medians["metric"] == metric], where)
    soft, hard = int(taken["soft"].sum()), int(taken["hard"].sum())
    why = NOTHING
    if hard:
        why = f"all {plural(soft + hard, 'sample')} were set aside, {hard} of them for a proof that failed, which the log names"
    elif soft:
        why = f"each of its {plural(soft, 'sample')} was delayed, interrupted or on another clock: the CPUs are not free, or the case disturbs itself every time (numabench check)"
    return Found(problem=f"no {words(metric)}: {why}", usable=False)


#: What a sentence says of a difference above zero -> below.
LESS = {"{value} more": "{value} less", "adds {value}": "takes {value} off"}


def point_text(where: Mapping[str, object]) -> str:
    return ", ".join(f"{words(k)} {text_of(v)}" for k, v in where.items())


def place_text(record: BenchmarkRecord, where: Mapping[str, object]) -> str:
    """Parameters that tell a point from others of its benchmark, each in its unit."""
    axes = {axis.name: axis for axis in record.axes}
    told = [name for name in where if name not in axes or len(axes[name].values) > 1]
    units = {name: axis.unit for name, axis in axes.items()}
    return ", ".join(f"{words(name)} {unit_text(where[name], units.get(name, ''))}" for name in told)


def unit_text(value: object, unit: str) -> str:
    """`32 MiB`, `200 ns`, `thp`."""
    if unit == "B" and isinstance(value, int):
        return format_bytes(value)
    return f"{text_of(value)} {unit}" if unit and not isinstance(value, str) else text_of(value)


def words(name: str) -> str:
    """The name of a parameter or metric in a sentence."""
    return name.replace("_", " ")


def differs(found: Found, kept: Found) -> bool:
    """Whether a settled answer is another one where the softly disturbed samples are kept: none, another verdict, or a value that is off by more than the answer's
    own half-width, and by more than LEAST_MOVE."""
    if kept.problem or bool(kept.verdict) != bool(found.verdict):
        return True
    if found.verdict:
        return found.verdict[0] not in kept.verdict and kept.verdict[0] not in found.verdict
    return math.isfinite(found.value) and bool(moved(found.value, (found.high - found.low) / 2, kept.value, linear=True))


def said(found: Found) -> str:
    """What another way of looking finds, in a few words."""
    if found.problem:
        return f"open: {found.problem.removeprefix('unresolved: ')}"
    return found.value_text if found.usable else found.instead


def doubt(row: pd.Series) -> str:
    """Why a figure settles nothing however narrow its interval is; empty where nothing is against it."""
    if "failed_proofs" in row["reasons"]:
        return "over a fifth of the samples failed a proof"
    return "samples were disturbed, and it depends on them" if "disturbed" in row["reasons"] else ""


def design_text(processes: int, sessions: int, distance: str) -> str:
    """`8 processes, 1 session, hop 27 ns`."""
    return ", ".join([plural(processes, "process"), plural(sessions, "session"), *([f"hop {distance}"] if distance else [])])


def _leading(text: str) -> tuple[float, str]:
    """Number and suffix: `10.0 ns` and `10.00 ns` say the same."""
    number, _, suffix = text.rstrip("×").partition(" ")
    return (float(number) if number != "–" else NAN), suffix


def template(answer: Answer, value: float) -> str:
    """The sentence of an answer for this value: of a difference below zero in the other direction of speech."""
    text = answer.text
    if answer.kind == "difference" and value < 0:
        for more, less in LESS.items():
            text = text.replace(more, less)
    return text


def says_nothing(low: float | pd.Series, high: float | pd.Series) -> bool | pd.Series:
    """Whether an interval (or each of two columns') tells only that it is of too few: the t interval of two that differ by a half has ends five decades apart."""
    return (low > 0) & (high > TOO_WIDE * low)


def interval_text(low: float, high: float, unit: str, visits: int = 0) -> str:
    """`26.8–27.4 ns`, `-0.2 to 0.3 ns`, `1.02–1.05×`: as many digits (3 to 6) as keep the ends apart. Of an estimate from so many `visits`, what is missing where its interval says nothing."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    if visits and says_nothing(low, high):
        return "too few visits" if visits > 1 else "too few processes"
    for digits in range(3, 7):
        ends = [f"{format_number(x, digits)}×" if unit == "×" else format_quantity(x, unit, digits) for x in (low, high)]
        if low == high or _leading(ends[0]) != _leading(ends[1]):
            break
    number, _, suffix = ends[0].partition(" ")
    if unit == "×":
        number, suffix = ends[0].rstrip("×"), "×"
    shared = suffix and ends[1].endswith(suffix if unit == "×" else f" {suffix}") and ends[1].count(" ") == ends[0].count(" ")
    return f"{number if shared else ends[0]}{' to ' if low < 0 else '–'}{ends[1]}"


def quantity(row: pd.Series, unit: str) -> str:
    """`120 ns [118–122 ns]`."""
    return f"{format_quantity(row['value'], unit)} [{interval_text(row['low'], row['high'], unit, row['sessions'])}]"
