"""Where the pages of this process are, by the kernel's own count: /proc/self/numa_maps and /proc/self/smaps.

numa_maps names for each mapping how many of its pages are on each node: all of them, and without a system call that containers forbid.
Imported by worker processes: the standard library only.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence

NUMA_MAPS, SMAPS = "/proc/self/numa_maps", "/proc/self/smaps"


def open_smaps() -> int:
    """A descriptor of what this process has mapped, which kernels read by themselves (kernels/nb_range.h). OSError where that is not allowed."""
    return os.open(SMAPS, os.O_RDONLY | os.O_CLOEXEC)


def mapped_pages(ranges: Sequence[tuple[int, int]]) -> list[dict[str, int]] | None:
    """{node: pages} of each (address, bytes), ascending; None where the kernel does not say, or knows no mapping that begins there.

    A transparent huge page counts as so many base pages, a reserved one as one.
    """
    begins = [begin for begin, _ in ranges]
    found: list[dict[str, int]] = [{} for _ in ranges]
    seen: set[int] = set()
    last = begins[-1] + ranges[-1][1]
    try:
        with open(NUMA_MAPS, "rb") as file:
            for line in file:
                address, *words = line.split()
                begin = int(address, 16)
                if begin >= last:
                    break
                index = bisect.bisect_right(begins, begin) - 1
                if index < 0 or begin >= begins[index] + ranges[index][1]:
                    continue
                seen.add(begin)
                for word in words:
                    node, equals, count = word.partition(b"=")
                    if equals and node[:1] == b"N" and node[1:].isdigit():
                        name = node[1:].decode()
                        found[index][name] = found[index].get(name, 0) + int(count)
    except (OSError, ValueError):
        return None
    return found if seen.issuperset(begins) else None


def huge_share(address: int) -> float | None:
    """How much of what is touched of the mapping that holds `address` is in transparent huge pages; None where the kernel does not say."""
    inside, touched = False, None
    try:
        with open(SMAPS) as smaps:
            for line in smaps:
                first = line.split(" ", 1)[0]
                if "-" in first and not first.endswith(":"):
                    low, high = (int(part, 16) for part in first.split("-"))
                    inside = low <= address < high
                elif inside and first == "Rss:":
                    touched = int(line.split()[1])
                elif inside and first == "AnonHugePages:":
                    return None if touched is None else int(line.split()[1]) / touched if touched else 0.0
    except (OSError, ValueError, IndexError):
        pass
    return None
