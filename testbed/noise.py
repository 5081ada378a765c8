"""A cloud guest without a boot: a fake executor, whose samples scatter around given values as those of recorded runs on such a guest do.

What is recorded is drawn again and not modelled: of a sample how far it is from its case's median and what was said against it, of a process what its cases
share. What the host does is a script of chance, as often as in the logs: the CPUs move between pairs, and the clock goes down and up again.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import msgspec
import numpy as np
import pandas as pd

from numabench.analysis.clock import follows
from numabench.analysis.estimate import cell_means, process_medians
from numabench.analysis.stopping import Stopping
from numabench.benchmarks import Probes, find
from numabench.host.parts import Cache, Node, Package
from numabench.host.topology import Topology
from numabench.measure.executor import Outcome
from numabench.measure.plan import Plan, Timing, make_blocks, plan_cases
from numabench.measure.protocol import Began, Done, Job, JobCase, Took
from numabench.measure.runner import Runner
from numabench.measure.worker import probe_reasons
from numabench.model import BenchmarkRecord, Card, EndRecord, Sample, TrialRecord
from numabench.runlog.export import samples
from numabench.runlog.read import RunLog

HOPS = (10.0, 27.0, 107.0)  # ns: siblings of a core, a pair of one L3, two sockets
MAIN = HOPS[1]
CLOCKS = (3.7, 3.3)  # GHz
MACHINE = "guest"
WIDTH = 4.0  # of a core that one thread has to itself
HOP_SPREAD = 0.01  # standard deviation of a hop's log
MOVED, CHANGED = "distance_changed", "frequency_changed"
BACK = 0.3  # of samples at the lower clock, those after which it is the usual one again
BLOCK = 4  # processes in a row whose shared parts are drawn together: what one has of the one before stays
KINDS = ("cell", "difference", "ratio")
FAILED = ("physics", "check", "pages", "overlap", "cpu_moved")
MEDIAN_OF_SQUARES = 0.455
FEWEST = 8  # valid samples of a case from which it is known how they scatter


def guest() -> Topology:
    """What such a guest shows of itself: two CPUs, three levels of cache, one node."""
    one, both = [(0,), (1,)], (0, 1)
    caches = [
        Cache(level, "Data" if level == 1 else "Unified", size, 64, cpus)
        for level, size in ((1, 32 << 10), (2, 1 << 20))
        for cpus in one
    ]
    return Topology(
        cpus=both, allowed_cpus=both, allowed_mems=(0,), packages=(Package(0, both),), dies=(both,), clusters=(), cores=tuple(one), smt=1,
        caches=(*caches, Cache(3, "Unified", 32 << 20, 64, both)), nodes=(Node(0, both, 21 << 30, {0: 10}),), numa=True, kinds=(), possible=both, present=both,
        offline=(), isolated=(), nohz_full=(), vectors=("portable", "sse2", "avx2"), warnings=(),
    )  # fmt: skip


def answerable(record: BenchmarkRecord) -> BenchmarkRecord:
    """With the headlines alone whose answer can be given by arithmetic: a value, and the difference and the ratio of two. Their metrics are all that is sampled."""
    answers = tuple(a for a in record.answers if a.headline and a.kind in KINDS)
    used = {a.metric for a in answers}
    return msgspec.structs.replace(
        record, answers=answers, metrics=tuple(m for m in record.metrics if m.name in used), contrasts=(), views=(), card=Card()
    )


@dataclass(frozen=True)
class Recorded:
    """What logs of such a guest tell of one benchmark. `drawn`: of each case, for all its samples, how far they are off (a log, of what makes things slow) and what was said against them;
    `shared`: of successive processes of each log what their cases have in common; `given`: of each case the values around which samples scatter; `points`: the cases' parameters; `seconds` that a process takes."""

    drawn: dict[str, tuple[tuple[float, tuple[str, ...]], ...]]
    shared: tuple[np.ndarray, ...]
    given: dict[str, dict[str, float]]
    points: tuple[dict, ...]
    seconds: float


class Noise:
    """What `logs`, of the profile that takes one sample a process, tell of how a guest's samples scatter, and how often its host acts."""

    def __init__(self, logs: Iterable[RunLog]):
        self.logs = tuple(logs)
        self.records = {record.name: answerable(record) for log in self.logs for record in log.benchmarks}
        frame = pd.concat([samples(log) for log in self.logs], ignore_index=True)
        hops = frame["hop_ns"].to_numpy(dtype=float)
        nearest = np.abs(np.log(hops)[:, None] - np.log(HOPS)).argmin(axis=1)
        self.frame = frame.assign(
            hop=np.where(np.isfinite(hops), np.array(HOPS)[nearest], 0.0), reasons=frame["reasons"].fillna("")
        )
        once = self.frame.drop_duplicates(["run", "benchmark", "process", "case"])
        pairs = once[once["hop"] > 0]
        self.places = [float((pairs["hop"] == hop).mean()) for hop in HOPS]
        elsewhere = 1 - sum(share**2 for share in self.places)  # of moves to a place by chance
        self.moves = float(pairs["reasons"].str.contains(MOVED).mean()) / elsewhere
        self.pairs = frozenset(pairs["case"])  # cases of two threads
        self.changes = float(once["reasons"].str.contains(CHANGED).mean())
        self.between = between_visits(self.logs)
        self.of = {name: found for name, record in self.records.items() if (found := self.recorded(record))}

    def recorded(self, record: BenchmarkRecord) -> Recorded | None:
        metric = next((m for m in record.metrics if follows(m.unit)), None)
        rows = self.frame[self.frame["benchmark"] == record.name]
        # At one distance, and without what the host did by the way: that is in the script.
        rows = rows[rows["hop"].isin((0.0, MAIN)) & ~rows["reasons"].str.contains("|".join((MOVED, CHANGED, *FAILED)))]
        if metric is None or rows.empty or not record.answers:
            return None
        given = rows[rows["valid"]].groupby(["case", "metric"])["value"].median()
        own = rows[(rows["metric"] == metric.name) & (rows["value"] > 0)].sort_values("process")
        logs = follows(metric.unit) * np.log(own["value"])
        off = logs - logs.where(own["valid"]).groupby([own["run"], own["case"]]).transform("median")
        several = own["case"].nunique() >= BLOCK
        shared = off.where(own["valid"]).groupby([own["run"], own["process"]]).transform("median").fillna(0.0) * several
        own = own.assign(shared=shared, rest=off - shared)[off.notna()]
        drawn = {
            str(case): tuple(
                (float(rest), tuple(reasons.split())) for rest, reasons in zip(part["rest"], part["reasons"], strict=True)
            )
            for case, part in own.groupby("case")
            if part["valid"].sum() >= FEWEST
        }
        cases = {s.case: s.parameters for log in self.logs for t in log.trials if t.benchmark == record.name for s in t.samples}
        wanted = [{**a.where, **other} for a in record.answers for other in ({}, a.against)]
        drawn = {case: found for case, found in drawn.items() if any(point.items() <= cases[case].items() for point in wanted)}
        seconds = [trial.duration for log in self.logs for trial in log.trials if trial.benchmark == record.name]
        shared = tuple(part.drop_duplicates("process")["shared"].to_numpy() for _, part in own.groupby("run"))
        return Recorded(
            drawn={case: centred(found, np.concatenate(shared)) for case, found in drawn.items()},
            shared=shared,
            given={case: given[case].to_dict() for case in drawn},
            points=tuple(cases[case] for case in drawn),
            seconds=float(np.median(seconds)),
        )


def centred(drawn: tuple[tuple[float, tuple[str, ...]], ...], shared: np.ndarray) -> tuple[tuple[float, tuple[str, ...]], ...]:
    """So that half of the valid samples are above the given value: it is that of the process in the middle."""
    middle = np.median(np.add.outer(shared, [rest for rest, reasons in drawn if not reasons]))
    return tuple((rest - float(middle), reasons) for rest, reasons in drawn)


def between_visits(logs: tuple[RunLog, ...]) -> float:
    """Standard deviation by which two visits differ, in logs, beyond what their processes explain: that with which squared differences are as large in the median as they should be.
    Half of all squares of a normal variable are under 0.455 of its variance. Of the cells of two logs of one machine."""
    one, two = (cell_means(process_medians(samples(log))).query("main and not linear") for log in logs[:2])
    both = one.merge(two, on=["benchmark", "case", "metric"])
    gaps, within = ((both["mean_x"] - both["mean_y"]) ** 2).to_numpy(), (both["variance_x"] + both["variance_y"]).to_numpy()
    known = np.isfinite(gaps) & (within > 0)
    tried = np.linspace(0, 0.1, 1001)
    enough = [np.median(gaps[known] / (within[known] + 2 * sd**2)) <= MEDIAN_OF_SQUARES for sd in tried]
    return float(tried[np.argmax(enough)])


class Host:
    """What the host does to a guest, sample by sample."""

    def __init__(self, noise: Noise, rng: random.Random):
        self.noise, self.rng = noise, rng
        self.hop, self.clock = self.place(), CLOCKS[0]

    def place(self) -> float:
        return self.rng.choices(HOPS, self.noise.places)[0]

    def act(self) -> None:
        """One sample further."""
        if self.rng.random() < self.noise.moves:
            self.hop = self.place()
        if self.rng.random() < (self.noise.changes / 2 if self.clock == CLOCKS[0] else BACK):
            self.clock = CLOCKS[self.clock == CLOCKS[0]]


def share_of_clock(case: str) -> float:
    """How much of a case's time follows the clock: given, from nothing to all."""
    return zlib.crc32(case.encode()) % 101 / 100


class Guest:
    """A fake executor of one visit to such a guest."""

    def __init__(self, noise: Noise, seed: int):
        self.noise, self.rng = noise, random.Random(seed)
        self.host = Host(noise, self.rng)
        self.coming: dict[str, list[float]] = {}
        self.off: dict[str, float] = {}
        self.now = 0.0

    def shared(self, benchmark: str) -> float:
        """What the cases of the next process have in common."""
        coming = self.coming.setdefault(benchmark, [])
        if not coming:
            recorded = self.rng.choice(self.noise.of[benchmark].shared)
            begin = self.rng.randrange(len(recorded))
            coming += [float(recorded[(begin + k) % len(recorded)]) for k in range(BLOCK)]
        return coming.pop(0)

    def execute(self, job: Job, timeout: float) -> Outcome:
        name = job.benchmark.rpartition(".")[2]
        together, events = self.shared(name), []
        for case in job.cases:
            events.append(Began(case=case.case))
            events.append(Took(sample=self.sample(name, case, together)))
        self.now += self.noise.of[name].seconds
        return Outcome([*events, Done(startup=0.05, measured=0.2, interference={})])

    def sample(self, name: str, case: JobCase, together: float) -> Sample:
        recorded, rng, pair = self.noise.of[name], self.rng, len(case.cpus) > 1
        hop, before = self.host.hop, self.probes(pair)
        self.host.act()
        after = self.probes(pair)
        rest, said = rng.choice(recorded.drawn[case.case])
        reasons = (*said, *probe_reasons(before, after))  # numabench's own filter
        slow = math.log(CLOCKS[0] * 1e9) - (math.log(before.frequency) + math.log(after.frequency)) / 2
        more = together + rest + share_of_clock(case.case) * slow + self.off_by(name) + math.log(hop / MAIN) * pair
        return Sample(
            case=case.case,
            index=0,
            parameters=case.parameters,
            valid=not reasons,
            reasons=reasons,
            metrics={
                m.name: recorded.given[case.case][m.name] * math.exp(follows(m.unit) * more)
                for m in self.noise.records[name].metrics
            },
            hop=(before.hop, after.hop) if pair else None,
            width=(before.width, after.width) if pair else None,
            frequency=(before.frequency, after.frequency),
        )

    def probes(self, pair: bool) -> Probes:
        """What the sentinels see of the host now."""
        hop, width = self.host.hop, WIDTH / 2 if self.host.hop == HOPS[0] else WIDTH
        seen = hop * 1e-9 * math.exp(self.rng.gauss(0, HOP_SPREAD)) if pair else None
        return Probes(frequency=self.host.clock * 1e9, hop=seen, width=width)

    def off_by(self, benchmark: str) -> float:
        """What all of a benchmark is off by in this visit, in logs of what makes things slow."""
        return self.off.setdefault(benchmark, self.rng.gauss(0, self.noise.between))


def visit(noise: Noise, seed: int) -> tuple[RunLog, dict[str, float]]:
    """The log of a visit to such a guest, of the cases of `noise`: stopped by numabench itself, sampled by the fake executor; and what each benchmark was off by in it."""
    topology, executor, first = guest(), Guest(noise, seed), noise.logs[0].headers[0]
    timing, run, kept = msgspec.convert(first.plan["timing"], Timing), f"{MACHINE}-{seed}", []
    asked = {name: find(name) for name in noise.of}
    blocks = [
        block
        for name, benchmark in asked.items()
        for block in make_blocks(benchmark, plan_cases(benchmark, noise.of[name].points, topology, timing)[0], topology)
    ]
    facts = {key: first.plan[key] for key in ("profile", "budget", "target")}
    plan = Plan(blocks=tuple(blocks), timing=timing, looks=tuple(first.plan["looks"]), seed=seed, **facts)
    records = tuple(msgspec.structs.replace(noise.records[name], run=run) for name in asked)
    header = msgspec.structs.replace(first, run=run, session=run, machine={**first.machine, "id": MACHINE, "alias": MACHINE})
    kernels = dict.fromkeys((*asked, "sentinel", "crew"), SimpleNamespace(target=""))
    stops = SimpleNamespace(
        widths=Stopping(records).widths, open_answers=lambda trials, names: {}
    )  # by precision: looking for open answers takes a minute a visit
    journal = SimpleNamespace(append=kept.append)
    Runner(plan, topology, kernels, asked, executor, journal, stops, run, run, clock=lambda: executor.now).run()
    trials, ends = (tuple(record for record in kept if isinstance(record, kind)) for kind in (TrialRecord, EndRecord))
    return RunLog(paths=(run,), headers=(header,), benchmarks=records, trials=trials, ends=ends), executor.off
