"""Bands of physics: ratios within one run that hold on any machine, whatever its figures are (METHODOLOGY, section 6)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple

from ..model import Frozen, Sample, TrialRecord, Value
from ..runlog.export import samples
from ..runlog.read import RunLog
from .clock import CHANGED
from .estimate import sign_interval
from .structure import with_circumstances

NAN = float("nan")
HOLDS, BROKEN, OPEN, NOT_MEASURED = "holds", "BROKEN", "open", "not measured"


class Band(Frozen):
    """`value` is None where what it takes was not measured, `high` where there is no upper end. `interval`: the 95 % interval of the value, where that decides: it is broken where all of it
    lies outside, and open where some of it does or there are too few processes for one (NaN)."""

    name: str
    value: float | None
    low: float
    high: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def ends(self) -> str:
        return f"over {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"

    @property
    def reach(self) -> str:
        """Its interval as text."""
        least, most = self.interval or (NAN, NAN)
        return f"{least:.2f} to {most:.2f}" if math.isfinite(least) and math.isfinite(most) else "–"

    @property
    def broken(self) -> bool:
        return self.verdict == BROKEN

    @property
    def verdict(self) -> str:
        if self.value is None:
            return NOT_MEASURED
        high = math.inf if self.high is None else self.high
        least, most = self.interval or (self.value, self.value)
        if least > high or most < self.low:
            return BROKEN
        return HOLDS if self.low <= least and most <= high else OPEN


def bands(log: RunLog) -> list[Band]:
    """Of the distance class that most of the padded counters were measured in. Medians of valid samples."""
    padded = next(
        (c.control for b in log.benchmarks if b.name == "padded_counters" for c in b.contrasts if c.axis == "stride"), 0
    )
    frame = with_circumstances(samples(log))
    frame = frame[frame["valid"]]
    counters = frame[frame["benchmark"] == "padded_counters"]
    classes = counters["distance"][counters["distance"] != ""].mode()
    frame = frame[frame["distance"].isin(["", *classes[:1]])]
    medians = frame.groupby(["benchmark", "case", "metric"])["value"].median()
    hop = frame[frame["benchmark"] == "padded_counters"]["hop_ns"].median()
    cells = {}
    for trial in log.trials:
        for sample in trial.samples:
            cells.setdefault((trial.benchmark, *sorted(sample.parameters.items())), sample.case)

    def value(benchmark: str, metric: str, **wanted) -> float:
        for (name, *parameters), case in cells.items():
            if name == benchmark and wanted.items() <= dict(parameters).items():
                return medians.get((benchmark, case, metric), NAN)
        return NAN

    def counter(operation: str, stride: object, spacing: int, threads: int = 2) -> float:
        return value(
            "padded_counters", "time_per_operation", operation=operation, stride=stride, spacing=spacing, threads=threads
        )

    def lock(primitive: str, metric: str, threads: int = 2) -> float:
        return value("contention", metric, primitive=primitive, critical_section=0, think_time=0, threads=threads)

    def penalty(operation: str) -> float:
        return (counter(operation, 8, 200) - counter(operation, padded, 200)) / hop

    add = "atomic_add"
    rows = [
        ("spaced penalty / CAS hop, increment", penalty("increment"), 0.8, 1.5),
        ("spaced penalty / CAS hop, atomic add", penalty(add), 0.8, 1.5),
        ("padded, 2 threads / 1", counter(add, padded, 200) / counter(add, padded, 200, 1), 0.9, 1.1),
        ("stride 64 / 128", counter(add, 64, 200) / counter(add, 128, 200), 0.9, 1.15),
        ("atomic add, shared / padded, back to back", counter(add, 8, 0) / counter(add, padded, 0), 2.5, None),
        ("mutex / atomic add", lock("mutex", "time_per_operation") / lock(add, "time_per_operation"), 2, 20),
        ("ticket, Jain index", lock("ticket", "fairness"), 0.95, 1.0001),
        ("MCS, Jain index", lock("mcs", "fairness"), 0.95, 1.0001),
        ("ticket, time per acquisition / hop", lock("ticket", "time_per_operation") / 2 / hop, 0.9, None),
        ("MCS, time per acquisition / hop", lock("mcs", "time_per_operation") / 2 / hop, 0.9, None),
        ("L1 latency, cycles", value("memory_latency", "cycles", size=16 * 1024, order="group", page_size="thp"), 3, 6),
    ]
    return [
        Band(name=name, value=float(found) if math.isfinite(found) else None, low=low, high=high)
        for name, found, low, high in rows
    ]


class Call(NamedTuple):
    """One that makes the kernel interrupt a CPU on which a thread of the process runs, and wait until it has come: the metric at `runs`, less that at `alone`, is the price of one interrupt."""

    name: str
    benchmark: str
    metric: str
    runs: dict[str, Value]
    alone: dict[str, Value]


def on_a_page(operation: str, bystander: str) -> Call:
    """A call of `address_space` on one base page."""
    page = {"operation": operation, "pages": 1, "page_size": "4k", "bystanders": 1}
    return Call(operation, "address_space", "time", {**page, "bystander": bystander}, {**page, "bystander": "none"})


ON_PAGES = ("mprotect", "dontneed", "munmap")
CALLS = (
    *(on_a_page(operation, "spinning") for operation in ON_PAGES),
    Call("membarrier", "barriers", "slow", {"method": "membarrier"}, {"method": "membarrier", "placement": "alone"}),
    Call("signal", "signals", "to_handler", {"target": "other_running"}, {"target": "self_go", "placement": "alone"}),
)
#: Bystanders whom no call interrupts.
UNMOVED = {"sleeping": "a thread that sleeps", "process": "another process"}
APART = 0.25  # by which prices may differ from each other and from the sentinel: it is a call as well, and the kernel has some work of its own for each
NOTHING = 0.2  # share of an interrupt that is none: what a call takes alone varies by as much
INTERRUPT = "interrupt_ns"  # of a sample's extras: what a membarrier took beside it
NOT_APART = ("alone", "same_cpu")  # placements in which nobody else runs meanwhile


def interrupt_bands(log: RunLog) -> dict[str, list[Band]]:
    """By machine id: each price of an interrupt over that of the sentinel beside its samples, the largest of them over the least, and what those add to a call whom none should interrupt. Of
    machines on which any was measured, what was."""
    machines = {h.run: h.machine_id for h in log.headers}
    trials: dict[str, list[TrialRecord]] = {}
    for trial in log.trials:
        trials.setdefault(machines.get(trial.run, "unknown"), []).append(trial)
    found = {}
    for machine, own in trials.items():
        prices = [price_band(f"interrupt of {call.name} / sentinel", price_ratios(own, call)) for call in CALLS]
        none = [
            price_band(f"{words} adds to {operation} / sentinel", price_ratios(own, on_a_page(operation, who)), nothing=True)
            for who, words in UNMOVED.items()
            for operation in ON_PAGES
        ]
        bands = [band for band in (*prices, agreement_band(prices), *none) if band.value is not None]
        if bands:
            found[machine] = bands
    return found


def price_ratios(trials: Iterable[TrialRecord], call: Call) -> list[float]:
    """For each process the median of (what it took - what it takes alone) / what the sentinel took beside it. Alone: in the same process where that was measured, else in all of them. A clock that changed does so of both."""

    def of(samples: Iterable[Sample], where: dict[str, Value]) -> list[Sample]:
        return [sample for sample in samples if where.items() <= sample.parameters.items()]

    def usual(samples: Iterable[Sample]) -> list[float]:
        return [sample.metrics[call.metric] for sample in of(samples, call.alone)]

    own = [
        [s for s in trial.samples if (s.valid or s.reasons == (CHANGED,)) and call.metric in s.metrics]
        for trial in trials
        if trial.benchmark == call.benchmark
    ]
    everywhere = [value for valid in own for value in usual(valid)]
    found = []
    for valid in own if everywhere else ():
        base = statistics.median(usual(valid) or everywhere)
        ratios = [
            (sample.metrics[call.metric] - base) / sample.extra[INTERRUPT]
            for sample in of(valid, call.runs)
            if sample.extra.get(INTERRUPT) and sample.parameters.get("placement") not in NOT_APART
        ]
        found += [statistics.median(ratios)] if ratios else []
    return found


def price_band(name: str, ratios: list[float], nothing: bool = False) -> Band:
    low, high = (-NOTHING, NOTHING) if nothing else (1 - APART, 1 + APART)
    interval = sign_interval(ratios)[:2] if ratios else None
    return Band(name=name, value=statistics.median(ratios) if ratios else None, low=low, high=high, interval=interval)


def agreement_band(prices: list[Band]) -> Band:
    """The largest price over the least. Its interval is from the ratio that the two intervals that lie farthest apart leave, to that of all their ends: prices whose intervals overlap may be one."""
    name, known = "largest price of an interrupt / least", [band for band in prices if band.value is not None and band.value > 0]
    if len(known) < 2:
        return Band(name=name, value=None, low=1.0, high=1 + APART)
    lows, highs = zip(*(band.interval or (NAN, NAN) for band in known), strict=True)
    ratio, interval = max(band.value or NAN for band in known) / min(band.value or NAN for band in known), (NAN, NAN)
    if all(map(math.isfinite, (*lows, *highs))) and min(lows) > 0:
        interval = max(1.0, max(lows) / min(highs)), max(highs) / min(lows)
    return Band(name=name, value=ratio, low=1.0, high=1 + APART, interval=interval)
