"""migration: that a thread moved, and what it had written before, is an outcome and no time."""

from __future__ import annotations

import itertools
import os

import pytest
from test_kernels import PROBES, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import Found, discover
from numabench.benchmarks.migration import ALL_DIRTY, MOVE, PINNED, PULLED, RIVALS, SHARES, STAY, TRIED_SLOT, came, dirty_lines

BENCHMARK = discover()["migration"]
LINES = 200

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a thread can move only where there are two CPUs")


def measured(kernel: abi.Kernel, action: str, dirty: int, lines: int = LINES) -> tuple[Found, str]:
    """What was found, and what the check says of it."""
    parameters = {"action": action, "lines": lines, "dirty": dirty}
    cpus = sorted(os.sched_getaffinity(0))[:2]
    cpus = (*cpus, cpus[0]) if action in RIVALS else tuple(cpus)
    found = enter(kernel, BENCHMARK.arguments(parameters, PROBES), threads=len(cpus), size=1 << 20, cpus=cpus, window=1_000_000)
    metrics = BENCHMARK.metrics(parameters, found, PROBES)
    assert found.threads[0].operations > 0
    if action == PULLED:  # it is up to the scheduler
        assert 0 <= metrics["pulled"] <= 1 and ("time" in metrics) == (metrics["pulled"] >= 0.5)
    elif not BENCHMARK.doubts(parameters, found, metrics, PROBES):
        assert metrics["time"] > 0 and metrics["call"] > 0
    return found, BENCHMARK.check(parameters, found)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("migration").target)


@pytest.mark.parametrize(
    ("action", "dirty", "lines"),
    [*itertools.product((STAY, MOVE), SHARES, (LINES,)), (MOVE, 33, 2), (PINNED, ALL_DIRTY, LINES), (PULLED, ALL_DIRTY, LINES)],
)
def test_each_line_is_written_as_often_as_it_was_to_be(kernel, action, dirty, lines):
    found, wrong = measured(kernel, action, dirty, lines)
    assert wrong == ""
    first, second, *_ = found.threads
    assert first.cpu_begin == first.cpu_end == min(os.sched_getaffinity(0)) != second.cpu_begin  # where it was placed: it is back


@pytest.mark.parametrize("share", [0, 1, 33, 50, 99, 100])
def test_shares_are_counted_as_the_kernel_deals_them_out(share):
    for lines in (1, 2, 7, 64, 1000):
        assert dirty_lines(lines, share) == sum(number * share % 100 < share for number in range(lines))


@pytest.mark.parametrize(
    ("action", "right", "wrong", "said"),
    [
        (MOVE, "nb_pin(away)", "nb_pin(home)", "ran on another CPU"),
        (STAY, "nb_pin(away)", "nb_pin(s->cpu[1])", "ran on another CPU"),
        (MOVE, "set[i].updates++;", "(void)set[i].updates;", "the lines count"),
        (PULLED, "nb_allow(home, away)", "nb_pin(away)", "where the rival comes"),
        (MOVE, "&set[order[(i + 1) % n]]", "&set[order[i ? i : 1]]", "more or less often"),
    ],
)
def test_who_only_pretends_is_found_out(tmp_path, action, right, wrong, said):
    assert said in measured(broken_kernel(tmp_path, "migration", "migration.c", right, wrong), action, ALL_DIRTY)[1]


def test_a_rival_that_never_runs_is_waited_for_in_vain_and_not_for_long(tmp_path):
    """No time is told, and nothing hangs."""
    found, wrong = measured(broken_kernel(tmp_path, "migration", "migration.c", "tell_rival(s, RUN);", ";"), PINNED, ALL_DIRTY)
    parameters = {"action": PINNED, "lines": LINES, "dirty": ALL_DIRTY}
    assert found.threads[0].value[TRIED_SLOT] == 4, "whoever was never seen to run is given up"
    assert wrong == "" and came(found.threads[0]) == 0 and BENCHMARK.doubts(parameters, found, {}, PROBES) == ["run_delay"]
