"""What does it cost to map, protect, give back and unmap memory, and what does it cost the other threads?"""

from __future__ import annotations

import math
import os
import statistics
from typing import TYPE_CHECKING

from ..errors import MachineError
from ..host.counters import may_flush_silently, open_interrupts
from ..host.maps import SMAPS, open_smaps
from ..host.pages import BASE, THP, USUAL_THP, base_page, page_bytes, page_words
from ..kernel import FINE_BINS, USUAL_SLOT, batch_quantile, median_batch
from ..model import Answer, Axis, Card, Contrast, Price, View
from . import ALONE, CROWDED, KERNEL_PRICE, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node, place_threads

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import ExitStack

MMAP, FAULT, MPROTECT, DONTNEED, FREE, COLD, MUNMAP, MREMAP, COPY, COLLAPSE, SPLIT = OPERATIONS = (
    "mmap", "fault", "mprotect", "dontneed", "free", "cold", "munmap", "mremap", "copy", "collapse", "split",
)  # fmt: skip
#: What a call does to its pages, as sentences say it.
WORDS = {
    MMAP: "mapping {pages} (mmap)",
    FAULT: "touching {pages} for the first time",
    MPROTECT: "protecting {pages} from writing (mprotect)",
    DONTNEED: "giving {pages} back (MADV_DONTNEED)",
    FREE: "offering {pages} to the kernel (MADV_FREE)",
    COLD: "calling {pages} cold (MADV_COLD)",
    MUNMAP: "unmapping {pages} (munmap)",
    MREMAP: "moving {pages} to another address (mremap)",
    COPY: "copying {pages} to another address (memcpy)",
    COLLAPSE: "making {pages} of small ones (MADV_COLLAPSE)",
    SPLIT: "splitting {pages}, by giving a small one of each back,",
}
HEADLINES = (MPROTECT, DONTNEED, MUNMAP)
BATCH = 64  # pages of a call that is called a batch
PAGES = (1, 8, BATCH, 512)
PAGE_SIZES = (BASE, THP)
OF_HUGE = (COLLAPSE, SPLIT)  # for which there must be huge pages
MOST_HUGE = 64  # of one call, as in kernels/nb_range.h: each touches 128 MiB anew

NONE, SLEEPING, SPINNING, READING, PROCESS = BYSTANDERS = ("none", "sleeping", "spinning", "reading", "process")
RUNNING = (SPINNING, READING)  # as threads of the process
AWAKE = (*RUNNING, PROCESS)
#: What one does, and several do, as sentences say it.
DOES = {SLEEPING: "sleeps", SPINNING: "runs", READING: "reads the pages", PROCESS: "runs"}
DO = {SLEEPING: "sleep", SPINNING: "run", READING: "read the pages", PROCESS: "run"}
NOTHING_TO_READ = (MMAP, FAULT)  # before the call there are no pages
NOTHING_TAKEN = (*NOTHING_TO_READ, COPY)  # whose calls take nothing that a CPU could remember
READ = (MPROTECT, DONTNEED, MUNMAP, MREMAP)  # of the others, what a standard visit measures with a bystander that reads
HUGE = (FAULT, MPROTECT, DONTNEED, MUNMAP, MREMAP, COPY, *OF_HUGE)  # and with huge pages

#: Of `value`, as in kernels/address_space.c: of the thread that calls, and of each bystander.
COUNTED, CLASSES, INTERRUPTS, FAULTS, SMALL, REFUSED, ABSENT = 6, slice(7, 11), 11, 12, 13, 14, 15
SLEPT, TURNS, TURN_NS, LOST_NS, PAGES_READ = range(6, 11)
INTERRUPTS_SLOT, SMAPS_SLOT = 2, 7  # of the descriptors

#: Share of the calls that must have brought exactly as many interrupts as they should: what ran on that CPU before may add one now and then, and what runs there while the
#: bystander sleeps more.
SURE = 0.75
#: One of so many calls may come while the bystander sleeps (a fault that had to wait), or was away for long, or found small pages: the median call is beside one that runs, and on huge ones, all the same.
FEW = 8
#: A bystander that was there before fewer calls than one of so many does not run: on a busy machine it is away before many (`away`), and not before nearly all.
SELDOM = 32
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
        Axis(name="pages", summary="pages of one call", values=PAGES, log=True, least=1, most=512),
        Axis(name="page_size", summary="as in memory_latency; the pages of a call are of this size", values=PAGE_SIZES),
        Axis(name="bystander", summary="what other threads do, of the same process or of others", values=BYSTANDERS),
        Axis(name="bystanders", summary="how many do so, of those that there are", values=(1,), log=True, least=1),
        Axis(name="placement", summary="relation of the threads' CPUs", values=()),
    )
    contrasts = (Contrast(axis="bystander", control=NONE, metric="time"),)
    views = (
        View(
            title="Time of a call by its pages", metric="time", kind="line", x="pages", series="bystander", facet="operation",
            where={"page_size": BASE, "bystanders": 1},
        ),
        View(
            title="What a call takes from a thread that runs", metric="loss", kind="bar", x="operation", series="pages",
            where={"bystander": SPINNING, "page_size": BASE, "bystanders": 1},
        ),
        View(
            title="Interrupts of the bystander's CPU", metric="tlb_interrupts", kind="bar", x="operation", series="bystander",
            where={"pages": 1, "page_size": BASE, "bystanders": 1},
        ),
        View(
            title="Time of a call for huge pages", metric="time_per_page", kind="bar", x="operation", series="bystander",
            where={"pages": 1, "page_size": THP, "bystanders": 1},
        ),
    )  # fmt: skip
    method = {
        "counted": "the call alone, the median one",
        "pages": "written before, in a mapping of their own; the page tables of base pages stay",
        "huge": "of each call, by smaps",
        "bystander": "says before each call that it runs; has read all pages, or looks at the clock",
        "interrupts": "the row TLB of /proc/interrupts around further calls",
    }
    judges_gaps = False  # a call is no batch
    tolerates = KERNEL_PRICE
    judges_clock = False
    judges_overlap = False  # a bystander that runs says so before each call
    may_sleep = True
    touches_anew = True
    counts_pages = True
    needs_interrupt = True  # the same price by another call
    windows = 1.5  # half of one for the calls around which interrupts are counted
    most_samples = 1
    needs = "a CPU for each bystander"
    notes = (
        "What the bystander loses is the time in which it does not run. That its next accesses have to look addresses up again comes on top.",
        "0 interrupts beside a thread that runs: the processor invalidates by broadcast, or the hypervisor is asked to.",
    )

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = pair_relations(topology)
        near, far = relations[:1], relations[1:][-1:]
        one: Sweep = {"page_size": (BASE,), "bystanders": (1,), "placement": near}
        few: Sweep = {**one, "operation": HEADLINES, "pages": (1, BATCH), "bystander": (NONE, SLEEPING, SPINNING)}
        if profile == "quick":
            return [few]
        crowds = [
            {"bystanders": counts, "placement": (relation,)}
            for relation in (relations if profile == "full" else near)
            if (counts := crowds_of(topology, relation))
        ]
        if profile == "full":
            every: Sweep = {"operation": OPERATIONS, "pages": PAGES, "page_size": PAGE_SIZES}
            return [
                {**every, "bystander": BYSTANDERS, "bystanders": (1,), "placement": relations},
                *({**every, "pages": (1, BATCH), "bystander": BYSTANDERS[1:], **crowd} for crowd in crowds),
            ]
        return [
            {**one, "operation": OPERATIONS, "pages": PAGES, "bystander": (NONE, SPINNING)},
            {**one, "operation": OPERATIONS, "pages": (1,), "bystander": (SLEEPING,)},
            {**one, "operation": HEADLINES, "pages": (1,), "bystander": (PROCESS,)},
            {**one, "operation": READ, "pages": (1, BATCH), "bystander": (READING,)},
            {**one, "operation": HUGE, "pages": (1,), "page_size": (THP,), "bystander": (NONE, SPINNING)},
            {**one, "operation": (MREMAP, COPY), "pages": PAGES[1:2], "page_size": (THP,), "bystander": (NONE,)},
            *({**few, "pages": (1,), "bystander": (SPINNING,), **crowd} for crowd in crowds),
            *([{**few, "placement": far}] if far else []),
        ]

    def mediated(self, p: Parameters) -> bool:
        return True

    def waiters(self, p: Parameters) -> Collection[int]:
        """Who sleeps is woken now and then, and in the end."""
        return range(1, 1 + p["bystanders"]) if p["bystander"] == SLEEPING else ()

    def keep(self, p: Parameters, topology) -> bool:
        """Nothing to read, nobody to be many, small pages that are to be split, or more than can be touched for each call: no case."""
        if p["bystander"] == READING and p["operation"] in NOTHING_TO_READ:
            return False
        if p["page_size"] == BASE:
            return p["operation"] not in OF_HUGE and (p["bystander"] != NONE or p["bystanders"] == 1)
        return p["pages"] <= MOST_HUGE and (p["bystander"] != NONE or p["bystanders"] == 1)

    def group(self, p: Parameters) -> tuple:
        """In one process: whatever the bystanders, and moving beside copying."""
        operation = MREMAP if p["operation"] == COPY else p["operation"]
        return operation, p["pages"], p["page_size"], p["placement"]

    def place(self, p: Parameters, topology) -> Placement | None:
        alone = p["placement"] == ALONE
        cpus = place_threads(topology, p["placement"], 1 if alone else 1 + p["bystanders"])
        if not cpus or (alone and p["bystander"] != NONE):
            return None
        unit = page_bytes(p["page_size"])
        return Placement(
            cpus=cpus[:1] if p["bystander"] == NONE else cpus,
            node=memory_node(topology, topology.node_of(cpus[0])),
            size=(p["pages"] + 2) * unit,
            scratch=(p["pages"] + 1) * unit + p["bystanders"] * base_page(),
            page_size=p["page_size"],
        )

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found: list[Answer] = []
        for p in cases:
            if p["placement"] == cases[0]["placement"]:
                found += self.alone(p) if p["bystander"] == NONE else self.beside(p) if p["bystanders"] == 1 else self.crowd(p)
        return (*found, *self.crossings(cases))

    def alone(self, p: Parameters) -> list[Answer]:
        what = what_is_done(p)
        text = f"While no other thread runs, {what} takes {{value}}"
        found = [Answer(kind="cell", metric="time", where=p, headline=is_headline(p), text=text)]
        if p["operation"] == MREMAP:
            text, against = f"{capital(what)} takes {{value}} of what copying takes", {"operation": COPY}
            found.append(Answer(kind="ratio", metric="time", where=p, against=against, headline=False, text=text))
        return found

    def beside(self, p: Parameters) -> list[Answer]:
        """Of one bystander."""
        what, who, headline = what_is_done(p), p["bystander"], is_headline(p)
        beside, other = DOES[who], "another process" if who == PROCESS else "another thread of the process"
        text = f"While {other} {beside}, {what} takes {{value}}"
        found = [Answer(kind="cell", metric="time", where=p, headline=headline and who == SPINNING, text=text)]
        text, against = f"{capital(what)}: {other} that {beside} adds {{value}}", {"bystander": NONE}
        found.append(Answer(kind="difference", metric="time", where=p, against=against, headline=headline, text=text))
        text, exact = f"{capital(what)}: interrupts of the CPU on which {other} {beside}: {{value}}", headline and who == SPINNING
        found.append(Answer(kind="outcome", metric="tlb_interrupts", where=p, headline=exact, text=text))
        if who not in RUNNING:
            return found
        if p["pages"] == BATCH:
            text = f"While another thread of the process {beside}, {what} in one call takes {{value}} a page"
            batched = p["page_size"] == BASE and p["operation"] == DONTNEED and who == SPINNING
            found.append(Answer(kind="cell", metric="time_per_page", where=p, headline=batched, text=text))
        text = f"{capital(what)}: every thread that {beside} loses {{value}}"
        found.append(Answer(kind="cell", metric="loss", where=p, headline=headline, text=text))
        return found

    def crowd(self, p: Parameters) -> list[Answer]:
        """Of several bystanders, against one."""
        others = "other processes" if p["bystander"] == PROCESS else "other threads of the process"
        who = f"{capital(what_is_done(p))}: {p['bystanders']} {others} that {DO[p['bystander']]}"
        one = {"bystanders": 1}
        return [
            Answer(
                kind="difference",
                metric="time",
                where=p,
                against=one,
                headline=False,
                text=f"{who} add {{value}} to what one does",
            ),
            Answer(
                kind="outcome",
                metric="tlb_interrupts",
                where=p,
                headline=False,
                text=f"{who}: interrupts of their CPUs: {{value}}",
            ),
        ]

    def crossings(self, cases: list[Parameters]) -> list[Answer]:
        """From how many pages on moving takes less than copying."""
        there = dict.fromkeys(
            (p["page_size"], p["placement"]) for p in cases if p["operation"] == COPY and p["bystander"] == NONE
        )
        return [
            Answer(
                kind="crossover",
                metric="time",
                axis="pages",
                where={"operation": MREMAP, "page_size": size, "bystander": NONE, "bystanders": 1, "placement": placement},
                against={"operation": COPY},
                headline=False,
                text=f"By pages of {page_words(size)} that are moved at once, while no other thread runs: {{value}}",
            )
            for size, placement in there
        ]

    def card(self, topology, cases: list[Parameters]) -> Card:
        found = []
        for who, beside, rank in ((SPINNING, " while another thread runs", 44), (NONE, "", 46)):
            wanted = {"operation": DONTNEED, "pages": 1, "page_size": BASE, "bystander": who, "bystanders": 1}
            of = [p for p in cases if wanted.items() <= p.items()]
            text = f"give a page back{beside}"
            found += [Price(answer=Answer(kind="cell", metric="time", where=p, text=text), rank=rank) for p in of[:1]]
        return Card(prices=tuple(found))

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {name: p[name] for name in ("operation", "pages", "page_size", "bystander")}

    def descriptors(self, p: Parameters, opened: ExitStack) -> list[int]:
        """The kernel's counts of interrupts where they can be read; elsewhere that metric is left out. What tells huge pages from small ones, without which those cases are."""
        files = [-1] * (SMAPS_SLOT + 1)
        if p["page_size"] == THP:
            if (size := page_bytes(THP)) != USUAL_THP:
                raise MachineError(f"transparent huge pages are of {size >> 20} MiB here", "use a kernel with those of 2 MiB")
            try:
                files[SMAPS_SLOT] = open_smaps()
            except OSError as error:
                raise MachineError(
                    f"{SMAPS}, which tells huge pages from small ones, cannot be read ({error.strerror})",
                    "allow it, or choose --set page_size=4k",
                ) from error
            opened.callback(os.close, files[SMAPS_SLOT])
        try:
            files[INTERRUPTS_SLOT] = open_interrupts()
        except OSError:
            return files
        opened.callback(os.close, files[INTERRUPTS_SLOT])
        return files

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        caller, *others = found.threads
        time = median_batch(caller)
        metrics = {"time": time, "time_per_page": time / p["pages"]}
        if caller.value[COUNTED]:
            metrics["tlb_interrupts"] = usual_interrupts(caller.value, len(others))
        if p["bystander"] in AWAKE and all(other.operations for other in others):
            loss = statistics.median(map(median_loss, others))
            metrics |= {"loss": loss} if loss < math.inf else {}  # it was away for whole time slices, in most calls
        return metrics

    def check(self, p: Parameters, found: Found) -> str:
        caller, *others = found.threads
        calls, value = caller.executed, caller.value
        if value[REFUSED]:
            return f"{value[REFUSED]} of {calls} calls were refused"
        if caller.check != calls:
            return f"the pages were as {p['operation']} leaves them after only {caller.check} of {calls} calls"
        if p["operation"] == FAULT and not value[SMALL] and value[FAULTS] < calls * p["pages"]:
            return f"touching {calls * p['pages']} new pages brought only {value[FAULTS]} faults"
        return next(filter(None, (self.wrong(p, calls, other) for other in others)), "")

    def wrong(self, p: Parameters, calls: int, other) -> str:
        """What a bystander did not do that it should have done, or did and should not."""
        slept, pages = other.value[SLEPT], words_read(p)
        if p["bystander"] == SLEEPING:
            return "" if slept else "the bystander, which should sleep, did not"
        if slept * FEW > calls:
            return f"the bystander, which should run, slept {slept} times in {calls} calls"
        if other.check * SELDOM < calls:
            return f"the bystander ran before only {other.check} of {calls} calls"
        if p["bystander"] == READING and other.value[PAGES_READ] != other.check * pages:
            return f"only {other.value[PAGES_READ]} of the {other.check * pages} pages that the bystander read were as they should be"
        return ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """`away`: a bystander was not there before many calls; `faults`: there were more than pages; `small_pages`: where huge ones were asked for; `interrupts`: not as many as there
        should be."""
        caller = found.threads[0]
        value, reasons = caller.value, []
        if value[ABSENT] * FEW > caller.executed:
            reasons.append("away")
        if value[SMALL] * FEW > caller.executed:
            reasons.append("small_pages")
        if p["operation"] == FAULT and value[FAULTS] > caller.executed * p["pages"] * (1 + MORE_FAULTS):
            reasons.append("faults")
        counted, counts = value[COUNTED], value[CLASSES]
        wanted = interrupts_of(p)
        if sum(counts[k] for k in wanted) < SURE * counted and not (counts[0] == counted and may_flush_silently()):
            most = max(range(len(counts)), key=counts.__getitem__)
            said = str(most) if most < OTHERWISE else "another number"
            reasons.append(f"interrupts:{said} in most of {counted} calls, and not {wanted[0]}")
        return reasons

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        """`interrupts_counted`: calls around which they were; `interrupts_mean`: of these, on all CPUs of bystanders; `lost_ns`: of a bystander in the mean call; `turn_ns`: of its loop."""
        caller, *others = found.threads
        counted = caller.value[COUNTED]
        extra = {"interrupts_counted": float(counted)}
        if counted:
            extra["interrupts_mean"] = caller.value[INTERRUPTS] / counted
        if arguments["bystander"] in AWAKE and all(other.operations for other in others):
            extra |= {
                "lost_ns": statistics.fmean(other.value[LOST_NS] / other.operations for other in others),
                "turn_ns": statistics.median(float(other.value[TURN_NS]) for other in others),
            }
        return extra


def pair_relations(topology) -> tuple[str, ...]:
    """Relations of two CPUs, nearest first: siblings of one core, which take its units from each other whatever the kernel does, where there is nothing else; of
    one CPU by itself none."""
    known = [relation for relation in topology.relations() if relation != CROWDED]
    return tuple([r for r in known if r != "smt"] or known or [ALONE])


def crowds_of(topology, relation: str) -> tuple[int, ...]:
    """Numbers of bystanders beyond one that there are CPUs for: 2, 4, 8 ..."""
    counts = []
    while relation != ALONE and topology.choose_cpus(relation, 2 ** (len(counts) + 1) + 1):
        counts.append(2 ** (len(counts) + 1))
    return tuple(counts)


#: Of the classes that calls are counted in: no interrupt of the bystanders' CPUs, one or two of each, and any other number.
NO_INTERRUPT, ONE_EACH, TWO_EACH, OTHERWISE = range(4)


def interrupts_of(p: Parameters) -> tuple[int, ...]:
    """In which classes a call may be where processors do not invalidate by broadcast: one interrupt of each bystander that runs when something is taken away, whatever the pages.
    Moving takes one for each of the page tables that the pages are in: with a page before them 512 are in two. How many times kernels do it for huge pages is their own affair, and page tables that
    are freed interrupt who sleeps as well."""
    huge = p["page_size"] == THP
    if p["operation"] in NOTHING_TAKEN or p["bystander"] in (NONE, PROCESS):
        return (NO_INTERRUPT,)
    if p["bystander"] == SLEEPING:
        return (NO_INTERRUPT, ONE_EACH, TWO_EACH, OTHERWISE) if huge else (NO_INTERRUPT,)
    if huge:
        return ONE_EACH, TWO_EACH, OTHERWISE
    table = base_page() // 8  # entries
    return (-(-(p["pages"] + 1) // table) if p["operation"] == MREMAP else ONE_EACH,)


def usual_interrupts(value, bystanders: int) -> float:
    """Interrupts of the usual call, on all CPUs of bystanders: those of the class that most calls are in."""
    counts = value[CLASSES]
    most = max(range(len(counts)), key=counts.__getitem__)
    return float(most * bystanders) if most < OTHERWISE else value[INTERRUPTS] / value[COUNTED]


def words_read(p: Parameters) -> int:
    """Pages of which a bystander reads a word: small ones, where huge ones come and go."""
    return p["pages"] * (page_bytes(THP) // base_page() if p["operation"] in OF_HUGE else 1)


def median_loss(bystander) -> float:
    """ns that the median call took from the bystander; 0 where no turn of its loop was long."""
    loss = batch_quantile(bystander, 0.5)
    return loss if loss > bystander.value[USUAL_SLOT] / FINE_BINS else 0.0


def what_is_done(p: Parameters) -> str:
    kind = "page" if p["page_size"] == BASE else "huge page"
    return WORDS[p["operation"]].format(pages=f"one {kind}" if p["pages"] == 1 else f"{p['pages']} {kind}s")


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def is_headline(p: Parameters) -> bool:
    few = p["operation"] in HEADLINES and (p["pages"], p["page_size"], p["bystanders"]) == (1, BASE, 1)
    return few and p["bystander"] in (NONE, SLEEPING, SPINNING)


BENCHMARK = AddressSpace()
