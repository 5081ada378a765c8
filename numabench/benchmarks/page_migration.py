"""What does it cost to move pages to another node?"""

from __future__ import annotations

from ..host.pages import page_bytes, page_words
from ..model import Answer, Axis, View
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, has_memory
from .memory_latency import MIB, PAGE_SIZES

SIZE = 32 * MIB  # 8,192 small pages, 16 huge ones
BYTES_PER_PAGE = 16  # of scratch memory, as in kernels/nb_pages.h
SPENT_SLOT, BACK_SLOT = 6, 7  # of `value`, as in kernels/page_migration.c
SAID_PAIRS = 12  # answers; the matrix shows the others


class PageMigration(Benchmark):
    name = kernel = "page_migration"
    rank = 10
    topic = "memory"
    phase = "beta"  # right where answers are given; not yet measured on a real machine of several nodes
    title = "Moving pages between nodes"
    question = "What does it cost to move memory to another node, and from how many uses on is it worth it?"
    expected = (
        "A small page takes some microseconds: unmapping, other CPUs' translations, copying 4 KiB, mapping. A huge page takes the copying of "
        "2 MiB, far less per byte. Both directions between two nodes cost about the same."
    )
    needs = "two nodes with memory"
    axes = (
        Axis(name="from_node", summary="node that the pages are on", values=(), least=0),
        Axis(name="to_node", summary="node that they are moved to", values=(), least=0),
        Axis(name="page_size", summary="as in memory_latency", values=PAGE_SIZES),
        Axis(name="size", summary="memory moved in one call", values=(), unit="B", log=True, least=4096, step=4096),
    )
    views = (
        View(title="Time per page moved", metric="time_per_page", kind="heatmap", x="to_node", y="from_node", facet="page_size"),
        View(title="Memory moved", metric="rate", kind="heatmap", x="to_node", y="from_node", facet="page_size"),
    )
    method = {
        "call": "move_pages of all pages, there (counted) and back",
        "caller": "a CPU of the target node, else of the source, else the first",
    }
    counts_pages = True
    judges_gaps = False  # a call is no batch
    calls = ("move_pages",)
    notes = (
        "A page that costs 2 us to move and saves 60 ns per use in a cache line's latency has to be used some 30 times at the new place.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        nodes = topology.memory_nodes() or (0,)
        pages = PAGE_SIZES if profile == "full" else ("4k", "thp")
        pairs = [(a, b) for a in nodes for b in nodes if a != b] or [(nodes[0], nodes[0])]
        return [
            {"from_node": (a,), "to_node": (b,), "page_size": pages, "size": (SIZE,)}
            for a, b in (pairs[:1] if profile == "quick" else pairs)
        ]

    def place(self, p: Parameters, topology) -> Placement | None:
        both = {p["from_node"], p["to_node"]}
        if not topology.numa or len(both) < 2 or not has_memory(topology, *both):
            return None
        near = [*topology.node_cores(p["to_node"]), *topology.node_cores(p["from_node"]), *topology.order_cpus()]
        page = page_bytes(p["page_size"])
        pages = p["size"] // page or 1
        return Placement(
            cpus=(near[0],),
            node=p["from_node"],
            size=pages * page,
            scratch=pages * BYTES_PER_PAGE,
            page_size=p["page_size"],
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        return tuple(
            Answer(
                kind="cell",
                metric="time_per_page",
                where=p,
                headline=p == cases[0],
                text=f"Moving a page of {page_words(p['page_size'])} from node {p['from_node']} to node {p['to_node']} takes {{value}}",
            )
            for p in cases[:SAID_PAIRS]
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"page_bytes": page_bytes(p["page_size"]), "from_node": p["from_node"], "to_node": p["to_node"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        thread = found.threads[0]
        ns = thread.value[SPENT_SLOT] / thread.operations
        return {"time_per_page": ns, "rate": page_bytes(p["page_size"]) / ns * 1e9}

    def check(self, p: Parameters, found: Found) -> str:
        thread, pages = found.threads[0], p["size"] // page_bytes(p["page_size"]) or 1
        if thread.check != thread.executed:
            return f"only {thread.check} of {thread.executed} pages arrived on node {p['to_node']}"
        if thread.value[BACK_SLOT] != pages:
            return f"only {thread.value[BACK_SLOT]} of {pages} pages came back whole to node {p['from_node']}"
        return ""


BENCHMARK = PageMigration()
