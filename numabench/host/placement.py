"""Starting processes where a plan wants them, and making sure that none outlives its parent."""

from __future__ import annotations

import ctypes as c
import errno
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..errors import MachineError
from . import calls

MORE_PROCESSES = "raise the limit on processes (ulimit -u; the pids limit of a container or unit)"
_MPOL_PREFERRED = 1
_PR_SET_PDEATHSIG = 1


@contextmanager
def starting_on(cpus: Iterable[int]) -> Iterator[None]:
    """Processes that are started within it begin on these CPUs, near which the kernel then finds memory for their heap and stacks.

    Without effect where none of them may be used: their own threads will say so, each of its CPU.
    """
    before, wanted, moved = os.sched_getaffinity(0), {*cpus}, False
    try:
        os.sched_setaffinity(0, wanted)
        moved = True
    except OSError as error:
        if before & wanted:
            raise MachineError(f"no process can be started on CPU {min(wanted)}: {error.strerror}", "numabench check") from error
    try:
        yield
    finally:
        if moved:
            os.sched_setaffinity(0, before)


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
    c.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent process is gone")


def cannot_pin(cpu: int, code: int) -> MachineError:
    """Why no thread can be on this CPU."""
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
