"""What one operation costs on this machine: the cells of run logs that the bill multiplies with, and whether they hold for the machine as it is now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..errors import IncomparableError
from ..model import Answer, Frozen, Header, Value
from ..runlog.read import RunLog
from ..runlog.visits import only

if TYPE_CHECKING:
    from ..analysis.answers import Subject

MEASURE = "numabench run runtime --profile quick, or --no-prices for counts alone"
#: Transport -> bytes of a transfer that all profiles measure by both ways.
CHUNKS = {"tcp": (65536,), "unix": (4096, 65536), "pipe": (64, 4096, 65536)}
#: What makes another machine of one, or of its kernel: prices of one do not hold for the other.
SAME = ("kernel", "mitigations", "microcode")
#: What a program may have otherwise than who measured: said, and not refused.
OF_PROCESS = ("scheduling", "timer_slack_ns", "seccomp_filters")


class Source(NamedTuple):
    """Where a price is found: a cell, or the difference of two, in ns."""

    benchmark: str
    metric: str
    where: dict[str, Value]
    against: dict[str, Value] = {}

    @property
    def answer(self) -> Answer:
        kind = "difference" if self.against else "cell"
        return Answer(kind=kind, metric=self.metric, where=self.where, against=self.against, text=self.metric)

    @property
    def words(self) -> str:
        """`wake_up primitive=futex target=same_cpu`."""
        point = " ".join(f"{name}={value}" for name, value in self.where.items())
        more = " ".join(f"{name}={value}" for name, value in self.against.items())
        return f"{self.benchmark}.{self.metric} {point}{f' - {more}' if more else ''}"


_FUTEX: dict[str, Value] = {"primitive": "futex", "idle_gap": 50_000}
_MOVED: dict[str, Value] = {"action": "move", "lines": 1024, "dirty": 100}
_GIVEN: dict[str, Value] = {"operation": "dontneed", "pages": 1, "bystander": "spinning"}
_SENT: dict[str, Value] = {"source": "warm", "receiver": "reads", "placement": "alone"}
#: Name -> where it is found: the first that the logs have. Axes that are not named are at their first value: CPUs that are nearest.
CATALOGUE: dict[str, tuple[Source, ...]] = {
    "wake": (Source("wake_up", "wake_time", {**_FUTEX, "target": "same_cpu"}),),
    "wake_elsewhere": (Source("wake_up", "wake_time", {**_FUTEX, "target": "other_halted"}),),
    "switch": (Source("fibers", "time", {"switch": "thread_same_cpu", "fibers": 2, "lines": 1}),),
    "fault": (
        Source("user_faults", "time", {"method": "kernel", "placement": "alone"}),
        Source("address_space", "time", {"operation": "fault", "pages": 1, "bystander": "none"}),
        Source("first_touch", "time_per_page", {"page_size": "4k", "threads": 1}),
    ),
    "call": (Source("system_calls", "time", {"call": "getppid", "wrap": "none"}),),
    "stop": (Source("system_calls", "time", {"call": "getppid", "wrap": "trace"}, {"wrap": "none"}),),
    "move": (Source("migration", "call", _MOVED),),
    "refetch": (Source("migration", "time", _MOVED, {"action": "stay"}),),
    "shootdown": (Source("address_space", "time", _GIVEN, {"bystander": "none"}),),
    "flush": (Source("address_space", "loss", _GIVEN),),
    **{
        f"copy {transport} {chunk}": (
            Source(
                "transfer",
                "time_per_chunk",
                {**_SENT, "method": "read_write", "transport": transport, "chunk": chunk},
                {"method": "sendfile"},
            ),
        )
        for transport, chunks in CHUNKS.items()
        for chunk in chunks
    },
}


class Span(Frozen):
    """A value and its 95 % interval; NaN where there is none."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Span:
        return Span(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def below(self, most: float) -> Span:
        """With an interval that ends there."""
        return Span(value=self.value, low=min(self.low, most), high=min(self.high, most))


class Price(Frozen):
    """Of one operation, in ns. `of`: the benchmark and its parameters; `run`: the visit."""

    span: Span
    of: str
    run: str


class Tariff(Frozen):
    """What the prices are from. `differs`: what is otherwise on the machine now, where they are used all the same."""

    log: tuple[str, ...]
    machine: str
    runs: tuple[str, ...]
    measured: str  # when the last of these began
    differs: dict[str, str]
    process: dict[str, str | int | None]  # OF_PROCESS, as they were for who measured


def differences(header: Header, identity: str, configuration: Mapping[str, Any]) -> dict[str, str]:
    """{fact: `then, now`} of what must not differ between the visit and this machine."""
    then: Mapping[str, Any] = header.machine.get("configuration") or {}
    pairs = {"machine": (header.machine_id, identity)} | {name: (then.get(name), configuration.get(name)) for name in SAME}
    return {name: _then_and_now(old, new) for name, (old, new) in pairs.items() if old != new}


def _then_and_now(then: Any, now: Any) -> str:
    """Of two that hold many facts, those that differ."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        return "; ".join(f"{name}: {_then_and_now(then.get(name), now.get(name))}" for name in names)
    return f"{then}, now {now}"


def applicable(log: RunLog, identity: str, configuration: Mapping[str, Any], any_prices: bool = False) -> tuple[RunLog, Tariff]:
    """Of each benchmark that has a price the last visit that measured it, among those of this machine as it is now (`any_prices`: whatever it was).
    IncomparableError where there is none."""
    wanted = {source.benchmark for sources in CATALOGUE.values() for source in sources}
    measured = {(trial.run, trial.benchmark) for trial in log.trials if trial.benchmark in wanted}
    headers = sorted((h for h in log.headers if h.run in {run for run, _ in measured}), key=lambda h: h.started)
    if not headers:
        raise IncomparableError("these logs hold no price of what runtimes rely on", MEASURE)
    found = {header.run: differences(header, identity, configuration) for header in headers}
    if any_prices:
        fitting = [h for h in headers if h.machine_id == headers[-1].machine_id]
    else:
        fitting = [h for h in headers if not found[h.run]]
    if not fitting:
        last = headers[-1]
        why = "; ".join(f"{name} {text}" for name, text in found[last.run].items())
        raise IncomparableError(
            f"the prices are of another machine, or of this one otherwise set up ({why})",
            f"{MEASURE}; --any-prices uses them all the same",
        )
    latest = {benchmark: header.run for header in fitting for benchmark in wanted if (header.run, benchmark) in measured}
    runs = [header for header in fitting if header.run in latest.values()]
    kept = only(log, set(latest.values()))
    kept = msgspec.structs.replace(
        kept,
        benchmarks=tuple(b for b in kept.benchmarks if latest.get(b.name) == b.run),
        trials=tuple(t for t in kept.trials if latest.get(t.benchmark) == t.run),
    )
    return kept, Tariff(
        log=log.paths,
        machine=runs[-1].alias,
        runs=tuple(h.run for h in runs),
        measured=runs[-1].started,
        differs={name: text for h in runs for name, text in found[h.run].items()},
        process={name: (runs[-1].machine.get("configuration") or {}).get(name) for name in OF_PROCESS},
    )


def prices(log: RunLog) -> dict[str, Price | str]:
    """Each of CATALOGUE, as these visits have it; or why they have not."""
    from ..analysis.answers import subjects

    about = {subject.record.name: subject for subject in subjects(log)}
    found: dict[str, Price | str] = {}
    for name, sources in CATALOGUE.items():
        tried = [_found(source, about.get(source.benchmark)) for source in sources]
        measured = [each for source, each in zip(sources, tried, strict=True) if source.benchmark in about]
        found[name] = next((each for each in tried if isinstance(each, Price)), (measured or tried)[0])
    return found


def _found(source: Source, subject: Subject | None) -> Price | str:
    if subject is None:
        return f"{source.benchmark} was not measured"
    found = subject.find(source.answer)
    if not (found.usable and found.unit == "ns" and math.isfinite(found.value)):
        return f"{source.benchmark}: {found.problem or found.instead}"
    return Price(span=Span(value=found.value, low=found.low, high=found.high), of=source.words, run=subject.record.run)
