"""Is it zero copy: which transfers share pages with their source, and which copy, refuse, or do not tell?"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack

from ..errors import MachineError
from ..host.opening import open_again, open_name
from ..model import ALPHA, Answer, Axis, View
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node

READS = ("read_write", "sendfile", "splice", "copy_file_range", "mmap_write")  # need a file to read
SENDS = ("zerocopy", "zerocopy_unset", "uring_send", "uring_zc")  # need a socket
METHODS = ("read_write", "write", "writev", "mmap_write", "sendfile", "splice", "vmsplice", "copy_file_range", *SENDS)
TARGETS = ("tcp", "unix", "pipe", "file", "file_append")
SOCKETS, FILES = TARGETS[:2], TARGETS[3:]
SOURCES = ("memory", "memfd", "shm", "file", "direct", "proc")
CACHED = ("memfd", "shm", "file")  # what of files is in the page cache, and read from there
ALIGNMENTS = ("aligned", "unaligned")

#: Of `outcome`, whose words kernels/page_identity.c has; below the first of them it is the errno of a refusal.
COPIED, SHARED, SAID, NOT_TOLD, MIXED = range(1000, 1005)
REFUSED = 0  # stands for any refusal where it does not matter which

# Of `value`, as in kernels/page_identity.c.
REFUSED_SLOT, ERROR_SLOT, SHARED_SLOT, COPIED_SLOT, WRONG_SLOT, UNSEEN_SLOT, INCOMPLETE_SLOT = range(6, 13)
SENDS_SLOT, NOTIFIED_SLOT, SAID_SLOT = range(13, 16)
PAGES = 5  # at most, that a transfer meets
PARTS = 3  # of the measured memory: the source, what is read from another one, what arrives
SCRATCH = 4096  # what the kernel knows from one event to the next
SOCKET_BYTES = 1 << 18  # of room on either side: a transfer finds place as a whole, on machines with large pages too
WINDOW = 0.1  # of the usual: outcomes are alike each time, and eight of them are enough
SHM = "/dev/shm"
URING_SETUP, URING_PARAMS = (
    425,
    120,
)  # the number of io_uring_setup on all architectures of Linux but Alpha; bytes of its second argument


def expected(p: Parameters) -> frozenset[int] | None:
    """The outcomes that Linux documents for a case, refusals among them as REFUSED; None where nothing is promised.

    write(2), writev(2), send(2): the bytes are those at the time of the call, and the memory may be used again after it. sendfile(2), splice(2): pages of a file in the
    page cache go to a socket or a pipe by reference, and must not be changed until they are read. vmsplice(2): so do pages of memory. Documentation/networking/msg_zerocopy.rst: what stays on
    the machine is copied, and the notification says so; without SO_ZEROCOPY the flag is ignored. Two files never share a later change (copy_file_range(2)), and O_APPEND
    is refused by the calls that would have to know where to write (EINVAL, EBADF)."""
    method, target, source = p["method"], p["target"], p["source"]
    if source == "proc" and method not in ("read_write", "write", "writev"):
        return frozenset({REFUSED})  # nothing of it is in the page cache, and it cannot be mapped
    if target == "file_append" and method in ("sendfile", "splice", "vmsplice", "copy_file_range"):
        return frozenset({REFUSED})
    if source == "direct":
        return frozenset({COPIED, REFUSED}) if method == "read_write" else None
    if method in ("zerocopy", "uring_zc"):
        return frozenset({SAID, REFUSED} if target == "tcp" else {REFUSED})
    if method == "zerocopy_unset":
        return frozenset({NOT_TOLD})
    if target in FILES:
        return frozenset({COPIED, REFUSED} if method == "copy_file_range" else {COPIED})
    return frozenset({SHARED} if method in ("sendfile", "splice", "vmsplice") else {COPIED})


#: Outcomes without which a case proves nothing, or which break what programs rely on: a sample with another one fails. Other deviations are results.
def must(p: Parameters) -> int | None:
    if p["method"] == "vmsplice" and p["target"] == "pipe":
        return SHARED  # the control: pages of this process in a pipe
    never = p["target"] in FILES or p["method"] in ("read_write", "write", "writev", "mmap_write", "uring_send", "zerocopy_unset")
    return COPIED if never else None


class PageIdentity(Benchmark):
    name = kernel = "page_identity"
    rank = 25
    topic = "runtime"
    phase = ALPHA
    title = "Page identity"
    question = "Is it zero copy: which transfers share pages with their source, and which copy, refuse, or do not tell?"
    expected = (
        "sendfile and splice share pages of the page cache with TCP and Unix sockets and with pipes, at any offset and length and on every file system that reads through it; writing a mapping copies. "
        "A target with O_APPEND and sources such as /proc are refused. MSG_ZEROCOPY over the loopback device is copied, and says so; without SO_ZEROCOPY it is copied without a word."
    )
    axes = (
        Axis(name="method", summary="how bytes are transferred", values=METHODS),
        Axis(name="target", summary="to where", values=TARGETS),
        Axis(name="source", summary="from where", values=SOURCES),
        Axis(name="alignment", summary="of offset and length to pages", values=ALIGNMENTS),
    )
    views = (
        View(title="Bytes that are shared", metric="shared", kind="heatmap", x="target", y="method", facet="source"),
        View(
            title="Transfers that are refused",
            metric="refused",
            kind="heatmap",
            x="target",
            y="method",
            facet="source",
            where={"alignment": "unaligned"},
        ),
    )
    method = {"change": "after arrival, before the read", "bytes": "4 pages", "offset": 1234, "short_of": 777}
    notes = (
        "An outcome that is not documented is a result (`deviates`); where a write shares, two files share, or vmsplice to a pipe copies, the sample fails: the first two break programs, "
        "and without the third nothing is proven.",
        "What the loopback device does says nothing of a network card. `extra` of each sample in the run log has the errno of refusals.",
    )
    judges_gaps = False
    judges_clock = False
    judges_delay = False
    most_samples = 1  # each is some dozens of transfers that end alike
    reports = ("outcome", "shared", "refused", "notified", "said_copied", "deviates")
    most = {"shared": 1.0, "refused": 1.0, "notified": 1.0, "said_copied": 1.0, "deviates": 1.0}

    def sweep(self, topology, profile: str) -> list[Sweep]:
        def product(
            methods: Sequence[str], sources: Sequence[str], targets: Sequence[str] = TARGETS, alignments=ALIGNMENTS
        ) -> Sweep:
            return {"method": methods, "target": targets, "source": sources, "alignment": alignments}

        if profile == "quick":
            return [
                product(("read_write", "sendfile"), ("file",), TARGETS[:3]),
                product(("mmap_write", "splice"), ("file",), TARGETS[:1], ALIGNMENTS[:1]),
                product(("sendfile",), ("memfd", "proc"), TARGETS[:1], ALIGNMENTS[1:]),
                product(("sendfile",), ("file",), TARGETS[3:], ALIGNMENTS[:1]),
                product(("write", "vmsplice"), ("memory",), ("pipe",), ALIGNMENTS[:1]),
                product(("zerocopy", "zerocopy_unset"), ("memory",), ("tcp",), ALIGNMENTS[:1]),
            ]
        return [
            product(READS, SOURCES[1:]),
            product(("write", "writev"), ("memory",)),
            product(("vmsplice",), ("memory", "memfd", "file")),
            product(SENDS, ("memory",), SOCKETS),
        ]

    def keep(self, p: Parameters, topology) -> bool:
        if p["source"] == "proc" and p["alignment"] != "unaligned":  # sixteen bytes
            return False
        if p["source"] == "direct" and p["method"] == "mmap_write":  # a mapping knows no O_DIRECT
            return False
        if (p["source"] == "memory" and p["method"] in READS) or (p["method"] in SENDS and p["target"] not in SOCKETS):
            return False
        return p["method"] != "copy_file_range" or p["target"] in FILES

    def group(self, p: Parameters) -> tuple:
        return (p["source"], p["alignment"])

    def place(self, p: Parameters, topology) -> Placement | None:
        cpu = topology.order_cpus()[0]
        node = memory_node(topology, topology.node_of(cpu))
        return Placement(cpus=(cpu,), node=node, size=PARTS * PAGES * mmap.PAGESIZE, scratch=SCRATCH)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        def said(text: str, headline: bool, axis: str | None = None, **where: str) -> Answer:
            return Answer(kind="outcome", metric="outcome", where=where, axis=axis, text=text, headline=headline)

        claims = [
            said("sendfile, said to share whole pages alone (file to TCP): {value}", True, "alignment", method="sendfile", target="tcp", source="file"),
            said("sendfile, said to share with TCP alone (file, whole pages): {value}", True, "target", method="sendfile", source="file", alignment="aligned"),
            said("sendfile, said to need some file systems (to TCP, unaligned): {value}", True, "source", method="sendfile", target="tcp", alignment="unaligned"),
            said("A mapping that is written, said to be zero copy (file to TCP): {value}", True, method="mmap_write", target="tcp", source="file", alignment="aligned"),
            said("MSG_ZEROCOPY, said to leave the copy out (memory to TCP over loopback): {value}", True, method="zerocopy", target="tcp", source="memory", alignment="aligned"),
            said("MSG_ZEROCOPY, where SO_ZEROCOPY was forgotten (memory to TCP): {value}", True, method="zerocopy_unset", target="tcp", source="memory", alignment="aligned"),
        ]  # fmt: skip
        for method in METHODS:
            for source in SOURCES:
                for alignment in ALIGNMENTS:
                    text = f"{method} from {source}, {alignment}: {{value}}"
                    claims.append(said(text, False, "target", method=method, source=source, alignment=alignment))
        text = "Outcomes against what Linux documents: {value}"
        return (Answer(kind="outcome", metric="deviates", where={}, axis="method", text=text), *claims)

    # -- what a case is given -----------------------------------------------------------------------------------------------

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        if p["method"].startswith("uring"):
            need_uring()
        to, out = target(p, opened)
        given, changed = source(p["source"], opened) if p["source"] != "memory" else (-1, -1)
        way_out, way_in = pipe(opened)
        return to, out, given, way_in, way_out, changed

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return dict(p)

    def stretch(self, p: Parameters) -> float:
        return WINDOW

    # -- what it found ------------------------------------------------------------------------------------------------------

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        thread = found.threads[0]
        value, code = thread.value, outcome(thread)
        # the first one decides when there is enough: a constant that is not zero has an interval at once
        metrics = {"outcome": float(code), "deviates": float(deviates(p, code)), "refused": value[REFUSED_SLOT] / thread.cursor}
        arrived = value[SHARED_SLOT] + value[COPIED_SLOT] + value[WRONG_SLOT]
        if arrived:
            metrics["shared"] = value[SHARED_SLOT] / arrived
        if value[SENDS_SLOT]:
            metrics["notified"] = value[NOTIFIED_SLOT] / value[SENDS_SLOT]
        if value[NOTIFIED_SLOT]:
            metrics["said_copied"] = value[SAID_SLOT] / value[NOTIFIED_SLOT]
        return metrics

    def check(self, p: Parameters, found: Found) -> str:
        """Every change was seen, every byte that arrived is old or changed, every event ended alike; and the controls are what they must be."""
        thread = found.threads[0]
        if said := unaccounted(thread):
            return said
        code, wanted = outcome(thread), must(p)
        if code >= COPIED and wanted is not None and (code == SHARED) != (wanted == SHARED):
            return f"{p['method']} from {p['source']} to {p['target']} {('was copied', 'shared its source')[code == SHARED]}, which must not be"
        return ""

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        thread = found.threads[0]
        return {"transfers": float(thread.cursor), "errno": float(thread.value[ERROR_SLOT])}


def unaccounted(thread) -> str:
    """What is not as it must be whatever the outcome; empty where all transfers of a sample are accounted for and ended alike."""
    value, events = thread.value, thread.cursor
    for slot, what in (
        (UNSEEN_SLOT, "changes of the source were not seen in it"),
        (INCOMPLETE_SLOT, "transfers did not arrive whole"),
        (WRONG_SLOT, "bytes are neither those before the change nor those after it"),
    ):
        if value[slot]:
            return f"{value[slot]} {what}, in {events} transfers"
    if thread.check != thread.executed:
        return f"{thread.executed - thread.check} of {thread.executed} transfers are not accounted for"
    if outcome(thread) == MIXED:
        return (
            f"{value[REFUSED_SLOT]} of {events} transfers were refused, {value[SHARED_SLOT]} bytes were shared and {value[COPIED_SLOT]} copied, "
            f"{value[NOTIFIED_SLOT]} of {value[SENDS_SLOT]} sends notified of, {value[SAID_SLOT]} of them as copied: neither the one nor the other"
        )
    return ""


def outcome(thread) -> int:
    """What all transfers of a sample had in common; MIXED where they differ."""
    value = thread.value
    if value[REFUSED_SLOT]:
        return value[ERROR_SLOT] if value[REFUSED_SLOT] == thread.cursor else MIXED
    if value[SHARED_SLOT] and value[COPIED_SLOT]:
        return MIXED
    sends, notified, said = value[SENDS_SLOT], value[NOTIFIED_SLOT], value[SAID_SLOT]
    if notified not in (0, sends) or said not in (0, notified):
        return MIXED
    if value[SHARED_SLOT]:
        return SHARED if not said else MIXED  # who says that it was copied did not share it
    return COPIED if not sends else SAID if said else NOT_TOLD


def deviates(p: Parameters, code: int) -> bool:
    wanted = expected(p)
    return wanted is not None and (code if code >= COPIED else REFUSED) not in wanted


def target(p: Parameters, opened: ExitStack) -> tuple[int, int]:
    """The end to write to and the one to read it from."""
    if p["target"] == "tcp":
        return tcp(opened)
    if p["target"] == "unix":
        ends = [opened.enter_context(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)]
        for end in ends:
            make_room(end)
        return ends[0].fileno(), ends[1].fileno()
    if p["target"] == "pipe":
        out, to = pipe(opened)
        return to, out
    own, _ = source(p["source"] if p["source"] in CACHED else "file" if p["source"] == "direct" else "memfd", opened)
    flags = os.O_WRONLY | (os.O_APPEND if p["target"] == "file_append" else 0)
    return keep_open(open_again(own, flags), opened), own


def tcp(opened: ExitStack) -> tuple[int, int]:
    """Two ends of a connection over the loopback device, without waiting for more to send."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        to = opened.enter_context(socket.socket())
        make_room(to)
        to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)  # before: it decides the window
        to.connect(listener.getsockname())
        end, _ = listener.accept()
        return to.fileno(), opened.enter_context(end).fileno()


def make_room(end: socket.socket) -> None:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)


def pipe(opened: ExitStack) -> tuple[int, int]:
    """The end to read from and the end to write to."""
    out, to = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return keep_open(out, opened), keep_open(to, opened)


def keep_open(number: int, opened: ExitStack) -> int:
    opened.callback(os.close, number)
    return number


def source(kind: str, opened: ExitStack) -> tuple[int, int]:
    """What is transferred from, and by what it is changed and read back."""
    if kind == "proc":
        return keep_open(open_name(os.O_RDONLY), opened), keep_open(open_name(os.O_RDWR), opened)
    if kind == "memfd":
        file = keep_open(os.memfd_create("numabench", os.MFD_CLOEXEC), opened)
    else:
        if kind == "shm" and not os.path.isdir(SHM):
            raise MachineError(f"page_identity: there is no {SHM}", "mount a tmpfs there")
        number, path = tempfile.mkstemp(prefix="numabench-", dir=SHM if kind == "shm" else None)
        file = keep_open(number, opened)
        os.unlink(path)
    os.pwrite(file, bytes(PAGES * mmap.PAGESIZE), 0)
    if kind != "direct":
        return file, file
    try:
        return keep_open(open_again(file, os.O_RDONLY | os.O_DIRECT), opened), file
    except OSError as error:
        where = tempfile.gettempdir()
        raise MachineError(f"page_identity: O_DIRECT in {where}: {error.strerror}", "set TMPDIR to a folder on a disk") from error


def need_uring() -> None:
    """MachineError where io_uring is not there or not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(URING_SETUP, 1, ctypes.create_string_buffer(URING_PARAMS))
    if ring < 0:
        raise MachineError(
            f"page_identity: io_uring_setup: {os.strerror(ctypes.get_errno())}",
            "sysctl kernel.io_uring_disabled=0, and a container that allows it",
        )
    os.close(ring)


BENCHMARK = PageIdentity()
