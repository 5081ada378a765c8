"""What does it cost to move bytes to a socket or a pipe, and from which size on does leaving out the copy pay?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from ..kernel import median_batch
from ..model import ALPHA, Answer, Axis, Card, Contrast, Price, Tile, View
from ..units import format_bytes
from . import (
    ALONE,
    KERNEL_PRICE,
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
from ._ends import keep_open, need, pipe, tcp, unix, veth

COPYING, IN_MEMORY = "read_write", "write"  # the two controls: copying from the same file, and data that is in memory anyway
SHARES = ("sendfile", "splice", "vmsplice")
FILED = (COPYING, "sendfile", "splice", "mmap_write", IN_MEMORY, "vmsplice")  # to whatever transport
TELLS = ("zerocopy", "uring_zc", "uring_zc_fixed")  # the kernel is to say whether it copied
SENT = (IN_MEMORY, "uring_send", *TELLS)  # of memory to a socket
METHODS = (*FILED, *SENT[1:])
MAIN = (COPYING, "sendfile", IN_MEMORY)
ENDS = {"tcp": tcp, "unix": unix, "veth": veth}
STREAMS = {"tcp": "a TCP socket on the loopback", "unix": "a Unix socket", "pipe": "a pipe"}
TRANSPORTS = {**STREAMS, "veth": "a device whose packets nobody reads"}
RECEIVERS = {"reads": "read", "drops": "dropped"}
SOURCES = {"warm": "in the caches", "cold": "in no cache"}
NAMES = {
    "read_write": "read and write",
    "sendfile": "sendfile",
    "splice": "splice",
    "mmap_write": "write from a mapping of the file",
    "write": "write from memory",
    "vmsplice": "vmsplice",
    "zerocopy": "MSG_ZEROCOPY",
    "uring_send": "io_uring",
    "uring_zc": "io_uring's SEND_ZC",
    "uring_zc_fixed": "io_uring's SEND_ZC of a registered buffer",
}
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SMALL, USUAL = 64, 64 * KIB  # chunks: nearly the fixed price alone; what servers send at once
CHUNKS = (SMALL, KIB, 4 * KIB, 16 * KIB, USUAL, 256 * KIB, MIB)
FEW = (SMALL, 4 * KIB, USUAL, 256 * KIB)
DATAGRAMS = (KIB, 4 * KIB, 16 * KIB, 32 * KIB, 60 * KIB)  # of at most 65,507 bytes
LARGE = (4 * KIB, 16 * KIB, USUAL, 256 * KIB)  # where it matters what caches have
PAGE, PLACES, FACTOR, PROBE_BYTES = 4096, 2, 0x9E3779B97F4A7C15, 16384  # as in kernels/transfer.c
CHANGED_SLOT, KEPT_SLOT, SEEN_SLOT, PARTS_SLOT, WAITS_SLOT, FAILED_SLOT, CPU_SLOT, BYTES_SLOT = range(6, 14)  # of `value`
SENDS_SLOT, NOTIFIED_SLOT, SAID_SLOT = range(13, 16)  # of a way that is told of its sends
ROOM = 4 * MIB  # asked for in sockets: four of the largest chunks, whose pages count in full; the system gives what it allows
MOST_WAITS = 0.01  # a chunk, by one thread: one that waits for others does not spend its time on the CPU


class Transfer(Benchmark):
    name = kernel = "transfer"
    rank = 27
    topic = "runtime"
    phase = ALPHA
    title = "Moving bytes to a socket or a pipe"
    question = "What does it cost to move bytes to a socket or a pipe, and from which size on does leaving out a copy pay?"
    expected = (
        "A chunk costs a fixed part (two calls and more, 1 us through a pipe, 8 us through TCP) and a slope: some 100 ps a byte for each copy. Who leaves a copy out has less slope and hardly a higher "
        "fixed part: sendfile beats read and write from some KiB on. Against data that is in memory anyway it saves less. Where the receiver reads, its copy remains and hides half of the gain."
    )
    axes = (
        Axis(name="method", summary="how bytes are sent", values=METHODS),
        Axis(
            name="transport",
            summary="what they are sent through: TCP by the loopback, a Unix socket, a pipe, UDP by a device",
            values=tuple(TRANSPORTS),
        ),
        Axis(
            name="chunk",
            summary="bytes of one transfer",
            values=tuple(sorted({*CHUNKS, *DATAGRAMS})),
            unit="B",
            log=True,
            least=64,
            most=MIB,
            step=8,
        ),
        Axis(name="source", summary="whether caches have what is sent", values=tuple(SOURCES)),
        Axis(
            name="receiver",
            summary="what becomes of the bytes: copied out, or thrown away (TCP, and what leaves by a device)",
            values=tuple(RECEIVERS),
        ),
        Axis(
            name="placement",
            summary="`alone`: both ends by one thread; else the relation of the CPUs of the two that send and receive",
            values=(),
        ),
    )
    contrasts = tuple(
        Contrast(axis="method", control=control, metric="time_per_chunk") for control in (COPYING, IN_MEMORY, "uring_send")
    )
    views = (
        View(
            title="Time of a chunk, both ends by one thread",
            metric="time_per_chunk",
            kind="line",
            x="chunk",
            series="method",
            facet="transport",
            where={"source": "warm", "receiver": "reads", "placement": ALONE},
        ),
        View(
            title="CPU time of a GiB, both ends by one thread",
            metric="cpu_per_gib",
            kind="line",
            x="chunk",
            series="method",
            facet="transport",
            where={"source": "warm", "receiver": "reads", "placement": ALONE},
        ),
        View(
            title="The same to TCP where the receiver drops",
            metric="cpu_per_gib",
            kind="line",
            x="chunk",
            series="method",
            where={"transport": "tcp", "source": "warm", "receiver": "drops", "placement": ALONE},
        ),
        View(
            title="Time of a datagram that nobody receives, with the kernel's word that its memory may be used again",
            metric="time_per_chunk",
            kind="line",
            x="chunk",
            series="method",
            facet="source",
            where={"transport": "veth", "receiver": "drops", "placement": ALONE},
        ),
    )
    method = {
        "file": "memfd",
        "calls": "one chunk at a time, the rest of it where an end takes less",
        "ends": "non-blocking",
        "nagle": "off",
        "cold": "flushed before each chunk",
    }
    notes = (
        "The loopback copies what MSG_ZEROCOPY would not, and has no card: figures of TCP are those of the two stacks and of the copies. By the device nothing is copied, and no card is waited for.",
        "Two threads: CPU times of the two ends depend on who waits for whom. By one thread nobody waits.",
    )
    judges_gaps = False  # a chunk is no batch
    tolerates = KERNEL_PRICE
    judges_overlap = False  # two common times are counted between
    most_samples = 1  # processes differ more: the pages of each lie elsewhere
    may_sleep = True  # of two threads, the one that is ahead

    def sweep(self, topology, profile: str) -> list[Sweep]:
        one = {"transport": tuple(STREAMS), "source": ("warm",), "receiver": ("reads",), "placement": (ALONE,)}
        dropped = {**one, "transport": ("tcp",), "receiver": ("drops",)}
        lost = {**dropped, "transport": ("veth",)}
        if profile == "quick":
            # Where a look tells who is ahead: by TCP small chunks cost the two stacks alone, and by Unix sockets 64 bytes the same with a copy more.
            files, memory = (COPYING, "sendfile"), ("zerocopy", IN_MEMORY)
            return [
                {**one, "transport": ("pipe",), "method": MAIN, "chunk": (SMALL, 4 * KIB, USUAL)},
                {**one, "transport": ("unix",), "method": MAIN[1:], "chunk": (SMALL, 4 * KIB, USUAL)},
                {**one, "transport": ("unix",), "method": MAIN[:1], "chunk": (4 * KIB, USUAL)},
                {**one, "transport": ("tcp",), "method": files, "chunk": (USUAL,)},
                {**dropped, "method": files, "chunk": (USUAL,)},
                {**lost, "method": memory, "chunk": (KIB, 16 * KIB), "source": ("cold",)},
                {**lost, "method": memory, "chunk": (16 * KIB, 60 * KIB)},
            ]
        two = {**one, "placement": topology.relations()}
        both = tuple(SOURCES)
        if profile == "full":
            return [
                {**one, "method": METHODS, "chunk": CHUNKS, "source": both},
                {**dropped, "method": METHODS, "chunk": CHUNKS, "source": both},
                {**lost, "method": SENT, "chunk": DATAGRAMS, "source": both},
                {**two, "method": FILED, "chunk": CHUNKS, "receiver": tuple(RECEIVERS)},
            ]
        return [
            {**one, "method": MAIN, "chunk": CHUNKS},
            {**one, "method": ("splice", "mmap_write", "vmsplice"), "chunk": FEW},
            {**dropped, "method": MAIN, "chunk": LARGE},
            {**one, "method": MAIN, "chunk": LARGE, "source": ("cold",)},
            {**one, "transport": ("tcp",), "method": SENT[1:], "chunk": (4 * KIB, USUAL)},
            {**lost, "method": ("zerocopy", IN_MEMORY), "chunk": DATAGRAMS, "source": both},
            {**lost, "method": SENT[1:], "chunk": (KIB, 16 * KIB, 60 * KIB)},
            {**two, "method": MAIN, "chunk": (4 * KIB, USUAL, MIB)},
        ]

    def mediated(self, p: Parameters) -> bool:
        return True

    def keep(self, p: Parameters, topology) -> bool:
        alone = p["placement"] == ALONE
        if p["transport"] == "veth":
            return p["receiver"] == "drops" and alone and p["method"] in SENT and DATAGRAMS[0] <= p["chunk"] <= DATAGRAMS[-1]
        if p["method"] in SENT[1:] and not (
            alone and p["transport"] == "tcp"
        ):  # Unix sockets refuse to be told of what they copy
            return False
        return (p["receiver"] == "reads" or p["transport"] == "tcp") and (p["source"] == "warm" or alone)

    def group(self, p: Parameters) -> tuple:
        return p["transport"], p["placement"]

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], 1 if p["placement"] == ALONE else 2)
        size = PAGE + (PLACES + 2) * whole_pages(p["chunk"])
        return cpus and Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=size)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for place in dict.fromkeys((p["transport"], p["source"], p["receiver"], p["placement"]) for p in cases):
            at = dict(zip(("transport", "source", "receiver", "placement"), place, strict=True))
            found += self.alone(at) if at["placement"] == ALONE else self.by_two(at)
        return tuple(found)

    def alone(self, at: Parameters) -> list[Answer]:
        plain = at["source"] == "warm" and at["receiver"] == "reads"
        cold = "" if at["source"] == "warm" else f", {SOURCES['cold']} before,"
        where = f"to {TRANSPORTS[at['transport']]}{cold} and {RECEIVERS[at['receiver']]} there"
        crossings = [
            Answer(
                kind="crossover",
                metric="time_per_chunk",
                axis="chunk",
                where={**at, "method": method},
                against={"method": control},
                headline=method == "zerocopy" or (plain and method == "sendfile" and at["transport"] != "tcp"),
                text=f"By bytes sent at once {where}, {against}: {{value}}.",
            )
            for method, control, against in (
                ("sendfile", COPYING, "of a file"),
                ("sendfile", IN_MEMORY, "of a file, or of memory that has its bytes anyway"),
                ("splice", COPYING, "of a file"),
                ("mmap_write", COPYING, "of a file"),
                ("vmsplice", IN_MEMORY, "of memory"),
                ("zerocopy", IN_MEMORY, "of memory"),
                ("uring_zc", "uring_send", "of memory"),
                ("uring_zc_fixed", "uring_send", "of memory"),
            )
        ]
        cells = [
            *(
                Answer(
                    kind="ratio",
                    metric="time_per_chunk",
                    where={**at, "method": method, "chunk": chunk},
                    against={"method": control},
                    headline=at["source"] == "warm" and control == COPYING,
                    text=f"{format_bytes(chunk)} {where} cost by {NAMES[method]} {{value}} of what they cost by {NAMES[control]}",
                )
                for method, control, chunk in (
                    ("sendfile", COPYING, USUAL),
                    ("sendfile", IN_MEMORY, USUAL),
                    ("zerocopy", IN_MEMORY, DATAGRAMS[-1]),
                    ("uring_zc", "uring_send", DATAGRAMS[-1]),
                    ("uring_zc_fixed", "uring_send", DATAGRAMS[-1]),
                )
            ),
            *(
                Answer(
                    kind="cell",
                    metric="cpu_per_gib",
                    where={**at, "method": method, "chunk": USUAL},
                    headline=False,
                    text=f"A GiB {where}, 64 KiB at once by {NAMES[method]}, takes {{value}} of CPU time",
                )
                for method in METHODS
            ),
            Answer(
                kind="cell",
                metric="time_per_chunk",
                where={**at, "method": IN_MEMORY, "chunk": SMALL},
                headline=False,
                text=f"64 bytes {where} take {{value}}, nearly all of it whatever their number",
            ),
        ]
        return crossings + cells

    def by_two(self, at: Parameters) -> list[Answer]:
        where = f"to {TRANSPORTS[at['transport']]}, sent and {RECEIVERS[at['receiver']]} by two threads on {RELATION_WORDS[at['placement']]}"
        return [
            Answer(kind="cell", metric=metric, where={**at, "method": method, "chunk": USUAL}, headline=False, text=text)
            for method in MAIN
            for metric, text in (
                ("rate", f"64 KiB at once {where}, move by {NAMES[method]} at {{value}}"),
                ("sender_cpu_per_gib", f"Of a GiB {where}, {NAMES[method]} takes {{value}} of the sender's CPU time"),
                ("receiver_cpu_per_gib", f"Of a GiB {where}, by {NAMES[method]}, receiving takes {{value}} of CPU time"),
            )
        ]

    def card(self, topology, cases: list[Parameters]) -> Card:
        at = {"chunk": USUAL, "source": "warm", "receiver": "reads", "placement": ALONE}
        ratio = Answer(
            kind="ratio",
            metric="time_per_chunk",
            where={**at, "transport": "tcp", "method": "sendfile"},
            against={"method": COPYING},
            text="64 KiB through TCP by sendfile over read and write",
        )
        return Card(
            tiles=(Tile(subject="zero copy", answer=ratio, rank=63),),
            prices=tuple(
                Price(
                    answer=Answer(
                        kind="cell",
                        metric="time_per_chunk",
                        where={**at, "transport": transport, "method": method},
                        text=f"64 KiB through {name}, {NAMES[method]}",
                    ),
                    rank=rank,
                )
                for transport, name, method, rank in (
                    ("tcp", "TCP", COPYING, 56),
                    ("tcp", "TCP", "sendfile", 57),
                    ("pipe", "a pipe", IN_MEMORY, 58),
                )
            ),
        )

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        """The end to send to and the one to receive from, the file, and a pipe for what is spliced to a socket."""
        room = whole_pages(max(USUAL, p["chunk"]))
        need(p["method"], PLACES * whole_pages(p["chunk"]))
        to, there = pipe(opened, room) if p["transport"] == "pipe" else ENDS[p["transport"]](opened, ROOM)
        file = keep_open(os.memfd_create("numabench"), opened)
        between = pipe(opened, room) if p["method"] in ("splice", "vmsplice") and p["transport"] != "pipe" else (-1, -1)
        return to, there, file, -1, -1, *between

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {name: p[name] for name in ("method", "chunk", "source", "receiver")}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        chunk = p["chunk"]
        if len(found.threads) == 1:
            ns = median_batch(found.threads[0])
            return {"time_per_chunk": ns, "cpu_per_gib": ns * 1e-9 * GIB / chunk, "rate": chunk / ns * 1e9}
        sender, receiver = ((t.value[CPU_SLOT], t.value[BYTES_SLOT], t.end_ns - t.begin_ns) for t in found.threads)
        if not (sender[1] and receiver[1]):  # nothing arrived in the window
            return {"rate": 0.0}
        sent, got = (cpu * 1e-9 * GIB / moved for cpu, moved, _ in (sender, receiver))
        rate = receiver[1] / receiver[2] * 1e9
        return {
            "time_per_chunk": chunk / rate * 1e9,
            "cpu_per_gib": sent + got,
            "rate": rate,
            "sender_cpu_per_gib": sent,
            "receiver_cpu_per_gib": got,
        }

    def check(self, p: Parameters, found: Found) -> str:
        """Everything arrived, as it was sent and no sooner than it was changed: the path is the one that is measured."""
        sender, receiver = found.threads[0], found.threads[-1]
        for thread in found.threads:
            if number := thread.value[FAILED_SLOT]:
                return f"a transfer failed: {os.strerror(number)}"
        if complaint := path_complaint(p, sender.value):
            return complaint
        if len(found.threads) == 1:
            wanted = sender.executed * p["chunk"] if p["receiver"] == "drops" else sum_sent(p["chunk"], sender.executed)
            what = "bytes" if p["receiver"] == "drops" else "a sum"
            return "" if sender.check == wanted else f"{what} of {sender.check} arrived, and not {wanted}"
        if receiver.executed != sender.executed:
            return f"{receiver.executed} of {sender.executed} chunks arrived"
        return f"{receiver.check} words arrived that are not those of the source" if receiver.check else ""

    def doubts(self, p: Parameters, found: Found, metrics: dict[str, float], probes: Probes) -> list[str]:
        """`away`: nothing moved within the window. `waited`: one thread had to wait for what another CPU did, so that its time is not CPU time."""
        first = found.threads[0]
        if not all(t.operations for t in found.threads):
            return ["away"]
        return ["waited"] if len(found.threads) == 1 and first.value[WAITS_SLOT] > MOST_WAITS * first.executed else []

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        """`shared`: of the probe, the share of words that were not copied; `parts`: calls that sent something, for one chunk."""
        value, executed = found.threads[0].value, max(1, found.threads[0].executed)
        words = max(1, value[CHANGED_SLOT] + value[KEPT_SLOT])
        return {"shared": value[CHANGED_SLOT] / words, "parts": value[PARTS_SLOT] / executed}


def whole_pages(chunk: int) -> int:
    return -(-chunk // PAGE) * PAGE


def sum_sent(chunk: int, chunks: int) -> int:
    """Of the words of so many chunks from the places in turn, modulo 2^64."""
    words, room = chunk // 8, whole_pages(chunk) // 8
    total = 0
    for place in range(PLACES):
        first = place * room + 1
        total += len(range(place, chunks, PLACES)) * (words * first + words * (words - 1) // 2)
    return total * FACTOR % (1 << 64)


def path_complaint(p: Parameters, value: Sequence[int]) -> str:
    """What the probe says against the path that is called so; empty where it proves it."""
    if complaint := told_complaint(p, value):
        return complaint
    if p["transport"] == "veth":  # nobody receives
        return ""
    words = min(p["chunk"], PROBE_BYTES) // 8
    changed, kept, seen = value[CHANGED_SLOT], value[KEPT_SLOT], value[SEEN_SLOT]
    if seen != words:
        return f"the source was changed in {seen} of {words} words"
    if changed + kept != words:
        return f"{words - changed - kept} of {words} words arrived neither as they were nor changed"
    if changed not in (0, words):
        return f"mixed: {changed} of {words} words were shared with the source"
    if (changed == words) != (p["method"] in SHARES):
        return f"{p['method']} {'shared the source' if changed else 'copied the source'}, and is to {'copy' if changed else 'share'} it"
    return ""


def told_complaint(p: Parameters, value: Sequence[int]) -> str:
    """What the kernel tells of sends against what it is to tell: that it copied on the loopback, and did not by the device."""
    if p["method"] not in TELLS:
        return ""
    sends, notified, said = value[SENDS_SLOT], value[NOTIFIED_SLOT], value[SAID_SLOT]
    if not sends or notified != sends:
        return f"{notified} of {sends} sends were notified of"
    copied = 0 if p["transport"] == "veth" else sends
    return "" if said == copied else f"{said} of {sends} sends were copied, by what the kernel says, and {copied} were to be"


BENCHMARK = Transfer()
