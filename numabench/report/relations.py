"""Beside a heat map of CPUs: how the latencies of each relation (same core, same L3, ...) are distributed."""

from __future__ import annotations

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ..analysis.neighbours import symmetric
from ..analysis.places import arrangement
from ..units import format_number
from . import theme
from .panels import WIDTH, blank, text_width, to_svg
from .scales import LOG_SPAN, log_ticks, tick_text

ROW = 44  # CSS pixels of a relation
DOTS = 400  # pairs of a relation up to which each is a dot
BOX_FROM = 5  # pairs from which quartiles say more than the dots
WHISKERS = (5, 95)  # percentiles
SPREAD = 0.26  # of a row: how far the dots lie from its middle


def relation_values(grid: np.ndarray, cpus: tuple[int, ...], topology: dict) -> dict[str, np.ndarray]:
    """Relation -> latencies of its pairs, nearest first; of a pair that was measured both ways both. `grid`: shape (n, n), NaN where not measured."""
    found = arrangement(topology, symmetric(grid), cpus)
    index = found.relation_indices(cpus)
    values = {name: grid[(index == number) & np.isfinite(grid)] for number, name in enumerate(found.relations)}
    return {name: pairs for name, pairs in values.items() if pairs.size}


def describe(values: dict[str, np.ndarray], unit: str) -> str:
    return "Latencies by relation: " + "; ".join(
        f"{name}: {len(pairs)} measured, median {format_number(float(np.median(pairs)))} {unit}, "
        f"{format_number(float(pairs.min()))} to {format_number(float(pairs.max()))}"
        for name, pairs in values.items()
    )


def relation_panel(values: dict[str, np.ndarray], label: str, prefix: str, alt: str) -> Markup:
    """A row for each relation: its pairs as dots while they are few, box (quartiles, median) and whiskers (5 and 95 %), how many there are."""
    texts = [f"{name}\n{len(pairs):,} measured" for name, pairs in values.items()]
    low, high = min(map(np.min, values.values())), max(map(np.max, values.values()))
    with matplotlib.rc_context(theme.RC):
        figure, ax = blank(
            WIDTH + max(text_width(line) for text in texts for line in text.split("\n")) / 2, 90 + ROW * len(values)
        )
        for row, pairs in enumerate(values.values()):
            draw_row(ax, row, pairs)
        if low > 0 and high / low > LOG_SPAN:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(FixedLocator(log_ticks(low / 1.1, high * 1.1)))
        else:
            ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: tick_text(v)))
        ax.set_yticks(range(len(texts)), texts)
        ax.set(ylim=(len(texts) - 0.5, -0.5), xlabel=label)
        ax.margins(x=0.05)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
        return to_svg(figure, prefix, alt)


def draw_row(ax, row: int, pairs: np.ndarray) -> None:
    colour = theme.series_colour(0)
    if pairs.size <= DOTS:
        places = row + SPREAD * np.sin(np.arange(pairs.size) * 2.4)  # golden angle: neighbours do not hide each other
        ax.plot(
            pairs, places, linestyle="none", marker="o", markersize=3.5, color=colour, alpha=0.45, markeredgewidth=0, zorder=2
        )
    if pairs.size < BOX_FROM:
        return
    ends = np.percentile(pairs, (WHISKERS[0], 25, 50, 75, WHISKERS[1]))
    ax.hlines(row, ends[0], ends[4], color=colour, linewidth=1.4, zorder=3)
    ax.barh(
        row, ends[3] - ends[1], left=ends[1], height=0.5, facecolor=colour, alpha=0.35, edgecolor=colour, linewidth=1.2, zorder=3
    )
    ax.vlines(ends[2], row - 0.3, row + 0.3, color=theme.INK, linewidth=2, zorder=4)
    if pairs.size > DOTS:
        ax.plot([pairs.min(), pairs.max()], [row] * 2, linestyle="none", marker="|", markersize=8, color=colour, zorder=3)
