"""The process that measures: one block of cases, each sample with its proof. Forked by forks.py.

Imports the standard library, ctypes and msgspec alone: numpy and its like cost start-up time and bring threads and
heaps that disturb what is measured. Whatever happens goes out as one JSON line per event.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import math
import os
import sys
import time
from collections.abc import Collection, Sequence

# msgspec takes typing_extensions where it finds it and does without it otherwise: it would double this process's start.
sys.modules.setdefault("typing_extensions", None)

import msgspec

from .. import kernel as abi
from ..benchmarks import Benchmark, Found, Probes
from ..errors import MachineError, NumabenchError
from ..host.counters import machine_counters
from ..host.memory import BIND, NOT_TOLD, Buffer, place_by
from ..host.pages import BASE
from ..host.placement import prefer_node
from ..model import MemoryProof, Sample, ThreadProof, together
from ..runlog.rounds import LEAST, pack, shape
from .clock import Clock
from .crew import SENTINELS, Brought, Crew, Step
from .protocol import Began, CaseFailed, Companion, Done, Event, Job, JobCase, Took, TookRound, decode_job, encode

# Thresholds of a valid sample (METHODOLOGY.md, "Every sample proves itself").
LEAST_OVERLAP = 0.95
HOP_CHANGE = 1.25  # between before and after: the CPUs were moved (the classes seen are 2.7 and 4 apart)
WIDTH_CHANGE = 1.4  # a sibling took half of the core, or went
FREQUENCY_CHANGE = 1.03  # two probes a millisecond apart differ by over 1 % in a quarter of cases on a virtual machine at rest
GAP_SHARE = 0.02  # of the window lost in interruptions that the kernel's batches show
DELAY_SHARE = 0.01  # of the window spent waiting for the CPU: an involuntary switch that costs less does no harm
DELAY_SHARE_SLEEPING = 0.05  # where threads sleep by design, each wake-up waits a little

KEPT_FROM = 16 << 20  # bytes: page colours matter in caches, so that small memory is fresh for every case
LEAST_THREADS = (
    2  # glibc leaves the atomic operations of a mutex out while a process has one thread: 326 instead of 78 million a second
)
STATE, WORK, INTERRUPT = "state", "work", "interrupt"  # probes, as in kernels/sentinel.c
PROBES = {STATE: 0.0002, WORK: 0.0003, INTERRUPT: 0.0}  # windows in s: ten batches and more, of which the fastest counts
UNKNOWN = Probes(frequency=float("nan"))  # what arguments may not depend on where no price of work is asked for
SENTINEL_BATCH, SENTINEL_BATCHES = 20e-6, 15
CLOCK_COST_SLOT, CLOCK_STEP_SLOT = 4, 5  # as in kernels/sentinel.c
HOP_BATCHES, HOP_WAYS, HOP_FIRST, HOP_LAST = 5, 400, 4, 9  # as in kernels/sentinel.c: 200 round trips are 400 ways
WIDTH_SLOT, WIDTH_OPERATIONS = 14, 1024 * 64
INTERRUPT_SLOT = 4


def emit(event: Event) -> None:
    os.write(1, encode(event) + b"\n")


class Worker:
    """Executes one job."""

    def __init__(self, job: Job):
        self.job, self.timing = job, job.timing
        self.benchmark: Benchmark = importlib.import_module(job.benchmark).BENCHMARK
        self.kernel, self.sentinel = abi.Kernel(job.kernel), abi.Kernel(job.sentinel)
        self.crew = Crew(max(LEAST_THREADS, *(len(case.cpus) for case in job.cases)), job.crew)
        self.hop_page: Buffer | None = None
        self.buffer: Buffer | None = None  # measured memory, and memory that only the preparation needs
        self.scratch: Buffer | None = None
        self.prepared: tuple | None = None  # what they are prepared for, where other cases can use them as they are
        self.kept: dict[str, Buffer] = {}  # by role: large memory, of which the cases that follow may take the beginning
        self.startup, self.measured = 0.0, 0.0
        self.clock: Clock | None = None  # until the first case is placed
        for member in range(self.crew.size):
            self.crew.block(member, SENTINELS).cursor = 1  # multiplies of nothing are those of no other number on some processors

    def run(self) -> None:
        cpus = {cpu for case in self.job.cases for cpu in case.cpus}
        before = machine_counters(cpus)
        for case in self.job.cases:
            if time.clock_gettime(time.CLOCK_MONOTONIC) > self.job.until:
                break
            emit(Began(case=case.case))
            self.attempt(case)
        after = machine_counters(cpus)
        emit(
            Done(
                startup=self.startup,
                measured=self.measured,
                clock={"cost": self.clock.cost, "step": self.clock.step} if self.clock else {},
                interference={k: after[k] - before[k] for k in after if k in before},
            )
        )

    def attempt(self, case: JobCase) -> None:
        """Measure a case, or of a round what is left where a CPU has gone; what cannot be measured is said."""
        try:
            self.measure(case)
        except NumabenchError as error:
            left = without(case, self.crew.lost)
            kept = {one.case for one, _ in alone(left)} if left else set()
            for one, _ in alone(case):
                if one.case not in kept:
                    emit(CaseFailed(case=one.case, reason=str(error)))
            if left:
                self.attempt(left)

    # -- one case ---------------------------------------------------------------------------------------------------

    def measure(self, case: JobCase) -> None:
        members = list(range(len(case.cpus)))
        apart = [
            member for member in members if case.cpus.index(case.cpus[member]) == member
        ]  # one on each CPU: sentinels do not share
        self.crew.place(case.cpus, case.groups)
        self.fresh_hop_page(case)  # where a line lives has a distance of its own: one page per case
        self.startup = self.startup or time.clock_gettime(time.CLOCK_MONOTONIC) - self.job.spawned
        self.clock = self.clock or self.read_clock()
        self.clock.refuse_the_worst()
        sentinels = self.sentinels(apart)
        known = self.probes(self.crew.follow(sentinels)) if self.benchmark.needs_work else UNKNOWN
        arguments = self.benchmark.arguments(case.parameters, known) | self.benchmark.seed_argument(case.seed)
        opened = contextlib.ExitStack()
        try:
            self.hand_over(case, opened)
            if not self.prepare(case, arguments, members):
                raise cannot_do(self.kernel.name, case)
            first = self.prove(case), self.hop_page.prove()
            samples = self.benchmark.samples(self.timing.samples)
            window = self.timing.window * self.benchmark.stretch(case.parameters)
            self.load(self.buffer, self.scratch, arguments, window, self.benchmark.batches * self.timing.batch)
            self.crew.case.phase = abi.MEASURE
            turn = [Step(self.kernel, self.crew.case, members), *sentinels]
            brought = self.crew.follow([*sentinels, *turn * samples])
            if len(brought) < len(turn) * samples + len(sentinels) or abi.UNSUPPORTED in [
                one.status for one in brought[-len(turn)]
            ]:
                raise cannot_do(self.kernel.name, case)
            last = self.prove(case), self.hop_page.prove()
            before = self.probes(brought[: len(sentinels)])
            for index in range(samples):
                entered, *looked = brought[len(sentinels) + index * len(turn) :][: len(turn)]
                after = self.probes(looked)
                proofs, home = last if index == samples - 1 else first
                self.tell(case, index, arguments, list(entered), proofs, home, before, after)
                before = after
        finally:
            opened.close()
            if self.prepared is None:
                self.release()

    def tell(
        self,
        case: JobCase,
        index: int,
        arguments: dict,
        entered: list[Brought],
        proofs: list[MemoryProof],
        home: MemoryProof,
        before: Probes,
        after: Probes,
    ) -> None:
        """Judge what one entry brought, of a round each case by itself, and say so."""
        samples = []
        for (one, members), proof in zip(alone(case), proofs, strict=True):
            found = Found([each.thread for each in entered[members]])
            samples.append(self.judge(one, index, arguments, found, entered[members], (proof, home), before, after))
        if len(samples) >= LEAST and len({*map(shape, samples)}) == 1:
            emit(TookRound(benchmark=self.benchmark.name, round=pack(self.benchmark.name, samples)))
            return
        for sample in samples:
            emit(Took(sample=sample))

    def hand_over(self, case: JobCase, opened: contextlib.ExitStack) -> None:
        """Open what the kernel reads, writes and waits for in this case. What the system refuses is the case's failure."""
        try:
            descriptors = self.benchmark.descriptors(case.parameters, opened)
        except OSError as error:
            raise MachineError(
                f"{self.kernel.name}: {error.strerror or error}", "see the benchmark's page for what it needs"
            ) from error
        for slot in range(abi.DESCRIPTORS):
            self.crew.case.descriptor[slot] = descriptors[slot] if slot < len(descriptors) else -1

    def prepare(self, case: JobCase, arguments: dict, members: list[int]) -> bool:
        """Memory as the case needs it: that of the case before, where it was prepared alike; False where the kernel cannot."""
        wanted = self.benchmark.preparation(case.parameters)
        if wanted is not None:
            wanted = (*wanted, case.cpus, case.node, case.parts, case.policy, case.size, case.page_size)
            if wanted == self.prepared:
                return True
        self.release()
        asked = (case.page_size, case.node, case.parts, case.policy)
        alike = [c.size for c in self.job.cases if (c.page_size, c.node, c.parts, c.policy) == asked]
        self.buffer = self.take("buffer", max([case.size, *alike]), case.size, *asked)
        self.scratch = self.take("scratch", max(c.scratch for c in self.job.cases), max(case.scratch, 1))
        self.load(self.buffer, self.scratch, arguments, self.timing.window, self.benchmark.batches * self.timing.batch)
        for member in members:
            block = self.crew.blocks[member]
            block.executed = block.cursor = 0
        if abi.UNSUPPORTED in [e.status for e in self.crew.enter(self.kernel, abi.PREPARE, members)]:
            return False
        self.prepared = wanted
        return True

    def prove(self, case: JobCase) -> list[MemoryProof]:
        """Where the memory of the case is, or the part of each of a round."""
        if not case.company or not self.buffer.parts:
            return [self.buffer.prove()] * (len(case.company) or 1)
        return self.buffer.prove_parts()

    def take(
        self,
        role: str,
        largest: int,
        size: int,
        page_size: str = "4k",
        node: int | None = None,
        parts: tuple[int, ...] = (),
        policy: str = "bind",
    ) -> Buffer:
        """Memory as asked for (see `Buffer`). Mapping and zeroing large one takes most of its time: it is the beginning of one of `largest`
        bytes, which the cases that follow go on with."""
        if size < KEPT_FROM:
            return Buffer(size, page_size, node, parts, policy)
        if role not in self.kept or not self.kept[role].serves(size, page_size, node, parts, policy):
            if role in self.kept:
                self.kept.pop(role).close()
            try:
                self.kept[role] = Buffer(size if parts else largest, page_size, node, parts, policy)
            except MachineError:  # there may be room for this case all the same
                self.kept[role] = Buffer(size, page_size, node, parts, policy)
        return self.kept[role].beginning(size)

    def release(self) -> None:
        self.prepared = None
        for memory in (self.buffer, self.scratch):
            if memory:
                memory.close()
        self.buffer = self.scratch = None

    def load(
        self,
        buffer: Buffer,
        scratch: Buffer | None,
        arguments: dict,
        window: float,
        batch: float,
        kernel: abi.Kernel | None = None,
        block: abi.CaseBlock | None = None,
    ) -> None:
        """Fill in the settings of an entry; a slow clock makes batches and windows longer."""
        if self.clock:
            window, batch = self.clock.suit(window, batch, *(() if kernel is None else (SENTINEL_BATCHES,)))
        block = block or self.crew.case
        block.buffer, block.buffer_bytes = buffer.address, buffer.size
        block.scratch, block.scratch_bytes = (scratch.address, scratch.size) if scratch else (0, 0)
        block.window_ns, block.batch_ns = int(window * 1e9), int(batch * 1e9)
        block.warmup_ns = int(self.timing.warmup * 1e9) if kernel is None else 0
        for slot, value in enumerate((kernel or self.kernel).encode(arguments)):
            block.parameter[slot] = value

    # -- sentinels --------------------------------------------------------------------------------------------------

    def fresh_hop_page(self, case: JobCase) -> None:
        if self.hop_page:
            self.hop_page.close()
        self.hop_page = None  # a failure below must not leave the closed page
        self.hop_page = Buffer(4096, "4k", case.node)
        ctypes.memset(self.hop_page.address, 0, 1)

    def sentinels(self, members: list[int]) -> list[Step]:
        """The entries that show what the CPUs are like: their state, and what else the benchmark asks for."""
        blocks = self.crew.cases[1:]
        return [
            self.sentinel_step(probe, PROBES[probe], members, block) for probe, block in zip(self.asked(), blocks, strict=False)
        ]

    def asked(self) -> list[str]:
        """The probes in their order."""
        wanted = {WORK: self.benchmark.needs_work, INTERRUPT: self.benchmark.needs_interrupt}
        return [STATE, *(probe for probe, asked in wanted.items() if asked)]

    def sentinel_step(self, probe: str, window: float, members: list[int], block: abi.CaseBlock) -> Step:
        self.load(self.hop_page, None, {"probe": probe, "longer": self.longer}, window, SENTINEL_BATCH, self.sentinel, block)
        block.phase = abi.MEASURE
        return Step(self.sentinel, block, members, SENTINELS)

    def read_clock(self) -> Clock:
        """What it takes to read the time on the first CPU."""
        ((brought,),) = self.crew.follow([self.sentinel_step("time", 0.0, [0], self.crew.cases[1])])
        found = brought.thread.value
        return Clock(cost=found[CLOCK_COST_SLOT] * 1e-12, step=found[CLOCK_STEP_SLOT] * 1e-9)

    @property
    def longer(self) -> int:
        """How many times as many turns and round trips as usual a sentinel makes, so that they take as long as its batches."""
        return max(1, math.ceil(self.clock.least_batch / SENTINEL_BATCH)) if self.clock else 1

    def probes(self, brought: list[ctypes.Array[Brought]]) -> Probes:
        """Clock rate of the slowest core by its fastest batch, width of the widest, hop of the farthest pair probed, prices of a multiply and of an interrupt if asked.

        The widest: siblings of one core are all narrow, while an unseen neighbour makes one thread narrow.
        """
        blocks = [one.thread for one in brought[0]]
        frequency = 1e9 / max(abi.fastest_batch(block) for block in blocks)
        slots = [HOP_FIRST, HOP_LAST][: min(len(blocks) - 1, 2)]
        ways, turns = HOP_WAYS * self.longer, WIDTH_OPERATIONS * self.longer
        hops = [sorted(blocks[0].value[slot : slot + HOP_BATCHES])[HOP_BATCHES // 2] / ways * 1e-9 for slot in slots]
        also = dict(zip(self.asked(), brought, strict=True))
        multiply = max(abi.fastest_batch(one.thread) for one in also[WORK]) * 1e-9 if WORK in also else 0.0
        call = also[INTERRUPT][0].thread.value[INTERRUPT_SLOT] * 1e-9 if INTERRUPT in also and len(blocks) > 1 else 0.0
        width = turns / (min(block.value[WIDTH_SLOT] for block in blocks) * 1e-9 * frequency)
        return Probes(frequency=frequency, multiply=multiply, hop=max(hops, default=None), width=width, interrupt=call or None)

    # -- judging one sample -----------------------------------------------------------------------------------------

    def judge(
        self,
        case: JobCase,
        index: int,
        arguments: dict,
        found: Found,
        entries: Sequence[Brought],
        memory: tuple[MemoryProof, MemoryProof],
        before: Probes,
        after: Probes,
    ) -> Sample:
        """The sample with its metrics and proofs; `memory` is that of the measured buffer and of the hop's page."""
        around = before.mean(after)
        start = min(block.begin_ns for block in found.threads)
        threads = tuple(
            ThreadProof(
                cpu=cpu,
                cpu_begin=b.cpu_begin,
                cpu_end=b.cpu_end,
                begin=(b.begin_ns - start) * 1e-9,
                end=(b.end_ns - start) * 1e-9,
                operations=b.operations,
                switches=e.switches,
                faults=e.faults,
                run_delay=waited(b),
                gaps=b.gaps,
                gap_time=b.gap_ns * 1e-9,
            )
            for cpu, b, e in zip(case.cpus, found.threads, entries, strict=True)
        )
        overlap = together([t.end for t in threads], [t.begin for t in threads])
        self.measured += self.benchmark.windows * max(t.end for t in threads)
        crowded = len(set(case.cpus)) < len(case.cpus)  # waiting for the CPU is then what is measured
        waiters, mediated = self.benchmark.waiters(case.parameters), self.benchmark.mediated(case.parameters)
        reasons = [*self.thread_reasons(threads, crowded, waiters), *memory_reasons(*memory)]
        reasons += probe_reasons(before, after, clock=self.benchmark.judges_clock, distance=not mediated)
        if self.benchmark.judges_overlap and overlap < LEAST_OVERLAP and not crowded:
            reasons.append("overlap")
        if complaint := self.benchmark.check(case.parameters, found):
            reasons.append(f"check:{complaint}")
        metrics = self.benchmark.metrics(case.parameters, found, around)
        reported = set(self.benchmark.reports or self.kernel.metrics)
        if not metrics or not set(metrics) <= reported:  # a case may have no thread of some kind, and no figure of it
            raise AssertionError(f"{case.case}: metrics {sorted(metrics)} are not among those declared, {sorted(reported)}")
        within = {name: value for name, value in metrics.items() if value != float("inf")}
        if len(within) < len(
            metrics
        ):  # beyond the end of a histogram: left out, since no value would be true and JSON has no infinity
            metrics, reasons = within, [*reasons, "clipped"]
        if complaint := self.benchmark.physics(case.parameters, metrics):
            reasons.append(f"physics:{complaint}")
        reasons += self.benchmark.doubts(case.parameters, found, metrics, around)
        return Sample(
            case=case.case,
            index=index,
            parameters=case.parameters,
            metrics=metrics,
            valid=not reasons,
            reasons=tuple(dict.fromkeys(reasons)),
            threads=threads,
            memory=memory[0],
            overlap=overlap,
            start_skew=max(t.begin for t in threads),
            hop=(before.hop, after.hop) if before.hop and after.hop and not (case.company or mediated) else None,
            frequency=(before.frequency, after.frequency),
            width=(before.width, after.width),
            extra={**self.benchmark.extra(arguments, around, found), **price_of_interrupt(around)},
        )

    def thread_reasons(self, threads: tuple[ThreadProof, ...], crowded: bool = False, waiters: Collection[int] = ()) -> list[str]:
        reasons, longest = [], max(t.end for t in threads)
        for index, t in enumerate(
            threads
        ):  # one that starves may have begun at the end; what it waited for its CPU is then held against the window of all
            window = t.end - t.begin if self.benchmark.judges_overlap else longest
            if t.cpu_begin != t.cpu or t.cpu_end != t.cpu:
                reasons.append("cpu_moved")
            if self.benchmark.judges_gaps and t.gap_time > GAP_SHARE * window:
                reasons.append("gaps")
            if (
                self.benchmark.judges_delay
                and not crowded
                and index not in waiters
                and (t.run_delay or 0.0) > (DELAY_SHARE_SLEEPING if self.benchmark.may_sleep else DELAY_SHARE) * window
            ):
                reasons.append("run_delay")
        return reasons


def price_of_interrupt(around: Probes) -> dict[str, float]:
    """ns of a call that interrupts the other CPUs, where it was probed: what the kernel does to others is held against it, as what lines cost is against the hop."""
    return {"interrupt_ns": around.interrupt * 1e9} if around.interrupt else {}


def waited(block: abi.ThreadBlock) -> float | None:
    """Seconds that a thread waited for its CPU inside its window; None where the kernel does not say."""
    return None if block.schedstat < 0 else block.run_delay_ns * 1e-9


def alone(case: JobCase) -> list[tuple[JobCase, slice]]:
    """Each case of a round as if it were the only one, and which of the threads are its own."""
    ones = case.company or (case,)
    share = len(case.cpus) // len(ones)
    threads = [slice(k * share, (k + 1) * share) for k in range(len(ones))]
    return [
        (msgspec.structs.replace(case, case=one.case, parameters={**case.parameters, **one.parameters}, cpus=case.cpus[own]), own)
        for one, own in zip(ones, threads, strict=True)
    ]


def without(case: JobCase, lost: frozenset[int]) -> JobCase | None:
    """A round without the cases that need one of these CPUs; None where it would be the same, or nothing is left."""
    ones = alone(case)
    kept = [k for k, (one, _) in enumerate(ones) if not lost & {*one.cpus}]
    if not kept or len(kept) == len(ones):
        return None
    first = ones[kept[0]][0]
    nodes = tuple(case.parts[k] for k in kept) if case.parts else ()
    return msgspec.structs.replace(
        case,
        case=first.case,
        parameters=first.parameters,
        cpus=tuple(cpu for k in kept for cpu in ones[k][0].cpus),
        groups=tuple(group for k in kept for group in case.groups[ones[k][1]]),
        node=nodes[0] if nodes else case.node,
        size=case.size // len(ones) * len(kept),
        parts=nodes if len(kept) > 1 else (),
        company=tuple(Companion(case=ones[k][0].case, parameters=ones[k][0].parameters) for k in kept) if len(kept) > 1 else (),
    )


def cannot_do(kernel: str, case: JobCase) -> MachineError:
    return MachineError(
        f"kernel {kernel} cannot do {case.parameters} on this machine", "see the kernel's source for what it needs"
    )


def memory_reasons(*proofs: MemoryProof) -> list[str]:
    """`pages`: some of the memory is not on the node that it was to be on, was never touched, or is huge pages where base pages were asked for."""
    return ["pages"] if any(misplaced(proof) or overgrown(proof) for proof in proofs) else []


def misplaced(proof: MemoryProof) -> bool:
    wanted = proof.node is not None or bool(proof.parts)
    return proof.misplaced > 0 or (wanted and not proof.pages and proof.by != NOT_TOLD)


def overgrown(proof: MemoryProof) -> bool:
    """The other way round is no reason: huge pages are a wish, and what was obtained is recorded."""
    return proof.page_size == BASE and bool(proof.huge_bytes)


def probe_reasons(before: Probes, after: Probes, clock: bool = True, distance: bool = True) -> list[str]:
    """What the probes around a sample say against it, of its `clock` and its `distance`, where these are judged."""
    reasons = []
    if clock and changed(before.frequency, after.frequency, FREQUENCY_CHANGE):
        reasons.append("frequency_changed")
    if (
        distance
        and before.hop
        and after.hop
        and (changed(before.hop, after.hop, HOP_CHANGE) or changed(before.width, after.width, WIDTH_CHANGE))
    ):
        reasons.append("distance_changed")
    return reasons


def changed(a: float, b: float, factor: float) -> bool:
    return max(a, b) > factor * min(a, b)


def main() -> None:
    job = decode_job(sys.stdin.buffer.read())
    place_by(job.placing)
    if job.placing.how == BIND and job.home is not None:  # else memory is near where a process starts, or there is one memory
        prefer_node(job.home)
    gc.disable()  # a collection inside a window would stop a thread for milliseconds
    Worker(job).run()
