"""Which orders of two memory accesses can other CPUs see, and how often?"""

from __future__ import annotations

import platform

from ..model import Answer, Axis, Contrast, View
from . import MOST_LINE, RELATION_WORDS, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node, place_threads

SB, MP, LB, IRIW = "store_buffering", "message_passing", "load_buffering", "iriw"
TESTS = {SB: "Store buffering", MP: "Message passing", LB: "Load buffering", IRIW: "Independent reads of independent writes"}
ORDERINGS = {
    "plain": "plain accesses",
    "acquire_release": "acquire and release",
    "fence": "a full fence between the two",
    "seq_cst": "sequentially consistent accesses",
}
THREADS = {SB: 2, MP: 2, LB: 2, IRIW: 4}
READS = {SB: 2, MP: 2, LB: 2, IRIW: 4}
#: The outcome that no interleaving explains; bit k of its number: read k, in the order of kernels/memory_ordering.c, saw the new value.
WEAK = {SB: 0b00, MP: 0b01, LB: 0b11, IRIW: 0b0101}
#: Where the weak outcome may occur: (test, ordering). x86-64: x86-TSO (Owens, Sarkar, Sewell 2009). aarch64: the multi-copy atomic model
#: of Armv8 (Pulte et al. 2018), whose LDAR waits for an earlier STLR; the kernel's acquire loads are LDAR, whatever the compiler takes. Elsewhere what C11 says (Batty et al. 2011, with the fences of C++20).
ALLOWED = {
    "x86_64": {(SB, "plain"), (SB, "acquire_release")},
    "aarch64": {(SB, "plain"), (MP, "plain"), (LB, "plain"), (IRIW, "plain")},
}
ALLOWED_ANYWHERE = ALLOWED["aarch64"] | {(SB, "acquire_release"), (IRIW, "acquire_release")}
INSTANCES = 64
PER = 100_000_000  # trials that counts are told for


def allowed(test: str, ordering: str, machine: str) -> bool:
    """Whether the weak outcome of a test may be seen on an architecture (`platform.machine()`)."""
    return (test, ordering) in ALLOWED.get(machine, ALLOWED_ANYWHERE)


def memory_bytes(line_bytes: int) -> int:
    """Two words of each instance, four lines, or 256 bytes, and one line apart, and four control lines (kernels/memory_ordering.c)."""
    apart = max(256, 4 * line_bytes)
    return 2 * INSTANCES * (apart + line_bytes) + 4 * apart


BYTES = memory_bytes(MOST_LINE)


class MemoryOrdering(Benchmark):
    name = kernel = "memory_ordering"
    rank = 12
    topic = "cores"
    title = "Memory ordering"
    question = "Which orders of two memory accesses do other CPUs see, and how often?"
    expected = (
        "x86-64 shows the weak outcome of store buffering, in a large share of the trials, with plain accesses and with acquire and release, and no other. Weaker "
        "machines may show message passing and load buffering with plain accesses too. With a full fence, or sequentially consistent accesses, none does."
    )
    axes = (
        Axis(name="test", summary="who writes and reads what", values=tuple(TESTS)),
        Axis(name="ordering", summary="of the two accesses of a thread", values=tuple(ORDERINGS)),
        Axis(name="placement", summary="relation of the threads' CPUs", values=()),
    )
    contrasts = (Contrast(axis="ordering", control="plain", metric="time"),)
    views = (
        View(title="Trials with the weak outcome", metric="weak", kind="bar", x="test", series="ordering", facet="placement"),
        View(title="Time of a trial", metric="time", kind="bar", x="test", series="ordering", facet="placement"),
    )
    method = {
        "instances": "64 a round, on lines of their own",
        "start": "all threads meet before each round",
        "phase": "delay by chance, log-uniform from 0 to 8,191 steps",
        "order": "by chance in every round, in a quarter of them another for each thread",
        "lines": "a quarter of one side's fetched, a sixteenth flushed before a round; x and y in one line in an eighth of the rounds",
    }
    notes = (
        "Counts are per 10^8 trials of the window; `extra` of each sample in the run log has every outcome's own count, outcome_01 for instance: the first "
        "read saw the old value, the second the new one.",
        "A forbidden outcome fails its sample, and the run. That none was seen is no proof that none can be.",
    )
    judges_gaps = False  # a thread that was interrupted makes the others wait, and no outcome impossible
    judges_clock = False
    needs = "two CPUs (independent reads of independent writes: four)"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        quick = {"test": (SB, MP, LB), "ordering": ("plain", "fence")}
        return [
            {
                **(quick if profile == "quick" else {"test": tuple(TESTS), "ordering": tuple(ORDERINGS)}),
                "placement": topology.relations(),
            }
        ]

    def group(self, p: Parameters) -> tuple:
        return p["test"], p["placement"]

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], THREADS[p["test"]])
        return cpus and Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=BYTES)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        machine = platform.machine()
        found = []
        for p in cases:
            may = "allowed" if allowed(p["test"], p["ordering"], machine) else "forbidden"
            text = f"{TESTS[p['test']]} by {RELATION_WORDS[p['placement']]}, {ORDERINGS[p['ordering']]}: the weak outcome ({may} on {machine}) {{value}}"
            found.append(
                Answer(kind="occurrence", metric="weak", where=p, text=text, headline=p["ordering"] in ("plain", "fence"))
            )
        return tuple(found)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"test": p["test"], "ordering": p["ordering"]}

    def seed_argument(self, seed: int) -> dict[str, int]:
        return {"seed": seed}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        first, trials = found.threads[0], found.threads[0].operations

        def share(outcome: int) -> float:
            return first.value[outcome] / trials * PER

        return {
            "time": (first.end_ns - first.begin_ns) / trials,
            "weak": share(WEAK[p["test"]]),
            "all_old": share(0),
            "all_new": share((1 << READS[p["test"]]) - 1),
            "trials": float(trials),
        }

    def check(self, p: Parameters, found: Found) -> str:
        """Every trial has one outcome, all threads count alike, every word was written in every round; and no outcome is forbidden."""
        test, first = p["test"], found.threads[0]
        outcomes = list(first.value[: 1 << READS[test]])
        for index, thread in enumerate(found.threads):
            if list(thread.value[: len(outcomes)]) != outcomes or thread.check != 2 * thread.executed:
                return f"thread {index} counted other outcomes than thread 0, or words were not written"
        if sum(outcomes) != first.operations:
            return f"{sum(outcomes)} outcomes of {first.operations} trials"
        seen, machine = outcomes[WEAK[test]], platform.machine()
        if seen and not allowed(test, p["ordering"], machine):
            return f"{test} with {ORDERINGS[p['ordering']]} had the outcome that {machine} forbids in {seen} of {first.operations} trials"
        return ""

    def physics(self, p: Parameters, metrics: dict[str, float]) -> str:
        """The positive control: threads that never met show nothing."""
        if p["test"] == SB and p["ordering"] == "plain" and platform.machine() == "x86_64" and not metrics["weak"]:
            return "store buffering never had its weak outcome: the threads did not meet"
        return ""

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        reads = READS[str(arguments["test"])]
        return {
            "outcome_" + "".join(str(outcome >> k & 1) for k in range(reads)): float(found.threads[0].value[outcome])
            for outcome in range(1 << reads)
        }


BENCHMARK = MemoryOrdering()
