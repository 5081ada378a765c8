"""How long does a cache line take from one CPU to another, for every two CPUs?"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable

import msgspec

from ..host.pages import base_page
from ..model import Answer, Axis, Card, Contrast, Picture, Price, Tile, View
from . import (
    RELATION_NAMES,
    RELATION_WORDS,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    has_memory,
    memory_node,
    nearest_cores_first,
    some_pairs,
)

OPERATIONS = ("cas", "load_store", "two_lines", "atomic_add")
MEDIAN_SLOT, P99_SLOT, LINES_SLOT = (
    0,
    1,
    2,
)  # of the second thread's `value` (kernels/core_to_core.c); those of the first: the lines
DIGITS = 2  # of ns: a block of 200 round trips is timed to some 20 ns, which is 0.05 ns one way
MOST_PAIRS = 64  # of nodes, between which a pair of CPUs is measured in one visit to each of many machines
ALONE_PAIRS = 1  # `company` of a pair that is measured alone
FEW_CPUS = 4  # whose pairs need no map
DISTURBING = 0.02  # a pair that company changes by more than this is measured with fewer at a time


class CoreToCore(Benchmark):
    name = kernel = "core_to_core"
    rank = 2
    topic = "cores"
    title = "Core to core"
    question = "How long does a cache line take from one CPU to another, and which CPUs are near each other?"
    expected = (
        "Siblings of one core are nearest, then CPUs that share an L2 or L3, then those of one socket; between sockets it takes several times as "
        "long. Where the line's home is changes the picture: a pair far from it pays for the way there."
    )
    axes = (
        Axis(name="cpu_a", summary="one CPU: a row", values=(), least=0),
        Axis(name="cpu_b", summary="the other: a column", values=(), least=0),
        Axis(
            name="operation",
            summary="cas and atomic_add on one word, load_store on one word, two_lines: one each way. Different quantities",
            values=OPERATIONS,
        ),
        Axis(name="home", summary="node that the line lives on", values=(), least=0),
        Axis(name="company", summary="pairs measured at the same time", values=(), least=1),
    )
    contrasts = (Contrast(axis="company", control=ALONE_PAIRS, metric="latency"),)
    method = {
        "one way": "half of a round trip",
        "lines": "every fourth of 4 KiB (16 of 64 bytes)",
        "round_trips": 200,
        "pause": "none",
        "page": "fresh for each pair",
    }
    judges_gaps = False  # what is reported are medians of blocks
    most_samples = 1
    windows = 0.2  # eight passes over sixteen lines: 5 ms at 100 ns
    refined = "latency"
    needs = "two CPUs"
    one_kind = False  # pairs of two kinds have a relation of their own
    notes = (
        "Compare-and-swap, load and store, and one line each way are different quantities, and are never compared with each other.",
        "Pairs without a CPU in common are measured at the same time, some of them alone as well: the report says what company changes.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        cpus = topology.order_cpus()
        ranks = {cpu: rank for rank, cpu in enumerate(cpus)}
        company = max(len(cpus) // 2, 1)
        operations = OPERATIONS if profile == "full" else OPERATIONS[:1]
        sweeps = []
        for a in cpus:
            others = [b for b in cpus if ranks[b] > ranks[a] or topology.node_of(b) != topology.node_of(a)]
            sweeps.append(self.pairs(topology, a, others, operations, company))
        if company > ALONE_PAIRS:
            for a, b in self.examples(topology, cpus):
                sweeps.append(self.pairs(topology, a, [b], operations, ALONE_PAIRS))
        return sweeps

    def acceptance(self, topology) -> list[Sweep]:
        """One by one: on each node a pair of each relation, and a pair of CPUs for each two nodes."""
        pairs, first = [], {}
        for cpu in topology.order_cpus():
            first.setdefault(topology.node_of(cpu), cpu)
        for node in first:
            own = tuple(cpu for cpu in topology.order_cpus() if topology.node_of(cpu) == node)
            pairs += self.examples(msgspec.structs.replace(topology, allowed_cpus=own), own)
        between = some_pairs([*first.values()], [*first.values()], max(MOST_PAIRS, 2 * len(first)))  # to the next one at least
        pairs += dict.fromkeys((min(pair), max(pair)) for pair in between if len(set(pair)) > 1)
        return [self.pairs(topology, a, [b], OPERATIONS[:1], ALONE_PAIRS) for a, b in pairs]

    def examples(self, topology, cpus: tuple[int, ...]) -> list[tuple[int, int]]:
        """A pair of each relation; where there are kinds of core, of each relation within and between them."""
        if not topology.own_kinds():
            ranks = {cpu: rank for rank, cpu in enumerate(cpus)}
            return [tuple(sorted(topology.choose_cpus(relation, 2), key=ranks.__getitem__)) for relation in topology.relations()]
        first: dict[tuple, tuple[int, int]] = {}
        for pair in itertools.combinations(cpus, 2):
            first.setdefault(pair_words(topology, *pair), pair)
        return list(first.values())

    def pairs(self, topology, a: int, others: list[int], operations: tuple[str, ...], company: int) -> Sweep:
        """Pairs of `a`, on whose node the line lives: between two nodes both ways are measured, and each is a cell."""
        home = memory_node(topology, topology.node_of(a))
        return {"cpu_a": (a,), "cpu_b": others, "operation": operations, "home": (home or 0,), "company": (company,)}

    def keep(self, p: Parameters, topology) -> bool:
        return p["cpu_a"] != p["cpu_b"]

    def group(self, p: Parameters) -> tuple:
        return (p["operation"],)  # with and without company in one process

    def rounds(self, cases: list[Parameters]) -> list[Hashable | None]:
        """Rounds of a tournament (the circle method): in each of them every CPU is in one pair at most."""
        ranks = {cpu: rank for rank, cpu in enumerate(sorted({p[name] for p in cases for name in ("cpu_a", "cpu_b")}))}
        last = len(ranks) + len(ranks) % 2 - 1
        found: list[Hashable | None] = []
        seen: Counter[Hashable] = Counter()
        for p in cases:
            low, high = sorted((ranks[p["cpu_a"]], ranks[p["cpu_b"]]))
            colour = (low + high) % last if high < last else 2 * low % last
            turn = (p["operation"], p["company"], ranks[p["cpu_a"]] == low, colour)
            found.append((*turn, seen[turn] // p["company"]) if p["company"] > ALONE_PAIRS else None)
            seen[turn] += 1
        return found

    def place(self, p: Parameters, topology) -> Placement | None:
        a, b = p["cpu_a"], p["cpu_b"]
        if a == b or not (a in topology.allowed_set and b in topology.allowed_set) or not has_memory(topology, p["home"]):
            return None
        return Placement(cpus=(a, b), node=memory_node(topology, p["home"]), size=base_page())

    def refine(self, found: list[tuple[Parameters, float]], topology) -> list[Parameters]:
        """All pairs with a quarter of the company, where a pair alone takes another time than in company."""
        least = min((p["company"] for p, _ in found if p["company"] > ALONE_PAIRS), default=ALONE_PAIRS)
        alone = {key(p): ns for p, ns in found if p["company"] == ALONE_PAIRS}
        ratios = [ns / alone[key(p)] for p, ns in found if p["company"] == least and key(p) in alone]
        if least <= 2 or not any(abs(ratio - 1) > DISTURBING for ratio in ratios):
            return []
        return [{**p, "company": max(least // 4, 2)} for p, _ in found if p["company"] == least]

    def figures(self, topology, cases: list[Parameters]) -> tuple[View, ...]:
        chosen = matrix_company(cases)
        measured = {p[name] for p in cases for name in ("cpu_a", "cpu_b")}
        cpus = tuple(cpu for cpu in topology.cpus_in_place() if cpu in measured)
        return tuple(
            View(
                title=f"One way between CPUs by {operation}",
                metric="latency",
                kind="heatmap",
                x="cpu_b",
                y="cpu_a",
                where={"operation": operation, "company": chosen},
                both=cpus,
                borders=borders(topology, cpus),
            )
            for operation in dict.fromkeys(p["operation"] for p in cases)
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found, told = [], set()
        least, chosen = min((p["company"] for p in cases), default=ALONE_PAIRS), matrix_company(cases)
        for p in (p for p in cases if p["company"] == least):
            words = pair_words(topology, p["cpu_a"], p["cpu_b"])
            if (p["operation"], words) in told:
                continue
            told.add((p["operation"], words))
            who = f"{words} ({p['cpu_a']} and {p['cpu_b']})"
            found.append(
                Answer(
                    kind="cell",
                    metric="latency",
                    where=p,
                    headline=p["operation"] == OPERATIONS[0],
                    text=f"Between {who}, a line takes {{value}} one way by {p['operation']}",
                )
            )
            if chosen > least:
                text = (
                    f"Between {who}, with {chosen} pairs at the same time ({p['operation']}), it takes {{value}} as long as alone"
                )
                where = {**p, "company": chosen}
                found.append(
                    Answer(kind="ratio", metric="latency", where=where, against={"company": least}, headline=False, text=text)
                )
        matrices = dict.fromkeys(p["operation"] for p in cases) if has_all_pairs(cases) else ()
        for operation in matrices:
            text = f"Groups of near CPUs by {operation}, against what the machine declares"
            where = {"operation": operation, "company": chosen}
            found.append(Answer(kind="structure", metric="latency", where=where, headline=operation == OPERATIONS[0], text=text))
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        """By the first operation: a pair of each relation, nearest first, and the map where there are more CPUs than fit into words."""
        cases = [p for p in cases if p["operation"] == OPERATIONS[0]]
        if not cases:
            return Card()
        least, chosen = min(p["company"] for p in cases), matrix_company(cases)
        pairs: dict[str, Answer] = {}
        first: dict[str, Parameters] = {}
        for p in (p for p in cases if p["company"] == least):
            first.setdefault(pair_words(topology, p["cpu_a"], p["cpu_b"]), p)
        by_relation = sorted(first.values(), key=lambda p: nearest_cores_first(topology.relation(p["cpu_a"], p["cpu_b"])))
        for p in by_relation:
            name = pair_name(topology, p["cpu_a"], p["cpu_b"])
            pairs.setdefault(name, Answer(kind="cell", metric="latency", where=p, text=name))
        near, *far = pairs.values()
        where = {"operation": OPERATIONS[0], "company": chosen}
        spread = Answer(kind="spread", metric="latency", where=where, text="Core to core: {value}")
        notes = tuple(msgspec.structs.replace(answer, text=f"{answer.text}: {{value}}") for answer in far[-3:])
        return Card(
            prices=tuple(
                Price(answer=msgspec.structs.replace(answer, text=f"line from another CPU, {name}"), rank=20 + position)
                for position, (name, answer) in enumerate(pairs.items())
            ),
            tiles=(
                Tile(
                    subject="core to core",
                    answer=msgspec.structs.replace(near, text=f"a cache line from CPU to CPU, {near.text}"),
                    rank=10,
                    notes=notes,
                ),
            ),
            pictures=tuple(
                Picture(view=view, finding=spread, rank=20)
                for view in self.figures(topology, cases)[:1]
                if len(view.both) > FEW_CPUS and has_all_pairs(cases)
            ),
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"operation": p["operation"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        second = found.threads[1].value
        lines = [ps / 1000 for ps in found.threads[0].value[: second[LINES_SLOT]]]
        found_ns = {
            "latency": sum(lines) / len(lines),
            "latency_p50": second[MEDIAN_SLOT] / 1000,
            "latency_p99": second[P99_SLOT] / 1000,
            "line_spread": max(lines) - min(lines),
        }
        return {name: round(ns, DIGITS) for name, ns in found_ns.items()}

    def check(self, p: Parameters, found: Found) -> str:
        for index, thread in enumerate(found.threads):
            if thread.check != thread.executed:
                return f"the lines count {thread.check} ways, thread {index} made {thread.executed}"
        return ""


def pair_name(topology, a: int, b: int) -> str:
    """The same in few words: `same L3`, `same L3, kinds 0 and 1`."""
    kinds = [k for k in dict.fromkeys((topology.kind_of(a), topology.kind_of(b))) if k is not None]
    of = [f"kind{'s' * (len(kinds) > 1)} {' and '.join(map(str, kinds))}"] if kinds else []
    return ", ".join([RELATION_NAMES[topology.relation(a, b)], *of])


def pair_words(topology, a: int, b: int) -> str:
    """How two CPUs lie to each other, and of which kinds of core they are where a machine has several."""
    kinds = sorted({topology.kind_of(a), topology.kind_of(b)} - {None})
    of = (
        f", one of kind {kinds[0]} and one of kind {kinds[1]}"
        if len(kinds) > 1
        else f", both of kind {kinds[0]}"
        if kinds
        else ""
    )
    return RELATION_WORDS[topology.relation(a, b)] + of


def key(p: Parameters) -> tuple:
    return p["cpu_a"], p["cpu_b"], p["operation"]


def matrix_company(cases: list[Parameters]) -> int:
    """The company in which all pairs were measured: of several the least."""
    pairs = Counter(p["company"] for p in cases)
    return min((company for company, count in pairs.items() if count == max(pairs.values())), default=ALONE_PAIRS)


def has_all_pairs(cases: list[Parameters]) -> bool:
    """Whether every two of the CPUs were measured, three at least: of fewer there are no groups and no map."""
    chosen = matrix_company(cases)
    pairs = {frozenset((p["cpu_a"], p["cpu_b"])) for p in cases if p["company"] == chosen}
    cpus = len(frozenset().union(*pairs))
    return cpus > 2 and len(pairs) == cpus * (cpus - 1) // 2


def borders(topology, cpus: tuple[int, ...]) -> tuple[int, ...]:
    """CPUs that begin another node, or another L3 within it."""
    far = ("node", "package", "cross_package")
    return tuple(b for a, b in itertools.pairwise(cpus) if topology.relation(a, b) in far)


BENCHMARK = CoreToCore()
