"""What does each of the kernel's placement policies give: bandwidth of one node's cores."""

from __future__ import annotations

from ..host.memory import IN_TURN, POLICIES
from ..model import Answer, Axis, View
from . import Parameters, Placement, Sweep, memory_node
from .memory_bandwidth import KERNEL_AXIS, SIZE_AXIS, VECTOR_AXIS, Streams, part_bytes
from .memory_latency import PAGE_SIZES, memory_size

WORDS = {
    "preferred": "a preferred node",
    "interleave": "pages in turn over all nodes",
    "weighted": "pages by weight over all nodes",
}


class MemoryPolicy(Streams):
    name = "memory_policy"
    rank = 8
    topic = "memory"
    phase = "beta"  # right where answers are given; not yet measured on a real machine of several nodes
    title = "Placement policies"
    question = "Do the cores of a node stream faster if their memory is spread over several nodes?"
    expected = (
        "`bind` and `preferred` give the same while the node has room. `interleave` adds the other nodes' controllers and the links' limits: it loses "
        "where a link is narrow, unless pages are dealt by weight in proportion to the nodes' bandwidths."
    )
    needs = "two nodes with memory"
    axes = (
        Axis(name="policy", summary="of the memory, as in mbind(2)", values=tuple(POLICIES)),
        Axis(name="cpu_node", summary="node of the CPUs that stream; all of its cores do", values=(), least=0),
        KERNEL_AXIS,
        SIZE_AXIS,
        VECTOR_AXIS,
        Axis(name="page_size", summary="as in memory_latency", values=PAGE_SIZES),
    )
    views = (View(title="Bandwidth by policy", metric="bandwidth", kind="bar", x="policy", series="kernel", facet="cpu_node"),)
    notes = (
        "The weights of `weighted` are the kernel's (6.9 and newer), in /sys/kernel/mm/mempolicy/weighted_interleave; numabench export "
        "--format interleave-weights writes those that node_bandwidth measured.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        nodes = topology.cpu_nodes()
        return [
            {
                "policy": tuple(POLICIES),
                "cpu_node": nodes if profile == "full" else nodes[:1] or (0,),
                "kernel": ("read",) if profile == "quick" else ("read", "triad"),
                "size": (memory_size(topology, *map(topology.node_cores, nodes)),),
                "vector": topology.vectors[-1:],
                "page_size": ("thp",),
            }
        ]

    def group(self, p: Parameters) -> tuple:
        return p["cpu_node"], p["kernel"]  # policies against each other in one process

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus, nodes = topology.node_cores(p["cpu_node"]), topology.memory_nodes()
        if not cpus or not topology.numa or len(nodes) < 2:
            return None
        spread = p["policy"] in IN_TURN
        return Placement(
            cpus=cpus,
            node=None if spread else memory_node(topology, p["cpu_node"]),
            size=len(cpus) * part_bytes(p["size"], len(cpus)),
            page_size=p["page_size"],
            parts=nodes if spread else (),
            policy=p["policy"],
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        return tuple(
            Answer(
                kind="ratio",
                metric="bandwidth",
                where=p,
                against={"policy": "bind"},
                headline=p["policy"] in IN_TURN and p["kernel"] == "read" and p["cpu_node"] == cases[0]["cpu_node"],
                text=f"All cores of node {p['cpu_node']} {p['kernel']} with {WORDS[p['policy']]} at {{value}} of the rate of local memory",
            )
            for p in cases
            if p["policy"] != "bind"
        )


BENCHMARK = MemoryPolicy()
