"""What numabench found on a machine, held against what was given."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import numabench
from numabench.analysis.answers import answers
from numabench.units import format_cpus

from . import expected
from .machine import ARM, Machine
from .visits import COMPARED_STRIDES, STRIDES, Visit, core_cpus, measured_rows

TOLERANCE = 0.02  # of a latency
HOP_SLACK = 4.0  # ns: a hop's loops look for the line every few ns
SAME = 0.05  # `numabench compare --same`: one visit a side carries an assumed 1 % between visits, so that 3 % could hardly be met
KERNEL_SHARE = 128 << 20  # bytes of a node that the guest's kernel may keep for itself
OPERATIONS = {"load": expected.READ, "add": expected.ATOMIC, "cas": expected.ATOMIC}  # single ones that are judged
SHOWN = 6  # contradictions that the report names
CONTRADICTION = re.compile(
    r"from node (\d+), node (\d+) \([^()]*\) and node (\d+) \([^()]*\) (are equal by|differ by|are the other way)"
)
WORDS = {"are equal by": "not equal", "differ by": "equal", "are the other way": "reversed"}
TAILS = ("wait_p999", "wait_max")  # of single operations; what interrupts in the guest cost is not given


@dataclass(frozen=True)
class Finding:
    """One cell of the certificate. `expected` and `found` are numbers where `slack` (allowed difference) is one, else words."""

    machine: str
    what: str
    where: str
    expected: float | str
    found: float | str
    slack: float | None = None
    low: float = math.nan
    high: float = math.nan
    unit: str = ""

    @property
    def deviation(self) -> float:
        """Relative; NaN where nothing was found, where zero was given, and between words."""
        numbers = isinstance(self.found, float) and isinstance(self.expected, float)
        return self.found / self.expected - 1 if numbers and self.expected else math.nan

    @property
    def right(self) -> bool:
        if self.slack is None:
            return self.found == self.expected
        return isinstance(self.found, float) and abs(self.found - self.expected) <= self.slack


def judge_visit(visit: Visit) -> list[Finding]:
    """Every claim of one run about its machine."""
    machine = visit.machine
    run = numabench.load(visit.log)
    findings = judge_topology(machine, json.loads(visit.topology.read_text()))
    if machine.arch == ARM:
        findings.append(judge_instructions(machine, run))
    estimates = run.estimates()
    estimates = estimates[estimates["main"]]
    pairs = places_of(run)
    findings += judge_nodes(machine, run, estimates)
    findings += judge_firmware(machine, run)
    for cpu, log in visit.alone.items():
        findings += judge_cpu(machine, cpu, numabench.load(log).estimates())
    cores = numabench.load(visit.cores)
    among = cores.estimates()
    among = among[among["main"]]
    findings += judge_matrix(machine, among)
    findings += judge_operations(machine, cores, among)
    for relation, (a, b) in pairs.items():
        findings += judge_pair(machine, run, estimates, relation, a, b)
    return findings


def judge_instructions(machine: Machine, run) -> Finding:
    """What the log says that the atomics of the kernels were made of."""
    said = {record.method["instructions"] for record in run.log.benchmarks if "instructions" in record.method}
    wanted = f"{ARM}: {'LSE' if machine.lse else 'LL/SC'}"
    return Finding(
        machine.name, "atomic instructions", "as the processor has them", wanted, ", ".join(sorted(said)) or "not said"
    )


def judge_nodes(machine: Machine, run, estimates) -> list[Finding]:
    """Latency of every cell, and what the report says of remote against local."""
    findings = []
    cells = estimates[(estimates["benchmark"] == "node_latency") & (estimates["metric"] == "latency")]
    for c in measured_rows(machine):
        for m in machine.memory_nodes:
            row = cells[(cells["cpu_node"] == c) & (cells["memory_node"] == m)]
            findings.append(number(machine, "node latency", f"{c} to {m}", expected.node_latency(machine, c, m), row, "ns"))
    said = dict(zip(keys_of(run, "node_latency"), answers_of(run, "node_latency"), strict=True))
    for c in measured_rows(machine):
        if c not in machine.memory_nodes:
            continue
        local = expected.node_latency(machine, c, c)
        for m in machine.memory_nodes:
            if m != c:
                wanted = expected.node_latency(machine, c, m) / local
                answer = said.get(("ratio", c, m))
                found, low, high = (answer.value, answer.low, answer.high) if answer else ("not said", math.nan, math.nan)
                findings.append(
                    Finding(machine.name, "remote / local", f"{c} to {m}", wanted, found, TOLERANCE * wanted, low, high, "×")
                )
    return findings


def judge_cpu(machine: Machine, cpu: int, estimates) -> list[Finding]:
    """A run on this CPU alone: what each memory is for it."""
    cells = estimates[estimates["main"] & (estimates["benchmark"] == "node_latency") & (estimates["metric"] == "latency")]
    return [
        number(
            machine,
            "node latency",
            f"CPU {cpu} to {m}",
            expected.cpu_latency(machine, cpu, m),
            cells[cells["memory_node"] == m],
            "ns",
        )
        for m in machine.memory_nodes
    ]


def judge_firmware(machine: Machine, run) -> list[Finding]:
    """Which of the firmware's claims of near and far the report calls contradicted: nothing of a single memory, nor where it could say either."""
    if len(machine.cpu_nodes) * len(machine.memory_nodes) < 2 or expected.undecided(machine):
        return []
    rows = tuple(f"from {c}:" for c in measured_rows(machine))
    wanted = named([said for said in expected.contradictions(machine) if said.startswith(rows)])
    answer = next((a for a in answers(run.log) if a.benchmark == "node_latency" and a.kind == "firmware"), None)
    found = contradicted(answer.text) if answer else "not said"
    return [Finding(machine.name, "firmware", "near and far", wanted, found)]


def contradicted(text: str) -> str:
    """What a sentence of the report calls contradicted, in the words of `expected.contradictions`."""
    said = [f"from {c}: {a}, {b} {WORDS[how]}" for c, a, b, how in CONTRADICTION.findall(text)]
    more = re.search(r"; and (\d+) more", text)
    return named(said, int(more[1]) if more else 0)


def named(contradictions: list[str], more: int = 0) -> str:
    """As many as the report names, and how many `more` there are."""
    more += len(contradictions[SHOWN:])
    return "; ".join([*contradictions[:SHOWN], *([f"{more} more"] if more else [])]) or "not contradicted"


def judge_matrix(machine: Machine, estimates) -> list[Finding]:
    """Core to core: every two of the CPUs measured, and both ways round where they were measured so."""
    rows = estimates[(estimates["benchmark"] == "core_to_core") & (estimates["metric"] == "latency")]
    rows = rows[rows["company"] == rows["company"].max()]
    findings = []
    for a, b in itertools.combinations(sorted(core_cpus(machine)), 2):
        ways = [(x, y) for x, y in ((a, b), (b, a)) if ((rows["cpu_a"] == x) & (rows["cpu_b"] == y)).any()]
        for x, y in ways or [(a, b)]:
            row = rows[(rows["cpu_a"] == x) & (rows["cpu_b"] == y)]
            wanted = expected.hop(machine, x, y)
            findings.append(number(machine, "core to core", f"{x} to {y}", wanted, row, "ns", HOP_SLACK))
    return findings


def judge_operations(machine: Machine, run, estimates) -> list[Finding]:
    """Single operations on a modified line: of one's own, and of the CPU of each relation."""
    rows = estimates[(estimates["benchmark"] == "single_operations") & (estimates["metric"] == "latency")]
    findings = []
    for relation, cpus in places_of(run).items():
        where = f"CPU {cpus[0]} alone" if len(cpus) == 1 else f"CPUs {cpus[0]}, {cpus[1]} ({relation})"
        for operation, kind in OPERATIONS.items():
            row = rows[(rows["placement"] == relation) & (rows["operation"] == operation)]
            wanted = expected.single_operation(machine, kind, *cpus)
            findings.append(number(machine, f"{operation} of a modified line", where, wanted, row, "ns", HOP_SLACK))
    return findings


def judge_pair(machine: Machine, run, estimates, relation: str, a: int, b: int) -> list[Finding]:
    """What two CPUs of one relation are to each other: where they were put, hop, contended atomic, false sharing."""
    where = f"CPUs {a}, {b} ({relation})"
    findings = [Finding(machine.name, "placement", f"{relation}: CPUs {a}, {b}", expected.relation(machine, a, b), relation)]
    samples = run.samples()
    mine = samples[(samples["placement"] == relation) & samples["valid"]]
    hops = mine[mine["benchmark"] == "padded_counters"].drop_duplicates(["process", "case", "sample"])["hop_ns"]
    wanted = expected.hop(machine, a, b)
    slack = TOLERANCE * wanted + HOP_SLACK
    found = float(hops.median()) if len(hops) else "no valid sample"
    low, high = (float(hops.quantile(q)) for q in (0.025, 0.975)) if len(hops) else (math.nan, math.nan)
    findings.append(Finding(machine.name, "hop", where, wanted, found, slack, low, high, "ns"))
    contended = estimates[
        (estimates["benchmark"] == "contention")
        & (estimates["metric"] == "time_per_operation")
        & (estimates["placement"] == relation)
        & (estimates["threads"] == 2)
    ]
    wanted = expected.contended_atomic(machine, [a, b])
    findings.append(number(machine, "contended atomic_add", where, wanted, contended, "ns"))
    said = dict(zip(keys_of(run, "padded_counters"), answers_of(run, "padded_counters"), strict=True))
    knee, penalty = said.get(("threshold", relation)), said.get(("difference", relation))
    wanted_knee = expected.knee(machine, list(STRIDES), a, b)
    known = knee is not None and math.isfinite(knee.value)
    findings.append(
        Finding(machine.name, "line size", where, f"{wanted_knee} B", f"{knee.value:.0f} B" if known else "not said", unit="B")
    )
    wanted = expected.false_sharing_penalty(machine, a, b)
    value = penalty.value if penalty and math.isfinite(penalty.value) else "no valid sample"
    low, high = (penalty.low, penalty.high) if penalty else (math.nan, math.nan)
    slack = TOLERANCE * wanted + HOP_SLACK
    findings.append(Finding(machine.name, "false-sharing penalty", where, wanted, value, slack, low, high, "ns"))
    return findings


def number(machine: Machine, what: str, where: str, wanted: float, rows, unit: str, more: float = 0.0) -> Finding:
    """A latency from the one row of an estimates table that is meant; `more` is slack beside the tolerance."""
    rows, slack = rows[rows["value"].notna()], TOLERANCE * wanted + more
    if len(rows) != 1:
        return Finding(machine.name, what, where, wanted, "no valid sample", slack, unit=unit)
    row = rows.iloc[0]
    return Finding(machine.name, what, where, wanted, float(row["value"]), slack, float(row["low"]), float(row["high"]), unit)


def places_of(run) -> dict[str, tuple[int, ...]]:
    """The CPUs that each relation was measured on, from the plan's own words in the log (the proof of each sample)."""
    places = {}
    for trial in run.log.trials:
        for sample in trial.samples:
            if "placement" in sample.parameters:
                places.setdefault(sample.parameters["placement"], tuple(thread.cpu for thread in sample.threads))
    return places


OF_MATRICES = ("firmware", "agreement", "weights")  # answers that speak of more than one cell: nothing is given for them


def answers_of(run, benchmark: str) -> list:
    return [answer for answer in answers(run.log) if answer.benchmark == benchmark and answer.kind not in OF_MATRICES]


def keys_of(run, benchmark: str) -> list[tuple]:
    """What each of the report's answers speaks of, in the order in which it gives them."""
    record = next((record for record in run.log.benchmarks if record.name == benchmark), None)
    keys = []
    for answer in record.answers if record else ():
        where = answer.where
        if answer.kind in OF_MATRICES:
            continue
        place = (where["cpu_node"], where["memory_node"]) if benchmark == "node_latency" else (where["placement"],)
        asked = answer.kind if where.get("operation", "atomic_add") == "atomic_add" else f"{answer.kind} of {where['operation']}"
        keys.append((asked, *place))
    return keys


def judge_topology(machine: Machine, found: dict) -> list[Finding]:
    """`numabench machine` against the machine file: all that the firmware declares."""
    pairs = [
        ("CPUs", format_cpus(range(machine.cpus)), found["cpus"]),
        ("packages", listed(machine.groups("socket")), [package["cpus"] for package in found["packages"]]),
        ("dies", listed(machine.groups("die")), found["clusters" if machine.arch == ARM else "dies"]),
        ("cores", listed(machine.groups("smt")), found["cores"]),
        ("threads of a core", machine.threads, found["smt"]),
        ("L3 groups", listed(machine.groups("die")), [cache["cpus"] for cache in found["caches"] if cache["level"] == 3]),
        ("nodes' CPUs", [format_cpus(node.cpus) for node in machine.nodes], [node["cpus"] for node in found["nodes"]]),
        ("nodes with memory", list(machine.memory_nodes), [node["id"] for node in found["nodes"] if node["memory_bytes"]]),
        (
            "distances",
            [list(row) for row in machine.distances],
            [[node["distances"][str(j)] for j in range(len(machine.nodes))] for node in found["nodes"]],
        ),
    ]
    for level, size in machine.said_caches:
        held = {cache["size_bytes"] for cache in found["caches"] if cache["level"] == level and cache["type"] != "Instruction"}
        pairs.append((f"bytes of L{level}", {size}, held))
    if machine.said_line:
        held = {cache["line_bytes"] for cache in found["caches"] if cache["type"] != "Instruction"}
        pairs.append(("bytes of a line", {machine.said_line}, held))
    for node, shown in zip(machine.nodes, found["nodes"], strict=False):
        kept = node.memory - (shown["memory_bytes"] or 0)
        pairs.append((f"memory of node {shown['id']}", True, 0 <= kept <= KERNEL_SHARE))
    if machine.hmat:
        pairs += hmat_pairs(machine, found)
    if machine.timing and machine.timing.caches:
        sizes = {(f"L{level}", cache.size) for level, cache in enumerate(machine.timing.caches, 1)}
        pairs.append(("caches", sizes, {(f"L{cache['level']}", cache["size_bytes"]) for cache in found["caches"]}))
    wrong = [f"{what}: {shown} instead of {given}" for what, given, shown in pairs if given != shown]
    return [Finding(machine.name, "topology", "as declared", "exact", "exact" if not wrong else "; ".join(wrong))]


def hmat_pairs(machine: Machine, found: dict) -> list[tuple]:
    """The figures of each node's nearest initiator, which are what Linux shows of an HMAT."""
    pairs = []
    for number_, shown in enumerate(found["nodes"]):
        node = machine.nodes[number_]
        initiator = number_ if node.cpus else node.initiator
        access = shown["access"].get("access0") if isinstance(shown["access"], dict) else None
        for key, matrix in (("read_latency_ns", machine.hmat_latency), ("read_bandwidth_mb_per_s", machine.hmat_bandwidth)):
            if matrix and node.memory:
                pairs.append((f"HMAT {key} of node {number_}", matrix[initiator][number_], (access or {}).get(key)))
    return pairs


def listed(groups: tuple[tuple[int, ...], ...]) -> list[str]:
    return [format_cpus(group) for group in groups]


def judge_comparison(base: Path, new: Path, machine: Machine, changed: tuple[int, int] | None) -> list[Finding]:
    """The verdicts of `numabench compare` on two logs: `slower` for the latency that was `changed`, `same` everywhere else."""
    comparison = numabench.compare(base, new, same=SAME)
    cells = comparison.cells[~comparison.cells["metric"].isin(TAILS)]
    cells = cells[cells["stride"].isna() | cells["stride"].isin(COMPARED_STRIDES)]
    what = "compare: 10 % slower" if changed else "compare: another boot"
    findings = []
    wrong = []
    for _, row in cells.iterrows():
        slow = changed is not None and row["benchmark"] == "node_latency" and (row["cpu_node"], row["memory_node"]) == changed
        wanted = "slower" if slow else "same"
        if slow:
            findings.append(Finding(machine.name, what, f"{row['metric']} {changed[0]} to {changed[1]}", wanted, row["verdict"]))
        elif row["verdict"] != wanted:
            why = ", ".join([f"{row['ratio']:.3f}", *row["reasons"]])
            wrong.append(f"{row['benchmark']} {row['metric']} {place(row)}: {row['verdict']} ({why})")
    others = len(cells) - len(findings)
    findings.append(
        Finding(machine.name, what, f"{others} other cells", "all same", "all same" if not wrong else "; ".join(wrong))
    )
    if changed and len(findings) == 1:
        findings.append(Finding(machine.name, what, f"{changed[0]} to {changed[1]}", "slower", "not compared"))
    return findings


def place(row) -> str:
    names = ("cpu_node", "memory_node", "placement", "stride")
    return " ".join(f"{name}={row[name]}" for name in names if name in row and pd.notna(row[name]))
