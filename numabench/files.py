"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path


def write_whole(target: Path, content: str | bytes, exclusive: bool = False) -> None:
    """`content` (text as UTF-8) to `target`: what was there stays whole until the new file is. `exclusive`: FileExistsError where something is there.

    Links are followed; what is no regular file (a pipe, /dev/stdout) is written as it is. Text that UTF-8 has no signs for loses them."""
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        _write_through(target, data)
        return
    target = Path(os.path.realpath(target))
    if mode is not None and not os.access(target, os.W_OK):  # the folder could be written: the file is protected all the same
        raise PermissionError(13, os.strerror(13), str(target))
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, stat.S_IMODE(mode) if mode is not None else 0o666 & ~umask())
        if exclusive:
            os.link(name, target)
            os.unlink(name)
        else:
            os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _write_through(target: Path, data: bytes) -> None:
    """To a device or a pipe, where somebody reads from it: nobody is waited for."""
    try:
        handle = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "nobody reads from this pipe", str(target)) from error
        raise
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb", buffering=0) as file:
        while data:
            data = data[file.write(data) :]


def umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
