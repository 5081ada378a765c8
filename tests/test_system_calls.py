"""system_calls: that what looks at calls was in force is an outcome and no time."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from test_kernels import PROBES, Refused, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import discover
from numabench.benchmarks.system_calls import CALLS, FILTERED, PLAIN, SCRATCH, WRAPS

BENCHMARK = discover()["system_calls"]
AXES = [axis.name for axis in BENCHMARK.axes]


def measured(kernel: abi.Kernel, call: str, wrap: str) -> str:
    """What the check finds."""
    parameters = {"call": call, "wrap": wrap}
    with contextlib.ExitStack() as opened:
        descriptors = BENCHMARK.descriptors(parameters, opened)
        try:
            found = enter(kernel, BENCHMARK.arguments(parameters, PROBES), size=SCRATCH, descriptors=descriptors)
        except Refused:
            pytest.skip(f"this machine has no {wrap}")
    assert all(t.operations > 0 and t.end_ns > t.begin_ns for t in found.threads)
    return BENCHMARK.check(parameters, found)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("system_calls").target)


@pytest.mark.parametrize("call", CALLS)
def test_each_call_brings_what_it_is_to_bring(kernel, call):
    assert measured(kernel, call, PLAIN) == ""


@pytest.mark.parametrize(
    ("call", "wrap"), [p for p in itertools.product(CALLS, WRAPS[1:]) if BENCHMARK.keep(dict(zip(AXES, p, strict=True)), None)]
)
def test_what_looks_at_calls_has_seen_each(kernel, call, wrap):
    assert measured(kernel, call, wrap) == ""


def test_cases_without_a_call_to_look_at_are_none():
    for call, wrap in (("clock_vdso", "trace"), ("clock_vdso", "notify"), ("pread", "user_dispatch")):
        assert BENCHMARK.place({"call": call, "wrap": wrap}, None) is None


@pytest.mark.parametrize(
    ("wrap", "right", "wrong", "said"),
    [
        ("number_filter", "filter(number, n, REFUSED_CALL,", "filter(number, n, NEVER,", "let through"),
        ("argument_filter_long", "filter(argument, n, NEVER,", "filter(argument, n, NEVER - 1,", "let through"),
        ("trace", "seen += signal == SIGTRAP;", "seen += signal == SIGTRAP && seen < 40;", "stops of"),
        ("user_dispatch", "        BLOCK();\n", "        if (n % 2)\n            BLOCK();\n", "brought something else"),
        ("none", "t->check += syscall(SYS_getppid, 0) == parent;", "t->check += n % 2;", "brought something else"),
    ],
)
def test_who_only_pretends_is_found_out(tmp_path, wrap, right, wrong, said):
    assert said in measured(broken_kernel(tmp_path, "system_calls", "system_calls.c", right, wrong), FILTERED, wrap)
