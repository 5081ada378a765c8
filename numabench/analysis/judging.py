"""The test behind every verdict: Welch's t on means of logs, two one-sided tests for `same`, claims corrected for their number."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special  # not scipy.stats, as in estimate.py

from ..model import LOWER
from .discoveries import discoveries
from .estimate import FAILED_SHARE, moved, t_half_width
from .segments import reason_tuples

#: Two one-sided tests at 5 % each are one interval of 90 % (TOST; Schuirmann 1987): `same` is the answer where it lies within the band.
EQUIVALENCE = 0.90


def column(both: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
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
        half = t_half_width(total, df, confidence)
        p = 2 * special.stdtr(df, -np.abs(shift) / np.sqrt(total))
    p = np.where(total == 0, np.where(np.isnan(df), np.nan, np.where(shift == 0, 1.0, 0.0)), p)
    return shift, shift - half, shift + half, p


def judge(
    both: pd.DataFrame,
    obstacles: list[tuple[str, str, np.ndarray]],
    one_machine: bool,
    same: float,
    q: float,
    family: np.ndarray | tuple = (),
) -> pd.DataFrame:
    """`side_by_side` with ratio, low, high, p, p_adjusted, verdict, reasons. `family`: p-values of the other claims of this comparison,
    with which these are corrected."""
    blocked = np.logical_or.reduce([np.zeros(len(both), dtype=bool), *(mask for _, _, mask in obstacles)])
    (shift, low, high, p, adjusted), verdict = _tested(both, "", blocked, same, q, family)
    failed = np.logical_or.reduce([share > FAILED_SHARE for share in column(both, "failed")]) & ~blocked
    kept, kept_verdict = _tested(both, "_kept", blocked, same, q, family)
    half = np.where(np.isfinite(high - low), (high - low) / 2, 0.0)
    disturbed = (verdict != "unresolved") & ((kept_verdict != verdict) | moved(shift, half, kept[0])) & ~blocked
    verdict[failed | disturbed] = "unresolved"
    for kind, _, mask in reversed(obstacles):
        verdict[mask] = kind
    group = (column(both, "group")[0] > 0) & (column(both, "group")[1] > 0)
    single = np.logical_or.reduce([s > 0 for s in column(both, "single")])
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
    both: pd.DataFrame, end: str, blocked: np.ndarray, same: float, q: float, family: np.ndarray | tuple
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """((shift, low, high, p, p adjusted), verdict) by the means that end in `end`."""
    columns = [column(both, name) for name in (f"mean{end}", f"variance{end}", f"df{end}", "assumed")]
    shift, low, high, p = (np.where(blocked, np.nan, x) for x in welch(*columns))
    _, least, most, _ = welch(*columns, confidence=EQUIVALENCE)
    finite = np.isfinite(p)
    adjusted = np.full(len(both), np.nan)
    if finite.any():
        adjusted[finite] = discoveries(np.array([*p[finite], *family]))[: finite.sum()]
    band = np.log1p(same)
    is_same = finite & (least >= -band) & (most <= band)
    claimed = finite & ~is_same & ((low > 0) | (high < 0)) & (adjusted <= q)
    better = np.where(both["polarity"] == LOWER, shift < 0, shift > 0)
    verdict = np.select([is_same, claimed & better, claimed], ["same", "faster", "slower"], "unresolved").astype(object)
    return (shift, low, high, p, adjusted), verdict
