"""What three and more threads on one line must take: the kernels' own loops, word by word, played in order of virtual time.

Who comes first is served first; of two that come at the same time, the one with the lower number (docs/testbed.md, "Order of service").
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from ..machine import Machine
from . import ATOMIC, READ, ROUNDS, WRITE, Loops

RUN, PAUSE = "run", "pause"
Wish = tuple[
    str, int, object
]  # kind; an address or a number of instructions; what is written, or makes the new value of the old one
Program = Generator[Wish | None, int, None]  # None: a turn has ended

#: Where the words of `contention` lie (kernels/nb_protected.h): a lock, the counter and its twin, a node for each thread.
LOCK, SERVING, COUNTER, TWIN = 0, 4, 256, 264
NODES, NODE, NEXT, WAITING = 1 << 16, 4096, 0, 8


@dataclass
class Thread:
    program: Program
    clock: float
    wish: Wish | None = None
    turns: list[float] = field(default_factory=list)  # when each ended


class Threads(Loops):
    """Threads that read and write words; each waits for its own accesses."""

    def play(self, programs: dict[int, Program], turns: int, begin: dict[int, float] | None = None) -> dict[int, list[float]]:
        """When each thread ended each of its turns, until all have done so many."""
        self.words: dict[int, int] = {}
        threads = {cpu: Thread(program, (begin or {}).get(cpu, 0.0)) for cpu, program in programs.items()}
        for thread in threads.values():
            self.go_on(thread, None)
        while min(len(thread.turns) for thread in threads.values()) < turns:
            cpu = min(threads, key=lambda n: (threads[n].clock, n))
            self.serve(cpu, threads[cpu])
        return {cpu: thread.turns for cpu, thread in threads.items()}

    def serve(self, cpu: int, thread: Thread) -> None:
        kind, address, what = thread.wish
        seen = self.words.get(address, 0)
        if kind != READ:
            self.words[address] = what(seen) if callable(what) else what
        own = self.timing.atomic if kind == ATOMIC else 0.0
        thread.clock = self.access(cpu, thread.clock + own, address, kind)
        self.go_on(thread, seen)

    def go_on(self, thread: Thread, seen: int | None) -> None:
        """To the next access: instructions and pauses touch no line."""
        while True:
            wish = thread.program.send(seen)
            seen = None
            if wish is None:
                thread.turns.append(thread.clock)
            elif wish[0] == RUN:
                thread.clock += wish[1] * self.timing.instruction
            elif wish[0] == PAUSE:
                thread.clock += self.timing.pause + self.timing.instruction
            else:
                thread.wish = wish
                return


# -- the loops of kernels, by their instructions ------------------------------------------------------------------------


def atomic_add(thread: int, hop: int) -> Program:
    while True:
        yield (RUN, 2, None)
        yield (ATOMIC, COUNTER, lambda seen: seen + 1)
        yield (RUN, 2, None)
        yield None


def protected_add() -> Program:
    seen = yield (READ, COUNTER, None)
    yield (RUN, 2, None)
    yield (WRITE, COUNTER, seen + 1)
    yield (RUN, 2, None)
    yield (WRITE, TWIN, 2 * (seen + 1))


def ticket(thread: int, hop: int) -> Program:
    while True:
        yield (RUN, 2, None)
        mine = yield (ATOMIC, LOCK, lambda seen: seen + 1)
        while True:
            yield (RUN, 1, None)
            before = mine - (yield (READ, SERVING, None))
            yield (RUN, 3, None)
            if not before:
                break
            yield (RUN, 6 + 3 * before * hop, None)
        yield (RUN, 1, None)
        yield from protected_add()
        yield (RUN, 1, None)
        serving = yield (READ, SERVING, None)
        yield (RUN, 2, None)
        yield (WRITE, SERVING, serving + 1)
        yield (RUN, 2, None)
        yield None


def mcs(thread: int, hop: int) -> Program:
    own = NODES + thread * NODE
    while True:
        yield (RUN, 1, None)
        yield (WRITE, own + NEXT, 0)
        yield (RUN, 2, None)
        before = yield (ATOMIC, LOCK, lambda seen: own)
        yield (RUN, 2, None)
        if before:
            yield (RUN, 1, None)
            yield (WRITE, own + WAITING, 1)
            yield (RUN, 1, None)
            yield (WRITE, before + NEXT, own)
            yield (RUN, 2, None)
            waits = yield (READ, own + WAITING, None)
            yield (RUN, 4, None)
            while waits:
                yield (PAUSE, 0, None)
                yield (RUN, 1, None)
                waits = yield (READ, own + WAITING, None)
                yield (RUN, 2, None)
        yield (RUN, 1, None)
        yield from protected_add()
        yield (RUN, 1, None)
        behind = yield (READ, own + NEXT, None)
        yield (RUN, 2, None)
        if not behind:
            yield (RUN, 2, None)
            last = yield (ATOMIC, LOCK, lambda seen: 0 if seen == own else seen)
            yield (RUN, 1, None)
            if last == own:
                yield (RUN, 3, None)
                yield None
                continue
        while True:
            yield (RUN, 1, None)
            behind = yield (READ, own + NEXT, None)
            yield (RUN, 2, None)
            if behind:
                break
            yield (PAUSE, 0, None)
        yield (RUN, 1, None)
        yield (WRITE, behind + WAITING, 0)
        yield (RUN, 2, None)
        yield None


LOCKS: dict[str, Callable[[int, int], Program]] = {"atomic_add": atomic_add, "ticket": ticket, "mcs": mcs}


def contention(
    machine: Machine, primitive: str, cpus: list[int], hop: float, begin: dict[int, float] | None = None
) -> tuple[float, float]:
    """ns of an operation in one thread, waiting included, and Jain's index of the threads' rates. `hop`: ns of a line from CPU to CPU as numabench has found it."""
    multiplies = round(hop / (3 * machine.timing.instruction))
    programs = {cpu: LOCKS[primitive](number, multiplies) for number, cpu in enumerate(cpus)}
    ends = Threads(machine).play(programs, ROUNDS, begin)
    first, last = max(ended[ROUNDS // 5] for ended in ends.values()), min(ended[ROUNDS - 1] for ended in ends.values())
    done = [sum(first < end <= last for end in ended) for ended in ends.values()]
    rates = [count / (last - first) for count in done]
    return len(cpus) / sum(rates), sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates))
