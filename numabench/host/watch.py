"""Watching a program run: one's own child, to which terminal, streams and signals belong as if nobody watched, or a process that runs already."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from ..errors import MachineError, UsageError
from ..model import Frozen
from .accounts import Process, Reading, alive, read_process, read_tree, tlb_interrupts
from .state import State, read_state

FIRST, LONGEST = 0.02, 1.0  # s between two readings of a program that has just begun, and later
GROWTH = 4  # a reading after so large a part of the time that has passed: short programs have several
COST = 200  # times the CPU time of a reading pass until the next: many threads are read more rarely
STATE_GROWTH = 2  # times what has passed lies before the next look at the state, which keeps the program waiting for a moment
STATE_FIRST = 0.05  # s
HEARD = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2))
ENDING = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT))
PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)  # which Python ignores, and its children should not
STOPPED = ("sh", "-c", 'kill -STOP $$; exec "$@"', "sh")  # in front of a program that is to wait for its begin
KILLED = 128  # what shells add to the number of the signal that ended a program


class Usage(Frozen):
    """Of a child and all that it waited for, from begin to end, as wait4(2) says: exact. CPU time in s."""

    cpu: float
    minor: int
    major: int
    voluntary: int
    involuntary: int


class Watched(Frozen):
    """`code`: of a child, as shells say it. `cpus`: that it was allowed to use; `tlb`: interrupts of each CPU meanwhile; `spent`: CPU time that watching took (s)."""

    wall: float
    code: int | None
    usage: Usage | None
    interrupted: bool
    state: State | None
    cpus: tuple[int, ...]
    tlb: dict[int, int] | None
    spent: float


def watch_command(command: Sequence[str], take: Callable[[Reading], None], begin: Callable[[int], None] | None = None) -> Watched:
    """Runs a program to its end; its counts are read now and then, and once more when it has ended. `begin` is called with its process before it begins.
    UsageError where it cannot be started."""
    with _deaf() as mask:
        watch = _Watch(take, os.sched_getaffinity(0))  # which the program inherits
        try:
            words = [*(STOPPED if begin else ()), *command]
            child = os.posix_spawnp(words[0], words, os.environ, setsigmask=mask, setsigdef=PYTHONS_OWN)
        except OSError as error:
            raise UsageError(f"{command[0]!r} cannot be started: {error.strerror}", "name a program, as in a shell") from error
        if begin:
            os.waitid(os.P_PID, child, os.WSTOPPED)
            try:
                begin(child)
            except BaseException:
                os.kill(child, signal.SIGKILL)
                raise
            watch = _Watch(take, watch.cpus)  # from now on
            os.kill(child, signal.SIGCONT)
        while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            heard = signal.sigtimedwait(HEARD | {signal.SIGCHLD}, watch.pause())
            if heard is None:
                watch.look(child)
            elif heard.si_signo in HEARD and heard.si_code <= 0:  # by kill(1); of the terminal's the child has its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, heard.si_signo)
        take(read_tree(child))  # of what has ended and was not waited for yet the counts are still there
        _, status, usage = os.wait4(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    return watch.watched(
        code=KILLED - ended if ended < 0 else ended,
        usage=Usage(
            cpu=usage.ru_utime + usage.ru_stime,
            minor=usage.ru_minflt,
            major=usage.ru_majflt,
            voluntary=usage.ru_nvcsw,
            involuntary=usage.ru_nivcsw,
        ),
    )


def watch_process(
    number: int, seconds: float | None, take: Callable[[Reading], None], begin: Callable[[int], None] | None = None
) -> Watched:
    """For so long, to the end of the process, or until interrupted; `begin` is called first. UsageError where there is no such process."""
    process = read_process(number)
    if process is None:
        raise UsageError(f"there is no process {number}", "ps -e lists them")
    if not process.tasks:
        raise MachineError(f"what process {number} does cannot be read", "as its user, or with sudo")
    interrupted = False
    with _deaf():
        if begin:
            begin(number)
        watch = _Watch(take)
        watch.look(number)
        end = float("inf") if seconds is None else watch.began + seconds
        while alive(number, process.began) and (left := end - time.monotonic()) > 0:
            heard = signal.sigtimedwait(HEARD, min(watch.pause(), left))
            if heard is not None and heard.si_signo in ENDING:
                interrupted = True
                break
            if heard is None:
                watch.look(number)
        take(read_tree(number))
    return watch.watched(interrupted=interrupted)


class _Watch:
    """When to look, and what was seen beside what the kernel counts."""

    def __init__(self, take: Callable[[Reading], None], cpus: Collection[int] = ()):
        self.take, self.tlb = take, tlb_interrupts()
        self.spent, self.began = time.process_time(), time.monotonic()
        self.next, self.next_state = self.began + FIRST, self.began + STATE_FIRST
        self.state: State | None = None
        self.cpus: set[int] = set(cpus)

    def pause(self) -> float:
        """s until the next look."""
        return max(0.0, self.next - time.monotonic())

    def look(self, number: int) -> None:
        begin, spent = time.monotonic(), time.thread_time()
        reading = read_tree(number)
        self.take(reading)
        spent = time.thread_time() - spent  # not what a busy machine made of it
        if begin >= self.next_state and reading.processes:
            self.look_closer(max(reading.processes, key=lambda process: process.resident))
            self.next_state = self.began + (begin - self.began) * STATE_GROWTH
        for task in (task.number for process in reading.processes for task in process.tasks):
            with contextlib.suppress(OSError):
                self.cpus |= os.sched_getaffinity(task)
        now = time.monotonic()
        self.next = now + max(min(LONGEST, max(FIRST, (now - self.began) / GROWTH)), COST * spent)

    def look_closer(self, process: Process) -> None:
        state = read_state(process.number, process.resident)
        if state.pages is not None or self.state is None:  # it may be ending
            self.state = state

    def watched(self, **how: Any) -> Watched:
        tlb = tlb_interrupts()
        return Watched(
            wall=time.monotonic() - self.began,
            state=self.state,
            cpus=tuple(sorted(self.cpus)),
            tlb={cpu: tlb[cpu] - self.tlb[cpu] for cpu in tlb.keys() & self.tlb.keys()} if tlb and self.tlb else None,
            spent=time.process_time() - self.spent,
            **({"code": None, "usage": None, "interrupted": False} | how),
        )


@contextlib.contextmanager
def _deaf() -> Iterator[Collection[int]]:
    """Signals are asked for, and interrupt nothing: a Ctrl-C is for who is watched. Yields the signals that were blocked before."""
    children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or a child that ends is forgotten at once
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD | {signal.SIGCHLD})
    try:
        yield before
    finally:
        while signal.sigtimedwait(HEARD | {signal.SIGCHLD}, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, children)
