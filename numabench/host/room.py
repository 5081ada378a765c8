"""How much memory a buffer may take: what is free, what the kernel would give up for it, and what cgroups leave. Unknown is None and never 0."""

from __future__ import annotations

import re
import resource

from .pages import base_page
from .sysfs import Tree, cgroup_directories

#: Cache of files and of the kernel's own objects, given up when memory is wanted. MemAvailable counts the same (si_mem_available of the kernel).
_RECLAIMABLE = ("Active(file)", "Inactive(file)", "SReclaimable")
_RECLAIMABLE_V2 = ("active_file", "inactive_file", "slab_reclaimable")  # of memory.stat
_RECLAIMABLE_V1 = ("total_active_file", "total_inactive_file")
_LIMITS_V2 = ("memory.max", "memory.high")  # beyond the second one who asks for memory is slowed down until it is reclaimed
_LINE = re.compile(r"^(?:Node +\d+ +)?([\w()]+):\s*(\d+)(?: kB)?\s*$", re.MULTILINE)


def read_meminfo(tree: Tree, path: str = "proc/meminfo") -> dict[str, int]:
    """{name: bytes} of the machine's file or a node's; empty where there is none. Counts of pages are among them, in the wrong unit."""
    return {name: int(value) * 1024 for name, value in _LINE.findall(tree.read(path) or "")}


def available_bytes(node: int | None = None, tree: Tree | None = None) -> int | None:
    """Memory that a buffer may take: the least of what the machine, its cgroups, this process's limit and the node have room for; None where nothing says so."""
    tree = tree or Tree()
    rooms = [memory_room(read_meminfo(tree)), cgroup_room(tree), address_room()]
    if node is not None:
        rooms.append(memory_room(read_meminfo(tree, f"sys/devices/system/node/node{node}/meminfo")))
    known = [room for room in rooms if room is not None]
    return min(known) if known else None


def address_room() -> int | None:
    """Bytes that this process may still map (`ulimit -v`); None without a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = Tree().read("proc/self/statm")
    return None if limit == resource.RLIM_INFINITY or not used else max(0, limit - int(used.split()[0]) * base_page())


def memory_room(info: dict[str, int]) -> int | None:
    """The kernel's own estimate; where it makes none (a node, WSL1, before Linux 3.14) what is free and what can be given up."""
    if "MemAvailable" in info or "MemFree" not in info:
        return info.get("MemAvailable")
    kept = ("Buffers", "Cached") if not {*_RECLAIMABLE} & {*info} else _RECLAIMABLE
    return info["MemFree"] + sum(info.get(name, 0) for name in kept)


def cgroup_room(tree: Tree) -> int | None:
    """Limit minus what is in use for good, the least over this process's memory cgroup and its parents (version 2 or 1)."""
    rooms = []
    for directories, version2 in cgroup_directories(tree, "memory"):
        limits, use = (_LIMITS_V2, "memory.current") if version2 else (("memory.limit_in_bytes",), "memory.usage_in_bytes")
        kept = _RECLAIMABLE_V2 if version2 else _RECLAIMABLE_V1
        for directory in directories:
            used = tree.number(f"{directory}/{use}")
            found = [number for name in limits if (number := _limit(tree, f"{directory}/{name}")) is not None]
            if used is None or not found:
                continue
            words = map(str.split, (tree.read(f"{directory}/memory.stat") or "").splitlines())
            counts = {word[0]: int(word[1]) for word in words if len(word) == 2 and word[1].isdigit()}
            rooms.append(max(0, min(found) - max(0, used - sum(counts.get(name, 0) for name in kept))))
    return min(rooms) if rooms else None


def _limit(tree: Tree, path: str) -> int | None:
    """`max` is none."""
    text = tree.read(path)
    return None if text in (None, "max") else tree.understood(text, int, path)
