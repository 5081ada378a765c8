"""What do the other nodes' memories give: bandwidth from every node with CPUs to every node with memory."""

from __future__ import annotations

from ..model import Answer, Axis, View
from . import Parameters, Placement, Sweep, has_memory, memory_node, some_pairs
from .memory_bandwidth import KERNEL_AXIS, PACKED, SIZE_AXIS, VECTOR_AXIS, Streams, part_bytes, threads_text
from .memory_latency import PAGE_SIZES, memory_size

MOST_PAIRS = 32  # of nodes, for one visit to each of many machines


class NodeBandwidth(Streams):
    name = "node_bandwidth"
    rank = 7
    topic = "memory"
    title = "Bandwidth between NUMA nodes"
    question = "How much slower does memory of another node stream?"
    expected = (
        "The diagonal (local memory) is highest; from another node the link limits, reads and writes each in their own direction. One core "
        "alone is limited by its own outstanding lines, so that its matrix follows latency."
    )
    axes = (
        Axis(name="cpu_node", summary="node of the CPUs that stream", values=(), least=0),
        Axis(name="memory_node", summary="node that the pages are bound to", values=(), least=0),
        KERNEL_AXIS,
        Axis(name="cores", summary="how many cores of the node stream", values=("one", "all")),
        SIZE_AXIS,
        VECTOR_AXIS,
        Axis(name="page_size", summary="as in memory_latency", values=PAGE_SIZES),
    )
    views = (
        View(
            title="Read bandwidth from node to node",
            metric="bandwidth",
            kind="heatmap",
            x="memory_node",
            y="cpu_node",
            facet="cores",
            where={"kernel": "read"},
        ),
        View(
            title="Write bandwidth from node to node",
            metric="bandwidth",
            kind="heatmap",
            x="memory_node",
            y="cpu_node",
            facet="cores",
            where={"kernel": "write"},
        ),
    )
    notes = ("Nodes without CPUs (expanders, high-bandwidth memory) are columns, nodes without memory are rows.",)

    def sweep(self, topology, profile: str) -> list[Sweep]:
        cores = [topology.node_cores(node) for node in topology.cpu_nodes()]
        groups = {"one": [each[:1] for each in cores], "all": cores}
        return [
            {
                "cpu_node": topology.cpu_nodes(),
                "memory_node": topology.memory_nodes(),
                "kernel": ("read",) if profile == "quick" else ("read", "write"),
                "cores": (who,),
                "size": (memory_size(topology, *groups[who]),),
                "vector": topology.vectors[-1:],
                "page_size": ("thp",),
            }
            for who in ("one", "all")
        ]

    def acceptance(self, topology) -> list[Sweep]:
        one, every = self.sweep(topology, "quick")
        pairs = some_pairs(topology.cpu_nodes(), topology.memory_nodes(), MOST_PAIRS)
        return [{**(every if len(topology.node_cores(a)) > 1 else one), "cpu_node": (a,), "memory_node": (b,)} for a, b in pairs]

    def keep(self, p: Parameters, topology) -> bool:
        return p["cores"] == "one" or len(topology.node_cores(p["cpu_node"])) > 1

    def group(self, p: Parameters) -> tuple:
        return p["cpu_node"], p["kernel"], p["cores"]  # a row: local and remote in one process

    def place(self, p: Parameters, topology) -> Placement | None:
        cores = topology.node_cores(p["cpu_node"])
        if not cores or not has_memory(topology, p["memory_node"]):
            return None
        cpus = tuple(cores if p["cores"] == "all" else cores[:1])
        return Placement(
            cpus=cpus,
            node=memory_node(topology, p["memory_node"]),
            size=len(cpus) * part_bytes(p["size"], len(cpus)),
            page_size=p["page_size"],
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            if p["cpu_node"] != p["memory_node"]:
                continue
            who = "All cores" if p["cores"] == "all" else "One core"
            alone = ", the only one," if len({(c["cpu_node"], c["memory_node"]) for c in cases}) == 1 else ""
            found.append(
                Answer(
                    kind="cell",
                    metric="bandwidth",
                    where=p,
                    headline=p["kernel"] == "read" and len(cases) <= 16,
                    text=f"{who} of node {p['cpu_node']}{alone} {p['kernel']} local memory at {{value}}",
                )
            )
            found += [
                Answer(
                    kind="ratio",
                    metric="bandwidth",
                    where=other,
                    against={"memory_node": p["memory_node"]},
                    headline=len(cases) <= 16,
                    text=f"{who} of node {p['cpu_node']} {other['kernel']} memory of node {other['memory_node']} at {{value}} of the rate of local memory",
                )
                for other in cases
                if other["memory_node"] != p["memory_node"] and all(other[k] == p[k] for k in p if k != "memory_node")
            ]
        first = next(iter(topology.cpu_nodes()), None)
        for p in cases:
            if p["cpu_node"] == p["memory_node"] == first and p["kernel"] == "read":
                threads = len(topology.node_cores(first)) if p["cores"] == "all" else 1
                shared = {name: p[name] for name in ("kernel", "size", "vector", "page_size")}
                against = {
                    "benchmark": "memory_bandwidth",
                    "metric": "bandwidth",
                    "threads": threads,
                    "filling": PACKED,
                    **shared,
                }
                text = f"Read bandwidth of {threads_text(threads)}, by two benchmarks"
                found.append(
                    Answer(
                        kind="agreement", metric="bandwidth", where=p, against=against, tolerance=0.0, headline=False, text=text
                    )
                )
        for cores in dict.fromkeys(p["cores"] for p in cases):
            where = {"kernel": "read", "cores": cores}
            if len({p["memory_node"] for p in cases}) > 1:
                text = f"Weights for interleaving pages, by what {'all cores' if cores == 'all' else 'one core'} read from each node: {{value}}"
                found.append(Answer(kind="weights", metric="bandwidth", where=where, headline=cores == "all", text=text))
            if sum(all(p[k] == v for k, v in where.items()) for p in cases) > 1:
                text = f"What the firmware's distances say of reading by {'all cores' if cores == 'all' else 'one core'}, against the measured matrix"
                found.append(Answer(kind="firmware", metric="bandwidth", where=where, headline=cores == "all", text=text))
        return tuple(found)


BENCHMARK = NodeBandwidth()
