"""The nouns of numabench as frozen records. Invariants only: nothing here measures, reads or prints.

Times are seconds, sizes bytes, rates per second. A metric's values are in the unit its own
description names (`ns` for latencies: the unit every reader of this field expects).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal

import msgspec

LOWER, HIGHER, NEITHER = "lower", "higher", "neither"  # polarity: which direction is better
#: How far a benchmark, or a field of a log, may be relied on. alpha: it may change any day, and is compared within one version of numabench
#: alone; beta: what changes is translated; stable: it stays as it is until the next schema; deprecated: it is read, and no longer written.
ALPHA, BETA, STABLE, DEPRECATED = PHASES = ("alpha", "beta", "stable", "deprecated")

Value = str | int | float


class Frozen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Metric(Frozen):
    """What a sample carries one value of."""

    name: str
    unit: str
    polarity: Literal["lower", "higher", "neither"]
    summary: str = ""
    least: float | None = 0.0  # no value is below it; None: where values may be below zero
    most: float | None = None  # no value is above it, such as 1 of a share; None: nothing is too much

    @property
    def range(self) -> tuple[float, float]:
        """Between what values and the ends of their intervals lie; NaN where there is no end. A unit such as `per 10^8` says itself what is most."""
        of = re.fullmatch(r"per 10\^([0-9]{1,2})", self.unit)
        least, most = self.least, 10.0 ** int(of[1]) if of and self.most is None else self.most
        return float("nan") if least is None else least, float("nan") if most is None else most


class Axis(Frozen):
    """One parameter of a benchmark: its typed values in their natural order."""

    name: str
    summary: str
    values: tuple[Value, ...]
    unit: str = ""
    log: bool = False  # a logarithmic axis in plots
    least: int | None = None  # limits of a numeric axis that takes other values than those listed
    most: int | None = None
    step: int = 1


class Contrast(Frozen):
    """Pairs every value of `axis` with `control` at the same point of all other axes.

    The cases of one contrast run in the same process, so that they are judged on paired ratios.
    """

    axis: str
    control: Value
    metric: str


class View(Frozen):
    """One figure: which axis goes where. The reading side knows no benchmark, only views."""

    title: str
    metric: str
    kind: Literal["line", "bar", "heatmap", "curve"]
    x: str  # an axis; of a curve another metric
    series: str | None = None
    y: str | None = None  # heatmap rows
    facet: str | None = None
    where: dict[str, Value] = {}
    along: str | None = None  # of a curve: the axis whose values are its points
    both: tuple[
        Value, ...
    ] = ()  # of a heat map: the values of either axis; a cell that was not measured is then that of its transposed place
    borders: tuple[Value, ...] = ()  # of a heat map: values of both axes before which a group begins
    ratio_to: Value | None = None  # plot ratios to this value of the contrast's axis instead of the metric


class Answer(Frozen):
    """One sentence that the report can say, as data. `text` holds {placeholders} that the kind fills.

    Kinds: `cell` (the metric at `where`; settled within 5 %, or within `tolerance` where that is more), `difference` and `ratio` (of `where` against `against`,
    paired), `threshold` (the first value of `axis` from which on nothing differs from the
    contrast's control by more than `tolerance`), `gain` (how many times better than at `where` the metric gets
    along `axis`; at least, while the last step still gains more than `tolerance`), `saturation` (the first value of `axis` that gives the best value over the
    axis within `tolerance`; with `against`, on the curve with that put over `where` as well: {other}), `knee` (the last value of `axis` at which the metric is not yet worse than at the first by more than
    `tolerance`), `reach` (the last value of `axis` at which the contrast at `where` costs no more than `tolerance`), `saving` (the share of the cell at
    `against` that the one at `where` takes less), `agreement` (of the cell at `where` with that of another benchmark, within `tolerance`: `against` names
    `benchmark`, `metric` and parameters; not said where that was not measured), `capacity` (where, between the
    plateaus at `where` and at `against`, the curve over `axis` crosses the geometric mean of the two), `firmware` (what the
    firmware claims of distances between nodes against the matrix at `where`), `weights` (for dealing out pages to nodes, by the matrix
    at `where`), `best` (the best cell along `axis`), `spread` (from the least to the greatest of the cells at `where`), `outcome` (what is no quantity: the outcome of the cells at `where`, or
    which values of `axis` have which; the metric's summary has a word for each value, "0 copied|1 shared"), `structure` (groups of near CPUs in the matrix at `where` against those declared), `ranking` (values of `axis` at `where`, best first).
    """

    kind: str
    metric: str
    where: dict[str, Value]
    text: str
    against: dict[str, Value] = {}
    axis: str | None = None
    tolerance: float = 0.03
    headline: bool = True


def tolerating(answers: Iterable[Answer], tolerance: float) -> tuple[Answer, ...]:
    """`answers` of which figures, differences and ratios tolerate at least so much."""
    kinds = ("cell", "difference", "ratio")
    return tuple(
        msgspec.structs.replace(a, tolerance=tolerance) if a.kind in kinds and a.tolerance < tolerance else a for a in answers
    )


class Price(Frozen):
    """A bar of the machine's card: what one operation costs here, as a `cell` or `difference` in ns finds it.

    `answer.text` is what the bar is called; of two that are called alike the one of lower `rank` that has a figure stands. Where more were
    declared than a card holds, those of lower `rank` stay.
    """

    answer: Answer
    rank: int = 50


class Tile(Frozen):
    """A figure in large type on the machine's card, with `answer.text` below it and `notes` (with their `{value}`) in small type.

    Of the tiles with one `subject` the one of lowest `rank` that has a figure stands; ranks are also the order of tiles.
    """

    subject: str
    answer: Answer
    rank: int = 50
    notes: tuple[Answer, ...] = ()


class Picture(Frozen):
    """What a benchmark offers as the one figure of the machine's card; the lowest `rank` is drawn, and `finding` is its title. `marks`: values
    along `view.x` that are marked, with a text for each."""

    view: View
    finding: Answer
    rank: int = 50
    marks: tuple[Answer, ...] = ()


class Card(Frozen):
    """What a benchmark adds to the machine's card."""

    prices: tuple[Price, ...] = ()
    tiles: tuple[Tile, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def only(self, known: Callable[[Answer], bool]) -> Card:
        """Without the prices, tiles and notes whose answers are not `known`."""
        return Card(
            prices=tuple(price for price in self.prices if known(price.answer)),
            tiles=tuple(
                msgspec.structs.replace(tile, notes=tuple(filter(known, tile.notes))) for tile in self.tiles if known(tile.answer)
            ),
            pictures=self.pictures,
        )

    def at(self, point: Callable[[dict[str, Value]], dict[str, Value]]) -> Card:
        """With the prices and tiles (without notes) of points that are called otherwise."""

        def moved(each: Any) -> Any:
            answer = msgspec.structs.replace(each.answer, where=point(each.answer.where))
            return msgspec.structs.replace(each, answer=answer)

        tiles = (msgspec.structs.replace(moved(tile), notes=()) for tile in self.tiles)
        return Card(prices=tuple(map(moved, self.prices)), tiles=tuple(tiles))

    def of_kind(self, axis: str, kind: Value) -> Card:
        """At this value of one more axis, which tiles, prices and titles name."""

        def at(answer: Answer, named: bool = True) -> Answer:
            where, against = {**answer.where, axis: kind}, {**answer.against, axis: kind} if answer.against else {}
            text = f"{answer.text} ({kind} cores)" if named else answer.text
            return msgspec.structs.replace(answer, where=where, against=against, text=text)

        return Card(
            prices=tuple(msgspec.structs.replace(price, answer=at(price.answer)) for price in self.prices),
            tiles=tuple(
                msgspec.structs.replace(tile, answer=at(tile.answer), notes=tuple(at(note, False) for note in tile.notes))
                for tile in self.tiles
            ),
            pictures=tuple(
                msgspec.structs.replace(
                    picture,
                    view=msgspec.structs.replace(picture.view, where={**picture.view.where, axis: kind}),
                    finding=at(picture.finding),
                    marks=tuple(at(mark, False) for mark in picture.marks),
                )
                for picture in self.pictures
            ),
        )

    @property
    def answers(self) -> tuple[Answer, ...]:
        """All that it asks."""
        notes = (note for tile in self.tiles for note in tile.notes)
        drawn = (answer for picture in self.pictures for answer in (picture.finding, *picture.marks))
        return (*(price.answer for price in self.prices), *(tile.answer for tile in self.tiles), *notes, *drawn)


PAIRED_KINDS = ("difference", "ratio", "effect", "crossover", "gain")


def judged_in_pairs(contrasts: Iterable[Contrast], answers: Iterable[Answer], varied: Collection[str]) -> bool:
    """Whether any of these needs pairs of one process, of which it takes more than an interval does. `varied`: the axes with several values."""
    return any(contrast.axis in varied for contrast in contrasts) or any(answer.kind in PAIRED_KINDS for answer in answers)


class KernelFacts(Frozen):
    """What was compiled and loaded."""

    name: str
    version: int
    abi: int
    object_hash: str
    compiler: str
    flags: str


class BenchmarkRecord(Frozen, tag="benchmark", tag_field="record"):
    """A benchmark's description, complete enough for a reader that has never seen it."""

    run: str
    name: str
    title: str
    question: str
    axes: tuple[Axis, ...]
    metrics: tuple[Metric, ...]
    method: dict[str, Value]  # what makes two results the same quantity; never compared across a difference
    contrasts: tuple[Contrast, ...] = ()
    views: tuple[View, ...] = ()
    answers: tuple[Answer, ...] = ()
    card: Card = Card()
    phase: Literal["alpha", "beta", "stable", "deprecated"] = "stable"
    topic: str = ""  # what it is about: one of `benchmarks.TOPICS`, or a plug-in's own
    expected: str = ""  # the curve that theory expects, in words
    kernel: KernelFacts | None = None
    notes: tuple[str, ...] = ()
    cases: int = 0


class Header(Frozen, tag="header", tag_field="record"):
    """First record of every visit to a machine."""

    schema: int
    run: str
    session: str
    started: str  # ISO 8601, UTC
    numabench: str
    machine: dict[str, Any]
    plan: dict[str, Any]
    arguments: dict[str, Any] = {}
    minor: int = 0  # of the schema; of a higher one more is said than an older reader knows
    migrated: dict[str, Value] = {}  # of a log that was rewritten: the schema it was `from`, and the `sha256` of the file

    @property
    def machine_id(self) -> str:
        return str(self.machine.get("id", "unknown"))

    @property
    def alias(self) -> str:
        """The machine's name, which several may have."""
        return str(self.machine.get("alias", "unknown"))


class ThreadProof(Frozen):
    """Where one thread was and what disturbed it. Times in seconds relative to the sample's common start."""

    cpu: int  # requested
    cpu_begin: int
    cpu_end: int
    begin: float
    end: float
    operations: int
    switches: int = 0  # involuntary context switches
    faults: int = 0
    run_delay: float | None = 0.0  # seconds spent runnable but not running; None: the kernel does not say
    gaps: int = 0
    gap_time: float = 0.0


class MemoryProof(Frozen):
    """Where the pages of the measured buffer were."""

    bytes: int
    page_size: str  # what was asked for
    node: int | None  # requested; None is "wherever the first touch puts it"
    pages: dict[str, int]  # node -> pages found there
    huge_bytes: int | None  # None: the kernel does not say
    page_bytes: int
    parts: tuple[int, ...] = ()  # node requested for each of equal parts, where these differ; nodes that get pages in turn
    policy: Literal["bind", "preferred", "interleave", "weighted"] = "bind"
    misplaced: int = 0  # pages elsewhere than requested
    by: Literal["", "move_pages", "numa_maps", "one_node", "not_told"] = ""  # how that is known; the first two tell of all pages


def together(ends: Collection[float], begins: Collection[float]) -> float:
    """The share of the time until the last thread's end in which all of them ran; 0 where no thread came to its window before that was over."""
    last = max(ends)
    return max(0.0, min(ends) - max(begins)) / last if last > 0 else 0.0


class Sample(Frozen):
    """One timed repetition of one case inside a trial."""

    case: str
    index: int
    parameters: dict[str, Value]
    metrics: dict[str, float]
    valid: bool
    reasons: tuple[str, ...] = ()
    threads: tuple[ThreadProof, ...] = ()
    memory: MemoryProof | None = None
    overlap: float = 1.0
    start_skew: float = 0.0
    hop: tuple[float, float] | None = None  # one-way CAS hop of the farthest pair in s, before and after
    frequency: tuple[float, float] | None = None  # Hz of the slowest thread's core, before and after
    width: tuple[float, float] | None = None  # independent operations per cycle of the widest thread, before and after
    extra: dict[str, float] = {}  # what a kernel reports beside its metrics (achieved delays, check values)


class Column(Frozen):
    """One field of all samples of a round, in the shortest of its forms.

    `values`: one for each sample; with `at` only for the samples of these numbers, and `usual` for all others; with `of` the
    numbers of these values. `digits`: the same as `values` where these are whole numbers, as many characters for each, digits of
    base 64 (0-9A-Za-z-_) of how much more than `least` it is. `unit`: a value is so many times this; `parts`: so many of the parts into
    which one is divided. `than`: what is added to the number of that column, which has the same unit (without `values` and `digits`:
    the two are alike).
    """

    values: tuple[Any, ...] | None = None
    digits: str | None = None
    least: int = 0
    at: tuple[int, ...] | None = None
    usual: Any = 0
    of: tuple[Any, ...] | None = None
    unit: int | float | None = None
    parts: int | None = None
    than: str | None = None


class Round(Frozen):
    """Samples of alike cases that were measured at the same time, field by field: `runlog/rounds.py` makes it and expands it.

    A field is called as in a sample, `parameters.NAME`, `metrics.NAME`, `extra.NAME` or `threads.NUMBER.FIELD`. It is in `same`
    (one value for all), in `columns`, or in `derived` (it follows from the others), and otherwise has its default.
    """

    before: int  # samples of the trial that stand before it
    count: int
    threads: int  # of each sample
    parameters: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    same: dict[str, Any] = {}
    columns: dict[str, Column] = {}
    derived: tuple[str, ...] = ()


class TrialRecord(Frozen, tag="trial", tag_field="record"):
    """One process that executed one block of cases: the unit of record."""

    run: str
    session: str
    benchmark: str
    block: str
    process: int
    started: str
    duration: float
    startup: float  # seconds from spawn to the first measurement
    status: Literal["ok", "disturbed", "failed"]
    reasons: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    interference: dict[str, float] = {}
    measured: float = 0.0  # seconds inside measurement windows
    clock: dict[str, float] = {}  # seconds: what a reading of the time takes (`cost`), by how much two differ at least (`step`)
    rounds: tuple[Round, ...] = ()  # in a file: samples that were measured together; read, all are among `samples`


class EndRecord(Frozen, tag="end", tag_field="record"):
    """Last record of a visit that ended by itself or by Ctrl-C."""

    run: str
    session: str
    ended: str
    status: Literal["complete", "budget", "busy", "interrupted"]
    measured: float
    elapsed: float
    cells: dict[str, Any] = {}  # precision summary: total, reached, reasons


Record = Header | BenchmarkRecord | TrialRecord | EndRecord


def case_hash(benchmark: str, parameters: dict[str, Value]) -> str:
    """Content hash of one case: the same on every machine and in every version."""
    import hashlib

    body = msgspec.json.encode([benchmark, sorted(parameters.items())])
    return hashlib.sha256(body).hexdigest()[:12]


class Case(Frozen, gc=False):
    """One point of a benchmark's sweep."""

    benchmark: str
    parameters: dict[str, Value]

    @property
    def hash(self) -> str:
        return case_hash(self.benchmark, self.parameters)
