"""The visits in run logs: what each was like, and which of them a report is made of."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ..errors import UsageError
from ..model import Frozen
from ..text import near
from ..units import plural
from .read import RunLog

BUSY, CUT = "busy", "cut short"
MOST_MACHINES = 24  # side by side, in a report, a card or a figure


class Visited(Frozen):
    """One visit. `undisturbed`: share of its samples; `status`: as its end record says, `cut short` without one."""

    run: str
    machine: str  # its alias, which several may have
    machine_id: str
    started: str
    profile: str
    status: str
    benchmarks: int
    samples: int
    undisturbed: float | None  # None: without a sample


def visits(log: RunLog) -> list[Visited]:
    """All visits by time. A resumed one is one visit."""
    ends = {end.run: end.status for end in log.ends}
    found = {}
    for header in sorted(log.headers, key=lambda h: h.started):
        trials = [trial for trial in log.trials if trial.run == header.run]
        valid = [sample.valid for trial in trials for sample in trial.samples]
        found[header.run] = Visited(
            run=header.run,
            machine=header.alias,
            machine_id=header.machine_id,
            started=header.started,
            profile=str(header.plan.get("profile", "–")),
            status=ends.get(header.run, CUT),
            benchmarks=len({trial.benchmark for trial in trials}),
            samples=len(valid),
            undisturbed=sum(valid) / len(valid) if valid else None,
        )
    return list(found.values())


def chosen(log: RunLog, last: bool = False, without: Collection[str] = (), busy: bool = False) -> RunLog:
    """`log` without the visits `without` (runs, or how they begin), only the `last` of each machine, and unless `busy` without those that were given up on
    busy CPUs where the machine has others; the MOST_MACHINES that were visited last. The log's warnings say what was left out. Raises UsageError for a run that there is none of."""
    every = visits(log)
    named = {run: [v.run for v in every if v.run.startswith(run)] for run in without}
    for run, hits in named.items():
        if not hits:
            raise UsageError(
                f"there is no run {run!r} in these logs{near(run, [v.run for v in every])}", "numabench runs lists them"
            )
    left = [v for v in every if v.run not in {run for hits in named.values() for run in hits}]
    if not left:
        raise UsageError("no visit is left", "leave --without away, or numabench runs to see what there is")
    spoilt = [v for v in left if v.status == BUSY and any(o.machine_id == v.machine_id and o.status != BUSY for o in left)]
    if not busy:
        left = [v for v in left if v not in spoilt]
    if last:
        left = list({v.machine_id: v for v in left}.values())
    machines = [*dict.fromkeys(v.machine_id for v in reversed(left))]
    if many := machines[MOST_MACHINES:]:
        left = [v for v in left if v.machine_id not in many]
    keep = {v.run for v in left}
    if len(keep) == len(every):
        return log
    said = [
        f"left out: the visit {v.run} of {v.started}, given up on busy CPUs (by itself: name its file)"
        for v in spoilt
        if not busy
    ]
    if many:
        said.append(
            f"left out: {plural(len(many), 'machine')}, all but the {MOST_MACHINES} that were visited last, since nobody reads more side by side; numabench fleet "
            "says which of many are unlike the others"
        )
    return only(log, keep, *said)


def only(log: RunLog, keep: Collection[str], *said: str) -> RunLog:
    """What `log` has of the visits `keep`, with what is to be said of it."""
    parts = {name: tuple(r for r in getattr(log, name) if r.run in keep) for name in ("headers", "benchmarks", "trials", "ends")}
    return msgspec.structs.replace(log, warnings=(*log.warnings, *said), **parts)
