"""Machines certified beside each other: a process for each, which says what it does. Ended early, it takes its guest with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess

from . import guest
from .errors import SimulationError

LOOK = 5.0  # s
STEP, DONE, FOUND, BROKEN = (
    "step",
    "done",
    "found",
    "broken",
)  # what a process says: what it does, a boot is over, its findings, why there are none


@dataclass
class Job:
    """One subject that is being certified. `step`: what it does; `boots`: how many are over."""

    subject: object
    process: BaseProcess
    ear: connection.Connection
    began: float = field(default_factory=time.monotonic)
    step: str = "starting"
    boots: int = 0
    result: list | str | None = None  # findings, or why there are none

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


Work = Callable[[object, Callable[[str], None], Callable[[], None]], list]  # subject, step, done -> findings


def beside(work: Work, subjects: Sequence, jobs: int, tell: Callable[[Sequence[Job]], None]) -> Iterator[Job]:
    """`work` on each of the subjects, `jobs` at a time; yields those that have ended. `tell` is called with those that run, every LOOK at least."""
    left, running = list(subjects), []
    spinners = max(1, len(os.sched_getaffinity(0)) // jobs)
    try:
        while left or running:
            while left and len(running) < jobs:
                running.append(start(work, left.pop(0), spinners))
            tell(running)
            ready = connection.wait([job.ear for job in running], LOOK)
            for job in [job for job in running if job.ear in ready]:
                if not hear(job):
                    job.process.join()
                    running.remove(job)
                    yield job
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.join()


def start(work: Work, subject: object, spinners: int) -> Job:
    context = get_context("spawn")  # this process may have threads
    ear, mouth = context.Pipe(duplex=False)
    process = context.Process(target=certify_one, args=(work, subject, mouth, spinners, os.getpid()))
    process.start()
    mouth.close()
    return Job(subject, process, ear)


def hear(job: Job) -> bool:
    """Takes what a job says; false when it has nothing more to say."""
    try:
        what, value = job.ear.recv()
    except EOFError:
        job.process.join()
        if job.result is None:
            job.result = f"its process ended with exit code {job.process.exitcode}"
        return False
    if what == STEP:
        job.step = value
    elif what == DONE:
        job.boots += 1
    else:
        job.result = value
    return True


def certify_one(work: Work, subject: object, mouth: connection.Connection, spinners: int, parent: int) -> None:
    """In the process: Ctrl-C is the parent's affair, which then ends this one; if the parent dies, this one does, and its guest with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    guest.die_with_parent()
    if os.getppid() != parent:
        return
    guest.spinners = spinners
    with suppress(KeyboardInterrupt, BrokenPipeError):
        try:
            mouth.send((FOUND, work(subject, lambda text: mouth.send((STEP, text)), lambda: mouth.send((DONE, None)))))
        except SimulationError as error:
            mouth.send((BROKEN, str(error)))
