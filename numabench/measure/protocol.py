"""What a runner and its worker say to each other: one JSON job on standard input, JSON lines on standard output."""

from __future__ import annotations

import msgspec

from ..host.memory import Placing
from ..model import Frozen, Round, Sample, Value


class Timing(Frozen):
    """Times of one sample in seconds, and how many samples a case gets in a process (of some benchmarks fewer)."""

    window: float = 0.015
    warmup: float = 0.0005
    batch: float = 10e-6  # how far apart a thread looks at the clock: 20-60 ns each, below 1 %
    samples: int = 3


class Companion(Frozen, array_like=True):
    """One of several cases that are measured at the same time: it has an equal share of the threads, and one of the parts of the memory."""

    case: str
    parameters: dict[str, Value]  # those that differ from the round's first case


class JobCase(Frozen):
    """One case, or a round of several, with everything placed: the worker decides nothing."""

    case: str
    parameters: dict[str, Value]
    cpus: tuple[int, ...]
    groups: tuple[int, ...]  # per thread: index of its NUMA node among those in use
    node: int | None
    size: int
    scratch: int
    page_size: str
    seed: int
    parts: tuple[int, ...] = ()  # node of each of equal parts of the memory, where these differ; nodes that get pages in turn
    policy: str = "bind"
    company: tuple[Companion, ...] = ()  # the cases of a round; empty: this one alone


class Job(Frozen):
    """One block of cases for one process."""

    benchmark: str  # module that holds BENCHMARK
    kernel: str
    sentinel: str
    crew: str
    cases: tuple[JobCase, ...]
    timing: Timing
    home: int | None  # node of the process's own heap, stacks and page tables
    spawned: float  # CLOCK_MONOTONIC of the runner
    until: float  # of the same clock: the budget's end, after which no case begins
    placing: Placing = Placing()  # how memory gets to its node here


class Asked(Frozen):
    """What the process that forks the measuring ones has to know of a job (`forks.py`)."""

    benchmark: str
    cpu: int  # on which the process begins: near it the kernel then finds memory for its heap and stacks


class Began(Frozen, tag="began", tag_field="event"):
    case: str


class Took(Frozen, tag="sample", tag_field="event"):
    sample: Sample


class TookRound(Frozen, tag="round", tag_field="event"):
    """The samples of a round."""

    benchmark: str
    round: Round


class CaseFailed(Frozen, tag="case_failed", tag_field="event"):
    case: str
    reason: str


class Done(Frozen, tag="done", tag_field="event"):
    startup: float
    measured: float
    interference: dict[str, float]
    clock: dict[str, float] = {}  # seconds: `cost` of a reading, `step` between two


Event = Began | Took | TookRound | CaseFailed | Done

encode = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(Event).decode
decode_job = msgspec.json.Decoder(Job).decode
decode_asked = msgspec.json.Decoder(Asked).decode
