"""The headline quantities of benchmarks: what a comparison has a row for. They are what benchmarks put on the machine's card; nothing is listed here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ..model import HIGHER, LOWER, Answer, BenchmarkRecord, Frozen, Value
from .answers.evidence import matching, point_text
from .estimate import ENDS, paired
from .structure import parameter_columns

KINDS = ("cell", "best", "difference")  # of answers that are one figure of the machine; a ratio is made of two
LAST = 1000  # rank of a benchmark that declares nothing


class Quantity(Frozen):
    """One figure of a machine under a name: a benchmark's metric at a point, or at all its points."""

    name: str
    benchmark: str
    metric: str
    rank: int = LAST
    point: dict[str, Value] | None = None  # parameters of its cells; None: every cell of the benchmark
    against: dict[str, Value] = {}  # of a difference: what is put over the point for the cell that is taken off
    best: bool = False  # of several cells the best one

    @property
    def column(self) -> str:
        """The metric that `differences` calls it by."""
        return f"{self.metric} - {point_text(self.against)}" if self.against else self.metric


def quantities(records: Iterable[BenchmarkRecord]) -> list[Quantity]:
    """What the records of one side declare; of several visits the last one's word. A tile that is a price as well is one quantity."""
    found: dict[tuple[str, str], Quantity] = {}
    for record in records:
        prices = [(price.rank, price.answer.text.removesuffix(" (added)"), price.answer) for price in record.card.prices]
        known = [asked(answer) for _, _, answer in prices]
        tiles = [(t.rank, t.subject, t.answer) for t in record.card.tiles if asked(t.answer) not in known]
        named: set[str] = set()
        for rank, name, answer in (*prices, *tiles):
            if answer.kind in KINDS and name not in named:  # of tiles of one subject the first
                named.add(name)
                found[record.name, name] = Quantity(
                    name=name,
                    benchmark=record.name,
                    metric=answer.metric,
                    rank=rank,
                    point=answer.where,
                    against=answer.against,
                    best=answer.kind == "best",
                )
    return list(found.values())


def asked(answer: Answer) -> tuple:
    return answer.metric, answer.where, answer.against


Pair = tuple[Quantity, Quantity]  # as base and as new have it


def shared_quantities(base: Iterable[BenchmarkRecord], new: Iterable[BenchmarkRecord]) -> list[Pair]:
    """The quantities of the benchmarks that both sides have, by rank.

    One name may be at other points on another machine: memory begins where its caches end. What only one side declares (the other log is older, or
    lacks the point) is looked for at the same point. A benchmark that declares nothing has one quantity: its first metric of which one
    direction is better, over all its cells.
    """
    base, new = list(base), list(new)
    sides = [{(q.benchmark, q.name): q for q in quantities(records)} for records in (base, new)]
    there = [{record.name: record for record in records} for records in (base, new)]
    found: list[Pair] = []
    for name in (name for name in there[0] if name in there[1]):
        keys = dict.fromkeys(key for side in sides for key in side if key[0] == name)
        both = [(sides[0].get(key) or sides[1][key], sides[1].get(key) or sides[0][key]) for key in keys]
        if not both:
            metric = next((m.name for m in there[1][name].metrics if m.polarity in (LOWER, HIGHER)), None)
            whole = Quantity(name=name.replace("_", " "), benchmark=name, metric=metric or "")
            both = [(whole, whole)] if metric else []
        found += both
    return sorted(found, key=lambda pair: min(q.rank for q in pair))


def differences(medians: pd.DataFrame, asked_for: Sequence[Quantity]) -> pd.DataFrame:
    """What `process_medians` would be of the differences: of each process that measured both cells, the one less the other, as a metric of its own
    (`Quantity.column`)."""
    tables = []
    for quantity in {q.column + point_text(q.point): q for q in asked_for if q.against and q.point is not None}.values():
        rows = medians[(medians["benchmark"] == quantity.benchmark) & (medians["metric"] == quantity.metric)]
        values, controls = matching(rows, quantity.point), matching(rows, {**quantity.point, **quantity.against})
        if values.empty or controls.empty:
            continue
        pairs = paired(values, controls, [p for p in parameter_columns(rows) if p not in quantity.against])
        gaps = {end: pairs[f"gap{end}"].to_numpy(dtype=float) for end in ENDS}
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = {f"log_value{end}": np.where(gap > 0, np.log(gap), np.nan) for end, gap in gaps.items()}
        values_of = {f"value{end}": gap for end, gap in gaps.items()}
        unmoved = {
            "clock_error": 0.0,
            "clock_fitted": 0.0,
        }  # both cells were measured beside each other, at nearly the same clock
        tables.append(pairs.assign(metric=quantity.column, **values_of, **logs, **unmoved)[medians.columns])
    return pd.concat(tables, ignore_index=True) if tables else medians.iloc[:0]


def all_of(pairs: Iterable[Pair]) -> list[Quantity]:
    return [*itertools.chain(*pairs)]
