"""The few lines that a comparison is read by: one row for each headline quantity, with a verdict of its own.

A row of one cell has that cell's verdict. A row of several is their geometric mean: the mean of their paired ratios in logs, whose standard
deviation is taken for the mean of theirs. It is no larger, however much cells of one process or visit vary together, so that a
row is never surer than what it is made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import special

from ..model import HIGHER, LOWER
from .answers.evidence import matching
from .estimate import natural, t_half_width
from .judging import EQUIVALENCE, column, judge
from .quantities import Pair, Quantity

WORSE, BETTER, SAME, UNKNOWN = ROW_VERDICTS = ("worse", "better", "same", "not known")
OF_CELLS = {"slower": WORSE, "faster": BETTER, "same": SAME}  # every other verdict of a cell is UNKNOWN
UNTESTED = ("incomparable", "failed")
#: Reasons of a cell that say how much is known of it, or that the other side has it at another point: not that it is another quantity.
KNOWLEDGE = {"only_base", "only_new", "failed_proofs", "disturbed", "few_processes", "one_session", "these_machines"}
SIDES = ("base", "new")
VALUES = [f"{side}{end}" for side in SIDES for end in ("", "_low", "_high")]
POOLED = ("mean", "variance", "df", "mean_kept", "variance_kept", "df_kept", "assumed", "failed", "group", "single")
ROW_COLUMNS = (
    *("quantity", "benchmark", "metric", "unit", "polarity"),
    *VALUES,
    *("change", "low", "high", "p", "p_adjusted", "verdict", "reasons", "points"),
    *("cells", "worse", "better", "same", "not_known", "processes", "visits", "seen"),
)
POWER = 0.84  # standard deviations by which four of five comparisons are no further off
CLAIM = 0.9985  # one-sided: what survives the correction for some hundred claims
LEAST_PROCESSES = 8.0  # a side that has too few for an interval
MOST_PROCESSES = 64  # a case; where more would be needed, visits are asked for
MOST_VISITS = 12


def headline_rows(
    judged: pd.DataFrame,
    pairs: Sequence[Pair],
    one_machine: bool,
    same: float,
    q: float,
    prices: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """One row for each quantity, columns ROW_COLUMNS, in the order given; `judged`: all cells, as `judging.judge` returns them.

    Values and their intervals are in the unit of the metric; `change` is new / base - 1, of the work done for one unit of money where there are
    `prices` of base and new: then more is better whatever the metric. `points`: whether the two sides' points differ. `worse` to `not_known` count the quantity's `cells`.
    `processes` and `visits`: how many a side are likely to settle a row that is not known (NaN: nothing tells). `seen`: the change (a share) that four of five such comparisons
    would find.
    """
    pairs, taken = _chosen(pairs, [_taken(judged, *pair) for pair in pairs])
    pooled = pd.DataFrame([_pooled(sides) for _, sides, _ in taken], columns=[f"{n}_{s}" for s in SIDES for n in POOLED])
    of = [pair[0] for pair in pairs]
    about = [mine.iloc[0] if len(mine) else {"unit": "", "polarity": ""} for mine, _, _ in taken]
    pooled["polarity"] = [row["polarity"] for row in about]
    means = pooled.astype({name: float for name in pooled.columns if name != "polarity"})
    compared = np.array([both for _, _, both in taken], dtype=bool)
    tested = _priced(means, prices) if prices else means
    found = judge(tested, [("incomparable", "", ~compared)], one_machine, same, q, judged["p"].dropna().to_numpy())
    rows = found[["p", "p_adjusted", "verdict", "reasons"]].assign(
        quantity=[x.name for x in of],
        benchmark=[x.benchmark for x in of],
        metric=[x.metric for x in of],
        unit=[row["unit"] for row in about],
        polarity=pooled["polarity"],
        change=found["ratio"] - 1,
        low=found["low"] - 1,
        high=found["high"] - 1,
        points=[b.point != n.point for b, n in pairs],
        **_values(means),
    )
    rows["verdict"] = rows["verdict"].map(OF_CELLS).fillna(UNKNOWN)
    for at, (mine, sides, both) in enumerate(taken):
        counts = mine["verdict"].map(OF_CELLS).fillna(UNKNOWN).value_counts() if len(mine) else {}
        for verdict in ROW_VERDICTS:
            rows.loc[at, verdict.replace(" ", "_")] = int(counts.get(verdict, 0))
        one = sides[0].index.equals(sides[1].index) and len(sides[0]) == 1
        if both and one and not prices:
            cell = sides[0].iloc[0]
            rows.loc[at, ["p", "p_adjusted"]] = cell["p"], cell["p_adjusted"]
            rows.at[at, "verdict"], rows.at[at, "reasons"] = OF_CELLS.get(cell["verdict"], UNKNOWN), cell["reasons"]
        elif not both:
            rows.at[at, "reasons"] = _obstacles(mine)
    rows["cells"] = [len(mine) for mine, _, _ in taken]
    likely = [needed(row, rows.loc[at, "verdict"], same) if compared[at] else (math.nan,) * 2 for at, row in tested.iterrows()]
    rows["processes"], rows["visits"] = np.array(likely, dtype=float).reshape(-1, 2).T
    rows["seen"] = [seen(row) if compared[at] else math.nan for at, row in tested.iterrows()]
    counted = dict.fromkeys((*(v.replace(" ", "_") for v in ROW_VERDICTS), "cells"), "int64")
    return rows.reindex(columns=list(ROW_COLUMNS)).astype(counted)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Worse first, the largest change before smaller ones; then better, the same, and what is not known."""
    rank = rows["verdict"].map({verdict: n for n, verdict in enumerate(ROW_VERDICTS)}).to_numpy()
    size = np.abs(np.log1p(rows["change"].to_numpy(dtype=float)))
    size = np.where(rank <= ROW_VERDICTS.index(BETTER), -size, 0.0)
    return rows.iloc[np.lexsort((np.arange(len(rows)), size, rank))].reset_index(drop=True)


def worse(rows: pd.DataFrame, least: float | None) -> pd.DataFrame:
    """The rows that are worse by so much (a share) at least."""
    return rows[(rows["verdict"] == WORSE) & (np.abs(np.log1p(rows["change"].astype(float))) >= np.log1p(least or 0.0))]


Taken = tuple[pd.DataFrame, tuple[pd.DataFrame, pd.DataFrame], bool]


def _chosen(pairs: Sequence[Pair], taken: list[Taken]) -> tuple[list[Pair], list[Taken]]:
    """Of quantities that are called alike the first that is compared, else the first."""
    by_name: dict[str, int] = {}
    for at, (pair, (_, _, compared)) in enumerate(zip(pairs, taken, strict=True)):
        name = pair[0].name
        if name not in by_name or (compared and not taken[by_name[name]][2]):
            by_name[name] = at
    return [pairs[at] for at in by_name.values()], [taken[at] for at in by_name.values()]


def _at(cells: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    return cells if quantity.point is None else matching(cells, quantity.point)


def _taken(judged: pd.DataFrame, base: Quantity, new: Quantity) -> Taken:
    """(all cells of a quantity, those of base and of new that its figures come from, whether these are compared)."""
    own = judged[(judged["benchmark"] == base.benchmark) & (judged["metric"] == base.column)]
    sides = [_at(own, base), _at(own, new)]
    mine = own.loc[own.index.isin(sides[0].index) | own.index.isin(sides[1].index)]
    measured = [_measured(cells, side) for cells, side in zip(sides, SIDES, strict=True)]
    if base.best:
        measured = [_best(cells, side) for cells, side in zip(measured, SIDES, strict=True)]
        mine = mine[mine["case"].isin(pd.concat([cells["case"] for cells in measured]))]
    cases = [set(cells["case"]) for cells in measured]
    if (base.best or base.point != new.point) and [len(c) for c in cases] == [1, 1] and cases[0] != cases[1]:
        reasons = {code for cells in measured for codes in cells["reasons"] for code in codes}
        alike = set(measured[0]["pages_base"]) == set(measured[1]["pages_new"])
        return mine, tuple(measured), reasons <= KNOWLEDGE and alike  # one point of each machine, under one name
    free = mine[~mine["verdict"].isin(UNTESTED)]
    free = free[np.isfinite(free["p"])] if np.isfinite(free["p"]).any() else free
    free = free.sort_values(["main_base", "main_new"], ascending=False, kind="stable").drop_duplicates("case")
    return (mine, (free, free), True) if len(free) else (mine, tuple(measured), False)


def _best(cells: pd.DataFrame, side: str) -> pd.DataFrame:
    return cells.sort_values(f"mean_{side}", ascending=(cells["polarity"] == LOWER).any()).iloc[:1]


def _measured(cells: pd.DataFrame, side: str) -> pd.DataFrame:
    """The cells that a side has a figure for, each at its main distance."""
    known = np.isfinite(column(cells, "mean")[SIDES.index(side)]) & ~(column(cells, "linear")[SIDES.index(side)] > 0)
    return cells[known & (column(cells, "main")[SIDES.index(side)] > 0)]


def _pooled(sides: tuple[pd.DataFrame, pd.DataFrame]) -> list[float]:
    """POOLED of base and of new."""
    found = []
    for name, cells in zip(SIDES, sides, strict=True):
        values = {n: column(cells, n)[SIDES.index(name)] for n in POOLED}
        for n, x in values.items():
            if not len(x):
                found.append(math.nan)
            elif n in ("variance", "variance_kept", "assumed"):  # of a mean, however much its parts vary together
                found.append(float(np.mean(np.sqrt(x)) ** 2))
            else:
                found.append(float(x.min() if n in ("df", "df_kept", "group") else x.max() if n == "single" else x.mean()))
    return found


def _priced(means: pd.DataFrame, prices: tuple[float, float]) -> pd.DataFrame:
    """`means` of the work that one unit of money buys, in logs: a time's reciprocal, or a rate, over the price."""
    sign = np.where(means["polarity"] == LOWER, -1.0, 1.0)
    changed = {
        f"mean{end}_{side}": sign * means[f"mean{end}_{side}"] - math.log(price)
        for side, price in zip(SIDES, prices, strict=True)
        for end in ("", "_kept")
    }
    return means.assign(**changed, polarity=np.where(means["polarity"].isin((LOWER, HIGHER)), HIGHER, means["polarity"]))


def _values(means: pd.DataFrame) -> dict[str, np.ndarray]:
    """Both sides' values with their intervals in the metric's unit."""
    mean, variance, df = (column(means, name) for name in ("mean", "variance", "df"))
    found = {}
    for n, side in enumerate(SIDES):
        half = t_half_width(variance[n], df[n])
        for end, x in (("", mean[n]), ("_low", mean[n] - half), ("_high", mean[n] + half)):
            found[f"{side}{end}"] = natural(x, np.zeros(len(means), dtype=bool))
    return found


def _obstacles(cells: pd.DataFrame) -> tuple[str, ...]:
    """Why nothing of a quantity is compared: the reason that most of its cells have."""
    codes = pd.Series([reasons[0] for reasons in cells["reasons"] if reasons], dtype=object).value_counts()
    return (str(codes.index[0]),) if len(codes) else ("not_measured",)


def needed(row: pd.Series, verdict: str, same: float) -> tuple[float, float]:
    """(processes, visits) a side that would likely decide a row that is not known; NaN for what is not needed, or would not do."""
    nothing = (math.nan, math.nan)
    drawn, known = (row[f"{name}_base"] + row[f"{name}_new"] for name in ("variance", "assumed"))
    if verdict != UNKNOWN or row["group_base"] > 0:
        return nothing
    if not math.isfinite(drawn):
        return LEAST_PROCESSES, math.nan
    shift, band = abs(row["mean_new"] - row["mean_base"]), math.log1p(same)
    single = row["single_base"] > 0 or row["single_new"] > 0
    have = max(row["df_base"], row["df_new"]) + 1  # processes of one visit, or visits
    if single:
        n = np.arange(math.ceil(have) + 1, MOST_PROCESSES + 1)
        if (enough := n[_decided(shift, np.sqrt(drawn * have / n + known), 2 * n, band)]).size:
            return float(enough[0]), math.nan
    visits = np.arange((1 if single else math.ceil(have)) + 1, MOST_VISITS + 1)
    spread = np.sqrt((drawn + known) * (1 if single else have) / visits)
    enough = visits[_decided(shift, spread, 2 * visits - 2, band)]
    return (math.nan, float(enough[0])) if enough.size else nothing


def _decided(shift: float, spread: np.ndarray, df: np.ndarray, band: float) -> np.ndarray:
    """Whether a difference of `shift` would be called the same, or another, in four of five comparisons of these standard deviations."""
    ends = [special.stdtrit(df, level) + POWER for level in ((1 + EQUIVALENCE) / 2, CLAIM)]
    return (ends[0] * spread <= band - shift) | (ends[1] * spread <= shift)


def seen(row: pd.Series) -> float:
    """The change (a share) that four of five comparisons of these standard deviations would find, corrected for some hundred claims; NaN without an interval."""
    parts = [(row[f"variance_{side}"], row[f"df_{side}"]) for side in SIDES]
    total = sum(variance for variance, _ in parts) + row["assumed_base"] + row["assumed_new"]
    estimated = sum(variance**2 / df for variance, df in parts if df > 0)
    if not (math.isfinite(total) and total > 0 and all(df > 0 for _, df in parts)):
        return math.nan
    df = total**2 / estimated if estimated > 0 else math.inf
    return math.expm1((float(special.stdtrit(df, CLAIM)) + POWER) * math.sqrt(total))
