"""The pinned threads of a worker process, and one entry of all of them into a kernel.

The main thread is member 0: were it another thread, it would take a time slice from one that measures.
"""

from __future__ import annotations

import ctypes
import threading

from .. import kernel as abi
from ..host.counters import open_schedstat, thread_counters
from ..host.memory import Buffer
from ..host.placement import pin_thread
from ..model import Frozen

PAGE = 4096  # control blocks of two threads are a page apart: no prefetcher couples them


class Entry(Frozen):
    """What one thread brings back from a kernel besides its block: the kernel's return value and its own counters."""

    status: int
    switches: int
    faults: int


class Crew:
    """`size` threads that stay; each pins itself to the CPU it is given and enters C without the GIL."""

    def __init__(self, size: int):
        if ctypes.sizeof(abi.ThreadBlock) > PAGE:
            raise AssertionError("a thread block must fit into its page")
        self._control = Buffer(PAGE * (size + 1))
        ctypes.memset(self._control.address, 0, PAGE * (size + 1))
        self.case = abi.CaseBlock.from_address(self._control.address)
        self.blocks = [abi.ThreadBlock.from_address(self._control.address + PAGE * (i + 1)) for i in range(size)]
        for block in self.blocks:
            block.shared = ctypes.pointer(self.case)
        self._cpus: list[int | None] = [None] * size
        self._wanted: list[int | None] = [None] * size
        self._entries: list[Entry | BaseException | None] = [None] * size
        self._run = None
        self.lost: frozenset[int] = frozenset()  # CPUs of the last `place` on which no thread could be pinned
        self._go = [threading.Semaphore(0) for _ in range(size)]
        self._done = [threading.Semaphore(0) for _ in range(size)]
        self.blocks[0].schedstat = open_schedstat()
        for i in range(1, size):
            threading.Thread(target=self._serve, args=(i,), daemon=True).start()

    def _serve(self, member: int) -> None:
        self.blocks[member].schedstat = open_schedstat()
        while True:
            self._go[member].acquire()
            self._enter(member)
            self._done[member].release()

    def _pin(self, member: int) -> None:
        if self._cpus[member] != self._wanted[member]:
            pin_thread(self._wanted[member])
            self._cpus[member] = self._wanted[member]

    def _enter(self, member: int) -> None:
        try:
            self._pin(member)
            if self._run is None:
                return
            before = thread_counters()
            status = self._run(self.blocks[member])
            after = thread_counters()
            self._entries[member] = Entry(status=status, switches=after[0] - before[0], faults=after[1] - before[1])
        except BaseException as error:  # handed to the main thread, which raises it
            self._entries[member] = error

    def _together(self, members: list[int]) -> None:
        for member in members:
            self._entries[member] = None
        for member in members:
            if member:
                self._go[member].release()
        if 0 in members:
            self._enter(0)
        for member in members:
            if member:
                self._done[member].acquire()
        for member in members:
            if isinstance(self._entries[member], BaseException):
                raise self._entries[member]

    def place(self, cpus: tuple[int, ...], groups: tuple[int, ...]) -> None:
        """Pin member i to cpus[i], before any of them enters a kernel: a gate that one never reaches never opens."""
        for member, (cpu, group) in enumerate(zip(cpus, groups, strict=True)):
            self._wanted[member] = cpu
            self.blocks[member].group = group
        self._run = None
        try:
            self._together(list(range(len(cpus))))
        finally:
            failed = [isinstance(entry, BaseException) for entry in self._entries[: len(cpus)]]
            self.lost = frozenset(cpu for cpu, gone in zip(cpus, failed, strict=True) if gone)

    def enter(self, kernel: abi.Kernel, phase: int, members: list[int]) -> list[Entry]:
        """All `members` enter `kernel` at once; their blocks hold what they found. Member order gives thread index."""
        case = self.case
        case.threads, case.phase, case.arrived = len(members), phase, 0
        ctypes.memset(ctypes.addressof(case.opens), 0, ctypes.sizeof(case.opens))
        for index, member in enumerate(members):
            self.blocks[member].index, self.blocks[member].gates = index, 0
        self._run = kernel.run
        self._together(members)
        return [self._entries[member] for member in members]
