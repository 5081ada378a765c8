"""CPUs that a run has for itself: two runs on the same ones would measure each other.

The claim is a lock on one byte per CPU of a file in the user's cache. The kernel drops it with the process, however that ends, and knows who
has it; the file's content means nothing. Runs of other users and in other containers are not seen: `health` looks at the load.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from ..errors import MachineError
from ..units import format_cpus
from .cache import cache_folder, open_trusted
from .machine import sanitised

_FLOCK = struct.Struct("hhqqi4x")  # struct flock with offsets of 64 bits
_SET = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_TAKEN = (errno.EACCES, errno.EAGAIN)


@contextmanager
def claimed(cpus: Iterable[int]) -> Iterator[None]:
    """Raises MachineError where another process of this user has one of `cpus`."""
    folder = open_trusted(cache_folder("runs"), own=2)
    try:  # homes are shared by machines, CPUs are not
        file = os.open(f"{sanitised(os.uname().nodename)}.lock", _SET, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        for _, run in itertools.groupby(enumerate(sorted(cpus)), lambda pair: pair[1] - pair[0]):
            neighbours = [cpu for _, cpu in run]
            take(file, neighbours[0], len(neighbours))
        yield
    finally:
        os.close(file)


def take(file: int, first: int, count: int) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except OSError as error:
        if error.errno in _TAKEN:
            raise taken(file, first, count) from error
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):  # a file system without locks has none to give
            raise


def taken(file: int, first: int, count: int) -> MachineError:
    """Who has the CPUs, as far as this process can see it."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, count, 0)
    _, _, at, length, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    both = range(max(at, first), min(at + (length or count), first + count))
    cpus = f"CPU{'s' * (len(both) > 1)} {format_cpus(both)}"
    return MachineError(
        f"another run measures on {cpus}: {holder(pid)}; two at once would measure each other",
        f"wait until it ends{f', or end it (kill {pid})' if pid > 0 else ''}; on other CPUs (--cpus) both may run",
    )


def holder(pid: int) -> str:
    """A process, since when it runs, and the log that it writes."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/uptime") as file:
            age = float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
        began = datetime.fromtimestamp(datetime.now().timestamp() - age).strftime("%Y-%m-%d %H:%M:%S")
        files = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:  # it has ended meanwhile, or is in another container
        return "a process that cannot be seen from here" if pid <= 0 else f"process {pid}"
    log = next((name for name in files if name.endswith(".jsonl")), None)
    return f"process {pid}, begun {began}" + (f", writes {log}" if log else "")
