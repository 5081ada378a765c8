"""What does memory cost before it can be used: the first touch of a page."""

from __future__ import annotations

from ..host.pages import BASE, THP, page_bytes, page_words
from ..model import Answer, Axis, Card, Price, View
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, has_memory
from .memory_bandwidth import SIZE_STEP, part_bytes, thread_counts, threads_text
from .memory_latency import MIB, PAGE_SIZES

EACH = 32 * MIB  # of a thread: 8,192 small pages, 16 huge ones
SPENT_SLOT, TOUCHED_SLOT, GIVES_SLOT, GAVE_SLOT, TOUCHES_SLOT = 6, 7, 8, 9, 10  # of `value`, as in kernels/first_touch.c


class FirstTouch(Benchmark):
    name = kernel = "first_touch"
    rank = 9
    topic = "memory"
    title = "First touch of memory"
    question = "What does a page cost before it can be used, on which node, and how do threads get in each other's way?"
    expected = (
        "A small page takes a fault and the zeroing of 4 KiB; a huge one a fault and the zeroing of 2 MiB, which is far less per byte. "
        "Several threads of a process share its page tables' locks, so that each takes longer."
    )
    axes = (
        Axis(name="cpu_node", summary="node of the CPUs that touch", values=(), least=0),
        Axis(name="memory_node", summary="node that the pages are bound to", values=(), least=0),
        Axis(name="page_size", summary="as in memory_latency; a page of that size is one touch", values=PAGE_SIZES),
        Axis(name="threads", summary="threads, each in its own part", values=(), least=1),
        Axis(
            name="size", summary="memory of all threads together", values=(), unit="B", log=True, least=SIZE_STEP, step=SIZE_STEP
        ),
    )
    views = (
        View(title="Time per page by threads", metric="time_per_page", kind="line", x="threads", series="page_size"),
        View(title="Memory made usable by threads", metric="rate", kind="line", x="threads", series="page_size"),
    )
    method = {"fresh": "given back by MADV_DONTNEED before each round", "counted": "touches alone, while no thread gives back"}
    counts_pages = True
    seconds = 0.008  # of a round that has begun: its touches, and giving back
    judges_gaps = False  # a fault is no batch
    touches_anew = True
    notes = (
        "In a virtual machine the host may have to find the page as well: the first time that the guest uses it takes several times longer. What is "
        "measured here is memory that the guest has had before.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        nodes, memory = topology.cpu_nodes() or (0,), topology.memory_nodes() or (0,)
        sizes = PAGE_SIZES if profile == "full" else ("4k", "thp")
        sweeps = []
        for node in nodes[:1] if profile == "quick" else nodes:
            cores = len(topology.node_cores(node))
            for n in thread_counts(cores, topology, profile == "full"):
                where = memory if n == 1 and profile != "quick" else [m for m in memory if m == node] or memory[:1]
                sweeps.append(
                    {"cpu_node": (node,), "memory_node": where, "page_size": sizes, "threads": (n,), "size": (n * EACH,)}
                )
        return sweeps

    def group(self, p: Parameters) -> tuple:
        return p["cpu_node"], p["page_size"]

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = topology.node_cores(p["cpu_node"])[: p["threads"]]
        step = page_bytes(p["page_size"])
        each = part_bytes(p["size"], p["threads"]) // step * step
        if len(cpus) < p["threads"] or not each or not has_memory(topology, p["memory_node"]):
            return None
        node = p["memory_node"] if topology.numa else None
        return Placement(cpus=cpus, node=node, size=p["threads"] * each, page_size=p["page_size"])

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            if p["cpu_node"] != cases[0]["cpu_node"]:
                continue
            where = f"by {threads_text(p['threads'])} of node {p['cpu_node']} in memory of node {p['memory_node']}"
            text = f"The first touch of a page of {page_words(p['page_size'])} {where} takes {{value}}"
            found.append(Answer(kind="cell", metric="time_per_page", where=p, headline=p["threads"] == 1, text=text))
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        own = [p for p in cases if p["threads"] == 1 and p["cpu_node"] == p["memory_node"]]
        first = {p["page_size"]: p for p in reversed(own)}
        return Card(
            prices=tuple(
                Price(
                    answer=Answer(
                        kind="cell",
                        metric="time_per_page",
                        where=first[kind],
                        text=f"first touch of a page of {page_words(kind).removesuffix(' (transparent)')}",
                    ),
                    rank=rank,
                )
                for kind, rank in ((BASE, 40), (THP, 42))
                if kind in first
            )
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"page_bytes": page_bytes(p["page_size"])}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        times = [t.value[SPENT_SLOT] / t.operations for t in found.threads]
        step = page_bytes(p["page_size"])
        return {"time_per_page": sum(times) / len(times), "rate": sum(step / ns * 1e9 for ns in times)}

    def check(self, p: Parameters, found: Found) -> str:
        for index, thread in enumerate(found.threads):
            if thread.check != thread.executed:
                return f"only {thread.check} of the {thread.executed} pages that thread {index} touched were new"
        for before, after in ((TOUCHED_SLOT, GIVES_SLOT), (GAVE_SLOT, TOUCHES_SLOT)):
            if max(thread.value[before] for thread in found.threads) > min(thread.value[after] for thread in found.threads):
                return "a thread gave its pages back while another touched its own"
        return ""


BENCHMARK = FirstTouch()
