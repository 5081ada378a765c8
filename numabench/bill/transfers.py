"""Transfers by the path that they took, from what strace writes of each call."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ..host.tracing import BETWEEN, READS, WRITES
from ..model import Frozen
from .prices import CHUNKS

SOURCES = {**BETWEEN, "sendfile64": BETWEEN["sendfile"], "tee": 0}
TRACED = (*WRITES, *READS, *SOURCES, "vmsplice")
COPIED = "read + write"  # a read of a file and, as the thread's next transfer, a write of as many bytes
_LINE = re.compile(r"(?:(\d+) +)?(\w+)\((.*)\) += (-?\d+)")
_BEGUN = re.compile(r"(\d+) +(\w+\(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_DESCRIPTOR = re.compile(r"(?:^|, )\d+<((?:->|[^<>])*)>")
_KINDS = (
    ("TCP", "tcp"),
    ("UNIX", "unix"),
    ("UDP", "udp"),
    ("pipe:", "pipe"),
    ("/dev/", "device"),
    ("/", "file"),
    ("socket:", "socket"),
)


class Moved(Frozen):
    """Transfers of one path from one kind of descriptor to another (`memory`: of the program)."""

    path: str
    source: str
    target: str
    calls: int
    bytes: int


def strace_command(strace: str, output: str) -> list[str]:
    """To be put before the program, which stays the child of whoever starts it. Calls that are not traced cost what they always do."""
    calls = "trace=" + ",".join(f"?{name}" for name in TRACED)
    return [strace, "-D", "-f", "--seccomp-bpf", "-qq", "-s", "0", "-yy", "-e", "signal=none", "-e", calls, "-o", output, "--"]


class Tally:
    """Of lines as they come."""

    def __init__(self) -> None:
        self.traced = 0
        self.moved: Counter[tuple[str, str, str]] = Counter()  # calls
        self.bytes: Counter[tuple[str, str, str]] = Counter()
        self.copies: Counter[tuple[str, int]] = (
            Counter()
        )  # of files by read + write: (target, the chunk with a price that is nearest) -> times
        self._begun: dict[str, str] = {}
        self._read: dict[str, int] = {}  # thread -> bytes of a file that its last transfer read

    def add(self, line: str) -> None:
        if begun := _BEGUN.match(line):
            self._begun[begun[1]] = begun[2]
            return
        if resumed := _RESUMED.match(line):
            line = f"{resumed[1]} {self._begun.pop(resumed[1], '')}{resumed[2]}"
        if call := _LINE.match(line):
            self.traced += 1
            self._count(call[1] or "", call[2], call[3], int(call[4]))

    def _count(self, thread: str, name: str, arguments: str, moved: int) -> None:
        before = self._read.pop(thread, 0)
        kinds = [kind(each) for each in _DESCRIPTOR.findall(arguments)]
        if moved <= 0 or not kinds:
            return
        if name in READS:
            if kinds[0] == "file":
                self._read[thread] = moved
            self._move(name, kinds[0], "memory", moved)
        elif name in WRITES and kinds[0] != "file" and before == moved:
            self._move(COPIED, "file", kinds[0], moved)
            self.copies[kinds[0], nearest(moved, CHUNKS.get(kinds[0], (moved,)))] += 1
        elif name in WRITES or name == "vmsplice":
            self._move(name, "memory", kinds[0], moved)
        elif len(kinds) == 2:
            source = SOURCES[name]
            self._move(name.removesuffix("64"), kinds[source], kinds[1 - source], moved)

    def _move(self, path: str, source: str, target: str, moved: int) -> None:
        self.moved[path, source, target] += 1
        self.bytes[path, source, target] += moved

    @property
    def found(self) -> tuple[Moved, ...]:
        """Most bytes first."""
        rows = (Moved(path=key[0], source=key[1], target=key[2], calls=n, bytes=self.bytes[key]) for key, n in self.moved.items())
        return tuple(sorted(rows, key=lambda row: (-row.bytes, row.path, row.source, row.target)))


def kind(descriptor: str) -> str:
    """What strace says behind a descriptor, in a word."""
    return next((word for sign, word in _KINDS if descriptor.startswith(sign)), "other")


def nearest(size: int, chunks: Sequence[int]) -> int:
    """The chunk that is nearest to a size, as a ratio."""
    return min(chunks, key=lambda chunk: max(chunk / size, size / chunk))
