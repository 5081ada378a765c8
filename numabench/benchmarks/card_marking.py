"""What does the write barrier of a garbage collector cost, and when does it pay to look before marking?"""

from __future__ import annotations

from ..model import Answer, Axis, Contrast, View
from . import (
    ALONE,
    LINES_SHARED,
    RELATION_WORDS,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    memory_node,
    place_threads,
)

BARRIERS = ("none", "unconditional", "conditional")
AFTER = {"nothing": "", "locked": ", each followed by a locked operation"}
STRIDES = (1, 8, 64, 128, 256)
PADDED = 256  # the control: two 128-byte lines
CLEANED = (0, 1, 4, 16, 64, 256, 1024)
TURNS = 1024
PAGE = 4096  # as in kernels/card_marking.c


class CardMarking(Benchmark):
    name = kernel = "card_marking"
    rank = 11
    batches = LINES_SHARED
    topic = "cores"
    title = "Card marking"
    question = "What does a write barrier that marks cards cost when threads mark neighbouring cards, and when does it pay to look first?"
    expected = (
        "Stores of marks into one line vanish in the store buffer until something drains it: with a locked operation after each, every mark waits for the line. A "
        "conditional barrier only reads a card that is dirty, which all threads can do at the same time; it loses where most cards are clean."
    )
    axes = (
        Axis(
            name="barrier",
            summary="no mark; an unconditional store; a load, and a store where the card is clean",
            values=BARRIERS,
        ),
        Axis(
            name="after",
            summary="what follows each barrier: nothing, or an atomic add on the thread's own line",
            values=tuple(AFTER),
        ),
        Axis(name="stride", summary="bytes between the cards of two threads", values=STRIDES, unit="B", least=1, most=4096),
        Axis(
            name="cleaned",
            summary="marks of 1,024 that find their card cleaned: a power of two, or 0",
            values=CLEANED,
            least=0,
            most=TURNS,
        ),
        Axis(
            name="spacing", summary="dependent multiplies between two stores of references", values=(0, 60), least=0, most=100_000
        ),
        Axis(name="threads", summary="threads, each with a card and an object of its own", values=(), least=1),
        Axis(name="placement", summary="relation of the threads' CPUs", values=()),
    )
    contrasts = (
        Contrast(axis="barrier", control="unconditional", metric="time"),
        Contrast(axis="stride", control=PADDED, metric="time"),
    )
    views = (
        View(
            title="Time of a store with its barrier by stride of the cards",
            metric="time",
            kind="line",
            x="stride",
            series="barrier",
            facet="after",
            where={"threads": 2, "cleaned": 0},
        ),
        View(
            title="Time of a store with its barrier by cleanings",
            metric="time",
            kind="line",
            x="cleaned",
            series="barrier",
            facet="after",
            where={"threads": 2, "stride": 1},
        ),
    )
    method = {
        "objects": "one a thread, on lines of their own",
        "cards": "one a thread",
        "cleaning": "by the thread that marks, before the mark",
    }
    notes = (
        "The reference itself goes to a private line: `none` is what it costs without any barrier.",
        "Cleaning a card is a store as well, and both barriers pay it; a collector that cleans from another CPU makes the next mark wait for the line besides.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        cpus, relations = len(topology.order_cpus()), topology.relations()
        threads = [n for n in sorted({2, cpus}) if 2 <= n <= cpus]
        fixed = {"after": tuple(AFTER), "spacing": (0,)}
        if profile == "quick":
            far = relations[:1] + relations[1:][-1:]
            near = {**fixed, "stride": (1,), "threads": (2,), "placement": far}
            return [
                {**near, "barrier": BARRIERS[1:], "cleaned": (0, TURNS)},
                {**near, "barrier": BARRIERS[1:2], "cleaned": (0,), "stride": (PADDED,)},
            ]
        spacings = {"spacing": (0, 60) if profile == "full" else (0,)}
        strides = {
            **fixed,
            **spacings,
            "barrier": BARRIERS,
            "stride": STRIDES,
            "cleaned": (0,),
            "threads": threads,
            "placement": relations,
        }
        cleanings = {
            **fixed,
            **spacings,
            "barrier": BARRIERS[1:],
            "stride": (1,),
            "cleaned": CLEANED,
            "threads": (2,),
            "placement": relations,
        }
        one = {
            **fixed,
            **spacings,
            "barrier": BARRIERS,
            "stride": (PADDED,),
            "cleaned": (0,),
            "threads": (1,),
            "placement": (ALONE,),
        }
        return [one, strides, cleanings]

    def keep(self, p: Parameters, topology) -> bool:
        return (p["threads"] == 1) == (p["placement"] == ALONE) and not p["cleaned"] & (p["cleaned"] - 1)

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], p["threads"])
        cards = -(-p["threads"] * p["stride"] // PAGE) * PAGE
        return cpus and Placement(
            cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=cards + p["threads"] * PAGE
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for placement, after in dict.fromkeys((p["placement"], p["after"]) for p in cases if p["threads"] == 2):
            pair = {"after": after, "threads": 2, "placement": placement, "spacing": 0}
            who = f"(two threads on {RELATION_WORDS[placement]}{AFTER[after]})"
            near = {**pair, "stride": 1, "cleaned": 0}
            found += [
                Answer(
                    kind="difference",
                    metric="time",
                    where={**near, "barrier": "unconditional"},
                    against={"stride": PADDED},
                    text=f"Unconditional marks of neighbouring cards {who} take {{value}} more than marks of cards far apart",
                ),
                Answer(
                    kind="ratio",
                    metric="time",
                    where={**near, "barrier": "conditional"},
                    against={"barrier": "unconditional"},
                    text=f"Where the cards are dirty {who}, conditional marks of neighbouring cards take {{value}} as long as unconditional ones",
                ),
                Answer(
                    kind="threshold",
                    metric="time",
                    axis="stride",
                    where={**pair, "barrier": "unconditional", "cleaned": 0},
                    headline=False,
                    text=f"Unconditional marks {who} do not disturb each other from a stride of {{value}} on",
                ),
                Answer(
                    kind="reach",
                    metric="time",
                    axis="cleaned",
                    where={**pair, "barrier": "conditional", "stride": 1},
                    tolerance=0.0,
                    text=f"Looking first pays {who} up to {{value}} cleanings in 1,024 marks",
                ),
            ]
        return tuple(found)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {name: p[name] for name in ("barrier", "after", "stride", "cleaned", "spacing")}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        return {"time": found.time_per_operation, "throughput": found.throughput}

    def check(self, p: Parameters, found: Found) -> str:
        """Each barrier made the stores that it must: all, one after each cleaning, or none."""
        for index, thread in enumerate(found.threads):
            wanted = {"none": 0, "unconditional": thread.executed, "conditional": marks_needed(thread.executed, p["cleaned"])}[
                p["barrier"]
            ]
            if thread.check != wanted or thread.cursor != thread.executed:
                return f"thread {index} stored {thread.check} marks after {thread.executed} references, not {wanted}"
        return ""


def marks_needed(references: int, cleaned: int) -> int:
    """Stores of a conditional barrier: one after each cleaning, of which the first comes before the first reference; else the first alone."""
    return -(-references // (TURNS // cleaned)) if cleaned else min(references, 1)


BENCHMARK = CardMarking()
