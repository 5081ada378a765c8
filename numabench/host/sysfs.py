"""Text files of /proc and /sys below a root directory, and the kernel's notations for sets of CPUs.

A `Tree` is the only door to these files, so that a copy of another machine's files reads like the live ones. A file
that is missing is None; text that makes no sense is None and a line in `Tree.warnings`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from functools import lru_cache

from ..errors import MachineError
from ..text import REPLACEMENT, UNPRINTABLE
from ..units import MOST_CPUS

CpuSet = frozenset[int]

LARGEST_FILE = 1 << 26  # bytes of one file that are read: /proc/interrupts of 2,048 CPUs has some 30 MB
_MASK_GROUP_DIGITS = 8  # Documentation/core-api/printk-formats.rst, %*pb: groups of 32 bits, 8 hexadecimal digits
_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# A file of an offline CPU, of a driver without data or of a process that has ended: as good as missing.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.ENODATA}
# This process is at a limit of its own: the file may be there.
_AT_A_LIMIT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@lru_cache(maxsize=8192)
def parse_list(text: str) -> CpuSet:
    """`0-3,8` as a set; empty text and `(null)` (nohz_full of kernels before 5.x) are the empty set. ValueError."""
    cpus: set[int] = set()
    for part in text.split(","):
        part = part.strip()
        if part in ("", "(null)"):
            continue
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= low <= high < MOST_CPUS:
            raise ValueError(f"range {part!r} runs backwards or beyond every machine")
        cpus.update(range(low, high + 1))
    return frozenset(cpus)


@lru_cache(maxsize=8192)
def parse_mask(text: str) -> CpuSet:
    """`3,0000ffff` as a set: 32-bit groups, the highest first and possibly short. ValueError."""
    if len(text) > MOST_CPUS:
        raise ValueError("a mask of more CPUs than any machine has")
    groups = [group.strip().zfill(_MASK_GROUP_DIGITS) for group in text.split(",")]
    bits = bin(int("".join(groups), 16))[:1:-1]
    return frozenset(cpu for cpu, bit in enumerate(bits) if bit == "1")


def parse_size(text: str) -> int:
    """Bytes of a cache: `32K`, `8M`, `103079215104` (memory-side caches have no suffix). ValueError."""
    match = re.fullmatch(r"(\d+)\s*([KMG]?)B?", text)
    if not match:
        raise ValueError(f"{text!r} is not a size")
    return int(match[1]) * _SUFFIXES[match[2]]


class Tree:
    """Files below `root`; paths are given without a leading slash."""

    def __init__(self, root: str = "/"):
        self.root = os.path.join(os.fspath(root), "")
        self.live = os.path.realpath(self.root) == "/"
        self._warnings: dict[str, list[str]] = {}
        self._inside: dict[str, bool] = {}  # folders of a snapshot that were looked at

    def warn(self, text: str, place: str = "") -> None:
        """Keep an oddity; the same one at many places becomes one line."""
        self._warnings.setdefault(text, []).append(place)

    @property
    def warnings(self) -> list[str]:
        def line(text: str, places: list[str]) -> str:
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            return f"{text} ({places[0]}{more})" if places[0] else text

        return [line(text, places) for text, places in self._warnings.items()]

    def read(self, path: str) -> str | None:
        """Text without the NUL bytes and the white space around it that old kernels leave; None when missing."""
        content = self._content(path, _ABSENT)
        if content is None:
            return None
        text = content.replace(b"\0", b"").decode("utf-8", "replace").strip()
        return text if text.isprintable() else UNPRINTABLE.sub(lambda sign: sign[0] if sign[0] in "\n\t" else REPLACEMENT, text)

    def read_bytes(self, path: str) -> bytes | None:
        """A table of the firmware as it is; None when missing, or for root alone to read."""
        return self._content(path, _ABSENT | {errno.EACCES, errno.EPERM})

    def _content(self, path: str, absent: set[int]) -> bytes | None:
        if not self.live and self._outside(path):
            return None
        try:
            handle = os.open(self.root + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe in a snapshot has no writer
        except OSError as error:
            return self._missing(path, error, absent)
        try:
            if not self.live and not stat.S_ISREG(os.fstat(handle).st_mode):
                self.warn("no regular file: ignored", path)
                return None
            chunks, size = [], 0
            while (chunk := os.read(handle, 1 << 16)) and size < LARGEST_FILE:
                chunks.append(chunk)
                size += len(chunk)
        except OSError as error:
            return self._missing(path, error, absent)
        finally:
            os.close(handle)
        return b"".join(chunks)

    def _outside(self, path: str) -> bool:
        """Whether links lead out of a snapshot: what they show belongs to the machine that reads it."""
        folder = os.path.dirname(path)
        if folder not in self._inside:
            self._inside[folder] = self._within(folder)
        if self._inside[folder] and (not os.path.islink(self.root + path) or self._within(path)):
            return False
        self.warn("a link leads out of the snapshot: ignored", path)
        return True

    def _within(self, path: str) -> bool:
        top = os.path.join(os.path.realpath(self.root), "")
        return os.path.join(os.path.realpath(self.root + path), "").startswith(top)

    def _missing(self, path: str, error: OSError, absent: set[int] = _ABSENT) -> None:
        """Raises MachineError where nothing is known of the file: a machine that is taken for having none of these would be another one."""
        if error.errno in _AT_A_LIMIT:
            raise MachineError(
                f"cannot read {self.root}{path}: {error.strerror}; without it this machine would be taken for another",
                "allow more memory (ulimit -v)" if error.errno == errno.ENOMEM else "allow more open files (ulimit -n 1024)",
            ) from error
        if error.errno not in absent:
            self.warn(f"cannot read: {error.strerror}", path)

    def parsed(self, path: str, parse):
        """`parse(text)` of a file; None when it is missing, or odd (then with a warning)."""
        text = self.read(path)
        return None if text is None else self.understood(text, parse, path)

    def understood(self, text: str, parse, path: str):
        """`parse(text)`, or None and a warning; for a part of the file at `path`."""
        try:
            return parse(text)
        except ValueError:
            self.warn(f"a file named {os.path.basename(path)!r} holds {text[:40]!r}: ignored", path)
            return None

    def number(self, path: str) -> int | None:
        return self.parsed(path, int)

    def cpu_list(self, path: str) -> CpuSet | None:
        return self.parsed(path, parse_list)

    def cpu_set(self, map_path: str, list_path: str) -> CpuSet | None:
        """The mask, or without one the list. Where both exist and differ the mask was right every time it was
        seen in real files (shared_cpu_list of Linux 2.6.32 on Opteron 6276), so it wins, with a warning."""
        mask, listed = self.parsed(map_path, parse_mask), self.cpu_list(list_path)
        if mask is not None and listed is not None and mask != listed:
            names = f"{os.path.basename(list_path)} and {os.path.basename(map_path)}"
            self.warn(f"{names} disagree: the mask is taken", map_path)
        return listed if mask is None else mask

    def names(self, path: str) -> list[str]:
        """Directory entries, sorted; empty when there is no such directory."""
        if not self.live and self._outside(path):
            return []
        try:
            return sorted(os.listdir(self.root + path))
        except OSError as error:
            self._missing(path, error)
            return []

    def numbered(self, path: str, prefix: str) -> dict[int, str]:
        """Entries `prefixN` of a directory as {N: path of the entry}, ascending."""
        found = (re.fullmatch(prefix + r"([0-9]{1,10})", name) for name in self.names(path))
        numbers = sorted(int(match[1]) for match in found if match)
        return {number: f"{path}/{prefix}{number}" for number in numbers}


def cgroup_directories(tree: Tree, controller: str) -> list[tuple[list[str], bool]]:
    """Per hierarchy that can hold `controller`: the directories from this process's own up to the mount point, and
    whether it is version 2.

    Mount points come from proc/mounts, the own path from proc/self/cgroup, without that from proc/self/cpuset.
    """
    own = {}
    for line in (tree.read("proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        own.update(dict.fromkeys(controllers.split(","), path.strip()))
    fallback = tree.read("proc/self/cpuset") or "/"
    found = []
    for line in (tree.read("proc/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        _, point, kind, options = fields[:4]
        version2 = kind == "cgroup2"
        if version2 or kind == controller or (kind == "cgroup" and controller in options.split(",")):
            path = own.get("" if version2 else controller, fallback)
            steps = [step for step in path.split("/") if step not in ("", "..")]
            depths = range(len(steps), -1, -1)
            found.append((["/".join([point.strip("/"), *steps[:depth]]) for depth in depths], version2))
    return found


def cgroup_limit(tree: Tree, noun: str) -> CpuSet | None:
    """CPUs (`noun` = "cpus") or memory nodes ("mems") that the cgroup of this process leaves; None without a limit.

    A directory without a filled file inherits from its parent (cgroup-v2.rst, Cpuset Interface Files).
    """
    names_v1 = (f"cpuset.effective_{noun}", f"cpuset.{noun}", f"effective_{noun}", noun)
    limit = None
    for directories, version2 in cgroup_directories(tree, "cpuset"):
        names = (f"cpuset.{noun}.effective",) if version2 else names_v1
        sets = (tree.cpu_list(f"{directory}/{name}") for directory in directories for name in names)
        here = next((cpus for cpus in sets if cpus), None)
        if here is not None:
            limit = here if limit is None else limit & here
    return limit
