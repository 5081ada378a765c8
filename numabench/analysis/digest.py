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

UNKNOWN = (float("nan"), float("nan"))  # before and after a sample


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
    process_of, session_of, machine_of, place_of, benchmark_of = (_Numbers() for _ in range(5))
    names: list[tuple[str, str, str]] = []  # run, benchmark and case of each cell
    cell_of: dict[tuple[str, str], dict[str, int]] = {}
    placed: dict[tuple[str, str], dict[tuple[int, ...], int]] = {}  # machine and session -> CPUs of threads -> place
    points: dict[int, dict[str, Value]] = {}
    rows: tuple[list, ...] = tuple([] for _ in range(6))
    values, valid, hops, widths, reasons, cells = rows
    clocks: tuple[list, ...] = [], [], []  # of all samples, kept or not: clock, on which CPUs it was, whether the sample is kept
    trials: list[tuple[int, ...]] = []  # kept samples, and what they have in common
    for trial in log.trials:
        metric = first.get(trial.benchmark)
        name, before = metric.name if metric else None, len(values)
        owner = machines.get(trial.run, "unknown")
        where = trial.run, trial.benchmark
        known, places = cell_of.setdefault(where, {}), placed.setdefault((owner, trial.session), {})
        for sample in trial.samples:  # of a log's thousands: each is looked at once
            clocks[0].extend(sample.frequency or UNKNOWN)
            cpus = tuple([thread.cpu for thread in sample.threads])
            place = places.get(cpus)
            if place is None:
                place = places[cpus] = place_of[(owner, trial.session, pinned_to(cpus))]
            clocks[1].append(place)
            value = sample.metrics.get(name)  # type: ignore[arg-type]
            clocks[2].append(value is not None)
            if value is None:
                continue
            own = known.get(sample.case)
            if own is None:
                own = known[sample.case] = len(names)
                names.append((*where, sample.case))
            points[own] = sample.parameters
            cells.append(own)
            values.append(value)
            valid.append(sample.valid)
            hops.extend(sample.hop or UNKNOWN)
            widths.extend(sample.width or UNKNOWN)
            reasons.append(" ".join(sample.reasons))
        if metric:
            process = process_of[(*where, trial.session, trial.block, trial.process)]
            alike = benchmark_of[(owner, trial.benchmark, metric.name, trial.session)]
            shared = process, session_of[trial.session], machine_of[owner], follows(metric.unit), alike
            trials.append((len(values) - before, *shared))
    if not values:
        return {}
    value, calm, cell, reason = (
        np.array(values),
        np.array(valid),
        np.array(cells, dtype=np.int64),
        np.array(reasons, dtype=object),
    )
    hop, width, clock = (np.array(pairs).reshape(-1, 2).sum(axis=1) / 2 for pairs in (hops, widths, clocks[0]))
    hop *= 1e9
    count, *of_trials = np.array(trials, dtype=np.int64).T
    process, session, owner, clocked, benchmark = (np.repeat(each, count) for each in of_trials)
    slow = behind(clock / 1e9, np.array(clocks[1], dtype=np.int64))[np.array(clocks[2], dtype=bool)]
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
    quantities = {place: quantity_text(records[place]) for place in cell_of if place in records}
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
            quantity=quantities[run, name],
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
