"""Mutex or atomic, and what lies between: who is faster, from when on, and who starves?"""

from __future__ import annotations

from ..kernel import BINS, LONGEST_SLOT, histogram_quantile
from ..model import Answer, Axis, Contrast, View
from . import ALONE, RELATION_WORDS, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node, place_threads

PRIMITIVES = (
    "atomic_add",
    "atomic_cas",
    "atomic_add_sharded",
    "atomic_add_per_node",
    "mutex",
    "mutex_adaptive",
    "spin_ttas",
    "ticket",
    "mcs",
    "futex",
)
SECTIONS = (0, 40, 100, 400)  # ns; the uncontended mutex costs 5-10, a hop 10-130
THINKS = (0, 200)
OWN, PART = 4096, 512  # layout of the measured buffer, as in kernels/contention.c


class Contention(Benchmark):
    name = kernel = "contention"
    rank = 2
    title = "Mutex, atomic and what lies between"
    question = "From how many threads, and with what work inside, is a lock better than an atomic update, and which lock is it?"
    expected = (
        "Alone, an atomic add costs some cycles and a mutex two of them. Together, an atomic update needs the line for "
        "each operation; unfair locks (mutex, test-and-set) win with nothing inside since the holder takes the lock again before "
        "the line leaves; fair ones (ticket, MCS) pay at least one hop per acquisition and share evenly. Sharded counters scale."
    )
    axes = (
        Axis(name="primitive", summary="what protects the counter", values=PRIMITIVES),
        Axis(
            name="critical_section",
            summary="dependent work while holding the lock",
            values=SECTIONS,
            unit="ns",
            least=0,
            most=1_000_000,
        ),
        Axis(
            name="think_time",
            summary="dependent work between two critical sections",
            values=THINKS,
            unit="ns",
            least=0,
            most=1_000_000,
        ),
        Axis(name="threads", summary="threads that update the counter", values=(), least=1),
        Axis(name="placement", summary="relation of the threads' CPUs", values=()),
    )
    contrasts = (Contrast(axis="primitive", control="atomic_add", metric="throughput"),)
    views = (
        View(
            title="Throughput by primitive",
            metric="throughput",
            kind="bar",
            x="primitive",
            series="threads",
            facet="critical_section",
            where={"think_time": 0},
        ),
        View(
            title="Throughput against atomic_add",
            metric="throughput",
            kind="bar",
            x="primitive",
            series="threads",
            facet="critical_section",
            where={"think_time": 0},
            ratio_to="atomic_add",
        ),
        View(
            title="Fairness (Jain index)",
            metric="fairness",
            kind="bar",
            x="primitive",
            series="critical_section",
            where={"threads": 2, "think_time": 0},
        ),
        View(
            title="Longest wait, 99.9th percentile",
            metric="wait_p999",
            kind="bar",
            x="primitive",
            series="critical_section",
            where={"threads": 2, "think_time": 0},
        ),
    )
    method = {"window": "plain, then a quarter of it stamped", "delay": "dependent multiplies calibrated in place"}
    notes = (
        "Atomic updates do the section's work unprotected and in parallel, as code without a lock does.",
        "atomic_add_sharded gives every thread a counter of its own, atomic_add_per_node one to each NUMA node; the sum is taken once at the end.",
        "Work inside and between is dependent multiplies, calibrated on the pinned CPU before each case; section_ns and think_ns "
        "of each sample in the run log are what was achieved.",
        "Waits come from a second window in which each operation is stamped; throughput comes from the first, which has no stamps.",
    )
    judges_gaps = False  # a sleeping waiter is what a mutex does
    may_sleep = True
    windows = 1.25  # the stamped one is a quarter
    needs_work = True

    def sweep(self, topology, profile: str) -> list[Sweep]:
        cpus, relations = len(topology.order_cpus()), topology.relations()
        grid = {"primitive": PRIMITIVES, "critical_section": (0, 100), "think_time": (0,)}
        threads = sorted({1, 2, cpus})
        if profile == "quick":
            grid |= {"primitive": ("atomic_add", "atomic_cas", "atomic_add_sharded", "mutex", "spin_ttas", "mcs")}
            relations = relations[:1] + relations[1:][-1:]
        elif profile == "full":
            grid |= {"critical_section": SECTIONS, "think_time": THINKS}
            threads = sorted(
                {n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512) if n < cpus} | {cpus}
            )
        return [{**grid, "threads": [n for n in threads if n <= cpus], "placement": [ALONE, *relations]}]

    def keep(self, p: Parameters, topology) -> bool:
        return (p["threads"] == 1) == (p["placement"] == ALONE)

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], p["threads"])
        return cpus and Placement(
            cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=OWN + PART * p["threads"]
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for threads, placement in dict.fromkeys((p["threads"], p["placement"]) for p in cases):
            for section in sorted({p["critical_section"] for p in cases}):
                at = {"critical_section": section, "think_time": 0, "threads": threads, "placement": placement}
                who = "One thread" if threads == 1 else f"{threads} threads on {RELATION_WORDS[placement]}"
                inside = "nothing inside" if section == 0 else f"{section} ns inside"
                found.append(
                    Answer(
                        kind="ratio",
                        metric="throughput",
                        where={**at, "primitive": "mutex"},
                        against={"primitive": "atomic_add"},
                        text=f"{who}, {inside}: a mutex does {{value}} the operations of an atomic add",
                    )
                )
                if threads > 1:
                    found.append(
                        Answer(
                            kind="ranking",
                            metric="throughput",
                            axis="primitive",
                            where=at,
                            text=f"{who}, {inside}, most operations first: {{ranking}}",
                        )
                    )
        return tuple(found)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        def multiplies(ns: float) -> int:
            return round(ns * 1e-9 / probes.multiply)

        return {"primitive": p["primitive"], "section": multiplies(p["critical_section"]), "think": multiplies(p["think_time"])}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        bins = [sum(column) for column in zip(*(t.histogram[:BINS] for t in found.threads), strict=True)]
        return {
            "throughput": found.throughput,
            "time_per_operation": found.time_per_operation,
            "fairness": found.fairness,
            "wait_p999": histogram_quantile(bins, 0.999),
            "wait_max": float(max(t.value[LONGEST_SLOT] for t in found.threads)),
        }

    def check(self, p: Parameters, found: Found) -> str:
        total = sum(t.check for t in found.threads)
        return "" if total == found.executed else f"the counter is {total}, not {found.executed}: updates were lost"

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        return {
            "section_ns": arguments["section"] * probes.multiply * 1e9,
            "think_ns": arguments["think"] * probes.multiply * 1e9,
        }


BENCHMARK = Contention()
