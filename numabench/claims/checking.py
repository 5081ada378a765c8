"""Claims tested on this machine: a program of ours transfers bytes, strace says which system calls carried them, and the bytes prove that it was a transfer."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import MachineError
from ..host.commands import ask
from . import NOT_TESTED, Claim, Result, Test, families, number, verdict
from .runtimes import RUNTIMES, build, environment
from .trace import ENDS, KINDS, carried, was_called

BYTES = 1_000_001  # of the file: no multiple of a page nor of any buffer
RUN_S = 120.0  # for a transfer that takes less than a second: a JVM under strace on a busy machine
STRACE = "strace"
LEAST_STRACE = "5.3"  # the first with --seccomp-bpf, without which a traced JVM takes a minute
INSTALL_STRACE = "apt-get install strace (dnf, apk and pacman have it as well)"
MOST_SAID = 300  # characters of what a program complained of
AGAIN = "try again on a quieter machine, and report it if it stays so"
Told = Callable[[Claim, Result], None]


class Unproven(MachineError):
    """A test that ran and proved nothing: what is recorded was seen by the same test, so that this is news."""


class Tracer:
    """strace, as far as it works here. Raises MachineError where it does not."""

    def __init__(self) -> None:
        path = shutil.which(STRACE)
        if path is None:
            raise MachineError("strace is not here, and without it nobody sees the system calls", INSTALL_STRACE)
        self.path = path
        with tempfile.TemporaryDirectory(prefix="numabench-") as folder:
            said = ask(self.command(["true"], Path(folder), ("write",)), RUN_S)
        if said.code == 0:
            return
        version = re.search(r"version (\d+(\.\d+)*)", ask([path, "--version"], RUN_S).output)
        if version and number(version[1]) < number(LEAST_STRACE):
            raise MachineError(f"strace {version[1]} has no --seccomp-bpf", f"install strace {LEAST_STRACE} or newer")
        raise MachineError(
            f"strace may not trace here: {' '.join(said.errors.split())[:MOST_SAID]}",
            "allow ptrace (in containers --cap-add=SYS_PTRACE or another seccomp profile; sysctl kernel.yama.ptrace_scope=1)",
        )

    def command(self, command: Sequence[str], folder: Path, calls: Iterable[str]) -> list[str]:
        """One file for each thread, so that no call of one is torn apart by another's; data are left out."""
        options = ["-f", "-ff", "-qq", "-s", "0", "-yy", "--seccomp-bpf", "-e", "signal=none"]
        return [self.path, *options, "-e", f"trace={','.join(calls)}", "-o", str(folder / "trace"), *command]


def check(claims: Sequence[Claim], program: str | None = None, told: Told = lambda claim, checked: None) -> list[Result]:
    """Each claim tested with the runtime that is here, or with `program`; `told` hears of each at once. Nothing is raised for what is missing: the claim is `not tested` then."""
    results = []
    with tempfile.TemporaryDirectory(prefix="numabench-claims-") as folder:
        place = Workplace(Path(folder), program)
        for claim in claims:
            result = place.check(claim)
            told(claim, result)
            results.append(result)
    return results


class Workplace:
    """What the tests of several claims have in common: strace, runtimes, programs that are compiled once, the file."""

    def __init__(self, folder: Path, program: str | None = None):
        self.folder, self.program = folder, program
        self.known: dict[Hashable, Any] = {}
        self.content = hashlib.shake_128(b"numabench").digest(BYTES)
        self.source = folder / "source"
        self.source.write_bytes(self.content)

    def check(self, claim: Claim) -> Result:
        version = ""
        try:
            if claim.test is None:
                raise MachineError("no program of ours tests it", "read the evidence that it names")
            runtime, test = RUNTIMES[claim.runtime], claim.test
            found = self.once(runtime.name, lambda: runtime.find(self.program))
            version = found.version
            if not claim.is_said_of(version):
                said = " ".join(
                    part for part in (claim.since and f"from {claim.since}", claim.before and f"before {claim.before}") if part
                )
                raise MachineError(
                    f"it is said of {runtime.title} {said}, and this is {version}", "name another one with --program"
                )
            tracer = self.once("strace", Tracer)
            key = (runtime.name, test.program)
            command = self.once(key, lambda: build(runtime, found, test.program, self.place(*key)))
            path, refused = self.transfer(tracer, command, test)
        except MachineError as error:
            return Result(
                claim=claim.name,
                runtime=claim.runtime,
                version=version,
                verdict=NOT_TESTED,
                needs=str(error),
                as_recorded=not isinstance(error, Unproven),
            )
        judged = verdict(claim.path, path)
        return Result(
            claim=claim.name,
            runtime=claim.runtime,
            version=version,
            verdict=judged,
            path=path,
            refused=refused,
            as_recorded=judged == claim.verdict and families(path) == families(claim.found),
        )

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gave the first time, or the error that it raised."""
        if key not in self.known:
            try:
                self.known[key] = make()
            except MachineError as error:
                self.known[key] = error
        if isinstance(self.known[key], MachineError):
            raise self.known[key]
        return self.known[key]

    def place(self, *names: str) -> Path:
        folder = self.folder.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def transfer(self, tracer: Tracer, command: list[str], test: Test) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The path that was seen and what was refused. Raises MachineError where strace or the bytes prove nothing."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name)
            if test.call:
                ran = tracer.command([*command, test.method], folder, (test.call,))
                self.ran(ran)
                return (test.call,) if was_called(lines(folder), test.call, test.word) else (), ()
            content = self.content[test.offset :][: test.bytes]
            transfer = (test.method, test.source, test.target, self.source, test.offset, len(content), folder)
            ran = tracer.command([*command, *map(str, transfer)], folder, ENDS)
            said = self.ran(ran)
            arrived = f"arrived {len(content)} {zlib.adler32(content)}"
            if said != arrived:
                raise Unproven(f"other bytes came than were sent ({said[:MOST_SAID]!r} and not {arrived!r})", AGAIN)
            into = KINDS.get(test.target, re.escape(str(folder / "target")))
            seen = carried(lines(folder), KINDS.get(test.source, re.escape(str(self.source))), into, len(content))
        if seen.bytes < len(content):
            raise Unproven(
                f"strace saw only {seen.bytes:,} of {len(content):,} bytes reach the target: they went another way, such as io_uring or a mapping",
                "without the calls that carry them nothing can be said",
            )
        return seen.path, seen.refused

    def ran(self, command: list[str]) -> str:
        said = ask(command, RUN_S, environment())
        if said.code is None:
            raise Unproven(f"the transfer did not end within {RUN_S:.0f} s", AGAIN)
        if said.code:
            complaint = " ".join(f"{said.errors} {said.output}".split())[:MOST_SAID]
            raise Unproven(f"the transfer failed: {complaint}", AGAIN)
        return said.output.strip()


def lines(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("trace.*")):
        yield from path.read_text(errors="replace").splitlines()
