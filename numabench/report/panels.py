"""Line panels, legends and what all panels share: matplotlib on hand-over of plain values, knowing no benchmark."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from ..model import Axis, Value
from ..units import format_bytes, shared_prefix
from . import theme
from .scales import byte_ticks, format_value, log_ticks, shorten, tick_text

WIDTH, HEIGHT = 440, 300  # CSS pixels: two panels side by side on a page of 1,000, one on a telephone
PAD = 4  # CSS pixels around what is drawn and written
BAND_FROM = 14  # from this many points on, intervals are a band: caps would hide the curve
LIGHTER = 0.45  # opacity of what is shown for completeness (other distance classes)
SLANT_RISE = 0.62  # height of a slanted label relative to its length (sine of 38 degrees)
DODGE = 0.07  # between the series of a category, so that their intervals do not hide each other
KEY_LINE, KEY_MARK = 1.6, 5.5  # CSS pixels in a legend: width of a line, size of a marker
GLYPH = 0.58  # mean width of a glyph relative to the font size, for the sans serifs that pages are shown in


@dataclass(frozen=True)
class Curve:
    """One line: a point per position, (value, low, high) or None where nothing was measured."""

    label: str
    style: int
    points: tuple[tuple[float, float, float] | None, ...]
    lighter: bool = False
    distance: str = ""
    side: str = ""
    dashed: bool = False
    missing: tuple[bool, ...] = ()  # positions where this series was not measured at any distance


@dataclass(frozen=True)
class Frame:
    """Scales that all panels of a figure share."""

    axis: Axis
    positions: Sequence[Value]
    kind: str
    unit: str
    label: str
    low: float
    high: float
    log: bool
    ratio: bool
    all_values: Sequence[float]


#: Where axes go while somebody collects them, whose figures are pyplot's then.
_collected: ContextVar[list[Axes] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Axes]]:
    """The axes of all panels that are drawn inside, to be shown and changed further, not only as text of an SVG."""
    axes: list[Axes] = []
    token = _collected.set(axes)
    try:
        yield axes
    finally:
        _collected.reset(token)


class PanelRenderer(RendererSVG):
    """matplotlib's own, that measures each text once for all panels: they have the same scales and names."""

    def get_text_width_height_descent(self, s, prop, ismath):
        return text_size(s, prop, ismath)


@lru_cache(maxsize=4096)
def text_size(text: str, font: FontProperties, ismath: object) -> tuple[float, float, float]:
    return text_to_path.get_text_width_height_descent(text, font, ismath)


def to_svg(figure: Figure, prefix: str, alt: str) -> Markup:
    """A panel of `blank` is written by its canvas itself: `savefig` draws everything once before, only to lay it out. Lone axes are laid out here."""
    buffer, options = io.StringIO(), {"metadata": dict.fromkeys(("Date", "Creator", "Format", "Type"))}
    if not isinstance(figure.canvas, FigureCanvasSVG):
        figure.savefig(buffer, format="svg", **options)
    elif len(figure.axes) == 1:
        renderer = PanelRenderer(*figure.get_size_inches() * 72, buffer, **options)
        lay_out(figure.axes[0], renderer)
        figure.draw(renderer)
        renderer.finalize()
    else:
        for axes in figure.axes:
            for artist in (*axes.lines, *axes.patches, *axes.collections):
                artist.set_in_layout(False)  # what is drawn lies inside: its extent need not be found
        figure.canvas.print_svg(buffer, **options)
    return Markup(theme.finish(buffer.getvalue(), prefix, alt))


def lay_out(ax: Axes, renderer: RendererSVG) -> None:
    """Lone axes as large as what is written beside them allows. matplotlib's constrained layout finds the same, and takes longer for it than for drawing."""
    figure = ax.figure
    figure.set_layout_engine("none")
    inside = ax.bbox.frozen()
    names = [Bbox.union([inside, *tick_boxes(axis, renderer)]) for axis in (ax.xaxis, ax.yaxis)]
    most = Bbox.union(names)
    below, left = inside.y0 - names[0].y0, inside.x0 - names[1].x0  # how far the names of ticks reach
    thick = [axis.label.get_window_extent(renderer) if axis.label.get_text() else None for axis in (ax.xaxis, ax.yaxis)]
    below += thick[0].height + ax.xaxis.labelpad if thick[0] else 0
    left += thick[1].width + ax.yaxis.labelpad if thick[1] else 0
    x0, y0 = max(left, inside.x0 - most.x0) + PAD, max(below, inside.y0 - most.y0) + PAD
    x1, y1 = figure.bbox.x1 - (most.x1 - inside.x1) - PAD, figure.bbox.y1 - (most.y1 - inside.y1) - PAD
    ax.set_position(Bbox([[x0, y0], [x1, y1]]).transformed(figure.transFigure.inverted()))
    ax.xaxis.set_label_coords(0.5, (names[0].y0 - inside.y0 - ax.xaxis.labelpad) / (y1 - y0))
    ax.yaxis.set_label_coords((names[1].x0 - inside.x0 - ax.yaxis.labelpad) / (x1 - x0), 0.5)


def tick_boxes(axis: matplotlib.axis.Axis, renderer: RendererSVG) -> list[Bbox]:
    """Where the names of its ticks are."""
    low, high = sorted(axis.get_view_interval())
    labels = zip(axis.get_ticklabels(), axis.get_majorticklocs(), strict=True)
    return [label.get_window_extent(renderer) for label, at in labels if low <= at <= high and label.get_text()]


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in CSS pixels (72 per inch: one SVG unit is one pixel) with one axes that fills it by layout."""
    collected = _collected.get()
    size = {"figsize": (width / 72, height / 72), "layout": "constrained"}
    if collected is None:
        figure = Figure(dpi=72, **size)
        FigureCanvasSVG(figure)
    else:
        from matplotlib import pyplot

        figure = pyplot.figure(**size)
    figure.get_layout_engine().set(w_pad=PAD / 72, h_pad=PAD / 72)
    axes = figure.add_subplot()
    if collected is not None:
        collected.append(axes)
    return figure, axes


def text_width(text: str) -> float:
    return len(text) * GLYPH * theme.FONT_SIZE


def value_axis(frame: Frame, axis: object, set_scale, set_limits, set_label) -> float:
    """Scale, ticks and label of the value axis; returns the factor that values are divided by (rates: M, G)."""
    factor, unit = shared_prefix(frame.unit, frame.all_values)
    low, high = frame.low / factor, frame.high / factor
    if frame.log:
        set_scale("log")
        axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: tick_text(v)))
    set_limits(low, high)
    notes = ", ".join(filter(None, (unit if unit != "×" else "", "log scale" if frame.log else "")))
    set_label(f"{frame.label} ({notes})" if notes else frame.label)
    return factor


def category_labels(frame: Frame) -> tuple[list[str], int, bool]:
    """(texts, show every n-th, whether they must be slanted to fit)."""
    in_label = frame.axis.unit and frame.axis.unit not in ("B", "byte", "bytes")
    texts = [shorten(format_value(v, "" if in_label else frame.axis.unit)) for v in frame.positions]
    every = max(1, math.ceil(len(texts) / 24))
    return texts, every, sum(text_width(t) + 8 for t in texts[::every]) > WIDTH - 70


def parameter_axis(frame: Frame, ax) -> np.ndarray:
    """Scale and ticks of the x axis; returns where each position lies."""
    unit = frame.axis.unit
    shown = f" ({unit})" if unit and unit not in ("B", "byte", "bytes") else ""
    ax.set_xlabel(frame.axis.name.replace("_", " ") + shown)
    if frame.kind == "category":
        texts, every, tight = category_labels(frame)
        at = np.arange(len(texts), dtype=float)
        ax.set_xticks(
            at[::every],
            texts[::every],
            rotation=38 if tight else 0,
            ha="right" if tight else "center",
            rotation_mode="anchor" if tight else "default",
        )
        ax.set_xlim(-0.5, len(texts) - 0.5)
        return at
    at = np.array(frame.positions, dtype=float)
    if frame.kind == "log2":
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(byte_ticks(at.min(), at.max())))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: format_bytes(int(v))))
    elif frame.kind == "log":
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(log_ticks(at.min() * 0.999, at.max() * 1.001)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: tick_text(v)))
    else:
        few = len(at) <= 8 and (not len(at) > 1 or np.diff(np.sort(at)).min() * 12 >= np.ptp(at))
        ax.xaxis.set_major_locator(FixedLocator(at) if few else MaxNLocator(6, integer=bool((at == at.round()).all())))
        text = format_bytes if unit == "B" else tick_text
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: text(v)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    return at


def known(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which of these intervals there are."""
    return np.isfinite(low) & np.isfinite(high)


def whiskers(
    ax,
    at: np.ndarray,
    value: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    colour: str,
    across: bool = False,
    width: float = 1.2,
    cap: float = 3,
    **options,
) -> None:
    """The intervals of values at places of the other axis, as far as they are known; `across`: the values lie along x."""
    there = known(low, high)
    at, value, nowhere = at[there], value[there], np.full(there.sum(), np.nan)
    ends = np.minimum(value, low[there]), np.maximum(value, high[there])
    lines, caps = (np.repeat(at, 3), np.stack((*ends, nowhere), axis=-1).ravel()), (np.tile(at, 2), np.concatenate(ends))
    options |= {"color": colour, "label": "_"}
    ax.plot(*(lines[::-1] if across else lines), linewidth=width, solid_capstyle="butt", **options)
    ax.plot(*(caps[::-1] if across else caps), linestyle="none", marker="|" if across else "_", markersize=2 * cap, **options)


def draw_curve(ax, at: np.ndarray, curve: Curve, factor: float, joined: bool) -> None:
    """One line with its intervals; gaps stay gaps."""
    data = np.array([p or (np.nan,) * 3 for p in curve.points], dtype=float) / factor
    value, low, high = data.T
    style = curve_style(curve)
    alpha = LIGHTER if curve.lighter else 1.0
    hollow = curve.dashed or curve.lighter
    if len(at) >= BAND_FROM and joined:
        ax.fill_between(at, low, high, color=style["color"], alpha=0.22 * alpha, linewidth=0)
    else:
        whiskers(ax, at, value, low, high, style["color"], alpha=alpha)
    ax.plot(
        at,
        value,
        color=style["color"],
        linestyle=style["linestyle"] if joined else "none",
        marker=style["marker"],
        markersize=5.5 if len(at) < 40 else 2.5,
        markerfacecolor=theme.PAPER if hollow else style["color"],
        alpha=alpha,
        linewidth=1.1 if curve.lighter else 1.7,
        clip_on=False,
        zorder=3,
        label=curve_name(curve),
    )


def line_panel(frame: Frame, curves: Sequence[Curve], prefix: str, alt: str) -> Markup:
    """Curves over a parameter. Categories that are words are not joined by a line: there is nothing between them."""
    with matplotlib.rc_context(theme.RC):
        texts, _, tight = category_labels(frame)
        slanted = SLANT_RISE * max(map(text_width, texts)) if tight and frame.kind == "category" else 0
        figure, ax = blank(WIDTH, HEIGHT + slanted)
        draw_lines(ax, frame, curves)
        return to_svg(figure, prefix, alt)


def draw_lines(ax, frame: Frame, curves: Sequence[Curve]) -> None:
    """Scales, labels and curves of a panel on its axes."""
    at = parameter_axis(frame, ax)
    factor = value_axis(frame, ax.yaxis, ax.set_yscale, ax.set_ylim, ax.set_ylabel)
    ax.grid(axis="y")
    if frame.ratio:
        ax.axhline(1.0, color=theme.INK, linewidth=1.0, zorder=2)
    words = any(isinstance(v, str) for v in frame.positions)
    shown = [c for c in curves if any(c.points)]
    styles = sorted({c.style for c in shown})
    width = DODGE if frame.kind == "category" and 1 < len(styles) <= 5 else 0.0
    for curve in shown:
        draw_curve(ax, at + (styles.index(curve.style) - (len(styles) - 1) / 2) * width, curve, factor, not words)
    gaps = at[[any(c.missing and c.missing[i] for c in shown) for i in range(len(at))]]
    ax.plot(
        gaps,
        np.full(len(gaps), frame.low / factor),
        linestyle="none",
        marker="x",
        markersize=6,
        color=theme.MUTED,
        clip_on=False,
        zorder=4,
    )


@lru_cache(maxsize=512)
def key(colour: str, marker: str, filled: bool, linestyle: object = "none", alpha: float = 1.0) -> Markup:
    """A legend key of 34 by 12 pixels: colour, dash and marker; the marker `band` is a translucent block. Written by hand: pages have a hundred."""
    if marker == "band":
        drawn = f'<path d="M3.4 0H30.6V12H3.4Z" fill="{colour}" opacity="{alpha:g}"/>'
    else:
        dashes = (
            ""
            if isinstance(linestyle, str)
            else ' stroke-dasharray="{}"'.format(" ".join(f"{KEY_LINE * length:g}" for length in linestyle[1]))
        )
        line = f'<path d="M1.4 6H32.6" stroke="{colour}" stroke-width="{KEY_LINE}"{dashes}/>' if linestyle != "none" else ""
        face = colour if filled else theme.PAPER
        drawn = f'<g opacity="{alpha:g}">{line}<path d="{marker_path(marker)}" fill="{face}" stroke="{colour}"/></g>'
    return Markup(theme.themed(f'<svg class="key" viewBox="0 0 34 12" width="34" height="12" aria-hidden="true">{drawn}</svg>'))


def marker_path(marker: str) -> str:
    """A marker of matplotlib as the path of an SVG, in the middle of a key."""
    style = MarkerStyle(marker)
    outline = style.get_path().transformed(style.get_transform().scale(KEY_MARK, -KEY_MARK).translate(17, 6))
    return "".join(
        "_MLQC"[int(code)] + " ".join(f"{place:.2f}" for place in places) if code < Path.CLOSEPOLY else "Z"
        for places, code in outline.iter_segments()
    )


def swatch(curve: Curve, shape: str) -> Markup:
    """The key of a curve drawn as `line`, `dot` or `bar`."""
    style, alpha = curve_style(curve), LIGHTER if curve.lighter else 1.0
    if shape == "bar":
        return key(style["color"], "band", True, alpha=0.35 if curve.lighter or curve.dashed else 0.8)
    filled = not (curve.dashed or curve.lighter)
    return key(style["color"], style["marker"], filled, style["linestyle"] if shape == "line" else "none", alpha)


def curve_name(curve: Curve) -> str:
    """What a legend of matplotlib calls it; a lone unnamed curve stays out of it."""
    return ", ".join(filter(None, (curve.side, curve.label, curve.distance and f"at {curve.distance}"))) or "_"


def curve_style(curve: Curve) -> dict:
    return theme.series_style(curve.style) | ({"linestyle": (0, (5, 2))} if curve.dashed else {})


def legend(curves: Sequence[Curve], shape: str, overlay: bool) -> tuple[tuple[str, Markup], ...]:
    """Keys in the order of the series, then one per other distance class. A lone unnamed curve needs none."""
    entries: dict[str, Markup] = {}
    several = len({(c.style, c.label) for c in curves}) > 1
    for curve in sorted(curves, key=lambda c: (bool(c.distance), c.style)):
        if not any(curve.points):
            continue
        if curve.distance:
            name = f"{'lighter: ' if several else ''}CPUs at another distance, {curve.distance}"
        else:
            name = ", ".join(filter(None, (curve.side if overlay else "", curve.label)))
        if not name or name in entries:
            continue
        shared = curve.distance and several
        neutral = "band" if shape == "bar" else "o"
        entries[name] = key(theme.MUTED, neutral, False, alpha=0.5) if shared else swatch(curve, shape)
    if shape == "line" and any(any(c.missing) for c in curves if any(c.points)):
        entries["not measured for some series"] = Markup('<span class="cross" aria-hidden="true">×</span>')
    return tuple(entries.items())
