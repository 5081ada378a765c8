"""What does it cost to hand a pointer to other threads, for the one who writes it and for those who read?"""

from __future__ import annotations

from ..model import Answer, Axis, Contrast, View
from . import (
    LINES_SHARED,
    MOST_APART,
    MOST_LINE,
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

METHODS = ("relaxed_fence", "release_acquire", "seq_cst_exchange", "mutex", "seqlock")
DEAD_FRAME = "dead_frame"  # wrong, and in no sweep: whoever asks for it sees the check find it
CONTROL = "release_acquire"
OBJECTS = 256  # as in kernels/publication.c
ROLES = {"publish_time": "the writer", "read_time": "a reader"}


class Publication(Benchmark):
    name = kernel = "publication"
    rank = 10
    topic = "cores"
    title = "Publication"
    question = "What does it cost to hand a pointer to other threads, for the one who writes it and for those who read?"
    expected = (
        "A release store and an acquire load are the least that is right, and on x86-64 they cost nothing over plain ones: what readers wait for is the line. An exchange "
        "makes the writer wait for it as well. A mutex makes all wait for each other; a seqlock costs the writer two stores more and lets readers try again."
    )
    axes = (
        Axis(name="method", summary="how the pointer is written and read", values=(*METHODS, DEAD_FRAME)),
        Axis(
            name="spacing",
            summary="dependent multiplies of the writer between two objects",
            values=(0, 200),
            least=0,
            most=100_000,
        ),
        Axis(name="readers", summary="threads that read, beside the one that writes", values=(), least=1),
        Axis(name="placement", summary="relation of the threads' CPUs", values=()),
    )
    contrasts = tuple(Contrast(axis="method", control=CONTROL, metric=metric) for metric in ROLES)
    views = tuple(
        View(title=title, metric=metric, kind="bar", x="method", series="spacing", facet="readers")
        for metric, title in (("publish_time", "Time from one published object to the next"), ("read_time", "Time of a read"))
    )
    method = {
        "objects": "four words that follow from a number, a ring of 256, no neighbouring lines",
        "reuse": "after every reader has seen a later one",
        "readers": "read all the time",
    }
    notes = (
        "Every read is checked: an object that was not wholly written, or older than the one before, fails the sample.",
        "`dead_frame` publishes an object on a stack whose call has returned, and is measured only where it is asked for: its samples must fail.",
        "The writer looks once in 128 objects whether readers have gone on, which is part of its time.",
    )
    judges_gaps = False  # a mutex sleeps
    batches = LINES_SHARED
    may_sleep = True
    needs = "a CPU for the writer and one for each reader"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        others, relations = len(topology.order_cpus()) - 1, topology.relations()
        if profile == "quick":
            return [{"method": METHODS, "spacing": (200,), "readers": (1,), "placement": relations[:1] + relations[1:][-1:]}]
        return [{"method": METHODS, "spacing": (0, 200), "readers": sorted({1, others} - {0}), "placement": relations}]

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], p["readers"] + 1)
        size = 2 * MOST_APART + (OBJECTS + 1) * (MOST_APART + MOST_LINE) + (p["readers"] + 1) * MOST_APART
        return cpus and Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=size)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for spacing, readers, placement in dict.fromkeys((p["spacing"], p["readers"], p["placement"]) for p in cases):
            at = {"spacing": spacing, "readers": readers, "placement": placement}
            who = f"{readers} reader{'s' if readers > 1 else ''} on {RELATION_WORDS[placement]}"
            pace = f"{spacing} multiplies between two objects" if spacing else "objects back to back"
            found += [
                Answer(
                    kind="ranking",
                    metric=metric,
                    axis="method",
                    where=at,
                    headline=spacing > 0,
                    text=f"{who}, {pace}, for {role}, least first: {{ranking}}",
                )
                for metric, role in ROLES.items()
            ]
        return tuple(found)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"method": p["method"], "spacing": p["spacing"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        writer, *readers = found.rates
        return {"publish_time": 1e9 / writer, "read_time": 1e9 * len(readers) / sum(readers)}

    def check(self, p: Parameters, found: Found) -> str:
        """What the writer counted is what it left behind; every object that was read was whole, in order, and had been published."""
        writer, *readers = found.threads
        if writer.cursor != writer.executed or writer.check != writer.executed:
            return f"the last object has number {writer.check} after {writer.executed}"
        for index, reader in enumerate(readers, 1):
            if reader.check != reader.executed:
                return f"reader {index} saw {reader.executed - reader.check} objects of {reader.executed} that were not wholly published, or out of order"
            if reader.cursor > writer.executed:
                return f"reader {index} saw object {reader.cursor} of {writer.executed}"
        return ""


BENCHMARK = Publication()
