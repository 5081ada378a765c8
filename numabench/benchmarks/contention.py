"""Mutex or atomic, and what lies between: who is faster, from when on, and who starves?"""

from __future__ import annotations

import math

from ..host.pages import base_page
from ..kernel import LONGEST_SLOT, add_histograms, histogram_quantile
from ..model import Answer, Axis, Card, Contrast, Price, Tile, View
from . import (
    ALONE,
    CROWDED,
    LINES_SHARED,
    RELATION_NAMES,
    RELATION_WORDS,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    jain_index,
    memory_node,
    nearest_cores_first,
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
    "spin_backoff",
    "ticket",
    "mcs",
    "clh",
    "qspinlock",
    "futex",
    "word_lock",
    "hbo",
    "cohort",
    "cna",
    "rwlock",
    "rw_spin",
    "seqlock",
    "rcu",
)
EXCLUSIVE = PRIMITIVES[PRIMITIVES.index("mutex") : PRIMITIVES.index("rwlock")]
OF_NODES = ("atomic_add_per_node", "hbo", "cohort")  # whose records are nodes' and not threads'
FOR_READERS = ("rwlock", "rw_spin", "seqlock", "rcu")
LOCKS = (*EXCLUSIVE, *FOR_READERS)
#: What the profiles measure without reads: locks for readers are then a detour, and two of a kind tell no more.
USUAL = tuple(p for p in PRIMITIVES if p not in FOR_READERS)
READ_SHARES = (0, 50, 90, 99)
SLEEPING_AND_SPINNING = (
    "mutex",
    "mutex_adaptive",
    "word_lock",
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
HOME = 22  # parts, which are pages, of the measured memory that all share, before those of threads, nodes or CPUs (kernels/nb_protected.h)
NOTES = 11 * 1024  # bytes of each thread's notes, at least
TORN_SLOT, FAIRNESS_SLOT, HANDOVER_SLOT = 6, 7, 11  # of `value`
STAMPS_SLOT, CLOCK_SLOT, STAMPED_SLOT, WINDOW_SLOT = 12, 13, 14, 15
UNSTEADY_SLOT = 1
CLOCKS_SHARE = (
    2 / 32
)  # of the time that stamps may take: a thirty-second of each thread's, and of the lock's (kernels/contention.c)
STANDARD_ERRORS = 2  # by which two windows of the same load may differ besides
CROWD = 64  # threads from which on windows grow with them: at 100 ns each, every thread has its turn some 2,000 times in 15 ms
UNKNOWN_HOP = 50e-9  # s, where there is no second CPU to measure one
LEAST_STAMPS = 1000  # of which a 99.9th percentile can be told
FAIRNESS = ("fairness_1ms", "fairness_10ms", "fairness_100ms", "fairness_1s")


class Contention(Benchmark):
    name = kernel = "contention"
    rank = 2
    batches = LINES_SHARED
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
    method = {
        "window": "between two common times, then a quarter of it with few operations stamped",
        "delay": "dependent multiplies calibrated in place",
        "memory": "what all share on the first thread's node, records on the node of their thread, node or CPU",
    }
    notes = (
        "Atomic updates do the section's work unprotected and in parallel, as code without a lock does.",
        "atomic_add_sharded gives every thread a counter of its own, atomic_add_per_node one to each NUMA node; the sum is taken once at the end.",
        "Work inside and between is dependent multiplies, calibrated on the pinned CPU before each case; section_ns and think_ns "
        "of each sample in the run log are what was achieved.",
        "Waits come from a second window in which so few operations are stamped that the clock takes 3 % at most; throughput comes from "
        "the first, which has no stamps. stamped_ratio of each sample in the run log holds the two against each other; where they differ by more than the clock's share and twice "
        "their noise, waits are left out: they would be those of another load.",
        "Throughput counts what all threads did between two common times: a thread that gets nowhere has done nothing, which is a result.",
    )
    judges_gaps = False  # a sleeping waiter is what a mutex does
    most = dict.fromkeys(("fairness", *(f"fairness_{each}" for each in ("1ms", "10ms", "100ms", "1s", "nodes"))), 1.0)
    judges_overlap = False  # all are counted between the same two times
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
            alone = {**main, "primitive": ("atomic_add", "mutex"), "placement": [ALONE]}
            return [{**main, "placement": relations}, alone]
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

    def acceptance(self, topology) -> list[Sweep]:
        """One section, by two threads and by all CPUs, where the machine has such a place."""
        together, _ = self.sweep(topology, "quick")
        return [
            {**together, "critical_section": (100,), "placement": [relation], "threads": [threads]}
            for relation in together["placement"]
            for threads in together["threads"]
            if threads > 1 and place_threads(topology, relation, threads)
        ]

    def keep(self, p: Parameters, topology) -> bool:
        return (p["threads"] == 1) == (p["placement"] == ALONE)

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], p["threads"])
        if not cpus:
            return None
        home = memory_node(topology, topology.node_of(cpus[0]))
        owners = [memory_node(topology, node) for node in self.owners(p["primitive"], cpus, topology)]
        nodes = (*[home] * HOME, *(home if node is None else node for node in owners))
        return Placement(
            cpus=cpus,
            node=home,
            size=base_page() * len(nodes),
            parts=nodes if len(set(nodes)) > 1 else (),
            scratch=p["threads"] * NOTES,
        )

    def owners(self, primitive: str, cpus: tuple[int, ...], topology) -> list[int | None]:
        """The node of each record: a node's (in the order of the threads' groups), a CPU's by its number, or a thread's."""
        if primitive == RSEQ:
            return [topology.node_of(cpu) if cpu in topology.cpus else None for cpu in range(max(topology.cpus) + 1)]
        nodes = [topology.node_of(cpu) for cpu in cpus]
        return sorted({node for node in nodes if node is not None}) or [None] if primitive in OF_NODES else nodes

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

    def card(self, topology, cases: list[Parameters]) -> Card:
        """An atomic add against a mutex with nothing inside: alone, and between two threads by relation."""
        prices, tiles = [], []
        plain = [p for p in cases if not p["critical_section"] and not p["think_time"] and not p["read_share"]]
        plain.sort(key=lambda p: nearest_cores_first(str(p["placement"])))
        for p in (p for p in plain if p["primitive"] == "mutex" and p["threads"] <= 2):
            alone = p["threads"] == 1
            near = "" if alone else RELATION_NAMES.get(str(p["placement"]), str(p["placement"]))
            text = "mutex lock and unlock, alone" if alone else f"mutex, 2 threads fight, {near}"
            prices.append(Price(answer=self.each(p, "mutex", text), rank=30 if alone else 31 + len(prices)))
            if not alone:
                tiles.append(
                    Tile(
                        subject="mutex or atomic",
                        answer=Answer(
                            kind="ratio",
                            metric="throughput",
                            where={**p, "primitive": "atomic_add"},
                            against={"primitive": "mutex"},
                            text=f"as many operations by atomic add as by mutex, 2 threads ({near})",
                        ),
                        rank=30 + len(tiles),
                        notes=tuple(
                            self.each(p, primitive, f"{word} {{value}}")
                            for primitive, word in (
                                ("atomic_add_sharded", "each: sharded"),
                                ("atomic_add", "atomic"),
                                ("mutex", "mutex"),
                            )
                        ),
                    )
                )
        return Card(prices=tuple(prices), tiles=tuple(tiles))

    def each(self, p: Parameters, primitive: str, text: str) -> Answer:
        """What one operation takes its thread."""
        return Answer(kind="cell", metric="time_per_operation", where={**p, "primitive": primitive}, text=text)

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
        return CROWDED_STRETCH if p["placement"] == CROWDED else max(1.0, p["threads"] / CROWD)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        def multiplies(ns: float) -> int:
            return round(ns * 1e-9 / probes.multiply)

        return {
            "primitive": p["primitive"],
            "section": multiplies(p["critical_section"]),
            "think": multiplies(p["think_time"]),
            "reads": p.get("read_share", 0),
            "hop": max(1, multiplies((probes.hop or UNKNOWN_HOP) * 1e9)),
            "price": max(1, round(probes.multiply * 1e12)),
            "part": base_page(),
        }

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        threads, rates = found.threads, common_rates(found)
        if not sum(rates):
            return {"throughput": 0.0}
        bins = add_histograms(threads)
        values = threads[0].value
        sometimes = {name: values[FAIRNESS_SLOT + k] / 1e6 for k, name in enumerate(FAIRNESS)} | {
            "handover": 0.0 if p.get("read_share") else float(values[HANDOVER_SLOT])  # readers between two writers stamp nothing
        }
        if len(nodes := by_node(found)) > 1:
            sometimes["fairness_nodes"] = jain_index(nodes)
        if len(threads) == 1:
            sometimes = {}
        if (noise := stamped_noise(found)) and abs(math.log(stamped_ratio(found))) > CLOCKS_SHARE + STANDARD_ERRORS * noise:
            sometimes.pop("handover", None)  # the waits of another load
        else:
            sometimes["wait_max"] = float(max(t.value[LONGEST_SLOT] for t in threads))
            if sum(t.value[STAMPS_SLOT] for t in threads) >= LEAST_STAMPS:
                sometimes["wait_p999"] = histogram_quantile(bins, 0.999)
        return {
            "throughput": sum(rates),
            "time_per_operation": len(threads) / sum(rates) * 1e9,
            "fairness": jain_index(rates),
            **{name: value for name, value in sometimes.items() if value},
        }

    def check(self, p: Parameters, found: Found) -> str:
        total, written = found.threads[0].check, sum(t.cursor for t in found.threads)
        if total != written or (not p.get("read_share") and written != found.executed):
            return f"the counter is {total} after {written} updates in {found.executed} operations: updates were lost"
        torn = sum(t.value[TORN_SLOT] for t in found.threads)
        return f"{torn} reads saw a torn state" if torn and p["primitive"] in LOCKS else ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """`away`: nobody ended an operation within the window, which says nothing of the lock."""
        return [] if any(t.operations for t in found.threads) else ["away"]

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        """What was achieved. `stamped_ratio`: operations a second of the stamped window to those of the plain one; `stamped_noise`: by how much two such windows
        differ anyway (standard deviation)."""
        section = arguments["section"] * probes.multiply * 1e9
        readings = 2 if arguments["primitive"] in LOCKS else 1  # of the clock, inside
        return {
            "section_ns": section,
            "think_ns": arguments["think"] * probes.multiply * 1e9,
            "hop_ns": arguments["hop"] * probes.multiply * 1e9,
            "stamped_section_ns": max(section, readings * max(t.value[CLOCK_SLOT] for t in found.threads)),
            "stamped_ratio": stamped_ratio(found),
            "stamped_noise": stamped_noise(found),
            "stamps": float(sum(t.value[STAMPS_SLOT] for t in found.threads)),
        }


def inside(at: Parameters) -> str:
    return f"{at['critical_section']} ns inside" if at["critical_section"] else "nothing inside"


def common_rates(found: Found) -> list[float]:
    """Operations per second of each thread between the two times that all share."""
    return [t.operations / t.value[WINDOW_SLOT] * 1e9 for t in found.threads]


def stamped_ratio(found: Found) -> float:
    """Operations a second of the stamped window to those of the plain one; 1 where nobody did anything in that."""
    stamped = sum(1e12 / t.value[STAMPED_SLOT] for t in found.threads)
    return stamped / (sum(common_rates(found)) or stamped)


def stamped_noise(found: Found) -> float:
    """Standard deviation of that ratio where stamps change nothing, by how much the plain window's ms differ from each other: the stamped one has a quarter of them.
    0 of windows too short to tell."""
    first = found.threads[0].value
    ms = first[WINDOW_SLOT] / 1e6
    return math.sqrt(first[UNSTEADY_SLOT] * 1e-9 * 5 / max(ms, 1))


def by_node(found: Found) -> list[float]:
    """Mean rate of a thread on each node in use."""
    rates: dict[int, list[float]] = {}
    for thread, rate in zip(found.threads, common_rates(found), strict=True):
        rates.setdefault(thread.group, []).append(rate)
    return [sum(each) / len(each) for each in rates.values()]


BENCHMARK = Contention()
