"""Answers about curves: where along an axis something begins, ends or bends."""

from __future__ import annotations

import itertools
import math

import msgspec
import pandas as pd

from ...crossing import crossing
from ...model import HIGHER, Answer
from ...units import format_bytes, format_number, format_quantity, plural
from ..estimate import FEW_BLOCKS, paired
from ..segments import text_of
from ..structure import parameter_columns
from .evidence import Data, Found, along, design_text, doubt, interval_text, no_figure, point_text, quantity, select, words


def _free_and_costly(row: pd.Series, polarity: str, tolerance: float) -> tuple[bool, bool]:
    """(certainly within the tolerance of the control, certainly beyond it) by the ratio's interval.

    Where the ratio depends on disturbed samples nothing is called free; a cost far outside the tolerance stays one.
    """
    calm = not doubt(row)
    if polarity == HIGHER:
        return calm and row["ratio_low"] > 1 - tolerance, row["ratio_high"] < 1 - tolerance
    return calm and row["ratio_high"] < 1 + tolerance, row["ratio_low"] > 1 + tolerance


def one_curve(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The contrasts of the distance class that has most pairs, and its label: another distance is another curve."""
    distance = table.groupby("distance")["blocks"].sum().idxmax()
    return table[table["distance"] == distance], distance


def threshold(data: Data, answer: Answer) -> Found:
    """The smallest value of the axis from which on nothing costs more than `tolerance` over the contrast's control."""
    contrast = next((c for c in data.record.contrasts if c.axis == answer.axis and c.metric == answer.metric), None)
    axis = next((a for a in data.record.axes if a.name == answer.axis), None)
    if contrast is None or axis is None:
        return Found(problem=f"no contrast over {words(answer.axis)} is declared for {words(answer.metric)}", usable=False)
    table = data.contrasts
    table = table[(table["axis"] == answer.axis) & (table["metric"] == answer.metric) & (table["control"] == contrast.control)]
    table = select(table, answer.where, data.record, free=answer.axis)
    if table.empty or not table["blocks"].sum():
        return Found(problem=f"no pairs of {words(answer.metric)} over {words(answer.axis)}", usable=False)
    table, distance = one_curve(table)
    table = table[table[answer.axis] > 0].sort_values(answer.axis, ascending=False)
    polarity = data.metric(answer.metric).polarity
    last, blocker = None, None
    for _, row in table.iterrows():
        free, costly = _free_and_costly(row, polarity, answer.tolerance)
        if not free:
            blocker = (row, costly)
            break
        last = row
    return _threshold_found(answer, axis.unit, contrast.control, last, blocker, distance)


def _why(row: pd.Series | None) -> str:
    """What keeps a contrast from being resolved, where it is not the width of its interval."""
    if row is None:
        return ""
    if "few_blocks" in row["reasons"]:
        return f" ({plural(int(row['blocks']), 'pair')}, at least {FEW_BLOCKS} are needed)"
    against = doubt(row)
    return f" ({against})" if against else ""


def _threshold_found(
    answer: Answer, unit: str, control: object, last: pd.Series | None, blocker: tuple[pd.Series, bool] | None, distance: str
) -> Found:
    def size(value: object) -> str:
        return f"{text_of(value)} {unit}".rstrip()

    def ratio(row: pd.Series) -> str:
        return f"at {size(row[answer.axis])} the ratio to {size(control)} is {format_number(row['ratio'])} ({interval_text(row['ratio_low'], row['ratio_high'], '×')})"

    if last is None:
        row, costly = blocker if blocker else (None, False)
        said = f": {ratio(row)}" if row is not None else ""
        if costly:
            none = "no value below the control is free"
            return Found(unit=unit, distance=distance, verdict=("none",), instead=f"{none}{said}", usable=False)
        return Found(unit=unit, distance=distance, problem=f"unresolved{_why(row)}{said}", usable=False)
    design = design_text(last["blocks"], last["sessions"], distance)
    problem = (
        "" if blocker is None or blocker[1] else f"it may be less, which is unresolved{_why(blocker[0])}: {ratio(blocker[0])}"
    )
    return Found(
        value=float(last[answer.axis]),
        unit=unit,
        distance=distance,
        value_text=size(last[answer.axis]),
        verdict=(size(last[answer.axis]),),
        interval_text=f"{ratio(last)}, {design}",
        problem=problem,
    )


def reach(data: Data, answer: Answer) -> Found:
    """The last value of the axis before the contrast at `where` costs more than `tolerance` over its control."""
    contrast = next((c for c in data.record.contrasts if c.axis in answer.where and c.metric == answer.metric), None)
    table = data.contrasts
    if contrast is not None:
        table = table[(table["axis"] == contrast.axis) & (table["metric"] == answer.metric)]
        table = select(table, answer.where, data.record, free=answer.axis)
        table = table[table["ratio"].notna()].sort_values(answer.axis) if answer.axis in table.columns else table.iloc[:0]
    if contrast is None or table.empty:
        return Found(problem=f"no pairs of {words(answer.metric)} over {words(answer.axis)}", usable=False)
    table, distance = one_curve(table)
    polarity = data.metric(answer.metric).polarity
    judged = [(row, *_free_and_costly(row, polarity, answer.tolerance)) for _, row in table.iterrows()]
    beyond = next((index for index, (_, _, costly) in enumerate(judged) if costly), len(judged))

    def said(row: pd.Series) -> str:
        ratio = interval_text(row["ratio_low"], row["ratio_high"], "×")
        return f"at {text_of(row[answer.axis])} the ratio is {format_number(row['ratio'])} ({ratio})"

    if not beyond:
        return Found(verdict=("none",), instead=f"none of the values is free: {said(judged[0][0])}", usable=False)
    last, free, _ = judged[beyond - 1]
    if beyond == len(judged):
        doubtful = next((row for row, calm, _ in judged if not calm), None)
        if doubtful is not None:
            return Found(problem=f"unresolved{_why(doubtful)}: {said(doubtful)}", usable=False)
        beyond_all = f"beyond the range measured: no {words(answer.axis)} costs more than {answer.tolerance:.0%}: {said(last)}"
        return Found(verdict=("beyond",), instead=beyond_all, usable=False)
    return Found(
        value=float(last[answer.axis]),
        value_text=text_of(last[answer.axis]),
        verdict=(text_of(last[answer.axis]),),
        interval_text=f"{said(last)}, {said(judged[beyond][0])}, {design_text(last['blocks'], last['sessions'], distance)}",
        problem="" if free else "unresolved: the interval there does not exclude a cost",
    )


def saturation(data: Data, answer: Answer) -> Found:
    """The smallest value of the axis whose metric is within `tolerance` of the best one over the whole axis, by the intervals; and the same of the
    curve with `against` put over `where`, which has the points of the first one that it lacks: where both are one, one was measured."""
    rows = along(data, answer)
    found = _saturated(data, answer, rows)
    if not answer.against or rows.empty:
        return found
    own = along(data, answer, {**answer.where, **answer.against})
    other = _saturated(data, answer, pd.concat([rows[~rows[answer.axis].isin(own[answer.axis])], own]))
    if not found.usable and not other.usable:
        return msgspec.structs.replace(found, problem=f"{found.problem}; at {point_text(answer.against)}: {other.problem}")
    problems = [side.problem for side in (found, other) if side.usable and side.problem]
    return msgspec.structs.replace(
        found,
        usable=True,
        other_text=other.value_text,
        verdict=(f"{found.value_text}, {other.value_text}",),
        instead="",
        interval_text="; ".join(side.interval_text or side.problem or side.instead for side in (found, other)),
        problem="; ".join(dict.fromkeys(problems)),
    )


def _saturated(data: Data, answer: Answer, rows: pd.DataFrame) -> Found:
    metric = data.metric(answer.metric)
    if len(rows) < 2:
        return Found(problem=f"no two valid values of {words(answer.axis)}", usable=False)
    rows = rows.sort_values(answer.axis)
    higher = metric.polarity == HIGHER
    best = rows.loc[rows["value"].idxmax() if higher else rows["value"].idxmin()]
    away = abs(best["value"]) * answer.tolerance  # of the size: figures may be below zero
    limit = best["value"] - away if higher else best["value"] + away
    first, doubtful = None, None
    for _, row in rows.iterrows():
        reached = row["value"] >= limit if higher else row["value"] <= limit
        excluded = row["high"] < limit if higher else row["low"] > limit
        if reached:
            first = row
            break
        if not excluded:
            doubtful = row if doubtful is None else doubtful

    def said(row: pd.Series) -> str:
        return f"{quantity(row, metric.unit)} at {text_of(row[answer.axis])}"

    if first[answer.axis] == rows.iloc[-1][answer.axis]:
        before = rows.iloc[-2]
        text = f"not saturated by any {words(answer.axis)} measured: {said(before)}, {said(first)}"
        sure = doubtful is None or doubtful[answer.axis] != before[answer.axis]
        return Found(
            value_text=f"over {text_of(before[answer.axis])}",
            verdict=("beyond",),
            instead=text,
            problem="" if sure else f"unresolved: {text}, but the intervals do not exclude it",
            usable=False,
        )
    problem = "" if doubtful is None else f"it may be less, which is unresolved: {said(doubtful)}"
    return Found(
        value=float(first[answer.axis]),
        value_text=text_of(first[answer.axis]),
        verdict=(text_of(first[answer.axis]),),
        interval_text=f"{said(first)}, at most {said(best)}",
        problem=problem,
    )


def gain(data: Data, answer: Answer) -> Found:
    """How many times better than at `where` the metric gets along the axis; pairs of one process. `at least` while the last value of the axis is better
    than the one before by more than the tolerance: it may go on."""
    rows = data.medians[data.medians["metric"] == answer.metric]
    others = {name: value for name, value in answer.where.items() if name != answer.axis}
    values = sorted(set(along(data, answer, others).get(answer.axis, ())))
    if len(values) < 2 or answer.where[answer.axis] not in values:
        return Found(problem=f"no two valid values of {words(answer.axis)}", usable=False)
    shared = [name for name in parameter_columns(rows) if name != answer.axis]

    def times(worse: object, better: object) -> pd.Series:
        sides = [select(rows, {**others, answer.axis: value}, data.record) for value in (worse, better)]
        table = data.summarise(paired(*(sides if data.metric(answer.metric).polarity != HIGHER else sides[::-1]), shared))
        return table[table["main"]].iloc[0]

    steps = {value: times(answer.where[answer.axis], value) for value in values if value != answer.where[answer.axis]}
    known = {value: step for value, step in steps.items() if math.isfinite(step["ratio"])}
    if not known:
        return Found(problem=f"no pairs of {words(answer.metric)} over {words(answer.axis)}", usable=False)
    best = max(known, key=lambda value: known[value]["ratio"])
    row, last = known[best], times(*values[-2:])
    going_on = best == values[-1] and last["ratio"] > 1 + answer.tolerance
    problem = "" if math.isfinite(row["ratio_low"]) else f"unresolved{_why(row)}: too few pairs for an interval"
    design = design_text(row["blocks"], row["sessions"], row["distance"])
    return Found(
        value=float(row["ratio"]),
        low=float(row["ratio_low"]),
        high=float(row["ratio_high"]),
        unit="×",
        value_text=f"{'at least ' if going_on else ''}{format_number(row['ratio'])}×",
        interval_text=f"{interval_text(row['ratio_low'], row['ratio_high'], '×')} at {text_of(best)} {words(answer.axis)}, {design}",
        problem=problem,
    )


def knee(data: Data, answer: Answer) -> Found:
    """The last value of the axis before the metric is worse than at the first value by more than `tolerance`."""
    metric = data.metric(answer.metric)
    rows = along(data, answer)
    axis = next((a for a in data.record.axes if a.name == answer.axis), None)
    if len(rows) < 2 or axis is None:
        return Found(problem=f"no two valid values of {words(answer.axis)}", usable=False)
    order = {value: index for index, value in enumerate(axis.values)}
    rows = rows.loc[sorted(rows.index, key=lambda index: order.get(rows.at[index, answer.axis], len(order)))]
    first = rows.iloc[0]
    higher = metric.polarity == HIGHER
    limit = first["value"] * (1 - answer.tolerance if higher else 1 + answer.tolerance)

    def said(row: pd.Series) -> str:
        return f"{quantity(row, metric.unit)} at {text_of(row[answer.axis])}"

    beyond = rows[rows["value"] < limit if higher else rows["value"] > limit]
    if beyond.empty:
        none = f"no knee among the values of {words(answer.axis)} measured: {said(first)}, {said(rows.iloc[-1])}"
        sure = (rows["low"] >= limit).all() if higher else (rows["high"] <= limit).all()
        return Found(
            verdict=("beyond",),
            instead=none,
            problem="" if sure else f"unresolved: {none}, but the intervals do not exclude one",
            usable=False,
        )
    bent = beyond.iloc[0]
    last = rows.iloc[rows.index.get_loc(bent.name) - 1]
    sure = (bent["high"] < limit if higher else bent["low"] > limit) and (
        last["low"] >= limit if higher else last["high"] <= limit
    )
    return Found(
        value=float(order[last[answer.axis]]),
        value_text=text_of(last[answer.axis]),
        verdict=(text_of(last[answer.axis]),),
        interval_text=f"{said(last)}, {said(bent)}",
        problem="" if sure else "unresolved: the intervals do not tell on which side of the knee these lie",
    )


def capacity(data: Data, answer: Answer) -> Found:
    """Where a curve leaves one plateau for the next: it crosses their geometric mean between two measured values of the axis, which are the
    interval; the figure is interpolated in logarithms."""
    first, last = answer.where[answer.axis], answer.against[answer.axis]
    unit = next((axis.unit for axis in data.record.axes if axis.name == answer.axis), "")

    def said(value: float) -> str:
        return format_bytes(round(value)) if unit == "B" else format_number(value)

    where = {name: value for name, value in answer.where.items() if name != answer.axis}
    rows = along(data, answer, where)
    if not rows.empty:
        rows = rows[(rows[answer.axis] >= first) & (rows[answer.axis] <= last)].sort_values(answer.axis)
    points = list(zip(rows.get(answer.axis, ()), rows["value"], strict=True))
    if len(points) < 3 or points[0][0] != first or points[-1][0] != last:
        return Found(
            problem=f"too few valid samples of {words(answer.metric)} between {said(first)} and {said(last)}", usable=False
        )
    found = crossing(points)
    if not found:
        return Found(problem=f"the curve has no step between {said(first)} and {said(last)}", usable=False)
    return Found(
        value=found.at,
        low=found.low,
        high=found.high,
        unit=unit,
        value_text=said(found.at),
        interval_text=f"{said(found.low)} to {said(found.high)}",
    )


def crossover(data: Data, answer: Answer) -> Found:
    """Up to where along the axis the one at `where` wins against the one with `against`, or the other way round: the pairs' log ratio, interpolated linearly
    between the two measured values where its sign turns; the interval is where the ends of its own intervals turn."""
    rows = data.medians[data.medians["metric"] == answer.metric]
    sides = [select(rows, where, data.record, free=answer.axis) for where in (answer.where, answer.where | answer.against)]
    if any(side["value"].notna().sum() == 0 for side in sides) or answer.axis not in rows.columns:
        return no_figure(data, answer.metric, answer.where)
    table = data.summarise(paired(*sides, [p for p in parameter_columns(rows) if p not in answer.against]))
    table = table[table["main"] & table["ratio"].notna()].sort_values(answer.axis)
    names = [text_of(next(iter(point.values()))) for point in ({k: answer.where[k] for k in answer.against}, answer.against)]
    if data.metric(answer.metric).polarity != HIGHER:
        names.reverse()
    unit = next((axis.unit for axis in data.record.axes if axis.name == answer.axis), "")
    places = [float(value) for value in table[answer.axis]]
    middle, low, high = ([math.log(ratio) for ratio in table[column]] for column in ("ratio", "ratio_low", "ratio_high"))
    if len(places) < 2 or not all(map(math.isfinite, (*low, *high))):
        return Found(problem=f"too few pairs of {' and '.join(names)} over {words(answer.axis)}", usable=False)
    first, second = names if middle[0] > 0 else names[::-1]
    near, far = (low, high) if middle[0] > 0 else ([-x for x in high], [-x for x in low])  # towards the turn, and away from it
    at, earliest, latest = (_turn(places, curve) for curve in ([x * math.copysign(1, middle[0]) for x in middle], near, far))
    span = f"{_place(places[0], unit)} to {_place(places[-1], unit)}"
    if at is None:
        said = f"{first} is ahead of {second} at every {words(answer.axis)} from {span}"
        return Found(
            value_text=said,
            verdict=(first,),
            unit=unit,
            problem="" if earliest is None else "unresolved: the intervals do not exclude that the other is",
        )
    design = design_text(int(table["blocks"].min()), int(table["sessions"].min()), "")
    return Found(
        value=at,
        low=earliest if earliest is not None else places[0],
        high=latest if latest is not None else places[-1],
        unit=unit,
        value_text=f"{first} is ahead up to {_place(at, unit)}, then {second}",
        interval_text=f"{_place(earliest, unit) if earliest is not None else span} to {_place(latest, unit) if latest is not None else f'over {_place(places[-1], unit)}'}, {design}",
        problem=""
        if earliest is not None and latest is not None and near[0] > 0
        else "unresolved: the intervals do not tell who is ahead at both ends",
    )


def _turn(places: list[float], curve: list[float]) -> float | None:
    """Where a curve first falls below 0, by linear interpolation; None where it never does."""
    if curve[0] < 0:
        return places[0]
    for (a, x), (b, y) in itertools.pairwise(zip(places, curve, strict=True)):
        if y < 0:
            return a + (b - a) * x / (x - y)
    return None


def _place(value: float, unit: str) -> str:
    if unit == "B":
        return format_bytes(round(value))
    return format_quantity(value, unit) if unit else format_number(value)
