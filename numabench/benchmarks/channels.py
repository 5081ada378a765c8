"""What does a message from one thread to another cost, and how often must somebody sleep for it?"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import ExitStack

from ..errors import MachineError
from ..model import ALPHA, Answer, Axis, Card, Contrast, Price, View
from . import (
    CROWDED,
    MOST_APART,
    RELATION_NAMES,
    RELATION_WORDS,
    SAME_CPU,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    jain_index,
    memory_node,
    nearest_cores_first,
    place_threads,
)

HCHAN, PIPE, EVENTFD = "hchan", "pipe", "eventfd"
KINDS = (HCHAN, "spsc", "spsc_cached", "mpmc", "mutex_cond", PIPE, EVENTFD)
PAIRS_ONLY = ("spsc", "spsc_cached", EVENTFD)  # one producer and one consumer
SLEEPERS = ("mutex_cond", PIPE, EVENTFD)  # that know no spinning
LEAST_CAPACITY = {HCHAN: 0, "mpmc": 2}  # of others 1
WAITS = (PARK, SPIN_PARK, SPIN) = ("park", "spin_park", "spin")
SCHEDULINGS = (NORMAL, BATCH) = ("normal", "batch")
CAPACITIES, ELEMENTS = (0, 1, 8, 64, 1024), (8, 64, 256, 1024)
THINK_TIMES = (0, 1000, 5000, 20_000, 100_000)  # ns
#: For which spin_park spins: about a wake-up of a halted CPU, by which it costs at most twice the least (Karlin et al. 1991).
SPIN_NS = 20_000
PACKETS = 64  # messages up to which a pipe holds them one in a page (O_DIRECT); from there on as bytes, which must fill pages
PAGE = 4096
MOST_PRODUCERS = 64
LAST = (1 << 64) - 1
PARKS, WAKES, CPU_NS, MESSAGES, WAITED, SWITCHES, DRIVEN_OUT, WRONG, LOST = range(9)  # of `value`, as in kernels/channels.c
LEAST_SLEPT = 0.5  # of the times when somebody found nothing on its own CPU; the rest was interrupted on its way into its sleep
MOST_OFF = 0.05  # of parks for a message, against the least that there can be on one CPU: beyond it somebody else had the CPU
OWN_BYTES = 3 * MOST_APART + 1024 + 512  # of a thread
SHARED_BYTES = 13 * MOST_APART
WORDS = {
    HCHAN: "a channel as Go's (hchan)",
    "spsc": "a ring for two threads",
    "spsc_cached": "a ring for two threads with cached indices",
    "mpmc": "a ring with numbered places (Vyukov)",
    "mutex_cond": "a ring under a mutex with conditions",
    PIPE: "a pipe",
    EVENTFD: "a ring counted by eventfds",
}
UNDISTURBED = "where who is woken does not preempt who wakes it (SCHED_BATCH)"
WAIT_WORDS = {PARK: "sleep", SPIN_PARK: "spin before they sleep", SPIN: "spin"}


class Channels(Benchmark):
    name = kernel = "channels"
    rank = 23
    topic = "runtime"
    phase = ALPHA
    title = "Channels"
    question = "What does a message from one thread to another cost, and how often must somebody sleep for it?"
    expected = (
        "The price is parks for a message times the price of a wake-up, plus the copy. Where both ends share a CPU, c places make "
        "1/(c+2) parks a message on each side: c places filled, one message handed over, one that its sender waits with. Ends that "
        "spin on CPUs of their own pay some cache lines a message."
    )
    axes = (
        Axis(name="kind", summary="what messages go through", values=KINDS),
        Axis(name="capacity", summary="messages that it holds; 0: from hand to hand", values=CAPACITIES, least=0, most=65_536),
        Axis(name="element", summary="bytes of a message", values=ELEMENTS, unit="B", log=True, least=8, most=1024, step=8),
        Axis(name="wait", summary="how an end waits that finds nothing", values=WAITS),
        Axis(
            name="scheduling",
            summary="class of the threads; batch: who is woken does not preempt who wakes it (SCHED_BATCH)",
            values=SCHEDULINGS,
        ),
        Axis(
            name="think_time",
            summary="work of a producer before each message",
            values=THINK_TIMES,
            unit="ns",
            least=0,
            most=1_000_000,
        ),
        Axis(name="producers", summary="threads that send", values=(1,), least=1, most=MOST_PRODUCERS),
        Axis(name="consumers", summary="threads that receive", values=(1,), least=1),
        Axis(name="placement", summary="relation of the threads' CPUs; same_cpu: both on one", values=(SAME_CPU,)),
    )
    contrasts = (
        Contrast(axis="wait", control=PARK, metric="time"),
        Contrast(axis="wait", control=PARK, metric="cpu_time"),
        Contrast(axis="kind", control=HCHAN, metric="time"),
        Contrast(axis="scheduling", control=NORMAL, metric="time"),
    )
    method = {
        "time": "between messages that arrive",
        "parks": "voluntary switches, as the kernel counts them",
        "spin_ns": SPIN_NS,
        "hchan": "one lock, ring, hand-off to who waits",
        "pipe": f"a message in each page up to {PACKETS}, bytes from there on",
    }
    notes = (
        "A message's first and last word are written and looked at, and all of it is copied into the channel and out of it.",
        "`cpu_time` counts what spinning costs while nothing comes: the time of both threads on their CPUs.",
    )
    judges_gaps = False  # threads sleep by design
    judges_clock = False  # the kernel's and the host's share of it scatters by more than a clock changes
    judges_overlap = False  # two common times are counted between, and consumers go on until the last message
    may_sleep = True
    needs_work = True
    most = {"fairness": 1.0}
    needs = "a CPU"

    # -- points ---------------------------------------------------------------------------------------------------------

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        near, far = relations[:1], relations[1:][-1:]
        cpus = min(len(topology.order_cpus()), MOST_PRODUCERS)

        def pair(placements: Sequence[str], **values: Sequence) -> list[Sweep]:
            whole = {
                "kind": (HCHAN,),
                "capacity": (0,),
                "element": (8,),
                "wait": (PARK,),
                "scheduling": (NORMAL,),
                "think_time": (0,),
            }
            return [{**whole, **values, "producers": (1,), "consumers": (1,), "placement": placements}] if placements else []

        if profile == "quick":
            return [
                *pair((SAME_CPU,), capacity=(0, 64), scheduling=SCHEDULINGS),
                *pair((SAME_CPU,), capacity=(1,), scheduling=(BATCH,)),
                *pair(near, capacity=(0, 64), wait=(PARK, SPIN)),
                *pair(near, capacity=(64,), kind=("spsc_cached", "mutex_cond"), wait=(PARK, SPIN)),
            ]
        apart = (0, 1, 64) if profile == "standard" else CAPACITIES
        found = [
            *pair((SAME_CPU,), capacity=CAPACITIES, scheduling=SCHEDULINGS),
            *pair(near + far, capacity=apart),
            *pair(near, capacity=(0, 64), wait=WAITS),
            *pair((SAME_CPU,), capacity=(64,), kind=KINDS, scheduling=(BATCH,)),
            *pair(near, capacity=(64,), kind=(HCHAN, "spsc_cached", "mpmc", "mutex_cond", PIPE, EVENTFD)),
            *pair(near, capacity=(64,), kind=KINDS, wait=(SPIN,)),
            *pair(near, capacity=(64,), element=ELEMENTS, wait=(SPIN,)),
            *pair(near, think_time=THINK_TIMES[:-1] if profile == "standard" else THINK_TIMES, wait=WAITS),
        ]
        many = {
            "capacity": (64,),
            "element": (8,),
            "scheduling": (NORMAL,),
            "think_time": (0,),
            "producers": (cpus,),
            "consumers": (cpus,),
        }
        found.append({**many, "kind": (HCHAN, "mpmc"), "wait": WAITS, "placement": (CROWDED,)})
        if profile == "full":
            found += pair((SAME_CPU, *relations), capacity=CAPACITIES, kind=KINDS, wait=WAITS)
            found += pair(near, capacity=CAPACITIES, element=ELEMENTS, wait=WAITS)
            found.append({**many, "kind": KINDS, "wait": WAITS, "placement": (CROWDED,)})
        return found

    def keep(self, p: Parameters, topology) -> bool:
        return p["capacity"] >= LEAST_CAPACITY.get(p["kind"], 1) and (p["wait"] == PARK or p["kind"] not in SLEEPERS)

    def place(self, p: Parameters, topology) -> Placement | None:
        producers, consumers, placement = p["producers"], p["consumers"], p["placement"]
        threads, capacity = producers + consumers, p["capacity"]
        if not self.keep(p, topology) or capacity & (capacity - 1) or (p["kind"] in PAIRS_ONLY and threads > 2):
            return None
        cpus = place_threads(topology, placement, threads) if placement != SAME_CPU or threads == 2 else None
        size = SHARED_BYTES + threads * OWN_BYTES + capacity * (p["element"] + 8)
        return cpus and Placement(cpus=tuple(cpus), node=memory_node(topology, topology.node_of(cpus[0])), size=size)

    # -- what the report says -------------------------------------------------------------------------------------------

    def figures(self, topology, cases: list[Parameters]) -> tuple[View, ...]:
        plain = {"kind": HCHAN, "element": 8, "scheduling": NORMAL, "think_time": 0, "producers": 1, "consumers": 1}
        found = []
        for metric, title in (("time", "Time of a message"), ("parks", "Sleeps for a message")):
            where = {**plain, "wait": PARK}
            found.append(View(title=title, metric=metric, kind="bar", x="capacity", series="placement", where=where))
        for placement in dict.fromkeys(p["placement"] for p in cases):
            where = {"capacity": 64, "element": 8, "think_time": 0, "placement": placement}
            found.append(
                View(
                    title=f"Time of a message, {place_words(placement)}",
                    metric="time",
                    kind="bar",
                    x="kind",
                    series="wait",
                    where=where,
                )
            )
        gaps = dict.fromkeys(p["placement"] for p in cases if p["think_time"])
        found += [
            View(
                title=f"CPU time of a message, {place_words(placement)}",
                metric="cpu_time",
                kind="line",
                x="think_time",
                series="wait",
                where={**plain, "capacity": 0, "placement": placement},
            )
            for placement in gaps
        ]
        return tuple(found)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for p in cases:
            if p["think_time"]:
                continue
            plain = p["element"] == 8 and p["producers"] == p["consumers"] == 1
            if p["scheduling"] == BATCH and p["kind"] != HCHAN:
                text = f"Through {WORDS[p['kind']]}, a message ({details(p)}) takes {{value}} {UNDISTURBED}"
                found.append(cell("parks", p, text, False))
            elif p["scheduling"] == BATCH:
                text = f"{message(p)} takes {{value}} of the time {UNDISTURBED}"
                found.append(ratio("time", p, {"scheduling": NORMAL}, text, p["capacity"] == 64))
                text = f"{message(p)} takes {{value}} {UNDISTURBED}"
                found.append(cell("parks", p, text, p["capacity"] == 1))
            elif plain and p["kind"] == HCHAN:
                told = p["capacity"] in (0, 64)
                found.append(cell("time", p, f"{message(p)} costs {{value}}", told and p["wait"] == PARK))
                if p["wait"] == PARK:
                    found.append(cell("parks", p, f"{message(p)} takes {{value}}", False))
                else:
                    text = f"{message(p)} takes {{value}} of the time where its ends sleep"
                    found.append(ratio("time", p, {"wait": PARK}, text, told and p["wait"] == SPIN))
            elif plain:
                kind = WORDS[p["kind"]]
                text = f"{kind[0].upper()}{kind[1:]} takes {{value}} of the time of {WORDS[HCHAN]}, {details(p)}"
                found.append(ratio("time", p, {"kind": HCHAN}, text, p["wait"] == PARK or p["kind"] == "spsc_cached"))
            elif p["element"] > 8:
                found.append(cell("time", p, f"{message(p)} of {p['element']} bytes costs {{value}}", False))
            else:
                who = f"{p['producers']} producers and {p['consumers']} consumers by {WORDS[p['kind']]}, {details(p)}"
                found.append(cell("time", p, f"{who}: a message costs {{value}}", p["wait"] == PARK and p["kind"] == HCHAN))
        for placement in dict.fromkeys(p["placement"] for p in cases if p["think_time"]):
            first = next(p for p in cases if p["think_time"] and p["placement"] == placement)
            where = {name: value for name, value in first.items() if name != "think_time"}
            for metric, what in (("cpu_time", "CPU time"), ("time", "time between messages")):
                found += [
                    Answer(
                        kind="crossover",
                        metric=metric,
                        axis="think_time",
                        where={**where, "wait": other},
                        against={"wait": PARK},
                        headline=metric == "cpu_time" and other == SPIN,
                        text=f"By {what} and the work before each message, {place_words(placement)}: {{value}}.",
                    )
                    for other in (SPIN, SPIN_PARK)
                ]
        return tuple(found)

    def card(self, topology, cases: list[Parameters]) -> Card:
        """A message from hand to hand to a thread that sleeps, on the same CPU and on another one, nearest first."""
        plain = [
            p
            for p in cases
            if p["kind"] == HCHAN
            and p["scheduling"] == NORMAL
            and not p["capacity"]
            and not p["think_time"]
            and p["element"] == 8
            and p["wait"] == PARK
            if p["producers"] == p["consumers"] == 1
        ]
        plain.sort(key=lambda p: (p["placement"] != SAME_CPU, nearest_cores_first(p["placement"])))
        return Card(
            prices=tuple(
                Price(
                    answer=cell("time", p, f"message to a sleeping thread, {RELATION_NAMES.get(p['placement'], 'same CPU')}"),
                    rank=40 + position,
                )
                for position, p in enumerate(plain[:2])
            )
        )

    # -- in the worker ----------------------------------------------------------------------------------------------------

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        think = round(p["think_time"] * 1e-9 / probes.multiply) if p["think_time"] and probes.multiply else 0
        names = ("kind", "capacity", "element", "wait", "scheduling", "producers")
        return {**{name: p[name] for name in names}, "think": think, "spin": SPIN_NS}

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        if p["kind"] == EVENTFD:
            items, room = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE) for _ in range(2))
            for file in (items, room):
                opened.callback(os.close, file)
            return (items, items, -1, room, room)
        if p["kind"] != PIPE:
            return ()
        packets = p["capacity"] <= PACKETS
        read, write = os.pipe2(os.O_CLOEXEC | (os.O_DIRECT if packets else 0))
        for end in (read, write):
            opened.callback(os.close, end)
        bytes_ = p["capacity"] * (PAGE if packets else p["element"])
        try:
            held = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, bytes_)
        except OSError as error:
            raise MachineError(
                f"no pipe of {bytes_} bytes ({error.strerror})",
                f"sudo sysctl fs.pipe-max-size={bytes_}, or a lower --set capacity",
            ) from None
        if held != bytes_:
            raise MachineError(
                f"a pipe of {bytes_} bytes holds {held} here",
                "--set capacity and element whose product is pages, or up to 64 messages",
            )
        return (write, read)

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        producers, consumers = found.threads[: p["producers"]], found.threads[p["producers"] :]
        rate = sum(found.rates[p["producers"] :])
        if not rate:  # no consumer was there in the window: no figure
            return {"time": float("inf")}
        metrics = {"time": 1e9 / rate, "cpu_time": sum(share(t, CPU_NS) for t in found.threads) / rate}
        metrics["producer_parks"] = sum(share(t, PARKS) for t in producers) / rate
        metrics["consumer_parks"] = sum(share(t, PARKS) for t in consumers) / rate
        metrics["parks"] = metrics["producer_parks"] + metrics["consumer_parks"]
        if p["kind"] not in SLEEPERS:  # whose wake-ups are the kernel's, or the library's
            metrics["wakes"] = sum(share(t, WAKES) for t in found.threads) / rate
        if len(producers) > 1:
            metrics["fairness"] = jain_index([max(rate, 1e-9) for rate in found.rates[: len(producers)]])
        return metrics

    def check(self, p: Parameters, found: Found) -> str:
        """Every message once, whole, and in its producer's order; whoever found nothing waited, and on one CPU it slept."""
        producers, consumers = found.threads[: p["producers"]], found.threads[p["producers"] :]
        if wrong := sum(t.value[WRONG] for t in consumers):
            return f"{wrong} messages were torn or out of order"
        if lost := sum(t.value[LOST] for t in found.threads):
            return f"{lost} threads waited in vain for a message or a place"
        sent, received = (sum(t.executed for t in side) for side in (producers, consumers))
        if sent != received:
            return f"{sent} messages were sent, {received} received"
        expected = sum(
            t.executed * (t.executed + 1) // 2 * MOST_PRODUCERS + t.executed * number for number, t in enumerate(producers)
        )
        if expected % (1 << 64) != sum(t.check for t in consumers) % (1 << 64):
            return "the sum of what was received is not that of what was sent"
        messages, waited = sum(t.value[MESSAGES] for t in producers), sum(t.value[WAITED] for t in found.threads)
        if p["kind"] == HCHAN and (waited != messages if not p["capacity"] else waited > messages):
            return f"{waited} times somebody waited for {messages} messages, each of which one end waits for at most"
        return self.check_switches(p, found, messages) if p["placement"] == SAME_CPU else ""

    def check_switches(self, p: Parameters, found: Found, messages: int) -> str:
        """On one CPU, by the kernel's own counts: between two switches to its other end a channel of capacity c lets c + 2 messages
        through at most, whatever else runs (c in the ring, one that its receiver was waiting for, one that its sender waits with);
        and who waits sleeps."""
        for thread in found.threads:
            switches = thread.value[SWITCHES] + thread.value[DRIVEN_OUT]
            if (switches + 1) * (p["capacity"] + 2) < messages:
                return f"{switches} switches for {messages} messages through {p['capacity']} places on one CPU"
        waited, slept = (sum(t.value[slot] for t in found.threads) for slot in (WAITED, SWITCHES))
        if p["wait"] == PARK and slept < LEAST_SLEPT * waited:
            return f"{waited} times somebody found nothing, {slept} times somebody slept"
        return ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """Parks on one CPU are known where who is woken waits until who wakes it sleeps, unless somebody else had that CPU as well."""
        where = (p["placement"], p["wait"], p["scheduling"], p["think_time"])
        if where != (SAME_CPU, PARK, BATCH, 0) or "parks" not in metrics:
            return []
        return ["run_delay"] if abs(metrics["parks"] / (2 * least_parks(p["kind"], p["capacity"])) - 1) > MOST_OFF else []


def least_parks(kind: str, capacity: int) -> float:
    """For a message and on each side, where both share a CPU and switch when one of them sleeps, and only then.

    A ring of c places fills and empties: c messages. hchan takes two more: one goes to the receiver that waits, and with the last
    one its sender waits while the receiver empties the ring."""
    return 1 / (capacity + 2) if kind == HCHAN else 1 / capacity


def share(thread, slot: int) -> float:
    """What a thread counted in its window, for a second of it."""
    return thread.value[slot] * 1e9 / (thread.end_ns - thread.begin_ns)


def cell(metric: str, p: Parameters, text: str, headline: bool = True) -> Answer:
    return Answer(kind="cell", metric=metric, where=p, text=text, headline=headline)


def ratio(metric: str, p: Parameters, against: Parameters, text: str, headline: bool) -> Answer:
    return Answer(kind="ratio", metric=metric, where=p, against=against, text=text, headline=headline)


def place_words(placement: str) -> str:
    return "both ends on one CPU" if placement == SAME_CPU else f"on {RELATION_WORDS[placement]}"


def details(p: Parameters) -> str:
    """`64 places, on CPUs that share an L3, whose ends sleep`."""
    places = f"{p['capacity']} place{'s' * (p['capacity'] != 1)}" if p["capacity"] else "no buffer"
    return f"{places}, {place_words(p['placement'])}, whose ends {WAIT_WORDS[p['wait']]}"


def message(p: Parameters) -> str:
    return f"A message ({details(p)})"


BENCHMARK = Channels()
