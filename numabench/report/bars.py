"""Bar panels: one horizontal bar per category and series, with its figure and interval."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.transforms import Transform, offset_copy

from ..units import format_number
from . import theme
from .panels import LIGHTER, WIDTH, Curve, Frame, blank, curve_style, known, to_svg, value_axis, whiskers
from .scales import format_value

BAR_LINE = 23  # CSS pixels per bar, label included
LINE = 58  # characters of what is said below the bars
BAR = 0.72  # thickness of a bar, of its share of the axis
BAR_ROOM = 0.18  # of the value axis kept free beyond the longest bar for its figure


def bar_panel(frame: Frame, curves: Sequence[Curve], prefix: str, alt: str) -> Markup:
    """Horizontal bars, so that names are legible, with value and interval. On a log axis dots: a bar would need a zero."""
    shown = sorted((c for c in curves if any(c.points) or any(c.missing)), key=lambda c: (c.style, c.lighter))
    measured = [any(c.points[n] for c in shown) for n in range(len(frame.positions))]
    rows = [
        (x, c, c.points[n])
        for n, x in enumerate(frame.positions)
        for c in shown
        if measured[n] and (c.points[n] or (c.missing and c.missing[n]))
    ]
    lacking = [format_value(x, frame.axis.unit) for x, there in zip(frame.positions, measured, strict=True) if not there]
    single = len({c.style for c in shown}) == len(shown) == 1
    below = textwrap.wrap(f"Not measured: {', '.join(lacking)}", LINE) if lacking else []
    low = frame.low if frame.log else min(0.0, frame.low)
    room = frame.high * (frame.high / low) ** BAR_ROOM if frame.log else frame.high + (frame.high - low) * BAR_ROOM
    frame = replace(frame, low=low, high=room)
    with matplotlib.rc_context(theme.RC):
        height = 62 + len(rows) * (BAR_LINE if single else 17) + (0 if single else 6 * sum(measured)) + 15 * len(below)
        figure, ax = blank(WIDTH, max(120, height))
        factor = value_axis(frame, ax.xaxis, ax.set_xscale, ax.set_xlim, lambda text: ax.set_xlabel("\n".join((text, *below))))
        ax.grid(axis="x")
        if frame.ratio:
            ax.axvline(1.0, color=theme.INK, linewidth=1.0, zorder=2)
        ticks, y, last, bars = {}, 0.0, None, {}
        for x, curve, point in rows:
            y += 0 if last is None else 1.0 if x == last else 1.35
            last = x
            ticks.setdefault(x, []).append(y)
            if point is None:
                _words(
                    ax,
                    (0, y),
                    "not measured",
                    offset_copy(ax.get_yaxis_transform(), figure, 4, units="points"),
                    color=theme.MUTED,
                )
            else:
                bars.setdefault(id(curve), (curve, []))[1].append((y, *(v / factor for v in point)))
        for curve, places in bars.values():
            _bars(ax, curve, np.array(places), frame)
        ax.set_yticks([float(np.mean(t)) for t in ticks.values()], [format_value(x, frame.axis.unit) for x in ticks])
        ax.set_ylim(y + 0.7, -0.7)
        ax.tick_params(axis="y", length=0)
        if not any(isinstance(x, str) for x in frame.positions):
            ax.set_ylabel(frame.axis.name.replace("_", " "))
        return to_svg(figure, prefix, alt)


def _words(ax, at: tuple[float, float], text: str, transform: Transform, **options) -> None:
    """Beside a bar; BAR_ROOM is for it, so that the layout need not be."""
    style = {"fontsize": theme.FONT_SIZE - 2, "va": "center", "ha": "left", "zorder": 5, "transform": transform}
    ax.text(*at, text, **style, **options).set_in_layout(False)


def _bars(ax, curve: Curve, places: np.ndarray, frame: Frame) -> None:
    """The bars of one curve; `places` has a row (y, value, low, high) for each."""
    style, points = curve_style(curve), frame.log or frame.ratio
    alpha = LIGHTER if curve.lighter else 1.0
    y, value, low, high = places.T
    if points:
        face = theme.PAPER if curve.lighter or curve.dashed else style["color"]
        look = {"marker": style["marker"], "color": style["color"], "alpha": alpha, "markerfacecolor": face}
        ax.plot(value, y, linestyle="none", clip_on=False, zorder=3, **look)
    else:
        ends = [y - BAR / 2, y + BAR / 2]
        corners = np.stack([(0 * y, ends[0]), (value, ends[0]), (value, ends[1]), (0 * y, ends[1]), (0 * y, ends[0])]).transpose(
            2, 0, 1
        )
        steps = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(y)
        look = {"color": style["color"], "linewidth": 0, "alpha": 0.35 if curve.lighter or curve.dashed else 0.8}
        ax.add_patch(PathPatch(Path(corners.reshape(-1, 2), steps), **look))  # all bars are one thing to draw
    whiskers(ax, y, value, low, high, style["color"] if points else theme.INK, across=True, alpha=alpha, zorder=4)
    place = offset_copy(ax.transData, ax.figure, 7, units="points")
    for at, one, end in zip(y, value, np.where(known(low, high), high, value), strict=True):
        _words(ax, (end, at), f"{one:.3g}×" if frame.unit == "×" else format_number(one), place)
