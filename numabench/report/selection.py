"""A view bound to data: which rows it shows, what lies on which axis, and how that is said.

A view names some axes. Every other axis that varies becomes a facet, so that no two cells ever share a point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..analysis.answers import evidence, says_nothing
from ..model import Axis, BenchmarkRecord, Contrast, Metric, Value, View
from .scales import better, format_value, in_order, plain

if TYPE_CHECKING:
    import pandas as pd

DASH = " · "  # between the parts of a panel's title
#: What one figure shows at most; logs come from elsewhere. Those of the recorded sample have up to 4 panels, 24 curves in one and 10 bars of each.
MOST_PANELS, MOST_CURVES, MOST_BARS = 48, 64, 256
#: Panels of a page for each of its machines, and of one figure on it: a panel takes 50 ms and 5 KB. The first figures of benchmarks that come later have theirs in any case.
PAGE_PANELS, FIGURE_PANELS, FIRST_PANELS = 100, 12, 4


def drawable(estimates: pd.DataFrame) -> pd.DataFrame:
    """`estimates` without the intervals of the other distance classes' few processes, nor those that say nothing: a t interval of two can span
    decades and would squeeze everything else on its axis. The tables keep them."""
    from ..analysis.estimate import FEW_PROCESSES

    few = ~estimates["main"].to_numpy(dtype=bool) & (estimates["processes"].to_numpy() < FEW_PROCESSES)
    wide = says_nothing(estimates["low"], estimates["high"])
    return estimates.assign(low=estimates["low"].mask(few | wide), high=estimates["high"].mask(few | wide))


@dataclass(frozen=True)
class Panel:
    """One SVG with the values that it holds fixed (`spacing 200`); empty for the only panel of a figure."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Figure:
    """What a page shows for one view. `alt` says in words what the panels show."""

    title: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, Markup], ...]
    caption: str
    alt: str
    wide: bool = False

    def _repr_html_(self) -> str:
        """Shown by notebooks as it is."""
        keys = "".join(f"<span style='margin-right:1em'>{svg} {Markup.escape(label)}</span>" for label, svg in self.legend)
        parts = "".join(
            f"<div style='flex:1 1 340px;max-width:560px'><b>{Markup.escape(p.title)}</b>{p.svg}</div>" for p in self.panels
        )
        return f"<figure><figcaption>{Markup.escape(self.title)}</figcaption>{keys}<div style='display:flex;flex-wrap:wrap'>{parts}</div></figure>"


class Room:
    """What a page still draws: a log of a few rows may ask for figures without end."""

    def __init__(self, machines: int = 1):
        self.panels = PAGE_PANELS * max(1, machines)

    def left(self, later: int = 0) -> bool:
        """Whether there is any beside `later` figures that come first in their sections."""
        return self.panels > later * FIRST_PANELS

    def drawn(self, make: Callable[[], Figure | None], later: int = 0) -> Figure | None:
        """What `make` draws, or None where there is no room `left` for it."""
        figure = make() if self.left(later) else None
        self.panels -= len(figure.panels) if figure else 0
        return figure


@dataclass(frozen=True)
class Source:
    """One side's rows for a view: columns of the parameters, `distance`, `main`, and value, low, high under one name each."""

    rows: pd.DataFrame
    label: str = ""
    style: int | None = None  # a fixed series style for the whole side (comparisons); None: by series
    lighter: bool = False
    topology: dict = field(default_factory=dict)  # as in a run log's header: which relation two CPUs have


@dataclass
class Selection:
    """A view bound to data: what is on which axis and which values occur."""

    view: View
    descriptor: BenchmarkRecord
    metric: Metric
    unit: str
    sources: list[Source]
    ratio: bool = False
    axes: dict[str, Axis] = field(default_factory=dict)
    fixed: dict[str, Value] = field(default_factory=dict)
    panels: int | None = None  # that are drawn at most; None: MOST_PANELS

    def values(self, name: str | None) -> list[Value]:
        if name is None:
            return []
        found = [plain(v) for s in self.sources if name in s.rows for v in s.rows[name].dropna().unique()]
        return in_order(self.axes.get(name), found)

    def finite(self) -> list[float]:
        return [float(v) for s in self.sources for column in ("value", "low", "high") for v in s.rows[column].dropna()]

    def name(self, axis: str, value: Value) -> str:
        return f"{axis.replace('_', ' ')} {format_value(value, self.axes[axis].unit if axis in self.axes else '')}"


def control_axis(view: View, descriptor: BenchmarkRecord) -> Contrast | None:
    """The contrast whose ratios a view with `ratio_to` shows; the first match of metric and control."""
    if view.ratio_to is None:
        return None
    return next((c for c in descriptor.contrasts if c.metric == view.metric and c.control == view.ratio_to), None)


def matching(frame: pd.DataFrame, where: dict[str, Value]) -> pd.DataFrame:
    """Rows at `where`, as far as the table has such columns."""
    return evidence.matching(frame, {name: value for name, value in where.items() if name in frame})


def view_rows(view: View, descriptor: BenchmarkRecord, estimates: pd.DataFrame, contrasts: pd.DataFrame | None) -> pd.DataFrame:
    """The rows that a view shows, with `value`, `low`, `high` (a ratio's for views with `ratio_to`)."""
    contrast = control_axis(view, descriptor)
    if view.ratio_to is None:
        rows = estimates[(estimates["benchmark"] == descriptor.name) & (estimates["metric"] == view.metric)]
    elif contrast is None or contrasts is None or not len(contrasts):
        return estimates.iloc[0:0]
    else:
        rows = contrasts[
            (contrasts["benchmark"] == descriptor.name)
            & (contrasts["metric"] == view.metric)
            & (contrasts["axis"] == contrast.axis)
            & (contrasts["control"].map(plain) == view.ratio_to)
        ]
        rows = rows.assign(value=rows["ratio"], low=rows["ratio_low"], high=rows["ratio_high"])
    return matching(with_x(rows, estimates, view) if view.kind == "curve" else rows, dict(view.where))


def with_x(rows: pd.DataFrame, estimates: pd.DataFrame, view: View) -> pd.DataFrame:
    """Rows of a curve with `x_value`, `x_low`, `x_high` of the metric that lies across, of the same cells."""
    cell = [name for name in ("machine_id", "benchmark", "case", "distance") if name in rows]
    across = estimates[estimates["metric"] == view.x][[*cell, "value", "low", "high"]]
    return rows.merge(across.rename(columns={name: f"x_{name}" for name in ("value", "low", "high")}), on=cell, how="left")


def select(view: View, descriptor: BenchmarkRecord, sources: Sequence[Source], panels: int | None = None) -> Selection | None:
    """The view bound to its rows; None when there is nothing to draw."""
    metric = next((m for m in descriptor.metrics if m.name == view.metric), None)
    sources = [s for s in sources if len(s.rows)]
    if metric is None or not sources:
        return None
    ratio = view.ratio_to is not None
    return Selection(
        view,
        descriptor,
        metric,
        "×" if ratio else metric.unit,
        sources,
        ratio,
        {a.name: a for a in descriptor.axes},
        dict(view.where),
        panels,
    )


def facet_points(selection: Selection, used: set[str]) -> tuple[list[dict[str, Value]], dict[str, Value], str]:
    """Panels as points of the view's facet and of every axis that the view leaves free, those that were measured; what is the same everywhere; and
    what is left out."""
    free, common = [], {}
    for name in ([selection.view.facet] if selection.view.facet else []) + [
        a for a in selection.axes if a != selection.view.facet
    ]:
        if name in used or name in selection.fixed:
            continue
        values = selection.values(name)
        if len(values) > 1:
            free.append((name, {value: place for place, value in enumerate(values)}))
        elif values:
            common[name] = values[0]
    names = [name for name, _ in free]
    if not names:
        return [{}], common, ""
    rows = (s.rows.reindex(columns=names).dropna().drop_duplicates() for s in selection.sources)
    measured = {tuple(map(plain, point)) for each in rows for point in each.itertuples(index=False)}
    points = sorted(measured, key=lambda point: [order[value] for (_, order), value in zip(free, point, strict=True)])
    shown, left = cut(points, min(MOST_PANELS, selection.panels or MOST_PANELS), "panels")
    return [dict(zip(names, point, strict=True)) for point in shown], common, left


def cut(things: Sequence[Any], most: int, what: str) -> tuple[Sequence[Any], str]:
    """The first of these, as many as a figure shows, and where the others are."""
    left = f"The first {most} of {len(things):,} {what}; the tables have all." if len(things) > most else ""
    return things[:most], left


def usual_distances(rows: pd.DataFrame) -> set[str]:
    """The distance class that most cells have as their main one (and "" of single threads): drawn in full."""
    main = rows[rows["main"].astype(bool)] if "main" in rows else rows
    counts = main.loc[main["distance"] != "", "distance"].value_counts()
    return {"", *counts.index[:1]}


def value_label(selection: Selection) -> str:
    """`time per operation (ns)`, or what a ratio relates to."""
    name = selection.metric.name.replace("_", " ")
    if not selection.ratio:
        return name
    contrast = control_axis(selection.view, selection.descriptor)
    return f"ratio to {selection.name(contrast.axis, contrast.control)}"


def caption(selection: Selection, common: dict[str, Value], *left: str) -> str:
    """What is fixed in every panel, which way is better and what the bars are, and what is `left` out."""
    fixed = {**selection.fixed, **common}
    parts = []
    if fixed:
        parts.append("Everywhere: " + ", ".join(selection.name(n, v) for n, v in fixed.items()) + ".")
    if selection.ratio:
        parts.append(f"Ratio of {selection.metric.name.replace('_', ' ')}, from pairs inside the same processes.")
    parts.append(better(selection.metric.polarity))
    parts.append("Bars and bands are 95 % intervals.")
    parts += dict.fromkeys(left)
    return " ".join(filter(None, parts))
