"""Estimates and paired contrasts with 95 % intervals. The unit is the session and the process, never the sample.

Model: log(value) = machine model + machine + session + process + sample (METHODOLOGY). A process reports the median of its
valid samples; above it, means of logs. Values that are not all positive (a count of 0) are averaged as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import special  # not scipy.stats, whose import takes longer than that of pandas: every run imports this

from ..model import BenchmarkRecord
from ..runlog.columns import SOFT
from .clock import at_usual_clock, calm_but_for_clock, follows
from .drift import drifts
from .segments import Ordered, counts, cut_of, group_codes, moments, nested_means, partners, reason_tuples
from .structure import label_hop, mains, own_columns, parameter_columns, with_circumstances

CONFIDENCE = 0.95
LEAST_PAIRS = 8  # processes before a contrast may stop: the sign test needs 6, and some are disturbed
#: Fewer processes than the first planned look (METHODOLOGY: looks at 5, 8, 12, 20, 32) say little about their spread.
FEW_PROCESSES = 5
#: Share of samples that failed a proof above which a cell resolves nothing (METHODOLOGY: every trial proves itself).
FAILED_SHARE = 0.20
#: What softly disturbed samples may move a value by, where its own interval is narrower.
LEAST_MOVE = 0.02
#: The fewest pairs whose extremes are a 95 % interval for the median: 1 - 2 / 2**6 = 0.969 (exact sign test).
FEW_BLOCKS = 6

CELL = ("machine_id", "benchmark", "case", "metric")
ENDS = (
    "",
    "_kept",
    "_raw",
)  # of the names of values: of valid samples, with the softly disturbed ones, at the clocks that there were
RANGE = ("least", "most")  # what the values of a metric cannot leave


def t_interval(logs: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """(mean, low, high) by Student's t on `logs`; low and high are NaN for fewer than two values."""
    values = np.asarray(logs, dtype=float)
    n, mean, variance = moments(values, np.zeros(len(values), dtype=np.int64), 1)
    half = t_half_width(variance / n, n - 1, confidence)
    return float(mean[0]), float(mean[0] - half[0]), float(mean[0] + half[0])


def t_half_width(variance: np.ndarray, df: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """Half-width of the t interval of means with this variance *of the mean*; NaN where `df` < 1."""
    with np.errstate(invalid="ignore"):
        return special.stdtrit(np.where(df > 0, df, np.nan), (1 + confidence) / 2) * np.sqrt(variance)


def sign_rank(n: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """1-based rank k so that [x_(k), x_(n+1-k)] covers the median with at least `confidence`; 0 when none does."""
    sizes, at = np.unique(n, return_inverse=True)
    tails = [np.searchsorted(special.bdtr(np.arange(size + 1), size, 0.5), (1 - confidence) / 2) for size in sizes]
    return np.array(tails, dtype=np.int64)[at]


def sign_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """(low, high, achieved): the exact sign-test interval for the median from order statistics (Conover, ch. 3).

    Distribution-free; `achieved` is the exact coverage for a continuous distribution. (NaN, NaN, 0.0) when `values`
    are too few for `confidence` (fewer than six at 95 %).
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    rank = int(sign_rank(np.array([n]), confidence)[0]) if n else 0
    if rank < 1:
        return float("nan"), float("nan"), 0.0
    return float(ordered[rank - 1]), float(ordered[n - rank]), float(1 - 2 * special.bdtr(rank - 1, n, 0.5))


def process_medians(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per machine, benchmark, case, metric, distance, session, block and process of tidy samples.

    Columns: these, machine, unit, polarity, the parameters, `value` (median of the valid samples, times and rates at the usual clock: `clock.at_usual_clock`), `log_value` (NaN
    unless the value is positive), the same of the valid and the softly disturbed ones (`value_kept`, `log_value_kept`) and of the valid ones at the clocks that there were (`value_raw`, `log_value_raw`), what the slope on the clock adds to their uncertainty (`clock_error`, `clock_fitted`: `clock.Clocked`),
    and how many are valid (`samples`), disturbed softly (`soft`: nothing but SOFT reasons) and failed a proof (`hard`). Without valid samples `value` is NaN.
    A sample of which nothing but its clock's change is said counts as valid where that is taken off.
    """
    frame = with_circumstances(frame)
    codes, first = group_codes(frame, (*CELL, "distance", "session", "block", "process"))
    raw = frame["value"].to_numpy(dtype=float)
    clocked = by_unit(frame["unit"], follows)
    valid = calm_but_for_clock(frame["valid"].to_numpy(dtype=bool), frame["reasons"].to_numpy(dtype=object), clocked)
    soft = ~valid & disturbed_softly(frame["reasons"])
    cells, cell = group_codes(frame, (*CELL, "distance", "session"))
    benchmarks, _ = group_codes(frame.iloc[cell], ("machine_id", "benchmark", "metric", "session"))
    clock = at_usual_clock(raw, valid, clocked, frame["slow"].to_numpy(dtype=float), cells, benchmarks)
    size = len(first)

    def medians(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
        usable = usable & np.isfinite(values)
        return Ordered(values[usable], codes[usable], size).median()

    kept = {"": (clock.values, valid), "_kept": (clock.values, valid | soft), "_raw": (raw, frame["valid"].to_numpy(dtype=bool))}
    found = {end: medians(*kept[end]) for end in ENDS}
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = {end: np.where(median > 0, np.log(median), np.nan) for end, median in found.items()}
    identity = [
        "machine",
        "machine_id",
        "benchmark",
        "case",
        "metric",
        "unit",
        "polarity",
        "distance",
        *(name for name in RANGE if name in frame),
        *parameter_columns(frame),
        "session",
        "block",
        "process",
    ]
    return (
        frame.iloc[first][identity]
        .reset_index(drop=True)
        .assign(
            **{f"value{end}": median for end, median in found.items()},
            **{f"log_value{end}": median for end, median in logs.items()},
            clock_error=medians(clock.error, valid | soft),
            clock_fitted=clock.fitted[first],
            samples=counts(codes, size, valid & np.isfinite(raw)).astype(np.int64),
            soft=counts(codes, size, soft).astype(np.int64),
            hard=counts(codes, size, ~(valid & np.isfinite(raw)) & ~soft).astype(np.int64),
        )
    )


def by_unit(units: pd.Series, of: Callable[[str], int]) -> np.ndarray:
    """`of` of each unit."""
    codes, names = pd.factorize(units, use_na_sentinel=False)
    return np.array([of(str(name)) for name in names], dtype=np.int64)[codes]


def disturbed_softly(reasons: pd.Series) -> np.ndarray:
    """Which of these texts of reasons say some, and none but SOFT ones."""
    codes, texts = pd.factorize(reasons, use_na_sentinel=False)
    known = np.fromiter((isinstance(t, str) and bool(t) and SOFT.issuperset(t.split()) for t in texts), bool, len(texts))
    return known[codes] if len(texts) else np.zeros(len(codes), dtype=bool)


def keeping(table: pd.DataFrame) -> pd.DataFrame:
    """`process_medians` had no softly disturbed sample been set aside."""
    return table.assign(
        value=table["value_kept"], log_value=table["log_value_kept"], samples=table["samples"] + table["soft"], soft=0
    )


def cell_means(medians: pd.DataFrame) -> pd.DataFrame:
    """One row per machine, cell and distance of `process_medians`: `mean`, `variance` of that mean, its `df`, the same with the softly disturbed samples (`*_kept`),
    and counts.

    Several sessions: the mean of session means and the variance among them; one session: the same on its processes.
    On logs, except where `linear` (some value is not positive).
    """
    cells, first = group_codes(medians, (*CELL, "distance"))
    size = len(first)
    value = medians["value"].to_numpy(dtype=float)
    linear = counts(cells, size, np.isfinite(value) & ~(value > 0)) > 0
    own = _means(medians, cells, linear)
    kept = _means(keeping(medians), cells, linear) if medians["soft"].any() else own
    identity = [
        c
        for c in medians.columns
        if c
        not in (
            "session",
            "block",
            "process",
            *(f"{name}{end}" for name in ("value", "log_value") for end in ENDS),
            "clock_error",
            "clock_fitted",
            "samples",
            "soft",
            "hard",
        )
    ]
    return (
        medians.iloc[first][identity]
        .reset_index(drop=True)
        .assign(
            **dict(zip(("mean", "variance", "df", "sessions", "processes"), own, strict=True)),
            **dict(zip(("mean_kept", "variance_kept", "df_kept"), kept, strict=False)),
            linear=linear,
            **{name: counts(cells, size, medians[name]).astype(np.int64) for name in ("samples", "soft", "hard")},
        )
        .pipe(_mark_main)
    )


def _means(medians: pd.DataFrame, cells: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, ...]:
    """(mean, variance of it, its df, sessions, processes) per cell. Of one session, the variance has what the slope on the clock adds to it, and has lost to it."""
    scaled, usable = _scaled(medians, cells, linear)
    session, begin = group_codes(medians[["session"]].assign(cell=cells)[usable], ("cell", "session"))
    mean, variance, df, sessions, processes = nested_means(scaled, cells[usable], session, begin, len(linear))
    fitted, error = (counts(cells[usable], len(linear), medians[f"clock_{of}"].to_numpy()[usable]) for of in ("fitted", "error"))
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.maximum(df - fitted / processes, df / 2)  # of two processes a slope may take nearly all
        own = np.where(left > 0, variance * df / left, np.nan) + np.where(linear, 0.0, (error / processes) ** 2)
    return mean, np.where(sessions >= 2, variance, own), df, sessions, processes


def _scaled(medians: pd.DataFrame, cells: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values on the scale of their cells, the rows that have one)."""
    scaled = np.where(linear[cells], medians["value"].to_numpy(dtype=float), medians["log_value"].to_numpy(dtype=float))
    usable = np.isfinite(scaled)
    return scaled[usable], usable


def with_drift(means: pd.DataFrame, medians: pd.DataFrame) -> pd.DataFrame:
    """`cell_means` of `medians` with a column `drift`: the variance by which a value differs from visit to visit, as the parts of each visit tell; NaN where they do not.

    At the clocks that there were: the next visit has a usual clock of its own."""
    cells = group_codes(medians, (*CELL, "distance"))[0]
    scaled, usable = _scaled(
        medians.assign(value=medians["value_raw"], log_value=medians["log_value_raw"]),
        cells,
        means["linear"].to_numpy(dtype=bool),
    )
    cut = cut_of(counts(cells[usable], len(means)))
    return means.assign(drift=drifts(medians[usable], cells[usable], len(means), scaled, cut))


def moved(value: np.ndarray, half: np.ndarray, kept: np.ndarray, linear: np.ndarray | bool = False) -> np.ndarray:
    """Whether a value (in logs, or `linear`) is another one with the softly disturbed samples: by more than its own half-width, and by more than LEAST_MOVE."""
    least = np.where(linear, LEAST_MOVE * np.abs(value), np.log1p(LEAST_MOVE))
    return ~(np.abs(kept - value) <= np.fmax(half, least))


def _mark_main(cells: pd.DataFrame) -> pd.DataFrame:
    """Adds `main`: of a cell's distance classes the one with most processes (then samples, then the shorter hop)."""
    hop = cells["distance"].map(label_hop).to_numpy(dtype=float)
    return cells.assign(main=mains(group_codes(cells, CELL)[0], cells["processes"].to_numpy(), cells["samples"].to_numpy(), hop))


def natural(x: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Back from the scale of `cell_means` to the metric's unit."""
    with np.errstate(over="ignore"):
        return np.where(linear, x, np.exp(np.where(linear, 0.0, x)))


def interval(cells: pd.DataFrame, mean: np.ndarray, half: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) in the metric's unit of means on the scale of `cell_means`: no end is outside the RANGE that `cells` name, unless the value itself is."""
    value, ends = natural(mean, linear), (natural(mean - half, linear), natural(mean + half, linear))
    if not set(RANGE) <= set(cells):
        return ends
    least, most = (cells[name].to_numpy(dtype=float, na_value=np.nan) for name in RANGE)
    beyond = value < least, value > most
    return np.where((ends[0] < least) & ~beyond[0], least, ends[0]), np.where((ends[1] > most) & ~beyond[1], most, ends[1])


def estimate_cells(frame: pd.DataFrame, target: float = 0.02) -> pd.DataFrame:
    """One row per machine, cell and distance class of tidy samples.

    Columns: machine, machine_id, benchmark, case, metric, unit, polarity, distance, the parameters, `value`, `low`, `high` (95 %, in
    the unit), `half_width` (relative), sessions, processes, samples, `disturbed` (share of samples that are not valid), `scope` (session:
    holds for that one visit; machine: also for other visits), `reasons` and `main`.
    """
    return estimates_of(process_medians(frame), target)


def estimates_of(medians: pd.DataFrame, target: float = 0.02, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """`estimate_cells` for process medians that are at hand already."""
    cells = cell_means(medians)
    mean, linear = cells["mean"].to_numpy(), cells["linear"].to_numpy(dtype=bool)
    half = t_half_width(cells["variance"].to_numpy(), cells["df"].to_numpy(), confidence)
    value = natural(mean, linear)
    with np.errstate(divide="ignore", invalid="ignore"):
        width = np.where(linear, half / np.abs(value), np.expm1(np.where(linear, 0.0, half)))
        disturbed, failed = shares(cells)
    group = group_codes(cells, CELL)[0]
    classes = counts(group, len(cells), cells["processes"].to_numpy() > 0)[group] if len(cells) else group
    reasons = reason_tuples(
        (
            ("one_session", cells["sessions"].to_numpy() == 1),
            ("few_processes", cells["processes"].to_numpy() < FEW_PROCESSES),
            ("failed_proofs", failed > FAILED_SHARE),
            ("disturbed", moved(mean, half, cells["mean_kept"].to_numpy(), linear)),
            ("precision_not_reached", ~(width <= target)),
            ("other_distances", classes > 1),
            ("not_positive", linear),
        ),
        len(cells),
    )
    scope = np.where(cells["sessions"] >= 2, "machine", "session")
    low, high = interval(cells, mean, half, linear)
    table = cells.assign(
        value=value,
        low=low,
        high=high,
        half_width=width,
        disturbed=disturbed,
        scope=scope,
        reasons=pd.Series(reasons, dtype=object, index=cells.index),
    )
    return table[
        [
            "machine",
            "machine_id",
            "benchmark",
            "case",
            "metric",
            "unit",
            "polarity",
            "distance",
            *parameter_columns(cells),
            "value",
            "low",
            "high",
            "half_width",
            "sessions",
            "processes",
            "samples",
            "disturbed",
            "scope",
            "reasons",
            "main",
        ]
    ]


def precision(frame: pd.DataFrame, paired: frozenset[str] = frozenset()) -> dict[str, float]:
    """Case -> relative 95 % half-width of its first metric (infinite while unknown), for the adaptive stop.

    The worst over machines, each in its main distance class. Cases of the benchmarks `paired` stay unknown until that
    class has LEAST_PAIRS processes: pairs of other classes do not help its contrasts.
    """
    first_metric = frame.drop_duplicates("case")[["case", "metric"]]
    rows = with_circumstances(frame.merge(first_metric, on=["case", "metric"]))
    cells = estimate_cells(rows)
    cells = cells[cells["main"]]
    enough = ~cells["benchmark"].isin(paired) | (cells["processes"] >= LEAST_PAIRS)
    width = cells["half_width"].fillna(np.inf).where(enough, np.inf)
    return {str(case): float(worst) for case, worst in width.groupby(cells["case"]).max().items()}


def shares(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The shares of samples that are not valid, and that failed a proof."""
    samples, soft, hard = (table[name].to_numpy(dtype=float) for name in ("samples", "soft", "hard"))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (soft + hard) / (samples + soft + hard), hard / (samples + soft + hard)


def paired(values: pd.DataFrame, controls: pd.DataFrame, shared: Sequence[str]) -> pd.DataFrame:
    """Rows of `values` (process medians) beside the row of `controls` of the same process, block and `shared` columns.

    Adds `log_ratio` and `gap` (value - control), NaN where there is no partner of the same distance class, both `*_kept`, and `gap_raw`. A row
    without a class (one thread) takes its partner's.
    """
    on = [*dict.fromkeys(("machine_id", "benchmark", "metric", "session", "block", "process", *shared))]
    codes, _ = group_codes(pd.concat([values[on], controls[on]], ignore_index=True), on)
    left, right = partners(codes[: len(values)], codes[len(values) :])

    def of_control(name: str, missing: object) -> np.ndarray:
        return np.append(controls[name].to_numpy(), [missing])[right]

    own, other = values["distance"].to_numpy(dtype=object)[left], of_control("distance", "")
    fits = (own == other) | (own == "") | (other == "")
    return (
        values.iloc[left]
        .reset_index(drop=True)
        .assign(
            distance=np.where(own == "", other, own),
            **{
                f"{name}{end}": np.where(fits, values[of + end].to_numpy()[left] - of_control(of + end, np.nan), np.nan)
                for name, of, ends in (("log_ratio", "log_value", ENDS[:2]), ("gap", "value", ENDS))
                for end in ends
            },
        )
    )


def _median_and_interval(
    values: np.ndarray, codes: np.ndarray, size: int, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(count, median, low, high) per group of the finite `values`, by the sign test."""
    finite = np.isfinite(values)
    ordered = Ordered(values[finite], codes[finite], size)
    rank = sign_rank(ordered.count, confidence)
    low = np.where(rank > 0, ordered.at(rank - 1), np.nan)
    high = np.where(rank > 0, ordered.at(ordered.count - rank), np.nan)
    return ordered.count, ordered.median(), low, high


def summarise_pairs(pairs: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """One row per machine, cell and distance of `paired`: median ratio and difference with sign-test intervals."""
    codes, first = group_codes(pairs, (*CELL, "distance"))
    size = len(first)
    blocks, difference, difference_low, difference_high = _median_and_interval(
        pairs["gap"].to_numpy(dtype=float), codes, size, confidence
    )
    ratio, ratio_low, ratio_high = _median_and_interval(pairs["log_ratio"].to_numpy(dtype=float), codes, size, confidence)[1:]
    used = np.isfinite(pairs["gap"].to_numpy(dtype=float))
    _, begin = group_codes(pairs[["session"]].assign(cell=codes)[used], ("cell", "session"))
    sessions = counts(codes[used][begin], size)
    sums = pd.DataFrame({name: counts(codes, size, pairs[name]) for name in ("samples", "soft", "hard")})
    kept = [_median_and_interval(pairs[f"{name}_kept"].to_numpy(dtype=float), codes, size)[1] for name in ("log_ratio", "gap")]
    other = np.where(
        np.isfinite(ratio),
        moved(ratio, (ratio_high - ratio_low) / 2, kept[0]),
        moved(difference, (difference_high - difference_low) / 2, kept[1], linear=True),
    )
    reasons = reason_tuples(
        (
            ("few_blocks", blocks < FEW_BLOCKS),
            ("one_session", sessions == 1),
            ("failed_proofs", shares(sums)[1] > FAILED_SHARE),
            ("disturbed", (blocks > 0) & other),
        ),
        size,
    )
    identity = ["machine", "machine_id", "benchmark", "metric", "unit", "polarity", "case", "distance"]
    parameters = [name for name in parameter_columns(pairs) if name not in identity]
    table = pairs.iloc[first][[*identity, *parameters]].reset_index(drop=True)
    return (
        table.assign(
            ratio=np.exp(ratio),
            ratio_low=np.exp(ratio_low),
            ratio_high=np.exp(ratio_high),
            difference=difference,
            difference_low=difference_low,
            difference_high=difference_high,
            blocks=blocks,
            sessions=sessions,
            reasons=pd.Series(reasons, dtype=object, index=table.index),
            processes=blocks,
            samples=sums["samples"].to_numpy(),
        )
        .pipe(_mark_main)
        .drop(columns=["processes", "samples"])
    )


CONTRAST_COLUMNS = ("machine", "machine_id", "benchmark", "axis", "control", "metric", "unit", "polarity", "case", "distance")
CONTRAST_VALUES = (
    "ratio",
    "ratio_low",
    "ratio_high",
    "difference",
    "difference_low",
    "difference_high",
    "blocks",
    "sessions",
    "reasons",
    "main",
)


def contrast_cells(frame: pd.DataFrame, benchmarks: Iterable[BenchmarkRecord]) -> pd.DataFrame:
    """One row per declared contrast, cell (other than the control's) and distance class, judged on pairs.

    Pairs come from one process (same session, block and distance class). Columns: CONTRAST_COLUMNS, the parameters, `ratio`
    (value / control) and `difference` (value - control, in the unit), each the median over pairs with its exact sign-test
    interval (`*_low`, `*_high`; NaN below six pairs), blocks, sessions, reasons, main.
    """
    return contrasts_of(process_medians(frame), benchmarks)


def contrasts_of(medians: pd.DataFrame, benchmarks: Iterable[BenchmarkRecord], confidence: float = CONFIDENCE) -> pd.DataFrame:
    """`contrast_cells` for process medians that are at hand already."""
    parameters = parameter_columns(medians)
    declared = dict.fromkeys((b.name, c.axis, c.control, c.metric) for b in benchmarks for c in b.contrasts)
    tables = []
    for name, axis, control, metric in declared:
        rows = own_columns(medians[(medians["benchmark"] == name) & (medians["metric"] == metric)])
        if axis not in rows.columns or rows.empty:
            continue
        is_control = (rows[axis] == control).fillna(False).to_numpy(dtype=bool)
        pairs = paired(rows[~is_control], rows[is_control], [p for p in parameter_columns(rows) if p != axis])
        if len(pairs):
            table = summarise_pairs(pairs, confidence).assign(axis=axis)
            tables.append(table.assign(control=pd.Series([control] * len(table), dtype=object, index=table.index)))
    columns = [*CONTRAST_COLUMNS, *parameters, *CONTRAST_VALUES]
    return pd.concat(tables, ignore_index=True).reindex(columns=columns) if tables else pd.DataFrame(columns=columns)
