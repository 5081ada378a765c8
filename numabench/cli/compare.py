"""`numabench compare`: verdicts on two sides of run logs; the exit code says whether anything got slower."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import say
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
ROW_STYLES = {"worse": "bold red", "better": "green", "same": "cyan", "not known": "yellow"}
COLUMNS, SCREEN = 80, 23  # a terminal's, less its prompt
EPILOG = """\b
Examples:
  numabench compare results/old results/new            two folders of logs
  numabench compare a.jsonl b.jsonl -o compare.html    and a page with figures
  numabench compare OLD NEW --only memory              benchmarks or topics
  numabench compare OLD NEW --fail-if 'latency > 10%' --fail-if 'bandwidth < -5%'
  numabench compare m7a m8g --prices m7a=0.23,m8g=0.27   for the same money
  numabench compare OLD NEW --format markdown          for a pull request
  numabench compare history NEW --last 20 --format junit   a gate: docs/tutorials/ci.md
\b
A change is of NEW's figure against BASE's: 12 % slower takes 12 % more time,
12 % faster 12 % less, 5 % more bandwidth is 5 % more bytes a second.
\b
--fail-if NAME > N% or NAME < N%: a row fails when the whole 95 % interval of its
change is beyond N %, and the change is one by the corrected test. NAME is a row's
quantity, its benchmark, topic or metric: 'memory > 5%', 'padded_counters > 5%'.
With it, exit code 1 is for these alone.
\b
Exit codes:
  0  nothing is slower            1  something is slower, or fails --fail-if
  4  nothing could be compared    5  --require-precision, and a verdict is not known"""


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


class Prices(click.ParamType):
    """`m7a=0.23,m8g=0.27` as a dict of positive numbers."""

    name = "prices"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        found = {}
        for part in str(value).split(","):
            name, _, price = part.partition("=")
            try:
                found[name.strip()] = float(price)
            except ValueError:
                self.fail(f"{part.strip()!r} is no price. Write a=0.23,b=0.27: a machine's alias and what it costs", param, ctx)
            if not 0 < found[name.strip()] < float("inf"):
                self.fail(f"{part.strip()!r} is no price: it must be above 0. Write a=0.23,b=0.27", param, ctx)
        return found


def price_pair(prices: dict[str, float], base: Any, new: Any) -> tuple[float, float]:
    """What base and new cost, each side's machines by their aliases, or as BASE and NEW. Raises UsageError where a price is missing or no side has it."""
    from ..analysis.identity import machines
    from ..errors import UsageError
    from ..text import near

    aliases = [{str(m["alias"]) for m in machines(log)} for log in (base, new)]
    names = [own - (aliases[1 - at]) | {side} for at, (own, side) in enumerate(zip(aliases, ("BASE", "NEW"), strict=True))]
    known = sorted(names[0] | names[1])
    for name in prices:
        if name not in known:
            raise UsageError(f"--prices: no machine here is called {name!r}{near(name, known)}", f"these are {', '.join(known)}")
    found = [{prices[name] for name in own if name in prices} for own in names]
    for own, side in zip(found, ("BASE", "NEW"), strict=True):
        if len(own) != 1:
            what = "has no price" if not own else "has several prices"
            raise UsageError(
                f"--prices: {side} {what}", f"give one for each side: --prices {side}=0.23 or an alias ({', '.join(known)})"
            )
    return found[0].pop(), found[1].pop()


def print_rows(console: Console, comparison: Any, reason: str, screen: int = SCREEN, told: Sequence[str] = ()) -> None:
    """One screen: the sentence, who is compared, a row for each headline quantity, what else differs, what would settle the rest, what is `told` besides, the exit
    code."""
    from rich.text import Text

    from ..report import brief

    width = min(console.width, COLUMNS)
    above = [Text(brief.sentence(comparison), style="bold"), *map(Text, brief.side_lines(comparison))]
    hint, last = Text("All rows and cells: --cells; page with figures: -o FILE.html", style="dim"), Text(reason, style="bold")
    below = [*map(Text, [*brief.closing_lines(comparison), *told]), hint, last]
    lines = brief.lines(comparison)

    def height() -> int:
        parts = (*above, row_table(comparison, lines), *below)
        return sum(len(console.render_lines(part, console.options.update(width=width), pad=False)) for part in parts)

    if height() > screen:
        below.remove(hint)
    while len(lines) > MIN_ROWS and height() > screen:
        lines.pop()
    for part in (*above, row_table(comparison, lines), *below):
        console.print(part, width=width)


MIN_ROWS = 5  # on a screen, whatever else there is to say


def row_table(comparison: Any, lines: list[Any], whole: bool = False) -> Any:
    """The rows; `whole`: with why a verdict is not known."""
    from rich.table import Table
    from rich.text import Text

    from ..report import brief

    base, new = (name if len(name) <= 9 else name[:8] + "…" for name in brief.side_names(comparison))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("per price" if comparison.priced is not None else "quantity")
    for name in (base, new, "change", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if whole:
        table.add_column("why")
    for line in lines:
        style = ROW_STYLES[line.verdict]
        table.add_row(*map(Text, line[:5]), Text(line.verdict, style=style), *([Text(line.why)] if whole else []))
    return table


def print_comparison(console: Console, comparison: Any, descriptors: dict[str, Any], reason: str) -> None:
    """All of it: summary, what else differs, refusals, then all cells in tables."""
    from rich.table import Table
    from rich.text import Text

    from ..report import brief
    from ..report.versus import obstacle_sentences, scope_sentence, summary_sentence

    console.print(Text(brief.sentence(comparison)), style="bold")
    console.print(Text(summary_sentence(comparison)))
    for text in (scope_sentence(comparison), *brief.side_lines(comparison), *comparison.notes):
        console.print(Text(text))
    console.print(row_table(comparison, brief.lines(comparison, len(comparison.rows)), whole=True))
    for name, refusal in comparison.refused:
        console.print(Text.assemble(("refused ", "magenta"), (f"{name}: ", "bold"), refusal))
    if comparison.differs:
        table = Table("what else differs", "base", "new", box=None, pad_edge=False, title_justify="left")
        for what, left, right in comparison.differs:
            table.add_row(what, Text(_short(left)), Text(_short(right)))
        console.print(table)
    for sentence in obstacle_sentences(comparison, descriptors):
        console.print(Text(sentence))
    for text in (*(f"To settle {step.text}" for step in brief.steps(comparison)), brief.seen(comparison)):
        console.print(Text(text))
    console.print(verdict_counts(comparison))
    for name in comparison.cells["benchmark"].unique():
        cells = comparison.cells[comparison.cells["benchmark"] == name]
        descriptor = descriptors.get(name)
        for metric in sorted(cells["metric"].unique(), key=[m.name for m in descriptor.metrics].index if descriptor else str):
            console.print()
            console.print(cell_table(name, cells, descriptor, metric))
    console.print()
    console.print(Text(brief.counts_sentence(comparison)))
    console.print(Text(reason), style="bold")


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


def exit_code(comparison: Any, require_precision: bool, gated: Sequence[Any] = ()) -> int:
    """The comparison's own code, or that of the gates where there are any; 5 when precision is required, something is not known and nothing is worse."""
    from ..errors import IMPRECISE, INCOMPARABLE, OK, REGRESSION

    code = comparison.exit_code
    if gated:
        code = REGRESSION if any(g.failed for g in gated) else OK if all(g.compared for g in gated) else INCOMPARABLE
    if require_precision and code == OK and comparison.summary.get("unresolved"):
        return IMPRECISE
    return code


def topics_of(*logs: Any) -> dict[str, str]:
    """Benchmark -> topic, as the logs say, or of the benchmarks that are known here."""
    from ..benchmarks import discover

    known = {name: benchmark.topic for name, benchmark in discover().items()}
    said = {record.name: record.topic for log in logs for record in log.benchmarks if record.topic}
    return {record.name: known.get(record.name, "") for log in logs for record in log.benchmarks} | said


@click.command("compare", epilog=EPILOG, short_help="Is NEW faster, slower or the same as BASE?")
@click.argument("base")
@click.argument("new")
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "html", "markdown", "junit")),
    default="text",
    show_default=True,
    help="What to print; all but text go to -o when that is given.",
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
@click.option("--cells", "all_cells", is_flag=True, help="Print every row, metric and cell, with all reasons.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this benchmark or topic; repeatable, or with commas.")
@click.option(
    "--prices", type=Prices(), metavar="A=0.23,B=0.27", help="What each machine costs, by its alias: rows per unit of money."
)
@click.option(
    "--last",
    type=click.IntRange(1),
    metavar="N",
    help="BASE is a history: of it the last N visits to NEW's machine before NEW, itself left out. Exit code 1 is for rows that are worse by --same at least.",
)
@click.option("--fail-if", "conditions", multiple=True, metavar="CONDITION", help="Exit with 1 for this alone; repeatable.")
@click.option(
    "--across-builds", is_flag=True, help="On one machine, compare kernels of the same version that were built anew, too."
)
@click.option("--require-precision", is_flag=True, help="Exit with 5 while any verdict is not known.")
@opens_page
@click.pass_context
def command(
    ctx: click.Context,
    base: str,
    new: str,
    form: str,
    output: Path | None,
    same: float,
    all_cells: bool,
    only: tuple[str, ...],
    prices: dict[str, float] | None,
    last: int | None,
    conditions: tuple[str, ...],
    across_builds: bool,
    require_precision: bool,
) -> None:
    """Compare NEW against BASE, each a run log or a folder of logs.

    A row for each headline quantity says what NEW is against BASE, with the 95 % interval and a verdict: worse, better, same or not known.
    Not known never means "no difference": what would settle it is said below. What is not the same quantity is not compared.
    """
    from ..analysis.compare import compare
    from ..analysis.gates import apply_gate, chosen, parse_gate
    from ..analysis.past import before, load_history
    from ..report import brief
    from ..runlog.read import load
    from ..text import printable
    from .compared import WRITERS
    from .console import Terminal

    gates = [parse_gate(text) for text in conditions]
    right = load(new)
    left = before(load_history(base), right, last, across_builds) if last else load(base)
    topics = topics_of(left, right)
    names = [name for part in only for name in part.split(",") if name.strip()]
    wanted = chosen(names, topics, topics) if only else ()
    pair = price_pair(prices, left, right) if prices else None
    comparison = compare(
        left, right, same=same, across_builds=across_builds, prices=pair, only=wanted, least=same if last else None
    )
    gated = [apply_gate(gate, comparison.rows, topics, comparison.q) for gate in gates]
    code = exit_code(comparison, require_precision, gated)
    reason = brief.exit_reason(comparison, code, gated)
    body = None
    if form == "html" or (output and form == "text"):
        from ..report.page import render_comparison
        from .progress import Rendering

        with Rendering(Terminal(outlives_reader=True, stderr=form != "text")) as line:
            body = render_comparison(comparison, left, right, line)
    elif form != "text":
        body = WRITERS[form](comparison, code, reason, gated)
    if output:  # before anything is printed: whoever reads that may go away
        from .report import write_page

        write_page(body, output)
    if form == "text":
        terminal = Terminal(outlives_reader=True)  # the verdict is the exit code
        if all_cells:
            print_comparison(terminal, comparison, descriptors_of(left, right), reason)
        else:
            print_rows(terminal, comparison, reason, told=[brief.seen(comparison)] if last else [])
    if output:
        say(f"{'page' if form == 'text' else form}: {printable(str(output))}", err=form != "text")
    elif form != "text":
        say(body)
    ctx.exit(code)


def descriptors_of(left: Any, right: Any) -> dict[str, Any]:
    """Benchmarks as their cells are compared."""
    from ..analysis.align import aligned
    from ..report.page import merge_descriptors

    matched = aligned(left, right)
    return {d.name: d for d in merge_descriptors([*matched[0].benchmarks, *matched[1].benchmarks])}
