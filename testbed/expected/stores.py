"""What stores and fences must take on a machine with a store buffer: each CPU's program is played step by step, in order of virtual time.

The rules are those of docs/testbed.md ("Store buffers"). A program is a list of steps that a CPU repeats; it waits for nothing but a load, a full buffer, a full
fence and a locked operation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ..machine import Machine
from . import ATOMIC, READ, ROUNDS, WRITE, Loops

RUN, FENCE = "run", "fence"  # so many instructions; wait for all stores
Step = tuple[str, int]  # kind, and the address or the number of instructions
OTHER_LINE = 1 << 20  # an address far from those shared
TURN_OF_LINES = 128  # of single operations


@dataclass
class Cpu:
    program: list[Step]
    clock: float = 0.0
    at: int = 0  # the next step
    buffer: deque[int] = field(default_factory=deque)  # addresses; the first is under way
    done: float = 0.0  # when it will be
    turns: list[float] = field(default_factory=list)  # when each ended

    @property
    def next_event(self) -> float:
        return min(self.clock, self.done) if self.buffer else self.clock


class Stores(Loops):
    """Programs of CPUs that buffer their plain stores."""

    def play(self, programs: dict[int, list[Step]], turns: int = ROUNDS) -> dict[int, list[float]]:
        """When each CPU ended each of its turns, until all have done so many."""
        self.cpus = {cpu: Cpu(program) for cpu, program in programs.items()}
        while min(len(cpu.turns) for cpu in self.cpus.values()) < turns:
            number = min(self.cpus, key=lambda n: (self.cpus[n].next_event, n))
            cpu = self.cpus[number]
            if cpu.buffer and cpu.done <= cpu.clock:
                self.drain_one(number, cpu)
            else:
                self.step(number, cpu)
        return {number: cpu.turns[:turns] for number, cpu in self.cpus.items()}

    def drain_one(self, number: int, cpu: Cpu) -> None:
        """The first store is done, the next one begins."""
        cpu.buffer.popleft()
        if cpu.buffer:
            cpu.done = self.access(number, cpu.done, cpu.buffer[0], WRITE)

    def step(self, number: int, cpu: Cpu) -> None:
        kind, value = cpu.program[cpu.at]
        if (kind in (ATOMIC, FENCE) and cpu.buffer) or (kind == WRITE and len(cpu.buffer) == self.timing.store_buffer):
            cpu.clock = cpu.done  # and asks again
            return
        if kind == RUN:
            cpu.clock += value * self.timing.instruction
        elif kind == WRITE:
            cpu.buffer.append(value)
            if len(cpu.buffer) == 1:
                cpu.done = self.access(number, cpu.clock, value, WRITE)
        elif kind == READ and any(address // self.timing.line == value // self.timing.line for address in cpu.buffer):
            cpu.clock += self.timing.hit
        elif kind != FENCE:
            cpu.clock = self.access(number, cpu.clock + (self.timing.atomic if kind == ATOMIC else 0.0), value, kind)
        cpu.at = (cpu.at + 1) % len(cpu.program)
        if not cpu.at:
            cpu.turns.append(cpu.clock)


def each_turn(machine: Machine, programs: dict[int, list[Step]]) -> float:
    """Time of a turn once all is going, the mean of the CPUs."""
    ends = Stores(machine).play(programs)
    first = ROUNDS // 5
    return sum((ended[-1] - ended[first]) / (ROUNDS - 1 - first) for ended in ends.values()) / len(ends)


def once(machine: Machine, before: dict[int, list[Step]], cpu: int, program: list[Step]) -> float:
    """Time of `program` alone, after each CPU has played what is its part `before`."""
    stores = Stores(machine)
    for other, steps in before.items():
        stores.play({other: [*steps, (FENCE, 0)]}, turns=1)
    for line in stores.lines.values():
        line.free = 0.0
    return stores.play({cpu: program}, turns=1)[cpu][0]


# -- the loops of kernels, by their instructions ------------------------------------------------------------------------

UNROLLED = 64
MULTIPLY = 3  # instructions: the multiply, the count, the jump


def counter_loop(operation: str, address: int, spacing: int) -> tuple[list[Step], int]:
    """A turn of `padded_counters`, and how many operations it has."""
    touch: dict[str, list[Step]] = {
        "store": [(RUN, 1), (WRITE, address)],
        "increment": [(RUN, 1), (READ, address), (RUN, 2), (WRITE, address)],
        "atomic_add": [(RUN, 2), (ATOMIC, address)],
    }
    if spacing:
        return [(RUN, 5), *touch[operation], (RUN, 4 + spacing * MULTIPLY)], 1
    return [(RUN, 4), *touch[operation] * UNROLLED], UNROLLED


def counters(machine: Machine, cpus: list[int], operation: str, stride: int, spacing: int) -> float:
    """ns of an operation in each thread, of those that each have a counter `stride` bytes from the one before."""
    programs = {cpu: counter_loop(operation, number * stride, spacing) for number, cpu in enumerate(cpus)}
    return each_turn(machine, {cpu: program for cpu, (program, _) in programs.items()}) / programs[cpus[0]][1]


def fence(machine: Machine, name: str, after_store: bool) -> float:
    """ns of a turn of `fences`: its counting, a store if asked for, and the fence."""
    stack = OTHER_LINE
    what: dict[str, list[Step]] = {
        "none": [],
        "mfence": [(RUN, 1), (FENCE, 0)],
        "sfence": [(RUN, 1)],
        "lfence": [(RUN, 1)],
        "lock_or": [(RUN, 1), (ATOMIC, stack)],
        "xchg": [(RUN, 2), (ATOMIC, 8)],
        "mov_mfence": [(RUN, 1), (WRITE, 8), (RUN, 1), (FENCE, 0)],
    }
    store: list[Step] = [(RUN, 1), (WRITE, 0)] if after_store else []
    return each_turn(machine, {0: [(RUN, 1), *store, *what[name], (RUN, 2)]})


#: A locked operation on the stack, which waits for all stores, and an lfence, which waits for none.
DRAIN: tuple[Step, ...] = ((RUN, 1), (ATOMIC, OTHER_LINE), (RUN, 1))


def single_store(machine: Machine, drained: bool, cpu: int, holder: int | None = None, drain: tuple[Step, ...] = DRAIN) -> float:
    """ns of a store of a round, on lines that `holder`, or the CPU itself, has modified: many under way, or each one waited for."""
    lines = [number * 5 * machine.timing.line for number in range(TURN_OF_LINES)]
    each, end = (drain, ()) if drained else ((), drain)
    program: list[Step] = []
    for line in lines:
        program += [(RUN, 1), (READ, OTHER_LINE), (RUN, 1), (WRITE, line), *each, (RUN, 3)]
    owned: dict[int, list[Step]] = {cpu: [(WRITE, OTHER_LINE)]}
    owned.setdefault(cpu if holder is None else holder, []).extend((WRITE, line) for line in lines)
    clock = once(machine, owned, cpu, list(end)) if end else 0.0  # which a reading of the clock takes off
    return (once(machine, owned, cpu, [*program, *end]) - clock) / TURN_OF_LINES
