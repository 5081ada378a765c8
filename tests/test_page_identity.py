"""page_identity and buffer_reuse: what is shared and what is copied is seen in the bytes, and who lies about it is found out although the bytes are right."""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
from types import SimpleNamespace

import msgspec
import pytest
from synthetic import counters, make_log
from test_kernels import PROBES, broken_kernel, enter

from numabench import kernel as abi
from numabench.analysis.answers import SETTLED, answers
from numabench.benchmarks import discover
from numabench.benchmarks.page_identity import (
    COPIED,
    DONE,
    LEFT_OUT,
    METHODS,
    NOT_TOLD,
    PAGES,
    PARTS,
    SAID,
    SHARED,
    SOURCES,
    TARGETS,
    UNCOPIED,
    claim,
    expected,
    must,
    outcome,
    usual_source,
)
from numabench.errors import MachineError
from numabench.host import veth
from numabench.host.opening import NAME, file_systems
from numabench.model import Answer, Metric

BENCHMARK = discover()["page_identity"]
SIZE = PARTS * PAGES * mmap.PAGESIZE


def skip_where_refused(error: Exception) -> None:
    """What a machine does not allow is no failure; a pair of devices that does not drop is."""
    if "a datagram that is dropped" in str(error):
        raise error
    pytest.skip(str(error))


def measured(
    kernel: abi.Kernel, method: str, target: str, source: str, alignment: str = "unaligned"
) -> tuple[str, dict[str, float]]:
    """What the check says, and the metrics."""
    parameters = {"method": method, "target": target, "source": source, "alignment": alignment}
    with contextlib.ExitStack() as opened:
        try:
            descriptors = BENCHMARK.descriptors(parameters, opened)
        except (MachineError, OSError) as error:
            skip_where_refused(error)
        found = enter(kernel, BENCHMARK.arguments(parameters, PROBES), size=SIZE, samples=1, descriptors=descriptors)
    return BENCHMARK.check(parameters, found), BENCHMARK.metrics(parameters, found, PROBES)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("page_identity").target)


@pytest.mark.parametrize("target", ["tcp", "unix", "pipe", "file", "file_append"])
@pytest.mark.parametrize(
    ("method", "source"), [("read_write", "memfd"), ("write", "memory"), ("writev", "memory"), ("mmap_write", "memfd")]
)
def test_what_is_written_is_copied(kernel, method, source, target):
    said, metrics = measured(kernel, method, target, source)
    assert (said, metrics["outcome"], metrics["shared"], metrics["deviates"]) == ("", COPIED, 0, 0)


@pytest.mark.parametrize("alignment", ["aligned", "unaligned"])
@pytest.mark.parametrize("source", ["memory", "memfd"])
def test_memory_in_a_pipe_is_shared(kernel, source, alignment):
    said, metrics = measured(kernel, "vmsplice", "pipe", source, alignment)
    assert (said, metrics["outcome"], metrics["shared"], metrics["deviates"]) == ("", SHARED, 1, 0)


@pytest.mark.parametrize(
    ("method", "target", "source"),
    [
        *(("sendfile", target, source) for target in ("tcp", "unix", "pipe") for source in ("memfd", *file_systems(), "direct")),
        *(("splice", target, "memfd") for target in ("tcp", "unix", "pipe", "file")),
        ("vmsplice", "tcp", "memory"),
        ("zerocopy", "tcp", "memory"),
        ("zerocopy", "unix", "memory"),
        ("zerocopy_unset", "tcp", "memory"),
        ("uring_send", "tcp", "memory"),
        ("uring_zc", "tcp", "memory"),
        ("uring_zc_fixed", "tcp", "memory"),
        ("uring_zc", "unix", "memory"),
        *(
            (method, "udp", "memory")
            for method in ("write", "zerocopy", "zerocopy_unset", "uring_send", "uring_zc", "uring_zc_fixed")
        ),
        ("copy_file_range", "file", "memfd"),
    ],
)
def test_every_outcome_is_one_of_those_that_there_are(kernel, method, target, source):
    """Which one it is depends on the kernel that this runs on: that all of it is accounted for does not."""
    said, metrics = measured(kernel, method, target, source)
    assert said == ""
    assert metrics["refused"] in (0, 1) and metrics.get("shared", 0) in (0, 1)
    assert ("shared" in metrics) == (metrics["refused"] == 0)


@pytest.mark.parametrize("method", ["sendfile", "splice", "copy_file_range"])
def test_a_refusal_is_a_result(kernel, method):
    said, metrics = measured(kernel, method, "file_append", "memfd")
    assert (said, metrics["refused"], metrics["deviates"]) == ("", 1, 0)
    assert metrics["outcome"] == (errno.EBADF if method == "copy_file_range" else errno.EINVAL) and "shared" not in metrics


def test_a_file_in_proc_is_copied_by_reading_it_and_has_its_name_back(kernel):
    with open(NAME) as file:
        name = file.read()
    said, metrics = measured(kernel, "read_write", "pipe", "proc")
    assert (said, metrics["outcome"]) == ("", COPIED)
    assert measured(kernel, "mmap_write", "pipe", "proc")[1]["refused"] == 1
    with open(NAME) as file:
        assert file.read() == name


SENDFILE = "return sendfile(w->to, w->file, &offset, n);"
LYING = "const ssize_t got = pread(w->file, w->bounce, n, offset); return got <= 0 ? got : write(w->to, w->bounce, (size_t)got);"


def test_a_sendfile_that_secretly_reads_and_writes_is_found_out_by_identity(tmp_path):
    """All its bytes are right: nothing else would tell."""
    lying = broken_kernel(tmp_path, "page_identity", "nb_ways.h", SENDFILE, LYING)
    for target in ("tcp", "unix", "pipe"):
        said, metrics = measured(lying, "sendfile", target, "memfd")
        assert (said, metrics["outcome"], metrics["shared"], metrics["deviates"]) == ("", COPIED, 0, 1)


SPLICE_IN = "vmsplice(nb_way_first(w), &whole, 1, SPLICE_F_NONBLOCK);"
WRITE = "return write(w->to, from, n);"
PUT = "pwrite(s->changed_by, from, n, (off_t)s->offset);"
CHANGE = "seen = nb_source_change(&s->source) && filled"
TELL = "told->copied += copied ? sends : 0;"


@pytest.mark.parametrize(
    ("method", "source", "file", "right", "wrong", "said"),
    [
        ("vmsplice", "memory", "nb_ways.h", SPLICE_IN, "write(nb_way_first(w), from, n);", "was copied, which must not be"),
        ("vmsplice", "memory", "page_identity.c", CHANGE, "seen = s->source.state++ > 0", "was copied, which must not be"),
        ("mmap_write", "memfd", "nb_ways.h", WRITE, SENDFILE, "shared its source, which must not be"),
        ("mmap_write", "memfd", "nb_source.h", PUT, f"s->state % 2 ? (ssize_t)n : {PUT}", "were not seen in it"),
        ("write", "memory", "nb_ways.h", WRITE, WRITE.replace("from,", "from + 1,"), "bytes are neither"),
        ("write", "memory", "nb_ways.h", WRITE, "return write(w->to, from, n - 1), (ssize_t)n;", "did not arrive whole"),
        ("sendfile", "memfd", "nb_ways.h", SENDFILE, f"; static unsigned turn; if (turn++ % 2) {{ {LYING} }} {SENDFILE}", "neither the one nor the other"),
        ("sendfile", "memfd", "nb_ways.h", SENDFILE, f"; static unsigned turn; if (turn++ % 3 == 1) return errno = EPERM, -1; {SENDFILE}", "transfers were refused"),
    ],
)  # fmt: skip
def test_who_only_pretends_is_found_out(tmp_path, method, source, file, right, wrong, said):
    kernel = broken_kernel(tmp_path, "page_identity", file, right, wrong)
    assert said in measured(kernel, method, "pipe", source)[0]


REUSE = discover()["buffer_reuse"]


def reused(kernel: abi.Kernel, method: str, change: str, target: str = "pipe") -> tuple[str, dict[str, float]]:
    p = {"method": method, "target": target, "change": change}
    assert REUSE.keep(p, None)
    with contextlib.ExitStack() as opened:
        descriptors = REUSE.descriptors(p, opened)
        found = enter(kernel, REUSE.arguments(p, PROBES), size=SIZE, samples=1, descriptors=descriptors)
    return REUSE.check(p, found), REUSE.metrics(p, found, PROBES)


@pytest.mark.parametrize("change", ["overwrite", "remap", "dontneed", "fork_write"])
def test_a_page_that_is_given_away_is_the_receivers_and_one_that_is_overwritten_is_not(kernel, change):
    said, metrics = reused(kernel, "vmsplice", change)
    assert (said, metrics["received"], metrics["deviates"]) == ("", SHARED if change == "overwrite" else COPIED, 0)
    assert reused(kernel, "write", change)[1]["received"] == COPIED


@pytest.mark.parametrize("change", ["overwrite", "truncate"])
def test_what_a_file_says_later_is_all_accounted_for(kernel, change):
    said, metrics = reused(kernel, "sendfile", change)
    assert said == "" and metrics["received"] in (COPIED, SHARED)


@pytest.mark.parametrize(
    ("change", "right", "wrong"),
    [
        ("dontneed", "madvise(s->memory, s->span, MADV_DONTNEED)", "madvise(s->memory, s->span, MADV_NORMAL)"),
        ("fork_write", "!(child = nb_source_share())", "0"),
    ],
)
def test_a_page_that_is_only_said_to_be_given_away_is_found_out(tmp_path, change, right, wrong):
    said, _ = reused(broken_kernel(tmp_path, "page_identity", "nb_source.h", right, wrong), "vmsplice", change)
    assert "the receiver read what was written since, which must not be" in said


def thread(events: int = 10, **slots: int) -> SimpleNamespace:
    names = ("refused", "error", "shared", "copied", "wrong", "unseen", "incomplete", "sends", "notified", "said")
    return SimpleNamespace(cursor=events, value=[0] * 6 + [slots.get(name, 0) for name in names])


def test_notifications_decide_between_what_is_said_and_what_is_not():
    assert outcome(thread(copied=9, sends=10, notified=10, said=10)) == SAID
    assert outcome(thread(copied=9, sends=10)) == NOT_TOLD
    assert outcome(thread(shared=9, sends=10, notified=10)) == SHARED
    assert outcome(thread(refused=10, error=errno.EINVAL)) == errno.EINVAL
    mixed = [
        thread(shared=9, sends=10, notified=10, said=10),
        thread(copied=9, sends=10, notified=4),
        thread(refused=4, copied=9),
        thread(shared=1, copied=1),
    ]
    assert len({outcome(each) for each in mixed}) == 1


def test_what_must_be_is_among_what_is_documented():
    for sweep in BENCHMARK.sweep(None, "standard"):
        for method in sweep["method"]:
            for target in sweep["target"]:
                for source in sweep["source"]:
                    p = {"method": method, "target": target, "source": source, "alignment": "aligned"}
                    if must(p) == SHARED and expected(p) is not None:
                        assert SHARED in expected(p)
                    if must(p) == COPIED and expected(p) is not None:
                        assert SHARED not in expected(p)


def test_a_claim_is_true_or_refuted_by_the_outcome():
    usual = usual_source()
    tried = {}
    for method, target, source, alignment in itertools.product(METHODS, TARGETS, SOURCES, ("aligned", "unaligned")):
        p = {"method": method, "target": target, "source": source, "alignment": alignment}
        if said := claim(p, usual):
            assert not said.true & said.false and said.text not in tried
            tried[said.text] = said
    assert tried["sendfile is zero copy to TCP alone (to a Unix socket)"].false == LEFT_OUT
    assert tried["to write a mapping of a file is zero copy (to TCP)"].false == DONE


def test_what_may_be_read_past_the_page_cache_promises_nothing():
    p = {"method": "sendfile", "target": "tcp", "source": "9p", "alignment": "aligned"}
    assert (
        expected(p) is None
        and expected({**p, "source": "ext4"}) == {SHARED}
        and expected({**p, "method": "mmap_write"}) == {COPIED}
    )
    assert claim(p, "ext4").text == "sendfile copies what is on 9p"


@pytest.mark.parametrize(
    ("method", "source", "found"),
    [("mmap_write", usual_source(), 0), ("zerocopy", "memory", 0), ("read_write", usual_source(), None)],
)
def test_what_is_said_is_held_against_what_is_found(kernel, method, source, found):
    assert measured(kernel, method, "tcp", source, "aligned")[1].get("claim") == found


def test_a_network_that_is_refused_is_named_with_what_it_takes(monkeypatch):
    """By a flag that no kernel knows: the child ends, and nothing stays open."""
    before, children = len(os.listdir("/proc/self/fd")), []
    monkeypatch.setattr(os, "fork", lambda fork=os.fork: children.append(fork()) or children[-1])
    monkeypatch.setattr(veth, "NEW_USER", 1)
    monkeypatch.setattr(veth, "NEW_NETWORK", 1)
    with pytest.raises(MachineError, match="a namespace of users and of networks: Invalid argument.*user namespaces"):
        veth.open_dropping()
    assert len(os.listdir("/proc/self/fd")) == before
    (child,) = children
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def test_a_pair_that_does_not_drop_is_refused(monkeypatch):
    """A socket whose datagrams get nowhere would look like one that copies nothing."""
    monkeypatch.setattr(veth, "ARRIVES_S", 0.01)
    monkeypatch.setattr(veth, "dropped", lambda device: 0)
    with pytest.raises(MachineError, match="a veth pair that drops"):
        veth.open_dropping()


def test_a_file_system_that_is_not_there_is_named():
    p = {"method": "sendfile", "target": "pipe", "source": "f2fs", "alignment": "aligned"}
    if "f2fs" in file_systems():
        pytest.skip("it is there")
    with contextlib.ExitStack() as opened, pytest.raises(MachineError, match="f2fs.*TMPDIR"):
        BENCHMARK.descriptors(p, opened)


def test_nothing_stays_open():
    before = len(os.listdir("/proc/self/fd"))
    for sweep in BENCHMARK.sweep(None, "quick"):
        p = {name: values[0] for name, values in sweep.items()}
        with contextlib.ExitStack() as opened, contextlib.suppress(MachineError):
            BENCHMARK.descriptors(p, opened)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("method", ["zerocopy", "uring_zc", "uring_zc_fixed"])
def test_what_nobody_receives_is_not_copied_and_what_the_loopback_delivers_is(kernel, method):
    """The two controls of what the kernel tells: they differ in the device alone."""
    said, metrics = measured(kernel, method, "veth", "memory", "aligned")
    assert (said, metrics["outcome"], metrics["said_copied"], metrics["notified"], metrics["deviates"]) == ("", UNCOPIED, 0, 1, 0)
    assert "shared" not in metrics
    said, metrics = measured(kernel, method, "udp", "memory", "aligned")
    assert (said, metrics["outcome"], metrics["said_copied"], metrics["shared"]) == ("", SAID, 1, 0)


def test_who_does_not_tell_that_it_copied_is_found_out(tmp_path):
    lying = broken_kernel(tmp_path, "page_identity", "nb_told.h", TELL, "told->copied += copied && told->notified % 2;")
    assert "neither the one nor the other" in measured(lying, "zerocopy", "tcp", "memory")[0]


def test_outcomes_are_said_in_the_words_of_their_metric():
    """By axis where one is named, by number where there is no word; open where processes disagree."""
    log = make_log(benchmarks=(counters,))
    record = next(b for b in log.benchmarks if b.axes)
    metric, axis = record.metrics[0], record.axes[0]
    question = Answer(kind="outcome", metric=metric.name, where={}, axis=axis.name, text="It is {value}")

    def told(summary: str, value) -> list:
        worded = msgspec.structs.replace(
            record, metrics=(Metric(name=metric.name, unit="1", polarity="neither", summary=summary),), answers=(question,)
        )
        trials = [
            msgspec.structs.replace(
                t,
                samples=tuple(
                    msgspec.structs.replace(s, valid=True, reasons=(), metrics={metric.name: value(t, s)}) for s in t.samples
                ),
            )
            for t in log.trials
            if t.benchmark == record.name
        ]
        return answers(msgspec.structs.replace(log, benchmarks=(worded,), trials=tuple(trials)))

    first = axis.values[0]
    (same,) = told("0 copied|7 shared", lambda t, s: 7.0)
    assert same.ok and same.grade == SETTLED and same.value == 7 and "shared" in same.text and "copied" not in same.text
    (two,) = told("0 copied|7 shared", lambda t, s: 0.0 if s.parameters[axis.name] == first else 7.0)
    assert two.ok and f"copied: {first}" in two.text and "shared: " in two.text
    (wordless,) = told("", lambda t, s: 7.0)
    assert "7" in wordless.text
    (torn,) = told("0 copied|7 shared", lambda t, s: 7.0 * (t.process % 2))
    assert not torn.ok and "another outcome in some processes" in torn.text
