"""Answers about cells: one, two against each other, one of two benchmarks, several in order."""

from __future__ import annotations

import math
import re

import msgspec
import numpy as np
import pandas as pd

from ...model import HIGHER, Answer
from ...units import format_number, format_quantity, plural, shared_prefix
from ..estimate import FAILED_SHARE, FEW_BLOCKS, paired, sign_interval
from ..segments import text_of
from ..structure import parameter_columns
from .evidence import (
    NAN,
    NOTHING,
    Data,
    Found,
    along,
    design_text,
    doubt,
    interval_text,
    main_cells,
    matching,
    no_figure,
    quantity,
    select,
    template,
)

TRIALS = "trials"
MOST_RANKED = 6  # values of a ranking that a sentence names before the last one
RULE_OF_THREE = 3.0
OUTCOME = re.compile(r"(?:^|\|) *([0-9]{1,9}) ([^|]+)")  # a value and its word, of those that a metric's summary has between bars
MOST_OUTCOME, EXACT = 1e9, 1e-9
NO_DIFFERENCE = (
    "unresolved: the interval includes no difference"  # how the problem of a pair begins whose interval is all that is against it
)


def cell(data: Data, answer: Answer) -> Found:
    rows = select(data.estimates[(data.estimates["metric"] == answer.metric) & data.estimates["main"]], answer.where, data.record)
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return no_figure(data, answer.metric, answer.where)
    row = rows.iloc[0]
    unit = data.metric(answer.metric).unit
    design = design_text(row["processes"], row["sessions"], row["distance"])
    problem = "" if math.isfinite(row["low"]) else "unresolved: too few processes for an interval"
    if against := doubt(row):
        problem = f"unresolved: {against}"
    return Found(
        value=float(row["value"]),
        low=float(row["low"]),
        high=float(row["high"]),
        unit=unit,
        distance=row["distance"],
        value_text=format_quantity(row["value"], unit),
        interval_text=f"{interval_text(row['low'], row['high'], unit, row['sessions'])}, {design}",
        problem=problem,
    )


def occurrence(data: Data, answer: Answer) -> Found:
    """How often something was seen, per 10^8 trials; where it was not, what 95 % of such runs would have shown: three over the trials
    (Hanley & Lippman-Hand 1983). The log has their number as a metric of its own, `trials`."""
    rows = {
        name: select(data.medians[data.medians["metric"] == name], answer.where, data.record) for name in (answer.metric, TRIALS)
    }
    seen, trials = rows[answer.metric], rows[TRIALS]
    count = float((trials["value"] * trials["samples"]).sum())
    if not count or seen["value"].gt(0).any():
        found = cell(data, answer)
        if not found.usable:
            return found
        design = found.interval_text.partition(", ")[2]
        return msgspec.structs.replace(
            found,
            value_text=f"in {_rounded(found.value)} of 10^8 trials",
            interval_text=f"{_rounded(found.low)} to {_rounded(found.high)}, {design}"
            if math.isfinite(found.low)
            else found.interval_text,
        )
    limit, aside = RULE_OF_THREE / count * 1e8, int((trials["soft"] + trials["hard"]).sum())
    return Found(
        value=0.0,
        low=0.0,
        high=limit,
        unit=data.metric(answer.metric).unit,
        value_text=f"in none of {_rounded(count)} trials",
        interval_text=f"under {_rounded(limit)} of 10^8, {design_text((trials['samples'] > 0).sum(), trials['session'].nunique(), '')}",
        problem=f"{plural(aside, 'sample')} were set aside" if aside > FAILED_SHARE * (aside + trials["samples"].sum()) else "",
    )


def _rounded(count: float) -> str:
    """Three digits, with commas."""
    return f"{float(f'{count:.3g}'):,.{0 if count >= 100 else 1}f}"


def pairwise(data: Data, answer: Answer) -> Found:
    """`difference` and `ratio`: of the pairs of one process at `where` and at `where` with `against` put over it."""
    rows = data.medians[data.medians["metric"] == answer.metric]
    other = {**answer.where, **answer.against}
    values, controls = select(rows, answer.where, data.record), select(rows, other, data.record)
    for point, side in ((answer.where, values), (other, controls)):
        if side["value"].notna().sum() == 0:
            return no_figure(data, answer.metric, point)
    shared = [p for p in parameter_columns(rows) if p not in answer.against]
    table = data.summarise(paired(values, controls, shared))
    row = table[table["main"]].iloc[0]
    if not row["blocks"]:
        return no_pair(values, controls, shared)
    unit = "×" if answer.kind == "ratio" else data.metric(answer.metric).unit
    value, low, high = (float(row[f"{answer.kind}{end}"]) for end in ("", "_low", "_high"))
    nothing = 1.0 if answer.kind == "ratio" else 0.0
    problem, remark, verdict = "", "", ()
    if not math.isfinite(low):
        problem = f"unresolved: {plural(row['blocks'], 'pair')}, at least {FEW_BLOCKS} are needed for an interval"
    elif against := doubt(row):
        problem = f"unresolved: {against}"
    elif low <= nothing <= high:
        most = max(row["ratio_high"], 1 / row["ratio_low"]) - 1 if row["ratio_low"] > 0 else math.inf
        if most <= answer.tolerance:
            verdict, remark = ("same",), f"no difference beyond {most:.1%}"
        else:
            room = f", and one of {most:.0%}" if math.isfinite(most) else ""
            problem = f"{NO_DIFFERENCE}{room}"
    design = design_text(row["blocks"], row["sessions"], row["distance"])
    less = value < 0 and template(answer, value) != answer.text  # the sentence says so, and not the sign
    text = f"{format_number(value)}×" if unit == "×" else format_quantity(-value if less else value, unit)
    ends = (-high, -low) if less else (low, high)
    return Found(
        value=value,
        low=low,
        high=high,
        unit=unit,
        distance=row["distance"],
        value_text=text,
        interval_text=f"{interval_text(*ends, unit)}, {design}",
        verdict=verdict,
        remark=remark,
        problem=problem,
    )


def no_pair(values: pd.DataFrame, controls: pd.DataFrame, shared: list[str]) -> Found:
    """Why there is none, of process medians that both sides have: no process measured both; none has both left; or those that have measured them at two distances."""
    process = ["machine_id", "session", "block", "process"]
    both = values.merge(controls, on=[*process, *shared], suffixes=("", "_other"))
    if both.empty:
        problem = "its two sides were not measured in one process"
    elif both[["value", "value_other"]].notna().all(axis=1).any():
        problem = "no process measured its two sides at one distance"
    else:
        problem = f"of {plural(len(both[process].drop_duplicates()), 'process')} that measured both its sides none has a valid sample of each"
    return Found(problem=problem, usable=False)


def saving(data: Data, answer: Answer) -> Found:
    """By how large a share the cell at `where` is below that with `against` put over it. The interval is that of all pairs of values within the two."""
    mine = cell(data, answer)
    other = cell(data, msgspec.structs.replace(answer, where={**answer.where, **answer.against}))
    for found in (mine, other):
        if not found.usable:
            return found
    value, low, high = 1 - mine.value / other.value, 1 - mine.high / other.low, 1 - mine.low / other.high
    problem = mine.problem or other.problem
    if not problem and low <= 0 <= high:
        problem = "unresolved: the interval includes nothing"
    return Found(
        value=value,
        low=low,
        high=high,
        unit="1",
        value_text=f"{value:.0%}",
        interval_text=f"{low:.1%} to {high:.1%}; {mine.value_text} for {other.value_text}"
        if math.isfinite(low)
        else "no interval",
        problem=problem,
    )


def effect(data: Data, answer: Answer) -> Found:
    """Whether there is one at all: the ratio of `pairwise` as a verdict. No effect: its interval is within the tolerance of 1; one: beyond it."""
    found = pairwise(data, msgspec.structs.replace(answer, kind="ratio"))
    if found.problem and not found.problem.startswith(NO_DIFFERENCE):
        return found
    most = max(abs(found.low - 1), abs(found.high - 1))
    if most <= answer.tolerance:
        return msgspec.structs.replace(found, value_text=f"no effect, below {most:.1%}", verdict=("none",), remark="", problem="")
    if found.low > 1 + answer.tolerance or found.high < 1 - answer.tolerance:
        return msgspec.structs.replace(found, value_text=f"an effect, {found.value_text}", verdict=("one",), problem="")
    open_end = f"unresolved: the interval does not tell no effect from one of over {answer.tolerance:.0%}"
    return msgspec.structs.replace(found, value_text=f"a ratio of {found.value_text}", problem=open_end)


def other_cell(data: Data, answer: Answer) -> pd.Series | None:
    """The one cell of another benchmark that an agreement is asked with; None where it was not measured."""
    rows = matching(data.others[data.others["main"] & data.others["value"].notna()], answer.against)
    return rows.iloc[0] if len(rows) == 1 else None


def agreement(data: Data, answer: Answer) -> Found:
    """Whether another benchmark found the same for the same quantity: intervals that exclude each other by more than the tolerance
    contradict each other."""
    mine, other = cell(data, answer), other_cell(data, answer)
    if not mine.usable:
        return mine
    unit = data.metric(answer.metric).unit
    name = str(answer.against["benchmark"])
    if other is None:
        return Found(problem=f"no figure of {name}: {NOTHING}", usable=False)
    said = f"{mine.value_text} [{interval_text(mine.low, mine.high, unit)}] here, {quantity(other, unit)} by {name}"
    problem = ""
    if not all(map(math.isfinite, (mine.low, mine.high, other["low"], other["high"]))):
        problem = "unresolved: an interval is missing"
    elif mine.high * (1 + answer.tolerance) < other["low"] or other["high"] * (1 + answer.tolerance) < mine.low:
        apart = f" by more than {answer.tolerance:.0%}" if answer.tolerance else ""
        problem = f"a contradiction: the intervals exclude each other{apart}, so that one of the two is wrong or the machine has changed between them"
    return Found(
        value=mine.value, low=mine.low, high=mine.high, unit=unit, value_text=mine.value_text, interval_text=said, problem=problem
    )


def best(data: Data, answer: Answer) -> Found:
    """The best cell along the axis; its interval is that cell's own."""
    rows = along(data, answer)
    if rows.empty:
        return no_figure(data, answer.metric, answer.where)
    order = rows.sort_values("value", ascending=data.metric(answer.metric).polarity != HIGHER)
    return cell(data, msgspec.structs.replace(answer, where={**answer.where, answer.axis: order.iloc[0][answer.axis]}))


def spread(data: Data, answer: Answer) -> Found:
    """From the least to the greatest of the cells at `where`, each at its main distance."""
    rows = matching(main_cells(data, answer), answer.where)
    if rows.empty:
        return no_figure(data, answer.metric, answer.where)
    unit = data.metric(answer.metric).unit
    low, high = float(rows["value"].min()), float(rows["value"].max())
    return Found(
        value=high / low if low else NAN,
        unit="×",
        value_text=interval_text(low, high, unit),
        interval_text=plural(len(rows), "cell"),
    )


def outcome(data: Data, answer: Answer) -> Found:
    """What is no quantity but one of several exact outcomes, in the words that the metric's summary has for its values ("0 copied|1 shared"): of the cells at `where`, or which
    values of the axis have which. A cell whose processes disagree leaves it open."""
    rows = matching(main_cells(data, answer), answer.where)
    axis = next((a for a in data.record.axes if a.name == answer.axis and a.name in rows.columns), None)
    if rows.empty:
        return no_figure(data, answer.metric, answer.where)
    words = {float(number): word.strip() for number, word in OUTCOME.findall(data.metric(answer.metric).summary)}
    numbers = [_exact(value) for value in rows["value"]]
    groups: dict[str, set] = {}
    for number, (_, row) in zip(numbers, rows.iterrows(), strict=True):
        groups.setdefault(words.get(number) or f"{number:g}", set()).add(row[axis.name] if axis else None)
    order = list(axis.values) if axis else []

    def among(values: set) -> str:
        known = sorted(values, key=lambda v: (order.index(v) if v in order else len(order), str(v)))
        return ", ".join(map(text_of, known))

    groups = dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))
    said = list(groups)
    if axis and (len(said) > 1 or len(groups[said[0]]) > 1):
        said = [f"{word}: {among(values)}" for word, values in groups.items()]
    medians = data.medians[(data.medians["metric"] == answer.metric) & (data.medians["samples"] > 0)]
    spread = matching(medians, answer.where).groupby("case")["value"].nunique().gt(1).sum()
    doubts = [against for _, row in rows.iterrows() if (against := doubt(row))]
    problem = f"unresolved: {plural(spread, 'cell')} had another outcome in some processes than in others" if spread else ""
    if doubts and not problem:
        problem = f"unresolved: {doubts[0]}"
    alone = numbers[0] if len({*numbers}) == 1 else NAN
    return Found(
        value=alone,
        low=alone,
        high=alone,
        unit=data.metric(answer.metric).unit,
        value_text="; ".join(said),
        interval_text=f"{plural(len(rows), 'cell')}, {design_text(int(rows['processes'].min()), int(rows['sessions'].min()), '')}",
        verdict=tuple(groups),
        problem=problem,
    )


def _exact(value: float) -> float:
    """The whole number that a mean of logarithms lies a little beside; where it is no such number, itself."""
    near = float(round(value)) if abs(value) < MOST_OUTCOME else value
    return near if math.isclose(value, near, rel_tol=EXACT, abs_tol=EXACT) else float(value)


def ranking(data: Data, answer: Answer) -> Found:
    """Values of the axis best first; `≈` joins neighbours that are not resolved."""
    metric = data.metric(answer.metric)
    rows = select(data.estimates[data.estimates["metric"] == answer.metric], answer.where, data.record, free=answer.axis)
    rows = rows[rows["value"].notna()]
    if rows.empty or answer.axis not in rows.columns:
        return no_figure(data, answer.metric, answer.where)
    distance = rows.groupby("distance")["processes"].sum().idxmax()
    rows = rows[rows["distance"] == distance].sort_values("value", ascending=metric.polarity != HIGHER)
    names = [text_of(v) for v in rows[answer.axis]]
    medians = data.medians[(data.medians["metric"] == answer.metric) & (data.medians["distance"] == distance)]
    factor, unit = shared_prefix(metric.unit, rows["value"])
    parts, open_pairs = [], []
    first = names[:1]  # those that the best cannot be told from, neighbour by neighbour
    for position, (_, row) in enumerate(rows.iterrows()):
        if position:
            asked = position < MOST_RANKED or len(open_pairs) == position - 1  # of what is not named, only whether any is apart
            apart = not asked or _resolved(data, answer, medians, rows.iloc[position - 1], row)
            parts.append((" > " if metric.polarity == HIGHER else " < ") if apart else " ≈ ")
            open_pairs += [] if apart else [f"{names[position - 1]} and {names[position]}"]
            first += [names[position]] if len(open_pairs) == position else []
        interval = interval_text(row["low"] / factor, row["high"] / factor, "", row["sessions"])
        parts.append(f"{names[position]} {format_number(row['value'] / factor)} [{interval}]")
    best = rows.iloc[0]
    problem = "" if len(rows) > 1 else f"only {names[0]} has been measured"
    if open_pairs and len(open_pairs) == len(rows) - 1:
        problem = "unresolved: no two neighbours are told apart"
    design = design_text(int(rows["processes"].min()), int(rows["sessions"].min()), distance)
    return Found(
        value=float(best["value"]),
        low=float(best["low"]),
        high=float(best["high"]),
        unit=metric.unit,
        distance=distance,
        value_text=names[0],
        verdict=tuple(first),
        ranking=_chain(parts, unit),
        interval_text=f"95 % intervals in brackets, {design}",
        problem=problem,
    )


def _chain(parts: list[str], unit: str) -> str:
    """Values and the signs between them in a row: the first ones and the last, and their unit once."""
    first, more = parts[: 2 * MOST_RANKED - 1], parts[2 * MOST_RANKED - 1 :]
    if len(more) <= 2:
        return f"{''.join(parts)} {unit}".rstrip()
    return f"{''.join(first)} {unit}".rstrip() + f", then {len(more) // 2 - 1} more and {more[-1]} {unit}".rstrip()


def _resolved(data: Data, answer: Answer, medians: pd.DataFrame, one: pd.Series, other: pd.Series) -> bool:
    """Whether two neighbours differ: on pairs of one process where there are enough, else by their own intervals. `medians`: of their metric and distance."""
    sides = (medians[(medians["case"] == row["case"]).to_numpy(dtype=bool)] for row in (one, other))
    gaps = paired(*sides, [p for p in parameter_columns(medians) if p != answer.axis])["gap"]
    gaps = gaps[np.isfinite(gaps)]
    if len(gaps) >= FEW_BLOCKS:
        low, high, _ = sign_interval(gaps, data.confidence)
        return not low <= 0 <= high
    if not all(np.isfinite([one["low"], one["high"], other["low"], other["high"]])):
        return False
    return bool(one["high"] < other["low"] or other["high"] < one["low"])
