"""The known-answer store buffer: what stores, fences and drained stores take where a plain store goes into a buffer and the CPU goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numabench
from numabench.benchmarks.padded_counters import PADDED

from ..expected import stores
from ..judgement import Finding, number, places_of
from ..machine import Machine, load_machine
from ..visits import OPTIONS, measure

NAME = "stores"
FENCES = ("none", "mfence", "sfence", "lfence", "lock_or", "xchg", "mov_mfence")
BEFORE = {"nothing": False, "store": True}
SINGLE = {"store": False, "store_drained": True}  # whether each is waited for
OPERATIONS = ("store", "increment")
SHARED = 8  # bytes from a counter to the next: one line
SPACINGS = (0, 400)  # multiplies
SLACK = 0.25  # ns beside the tolerance: one instruction, which a compiler may place elsewhere
SHORT = (*OPTIONS, "--processes", "1")
RUNS = {
    "fences": ("--set", f"fence={','.join(FENCES)}", "--cpus", "0"),
    "single_operations": ("--set", f"operation={','.join(SINGLE)}", "--set", "state=modified", "--cpus", "0,1,2"),
    "padded_counters": (
        *("--set", f"operation={','.join(OPERATIONS)}", "--set", f"spacing={','.join(map(str, SPACINGS))}"),
        *("--set", f"stride={SHARED},{PADDED}", "--set", "threads=1,2", "--set", "readers=0", "--set", "offset=0"),
    ),
}


@dataclass(frozen=True)
class KnownStores:
    of: Machine
    name: str = NAME
    boots: int = 1
    uses: tuple[str, ...] = tuple(RUNS)

    @property
    def summary(self) -> str:
        return f"{self.of.summary}. What fences, single stores, and counters of two threads take there: a store is paid for by what waits for it"

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        step(f"{self.name}: measuring")
        runs = {name: ["run", name, *words, *SHORT] for name, words in RUNS.items()}
        _, logs = measure(self.of, runs, shared, tree, (*RUNS, "sentinel", "crew"))
        done()
        return [
            *self.judge_fences(logs["fences"]),
            *self.judge_single(logs["single_operations"]),
            *self.judge_counters(logs["padded_counters"]),
        ]

    def judge_fences(self, log: Path) -> list[Finding]:
        rows = estimates_of(log, "time")
        return [
            self.number(
                f"{name} after {before}",
                "",
                stores.fence(self.of, name, stored),
                rows[(rows["fence"] == name) & (rows["before"] == before)],
            )
            for before, stored in BEFORE.items()
            for name in FENCES
        ]

    def judge_single(self, log: Path) -> list[Finding]:
        rows = estimates_of(log, "latency")
        return [
            self.number(
                f"{operation} to a modified line",
                cpus_of(cpus),
                stores.single_store(self.of, drained, *cpus),
                rows[(rows["placement"] == placement) & (rows["operation"] == operation)],
            )
            for placement, cpus in places_of(numabench.load(log)).items()
            if len(cpus)
            == 1  # of another's lines some are not its own yet, since it is seen that they were stored before they have drained
            for operation, drained in SINGLE.items()
        ]

    def judge_counters(self, log: Path) -> list[Finding]:
        rows = estimates_of(log, "time_per_operation")
        findings = []
        for placement, cpus in places_of(numabench.load(log)).items():
            for operation in OPERATIONS:
                for stride, spacing in ((stride, spacing) for stride in (SHARED, PADDED) for spacing in SPACINGS):
                    shared = stride == SHARED
                    if shared and (len(cpus) == 1 or not spacing or operation == "increment"):
                        continue  # how full both buffers are as the clock is read, and which of two rhythms the threads take, is not given
                    row = rows[(rows["placement"] == placement) & (rows["operation"] == operation)]
                    row = row[(row["stride"] == stride) & (row["spacing"] == spacing)]
                    what = f"{operation} {'spaced' if spacing else 'back to back'}, {'one line' if shared else 'own lines'}"
                    findings.append(
                        self.number(what, cpus_of(cpus), stores.counters(self.of, list(cpus), operation, stride, spacing), row)
                    )
        return findings

    def number(self, what: str, where: str, wanted: float, rows) -> Finding:
        return number(self.of, what, where, wanted, rows, "ns", SLACK)


def estimates_of(log: Path, metric: str):
    rows = numabench.load(log).estimates()
    return rows[rows["metric"] == metric]


def cpus_of(cpus: tuple[int, ...]) -> str:
    return f"CPU {cpus[0]} alone" if len(cpus) == 1 else f"CPUs {', '.join(map(str, cpus))}"


def known() -> KnownStores:
    return KnownStores(load_machine(Path(__file__).with_suffix(".toml")))
