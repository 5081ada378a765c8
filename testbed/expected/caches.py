"""Levels of caches, by the rules of docs/testbed.md alone: a small sequential simulation of who holds which line, and what follows from it by arithmetic."""

from __future__ import annotations

from collections import defaultdict

from ..machine import Machine
from ..timing import PREFETCHERS, VICTIM, Cache
from . import ATOMIC, OPERATION_INSTRUCTIONS

PAGE = 4096
NOTHING, PAIR, _ = PREFETCHERS
MODIFIED, EXCLUSIVE, SHARED, OWNED, INVALID = "modified", "exclusive", "shared", "owned", "invalid"


class Level:
    """One cache: its lines by set, the one that was used last at the end."""

    def __init__(self, cache: Cache, line: int):
        self.ways, self.count = cache.ways, cache.size // line // cache.ways
        self.sets: dict[int, list[int]] = defaultdict(list)

    def __contains__(self, line: int) -> bool:
        return line in self.sets[line % self.count]

    def remove(self, line: int) -> None:
        if line in self:
            self.sets[line % self.count].remove(line)

    def use(self, line: int) -> int | None:
        """Puts it last; which line has to go for it."""
        self.remove(line)
        lines = self.sets[line % self.count]
        lines.append(line)
        return lines.pop(0) if len(lines) > self.ways else None


class Caches:
    """All caches of a machine. `stale`: line -> whose cache has what memory has not: ("cpu", number) or ("l3", group)."""

    def __init__(self, machine: Machine, home: int = 0):
        self.machine, self.timing, self.home = machine, machine.timing, home
        *own, shared = self.timing.caches
        self.victim = shared.kind == VICTIM
        self.group_of = {cpu: group for group, cpus in enumerate(machine.groups("die")) for cpu in cpus}
        self.own = [[Level(cache, self.timing.line) for cache in own] for _ in range(machine.cpus)]
        self.shared = [Level(shared, self.timing.line) for _ in machine.groups("die")]
        self.stale: dict[int, tuple[str, int]] = {}
        self.free: dict[int, float] = defaultdict(float)
        self.controller = 0.0

    def holders(self, line: int) -> list[int]:
        return [cpu for cpu, levels in enumerate(self.own) if line in levels[-1]]

    def groups(self, line: int) -> list[int]:
        return [group for group, level in enumerate(self.shared) if line in level]

    # -- what leaves ----------------------------------------------------------------------------------------------------

    def busy(self, at: float) -> float:
        begin = max(at, self.controller) if self.timing.occupancy[self.home] else at
        self.controller = begin + self.timing.occupancy[self.home]
        return begin

    def write_back(self, line: int, at: float) -> None:
        if self.stale.pop(line, None):
            self.busy(at)

    def forget(self, cpu: int, line: int) -> None:
        for level in self.own[cpu]:
            level.remove(line)

    def leave_shared(self, group: int, line: int, at: float) -> None:
        """It has left an L3: an inclusive one takes it from its CPUs, too."""
        if not self.victim:
            for cpu in self.holders(line):
                if self.group_of[cpu] == group:
                    self.forget(cpu, line)
                    if self.stale.get(line) == ("cpu", cpu):
                        self.write_back(line, at)
        if self.stale.get(line) == ("l3", group):
            self.write_back(line, at)

    def use_shared(self, group: int, line: int, at: float) -> None:
        gone = self.shared[group].use(line)
        if gone is not None:
            self.leave_shared(group, gone, at)

    def bring(self, cpu: int, line: int, nearest: int, at: float) -> None:
        group, own = self.group_of[cpu], self.own[cpu]
        if not self.victim or nearest == len(own):
            self.use_shared(group, line, at)
        for level in range(len(own) - 1, nearest - 1, -1):
            gone = own[level].use(line)
            if gone is None or level < len(own) - 1:
                continue
            self.forget(cpu, gone)
            if self.victim:
                self.use_shared(group, gone, at)
            if self.stale.get(gone) == ("cpu", cpu):
                self.stale[gone] = ("l3", group)

    # -- what an access costs -------------------------------------------------------------------------------------------

    def access(self, cpu: int, at: float, line: int, write: bool) -> float:
        """When an access that begins at `at` is done."""
        group, timing = self.group_of[cpu], self.timing
        others = [other for other in self.holders(line) if other != cpu]
        elsewhere = [other for other in self.groups(line) if other != group]
        level = next((number for number, level in enumerate(self.own[cpu]) if line in level), None)
        if level is not None and not (write and (others or elsewhere)):
            for nearer in self.own[cpu][: level + 1]:
                nearer.use(line)
            if write:
                self.stale[line] = ("cpu", cpu)
                if self.victim:
                    self.shared[group].remove(line)
            return at + timing.caches[level].latency
        at = max(at, self.free[line])
        cost = self.transfer(cpu, line, write, others, elsewhere)
        from_memory = cost is None
        at = self.busy(at) + self.machine.memory_from(cpu)[self.home] if from_memory else at + cost
        self.free[line] = at
        self.take(cpu, line, write, at)
        if from_memory and not write:
            self.prefetch(cpu, line, at)
        return at

    def transfer(self, cpu: int, line: int, write: bool, others: list[int], elsewhere: list[int]) -> float | None:
        """None: from memory."""
        far, node, group = self.timing.core_to_core[cpu], self.machine.node_of, self.group_of[cpu]
        members = self.machine.groups("die")
        kind, where = self.stale.get(line, ("memory", None))
        if kind == "cpu" and where != cpu:
            return far[where]
        if kind == "l3" and where != group:
            return min(far[other] for other in members[where])
        if write and (others or elsewhere):
            return max([far[other] for other in others] + [min(far[other] for other in members[each]) for each in elsewhere])
        if line in self.shared[group]:
            return self.timing.caches[-1].latency
        near = [*others, *(other for each in elsewhere for other in members[each])]
        return min((far[other] for other in near if node[other] == node[cpu]), default=None)

    def take(self, cpu: int, line: int, write: bool, at: float) -> None:
        group = self.group_of[cpu]
        kind, where = self.stale.get(line, ("memory", None))
        if write:
            for other in self.holders(line):
                if other != cpu:
                    self.forget(other, line)
            for other, level in enumerate(self.shared):
                if self.victim or other != group:
                    level.remove(line)
            self.stale[line] = ("cpu", cpu)
        elif kind == "cpu" and not self.victim and self.group_of[where] == group:
            self.stale[line] = ("l3", group)
        elif kind == "l3" and where == group:
            self.stale[line] = ("cpu", cpu) if self.victim else ("l3", group)
        else:
            self.write_back(line, at)
        if self.victim:
            self.shared[group].remove(line)
        self.bring(cpu, line, 0, at)

    def prefetch(self, cpu: int, line: int, at: float) -> None:
        for level, cache in enumerate(self.timing.caches):
            other = line ^ 1 if cache.prefetch == PAIR else line + 1
            size = self.timing.line
            if (
                cache.prefetch != NOTHING
                and other * size // PAGE == line * size // PAGE
                and not self.holders(other) + self.groups(other)
            ):
                self.bring(cpu, other, level, at)

    def flush(self, line: int, at: float) -> None:
        for cpu in self.holders(line):
            self.forget(cpu, line)
        for level in self.shared:
            level.remove(line)
        self.write_back(line, at)


# -- what follows ------------------------------------------------------------------------------------------------------


def plateau(machine: Machine, level: int, cpu: int = 0) -> float:
    """A dependent load that level 1, 2 or 3 serves, or memory (4)."""
    timing, home = machine.timing, machine.node_of[cpu]
    return timing.instruction + (
        timing.caches[level - 1].latency if level <= len(timing.caches) else machine.memory_from(cpu)[home]
    )


def capacity(machine: Machine, level: int) -> int:
    """Bytes that a CPU finds no farther than in this level: an inclusive one holds the nearer ones' lines as well, a victim none of them."""
    cache = machine.timing.caches[level - 1]
    return cache.size + (capacity(machine, level - 1) if cache.kind == VICTIM else 0)


def single_operation(machine: Machine, kind: str, state: str, cpu: int, holder: int | None = None) -> float:
    """One operation on a line in a state that `holder`, or the CPU itself, has prepared, played on one line."""
    caches, timing, write = Caches(machine, machine.node_of[cpu]), machine.timing, kind == ATOMIC
    by = cpu if holder is None else holder
    caches.access(by, 0.0, 0, write=True)
    if state not in (MODIFIED, OWNED):
        caches.flush(0, 0.0)
    if state in (EXCLUSIVE, SHARED):
        caches.access(by, 0.0, 0, write=False)
    if state in (SHARED, OWNED):
        caches.access(cpu, 0.0, 0, write=False)
    begin = caches.free[0]
    took = caches.access(cpu, begin, 0, write) - begin
    return OPERATION_INSTRUCTIONS * timing.instruction + timing.hit + (timing.atomic if write else 0.0) + took
