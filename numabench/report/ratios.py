"""The figure of a comparison: a dot and an interval per cell around "no change", with the band of practical equality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..model import Axis, BenchmarkRecord
from . import theme
from .panels import WIDTH, blank, text_width, to_svg, whiskers
from .scales import format_value, log_ticks, plain, tick_text
from .selection import Figure, Panel
from .tables import sorted_rows, split_axes

if TYPE_CHECKING:
    import pandas as pd

#: Verdict -> (series colour or None for muted, marker, filled): words, shapes and colours say the same.
LOOKS = {"faster": (2, "v", True), "slower": (1, "^", True), "same": (0, "o", True), "unresolved": (None, "o", False)}
LABELLED = 48  # cells up to which every row has its name; more are a cloud in the table's order
ROW = 17  # CSS pixels per named row


def ratio_figure(cells: pd.DataFrame, descriptor: BenchmarkRecord | None, metric: str, same: float, prefix: str) -> Figure | None:
    """One panel for the judged cells of a benchmark's metric; None when no ratio exists."""
    rows = cells[(cells["metric"] == metric) & np.isfinite(cells["ratio"].astype(float))]
    if rows.empty:
        return None
    axes, fixed = split_axes(rows, descriptor) if descriptor else ([], "")
    rows = sorted_rows(rows, axes)
    names = [cell_label(row, axes) for _, row in rows.iterrows()]
    counts = rows["verdict"].value_counts()
    alt = (
        f"Ratio new to base of {metric.replace('_', ' ')} for {len(rows)} cells: "
        + ", ".join(f"{n} {v}" for v, n in counts.items())
        + f"; from {rows['ratio'].min():.3g} to {rows['ratio'].max():.3g}."
    )
    named = len(rows) <= LABELLED
    svg = _draw(rows, names, same, named, prefix, alt)
    polarity = rows["polarity"].iloc[0]
    better = "left of 1 is better" if polarity == "lower" else "right of 1 is better"
    note = "" if named else " Cells are in the order of the table, from top to bottom."
    return Figure(
        f"{metric.replace('_', ' ')}: new ÷ base",
        (Panel("", svg),),
        _legend(counts.index, same),
        f"{metric.replace('_', ' ')}: {better}. {fixed} Bars are 95 % intervals.{note}".replace("  ", " "),
        alt,
    )


def cell_label(row: pd.Series, axes: Sequence[Axis]) -> str:
    """`increment · 8 B · spacing 0`: words and values with a unit speak for themselves, bare numbers get their axis' name."""
    parts = []
    for axis in axes:
        value = plain(row[axis.name])
        bare = not isinstance(value, str) and not axis.unit
        parts.append((f"{axis.name.replace('_', ' ')} " if bare else "") + format_value(value, axis.unit))
    return " · ".join(parts) or "all"


def _draw(rows: pd.DataFrame, names: list[str], same: float, named: bool, prefix: str, alt: str):
    ratio, low, high = (rows[c].to_numpy(dtype=float) for c in ("ratio", "low", "high"))
    ends = np.concatenate([ratio, low[np.isfinite(low)], high[np.isfinite(high)], [1 / (1 + same) / 1.02, (1 + same) * 1.02]])
    left, right = ends.min() / 1.02, ends.max() * 1.02
    margin = max(map(text_width, names)) * 0.9 if named else 0
    with matplotlib.rc_context(theme.RC):
        figure, ax = blank(WIDTH + min(margin, 220), 64 + ROW * len(rows) if named else min(700, 120 + 1.6 * len(rows)))
        ax.set_xscale("log")
        ax.axvspan(1 / (1 + same), 1 + same, color=theme.SAME, alpha=0.14, linewidth=0)
        ax.axvline(1.0, color=theme.INK, linewidth=1.0)
        for verdict in dict.fromkeys(rows["verdict"]):
            at = np.flatnonzero((rows["verdict"] == verdict).to_numpy())
            colour, marker, filled = look(verdict)
            shape = {"width": 1.2, "cap": 2.5, "alpha": 1.0} if named else {"width": 0.7, "cap": 0, "alpha": 0.6}
            whiskers(ax, at, ratio[at], low[at], high[at], colour, across=True, **shape)
            ax.plot(
                ratio[at],
                at,
                linestyle="none",
                marker=marker,
                color=colour,
                markerfacecolor=colour if filled else theme.PAPER,
                markersize=5.5 if named else 3,
                zorder=3,
            )
        ax.set_xlim(left, right)
        ax.xaxis.set_major_locator(FixedLocator(ratio_ticks(left, right)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: tick_text(round(v, 4))))
        ax.grid(axis="x")
        ax.set_yticks(range(len(names)) if named else [], names if named else [])
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlabel("new ÷ base (log scale)")
        return to_svg(figure, prefix, alt)


def ratio_ticks(low: float, high: float) -> list[float]:
    """About five ticks around 1: round ratios for wide ranges, even steps for narrow ones."""
    if high / low > 4:
        return log_ticks(low, high)
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / s <= 7)
    return [1 + k * step for k in range(math.ceil((low - 1) / step), math.floor((high - 1) / step) + 1)]


def look(verdict: str) -> tuple[str, str, bool]:
    series, marker, filled = LOOKS.get(verdict, (None, "x", False))
    return (theme.MUTED if series is None else theme.series_colour(series)), marker, filled


def _legend(verdicts, same: float):
    from .panels import key

    entries = [(v, key(*look(v))) for v in LOOKS if v in set(verdicts)]
    return (
        *entries,
        (f"band of practical equality, ±{same * 100:g} %", key(theme.SAME, "band", True, alpha=0.3)),
    )
