"""Matrices of core-to-core latencies as other tools publish them: ns one way, rows and columns are CPUs.

Understood: commas, semicolons (then with decimal commas), tabs, or spaces as between the columns of c2clat's own table; UTF-8 or UTF-16; with or
without CPU numbers above and beside the figures (pandas writes them), which need not count from 0.
"""

from __future__ import annotations

import codecs
import csv
import math
import os
import re
import stat
from itertools import pairwise
from pathlib import Path

from ..errors import LogError
from ..text import printable
from ..units import MOST_CPUS

LEAST_CPUS = 2
MOST_ROWS = 4096  # twice the CPUs of the largest machine that Linux runs on in one image
MOST_BYTES = 1 << 28
SHORTEST, LONGEST = 1e-3, 1e9  # ns: a thousandth of a cycle, a second
NOTHING = ("", "nan", "na", "n/a", "none", "null", "-")  # as tools write a figure that there is none of
GIVE = "give a CSV file of latencies in ns"
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_LABEL = re.compile(r"(?:[A-Za-z]+[ _-]?)?([0-9]{1,10})")

Rows = list[list[str]]
Matrix = list[list[float | None]]


def read_matrix(path: Path) -> Matrix:
    """The square matrix of a file: a full one, or one triangle with the rest empty; None where there is no figure.

    Raises LogError, naming line and column, for what is no such matrix: text, another shape, negative figures, zeros alone, a pair without any figure."""
    return read_labelled(path)[1]


def read_labelled(path: Path) -> tuple[tuple[int, ...], Matrix]:
    """(the CPUs' numbers, the matrix). Errors as `read_matrix`."""
    name = printable(str(path))
    rows = rows_of(text_of(path), name)
    if len(rows) > MOST_ROWS + 1:
        raise LogError(f"{name} has {len(rows):,} lines, over {MOST_ROWS:,}", GIVE)
    cpus, rows, line, column = labelled(rows, name)
    matrix = [[cell(name, y, x, text) for x, text in enumerate(row, column)] for y, row in enumerate(rows, line)]
    width = max(map(len, matrix), default=0)
    if len(matrix) < LEAST_CPUS or any(len(row) != width for row in matrix) or width != len(matrix):
        shapes = sorted({len(row) for row in matrix})
        shown = " or ".join(map(str, shapes[:3])) or "no"
        raise LogError(
            f"{name} is no square matrix: {len(matrix)} lines of {shown} columns; cut off, or another table",
            "a line for each CPU, with as many columns as there are lines",
        )
    if not any(value for a, row in enumerate(matrix) for b, value in enumerate(row) if a != b):
        raise LogError(f"{name} has no figure above 0 between two CPUs: nothing was measured", GIVE)
    cpus = cpus or tuple(range(width))
    for a in range(width):
        for b in range(a):
            if matrix[a][b] is None and matrix[b][a] is None:
                raise LogError(
                    f"{name} has no figure for CPUs {cpus[b]} and {cpus[a]}",
                    "every two CPUs need one, above or below the diagonal",
                )
    return cpus, matrix


def text_of(path: Path) -> str:
    name = printable(str(path))
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))  # waits for no writer of a pipe
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise LogError(f"{name} is no regular file", "write what it gives into a file, and name that")
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise LogError(f"{name} has over {MOST_BYTES:,} bytes", GIVE)
        return data.decode(next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8"))
    except OSError as error:
        raise LogError(f"cannot read {name}: {error.strerror}", GIVE) from error
    except UnicodeError as error:
        raise LogError(f"cannot read {name}: it is neither UTF-8 nor marked as UTF-16", "save it as CSV in UTF-8") from error


def rows_of(text: str, name: str) -> Rows:
    """Cells without the blanks around them; lines without any cell are left out."""
    lines = text.splitlines()
    separator = next((sign for sign in ";\t," if sign in text), None)
    try:
        rows = csv.reader(lines, delimiter=separator) if separator else map(str.split, lines)
        cells = [[each.strip() for each in row] for row in rows if row]
    except csv.Error as error:
        raise LogError(f"cannot read {name}: {error}", GIVE) from error
    if separator == ";":
        cells = [[each.replace(",", ".") if each.count(",") == 1 and "." not in each else each for each in row] for row in cells]
    if separator in (";", "\t"):  # closed by a separator that nothing follows
        ends = [row and not row[-1] for row in cells]
        if all(ends) and len(cells) + 1 == len(cells[0]):
            cells = [row[:-1] for row in cells]
    return cells


def labelled(rows: Rows, name: str) -> tuple[tuple[int, ...] | None, Rows, int, int]:
    """(CPUs' numbers or None where there are none, the figures, line and column at which these begin)."""
    high, wide = len(rows), max(map(len, rows), default=0)
    if high < LEAST_CPUS or any(len(row) != wide for row in rows):
        return None, rows, 1, 1
    above, beside = rows[0], [row[0] for row in rows]
    if high == wide and is_labels(above[1:], beside[1:]) and certain(rows):
        return numbers(above[1:], name), [row[1:] for row in rows[1:]], 2, 2
    if high == wide + 1 and is_labels(above, above) and in_a_row(above):
        return numbers(above, name), rows[1:], 2, 1
    if high == wide - 1 and is_labels(beside, beside) and in_a_row(beside):
        return numbers(beside, name), [row[1:] for row in rows], 1, 2
    return None, rows, 1, 1


def is_labels(above: list[str], beside: list[str]) -> bool:
    """The same distinct whole numbers twice."""
    found = [_LABEL.fullmatch(text) for text in above]
    return len(above) >= LEAST_CPUS and above == beside and all(found) and len({match[1] for match in found}) == len(found)


def in_a_row(labels: list[str]) -> bool:
    return all(int(b[1]) - int(a[1]) == 1 for a, b in pairwise(map(_LABEL.fullmatch, labels)))


def certain(rows: Rows) -> bool:
    """Whether what looks like CPU numbers above and beside is that, and not the figures of one CPU more, which are the same above and beside too:
    a name in the corner or before a number, numbers in a row or from 0, figures with decimals beside them, or a diagonal that is filled elsewhere."""
    above, figures = rows[0][1:], [row[1:] for row in rows[1:]]
    if (rows[0][0].lower() not in NOTHING and not _is_figure(rows[0][0])) or not all(text.isdecimal() for text in above):
        return True
    if rows[0][0].lower() not in NOTHING:
        return False  # a figure for a CPU and itself
    decimal = any("." in text for row in figures for text in row)
    diagonal = any(row[place].lower() not in NOTHING for place, row in enumerate(figures))
    return "0" in above or (in_a_row(above) and len(above) > LEAST_CPUS) or decimal or diagonal


def _is_figure(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def numbers(labels: list[str], name: str) -> tuple[int, ...]:
    found = tuple(int(_LABEL.fullmatch(text)[1]) for text in labels)
    if max(found) >= MOST_CPUS or len(set(found)) < len(found):
        raise LogError(f"{name} has CPU numbers twice, or from {MOST_CPUS:,} on, which no machine has", GIVE)
    return found


def cell(name: str, line: int, column: int, text: str) -> float | None:
    if text.lower() in NOTHING:
        return None
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not (value == 0 or SHORTEST <= value <= LONGEST):
        shown = printable(text)[:30]
        raise LogError(f"{name} line {line}, column {column}: {shown!r} is no latency in ns", GIVE)
    return value
