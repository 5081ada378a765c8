"""`numabench list`: what can be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..text import in_shell
from ..units import format_bytes
from .outputs import Listed, json_option, write

if TYPE_CHECKING:
    from ..model import Axis, Value


LISTED = ("name", "kernel", "phase", "topic", "title", "question", "expected", "notes")  # what a benchmark says of itself


@click.command("list")
@click.argument("name", required=False, metavar="[BENCHMARK | TOPIC]")
@json_option
def command(name: str | None, form: str) -> None:
    """Show the benchmarks, those of a topic (memory, cores), or one with its parameters and notes.

    \b
    Examples:
      numabench list
      numabench list memory
      numabench list padded_counters
    """
    from rich.table import Table
    from rich.text import Text

    from ..benchmarks import TOPICS, broken, choose, discover, find
    from ..measure.plan import named_values
    from ..model import STABLE
    from .console import Terminal

    wanted = choose([name]) if name else discover().values()
    if form == "json":
        write([Listed(parameters=b.axes, **{field: getattr(b, field) for field in LISTED}) for b in wanted])
        return
    console = Terminal()
    if name is None or name in TOPICS:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("benchmark", no_wrap=True)
        table.add_column("topic", no_wrap=True)
        table.add_column("question")
        for benchmark in wanted:
            phase = "" if benchmark.phase == STABLE else f" ({benchmark.phase})"
            table.add_row(benchmark.name + phase, benchmark.topic or "–", benchmark.question)
        console.print(table)
        for module, why in broken().items():
            console.print(f"left out: {module} cannot be loaded: {why}", style="yellow")
        console.print(
            "\nDetails: numabench list NAME. Measure: numabench run NAME, or all of a topic: numabench run TOPIC",
            style="dim",
            soft_wrap=True,
        )
        return
    benchmark = find(name)
    console.print(Text.assemble((benchmark.name, "bold"), f": {benchmark.title}\n{benchmark.question}\n"))
    console.print(Text.assemble(("Expected", "bold"), f" {plain(benchmark.expected)}\n"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("parameter", "values", "meaning"):
        table.add_column(title)
    for axis in benchmark.axes:
        values = ", ".join(format_value(axis, value) for value in axis.values or named_values(axis)) or "depends on the machine"
        values += allowed(axis)
        table.add_row(axis.name, values, f"{axis.summary}{f' ({axis.unit})' if axis.unit else ''}")
    console.print(table)
    for note in benchmark.notes:
        console.print(f"\n• {plain(note)}")
    console.print(
        f"\nMeasure some of it: {in_shell('numabench', 'run', benchmark.name, '--set', f'{benchmark.axes[0].name}=VALUE,VALUE')}",
        style="dim",
        soft_wrap=True,
    )


def plain(text: str) -> str:
    """Without the marks that a page turns into another typeface."""
    return text.replace("`", "")


def format_value(axis: Axis, value: Value) -> str:
    return format_bytes(value) if axis.unit == "B" and value else str(value)


def allowed(axis: Axis) -> str:
    """What `--set` takes besides the values that the profiles measure; nothing for names."""
    if any(isinstance(value, str) for value in axis.values) or axis.least is None:
        return ""
    bounds = f"{format_value(axis, axis.least)} {'and more' if axis.most is None else f'to {format_value(axis, axis.most)}'}"
    steps = f" in steps of {format_value(axis, axis.step)}" if axis.step > 1 else ""
    return f" (--set takes {bounds}{steps})"
