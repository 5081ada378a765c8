"""The visits of a history that a new visit is compared with."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..errors import IncomparableError, LogError, UsageError
from ..runlog.read import RunLog, find_logs, load
from ..runlog.twins import told_apart
from ..runlog.visits import BUSY, only, visits
from ..text import printable
from ..units import plural
from .identity import refusals

MOST_NAMED = 4
KEEP_IT = "keep this visit's log there: it is compared from the next one on"


def load_history(path: str | Path) -> RunLog:
    """What can be read of a folder of logs; what cannot is told. Raises IncomparableError where it has no visit yet."""
    if Path(path).is_dir() and not any(Path(path).rglob("*.jsonl*")):
        raise IncomparableError(f"there is no visit in the history {printable(str(path))} yet", KEEP_IT)
    try:
        return load(path)
    except LogError:
        readable, said = [], []
        for log in find_logs([path]):
            try:
                load(log)
                readable.append(log)
            except LogError as error:
                said.append(f"not read: {printable(str(log))}: {error.message}")
        if not readable:
            raise
        found = load(*readable)
        return msgspec.structs.replace(found, warnings=(*found.warnings, *said))


def before(history: RunLog, new: RunLog, most: int, across_builds: bool = False) -> RunLog:
    """Of `history` the last `most` visits to the machine of `new` that were made before it and have something that can be compared with it, and of these what can be; itself
    and those given up on busy CPUs are left out. Where nothing can be compared, the last ones as they are, so that a comparison says why.

    Raises UsageError where `new` has several machines, IncomparableError where no visit is left.
    """
    headers, _ = told_apart([history.headers, new.headers])
    history, new = (msgspec.structs.replace(log, headers=own) for log, own in zip((history, new), headers, strict=True))
    mine = {header.machine_id for header in new.headers}
    if len(mine) != 1:
        raise UsageError(f"a visit is to one machine, and NEW has {len(mine)}", "name the log of one machine")
    own, begun = {header.run for header in new.headers}, min(header.started for header in new.headers)
    machine = {header.run: header.machine_id for header in history.headers}
    there = [visit for visit in visits(history) if machine[visit.run] in mine]
    usable = [visit for visit in there if visit.run not in own and visit.started < begun and visit.status != BUSY]
    if not usable:
        raise IncomparableError(*_why_none(history, [v for v in there if v.run not in own], len(there), begun))
    kept: list[RunLog] = []
    for visit in reversed(usable):
        if len(kept) == most:
            break
        log = only(history, {visit.run})
        refused = {name for name, _ in refusals(log, new, across_builds)} & {record.name for record in new.benchmarks}
        shared = {record.name for record in log.benchmarks} & {record.name for record in new.benchmarks}
        if shared - refused:
            kept.append(_without(log, refused))
    if not kept:
        return only(history, {visit.run for visit in usable[-most:]})
    parts = {
        name: tuple(r for log in reversed(kept) for r in getattr(log, name))
        for name in ("headers", "benchmarks", "trials", "ends")
    }
    return msgspec.structs.replace(history, **parts)


def _without(log: RunLog, names: set[str]) -> RunLog:
    if not names:
        return log
    parts = {
        "benchmarks": tuple(b for b in log.benchmarks if b.name not in names),
        "trials": tuple(t for t in log.trials if t.benchmark not in names),
    }
    return msgspec.structs.replace(log, **parts)


def _why_none(history: RunLog, others: list, there: int, begun: str) -> tuple[str, str]:
    """(what happened, what mends it)."""
    if others and all(visit.started >= begun for visit in others):
        return (
            f"all {plural(len(others), 'visit')} to this machine in the history are dated after this one ({begun}): a clock was set",
            "set the clock (timedatectl), and measure again",
        )
    if others:
        return (
            f"all {plural(len(others), 'visit')} to this machine in the history were made on busy CPUs, or after this one",
            KEEP_IT,
        )
    if there:
        return "every visit to this machine in the history is in NEW as well", "name the log of the new visit alone"
    aliases = sorted({header.alias for header in history.headers})
    return f"the history has no visit to this machine (to {', '.join(aliases[:MOST_NAMED])})", KEEP_IT
