"""Bands of physics: ratios within one run that hold on any machine, whatever its figures are (METHODOLOGY, section 3)."""

from __future__ import annotations

import math

from ..model import Frozen
from ..runlog.export import samples
from ..runlog.read import RunLog
from .structure import with_circumstances

NAN = float("nan")


class Band(Frozen):
    """`value` is None where what it takes was not measured, `high` where there is no upper end."""

    name: str
    value: float | None
    low: float
    high: float | None = None

    @property
    def ends(self) -> str:
        return f"over {self.low:g}" if self.high is None else f"{self.low:g} to {self.high:g}"

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "holds" if self.low <= self.value <= (math.inf if self.high is None else self.high) else "BROKEN"


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
