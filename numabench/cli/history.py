"""`numabench history`: when the figures of a machine changed for good, by how much, and what changed with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..errors import INCOMPARABLE, OK, REGRESSION
from ..text import printable
from ..units import plural
from .compare import Share
from .outputs import as_json, deliver, json_option

if TYPE_CHECKING:
    from ..analysis.history import Change, Chronicle, History, Moved

MOST_LISTED = 40  # machines of which nothing is to be said but how they are
MOST_FACTS = 6  # of a change


@click.command("history")
@click.argument("path", metavar="LOG|FOLDER")
@click.argument("machine", required=False)
@click.option(
    "--same",
    type=Share(),
    default="3%",
    show_default=True,
    metavar="SHARE",
    help="Exit with 1 where something became worse by so much.",
)
@click.option(
    "--by",
    "unit",
    type=click.Choice(("day", "visit")),
    default="day",
    show_default=True,
    help="What is taken for one: with visit, what wanders from day to day can pass for a change.",
)
@json_option
@click.option("--output", "-o", metavar="FILE", help="Write it there.")
@click.pass_context
def command(ctx: click.Context, path: str, machine: str | None, same: float, unit: str, form: str, output: str | None) -> None:
    """Say when a machine's figures changed for good: MACHINE (an alias or an id), or every machine that has visits there.

    It takes twelve days with visits. One test looks at all benchmarks of a machine at once, and calls one machine in twenty changed whose days do not depend on each other (more
    where figures wander for days: METHODOLOGY); of several machines those with a change are chosen so that one in twenty of them has none. The facts that changed with the
    figures stand beside them: they may be the cause.

    \b
    Examples:
      numabench history runs
      numabench history runs web-3 --format json
      numabench history runs --by visit          twelve visits, whatever the day

    Exit code: 0 nothing became worse, 1 something did by 3 % or more (--same), 4 nothing could be judged.
    """
    from ..analysis.collect import read_fleet
    from ..analysis.history import judge_history
    from .console import Terminal
    from .progress import Rendering

    with Rendering(Terminal(outlives_reader=True, stderr=form != "text"), task="judging the visits") as line:
        visited, unread, notes = read_fleet([path], lambda done, of: line("logs", done, of))
        found = judge_history(visited, unread, notes, machine, unit)
    text = as_text(found) if form == "text" else as_json(found)
    deliver(text, form, output)
    ctx.exit(exit_code(found, same))


def exit_code(found: History, same: float) -> int:
    from ..analysis.history import worse

    if worse(found, same):
        return REGRESSION
    return OK if any(one.p is not None for one in found.machines) else INCOMPARABLE


def as_text(found: History) -> str:
    changed = [one for one in found.machines if one.changes]
    lines = [line for one in changed for line in of_changed(one, found.unit)]
    still = [one for one in found.machines if one.p is not None and not one.changes]
    waiting = [one for one in found.machines if one.p is None]
    for some, tell in ((still, of_unchanged), (waiting, of_waiting)):
        lines += [tell(one, found.unit) for one in some[:MOST_LISTED]]
        lines += (
            [f"and {plural(len(some) - MOST_LISTED, 'machine')} more of which the same is said"]
            if len(some) > MOST_LISTED
            else []
        )
    lines += [f"not read: {printable(path)}: {why}" for path, why in found.unread.items()]
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join(lines) + "\n"


def whole(one: Chronicle, unit: str) -> str:
    """`web: 24 visits on 22 days, 2026-01-01 to 2026-01-28`."""
    days = f" on {plural(one.units, 'day')}" if unit == "day" else ""
    noisy = f", {one.noisy} of them noisy and left out" if one.noisy else ""
    return f"{one.alias}: {plural(one.visits, 'visit')}{days}{noisy}, {one.first[:10]} to {one.last[:10]}"


def of_changed(one: Chronicle, unit: str) -> list[str]:
    lines = [f"{whole(one, unit)}, {plural(one.cells, 'cell')} of {plural(one.benchmarks, 'benchmark')}{short_text(one)}"]
    for change in one.changes:
        lines.append(f"  since {when(change, unit)}  p {change.p:.2g}  run {change.run}")
        lines += [f"    {moved_text(moved)}" for moved in change.moved]
        lines.append(f"    {facts_text(change)}")
    return lines


def when(change: Change, unit: str) -> str:
    return change.since[:10] if unit == "day" else change.since.replace("T", " ").removesuffix("Z")


def moved_text(moved: Moved) -> str:
    """`worse   memory latency +6.1 % (quartiles +5.4 to +6.8 %, 18 of 18 cells)`."""
    low, high = (f"{100 * share:+.1f}" for share in (moved.low, moved.high))
    cells = f", {moved.alike} of {moved.cells} cells" if moved.cells > 1 else ""
    quartiles = f"quartiles {low} to {high} %" if moved.cells > 1 else "one cell"
    return f"{moved.verdict:7} {moved.title}, {moved.metric.replace('_', ' ')} {100 * moved.change:+.1f} % ({quartiles}{cells})"


def facts_text(change: Change) -> str:
    if not change.facts:
        return "no recorded fact changed with it"
    said = [f"{name} {before} → {after}" for name, (before, after) in change.facts.items()]
    more = f"; {len(said) - MOST_FACTS} more" if len(said) > MOST_FACTS else ""
    return f"changed with it: {'; '.join(said[:MOST_FACTS])}{more}"


def of_unchanged(one: Chronicle, unit: str) -> str:
    seen = ""
    if one.seen:
        middle, least, most = (f"{100 * share:g} %" for share in one.seen)
        seen = f"; a step of {middle} in one benchmark would have been seen" + (
            f" ({least} to {most} of them)" if least != most else ""
        )
    return f"{whole(one, unit)}: no change{seen}{short_text(one)}"


def of_waiting(one: Chronicle, unit: str) -> str:
    return f"{whole(one, unit)}: {plural(one.needs, unit)} more with the same benchmarks, and changes can be told"


def short_text(one: Chronicle) -> str:
    """`; too few days by one method: Memory latency`."""
    return f"; too few for: {', '.join(one.short[:MOST_FACTS])}{' …' if len(one.short) > MOST_FACTS else ''}" if one.short else ""
