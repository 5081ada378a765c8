"""What disturbed the machine while it measured, from the kernel's own counters.

Imported by worker processes: the standard library only.
"""

from __future__ import annotations

import os

TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def machine_counters(cpus: set[int]) -> dict[str, float]:
    """Steal in seconds and interrupts, both summed over `cpus`; take the difference of two readings. What cannot be read is left out."""
    found = {"steal": _steal(cpus), "interrupts": _interrupts(cpus)}
    return {name: float(value) for name, value in found.items() if value is not None}


def _steal(cpus: set[int]) -> float | None:
    ticks = None
    try:
        with open("/proc/stat") as file:
            for line in file:
                name, *fields = line.split()
                if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cpus and len(fields) > 7:
                    ticks = (ticks or 0) + int(fields[7])
    except (OSError, ValueError):
        return None
    return None if ticks is None else ticks * TICK


def _interrupts(cpus: set[int]) -> int | None:
    count = None
    try:
        with open("/proc/interrupts") as file:
            columns = [int(name[3:]) for name in file.readline().split()]
            wanted = [i + 1 for i, cpu in enumerate(columns) if cpu in cpus]
            for row in map(str.split, file):
                counted = [int(row[i]) for i in wanted if i < len(row) and row[i].isdigit()]
                count = sum(counted, count or 0) if counted else count
    except (OSError, ValueError):
        return None
    return count
