"""The time that a guest had to itself: what counts for time-outs, so that what else the machine does ends no guest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

LOOK = 1.0  # s between looks at a process: it has a hundred threads

Times = dict[int, tuple[float, float]]  # thread -> seconds that it ran, and that it waited for a CPU although it could run


class OwnTime:
    """Counts the seconds that a process had of those that passed.

    All of them where it slept or ran whenever it could. Where its threads waited for a CPU, the share in which they had one; and never less than what they ran,
    spread over all CPUs: what they then waited for was each other. Where Linux says nothing of it, all of them."""

    def __init__(
        self,
        process: int,
        cpus: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        threads: Callable[[int], Times] | None = None,
    ):
        self.process, self.clock, self.threads = process, clock, threads or thread_times
        self.cpus = cpus or len(os.sched_getaffinity(0))
        self.counted, self.looked, self.seen = 0.0, clock(), self.threads(process)

    def passed(self) -> float:
        """Seconds since it was made, up to LOOK ago."""
        now = self.clock()
        if now - self.looked >= LOOK:
            seen = self.threads(self.process)
            ran, waited = (
                sum(max(0.0, own[k] - self.seen.get(thread, (0.0, 0.0))[k]) for thread, own in seen.items()) for k in (0, 1)
            )
            share = ran / (ran + waited) if waited else 1.0
            self.counted += max((now - self.looked) * share, ran / self.cpus)
            self.looked, self.seen = now, seen
        return self.counted


def thread_times(process: int) -> Times:
    """From schedstat of each thread (Linux's Documentation/scheduler/sched-stats.rst): ns that it ran, ns that it waited."""
    found = {}
    for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            ran, waited, _ = path.read_text().split()
        except OSError:  # it has just ended
            continue
        found[int(path.parent.name)] = (int(ran) / 1e9, int(waited) / 1e9)
    return found
