"""A matrix between CPUs on a terminal: figures while they fit, then two rows to a line, then several CPUs to a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..report.heatmaps import ANNOTATE, COLOURS

if TYPE_CHECKING:
    from rich.text import Text

HALF = "▀"  # upper half in the ink, lower half in the paper colour
LABEL = 6  # characters before each line


def draw(matrix: np.ndarray, cpus: tuple[int, ...], width: int) -> list[Text]:
    """Lines for a terminal of `width` characters. `matrix`: shape (n, n), ns, NaN on the diagonal; `cpus`: its rows and columns."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from rich.text import Text

    finite = matrix[np.isfinite(matrix)]
    scale, colours = Normalize(finite.min(), finite.max()), colormaps[COLOURS]

    def colour(value: float) -> str:
        return (
            "rgb({},{},{})".format(*(round(255 * part) for part in colours(scale(value))[:3]))
            if np.isfinite(value)
            else "default"
        )

    def ink(value: float) -> str:
        return "black" if np.isfinite(value) and scale(value) > 0.5 else "white"

    legend = Text.assemble(
        " " * LABEL,
        f"{finite.min():.3g} ns ",
        *((HALF, f"{colour(v)} on {colour(v)}") for v in np.linspace(finite.min(), finite.max(), 24)),
        f" {finite.max():.3g} ns",
    )
    if len(cpus) <= ANNOTATE:
        head = Text(" " * LABEL + "".join(f"{cpu:>6}" for cpu in cpus), style="dim")
        lines = [
            Text.assemble(
                (f"{cpu:>{LABEL - 1}} ", "dim"),
                *(
                    (
                        f"{value:6.3g}" if np.isfinite(value) else "     ·",
                        f"{ink(value)} on {colour(value)}" if np.isfinite(value) else "dim",
                    )
                    for value in row
                ),
            )
            for cpu, row in zip(cpus, matrix, strict=True)
        ]
        return [head, *lines, legend]
    each = -(-len(cpus) // max(width - LABEL - 1, 1))
    cells = merged(matrix, each)
    lines = []
    for top in range(0, len(cells), 2):
        below = cells[top + 1] if top + 1 < len(cells) else np.full(len(cells), np.nan)
        label = f"{cpus[top * each]:>{LABEL - 1}} " if top % 8 == 0 else " " * LABEL
        lines.append(
            Text.assemble(
                (label, "dim"), *((HALF, f"{colour(a)} on {colour(b)}") for a, b in zip(cells[top], below, strict=True))
            )
        )
    note = f"   {each} CPUs to a cell" if each > 1 else ""
    return [*lines, Text.assemble(legend, (note, "dim"))]


def merged(matrix: np.ndarray, each: int) -> np.ndarray:
    """Medians of `each` by `each` neighbouring cells; NaN where all of them are."""
    count = -(-len(matrix) // each)
    padded = np.full((count * each, count * each), np.nan)
    padded[: len(matrix), : len(matrix)] = matrix
    blocks = padded.reshape(count, each, count, each).swapaxes(1, 2).reshape(count, count, -1)
    found = np.full((count, count), np.nan)
    known = np.isfinite(blocks).any(axis=2)
    found[known] = np.nanmedian(blocks[known], axis=1)
    return found
