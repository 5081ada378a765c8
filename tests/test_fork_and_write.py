"""fork_and_write: that parent and child have their own pages is an outcome and no time."""

from __future__ import annotations

import contextlib

import pytest
from synthetic_sysfs import SyntheticTree
from test_kernels import broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import discover
from numabench.benchmarks.fork_and_write import NONE, OPERATIONS, SLEEPING, SPINNING, crowds
from numabench.host.topology import read_topology

BENCHMARK = discover()["fork_and_write"]


def measured(kernel: abi.Kernel, operation: str, others: str = NONE, threads: int = 1) -> str:
    """What the check finds."""
    parameters = {"operation": operation, "page_size": "4k", "size": 1 << 16, "others": others, "threads": threads}
    with contextlib.ExitStack() as opened:
        descriptors = BENCHMARK.descriptors(parameters, opened)
        arguments = {"operation": operation, "page_bytes": 4096, "others": others}
        found = enter(kernel, arguments, size=1 << 16, threads=threads, descriptors=descriptors)
    assert found.threads[0].operations >= 8 and found.threads[0].value[8] == 16
    return BENCHMARK.check(parameters, found)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_child_finds_what_was_there_at_the_fork(operation):
    assert measured(abi.Kernel(abi.build("fork_and_write").target), operation) == ""


@pytest.mark.parametrize(("others", "threads"), [(SLEEPING, 2), (SLEEPING, 9), (SPINNING, 2)])
def test_the_other_threads_do_what_they_are_to_do(others, threads):
    kernel = abi.Kernel(abi.build("fork_and_write").target)
    assert all(measured(kernel, operation, others, threads) == "" for operation in OPERATIONS)


@pytest.mark.parametrize(
    ("others", "right", "wrong", "said"),
    [
        (SLEEPING, "parameter[OTHERS] == SLEEPING", "parameter[OTHERS] == NONE", "that should sleep"),
        (SPINNING, "parameter[OTHERS] == SLEEPING)", "parameter[OTHERS] == SPINNING && !usleep(50) && 0)", "should run slept"),
    ],
)
def test_who_does_not_is_found_out(tmp_path, others, right, wrong, said):
    liar = broken_kernel(tmp_path, "fork_and_write", "fork_and_write.c", right, wrong)
    assert said in measured(liar, "fork", others, 2)


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


def test_threads_that_run_have_cpus_of_their_own_and_those_that_sleep_share_one(tmp_path):
    topology = read_topology(str(SyntheticTree(tmp_path, packages=2, nodes=2, l3s=2, cores=4, smt=2).root))
    assert crowds(topology)[:3] == (2, 4, 8)
    point = {"operation": "fork", "page_size": "4k", "size": 1 << 21}
    runs = BENCHMARK.place({**point, "others": SPINNING, "threads": 8}, topology).cpus
    sleeps = BENCHMARK.place({**point, "others": SLEEPING, "threads": 8}, topology).cpus
    assert len({*runs}) == 8 and len({*sleeps}) == 2 and sleeps.count(sleeps[0]) == 1
    assert not BENCHMARK.keep({**point, "others": NONE, "threads": 8}, topology)
    one = read_topology(str(SyntheticTree(tmp_path / "one", cores=1).root))
    assert crowds(one) == () and BENCHMARK.place({**point, "others": SLEEPING, "threads": 8}, one).cpus == (0,) * 8
