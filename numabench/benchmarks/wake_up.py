"""What does it cost to wake a thread that sleeps?"""

from __future__ import annotations

import os
import select
from collections.abc import Collection, Sequence
from contextlib import ExitStack

from ..host.pages import base_page
from ..kernel import LONGEST_SLOT, P99, has_tail, histogram_quantile, median_batch
from ..model import Answer, Axis, Card, Contrast, Price, Tile, View
from . import (
    KERNEL_PRICE,
    RELATION_NAMES,
    RELATION_WORDS,
    SAME_CPU,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    memory_node,
    nearest_cores_first,
    place_threads,
)
from ._ends import keep_open, need_uring, pipe, tcp, unix

FUTEX, IO_URING = "futex", "io_uring"
PRIMITIVES = (FUTEX, "condition", "eventfd", "pipe", "unix_socket", "tcp", "signal", "epoll_level", "epoll_edge", IO_URING)
FEW = (
    FUTEX,
    "condition",
    "eventfd",
    "tcp",
    "epoll_edge",
)  # of the quick profile: one of each kind that runtimes park threads with
WORDS = {
    FUTEX: "a futex",
    "condition": "a condition variable",
    "eventfd": "an eventfd",
    "pipe": "a pipe",
    "unix_socket": "a Unix socket",
    "tcp": "TCP over loopback",
    "signal": "a signal that it waits for",
    "epoll_level": "epoll, level-triggered",
    "epoll_edge": "epoll, edge-triggered",
    IO_URING: "a read through io_uring",
}
_, HALTED, AWAKE, SPINNING = TARGETS = (SAME_CPU, "other_halted", "other_awake", "spinning")
GAP, GAPS = 50_000, (0, 50_000, 1_000_000)  # ns
SLEEPS_FROM = 20_000  # ns of gap from which on the receiver must have fallen asleep: a park takes some 3 us
LEAST_SLEPT = 0.5  # of those, or it polls: the rest were interrupted between saying that they wait and the call in which they do,
USUALLY_SLEPT = 0.9  # which happens to one in eight on a busy machine
LEAST_AWAKE = 0.5  # of wake-ups before which the spinner ran; else another program had its CPU
SHORT_WINDOW = 0.5  # is enough: some 200 wake-ups
LONG_WINDOWS = 2.0  # at gaps of a millisecond or more, of which a window has too few
LONG_GAP = 1_000_000
BYTES = 16 * 1024  # of what both threads share (kernels/wake_up.c), with lines of 256 bytes
STACK = 128 * 1024  # bytes, of the spinner
SENT = {"pipe": pipe, "unix_socket": unix, "tcp": tcp}
WAITS = 5  # the slot of what epoll_wait waits with
CALL_PS_SLOT, EARLY_SLOT = 6, 7  # of the waker's `value`
SLEPT_SLOT, OUT_OF_ORDER_SLOT, AWAKE_SLOT = 6, 7, 8  # of the receiver's


class WakeUp(Benchmark):
    name = kernel = "wake_up"
    rank = 22
    topic = "runtime"
    phase = "alpha"
    title = "Waking a thread"
    question = "What does it cost to wake a thread that sleeps, and to whom?"
    expected = (
        "On the same CPU it is two system calls and a context switch, 2 to 5 us. A CPU that is halted must be interrupted first and leave its idle state: some us on bare "
        "metal, 15 to 40 us in a virtual machine, where both are exits to the hypervisor. A receiver that spins has it within a hop of the line or one system call. "
        "Files and sockets cost their own way through the kernel on top."
    )
    axes = (
        Axis(name="primitive", summary="what the receiver waits for", values=PRIMITIVES),
        Axis(
            name="target",
            summary="where the receiver waits: on the waker's CPU, on another one that is idle or that a thread of class SCHED_IDLE keeps awake; spinning never sleeps",
            values=TARGETS,
        ),
        Axis(
            name="idle_gap",
            summary="for how long the receiver is left alone before each wake-up",
            values=GAPS,
            unit="ns",
            least=0,
            most=100_000_000,
        ),
        Axis(name="placement", summary="relation of the two CPUs; same_cpu: one CPU", values=(SAME_CPU,)),
    )
    contrasts = (
        Contrast(axis="primitive", control=FUTEX, metric="wake_time"),
        Contrast(axis="target", control=HALTED, metric="wake_time"),
    )
    views = tuple(
        View(title=title, metric=metric, kind="bar", x="primitive", series="target", facet="placement", where={"idle_gap": GAP})
        for metric, title in (("wake_time", "From the wake-up to the receiver"), ("waker_time", "The waker's own time"))
    )
    method = {
        "one way": "from just before the call that wakes to the return of the call that waited",
        "wait": "without a time limit",
        "same CPU": "the waker yields after each wake-up",
        "message": "8 bytes of an eventfd (io_uring too), 4 of pipes and sockets, a queued signal",
    }
    notes = (
        "`slept` is the share of wake-ups before which the receiver gave up its CPU of its own accord, by the kernel's count of its voluntary context switches.",
        "The waker's time on the same CPU holds the receiver's turn, where the kernel lets the receiver run at once.",
        "With epoll the message is read after the wake-up, which is one system call more; edge-triggered it need not be.",
    )
    judges_gaps = False  # threads sleep by design
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    judges_clock = False
    may_sleep = True
    most = {"slept": 1.0}
    needs = "a CPU"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        ends = relations[:1] + relations[1:][-1:]
        others = tuple(target for target in TARGETS if target != SAME_CPU)

        def both(primitives: Sequence[str], gaps: Sequence[int], placements: Sequence[str]) -> list[Sweep]:
            return [
                {"primitive": primitives, "target": (SAME_CPU,), "idle_gap": gaps, "placement": (SAME_CPU,)},
                *([{"primitive": primitives, "target": others, "idle_gap": gaps, "placement": placements}] if placements else []),
            ]

        if profile == "quick":
            return both(FEW, (GAP,), ends)
        if profile == "full":
            return both(PRIMITIVES, GAPS, relations)
        gaps = tuple(gap for gap in GAPS if gap != GAP)
        return [*both(PRIMITIVES, (GAP,), ends), *both((FUTEX,), (GAP,), relations), *both((FUTEX, "eventfd"), gaps, ends[:1])]

    def mediated(self, p: Parameters) -> bool:
        return p["target"] != SPINNING

    def keep(self, p: Parameters, topology) -> bool:
        return (p["target"] == SAME_CPU) == (p["placement"] == SAME_CPU)

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, str(p["placement"]), 2)
        if not cpus or not self.keep(p, topology):
            return None
        scratch = STACK if p["target"] == AWAKE else 0
        return Placement(
            cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=max(BYTES, base_page()), scratch=scratch
        )

    def waiters(self, p: Parameters) -> Collection[int]:
        return () if p["target"] == SPINNING else (1,)  # from being woken until its CPU is awake

    def stretch(self, p: Parameters) -> float:
        return LONG_WINDOWS if p["idle_gap"] >= LONG_GAP else SHORT_WINDOW

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            usual, primitive = p["idle_gap"] == GAP, WORDS[p["primitive"]]
            if p["target"] != SPINNING and (not usual or p["primitive"] == FUTEX):
                after = f" left alone for {p['idle_gap'] // 1000} us" if p["idle_gap"] else " not left alone"
                found.append(
                    self.cell(
                        p, "slept", f"A thread{after} slept before {{value}} of its wake-ups by {primitive} ({place(p)})", False
                    )
                )
            if p["primitive"] == FUTEX or not usual:
                text = f"{waking(p)} takes {{value}} by {primitive}{'' if usual else idle(p['idle_gap'])}"
                found.append(self.cell(p, "wake_time", text, usual))
            if usual:
                found.append(self.cell(p, "waker_time", f"{waking(p)} keeps the waker for {{value}} by {primitive}", False))
            if usual and p["primitive"] != FUTEX:
                text = f"{waking(p)} takes {{value}} more by {primitive} than by {WORDS[FUTEX]}"
                headline = p["target"] in (SAME_CPU, HALTED)
                found.append(
                    Answer(
                        kind="difference",
                        metric="wake_time",
                        where=p,
                        against={"primitive": FUTEX},
                        headline=headline,
                        text=text,
                    )
                )
            if usual and p["primitive"] == FUTEX and p["target"] == AWAKE:
                text = f"Waking a thread on {where(p)} takes {{value}} of the time where that CPU is kept awake"
                found.append(
                    Answer(kind="ratio", metric="wake_time", where=p, against={"target": HALTED}, headline=False, text=text)
                )
        return tuple(found)

    def cell(self, p: Parameters, metric: str, text: str, headline: bool = True) -> Answer:
        return Answer(kind="cell", metric=metric, where=p, headline=headline, text=text)

    def card(self, topology, cases: list[Parameters]) -> Card:
        """By a futex: on the same CPU, and on another one, nearest first."""
        plain = [p for p in cases if p["primitive"] == FUTEX and p["idle_gap"] == GAP and p["target"] in (SAME_CPU, HALTED)]
        plain.sort(key=lambda p: (p["target"] != SAME_CPU, nearest_cores_first(str(p["placement"]))))
        other = [p for p in plain if p["target"] == HALTED][:1]
        notes = tuple(self.cell(p, "wake_time", "{value} on the same CPU") for p in plain if p["target"] == SAME_CPU)
        words = "waking a thread that sleeps on another CPU, by a futex"
        return Card(
            tiles=tuple(Tile(subject="wake-up", answer=self.cell(p, "wake_time", words), rank=62, notes=notes) for p in other),
            prices=tuple(
                Price(
                    answer=self.cell(
                        p, "wake_time", f"wake a sleeping thread, {RELATION_NAMES.get(str(p['placement']), 'same CPU')}"
                    ),
                    rank=36 + position,
                )
                for position, p in enumerate(plain)
            ),
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"primitive": p["primitive"], "target": p["target"], "idle_gap": p["idle_gap"]}

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        """A message's way in and out; in slot 5 the epoll instance that waits for the second."""
        primitive = p["primitive"]
        if primitive == IO_URING:
            need_uring()
        if primitive in ("eventfd", "epoll_level", "epoll_edge", IO_URING):
            counter = keep_open(os.eventfd(0), opened)
            if primitive in ("eventfd", IO_URING):
                return counter, counter
            waits = opened.enter_context(select.epoll())
            waits.register(counter, select.EPOLLIN | (select.EPOLLET if primitive == "epoll_edge" else 0))
            return counter, counter, *[-1] * (WAITS - 2), waits.fileno()
        if primitive in SENT:
            return SENT[primitive](opened)
        return ()

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        waker, receiver = found.threads
        metrics = {"wake_time": median_batch(waker), "waker_time": waker.value[CALL_PS_SLOT] / 1000}
        if receiver.operations:
            metrics["slept"] = receiver.value[SLEPT_SLOT] / receiver.operations
        if has_tail(receiver.operations, P99):
            metrics["wake_p99"] = min(histogram_quantile(list(receiver.histogram), P99), receiver.value[LONGEST_SLOT])
        return metrics

    def check(self, p: Parameters, found: Found) -> str:
        """Each wake-up arrived once and in order; who was to sleep did, and who was to spin did not."""
        waker, receiver = found.threads
        value = receiver.value
        if value[OUT_OF_ORDER_SLOT]:
            return f"{value[OUT_OF_ORDER_SLOT]} wake-ups were out of order, or came twice"
        if starved(p, found):
            return ""
        if not waker.executed == waker.check == receiver.check:
            return f"{waker.executed} wake-ups were sent, {receiver.check} arrived"
        if waker.value[EARLY_SLOT]:
            return f"{waker.value[EARLY_SLOT]} wake-ups arrived before they were sent: the clocks of the CPUs differ"
        if waker.operations != receiver.operations:
            return f"{waker.operations} wake-ups in the waker's window, {receiver.operations} in the receiver's"
        slept = f"the receiver slept before {value[SLEPT_SLOT]} of {receiver.operations} wake-ups"
        if p["target"] == SPINNING:
            return slept if value[SLEPT_SLOT] > (1 - LEAST_SLEPT) * receiver.operations else ""
        if p["idle_gap"] < SLEEPS_FROM:
            return ""
        return slept if value[SLEPT_SLOT] < LEAST_SLEPT * receiver.operations else ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """Another program had the receiver's CPU: the spinner waited for it, or the receiver on its way into its sleep."""
        receiver, most = found.threads[1], found.threads[1].operations
        if starved(p, found):
            return ["run_delay"]
        if p["target"] == SPINNING or p["idle_gap"] < SLEEPS_FROM:
            return []
        waited = p["target"] == AWAKE and receiver.value[AWAKE_SLOT] < LEAST_AWAKE * most
        return ["run_delay"] if waited or receiver.value[SLEPT_SLOT] < USUALLY_SLEPT * most else []


def starved(p: Parameters, found: Found) -> bool:
    """Whether a wake-up came too late beside a spinner of the idle class, which gets no CPU on a busy machine and may hold what others wait for. A primitive that
    loses wake-ups loses them without a spinner as well."""
    waker, receiver = found.threads
    return p["target"] == AWAKE and not waker.executed == waker.check == receiver.check


def place(p: Parameters) -> str:
    return "the same CPU" if p["target"] == SAME_CPU else f"{where(p)}{', kept awake' if p['target'] == AWAKE else ''}"


def where(p: Parameters) -> str:
    """`another CPU (CPUs that share an L3)`."""
    return f"another CPU ({RELATION_WORDS[p['placement']]})"


def waking(p: Parameters) -> str:
    """What is done, as an answer begins."""
    return {
        SAME_CPU: "Waking a thread that sleeps on the same CPU",
        HALTED: f"Waking a thread that sleeps on {where(p) if p['target'] != SAME_CPU else ''}",
        AWAKE: f"Waking a thread that sleeps on {where(p) if p['target'] != SAME_CPU else ''}, kept awake,",
        SPINNING: f"Reaching a thread that spins on {where(p) if p['target'] != SAME_CPU else ''}",
    }[p["target"]]


def idle(gap: int) -> str:
    return f", {gap // 1000} us after it began to wait" if gap else ", at once after the one before"


BENCHMARK = WakeUp()
