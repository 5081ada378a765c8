"""Two sides of run logs, cell by cell: a ratio with its interval, a verdict, and the reasons for it.

Sides of several parts by Satterthwaite's rule; the test itself is in `judging`, the few lines that are read first in `rows`.
What is not the same quantity is refused, never compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from ..errors import INCOMPARABLE, OK, REGRESSION
from ..model import HIGHER, LOWER
from ..runlog.export import samples
from ..runlog.read import RunLog
from ..runlog.twins import told_apart
from . import identity
from .align import aligned
from .estimate import RANGE, cell_means, interval, natural, process_medians, shares, t_half_width, with_drift
from .judging import column, judge
from .quantities import all_of, differences, shared_quantities
from .rows import headline_rows, in_order, worse
from .segments import counts, group_codes, moments
from .structure import class_medians, match_classes, parameter_columns, with_circumstances

#: Standard deviation (in logs) between visits to one machine where a side has one visit only: what its parts tell (`drift`), at least
#: LEAST_SESSION_SD, which no short visit can rule out; assumed where they tell nothing.
LEAST_SESSION_SD, ASSUMED_SESSION_SD = 0.003, 0.01
LEAST_ALIKE = 0.6  # of the other side's processes a visit: fewer scatter more than those visits tell
LEAST_VISITS = 5  # to one machine that tell by themselves how far its figures move from visit to visit
#: From so many machines a side on, the machine is the unit and the verdict is about the models (METHODOLOGY: the unit).
GROUP_MACHINES = 3
VERDICTS = ("faster", "slower", "same", "unresolved", "incomparable", "failed")
COMPARABLE = VERDICTS[:4]
KEY = ("benchmark", "case", "metric")
SIDE = frozenset(
    (
        *("distance", "mean", "variance", "df", "assumed", "mean_kept", "variance_kept", "df_kept"),
        *("machines", "linear", "single", "main", "group", "failed", "pages"),
    )
)  # what `side_means` says of a side


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. `cells`: one row per cell and distance class with columns benchmark, case, the parameters,
    metric, unit, polarity, distance, distance_new, main, base, base_low, base_high, new, new_low, new_high (unit of the metric, 95 %), ratio
    (new / base), low, high, p, p_adjusted, verdict, reasons. `means`: benchmark, metric, unit, polarity, ratio (geometric
    mean over the cells that both sides have), cells. `rows`: one row per headline quantity, worse first (see `rows.headline_rows`)."""

    base_machines: list[dict[str, Any]]
    new_machines: list[dict[str, Any]]
    same_machine: bool
    cells: pd.DataFrame
    rows: pd.DataFrame
    means: pd.DataFrame
    differs: list[tuple[str, str, str]]
    refused: list[tuple[str, str]]
    notes: tuple[str, ...] = ()  # how cells of CPUs were matched, where not by number
    summary: dict[str, int] = field(default_factory=dict)
    comparisons: int = 0
    exit_code: int = OK
    same: float = 0.03
    q: float = 0.05
    least: float | None = (
        None  # the change (a share) from which on a row that is worse makes the exit code 1; None: any, and any cell
    )
    priced: pd.DataFrame | None = None  # `rows` of the work done for one unit of money, where prices of base and new are given


def compare(
    base: RunLog,
    new: RunLog,
    same: float = 0.03,
    q: float = 0.05,
    *,
    across_builds: bool = False,
    prices: tuple[float, float] | None = None,
    only: Collection[str] = (),
    least: float | None = None,
) -> Comparison:
    """`new` against `base`: verdict `same` within a factor 1 + `same`, false discovery rate `q` over all claims. `across_builds`: kernels of one version
    that were built anew on one machine are compared, too. `prices` of base and new: what the rows are for one unit of money. `only` these benchmarks.
    `least`: the change (a share) from which on a row that is worse makes the exit code 1, as of a gate; without it any is, and any cell.

    Never raises over results that cannot be compared: they are listed in `refused` or as `incomparable` cells.
    """
    (left, right), twins = told_apart([base.headers, new.headers])
    base, new = (msgspec.structs.replace(log, headers=headers) for log, headers in ((base, left), (new, right)))
    base, new, notes = aligned(base, new)
    notes = (*twins, *notes)
    one_machine = len(identity.machine_ids(base) | identity.machine_ids(new)) == 1
    frames = [with_circumstances(samples(log)) for log in (base, new)]
    if only:  # distances are classes of all that was measured
        base, new = (restricted(log, only) for log in (base, new))
        frames = [frame[frame["benchmark"].isin(only)] for frame in frames]
    refused = identity.refusals(base, new, across_builds)
    medians = [process_medians(frame) for frame in frames]
    pairs = shared_quantities(base.benchmarks, new.benchmarks)
    gaps = [differences(rows, all_of(pairs)) for rows in medians]
    medians = [pd.concat([rows, gap], ignore_index=True) if len(gap) else rows for rows, gap in zip(medians, gaps, strict=True)]
    means = _matched([with_drift(cell_means(rows), rows) for rows in medians], frames, one_machine)
    both = side_by_side(as_told(means) if one_machine else means)
    for side, log in (("base", base), ("new", new)):
        kinds = identity.page_kinds(log)
        both[f"pages_{side}"] = [kinds.get(key, frozenset()) for key in zip(both["benchmark"], both["case"], strict=True)]
    judged = judge(both, _obstacles(both, base, new, refused, one_machine), one_machine, same, q)
    rows = in_order(headline_rows(judged, pairs, one_machine, same, q))
    priced = in_order(headline_rows(judged, pairs, one_machine, same, q, prices)) if prices else None
    own = {name for gap in gaps for name in gap["metric"].unique()}
    cells = _cell_table(judged[~judged["metric"].isin(own)].reset_index(drop=True))
    found = Counter(cells["verdict"])
    return Comparison(
        base_machines=identity.machines(base),
        new_machines=identity.machines(new),
        same_machine=one_machine,
        cells=cells,
        rows=rows,
        means=geometric_means(cells),
        differs=identity.other_differences(base, new),
        refused=refused,
        notes=notes,
        summary={verdict: found[verdict] for verdict in VERDICTS},
        comparisons=int(cells["p"].notna().sum()),
        exit_code=_exit_code(found, rows, least),
        same=same,
        q=q,
        least=least,
        priced=priced,
    )


def _exit_code(found: Mapping[str, int], rows: pd.DataFrame, least: float | None) -> int:
    """REGRESSION where a row is worse by `least`, without it where any cell or row is; INCOMPARABLE where none was compared. `found`: verdict of cells -> how many."""
    if len(worse(rows, least)) or (least is None and found["slower"]):
        return REGRESSION
    return OK if any(found[verdict] for verdict in COMPARABLE) or rows["change"].notna().any() else INCOMPARABLE


def restricted(log: RunLog, names: Collection[str]) -> RunLog:
    """What a log says of these benchmarks."""
    parts = {
        "benchmarks": tuple(b for b in log.benchmarks if b.name in names),
        "trials": tuple(t for t in log.trials if t.benchmark in names),
    }
    return msgspec.structs.replace(log, **parts)


def _matched(means: list[pd.DataFrame], frames: list[pd.DataFrame], one_machine: bool) -> list[pd.DataFrame]:
    """Adds `match`: on one machine the base's label of the same class; between machines the main class of each side."""
    means = [m[m["main"] | np.isfinite(m["mean"])] for m in means]
    if not one_machine:
        return [m[m["main"]].assign(match="") for m in means]
    same_class = match_classes(*(class_medians(frame) for frame in frames))
    strangers = {label: f"{label} in new" for label in means[1]["distance"] if label}
    return [
        means[0].assign(match=means[0]["distance"]),
        means[1].assign(match=means[1]["distance"].map(lambda label: same_class.get(label, strangers.get(label, "")))),
    ]


def as_told(means: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """One machine's `cell_means` (with `match`), where a side has few visits but both together LEAST_VISITS of them, with the variance between visits that
    these tell: what a single visit may be off by is then known, and no more assumed.

    Of each cell by itself: pooled over a benchmark's cells (Smyth 2004) intervals of five visits would be a seventh narrower, but cells move together from
    visit to visit, and three times as many comparisons of a machine with itself would hold a false claim (METHODOLOGY).
    """
    both = pd.concat([side.assign(side=number) for number, side in enumerate(means)], ignore_index=True)
    codes, first = group_codes(both, (*KEY, "match"))
    visits = both["sessions"].to_numpy(dtype=float)
    free = np.maximum(visits - 1, 0.0)
    df, few = counts(codes, len(first), free), counts(codes, len(first), visits < LEAST_VISITS)
    a_visit = both["processes"].to_numpy(dtype=float) / np.maximum(visits, 1)  # processes
    usual = np.zeros(len(first))
    np.maximum.at(usual, codes, a_visit)
    alike = counts(codes, len(first), (visits > 0) & (a_visit < LEAST_ALIKE * usual[codes])) == 0
    told = ((df >= LEAST_VISITS - 1) & (few > 0) & alike)[codes]
    for end in ("", "_kept"):
        own = both[f"variance{end}"].to_numpy(dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            scatter = counts(codes, len(first), np.where(free > 0, own * visits * free, 0.0)) / df
            scatter = np.maximum(scatter, LEAST_SESSION_SD**2)[codes] / np.maximum(visits, 1)
            scatter = np.where(visits < LEAST_VISITS, np.fmax(scatter, own), scatter)  # few visits may scatter more by themselves
            # one estimate on both sides: Satterthwaite's rule, which takes them for two, is to come to its degrees of freedom
            each = df * counts(codes, len(first), scatter**2) / counts(codes, len(first), scatter) ** 2
        both[f"variance{end}"] = np.where(told, scatter, own)
        both[f"df{end}"] = np.where(told, each[codes], both[f"df{end}"].to_numpy(dtype=float))
    both["told"] = told
    return [both[both["side"] == number].drop(columns="side").reset_index(drop=True) for number in range(len(means))]


def side_means(means: pd.DataFrame, grouped: np.ndarray) -> pd.DataFrame:
    """Machines' `cell_means` (with `match`) reduced to one row per cell and class; `grouped` marks the rows of groups.

    `mean`; `variance` and `df` of it as estimated; `assumed`, the variance added for sides with one session. In a group the
    machine is the unit; otherwise the machines are these very machines, whose own variances add up (Satterthwaite).
    """
    codes, first = group_codes(means, (*KEY, "match"))
    size, group = len(first), grouped[first]
    usable = np.isfinite(means["mean"].to_numpy(dtype=float))
    at, rows = codes[usable], means[usable]
    single = rows["sessions"].to_numpy() < 2
    if "told" in rows:
        single &= ~rows["told"].to_numpy(dtype=bool)
    n, mean, variance, df = _sums(rows, at, group, "")
    kept = _sums(rows, at, group, "_kept")[1:]
    drift = np.fmax(rows["drift"].fillna(ASSUMED_SESSION_SD**2).to_numpy(dtype=float), LEAST_SESSION_SD**2)
    assumed = counts(at, size, single * drift) / np.maximum(1, n) ** 2
    return (
        means.iloc[first][[*KEY, "match", "distance"]]
        .reset_index(drop=True)
        .assign(
            mean=mean,
            variance=variance,
            df=df,
            **dict(zip(("mean_kept", "variance_kept", "df_kept"), kept, strict=True)),
            assumed=np.where(group, 0.0, assumed),
            machines=n,
            linear=counts(codes, size, means["linear"]) > 0,
            single=counts(at, size, single) > 0,
            main=counts(codes, size, means["main"]) > 0,
            group=group,
            failed=shares(pd.DataFrame({name: counts(codes, size, means[name]) for name in ("samples", "soft", "hard")}))[1],
        )
    )


def _sums(rows: pd.DataFrame, at: np.ndarray, group: np.ndarray, end: str) -> tuple[np.ndarray, ...]:
    """(machines, mean, variance of it, its df) per group `at` of the means that end in `end`."""
    size = len(group)
    own, df = rows[f"variance{end}"].to_numpy(dtype=float), rows[f"df{end}"].to_numpy(dtype=float)
    n, mean, among = moments(rows[f"mean{end}"].to_numpy(dtype=float), at, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        within = counts(at, size, own) / n**2
        fourth = counts(at, size, own**2 / df) / n**4
        within_df = np.where(fourth > 0, within**2 / fourth, counts(at, size, df))
        return n, mean, np.where(group, among / n, within), np.where(group, n - 1.0, within_df)


def side_by_side(means: list[pd.DataFrame]) -> pd.DataFrame:
    """Outer join of both sides' cells in the order of the logs: KEY, the parameters, unit and polarity, `match`, and the
    columns of `side_means` with suffixes _base and _new."""
    machines = [m[np.isfinite(m["mean"])].drop_duplicates([*KEY, "machine_id"]).value_counts(list(KEY)) for m in means]
    groups = [m.index[m >= GROUP_MACHINES] for m in machines]
    of_groups = groups[0].intersection(groups[1])
    sides = [
        side_means(m, pd.MultiIndex.from_frame(m[list(KEY)]).isin(of_groups) if len(of_groups) else np.zeros(len(m), dtype=bool))
        for m in means
    ]
    both = sides[0].merge(sides[1], on=[*KEY, "match"], how="outer", suffixes=("_base", "_new"), sort=False)
    known = pd.concat(means, ignore_index=True)
    names = [*dict.fromkeys([*parameter_columns(means[0]), *parameter_columns(means[1])])]
    in_order = known.drop_duplicates(list(KEY))[[*KEY, *names, "unit", "polarity", *(name for name in RANGE if name in known)]]
    return in_order.merge(both, on=list(KEY), how="inner")


def _obstacles(
    both: pd.DataFrame, base: RunLog, new: RunLog, refused: list[tuple[str, str]], one_machine: bool
) -> list[tuple[str, str, np.ndarray]]:
    """(verdict, reason code, mask) for every reason not to judge a cell, the strongest first."""
    found = [
        ("incomparable", code, (both["benchmark"] == name).to_numpy())
        for name, reason in refused
        for code in identity.reason_codes(reason)
    ]
    pages = zip(both["pages_base"], both["pages_new"], strict=True)
    found.append(("incomparable", "page_size", np.fromiter((bool(b and n and b != n) for b, n in pages), bool, len(both))))
    there = [np.isfinite(both[f"mean_{side}"].to_numpy(dtype=float)) for side in ("base", "new")]
    listed = [both[f"distance_{side}"].notna().to_numpy() for side in ("base", "new")]
    cell, first = group_codes(both, KEY)
    for side, log, here, row in zip(("base", "new"), (base, new), there, listed, strict=True):
        found.append(("failed", f"no_valid_samples_{side}", row & ~here))
        elsewhere = counts(cell, len(first), here)[cell] > 0
        if one_machine:
            found.append(("incomparable", "distance", ~row & elsewhere))
        failed = both["benchmark"].isin(identity.failed_benchmarks(log)).to_numpy()
        found.append(("failed", f"failed_trials_{side}", ~row & ~elsewhere & failed))
        found.append(("incomparable", "only_new" if side == "base" else "only_base", ~row & ~elsewhere & ~failed))
    for name in ("linear_base", "linear_new"):
        found.append(("incomparable", "not_positive", both[name].fillna(False).to_numpy(dtype=bool)))
    return [*found, ("incomparable", "polarity_unknown", ~both["polarity"].isin((LOWER, HIGHER)).to_numpy())]


def _cell_table(judged: pd.DataFrame) -> pd.DataFrame:
    """`judge`d cells with both sides' values and intervals in the metric's unit, columns as in `Comparison`."""
    for side in ("base", "new"):
        mean, variance, df, linear = (column(judged, name)[side == "new"] for name in ("mean", "variance", "df", "linear"))
        judged[side] = natural(mean, linear > 0)
        judged[f"{side}_low"], judged[f"{side}_high"] = interval(judged, mean, t_half_width(variance, df), linear > 0)
    labels = [judged[f"distance_{side}"].fillna("") for side in ("base", "new")]
    judged["distance"] = labels[0].where(judged["distance_base"].notna(), labels[1])
    judged["distance_new"] = labels[1]
    judged["main"] = judged["main_base"].where(judged["main_base"].notna(), judged["main_new"]).astype(bool)
    known = set(KEY) | {"match", "group_base", "group_new"}
    suffixed = {name for name in judged.columns if name.endswith(("_base", "_new")) and name.rsplit("_", 1)[0] in SIDE}
    parameters = [name for name in parameter_columns(judged) if name not in known | suffixed]
    return judged[
        [
            "benchmark",
            "case",
            *parameters,
            "metric",
            "unit",
            "polarity",
            "distance",
            "distance_new",
            "main",
            *(f"{side}{end}" for side in ("base", "new") for end in ("", "_low", "_high")),
            "ratio",
            "low",
            "high",
            "p",
            "p_adjusted",
            "verdict",
            "reasons",
        ]
    ]


def geometric_means(cells: pd.DataFrame) -> pd.DataFrame:
    """Per benchmark, metric and unit the geometric mean of the ratios over main cells that both sides have, and their number."""
    rows = cells[cells["main"] & cells["ratio"].notna()]
    codes, first = group_codes(rows, ("benchmark", "metric", "unit"))
    n, mean, _ = moments(np.log(rows["ratio"].to_numpy(dtype=float)), codes, len(first))
    return (
        rows.iloc[first][["benchmark", "metric", "unit", "polarity"]].reset_index(drop=True).assign(ratio=np.exp(mean), cells=n)
    )
