"""Overlap and bandwidth: what chases at the same time, streams by threads and a chase beside streams find on a machine whose controllers and links are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numabench
from numabench.analysis.answers import answers

from ..expected import bandwidth as expected
from ..judgement import Finding
from ..machine import Machine, load_machine
from ..visits import measure

NAME = "bandwidth"
KERNELS = ("memory_latency", "memory_bandwidth", "loaded_latency", "sentinel", "crew")
ONCE = ("--samples", "1", "--processes", "1", "--budget", "20m", "--set", "page_size=thp")
LOADED_NODE = 1  # whose two loaders ask for more than its controller has
ON_LOADED_NODE = tuple(word for name in ("cpu", "chase", "load") for word in ("--set", f"{name}_node={LOADED_NODE}"))
#: Runs by the name of their log. Windows are small, since each line that goes to memory waits for its turn; those of streams hold ten batches (of 100 us). Threads of two nodes
#: have batches of different lengths, which a window of a millisecond does not bear: three threads are those of one node.
RUNS = {
    "chases": ("run", "memory_parallelism", "--set", "size=8M", "--set", "chains=1,2,4,8,16,32", "--window", "500us", *ONCE),
    "streams": (
        *("run", "memory_bandwidth", "--set", "size=6M", "--set", "kernel=read,write,triad,triad_nt", "--set", "threads=1,2,3"),
        *("--set", "vector=avx2", "--set", "filling=packed", "--window", "1ms", *ONCE),
    ),
    "nodes": (
        *("run", "node_bandwidth", "--set", "size=6M", "--set", "kernel=read,write", "--set", "cores=all"),
        *("--set", "vector=avx2", "--window", "1ms", *ONCE),
    ),
    "loaded": (
        *("run", "loaded_latency", "--set", "size=6M", "--set", "mix=1:0", "--set", "rate=0,4,6,8,max", "--set", "vector=avx2"),
        *(*ON_LOADED_NODE, "--window", "1ms", *ONCE),
    ),
}
#: Metric -> relative tolerance, unit, and what makes its values of that unit.
METRICS = {
    "time_per_line": (0.02, "ns", 1.0),
    "bandwidth": (0.03, "GB/s", 1e-9),
    "bus_bandwidth": (0.03, "GB/s", 1e-9),
    "latency": (0.05, "ns", 1.0),  # under load
    "load": (0.05, "GB/s", 1e-9),
}
ALL_BUT = 0.05  # of the most bandwidth: from then on numabench calls it saturated
TIMEOUT = 1500.0


@dataclass(frozen=True)
class KnownBandwidth:
    of: Machine
    name: str = NAME
    boots: int = 1
    uses: tuple[str, ...] = ("memory_latency", "memory_parallelism", "memory_bandwidth", "node_bandwidth", "loaded_latency")

    @property
    def summary(self) -> str:
        timing = self.of.timing
        rates = ", ".join(f"{timing.line / ns:g}" for ns in timing.occupancy)
        return (
            f"{timing.misses} lines on their way from a core, controllers of {rates} GB/s, and links between its nodes. What chases at the same time, "
            "streams by threads and by nodes, and a chase beside streams find there"
        )

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        step(f"{self.name}: measuring")
        _, logs = measure(
            self.of, RUNS, shared, tree, KERNELS, line_sizes=(self.of.timing.line,), timeout=TIMEOUT, any_status=True
        )
        done()
        return judge(self.of, logs)


def known() -> KnownBandwidth:
    return KnownBandwidth(load_machine(Path(__file__).with_suffix(".toml")))


def judge(machine: Machine, logs: dict[str, Path]) -> list[Finding]:
    """Every figure of the runs whose logs are there."""
    judges = {"chases": judge_chases, "streams": judge_streams, "nodes": judge_nodes, "loaded": judge_loaded}
    findings = []
    for name, path in logs.items():
        found = numabench.load(path)
        estimates = found.estimates()
        findings += judges[name](machine, found, estimates[estimates["main"]])
    return findings


def figure(what: str, where: str, wanted: float, rows, metric: str, **cell) -> Finding:
    """The one row of `metric` in an estimates table whose parameters are those of `cell`."""
    share, unit, scale = METRICS[metric]
    rows = rows[(rows["metric"] == metric) & rows["value"].notna()]
    for name, value in cell.items():
        rows = rows[rows[name] == value]
    if len(rows) != 1:
        return Finding(NAME, what, where, wanted, "no valid sample", share * wanted, unit=unit)
    value, low, high = (float(rows.iloc[0][name]) * scale for name in ("value", "low", "high"))
    return Finding(NAME, what, where, wanted, value, share * wanted, low, high, unit)


def given(name: str, parameter: str, kind: type = str) -> list:
    """The values that a run of RUNS has of a parameter."""
    word = next(word for word in RUNS[name] if word.startswith(f"{parameter}="))
    return [kind(value) for value in word.split("=", 1)[1].split(",")]


def judge_chases(machine: Machine, run, rows) -> list[Finding]:
    findings = []
    for chains in given("chases", "chains", int):
        wanted = expected.time_per_line(machine, 0, 0, chains)
        findings.append(
            figure("time per line", f"{chains} chases at the same time", wanted, rows, "time_per_line", chains=chains)
        )
    return findings


def judge_streams(machine: Machine, run, rows) -> list[Finding]:
    """Bytes of the program, and those of the bus, which numabench works out; and how many threads saturate reads."""
    findings, counts = [], given("streams", "threads", int)
    for kernel in given("streams", "kernel"):
        for threads in counts:
            wanted, where = expected.memory_bandwidth(machine, range(threads), kernel), f"{kernel} by {threads} threads"
            bus = wanted * expected.bus_share(kernel)
            findings += [
                figure("memory bandwidth", where, wanted, rows, "bandwidth", kernel=kernel, threads=threads),
                figure("bus bandwidth", where, bus, rows, "bus_bandwidth", kernel=kernel, threads=threads),
            ]
    said = next((answer for answer in answers(run.log) if answer.kind == "saturation" and answer.text.startswith("Read")), None)
    wanted = f"{expected.saturated_by(machine, 'read', counts, ALL_BUT)} threads"
    return [*findings, Finding(NAME, "saturated by", "reads", wanted, f"{said.value:.0f} threads" if said else "not said")]


def judge_nodes(machine: Machine, run, rows) -> list[Finding]:
    """Every cell; and by which weights the report deals out pages."""
    findings = []
    for kernel in given("nodes", "kernel"):
        for c in machine.cpu_nodes:
            for m in machine.memory_nodes:
                wanted = expected.node_bandwidth(machine, c, m, kernel, len(machine.nodes[c].cpus))
                cell = {"kernel": kernel, "cpu_node": c, "memory_node": m}
                findings.append(figure("node bandwidth", f"{kernel} by all cores, {c} to {m}", wanted, rows, "bandwidth", **cell))
    wanted = ", ".join(f"node {node}: {weight}" for node, weight in expected.weights(machine).items())
    said = next((answer.text for answer in answers(run.log) if answer.kind == "weights"), "not said")
    return [*findings, Finding(NAME, "interleave weights", "reads by all cores", wanted, wanted if wanted in said else said)]


def judge_loaded(machine: Machine, run, rows) -> list[Finding]:
    loaders, findings = len(machine.nodes[LOADED_NODE].cpus) - 1, []
    for rate in given("loaded", "rate"):
        latency, load = expected.loaded(machine, LOADED_NODE, loaders, None if rate == "max" else float(rate))
        where = f"{loaders} loaders at {rate}{'' if rate == 'max' else ' GB/s'}"
        findings += [
            figure("loaded latency", where, latency, rows, "latency", rate=rate),
            figure("load", where, load, rows, "load", rate=rate),
        ]
    return findings
