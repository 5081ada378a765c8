"""The calibration: how often numabench's 95 % intervals hold the given value, how often two visits to one machine are called different, and how often a change is found.

No boot: the samples are those of a fake executor (`testbed/noise.py`). What judges them is numabench, of the checkout or a wrong one."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from numabench.analysis.answers import subjects
from numabench.analysis.clock import follows
from numabench.analysis.compare import compare
from numabench.analysis.rows import WORSE
from numabench.model import Answer
from numabench.runlog.read import RunLog, load

from ..defects import CHECKOUT
from ..errors import SimulationError
from ..expected import cloud as expected
from ..judgement import Finding
from ..noise import HOPS, MAIN, Noise, visit

NAME = "calibration"
RECORDED = ("first", "second")  # logs of results/sample
VISITS = 24
NOMINAL, BETWEEN = 0.95, (0.93, 0.97)  # shares of intervals that hold what was given
CLAIMED = 0.05  # share of comparisons of a machine with itself that may hold a claim
FOUND = 0.80  # share of changes of the size that a row says four of five comparisons would find
CHANGE = 0.05
TOGETHER = 6  # visits a side by which a change of 5 % is found
ALIKE = 3  # visits a side by which nothing is assumed of how visits differ
CHANCE = 0.01  # with which a count that is beyond what was promised is taken for chance
NONE = "none counts"


class Judged(NamedTuple):
    """An answer beside what was given."""

    kind: str
    given: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.given <= self.high


@dataclasses.dataclass(frozen=True)
class KnownCalibration:
    visits: int = VISITS
    name: str = NAME
    boots: int = 1  # none; a step in a certification's progress

    @property
    def summary(self) -> str:
        return (
            f"{self.visits} visits to a guest whose host moves its CPUs between pairs that are {', '.join(f'{hop:g}' for hop in HOPS)} ns apart and changes its clock, with samples that scatter as "
            "those of the two runs of `results/sample` do. What numabench makes of them"
        )

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        """In a process of its own, with numabench of `tree`."""
        step(f"{self.name}: {self.visits} visits")
        code = (
            "import dataclasses, json, sys\nfrom testbed.known.calibration import measure\n"
            "json.dump([dataclasses.asdict(finding) for finding in measure(int(sys.argv[1]))], sys.stdout)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tree, CHECKOUT)))}
        ran = subprocess.run(
            [sys.executable, "-c", code, str(self.visits)],
            env=environment,
            cwd=shared,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise SimulationError(
                f"the calibration ended with: {(ran.stderr.strip() or 'nothing').splitlines()[-1]}", "make sample"
            )
        done()
        return [Finding(**finding) for finding in json.loads(ran.stdout)]


def known() -> KnownCalibration:
    return KnownCalibration()


def measure(visits: int) -> list[Finding]:
    """All findings, of visits with the seeds 0, 1, 2 and so on."""
    noise = Noise(load(CHECKOUT / "results" / "sample" / f"{name}.jsonl") for name in RECORDED)
    taken = [visit(noise, seed) for seed in range(visits)]
    logs = [log for log, _ in taken]
    answered = [each for log, off in taken for each in judged_answers(noise, log, off)]
    return [
        moved_samples(logs),
        coverage(answered, visits),
        *comparisons(logs),
    ]


# -- intervals ----------------------------------------------------------------------------------------------------------


def judged_answers(noise: Noise, log: RunLog, off: dict[str, float]) -> Iterator[Judged]:
    """The resolved ones of a visit, by the values that were given at the distance that each is about."""
    for subject in subjects(log):
        recorded = noise.of[subject.record.name]
        cases = dict(zip(recorded.drawn, recorded.points, strict=True))
        rises = {metric.name: follows(metric.unit) for metric in subject.record.metrics}
        for answer in subject.record.answers:
            found = subject.find(answer)
            if found.problem or not (math.isfinite(found.low) and math.isfinite(found.high)):
                continue
            slower = math.exp(off.get(subject.record.name, 0.0))
            value, other = (
                expected.at_distance(
                    recorded.given[case],
                    answer.metric,
                    rises[answer.metric],
                    slower * (farther(found.distance) if case in noise.pairs else 1.0),
                )
                for case in points(cases, answer)
            )
            yield Judged(answer.kind, expected.answer(answer.kind, value, other), found.low, found.high)


def points(cases: dict[str, dict], answer: Answer) -> Iterator[str]:
    """The case that an answer is about, and the one that it is held against."""
    for against in ({}, answer.against):
        where = {**answer.where, **against}
        yield next(case for case, point in cases.items() if where.items() <= point.items())


def farther(distance: str) -> float:
    """How many times as far as the usual pair the CPUs are that an answer speaks of."""
    if not distance:
        return 1.0
    hop = float(distance.split()[0])
    return min(HOPS, key=lambda each: abs(math.log(each / hop))) / MAIN


def coverage(answered: Sequence[Judged], visits: int) -> Finding:
    """Of all of them; where it is said, of values alone as well: intervals of pairs are of whole ranks and hold somewhat more than they say."""
    share, n = held(answered), len(answered)
    error = 1.96 * math.sqrt(share * (1 - share) / n)
    values = held([each for each in answered if each.kind == "cell"])
    pairs = held([each for each in answered if each.kind != "cell"])
    return Finding(
        NAME,
        "intervals that hold the given value",
        f"{n} resolved headline answers of {visits} visits (values {values:.1%}, differences and ratios {pairs:.1%})",
        NOMINAL,
        share,
        (BETWEEN[1] - BETWEEN[0]) / 2,
        share - error,
        min(1.0, share + error),
    )


def held(answered: Sequence[Judged]) -> float:
    return float(np.mean([each.holds for each in answered])) if answered else math.nan


def moved_samples(logs: Sequence[RunLog]) -> Finding:
    """Whether a sample counts during which the CPUs were moved: the given distances are a factor 2.7 and more apart."""
    found = [sample for log in logs for trial in log.trials for sample in trial.samples if sample.hop]
    moved = [sample for sample in found if max(sample.hop) > 2 * min(sample.hop)]
    counted = sum(sample.valid for sample in moved)
    return Finding(
        NAME,
        "samples that were moved",
        f"{len(moved)} of {len(found)} samples of two threads",
        NONE,
        f"{counted} count" if counted else NONE,
    )


# -- comparisons --------------------------------------------------------------------------------------------------------


def comparisons(logs: Sequence[RunLog]) -> list[Finding]:
    """A machine with itself, by one visit a side and by several; and with changes of the size that each row says would be found, and of 5 %."""
    pairs = list(zip(logs[::2], logs[1::2], strict=False))
    several = list(itertools.combinations(sides(logs, TOGETHER), 2))
    return [
        alike(pairs, "of a visit a side"),
        alike(list(itertools.combinations(sides(logs, ALIKE), 2)), f"of {ALIKE} visits a side"),
        changed("changes that a row says would be found", pairs, lambda seen: seen),
        changed(
            f"changes of {CHANGE:.0%} that a row says would be found",
            several,
            lambda seen: CHANGE if seen <= CHANGE else math.nan,
        ),
    ]


def sides(logs: Sequence[RunLog], visits: int) -> list[RunLog]:
    """So many visits as one log, as often as there are others."""
    return [merged(logs[begin : begin + visits]) for begin in range(0, len(logs) - visits + 1, visits)]


def alike(pairs: Sequence[tuple[RunLog, RunLog]], what: str) -> Finding:
    """Whether claims are as rare as they should be where nothing differs."""
    claimed = sum(bool(compare(*pair).cells.query("main")["verdict"].isin(("faster", "slower")).any()) for pair in pairs)
    most = within(CLAIMED, len(pairs))
    promised = f"at most {most} with a claim"
    where = f"{len(pairs)} comparisons {what}"
    return Finding(
        NAME, "a machine compared with itself", where, promised, promised if claimed <= most else f"{claimed} with a claim"
    )


def changed(what: str, pairs: Sequence[tuple[RunLog, RunLog]], size: Callable[[float], float]) -> Finding:
    """Whether changes are found: of each row by `size` (NaN: none) of what it says that four of five comparisons would find."""
    hits = rows = 0
    for base, new in pairs:
        seen = compare(base, new).rows.set_index("benchmark")["seen"]
        put = {str(name): size(value) for name, value in seen.items() if math.isfinite(size(value))}
        found = compare(base, slower(new, {name: 1 + change for name, change in put.items()})).rows
        found = found[found["benchmark"].isin(put)]
        hits, rows = hits + int((found["verdict"] == WORSE).sum()), rows + len(found)
    return at_least(what, f"{rows} rows of {len(pairs)} comparisons", hits, rows)


def at_least(what: str, where: str, hits: int, of: int) -> Finding:
    promised = f"{FOUND:.0%} and more"
    least = of - within(1 - FOUND, of)
    return Finding(NAME, what, where, promised, promised if hits >= least else f"{hits} ({hits / max(1, of):.0%})")


def within(rate: float, n: int) -> int:
    """The most of `n` that come with `rate` by chance, but for CHANCE (binomial)."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * rate**k * (1 - rate) ** (n - k)
        if total >= 1 - CHANCE:
            return k
    return n


def slower(log: RunLog, factors: dict[str, float]) -> RunLog:
    """The log of a machine on which each of these benchmarks takes so many times as long."""
    units = {(b.name, m.name): follows(m.unit) for b in log.benchmarks for m in b.metrics}

    def change(name: str, sample):
        factor = factors.get(name, 1.0)
        return msgspec.structs.replace(
            sample, metrics={metric: value * factor ** units[name, metric] for metric, value in sample.metrics.items()}
        )

    trials = tuple(
        msgspec.structs.replace(trial, samples=tuple(change(trial.benchmark, s) for s in trial.samples), rounds=())
        for trial in log.trials
    )
    return msgspec.structs.replace(log, trials=trials)


def merged(logs: Sequence[RunLog]) -> RunLog:
    """The visits to one machine as one log."""
    parts = ("paths", "headers", "benchmarks", "trials", "ends")
    return RunLog(**{name: tuple(itertools.chain.from_iterable(getattr(log, name) for log in logs)) for name in parts})
