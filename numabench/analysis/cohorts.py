"""Many machines from their logs: cohorts of those that should be equal, which are not, and why as far as that is known.

A cohort is what a buyer would call one machine: brand, family, model, packages, product. Memory, SMT, nodes, stepping, firmware are facts, which may be the odd
one out: grouped by these, the very faults that are sought would be cohorts of their own. Causes come in three grades: a fact that the unlike machines share and
no other has; a pattern in what moved; unknown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ..errors import UsageError
from ..model import HIGHER, Frozen, Value
from ..runlog.visits import BUSY
from ..units import plural
from . import fleet
from .digest import Cell, Visit
from .identity import PARTS, flatten

COHORT = ("brand", "hardware.family", "hardware.model", "hardware.packages", "condition.product.vendor", "condition.product.name")
#: Of facts, what each machine has of its own kind for reasons of the run.
OF_THE_RUN = ("arch", "flags", "line_measured")
NO_CAUSE = (*OF_THE_RUN, "configuration.python", "configuration.compiler")
NOISY, UNLIKE = "noisy", (fleet.DIFFERS, fleet.SUSPECT)
TOGETHER = 0.1  # of the cells, of which is said what would have shown if they moved at once
MOST_FACTS = 4  # that a cause names
CALM = 0.5  # share of undisturbed samples of a visit that is judged
WHOLE = 0.8  # of the cells that must have moved, alike, for a cause that moves all
HUGE = ("thp", "2m", "1g", "huge")
UNUSUAL = 0.01  # chance of a benchmark's cells on an equal machine, under which how it stands there is told
USUAL = 0.9  # of a group, who agree on a fact
ALIKE = 0.35  # of the median shift: by how much those of one cause may differ


class Standing(Frozen):
    """How a benchmark stands on a machine at its last visit: of the cell that is least like the others' its change against the median, a share, and whether
    that is for the worse; how unlikely all of its cells are on an equal machine."""

    change: float
    worse: bool
    p: float


class Member(Frozen):
    """One machine of a cohort. `state`: alike, suspect, differs, noisy, not judged; `odd`: fact -> (its own, that of most); `cause` is said in the grade `grade`;
    `standing`: benchmark -> how far from usual, where that is under UNUSUAL likely."""

    id: str
    alias: str
    state: str
    visits: int
    hostname: str = ""
    p: float | None = None
    cells: tuple[Cell, ...] = ()
    change: tuple[float, ...] = ()  # of these, against the median, as shares
    odd: dict[str, tuple[str, str]] = {}
    grade: str = ""  # fact | pattern | unknown
    cause: str = ""
    standing: dict[str, Standing] = {}


class Groups(Frozen):
    """Two kinds of machines in one cohort: how many of each, the aliases of the fewer, and what is said of the facts that part them."""

    sizes: tuple[int, int]
    smaller: tuple[str, ...]
    parting: tuple[str, ...]


class Cohort(Frozen):
    """Machines that should be equal. `shown`: the least differences that this many could have shown, in one cell and in a tenth of them at once; `groups`: where the
    machines are two kinds, each of which is judged by itself."""

    name: str
    members: tuple[Member, ...]
    cells: int
    benchmarks: tuple[str, ...] = ()
    shown: tuple[float | None, float | None] = (None, None)
    groups: Groups | None = None

    def of(self, *states: str) -> list[Member]:
        return [member for member in self.members if member.state in states]


class Fleet(Frozen):
    cohorts: tuple[Cohort, ...]
    unread: dict[str, str]  # log -> why
    notes: tuple[str, ...] = ()
    unmeasured: dict[str, str] = {}  # host that was to be visited -> its state and why, by a launch's file beside the logs

    def of(self, *states: str) -> list[Member]:
        return [member for cohort in self.cohorts for member in cohort.of(*states)]


# -- facts ----------------------------------------------------------------------------------------------------------------


def is_calm(visit: Visit) -> bool:
    """Whether its figures are judged."""
    return visit.status != BUSY and (visit.undisturbed is None or visit.undisturbed >= CALM)


def facts_of(machine: Mapping[str, Any], without: tuple[str, ...] = NO_CAUSE) -> dict[str, Any]:
    """Flat facts of one machine that may name a cause: what it is, how it is set up, what state it is in; memory node by node."""
    flat = {name: value for name, value in flatten(machine).items() if not name.startswith(without)}
    for node in (machine.get("topology") or {}).get("nodes") or ():
        flat[f"memory of node {node['id']}"] = node.get("memory_bytes")
    condition = machine.get("condition") or {}
    for name in ("memory_errors", "throttled"):  # counts: whether there are any
        counts = condition.get(name)
        if isinstance(counts, Mapping):
            flat[name.replace("_", " ")] = "some" if any(v for v in counts.values() if isinstance(v, int)) else "none"
    return {name: str(value) if isinstance(value, (list, dict, tuple)) else value for name, value in flat.items()}


def cohort_of(machine: Mapping[str, Any], more: Sequence[str] = ()) -> str:
    """The cohort's name: what is known of COHORT and of `more` facts."""
    flat = flatten(machine)
    family = [f"family {flat['hardware.family']}"] if flat.get("hardware.family") else []
    model = [f"model {flat['hardware.model']}"] if flat.get("hardware.model") else []
    packages = [f"{flat['hardware.packages']} packages"] if (flat.get("hardware.packages") or 1) != 1 else []
    product = " ".join(str(flat[name]) for name in COHORT[4:] if flat.get(name))
    own = [f"{name} {flat.get(name)}" for name in more]
    return ", ".join(
        [str(flat.get("brand") or "unknown processor"), *family, *model, *packages, *([product] if product else []), *own]
    )


# -- judging --------------------------------------------------------------------------------------------------------------


def judge_fleet(
    visited: Sequence[Visit],
    unread: Mapping[str, str] = {},
    notes: Sequence[str] = (),
    practical: float = 0.03,
    more: Sequence[str] = (),
) -> Fleet:
    """Cohorts with the state of each machine. `practical`: the share from which on a difference counts; `more`: facts that part cohorts. Raises UsageError for
    a fact that no machine has."""
    machines = {id(visit.machine): visit.machine for visit in visited}  # visits share what is equal
    if more:
        known = {name for machine in machines.values() for name in flatten(machine)}
        for name in more:
            if name not in known:
                raise UsageError(f"no machine has a fact {name!r}", f"such as {', '.join(sorted(known)[:6])}")
    cohort = {place: cohort_of(machine, more) for place, machine in machines.items()}
    by_cohort: dict[str, list[Visit]] = {}
    for visit in visited:
        by_cohort.setdefault(cohort[id(visit.machine)], []).append(visit)
    return Fleet(
        cohorts=tuple(_cohort(name, own, practical) for name, own in by_cohort.items()), unread=dict(unread), notes=tuple(notes)
    )


def _cohort(name: str, visited: Sequence[Visit], practical: float) -> Cohort:
    calm: list[Visit] = []
    spoilt: list[Visit] = []
    for visit in visited:
        (calm if is_calm(visit) else spoilt).append(visit)
    machines = list(dict.fromkeys(visit.header.machine_id for visit in calm))
    number = {machine: place for place, machine in enumerate(machines)}
    every, values = table_of(calm)
    of = np.array([number[visit.header.machine_id] for visit in calm], dtype=np.int64)
    last = {visit.header.machine_id: visit.machine for visit in calm}
    facts = [facts_of(last[machine]) for machine in machines]
    odd = fleet.odd_facts(facts)
    judged, second = _judged(values, of, practical)
    last_visits = values[[rows[-1] for rows in fleet.rows_of(of)]]
    benchmarks = tuple(dict.fromkeys(cell.title for cell in every))
    standings = _standings(last_visits, second, every, benchmarks, practical)
    members = [
        Member(
            id=machine,
            alias=str(last[machine].get("alias", machine)),
            hostname=str(last[machine].get("hostname") or ""),
            state=one.state,
            visits=one.visits,
            p=one.p,
            cells=tuple(every[cell] for cell in one.cells),
            change=tuple(math.expm1(away) for away in one.away),
            odd={fact: (said(fact, own), said(fact, most)) for fact, (own, most) in odd[place].items()},
            standing=standings[place],
        )
        for place, (machine, one) in enumerate(zip(machines, judged, strict=True))
    ]
    members = [explained(member, members, every) for member in members]
    aliases = {visit.header.machine_id: visit.header.alias for visit in reversed(spoilt)}
    for machine, count in Counter(visit.header.machine_id for visit in spoilt).items():
        if machine not in number:
            members.append(Member(id=machine, alias=aliases[machine], state=NOISY, visits=count))
    shown = [
        fleet.smallest_shown(last_visits, practical, share) if len(machines) >= fleet.LEAST_MACHINES else math.nan
        for share in (0.0, TOGETHER)
    ]
    return Cohort(
        name=name,
        members=tuple(members),
        cells=len(every),
        benchmarks=benchmarks,
        shown=(_known(shown[0]), _known(shown[1])),
        groups=_groups(facts, second, [str(last[machine].get("alias", machine)) for machine in machines]),
    )


def _standings(
    last: np.ndarray, second: np.ndarray | None, cells: Sequence[Cell], benchmarks: Sequence[str], practical: float
) -> list[dict[str, Standing]]:
    """Of each machine, what is unusual of its last visit, among those of its own kind."""
    found: list[dict[str, Standing]] = [{} for _ in last]
    part = np.array([benchmarks.index(cell.title) for cell in cells], dtype=np.int64)
    for kind in [np.ones(len(last), dtype=bool)] if second is None else [second, ~second]:
        p, farthest, off = fleet.by_part(last[kind], part, practical)
        for row, place in enumerate(np.flatnonzero(kind)):
            for number in np.flatnonzero(p[row] < UNUSUAL):
                change = float(off[row, number])
                found[place][benchmarks[number]] = Standing(
                    change=math.expm1(change),
                    worse=(change < 0) == (cells[farthest[row, number]].polarity == HIGHER),
                    p=float(p[row, number]),
                )
    return found


def table_of(visited: Sequence[Visit]) -> tuple[list[Cell], np.ndarray]:
    """(the cells of all visits, values of shape (visits, cells), NaN where a visit has no such cell)."""
    cells: dict[tuple, Cell] = {}
    column: dict[tuple, int] = {}
    columns: dict[int, list[int]] = {}  # of the cells of a visit, which many share
    for visit in visited:
        if id(visit.cells) not in columns:
            keys = [cell.key for cell in visit.cells]
            cells.update(zip(keys, visit.cells, strict=True))
            columns[id(visit.cells)] = [column.setdefault(key, len(column)) for key in keys]
    values = np.full((len(visited), len(cells)), np.nan)
    for row, visit in enumerate(visited):
        values[row, columns[id(visit.cells)]] = visit.values
    return list(cells.values()), values


def _groups(facts: Sequence[dict[str, Any]], second: np.ndarray | None, names: Sequence[str]) -> Groups | None:
    """Who the smaller of two kinds of machines are, and the facts that part them."""
    if second is None:
        return None
    parting = []
    for fact in dict.fromkeys(name for each in facts for name in each):
        sides = [
            [each[fact] for each, other in zip(facts, second, strict=True) if other == side and each.get(fact) is not None]
            for side in (False, True)
        ]
        most = [fleet.most_have(side) for side in sides if side]
        if (
            len(most) == 2
            and not fleet.equal(*most)
            and all(sum(fleet.equal(v, m) for v in s) >= USUAL * len(s) for s, m in zip(sides, most, strict=True))
        ):
            parting.append(f"{words(fact)} is {said(fact, most[0])} on one kind and {said(fact, most[1])} on the other")
    smaller = tuple(name for name, other in zip(names, second, strict=True) if other)
    return Groups(sizes=(len(names) - len(smaller), len(smaller)), smaller=smaller, parting=tuple(parting[:MOST_FACTS]))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _judged(values: np.ndarray, of: np.ndarray, practical: float) -> tuple[list[fleet.Judged], np.ndarray | None]:
    """What each machine is; by groups where there are two."""
    last = np.array([rows[-1] for rows in fleet.rows_of(of)], dtype=np.int64)
    count = len(last)
    second = fleet.split(values[last]) if count else None
    if second is None:
        return fleet.look(values, of, practical), None
    found: list[fleet.Judged | None] = [None] * count
    for group in (False, True):
        members = np.flatnonzero(second == group)
        rows = np.isin(of, members)
        for one in fleet.look(values[rows], np.searchsorted(members, of[rows]), practical):
            found[members[one.machine]] = msgspec.structs.replace(one, machine=int(members[one.machine]))
    return [one for one in found if one is not None], second


def said(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and ("bytes" in name or name.startswith("memory of")):
        return f"{value / (1 << 30):.1f} GiB"
    return "unknown" if value is None else str(value)


def explained(member: Member, every: Sequence[Member], cells: Sequence[Cell]) -> Member:
    """With its cause, in one of three grades. `cells`: all of the cohort."""
    if member.state not in UNLIKE:
        return member
    own_facts = []
    for fact, (own, most) in member.odd.items():
        sharing = [other for other in every if other.odd.get(fact, ("", ""))[0] == own]
        if all(other.state in UNLIKE for other in sharing):
            own_facts.append(f"{words(fact)} is {own} ({most} on {sum(fact not in other.odd for other in every)})")
    if own_facts:
        more = f", and {plural(len(own_facts) - MOST_FACTS, 'fact')} more" if len(own_facts) > MOST_FACTS else ""
        return msgspec.structs.replace(member, grade="fact", cause="; ".join(own_facts[:MOST_FACTS]) + more)
    if pattern := pattern_of(member, cells):
        return msgspec.structs.replace(
            member, grade="pattern", cause=f"{pattern}; no fact differs" if not member.odd else pattern
        )
    return msgspec.structs.replace(
        member, grade="unknown", cause="no fact differs" if not member.odd else "no fact that it alone has explains it"
    )


def words(fact: str) -> str:
    """`firmware version` of `condition.firmware.version`."""
    return PARTS.sub("", fact).replace(".", " ").replace("_", " ")


def pattern_of(member: Member, cells: Sequence[Cell]) -> str:
    """What the cells that moved have in common, in the words of the parts that do it: generic parameters and units, no benchmark by name."""
    moved, shift = member.cells, np.array(member.change)
    if not moved:
        return ""
    alike = bool((np.abs(shift - np.median(shift)) <= ALIKE * abs(np.median(shift))).all())
    times = [cell for cell in cells if cell.unit == "ns"]
    if times and alike and sum(cell.unit == "ns" for cell in moved) >= WHOLE * len(times):
        return "all times alike: the clock, or a limit of power"

    def all_have(name: str, test: Callable[[Value], bool]) -> bool:
        return all(name in cell.parameters and test(cell.parameters[name]) for cell in moved)

    def small_pages(cell: Cell) -> bool:
        return cell.parameters.get("page_size") not in (None, *HUGE)

    asked = {cell.benchmark for cell in moved}  # of which only what has both kinds of pages can tell
    if all_have("page_size", lambda size: size in HUGE) and asked == {c.benchmark for c in cells if small_pages(c)} & asked:
        return "cases with huge pages alone: transparent or reserved huge pages"
    lines = [cell for cell in moved if "cpu_a" in cell.parameters]  # between CPUs: they cross the link as well
    others = [cell.parameters for cell in moved if cell not in lines]
    pairs = {frozenset((p.get("cpu_node"), p.get("memory_node"))) for p in others}
    if (
        len(pairs) == 1
        and len(pair := next(iter(pairs))) == 2
        and None not in pair
        and all(cell.parameters.get("home") in pair for cell in lines)
    ):
        return f"nodes {' and '.join(sorted(map(str, pair)))} alone: the link between them"
    homes = {cell.parameters.get("memory_node") for cell in moved}
    if len(homes) == 1 and None not in homes:
        return f"memory of node {next(iter(homes))} alone: a module or a channel of it"
    if all(cell.unit.startswith("GB/s") for cell in moved) and (shift < 0).all():
        return "bandwidth alone: a channel of memory is missing or slow"
    return ""
