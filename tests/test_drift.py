"""Drift within a visit, and what the judge makes of noise as it was recorded: heavy tails, odd processes, autocorrelation, classes that change."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from numabench.analysis.compare import LEAST_SESSION_SD, compare
from numabench.analysis.drift import drifts
from numabench.analysis.judging import welch
from numabench.analysis.selftest import slower
from numabench.runlog.read import RunLog, load

SAMPLE = Path(__file__).resolve().parents[1] / "results" / "sample" / "first.jsonl"
BLOCK = 4  # processes in a row that are drawn together: what one has of the one before stays
PLANTED = ("memory_latency", "tlb_latency", "memory_bandwidth", "contention", "padded_counters", "fences")


def told(values: np.ndarray) -> np.ndarray:
    """Drift as a standard deviation by cell; `values` (cells, processes) of one benchmark."""
    cells, n = values.shape
    medians = pd.DataFrame({"machine_id": "m", "benchmark": "b", "session": "s", "process": np.tile(np.arange(n), cells)})
    return np.sqrt(drifts(medians, np.repeat(np.arange(cells), n), cells, values.ravel(), np.zeros(cells, dtype=np.int64)))


def test_processes_that_know_nothing_of_each_other_tell_of_no_drift():
    found = [told(np.random.default_rng(seed).standard_t(3, (20, 16)) * 0.01) for seed in range(40)]
    assert np.median(found) < 0.002 and np.mean(np.array(found) > 0.01) < 0.05


@pytest.mark.parametrize("sd", [0.005, 0.02])
def test_drift_is_found_as_large_as_it_is(sd):
    """A value that is another one in each quarter of a visit: the deviation between visits is that between its quarters."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found.append(told(np.repeat(rng.normal(0, sd, (20, 4)), 8, axis=1) + rng.normal(0, 0.01, (20, 32))))
    assert np.median(found) == pytest.approx(sd, rel=0.3)


def test_too_few_processes_tell_nothing():
    assert np.isnan(told(np.random.default_rng(1).normal(0, 0.01, (20, 7)))).all()
    assert drifts(pd.DataFrame(), np.array([], dtype=np.int64), 3, np.array([]), np.array([])).shape == (3,)


def visit(log: RunLog, rng: np.random.Generator, processes: int) -> RunLog:
    """A visit to a machine that is like the recorded one: processes of each benchmark drawn in blocks of some in a row."""
    trials = []
    for name in {trial.block for trial in log.trials}:
        own = [trial for trial in log.trials if trial.block == name]
        begins = rng.integers(0, len(own), -(-processes // BLOCK))
        drawn = [own[(begin + k) % len(own)] for begin in begins for k in range(BLOCK)][:processes]
        trials += [msgspec.structs.replace(trial, process=number) for number, trial in enumerate(drawn)]
    return msgspec.structs.replace(log, trials=tuple(trials))


@pytest.fixture(scope="module")
def recorded() -> RunLog:
    log = load(SAMPLE)
    return msgspec.structs.replace(
        log,
        trials=tuple(t for t in log.trials if t.benchmark in PLANTED),
        benchmarks=tuple(b for b in log.benchmarks if b.name in PLANTED),
    )


def test_identical_visits_as_they_were_recorded_are_not_called_different(recorded):
    """Eight pairs of visits drawn from one recorded log: nothing differs, a fifth at least is known to be the same, and most cells that are made a fifth slower are found."""
    first = {(b.name, b.metrics[0].name) for b in recorded.benchmarks}
    cells, planted = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        base, new = visit(recorded, rng, 24), visit(recorded, rng, 24)
        cells.append(compare(base, new).cells)
        planted.append(compare(base, slower(new, 1.2)).cells)
    alike, changed = (pd.concat(tables).query("main and p.notna()") for tables in (cells, planted))
    assert alike["verdict"].isin(("faster", "slower")).mean() <= 0.02 and (alike["p"] < 0.05).mean() <= 0.08
    assert ((alike["low"] <= 1) & (alike["high"] >= 1)).mean() >= 0.93 and (alike["verdict"] == "same").mean() >= 0.2
    changed = changed[[key in first for key in zip(changed["benchmark"], changed["metric"], strict=True)]]
    assert (changed["verdict"] == "slower").mean() >= 0.5


def test_visits_that_drift_are_told_apart_by_chance_alone():
    """400 pairs of visits of 20 cells; a machine's state is another one in each quarter. Without drift in the interval, a third of the pairs would differ."""
    wrong = {True: 0, False: 0}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        sides = [np.repeat(rng.normal(0, 0.015, (20, 4)), 8, axis=1) + rng.normal(0, 0.02, (20, 32)) for _ in range(2)]
        means, variances = zip(*((side.mean(axis=1), side.var(axis=1, ddof=1) / 32) for side in sides), strict=True)
        df = (np.full(20, 31.0),) * 2
        for counted in wrong:
            assumed = [np.fmax(told(side), LEAST_SESSION_SD) ** 2 if counted else np.zeros(20) for side in sides]
            wrong[counted] += (welch(means, variances, df, assumed)[3] < 0.05).sum()
    assert wrong[True] / 8000 <= 0.08 and wrong[False] / 8000 > 0.2
