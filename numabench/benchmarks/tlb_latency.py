"""What does the translation of addresses cost, and how far does the TLB reach?"""

from __future__ import annotations

from ..host.pages import BASE, base_page, page_words
from ..model import Answer, Axis, Card, Contrast, Price, View
from . import Parameters, Placement, Probes, Sweep, memory_node
from .memory_latency import PAGE_SIZES, Chase, chain_scratch

LINE = 64  # of a wider line the packed layout visits every part
SPREAD, PACKED = "spread", "packed"
LINES = tuple(1 << k for k in range(4, 18))  # 16 pages to 512 MiB of them; packed, 1 KiB to 8 MiB


class TlbLatency(Chase):
    name = "tlb_latency"
    rank = 4
    topic = "memory"
    title = "Translation of addresses"
    question = "What does the translation of an address cost, and how much memory does the TLB reach?"
    expected = (
        "Equal while all pages fit into the first-level TLB, then some cycles more (second level), then a page walk for every load. Huge "
        "pages move both steps out by their size, unless a hypervisor has splintered them."
    )
    axes = (
        Axis(name="lines", summary="lines visited", values=LINES, log=True, least=16, most=1 << 22),
        Axis(
            name="layout",
            summary="spread: one line in each base page; packed: as many lines, next to each other",
            values=(PACKED, SPREAD),
        ),
        Axis(name="page_size", summary="as in memory_latency", values=PAGE_SIZES),
    )
    contrasts = (Contrast(axis="layout", control=PACKED, metric="latency"),)
    views = (
        View(
            title="Latency of lines in a page each, and packed",
            metric="latency",
            kind="line",
            x="lines",
            series="layout",
            facet="page_size",
        ),
    )
    method = Chase.method | {"order": "random"}
    notes = (
        "Both layouts visit as many lines, so that the caches hold as much of the one as of the other; what differs is the number of pages.",
        "In a virtual machine a walk goes through the tables of guest and host: it may take several times that of bare metal.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        lines = {"quick": LINES[2:11:4], "standard": LINES[::2]}.get(profile, LINES)
        pages = {"quick": ("4k",), "standard": ("4k", "thp")}.get(profile, PAGE_SIZES)
        return [{"lines": lines, "layout": (PACKED, SPREAD), "page_size": pages}]

    def acceptance(self, topology) -> list[Sweep]:
        (few,) = self.sweep(topology, "quick")
        return [{**few, "page_size": ("4k", "thp")}]

    def place(self, p: Parameters, topology) -> Placement:
        cpu, size = topology.order_cpus()[0], p["lines"] * distance(p)
        return Placement(
            cpus=(cpu,),
            node=memory_node(topology, topology.node_of(cpu)),
            size=size,
            scratch=chain_scratch(p["lines"] * LINE),
            page_size=p["page_size"],
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"line_bytes": distance(p), "group_bytes": 1 << 62}

    def lines(self, p: Parameters, visited: int) -> int:
        return p["lines"]

    def in_memory(self, p: Parameters, topology) -> bool:
        return False  # a cache may hold the lines, if not their pages

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for page_size in dict.fromkeys(p["page_size"] for p in cases):
            lines = sorted({p["lines"] for p in cases if p["page_size"] == page_size})
            pages = {BASE: f"{page_words(BASE)} pages", "thp": "transparent huge pages"}.get(page_size, f"{page_size} pages")
            found += [
                Answer(
                    kind="reach",
                    metric="latency",
                    axis="lines",
                    where={"layout": SPREAD, "page_size": page_size},
                    tolerance=0.1,
                    text=f"With {pages}, translation is free for up to {{value}} pages of {page_words(BASE)} in use",
                ),
                Answer(
                    kind="difference",
                    metric="latency",
                    where={"lines": lines[-1], "layout": SPREAD, "page_size": page_size},
                    against={"layout": PACKED},
                    text=f"With {pages}, {lines[-1]} pages of {page_words(BASE)} in use cost {{value}} per load more than as many lines packed",
                ),
            ]
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        lines = max((p["lines"] for p in cases if p["page_size"] == BASE), default=None)
        if lines is None:
            return Card()
        where = {"lines": lines, "layout": SPREAD, "page_size": BASE}
        text = f"TLB miss, {page_words(BASE)} pages (added)"
        answer = Answer(kind="difference", metric="latency", where=where, against={"layout": PACKED}, text=text)
        return Card(prices=(Price(answer=answer, rank=15),))


def distance(p: Parameters) -> int:
    """Bytes from a line that is visited to the next one in memory."""
    return base_page() if p["layout"] == SPREAD else LINE


BENCHMARK = TlbLatency()
