"""The root directory of a machine's files, which may also come as a tar file."""

from __future__ import annotations

import contextlib
import lzma
import os
import signal
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterator

from ..errors import UsageError
from ..text import in_shell

MOST_MEMBERS, MOST_BYTES = 1_000_000, 1 << 31  # a machine of 2,048 CPUs has some 200,000 files
_FIX = "give a directory that holds sys/ and proc/ of a machine"


@contextlib.contextmanager
def _cleaning_up() -> Iterator[None]:
    """A kill takes the unpacked folder away too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _stopped)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def opened_root(root: str) -> Iterator[str]:
    """The directory with sys/: `root` itself, the only directory in it, or either inside a tar file."""
    if not os.path.exists(root):
        raise UsageError(f"{root} does not exist", _FIX)
    if os.path.isdir(root):
        yield _with_sys(root)
        return
    if not os.access(root, os.R_OK) or not tarfile.is_tarfile(root):
        raise UsageError(f"{root} is neither a directory nor a readable tar file", _FIX)
    if not hasattr(tarfile, "data_filter"):
        raise UsageError(
            "this Python cannot extract tar files safely", f"{in_shell('tar', '-xf', root)}, then give the directory"
        )
    with _cleaning_up(), tempfile.TemporaryDirectory(prefix="numabench-") as directory:
        try:
            with tarfile.open(root) as archive:
                archive.extractall(directory, members=_bounded(archive), filter="data")
                _read_to_end(archive)
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise UsageError(
                f"cannot extract {root}: {error}", f"{in_shell('tar', '-xf', root)}, then give the directory"
            ) from error
        yield _with_sys(directory)


def _bounded(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Files, folders and links; a small archive can unpack to fill a disk."""
    size = 0
    for number, member in enumerate(archive, 1):
        size += member.size
        if number > MOST_MEMBERS or size > MOST_BYTES:
            raise tarfile.TarError(f"over {MOST_MEMBERS:,} files or {MOST_BYTES >> 20} MiB are no /sys and /proc")
        if member.isfile() or member.isdir() or member.issym() or member.islnk():
            yield member


def _read_to_end(archive: tarfile.TarFile) -> None:
    """An archive ends with blocks of zeros: a damaged header before them looks like the end. What compresses it has its checksum at its own end."""
    archive.fileobj.seek(archive.offset)
    rest = archive.fileobj.read(tarfile.BLOCKSIZE)
    if rest.strip(b"\0"):
        raise tarfile.TarError("it is damaged in the middle")
    while archive.fileobj.read(1 << 20):
        pass


def _stopped(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _with_sys(directory: str) -> str:
    inner = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
    for candidate in (directory, *(inner if len(inner) == 1 else ())):
        if os.path.isdir(os.path.join(candidate, "sys")):
            return candidate
    raise UsageError(f"{directory} holds no sys/", _FIX)
