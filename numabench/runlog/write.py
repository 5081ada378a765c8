"""Appending records to a run log so that a crash at any moment leaves a valid shorter log."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
from pathlib import Path

import msgspec

from ..errors import MachineError
from ..model import Record, TrialRecord
from .rounds import pack_trial

_encoder = msgspec.json.Encoder()
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # file systems without locks (some of clusters): written unlocked


class Journal:
    """One open run log, locked against other writers. Every record is one `write` of one whole line, followed by fsync."""

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._lock()
                self._mend_tail()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise MachineError(
                f"cannot write the run log {self.path}: {error.strerror}; nothing would be kept",
                "choose another folder with --output",
            ) from error

    def _lock(self) -> None:
        """Two runs in one log would both measure what is missing. The lock goes with the process, however that ends."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MachineError(
                f"another run is writing {self.path}; two at once would disturb each other",
                f"wait until it ends (fuser {shlex.quote(str(self.path))} shows its process)",
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _mend_tail(self) -> None:
        """A log cut inside a line (kill -9, power) gets its line end, so that the next record starts cleanly. The NUL before it tells the reader that
        what stands there was cut, whatever it is: a tail of garbage is no reason to refuse the records after it."""
        size = os.fstat(self._fd).st_size
        if size:
            with open(self.path, "rb") as tail:
                tail.seek(size - 1)
                if tail.read(1) != b"\n":
                    os.write(self._fd, b"\0\n")

    def append(self, record: Record) -> None:
        line = _encoder.encode(pack_trial(record) if isinstance(record, TrialRecord) else record) + b"\n"
        start = os.fstat(self._fd).st_size
        try:
            while line:  # a regular file takes the line whole unless the disk fills up
                line = line[os.write(self._fd, line) :]
            os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, start)
            raise MachineError(
                f"cannot append to the run log {self.path}: {error.strerror}; the records before are safe",
                f"make room, then numabench run --resume {shlex.quote(str(self.path))}",
            ) from error

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
