"""What benchmarks hand to kernels and has no path that they could know: a file that is open opened once more, the name of this process, a folder on each file system."""

from __future__ import annotations

import os
import re
import tempfile

OPENED = "/proc/self/fd"
MOUNTS = "/proc/self/mountinfo"
NAME = "/proc/self/comm"  # that everybody may change of his own process: 15 characters and the line's end


def open_again(number: int, flags: int) -> int:
    """Another opening of the same file, whether or not it has a name; OSError where the file system has no such mode."""
    return os.open(f"{OPENED}/{number}", flags | os.O_CLOEXEC)


def open_name(flags: int) -> int:
    return os.open(NAME, flags | os.O_CLOEXEC)


def file_system_of(path: str) -> str:
    """The type of the file system that a folder is on, as Linux calls it (`ext4`, `tmpfs`); empty where that is not told."""
    folder, found = os.path.realpath(path), ("", "")
    try:
        with open(MOUNTS) as file:
            mounts = file.read().splitlines()
    except OSError:
        return ""
    for line in mounts:
        before, _, behind = line.partition(" - ")
        at = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])
        if os.path.commonpath((folder, at)) == at and len(at) >= len(
            found[0]
        ):  # of two at one place the later one covers the other
            found = at, behind.partition(" ")[0]
    return found[1]


def file_systems() -> dict[str, str]:
    """A folder on each type of file system among those meant for temporary files and for one's own, where files can be made: the first one of a type."""
    found: dict[str, str] = {}
    for folder in (tempfile.gettempdir(), "/dev/shm", "/var/tmp", os.path.expanduser("~"), os.getcwd()):
        if os.access(folder, os.W_OK | os.X_OK) and (kind := file_system_of(folder)):
            found.setdefault(kind, folder)
    return found
