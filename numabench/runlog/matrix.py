"""Matrices of core-to-core latencies as other tools publish them: CSV, ns one way, rows and columns are CPUs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from ..errors import LogError

LEAST_CPUS = 2


def read_matrix(path: Path) -> list[list[float | None]]:
    """The square matrix of a CSV file: a full one, or one triangle with the rest empty; None where there is no figure.

    Raises LogError, naming line and column, for what is no such matrix: text, another shape, negative figures, zeros alone, a pair without any figure."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LogError(f"cannot read {path}: {error}", "give a CSV file of latencies in ns") from error
    matrix = [[cell(path, line, column, text) for column, text in enumerate(row, 1)] for line, row in enumerate(rows, 1)]
    width = max(map(len, matrix), default=0)
    if len(matrix) < LEAST_CPUS or any(len(row) != width for row in matrix) or width != len(matrix):
        shapes = sorted({len(row) for row in matrix})
        raise LogError(
            f"{path} is no square matrix: {len(matrix)} lines of {' or '.join(map(str, shapes)) or 'no'} columns; cut off, or another table",
            "a line for each CPU, with as many columns as there are lines",
        )
    if not any(value for a, row in enumerate(matrix) for b, value in enumerate(row) if a != b):
        raise LogError(
            f"{path} has no figure above 0 between two CPUs: nothing was measured", "give a CSV file of latencies in ns"
        )
    for a in range(width):
        for b in range(a):
            if matrix[a][b] is None and matrix[b][a] is None:
                raise LogError(
                    f"{path} has no figure for CPUs {b} and {a}", "every two CPUs need one, above or below the diagonal"
                )
    return matrix


def cell(path: Path, line: int, column: int, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        shown = text.strip()[:30]
        raise LogError(
            f"{path} line {line}, column {column}: {shown!r} is no latency in ns", "give a CSV file of latencies in ns"
        )
    return value
