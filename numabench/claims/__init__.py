"""What is said of runtimes of languages, such as that Go's io.Copy sends files by sendfile: claims with the versions that they were seen with, and by what.

The facts are in `facts.toml`; `checking.py` tests them on this machine with the programs in `programs/`, by the system calls that strace sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import UsageError
from ..host.tracing import READS, WRITES
from ..model import Frozen
from ..text import in_shell, near

FACTS = Path(__file__).parent / "facts.toml"
PROGRAMS = Path(__file__).parent / "programs"
#: What is said of paths: a word of these stands for any call of its family.
FAMILIES = {"read": READS, "write": WRITES}
Verdict = Literal["holds", "refuted", "not tested"]
HOLDS, REFUTED, NOT_TESTED = "holds", "refuted", "not tested"


class Test(Frozen, kw_only=True, forbid_unknown_fields=True):
    """How a claim is tested: `program` transfers `bytes` from `offset` of `source` by `method`."""

    method: str
    source: str = "file"
    target: str = "tcp"
    program: str = "transfers"
    offset: int = 0
    bytes: int | None = None  # None: to the file's end
    call: str = ""  # instead of a transfer: the test is whether this system call is made, with `word` among its arguments
    word: str = ""


class Evidence(Frozen, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """Who saw it, of which versions, and when."""

    versions: tuple[str, ...] = ()  # none: where it does not say
    by: Literal["strace", "source", "documentation"]
    where: str = ""  # a file at a commit, a page; a command of strace's, which is the claim's own test where nothing is said
    kernel: str = ""  # on which strace saw it
    date: str  # 2026-11-28


class Claim(Frozen, kw_only=True, forbid_unknown_fields=True):
    """`path`: the system calls that the claim says; `found`: those that were seen. A claim is refuted where these are not the same."""

    name: str
    runtime: str
    says: str
    call: str
    path: tuple[str, ...]
    found: tuple[str, ...]
    common: bool = False  # widely believed: it stands in the first table
    instead: str = ""  # what to do, or why
    since: str = ""  # the first version of which it is said
    before: str = ""  # the first version of which it no longer is
    test: Test | None = None  # None: nothing of numabench's tests it
    seen: tuple[Evidence, ...]

    @property
    def verdict(self) -> Verdict:
        return verdict(self.path, self.found)

    @property
    def versions(self) -> str:
        """Between which versions it was seen: `17.0.15 to 25.0.2`."""
        ordered = sorted({version for evidence in self.seen for version in evidence.versions}, key=number)
        return " to ".join(dict.fromkeys((ordered[0], ordered[-1])))

    @property
    def kernel(self) -> str:
        """The newest on which strace saw it; empty where it has not."""
        return max((evidence.kernel for evidence in self.seen), key=number)

    @property
    def date(self) -> str:
        """When it was last seen."""
        return max(evidence.date for evidence in self.seen)

    def is_said_of(self, version: str) -> bool:
        return number(self.since) <= number(version) and (not self.before or number(version) < number(self.before))


class Result(Frozen, kw_only=True, omit_defaults=False):
    """What a test found on this machine."""

    claim: str
    runtime: str
    version: str  # of the runtime here; empty where there is none
    verdict: Verdict
    path: tuple[str, ...] = ()  # what was seen
    refused: tuple[str, ...] = ()  # calls that the kernel refused, with their errors: `sendfile EINVAL`
    needs: str = ""  # of what was not tested: what it needs
    as_recorded: bool = True  # False: news, of a version that the record has not seen, or of another kernel


def verdict(claimed: Sequence[str], seen: Sequence[str]) -> Verdict:
    """Whether the calls that were seen are those of the claim."""

    def is_one(call: str, word: str) -> bool:
        return call in FAMILIES.get(word, (word,))

    all_claimed = all(any(is_one(call, word) for word in claimed) for call in seen)
    all_seen = all(any(is_one(call, word) for call in seen) for word in claimed)
    return HOLDS if all_claimed and all_seen else REFUTED


def families(calls: Iterable[str]) -> set[str]:
    """The calls, each by the name of its family where it has one."""
    return {next((word for word, family in FAMILIES.items() if call in family), call) for call in calls}


def number(version: str) -> tuple[int, ...]:
    """`1.27.3` as numbers that can be compared; what follows another sign than a digit or a point does not count."""
    parts = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
        if digits != part:
            break
    return tuple(parts)


class _Facts(Frozen, kw_only=True, forbid_unknown_fields=True):
    claim: tuple[Claim, ...]


def facts(path: Path = FACTS) -> tuple[Claim, ...]:
    """All claims in the order of the file. Raises UsageError where it is not as it has to be."""
    try:
        claims = msgspec.toml.decode(path.read_bytes(), type=_Facts).claim
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"{path} is not as it has to be: {error}", "mend the file, or install numabench anew") from error
    twice = sorted({claim.name for claim in claims if sum(other.name == claim.name for other in claims) > 1})
    if twice:
        raise UsageError(f"{path} has two claims of the name {twice[0]}", "give one of them another name")
    return tuple(map(commanded, claims))


def commanded(claim: Claim) -> Claim:
    """With the command by which strace saw it."""
    command = in_shell("numabench", "claims", claim.name, "--check")
    seen = (msgspec.structs.replace(each, where=each.where or command) if each.by == "strace" else each for each in claim.seen)
    return msgspec.structs.replace(claim, seen=tuple(seen))


def chosen(wanted: Iterable[str], claims: Sequence[Claim] | None = None) -> tuple[Claim, ...]:
    """The claims of these runtimes and of these names; all where none is given. Raises UsageError for a name that is neither."""
    claims = facts() if claims is None else claims
    wanted = list(wanted)
    runtimes = list(dict.fromkeys(claim.runtime for claim in claims))
    for name in wanted:
        if name not in runtimes and name not in {claim.name for claim in claims}:
            known = [*runtimes, *(claim.name for claim in claims)]
            raise UsageError(
                f"nothing is recorded of {name!r}{near(name, known)}",
                f"choose among {', '.join(runtimes)}, or a claim that numabench claims names",
            )
    return tuple(claim for claim in claims if not wanted or claim.runtime in wanted or claim.name in wanted)
