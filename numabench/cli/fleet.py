"""`numabench fleet`: which of many machines that should be equal are not."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import IMPRECISE, INCOMPARABLE, OK, REGRESSION, UsageError
from ..text import printable
from ..units import plural
from .opening import opens_page
from .outputs import as_json, deliver

if TYPE_CHECKING:
    from ..analysis.cohorts import Cohort, Fleet, Member

FORMATS = ("text", "json", "csv", "hostlist", "html")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MOST_NAMED = 40  # machines of one state that are listed


@click.command("fleet")
@click.argument("paths", nargs=-1, required=True, metavar="LOG|FOLDER...")
@click.option(
    "--same",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 50),
    metavar="N",
    help="Differences under N % are not claimed.",
)
@click.option(
    "--cohort", "more", multiple=True, metavar="FACT", help="Machines that differ in this fact need not be equal. Repeatable."
)
@click.option(
    "--require-all",
    is_flag=True,
    help="Exit code 5 where a suspect is unconfirmed, a log could not be judged, or a host was not measured.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="text, or what FILE ends with (.html: a page). hostlist: the unlike ones' names, comma-separated.",
)
@click.option("--output", "-o", metavar="FILE", help="Write it there.")
@opens_page
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    same: float,
    more: tuple[str, ...],
    require_all: bool,
    form: str | None,
    output: str | None,
) -> None:
    """Name the machines that are unlike the others of their kind, and why.

    Machines of one brand, model, number of packages and product should be equal. A first visit to each names suspects; visits made after that
    to the suspects decide, each by itself. Whatever differs is shown with its cause: a recorded fact that no other machine has, a pattern in what moved, or unknown.
    A folder keeps what was read of its logs in index.sqlite, which can be deleted: the next time only new and changed logs are read.

    \b
    Examples:
      numabench fleet runs
      numabench fleet runs -o fleet.html         a page: the unlike ones, and all machines at a glance
      numabench fleet runs --format hostlist     for scontrol or pdsh
      numabench fleet runs --cohort condition.firmware.version

    Exit code: 0 all alike, 1 a machine differs or there are two kinds, 4 nothing could be judged, 5 with --require-all where suspects are open or hosts of a launch were not measured.
    """
    import msgspec

    from ..analysis.cohorts import judge_fleet
    from ..analysis.collect import read_fleet
    from ..runlog.expected import unmeasured
    from .console import Terminal
    from .progress import Rendering

    form = form or {".html": "html", ".json": "json", ".csv": "csv"}.get(Path(output or "").suffix.lower(), "text")
    with Rendering(Terminal(outlives_reader=True, stderr=form != "text"), task="judging the fleet") as line:
        visited, unread, notes = read_fleet(paths, lambda done, of: line("logs", done, of))
        found = judge_fleet(visited, unread, notes, same / 100, more)
        found = msgspec.structs.replace(found, unmeasured=unmeasured(paths))
    code = exit_code(found, require_all)
    text = {"text": as_text, "json": as_json, "csv": as_csv, "hostlist": hostlist, "html": as_page}[form](found)
    deliver(text, form, output)
    ctx.exit(code)


def exit_code(found: Fleet, require_all: bool) -> int:
    from ..analysis.cohorts import NOISY
    from ..analysis.fleet import ALIKE, DIFFERS, SUSPECT

    if found.of(DIFFERS) or any(cohort.groups for cohort in found.cohorts):
        return REGRESSION
    if not found.of(ALIKE, SUSPECT):
        return INCOMPARABLE
    return IMPRECISE if require_all and (found.of(SUSPECT, NOISY) or found.unread or found.unmeasured) else OK


def as_text(found: Fleet) -> str:
    lines = [line for cohort in found.cohorts for line in of_cohort(cohort)]
    lines += [f"{host}  not measured: {why}" for host, why in [*found.unmeasured.items()][:MOST_NAMED]]
    if (rest := len(found.unmeasured) - MOST_NAMED) > 0:
        lines.append(f"and {plural(rest, 'host')} more that were not measured; --format csv names all")
    lines += [f"not read: {printable(path)}: {why}" for path, why in found.unread.items()]
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join(lines) + "\n"


def of_cohort(cohort: Cohort) -> list[str]:
    from ..analysis.cohorts import NOISY, words
    from ..analysis.fleet import ALIKE, DIFFERS, LEAST_MACHINES, SUSPECT, UNJUDGED
    from ..report.fleet import headline, would_show

    counts = {state: len(cohort.of(state)) for state in (DIFFERS, SUSPECT, UNJUDGED)}
    lines = [
        f"{headline(cohort)}. {cohort.cells} cells"
        + (f"; every other time it would have shown: {would_show(cohort)}." if counts[UNJUDGED] < len(cohort.members) else ".")
    ]
    if counts[UNJUDGED] == len(cohort.members):
        lines.append(f"  Too few to tell who is unlike: {LEAST_MACHINES} are needed. Compare two: numabench compare LOG LOG")
    if cohort.groups:
        many, few = cohort.groups.sizes
        lines.append(
            f"  Two kinds of machines, {many} and {few}, each of which is judged by itself. The fewer: {', '.join(cohort.groups.smaller[:MOST_NAMED])}"
        )
        lines += [f"    {said}" for said in cohort.groups.parting] or ["    no fact parts them"]
    for state in (DIFFERS, SUSPECT):
        lines += [text for member in cohort.of(state)[:MOST_NAMED] for text in of_member(member)]
        if counts[state] > MOST_NAMED:
            lines.append(f"  and {counts[state] - MOST_NAMED} more; --format csv names all")
    suspects = cohort.of(SUSPECT)
    if suspects:
        lines.append(
            f"  To decide: numabench launch --suspects RUNS, or numabench run there, twice more {'on it' if len(suspects) == 1 else 'on each of them'}, and numabench fleet again with all logs."
        )
    lines += [
        f"{member.alias}  {NOISY}: other programs had its CPUs in all of its visits" for member in cohort.of(NOISY)[:MOST_NAMED]
    ]
    facts = [(member, fact, own, most) for member in cohort.of(ALIKE) for fact, (own, most) in member.odd.items()]
    lines += [
        f"{member.alias}  alike, with a fact of its own: {words(fact)} is {own} ({most} on most)"
        for member, fact, own, most in facts[:MOST_NAMED]
    ]
    return lines


def of_member(member: Member) -> list[str]:
    """What moved, benchmark by benchmark with the most of it first, and why."""
    from ..report.fleet import what_moved

    return [f"{member.alias}  {member.state}: {'; '.join(what_moved(member))}", f"    {member.grade}: {member.cause}"]


def as_page(found: Fleet) -> str:
    from ..report.fleet import render_fleet

    return render_fleet(found)


def as_csv(found: Fleet) -> str:
    """A line for each machine and cell that differs, one for each machine without, and one for each host that was not measured."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        (
            "cohort",
            "machine",
            "id",
            "state",
            "visits",
            "p",
            "benchmark",
            "metric",
            "unit",
            "parameters",
            "change",
            "grade",
            "cause",
        )
    )
    for cohort in found.cohorts:
        for member in cohort.members:
            own = (cohort.name, member.alias, member.id, member.state, member.visits, member.p)
            rows = [
                (cell.benchmark, cell.metric, cell.unit, " ".join(f"{k}={v}" for k, v in cell.parameters.items()), f"{share:.4f}")
                for cell, share in zip(member.cells, member.change, strict=True)
            ]
            for row in rows or [("",) * 5]:
                table.writerow([safe(each) for each in (*own, *row, member.grade, member.cause)])
    for host, why in found.unmeasured.items():
        table.writerow([safe(each) for each in ("", host, "", "not measured", 0, *[""] * 7, why)])
    return text.getvalue()


def safe(value: object) -> object:
    """Spreadsheets take what begins so for a formula."""
    return (
        f"'{value}"
        if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") and not value.lstrip("+-").replace(".", "").isdigit()
        else value
    )


def hostlist(found: Fleet) -> str:
    from ..analysis.fleet import DIFFERS

    unlike = found.of(DIFFERS)
    names = sorted({member.hostname or member.alias for member in unlike})
    shared = [name for name in names if sum((m.hostname or m.alias) == name for c in found.cohorts for m in c.members) > 1]
    odd = [name for name in names if not HOST.fullmatch(name)]
    if odd or shared:
        what = f"{odd[0]!r} is no name of a host" if odd else f"several machines are called {shared[0]!r}"
        raise UsageError(f"no list of hosts can be made: {what}", "--format csv names machines by id as well")
    return ",".join(names) + "\n" if names else ""
