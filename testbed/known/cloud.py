"""A guest in a cloud: its host moves the two CPUs between pairs, lowers their clock and takes one of them away (`cloud-guest.toml`). numabench has to keep the
distances apart, to set aside what happened within a sample, and to find what the machine is at its usual clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numabench
from numabench.analysis.structure import class_medians, with_circumstances
from numabench.runlog.read import RunLog

from .. import expected
from ..expected.cloud import at_hop, clocks, hops
from ..judgement import HOP_SLACK, TOLERANCE, Finding
from ..machine import Machine, load_machine
from ..visits import visit

NAME = "cloud"
OF = Path(__file__).with_name("cloud-guest.toml")
#: Many short processes, since what is asked is what becomes of them where the host acts between and within them.
WORDS = (
    *("run", "contention", "node_latency", "--set", "size=8M", "--set", "page_size=thp", "--set", "primitive=atomic_add"),
    *("--set", "critical_section=0", "--set", "threads=2", "--set", "read_share=0"),
    *("--window", "1ms", "--samples", "4", "--processes", "12", "--budget", "20m"),
)
SEEN = 4  # processes at a distance from which on its figure is judged
CLOCK = 0.01  # share by which the ratio of two clocks may be off
NONE = "none counts"


@dataclass(frozen=True)
class KnownCloud:
    of: Machine
    name: str = NAME
    boots: int = 1

    @property
    def summary(self) -> str:
        return (
            f"A boot of {self.of.name}, whose {len(self.of.events)} events move its CPUs between pairs that are {listed(hops(self.of))} ns apart, change its clock and take a CPU away. "
            "Which distances numabench tells apart, what it finds at each of them, and whether a sample counts in which something happened"
        )

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        step(f"{self.name}: measuring")
        log = visit(self.of, shared / NAME, tree, look=False, words=list(WORDS)).log
        done()
        return judge(self.of, numabench.load(log))


def known() -> KnownCloud:
    return KnownCloud(load_machine(OF))


def judge(machine: Machine, run) -> list[Finding]:
    """Every claim of one visit."""
    estimates = run.estimates()
    contended = estimates[(estimates["benchmark"] == "contention") & (estimates["metric"] == "time_per_operation")]
    latency = estimates[(estimates["benchmark"] == "node_latency") & (estimates["metric"] == "latency") & estimates["main"]]
    found = class_medians(with_circumstances(run.samples()))
    nearest = {min(hops(machine), key=lambda hop: abs(math.log(hop / median))): label for label, median in found.items()}
    findings = [
        Finding(
            NAME,
            "distances",
            "told apart",
            listed(hops(machine)),
            listed(found.values()) if len(found) != len(nearest) else listed(sorted(nearest)),
        )
    ]
    for hop in hops(machine):
        if hop not in nearest:
            continue
        wanted, there = expected.hop(at_hop(machine, hop), 0, 1), found[nearest[hop]]
        findings.append(Finding(NAME, "hop", f"{hop:g} ns apart", wanted, there, TOLERANCE * wanted + HOP_SLACK, unit="ns"))
        row = contended[(contended["distance"] == nearest[hop]) & (contended["processes"] >= SEEN)]
        if len(row):
            wanted = expected.contended_atomic(at_hop(machine, hop), [0, 1])
            findings.append(figure("contended atomic_add", f"{hop:g} ns apart", wanted, row.iloc[0], 2 * HOP_SLACK))
    wanted = expected.node_latency(machine, 0, 0)
    findings += [figure("node latency", "at the usual clock", wanted, row) for _, row in latency.iterrows()]
    return [*findings, *judge_samples(machine, run.log)]


def judge_samples(machine: Machine, log: RunLog) -> list[Finding]:
    """What became of the samples in which something happened, and how far apart the clocks are."""
    samples = [sample for trial in log.trials for sample in trial.samples]
    slow, fast = clocks(machine)[0], clocks(machine)[-1]
    seen = [frequency for sample in samples for frequency in sample.frequency or ()]
    ratio = min(seen) / max(seen) if seen else math.nan
    stolen = max(event.stolen[1] for event in machine.events if event.stolen)
    happened = {
        "that were moved": [s for s in samples if s.hop and max(s.hop) > 1.5 * min(s.hop)],
        "of which a CPU was away": [s for s in samples if any(t.gap_time * 1e3 > stolen / 2 for t in s.threads)],
    }
    return [
        Finding(NAME, "clocks", "the lower over the usual one", slow / fast, ratio, CLOCK * slow / fast),
        *(
            Finding(
                NAME, f"samples {what}", f"{len(those)} of {len(samples)}", NONE, NONE if not any(s.valid for s in those) else f"{sum(s.valid for s in those)} count",
            )
            for what, those in happened.items()
        ),
    ]  # fmt: skip


def figure(what: str, where: str, wanted: float, row, more: float = 0.0) -> Finding:
    slack = TOLERANCE * wanted + more
    return Finding(NAME, what, where, wanted, float(row["value"]), slack, float(row["low"]), float(row["high"]), "ns")


def listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)
