"""What does a load cost while others stream: latency against the bandwidth that is in use."""

from __future__ import annotations

from ..kernel import batch_quantile, mean_batch
from ..model import Answer, Axis, View
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, has_memory, memory_node
from .memory_bandwidth import MASK, SIZE_STEP, VECTOR_AXIS, WORD, part_bytes
from .memory_latency import (
    MOST_UNDER_HALF,
    ORDERS,
    PAGE_SIZES,
    UNDER_HALF,
    VISITED_SLOT,
    chain_scratch,
    memory_size,
    same_latency,
    under_half,
)

IDLE, MOST = "0", "max"
#: GB/s of all loaders together, as words: two of them are no numbers.
RATES = (
    IDLE,
    *map(str, (1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768)),
    MOST,
)
RATES_PLANNED = 12
LOADER_RATE = 16  # GB/s that one core may reach: rates beyond it per loader are not planned
#: (reads, writes) of every so many bursts, as in kernels/loaded_latency.c
MIXES = {"1:0": (1, 0), "3:1": (3, 1), "2:1": (2, 1), "1:1": (1, 1), "0:1": (0, 1), "1:1_nt": (1, 1), "0:1_nt": (0, 1)}
STANDARD_MIXES = ("1:0", "2:1", "0:1")
BURST, UNIT, CHECKED = 4096, 12, 64 * 12
BURST_SUM = (BURST // 8) * (BURST // 8 + 1) // 2
READ_SUM = sum(range(1, BURST // 8 + 1, 64))  # the first word of every 512 bytes
LINE = 64
LEFT_SLOT = 9  # of `value`, as in kernels/loaded_latency.c


def rates(loaders: int) -> tuple[str, ...]:
    """About a dozen rates from idle to the most, evenly chosen from `RATES` as far as this many loaders can go."""
    within = [rate for rate in RATES[1:-1] if int(rate) <= LOADER_RATE * loaders]
    every = max(1, -(-len(within) // (RATES_PLANNED - 2)))
    return (IDLE, *within[::-every][::-1], MOST)


CHASED = 0.03  # of a core's bandwidth that another core's chase may take


class LoadedLatency(Benchmark):
    name = kernel = "loaded_latency"
    rank = 8
    topic = "memory"
    title = "Latency under load"
    question = "What does a load cost while others stream, and how much can they stream before it suffers?"
    expected = (
        "Flat at the idle latency while memory has bandwidth to spare, then a knee, then a wall: latency grows without more bandwidth. "
        "Writes bring the wall nearer, since the memory's bus has to turn round."
    )
    axes = (
        Axis(name="cpu_node", summary="node of the CPU that chases and of those that load", values=(), least=0),
        Axis(name="chase_node", summary="node of the memory that is chased through", values=(), least=0),
        Axis(name="load_node", summary="node of the memory that the load streams through", values=(), least=0),
        Axis(name="mix", summary="reads to writes of the load; _nt: with stores past the caches", values=tuple(MIXES)),
        Axis(name="rate", summary="wanted load in GB/s, all loaders together; max: as fast as they can", values=RATES),
        Axis(
            name="size",
            summary="working set of the chase, and that of the load",
            values=(),
            unit="B",
            log=True,
            least=1 << 20,
            step=SIZE_STEP,
        ),
        VECTOR_AXIS,
        Axis(name="page_size", summary="as in memory_latency", values=PAGE_SIZES),
    )
    views = (
        View(title="Latency by load", metric="latency", kind="curve", x="load", along="rate", series="mix"),
        View(
            title="Latency of the slowest 1 % by load", metric="latency_p99", kind="curve", x="load", along="rate", series="mix"
        ),
    )
    method = {
        "chase": "one cycle, group order, lines by residue class of 256 bytes or 4 lines",
        "load": "bursts of 4 KiB against a token bucket per loader",
        "tokens": "staggered, each up to a quarter of the interval early or late",
        "blocks": "about 10 us of chasing",
        "load_bytes": "of the program",
    }
    needs = "two cores of one node, of which one chases and the others load, and nodes with memory"
    judges_gaps = False  # a loader waits for its token
    notes = (
        "The load is what the loaders really moved in the time of the chase, in bytes of the program: stores into caches move more than that.",
        "At rate 0 the loaders' cores spin away from memory, so that clock rates are those of the other points.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        nodes = topology.cpu_nodes() or (0,)
        memory = topology.memory_nodes() or (0,)
        first = nodes[0]
        loaders = max(len(topology.node_cores(first)) - 1, 1)
        common = {
            "size": (memory_size(topology, *map(topology.node_cores, nodes)),),
            "vector": topology.vectors[-1:],
            "page_size": ("thp",),
        }
        local = memory_node(topology, first)
        here = {
            "cpu_node": (first,),
            "chase_node": (local if local is not None else 0,),
            "load_node": (local if local is not None else 0,),
        }
        if profile == "quick":
            return [{**common, **here, "mix": ("1:0",), "rate": (*rates(loaders)[:-1:4], MOST)}]
        mixes = tuple(MIXES) if len(topology.vectors) > 1 else tuple(MIXES)[:5]
        near = {**common, **here, "mix": STANDARD_MIXES if profile == "standard" else mixes, "rate": rates(loaders)}
        if profile == "standard":
            far = [{**near, "mix": ("1:0",), "chase_node": (m,), "load_node": (m,)} for m in memory if m != local]
            return [near, *far]
        return [{**near, "cpu_node": nodes, "chase_node": memory, "load_node": memory}]

    def group(self, p: Parameters) -> tuple:
        return tuple(v for k, v in p.items() if k != "rate")  # a curve is measured in one process

    def preparation(self, p: Parameters) -> tuple:
        return self.group(p)

    def place(self, p: Parameters, topology) -> Placement | None:
        cores = topology.node_cores(p["cpu_node"])
        if len(cores) < 2 or not has_memory(topology, p["chase_node"], p["load_node"]):
            return None
        loaders = len(cores) - 1
        each = part_bytes(p["size"], loaders)
        if each < BURST * UNIT:
            return None
        chase, load = (memory_node(topology, p[name]) for name in ("chase_node", "load_node"))
        return Placement(
            cpus=cores,
            node=chase,
            size=2 * loaders * each,
            scratch=chain_scratch(loaders * each),
            page_size=p["page_size"],
            parts=(chase,) * loaders + (load,) * loaders if chase != load else (),
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        curves: dict[tuple, list[Parameters]] = {}
        for p in cases:
            curves.setdefault(self.group(p), []).append(p)
        found = []
        for points in curves.values():
            points = sorted(points, key=lambda p: RATES.index(p["rate"]))
            idle, most = points[0], points[-1]
            if idle["rate"] != IDLE or most["rate"] != MOST:
                continue
            where = f"node {idle['cpu_node']}, memory of node {idle['chase_node']}"
            if idle["load_node"] != idle["chase_node"]:
                where += f", load on node {idle['load_node']}"
            main = idle["mix"] == "1:0"
            loaders = len(topology.node_cores(idle["cpu_node"])) - 1
            who = "one loader" if loaders == 1 else f"{loaders} loaders"
            if main:
                found.append(Answer(kind="cell", metric="latency", where=idle, text=f"Idle ({where}), a load takes {{value}}"))
                if idle["chase_node"] == idle["cpu_node"] == min(topology.cpu_nodes(), default=0):
                    found.append(same_latency(idle, "Idle latency, by two benchmarks"))
                    found.append(saturation(most, loaders))
            found += [
                Answer(
                    kind="cell",
                    metric="load",
                    where=most,
                    headline=main,
                    text=f"With {who} at reads to writes {idle['mix']} ({where}), the load reaches at most {{value}}",
                ),
                Answer(
                    kind="ratio",
                    metric="latency",
                    where=most,
                    against={"rate": IDLE},
                    headline=main,
                    text=f"Under that load ({idle['mix']}) a load instruction takes {{value}} as long as idle",
                ),
                Answer(
                    kind="knee",
                    metric="latency",
                    axis="rate",
                    where={k: v for k, v in idle.items() if k != "rate"},
                    tolerance=0.5,
                    headline=main,
                    text=f"The latency stays below 1.5 times idle ({idle['mix']}, {where}) up to a load of {{value}} GB/s",
                ),
            ]
        return tuple(found)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        rate = {IDLE: -1, MOST: 0}.get(p["rate"]) if p["rate"] in (IDLE, MOST) else 1000 * int(p["rate"])
        return {"rate": rate, "mix": p["mix"], "vector": p["vector"], "group_bytes": ORDERS["group"]}

    def seed_argument(self, seed: int) -> dict[str, int]:
        return {"seed": seed}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        chaser, *loaders = found.threads
        seconds = (max(t.end_ns for t in found.threads) - min(t.begin_ns for t in found.threads)) * 1e-9
        lines = chaser.operations + (0 if p["rate"] == IDLE else sum(t.operations for t in loaders))
        return {
            "latency": mean_batch(chaser),
            "latency_p50": batch_quantile(chaser, 0.5),
            "latency_p95": batch_quantile(chaser, 0.95),
            "latency_p99": batch_quantile(chaser, 0.99),
            "load": lines * LINE / seconds,
        }

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        """Of an idle chase: how many single loads took under half of the mean; nothing where the counter is too coarse."""
        return under_half(found.threads[0])

    def unproven(self, p: Parameters, extra: dict[str, float], topology) -> str:
        where = self.place(p, topology)
        memory = where is not None and p["size"] >= memory_size(topology, where.cpus[:1])
        return "cached" if memory and extra.get(UNDER_HALF, 0.0) > MOST_UNDER_HALF else ""

    def check(self, p: Parameters, found: Found) -> str:
        chaser, *loaders = found.threads
        part = part_bytes(p["size"], len(loaders))
        lines = part * len(loaders) // chaser.value[VISITED_SLOT]
        if chaser.check != chaser.executed % lines:
            return f"after {chaser.executed} loads the chase stands at {chaser.check}, not {chaser.executed % lines}"
        bursts = part // BURST // UNIT * UNIT
        for index, thread in enumerate(loaders, 1):
            wanted = expected_sums(p["mix"], bursts, thread.cursor)
            if (thread.check, thread.value[LEFT_SLOT]) != wanted:
                return f"loader {index} read and left {thread.check} and {thread.value[LEFT_SLOT]} after {thread.cursor} bursts, not {wanted[0]} and {wanted[1]}"
        return ""


def expected_sums(mix: str, bursts: int, done: int) -> tuple[int, int]:
    """(sum of the first words of all steps read, sum of the words left in the first bursts) of a loader whose part has `bursts`, after `done`."""
    reads, writes = MIXES[mix]
    turns, rest = divmod(done, bursts)
    checked = min(bursts, CHECKED)

    def read(count: int) -> int:
        """How many of the first `count` bursts of a part are read."""
        return count // (reads + writes) * reads + min(count % (reads + writes), reads)

    def word(turn: int) -> int:
        return (turn + 1) * WORD & MASK

    def written(first: int, last: int, turn: int) -> int:
        """Sum of what is written of these bursts, after this round; before the first round they are as filled."""
        count = (last - read(last)) - (first - read(first))
        return count * (BURST_SUM if turn < 0 else BURST // 8 * word(turn))

    cut = min(rest, checked)
    left = read(checked) * BURST_SUM + written(0, cut, turns) + written(cut, checked, turns - 1)
    return (turns * read(bursts) + read(rest)) * READ_SUM & MASK, left & MASK


def saturation(most: Parameters, loaders: int) -> Answer:
    """Asks whether node_bandwidth read as much from the memory of that node as the loaders did at most."""
    shared = {name: most[name] for name in ("size", "vector", "page_size")}
    where = {"cpu_node": most["cpu_node"], "memory_node": most["load_node"], "cores": "one" if loaders == 1 else "all"}
    return Answer(
        kind="agreement",
        metric="load",
        where=most,
        against={"benchmark": "node_bandwidth", "metric": "bandwidth", "kernel": "read", **where, **shared},
        tolerance=CHASED if loaders == 1 else 1 / (loaders + 1),  # where a core chases, one less reads
        headline=False,
        text="Read bandwidth at saturation, by two benchmarks",
    )


BENCHMARK = LoadedLatency()
