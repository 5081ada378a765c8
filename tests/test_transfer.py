"""transfer: the path is an outcome and no time, whatever arrives; nothing is lost in parts, and nothing waits for ever."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
from collections import Counter
from collections.abc import Callable

import pytest
from test_kernels import PROBES, broken_kernel, enter
from test_page_identity import skip_where_refused

from numabench import kernel as abi
from numabench.benchmarks import ALONE, Found, _ends, discover
from numabench.benchmarks._ends import keep_open, pipe
from numabench.benchmarks.transfer import (
    CHANGED_SLOT,
    FACTOR,
    FILED,
    MAIN,
    MIB,
    PAGE,
    PARTS_SLOT,
    PLACES,
    SENT,
    SHARES,
    STREAMS,
    sum_sent,
    whole_pages,
)
from numabench.errors import MachineError
from numabench.host.topology import read_topology

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


@pytest.mark.parametrize(("method", "transport", "chunk"), [*itertools.product(FILED, STREAMS, (64, 5000, 65536))])
def test_what_arrives_is_what_was_sent_by_the_path_that_it_is_called(kernel, method, transport, chunk):
    p = point(method, transport, chunk)
    found = moved(kernel, p)
    assert BENCHMARK.check(p, found) == ""
    assert (found.threads[0].value[CHANGED_SLOT] > 0) == (method in SHARES)
    assert BENCHMARK.metrics(p, found, PROBES)["time_per_chunk"] > 0


@pytest.mark.parametrize("method", FILED)
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


@pytest.mark.parametrize(("method", "transport"), [*itertools.product(MAIN, STREAMS)])
def test_two_threads_move_all_of_it(kernel, method, transport):
    p = point(method, transport, 65536, placement="two")
    found = moved(kernel, p)
    assert BENCHMARK.check(p, found) == ""
    assert found.threads[0].executed > 0


@pytest.mark.parametrize("method", FILED)
def test_what_does_not_fit_goes_in_parts(kernel, method):
    """A chunk of sixteen times what the pipe takes."""
    p = point(method, "pipe", MIB)

    def narrow(opened):
        return *pipe(opened, 65536), keep_open(os.memfd_create("test"), opened)

    found = moved(kernel, p, narrow)
    assert BENCHMARK.check(p, found) == ""
    assert found.threads[0].value[PARTS_SLOT] >= found.threads[0].executed * 16


def test_an_end_that_never_gets_anything_is_an_error_and_no_wait_for_ever(kernel):
    def apart(opened):
        return pipe(opened, 65536)[0], pipe(opened, 65536)[1], keep_open(os.memfd_create("test"), opened)

    with pytest.raises(AssertionError):  # the preparation says that it cannot be done
        moved(kernel, point("write", "pipe", 4096), apart)


SENDFILE = "return sendfile(w->to, w->file, &offset, n);"
WRITES = "return write(w->to, from, n);"
CHANGE = "return pwrite(s->way.file,"
MOVES = "t->value[FAILED] = (uint64_t)move(t, s, at, s->chunk, 1);"


@pytest.mark.parametrize(
    ("method", "file", "right", "wrong", "said"),
    [
        ("sendfile", "nb_ways.h", SENDFILE, "return pread(w->file, w->bounce, n, offset) > 0 ? write(w->to, w->bounce, n) : -1;", "copied the source"),
        ("sendfile", "nb_ways.h", SENDFILE, WRITES, "copied the source"),
        ("write", "nb_ways.h", WRITES, "return vmsplice(w->to, &whole, 1, SPLICE_F_NONBLOCK);", "shared the source"),
        ("sendfile", "transfer.c", CHANGE, "return 0 && pwrite(s->way.file,", "the source was changed in 0"),
        ("sendfile", "nb_ways.h", SENDFILE, "offset = 0; return sendfile(w->to, w->file, &offset, n);", "a sum of"),
        ("write", "transfer.c", MOVES, MOVES.replace("s->chunk", "s->chunk / 2"), "a sum of"),
    ],
)  # fmt: skip
def test_who_only_pretends_is_found_out(tmp_path, method, file, right, wrong, said):
    p = point(method, "pipe", 16384)
    assert said in BENCHMARK.check(p, moved(broken_kernel(tmp_path, "transfer", file, right, wrong), p))


@pytest.fixture
def lost() -> Callable[[abi.Kernel, str], str]:
    """What the check says of a method whose datagrams nobody receives, where this machine has such a device."""

    def check(kernel: abi.Kernel, method: str, source: str = "warm") -> str:
        p = point(method, "veth", 16384, source=source, receiver="drops")
        try:
            return BENCHMARK.check(p, moved(kernel, p))
        except MachineError as error:
            skip_where_refused(error)

    return check


@pytest.mark.parametrize("method", SENT)
def test_what_nobody_receives_is_told_of_as_not_copied(kernel, lost, method):
    assert lost(kernel, method) == ""


@pytest.mark.parametrize("method", SENT[1:])
def test_what_the_loopback_delivers_is_told_of_as_copied(kernel, method):
    p = point(method, "tcp", 65536)
    try:
        assert BENCHMARK.check(p, moved(kernel, p)) == ""
    except MachineError as error:
        skip_where_refused(error)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("MSG_ZEROCOPY | MSG_DONTWAIT | MSG_NOSIGNAL", "MSG_DONTWAIT | MSG_NOSIGNAL", "sends were notified of"),
        ("told->copied += copied ? sends : 0;", "told->copied += sends;", "were copied, by what the kernel says"),
    ],
)
def test_a_copy_that_is_called_none_is_found_out(tmp_path, lost, right, wrong, said):
    assert said in lost(broken_kernel(tmp_path, "transfer", "nb_told.h", right, wrong), "zerocopy")


def test_a_quick_look_asks_two_break_evens_of_a_transport_at_most():
    """Of a source in the caches and of one that is not, each by itself."""
    topology = read_topology()
    values = [
        dict(zip(sweep, point, strict=True))
        for sweep in BENCHMARK.sweep(topology, "quick")
        for point in itertools.product(*sweep.values())
    ]
    cases = [p for p in values if BENCHMARK.keep(p, topology)]
    asked = [answer for answer in BENCHMARK.asked(topology, cases) if answer.headline]
    crossings = Counter((a.where["transport"], a.where["source"]) for a in asked if a.kind == "crossover")
    assert crossings == {("unix", "warm"): 2, ("pipe", "warm"): 2, ("veth", "warm"): 1, ("veth", "cold"): 1}
    assert {a.where["transport"] for a in asked if a.kind == "ratio"} == {*STREAMS}
    assert all(a.kind in ("crossover", "ratio") for a in asked) and len(cases) < 32


@pytest.mark.parametrize(("hard", "refused"), [(1 << 16, True), (8 << 20, False), (resource.RLIM_INFINITY, False)])
def test_memory_that_may_not_be_locked_is_named(monkeypatch, hard, refused):
    """As for a user who is not root: the limit is raised as far as it goes."""
    raised = []
    monkeypatch.setattr(_ends.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(_ends.resource, "getrlimit", lambda which: (1 << 16, hard))
    monkeypatch.setattr(_ends.resource, "setrlimit", lambda which, ends: raised.append(ends))
    with pytest.raises(MachineError, match="ulimit -l") if refused else contextlib.nullcontext():
        _ends.need("zerocopy", 131072)
    assert raised == ([] if refused else [(hard, hard)])
    _ends.need("write", 131072)


@pytest.mark.parametrize(("chunk", "chunks"), [(64, 0), (64, 1), (5000, 7), (4096, 4)])
def test_the_sum_is_that_of_the_words(chunk, chunks):
    room = whole_pages(chunk) // 8
    words = ((k % PLACES * room + i + 1) * FACTOR for k in range(chunks) for i in range(chunk // 8))
    assert sum_sent(chunk, chunks) == sum(words) % (1 << 64)
