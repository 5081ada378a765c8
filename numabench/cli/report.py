"""`numabench report`: the answers on the console and the page beside the logs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..extras import loading
from ..text import in_shell
from .logs import named_or_own, read_visits, say_notes, visit_options
from .opening import opened, opens_page
from .outputs import json_option, write

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from ..analysis.answers import Answered
    from ..runlog.read import RunLog

EPILOG = """\b
Examples:
  numabench report                                     all runs of this machine
  numabench report results/sample                      every log in a folder
  numabench report --all                               every answer here, not only the card
  numabench report a.jsonl b.jsonl -o both.html        these logs, that file
Several runs of one machine are several sessions: the intervals then also cover how it changes between visits. Those that were given up on
busy CPUs are left out, unless they are all there is.
Reading needs neither a compiler nor Linux: a log reads the same on any computer."""


def default_target(paths: tuple[str, ...]) -> Path:
    """`report.html` in the first folder given, or beside the first file."""
    first = Path(paths[0])
    return (first if first.is_dir() else first.parent) / "report.html"


def write_page(page: str, target: Path) -> None:
    from ..errors import UsageError
    from ..files import write_whole
    from ..text import printable

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, page)
    except OSError as error:
        raise UsageError(
            f"cannot write the page {printable(str(target))}: {error.strerror}", "choose another file with --output"
        ) from error
    opened(target)


def print_answers(log: RunLog, frame: pd.DataFrame, said: Sequence[Answered]) -> None:
    """The headline answers (all, where none is one), a sentence each with its value, interval and design. `frame`: the samples."""
    from rich.table import Table
    from rich.text import Text

    from ..analysis.answers import SETTLED
    from .console import Terminal

    found = [a for a in said if a.headline] or said
    many = len({a.machine for a in found}) > 1
    titles = {b.name: b.title for b in log.benchmarks}
    console = Terminal()

    def heading(answer: Answered) -> str:
        return f"{titles.get(answer.benchmark, answer.benchmark)}{f' on {answer.machine}' if many else ''}"

    for title, own in itertools.groupby(found, heading):
        console.print(Text(f"\n{title}", style="bold"))
        table = Table.grid(padding=(0, 1))
        table.add_column()
        table.add_column(overflow="fold")
        for answer in own:
            grade = "" if answer.grade == SETTLED else (f"{answer.grade}: ", "yellow")
            table.add_row("•", Text.assemble(grade, answer.text))
        console.print(table)
    if found:
        print_outcomes(log, console, frame, {answer.benchmark for answer in found})
        print_matrices(log, console, frame)
    else:
        console.print("These logs declare no answers; figures and tables are in the report.")


def print_outcomes(log: RunLog, console: Console, frame: pd.DataFrame, named: set[str]) -> None:
    """What cells of exact outcomes have, in words, of the benchmarks that are named; what the sentences say already is left out."""
    from rich import box
    from rich.table import Table

    from ..analysis.nodes import valid_cells
    from ..report.outcomes import matrix_table, words_of

    machines = {header.run: header.machine for header in log.headers}
    records = {
        (machines[b.run].get("id"), b.name): b for b in log.benchmarks if b.name in named and any(map(words_of, b.metrics))
    }
    cells = valid_cells(log, frame) if records else frame
    for (machine, _), record in records.items():
        mine = cells[cells["machine_id"] == str(machine)]
        for found in filter(None, (matrix_table(mine, record, metric) for metric in record.metrics)):
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{record.title}: {found.caption}", title_justify="left")
            for heading, _ in found.columns:
                table.add_column(heading, overflow="fold")
            for row in found.rows:
                table.add_row(*(cell.text for cell in row))
            console.print(table)


def print_matrices(log: RunLog, console: Console, frame: pd.DataFrame) -> None:
    """Latencies between CPUs as heat maps, where three and more were measured."""
    from ..analysis.answers.evidence import matching
    from ..analysis.nodes import valid_cells
    from .heatmap import draw_view

    views = {(b.run, v.title): (b, v) for b in log.benchmarks for v in b.views if v.kind == "heatmap" and len(v.both) > 2}
    if not views:
        return
    cells = valid_cells(log, frame)
    machines = {header.run: header.machine for header in log.headers}
    for benchmark, view in views.values():
        whose = {"machine_id": str(machines[benchmark.run].get("id")), "benchmark": benchmark.name, "metric": view.metric}
        rows = matching(cells, whose | view.where)
        if not rows.empty:
            console.print(f"\n{view.title} on {machines[benchmark.run].get('alias')}, ns", style="bold")
            for line in draw_view(console, rows, view, machines[benchmark.run].get("topology") or {}):
                console.print(line, no_wrap=True, crop=True)


def print_bands(log: RunLog) -> None:
    """Prices that must agree, and whether they do."""
    from rich.table import Table

    from ..report.facts import interrupts
    from .console import Terminal

    console = Terminal()
    found = interrupts(log)
    for alias, bands in found:
        console.print(f"\nPrices that must agree{f' on {alias}' if len(found) > 1 else ''}", style="bold")
        table = Table.grid(padding=(0, 2))
        for band in bands:
            style = "red" if band.broken else None
            table.add_row(band.name, f"{band.value:.2f}", band.reach, f"allowed {band.ends}", band.verdict, style=style)
        console.print(table)


@click.command("report", epilog=EPILOG, short_help="The answers, and a page with figures and tables.")
@click.argument("paths", nargs=-1, metavar="[LOG|FOLDER]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page to write [default: report.html beside the logs].",
)
@opens_page
@json_option
@visit_options
@click.option("--all", "every", is_flag=True, help="Print all answers, outcomes and maps here as well, not the card alone.")
def command(paths: tuple[str, ...], output: Path | None, every: bool, last: bool, without: tuple[str, ...], form: str) -> None:
    """Show the machine's card, and write one self-contained HTML page with everything.

    Without paths: all runs of this machine in results/<alias>/. The page works offline, in light, dark and print.
    """
    paths = named_or_own(paths)
    log = read_visits(paths, last, without)
    chosen_by = [*(["--last"] if last else []), *(word for run in without for word in ("--without", run))]
    show_results(log, output or default_target(paths), every=every, form=form, chosen_by=chosen_by)
    say_notes(log)


def show_results(
    log: RunLog,
    page: Path | None = None,
    every: bool = False,
    named: Sequence[str] = (),
    form: str = "text",
    chosen_by: Sequence[str] = (),
) -> None:
    """The card of each machine (the answers of the benchmarks that were `named`, or of `every` one; without a card all of them), and the page, if one is
    asked for: written before anything is printed. In the form `json` all answers; `none`: the page alone.
    `chosen_by`: the options by which the log's visits were chosen."""
    with loading():
        from ..analysis.card import Reading
        from ..report.page import render_report
        from .card import show
    from .console import Terminal
    from .progress import Rendering

    reading = Reading(log)
    if page:
        with Rendering(Terminal(outlives_reader=True, stderr=form != "text")) as line:
            body = render_report(log, reading=reading, tell=line)
        write_page(body, page)
    if form == "json":
        write({"report": str(page), "answers": reading.said, "warnings": log.warnings})
    if form != "text":
        return
    console = Terminal(outlives_reader=True)
    shown = [] if named else reading.cards
    for card in shown:
        show(console, card, every)
        console.print()
    if every or not shown:
        print_answers(log, reading.frame, [a for a in reading.said if not named or a.benchmark in named])
    if every:
        print_bands(log)
    if page:
        console.print(f"Page: {page}", soft_wrap=True)
    if shown and not every:
        console.print(f"All answers: {all_answers(log.paths, chosen_by)}", soft_wrap=True, style="dim")


def all_answers(paths: Sequence[str], chosen_by: Sequence[str]) -> str:
    """The command that prints all answers of these logs, to be pasted; of many files the folder that they are in."""
    folders = {str(Path(path).parent) for path in paths}
    return in_shell("numabench", "report", "--all", *chosen_by, *(folders if len(paths) > 2 and len(folders) == 1 else paths))
