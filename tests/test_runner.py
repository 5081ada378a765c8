"""Scheduling through a fake executor: rounds, looks, budget, crashes, resuming, all in milliseconds."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from synthetic import set_aside
from synthetic_sysfs import SyntheticTree

from numabench.api import judge
from numabench.benchmarks import find
from numabench.host.topology import read_topology
from numabench.kernel import build
from numabench.measure.executor import Outcome
from numabench.measure.plan import make_plan
from numabench.measure.protocol import Began, Done, Job, Took
from numabench.measure.runner import Progress, Runner
from numabench.measure.visit import Request, Visit, open_resume
from numabench.model import BenchmarkRecord, Metric, Sample
from numabench.runlog.read import load
from numabench.runlog.write import Journal

METRICS = ("time_per_operation", "throughput", "fairness")


class FakeExecutor:
    """Answers every job with made-up samples of standard deviation `sd` in logs; `faults` maps a call's number to a fault."""

    def __init__(self, sd: float = 0.001, faults: dict | None = None, tick=lambda: None):
        self.sd, self.faults, self.jobs, self.tick, self.rng = sd, faults or {}, [], tick, random.Random(1)

    def execute(self, job: Job, timeout: float) -> Outcome:
        self.jobs.append(job)
        self.tick()
        fault = self.faults.get(len(self.jobs))
        if fault is KeyboardInterrupt:
            raise KeyboardInterrupt
        events = []
        for number, case in enumerate(job.cases):
            events.append(Began(case=case.case))
            if fault and number == 2:
                return Outcome(events, fault)
            level = self.rng.gauss(0, self.sd)
            for index in range(job.timing.samples):
                value = 10 * math.exp(level + self.rng.gauss(0, self.sd / 3))
                events.append(
                    Took(
                        sample=Sample(
                            case=case.case,
                            index=index,
                            parameters=case.parameters,
                            valid=True,
                            metrics=dict(zip(METRICS, (value, 1e9 / value, 1.0), strict=True)),
                        )
                    )
                )
        return Outcome([*events, Done(startup=0.05, measured=0.5, interference={"steal": 0.0})])


@pytest.fixture
def scene(tmp_path):
    """A runner on a synthetic machine; keyword arguments change plan and executor."""
    topology = read_topology(str(SyntheticTree(tmp_path / "tree", cores=2).root))
    benchmark = find("padded_counters")
    record = BenchmarkRecord(
        run="r",
        name=benchmark.name,
        title="",
        question="",
        axes=benchmark.axes,
        method={},
        contrasts=benchmark.contrasts,
        metrics=tuple(Metric(name=n, unit="ns", polarity="lower") for n in METRICS),
    )

    def make(executor, trials=(), clock=None, selection=None, **plan):
        made = make_plan([benchmark], topology, profile="quick", selection=selection or {"spacing": (0,)}, samples=3, **plan)
        journal = Journal(tmp_path / "log.jsonl")
        kernels = {benchmark.name: build(benchmark.kernel), "sentinel": build("sentinel"), "crew": build("crew")}
        options = {"clock": clock} if clock else {}
        return Runner(
            made,
            topology,
            kernels,
            {benchmark.name: benchmark},
            executor,
            journal,
            judge((record,)),
            "r",
            "s",
            trials=trials,
            **options,
        ), tmp_path / "log.jsonl"

    return make


class Curve(FakeExecutor):
    """Latencies that step up at two sizes, and by a factor at the largest."""

    def __init__(self, *arguments, largest: float = 1.0, **options):
        super().__init__(*arguments, **options)
        self.largest = largest

    def execute(self, job: Job, timeout: float) -> Outcome:
        outcome = super().execute(job, timeout)
        for event in outcome.events:
            if isinstance(event, Took):
                size = event.sample.parameters["size"]
                level = 1.0 if size <= 40_000 else 5.0 if size <= 3_000_000 else 100.0
                level *= self.largest if size == max(case.parameters["size"] for case in job.cases) else 1.0
                event.sample.metrics.clear()
                event.sample.metrics.update(latency=level * random.Random(size).uniform(0.999, 1.001), cycles=4.0)
        return outcome


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_curve_is_refined_at_its_knees(tmp_path, interrupted):
    path, asked = tmp_path / "log.jsonl", Request(benchmarks=("memory_latency",), profile="standard")
    visit, executor = Visit(asked), Curve(sd=0.1, faults={30: KeyboardInterrupt} if interrupted else None)
    first = {c.case.parameters["size"] for block in visit.plan.blocks for c in block.cases}
    visit.measure(path, judge, executor=executor)
    if interrupted:
        request, resumed = open_resume(path)
        Visit(request).measure(path, judge, executor=Curve(sd=0.1), resume=resumed)
    log = load(path)
    added = {s.parameters["size"] for t in log.trials for s in t.samples} - first
    assert len(added) == 4 and sorted(size > 100_000 for size in added) == [False, False, True, True]  # two at each step
    processes = {t.process for t in log.trials if {s.parameters["size"] for s in t.samples} <= added}
    assert min(processes) == 5 and len(processes) >= 5  # from the first look on
    record = log.benchmarks[-1]
    assert (
        added <= set(next(axis.values for axis in record.axes if axis.name == "size"))
        and record.cases == log.ends[-1].cells["total"]
    )


def test_samples_of_a_case_need_not_have_the_same_metrics(scene):
    class Sometimes(FakeExecutor):
        def execute(self, job: Job, timeout: float) -> Outcome:
            outcome = super().execute(job, timeout)
            for event in outcome.events:
                if isinstance(event, Took) and event.sample.index:
                    event.sample.metrics.pop(METRICS[-1])
            return outcome

    runner, path = scene(Sometimes(), processes=1)
    assert runner.run().status == "complete" and trials_of(path)[0].status == "ok"


@pytest.mark.parametrize(("largest", "valid"), [(1.0, True), (0.95, True), (0.001, False)])
def test_a_nearer_level_that_is_slower_fails_its_process(tmp_path, largest, valid):
    """Memory is 5 % faster than L3 where neighbours hold that; a hundred times is no memory."""
    asked = Request(benchmarks=("memory_latency",), profile="quick", settings=("order=group",), processes=2)
    Visit(asked).measure(tmp_path / "log.jsonl", judge, executor=Curve(largest=largest))
    trials = load(tmp_path / "log.jsonl").trials
    failed = [s for t in trials for s in t.samples if not s.valid]
    assert bool(failed) != valid and all(t.status == ("ok" if valid else "disturbed") for t in trials)
    assert all(len(s.reasons) == 1 and "no nearer level is slower" in s.reasons[0] for s in failed)
    sizes = {s.parameters["size"] for t in trials for s in t.samples}
    assert {s.parameters["size"] for s in failed} < sizes and (valid or max(sizes) in {s.parameters["size"] for s in failed})


def test_what_was_asked_for_by_value_is_not_refined(tmp_path):
    path = tmp_path / "log.jsonl"
    asked = Request(benchmarks=("memory_latency",), profile="standard", settings=("size=16k,64k", "order=group"))
    Visit(asked).measure(path, judge, executor=Curve())
    assert {s.parameters["size"] for t in load(path).trials for s in t.samples} == {16 << 10, 64 << 10}


def trials_of(path: Path):
    from numabench.runlog.read import _decoder

    return [r for r in map(_decoder.decode, path.read_bytes().splitlines()) if type(r).__name__ == "TrialRecord"]


def test_precise_cells_stop_at_the_first_look_that_pairs_allow(scene):
    runner, path = scene(FakeExecutor(sd=0.0005))
    end = runner.run()
    assert end.status == "complete" and end.cells["reached"] == end.cells["total"] > 0
    assert {t.process for t in trials_of(path)} == set(range(8))


def test_noisy_cells_go_on_to_the_last_look_and_say_so(scene):
    runner, path = scene(FakeExecutor(sd=0.09))
    end = runner.run()
    assert end.status == "complete" and end.cells["reached"] == 0
    assert len(end.cells["precision_not_reached"]) == end.cells["total"]
    assert set(end.cells["why"].values()) == {"processes differ too much for 32 of them"}
    assert max(t.process for t in trials_of(path)) == 31


def test_hopeless_cells_are_given_up_at_a_look(scene):
    runner, path = scene(FakeExecutor(sd=0.8))
    end = runner.run()
    assert end.status == "complete" and end.cells["reached"] == 0 and max(t.process for t in trials_of(path)) == 11


def test_a_number_of_processes_is_obeyed(scene):
    for sd, processes in ((0.5, 3), (0.0005, 11)):
        runner, path = scene(FakeExecutor(sd=sd), processes=processes)
        runner.run()
        assert [t.process for t in trials_of(path)] == list(range(processes))
        runner.journal.close()
        path.unlink()


def test_the_budget_wins(scene):
    now = [0.0]
    executor = FakeExecutor(sd=0.5, tick=lambda: now.__setitem__(0, now[0] + 10.0))
    runner, path = scene(executor, clock=lambda: now[0], budget=45.0)
    end = runner.run()
    assert end.status == "budget" and end.elapsed <= 45.0 and len(trials_of(path)) == 4
    assert len(end.cells["why"]) == end.cells["total"]


def test_a_short_budget_is_kept_for_pairs(scene):
    """Once every block has the processes that an interval takes, the rest goes to those that need more for their pairs."""
    now = [0.0]
    runner, path = scene(FakeExecutor(sd=0.5, tick=lambda: now.__setitem__(0, now[0] + 1.0)), clock=lambda: now[0], budget=13.5)
    (paired,) = runner.blocks
    plain = msgspec.structs.replace(paired, name="plain/1", least=5)
    runner.blocks, runner.active = [plain, paired], {plain.name: plain, paired.name: paired}
    runner.costs = dict.fromkeys(runner.active, 1.0)
    runner.run()
    assert Counter(t.block for t in trials_of(path)) == {paired.name: 8, "plain/1": 5}


def test_what_is_dear_leaves_room_for_what_is_cheap(scene):
    """A benchmark whose process takes ten times as long waits where it would take the cheap one's last processes for its pairs."""
    now = [0.0]
    executor = FakeExecutor(sd=0.5, tick=lambda: now.__setitem__(0, now[0] + (10.0 if "dear" in executor.block else 1.0)))
    runner, path = scene(executor, clock=lambda: now[0], budget=55.5)
    (cheap,) = runner.blocks
    dear = msgspec.structs.replace(cheap, name="dear/1", least=5)
    runner.blocks, runner.active = [dear, cheap], {dear.name: dear, cheap.name: cheap}
    runner.costs = {dear.name: 10.0, cheap.name: 1.0}
    execute = runner.execute

    def noted(block, cases):
        executor.block = block.name
        return execute(block, cases)

    runner.execute = noted
    runner.record = lambda *given, _record=runner.record: msgspec.structs.replace(
        _record(*given), duration=runner.costs[given[0].name]
    )
    runner.run()
    assert Counter(t.block for t in trials_of(path)) == {cheap.name: 12, "dear/1": 4}


class Asked:
    """A judge whose cells are never precise, and of whose answers those of `open` are, by processes of the look."""

    def __init__(self, **open: dict[int, int]):
        self.open, self.asked = open, []

    def widths(self, trials):
        return {}

    def open_answers(self, trials, names):
        looked = max(t.process for t in trials) + 1
        self.asked.append((looked, set(names)))
        return {name: count for name, by_look in self.open.items() if (count := by_look.get(looked, 0))}


@pytest.mark.parametrize(
    ("by_look", "budget", "counts"),
    [
        ({5: 1, 8: 1, 12: 0}, 30.0, (12 + 6, 5 + 7)),  # settled at 12: then both, in turn
        ({5: 2, 8: 2, 12: 1}, 24.0, (19, 5)),  # fewer at 12 than at 8: it goes on, alone
        ({5: 2, 8: 2, 12: 2}, 30.0, (12 + 6, 5 + 7)),  # as many at 12 as at 8: given up, both in turn
        ({5: 1, 8: 1, 12: 0}, 1000.0, (32, 32)),  # there is enough for both
        ({}, 30.0, (15, 15)),  # all is settled
    ],
)
def test_what_is_settled_gets_what_the_others_leave(scene, by_look, budget, counts):
    now, judge = [0.0], Asked(other=by_look)
    runner, path = scene(
        FakeExecutor(sd=0.5, tick=lambda: now.__setitem__(0, now[0] + 1.0)), clock=lambda: now[0], budget=budget + 0.5
    )
    (settled,) = runner.blocks
    settled = msgspec.structs.replace(settled, least=5)
    other = msgspec.structs.replace(settled, name="other/1", benchmark="other")
    runner.judge, runner.blocks = judge, [settled, other]
    runner.active = {block.name: block for block in runner.blocks}
    runner.kernels["other"], runner.benchmarks["other"] = runner.kernels[settled.benchmark], runner.benchmarks[settled.benchmark]
    runner.costs = dict.fromkeys(runner.active, 1.0)
    end = runner.run()
    found = Counter(t.block for t in trials_of(path))
    assert (found["other/1"], found[settled.name]) == counts and end.elapsed <= budget + 0.5
    assert judge.asked[0] == (5, {"other", settled.benchmark})
    assert end.status == ("complete" if budget > 100 else "budget")


def test_a_benchmark_that_comes_first_and_fails_is_given_up(scene):
    class Silent(FakeExecutor):
        def execute(self, job, timeout):
            return Outcome([], "crashed: exit code 1")

    runner, path = scene(Silent())
    runner.first = frozenset(block.benchmark for block in runner.blocks)
    runner.run()
    assert not runner.active and len(trials_of(path)) == len(runner.blocks)


@pytest.mark.parametrize(("first", "before"), [(("other",), 8), ((), 0)])
def test_what_stands_on_the_card_is_asked_before_the_rest(scene, first, before):
    """Of two benchmarks, `other` has eight processes and a look before the first of the other one; both end with as many."""
    now, judge = [0.0], Asked()
    executor = FakeExecutor(sd=0.5, tick=lambda: now.__setitem__(0, now[0] + 1.0))
    runner, path = scene(executor, clock=lambda: now[0], budget=1000.0)
    (one,) = runner.blocks
    other = msgspec.structs.replace(one, name="other/1", benchmark="other", least=8)
    runner.judge, runner.blocks, runner.first = judge, [one, other], frozenset(first)
    runner.active = {block.name: block for block in runner.blocks}
    runner.kernels["other"], runner.benchmarks["other"] = runner.kernels[one.benchmark], runner.benchmarks[one.benchmark]
    runner.costs = dict.fromkeys(runner.active, 1.0)
    runner.run()
    order = [trial.block for trial in trials_of(path)]
    assert Counter(order) == {one.name: 32, "other/1": 32}
    assert (order[:8] == ["other/1"] * 8) == bool(before) and one.name in order[before : before + 8]
    assert judge.asked[0] == ((8, {"other"}) if before else (5, {"other", one.benchmark}))


@pytest.mark.parametrize(
    ("disturbed", "reason", "plan", "rounds"),
    [
        (9, "run_delay", {}, 2),
        (7, "gaps", {}, 5),
        (5, "run_delay", {}, None),
        (9, "pages", {}, None),
        (9, "gaps", {"processes": 6}, None),
    ],
)
def test_a_machine_that_is_too_busy_ends_the_run_by_the_first_look(scene, disturbed, reason, plan, rounds):
    """Of ten samples so many have this reason: after the first 40 in the worst case."""
    busy = rounds is not None

    class Disturbed(FakeExecutor):
        def execute(self, job: Job, timeout: float) -> Outcome:
            outcome = super().execute(job, timeout)
            taken = [event for event in outcome.events if isinstance(event, Took)]
            marked = [
                Took(sample=set_aside(event.sample, reason)) if number % 10 < disturbed else event
                for number, event in enumerate(taken)
            ]
            return Outcome([*marked, outcome.events[-1]])

    runner, path = scene(Disturbed(sd=0.5), **plan)
    end = runner.run()
    assert (end.status == "busy") == busy and (not busy or max(t.process for t in trials_of(path)) == rounds - 1)
    if busy:
        assert set(end.cells["why"].values()) == {"the CPUs were not free"}
        runner.journal.close()
        again, path = scene(FakeExecutor(sd=0.5), trials=runner.trials)
        assert again.run().status == "complete" and max(t.process for t in trials_of(path)) >= rounds


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"time_per_operation": -25102.2}, "physics:time per operation of -2.51e+04"),
        ({"fairness": 1.3}, "physics:fairness of 1.3"),
        ({"fairness": 1 + 1e-12, "time_per_operation": 0.0}, ""),
    ],
)
def test_a_value_that_cannot_be_makes_its_sample_wrong(scene, metrics, reason):
    class Wrong(FakeExecutor):
        def execute(self, job: Job, timeout: float) -> Outcome:
            outcome = super().execute(job, timeout)
            next(event for event in outcome.events if isinstance(event, Took)).sample.metrics.update(metrics)
            return outcome

    runner, path = scene(Wrong(sd=0.5), processes=1)
    runner.run()
    first, *others = trials_of(path)[0].samples
    assert first.reasons == ((reason,) if reason else ()) and first.valid != bool(reason) and all(s.valid for s in others)


def test_a_run_that_used_its_budget_up_says_so(scene):
    """A worker begins no case after the budget's end: the last process may be cut short."""
    now = [0.0]
    executor = FakeExecutor(sd=0.0005, tick=lambda: now.__setitem__(0, now[0] + 30.0))
    runner, _ = scene(executor, clock=lambda: now[0], budget=29.0, processes=1)
    assert runner.run().status == "budget" and executor.jobs[0].until - executor.jobs[0].spawned == pytest.approx(29.0)


def test_a_crash_costs_its_case_and_no_other(scene):
    executor = FakeExecutor(sd=0.0005, faults={1: "crashed: killed by SIGSEGV"})
    runner, path = scene(executor)
    runner.run()
    first = trials_of(path)[0]
    crashed = executor.jobs[0].cases[2].case
    assert first.status == "failed" and f"SIGSEGV in case {crashed}" in first.reasons[0]
    assert {s.case for s in first.samples} == {c.case for c in executor.jobs[0].cases} - {crashed}
    assert trials_of(path)[1].status == "ok"


def test_crash_after_crash_is_given_up(scene):
    executor = FakeExecutor(faults=dict.fromkeys((1, 2, 3), "timeout: neither a sample nor the end within 30 s"))
    runner, path = scene(executor, processes=1)
    end = runner.run()
    assert len(executor.jobs) == 3 and trials_of(path)[0].status == "failed"
    assert "too few processes with valid samples at one distance" in end.cells["why"].values()


class Patient(FakeExecutor):
    """Keeps how long each process might have taken."""

    def execute(self, job: Job, timeout: float) -> Outcome:
        self.timeouts = [*getattr(self, "timeouts", []), timeout]
        return super().execute(job, timeout)


@pytest.mark.parametrize(("each", "least"), [(1.0, 30.0), (50.0, 100.0)])
def test_a_process_of_many_threads_may_take_longer(scene, monkeypatch, each, least):
    """Two threads here; 32 on an emulated machine took longer than the 30 s after which any process was ended."""
    monkeypatch.setattr("numabench.measure.runner.TIMEOUT_A_THREAD", each)
    executor = Patient()
    scene(executor, processes=1, budget=1000.0)[0].run()
    assert max(len(case.cpus) for case in executor.jobs[0].cases) == 2
    assert executor.timeouts and set(executor.timeouts) == {least}


class Mute(FakeExecutor):
    """Its processes end before their first case, the first `until` of them."""

    def __init__(self, until: int):
        super().__init__()
        self.until = until

    def execute(self, job: Job, timeout: float) -> Outcome:
        told = super().execute(job, timeout)
        return Outcome([], "crashed: exit code 1: no luck") if len(self.jobs) <= self.until else told


def test_a_block_whose_processes_say_nothing_is_given_up_after_two(scene):
    executor = Mute(1000)
    runner, path = scene(executor)
    end = runner.run()
    assert len(executor.jobs) == 2 and end.status == "complete"
    (trial,) = trials_of(path)
    assert trial.status == "failed" and trial.reasons == ("crashed: exit code 1: no luck",) * 2
    assert set(end.cells["why"].values()) == {"it failed (the log's trials say how)"}


def test_a_look_at_nothing_that_is_left_ends_the_run(scene):
    """The only block falls silent in the process before the first look."""

    class Later(FakeExecutor):
        def execute(self, job: Job, timeout: float) -> Outcome:
            outcome = super().execute(job, timeout)
            return outcome if len(self.jobs) < 5 else Outcome([], "crashed: exit code 1: no luck")

    runner, path = scene(Later(sd=0.5))
    assert runner.run().status == "complete" and [t.process for t in trials_of(path)] == list(range(5))


def test_a_process_that_says_nothing_once_costs_no_case(scene):
    executor = Mute(1)
    runner, path = scene(executor, processes=5)
    runner.run()
    assert len(executor.jobs) == 6 and [t.process for t in trials_of(path)] == list(range(5))
    assert all(len(t.samples) == len(trials_of(path)[1].samples) for t in trials_of(path))


def test_ctrl_c_keeps_all_but_the_trial_in_flight(scene):
    runner, path = scene(FakeExecutor(faults={4: KeyboardInterrupt}))
    end = runner.run()
    assert end.status == "interrupted" and [t.process for t in trials_of(path)] == [0, 1, 2]


def test_a_resumed_run_measures_only_what_is_missing(scene):
    first, path = scene(FakeExecutor(faults={4: KeyboardInterrupt}))
    first.run()
    first.journal.close()
    executor = FakeExecutor()
    second, _ = scene(executor, trials=trials_of(path))
    second.run()
    processes = [t.process for t in trials_of(path)]
    assert processes == list(range(8)) and len(executor.jobs) == 5


def test_disturbed_samples_are_marked_and_kept(scene):
    class Disturbing(FakeExecutor):
        def execute(self, job, timeout):
            outcome = super().execute(job, timeout)
            outcome.events = [
                msgspec.structs.replace(e, sample=msgspec.structs.replace(e.sample, valid=False, reasons=("switched",)))
                if isinstance(e, Took) and e.sample.index == 0
                else e
                for e in outcome.events
            ]
            return outcome

    runner, path = scene(Disturbing(), processes=2)
    runner.run()
    trial = trials_of(path)[0]
    assert trial.status == "disturbed" and trial.reasons == ("switched",) and len(trial.samples) % 3 == 0


def test_the_remaining_time_is_within_the_budget_and_falls(scene):
    seen = []
    now = [0.0]
    runner, _ = scene(FakeExecutor(sd=0.0005, tick=lambda: now.__setitem__(0, now[0] + 1.0)), clock=lambda: now[0])

    class Watch(Progress):
        def finished(self, block, trial, remaining):
            seen.append(remaining)

    runner.progress = Watch()
    runner.run()
    assert all(0 <= s <= runner.plan.budget for s in seen) and seen == sorted(seen, reverse=True)


def test_the_log_of_a_run_needs_its_header(scene):
    runner, path = scene(FakeExecutor(), processes=1)
    runner.run()
    with pytest.raises(Exception, match="no run log header"):
        load(path)


class Single(FakeExecutor):
    """Single loads of which a share took under half of the mean; of the second sample of a case none was timed."""

    def execute(self, job: Job, timeout: float) -> Outcome:
        outcome = super().execute(job, timeout)
        for event in outcome.events:
            if isinstance(event, Took):
                for name in METRICS:
                    event.sample.metrics.pop(name)
                event.sample.metrics.update(latency=100.0, cycles=300.0)
                if event.sample.index != 1:
                    event.sample.extra["under_half"] = 0.31
        return outcome


def test_samples_that_caches_answer_for_are_marked_and_kept(tmp_path):
    asked = Request(benchmarks=("memory_latency",), profile="quick", settings=("order=group,adjacent",), processes=1)
    visit = Visit(asked)
    visit.measure(tmp_path / "log.jsonl", judge, executor=Single())
    samples = [s for t in load(tmp_path / "log.jsonl").trials for s in t.samples]
    memory = max(s.parameters["size"] for s in samples)
    for sample in samples:
        called_memory = sample.parameters["size"] == memory and sample.parameters["order"] == "group"
        wanted = ("cached",) if called_memory and sample.index != 1 else ()
        assert sample.reasons == wanted and sample.valid == (not wanted)
    assert {s.valid for s in samples} == {True, False} and {s.parameters["order"] for s in samples} == {"group", "adjacent"}
