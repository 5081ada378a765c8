"""How late does a thread wake that sleeps for a given time?"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack

from ..errors import MachineError
from ..host.pages import base_page
from ..kernel import median_batch, tail
from ..model import Answer, Axis, Contrast, View
from . import KERNEL_PRICE, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node

NANOSLEEP = "nanosleep"
CALLS = (NANOSLEEP, "clock_nanosleep", "epoll_wait", "epoll_pwait2", "timerfd")
IN_MS = "epoll_wait"  # whose time limit is in whole ms
DURATIONS = (1_000, 100_000, 1_000_000)  # ns
USUAL = DURATIONS[1]
USUAL_SLACK, LEAST_SLACK = SLACKS = (
    50_000,
    1,
)  # ns: Linux's own, and the least that can be asked for (0 means one's usual slack)
SLEEPS_FROM = 20_000  # ns from which on a sleep must give the CPU up: a shorter one may be over before it has
LEAST_SLEPT = 0.9  # of those: the rest were interrupted on the way into their sleep
OWN_SLACK = {NANOSLEEP: 1.0, "clock_nanosleep": 1.0, "timerfd": 0.0}  # of the slack's difference, what a sleep is later by
SLACK_NOISE = 0.15  # of it: by so much two medians may differ otherwise; those of the few sleeps of a millisecond differ by more
BUSY = 100_000  # ns late without slack: the thread waited for its CPU, and nothing is known in advance
LONG_WINDOWS, LONG = 2.0, 1_000_000  # at sleeps of a millisecond or more, of which a window has too few
NORMAL, BATCH, IDLE = SCHEDULINGS = ("normal", "batch", "idle")  # classes that need no privilege
CLASSES = {NORMAL: os.SCHED_OTHER, BATCH: os.SCHED_BATCH, IDLE: os.SCHED_IDLE}  # by their numbers
STACK = 128 * 1024  # bytes, of the thread that sleeps
TIMER, WAITS = 1, 5  # slots of the timer that is read, and of an epoll instance in which nothing happens
REFUSED_SLOT, EARLY_SLOT, SWITCHES_SLOT, SLACK_SLOT, CLASS_SLOT = range(6, 11)  # of `value` (kernels/sleeping.c)
REAL_TIME = {1: "SCHED_FIFO", 2: "SCHED_RR", 6: "SCHED_DEADLINE"}  # classes whose timers have no slack, by their numbers


class Sleeping(Benchmark):
    name = kernel = "sleeping"
    rank = 28
    topic = "runtime"
    phase = "alpha"
    title = "Sleeping"
    question = "How late does a thread wake that sleeps for a given time, and what of it is timer slack?"
    expected = (
        "A sleep of any length ends late by the timer slack, which is 50 us unless a thread asks for less, and by the wake-up: a timer's interrupt and a context switch. The "
        "difference of the two slacks is known in advance: 50 us. `epoll_wait` knows whole milliseconds alone; a timerfd has no slack."
    )
    axes = (
        Axis(name="call", summary="what the thread sleeps in", values=CALLS),
        Axis(
            name="duration",
            summary="for how long it is to sleep",
            values=DURATIONS,
            unit="ns",
            log=True,
            least=1,
            most=1_000_000_000,
        ),
        Axis(
            name="slack",
            summary="by how much the kernel may delay its timers (PR_SET_TIMERSLACK)",
            values=SLACKS,
            unit="ns",
            least=1,
            most=1_000_000_000,
        ),
        Axis(name="scheduling", summary="class of the thread that sleeps", values=SCHEDULINGS),
    )
    contrasts = (
        Contrast(axis="slack", control=LEAST_SLACK, metric="late"),
        Contrast(axis="call", control=NANOSLEEP, metric="late"),
        Contrast(axis="scheduling", control=NORMAL, metric="late"),
    )
    views = (View(title="How late sleeps end", metric="late", kind="bar", x="call", series="slack", facet="duration"),)
    method = {
        "late": "from the end of the time asked for to the thread's next instruction",
        "thread": "one of its own for each sample, of a class that has timer slack",
        "timerfd": "set and read for each sleep",
    }
    notes = (
        "Slack and class are those of a thread that ends with each sample: who is of class SCHED_IDLE leaves it by privilege alone.",
        "Under SCHED_FIFO and SCHED_RR timers have no slack: sleeps are not measured there.",
    )
    judges_gaps = False  # it sleeps by design
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    may_sleep = True
    needs = "a CPU"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        usual = {"slack": SLACKS, "scheduling": (NORMAL,)}
        if profile == "quick":
            return [
                {"call": (NANOSLEEP, "clock_nanosleep", "timerfd"), "duration": (USUAL,), **usual},
                {"call": (NANOSLEEP,), "duration": (1_000,), **usual},
                {"call": (IN_MS,), "duration": (LONG,), **usual},
            ]
        if profile == "full":
            return [{"call": CALLS, "duration": DURATIONS, "slack": SLACKS, "scheduling": SCHEDULINGS}]
        classes = {"call": (NANOSLEEP, "timerfd"), "duration": (USUAL,), "slack": SLACKS, "scheduling": SCHEDULINGS[1:]}
        return [{"call": CALLS, "duration": DURATIONS, **usual}, classes]

    def place(self, p: Parameters, topology) -> Placement | None:
        cpu = topology.order_cpus()[0]
        return Placement(cpus=(cpu,), node=memory_node(topology, topology.node_of(cpu)), size=base_page(), scratch=STACK)

    def waiters(self, p: Parameters) -> Collection[int]:
        return (0,)  # being late for its CPU is what is measured

    def stretch(self, p: Parameters) -> float:
        return LONG_WINDOWS if p["duration"] >= LONG or p["call"] == IN_MS else 1.0

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            which = f"a sleep of {p['duration'] // 1000} us by {p['call']}"
            usual = p["slack"] == USUAL_SLACK
            if p["scheduling"] != NORMAL:
                text = f"Of class SCHED_{p['scheduling'].upper()}, {which} ends {{value}} later than of SCHED_OTHER, with a timer slack of {p['slack']:,} ns"
                found.append(
                    Answer(kind="difference", metric="late", where=p, against={"scheduling": NORMAL}, headline=False, text=text)
                )
                continue
            slack = "" if usual else f", with a timer slack of {p['slack']} ns"
            text = f"{which[0].upper()}{which[1:]} ends {{value}} late{slack}"
            headline = usual and p["call"] in (NANOSLEEP, IN_MS)
            found.append(Answer(kind="cell", metric="late", where=p, headline=headline, text=text))
            if usual:
                text = f"Of that, timer slack makes {{value}} ({which})"
                against = {"slack": LEAST_SLACK}
                found.append(
                    Answer(
                        kind="difference",
                        metric="late",
                        where=p,
                        against=against,
                        headline=headline and p["call"] == NANOSLEEP,
                        text=text,
                    )
                )
        return tuple(found)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {name: p[name] for name in ("call", "duration", "slack", "scheduling")}

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        """In slot 1 a timer, in slot 5 an epoll instance."""
        import ctypes  # which only this process needs
        import select

        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        if policy in REAL_TIME:
            raise MachineError(
                f"sleeping: timers of class {REAL_TIME[policy]} have no slack, which is what is measured",
                "run numabench without chrt, as SCHED_OTHER",
            )
        if policy == os.SCHED_IDLE and p["scheduling"] != IDLE:
            raise MachineError(
                "sleeping: who is of class SCHED_IDLE leaves it by privilege alone",
                "run numabench without chrt, or with --set scheduling=idle",
            )
        if p["call"] == "timerfd":
            libc = ctypes.CDLL(None, use_errno=True)
            timer = libc.timerfd_create(1, os.O_CLOEXEC)  # CLOCK_MONOTONIC; os.timerfd_create is Python 3.13's
            if timer < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            opened.callback(os.close, timer)
            return -1, timer
        if p["call"].startswith("epoll"):
            return *[-1] * WAITS, opened.enter_context(select.epoll()).fileno()
        return ()

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        thread = found.threads[0]
        return {"late": median_batch(thread), **tail(thread, "late_p99")}

    def check(self, p: Parameters, found: Found) -> str:
        """The slack and the class were as asked; every sleep was made, none ended early, and each gave the CPU up."""
        thread = found.threads[0]
        value = thread.value
        if value[SLACK_SLOT] != p["slack"]:
            return f"the timer slack is {value[SLACK_SLOT]} ns, not {p['slack']}"
        if value[CLASS_SLOT] != CLASSES[p["scheduling"]]:
            return f"the class is number {value[CLASS_SLOT]}, not {CLASSES[p['scheduling']]}"
        if value[REFUSED_SLOT] or thread.check != thread.executed:
            return f"{thread.check} of {thread.executed} sleeps were made"
        if value[EARLY_SLOT]:
            return f"{value[EARLY_SLOT]} of {thread.executed} sleeps ended early"
        if p["duration"] >= SLEEPS_FROM and value[SWITCHES_SLOT] < LEAST_SLEPT * thread.executed:
            return f"{thread.executed} sleeps gave the CPU up {value[SWITCHES_SLOT]} times"
        return ""

    def contradictions(self, found: list[tuple[Parameters, dict[str, float]]], topology) -> list[tuple[Parameters, str]]:
        """A sleep is later by the whole slack, and one on a timer that has none by nothing."""
        least = {kind(p): metrics["late"] for p, metrics in found if p["slack"] == LEAST_SLACK}
        wrong = []
        for p, metrics in found:
            alone, more = least.get(kind(p), BUSY), p["slack"] - LEAST_SLACK
            if p["slack"] < USUAL_SLACK or p["call"] not in OWN_SLACK or p["duration"] >= LONG or alone >= BUSY:
                continue
            later = metrics["late"] - alone
            if abs(later - OWN_SLACK[p["call"]] * more) > SLACK_NOISE * more:
                wrong.append((p, f"{more / 1000:.0f} us more of timer slack made {p['call']} {later / 1000:.1f} us later"))
        return wrong


def kind(p: Parameters) -> tuple:
    """What two sleeps share that differ in their slack alone."""
    return p["call"], p["duration"], p["scheduling"]


BENCHMARK = Sleeping()
