"""user_faults: who served a fault is an outcome and no time."""

from __future__ import annotations

import contextlib

import pytest
from test_kernels import PROBES, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import ALONE, discover
from numabench.benchmarks.user_faults import COPIES, METHODS, OWN, PAGE
from numabench.errors import MachineError

BENCHMARK = discover()["user_faults"]


def measured(kernel: abi.Kernel, method: str, batch: int = 1) -> str:
    """What the check finds."""
    parameters = {"method": method, "batch": batch, "placement": ALONE}
    with contextlib.ExitStack() as opened:
        try:
            descriptors = BENCHMARK.descriptors(parameters, opened)
        except MachineError as error:
            assert "vm.unprivileged_userfaultfd" in error.fix
            pytest.skip(str(error))
        threads = 1 if method in OWN else 2
        found = enter(kernel, BENCHMARK.arguments(parameters, PROBES), size=16 * PAGE, threads=threads, descriptors=descriptors)
    return BENCHMARK.check(parameters, found)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("method", METHODS)
def test_each_fault_is_served_by_whom_it_should_be(method, batch):
    assert measured(abi.Kernel(abi.build("user_faults").target), method, batch) == ""


@pytest.mark.parametrize(
    ("method", "right", "wrong", "said"),
    [
        ("sigbus", "* PAGE) = number_of(page + i);", "* PAGE) = 1;", "did not hold"),
        (
            "protect",
            "mprotect(c->scratch, bytes, PROT_NONE);",
            "mprotect(c->scratch, bytes, PROT_READ | PROT_WRITE);",
            "were served",
        ),
        ("copy_ahead", "madvise(c->scratch, bytes, MADV_DONTNEED);", "(void)0;", "were served"),
        ("kernel", "madvise(c->scratch, bytes, MADV_DONTNEED);", "(void)0;", "did not hold"),
    ],
)
def test_who_only_pretends_is_found_out(tmp_path, method, right, wrong, said):
    assert said in measured(broken_kernel(tmp_path, "user_faults", "user_faults.c", right, wrong), method)


@pytest.mark.parametrize(
    ("method", "right", "wrong", "said"),
    [
        ("protect", "batch_of(here.shared) * PAGE, PROT_READ", "PAGE, PROT_READ", "were served"),  # one page for each fault
        ("sigbus", ".len = batch_of(c) * PAGE", ".len = PAGE", "were served"),
        ("copy_ahead", "number_of(page + i);", "number_of(page);", "did not hold"),
    ],
)
def test_a_batch_that_is_none_is_found_out(tmp_path, method, right, wrong, said):
    liar = broken_kernel(tmp_path, "user_faults", "user_faults.c", right, wrong)
    assert said in measured(liar, method, 8)


def test_who_needs_a_userfaultfd_says_so(monkeypatch):
    monkeypatch.setattr("numabench.benchmarks.user_faults.USERFAULTFD", {})
    for method in METHODS:
        with contextlib.ExitStack() as opened:
            if method in COPIES:
                with pytest.raises(MachineError, match="no userfaultfd"):
                    BENCHMARK.descriptors({"method": method}, opened)
            else:
                assert BENCHMARK.descriptors({"method": method}, opened) == ()
