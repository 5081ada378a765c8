"""What does a signal that interrupts a thread cost: who sends it, until its handler runs, and the thread that is interrupted?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from ..model import ALPHA, Answer, Axis, Card, Contrast, Price, View
from . import (
    ALONE,
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
from ._ends import pipe

SELF, SELF_GO, RUNNING, SLEEPING, BLOCKED = TARGETS = ("self", "self_go", "other_running", "other_sleeping", "other_blocked")
OWN, OTHERS = TARGETS[:2], TARGETS[2:]
SENT_SLOT, CALL_SLOT, HANDLED_SLOT, IN_ORDER_SLOT, ON_STACK_SLOT = 6, 7, 8, 9, 10  # of `value`, as in kernels/signals.c
SLEPT_SLOT, READS_SLOT, INTERRUPTED_SLOT, LOSS_SLOT, SWITCHES_SLOT = 11, 12, 13, 14, 15
MEDIAN_SLOT = 2  # of nb_each: ps of the median event
BYTES = 128 << 10  # what the threads tell each other, and the alternate stack (64 KiB)
#: Voluntary switches of a thread that runs, for each signal: it never sleeps by itself, and one that slept would for each. What else the kernel makes it wait for is rare.
MOST_SWITCHES = 0.01
WHOM = {
    SELF: "the thread itself",
    SELF_GO: "the thread itself, on an alternate stack with siginfo",
    RUNNING: "a thread that runs",
    SLEEPING: "a thread that sleeps on a futex",
    BLOCKED: "a thread that blocks in a read",
}
READY = "a thread that is ready to run"  # what one that runs is on the CPU of who sends


class Signals(Benchmark):
    name = kernel = "signals"
    rank = 21
    topic = "runtime"
    phase = ALPHA
    title = "Signals"
    question = "What does a signal that interrupts a thread cost who sends it, until its handler runs, and the thread that is interrupted?"
    expected = (
        "A thread that signals itself takes 8 to 20 system calls until it goes on: the kernel saves its registers on the stack, and takes them back by another call. One that runs on another CPU has to be interrupted "
        "there: some microseconds, ten and more in virtual machines, where the interrupt leaves the guest. One that sleeps has to be woken as well. What a running thread loses is what one that signals itself takes, and the interrupt."
    )
    axes = (
        Axis(name="target", summary="who is interrupted, in which state", values=TARGETS),
        Axis(
            name="placement", summary="relation of the CPUs of who sends and who is interrupted; same_cpu: both on one", values=()
        ),
    )
    contrasts = (Contrast(axis="target", control=SELF, metric="call"),)
    views = (
        View(title="Time to the handler", metric="to_handler", kind="bar", x="target", series="placement"),
        View(title="Time of the sender in the call", metric="call", kind="bar", x="target", series="placement"),
        View(title="What a running thread loses to a signal", metric="loss", kind="bar", x="placement"),
    )
    method = {
        "signal": "SIGURG, by tgkill, one at a time",
        "handler": "siginfo, alternate stack, restarting, all signals masked; `self`: none of these",
        "figures": "medians",
    }
    notes = (
        "Each signal is awaited before the next: what a burst of them costs, which the kernel merges, is another question.",
        "The loss is what the clock of the thread itself shows. That its caches are colder afterwards is not in it.",
    )
    judges_gaps = False  # to be interrupted is what is measured
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    judges_overlap = False  # the other thread begins with the first signal of the window
    needs_interrupt = True
    may_sleep = True

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        relations = relations[:1] + relations[1:][-1:] if profile == "quick" else (SAME_CPU, *relations)
        return [{"target": OWN, "placement": (ALONE,)}, *([{"target": OTHERS, "placement": relations}] if relations else [])]

    def mediated(self, p: Parameters) -> bool:
        return True

    def place(self, p: Parameters, topology) -> Placement | None:
        if (p["placement"] == ALONE) != (p["target"] in OWN):
            return None
        cpus = place_threads(topology, p["placement"], 1 if p["target"] in OWN else 2)
        return cpus and Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=BYTES)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            whom = WHOM[p["target"]]
            if p["target"] in OWN:
                found.append(self.cell(p, "call", f"A signal to {whom} takes {{value}} until it goes on", p["target"] == SELF_GO))
                continue
            same = p["placement"] == SAME_CPU
            whom = READY if same and p["target"] == RUNNING else whom
            where = f"{whom} ({'on the CPU of the sender' if same else RELATION_WORDS[p['placement']]})"
            found.append(
                self.cell(
                    p,
                    "to_handler",
                    f"Interrupting {where} takes {{value}} until its handler runs",
                    p["target"] != BLOCKED and not same,
                )
            )
            found.append(
                self.cell(p, "call", f"Interrupting {where} takes {{value}} of the sender", p["target"] == RUNNING and not same)
            )
            if p["target"] == RUNNING and not same:
                found.append(self.cell(p, "loss", f"Interrupting {where} takes {{value}} from it"))
        return tuple(found)

    def cell(self, where: Parameters, metric: str, text: str, headline: bool = True) -> Answer:
        return Answer(kind="cell", metric=metric, where=where, text=text, headline=headline)

    def card(self, topology, cases: list[Parameters]) -> Card:
        others = [p for p in cases if p["target"] == RUNNING and p["placement"] != SAME_CPU]
        nearest = sorted(others, key=lambda p: nearest_cores_first(p["placement"]))[:1]
        return Card(
            prices=tuple(
                Price(answer=self.cell(p, "to_handler", f"signal to a running thread, {RELATION_NAMES[p['placement']]}"), rank=46)
                for p in nearest
            )
        )

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        return pipe(opened, flags=0) if p["target"] == BLOCKED else ()

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"target": p["target"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        sender, receiver = found.threads[0], found.threads[-1]
        own = {"to_handler": sender.value[MEDIAN_SLOT] / 1000, "call": sender.value[CALL_SLOT] / 1000}
        return own | ({"loss": receiver.value[LOSS_SLOT] / 1000} if p["target"] == RUNNING and p["placement"] != SAME_CPU else {})

    def check(self, p: Parameters, found: Found) -> str:
        """The handler ran once for each signal, in their order and on the stack that it is to have; the thread was in the state that it is to be in."""
        sender, receiver, target = found.threads[0], found.threads[-1].value, p["target"]
        sent, handled = sender.value[SENT_SLOT], receiver[HANDLED_SLOT]
        if not sent or handled != sent:
            return f"{sent} signals were sent, of which {handled} were handled"
        if target not in (SLEEPING, BLOCKED) and sent != sender.executed:
            return f"{sent} signals were sent in {sender.executed} events, which have one each: one was lost"
        if receiver[IN_ORDER_SLOT] != sent:
            return f"{sent - receiver[IN_ORDER_SLOT]} of {sent} signals were handled when another one was sent"
        if receiver[ON_STACK_SLOT] != (0 if target == SELF else sent):
            return f"{receiver[ON_STACK_SLOT]} of {sent} handlers ran on the alternate stack"
        if target in (SLEEPING, BLOCKED) and receiver[SLEPT_SLOT] != sender.executed:
            return f"the thread slept before {receiver[SLEPT_SLOT]} of {sender.executed} signals"
        if target == RUNNING and receiver[SWITCHES_SLOT] > max(1, MOST_SWITCHES * sent):
            return f"the thread that is to run slept {receiver[SWITCHES_SLOT]} times in {sent} signals"
        if target == BLOCKED and receiver[INTERRUPTED_SLOT]:
            return f"{receiver[INTERRUPTED_SLOT]} of {sent} reads were ended by a signal"
        if target == BLOCKED and receiver[READS_SLOT] != sent:
            return f"{receiver[READS_SLOT]} of {sent} reads brought what was written after their signal"
        return ""

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        return {"signals": float(found.threads[0].value[SENT_SLOT])}


BENCHMARK = Signals()
