"""How many lines can a core have on their way at once?"""

from __future__ import annotations

from ..kernel import mean_batch
from ..model import Answer, Axis, View
from ..units import format_bytes
from . import Found, Parameters, Probes, Sweep
from .memory_latency import MOST_CHAINS, PAGE_SIZES, Chase, memory_size

CHAINS = (1, 2, 4, 8, 16, 24, 32, 48, 64)


class MemoryParallelism(Chase):
    name = "memory_parallelism"
    rank = 4
    topic = "memory"
    title = "Memory-level parallelism"
    question = "How many lines can a core have on their way at once?"
    expected = (
        "The time per line falls in proportion to the number of chases until the core has no more room for outstanding lines; what the "
        "first chase takes divided by the least time per line is the parallelism reached."
    )
    reports = ("latency", "time_per_line")
    axes = (
        Axis(name="size", summary="working set", values=(), unit="B", log=True, least=2048, step=256),
        Axis(name="chains", summary="independent chases at the same time", values=CHAINS, least=1, most=MOST_CHAINS),
        Axis(name="order", summary="as in memory_latency", values=("group", "random")),
        Axis(name="page_size", summary="as in memory_latency", values=PAGE_SIZES),
    )
    views = (View(title="Time per line by chases", metric="time_per_line", kind="line", x="chains", series="size"),)
    notes = (
        "The chases go through one and the same cycle, each from another place on, so that they need no memory of their own.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        caches = {cache.level: cache.size_bytes for cache in topology.caches if cache.holds_data and cache.size_bytes}
        sizes = [
            memory_size(topology, topology.order_cpus()[:1]),
            *([caches[2] // 2 // 256 * 256] if 2 in caches and profile != "quick" else []),
        ]
        chains = {"quick": (1, 16, 32), "standard": CHAINS}.get(profile, (*range(1, 17), *CHAINS[5:]))
        return [{"size": sizes, "chains": chains, "order": ("group",), "page_size": ("thp",)}]

    def group(self, p: Parameters) -> tuple:
        return p["size"], p["order"], p["page_size"]  # parallelism is a ratio within one process

    def preparation(self, p: Parameters) -> tuple:
        return self.group(p)

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        ns = mean_batch(found.threads[0])
        return {"latency": ns, "time_per_line": ns / p["chains"]}

    def physics(self, p: Parameters, metrics: dict[str, float]) -> str:
        return ""  # chases at the same time: the least latency is memory_latency's to judge

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        most = max((p["chains"] for p in cases), default=1)
        return tuple(
            Answer(
                kind="gain",
                metric="time_per_line",
                axis="chains",
                where={**p, "chains": 1},
                headline=p["size"] == max(q["size"] for q in cases),
                text=f"With several chases at the same time in {format_bytes(p['size'])}, {{value}} as many lines arrive as with one",
            )
            for p in cases
            if p["chains"] == most > 1
        )


BENCHMARK = MemoryParallelism()
