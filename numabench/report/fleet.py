"""What `numabench fleet` says, in words for the terminal and as a page: who is unlike, in what, why, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..analysis.cohorts import NOISY, Cohort, Fleet, Member, words
from ..analysis.digest import Cell
from ..analysis.fleet import ALIKE, DIFFERS, LEAST_MACHINES, SUSPECT, UNJUDGED
from ..model import HIGHER, Frozen
from ..text import in_shell
from ..units import plural

STATES = (ALIKE, DIFFERS, SUSPECT, NOISY, UNJUDGED)
MOST_SAID = 3  # benchmarks of which a machine's line speaks
MOST_ROWS = 300  # machines of a page's table, and other lines of one kind
MOST_SHOWN = 1_000  # machines of the map: of more the unlike ones first
BAND = 100  # machines beside each other
#: p of a benchmark's cells on an equal machine, from which on its place in the map is darker.
SHADES = (1e-3, 1e-4, 1e-6)
MOST_NAMES = 8  # of the unlike ones that a band names


def headline(cohort: Cohort) -> str:
    """`12 machines (…): 10 alike, 2 differ`"""
    return f"{plural(len(cohort.members), 'machine')} ({cohort.name}): {counted(cohort)}"


def counted(cohort: Cohort) -> str:
    counts = {state: len(cohort.of(state)) for state in STATES}
    return ", ".join(
        f"{count} {'differ' if state == DIFFERS and count > 1 else state}" for state, count in counts.items() if count
    )


def would_show(cohort: Cohort) -> str:
    """`2.7% in one cell, 1.9% in a tenth of them at once`."""
    where = "in one cell", "in a tenth of them at once"
    return ", ".join(
        f"{least:.1%} {place}" if least else f"nothing {place}" for least, place in zip(cohort.shown, where, strict=True)
    )


def by_benchmark(member: Member) -> dict[str, list[tuple[float, Cell]]]:
    """What moved: title -> changes and cells, the largest change first."""
    found: dict[str, list[tuple[float, Cell]]] = {}
    for share, cell in zip(member.change, member.cells, strict=True):
        found.setdefault(cell.title, []).append((share, cell))
    return dict(sorted(found.items(), key=lambda each: -max(abs(share) for share, _ in each[1])))


def what_moved(member: Member) -> list[str]:
    """A text for each benchmark, the first ones by name and the others by number."""
    parts = [moved(each) for each in by_benchmark(member).values()]
    rest = [f"and {plural(len(parts) - MOST_SAID, 'benchmark')} more"] if len(parts) > MOST_SAID else []
    return [*parts[:MOST_SAID], *rest]


def moved(cells: list[tuple[float, Cell]]) -> str:
    """`Memory latency +12.1% (11.4% to 12.9%, 18 cells)`, or its one cell by parameters."""
    shares = sorted(share for share, _ in cells)
    if len(cells) == 1:
        return f"{cell_text(cells[0][1])} {shares[0]:+.1%}"
    return f"{cells[0][1].title} {shares[len(shares) // 2]:+.1%} ({shares[0]:+.1%} to {shares[-1]:+.1%}, {len(cells)} cells)"


def cell_text(cell: Cell) -> str:
    where = ", ".join(f"{name} {value}" for name, value in cell.parameters.items())
    return f"{cell.title} ({where})" if where else cell.title


# -- the page -------------------------------------------------------------------------------------------------------------


class Row(Frozen):
    """An unlike machine in the table. `command`: what to type there, if anything."""

    member: Member
    moved: list[str]
    next: str
    command: str = ""


class Mark(Frozen):
    """A place in the map that is not as usual: its column, how dark, to which side, and what it says."""

    x: int
    shade: int
    side: str
    said: str


class Line(Frozen):
    name: str
    marks: list[Mark]


class Band(Frozen):
    """Machines beside each other: from which to which, the names of the unlike ones, and a line for the state and for each benchmark."""

    title: str
    width: int
    names: str
    lines: list[Line]


class View(Frozen):
    """A cohort as the page shows it."""

    cohort: Cohort
    counts: str
    shown: str  # empty where nothing was judged
    rows: list[Row]
    left_out: int
    bands: list[Band]
    hidden: int
    facts: list[str]
    unjudged: list[tuple[str, str]]


def render_fleet(found: Fleet) -> str:
    """The page. All texts of logs are escaped by the template."""
    from .page import environment
    from .theme import lean

    views = [view_of(cohort) for cohort in found.cohorts]
    unlike, open_ones = len(found.of(DIFFERS)), len(found.of(SUSPECT))
    machines = sum(len(cohort.members) for cohort in found.cohorts)
    title = f"Fleet of {plural(machines, 'machine')}: {unlike} {'differs' if unlike == 1 else 'differ'}"
    return lean(
        environment()
        .get_template("fleet.html.j2")
        .render(
            title=title,
            sentence=verdict(found, machines, unlike, open_ones),
            views=views,
            found=found,
            unread=list(found.unread.items())[:MOST_ROWS],
            unmeasured=list(found.unmeasured.items())[:MOST_ROWS],
            shades=", ".join(f"1 in {1 / least:,.0f}" for least in SHADES),
            most=MOST_ROWS,
        )
    )


def verdict(found: Fleet, machines: int, unlike: int, suspects: int) -> str:
    """What a reader came for, in one sentence."""
    judged = machines - len(found.of(NOISY, UNJUDGED))
    if not judged:
        return f"None of {plural(machines, 'machine')} could be judged."
    parts = [f"{unlike} of {judged} machines {'is' if unlike == 1 else 'are'} unlike the others of their kind"]
    if not unlike:
        parts = [f"No machine of {judged} is known to be unlike the others of its kind"]
    if suspects:
        parts.append(f"{plural(suspects, 'suspect')} {'waits' if suspects == 1 else 'wait'} for a second look")
    if machines > judged:
        parts.append(f"{machines - judged} could not be judged")
    if found.unmeasured:
        parts.append(f"{plural(len(found.unmeasured), 'host')} {'was' if len(found.unmeasured) == 1 else 'were'} not measured")
    if found.unread:
        parts.append(f"{plural(len(found.unread), 'log')} could not be read")
    if kinds := sum(cohort.groups is not None for cohort in found.cohorts):
        parts.append(f"{plural(kinds, 'cohort')} {'is' if kinds == 1 else 'are'} of two kinds")
    return "; ".join(parts) + "."


def view_of(cohort: Cohort) -> View:
    unlike = cohort.of(DIFFERS) + cohort.of(SUSPECT)
    judged = [member for member in cohort.members if member.state not in (NOISY, UNJUDGED)]
    shown = sorted(judged, key=lambda member: member.state == ALIKE)[:MOST_SHOWN]
    return View(
        cohort=cohort,
        counts=f"{plural(len(cohort.members), 'machine')}: {counted(cohort)}",
        shown=would_show(cohort) if judged else "",
        rows=[Row(member, what_moved(member), *next_step(member)) for member in unlike[:MOST_ROWS]],
        left_out=max(0, len(unlike) - MOST_ROWS),
        bands=list(bands(sorted(shown, key=lambda member: in_order(member.alias)), cohort.benchmarks)),
        hidden=len(judged) - len(shown),
        facts=[
            f"{member.alias}: {words(fact)} is {own} ({most} on most)"
            for member in cohort.of(ALIKE)
            for fact, (own, most) in member.odd.items()
        ],
        unjudged=[
            *((member.alias, "other programs had its CPUs in all of its visits") for member in cohort.of(NOISY)),
            *((member.alias, why_unjudged(cohort)) for member in cohort.of(UNJUDGED)),
        ],
    )


def why_unjudged(cohort: Cohort) -> str:
    known = len(cohort.members) - len(cohort.of(NOISY))
    return (
        f"too few to tell who is unlike: {LEAST_MACHINES} are needed"
        if known < LEAST_MACHINES
        else "it has no cell that enough of the others have"
    )


def next_step(member: Member) -> tuple[str, str]:
    """What to do, and the command for it."""
    if member.state == SUSPECT:
        return "Visit it twice more, as before, and judge again with all logs.", ""
    if member.grade == "fact":
        return "Make this fact what it is on the others, and visit it again.", ""
    names = dict.fromkeys(cell.benchmark for each in by_benchmark(member).values() for _, cell in each)
    return "Look closer there, and compare with the log of an alike machine.", in_shell(
        "numabench", "run", *list(names)[:MOST_SAID]
    )


def in_order(name: str) -> tuple:
    """For sorting: n2 before n10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]{1,18})", name) if part)


def bands(members: Sequence[Member], benchmarks: Sequence[str]) -> Iterator[Band]:
    for first in range(0, len(members), BAND):
        own = members[first : first + BAND]
        ends = own[0].alias if len(own) == 1 else f"{own[0].alias} to {own[-1].alias}"
        lines = [Line("state", [state_mark(x, member) for x, member in enumerate(own) if member.state != ALIKE])]
        for benchmark in benchmarks:
            marks = [each for x, member in enumerate(own) if (each := mark(x, member, benchmark))]
            lines.append(Line(benchmark, marks))
        # bands of a fleet are of one width, so that a machine is as wide in the last one
        width = BAND if len(members) > BAND else len(own)
        marked = [member.alias for member in own if member.state != ALIKE]
        names = ", ".join(marked[:MOST_NAMES]) + (f" and {len(marked) - MOST_NAMES} more" if len(marked) > MOST_NAMES else "")
        yield Band(f"{ends} ({plural(len(own), 'machine')})", width, names, lines)


def state_mark(x: int, member: Member) -> Mark:
    return Mark(x, 3 if member.state == DIFFERS else 1, "state", f"{member.alias}: {member.state}")


def mark(x: int, member: Member, benchmark: str) -> Mark | None:
    """What is claimed of a machine that differs is darkest; else how unlikely its last visit is, where that is worth a mark."""
    claimed = [(share, cell) for share, cell in zip(member.change, member.cells, strict=True) if cell.title == benchmark]
    if claimed and member.state == DIFFERS:
        change, cell = max(claimed, key=lambda each: abs(each[0]))
        shade, worse = len(SHADES), (change < 0) == (cell.polarity == HIGHER)
    elif benchmark in member.standing:
        stands = member.standing[benchmark]
        change, worse, shade = stands.change, stands.worse, sum(stands.p < least for least in SHADES)
    else:
        return None
    return Mark(x, shade, "worse" if worse else "better", f"{member.alias}, {benchmark}: {change:+.1%}") if shade else None
