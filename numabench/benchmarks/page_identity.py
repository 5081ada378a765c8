"""Is it zero copy: which transfers share pages with their source, and which copy, refuse, or do not tell?"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack

from ..errors import MachineError
from ..host.opening import file_system_of, file_systems, open_again, open_name
from ..model import ALPHA, Answer, Axis, Frozen, View
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node
from ._ends import keep_open, need, pipe, tcp, udp, unix, veth

READS = ("read_write", "sendfile", "splice", "copy_file_range", "mmap_write")  # need a file to read
TELLS = ("zerocopy", "uring_zc", "uring_zc_fixed")  # the kernel is to say whether it copied
SENDS = (*TELLS, "zerocopy_unset", "uring_send")  # need a socket
METHODS = (
    "read_write", "write", "writev", "mmap_write", "sendfile", "splice", "vmsplice", "copy_file_range",
    "zerocopy", "zerocopy_unset", "uring_send", "uring_zc", "uring_zc_fixed",
)  # fmt: skip
ENDS = {"tcp": tcp, "unix": unix, "udp": udp, "veth": veth}
STREAMS, FILES, DATAGRAMS = ("tcp", "unix", "pipe"), ("file", "file_append"), ("udp", "veth")
TARGETS = (*STREAMS, *FILES, *DATAGRAMS)
#: Types that are known by name; one that is there and is none of these is measured as well.
FILE_SYSTEMS = ("ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay", "nfs4", "9p", "virtiofs")
REMOTE = ("nfs4", "9p", "virtiofs")  # may be read past the page cache, as they are mounted
SOURCES = ("memory", "memfd", *FILE_SYSTEMS, "direct", "proc")
ALIGNMENTS = ("aligned", "unaligned")

#: Of `outcome`, whose words kernels/page_identity.c has; below the first of them it is the errno of a refusal.
COPIED, SHARED, SAID, NOT_TOLD, UNCOPIED, MIXED = range(1000, 1006)
REFUSED = 0  # stands for any refusal where it does not matter which

# Of `value`, as in kernels/page_identity.c.
REFUSED_SLOT, ERROR_SLOT, SHARED_SLOT, COPIED_SLOT, WRONG_SLOT, UNSEEN_SLOT, INCOMPLETE_SLOT = range(6, 13)
SENDS_SLOT, NOTIFIED_SLOT, SAID_SLOT = range(13, 16)
PAGES = 5  # at most, that a transfer meets
PARTS = 3  # of the measured memory: the source, what is read from another one, what arrives
SCRATCH = 4096  # what the kernel knows from one event to the next
SOCKET_BYTES = 1 << 18  # of room on either side: a transfer finds place as a whole, on machines with large pages too
WINDOW = 0.1  # of the usual: outcomes are alike each time, and eight of them are enough


def expected(p: Parameters) -> frozenset[int] | None:
    """The outcomes that Linux documents for a case, refusals among them as REFUSED; None where nothing is promised.

    write(2), writev(2), send(2): the bytes are those at the time of the call, and the memory may be used again after it. sendfile(2), splice(2): pages of a file in the
    page cache go to a socket or a pipe by reference, and must not be changed until they are read. vmsplice(2): so do pages of memory. Documentation/networking/msg_zerocopy.rst: what stays on
    the machine is copied, and the notification says so; without SO_ZEROCOPY the flag is ignored. Two files never share a later change (copy_file_range(2)), and O_APPEND
    is refused by the calls that would have to know where to write (EINVAL, EBADF)."""
    method, target, source = p["method"], p["target"], p["source"]
    if source == "proc" and method != "read_write":
        return frozenset({REFUSED})  # nothing of it is in the page cache, and it cannot be mapped
    if target == "file_append" and method in ("sendfile", "splice", "vmsplice", "copy_file_range"):
        return frozenset({REFUSED})
    if source == "direct" or (source in REMOTE and method in ("sendfile", "splice")):
        return frozenset({COPIED, REFUSED}) if method == "read_write" else None
    if method in TELLS:
        return frozenset({"veth": {UNCOPIED}, "unix": {REFUSED}}.get(target, {SAID}) | {REFUSED})
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


class Claim(Frozen):
    """What is often said: `text`, where a case has one of the outcomes `true`; refuted, where it has one of `false`."""

    text: str
    true: frozenset[int]
    false: frozenset[int]


LEFT_OUT, DONE = frozenset({SHARED, UNCOPIED}), frozenset({COPIED, SAID, NOT_TOLD})  # the copy; with a copy


def claim(p: Parameters, usual: str) -> Claim | None:
    """The one that a case tries; `usual`: the type of file system that most cases read from."""
    method, target, source, alignment = p["method"], p["target"], p["source"], p["alignment"]
    point = method, target, "file" if source == usual else source, alignment

    def copies(text: str) -> Claim:
        return Claim(text=text, true=DONE, false=LEFT_OUT)

    def shares(text: str) -> Claim:
        return Claim(text=text, true=LEFT_OUT, false=DONE)

    def works(text: str) -> Claim:
        return Claim(text=text, true=LEFT_OUT | DONE, false=frozenset({REFUSED}))

    is_file = source not in ("memory", "direct", "proc")
    if (method, target, alignment) == ("sendfile", "tcp", "aligned") and is_file and source != usual:
        return copies(f"sendfile copies what is on {source}")
    return {
        ("sendfile", "tcp", "file", "unaligned"): copies("zero copy needs whole pages (sendfile of other pieces, to TCP)"),
        ("sendfile", "unix", "file", "aligned"): copies("sendfile is zero copy to TCP alone (to a Unix socket)"),
        ("sendfile", "pipe", "file", "aligned"): copies("sendfile is zero copy to sockets alone (to a pipe)"),
        ("sendfile", "file", "file", "aligned"): shares("sendfile from file to file shares pages"),
        ("sendfile", "file_append", "file", "aligned"): works("sendfile appends to a file that was opened with O_APPEND"),
        ("sendfile", "tcp", "proc", "unaligned"): works("sendfile sends from any file (from /proc)"),
        ("sendfile", "tcp", "direct", "aligned"): shares("sendfile of a file opened with O_DIRECT is zero copy"),
        ("mmap_write", "tcp", "file", "aligned"): shares("to write a mapping of a file is zero copy (to TCP)"),
        ("vmsplice", "pipe", "memory", "aligned"): shares("vmsplice shares memory with a pipe"),
        ("zerocopy", "tcp", "memory", "aligned"): shares("MSG_ZEROCOPY leaves the copy out (to TCP over the loopback)"),
        ("zerocopy", "veth", "memory", "aligned"): shares("MSG_ZEROCOPY leaves the copy out (to a device whose packets nobody reads here)"),
        ("zerocopy", "unix", "memory", "aligned"): works("MSG_ZEROCOPY goes with Unix sockets"),
        ("zerocopy_unset", "tcp", "memory", "aligned"): Claim(
            text="MSG_ZEROCOPY goes without SO_ZEROCOPY (to TCP)", true=LEFT_OUT | {SAID}, false=frozenset({COPIED, NOT_TOLD, REFUSED})
        ),
        ("uring_zc", "tcp", "memory", "aligned"): shares("io_uring's SEND_ZC leaves the copy out (to TCP over the loopback)"),
        ("uring_zc_fixed", "veth", "memory", "aligned"): shares("io_uring's SEND_ZC of a registered buffer leaves the copy out (where nobody reads here)"),
    }.get(point)  # fmt: skip


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
        "What the loopback device does says nothing of a network card. Of packets that nobody receives (`veth`) the kernel's own word is the outcome.",
        "`extra` of each sample in the run log has the errno of refusals.",
    )
    judges_gaps = False
    judges_clock = False
    judges_delay = False
    most_samples = 1  # each is some dozens of transfers that end alike
    reports = ("outcome", "claim", "shared", "refused", "notified", "said_copied", "deviates")
    most = {"claim": 1.0, "shared": 1.0, "refused": 1.0, "notified": 1.0, "said_copied": 1.0, "deviates": 1.0}

    def sweep(self, topology, profile: str) -> list[Sweep]:
        def product(
            methods: Sequence[str], sources: Sequence[str], targets: Sequence[str] = TARGETS, alignments=ALIGNMENTS
        ) -> Sweep:
            return {"method": methods, "target": targets, "source": sources, "alignment": alignments}

        usual = usual_source()
        if profile == "quick":
            return [
                product(("read_write", "sendfile"), (usual,), STREAMS),
                product(("mmap_write", "splice"), (usual,), ("tcp",), ("aligned",)),
                product(("sendfile",), ("memfd", *file_systems()), ("tcp",), ("aligned",)),
                product(("sendfile",), ("proc",), ("tcp",), ("unaligned",)),
                product(("sendfile",), (usual,), FILES, ("aligned",)),
                product(("write", "vmsplice"), ("memory",), ("pipe",), ("aligned",)),
                product(("zerocopy", "zerocopy_unset"), ("memory",), ("tcp",), ("aligned",)),
                product(("zerocopy",), ("memory",), ("veth",), ("aligned",)),
            ]
        there = ("memfd", *file_systems())
        return [
            product(READS, (*there, "direct", "proc"), (*STREAMS, *FILES)),
            product(("write", "writev"), ("memory",)),
            product(("vmsplice",), ("memory", "memfd", usual), (*STREAMS, *FILES)),
            product(SENDS, ("memory",), tuple(ENDS)),
        ]

    def keep(self, p: Parameters, topology) -> bool:
        if p["source"] == "proc" and p["alignment"] != "unaligned":  # sixteen bytes
            return False
        if p["source"] == "direct" and p["method"] == "mmap_write":  # a mapping knows no O_DIRECT
            return False
        if (p["source"] == "memory" and p["method"] in READS) or (p["method"] in SENDS and p["target"] not in ENDS):
            return False
        if p["target"] == "veth" and p["method"] not in TELLS:  # who is not told of it learns nothing
            return False
        return p["method"] != "copy_file_range" or p["target"] in FILES

    def group(self, p: Parameters) -> tuple:
        return (p["source"], p["alignment"])

    def place(self, p: Parameters, topology) -> Placement | None:
        cpu = topology.order_cpus()[0]
        node = memory_node(topology, topology.node_of(cpu))
        return Placement(cpus=(cpu,), node=node, size=PARTS * PAGES * mmap.PAGESIZE, scratch=SCRATCH)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        usual = usual_source()
        tried = [
            Answer(kind="outcome", metric="claim", where=p, text=f"{{value}}: {said.text}")
            for p in cases
            if (said := claim(p, usual))
        ]
        text = "Outcomes against what Linux documents: {value}"
        return (Answer(kind="outcome", metric="deviates", where={}, axis="method", text=text), *tried)

    # -- what a case is given -----------------------------------------------------------------------------------------------

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        need(p["method"], PAGES * mmap.PAGESIZE)
        to, there = target(p, opened)
        given, changed = source(p["source"], opened) if p["source"] != "memory" else (-1, -1)
        between = pipe(opened) if p["method"] in ("splice", "vmsplice") and p["target"] != "pipe" else (-1, -1)
        return to, there, given, -1, -1, *between, changed

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {**p, "source": p["source"] if p["source"] in ("memory", "direct", "proc") else "file"}

    def stretch(self, p: Parameters) -> float:
        return WINDOW

    # -- what it found ------------------------------------------------------------------------------------------------------

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        thread = found.threads[0]
        value, code = thread.value, outcome(thread)
        # the first one decides when there is enough: a constant that is not zero has an interval at once
        metrics = {"outcome": float(code), "deviates": float(deviates(p, code)), "refused": value[REFUSED_SLOT] / thread.cursor}
        if said := claim(p, usual_source()):
            found_as = code if code >= COPIED else REFUSED
            metrics |= {"claim": float(found_as in said.true)} if found_as in said.true | said.false else {}
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
    if sends and notified and not said and not value[COPIED_SLOT]:
        return UNCOPIED  # nobody received anything
    return COPIED if not sends else SAID if said else NOT_TOLD


def deviates(p: Parameters, code: int) -> bool:
    wanted = expected(p)
    return wanted is not None and (code if code >= COPIED else REFUSED) not in wanted


def target(p: Parameters, opened: ExitStack) -> tuple[int, int]:
    """The end to write to and the one to read it from."""
    if p["target"] == "pipe":
        return pipe(opened)
    if p["target"] in ENDS:
        return ENDS[p["target"]](opened, SOCKET_BYTES)
    kind = p["source"]
    own = {"memory": "memfd", "proc": "memfd", "direct": usual_source()}.get(
        kind, kind
    )  # files of one kind, as copy_file_range wants them
    there, _ = source(own, opened)
    flags = os.O_WRONLY | (os.O_APPEND if p["target"] == "file_append" else 0)
    return keep_open(open_again(there, flags), opened), there


def usual_source() -> str:
    """The type of file system that temporary files are on."""
    return file_system_of(tempfile.gettempdir()) or "unknown"


def source(kind: str, opened: ExitStack) -> tuple[int, int]:
    """What is transferred from, and by what it is changed and read back."""
    if kind == "proc":
        return keep_open(open_name(os.O_RDONLY), opened), keep_open(open_name(os.O_RDWR), opened)
    if kind == "memfd":
        file = keep_open(os.memfd_create("numabench", os.MFD_CLOEXEC), opened)
    else:
        folder = tempfile.gettempdir() if kind in ("direct", usual_source()) else file_systems().get(kind)
        if folder is None:
            raise MachineError(
                f"page_identity: there is no folder on {kind} that it knows of", f"set TMPDIR to a folder on {kind}"
            )
        number, path = tempfile.mkstemp(prefix="numabench-", dir=folder)
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


BENCHMARK = PageIdentity()
