"""Executes a plan: rounds of one process per block, looks at planned counts, everything journalled as it comes."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from statistics import median
from typing import Protocol

import msgspec

from .. import kernel as abi
from ..benchmarks import Benchmark, memory_node
from ..errors import NumabenchError
from ..host.topology import Topology
from ..model import BenchmarkRecord, EndRecord, Sample, TrialRecord, case_hash
from ..runlog import utc_now
from ..runlog.write import Journal
from .executor import Executor, Outcome
from .plan import Block, Plan, job_cases
from .protocol import Job

BUSY_SHARE = 0.6  # of samples in which a thread had to wait for its CPU: a run is given up
BUSY_ROUND, BUSY_LEAST = 0.8, 40  # after any round before the first look, of so many samples: nobody waits for nothing
WAITED = frozenset(("run_delay", "gaps"))
HOPELESS = 4.0  # times the last look: a cell that would need more processes is given up, so that others get its time
HOPELESS_FROM = 12  # processes that such a judgement needs
UNFINISHED = {"interrupted": "the run was interrupted", "busy": "the CPUs were not free"}
DEARER = 4.0  # times what a process of another block takes: that one's are kept room for first
RETRIES = 2  # more processes for what a crashed one had not reached
GIVE_UP_AFTER = 2  # failures of a case; processes of a block that ended without a word
TIMEOUT_FACTOR, TIMEOUT_LEAST = (
    10.0,
    30.0,
)  # of the expected time: where a process says nothing for so long, it hangs and is killed
TIMEOUT_A_THREAD = 4.0  # s at least for each of them: where processors are emulated, or shared with many, threads take turns
TIMEOUT_SLACK = 5.0  # s that a process may run over the budget

#: Blocks to add to those planned, by the trials of a look, and the records that then describe their benchmarks.
Refiner = Callable[[Iterable[TrialRecord]], tuple[list[Block], list[BenchmarkRecord]]]


class Judge(Protocol):
    """What all trials of the session so far say."""

    def widths(self, trials: Iterable[TrialRecord]) -> dict[str, float]:
        """Relative half-widths by case; infinite while a case has too few processes."""
        ...

    def open_answers(self, trials: Iterable[TrialRecord], names: Collection[str]) -> dict[str, int]:
        """How many of their first questions are open, for those of these benchmarks that have such."""
        ...


class NoJudge:
    """Knows nothing: every cell is measured until the budget or the looks are used up."""

    def widths(self, trials: Iterable[TrialRecord]) -> dict[str, float]:
        return {}

    def open_answers(self, trials: Iterable[TrialRecord], names: Collection[str]) -> dict[str, int]:
        return {}


class Progress:
    """What a run tells while it goes on; does nothing by itself."""

    def described(self, records: Sequence[BenchmarkRecord]) -> None:
        """Before the first process: what will be measured, with the units of its metrics."""

    def left_out(self, what: str) -> None: ...

    def started(self, block: Block, process: int) -> None: ...

    def finished(self, block: Block, trial: TrialRecord, remaining: float) -> None: ...

    def looked(self, widths: dict[str, float]) -> None:
        """After a look: relative half-widths by case, as far as they are known."""


class Runner:
    """One visit to a machine. `trials` holds what the session has, including what a resumed log already had."""

    def __init__(
        self,
        plan: Plan,
        topology: Topology,
        kernels: dict[str, abi.Build],
        benchmarks: dict[str, Benchmark],
        executor: Executor,
        journal: Journal,
        judge: Judge,
        run: str,
        session: str,
        progress: Progress | None = None,
        trials: Iterable[TrialRecord] = (),
        refine: Refiner | None = None,
        clock: Callable[[], float] = time.monotonic,
        first: Collection[str] = (),
    ):
        """`first`: benchmarks whose questions come before those of the others."""
        self.plan, self.topology, self.kernels, self.benchmarks = plan, topology, kernels, benchmarks
        self.executor, self.journal, self.judge = executor, journal, judge
        self.run_id, self.session, self.progress, self.clock = run, session, progress or Progress(), clock
        self.trials, self.refine = list(trials), refine
        self.first, self.resumed = frozenset(first), bool(self.trials)
        self.blocks = list(plan.blocks)
        self.active = {block.name: block for block in plan.blocks}
        self.reached: dict[str, float] = {}
        self.open: dict[str, int] | None = None  # benchmark -> open answers at the last look; None before it
        self.done: set[str] = set()  # benchmarks whose answers were settled at a look
        self.settled: set[str] = set()  # these, and those that more processes do not help: they get what the others leave
        self.failures: Counter[str | None] = Counter()
        self.silent: Counter[str] = Counter()  # by block: processes that ended before their first case
        self.measured = 0.0
        self.costs = {block.name: block.seconds for block in plan.blocks}
        self.began = clock()

    def run(self) -> EndRecord:
        """Measure until every cell is precise, the looks or the budget are used up, the machine proves too busy, or Ctrl-C. Returns the end record."""
        try:
            status = "busy" if self.ask_first() else self.ask_all()
        except KeyboardInterrupt:
            status = "interrupted"
        end = self.end(status)
        self.journal.append(end)
        return end

    def ask_all(self) -> str:
        """Round after round of what is active; how it ended."""
        status = "complete"
        for process in range(self.plan.looks[-1]):
            fitted, lacking = self.round(process, self.active.values())
            if lacking or self.left() <= 0:
                status = "budget"
            if not fitted:
                break
            self.look(process + 1)
            if self.too_busy(process + 1):
                return "busy"
            if not self.active:
                break
        return status

    def ask_first(self) -> bool:
        """What `first` can be judged by, before anything else; whether the CPUs prove too busy."""
        blocks = [block for block in self.active.values() if block.benchmark in self.first]
        least = min(max((block.least for block in blocks), default=0), self.plan.looks[-1])
        for process in range(least):
            self.round(process, [block for block in blocks if process < block.least and block.name in self.active])
            if self.too_busy(process + 1):
                return True
        if blocks and len(blocks) < len(self.active):
            self.settle(least, [block for block in blocks if block.name in self.active])
        return False

    def round(self, process: int, blocks: Collection[Block]) -> tuple[int, int]:
        """One process of each of these blocks, in an order of its own; for how many of them the budget had room, and for how many it had none. Blocks that wait for others count as neither."""
        blocks = random.Random(f"{self.plan.seed}/{process}").sample(list(blocks), len(blocks))
        recorded = {(t.block, t.process) for t in self.trials}
        fitted = lacking = 0
        for block in blocks:
            if (block.name, process) not in recorded:
                if self.left() < self.costs[block.name] + self.owed(block, lambda other: other.least):
                    lacking += 1
                    continue
                if block.benchmark in self.settled and self.left() < self.costs[block.name] + self.owed(block, self.wanted):
                    continue
                self.process(block, process)
            fitted += 1
        return fitted, lacking

    def wanted(self, block: Block) -> int:
        """Processes that come before any more of what is settled."""
        return block.least if block.benchmark in self.settled else self.plan.looks[-1]

    def owed(self, block: Block, processes: Callable[[Block], int]) -> float:
        """Seconds to be kept for the other blocks that have not yet so many processes and still fit: for all of them once this one has those by which it can be judged,
        before that for the cheaper ones, many of which are judged in the time of one that is dear."""
        done, left = Counter(trial.block for trial in self.trials), self.left()
        most = left if done[block.name] >= block.least else min(left, self.costs[block.name] / DEARER)
        others = [(self.costs[name], processes(other) - done[name]) for name, other in self.active.items()]
        return sum(cost * more for cost, more in others if more > 0 and cost <= most)

    def left(self) -> float:
        """Seconds of the budget."""
        return self.plan.budget - (self.clock() - self.began)

    def process(self, block: Block, process: int) -> None:
        """Execute one block, once more for what a crash left over, and journal the trial."""
        able = tuple(case for case in block.cases if self.failures[case.case.hash] < GIVE_UP_AFTER)
        if not able:  # a process of nothing would say that it went well
            del self.active[block.name]
            return
        self.progress.started(block, process)
        started, before = utc_now(), self.clock()
        cases = job_cases(msgspec.structs.replace(block, cases=able), process, self.plan.seed, self.topology)
        outcomes: list[Outcome] = []
        failures: list[str] = []
        while cases and len(outcomes) <= RETRIES and self.silent[block.name] < GIVE_UP_AFTER:
            outcome = self.execute(block, cases)
            outcomes.append(outcome)
            self.silent[block.name] += bool(outcome.failure and not outcome.events)
            failures += [f"{case}: {reason}" for case, reason in outcome.failed_cases.items()]
            self.failures.update(outcome.failed_cases.keys())
            if not outcome.failure:
                break
            failures.append(f"{outcome.failure} in case {outcome.in_flight}" if outcome.in_flight else outcome.failure)
            if outcome.in_flight:
                self.failures[outcome.in_flight] += 1
            over = {s.case for s in outcome.samples} | set(outcome.failed_cases) | {outcome.in_flight}
            cases = tuple(c for c in cases if c.case not in over)
        trial = self.record(block, process, started, self.clock() - before, outcomes, failures)
        self.journal.append(trial)
        self.trials.append(trial)
        self.measured += trial.measured
        if trial.status != "failed":  # a hang says nothing about the next process
            self.costs[block.name] = trial.duration
        if self.silent[block.name] >= GIVE_UP_AFTER:
            del self.active[block.name]
        self.progress.finished(block, trial, self.remaining())

    def execute(self, block: Block, cases: tuple) -> Outcome:
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        job = Job(
            benchmark=self.benchmarks[block.benchmark].module,
            kernel=str(self.kernels[block.benchmark].target),
            sentinel=str(self.kernels["sentinel"].target),
            crew=str(self.kernels["crew"].target),
            cases=cases,
            timing=self.plan.timing,
            home=memory_node(self.topology, self.topology.node_of(cases[0].cpus[0])),
            spawned=now,
            until=now + self.left(),
            placing=self.plan.placing,
        )
        expected = max(block.seconds, self.costs.get(block.name, 0.0))  # what it took before, where that is more than was planned
        threads = max(len(case.cpus) for case in cases)
        patience = max(TIMEOUT_LEAST, TIMEOUT_A_THREAD * threads, TIMEOUT_FACTOR * expected)
        return self.executor.execute(job, min(patience, max(self.left(), expected) + TIMEOUT_SLACK))

    def record(
        self, block: Block, process: int, started: str, duration: float, outcomes: list[Outcome], failures: list[str]
    ) -> TrialRecord:
        samples = self.plausible(block.benchmark, [s for outcome in outcomes for s in outcome.samples])
        dones = [outcome.done for outcome in outcomes if outcome.done]
        reasons = sorted({reason for s in samples for reason in s.reasons})
        status = "failed" if failures else "disturbed" if reasons else "ok"
        interference: dict[str, float] = {}
        for done in dones:
            for name, value in done.interference.items():
                interference[name] = interference.get(name, 0.0) + value
        return TrialRecord(
            run=self.run_id,
            session=self.session,
            benchmark=block.benchmark,
            block=block.name,
            process=process,
            started=started,
            duration=duration,
            startup=sum(d.startup for d in dones),
            status=status,
            reasons=(*failures, *reasons),
            samples=samples,
            interference=interference,
            measured=sum(d.measured for d in dones),
            clock=next((d.clock for d in dones), {}),
        )

    def plausible(self, benchmark: str, samples: list[Sample]) -> tuple[Sample, ...]:
        """The samples of a process; those that are not what they are called, and of cases that cannot be beside its others, are no longer valid."""
        samples = [self.proven(benchmark, sample) for sample in samples]
        cases: dict[str, list[Sample]] = {}
        for sample in samples:
            if sample.valid:
                cases.setdefault(sample.case, []).append(sample)
        found = [
            (each[0].parameters, {name: median(s.metrics[name] for s in each if name in s.metrics) for name in each[0].metrics})
            for each in cases.values()
        ]
        wrong = {
            case_hash(benchmark, p): f"physics:{said}"
            for p, said in self.benchmarks[benchmark].contradictions(found, self.topology)
        }
        return tuple(
            msgspec.structs.replace(s, valid=False, reasons=(*s.reasons, wrong[s.case])) if s.case in wrong else s
            for s in samples
        )

    def proven(self, benchmark: str, sample: Sample) -> Sample:
        asked = self.benchmarks[benchmark]
        reason = asked.unproven(sample.parameters, sample.extra, self.topology) or asked.impossible(sample.metrics)
        if reason:
            return msgspec.structs.replace(sample, valid=False, reasons=(*sample.reasons, reason))
        return sample

    # -- precision --------------------------------------------------------------------------------------------------

    def look(self, processes: int) -> None:
        """At planned counts: drop the groups whose cells all reached the target or cannot."""
        if processes not in self.plan.looks[:-1]:  # after the last one nothing is left to choose
            return
        self.reached = self.judge.widths(self.trials)
        self.progress.looked(self.reached)
        left = self.left()
        if any(self.costs[name] < left for name in self.active):  # looking takes a second or two
            self.settle(processes, self.active.values())
        for name, block in list(self.active.items()):
            wanting = {c.group for c in block.cases if self.worth_measuring(c.case.hash, processes)}
            left = tuple(c for c in block.cases if c.group in wanting)
            if not left:
                del self.active[name]
            elif len(left) < len(block.cases):
                self.active[name] = msgspec.structs.replace(block, cases=left)
                self.costs[name] *= len(left) / len(block.cases)
        if self.refine:
            self.add(*self.refine(t for t in self.trials if t.process < processes))

    def too_busy(self, processes: int) -> bool:
        """Whether, up to the first look, most samples had to share their CPUs: little will be settled, and going on only takes time. Who asked for a number of processes, or resumes, insists."""
        if processes > self.plan.looks[0] or len(self.plan.looks) == 1 or self.resumed:
            return False
        taken = [sample for trial in self.trials for sample in trial.samples]
        if processes < self.plan.looks[0] and len(taken) < BUSY_LEAST:
            return False
        most = BUSY_SHARE if processes == self.plan.looks[0] else BUSY_ROUND
        return sum(not WAITED.isdisjoint(s.reasons) for s in taken) > most * len(taken)

    def settle(self, processes: int, blocks: Collection[Block]) -> None:
        """Which benchmarks of these blocks get what the others leave: all they are asked first is settled, or no more of it than at the look before, which more processes did not help."""
        names = {block.benchmark for block in blocks} - self.done  # looking takes time, and what was settled stays so
        now = self.judge.open_answers(self.trials, names)
        stuck = {
            name for name in names if processes >= HOPELESS_FROM and self.open and now.get(name, 0) >= self.open.get(name, 0)
        }
        self.done |= {name for name in names if not now.get(name)}
        self.settled = self.done | stuck
        self.open = now

    def add(self, blocks: list[Block], records: list[BenchmarkRecord]) -> None:
        """Measure these blocks as well from now on."""
        for record in records:
            self.journal.append(record)
        for block in blocks:
            self.blocks.append(block)
            self.active[block.name] = block
            self.costs[block.name] = block.seconds

    def worth_measuring(self, case: str, processes: int) -> bool:
        """Whether a cell lacks precision that it could still reach."""
        if self.failures[case] >= GIVE_UP_AFTER:
            return False
        width = self.reached.get(case, float("inf"))
        if width <= self.plan.target:
            return False
        unknown = width == float("inf")
        return unknown or processes < HOPELESS_FROM or self.needed(width, processes) <= HOPELESS * self.plan.looks[-1]

    def needed(self, width: float, processes: int) -> float:
        """Processes that a cell would need: widths shrink with their square root."""
        return processes * (width / self.plan.target) ** 2

    def remaining(self) -> float:
        """Expected seconds within the budget: every active block up to the last look.

        Blocks that stop earlier let it fall faster than the clock; it never rises.
        """
        done: dict[str, int] = {}
        for trial in self.trials:
            done[trial.block] = done.get(trial.block, 0) + 1
        wanted = 0.0
        for name in self.active:
            wanted += self.costs[name] * max(0, self.plan.looks[-1] - done.get(name, 0))
        return max(0.0, min(self.left(), wanted))

    def end(self, status: str) -> EndRecord:
        try:
            self.reached = self.judge.widths(self.trials)
        except NumabenchError:
            self.reached = {}
        cases = {c.case.hash: block for block in self.blocks for c in block.cases}
        wanting = {
            case: self.reached.get(case, float("inf"))
            for case in cases
            if not self.reached.get(case, float("inf")) <= self.plan.target
        }
        processes: dict[str, int] = {}
        for trial in self.trials:
            for case in {s.case for s in trial.samples if s.valid}:
                processes[case] = processes.get(case, 0) + 1
        return EndRecord(
            run=self.run_id,
            session=self.session,
            ended=utc_now(),
            status=status,
            measured=self.measured,
            elapsed=self.clock() - self.began,
            cells={
                "total": len(cases),
                "reached": len(cases) - len(wanting),
                "precision_not_reached": {case: width for case, width in wanting.items() if width < float("inf")},
                "why": {
                    case: UNFINISHED[status]
                    if status in UNFINISHED
                    else self.why(case, cases[case], width, processes.get(case, 0), status)
                    for case, width in wanting.items()
                },
            },
        )

    def why(self, case: str, block: Block, width: float, processes: int, status: str) -> str:
        """Why a cell is not precise, as one of few sentences that can be counted."""
        if max(self.failures[case], self.silent[block.name]) >= GIVE_UP_AFTER:
            return "it failed (the log's trials say how)"
        if width == float("inf"):
            return "too few processes with valid samples at one distance"
        if status == "budget" and self.needed(width, processes) <= self.plan.looks[-1]:
            waited = "the answers are settled, and the budget was used up for others"
            return waited if block.benchmark in self.settled else "the budget was used up"
        return f"processes differ too much for {max(processes, self.plan.looks[-1] if status == 'budget' else 0)} of them"
