"""Visits to machines that are not here: the real plan and the real descriptions of a simulated machine or of a snapshot, with values by a simple truth.

    PYTHONPATH=. python tests/pretended.py sixty-four log.jsonl --profile standard
    PYTHONPATH=. python tests/pretended.py ../../shared/topologies/amd-epyc7451-2s-96pu-8n.tar.gz log.jsonl

What a card, a page and a comparison of such a machine look like is seen in seconds; what a kernel measures on one is not (`docs/testbed.md`).
"""

from __future__ import annotations

import argparse
import math
import random
import tarfile
import tempfile
from pathlib import Path

import msgspec
from pages import write_log
from synthetic_sysfs import SyntheticTree

from numabench import __version__, kernel
from numabench.benchmarks import Placement
from numabench.host.machine import read_machine
from numabench.host.topology import Topology
from numabench.measure.visit import Request, Visit
from numabench.model import BenchmarkRecord, EndRecord, Header, Sample, ThreadProof, TrialRecord
from numabench.runlog import MINOR, SCHEMA
from numabench.runlog.read import RunLog
from testbed.machine import load_machine

STARTED, ENDED = "2026-11-28T05:00:00Z", "2026-11-28T05:09:00Z"
CLOCKS = (1.4e9, 2.7e9)  # Hz, between which the clock of a machine wanders
USUAL = 2.6e9
SAMPLES = 2  # of a process
PROCESS, SAMPLE = 0.012, 0.005  # standard deviations in logs
CACHES = ((1 << 15, 1.1), (1 << 20, 3.8), (1 << 23, 11.0))  # bytes, and ns of a load from a working set up to these
MEMORY, HOP = 98.0, {"smt": 10.0, "cluster": 20.0, "l3": 28.0, "node": 80.0, "package": 100.0}  # ns where nothing is declared
FARTHEST = 150.0


class Truth:
    """What one operation costs on a machine, in ns."""

    def __init__(self, topology: Topology, timing=None):
        self.topology, self.timing = topology, timing
        self.line = timing.line if timing else 64

    def hop(self, cpus) -> float:
        """Of the farthest two of the first threads; 0 of one alone."""
        cpus = list(dict.fromkeys(cpus))[:24]
        pairs = [(a, b) for n, a in enumerate(cpus) for b in cpus[:n]]
        if self.timing:
            return max((float(self.timing.core_to_core[a][b]) for a, b in pairs), default=0.0)
        return max((HOP.get(self.topology.relation(a, b), FARTHEST) for a, b in pairs), default=0.0)

    def memory(self, cpus_of: int, node: int) -> float:
        if self.timing:
            return float(self.timing.memory[cpus_of][node])
        distances = next((n.distances for n in self.topology.nodes if n.id == cpus_of), {})
        return 9.5 * distances.get(node, 21)

    def of(self, benchmark: str, p: dict, placement: Placement) -> float:
        hop = self.hop(placement.cpus)
        if {"cpu_node", "memory_node"} <= {*p}:
            return self.memory(int(p["cpu_node"]), int(p["memory_node"]))
        if benchmark == "core_to_core":
            return hop
        if benchmark == "padded_counters":
            spacing = p.get("spacing", 0)
            own = 1.2 + (0.8 * spacing if isinstance(spacing, int) else 0.0)
            return own + (hop if int(p["stride"]) < self.line and len(placement.cpus) > 1 else 0.0)
        if isinstance(p.get("size"), int) and benchmark in ("memory_latency", "tlb_latency"):
            return next((ns for size, ns in CACHES if p["size"] <= size), MEMORY)
        scatter = random.Random(f"{benchmark} {sorted((k, str(v)) for k, v in p.items())}").uniform(1, 1.4)
        if benchmark == "contention":
            kinds = {"atomic_add": 1.0, "spin_ttas": 5.0, "mutex": 4.0}
            return kinds.get(str(p.get("primitive")), 2.5) * (6 + hop * len(placement.cpus) / 2) * scatter
        return (5 + hop) * scatter


def values_of(record: BenchmarkRecord, ns: float, threads: int) -> dict[str, float]:
    rates = {"operation/s": 1e9 / ns * threads, "B/s": 128e9 / ns * threads**0.6, "per 10^8": 0.0, "s": ns * 1e-9, "1": 0.9}
    return {m.name: ns * 3 if "cycle" in m.unit else rates.get(m.unit, ns) for m in record.metrics}


def root_of(machine: str, folder: Path) -> tuple[str, object]:
    """A tree for a shipped simulated machine or a file of one, or that in an archive, and what the simulator would charge."""
    if machine.endswith(".tar.gz"):
        with tarfile.open(machine) as archive:
            archive.extractall(folder, filter="tar")
        return str(next(p.parent for p in folder.rglob("sys") if (p / "devices").exists())), None
    found = load_machine(machine)
    owned = [number for number, node in enumerate(found.nodes) if node.cpus]
    per_node = len(found.nodes[owned[0]].cpus)
    dies, cores = found.dies, found.cores
    if per_node < found.cpus // found.sockets and dies == 1:  # several nodes in a socket, each with a part of its L3
        dies, cores = found.cpus // found.sockets // per_node, per_node // found.threads
    per_package = max(1, len(owned) // found.sockets)
    tree = SyntheticTree(
        folder,
        packages=found.sockets,
        nodes=per_package,
        l3s=max(1, dies // per_package),
        cores=cores,
        smt=found.threads,
        numbers=[core * found.threads + thread for thread in range(found.threads) for core in range(found.cpus // found.threads)],
        node_ids=owned,
        memory_gib=8,
        distance=lambda a, b: found.distances[a][b],
    )
    for number, node in enumerate(found.nodes):
        if number not in owned:
            tree.add_node(number, (), 8)
        elif not node.memory:
            tree.add_node(number, node.cpus, 0)
    tree.write_distances(lambda a, b: found.distances[a][b])
    return str(folder), found.timing


def visit_to(
    machine: str,
    profile: str = "standard",
    benchmarks: tuple[str, ...] = (),
    *,
    alias: str | None = None,
    processes: int = 8,
    disturbed: float = 0.04,
    scale: float = 1.0,
    seed: int = 0,
) -> RunLog:
    """One visit of `processes` processes each. `disturbed`: share of samples that were switched away from; as many had a clock that changed."""
    rng = random.Random(f"{machine} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        root, timing = root_of(machine, Path(folder))
        alias = alias or Path(machine).name.partition(".")[0]
        visit = Visit(Request(benchmarks=benchmarks, profile=profile, alias=alias), root)
        facts = msgspec.to_builtins(read_machine(root, alias=alias, facts=False))
    truth, run = Truth(visit.topology, timing), f"{alias}-{profile}-{seed}"
    planned = {block.benchmark for block in visit.plan.blocks}
    records = {
        b.name: visit.describe(b, kernel.build(b.kernel, line_bytes=64), run) for b in visit.benchmarks if b.name in planned
    }
    header = Header(
        schema=SCHEMA,
        minor=MINOR,
        run=run,
        session=run,
        started=STARTED,
        numabench=__version__,
        machine=facts,
        plan={"profile": profile, "target": visit.plan.target, "key": visit.plan.key, "looks": visit.plan.looks},
        arguments={"command": f"numabench run --profile {profile}"},
    )
    trials = []
    for block in visit.plan.blocks:
        record = records[block.benchmark]
        for process in range(processes):
            taken = []
            for planned_case in block.cases:
                case, placement = planned_case.case, planned_case.placement
                ns = truth.of(block.benchmark, case.parameters, placement) * scale * math.exp(rng.gauss(0, PROCESS))
                hop = truth.hop(placement.cpus) * 1e-9
                for index in range(SAMPLES):
                    reasons = [name for name in ("switched", "frequency_changed") if rng.random() < disturbed]
                    clock = USUAL if rng.random() < 0.8 else rng.uniform(*CLOCKS)
                    taken.append(
                        Sample(
                            case=case.hash,
                            index=index,
                            parameters=case.parameters,
                            valid=not reasons,
                            reasons=tuple(reasons),
                            threads=tuple(
                                ThreadProof(cpu=cpu, cpu_begin=cpu, cpu_end=cpu, begin=0.0, end=0.01, operations=1)
                                for cpu in placement.cpus
                            ),
                            hop=(hop, hop) if hop else None,
                            frequency=(clock, clock),
                            metrics=values_of(record, ns * math.exp(rng.gauss(0, SAMPLE)), max(1, len(placement.cpus))),
                        )
                    )
            trials.append(
                TrialRecord(
                    run=run,
                    session=run,
                    benchmark=block.benchmark,
                    block=block.name,
                    process=process,
                    started=STARTED,
                    duration=1.0,
                    startup=0.05,
                    status="ok",
                    samples=tuple(taken),
                )
            )
    end = EndRecord(run=run, session=run, ended=ENDED, status="complete", measured=400.0, elapsed=540.0)
    return RunLog(
        paths=(f"{alias}.jsonl",), headers=(header,), benchmarks=tuple(records.values()), trials=tuple(trials), ends=(end,)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machine", help="a machine of testbed/machines, a file of one, or an archive of /sys and /proc")
    parser.add_argument("output", type=Path)
    parser.add_argument("benchmarks", nargs="*")
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--alias")
    parser.add_argument("--scale", type=float, default=1.0, help="times what everything costs")
    given = parser.parse_args()
    write_log(visit_to(given.machine, given.profile, tuple(given.benchmarks), alias=given.alias, scale=given.scale), given.output)


if __name__ == "__main__":
    main()
