"""Names of hosts as people list them. They become arguments of ssh, parts of paths and lines on terminals: what is no name is said, and never used."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: `[user@]host`, addresses of IPv6 too, or `ssh://user@host:port`. Nothing that ssh takes for an option, nor what its ProxyCommand could hand to a shell; nor what
#: would be a hidden folder, or is many names in one (`n[01-20]`).
NAME = re.compile(
    r"(ssh://)?([A-Za-z0-9_.][A-Za-z0-9_.+-]*@)?([A-Za-z0-9_:][A-Za-z0-9_.:%-]*|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?\](:[0-9]+)?)"
)
LONGEST = 255


def listed(text: str) -> list[str]:
    """The names in a list: one or several a line, with commas or blanks between them; `#` begins a comment."""
    return [name for line in text.splitlines() for name in re.split(r"[\s,]+", line.partition("#")[0]) if name]


def checked(names: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """(hosts in their order, what is listed twice, what is no name of a host)."""
    hosts, twice, odd = {}, {}, {}
    for name in names:
        place = odd if not NAME.fullmatch(name) or len(name) > LONGEST else twice if name in hosts else hosts
        place[name] = None
    return [*hosts], [*twice], [*odd]


def bare(host: str) -> str:
    """The host alone, as results call it: `n1` of `me@n1` and of `ssh://me@n1:2222`."""
    name = host.removeprefix("ssh://")
    return (name.partition(":")[0] if name != host and "[" not in name else name).rpartition("@")[2]
