"""What to do on a machine by what was measured on it: so far, how far apart the data of two threads must lie.

The padding is what C++17 calls the destructive interference size: the least distance from which on two threads that write do not disturb each other.
"""

from __future__ import annotations

import math

from ..errors import UsageError
from ..model import Frozen
from ..runlog.read import RunLog
from .answers import Answered, answers

BENCHMARK = "padded_counters"
COMMAND = f"numabench run {BENCHMARK}"
PAIR = 128  # bytes that prefetchers of adjacent lines couple
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
    says what is missing. `adjacent_lines`: "effect", "no effect", "unresolved" or "not measured"."""

    machine: str
    recorded: str
    padding_bytes: int
    measured: bool
    missing: str
    declared_line_bytes: int | None
    adjacent_lines: str
    evidence: tuple[Evidence, ...]


def padding(log: RunLog) -> list[Padding]:
    """The advice for each machine in `log` that has padded counters. Raises UsageError where none has."""
    found: dict[str, list[Answered]] = {}
    for answer in answers(log):
        if answer.benchmark == BENCHMARK and answer.kind in ("threshold", "effect"):
            found.setdefault(answer.machine, []).append(answer)
    if not found:
        raise UsageError("these logs hold no padded counters, which the padding is read from", COMMAND)
    headers = {str(header.machine.get("alias")): header for header in log.headers}
    return [advise(machine, headers[machine], said) for machine, said in found.items()]


def advise(machine: str, header, said: list[Answered]) -> Padding:
    thresholds, effects = ([answer for answer in said if answer.kind == kind] for kind in ("threshold", "effect"))
    known = [answer.value for answer in thresholds if math.isfinite(answer.value)]
    declared, open_ones = line_bytes(header.machine.get("topology") or {}), len(thresholds) - len(known)
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
