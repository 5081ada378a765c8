"""When a task blocks in a system call, what do those behind it wait, and does it pay to hand the processor over?"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ..kernel import median_batch, tail
from ..model import ALPHA, Answer, Axis, Card, Contrast, Picture, Price, Tile, View
from . import (
    KERNEL_PRICE,
    MOST_APART,
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

NONE, EAGER, MONITORED = POLICIES = ("none", "eager", "monitored")
THREADS = {NONE: 1, EAGER: 2, MONITORED: 3}  # carrier, spare, monitor
USUAL = 1_000_000  # ns
BLOCKING = (5_000, 20_000, 50_000, 100_000, 200_000, 500_000, USUAL, 10_000_000)  # ns
FEW = (5_000, 200_000, USUAL)  # of the quick profile
ELSEWHERE = (5_000, 50_000)  # of it, on another CPU: on either side of what a wake-up there costs
PERIOD, LONGEST = 20_000, 10_000_000  # ns between two looks of a monitor as Go's: at least and at most
PERIODS = (PERIOD, 100_000, USUAL, LONGEST)
SLACK, LEAST_SLACK = SLACKS = (50_000, 1)  # ns: Linux's own, and the least that can be asked for
BLOCKED_PS, CPU_PS, HANDED, CALLS, OWN, OUT_OF_TURN, SHORT, TOO_SOON, SLEPT, LOST = range(
    6, 16
)  # of the carrier's `value` (kernels/hand_off.c)
RAN, SPARE_OUT_OF_TURN = 6, 7  # of the spare's
TAKEN, LOOKS = 6, 7  # of the monitor's
SLEEPS_FROM = 20_000  # ns from which on a call must give the CPU up: a shorter one may be over before it has
LEAST_SLEPT = 0.9  # of those: the rest were interrupted on the way into their sleep
TAKEN_FROM = (
    20  # looks, with the slack of their timers, after which a call that blocks for longer is sure to have been seen twice
)
LEAST_TAKEN = 0.1  # of those, or it is no monitor: the rest waited for a CPU, which on a busy machine many do,
USUALLY_TAKEN = 0.9  # and on a quiet one few
#: Shares of calls that are handed over from which on it is mostly, and up to which it is rarely; and the outcome between the two. Of eight calls of a window one or two may
#: have met another program.
MOSTLY, RARELY, AT_TIMES = 2 / 3, 1 / 3, 2.0
BYTES = 16 * MOST_APART


class HandOff(Benchmark):
    name = kernel = "hand_off"
    rank = 29
    topic = "runtime"
    phase = ALPHA
    title = "Handing the processor over"
    question = "When a task blocks in a system call, what do those behind it wait, and does it pay to hand the processor over?"
    expected = (
        "Without a hand-off the next task waits for the whole call. Who wakes a spare thread before each call makes it wait for a wake-up, 2 to 25 us, and pays for that in each call, "
        "however short: it pays where calls block for longer than a wake-up costs. A monitor costs calls that are short nothing; what it finds blocked at two looks it hands over. Looks are "
        "its period and the timer slack of its sleep apart, 20 and 50 us as Go has it: such a monitor leaves the next task waiting for 70 to 150 us."
    )
    axes = (
        Axis(name="policy", summary="who runs the tasks behind one that blocks", values=POLICIES),
        Axis(
            name="blocking",
            summary="for how long the call blocks",
            values=BLOCKING,
            unit="ns",
            log=True,
            least=1_000,
            most=1_000_000_000,
        ),
        Axis(
            name="period",
            summary="between two looks of the monitor, at least",
            values=PERIODS,
            unit="ns",
            log=True,
            least=1_000,
            most=LONGEST,
        ),
        Axis(
            name="slack",
            summary="by how much the kernel may delay the monitor's timers (PR_SET_TIMERSLACK)",
            values=SLACKS,
            unit="ns",
            least=1,
            most=1_000_000_000,
        ),
        Axis(
            name="placement",
            summary="where the other threads run: on the carrier's CPU, or on another one of this relation",
            values=(),
        ),
    )
    contrasts = (
        Contrast(axis="policy", control=NONE, metric="delay"),
        Contrast(axis="policy", control=NONE, metric="cost"),
        Contrast(axis="slack", control=LEAST_SLACK, metric="delay"),
    )
    views = tuple(
        View(
            title=title,
            metric=metric,
            kind="line",
            x="blocking",
            series="policy",
            facet="placement",
            where={"period": PERIOD, "slack": SLACK},
        )
        for metric, title in (
            ("delay", "What the next task waits"),
            ("cpu_time", "CPU time of all threads for one call"),
            ("cost", "Wait and CPU time together"),
        )
    )
    method = {
        "call": "clock_nanosleep, with a timer slack of 1 ns",
        "next task": "one is runnable when the call begins",
        "eager": "a spare thread is woken by a futex before each call",
        "monitored": "taken away at the second look in one call; looks twice as far apart after 50 without a finding, up to 10 ms; asleep while the processor is idle",
        "CPU time": "of all threads, by the kernel's clocks (CLOCK_THREAD_CPUTIME_ID)",
    }
    notes = (
        "A task is one number here: what it would bring into the caches of the thread that runs it, and out of the others', is not in these figures (see `migration`).",
        "The interrupts and idle loops of the CPUs are no thread's time.",
    )
    judges_gaps = False  # threads sleep by design
    tolerates = KERNEL_PRICE
    judges_clock = False
    judges_overlap = False  # the carrier ends the window
    may_sleep = True
    most_samples = 1  # calls of 10 ms take seconds
    most = {"handoffs": 1.0}
    needs = "a CPU"

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        plain = {"policy": POLICIES, "period": (PERIOD,), "slack": (SLACK,)}
        alone = {**plain, "policy": (MONITORED,), "slack": (LEAST_SLACK,), "blocking": (USUAL,)}
        if profile == "quick":
            elsewhere = {**plain, "policy": (NONE, EAGER), "blocking": ELSEWHERE, "placement": relations[:1]}
            return [{**plain, "blocking": FEW, "placement": (SAME_CPU,)}, {**alone, "placement": (SAME_CPU,)}, elsewhere]
        slow = {**alone, "blocking": BLOCKING[-1:], "period": PERIODS[1:], "slack": (SLACK,)}
        everything = ({**plain, "blocking": BLOCKING}, alone, slow)
        if profile == "full":
            return [{**each, "placement": (SAME_CPU, *relations)} for each in everything]
        nearest = [{**plain, "blocking": BLOCKING[:-1], "placement": relations[:1]}]
        return [*({**each, "placement": (SAME_CPU,)} for each in everything), *nearest]

    def keep(self, p: Parameters, topology) -> bool:
        return p["policy"] == MONITORED or (p["period"], p["slack"]) == (PERIOD, SLACK)  # the others have no monitor

    def mediated(self, p: Parameters) -> bool:
        return True

    def waiters(self, p: Parameters) -> Collection[int]:
        return range(THREADS[p["policy"]])  # for how long a task waits for its CPU is what is measured

    def group(self, p: Parameters) -> tuple:
        return (p["placement"],)  # a curve over the blocking time in one process

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], 2)
        if not cpus:
            return None
        threads = (cpus[0], *cpus[1:] * (THREADS[p["policy"]] - 1))
        return Placement(cpus=threads, node=memory_node(topology, topology.node_of(cpus[0])), size=BYTES)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for placement in dict.fromkeys(p["placement"] for p in cases):
            where = {"period": PERIOD, "slack": SLACK, "placement": placement}
            usual = {**where, "blocking": USUAL}
            on = (
                "with all threads on one CPU"
                if placement == SAME_CPU
                else f"with the other threads on another CPU ({RELATION_WORDS[placement]})"
            )
            headline = placement == SAME_CPU
            behind = f"behind a call that blocks for {words(USUAL)}"
            found += [
                Answer(
                    kind="outcome",
                    metric="handed",
                    axis="policy",
                    where=usual,
                    headline=headline,
                    text=f"Another thread runs the task {behind}, by policy, {on}: {{value}}",
                ),
                Answer(
                    kind="crossover",
                    metric="cost",
                    axis="blocking",
                    where={**where, "policy": NONE},
                    against={"policy": EAGER},
                    text=f"By the time that a call blocks, {on}, keeping the processor or waking a spare thread before each call: {{value}}",
                ),
                Answer(
                    kind="difference",
                    metric="delay",
                    where={**usual, "policy": MONITORED},
                    against={"slack": LEAST_SLACK},
                    headline=headline,
                    text=f"Of what the task {behind} waits for the monitor, {on}, the timer slack of its looks makes {{value}}",
                ),
                Answer(
                    kind="crossover",
                    metric="cost",
                    axis="blocking",
                    where={**where, "policy": EAGER},
                    against={"policy": MONITORED},
                    headline=False,
                    text=f"By the time that a call blocks, {on}, waking a spare thread before each call or a monitor: {{value}}",
                ),
                Answer(
                    kind="ratio",
                    metric="delay",
                    where={**usual, "policy": MONITORED},
                    against={"policy": EAGER},
                    headline=headline,
                    text=f"Under a monitor the task {behind} waits {{value}} as long as for a spare thread woken before it, {on}",
                ),
            ]
            found += [
                Answer(
                    kind="outcome",
                    metric="handed",
                    where={**where, "policy": MONITORED, "blocking": blocking},
                    headline=headline
                    and blocking in FEW[:2],  # on either side of two looks; near them it is now this and now that
                    text=f"A monitor that looks every {words(PERIOD)} takes calls that block for {words(blocking)} away, {on}: {{value}}",
                )
                for blocking in sorted({p["blocking"] for p in cases})
            ]
            found += [
                Answer(
                    kind="cell",
                    metric="delay",
                    where={**usual, "policy": policy},
                    headline=headline and policy == MONITORED,
                    text=f"The task {behind} waits {{value}} {how}, {on}",
                )
                for policy, how in (
                    (MONITORED, "under a monitor"),
                    (NONE, "where the processor is kept"),
                    (EAGER, "for a spare thread woken before"),
                )
            ]
        for p in cases:
            if (p["period"], p["slack"]) != (PERIOD, SLACK):
                text = f"A monitor that looks every {words(p['period'])}, its timers with a slack of {words(p['slack'])}, leaves the task behind a call of {words(p['blocking'])} waiting for {{value}}"
                found.append(Answer(kind="cell", metric="delay", where=p, headline=False, text=text))
            elif p["policy"] != NONE:
                text = f"A call that blocks for {words(p['blocking'])} takes {{value}} more CPU time of all threads {WITH[p['policy']]} than without hand-offs"
                against = {"policy": NONE}
                found.append(Answer(kind="difference", metric="cpu_time", where=p, against=against, headline=False, text=text))
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        where = {"policy": MONITORED, "blocking": USUAL, "period": PERIOD, "slack": SLACK, "placement": SAME_CPU}
        price = Answer(kind="cell", metric="delay", where=where, text="task behind a blocking call, monitor as Go's")
        tile = msgspec.structs.replace(
            price, text=f"what a task waits behind a call that blocks for {words(USUAL)}, monitor as Go's"
        )
        spare = Answer(
            kind="cell", metric="delay", where=where | {"policy": EAGER}, text="{value} where a spare thread was woken before"
        )
        view = msgspec.structs.replace(self.views[0], facet=None, where=self.views[0].where | {"placement": SAME_CPU})
        finding = Answer(kind="cell", metric="delay", where=where, text="What a task waits behind a blocking call")
        return Card(
            prices=(Price(answer=price, rank=46),),
            tiles=(Tile(subject="hand-off", answer=tile, rank=64, notes=(spare,)),),
            pictures=(Picture(view=view, finding=finding, rank=60),),
        )

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {name: p[name] for name in ("policy", "blocking", "period", "slack")}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        carrier = found.threads[0]
        delay, cpu = median_batch(carrier), carrier.value[CPU_PS] / 1000
        share = carrier.value[HANDED] / carrier.operations
        return {
            "delay": delay,
            "cpu_time": cpu,
            "cost": delay + cpu,
            "blocked": carrier.value[BLOCKED_PS] / 1000,
            "handoffs": share,
            "handed": 1.0 if share > MOSTLY else 0.0 if share < RARELY else AT_TIMES,
            **tail(carrier, "delay_p99"),
        }

    def check(self, p: Parameters, found: Found) -> str:
        """Each task ran once and in its turn, by who was to run it; every call blocked, and none was taken away before it had blocked for the monitor's period."""
        carrier, *others = found.threads
        value, policy = carrier.value, p["policy"]
        calls, own, ran = value[CALLS], value[OWN], others[0].value[RAN] if others else 0
        if value[LOST]:
            return "the processor did not come back from the spare thread"
        if own + ran != calls or sum(t.check for t in (carrier, *others[:1])) != calls * (calls + 1) // 2:
            return f"behind {calls} calls {own} tasks ran on the carrier and {ran} on the spare, {calls} in all were to run once each"
        if value[OUT_OF_TURN] + (others[0].value[SPARE_OUT_OF_TURN] if others else 0):
            return "tasks ran out of their turn"
        if value[SHORT] or (p["blocking"] >= SLEEPS_FROM and value[SLEPT] < LEAST_SLEPT * calls):
            return f"of {calls} calls {value[SHORT]} did not block for as long as they were to, and they gave the CPU up {value[SLEPT]} times"
        wanted = {NONE: 0, EAGER: calls}.get(policy, others[-1].value[TAKEN] if others else 0)
        if ran != wanted:
            return f"the spare ran {ran} of the tasks behind {calls} calls, {wanted} were handed to it"
        if value[TOO_SOON]:
            return f"{value[TOO_SOON]} of {ran} tasks ran elsewhere sooner than they can have been handed over"
        if long_for_its_monitor(p) and ran < LEAST_TAKEN * calls:
            return f"the monitor took {ran} of {calls} calls away, which blocked for {p['blocking']} ns each"
        return ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """Other programs kept the monitor from its CPU."""
        return ["run_delay"] if long_for_its_monitor(p) and metrics["handoffs"] < USUALLY_TAKEN else []


def long_for_its_monitor(p: Parameters) -> bool:
    """Whether each call is sure to be seen twice, and so to be taken away."""
    return p["policy"] == MONITORED and p["blocking"] >= TAKEN_FROM * (p["period"] + p["slack"])


WITH = {EAGER: "with a spare thread woken before it", MONITORED: "under a monitor"}


def words(ns: int) -> str:
    return f"{ns / 1000:g} us" if ns >= 1000 else f"{ns} ns"


BENCHMARK = HandOff()
