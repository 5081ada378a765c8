"""Times and rates at the usual clock: what the clock around a sample says of its value is taken off.

In a virtual machine the clock of a CPU wanders (turbo, a neighbour on the other half of the core, a host that takes time away), and what is measured wanders with it. How much of
a value follows the clock, nothing of a read of memory or all of a load from the first cache, is not assumed: it is the slope of log(value) on log(clock) over the
samples of a cell, drawn towards that of its benchmark. This is the analysis of covariance (Cochran 1957): the clock is measured beside the window and not in it, and a value
at the usual clock stays itself whatever the slope.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .segments import Ordered, counts

#: The reason of a sample before and after which the clock was another: with the mean of the two taken off, it is like others (METHODOLOGY).
CHANGED = "frequency_changed"
#: Standard deviations that are assumed of the slopes of a benchmark's metric (around 0), and of its cells' (around that one): where the clock says little, slopes stay near these.
BENCHMARK_SPREAD, CELL_SPREAD = 0.5, 0.3
#: Fewest samples of a cell from which anything is taken off: of two, the benchmark's slope alone would say how much, and a timer's price follows no clock.
FEW_OF_CELL = 3
#: Fewest samples on the same CPUs by which their usual clock is known.
FEW_SAMPLES = 8
ROUNDS = 8  # of reweighting; slopes change by less than a hundredth after these
HUBER = 1.345  # standard deviations from which on a sample counts for less (Huber 1964)
MAD = 1.4826  # standard deviation over median absolute deviation of a normal distribution


class Slopes(NamedTuple):
    """Of cells, shape (cells,): how much of its values follows the clock, 0 (nothing) to 1 (all); the standard error of that; and how many degrees of freedom it took."""

    slope: np.ndarray
    error: np.ndarray
    fitted: np.ndarray


class Clocked(NamedTuple):
    """Of samples: the values at the usual clock; how far the slope's standard error moves their logs, with its sign; and the degrees of freedom that the slope of their cell took."""

    values: np.ndarray
    error: np.ndarray
    fitted: np.ndarray


def follows(unit: str) -> int:
    """1: of times, which fall as the clock rises; -1: of rates, which rise with it; 0: of what does neither."""
    return 1 if unit in ("s", "ns") else -1 if unit.endswith("/s") else 0


def behind(clock: np.ndarray, places: np.ndarray, tells: np.ndarray | bool = True) -> np.ndarray:
    """log(usual clock / clock) of each row, 0 where one is not known. The usual clock is the median over the rows of the same `places` (numbers from 0 on) that tell of it: one for each sample."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(clock > 0, np.log(clock), np.nan)
    known = np.isfinite(logs) & tells
    ordered = Ordered(logs[known], places[known], int(places.max(initial=-1)) + 1)
    usual = np.where(ordered.count >= FEW_SAMPLES, ordered.median(), np.nan)
    return np.nan_to_num(usual[places] - logs)


def calm_but_for_clock(valid: np.ndarray, reasons: np.ndarray, clocked: np.ndarray) -> np.ndarray:
    """Which samples are valid, or would be but for a change of a clock that is taken off (`clocked`: `follows` of their units)."""
    return valid | ((reasons == CHANGED) & (clocked != 0))


def at_usual_clock(
    values: np.ndarray, usable: np.ndarray, clocked: np.ndarray, slow: np.ndarray, cells: np.ndarray, benchmarks: np.ndarray
) -> Clocked:
    """`values` of samples at the usual clock; those that do not follow it (`clocked` 0), or are not positive, as they are.

    `usable`: samples that slopes are taken from; `clocked`: `follows` of their units; `slow`: `behind`; `cells`: of each sample, `benchmarks`: of each cell, numbers from 0 on.
    """
    follow = (values > 0) & (clocked != 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(follow & usable, clocked * np.log(values), np.nan)
    found = slopes(logs, slow, cells, benchmarks)
    part = clocked * found.slope[cells] * slow
    return Clocked(
        values=np.where(follow, values * np.exp(-part), values),
        error=np.where(follow, clocked * found.error[cells] * slow, 0.0),
        fitted=np.where(follow, found.fitted[cells], 0.0),
    )


def slopes(logs: np.ndarray, slow: np.ndarray, cells: np.ndarray, benchmarks: np.ndarray) -> Slopes:
    """`logs`: of values that rise as the clock falls; NaN: not known. Weighted least squares with Huber's weights, one slope for a benchmark's cells
    together and then, drawn towards it, one for each cell (ridge: the posterior mean where slopes are normal).
    """
    known = np.isfinite(logs)
    logs, slow, cells = logs[known], slow[known], cells[known]
    size, many = len(benchmarks), int(benchmarks.max(initial=-1)) + 1
    owner = benchmarks[cells]
    weight, slope = np.ones(len(logs)), np.zeros(size)
    for _ in range(ROUNDS):
        x, y = (each - _means(each, weight, cells, size)[cells] for each in (slow, logs))
        residual = y - slope[cells] * x
        scale = MAD * Ordered(np.abs(residual), owner, many).median()
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.where(residual == 0, 1.0, np.minimum(1.0, HUBER * scale[owner] / np.abs(residual)))
        noise = np.where(scale > 0, scale**2, np.inf)  # values that are all alike follow nothing
        xx, xy = (counts(cells, size, weight * x * each) for each in (x, y))
        with np.errstate(invalid="ignore"):
            shared = counts(benchmarks, many, xy) / (counts(benchmarks, many, xx) + noise / BENCHMARK_SPREAD**2)
            ridge = (noise / CELL_SPREAD**2)[benchmarks]
            slope = np.where(np.isfinite(ridge), (xy + ridge * shared[benchmarks]) / (xx + ridge), 0.0)
        slope = np.clip(slope, 0.0, 1.0)
    told = np.isfinite(ridge) & (counts(cells, size) >= FEW_OF_CELL)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = slope, np.sqrt(noise[benchmarks] / (xx + ridge)), xx / (xx + ridge)
    return Slopes(*(np.where(told, each, 0.0) for each in found))


def _means(values: np.ndarray, weight: np.ndarray, groups: np.ndarray, size: int) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return counts(groups, size, weight * values) / counts(groups, size, weight)
