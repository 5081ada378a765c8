"""Given against found as a picture: rows of figures, their values on a logarithmic axis and how far off each is, beside the tolerance of each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from io import StringIO
from pathlib import Path

from numabench.report.theme import (
    EDGE,
    FONT,
    GRID,
    INK,
    MUTED,
    PAPER,
    RC,
    SAME,
    series_colour,
    short,
    style_variables,
    themed,
)

from .judgement import Finding

WIDTH, ROW, AROUND = 800, 34, 96  # CSS pixels; ROW: a row's height, AROUND: titles and axes
PIXELS = 96  # of an inch
SPREAD = 0.62  # of a row's height over which its figures are spread
NARROWEST, WIDEST = 2.5, 12.0  # %: an axis of deviations shows this much at least; beyond WIDEST, of a defect, it is logarithmic
FEW_DECADES = 2.7  # an axis of fewer has two more numbers in each
DIGITS = 24  # characters of a row's name


def draw(rows: Mapping[str, Sequence[Finding]], path: Path, alt: str) -> bool:
    """`rows`: name -> figures. An SVG that is light or dark as its reader is; false where there are no figures."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    rows = {name: [f for f in figures if math.isfinite(f.deviation) and f.expected > 0] for name, figures in rows.items()}
    rows = {name: figures for name, figures in rows.items() if figures}
    every = [f for figures in rows.values() for f in figures]
    if not every:
        return False
    with plt.rc_context(RC):
        height = AROUND + ROW * len(rows)
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(WIDTH / PIXELS, height / PIXELS), sharey=True, width_ratios=(1, 1.1), layout="constrained"
        )
        figure.set_facecolor(PAPER)
        placed = [(f, place, len(own)) for number, own in enumerate(rows.values()) for place, f in spread(number, own)]
        left.scatter(
            [f.expected for f, *_ in placed], [y for _, y, _ in placed], color=MUTED, marker="|", s=110, linewidths=1.4, zorder=3
        )
        bands = [(y, 100 * (f.slack or 0) / f.expected, thickness(many)) for f, y, many in placed]
        right.hlines(
            [y for y, *_ in bands],
            [-s for _, s, _ in bands],
            [s for _, s, _ in bands],
            SAME,
            linewidth=[w for *_, w in bands],
            alpha=0.28,
            zorder=1,
        )
        for fine, colour, marker, size in ((True, series_colour(0), "o", 20), (False, series_colour(1), "X", 60)):
            mine = [(f, y) for f, y, _ in placed if f.right == fine]
            ys, style = [y for _, y in mine], {"color": colour, "marker": marker, "s": size, "linewidths": 0, "zorder": 4}
            left.scatter([f.found for f, _ in mine], ys, **style)
            right.scatter([100 * f.deviation for f, _ in mine], ys, **style)
            ends = [(y, *(100 * (end / f.expected - 1) for end in (f.low, f.high))) for f, y in mine if f.low < f.high]
            right.hlines(*([end[k] for end in ends] for k in range(3)), colour, linewidth=1, zorder=3)
        left.set_xscale("log")
        for axis in (left, right):
            axis.grid(axis="x")
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            for line in range(1, len(rows)):
                axis.axhline(line - 0.5, color=GRID, linewidth=0.8, zorder=0)
        left.set_yticks(range(len(rows)), [named(name, figures) for name, figures in rows.items()])
        left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades(every) < FEW_DECADES else (1,)))
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        left.xaxis.set_minor_formatter(NullFormatter())
        left.set_title("given | and found ●", loc="left", color=INK)
        right.axvline(0, color=EDGE, linewidth=1, zorder=2)
        widest = max(100 * abs(f.deviation) for f in every)
        if widest > WIDEST:
            right.set_xscale("symlog", linthresh=NARROWEST)
        reach = 1.15 * max(NARROWEST, widest)
        right.set_xlim(-reach, reach)
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+,.10g} %" if value else "0"))
        right.set_title("deviation; right within the green band", loc="left", color=INK)
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
        plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(alone(written.getvalue(), alt))
    return True


def spread(row: int, figures: Sequence[Finding]) -> list[tuple[float, Finding]]:
    """A row's figures and their heights, one below the other, least first."""
    ordered = sorted(figures, key=lambda f: f.expected)
    return [(row + SPREAD * ((k + 0.5) / len(ordered) - 0.5), f) for k, f in enumerate(ordered)]


def decades(figures: Sequence[Finding]) -> float:
    values = [abs(f.expected) for f in figures]
    return math.log10(max(values) / min(values))


def thickness(count: int) -> float:
    """Points of a tolerance's bar, so that those of a row make one band."""
    return SPREAD * ROW / count * 72 / PIXELS


def named(name: str, figures: Sequence[Finding]) -> str:
    units = sorted({f.unit for f in figures if f.unit})
    shown = name if len(name) <= DIGITS else name[: name.rfind(" ", 0, DIGITS)] + "\n" + name[name.rfind(" ", 0, DIGITS) + 1 :]
    return f"{shown} ({', '.join(units)})" if units else shown


def alone(svg: str, alt: str) -> str:
    """An SVG that stands alone: its colours follow what its reader prefers."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    style = f"<style>svg {{ {style_variables(dark=False)} font-family: {FONT}; }} @media (prefers-color-scheme: dark) {{ svg {{ {style_variables(dark=True)} }} }}</style>"
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]+", r"font-size: \1px", short(themed(svg)))
    head, _, rest = svg[svg.index("<svg") :].partition(">")
    return f'{head} role="img" aria-label="{escape(alt)}">{style}{rest}'
