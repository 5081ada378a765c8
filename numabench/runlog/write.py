"""Appending records to a run log so that a crash at any moment leaves a valid shorter log."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import msgspec

from ..errors import MachineError
from ..model import Record, TrialRecord
from ..text import in_shell
from .rounds import pack_trial

_encoder = msgspec.json.Encoder()
CHUNK = 1 << 20
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # file systems without locks (some of clusters): written unlocked


class Journal:
    """One open run log, locked against other writers. Every record is one `write` of one whole line, followed by fsync."""

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._lock()
                self._mend_tail()
                self._size = self._most = os.fstat(self._fd).st_size  # before the last append, and behind it
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
                f"wait until it ends ({in_shell('fuser', self.path)} shows its process)",
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
        self._settle()
        self._same_size()  # behind what another wrote this would be no line
        self._most = self._size + len(line)
        try:
            rest = line
            while rest:  # a regular file takes the line whole unless the disk fills up
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except BaseException as error:  # Ctrl-C as well
            self._settle()
            if isinstance(error, OSError):
                raise MachineError(
                    f"cannot append to the run log {self.path}: {error.strerror}; the records before are safe",
                    f"make room, then {_go_on(self.path)}",
                ) from error
            raise
        self._size = self._most
        self._look()

    def _settle(self) -> None:
        """The line of an append that did not end stands there whole or not at all. An interrupt may come here as well: the next append does it again,
        and does not take this one's line for another program's."""
        there = os.fstat(self._fd).st_size
        if self._size < there < self._most:
            os.ftruncate(self._fd, self._size)
        elif there == self._most:
            self._size = there
        self._most = self._size

    def _look(self) -> None:
        """What was written is where people will look for it: others may have deleted, moved, replaced or cut the file, and a descriptor does not notice."""
        there = self._same_size()
        try:
            named: os.stat_result | None = os.stat(self.path)
        except OSError:
            named = None
        if named and (named.st_dev, named.st_ino) == (there.st_dev, there.st_ino):
            return
        if there.st_nlink:
            kept = os.readlink(f"/dev/fd/{self._fd}")
            raise MachineError(
                f"the run log {self.path} was moved while it was written: it is {kept} now, with all that was measured",
                _go_on(kept),
            )
        kept = str(self._rescue())
        raise MachineError(
            f"the run log {self.path} was deleted while it was written; what was measured stands in {kept} again", _go_on(kept)
        )

    def _same_size(self) -> os.stat_result:
        there = os.fstat(self._fd)
        if there.st_size != self._size:
            raise MachineError(
                f"another program changed the run log {self.path} while it was written: it has {there.st_size} bytes and not {self._size}",
                f"{in_shell('numabench', 'report', self.path)} says what is left of it; then run again with another --output",
            )
        return there

    def _rescue(self) -> Path:
        """A deleted file's content, as long as it is open, under its former name, or beside what has that name now."""
        for path in (self.path, self.path.with_suffix(f".{os.getpid()}.jsonl")):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                copy = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                continue
            except OSError as error:
                raise MachineError(
                    f"the run log {self.path} was deleted while it was written and cannot be written anew: {error.strerror}",
                    "run again with another --output",
                ) from error
            with open(copy, "wb") as file:
                for start in range(0, self._size, CHUNK):
                    file.write(os.pread(self._fd, CHUNK, start))
                file.flush()
                os.fsync(file.fileno())
            return path
        raise MachineError(
            f"the run log {self.path} was deleted while it was written, and others stand in its place",
            "run again with another --output",
        )

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _go_on(path: str | Path) -> str:
    return in_shell("numabench", "run", "--resume", path)
