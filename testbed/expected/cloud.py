"""What a right benchmark must find on a guest whose host moves it about: one answer for each distance, all at the usual clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..machine import Machine


def hops(machine: Machine) -> tuple[float, ...]:
    """ns between the CPUs of a pair, before and after each event, ascending."""
    matrices = [machine.timing.core_to_core, *(event.core_to_core for event in machine.events if event.core_to_core)]
    return tuple(sorted({matrix[0][1] for matrix in matrices}))


def at_hop(machine: Machine, hop: float) -> Machine:
    """The machine as it is while its CPUs are so far from each other."""
    cpus = range(machine.cpus)
    matrix = tuple(tuple(0.0 if a == b else hop for b in cpus) for a in cpus)
    return replace(machine, timing=replace(machine.timing, core_to_core=matrix), events=())


def clocks(machine: Machine) -> tuple[float, ...]:
    """GHz, ascending."""
    return tuple(sorted({machine.timing.clock, *(event.clock for event in machine.events if event.clock)}))


def answer(kind: str, value: float, other: float) -> float:
    """Of values at two points (`other` is `against`): a cell's value, the difference and the ratio."""
    return value if kind == "cell" else value - other if kind == "difference" else value / other


def at_distance(given: Mapping[str, float], metric: str, rises: int, slower: float) -> float:
    """A value where everything takes `slower` times as long; `rises`: 1 of a time, -1 of a rate."""
    return given[metric] * slower**rises
