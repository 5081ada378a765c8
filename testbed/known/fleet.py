"""The known-answer fleet: twelve machines of one description, of which one has a slow node and one a slow link. `numabench fleet` has to name both, and only them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from numabench.analysis.cohorts import Fleet, Member, judge_fleet
from numabench.analysis.collect import read_fleet
from numabench.analysis.fleet import ALIKE, DIFFERS, SUSPECT

from ..judgement import Finding
from ..machine import Machine, load_machine
from ..visits import visit

NAME = "fleet"
OF = "two-socket"
MACHINES = 12
SLOWER = 1.15  # what the two have of the others' latency
SLOW_NODE = 1  # its memory, from everywhere
SLOW_LINK = (0, 1)  # between these nodes, both ways: their memory, and lines between their CPUs
SECOND_LOOKS = 2  # more visits to each suspect
#: The profile for one visit of many, with small windows and few processes, since virtual time passes slowly: little scatters here. Memory of 32 times the caches.
WORDS = (
    *("run", "node_latency", "core_to_core", "--profile", "accept", "--set", "size=2M"),
    *("--window", "1ms", "--samples", "1", "--processes", "3", "--budget", "20m"),
)


@dataclass(frozen=True)
class KnownFleet:
    """`of`: what all were built as. The last two machines have the faults."""

    of: Machine
    name: str = NAME
    uses: tuple[str, ...] = (OF, "node_latency", "core_to_core")

    @property
    def summary(self) -> str:
        a, b = SLOW_LINK
        return (
            f"{MACHINES} machines as {self.of.name}, each with a seed of its own; the memory of node {SLOW_NODE} is {SLOWER - 1:.0%} slower on "
            f"{self.machines[-2].name}, and the link between nodes {a} and {b} on {self.machines[-1].name}. What `numabench fleet` says of one visit to each and two more to each suspect"
        )

    @property
    def boots(self) -> int:
        return MACHINES + SECOND_LOOKS * len(self.faults)

    @cached_property
    def machines(self) -> tuple[Machine, ...]:
        named = [replace(self.of, name=f"{self.name}-{number + 1:02}") for number in range(MACHINES)]
        return (*named[:-2], with_slow_node(named[-2]), with_slow_link(named[-1]))

    @property
    def faults(self) -> dict[str, Callable[[Member], bool]]:
        """Machine -> whether what `numabench fleet` says of it is its fault: it and nothing else."""
        return {self.machines[-2].name: self.shows_slow_node, self.machines[-1].name: self.shows_slow_link}

    @property
    def causes(self) -> dict[str, str]:
        """Machine -> what its cause has to begin with."""
        a, b = SLOW_LINK
        return {
            self.machines[-2].name: f"memory of node {SLOW_NODE} alone",
            self.machines[-1].name: f"nodes {a} and {b} alone: the link",
        }

    def shows_slow_node(self, member: Member) -> bool:
        """Its memory from all nodes, and nothing else."""
        return moved_between(member) == {(node, SLOW_NODE) for node in self.of.cpu_nodes} and not moved_lines(member, self.of)

    def shows_slow_link(self, member: Member) -> bool:
        """Memory both ways, and lines between their CPUs."""
        return moved_between(member) == {SLOW_LINK, SLOW_LINK[::-1]} and moved_lines(member, self.of) == {frozenset(SLOW_LINK)}

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        return self.judge(self.visit_all(shared, tree, step, done))

    def visit_all(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Path]:
        """Logs of a boot of each machine, and of two more of each that is then a suspect."""

        def boot(machine: Machine, seed: int, time: str) -> Path:
            step(f"{machine.name}: {time} visit")
            log = visit(machine, shared / f"{machine.name}-{seed}", tree, look=False, words=[*WORDS, "--seed", str(seed)]).log
            done()
            return log

        logs = [boot(machine, number, "first") for number, machine in enumerate(self.machines, 1)]
        suspects = {member.alias for member in fleet_of(logs).of(SUSPECT)}
        for more in range(1, SECOND_LOOKS + 1):
            logs += [
                boot(machine, more * MACHINES + number, "another")
                for number, machine in enumerate(self.machines, 1)
                if machine.name in suspects
            ]
        return logs

    def judge(self, logs: Sequence[Path]) -> list[Finding]:
        """A finding for each machine: whether it is named; of one that should be whether exactly its fault was found, and its cause."""
        found = {member.alias: member for cohort in fleet_of(logs).cohorts for member in cohort.members}
        findings = []
        for machine in self.machines:
            member, shows = found.get(machine.name), self.faults.get(machine.name)
            state = member.state if member else "without a log"
            findings.append(Finding(self.name, "state", machine.name, DIFFERS if shows else ALIKE, state))
            if shows:
                named = "its own fault and no other" if member and shows(member) else said(member) if member else state
                findings.append(Finding(self.name, "what moved", machine.name, "its own fault and no other", named))
                cause, wanted = member.cause if member else "", self.causes[machine.name]
                findings.append(Finding(self.name, "cause", machine.name, wanted, wanted if cause.startswith(wanted) else cause))
        return findings


def known() -> KnownFleet:
    return KnownFleet(load_machine(OF))


def with_slow_node(machine: Machine) -> Machine:
    memory = tuple(
        tuple(ns * SLOWER if column == SLOW_NODE else ns for column, ns in enumerate(row)) for row in machine.timing.memory
    )
    return replace(machine, timing=replace(machine.timing, memory=memory))


def with_slow_link(machine: Machine) -> Machine:
    def slower(matrix: Sequence[Sequence[float]], node_of: Sequence[int]) -> tuple[tuple[float, ...], ...]:
        return tuple(
            tuple(ns * SLOWER if {node_of[a], node_of[b]} == {*SLOW_LINK} else ns for b, ns in enumerate(row))
            for a, row in enumerate(matrix)
        )

    timing = machine.timing
    changed = replace(
        timing,
        memory=slower(timing.memory, range(len(machine.nodes))),
        core_to_core=slower(timing.core_to_core, machine.node_of),
    )
    return replace(machine, timing=changed)


def moved_between(member: Member) -> set[tuple[int, int]]:
    """(node of the CPU, node of the memory) of what moved."""
    points = [cell.parameters for cell in member.cells]
    return {(p["cpu_node"], p["memory_node"]) for p in points if "cpu_node" in p}


def moved_lines(member: Member, machine: Machine) -> set[frozenset[int]]:
    """Nodes between whose CPUs lines moved otherwise."""
    points = [cell.parameters for cell in member.cells]
    return {frozenset((machine.node_of[p["cpu_a"]], machine.node_of[p["cpu_b"]])) for p in points if "cpu_a" in p}


def fleet_of(logs: Sequence[Path]) -> Fleet:
    visited, unread, notes = read_fleet(logs)
    return judge_fleet(visited, unread, notes)


def said(member: Member) -> str:
    cells = ", ".join(" ".join(f"{name}={value}" for name, value in cell.parameters.items()) for cell in member.cells[:4])
    return f"{len(member.cells)} cells: {cells}"
