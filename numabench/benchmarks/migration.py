"""What does it cost a thread to be moved to another CPU?"""

from __future__ import annotations

from collections.abc import Collection

from ..kernel import median_batch
from ..model import ALPHA, Answer, Axis, Card, Contrast, Price, View
from . import (
    KERNEL_PRICE,
    MOST_APART,
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
)

STAY, MOVE, PINNED, PULLED = ACTIONS = ("stay", "move", "pinned", "pulled")
RIVALS = ACTIONS[2:]  # beside a third thread that runs on the same CPU
LINES = (64, 256, 1024, 4096, 16_384)
USUAL = 1024  # lines: 64 KiB, more than a first cache and less than a second one
ALL_DIRTY = 100
SHARES = (0, 50, ALL_DIRTY)
CALL_PS_SLOT, ARRIVED_SLOT, RIGHT_SLOT, CAME_SLOT, AT_HOME_SLOT, TRIED_SLOT = range(
    6, 12
)  # of `value`, as in kernels/migration.c
STATE_BYTES = 8192  # of scratch memory: what the threads share
ORDER_BYTES = 4  # of it for each line
LONG = 4.0  # windows of events in which a thread waits for some slices and ticks of a timer
LEAST_CAME = (
    0.5  # of events beside a rival, in which the thread was pulled, or had to wait: below it, times are not what they are called
)
LEAST_AT_HOME = 0.5  # of them, before which the thread was where the rival comes: it may go by itself, but why should it


class Migration(Benchmark):
    name = kernel = "migration"
    rank = 30
    topic = "runtime"
    phase = ALPHA
    title = "Moving a thread to another CPU"
    question = "What does it cost a thread to be moved to another CPU, and what does it leave behind?"
    expected = (
        "The call takes 5 to 50 us: the CPU that the thread goes to is woken, and takes it over. Behind it each line that the thread had in its private caches is fetched "
        "from there when it is updated: one hop a line, as long as the set fits these caches. Beyond them most lines come from a shared cache or from memory either way. "
        "A thread whose CPU somebody else begins to use waits for a time slice or two, some milliseconds, if it is pinned; a free one is pulled to a free CPU at a tick of the timer or two."
    )
    axes = (
        Axis(
            name="action",
            summary="what happens between writing and updating: a call that moves nothing, or a move; a rival on the thread's CPU, beside which it is pinned, or free to be pulled to the other",
            values=ACTIONS,
        ),
        Axis(
            name="lines",
            summary="of the set, none of which brings another one along",
            values=LINES,
            log=True,
            least=2,
            most=1 << 20,
        ),
        Axis(
            name="dirty",
            summary="lines of a hundred that were written before; the others only read",
            values=SHARES,
            least=0,
            most=ALL_DIRTY,
        ),
        Axis(name="placement", summary="relation of the two CPUs", values=()),
    )
    contrasts = tuple(Contrast(axis="action", control=STAY, metric=metric) for metric in ("time", "call"))
    views = (
        View(
            title="Time to update a line",
            metric="time",
            kind="line",
            x="lines",
            series="action",
            facet="placement",
            where={"dirty": ALL_DIRTY},
        ),
        View(title="Time of the call", metric="call", kind="bar", x="placement", series="action", where={"dirty": ALL_DIRTY}),
    )
    method = {
        "call": "sched_setaffinity",
        "rival": "a thread that spins on the same CPU, and sleeps in between",
        "update": "a load, an addition and a store in each line, in dependent order by chance",
        "clean": "flushed and read again",
        "before": "all lines in the caches of the CPU that the thread leaves",
    }
    notes = (
        "The update after a move includes the translations that the other CPU has to look up: one a page, some 13 lines of 64 bytes.",
        "The CPU that the thread goes to is idle, and as deeply asleep as it gets between two moves.",
    )
    judges_gaps = False  # a move is no batch
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    judges_clock = False
    judges_overlap = False  # the second thread only says where it is
    may_sleep = True
    most = {"pulled": 1.0}
    needs = "two CPUs"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        every = {"action": (STAY, MOVE), "dirty": (ALL_DIRTY,)}
        rivals = {"action": RIVALS, "dirty": (0, ALL_DIRTY), "placement": relations}
        if profile == "quick":
            return [{**every, "lines": (USUAL,), "placement": relations[:1] + relations[1:][-1:]}]
        shares = SHARES if profile == "full" else (0, ALL_DIRTY)
        lines = (*LINES, 4 * LINES[-1]) if profile == "full" else LINES
        return [
            {**every, "lines": lines, "placement": relations},
            {**every, "lines": lines if profile == "full" else (USUAL,), "dirty": shares, "placement": relations},
            {**rivals, "lines": LINES if profile == "full" else (USUAL,)},
        ]

    def place(self, p: Parameters, topology) -> Placement | None:
        if p["placement"] not in topology.relations() or not (cpus := topology.choose_cpus(p["placement"], 2)):
            return None
        cpus = (*cpus, cpus[0]) if p["action"] in RIVALS else cpus
        size, scratch = p["lines"] * (MOST_APART + MOST_LINE), STATE_BYTES + p["lines"] * ORDER_BYTES
        return Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=size, scratch=scratch)

    def waiters(self, p: Parameters) -> Collection[int]:
        """Until the CPU that it goes to is awake, or its turn comes; and the rival, which shares one."""
        return () if p["action"] == STAY else (0, 2)

    def stretch(self, p: Parameters) -> float:
        return LONG if p["action"] in RIVALS else 1.0

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for placement in dict.fromkeys(p["placement"] for p in cases):
            where = {"action": MOVE, "lines": USUAL, "dirty": ALL_DIRTY, "placement": placement}
            text = f"Moving a thread between {RELATION_WORDS[placement]} takes {{value}} (sched_setaffinity)"
            found.append(Answer(kind="cell", metric="call", where=where, text=text))
        for p in sorted(cases, key=lambda p: (p["lines"] != USUAL, p["dirty"] != ALL_DIRTY)):
            where = RELATION_WORDS[p["placement"]]
            if p["action"] in RIVALS and p["dirty"] == ALL_DIRTY:
                free = p["action"] == PULLED
                who = f"free to run on both of two {where}" if free else f"pinned to one of two {where}"
                text = f"A thread that is {who} goes on {{value}} after another one took its CPU"
                found.append(Answer(kind="cell", metric="call", where=p, headline=False, text=text))
                if free:
                    text = f"The scheduler pulls it to the free one in {{value}} of cases ({where})"
                    found.append(Answer(kind="cell", metric="pulled", where=p, headline=False, text=text))
            if p["action"] == PULLED:
                what = "written" if p["dirty"] else "only read"
                text = f"Each of {p['lines']:,} lines, {what} before it is pulled ({where}), costs a thread {{value}} more to update than one that is pinned and waits"
                found.append(
                    Answer(kind="difference", metric="time", where=p, against={"action": PINNED}, headline=False, text=text)
                )
            if p["action"] != MOVE:
                continue
            what = (
                "written" if p["dirty"] == ALL_DIRTY else f"of which {p['dirty']} % were written" if p["dirty"] else "only read"
            )
            found.append(
                Answer(
                    kind="difference",
                    metric="time",
                    where=p,
                    against={"action": STAY},
                    headline=p["lines"] == USUAL and p["dirty"] == ALL_DIRTY,
                    text=f"Each of {p['lines']:,} lines, {what} before a move between {where}, costs {{value}} more to "
                    "update than without it",
                )
            )
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        """Of the nearest cores."""
        near = sorted(dict.fromkeys(p["placement"] for p in cases), key=nearest_cores_first)[:1]
        prices = []
        for placement in near:
            where = {"action": MOVE, "lines": USUAL, "dirty": ALL_DIRTY, "placement": placement}
            name = RELATION_NAMES[placement]
            moved = Answer(kind="cell", metric="call", where=where, text=f"thread moved to another CPU, {name}")
            line = Answer(
                kind="difference", metric="time", where=where, against={"action": STAY}, text=f"each line it had written, {name}"
            )
            prices += [Price(answer=moved, rank=48), Price(answer=line, rank=49)]
        return Card(prices=tuple(prices))

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"action": p["action"], "lines": p["lines"], "dirty": p["dirty"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        first = found.threads[0]
        times = {"time": median_batch(first) / p["lines"], "call": first.value[CALL_PS_SLOT] / 1000}
        if p["action"] != PULLED:
            return times
        return {"pulled": came(first)} | (times if came(first) >= LEAST_CAME else {})

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        return ["run_delay"] if p["action"] == PINNED and came(found.threads[0]) < LEAST_CAME else []  # a rival that has no CPU

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        """The time of a line in hops, as they were around the sample."""
        first = found.threads[0]
        return {"hops": median_batch(first) / arguments["lines"] / (probes.hop * 1e9)} if probes.hop else {}

    def check(self, p: Parameters, found: Found) -> str:
        """Where the thread was in each event, what it wrote before and what after: all is known beforehand."""
        first = found.threads[0]
        lines, events, arrived = p["lines"], first.executed, first.value[ARRIVED_SLOT]
        if arrived != events:
            return f"{events - arrived} of {events} updates ran on another CPU than they were to"
        if first.check != (wanted := events * (lines + dirty_lines(lines, p["dirty"]))):
            return f"the lines count {first.check} writes, {wanted} were to be made"
        if first.value[RIGHT_SLOT] != lines:
            return f"{lines - first.value[RIGHT_SLOT]} of {lines} lines were written more or less often than the others"
        tried, at_home = first.value[TRIED_SLOT], first.value[AT_HOME_SLOT]
        if p["action"] in RIVALS and (not tried or at_home < LEAST_AT_HOME * tried):
            return f"the thread was where the rival comes before {at_home} of {tried} times"
        return ""


def came(thread) -> float:
    """Share of events of the window in which the thread was pulled, or had to wait for its turn."""
    return thread.value[CAME_SLOT] / thread.operations


def dirty_lines(lines: int, share: int) -> int:
    """How many are written before the call: as far apart as the share allows, the first among them."""
    return 1 + (lines - 1) * share // 100 if share else 0


BENCHMARK = Migration()
