"""The questions of a run log answered in sentences: a figure, its 95 % interval and the design behind it, per machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import msgspec
import pandas as pd

from ...model import Answer, BenchmarkRecord, Frozen
from ...runlog.export import samples
from ...runlog.read import RunLog
from ...text import fill
from ..estimate import CONFIDENCE, contrasts_of, estimates_of, keeping, process_medians
from ..segments import text_of
from ..structure import light, own_columns, with_circumstances
from . import cells, curves, matrices
from .evidence import Data, Found, design_text, differs, interval_text, place_text, said, says_nothing, template

FINDERS = {
    "cell": cells.cell,
    "occurrence": cells.occurrence,
    "difference": cells.pairwise,
    "ratio": cells.pairwise,
    "saving": cells.saving,
    "effect": cells.effect,
    "agreement": cells.agreement,
    "best": cells.best,
    "spread": cells.spread,
    "outcome": cells.outcome,
    "ranking": cells.ranking,
    "threshold": curves.threshold,
    "reach": curves.reach,
    "saturation": curves.saturation,
    "knee": curves.knee,
    "gain": curves.gain,
    "capacity": curves.capacity,
    "crossover": curves.crossover,
    "firmware": matrices.firmware,
    "weights": matrices.weights,
    "structure": matrices.structure,
}

__all__ = ["Answered", "answers", "design_text", "interval_text", "says_nothing"]


#: How far an answer may be relied on: settled; rough, where the value stands and its interval or what disturbed it leaves the question open; or nothing was found.
SETTLED, ROUGH, MISSING = "settled", "rough", "not measured"
FIGURE = 0.05  # relative half-width up to which a figure by itself is settled, where its answer tolerates no more


class Answered(Frozen):
    """One answer. `value`, `low`, `high` in `unit` (`×` for ratios); NaN where there is none. `ok` is false when data is
    missing or nothing is resolved: the text then says which, and `grade` how far it may be relied on."""

    machine: str
    machine_id: str
    benchmark: str
    kind: str
    text: str
    value: float
    low: float
    high: float
    unit: str
    ok: bool
    headline: bool
    grade: str
    alone: str = ""  # where several visits leave open what one of them by itself would not: what that one says


@dataclass(frozen=True)
class Subject:
    """One benchmark on one machine, with what answers about it are found in: its data, and the same had no softly disturbed sample been set aside."""

    machine_id: str
    alias: str
    record: BenchmarkRecord
    ways: tuple[Data, ...]

    @cached_property
    def sessions(self) -> int:
        """How many visits there are data of."""
        medians = self.ways[0].medians
        return medians["session"].nunique() if len(medians) else 0

    @cached_property
    def visits(self) -> list[Data]:
        """What each of several visits has by itself; of other benchmarks it has nothing, so that an agreement is of all visits alone."""
        whole, found = self.ways[0], []
        for session in whole.medians["session"].unique() if self.sessions > 1 else ():
            medians = whole.medians[whole.medians["session"] == session]
            estimates = estimates_of(medians, confidence=whole.confidence)
            contrasts = contrasts_of(medians, [_asked(self.record)], whole.confidence)
            own = {"medians": medians, "estimates": estimates, "contrasts": contrasts, "others": whole.others.iloc[:0]}
            found.append(msgspec.structs.replace(whole, **own))
        return found

    def find(self, answer: Answer) -> Found:
        """What all visits say; and where that is open, what the surest of them says that would be settled by itself."""
        found = self.merged(answer)
        if grade(found, answer) == SETTLED or answer.kind not in FINDERS:
            return found
        each = (FINDERS[answer.kind](visit, answer) for visit in self.visits)
        settled = [one for one in each if grade(one, answer) == SETTLED and math.isfinite(one.value)]
        if not settled:
            return found
        best = min(settled, key=lambda one: _or_infinite(half_width(one)))
        value = f"{best.value_text} ({best.interval_text})" if best.interval_text else best.value_text
        return msgspec.structs.replace(
            found, alone=f"the interval covers how {len(self.visits)} visits differ; one of them alone says {value}"
        )

    def merged(self, answer: Answer) -> Found:
        """By the first way; open where the second finds another."""
        finder = FINDERS.get(answer.kind)
        if finder is None:
            return Found(problem=f"no reader for answers of kind {answer.kind!r}", usable=False)
        found = finder(self.ways[0], answer)
        for other in (finder(way, answer) for way in self.ways[1:] if not found.problem):
            if differs(found, other):
                problem = f"unresolved: with the samples that were disturbed it would be {said(other)}"
                found = msgspec.structs.replace(found, problem=problem)
        return found


def subjects(log: RunLog, frame: pd.DataFrame | None = None, confidence: float = CONFIDENCE) -> list[Subject]:
    """Every benchmark on every machine, in the order of the log. `frame`: its samples, where they are at hand; `confidence` of the intervals that decide."""
    frame = with_circumstances(samples(log) if frame is None else frame)
    ways = [_tables(light(process_medians(frame)), log, confidence)]
    if ways[0].medians["soft"].any():
        ways.append(_kept(ways[0], log))
    machines = {h.run: (h.machine_id, h.alias) for h in log.headers}
    topologies = {h.machine_id: h.machine.get("topology") or {} for h in log.headers}
    records = {(machines.get(b.run, ("unknown", "unknown")), b.name): b for b in log.benchmarks}  # the last visit's words
    return [
        Subject(identity, alias, record, tuple(tables.of(record, identity, topologies.get(identity, {})) for tables in ways))
        for ((identity, alias), _), record in records.items()
    ]


def answers(
    log: RunLog,
    frame: pd.DataFrame | None = None,
    confidence: float = CONFIDENCE,
    about: Sequence[Subject] | None = None,
) -> list[Answered]:
    """Every declared answer of every benchmark, per machine, in the order of the log: of `about`, where that is at hand, else as `subjects` finds them."""
    return [
        _answered(subject, answer)
        for subject in (subjects(log, frame, confidence) if about is None else about)
        for answer in subject.record.answers
        if answer.kind != "agreement" or cells.other_cell(subject.ways[0], answer) is not None
    ]


class Tables(NamedTuple):
    """What the answers about all benchmarks and machines of a log are found in."""

    medians: pd.DataFrame
    estimates: pd.DataFrame
    contrasts: pd.DataFrame
    confidence: float

    def of(self, record: BenchmarkRecord, machine_id: str, topology: dict) -> Data:
        medians, estimates, contrasts = (table[table["machine_id"] == machine_id] for table in self[:3])
        own = {"medians": medians, "estimates": estimates, "contrasts": contrasts}
        return Data(
            record=record,
            topology=topology,
            others=estimates,
            confidence=self.confidence,
            **{name: own_columns(table[table["benchmark"] == record.name]) for name, table in own.items()},
        )


def _tables(medians: pd.DataFrame, log: RunLog, confidence: float) -> Tables:
    estimates = estimates_of(medians, confidence=confidence)
    return Tables(medians, estimates, contrasts_of(medians, map(_asked, log.benchmarks), confidence), confidence)


def _asked(record: BenchmarkRecord) -> BenchmarkRecord:
    """With those of its contrasts alone that an answer is found in: pairing all of them takes longer than all answers."""
    asked = [(answer.metric, {answer.axis, *answer.where}) for answer in record.answers if answer.kind in ("threshold", "reach")]
    used = tuple(c for c in record.contrasts if any(c.metric == metric and c.axis in axes for metric, axes in asked))
    return msgspec.structs.replace(record, contrasts=used)


def _kept(tables: Tables, log: RunLog) -> Tables:
    """The same had no softly disturbed sample been set aside; each cell at the distance that was its main one without them."""
    kept = _tables(keeping(tables.medians), log, tables.confidence)
    return kept._replace(
        estimates=kept.estimates.assign(main=tables.estimates["main"]),
        contrasts=kept.contrasts.assign(main=tables.contrasts["main"]),
    )


def grade(found: Found, answer: Answer) -> str:
    if found.problem:
        return ROUGH if found.usable else MISSING
    alone = answer.kind in ("cell", "best")
    return ROUGH if alone and not half_width(found) <= max(FIGURE, answer.tolerance) else SETTLED


def half_width(figure: Found | Answered) -> float:
    """Of the interval, relative to the value; NaN without an interval."""
    return (figure.high - figure.low) / 2 / abs(figure.value) if figure.value else math.inf


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _answered(subject: Subject, answer: Answer) -> Answered:
    found = subject.find(answer)
    return Answered(
        machine=subject.alias,
        machine_id=subject.machine_id,
        benchmark=subject.record.name,
        kind=answer.kind,
        text=_sentence(subject.ways[0], answer, found),
        value=found.value,
        low=found.low,
        high=found.high,
        unit=found.unit,
        ok=not found.problem,
        headline=answer.headline,
        grade=grade(found, answer),
        alone=found.alone,
    )


FIGURES = ("{value}", "{other}", "{ranking}", "{interval}")  # of a template, what it says something about


def _sentence(data: Data, answer: Answer, found: Found) -> str:
    """The template filled, the interval appended where it has no place for it, and the problem said."""
    words = {
        **{k: text_of(v) for k, v in answer.where.items()},
        "value": found.value_text,
        "interval": found.interval_text,
        "other": found.other_text,
        "ranking": found.ranking,
        "distance": found.distance or "no distance",
    }
    if not found.usable:
        about = fill(circumstances(answer.text), words) or place_text(data.record, answer.where)
        where = f", {inside(about)}" if about else ""
        return f"{data.record.title}{where}: {found.problem or found.instead}.{_further(found.alone)}"
    text = fill(template(answer, found.value), words).rstrip()
    if "{interval}" not in answer.text and found.interval_text:
        text = f"{text.rstrip('.')} ({found.interval_text})" + (
            "." if text.endswith(".") or not text.endswith(("!", "?")) else ""
        )
    return text + _further(found.problem or found.remark) + _further(found.alone)


def _further(said: str) -> str:
    """As a sentence that follows another; nothing where nothing is said."""
    return f" {said[0].upper()}{said[1:]}." if said else ""


def inside(said: str) -> str:
    """What a sentence begins with as a later part of one: a name such as CPUs or L3 stays as it is."""
    rest = said.partition(" ")[0][1:]
    return said if any(sign.isupper() or sign.isdigit() for sign in rest) else said[:1].lower() + said[1:]


def circumstances(template: str) -> str:
    """What a sentence says before its figure of where it holds: up to the last comma or colon outside of brackets, else what stands in brackets. A sentence
    without its figure would have a hole."""
    before = template[: min((at for at in map(template.find, FIGURES) if at >= 0), default=len(template))]
    depth, cut, inner = 0, -1, (0, 0)
    for place, sign in enumerate(before):
        if sign == "(":
            depth, opened = depth + 1, place
        elif sign == ")":
            depth, inner = depth - 1, (opened + 1, place)
        elif sign in ",:" and not depth:
            cut = place
    return before[:cut].strip() if cut >= 0 else before[slice(*inner)].strip()
