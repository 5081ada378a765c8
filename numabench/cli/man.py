"""`numabench man`: the manual page, made from what the verbs say of themselves."""

from __future__ import annotations

import re
from inspect import cleandoc

import click

from . import say

EPILOG = """\b
Examples:
  numabench man | man -l -                              read it
  numabench man > ~/.local/share/man/man1/numabench.1   install it"""


@click.command("man", epilog=EPILOG, short_help="Write the manual page.")
def command() -> None:
    """Write the manual page of numabench and all of its verbs, in man's own format."""
    from . import command as whole

    say(page(whole), nl=False)


def page(whole: click.Group) -> str:
    from .. import __version__
    from .defaults import PROJECT_FILE

    context = click.Context(whole, info_name="numabench")
    first, _, rest = (whole.help or "").partition("\n\n")
    lines = [
        f'.TH NUMABENCH 1 "" "numabench {escaped(__version__)}" "User commands"',
        ".SH NAME",
        f"numabench \\- {escaped(first.strip().rstrip('.').lower())}",
        ".SH SYNOPSIS",
        ".B numabench",
        "[\\fIoptions\\fR] \\fIverb\\fR [\\fIarguments\\fR]",
        ".SH DESCRIPTION",
        *paragraphs(rest),
        ".SH OPTIONS",
        *options(whole, context),
        ".SH VERBS",
    ]
    for name in whole.list_commands(context):
        verb = whole.get_command(context, name)
        assert verb is not None
        own = click.Context(verb, info_name=name, parent=context)
        lines += [f".SS {escaped(f'numabench {name}')}", ".PP", f".B {escaped(own.command_path)}"]
        lines += [escaped(" ".join(verb.collect_usage_pieces(own))), *paragraphs(verb.help or ""), *options(verb, own)]
        lines += paragraphs(verb.epilog or "")
    lines += [
        ".SH ENVIRONMENT",
        *entry("NUMABENCH_VERB_OPTION", "An option that is not given, such as NUMABENCH_RUN_PROFILE=quick for run --profile."),
        *entry("CC, CFLAGS", "The compiler of the kernels and its further flags."),
        *entry("XDG_CACHE_HOME", "Where compiled kernels are kept (~/.cache)."),
        *entry("NO_COLOR", "No colours on the terminal."),
        ".SH FILES",
        *entry(
            PROJECT_FILE,
            'In the working folder: a table for a verb, with its options by name, such as profile = "quick" below [run].',
        ),
        *entry("results/MACHINE/TIME.jsonl", "Run logs."),
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Nothing in it is a request of roff's; hyphens are the sign that is typed."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def paragraphs(text: str) -> list[str]:
    """Paragraphs of a help text; what begins with click's mark keeps its lines."""
    lines: list[str] = []
    for each in re.split(r"\n\s*\n|\n(?=\x08)", cleandoc(text)):
        plain = each.startswith("\b")
        body = escaped(each.removeprefix("\b").strip("\n") if plain else " ".join(each.split()))
        if body:
            lines += [".PP", ".nf", body, ".fi"] if plain else [".PP", body]
    return lines


def options(command: click.Command, context: click.Context) -> list[str]:
    records = [record for p in command.get_params(context) if (record := p.get_help_record(context)) and record[1]]
    return [line for name, words in records for line in entry(name, words)]


def entry(name: str, words: str) -> list[str]:
    return [".TP", f".B {escaped(name)}", escaped(" ".join(words.split()))]
