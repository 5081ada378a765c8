"""What benchmarks hand to kernels and has no path that they could know: a file that is open opened once more, and the name of this process."""

from __future__ import annotations

import os

OPENED = "/proc/self/fd"
NAME = "/proc/self/comm"  # that everybody may change of his own process: 15 characters and the line's end


def open_again(number: int, flags: int) -> int:
    """Another opening of the same file, whether or not it has a name; OSError where the file system has no such mode."""
    return os.open(f"{OPENED}/{number}", flags | os.O_CLOEXEC)


def open_name(flags: int) -> int:
    return os.open(NAME, flags | os.O_CLOEXEC)
