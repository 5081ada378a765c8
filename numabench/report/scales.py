"""Which scale an axis gets, where its ticks are and how its values read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..model import HIGHER, LOWER, Axis, Value
from ..units import format_bytes, format_number

LOG_SPAN = 20.0  # values that span more than this get a logarithmic axis: below it a linear one shows the steps honestly
ZERO_SHARE = 0.6  # a linear axis starts at zero unless everything lies above this share of the maximum
LONGEST_NAME = 24  # characters of a slanted tick label
MAX_TICKS = 6  # labels such as "128 MiB" side by side on a telephone


def plain(value: object) -> Value | None:
    """A cell of a pandas frame as a Python value; missing is None."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value)):
        return None
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def format_value(value: object, unit: str = "") -> str:
    """A parameter's value as a reader writes it: `64 B`, `2 MiB`, `20 ns`, `atomic_add`."""
    value = plain(value)
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if unit in ("B", "byte", "bytes"):
        return format_bytes(value)
    text = str(value) if isinstance(value, int) else f"{value:g}"
    return f"{text} {unit}".rstrip()


def shorten(text: str) -> str:
    """A name that fits under a column; the table has it in full."""
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def axis_kind(axis: Axis, values: Sequence[Value]) -> str:
    """`category`, `linear`, `log` or `log2` (sizes) for these values of a parameter."""
    if any(isinstance(v, str) for v in values) or len(values) < 2:
        return "category"
    low, high = min(values), max(values)
    spread = high / low if low > 0 else math.inf
    if low > 0 and (axis.log or spread > LOG_SPAN) and len(values) > 6:
        return "log2" if axis.unit in ("B", "byte", "bytes") else "log"
    nonzero = [v for v in values if v > 0]
    if axis.log or (nonzero and max(nonzero) / min(nonzero) >= 4 and len(values) <= 12):
        return "category"  # 0, 8, 16 … 256: evenly spaced, in their order
    return "linear"


def in_order(axis: Axis | None, values: Sequence[Value]) -> list[Value]:
    """Values in the order that the descriptor gives them; unknown ones follow, sorted."""
    declared = list(axis.values) if axis else []
    present = set(values)
    rest = sorted(present - set(declared), key=lambda v: (isinstance(v, str), v))
    return [v for v in declared if v in present] + rest


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of the 1-2-5 series inside [low, high], thinned to at most seven."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
        if len(ticks) <= 7:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 7)]


def byte_ticks(low: float, high: float) -> list[float]:
    """Powers of two inside [low, high], at most `MAX_TICKS` of them."""
    exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    step = max(1, math.ceil(len(exponents) / MAX_TICKS))
    return [2.0**e for e in exponents[::step]]


def limits(values: Sequence[float]) -> tuple[float, float, bool]:
    """(low, high, logarithmic) of a value axis that holds all `values` with some air."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if not finite:
        return 0.0, 1.0, False
    low, high = min(finite), max(finite)
    if low > 0 and high / low > LOG_SPAN:
        return low / 1.35, high * 1.35, True
    if low >= 0 and low < ZERO_SHARE * high:
        return 0.0, high * 1.08, False
    margin = max(high - low, 0.1 * abs(high) or 1.0) * 0.5  # noise of 1 % must not look like a mountain
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin, False


def tick_text(value: float) -> str:
    """A tick's number: no trailing zeros, no exponent in the range that people read."""
    if value == 0:
        return "0"
    return f"{value:g}" if 1e-3 <= abs(value) < 1e6 else format_number(value, 2)


def better(polarity: str) -> str:
    """Which way is better, as a sentence; empty where neither is."""
    return f"{polarity.capitalize()} is better." if polarity in (LOWER, HIGHER) else ""
