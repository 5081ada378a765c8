"""What does it cost to order memory accesses?"""

from __future__ import annotations

from ..kernel import mean_batch
from ..model import Answer, Axis, Card, Contrast, Price, View
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node

NONE = "none"
#: What the processor has, by the names of the instructions; told by an instruction set for streams that all of its kind have.
OWN = {
    "sse2": ("mfence", "sfence", "lfence", "lock_or", "xchg", "mov_mfence"),
    "neon": ("dmb_ish", "dmb_ishld", "dmb_ishst", "dsb_ish", "isb", "swp", "stlr", "ldar", "stlr_ldar"),
}
EXTENSIONS = {"lrcpc": ("ldapr", "stlr_ldapr")}
#: Where this project has no forms of its own: what the compiler makes of C11's.
C11 = ("acquire", "release", "seq_cst", "seq_cst_store", "exchange")
#: Of each kind, what a full fence and a sequentially consistent store are made of.
FULL = ("lock_or", "xchg", "dmb_ish", "swp", "seq_cst", "exchange")
WORDS = {
    "lock_or": "a locked or on the stack",
    "xchg": "an exchange (xchg)",
    "mov_mfence": "another store with mfence behind",
    "swp": "an exchange (swp)",
    "stlr": "a releasing store (stlr)",
    "ldar": "an acquiring load (ldar)",
    "ldapr": "an acquiring load (ldapr)",
    "stlr_ldar": "stlr and ldar",
    "stlr_ldapr": "stlr and ldapr",
    "acquire": "an acquire fence",
    "release": "a release fence",
    "seq_cst": "a sequentially consistent fence",
    "seq_cst_store": "a sequentially consistent store",
    "exchange": "an atomic exchange",
}
BEFORE = {"nothing": "Alone", "store": "After a store"}


class Fences(Benchmark):
    name = kernel = "fences"
    rank = 13
    topic = "cores"
    title = "Fences"
    question = "What does it cost to order memory accesses, alone and after a store?"
    expected = (
        "On x86-64 acquire and release need no instruction: the processor orders so by itself. What orders earlier stores before later loads (`lock_or`, `xchg`, "
        "`mfence`) takes 5 to 30 ns, and a locked operation less than `mfence`. On aarch64 each `dmb` has a price, and `dsb_ish` waits."
    )
    axes = (
        Axis(
            name="fence",
            summary="the processor's own by their instructions; elsewhere C11's",
            values=(NONE, *C11, *(name for each in (*OWN.values(), *EXTENSIONS.values()) for name in each)),
        ),
        Axis(
            name="before", summary="what comes before each fence: nothing, or a store into the first cache", values=tuple(BEFORE)
        ),
    )
    contrasts = (Contrast(axis="fence", control=NONE, metric="time"),)
    views = (View(title="Time of a fence", metric="time", kind="bar", x="fence", series="before"),)
    method = {"line": "private, in the first cache", "loop": "one fence a turn", "names": "instructions"}
    notes = (
        "The difference to `none` is the fence's own price; `none` is what the loop and the store take.",
        "Stores that miss the cache make a full fence wait as long as they take: these figures are the least that it costs.",
    )

    needs = "a processor that has the fence"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        own = own_fences(topology)
        chosen = own if profile != "quick" else tuple(name for name in own if name in FULL)
        return [{"fence": (NONE, *chosen), "before": tuple(BEFORE)}]

    def acceptance(self, topology) -> list[Sweep]:
        return self.sweep(topology, "standard")  # microcode shows here, at some ms a case

    def place(self, p: Parameters, topology) -> Placement | None:
        if p["fence"] not in (NONE, *own_fences(topology)):
            return None
        cpu = topology.order_cpus()[0]
        return Placement(cpus=(cpu,), node=memory_node(topology, topology.node_of(cpu)), size=4096)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        return tuple(
            Answer(
                kind="difference",
                metric="time",
                where=p,
                against={"fence": NONE},
                headline=p["before"] == "store",
                text=f"{BEFORE[p['before']]}, {WORDS.get(p['fence'], p['fence'])} takes {{value}} more than none",
            )
            for p in cases
            if p["fence"] != NONE
        )

    def card(self, topology, cases: list[Parameters]) -> Card:
        """The first full fence that the processor has, after a store."""
        full = sorted((p for p in cases if p["fence"] in FULL and p["before"] == "store"), key=lambda p: FULL.index(p["fence"]))
        return Card(
            prices=tuple(
                Price(
                    answer=Answer(
                        kind="difference", metric="time", where=p, against={"fence": NONE}, text="full fence after a store"
                    ),
                    rank=28,
                )
                for p in full[:1]
            )
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"fence": p["fence"], "before": p["before"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        return {"time": mean_batch(found.threads[0])}

    def check(self, p: Parameters, found: Found) -> str:
        thread = found.threads[0]
        return "" if thread.check == thread.executed else f"{thread.executed} fences were asked for, {thread.check} were counted"


def own_fences(topology) -> tuple[str, ...]:
    known = next((names for vector, names in OWN.items() if vector in topology.vectors), C11)
    return known + tuple(name for extension, names in EXTENSIONS.items() if extension in topology.extensions for name in names)


BENCHMARK = Fences()
