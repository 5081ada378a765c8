"""Run logs with known truth: `log(value) = truth + machine + session + process + sample` (METHODOLOGY: the unit)."""

from __future__ import annotations

import itertools
import random

import msgspec

from numabench.model import (
    Answer,
    Axis,
    BenchmarkRecord,
    Card,
    Case,
    Contrast,
    EndRecord,
    Header,
    Metric,
    Picture,
    Price,
    Sample,
    Tile,
    TrialRecord,
    View,
)
from numabench.runlog import SCHEMA
from numabench.runlog.read import RunLog

STRIDES = (0, 8, 32, 64, 128, 256)


def counters(run: str) -> BenchmarkRecord:
    """A two-thread benchmark that looks like false sharing: expensive below 64 bytes, free from there on."""
    return BenchmarkRecord(
        run=run,
        name="toy_counters",
        title="Toy counters",
        question="What does sharing a line cost?",
        axes=(
            Axis(name="operation", summary="what is done", values=("increment", "atomic_add")),
            Axis(name="stride", summary="distance of counters", values=STRIDES, unit="B"),
            Axis(name="spacing", summary="dependent multiplies", values=(0, 200)),
            Axis(name="threads", summary="threads", values=(2,)),
            Axis(name="placement", summary="relation", values=("l3",)),
        ),
        metrics=(
            Metric(name="time_per_operation", unit="ns", polarity="lower"),
            Metric(name="throughput", unit="operation/s", polarity="higher"),
        ),
        contrasts=(Contrast(axis="stride", control=256, metric="time_per_operation"),),
        views=(
            View(
                title="Time per operation by stride",
                metric="time_per_operation",
                kind="line",
                x="stride",
                series="operation",
                facet="spacing",
            ),
            View(
                title="Ratio to padded",
                metric="time_per_operation",
                kind="line",
                x="stride",
                series="operation",
                facet="spacing",
                ratio_to=256,
            ),
        ),
        answers=(
            Answer(
                kind="difference",
                metric="time_per_operation",
                where={"operation": "increment", "stride": 8, "spacing": 200},
                against={"stride": 256},
                text="Sharing a line costs {value} per access ({interval}).",
            ),
            Answer(
                kind="threshold",
                metric="time_per_operation",
                where={"operation": "increment", "spacing": 200},
                axis="stride",
                text="Padding is free from {value} on.",
            ),
            Answer(
                kind="ranking",
                metric="throughput",
                where={"stride": 8, "spacing": 0},
                axis="operation",
                text="Best first: {ranking}.",
            ),
        ),
        card=Card(
            tiles=(
                Tile(
                    subject="padding",
                    answer=Answer(
                        kind="difference",
                        metric="time_per_operation",
                        where={"operation": "increment", "stride": 8, "spacing": 200},
                        against={"stride": 256},
                        text="for each write where 2 threads share a line",
                    ),
                    rank=20,
                    notes=(
                        Answer(
                            kind="threshold",
                            metric="time_per_operation",
                            where={"operation": "increment", "spacing": 200},
                            axis="stride",
                            text="pad to {value}",
                        ),
                    ),
                ),
            ),
        ),
        topic="cores",
        method={"clock": "monotonic"},
        expected="A step at the line size.",
    )


def latency(run: str) -> BenchmarkRecord:
    return BenchmarkRecord(
        run=run,
        name="toy_latency",
        title="Toy latency",
        question="How far is memory?",
        axes=(
            Axis(name="size", summary="working set", values=tuple(2**k for k in range(11, 28, 2)), unit="B", log=True),
            Axis(name="order", summary="visiting order", values=("group", "random")),
        ),
        metrics=(Metric(name="latency", unit="ns", polarity="lower"),),
        views=(View(title="Latency by working set", metric="latency", kind="line", x="size", series="order"),),
        answers=(Answer(kind="cell", metric="latency", where={"size": 2**27, "order": "group"}, text="Memory is {value} away."),),
        card=Card(
            prices=tuple(
                Price(answer=Answer(kind="cell", metric="latency", where={"size": 2**k, "order": "group"}, text=text), rank=k)
                for k, text in ((11, "L1 hit"), (19, "L2 hit"), (27, "memory"))
            ),
            tiles=(
                Tile(
                    subject="memory",
                    answer=Answer(
                        kind="cell", metric="latency", where={"size": 2**27, "order": "group"}, text="a load from memory"
                    ),
                    rank=40,
                ),
            ),
            pictures=(
                Picture(
                    view=View(title="Latency by working set", metric="latency", kind="line", x="size", series="order"),
                    finding=Answer(kind="spread", metric="latency", where={"order": "group"}, text="A load takes {value}"),
                    rank=30,
                ),
            ),
        ),
        topic="memory",
        method={"clock": "monotonic"},
    )


def matrix(run: str, nodes: int = 4) -> BenchmarkRecord:
    return BenchmarkRecord(
        run=run,
        name="toy_nodes",
        title="Toy node matrix",
        question="What does a remote node cost?",
        axes=(
            Axis(name="cpu_node", summary="node of the CPU", values=tuple(range(nodes))),
            Axis(name="memory_node", summary="node of the memory", values=tuple(range(nodes))),
        ),
        metrics=(Metric(name="latency", unit="ns", polarity="lower"),),
        views=(View(title="Latency between nodes", metric="latency", kind="heatmap", x="memory_node", y="cpu_node"),),
        card=Card(
            pictures=(
                Picture(
                    view=View(title="Latency between nodes", metric="latency", kind="heatmap", x="memory_node", y="cpu_node"),
                    finding=Answer(kind="spread", metric="latency", where={}, text="Memory by node: {value}"),
                    rank=10,
                ),
            ),
        ),
        topic="memory",
        method={"clock": "monotonic"},
    )


def node_latency(run: str) -> BenchmarkRecord:
    """What `numabench export --format hwloc-memattrs` reads, under the real name: four nodes."""
    return msgspec.structs.replace(matrix(run), name="node_latency")


def node_bandwidth(run: str) -> BenchmarkRecord:
    kernel = Axis(name="kernel", summary="stream", values=("read", "write"))
    cores = Axis(name="cores", summary="cores", values=("one", "all"))
    base = matrix(run)
    metrics = (Metric(name="bandwidth", unit="B/s", polarity="higher"),)
    views, card = tuple(msgspec.structs.replace(view, metric="bandwidth") for view in base.views), Card()
    return msgspec.structs.replace(
        base, name="node_bandwidth", axes=(*base.axes, kernel, cores), metrics=metrics, views=views, card=card
    )


LOADS = {"0": 0.6e9, "4": 4e9, "8": 8e9, "16": 11e9, "max": 11e9}  # B/s reached at a wanted rate
LATENCIES = {"0": 100.0, "4": 105.0, "8": 120.0, "16": 300.0, "max": 310.0}


def loaded(run: str) -> BenchmarkRecord:
    """Latency under load with its knee between 8 and 16 GB/s."""
    return BenchmarkRecord(
        run=run,
        name="toy_loaded",
        title="Toy latency under load",
        question="What does a load cost while others stream?",
        axes=(
            Axis(name="mix", summary="reads to writes", values=("1:0", "1:1")),
            Axis(name="rate", summary="wanted load", values=tuple(LOADS)),
        ),
        metrics=(
            Metric(name="latency", unit="ns", polarity="lower"),
            Metric(name="load", unit="B/s", polarity="higher"),
        ),
        views=(View(title="Latency by load", metric="latency", kind="curve", x="load", along="rate", series="mix"),),
        answers=(
            Answer(
                kind="knee",
                metric="latency",
                axis="rate",
                where={"mix": "1:0"},
                tolerance=0.5,
                text="Below 1.5 times idle up to {value} GB/s",
            ),
            Answer(
                kind="saturation", metric="load", axis="rate", where={"mix": "1:0"}, tolerance=0.05, text="Saturated at {value}"
            ),
        ),
        method={"clock": "monotonic"},
    )


def litmus(run: str) -> BenchmarkRecord:
    return BenchmarkRecord(
        run=run,
        name="toy_litmus",
        title="Toy litmus",
        question="What is seen?",
        axes=(Axis(name="ordering", summary="of accesses", values=("plain", "fence")),),
        metrics=(Metric(name="weak", unit="per 10^8", polarity="lower"), Metric(name="trials", unit="1", polarity="higher")),
        method={},
        answers=tuple(
            Answer(kind="occurrence", metric="weak", where={"ordering": o}, text="Seen {value}") for o in ("plain", "fence")
        ),
    )


def truth(benchmark: str, p: dict) -> float:
    """Nanoseconds that a perfect measurement finds."""
    if benchmark.endswith("counters"):
        base = (1.2 if p["operation"] == "increment" else 5.0) + 0.8 * p["spacing"]
        return base + (27.0 if p["stride"] < 64 else 0.0)
    if benchmark == "toy_litmus":
        return 1.0
    if benchmark == "toy_loaded":
        return LATENCIES[p["rate"]] * (1.2 if p["mix"] == "1:1" else 1.0)
    if "node" in benchmark:
        return 95.0 if p["cpu_node"] == p["memory_node"] else 150.0
    size = p["size"]
    base = 1.1 if size <= 2**15 else 3.8 if size <= 2**20 else 11.0 if size <= 2**24 else 98.0
    return base * (1.6 if p["order"] == "random" and size > 2**20 else 1.0)


def make_log(
    alias: str = "toy",
    sessions: int = 1,
    processes: int = 8,
    samples: int = 3,
    seed: int = 0,
    *,
    nodes: int = 4,
    scale=lambda benchmark, p: 1.0,
    sd=(0.01, 0.01, 0.005),
    hop_ns: float = 27.0,
    disturbed: float = 0.0,
    benchmarks=(counters, latency, matrix),
    machine: dict | None = None,
) -> RunLog:
    """Logs of `sessions` visits to machine `alias`; `scale(benchmark, parameters)` multiplies the truth of a cell,
    `sd` are the standard deviations of session, process and sample in logs."""
    rng = random.Random(f"{alias}/{seed}")
    facts = {
        "id": f"id-{alias}",
        "alias": alias,
        "hardware_key": "toyhw",
        "configuration_key": f"conf-{alias}",
        "brand": "Toy CPU",
        "configuration": {"kernel": "6.1"},
        "hardware": {},
        "topology": {"cpus": "0-1"},
    } | (machine or {})
    headers, records, trials, ends = [], [], [], []
    for s in range(sessions):
        run = session = f"{alias}-{seed}-{s}"
        started = f"2026-01-{s + 1:02d}T00:00:00Z"
        headers.append(
            Header(
                schema=SCHEMA,
                run=run,
                session=session,
                started=started,
                numabench="0.1",
                machine=facts,
                plan={"profile": "standard", "target": 0.02},
            )
        )
        descriptors = [make(run, nodes) if make is matrix else make(run) for make in benchmarks]
        records += descriptors
        for d in descriptors:
            names = [a.name for a in d.axes]
            cases = [
                Case(benchmark=d.name, parameters=dict(zip(names, point, strict=True)))
                for point in itertools.product(*(a.values for a in d.axes))
            ]
            session_effect = {c.hash: rng.gauss(0, sd[0]) for c in cases}
            for process in range(processes):
                taken = []
                for c in cases:
                    level = session_effect[c.hash] + rng.gauss(0, sd[1])
                    for index in range(samples):
                        ns = (
                            truth(d.name, c.parameters)
                            * scale(d.name, c.parameters)
                            * 2.718281828 ** (level + rng.gauss(0, sd[2]))
                        )
                        values = {"time_per_operation": ns, "throughput": 2e9 / ns, "latency": ns}
                        values["bandwidth"] = 2**40 / ns * (4 if c.parameters.get("cores") == "all" else 1)
                        values["load"] = LOADS.get(c.parameters.get("rate"), 1.0) * ns / truth(d.name, c.parameters)
                        values |= {"weak": 2000.0 if c.parameters.get("ordering") == "plain" else 0.0, "trials": 1e6}
                        bad = rng.random() < disturbed
                        taken.append(
                            Sample(
                                case=c.hash,
                                index=index,
                                parameters=c.parameters,
                                valid=not bad,
                                reasons=("switched",) if bad else (),
                                hop=(hop_ns * 1e-9,) * 2 if d.name.endswith("counters") else None,
                                metrics={m.name: values[m.name] for m in d.metrics},
                            )
                        )
                trials.append(
                    TrialRecord(
                        run=run,
                        session=session,
                        benchmark=d.name,
                        block="0",
                        process=process,
                        started=started,
                        duration=1.0,
                        startup=0.05,
                        status="ok",
                        samples=tuple(taken),
                    )
                )
        ends.append(EndRecord(run=run, session=session, ended=started, status="complete", measured=1.0, elapsed=2.0))
    return RunLog(
        paths=(f"{alias}.jsonl",), headers=tuple(headers), benchmarks=tuple(records), trials=tuple(trials), ends=tuple(ends)
    )


def merged(*logs: RunLog) -> RunLog:
    """One log with the records of all."""
    parts = ("paths", "headers", "benchmarks", "trials", "ends")
    return RunLog(**{name: tuple(itertools.chain.from_iterable(getattr(log, name) for log in logs)) for name in parts})


def with_samples(log: RunLog, change) -> RunLog:
    """`change(sample, process)` gives the sample to keep, or None to drop it."""
    trials = [
        msgspec.structs.replace(t, samples=tuple(filter(None, (change(s, t.process) for s in t.samples)))) for t in log.trials
    ]
    return msgspec.structs.replace(log, trials=tuple(trials))


def set_aside(sample: Sample, *reasons: str) -> Sample:
    return msgspec.structs.replace(sample, valid=False, reasons=reasons)
