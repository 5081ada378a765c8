"""Compiled objects by what they hold: the hash is part of a name, so that whoever is given the name can tell whether it is still what was
compiled. Imported by worker processes: the standard library only."""

from __future__ import annotations

import ctypes
import hashlib
import os
from typing import TYPE_CHECKING

from ..errors import MachineError
from ..text import in_shell

if TYPE_CHECKING:
    from pathlib import Path

PARCEL = "NUMABENCH_PARCEL"  # variable: the parcel that a launch sent, from which a run takes its kernels (pushed.py)
DIGITS = 32  # of the hash: 128 bits, of which nobody finds a second object


def content_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def hash_in_name(path: Path | str) -> str | None:
    """`NAME-KEY-HASH.so` has one."""
    last = os.path.basename(path).removesuffix(".so").rpartition("-")[2]
    return last if len(last) == DIGITS and not set(last) - set("0123456789abcdef") else None


def read_object(path: Path | str) -> bytes:
    """What an object holds. Raises MachineError where it is no longer what its name says: cut, damaged, or put there by somebody else."""
    content, handle = _opened(path)
    os.close(handle)
    return content


def load_object(path: Path | str) -> ctypes.CDLL:
    """The library that `read_object` would return, and no other: from memory, where nobody can cut or exchange it any more (and where it does
    not matter that a cache is mounted noexec). Descriptors stay open, since the loader takes libraries of one name for one library."""
    content, handle = _opened(path)
    try:
        memory = os.memfd_create(os.path.basename(path))
        left = memoryview(content)
        while left:
            left = left[os.write(memory, left) :]
        library = ctypes.CDLL(f"/proc/self/fd/{memory}")
        os.close(handle)
        return library
    except (OSError, AttributeError):  # a policy against it, a kernel before 3.17: then the file that was looked at
        try:
            return ctypes.CDLL(f"/proc/self/fd/{handle}")
        except OSError as error:
            raise _not_loaded(path, str(error).partition(": ")[2] or str(error)) from error


def _opened(path: Path | str) -> tuple[bytes, int]:
    """What a file holds, its hash compared with its name, and a descriptor of it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb", closefd=False) as file:
            content = file.read()
    except OSError as error:
        raise _not_loaded(path, error.strerror) from error
    wanted = hash_in_name(path)
    if wanted and content_hash(content) != wanted:
        os.close(handle)
        raise _not_loaded(path, "it is not what was compiled: damaged or exchanged")
    return content, handle


def _not_loaded(path: Path | str, why: str) -> MachineError:
    remedy = f"{in_shell('rm', path)} and run again, which compiles it anew"
    if "failed to map segment" in why or "Operation not permitted" in why:
        remedy = "set XDG_CACHE_HOME to a folder whose file system lets programs run (mounted without noexec)"
    return MachineError(f"cannot load {path}: {why}", remedy)
