"""Events of a machine file: what the host of a guest does at given times (docs/testbed.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from .checks import demand
from .timing import MOST_GHZ, check_occupancy, core_to_core

if TYPE_CHECKING:
    from .machine import Machine

MOST_EVENTS = 64  # as in simulator/events.c
MOST_MS = 1e6  # of a script
NS_PER_MS = 1e6


class Steal(msgspec.Struct, forbid_unknown_fields=True):
    cpu: int
    time: float


class EventFile(msgspec.Struct, forbid_unknown_fields=True):
    at: float
    every: float = 0.0
    core_to_core: float | list[list[float]] | dict[str, float] | None = None
    clock: float | None = None
    steal: Steal | None = None
    occupancy: list[float] | None = None


@dataclass(frozen=True)
class Event:
    """What is another from `at` on, ms of the virtual time that the model has been on since the boot, and again each `every` ms where that is positive. None: as before.

    `stolen`: a CPU that is away for so many ms; `clock`: GHz."""

    at: float
    every: float = 0.0
    core_to_core: tuple[tuple[float, ...], ...] | None = None
    clock: float | None = None
    stolen: tuple[int, float] | None = None
    occupancy: tuple[float, ...] | None = None


def build_events(machine: Machine, files: Sequence[EventFile]) -> tuple[Event, ...]:
    demand(bool(machine.timing or not files), "events change what [timing] says: there is none")
    demand(len(files) <= MOST_EVENTS, f"{len(files)} events are more than the {MOST_EVENTS} that can be simulated")
    demand(
        not any(file.occupancy for file in files) or machine.timing.link is None,
        "events.occupancy and timing.bandwidth: one of them says how long a line takes",
    )
    return tuple(build_event(machine, f"events[{number}]", file) for number, file in enumerate(files))


def build_event(machine: Machine, name: str, file: EventFile) -> Event:
    demand(0 <= file.at <= MOST_MS, f"{name}.at = {file.at}: ms from the boot on, at most {MOST_MS:g}")
    demand(0 <= file.every <= MOST_MS, f"{name}.every = {file.every}: ms, at most {MOST_MS:g}; leave it away for once")
    if file.clock is not None:
        demand(machine.timing.clock is not None, f"{name}.clock: timing.clock has to say at which clock its prices are")
        demand(0 < file.clock <= MOST_GHZ, f"{name}.clock = {file.clock}: GHz, at most {MOST_GHZ:g}")
    if file.steal:
        cpu, time = file.steal.cpu, file.steal.time
        demand(0 <= cpu < machine.cpus, f"{name}.steal.cpu = {cpu}: there are {machine.cpus} CPUs")
        demand(0 < time <= MOST_MS, f"{name}.steal.time = {time}: ms, at most {MOST_MS:g}")
        demand(not file.every or file.every > time, f"{name}: every {file.every} ms the CPU would be away for {time}")
    if file.occupancy is not None:
        check_occupancy(name, file.occupancy, machine)
    changes = (file.core_to_core, file.clock, file.steal, file.occupancy)
    demand(any(change is not None for change in changes), f"{name} changes nothing")
    return Event(
        at=file.at,
        every=file.every,
        core_to_core=None if file.core_to_core is None else core_to_core(machine, file.core_to_core, name),
        clock=file.clock,
        stolen=(file.steal.cpu, file.steal.time) if file.steal else None,
        occupancy=None if file.occupancy is None else tuple(file.occupancy),
    )


def event_lines(machine: Machine) -> list[str]:
    """For the simulator (simulator/events.c), which knows CPUs by QEMU's numbers."""
    lines = []
    for event in machine.events:
        slower = machine.timing.clock / event.clock if event.clock else 0
        lines.append(f"event {event.at * NS_PER_MS:.10g} {event.every * NS_PER_MS:.10g} {slower:.10g}")
        if event.stolen:
            cpu, time = event.stolen
            lines.append(f"event_steal {machine.positions[cpu]} {time * NS_PER_MS:.10g}")
        if event.occupancy is not None:
            lines.append(" ".join(["event_occupancy", *(f"{value:g}" for value in event.occupancy)]))
        for place, cpu in enumerate(machine.by_position if event.core_to_core else ()):
            row = (event.core_to_core[cpu][other] for other in machine.by_position)
            lines.append(" ".join(["event_core_to_core", str(place), *(f"{value:g}" for value in row)]))
    return lines
