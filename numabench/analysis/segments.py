"""Reductions over groups of rows as numpy segment operations: no Python loop over groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

#: Share of a visit's processes that is left out at either end of them, and the fewest of which some are. An unseen neighbour on the core makes a
#: few processes 1.1 to 1.8 times as slow, while most agree within 1 %: by these few a mean is moved and its interval made.
TRIM, LEAST_TRIMMED = 0.20, 8


def group_codes(frame: pd.DataFrame, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(codes, first): group number of each row, in order of appearance, and the position of each group's first row.

    Missing values are a value of their own: two rows that both lack a parameter are in one group.
    """
    import pandas as pd

    codes = np.zeros(len(frame), dtype=np.int64)
    for key in keys:
        part, levels = pd.factorize(frame[key], use_na_sentinel=False)
        codes = pd.factorize(codes * (len(levels) + 1) + part)[0]
    first = np.unique(codes, return_index=True)[1]
    return codes, first


def partners(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions in `left`, positions in `right`) of all pairs of equal codes, in the order of `left`, then of `right`; -1 for one without a partner."""
    size = max(left.max(initial=-1), right.max(initial=-1)) + 1
    order, there = np.append(np.argsort(right, kind="stable"), -1), counts(right, size)
    start, many = (np.cumsum(there) - there)[left], np.maximum(there[left], 1)
    own = np.repeat(np.arange(len(left)), many)
    each = np.arange(len(own)) - np.repeat(np.cumsum(many) - many, many)
    return own, order[np.where(there[left[own]] > 0, start[own] + each, -1)]


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


def cut_of(processes: np.ndarray) -> np.ndarray:
    """How many of so many processes are left out at either end."""
    return np.where(processes >= LEAST_TRIMMED, np.floor(TRIM * processes), 0).astype(np.int64)


def winsorize(values: np.ndarray, codes: np.ndarray, size: int, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, low, high): in each group its `cut` least and greatest values are put at those next to them, `low` and `high` by group."""
    ordered = Ordered(values, codes, size)
    low, high = ordered.at(cut), ordered.at(ordered.count - 1 - cut)
    return np.clip(values, low[codes], high[codes]), low, high


def trimmed_moments(values: np.ndarray, codes: np.ndarray, size: int, cut: np.ndarray) -> tuple[np.ndarray, ...]:
    """(count, mean, variance *of that mean*, its df) per group without the `cut` (shape (size,)) least and greatest values of each: the
    variance from the Winsorized sum of squares (Yuen 1974). With nothing cut the usual ones; NaN for fewer than two values."""
    winsorized, low, high = winsorize(values, codes, size, cut)
    n = counts(codes, size)
    kept = n - 2.0 * cut
    with np.errstate(invalid="ignore", divide="ignore"):
        total = counts(codes, size, winsorized) - cut * (low + high)  # what was put at the ends taken off again
        mean = np.where(cut > 0, total, counts(codes, size, values)) / kept
        variance = (n - 1) * moments(winsorized, codes, size)[2] / (kept * (kept - 1))
    return n, mean, variance, kept - 1


def nested_means(
    values: np.ndarray, cells: np.ndarray, session: np.ndarray, begin: np.ndarray, size: int
) -> tuple[np.ndarray, ...]:
    """(mean, variance of it, its df, sessions, processes) per cell of values by process; `session` numbers a cell's sessions, each of which begins at `begin`.

    Of several sessions the mean of their means and the variance among them, of one session those of its processes."""
    session_mean = trimmed_moments(values, session, len(begin), cut_of(counts(session, len(begin))))[1]
    sessions, *among = moments(session_mean, cells[begin], size)
    with np.errstate(divide="ignore", invalid="ignore"):
        among = among[0], among[1] / sessions, sessions - 1.0
    processes, *within = trimmed_moments(values, cells, size, cut_of(counts(cells, size)))
    mean, variance, df = (np.where(sessions >= 2, a, w) for a, w in zip(among, within, strict=True))
    return mean, variance, df, sessions, processes


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
