"""A benchmark's views as figures: one small SVG panel per facet, one legend, one text for those who cannot see it.

Panels are separate SVGs, so that a page lays them out side by side on a wide screen and below each other on a telephone.
They share their scales. Distance classes are never joined: the class that most cells were measured in is drawn in full,
the others lighter and named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from ..model import Axis, BenchmarkRecord, Value, View
from ..units import format_quantity
from . import panels
from .bars import bar_panel
from .curves import draw_curves
from .heatmaps import draw_heatmap
from .scales import axis_kind, format_value, limits, plain
from .selection import (
    DASH,
    MOST_BARS,
    MOST_CURVES,
    Figure,
    Panel,
    Selection,
    Source,
    caption,
    cut,
    facet_points,
    matching,
    select,
    usual_distances,
    value_label,
    view_rows,
)

if TYPE_CHECKING:
    import pandas as pd

FLAT = 0.2  # a panel that fills less than this share of the common scale ...
TELLING = 1.1  # ... though its values differ by more than this factor gets a scale of its own


def _points(
    rows: pd.DataFrame, view: View, usual: set[str]
) -> dict[tuple[Value | None, str], dict[Value, tuple[float, float, float]]]:
    """(series, distance; "" of the usual ones) -> position -> (value, low, high) of what was measured; a cell's main class wins over another of the same curve."""
    rows = rows.sort_values("main", kind="stable") if "main" in rows else rows
    series = rows[view.series] if view.series else [None] * len(rows)
    found: dict[tuple[Value | None, str], dict[Value, tuple[float, float, float]]] = {}
    for of, at, distance, *point in zip(series, *(rows[n] for n in (view.x, "distance", "value", "low", "high")), strict=True):
        if math.isfinite(point[0]) and isinstance(distance, str):
            curve = found.setdefault((plain(of), "" if distance in usual else distance), {})
            curve[plain(at)] = tuple(map(float, point))
    return found


def _curves(selection: Selection, point: dict[str, Value], overlay: bool) -> tuple[list[panels.Curve], str]:
    """One curve per source, series and distance class of a panel, the lighter ones first so that the others lie on top; and what is left out.

    Single threads have no distance: their points belong to the curve of the usual class.
    """
    view, curves = selection.view, []
    positions, left = drawn_positions(selection)
    every, fewer = cut(selection.values(view.series) or [None], MOST_CURVES, "curves")
    for source in selection.sources:
        points = _points(matching(source.rows, point), view, usual_distances(source.rows))
        for number, series in enumerate(every):
            measured = {x for (of, _), at in points.items() if of == series for x in at}
            own = sorted(distance for of, distance in points if of == series and distance)
            classes, others = cut(own, max(0, MOST_CURVES - len(curves)), "distances")
            fewer = fewer or others
            for distance in ["", *classes]:
                at = points.get((series, distance), {})
                curves.append(
                    panels.Curve(
                        label=series_label(view.series, series, selection.axes[view.series].unit) if series is not None else "",
                        style=source.style if source.style is not None else number,
                        points=tuple(at.get(x) for x in positions),
                        missing=tuple(not distance and bool(measured) and x not in measured for x in positions),
                        lighter=source.lighter or bool(distance),
                        distance=distance,
                        side=source.label,
                        dashed=source.style == 0 and overlay,
                    )
                )
    return sorted(curves, key=lambda c: not c.lighter), left or fewer


def drawn_positions(selection: Selection) -> tuple[Sequence[Value], str]:
    """The values along x, as many as can be drawn: a point is small, and a bar is not."""
    values = selection.values(selection.view.x)
    return cut(values, MOST_BARS, "bars") if selection.view.kind == "bar" else (values, "")


def series_label(axis: str, value: object, unit: str) -> str:
    """`mutex` says what it is, `2` does not: `threads 2`."""
    text = format_value(value, unit)
    return text if isinstance(value, str) else f"{axis.replace('_', ' ')} {text}"


def figure(
    view: View,
    descriptor: BenchmarkRecord,
    estimates: pd.DataFrame,
    contrasts: pd.DataFrame | None = None,
    *,
    prefix: str = "fig",
    topology: dict | None = None,
    most: int | None = None,
) -> Figure | None:
    """The figure of one view of one machine; None when no cell of it was measured. `prefix` makes ids unique in a page;
    `topology` is that of a header, for the relations of CPUs; `most`: panels at most, where they are fewer than any figure has."""
    rows = view_rows(view, descriptor, estimates, contrasts)
    return draw(select(view, descriptor, [Source(rows, topology=topology or {})], most), prefix)


def draw(selection: Selection | None, prefix: str) -> Figure | None:
    """Panels with common scales for a selection."""
    if selection is None:
        return None
    if selection.view.kind == "heatmap" and selection.view.y:
        return draw_heatmap(selection, prefix)
    if selection.view.kind == "curve":
        return draw_curves(selection, prefix)
    view = selection.view
    overlay = len(selection.sources) > 1
    if overlay and view.series:  # colour is the side's, so every series gets its own panel
        selection = replace(selection, view=msgspec.structs.replace(view, series=None))
    framed, common, own, left = frames(selection)
    positions, _ = drawn_positions(selection)
    drawn = []
    for number, (title, frame, curves) in enumerate(framed):
        alt = f"{selection.view.title}{', ' + title if title else ''}. " + describe(selection, curves, positions)
        bars = view.kind == "bar"
        drawn.append(Panel(title, (bar_panel if bars else panels.line_panel)(frame, curves, f"{prefix}-{number}", alt)))
    shape = "line" if view.kind != "bar" else "dot" if selection.ratio or any(f.log for _, f, _ in framed) else "bar"
    keys = panels.legend([c for _, _, curves in framed for c in curves], shape, overlay)
    said = caption(selection, common, *left) + (" Each panel has its own vertical scale." if own else "")
    return Figure(
        view.title, tuple(drawn), keys, said, f"{len(drawn)} panel{'s' if len(drawn) != 1 else ''}", wide=len(drawn) > 1
    )


def frames(selection: Selection) -> tuple[list[tuple[str, panels.Frame, list[panels.Curve]]], dict[str, Value], bool, list[str]]:
    """(title, scales, curves) of each panel that has points, what is the same in all of them, whether each has a vertical scale of its own, and what
    is left out."""
    view = selection.view
    points, common, fewer = facet_points(selection, {view.x, view.series})
    axis = selection.axes.get(view.x) or Axis(name=view.x, summary="", values=())
    positions, _ = drawn_positions(selection)
    made = [(point, *_curves(selection, point, len(selection.sources) > 1)) for point in points]
    left = [fewer, *(lacking for _, _, lacking in made)]
    curves_of = [(point, curves) for point, curves, _ in made if any(p for c in curves for p in c.points)]
    scales, own = value_scales([curves for _, curves in curves_of], selection.ratio)
    found = []
    for (point, curves), (low, high, log) in zip(curves_of, scales, strict=True):
        frame = panels.Frame(
            axis=axis,
            positions=positions,
            kind=axis_kind(axis, positions),
            unit=selection.unit,
            label=value_label(selection),
            low=low,
            high=high,
            log=log,
            ratio=selection.ratio,
            all_values=[v for c in curves for p in c.points if p for v in p] if own else selection.finite(),
        )
        found.append((DASH.join(selection.name(n, v) for n, v in point.items()), frame, curves))
    return found, common, own, left


def value_scales(groups: Sequence[Sequence[panels.Curve]], ratio: bool) -> tuple[list[tuple[float, float, bool]], bool]:
    """(low, high, logarithmic) of each panel: one scale for all, unless it would flatten a panel with something to show."""
    spans = [
        [v for c in curves for p in c.points if p for v in p if math.isfinite(v)] + ([1.0] if ratio else []) for curves in groups
    ]
    common = limits([v for span in spans for v in span])

    def share(span: list[float]) -> float:
        low, high = (math.log(max(v, 1e-300)) if common[2] else v for v in (min(span), max(span)))
        floor, top = (math.log(v) if common[2] else v for v in common[:2])
        return (high - low) / (top - floor)

    own = len(spans) > 1 and any(share(s) < FLAT and max(s) > TELLING * min(s) for s in spans if s)
    return ([limits(s) for s in spans] if own else [common] * len(spans)), own


def describe(selection: Selection, curves: Sequence[panels.Curve], positions: Sequence[Value]) -> str:
    """The curves in words: where each starts and ends. At most eight, the table has them all."""
    said = []
    unit = selection.axes[selection.view.x].unit if selection.view.x in selection.axes else ""
    for curve in [c for c in curves if any(c.points)][:8]:
        present = [(x, p[0]) for x, p in zip(positions, curve.points, strict=True) if p]
        name = " ".join(filter(None, (curve.side, curve.label, curve.distance and f"at distance {curve.distance}")))
        ends = [present[0], present[-1]] if len(present) > 1 else present
        said.append(
            (f"{name}: " if name else "")
            + ", ".join(f"{format_quantity(v, selection.unit)} at {format_value(x, unit)}" for x, v in ends)
        )
    return "; ".join(said) + "."
