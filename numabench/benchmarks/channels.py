"""What does a message from one thread to another cost, and how often must somebody sleep for it?"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack

from ..errors import MachineError
from ..kernel import add_histograms, histogram_quantile
from ..model import ALPHA, Answer, Axis, Card, Contrast, View
from . import (
    CROWDED,
    KERNEL_PRICE,
    MOST_APART,
    SAME_CPU,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    _channels,
    jain_index,
    memory_node,
    place_threads,
)
from ._channels import (
    APART,
    BATCH,
    CONSUMER,
    EVENTFD,
    HCHAN,
    HOMES,
    KINDS,
    MPMC,
    MPSC,
    MUTEX_COND,
    NORMAL,
    PACKED,
    PADDINGS,
    PARK,
    PATTERNS,
    PIPE,
    PLACES_APART,
    PLAIN,
    PRODUCER,
    ROUND_TRIP,
    SCHEDULINGS,
    SPIN,
    SPSC,
    SPSC_CACHED,
    USUAL,
    WAITS,
)
from ._ends import keep_open, pipe

PAIRS_ONLY = (SPSC, SPSC_CACHED, EVENTFD)  # one producer and one consumer
SLEEPERS = (MUTEX_COND, PIPE, EVENTFD)  # that know no spinning
LEAST_PLACES = {HCHAN: 0, MPSC: 2, MPMC: 2}  # of others 1
USUALLY = {HCHAN: PACKED, MUTEX_COND: PACKED}  # how a channel's words lie where nothing is said; of others apart
CAPACITIES, ELEMENTS, BATCHES = (0, 1, 8, 64, 1024), (8, 64, 256, 1024), (1, 16)
THINK_TIMES = (0, 1000, 5000, 20_000, 100_000)  # ns
FEW_THINK_TIMES = (0, 5000, 20_000, 100_000)  # of the quick profile: around what falling asleep and waking costs
SERVICE_TIME = 2000  # ns of a consumer that is slower than every producer
#: For which spin_park spins: about a wake-up of a halted CPU, by which it costs at most twice the least (Karlin et al. 1991).
SPIN_NS = 20_000
PACKETS = 64  # sends up to which a pipe holds them one in a page (O_DIRECT); from there on as bytes, which must fill pages
PAGE = 4096
MOST_BYTES = 4096  # of messages that go at once: what a pipe takes as a whole (PIPE_BUF)
MOST_PRODUCERS = 64
PARKS, WAKES, CPU_NS, HELD, LOOKS, SENDS, WAITED, SWITCHES, DRIVEN_OUT, WRONG, LOST = range(
    11
)  # of `value`, as in kernels/channels.c
LEAST_SLEPT = 0.5  # of the times when somebody found nothing on its own CPU; the rest was interrupted on its way into its sleep
MOST_OFF = 0.05  # of parks for a message, against the least that there can be on one CPU: beyond it somebody else had the CPU
LEAST_DELIVERIES = {"p50": 10, "p99": 200}  # of which a quantile can be told: of the second two beyond it
OWN_BYTES = 4 * MOST_APART + MOST_BYTES + 8 * MOST_PRODUCERS  # of a thread
SHARED_BYTES = 15 * MOST_APART  # two channels of seven parts, and one word


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
        "spin on CPUs of their own pay some cache lines a message, and the time between messages in CPU time."
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
        Axis(
            name="service_time",
            summary="work of a consumer after each message",
            values=(0, SERVICE_TIME),
            unit="ns",
            least=0,
            most=1_000_000,
        ),
        Axis(
            name="batch", summary="messages that are sent and received at a time, by one call", values=BATCHES, least=1, most=64
        ),
        Axis(
            name="padding",
            summary="where the channel's words lie: packed; apart, on lines of their own, or each place too; usual: hchan and the mutex packed, rings apart",
            values=PADDINGS,
        ),
        Axis(name="pattern", summary="stream, or round_trip: each message is answered before the next", values=PATTERNS),
        Axis(name="home", summary="whose node has the memory, the first producer's or the first consumer's", values=HOMES),
        Axis(name="producers", summary="threads that send", values=(1,), least=1, most=MOST_PRODUCERS),
        Axis(name="consumers", summary="threads that receive", values=(1,), least=1),
        Axis(name="placement", summary="relation of the threads' CPUs; same_cpu: both on one", values=(SAME_CPU,)),
    )
    contrasts = (
        Contrast(axis="wait", control=PARK, metric="time"),
        Contrast(axis="wait", control=PARK, metric="cpu_time"),
        Contrast(axis="kind", control=HCHAN, metric="time"),
        Contrast(axis="scheduling", control=NORMAL, metric="time"),
        Contrast(axis="batch", control=1, metric="time"),
        Contrast(axis="padding", control=USUAL, metric="time"),
        Contrast(axis="home", control=PRODUCER, metric="time"),
    )
    method = {
        "time": "between messages that arrive",
        "parks": "voluntary switches, as the kernel counts them",
        "delivery": "of some messages, one in 10 us at most",
        "spin_ns": SPIN_NS,
        "hchan": "one lock, ring, hand-off to who waits",
        "pipe": f"a send in each page up to {PACKETS}, bytes from there on",
    }
    notes = (
        "A message's first and last word are written and looked at, and all of it is copied into the channel and out of it.",
        "`cpu_time` counts what spinning costs while nothing comes: the time of both threads on their CPUs.",
    )
    judges_gaps = False  # threads sleep by design
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    judges_clock = False
    judges_overlap = False  # two common times are counted between, and consumers go on until the last message
    may_sleep = True
    needs_work = True
    most = {"fairness": 1.0}
    needs = "a CPU"

    # -- points ---------------------------------------------------------------------------------------------------------

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        near, far = relations[:1], relations[1:][-1:]
        same = (SAME_CPU,)
        if profile == "quick":
            return [
                *points(same),
                *points(same, capacity=(1, 64), scheduling=(BATCH,)),
                *points(near, wait=(PARK, SPIN), think_time=FEW_THINK_TIMES),
                *points(near, capacity=(64,), wait=(PARK, SPIN)),
                *points(near, capacity=(64,), wait=(SPIN,), kind=(SPSC_CACHED,)),
            ]
        full = profile == "full"
        found = [
            *points(same, capacity=CAPACITIES, scheduling=SCHEDULINGS),
            *points(same, capacity=(64,), kind=KINDS, scheduling=(BATCH,)),
            *points(same, capacity=(64,), batch=BATCHES, scheduling=(BATCH,)),
            *points(same, pattern=(ROUND_TRIP,), scheduling=SCHEDULINGS),
            *points(near + far, capacity=CAPACITIES if full else (0, 1, 64)),
            *points(near, capacity=(0, 64), wait=WAITS),
            *points(near, capacity=(64,), kind=KINDS),
            *points(near, capacity=(64,), kind=KINDS, wait=(SPIN,)),
            *points(near, capacity=(64,), element=ELEMENTS, wait=(SPIN,)),
            *points(near, capacity=(64,), batch=BATCHES, wait=(PARK, SPIN)),
            *points(near, capacity=(64,), batch=BATCHES, wait=(SPIN,), kind=(SPSC, SPSC_CACHED)),
            *points(near, capacity=(64,), padding=PADDINGS, wait=(SPIN,), kind=(HCHAN, SPSC_CACHED, MPMC)),
            *points(near, capacity=(64,), service_time=(0, SERVICE_TIME)),
            *points(near, pattern=(ROUND_TRIP,), wait=(PARK, SPIN)),
            *points(near, capacity=(1,), pattern=(ROUND_TRIP,), kind=(SPSC,), wait=(SPIN,)),
            *points(near, capacity=(1,), pattern=(ROUND_TRIP,), kind=(PIPE, EVENTFD)),
            *points(near, think_time=THINK_TIMES if full else THINK_TIMES[:-1], wait=WAITS),
            *points(far, capacity=(64,), element=(8, 1024), home=HOMES, wait=(SPIN,), kind=(HCHAN, SPSC_CACHED)),
            *self.crowds(topology, near, kind=(HCHAN, MPSC, MPMC), wait=(PARK, SPIN)),
        ]
        if full:
            found += self.crowds(topology, near, kind=KINDS, wait=WAITS)
            found += points((*same, *relations), capacity=CAPACITIES, kind=KINDS, wait=WAITS)
            found += points(near, capacity=CAPACITIES, element=ELEMENTS, wait=WAITS)
            found += points((*same, *relations), capacity=(0, 1, 64), kind=KINDS, wait=WAITS, pattern=(ROUND_TRIP,))
            found += points((*same, *relations), capacity=(64, 1024), kind=KINDS, wait=WAITS, batch=BATCHES)
            found += points(relations, capacity=(1, 64, 1024), kind=KINDS, element=(8, 64), wait=(SPIN,), padding=PADDINGS)
            found += points(relations, capacity=CAPACITIES, kind=KINDS, wait=(PARK, SPIN), home=HOMES)
        return found

    def crowds(self, topology, near: Sequence[str], **values: Sequence) -> list[Sweep]:
        """Several on a side: two threads on each CPU, all of them but one producers or half of them; and four on CPUs of their own, where there are so many."""
        threads = 2 * min(len(topology.order_cpus()), MOST_PRODUCERS // 2)
        near = [relation for relation in near if place_threads(topology, relation, 4)]
        return [
            *points((CROWDED,), capacity=(64,), producers=(threads // 2,), consumers=(threads // 2,), **values),
            *points((CROWDED,), capacity=(64,), producers=(threads - 1,), **values),
            *points(near, capacity=(64,), producers=(3,), **values),
            *points(near, capacity=(64,), producers=(2,), consumers=(2,), **values),
        ]

    def mediated(self, p: Parameters) -> bool:
        return p["wait"] == PARK

    def waiters(self, p: Parameters) -> Collection[int]:
        """Whoever finds nothing is woken, and waits for its CPU."""
        return () if p["wait"] == SPIN else range(p["producers"] + p["consumers"])

    def keep(self, p: Parameters, topology) -> bool:
        if not possible(p):
            return False
        return p["home"] == PRODUCER or len(set(self.homes(p, topology))) > 1

    def place(self, p: Parameters, topology) -> Placement | None:
        threads, placement = p["producers"] + p["consumers"], p["placement"]
        if not self.keep(p, topology) or (placement == SAME_CPU and threads > 2):
            return None
        cpus = place_threads(topology, placement, threads)
        if not cpus:
            return None
        channels = 2 if p["pattern"] == ROUND_TRIP else 1
        size = SHARED_BYTES + threads * OWN_BYTES + channels * p["capacity"] // p["batch"] * place_bytes(p)
        return Placement(cpus=tuple(cpus), node=self.homes(p, topology)[p["home"] == CONSUMER], size=size)

    def homes(self, p: Parameters, topology) -> tuple[int | None, ...]:
        """Nodes of memory of the first producer and of the first consumer."""
        cpus = place_threads(topology, p["placement"], p["producers"] + p["consumers"]) or ()
        return tuple(memory_node(topology, topology.node_of(cpus[i])) for i in (0, p["producers"]) if cpus)

    # -- what the report says -------------------------------------------------------------------------------------------

    def figures(self, topology, cases: list[Parameters]) -> tuple[View, ...]:
        return _channels.figures(cases)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        return _channels.answers(cases)

    def card(self, topology, cases: list[Parameters]) -> Card:
        return _channels.card(cases)

    # -- in the worker ----------------------------------------------------------------------------------------------------

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        def multiplies(ns: int) -> int:
            return round(ns * 1e-9 / probes.multiply) if probes.multiply else 0

        names = ("kind", "capacity", "element", "wait", "scheduling", "producers", "batch", "pattern")
        padding = USUALLY.get(p["kind"], APART) if p["padding"] == USUAL else p["padding"]
        work = {"think": multiplies(p["think_time"]), "service": multiplies(p["service_time"])}
        return {**{name: p[name] for name in names}, **work, "padding": padding, "spin": SPIN_NS}

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        """Where is written and read: of a pipe the way there and in slots 3 and 4 the way back; of eventfds the messages, and in slots 3 and 4 the free places, or
        where messages are answered the answers."""
        if p["kind"] == EVENTFD:
            there, back = (keep_open(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE), opened) for _ in range(2))
            return (there, there, -1, back, back)
        if p["kind"] != PIPE:
            return ()
        there = open_pipe(p, opened)
        return (*there, -1, *open_pipe(p, opened)) if p["pattern"] == ROUND_TRIP else there

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        producers, consumers = found.threads[: p["producers"]], found.threads[p["producers"] :]
        answered = p["pattern"] == ROUND_TRIP
        arrived = sum(found.rates[p["producers"] :])
        if not arrived:  # no consumer was there in the window: no figure
            return {"round_trip" if answered else "time": float("inf")}
        ways = 2 if answered else 1
        metrics = {"round_trip": p["batch"] * 1e9 / arrived} if answered else {"time": 1e9 / arrived}
        metrics["cpu_time"] = sum(t.value[CPU_NS] * 1e9 / (t.end_ns - t.begin_ns) for t in found.threads) / (ways * arrived)
        metrics["producer_parks"], metrics["consumer_parks"] = (counted(side, PARKS) / ways for side in (producers, consumers))
        metrics["parks"] = metrics["producer_parks"] + metrics["consumer_parks"]
        if p["kind"] not in SLEEPERS:  # whose wake-ups are the kernel's, or the library's
            metrics["wakes"] = (counted(producers, WAKES) + counted(consumers, WAKES)) / ways
        if len(producers) > 1:
            metrics["fairness"] = jain_index([max(rate, 1e-9) for rate in found.rates[: len(producers)]])
        if not answered and (looks := sum(t.value[LOOKS] for t in consumers)):
            metrics["occupancy"] = sum(t.value[HELD] for t in consumers) / looks
        return metrics | deliveries(consumers)

    def check(self, p: Parameters, found: Found) -> str:
        """Every message once, whole, and in its producer's order; whoever found nothing waited, and on one CPU it slept."""
        producers, consumers = found.threads[: p["producers"]], found.threads[p["producers"] :]
        if wrong := sum(t.value[WRONG] for t in found.threads):
            return f"{wrong} messages were torn, out of order, or no answer"
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
        sends, waited = (sum(t.value[slot] for t in found.threads) for slot in (SENDS, WAITED))
        if p["kind"] == HCHAN and (waited != sends if not p["capacity"] else waited > sends):
            return f"{waited} times somebody waited for {sends} sends, each of which one end waits for at most"
        return self.check_switches(p, found, sends) if p["placement"] == SAME_CPU else ""

    def check_switches(self, p: Parameters, found: Found, sends: int) -> str:
        """On one CPU, by the kernel's own counts: between two switches to its other end a channel of c places lets c + 2 sends
        through at most, whatever else runs (c in the ring, one that its receiver was waiting for, one that its sender waits with),
        and where each is answered two; and who waits sleeps."""
        most = 2 if p["pattern"] == ROUND_TRIP else p["capacity"] // p["batch"] + 2
        for thread in found.threads:
            switches = thread.value[SWITCHES] + thread.value[DRIVEN_OUT]
            if (switches + 1) * most < sends:
                return f"{switches} switches for {sends} sends through {p['capacity']} places on one CPU"
        waited, slept = (sum(t.value[slot] for t in found.threads) for slot in (WAITED, SWITCHES))
        if p["wait"] == PARK and slept < LEAST_SLEPT * waited:
            return f"{waited} times somebody found nothing, {slept} times somebody slept"
        return ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """Parks on one CPU are known where who is woken waits until who wakes it sleeps, unless somebody else had that CPU as well."""
        where = (p["placement"], p["wait"], p["scheduling"], p["think_time"], p["service_time"])
        if where != (SAME_CPU, PARK, BATCH, 0, 0) or "parks" not in metrics:
            return []
        return ["run_delay"] if abs(metrics["parks"] / (2 * least_parks(p)) - 1) > MOST_OFF else []


def points(placements: Sequence[str], **values: Sequence) -> list[Sweep]:
    """Hand to hand through an hchan whose ends sleep, with other `values` of some axes."""
    plain = {name: (value,) for name, value in PLAIN.items()}
    plain |= {"kind": (HCHAN,), "capacity": (0,), "wait": (PARK,), "scheduling": (NORMAL,)}
    return [{**plain, **values, "placement": placements}] if placements else []


def possible(p: Parameters) -> bool:
    """Whether there is such a channel, as kernels/channels.c knows them."""
    kind, capacity, batch, padding = p["kind"], p["capacity"], p["batch"], p["padding"]
    if capacity & (capacity - 1) or batch & (batch - 1) or p["element"] * batch > MOST_BYTES:
        return False
    if capacity // batch < LEAST_PLACES.get(kind, 1) or 0 < capacity < batch or (kind in SLEEPERS and p["wait"] != PARK):
        return False
    one_each = p["producers"] == p["consumers"] == 1
    if not one_each and (kind in PAIRS_ONLY or p["pattern"] == ROUND_TRIP):
        return False
    if kind == MPSC and p["consumers"] > 1:
        return False
    if kind == PIPE:  # whose words are the kernel's
        return padding == USUAL
    return padding != USUALLY.get(kind, APART) and not (padding == PLACES_APART and not capacity)


def place_bytes(p: Parameters) -> int:
    """Of a place of the ring, at most."""
    used = p["element"] * p["batch"] + 8
    return -(-used // MOST_APART) * MOST_APART if p["padding"] == PLACES_APART else used


def open_pipe(p: Parameters, opened: ExitStack) -> tuple[int, int]:
    """Where to write and where to read; it holds as many messages as it should, or MachineError."""
    sends = p["capacity"] // p["batch"]
    packets = sends <= PACKETS
    write, read = pipe(opened, flags=os.O_DIRECT if packets else 0)
    bytes_ = sends * PAGE if packets else p["capacity"] * p["element"]
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
    return write, read


def deliveries(consumers: Sequence) -> dict[str, float]:
    """Quantiles of all consumers' deliveries, as far as there are enough."""
    bins = add_histograms(consumers)
    return {
        f"delivery_{name}": histogram_quantile(bins, int(name[1:]) / 100)
        for name, least in LEAST_DELIVERIES.items()
        if sum(bins) >= least
    }


def least_parks(p: Parameters) -> float:
    """For a message and on each side, where both share a CPU and switch when one of them sleeps, and only then.

    A ring of c messages fills and empties: c messages. hchan takes two sends more: one goes to the receiver that waits, and with the last
    one its sender waits while the receiver empties the ring. Where each is answered, each side sleeps once for both."""
    if p["pattern"] == ROUND_TRIP:
        return 1 / (2 * p["batch"])
    return 1 / (p["capacity"] + 2 * p["batch"]) if p["kind"] == HCHAN else 1 / p["capacity"]


def counted(side: Sequence, slot: int) -> float:
    """What threads of one side counted for each of their own messages: whether one of them was kept from its CPU for longer does not matter then."""
    return sum(t.value[slot] for t in side) / max(1, sum(t.operations for t in side))


BENCHMARK = Channels()
