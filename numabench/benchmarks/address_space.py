"""What does it cost to map, protect, give back and unmap memory, and what does it cost the other threads?"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from ..host.counters import may_flush_silently, open_interrupts
from ..host.pages import base_page
from ..kernel import FINE_BINS, batch_quantile
from ..model import Answer, Axis, Card, Contrast, Price, View
from . import ALONE, CROWDED, KERNEL_PRICE, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node, place_threads

if TYPE_CHECKING:
    from contextlib import ExitStack

OPERATIONS = ("mmap", "fault", "mprotect", "dontneed", "free", "cold", "munmap", "mremap")
#: What a call does to its pages, as sentences say it.
WORDS = {
    "mmap": "mapping {pages} (mmap)",
    "fault": "touching {pages} for the first time",
    "mprotect": "protecting {pages} from writing (mprotect)",
    "dontneed": "giving {pages} back (MADV_DONTNEED)",
    "free": "offering {pages} to the kernel (MADV_FREE)",
    "cold": "calling {pages} cold (MADV_COLD)",
    "munmap": "unmapping {pages} (munmap)",
    "mremap": "moving {pages} to another address (mremap)",
}
HEADLINES = ("mprotect", "dontneed", "munmap")
GIVEN_BACK = "dontneed"
BATCH = 64  # pages of a call that is called a batch

NONE, SLEEPING, SPINNING, READING, PROCESS = BYSTANDERS = ("none", "sleeping", "spinning", "reading", "process")
RUNNING = (SPINNING, READING)  # as threads of the process
AWAKE = (*RUNNING, PROCESS)
NOTHING_TO_READ = ("mmap", "fault")  # before the call there are no pages
READ = ("mprotect", "dontneed", "munmap", "mremap")  # of the others, what a standard visit measures with a bystander that reads

#: Of `value`, as in kernels/address_space.c: of the thread that calls, and of the bystander.
COUNTED, INTERRUPTS, FAULTS, REFUSED, ABSENT = 6, slice(7, 11), 11, 14, 15
SLEPT, TURNS, TURN_NS, LOST_NS, PAGES_READ = range(6, 11)
INTERRUPTS_SLOT = 2  # of the descriptors

#: Share of the calls that must have brought exactly as many interrupts as they should: what ran on that CPU before may add one now and then, and what runs there while the
#: bystander sleeps more.
SURE = 0.75
#: One of so many calls may come while the bystander sleeps (a fault that had to wait), or was away for long: the median call is beside one that runs all the same.
FEW = 8
#: Faults beyond those of the pages: the kernel looks where the thread's other memory belongs.
MORE_FAULTS = 0.01


class AddressSpace(Benchmark):
    name = kernel = "address_space"
    rank = 29
    topic = "runtime"
    phase = "alpha"
    title = "Address space"
    question = "What does it cost to map, protect, give back and unmap memory, and what does that cost the other threads?"
    expected = (
        "Alone a call takes a system call and some 100 ns a page. Taking rights or pages away while another thread of the process runs interrupts its CPU, once a call whatever its pages, "
        "and waits for it: that costs 1 to 4 us, on virtual machines 10 and more, and the other thread as much. A thread that sleeps costs nothing, and so do mapping and touching. "
        "Processors that invalidate by broadcast need no interrupt."
    )
    axes = (
        Axis(name="operation", summary="what is done to the pages", values=OPERATIONS),
        Axis(name="pages", summary="pages of one call", values=(1, 8, 64, 512), log=True, least=1, most=512),
        Axis(name="bystander", summary="what another thread does, of the same process or of another", values=BYSTANDERS),
        Axis(name="placement", summary="relation of the two threads' CPUs", values=()),
    )
    contrasts = (Contrast(axis="bystander", control=NONE, metric="time"),)
    views = (
        View(title="Time of a call by its pages", metric="time", kind="line", x="pages", series="bystander", facet="operation"),
        View(
            title="What a call takes from a thread that runs", metric="loss", kind="bar", x="operation", series="pages",
            where={"bystander": SPINNING},
        ),
        View(
            title="Interrupts of the bystander's CPU", metric="tlb_interrupts", kind="bar", x="operation", series="bystander",
            where={"pages": 1},
        ),
    )  # fmt: skip
    method = {
        "counted": "the call alone, the median one",
        "pages": "base pages, written before, in a mapping of their own whose page tables stay",
        "bystander": "says before each call that it runs; has read all pages, or looks at the clock",
        "interrupts": "the row TLB of /proc/interrupts around further calls",
    }
    judges_gaps = False  # a call is no batch
    tolerates = KERNEL_PRICE
    judges_clock = False  # the kernel's and the host's share of it scatters by more than a clock changes
    judges_overlap = False  # a bystander that runs says so before each call
    may_sleep = True
    touches_anew = True
    needs_interrupt = True  # the same price by another call
    windows = 1.5  # half of one for the calls around which interrupts are counted
    most_samples = 1
    needs = "a CPU for the bystander"
    notes = (
        "What the bystander loses is the time in which it does not run. That its next accesses have to look addresses up again comes on top.",
        "0 interrupts beside a thread that runs: the processor invalidates by broadcast, or the hypervisor is asked to.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = pair_relations(topology)
        near, far = relations[:1], relations[1:][-1:]
        few: Sweep = {"operation": HEADLINES, "pages": (1, BATCH), "bystander": (NONE, SLEEPING, SPINNING)}
        if profile == "quick":
            return [{**few, "placement": near}]
        if profile == "full":
            return [
                {"operation": OPERATIONS, "pages": self.axes[1].values, "bystander": BYSTANDERS, "placement": relations},
            ]
        return [
            {"operation": OPERATIONS, "pages": self.axes[1].values, "bystander": (NONE, SPINNING), "placement": near},
            {"operation": OPERATIONS, "pages": (1,), "bystander": (SLEEPING,), "placement": near},
            {"operation": HEADLINES, "pages": (1,), "bystander": (PROCESS,), "placement": near},
            {"operation": READ, "pages": (1, BATCH), "bystander": (READING,), "placement": near},
            *([{**few, "placement": far}] if far else []),
        ]

    def mediated(self, p: Parameters) -> bool:
        return True

    def keep(self, p: Parameters, topology) -> bool:
        return p["bystander"] != READING or p["operation"] not in NOTHING_TO_READ

    def place(self, p: Parameters, topology) -> Placement | None:
        alone = p["placement"] == ALONE
        cpus = place_threads(topology, p["placement"], 1 if alone else 2)
        if not cpus or (alone and p["bystander"] != NONE):
            return None
        page = base_page()
        return Placement(
            cpus=cpus[:1] if p["bystander"] == NONE else cpus,
            node=memory_node(topology, topology.node_of(cpus[0])),
            size=(p["pages"] + 2) * page,
            scratch=(p["pages"] + 2) * page,
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            if p["placement"] != cases[0]["placement"]:
                continue
            what, who = what_is_done(p), p["bystander"]
            headline = p["operation"] in HEADLINES and p["pages"] == 1 and who in (NONE, SLEEPING, SPINNING)
            alone = {"bystander": NONE}
            if who == NONE:
                text = f"While no other thread runs, {what} takes {{value}}"
                found.append(Answer(kind="cell", metric="time", where=p, headline=headline, text=text))
                continue
            beside = {SLEEPING: "sleeps", SPINNING: "runs", READING: "reads the pages", PROCESS: "runs"}[who]
            other = "another process" if who == PROCESS else "another thread of the process"
            text = f"While {other} {beside}, {what} takes {{value}}"
            found.append(Answer(kind="cell", metric="time", where=p, headline=headline and who == SPINNING, text=text))
            text = f"{what[0].upper()}{what[1:]}: {other} that {beside} adds {{value}}"
            found.append(Answer(kind="difference", metric="time", where=p, against=alone, headline=headline, text=text))
            if who not in RUNNING:
                continue
            if p["pages"] == BATCH:
                text = f"While another thread of the process {beside}, {what} in one call takes {{value}} a page"
                batched = p["operation"] == GIVEN_BACK and who == SPINNING
                found.append(Answer(kind="cell", metric="time_per_page", where=p, headline=batched, text=text))
            text = f"{what[0].upper()}{what[1:]}: every thread that runs loses {{value}}"
            found.append(Answer(kind="cell", metric="loss", where=p, headline=headline, text=text))
            text = f"{what[0].upper()}{what[1:]}: interrupts of the CPU of a thread that {beside}: {{value}}"
            found.append(Answer(kind="cell", metric="tlb_interrupts", where=p, headline=False, text=text))
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        found = []
        for who, beside, rank in ((SPINNING, " while another thread runs", 44), (NONE, "", 46)):
            of = [p for p in cases if (p["operation"], p["pages"], p["bystander"]) == (GIVEN_BACK, 1, who)]
            text = f"give a page back{beside}"
            found += [Price(answer=Answer(kind="cell", metric="time", where=p, text=text), rank=rank) for p in of[:1]]
        return Card(prices=tuple(found))

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"operation": p["operation"], "pages": p["pages"], "bystander": p["bystander"]}

    def descriptors(self, p: Parameters, opened: ExitStack) -> list[int]:
        """The kernel's counts of interrupts where they can be read; elsewhere that metric is left out."""
        try:
            file = open_interrupts()
        except OSError:
            return []
        opened.callback(os.close, file)
        return [-1] * INTERRUPTS_SLOT + [file]

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        caller, *others = found.threads
        time = batch_quantile(caller, 0.5)
        metrics = {"time": time, "time_per_page": time / p["pages"]}
        if caller.value[COUNTED]:
            metrics["tlb_interrupts"] = float(median_interrupts(caller.value))
        if p["bystander"] in AWAKE and others[0].operations:
            loss = median_loss(others[0])
            metrics |= {"loss": loss} if loss < math.inf else {}  # it was away for whole time slices, in most calls
        return metrics

    def check(self, p: Parameters, found: Found) -> str:
        caller, *others = found.threads
        calls, value = caller.executed, caller.value
        if value[REFUSED]:
            return f"{value[REFUSED]} of {calls} calls were refused"
        if caller.check != calls:
            return f"the pages were as {p['operation']} leaves them after only {caller.check} of {calls} calls"
        if p["operation"] == "fault" and value[FAULTS] < calls * p["pages"]:
            return f"touching {calls * p['pages']} new pages brought only {value[FAULTS]} faults"
        if p["bystander"] == NONE:
            return ""
        (other,) = others
        slept = other.value[SLEPT]
        if p["bystander"] == SLEEPING:
            return "" if slept else "the bystander, which should sleep, did not"
        if slept * FEW > calls:
            return f"the bystander, which should run, slept {slept} times in {calls} calls"
        if other.check * 2 < calls:
            return f"the bystander ran before only {other.check} of {calls} calls"
        if p["bystander"] == READING and other.value[PAGES_READ] != other.check * p["pages"]:
            return f"only {other.value[PAGES_READ]} of the {other.check * p['pages']} pages that the bystander read were as they should be"
        return ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """`away`: the bystander was not there before many calls; `faults`: there were more than pages; `interrupts`: not as many as there should be."""
        caller = found.threads[0]
        value, reasons = caller.value, []
        if value[ABSENT] * FEW > caller.executed:
            reasons.append("away")
        if p["operation"] == "fault" and value[FAULTS] > caller.executed * p["pages"] * (1 + MORE_FAULTS):
            reasons.append("faults")
        counted, counts = value[COUNTED], value[INTERRUPTS]
        wanted = interrupts_of(p)
        if counts[wanted] < SURE * counted and not (counts[0] == counted and may_flush_silently()):
            most = max(range(len(counts)), key=counts.__getitem__)
            reasons.append(f"interrupts:{most} in most of {counted} calls, and not {wanted}")
        return reasons

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        """`interrupts_counted`: calls around which they were; `lost_ns`: of the bystander in the mean call; `turn_ns`: of its loop."""
        caller, *others = found.threads
        extra = {"interrupts_counted": float(caller.value[COUNTED])}
        if arguments["bystander"] in AWAKE and others[0].operations:
            other = others[0]
            extra |= {"lost_ns": other.value[LOST_NS] / other.operations, "turn_ns": float(other.value[TURN_NS])}
        return extra


def pair_relations(topology) -> tuple[str, ...]:
    """Relations of two CPUs, nearest first: siblings of one core, which take its units from each other whatever the kernel does, where there is nothing else; of
    one CPU by itself none."""
    known = [relation for relation in topology.relations() if relation != CROWDED]
    return tuple([r for r in known if r != "smt"] or known or [ALONE])


def interrupts_of(p: Parameters) -> int:
    """How many interrupts of the bystander's CPU one call takes where processors do not invalidate by broadcast: one when something is taken away, whatever the pages.
    Moving takes one for each of the page tables that the pages are in: with a page before them 512 are in two."""
    if p["bystander"] not in RUNNING or p["operation"] in NOTHING_TO_READ:
        return 0
    table = base_page() // 8  # entries
    return -(-(p["pages"] + 1) // table) if p["operation"] == "mremap" else 1


def median_interrupts(value) -> int:
    """Interrupts of the median call; 3 stands for more than 2."""
    seen, half = 0, value[COUNTED] / 2
    for number, count in enumerate(value[INTERRUPTS]):
        seen += count
        if seen >= half:
            return number
    return 0


def median_loss(bystander) -> float:
    """ns that the median call took from the bystander; 0 where no turn of its loop was long."""
    loss = batch_quantile(bystander, 0.5)
    return loss if loss > bystander.value[4] / FINE_BINS else 0.0


def what_is_done(p: Parameters) -> str:
    return WORDS[p["operation"]].format(pages="one page" if p["pages"] == 1 else f"{p['pages']} pages")


BENCHMARK = AddressSpace()
