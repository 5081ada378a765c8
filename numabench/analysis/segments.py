"""Reductions over groups of rows as numpy segment operations: no Python loop over groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd


def group_codes(frame: pd.DataFrame, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(codes, first): group number of each row, in order of appearance, and the position of each group's first row.

    Missing values are a value of their own: two rows that both lack a parameter are in one group.
    """
    codes = np.zeros(len(frame), dtype=np.int64)
    for key in keys:
        part, levels = pd.factorize(frame[key], use_na_sentinel=False)
        codes = pd.factorize(codes * (len(levels) + 1) + part)[0]
    first = np.unique(codes, return_index=True)[1]
    return codes, first


def counts(codes: np.ndarray, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Rows (or the sum of `weights`) per group, shape (size,)."""
    return np.bincount(codes, weights=weights, minlength=size)


def moments(values: np.ndarray, codes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(count, mean, variance) per group; the variance is unbiased (n - 1) and NaN for fewer than two values."""
    n = counts(codes, size)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = counts(codes, size, values) / n
        variance = counts(codes, size, (values - mean[codes]) ** 2) / (n - 1)
    variance[n < 2] = np.nan
    return n, mean, variance


class Ordered:
    """Values sorted inside their groups: order statistics and medians of all groups at once."""

    def __init__(self, values: np.ndarray, codes: np.ndarray, size: int):
        self.sorted = np.append(np.asarray(values, dtype=float)[np.lexsort((values, codes))], np.nan)
        self.count = counts(codes, size)
        self.start = np.cumsum(self.count) - self.count

    def at(self, rank: np.ndarray) -> np.ndarray:
        """The value of 0-based `rank` (shape (size,)) in each group; NaN where the group has no such rank."""
        inside = (rank >= 0) & (rank < self.count)
        return self.sorted[np.where(inside, self.start + rank, len(self.sorted) - 1)]

    def median(self) -> np.ndarray:
        """Median of each group, NaN for an empty one."""
        return (self.at((self.count - 1) // 2) + self.at(self.count // 2)) / 2


def reason_tuples(masks: Iterable[tuple[str, np.ndarray]], size: int) -> list[tuple[str, ...]]:
    """Per row the codes whose mask is set, in the order given."""
    named = list(masks)
    bits = np.zeros(size, dtype=np.int64)
    for place, (_, mask) in enumerate(named):
        bits |= np.asarray(mask, dtype=np.int64) << place
    sets, at = np.unique(bits, return_inverse=True)
    tuples = [tuple(code for place, (code, _) in enumerate(named) if one >> place & 1) for one in sets.tolist()]
    return [tuples[place] for place in at.tolist()]


def text_of(label: object) -> str:
    """A parameter value as text; whole floats lose their point."""
    return str(int(label)) if isinstance(label, float) and label == int(label) else str(label)
