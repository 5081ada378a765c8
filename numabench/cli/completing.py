"""What can stand at a place of the command line. Parameters of one name mean the same in every verb."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete, add_completion_class

from ..errors import NumabenchError

MOST_LOGS = 40


def benchmarks(context: click.Context, incomplete: str, topics: bool = True) -> Iterable[CompletionItem]:
    from ..benchmarks import TOPICS, discover

    known = discover()
    names = {**{name: b.title for name, b in known.items()}, **({t: f"all benchmarks of {t}" for t in TOPICS} if topics else {})}
    given = given_benchmarks(context)
    return [CompletionItem(n, help=title) for n, title in names.items() if n.startswith(incomplete) and n not in given]


def given_benchmarks(context: click.Context) -> list[str]:
    """Benchmarks and topics on the line; behind an option without its value click has left them among the rest."""
    from ..benchmarks import TOPICS, discover

    known = {*discover(), *TOPICS}
    return [word for word in (*(context.params.get("benchmarks") or ()), *context.args) if word in known]


def benchmark(context: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    return benchmarks(context, incomplete, topics=False)


def profiles(context: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    from ..measure.profiles import PROFILES

    return [CompletionItem(name) for name in PROFILES if name.startswith(incomplete)]


def settings(context: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    """`stride=`, its values once only one parameter is meant, and further values after a comma."""
    from ..benchmarks import choose
    from ..measure.plan import named_values

    axes: dict[str, dict[str, str]] = {}
    for each in choose(given_benchmarks(context)):
        for axis in each.axes:
            values = axes.setdefault(axis.name, {})
            values.update({str(value): axis.summary for value in axis.values or named_values(axis)})
    name, equals, given = incomplete.partition("=")
    if not equals:
        near = [axis for axis in axes if axis.startswith(name)]
        if len(near) != 1 or not axes[near[0]]:
            return [CompletionItem(f"{axis}=") for axis in near]
        name = near[0]
    before, comma, last = given.rpartition(",")
    taken = before.split(",")
    values = axes.get(name, {})
    return [CompletionItem(f"{name}={before}{comma}{v}") for v in values if v.startswith(last) and v not in taken]


def logs(context: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    """The newest of what `numabench run` wrote here and the folders that it lies in; where none begins so, any file."""
    found = (p for p in Path("results").rglob("*.jsonl*") if str(p).startswith(incomplete) and p.suffix in (".jsonl", ".gz"))
    recorded = sorted(islice(found, 5000), key=lambda path: path.name, reverse=True)[:MOST_LOGS]
    if not recorded:
        return [CompletionItem(incomplete, type="file")]
    folders = dict.fromkeys(str(path.parent) for path in recorded if str(path.parent).startswith(incomplete))
    return [CompletionItem(path) for path in (*folders, *map(str, recorded))]


def verbs(context: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    from . import VERBS

    return [CompletionItem(name, help=words) for name, words in VERBS.items() if name.startswith(incomplete)]


def claims(context: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    """Runtimes, and claims about them."""
    from ..claims import facts

    names = {claim.runtime: f"all claims about {claim.runtime}" for claim in facts()}
    names.update({claim.name: claim.says for claim in facts()})
    given = context.params.get("wanted") or ()
    return [
        CompletionItem(name, help=words) for name, words in names.items() if name.startswith(incomplete) and name not in given
    ]


#: By name of a parameter in a verb's module.
SOURCES: dict[str, Callable[[click.Context, str], Iterable[CompletionItem]]] = {
    "benchmarks": benchmarks,
    "benchmark": benchmark,
    "name": benchmarks,
    "profile": profiles,
    "settings": settings,
    "paths": logs,
    "logs": logs,
    "base": logs,
    "new": logs,
    "only": benchmarks,
    "resume": logs,
    "verb": verbs,
    "wanted": claims,
}


def attach(command: click.Command) -> None:
    """Lets a verb's parameters say what can stand in their place. A broken benchmark or machine is no answer to a key."""
    for parameter in command.params:
        source = SOURCES.get(str(parameter.name))
        if source is None or isinstance(parameter.type, click.Choice):
            continue

        def say(context: click.Context, incomplete: str, source=source) -> list[CompletionItem]:
            try:
                return list(source(context, incomplete))
            except (NumabenchError, OSError):
                return []

        parameter.shell_complete = say  # type: ignore[method-assign]


class Bash(BashComplete):
    """bash takes `=` for the end of a word: what it cut is put together again, and only what follows the last one is answered."""

    cut = ""  # what stands before the word that bash replaces

    def get_completion_args(self) -> tuple[list[str], str]:
        words, place = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
        whole: list[str] = []
        before = ""
        for word in [*words, ""][: place + 1]:
            if "=" in (word, before):
                whole[-1] += word
            else:
                whole.append(word.strip("'\""))
            before = word
        value = whole[-1].partition("=")[2] if whole[-1].startswith("--") else whole[-1]
        self.cut = value[: value.rfind("=") + 1]
        return whole[1:-1], whole[-1]

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value.removeprefix(self.cut)}"


class Fish(FishComplete):
    """Values and their meanings have commas: only the first one separates."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')


CLASSES: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": ZshComplete, "fish": Fish}
for each in CLASSES.values():
    add_completion_class(each)
