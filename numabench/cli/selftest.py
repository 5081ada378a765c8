"""`numabench selftest`: does the judge find what is there, and nothing else, on this machine and today?"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import IMPRECISE, REGRESSION
from . import say

if TYPE_CHECKING:
    from rich.console import Console

    from ..analysis.selftest import SelfTest

#: What is measured unless something else is asked for: quick to prepare, with and without a second thread.
USUAL = ("memory_latency", "fences", "padded_counters", "contention")
LEAST_VISITS = 3
EPILOG = """\b
Examples:
  numabench selftest                         eight visits within two minutes
  numabench selftest core_to_core --visits 12 --budget 5m
  numabench selftest --format json           for programs"""


@click.command("selftest", epilog=EPILOG, short_help="Measure the same again and again, and see what the judge makes of it.")
@click.argument("benchmarks", nargs=-1, metavar="[BENCHMARK | TOPIC]...")
@click.option("--budget", default="2m", show_default=True, metavar="TIME", help="Wall-clock time for all visits together.")
@click.option(
    "--visits", default=8, show_default=True, type=click.IntRange(LEAST_VISITS), help="How many short runs are compared."
)
@click.option(
    "--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True, help="For people or programs."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder of results: the visits and what they say go to selftest/<machine>/ in it.",
)
@click.pass_context
def command(context: click.Context, benchmarks: tuple[str, ...], budget: str, visits: int, form: str, output: Path) -> None:
    """Measure this machine several times and compare every visit with every other: all differences are false alarms.

    Says how many there are, how often intervals include the truth, and which effect (put into the recorded figures) would have been found. Exit code 1 when over 5 % of cells are
    called changed or a band of physics is broken, 5 when other programs have the CPUs.
    """
    import msgspec

    from ..analysis.selftest import FOLDER, RESULT, self_test
    from ..api import judge
    from ..files import write_whole
    from ..host.machine import read_machine
    from ..measure.visit import Request, Visit
    from ..runlog.read import load
    from ..units import parse_seconds
    from .console import Terminal
    from .progress import RunDisplay

    console = Terminal(outlives_reader=True, stderr=form == "json")
    alias = read_machine().alias
    folder = output / FOLDER / alias / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    each, paths = parse_seconds(budget) / visits, []
    for number in range(1, visits + 1):
        visit = Visit(Request(benchmarks=benchmarks or USUAL, profile="quick", budget=each, seed=number))
        path = folder / f"visit-{number}.jsonl"
        console.print(f"visit {number} of {visits}")
        with RunDisplay(console, visit.plan, False) as display:
            end = visit.measure(path, judge, display)
        if end.status == "interrupted":
            raise KeyboardInterrupt
        if end.status == "busy":
            console.print("Given up: other programs have the CPUs (numabench check), and nothing would be settled.", style="red")
            context.exit(IMPRECISE)
        paths.append(path)
    found = self_test([load(path) for path in paths])
    document = msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"
    write_whole(folder / RESULT, document)
    if form == "json":
        say(document.decode(), nl=False)
    else:
        print_result(console, found)
        console.print(f"Result, which numabench report shows from now on: {folder / RESULT}", soft_wrap=True)
    if not found.sound:
        context.exit(REGRESSION)


def print_result(console: Console, found: SelfTest) -> None:
    from rich.table import Table

    console.print(
        f"\n{found.visits} visits to {found.machine}, {found.pairs} pairs, {found.cells} comparisons of one thing with itself:"
    )
    for share, what in (
        (found.claimed, "called faster or slower (5 % at most)"),
        (
            found.covered,
            "with an interval that includes no change (95 % would be exact; more: intervals cover what visits may differ by)",
        ),
        (found.same, "called the same within ±3 %"),
        (1 - found.claimed - found.same, "unresolved"),
    ):
        console.print(f"  {share:6.1%}  {what}")
    console.print(f"{found.settled:.0%} of {found.headlines} headline answers were settled in a visit.")
    table = Table(title="Smallest slow-down that one visit a side finds in nine of ten cells", title_justify="left")
    table.add_column("benchmark")
    table.add_column("cells", justify="right")
    table.add_column("effect", justify="right")
    for each in found.resolved:
        table.add_row(each.benchmark, str(each.cells), f"{each.effect - 1:.0%}" if each.effect else "over 50%")
    console.print(table)
    for band in found.bands:
        if band.value is not None:
            style = "red" if band.verdict == "BROKEN" else None
            console.print(f"  {band.name:42} {band.value:6.2f}   {band.ends:12} {band.verdict}", style=style)
