"""Two sides of run logs, cell by cell: a ratio with its interval, a verdict, and the reasons for it.

Welch's t on means of logs (Welch 1947), sides of several parts by Satterthwaite's rule; claims corrected after
Benjamini and Hochberg (1995). What is not the same quantity is refused, never compared.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from scipy import stats

from ..errors import INCOMPARABLE, OK, REGRESSION
from ..model import HIGHER, LOWER
from ..runlog.export import samples
from ..runlog.read import RunLog
from ..runlog.twins import told_apart
from . import identity
from .align import aligned
from .estimate import FAILED_SHARE, cell_means, moved, natural, process_medians, shares, t_half_width
from .segments import Ordered, counts, group_codes, moments, reason_tuples
from .structure import class_medians, match_classes, parameter_columns, with_distance

#: Standard deviation (in logs) between visits to one machine, assumed where a side has one visit only. Measured 1 %
#: on a virtual machine; without it 8-91 % of A/A comparisons are called different (METHODOLOGY: the unit).
ASSUMED_SESSION_SD = 0.01
#: Two one-sided tests at 5 % each are one interval of 90 % (TOST; Schuirmann 1987): `same` is the answer where it lies within the band.
EQUIVALENCE = 0.90
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
        *("machines", "linear", "single", "main", "group", "failed"),
    )
)  # what `side_means` says of a side


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. `cells`: one row per cell and distance class with columns benchmark, case, the parameters,
    metric, unit, polarity, distance, distance_new, main, base, base_low, base_high, new, new_low, new_high (unit of the metric, 95 %), ratio
    (new / base), low, high, p, p_adjusted, verdict, reasons. `means`: benchmark, metric, unit, polarity, ratio (geometric
    mean over the cells that both sides have), cells."""

    base_machines: list[dict[str, Any]]
    new_machines: list[dict[str, Any]]
    same_machine: bool
    cells: pd.DataFrame
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


def compare(base: RunLog, new: RunLog, same: float = 0.03, q: float = 0.05) -> Comparison:
    """`new` against `base`: verdict `same` within a factor 1 + `same`, false discovery rate `q` over all claims.

    Never raises over results that cannot be compared: they are listed in `refused` or as `incomparable` cells.
    """
    (left, right), twins = told_apart([base.headers, new.headers])
    base, new = (msgspec.structs.replace(log, headers=headers) for log, headers in ((base, left), (new, right)))
    base, new, notes = aligned(base, new)
    notes = (*twins, *notes)
    refused = identity.refusals(base, new)
    one_machine = len(identity.machine_ids(base) | identity.machine_ids(new)) == 1
    frames = [with_distance(samples(log)) for log in (base, new)]
    means = [cell_means(process_medians(frame)) for frame in frames]
    both = side_by_side(_matched(means, frames, one_machine))
    cells = _cell_table(judge(both, _obstacles(both, base, new, refused, one_machine), one_machine, same, q))
    found = Counter(cells["verdict"])
    return Comparison(
        base_machines=identity.machines(base),
        new_machines=identity.machines(new),
        same_machine=one_machine,
        cells=cells,
        means=geometric_means(cells),
        differs=identity.other_differences(base, new),
        refused=refused,
        notes=notes,
        outliers=pd.concat(
            [outliers(m, same).assign(side=s) for m, s in zip(means, ("base", "new"), strict=True)], ignore_index=True
        ),
        summary={verdict: found[verdict] for verdict in VERDICTS},
        comparisons=int(cells["p"].notna().sum()),
        exit_code=REGRESSION if found["slower"] else OK if any(found[v] for v in COMPARABLE) else INCOMPARABLE,
        same=same,
        q=q,
    )


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
    kinds = [identity.page_kinds(log) for log in (base, new)]
    others = {key for key in kinds[0].keys() & kinds[1].keys() if kinds[0][key] != kinds[1][key]}
    if others:
        found.append(
            (
                "incomparable",
                "page_size",
                np.fromiter((key in others for key in zip(both["benchmark"], both["case"], strict=True)), bool, len(both)),
            )
        )
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


def _column(both: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A number of base and new, NaN where a side lacks the cell."""
    base, new = (both[f"{name}_{side}"].to_numpy(dtype=float, na_value=np.nan) for side in ("base", "new"))
    return base, new


def welch(
    means: tuple[np.ndarray, np.ndarray],
    variances: tuple[np.ndarray, np.ndarray],
    dfs: tuple[np.ndarray, np.ndarray],
    assumed: tuple[np.ndarray, np.ndarray],
    confidence: float = 0.95,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(shift, low, high, p) of the second mean against the first; variances are those of the means.

    `assumed` variances are known, not estimated: they widen the interval and raise the degrees of freedom (Satterthwaite).
    Without any variance the interval is a point and p is 0 or 1.
    """
    shift = means[1] - means[0]
    total = sum(variances) + sum(assumed)
    with np.errstate(divide="ignore", invalid="ignore"):
        estimated = sum(v**2 / np.where(d > 0, d, np.nan) for v, d in zip(variances, dfs, strict=True))
        df = np.where(estimated > 0, total**2 / estimated, np.where(np.isfinite(estimated), np.inf, np.nan))
        half = stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(total)
        p = 2 * stats.t.sf(np.abs(shift) / np.sqrt(total), df)
    p = np.where(total == 0, np.where(np.isnan(df), np.nan, np.where(shift == 0, 1.0, 0.0)), p)
    return shift, shift - half, shift + half, p


def judge(
    both: pd.DataFrame, obstacles: list[tuple[str, str, np.ndarray]], one_machine: bool, same: float, q: float
) -> pd.DataFrame:
    """`side_by_side` with ratio, low, high, p, p_adjusted, verdict, reasons."""
    blocked = np.logical_or.reduce([mask for _, _, mask in obstacles])
    (shift, low, high, p, adjusted), verdict = _tested(both, "", blocked, same, q)
    failed = np.logical_or.reduce([share > FAILED_SHARE for share in _column(both, "failed")]) & ~blocked
    kept, kept_verdict = _tested(both, "_kept", blocked, same, q)
    half = np.where(np.isfinite(high - low), (high - low) / 2, 0.0)
    disturbed = (verdict != "unresolved") & ((kept_verdict != verdict) | moved(shift, half, kept[0])) & ~blocked
    verdict[failed | disturbed] = "unresolved"
    for kind, _, mask in reversed(obstacles):
        verdict[mask] = kind
    group = (_column(both, "group")[0] > 0) & (_column(both, "group")[1] > 0)
    single = np.logical_or.reduce([s > 0 for s in _column(both, "single")])
    reasons = reason_tuples(
        (
            *((code, mask) for _, code, mask in obstacles),
            ("failed_proofs", failed),
            ("disturbed", disturbed),
            ("few_processes", ~blocked & ~np.isfinite(p)),
            ("one_session", ~blocked & ~group & single),
            ("these_machines", ~blocked & ~group & (not one_machine)),
        ),
        len(both),
    )
    return both.assign(
        ratio=np.exp(shift),
        low=np.exp(low),
        high=np.exp(high),
        p=p,
        p_adjusted=adjusted,
        verdict=verdict,
        reasons=pd.Series(reasons, dtype=object, index=both.index),
    )


def _tested(
    both: pd.DataFrame, end: str, blocked: np.ndarray, same: float, q: float
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """((shift, low, high, p, p adjusted), verdict) by the means that end in `end`."""
    columns = [_column(both, name) for name in (f"mean{end}", f"variance{end}", f"df{end}", "assumed")]
    shift, low, high, p = (np.where(blocked, np.nan, x) for x in welch(*columns))
    _, least, most, _ = welch(*columns, confidence=EQUIVALENCE)
    finite = np.isfinite(p)
    adjusted = np.full(len(both), np.nan)
    if finite.any():
        adjusted[finite] = stats.false_discovery_control(p[finite], method="bh")
    band = np.log1p(same)
    is_same = finite & (least >= -band) & (most <= band)
    claimed = finite & ~is_same & ((low > 0) | (high < 0)) & (adjusted <= q)
    better = np.where(both["polarity"] == LOWER, shift < 0, shift > 0)
    verdict = np.select([is_same, claimed & better, claimed], ["same", "faster", "slower"], "unresolved").astype(object)
    return (shift, low, high, p, adjusted), verdict


def _cell_table(judged: pd.DataFrame) -> pd.DataFrame:
    """`judge`d cells with both sides' values and intervals in the metric's unit, columns as in `Comparison`."""
    for side in ("base", "new"):
        mean, variance, df, linear = (_column(judged, name)[side == "new"] for name in ("mean", "variance", "df", "linear"))
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
