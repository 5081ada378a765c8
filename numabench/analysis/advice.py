"""What to do on a machine by what was measured on it: so far, how far apart the data of two threads must lie.

The padding is what C++17 calls the destructive interference size: the least distance from which on two threads that write do not disturb each other.
"""

from __future__ import annotations

import math

import msgspec
import pandas as pd

from ..errors import UsageError
from ..model import Answer, Frozen
from ..runlog.export import samples
from ..runlog.read import RunLog
from .answers import Answered, answers
from .answers.evidence import matching
from .estimate import contrast_cells
from .structure import with_circumstances

BENCHMARK = "padded_counters"
COMMAND = f"numabench run {BENCHMARK}"
PAIR = 128  # bytes that prefetchers of adjacent lines couple
SMALL = 0.10  # of the time of counters far apart: sharing a line costs several times as much, and nobody pads for less
NO_EFFECT = "no effect"  # as answers of kind `effect` say it
CAREFUL = 128  # where neither a measurement nor the machine says anything: the largest line in wide use


class Evidence(Frozen):
    """One finding behind an advice: the sentence, and its figure with the 95 % interval in `unit`; None where there is none."""

    text: str
    resolved: bool
    value: float | None
    low: float | None
    high: float | None
    unit: str


class Padding(Frozen):
    """Bytes between what two threads write on a machine. `measured` is false where a declared line size stands in for a measurement; `missing` then
    says what is missing. `within`: how much longer an operation takes with them than far apart at most, as a share (the worst 95 % bound over all that is asked; None where something
    has no interval). `adjacent_lines`: "effect", "no effect", "unresolved" or "not measured"."""

    machine: str
    recorded: str
    padding_bytes: int
    measured: bool
    missing: str
    within: float | None
    declared_line_bytes: int | None
    adjacent_lines: str
    evidence: tuple[Evidence, ...]


def padding(log: RunLog) -> list[Padding]:
    """The advice for each machine in `log` that has padded counters. Raises UsageError where none has."""
    found: dict[str, list[Answered]] = {}
    frame = with_circumstances(samples(log))  # classes are those of all benchmarks; the rest is of this one
    frame = frame[frame["benchmark"] == BENCHMARK]
    log = msgspec.structs.replace(log, benchmarks=tuple(b for b in log.benchmarks if b.name == BENCHMARK))
    for answer in answers(log, frame):
        if answer.kind in ("threshold", "effect"):
            found.setdefault(answer.machine, []).append(answer)
    if not found:
        raise UsageError("these logs hold no padded counters, which the padding is read from", COMMAND)
    headers = {str(header.machine.get("alias")): header for header in log.headers}
    asked = [answer for b in log.benchmarks for answer in b.answers if answer.kind == "threshold"]
    contrasts = contrast_cells(frame, log.benchmarks)
    return [
        advise(machine, headers[machine], said, worst_costs(contrasts[contrasts["machine"] == machine], asked))
        for machine, said in found.items()
    ]


def worst_costs(contrasts: pd.DataFrame, asked: list[Answer]) -> dict[int, float]:
    """Stride -> the most that an operation takes longer than with counters far apart, over all that is asked about; infinite where something has no interval."""
    costs: dict[int, float] = {}
    for answer in asked:
        if answer.axis not in contrasts:  # no sample had it
            continue
        rows = matching(contrasts[(contrasts["axis"] == answer.axis) & contrasts["main"]], answer.where)
        rows = rows[(rows["metric"] == answer.metric) & (rows[answer.axis] > 0)]
        for stride, high in zip(rows[answer.axis], rows["ratio_high"], strict=True):
            costs[int(stride)] = max(costs.get(int(stride), -math.inf), high - 1 if math.isfinite(high) else math.inf)
    return costs


def nearly_free(costs: dict[int, float]) -> int | None:
    """The smallest stride from which on nothing costs more than SMALL; None where the largest does."""
    strides = sorted(costs, reverse=True)
    free = next((k for k, stride in enumerate(strides) if costs[stride] > SMALL), len(strides))
    return strides[free - 1] if free else None


def advise(machine: str, header, said: list[Answered], costs: dict[int, float]) -> Padding:
    thresholds, effects = ([answer for answer in said if answer.kind == kind] for kind in ("threshold", "effect"))
    known = [answer.value for answer in thresholds if math.isfinite(answer.value)]
    declared, open_ones = line_bytes(header.machine.get("topology") or {}), len(thresholds) - len(known)
    sure = [answer.value for answer in thresholds if answer.ok and math.isfinite(answer.value)]
    bounded = nearly_free(costs) if len(sure) < len(thresholds) else None
    if bounded:  # intervals too wide for the tolerance, and yet no doubt about where the cliff is
        known, open_ones = [*sure, bounded], 0
    verdict = adjacent_lines(effects)
    least = max([*known, *([declared or CAREFUL] if open_ones or not known else []), *([PAIR] if verdict == "effect" else [])])
    return Padding(
        machine=machine,
        recorded=header.started,
        padding_bytes=int(least),
        measured=bool(known) and not open_ones,
        missing=f"{open_ones} of {len(thresholds)} thresholds are unresolved, or no stride measured is free: {COMMAND}"
        if open_ones
        else "",
        within=costs[int(least)] if math.isfinite(costs.get(int(least), math.inf)) else None,
        declared_line_bytes=declared,
        adjacent_lines=verdict,
        evidence=tuple(map(evidence, said)),
    )


def adjacent_lines(effects: list[Answered]) -> str:
    """The verdict over all relations: an effect in one of them is one."""
    if any(answer.ok and NO_EFFECT not in answer.text for answer in effects):
        return "effect"
    if effects and all(answer.ok for answer in effects):
        return NO_EFFECT
    return "unresolved" if effects else "not measured"


def evidence(answer: Answered) -> Evidence:
    value, low, high = (number if math.isfinite(number) else None for number in (answer.value, answer.low, answer.high))
    return Evidence(text=answer.text, resolved=answer.ok, value=value, low=low, high=high, unit=answer.unit)


def line_bytes(topology: dict) -> int | None:
    """The largest line that the machine declares for a cache; None where it declares none."""
    return max((cache.get("line_bytes") or 0 for cache in topology.get("caches", ())), default=0) or None
