"""Benchmarks: one module per question, found by looking into this folder and at entry points, never listed.

A module holds `BENCHMARK`, an instance of a subclass of `Benchmark`. Both the planning parent and the measuring worker
import it, so it needs the standard library and `numabench.model` alone.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UsageError
from ..model import ALPHA, PAIRED_KINDS, Answer, Axis, Card, Contrast, Frozen, Value, View
from ..text import near, printable

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from ..host.topology import Topology

ENTRY_POINTS = "numabench.benchmarks"
ROUNDING = 1e-9  # by which an index of floating-point sums may be above what is most
ALONE = "alone"  # placement of a single thread
SAME_CPU = "same_cpu"  # placement of several threads on one CPU, of benchmarks whose threads give way to each other
CROWDED = "oversubscribed"  # placement of more threads than CPUs: two on each, or all CPUs in turn

#: Bytes of the widest cache line (z/Architecture), and how far apart kernels keep things then (NB_APART in kernels/nb_cpu.h). Memory is planned for them
#: where what is kept apart makes its size: which line it is, is measured later, and kernels use the beginning.
MOST_LINE, MOST_APART = 256, 1024

#: What benchmarks are about: memory itself, what cores cost each other (shared lines, locks, ordering), or what runtimes of languages rely on (the kernel's
#: contracts: copies that are left out, hand-overs, interrupts of other CPUs).
TOPICS = ("memory", "cores", "runtime")

#: Relations of CPUs as the report's sentences say them.
RELATION_WORDS = {
    "smt": "siblings of one core",
    "cluster": "CPUs that share an L2",
    "l3": "CPUs that share an L3",
    "node": "CPUs of one node",
    "package": "CPUs of one package",
    "cross_package": "CPUs of two packages",
    CROWDED: "fewer CPUs than threads",
}

#: And the names of prices, where there is less room.
RELATION_NAMES = {
    "smt": "sibling thread",
    "cluster": "same L2",
    "l3": "same L3",
    "node": "same node",
    "package": "same package",
    "cross_package": "other package",
    CROWDED: "fewer CPUs than threads",
}


def nearest_cores_first(relation: str) -> tuple[bool, int]:
    """For sorting: what lies between cores, nearest first; siblings of one core behind it, of which a card speaks last."""
    order = list(RELATION_NAMES)
    return relation not in order or relation in ("smt", CROWDED), order.index(relation) if relation in order else len(order)


Parameters = dict[str, Value]
Sweep = dict[str, Sequence[Value]]


class Placement(Frozen, gc=False):
    """Where a case's threads and memory are asked to go. `node` None: wherever the first touch puts the pages.

    `parts`: a node for each of so many equal parts of the memory, instead of one for all; by the policies `interleave` and
    `weighted` the nodes that get pages in turn.
    """

    cpus: tuple[int, ...]
    node: int | None
    size: int
    scratch: int = 0
    page_size: str = "4k"
    parts: tuple[int, ...] = ()
    policy: str = "bind"


class Probes(Frozen):
    """What the sentinels found on the pinned CPUs: Hz of the slowest, width of the widest, s per multiply, one-way hop in s, s of a call that interrupts all but the
    first."""

    frequency: float
    multiply: float = 0.0
    hop: float | None = None
    width: float = 0.0  # independent operations per cycle
    interrupt: float | None = None  # None: not asked for, one thread alone, or a kernel without membarrier

    def mean(self, other: Probes) -> Probes:
        """Halfway between two: what held around a sample."""
        hop = (self.hop + other.hop) / 2 if self.hop and other.hop else None
        interrupt = (self.interrupt + other.interrupt) / 2 if self.interrupt and other.interrupt else None
        return Probes(
            frequency=(self.frequency + other.frequency) / 2,
            multiply=(self.multiply + other.multiply) / 2,
            hop=hop,
            width=(self.width + other.width) / 2,
            interrupt=interrupt,
        )


def jain_index(rates: Sequence[float]) -> float:
    """Jain, Chiu & Hawe 1984: 1 when all have the same rate, 1/n when one has all."""
    return sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))


#: How far apart threads that share lines look at the clock, in the usual batches: meanwhile the others have the line, and do some five operations for each look.
LINES_SHARED = 5.0


class Found:
    """What the threads of one sample brought back from C."""

    def __init__(self, threads: list[Any]):
        self.threads = threads

    @property
    def rates(self) -> list[float]:
        """Operations per second of each thread in its own window."""
        return [t.operations / (t.end_ns - t.begin_ns) * 1e9 for t in self.threads]

    @property
    def throughput(self) -> float:
        return sum(self.rates)

    @property
    def time_per_operation(self) -> float:
        """Nanoseconds of one operation in one thread: threads / throughput."""
        return len(self.threads) / self.throughput * 1e9

    @property
    def fairness(self) -> float:
        return jain_index(self.rates)

    @property
    def executed(self) -> int:
        return sum(t.executed for t in self.threads)


#: What prices of the kernel's services tolerate: with its version, its mitigations and the machine's firmware they differ by more, and what is asked of them is a factor.
KERNEL_PRICE = 0.10


class Benchmark(ABC):
    """A question asked of a machine with one kernel. Subclasses say what varies and what it means."""

    name: ClassVar[str]
    kernel: ClassVar[str]
    topic: ClassVar[str] = ""  # one of TOPICS, by which it can be asked for together with others
    phase: ClassVar[Literal["alpha", "beta", "stable", "deprecated"]] = "stable"  # how far it may be relied on (`model.PHASES`)
    title: ClassVar[str]
    question: ClassVar[str]
    expected: ClassVar[str]
    axes: ClassVar[tuple[Axis, ...]]
    contrasts: ClassVar[tuple[Contrast, ...]] = ()
    views: ClassVar[tuple[View, ...]] = ()
    notes: ClassVar[tuple[str, ...]] = ()
    method: ClassVar[dict[str, Value]] = {}
    module: str  # where it was found: what a worker imports
    kernel_folder: ClassVar[Path | None] = None  # of a plug-in's C files, with a copy of the headers; None: numabench's own
    rank: ClassVar[int] = 100  # where it stands in lists and reports; equal ones by name
    judges_gaps: ClassVar[bool] = True  # a long batch means an interruption (not where threads sleep by design)
    judges_overlap: ClassVar[bool] = True  # threads must begin and end together (not where two common times are counted between)
    #: A clock that changes disturbs: not where counts, shares or outcomes are among the metrics, which follow no clock. Times and rates are judged at the usual one
    #: (numabench/analysis/clock.py), and such a change sets none of them aside.
    judges_clock: ClassVar[bool] = True
    #: Waiting for the CPU disturbs (not where outcomes are counted, and not times). Single threads that wait by design: `waiters`.
    judges_delay: ClassVar[bool] = True
    tolerates: ClassVar[float] = (
        0.0  # relative: half-width of a settled figure, and what still counts as no difference (`Answer.tolerance`)
    )
    may_sleep: ClassVar[bool] = False
    windows: ClassVar[float] = 1.0  # measured time of one sample, in windows
    batches: ClassVar[float] = 1.0  # how far apart a thread looks at the clock, in the usual batches
    seconds: ClassVar[float] = 0.0  # and what it takes on top, whatever the window
    refined: ClassVar[str] = ""  # the metric by which `refine` looks; empty: nothing is refined
    refined_by: ClassVar[str] = ""  # the benchmark that measures it; empty: this one
    most_samples: ClassVar[int | None] = None  # of a case in one process, where one takes seconds
    one_kind: ClassVar[bool] = True  # of core at a time, where a machine has several (measure/kinds.py)
    needs: ClassVar[str] = ""  # what a machine without a place for any case lacks
    calls: ClassVar[tuple[str, ...]] = ()  # NUMA system calls that its kernel makes by itself
    counts_pages: ClassVar[bool] = False  # its figures are per page, and mean nothing where other pages were obtained
    touches_anew: ClassVar[bool] = (
        False  # its kernel gives pages back and touches them again: without mbind they are near that thread
    )
    needs_work: ClassVar[bool] = False  # the price of a multiply is measured for each case
    needs_interrupt: ClassVar[bool] = False  # what it takes to interrupt the other CPUs is measured around each sample
    reports: ClassVar[tuple[str, ...]] = ()  # of the kernel's metrics; empty: all
    most: ClassVar[dict[str, float]] = {}  # of a metric, where more is not possible

    # -- in the parent ----------------------------------------------------------------------------------------------

    @abstractmethod
    def sweep(self, topology: Topology, profile: str) -> list[Sweep]:
        """The products of axis values that `profile` (quick, standard, full) measures on this machine."""

    def acceptance(self, topology: Topology) -> list[Sweep] | None:
        """Those by which equal machines are held against each other, one visit each (profile `accept`): where faults show, in some twenty cases of a small machine
        and sixty of the largest, chosen by the topology alone. None: it has no part in that."""
        return None

    def mediated(self, parameters: Parameters) -> bool:
        """Whether the kernel carries what passes between the CPUs of a case: it costs interrupts and the way into and out of sleep, of which the hop of a cache line says nothing.
        Such samples have no hop, and no distance class."""
        return False

    def keep(self, parameters: Parameters, topology: Topology) -> bool:
        """Whether a point of the product is a case of its own."""
        return True

    def group(self, parameters: Parameters) -> tuple:
        """Cases of one group run in the same process: by default all that differ in the contrasts' axes only."""
        contrasted = {contrast.axis for contrast in self.contrasts}
        return tuple(v for k, v in parameters.items() if k not in contrasted)

    @abstractmethod
    def place(self, parameters: Parameters, topology: Topology) -> Placement | None:
        """CPUs and memory of a case; None where the machine has no such place."""

    def figures(self, topology: Topology, cases: list[Parameters]) -> tuple[View, ...]:
        """The figures that the report draws, for the points that were planned."""
        return self.views

    def answers(self, topology: Topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        """The sentences that the report says, for the points that were planned."""
        return ()

    def card(self, topology: Topology, cases: list[Parameters]) -> Card:
        """What it adds to the machine's card, for the points that were planned."""
        return Card()

    def carded(self, topology: Topology, cases: list[Parameters]) -> Card:
        """What of it speaks of points that were planned."""
        card = self.card(topology, cases)
        known = {id(answer) for answer in answerable(card.answers, cases)}
        return card.only(lambda answer: id(answer) in known)

    def asked(self, topology: Topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        """Those of the answers whose points were planned."""
        return answerable(self.answers(topology, cases), cases)

    def rounds(self, cases: list[Parameters]) -> list[Hashable | None]:
        """For each case the round in which it is measured at the same time as the others of that round, whose CPUs and arguments allow
        it; None: on its own."""
        return [None] * len(cases)

    def refine(self, found: list[tuple[Parameters, float]], topology: Topology) -> list[Parameters]:
        """Points to add to those of the sweep, by the medians of `refined` that the processes so far found."""
        return []

    def samples(self, wanted: int) -> int:
        """Samples of a case in one process, where `wanted` are asked for."""
        return min(wanted, self.most_samples or wanted)

    # -- in the worker ----------------------------------------------------------------------------------------------

    @abstractmethod
    def arguments(self, parameters: Parameters, probes: Probes) -> dict[str, str | int]:
        """The kernel's parameters; by default those of the case that have the same name."""

    def descriptors(self, parameters: Parameters, opened: ExitStack) -> Sequence[int]:
        """Open files, sockets, pipes and the like that the kernel gets in its own order (`nb_case.descriptor`), at most `kernel.DESCRIPTORS`, for one case.
        Each is closed after it by `opened` (`opened.callback(os.close, number)`, `opened.enter_context(socket)`). OSError or MachineError: the case cannot be
        measured here, and why."""
        return ()

    def preparation(self, parameters: Parameters) -> tuple | None:
        """What the kernel's preparation depends on: cases that follow each other with the same one, CPUs and memory share what one
        prepared. None: every case prepares memory of its own."""
        return None

    def seed_argument(self, seed: int) -> dict[str, int]:
        return {}

    def waiters(self, parameters: Parameters) -> Collection[int]:
        """Threads whose waiting for their CPU is part of what is measured (woken, moved or asleep by design): it is recorded, and disturbs nothing."""
        return ()

    def stretch(self, parameters: Parameters) -> float:
        """How many times as long as usual a window of this case must be."""
        return 1.0

    @abstractmethod
    def metrics(self, parameters: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        """Every metric that the kernel declares, or those in `reports`."""

    @abstractmethod
    def check(self, parameters: Parameters, found: Found) -> str:
        """What is wrong with the check values; empty when they are as predicted."""

    def physics(self, parameters: Parameters, metrics: dict[str, float]) -> str:
        """What cannot be; empty when nothing contradicts physics."""
        return ""

    def doubts(self, parameters: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """Further reasons why a sample is not valid, by what the sentinels found around it for instance."""
        return []

    def contradictions(
        self, found: list[tuple[Parameters, dict[str, float]]], topology: Topology
    ) -> list[tuple[Parameters, str]]:
        """Cases of one process that cannot be beside its others, and what is wrong with each; `found`: medians of its valid samples."""
        return []

    def unproven(self, parameters: Parameters, extra: dict[str, float], topology: Topology) -> str:
        """The reason why a sample does not show what it is called, where only the topology tells; empty when nothing is held against it."""
        return ""

    def impossible(self, metrics: dict[str, float]) -> str:
        """The reason why a sample is wrong whatever it measured: a metric below zero, or above what is most; empty where none is."""
        for name, value in metrics.items():
            if value < 0 or value > self.most.get(name, math.inf) * (1 + ROUNDING):
                return f"physics:{name.replace('_', ' ')} of {value:.4g}"
        return ""

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        """Achieved values that are no metrics."""
        return {}


def answerable(answers: Iterable[Answer], cases: list[Parameters]) -> tuple[Answer, ...]:
    """Those of which everything that they speak of is measured: the point, the other side of its pairs, and along an axis more than one value
    on both. The cases are looked through once for each set of axes that answers name: large machines have thousands of both."""
    answers, found = list(answers), {}
    for answer in answers:
        for side in sides(answer):
            found.setdefault(tuple(side), {})[tuple(side.values())] = []
    for names, points in found.items():
        for p in cases:
            if (hits := points.get(tuple(map(p.get, names)))) is not None:  # None, for a name that is no axis, is no value of one
                hits.append(p)
    least = {"threshold": 3, "crossover": 2}  # a threshold has its control among them
    return tuple(
        answer
        for answer in answers
        if all(
            len({p.get(answer.axis) for p in found[tuple(side)][tuple(side.values())]}) >= least.get(answer.kind, 1)
            for side in sides(answer)
        )
    )


def sides(answer: Answer) -> list[dict[str, Value]]:
    """The point that an answer speaks of, and the one that it is paired with."""
    return [answer.where, *([{**answer.where, **answer.against}] if answer.kind in PAIRED_KINDS else [])]


def place_threads(topology: Topology, placement: str, threads: int) -> tuple[int, ...] | None:
    """CPUs of `threads` threads at relation `placement`; one thread is alone on the first CPU in topology order."""
    if placement == SAME_CPU:
        return topology.order_cpus()[:1] * threads
    if placement == CROWDED:
        cpus = topology.order_cpus()[: threads // 2]
        return tuple(cpus[i % len(cpus)] for i in range(threads)) if cpus else None
    if threads == 1:
        return topology.order_cpus()[:1] if placement == ALONE else None
    return topology.choose_cpus(placement, threads) if placement != ALONE else None


def some_pairs(rows: Sequence[int], columns: Sequence[int], most: int) -> list[tuple[int, int]]:
    """All pairs, or where these are more than `most`, each row with itself and as many of the columns that follow it: of a large machine every node and a part
    of its links."""
    width = min(max(1, most // max(1, len(rows))), len(columns))
    starts = [columns.index(row) if row in columns else place for place, row in enumerate(rows)]
    return [(row, columns[(start + k) % len(columns)]) for row, start in zip(rows, starts, strict=True) for k in range(width)]


def memory_node(topology: Topology, node: int | None) -> int | None:
    """`node`, or the nearest one that has memory and may be used; None on a kernel without NUMA, where nothing is bound."""
    usable = topology.memory_nodes()
    if not topology.numa or node is None or not usable:
        return None
    if node in usable:
        return node
    distances = next(n.distances for n in topology.nodes if n.id == node)
    return min(usable, key=lambda other: (distances.get(other, 1 << 30), other))


def has_memory(topology: Topology, *nodes: int) -> bool:
    """Whether all of these nodes have memory that may be used; on a kernel without NUMA there is one memory, whatever its number."""
    return not topology.numa or set(nodes) <= set(topology.memory_nodes())


def discover() -> dict[str, Benchmark]:
    """All benchmarks by name: those of this package and those that other distributions register (`package.module`)."""
    return load_all()[0]


def broken() -> dict[str, str]:
    """Modules that should hold a benchmark, and why they do not: no reason to leave the others away."""
    return load_all()[1]


def load_all() -> tuple[dict[str, Benchmark], dict[str, str]]:
    from importlib.metadata import entry_points

    modules = [f"{__name__}.{m.name}" for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]
    modules += [point.value for point in entry_points(group=ENTRY_POINTS)]
    found, wrong = [], {}
    for module in modules:
        try:
            benchmark = importlib.import_module(module).BENCHMARK
            benchmark.module = module
            found.append((benchmark.rank, benchmark.name, benchmark))
        except Exception as error:  # whatever a module's code does wrong when it is imported
            where = f", {error.filename} line {error.lineno}" if isinstance(error, SyntaxError) else ""
            wrong[module] = printable(f"{type(error).__name__}: {getattr(error, 'msg', None) or error}{where}")
    return {name: benchmark for _, name, benchmark in sorted(found, key=lambda each: each[:2])}, wrong


def choose(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names and topics in their order, each once; all that may be relied on where none is named: not those of phase alpha."""
    known = discover()
    chosen: dict[str, Benchmark] = {}
    for name in names:
        about = [b for b in known.values() if b.topic == name] if name in TOPICS else [known.get(name) or find(name)]
        chosen |= {b.name: b for b in about}
    return list(chosen.values()) or [b for b in known.values() if b.phase != ALPHA]


def find(name: str) -> Benchmark:
    """The benchmark called `name`; an unknown one is answered with the nearest names."""
    known, wrong = load_all()
    if name in known:
        return known[name]
    for module, why in wrong.items():
        if module.rpartition(".")[2] == name:
            raise UsageError(f"the benchmark module {module} cannot be loaded: {why}", "mend or uninstall that module")
    raise UsageError(
        f"there is no benchmark {name!r}{near(name, (*known, *TOPICS))}",
        f"numabench list shows them: {', '.join(sorted(known))}; or the topics {', '.join(TOPICS)}",
    )
