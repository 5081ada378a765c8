"""What a tracer writes of a program while it runs, line by line, without a file that grows."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

from ..errors import MachineError
from .commands import ask

#: Calls that bring bytes out of a descriptor, that bring some into one, and between two: which of these, in the order of the arguments, is the source.
READS = ("read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg")
WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg")
BETWEEN = {"sendfile": 1, "splice": 0, "copy_file_range": 0}
CHUNK = 1 << 16  # bytes
TRIAL_S = 10.0
WITHOUT = "or leave --transfers away"


def usable_strace(options: Callable[[str, str], Sequence[str]]) -> str:
    """The path of a strace that can do what `options` (of its path and an output) ask for. MachineError where there is none, or where it may not trace."""
    path = shutil.which("strace")
    if path is None:
        raise MachineError(
            "there is no strace here, which sees how bytes are moved", f"sudo apt install strace (dnf, zypper, pacman), {WITHOUT}"
        )
    tried = ask([*options(path, os.devnull), "true"], TRIAL_S)
    if tried.code or tried.errors:
        why = tried.errors.splitlines()[0] if tried.errors else "no answer" if tried.code is None else f"exit code {tried.code}"
        raise MachineError(
            f"strace cannot be used here: {why}",
            f"allow ptrace (kernel.yama.ptrace_scope, seccomp of a container), strace 5.3 or later, {WITHOUT}",
        )
    return path


class Traced:
    """Where a tracer is to write, and the thread that reads it."""

    def __init__(self, path: str, reader: threading.Thread, kept: int):
        self.path, self._reader, self._kept = path, reader, kept

    def finish(self, patience: float | None = None) -> bool:
        """Waits until the tracer has nothing more to write, which is when all that it follows has ended; whether that is so."""
        if self._kept >= 0:
            os.close(self._kept)
            self._kept = -1
        self._reader.join(patience)
        return not self._reader.is_alive()


@contextlib.contextmanager
def traced(add: Callable[[str], None]) -> Iterator[Traced]:
    """`add` is called with each line, by a thread of its own which hears no signals."""
    with tempfile.TemporaryDirectory(prefix="numabench-") as folder:
        path = os.path.join(folder, "calls")
        os.mkfifo(path, 0o600)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        kept = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # so that it does not end before the tracer has begun
        os.set_blocking(reading, True)
        reader = threading.Thread(target=_read, args=(reading, add), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        reader.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        found = Traced(path, reader, kept)
        try:
            yield found
        finally:
            found.finish(0.0)


def _read(descriptor: int, add: Callable[[str], None]) -> None:
    with open(descriptor, buffering=CHUNK, errors="replace") as lines:
        for line in lines:
            add(line.rstrip("\n"))
