"""Starting processes where a plan wants them, and making sure that none outlives its parent."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterable

from ..errors import MachineError
from . import calls

MORE_PROCESSES = "raise the limit on processes (ulimit -u; the pids limit of a container or unit)"
_MPOL_PREFERRED = 1
_PR_SET_PDEATHSIG = 1
_MAP_NORESERVE = 0x4000
_SHIFTS, _HOLES = 1 << 14, 256  # pages by which mappings are shifted at most; holes of one size that are looked for


def refused_cpus(cpus: Iterable[int]) -> dict[int, OSError]:
    """Those that no thread of this process can be pinned to, and the kernel's answer. Each is tried: files, and the affinity that was
    inherited (isolated CPUs are left out of it), do not tell."""
    before, refused = os.sched_getaffinity(0), {}
    moved = False
    try:
        for cpu in cpus:
            try:
                os.sched_setaffinity(0, {cpu})
                moved = True
            except (OSError, ValueError, OverflowError) as error:  # a number beyond every kernel's
                refused[cpu] = error if isinstance(error, OSError) else OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    finally:
        if moved:
            os.sched_setaffinity(0, before)
    return refused


def numactl_command(node: int | None) -> list[str]:
    """The prefix that starts a process with heap, stacks and page tables on `node` from its first page on; nothing where there is one memory
    (None) or no numactl: a process that begins near that node asks for the rest itself (`prefer_node`)."""
    return [] if node is None or not shutil.which("numactl") else ["numactl", f"--preferred={node}", "--"]


def prefer_node(node: int) -> bool:
    """Ask for heap, stacks and page tables of this process on `node`; False where that may not be asked, and they are near where it runs."""
    return calls.set_mempolicy(_MPOL_PREFERRED, (node,)) == 0


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent goes, however it goes; checks that it has not gone already."""
    calls.libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent process is gone")


def fill_holes() -> None:
    """Take the room between what is mapped, so that whatever is mapped from here on lies below all of it."""
    _, bottom = _take(_SHIFTS * mmap.PAGESIZE, keep=False)
    for size in (1 << 20, 1 << 16, mmap.PAGESIZE):
        for _ in range(_HOLES):
            if _take(size)[1] <= bottom:
                break


def shift_mappings() -> None:
    """What is mapped from here on lies at addresses of its own, as in a process that was started and not forked: kernels, their stacks and their memory."""
    _take(random.SystemRandom().randint(1, _SHIFTS) * mmap.PAGESIZE)


def _take(size: int, keep: bool = True) -> tuple[int, int]:
    """(begin, end) of so many bytes of addresses, which nothing may be read from or written to."""
    address = calls.libc.mmap(None, size, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)
    if address == calls.MAP_FAILED:  # a limit on addresses: they stay as they are
        return 0, 0
    if not keep:
        calls.libc.munmap(address, size)
    return address, address + size


def cannot_pin(cpu: int, code: int) -> MachineError:
    """Why no thread can be on this CPU."""
    if code == errno.EPERM:  # a filter of system calls
        return MachineError(f"this process may not choose its CPUs, not even CPU {cpu}: {os.strerror(code)}", "numabench check")
    return MachineError(
        f"cannot run on CPU {cpu}: {os.strerror(code)}; it is offline or not allowed here",
        "see allowed_cpus in: numabench machine --format json",
    )


def start(thread: threading.Thread) -> None:
    """MachineError where there may be no more threads."""
    try:
        thread.start()
    except RuntimeError as error:
        raise MachineError(f"cannot create a thread: {error}", MORE_PROCESSES) from error


def pin_thread(cpu: int) -> None:
    """Pin the calling thread. A CPU that went offline or is forbidden is an error that names it."""
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        raise cannot_pin(cpu, error.errno) from error
