"""What disturbed the machine while it measured, from the kernel's own counters.

Imported by worker processes: the standard library only.
"""

from __future__ import annotations

import os
from functools import cache

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
ASKED_TO_FLUSH = ("/sys/hypervisor/type", "/sys/bus/vmbus")  # where Xen and Hyper-V show


def machine_counters(cpus: set[int]) -> dict[str, float]:
    """Steal in seconds and interrupts, both summed over `cpus`; take the difference of two readings. What cannot be read is left out."""
    found = {"steal": _steal(cpus), "interrupts": _interrupts(cpus)}
    return {name: float(value) for name, value in found.items() if value is not None}


def open_interrupts() -> int:
    """A descriptor of the interrupts of each CPU by kind, which kernels read by themselves (kernels/nb_interrupts.h). OSError where that is not allowed."""
    return os.open("/proc/interrupts", os.O_RDONLY | os.O_CLOEXEC)


@cache
def may_flush_silently() -> bool:
    """Whether CPUs can be made to forget addresses without an interrupt that is counted: by broadcast (INVLPGB of AMD), or by a hypervisor that is asked to. True
    where nothing tells."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), None)
    except OSError:
        return True
    return flags is None or "invlpgb" in flags.split() or any(map(os.path.exists, ASKED_TO_FLUSH))


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
