"""signals: that the thread was interrupted, once for each signal and in the state that is named, is an outcome and no time."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from test_kernels import PROBES, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import SAME_CPU, discover
from numabench.benchmarks.signals import BLOCKED, BYTES, OTHERS, OWN, RUNNING, SELF, SELF_GO, SLEEPING, TARGETS

BENCHMARK = discover()["signals"]


def measured(kernel: abi.Kernel, target: str, placement: str = "any") -> str:
    """What the check finds."""
    parameters, threads = {"target": target, "placement": placement}, 1 if target in OWN else 2
    cpus = sorted(os.sched_getaffinity(0))[:1] if placement == SAME_CPU else ()
    if threads > len(cpus or os.sched_getaffinity(0)) and not cpus:
        pytest.skip("needs two CPUs")
    with contextlib.ExitStack() as opened:
        descriptors = BENCHMARK.descriptors(parameters, opened)
        arguments = BENCHMARK.arguments(parameters, PROBES)
        found = enter(kernel, arguments, threads=threads, size=BYTES, descriptors=descriptors, cpus=cpus)
    assert all(t.end_ns >= t.begin_ns for t in found.threads)
    said = BENCHMARK.check(parameters, found)
    if not said:
        metrics = BENCHMARK.metrics(parameters, found, PROBES)
        assert all(value > 0 for value in metrics.values()), metrics
        assert ("loss" in metrics) == (target == RUNNING and placement != SAME_CPU)
    return said


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("signals").target)


@pytest.mark.parametrize("target", TARGETS)
def test_each_signal_is_handled_once_in_the_state_that_is_named(kernel, target):
    assert measured(kernel, target) == ""


@pytest.mark.parametrize("target", OTHERS)
def test_so_it_is_on_one_cpu(kernel, target):
    assert measured(kernel, target, SAME_CPU) == ""


def test_what_the_thread_had_for_the_signal_is_there_again(kernel):
    seen = []
    before, mask = signal.signal(signal.SIGURG, lambda *_: seen.append(1)), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert measured(kernel, SELF_GO) == ""
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
        signal.raise_signal(signal.SIGURG)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGURG, before)


def test_who_sleeps_where_it_should_be_ready_is_found_out_on_one_cpu(tmp_path):
    liar = broken_kernel(tmp_path, "signals", "signals.c", "RUNNING)\n        spin(t, p);", "RUNNING)\n        sleep_on(t, p);")
    assert "is to run slept" in measured(liar, RUNNING, SAME_CPU)


@pytest.mark.parametrize(
    ("target", "right", "wrong", "said"),
    [
        (SELF_GO, "SA_SIGINFO | SA_ONSTACK | SA_RESTART", "SA_SIGINFO | SA_RESTART", "on the alternate stack"),
        (SELF, "++p->handled;", "p->handled += 2;", "were handled"),
        (SELF, "nb_store_release(&p->sent, number);", "nb_store_release(&p->sent, number / 2);", "when another one was sent"),
        (RUNNING, "OTHER_RUNNING)\n        spin(t, p);", "OTHER_RUNNING)\n        sleep_on(t, p);", "is to run slept"),
        (SLEEPING, "nb_sleep_for(&p->stops, 0,", "nb_sleep_for(&p->stops, 1,", "slept before"),
        (BLOCKED, "SA_SIGINFO | SA_ONSTACK | SA_RESTART", "SA_SIGINFO | SA_ONSTACK", "ended by a signal"),
        (BLOCKED, "word == p->handled;", "word == p->handled && word % 2;", "brought what was written"),
    ],
)
def test_who_only_pretends_is_found_out(tmp_path, target, right, wrong, said):
    file = "nb_signal.h" if right.startswith("SA_") else "signals.c"
    assert said in measured(broken_kernel(tmp_path, "signals", file, right, wrong), target)
