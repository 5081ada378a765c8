"""The questions of a run log answered in sentences: a figure, its 95 % interval and the design behind it, per machine."""

from __future__ import annotations

import pandas as pd

from ...model import Answer, Frozen
from ...runlog.export import samples
from ...runlog.read import RunLog
from ...text import fill
from ..estimate import contrasts_of, estimate_cells, process_medians
from ..segments import text_of
from ..structure import with_distance
from . import cells, curves, matrices
from .evidence import Data, Found, design_text, interval_text

FINDERS = {
    "cell": cells.cell,
    "occurrence": cells.occurrence,
    "difference": cells.pairwise,
    "ratio": cells.pairwise,
    "saving": cells.saving,
    "effect": cells.effect,
    "agreement": cells.agreement,
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

__all__ = ["Answered", "answers", "design_text", "interval_text"]


class Answered(Frozen):
    """One answer. `value`, `low`, `high` in `unit` (`×` for ratios); NaN where there is none. `ok` is false when data is
    missing or nothing is resolved: the text then says which."""

    machine: str
    benchmark: str
    kind: str
    text: str
    value: float
    low: float
    high: float
    unit: str
    ok: bool
    headline: bool


def answers(log: RunLog, frame: pd.DataFrame | None = None) -> list[Answered]:
    """Every declared answer of every benchmark, per machine, in the order of the log. `frame`: its samples, where they are at hand."""
    frame = with_distance(samples(log) if frame is None else frame)
    medians, estimates = process_medians(frame), estimate_cells(frame)
    contrasts = contrasts_of(medians, log.benchmarks)
    machines = {h.run: (str(h.machine.get("id", "unknown")), str(h.machine.get("alias", "unknown"))) for h in log.headers}
    topologies = {str(h.machine.get("id", "unknown")): h.machine.get("topology") or {} for h in log.headers}
    records = {(machines.get(b.run, ("unknown", "unknown")), b.name): b for b in log.benchmarks}  # the last visit's words
    found = []
    for ((identity, alias), name), record in records.items():
        data = Data(
            record=record,
            topology=topologies.get(identity, {}),
            others=estimates[estimates["machine_id"] == identity],
            **{
                key: t[(t["machine_id"] == identity) & (t["benchmark"] == name)]
                for key, t in (("medians", medians), ("estimates", estimates), ("contrasts", contrasts))
            },
        )
        found += [
            _answered(data, alias, answer)
            for answer in record.answers
            if answer.kind != "agreement" or cells.other_cell(data, answer) is not None
        ]
    return found


def _answered(data: Data, machine: str, answer: Answer) -> Answered:
    finder = FINDERS.get(answer.kind)
    found = finder(data, answer) if finder else Found(problem=f"no reader for answers of kind {answer.kind!r}", usable=False)
    return Answered(
        machine=machine,
        benchmark=data.record.name,
        kind=answer.kind,
        text=_sentence(data, answer, found),
        value=found.value,
        low=found.low,
        high=found.high,
        unit=found.unit,
        ok=not found.problem,
        headline=answer.headline,
    )


OPEN = "…"  # in the place of a figure that there is none of


def _sentence(data: Data, answer: Answer, found: Found) -> str:
    """The template filled, the interval appended where it has no place for it, and the problem said."""
    words = {
        **{k: text_of(v) for k, v in answer.where.items()},
        "value": found.value_text if found.usable else OPEN,
        "interval": found.interval_text,
        "other": found.other_text if found.usable else OPEN,
        "ranking": found.ranking if found.usable else OPEN,
        "distance": found.distance or "no distance",
    }
    text = fill(answer.text, words).rstrip()
    if not found.usable:
        return f"{data.record.title}: {text.rstrip('.')}: {found.problem}."
    if "{interval}" not in answer.text and found.interval_text:
        text = f"{text.rstrip('.')} ({found.interval_text})" + (
            "." if text.endswith(".") or not text.endswith(("!", "?")) else ""
        )
    return f"{text} {found.problem[0].upper()}{found.problem[1:]}." if found.problem else text
