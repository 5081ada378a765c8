"""Who has the CPUs now: the processes that used most time while this one looked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ..text import printable

LOOK_S = 0.5
LEAST_SHARE = 0.1  # of one CPU: what takes less is not what keeps it busy
MOST_NAMED = 3


def rivals(wait: Callable[[float], object] = time.sleep, proc: Path = Path("/proc")) -> list[tuple[str, float]]:
    """(name, CPUs used) of the busiest other processes, most first; empty where the kernel does not show them."""
    before = _ticks(proc)
    wait(LOOK_S)
    after = _ticks(proc)
    second = os.sysconf("SC_CLK_TCK")
    used = [(name, (ticks - before[pid][1]) / second / LOOK_S) for pid, (name, ticks) in after.items() if pid in before]
    return sorted(((name, share) for name, share in used if share >= LEAST_SHARE), key=lambda one: -one[1])[:MOST_NAMED]


def _ticks(proc: Path) -> dict[int, tuple[str, int]]:
    """{pid: (name, user and system ticks)} of all processes but this one (proc_pid_stat(5): the name may hold anything)."""
    found = {}
    try:
        places = [place for place in proc.iterdir() if place.name.isdecimal() and int(place.name) != os.getpid()]
    except OSError:
        return {}
    for place in places:
        try:
            head, _, tail = (place / "stat").read_text(errors="replace").rpartition(")")
            words = tail.split()
            found[int(place.name)] = (printable(head.partition("(")[2]), int(words[11]) + int(words[12]))
        except (OSError, IndexError, ValueError):  # it has ended meanwhile
            continue
    return found
