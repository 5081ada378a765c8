"""What state a machine is in, beyond its model and how it is set up: what may make one of many equal machines unlike the others.

Firmware, board and product, memory modules, corrected errors, limits of clock and power, throttling, idle states that are off, CPUs that are offline.
None of it is part of a key. None stands for what no file says, or only to root; serial numbers and asset tags are never read.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..units import format_bytes, format_cpus
from .sysfs import Tree
from .topology import Topology

_CPU = "sys/devices/system/cpu"
_DMI = "sys/class/dmi/id"
_EDAC = "sys/devices/system/edac/mc"
_TABLES = "sys/firmware/dmi/tables/DMI"
#: System Management BIOS Reference Specification 3.8 (DMTF DSP0134), 7.18: a memory device, and what is read of it.
_MODULE, _END = 17, 127
_KINDS = {
    0x14: "DDR2",
    0x18: "DDR3",
    0x1A: "DDR4",
    0x1E: "LPDDR4",
    0x20: "HBM",
    0x21: "HBM2",
    0x22: "DDR5",
    0x23: "LPDDR5",
    0x24: "HBM3",
}
_MIB, _EXTENDED, _IN_KIB = 1 << 20, 0x7FFF, 0x8000


def read_condition(tree: Tree, topology: Topology) -> dict[str, Any]:
    modules = read_modules(tree)
    return {
        "firmware": _said(tree, vendor="bios_vendor", version="bios_version", date="bios_date", release="bios_release"),
        "board": _said(tree, vendor="board_vendor", name="board_name", version="board_version"),
        "product": _said(tree, vendor="sys_vendor", name="product_name", version="product_version"),
        "memory_modules": summary(modules),
        "modules": modules,
        "memory_errors": _memory_errors(tree),
        "energy_preference": _each_policy(tree, "energy_performance_preference"),
        "clock_limits_khz": _clock_limits(tree),
        "power_limits_w": _power_limits(tree),
        "throttled": _throttled(tree),
        "idle_states_off": _idle_states_off(tree),
        "tuned_profile": tree.read("etc/tuned/active_profile"),
        "offline_cpus": format_cpus(topology.offline),
        "tainted": tree.number("proc/sys/kernel/tainted"),
    }


def _said(tree: Tree, **files: str) -> dict[str, str] | None:
    """What the firmware says of itself, of those files that are there; None without any."""
    found = {name: tree.read(f"{_DMI}/{file}") for name, file in files.items()}
    return {name: text for name, text in found.items() if text} or None


def read_modules(tree: Tree) -> list[dict[str, Any]] | None:
    """Slots of memory with what is in each: kind, bytes (0: empty), MT/s rated and set. By the firmware's tables, which root alone may read, else by
    EDAC, which knows no speeds."""
    tables = tree.read_bytes(_TABLES)
    if tables is None:
        return _modules_of_edac(tree)
    found = []
    for kind, body, texts in _structures(tables):
        if kind == _MODULE and len(body) >= 0x17:
            found.append(_module(body, texts))
    return found or None


def summary(modules: list[dict[str, Any]] | None) -> str | None:
    """`16 of 24 slots: 16 × 32 GiB DDR5 at 4800 MT/s`."""
    if modules is None:
        return None
    filled = [each for each in modules if each["bytes"]]
    counts = Counter(
        f"{format_bytes(each['bytes'])} {each['kind'] or ''}".strip()
        + (f" at {each['set_mt_s']} MT/s" if each.get("set_mt_s") else "")
        for each in filled
    )
    return f"{len(filled)} of {len(modules)} slots: " + ", ".join(f"{count} × {what}" for what, count in sorted(counts.items()))


def _structures(tables: bytes) -> Iterator[tuple[int, bytes, list[str]]]:
    """(type, formatted part, texts) of each; what is cut is left out."""
    at = 0
    while at + 4 <= len(tables):
        kind, length = tables[at], tables[at + 1]
        end = tables.find(b"\0\0", at + length)
        if length < 4 or end < 0 or kind == _END:
            return
        texts = [text.decode("latin-1").strip() for text in tables[at + length : end].split(b"\0") if text]
        yield kind, tables[at : at + length], texts
        at = end + 2


def _module(body: bytes, texts: list[str]) -> dict[str, Any]:
    def text(place: int) -> str:
        return texts[body[place] - 1] if 0 < body[place] <= len(texts) else ""

    def number(place: int, form: str) -> int | None:
        return struct.unpack_from(form, body, place)[0] or None if place + struct.calcsize(form) <= len(body) else None

    size = number(0x0C, "<H") or 0
    if size == _EXTENDED:
        size = (number(0x1C, "<I") or 0) * _MIB
    elif size == 0xFFFF:  # the firmware does not know
        return {"slot": text(0x10), "bank": text(0x11), "bytes": None}
    else:
        size = (size & ~_IN_KIB) << 10 if size & _IN_KIB else size * _MIB
    ranks = number(0x1B, "<B")
    return {
        "slot": text(0x10),
        "bank": text(0x11),
        "bytes": size,
        "kind": _KINDS.get(body[0x12]) if size else None,
        "rated_mt_s": number(0x15, "<H") if size else None,
        "set_mt_s": number(0x20, "<H") if size else None,
        "ranks": ranks & 15 if ranks and size else None,
    }


def _modules_of_edac(tree: Tree) -> list[dict[str, Any]] | None:
    found = []
    for path in _dimms(tree):
        size = tree.number(f"{path}/size")  # MiB
        label = tree.read(f"{path}/dimm_label") or path.rpartition("mc/")[2]
        found.append({"slot": label, "bytes": None if size is None else size * _MIB, "kind": tree.read(f"{path}/dimm_mem_type")})
    return found or None


def _dimms(tree: Tree) -> list[str]:
    controllers = tree.numbered(_EDAC, "mc").values()
    return [dimm for path in controllers for part in ("dimm", "rank") for dimm in tree.numbered(path, part).values()]


def _memory_errors(tree: Tree) -> dict[str, Any] | None:
    """Counted since boot: `corrected` and `uncorrected`, and by module where there are any."""
    controllers = [*tree.numbered(_EDAC, "mc").values()]
    corrected, uncorrected = (_sum(tree, controllers, name) for name in ("ce_count", "ue_count"))
    if corrected is None and uncorrected is None:
        return None
    counts = {
        tree.read(f"{path}/dimm_label") or path.rpartition("mc/")[2]: tree.number(f"{path}/dimm_ce_count")
        for path in _dimms(tree)
    }
    return {
        "corrected": corrected,
        "uncorrected": uncorrected,
        "by_module": {label: count for label, count in counts.items() if count},
    }


def _sum(tree: Tree, folders: list[str], name: str) -> int | None:
    found = [number for path in folders if (number := tree.number(f"{path}/{name}")) is not None]
    return sum(found) if found else None


def _policies(tree: Tree) -> list[str]:
    return [*tree.numbered(f"{_CPU}/cpufreq", "policy").values()]


def _each_policy(tree: Tree, name: str) -> str | None:
    """`performance`, or several joined by a comma where CPUs differ."""
    return ",".join(sorted({tree.read(f"{path}/{name}") or "" for path in _policies(tree)} - {""})) or None


def _clock_limits(tree: Tree) -> dict[str, list[int]] | None:
    """The clocks that CPUs may go down and up to, and that of the hardware: of each the lowest and the highest over all CPUs."""
    found = {}
    for name, file in (("least", "scaling_min_freq"), ("most", "scaling_max_freq"), ("hardware", "cpuinfo_max_freq")):
        numbers = [number for path in _policies(tree) if (number := tree.number(f"{path}/{file}")) is not None]
        found |= {name: [min(numbers), max(numbers)]} if numbers else {}
    return found or None


def _power_limits(tree: Tree) -> dict[str, list[float]] | None:
    """Watts by package: long term, short term."""
    found = {}
    for name in tree.names("sys/class/powercap"):
        path = f"sys/class/powercap/{name}"
        if name.count(":") != 1:  # `intel-rapl:0` is a package, `intel-rapl:0:0` a part of it
            continue
        limits = [tree.number(f"{path}/constraint_{number}_power_limit_uw") for number in range(2)]
        known = [limit / 1e6 for limit in limits if limit is not None]
        found |= {tree.read(f"{path}/name") or name: known} if known else {}
    return found or None


def _throttled(tree: Tree) -> dict[str, int] | None:
    """How often cores and packages were slowed for their heat since boot; a package counts once, by the CPU that counted most."""
    folders = [f"{path}/thermal_throttle" for path in tree.numbered(_CPU, "cpu").values()]
    cores = _sum(tree, folders, "core_throttle_count")
    packages = [number for path in folders if (number := tree.number(f"{path}/package_throttle_count")) is not None]
    return None if cores is None else {"cores": cores, "packages": max(packages, default=0)}


def _idle_states_off(tree: Tree) -> list[str] | None:
    """Names of the first CPU's; None where the kernel manages none."""
    states = tree.numbered(f"{_CPU}/cpu0/cpuidle", "state").values()
    if not states:
        return None
    return [tree.read(f"{path}/name") or path.rpartition("/")[2] for path in states if tree.read(f"{path}/disable") == "1"]
