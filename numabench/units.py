"""Numbers with units as text. Records hold plain numbers; only the edges format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from .errors import UsageError

_NUMBER = r"([0-9]+\.?[0-9]*|\.[0-9]+)"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
MOST_CPUS = 1 << 16  # numbers of CPUs that are believed: Linux itself is built for 8,192 at most
_LONG_NS = ((1e10, 1e9, "s"), (1e7, 1e6, "ms"), (1e4, 1e3, "µs"))  # from how many ns on, ns in one, unit
_SHORT = {"operation/s": "op/s", "1": ""}  # units as people write them
LEAST_SHOWN, MOST_SHOWN = 0.1, 1e4  # what a common unit may make of the smallest and the largest of some values
VAGUE = 0.5  # relative half-width beyond which a figure is rough, and a number says no more: "±14,999 %"
_BYTES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def format_number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits, never in exponent form between 1e-3 and 1e6."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude >= 6 or magnitude < -3:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def format_quantity(value: float, unit: str, digits: int = 3) -> str:
    """`3.2 ns`, `812 M op/s`, `25.1 GB/s`, `1.8 ms`: rates get a decimal prefix, long times a longer unit."""
    factor, unit = prefixed(value, unit)
    return f"{format_number(value / factor if factor != 1 else value, digits)} {unit}".rstrip()


def prefixed(value: float | None, unit: str) -> tuple[float, str]:
    """(factor, unit) in which `value` reads best: a rate as at most three digits before the point, a time from 10,000 ns on in µs, ms or s."""
    unit = _SHORT.get(unit, unit)
    size = abs(value) if value is not None and math.isfinite(value) else 0.0
    if unit.endswith("/s"):
        found = ((factor, f"{prefix}{' ' if len(unit) > 3 else ''}{unit}") for factor, prefix in _PREFIXES if size >= factor)
    else:
        found = ((factor, longer) for least, factor, longer in _LONG_NS if unit == "ns" and size >= least)
    return next(found, (1.0, unit))


def shared_prefix(unit: str, values: Iterable[float]) -> tuple[float, str]:
    """(factor, unit) in which the largest of these values reads best, or a thousandth of it, where the smallest would begin with zeros."""
    sizes = sorted(abs(v) for v in values if v and math.isfinite(v)) or [0.0]
    factor, name = prefixed(sizes[-1], unit)
    smaller = prefixed(sizes[-1] / 1000, unit)
    return smaller if sizes[0] < LEAST_SHOWN * factor and sizes[-1] < MOST_SHOWN * smaller[0] else (factor, name)


def format_bytes(size: int) -> str:
    """Binary prefixes: `48 KiB`, `1.5 MiB`."""
    value, prefix = float(size), "B"
    for prefix in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or prefix == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {prefix}" if value == int(value) else f"{value:.1f} {prefix}"


def format_seconds(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `0.8 ms`: for people, not for records."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    if seconds >= 90:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def plural(n: int, noun: str) -> str:
    """`1 process`, `2 processes`."""
    return f"{int(n)} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def parse_bytes(text: str) -> int:
    """`64`, `4k`, `2MiB` to bytes."""
    match = re.fullmatch(rf"\s*{_NUMBER}\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if not match or math.isinf(float(match[1]) * _BYTES[match[2]]):
        raise UsageError(f"{text!r} is not a size", "write it as 4096, 4k or 2MiB")
    return int(float(match[1]) * _BYTES[match[2]])


def parse_seconds(text: str) -> float:
    """`10ms`, `90s`, `5m` to seconds; a number alone is asked for its unit, since 5 could be either."""
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(ns|us|µs|ms|s|min|m|h)?\s*", text.lower())
    if match and not match[2]:
        raise UsageError(f"{match[1]} what?", f"give the unit: {match[1]}s, {match[1]}m or {match[1]}ms")
    if not match or math.isinf(float(match[1]) * _SECONDS[match[2]]):
        raise UsageError(f"{text!r} is not a duration", "write it as 10ms, 90s or 5m")
    return float(match[1]) * _SECONDS[match[2]]


def parse_cpus(text: str) -> tuple[int, ...]:
    """A kernel CPU list (`0-3,8`) as ascending numbers."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        match = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", part.strip())
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(f"{text[:60]!r} is not a CPU list", "write it as 0-3,8")
        if int(match[2] or match[1]) >= MOST_CPUS:
            raise UsageError(f"{text[:60]!r} names CPUs from {MOST_CPUS:,} on, which no machine has", "write it as 0-3,8")
        cpus.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(sorted(cpus))


def plus_minus(half_width: float) -> str:
    """`±9 %` of a relative half-width, `±0.9 %` below one; nothing beyond VAGUE, or where it is not known."""
    return f"±{100 * half_width:.{0 if half_width > 0.0095 else 1}f} %" if half_width <= VAGUE else ""


def count_cpus(text: object) -> int:
    """How many CPUs a list of facts from elsewhere names; 0 for what is no list."""
    try:
        return len(parse_cpus(str(text or "")))
    except UsageError:
        return 0


def format_cpus(cpus: Iterable[int]) -> str:
    """The kernel's canonical form, ascending: `0-3,8`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
