"""What a record must be like beyond its types, looked at once, when a log is loaded: everything behind `load` relies on it.

The shape of the machine's facts and of the plan stands here as classes; msgspec names the place of what does not fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ..errors import UsageError
from ..model import BenchmarkRecord, EndRecord, Header, Record, TrialRecord, Value, View, case_hash
from ..units import parse_cpus
from .columns import RESERVED
from .wrong import Wrong

DEEPEST = 24  # levels of nesting; the deepest that numabench writes has 7
LONGEST_TEXT = 20_000  # characters of one text; a kernel's command line has 2,048 at most
LONGEST_NAME = 300  # characters of what stands in every row of a table: names, units, words as parameters
MOST_REASONS, LONGEST_REASON = 64, 1_000  # of one sample; they stand in its rows as well
MOST_FACTS = 1_000_000  # values in one record's facts; those of 2,048 CPUs are some 30,000
MOST = {"axes": 24, "metrics": 64, "contrasts": 64, "views": 64, "answers": 2_048, "notes": 256}
MOST_SIDE = 4_096  # of a matrix between CPUs: what is made of one has as many cells as the square of that
MOST_BENCHMARKS, MOST_PARAMETERS = 256, 512  # of all logs that are read at once, by name: tables have a column for each parameter
MOST_MEMBERS = 1_000_000  # CPUs in all lists of a topology together; 2,048 CPUs with four levels of caches make some 20,000
MOST_ASKED = 512  # answers of one benchmark for the machine's card
MOST_VALUES = 100_000  # of one axis
LARGEST, LEAST = 1e60, 1e-60  # of a figure: a ratio of two, squared, still is a number
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?")
_NAME = re.compile(r"[^\W\d]\w*")


class Facts(msgspec.Struct, frozen=True):
    """As the machine's facts are read: what is absent is unknown, what is more is kept."""


Whole = int | None
Cpus = str | None


class Cache(Facts, frozen=True):
    level: Whole = None
    type: str | None = None
    size_bytes: Whole = None
    line_bytes: Whole = None
    cpus: Cpus = None


class Access(Facts, frozen=True):
    initiators: list[int] | None = None
    read_latency_ns: float | None = None
    write_latency_ns: float | None = None
    read_bandwidth_mb_per_s: float | None = None
    write_bandwidth_mb_per_s: float | None = None


class Node(Facts, frozen=True):
    id: int
    cpus: Cpus = None
    memory_bytes: Whole = None
    distances: dict[str, int] | None = None
    access: dict[str, Access | None] | None = None
    nearest_cpu_nodes: list[int] | None = None


class Package(Facts, frozen=True):
    cpus: str
    id: Whole = None


class Topology(Facts, frozen=True):
    cpus: Cpus = None
    allowed_cpus: Cpus = None
    packages: list[Package] | None = None
    cores: list[str] | None = None
    nodes: list[Node] | None = None
    caches: list[Cache] | None = None
    smt: Whole = None
    warnings: list[Any] | None = None
    allowed_nodes: str | None = None
    dies: list[str] | None = None
    clusters: list[str] | None = None


class MachineFacts(Facts, frozen=True):
    id: str | None = None
    alias: str | None = None
    hostname: str | None = None
    brand: str | None = None
    arch: str | None = None
    hardware_key: str | None = None
    configuration_key: str | None = None
    hardware: dict[str, Any] | None = None
    configuration: dict[str, Any] | None = None
    condition: dict[str, Any] | None = None
    topology: Topology | None = None
    warnings: list[Any] | None = None
    findings: list[Any] | None = None


class PlanFacts(Facts, frozen=True):
    profile: str | None = None
    budget: float | None = None
    target: float | None = None
    cases: Whole = None
    key: str | None = None


def check(record: Record) -> None:
    """Raises Wrong for what no reader could use."""
    if isinstance(record, TrialRecord):
        check_trial(record)
        return
    for name in ("run", "session", "block"):
        check_text(f"the name of a {name}", getattr(record, name, None), most=LONGEST_NAME)
    if isinstance(record, Header):
        check_header(record)
    elif isinstance(record, BenchmarkRecord):
        check_benchmark(record)
    elif isinstance(record, EndRecord):
        check_facts(record.cells)
        check_figures(("measured", record.measured), ("elapsed", record.elapsed))
        check_moment(record.ended)


def check_trial(trial: TrialRecord) -> None:
    """Of these a log has hundreds: what is usual is looked at without naming it."""
    if len(trial.run) > LONGEST_NAME or len(trial.session) > LONGEST_NAME or len(trial.block) > LONGEST_NAME:
        for name in ("run", "session", "block"):
            check_text(f"the name of a {name}", getattr(trial, name), most=LONGEST_NAME)
    check_moment(trial.started)
    check_figures(("duration", trial.duration), ("startup", trial.startup), ("measured", trial.measured))


def check_header(header: Header) -> None:
    check_moment(header.started)
    check_machine(header.machine)
    check_plan(header.plan)
    check_facts(header.arguments)


def check_machine(facts: dict[str, Any]) -> None:
    check_facts(facts)
    found = _shaped("machine", facts, MachineFacts)
    check_text("a name of the machine", found.id, found.alias, found.hostname, most=LONGEST_NAME)
    if found.topology:
        check_topology(found.topology)


def check_plan(facts: dict[str, Any]) -> None:
    check_facts(facts)
    found = _shaped("plan", facts, PlanFacts)
    check_figures(("the plan's target", found.target or 0.0), ("the plan's budget", found.budget or 0.0))
    if found.target is not None and not 0 <= found.target < 1:
        raise Wrong(f"the plan's target is {found.target:g}, which is no share")


def _shaped(name: str, facts: dict[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(facts, kind)
    except msgspec.ValidationError as error:
        raise Wrong(f"{name}: {error}") from error


def check_topology(topology: Topology) -> None:
    members = 0
    for text in (
        topology.cpus,
        topology.allowed_cpus,
        *(topology.cores or ()),
        *(topology.dies or ()),
        *(topology.clusters or ()),
        *(each.cpus for part in (topology.packages, topology.nodes, topology.caches) for each in part or ()),
    ):
        try:
            members += len(parse_cpus(text or ""))
        except UsageError as error:
            raise Wrong(f"machine: {error.message}") from error
        if members > MOST_MEMBERS:
            raise Wrong(f"machine: its caches, nodes and cores name CPUs over {MOST_MEMBERS:,} times")
    for node in topology.nodes or ():
        if not all(far.isdecimal() and len(far) < 10 for far in node.distances or ()):
            raise Wrong(f"machine: node {node.id} has distances to what is no node")


def check_facts(facts: Any) -> None:
    """Depth, number and size of facts of any shape."""
    left, depth, count = [facts], 0, 0
    while left:  # level by level: no recursion, whatever the depth
        depth += 1
        count += len(left)
        if depth > DEEPEST or count > MOST_FACTS:
            raise Wrong(f"facts are nested over {DEEPEST} levels deep" if depth > DEEPEST else f"over {MOST_FACTS:,} facts")
        below = []
        for value in left:
            if isinstance(value, str):  # most are
                if len(value) > LONGEST_TEXT:
                    check_text("a fact", value)
            elif isinstance(value, dict):
                below += value
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, (int, float)) and not abs(value) <= LARGEST:
                raise Wrong("a fact is a number beyond all measure")
        left = below


def check_text(name: str, *texts: str | None, most: int = LONGEST_TEXT) -> None:
    for text in texts:
        if text is not None and len(text) > most:
            raise Wrong(f"{name} is a text of {len(text):,} characters, over {most:,}")


def check_moment(text: str) -> None:
    """Goes into pages and headers of C as it is."""
    if not _MOMENT.fullmatch(text):
        raise Wrong(f"{text[:30]!r} is no moment like 2026-01-01T12:00:00Z")


def check_figures(*figures: tuple[str, float]) -> None:
    for name, value in figures:
        if not usable(value):
            raise Wrong(f"{name} is {value:g}, beyond all measure")


def usable(value: float) -> bool:
    """Whether logarithms, ratios and sums of such figures are numbers."""
    return value == 0 or LEAST <= abs(value) <= LARGEST


def check_benchmark(record: BenchmarkRecord) -> None:
    for part, most in MOST.items():
        if len(getattr(record, part)) > most:
            raise Wrong(f"{record.name[:60]} has {len(getattr(record, part)):,} {part}, over {most:,}")
    if len(record.card.answers) > MOST_ASKED:
        raise Wrong(f"{record.name[:60]} asks {len(record.card.answers):,} things for the machine's card, over {MOST_ASKED:,}")
    check_facts(record.method)
    check_text("the name of a benchmark", record.name, record.topic, most=LONGEST_NAME)
    check_text(
        "a sentence",
        record.title,
        record.question,
        record.expected,
        *record.notes,
        *(a.text for a in (*record.answers, *record.card.answers)),
    )
    axes = {axis.name: axis for axis in record.axes}
    metrics = {metric.name for metric in record.metrics}
    if len(axes) < len(record.axes) or len(metrics) < len(record.metrics) or metrics & set(axes):
        raise Wrong(f"{record.name[:60]} has two parameters or metrics of one name")
    for name in (*axes, *metrics):
        if not _NAME.fullmatch(name) or len(name) > 80:
            raise Wrong(f"{name[:60]!r} is no name of a parameter or metric", "letters, digits and underscores make a name")
    if taken := sorted(RESERVED & set(axes)):
        raise Wrong(
            f"{taken[0]!r} cannot be a parameter's name, since tables have a column of that name",
            "give the parameter another name",
        )
    for axis in record.axes:
        if len(axis.values) > MOST_VALUES:
            raise Wrong(f"{axis.name} has {len(axis.values):,} values, over {MOST_VALUES:,}")
        check_values(axis.name, axis.values)
    for metric in record.metrics:
        check_text("a unit", metric.unit, metric.polarity, most=LONGEST_NAME)
        check_text("a summary", metric.summary)
    for contrast in record.contrasts:
        check_names(record, "a contrast", axes, [contrast.axis])
        check_names(record, "a contrast", metrics, [contrast.metric])
        check_values(contrast.axis, [contrast.control])
    for view in (*record.views, *(picture.view for picture in record.card.pictures)):
        check_view(record, view, set(axes), metrics)
    for view in (picture.view for picture in record.card.pictures if picture.view.kind == "heatmap"):
        if {view.x, view.y} not in ({"cpu_a", "cpu_b"}, {"cpu_node", "memory_node"}):
            raise Wrong(f"a map on the card of {record.name[:60]} is neither of CPUs nor of nodes")
    for answer in (*record.answers, *record.card.answers):
        known = {"agreement": {*axes, *answer.against}}.get(answer.kind, axes)
        check_names(record, "an answer", known, [*answer.where, *answer.against, *([answer.axis] if answer.axis else [])])
        check_names(record, "an answer", metrics, [answer.metric])
        check_values("an answer", [*answer.where.values(), *answer.against.values()])
        if not 0 <= answer.tolerance <= LARGEST:
            raise Wrong(f"an answer of {record.name} has a tolerance of {answer.tolerance:g}, which is none")
        if needs := _missing(answer, axes):
            raise Wrong(f"an answer of kind {answer.kind!r} of {record.name} names no {needs}")


def _missing(answer: Any, axes: Iterable[str]) -> str | None:
    """What an answer of this kind cannot do without."""
    if (
        answer.kind in ("best", "threshold", "gain", "saturation", "knee", "reach", "ranking", "crossover", "capacity")
        and answer.axis is None
    ):
        return "axis"
    if answer.kind in ("firmware", "weights") and not {"cpu_node", "memory_node"} <= set(axes):
        return "nodes of CPUs and of memory"
    if answer.kind == "capacity" and not (_number(answer.where.get(answer.axis)) and _number(answer.against.get(answer.axis))):
        return "ends of the axis"
    if answer.kind == "gain" and answer.axis not in answer.where:
        return "beginning of the axis"
    if answer.kind == "crossover" and not (answer.against and set(answer.against) <= set(answer.where)):
        return "two sides"
    if answer.kind == "agreement" and "benchmark" not in answer.against:
        return "other benchmark"
    return None


def _number(value: Any) -> bool:
    return isinstance(value, (int, float))


def check_view(record: BenchmarkRecord, view: View, axes: set[str], metrics: set[str]) -> None:
    check_text("a title", view.title)
    check_names(record, "a figure", metrics, [view.metric, *([view.x] if view.kind == "curve" else [])])
    used = [view.series, view.y, view.facet, view.along, *([] if view.kind == "curve" else [view.x])]
    check_names(record, "a figure", axes, [name for name in used if name is not None] + list(view.where))
    check_values("a figure", [*view.where.values(), *view.both, *view.borders])
    if len(view.both) > MOST_SIDE:
        raise Wrong(f"a heat map of {record.name} has {len(view.both):,} rows, over {MOST_SIDE:,}")
    if view.kind == "heatmap" and (view.y is None or (view.both and not all(_number(value) for value in view.both))):
        raise Wrong(f"a heat map of {record.name} has no rows, or rows that are no numbers")


def check_names(record: BenchmarkRecord, what: str, known: Iterable[str], names: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise Wrong(f"{what} of {record.name[:60]} speaks of {name[:60]!r}, which it does not declare")


def check_values(name: str, values: Iterable[Value]) -> None:
    for value in values:
        if isinstance(value, str):
            check_text(name, value, most=LONGEST_NAME)
        elif isinstance(value, bool) or not -(2**63) <= value < 2**63 or not math.isfinite(value):
            raise Wrong(f"{name} has the value {str(value)[:30]}, which no parameter can have")


class Samples:
    """The trials of one benchmark of one run against its descriptor. A case's parameters are looked at where it is first seen."""

    def __init__(self, record: BenchmarkRecord):
        self.name = record.name
        self.axes = {axis.name for axis in record.axes}
        self.metrics = frozenset(metric.name for metric in record.metrics)
        self.words = {axis.name: {isinstance(v, str) for v in axis.values} for axis in record.axes}
        self.cases: dict[str, dict[str, Value]] = {}

    def check(self, trial: TrialRecord) -> None:
        cases, known_metrics = self.cases, self.metrics
        figures: list[float] = []
        for sample in trial.samples:
            known = cases.get(sample.case)
            if known is None:
                self.first(sample.case, sample.parameters)
            elif known != sample.parameters:
                raise Wrong(f"case {sample.case[:20]} has other parameters than before: {_shown(sample.parameters)}")
            if sample.reasons and (len(sample.reasons) > MOST_REASONS or len(max(sample.reasons, key=len)) > LONGEST_REASON):
                raise Wrong(
                    f"a sample of {self.name} has over {MOST_REASONS} reasons, or one of over {LONGEST_REASON:,} characters"
                )
            if not known_metrics.issuperset(sample.metrics):
                extra = sorted(sample.metrics.keys() - self.metrics)[0]
                raise Wrong(f"a sample has the metric {extra[:60]!r}, which {self.name} does not declare")
            figures += sample.metrics.values()
            figures += sample.hop or ()
            figures += sample.width or ()
            figures += sample.frequency or ()
        if figures and not (min(figures) >= LEAST and max(figures) <= LARGEST) and not all(map(usable, figures)):
            self.check_figures(trial)  # most are positive: one by one takes ten times as long

    def check_figures(self, trial: TrialRecord) -> None:
        for sample in trial.samples:
            for name, value in sample.metrics.items():
                if not usable(value):
                    raise Wrong(f"{name} is {value:g}, beyond all measure")
            for pair in (sample.hop, sample.width, sample.frequency):
                if pair is not None and not all(map(usable, pair)):
                    raise Wrong(f"a proof of {self.name} is {pair}, beyond all measure")

    def first(self, case: str, parameters: dict[str, Value]) -> None:
        if parameters.keys() != self.axes:
            odd = sorted(parameters.keys() ^ self.axes)[0]
            raise Wrong(f"a sample and its benchmark {self.name} differ in the parameter {odd[:60]!r}")
        check_values("a sample", parameters.values())
        for name, value in parameters.items():
            kinds = self.words[name]
            kinds.add(isinstance(value, str))
            if len(kinds) > 1:
                raise Wrong(f"the parameter {name} is a word here and a number there")
        if case != case_hash(self.name, parameters):
            raise Wrong(f"case {case[:20]!r} is not that of {_shown(parameters)}")
        self.cases[case] = parameters


def _shown(parameters: dict[str, Value]) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters.items())[:120]
