"""The root directory of a machine's files, which may also come as a tar file."""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
from collections.abc import Iterator

from ..errors import UsageError

_FIX = "give a directory that holds sys/ and proc/ of a machine"


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
        raise UsageError("this Python cannot extract tar files safely", f"tar -xf {root}, then give the directory")
    with tempfile.TemporaryDirectory(prefix="numabench-") as directory:
        try:
            with tarfile.open(root) as archive:
                archive.extractall(directory, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UsageError(f"cannot extract {root}: {error}", f"tar -xf {root}, then give the directory") from error
        yield _with_sys(directory)


def _with_sys(directory: str) -> str:
    inner = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
    for candidate in (directory, *(inner if len(inner) == 1 else ())):
        if os.path.isdir(os.path.join(candidate, "sys")):
            return candidate
    raise UsageError(f"{directory} holds no sys/", _FIX)
