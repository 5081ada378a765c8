"""What the kernel counts of processes and their threads: CPU time, switches, faults, migrations, calls that read or write.

Read as anybody may of processes of their own; what the kernel does not say is None.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator

from ..model import Frozen

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
_NS = 1e-9
_SWITCHES = re.compile(rb"^(?:non)?voluntary_ctxt_switches:\s*(\d+)$", re.MULTILINE)
_MIGRATIONS = re.compile(rb"^se\.nr_migrations\s*:\s*(\d+)$", re.MULTILINE)
_CALLS = re.compile(rb"^sysc[rw]: (\d+)$", re.MULTILINE)
#: Fields of `stat` behind the name of the program (proc_pid_stat(5), whose numbers begin with 1 and have two before it).
_STATE, _MINOR, _CHILD_MINOR, _MAJOR, _CHILD_MAJOR, _USER, _CHILD_SYSTEM, _BEGAN, _RSS, _CPU = 0, 7, 8, 9, 10, 11, 14, 19, 21, 36
ZOMBIE = b"Z"


class Task(Frozen):
    """A thread, since it began. Times in s."""

    number: int
    began: int  # ticks since boot: a number may be given again
    ran: float | None
    waited: float | None  # for a CPU, while it could have run
    voluntary: int  # context switches: it slept
    involuntary: int  # it could have gone on
    migrations: int | None
    cpu: int  # that it ran on last


class Process(Frozen):
    """A process, since it began. CPU time (s), faults and calls have those of its children in them that ended and were waited for."""

    number: int
    began: int
    cpu: float
    minor: int  # page faults without a disk
    major: int
    calls: int | None  # that read or write
    resident: int  # bytes
    tasks: tuple[Task, ...]


class Reading(Frozen):
    """Processes at one moment (s of the monotonic clock), the one that was asked for first."""

    at: float
    processes: tuple[Process, ...]


def read_tree(root: int) -> Reading:
    """The process and all that it started, as far as they live and were not given to another parent; nobody where it is gone. Never this process itself."""
    processes, numbers, seen = [], [root], {os.getpid()}
    for number in numbers:
        if number in seen:
            continue
        seen.add(number)
        if process := read_process(number):
            processes.append(process)
            numbers += _children(number)
    return Reading(at=time.monotonic(), processes=tuple(processes))


def read_process(number: int) -> Process | None:
    fields = _fields(f"/proc/{number}/stat")
    if fields is None:
        return None
    calls = _CALLS.findall(content(f"/proc/{number}/io"))
    return Process(
        number=number,
        began=int(fields[_BEGAN]),
        cpu=sum(map(int, fields[_USER : _CHILD_SYSTEM + 1])) * TICK,
        minor=int(fields[_MINOR]) + int(fields[_CHILD_MINOR]),
        major=int(fields[_MAJOR]) + int(fields[_CHILD_MAJOR]),
        calls=sum(map(int, calls)) if calls else None,
        resident=int(fields[_RSS]) * os.sysconf("SC_PAGESIZE"),
        tasks=tuple(filter(None, (_task(number, int(task)) for task in _tasks(number)))),
    )


def alive(number: int, began: int) -> bool:
    """Whether that process still runs: another one may have its number, and one that ended waits for its parent."""
    fields = _fields(f"/proc/{number}/stat")
    return fields is not None and int(fields[_BEGAN]) == began and fields[_STATE] != ZOMBIE


def _task(process: int, number: int) -> Task | None:
    folder = f"/proc/{process}/task/{number}"
    fields, switches = _fields(f"{folder}/stat"), _SWITCHES.findall(content(f"{folder}/status"))
    if fields is None or len(switches) != 2:
        return None
    spent = content(f"{folder}/schedstat").split()
    moved = _MIGRATIONS.search(content(f"{folder}/sched"))
    return Task(
        number=number,
        began=int(fields[_BEGAN]),
        ran=int(spent[0]) * _NS if spent else None,
        waited=int(spent[1]) * _NS if spent else None,
        voluntary=int(switches[0]),
        involuntary=int(switches[1]),
        migrations=int(moved[1]) if moved else None,
        cpu=int(fields[_CPU]),
    )


def _tasks(process: int) -> Collection[str]:
    try:
        return os.listdir(f"/proc/{process}/task")
    except OSError:
        return ()


def _children(process: int) -> Iterator[int]:
    for task in _tasks(process):
        yield from map(int, content(f"/proc/{process}/task/{task}/children").split())


def _fields(path: str) -> list[bytes] | None:
    """Of a `stat`, those behind the program's name, which may have anything in it."""
    return content(path).rpartition(b")")[2].split() or None


def content(path: str) -> bytes:
    """Empty where it is gone, not there or not for us."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def tlb_interrupts() -> dict[int, int] | None:
    """{CPU: interrupts since boot that made it forget addresses}, whoever caused them; None where the kernel does not count them."""
    lines = content("/proc/interrupts").splitlines()
    row = next((line.split() for line in lines if line.lstrip().startswith(b"TLB:")), None)
    if row is None:
        return None
    cpus = [int(name[3:]) for name in lines[0].split()]
    return {cpu: int(count) for cpu, count in zip(cpus, row[1:], strict=False) if count.isdigit()}
