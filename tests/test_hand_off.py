"""hand_off: who ran the task behind one that blocks is an outcome and no time, and so is that the call blocked."""

from __future__ import annotations

import itertools
import os
import shutil

import pytest
from test_kernels import PROBES, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import SAME_CPU, discover
from numabench.benchmarks.hand_off import (
    AT_TIMES,
    BYTES,
    EAGER,
    HANDED,
    LEAST_SLACK,
    LONGEST,
    LOOKS,
    MONITORED,
    NONE,
    PERIOD,
    POLICIES,
    SLACK,
    TAKEN,
    THREADS,
    USUAL,
)

BENCHMARK = discover()["hand_off"]
LONG = 5_000_000  # ns: seen twice by its monitor even where other programs have the CPU most of the time


def measured(
    kernel: abi.Kernel, policy: str, blocking: int, placement: str = SAME_CPU, samples: int = 2, slack: int = LEAST_SLACK
):
    """What was found, the metrics, and what the check says."""
    p = {"policy": policy, "blocking": blocking, "period": PERIOD, "slack": slack, "placement": placement}
    cpus = sorted(os.sched_getaffinity(0))
    others = [cpus[0] if placement == SAME_CPU else cpus[-1]] * (THREADS[policy] - 1)
    found = enter(
        kernel,
        BENCHMARK.arguments(p, PROBES),
        threads=THREADS[policy],
        size=BYTES,
        samples=samples,
        window=1_000_000,
        cpus=(cpus[0], *others),
    )
    return found, BENCHMARK.metrics(p, found, PROBES), BENCHMARK.check(p, found)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("hand_off").target)


@pytest.mark.parametrize(
    ("policy", "blocking", "placement"), [*itertools.product(POLICIES, (1_000, 100_000, LONG), (SAME_CPU, "any"))]
)
def test_each_task_runs_once_on_whom_it_was_handed_to(kernel, policy, blocking, placement):
    _, metrics, wrong = measured(kernel, policy, blocking, placement)
    assert wrong == ""
    assert metrics["blocked"] >= blocking * 0.99  # of bins of 0.4 %
    assert metrics["cost"] == metrics["delay"] + metrics["cpu_time"] > 0
    if policy != MONITORED:
        assert metrics["handoffs"] == metrics["handed"] == (policy == EAGER)


def test_what_is_handed_over_mostly_rarely_or_at_times(kernel):
    p = {"policy": EAGER, "blocking": 1_000, "period": PERIOD, "slack": SLACK, "placement": SAME_CPU}
    found = measured(kernel, EAGER, 1_000)[0]
    carrier = found.threads[0]
    outcomes = {}
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        carrier.value[HANDED] = round(share * carrier.operations)
        outcomes[share] = BENCHMARK.metrics(p, found, PROBES)["handed"]
    assert outcomes == {0.0: 0.0, 0.2: 0.0, 0.5: AT_TIMES, 0.9: 1.0, 1.0: 1.0}


def test_a_monitor_that_did_not_come_to_look_is_a_doubt_and_no_lie(kernel):
    p = {"policy": MONITORED, "blocking": 10 * USUAL, "period": PERIOD, "slack": SLACK, "placement": SAME_CPU}
    assert BENCHMARK.doubts(p, None, {"handoffs": 0.5}, PROBES) == ["run_delay"]
    assert BENCHMARK.doubts(p, None, {"handoffs": 1.0}, PROBES) == []
    assert BENCHMARK.doubts({**p, "blocking": PERIOD}, None, {"handoffs": 0.0}, PROBES) == []


def test_a_monitor_that_finds_nothing_backs_off(kernel):
    """51 looks, then at most ten that are each twice as far from the one before, then one in 10 ms; and again from the begin after it took a call away."""
    monitor = measured(kernel, MONITORED, 1_000, samples=1)[0].threads[2]
    assert 0 < monitor.value[LOOKS] <= 61 * (monitor.value[TAKEN] + 1) + (monitor.end_ns - monitor.begin_ns) // LONGEST + 2


def test_only_a_monitor_has_a_pace():
    p = {"policy": MONITORED, "blocking": USUAL, "period": USUAL, "slack": LEAST_SLACK, "placement": SAME_CPU}
    assert BENCHMARK.keep(p, None) and not any(BENCHMARK.keep({**p, "policy": policy}, None) for policy in (NONE, EAGER))


@pytest.mark.parametrize(
    ("policy", "blocking", "right", "wrong", "said"),
    [
        (NONE, 100_000, "clock_nanosleep(CLOCK_MONOTONIC, 0, &until, NULL)", "0", "did not block"),
        (
            NONE,
            100_000,
            "clock_nanosleep(CLOCK_MONOTONIC, 0, &until, NULL)",
            "0; while (nb_now() < entered + blocking) {}",
            "gave the CPU up",
        ),
        (
            EAGER,
            100_000,
            "        give(p, number);\n    } else if",
            "        p->processor = word(number, IN_CALL);\n    } else if",
            "were handed to it",
        ),
        (NONE, 100_000, "until = of(blocking)", "until = of(blocking / 2)", "did not block"),
        (EAGER, 100_000, "t->value[RAN]++;", "t->value[RAN] += 2;", "once each"),
        (EAGER, 100_000, "const uint64_t number = p->queued;", "const uint64_t number = p->queued / 2;", "once each"),
        (MONITORED, 1_000_000, "state_of(now) == IN_CALL && now == seen", "state_of(now) == IN_CALL", "sooner than"),
        (MONITORED, LONG, "state_of(now) == IN_CALL && now == seen", "0", "the monitor took 0 of"),
        (MONITORED, LONG, "t->value[TAKEN]++;", ";", "were handed to it"),
    ],
)
def test_who_only_pretends_is_found_out(tmp_path, policy, blocking, right, wrong, said):
    """Calls that do not block or spin, a spare that is not woken or runs a task twice, a monitor that takes a call away at first sight or never."""
    broken = broken_kernel(tmp_path, "hand_off", "hand_off.c", right, wrong)
    assert said in measured(broken, policy, blocking)[2]


def test_a_lost_wake_up_ends_and_is_found_out(tmp_path):
    folder = shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    text = (folder / "hand_off.c").read_text()
    for right, wrong in (
        ("        give(p, number);\n    } else if", "        ;\n    } else if"),
        ("#define LIMIT_NS 3000000000u", "#define LIMIT_NS 30000000u"),  # who waits in vain need not do so for long
    ):
        assert right in text
        text = text.replace(right, wrong)
    (folder / "hand_off.c").write_text(text)
    assert "did not come back" in measured(abi.Kernel(abi.build("hand_off", folder=folder).target), EAGER, 1_000)[2]
