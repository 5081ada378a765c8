"""A clock that is slow to read or steps coarsely: batches, windows and sentinels get as long as it needs, and the log says so."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import numabench as nb
from numabench import kernel as abi
from numabench.errors import MachineError
from numabench.measure import worker as worker_module
from numabench.measure.clock import LEAST_BATCHES, READINGS, Clock
from numabench.measure.executor import ProcessExecutor
from numabench.measure.protocol import Job, JobCase, Timing
from numabench.measure.worker import SENTINEL_BATCHES, Worker

CPU = min(os.sched_getaffinity(0))
CHASE = {"size": 16384, "order": "group", "page_size": "4k"}


def flags(cost: int, step: int) -> tuple[str, ...]:
    header = Path(__file__).with_name("slow_clock.h")
    return ("-DNB_CLOCK=slow_clock", f"-DSLOW_NS={cost}", f"-DSTEP_NS={step}", "-include", str(header))


def job(cost: int, step: int = 1) -> Job:
    names = nb.list_benchmarks()["memory_latency"].kernel, "sentinel"
    kernel, sentinel = (str(abi.build(name, extra=flags(cost, step)).target) for name in names)
    case = JobCase(
        case="c", parameters=CHASE, cpus=(CPU,), groups=(0,), node=None, size=16384, scratch=1024, page_size="4k", seed=1
    )
    return Job(
        benchmark="numabench.benchmarks.memory_latency",
        kernel=kernel,
        sentinel=sentinel,
        crew=str(abi.build("crew").target),
        cases=(case,),
        home=None,
        timing=Timing(window=0.002, samples=2),
        spawned=time.clock_gettime(time.CLOCK_MONOTONIC),
        until=1e12,
    )


@pytest.fixture
def events(monkeypatch):
    """What a worker in this process would have written."""
    found = []
    monkeypatch.setattr(worker_module, "emit", found.append)
    cpus = os.sched_getaffinity(0)
    yield found
    os.sched_setaffinity(0, cpus)


def test_a_clock_that_suits_changes_nothing():
    assert Clock(cost=25e-9, step=20e-9).suit(0.025, 10e-6) == (0.025, 10e-6)
    assert Clock(cost=25e-9, step=40e-9).suit(0.025, 10e-6) == (0.025, 10e-6), "a counter of 25 MHz"


@pytest.mark.parametrize("clock", [Clock(cost=1e-6, step=1e-6), Clock(cost=30e-9, step=1e-6)])
def test_batches_are_two_hundred_readings_and_steps_long_and_windows_fifty_batches(clock):
    window, batch = clock.suit(0.008, 10e-6)
    assert batch == pytest.approx(READINGS * 1e-6) and window == pytest.approx(LEAST_BATCHES * batch)
    assert clock.suit(0.025, 10e-6)[0] == 0.025, "long enough as it was"
    assert clock.suit(3e-4, 20e-6, SENTINEL_BATCHES)[0] == pytest.approx(SENTINEL_BATCHES * batch)


def test_the_worst_clock_is_refused():
    Clock(cost=5e-6, step=5e-6).refuse_the_worst()
    with pytest.raises(MachineError, match=r"advances by 4\.0 ms"):
        Clock(cost=5e-9, step=4e-3).refuse_the_worst()


@pytest.mark.parametrize(("cost", "step"), [(1000, 1), (0, 2000)], ids=["slow", "coarse"])
def test_a_process_measures_its_clock_and_sizes_batches_by_it(events, monkeypatch, cost, step):
    """Counted, not timed: what the kernel is told, and how many batches it made of its window."""
    told = []
    follow = worker_module.Crew.follow

    def watched(crew, steps):
        told.extend((step.kernel.name, step.case.phase, step.case.batch_ns, step.case.window_ns) for step in steps)
        return follow(crew, steps)

    monkeypatch.setattr(worker_module.Crew, "follow", watched)
    worker = Worker(job(cost, step))
    worker.run()
    samples = [event.sample for event in events if hasattr(event, "sample")]
    assert len(samples) == 2 and not [r for sample in samples for r in sample.reasons if r.startswith(("check", "physics"))]
    least = max(cost, step) * READINGS
    assert worker.clock.least_batch * 1e9 >= least
    assert events[-1].clock == {"cost": worker.clock.cost, "step": worker.clock.step}
    measured = [(batch, window) for name, phase, batch, window in told if (name, phase) == ("memory_latency", abi.MEASURE)]
    assert len(measured) == 2
    assert all(batch >= least and window >= LEAST_BATCHES * batch - LEAST_BATCHES for batch, window in measured)
    sentinels = [(batch, window) for name, _, batch, window in told[1:] if name == "sentinel"]
    assert all(batch >= least and window >= SENTINEL_BATCHES * (batch - 1) for batch, window in sentinels)
    assert worker.longer >= least / 20_000


def test_a_clock_of_jiffies_fails_its_cases_in_words(events):
    Worker(job(0, 4_000_000)).run()
    (failed,) = (event for event in events if hasattr(event, "reason"))
    assert "too coarse to time memory by" in failed.reason and "clock source" in failed.reason


def test_the_log_says_what_the_clock_took():
    with ProcessExecutor() as executor:
        outcome = executor.execute(job(3000), 60.0)
    assert outcome.failure == "" and outcome.done.clock["cost"] >= 3e-6 <= outcome.done.clock["step"]
    assert len(outcome.samples) == 2
