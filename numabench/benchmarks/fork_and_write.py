"""What does a fork cost, and the first write to each page after it?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack

from ..host.pages import page_bytes, page_words
from ..kernel import median_batch
from ..model import ALPHA, Answer, Axis, Contrast, View
from ..units import format_bytes
from . import CROWDED, KERNEL_PRICE, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node
from ._ends import pipe
from .memory_latency import MIB

OPERATIONS = ("fork", "write")
SIZES = (2 * MIB, 16 * MIB)
PAGES = ("4k", "thp")
NONE, SLEEPING, SPINNING = OTHERS = ("none", "sleeping", "spinning")
SLEEPERS = (8, 64)  # threads of a process of which all but one sleep
WORDS_BYTES = 4096  # for what the threads tell each other
APART_SLOT, CHILDREN_SLOT, PAGES_SLOT = 6, 7, 8  # of `value`, as in kernels/fork_and_write.c
SLEPT_SLOT, TURNS_SLOT, LOST_CPU_SLOT = 6, 7, 8  # and of the other threads
#: One of so many forks may make a thread that should run sleep, and each loss of its CPU: the kernel then notes for it where it runs (rseq), in memory that a fork has made read-only, and that fault waits for
#: the fork under way.
FEW = 8
SPARE = 2  # looks of a thread that should sleep beyond its sleeps: the last one, and one that came too late


class ForkAndWrite(Benchmark):
    name = kernel = "fork_and_write"
    rank = 33
    topic = "runtime"
    phase = ALPHA
    title = "Fork, and copy on write"
    question = "What does a fork cost, and the first write to each page after it?"
    expected = (
        "A fork copies page tables: some ns for each small page, a five-hundredth of that per byte for huge ones. The first write to a page afterwards takes a fault and the copy of the page; "
        "to a huge one the kernel splits it and copies 4 KiB, so that the dearer writes come later. Threads that sleep cost nothing, since only the one that forks is in the child; those that run are interrupted, "
        "once by the fork and once by each first write."
    )
    axes = (
        Axis(
            name="operation",
            summary="the fork, or the parent's first write to each page while the child lives",
            values=OPERATIONS,
        ),
        Axis(name="page_size", summary="as in memory_latency", values=PAGES),
        Axis(
            name="size", summary="memory that is forked and written to", values=SIZES, unit="B", log=True, least=4096, step=4096
        ),
        Axis(name="others", summary="what the other threads of the process do", values=OTHERS),
        Axis(
            name="threads",
            summary="threads of the process, the one that forks among them",
            values=(1, *SLEEPERS),
            log=True,
            least=1,
        ),
    )
    contrasts = (Contrast(axis="page_size", control="4k", metric="time"),)
    views = (
        View(
            title="Time of a fork",
            metric="time",
            kind="line",
            x="size",
            series="page_size",
            where={"operation": "fork", "threads": 1},
        ),
        View(
            title="Time of a first write",
            metric="time_per_page",
            kind="bar",
            x="page_size",
            series="size",
            where={"operation": "write", "threads": 1},
        ),
        View(
            title="Time of a fork by threads",
            metric="time",
            kind="line",
            x="threads",
            series="others",
            facet="page_size",
            where={"operation": "fork"},
        ),
    )
    method = {
        "fresh": "all pages given back and touched anew before each fork",
        "child": "waits until the parent has written, then looks",
    }
    notes = (
        "The process has memory and a thread of its own besides (some 20 MiB): they are in the time of each fork, whatever the size. A write to a huge page is one word of it.",
    )
    counts_pages = True
    judges_gaps = False
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    judges_overlap = False  # the other threads are there before and after
    may_sleep = True
    seconds = 0.2  # of sixteen forks at least, each with its memory touched anew

    def sweep(self, topology, profile: str) -> list[Sweep]:
        alone: Sweep = {"operation": OPERATIONS, "page_size": PAGES, "size": SIZES, "others": (NONE,), "threads": (1,)}
        if profile == "quick":
            return [{**alone, "size": SIZES[1:]}]
        small: Sweep = {**alone, "size": SIZES if profile == "full" else SIZES[:1]}  # what the others add does not depend on it
        running = crowds(topology)
        return [
            alone,
            {**small, "others": (SLEEPING,), "threads": SLEEPERS},
            *([{**small, "others": (SPINNING,), "threads": running}] if running else []),
        ]

    def waiters(self, p: Parameters) -> Collection[int]:
        """A parent waits for its own children, on the one CPU that both have; the others sleep, or are only there."""
        return range(p["threads"])

    def group(self, p: Parameters) -> tuple:
        """In one process: whatever its pages and its other threads."""
        return p["operation"], p["size"]

    def keep(self, p: Parameters, topology) -> bool:
        return (p["others"] == NONE) == (p["threads"] == 1)

    def place(self, p: Parameters, topology) -> Placement | None:
        step, (first, *rest) = page_bytes(p["page_size"]), topology.order_cpus()
        size = p["size"] // step * step
        cpus: tuple[int, ...] | None = (first, *(rest[:1] or [first]) * (p["threads"] - 1))  # who sleeps does so on one CPU
        if p["others"] == SPINNING:
            cpus = near_cpus(topology, p["threads"])
        if not cpus or not size:
            return None
        node = memory_node(topology, topology.node_of(cpus[0]))
        return Placement(cpus=cpus, node=node, size=size, scratch=WORDS_BYTES, page_size=p["page_size"])

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            pages, size = page_words(p["page_size"]), format_bytes(p["size"])
            if p["operation"] == "fork":
                what, metric = f"A fork of a process with {size} in pages of {pages}", "time"
            else:
                what, metric = f"The first write to a page of {pages} after a fork", "time_per_page"
            if p["others"] == NONE:
                found.append(
                    Answer(kind="cell", metric=metric, where=p, headline=p["size"] == SIZES[-1], text=f"{what} takes {{value}}")
                )
                continue
            does = {SLEEPING: ("sleeps", "sleep"), SPINNING: ("runs", "run")}[p["others"]][p["threads"] > 2]
            who = f"another thread that {does} adds" if p["threads"] == 2 else f"{p['threads'] - 1} other threads that {does} add"
            against = {"others": NONE, "threads": 1}
            found.append(
                Answer(
                    kind="difference", metric=metric, where=p, against=against, headline=False, text=f"{what}: {who} {{value}}"
                )
            )
        return tuple(found)

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        return pipe(opened, flags=0)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"operation": p["operation"], "page_bytes": page_bytes(p["page_size"]), "others": p["others"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        thread = found.threads[0]
        time = median_batch(thread)
        return {"time": time, "time_per_page": time / thread.value[PAGES_SLOT]}

    def check(self, p: Parameters, found: Found) -> str:
        thread, *others = found.threads
        apart, children, events = thread.value[APART_SLOT], thread.value[CHILDREN_SLOT], thread.check
        if children != events:
            return f"{events - children} of {events} forks failed"
        if apart != children:
            return f"{children - apart} of {children} children saw what their parent wrote after the fork"
        if len(others) != p["threads"] - 1:
            return f"{len(others)} other threads instead of {p['threads'] - 1}"
        return next(filter(None, (self.wrong(p, other.value, events) for other in others)), "")

    def wrong(self, p: Parameters, value, events: int) -> str:
        """What one of the other threads did that it should not have done."""
        slept, turns, lost = (value[slot] for slot in (SLEPT_SLOT, TURNS_SLOT, LOST_CPU_SLOT))
        if p["others"] == SLEEPING and (not slept or turns > slept + SPARE):
            return f"a thread that should sleep did so {slept} times, and looked {turns} times"
        if p["others"] == SPINNING and slept > lost + events / FEW:
            return f"a thread that should run slept {slept} times in {events} forks"
        return ""


def near_cpus(topology, threads: int) -> tuple[int, ...] | None:
    """CPUs of the nearest relation that has so many; siblings of one core, which take its units from each other, where there is nothing else."""
    known = [relation for relation in topology.relations() if relation != CROWDED]
    relations = [relation for relation in known if relation != "smt"] or known
    return next(filter(None, (topology.choose_cpus(relation, threads) for relation in relations)), None)


def crowds(topology) -> tuple[int, ...]:
    """Numbers of threads that there are CPUs for: 2, 4, 8 ..."""
    counts: list[int] = []
    while near_cpus(topology, 2 ** (len(counts) + 1)):
        counts.append(2 ** (len(counts) + 1))
    return tuple(counts)


BENCHMARK = ForkAndWrite()
