"""How far a machine's figures move from one visit to another, as the parts of a visit tell.

The processes of a case are spread over a whole visit. Its quarters are visits in small: where their means are further apart than the processes in them
explain, the machine has drifted (batch means: Law and Carson 1979). Four quarters tell little
of it: how much further is taken from the cell and, with twice the weight, from all cells of its benchmark (as Smyth 2004 moderates variances).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from .segments import counts, group_codes, moments, winsorize

PARTS = 4
PRIOR = 6  # degrees of freedom that a benchmark's cells together are worth beside the three of a cell's own quarters
LEAST_PROCESSES = 2 * PARTS  # of a cell that tells of drift


def drifts(medians: pd.DataFrame, cells: np.ndarray, size: int, scaled: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Variance of a visit's value by drift, per cell (shape (size,)); NaN where nothing tells of it.

    `medians`: the rows of `estimate.process_medians` with a value, `scaled` these values, `cells` their numbers, `cut` the processes of a cell that are left out at either end.
    """
    if not len(medians):
        return np.full(size, np.nan)
    values, _, _ = winsorize(scaled, cells, size, cut)
    visits, first = group_codes(medians.assign(cell=cells), ("cell", "session"))
    n, mean, total = moments(values, visits, len(first))
    rank = pd.Series(medians["process"].to_numpy()).groupby(visits).rank(method="first").to_numpy() - 1
    part = visits * PARTS + (rank * PARTS // n[visits]).astype(np.int64)
    m, part_mean, within = moments(values, part, len(first) * PARTS)
    at = np.arange(len(first) * PARTS) // PARTS
    with np.errstate(divide="ignore", invalid="ignore"):
        between = counts(at, len(first), np.where(m > 0, m * (part_mean - mean[at]) ** 2, 0.0)) / (PARTS - 1)
        inside = counts(at, len(first), np.where(m > 1, (m - 1) * within, 0.0)) / (n - PARTS)
        further = between / inside / special.fdtri(PARTS - 1, np.maximum(n - PARTS, 1), 0.5)  # 1 in the median without drift
    tells = (n >= LEAST_PROCESSES) & np.isfinite(further)
    benchmark = group_codes(medians.iloc[first], ("machine_id", "benchmark"))[0]
    told = pd.Series(further).where(tells).groupby(benchmark).transform("median").to_numpy()  # NaN where no cell tells
    more = np.where(tells, (PRIOR * told + (PARTS - 1) * further) / (PRIOR + PARTS - 1), told)
    own = np.maximum(more - 1, 0) * np.where(n > PARTS, inside, total) * PARTS / n
    return pd.Series(own).groupby(cells[first]).max().reindex(range(size)).to_numpy()
