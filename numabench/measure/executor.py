"""The seam between scheduling and processes: a job goes in, events and a reason for failure come out."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import msgspec

from ..host.memory import BIND
from ..host.placement import numactl_command, starting_on
from ..runlog.rounds import unpack
from .protocol import Began, CaseFailed, Done, Event, Job, Took, TookRound, decode_event, encode

#: The worker is of the numabench that starts it, wherever that is: a checkout that is not installed is no part of what PYTHONSAFEPATH leaves.
START = (
    "import sys; sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]); from numabench.measure.worker import main; main()"
)
PLACE = str(Path(__file__).resolve().parents[2])
#: One thread in any library that a plug-in benchmark might load; the same string hashes in every process; byte code is
#: kept, since compiling these modules in every process would double its start; and a `random.py` in the folder where
#: numabench is called is not taken for the standard library's (from Python 3.11 on, before it has no effect).
QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONSAFEPATH": "1",
}


class Outcome(msgspec.Struct):
    """What came of one process. `failure` is empty when it ended well."""

    events: list[Event]
    failure: str = ""

    @property
    def samples(self) -> list:
        found = []
        for event in self.events:
            if isinstance(event, Took):
                found.append(event.sample)
            elif isinstance(event, TookRound):
                found += unpack(event.benchmark, event.round)
        return found

    @property
    def failed_cases(self) -> dict[str, str]:
        return {e.case: e.reason for e in self.events if isinstance(e, CaseFailed)}

    @property
    def done(self) -> Done | None:
        return next((e for e in self.events if isinstance(e, Done)), None)

    @property
    def in_flight(self) -> str | None:
        """The case that a process was at when it went."""
        return next((e.case for e in reversed(self.events) if isinstance(e, Began)), None) if self.failure else None


class Executor(Protocol):
    """Anything that can execute a job; tests put a fake one here."""

    def execute(self, job: Job, timeout: float) -> Outcome: ...


class ProcessExecutor:
    """Executes each job in a fresh process, started on the first of the job's CPUs and, where that may be asked for, by numactl: its own memory is near.

    Everything goes through unlinked files and not pipes: a reader that woke up at each event would take a time slice
    from the threads that measure.
    """

    def __init__(self, command: list[str] | None = None):
        self.command = command or [sys.executable, "-c", START, PLACE]

    def execute(self, job: Job, timeout: float) -> Outcome:
        with tempfile.TemporaryFile() as inbox, tempfile.TemporaryFile() as outbox, tempfile.TemporaryFile() as errors:
            inbox.write(encode(job))
            inbox.seek(0)
            # numactl calls set_mempolicy, and ends where it may not
            asks = job.placing.how == BIND and "set_mempolicy" not in job.placing.refused
            with starting_on(job.cases[0].cpus[:1]):
                child = subprocess.Popen(
                    [*numactl_command(job.home if asks else None), *self.command],
                    stdin=inbox,
                    stdout=outbox,
                    stderr=errors,
                    start_new_session=True,
                    env=os.environ | QUIET,
                )
            try:
                in_time = wait_quietly(child, timeout)
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
            outbox.seek(0)
            errors.seek(0)
            events, broken = read_events(outbox.read())
            return Outcome(events, why(child.returncode, in_time, timeout, broken, errors.read().decode(errors="replace")))


def wait_quietly(child: subprocess.Popen, timeout: float) -> bool:
    """Whether the process ended within `timeout` seconds. Sleeps in one system call: polling would disturb it."""
    try:
        descriptor = os.pidfd_open(child.pid)
    except (AttributeError, OSError):  # Linux before 5.3, a seccomp filter: `wait` polls, each 50 ms at most
        try:
            return child.wait(timeout) is not None
        except subprocess.TimeoutExpired:
            return False
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000)) and child.wait() is not None
    finally:
        os.close(descriptor)


def read_events(output: bytes) -> tuple[list[Event], str]:
    """Events until the first line that is none; a last line that was cut off is left out."""
    events: list[Event] = []
    for line in output.split(b"\n")[:-1]:
        try:
            events.append(decode_event(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return events, f"spoke out of turn: {line[:80]!r} ({error})"
    return events, ""


def complaint(errors: str) -> str:
    """The line of `errors` that says most: the last one, or numactl's own, which stands before its page of usage."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if "libnuma" in line or "is invalid" in line or line.startswith("numactl:")]
    if told and not any(line.startswith("Traceback (most recent") for line in lines):
        return told[0]
    return lines[-1] if lines else ""


def why(code: int, in_time: bool, timeout: float, broken: str, errors: str) -> str:
    """One line on how a process failed; empty if it did not."""
    last = complaint(errors)
    if not in_time:
        return f"timeout: no end within {timeout:.0f} s"
    if code < 0:
        return f"crashed: killed by {signal.Signals(-code).name}"
    if code:
        return f"crashed: exit code {code}: {last}" if last else f"crashed: exit code {code}"
    return broken
