"""What translation must cost, by playing one chase after the rules of docs/testbed.md: pages, sets and levels in lists, one access at a time."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from statistics import mean, stdev

from ..machine import Machine
from ..timing import PAGES, Timing

BYTES = dict(zip(PAGES, (4 << 10, 2 << 20), strict=True))
PAGE_OF = {"4k": "4K", "thp": "2M"}  # by numabench's word for what the kernel is asked for
BASE_PAGE, LINE = 4 << 10, 64
GROUP = 256 << 10  # bytes that a chase in order `group` shuffles among each other
APART = 256  # bytes within which lines are neighbours, which a chase in random order visits far from each other
SEEDS = 10  # random orders that are played
#: What a benchmark does between its loads: it looks at the clock after a batch of 64 loads, doubled until it takes 10 us, and that costs instructions and
#: hits, and accesses to pages of its own: stack, thread, case, places of the chases, the library's table of functions, the clock's two.
LEAST_LOADS, BATCH, LOOK, LOOK_PAGES = 64, 10_000.0, 110.0, 7
LOOK_AT = 1 << 40  # where these pages are: not where the chase is


class Translator:
    """The TLB of one CPU. A set is a list of what it holds, the least recent first."""

    def __init__(self, timing: Timing):
        self.timing = timing
        self.sets: defaultdict[tuple[int, int], list[tuple]] = defaultdict(list)

    def cost(self, virtual: int, physical: int, page: str) -> float:
        """ns that an access to these addresses waits before it begins, in a page of that size."""
        entry, missed = (page, virtual // BYTES[page], physical // BYTES[page]), []
        price = self.timing.walk[PAGES.index(page)]
        for number, tlb in enumerate(self.timing.tlb):
            if page not in tlb.pages:
                continue
            held = self.sets[number, entry[1] % (tlb.entries // tlb.ways)]
            if entry in held:
                held.remove(entry)
                held.append(entry)
                price = tlb.latency
                break
            missed.append((held, tlb.ways))
        for held, ways in missed:
            held.append(entry)
            del held[:-ways]
        return price


def chase(machine: Machine, addresses: Sequence[int], page: str, served: float, among: random.Random) -> float:
    """Mean ns of a load of a chase through these addresses, each of which takes `served` when it is translated. After each batch of loads the
    benchmark looks at the clock, on pages of its own."""
    translator = Translator(machine.timing)

    def batch(loads: Iterable[int]) -> float:
        return sum(served + translator.cost(address, address, page) for address in loads)

    batch(addresses)
    load, loads = batch(addresses) / len(addresses), LEAST_LOADS
    while loads * load < BATCH:
        loads *= 2
    looked_at = [LOOK_AT + number * BYTES["4K"] for number in among.sample(range(1 << 20), LOOK_PAGES)]
    rounds, took = itertools.cycle(addresses), []
    for _ in range(2 + len(addresses) // loads):
        took.append(batch(itertools.islice(rounds, loads)) + LOOK + sum(translator.cost(at, at, "4K") for at in looked_at))
    return mean(took[1:]) / loads


def shuffled(numbers: Sequence[int], among: random.Random) -> list[int]:
    return among.sample(numbers, k=len(numbers))


def visited(size: int, distance: int, group: int, among: random.Random) -> list[int]:
    """The addresses of a chase through lines that are so far apart: shuffled within groups and the groups among each other, and of neighbouring lines
    (less than 256 bytes apart) all firsts before all seconds."""
    classes = max(1, APART // distance)
    groups = shuffled(range(0, size, group), among)
    return [
        address
        for number in range(classes)
        for first in groups
        for address in shuffled(range(first + number * distance, min(first + group, size), classes * distance), among)
    ]


@cache
def tlb_latency(machine: Machine, lines: int, layout: str, page_size: str) -> tuple[float, float]:
    """A load of that many lines, which the cache holds: its instruction, the hit, and its translation; and by how much orders differ."""
    distance, served = BASE_PAGE if layout == "spread" else LINE, machine.timing.instruction + machine.timing.hit
    found = []
    for seed in range(SEEDS):
        among, size = random.Random(seed), lines * distance
        found.append(chase(machine, visited(size, distance, size, among), PAGE_OF[page_size], served, among))
    return mean(found), stdev(found)


@cache
def memory_latency(machine: Machine, size: int, order: str, page_size: str) -> float:
    """A load from memory of a working set of `size` bytes, within a group after the other or within all of it."""
    among, served = random.Random(0), machine.timing.instruction + machine.timing.memory[0][0]
    addresses = visited(size, LINE, GROUP if order == "group" else size, among)
    return chase(machine, addresses, PAGE_OF[page_size], served, among)


def levels(machine: Machine, page_size: str) -> list[tuple[int, float]]:
    """(how many base pages it holds, what a load that hits it and the cache costs) of each level."""
    page, timing = PAGE_OF[page_size], machine.timing
    own = [tlb for tlb in timing.tlb if page in tlb.pages]
    return [(tlb.entries * BYTES[page] // BASE_PAGE, timing.instruction + timing.hit + tlb.latency) for tlb in own]
