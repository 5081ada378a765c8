"""A run's timeline in Chrome's JSON form, which Perfetto, speedscope and chrome://tracing show.

What a log says of times: when each process began, to the second; how long it took; how long it took to begin; the window of each thread of each sample; the order of
samples. Begins between these follow from that: processes come one after another, which narrows the second down, and the time of a process that is in no window is
dealt out evenly around its samples. The trace says so wherever it is so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from ..errors import UsageError
from ..model import Frozen, Header, Sample, TrialRecord
from .read import RunLog

MOST_BYTES = 20_000_000  # what viewers in a browser open within seconds
MOST_NAME = 120  # characters of a bar's name; its parameters stand among its arguments as well
LONGEST = (
    31 * 86_400 * 10**9
)  # ns: what a log says may be anything, and up to here a number of microseconds with a point still tells ns apart
RESOLUTION = 1_000_000_000  # ns: of the moment at which a process began
#: What is left out, step by step, of a trace that would be larger; each step leaves out what those before it do.
DETAILS = ("everything", "without what each thread did", "without rows of threads", "without metrics and parameters")
ROWS_OF_THREADS, ALL_ARGUMENTS, ARGUMENTS = 2, 1, 3  # the step that leaves them out
NOTE = (
    "ts is microseconds from the second in which the visit began. A log says in which second a process began and how long each thing took: the begin of a process is "
    "exact to its uncertain_ms, and samples stand in their order, with what their process did besides (memory, sentinels) dealt out evenly between them. Counters hold what "
    "the sentinels found before and after each sample, and keep their value where a sample has none"
)

#: ns by which bars end early, those inside others earlier: viewers add begin and length as numbers with a point, and what then seems to end a hair behind the begin of the
#: next would hold it (speedscope stacked a whole run that way).
EARLIER = 1

_encode = msgspec.json.Encoder().encode


class Timeline(Frozen, kw_only=True):
    """`left_out`: what of the run is not in it, for want of room; empty: nothing."""

    content: bytes
    events: int
    left_out: str = ""


def chrome_trace(log: RunLog, benchmark: str | None = None, most: int = MOST_BYTES) -> Timeline:
    """The timeline of all visits of `log`, or of one benchmark's processes: an object in Chrome's trace form, of at most `most` bytes.

    Raises UsageError where nothing was timed, and where even the barest trace is larger.
    """
    trials = [trial for trial in log.trials if benchmark in (None, trial.benchmark)]
    if not any(sample.threads for trial in trials for sample in trial.samples):
        raise UsageError(
            "these logs hold no time at which anything was measured",
            "give logs that numabench run wrote, and not what was imported",
        )
    for step, detail in enumerate(DETAILS):
        parts = [_encode(event) for event in events(log.headers, trials, step)]
        about = {"numabench": NOTE, "detail": detail}
        whole = b'{"displayTimeUnit":"ns","otherData":%b,"traceEvents":[\n%b\n]}\n' % (_encode(about), b",\n".join(parts))
        if len(whole) <= most:
            return Timeline(content=whole, events=len(parts), left_out=detail if step else "")
    raise UsageError(
        f"the timeline has {len(whole) / 1e6:.0f} MB even {DETAILS[-1]}, and viewers take {most / 1e6:.0f}",
        "choose one benchmark with --benchmark",
    )


def events(headers: Sequence[Header], trials: Sequence[TrialRecord], step: int = 0) -> Iterator[dict[str, Any]]:
    """The events of all visits, each from its own begin; `step`: how much is left out (`DETAILS`)."""
    rows = Rows()
    visits: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in trials:
        visits.setdefault((trial.run, trial.session), []).append(trial)
    for (run, session), own in visits.items():
        header = next((h for h in headers if (h.run, h.session) == (run, session)), None) or next(
            h for h in headers if h.run == run
        )
        yield from Visit(header, own, rows, step).events()


class Rows:
    """Numbers of processes and threads as Chrome counts them: each once in the whole trace, and none is 0, which viewers take for the idle task."""

    def __init__(self) -> None:
        self.last = 0

    def next(self) -> int:
        self.last += 1
        return self.last


class Visit:
    """Rows of one visit: its processes, its threads and its CPUs."""

    def __init__(self, header: Header, trials: Sequence[TrialRecord], rows: Rows, step: int):
        self.header, self.rows, self.step = header, rows, step
        self.trials = sorted(trials, key=lambda trial: moment(trial.started))  # stable: in one second as they were written
        self.named: list[dict[str, Any]] = []  # events that name rows
        self.numbers: dict[tuple[str, int], int] = {}
        self.counted: dict[str, float] = {}  # counter -> its value
        name = f"{header.alias}, {header.started} (run {header.run})"
        self.main = self.group(f"{name}: processes and threads", 0)
        self.cpus = self.group(f"{name}: CPUs", 1)
        self.process = self.row(self.main, "process", -1, "processes")

    def group(self, name: str, order: int) -> int:
        number = self.rows.next()
        self.name(number, 0, "process_name", {"name": name})
        self.name(number, 0, "process_sort_index", {"sort_index": number + order})
        return number

    def row(self, group: int, kind: str, index: int, name: str) -> int:
        """The row `index` of a kind, which is named when it is first used."""
        if (kind, index) not in self.numbers:
            number = self.numbers[kind, index] = self.rows.next()
            self.name(group, number, "thread_name", {"name": name})
            self.name(group, number, "thread_sort_index", {"sort_index": index + 1})
        return self.numbers[kind, index]

    def name(self, group: int, row: int, what: str, arguments: dict[str, Any]) -> None:
        self.named.append({"name": what, "ph": "M", "pid": group, "tid": row or group, "args": arguments})

    def events(self) -> Iterator[dict[str, Any]]:
        timed = list(self.timed())
        yield from self.named
        yield from timed

    def timed(self) -> Iterator[dict[str, Any]]:
        first = moment(self.header.started)
        for trial, begin, uncertain in placed(self.trials, first):
            yield from self.of_trial(trial, begin, uncertain)

    def of_trial(self, trial: TrialRecord, begin: int, uncertain: int) -> Iterator[dict[str, Any]]:
        together = list(at_once(trial.samples))
        inside = sum(max(map(window, samples)) for samples in together)
        length = max(ns(trial.duration), inside)
        startup = min(ns(trial.startup), length - inside)
        about = {
            "benchmark": trial.benchmark,
            "process": trial.process,
            "status": trial.status,
            "measured_ms": round(trial.measured * 1e3, 3),
            "uncertain_ms": round(uncertain / 1e6, 1),
            **({"reasons": " ".join(trial.reasons)[:500]} if trial.reasons else {}),
        }
        yield self.bar(self.main, self.process, f"{trial.block}, process {trial.process}", "process", begin, length, about)
        yield from self.counter("steal", "ms", begin, trial.interference.get("steal"), 1e3)
        if startup:
            yield self.bar(self.main, self.process, "start", "process", begin, startup - EARLIER, {})
        gap = (length - startup - inside) // (len(together) + 1)
        at = begin + startup
        for samples in together:
            at += gap
            yield from self.of_samples(samples, at)
            at += max(map(window, samples))

    def of_samples(self, samples: Sequence[Sample], at: int) -> Iterator[dict[str, Any]]:
        """Samples that were measured at the same time: one bar of the process, and each thread and CPU has its own."""
        first, length = samples[0], max(map(window, samples))
        name = title(first) if len(samples) == 1 else f"{len(samples)} cases at once"
        arguments: dict[str, Any] = {} if self.step >= ARGUMENTS or len(samples) > 1 else told(first)
        if not all(sample.valid for sample in samples):
            arguments["invalid"] = " ".join(dict.fromkeys(reason for sample in samples for reason in sample.reasons))[:500]
        yield self.bar(self.main, self.process, name, "sample", at, length - EARLIER, arguments)
        yield from self.counters(first, at, 0)
        delays = [thread.run_delay for sample in samples for thread in sample.threads if thread.run_delay is not None]
        yield from self.counter("run delay", "us", at, sum(delays) if delays else None, 1e6)
        member = 0
        for sample in samples:
            own, busy = title(sample), {}
            for thread in sample.threads:
                begin, end = at + ns(thread.begin), at + ns(thread.end)
                if self.step < ROWS_OF_THREADS:
                    row = self.row(self.main, "thread", member, f"thread {member}")
                    yield self.bar(self.main, row, own, "thread", begin, end - begin, self.of_thread(thread))
                there = busy.setdefault(thread.cpu, [begin, end, 0])
                busy[thread.cpu] = [min(there[0], begin), max(there[1], end), there[2] + 1]
                member += 1
            for cpu, (begin, end, count) in busy.items():
                row = self.row(self.cpus, "cpu", cpu, f"CPU {cpu}")
                yield self.bar(self.cpus, row, own, "cpu", begin, end - begin, {"threads": count} if count > 1 else {})
        yield from self.counters(first, at + length, 1)
        yield from self.counter("run delay", "us", at + length, 0.0 if delays else None)

    def of_thread(self, thread: Any) -> dict[str, Any]:
        if self.step >= ALL_ARGUMENTS:
            return {}
        found = {
            "cpu": thread.cpu,
            "operations": thread.operations,
            "switches": thread.switches,
            "faults": thread.faults,
            "gaps": thread.gaps,
            "run_delay_us": round((thread.run_delay or 0.0) * 1e6, 3),
        }
        moved = {"began_on": thread.cpu_begin, "ended_on": thread.cpu_end}
        kept = {name: value for name, value in found.items() if value or name == "cpu"}
        return kept if thread.cpu_begin == thread.cpu_end == thread.cpu else kept | moved

    def counters(self, sample: Sample, at: int, side: int) -> Iterator[dict[str, Any]]:
        """What the sentinels found before (0) or after (1) a sample."""
        pairs = (
            ("clock", "GHz", sample.frequency, 1e-9),
            ("hop", "ns", sample.hop, 1e9),
            ("core width", "per cycle", sample.width, 1.0),
        )
        for name, unit, pair, factor in pairs:
            yield from self.counter(name, unit, at, pair[side] if pair else None, factor)
        if side == 0:
            yield from self.counter("interrupt", "us", at, sample.extra.get("interrupt_ns"), 1e-3)

    def counter(self, name: str, unit: str, at: int, value: float | None, factor: float = 1.0) -> Iterator[dict[str, Any]]:
        """A counter where it changes."""
        if value is None or not abs(value) < float("inf"):
            return
        shown = round(value * factor, 4)
        if self.counted.get(name) != shown:
            self.counted[name] = shown
            yield {"name": name, "ph": "C", "pid": self.main, "tid": self.process, "ts": at / 1e3, "args": {unit: shown}}

    def bar(self, group: int, row: int, name: str, kind: str, at: int, length: int, arguments: dict[str, Any]) -> dict[str, Any]:
        found = {"name": name[:MOST_NAME], "cat": kind, "ph": "X", "pid": group, "tid": row, "ts": at / 1e3}
        found["dur"] = max(0, length - EARLIER) / 1e3
        return found | {"args": arguments} if arguments else found


def placed(trials: Sequence[TrialRecord], first: int) -> Iterator[tuple[TrialRecord, int, int]]:
    """Each process with its begin in ns from `first`, and how far that may be off. Processes of a visit come one after another, and each begins within the second
    that the log names: the begin is the middle between the earliest and the latest that this allows. Where it allows none (somebody set the clock), the begin is the earliest."""
    begins = [min((moment(trial.started) - first) * RESOLUTION, LONGEST) for trial in trials]
    lengths = [duration(trial) for trial in trials]
    earliest, latest = [], []
    end = 0
    for begin, length in zip(begins, lengths, strict=True):
        earliest.append(max(begin, end))
        end = earliest[-1] + length
    for begin, length in zip(reversed(begins), reversed(lengths), strict=True):
        latest.append(min(begin + RESOLUTION, latest[-1] - length) if latest else begin + RESOLUTION)
    pairs = list(zip(earliest, reversed(latest), strict=True))
    if any(low > high for low, high in pairs):
        pairs = [(low, low) for low in earliest]
    for trial, (low, high) in zip(
        trials, pairs, strict=True
    ):  # earliest and latest leave room for each process: so do the middles
        yield trial, (low + high) // 2, (high - low) // 2


def at_once(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Samples of a process in their order, those together that were measured at the same time: the same was found around them, no hop (with others at work none is
    measured), and none of them shares a CPU with another."""
    group: list[Sample] = []
    taken: set[int] = set()
    for sample in samples:
        cpus = {thread.cpu for thread in sample.threads}
        in_company = sample.hop is None and len(cpus) > 1
        alike = group and in_company and mark(sample) == mark(group[0]) and not cpus & taken
        if group and not alike:
            yield group
            group, taken = [], set()
        group.append(sample)
        taken |= cpus if in_company else set()
    if group:
        yield group


def mark(sample: Sample) -> tuple:
    return sample.index, sample.hop, sample.frequency, sample.width, len(sample.threads)


def window(sample: Sample) -> int:
    """ns from its common start to its last thread's end."""
    return max((ns(thread.end) for thread in sample.threads), default=0)


def duration(trial: TrialRecord) -> int:
    """ns of a process; at least what its parts took."""
    inside = sum(max(map(window, samples)) for samples in at_once(trial.samples))
    return max(ns(trial.duration), inside)


def title(sample: Sample) -> str:
    return " ".join(f"{name}={value}" for name, value in sample.parameters.items()) or sample.case


def told(sample: Sample) -> dict[str, Any]:
    metrics = {name: round(value, 6) for name, value in sample.metrics.items() if abs(value) < float("inf")}
    return {"case": sample.case, "sample": sample.index, **sample.parameters, **metrics, "overlap": round(sample.overlap, 4)}


def ns(seconds: float) -> int:
    """Whole ns, within what a viewer's clock holds."""
    return round(min(max(seconds, 0.0) * 1e9, LONGEST)) if seconds == seconds else 0


def moment(text: str) -> int:
    """Seconds since 1970 of a moment as records hold it; without a zone it is UTC."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int((found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp())
