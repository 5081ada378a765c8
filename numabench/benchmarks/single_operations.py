"""What does one operation cost on a line in a known state, here or elsewhere?"""

from __future__ import annotations

from collections.abc import Sequence

from ..model import Answer, Axis, Card, Contrast, Price, View
from . import (
    ALONE,
    MOST_LINE,
    RELATION_NAMES,
    RELATION_WORDS,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    memory_node,
    nearest_cores_first,
    place_threads,
)

OPERATIONS = {
    "load": "a load",
    "store": "a store, many of them under way",
    "store_drained": "a store, waited for",
    "cas": "a compare-and-swap",
    "add": "an atomic add",
    "swap": "an atomic exchange",
}
#: What the states are with one thread, and with another that holds the lines.
STATES = ("modified", "exclusive", "shared", "owned", "invalid")
OWN = {"modified": "modified by this CPU", "exclusive": "that this CPU alone has, clean", "invalid": "in no cache"}
OTHERS = {
    "modified": "modified by another CPU",
    "exclusive": "that another CPU alone has, clean",
    "shared": "that both CPUs have, clean",
    "owned": "that another CPU has modified and both have",
}
MOST_LINES, LINES_BYTES = 128, 16384  # as in kernels/single_operations.c: so many lines, and no more than these bytes of them
LATENCY_SLOT, CLOCK_SLOT, STEP_SLOT, ROUND_SLOT, COUNTED_SLOT, SIZE_SLOT = range(6)  # of `value`
LEAST_STEPS = 50  # of the clock, that the mean round is known to: its beginnings are spread over a step, so that n rounds tell it to step / sqrt(n)
#: A drained store takes the line from another CPU, and a hop is what a line takes. Under it, nobody has waited for the store.
LEAST_HOPS = 0.8
TAKEN = ("modified", "exclusive")  # states in which the other CPU alone has the line


def lines(line_bytes: int) -> int:
    """How many lines a round has, where they have `line_bytes`."""
    return min(MOST_LINES, LINES_BYTES // line_bytes)


def memory_bytes(line_bytes: int) -> int:
    """Lines that are four lines, or 256 bytes, and one line apart; two words of control behind."""
    apart = max(256, 4 * line_bytes)
    return lines(line_bytes) * (apart + line_bytes) + 2 * apart


BYTES = memory_bytes(MOST_LINE)  # more than any other needs


class SingleOperations(Benchmark):
    name = kernel = "single_operations"
    rank = 9
    topic = "cores"
    title = "Single operations"
    question = "What does one load, store or atomic operation cost on a line that is modified, exclusive, shared or owned, here or elsewhere?"
    expected = (
        "On a line of its own a core loads in the time of its first cache; atomic operations take some 20 cycles. A line that another CPU has modified takes one hop for any operation. A "
        "shared line is as near as one's own for a load; whatever writes has to invalidate the other copy first."
    )
    axes = (
        Axis(name="operation", summary="on each line once, the next address after the result", values=tuple(OPERATIONS)),
        Axis(name="state", summary="of the lines before it", values=STATES),
        Axis(name="placement", summary="alone, or relation to the CPU that holds the lines", values=()),
    )
    contrasts = (
        Contrast(axis="state", control="modified", metric="latency"),
        Contrast(axis="placement", control=ALONE, metric="latency"),
    )
    views = (
        View(title="Latency of one operation", metric="latency", kind="bar", x="state", series="operation", facet="placement"),
    )
    method = {
        "lines": "128 a round and 16 KiB of them at most, max(256 bytes, 4 lines) and a line apart, in a new order each",
        "round": "mean of those that nothing interrupted",
        "preparation": "by write, flush and read; proven by the stamp that an operation finds and leaves",
        "clock": "two readings with nothing between them, for stores with a drain, are taken off each round",
        "store_drained": "a drain behind each: x86-64 lock or and lfence, aarch64 dsb ish",
    }
    notes = (
        "Each figure has the two cycles in it that the next address waits for the result.",
        "`owned` is the state O where the processor has it; others write the line back when it is read, so that it is `shared`.",
        "`store` is what a program pays that goes on at once; `store_drained` is how long until a store is visible, with the price of what waits for it: on a line of one's own it is that alone.",
    )
    judges_gaps = False  # interrupted rounds are not in the mean

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        grid = {"operation": tuple(OPERATIONS), "state": STATES}
        if profile == "quick":
            grid, relations = {"operation": ("load", "add"), "state": ("modified", "shared")}, relations[:1] + relations[1:][-1:]
        return [{**grid, "placement": [ALONE, *relations]}]

    def keep(self, p: Parameters, topology) -> bool:
        return p["state"] in (OWN if p["placement"] == ALONE else OTHERS)

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], 1 if p["placement"] == ALONE else 2)
        return cpus and Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=BYTES)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            alone = p["placement"] == ALONE
            whose = "" if alone else f" ({RELATION_WORDS[str(p['placement'])]})"
            where = (OWN if alone else OTHERS)[str(p["state"])] + whose
            what = f"{OPERATIONS[p['operation']]} on a line {where}"
            headline = p["operation"] in ("load", "add") and p["state"] in ("modified", "shared")
            found.append(
                Answer(
                    kind="cell", metric="latency", where=p, headline=headline, text=f"{what[0].upper()}{what[1:]} takes {{value}}"
                )
            )
        found += [self.effect(p, control, words) for p in cases for control, words in effects(p) if {**p, **control} in cases]
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        prices = []
        found = [p for p in cases if p["operation"] == "add" and p["state"] == "modified"]
        for p in sorted(found, key=lambda p: nearest_cores_first(str(p["placement"]))):
            near = RELATION_NAMES.get(str(p["placement"]), str(p["placement"]))
            text = "atomic add, own line" if p["placement"] == ALONE else f"atomic add, another CPU's line, {near}"
            prices.append(Price(answer=Answer(kind="cell", metric="latency", where=p, text=text), rank=25 + len(prices)))
        return Card(prices=tuple(prices))

    def effect(self, p: Parameters, control: Parameters, words: str) -> Answer:
        text = f"The preparation by its effect ({RELATION_WORDS[str(p['placement'])]}): {words}"
        return Answer(kind="ratio", metric="latency", where=p, against=control, headline=False, text=text)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"operation": p["operation"], "state": p["state"]}

    def seed_argument(self, seed: int) -> dict[str, int]:
        return {"seed": seed}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        return {"latency": found.threads[0].value[LATENCY_SLOT] / 1000}

    def check(self, p: Parameters, found: Found) -> str:
        """Every operation found the stamp of its round, and left the one after it if it writes."""
        thread = found.threads[0]
        size = thread.value[SIZE_SLOT]
        rounds = thread.executed // size
        stamps = rounds * (rounds + 1)  # of the rounds: 2, 4, ...
        reads = not p["operation"].startswith("store")
        wanted = size * (reads * stamps + stamps + (p["operation"] != "load") * rounds) & (1 << 64) - 1
        if thread.check != wanted:
            return f"the lines' stamps add up to {thread.check} after {rounds} rounds, not to {wanted}"
        if len(found.threads) > 1 and found.threads[1].executed != thread.executed:
            return f"{found.threads[1].executed} lines were prepared, {thread.executed} used"
        return ""

    def physics(self, p: Parameters, metrics: dict[str, float]) -> str:
        return "the operations took no longer than the clock" if metrics["latency"] <= 0 else ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """`coarse_clock`, and a store that nobody has waited for."""
        value, hop = found.threads[0].value, (probes.hop or 0.0) * 1e9
        reasons = ["coarse_clock"] if steps(value) < LEAST_STEPS else []
        if (
            len(found.threads) > 1
            and p["operation"] == "store_drained"
            and p["state"] in TAKEN
            and metrics["latency"] < LEAST_HOPS * hop
        ):
            reasons.append(f"physics:a store to a line {hop:.1f} ns away, waited for, took {metrics['latency']:.1f} ns")
        return reasons

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        value = found.threads[0].value
        return {"clock_ns": value[CLOCK_SLOT] / 1000, "clock_step_ns": float(value[STEP_SLOT])}


def steps(value: Sequence[int]) -> float:
    """Of the clock, in the mean round, as it is known from so many rounds."""
    return value[ROUND_SLOT] / 1000 / value[STEP_SLOT] * value[COUNTED_SLOT] ** 0.5


def effects(p: Parameters) -> list[tuple[Parameters, str]]:
    """What a state must change, if it was reached: the control, and the sentence."""
    if p["placement"] == ALONE:
        return []
    if p["state"] == "modified" and p["operation"] in ("load", "add"):
        return [
            (
                {"placement": ALONE},
                f"{OPERATIONS[p['operation']]} takes {{value}} as long on a line that the other CPU has modified as on one's own",
            )
        ]
    if p["state"] == "shared" and p["operation"] == "load":
        return [
            ({"state": "modified"}, "a load of a shared line takes {value} as long as of one that the other CPU has modified")
        ]
    return []


BENCHMARK = SingleOperations()
