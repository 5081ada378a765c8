"""Counts times prices: the lines of the bill, their sums, and whether these can be true."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from ..host.state import State
from ..model import Frozen
from .counts import Counts
from .prices import Price, Span, Tariff
from .transfers import COPIED, Moved, Tally

LineKind = Literal["cpu", "wait", "bound"]
CPU: LineKind = "cpu"
WAIT: LineKind = "wait"
BOUND: LineKind = "bound"
EXACT, AT_LEAST, AT_MOST = "exact", "at least", "at most"  # how a count is known
NS = 1e-9
WORKING_SET = 1024  # lines of 64 B that the price of a moved thread's cache is of
Z = 1.96  # of the 95 % intervals of shares


def not_seen(counters: bool, transfers: bool, hardware: bool) -> tuple[str, ...]:
    """What is not on the bill, and what would show it. `counters`: whether the processor's own can be asked for."""
    how = (
        "perf c2c record shows them"
        if counters
        else "the processor's counters would show them, and this system has none (most virtual machines)"
    )
    return (
        f"false sharing, and lines that another CPU has modified (HITM): {how}",
        "how often memory of another node is accessed: pages by node are counted, accesses are not",
        *([] if hardware else ["system calls other than those that read or write: --hardware (root, perf)"]),
        "transfers by io_uring, sendmmsg and recvmmsg" if transfers else "how bytes reach sockets and pipes: --transfers",
    )


class Line(Frozen):
    """`kind`: `cpu` is part of the sum; `wait` is time in which it could not go on, and used no CPU; `bound` is at most so much, and in no sum. Prices are in ns, totals in s;
    None where there is no price, or where prices do not apply. `count`: None where the kernel measured the time itself. `how` a count is known: `exact`, `at least` (`Counts.seen`),
    `at most`. `of`: what was measured, or why there is no price. `share`: of the CPU time; of a wait, of wall clock times threads."""

    name: str
    kind: LineKind
    what: str
    count: int | None
    how: str
    price: Span | None
    of: str
    total: Span | None
    share: float | None
    remedy: str
    experiment: str
    note: str = ""


class Bill(Frozen):
    """`cpu`: the sum of the lines of that kind, never above the CPU time used: None where it would be, which `verdict` says."""

    command: tuple[str, ...]
    process: int | None
    code: int | None
    counts: Counts
    lines: tuple[Line, ...]
    cpu: Span | None
    cpu_applies: bool  # the prices of CPU time
    waits_apply: bool
    verdict: tuple[str, ...]
    unpriced: dict[str, int]
    state: State | None
    pages: dict[str, Span]  # node -> share of the pages
    transfers: tuple[Moved, ...] | None
    traced: int | None  # calls at which the program was stopped to look at them
    tracing: float | None  # s that this took
    watching: float  # CPU time (s) of numabench itself
    tariff: Tariff | None
    not_seen: tuple[str, ...]


class Kind(NamedTuple):
    """What there can be a line of."""

    name: str
    kind: LineKind
    what: str
    counted: Callable[[Counts], int | None]
    price: str
    sampled: bool  # known by readings of living threads alone, whatever watches
    remedy: str
    experiment: str
    note: str = ""
    times: int = 1  # operations of one event
    scheduling: bool = False  # a tracer adds to it
    how: str = EXACT


KINDS = (
    Kind(
        "sleeps", CPU, "sleeps and the wake-ups that end them", lambda c: c.voluntary, "wake", False,
        "hand over more at once (buffered channels, batches), or spin for as long as a wake-up takes before sleeping",
        "give the busiest channel 64 slots, or take 64 at once: the count falls to about a thirtieth, CPU time by this line",
        "both ends of a wake-up on one CPU; a timer or a disk in place of a waker costs less",
        scheduling=True,
    ),
    Kind(
        "preemptions", BOUND, "switches to another thread that it did not ask for", lambda c: c.involuntary, "switch", False,
        "no more threads that run than CPUs (GOMAXPROCS, worker counts), and other programs elsewhere",
        "run it alone, with as many workers as CPUs: the count falls to a few a second",
        "where who is woken takes the CPU of who wakes it, that is one of these, and part of the price of the sleep",
        scheduling=True,
    ),
    Kind(
        "faults", CPU, "first touches of pages", lambda c: c.minor, "fault", False,
        "keep memory instead of giving it back (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_), or larger pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1)",
        "run it with MALLOC_TOP_PAD_=67108864 MALLOC_TRIM_THRESHOLD_=4294967296 (C library): faults and CPU time fall",
        "each counted as one new page of 4 KiB: one that only maps a page that is in memory costs less, a huge page more",
    ),
    Kind(
        "calls", CPU, "calls that read or write, without what they move", lambda c: None if c.system_calls else c.calls, "call", False,
        "larger buffers, or several at once (readv, writev, io_uring)",
        "double the buffer: half the calls, and CPU time falls by half of this line",
    ),
    Kind(
        "system calls", CPU, "system calls, without what they do", lambda c: c.system_calls, "call", False,
        "fewer and larger ones (readv, writev, io_uring, larger buffers), and none for what does not change",
        "strace -c COMMAND says which: half of the most frequent, and CPU time falls by their part of this line",
    ),
    Kind(
        "shoot-downs", CPU, "calls that waited until other CPUs forgot addresses", lambda c: c.shootdowns, "shootdown", False,
        "give memory back rarely and in large pieces: munmap, MADV_DONTNEED and mprotect interrupt every thread that runs",
        "run it with memory kept (GODEBUG=madvdontneed=0, MALLOC_TRIM_THRESHOLD_): they go, and CPU time by this line",
        "where no thread ran on the other CPU it costs less",
    ),
    Kind(
        "migrations", WAIT, "moves to another CPU", lambda c: c.migrations, "move", True,
        "pin threads (taskset, sched_setaffinity, a cpuset)",
        "taskset -c 0 COMMAND, or a CPU for each thread: no moves, and the time goes with them",
        "as by sched_setaffinity; moved as it is woken, a thread pays it within the wake-up",
        scheduling=True,
    ),
    Kind(
        "refetches", BOUND, "lines left behind in another cache by moves", lambda c: c.migrations, "refetch", True,
        "pin threads (taskset, sched_setaffinity, a cpuset)",
        "taskset -c 0 COMMAND, or a CPU for each thread",
        "if it had written 64 KiB in its caches before each move, and nothing shared them",
        times=WORKING_SET,
        scheduling=True,
    ),
    Kind(
        "wake-ups", WAIT, "wake-ups, had each come from another CPU to one that is idle", lambda c: c.voluntary if len(c.cpus) > 1 else None, "wake_elsewhere", False,
        "spin for as long as that takes before sleeping, or keep both ends on one CPU",
        "taskset -c 0 COMMAND: where both ends take turns anyway, it is faster on one CPU",
        scheduling=True,
    ),
    Kind(
        "flushes", BOUND, "interrupts that make its CPUs forget addresses (TLB)", lambda c: None if c.shootdowns else c.tlb, "flush", False,
        "give memory back rarely and in large pieces: munmap, MADV_DONTNEED and mprotect interrupt every thread that runs",
        "run it with memory kept (GODEBUG=madvdontneed=0, MALLOC_TRIM_THRESHOLD_): the count of the row TLB of interrupts falls",
        "of the whole machine on the CPUs that it may have run on: other programs cause some of them",
        how=AT_MOST,
    ),
)  # fmt: skip
CPU_REFUSED = (
    "Prices do not apply: the lines of CPU time add up to more than the CPU time used. Its events are cheaper than the measured ones, or some are counted in two lines; "
    "the largest is: {dearest}."
)
WAITS_REFUSED = "Prices of waits do not apply: with the waits for a CPU they add up to more than wall clock times threads; most were none, or part of others. The largest is: {dearest}."
OTHERWISE = (
    ("scheduling", "scheduling class", "who wakes whom when is another question there"),
    ("timer_slack_ns", "timer slack in ns", "sleeps that a timer ends take as much longer or shorter"),
    ("seccomp_filters", "number of seccomp filters", "each system call passes all of them"),
)
COPY_REMEDY = (
    "let the copy see the file itself: io.Copy(conn, file) unwrapped, FileChannel.transferTo, shutil.copyfileobj to os.sendfile"
)
COPY_EXPERIMENT = "the same with sendfile: CPU time of the sender falls by this line"


def product(count: Span, price: Span) -> Span:
    """Of two that do not depend on each other: the widths of their intervals add up as squares in logs. Without an interval where one has none above zero."""
    value = count.value * price.value
    if not all(end > 0 for end in (count.low, price.low)):
        return Span(value=value, low=math.nan, high=math.nan)
    low = math.hypot(math.log(count.value / count.low), math.log(price.value / price.low))
    high = math.hypot(math.log(count.high / count.value), math.log(price.high / price.value))
    return Span(value=value, low=value * math.exp(-low), high=value * math.exp(high))


def share_of(part: int, whole: int) -> Span:
    """A share of a random sample with its 95 % interval (Wilson 1927), which does not leave 0 to 1."""
    share, squared = part / whole, Z * Z
    middle = (share + squared / (2 * whole)) / (1 + squared / whole)
    half = Z / (1 + squared / whole) * math.sqrt(share * (1 - share) / whole + squared / (4 * whole * whole))
    return Span(value=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def make_bill(
    counts: Counts,
    prices: Mapping[str, Price | str],
    tally: Tally | None = None,
    state: State | None = None,
    tariff: Tariff | None = None,
    **facts: Any,
) -> Bill:
    """`facts`: the fields of Bill that nothing is worked out of."""
    lines = [
        *(line for kind in KINDS if not (tally and kind.scheduling) and (line := _line(kind, counts, prices))),
        *([_run_delay(counts)] if counts.waited else []),
        *(_copies(tally, prices, counts) if tally else []),
    ]
    lines, cpu_applies, waits_apply, verdict = _judged(lines, counts)
    priced = [line.total for line in lines if line.kind == CPU and line.total]
    stop = prices.get("stop")
    tracing = tally.traced * stop.span.value * NS if tally and isinstance(stop, Price) else None
    found = sum(state.pages.values()) if state and state.pages else 0
    return Bill(
        counts=counts,
        lines=tuple(lines),
        cpu=added(priced).below(counts.cpu) if priced else None,
        cpu_applies=cpu_applies,
        waits_apply=waits_apply,
        verdict=(*verdict, *_otherwise(state, tariff, tally is not None)),
        unpriced={"major_faults": counts.major},
        state=state,
        tariff=tariff,
        pages={str(node): share_of(n, found) for node, n in state.pages.items()} if state and state.pages else {},
        transfers=tally.found if tally else None,
        traced=tally.traced if tally else None,
        tracing=tracing,
        **facts,
    )


def _otherwise(state: State | None, tariff: Tariff | None, traced: bool) -> Iterator[str]:
    """What the program has otherwise than who measured the prices. A tracer adds a filter of its own."""
    if state is None or tariff is None:
        return
    now = {"scheduling": state.scheduling, "timer_slack_ns": state.slack_ns, "seccomp_filters": None if traced else state.filters}
    for name, what, changes in OTHERWISE:
        then = tariff.process.get(name)
        if None not in (then, now[name]) and then != now[name]:
            yield f"Its {what} is {now[name]}, that of the prices is {then}: {changes}."


def added(spans: Iterable[Span]) -> Span:
    """Their sum; its interval is as wide as theirs together, since all prices are of one machine at one time."""
    spans = list(spans)
    return Span(**{name: sum(getattr(span, name) for span in spans) for name in Span.__struct_fields__})


def _line(kind: Kind, counts: Counts, prices: Mapping[str, Price | str]) -> Line | None:
    count = kind.counted(counts)
    if not count:
        return None
    sampled = kind.sampled or (kind.scheduling and not counts.whole)
    most = count / counts.seen if sampled and counts.seen > 0 else count
    price = prices.get(kind.price, "")
    each = price.span.times(kind.times) if isinstance(price, Price) else None
    return Line(
        name=kind.name,
        kind=kind.kind,
        what=kind.what,
        count=count,
        how=AT_LEAST if sampled else kind.how,
        price=each,
        of=price.of if isinstance(price, Price) else price,
        **_total(kind.kind, Span(value=count, low=count, high=most), each, counts),
        remedy=kind.remedy,
        experiment=kind.experiment,
        note=kind.note,
    )


def _total(kind: LineKind, count: Span, price: Span | None, counts: Counts) -> dict[str, Any]:
    if price is None or price.value <= 0:
        return {"total": None, "share": None}
    total = product(count, price.times(NS))
    return {"total": total.below(counts.cpu) if kind == CPU else total, "share": total.value / whole(kind, counts)}


def whole(kind: LineKind, counts: Counts) -> float:
    """What a line can be at most, in s: the CPU time used; for waits the wall clock times threads."""
    return max(counts.wall * counts.threads if kind == WAIT else counts.cpu, NS)


def _run_delay(counts: Counts) -> Line:
    waited = counts.waited or 0.0
    return Line(
        name="run delay",
        kind=WAIT,
        what="waiting for a CPU while able to run, as the kernel measured it",
        count=None,
        how=AT_LEAST,
        price=None,
        of="",
        total=Span(value=waited, low=waited, high=waited),
        share=waited / whole(WAIT, counts),
        remedy="no more threads that run than CPUs, or other programs elsewhere",
        experiment="run it alone on the machine: the time goes",
    )


def _copies(tally: Tally, prices: Mapping[str, Price | str], counts: Counts) -> Iterator[Line]:
    """What copying files by read and write cost more than sendfile, for each kind of target."""
    for target in dict.fromkeys(target for target, _ in tally.copies):
        sizes = {chunk: n for (to, chunk), n in sorted(tally.copies.items()) if to == target}
        count = sum(sizes.values())
        asked = [(n, prices.get(f"copy {target} {chunk}", "")) for chunk, n in sizes.items()]
        lacking = [price for _, price in asked if not isinstance(price, Price)]
        each = None if lacking else added(price.span.times(n / count) for n, price in asked if isinstance(price, Price))
        worth = each is not None and each.value > 0
        yield Line(
            name=f"copies to {target}",
            kind=CPU,
            what=f"files copied to a {target} by {COPIED}, beyond what sendfile takes",
            count=count,
            how=EXACT,
            price=each,
            of=lacking[0] if lacking else next(price.of for _, price in asked if isinstance(price, Price)),
            **_total(CPU, Span(value=count, low=count, high=count), each, counts),
            remedy=COPY_REMEDY if worth else "",
            experiment=COPY_EXPERIMENT if worth else "",
            note="by the chunk of a price that is nearest" if worth or each is None else "sendfile takes no less at this size",
        )


def _judged(lines: list[Line], counts: Counts) -> tuple[list[Line], bool, bool, list[str]]:
    """Lines without totals that cannot be true; whether prices of CPU time and of waits apply; and why not, in sentences."""
    said, applies = [], {}
    for kind, text in ((CPU, CPU_REFUSED), (WAIT, WAITS_REFUSED)):
        measured = counts.waited or 0.0 if kind == WAIT else 0.0  # which was none of the others
        room = whole(kind, counts) - measured
        own = {line.what: line.total.value for line in lines if line.kind == kind and line.total and line.price}
        applies[kind] = not own or sum(own.values()) <= room
        if not applies[kind]:
            said.append(text.format(dearest=max(own, key=lambda what: own[what])))

    def cannot_be(line: Line) -> bool:
        if line.total is None or line.price is None:  # a time that was measured is no product
            return False
        return line.total.value > whole(BOUND, counts) if line.kind == BOUND else not applies[line.kind]

    kept = [msgspec.structs.replace(line, total=None, share=None) if cannot_be(line) else line for line in lines]
    return kept, applies[CPU], applies[WAIT], said
