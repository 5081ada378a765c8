"""How a process stands at one moment: on which nodes its pages are, how many of them are huge, by which rules it is scheduled."""

from __future__ import annotations

import ctypes as c
import random
import re
from collections import Counter

from ..model import Frozen
from . import calls
from .accounts import content
from .configuration import process_state
from .pages import base_page
from .sysfs import Tree

SAMPLE = 1000  # pages: a share within 3 points, for some 0.15 ms of the kernel's time
MOST_ROUNDS = 8  # of as many addresses: most of what programs map, they may never have touched
#: Resident bytes up to which huge pages are counted: that takes up to 30 ms a GiB, in which the process can map no memory.
MOST_COUNTED = 1 << 30


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
    rules = process_state(Tree(), process)
    huge = None
    if resident <= MOST_COUNTED:
        huge = re.search(r"^AnonHugePages:\s*(\d+) kB", _text(f"/proc/{process}/smaps_rollup"), re.MULTILINE)
    return State(
        process=process,
        resident=resident,
        pages=sample_pages(process),
        huge=int(huge[1]) * 1024 if huge else None,
        scheduling=rules["scheduling"],
        slack_ns=rules["timer_slack_ns"],
        filters=rules["seccomp_filters"],
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


def _text(path: str) -> str:
    return content(path).decode(errors="replace")


def _mapped(process: int) -> list[tuple[int, int]]:
    """Ranges that may be read, without the kernel's own pages."""
    ranges = []
    for line in _text(f"/proc/{process}/maps").splitlines():
        addresses, rights, *rest = line.split(maxsplit=5)
        if rights.startswith("r") and not (len(rest) == 4 and rest[3].startswith(("[v", "[uprobes"))):
            begin, end = (int(each, 16) for each in addresses.split("-"))
            ranges.append((begin, end))
    return ranges
