"""Values at the usual clock: slopes against an oracle, what is left alone, and coverage where the clock wanders."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from numabench.analysis.clock import FEW_SAMPLES, at_usual_clock, behind, calm_but_for_clock, follows, slopes
from numabench.analysis.estimate import contrasts_of, estimates_of, keeping, process_medians
from numabench.analysis.structure import with_circumstances
from numabench.model import BenchmarkRecord, Contrast

ONE = np.zeros(1, dtype=np.int64)


def test_what_follows_the_clock_is_said_by_the_unit():
    assert [follows(unit) for unit in ("ns", "s", "B/s", "operation/s", "1", "cycle", "B/cycle", "per call", "Hz")] == [
        1, 1, -1, -1, 0, 0, 0, 0, 0,
    ]  # fmt: skip


def test_the_usual_clock_is_that_of_the_same_cpus_and_known_by_enough_samples():
    clock = np.array([3.0] * FEW_SAMPLES + [2.0] + [1.0] * (FEW_SAMPLES - 1))
    places = np.array([0] * (FEW_SAMPLES + 1) + [1] * (FEW_SAMPLES - 1))
    slow = behind(clock, places)
    assert slow[FEW_SAMPLES] == pytest.approx(np.log(1.5))
    assert not slow[:FEW_SAMPLES].any() and not slow[FEW_SAMPLES + 1 :].any()
    assert not behind(np.array([np.nan, 0.0, -1.0]), np.zeros(3, dtype=np.int64)).any()


def test_many_metrics_of_a_sample_tell_of_its_clock_once():
    rows = [(0, metric, 2.0) for metric in range(50)] + [(sample, 0, 3.0) for sample in range(1, 1 + FEW_SAMPLES)]
    frame = pd.DataFrame(rows, columns=["sample", "metric", "frequency_ghz"]).assign(
        **dict.fromkeys(("run", "session", "benchmark", "block", "process", "case"), ""),
        machine_id="m", cpus="0", hop_ns=np.nan, core_width=4.0, valid=True,
    )  # fmt: skip
    assert with_circumstances(frame)["slow"].iloc[0] == pytest.approx(np.log(1.5))


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
@settings(max_examples=40, deadline=None)
def test_a_slope_is_that_of_least_squares_where_nothing_is_odd(seed, true):
    random = np.random.default_rng(seed)
    slow = random.normal(0, 0.2, 400)
    logs = 3 + true * slow + random.uniform(-1e-3, 1e-3, 400)
    (found,) = slopes(logs, slow, np.zeros(400, dtype=np.int64), ONE).slope
    assert found == pytest.approx(stats.linregress(slow, logs).slope, abs=1e-3)


def test_a_tenth_of_wild_samples_does_not_make_the_slope():
    random = np.random.default_rng(5)
    slow = random.normal(0, 0.2, 300)
    logs = 0.5 * slow + random.normal(0, 0.02, 300)
    logs[:30] += random.uniform(0.5, 2.0, 30) * np.sign(slow[:30])
    (found,) = slopes(logs, slow, np.zeros(300, dtype=np.int64), ONE).slope
    assert found == pytest.approx(0.5, abs=0.1)
    assert stats.linregress(slow, logs).slope > 0.65


def test_cells_with_few_samples_take_the_slope_of_their_benchmark_and_no_other():
    random = np.random.default_rng(2)
    cells = np.concatenate([np.repeat(np.arange(10), 30), [10, 10, 10], [11] * 30, [12, 12]])
    slow = np.concatenate([random.normal(0, 0.2, 300), [0.01, -0.01, 0.0], random.normal(0, 0.2, 30), [0.5, -0.1]])
    logs = np.where(cells == 11, 0.0, 0.8) * slow + random.normal(0, 0.02, len(cells))
    found = slopes(logs, slow, cells, np.array([0] * 11 + [1, 0])).slope
    assert found[10] == pytest.approx(0.8, abs=0.1) and found[11] == pytest.approx(0.0, abs=0.05)
    assert found[12] == 0, "two samples say too little to take anything off"


def test_without_a_wandering_clock_values_stay():
    random = np.random.default_rng(3)
    values = np.exp(random.normal(0, 0.05, 100))
    slow = random.normal(0, 1e-4, 100)
    assert at_usual_clock(values, np.ones(100, bool), np.ones(100, int), slow, np.zeros(100, int), ONE).values == pytest.approx(
        values, rel=1e-3
    )


def test_rates_rise_with_the_clock_and_counts_stay():
    slow = np.linspace(-0.3, 0.3, 50)
    everything = np.ones(50, bool), np.zeros(50, int), ONE
    for clocked in (1, -1):
        values = 7.0 * np.exp(clocked * slow) * np.exp(np.random.default_rng(1).normal(0, 1e-3, 50))
        adjusted = at_usual_clock(values, everything[0], np.full(50, clocked), slow, *everything[1:]).values
        assert adjusted == pytest.approx(np.full(50, 7.0), rel=0.02)
    values = np.exp(slow)
    assert (at_usual_clock(values, everything[0], np.zeros(50, int), slow, *everything[1:]).values == values).all()
    below = np.where(np.arange(50) < 3, -1.0, values)
    assert (at_usual_clock(below, everything[0], np.ones(50, int), slow, *everything[1:]).values[:3] == -1.0).all()


def test_a_change_of_the_clock_alone_is_forgiven_and_of_times_and_rates_alone():
    reasons = np.array(["", "frequency_changed", "frequency_changed gaps", "pages", "frequency_changed"], dtype=object)
    clocked = np.array([1, 1, 1, 1, 0])
    assert list(calm_but_for_clock(reasons == "", reasons, clocked)) == [True, True, False, False, False]


def visit(random, cells, processes, wander, changed):
    """(samples, log of each cell at its usual clock): process by process in time, while the clock wanders. Pairs of cells follow it by a share of their own."""
    steps = cells * processes
    clock = signal.lfilter([1], [1, -0.9], random.normal(0, wander * np.sqrt(1 - 0.81), steps + 200))[200:]
    share, truth = np.repeat(random.uniform(0, 1, cells // 2), 2), random.normal(3, 1, cells)
    rows = []
    for process in range(processes):
        shared = 0.01 * random.standard_t(5)
        for place, cell in enumerate(random.permutation(cells)):
            slow = clock[process * cells + place]
            seen = slow + random.normal(0, 0.01)  # by the probes around
            rows.append(
                {
                    "process": process, "case": f"c{cell}", "variant": int(cell % 2), "pair": int(cell // 2), "frequency_ghz": 3.0 * np.exp(-seen),
                    "value": np.exp(truth[cell] + share[cell] * slow + shared + 0.02 * random.standard_t(5)),
                    "reasons": "frequency_changed" if random.random() < changed else "",
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(
        **dict.fromkeys(("run", "session", "benchmark", "block"), "b"), machine="m", machine_id="m", metric="time", unit="ns", polarity="lower", cpus="0",
        hop_ns=np.nan, core_width=4.0, sample=0, valid=frame["reasons"] == "",
    ), truth - share * np.median(np.log(frame["frequency_ghz"] / 3.0))  # fmt: skip


def judged(frame):
    return estimates_of(process_medians(frame)).set_index("case")


def test_intervals_cover_the_value_at_the_usual_clock_and_are_narrower_than_without():
    """Where it wanders by 10 %. Samples whose clock changed count among them."""
    random = np.random.default_rng(11)
    inside = total = 0
    widths, wide = [], []
    for _ in range(60):
        frame, truth = visit(random, cells=12, processes=9, wander=0.10, changed=0.4)
        found = judged(frame)
        for cell, value in enumerate(truth):
            row = found.loc[f"c{cell}"]
            assert row["processes"] == 9
            inside += row["low"] <= np.exp(value) <= row["high"]
            total += 1
        widths.append(found["half_width"].median())
        wide.append(judged(frame.assign(frequency_ghz=3.0, valid=True, reasons=""))["half_width"].median())
    print(inside / total, np.median(widths), np.median(wide))
    assert 0.92 <= inside / total <= 0.98
    assert np.median(widths) < 0.6 * np.median(wide)


@pytest.mark.parametrize("wander", [0.0, 0.1])
def test_a_difference_that_is_none_is_seldom_called_one(wander):
    """Of pairs of cells that are alike in time and in how they follow the clock, by intervals of 95 % at least."""
    random = np.random.default_rng(7)
    wrong = total = 0
    record = BenchmarkRecord(
        run="b", name="b", title="", question="", axes=(), metrics=(), method={}, contrasts=(Contrast(axis="variant", control=0, metric="time"),),
    )  # fmt: skip
    for _ in range(40):
        frame, truth = visit(random, cells=10, processes=9, wander=wander, changed=0.3)
        alike = frame.assign(value=frame["value"] / np.exp(truth)[frame["case"].str[1:].astype(int)])
        table = contrasts_of(process_medians(alike), [record])
        wrong += int(((table["ratio_low"] > 1) | (table["ratio_high"] < 1)).sum())
        total += len(table)
    print(wrong, total)
    assert 0.0 <= wrong / total <= 0.08


def test_processes_of_doubtful_samples_alone_leave_the_interval_with_them_whole():
    """What the slope adds is known of them, too: without that, every answer with such a process was open, "too few processes for an interval"."""
    frame, _ = visit(np.random.default_rng(3), cells=4, processes=9, wander=0.1, changed=0.0)
    doubtful = frame["process"] == 4
    frame = frame.assign(valid=~doubtful, reasons=np.where(doubtful, "run_delay", ""))
    kept = estimates_of(keeping(process_medians(frame)))
    assert np.isfinite(kept["low"]).all() and (kept["processes"] == 9).all()
