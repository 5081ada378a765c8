"""`numabench advise`: what to do on this machine, by what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..analysis.advice import Padding

EPILOG = """\b
Examples:
  numabench run padded_counters && numabench advise        this machine
  numabench advise results/* --format json | jq '.[].padding_bytes'
  numabench advise run.jsonl --format c-header -o padding.h
The padding is the least distance from which on two threads that write do not disturb each other, over all relations of CPUs and operations that were measured.
Where the intervals leave it open, the line size that the machine declares stands in, and the advice says that it is not measured."""


@click.command("advise", epilog=EPILOG, short_help="The padding to use, with its evidence.")
@click.argument("paths", nargs=-1, metavar="[LOG|FOLDER]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "c-header")),
    default="text",
    show_default=True,
    help="For people, programs, compilers.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write there instead of to standard output."
)
def command(paths: tuple[str, ...], form: str, output: Path | None) -> None:
    """Print how many bytes to put between what two threads write, and what that is known from.

    Without paths: all runs of this machine in results/<alias>/.
    """
    import msgspec

    from ..analysis.advice import padding
    from ..errors import UsageError
    from .export import write_text
    from .logs import read_logs

    found = padding(read_logs(paths))
    if form == "json":
        text = msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n"
    elif form == "c-header":
        if len(found) > 1:
            raise UsageError(f"these logs hold {len(found)} machines, a header speaks of one", "give the logs of one at a time")
        text = header(found[0])
    else:
        text = "\n".join(map(words, found))
    write_text(text, output)


def words(advice: Padding) -> str:
    """The advice in sentences, a finding a line."""
    how = "measured" if advice.measured else f"not measured, {advice.missing}"
    if advice.measured and advice.within is not None:
        how += f": at most {max(0.0, advice.within):.1%} over counters far apart at every relation measured"
    declared = (
        f"the machine declares lines of {advice.declared_line_bytes} B"
        if advice.declared_line_bytes
        else "the machine declares no line size"
    )
    lines = [
        f"{advice.machine}: put {advice.padding_bytes} bytes between what two threads write ({how}; {declared}).",
        f"Neighbouring lines of one 128-byte pair: {advice.adjacent_lines}.",
        *(f"  {'' if each.resolved else 'not fully resolved: '}{each.text}" for each in advice.evidence),
    ]
    return "\n".join(lines) + "\n"


def harmless(text: str) -> str:
    """For a comment of C: nothing in it ends it, and no line of it goes on in the next one, by a backslash or a trigraph of one."""
    return text.replace("\\", "/").replace("??/", "?? /").replace("*/", "* /")


def header(advice: Padding) -> str:
    """C11 and C++: the size as a macro, the evidence in front of it."""
    from .. import __version__

    said = f"By numabench {__version__}, from measurements of {advice.recorded}:\n{words(advice)}"
    told = "\n".join(f" * {line}" for line in harmless(said).splitlines())
    return f"""/*
{told}
 */
#ifndef NUMABENCH_PADDING_H
#define NUMABENCH_PADDING_H

#define NUMABENCH_DESTRUCTIVE_INTERFERENCE_SIZE {advice.padding_bytes}
#define NUMABENCH_PADDING_MEASURED {int(advice.measured)}

#endif
"""
