"""Kernels by their check values: on this machine, with other compilers, and for other processors under emulation."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from numabench import kernel as abi
from numabench.benchmarks import MOST_APART, MOST_LINE, Found, Probes, discover
from numabench.benchmarks.card_marking import BARRIERS, marks_needed
from numabench.benchmarks.contention import CLOCK_SLOT, FAIRNESS, HOME, LOCKS, RSEQ, STAMPS_SLOT, TORN_SLOT
from numabench.benchmarks.fences import C11, EXTENSIONS, NONE
from numabench.benchmarks.fences import OWN as FENCES
from numabench.benchmarks.first_touch import SPENT_SLOT, TOUCHED_SLOT
from numabench.benchmarks.loaded_latency import MIXES
from numabench.benchmarks.memory_bandwidth import KERNELS, PERIOD, VECTORS, clocks, expected_sum
from numabench.benchmarks.memory_latency import (
    BY_CLASS,
    FAST_SLOT,
    LOADS_SLOT,
    MOST_CHAINS,
    ORDERS,
    SPREAD,
    STEP_PS_SLOT,
    UNDER_HALF,
    VISITED_SLOT,
    Chase,
    memory_size,
)
from numabench.benchmarks.memory_ordering import BYTES as BYTES_OF_TESTS
from numabench.benchmarks.memory_ordering import ORDERINGS, THREADS
from numabench.benchmarks.publication import DEAD_FRAME, METHODS
from numabench.benchmarks.single_operations import BYTES as BYTES_OF_LINES
from numabench.benchmarks.single_operations import COUNTED_SLOT, OPERATIONS, OTHERS, OWN, ROUND_SLOT, SIZE_SLOT, STATES, STEP_SLOT
from numabench.errors import MachineError, UsageError
from numabench.host.memory import Buffer
from numabench.host.topology import read_topology
from numabench.measure.crew import Crew
from numabench.measure.plan import LOOKS
from numabench.measure.worker import INTERRUPT_SLOT

SOURCES = sorted(p.stem for p in abi.source_folder().glob("*.c") if p.stem != "crew")
PROBES = Probes(frequency=3e9, multiply=1e-9)


class Refused(AssertionError):
    """A kernel does not prepare what it is asked for: a fault, unless the machine cannot do it."""


def enter(
    kernel: abi.Kernel,
    arguments: dict,
    *,
    threads: int = 1,
    size: int = 1 << 20,
    samples: int = 2,
    nodes: int = 1,
    library=None,
    descriptors: Sequence[int] = (),
    cpus: Sequence[int] = (),
    window: int = 0,
) -> Found:
    """PREPARE and `samples` MEASUREs on `cpus`, or on those that are there (several threads on one, if need be), in windows of so many ns."""
    before = sorted(os.sched_getaffinity(0))
    cpus = cpus or before
    crew, buffer, scratch = Crew(threads, library), Buffer(size), Buffer(max(size, 4096))
    try:
        crew.place(tuple(cpus[i % len(cpus)] for i in range(threads)), tuple(i % nodes for i in range(threads)))
        case = crew.case
        case.buffer, case.buffer_bytes, case.scratch, case.scratch_bytes = buffer.address, size, scratch.address, scratch.size
        # threads that share a CPU take turns of some ms: one that waits for another, which has no CPU, ends nothing in a shorter window
        case.window_ns = window or (1_000_000 if threads <= len(before) else 30_000_000)
        case.warmup_ns, case.batch_ns = 100_000, 10_000
        for slot, value in enumerate(kernel.encode(arguments)):
            case.parameter[slot] = value
        for slot, descriptor in enumerate(descriptors):
            case.descriptor[slot] = descriptor
        members = list(range(threads))
        if any(e.status != abi.OK for e in crew.enter(kernel, abi.PREPARE, members)):
            raise Refused(f"{kernel.name} cannot do {arguments}")
        for _ in range(samples):
            assert all(e.status == abi.OK for e in crew.enter(kernel, abi.MEASURE, members))
        found = Found([abi.ThreadBlock.from_buffer_copy(crew.blocks[m]) for m in members])
        found.memory = ctypes.string_at(buffer.address, size)
        return found
    finally:
        buffer.close()
        scratch.close()
        os.sched_setaffinity(0, before)


def native(source: str | Path, folder: Path, headers: Path | None = None) -> ctypes.CDLL:
    """A C file, of this folder where it is a name alone, built in `folder` as kernels are, with their headers or those of a copy, and loaded."""
    source = Path(__file__).parent / source
    target = folder / f"{source.stem}.so"
    subprocess.run([*abi.find_compiler(), *abi.FLAGS, f"-I{headers or abi.source_folder()}", source, "-o", target], check=True)
    return ctypes.CDLL(str(target))


def broken_kernel(tmp_path, name: str, file: str, right: str, wrong: str) -> abi.Kernel:
    """Kernel `name` of a copy of the sources in which `file` says `wrong` where it said `right`."""
    folder = shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    text = (folder / file).read_text()
    assert right in text and right != wrong
    (folder / file).write_text(text.replace(right, wrong))
    return abi.Kernel(abi.build(name, folder=folder).target)


@pytest.fixture(scope="module")
def loaded() -> dict[str, abi.Kernel]:
    return {name: abi.Kernel(abi.build(name).target) for name in SOURCES}


@pytest.mark.parametrize(
    ("operation", "stride", "spacing", "threads"),
    [*itertools.product(("store", "increment", "atomic_add"), (0, 8, 64), (0, 20), (2,)), ("increment", 256, 0, 1)],
)
def test_padded_counters_count_what_they_did(loaded, operation, stride, spacing, threads):
    parameters = {"operation": operation, "stride": stride, "spacing": spacing, "threads": threads}
    benchmark = discover()["padded_counters"]
    found = enter(loaded["padded_counters"], benchmark.arguments(parameters, PROBES), threads=threads, size=4096)
    assert benchmark.check(parameters, found) == ""
    assert all(t.operations > 0 and t.end_ns > t.begin_ns for t in found.threads)
    metrics = benchmark.metrics(parameters, found, PROBES)
    assert metrics["throughput"] * metrics["time_per_operation"] == pytest.approx(threads * 1e9)
    assert 1 / threads <= metrics["fairness"] <= 1 + 1e-9


@pytest.mark.parametrize("spacing", [0, 20])
@pytest.mark.parametrize(("stride", "offset"), [(8, 0), (64, 64)])
def test_readers_write_nothing(loaded, spacing, stride, offset):
    parameters = {"operation": "atomic_add", "stride": stride, "offset": offset, "spacing": spacing, "threads": 3, "readers": 1}
    benchmark = discover()["padded_counters"]
    found = enter(loaded["padded_counters"], benchmark.arguments(parameters, PROBES), threads=3, size=4096)
    assert benchmark.check(parameters, found) == ""
    metrics = benchmark.metrics(parameters, found, PROBES)
    assert metrics["throughput"] * metrics["time_per_operation"] == pytest.approx(2e9) and metrics["read_time"] > 0
    assert "read_time" not in benchmark.metrics(parameters | {"readers": 0}, found, PROBES)
    found.threads[2].check = 1
    assert "counter 2 is 1, not 0" in benchmark.check(parameters, found)


@pytest.mark.parametrize("stride", [8, 0])
def test_a_lost_update_is_noticed(loaded, stride):
    parameters = {"operation": "atomic_add", "stride": stride, "spacing": 0, "threads": 2}
    benchmark = discover()["padded_counters"]
    found = enter(loaded["padded_counters"], benchmark.arguments(parameters, PROBES), threads=2, size=4096)
    found.threads[0].check -= 1
    assert "counter 0" in benchmark.check(parameters, found)


PRIMITIVES = discover()["contention"].axes[0].values
GROUPS = 5 * 256  # where kernels/nb_protected.h has the number of nodes
CONTENDED = 1 << 20  # bytes of the measured memory, with a page for each of many CPUs, and of the notes of three threads


@pytest.mark.parametrize("reads", [0, 90])
@pytest.mark.parametrize("primitive", PRIMITIVES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_primitive_loses_an_update_or_shows_half_of_one(loaded, primitive, threads, reads):
    parameters = {"primitive": primitive, "critical_section": 20, "think_time": 0, "read_share": reads}
    benchmark = discover()["contention"]
    for _ in range(20):  # on a busy machine nobody may have a CPU for the length of a window, which is then said
        found = enter(loaded["contention"], benchmark.arguments(parameters, PROBES), threads=threads, size=CONTENDED, nodes=2)
        assert benchmark.check(parameters, found) == ""
        assert benchmark.doubts(parameters, found, {}, PROBES) == ([] if any(t.operations for t in found.threads) else ["away"])
        if any(t.operations for t in found.threads):
            break
    metrics = benchmark.metrics(parameters, found, PROBES)
    assert 0 < metrics.get("wait_p999", 1.0) <= metrics.get("wait_max", 1.0) * 1.04  # neither, where stamps changed the rate
    written, done = sum(t.cursor for t in found.threads), found.executed
    assert written == done if not reads else abs(written / done - 0.1) < 0.02
    assert int.from_bytes(found.memory[GROUPS : GROUPS + 4], "little") == min(
        threads, 2
    )  # whose counters a read of all nodes adds up
    assert not reads or "handover" not in metrics  # readers between two holders would count as the way from one to the other
    assert ("fairness_nodes" in metrics) == (threads > 1)
    assert all(1 / threads - 1e-6 <= metrics[name] <= 1 + 1e-6 for name in FAIRNESS if name in metrics)  # in millionths, cut
    found.threads[0].value[TORN_SLOT] = 3
    assert ("3 reads saw a torn state" in benchmark.check(parameters, found)) == (primitive in LOCKS)


def word(memory: bytes, offset: int) -> int:
    return int.from_bytes(memory[offset : offset + 8], "little")


@pytest.mark.parametrize("primitive", ["atomic_add_sharded", "atomic_add_per_node", RSEQ, "biased"])
def test_counters_are_in_the_parts_of_their_owners(loaded, primitive):
    """Of threads, of nodes or of CPUs: parts that are bound to the owners' nodes."""
    if primitive == RSEQ and "sse2" not in read_topology().vectors:
        pytest.skip("restartable sequences are for x86-64")
    benchmark, cpus = discover()["contention"], sorted(os.sched_getaffinity(0))
    parameters = {"primitive": primitive, "critical_section": 0, "think_time": 0, "read_share": 0}
    found = enter(loaded["contention"], benchmark.arguments(parameters, PROBES), threads=3, size=CONTENDED, nodes=2)
    counted = {
        place // 4096 - HOME: value for place in range(HOME * 4096, CONTENDED, 4096) if (value := word(found.memory, place))
    }
    done = [t.cursor for t in found.threads]
    wanted = {
        "atomic_add_sharded": dict(enumerate(done)),
        "atomic_add_per_node": {0: done[0] + done[2], 1: done[1]},
        "biased": {0: done[0]},
        RSEQ: {
            cpu: sum(n for i, n in enumerate(done) if cpus[i % len(cpus)] == cpu)
            for cpu in {cpus[i % len(cpus)] for i in range(3)}
        },
    }[primitive]
    assert counted == {owner: count for owner, count in wanted.items() if count}


def test_nobody_is_stopped_by_one_who_has_the_lock_no_more(loaded):
    """HBO's anger ends: a node whose waiters stay stopped would wait for ever."""
    benchmark = discover()["contention"]
    parameters = {"primitive": "hbo", "critical_section": 300, "think_time": 0, "read_share": 0}
    found = enter(loaded["contention"], benchmark.arguments(parameters, PROBES), threads=3, size=CONTENDED, nodes=2, samples=5)
    assert [word(found.memory, (HOME + node) * 4096 + 256) for node in range(2)] == [0, 0]


@pytest.fixture(scope="module")
def locks(tmp_path_factory):
    return native("locks.c", tmp_path_factory.mktemp("locks"))


PATIENT, IMPATIENT = (
    next(x for x in itertools.count() if bool((x * 1664525 + 1013904223) % 2**32 >> 16 & 63) == stays) for stays in (True, False)
)


@pytest.mark.parametrize(
    ("nodes", "chances", "wanted"),
    [
        ((0, 1, 0, 1, 0), [PATIENT] * 5, [0, 2, 4, 1, 3]),  # its own node first, then the others in their order
        ((0, 1, 0, 1, 0), [IMPATIENT] * 5, [0, 1, 2, 3, 4]),
        ((0, 1, 0, 1, 0, 1), [PATIENT, IMPATIENT, *[PATIENT] * 4], [0, 2, 1, 3, 5, 4]),  # whom it put aside comes before the rest
        ((0, 1, 2, 0, 1, 2, 0), [PATIENT] * 7, [0, 3, 6, 1, 4, 2, 5]),
        ((0,), [PATIENT], [0]),
        ((1, 0), [PATIENT] * 2, [0, 1]),
    ],
)
def test_a_compact_numa_aware_lock_stays_on_its_node_for_a_while(locks, nodes, chances, wanted):
    numbers = ctypes.c_uint32 * len(nodes)
    order = numbers()
    assert locks.serve(numbers(*nodes), len(nodes), numbers(*chances), order) == len(nodes)
    assert list(order) == wanted


@pytest.mark.parametrize("section", [0, 20, 500])
def test_stamps_are_as_rare_as_the_clock_is_dear(loaded, section):
    """Readings take a thirty-second of the time, less where a section is there to take theirs from."""
    benchmark = discover()["contention"]
    parameters = {"primitive": "mutex", "critical_section": section, "think_time": 0, "read_share": 0}
    arguments = benchmark.arguments(parameters, PROBES)
    found = enter(loaded["contention"], arguments, size=CONTENDED)
    thread = found.threads[0]
    clock, stamps, stood_for = thread.value[CLOCK_SLOT], thread.value[STAMPS_SLOT], sum(thread.histogram)
    each = 1_000_000 / (thread.operations + 1)
    added = max(0, 2 * clock - section)
    assert stamps > 0 and stood_for == stamps * (1 + int(32 * (clock + added) / each))
    extra = benchmark.extra(arguments, PROBES, found)
    assert extra["stamped_section_ns"] == pytest.approx(max(section, 2 * clock))
    assert extra["stamps"] == stamps and extra["stamped_ratio"] > 0


LOTS = 24_000  # multiplies: some 26 us, what 256 threads of 100 ns each wait for their turn


def test_a_window_in_which_nobody_was_there_is_no_fault_of_the_lock():
    benchmark = discover()["contention"]
    away = Found([SimpleNamespace(operations=0, check=0, cursor=0, executed=0, value=[0] * 16) for _ in range(2)])
    here = Found([SimpleNamespace(operations=n, check=0, cursor=0, executed=0, value=[0] * 16) for n in range(2)])
    parameters = {"primitive": "atomic_add", "read_share": 0}
    assert benchmark.check(parameters, away) == "" and benchmark.doubts(parameters, away, {}, PROBES) == ["away"]
    assert benchmark.doubts(parameters, here, {}, PROBES) == []


@pytest.mark.parametrize("primitive", ["mutex", "futex", "word_lock", "spin_ttas", "hbo", "mcs", "rw_spin"])
def test_long_turns_are_counted_one_by_one(loaded, primitive):
    """A thread looks at the clock after each, so that what an unfair lock's loser did is known to one operation."""
    parameters = {"primitive": primitive, "critical_section": 0, "think_time": 0, "read_share": 0}
    benchmark = discover()["contention"]
    arguments = benchmark.arguments(parameters, PROBES) | {"section": LOTS}
    found = enter(loaded["contention"], arguments, threads=2, size=CONTENDED, samples=3)
    assert benchmark.check(parameters, found) == ""
    assert all(t.value[abi.BATCH_SLOT] == 1 for t in found.threads)
    rates = [t.operations / 1e-3 for t in found.threads]
    if sum(rates):
        assert benchmark.metrics(parameters, found, PROBES)["throughput"] == pytest.approx(sum(rates))


def starved_and_winner() -> list[SimpleNamespace]:
    """Of a window of 10 ms the one who had the lock all the time, and the one who got it at the end."""
    value = [0] * 16
    value[15], value[14], value[12] = 10_000_000, 20_000_000, 600
    common = {"value": value, "histogram": [0] * abi.BINS, "group": 0, "check": 0}
    return [
        SimpleNamespace(operations=1000, begin_ns=5, end_ns=10_000_100, executed=1000, cursor=1000, **common),
        SimpleNamespace(operations=0, begin_ns=10_000_200, end_ns=10_000_200, executed=1, cursor=1, **common),
    ]


def test_who_starves_is_a_result():
    found, benchmark = Found(starved_and_winner()), discover()["contention"]
    found.threads[0].check = 1001
    parameters = {"primitive": "mutex", "critical_section": 0, "read_share": 0}
    assert benchmark.check(parameters, found) == "" and not benchmark.judges_overlap
    metrics = benchmark.metrics(parameters, found, PROBES)
    assert metrics["throughput"] == pytest.approx(1e5) and metrics["fairness"] == pytest.approx(0.5)
    assert metrics["time_per_operation"] == pytest.approx(2e4)
    assert "wait_p999" in metrics
    found.threads[0].value[12] = 1  # of both, since they share it here: too few for a quantile of a thousand
    assert "wait_p999" not in benchmark.metrics(parameters, found, PROBES)
    arguments = benchmark.arguments({**parameters, "think_time": 0}, PROBES)
    assert benchmark.extra(arguments, PROBES, found)["stamped_ratio"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ratio", "unsteady", "told"),
    [(0.95, 0.001, True), (0.9, 0.001, False), (1.1, 0.001, False), (0.9, 0.05, True), (0.8, 0.05, False), (0.5, 0, True)],
)
def test_waits_of_another_load_are_not_told(ratio, unsteady, told):
    """Stamps take 6 % at most; beyond that and twice the noise of a window of 2.5 ms, if that is known, what was stamped is not what the cell says."""
    found = Found(starved_and_winner())
    for thread in found.threads:
        thread.value[14], thread.value[11], thread.value[1] = int(2e7 / ratio), 90, int(unsteady**2 * 1e9)
    metrics = discover()["contention"].metrics({"primitive": "mutex", "critical_section": 0, "read_share": 0}, found, PROBES)
    assert {"wait_p999", "handover"} <= metrics.keys() if told else not {"wait_p999", "wait_max", "handover"} & metrics.keys()
    assert metrics["throughput"] == pytest.approx(1e5)


def test_ms_that_differ_are_noted_as_noise(tmp_path):
    """Two threads, of which the second does as much in each ms and the first 100, 200, 100, 200 ...: 250 on average, with a standard deviation of 53.5."""
    (tmp_path / "notes.c").write_text(
        '#include "nb_notes.h"\nuint64_t steadiness(struct nb_case *c, uint64_t first, uint64_t last) { return nb_unsteadiness(c, first, last); }\n'
    )
    steadiness = native(tmp_path / "notes.c", tmp_path).steadiness
    steadiness.restype = ctypes.c_uint64
    size = 1024 * 8 + 8 + 4 + 4 * abi.BINS
    size += -size % 8
    scratch, case = (ctypes.c_uint64 * (2 * size // 8))(), abi.CaseBlock()
    case.threads, case.scratch = 2, ctypes.addressof(scratch)
    for ms in range(1, 1024):
        scratch[ms] = scratch[ms - 1] + 100 + 100 * (ms % 2)
        scratch[size // 8 + ms] = scratch[size // 8 + ms - 1] + 100
    noise = [steadiness(ctypes.byref(case), ctypes.c_uint64(1), ctypes.c_uint64(last)) for last in (10, 3)]
    assert noise[0] == pytest.approx((53.5 / 250) ** 2 * 1e9, rel=0.02)
    assert noise[1] == 0  # of one ms


def test_a_lock_that_does_not_exclude_is_noticed(tmp_path):
    """With the lock's waiting taken out, the plain counter loses updates and the check says so."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a race needs two CPUs")
    kernel = broken_kernel(tmp_path, "contention", "nb_locks.h", "while (nb_swap32_acquire(&l->word, 1))", "while (0)")
    parameters = {"primitive": "spin_ttas", "critical_section": 0, "think_time": 0, "read_share": 0}
    benchmark = discover()["contention"]
    found = enter(kernel, benchmark.arguments(parameters, PROBES), threads=2, size=CONTENDED, samples=5)
    assert "updates were lost" in benchmark.check(parameters, found)


@pytest.mark.parametrize(
    ("primitive", "file", "right", "wrong"),
    [
        (
            "clh",
            "nb_locks_queue.h",
            "while (nb_load32_acquire(&((struct clh_node *)(uintptr_t)own->before)->locked))",
            "while (0)",
        ),
        ("spin_backoff", "nb_locks.h", "nb_swap32_acquire(&l->word, 1);)", "0;)"),
        ("qspinlock", "nb_locks_queue.h", "while (__atomic_load_n(&w->held, __ATOMIC_ACQUIRE))", "while (0)"),
        ("word_lock", "nb_locks_queue.h", "if (nb_cas_acquire(w, &seen, seen | WORD_HELD))", "if (1)"),
        ("hbo", "nb_locks_numa.h", "if (nb_peek32(own) || !nb_cas32_acquire(&l->word, &seen, node + 1))", "if (nb_peek32(own))"),
        (
            "cohort",
            "nb_locks_numa.h",
            "    if (!own->owns)\n        ticket_enter(global, hop);",
            "    if (0)\n        ticket_enter(global, hop);",
        ),
        ("rw_spin", "nb_locks_rw.h", "while (nb_load32_acquire(&l->word) != 1)", "while (0)"),
        ("seqlock", "nb_locks_rw.h", "return nb_peek(sequence) != seen;", "return 0;"),
        ("rcu", "nb_protected.h", "version(c, next);", "version(c, 0 * next);"),
    ],
)
def test_a_lock_that_lets_readers_in_too_early_is_noticed(tmp_path, primitive, file, right, wrong):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a race needs two CPUs")
    kernel = broken_kernel(tmp_path, "contention", file, right, wrong)
    parameters = {"primitive": primitive, "critical_section": 100, "think_time": 0, "read_share": 50}
    benchmark = discover()["contention"]
    for _ in range(40):  # each tells of its last window, in which the two may not have run at the same time on a busy machine
        found = enter(kernel, benchmark.arguments(parameters, PROBES), threads=2, size=CONTENDED, samples=5, nodes=2)
        if benchmark.check(parameters, found) != "" or sum(t.value[TORN_SLOT] for t in found.threads):
            return
    raise AssertionError("nothing was noticed")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1024, 2048, 3 * 256, 96 * 1024, 1 << 20])
def test_a_chase_stands_where_it_should(loaded, order, size):
    benchmark = discover()["memory_latency"]
    parameters = {"size": size, "order": order, "page_size": "4k"}
    found = enter(loaded["memory_latency"], benchmark.arguments(parameters, PROBES) | {"seed": 7}, size=size)
    assert benchmark.check(parameters, found) == ""


def walked(kernel: abi.Kernel, arguments: dict, size: int, line: int = 64) -> tuple[list[int], list[int]]:
    """The lines of a chain in their order, pointer by pointer from where the kernel built it (an oracle that shares nothing with it), and where
    in that order the kernel's chases stand; the first has walked all of it once."""
    crew, buffer, scratch = Crew(1), Buffer(size), Buffer(size)
    try:
        crew.place((min(os.sched_getaffinity(0)),), (0,))
        case = crew.case
        case.buffer, case.buffer_bytes, case.scratch, case.scratch_bytes = buffer.address, size, scratch.address, size
        for slot, value in enumerate(kernel.encode(arguments)):
            case.parameter[slot] = value
        assert crew.enter(kernel, abi.PREPARE, [0])[0].status == abi.OK
        memory = (ctypes.c_uint64 * (size // 8)).from_address(buffer.address)
        starts = list((ctypes.c_uint64 * MOST_CHAINS).from_address(scratch.address))
        place, places = starts[0], []
        for _ in range(size // line):
            places.append(place)
            place = memory[(place - buffer.address) // 8]
        assert place == starts[0]
        return [(place - buffer.address) // line for place in places], [places.index(start) for start in starts]
    finally:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        buffer.close()
        scratch.close()


@pytest.mark.parametrize("order", ORDERS)
def test_a_chain_is_one_cycle_through_all_lines(loaded, order):
    size, group = 640 << 10, ORDERS[order]
    visited, _ = walked(
        loaded["memory_latency"], discover()["memory_latency"].arguments({"order": order}, PROBES) | {"seed": 3}, size
    )
    assert sorted(visited) == list(range(size // 64))
    if group == 0:
        assert {(b - a) % (size // 64) for a, b in itertools.pairwise(visited)} == {1}
    elif group < size:  # in whole groups: the chase leaves a group only when it has visited all of it, or all of its class in it
        left = len(list(itertools.groupby(line // (group // 64) for line in visited)))
        groups = (size // group + bool(size % group)) * (4 if order in BY_CLASS else 1)
        assert left in (groups, groups + 1)


@pytest.mark.parametrize("line", [64, 128, 256])
@pytest.mark.parametrize("order", BY_CLASS)
def test_a_line_s_neighbours_come_when_all_others_have(order, line):
    """What came along with a line has had as many other lines behind it as a class has, but for where a group or a class is shuffled: two
    lines within max(256 bytes, four lines) never follow each other sooner."""
    kernel = abi.Kernel(abi.build("memory_latency", line_bytes=line).target)
    size, apart = 4 << 20, max(256, 4 * line)
    visited, _ = walked(kernel, discover()["memory_latency"].arguments({"order": order}, PROBES) | {"seed": 3}, size, line)
    assert sorted(visited) == list(range(size // line))
    classes, each = apart // line, size // apart
    for number in range(classes):  # one class after the other, whole
        assert {place % classes for place in visited[number * each : (number + 1) * each]} == {number}
    at = {place: index for index, place in enumerate(visited)}
    within = {"group": ORDERS["group"] // apart, "random": each}[order]  # how far a shuffle may move a line
    gaps = [at[place + 1] - at[place] for place in range(size // line - 1) if place % classes != classes - 1]
    assert min(gaps) > each - within and max(gaps) < each + within
    assert order == "random" or min(gaps) > 0.9 * each


def test_neighbours_follow_each_other_in_the_order_that_is_called_adjacent(loaded):
    visited, _ = walked(loaded["memory_latency"], discover()["memory_latency"].arguments({"order": "adjacent"}, PROBES), 4 << 20)
    at = {place: index for index, place in enumerate(visited)}
    assert max(abs(at[place + 1] - at[place]) for place in range(0, len(visited), 4)) < 4096 < len(visited) // 4


def test_chases_stand_apart_from_each_other_and_from_each_other_s_neighbours(loaded):
    """However many take part: over the cycle, and over a class of it, in which a group is where its neighbours are in the next class."""
    size = 4 << 20
    lines = size // 64
    _, stand = walked(loaded["memory_latency"], discover()["memory_latency"].arguments({"order": "group"}, PROBES), size)
    assert stand == [(k * SPREAD % 2**32) * lines >> 32 for k in range(MOST_CHAINS)]
    for round_, chains in itertools.product((lines, lines // 4), range(2, MOST_CHAINS + 1)):
        places = sorted(place % round_ for place in stand[:chains])
        gaps = [b - a for a, b in itertools.pairwise([*places, places[0] + round_])]
        assert min(gaps) > 0.28 * round_ / chains - 1


def test_wider_lines_are_visited_once_each(loaded):
    """One load is one line: where a line has 256 bytes, a set of as many bytes has a quarter of the lines."""
    kernel, size = abi.Kernel(abi.build("memory_latency", line_bytes=256).target), 1 << 20
    benchmark = discover()["memory_latency"]
    parameters = {"size": size, "order": "group", "page_size": "4k"}
    found = enter(kernel, benchmark.arguments(parameters, PROBES), size=size)
    assert benchmark.check(parameters, found) == "" and found.threads[0].value[VISITED_SLOT] == 256
    assert enter(loaded["memory_latency"], {}, size=size).threads[0].value[VISITED_SLOT] == 64


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """nb_single.h with a clock that the test sets."""
    return native("single.c", tmp_path_factory.mktemp("single"))


def timed_loads(single, *times: int) -> abi.ThreadBlock:
    """Usual time, time between two readings, and times of every fourth load and of the others, in ns."""
    block, cell = abi.ThreadBlock(), ctypes.c_uint64(0)
    cell.value = ctypes.addressof(cell)
    place = ctypes.c_uint64(cell.value)
    single.time_loads(ctypes.byref(block), ctypes.byref(place), *map(ctypes.c_uint64, times))
    assert place.value == cell.value
    return block


def test_single_loads_tell_how_many_were_fast(single):
    block = timed_loads(single, 150, 10, 20, 190)
    assert list(block.value)[LOADS_SLOT : STEP_PS_SLOT + 1] == [20480, 5120, 10_000]
    extra = Chase.extra(discover()["memory_latency"], {}, PROBES, Found([block]))
    assert extra == {UNDER_HALF: 0.25, "single_loads": 20480.0, "counter_step_ns": 10.0, "from_16_ns": 0.25, "from_128_ns": 0.75}
    assert timed_loads(single, 1000, 10, 20, 990).value[LOADS_SLOT] == 3125  # an eighth of a window of 25 ms
    assert timed_loads(single, 150, 10, 80, 190).value[FAST_SLOT] == 0  # over half of 150
    assert timed_loads(single, 150, 10, 70, 190).value[FAST_SLOT] == 5120
    assert block.value[LOADS_SLOT] * LOOKS[0] >= 10**5  # of a cell, by the time it is looked at first


@pytest.mark.parametrize("times", [(150, 40, 20, 190), (15, 4, 0, 20), (150, 200, 20, 190)])
def test_a_counter_that_cannot_tell_times_no_load(single, times):
    """Steps of over a quarter of a load, or readings that take longer than one."""
    block = timed_loads(single, *times)
    assert block.value[LOADS_SLOT] == 0 and sum(block.histogram) == 0
    assert discover()["memory_latency"].extra({}, PROBES, Found([block])) == {}


def test_the_loads_that_are_timed_belong_to_the_chase(loaded):
    benchmark, size = discover()["memory_latency"], 64 << 20
    parameters = {"size": size, "order": "group", "page_size": "4k"}
    found = enter(loaded["memory_latency"], benchmark.arguments(parameters, PROBES), size=size)
    assert benchmark.check(parameters, found) == ""
    thread = found.threads[0]
    if not thread.value[LOADS_SLOT]:
        pytest.skip("the counter of this machine is too coarse")
    assert 0 < thread.value[LOADS_SLOT] == sum(thread.histogram) <= 20480  # an eighth of a window of 1 ms
    thread.executed -= thread.value[LOADS_SLOT]
    assert "the chase stands at" in benchmark.check(parameters, found)


@pytest.mark.parametrize(
    ("name", "order", "size", "share", "reason"),
    [
        ("memory_latency", "group", 1 << 30, 0.021, "cached"),
        ("memory_latency", "group", 1 << 30, 0.019, ""),
        ("memory_latency", "random", 1 << 30, 0.3, "cached"),
        ("memory_latency", "adjacent", 1 << 30, 0.3, ""),  # there it is the answer
        ("memory_latency", "group", 1 << 20, 0.3, ""),  # a set that a cache holds in part
        ("memory_parallelism", "group", 1 << 30, 0.3, "cached"),
        ("node_latency", "group", 1 << 20, 0.3, "cached"),  # it is called memory whatever its size
        ("tlb_latency", "random", 1 << 30, 0.3, ""),
    ],
)
def test_memory_that_caches_answer_for_is_cached(name, order, size, share, reason):
    topology, benchmark = read_topology(), discover()[name]
    parameters = {"size": size, "order": order, "page_size": "thp", "chains": 1, "laps": 1}
    parameters |= {
        "cpu_node": topology.cpu_nodes()[0],
        "memory_node": topology.memory_nodes()[0],
        "layout": "spread",
        "lines": size // 4096,
    }
    if name != "node_latency" and size > 1 << 20:
        parameters["size"] = memory_size(topology, topology.order_cpus()[:1])
    assert benchmark.unproven(parameters, {UNDER_HALF: share}, topology) == reason
    assert benchmark.unproven(parameters, {}, topology) == ""  # not told


def test_no_lap_repeats_the_order_of_another(loaded):
    size, kernel, laps = 16 << 10, loaded["memory_latency"], 4
    crew, buffer, scratch = Crew(1), Buffer(size), Buffer(size)
    crew.place((min(os.sched_getaffinity(0)),), (0,))
    case = crew.case
    case.buffer, case.buffer_bytes, case.scratch, case.scratch_bytes = buffer.address, size, scratch.address, size
    for slot, value in enumerate(kernel.encode({"seed": 3, "laps": laps})):
        case.parameter[slot] = value
    assert crew.enter(kernel, abi.PREPARE, [0])[0].status == abi.OK
    memory = (ctypes.c_uint64 * (size // 8)).from_address(buffer.address)
    place = start = ctypes.c_uint64.from_address(scratch.address).value
    visited = []
    for _ in range(laps * size // 64):
        visited.append((place - buffer.address) // 64)
        place = memory[(place - buffer.address) // 8]
    assert place == start and [visited.count(line) for line in range(size // 64)] == [laps] * (size // 64)
    following = {line: [b for a, b in itertools.pairwise(visited) if a == line] for line in range(size // 64)}
    repeated = [line for line, after in following.items() if len(set(after)) < len(after)]
    assert len(repeated) < size // 64 // 8  # by chance a line is followed by the same one twice
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    buffer.close()
    scratch.close()


def test_laps_that_a_line_has_no_room_for_are_refused(loaded):
    with pytest.raises(AssertionError):
        enter(loaded["memory_latency"], {"line_bytes": 32, "laps": 3}, size=1 << 12)


def test_the_median_batch_is_within_the_window_s_own_times(loaded):
    found = enter(loaded["memory_latency"], {"seed": 1, "chains": 2}, size=1 << 14)  # of two no single loads are timed
    thread = found.threads[0]
    mean = (thread.end_ns - thread.begin_ns) / thread.operations
    shortest = thread.value[1] / thread.value[0]
    # within the width of a bin, which shows where a window that was disturbed has a handful of batches
    assert shortest * 0.95 <= abi.median_batch(thread) <= max(mean * 1.5, shortest * 2.5)
    assert sum(thread.histogram) * thread.value[0] == thread.operations
    assert shortest * 0.95 <= abi.mean_batch(thread) <= max(mean * 1.01, shortest * 1.02)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    """nb_window.h's arithmetic."""
    library = native("window.c", tmp_path_factory.mktemp("window"))
    for function in (library.middle, library.mean, library.median):
        function.restype = ctypes.c_double
    return library


def binned(window, batches: list[int], usual: int) -> ctypes.Array:
    bins = (ctypes.c_uint32 * abi.BINS)()
    window.fill(bins, (ctypes.c_uint64 * len(batches))(*batches), ctypes.c_uint64(len(batches)), ctypes.c_uint64(usual))
    return bins


def mean_of(window, batches: list[int], usual: int = 2560) -> float:
    return window.mean(binned(window, batches, usual), ctypes.c_uint64(len(batches))) * usual / abi.FINE_BINS


@pytest.fixture(scope="module")
def price(tmp_path_factory):
    """(first, apart, times, away, window; ns) -> ps that the sentinel finds for a multiply of 1 ns."""
    library = native("settled.c", tmp_path_factory.mktemp("settled"))
    library.price.restype, library.price.argtypes = ctypes.c_uint64, [ctypes.c_uint64] * 5
    return library.price


@given(st.integers(0, 600_000), st.integers(1, 40_000), st.integers(0, 4), st.integers(100_000, 20_000_000))
def test_a_thread_that_loses_its_cpu_has_the_price_of_work_all_the_same(price, first, apart, times, away):
    """Kept away for longer than its window, it had one batch in it, and work seemed a hundred times as dear: who asks for 100 ns then got 1."""
    assert price(first, apart, times, away, 300_000) == pytest.approx(1000, rel=0.01)


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """(operation, waits at, waits for, window, batch; ns) -> operations counted between the two times, and begun between them."""
    library = native("count_window.c", tmp_path_factory.mktemp("counting"))
    library.count.restype = ctypes.c_uint64
    library.count.argtypes = (*[ctypes.c_uint64] * 5, ctypes.POINTER(ctypes.c_uint64))

    def count(operation: int, at: int, waits: int, window: int = 8_000_000, batch: int = 50_000) -> tuple[int, int]:
        truth = ctypes.c_uint64()
        counted = library.count(operation, at % 2**64, waits, window, batch, ctypes.byref(truth))
        return counted, truth.value

    return count


@given(st.integers(1, 9_000_000), st.integers(1_000_000, 20_000_000), st.integers(5_000, 100_000))
def test_steady_operations_are_counted_to_one(counting, operation, window, batch):
    counted, truth = counting(operation, 0, 0, window, batch)
    assert abs(counted - truth) <= 1 + truth * 0.001  # an operation in proportion at either end; the clock is read in between


@given(st.integers(5, 5_000), st.integers(0, 30_000))
def test_who_gets_nowhere_in_the_window_has_done_nothing(counting, operation, before):
    """It did many in a batch before, and lost the lock in the middle of one."""
    assert counting(operation, -1 - before, before + 9_000_000) == (0, 0)


@given(st.integers(5, 5_000), st.integers(0, 7_900_000), st.integers(0, 20_000_000))
def test_a_wait_misplaces_no_more_than_a_batch(counting, operation, at, waits):
    counted, truth = counting(operation, at, waits)
    assert abs(counted - truth) * operation <= 2 * 50_000 + 2 * operation


@pytest.fixture(scope="module")
def single_events(tmp_path_factory):
    """(ns of each kind of event in turn, ns between two, ns of a reading of the clock, window in ns) -> events in it and `value`."""
    library = native("each.c", tmp_path_factory.mktemp("each"))
    library.each.restype = ctypes.c_uint64

    def each(takes: list[int], between: list[int], reading: int, window: int = 10_000_000) -> tuple[int, list[int]]:
        numbers, value = ctypes.c_uint64 * len(takes), (ctypes.c_uint64 * abi.VALUES)()
        readings = ctypes.c_uint64(reading), ctypes.c_uint64(window)
        count = library.each(ctypes.c_uint64(len(takes)), numbers(*takes), numbers(*between), *readings, value)
        return count, list(value)

    return each


@given(st.integers(1_000, 10_000_000), st.integers(0, 100_000), st.integers(1, 5_000))
def test_a_single_event_takes_what_it_takes(single_events, takes, between, reading):
    """Neither what lies between two of them nor the reading of the clock is in it."""
    count, value = single_events([takes], [between], reading)
    assert value[abi.SHORTEST_SLOT] == value[abi.LONGEST_SLOT] == takes and value[abi.BATCH_SLOT] == 1
    assert value[abi.USUAL_SLOT] == pytest.approx(takes, rel=0.033)
    assert value[abi.MEDIAN_PS_SLOT] == pytest.approx(takes * 1000, rel=0.005)
    least = 10_000_000 // (takes + between + 3 * reading)
    assert count >= max(8, least) and count <= max(8, least + 2)


def test_single_events_of_two_kinds_are_told_apart(single_events):
    count, value = single_events([2_000, 2_000, 40_000], [0, 0, 0], 25)
    assert value[abi.MEDIAN_PS_SLOT] == pytest.approx(2_000_000, rel=0.005) and value[abi.LONGEST_SLOT] == 40_000
    assert value[abi.MEAN_PS_SLOT] == pytest.approx(44_000_000 / 3, rel=0.03) and count > 600


@given(st.lists(st.integers(1_000, 200_000), min_size=8, max_size=90))
def test_quantiles_of_few_single_events_are_those_of_the_list(single_events, takes):
    """A window with each of them once: the median between two, and the mean without the shortest and the longest."""
    takes = takes * -(-8 // len(takes))
    window = sum(takes) + 3 * len(takes) - 1  # so many readings of the clock, each of 1 ns
    count, value = single_events(takes, [0] * len(takes), 1, window)
    assert count == len(takes)
    within = {"rel": 0.035, "abs": max(takes) * 1.1e3 / abi.FINE_BINS}
    assert value[abi.MEDIAN_PS_SLOT] == pytest.approx(1e3 * statistics.median(takes), **within)
    assert value[abi.MEAN_PS_SLOT] == pytest.approx(1e3 * statistics.mean(sorted(takes)[1:-1]), **within)


def test_events_that_take_no_time_at_first_are_no_measure_of_the_others(single_events):
    """One sleep in four ends in time: bins that are fine around 1 ns would end at 512."""
    _, value = single_events([0, 50_000, 50_000, 50_000], [0] * 4, 5)
    assert value[abi.SHORTEST_SLOT] == 0 and value[abi.MEDIAN_PS_SLOT] == pytest.approx(50_000_000, rel=0.035)


def test_a_quantile_of_a_few_is_none():
    assert not abi.has_tail(99, 0.99) and abi.has_tail(100, 0.99) and not abi.has_tail(0, 0.5) and abi.has_tail(1000, 0.999)
    few, many, beyond = (abi.ThreadBlock(operations=n) for n in (99, 100, 100))
    for block in (few, many, beyond):
        block.value[abi.USUAL_SLOT], block.value[abi.BATCH_SLOT] = 100, 1
        block.histogram[abi.BINS - 1 if block is beyond else abi.FINE_BINS] = block.operations
    assert abi.tail(few, "p99") == {} == abi.tail(beyond, "p99") and abi.tail(many, "p99")["p99"] == pytest.approx(100, rel=0.01)


def test_the_mean_batch_is_that_of_a_mixture_and_leaves_interruptions_out(window):
    assert mean_of(window, [2565] * 1000) == pytest.approx(2565)
    assert mean_of(window, [2565] * 1000 + [10**6] * 9) == pytest.approx(2565)
    assert mean_of(window, [1005] * 500 + [5005] * 500) == pytest.approx(3005)


@given(st.lists(st.integers(1, 630), min_size=200, max_size=400))
def test_the_mean_batch_agrees_with_scipy(window, bins):
    values = [10 * b + 5 for b in bins]
    values = values[: len(values) // 100 * 100]  # scipy cuts whole values alone
    assert mean_of(window, values) == pytest.approx(trim_mean(values, 0.01), rel=0.03 if max(values) >= 5120 else 1e-9)


@given(st.integers(1, 10**9), st.integers(1, 10**7))
def test_a_batch_is_near_the_middle_of_its_bin(window, took, usual):
    (index,) = (i for i, count in enumerate(binned(window, [took], usual)) if count)
    middle = abi.batch_middle(index) * usual
    assert window.middle(index) == pytest.approx(abi.batch_middle(index) * abi.FINE_BINS)
    if took < 2 * usual:
        assert abs(took - middle) <= usual / abi.FINE_BINS + 1
    elif index < abi.BINS - 1:
        assert took == pytest.approx(middle, rel=0.033)
    else:
        assert took >= 500 * usual


def test_quantiles_reach_the_tail(window):
    """950 blocks of 10 us and 50 of 80 us: the slowest hundredth took 80, and what no bin holds is said."""
    bins = binned(window, [10_000] * 950 + [80_000] * 50, 10_000)
    block = SimpleNamespace(histogram=bins, value=[100, 0, 0, 0, 10_000, 0])
    assert abi.batch_quantile(block, 0.5) == pytest.approx(100, rel=0.004)
    assert abi.batch_quantile(block, 0.99) == pytest.approx(800, rel=0.033)
    block.histogram = binned(window, [10_000] * 950 + [80_000_000] * 50, 10_000)
    assert abi.batch_quantile(block, 0.99) == float("inf")


@given(st.lists(st.dictionaries(st.integers(0, abi.BINS - 1), st.integers(0, (1 << 32) - 1), max_size=9), min_size=1, max_size=4))
def test_histograms_add_up_bin_by_bin(threads):
    blocks = [abi.ThreadBlock() for _ in threads]
    for block, bins in zip(blocks, threads, strict=True):
        for index, count in bins.items():
            block.histogram[index] = count
    assert abi.add_histograms(blocks) == [sum(column) for column in zip(*(b.histogram for b in blocks), strict=True)]


def test_a_chain_that_is_not_one_cycle_is_noticed(tmp_path):
    """A shuffle of self pointers walks a random share of its lines (X-Mem and numademo do)."""
    kernel = broken_kernel(
        tmp_path, "memory_latency", "nb_chase.h", "c->order[i + 1 < c->lines ? i + 1 : 0]", "c->order[c->order[i]]"
    )
    benchmark = discover()["memory_latency"]
    parameters = {"size": 1 << 18, "order": "random", "page_size": "4k"}
    found = enter(kernel, benchmark.arguments(parameters, PROBES) | {"seed": 7}, size=1 << 18)
    assert "the chase stands at" in benchmark.check(parameters, found)


def test_an_impossible_latency_fails_its_sample():
    benchmark = discover()["memory_latency"]
    assert "none takes less" in benchmark.physics({}, {"cycles": 0.5})
    assert benchmark.physics({}, {"cycles": 4.0}) == ""


def vectors_here() -> tuple[str, ...]:
    return read_topology().vectors


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("size", "threads"), [(4096, 1), (12288, 1), (40960, 2), (3 << 20, 2)])
def test_streams_read_and_leave_what_is_predicted(loaded, kernel, size, threads):
    benchmark = discover()["memory_bandwidth"]
    for vector in vectors_here():
        if vector == "portable" and kernel.endswith("_nt"):
            continue
        parameters = {"kernel": kernel, "vector": vector, "size": size}
        found = enter(loaded["memory_bandwidth"], benchmark.arguments(parameters, PROBES), threads=threads, size=size)
        assert benchmark.check(parameters, found) == "", vector
        metrics = benchmark.metrics(parameters, found, PROBES)
        assert metrics["bus_bandwidth"] >= metrics["bandwidth"] > 0


def test_bytes_per_cycle_are_by_the_clock_that_the_threads_found_themselves(loaded):
    """The probes around a sample run scalar code: by then a core that had slowed down for wide vectors has its clock back."""
    benchmark, parameters = discover()["memory_bandwidth"], {"kernel": "read", "vector": "portable", "size": 1 << 16}
    found = enter(loaded["memory_bandwidth"], benchmark.arguments(parameters, PROBES), threads=2, size=1 << 16)
    assert all(1e8 < hertz < 1e11 for hertz in clocks(found))
    picoseconds = 1024 * 1000 / 2.5  # of 1,024 cycles at 2.5 GHz; two of five batches were interrupted
    for thread in found.threads:
        thread.value[6:11] = [int(picoseconds), 10**9, int(picoseconds), 10**9, int(picoseconds)]
    assert clocks(found) == pytest.approx([2.5e9, 2.5e9], rel=1e-5)
    metrics = benchmark.metrics(parameters, found, Probes(frequency=3.5e9))
    assert metrics["bytes_per_cycle"] == pytest.approx(metrics["bandwidth"] / 5e9, rel=1e-5)
    assert benchmark.extra({}, PROBES, found) == {"clock_inside": pytest.approx(2.5e9, rel=1e-5)}


def test_the_sum_of_a_stream_is_that_of_a_plain_simulation():
    """Every round and every array, word by word: an oracle without a formula."""
    lines = 48
    words = lines * 8
    filled = [i % PERIOD + 1 for i in range(words)]
    for kernel, executed in itertools.product(("read", "write", "copy"), (0, 8, 40, 48, 96, 104, 152, 200)):
        array, total = list(filled), 0
        for line in range(executed):
            turn, at = divmod(line, lines - 8 if kernel == "copy" else lines)
            source = at + 8 if kernel == "copy" and turn % 2 else at
            for w in range(8):
                if kernel == "read":
                    total += filled[at * 8 + w] if at % 8 == w == 0 else 0
                else:
                    array[at * 8 + w] = filled[source * 8 + w] if kernel == "copy" else (turn + 1) * 0x9E3779B97F4A7C15
        wanted = total if kernel == "read" else sum(array) + sum(array[: words // 2])
        assert expected_sum(kernel, lines, executed) == wanted % 2**64, (kernel, executed)


def test_a_stream_that_skips_is_noticed(tmp_path):
    """Every second vector is left out: its neighbour is stored in its place."""
    kernel = broken_kernel(
        tmp_path,
        "memory_bandwidth",
        "nb_stream_set.h",
        "PUT(to + i, k, v##k, v##l)",
        "PUT(to + i, k, v##k, v##k)",
    )
    benchmark = discover()["memory_bandwidth"]
    parameters = {"kernel": "copy", "vector": vectors_here()[-1], "size": 1 << 16}
    found = enter(kernel, benchmark.arguments(parameters, PROBES), size=1 << 16)
    assert "add up to" in benchmark.check(parameters, found)


def test_no_core_streams_more_than_its_ports_can():
    benchmark = discover()["memory_bandwidth"]
    assert "no core moves more" in benchmark.physics({"vector": "sse2"}, {"bytes_per_cycle": 65.0})
    assert benchmark.physics({"vector": "sse2"}, {"bytes_per_cycle": 48.0}) == ""


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("rate", ["0", "1", "max"])
def test_chaser_and_loaders_do_what_they_count(loaded, mix, rate):
    benchmark, vector = discover()["loaded_latency"], vectors_here()[-1]
    if vector == "portable" and mix.endswith("_nt"):
        pytest.skip("no stores past the caches")
    parameters = {"mix": mix, "rate": rate, "vector": vector, "size": 1 << 20}
    arguments = benchmark.arguments(parameters, PROBES) | benchmark.seed_argument(3)
    found = enter(loaded["loaded_latency"], arguments, threads=2, size=2 << 20)
    assert benchmark.check(parameters, found) == ""
    metrics = benchmark.metrics(parameters, found, PROBES)
    assert metrics["latency"] > 0
    assert 0 < metrics["latency_p50"] <= metrics["latency_p95"] <= metrics["latency_p99"]
    assert metrics["load"] > 0
    found.threads[1].cursor += 12
    assert "loader 1" in benchmark.check(parameters, found)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """When loaders let their bursts go, by a clock of the test's own: (loaders, index from 1, MB/s, bursts, ...) -> ns since the gate."""
    library = native("tokens.c", tmp_path_factory.mktemp("tokens"))

    def times(loaders: int, index: int, rate: int, bursts: int, *, seed: int = 7, late: int = -1, away: int = 0) -> list[int]:
        found = (ctypes.c_uint64 * bursts)()
        words = [ctypes.c_uint64(n) for n in (bursts, late & (1 << 64) - 1, away)]
        library.tokens(loaders + 1, index, ctypes.c_int64(rate), ctypes.c_int64(seed), *words, found)
        return list(found)

    return times


TICK = 100  # ns between two readings of the clock in tests/tokens.c


def test_loaders_take_turns_within_an_interval_and_keep_the_rate(tokens):
    loaders, rate = 8, 400  # MB/s: a burst of each in 81,920 ns
    interval = loaders * 4096 * 1000 // rate
    shifts = []
    for index in range(1, loaders + 1):
        found = tokens(loaders, index, rate, 4000)
        places = [interval * ((index - 1) / loaders + k) for k in range(4000)]
        mine = [at - place for at, place in zip(found, places, strict=True)]
        assert min(mine) >= 0 and max(mine) <= interval / 2 + 2 * TICK, "a quarter to either side"
        assert sum(mine) / len(mine) == pytest.approx(interval / 4, rel=0.05), "and the rate is that of the timetable"
        assert max(mine) - min(mine) > 0.45 * interval
        shifts.append(tuple(mine))
    assert len(set(shifts)) == loaders, "each has a sequence of its own"


def test_a_loader_that_was_kept_away_catches_up_on_sixteen_bursts_at_its_own_place(tokens):
    interval = 4 * 4096 * 1000 // 400
    found = tokens(4, 3, 400, 300, late=100, away=50 * interval)
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    assert sum(gap <= 2 * TICK for gap in gaps[99:120]) in (16, 17)
    phases = [(at - interval / 2) % interval for at in found[130:]]
    assert max(phases) <= interval / 2 + 2 * TICK, "as before: it has not come nearer to the others"


@pytest.mark.parametrize("threads", [1, 2])
def test_first_touches_find_new_pages(loaded, threads):
    benchmark = discover()["first_touch"]
    parameters = {"page_size": "4k", "threads": threads}
    found = enter(loaded["first_touch"], benchmark.arguments(parameters, PROBES), threads=threads)
    assert benchmark.check(parameters, found) == ""
    assert all(thread.operations % (256 // threads) == 0 for thread in found.threads)
    metrics = benchmark.metrics(parameters, found, PROBES)
    times = [thread.value[SPENT_SLOT] / thread.operations for thread in found.threads]
    assert min(times) <= metrics["time_per_page"] <= max(times)  # one of them may have waited for its CPU
    assert metrics["rate"] == pytest.approx(sum(4096e9 / time for time in times))
    assert len({thread.executed for thread in found.threads}) == 1, "all make equally many rounds"
    found.threads[-1].value[TOUCHED_SLOT] = 1 << 62
    assert "while another touched" in benchmark.check(parameters, found)


def test_giving_back_while_others_touch_is_noticed(tmp_path):
    """Thread 1 is slow to give its pages back, and nobody waits for it."""
    late = "if (t->index)\n            usleep(20000), at[GAVE] = nb_now();\n        at[TOUCHES]"
    kernel = broken_kernel(tmp_path, "first_touch", "first_touch.c", "nb_gate(t);\n        at[TOUCHES]", late)
    assert "while another touched" in discover()["first_touch"].check(
        {"page_size": "4k"}, enter(kernel, {"page_bytes": 4096}, threads=2)
    )


def test_gates_open_as_often_as_they_are_asked_for(tmp_path):
    """They are used in turn: the ninth would still be open from the first."""
    source = tmp_path / "gates.c"
    source.write_text(
        """#include "nb.h"
        #include <pthread.h>
        static struct nb_case c = {.threads = 3};
        static struct nb_thread threads[3];
        static void *pass(void *t) { for (int i = 0; i < 1000; i++) ((struct nb_thread *)t)->value[i % 16] += nb_gate(t); return 0; }
        void pass_all(void)
        {
            pthread_t id[3];
            for (int i = 0; i < 3; i++) threads[i].shared = &c, pthread_create(&id[i], 0, pass, &threads[i]);
            for (int i = 0; i < 3; i++) pthread_join(id[i], 0);
        }
        int same(void)
        {
            for (int i = 0; i < 16; i++)
                if (threads[0].value[i] != threads[1].value[i] || threads[0].value[i] != threads[2].value[i]) return 0;
            return threads[0].value[0] != threads[0].value[8];
        }
        """
    )
    library = native(source, tmp_path)
    library.pass_all()
    assert library.same(), "threads left one gate at different times"


def test_a_page_that_was_there_before_is_noticed(tmp_path):
    kernel = broken_kernel(
        tmp_path,
        "first_touch",
        "first_touch.c",
        "madvise(p.begin, p.bytes, MADV_DONTNEED)",
        "madvise(p.begin, p.bytes, MADV_NORMAL)",
    )
    benchmark = discover()["first_touch"]
    assert "were new" in benchmark.check({"page_size": "4k"}, enter(kernel, {"page_bytes": 4096}))


@pytest.mark.parametrize("operation", ["cas", "load_store", "two_lines", "atomic_add"])
def test_every_way_between_two_cpus_is_counted(loaded, operation):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a pair needs two CPUs")
    benchmark = discover()["core_to_core"]
    parameters = {"cpu_a": 0, "cpu_b": 1, "operation": operation}
    found = enter(loaded["core_to_core"], benchmark.arguments(parameters, PROBES), threads=2, size=4096, samples=3)
    assert benchmark.check(parameters, found) == ""
    assert found.threads[0].executed >= 3 * 16 * 400 and found.threads[0].executed == found.threads[1].executed
    metrics = benchmark.metrics(parameters, found, PROBES)
    assert 0 < metrics["latency_p50"] <= metrics["latency_p99"] and metrics["line_spread"] >= 0
    found.threads[1].check += 1
    assert "thread 1" in benchmark.check(parameters, found)


def test_half_a_pair_is_refused(loaded):
    with pytest.raises(AssertionError):
        enter(loaded["core_to_core"], {}, threads=1, size=4096)


HERE = {"from_node": 0, "to_node": 0}  # on one node the kernel finds every page where it is wanted


def test_pages_that_are_moved_arrive_and_come_back_whole(loaded):
    benchmark = discover()["page_migration"]
    parameters = {"page_size": "4k", "size": 1 << 20, **HERE}
    found = enter(loaded["page_migration"], benchmark.arguments(parameters, PROBES))
    assert benchmark.check(parameters, found) == ""
    assert found.threads[0].operations % 256 == 0
    metrics = benchmark.metrics(parameters, found, PROBES)
    assert metrics["time_per_page"] * metrics["rate"] == pytest.approx(4096e9)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        (
            "page_migration.c",
            "*number_of(pages.at[i]) = i + 1;",
            "*number_of(pages.at[i]) = i;",
            "only 0 of 256 pages came back whole",
        ),
        ("nb_pages.h", "found += p->status[i] == node;", "found += p->status[i] == node && i;", "pages arrived on node 0"),
    ],
)
def test_pages_that_got_lost_are_noticed(tmp_path, file, right, wrong, said):
    benchmark = discover()["page_migration"]
    parameters = {"page_size": "4k", "size": 1 << 20, **HERE}
    kernel = broken_kernel(tmp_path, "page_migration", file, right, wrong)
    assert said in benchmark.check(parameters, enter(kernel, benchmark.arguments(parameters, PROBES)))


def test_a_placement_that_is_not_repaired_is_said():
    benchmark = discover()["numa_balancing"]
    thread = abi.ThreadBlock(executed=100, check=100)
    thread.value[8] = 17
    parameters = {"page_size": "4k", "size": 1 << 20}
    assert "only 17 of 256 pages" in benchmark.check(parameters, Found([thread]))
    thread.value[6] = 1_500_000_000
    assert benchmark.check(parameters, Found([thread])) == ""
    assert benchmark.metrics(parameters, Found([thread]), PROBES)["repair_time"] == 1.5
    thread.check = 99
    assert "99 uses of 100" in benchmark.check(parameters, Found([thread]))


@pytest.mark.parametrize("chains", [1, 2, 7, 16, 17, 24, 64])
def test_parallel_chases_stand_where_they_should(loaded, chains):
    benchmark = discover()["memory_parallelism"]
    parameters = {"size": 96 << 10, "order": "group", "page_size": "4k", "chains": chains}
    found = enter(loaded["memory_latency"], benchmark.arguments(parameters, PROBES) | {"seed": 7}, size=96 << 10)
    assert benchmark.check(parameters, found) == ""
    metrics = benchmark.metrics(parameters, found, PROBES)
    assert metrics["time_per_line"] * chains == pytest.approx(metrics["latency"])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_interrupt_of_the_others_has_a_price_where_there_are_others(loaded, threads):
    """That it interrupts them is the kernel's promise; here, that it is asked for, answered, and that nobody stays behind."""
    found = enter(loaded["sentinel"], {"probe": "interrupt"}, threads=threads, size=4096, samples=3)
    number = {"x86_64": 324, "aarch64": 283}.get(os.uname().machine, -1)
    answered = ctypes.CDLL(None).syscall(number, 0, 0, 0) >= 0  # which commands there are
    assert (found.threads[0].value[INTERRUPT_SLOT] > 0) == answered


@pytest.mark.parametrize("probe", ["state", "work"])
def test_sentinels_return_positive_times(loaded, probe):
    found = enter(loaded["sentinel"], {"probe": probe}, threads=2, size=4096, samples=1)
    assert found.threads[0].value[0] > 0 and found.threads[0].operations > 0


@pytest.mark.parametrize("barrier", BARRIERS)
@pytest.mark.parametrize(("after", "cleaned", "threads"), [("nothing", 0, 2), ("locked", 64, 2), ("nothing", 1024, 1)])
def test_barriers_mark_as_often_as_they_must(loaded, barrier, after, cleaned, threads):
    parameters = {"barrier": barrier, "after": after, "stride": 1, "cleaned": cleaned, "spacing": 0}
    benchmark = discover()["card_marking"]
    found = enter(loaded["card_marking"], benchmark.arguments(parameters, PROBES), threads=threads, size=12288)
    assert benchmark.check(parameters, found) == ""
    found.threads[-1].check += 1
    assert "marks after" in benchmark.check(parameters, found)


@given(st.integers(0, 5000), st.sampled_from([0, 1, 4, 64, 1024]))
def test_a_conditional_barrier_stores_where_the_card_is_clean(references, cleaned):
    dirty, stores = False, 0
    for number in range(references):
        dirty = dirty and not (cleaned and number % (1024 // cleaned) == 0)
        stores += not dirty
        dirty = True
    assert marks_needed(references, cleaned) == stores


def test_a_barrier_that_forgets_its_card_is_noticed(tmp_path):
    kernel = broken_kernel(
        tmp_path, "card_marking", "card_marking.c", "KIND == CONDITIONAL && !*mark", "KIND == CONDITIONAL && 0"
    )
    parameters = {"barrier": "conditional", "after": "nothing", "stride": 1, "cleaned": 0, "spacing": 0}
    benchmark = discover()["card_marking"]
    found = enter(kernel, benchmark.arguments(parameters, PROBES), threads=1, size=8192)
    assert "marks after" in benchmark.check(parameters, found)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("spacing", "readers"), [(0, 1), (20, 1), (20, 2)])
def test_no_reader_sees_what_is_not_published(loaded, method, spacing, readers):
    parameters = {"method": method, "spacing": spacing, "readers": readers}
    benchmark = discover()["publication"]
    found = enter(loaded["publication"], benchmark.arguments(parameters, PROBES), threads=readers + 1, size=131072)
    assert benchmark.check(parameters, found) == ""
    assert found.threads[1].cursor > 0  # something was handed over
    found.threads[1].check -= 1
    assert "1 objects of" in benchmark.check(parameters, found)


@pytest.mark.parametrize("spacing", [0, 20])
def test_an_object_on_a_stack_that_is_gone_is_found_by_its_check_value(loaded, spacing):
    parameters = {"method": DEAD_FRAME, "spacing": spacing, "readers": 1}
    benchmark = discover()["publication"]
    found = enter(loaded["publication"], benchmark.arguments(parameters, PROBES), threads=2, size=131072)
    writer, reader = found.threads
    assert writer.check == writer.executed > 0 and 0 < reader.executed - reader.check <= reader.executed
    assert "that were not wholly published, or out of order" in benchmark.check(parameters, found)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU sees all in order")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("put(s, o, method);\n        if (method", "if (method"),  # never published
        (
            "        for (unsigned k = 0; k < WORDS; k++)\n            nb_store_relaxed(&o->word[k]",
            "        put(s, o, method);\n        for (unsigned k = 0; k < WORDS; k++)\n            nb_store_relaxed(&o->word[k]",
        ),
        ("++number % (OBJECTS / 2) == 0", "++number == 0"),  # objects are used again while they are read
    ],
)
def test_objects_that_are_seen_too_early_or_too_late_are_noticed(tmp_path, right, wrong):
    kernel = broken_kernel(tmp_path, "publication", "publication.c", right, wrong)
    parameters = {"method": "release_acquire", "spacing": 0, "readers": 1}
    benchmark = discover()["publication"]
    found = enter(kernel, benchmark.arguments(parameters, PROBES), threads=2, size=131072, samples=30)
    assert benchmark.check(parameters, found) != ""


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("threads", "state"), [*((1, state) for state in OWN), *((2, state) for state in OTHERS)])
def test_operations_find_the_stamp_and_leave_the_next(loaded, operation, threads, state):
    parameters = {"operation": operation, "state": state, "placement": "l3"}
    benchmark = discover()["single_operations"]
    arguments = benchmark.arguments(parameters, PROBES) | benchmark.seed_argument(5)
    found = enter(loaded["single_operations"], arguments, threads=threads, size=BYTES_OF_LINES)
    assert benchmark.check(parameters, found) == ""
    assert benchmark.metrics(parameters, found, PROBES)["latency"] >= 0 and found.threads[0].operations > 0
    found.threads[0].check += 1
    assert "stamps add up" in benchmark.check(parameters, found)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("write_all(c, stamp);\n    if", "if"),  # the lines are never prepared
        ("i < LINES; i++) {                    ", "i < LINES - 1; i++) {                "),  # one is left out
    ],
)
def test_a_preparation_that_is_not_whole_is_noticed(tmp_path, right, wrong):
    kernel = broken_kernel(tmp_path, "single_operations", "single_operations.c", right, wrong)
    parameters = {"operation": "add", "state": "modified", "placement": "alone"}
    benchmark = discover()["single_operations"]
    found = enter(kernel, benchmark.arguments(parameters, PROBES) | {"seed": 1}, size=BYTES_OF_LINES)
    assert "stamps add up" in benchmark.check(parameters, found)


def test_a_store_that_nobody_waited_for_is_noticed():
    """A drained store takes the line from the other CPU, which takes a hop; on a line of one's own it may take what it likes."""
    benchmark = discover()["single_operations"]
    parameters = {"operation": "store_drained", "state": "modified", "placement": "l3"}
    pair = Found([abi.ThreadBlock(), abi.ThreadBlock()])
    for thread in pair.threads:
        thread.value[STEP_SLOT], thread.value[ROUND_SLOT], thread.value[COUNTED_SLOT] = 10, 5_000_000, 100
    far = Probes(frequency=3e9, hop=100e-9)
    (said,) = benchmark.doubts(parameters, pair, {"latency": 11.0}, far)
    assert said == "physics:a store to a line 100.0 ns away, waited for, took 11.0 ns"
    assert benchmark.doubts(parameters, pair, {"latency": 81.0}, far) == []
    assert benchmark.doubts(parameters | {"operation": "store"}, pair, {"latency": 1.0}, far) == []
    assert benchmark.doubts(parameters | {"state": "owned"}, pair, {"latency": 11.0}, far) == []
    assert benchmark.doubts(parameters, Found(pair.threads[:1]), {"latency": 11.0}, Probes(frequency=3e9)) == []


def test_a_clock_that_is_too_coarse_is_said():
    """A round of 200 ns, by a clock of 40: from one of them nothing is known, from a thousand 1 %."""
    benchmark, thread = discover()["single_operations"], abi.ThreadBlock()
    parameters = {"operation": "load", "state": "modified", "placement": "alone"}
    for counted, wanted in ((1, ["coarse_clock"]), (90, ["coarse_clock"]), (1000, [])):
        thread.value[STEP_SLOT], thread.value[ROUND_SLOT], thread.value[COUNTED_SLOT] = 40, 200_000, counted
        assert benchmark.doubts(parameters, Found([thread]), {"latency": 1.0}, PROBES) == wanted


@pytest.mark.parametrize("thousandths", [1_000, 10_000, 18_518, 40_000, 41_667, 1_000_000, 4_000_000_000])
def test_the_step_of_a_clock_is_found(tmp_path, thousandths):
    library = native("clock_step.c", tmp_path)
    library.step_of.restype = ctypes.c_uint64
    found = library.step_of(ctypes.c_uint64(thousandths))
    assert abs(found - thousandths / 1000) < 2  # times are whole ns, and their differences one more or less


@pytest.mark.parametrize("line", [16, 128, 256])
@pytest.mark.parametrize("name", ["single_operations", "memory_ordering", "core_to_core"])
def test_kernels_keep_wide_lines_apart(name, line):
    """Compiled for other lines they count as right, in the memory that they are given."""
    kernel, benchmark = abi.Kernel(abi.build(name, line_bytes=line).target), discover()[name]
    size = {"single_operations": BYTES_OF_LINES, "memory_ordering": BYTES_OF_TESTS}.get(name, 4096)
    parameters = {"operation": "cas", "state": "modified", "test": "store_buffering", "ordering": "plain", "placement": "l3"}
    found = enter(kernel, benchmark.arguments(parameters, PROBES), threads=2, size=size)
    assert benchmark.check(parameters, found) == ""
    if name == "core_to_core":
        assert found.threads[1].value[2] == min(16, 4096 // (4 * line))
    if name == "single_operations":
        assert found.threads[0].value[SIZE_SLOT] == min(128, 16384 // line)


def test_what_wide_lines_need_is_planned_and_less_is_refused():
    """Memory that is enough for lines of 64 bytes is not for those of 256, or they were not kept apart; what a plan gives is enough for both."""
    benchmark, parameters = discover()["publication"], {"method": "mutex", "spacing": 0, "readers": 1}
    arguments = benchmark.arguments(parameters, PROBES)
    planned, narrow, least = 4 * MOST_APART + 257 * (MOST_APART + MOST_LINE), 83264, 333056
    for line in (64, 128, 256):
        kernel = abi.Kernel(abi.build("publication", line_bytes=line).target)
        assert benchmark.check(parameters, enter(kernel, arguments, threads=2, size=planned)) == ""
        if line == 64:
            enter(kernel, arguments, threads=2, size=narrow)
        if line == 256:
            enter(kernel, arguments, threads=2, size=least)
            for less in (narrow, least - 8):
                with pytest.raises(AssertionError):
                    enter(kernel, arguments, threads=2, size=less)


@pytest.mark.parametrize("line", [64, 256])
@pytest.mark.parametrize("stride", [1, 8, 64, 4096])
def test_no_card_has_the_low_address_bits_of_its_threads_object(tmp_path, line, stride):
    """A load whose lowest twelve are those of a store before it waits for it on many processors, now and then."""
    what = "uint64_t place(struct nb_thread *t, int of) { return (uint64_t)(of ? (uint8_t *)object(t) : card(t)); }"
    (tmp_path / "marks.c").write_text(f'#define NB_LINE {line}\n#include "card_marking.c"\n{what}\n')
    place = native(tmp_path / "marks.c", tmp_path).place
    place.restype = ctypes.c_uint64
    case, thread, seen = abi.CaseBlock(), abi.ThreadBlock(), set()
    case.threads, case.parameter[2], case.buffer = 200, stride, 1 << 30
    thread.shared = ctypes.pointer(case)
    for thread.index in range(case.threads):
        card, own = (place(ctypes.byref(thread), of) for of in (0, 1))
        assert 1024 <= (own - card) % 4096 <= 3072
        assert own % (4 * line) == 0 and own >= case.buffer + -(-case.threads * stride // 4096) * 4096
        seen.add(own)
    assert len(seen) == case.threads


@pytest.mark.parametrize("before", ["nothing", "store"])
def test_every_fence_of_this_processor_is_counted(loaded, before):
    benchmark, topology = discover()["fences"], read_topology()
    for name in benchmark.sweep(topology, "standard")[0]["fence"]:
        found = enter(loaded["fences"], benchmark.arguments({"fence": name, "before": before}, PROBES), size=4096)
        assert benchmark.check({}, found) == "" and benchmark.metrics({}, found, PROBES)["time"] > 0


# -- compilers, processors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [["-DNB_PORTABLE"], ["-O1"], ["-O3"], ["-Wextra", "-Werror"], ["-fsanitize=undefined"]])
@pytest.mark.parametrize("name", SOURCES)
def test_kernels_compile_with_other_flags(name, flags, monkeypatch):
    if "-fsanitize=undefined" in flags and shutil.which("gcc") is None:
        pytest.skip("the sanitiser needs gcc")
    build = abi.build(name, extra=tuple(flags))
    assert build.target.exists()


RUNS = {  # threads, bytes, parameters in the kernel's order, then what the benchmark's check needs
    "padded_counters": [
        (2, 4096, (op, 64, spacing), {"operation": name, "stride": 64, "spacing": spacing})
        for (op, name), spacing in itertools.product(enumerate(("store", "increment", "atomic_add")), (0, 20))
    ],
    "contention": [
        (2, CONTENDED, (i, work, work, reads, 20, 1000, 4096), {"primitive": name, "read_share": reads})
        for (i, name), (work, reads) in itertools.product(enumerate(PRIMITIVES), ((0, 0), (5, 0), (5, 50)))
        if name != "rseq_sharded"  # emulators and C11 alone have none
    ],
    "memory_latency": [
        (1, 1 << 16, (64, group, 5, chains, laps), {"size": 1 << 16, "chains": chains, "laps": laps})
        for group, chains, laps in ((0, 1, 1), (4096, 3, 1), (1 << 40, 16, 1), (4096, 1, 4), (1 << 40, 16, 3), (4096, 64, 1))
    ],
}


RUNS["first_touch"] = [(threads, 1 << 20, (4096,), {"page_size": "4k"}) for threads in (1, 2)]


RUNS["core_to_core"] = [(2, 4096, (i,), {"operation": name}) for i, name in enumerate(discover()["core_to_core"].axes[2].values)]


def fences(compiler: list[str]) -> dict[str, list]:
    """Runs of the fences that the compiler's processor has; where plain C is asked for, C11's."""
    here = {"x86_64": FENCES["sse2"], "aarch64": FENCES["neon"]}.get(os.uname().machine, C11)
    if compiler[0].startswith("aarch64"):
        here = (*FENCES["neon"], *EXTENSIONS["lrcpc"])
    own = C11 if "-DNB_PORTABLE" in compiler else here
    names = list(abi.Kernel(abi.build("fences").target).parameters["fence"].choices.decode().split("|"))
    return {"fences": [(1, 4096, (names.index(name), before), {}) for name in (NONE, *own) for before in (0, 1)]}


RUNS["card_marking"] = [
    (2, 12288, (i, after, 1, cleaned, 0), {"barrier": name, "cleaned": cleaned})
    for (i, name), after, cleaned in itertools.product(enumerate(BARRIERS), (0, 1), (0, 4, 1024))
]
RUNS["publication"] = [(2, 393216, (i, spacing), {}) for i in range(len(METHODS)) for spacing in (0, 20)]
RUNS["single_operations"] = [
    (threads, BYTES_OF_LINES, (i, STATES.index(state), 7), {"operation": name})
    for (i, name), (threads, state) in itertools.product(enumerate(OPERATIONS), ((1, "modified"), (2, "modified"), (2, "owned")))
]
RUNS["memory_ordering"] = [
    (THREADS[test], BYTES_OF_TESTS, (i, j, 7), {"test": test, "ordering": ordering})
    for (i, test), (j, ordering) in itertools.product(enumerate(THREADS), enumerate(ORDERINGS))
]


def streams(compiler: list[str]) -> dict[str, list]:
    """Runs of the kernels that stream, with every instruction set that the compiler's processor has."""
    vectors = ("portable", "neon", "sve") if compiler[0].startswith("aarch64") else ("portable",)
    runs = {"memory_bandwidth": [], "loaded_latency": []}
    for vector, past in itertools.product(vectors, ("", "_nt")):
        if vector == "portable" and past:
            continue
        names = list(VECTORS)
        for kernel in ("read", "write", "copy", "triad") if not past else ("write_nt", "copy_nt", "triad_nt"):
            what = {"size": 1 << 16, "kernel": kernel}
            runs["memory_bandwidth"] += [(n, 1 << 16, (KERNELS.index(kernel), names.index(vector)), what) for n in (1, 2)]
        for mix in ("1:0", "3:1", "0:1") if not past else ("1:1_nt",):
            what = {"size": 1 << 18, "mix": mix}
            runs["loaded_latency"].append((2, 1 << 19, (0, list(MIXES).index(mix), names.index(vector), 4096, 5), what))
    return runs


def toolchains() -> list:
    return [
        pytest.param(["aarch64-linux-gnu-gcc"], ["qemu-aarch64-static", "qemu-aarch64"], id="aarch64"),
        pytest.param(["aarch64-linux-gnu-gcc", "-DNB_LSE"], ["qemu-aarch64-static", "qemu-aarch64"], id="aarch64-lse"),
        pytest.param(
            ["aarch64-linux-gnu-gcc", "-march=armv8.4-a", "-O3", "-DNB_LINE=256"],
            ["qemu-aarch64-static", "qemu-aarch64"],
            id="aarch64-rcpc-wide-lines",
        ),
        pytest.param(["gcc", "-DNB_PORTABLE"], [], id="portable"),
        pytest.param(["gcc", "-DNB_LINE=128"], [], id="lines-of-128"),
    ]


@pytest.mark.parametrize(("compiler", "emulators"), toolchains())
@pytest.mark.parametrize("name", [*RUNS, "memory_bandwidth", "loaded_latency", "fences"])
def test_kernels_count_right_on_other_processors(tmp_path, compiler, emulators, name):
    emulator = next((e for e in emulators if shutil.which(e)), None)
    if shutil.which(compiler[0]) is None or (emulators and emulator is None):
        pytest.skip(
            f"{compiler[0]} or {' / '.join(emulators)} is missing: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
        )
    program, folder = tmp_path / "driver", abi.source_folder()
    subprocess.run(
        [
            *compiler,
            *(f for f in abi.FLAGS if f not in ("-shared", "-fPIC")),
            "-static",
            f"-I{folder}",
            "-o",
            str(program),
            f"{os.path.dirname(__file__)}/driver.c",
            str(folder / f"{name}.c"),
        ],
        check=True,
    )
    benchmark = discover()[name]
    for threads, size, parameters, what in (RUNS | streams(compiler) | fences(compiler))[name]:
        command = [emulator] if emulator else []
        done = subprocess.run(
            [*command, str(program), str(threads), str(size), *map(str, parameters)],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        first, *rows = done.stdout.splitlines()
        assert first == name
        names = ("executed", "operations", "check", "begin_ns", "end_ns", "cursor")
        numbers = [list(map(int, row.split())) for row in rows]
        found = Found([SimpleNamespace(**dict(zip(names, row, strict=False)), value=row[len(names) :]) for row in numbers])
        complaint = benchmark.check(what, found)  # an emulator need not keep the order that its processor would
        assert complaint == "" or (emulator and "forbids" in complaint), (what, done.stdout)
        assert all(t.executed if name == "contention" else t.operations for t in found.threads)  # who starves is a result there


@pytest.mark.parametrize("compiler", [["aarch64-linux-gnu-gcc"], ["clang", "--target=aarch64-linux-gnu"]], ids=lambda c: c[0])
def test_neon_stores_two_registers_past_the_caches_at_once(tmp_path, compiler):
    """Sixteen bytes an instruction took a register and an address more for each: copies had more additions than stores."""
    for tool in (compiler[0], "aarch64-linux-gnu-objdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: apt-get install gcc-aarch64-linux-gnu clang")
    source, target = tmp_path / "streams.c", tmp_path / "streams.o"
    source.write_text(
        """#include "nb_stream.h"
        nb_stream find(int64_t vector, int64_t stream) { return nb_find_stream(vector, stream); }
        void drain(void) { nb_drain(); }"""
    )
    command = [*compiler, "-std=gnu11", "-O2", "-Werror", f"-I{abi.source_folder()}", "-c", str(source), "-o", str(target)]
    subprocess.run(command, check=True)

    def instructions(function: str) -> list[str]:
        shown = subprocess.run(
            ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}", str(target)],
            capture_output=True,
            text=True,
            check=True,
        )
        return [line.split("\t", 1)[1] for line in shown.stdout.splitlines() if line.startswith(" ") and "\t" in line]

    for stream in ("write_nt", "copy_nt", "triad_nt"):
        found = instructions(f"nb_{stream}_neon")
        stores = [line for line in found if line.startswith("stnp")]
        assert len(stores) == 4 and all(line.startswith("stnp\tq") for line in stores), found
        moves = [line for line in found if line.split("\t")[0] in ("dup", "mov", "sub")]
        assert sum(line.split("\t")[1].startswith("v") for line in moves) <= 1, "of the word or factor alone"
        assert len([line for line in found if line.startswith("add\t")]) <= 6, "once a turn for each array and the loop"
    assert any(line.startswith("dsb") for line in instructions("drain")), "a DMB waits for nothing"


# -- the loader's errors ------------------------------------------------------------------------------------------------


def test_unknown_arguments_name_what_there_is(loaded):
    with pytest.raises(UsageError, match="operation, stride, spacing"):
        loaded["padded_counters"].encode({"strid": 8})
    with pytest.raises(UsageError, match="store, increment, atomic_add"):
        loaded["padded_counters"].encode({"operation": "multiply"})
    with pytest.raises(UsageError, match="outside 0 to 4096"):
        loaded["padded_counters"].encode({"stride": 8192})


def test_no_compiler_is_one_line(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(MachineError, match="no C compiler.*install gcc"):
        abi.build("sentinel", extra=("-DNEVER_BUILT",))


def test_a_compiler_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("CC", "no-such-cc -m64")
    with pytest.raises(MachineError, match="no-such-cc.*set it to a compiler"):
        abi.build("sentinel")


def test_bad_flags_show_the_compilers_complaint(monkeypatch):
    monkeypatch.setenv("CFLAGS", "--no-such-flag")
    with pytest.raises(MachineError, match="cannot compile.*no-such-flag"):
        abi.build("sentinel")


def test_another_layout_says_what_to_rebuild(monkeypatch, tmp_path):
    shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    header = tmp_path / "kernels" / "nb.h"
    header.write_text(header.read_text().replace("#define NB_VALUES 16", "#define NB_VALUES 17"))
    target = abi.build("sentinel", folder=tmp_path / "kernels").target
    with pytest.raises(MachineError, match=f"rm {target}"):
        abi.Kernel(target)


def test_a_library_that_is_no_kernel(tmp_path):
    source = tmp_path / "other.c"
    source.write_text("int nb_run(void){return 0;}")
    subprocess.run([*abi.find_compiler(), "-shared", "-fPIC", "-o", str(tmp_path / "other.so"), str(source)], check=True)
    with pytest.raises(MachineError, match="is not a kernel"):
        abi.Kernel(tmp_path / "other.so")
    (tmp_path / "junk.so").write_bytes(b"junk")
    with pytest.raises(MachineError, match="cannot load"):
        abi.Kernel(tmp_path / "junk.so")


@pytest.mark.parametrize("ns", [0, 1, 15, 16, 17, 31, 100, 999, 123456, 10**9])
def test_quantiles_of_one_wait_are_that_wait(ns):
    """The bin of a value, by the rule in nb_window.h, and back within half a bin."""
    octave = ns.bit_length() - 1
    bins = [0] * abi.BINS
    bins[ns if ns < 16 else (octave - 3) * 16 + (ns >> (octave - 4) & 15)] = 10
    assert abi.histogram_quantile(bins, 0.999) == pytest.approx(ns, rel=0.04)


@pytest.mark.parametrize("there", [True, False])
def test_the_wait_for_the_cpu_is_that_inside_the_window(loaded, tmp_path, there):
    """What schedstat said before the window does not count; what it adds until the end does."""
    schedstat = tmp_path / "schedstat"
    if there:
        schedstat.write_text("900 5000 7\n")
    source = (abi.source_folder() / "crew.c").read_text()
    folder = shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    (folder / "crew.c").write_text(source.replace('"/proc/thread-self/schedstat"', f'"{schedstat}"'))
    library = abi.build("crew", folder=folder).target
    assert enter(loaded["sentinel"], {"probe": "work"}, library=library).threads[0].run_delay_ns == 0


def test_two_threads_on_one_cpu_wait_for_each_other(loaded):
    """Each runs half of the time, so that the kernel's own count of the window's wait must not be zero for both."""
    if not os.path.exists("/proc/thread-self/schedstat"):
        pytest.skip("this kernel has no schedstat")
    cpu = min(os.sched_getaffinity(0))
    crew, buffer = Crew(2), Buffer(4096)
    everything = os.sched_getaffinity(0)
    try:
        crew.place((cpu, cpu), (0, 0))
        case = crew.case
        case.buffer, case.buffer_bytes = buffer.address, buffer.size
        case.window_ns, case.warmup_ns, case.batch_ns = 50_000_000, 0, 10_000
        for slot, value in enumerate(loaded["padded_counters"].encode({"stride": 64})):
            case.parameter[slot] = value
        crew.enter(loaded["padded_counters"], abi.MEASURE, [0, 1])
        assert sum(block.run_delay_ns for block in crew.blocks) > 0
    finally:
        buffer.close()
        os.sched_setaffinity(0, everything)


@pytest.mark.parametrize("operation", range(4))
def test_ways_between_two_threads_are_no_data_race(tmp_path, operation):
    if shutil.which("gcc") is None or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs gcc and two CPUs")
    program, folder, sources = (
        tmp_path / "driver",
        abi.source_folder(),
        (f"{os.path.dirname(__file__)}/driver.c", "core_to_core.c"),
    )
    flags = [flag for flag in abi.FLAGS if flag not in ("-shared", "-fPIC")]
    command = ["gcc", *flags, "-fsanitize=thread", f"-I{folder}", "-o", str(program), sources[0], str(folder / sources[1])]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("gcc has no thread sanitizer here")
    done = subprocess.run([str(program), "2", "4096", str(operation)], capture_output=True, text=True, timeout=120, check=False)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer does not run on this kernel")
    assert done.returncode == 0 and "data race" not in done.stderr


@pytest.mark.parametrize("waits", [True, False])
def test_words_are_read_when_both_have_made_their_last_way(tmp_path, waits):
    """A second thread that hesitates before the last answer of each block: the first one must not count before it has come."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a pair needs two CPUs")
    folder = shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    late = "if (i == times - 1 && next % 2)\n            for (uint64_t at = nb_now() + 200000; nb_now() < at;)\n                ;\n        do"
    replaced = [("nb_hop.h", "        do\n", f"        {late}\n")]
    replaced += [] if waits else [("core_to_core.c", "while (nb_load_acquire(finished) != done + passes)", "while (0)")]
    for file, right, wrong in replaced:
        text = (folder / file).read_text()
        assert right in text
        (folder / file).write_text(text.replace(right, wrong))
    benchmark = discover()["core_to_core"]
    found = enter(abi.Kernel(abi.build("core_to_core", folder=folder).target), {"operation": "cas"}, threads=2, size=4096)
    assert (benchmark.check({}, found) == "") == waits
