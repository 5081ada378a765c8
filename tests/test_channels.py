"""channels: every message once and in order, who finds nothing sleeps, and how often, exactly."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
from types import SimpleNamespace

import pytest
from synthetic_sysfs import SyntheticTree
from test_kernels import PROBES, enter, native

from numabench import kernel as abi
from numabench.benchmarks import MOST_LINE, Found, discover
from numabench.benchmarks.channels import (
    APART,
    BATCH,
    CONSUMER,
    HCHAN,
    HELD,
    KINDS,
    LEAST_PLACES,
    LOOKS,
    MPMC,
    MPSC,
    NORMAL,
    PACKED,
    PARK,
    PARKS,
    PATTERNS,
    PLACES_APART,
    PLAIN,
    PRODUCER,
    ROUND_TRIP,
    SAME_CPU,
    SENDS,
    SLEEPERS,
    SPIN,
    USUAL,
    WAITED,
    WAITS,
    least_parks,
    possible,
)
from numabench.host.topology import read_topology

BENCHMARK = discover()["channels"]
IN_TURN = ("hchan", "spsc", "spsc_cached", "mpsc", "mpmc")  # as in tests/channel.c


LONG_WINDOW = 30_000_000  # ns: some turns of threads that share a CPU


def point(**values) -> dict:
    plain = {**PLAIN, "kind": HCHAN, "capacity": 0, "wait": PARK, "scheduling": NORMAL}
    return {**plain, "placement": "l3", **values}


def measured(kernel: abi.Kernel, p: dict, samples: int = 2, window: int = 0):
    """Both ends on one CPU where that is asked for, else wherever there is room."""
    same = p["placement"] == SAME_CPU
    where = {"cpus": sorted(os.sched_getaffinity(0))[:1] if same else (), "window": LONG_WINDOW if same else window}
    with contextlib.ExitStack() as opened:
        how = {"size": 1 << 20, "threads": p["producers"] + p["consumers"], "samples": samples, **where}
        return enter(kernel, BENCHMARK.arguments(p, PROBES), descriptors=BENCHMARK.descriptors(p, opened), **how)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("channels").target)


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory) -> ctypes.CDLL:
    return native("channel.c", tmp_path_factory.mktemp("channel"))


def in_turns(
    library, kind: str, capacity: int, messages: int, preempts: bool = False, apart: bool = False
) -> tuple[int, int, int]:
    """Sleeps of the producer and of the consumer, and messages that the latter found in the channel."""
    found = (ctypes.c_uint64 * 5)()
    sizes = ctypes.c_uint64(capacity), ctypes.c_uint64(messages)
    library.take_turns(IN_TURN.index(kind), *sizes, int(preempts), int(apart), found)
    assert (found[2], found[3]) == (messages, 0)
    return found[0], found[1], found[4]


@pytest.mark.parametrize("capacity", [0, 1, 2, 8, 64, 1024])
@pytest.mark.parametrize("kind", IN_TURN)
def test_ends_that_take_turns_sleep_exactly_so_often(in_turn, kind, capacity):
    """The known answer, where no scheduler can interfere: 1/(c+2) sleeps a message and side by hchan, 1/c by plain rings. What is found goes down from c or from
    c - 1 to nothing in each cycle, and in hchan stays at c once, when the sender that waits puts its message in."""
    if capacity < LEAST_PLACES.get(kind, 1):
        return
    known = least_parks(point(kind=kind, capacity=capacity))
    cycles = 50
    producer, consumer, found = in_turns(in_turn, kind, capacity, round(cycles / known))
    assert abs(producer - cycles) <= 1 and abs(consumer - cycles) <= 1  # the first and the last cycle are not whole
    more = in_turns(in_turn, kind, capacity, round(2 * cycles / known))
    in_cycle = capacity * (capacity + 3) // 2 if kind == HCHAN else capacity * (capacity - 1) // 2
    assert tuple(a - b for a, b in zip(more, (producer, consumer, found), strict=True)) == (cycles, cycles, cycles * in_cycle)
    assert in_turns(in_turn, kind, capacity, round(cycles / known), apart=True) == (producer, consumer, found)


@pytest.mark.parametrize("capacity", [0, 1, 64])
def test_who_preempts_when_woken_sleeps_for_each_message(in_turn, capacity):
    """Why the class of the threads matters: the ring stays as empty, or as full, as it is, and each message takes a sleep."""
    assert sum(in_turns(in_turn, HCHAN, capacity, 1000, True)[:2]) >= 999 - capacity


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("placement", ["l3", SAME_CPU])
def test_each_message_arrives_once_and_in_order(kernel, kind, placement):
    for wait in WAITS if kind not in SLEEPERS else (PARK,):
        for capacity, element in ((LEAST_PLACES.get(kind, 1), 8), (64, 64)):
            p = point(kind=kind, wait=wait, placement=placement, capacity=capacity, element=element)
            found = measured(kernel, p)
            assert BENCHMARK.check(p, found) == "", p
            assert found.threads[0].operations > 0
            metrics = BENCHMARK.metrics(p, found, PROBES)
            if found.threads[1].operations:  # a consumer may have been kept from its CPU all the time
                assert metrics["parks"] == metrics["producer_parks"] + metrics["consumer_parks"]


@pytest.mark.parametrize(
    "values",
    [
        {"batch": 16, "capacity": 64},
        {"batch": 16, "capacity": 64, "element": 256},
        {"batch": 16},
        {"pattern": ROUND_TRIP},
        {"pattern": ROUND_TRIP, "capacity": 64, "batch": 16, "element": 16},
        {"padding": PACKED, "capacity": 64},
        {"padding": APART, "capacity": 64},
        {"padding": PLACES_APART, "capacity": 64, "element": 24},
        {"think_time": 1000, "service_time": 500, "capacity": 8},
    ],
    ids=lambda values: " ".join(f"{name}={value}" for name, value in values.items()),
)
def test_so_they_do_in_every_arrangement(kernel, values):
    for kind in KINDS:
        p = point(kind=kind, **values)
        if not possible(p):
            continue
        found = measured(kernel, p)
        assert BENCHMARK.check(p, found) == "", p
        batch = p["batch"]
        assert found.threads[0].executed % batch == 0 and found.threads[0].executed == found.threads[1].executed


def test_what_is_answered_is_sent_twice(kernel):
    p = point(pattern=ROUND_TRIP)
    client, server = measured(kernel, p, samples=1).threads
    assert (client.value[SENDS], server.value[SENDS]) == (
        client.executed + 1,
        server.executed,
    )  # and one that says that it was the last


@pytest.mark.parametrize("kind", [HCHAN, MPMC, MPSC, "mutex_cond", "pipe"])
@pytest.mark.parametrize(("producers", "consumers"), [(2, 1), (1, 2), (2, 2)])
def test_several_producers_and_consumers(kernel, kind, producers, consumers):
    p = point(kind=kind, capacity=8, producers=producers, consumers=consumers, placement="oversubscribed")
    if not possible(p):
        return
    found = measured(kernel, p)
    assert BENCHMARK.check(p, found) == ""
    assert sum(t.executed for t in found.threads[producers:]) > 0


def test_from_hand_to_hand_one_of_the_two_waits_for_each_message(kernel):
    """Whatever the scheduler does."""
    for placement in ("l3", SAME_CPU):
        for wait in WAITS:
            for pattern in PATTERNS:
                threads = measured(kernel, point(placement=placement, wait=wait, pattern=pattern)).threads
                assert sum(t.value[WAITED] for t in threads) == sum(t.value[SENDS] for t in threads)


def test_who_works_longer_says_how_full_the_channel_is(kernel):
    """A ring is full beside a slow consumer and empty beside a slow producer. Who is kept from its CPU lets it be emptied, or filled and emptied, once: half full
    on average meanwhile."""
    slow = 20_000  # ns
    for values, least, most in (({"service_time": slow}, 16, 64), ({"think_time": slow}, 0, 48)):
        p = point(kind="spsc", capacity=64, wait=SPIN, **values)
        found = measured(kernel, p, samples=1, window=LONG_WINDOW)
        if found.threads[1].value[LOOKS] > 100:
            assert least <= BENCHMARK.metrics(p, found, PROBES)["occupancy"] <= most, values


def test_nothing_is_held_from_hand_to_hand(kernel):
    p = point()
    found = measured(kernel, p, samples=1)
    assert BENCHMARK.metrics(p, found, PROBES).get("occupancy", 0) == 0 and found.threads[1].value[HELD] == 0


@pytest.mark.parametrize("kind", [HCHAN, "spsc"])
def test_packed_words_lie_within_two_lines_and_others_apart(kernel, kind):
    """By what is left of them in memory: Go's hchan takes 104 bytes."""
    apart = 256  # NB_APART where a line is not said: the words come after one of it, and each has one
    for padding, packed in ((PACKED, True), (APART, False)):
        p = point(kind=kind, capacity=64, padding=USUAL if (kind, padding) in ((HCHAN, PACKED), ("spsc", APART)) else padding)
        words = measured(kernel, p, samples=1).memory[apart : 7 * apart].rstrip(b"\0")
        assert 0 < len(words) <= 104 if packed else len(words) > apart


def test_a_delivery_is_no_shorter_than_the_work_before_it(kernel):
    """Where each message waits until the one before has been dealt with; shorter ones come only after a producer was kept from its CPU."""
    p = point(capacity=1, kind="spsc", wait=SPIN, service_time=100_000)
    metrics = BENCHMARK.metrics(p, measured(kernel, p, samples=1, window=LONG_WINDOW), PROBES)
    assert metrics.get("delivery_p50", 100_000) >= 90_000  # a bin's width


SOON = ("#define LIMIT_NS 5000000000u", "#define LIMIT_NS 200000000u")  # who waits in vain need not do so for long
LIARS = {
    "a message is lost": ("held + 1 : held - 1", "held : held - 1", {"capacity": 64}),
    "a message comes twice": (
        "if (++*h->at[side] == h->places.count)",
        "if (side == NB_SENDS && ++*h->at[side] == h->places.count)",
        {"capacity": 64},
    ),
    "a message is torn": ("memcpy(to, from, 64);", "memcpy(to, from, 56);", {"capacity": 64, "element": 64}),
    "it polls": (
        "NB_SLEEP(word, value) && errno == EINTR)\n        nb_give_up(e);\n}",
        "sched_yield())\n        nb_give_up(e);\n}",
        {},
    ),
    "it holds more than it says": ("held < h->places.count", "held < 512", {"capacity": 1}),
    "not all that goes at once is copied": (
        "nb_copy(other->element, message, bytes);",
        "nb_copy(other->element, message, 8);",
        {"batch": 16},
    ),
    "nobody answers": ("if (!move(c, o, BACK, kind, NB_RECEIVES))", "if (0)", {"pattern": ROUND_TRIP, "capacity": 64}),
    "the answer is another one": ("take(t, o, f, 1);", "take(t, o, f, 1), o->message[0] ^= 64;", {"pattern": ROUND_TRIP}),
    "who is the only one passes over a place": (
        "nb_store_relaxed(index, at + 1);",
        "nb_store_relaxed(index, at + 2);",
        {"kind": MPSC, "capacity": 8},
    ),
    "places overlap": ("* p->stride", "* 8", {"kind": "spsc", "capacity": 64, "element": 64}),
}
SAID = {
    "a message is lost": ("received", "out of order", "in vain", "waited"),
    "a message comes twice": ("out of order",),
    "a message is torn": ("torn",),
    "it polls": ("times somebody slept",),
    "it holds more than it says": ("out of order", "switches for"),
    "not all that goes at once is copied": ("out of order",),
    "nobody answers": ("no answer",),
    "the answer is another one": ("no answer",),
    "who is the only one passes over a place": ("out of order", "in vain"),
    "places overlap": ("torn", "out of order"),
}


@pytest.mark.parametrize("liar", LIARS)
def test_who_only_pretends_is_found_out(tmp_path, liar):
    right, wrong, values = LIARS[liar]
    p = point(placement=SAME_CPU, **values)
    kernel = broken(tmp_path, right, wrong)
    said = BENCHMARK.check(p, measured(kernel, p, samples=1))
    assert any(words in said for words in SAID[liar]), said


def test_a_lost_wake_up_keeps_nobody(tmp_path):
    """Both ends sleep, and nobody is left who could wake them: their timers do, and the check says so."""
    kernel = broken(tmp_path, "syscall(SYS_futex, WORD, FUTEX_WAKE_PRIVATE, COUNT, NULL, NULL, 0)", "(void)(WORD)")
    said = BENCHMARK.check(point(), measured(kernel, point(), samples=1))
    assert "in vain" in said


def broken(tmp_path, right: str, wrong: str) -> abi.Kernel:
    """In the one file that says `right`; and who waits in vain gives up soon."""
    folder = shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    files = [folder / name for name in ("channels.c", "nb_channel.h", "nb_hchan.h", "nb_ring.h")]
    assert sum(right in file.read_text() for file in files) == 1, right
    for file in files:
        file.write_text(file.read_text().replace(right, wrong).replace(*SOON))
    return abi.Kernel(abi.build("channels", extra=("-O0",), folder=folder).target)


def test_parks_that_are_not_those_known_are_doubted():
    p = point(placement=SAME_CPU, scheduling=BATCH, capacity=64)
    assert BENCHMARK.doubts(p, None, {"parks": 2 / 66 * 1.04}, PROBES) == []
    assert BENCHMARK.doubts(p, None, {"parks": 2 / 66 * 1.06}, PROBES) == ["run_delay"]
    assert BENCHMARK.doubts({**p, "scheduling": NORMAL}, None, {"parks": 1.0}, PROBES) == []
    assert BENCHMARK.doubts({**p, "wait": SPIN}, None, {"parks": 0.0}, PROBES) == []


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ({}, 1 / 2),
        ({"capacity": 64}, 1 / 66),
        ({"capacity": 64, "batch": 16}, 1 / 96),
        ({"batch": 16}, 1 / 32),
        ({"capacity": 64, "batch": 16, "kind": "spsc"}, 1 / 64),
        ({"pattern": ROUND_TRIP, "capacity": 64}, 1 / 2),
        ({"pattern": ROUND_TRIP, "capacity": 64, "batch": 4, "kind": "spsc"}, 1 / 8),
    ],
)
def test_parks_of_each_side_are_known(values, known):
    assert least_parks(point(**values)) == known


def test_what_counts_is_told_for_each_message():
    """A round trip is two; a side is held against its own messages, however long it was kept from its CPU."""

    def thread(operations: int, ns: int, **values: int):
        slots = [0] * abi.VALUES
        for name, value in values.items():
            slots[globals()[name]] = value
        return SimpleNamespace(
            operations=operations, begin_ns=0, end_ns=ns, value=slots, histogram=(ctypes.c_uint32 * abi.BINS)()
        )

    found = Found([thread(1000, 1_000_000, PARKS=500), thread(2000, 2_000_000, PARKS=500, HELD=60, LOOKS=20)])
    found.threads[1].histogram[20 * 16] = 300
    stream = BENCHMARK.metrics(point(), found, PROBES)
    assert (stream["time"], stream["producer_parks"], stream["consumer_parks"], stream["occupancy"]) == (1000, 0.5, 0.25, 3)
    assert stream["delivery_p50"] == stream["delivery_p99"] and stream["delivery_p50"] // (1 << 23) == 1
    answered = BENCHMARK.metrics(point(pattern=ROUND_TRIP, batch=4), found, PROBES)
    assert (answered["round_trip"], answered["parks"]) == (4000, 0.375) and not {"time", "occupancy"} & set(answered)


def test_what_no_channel_can_do_is_no_case():
    topology = read_topology()
    impossible = (
        {"kind": "spsc"},
        {"kind": "mpmc", "capacity": 1},
        {"kind": "mpsc", "capacity": 16, "batch": 16},
        {"kind": "mpsc", "capacity": 8, "consumers": 2},
        {"kind": "pipe", "capacity": 8, "wait": SPIN},
        {"kind": "pipe", "capacity": 8, "padding": APART},
        {"capacity": 3},
        {"capacity": 8, "batch": 16},
        {"capacity": 64, "batch": 16, "element": 1024},
        {"pattern": ROUND_TRIP, "producers": 2},
        {"padding": PACKED},  # as usual
    )
    assert not [values for values in impossible if possible(point(**values))]
    assert BENCHMARK.place(point(capacity=3, placement=SAME_CPU), topology) is None
    assert BENCHMARK.place(point(kind="spsc", capacity=8, producers=2, placement="oversubscribed"), topology) is None
    assert BENCHMARK.place(point(placement=SAME_CPU), topology).cpus == topology.order_cpus()[:1] * 2


def placed(benchmark, topology, profile: str) -> list[tuple[dict, object]]:
    points = [
        dict(zip(sweep, v, strict=True))
        for sweep in benchmark.sweep(topology, profile)
        for v in itertools.product(*sweep.values())
    ]
    return [(p, place) for p in points if benchmark.keep(p, topology) and (place := benchmark.place(p, topology))]


def test_the_memory_is_at_either_end_where_these_are_on_two_nodes(tmp_path):
    topology = read_topology(str(SyntheticTree(tmp_path, packages=2, cores=4).root))
    homes = {
        p["home"]: (place.cpus, place.node)
        for p, place in placed(BENCHMARK, topology, "standard")
        if p["placement"] == "cross_package"
    }
    assert set(homes) == {PRODUCER, CONSUMER}
    for home, (cpus, node) in homes.items():
        assert node == topology.node_of(cpus[home == CONSUMER])


def test_on_one_node_there_is_one_home_and_crowds_need_their_cpus(tmp_path):
    topology = read_topology(str(SyntheticTree(tmp_path, cores=4).root))
    cases = placed(BENCHMARK, topology, "standard")
    assert {p["home"] for p, _ in cases} == {PRODUCER}
    assert {len(set(place.cpus)) for p, place in cases if p["producers"] == 3 and p["placement"] != "oversubscribed"} == {4}
    assert {p["consumers"] for p, _ in cases if p["kind"] == MPSC} == {1}


def test_the_memory_that_was_planned_is_enough():
    """To the byte where lines are the widest; on narrower ones there is more than it takes."""
    wide = abi.Kernel(abi.build("channels", extra=("-O0", f"-DNB_LINE={MOST_LINE}")).target)
    for values in (
        {"capacity": 64, "padding": PLACES_APART, "kind": MPMC},
        {"capacity": 1024, "batch": 16, "element": 256, "pattern": ROUND_TRIP},
    ):
        p = point(placement=SAME_CPU, **values)
        size = BENCHMARK.place(p, read_topology()).size
        with contextlib.ExitStack() as opened:
            enter(wide, BENCHMARK.arguments(p, PROBES), size=size, threads=2, descriptors=BENCHMARK.descriptors(p, opened))


def test_a_window_without_a_consumer_has_no_figure(kernel):
    found = measured(kernel, point())
    found.threads[1].operations = 0
    assert BENCHMARK.metrics(point(), found, PROBES) == {"time": float("inf")}
    assert found.threads[0].value[PARKS] <= found.threads[0].value[SENDS]
