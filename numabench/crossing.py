"""Where a measured curve leaves one plateau for the next. Standard library only: workers and readers share it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

STEP = 1.2  # times the first value that the last must be for there to be a step


class Crossing(NamedTuple):
    """`at`, interpolated in logarithms between the measured points `low` and `high`."""

    at: float
    low: float
    high: float


def crossing(points: Sequence[tuple[float, float]]) -> Crossing | None:
    """Where (x, y) `points`, ascending in x, first exceed the geometric mean of their first and last y; None where there is no step."""
    limit = math.sqrt(points[0][1] * points[-1][1])
    beyond = next((index for index, (_, y) in enumerate(points) if y > limit), None)
    if not beyond or points[-1][1] < STEP * points[0][1]:
        return None
    (a, low), (b, high) = points[beyond - 1], points[beyond]
    share = math.log(limit / low) / math.log(high / low)
    return Crossing(math.exp(math.log(a) + share * math.log(b / a)), a, b)
