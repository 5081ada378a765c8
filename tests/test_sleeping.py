"""Sleeping: no sleep ends early, each gives the CPU up, the slack is what was asked for, and a kernel that lies is caught."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest
from test_kernels import PROBES, Refused, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import Found, discover
from numabench.benchmarks.sleeping import CALLS, IDLE, NORMAL, SCHEDULINGS, SLACKS, STACK
from numabench.errors import MachineError

SLEEPING = discover()["sleeping"]


def sleep(parameters: dict, kernel: abi.Kernel | None = None) -> Found:
    kernel = kernel or abi.Kernel(abi.build("sleeping").target)
    with ExitStack() as opened:
        descriptors = SLEEPING.descriptors(parameters, opened)
        try:
            return enter(
                kernel, SLEEPING.arguments(parameters, PROBES), size=STACK, samples=1, descriptors=descriptors, window=2_000_000
            )
        except Refused:
            pytest.skip(f"no {parameters['call']} here")


@pytest.mark.parametrize("slack", SLACKS)
@pytest.mark.parametrize("duration", [1_000, 100_000])
@pytest.mark.parametrize("call", CALLS)
def test_sleeps_are_made_and_end_in_time(call, duration, slack):
    p = {"call": call, "duration": duration, "slack": slack, "scheduling": NORMAL}
    found = sleep(p)
    assert SLEEPING.check(p, found) == ""
    assert SLEEPING.metrics(p, found, PROBES)["late"] > 0


@pytest.mark.parametrize("scheduling", SCHEDULINGS)
def test_each_class_sleeps_and_is_left_again(scheduling):
    p = {"call": "nanosleep", "duration": 100_000, "slack": 1, "scheduling": scheduling}
    before = os.sched_getscheduler(0)
    found = sleep(p)
    assert SLEEPING.check(p, found) == "" and os.sched_getscheduler(0) == before
    other = next(other for other in SCHEDULINGS if other != scheduling)
    assert "the class is number" in SLEEPING.check({**p, "scheduling": other}, found)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("relative = of(ns)", "relative = of(ns / 2)", "ended early"),
        ("prctl(PR_SET_TIMERSLACK, (unsigned long)c->parameter[SLACK], 0, 0, 0);", ";", "the timer slack is"),
        ("return !nanosleep(&relative, NULL);", "while (nb_now() < before + ns + 1000) {} return 1;", "gave the CPU up"),
        ("return !nanosleep(&relative, NULL);", "return 0;", "sleeps were made"),
        ("!= wanted && sched_setscheduler(0, wanted, &none)", "!= wanted && wanted < 0", "the class is number"),
    ],
)  # fmt: skip
def test_a_kernel_that_lies_is_caught(tmp_path, right, wrong, said):
    """It sleeps for less, leaves the slack as it is, spins instead, does nothing, or stays in its class."""
    p = {"call": "nanosleep", "duration": 100_000, "slack": 1, "scheduling": IDLE if "class" in said else NORMAL}
    assert said in SLEEPING.check(p, sleep(p, broken_kernel(tmp_path, "sleeping", "sleeping.c", right, wrong)))


def test_slack_is_a_known_answer():
    def pair(call: str, least: float, usual: float) -> list[tuple[dict, dict]]:
        p = {"call": call, "duration": 100_000, "scheduling": NORMAL}
        return [({**p, "slack": 1}, {"late": least}), ({**p, "slack": 50_000}, {"late": usual})]

    def wrong(call: str, least: float, usual: float) -> list[str]:
        return [said for _, said in SLEEPING.contradictions(pair(call, least, usual), None)]

    assert not wrong("nanosleep", 5_000, 55_000) and not wrong("timerfd", 5_000, 5_500)
    assert wrong("nanosleep", 5_000, 6_000) == ["50 us more of timer slack made nanosleep 1.0 us later"]
    assert wrong("timerfd", 5_000, 55_000) and not wrong("nanosleep", 150_000, 160_000), "a busy CPU shows nothing"


def test_it_is_refused_where_timers_have_no_slack(monkeypatch):
    p = {"call": "nanosleep", "duration": 1_000, "slack": 1, "scheduling": NORMAL}
    for number, said in (
        (2, "SCHED_RR"),
        (os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, "SCHED_FIFO"),
        (os.SCHED_IDLE, "by privilege alone"),
    ):
        monkeypatch.setattr(os, "sched_getscheduler", lambda pid, number=number: number)
        with ExitStack() as opened, pytest.raises(MachineError, match=said):
            SLEEPING.descriptors(p, opened)
    with ExitStack() as opened:  # of the class that is left by privilege alone, to which it belongs
        assert SLEEPING.descriptors({**p, "scheduling": IDLE}, opened) == ()
