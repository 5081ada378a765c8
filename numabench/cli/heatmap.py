"""A matrix between CPUs on a terminal: figures while they fit, then cells in colours or shades, one or several CPUs to a cell."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from ..report.heatmaps import ANNOTATE, COLOURS, colour_scale
from ..units import plural

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.text import Text

    from ..model import View

HALF = "▀"  # upper half in the ink, lower half in the paper colour
SHADES = " ░▒▓█"  # without colours: the darker, the slower
UNKNOWN = "·"
LABEL = 6  # characters before each line
FIGURE = 6  # characters of a cell with its figure
LABELLED = 8  # cells from one label to the next within a group
SWATCH = 24  # characters of the colour scale

Span = tuple[int, int]  # first place and the one after the last


def draw_view(console: Console, rows: pd.DataFrame, view: View, topology: dict, height: int | None = None) -> list[Text]:
    """The map of a view between CPUs: `rows` are its cells; lines of cells at most `height`."""
    from ..analysis.neighbours import latency_matrix

    order = order_text(topology, view.both)
    matrix = latency_matrix(rows, view.both)
    return draw(matrix, view.both, console.width, view.borders, has_colours(console), order, height)


def has_colours(console: Console) -> bool:
    return bool(console.color_system) and not console.no_color


def order_text(topology: dict, cpus: tuple) -> str:
    """How the CPUs of a heat map follow each other."""
    from ..analysis.declared import declared_groups

    if list(cpus) == sorted(cpus):
        return "CPUs in the order of their numbers"
    declared = list(declared_groups(topology, cpus))
    return f"CPUs in the order of {', '.join(reversed(declared)) or 'measured groups, whatever their numbers'}"


def draw(
    matrix: np.ndarray,
    cpus: tuple[int, ...],
    width: int,
    borders: tuple[int, ...] = (),
    colour: bool = True,
    order: str = "",
    height: int | None = None,
) -> list[Text]:
    """Lines for a terminal of `width` characters, those of cells at most `height`. `matrix`: shape (n, n), ns, NaN on the diagonal; `cpus`: its rows and columns, in the
    order that `order` names; `borders`: those that begin a group."""
    from rich.text import Text

    paint = Paint(matrix, colour)
    groups = split(cpus, borders)
    figures = len(cpus) <= ANNOTATE and LABEL + FIGURE * len(cpus) + len(groups) - 1 <= width
    room = width if height is None else min(width, LABEL + height * 2)  # a cell is twice as high as wide
    figures = figures and (height is None or len(cpus) + len(groups) - 1 <= height)
    wide, whole = FIGURE if figures else 1 if colour else 2, len(groups)
    groups, each = (
        ([[(place, place + 1) for place in range(*group)] for group in groups], 1)
        if figures
        else fitted(groups, (room - LABEL) // wide, wide)
    )
    values = merged(matrix, [span for group in groups for span in group])
    lines, top = [], 0
    for group in groups:
        if top:
            lines.append(Text(" " * LABEL + "┼".join("─" * (wide * len(part)) for part in groups), style="dim"))
        step = 2 if colour and not figures else 1
        for place in range(0, len(group), step):
            rows = values[top + place : top + min(place + step, len(group))]
            label = f"{cpus[group[place][0]]:>{LABEL - 1}} " if figures or place % LABELLED == 0 else " " * LABEL
            cells = [paint.figure(v[0]) if figures else paint.cell(v) for v in rows.T]
            lines.append(Text.assemble((label, "dim"), *with_borders(cells, groups)))
        top += len(group)
    several = f", {plural(-(-whole // sum(map(len, groups))), 'group')}" if len(groups) < whole else ""
    said = [order, f"up to {each} CPUs{several} to a cell: its median, and the first one's label" if each > 1 else ""]
    notes = textwrap.wrap("; ".join(filter(None, said)), width - LABEL - 1)
    return [
        column_labels(cpus, groups, wide),
        *lines,
        *paint.legend(width),
        *(Text(" " * LABEL + note, style="dim") for note in notes),
    ]


class Paint:
    """How a value looks: a background colour, or a shade where there are no colours."""

    def __init__(self, matrix: np.ndarray, colour: bool):
        from matplotlib import colormaps
        from matplotlib.colors import LogNorm

        self.finite = matrix[np.isfinite(matrix)]
        self.colours, self.colour = colormaps[COLOURS], colour
        self.scale = colour_scale(self.finite.tolist(), False)
        if not colour and self.finite.min() > 0 and self.finite.min() < self.finite.max():
            self.scale = LogNorm(
                self.finite.min(), self.finite.max()
            )  # five shades in equal steps would not tell siblings from an L3

    def rgb(self, value: float) -> str:
        parts = self.colours(self.scale(value))[:3] if np.isfinite(value) else None
        return "rgb({},{},{})".format(*(round(255 * part) for part in parts)) if parts else "default"

    def figure(self, value: float) -> tuple[str, str]:
        if not np.isfinite(value):
            return f"{UNKNOWN:>{FIGURE}}", "dim"
        ink = "black" if self.scale(value) > 0.5 else "white"
        return f"{value:{FIGURE}.3g}", f"{ink} on {self.rgb(value)}" if self.colour else ""

    def cell(self, values: np.ndarray) -> tuple[str, str]:
        """Two values above each other in colours, one in a shade of twice the width."""
        if self.colour:
            below = values[1] if len(values) > 1 else np.nan
            return HALF, f"{self.rgb(values[0])} on {self.rgb(below)}"
        step = min(int(self.scale(values[0]) * len(SHADES)), len(SHADES) - 1) if np.isfinite(values[0]) else None
        return (UNKNOWN if step is None else SHADES[step]) * 2, ""

    def legend(self, width: int) -> list[Text]:
        from rich.text import Text

        low, high = (f"{end:.3g} ns" for end in (self.finite.min(), self.finite.max()))
        if not self.colour:
            ends = [self.scale.inverse((step + 1) / len(SHADES)) for step in range(len(SHADES))]
            said = [f"[{shade * 2}] to {end:.3g}" for shade, end in zip(SHADES, ends, strict=True)]
            rows = textwrap.wrap("  ".join(part.replace(" ", "\0") for part in said) + "\0ns", width - LABEL - 1)
            return [Text(" " * LABEL + row.replace("\0", " ")) for row in rows]
        swatch = max(1, min(SWATCH, width - LABEL - len(low) - len(high) - 3))
        steps = [self.rgb(self.scale.inverse(share)) for share in np.linspace(0, 1, swatch)]
        return [Text.assemble(" " * LABEL, f"{low} ", *((HALF, f"{c} on {c}") for c in steps), f" {high}")]


def split(cpus: tuple[int, ...], borders: tuple[int, ...]) -> list[Span]:
    """The groups that begin at `borders`, as places."""
    ends = [0, *(place for place, cpu in enumerate(cpus) if cpu in borders and place), len(cpus)]
    return list(itertools.pairwise(ends))


def fitted(groups: list[Span], room: int, wide: int) -> tuple[list[list[Span]], int]:
    """(cells of each group, CPUs to a cell) within the width of `room` cells. No cell is of parts of two groups: where there is no room for the
    bars between them, each is one whole group or several."""
    bars = -(-(len(groups) - 1) // wide)
    largest = max(end - start for start, end in groups)
    for each in range(1, largest + 1):
        cells = [[(at, min(at + each, end)) for at in range(start, end, each)] for start, end in groups]
        if sum(map(len, cells)) + bars <= room:
            return cells, each
    several = -(-len(groups) // room)
    return [
        [(part[0][0], part[-1][1]) for part in (groups[at : at + several] for at in range(0, len(groups), several))]
    ], several * largest


def merged(matrix: np.ndarray, spans: list[Span]) -> np.ndarray:
    """Medians of the blocks between `spans`, shape (len(spans), len(spans)); NaN where nothing is known."""

    def middle(block: np.ndarray) -> float:
        known = block[np.isfinite(block)]
        return float(np.median(known)) if known.size else np.nan

    return np.array([[middle(matrix[slice(*a), slice(*b)]) for b in spans] for a in spans])


def with_borders(cells: list[tuple[str, str]], groups: list[list[Span]]) -> list[tuple[str, str]]:
    """The cells of a line with a bar between two groups."""
    found, at = [], 0
    for group in groups:
        found += [("│", "dim")] * bool(at) + cells[at : at + len(group)]
        at += len(group)
    return found


def column_labels(cpus: tuple[int, ...], groups: list[list[Span]], wide: int) -> Text:
    """CPU numbers above their cells: each that carries a figure, else the first of a group and every eighth, as far as there is room."""
    from rich.text import Text

    text, at = "", 0
    for group in groups:
        for place, (first, _) in enumerate(group):
            label = f"{cpus[first]:>{wide}}" if wide == FIGURE else str(cpus[first])
            if wide == FIGURE or (
                place % LABELLED == 0 and (not text or len(text) < at) and place * wide + len(label) <= len(group) * wide + 1
            ):
                text = text.ljust(at) + label
            at += wide
        at += 1
    return Text(" " * LABEL + text, style="dim")
