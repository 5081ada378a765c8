"""When may a buffer be used again: which changes after a transfer does the receiver see?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from ..model import ALPHA, Answer, Axis, View
from . import Benchmark, Found, Parameters, Placement, Probes, Sweep
from .page_identity import BENCHMARK as IDENTITY
from .page_identity import COPIED, MIXED, SHARED, WINDOW, outcome, unaccounted

METHODS = {
    "write": "memory",
    "vmsplice": "memory",
    "zerocopy": "memory",
    "uring_zc": "memory",
    "uring_zc_fixed": "memory",
    "sendfile": "memfd",
}  # and their sources
TARGETS = ("tcp", "unix", "pipe")
NOTIFIED = ("zerocopy", "uring_zc", "uring_zc_fixed")  # over TCP alone
OVERWRITE, TRUNCATE = "overwrite", "truncate"
CHANGES = (OVERWRITE, "remap", "dontneed", "fork_write", TRUNCATE)
#: As in kernels/page_identity.c: what was copied, or whose pages were given away, arrives as it was sent; what is shared arrives as it is now.
SENT, SINCE = COPIED, SHARED
SAYS = {
    "write": "write",
    "vmsplice": "vmsplice",
    "zerocopy": "MSG_ZEROCOPY",
    "uring_zc": "io_uring's SEND_ZC",
    "uring_zc_fixed": "io_uring's SEND_ZC of a registered buffer",
    "sendfile": "sendfile",
}


def documented(p: Parameters) -> int:
    """What the receiver is to read. A page that is replaced under its address (a new mapping, MADV_DONTNEED, the copy that a write after a fork makes, a file that was cut off) stays with who still
    refers to it; one that is written to is the same for all. On the loopback device what is sent with MSG_ZEROCOPY is copied before it arrives."""
    return SINCE if p["change"] == OVERWRITE and p["method"] in ("vmsplice", "sendfile") else SENT


class BufferReuse(Benchmark):
    name = "buffer_reuse"
    kernel = "page_identity"
    rank = 26
    topic = "runtime"
    phase = ALPHA
    title = "Buffer reuse"
    question = "When may a buffer be used again: which changes after a transfer does the receiver see?"
    expected = (
        "What was written is the receiver's. Pages that vmsplice or sendfile handed on are shared until they are read: overwriting them in place changes what arrives. To give them away and take new ones is "
        "safe: munmap, MADV_DONTNEED, a write after a fork, a file that is truncated."
    )
    axes = (
        Axis(name="method", summary="how bytes are transferred", values=tuple(METHODS)),
        Axis(name="target", summary="to where", values=TARGETS),
        Axis(name="change", summary="what happens to the source before the read", values=CHANGES),
    )
    views = (
        View(
            title="Bytes that arrive as they were written since",
            metric="shared",
            kind="heatmap",
            x="change",
            y="method",
            facet="target",
        ),
    )
    method = {
        "change": "after arrival, before the read",
        "bytes": "4 pages",
        "alignment": "aligned",
        "sources": "memory; sendfile: a memfd",
    }
    notes = (
        "A receiver that reads what was written since is a result; where write lets it, or vmsplice to a pipe does not, the sample fails.",
        "Over the loopback device MSG_ZEROCOPY copies before the bytes arrive: a buffer that is used again too early is never found out there.",
    )
    judges_gaps = False
    judges_clock = False
    judges_delay = False
    most_samples = 1
    reports = ("received", "shared", "refused", "notified", "said_copied", "deviates")
    most = IDENTITY.most

    def sweep(self, topology, profile: str) -> list[Sweep]:
        targets = TARGETS[2:] if profile == "quick" else TARGETS
        return [{"method": tuple(METHODS), "target": targets, "change": CHANGES}]

    def keep(self, p: Parameters, topology) -> bool:
        if p["method"] in NOTIFIED:
            return p["target"] == "tcp" and p["change"] == OVERWRITE
        return p["change"] == OVERWRITE or (METHODS[p["method"]] == "memory") != (p["change"] == TRUNCATE)

    def group(self, p: Parameters) -> tuple:
        return ()

    def place(self, p: Parameters, topology) -> Placement | None:
        return IDENTITY.place(p, topology)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        def said(method: str, target: str) -> Answer:
            text = f"After {SAYS[method]} to {'TCP' if target == 'tcp' else 'a Unix socket' if target == 'unix' else 'a pipe'} the receiver reads {{value}}"
            where = {"method": method, "target": target}
            return Answer(kind="outcome", metric="received", where=where, axis="change", text=text, headline=target == "pipe")

        text = "What receivers read against what Linux documents: {value}"
        everything = Answer(kind="outcome", metric="deviates", where={}, axis="method", text=text)
        return (everything, *(said(method, target) for target in reversed(TARGETS) for method in METHODS))

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        return IDENTITY.descriptors(p | {"source": METHODS[p["method"]]}, opened)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return IDENTITY.arguments({**p, "source": METHODS[p["method"]], "alignment": "aligned"}, probes)

    def stretch(self, p: Parameters) -> float:
        return WINDOW

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        case = p | {"source": METHODS[p["method"]], "alignment": "aligned"}
        metrics = IDENTITY.metrics(case, found, probes)
        metrics.pop("claim", None)
        code = read_as(metrics.pop("outcome"))
        return {"received": code} | metrics | {"deviates": float(COPIED <= code < MIXED and code != documented(p))}

    def check(self, p: Parameters, found: Found) -> str:
        """As in page_identity, of which the outcome follows; and the controls: write always, vmsplice to a pipe that is overwritten."""
        if said := unaccounted(found.threads[0]):
            return said
        code = read_as(outcome(found.threads[0]))
        control = p["method"] == "write" or (p["method"] == "vmsplice" and p["target"] == "pipe")
        if control and code >= COPIED and code != documented(p):
            read = "what was written since" if code == SINCE else "the bytes that were sent"
            return f"{p['method']} to {p['target']}, {p['change']}: the receiver read {read}, which must not be"
        return ""

    def extra(self, arguments, probes: Probes, found: Found) -> dict[str, float]:
        return IDENTITY.extra(arguments, probes, found)


def read_as(code: float) -> float:
    """The outcome of page_identity as what the receiver reads: whether a copy was told of does not matter."""
    return code if code in (SINCE, MIXED) or code < COPIED else float(SENT)


BENCHMARK = BufferReuse()
