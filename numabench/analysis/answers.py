"""The questions of a run log answered in sentences: a figure, its 95 % interval and the design behind it, per machine."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..model import HIGHER, Answer, BenchmarkRecord, Frozen, Metric
from ..runlog.export import samples
from ..runlog.read import RunLog
from ..units import format_bytes, format_number, format_quantity
from .estimate import FEW_BLOCKS, contrasts_of, estimate_cells, paired, process_medians, summarise_pairs
from .firmware import verdict
from .segments import text_of
from .structure import parameter_columns, with_distance

NAN = float("nan")
STEP = 1.2  # a plateau that is no more than this times the one before is no step


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


class _Found(Frozen):
    """What a kind of answer fills a template with; `problem` is a sentence saying what is missing or unresolved."""

    value: float = NAN
    low: float = NAN
    high: float = NAN
    unit: str = ""
    value_text: str = "–"
    interval_text: str = ""
    distance: str = ""
    ranking: str = ""
    problem: str = ""
    usable: bool = True  # the template makes sense in spite of a problem


class _Data(Frozen):
    """One benchmark on one machine."""

    record: BenchmarkRecord
    medians: pd.DataFrame
    estimates: pd.DataFrame
    contrasts: pd.DataFrame
    topology: dict
    others: pd.DataFrame  # estimates of all benchmarks on the machine

    def metric(self, name: str) -> Metric:
        return next((m for m in self.record.metrics if m.name == name), Metric(name=name, unit="", polarity="lower"))


def answers(log: RunLog) -> list[Answered]:
    """Every declared answer of every benchmark, per machine, in the order of the log."""
    frame = with_distance(samples(log))
    medians, estimates = process_medians(frame), estimate_cells(frame)
    contrasts = contrasts_of(medians, log.benchmarks)
    machines = {h.run: (str(h.machine.get("id", "unknown")), str(h.machine.get("alias", "unknown"))) for h in log.headers}
    topologies = {str(h.machine.get("id", "unknown")): h.machine.get("topology") or {} for h in log.headers}
    records = {(machines.get(b.run, ("unknown", "unknown")), b.name): b for b in log.benchmarks}  # the last visit's words
    found = []
    for ((identity, alias), name), record in records.items():
        data = _Data(
            record=record,
            topology=topologies.get(identity, {}),
            others=estimates[estimates["machine_id"] == identity],
            **{
                key: t[(t["machine_id"] == identity) & (t["benchmark"] == name)]
                for key, t in (("medians", medians), ("estimates", estimates), ("contrasts", contrasts))
            },
        )
        found += [
            _answer(data, alias, answer)
            for answer in record.answers
            if answer.kind != "agreement" or _other_rows(data, answer) is not None
        ]
    return found


def _answer(data: _Data, machine: str, answer: Answer) -> Answered:
    finders = {
        "cell": _cell,
        "difference": _pairwise,
        "ratio": _pairwise,
        "threshold": _threshold,
        "saturation": _saturation,
        "knee": _knee,
        "reach": _reach,
        "agreement": _agreement,
        "capacity": _capacity,
        "firmware": _firmware,
        "ranking": _ranking,
    }
    finder = finders.get(answer.kind)
    found = finder(data, answer) if finder else _Found(problem=f"no reader for answers of kind {answer.kind!r}", usable=False)
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


class _Blanks(dict):
    """Placeholders that nothing fills stay visible instead of failing."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


def _sentence(data: _Data, answer: Answer, found: _Found) -> str:
    """The template filled, the interval appended where it has no place for it, and the problem said."""
    if not found.usable:
        return f"{data.record.title}: {found.problem}."
    blanks = _Blanks(
        {
            **{k: text_of(v) for k, v in answer.where.items()},
            "value": found.value_text,
            "interval": found.interval_text,
            "ranking": found.ranking,
            "distance": found.distance or "no distance",
        }
    )
    text = answer.text.format_map(blanks).rstrip()
    if "{interval}" not in answer.text and found.interval_text:
        text = f"{text.rstrip('.')} ({found.interval_text})" + (
            "." if text.endswith(".") or not text.endswith(("!", "?")) else ""
        )
    return f"{text} {found.problem[0].upper()}{found.problem[1:]}." if found.problem else text


def _matching(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """Rows at `where`; none where a column is missing."""
    for name, value in where.items():
        if name not in table.columns:
            return table.iloc[:0]
        table = table[(table[name] == value).fillna(False).astype(bool)]
    return table


def _select(table: pd.DataFrame, where: Mapping[str, object], record: BenchmarkRecord, free: str | None = None) -> pd.DataFrame:
    """Rows at `where`; an axis that it does not name is held at its first declared value that has rows (`free`: stays free)."""
    table = _matching(table, where)
    for axis in record.axes:
        if axis.name in where or axis.name == free or axis.name not in table.columns or table.empty:
            continue
        present = set(table[axis.name].dropna())
        first = next((v for v in axis.values if v in present), None)
        if first is not None:
            table = table[(table[axis.name] == first).fillna(False).astype(bool)]
    return table


def _point(where: Mapping[str, object]) -> str:
    return " ".join(f"{k}={text_of(v)}" for k, v in where.items()) or "any point"


def _plural(n: int, noun: str) -> str:
    return f"{int(n)} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def design_text(processes: int, sessions: int, distance: str) -> str:
    """`8 processes, 1 session, hop 27 ns`."""
    return ", ".join([_plural(processes, "process"), _plural(sessions, "session"), *([f"hop {distance}"] if distance else [])])


def _leading(text: str) -> tuple[float, str]:
    """Number and suffix: `10.0 ns` and `10.00 ns` say the same."""
    number, _, suffix = text.rstrip("×").partition(" ")
    return (float(number) if number != "–" else NAN), suffix


def interval_text(low: float, high: float, unit: str) -> str:
    """`26.8–27.4 ns`, `-0.2 to 0.3 ns`, `1.02–1.05×`: as many digits (3 to 6) as keep the ends apart."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    for digits in range(3, 7):
        ends = [f"{format_number(x, digits)}×" if unit == "×" else format_quantity(x, unit, digits) for x in (low, high)]
        if low == high or _leading(ends[0]) != _leading(ends[1]):
            break
    number, _, suffix = ends[0].partition(" ")
    if unit == "×":
        number, suffix = ends[0].rstrip("×"), "×"
    shared = suffix and ends[1].endswith(suffix if unit == "×" else f" {suffix}") and ends[1].count(" ") == ends[0].count(" ")
    return f"{number if shared else ends[0]}{' to ' if low < 0 else '–'}{ends[1]}"


def _main(data: _Data, answer: Answer) -> pd.DataFrame:
    """Estimates of the asked metric that have a value, each cell at its main distance."""
    rows = data.estimates
    return rows[(rows["metric"] == answer.metric) & rows["main"] & rows["value"].notna()]


def _along(data: _Data, answer: Answer) -> pd.DataFrame:
    """The asked metric at `where` for every value of the axis; no rows where the axis is unknown."""
    rows = data.estimates[(data.estimates["metric"] == answer.metric) & data.estimates["main"]]
    rows = _select(rows, answer.where, data.record, free=answer.axis)
    return rows[rows["value"].notna()] if answer.axis in rows.columns else rows.iloc[:0]


def _quantity(row: pd.Series, unit: str) -> str:
    """`120 ns [118–122 ns]`."""
    return f"{format_quantity(row['value'], unit)} [{interval_text(row['low'], row['high'], unit)}]"


def _cell(data: _Data, answer: Answer) -> _Found:
    rows = _select(
        data.estimates[(data.estimates["metric"] == answer.metric) & data.estimates["main"]], answer.where, data.record
    )
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return _Found(problem=f"no valid samples of {answer.metric} at {_point(answer.where)}", usable=False)
    row = rows.iloc[0]
    unit = data.metric(answer.metric).unit
    design = design_text(row["processes"], row["sessions"], row["distance"])
    problem = "" if math.isfinite(row["low"]) else "unresolved: too few processes for an interval"
    if "disturbed" in row["reasons"]:
        problem = f"unresolved: {row['disturbed']:.0%} of the samples were disturbed"
    return _Found(
        value=float(row["value"]),
        low=float(row["low"]),
        high=float(row["high"]),
        unit=unit,
        distance=row["distance"],
        value_text=format_quantity(row["value"], unit),
        interval_text=f"{interval_text(row['low'], row['high'], unit)}, {design}",
        problem=problem,
    )


def _pairwise(data: _Data, answer: Answer) -> _Found:
    """`difference` and `ratio`: of the pairs of one process at `where` and at `where` with `against` put over it."""
    rows = data.medians[data.medians["metric"] == answer.metric]
    other = {**answer.where, **answer.against}
    values, controls = _select(rows, answer.where, data.record), _select(rows, other, data.record)
    for point, side in ((answer.where, values), (other, controls)):
        if side["value"].notna().sum() == 0:
            return _Found(problem=f"no valid samples of {answer.metric} at {_point(point)}", usable=False)
    shared = [p for p in parameter_columns(rows) if p not in answer.against]
    table = summarise_pairs(paired(values, controls, shared))
    row = table[table["main"]].iloc[0]
    if not row["blocks"]:
        return _Found(
            problem=f"nothing at {_point(answer.where)} was measured in one process and at one distance with "
            f"{_point(answer.against)}",
            usable=False,
        )
    unit = "×" if answer.kind == "ratio" else data.metric(answer.metric).unit
    value, low, high = (float(row[f"{answer.kind}{end}"]) for end in ("", "_low", "_high"))
    nothing = 1.0 if answer.kind == "ratio" else 0.0
    problem = ""
    if not math.isfinite(low):
        problem = f"unresolved: {_plural(row['blocks'], 'pair')}, at least {FEW_BLOCKS} are needed for an interval"
    elif "disturbed" in row["reasons"]:
        problem = "unresolved: more than a fifth of the samples were disturbed"
    elif low <= nothing <= high:
        problem = "unresolved: the interval includes no difference (1×, or 0)"
    text = f"{format_number(value)}×" if unit == "×" else format_quantity(value, unit)
    design = design_text(row["blocks"], row["sessions"], row["distance"])
    return _Found(
        value=value,
        low=low,
        high=high,
        unit=unit,
        distance=row["distance"],
        value_text=text,
        interval_text=f"{interval_text(low, high, unit)}, {design}",
        problem=problem,
    )


def _free_and_costly(row: pd.Series, polarity: str, tolerance: float) -> tuple[bool, bool]:
    """(certainly within the tolerance of the control, certainly beyond it) by the ratio's interval.

    Where a fifth was disturbed nothing is called free; a cost far outside the tolerance stays one.
    """
    calm = "disturbed" not in row["reasons"]
    if polarity == HIGHER:
        return calm and row["ratio_low"] > 1 - tolerance, row["ratio_high"] < 1 - tolerance
    return calm and row["ratio_high"] < 1 + tolerance, row["ratio_low"] > 1 + tolerance


def _threshold(data: _Data, answer: Answer) -> _Found:
    """The smallest value of the axis from which on nothing costs more than `tolerance` over the contrast's control."""
    contrast = next((c for c in data.record.contrasts if c.axis == answer.axis and c.metric == answer.metric), None)
    axis = next((a for a in data.record.axes if a.name == answer.axis), None)
    if contrast is None or axis is None:
        return _Found(problem=f"no contrast over {answer.axis} is declared for {answer.metric}", usable=False)
    table = data.contrasts
    table = table[(table["axis"] == answer.axis) & (table["metric"] == answer.metric) & (table["control"] == contrast.control)]
    table = _select(table, answer.where, data.record, free=answer.axis)
    if table.empty or not table["blocks"].sum():
        return _Found(problem=f"no pairs of {answer.metric} over {answer.axis} at {_point(answer.where)}", usable=False)
    distance = table.groupby("distance")["blocks"].sum().idxmax()
    table = table[(table["distance"] == distance) & (table[answer.axis] > 0)].sort_values(answer.axis, ascending=False)
    polarity = data.metric(answer.metric).polarity
    last, blocker = None, None
    for _, row in table.iterrows():
        free, costly = _free_and_costly(row, polarity, answer.tolerance)
        if not free:
            blocker = (row, costly)
            break
        last = row
    return _threshold_found(answer, axis.unit, contrast.control, last, blocker, distance)


def _reach(data: _Data, answer: Answer) -> _Found:
    """The last value of the axis before the contrast at `where` costs more than `tolerance` over its control."""
    contrast = next((c for c in data.record.contrasts if c.axis in answer.where and c.metric == answer.metric), None)
    table = data.contrasts
    if contrast is not None:
        table = table[(table["axis"] == contrast.axis) & (table["metric"] == answer.metric)]
        table = _select(table, answer.where, data.record, free=answer.axis)
        table = table[table["ratio"].notna()].sort_values(answer.axis) if answer.axis in table.columns else table.iloc[:0]
    if contrast is None or table.empty:
        return _Found(problem=f"no pairs of {answer.metric} over {answer.axis} at {_point(answer.where)}", usable=False)
    polarity = data.metric(answer.metric).polarity
    judged = [(row, *_free_and_costly(row, polarity, answer.tolerance)) for _, row in table.iterrows()]
    beyond = next((index for index, (_, _, costly) in enumerate(judged) if costly), len(judged))

    def said(row: pd.Series) -> str:
        ratio = interval_text(row["ratio_low"], row["ratio_high"], "×")
        return f"at {text_of(row[answer.axis])} the ratio is {format_number(row['ratio'])} ({ratio})"

    if not beyond:
        return _Found(problem=f"none of the values is free: {said(judged[0][0])}", usable=False)
    last, free, _ = judged[beyond - 1]
    if beyond == len(judged):
        return _Found(problem=f"no {answer.axis} measured costs more than {answer.tolerance:.0%}: {said(last)}", usable=False)
    return _Found(
        value=float(last[answer.axis]),
        value_text=text_of(last[answer.axis]),
        interval_text=f"{said(last)}, {said(judged[beyond][0])}, {design_text(last['blocks'], last['sessions'], '')}",
        problem="" if free else "unresolved: the interval there does not exclude a cost",
    )


def _why(row: pd.Series | None) -> str:
    """What keeps a contrast from being resolved, where it is not the width of its interval."""
    if row is None:
        return ""
    if "few_blocks" in row["reasons"]:
        return f" ({row['blocks']} pairs, at least {FEW_BLOCKS} are needed)"
    return " (more than a fifth of the samples were disturbed)" if "disturbed" in row["reasons"] else ""


def _threshold_found(
    answer: Answer, unit: str, control: object, last: pd.Series | None, blocker: tuple[pd.Series, bool] | None, distance: str
) -> _Found:
    def size(value: object) -> str:
        return f"{text_of(value)} {unit}".rstrip()

    def ratio(row: pd.Series) -> str:
        return f"at {size(row[answer.axis])} the ratio to {size(control)} is {format_number(row['ratio'])} ({interval_text(row['ratio_low'], row['ratio_high'], '×')})"

    if last is None:
        row, costly = blocker if blocker else (None, False)
        said = f": {ratio(row)}" if row is not None else ""
        verdict = "no value below the control is free" if costly else f"unresolved{_why(row)}"
        return _Found(unit=unit, distance=distance, problem=f"{verdict}{said}", usable=False)
    design = design_text(last["blocks"], last["sessions"], distance)
    problem = (
        "" if blocker is None or blocker[1] else f"it may be less, which is unresolved{_why(blocker[0])}: {ratio(blocker[0])}"
    )
    return _Found(
        value=float(last[answer.axis]),
        unit=unit,
        distance=distance,
        value_text=size(last[answer.axis]),
        interval_text=f"{ratio(last)}, {design}",
        problem=problem,
    )


def _saturation(data: _Data, answer: Answer) -> _Found:
    """The smallest value of the axis whose metric is within `tolerance` of the best one over the whole axis, by the intervals."""
    metric = data.metric(answer.metric)
    rows = _along(data, answer)
    if len(rows) < 2:
        return _Found(problem=f"no two valid values of {answer.axis} at {_point(answer.where)}", usable=False)
    rows = rows.sort_values(answer.axis)
    higher = metric.polarity == HIGHER
    best = rows.loc[rows["value"].idxmax() if higher else rows["value"].idxmin()]
    limit = best["value"] * (1 - answer.tolerance if higher else 1 + answer.tolerance)
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
        return f"{_quantity(row, metric.unit)} at {text_of(row[answer.axis])}"

    if first[answer.axis] == rows.iloc[-1][answer.axis]:
        return _Found(
            problem=f"at {_point(answer.where)} not saturated by any {answer.axis} measured: {said(rows.iloc[-2])}, {said(first)}",
            usable=False,
        )
    problem = "" if doubtful is None else f"it may be less, which is unresolved: {said(doubtful)}"
    return _Found(
        value=float(first[answer.axis]),
        value_text=text_of(first[answer.axis]),
        interval_text=f"{said(first)}, at most {said(best)}",
        problem=problem,
    )


def _knee(data: _Data, answer: Answer) -> _Found:
    """The last value of the axis before the metric is worse than at the first value by more than `tolerance`."""
    metric = data.metric(answer.metric)
    rows = _along(data, answer)
    axis = next((a for a in data.record.axes if a.name == answer.axis), None)
    if len(rows) < 2 or axis is None:
        return _Found(problem=f"no two valid values of {answer.axis} at {_point(answer.where)}", usable=False)
    order = {value: index for index, value in enumerate(axis.values)}
    rows = rows.loc[sorted(rows.index, key=lambda index: order.get(rows.at[index, answer.axis], len(order)))]
    first = rows.iloc[0]
    higher = metric.polarity == HIGHER
    limit = first["value"] * (1 - answer.tolerance if higher else 1 + answer.tolerance)

    def said(row: pd.Series) -> str:
        return f"{_quantity(row, metric.unit)} at {text_of(row[answer.axis])}"

    beyond = rows[rows["value"] < limit if higher else rows["value"] > limit]
    if beyond.empty:
        return _Found(
            problem=f"no knee among the values of {answer.axis} measured: {said(first)}, {said(rows.iloc[-1])}", usable=False
        )
    bent = beyond.iloc[0]
    last = rows.iloc[rows.index.get_loc(bent.name) - 1]
    sure = (bent["high"] < limit if higher else bent["low"] > limit) and (
        last["low"] >= limit if higher else last["high"] <= limit
    )
    return _Found(
        value=float(order[last[answer.axis]]),
        value_text=text_of(last[answer.axis]),
        interval_text=f"{said(last)}, {said(bent)}",
        problem="" if sure else "unresolved: the intervals do not tell on which side of the knee these lie",
    )


def _other_rows(data: _Data, answer: Answer) -> pd.Series | None:
    """The one cell of another benchmark that an agreement is asked with; None where it was not measured."""
    rows = _matching(data.others[data.others["main"] & data.others["value"].notna()], answer.against)
    return rows.iloc[0] if len(rows) == 1 else None


def _agreement(data: _Data, answer: Answer) -> _Found:
    """Whether another benchmark found the same for the same quantity: intervals that exclude each other contradict each other."""
    mine, other = _cell(data, answer), _other_rows(data, answer)
    if not mine.usable:
        return mine
    unit = data.metric(answer.metric).unit
    name = str(answer.against["benchmark"])
    said = f"{mine.value_text} [{interval_text(mine.low, mine.high, unit)}] here, {_quantity(other, unit)} by {name}"
    problem = ""
    if not all(map(math.isfinite, (mine.low, mine.high, other["low"], other["high"]))):
        problem = "unresolved: an interval is missing"
    elif mine.high < other["low"] or other["high"] < mine.low:
        problem = "a contradiction: the intervals exclude each other, so that one of the two is wrong or the machine has changed between them"
    return _Found(
        value=mine.value, low=mine.low, high=mine.high, unit=unit, value_text=mine.value_text, interval_text=said, problem=problem
    )


def _capacity(data: _Data, answer: Answer) -> _Found:
    """Where a curve leaves one plateau for the next: it crosses their geometric mean between two measured values of the axis, which are the
    interval; the figure is interpolated in logarithms."""
    first, last = answer.where[answer.axis], answer.against[answer.axis]
    where = {name: value for name, value in answer.where.items() if name != answer.axis}
    rows = data.estimates[(data.estimates["metric"] == answer.metric) & data.estimates["main"]]
    rows = _select(rows, where, data.record, free=answer.axis)
    rows = rows[rows["value"].notna()].sort_values(answer.axis)
    rows = rows[(rows[answer.axis] >= first) & (rows[answer.axis] <= last)]
    points = list(zip(rows[answer.axis].astype(float), rows["value"], strict=True))
    if len(points) < 3 or points[0][0] != first or points[-1][0] != last:
        return _Found(problem=f"too few valid samples of {answer.metric} between {first} and {last}", usable=False)
    limit = math.sqrt(points[0][1] * points[-1][1])
    beyond = next((index for index, (_, value) in enumerate(points) if value > limit), None)
    if not beyond or points[-1][1] < STEP * points[0][1]:
        return _Found(problem=f"the curve has no step between {first} and {last}", usable=False)
    (a, low), (b, high) = points[beyond - 1], points[beyond]
    share = math.log(limit / low) / math.log(high / low)
    unit = next((axis.unit for axis in data.record.axes if axis.name == answer.axis), "")
    size = math.exp(math.log(a) + share * math.log(b / a))
    return _Found(
        value=size,
        low=a,
        high=b,
        unit=unit,
        value_text=format_bytes(round(size)) if unit == "B" else format_number(size),
        interval_text=" to ".join(format_bytes(int(end)) if unit == "B" else format_number(end) for end in (a, b)),
    )


def _firmware(data: _Data, answer: Answer) -> _Found:
    """Distances that the firmware claims between nodes against a measured matrix (`firmware.py`)."""
    metric = data.metric(answer.metric)
    rows = _matching(_main(data, answer), answer.where)
    if len(rows) < 2:
        return _Found(problem=f"fewer than two cells with valid samples at {_point(answer.where)}", usable=False)
    rho, said, problem = verdict(data.topology, rows, metric.polarity, metric.unit)
    return _Found(value=rho, unit="1", value_text=format_number(rho, 2), interval_text=said, problem=problem)


def _ranking(data: _Data, answer: Answer) -> _Found:
    """Values of the axis best first; `≈` joins neighbours that are not resolved."""
    metric = data.metric(answer.metric)
    rows = _select(data.estimates[data.estimates["metric"] == answer.metric], answer.where, data.record, free=answer.axis)
    rows = rows[rows["value"].notna()]
    if rows.empty or answer.axis not in rows.columns:
        return _Found(problem=f"no valid samples of {answer.metric} over {answer.axis} at {_point(answer.where)}", usable=False)
    distance = rows.groupby("distance")["processes"].sum().idxmax()
    rows = rows[rows["distance"] == distance].sort_values("value", ascending=metric.polarity != HIGHER)
    names = [text_of(v) for v in rows[answer.axis]]
    parts, open_pairs = [], []
    for position, (_, row) in enumerate(rows.iterrows()):
        if position:
            apart = _resolved(data, answer, rows.iloc[position - 1], row)
            parts.append((" > " if metric.polarity == HIGHER else " < ") if apart else " ≈ ")
            open_pairs += [] if apart else [f"{names[position - 1]} and {names[position]}"]
        parts.append(
            (names[position], format_quantity(row["value"], metric.unit), interval_text(row["low"], row["high"], metric.unit))
        )
    best = rows.iloc[0]
    problem = "" if len(rows) > 1 else f"only {names[0]} has been measured"
    if open_pairs and len(open_pairs) == len(rows) - 1:
        problem = "unresolved: no two neighbours are told apart"
    design = design_text(int(rows["processes"].min()), int(rows["sessions"].min()), distance)
    return _Found(
        value=float(best["value"]),
        low=float(best["low"]),
        high=float(best["high"]),
        unit=metric.unit,
        distance=distance,
        value_text=names[0],
        ranking=_chain(parts),
        interval_text=f"95 % intervals in brackets, {design}",
        problem=problem,
    )


def _chain(parts: list[str | tuple[str, str, str]]) -> str:
    """Signs and (name, value, interval) in a row; a unit that all share is said once, at the end."""
    units = {text.partition(" ")[2] for part in parts if isinstance(part, tuple) for text in part[1:]}
    shared = units.pop() if len(units) == 1 else ""

    def say(part: str | tuple[str, str, str]) -> str:
        if isinstance(part, str):
            return part
        name, value, interval = (text.removesuffix(shared).rstrip() for text in part)
        return f"{name} {value} [{interval}]"

    return f"{''.join(map(say, parts))} {shared}".rstrip()


def _resolved(data: _Data, answer: Answer, one: pd.Series, other: pd.Series) -> bool:
    """Whether two neighbours differ: on pairs of one process where there are enough, else by their own intervals."""
    rows = data.medians[(data.medians["metric"] == answer.metric) & (data.medians["distance"] == one["distance"])]
    pairs = paired(
        rows[rows["case"] == one["case"]],
        rows[rows["case"] == other["case"]],
        [p for p in parameter_columns(rows) if p != answer.axis],
    )
    if np.isfinite(pairs["gap"]).sum() >= FEW_BLOCKS:
        row = summarise_pairs(pairs).iloc[0]
        return not row["difference_low"] <= 0 <= row["difference_high"]
    if not all(np.isfinite([one["low"], one["high"], other["low"], other["high"]])):
        return False
    return bool(one["high"] < other["low"] or other["high"] < one["low"])
