"""What a comparison's page shows: the verdicts first, then what else differs, then each benchmark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..analysis.structure import own_columns
from ..model import BenchmarkRecord, View
from ..runlog.read import RunLog
from . import brief, figures, tables
from .dumbbell import dumbbell
from .ratios import ratio_figure
from .selection import FIGURE_PANELS, Room

if TYPE_CHECKING:
    import pandas as pd

    from .page import Tell

CHANGED = ("slower", "faster")
GREY_SIDE = 3  # from so many machines a side on, their curves are drawn lighter: the eye sees the two groups


def verdict_counts(counts: dict[str, int]) -> str:
    """`3 slower, 1 faster, 20 same`: what demands attention first, zeros left out."""
    order = ("slower", "faster", "same", "unresolved", "incomparable", "failed")
    return ", ".join(f"{counts[v]} {v}" for v in order if counts.get(v)) or "nothing"


def summary_sentence(comparison: Any) -> str:
    """The verdict in one sentence, with how many comparisons were made and how they were corrected."""
    counts, n = comparison.summary, comparison.comparisons
    if not n:
        return (
            "Nothing could be compared: "
            + (verdict_counts(counts) if sum(counts.values()) else "the two sides have no cell in common")
            + "."
        )
    lead = (
        "New is slower somewhere"
        if counts.get("slower") and not counts.get("faster")
        else "New is faster in some cells and slower in others"
        if counts.get("slower")
        else "New is faster somewhere and nowhere found slower"
        if counts.get("faster")
        else "No cell is found faster or slower"
        if counts.get("unresolved")
        else "Every cell is the same within the band"
    )
    judged = {k: v for k, v in counts.items() if k in ("faster", "slower", "same", "unresolved")}
    untested = sum(judged.values()) - n
    return (
        f"{lead}: of {n} comparisons, {verdict_counts(judged)}"
        + (f" ({untested} of them with too little to compare)" if untested > 0 else "")
        + (
            f"; besides, {verdict_counts({k: v for k, v in counts.items() if k in ('incomparable', 'failed')})}"
            if counts.get("incomparable") or counts.get("failed")
            else ""
        )
        + f". Same means within ±{comparison.same * 100:g} %; claims are corrected for their number (Benjamini-Hochberg, q = {comparison.q:g})."
    )


def obstacle_sentences(comparison: Any, descriptors: dict[str, BenchmarkRecord]) -> list[str]:
    """`12 incomparable: measured in base only, such as core_to_core, operation cas`: one line for each reason not to judge."""
    cells = comparison.cells[comparison.cells["verdict"].isin(("incomparable", "failed"))]
    found: dict[tuple[str, str], list[Any]] = {}
    for _, row in cells.iterrows():
        found.setdefault((row["verdict"], row["reasons"][0] if row["reasons"] else ""), []).append(row)
    said = []
    for (verdict, code), rows in sorted(found.items(), key=lambda item: -len(item[1])):
        example = cell_name(rows[0], descriptors.get(rows[0]["benchmark"]))
        such = f"such as {rows[0]['benchmark']}, {example}" if len(rows) > 1 else f"{rows[0]['benchmark']}, {example}"
        said.append(f"{len(rows)} {verdict}: {tables.reason_text([code])}, {such}")
    return said


def scope_sentence(comparison: Any) -> str:
    """About what the verdicts are: one machine, these machines, or two groups."""
    sides = len(comparison.base_machines), len(comparison.new_machines)
    if comparison.same_machine:
        return "Both sides are one and the same machine."
    if min(sides) >= 3:
        return f"The sides are groups of {sides[0]} and {sides[1]} machines: the machine is the unit, and the verdicts speak about the groups."
    return "The sides are different machines: the verdicts speak about these machines, not about their models."


def machine_line(machine: dict[str, Any]) -> str:
    sessions = len(machine.get("sessions", ()))
    return f"{machine.get('alias', 'unknown')} ({machine.get('brand') or 'unknown processor'}; {sessions} session{'s' if sessions != 1 else ''})"


def comparison_context(comparison: Any, base: RunLog | None, new: RunLog | None, tell: Tell) -> dict[str, Any]:
    """Everything that the template needs, but for the cards."""
    from ..analysis.align import aligned
    from .page import merge_descriptors

    if base and new:
        base, new, _ = aligned(base, new)  # figures as the cells were compared
    records = merge_descriptors([*(base.benchmarks if base else ()), *(new.benchmarks if new else ())])
    descriptors = {d.name: d for d in records}
    sides = _side_estimates(base, new) if base and new else None
    refused = dict(comparison.refused)
    names = [*dict.fromkeys([*descriptors, *comparison.cells["benchmark"].unique()])] if len(comparison.cells) else []
    sections, room = [], Room()
    most = tables.fair_share(
        comparison.cells.groupby(["benchmark", "metric"]).size() if len(comparison.cells) else (), tables.MOST_ROWS
    )
    for number, name in enumerate(names):
        cells = comparison.cells[comparison.cells["benchmark"] == name]
        if len(cells):
            tell(descriptors[name].title if name in descriptors else name, number, len(names))
            sections.append(
                _section(f"c{number}", name, cells, descriptors.get(name), comparison, sides, refused.get(name), room, most)
            )
    aliases = [", ".join(m["alias"] for m in side) for side in (comparison.new_machines, comparison.base_machines)]
    return {
        "title": "numabench compare: " + " against ".join(aliases),
        "sentence": brief.sentence(comparison),
        "sides": brief.side_lines(comparison),
        "dumbbell": dumbbell(comparison),
        "rows": row_table(comparison),
        "counts": (("rows", brief.counts(brief.shown_rows(comparison)["verdict"])), ("cells", brief.cell_counts(comparison))),
        "refusal": brief.refusal_line(comparison),
        "steps": brief.steps(comparison),
        "facts": brief.differences(comparison),
        "summary": summary_sentence(comparison),
        "scope": scope_sentence(comparison),
        "obstacles": obstacle_sentences(comparison, descriptors),
        "comparison": comparison,
        "base": [machine_line(m) for m in comparison.base_machines],
        "new": [machine_line(m) for m in comparison.new_machines],
        "sections": sections,
        "means": [_mean_row(row) for _, row in comparison.means.iterrows()],
        "verdicts": tables.VERDICTS,
        "paths": [log.paths for log in (base, new) if log],
        "worst": worst_rows(comparison.cells, descriptors),
    }


def row_table(comparison: Any) -> tables.Table:
    """The rows that the figure has, with values, intervals, how many cells each is made of, and why a verdict is not known."""
    rows = brief.shown_rows(comparison)
    base, new = brief.side_names(comparison)
    found = []
    for (_, row), line in zip(rows.iterrows(), brief.lines(comparison, len(rows)), strict=True):
        cells = f"{row['cells']}" if row["cells"] == row[line.verdict.replace(" ", "_")] else brief.inside(row)
        found.append(
            (
                tables.Cell(line.quantity),
                tables.Cell(line.base, _sortable(row["base"])),
                tables.Cell(line.new, _sortable(row["new"])),
                tables.Cell(line.change, _sortable(row["change"])),
                tables.Cell(line.interval, _sortable(row["low"])),
                tables.Cell(line.verdict, kind=f"verdict {line.verdict.split()[0]}"),
                tables.Cell(cells, int(row["cells"])),
                tables.Cell(line.why, kind="remark"),
            )
        )
    what = "per price" if comparison.priced is not None else "quantity"
    heads = (
        (what, False),
        (base, True),
        (new, True),
        ("change", True),
        ("95 % interval", True),
        ("verdict", False),
        ("cells", False),
    )
    note = (
        f"A change is of {new} against {base}: x % slower takes x % more time, x % faster x % less. A row of one cell has its verdict; one of several is "
        "their geometric mean, whose interval is no narrower than theirs."
    )
    return tables.Table("Headline quantities, worse first", (*heads, ("why", False)), tuple(found), note)


def _sortable(value: float) -> float | str:
    return float(value) if math.isfinite(value) else ""


def _mean_row(row: Any) -> dict[str, Any]:
    return {
        "benchmark": row["benchmark"],
        "metric": str(row["metric"]).replace("_", " "),
        "ratio": f"{row['ratio']:.3f}×",
        "cells": int(row["cells"]),
        "polarity": row.get("polarity", ""),
    }


def worst_rows(cells: pd.DataFrame, descriptors: dict[str, BenchmarkRecord], most: int = 8) -> list[dict[str, Any]]:
    """The slower cells with the largest change, each by its most changed metric."""
    import numpy as np

    slow = cells[cells["verdict"] == "slower"]
    slow = slow.assign(_change=np.abs(np.log(slow["ratio"].astype(float)))).sort_values("_change", ascending=False)
    slow = slow.drop_duplicates(["benchmark", "case"]).head(most)
    found = []
    for _, row in slow.iterrows():
        quantity, interval = tables.interval_text(row["ratio"], row["low"], row["high"], "×")
        cell = cell_name(row, descriptors.get(row["benchmark"]))
        found.append(
            {"cell": f"{row['benchmark']}, {row['metric'].replace('_', ' ')}: {cell}", "ratio": quantity, "interval": interval}
        )
    return found


def cell_name(row: Any, descriptor: BenchmarkRecord | None) -> str:
    """`operation increment, stride 8 B`: the parameters that vary in the benchmark."""
    from .scales import format_value, plain

    if descriptor is None:
        return str(row["case"])
    axes = [a for a in descriptor.axes if len(a.values) > 1] or list(descriptor.axes)
    known = [a for a in axes if a.name in row and plain(row[a.name]) is not None]
    return ", ".join(f"{a.name.replace('_', ' ')} {format_value(row[a.name], a.unit)}" for a in known)


def _side_estimates(base: RunLog, new: RunLog) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(side, estimates, contrasts) of both sides."""
    from ..analysis.estimate import contrast_cells, estimate_cells
    from ..analysis.structure import with_circumstances
    from ..runlog.export import samples

    found = []
    for name, log in (("base", base), ("new", new)):
        frame = with_circumstances(samples(log))
        found.append((name, estimate_cells(frame), contrast_cells(frame, log.benchmarks)))
    return found


def _section(
    identity: str,
    name: str,
    cells: pd.DataFrame,
    descriptor: BenchmarkRecord | None,
    comparison: Any,
    sides: Any,
    refusal: str | None,
    room: Room,
    most: int,
) -> dict[str, Any]:
    """One benchmark. Of what changed its first metric is drawn, the others (reciprocals, cycles, percentiles) are in the tables; and both sides on common
    axes in the first view, and in the first one of what changed. `most`: rows of a table."""
    metrics = [m.name for m in descriptor.metrics] if descriptor else []
    metrics = [m for m in metrics if m in set(cells["metric"])] + [m for m in cells["metric"].unique() if m not in metrics]
    moved = set(cells.loc[cells["verdict"].isin(CHANGED), "metric"])
    changed = [m for m in metrics if m in moved]
    ratios = [
        room.drawn(partial(ratio_figure, cells, descriptor, metric, comparison.same, f"{identity}r")) for metric in changed[:1]
    ]
    views = [] if descriptor is None or refusal else [*descriptor.views]
    views = [*views[:1], *[v for v in views[1:] if v.metric in moved and views[0].metric not in moved][:1]]
    return {
        "changed": bool(changed),
        "id": identity,
        "name": name,
        "title": descriptor.title if descriptor else name,
        "question": descriptor.question if descriptor else "",
        "refusal": refusal,
        "counts": verdict_counts(dict(Counter(cells["verdict"]))),
        "ratios": [figure for figure in ratios if figure],
        "tables": [tables.verdict_table(cells, descriptor, m, most) for m in metrics],
        "overlays": overlays(descriptor, views, sides, identity, room) if descriptor and sides else [],
    }


def overlays(
    descriptor: BenchmarkRecord,
    views: Sequence[View],
    sides: list[tuple[str, pd.DataFrame, pd.DataFrame]],
    prefix: str,
    room: Room,
) -> list[figures.Figure]:
    """These views with the curves of both sides on common axes, heat maps side by side on one colour scale."""
    found = []
    own = [(side, *(own_columns(t[t["benchmark"] == descriptor.name]) for t in tables)) for side, *tables in sides]
    for number, view in enumerate(views):
        sources = []
        for style, (side, estimates, contrasts) in enumerate(own):
            rows = figures.view_rows(view, descriptor, estimates, contrasts)
            machines = list(dict.fromkeys(rows["machine_id"])) if "machine_id" in rows else [None]
            for machine in machines:
                mine = rows if machine is None else rows[rows["machine_id"] == machine]
                alias = f" ({mine['machine'].iloc[0]})" if len(mine) and (len(machines) > 1 or view.kind == "heatmap") else ""
                sources.append(figures.Source(mine, f"{side}{alias}", style, lighter=len(machines) >= GREY_SIDE))
        drawn = room.drawn(partial(figures.draw, figures.select(view, descriptor, sources, FIGURE_PANELS), f"{prefix}o{number}"))
        if drawn:
            found.append(drawn)
    return found
