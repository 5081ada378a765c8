"""Wrong benchmarks on purpose (../defects.py): as a mistake numabench's own proof refuses what they measure; with that check off the certificate's figures turn red."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numabench
from numabench.api import Run

from ..defects import BLIND, DEFECTS, defective_tree
from ..guest import run
from ..judgement import TOLERANCE, Finding, judge_nodes
from ..machine import Machine, load_machine
from ..visits import TIMEOUT, guest_script, logs_of, measuring, numabench_command
from . import bandwidth

NAME = "defects"
NODES = "node latency"
#: Those that latencies of nodes show; what else shows one is certified elsewhere.
IN_NODES = tuple(name for name, defect in DEFECTS.items() if defect.shows.startswith(NODES))
WORDS = numabench_command(("node_latency",), processes=1)
#: On a machine whose neighbours come along, numabench as it is: single loads in both orders. A tenth of 10 ms is time for two groups of them.
ORDERS = shlex.split(
    "run memory_latency --set size=8M --set order=group,adjacent --set page_size=thp --set chains=1 --set laps=1 --window 10ms --samples 2 --processes 1"
)
KERNELS = ("memory_latency", "sentinel", "crew")
ONCE = shlex.split("--window 1ms --samples 1 --processes 1 --set size=6M --set page_size=thp --set vector=avx2")
#: Blind on the machine of bandwidth.py, in cells that show them: name -> what turns red, whose logs they are there, the run.
IN_BANDWIDTH = {
    "cached-stream": (
        *("memory bandwidth", "streams"),
        ["run", "memory_bandwidth", *shlex.split("--set kernel=read --set threads=1 --set filling=packed"), *ONCE],
    ),
    "late-chase": (
        *("loaded latency", "loaded"),
        ["run", "loaded_latency", *shlex.split("--set mix=1:0 --set rate=8"), *bandwidth.ON_LOADED_NODE, *ONCE],
    ),
}
RED, GREEN, REFUSED = "red", "green", "refused"


@dataclass(frozen=True)
class KnownDefects:
    name: str = NAME
    uses: tuple[str, ...] = (
        *("node_latency", "memory_latency", "memory_bandwidth", "loaded_latency", bandwidth.NAME),
        *sorted({DEFECTS[name].machine for name in IN_NODES}),
    )

    @property
    def summary(self) -> str:
        return (
            f"{len(IN_NODES) + len(IN_BANDWIDTH)} wrong benchmarks: what numabench's own proof does with each (`{REFUSED}`: no wrong figure is left, and some are missing), and what the figures "
            f"are when that check is off"
        )

    @property
    def machines(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(DEFECTS[name].machine for name in IN_NODES))

    @property
    def boots(self) -> int:
        return len(self.machines) + 1

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        findings = []
        for machine in map(load_machine, self.machines):
            step(f"{self.name}: {machine.name}")
            lines = {
                name + suffix: measuring_with(defective_tree(name + suffix), machine, WORDS, name + suffix)
                for name in IN_NODES
                if DEFECTS[name].machine == machine.name
                for suffix in ("", BLIND)
            }
            if machine.timing.prefetch != "none":
                lines["orders"] = measuring_with(tree, machine, ORDERS, "orders")
            runs = {name: numabench.load(log) for name, log in visit(machine, lines, shared / machine.name).items()}
            done()
            findings += judge_orders(machine, runs.pop("orders")) if "orders" in runs else []
            findings += judge(machine, runs)
        step(f"{self.name}: {bandwidth.NAME}")
        machine = bandwidth.known().of
        lines = {
            name: measuring_with(defective_tree(name + BLIND), machine, words, name, bandwidth.KERNELS)
            for name, (_, _, words) in IN_BANDWIDTH.items()
        }
        logs = visit(machine, lines, shared / machine.name)
        done()
        return [*findings, *judge_bandwidth(machine, logs)]


def known() -> KnownDefects:
    return KnownDefects()


def measuring_with(tree: Path, machine: Machine, words: Sequence[str], name: str, kernels: tuple[str, ...] = KERNELS) -> str:
    """The guest's lines that run numabench of `tree`, whose samples may all be refused."""
    return guest_script(tree, f"{measuring(machine, words, name)} || [ -s /out/{name}/*/*.jsonl ] || exit", kernels=kernels)


def visit(machine: Machine, lines: dict[str, str], shared: Path) -> dict[str, Path]:
    """The logs of one boot."""
    return logs_of(run(machine, "\n".join(lines.values()), shared=shared, timeout=2 * TIMEOUT), machine, lines)


def judge(machine: Machine, runs: dict[str, Run]) -> list[Finding]:
    """Two findings for each defect."""
    findings = []
    for name, measured in runs.items():
        estimates = measured.estimates()
        cells = [f for f in judge_nodes(machine, measured, estimates[estimates["main"]]) if f.what == NODES]
        wrong = any(not f.right and isinstance(f.found, float) for f in cells)
        missing = any(not isinstance(f.found, float) for f in cells)
        of = name.removesuffix(BLIND)
        if name.endswith(BLIND):
            findings.append(blind(of, wrong))
        else:
            said = "a wrong figure is left" if wrong else REFUSED if missing else "nothing is refused"
            findings.append(Finding(NAME, "numabench's own proof", of, REFUSED, said))
    return findings


def judge_bandwidth(machine: Machine, logs: dict[str, Path]) -> list[Finding]:
    """What turns red there, of what those runs measured at all."""
    findings = []
    for name, log in logs.items():
        what, kind, _ = IN_BANDWIDTH[name]
        wrong = [
            f for f in bandwidth.judge(machine, {kind: log}) if f.what == what and not f.right and isinstance(f.found, float)
        ]
        findings.append(blind(name, bool(wrong)))
    return findings


def blind(name: str, wrong: bool) -> Finding:
    return Finding(NAME, "figures, with the check off", name, RED, RED if wrong else GREEN)


def judge_orders(machine: Machine, measured: Run) -> list[Finding]:
    """By hand: of two lines of a pair that are visited soon after each other, the second is in the cache; visited by class, none is. At a group's begin few
    neighbours have come yet, at its end most have."""
    timing = machine.timing
    memory = timing.memory[0][0]
    wanted = {"group": memory + timing.instruction, "adjacent": (memory + timing.hit) / 2 + timing.instruction}
    samples = {s.parameters["order"]: s for trial in measured.log.trials for s in trial.samples}
    findings = []
    for order, given in wanted.items():
        near = 0.5 if order == "adjacent" else 0.0
        what = samples[order].metrics["latency"], samples[order].extra["under_half"]
        findings.append(
            Finding(NAME, f"{order} order", f"latency on {machine.name}", given, what[0], TOLERANCE * given, unit="ns")
        )
        findings.append(Finding(NAME, f"{order} order", f"loads of neighbours on {machine.name}", near, what[1], TOLERANCE))
    return findings
