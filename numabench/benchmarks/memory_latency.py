"""How far is memory: the latency of dependent loads by working set, order and page size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec

from ..crossing import crossing
from ..host.pages import BASE, HUGETLB, THP
from ..kernel import mean_batch, octave_shares
from ..model import Answer, Axis, Card, Contrast, Picture, Price, Tile, View
from ..units import format_bytes
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node

KIB, MIB = 1 << 10, 1 << 20
#: Bytes within which lines are shuffled.
ORDERS = {"group": 256 * KIB, "random": 1 << 62, "page": 4 * KIB, "sequential": 0, "adjacent": 256 * KIB}
BY_CLASS = ("group", "random")  # lines that may come along with each other are visited with all others between them
ADJACENT = "adjacent"  # as `group`, but with neighbours in one group
PAGE_SIZES = (BASE, THP, *HUGETLB)
MOST_CHAINS, SPREAD = 64, 0x68DFFCC6  # as in kernels/memory_latency.c and kernels/nb_chase.h
VISITED_SLOT, LOADS_SLOT, FAST_SLOT, STEP_PS_SLOT = 10, 11, 12, 13  # of `value` (kernels/nb_chase.h, kernels/nb_single.h)
UNDER_HALF = "under_half"  # share of single loads that took less than half of the sample's latency
MOST_UNDER_HALF = 0.02  # of a sample that is called memory
SINGLES_SECONDS = 0.003  # of a sample, for the loads that are timed by themselves
SMALLEST = 2 * KIB
CACHES_TIMES = 4  # DRAM is measured on at least four times the last-level caches in use: 20 % of hits are left at twice
UNKNOWN_CACHES = 64 * MIB  # where the firmware names none
MAIN = {"order": "group", "page_size": "thp", "chains": 1, "laps": 1}  # the curve by size that answers come from
MOST_LAPS = 4  # a line has room for as many pointers, each beside its number
KNEE = 1.15  # times the latency of the next smaller size: the curve rises there; and the step in size that is fine enough
LEVEL_NOISE = 1.1  # what a nearer level may be slower by in one process: a shared cache that neighbours hold is as far as memory
BEYOND_L2 = 3  # times L2: a set of L3, of which L2 serves next to nothing
LEAST_L1_CYCLES = 3.0  # no load-to-use latency of a current core is shorter


def memory_size(topology, *groups: Iterable[int]) -> int:
    """Bytes of a working set that the caches of none of these groups of CPUs (no group: of all CPUs together) hold: four to eight times a power of two. To touch and to chain it
    is most of what a process of memory takes, so that it is no larger than it must be."""
    least = CACHES_TIMES * max(
        (topology.llc_bytes_total(cpus) or UNKNOWN_CACHES for cpus in groups or [topology.cpus]), default=0
    )
    step = 1 << max((least - 1).bit_length() - 3, 0)
    return -(-least // step) * step


def chain_scratch(size: int) -> int:
    """Bytes that building a chain needs beside it: a number per line, and room for where 64 chases stand."""
    return max(size // 16, 1024)


def same_latency(where: Parameters, text: str) -> Answer:
    """Asks whether memory_latency found the same for a working set of this size in memory."""
    shared = {name: where[name] for name in ("size", "page_size")}
    against = {"benchmark": "memory_latency", "metric": "latency", "order": "group", "chains": 1, "laps": 1, **shared}
    return Answer(kind="agreement", metric="latency", where=where, against=against, tolerance=0.0, headline=False, text=text)


def under_half(thread) -> dict[str, float]:
    """The share of a thread's single loads that took under half of the mean, and how many there were; nothing where the counter is too coarse to tell."""
    loads = thread.value[LOADS_SLOT]
    return {UNDER_HALF: thread.value[FAST_SLOT] / loads, "single_loads": float(loads)} if loads else {}


class Chase(Benchmark):
    """What every pointer chase shares."""

    kernel = "memory_latency"
    reports = ("latency", "cycles")
    seconds = SINGLES_SECONDS
    method = {
        "chain": "one cycle, one pointer per line at a varying word",
        "lines": "by residue class of 256 bytes or 4 lines",
        "loads": "64 register-indirect in a row",
        "warm": "walked once, at most 2^18 lines",
        "sample": "mean of batches of about 10 us, 1 % trimmed at either end",
    }

    def place(self, p: Parameters, topology) -> Placement:
        cpu = topology.order_cpus()[0]
        return Placement(
            cpus=(cpu,),
            node=memory_node(topology, topology.node_of(cpu)),
            size=p["size"],
            scratch=chain_scratch(p["size"]),
            page_size=p["page_size"],
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        order, neighbours = p["order"], "apart" if p["order"] in BY_CLASS else "together"
        return {"group_bytes": ORDERS[order], "neighbours": neighbours, "chains": p.get("chains", 1), "laps": p.get("laps", 1)}

    def seed_argument(self, seed: int) -> dict[str, int]:
        return {"seed": seed}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        ns = mean_batch(found.threads[0])
        return {"latency": ns, "cycles": ns * 1e-9 * probes.frequency}

    def lines(self, p: Parameters, visited: int) -> int:
        """In the cycle, where a line that is visited has so many bytes."""
        return p["size"] // visited * p.get("laps", 1)

    def check(self, p: Parameters, found: Found) -> str:
        """The only chase has made all steps; several, which began at places of their own, together those they count."""
        thread, chains = found.threads[0], p.get("chains", 1)
        lines = self.lines(p, thread.value[VISITED_SLOT])
        if chains == 1:
            steps, at = thread.executed, thread.check
        else:
            steps, at = thread.cursor, thread.check - sum((k * SPREAD % 2**32) * lines >> 32 for k in range(chains))
        if (at - steps) % lines == 0 and steps >= thread.operations:
            return ""
        where = "the chase stands at" if chains == 1 else f"the places of {chains} chases add up to"
        return f"after {steps} loads {where} {at % lines}, not {steps % lines}"

    def physics(self, p: Parameters, metrics: dict[str, float]) -> str:
        cycles = metrics["cycles"]
        return f"a load took {cycles:.2f} cycles; none takes less than {LEAST_L1_CYCLES:g}" if cycles < LEAST_L1_CYCLES else ""

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        """Of the single loads: how many took under half of the mean, how many began in each octave of ns, and the step of the counter in ns;
        nothing where it is too coarse."""
        thread = found.threads[0]
        share = under_half(thread)
        return share and {
            **share,
            "counter_step_ns": thread.value[STEP_PS_SLOT] / 1000,
            **{f"from_{ns}_ns": share for ns, share in octave_shares(thread.histogram).items()},
        }

    def in_memory(self, p: Parameters, topology) -> bool:
        """Whether a case is called memory: no cache of its CPU holds its set, and what comes along with a line is no use."""
        where = self.place(p, topology)
        return p["order"] in BY_CLASS and where is not None and where.size >= memory_size(topology, where.cpus)

    def unproven(self, p: Parameters, extra: dict[str, float], topology) -> str:
        """`cached`: a part of the loads of a sample that is called memory did not come from there."""
        return "cached" if extra.get(UNDER_HALF, 0.0) > MOST_UNDER_HALF and self.in_memory(p, topology) else ""


class MemoryLatency(Chase):
    name = "memory_latency"
    rank = 3
    topic = "memory"
    title = "Memory latency by working set"
    question = "How long does a load take that must wait for the one before, from the first cache to memory?"
    expected = (
        "Plateaus at the latency of each cache level, with steps at their capacities. Order `group` stays within 256 KiB at a "
        "time and shows memory without address translation; `random` adds translation; `adjacent`, `page` and `sequential` let prefetchers help."
    )
    axes = (
        Axis(name="size", summary="working set", values=(), unit="B", log=True, least=1 * KIB, step=256),
        Axis(
            name="order",
            summary="lines are shuffled within: group 256 KiB, random everything, page 4 KiB, sequential not at all; adjacent: group with neighbours soon after each other",
            values=tuple(ORDERS),
        ),
        Axis(
            name="page_size",
            summary="4k: the system's base pages, whatever their size; transparent huge pages, or reserved ones of 64 KiB, 2 MiB, 1 GiB",
            values=PAGE_SIZES,
        ),
        Axis(
            name="chains",
            summary="independent chases at the same time",
            values=(1, 2, 4, 8, 16, 32, 64),
            least=1,
            most=MOST_CHAINS,
        ),
        Axis(
            name="laps",
            summary="rounds through all lines, each in another order, before an order comes again",
            values=(1, 4),
            least=1,
            most=4,
        ),
    )
    contrasts = (Contrast(axis="laps", control=1, metric="latency"),)
    refined = "latency"
    views = (
        View(
            title="Latency by working set (huge pages)",
            metric="latency",
            kind="line",
            x="size",
            series="order",
            where={"page_size": "thp"},
        ),
        View(
            title="Latency by working set (4 KiB pages)",
            metric="latency",
            kind="line",
            x="size",
            series="order",
            where={"page_size": "4k"},
        ),
        View(title="Cycles by working set", metric="cycles", kind="line", x="size", series="order", where={"page_size": "thp"}),
    )
    notes = (
        "Latency in `group` order is the headline: `random` includes the translation of addresses, `sequential` is what a prefetcher leaves of it.",
        "A virtual machine's huge pages may be splintered by the host: the page size obtained is recorded, the host's is not visible.",
        "Capacities that the firmware claims need not be yours: neighbours share the last-level cache.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        largest = memory_size(topology, topology.order_cpus()[:1])
        octaves = [*(1 << k for k in range(SMALLEST.bit_length() - 1, (largest - 1).bit_length())), largest]
        one = {"chains": (1,), "laps": (1,)}  # memory_parallelism sweeps the chains
        if profile == "quick":
            beyond = BEYOND_L2 * own_caches(topology).get(2, largest)  # no octave need be in L3 and beyond L2
            return [
                {
                    **one,
                    "size": sorted({*octaves[::-2], *([beyond] if beyond < largest else [])}),
                    "order": ("group",),
                    "page_size": ("thp",),
                },
                {**one, "size": octaves[-1:], "order": ("random",), "page_size": ("thp",)},
            ]
        if profile == "full":
            every = {**one, "size": sizes_per_octave(octaves, 4), "order": tuple(ORDERS), "page_size": PAGE_SIZES}
            return [every, {**one, "size": octaves, "order": ("group",), "page_size": ("thp",), "laps": (MOST_LAPS,)}]
        some = octaves[::-3][::-1]
        others = [
            {**one, "size": sizes, "order": orders, "page_size": (page,)}
            for sizes, orders, page in (
                (some, ("random", "sequential"), "thp"),
                (some[:-1], ("page",), "thp"),  # in memory as sequential
                (octaves[-1:], (ADJACENT,), "thp"),
                (some, ("group", "random"), "4k"),
            )
        ]
        held = [size for size in octaves if size <= largest // CACHES_TIMES]  # beyond the caches there are few steps to find
        main = {**one, "size": sorted({*sizes_per_octave(held, 2), *octaves}), "order": ("group",), "page_size": ("thp",)}
        return [main, *others]

    def acceptance(self, topology) -> list[Sweep]:
        return self.sweep(topology, "quick")

    def group(self, p: Parameters) -> tuple:
        """The main curve is one group: its levels are held against each other within a process, and so is what neighbours make of memory."""
        main = p["order"] in ("group", ADJACENT) and p["page_size"] == "thp"
        return ("group", p["page_size"]) if main else (p["order"], p["page_size"], p["size"])

    def contradictions(self, found: list[tuple[Parameters, dict[str, float]]], topology) -> list[tuple[Parameters, str]]:
        """L1 < L2 < L3 < memory, each by the largest set of the main curve that is certainly within it."""
        main = {p["size"]: (p, metrics["latency"]) for p, metrics in found if p == {**p, **MAIN}}
        levels = [(name, size) for name, size, _ in level_sets(list(main), topology)]
        if main and max(main) >= memory_size(topology, topology.order_cpus()[:1]):
            levels.append(("memory", max(main)))
        wrong = []
        for (near, small), (far, large) in itertools.pairwise(levels):
            (p, less), (q, more) = main[small], main[large]
            if less > LEVEL_NOISE * more:
                said = f"{near} ({format_bytes(small)}) took {less:.2f} ns, {far} ({format_bytes(large)}) {more:.2f} ns: no nearer level is slower"
                wrong += [(p, said), (q, said)]
        return wrong

    def refine(self, found: list[tuple[Parameters, float]], topology) -> list[Parameters]:
        """A size halfway between every two neighbours of the main curve between which it rises, until they are as near as that."""
        curve = [(p, ns) for p, ns in found if p == {**p, **MAIN}]
        curve.sort(key=lambda point: point[0]["size"])
        points = []
        for (p, low), (q, high) in itertools.pairwise(curve):
            middle = int((p["size"] * q["size"]) ** 0.5) // 256 * 256
            if high > KNEE * low and q["size"] > KNEE * p["size"] and p["size"] < middle < q["size"]:
                points.append({**p, "size": middle})
        return points

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        sizes = sorted({p["size"] for p in cases if p["order"] == "group" and p["page_size"] == "thp"})
        levels = level_sets(sizes, topology)
        found = [
            self.level(f"within {format_bytes(size)} ({name} of {format_bytes(capacity)} by the firmware)", size)
            for name, size, capacity in levels
        ]
        found += capacities(levels, sizes)
        memory = memory_size(topology, topology.order_cpus()[:1])
        told = {size for _, size, _ in levels}
        if sizes and sizes[-1] not in told:
            largest = sizes[-1]
            where = "memory" if largest >= memory else f"memory and caches: only {format_bytes(memory)} are beyond them"
            found.append(self.level(f"within {format_bytes(largest)} ({where})", largest))
            if any(p["order"] == "random" and p["page_size"] == "thp" and p["size"] == largest for p in cases):
                where = f"within {format_bytes(largest)} in random order ({where}, and address translation)"
                found.append(self.level(where, largest, "random"))
        found += [
            Answer(
                kind="saving",
                metric="latency",
                where=p,
                against={"order": "group"},
                headline=False,
                text=f"Neighbouring lines come along: {{value}} of a load's time is saved in {format_bytes(p['size'])} where they are visited soon after each other",
            )
            for p in cases
            if p["order"] == ADJACENT and {**p, "order": "group"} in cases
        ]
        found += [
            Answer(
                kind="ratio",
                metric="latency",
                where=p,
                against={"laps": 1},
                headline=False,
                text=f"In {format_bytes(p['size'])}, {p['laps']} laps of different order take {{value}} as long as one order over and over, "
                "which a prefetcher may remember",
            )
            for p in cases
            if p["laps"] > 1
        ]
        return tuple(found)

    def level(self, where: str, size: int, order: str = "group") -> Answer:
        return self.cell(f"A dependent load {where} takes {{value}}", size, order)

    def cell(self, text: str, size: int, order: str = "group") -> Answer:
        where = {"size": size, "order": order, "page_size": "thp", "laps": 1}
        return Answer(kind="cell", metric="latency", where=where, text=text)

    def card(self, topology, cases: list[Parameters]) -> Card:
        sizes = sorted({p["size"] for p in cases if p["order"] == "group" and p["page_size"] == "thp"})
        levels = level_sets(sizes, topology)
        prices = [Price(answer=self.cell(f"{name} hit", size), rank=10) for name, size, _ in levels]
        tiles = []
        if sizes and sizes[-1] >= memory_size(topology, topology.order_cpus()[:1]):
            prices += [Price(answer=memory_price(self.cell("", sizes[-1]).where, topology), rank=12)]
            prices += [Price(answer=self.cell("memory in random order", sizes[-1], "random"), rank=45)]
            tiles = [memory_tile(self.cell("", sizes[-1]).where, topology, rank=41)]
        ends = {capacity.where["size"]: capacity for capacity in capacities(levels, sizes)}
        marks = [msgspec.structs.replace(ends[size], text=f"{name} {{value}}") for name, size, _ in levels if size in ends]
        pictures = []
        if levels and levels[-1][1] in ends:
            name, size, declared = levels[-1]
            finding = msgspec.structs.replace(
                ends[size], text=f"{name} gives {{value}} of its {format_bytes(declared)} ({{interval}})"
            )
            view = msgspec.structs.replace(self.views[0], where=MAIN)
            pictures = [Picture(view=view, finding=finding, rank=30, marks=tuple(marks))]
        return Card(prices=tuple(prices), tiles=tuple(tiles), pictures=tuple(pictures))


def capacities(levels: list[tuple[str, int, int]], sizes: list[int]) -> list[Answer]:
    """Of each level whose end lies among the sizes: how much it holds in effect."""
    found = []
    for (name, size, capacity), following in zip(levels, [*(size for _, size, _ in levels[1:]), *sizes[-1:]], strict=False):
        if len([s for s in sizes if size <= s <= following]) > 2:
            found.append(
                Answer(
                    kind="capacity",
                    metric="latency",
                    axis="size",
                    where={"size": size, "order": "group", "page_size": "thp", "laps": 1},
                    against={"size": following},
                    headline=False,
                    text=f"{name}, {format_bytes(capacity)} by the firmware, holds up to {{value}} in effect",
                )
            )
    return found


def memory_price(where: Parameters, topology, before: str = "") -> Answer:
    """A load from the nearest memory, called the same by any benchmark of dependent loads that measures it."""
    home = topology.node_of(topology.order_cpus()[0])
    own = "" if len(topology.nodes) < 2 else ", own node" if home in topology.memory_nodes() else ", nearest node"
    return Answer(kind="cell", metric="latency", where=where, text=f"{before}memory{own}")


def memory_tile(where: Parameters, topology, rank: int, notes: tuple[Answer, ...] = ()) -> Tile:
    return Tile(subject="memory", answer=memory_price(where, topology, "a load from "), rank=rank, notes=notes)


def level_sets(sizes: Iterable[int], topology) -> list[tuple[str, int, int]]:
    """(level, the largest of the sizes that is certainly within it and of which the level before serves little, its bytes by the firmware), nearest first."""
    found, caches = [], own_caches(topology)
    for level, capacity in sorted(caches.items()):
        least, most = 0, capacity // 2
        if level == 3:  # neighbours can leave a small part of a shared cache: as little as L2 does not hold
            least, most = 2 * caches.get(2, 0), min(most, BEYOND_L2 * caches[2] if 2 in caches else capacity // 8)
        share = max((s for s in sizes if least <= s <= most), default=None)
        if share and level <= 3:
            found.append((f"L{level}", share, capacity))
    return found


def effective_cache(found: list[tuple[Parameters, float]], topology) -> float | None:
    """Bytes that the last-level cache of the first CPU really holds, by the main curve of latencies; None where it does not show."""
    curve = sorted((p["size"], ns) for p, ns in found if p == {**p, **MAIN})
    levels = {level: size for level, size, _ in level_sets([size for size, _ in curve], topology)}
    if "L3" not in levels or curve[-1][0] < memory_size(topology, topology.order_cpus()[:1]):
        return None
    step = crossing([point for point in curve if point[0] >= levels["L3"]])
    return step.at if step else None


def own_caches(topology) -> dict[int, int]:
    """Level -> bytes of the smallest data cache of that level that the first CPU has."""
    cpu, sizes = topology.order_cpus()[0], {}
    for cache in topology.caches:
        if cache.holds_data and cache.size_bytes and cpu in cache.cpus:
            sizes[cache.level] = min(cache.size_bytes, sizes.get(cache.level, cache.size_bytes))
    return sizes


def sizes_per_octave(octaves: list[int], points: int) -> list[int]:
    """`points` sizes per octave, multiples of 64 lines' bytes where that matters, without the last octave's upper part."""
    between = {int(low * 2 ** (k / points)) // 256 * 256 for low in octaves[:-1] for k in range(points)}
    return sorted(between | {octaves[-1]})


BENCHMARK = MemoryLatency()
