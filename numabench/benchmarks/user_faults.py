"""What does it cost when a program serves its own page faults?"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack

from ..errors import MachineError
from ..kernel import median_batch, tail
from ..model import ALPHA, Answer, Axis, Card, Price, View
from . import (
    ALONE,
    CROWDED,
    KERNEL_PRICE,
    RELATION_WORDS,
    SAME_CPU,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    memory_node,
    place_threads,
)

KERNEL, AHEAD, HANDLER, SPINNER = "kernel", "copy_ahead", "handler", "handler_spins"
OWN = (KERNEL, "protect", "sigbus", AHEAD)  # by the thread itself
METHODS = (*OWN, HANDLER, SPINNER)
COPIES = ("sigbus", AHEAD, HANDLER, SPINNER)  # that ask for a userfaultfd
SERVED_SLOT, EVENTS_SLOT = 6, 7  # of `value`, as in kernels/user_faults.c
PAGE = 4096
PAGES = 512  # touched before they are taken away again
BATCHES = (1, 8, 64)  # of them that are served for one fault
USERFAULTFD = {"x86_64": 323, "aarch64": 282}  # number of the system call
USER_MODE_ONLY = 1  # faults of programs alone: allowed to everybody since Linux 5.11
WORDS = {
    KERNEL: "A fault that the kernel serves (a page of zeros)",
    "protect": "A fault on a forbidden page, allowed by the handler of a signal (SIGSEGV and mprotect)",
    "sigbus": "A fault that the thread itself serves by a copy in the handler of a signal (userfaultfd, SIGBUS)",
    "copy_ahead": "Copying a page to its place before it is touched (UFFDIO_COPY)",
}


class UserFaults(Benchmark):
    name = kernel = "user_faults"
    rank = 32
    topic = "runtime"
    phase = ALPHA
    title = "Page faults served by the program"
    question = "What does it cost when a program serves its own page faults?"
    expected = (
        "The kernel's own fault takes about a microsecond. A signal handler adds the delivery of a signal and the return from it, and a call that fills or allows the page. "
        "A handler's thread adds two switches on one CPU, two wake-ups between CPUs, of which a handler that never sleeps saves one. Served in batches, all of that is shared by the pages of one; what stays is the copy of each."
    )
    axes = (
        Axis(name="method", summary="who serves a fault, and how", values=METHODS),
        Axis(name="batch", summary="pages that are served for one fault", values=BATCHES, log=True, least=1, most=64),
        Axis(name="placement", summary="alone; or relation of the handler's CPU to the toucher's", values=()),
    )
    views = (
        View(title="Time of a touch", metric="time", kind="bar", x="method", series="placement", where={"batch": 1}),
        View(
            title="Time of a touch by pages served at a time",
            metric="time",
            kind="line",
            x="batch",
            series="method",
            facet="placement",
        ),
    )
    method = {"pages": PAGES, "page_bytes": PAGE, "touch": "written, then read"}
    notes = ("Pages are taken away by MADV_DONTNEED after all were touched, or forbidden by mprotect; neither is counted.",)
    judges_gaps = False
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    judges_overlap = False  # a handler serves before and after the window
    may_sleep = True
    needs = "a CPU of its own for a handler that never sleeps"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        relations = relations[:1] if profile == "quick" else relations
        batches = BATCHES[:1] if profile == "quick" else BATCHES
        beside = {"method": (HANDLER,), "batch": batches, "placement": (SAME_CPU,)}
        apart = [{"method": (HANDLER, SPINNER), "batch": batches, "placement": relations}] if relations else []
        return [{"method": OWN, "batch": batches, "placement": (ALONE,)}, beside, *apart]

    def keep(self, p: Parameters, topology) -> bool:
        return p["method"] != KERNEL or p["batch"] == 1  # which serves one page at a time

    def mediated(self, p: Parameters) -> bool:
        return True

    def waiters(self, p: Parameters) -> Collection[int]:
        """Who touches sleeps until its page is there; a handler until it is asked."""
        return {HANDLER: (0, 1), SPINNER: (0,)}.get(p["method"], ())

    def place(self, p: Parameters, topology) -> Placement | None:
        spins_beside = p["placement"] == SAME_CPU and p["method"] == SPINNER  # which would keep the other from touching
        own = p["method"] in OWN
        if spins_beside or p["placement"] == CROWDED or own != (p["placement"] == ALONE):
            return None
        cpus = place_threads(topology, p["placement"], 1 if own else 2)
        node = cpus and memory_node(topology, topology.node_of(cpus[0]))
        return cpus and Placement(cpus=tuple(cpus), node=node, size=(1 + p["batch"]) * PAGE, scratch=PAGES * PAGE)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            text = WORDS.get(p["method"])
            if text is None:
                where = "of the same CPU" if p["placement"] == SAME_CPU else f"on {RELATION_WORDS[p['placement']]}"
                sleeps = "that sleeps" if p["method"] == HANDLER else "that never sleeps"
                text = f"A fault that a thread {sleeps} serves, {where},"
            takes = "takes {value}" if p["batch"] == 1 else f"takes {{value}} a page if it brings {p['batch']} pages"
            headline = p["method"] != AHEAD and p["batch"] == 1
            if p["method"] == AHEAD and p["batch"] > 1:
                text, takes = (
                    f"Copying {p['batch']} pages to their places before they are touched (UFFDIO_COPY)",
                    "takes {value} a page",
                )
            found.append(Answer(kind="cell", metric="time", where=p, headline=headline, text=f"{text.rstrip(',')} {takes}"))
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        where = {"method": "protect", "batch": 1, "placement": ALONE}
        return Card(
            prices=(Price(answer=Answer(kind="cell", metric="time", where=where, text="caught write (mprotect)"), rank=47),)
        )

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        if p["method"] not in COPIES:
            return ()
        number = USERFAULTFD.get(os.uname().machine)
        library = ctypes.CDLL(None, use_errno=True)
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        for more in (USER_MODE_ONLY, 0):  # 0: before Linux 5.11, to whoever may
            file = library.syscall(number, flags | more) if number is not None else -1
            if file >= 0:
                opened.callback(os.close, file)
                return (file,)
        code = ctypes.get_errno() if number is not None else errno.ENOSYS
        raise MachineError(
            f"this kernel gives no userfaultfd ({os.strerror(code)})",
            "sudo sysctl vm.unprivileged_userfaultfd=1; in a container, a seccomp profile that allows userfaultfd",
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"method": p["method"], "batch": p["batch"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        thread = found.threads[0]
        return {"time": median_batch(thread) / p["batch"], **tail(thread, "p99")}

    def check(self, p: Parameters, found: Found) -> str:
        thread = found.threads[0]
        served, events = thread.value[SERVED_SLOT], thread.value[EVENTS_SLOT]
        pages = thread.executed * p["batch"]
        if thread.check != pages:
            return f"{pages - thread.check} of {pages} pages did not hold what they are to hold"
        if served != (0 if p["method"] == KERNEL else events):
            return f"{served} faults were served of {events}, of {p['batch']} pages each"
        return ""


BENCHMARK = UserFaults()
