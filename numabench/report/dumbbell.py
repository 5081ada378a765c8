"""The figure that opens a comparison: for each headline quantity a line from BASE to NEW, as a share of BASE, with its interval and verdict."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..analysis.rows import BETTER, SAME, UNKNOWN, WORSE
from . import brief, theme
from .panels import WIDTH, blank, key, to_svg
from .ratios import ratio_ticks
from .selection import Figure, Panel

#: Verdict -> (series colour or None for muted, marker, filled): words, shapes and colours say the same.
LOOKS = {WORSE: (1, "v", True), BETTER: (2, "^", True), SAME: (0, "s", True), UNKNOWN: (None, "o", False)}
ROW = 40  # CSS pixels: a line of text, and the dumbbell below it, so that a telephone's width is enough
TEXT = 0.36  # of a row, above its dumbbell
MOST_SPAN = 8.0  # times or parts of BASE; what lies beyond has an arrow at the edge
NAME = 42  # characters of a name that fit beside its change


def dumbbell(comparison: Any, prefix: str = "d") -> Figure | None:
    """The rows that a comparison shows, worse first; None where none of them has a change."""
    rows = brief.shown_rows(comparison).head(brief.MOST_ROWS)
    rows = rows[np.isfinite(rows["change"].astype(float))].reset_index(drop=True)
    if rows.empty:
        return None
    priced = comparison.priced is not None
    base, new = brief.side_names(comparison)
    said = [f"{row['quantity']}: {brief.change_text(row, priced)}, {row['verdict']}" for _, row in rows.iterrows()]
    what = "Work for the same money" if priced else "Figures"
    alt = f"{what} of {new} as a share of those of {base}, {len(rows)} quantities. " + "; ".join(said) + "."
    svg = _draw(rows, comparison.same, priced, (base, new), prefix, alt)
    caption = (
        f"{base} is 100 %, the open dot; {new} is the filled sign, with its 95 % interval. The band is what counts as the same "
        f"(±{comparison.same * 100:g} %). {'More is better.' if priced else 'Times are better on the left, rates on the right: the words say it.'}"
    )
    return Figure(f"{what}: {new} against {base}", (Panel("", svg),), _legend(rows), caption, alt)


def look(verdict: str) -> tuple[str, str, bool]:
    series, marker, filled = LOOKS[verdict]
    return (theme.MUTED if series is None else theme.series_colour(series)), marker, filled


def _draw(rows: Any, same: float, priced: bool, names: tuple[str, str], prefix: str, alt: str):
    ratio, low, high = (1 + rows[column].to_numpy(dtype=float) for column in ("change", "low", "high"))
    ends = np.concatenate([ratio, low[np.isfinite(low)], high[np.isfinite(high)], [1 / (1 + same) / 1.05, (1 + same) * 1.05]])
    ends = np.clip(ends, 1 / MOST_SPAN, MOST_SPAN)
    left, right = ends.min() / 1.04, ends.max() * 1.04
    with matplotlib.rc_context(theme.RC):
        figure, ax = blank(WIDTH, 62 + ROW * len(rows))
        ax.set_xscale("log")
        ax.axvspan(1 / (1 + same), 1 + same, color=theme.SAME, alpha=0.16, linewidth=0)
        ax.axvline(1.0, color=theme.INK, linewidth=1.0)
        for at, (_, row) in enumerate(rows.iterrows()):
            _row(ax, at, row, (ratio[at], low[at], high[at]), (left, right), priced)
        ax.set_xlim(left, right)
        ax.set_ylim(len(rows) - 0.6, -0.75)
        ax.xaxis.set_major_locator(FixedLocator(ratio_ticks(left, right)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.0f} %"))
        ax.grid(axis="x")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        of = "work per price" if priced else "figure"
        ax.set_xlabel(f"{of} of {_short(names[1])} in % of {_short(names[0])} (log scale)")
        return to_svg(figure, prefix, alt)


def _row(ax: Any, at: int, row: Any, ends: tuple[float, float, float], limits: tuple[float, float], priced: bool) -> None:
    colour, marker, filled = look(row["verdict"])
    value, low, high = ends
    shown = min(max(value, limits[0]), limits[1])
    ax.plot([1.0, shown], [at, at], color=colour, linewidth=2.4, alpha=0.55, solid_capstyle="butt")
    if math.isfinite(low) and math.isfinite(high):
        inside = [min(max(x, limits[0]), limits[1]) for x in (low, high)]
        ax.plot(inside, [at, at], color=colour, linewidth=1.2)
        for x, real in zip(inside, (low, high), strict=True):
            ax.plot(
                [x], [at], marker="|" if x == real else "<" if real < x else ">", markersize=8, color=colour, linestyle="none"
            )
    ax.plot([1.0], [at], marker="o", markersize=6, markerfacecolor=theme.PAPER, color=theme.INK, linestyle="none", zorder=3)
    face = colour if filled else theme.PAPER
    ax.plot([shown], [at], marker=marker, markersize=8, markerfacecolor=face, color=colour, linestyle="none", zorder=4)
    paper = {"facecolor": theme.PAPER, "edgecolor": "none", "pad": 1.5}  # lines do not cross words
    across = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": theme.FONT_SIZE, "zorder": 5, "bbox": paper}
    ax.annotate(_short(row["quantity"], NAME), (0.0, at - TEXT), ha="left", **across)
    ax.annotate(f"{brief.change_text(row, priced)}, {row['verdict']}", (1.0, at - TEXT), ha="right", color=theme.MUTED, **across)


def _short(text: str, most: int = 16) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _legend(rows: Any) -> tuple:
    present = set(rows["verdict"])
    return tuple((verdict, key(*look(verdict))) for verdict in LOOKS if verdict in present)
