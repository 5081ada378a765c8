"""One machine over its visits: when its figures changed for good, by how much, and which recorded facts changed with them.

Visits of one day are one unit: they are alike for reasons of that day, and taken one by one what wanders from day to day would pass for a change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from ..errors import UsageError
from ..model import LOWER, Frozen
from ..text import near
from . import steps
from .cohorts import OF_THE_RUN, facts_of, is_calm, said, table_of, words
from .digest import Cell, Visit
from .discoveries import discoveries
from .fleet import equal, most_have

DAY = "day"  # or visit
KNOWN = 0.5  # of the units of its series that must have a cell
EQUAL = 0.005  # a median change under which some cells went up and some down
SETTLED = 0.8  # of the units on a side that must have a fact as it is beside the step
PLANNED = 20  # machines at most of which is said what step would have been found: it takes as long as looking for some dozens


class Moved(Frozen):
    """What a benchmark did at a step: the median `change` of its cells (a share), the quartiles of these, and how many of them went that way. `verdict`: worse | better, or mixed
    where the median stays within EQUAL."""

    benchmark: str
    title: str
    metric: str
    unit: str
    polarity: str
    change: float
    low: float
    high: float
    alike: int
    cells: int
    verdict: str


class Change(Frozen):
    """A step. `since`: when the first visit after it began; `run`: that visit; `facts`: name -> (before, after)."""

    since: str
    run: str
    p: float
    moved: tuple[Moved, ...]
    facts: dict[str, tuple[str, str]]


class Chronicle(Frozen):
    """One machine. `p`: of what was seen, had nothing changed; None where `needs` more units. `seen`: the smallest step in the middle of its visits that would have been found
    (median, least and most of its benchmarks), where that was asked for; `noisy`: visits that are left out; `short`: titles of
    benchmarks that have too few units by one method."""

    id: str
    alias: str
    visits: int
    units: int
    first: str
    last: str
    cells: int
    benchmarks: int
    noisy: int = 0
    short: tuple[str, ...] = ()
    needs: int = 0
    p: float | None = None
    changes: tuple[Change, ...] = ()
    seen: tuple[float, float, float] | None = None


class History(Frozen):
    """All machines that were asked for. `unit`: day | visit."""

    unit: str
    machines: tuple[Chronicle, ...]
    unread: dict[str, str]
    notes: tuple[str, ...] = ()


def judge_history(
    visited: Sequence[Visit],
    unread: Mapping[str, str] = {},
    notes: Sequence[str] = (),
    machine: str | None = None,
    unit: str = DAY,
) -> History:
    """Each machine's changes, `machine` (an alias or an id) alone where it is given; UsageError where there is none. Of several machines those with a change are chosen at a false
    discovery rate of 5 %."""
    by_machine: dict[str, list[Visit]] = {}
    for visit in visited:
        by_machine.setdefault(visit.header.machine_id, []).append(visit)
    if machine is not None:
        known = {name: own for own, them in by_machine.items() for name in (own, str(them[-1].machine.get("alias", own)))}
        if machine not in known:
            raise UsageError(f"no visit is to a machine {machine!r}{near(machine, known)}", "numabench runs lists them")
        by_machine = {own: them for own, them in by_machine.items() if machine in (own, str(them[-1].machine.get("alias", own)))}
    found = [_chronicle(own, them, unit, len(by_machine)) for own, them in by_machine.items()]
    judged = [one for one in found if one.p is not None]
    chosen = discoveries(np.array([one.p for one in judged])) <= steps.FALSE_ALARMS if judged else []
    doubted = {one.id for one, stands in zip(judged, chosen, strict=True) if not stands}
    return History(
        unit=unit,
        machines=tuple(msgspec.structs.replace(one, changes=()) if one.id in doubted else one for one in found),
        unread=dict(unread),
        notes=tuple(notes),
    )


def _chronicle(machine: str, visited: Sequence[Visit], unit: str, machines: int) -> Chronicle:
    usable = [visit for visit in visited if is_calm(visit)]
    units: dict[str, list[Visit]] = {}
    for visit in usable:
        units.setdefault(visit.header.started[:10] if unit == DAY else visit.header.run, []).append(visit)
    parts = [*units.values()][-steps.MOST_UNITS :]
    cells, values = table_of([visit for part in parts for visit in part])
    values = _by_unit(values, parts)
    spans = _series(cells, values)
    judged = {span: kept for span, kept in spans.items() if span[1] - span[0] >= steps.LEAST_UNITS}
    kept = [column for columns in judged.values() for column in columns]
    short = {cells[column].title for span, columns in spans.items() if span not in judged for column in columns}
    about = {
        "id": machine,
        "alias": str(visited[-1].machine.get("alias", machine)),
        "visits": len(visited),
        "units": len(parts),
        "first": visited[0].header.started,
        "last": visited[-1].header.started,
        "noisy": len(visited) - len(usable),
        "cells": len(kept),
        "benchmarks": len({cells[column].benchmark for column in kept}),
        "short": tuple(sorted(short)),
    }
    if not judged:
        longest = max((end - begin for begin, end in spans), default=0)
        return Chronicle(**about, needs=max(1, steps.LEAST_UNITS - longest))
    p, changes, seen = 1.0, [], []
    for (begin, end), columns in judged.items():
        own = [cells[column] for column in columns]
        names = [*dict.fromkeys(cell.benchmark for cell in own)]
        group = np.array([names.index(cell.benchmark) for cell in own])
        span = values[begin:end, columns]
        found = steps.find_steps(span, group, more=machines > 1 or len(judged) > 1)
        p = min(p, found.p * len(judged))  # Bonferroni
        if found.p * len(judged) <= steps.FALSE_ALARMS:
            changes += [_change(found.steps, number, span, own, group, parts[begin:end]) for number in range(len(found.steps))]
        elif machines <= PLANNED:
            seen += [steps.smallest_step(span, group, number) for number in range(len(names))]
    seen = [share if math.isfinite(share) else steps.TRIED[-1] for share in seen]
    return Chronicle(
        **about,
        p=p,
        changes=tuple(sorted(changes, key=lambda change: change.since)),
        seen=(float(np.median(seen)), min(seen), max(seen)) if seen and not changes else None,
    )


def _change(
    found: Sequence[steps.Step],
    number: int,
    values: np.ndarray,
    cells: Sequence[Cell],
    group: np.ndarray,
    parts: Sequence[Sequence[Visit]],
) -> Change:
    step, (begin, end) = found[number], steps.bounds(found, number, len(parts))
    shift = steps.change_at(values, step.at, begin, end)
    return Change(
        since=parts[step.at][0].header.started,
        run=parts[step.at][0].header.run,
        p=step.p,
        moved=tuple(_moved(cells, shift, group == own) for own in step.groups),
        facts=_changed_facts(parts, step.at, begin, end),
    )


def _by_unit(values: np.ndarray, parts: Sequence[Sequence[Visit]]) -> np.ndarray:
    """Of several visits of a unit the mean of what they have."""
    begins = np.cumsum([0, *map(len, parts[:-1])])
    with np.errstate(invalid="ignore"):
        return np.add.reduceat(np.nan_to_num(values), begins, axis=0) / np.add.reduceat(
            np.isfinite(values), begins, axis=0, dtype=float
        )


def _series(cells: Sequence[Cell], values: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """(first unit, last unit + 1) -> columns. A benchmark by one method is a series from its first unit to its last: what is measured otherwise, or no more, is another one,
    and series of one span are judged together. Cells that a series has now and then alone are left out."""
    of: dict[tuple[str, str], list[int]] = {}
    for column, cell in enumerate(cells):
        of.setdefault((cell.benchmark, cell.quantity), []).append(column)
    found: dict[tuple[int, int], list[int]] = {}
    for columns in of.values():
        known = np.isfinite(values[:, columns])
        there = np.flatnonzero(known.any(axis=1))
        if len(there):
            begin, end = int(there[0]), int(there[-1]) + 1
            often = known[begin:end].mean(axis=0) >= KNOWN
            found.setdefault((begin, end), []).extend(column for column, kept in zip(columns, often, strict=True) if kept)
    return {span: columns for span, columns in found.items() if columns}


def _moved(cells: Sequence[Cell], shift: np.ndarray, mine: np.ndarray) -> Moved:
    """What a group's cells did."""
    cell = cells[int(np.flatnonzero(mine)[0])]
    known = shift[mine][np.isfinite(shift[mine])]
    low, middle, high = np.expm1(np.quantile(known, (0.25, 0.5, 0.75)))
    return Moved(
        benchmark=cell.benchmark,
        title=cell.title,
        metric=cell.metric,
        unit=cell.unit,
        polarity=cell.polarity,
        change=float(middle),
        low=float(low),
        high=float(high),
        alike=int((np.sign(known) == np.sign(middle)).sum()),
        cells=len(known),
        verdict="mixed" if abs(middle) < EQUAL else "worse" if (middle > 0) == (cell.polarity == LOWER) else "better",
    )


def _changed_facts(parts: Sequence[Sequence[Visit]], at: int, begin: int, end: int) -> dict[str, tuple[str, str]]:
    """Facts that differ between the visits beside a step, and are on either side what most units have."""
    sides = [[_facts(part[-1]) for part in parts[begin:at]], [_facts(part[0]) for part in parts[at:end]]]
    beside = sides[0][-1], sides[1][0]
    found = {}
    for name in dict.fromkeys([*beside[0], *beside[1]]):
        values = [each.get(name) for each in beside]
        if equal(*values):
            continue
        usual = [[each.get(name) for each in side] for side in sides]
        if all(
            equal(most_have(side) if any(v is not None for v in side) else None, value)
            and sum(equal(value, other) for other in side) >= SETTLED * len(side)
            for side, value in zip(usual, values, strict=True)
        ):
            found[words(name)] = (said(name, values[0]), said(name, values[1]))
    return found


def _facts(visit: Visit) -> dict[str, object]:
    return facts_of(visit.machine, without=OF_THE_RUN) | {"numabench": visit.header.numabench}


def worse(found: History, practical: float) -> bool:
    """Whether a benchmark of a machine became worse by so much (a share) at some step."""
    return any(
        moved.verdict == "worse" and abs(moved.change) >= practical
        for one in found.machines
        for change in one.changes
        for moved in change.moved
    )
