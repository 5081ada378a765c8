"""What does it cost when threads write to one cache line, and from which stride on is it free?"""

from __future__ import annotations

import msgspec

from ..model import Answer, Axis, Card, Contrast, Tile, View
from . import (
    ALONE,
    LINES_SHARED,
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
    place_threads,
)

LINE = 64
PADDED = (
    1024  # the control: four lines of 256 bytes, beyond every line that is known and the pairs that prefetchers make of lines
)
STRIDES = (0, 8, 16, 32, 64, 128, 256, 512, PADDED)
SPACINGS = (0, 20, 60, 200)
SPACED = 200  # multiplies from which on the penalty is to be a whole hop, so that the work must take longer than one
HOPS = 2  # that it takes at least: the spacing asked for is doubled until it does
ADJACENT = 0.03  # strides from 64 to 4096 bytes differ by less where nothing couples lines (METHODOLOGY, bands)
OPERATIONS = ("store", "increment", "atomic_add")
SPACING_SLOT = 6  # of `value`: multiplies that were done between two accesses
LEAST_LEFT = 0.8  # of the spacing asked for, once what was longer is taken off: the access comes on top of it, and clocks wander


class PaddedCounters(Benchmark):
    name = kernel = "padded_counters"
    rank = 1
    batches = LINES_SHARED
    topic = "cores"
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
        Axis(
            name="readers",
            summary="of these threads, those that only load their counter; the others write",
            values=(0, 1),
            least=0,
        ),
        Axis(
            name="offset",
            summary="from a page's begin to the first counter: with stride 64, 0 puts two lines into a pair of 128 bytes, 64 into two pairs",
            values=(0, LINE),
            unit="B",
            least=0,
            most=4032,
            step=8,
        ),
        Axis(name="home", summary="node that the counters live on", values=(), least=0),
        Axis(name="placement", summary="relation of the threads' CPUs", values=()),
    )
    contrasts = (
        Contrast(axis="stride", control=PADDED, metric="time_per_operation"),
        Contrast(axis="stride", control=PADDED, metric="read_time"),
        Contrast(axis="offset", control=LINE, metric="time_per_operation"),
    )
    views = (
        View(
            title="Time per operation by stride",
            metric="time_per_operation",
            kind="line",
            x="stride",
            series="operation",
            facet="spacing",
            where={"threads": 2, "readers": 0, "offset": 0},
        ),
        View(
            title="Ratio to padded counters",
            metric="time_per_operation",
            kind="line",
            x="stride",
            series="operation",
            facet="spacing",
            where={"threads": 2, "readers": 0, "offset": 0},
            ratio_to=PADDED,
        ),
    )
    method = {
        "threads": "pinned, common window",
        "spacing": "value feeds multiplies feed address; from 200 on two hops at least",
        "memory": "4k pages, first thread's node",
    }
    notes = (
        "The penalty in ns is taken from spaced accesses: back to back, a core keeps the line for many accesses before it gives it "
        "away, so that the ratio says how the hardware batches and not how far the cores are apart.",
        "A plain store reads nothing, so that its spacing delays the stores without making them wait for the line.",
        "With stride 0 plain increments of several threads lose updates, as they would in a program.",
    )

    needs_work = True
    most = {"fairness": 1.0}

    def sweep(self, topology, profile: str) -> list[Sweep]:
        cpus, relations = len(topology.order_cpus()), topology.relations()
        if profile == "quick":
            grid = {"operation": ("increment", "atomic_add"), "stride": (8, 64, PADDED), "spacing": (0, 200)}
            threads, relations = [1, 2], relations[:1] + relations[1:][-1:]
        else:
            grid = {"operation": OPERATIONS, "stride": STRIDES, "spacing": SPACINGS}
            threads = sorted(
                {1, 2} | ({cpus} if profile == "standard" else {n for n in (4, 8, 16, 32, 64, 128, 256) if n < cpus} | {cpus})
            )
        grid |= {"threads": [n for n in threads if n <= cpus], "readers": (0,), "offset": (0,)}
        return [each for placement in (ALONE, *relations) for each in self.on(topology, profile, placement, grid)]

    def acceptance(self, topology) -> list[Sweep]:
        return self.sweep(topology, "quick")

    def on(self, topology, profile: str, placement: str, grid: Sweep) -> list[Sweep]:
        """The sweeps of a placement: the grid with the counters at home, then readers, pairs of lines, and other homes."""
        chosen = place_threads(topology, placement, 1 if placement == ALONE else 2)
        if not chosen:
            return []
        home = memory_node(topology, topology.node_of(chosen[0])) or 0
        main = {**grid, "placement": (placement,), "home": (home,)}
        if profile == "quick":  # back to back an increment only shows how the hardware batches
            return [{**main, "operation": OPERATIONS[1:2], "spacing": SPACINGS[-1:]}, {**main, "operation": OPERATIONS[2:]}]
        if placement == ALONE:
            return [main]
        pair = {**main, "operation": OPERATIONS[1:], "spacing": (0, SPACINGS[-1]), "threads": (2,)}
        others = [node for node in topology.memory_nodes() if node != home] if profile == "full" else []
        return [
            main,
            {**pair, "stride": (8, LINE, PADDED), "readers": (1,)},
            {**pair, "stride": (LINE, PADDED), "offset": (LINE,)},
            {**pair, "stride": (8, PADDED), "home": others},
        ]

    def keep(self, p: Parameters, topology) -> bool:
        return (
            (p["threads"] == 1) == (p["placement"] == ALONE)
            and (p["threads"] > 1 or p["stride"] == PADDED)
            and p["readers"] < p["threads"]
        )

    def group(self, p: Parameters) -> tuple:
        return p["operation"], p["spacing"]  # one thread and two are compared as well

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], p["threads"])
        if not cpus or not has_memory(topology, p["home"]):
            return None
        size = max(4096, p["offset"] + p["threads"] * max(p["stride"], 8))
        return Placement(cpus=cpus, node=memory_node(topology, p["home"]), size=size)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        spaced = max((p["spacing"] for p in cases), default=0)
        found = []
        for placement, home in dict.fromkeys((p["placement"], p["home"]) for p in cases if p["threads"] == 2):
            pair, who = {"threads": 2, "placement": placement, "readers": 0, "offset": 0, "home": home}, RELATION_WORDS[placement]
            found += (
                [
                    Answer(
                        kind="difference",
                        metric="time_per_operation",
                        against={"stride": PADDED},
                        where={**pair, "operation": operation, "stride": 8, "spacing": spaced},
                        text=f"Two threads that share a line ({who}) pay {{value}} per {what} more than with padded counters",
                    )
                    for operation, what in (("increment", "plain increment"), ("atomic_add", "atomic add"))
                ]
                + [
                    Answer(
                        kind="ratio",
                        metric="time_per_operation",
                        against={"stride": PADDED},
                        where={**pair, "operation": "atomic_add", "stride": 8, "spacing": 0},
                        text=f"Back to back, an atomic add on a shared line ({who}) takes {{value}} as long as on a line of its own",
                    ),
                ]
                + [
                    self.threshold({**pair, "operation": operation, "spacing": spacing}, spaced)
                    for operation, spacing in dict.fromkeys((p["operation"], p["spacing"]) for p in cases if p == {**p, **pair})
                    if spacing in (0, spaced)
                ]
            )
            if {**pair, "operation": "atomic_add", "stride": 8, "spacing": spaced, "readers": 1} in cases:
                found.append(
                    Answer(
                        kind="difference",
                        metric="read_time",
                        against={"stride": PADDED},
                        where={**pair, "operation": "atomic_add", "stride": 8, "spacing": spaced, "readers": 1},
                        headline=False,
                        text=f"A thread that only reads beside one that writes ({who}) pays {{value}} per load more than with padded counters",
                    )
                )
            if {**pair, "operation": "atomic_add", "stride": LINE, "spacing": 0, "offset": LINE} in cases:
                found.append(
                    Answer(
                        kind="effect",
                        metric="time_per_operation",
                        against={"offset": LINE},
                        where={**pair, "operation": "atomic_add", "stride": LINE, "spacing": 0},
                        tolerance=ADJACENT,
                        headline=False,
                        text=f"Two lines of one pair of 128 bytes, against lines of two pairs ({who}): {{value}}",
                    )
                )
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        """What a shared line costs each writer, by relation, and the padding that avoids it."""
        spaced = max((p["spacing"] for p in cases), default=0)
        pairs = {(p["placement"], p["home"]): p for p in cases if p["threads"] == 2 and not p["readers"] and not p["offset"]}
        tiles = []
        for position, (placement, home) in enumerate(sorted(pairs, key=lambda pair: nearest_cores_first(str(pair[0])))):
            pair = {"threads": 2, "placement": placement, "readers": 0, "offset": 0, "home": home, "spacing": spaced}
            shared = Answer(
                kind="difference",
                metric="time_per_operation",
                against={"stride": PADDED},
                where={**pair, "operation": "increment", "stride": 8},
                text=f"for each write where 2 threads share a line ({RELATION_NAMES[str(placement)]})",
            )
            pad = msgspec.structs.replace(self.threshold({**pair, "operation": "atomic_add"}, spaced), text="pad to {value}")
            tiles.append(Tile(subject="shared line", answer=shared, rank=20 + position, notes=(pad,)))
        return Card(tiles=tuple(tiles))

    def threshold(self, where: Parameters, spaced: int) -> Answer:
        pace = "spaced" if where["spacing"] else "back to back"
        return Answer(
            kind="threshold",
            metric="time_per_operation",
            axis="stride",
            where=where,
            headline=where["operation"] == "atomic_add" and where["spacing"] == spaced,
            text=f"For two threads on {RELATION_WORDS[str(where['placement'])]} ({where['operation']}, {pace}), sharing is free from a stride of {{value}} on",
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        more = {name: p[name] for name in ("offset", "readers") if name in p}
        return {"operation": p["operation"], "stride": p["stride"], "spacing": spacing_used(p["spacing"], probes), **more}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        writers = Found(found.threads[: len(found.threads) - p.get("readers", 0)])
        readers = Found(found.threads[len(writers.threads) :])
        # Counters that were spaced by more than was asked are told at what was asked: neighbours in a pair need not have been spaced alike.
        longer = more_spaced(p, found) * probes.multiply * 1e9
        read = {"read_time": readers.time_per_operation - longer} if readers.threads else {}
        return {
            "time_per_operation": writers.time_per_operation - longer,
            **read,
            "throughput": writers.throughput,
            "fairness": writers.fairness,
        }

    def check(self, p: Parameters, found: Found) -> str:
        """A thread's own counter holds its operations, a reader's nothing; one counter for all holds the sum if the updates are atomic."""
        writers = len(found.threads) - p.get("readers", 0)
        everything = sum(thread.executed for thread in found.threads[:writers])
        for index, thread in enumerate(found.threads):
            shared = p["stride"] == 0 and len(found.threads) > 1
            if not shared or p["operation"] == "atomic_add":
                wanted = everything if shared else thread.executed if index < writers else 0
                if thread.check != wanted:
                    return f"counter {index} is {thread.check}, not {wanted}"
            elif not 0 < thread.check <= everything:
                return f"counter {index} is {thread.check}, not within 1 to {everything}"
        return ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """A price of a multiply that is not the one within the window, where multiplies are taken off by it: then less is left than those that were asked for."""
        asked = p["spacing"] * probes.multiply * 1e9
        left = min((metrics[name] for name in ("time_per_operation", "read_time") if name in metrics), default=asked)
        if more_spaced(p, found) and left < LEAST_LEFT * asked:
            return [f"physics:{p['spacing']} multiplies of {probes.multiply * 1e9:.3g} ns in {left:.4g} ns"]
        return []

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        return {"spacing": float(arguments["spacing"]), "spacing_ns": arguments["spacing"] * probes.multiply * 1e9}


def more_spaced(p: Parameters, found: Found) -> int:
    """Multiplies between two accesses beyond those asked for."""
    return found.threads[0].value[SPACING_SLOT] - p["spacing"]


def spacing_used(asked: int, probes: Probes) -> int:
    """Multiplies between two accesses: `asked`, doubled until they take two hops, so that nearly all cases of a process are spaced alike."""
    used = asked
    while asked >= SPACED and probes.hop and probes.multiply and used * probes.multiply < HOPS * probes.hop:
        used *= 2
    return used


BENCHMARK = PaddedCounters()
