"""Levels of caches with given answers: what a load takes from each, how much each holds, and what an operation takes on a line in each state that a flush can prepare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numabench
from numabench.benchmarks.single_operations import STATES
from numabench.units import format_bytes

from ..expected import ATOMIC, READ
from ..expected import caches as expected
from ..judgement import HOP_SLACK, Finding, answers_of, number, places_of
from ..machine import Machine, load_machine
from ..visits import core_cpus, measure

NAME = "caches"
OF = ("inclusive-l3", "victim-l3")
LARGEST = 4 << 20  # bytes that no cache of these machines helps with
OPERATIONS = {"load": READ, "add": ATOMIC}
#: One process and a short window: nothing scatters but what the guest's timer interrupts, and two threads that hand lines to each other take long.
OPTIONS = ("--window", "500us", "--samples", "1", "--processes", "1", "--budget", "30m")
KERNELS = ("memory_latency", "single_operations", "sentinel", "crew")
TIMEOUT = 1800.0
BLURRED = 1.5  # times what a level holds, it serves nothing any more
LEVELS = {1: "L1", 2: "L2", 3: "L3", 4: "memory"}


@dataclass(frozen=True)
class KnownCaches:
    machines: tuple[Machine, ...]
    name: str = NAME
    uses: tuple[str, ...] = (*OF, "memory_latency", "single_operations")

    @property
    def summary(self) -> str:
        return (
            f"Three levels of caches on {' and '.join(machine.name for machine in self.machines)}: what a dependent load takes from each level and from "
            "memory, how much each level holds by numabench, and load of lines that are modified, exclusive or in no cache, and add in every state, here and elsewhere"
        )

    @property
    def boots(self) -> int:
        return len(self.machines)

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        findings = []
        for machine in self.machines:
            step(f"{self.name}: {machine.name}")
            _, logs = measure(machine, {"results": words(machine)}, shared / machine.name, tree, KERNELS, timeout=TIMEOUT)
            findings += judge(machine, numabench.load(logs["results"]))
            done()
        return findings


def known() -> KnownCaches:
    return KnownCaches(tuple(map(load_machine, OF)))


def sizes(machine: Machine) -> list[int]:
    """Working sets on both sides of each level's end, and those by which numabench knows the level: half of L1 and L2, twice L2."""
    ends = [expected.capacity(machine, level) for level in (1, 2, 3)]
    around = [end * share // 4 for end in ends for share in (3, 5)]
    return sorted({*around, ends[0] // 2, ends[1] // 2, 2 * ends[1], LARGEST})


def level_of(machine: Machine, size: int) -> int | None:
    """The level that serves every load of a working set; None just beyond a level's end, where it still serves some."""
    for level in (1, 2, 3):
        if size < BLURRED * expected.capacity(machine, level):
            return level if size <= expected.capacity(machine, level) else None
    return 4


def words(machine: Machine) -> list[str]:
    """The run, as a user would type it."""
    chase = {"size": ",".join(map(str, sizes(machine))), "order": "group", "page_size": "thp", "chains": "1", "laps": "1"}
    chosen = {**chase, "operation": ",".join(OPERATIONS), "state": ",".join(STATES)}
    settings = [word for name, value in chosen.items() for word in ("--set", f"{name}={value}")]
    return ["run", "memory_latency", "single_operations", *settings, "--cpus", ",".join(map(str, core_cpus(machine))), *OPTIONS]


def judge(machine: Machine, log) -> list[Finding]:
    estimates = log.estimates()
    estimates = estimates[estimates["main"] & (estimates["metric"] == "latency")]
    return [*judge_loads(machine, estimates), *judge_capacities(machine, log), *judge_states(machine, log, estimates)]


def judge_loads(machine: Machine, estimates) -> list[Finding]:
    rows = estimates[estimates["benchmark"] == "memory_latency"]
    findings = []
    for size in sizes(machine):
        level = level_of(machine, size)
        if level is None:
            continue
        where, wanted = f"{format_bytes(size)} ({LEVELS[level]})", expected.plateau(machine, level)
        findings.append(number(machine, "load by working set", where, wanted, rows[rows["size"] == size], "ns"))
    return findings


def judge_capacities(machine: Machine, log) -> list[Finding]:
    """By the report's own words: where it sees a level end. Right is what lies in the step of the sweep that the level's end lies in."""
    said = {answer.text.split(",")[0]: answer for answer in answers_of(log, "memory_latency") if answer.kind == "capacity"}
    findings = []
    for level in (1, 2, 3):
        wanted, answer = float(expected.capacity(machine, level)), said.get(LEVELS[level])
        known = answer is not None and answer.value is not None
        found, low, high = (float(answer.value), answer.low, answer.high) if known else ("not said", 0.0, 0.0)
        slack = high - low if low <= wanted <= high else 0.0
        findings.append(Finding(machine.name, "capacity", LEVELS[level], wanted, found, slack, low, high, "B"))
    return findings


def judge_states(machine: Machine, log, estimates) -> list[Finding]:
    rows = estimates[estimates["benchmark"] == "single_operations"]
    findings = []
    for relation, cpus in places_of(log).items():
        alone = len(cpus) == 1
        where = f"CPU {cpus[0]} alone" if alone else f"CPUs {cpus[0]}, {cpus[1]} ({relation})"
        for state in STATES:
            if state in (expected.SHARED, expected.OWNED) if alone else state == expected.INVALID:
                continue  # nobody to share it with; nobody to hold it
            for operation, kind in OPERATIONS.items():
                if kind == READ and state in (expected.SHARED, expected.OWNED):
                    continue  # from its own L1: the clock's steps are too long for so few rounds
                row = rows[(rows["placement"] == relation) & (rows["operation"] == operation) & (rows["state"] == state)]
                wanted = expected.single_operation(machine, kind, state, *cpus)
                findings.append(number(machine, f"{operation} of a line that is {state}", where, wanted, row, "ns", HOP_SLACK))
    return findings
