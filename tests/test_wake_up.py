"""Waking threads: every wake-up arrives once and in order, who is to sleep sleeps, and a kernel that lies about either is caught."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack

import pytest
from test_kernels import PROBES, enter

from numabench import kernel as abi
from numabench.benchmarks import Found, _ends, discover
from numabench.benchmarks.wake_up import AWAKE, GAP, HALTED, PRIMITIVES, SAME_CPU, SPINNING, STACK, TARGETS
from numabench.errors import MachineError

WAKE_UP = discover()["wake_up"]
LIMIT = "#define LIMIT_NS 3000000000u"
TRIES = 5  # on a busy machine a receiver may be interrupted on its way into its sleep, again and again
two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")


def wake(parameters: dict, kernel: abi.Kernel | None = None, samples: int = 2) -> Found:
    """PREPARE and some MEASUREs as a worker does them, with the descriptors of the case."""
    kernel = kernel or abi.Kernel(abi.build("wake_up").target)
    cpus = sorted(os.sched_getaffinity(0))
    both = (cpus[0], cpus[0] if parameters["target"] == SAME_CPU else cpus[1])
    with ExitStack() as opened:
        how = {"size": STACK, "samples": samples, "cpus": both, "window": 2_000_000}
        try:
            descriptors = WAKE_UP.descriptors(parameters, opened)
        except MachineError as error:
            pytest.skip(str(error))
        return enter(kernel, WAKE_UP.arguments(parameters, PROBES), threads=2, descriptors=descriptors, **how)


def case(primitive: str, target: str, gap: int = GAP) -> dict:
    return {"primitive": primitive, "target": target, "idle_gap": gap, "placement": SAME_CPU if target == SAME_CPU else "l3"}


@two_cpus
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_every_wake_up_arrives_once_and_in_order(primitive, target):
    for gap in (0, GAP):
        p = case(primitive, target, gap)
        for _ in range(TRIES):
            found = wake(p)
            if not WAKE_UP.check(p, found) and "slept" in (metrics := WAKE_UP.metrics(p, found, PROBES)):
                break
        assert WAKE_UP.check(p, found) == ""
        assert metrics["wake_time"] > 0
        if not WAKE_UP.doubts(p, found, metrics, PROBES):
            assert metrics.get("wake_p99", 1) > 0 and 0 <= metrics["slept"] <= 1


def liar(tmp_path, right: str, wrong: str) -> abi.Kernel:
    """The kernel with `wrong` for `right`, which waits less long for what does not come."""
    folder = shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    text = (folder / "wake_up.c").read_text()
    for old, new in ((right, wrong), (LIMIT, "#define LIMIT_NS 300000000u")):
        assert old in text
        text = text.replace(old, new)
    (folder / "wake_up.c").write_text(text)
    return abi.Kernel(abi.build("wake_up", folder=folder).target)


@two_cpus
@pytest.mark.parametrize(
    ("primitive", "right"),
    [
        ("futex", "futex(&s->word, FUTEX_WAKE_PRIVATE, 1);"),
        ("condition", "pthread_cond_signal(&s->condition);"),
        ("pipe", "written = write(in, &number, sizeof number);"),
        ("epoll_level", "written = write(in, &one, sizeof one);"),
        ("io_uring", "written = write(in, &one, sizeof one);"),
        ("signal", "written = syscall(SYS_rt_tgsigqueueinfo, getpid(), s->tid, WAKE, &what);"),
    ],
)
def test_a_wake_up_that_is_not_sent_is_missed_and_nothing_hangs(tmp_path, primitive, right):
    p = case(primitive, HALTED)
    assert "0 arrived" in WAKE_UP.check(p, wake(p, liar(tmp_path, right, ";")))


@two_cpus
@pytest.mark.parametrize(
    ("primitive", "target", "right", "wrong", "said"),
    [
        ("futex", HALTED, "if (!spins)", "if (0)", "the receiver slept before"),
        ("eventfd", SPINNING, "(c->parameter[TARGET] == SPINNING && primitive != IO_URING) || epoll", "epoll", "the receiver slept before"),
        ("eventfd", HALTED, "one = 1;", "one = 2;", "out of order"),
        ("epoll_edge", HALTED, "one = 1;", "one = 2;", "out of order"),
        ("io_uring", HALTED, "one = 1;", "one = 2;", "out of order"),
        ("io_uring", HALTED, "nb_uring_enter(&s->ring, entries, !spins)", "nb_uring_enter(&s->ring, entries, 0)", "the receiver slept before"),
        ("io_uring", SPINNING, "if ((entries || !spins) && nb_uring_enter(&s->ring, entries, !spins) >= 0)",
         "if (nb_uring_enter(&s->ring, entries, 1) >= 0)", "the receiver slept before"),
        ("tcp", HALTED, "written = write(in, &number, sizeof number);", "for (int i = 0; i < 2; i++) written = write(in, &number, 4);", "out of order"),
    ],
)  # fmt: skip
def test_a_kernel_that_lies_is_caught(tmp_path, primitive, target, right, wrong, said):
    """It polls where it is to sleep, sleeps where it is to poll, or sends what it was not asked for."""
    p = case(primitive, target)
    assert said in WAKE_UP.check(p, wake(p, liar(tmp_path, right, wrong), samples=1))


@two_cpus
def test_a_cpu_that_is_not_kept_awake_is_doubted(tmp_path):
    """Whoever is to keep it awake may have no CPU on a busy machine: that disturbs, and is no fault."""
    p = case("futex", AWAKE)
    found = wake(p, liar(tmp_path, "nb_store_relaxed(&s->turns, ++turns);", "sleep_ns(100000 + 0 * turns);"), samples=1)
    assert WAKE_UP.check(p, found) == "" and WAKE_UP.doubts(p, found, {}, PROBES) == ["run_delay"]


def test_without_io_uring_it_is_left_out_by_name(monkeypatch):
    monkeypatch.setattr(_ends, "URING_SETUP", 100_000)  # a system call that no kernel has
    with ExitStack() as opened, pytest.raises(MachineError, match="io_uring_setup"):
        WAKE_UP.descriptors(case("io_uring", HALTED), opened)


def test_the_tail_of_a_few_wake_ups_is_none():
    """The longest of 99 is no 99th percentile."""
    threads = [abi.ThreadBlock(operations=n) for n in (99, 99)]
    p = case("futex", SAME_CPU)
    for block in threads:
        block.value[abi.BATCH_SLOT], block.histogram[100] = 1, 99
    assert "wake_p99" not in WAKE_UP.metrics(p, Found(threads), PROBES)
    threads[1].operations = threads[1].histogram[100] = 100
    assert "wake_p99" in WAKE_UP.metrics(p, Found(threads), PROBES)
