"""Curves of one metric over another: what a system answers against what is asked of it (latency under load)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..model import Value
from ..units import format_quantity, shared_prefix
from . import theme
from .panels import HEIGHT, LIGHTER, WIDTH, blank, key, to_svg
from .scales import format_value, limits, log_ticks, plain, tick_text
from .selection import DASH, MOST_CURVES, Figure, Panel, Selection, caption, cut, facet_points, matching, value_label

KNEE = 1.5  # times the value of the first point: beyond it a curve counts as bent


@dataclass(frozen=True)
class Path:
    """One curve: shape (n, 3) arrays of value, low, high in the order of the axis that it goes along."""

    label: str
    style: int
    x: np.ndarray
    y: np.ndarray
    dashed: bool = False
    lighter: bool = False

    @property
    def most(self) -> int:
        """The point that reaches farthest."""
        return int(np.argmax(self.x[:, 0]))

    @property
    def knee(self) -> int | None:
        """The last point before the first that is over `KNEE` times the first one; None where there is none."""
        bent = np.flatnonzero(self.y[:, 0] > KNEE * self.y[0, 0])
        return int(bent[0]) - 1 if len(bent) and bent[0] else None


def draw_curves(selection: Selection, prefix: str) -> Figure | None:
    """One panel per facet, all on common scales: a curve per source and series."""
    view = selection.view
    across = next((m for m in selection.descriptor.metrics if m.name == view.x), None)
    if across is None or view.along is None:
        return None
    points, common, left = facet_points(selection, {view.along, view.series})
    series, fewer = cut(selection.values(view.series) or [None], MOST_CURVES, "curves")
    groups = [(point, paths_of(selection, point, series)) for point in points]
    groups = [(point, paths) for point, paths in groups if paths]
    if not groups:
        return None
    every = [path for _, paths in groups for path in paths]
    x_scale = limits([float(v) for path in every for v in path.x.ravel()])
    y_scale = limits([float(v) for path in every for v in path.y.ravel()])
    units = [
        shared_prefix(m.unit, [v for path in every for v in array(path).ravel()])
        for m, array in ((across, lambda path: path.x), (selection.metric, lambda path: path.y))
    ]
    labels = [
        f"{name.replace('_', ' ')} ({unit})" for name, (_, unit) in zip((across.name, value_label(selection)), units, strict=True)
    ]
    drawn = []
    for number, (point, paths) in enumerate(groups):
        title = DASH.join(selection.name(n, v) for n, v in point.items())
        alt = f"{view.title}{', ' + title if title else ''}. " + describe(paths, across.unit, selection.metric.unit)
        factors = units[0][0], units[1][0]
        drawn.append(Panel(title, curve_panel(paths, factors, (x_scale, y_scale), labels, f"{prefix}-{number}", alt)))
    said = caption(selection, common, left, fewer)
    said += f" Dotted: the first point of the lowest curve. Ring: the most that a curve reaches. Diamond: its last point below {KNEE:g} times its first."
    return Figure(view.title, tuple(drawn), legend(every), said, f"{len(drawn)} panel(s)", wide=len(drawn) > 1)


def paths_of(selection: Selection, point: dict[str, Value], every: Sequence[Value | None]) -> list[Path]:
    view, found = selection.view, []
    order = {value: index for index, value in enumerate(selection.values(view.along))}
    for source in selection.sources:
        rows = matching(source.rows, point)
        if "main" in rows:
            rows = rows[rows["main"].astype(bool)]
        for number, series in enumerate(every):
            mine = rows if series is None else matching(rows, {view.series: series})
            mine = mine.loc[sorted(mine.index, key=lambda i, mine=mine: order[plain(mine.at[i, view.along])])]
            data = [mine[[f"{head}value", f"{head}low", f"{head}high"]].to_numpy(dtype=float) for head in ("x_", "")]
            known = np.isfinite(data[0][:, 0]) & np.isfinite(data[1][:, 0])
            if known.any():
                label = "" if series is None else f"{view.series.replace('_', ' ')} {format_value(series)}"
                found.append(
                    Path(
                        label=", ".join(filter(None, (source.label, label))),
                        style=number,
                        x=data[0][known],
                        y=data[1][known],
                        dashed=source.style == 0,
                        lighter=source.lighter,
                    )
                )
    return found


def curve_panel(paths: Sequence[Path], factors, scales, labels, prefix: str, alt: str) -> Markup:
    with matplotlib.rc_context(theme.RC):
        figure, ax = blank(WIDTH, HEIGHT)
        for axis, set_limits, set_scale, set_label, (low, high, log), factor, label in (
            (ax.xaxis, ax.set_xlim, ax.set_xscale, ax.set_xlabel, scales[0], factors[0], labels[0]),
            (ax.yaxis, ax.set_ylim, ax.set_yscale, ax.set_ylabel, scales[1], factors[1], labels[1]),
        ):
            if log:
                set_scale("log")
                axis.set_major_locator(matplotlib.ticker.FixedLocator(log_ticks(low / factor, high / factor)))
                axis.set_minor_locator(matplotlib.ticker.NullLocator())
            else:
                axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(FuncFormatter(lambda v, _: tick_text(v)))
            set_limits(low / factor, high / factor)
            set_label(label + (", log scale" if log else ""))
        ax.grid(axis="y")
        ax.axhline(min(path.y[0, 0] for path in paths) / factors[1], color=theme.MUTED, linewidth=1.0, linestyle=":", zorder=2)
        for path in paths:
            draw_path(ax, path, factors)
        return to_svg(figure, prefix, alt)


def draw_path(ax, path: Path, factors: tuple[float, float]) -> None:
    x, y = path.x / factors[0], path.y / factors[1]
    style = theme.series_style(path.style) | ({"linestyle": (0, (5, 2))} if path.dashed else {})
    alpha = LIGHTER if path.lighter else 1.0
    spans = [np.nan_to_num(np.maximum(0, [d[:, 0] - d[:, 1], d[:, 2] - d[:, 0]])) for d in (x, y)]
    ax.errorbar(
        x[:, 0], y[:, 0], xerr=spans[0], yerr=spans[1], fmt="none", ecolor=style["color"], elinewidth=1.0, alpha=0.6 * alpha
    )
    label = path.label or "_"
    ax.plot(x[:, 0], y[:, 0], markersize=4, linewidth=1.6, alpha=alpha, clip_on=False, zorder=3, label=label, **style)
    marks = [(path.most, "o", theme.PAPER)] + ([(path.knee, "D", style["color"])] if path.knee is not None else [])
    for index, marker, face in marks:
        ax.plot(
            x[index, 0],
            y[index, 0],
            marker=marker,
            markersize=9 if marker == "o" else 7,
            markerfacecolor=face,
            markeredgecolor=style["color"],
            color=style["color"],
            alpha=alpha,
            clip_on=False,
            zorder=4,
        )


def legend(paths: Sequence[Path]) -> tuple[tuple[str, Markup], ...]:
    entries: dict[str, Markup] = {}
    for path in paths:
        if path.label and path.label not in entries:
            style = theme.series_style(path.style)
            line = (0, (5, 2)) if path.dashed else style["linestyle"]
            entries[path.label] = key(style["color"], style["marker"], not path.dashed, line)
    return tuple(entries.items())


def describe(paths: Sequence[Path], x_unit: str, y_unit: str) -> str:
    """The curves in words: where each starts and how far it reaches. At most eight, the table has them all."""
    said = []
    for path in paths[:8]:
        (x0, y0), (x1, y1) = ((path.x[i, 0], path.y[i, 0]) for i in (0, path.most))
        said.append(
            (f"{path.label}: " if path.label else "")
            + f"{format_quantity(y0, y_unit)} at {format_quantity(x0, x_unit)}, {format_quantity(y1, y_unit)} at {format_quantity(x1, x_unit)}"
        )
    return "; ".join(said) + "."
