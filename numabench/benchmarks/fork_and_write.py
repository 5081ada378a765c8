"""What does a fork cost, and the first write to each page after it?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from ..host.pages import page_bytes, page_words
from ..kernel import median_batch
from ..model import ALPHA, Answer, Axis, Contrast, View
from ..units import format_bytes
from . import KERNEL_PRICE, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node
from .memory_latency import MIB

OPERATIONS = ("fork", "write")
SIZES = (2 * MIB, 16 * MIB)
PAGES = ("4k", "thp")
APART_SLOT, CHILDREN_SLOT, PAGES_SLOT = 6, 7, 8  # of `value`, as in kernels/fork_and_write.c


class ForkAndWrite(Benchmark):
    name = kernel = "fork_and_write"
    rank = 33
    topic = "runtime"
    phase = ALPHA
    title = "Fork, and copy on write"
    question = "What does a fork cost, and the first write to each page after it?"
    expected = (
        "A fork copies page tables: some ns for each small page, a five-hundredth of that per byte for huge ones. The first write to a page afterwards takes a fault and the copy of the page; "
        "to a huge one the kernel splits it and copies 4 KiB, so that the dearer writes come later."
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
    )
    contrasts = (Contrast(axis="page_size", control="4k", metric="time"),)
    views = (
        View(title="Time of a fork", metric="time", kind="line", x="size", series="page_size", where={"operation": "fork"}),
        View(
            title="Time of a first write",
            metric="time_per_page",
            kind="bar",
            x="page_size",
            series="size",
            where={"operation": "write"},
        ),
    )
    method = {
        "fresh": "all pages given back and touched anew before each fork",
        "child": "waits until the parent has written, then looks",
    }
    notes = (
        "The process has memory of its own besides (some 20 MiB): it is in the time of each fork, whatever the size. A write to a huge page is one word of it.",
    )
    counts_pages = True
    judges_gaps = False
    tolerates = KERNEL_PRICE
    judges_clock = False  # the kernel's and the host's share of it scatters by more than a clock changes
    judges_delay = False  # a parent waits for its own children, on the one CPU that both have
    may_sleep = True
    seconds = 0.2  # of sixteen forks at least, each with its memory touched anew

    def sweep(self, topology, profile: str) -> list[Sweep]:
        return [{"operation": OPERATIONS, "page_size": PAGES, "size": SIZES[1:] if profile == "quick" else SIZES}]

    def place(self, p: Parameters, topology) -> Placement | None:
        cpu, step = topology.order_cpus()[0], page_bytes(p["page_size"])
        size = p["size"] // step * step
        node = memory_node(topology, topology.node_of(cpu))
        return Placement(cpus=(cpu,), node=node, size=size, page_size=p["page_size"]) if size else None

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            pages, size = page_words(p["page_size"]), format_bytes(p["size"])
            if p["operation"] == "fork":
                text, metric = f"A fork of a process with {size} in pages of {pages} takes {{value}}", "time"
            else:
                text, metric = f"The first write to a page of {pages} after a fork takes {{value}}", "time_per_page"
            found.append(Answer(kind="cell", metric=metric, where=p, headline=p["size"] == SIZES[-1], text=text))
        return tuple(found)

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        read, write = os.pipe2(os.O_CLOEXEC)
        for end in (read, write):
            opened.callback(os.close, end)
        return (write, read)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"operation": p["operation"], "page_bytes": page_bytes(p["page_size"])}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        thread = found.threads[0]
        time = median_batch(thread)
        return {"time": time, "time_per_page": time / thread.value[PAGES_SLOT]}

    def check(self, p: Parameters, found: Found) -> str:
        thread = found.threads[0]
        apart, children, events = thread.value[APART_SLOT], thread.value[CHILDREN_SLOT], thread.check
        if children != events:
            return f"{events - children} of {events} forks failed"
        if apart != children:
            return f"{children - apart} of {children} children saw what their parent wrote after the fork"
        return ""


BENCHMARK = ForkAndWrite()
