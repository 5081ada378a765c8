"""What does a call into the kernel cost, and what do filters, supervisors and tracers add to it?"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack

import msgspec

from ..model import ALPHA, Answer, Axis, Card, Contrast, Price, Tile, View
from . import KERNEL_PRICE, Benchmark, Found, Parameters, Placement, Probes, Sweep, memory_node

CALLS = ("getppid", "clock_vdso", "clock", "pread", "futex_wake", "sched_yield")
FILTERS = ("number_filter", "number_filter_long", "argument_filter", "argument_filter_long")
COUNTED = ("user_dispatch", "notify", "trace")
SUPERVISED = COUNTED[1:]
PLAIN, FILTERED, VDSO = (
    "none",
    "getppid",
    "clock_vdso",
)  # the control, the call that is looked at by all, and the one that is none
WRAPS = (PLAIN, *FILTERS, *COUNTED)
REFUSED_SLOT, SEEN_SLOT, CALLS_SLOT = 6, 7, 8  # of `value`, as in kernels/system_calls.c
FILE_SLOT = 2  # of the descriptors
OWN_READS = 2  # preads of the task itself, of how long it waited
STOPS = 2  # of a traced call: at its begin and at its end
OTHER_STOPS = 32  # at most, of what a task calls besides: when it begins and ends, and twice to read how long it waited
SCRATCH = 128 << 10  # the task's stack, and what it is told
CONTENT = b"a word in a page that is in memory\n"
CALL_WORDS = {
    "getppid": "A system call that does next to nothing (getppid)",
    "clock_vdso": "Reading the clock through the vDSO",
    "clock": "Reading the clock by a system call",
    "pread": "Reading eight bytes of a file in memory (pread)",
    "futex_wake": "Waking nobody (futex)",
    "sched_yield": "Giving up the CPU where nobody waits for it (sched_yield)",
}
WRAP_WORDS = {
    "number_filter": "a seccomp filter that looks at the call's number",
    "number_filter_long": "one of 200 such comparisons",
    "argument_filter": "a seccomp filter that looks at an argument",
    "argument_filter_long": "one of 200 such comparisons of an argument",
    "user_dispatch": "dispatch to a handler of the program itself (SIGSYS)",
    "notify": "a supervisor on the same CPU (seccomp notify)",
    "trace": "a tracer on the same CPU (ptrace)",
}


class SystemCalls(Benchmark):
    name = kernel = "system_calls"
    rank = 20
    topic = "runtime"
    phase = ALPHA
    title = "System calls"
    question = "What does a call into the kernel cost, and what do filters, supervisors and tracers add to it?"
    expected = (
        "The way into the kernel and back takes 40 to 400 ns, more with mitigations; the vDSO reads the clock without it. A filter by number alone is answered from a bitmap since Linux 5.11, whatever "
        "its length; one that looks at arguments is run at each call. A signal, a supervisor and a tracer cost 10, 20 and 40 calls and more: they are switches between tasks."
    )
    axes = (
        Axis(name="call", summary="what is asked of the kernel", values=CALLS),
        Axis(name="wrap", summary="what looks at each call", values=WRAPS),
    )
    contrasts = (Contrast(axis="wrap", control=PLAIN, metric="time"),)
    views = (
        View(title="Time of a call", metric="time", kind="bar", x="call", where={"wrap": PLAIN}),
        View(title="Time of a call that is looked at", metric="time", kind="bar", x="wrap", where={"call": FILTERED}),
    )
    method = {"task": "a task of its own for each sample", "short": 2, "long": 200, "supervisor": "on the same CPU"}
    notes = (
        "A filter that is there already, such as a container's, is part of `none`: the machine's record says whether there is one.",
        "Time by a tracer or a supervisor is that of both together, as they take turns on one CPU.",
    )
    judges_gaps = False  # a supervisor's turn is no batch
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    may_sleep = True

    def sweep(self, topology, profile: str) -> list[Sweep]:
        if profile == "full":
            return [{"call": CALLS, "wrap": WRAPS}]
        calls = CALLS if profile != "quick" else CALLS[:3]
        usual = [{"call": calls, "wrap": (PLAIN,)}, {"call": (FILTERED,), "wrap": WRAPS[1:]}]
        return usual if profile == "quick" else [*usual, {"call": (VDSO, "pread"), "wrap": ("number_filter", "argument_filter")}]

    def keep(self, p: Parameters, topology) -> bool:
        """What the program answers itself is no call of any kind, and what does not enter the kernel is seen by nobody who counts."""
        return p["wrap"] not in COUNTED or p["call"] == FILTERED or (p["wrap"] != "user_dispatch" and p["call"] != VDSO)

    def waiters(self, p: Parameters) -> Collection[int]:
        return (0,) if p["wrap"] in SUPERVISED else ()  # two tasks take turns on one CPU: each waits for the other

    def place(self, p: Parameters, topology) -> Placement | None:
        if not self.keep(p, topology):
            return None
        cpu = topology.order_cpus()[0]
        return Placement(cpus=(cpu,), node=memory_node(topology, topology.node_of(cpu)), size=4096, scratch=SCRATCH)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        plain = [
            Answer(
                kind="cell",
                metric="time",
                where={"call": call, "wrap": PLAIN},
                headline=call == FILTERED,
                text=f"{words} takes {{value}}",
            )
            for call, words in CALL_WORDS.items()
        ]
        looked_at = [
            Answer(
                kind="difference",
                metric="time",
                where={"call": FILTERED, "wrap": wrap},
                against={"wrap": PLAIN},
                headline=wrap in ("number_filter", "argument_filter", "trace"),
                text=f"To a system call {words} adds {{value}}",
            )
            for wrap, words in WRAP_WORDS.items()
        ]
        others = [
            Answer(
                kind="difference",
                metric="time",
                where=p,
                against={"wrap": PLAIN},
                headline=False,
                text=f"To {p['call']} {WRAP_WORDS[p['wrap']]} adds {{value}}",
            )
            for p in cases
            if p["wrap"] != PLAIN and p["call"] != FILTERED
        ]
        return (*plain, *looked_at, *others)

    def card(self, topology, cases: list[Parameters]) -> Card:
        where = {"call": FILTERED, "wrap": PLAIN}
        price = Answer(kind="cell", metric="time", where=where, text="system call (getppid)")
        notes = tuple(
            Answer(
                kind="difference",
                metric="time",
                where=where | {"wrap": wrap},
                against={"wrap": PLAIN},
                text=f"{words} adds {{value}}",
            )
            for wrap, words in (("number_filter", "a seccomp filter"), ("trace", "a tracer"))
        )
        tile = msgspec.structs.replace(price, text="a system call that does next to nothing (getppid)")
        return Card(
            prices=(Price(answer=price, rank=44),), tiles=(Tile(subject="system call", answer=tile, rank=60, notes=notes),)
        )

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        if p["call"] != "pread":
            return ()
        file = os.memfd_create("numabench")
        opened.callback(os.close, file)
        os.write(file, CONTENT)
        return (*[-1] * FILE_SLOT, file)

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"call": p["call"], "wrap": p["wrap"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        return {"time": found.time_per_operation}

    def check(self, p: Parameters, found: Found) -> str:
        thread = found.threads[0]
        calls, seen = thread.value[CALLS_SLOT], thread.value[SEEN_SLOT]
        if thread.check != thread.executed:
            return f"{thread.executed - thread.check} of {thread.executed} calls brought something else than they are to bring"
        if p["wrap"] in FILTERS and not thread.value[REFUSED_SLOT]:
            return "the filter let through what it is to refuse"
        own = OWN_READS if p["call"] == "pread" and p["wrap"] == "notify" else 0
        if p["wrap"] in ("user_dispatch", "notify") and not 0 <= seen - calls <= own:
            return f"{seen} of {calls} calls were looked at"
        if p["wrap"] == "trace" and not 0 <= seen - STOPS * calls <= OTHER_STOPS:
            return f"{seen} stops of {calls} calls, which have {STOPS} each"
        return ""


BENCHMARK = SystemCalls()
