"""fork_and_write: that parent and child have their own pages is an outcome and no time."""

from __future__ import annotations

import contextlib

import pytest
from test_kernels import broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import discover
from numabench.benchmarks.fork_and_write import OPERATIONS

BENCHMARK = discover()["fork_and_write"]


def measured(kernel: abi.Kernel, operation: str) -> str:
    """What the check finds."""
    parameters = {"operation": operation, "page_size": "4k", "size": 1 << 16}
    with contextlib.ExitStack() as opened:
        descriptors = BENCHMARK.descriptors(parameters, opened)
        arguments = {"operation": operation, "page_bytes": 4096}
        found = enter(kernel, arguments, size=1 << 16, descriptors=descriptors)
    assert found.threads[0].operations >= 8 and found.threads[0].value[8] == 16
    return BENCHMARK.check(parameters, found)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_child_finds_what_was_there_at_the_fork(operation):
    assert measured(abi.Kernel(abi.build("fork_and_write").target), operation) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)", "-1L", "forks failed"),
        # the parent writes before it forks
        (
            "    uint64_t before = nb_now();\n",
            "    *(uint64_t *)c->buffer = 0;\n    uint64_t before = nb_now();\n",
            "children saw",
        ),
    ],
)
def test_who_only_pretends_is_found_out(tmp_path, right, wrong, said):
    assert said in measured(broken_kernel(tmp_path, "fork_and_write", "fork_and_write.c", right, wrong), "write")
