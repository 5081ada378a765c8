"""What does it cost when threads write to one cache line, and from which stride on is it free?"""

from __future__ import annotations

from ..model import Answer, Axis, Contrast, View
from . import ALONE, RELATION_WORDS, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node, place_threads

STRIDES = (0, 8, 16, 32, 64, 128, 256)
PADDED = 256  # the control: two 128-byte lines, so that an adjacent-line prefetcher cannot couple neighbours
SPACINGS = (0, 20, 60, 200)
OPERATIONS = ("store", "increment", "atomic_add")


class PaddedCounters(Benchmark):
    name = kernel = "padded_counters"
    rank = 1
    title = "Padded and unpadded counters"
    question = "What does it cost when two threads write to one cache line, and from which distance on is it free?"
    expected = (
        "Below the line size every access waits for the line to come back from the other core: with enough private work between "
        "two accesses the penalty is one core-to-core hop. From the line size on there is none. Back to back, the store "
        "buffer hides the price of plain stores, and atomics pay several times the uncontended price."
    )
    axes = (
        Axis(
            name="operation",
            summary="store: plain store; increment: load, add, store; atomic_add: fetch-and-add",
            values=OPERATIONS,
        ),
        Axis(
            name="stride",
            summary="bytes between neighbouring counters; 0 is one counter for all",
            values=STRIDES,
            unit="B",
            least=0,
            most=4096,
            step=8,
        ),
        Axis(name="spacing", summary="dependent multiplies between two accesses", values=SPACINGS, least=0, most=100_000),
        Axis(name="threads", summary="threads, each with its own counter", values=(), least=1),
        Axis(name="placement", summary="relation of the threads' CPUs", values=()),
    )
    contrasts = (Contrast(axis="stride", control=PADDED, metric="time_per_operation"),)
    views = (
        View(
            title="Time per operation by stride",
            metric="time_per_operation",
            kind="line",
            x="stride",
            series="operation",
            facet="spacing",
            where={"threads": 2},
        ),
        View(
            title="Ratio to padded counters",
            metric="time_per_operation",
            kind="line",
            x="stride",
            series="operation",
            facet="spacing",
            where={"threads": 2},
            ratio_to=PADDED,
        ),
    )
    method = {
        "threads": "pinned, common window",
        "spacing": "value feeds multiplies feed address",
        "memory": "4k pages, first thread's node",
    }
    notes = (
        "The penalty in ns is taken from spaced accesses: back to back, a core keeps the line for many accesses before it gives it "
        "away, so that the ratio says how the hardware batches and not how far the cores are apart.",
        "A plain store reads nothing, so that its spacing delays the stores without making them wait for the line.",
        "With stride 0 plain increments of several threads lose updates, as they would in a program.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        cpus = len(topology.order_cpus())
        relations = topology.relations()
        if profile == "quick":
            grid = {"operation": ("increment", "atomic_add"), "stride": (8, 64, PADDED), "spacing": (0, 200)}
            threads, relations = [1, 2], relations[:1] + relations[1:][-1:]
        else:
            grid = {"operation": OPERATIONS, "stride": STRIDES, "spacing": SPACINGS}
            threads = sorted(
                {1, 2} | ({cpus} if profile == "standard" else {n for n in (4, 8, 16, 32, 64, 128, 256) if n < cpus} | {cpus})
            )
        return [{**grid, "threads": [n for n in threads if n <= cpus], "placement": [ALONE, *relations]}]

    def keep(self, p: Parameters, topology) -> bool:
        return (p["threads"] == 1) == (p["placement"] == ALONE) and (p["threads"] > 1 or p["stride"] == PADDED)

    def group(self, p: Parameters) -> tuple:
        return p["operation"], p["spacing"]  # one thread and two are compared as well

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], p["threads"])
        return cpus and Placement(
            cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=max(4096, p["threads"] * max(p["stride"], 8))
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        spaced = max((p["spacing"] for p in cases), default=0)
        found = []
        for placement in dict.fromkeys(p["placement"] for p in cases if p["threads"] == 2):
            pair, who = {"threads": 2, "placement": placement}, RELATION_WORDS[placement]
            found += [
                Answer(
                    kind="difference",
                    metric="time_per_operation",
                    against={"stride": PADDED},
                    where={**pair, "operation": operation, "stride": 8, "spacing": spaced},
                    text=f"Two threads that share a line ({who}) pay {{value}} per {what} more than with padded counters",
                )
                for operation, what in (("increment", "plain increment"), ("atomic_add", "atomic add"))
            ] + [
                Answer(
                    kind="ratio",
                    metric="time_per_operation",
                    against={"stride": PADDED},
                    where={**pair, "operation": "atomic_add", "stride": 8, "spacing": 0},
                    text=f"Back to back, an atomic add on a shared line ({who}) takes {{value}} as long as on a line of its own",
                ),
                Answer(
                    kind="threshold",
                    metric="time_per_operation",
                    axis="stride",
                    where={**pair, "operation": "atomic_add", "spacing": spaced},
                    text=f"For two threads on {who}, sharing is free from a stride of {{value}} on",
                ),
            ]
        return tuple(found)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"operation": p["operation"], "stride": p["stride"], "spacing": p["spacing"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        return {"time_per_operation": found.time_per_operation, "throughput": found.throughput, "fairness": found.fairness}

    def check(self, p: Parameters, found: Found) -> str:
        """A thread's own counter holds its operations; one counter for all holds their sum if the updates are atomic."""
        for index, thread in enumerate(found.threads):
            shared = p["stride"] == 0 and len(found.threads) > 1
            if not shared or p["operation"] == "atomic_add":
                wanted = found.executed if shared else thread.executed
                if thread.check != wanted:
                    return f"counter {index} is {thread.check}, not {wanted}"
            elif not 0 < thread.check <= found.executed:
                return f"counter {index} is {thread.check}, not within 1 to {found.executed}"
        return ""


BENCHMARK = PaddedCounters()
