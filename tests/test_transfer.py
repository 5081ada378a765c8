"""transfer: the path is an outcome and no time, whatever arrives; nothing is lost in parts, and nothing waits for ever."""

from __future__ import annotations

import contextlib
import itertools
import os

import pytest
from test_kernels import PROBES, broken_kernel, enter

from numabench import kernel as abi
from numabench.benchmarks import ALONE, Found, discover
from numabench.benchmarks.transfer import (
    CHANGED_SLOT,
    FACTOR,
    MAIN,
    METHODS,
    MIB,
    PAGE,
    PARTS_SLOT,
    PLACES,
    SHARES,
    TRANSPORTS,
    open_pipe,
    sum_sent,
    whole_pages,
)

BENCHMARK = discover()["transfer"]


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("transfer").target)


def point(method: str, transport: str, chunk: int, source: str = "warm", receiver: str = "reads", placement: str = ALONE) -> dict:
    return {
        "method": method,
        "transport": transport,
        "chunk": chunk,
        "source": source,
        "receiver": receiver,
        "placement": placement,
    }


def moved(kernel: abi.Kernel, p: dict, descriptors=None) -> Found:
    size = PAGE + (PLACES + 2) * whole_pages(p["chunk"])
    with contextlib.ExitStack() as opened:
        handed = BENCHMARK.descriptors(p, opened) if descriptors is None else descriptors(opened)
        return enter(
            kernel, BENCHMARK.arguments(p, PROBES), threads=1 if p["placement"] == ALONE else 2, size=size, descriptors=handed
        )


@pytest.mark.parametrize(("method", "transport", "chunk"), [*itertools.product(METHODS, TRANSPORTS, (64, 5000, 65536))])
def test_what_arrives_is_what_was_sent_by_the_path_that_it_is_called(kernel, method, transport, chunk):
    p = point(method, transport, chunk)
    found = moved(kernel, p)
    assert BENCHMARK.check(p, found) == ""
    assert (found.threads[0].value[CHANGED_SLOT] > 0) == (method in SHARES)
    assert BENCHMARK.metrics(p, found, PROBES)["time_per_chunk"] > 0


@pytest.mark.parametrize("method", METHODS)
def test_what_is_dropped_is_counted(kernel, method):
    p = point(method, "tcp", 65536, receiver="drops")
    assert BENCHMARK.check(p, moved(kernel, p)) == ""


@pytest.mark.parametrize("method", MAIN)
def test_what_is_flushed_arrives_as_well(kernel, method):
    p = point(method, "pipe", 65536, source="cold")
    try:
        found = moved(kernel, p)
    except AssertionError:
        pytest.skip("this processor does not let programs flush a line")
    assert BENCHMARK.check(p, found) == ""


@pytest.mark.parametrize(("method", "transport"), [*itertools.product(MAIN, TRANSPORTS)])
def test_two_threads_move_all_of_it(kernel, method, transport):
    p = point(method, transport, 65536, placement="two")
    found = moved(kernel, p)
    assert BENCHMARK.check(p, found) == ""
    assert found.threads[0].executed > 0


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_fit_goes_in_parts(kernel, method):
    """A chunk of sixteen times what the pipe takes."""
    p = point(method, "pipe", MIB)

    def narrow(opened):
        to, there = open_pipe(opened, 65536)
        file = os.memfd_create("test")
        opened.callback(os.close, file)
        return to, there, file

    found = moved(kernel, p, narrow)
    assert BENCHMARK.check(p, found) == ""
    assert found.threads[0].value[PARTS_SLOT] >= found.threads[0].executed * 16


def test_an_end_that_never_gets_anything_is_an_error_and_no_wait_for_ever(kernel):
    def apart(opened):
        file = os.memfd_create("test")
        opened.callback(os.close, file)
        return open_pipe(opened, 65536)[0], open_pipe(opened, 65536)[1], file

    with pytest.raises(AssertionError):  # the preparation says that it cannot be done
        moved(kernel, point("write", "pipe", 4096), apart)


SENDFILE = "return sendfile(s->out, s->file, &offset, n);"
WRITES = "return write(s->out, piece.iov_base, n);"


@pytest.mark.parametrize(
    ("method", "right", "wrong", "said"),
    [
        ("sendfile", SENDFILE, "return pread(s->file, s->bounce, n, offset) > 0 ? write(s->out, s->bounce, n) : -1;", "copied the source"),
        ("sendfile", SENDFILE, "return write(s->out, s->mapped + at, n);", "copied the source"),
        ("write", WRITES, "return vmsplice(s->out, &piece, 1, SPLICE_F_NONBLOCK);", "shared the source"),
        ("sendfile", "return pwrite(s->file,", "return 0 && pwrite(s->file,", "the source was changed in 0"),
        ("sendfile", SENDFILE, "offset = 0; return sendfile(s->out, s->file, &offset, n);", "a sum of"),
        ("write", "t->value[FAILED] = (uint64_t)move(t, s, at, s->chunk, 1);", "t->value[FAILED] = (uint64_t)move(t, s, at, s->chunk / 2, 1);", "a sum of"),
    ],
)  # fmt: skip
def test_who_only_pretends_is_found_out(tmp_path, method, right, wrong, said):
    p = point(method, "pipe", 16384)
    assert said in BENCHMARK.check(p, moved(broken_kernel(tmp_path, "transfer", "transfer.c", right, wrong), p))


@pytest.mark.parametrize(("chunk", "chunks"), [(64, 0), (64, 1), (5000, 7), (4096, 4)])
def test_the_sum_is_that_of_the_words(chunk, chunks):
    room = whole_pages(chunk) // 8
    words = ((k % PLACES * room + i + 1) * FACTOR for k in range(chunks) for i in range(chunk // 8))
    assert sum_sent(chunk, chunks) == sum(words) % (1 << 64)
