"""The pinned threads of a worker process (kernels/crew.c): Python owns their memory, says where they go and judges what they found."""

from __future__ import annotations

import ctypes as c
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .. import kernel as abi
from ..errors import MachineError
from ..host.memory import ALIGN, Buffer
from ..host.objects import load_object
from ..host.pages import BASE, THP
from ..host.placement import MORE_PROCESSES, cannot_pin
from ..model import Frozen
from ..text import in_shell

PAGE = 4096
BLOCKS = 2  # of each member, as in kernels/crew.c
KERNELS, SENTINELS = 0, 1  # whose block an entry uses: the sentinels' entries leave the other one alone
CASES = 4  # settings of entries that follow each other: of the kernel, and of the sentinels
SPIN_NS = 20_000  # for which a member that waits looks before it sleeps: a wake-up takes 5 to 50 us


class Brought(c.Structure):
    """`struct nb_found`: what one thread brings back from one entry."""

    _fields_ = [
        ("thread", abi.ThreadBlock),
        ("status", c.c_int32),
        ("switches", c.c_uint32),
        ("faults", c.c_uint32),
        ("pad", c.c_uint32),
    ]


class _Step(c.Structure):
    _fields_ = [
        ("run", c.c_void_p),
        ("shared", c.c_void_p),
        ("found", c.c_void_p),
        ("members", c.c_void_p),
        ("threads", c.c_uint32),
        ("block", c.c_uint32),
    ]


class _Head(c.Structure):
    """The beginning of `struct nb_crew`, which has a page of its own."""

    _fields_ = [
        ("size", c.c_uint32),
        ("running", c.c_uint32),
        ("number", c.c_uint32),
        ("stop", c.c_uint32),
        ("firsts", c.c_uint32),
        ("pad", c.c_uint32),
        ("worst", c.c_int32),
        ("error", c.c_int32),
        ("spin_ns", c.c_uint64),
    ]


STAGGER = 320  # bytes that keep a member from the same place of a page as the one before
MEMBER = PAGE * (1 + BLOCKS) + STAGGER  # bytes of each: its own words, its blocks
_LAYOUT = (
    PAGE,
    MEMBER,
    PAGE,
    c.sizeof(Brought),
    Brought.status.offset,
    c.sizeof(_Step),
    _Head.spin_ns.offset,
    c.sizeof(abi.CaseBlock),
    c.sizeof(abi.ThreadBlock),
    abi.ABI,
)


class Entry(Frozen):
    """What one thread brings back from a kernel besides its block: the kernel's return value and its own counters."""

    status: int
    switches: int
    faults: int


class Step(NamedTuple):
    """One entry: of these members into `kernel`, with the settings of `case`. The first member is 0, the thread that calls."""

    kernel: abi.Kernel
    case: abi.CaseBlock
    members: Sequence[int]
    block: int = KERNELS


def load(path: Path | str) -> c.CDLL:
    """The compiled crew, checked against the layout that is spoken here."""
    library = load_object(path)
    try:
        layout = tuple((c.c_uint32 * len(_LAYOUT)).in_dll(library, "nb_crew_layout"))
    except ValueError as error:
        raise MachineError(
            f"cannot load the crew {path}: {error}", f"{in_shell('rm', path)} and run again, which compiles it anew"
        ) from error
    if layout != _LAYOUT:
        raise MachineError(
            f"the crew {path} has layout {list(layout)}; this numabench speaks {list(_LAYOUT)}",
            f"{in_shell('rm', path)} and run again, which compiles it anew",
        )
    library.nb_crew_start.argtypes = [c.c_void_p, c.c_uint32]
    library.nb_crew_stop.argtypes = [c.c_void_p]
    library.nb_crew_follow.argtypes = [c.c_void_p, c.POINTER(_Step), c.c_uint32]
    library.nb_crew_place.argtypes = [c.c_void_p, *[c.c_void_p] * 4, c.c_uint32]
    for function in (library.nb_crew_start, library.nb_crew_follow, library.nb_crew_place):
        function.restype = c.c_uint32
    return library


class Crew:
    """`size` threads that stay, the calling one among them; each pins itself to the CPU it is given. `library`: where the compiled
    crew is; None: compiled if need be."""

    def __init__(self, size: int, library: Path | str | None = None):
        self.size = size
        self._library = load(library or abi.build("crew").target)
        memory = PAGE * (1 + CASES) + MEMBER * size
        self._memory = Buffer(memory, THP if memory > ALIGN else BASE)  # one entry touches three pages of each member
        self._address = self._memory.address + PAGE * CASES
        self._found = Buffer(PAGE)
        self._head = _Head.from_address(self._address)
        self.cases = [abi.CaseBlock.from_address(self._memory.address + PAGE * number) for number in range(CASES)]
        self.case = self.cases[0]
        for slot in range(abi.DESCRIPTORS):
            self.case.descriptor[slot] = -1
        self.blocks = [self.block(member) for member in range(size)]
        self.lost: frozenset[int] = frozenset()  # CPUs of the last `place` on which no thread could be pinned
        self.crowded = False  # whether two of those threads share a CPU
        self._stop = weakref.finalize(self, stop, self._library, self._address, self._memory)
        self._stop.atexit = False  # threads that sleep go with the process
        running = self._library.nb_crew_start(self._address, size)
        if running < size:
            code = self._head.error
            self.close()
            raise MachineError(
                f"cannot create {size} threads, only {running}: {os.strerror(code)}",
                MORE_PROCESSES,
            )

    def close(self) -> None:
        """End the threads."""
        self._stop()

    def block(self, member: int, kind: int = KERNELS) -> abi.ThreadBlock:
        """What a member is told and finds, where kernels read and write it."""
        return abi.ThreadBlock.from_address(self._address + PAGE + member * MEMBER + (1 + kind) * PAGE)

    def place(self, cpus: tuple[int, ...], groups: tuple[int, ...]) -> None:
        """Pin member i to cpus[i], before any of them enters a kernel: a gate that one never reaches never opens."""
        count = len(cpus)
        array = c.c_int32 * count
        errors = array()
        first: dict[int, int] = {}
        firsts = (c.c_uint32 * count)(*(first.setdefault(cpu, member) for member, cpu in enumerate(cpus)))
        self.crowded = len(first) < count
        self._head.spin_ns = 0 if self.crowded else SPIN_NS
        if not self._library.nb_crew_place(self._address, array(*cpus), array(*groups), firsts, errors, count):
            self.lost = frozenset()
            return
        self.lost = frozenset(cpu for cpu, error in zip(cpus, errors, strict=True) if error)
        raise next(cannot_pin(cpu, error) for cpu, error in zip(cpus, errors, strict=True) if error)

    def follow(self, steps: Sequence[Step]) -> list[c.Array[Brought]]:
        """All steps one after the other, without any Python between them, up to the first in which a kernel says that it cannot. What
        each thread of each step found is there until the next call."""
        sizes = [c.sizeof(Brought) * len(step.members) for step in steps]
        if sum(sizes) > self._found.size:
            self._found.close()
            self._found = Buffer(sum(sizes))
        orders = [(c.c_uint32 * len(step.members))(*step.members) for step in steps]  # alive until the call returns
        told = (_Step * len(steps))()
        found, at = [], self._found.address
        for one, step, order, size in zip(told, steps, orders, sizes, strict=True):
            step.case.crowded = self.crowded and len(step.members) > 1
            one.run = c.cast(step.kernel.run, c.c_void_p)
            one.shared, one.found, one.members = c.addressof(step.case), at, c.addressof(order)
            one.threads, one.block = len(step.members), step.block
            found.append((Brought * len(step.members)).from_address(at))
            at += size
        done = self._library.nb_crew_follow(self._address, told, len(steps))
        return found[: min(done + 1, len(steps))]

    def enter(self, kernel: abi.Kernel, phase: int, members: Sequence[int]) -> list[Entry]:
        """All `members` enter `kernel` at once; their blocks hold what they found. Member order gives thread index."""
        self.case.phase = phase
        (found,) = self.follow([Step(kernel, self.case, members)])
        return [Entry(status=one.status, switches=one.switches, faults=one.faults) for one in found]


def stop(library: c.CDLL, address: int, memory: Buffer) -> None:
    library.nb_crew_stop(address)
    memory.close()
