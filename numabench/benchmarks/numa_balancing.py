"""How long does the kernel take to repair a wrong placement?"""

from __future__ import annotations

from ..host.memory import require_balancing
from ..host.pages import page_bytes, page_words
from ..model import Answer, Axis, View
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, has_memory
from .memory_latency import MIB
from .page_migration import BYTES_PER_PAGE

SIZE = 16 * MIB
LIMIT = 10  # s
REPAIRED_SLOT, FIRST_SLOT, AT_HOME_SLOT = 6, 7, 8  # of `value`, as in kernels/numa_balancing.c


class NumaBalancing(Benchmark):
    name = kernel = "numa_balancing"
    rank = 11
    topic = "memory"
    phase = "beta"  # right where answers are given; not yet measured on a real machine of several nodes
    title = "Repair of a wrong placement"
    question = "How long does a program run on memory of a wrong node until the kernel has brought it home?"
    expected = (
        "The kernel scans an address space about once a second at first, and moves a page when it is used from the same node twice: nothing for about "
        "a second, then most pages within another scan or two. Longer for programs that have run for a while, whose scans are rarer."
    )
    needs = "two nodes with memory, one of them with CPUs"
    axes = (
        Axis(name="cpu_node", summary="node of the CPU that uses the memory", values=(), least=0),
        Axis(name="wrong_node", summary="node that the memory is on at first", values=(), least=0),
        Axis(name="page_size", summary="as in memory_latency", values=("4k", "thp")),
        Axis(name="size", summary="memory in use", values=(), unit="B", log=True, least=2 * MIB, step=2 * MIB),
    )
    views = (View(title="Time until 95 % of the pages are at home", metric="repair_time", kind="bar", x="page_size"),)
    method = {
        "use": "one read and write per page, over and over",
        "policy": "none (the default) while it lasts",
        "limit_s": LIMIT,
    }
    judges_gaps = False  # seconds of faults by design
    most_samples = 1
    counts_pages = True
    calls = ("move_pages", "get_mempolicy", "set_mempolicy")
    seconds = LIMIT / 2
    notes = (
        "Memory or threads that have a policy of their own (numactl, mbind) are left alone by the kernel: there is no repair for them.",
        "Runs on a machine with one node skip this. In `quick` it is left out, since it takes seconds.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        homes = [node for node in topology.cpu_nodes() if node in topology.memory_nodes()] or [0]
        pairs = [(home, wrong) for home in homes for wrong in topology.memory_nodes() if wrong != home] or [(homes[0], homes[0])]
        if profile == "quick":
            return []
        pages = ("4k", "thp") if profile == "full" else ("4k",)
        return [
            {"cpu_node": (home,), "wrong_node": (wrong,), "page_size": pages, "size": (SIZE,)}
            for home, wrong in (pairs if profile == "full" else pairs[:1])
        ]

    def place(self, p: Parameters, topology) -> Placement | None:
        cores = topology.node_cores(p["cpu_node"])
        both = {p["cpu_node"], p["wrong_node"]}
        if not topology.numa or not cores or len(both) < 2 or not has_memory(topology, *both):
            return None
        scratch = p["size"] // page_bytes(p["page_size"]) * BYTES_PER_PAGE
        return Placement(cpus=cores[:1], node=None, size=p["size"], scratch=scratch, page_size=p["page_size"])

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        return tuple(
            Answer(
                kind="cell",
                metric="repair_time",
                where=p,
                headline=p == cases[0],
                text=f"Pages of {page_words(p['page_size'])} on node {p['wrong_node']} that a CPU of node {p['cpu_node']} uses are brought home in {{value}}",
            )
            for p in cases
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        require_balancing()
        nodes = {"wrong_node": p["wrong_node"], "home_node": p["cpu_node"]}
        return {"page_bytes": page_bytes(p["page_size"]), "limit_s": LIMIT, **nodes}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        value = found.threads[0].value
        return {"repair_time": value[REPAIRED_SLOT] * 1e-9, "reaction_time": value[FIRST_SLOT] * 1e-9}

    def check(self, p: Parameters, found: Found) -> str:
        thread, pages = found.threads[0], p["size"] // page_bytes(p["page_size"])
        if thread.check != thread.executed:
            return f"the pages count {thread.check} uses of {thread.executed}"
        if not thread.value[REPAIRED_SLOT]:
            return f"after {LIMIT} s only {thread.value[AT_HOME_SLOT]} of {pages} pages had been brought home"
        return ""


BENCHMARK = NumaBalancing()
