"""channels: every message once and in order, who finds nothing sleeps, and how often, exactly."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil

import pytest
from test_kernels import PROBES, enter, native

from numabench import kernel as abi
from numabench.benchmarks import discover
from numabench.benchmarks.channels import (
    BATCH,
    HCHAN,
    KINDS,
    LEAST_CAPACITY,
    MESSAGES,
    NORMAL,
    PARK,
    PARKS,
    SAME_CPU,
    SLEEPERS,
    SPIN,
    WAITED,
    WAITS,
    least_parks,
)
from numabench.host.topology import read_topology

BENCHMARK = discover()["channels"]
IN_TURN = ("hchan", "spsc", "spsc_cached", "mpmc")  # as in tests/channel.c


def point(**values) -> dict:
    plain = {"kind": HCHAN, "capacity": 0, "element": 8, "wait": PARK, "scheduling": NORMAL, "think_time": 0}
    return {**plain, "producers": 1, "consumers": 1, "placement": "l3", **values}


def measured(kernel: abi.Kernel, p: dict, samples: int = 2):
    """Both ends on one CPU where that is asked for, else wherever there is room."""
    one = {"cpus": sorted(os.sched_getaffinity(0))[:1], "window": 30_000_000} if p["placement"] == SAME_CPU else {}
    with contextlib.ExitStack() as opened:
        how = {"size": 1 << 20, "threads": p["producers"] + p["consumers"], "samples": samples, **one}
        return enter(kernel, BENCHMARK.arguments(p, PROBES), descriptors=BENCHMARK.descriptors(p, opened), **how)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("channels").target)


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory) -> ctypes.CDLL:
    return native("channel.c", tmp_path_factory.mktemp("channel"))


def sleeps(library, kind: str, capacity: int, messages: int, preempts: bool = False) -> tuple[int, int]:
    found = (ctypes.c_uint64 * 4)()
    library.take_turns(IN_TURN.index(kind), ctypes.c_uint64(capacity), ctypes.c_uint64(messages), int(preempts), found)
    assert (found[2], found[3]) == (messages, 0)
    return found[0], found[1]


@pytest.mark.parametrize("capacity", [0, 1, 2, 8, 64, 1024])
@pytest.mark.parametrize("kind", IN_TURN)
def test_ends_that_take_turns_sleep_exactly_so_often(in_turn, kind, capacity):
    """The known answer, where no scheduler can interfere: 1/(c+2) sleeps a message and side by hchan, 1/c by plain rings."""
    if capacity < LEAST_CAPACITY.get(kind, 1):
        return
    known = least_parks(kind, capacity)
    cycles = 50
    producer, consumer = sleeps(in_turn, kind, capacity, round(cycles / known))
    assert abs(producer - cycles) <= 1 and abs(consumer - cycles) <= 1  # the first and the last cycle are not whole
    more = sleeps(in_turn, kind, capacity, round(2 * cycles / known))
    assert (more[0] - producer, more[1] - consumer) == (cycles, cycles)  # and between them it is exact


@pytest.mark.parametrize("capacity", [0, 1, 64])
def test_who_preempts_when_woken_sleeps_for_each_message(in_turn, capacity):
    """Why the class of the threads matters: the ring stays as empty, or as full, as it is, and each message takes a sleep."""
    assert sum(sleeps(in_turn, HCHAN, capacity, 1000, True)) >= 999 - capacity


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("placement", ["l3", SAME_CPU])
def test_each_message_arrives_once_and_in_order(kernel, kind, placement):
    for wait in WAITS if kind not in SLEEPERS else (PARK,):
        for capacity, element in ((LEAST_CAPACITY.get(kind, 1), 8), (64, 64)):
            p = point(kind=kind, wait=wait, placement=placement, capacity=capacity, element=element)
            found = measured(kernel, p)
            assert BENCHMARK.check(p, found) == "", p
            assert found.threads[0].operations > 0
            metrics = BENCHMARK.metrics(p, found, PROBES)
            if found.threads[1].operations:  # a consumer may have been kept from its CPU all the time
                assert metrics["parks"] == metrics["producer_parks"] + metrics["consumer_parks"]


@pytest.mark.parametrize("kind", [HCHAN, "mpmc", "mutex_cond", "pipe"])
@pytest.mark.parametrize(("producers", "consumers"), [(2, 1), (1, 2), (2, 2)])
def test_several_producers_and_consumers(kernel, kind, producers, consumers):
    p = point(kind=kind, capacity=8, producers=producers, consumers=consumers, placement="oversubscribed")
    found = measured(kernel, p)
    assert BENCHMARK.check(p, found) == ""
    assert sum(t.executed for t in found.threads[producers:]) > 0


def test_from_hand_to_hand_one_of_the_two_waits_for_each_message(kernel):
    """Whatever the scheduler does."""
    for placement in ("l3", SAME_CPU):
        for wait in WAITS:
            threads = measured(kernel, point(placement=placement, wait=wait)).threads
            assert sum(t.value[WAITED] for t in threads) == threads[0].value[MESSAGES]


SOON = ("#define LIMIT_NS 5000000000u", "#define LIMIT_NS 200000000u")  # who waits in vain need not do so for long
LIARS = {
    "a message is lost": ("h->count++;\n        nb_unlock", "nb_unlock", {"capacity": 64}),
    "a message comes twice": ("h->receive_at = nb_next(h, h->receive_at);\n        h->count--;", "h->count--;", {"capacity": 64}),
    "a message is torn": ("memcpy(to, from, 64);", "memcpy(to, from, 56);", {"capacity": 64, "element": 64}),
    "it polls": (
        "NB_SLEEP(word, value) && errno == EINTR)\n        nb_give_up(e);\n}",
        "sched_yield())\n        nb_give_up(e);\n}",
        {},
    ),
    "it holds more than it says": ("if (h->count < h->capacity) {", "if (h->count < 512) {", {"capacity": 1}),
}
SAID = {
    "a message is lost": ("received", "out of order", "in vain", "waited"),
    "a message comes twice": ("out of order",),
    "a message is torn": ("torn",),
    "it polls": ("times somebody slept",),
    "it holds more than it says": ("out of order", "switches for"),
}


@pytest.mark.parametrize("liar", LIARS)
def test_who_only_pretends_is_found_out(tmp_path, liar):
    right, wrong, values = LIARS[liar]
    p = point(placement=SAME_CPU, **values)
    kernel = broken(tmp_path, {"nb_channel.h": (right, wrong), "channels.c": SOON})
    said = BENCHMARK.check(p, measured(kernel, p, samples=1))
    assert any(words in said for words in SAID[liar]), said


def test_a_lost_wake_up_keeps_nobody(tmp_path):
    """Both ends sleep, and nobody is left who could wake them: their timers do, and the check says so."""
    changes = {
        "nb_channel.h": ("syscall(SYS_futex, WORD, FUTEX_WAKE_PRIVATE, COUNT, NULL, NULL, 0)", "(void)(WORD)"),
        "channels.c": SOON,
    }
    said = BENCHMARK.check(point(), measured(broken(tmp_path, changes), point(), samples=1))
    assert "in vain" in said


def broken(tmp_path, changes: dict[str, tuple[str, str]]) -> abi.Kernel:
    folder = shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    for file, (right, wrong) in changes.items():
        text = (folder / file).read_text()
        assert right in text, right
        (folder / file).write_text(text.replace(right, wrong))
    return abi.Kernel(abi.build("channels", extra=("-O0",), folder=folder).target)


def test_parks_that_are_not_those_known_are_doubted():
    p = point(placement=SAME_CPU, scheduling=BATCH, capacity=64)
    assert BENCHMARK.doubts(p, None, {"parks": 2 / 66 * 1.04}, PROBES) == []
    assert BENCHMARK.doubts(p, None, {"parks": 2 / 66 * 1.06}, PROBES) == ["run_delay"]
    assert BENCHMARK.doubts({**p, "scheduling": NORMAL}, None, {"parks": 1.0}, PROBES) == []
    assert BENCHMARK.doubts({**p, "wait": SPIN}, None, {"parks": 0.0}, PROBES) == []


def test_what_no_channel_can_do_is_no_case():
    topology = read_topology()
    assert not BENCHMARK.keep(point(kind="spsc"), topology) and not BENCHMARK.keep(point(kind="mpmc", capacity=1), topology)
    assert not BENCHMARK.keep(point(kind="pipe", capacity=8, wait=SPIN), topology)
    assert BENCHMARK.place(point(capacity=3, placement=SAME_CPU), topology) is None
    assert BENCHMARK.place(point(kind="spsc", capacity=8, producers=2, placement="oversubscribed"), topology) is None
    assert BENCHMARK.place(point(placement=SAME_CPU), topology).cpus == topology.order_cpus()[:1] * 2


def test_a_window_without_a_consumer_has_no_figure(kernel):
    found = measured(kernel, point())
    found.threads[1].operations = 0
    assert BENCHMARK.metrics(point(), found, PROBES) == {"time": float("inf")}
    assert found.threads[0].value[PARKS] <= found.threads[0].value[MESSAGES]
