"""What does a switch between two tasks cost, in user space and between threads?"""

from __future__ import annotations

from collections.abc import Collection

from ..kernel import mean_batch
from ..model import ALPHA, Answer, Axis, Card, Contrast, Price, Tile, View
from . import MOST_LINE, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node

OWN, OWN_FP, SWAPCONTEXT, SAME_CPU, OTHER_CPU = SWITCHES = ("own", "own_fp", "swapcontext", "thread_same_cpu", "thread_other")
THREADS = (SAME_CPU, OTHER_CPU)
#: What has own instructions here, told by an instruction set for streams that all processors of a kind have.
OWN_INSTRUCTIONS = {"sse2": (OWN, OWN_FP), "neon": (OWN,)}
COUNTS, LINES = (2, 100, 10_000, 100_000), (1, 4, 16)
FEW, MANY = COUNTS[0], COUNTS[2]
#: Of a fiber. A saved context has a kilobyte on x86-64 and five on aarch64, where what vectors may grow to has room in it.
STACK_BYTES = {"sse2": 4096}
MOST_STACK_BYTES = 8192
RING_ROOM = 8192  # in front of the stacks, as in kernels/fibers.c
THREAD_BYTES = 8192  # what two threads share
#: Of `value`, as in kernels/fibers.c: of fibers, and of threads.
ENTERED_SLOT, FEWEST_SLOT, MOST_SLOT, COUNTED_SLOT, AT_HOME_SLOT, REGISTERS_SLOT, ROUNDING_SLOT, LOOKED_SLOT = range(6, 14)
TURNS_SLOT, SWITCHES_SLOT, WOKEN_SLOT = range(6, 9)
LEAST_ASLEEP = 0.9  # of the waits of threads on two CPUs: those that were woken on their way to sleep are another price
LONGER = 3.0  # windows of threads: a batch is 64 switches, of which each takes as much as a thousand of the others
GAP_SHARE = 0.02  # of a window of fibers, lost in interruptions: as for every other loop
WORDS = {
    OWN: "six registers saved by own instructions",
    OWN_FP: "saving the control words of floating point as well (mxcsr, x87)",
    SWAPCONTEXT: "swapcontext, which asks the kernel to set the signal mask,",
}


class Fibers(Benchmark):
    name = kernel = "fibers"
    rank = 24
    topic = "runtime"
    phase = ALPHA
    title = "Switches between tasks"
    question = "What does a switch between two tasks cost, in user space and between threads?"
    expected = (
        "A switch in user space is some twenty loads and stores: 2 to 20 ns, and more for tasks whose stacks are in no near cache. swapcontext makes one system call more. Threads "
        "that wait for each other on one CPU pay a futex call each and the scheduler, 1 to 5 us; on two CPUs who sleeps is woken by an interrupt, 3 to 50 us."
    )
    axes = (
        Axis(name="switch", summary="how the next task is switched to", values=SWITCHES),
        Axis(name="fibers", summary="tasks that take turns", values=COUNTS, log=True, least=2, most=1 << 20),
        Axis(name="lines", summary="cache lines of its own stack that a task writes at its turn", values=LINES, least=1, most=16),
    )
    contrasts = (Contrast(axis="switch", control=OWN, metric="time"),)
    views = (
        View(title="Time of a switch", metric="time", kind="bar", x="switch", where={"fibers": FEW, "lines": LINES[0]}),
        View(
            title="Time of a switch by tasks", metric="time", kind="line", x="fibers", series="switch", where={"lines": LINES[0]}
        ),
        View(title="Time of a switch by lines", metric="time", kind="line", x="lines", series="fibers", where={"switch": OWN}),
    )
    method = {
        "order": "round robin",
        "turn": "an increment in each line",
        "stacks": "pages and a line apart, in the measured memory",
        "threads": "futex, one turn for both; on two CPUs the other sleeps",
    }
    notes = (
        "The time is of one switch one way, with the turn between two of them: round trips are twice that.",
        "All fibers stop in the same place of the same loop, which branch prediction knows: a program's tasks have many.",
    )
    judges_gaps = False  # threads sleep; what interrupts fibers is judged in `doubts`
    most_samples = 1  # processes differ more than samples of one
    may_sleep = True
    needs = "a processor with own instructions here, for another thread a second CPU"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        threads = {"switch": THREADS, "fibers": (FEW,), "lines": LINES[:1]}
        fibers = SWITCHES[:3]
        if profile == "full":
            return [{"switch": fibers, "fibers": COUNTS, "lines": LINES}, threads]
        few = {"switch": fibers, "fibers": (FEW,), "lines": LINES[:1]}
        if profile == "quick":
            return [few, {"switch": (OWN,), "fibers": (MANY,), "lines": LINES[:1]}, threads]
        return [
            few,
            {"switch": (OWN,), "fibers": COUNTS[:3], "lines": LINES},
            {"switch": (OWN,), "fibers": COUNTS[3:], "lines": LINES[:1]},
            {"switch": (SWAPCONTEXT,), "fibers": COUNTS[1:3], "lines": LINES[:1]},
            threads,
        ]

    def keep(self, p: Parameters, topology) -> bool:
        return p["switch"] not in THREADS or (p["fibers"] == FEW and p["lines"] == LINES[0])

    def group(self, p: Parameters) -> tuple:
        return (p["lines"],)  # few and many in one process: they are compared

    def place(self, p: Parameters, topology) -> Placement | None:
        own = [name for vector, names in OWN_INSTRUCTIONS.items() if vector in topology.vectors for name in names]
        if not self.keep(p, topology) or (p["switch"] in (OWN, OWN_FP) and p["switch"] not in own):
            return None
        cpus = other_cpus(topology) if p["switch"] == OTHER_CPU else topology.order_cpus()[:1]
        if not cpus:
            return None
        if p["switch"] == SAME_CPU:
            cpus = cpus * 2
        size = THREAD_BYTES if p["switch"] in THREADS else RING_ROOM + p["fibers"] * (stack_bytes(topology.vectors) + MOST_LINE)
        return Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=size)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        at = {"fibers": FEW, "lines": LINES[0]}
        own, same, other = ({"switch": switch, **at} for switch in (OWN, SAME_CPU, OTHER_CPU))
        found = [
            Answer(kind="cell", metric="time", where=own, text="A switch between two tasks in user space takes {value}"),
            *(
                Answer(
                    kind="difference",
                    metric="time",
                    where={"switch": switch, **at},
                    against={"switch": OWN},
                    headline=switch == SWAPCONTEXT,
                    text=f"Between tasks in user space, {WORDS[switch]} takes {{value}} more",
                )
                for switch in (OWN_FP, SWAPCONTEXT)
            ),
            Answer(kind="cell", metric="time", where=same, text="A switch between two threads of one CPU takes {value} (futex)"),
            Answer(
                kind="cell",
                metric="time",
                where=other,
                text="A hand-over to a thread that sleeps on another CPU takes {value} (futex)",
            ),
            Answer(
                kind="ratio",
                metric="time",
                where=same,
                against={"switch": OWN},
                text="Between threads of one CPU a switch takes {value} as long as in user space",
            ),
        ]
        for count in COUNTS[1:]:
            found.append(
                Answer(
                    kind="ratio",
                    metric="time",
                    where={**own, "fibers": count},
                    against={"fibers": FEW},
                    headline=count == MANY,
                    text=f"Among {count:,} tasks in user space, a switch takes {{value}} as long as among two",
                )
            )
        for count in COUNTS:
            found.append(
                Answer(
                    kind="cell",
                    metric="time",
                    where={"switch": OWN, "fibers": count, "lines": LINES[-1]},
                    headline=False,
                    text=f"Among {count:,} tasks that write {LINES[-1]} lines of their stacks at a turn, a switch takes {{value}} with the turn",
                )
            )
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        names = {
            OWN: "switch between tasks in user space",
            SAME_CPU: "switch between threads of one CPU",
            OTHER_CPU: "hand-over to a thread that sleeps elsewhere",
        }
        return Card(
            prices=tuple(
                Price(
                    answer=Answer(
                        kind="cell", metric="time", where={"switch": switch, "fibers": FEW, "lines": LINES[0]}, text=text
                    ),
                    rank=45 + position,
                )
                for position, (switch, text) in enumerate(names.items())
            ),
            tiles=(
                Tile(
                    subject="switch",
                    answer=Answer(
                        kind="ratio",
                        metric="time",
                        where={"switch": SAME_CPU, "fibers": FEW, "lines": LINES[0]},
                        against={"switch": OWN},
                        text="a switch between threads over one between tasks in user space",
                    ),
                    rank=61,
                ),
            ),
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        import platform

        vectors = ("sse2",) if platform.machine() == "x86_64" else ()
        return {"switch": p["switch"], "fibers": p["fibers"], "lines": p["lines"], "stack_bytes": stack_bytes(vectors)}

    def waiters(self, p: Parameters) -> Collection[int]:
        return (0, 1) if p["switch"] in THREADS else ()  # from being woken until its CPU is awake

    def stretch(self, p: Parameters) -> float:
        return LONGER if p["switch"] in THREADS else 1.0

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        return {"time": mean_batch(found.threads[0])}

    def check(self, p: Parameters, found: Found) -> str:
        return (check_threads if p["switch"] in THREADS else check_fibers)(p, found)

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        first = found.threads[0]
        if p["switch"] not in THREADS:
            return ["gaps"] if first.gap_ns > GAP_SHARE * (first.end_ns - first.begin_ns) else []
        return ["awake"] if p["switch"] == OTHER_CPU and asleep(found) < LEAST_ASLEEP else []

    def extra(self, arguments: dict[str, str | int], probes: Probes, found: Found) -> dict[str, float]:
        return {"asleep": asleep(found)} if arguments["switch"] in THREADS else {}


def stack_bytes(vectors) -> int:
    return next((size for vector, size in STACK_BYTES.items() if vector in vectors), MOST_STACK_BYTES)


def other_cpus(topology) -> tuple[int, ...] | None:
    """Two CPUs near each other, of two cores where there are."""
    relations = [name for name in topology.relations() if name != "smt"] or topology.relations()
    return topology.choose_cpus(relations[0], 2) if relations else None


def asleep(found: Found) -> float:
    """How often a thread gave its CPU away for each of its turns, 1 at most: of the two the less."""
    return min(min(1.0, t.value[SWITCHES_SLOT] / max(t.value[TURNS_SLOT], 1)) for t in found.threads)


def check_fibers(p: Parameters, found: Found) -> str:
    """Round robin is exact: who counts how much follows from the number of switches alone. So do the registers and the rounding that came back."""
    (thread,) = found.threads
    value, count = thread.value, p["fibers"]
    turns = thread.executed - value[ENTERED_SLOT]  # each time that the thread enters the ring is a switch as well
    if thread.check != turns:
        return (
            f"{thread.executed} switches were asked for, the fibers and the thread counted {thread.check + value[ENTERED_SLOT]}"
        )
    fewest, most = turns // count, -(-turns // count)
    if (value[FEWEST_SLOT], value[MOST_SLOT]) != (fewest, most):
        return f"each fiber must have {fewest} to {most} turns, and they have {value[FEWEST_SLOT]} to {value[MOST_SLOT]}"
    if value[COUNTED_SLOT] != turns * p["lines"]:
        return f"{turns} turns in {p['lines']} lines counted {value[COUNTED_SLOT]}"
    if value[AT_HOME_SLOT] != count:
        return f"{count - value[AT_HOME_SLOT]} of {count} fibers do not run on their own stack"
    if p["switch"] != SWAPCONTEXT and value[REGISTERS_SLOT] != count:
        return f"{count - value[REGISTERS_SLOT]} of {count} fibers did not find their registers as they left them"
    kept = 0 if p["switch"] == OWN else value[LOOKED_SLOT]
    if value[ROUNDING_SLOT] != kept:
        return f"{value[ROUNDING_SLOT]} of {count} fibers found their own rounding again, {kept} must"
    return ""


def check_threads(p: Parameters, found: Found) -> str:
    """Turns by turns; on one CPU nobody has a turn before the other gave the CPU away, on two each turn woke one that waited."""
    first, second = found.threads
    if first.check + second.check != first.executed or first.check != second.check:
        return f"{first.executed} switches were asked for, the threads counted {first.check} and {second.check}"
    for index, thread in enumerate(found.threads):
        turns, switches, woken = (thread.value[slot] for slot in (TURNS_SLOT, SWITCHES_SLOT, WOKEN_SLOT))
        if p["switch"] == SAME_CPU and switches < turns:
            return f"thread {index} gave its CPU away {switches} times in {turns} turns"
        if p["switch"] == OTHER_CPU and woken != turns:
            return f"thread {index} woke the other {woken} times in {turns} turns"
    return ""


BENCHMARK = Fibers()
