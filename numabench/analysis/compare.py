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
from .estimate import cell_means, natural, process_medians, shares, t_half_width
from .judging import column, judge
from .quantities import all_of, differences, shared_quantities
from .rows import WORSE, headline_rows, in_order
from .segments import Ordered, counts, group_codes, moments
from .structure import class_medians, match_classes, parameter_columns, with_distance

#: Standard deviation (in logs) between visits to one machine, assumed where a side has one visit only. Measured 1 %
#: on a virtual machine; without it 8-91 % of A/A comparisons are called different (METHODOLOGY: the unit).
ASSUMED_SESSION_SD = 0.01
#: From so many machines a side on, the machine is the unit and the verdict is about the models (METHODOLOGY: the unit).
GROUP_MACHINES = 3
#: Outlying machines: |x - median| / (1.4826 MAD) above 3.5 (Iglewicz and Hoaglin 1993), of at least this many.
OUTLIER_Z, MAD_TO_SD, OUTLIER_MACHINES = 3.5, 1.4826, 5
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
    outliers: pd.DataFrame
    notes: tuple[str, ...] = ()  # how cells of CPUs were matched, where not by number
    summary: dict[str, int] = field(default_factory=dict)
    comparisons: int = 0
    exit_code: int = OK
    same: float = 0.03
    q: float = 0.05
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
) -> Comparison:
    """`new` against `base`: verdict `same` within a factor 1 + `same`, false discovery rate `q` over all claims. `across_builds`: kernels of one version
    that were built anew on one machine are compared, too. `prices` of base and new: what the rows are for one unit of money. `only` these benchmarks.

    Never raises over results that cannot be compared: they are listed in `refused` or as `incomparable` cells.
    """
    (left, right), twins = told_apart([base.headers, new.headers])
    base, new = (msgspec.structs.replace(log, headers=headers) for log, headers in ((base, left), (new, right)))
    base, new, notes = aligned(base, new)
    notes = (*twins, *notes)
    one_machine = len(identity.machine_ids(base) | identity.machine_ids(new)) == 1
    frames = [with_distance(samples(log)) for log in (base, new)]
    if only:  # distances are classes of all that was measured
        base, new = (restricted(log, only) for log in (base, new))
        frames = [frame[frame["benchmark"].isin(only)] for frame in frames]
    refused = identity.refusals(base, new, across_builds)
    medians = [process_medians(frame) for frame in frames]
    pairs = shared_quantities(base.benchmarks, new.benchmarks)
    gaps = [differences(rows, all_of(pairs)) for rows in medians]
    means = [cell_means(pd.concat([rows, gap]) if len(gap) else rows) for rows, gap in zip(medians, gaps, strict=True)]
    both = side_by_side(_matched(means, frames, one_machine))
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
        outliers=pd.concat(
            [outliers(m, same).assign(side=s) for m, s in zip(means, ("base", "new"), strict=True)], ignore_index=True
        ),
        summary={verdict: found[verdict] for verdict in VERDICTS},
        comparisons=int(cells["p"].notna().sum()),
        exit_code=_exit_code(found, rows),
        same=same,
        q=q,
        priced=priced,
    )


def _exit_code(cells: Mapping[str, int], rows: pd.DataFrame) -> int:
    """REGRESSION where a cell or a row is worse, INCOMPARABLE where none was compared; `cells`: verdict -> how many."""
    if cells["slower"] or (rows["verdict"] == WORSE).any():
        return REGRESSION
    return OK if any(cells[verdict] for verdict in COMPARABLE) or rows["change"].notna().any() else INCOMPARABLE


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
    n, mean, variance, df = _sums(rows, at, group, "")
    kept = _sums(rows, at, group, "_kept")[1:]
    assumed = counts(at, size, single * ASSUMED_SESSION_SD**2) / np.maximum(1, n) ** 2
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
    in_order = known.drop_duplicates(list(KEY))[[*KEY, *names, "unit", "polarity"]]
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
        half = t_half_width(variance, df)
        for end, x in (("", mean), ("_low", mean - half), ("_high", mean + half)):
            judged[f"{side}{end}"] = natural(x, linear > 0)
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


def outliers(means: pd.DataFrame, practical: float = 0.03) -> pd.DataFrame:
    """Machines far from the median of their group: rows of `cell_means` (main classes, several machines) that stand out.

    |x - median| / (1.4826 MAD) > 3.5 on logs and more than `practical` away; cells with fewer than five machines are not judged.
    Columns: benchmark, case, metric, machine, machine_id, unit, value, median, z, size_ratio (value / median).
    """
    rows = means[means["main"] & np.isfinite(means["mean"]) & ~means["linear"]]
    codes, first = group_codes(rows, KEY)
    logs = rows["mean"].to_numpy(dtype=float)
    median = Ordered(logs, codes, len(first)).median()[codes]
    away = np.abs(logs - median)
    deviation = MAD_TO_SD * Ordered(away, codes, len(first)).median()[codes]
    with np.errstate(divide="ignore", invalid="ignore"):
        z = away / deviation
    out = (counts(codes, len(first))[codes] >= OUTLIER_MACHINES) & (z > OUTLIER_Z) & (away > np.log1p(practical))
    table = rows[[*KEY, "machine", "machine_id", "unit"]].assign(
        value=np.exp(logs), median=np.exp(median), z=z, size_ratio=np.exp(logs - median)
    )
    return table[out].reset_index(drop=True)
