"""Heat maps from 1 × 1 to 512 × 512: annotated while the figures are legible, a colour bar always."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ..model import Value
from ..units import format_number, format_quantity, shared_prefix
from . import theme
from .panels import blank, text_width, to_svg
from .relations import describe as describe_relations
from .relations import relation_panel, relation_values
from .scales import LOG_SPAN, format_value, log_ticks, shorten, tick_text
from .selection import (
    DASH,
    MOST_PANELS,
    Figure,
    Panel,
    Selection,
    caption,
    cut,
    facet_points,
    matching,
    usual_distances,
    value_label,
)

MOST_SIDE = 2_048  # rows and columns: as many CPUs as machines have
ANNOTATE = 16  # cells per side up to which every cell carries its figure
CELL = (30, 46)  # CSS pixels of an annotated cell: smallest, largest
SLANT_FROM = 28  # CSS pixels of a column name from which on names are slanted
BORDER = 1.2  # CSS pixels between groups
LEAST_GROUP = 12  # CSS pixels of a group below which the line around it would cover it
TICK = 26  # CSS pixels from one label to the next, at least
PLAIN = 420  # CSS pixels of the longer side of a map without figures
LEAST_FIGURE = 6.5  # CSS pixels of a figure in a cell, below which nobody reads it
BLACK = "#010101"  # of a figure on a light cell: an SVG leaves out #000000, and the page's own ink, light in the dark, would take its place
COLOURS, RATIO_COLOURS = "cividis", "PuOr_r"  # both legible to the colour blind (Nuñez et al. 2018; ColorBrewer)


def draw_heatmap(selection: Selection, prefix: str) -> Figure:
    """One panel per facet, free axis, source and distance class, all on one colour scale."""
    view = selection.view
    points, common, left = facet_points(selection, {view.x, view.y})
    columns, rows = (list(view.both),) * 2 if view.both else (selection.values(view.x), selection.values(view.y))
    (columns, wide), (rows, high) = cut(columns, MOST_SIDE, "columns"), cut(rows, MOST_SIDE, "rows")
    finite = [float(v) for s in selection.sources for v in s.rows["value"].dropna()]
    factor, unit = shared_prefix(selection.unit, finite)
    scale = colour_scale([v / factor for v in finite], selection.ratio)
    label = value_label(selection) + ("" if unit == "×" else f" ({unit})")
    drawn, spread = [], []
    usual_of = [usual_distances(source.rows) for source in selection.sources]
    for point in points:
        for source, usual in zip(selection.sources, usual_of, strict=True):
            mine = matching(source.rows, point)
            classes, others = cut(class_groups(mine, usual), max(1, MOST_PANELS - len(drawn)), "distances")
            left = left or others
            for distance in classes:
                part = mine[mine["distance"].isin(usual) if distance is None else mine["distance"] == distance]
                grid = matrix(part, view.x, view.y, columns, rows) / factor
                measured = grid
                if view.both:
                    grid = np.where(np.isfinite(grid), grid, grid.T)
                if not np.isfinite(grid).any():
                    continue
                title = DASH.join(
                    filter(
                        None,
                        (
                            source.label,
                            *(selection.name(n, v) for n, v in point.items()),
                            f"at another distance: {distance}" if distance else "",
                        ),
                    )
                )
                alt = f"{view.title}{', ' + title if title else ''}. " + describe(
                    grid, rows, columns, view, selection.unit, factor
                )
                drawn.append(
                    Panel(title, heatmap_panel(grid, rows, columns, selection, label, scale, f"{prefix}-{len(drawn)}", alt))
                )
                if view.both:
                    values = relation_values(measured, tuple(rows), source.topology)
                    said = describe_relations(values, unit)
                    spread.append(Panel(title, relation_panel(values, label, f"{prefix}-r{len(drawn)}", said)))
    expected = len(rows) * len(columns) * max(1, len(drawn))
    if view.both:
        expected = len(rows) * (len(rows) - 1) // 2 * max(1, len(drawn))  # a pair is measured once at least
    note = " Hatched: not measured." if drawn and expected > len(finite) else ""
    single = " One node: the matrix is a single cell." if len(rows) == len(columns) == 1 and "node" in view.x else ""
    said = caption(selection, common, left, wide or high).replace(
        "Bars and bands are 95 % intervals.", "95 % intervals of each cell are in the table."
    )
    if spread:
        note += (
            " Beside each map its pairs by relation: dots or, of many, box (quartiles, median), whiskers (5 and 95 %) and ends."
        )
        drawn = [panel for both in zip(drawn, spread, strict=True) for panel in both]
    return Figure(view.title, tuple(drawn), (), said + note + single, f"{len(drawn)} panel(s)", wide=len(drawn) > 1)


def class_groups(rows, usual: set[str]) -> list[str | None]:
    """None (the usual class and single threads) and then each other distance class."""
    others = sorted(set(rows["distance"].dropna()) - usual)
    return ([None] if rows["distance"].isin(usual).any() else []) + others


def matrix(rows, x: str, y: str, columns: Sequence[Value], lines: Sequence[Value]) -> np.ndarray:
    """Values as shape (len(lines), len(columns)); NaN where nothing was measured."""
    grid = np.full((len(lines), len(columns)), np.nan)
    column, line = {v: i for i, v in enumerate(columns)}, {v: i for i, v in enumerate(lines)}
    at = rows[y].map(line).to_numpy(dtype=float, na_value=np.nan), rows[x].map(column).to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(at[0]) & np.isfinite(at[1])
    grid[at[0][known].astype(int), at[1][known].astype(int)] = rows["value"].to_numpy(dtype=float)[known]
    return grid


def colour_scale(values: Sequence[float], ratio: bool) -> Normalize:
    """Common to all panels: centred on 1 for ratios, logarithmic above `LOG_SPAN`."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if ratio:
        reach = max(abs(math.log(v)) for v in (low, high, 1.05))
        return LogNorm(math.exp(-reach), math.exp(reach))
    if low > 0 and high / low > LOG_SPAN:
        return LogNorm(low, high)
    if high - low < 0.1 * abs(high):  # noise must not use the whole scale
        middle, reach = (high + low) / 2, 0.05 * abs(high) or 0.5
        return Normalize(middle - reach, middle + reach)
    return Normalize(low, high)


def describe(grid: np.ndarray, rows, columns, view, unit: str, factor: float) -> str:
    low, high = np.nanmin(grid) * factor, np.nanmax(grid) * factor
    return (
        f"Heat map of {len(rows)} by {len(columns)} cells, {view.y.replace('_', ' ')} down and {view.x.replace('_', ' ')} across: "
        f"{format_quantity(low, unit)} to {format_quantity(high, unit)}."
    )


def heatmap_panel(
    grid: np.ndarray,
    rows: Sequence[Value],
    columns: Sequence[Value],
    selection: Selection,
    label: str,
    scale: Normalize,
    prefix: str,
    alt: str,
) -> Markup:
    """One map. Up to 16 × 16 every cell says its value; missing cells are hatched at every size."""
    view, axes = selection.view, selection.axes
    height, width = grid.shape
    annotated = max(grid.shape) <= ANNOTATE
    side = min(CELL[1], max(CELL[0], PLAIN / max(grid.shape))) if annotated else PLAIN / max(grid.shape)
    texts = [format_value(v, axes[view.y].unit if view.y in axes else "") for v in rows]
    margin = min(140, max(map(text_width, texts)) + 44)
    below = max((text_width(shorten(format_value(v, axes[view.x].unit if view.x in axes else ""))) for v in columns), default=0)
    slanted = 0.75 * below if below > SLANT_FROM else 0
    size = (max(width * side, 60) + max(margin, slanted) + 110, max(height * side, 150) + 62 + slanted)
    with matplotlib.rc_context(theme.RC):
        figure, ax = blank(*size)
        draw_map(figure, ax, grid, rows, columns, selection, label, scale, side)
        return to_svg(figure, prefix, alt)


def draw_map(
    figure,
    ax,
    grid: np.ndarray,
    rows: Sequence[Value],
    columns: Sequence[Value],
    selection: Selection,
    label: str,
    scale: Normalize,
    side: float,
) -> None:
    """Cells of `side` CSS pixels, their names and the colour bar on axes of a figure."""
    view, axes = selection.view, selection.axes
    height, width = grid.shape
    colours = matplotlib.colormaps[RATIO_COLOURS if selection.ratio else COLOURS].with_extremes(bad=(0, 0, 0, 0))
    ax.add_patch(
        Rectangle((-0.5, -0.5), width, height, facecolor=theme.PAPER, edgecolor=theme.EDGE, hatch="////", linewidth=0.8, zorder=0)
    )
    image = ax.imshow(np.ma.masked_invalid(grid), cmap=colours, norm=scale, aspect="equal", interpolation="none", zorder=1)
    _ticks(ax.set_xticks, columns, axes.get(view.x), width, side, rotate=True)
    _ticks(ax.set_yticks, rows, axes.get(view.y), height, side, rotate=False)
    ax.set(xlabel=view.x.replace("_", " "), ylabel=view.y.replace("_", " "), xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    grouped = view.borders if height * side > LEAST_GROUP * len(view.borders) else ()
    for border in (place - 0.5 for place, value in enumerate(rows) if value in grouped):
        ax.axhline(border, color=theme.PAPER, linewidth=BORDER, zorder=3)
        ax.axvline(border, color=theme.PAPER, linewidth=BORDER, zorder=3)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if max(grid.shape) <= ANNOTATE:
        _annotate(ax, grid, image, side)
    _colour_bar(figure, ax, image, label)


def _ticks(setter, values: Sequence[Value], axis, count: int, side: float, rotate: bool) -> None:
    most = min(16 if rotate else 24, max(2, count * side / TICK))
    every = 1 << math.ceil(math.log2(max(1, count / most)))  # 8, 16, 32: as CPUs are grouped
    texts = [shorten(format_value(v, axis.unit if axis else "")) for v in values][::every]
    tight = rotate and max(map(text_width, texts), default=0) > SLANT_FROM
    setter(range(0, count, every), texts, **({"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if tight else {}))


def _annotate(ax, grid: np.ndarray, image, side: float) -> None:
    """Figures, where they can be read, in ink or paper, whichever stands out from its cell (relative luminance, WCAG 2.1)."""
    longest = max(len(format_number(v)) for v in grid[np.isfinite(grid)])
    size = min(theme.FONT_SIZE, side / (0.62 * max(longest, 3)))
    if size < LEAST_FIGURE:
        return
    for (line, column), value in np.ndenumerate(grid):
        if not math.isfinite(value):
            continue
        rgb = np.array(image.cmap(image.norm(value))[:3])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        bright = float(linear @ (0.2126, 0.7152, 0.0722)) > 0.18
        ax.text(
            column,
            line,
            format_number(value),
            ha="center",
            va="center",
            fontsize=size,
            color=BLACK if bright else "#ffffff",
            zorder=2,
        )


def _colour_bar(figure, ax, image, label: str) -> None:
    bar = figure.colorbar(image, ax=ax, fraction=0.08, pad=0.03, aspect=22)
    low, high = image.norm.vmin, image.norm.vmax
    if isinstance(image.norm, LogNorm):
        bar.ax.yaxis.set_major_locator(FixedLocator(log_ticks(low, high) or [low, high]))
    else:
        bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: tick_text(v)))
    bar.set_label(label.replace(")", ", log scale)") if isinstance(image.norm, LogNorm) and label.endswith(")") else label)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
