"""preemption: work that is interrupted comes to what it comes to undisturbed, and each signal is handled once."""

from __future__ import annotations

import os

import pytest
from test_kernels import PROBES, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import discover
from numabench.benchmarks.preemption import BYTES, FOOTPRINTS, RATES

BENCHMARK = discover()["preemption"]

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")


def measured(kernel: abi.Kernel, rate: int, footprint: int) -> str:
    """What the check finds."""
    parameters = {"rate": rate, "footprint": footprint, "placement": "any"}
    found = enter(kernel, BENCHMARK.arguments(parameters, PROBES), threads=2, size=BYTES + footprint)
    said = BENCHMARK.check(parameters, found)
    metrics = BENCHMARK.metrics(parameters, found, PROBES)
    assert said or {"loss", "lost", "achieved"} == set(metrics)
    return said


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("preemption").target)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("footprint", FOOTPRINTS)
def test_interrupted_work_comes_to_the_same(kernel, rate, footprint):
    assert measured(kernel, rate, footprint) == ""


@pytest.mark.parametrize(
    ("footprint", "file", "right", "wrong", "said"),
    [
        (0, "preemption.c", "nb_work(t->check, turns * MULTIPLIES)", "nb_work(t->check, turns * MULTIPLIES - 1)", "undisturbed"),
        (16384, "preemption.c", "    t->check += sum;", "    t->check += sum - p_lost(t);", "undisturbed"),
        (0, "preemption.c", "++p->handled;", "p->handled += 2;", "were handled"),
        (
            0,
            "preemption.c",
            "nb_store_release(&p->sent, number);",
            "nb_store_release(&p->sent, number / 2);",
            "another one was sent",
        ),
        (0, "nb_signal.h", "SA_SIGINFO | SA_ONSTACK", "SA_SIGINFO", "on the alternate stack"),
    ],
)
def test_who_only_pretends_is_found_out(tmp_path, footprint, file, right, wrong, said):
    broken = broken_kernel(tmp_path, "preemption", file, right, wrong.replace("p_lost(t)", "(place->handled > 2)"))
    assert said in measured(broken, RATES[-1], footprint)
