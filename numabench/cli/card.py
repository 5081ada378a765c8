"""`numabench card`: what a machine costs, on one screen, as a picture or as a table to paste."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import in_shell, printable
from ..units import format_number, format_quantity
from . import say
from .logs import named_or_own, read_visits, say_notes, visit_options
from .outputs import json_option, write

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ..analysis.card import MachineCard, Price

EPILOG = """\b
Examples:
  numabench card                           all runs of this machine, on this terminal
  numabench card -o card.png               1,200 by 630 pixels, to show around
  numabench card results/a results/b       several machines, one card each
  numabench card run.jsonl -o card.md      a table for an issue or a pull request
Bars are on a logarithmic scale; whiskers and ranges are 95 % intervals. The page of `numabench report` has all the rest."""

FIGURE = 12  # characters before the words
BAR = 18  # characters of the longest bar
SCREEN = 24  # lines of a terminal, which
BELOW = 4  # the lines below a card have a part of: where the page is, what to type next, the prompt
PRICES, LEAST_PRICES, FEWEST_PRICES = 10, 5, 3  # of the ladder: at most, while anything else can give way, and at least
MARK = 8  # characters beside a bar
MAP_LINES = (
    12,
    9,
    6,
    0,
)  # of a map between CPUs: the first that leaves room for the ladder; 0: its groups in words and their CPUs
COLUMN = 8  # characters of a node's figures
MOST_COLUMNS = 8  # of a matrix between nodes that is printed


def show(console: Console, card: MachineCard, every: bool = False) -> None:
    """The card on a terminal: 24 lines at 80 columns unless `every` price is asked for."""
    for line in every_line(console, card) if every else screen(console, card):
        console.print(line, no_wrap=True, crop=True, soft_wrap=line.overflow == "ignore")


def every_line(console: Console, card: MachineCard) -> list[Text]:
    return put_together(console, card, card.prices, matrix(card, console, MAP_LINES[0]))


def screen(console: Console, card: MachineCard) -> list[Text]:
    """As much as a screen holds. What is said elsewhere as well gives way first, then the ladder and the map in turn; both stay as long as they can."""
    lines: list[Text] = []
    pictures = [matrix(card, console, height) for height in MAP_LINES]
    sizes = [
        *((pictures[0], count, False) for count in range(PRICES, LEAST_PRICES - 1, -1)),
        *((picture, count, True) for picture in pictures for count in range(PRICES, LEAST_PRICES - 1, -1)),
        *((pictures[-1], count, True) for count in range(LEAST_PRICES - 1, FEWEST_PRICES - 1, -1)),
    ]
    for picture, count, brief in sizes:
        lines = put_together(console, card, kept(card, count, bool(picture)), picture, brief)
        if height_of(lines, console) <= SCREEN - BELOW:
            break
    return lines


def height_of(lines: Sequence[Text], console: Console) -> int:
    return sum(max(1, -(-line.cell_len // console.width)) for line in lines)


def put_together(
    console: Console, card: MachineCard, shown: Sequence[Price], picture: Sequence[Text], brief: bool = False
) -> list[Text]:
    """Lines of the whole card. `brief`: without what the page says as well, and without a blank line that can be spared."""
    from rich.text import Text

    trust = Text.assemble((f"{card.trust.word}: ", "bold green" if card.trust.good else "bold yellow"), card.trust.reasons)
    beside = len(card.title) + len(card.visits) + 3 <= console.width
    title = Text.assemble((card.title, "bold"), (f" ({card.visits})" if beside else "", "dim"))
    facts = Text(card.facts if beside else " · ".join(filter(None, (card.facts, card.visits))), style="dim")
    gap = [] if brief and card.prices else [Text()]
    lines = [part for line in (title, facts, trust) if line for part in folded(line, console)] + gap
    if card.prices:
        lines += ladder(shown, console) + gap
    lines += sentences(card, shown, console, picture)
    lines += picture
    if card.missing and not brief:
        lines += folded(Text(f"Not measured: {', '.join(card.missing)}", style="dim"), console)
    if card.trust.remedy:
        lead = "To settle the rest: " if card.trust.good else "See: "
        lines.append(Text.assemble(lead, (card.trust.remedy, "bold"), overflow="ignore"))  # one line, to be pasted
    return lines


def folded(text: Text, console: Console, indent: int = 0) -> list[Text]:
    """Lines of the terminal's width, those after the first indented."""
    from rich.text import Text

    lines = text.wrap(console, console.width)
    if indent and len(lines) > 1:
        rest = Text(" ").join(lines[1:]).wrap(console, console.width - indent)
        lines = [lines[0], *(Text(" " * indent).append_text(line) for line in rest)]
    for line in lines:
        line.rstrip()
    return list(lines)


def kept(card: MachineCard, count: int, pictured: bool) -> list[Price]:
    """So many of the prices: those that declare the lowest ranks, and last those that are figures of the picture."""
    told = set(card.cells["value"]) if pictured and node_view(card) else ()
    chosen = sorted(card.prices, key=lambda price: (price.value in told, price.rank))[:count]
    return [price for price in card.prices if price in chosen]


def ladder(prices: Sequence[Price], console: Console) -> list[Text]:
    """A line a price: the figure, what it buys, and a bar on a logarithmic scale; `±9 %` where it is rough."""
    from rich.text import Text

    if not prices:
        return []
    least, most = math.log(prices[0].value / 1.5), math.log(prices[-1].value)
    name = max(len(price.name) for price in prices)
    room = min(BAR, console.width - FIGURE - name - MARK)
    sign = "#" if console.options.ascii_only else "█"
    lines = []
    for price in prices:
        length = max(1, round(room * (math.log(price.value) - least) / (most - least))) if room > 0 else 0
        lines.append(
            Text.assemble(
                (f"{price.text:>{FIGURE - 2}}", "bold"),
                f"  {price.name:<{name}} ",
                (sign * length, "blue" if price.topic == "memory" else "magenta"),
                (f" {price.mark}", "yellow") if price.mark else "",
            )
        )
    return lines


def sentences(card: MachineCard, shown: Sequence[Price], console: Console, picture: Sequence[Text] = ()) -> list[Text]:
    """The tiles that neither the ladder nor the picture says already, and the finding of the picture; notes as far as a line has room."""
    from rich.text import Text

    from ..analysis.answers import ROUGH

    told = {price.text for price in shown}
    nodes = bool(picture) and node_view(card)
    if nodes:
        told |= {format_quantity(value, "ns") for value in card.cells["value"]}
    lines = []
    for tile in card.tiles:
        if tile.value in told:
            continue
        value = f"~{tile.value}" if tile.grade == ROUGH else tile.value  # a word would not fit beside the longest
        said = tile.words
        for note in tile.notes:
            said += f"; {note}" if FIGURE + len(f"{said}; {note}") < console.width else ""
        lines += folded(Text.assemble((f"{value:>{FIGURE - 2}}", "bold"), f"  {said}"), console, FIGURE)
    if card.finding and not nodes and not any(tile.value in card.finding for tile in card.tiles):
        lines += folded(Text(f"{'':>{FIGURE}}{card.finding}"), console, FIGURE)
    return lines


def node_view(card: MachineCard) -> bool:
    """Whether the picture is a matrix between nodes, which a terminal says in figures."""
    return card.picture is not None and card.picture.view.kind == "heatmap" and not card.picture.view.both


def matrix(card: MachineCard, console: Console, height: int) -> list[Text]:
    """The picture where it is a matrix: between nodes as figures, between CPUs as a map of so many lines."""
    from rich.text import Text

    from ..report.heatmaps import ANNOTATE
    from .heatmap import draw_view, has_colours

    if card.picture is None or card.picture.view.kind != "heatmap":
        return []
    view = card.picture.view
    if not view.both:
        return node_matrix(card.cells, view.y, view.x)
    figures = len(view.both) <= min(ANNOTATE, height - len(view.borders))  # in shades of a few cells nothing is told
    drawn = height and (has_colours(console) or figures)
    lines = []
    for group in card.groups:
        lines += folded(Text.assemble((f"{group.value:>{FIGURE - 2}}", "bold"), f"  {group.words}"), console, FIGURE)
        if not drawn:
            lines.append(Text(f"{'':>{FIGURE}}{listed(group.members, console.width - FIGURE)}"))
    if drawn:
        lines += draw_view(console, card.cells, view, card.topology, height)
    return lines


def listed(members: Sequence[str], width: int) -> str:
    """`CPUs 0-3 | 4-7 | 8-11`: as many groups as a line has room for, and how many more there are."""
    said = f"CPUs {' | '.join(members)}"
    for count in range(len(members) - 1, -1, -1):
        if len(said) <= width:
            break
        said = f"CPUs {' | '.join(members[:count])}, {len(members) - count} more groups" if count else ""
    return said


def node_matrix(rows: Any, down: str, across: str) -> list[Text]:
    """Figures of every node with CPUs (down) to every node with memory (across), in ns."""
    from rich.text import Text

    columns, lines = sorted(set(rows[across].astype(int))), sorted(set(rows[down].astype(int)))
    if max(len(columns), len(lines)) > MOST_COLUMNS:
        return []
    values = {(int(r[down]), int(r[across])): r["value"] for r in rows.to_dict("records")}
    head = Text(f"{'memory, ns':>12}" + "".join(f"{f'node {c}':>{COLUMN}}" for c in columns), style="dim")
    return [head] + [
        Text.assemble(
            (f"{f'from node {line}':>12}", "dim"),
            "".join(f"{format_number(values.get((line, c), math.nan)):>{COLUMN}}" for c in columns),
        )
        for line in lines
    ]


def markdown(card: MachineCard) -> str:
    """A table of prices and tiles, for an issue or a pull request."""
    from ..analysis.answers import ROUGH

    rows = ["| what | here | 95 % interval |", "|---|---:|---|"]
    rows += [f"| {literal(tile.words)} | **{tile.value}** | {literal(tile.small)} |" for tile in card.tiles]
    for price in card.prices:
        rough = f" ({', '.join(dict.fromkeys((ROUGH, price.mark)))})" if price.mark else ""
        rows.append(f"| {literal(price.name)} | {price.text} | {price.interval}{rough} |")
    step = f" {card.trust.next_step.replace(card.trust.remedy, f'`{card.trust.remedy}`')}." if card.trust.remedy else ""
    trust = f"**{card.trust.word}.** {literal(f'{card.trust.reasons} {card.visits}')}.{step}"
    parts = [f"### {literal(card.title)}", literal(card.facts), trust]
    if card.finding:
        parts.append(literal(card.finding) + ".")
    return "\n\n".join([*parts, "\n".join(rows), f"<sub>{literal(card.source)}</sub>"]) + "\n"


def literal(text: str) -> str:
    """Text that Markdown shows as it is: no table cell, link, picture, code, mention or HTML."""
    return re.sub(r"([\\|<>\[\]!`@*_#])", r"\\\1", text)


def plain_text(cards: Sequence[MachineCard]) -> str:
    import io

    from .console import Terminal

    text = io.StringIO()
    console = Terminal(file=text, width=80, no_color=True, force_terminal=False)
    for number, card in enumerate(cards):
        if number:
            console.print()
        show(console, card)
    return text.getvalue()


KINDS = ("png", "svg", "md", "txt")


@click.command("card", epilog=EPILOG, short_help="One screen: what operations cost here.")
@click.argument("paths", nargs=-1, metavar="[LOG|FOLDER]...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a picture (.png, .svg), a table (.md) or text (.txt) instead.",
)
@visit_options
@json_option
def command(paths: tuple[str, ...], output: Path | None, last: bool, without: tuple[str, ...], form: str) -> None:
    """What one operation costs on this machine, five figures, and how far to trust them.

    Without paths: all runs of this machine in results/<alias>/.
    """
    from ..analysis.card import Reading, as_data
    from ..errors import UsageError
    from .console import Terminal
    from .report import write_page

    kind = output.suffix.lstrip(".").lower() if output else ""
    if output and kind not in KINDS:
        raise UsageError(
            f"a card is no {output.suffix or 'file without an ending'}", f"give a name that ends with .{', .'.join(KINDS)}"
        )
    paths = named_or_own(paths)
    log = read_visits(paths, last, without)
    found = Reading(log).cards
    if not found:
        raise UsageError(
            "nothing of these logs belongs on a card: an older version wrote them, or none of its benchmarks was measured",
            f"numabench run --profile quick, or {in_shell('numabench', 'report', *paths)}",
        )
    say_notes(log)
    if form == "json":
        write([as_data(card) for card in found])
        return
    if output is None:
        console = Terminal()
        for number, card in enumerate(found):
            if number:
                console.print()
            show(console, card)
        return
    if kind in ("png", "svg"):
        from ..report.card import picture

        if len(found) > 1:
            raise UsageError(f"a picture shows one machine, and these logs are of {len(found)}", "name the logs of one of them")
        write_page(picture(found[0], kind), output)
    else:
        write_page("\n".join(map(markdown, found)) if kind == "md" else plain_text(found), output)
    say(f"card: {printable(str(output))}")
