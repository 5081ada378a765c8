"""numabench's own speed and overhead: `make bench-self`, recorded in docs/performance.md.

Prints what the command costs, what a worker costs, what the kernels' loops and clock readings cost against controls, and
whether the physics bands of METHODOLOGY.md hold in a standard run (the newest log of this machine, or the one given). With --matrix only start-up and a large matrix.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import numabench as nb
from numabench import kernel as abi
from numabench.analysis.estimate import sign_interval
from numabench.analysis.structure import with_distance
from numabench.benchmarks.padded_counters import PADDED
from numabench.host.memory import Buffer
from numabench.measure.crew import Crew

PAIRS = 25
KIB = 1024
#: kernel, threads, bytes, arguments
CELLS = (
    ("padded_counters", 1, 4096, {"operation": "store"}),
    ("padded_counters", 1, 4096, {"operation": "increment"}),
    ("padded_counters", 1, 4096, {"operation": "atomic_add"}),
    ("padded_counters", 1, 4096, {"operation": "atomic_add", "spacing": 20}),
    ("memory_latency", 1, 16 * KIB, {}),
    ("memory_latency", 1, 256 * KIB, {}),
    ("memory_latency", 1, 32 * KIB * KIB, {}),
    ("contention", 1, 8192, {"primitive": "atomic_add"}),
    ("contention", 1, 8192, {"primitive": "mutex"}),
    ("contention", 1, 8192, {"primitive": "mcs"}),
)


def command_times() -> None:
    print("## Start-up of the command (wall clock, median of 15)")
    for arguments in (["--help"], ["list"], ["--version"]):
        times = []
        for _ in range(16):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "numabench", *arguments], capture_output=True, check=True)
            times.append(time.perf_counter() - start)
        print(
            f"numabench {arguments[0]:10} {statistics.median(times[1:]) * 1e3:6.0f} ms (least {min(times) * 1e3:.0f}, most {max(times[1:]) * 1e3:.0f})"
        )


def matrix_costs(count: int = 512) -> None:
    """The largest matrix between CPUs that numabench promises: in at most 10 s and 1 GB each, to a log and to a page."""
    print(f"\n## A matrix of {count} x {count}: import, then report (groups, figures, page)")
    rng = np.random.default_rng(1)
    place = rng.permutation(count)  # numbers say nothing of places
    steps = ((1, 220.0), (2, 140.0), (count // 16, 30.0), (count // 2, 9.0))  # groups, ns inside one
    matrix = np.empty((count, count))
    for groups, latency in steps:
        owner = place * groups // count
        matrix[owner[:, None] == owner] = latency
    matrix *= rng.uniform(0.98, 1.02, matrix.shape)
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "matrix.csv")
        np.savetxt(source, matrix, fmt="%.1f", delimiter=",")
        for arguments in (["import", source, "-o", folder], ["report", os.path.join(folder, "matrix")]):
            start = time.perf_counter()
            child = subprocess.Popen([sys.executable, "-m", "numabench", *arguments], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            print(
                f"numabench {arguments[0]:10} {time.perf_counter() - start:6.1f} s ({used.ru_utime + used.ru_stime:.1f} s of CPU), "
                f"{used.ru_maxrss / 1e6:.2f} GB at most, exit code {child.returncode}"
            )


def time_of(crew: Crew, kernel: abi.Kernel, threads: int, batch: float) -> float:
    crew.case.batch_ns = int(batch * 1e9)
    members = list(range(threads))
    crew.enter(kernel, abi.MEASURE, members)
    rates = [b.operations / (b.end_ns - b.begin_ns) for b in crew.blocks[:threads]]
    return threads / sum(rates)


def controls() -> None:
    print(f"\n## What loops and clock readings cost: paired ratios to a control, median of {PAIRS} with 95 % interval")
    print("unrolled: the same kernel compiled with -funroll-all-loops; clock: read every 10 us against every 100 us")
    cpus = sorted(os.sched_getaffinity(0))
    for name, threads, size, arguments in CELLS:
        plain, unrolled = (abi.Kernel(abi.build(name, extra=extra).target) for extra in ((), ("-funroll-all-loops",)))
        crew, buffer, scratch = Crew(threads), Buffer(size, "thp"), Buffer(size)
        crew.place(tuple(cpus[:threads]), (0,) * threads)
        case = crew.case
        case.buffer, case.buffer_bytes, case.scratch, case.scratch_bytes = buffer.address, size, scratch.address, size
        case.window_ns, case.warmup_ns, case.batch_ns = 10_000_000, 500_000, 10_000
        for slot, value in enumerate(plain.encode(arguments)):
            case.parameter[slot] = value
        crew.enter(plain, abi.PREPARE, list(range(threads)))
        loops, clocks, values = [], [], []
        for turn in range(PAIRS):
            pair = [(plain, 10e-6), (unrolled, 10e-6), (plain, 100e-6)]
            order = pair[turn % 3 :] + pair[: turn % 3]
            found = {(kernel is plain, batch): time_of(crew, kernel, threads, batch) for kernel, batch in order}
            values.append(found[True, 10e-6])
            loops.append(found[True, 10e-6] / found[False, 10e-6])
            clocks.append(found[True, 10e-6] / found[True, 100e-6])
        shown = []
        for ratios in (loops, clocks):
            low, high, _ = sign_interval(ratios)
            shown.append(f"{statistics.median(ratios):.4f} ({low:.4f} to {high:.4f})")
        label = " ".join([name, *(f"{k}={v}" for k, v in arguments.items()), f"{size // KIB} KiB"])
        print(f"{label:52} {statistics.median(values):7.3f} ns   unrolled {shown[0]}   clock {shown[1]}")
        buffer.close()
        scratch.close()
        os.sched_setaffinity(0, cpus)


def run_costs(run: nb.Run) -> None:
    trials = run.log.trials
    startups = [t.startup * 1e3 for t in trials if t.status != "failed"]
    print(f"\n## A recorded run: {run.log.paths[-1]}")
    print(
        f"worker start to first measurement: median {statistics.median(startups):.0f} ms, 95th percentile "
        f"{sorted(startups)[int(0.95 * len(startups))]:.0f} ms over {len(startups)} processes"
    )
    for end in run.log.ends:
        print(
            f"{end.status}: {end.elapsed:.0f} s, {1 - end.measured / end.elapsed:.1%} outside measured windows, "
            f"{end.cells['reached']} of {end.cells['total']} cells within the target"
        )
    samples = [s for t in trials for s in t.samples]
    print(f"samples: {len(samples)}, disturbed {sum(not s.valid for s in samples) / len(samples):.1%}")


def thresholds(run: nb.Run) -> None:
    """What METHODOLOGY.md section 3 leans on: how far samples deviate from their case's median, with and without switches."""
    print("\n## Samples by what happened to them")
    cases: dict[tuple, list] = {}
    clocks = []
    for trial in run.log.trials:
        for sample in trial.samples:
            cases.setdefault((trial.benchmark, sample.case, trial.process), []).append(sample)
            clocks.append(max(sample.frequency) / min(sample.frequency))
    deviations: dict[str, list[float]] = {"no switch": [], "switched, lost under 1 %": [], "lost over 1 %": []}
    for (benchmark, _, _), samples in cases.items():
        name = "latency" if benchmark.endswith("latency") else "time_per_operation"
        median = statistics.median(s.metrics[name] for s in samples)
        for sample in samples:
            lost = max(t.run_delay / (t.end - t.begin) for t in sample.threads)
            switched = any(t.switches for t in sample.threads)
            kind = "lost over 1 %" if lost > 0.01 else "switched, lost under 1 %" if switched else "no switch"
            deviations[kind].append(abs(sample.metrics[name] / median - 1))
    for kind, values in deviations.items():
        values.sort()
        if values:
            print(
                f"deviation by switches: {kind:26} {len(values):6} samples, median {statistics.median(values):.2%}, "
                f"90th percentile {values[int(0.9 * len(values))]:.2%} from their process's median"
            )
    print(
        f"clock changes over 1 %: {sum(c > 1.01 for c in clocks) / len(clocks):.1%} of samples, over 3 %: {sum(c > 1.03 for c in clocks) / len(clocks):.1%}"
    )


def bands(run: nb.Run) -> None:
    print("\n## Physics bands (METHODOLOGY.md): every one a paired or interleaved ratio of this run")
    frame = run.samples()
    frame = frame[frame.valid]
    frame = with_distance(frame)
    main = frame[frame.benchmark == "padded_counters"].distance.replace("", float("nan")).mode()[0]
    frame = frame[frame.distance.isin(["", main])]  # one distance class
    medians = frame.groupby(["benchmark", "case", "metric"])["value"].median()
    hop = frame[frame.benchmark == "padded_counters"].hop_ns.median()
    cells = {}
    for trial in run.log.trials:
        for sample in trial.samples:
            cells.setdefault((trial.benchmark, *sorted(sample.parameters.items())), sample.case)

    def value(benchmark: str, metric: str, **wanted) -> float:
        for (name, *parameters), case in cells.items():
            if name == benchmark and wanted.items() <= dict(parameters).items():
                return medians.get((benchmark, case, metric), float("nan"))
        return float("nan")

    def padded(operation: str, stride: int, spacing: int, threads: int = 2) -> float:
        return value(
            "padded_counters", "time_per_operation", operation=operation, stride=stride, spacing=spacing, threads=threads
        )

    def lock(primitive: str, metric: str, threads: int = 2) -> float:
        return value("contention", metric, primitive=primitive, critical_section=0, think_time=0, threads=threads)

    rows = [
        ("spaced penalty / CAS hop, increment", (padded("increment", 8, 200) - padded("increment", PADDED, 200)) / hop, 0.8, 1.5),
        (
            "spaced penalty / CAS hop, atomic add",
            (padded("atomic_add", 8, 200) - padded("atomic_add", PADDED, 200)) / hop,
            0.8,
            1.5,
        ),
        ("padded, 2 threads / 1", padded("atomic_add", PADDED, 200) / padded("atomic_add", PADDED, 200, 1), 0.9, 1.1),
        ("stride 64 / 128", padded("atomic_add", 64, 200) / padded("atomic_add", 128, 200), 0.9, 1.15),
        (
            "atomic add, shared / padded, back to back",
            padded("atomic_add", 8, 0) / padded("atomic_add", PADDED, 0),
            2.5,
            float("inf"),
        ),
        ("mutex / atomic add", lock("mutex", "time_per_operation") / lock("atomic_add", "time_per_operation"), 2, 20),
        ("ticket, Jain index", lock("ticket", "fairness"), 0.95, 1.0001),
        ("MCS, Jain index", lock("mcs", "fairness"), 0.95, 1.0001),
        ("ticket, time per acquisition / hop", lock("ticket", "time_per_operation") / 2 / hop, 0.9, float("inf")),
        ("MCS, time per acquisition / hop", lock("mcs", "time_per_operation") / 2 / hop, 0.9, float("inf")),
        ("L1 latency, cycles", value("memory_latency", "cycles", size=16 * KIB, order="group", page_size="thp"), 3, 6),
    ]
    print(f"distance class {main}, CAS hop {hop:.1f} ns")
    for name, found, low, high in rows:
        print(
            f"{name:45} {found:8.3f}   band {low} to {high}   {'holds' if low <= found <= high else 'BROKEN' if found == found else 'not measured'}"
        )


def main() -> None:
    command_times()
    matrix_costs()
    if sys.argv[1:] == ["--matrix"]:
        return
    controls()
    logs = [nb.load(path) for path in sys.argv[1:]]
    run = logs[0] if logs else nb.run(profile="standard")
    run_costs(run)
    thresholds(run)
    bands(run)


if __name__ == "__main__":
    main()
