"""The machine's card: what one operation costs here, five figures, one picture and how far to trust them, found in a log's own words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from ..model import ALPHA, Answer, BenchmarkRecord, Frozen, Header, Picture
from ..text import fill, measure_again
from ..units import count_cpus, format_bytes, format_cpus, format_number, format_quantity, plural, plus_minus
from .answers import FIGURE, MISSING, ROUGH, SETTLED, Answered, Subject, answers, grade, interval_text, subjects
from .answers.evidence import NOTHING, matching
from .clock import CHANGED, calm_but_for_clock, follows
from .estimate import by_unit
from .neighbours import latency_matrix, levels
from .published import PUBLISHED
from .structure import SAMPLE, with_circumstances

if TYPE_CHECKING:
    import pandas as pd

    from ..runlog.read import RunLog

MOST_PRICES = 14
MOST_TILES = 5
CALM = 0.5  # share of undisturbed samples below which a card says that its figures are doubtful
KIND = re.compile(r" \(\S+ cores\)$")
CLOCK_RANGE = (0.05, 0.95)  # quantiles of the clocks around samples that are said beside the usual one
STEADY = 0.03  # a clock that stays this near to the usual one says nothing beside it: what a sample's may change by (`frequency_changed`)


class Price(Frozen):
    """A bar: `value` with its 95 % interval in ns."""

    name: str
    topic: str
    value: float
    low: float
    high: float
    grade: str
    rank: int
    interval: str = ""

    @property
    def text(self) -> str:
        return format_quantity(self.value, "ns")

    @property
    def mark(self) -> str:
        """How far a rough value reaches; nothing beside a settled and narrow one."""
        half = (self.high - self.low) / 2 / self.value
        if self.grade == SETTLED and half <= FIGURE:
            return ""
        return (plus_minus(half) if half > FIGURE else "") or ROUGH


class Tile(Frozen):
    """A figure in large type, words below it, and in small type its interval and what belongs to it."""

    value: str
    words: str
    topic: str
    grade: str
    interval: str = ""
    notes: tuple[str, ...] = ()

    @property
    def small(self) -> str:
        return " · ".join(filter(None, (self.interval, ROUGH if self.grade == ROUGH else "", *self.notes)))


class Group(Frozen):
    """A latency inside of which groups of near CPUs it is, in words, and the CPUs of each (`0-7`)."""

    value: str
    words: str
    members: tuple[str, ...]


class Trust(Frozen):
    """Whether the figures may be used: a word, what speaks for it, what would settle the rest, and the clock that they are at."""

    word: str  # Usable | Doubtful | Published
    why: str
    remedy: str = ""
    clock: str = ""  # `clock 2.6 GHz (1.4–2.7)`: the usual one and where most samples had theirs

    @property
    def good(self) -> bool:
        return self.word != DOUBTFUL

    @property
    def reasons(self) -> str:
        """What speaks for the word, and the clock."""
        return "; ".join(filter(None, (self.why, self.clock))) + "."

    @property
    def next_step(self) -> str:
        """What to type; empty where nothing is open."""
        return f"{'To settle the rest:' if self.good else 'See:'} {self.remedy}" if self.remedy else ""


USABLE, DOUBTFUL = "Usable", "Doubtful"


@dataclass(frozen=True)
class MachineCard:
    """What a card says of one machine. `picture`: None where none can be drawn; `record` is the benchmark's that declares it, `cells` are those
    drawn (rows of `estimate.estimate_cells`), and `finding` is its title."""

    machine_id: str
    alias: str
    title: str
    facts: str
    visits: str
    trust: Trust
    tiles: tuple[Tile, ...]
    prices: tuple[Price, ...]
    missing: tuple[str, ...]  # prices that were asked for and not found
    picture: Picture | None
    record: BenchmarkRecord | None
    cells: pd.DataFrame | None
    finding: str
    marks: tuple[tuple[float, str], ...]
    groups: tuple[Group, ...]  # of a matrix of CPUs
    source: str  # version and runs
    topology: dict[str, Any]

    @property
    def empty(self) -> bool:
        return not (self.tiles or self.prices or self.picture)


class Shown(Frozen):
    """A card as data."""

    machine: str
    title: str
    facts: str
    visits: str
    trust: Trust
    tiles: tuple[Tile, ...]
    prices: tuple[Price, ...]
    missing: tuple[str, ...]
    finding: str


def as_data(card: MachineCard) -> Shown:
    own = {name: getattr(card, name) for name in Shown.__struct_fields__ if name != "machine"}
    return Shown(machine=card.alias, **own)


def cards(read: RunLog | Reading) -> list[MachineCard]:
    """A card for each machine of a log, which may have been read already."""
    reading = read if isinstance(read, Reading) else Reading(read)
    frame = reading.frame
    return [
        _card(
            own,
            [s for s in reading.about if s.machine_id == machine],
            [a for a in reading.said if a.machine_id == machine and a.headline],
            frame[frame["machine_id"] == machine],
        )
        for machine, own in reading.log.by_machine().items()
    ]


class Reading:
    """What is found in a log to show it, each when it is first asked for: what is printed and the page need the same."""

    def __init__(self, log: RunLog):
        self.log = log

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row for each sample and metric, with its distance class."""
        from ..runlog.export import samples

        return with_circumstances(samples(self.log))

    @cached_property
    def about(self) -> list[Subject]:
        return subjects(self.log, self.frame)

    @cached_property
    def said(self) -> list[Answered]:
        return answers(self.log, about=self.about)

    @cached_property
    def cards(self) -> list[MachineCard]:
        """Those that have something on them."""
        return [card for card in cards(self) if not card.empty]


def _card(headers: list[Header], about: list[Subject], asked: list[Answered], frame: pd.DataFrame) -> MachineCard:
    machine = headers[-1].machine
    runs = list(dict.fromkeys(header.run for header in headers))  # a resume adds a header of the same run
    prices, missing = _prices(about)
    subject, picture, cells = _picture(about)
    card = MachineCard(
        machine_id=headers[-1].machine_id,
        alias=headers[-1].alias,
        title=machine_title(machine),
        facts=machine_line(machine),
        visits=f"{plural(len(runs), 'visit')}, {headers[-1].started[:10]}",
        trust=trust(headers, asked, frame, [subject.record for subject in about]),
        tiles=_tiles(about),
        prices=prices,
        missing=missing,
        picture=picture,
        record=subject.record if subject else None,
        cells=cells,
        finding=(_note(subject, picture.finding) or picture.view.title) if picture else "",
        marks=tuple(_marks(subject, picture)) if picture else (),
        groups=tuple(_groups(cells, picture)) if picture and picture.view.both else (),
        source=f"numabench {headers[-1].numabench} · {'runs' if len(runs) > 1 else 'run'} {', '.join(runs[-3:])}",
        topology=machine.get("topology") or {},
    )
    return _kind_once(card)


def _kind_once(card: MachineCard) -> MachineCard:
    """Of a machine with several kinds of cores, whose names stand behind each price and tile (`Card.of_kind`): that of most prices is said once for all."""
    kinds = Counter(found[0] for price in card.prices if (found := KIND.search(price.name)))
    if not kinds or (most := kinds.most_common(1)[0])[1] * 2 < len(card.prices):
        return card
    kind = most[0]
    return replace(
        card,
        facts=" · ".join(filter(None, (card.facts, f"{kind.strip(' ()')} unless others are named"))),
        prices=tuple(msgspec.structs.replace(price, name=price.name.removesuffix(kind)) for price in card.prices),
        missing=tuple(name.removesuffix(kind) for name in card.missing),
        tiles=tuple(msgspec.structs.replace(tile, words=tile.words.removesuffix(kind)) for tile in card.tiles),
        finding=card.finding.replace(kind, ""),
    )


def _prices(about: Iterable[Subject]) -> tuple[tuple[Price, ...], tuple[str, ...]]:
    """Bars from the cheapest to the dearest, and the names of those that have no figure."""
    asked = sorted(((price.rank, s, price.answer) for s in about for price in s.record.card.prices), key=lambda each: each[0])
    found: dict[str, Price] = {}
    for rank, subject, answer in asked:
        figure = subject.find(answer) if answer.text not in found else None
        if figure and figure.usable and figure.value > 0 and figure.unit == "ns":
            found[answer.text] = Price(
                name=answer.text,
                topic=subject.record.topic,
                value=figure.value,
                low=figure.low,
                high=figure.high,
                grade=grade(figure, answer),
                rank=rank,
                interval=interval_text(figure.low, figure.high, "ns", subject.sessions),
            )
    chosen = list(found.values())[:MOST_PRICES]
    missing = dict.fromkeys(answer.text for _, _, answer in asked if answer.text not in found)
    return tuple(sorted(chosen, key=lambda price: price.value)), tuple(missing)


def _tiles(about: Iterable[Subject]) -> tuple[Tile, ...]:
    """One for each subject: the first that has a figure, else that there is none."""
    asked = sorted(((tile.rank, s, tile) for s in about for tile in s.record.card.tiles), key=lambda each: each[0])
    found: dict[str, Tile] = {}
    for _, subject, tile in asked:
        if tile.subject in found and found[tile.subject].grade != MISSING:
            continue
        figure = subject.find(tile.answer)
        shown = {"topic": subject.record.topic, "grade": grade(figure, tile.answer)}
        if not figure.usable:
            why = (figure.problem or figure.instead).rpartition(": ")[2]
            note = MISSING if why == NOTHING else f"{MISSING}: {why}"
            found.setdefault(tile.subject, Tile(value="–", words=tile.answer.text, notes=(note,), **shown))
            continue
        sign = "+" if tile.answer.kind == "difference" and figure.value > 0 else ""
        found[tile.subject] = Tile(
            value=f"{sign}{figure.value_text}",
            words=tile.answer.text,
            interval=interval_text(figure.low, figure.high, figure.unit, subject.sessions) if math.isfinite(figure.low) else "",
            notes=tuple(text for text in (_note(subject, note) for note in tile.notes) if text),
            **shown,
        )
    return tuple(found.values())[:MOST_TILES]


def _note(subject: Subject, answer: Answer) -> str:
    found = subject.find(answer)
    return fill(answer.text, {"value": found.value_text, "interval": found.interval_text}) if found.usable else ""


def _picture(about: Iterable[Subject]) -> tuple[Subject | None, Picture | None, pd.DataFrame | None]:
    """The first picture of whose cells any has a value, and these, each at its main distance."""
    offered = sorted(((p.rank, s, p) for s in about for p in s.record.card.pictures), key=lambda each: each[0])
    for _, subject, picture in offered:
        rows = subject.ways[0].estimates
        cells = matching(rows[(rows["metric"] == picture.view.metric) & rows["main"]], picture.view.where)
        if cells["value"].notna().any():
            return subject, picture, cells
    return None, None, None


def _marks(subject: Subject, picture: Picture) -> Iterable[tuple[float, str]]:
    for answer in picture.marks:
        found = subject.find(answer)
        if found.usable and math.isfinite(found.value):
            yield found.value, fill(answer.text, {"value": found.value_text})


def _groups(cells: pd.DataFrame, picture: Picture) -> Iterable[Group]:
    cpus = tuple(map(int, picture.view.both))
    try:
        found = levels(latency_matrix(cells, cpus), cpus)
    except ValueError:  # pairs are missing
        return
    for level in found:
        outside = f"at least {format_quantity(level.fastest_outside, 'ns')} outside"
        yield Group(
            value=format_quantity(level.inside, "ns"),
            words=f"inside {plural(len(level.groups), 'group')} of up to {level.size} CPUs, {outside}",
            members=tuple(map(format_cpus, level.groups)),
        )


def trust(
    headers: Sequence[Header], asked: Sequence[Answered], frame: pd.DataFrame, records: Sequence[BenchmarkRecord] = ()
) -> Trust:
    """By how many samples ran undisturbed and how many of the headline answers are settled."""
    if all(header.plan.get("profile") == PUBLISHED for header in headers):
        return Trust(
            word="Published", why="one figure a pair, without intervals and without proof of where threads and memory were"
        )
    taken = looked_at(frame)
    calm = float(taken["calm"].mean()) if len(taken) else 0.0
    settled = sum(a.grade == SETTLED for a in asked)
    why = f"{calm * 100:.0f} % of {len(taken):,} sample{'s' if len(taken) != 1 else ''} ran undisturbed"
    if asked:
        why += f", {settled} of {plural(len(asked), 'answer')} {'is' if settled == 1 else 'are'} settled"
        if alone := sum(bool(a.alone) for a in asked):
            why += f" ({alone} more by one visit alone)"
    reasons = taken.loc[~taken["calm"], "reasons"].str.split().explode().value_counts().drop(CHANGED, errors="ignore")
    if calm < 1 - CALM / 4 and len(reasons):
        why += f"; most often: {str(reasons.index[0]).replace('_', ' ')}"
    unsettled = list(dict.fromkeys(a.benchmark for a in asked if a.grade != SETTLED))
    remedy = ""
    if calm < CALM:
        remedy = "numabench check"
    elif unsettled:
        of = [record for record in records if record.name in unsettled]
        named = any(record.phase == ALPHA for record in of)  # what is alpha is measured by name or topic alone
        remedy = measure_again(unsettled, topics=list(dict.fromkeys(record.topic for record in of)) if named else ())
    return Trust(word=USABLE if calm >= CALM else DOUBTFUL, why=why, remedy=remedy, clock=usual_clock(taken))


def looked_at(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each sample, in any order, with its machine, `valid`, `reasons`, `frequency_ghz` and `calm`: whether a value of it is used. Times and rates are where nothing but a change of the clock
    is said against them, since that is taken off."""
    clocked = by_unit(frame["unit"], follows)
    calm = calm_but_for_clock(frame["valid"].to_numpy(dtype=bool), frame["reasons"].to_numpy(dtype=object), clocked)
    told = frame[[*SAMPLE, "machine_id", "valid", "reasons", "frequency_ghz"]].assign(calm=calm)
    return told.iloc[(~calm).argsort(kind="stable")].drop_duplicates(SAMPLE)


def usual_clock(taken: pd.DataFrame) -> str:
    """`clock 2.6 GHz (1.4–2.7)`: the median of the clocks around samples (`looked_at`), at which times and rates are given, and where nine of ten are; nothing where the log has none."""
    known = taken["frequency_ghz"].astype(float)
    known = known[known > 0]
    if known.empty:
        return ""
    usual, *ends = (float(known.quantile(share)) for share in (0.5, *CLOCK_RANGE))
    said = f"clock {format_number(usual, 2)} GHz"
    low, high = (format_number(end, 2) for end in ends)
    return f"{said} ({low}–{high})" if max(abs(end / usual - 1) for end in ends) > STEADY and low != high else said


def machine_title(machine: Mapping[str, Any]) -> str:
    """`AMD EPYC, 2 CPUs of a virtual machine`."""
    topology, configuration = machine.get("topology") or {}, machine.get("configuration") or {}
    count = count_cpus(topology.get("allowed_cpus") or topology.get("cpus"))
    cpus = plural(count, "CPU") if count else ""
    if cpus and configuration.get("hypervisor"):
        cpus += " of a virtual machine"
    return ", ".join(filter(None, (str(machine.get("brand") or machine.get("alias") or "unknown machine"), cpus)))


def machine_line(machine: Mapping[str, Any]) -> str:
    """Caches, nodes, memory and kernel in one line."""
    topology, configuration = machine.get("topology") or {}, machine.get("configuration") or {}
    caches: dict[int, int] = {}
    for cache in topology.get("caches") or ():
        if cache.get("size_bytes") and cache.get("level") and cache.get("type") != "Instruction":
            caches[cache["level"]] = max(cache["size_bytes"], caches.get(cache["level"], 0))
    nodes = topology.get("nodes") or ()
    memory = (machine.get("hardware") or {}).get("memory_gib")
    kernel = str(configuration.get("kernel") or "").partition("-")[0]
    parts = [
        ", ".join(f"L{level} {format_bytes(size)}" for level, size in sorted(caches.items())),
        ", ".join(filter(None, (plural(len(nodes), "NUMA node") if nodes else "", f"{memory} GiB" if memory else ""))),
        f"Linux {kernel}" if kernel else "",
    ]
    return " · ".join(filter(None, parts))
