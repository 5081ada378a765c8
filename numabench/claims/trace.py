"""What strace wrote of a transfer: which system calls took bytes out of the source and brought them into the target."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..host.tracing import BETWEEN
from ..model import Frozen
from . import FAMILIES

SHARE = 0.1  # of the bytes: what carries less is a header or a first look at the content (512 bytes of Go's net/http), and not the path
#: Which of a call's descriptors, in the order in which they are given, is the source, and which the target.
ENDS = {
    **dict.fromkeys(FAMILIES["read"], (0, None)),
    **dict.fromkeys(FAMILIES["write"], (None, 0)),
    **{call: (source, 1 - source) for call, source in BETWEEN.items()},
    "vmsplice": (None, 0),
}
#: How strace shows what a descriptor is (-yy); where it may not ask the kernel, sockets are all alike.
KINDS = {
    "tcp": r"TCP(v6)?:|socket:",
    "http": r"TCP(v6)?:|socket:",
    "https": r"TCP(v6)?:|socket:",
    "unix": r"UNIX(-STREAM)?:|socket:",
    "pipe": r"pipe:",
}
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)(?: (E[A-Z0-9]+))?")
_DESCRIPTOR = re.compile(r"(?:^|, |\[)\d+<(.*?)>(?=[,)\]]|$)")


class Seen(Frozen):
    path: tuple[str, ...]  # calls, those of the source first
    bytes: int  # that were seen to reach the target
    refused: tuple[str, ...]


def carried(lines: Iterable[str], source: str, target: str, count: int) -> Seen:
    """`source` and `target`: regular expressions of what strace calls them."""
    out_of: dict[str, int] = {}
    into: dict[str, int] = {}
    refused: dict[str, None] = {}
    for line in lines:
        if not (found := _CALL.match(line)) or found[1] not in ENDS:
            continue
        name, descriptors, result = found[1], _DESCRIPTOR.findall(found[2]), int(found[3])
        for place, kind, counted in zip(ENDS[name], (source, target), (out_of, into), strict=True):
            if place is None or place >= len(descriptors) or not re.match(kind, descriptors[place]):
                continue
            if result > 0:
                counted[name] = counted.get(name, 0) + result
            elif found[4] and found[4] != "EAGAIN":  # a socket that is full is waited for, and refuses nothing
                refused[f"{name} {found[4]}"] = None
    least = SHARE * count
    carrying = [name for counted in (out_of, into) for name, done in counted.items() if done >= least]
    return Seen(path=tuple(dict.fromkeys(carrying)), bytes=sum(into.values()), refused=tuple(refused))


def was_called(lines: Iterable[str], call: str, word: str) -> bool:
    return any((found := _CALL.match(line)) and found[1] == call and word in found[2] for line in lines)
