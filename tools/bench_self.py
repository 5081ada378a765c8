"""numabench's own speed and overhead: `make bench-self`, recorded in docs/performance.md.

Prints what the command costs, what a worker costs, what the kernels' loops and clock readings cost against controls, and
whether the physics bands of METHODOLOGY.md hold in a standard run (the newest log of this machine, or the one given). With --matrix only start-up and a large matrix, with --fleet only what many logs and machines take (followed by how many machines, visits to each, and logs), with --controls only what loops and clock readings cost (followed by a word: of the cells with it), with --harness only what many threads cost, with --launch only what launching costs.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

import numabench as nb
from numabench import kernel as abi
from numabench.analysis import index as digests
from numabench.analysis.bands import bands, interrupt_bands
from numabench.analysis.digest import Cell as Point
from numabench.benchmarks import CROWDED, discover
from numabench.benchmarks.contention import FOR_READERS, PRIMITIVES, RSEQ
from numabench.benchmarks.core_to_core import OPERATIONS as WAYS
from numabench.benchmarks.fences import own_fences
from numabench.benchmarks.publication import METHODS
from numabench.host.memory import Buffer
from numabench.host.topology import read_topology
from numabench.measure.crew import Crew, Step
from numabench.measure.protocol import Timing
from numabench.measure.runner import NoJudge
from numabench.measure.visit import Request, Visit
from numabench.model import MemoryProof, Sample, ThreadProof, case_hash, together
from numabench.runlog.rounds import pack, unpack
from numabench.units import format_bytes

PROCESSES, TURNS = (
    5,
    40,
)  # where a process has its code and libraries lies, decides over up to half of a lock's time; windows are so short that many pass without an interruption
KIB = 1024
MINIMAL = Path(__file__).with_name("minimal.c")
VECTORS = ("sse2", "avx2", "avx512", "neon")  # that tools/minimal.c has
#: Primitives that differ from another in how many share what, or in how they wait, and in a thread alone in nothing.
SAME_LOOP = {"atomic_add_sharded": "sharded", "atomic_add_per_node": "sharded", "mutex_adaptive": "mutex"}
#: Multiplies inside, reads of a hundred: all but one in ten, and half
READING = ((0, 90), (100, 90), (0, 50))
#: barrier, what follows, cleanings of 1,024, the minimal loop, threads
MARKS = (
    ("none", "nothing", 0, "no_mark", 1),
    ("unconditional", "nothing", 0, "mark", 1),
    ("conditional", "nothing", 0, "look_mark", 1),
    ("none", "locked", 0, "no_mark_locked", 1),
    ("unconditional", "locked", 0, "mark_locked", 1),
    ("conditional", "locked", 0, "look_mark_locked", 1),
    ("unconditional", "nothing", 1024, "clean_mark", 1),
    ("conditional", "nothing", 1024, "clean_look_mark", 1),
    ("unconditional", "locked", 0, "mark_locked", 2),
    ("conditional", "locked", 0, "look_mark_locked", 2),
)
CHASES = ((2, 16), (8, 16), (12, 16), (8, 512), (8, 128 * KIB), (32, 128 * KIB))  # at the same time, KiB
PUBLISHED = {"mutex": "mutexed", "seqlock": "versioned"}
#: Multiplies between two objects, threads, whose time is told: a writer alone, a reader that is as good as alone, and both, at a pace at which neither's luck decides
PUBLISHING = ((0, 1, ("writer",)), (20_000, 2, ("", "reader")), (200, 2, ("writer", "reader")))


class Cell(NamedTuple):
    """What is held against a minimal loop: a kernel and its arguments; `bytes` of memory."""

    kernel: str
    bytes: int
    arguments: dict
    loop: str
    threads: int = 1
    roles: tuple[str, ...] = ()  # of threads whose times are told apart, the first ones; none: of all together

    def __str__(self) -> str:
        threads = [f"{self.threads} threads"] if self.threads > 1 else []
        return ", ".join([" ".join([self.kernel, *map(str, self.arguments.values())]), format_bytes(self.bytes), *threads])


def cells() -> tuple[Cell, ...]:
    topology = read_topology()
    widest = [name for name in topology.vectors if name in VECTORS][-1]
    caches = {"read": 16 * KIB, "write": 16 * KIB, "copy": 16 * KIB, "triad": 24 * KIB}  # a power of two for each array
    memory = {"read": 256 * KIB, "write": 256 * KIB, "copy": 256 * KIB, "triad": 192 * KIB, "write_nt": 256 * KIB}
    return (
        Cell("padded_counters", 4 * KIB, {"operation": "store"}, "store"),
        Cell("padded_counters", 4 * KIB, {"operation": "increment"}, "increment"),
        Cell("padded_counters", 4 * KIB, {"operation": "atomic_add"}, "atomic_add_64"),
        Cell("padded_counters", 4 * KIB, {"operation": "atomic_add", "spacing": 20}, "spaced"),
        *(
            Cell("contention", KIB * KIB, {"primitive": name}, SAME_LOOP.get(name, name))
            for name in PRIMITIVES
            if name != RSEQ or os.uname().machine == "x86_64"
        ),
        *(Cell("contention", KIB * KIB, {"primitive": name}, name, 2) for name in ("atomic_add", "ticket", "mcs", "mutex")),
        *(
            Cell("contention", KIB * KIB, {"primitive": name, "section": section, "reads": share}, f"{name}_reads")
            for name in ("atomic_add", "mutex", *FOR_READERS)
            for section, share in READING
        ),
        *(
            Cell("fences", 4 * KIB, {"fence": fence, "before": before}, "fence")
            for before in ("nothing", "store")
            for fence in ("none", *own_fences(topology))
        ),
        *(Cell("core_to_core", 4 * KIB, {"operation": way}, f"{way}_ways", 2) for way in WAYS),
        *(
            Cell("card_marking", 12 * KIB, {"barrier": barrier, "after": after, "cleaned": cleaned}, loop, threads)
            for barrier, after, cleaned, loop, threads in MARKS
        ),
        *(
            Cell("publication", 128 * KIB, {"method": method, "spacing": spacing}, PUBLISHED.get(method, method), threads, roles)
            for method in METHODS
            for spacing, threads, roles in PUBLISHING
        ),
        *(Cell("memory_latency", size * KIB, {}, "chase") for size in (16, 256, 32 * KIB)),
        *(Cell("memory_latency", size * KIB, {"chains": n}, "chases") for n, size in CHASES),
        *(Cell("memory_bandwidth", size, {"kernel": name, "vector": widest}, f"{name}_lines") for name, size in caches.items()),
        *(
            Cell("memory_bandwidth", size * KIB, {"kernel": name, "vector": widest}, f"{name}_lines")
            for name, size in memory.items()
        ),
        *(
            Cell("loaded_latency", 64 * KIB * KIB, {"rate": rate, "vector": widest}, "chase_beside", 2, ("chase",))
            for rate in (-1, 0)
        ),
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


def times_of(crew: Crew, cell: Cell, kernel: abi.Kernel, arguments: dict, batch: float) -> list[float]:
    """ns of an operation in one thread in a window: of each role, or in the mean of all threads."""
    for slot, value in enumerate(kernel.encode(arguments)):
        crew.case.parameter[slot] = value
    crew.case.batch_ns = int(batch * 1e9)
    crew.enter(kernel, abi.MEASURE, range(cell.threads))
    counted = [  # contention counts between two times that all share
        (crew.case.window_ns if cell.kernel == "contention" else block.end_ns - block.begin_ns, block.operations)
        for block in crew.blocks[: len(cell.roles) or cell.threads]
    ]
    if not cell.roles:
        counted = [tuple(map(sum, zip(*counted, strict=True)))]
    return [ns / operations if operations else math.inf for ns, operations in counted]


def minimal_kernel() -> abi.Kernel:
    """tools/minimal.c, compiled like a kernel in a copy of their folder: it includes their headers."""
    with tempfile.TemporaryDirectory() as folder:
        sources = shutil.copytree(abi.source_folder(), os.path.join(folder, "kernels"))
        shutil.copy(MINIMAL, sources)
        return abi.Kernel(abi.build("minimal", folder=Path(sources)).target)


def controls(wanted: str = "") -> None:
    """Least and lower quartile: what else runs on the machine makes single turns longer, never shorter."""
    print(
        f"\n## What loops and clock readings cost: time over a control's, in turn, least and lower quartile of {TURNS} turns in each of {PROCESSES} processes"
    )
    print(
        "minimal: tools/minimal.c, the same instruction or lock in a loop that does nothing else; clock: read a tenth as often as in a run"
    )
    found: dict[str, list[list[float]]] = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(PROCESSES):
            for label, times in pool.apply(measure_controls, (wanted,)):
                for all_times, more in zip(found.setdefault(label, [[], [], []]), times, strict=True):
                    all_times += more
    for label, times in found.items():
        kernel, *others = ((min(each), statistics.quantiles(each, n=4)[0]) for each in times)
        ratios = [", ".join(f"{own / other:.3f}" for own, other in zip(kernel, low, strict=True)) for low in others]
        print(f"{label:60} {kernel[0]:8.3f} ns   minimal {ratios[0]}   clock {ratios[1]}")


def measure_controls(wanted: str) -> list[tuple[str, tuple[list[float], ...]]]:
    """Of each cell and role whose name has the word: times of the kernel, its minimal loop, the kernel with the rarer clock."""
    cpus, minimal = sorted(os.sched_getaffinity(0)), minimal_kernel()
    return [
        (f"{cell} {role}".strip(), times)
        for cell in cells()
        if wanted in str(cell) and cell.threads <= len(cpus)
        for role, times in zip(cell.roles or (" ",), zip(*control(cell, minimal, cpus), strict=True), strict=True)
        if role
    ]


def control(cell: Cell, minimal: abi.Kernel, cpus: list[int]) -> list[list[list[float]]]:
    """Times by whose they are and role, in TURNS turns."""
    kernel = abi.Kernel(abi.build(cell.kernel).target)
    crew, buffer, scratch = Crew(cell.threads), Buffer(cell.bytes, "thp"), Buffer(max(cell.bytes, 64 * KIB))
    crew.place(tuple(cpus[: cell.threads]), (0,) * cell.threads)
    case, often = crew.case, discover()[cell.kernel].batches * Timing().batch
    case.buffer, case.buffer_bytes, case.scratch, case.scratch_bytes = buffer.address, buffer.size, scratch.address, scratch.size
    case.window_ns, case.warmup_ns = (int(share * often * 1e9) for share in (100, 30))
    for slot, value in enumerate(kernel.encode(cell.arguments)):
        case.parameter[slot] = value
    if any(entry.status for entry in crew.enter(kernel, abi.PREPARE, range(cell.threads))):
        raise SystemExit(f"{cell}: not on this machine")
    less = {"loop": cell.loop} | {name: value for name, value in cell.arguments.items() if name in minimal.parameters}
    asked = ((kernel, cell.arguments, often), (minimal, less, often), (kernel, cell.arguments, 10 * often))
    found: list[list[list[float]]] = [[], [], []]
    for turn in range(TURNS):
        for who in (turn % 3, (turn + 1) % 3, (turn + 2) % 3):
            found[who].append(times_of(crew, cell, *asked[who]))
    crew.close()
    buffer.close()
    scratch.close()
    os.sched_setaffinity(0, cpus)
    return [[list(role) for role in zip(*times, strict=True)] for times in found]


EMPTY = """#include "nb.h"
static const struct nb_parameter parameters[] = {{"x", NULL, "any", 0, 0, 1}};
static const struct nb_metric metrics[] = {{"time", "ns", "none", NB_LOWER_IS_BETTER}};
NB_DESCRIBE("empty", 1, "nothing", parameters, metrics);
int nb_run(struct nb_thread *t) { return t->shared->phase == 9; }
"""


def entries() -> None:
    """What the harness itself takes for one entry: all threads called, their counters read, what they found copied, all gathered."""
    print("\n## An empty entry by threads, on all CPUs in turn (100 of them; and the CPU time of one)")
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        sources = shutil.copytree(abi.source_folder(), Path(folder) / "kernels")
        (sources / "empty.c").write_text(EMPTY)
        kernel = abi.Kernel(abi.build("empty", folder=sources).target)
        for threads in (2, 64, 128, 256, 512, 1024):
            crew = Crew(threads)
            began = time.perf_counter()
            crew.place(tuple(cpus[i % len(cpus)] for i in range(threads)), (0,) * threads)
            placed = time.perf_counter() - began
            times, used = [], time.process_time()
            for _ in range(100):
                began = time.perf_counter()
                crew.follow([Step(kernel, crew.case, range(threads))])
                times.append(time.perf_counter() - began)
            used = (time.process_time() - used) / len(times)
            low, middle = sorted(times)[len(times) // 4], statistics.median(times)
            print(
                f"{threads:5} threads: median {middle * 1e3:6.3f} ms, lower quartile {low * 1e3:6.3f}, least {min(times) * 1e3:6.3f}; "
                f"CPU time {used * 1e3:6.3f}; placed in {placed * 1e3:.1f} ms"
            )
            crew.close()
            os.sched_setaffinity(0, cpus)


def plans() -> None:
    """Whether a process takes what was planned, with as many threads as CPUs and with many more."""
    print("\n## Planned against real: one process of contention by threads (atomic_add and mutex, 0 and 100 ns inside)")
    topology = read_topology()
    relation = next(iter(topology.relations()), None)
    for threads, placement in ((2, relation), (32, CROWDED), (64, CROWDED)):
        if placement is None:
            continue
        settings = ["primitive=atomic_add,mutex", "critical_section=0,100", "think_time=0", "read_share=0"]
        settings += [f"threads={threads}", f"placement={placement}"]
        visit = Visit(Request(benchmarks=("contention",), settings=tuple(settings), processes=5))
        planned = sum(block.seconds for block in visit.plan.blocks)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log.jsonl"
            visit.measure(path, lambda records: NoJudge())
            took: dict[int, float] = {}
            for trial in nb.load(path).log.trials:
                took[trial.process] = took.get(trial.process, 0.0) + trial.duration
        real = statistics.median(took.values())
        print(
            f"{threads:3} threads, {placement:14} planned {planned:6.2f} s, real {real:6.2f} s "
            f"({min(took.values()):.2f} to {max(took.values()):.2f}), ratio {real / planned:.2f}"
        )


def rounds() -> None:
    """What a pair of a large matrix takes in a run log, and to write and read it."""
    print("\n## A round of 256 pairs in a run log")
    chance = np.random.default_rng(1)
    samples = []
    for pair in range(256):
        cpus, ns = [int(cpu) for cpu in chance.choice(512, 2, replace=False)], float(chance.uniform(20, 220))
        parameters = {"cpu_a": cpus[0], "cpu_b": cpus[1], "operation": "cas", "home": cpus[0] // 64, "company": 256}
        operations = min(8, math.ceil(5e6 / (6400 * ns))) * 6400
        begins = sorted(int(n) for n in chance.integers(0, 300, 2) * (0, 1))
        ends = [int(operations * ns + n) for n in chance.integers(0, 500, 2)]
        threads = tuple(
            ThreadProof(cpu=cpu, cpu_begin=cpu, cpu_end=cpu, begin=begin * 1e-9, end=end * 1e-9, operations=operations)
            for cpu, begin, end in zip(cpus, begins, ends, strict=True)
        )
        names = ("latency", "latency_p50", "latency_p99", "line_spread")
        metrics = {name: round(ns * share, 2) for name, share in zip(names, (1, 1.01, 1.3, 0.1), strict=True)}
        home = cpus[0] // 64
        samples.append(
            Sample(
                case=case_hash("core_to_core", parameters),
                index=0,
                parameters=parameters,
                metrics=metrics,
                valid=pair % 50 != 0,
                reasons=() if pair % 50 else ("distance_changed",),
                threads=threads,
                memory=MemoryProof(bytes=4096, page_size="4k", node=home, pages={str(home): 1}, huge_bytes=0, page_bytes=4096),
                overlap=together([t.end for t in threads], [t.begin for t in threads]),
                start_skew=max(t.begin for t in threads),
                frequency=(3.1e9, 3.1e9),
                width=(4.5, 4.5),
            )
        )
    plain = sum(len(msgspec.json.encode(sample)) for sample in samples)
    used = time.process_time()
    packed = [pack("core_to_core", samples) for _ in range(20)]
    packing, used = time.process_time() - used, time.process_time()
    for each in packed:
        again = unpack("core_to_core", each)
    unpacking = time.process_time() - used
    size = len(msgspec.json.encode(packed[0]))
    pairs = 245_509 * 8
    print(
        f"{size / 256:.1f} bytes a pair, {plain / 256:.0f} as samples: {pairs * size / 256 / 1e6:.0f} MB and {pairs * plain / 256 / 1e6:.0f} MB "
        f"for eight processes of 512 CPUs; packed in {packing / 20 * 1e3:.1f} ms of CPU time, expanded in {unpacking / 20 * 1e3:.1f}; "
        f"{'the same' if again == samples else 'DIFFERENT'} afterwards"
    )


# -- fleets ---------------------------------------------------------------------------------------------------------------


def fleet_costs(machines: int = 1_000, visits: int = 20, logs: int = 256) -> None:
    """Reading `logs` logs like the sample for the first time, then an index of `visits` visits to each of `machines` machines with 200 cells."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in ("logs", "fleet"):
            os.mkdir(os.path.join(folder, name))
        size = pool.apply(write_logs, (os.path.join(folder, "logs"), logs))
        print(f"\n## numabench fleet: {logs} logs like results/sample/first.jsonl, {size / 1e6:.1f} MB of gzip")
        for what in ("first time", "again"):
            print(f"{what:12} {command_cost(os.path.join(folder, 'logs'), logs)}")
        size = pool.apply(write_index, (os.path.join(folder, "fleet"), machines, visits))
        print(f"\n## An index of {machines:,} machines with {visits} visits each to 200 cells: {size / 1e6:.1f} MB")
        print(pool.apply(judge_costs, (os.path.join(folder, "fleet"),)))
        print(f"numabench fleet: {command_cost(os.path.join(folder, 'fleet'), machines * visits)}")


def command_cost(folder: str, logs: int) -> str:
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "numabench", "fleet", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    cpu = used.ru_utime + used.ru_stime
    return (
        f"{time.perf_counter() - start:6.2f} s, {cpu:6.2f} s of CPU ({cpu / logs * 1e3:.1f} ms a log), "
        f"{used.ru_maxrss / 1e3:.0f} MB in one process at most, exit code {child.returncode}"
    )


def write_logs(folder: str, count: int) -> int:
    """Bytes of as many logs of machines alike, each of its own time and run."""
    lines = (Path(__file__).parent.parent / "results" / "sample" / "first.jsonl").read_bytes()
    header = msgspec.json.decode(lines.split(b"\n", 1)[0])
    run, total = header["run"].encode(), 0
    for number in range(count):
        own = lines.replace(run, f"{number:012x}".encode()).replace(
            header["machine"]["id"].encode(), f"{number // 2:012x}".encode()
        )
        packed = gzip.compress(own, 6)
        Path(folder, f"{number}.jsonl.gz").write_bytes(packed)
        total += len(packed)
    return total


def write_index(folder: str, machines: int, visits: int, cells: int = 200) -> int:
    """Bytes of the index of simulated visits, each in a file that is not looked into: machines, visits and cells differ by 0.4 to 0.7 %, and one in a hundred is 10 % slow in ten cells."""
    header = nb.load(Path(__file__).parent.parent / "results" / "sample" / "first.jsonl").log.headers[0]
    chance = np.random.default_rng(1)
    own = tuple(
        Point(
            benchmark=f"benchmark_{n // 20}",
            title=f"Benchmark {n // 20}",
            metric="latency",
            unit="ns",
            polarity="lower",
            parameters={"size": 1 << n % 20, "order": "group"},
            quantity=json.dumps({"kernel version": [f"kernel_{n // 20}", 3], "method": {"clock": "monotonic"}}),
        )
        for n in range(cells)
    )
    index, old = digests.Index(Path(folder)), time.time() - 60
    for machine in range(machines):
        level = 4 + 0.005 * chance.standard_normal(cells)
        level[:10] += 0.1 * (machine % 100 == 7)
        facts = header.machine | {"id": f"m{machine}", "alias": f"n{machine:05}", "hostname": f"n{machine:05}"}
        facts["topology"] = facts["topology"] | {
            "nodes": [facts["topology"]["nodes"][0] | {"memory_bytes": (24 << 30) - int(chance.integers(1 << 20))}]
        }
        for number in range(visits):
            started = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T00:00:00Z"
            run = f"{machine}-{number}"
            visit = digests.Visit(
                header=msgspec.structs.replace(header, run=run, session=run, started=started, machine=facts),
                status="complete",
                samples=2_000,
                undisturbed=1.0,
                cells=own,
                values=level + 0.006 * chance.standard_normal(cells),
            )
            path = Path(folder, f"{run}.jsonl")
            path.touch()
            os.utime(path, (old, old))
            pieces = digests.Pieces()
            entry = digests.Entry(size=0, mtime_ns=path.stat().st_mtime_ns, visits=(pieces.kept(visit),))
            index.keep(os.fsencode(path.name), entry, pieces, True)
    index.save()
    return os.path.getsize(index.path)


def judge_costs(folder: str) -> str:
    """CPU times of the two steps, and memory."""
    from numabench.analysis.cohorts import judge_fleet
    from numabench.analysis.collect import read_fleet

    began = resource.getrusage(resource.RUSAGE_SELF)
    visits, unread, notes = read_fleet([folder])
    read = time.process_time()
    found = judge_fleet(visits, unread, notes)
    judged, most = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"{len(visits):,} visits read in {read - began.ru_utime - began.ru_stime:.2f} s of CPU, judged in {judged - read:.2f} s "
        f"({len(found.of('differs'))} differ), {most / 1e3:.0f} MB at most, all that it imports included"
    )


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


def launches() -> None:
    """What `numabench launch` adds to the runs of many hosts: ssh and Slurm are scripts that run what they are given here, numabench one that writes a log at once."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from faked_hosts import There

    print("\n## Launching, all hosts on this machine")
    for number, words in ((1000, ["--ssh", "-"]), (500, ["--slurm", "all"])):
        with tempfile.TemporaryDirectory() as folder:
            there = There(Path(folder))
            names = [f"n{n:04}" for n in range(number)]
            there.ssh()
            there.slurm("".join(f"{name}|idle|none\n" for name in names))
            environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
            own = "import atexit, sys, time; from numabench.cli import main; atexit.register(lambda: print(time.process_time(), file=sys.stderr)); main(sys.argv[1:])"
            command = [sys.executable, "-c", own, "launch", *words, "--with", "fakebench", "-o", f"{folder}/runs"]
            began, before = time.monotonic(), os.times()
            done = subprocess.run(command, env=environment, input="\n".join(names), text=True, capture_output=True)
            took, after = time.monotonic() - began, os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            load = os.getloadavg()[0]
            itself = float(done.stderr.splitlines()[-1])
            print(
                f"{words[0]}: {took:.1f} s at a load of {load:.0f}; CPU time {itself:.1f} s, and {spent - itself:.1f} s of what the hosts run. {done.stdout.splitlines()[0]}"
            )


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


def print_bands(run: nb.Run) -> None:
    print("\n## Physics bands (METHODOLOGY.md): every one a paired or interleaved ratio of this run")
    for band in (*bands(run.log), *itertools.chain.from_iterable(interrupt_bands(run.log).values())):
        value = f"{band.value:8.3f}" if band.value is not None else f"{'–':>8}"
        print(f"{band.name:45} {value}   band {band.ends}   {band.verdict}")


def main() -> None:
    if sys.argv[1:2] == ["--controls"]:
        return controls(*sys.argv[2:])
    if sys.argv[1:2] == ["--fleet"]:
        return fleet_costs(*map(int, sys.argv[2:]))
    if sys.argv[1:] == ["--harness"]:
        entries()
        rounds()
        return plans()
    if sys.argv[1:] == ["--launch"]:
        return launches()
    command_times()
    matrix_costs()
    if sys.argv[1:] == ["--matrix"]:
        return
    fleet_costs()
    entries()
    rounds()
    plans()
    launches()
    controls()
    logs = [nb.load(path) for path in sys.argv[1:]]
    run = logs[0] if logs else nb.run(profile="standard")
    run_costs(run)
    thresholds(run)
    print_bands(run)


if __name__ == "__main__":
    main()
