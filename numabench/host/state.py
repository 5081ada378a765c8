"""How a process stands at one moment: on which nodes its pages are, how many of them are huge, by which rules it is scheduled."""

from __future__ import annotations

import ctypes as c
import os
import random
import re
from collections import Counter

from ..model import Frozen
from . import calls
from .pages import base_page

SAMPLE = 1000  # pages: a share within 3 points, for some 0.15 ms of the kernel's time
MOST_ROUNDS = 8  # of as many addresses: most of what programs map, they may never have touched
#: Resident bytes up to which huge pages are counted: that takes up to 30 ms a GiB, in which the process can map no memory.
MOST_COUNTED = 1 << 30
_CLASSES = {getattr(os, f"SCHED_{name}", None): name.lower() for name in ("OTHER", "FIFO", "RR", "BATCH", "IDLE")}


class State(Frozen):
    """None where the kernel does not say. `pages`: of a random sample of those that are in memory, how many are on each node."""

    process: int
    resident: int  # bytes
    pages: dict[int, int] | None
    huge: int | None  # bytes in transparent huge pages
    scheduling: str | None
    slack_ns: int | None
    filters: int | None  # of seccomp, that each system call passes


def read_state(process: int, resident: int) -> State:
    status = _read(f"/proc/{process}/status")
    filters = re.search(r"^Seccomp_filters:\s*(\d+)", status, re.MULTILINE)  # since Linux 5.9
    huge = None
    if resident <= MOST_COUNTED:
        huge = re.search(r"^AnonHugePages:\s*(\d+) kB", _read(f"/proc/{process}/smaps_rollup"), re.MULTILINE)
    slack = _read(f"/proc/{process}/timerslack_ns").strip()
    try:
        scheduling = _CLASSES.get(os.sched_getscheduler(process), "another")
    except OSError:
        scheduling = None
    return State(
        process=process,
        resident=resident,
        pages=sample_pages(process),
        huge=int(huge[1]) * 1024 if huge else None,
        scheduling=scheduling,
        slack_ns=int(slack) if slack.isdigit() else None,
        filters=int(filters[1]) if filters else None,
    )


def sample_pages(process: int, chance: random.Random | None = None) -> dict[int, int] | None:
    """{node: pages found there} of up to SAMPLE pages in memory, each as likely; None where that cannot be asked."""
    chance, page = chance or random.Random(process), base_page()
    ranges = _mapped(process)
    weights = [(end - begin) // page for begin, end in ranges]
    found: Counter[int] = Counter()
    for _ in range(MOST_ROUNDS if sum(weights) else 0):
        chosen = chance.choices(range(len(ranges)), weights, k=SAMPLE)
        addresses = (c.c_uint64 * SAMPLE)(*(ranges[i][0] + page * chance.randrange(weights[i]) for i in chosen))
        nodes = (c.c_int * SAMPLE)()
        if calls.where_pages_are(addresses, nodes, process):
            return None
        found.update([node for node in nodes if node >= 0][: SAMPLE - found.total()])
        if found.total() == SAMPLE:
            break
    return dict(sorted(found.items())) or None


def _mapped(process: int) -> list[tuple[int, int]]:
    """Ranges that may be read, without the kernel's own pages."""
    ranges = []
    for line in _read(f"/proc/{process}/maps").splitlines():
        addresses, rights, *rest = line.split(maxsplit=5)
        if rights.startswith("r") and not (len(rest) == 4 and rest[3].startswith(("[v", "[uprobes"))):
            begin, end = (int(each, 16) for each in addresses.split("-"))
            ranges.append((begin, end))
    return ranges


def _read(path: str) -> str:
    """Empty where it is gone, not there or not for us."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
