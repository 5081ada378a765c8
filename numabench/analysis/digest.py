"""A digest of a log: one value for each cell of each of its visits, as `estimate.cell_means` finds them, straight from the records.

A table of pandas takes longer to make of a log than all else that is done with it, and a fleet has thousands of logs; the statistics are the same functions
of arrays (a test holds the two to the same figures).
"""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..model import NEITHER, Frozen, Header, Value
from ..runlog.export import pinned_to
from ..runlog.read import RunLog
from ..runlog.visits import visits
from .clock import at_usual_clock, behind, calm_but_for_clock, follows
from .identity import quantity_text
from .segments import Ordered, counts, nested_means
from .structure import distances, label_hop, mains

NAN = float("nan")


class Cell(Frozen):
    """What is compared between machines: a benchmark's first metric at one point, by the same method."""

    benchmark: str
    title: str
    metric: str
    unit: str
    polarity: str
    parameters: dict[str, Value]
    quantity: str  # kernel version and method

    @property
    def key(self) -> tuple:
        return self.benchmark, self.metric, self.quantity, tuple(sorted(self.parameters.items()))


class Visit(Frozen):
    """What a log says of one visit, as far as machines are compared: `values` (logs) of `cells`, which visits of the same cells share, as they do equal facts."""

    header: Header
    status: str
    samples: int
    undisturbed: float | None  # None: without a sample
    cells: tuple[Cell, ...]
    values: Sequence[float]

    @property
    def machine(self) -> dict[str, Any]:
        return self.header.machine


def digest(log: RunLog) -> list[Visit]:
    """The visits of a log, each by itself; cells by benchmark and parameters, whatever order they were measured in."""
    found = _means(log)
    headers = {header.run: header for header in sorted(log.headers, key=lambda h: h.started)}  # of a resumed visit the last
    digested = []
    for visited in visits(log):
        own = sorted(found.get(visited.run, ()), key=lambda each: _place(each[0]))
        digested.append(
            Visit(
                header=headers[visited.run],
                status=visited.status,
                samples=visited.samples,
                undisturbed=visited.undisturbed,
                cells=tuple(cell for cell, _ in own),
                values=array("d", [mean for _, mean in own]),
            )
        )
    return digested


def _place(cell: Cell) -> tuple:
    return cell.benchmark, [(name, isinstance(value, str), value) for name, value in sorted(cell.parameters.items())]


def _means(log: RunLog) -> dict[str, list[tuple[Cell, float]]]:
    """Run -> its cells and the means of their logs, in the distance class that most processes had."""
    first = {b.name: b.metrics[0] for b in log.benchmarks if b.metrics and b.metrics[0].polarity != NEITHER}
    records = {(b.run, b.name): b for b in log.benchmarks}
    machines = {header.run: header.machine.get("id", "unknown") for header in log.headers}
    number = tuple(_Numbers() for _ in range(6))
    cell_of, process_of, session_of, machine_of, place_of, benchmark_of = number
    points: dict[int, dict[str, Value]] = {}
    rows: tuple[list, ...] = tuple([] for _ in range(11))
    values, valid, hops, widths, reasons, follow, cells, processes, sessions, owners, benchmarks = rows
    clocks: tuple[list, ...] = [], [], []  # of all samples, kept or not: clock, on which CPUs it was, whether the sample is kept
    for trial in log.trials:
        metric = first.get(trial.benchmark)
        owner = machines.get(trial.run, "unknown")
        clocks[0].extend(sum(sample.frequency) / 2 / 1e9 if sample.frequency else NAN for sample in trial.samples)
        clocks[1].extend(place_of[(owner, trial.session, pinned_to(tuple(t.cpu for t in s.threads)))] for s in trial.samples)
        clocks[2].extend(metric is not None and metric.name in sample.metrics for sample in trial.samples)
        if metric is None:
            continue
        kept = [sample for sample in trial.samples if metric.name in sample.metrics]
        where = trial.run, trial.benchmark
        own = [cell_of[(*where, sample.case)] for sample in kept]
        cells += own
        points.update(zip(own, [sample.parameters for sample in kept], strict=True))
        values += [sample.metrics[metric.name] for sample in kept]
        valid += [sample.valid for sample in kept]
        hops += [(sample.hop[0] + sample.hop[1]) / 2 * 1e9 if sample.hop else NAN for sample in kept]
        widths += [(sample.width[0] + sample.width[1]) / 2 if sample.width else NAN for sample in kept]
        processes += [process_of[(*where, trial.session, trial.block, trial.process)]] * len(kept)
        sessions += [session_of[trial.session]] * len(kept)
        owners += [machine_of[owner]] * len(kept)
        reasons += [" ".join(sample.reasons) for sample in kept]
        follow += [follows(metric.unit)] * len(kept)
        benchmarks += [benchmark_of[(owner, trial.benchmark, metric.name, trial.session)]] * len(kept)
    if not values:
        return {}
    kinds = float, bool, float, float, object
    value, calm, hop, width, reason = (np.array(each, dtype=kind) for each, kind in zip(rows[:5], kinds, strict=True))
    clocked, cell, process, session, owner, benchmark = (np.array(each, dtype=np.int64) for each in rows[5:])
    slow = behind(np.array(clocks[0]), np.array(clocks[1], dtype=np.int64))[np.array(clocks[2], dtype=bool)]
    label_of = _Numbers()
    label = np.empty(len(value), dtype=np.int64)
    for machine in range(len(machine_of)):
        part = owner == machine
        label[part] = [label_of[text] for text in distances(hop[part], width[part], calm[part])]
    counted = calm_but_for_clock(calm, reason, clocked)
    quantity, begin = in_order(cell, label, session)
    value = at_usual_clock(value, counted, clocked, slow, quantity, benchmark[begin]).values
    kind, mean, main = _by_class(value, counted, cell, label, process, session, np.array([label_hop(text) for text in label_of]))
    found: dict[str, list[tuple[Cell, float]]] = {}
    names = list(cell_of)
    for number in np.flatnonzero(main & np.isfinite(mean)).tolist():
        place = int(kind[number])
        run, name, _ = names[place]
        record, metric = records[run, name], first[name]
        made = Cell(
            benchmark=name,
            title=record.title,
            metric=metric.name,
            unit=metric.unit,
            polarity=metric.polarity,
            parameters=points[place],
            quantity=quantity_text(record),
        )
        found.setdefault(run, []).append((made, float(mean[number])))
    return found


class _Numbers(defaultdict):
    """Numbers of keys in order of appearance."""

    def __init__(self) -> None:
        super().__init__(itertools.count().__next__)


def _by_class(
    value: np.ndarray,
    calm: np.ndarray,
    cell: np.ndarray,
    label: np.ndarray,
    process: np.ndarray,
    session: np.ndarray,
    hop: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(cell, mean, whether it is the cell's main one) of each cell and distance class of these samples; a mean is NaN where a value is not positive. `hop`: of each label."""
    codes, begin = in_order(cell, label, process)
    usable = calm & np.isfinite(value)
    median = Ordered(value[usable], codes[usable], len(begin)).median()
    kind, first = in_order(cell[begin], label[begin])
    size = len(first)
    linear = counts(kind, size, np.isfinite(median) & ~(median > 0)) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(linear[kind], median, np.where(median > 0, np.log(median), np.nan))
    known = np.isfinite(scaled)
    sessions, start = in_order(kind[known], session[begin][known])
    mean, _, _, _, processes = nested_means(scaled[known], kind[known], sessions, start, size)
    samples = counts(kind, size, counts(codes, len(begin), usable))
    cells = cell[begin][first]
    return cells, np.where(linear, np.nan, mean), mains(cells, processes, samples, hop[label[begin][first]])


def in_order(*keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `segments.group_codes`, of whole numbers from 0 on: (group of each row, in order of appearance, first row of each group)."""
    code = keys[0]
    for key in keys[1:]:
        code = np.unique(code, return_inverse=True)[1] * (key.max(initial=-1) + 1) + key
    _, first, group = np.unique(code, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[group], first[order]
