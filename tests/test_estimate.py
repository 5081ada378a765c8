"""Estimates and contrasts against scipy's own figures, exact binomials, and simulations with known truth."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic import counters, latency, make_log, matrix, truth

from numabench.analysis.estimate import (
    CONFIDENCE,
    cell_means,
    contrast_cells,
    estimate_cells,
    precision,
    process_medians,
    sign_interval,
    sign_rank,
    t_half_width,
    t_interval,
)
from numabench.analysis.segments import cut_of, moments, trimmed_moments
from numabench.analysis.stopping import EARLY
from numabench.measure.plan import LOOKS
from numabench.model import Metric
from numabench.runlog.export import samples

finite = st.floats(-50, 50)


def tidy(
    values: dict, *, metric="latency", unit="ns", polarity="lower", machine="m", hop=np.nan, parameter=1, case=None, **columns
):
    """Samples of one cell from {(session, process): [values]}."""
    rows = [
        {
            "run": s,
            "machine": machine,
            "benchmark": "b",
            "metric": metric,
            "unit": unit,
            "session": s,
            "process": p,
            "sample": i,
            "value": v,
            "valid": True,
            "size": parameter,
            "case": case or f"case{parameter}",
            "block": "0",
            "polarity": polarity,
            "machine_id": machine,
            "cpus": "0",
            "hop_ns": hop,
            "core_width": float("nan"),
            "frequency_ghz": 3.0,
            "reasons": "",
            **columns,
        }
        for (s, p), taken in values.items()
        for i, v in enumerate(taken)
    ]
    return pd.DataFrame(rows)


def one(frame: pd.DataFrame) -> pd.Series:
    assert len(frame) == 1
    return frame.iloc[0]


@given(st.lists(finite, min_size=2, max_size=30).filter(lambda x: np.std(x) > 1e-6))
def test_t_interval_is_scipys(logs):
    mean, low, high = t_interval(logs)
    expected = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(logs), expected.low, expected.high), abs=1e-9)


def test_t_interval_of_one_value_is_open():
    assert t_interval([1.5])[0] == 1.5 and np.isnan(t_interval([1.5])[1:]).all()


@given(st.integers(1, 200), st.sampled_from([0.8, 0.95, 0.99]))
def test_sign_rank_is_the_narrowest_that_covers(n, confidence):
    rank = int(sign_rank(np.array([n]), confidence)[0])

    def coverage(k):
        return 1 - 2 * stats.binom.cdf(k - 1, n, 0.5)

    assert rank == 0 or coverage(rank) >= confidence
    assert coverage(rank + 1) < confidence


@given(st.lists(finite, min_size=6, max_size=40, unique=True))
def test_sign_interval_is_the_exact_binomial_test_turned_round(values):
    low, high, achieved = sign_interval(values)
    assert low <= np.median(values) <= high and achieved >= 0.95
    ordered = np.sort(values)
    for position in range(len(ordered) - 1):
        between = (ordered[position] + ordered[position + 1]) / 2
        if not ordered[position] < between < ordered[position + 1]:
            continue
        p = stats.binomtest(int((ordered < between).sum()), len(ordered), 0.5).pvalue
        assert (low < between < high) == (p > 0.05)


@pytest.mark.parametrize("n", range(6))
def test_sign_interval_needs_six(n):
    low, high, achieved = sign_interval(list(range(n)))
    assert np.isnan([low, high]).all() and achieved == 0
    assert sign_interval(range(6)) == (0.0, 5.0, 1 - 2 / 2**6)


def test_sign_interval_covers_the_median_of_a_skewed_distribution():
    rng = np.random.default_rng(1)
    for n in (6, 8, 20):
        draws = np.sort(rng.lognormal(0, 1, (8000, n)), axis=1)
        rank = int(sign_rank(np.array([n]))[0])
        covered = np.mean((draws[:, rank - 1] <= 1) & (draws[:, n - rank] >= 1))
        exact = 1 - 2 * stats.binom.cdf(rank - 1, n, 0.5)
        assert covered == pytest.approx(exact, abs=0.008) and exact >= 0.95


def test_t_intervals_cover_nominally():
    """Session means with 1 % session and 2 % process effects: 5 % of intervals miss the truth, processes pooled far more."""
    rng = np.random.default_rng(2)
    trials, sessions, processes = 4000, 4, 5
    logs = rng.normal(0, 0.01, (trials, sessions, 1)) + rng.normal(0, 0.01, (trials, sessions, processes))
    codes = np.repeat(np.arange(trials), sessions)
    n, mean, variance = moments(logs.mean(axis=2).ravel(), codes, trials)
    missed = np.mean(np.abs(mean) > t_half_width(variance / n, n - 1))
    assert 0.03 <= missed <= 0.07
    codes = np.repeat(np.arange(trials), sessions * processes)
    n, mean, variance = moments(logs.ravel(), codes, trials)
    assert np.mean(np.abs(mean) > t_half_width(variance / n, n - 1)) > 0.12


def test_estimates_of_a_log_cover_the_truth():
    """On whole tidy frames: four sessions, 74 cells, intervals miss 5 % (binomial bounds 1 in 1000)."""
    missed = total = 0
    for seed in range(6):
        cells = estimate_cells(samples(make_log(sessions=4, processes=5, samples=1, seed=seed, benchmarks=(latency, matrix))))
        true = np.array([truth(r["benchmark"], r) for _, r in cells.iterrows()])
        missed += int(((true < cells["low"]) | (true > cells["high"])).sum())
        total += len(cells)
    low, high = stats.binom.ppf([0.0005, 0.9995], total, 0.05)
    assert low <= missed <= high


def test_one_session_is_the_t_interval_of_process_medians():
    values = {("s", p): [x, x * 1.1, x * 7] for p, x in enumerate([10, 11, 10.5, 9.9, 10.2])}
    row = one(estimate_cells(tidy(values)))
    logs = np.log([np.median(v) for v in values.values()])
    mean, low, high = t_interval(logs)
    assert (row["value"], row["low"], row["high"]) == pytest.approx(tuple(np.exp([mean, low, high])))
    assert row["half_width"] == pytest.approx(np.exp(high - mean) - 1)
    assert (row["scope"], row["sessions"], row["processes"], row["samples"]) == ("session", 1, 5, 15)
    assert row["reasons"] == ("one_session", "precision_not_reached") and row["main"]


def test_several_sessions_count_each_once():
    values = {("s1", p): [10.0] for p in range(20)} | {("s2", p): [20.0] for p in range(2)} | {("s3", 0): [40.0]}
    row = one(estimate_cells(tidy(values)))
    assert (row["value"], row["low"], row["high"]) == pytest.approx(tuple(np.exp(t_interval(np.log([10, 20, 40])))))
    assert (row["scope"], row["sessions"], row["processes"]) == ("machine", 3, 23)
    assert "one_session" not in row["reasons"]


def test_disturbed_samples_are_counted_and_not_used():
    frame = tidy({("s", p): [10.0 + p, 10.0 + p, 500.0] for p in range(6)})
    frame.loc[frame["value"] == 500, "valid"] = False
    frame.loc[frame["process"] == 5, "valid"] = False
    frame["reasons"] = np.where(frame["valid"], "", "run_delay")
    row = one(estimate_cells(frame))
    assert (row["processes"], row["samples"]) == (5, 10) and row["disturbed"] == pytest.approx(8 / 18)
    assert row["value"] == pytest.approx(stats.gmean([10, 11, 12, 13, 14])) and "disturbed" not in row["reasons"]
    medians = process_medians(frame)
    assert np.isnan(medians.set_index("process").loc[5, "value"]) and medians["soft"].sum() == 8


def test_a_fifth_disturbed_is_still_fine():
    frame = tidy({("s", p): [10.0] * 5 for p in range(6)})
    frame["valid"] = frame["sample"] > 0
    assert "failed_proofs" not in one(estimate_cells(frame))["reasons"]
    frame["valid"] = frame["sample"] > 1
    assert "failed_proofs" in one(estimate_cells(frame))["reasons"]


SPREAD = (9.0, 9.5, 10.0, 10.5, 11.0, 10.0)  # of six processes: half of the interval is 7.4 %


@pytest.mark.parametrize(
    ("reason", "times", "wide", "depends"),
    [
        ("run_delay", 1.0, False, False),
        ("run_delay", 1.01, False, False),  # under LEAST_MOVE
        ("run_delay", 1.2, False, True),
        ("gaps frequency_changed", 1.2, False, True),
        ("run_delay", 1.05, True, False),  # inside of its own interval
        ("run_delay", 1.3, True, True),
        ("pages", 1.2, False, False),  # says nothing, and is under a fifth
        ("check:is not right", 1.2, False, False),
        ("run_delay pages", 1.2, False, False),
    ],
)
def test_a_value_counts_where_it_is_the_same_with_the_softly_disturbed_samples(reason, times, wide, depends):
    """Three of six processes have other samples than the rest: so many in a hundred of theirs, or all of them, are set aside."""
    soft = set(reason.split()) <= {"run_delay", "gaps", "frequency_changed"}
    level = SPREAD if wide else (10.0,) * 6
    count = 5 if soft else 1
    values = {("s", p): [level[p]] * 5 + ([level[p] * times] * (count if p < 3 or not soft else 0)) for p in range(6)}
    frame = tidy(values)
    frame["valid"] = frame["sample"] < 5
    if soft:  # nothing but the disturbed samples is left of three processes
        frame = frame[(frame["sample"] >= 5) | (frame["process"] >= 3) | (frame["sample"] == 0)]
    frame["reasons"] = np.where(frame["valid"], "", reason)
    row = one(estimate_cells(frame))
    assert ("disturbed" in row["reasons"]) == depends and "failed_proofs" not in row["reasons"]


def test_nothing_valid_is_a_row_without_a_value():
    row = one(estimate_cells(tidy({("s", 0): [1.0, 2.0]}).assign(valid=False)))
    assert np.isnan([row["value"], row["low"], row["half_width"]]).all()
    assert row["disturbed"] == 1 and row["processes"] == 0 and "disturbed" in row["reasons"] and row["main"]


def test_zeros_are_averaged_as_they_are():
    row = one(estimate_cells(tidy({("s", p): [float(p % 2)] for p in range(6)})))
    mean, low, high = t_interval([0, 1] * 3)
    assert (row["value"], row["low"], row["high"]) == pytest.approx((mean, low, high)) and "not_positive" in row["reasons"]


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        (Metric(name="fairness", unit="1", polarity="higher", most=1.0), (0.2, 1.0, 0.9, 1.0)),
        (Metric(name="weak", unit="per 10^8", polarity="neither"), (1e8, 1e6, 9e7, 1e8)),
        (
            Metric(name="weak", unit="per 10^8", polarity="neither"),
            (0.0, 0.0, 0.0, 300.0),
        ),  # not all positive: averaged as they are
        (Metric(name="latency", unit="ns", polarity="lower"), (0.0, 1.0, 5.0, 0.0)),
    ],
)
def test_intervals_stay_inside_what_is_possible(metric, values):
    taken = {("s", p): [v] for p, v in enumerate(values)}
    least, most = metric.range
    row = one(estimate_cells(tidy(taken, metric=metric.name, unit=metric.unit, least=least, most=most)))
    free = one(estimate_cells(tidy(taken)))
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= (math.inf if math.isnan(most) else most)
    assert free["low"] < 0 or free["high"] > most, "the example shows nothing"
    assert row["half_width"] == free["half_width"], "how precise it is stays as it was"


def test_a_range_is_what_a_metric_declares():
    metric = Metric(name="gain", unit="1", polarity="higher", least=None)
    assert all(map(math.isnan, metric.range)) and Metric(name="n", unit="per 10^8", polarity="lower").range == (0.0, 1e8)
    frame = tidy({("s", p): [v] for p, v in enumerate((-2.0, 1.0, 3.0, -1.0))}, least=metric.range[0], most=metric.range[1])
    row = one(estimate_cells(frame))
    assert row["low"] < row["value"] < row["high"] and row["low"] < -2
    wrong = one(estimate_cells(frame.assign(most=0.0)))  # a value that is beyond its range stays inside its interval
    assert wrong["value"] > 0 and wrong["high"] == row["high"]


def test_distances_are_never_averaged():
    near = tidy({("s", p): [10.0] for p in range(6)}, hop=27.0)
    far = tidy({("s", p): [40.0] for p in range(6, 9)}, hop=107.0)
    cells = estimate_cells(pd.concat([near, far], ignore_index=True)).set_index("distance")
    assert cells["value"].to_dict() == pytest.approx({"27 ns": 10.0, "110 ns": 40.0})
    assert cells["main"].to_dict() == {"27 ns": True, "110 ns": False}
    assert all("other_distances" in reasons for reasons in cells["reasons"])
    assert "few_processes" in cells.loc["110 ns", "reasons"] and "few_processes" not in cells.loc["27 ns", "reasons"]


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e6), st.randoms(use_true_random=False))
def test_estimates_scale_and_do_not_depend_on_order(factor, random):
    frame = FRAME.assign(value=FRAME["value"] * factor).sample(frac=1, random_state=random.randrange(2**32))
    key = ["benchmark", "case", "metric"]
    old, new = (estimate_cells(f).set_index(key).sort_index() for f in (FRAME, frame))
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(new[column], old[column] * factor, rtol=1e-9)
    np.testing.assert_allclose(new["half_width"], old["half_width"], rtol=1e-6)
    assert list(old["reasons"]) == list(new["reasons"])
    assert ((new["low"] <= new["value"]) & (new["value"] <= new["high"])).all()


FRAME = samples(make_log(processes=6, samples=2, benchmarks=(latency,)))
LOG = make_log(processes=8)


def test_contrasts_are_medians_of_pairs():
    frame = samples(LOG)
    table = contrast_cells(frame, LOG.benchmarks)
    assert len(table) == 2 * 5 * 2 and set(table["axis"]) == {"stride"} and 256 not in set(table["stride"])
    row = table[(table["stride"] == 8) & (table["operation"] == "increment") & (table["spacing"] == 0)].iloc[0]
    cell = frame[(frame["metric"] == "time_per_operation") & (frame["operation"] == "increment") & (frame["spacing"] == 0)]
    medians = cell.groupby(["stride", "process"])["value"].median()
    ratios = np.log((medians[8] / medians[256]).to_numpy())
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == pytest.approx(
        tuple(np.exp([np.median(ratios), *sign_interval(ratios)[:2]]))
    )
    gaps = (medians[8] - medians[256]).to_numpy()
    assert (row["difference"], row["difference_low"], row["difference_high"]) == pytest.approx(
        (np.median(gaps), *sign_interval(gaps)[:2])
    )
    assert (row["blocks"], row["sessions"], row["unit"]) == (8, 1, "ns") and row["main"]


def test_contrast_of_few_blocks_has_no_interval():
    log = make_log(processes=5)
    table = contrast_cells(samples(log), log.benchmarks)
    assert table["ratio_low"].isna().all() and table["ratio"].notna().all()
    assert all("few_blocks" in reasons for reasons in table["reasons"])


def test_contrast_pairs_only_equal_distances_and_processes():
    frame = samples(LOG)
    moved = (frame["process"] < 3) & (frame["stride"] == 8)
    frame.loc[moved, "hop_ns"] = 107.0
    table = contrast_cells(frame, LOG.benchmarks)
    rows = table[table["stride"] == 8].groupby("distance")["blocks"].unique()
    assert list(rows["27 ns"]) == [5] and list(rows["110 ns"]) == [0]
    gone = frame[~((frame["process"] == 7) & (frame["stride"] == 256))]
    assert set(contrast_cells(gone, LOG.benchmarks).query("stride == 32")["blocks"]) == {7}


def test_a_cell_without_a_distance_takes_its_partners():
    frame = samples(LOG)
    frame.loc[frame["stride"] == 256, "hop_ns"] = np.nan
    table = contrast_cells(frame, LOG.benchmarks)
    assert set(table["distance"]) == {"27 ns"} and set(table["blocks"]) == {8}


def test_contrast_cancels_what_a_process_shares():
    rng = np.random.default_rng(3)
    level = np.exp(rng.normal(0, 0.5, 12))
    parts = [tidy({("s", p): [base * level[p]] for p in range(12)}, parameter=size) for size, base in ((1, 1.0), (2, 1.25))]
    log = make_log(processes=1)
    record = log.benchmarks[0].__class__(
        run="r",
        name="b",
        title="",
        question="",
        axes=(),
        metrics=(),
        method={},
        contrasts=(log.benchmarks[0].contrasts[0].__class__(axis="size", control=1, metric="latency"),),
    )
    row = one(contrast_cells(pd.concat(parts, ignore_index=True), [record]))
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == pytest.approx((1.25,) * 3)


def test_precision_is_the_main_rows_half_width_of_the_first_metric():
    frame = samples(LOG)
    cells = estimate_cells(frame[frame["metric"].isin(["time_per_operation", "latency"])])
    assert precision(frame) == pytest.approx(cells.set_index("case")["half_width"].to_dict())
    assert set(precision(samples(make_log(processes=1))).values()) == {np.inf}


def test_contrasted_cells_are_unknown_until_enough_processes_are_at_one_distance():
    frame = samples(make_log(processes=9, benchmarks=(counters, latency)))
    names = frame.drop_duplicates("case").set_index("case")["benchmark"]
    assert all(np.isfinite(list(precision(frame, frozenset({"toy_counters"})).values())))
    few = frame[frame["process"] < 7]
    for case, width in precision(few, frozenset({"toy_counters"})).items():
        assert np.isinf(width) == (names[case] == "toy_counters")
    frame.loc[(frame["process"] % 2 == 0) & (frame["benchmark"] == "toy_counters"), "hop_ns"] = 107.0
    assert all(np.isinf(w) for c, w in precision(frame, frozenset({"toy_counters"})).items() if names[c] == "toy_counters")


def test_empty_frames_give_empty_tables():
    frame = samples(make_log(processes=0))
    assert estimate_cells(frame).empty and contrast_cells(frame, LOG.benchmarks).empty and precision(frame) == {}


def test_twenty_thousand_rows_are_quick():
    """Generous by far (0.05 s in practice): holds against loops over groups."""
    frame = pd.concat([FRAME.assign(process=FRAME["process"] + 6 * k) for k in range(93)], ignore_index=True)
    begin = time.perf_counter()
    precision(frame)
    assert len(frame) > 20_000 and time.perf_counter() - begin < 3


def test_cell_means_have_the_variance_of_the_mean():
    row = one(cell_means(process_medians(tidy({("s", p): [np.exp(p)] for p in range(4)}))))
    assert (row["mean"], row["variance"], row["df"]) == pytest.approx((1.5, np.var(range(4), ddof=1) / 4, 3))


def test_quantiles_are_those_of_scipy_stats():
    n = np.arange(400)
    assert np.array_equal(sign_rank(n), stats.binom.ppf(0.025, n, 0.5).clip(0).astype(np.int64))
    df = np.array([0.7, 1.0, 2.5, 30.0, np.inf, 0.0, np.nan])
    half = t_half_width(np.ones(7), df)
    assert np.allclose(half[:5], stats.t.ppf(0.975, df[:5])) and np.isnan(half[5:]).all()


def test_a_run_s_own_judgement_imports_no_scipy_stats():
    """Its import takes longer than that of pandas, in every run."""
    code = "import sys, numabench.analysis.estimate; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("early", "least", "most"), [(EARLY, 0.02, 0.05), (CONFIDENCE, 0.06, 0.2)])
def test_looks_that_end_the_measuring_early_are_stricter(early, least, most):
    """4,000 ratios without any difference, of a spread too wide to call them equal. Measuring ends at the first look whose interval of the confidence `early` excludes 1, or at the last; a
    difference is claimed by 95 % of what was measured then. With 95 % at each look as well, claims would be more than one in twenty."""
    ratios = np.random.default_rng(4).normal(0, 0.3, (4000, LOOKS[-1]))
    claimed = 0
    for row in ratios:
        for n in LOOKS[1:]:
            low, high, _ = sign_interval(row[:n], early if n < LOOKS[-1] else CONFIDENCE)
            if low > 0 or high < 0:
                break
        low, high, _ = sign_interval(row[:n])
        claimed += low > 0 or high < 0
    assert least <= claimed / len(ratios) <= most


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_what_counts_beside_doubtful_samples_still_covers_the_truth(share):
    """2,000 cells of 10 processes with 3 samples each. A sample is doubtful by chance, and then often slow, at times by far; so are all samples of some processes. Intervals of the cells that are
    called settled miss the truth as often as they say, and most cells are settled: before, none was that had over a fifth of doubtful samples."""
    rng = np.random.default_rng(11)
    shape = (2000, 10, 3)
    logs = rng.normal(0, 0.02, (2000, 10, 1)) + rng.normal(0, 0.01, shape)
    doubtful = (rng.random(shape) < share) | (rng.random((2000, 10, 1)) < 0.1)
    slow = doubtful * (rng.random(shape) < 0.5) * rng.pareto(2.5, shape) * 0.02
    cell, process, sample = (part.ravel() for part in np.indices(shape))
    frame = tidy({("s", 0): [1.0]}).loc[np.zeros(cell.size, dtype=int)].reset_index(drop=True)
    frame = frame.assign(case=cell, process=process, sample=sample, value=np.exp(logs + slow).ravel(), valid=~doubtful.ravel())
    cells = estimate_cells(frame.assign(reasons=np.where(frame["valid"], "", "run_delay")))
    settled = cells[~cells["reasons"].map(lambda reasons: "disturbed" in reasons)]
    missed = ((settled["low"] > 1) | (settled["high"] < 1)).mean()
    assert 0.03 <= missed <= 0.08 and len(settled) > 0.9 * len(cells) and cells["disturbed"].gt(0.2).mean() > 0.9


def odd_ones(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Logs of processes as a virtual machine shows them: most agree within 1 %, of one in ten a neighbour on the core takes up to half of it."""
    return rng.normal(0, 0.01, shape) + (rng.random(shape) < 0.1) * rng.exponential(0.15, shape)


@pytest.mark.parametrize("n", [8, 12, 20, 32])
@pytest.mark.parametrize(("kind", "least", "most"), [("odd", 0.15, 0.60), ("normal", 0.03, 0.08)])
def test_intervals_cover_what_most_processes_say(n, kind, least, most):
    """10,000 cells. Intervals of plain means miss in a quarter to a half of them where a few processes are odd (`least` to `most` of them), those of trimmed means in one of
    twenty, as they say; without odd ones both do. The truth is the trimmed mean of 2 million processes."""
    rng = np.random.default_rng(n)
    draw = odd_ones if kind == "odd" else lambda rng, shape: rng.normal(0, 0.01, shape)
    values, everything, codes = draw(rng, (10_000, n)), np.sort(draw(rng, (2_000_000,))), np.repeat(np.arange(10_000), n)

    def missed(cut: int) -> float:
        out = int(cut / n * len(everything))
        _, mean, variance, df = trimmed_moments(values.ravel(), codes, 10_000, np.full(10_000, cut))
        return np.mean(np.abs(mean - everything[out : len(everything) - out].mean()) > t_half_width(variance, df))

    assert 0.03 <= missed(int(cut_of(np.array([n]))[0])) <= 0.08
    assert least <= missed(0) <= most


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.integers(0, 8))
def test_trimmed_moments_are_those_of_scipy(values, cut):
    cut = min(cut, (len(values) - 2) // 2)
    n, mean, variance, df = (
        float(x[0]) for x in trimmed_moments(np.array(values), np.zeros(len(values), np.int64), 1, np.array([cut]))
    )
    kept = sorted(values)[cut : len(values) - cut]
    winsorized = stats.mstats.winsorize(np.array(values), (cut / len(values) + 1e-9,) * 2) if cut else np.array(values)
    assert (n, df) == (len(values), len(kept) - 1) and mean == pytest.approx(np.mean(kept), abs=1e-6)
    assert variance == pytest.approx((n - 1) * np.var(winsorized, ddof=1) / (len(kept) * (len(kept) - 1)), rel=1e-6, abs=1e-6)
