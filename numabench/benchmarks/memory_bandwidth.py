"""How many bytes per second do threads stream through caches and memory, and how many threads saturate it?"""

from __future__ import annotations

import struct
from array import array

from ..host.pages import base_page
from ..model import Answer, Axis, Card, Tile, View
from ..units import format_bytes
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node
from .memory_latency import PAGE_SIZES, effective_cache, memory_size

LINE = 64
SIZE_STEP = 4096  # of the axis
ALIASED = 4096  # as in kernels/memory_bandwidth.c: low address bits that a load and a store on its way must not share
#: Program bytes per line of each array, and what the memory moves for each of them: a store into a cache reads its line first.
BYTES = {"read": 1, "write": 1, "copy": 2, "triad": 3, "write_nt": 1, "copy_nt": 2, "triad_nt": 3}
BUS = {"read": 1.0, "write": 2.0, "copy": 1.5, "triad": 4 / 3, "write_nt": 1.0, "copy_nt": 1.0, "triad_nt": 1.0}
KERNELS = tuple(BYTES)
TEMPORAL = KERNELS[:4]
VECTORS = {"portable": 8, "sse2": 16, "avx2": 32, "avx512": 64, "neon": 16, "sve": 64}  # bytes of a vector, at most
NARROW = ("sse2", "neon")  # in memory often the faster ones: more loads a line leave prefetchers more time (18 for 16 GB/s)
VECTORS_PER_CYCLE = (
    4  # no current core loads and stores more (Zen 5 and Golden Cove: 3 loads or 2 loads and 2 stores of 32 bytes)
)
PERIOD, WORD, CHECKED_LINES = 2039, 0x9E3779B97F4A7C15, (64 << 20) // LINE  # as in kernels/memory_bandwidth.c
STEP_LINES = 8  # of NB_STREAM_STEP bytes
CLOCK_SLOT, CLOCK_BATCHES, CLOCK_STEPS = 6, 5, 1024  # of `value`, as in kernels/memory_bandwidth.c and nb_cycles.h
PACKED, SPREAD = "packed", "spread"
HUGE = 2 << 20
MUCH_LESS = 0.8  # of the declared cache: its half is then another measurement
MASK = (1 << 64) - 1


def part_bytes(size: int, threads: int) -> int:
    """Bytes of one thread: whole huge pages if that leaves any, else whole pages, of which two threads share none; less than a page in a
    small cache where pages are large."""
    each = size // threads
    unit = HUGE if each >= HUGE else base_page() if each >= base_page() else SIZE_STEP
    return size // threads // unit * unit


def cache_sizes(topology, threads: int, effective: float | None = None) -> list[int]:
    """For each level of cache the working set of `threads` threads that fills half of what they have of it; of L3 they have `effective`
    bytes each, by default all of it."""
    cpus, sizes = set(topology.order_cpus()[:threads]), {}
    for cache in topology.caches:
        if cache.holds_data and cache.size_bytes and cache.level <= 3 and cpus & set(cache.cpus):
            capacity = cache.size_bytes if cache.level < 3 or effective is None else min(cache.size_bytes, int(effective))
            sizes.setdefault(cache.level, []).append(capacity // 2)
    halves = {level: sum(each) // (SIZE_STEP * threads) * SIZE_STEP * threads for level, each in sizes.items()}
    return [half for level, half in halves.items() if half and (level < 3 or half > 2 * halves.get(2, 0))]


def thread_counts(cpus: int, topology, every: bool) -> list[int]:
    """1, all cores and all CPUs; `every` power of two between."""
    cores = len({core for core in topology.cores if set(core) & set(topology.allowed_cpus)}) or cpus
    counts = {1, cores, cpus} | ({1 << k for k in range(cpus.bit_length())} if every else set())
    return sorted(n for n in counts if n <= cpus)


def filled(topology, threads: int, filling: str) -> tuple[int, ...]:
    """CPUs of so many threads: `packed` into one L3 after the other, or `spread` over all of them."""
    return (topology.spread_cpus() if filling == SPREAD else topology.order_cpus())[:threads]


class Streams(Benchmark):
    """What every bandwidth benchmark shares."""

    kernel = "memory_bandwidth"
    batches = 10.0  # a stream begins anew with each batch: its prefetchers' run-up is 4 % of 10 us
    method = {
        "data": "never zero, changed in every round",
        "bytes": "of the program; bus: times 2 for write, 1.5 for copy, 4/3 for triad with stores into caches",
        "aggregate": "all bytes from the first thread's start to the last one's end",
        "cycles": "of the clock as the window ends, in its own thread",
    }

    def preparation(self, p: Parameters) -> tuple:
        return tuple(v for k, v in p.items() if k != "vector")  # all sets go on with what any of them left

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"kernel": p["kernel"], "vector": p["vector"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        seconds = (max(t.end_ns for t in found.threads) - min(t.begin_ns for t in found.threads)) * 1e-9
        bandwidth = sum(t.operations for t in found.threads) * LINE * BYTES[p["kernel"]] / seconds
        return {
            "bandwidth": bandwidth,
            "bus_bandwidth": bandwidth * BUS[p["kernel"]],
            "bytes_per_cycle": bandwidth / sum(clocks(found)),
        }

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        return {"clock_inside": sum(clocks(found)) / len(found.threads)}  # Hz; the sample has the one around it as `frequency`

    def check(self, p: Parameters, found: Found) -> str:
        lines = array_lines(part_bytes(p["size"], len(found.threads)), p["kernel"])
        for index, thread in enumerate(found.threads):
            wanted = expected_sum(p["kernel"], lines, thread.executed)
            if thread.check != wanted:
                return f"the words of thread {index} add up to {thread.check} after {thread.executed} lines, not to {wanted}"
        return ""

    def physics(self, p: Parameters, metrics: dict[str, float]) -> str:
        most = VECTORS_PER_CYCLE * VECTORS[p["vector"]]
        found = metrics["bytes_per_cycle"]
        return f"{found:.0f} bytes in a cycle; no core moves more than {most} with {p['vector']}" if found > most else ""


KERNEL_AXIS = Axis(
    name="kernel",
    summary="read: load a; write: a = word; copy: a = b; triad: a = b + factor × c; _nt: stores past the caches",
    values=KERNELS,
)
VECTOR_AXIS = Axis(name="vector", summary="instruction set; by default the widest of the machine", values=tuple(VECTORS))
SIZE_AXIS = Axis(
    name="size",
    summary="memory of all threads and arrays together",
    values=(),
    unit="B",
    log=True,
    least=SIZE_STEP,
    step=SIZE_STEP,
)


class MemoryBandwidth(Streams):
    name = "memory_bandwidth"
    rank = 6
    topic = "memory"
    refined, refined_by = "latency", "memory_latency"
    title = "Memory bandwidth"
    question = "How many bytes per second do threads stream through caches and memory, and how many threads saturate it?"
    expected = (
        "Within L1 a core moves one or two vectors per cycle, less from every level on. In memory a few cores saturate what the node "
        "has; stores into caches read each line first, which stores past the caches save."
    )
    axes = (
        KERNEL_AXIS,
        SIZE_AXIS,
        Axis(name="threads", summary="threads, one per core, siblings last", values=(), least=1),
        Axis(
            name="filling",
            summary="packed: one L3 after the other, node by node; spread: one thread on each L3 in turn, nodes in turn",
            values=(PACKED, SPREAD),
        ),
        VECTOR_AXIS,
        Axis(name="page_size", summary="as in memory_latency", values=PAGE_SIZES),
    )
    views = (View(title="Bandwidth by working set", metric="bandwidth", kind="line", x="size", series="kernel", facet="threads"),)
    notes = (
        "Bytes are those that the program reads and writes. `bus_bandwidth` adds the lines that stores into caches read first; some processors "
        "avoid that for whole lines, so that it is an estimate from above.",
        "Memory is private: each thread touches its part first, on its own node.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        cpus, memory = len(topology.order_cpus()), memory_size(topology)
        few, many = thread_counts(cpus, topology, False), thread_counts(cpus, topology, True)
        common = {"page_size": ("thp",), "vector": topology.vectors[-1:], "filling": (PACKED,)}
        if profile == "quick":
            return [{**common, "kernel": ("read", "triad"), "size": [memory], "threads": few}]
        both = tuple(dict.fromkeys((*(v for v in topology.vectors if v in NARROW), topology.vectors[-1])))
        outside = {**common, "size": [memory], "vector": both}
        caches = {**common, "kernel": TEMPORAL, "vector": topology.vectors if profile == "full" else topology.vectors[-1:]}
        return [
            *({**caches, "size": cache_sizes(topology, n), "threads": [n]} for n in few),
            {**outside, "kernel": KERNELS if len(topology.vectors) > 1 else TEMPORAL, "threads": few},
            {
                **outside,
                "kernel": KERNELS[:1] if profile == "standard" else TEMPORAL,
                "threads": many,
                "filling": (PACKED, SPREAD),
            },
        ]

    def acceptance(self, topology) -> list[Sweep]:
        """Reads of half of each cache by one thread and by all cores; reads and triads of memory by these and by all CPUs."""
        alone, *more = thread_counts(len(topology.order_cpus()), topology, False)
        common = {"page_size": ("thp",), "vector": topology.vectors[-1:], "filling": (PACKED,)}
        memory = {**common, "kernel": ("read", "triad")}
        return [
            *({**common, "kernel": ("read",), "size": cache_sizes(topology, n), "threads": [n]} for n in (alone, *more[:1])),
            {**memory, "size": [memory_size(topology, topology.order_cpus()[:1])], "threads": [alone]},
            {**memory, "size": [memory_size(topology)], "threads": more},
        ]

    def keep(self, p: Parameters, topology) -> bool:
        """Where both take the same CPUs, one is measured."""
        return p["filling"] == PACKED or {*filled(topology, p["threads"], SPREAD)} != {*filled(topology, p["threads"], PACKED)}

    def refine(self, found: list[tuple[Parameters, float]], topology) -> list[Parameters]:
        """Half of what the last-level cache really holds, where that is much less than the firmware says."""
        effective = effective_cache(found, topology)
        if effective is None:
            return []
        points = []
        for threads in thread_counts(len(topology.order_cpus()), topology, False):
            declared, real = (cache_sizes(topology, threads, held) for held in (None, effective))
            for size in set(real) - set(declared):  # none where L2 would hold it
                if size < MUCH_LESS * declared[-1]:
                    common = {
                        "size": size,
                        "threads": threads,
                        "filling": PACKED,
                        "vector": topology.vectors[-1],
                        "page_size": "thp",
                    }
                    points += [{"kernel": kernel, **common} for kernel in TEMPORAL]
        return points

    def group(self, p: Parameters) -> tuple:
        return self.preparation(p)  # one instruction set against another in one process

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = filled(topology, p["threads"], p["filling"])
        if len(cpus) < p["threads"] or not part_bytes(p["size"], p["threads"]):
            return None
        nodes = [memory_node(topology, topology.node_of(cpu)) for cpu in cpus]
        if part_bytes(p["size"], p["threads"]) % base_page():  # parts of one page are on one node, and in the caches meanwhile
            nodes = nodes[:1]
        return Placement(
            cpus=cpus,
            node=nodes[0],
            size=p["threads"] * part_bytes(p["size"], p["threads"]),
            page_size=p["page_size"],
            parts=tuple(nodes) if None not in nodes and len(set(nodes)) > 1 else (),
        )

    def figures(self, topology, cases: list[Parameters]) -> tuple[View, ...]:
        """Working sets grow with the threads: one figure by working set for each end of the thread counts, and one by threads in memory."""
        counts = sorted({p["threads"] for p in cases})
        widest = max((p["vector"] for p in cases), key=tuple(VECTORS).index, default="")
        by_size = {"metric": "bandwidth", "kind": "line", "x": "size", "series": "kernel"}
        by_threads = {"metric": "bandwidth", "kind": "line", "x": "threads", "facet": "vector"}
        memory = max((p["size"] for p in cases), default=0)
        spread = [p["kernel"] for p in cases if p["filling"] == SPREAD]
        return (
            *(
                View(
                    title=f"Bandwidth by working set, {threads_text(n)}",
                    where={"threads": n, "vector": widest, "filling": PACKED},
                    **by_size,
                )
                for n in dict.fromkeys((*counts[:1], *counts[-1:]))
            ),
            View(
                title="Bandwidth of memory by threads", series="kernel", where={"size": memory, "filling": PACKED}, **by_threads
            ),
            *(
                View(
                    title=f"Bandwidth of memory by threads, packed and spread ({kernel})",
                    series="filling",
                    where={"size": memory, "kernel": kernel},
                    **by_threads,
                )
                for kernel in dict.fromkeys(spread)
            ),
            View(
                title="Bytes per cycle of one thread",
                metric="bytes_per_cycle",
                kind="line",
                x="size",
                series="kernel",
                where={"threads": counts[0] if counts else 1, "vector": widest},
            ),
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        largest = max((p["size"] for p in cases), default=0)
        place = "memory" if largest >= memory_size(topology) else format_bytes(largest)
        found = []
        for kernel in dict.fromkeys(p["kernel"] for p in cases):
            rows = sorted((p for p in cases if p["size"] == largest and p["kernel"] == kernel), key=lambda p: p["threads"])
            what = f"{kernel.removesuffix('_nt').capitalize()}{' past the caches' if kernel.endswith('_nt') else ''}"
            headline = kernel in ("read", "triad")
            for threads in dict.fromkeys(p["threads"] for p in (*rows[:1], *rows[-1:])):
                mine = [p for p in rows if p["threads"] == threads and p["filling"] == rows[0]["filling"]]
                if not mine:
                    continue
                text = f"{what} in {place} by {threads_text(threads)}"
                if len(mine) > 1:
                    where = {k: v for k, v in mine[0].items() if k != "vector"}
                    asked = {"kind": "ranking", "axis": "vector", "where": where, "text": f"{text}: {{ranking}}"}
                else:
                    asked = {"kind": "cell", "where": mine[0], "text": f"{text}: {{value}}"}
                found.append(Answer(metric="bandwidth", headline=headline, **asked))
            if len({p["threads"] for p in rows}) <= 2:
                continue
            for vector in dict.fromkeys(p["vector"] for p in rows):
                fillings = {p["filling"] for p in rows if p["vector"] == vector}
                both = len(fillings) > 1
                who = "{value} threads packed into one L3 after the other, by {other} spread over all of them"
                found.append(
                    Answer(
                        kind="saturation",
                        metric="bandwidth",
                        axis="threads",
                        where={k: v for k, v in rows[0].items() if k != "threads"}
                        | {"vector": vector, "filling": PACKED if both else rows[0]["filling"]},
                        against={"filling": SPREAD} if both else {},
                        tolerance=0.05,
                        headline=kernel == "read",
                        text=f"{kernel.capitalize()} ({vector}) from {place} is saturated by {who if both else '{value} threads'}",
                    )
                )
        found += [
            Answer(
                kind="cell",
                metric="bandwidth",
                where=p,
                headline=False,
                text=f"Read again and again from {format_bytes(p['size'])} by one thread: {{value}}",
            )
            for p in cases
            if p["threads"] == 1 and p["kernel"] == "read" and p["size"] < largest
        ]
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        """What all threads read from memory together, and one of them."""
        largest = max((p["size"] for p in cases), default=0)
        most = max((p["threads"] for p in cases), default=0)
        reads = [p for p in cases if p["kernel"] == "read" and p["size"] == largest and p["filling"] == PACKED]
        if not reads or largest < memory_size(topology):
            return Card()
        everyone = len(topology.order_cpus())

        def best(threads: int, text: str) -> Answer:
            where = {"kernel": "read", "size": largest, "filling": PACKED, "threads": threads}
            return Answer(kind="best", metric="bandwidth", axis="vector", where=where, text=text)

        many = Tile(
            subject="bandwidth",
            answer=best(most, f"read from memory by {'all cores' if most == everyone else threads_text(most)}"),
            rank=50,
            notes=(best(1, "one core {value}"),) if most > 1 else (),
        )
        return Card(tiles=(many,))


def clocks(found: Found) -> list[float]:
    """Hz of each thread's core as its window ended."""
    batches = [sorted(t.value[CLOCK_SLOT : CLOCK_SLOT + CLOCK_BATCHES]) for t in found.threads]
    return [CLOCK_STEPS / (each[CLOCK_BATCHES // 2] * 1e-12) for each in batches]


def threads_text(threads: int) -> str:
    return "one thread" if threads == 1 else f"{threads} threads"


def array_lines(size: int, kernel: str) -> int:
    """Lines of one array of a thread with `size` bytes: whole pages where it has any, else multiples of 1,024 bytes."""
    each = size // BYTES[kernel] if kernel.split("_")[0] in ("copy", "triad") else size
    unit = ALIASED if each >= ALIASED else 1024
    return each // unit * unit // LINE


def words_until(words: int) -> int:
    """Sum of the first `words` words of an array as filled: 1, 2, ... PERIOD, 1, 2, ..."""
    rounds, rest = divmod(words, PERIOD)
    return rounds * (PERIOD * (PERIOD + 1) // 2) + rest * (rest + 1) // 2


def first_words_until(lines: int) -> int:
    """Sum of the first words of the steps (of eight lines) in the first `lines` lines as filled."""
    rounds, rest = divmod(lines // STEP_LINES, PERIOD)
    words = [STEP_LINES * 8 * step % PERIOD + 1 for step in range(PERIOD)]
    return rounds * sum(words) + sum(words[:rest])


def bits_until(words: int, factor: int) -> int:
    """The same of the bit patterns of these numbers times `factor` in double precision."""
    numbers = [float(factor * (k + 1)) for k in range(PERIOD)]
    patterns = struct.unpack(f"={PERIOD}Q", array("d", numbers).tobytes())
    rounds, rest = divmod(words, PERIOD)
    return rounds * sum(patterns) + sum(patterns[:rest])


def between(until, first: int, last: int) -> int:
    """Sum over the lines from `first` to before `last`."""
    return until(last * 8) - until(first * 8) if last > first else 0


def expected_sum(kernel: str, lines: int, executed: int) -> int:
    """What kernels/memory_bandwidth.c returns as `check` after `executed` lines: of the first words of all steps read, or of all words left
    behind plus those of the first half of the array."""
    visited = lines - STEP_LINES if kernel.startswith("copy") else lines  # in a round
    turns, rest = divmod(executed, visited)
    if kernel == "read":
        return (turns * first_words_until(lines) + first_words_until(rest)) & MASK

    def left(last: int) -> int:
        """Sum over the lines before `last`: before `rest` what the present round wrote, from there on what the last one did, and what none visits."""
        cut, end = min(rest, last), min(visited, last)
        return written(kernel, turns, 0, cut) + written(kernel, turns - 1, cut, end) + written(kernel, -1, end, last)

    checked = min(lines, CHECKED_LINES)
    return (left(checked) + left(checked // 2)) & MASK


def written(kernel: str, turn: int, first: int, last: int) -> int:
    """Sum over the lines from `first` to before `last` after round `turn`; round -1 is the array as filled."""
    kind = kernel.removesuffix("_nt")
    if kind == "triad":
        factor = 1 if turn < 0 else 2 + turn % 7
        return between(lambda words: bits_until(words, factor), first, last)
    if kind == "write" and turn >= 0:
        return (last - first) * 8 * ((turn + 1) * WORD & MASK)
    shift = STEP_LINES if kind == "copy" and turn > 0 and turn % 2 else 0  # of the source, in odd rounds
    return between(words_until, first + shift, last + shift)


BENCHMARK = MemoryBandwidth()
