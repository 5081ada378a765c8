"""`numabench list`: what can be measured."""

from __future__ import annotations

import click


@click.command("list")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """Show the benchmarks, or one with its parameters, metrics and notes.

    \b
    Examples:
      numabench list
      numabench list padded_counters
    """
    from rich.console import Console
    from rich.table import Table

    from ..benchmarks import discover, find

    console = Console(highlight=False)
    if name is None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("benchmark", no_wrap=True)
        table.add_column("question")
        for benchmark in discover().values():
            table.add_row(benchmark.name, benchmark.question)
        console.print(table)
        console.print("\nDetails: numabench list NAME. Measure: numabench run NAME", style="dim")
        return
    benchmark = find(name)
    console.print(f"[bold]{benchmark.name}[/]: {benchmark.title}\n{benchmark.question}\n")
    console.print(f"[bold]Expected[/] {benchmark.expected}\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("parameter", "values", "meaning"):
        table.add_column(title)
    for axis in benchmark.axes:
        values = ", ".join(map(str, axis.values)) or "depends on the machine"
        table.add_row(axis.name, values, f"{axis.summary}{f' ({axis.unit})' if axis.unit else ''}")
    console.print(table)
    for note in benchmark.notes:
        console.print(f"\n• {note}")
    console.print(f"\nMeasure some of it: numabench run {benchmark.name} --set {benchmark.axes[0].name}=VALUE,VALUE", style="dim")
