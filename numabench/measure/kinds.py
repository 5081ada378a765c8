"""One kind of core at a time: a benchmark on a machine whose cores differ, planned and worded once for each kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import msgspec

from ..benchmarks import Benchmark, Parameters, Placement, Sweep, answerable
from ..host.topology import Topology
from ..model import Answer, Axis, Card, Value, View

CORE_KIND = "core_kind"  # the parameter that it puts into the key of every case


def by_kind(
    benchmarks: Sequence[Benchmark], topology: Topology, kinds: Sequence[Value] = (), every_kind: bool = True
) -> list[Benchmark]:
    """The benchmarks as they are measured on this machine: of these kinds of core, by default of all, or of the biggest alone."""
    here = [kind.name for kind in topology.own_kinds()]
    if not here:
        return list(benchmarks)
    wanted = tuple(name for name in here if name in (kinds or (here if every_kind else here[:1])))
    return [ByKind(each, wanted) if each.one_kind else each for each in benchmarks]


def bare(p: Parameters) -> Parameters:
    return {name: value for name, value in p.items() if name != CORE_KIND}


class ByKind:
    """A benchmark that sees the CPUs of one kind alone, once for each kind of `kinds` (the biggest cores first). Cases carry their kind as a parameter, sentences and figures name it. What is not about the plan is the benchmark's own."""

    def __init__(self, benchmark: Benchmark, kinds: tuple[str, ...]):
        self.benchmark, self.kinds = benchmark, kinds
        self.axes = (*benchmark.axes, Axis(name=CORE_KIND, summary="kind of the cores, one at a time", values=kinds))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.benchmark, name)

    def sweep(self, topology: Topology, profile: str) -> list[Sweep]:
        return self._of_kinds(lambda kind: self.benchmark.sweep(topology.of_kind(kind), profile))

    def acceptance(self, topology: Topology) -> list[Sweep]:
        return self._of_kinds(lambda kind: self.benchmark.acceptance(topology.of_kind(kind)) or [])

    def keep(self, p: Parameters, topology: Topology) -> bool:
        return self.benchmark.keep(bare(p), topology.of_kind(p[CORE_KIND]))

    def group(self, p: Parameters) -> tuple:
        return (p[CORE_KIND], *self.benchmark.group(bare(p)))

    def place(self, p: Parameters, topology: Topology) -> Placement | None:
        return self.benchmark.place(bare(p), topology.of_kind(p[CORE_KIND]))

    def preparation(self, p: Parameters) -> tuple | None:
        return self.benchmark.preparation(p)  # as the worker asks: the cores are part of it there

    def rounds(self, cases: list[Parameters]) -> list[Hashable | None]:
        turns = {kind: iter(self.benchmark.rounds(found)) for kind, found in self._of_each(cases)}
        found = [(p[CORE_KIND], next(turns[p[CORE_KIND]])) for p in cases]
        return [None if turn is None else (kind, turn) for kind, turn in found]

    def refine(self, found: list[tuple[Parameters, float]], topology: Topology) -> list[Parameters]:
        points = []
        for kind in self.kinds:
            mine = [(bare(p), value) for p, value in found if p.get(CORE_KIND) == kind]
            points += [{**p, CORE_KIND: kind} for p in self.benchmark.refine(mine, topology.of_kind(kind))] if mine else []
        return points

    def contradictions(
        self, found: list[tuple[Parameters, dict[str, float]]], topology: Topology
    ) -> list[tuple[Parameters, str]]:
        wrong = []
        for kind in self.kinds:
            mine = [(bare(p), metrics) for p, metrics in found if p.get(CORE_KIND) == kind]
            wrong += [({**p, CORE_KIND: kind}, said) for p, said in self.benchmark.contradictions(mine, topology.of_kind(kind))]
        return wrong

    def figures(self, topology: Topology, cases: list[Parameters]) -> tuple[View, ...]:
        def of(kind: str, view: View) -> View:
            return msgspec.structs.replace(
                view, title=f"{view.title}, cores of kind {kind}", where={**view.where, CORE_KIND: kind}
            )

        return self._worded(topology, cases, self.benchmark.figures, of)

    def answers(self, topology: Topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        def of(kind: str, answer: Answer) -> Answer:
            against = {**answer.against, CORE_KIND: kind} if answer.against else {}
            where = {**answer.where, CORE_KIND: kind}
            return msgspec.structs.replace(answer, text=f"Cores of kind {kind}: {answer.text}", where=where, against=against)

        return self._worded(topology, cases, self.benchmark.answers, of)

    def carded(self, topology: Topology, cases: list[Parameters]) -> Card:
        """What the first kind with cases adds to the machine's card: a card shows one kind, and says which."""
        for kind, mine in self._of_each(cases):
            if mine:
                return self.benchmark.carded(topology.of_kind(kind), mine).of_kind(CORE_KIND, kind)
        return Card()

    def asked(self, topology: Topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        return answerable(self.answers(topology, cases), cases)

    def _of_kinds(self, sweeps: Callable[[str], list[Sweep]]) -> list[Sweep]:
        return [{**sweep, CORE_KIND: (kind,)} for kind in self.kinds for sweep in sweeps(kind)]

    def _of_each(self, cases: Iterable[Parameters]) -> list[tuple[str, list[Parameters]]]:
        cases = list(cases)
        return [(kind, [bare(p) for p in cases if p[CORE_KIND] == kind]) for kind in self.kinds]

    def _worded(self, topology: Topology, cases: list[Parameters], say: Callable, of: Callable) -> tuple:
        """What the benchmark says of the cases of each kind, with the kind added."""
        parts = [(kind, topology.of_kind(kind), mine) for kind, mine in self._of_each(cases) if mine]
        return tuple(of(kind, each) for kind, part, mine in parts for each in say(part, mine))
