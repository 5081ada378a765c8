"""The seam between scheduling and processes: a job goes in, events and a reason for failure come out."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import msgspec

from ..errors import MachineError
from ..host.memory import BIND
from ..host.placement import numactl_command
from ..runlog.rounds import unpack
from ..text import in_shell
from .protocol import Asked, Began, CaseFailed, Done, Event, Job, Took, TookRound, decode_event, encode

#: The worker is of the numabench that starts it, wherever that is: a checkout that is not installed is no part of what PYTHONSAFEPATH leaves.
START = "import sys; sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]); from numabench.measure.forks import serve; serve(int(sys.argv[2]))"
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
DOES_NOT_START = "the Python that measures does not start: "
START_S = 30.0  # in which Python starts, on any machine that can measure
LAST_BREATH = 30.0  # s in which the kernel takes back what a killed process has mapped


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
    """Anything that can execute a job, and stops it where nothing comes of it for `timeout` seconds; tests put a fake one here."""

    def execute(self, job: Job, timeout: float) -> Outcome: ...


class Origin:
    """The process that those of one node's home are forked from (`forks.py`), under numactl where `node` is said. MachineError where its
    program may not be executed."""

    def __init__(self, node: int | None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel, self.errors = ours, tempfile.TemporaryFile()  # noqa: SIM115 (until `close`)
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [*numactl_command(node), sys.executable, "-c", START, PLACE, str(os.getpid())],
                    stdin=theirs,
                    stdout=subprocess.DEVNULL,
                    stderr=self.errors,
                    start_new_session=True,
                    env=os.environ | QUIET,
                )
            except OSError as error:
                ours.close()
                self.errors.close()
                if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
                    raise
                raise MachineError(
                    f"{DOES_NOT_START}{sys.executable or 'sys.executable is empty'}: {error.strerror}", program_fix()
                ) from error

    def ask(self, job: Job, files: list[int]) -> None:
        asked = Asked(benchmark=job.benchmark, cpu=job.cases[0].cpus[0])
        with contextlib.suppress(ConnectionError):  # it has ended, as `wait` will find
            socket.send_fds(self.channel, [encode(asked)], files)

    def wait(self, timeout: float) -> int | None:
        """The exit code of the process asked for, or of this one where that has ended; None after `timeout` seconds. Sleeps in one system call:
        polling would disturb what is measured."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return None
        return int(self._heard() or self.process.wait())

    def _heard(self) -> bytes:
        """The next message; nothing where all who could send one have gone."""
        try:
            return self.channel.recv(64)
        except ConnectionError:  # without having read what was asked
            return b""

    def said(self) -> bytes:
        """What it said itself, where it has ended."""
        self.errors.seek(0)
        return self.errors.read() if self.process.poll() is not None else b""

    def close(self) -> None:
        """End it and what it has forked, and wait until both have gone."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(LAST_BREATH)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.channel.settimeout(LAST_BREATH)
        with contextlib.suppress(TimeoutError):
            while self._heard():
                pass
        self.channel.close()
        self.errors.close()


def program_fix() -> str:
    shown = f"{in_shell('ls', '-lL', sys.executable)} shows who may execute it; or " if sys.executable else ""
    return f"{shown}call numabench by a Python that may be executed: python3 -m numabench"


def try_start(node: int | None = None) -> None:
    """Start a process as each run starts them, which hears that nothing is asked of it and ends. MachineError where it does not."""
    origin, code = Origin(node), None
    try:
        origin.channel.shutdown(socket.SHUT_WR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = origin.process.wait(START_S)
        failure = why(code, START_S, "", origin.said().decode(errors="replace"))
    finally:
        origin.close()
    if failure:
        raise MachineError(f"{DOES_NOT_START}{failure}", program_fix())


class ProcessExecutor:
    """Executes each job in a process of its own, which begins on the first of the job's CPUs and, where that may be asked for, under numactl: its own memory is near.

    Everything goes through unlinked files and not pipes: a reader that woke up at each event would take a time slice
    from the threads that measure.
    """

    def __init__(self) -> None:
        self.origins: dict[int | None, Origin] = {}

    def __enter__(self) -> ProcessExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        while self.origins:
            self.origins.popitem()[1].close()

    def origin(self, node: int | None) -> Origin:
        if node in self.origins and self.origins[node].process.poll() is not None:
            self.origins.pop(node).close()
        if node not in self.origins:
            self.origins[node] = Origin(node)
        return self.origins[node]

    def execute(self, job: Job, timeout: float) -> Outcome:
        with tempfile.TemporaryFile() as inbox, tempfile.TemporaryFile() as outbox, tempfile.TemporaryFile() as errors:
            inbox.write(encode(job))
            inbox.seek(0)
            # numactl calls set_mempolicy, and ends where it may not
            asks = job.placing.how == BIND and "set_mempolicy" not in job.placing.refused
            node = job.home if asks else None
            origin, code = self.origin(node), None
            try:
                origin.ask(job, [file.fileno() for file in (inbox, outbox, errors)])
                heard = -1
                while code is None and heard < (heard := os.fstat(outbox.fileno()).st_size):  # slow is not stuck
                    code = origin.wait(timeout)
                told = origin.said()
            finally:
                if code is None:  # too late, or interrupted
                    self.origins.pop(node).close()
            for file in (outbox, errors):
                file.seek(0)
            events, broken = read_events(outbox.read())
            told = (told + errors.read()).decode(errors="replace")
            return Outcome(events, why(code, timeout, broken, told))


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


def why(code: int | None, timeout: float, broken: str, errors: str) -> str:
    """One line on how a process failed, of which `code` is None where it was too late; empty if it did not."""
    last = complaint(errors)
    if code is None:
        return f"timeout: neither a sample nor the end within {timeout:.0f} s"
    if code < 0:
        return f"crashed: killed by {signal.Signals(-code).name}"
    if code:
        return f"crashed: exit code {code}: {last}" if last else f"crashed: exit code {code}"
    return broken
