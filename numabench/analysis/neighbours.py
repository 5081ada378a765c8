"""Which CPUs are near each other, from a measured matrix of latencies alone.

A level of structure is a partition of the CPUs into groups whose slowest inner pair is faster than the fastest pair between two groups, by a margin.
Such partitions are cuts of the single-linkage dendrogram (Sneath 1957; scipy.cluster.hierarchy): where the next merge is far off, and where no group
is wider than that merge. A die without structure has no such cut. A cut that only finishes the one before (the last slow pair of siblings joins) takes its
place, and one that joins half of the groups or fewer says where lines live and not who is near (one socket of two, on whose node all of them were).
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from ..model import Frozen

MARGIN = 1.1  # between the slowest pair inside and the fastest outside; 1.15 is the least of 20 published matrices with known structure
SHARE = 0.5  # of the CPUs that a level puts into larger groups than the one before: no more are chance, or where lines live


class Level(Frozen):
    """Groups of CPUs, the median latency inside, and the two pairs next to the border: slowest inside, fastest outside."""

    groups: tuple[tuple[int, ...], ...]
    inside: float
    slowest_inside: float
    fastest_outside: float

    @property
    def size(self) -> int:
        """CPUs of the largest group."""
        return max(map(len, self.groups))


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """`matrix`, shape (n, n), with the mean of both directions, or the one that there is; NaN on the diagonal and where a pair is missing."""
    both = np.array([matrix, matrix.T], dtype=float)
    there = np.isfinite(both)
    with np.errstate(invalid="ignore"):
        mean = np.where(there, both, 0.0).sum(axis=0) / there.sum(axis=0)
    np.fill_diagonal(mean, np.nan)
    return mean


def latency_matrix(rows: pd.DataFrame, cpus: tuple[int, ...]) -> np.ndarray:
    """Symmetric matrix, shape (n, n), of estimates with columns `cpu_a`, `cpu_b` and `value`; NaN where there is none."""
    index = {cpu: place for place, cpu in enumerate(cpus)}
    rows = rows[rows["cpu_a"].isin(index) & rows["cpu_b"].isin(index)]  # another visit may have had others
    matrix = np.full((len(cpus), len(cpus)), np.nan)
    matrix[rows["cpu_a"].map(index).astype(int), rows["cpu_b"].map(index).astype(int)] = rows["value"].to_numpy(dtype=float)
    return symmetric(matrix)


def levels(matrix: np.ndarray, cpus: tuple[int, ...]) -> list[Level]:
    """The levels of structure of a complete symmetric `matrix`, shape (n, n), in ns, from the smallest groups to the largest; `cpus` are
    the names of its rows. Empty for a die without structure, and for fewer than three CPUs. Raises ValueError where a pair is missing."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    count = len(cpus)
    if count < 3:
        return []
    full = np.where(np.eye(count, dtype=bool), 0.0, matrix)
    if not np.isfinite(full).all():
        raise ValueError("a pair is missing")
    tree = linkage(squareform(full, checks=False), method="single")
    heights = tree[:, 2]
    found: list[Level] = []
    for low, high in itertools.pairwise(heights):
        if high <= MARGIN * low:
            continue
        labels = fcluster(tree, (low + high) / 2, criterion="distance")
        same = labels[:, None] == labels[None, :]
        np.fill_diagonal(same, False)
        inside = full[same]
        if inside.max() * MARGIN >= high:
            continue
        level = Level(
            groups=tuple(tuple(cpus[i] for i in np.flatnonzero(labels == label)) for label in dict.fromkeys(labels)),
            inside=float(np.median(inside)),
            slowest_inside=float(inside.max()),
            fastest_outside=float(high),
        )
        before = set(found[-1].groups) if found else {(cpu,) for cpu in cpus}
        if found and level.size == found[-1].size:
            found[-1] = level
        elif sum(len(group) for group in level.groups if group not in before) > SHARE * count:
            found.append(level)
    return found


def partition(groups) -> set[frozenset[int]]:
    """Groups as they compare: without order, and without the CPUs that are alone."""
    return {frozenset(group) for group in groups if len(group) > 1}
