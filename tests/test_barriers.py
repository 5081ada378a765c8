"""barriers: that the two sides see each other is an outcome, and a barrier that is none is found out by it."""

from __future__ import annotations

import os

import pytest
from test_kernels import PROBES, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import discover
from numabench.benchmarks.barriers import BYTES, FENCE, FEWEST, GLOBAL, MEMBARRIER, METHODS, NONE

BENCHMARK = discover()["barriers"]


def measured(kernel: abi.Kernel, method: str, threads: int = 2, passes: int = FEWEST) -> tuple[str, dict[str, float]]:
    """What the check finds, and the metrics."""
    parameters = {"method": method, "passes": passes, "placement": "any"}
    if threads > len(os.sched_getaffinity(0)):
        pytest.skip("needs two CPUs")
    try:
        found = enter(kernel, BENCHMARK.arguments(parameters, PROBES), threads=threads, size=BYTES)
    except AssertionError:
        pytest.skip(f"this machine has no {method}")
    return BENCHMARK.check(parameters, found), BENCHMARK.metrics(parameters, found, PROBES)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("barriers").target)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("threads", "passes"), [(1, FEWEST), (2, FEWEST), (2, 1000)])
def test_the_sides_see_each_other(kernel, method, threads, passes):
    if method == GLOBAL and (threads, passes) != (2, FEWEST):
        pytest.skip("waits for a grace period each time")
    said, metrics = measured(kernel, method, threads, passes)
    assert said == ""
    assert metrics["time"] > 0
    assert ("slow" in metrics) == (method in (MEMBARRIER, GLOBAL))
    assert ("weak" in metrics) == (threads > 1)


@pytest.mark.parametrize(
    ("method", "right", "wrong", "said"),
    [
        (MEMBARRIER, "refused |= membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);", ";", "both sides read the old value"),
        (FENCE, "if (fence)\n        nb_full_fence();", "if (0)\n        nb_full_fence();", "both sides read the old value"),
        (FENCE, "nb_store_relaxed(&p->mine, ++number);", "++number;", "did not leave"),
        (NONE, "sum += nb_load_relaxed(&p->other);", "sum += number % 2;", "did not leave"),
    ],
)
def test_a_barrier_that_is_none_is_found_out(tmp_path, method, right, wrong, said):
    broken = broken_kernel(tmp_path, "barriers", "barriers.c", right, wrong)
    # of one entry the two may not have run at the same time, of many on a busy machine
    assert any(said in measured(broken, method)[0] for _ in range(400))
