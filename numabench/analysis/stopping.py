"""What the adaptive stop asks a running session: how precise each case is, and whose answers are settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

from ..model import Answer, BenchmarkRecord, TrialRecord, judged_in_pairs
from ..runlog.export import samples
from ..runlog.read import RunLog
from .estimate import LEAST_PAIRS, precision
from .structure import own_columns, with_circumstances

#: Of the intervals that decide early whether an answer is settled. At 95 % each of several looks would let one false answer in twenty end the measuring; the last word is said at 95 %.
EARLY = 0.975


class Stopping:
    """A running session's evidence for `measure.runner.Runner`. All trials are one session: a resume adds to them."""

    def __init__(self, benchmarks: tuple[BenchmarkRecord, ...]):
        self.benchmarks = benchmarks
        self.paired = frozenset(
            b.name
            for b in benchmarks
            if judged_in_pairs(b.contrasts, b.answers, [axis.name for axis in b.axes if len(axis.values) > 1])
        )

    def widths(self, trials: Iterable[TrialRecord]) -> dict[str, float]:
        """Relative half-widths by case (`analysis.estimate.precision`)."""
        return precision(samples(self._log(trials, self.benchmarks)), self.paired)

    def open_answers(self, trials: Iterable[TrialRecord], names: Collection[str]) -> dict[str, int]:
        """How many headline answers of these benchmarks are not settled, or figures less sure than FIGURE, for those that have such."""
        from .answers import SETTLED, answers

        trials = list(trials)
        taken = Counter(name for name, _ in {(t.benchmark, t.process) for t in trials})
        asked = [msgspec.structs.replace(b, answers=headlines(b)) for b in self.benchmarks if b.name in names]
        early = {
            b.name for b in asked if b.name in self.paired and taken[b.name] < LEAST_PAIRS
        }  # nothing of these can be settled yet
        found = {b.name: len(b.answers) for b in asked if b.name in early}
        ripe = tuple(b for b in asked if b.answers and b.name not in early)
        log = self._log((t for t in trials if t.benchmark in {b.name for b in ripe}), ripe)
        frame = with_circumstances(samples(log))
        for one in ripe:  # by itself, without the columns of the others, which every selection would carry along
            rows = own_columns(frame[frame["benchmark"] == one.name])
            found[one.name] = sum(answer.grade != SETTLED for answer in answers(self._log((), (one,)), rows, EARLY))
        return {name: count for name, count in found.items() if count}

    def _log(self, trials: Iterable[TrialRecord], benchmarks: tuple[BenchmarkRecord, ...]) -> RunLog:
        pooled = tuple(msgspec.structs.replace(t, session="") for t in trials)
        return RunLog(paths=(), headers=(), benchmarks=benchmarks, trials=pooled, ends=())


def headlines(benchmark: BenchmarkRecord) -> tuple[Answer, ...]:
    """What a benchmark is asked first, by itself: an agreement with another one is no reason to go on."""
    return tuple(answer for answer in benchmark.answers if answer.headline and answer.kind != "agreement")
