"""Three and more threads on one line: atomic adds and locks, hop by hop, and who gets how much, on machines where the order of arrival does not matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numabench

from ..expected import threads
from ..judgement import Finding, number
from ..machine import Machine, load_machine
from ..visits import OPTIONS, measure

NAME = "threads"
EQUAL, HUB = range(8), range(8, 16)  # CPUs: the first die's, all equally far apart; the second one's
COUNTS = (3, 4, 8)
SHARED = 8  # bytes between counters: eight of them in one line
SHORT = (*OPTIONS, "--processes", "1")
THREADS = ("--set", f"threads={','.join(map(str, COUNTS))}")
LOCKS = ("--set", "critical_section=0", "--set", "read_share=0")
COUNTERS = (
    "--set",
    "operation=atomic_add",
    "--set",
    "spacing=0",
    "--set",
    "readers=0",
    "--set",
    "offset=0",
    "--set",
    f"stride={SHARED}",
)


@dataclass(frozen=True)
class Part:
    """One run of a benchmark among `cpus`. `words`: what it is asked besides; `primitives`: what it protects its counter by."""

    benchmark: str
    cpus: range
    primitives: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        return ["run", self.benchmark, "--cpus", f"{self.cpus[0]}-{self.cpus[-1]}", *self.words, *THREADS, *SHORT]


RUNS = {  # folder -> what is run
    "equal": Part("contention", EQUAL, ("atomic_add", "ticket", "mcs"), ("--set", "primitive=atomic_add,ticket,mcs", *LOCKS)),
    "hub": Part("contention", HUB, ("atomic_add",), ("--set", "primitive=atomic_add", *LOCKS)),
    "counters": Part("padded_counters", HUB, ("atomic_add",), COUNTERS),
}
#: Four threads at a ticket lock take one of two rhythms, by who came first: 1,022 or 1,400 ns.
UNDECIDED = (("ticket", 4),)
#: What the guest finds and the independent simulation does not: three at a ticket lock 1,061 ns for 620, four and eight at MCS 5.8 % more. Which of the two plays the lock otherwise than it is, is not known yet.
UNEXPLAINED = (("ticket", 3), ("mcs", 4), ("mcs", 8))
FAIRNESS_SLACK = 0.01
PLACEMENT = "l3"


@dataclass(frozen=True)
class KnownThreads:
    of: Machine
    name: str = NAME
    boots: int = 1
    uses: tuple[str, ...] = ("contention", "padded_counters")

    @property
    def summary(self) -> str:
        return f"{self.of.summary}. What {', '.join(map(str, COUNTS))} threads on one line take, and whether each gets its share"

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        step(f"{self.name}: measuring")
        runs = {name: part.command for name, part in RUNS.items()}
        _, logs = measure(self.of, runs, shared, tree, (*self.uses, "sentinel", "crew"))
        done()
        return [finding for name, log in logs.items() for finding in self.judge(name, log)]

    def judge(self, name: str, log: Path) -> list[Finding]:
        rows = numabench.load(log).estimates()
        rows = rows[rows["placement"] == PLACEMENT]
        part, findings = RUNS[name], []
        for primitive in part.primitives:
            for count in COUNTS:
                if (primitive, count) in (*UNDECIDED, *UNEXPLAINED):
                    continue
                cpus = list(part.cpus[:count])
                hop = self.of.timing.core_to_core[cpus[0]][cpus[1]]
                wanted, fairness = threads.contention(self.of, primitive, cpus, hop)
                row = rows[rows["threads"] == count]
                row = row[row["primitive"] == primitive] if "primitive" in row else row
                what = "counters in one line" if part.benchmark == "padded_counters" else primitive
                where = f"{count} threads, CPUs {cpus[0]} to {cpus[-1]}"
                findings.append(number(self.of, what, where, wanted, row[row["metric"] == "time_per_operation"], "ns"))
                shares = row[row["metric"] == "fairness"]
                found = float(shares.iloc[0]["value"]) if len(shares) == 1 else "no valid sample"
                findings.append(Finding(self.of.name, f"fairness of {what}", where, fairness, found, FAIRNESS_SLACK))
        return findings


def known() -> KnownThreads:
    return KnownThreads(load_machine(Path(__file__).with_suffix(".toml")))
