"""Two logs with matrices between CPUs made comparable: by the place of a CPU in its machine, or by relation, never by its number.

Machines of one shape are compared place by place: the CPUs of all are renamed to those of the first. Of other shapes, and of published matrices (one
figure for each pair, no topology), the pairs of each relation are compared: then a case is a relation.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from ..model import Answer, Axis, BenchmarkRecord, Card, Frozen, Price, Sample, TrialRecord, Value, View, case_hash
from ..runlog.read import RunLog
from ..units import parse_cpus
from .declared import declared_groups, declares
from .neighbours import symmetric
from .places import Arrangement, Shape, declared_arrangement, measured_arrangement


class Matrix(Frozen):
    """One machine's matrix view in a log."""

    machine: str
    alias: str
    view: View
    topology: dict
    cpus: tuple[int, ...]
    arrangement: Arrangement
    shape: Shape
    order: tuple[int, ...]  # CPUs in place

    @property
    def numbers(self) -> tuple:
        """What the CPUs and their nodes are called, in place."""
        nodes = nodes_by_cpu(self.topology)
        return tuple((cpu, nodes.get(cpu)) for cpu in self.order)


def aligned(base: RunLog, new: RunLog) -> tuple[RunLog, RunLog, tuple[str, ...]]:
    """Both logs, their CPUs renamed or their pairs sorted by relation where that is needed, and a sentence for each benchmark that says so."""
    notes = []
    for name in dict.fromkeys(b.name for b in base.benchmarks if matrix_view(b)):
        sides = [matrices(log, name) for log in (base, new)]
        if not all(sides):
            continue
        published = [m.alias for side in sides for m in side if not declares(m.topology)]
        if published:  # what one machine declares has no names for what the other one measured
            sides = [matrices(log, name, declared=False) for log in (base, new)]
        found = [*sides[0], *sides[1]]
        if len({m.machine for m in found}) == 1 and len({m.numbers for m in found}) == 1:
            continue  # one machine with one numbering
        if published or len({str(m.shape) for m in found}) > 1:
            why = (
                f"{published[0]} is a published matrix: no topology, one figure for each pair; its groups are measured ones"
                if published
                else f"their shapes differ ({shape_text(sides[0][0])} against {shape_text(sides[1][0])})"
            )
            notes.append(f"{name} is compared by relation and not CPU by CPU: {why}.")
            base, new = (by_relation(log, name, side, bool(published)) for log, side in zip((base, new), sides, strict=True))
        elif len({m.numbers for m in found}) > 1:
            notes.append(f"{name} is compared by place (package, node, L3, core, sibling) and not by number: {example(found)}.")
            base, new = (by_place(log, name, side, found[0]) for log, side in zip((base, new), sides, strict=True))
    return base, new, tuple(notes)


def example(found: list[Matrix]) -> str:
    """The first CPU (else node) that another machine calls otherwise than the first one."""
    pairs = (
        (m, here, there) for m in found[1:] for here, there in zip(found[0].numbers, m.numbers, strict=True) if here != there
    )
    other, (cpu, node), (its_cpu, its_node) = next(pairs)
    what, here, there = ("CPU", cpu, its_cpu) if cpu != its_cpu else ("node", node, its_node)
    return f"{what} {there} of {other.alias} is where {what} {here} of {found[0].alias} is"


def matrix_view(benchmark: BenchmarkRecord) -> View | None:
    return next((v for v in benchmark.views if v.kind == "heatmap" and (v.y, v.x) == ("cpu_a", "cpu_b") and v.both), None)


def matrices(log: RunLog, name: str, declared: bool = True) -> list[Matrix]:
    """The benchmark's matrix of each machine of a log, the last visit's; its groups are those declared, if `declared` and there are any, or measured."""
    headers = {h.run: h for h in log.headers}
    last = {
        str(headers[b.run].machine.get("id")): (b, view) for b in log.benchmarks if b.name == name and (view := matrix_view(b))
    }
    found = []
    for machine, (benchmark, view) in last.items():
        facts = headers[benchmark.run].machine
        topology, cpus = facts.get("topology") or {}, tuple(map(int, view.both))
        rank: dict[int, float] = {cpu: cpu for cpu in cpus}
        if declared and declares(topology):
            arranged = declared_arrangement(topology, cpus)
        else:
            values = measured(log, name, benchmark.run, view, cpus)
            arranged = measured_arrangement(values, cpus)
            rank = dict(zip(cpus, np.nan_to_num(values).sum(axis=0), strict=True))
        shape, order = arranged.placed(frozenset(cpus), rank)
        found.append(
            Matrix(
                machine=machine,
                alias=str(facts.get("alias")),
                view=view,
                topology=topology,
                cpus=cpus,
                arrangement=arranged,
                shape=shape,
                order=order,
            )
        )
    return found


def measured(log: RunLog, name: str, run: str, view: View, cpus: tuple[int, ...]) -> np.ndarray:
    """Medians of the pairs, symmetric, shape (n, n); NaN where there is none."""
    place = {cpu: at for at, cpu in enumerate(cpus)}
    values: dict[tuple[int, int], list[float]] = {}
    for sample in (s for t in log.trials if t.run == run and t.benchmark == name for s in t.samples):
        if sample.valid and view.where.items() <= sample.parameters.items():
            pair = place[sample.parameters["cpu_a"]], place[sample.parameters["cpu_b"]]
            values.setdefault(pair, []).append(sample.metrics[view.metric])
    matrix = np.full((len(cpus), len(cpus)), np.nan)
    for pair, of_pair in values.items():
        matrix[pair] = np.median(of_pair)
    return symmetric(matrix)


def shape_text(matrix: Matrix) -> str:
    """`2 packages, 4 L3 groups, 8 cores, 16 CPUs`."""
    groups = declared_groups(matrix.topology, matrix.cpus)
    return ", ".join([*(f"{len(groups[name])} {name}" for name in reversed(groups)), f"{len(matrix.cpus)} CPUs"])


def rewritten(log: RunLog, name: str, benchmark, trials) -> RunLog:
    """The log with the benchmark's records passed through `benchmark`, and its trials replaced by those of `trials`."""
    machines = {h.run: str(h.machine.get("id")) for h in log.headers}
    return msgspec.structs.replace(
        log,
        benchmarks=tuple(benchmark(b, machines[b.run]) if b.name == name else b for b in log.benchmarks),
        trials=tuple(
            t for trial in log.trials for t in (trials(trial, machines[trial.run]) if trial.benchmark == name else (trial,))
        ),
    )


def moved(sample: Sample, name: str, parameters: dict[str, Value], **changes) -> Sample:
    return msgspec.structs.replace(sample, case=case_hash(name, parameters), parameters=parameters, **changes)


def by_place(log: RunLog, name: str, side: list[Matrix], first: Matrix) -> RunLog:
    """The CPUs (and the nodes where lines live) of all machines renamed to those of `first`."""
    nodes_of_first = nodes_by_cpu(first.topology)
    names = {m.machine: dict(zip(m.order, first.order, strict=True)) for m in side}
    homes = {
        m.machine: {
            node: nodes_of_first.get(names[m.machine][cpu], node)
            for cpu, node in nodes_by_cpu(m.topology).items()
            if cpu in names[m.machine]
        }
        for m in side
    }
    rank = {cpu: at for at, cpu in enumerate(first.order)}

    def parameters(p: dict[str, Value], machine: str) -> dict[str, Value]:
        if not {"cpu_a", "cpu_b"} <= p.keys():
            return p
        pair = [names[machine][p[axis]] for axis in ("cpu_a", "cpu_b")]
        if nodes_of_first.get(pair[0]) == nodes_of_first.get(pair[1]):  # one home: measured once, whichever CPU came first
            pair.sort(key=rank.__getitem__)
        home = {"home": homes[machine].get(p["home"], p["home"])} if "home" in p else {}
        return {**p, "cpu_a": pair[0], "cpu_b": pair[1], **home}

    def record(benchmark: BenchmarkRecord, machine: str) -> BenchmarkRecord:
        views = (
            msgspec.structs.replace(v, both=first.view.both, borders=first.view.borders) if v.both else v for v in benchmark.views
        )
        return msgspec.structs.replace(benchmark, views=tuple(views), card=benchmark.card.at(lambda p: parameters(p, machine)))

    def trials(trial: TrialRecord, machine: str) -> Iterable[TrialRecord]:
        samples = tuple(moved(s, name, parameters(s.parameters, machine)) for s in trial.samples)
        yield msgspec.structs.replace(trial, samples=samples)

    return rewritten(log, name, record, trials)


def nodes_by_cpu(topology: dict) -> dict[int, int]:
    return {cpu: node["id"] for node in topology.get("nodes", ()) for cpu in parse_cpus(node["cpus"])}


def by_relation(log: RunLog, name: str, side: list[Matrix], published: bool) -> RunLog:
    """Cases are relations. A process tells of the median over its pairs; where a published matrix takes part, which knows no processes, only
    its metric and what every tool measures are compared, and of the published one each pair is an observation."""
    of = {m.machine: m for m in side}
    indices = {m.machine: m.arrangement.relation_indices(m.cpus) for m in side}
    places = {m.machine: {cpu: at for at, cpu in enumerate(m.cpus)} for m in side}

    def record(benchmark: BenchmarkRecord, machine: str) -> BenchmarkRecord:
        view = of[machine].view
        axes = [Axis(name="relation", summary="of the two CPUs, nearest first", values=of[machine].arrangement.relations)]
        axes += [a for a in benchmark.axes if a.name == "operation"]
        at = {key: value for key, value in view.where.items() if key == "operation"}
        asked = (
            Answer(kind="cell", metric=view.metric, where={"relation": r, **at}, text=f"core to core, {r}")
            for r in of[machine].arrangement.relations
        )
        card = Card(prices=tuple(Price(answer=answer, rank=20 + n) for n, answer in enumerate(asked)))
        bars = View(title=f"{view.title}, by relation", metric=view.metric, kind="bar", x="relation")
        quantity = {"kernel": None, "method": {"one way": benchmark.method.get("one way", "")}} if published else {}
        return msgspec.structs.replace(
            benchmark, axes=tuple(axes), views=(bars,), contrasts=(), answers=(), card=card, **quantity
        )

    def trials(trial: TrialRecord, machine: str) -> Iterable[TrialRecord]:
        matrix, index, place = of[machine], indices[machine], places[machine]
        samples = []
        for s in trial.samples:
            p = s.parameters
            if (matrix.view.where | {"operation": p["operation"]}).items() <= p.items():
                relation = matrix.arrangement.relations[index[place[p["cpu_a"]], place[p["cpu_b"]]]]
                metrics = {matrix.view.metric: s.metrics[matrix.view.metric]} if published else s.metrics
                case = {"relation": relation, "operation": p["operation"]}
                samples.append(moved(s, name, case, metrics=metrics, hop=None, width=None))
        if declares(matrix.topology):
            yield msgspec.structs.replace(trial, samples=tuple(samples))
        else:
            yield from (msgspec.structs.replace(trial, samples=(s,), process=number) for number, s in enumerate(samples))

    return rewritten(log, name, record, trials)
