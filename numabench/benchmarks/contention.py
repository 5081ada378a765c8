"""Mutex or atomic, and what lies between: who is faster, from when on, and who starves?"""

from __future__ import annotations

from ..kernel import BINS, LONGEST_SLOT, histogram_quantile
from ..model import Answer, Axis, Contrast, View
from . import (
    ALONE,
    CROWDED,
    RELATION_WORDS,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    jain_index,
    memory_node,
    place_threads,
)

PRIMITIVES = (
    "atomic_add",
    "atomic_cas",
    "atomic_add_sharded",
    "atomic_add_per_node",
    RSEQ := "rseq_sharded",
    "biased",
    "mutex",
    "mutex_adaptive",
    "spin_ttas",
    "ticket",
    "mcs",
    "clh",
    "futex",
    "hbo",
    "cohort",
    "rwlock",
    "rw_spin",
    "seqlock",
    "rcu",
)
EXCLUSIVE = ("mutex", "mutex_adaptive", "spin_ttas", "ticket", "mcs", "clh", "futex", "hbo", "cohort")
FOR_READERS = ("rwlock", "rw_spin", "seqlock", "rcu")
LOCKS = (*EXCLUSIVE, *FOR_READERS)
#: What the profiles measure without reads: locks for readers are then a detour, and two of a kind tell no more.
USUAL = tuple(p for p in PRIMITIVES if p not in FOR_READERS)
READ_SHARES = (0, 50, 90, 99)
SLEEPING_AND_SPINNING = (
    "mutex",
    "mutex_adaptive",
    "spin_ttas",
    "ticket",
    "mcs",
)  # what tells who collapses without a CPU of its own
CROWDED_CPUS = (
    4  # of which two threads each are enough to see it: with more, a batch of a fair lock's hand-overs takes tens of seconds
)
CROWDED_STRETCH = 8.0  # windows of 200 ms hold some fifty time slices
CROSSED = (("mutex", "mcs"), ("mutex", "ticket"), ("spin_ttas", "mcs"))  # pairs of which the answer flips with the section
SECTIONS = (0, 40, 100, 400)  # ns; the uncontended mutex costs 5-10, a hop 10-130
THINKS = (0, 200)
OWN, PART, VERSIONS = 4096, 512, 4096  # layout of the measured buffer, as in kernels/contention.c
NOTES = 11 * 1024  # bytes of each thread's notes, at least
TORN_SLOT, FAIRNESS_SLOT, HANDOVER_SLOT = 6, 7, 11  # of `value`
FAIRNESS = ("fairness_1ms", "fairness_10ms", "fairness_100ms", "fairness_1s")


class Contention(Benchmark):
    name = kernel = "contention"
    rank = 2
    topic = "cores"
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
        Axis(
            name="read_share",
            summary="operations of a hundred that only read",
            values=READ_SHARES,
            unit="%",
            least=0,
            most=100,
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
            where={"think_time": 0, "read_share": 0},
        ),
        View(
            title="Throughput against atomic_add",
            metric="throughput",
            kind="bar",
            x="primitive",
            series="threads",
            facet="critical_section",
            where={"think_time": 0, "read_share": 0},
            ratio_to="atomic_add",
        ),
        View(
            title="Fairness (Jain index)",
            metric="fairness",
            kind="bar",
            x="primitive",
            series="critical_section",
            where={"threads": 2, "think_time": 0, "read_share": 0},
        ),
        View(
            title="Longest wait, 99.9th percentile",
            metric="wait_p999",
            kind="bar",
            x="primitive",
            series="critical_section",
            where={"threads": 2, "think_time": 0, "read_share": 0},
        ),
        View(
            title="Throughput by share of reads",
            metric="throughput",
            kind="line",
            x="read_share",
            series="primitive",
            facet="threads",
            where={"critical_section": 100, "think_time": 0},
        ),
        View(
            title="Time to hand a lock over",
            metric="handover",
            kind="bar",
            x="primitive",
            series="placement",
            where={"threads": 2, "think_time": 0, "read_share": 0, "critical_section": 100},
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
        usual, every = (tuple(p for p in some if p != RSEQ or "sse2" in topology.vectors) for some in (USUAL, PRIMITIVES))
        grid = {"primitive": usual, "critical_section": (0, 100), "think_time": (0,), "read_share": (0,)}
        threads = sorted({1, 2, cpus})
        if profile == "quick":
            grid |= {"primitive": ("atomic_add", "atomic_cas", "atomic_add_sharded", "mutex", "spin_ttas", "mcs")}
            relations = relations[:1] + relations[1:][-1:]
        elif profile == "full":
            grid |= {"primitive": every, "critical_section": SECTIONS, "think_time": THINKS}
            threads = sorted(
                {n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512) if n < cpus} | {cpus}
            )
        main = {**grid, "threads": [n for n in threads if n <= cpus], "placement": [ALONE, *relations]}
        if profile == "quick":
            return [main]
        together = {
            **main,
            "threads": [n for n in main["threads"] if n > 1][-1:] if profile == "standard" else main["threads"],
            "placement": relations,
        }
        mixes = {
            **together,
            "primitive": ("atomic_add", "mutex", *FOR_READERS),
            "critical_section": (100,),
            "read_share": READ_SHARES,
        }
        crossed = tuple(dict.fromkeys(name for pair in CROSSED for name in pair))
        crowd = {
            **grid,
            "primitive": SLEEPING_AND_SPINNING,
            "critical_section": (100,),
            "think_time": (0,),
            "threads": [2 * min(cpus, CROWDED_CPUS)],
            "placement": [CROWDED],
        }
        more = [crowd] if profile == "full" else []
        return [
            main,
            *more,
            mixes,
            {**main, "primitive": crossed, "critical_section": SECTIONS, "threads": [2], "placement": relations},
        ]

    def keep(self, p: Parameters, topology) -> bool:
        return (p["threads"] == 1) == (p["placement"] == ALONE)

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], p["threads"])
        return cpus and Placement(
            cpus=cpus,
            node=memory_node(topology, topology.node_of(cpus[0])),
            size=OWN + PART * max(p["threads"], max(topology.cpus) + 1) + VERSIONS,  # a part for each thread and for each CPU
            scratch=p["threads"] * NOTES,
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for threads, placement in dict.fromkeys((p["threads"], p["placement"]) for p in cases):
            who = "One thread" if threads == 1 else f"{threads} threads on {RELATION_WORDS[placement]}"
            at = {"think_time": 0, "threads": threads, "placement": placement}
            mine = [p for p in cases if p == {**p, **at}]
            if placement == CROWDED:
                sections = sorted({p["critical_section"] for p in mine})
                found += [self.ranked(who, {**at, "critical_section": section, "read_share": 0}) for section in sections]
                continue
            for section in sorted(
                {p["critical_section"] for p in mine if p["primitive"] == "atomic_add" and not p["read_share"]}
            ):
                found += self.at_section(who, {**at, "critical_section": section, "read_share": 0})
            mixes = dict.fromkeys(
                (p["critical_section"], p["read_share"]) for p in mine if p["primitive"] == "rwlock" and p["read_share"]
            )
            found += [self.at_reads(who, {**at, "critical_section": section, "read_share": share}) for section, share in mixes]
            found += [
                Answer(
                    kind="crossover",
                    metric="throughput",
                    axis="critical_section",
                    where={**at, "read_share": 0, "primitive": first},
                    against={"primitive": second},
                    text=f"{who}: {{value}}.",
                )
                for first, second in CROSSED
                if all(
                    len({p["critical_section"] for p in mine if p["primitive"] == name and not p["read_share"]}) > 2
                    for name in (first, second)
                )
            ]
        counts: dict[tuple, set] = {}
        for p in cases:
            if p["primitive"] == "atomic_add" and p["threads"] > 1 and not p["read_share"] and not p["think_time"]:
                counts.setdefault((p["placement"], p["critical_section"]), set()).add(p["threads"])
        for placement, section in (point for point, threads in counts.items() if len(threads) > 2):
            where = {
                "critical_section": section,
                "think_time": 0,
                "placement": placement,
                "read_share": 0,
                "primitive": "atomic_add",
            }
            text = f"On {RELATION_WORDS[placement]}, {section} ns inside, by threads: {{value}}."
            shared = {"kind": "crossover", "metric": "throughput", "axis": "threads", "where": where, "text": text}
            found += [Answer(**shared, against={"primitive": lock}, headline=lock == "mcs") for lock in ("mutex", "mcs")]
        return tuple(found)

    def at_section(self, who: str, at: Parameters) -> list[Answer]:
        """One section: a mutex against an atomic add, and all in order."""
        ratio = Answer(
            kind="ratio",
            metric="throughput",
            where={**at, "primitive": "mutex"},
            against={"primitive": "atomic_add"},
            text=f"{who}, {inside(at)}: a mutex does {{value}} the operations of an atomic add",
        )
        return [ratio] if at["threads"] == 1 else [ratio, self.ranked(who, at)]

    def ranked(self, who: str, at: Parameters) -> Answer:
        text = f"{who}, {inside(at)}, most operations first: {{ranking}}"
        return Answer(kind="ranking", metric="throughput", axis="primitive", where=at, text=text)

    def at_reads(self, who: str, at: Parameters) -> Answer:
        what = f"{at['read_share']} % reads, {at['critical_section']} ns inside"
        return Answer(
            kind="ranking",
            metric="throughput",
            axis="primitive",
            where=at,
            headline=at["read_share"] == 90,
            text=f"{who}, {what}, most operations first: {{ranking}}",
        )

    def stretch(self, p: Parameters) -> float:
        return CROWDED_STRETCH if p["placement"] == CROWDED else 1.0

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        def multiplies(ns: float) -> int:
            return round(ns * 1e-9 / probes.multiply)

        return {
            "primitive": p["primitive"],
            "section": multiplies(p["critical_section"]),
            "think": multiplies(p["think_time"]),
            "reads": p.get("read_share", 0),
        }

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        bins = [sum(column) for column in zip(*(t.histogram[:BINS] for t in found.threads), strict=True)]
        values = found.threads[0].value
        sometimes = {name: values[FAIRNESS_SLOT + k] / 1e6 for k, name in enumerate(FAIRNESS)} | {
            "handover": 0.0 if p.get("read_share") else float(values[HANDOVER_SLOT])  # readers between two writers stamp nothing
        }
        if len(nodes := by_node(found)) > 1:
            sometimes["fairness_nodes"] = jain_index(nodes)
        return {
            "throughput": found.throughput,
            "time_per_operation": found.time_per_operation,
            "fairness": found.fairness,
            **{name: value for name, value in sometimes.items() if value and len(found.threads) > 1},
            "wait_p999": histogram_quantile(bins, 0.999),
            "wait_max": float(max(t.value[LONGEST_SLOT] for t in found.threads)),
        }

    def check(self, p: Parameters, found: Found) -> str:
        total, written = found.threads[0].check, sum(t.cursor for t in found.threads)
        if total != written or (not p.get("read_share") and written != found.executed):
            return f"the counter is {total} after {written} updates in {found.executed} operations: updates were lost"
        torn = sum(t.value[TORN_SLOT] for t in found.threads)
        return f"{torn} reads saw a torn state" if torn and p["primitive"] in LOCKS else ""

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        return {
            "section_ns": arguments["section"] * probes.multiply * 1e9,
            "think_ns": arguments["think"] * probes.multiply * 1e9,
        }


def inside(at: Parameters) -> str:
    return f"{at['critical_section']} ns inside" if at["critical_section"] else "nothing inside"


def by_node(found: Found) -> list[float]:
    """Mean rate of a thread on each node in use."""
    rates: dict[int, list[float]] = {}
    for thread, rate in zip(found.threads, found.rates, strict=True):
        rates.setdefault(thread.group, []).append(rate)
    return [sum(each) / len(each) for each in rates.values()]


BENCHMARK = Contention()
