"""What streams, chases at the same time and a chase beside streams must find on a machine with [timing.overlap] and [timing.bandwidth].

Arithmetic where everything repeats itself: Little's law for what a core can have on its way, and the bytes that each controller and each link
has to carry. A chase beside streams is played request by request.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..machine import Machine


#: Per line of every array that a kernel goes through: lines that the program counts, that come from memory, that go back to it.
@dataclass(frozen=True)
class Traffic:
    counted: int
    read: int
    written: int


STREAMS = {
    "read": Traffic(1, 1, 0),
    "write": Traffic(1, 1, 1),  # a store reads its line first, which goes back when the cache has no more room
    "copy": Traffic(2, 2, 1),
    "triad": Traffic(3, 3, 1),
    "write_nt": Traffic(1, 0, 1),
    "copy_nt": Traffic(2, 1, 1),
    "triad_nt": Traffic(3, 2, 1),
}
BURST_LINES = 64  # of a loader of loaded_latency
LINE_INSTRUCTIONS = 4  # of a stream, for each line: two or four vectors; hidden wherever a line takes longer
CLOCK_LOOK = 25.0  # ns between two looks at the clock of a loader that waits: a pause and the look
SPAN = 200_000.0  # ns that are played
PLAYS = 4


def alone(machine: Machine, cpu_node: int, memory_node: int) -> float:
    """Lines per ns of one core: `misses` of them on their way, each for the latency of the memory."""
    return machine.timing.misses / machine.timing.memory[cpu_node][memory_node]


def most_lines(machine: Machine, cpu_node: int, memory_node: int, kernel: str) -> float:
    """Turns of the stream per ns that controller and links let through."""
    timing, traffic = machine.timing, STREAMS[kernel]
    busy = [
        timing.occupancy[memory_node] * (traffic.read + traffic.written),
        timing.link[memory_node][cpu_node] * traffic.read,
        timing.link[cpu_node][memory_node] * traffic.written,
    ]
    return min((1 / ns for ns in busy if ns), default=float("inf"))


def node_bandwidth(machine: Machine, cpu_node: int, memory_node: int, kernel: str, threads: int) -> float:
    """Bytes of the program per ns (GB/s) of `threads` cores of a node on the memory of another."""
    traffic = STREAMS[kernel]
    places = max(traffic.read + (traffic.written if kernel.endswith("_nt") else 0), 1)  # lines that a core waits for in a turn
    turns = min(threads * alone(machine, cpu_node, memory_node) / places, most_lines(machine, cpu_node, memory_node, kernel))
    return turns * traffic.counted * machine.timing.line


def memory_bandwidth(machine: Machine, cpus: Sequence[int], kernel: str) -> float:
    """The same of threads that each stream through memory of their own node."""
    nodes = [machine.node_of[cpu] for cpu in cpus]
    return sum(node_bandwidth(machine, node, node, kernel, nodes.count(node)) for node in dict.fromkeys(nodes))


def bus_share(kernel: str) -> float:
    """What numabench's `bus_bandwidth` adds: stores into caches read their lines first."""
    traffic = STREAMS[kernel]
    return (traffic.read + traffic.written) / traffic.counted


def time_per_line(machine: Machine, cpu_node: int, memory_node: int, chains: int) -> float:
    """Of so many chases at the same time in one core: as many lines as it has places for, one latency each."""
    together = min(chains, machine.timing.misses)
    return max(
        machine.timing.memory[cpu_node][memory_node] / together,
        machine.timing.occupancy[memory_node],
        link_of(machine, cpu_node, memory_node),
    )


def link_of(machine: Machine, cpu_node: int, memory_node: int) -> float:
    return machine.timing.link[memory_node][cpu_node] if machine.timing.link else 0.0


def weights(machine: Machine) -> dict[int, int]:
    """The smallest whole numbers in proportion to what each memory gives to the cores of the node that read it fastest."""
    cores = {node: len(machine.nodes[node].cpus) for node in machine.cpu_nodes}
    best = {
        m: Fraction(max(node_bandwidth(machine, c, m, "read", cores[c]) for c in cores)).limit_denominator(1000)
        for m in machine.memory_nodes
    }
    whole = math.lcm(*(value.denominator for value in best.values()))
    common = math.gcd(*(int(value * whole) for value in best.values()))
    return {node: int(value * whole) // common for node, value in best.items()}


def saturated_by(machine: Machine, kernel: str, counts: Sequence[int], share: float) -> int:
    """The fewest threads, packed, that reach all but `share` of the most."""
    found = {threads: memory_bandwidth(machine, range(threads), kernel) for threads in counts}
    return min(threads for threads, value in found.items() if value >= (1 - share) * max(found.values()))


class LoadedChase:
    """A chase of one core and `loaders` that read bursts beside it, on one memory: every line asks at its time, and whoever asks first is served first.

    `rate`: GB/s of all loaders; None: as fast as they can; 0: none. A loader's bursts come at even distances, each up to a quarter of the distance early or late.
    """

    def __init__(self, machine: Machine, node: int, loaders: int, rate: float | None, seed: int = 1):
        timing = machine.timing
        self.latency, self.service = timing.memory[node][node], timing.occupancy[node]
        self.places, self.line = timing.misses, timing.line
        self.per_line = LINE_INSTRUCTIONS * timing.instruction
        self.rate, self.loaders = rate, loaders if rate != 0 else 0
        self.random = random.Random(seed)
        self.free = 0.0

    def ask(self, at: float) -> float:
        """When a line that is wanted at `at` is there."""
        begin = max(self.free, at)
        self.free = begin + self.service
        return begin + self.latency

    def loader(self, index: int):
        """Yields when it asks for the next line; is sent when that line is there."""
        way: list[float] = []
        now, burst = 0.0, 0
        interval = self.loaders * BURST_LINES * self.line / self.rate if self.rate else 0.0
        while True:
            if interval:
                due = interval * (index / self.loaders + burst + self.random.random() / 2)
                now = max([now, *way])  # the clock is read when all loads before it are there
                now = max(now, due + CLOCK_LOOK / 2)
            for _ in range(BURST_LINES):
                now += self.per_line
                if len(way) == self.places:
                    now = max(now, way.pop(0))
                way.append((yield now))
            burst += 1

    def chase(self):
        now = 0.0
        while True:
            there = yield now
            self.waits.append(there - now)
            now = there

    def play(self) -> tuple[float, float]:
        """(latency in ns of the mean load of the chase, GB/s of the loaders and the chase)."""
        self.waits: list[float] = []
        threads = [self.chase(), *map(self.loader, range(self.loaders))]
        asks = [next(thread) for thread in threads]
        lines = 0
        while (at := min(asks)) < SPAN:
            who = asks.index(at)
            asks[who] = threads[who].send(self.ask(at))
            lines += 1
        settled = self.waits[len(self.waits) // 10 :]
        return sum(settled) / len(settled), lines * self.line / SPAN


def loaded(machine: Machine, node: int, loaders: int, rate: float | None) -> tuple[float, float]:
    """(latency, load) in the mean of some plays."""
    plays = [LoadedChase(machine, node, loaders, rate, seed).play() for seed in range(PLAYS)]
    return sum(latency for latency, _ in plays) / PLAYS, sum(load for _, load in plays) / PLAYS
