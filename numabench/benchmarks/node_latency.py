"""What do the other nodes' memories cost: latency from every node with CPUs to every node with memory."""

from __future__ import annotations

import msgspec

from ..host.pages import BASE, page_words
from ..model import Answer, Axis, Card, Picture, Price, View
from . import Parameters, Placement, Sweep, has_memory, memory_node, some_pairs
from .memory_latency import PAGE_SIZES, Chase, chain_scratch, memory_price, memory_size, memory_tile, same_latency

MOST_FAR = 3  # other nodes that a card names before all else that it has room for: of eight they would be most of it
MOST_PAIRS = 64  # of nodes, for one visit to each of many machines: all of eight


class NodeLatency(Chase):
    name = "node_latency"
    rank = 5
    topic = "memory"
    title = "Latency between NUMA nodes"
    question = "How much farther is the memory of another node?"
    expected = "The diagonal (local memory) is lowest; remote nodes follow the machine's links, which the firmware's distances only hint at."
    axes = (
        Axis(name="cpu_node", summary="node of the CPU that loads", values=(), least=0),
        Axis(name="memory_node", summary="node that the pages are bound to", values=(), least=0),
        Axis(name="order", summary="as in memory_latency", values=("group",)),
        Axis(name="page_size", summary="as in memory_latency", values=PAGE_SIZES),
        Axis(name="size", summary="working set", values=(), unit="B", log=True, least=1 << 20, step=256),
    )
    views = (
        View(
            title="Latency from node to node", metric="latency", kind="heatmap", x="memory_node", y="cpu_node", facet="page_size"
        ),
    )
    notes = ("Nodes without CPUs (expanders, high-bandwidth memory) are columns, nodes without memory are rows.",)

    def sweep(self, topology, profile: str) -> list[Sweep]:
        firsts = [topology.node_cores(node)[:1] for node in topology.cpu_nodes()]
        return [
            {
                "cpu_node": topology.cpu_nodes(),
                "memory_node": topology.memory_nodes(),
                "order": ("group",),
                "page_size": ("thp",) if profile == "quick" else ("thp", "4k"),
                "size": (memory_size(topology, *firsts),),
            }
        ]

    def acceptance(self, topology) -> list[Sweep]:
        (near,) = self.sweep(topology, "quick")
        pairs = some_pairs(topology.cpu_nodes(), topology.memory_nodes(), MOST_PAIRS)
        return [{**near, "cpu_node": (a,), "memory_node": (b,)} for a, b in pairs]

    def group(self, p: Parameters) -> tuple:
        return (p["cpu_node"],)  # a row: local and remote in one process

    def place(self, p: Parameters, topology) -> Placement | None:
        cpu = next((c for c in topology.order_cpus() if topology.node_of(c) == p["cpu_node"]), None)
        if cpu is None or not has_memory(topology, p["memory_node"]):
            return None
        return Placement(
            cpus=(cpu,),
            node=memory_node(topology, p["memory_node"]),
            size=p["size"],
            scratch=chain_scratch(p["size"]),
            page_size=p["page_size"],
        )

    def in_memory(self, p: Parameters, topology) -> bool:
        return True  # whatever the set: a node's memory is what it is called

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        few = len({(p["cpu_node"], p["memory_node"]) for p in cases}) <= 16
        for p in cases:
            if p["memory_node"] == p["cpu_node"]:
                alone = ", the only one" if len({(q["cpu_node"], q["memory_node"]) for q in cases}) == 1 else ""
                text = f"Node {p['cpu_node']}{alone}: local memory{small(p)} takes {{value}}"
                found.append(Answer(kind="cell", metric="latency", where=p, headline=not small(p), text=text))
            elif {**p, "memory_node": p["cpu_node"]} in cases:
                found.append(
                    Answer(
                        kind="ratio",
                        metric="latency",
                        where=p,
                        against={"memory_node": p["cpu_node"]},
                        headline=few and not small(p),
                        text=f"From node {p['cpu_node']}, memory of node {p['memory_node']}{small(p)} takes {{value}} as long as local memory",
                    )
                )
        found.sort(key=lambda answer: (answer.where["cpu_node"], answer.kind != "cell"))
        first = next((p for p in cases if p["cpu_node"] == p["memory_node"] == min(topology.cpu_nodes(), default=None)), None)
        if first:
            found.append(same_latency(first, "Local memory, by two benchmarks"))
        pages = cases[0]["page_size"] if cases else ""
        if len([p for p in cases if p["page_size"] == pages]) > 1:
            text = "What the firmware's distances say of latency, against the measured matrix"
            found.append(Answer(kind="firmware", metric="latency", where={"page_size": pages}, text=text))
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        first = next((p for p in cases if not small(p)), None)
        same = {name: first[name] for name in ("page_size", "size", "order")} if first else {}
        large = [p for p in cases if first and p == {**p, **same}]
        own = [p for p in large if p["cpu_node"] == p["memory_node"]][:1]
        others = [p for p in large if own and p["cpu_node"] == own[0]["cpu_node"] and p["memory_node"] != own[0]["memory_node"]]
        others = unlike_first(others, topology)
        far = [(p, Answer(kind="cell", metric="latency", where=p, text=f"node {p['memory_node']}: {{value}}")) for p in others]
        several = len({(p["cpu_node"], p["memory_node"]) for p in large}) > 1
        where = same if several else {}
        view = View(
            title="Latency of memory by node", metric="latency", kind="heatmap", x="memory_node", y="cpu_node", where=where
        )
        finding = Answer(kind="spread", metric="latency", where=where, text="Memory by node: {value}")
        return Card(
            prices=tuple(
                [Price(answer=memory_price(p, topology), rank=11) for p in own]
                + [
                    Price(
                        answer=msgspec.structs.replace(answer, text=f"memory, node {p['memory_node']}"),
                        rank=14 + position if position < MOST_FAR else 60,
                    )
                    for position, (p, answer) in enumerate(far)
                ]
            ),
            tiles=tuple(memory_tile(p, topology, 40, tuple(answer for _, answer in far[:MOST_FAR])) for p in own),
            pictures=(Picture(view=view, finding=finding, rank=10),) if several else (),
        )


def unlike_first(far: list[Parameters], topology) -> list[Parameters]:
    """Cells of other nodes, of each distance that the firmware states one first."""
    stated = {node.id: node.distances for node in topology.nodes}
    seen: set[int | None] = set()
    first, rest = [], []
    for p in far:
        distance = stated.get(p["cpu_node"], {}).get(p["memory_node"])
        (rest if distance in seen else first).append(p)
        seen.add(distance)
    return first + rest


def small(p: Parameters) -> str:
    return f" in {page_words(BASE)} pages" if p["page_size"] == BASE else ""


BENCHMARK = NodeLatency()
