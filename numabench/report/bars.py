"""Bar panels: one horizontal bar per category and series, with its figure and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import matplotlib
import numpy as np
from markupsafe import Markup

from ..units import format_number
from . import theme
from .panels import LIGHTER, WIDTH, Curve, Frame, blank, curve_style, to_svg, value_axis
from .scales import format_value

BAR_LINE = 23  # CSS pixels per bar, label included
BAR_ROOM = 0.18  # of the value axis kept free beyond the longest bar for its figure


def bar_panel(frame: Frame, curves: Sequence[Curve], prefix: str, alt: str) -> Markup:
    """Horizontal bars, so that names are legible, with value and interval. On a log axis dots: a bar would need a zero."""
    shown = sorted((c for c in curves if any(c.points) or any(c.missing)), key=lambda c: (c.style, c.lighter))
    rows = [
        (x, c, c.points[n]) for n, x in enumerate(frame.positions) for c in shown if c.points[n] or (c.missing and c.missing[n])
    ]
    single = len({c.style for c in shown}) == len(shown) == 1
    texts = [format_value(x, frame.axis.unit) for x in frame.positions]
    low = frame.low if frame.log else min(0.0, frame.low)
    room = frame.high * (frame.high / low) ** BAR_ROOM if frame.log else frame.high + (frame.high - low) * BAR_ROOM
    frame = replace(frame, low=low, high=room)
    with matplotlib.rc_context(theme.RC):
        figure, ax = blank(WIDTH, max(120, 62 + len(rows) * (BAR_LINE if single else 17) + (0 if single else 6 * len(texts))))
        factor = value_axis(frame, ax.xaxis, ax.set_xscale, ax.set_xlim, ax.set_xlabel)
        ax.grid(axis="x")
        if frame.ratio:
            ax.axvline(1.0, color=theme.INK, linewidth=1.0, zorder=2)
        ticks, y, last = {}, 0.0, None
        for x, curve, point in rows:
            y += 0 if last is None else 1.0 if x == last else 1.35
            last = x
            ticks.setdefault(x, []).append(y)
            _bar(ax, y, curve, point, factor, frame)
        ax.set_yticks([float(np.mean(t)) for t in ticks.values()], [format_value(x, frame.axis.unit) for x in ticks])
        ax.set_ylim(y + 0.7, -0.7)
        ax.tick_params(axis="y", length=0)
        if not any(isinstance(x, str) for x in frame.positions):
            ax.set_ylabel(frame.axis.name.replace("_", " "))
        return to_svg(figure, prefix, alt)


def _bar(ax, y: float, curve: Curve, point: tuple[float, float, float] | None, factor: float, frame: Frame) -> None:
    style = curve_style(curve)
    alpha = LIGHTER if curve.lighter else 1.0
    if point is None:
        ax.annotate(
            "not measured",
            (0, y),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=theme.MUTED,
            fontsize=theme.FONT_SIZE - 2,
        )
        return
    value, low, high = (v / factor for v in point)
    if frame.log or frame.ratio:
        ax.plot(
            [value],
            [y],
            marker=style["marker"],
            color=style["color"],
            alpha=alpha,
            linestyle="none",
            clip_on=False,
            zorder=3,
            markerfacecolor=theme.PAPER if curve.lighter or curve.dashed else style["color"],
        )
    else:
        ax.barh(y, value, height=0.72, color=style["color"], alpha=(0.35 if curve.lighter or curve.dashed else 0.8))
    if math.isfinite(low) and math.isfinite(high):
        ax.errorbar(
            [value],
            [y],
            xerr=[[max(0, value - low)], [max(0, high - value)]],
            fmt="none",
            ecolor=style["color"] if frame.log or frame.ratio else theme.INK,
            elinewidth=1.2,
            capsize=3,
            alpha=alpha,
            zorder=4,
        )
    text = f"{value:.3g}×" if frame.unit == "×" else format_number(value)
    ax.annotate(
        text,
        (high if math.isfinite(high) else value, y),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        ha="left",
        fontsize=theme.FONT_SIZE - 2,
        zorder=5,
    )
