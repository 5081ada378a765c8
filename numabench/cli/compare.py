"""`numabench compare`: verdicts on two sides of run logs; the exit code says whether anything got slower."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .opening import opens_page

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {
    "faster": "green",
    "slower": "bold red",
    "same": "cyan",
    "unresolved": "yellow",
    "incomparable": "magenta",
    "failed": "bold magenta",
}
EPILOG = """\b
Examples:
  numabench compare results/old results/new            two folders of logs
  numabench compare a.jsonl b.jsonl -o compare.html    and a page with figures
  numabench compare a.jsonl b.jsonl --format json      for a program
  numabench compare OLD NEW --same 5%                  call up to 5 % the same
\b
Exit codes:
  0  nothing is slower            1  something is slower
  4  nothing could be compared    5  --require-precision, and a verdict is unresolved"""


class Share(click.ParamType):
    """`3%`, `3 %` or `0.03` as 0.03."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"{text!r} is not a share. Write it as 3% or 0.03", param, ctx)
        if not 0 < share < 1:
            self.fail(f"{text} is not between 0 and 100 %. Write it as 3% or 0.03", param, ctx)
        return share


def print_comparison(console: Console, comparison: Any, descriptors: dict[str, Any], all_cells: bool) -> None:
    """Summary, what else differs, refusals, then verdicts by metric and every change, or all cells in tables."""
    from rich.table import Table
    from rich.text import Text

    from ..report.versus import machine_line, obstacle_sentences, scope_sentence, summary_sentence

    console.print(Text(summary_sentence(comparison)), style="bold")
    console.print(Text(scope_sentence(comparison)))
    for side, machines in (("base", comparison.base_machines), ("new", comparison.new_machines)):
        console.print(Text(f"{side}: " + "; ".join(map(machine_line, machines))))
    for note in comparison.notes:
        console.print(Text(note))
    for name, reason in comparison.refused:
        console.print(Text.assemble(("refused ", "magenta"), (f"{name}: ", "bold"), reason))
    if comparison.differs:
        table = Table("what else differs", "base", "new", box=None, pad_edge=False, title_justify="left")
        for what, left, right in comparison.differs:
            table.add_row(what, Text(_short(left)), Text(_short(right)))
        console.print(table)
    for sentence in obstacle_sentences(comparison, descriptors):
        console.print(Text(sentence))
    if not all_cells:
        console.print(verdict_counts(comparison))
        print_changes(console, comparison)
        return
    for name in comparison.cells["benchmark"].unique():
        cells = comparison.cells[comparison.cells["benchmark"] == name]
        descriptor = descriptors.get(name)
        for metric in sorted(cells["metric"].unique(), key=[m.name for m in descriptor.metrics].index if descriptor else str):
            console.print()
            console.print(cell_table(name, cells, descriptor, metric))
    console.print()
    console.print(Text(summary_sentence(comparison)), style="bold")


def verdict_counts(comparison: Any) -> Any:
    """One row per benchmark and metric: how many cells got which verdict."""
    from rich.table import Table

    verdicts = [v for v in STYLES if comparison.summary.get(v)]
    table = Table("benchmark", "metric", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for verdict in verdicts:
        table.add_column(verdict, justify="right", style=STYLES[verdict])
    for (benchmark, metric), cells in comparison.cells.groupby(["benchmark", "metric"], sort=False):
        counts = cells["verdict"].value_counts()
        table.add_row(benchmark, metric, *(str(counts.get(v, 0) or "") for v in verdicts))
    return table


def print_changes(console: Console, comparison: Any) -> None:
    """Every faster and slower cell in a line of its own; the others are counted above."""
    import pandas as pd
    from rich.text import Text

    from ..analysis.structure import parameter_columns
    from ..units import format_number

    cells = comparison.cells[comparison.cells["verdict"].isin(("faster", "slower"))]
    for _, row in cells.iterrows():
        point = " ".join(f"{name}={row[name]}" for name in parameter_columns(cells) if pd.notna(row[name]))
        ratio = f"{format_number(row['ratio'])}× ({format_number(row['low'])}–{format_number(row['high'])}×)"
        console.print(
            Text.assemble((row["verdict"], STYLES[row["verdict"]]), f" {row['metric']} {ratio} {row['benchmark']} {point}")
        )
    if len(cells):
        console.print("Ratios are new to base, with 95 % intervals.", style="dim")
    console.print("All cells: --cells; a page with figures: --output FILE.html", style="dim")


def _short(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def cell_table(name: str, cells: Any, descriptor: Any, metric: str) -> Any:
    """Cells of one metric with verdicts in words and colours. Identical remarks are said once below the table."""
    from rich.table import Table

    from ..report.tables import verdict_table

    source = verdict_table(cells, descriptor, metric)
    headings = [heading.removesuffix(" (95 % interval)") for heading, _ in source.columns]
    notes, hidden = [source.note], set()
    for name_, texts in (
        ("distance", [row[-2].text for row in source.rows]),
        ("reasons", [row[-1].detail for row in source.rows]),
    ):
        if len(set(texts)) == 1:  # said once below the table instead of in every row
            hidden.add(name_)
            notes += [f"{name_.capitalize()}: {texts[0]}."] if texts[0] not in ("", "–") else []
    table = Table(
        title=f"{name}: {source.caption}",
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        pad_edge=False,
        box=None,
        caption=" ".join(filter(None, [*notes, "In parentheses: 95 % intervals."])),
        padding=(0, 1, 0, 0),
    )
    shown = [i for i, heading in enumerate(headings) if heading not in hidden]
    for i in shown:
        table.add_column(
            headings[i], justify="right" if source.columns[i][1] else "left", overflow="fold", no_wrap=headings[i] == "verdict"
        )
    for row in source.rows:
        table.add_row(*(_cell(row[i]) for i in shown))
    return table


def _cell(cell: Any) -> Text:
    from rich.text import Text

    if cell.kind.startswith("verdict"):
        return Text(cell.text, style=STYLES.get(cell.text, ""))
    if cell.kind == "value":
        return Text(f"{cell.text} ({cell.detail})" if cell.detail != "no interval" else cell.text)
    return Text(cell.detail if cell.kind == "remark" else cell.text)


def as_json(comparison: Any) -> str:
    """The comparison as JSON: summary, machines, differs, refused, means, and one record per cell (missing is null)."""
    import json

    def records(frame: Any) -> list[dict[str, Any]]:
        return json.loads(frame.to_json(orient="records", double_precision=12))

    return json.dumps(
        {
            "exit_code": comparison.exit_code,
            "summary": comparison.summary,
            "comparisons": comparison.comparisons,
            "same": comparison.same,
            "q": comparison.q,
            "same_machine": comparison.same_machine,
            "base": comparison.base_machines,
            "new": comparison.new_machines,
            "differs": [dict(zip(("what", "base", "new"), row, strict=True)) for row in comparison.differs],
            "notes": list(comparison.notes),
            "refused": [dict(zip(("benchmark", "reason"), row, strict=True)) for row in comparison.refused],
            "means": records(comparison.means),
            "outliers": records(comparison.outliers),
            "cells": records(comparison.cells),
        },
        indent=1,
    )


def exit_code(comparison: Any, require_precision: bool) -> int:
    """The comparison's own code; 5 when precision is required, a verdict is unresolved and nothing is slower."""
    from ..errors import IMPRECISE, OK

    if require_precision and comparison.exit_code == OK and comparison.summary.get("unresolved"):
        return IMPRECISE
    return comparison.exit_code


@click.command("compare", epilog=EPILOG, short_help="Is NEW faster, slower or the same as BASE?")
@click.argument("base")
@click.argument("new")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "html")),
    default="text",
    show_default=True,
    help="What to print; html and json go to -o when that is given.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write there; with --format text, the page with figures.",
)
@click.option(
    "--same", type=Share(), default="3%", show_default=True, metavar="SHARE", help="Ratios this close to 1 are the same."
)
@click.option("--cells", "all_cells", is_flag=True, help="Print every cell, not only what is faster or slower.")
@click.option("--require-precision", is_flag=True, help="Exit with 5 while any verdict is unresolved.")
@opens_page
@click.pass_context
def command(
    ctx: click.Context, base: str, new: str, form: str, output: Path | None, same: float, all_cells: bool, require_precision: bool
) -> None:
    """Compare NEW against BASE, each a run log or a folder of logs.

    Every cell gets a ratio with its 95 % interval and a verdict: faster, slower, same, unresolved, incomparable or failed.
    Unresolved never means "no difference": add processes or sessions. What is not the same quantity is refused.
    """
    from ..analysis.compare import compare
    from ..runlog.read import load
    from ..text import printable

    left, right = load(base), load(new)
    comparison = compare(left, right, same=same)
    if form == "html" or (output and form == "text"):
        from ..report.page import render_comparison

        page = render_comparison(comparison, left, right)
    body = as_json(comparison) if form == "json" else page if form == "html" or output else None
    if output:  # before anything is printed: whoever reads that may go away
        from .report import write_page

        write_page(body, output)
    if form == "text":
        from ..analysis.align import aligned
        from ..report.page import merge_descriptors
        from .console import Terminal

        matched = aligned(left, right)
        descriptors = {d.name: d for d in merge_descriptors([*matched[0].benchmarks, *matched[1].benchmarks])}
        print_comparison(Terminal(outlives_reader=True), comparison, descriptors, all_cells)  # the verdict is the exit code
    if output:
        click.echo(f"{'json' if form == 'json' else 'page'}: {printable(str(output))}", err=form != "text")
    elif form != "text":
        click.echo(body)
    ctx.exit(exit_code(comparison, require_precision))
