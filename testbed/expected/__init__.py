"""What a right benchmark must find on a machine, by arithmetic and a small sequential simulation.

Written from the rules of docs/testbed.md alone: no code is shared with the simulator, which runs real threads under a real
kernel. Here one loop at a time is played, always moving the thread whose clock is least.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from ..machine import Machine

READ, WRITE, ATOMIC = "read", "write", "atomic"
ROUNDS = 400  # of a loop; a fifth is left out as the start
LOOP_INSTRUCTIONS = (
    16  # around one operation of a kernel (10 to 25): hidden by the transfer of a line, or small against the operation
)
ALIKE = 1.03  # latencies nearer than this are one
NEARLY = 0.0025
OPERATION_INSTRUCTIONS = 9  # of a single operation's turn


@dataclass
class Line:
    owner: int | None = None  # CPU that holds it modified
    holders: frozenset[int] = frozenset()
    free: float = 0.0


class Loops:
    """One loop of accesses per CPU, on memory whose home is `home`."""

    def __init__(self, machine: Machine, home: int = 0):
        self.machine, self.timing, self.home = machine, machine.timing, home
        self.lines: dict[int, Line] = {}

    def access(self, cpu: int, at: float, address: int, kind: str) -> float:
        """When an access that begins at `at` is done."""
        timing, write = self.timing, kind != READ
        line = self.lines.setdefault(address // timing.line, Line())
        others = line.holders - {cpu}
        if cpu in line.holders and not (write and others):
            line.owner = cpu if write else line.owner
            return at + timing.hit
        at = max(at, line.free) + self.cost(cpu, line, others, write)
        line.holders = frozenset({cpu}) if write else line.holders | {cpu}
        line.owner, line.free = (cpu if write else None), at
        return at

    def cost(self, cpu: int, line: Line, others: frozenset[int], write: bool) -> float:
        from_core, node = self.timing.core_to_core[cpu], self.machine.node_of
        if line.owner is not None and line.owner != cpu:
            return from_core[line.owner]
        if write and others:
            return max(from_core[other] for other in others)
        near = [from_core[other] for other in others if node[other] == node[cpu]]
        return min(near) if near else self.machine.memory_from(cpu)[self.home]

    def period(self, cpus: list[int], body: Callable[[int], list[tuple[int, str]]], work: float = 0.0) -> float:
        """Nanoseconds of one turn of the loop in each thread, while all run; `body(i)`: accesses of thread i's turn."""
        bodies = {cpu: body(index) for index, cpu in enumerate(cpus)}
        clock, turns = dict.fromkeys(cpus, 0.0), dict.fromkeys(cpus, 0)
        marks: dict[int, float] = {}
        while min(turns.values()) < ROUNDS:
            cpu = min(cpus, key=lambda c: (clock[c], c))
            clock[cpu] += LOOP_INSTRUCTIONS * self.timing.instruction + work
            for address, kind in bodies[cpu]:
                clock[cpu] += self.timing.atomic if kind == ATOMIC else 0.0
                clock[cpu] = self.access(cpu, clock[cpu], address, kind)
            turns[cpu] += 1
            if turns[cpu] == ROUNDS // 5:
                marks[cpu] = clock[cpu]
            if turns[cpu] == ROUNDS:
                last = clock[cpu]
        return (last - marks[cpu]) / (ROUNDS - ROUNDS // 5)


def contended_atomic(machine: Machine, cpus: list[int]) -> float:
    """Time per operation in each of the threads that add to one counter."""
    return Loops(machine).period(cpus, lambda index: [(0, ATOMIC)])


def hop(machine: Machine, a: int, b: int) -> float:
    """One way of a line between two CPUs that turn a word back and forth by compare-and-swap: half a round trip."""
    return Loops(machine).period([a, b], lambda index: [(0, ATOMIC)]) / 2


def single_operation(machine: Machine, kind: str, cpu: int, holder: int | None = None) -> float:
    """One operation on a line that `holder`, or the CPU itself, has modified. The next address, from a table at hand, waits for it."""
    timing = machine.timing
    reach = timing.hit if holder is None else timing.core_to_core[cpu][holder]
    own = timing.atomic if kind == ATOMIC else 0.0
    return OPERATION_INSTRUCTIONS * timing.instruction + timing.hit + own + reach


def false_sharing_penalty(machine: Machine, a: int, b: int) -> float:
    """What a spaced access to a shared line costs more than one to a line of one's own."""
    return machine.timing.core_to_core[a][b] - machine.timing.hit


def knee(machine: Machine, strides: list[int], a: int, b: int) -> int:
    """The smallest stride from which on sharing is free: the line, or the smallest of all where a shared line costs nothing."""
    free = [stride for stride in strides if stride >= machine.timing.line]
    return min(strides) if false_sharing_penalty(machine, a, b) <= 0 else min(free)


def node_latency(machine: Machine, cpu_node: int, memory_node: int) -> float:
    """A dependent load of the node's first CPU: its own instruction, and the memory, which is what every load of the chase has to come from."""
    return cpu_latency(machine, machine.nodes[cpu_node].cpus[0], memory_node)


def cpu_latency(machine: Machine, cpu: int, memory_node: int) -> float:
    """The same of any CPU."""
    return machine.timing.instruction + machine.memory_from(cpu)[memory_node]


def undecided(machine: Machine) -> bool:
    """Whether two memories differ for a node by so nearly what counts as none that the report may call it either."""
    pairs = ((c, *pair) for c in machine.cpu_nodes for pair in itertools.permutations(machine.memory_nodes, 2))
    return any(abs(node_latency(machine, c, a) / node_latency(machine, c, b) - ALIKE) < NEARLY for c, a, b in pairs)


def contradictions(machine: Machine) -> list[str]:
    """What of the firmware's order of memories is wrong, as `from 0: 2, 1 reversed`: of each node with CPUs every two memories by distance, then
    by HMAT (of those memories that this node is the initiator of). 3 % are no difference."""
    found = []
    for c in machine.cpu_nodes:
        stated = sorted((machine.distances[c][m], m) for m in machine.memory_nodes)
        for (close, near), (far, other) in itertools.combinations(stated, 2):
            first, second = node_latency(machine, c, near), node_latency(machine, c, other)
            alike = max(first, second) <= ALIKE * min(first, second)
            if (close == far) != alike:
                found.append(f"from {c}: {near}, {other} {'not equal' if close == far else 'equal'}")
            elif close != far and first > second:
                found.append(f"from {c}: {near}, {other} reversed")
    starts = [
        number if node.cpus else (0 if node.initiator is None else node.initiator) for number, node in enumerate(machine.nodes)
    ]
    for a, b in itertools.combinations(machine.memory_nodes, 2) if machine.hmat_latency else ():
        c = starts[a]
        if c == starts[b]:
            near, other = sorted((a, b), key=lambda m: machine.hmat_latency[c][m])
            promised = machine.hmat_latency[c][other] > ALIKE * machine.hmat_latency[c][near]
            if promised and node_latency(machine, c, near) > ALIKE * node_latency(machine, c, other):
                found.append(f"from {c}: {near}, {other} reversed")
    return found


def relation(machine: Machine, a: int, b: int) -> str:
    """numabench's name for how two CPUs lie to each other."""
    same_node = machine.node_of[a] == machine.node_of[b]
    physical = machine.relation(a, b)
    if physical in ("smt", "cross"):
        return {"smt": "smt", "cross": "cross_package"}[physical]
    if not same_node:
        return "package"
    return "l3" if physical == "die" else "node"
