"""What does a thread lose that is interrupted so many times a second?"""

from __future__ import annotations

from ..model import ALPHA, Answer, Axis, View
from ..units import format_bytes
from . import (
    KERNEL_PRICE,
    MOST_APART,
    RELATION_WORDS,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    memory_node,
    place_threads,
)

KIB = 1024
RATES = (1000, 10_000)
FOOTPRINTS = (0, 16 * KIB, 256 * KIB)  # registers alone; memory within a first cache and within a second one
PRICE_SLOT, LOST_SLOT, ACHIEVED_SLOT, PAIRS_SLOT = 6, 7, 8, 9  # of `value`, as in kernels/preemption.c
HANDLED_SLOT, IN_ORDER_SLOT, ON_STACK_SLOT, SENT_SLOT = 10, 11, 12, 13
BYTES = (96 << 10) + 16 * MOST_APART  # what the threads tell each other, pairs of slices, and the alternate stack
MULTIPLIES, FACTOR = 64, 0x9E3779B97F4A7C15  # of a turn (kernels/preemption.c), and by what (nb_work)


class Preemption(Benchmark):
    name = kernel = "preemption"
    rank = 23
    topic = "runtime"
    phase = ALPHA
    title = "Preemption"
    question = "What does a thread lose that is interrupted so many times a second?"
    expected = (
        "The same to each signal, whatever the rate: some microseconds, so that 10,000 a second take some percent, and Go's 100 of a thread that never yields take nothing that can be seen. With memory at work a little more: the kernel's "
        "code and data take lines of the first cache."
    )
    axes = (
        Axis(name="rate", summary="signals a second", values=RATES, unit="Hz", log=True, least=1000, most=100_000),
        Axis(
            name="footprint",
            summary="memory that the thread reads all the time; 0: it works in registers",
            values=FOOTPRINTS,
            unit="B",
            least=0,
            most=1 << 26,
            step=4 * KIB,
        ),
        Axis(name="placement", summary="relation of the CPUs of who sends and who works", values=()),
    )
    views = (
        View(title="Work lost to one signal", metric="loss", kind="bar", x="footprint", series="rate", facet="placement"),
        View(title="Share of the throughput that is lost", metric="lost", kind="line", x="rate", series="footprint"),
    )
    method = {
        "signal": "SIGURG, by tgkill, handler as Go's",
        "slices": "1 ms with signals after 1 ms without; the median pair of a window",
    }
    notes = ("What a scheduler does after the interruption, such as running something else, is not in it.",)
    judges_gaps = False  # to be interrupted is what is measured
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    judges_clock = False
    judges_overlap = False  # the thread that works ends the window
    needs_interrupt = True
    most = {"lost": 1.0}
    needs = "two CPUs"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        if profile == "quick":
            return [{"rate": RATES[-1:], "footprint": FOOTPRINTS, "placement": relations[:1]}]
        return [{"rate": RATES, "footprint": FOOTPRINTS, "placement": relations}]

    def stretch(self, p: Parameters) -> float:
        return 2.0  # some seven pairs of slices in a quick run's window, and one signal in each at the lowest rate

    def mediated(self, p: Parameters) -> bool:
        return True

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], 2)
        return cpus and Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=BYTES + p["footprint"])

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            at_work = f"reads {format_bytes(p['footprint'])}" if p["footprint"] else "works in registers"
            text = f"A thread that {at_work} loses {{value}} of work to each of {p['rate']:,} signals a second ({RELATION_WORDS[p['placement']]})"
            found.append(Answer(kind="cell", metric="loss", where=p, headline=p["rate"] == RATES[-1], text=text))
        return tuple(found)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"rate": p["rate"], "footprint": p["footprint"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        value = found.threads[1].value
        achieved = {"achieved": value[ACHIEVED_SLOT] / 1000}
        return achieved | ({"loss": value[PRICE_SLOT] / 1000, "lost": value[LOST_SLOT] / 1e9} if value[PAIRS_SLOT] else {})

    def check(self, p: Parameters, found: Found) -> str:
        """The work came to what it comes to undisturbed; the handler ran once for each signal, in their order, on the alternate stack."""
        sender, worker = found.threads
        turns, sent = worker.executed, sender.value[SENT_SLOT]
        wanted = MULTIPLIES * turns if p["footprint"] else pow(FACTOR, MULTIPLIES * turns, 1 << 64)
        if worker.check != wanted:
            return f"{turns} turns came to {worker.check:#x}, and come to {wanted:#x} undisturbed"
        if not sent or worker.value[HANDLED_SLOT] != sent:
            return f"{sent} signals were sent, of which {worker.value[HANDLED_SLOT]} were handled"
        if worker.value[IN_ORDER_SLOT] != sent:
            return f"{sent - worker.value[IN_ORDER_SLOT]} of {sent} signals were handled when another one was sent"
        if worker.value[ON_STACK_SLOT] != sent:
            return f"{worker.value[ON_STACK_SLOT]} of {sent} handlers ran on the alternate stack"
        return ""

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        return {"pairs": float(found.threads[1].value[PAIRS_SLOT])}


BENCHMARK = Preemption()
