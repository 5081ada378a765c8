"""The contracts of runtimes on a simulated machine: what its kernel does is emulated and its prices are not given, but each outcome and each count is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numabench
from numabench.benchmarks import choose
from numabench.runlog.read import RunLog

from ..guest import NOTHING, run
from ..judgement import Finding
from ..machine import Machine, load_machine
from ..visits import guest_script, logs_of, measuring

NAME = "contracts"
OF = "two-socket"
TOPIC = "runtime"
#: Small windows and one process: an outcome is exact, and more of them say nothing more.
WORDS = (
    "run",
    TOPIC,
    "--profile",
    "quick",
    "--window",
    "2ms",
    "--samples",
    "1",
    "--processes",
    "1",
    "--budget",
    "20m",
    "--anyway",
)
HELD = "as predicted"
JUDGED = ("check:", "physics:", "cpu_moved")  # reasons that no busy or slow machine explains
TIMEOUT = 1200.0


@dataclass(frozen=True)
class KnownContracts:
    of: Machine
    name: str = NAME
    boots: int = 1

    @property
    def uses(self) -> tuple[str, ...]:
        return OF, *(benchmark.name for benchmark in choose([TOPIC]))

    @property
    def summary(self) -> str:
        return (
            f"The benchmarks of the topic {TOPIC} on {self.of.name}, by its kernel as it is: no price is given there, and each outcome and each count is. What is held: "
            "every case was measured, and every check value was as predicted"
        )

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        step(f"{self.name}: measuring")
        log = self.visit(shared, tree)
        done()
        return judge(log)

    def visit(self, shared: Path, tree: Path) -> RunLog:
        kernels = (*dict.fromkeys(benchmark.kernel for benchmark in choose([TOPIC])), "sentinel", "crew")
        shutil.rmtree(shared, ignore_errors=True)
        script = guest_script(tree, "ip link set lo up", measuring(self.of, WORDS, "results"), kernels=kernels)
        found = run(self.of, script, shared=shared, timed=NOTHING, timeout=TIMEOUT)
        return numabench.load(logs_of(found, self.of, ["results"], any_status=True)["results"]).log


def known() -> KnownContracts:
    return KnownContracts(load_machine(OF))


def judge(log: RunLog) -> list[Finding]:
    """A finding for each benchmark: whether each of its cases was measured, and each sample as predicted."""
    findings = []
    for record in log.benchmarks:
        trials = [trial for trial in log.trials if trial.benchmark == record.name]
        samples = [sample for trial in trials for sample in trial.samples]
        wrong = [reason for sample in samples for reason in sample.reasons if reason.startswith(JUDGED)]
        wrong += [reason for trial in trials if trial.status == "failed" for reason in trial.reasons]
        measured = len({sample.case for sample in samples})
        what = f"{measured} of {record.cases} cases" if measured < record.cases else HELD
        findings.append(Finding(NAME, "contract", record.name, HELD, first(wrong) or what))
    missing = {benchmark.name for benchmark in choose([TOPIC])} - {record.name for record in log.benchmarks}
    return [*findings, *(Finding(NAME, "contract", name, HELD, "not measured") for name in sorted(missing))]


def first(wrong: Sequence[str]) -> str:
    return f"{wrong[0]}{f', and {len(wrong) - 1} more' if len(wrong) > 1 else ''}" if wrong else ""
