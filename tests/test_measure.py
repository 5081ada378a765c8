"""Real worker processes on this machine: proof, faults, and nothing left behind. No test looks at a duration."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

import numabench as nb
from numabench import kernel as abi
from numabench.errors import MachineError
from numabench.host import memory
from numabench.host.memory import IN_TURN, POLICIES, Buffer, beyond_shares
from numabench.measure import worker
from numabench.measure.executor import Outcome, ProcessExecutor, read_events, why
from numabench.measure.protocol import Began, Companion, Job, JobCase, Timing, encode
from numabench.measure.worker import without
from numabench.model import ThreadProof

CPUS = tuple(sorted(os.sched_getaffinity(0)))
HAS_NUMA = Path("/sys/devices/system/node/node0").exists()
NODE = 0 if HAS_NUMA else None


def job(
    benchmark: str,
    parameters: dict,
    *,
    cpus: tuple = CPUS[:1],
    size: int = 4096,
    scratch: int = 0,
    page_size: str = "4k",
    samples: int = 2,
    node: int | None = NODE,
    until: float = 1e12,
) -> Job:
    kernel = nb.list_benchmarks()[benchmark].kernel
    case = JobCase(
        case="c1",
        parameters=parameters,
        cpus=cpus,
        groups=(0,) * len(cpus),
        node=node,
        size=size,
        scratch=scratch,
        page_size=page_size,
        seed=1,
    )
    return Job(
        benchmark=f"numabench.benchmarks.{benchmark}",
        kernel=str(abi.build(kernel).target),
        cases=(case,),
        home=node,
        sentinel=str(abi.build("sentinel").target),
        crew=str(abi.build("crew").target),
        timing=Timing(window=0.002, samples=samples),
        spawned=time.clock_gettime(time.CLOCK_MONOTONIC),
        until=until,
    )


def execute(work: Job, timeout: float = 60.0) -> Outcome:
    with ProcessExecutor() as executor:
        return executor.execute(work, timeout)


def test_a_sample_proves_its_placement():
    outcome = execute(
        job(
            "memory_latency",
            {"size": 1 << 22, "order": "group", "page_size": "thp"},
            size=1 << 22,
            scratch=1 << 18,
            page_size="thp",
        )
    )
    assert outcome.failure == "" and len(outcome.samples) == 2
    for sample in outcome.samples:
        assert [t.cpu for t in sample.threads] == [t.cpu_begin for t in sample.threads] == [CPUS[0]]
        assert sample.memory.bytes == 1 << 22 and sample.frequency[0] > 1e8
        if HAS_NUMA:
            assert (
                set(sample.memory.pages) == {"0"} and sum(sample.memory.pages.values()) == (1 << 22) // sample.memory.page_bytes
            )
        assert not any(r.startswith(("check", "physics", "pages", "cpu_moved")) for r in sample.reasons)
        assert sample.metrics["cycles"] >= 3
    assert outcome.done.startup > 0 and outcome.done.measured > 0


@pytest.mark.parametrize("how", ["bind", "one_node"])
def test_a_process_is_placed_by_numactl_where_it_is_there_and_may_ask(tmp_path, monkeypatch, how):
    program, told = tmp_path / "numactl", tmp_path / "told"
    program.write_text(f'#!/bin/sh\necho "$@" > {told}\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    work = job("padded_counters", {"operation": "store", "stride": 8, "spacing": 0})
    work = msgspec.structs.replace(work, home=0, placing=memory.Placing(how))
    affinity = os.sched_getaffinity(0)
    assert execute(work).failure == ""
    assert os.sched_getaffinity(0) == affinity
    assert told.exists() == (how == "bind")
    if how == "bind":
        assert told.read_text().startswith("--preferred=0 -- ")


def test_more_threads_than_cpus_are_measured_and_not_called_disturbed():
    parameters = {
        "primitive": "mutex",
        "critical_section": 0,
        "think_time": 0,
        "read_share": 0,
        "threads": 2,
        "placement": "oversubscribed",
    }
    work = job("contention", parameters, cpus=CPUS[:1] * 2, size=1 << 17, scratch=2 * 11264, samples=1)
    outcome = execute(work)
    assert outcome.failure == "" and len(outcome.samples) == 1
    (sample,) = outcome.samples
    assert [t.cpu for t in sample.threads] == list(CPUS[:1] * 2)
    assert not [r for r in sample.reasons if r.startswith(("run_delay", "overlap", "check"))]


def test_who_starves_at_a_lock_is_no_disturbance():
    """Begun when the window had nearly ended, and nothing done: the lock's doing, unless the thread had no CPU meanwhile."""

    def reasons(benchmark: str, delay: float) -> list[str]:
        winner = ThreadProof(cpu=0, cpu_begin=0, cpu_end=0, begin=0.0, end=0.01, operations=1000)
        loser = ThreadProof(cpu=1, cpu_begin=1, cpu_end=1, begin=0.0101, end=0.0101, operations=0, run_delay=delay)
        judge = SimpleNamespace(benchmark=nb.list_benchmarks()[benchmark])
        return worker.Worker.thread_reasons(judge, (winner, loser))

    assert reasons("contention", 0.0001) == [] and reasons("contention", 0.002) == ["run_delay"]
    assert reasons("padded_counters", 0.0001) == ["run_delay"]


def test_who_waits_for_its_cpu_by_what_is_measured_is_not_disturbed():
    """A thread that is woken, beside one that wakes it: of the one it is what is measured, of the other it is not."""
    waited = ThreadProof(cpu=0, cpu_begin=0, cpu_end=0, begin=0.0, end=0.01, operations=1000, run_delay=0.005)

    def reasons(benchmark: str, parameters: dict, threads: int = 2) -> list[str]:
        found = nb.list_benchmarks()[benchmark]
        judge = SimpleNamespace(benchmark=found)
        return worker.Worker.thread_reasons(judge, (waited,) * threads, False, found.waiters(parameters))

    assert reasons("wake_up", {"target": "other_halted"}) == ["run_delay"] == reasons("fibers", {"switch": "own"}, 1)
    assert reasons("wake_up", {"target": "spinning"}) == ["run_delay"] * 2
    assert reasons("fibers", {"switch": "thread_other"}) == [] == reasons("sleeping", {}, 1)
    assert reasons("migration", {"action": "move"}, 1) == [] and reasons("migration", {"action": "stay"}, 1) == ["run_delay"]
    ends = {"producers": 1, "consumers": 1}
    assert (
        reasons("channels", {"wait": "park", **ends}) == [] and reasons("channels", {"wait": "spin", **ends}) == ["run_delay"] * 2
    )
    assert reasons("user_faults", {"method": "handler"}) == [] == reasons("user_faults", {"method": "handler_spins"}, 1)
    assert reasons("user_faults", {"method": "handler_spins"}) == ["run_delay"] == reasons("user_faults", {"method": "sigbus"}, 1)
    for bystander, waits in (
        ("sleeping", ["run_delay"]),
        ("spinning", ["run_delay"] * 2),
    ):  # one of two calls, and has to have its CPU
        assert reasons("address_space", {"bystander": bystander, "bystanders": 1}) == waits
    assert reasons("fork_and_write", {"threads": 2}) == []
    assert reasons("system_calls", {"wrap": "notify"}, 1) == [] and reasons("system_calls", {"wrap": "none"}, 1) == ["run_delay"]


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU: two threads cannot run at the same time")
@pytest.mark.parametrize("primitive", ["mutex", "futex", "mcs"])
def test_unfair_locks_are_not_thrown_out_for_being_so(primitive):
    """Sections of 26 us stand for 256 threads of 100 ns: windows of the two then hardly overlap where one has the lock for itself."""
    parameters = {"primitive": primitive, "critical_section": 26_000, "think_time": 0, "read_share": 0, "threads": 2}
    outcome = execute(
        job("contention", parameters | {"placement": "any"}, cpus=CPUS[:2], size=1 << 17, scratch=2 * 11264, samples=3)
    )
    assert outcome.failure == "" and len(outcome.samples) == 3
    for sample in outcome.samples:
        assert "overlap" not in sample.reasons and sample.extra["section_ns"] > 0
        assert not [r for r in sample.reasons if r.startswith("check:") and "nobody" not in r]


def test_no_case_begins_after_the_budget():
    work = job("memory_latency", {"size": 4096, "order": "group", "page_size": "4k"}, scratch=1024, until=0.0)
    outcome = execute(work)
    assert outcome.failure == "" and outcome.done and not outcome.samples and not outcome.failed_cases


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU: two threads cannot run at the same time")
def test_two_threads_overlap_and_know_their_distance():
    outcome = execute(
        job(
            "padded_counters",
            {"operation": "atomic_add", "stride": 8, "spacing": 20, "threads": 2, "placement": "any"},
            cpus=CPUS[:2],
            samples=5,
        )
    )
    assert outcome.failure == ""
    best = max(outcome.samples, key=lambda s: s.overlap)
    assert best.overlap > 0 and best.hop[0] > 1e-9 and len(best.threads) == 2
    assert all(0 <= s.overlap <= 1 for s in outcome.samples)


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU: a loader needs one of its own")
def test_cases_that_are_prepared_alike_share_their_memory():
    """Were it prepared anew, or were the counts of what was done lost, no check value would be right after the first case."""
    common = {
        "cpu_node": 0,
        "chase_node": 0,
        "load_node": 0,
        "mix": "3:1",
        "vector": "portable",
        "size": 1 << 21,
        "page_size": "4k",
    }
    work = job("loaded_latency", {**common, "rate": "0"}, cpus=CPUS[:2], size=1 << 22, scratch=1 << 17)
    first = work.cases[0]
    rates = ("0", "1", "max", "0")
    cases = [msgspec.structs.replace(first, case=f"c{n}", parameters={**common, "rate": rate}) for n, rate in enumerate(rates)]
    other = {**common, "rate": "1", "mix": "0:1"}
    cases.append(msgspec.structs.replace(first, case="other", parameters=other))
    outcome = execute(msgspec.structs.replace(work, cases=tuple(cases)))
    assert outcome.failure == "" and len(outcome.samples) == 10
    reasons = [r for s in outcome.samples for r in s.reasons]
    assert [r for r in reasons if r.startswith(("check", "physics", "pages"))] == []
    assert {s.metrics["load"] > 0 for s in outcome.samples} == {True}


@pytest.mark.skipif(not HAS_NUMA, reason="a kernel without NUMA binds nothing")
@pytest.mark.parametrize("policy", [*POLICIES])
def test_policies_are_proven(policy):
    spread = policy in IN_TURN
    try:
        buffer = Buffer(4 << 20, "4k", None if spread else 0, (0,) if spread else (), policy)
    except MachineError as error:
        assert policy == "weighted" and "6.9" in str(error)
        pytest.skip("no weighted interleave in this kernel")
    try:
        ctypes.memset(buffer.address, 1, buffer.size)
        proof = buffer.prove()
        assert (proof.policy, proof.misplaced, set(proof.pages)) == (policy, 0, {"0"})
        if spread:
            buffer.parts, buffer.policy = (0, 1), "interleave"  # as if half of the pages had been asked for elsewhere
            assert 0 < buffer.prove().misplaced < sum(proof.pages.values()) // 2
    finally:
        buffer.close()


def test_shares_of_nodes_may_be_off_by_chance_and_by_a_turn():
    assert beyond_shares({"0": 2100, "1": 1996}, {0: 1, 1: 1}, 1.0) == 0
    assert beyond_shares({"0": 2458, "1": 819, "2": 819}, {0: 3, 1: 1, 2: 1}, 1.0) == 0
    assert beyond_shares({"0": 2458, "1": 819, "2": 819}, {0: 1, 1: 1, 2: 1}, 1.0) > 900
    assert beyond_shares({"0": 3, "1": 1}, {0: 1, 1: 1}, 1.0) == 0
    assert beyond_shares({"0": 2048, "1": 2046, "7": 2}, {0: 1, 1: 1}, 1.0) == 2
    assert beyond_shares({"0": 100, "Bad address": 5}, {0: 1}, 1.0) == 5


@pytest.mark.skipif(not HAS_NUMA, reason="a kernel without NUMA binds nothing")
def test_parts_of_a_buffer_are_bound_and_proven_one_by_one():
    buffer = Buffer(4 << 20, "4k", 0, parts=(0, 0))
    try:
        ctypes.memset(buffer.address, 1, buffer.size)
        proof = buffer.prove()
        assert proof.parts == (0, 0) and proof.misplaced == 0 and set(proof.pages) == {"0"}
        buffer.parts = (0, 1)  # as if the second half had been asked for elsewhere
        assert buffer.prove().misplaced == sum(proof.pages.values()) // 2
    finally:
        buffer.close()
    with pytest.raises(MachineError, match="to node 900"):
        Buffer(4 << 20, "4k", 0, parts=(0, 900))


def test_achieved_delays_are_recorded():
    outcome = execute(
        job(
            "contention",
            {"primitive": "mutex", "critical_section": 100, "think_time": 50, "threads": 1, "placement": "alone"},
            size=8192,
        )
    )
    assert outcome.failure == ""
    for sample in outcome.samples:
        assert sample.extra["section_ns"] == pytest.approx(100, rel=0.1) and sample.extra["think_ns"] == pytest.approx(
            50, rel=0.1
        )


@pytest.mark.skipif(not HAS_NUMA, reason="a kernel without NUMA binds nothing")
def test_a_buffer_on_a_node_that_is_not_there():
    with pytest.raises(MachineError, match="cannot bind .* to node 63"):
        Buffer(4096, node=63)


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.EPERM, "mbind.*containers.md"), (errno.ENOSYS, "mbind.*containers.md"), (errno.EINVAL, "numabench machine")],
)
def test_a_bind_that_is_refused_says_what_helps(monkeypatch, code, advice):
    monkeypatch.setattr(memory.calls, "mbind", lambda *_: code)
    with pytest.raises(MachineError, match=f"cannot bind 4096 bytes to node 0: .*{advice}"):
        Buffer(4096, node=0)


def test_large_memory_is_mapped_once_for_all_cases_alike(monkeypatch):
    mapped = []
    monkeypatch.setattr(worker, "Buffer", lambda *asked: mapped.append(asked) or Buffer(*asked))
    someone = object.__new__(worker.Worker)
    someone.kept, someone.buffer, someone.scratch = {}, None, None
    least = worker.KEPT_FROM
    first = someone.take("buffer", 4 * least, least)
    first.close()
    second = someone.take("buffer", 4 * least, 4 * least)
    assert first.address == second.address and (first.size, second.size) == (least, 4 * least)
    assert first.prove().bytes == least
    other = someone.take("buffer", 2 * least, least, "thp")  # of another kind: the one before goes
    assert mapped == [(4 * least, "4k", None, (), "bind"), (2 * least, "thp", None, (), "bind")] and other.size == least
    small = [someone.take("buffer", 4 * least, 4096, "thp") for _ in range(2)]
    assert small[0].address != small[1].address and len(mapped) == 4
    someone.kept.clear()

    def scarce(size, *asked):
        if size > least:
            raise MachineError("no such room", "choose less")
        return Buffer(size, *asked)

    monkeypatch.setattr(worker, "Buffer", scarce)
    assert someone.take("buffer", 4 * least, least).size == least  # too much for all, enough for this one
    with pytest.raises(MachineError, match="no such room"):
        someone.take("buffer", 4 * least, 4 * least)
    dealt = Buffer(2 * least, "4k", None, (0, 0))
    assert dealt.serves(2 * least, "4k", None, (0, 0), "bind") and not dealt.serves(least, "4k", None, (0, 0), "bind")


def test_huge_pages_are_proven_not_assumed():
    import ctypes

    wish, small = Buffer(4 << 20, "thp"), Buffer(4 << 20, "4k")
    for buffer in (wish, small):
        ctypes.memset(buffer.address, 1, buffer.size)
    assert small.prove().huge_bytes == 0
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if enabled.exists() and "[never]" not in enabled.read_text():
        assert 0 < wish.prove().huge_bytes <= wish.size and wish.beginning(2 << 20).prove().huge_bytes <= 2 << 20
    wish.close()
    small.close()


def test_a_cpu_that_is_gone_fails_its_case_in_words():
    outcome = execute(job("padded_counters", {"operation": "store", "stride": 8, "spacing": 0}, cpus=(4095,), node=None))
    assert "cannot run on CPU 4095" in outcome.failed_cases["c1"]


@pytest.mark.skipif(len(CPUS) < 2, reason="one CPU: there is no pair")
@pytest.mark.parametrize("node", [NODE, None])
def test_of_a_round_the_pairs_without_the_lost_cpu_are_measured(node):
    pairs = [(4094, 4095), CPUS[:2]]
    company = tuple(Companion(case=f"c{k}", parameters={"operation": "cas", "cpu_a": a}) for k, (a, _) in enumerate(pairs))
    work = job("core_to_core", company[0].parameters, cpus=(*pairs[0], *pairs[1]), size=2 * 4096, node=node)
    case = msgspec.structs.replace(
        work.cases[0], case="c0", company=company, parts=(node, node) if node is not None else (), groups=(0, 1, 2, 3)
    )
    outcome = execute(msgspec.structs.replace(work, cases=(case,)))
    assert outcome.failure == "" and list(outcome.failed_cases) == ["c0"] and "CPU 4094" in outcome.failed_cases["c0"]
    assert {s.case for s in outcome.samples} == {"c1"} and [t.cpu for t in outcome.samples[0].threads] == list(CPUS[:2])
    left = without(case, frozenset({4095}))
    assert left.groups == (2, 3) and left.size == 4096 and not left.company and not left.parts
    assert without(case, frozenset()) is None and without(case, frozenset({4094, *CPUS[:1]})) is None


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A job whose benchmark is a module of this text."""

    def made(text: str) -> Job:
        (tmp_path / "odd_benchmark.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        return msgspec.structs.replace(job("padded_counters", {"operation": "store"}), benchmark="odd_benchmark")

    return made


def test_a_worker_that_crashes_is_a_reason(odd):
    assert execute(odd("import os; os.abort()")).failure == "crashed: killed by SIGABRT"
    assert "exit code 1: ValueError: no luck" in execute(odd("raise ValueError('no luck')")).failure
    assert execute(odd("import os; os._exit(7)")).failure == "crashed: exit code 7"


def test_a_worker_that_hangs_is_killed(odd, tmp_path):
    mark = tmp_path / "pid"
    script = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    assert execute(odd(script), timeout=1.5).failure.startswith("timeout")
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_a_worker_that_is_slow_is_waited_for_while_anything_comes_of_it(monkeypatch):
    """A busy or an emulated machine: time runs out three times, and each time but the last there is more."""

    class Slow:
        def __init__(self, codes):
            self.codes, self.closed, self.process = iter(codes), False, SimpleNamespace(poll=lambda: None)

        def ask(self, job, files):
            self.outbox = os.dup(files[1])

        def wait(self, timeout):
            number, code = next(self.codes)
            os.write(self.outbox, encode(Began(case=f"c{number}")) + b"\n" if number else b"")
            return code

        def said(self):
            return b""

        def close(self):
            self.closed = True

    for codes, failure, events in (
        (((1, None), (2, None), (3, 0)), "", 3),
        (((1, None), (0, None)), "timeout: neither a sample nor the end within 9 s", 1),
    ):
        executor, slow = ProcessExecutor(), Slow(codes)
        monkeypatch.setattr(
            executor, "origin", lambda node, executor=executor, slow=slow: executor.origins.setdefault(node, slow)
        )
        outcome = executor.execute(job("padded_counters", {"operation": "store"}), 9.0)
        assert (outcome.failure, len(outcome.events), slow.closed) == (failure, events, bool(failure))
        os.close(slow.outbox)


def test_a_worker_that_babbles_is_a_reason(odd):
    assert "spoke out of turn" in execute(odd("import os; print('hello', flush=True); os._exit(0)")).failure


def test_the_process_that_forks_is_replaced_where_it_has_ended(odd):
    """Killed by what it forked, between two jobs, and at its start: one job fails at most."""
    good = job("padded_counters", {"operation": "store", "stride": 8, "spacing": 0})
    with ProcessExecutor() as executor:
        assert (
            executor.execute(odd("import os, signal, time; os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)"), 60.0).failure
            == "crashed: killed by SIGKILL"
        )
        assert executor.execute(good, 60.0).samples
        (origin,) = executor.origins.values()
        os.kill(origin.process.pid, signal.SIGKILL)
        origin.process.wait()
        assert executor.execute(good, 60.0).samples
        assert executor.execute(good, 60.0).samples and len(executor.origins) == 1
        (origin,) = executor.origins.values()
    assert origin.process.poll() is not None


def test_forked_processes_map_memory_at_addresses_of_their_own():
    """As started ones do: where code and stacks lie is part of what differs between processes."""
    script = """if 1:
        import mmap, os
        from numabench.host.placement import fill_holes, shift_mappings, _take
        fill_holes()
        for _ in range(8):
            if not os.fork():
                shift_mappings()
                print(_take(5 * mmap.PAGESIZE)[0], flush=True)
                os._exit(0)
            os.wait()
    """
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert len(told) == 8 and len(set(told)) >= 6


def test_events_that_are_no_text_are_a_reason():
    events, broken = read_events(b'{"event":"began","case":"c"}\n{"event":"began","case":"\xff"}\n')
    assert len(events) == 1 and "spoke out of turn" in broken


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (
            "libnuma: Warning: cpu argument 9 is out of range\n\nusage: numactl [--all]\n<length> can have g (GB)\n",
            "libnuma: Warning: cpu",
        ),
        ("numactl: This system does not support NUMA policy\nusage: numactl\n<length> can have g (GB)\n", "numactl: This system"),
        ("usage\n<77> is invalid\n<length> can have g (GB)\n", "<77> is invalid"),
        ("odd\nTraceback (most recent call last):\n  File\nValueError: no luck\n\n", "ValueError: no luck"),
        ("one\ntwo\n\n", "two"),
    ],
)
def test_a_failure_is_told_by_the_line_that_says_most(errors, said):
    assert why(1, 1.0, "", errors).startswith(f"crashed: exit code 1: {said}")
    assert why(1, 1.0, "", "") == "crashed: exit code 1" and why(0, 1.0, "", errors) == ""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is of Python 3.11")
def test_a_worker_takes_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "ctypes.py").write_text("raise SystemExit('the wrong ctypes')")
    monkeypatch.chdir(tmp_path)
    outcome = execute(job("padded_counters", {"operation": "store", "stride": 8, "spacing": 0}))
    assert outcome.failure == "" and outcome.samples


def test_a_kernel_that_crashes_takes_only_its_process(tmp_path):
    import shutil

    shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    source = tmp_path / "kernels" / "padded_counters.c"
    source.write_text(
        source.read_text().replace("nb_window(t, (c->parameter", "*(volatile int *)8 = 1;\n    nb_window(t, (c->parameter")
    )
    import msgspec

    work = msgspec.structs.replace(
        job("padded_counters", {"operation": "store", "stride": 8, "spacing": 0}),
        kernel=str(abi.build("padded_counters", folder=tmp_path / "kernels").target),
    )
    outcome = execute(work)
    assert outcome.failure == "crashed: killed by SIGSEGV" and outcome.in_flight == "c1"


def workers_of(run: Path) -> list[int]:
    """Processes with `numabench.measure.forks` on their command line, started by the run that has this folder in its environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (
                b"numabench.measure.forks" in (folder / "cmdline").read_bytes()
                and bytes(run) in (folder / "environ").read_bytes()
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def heed_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so does what that starts: these tests may run there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_child_outlives_its_parent_and_the_log_is_good(tmp_path, how):
    command = [
        sys.executable,
        "-m",
        "numabench",
        "run",
        "padded_counters",
        "--profile",
        "quick",
        "--processes",
        "50",
        "-o",
        str(tmp_path),
    ]
    variables = os.environ | {"RUN_OF_A_TEST": str(tmp_path)}
    parent = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=heed_interrupts
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        logs = list(tmp_path.rglob("*.jsonl"))
        if logs and b'"record":"trial"' in logs[0].read_bytes() and workers_of(tmp_path):
            break
        time.sleep(0.05)
    parent.send_signal(how)
    output = parent.communicate(timeout=60)[0].decode()
    deadline = time.monotonic() + 20
    while workers_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not workers_of(tmp_path)
    log = nb.load(tmp_path).log
    assert log.trials
    if how != signal.SIGKILL:
        assert parent.returncode == 130 and log.ends[0].status == "interrupted" and "--resume" in output
        assert "Traceback" not in output
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [Path(log.trials and nb.load(tmp_path).log.paths[0]).name]


def test_an_interrupted_run_is_resumed(tmp_path):
    run = nb.run("padded_counters", profile="quick", processes=2, settings={"stride": [8, 1024], "spacing": 0}, output=tmp_path)
    path = Path(run.log.paths[0])
    lines = path.read_bytes().splitlines(keepends=True)
    cut = [line for line in lines if json.loads(line)["record"] != "end"][:-1]
    path.write_bytes(b"".join(cut))
    done = subprocess.run(
        [sys.executable, "-m", "numabench", "run", "--resume", str(path)], capture_output=True, text=True, check=True
    )
    log = nb.load(path).log
    assert sorted(t.process for t in log.trials) == [0, 1] and len({t.run for t in log.trials}) == 1, done.stdout
    assert log.ends and "Run log" in done.stdout


def test_the_api_returns_tidy_samples(tmp_path):
    run = nb.run(
        "padded_counters",
        profile="quick",
        processes=2,
        samples=2,
        window=0.002,
        output=tmp_path,
        settings={"stride": [8, 1024], "spacing": [0], "operation": "increment"},
    )
    frame = run.samples()
    assert list(frame.columns[:10]) == [
        "run",
        "machine",
        "benchmark",
        "metric",
        "unit",
        "session",
        "process",
        "sample",
        "value",
        "valid",
    ]
    assert {"operation", "stride", "spacing", "threads", "placement"} <= set(frame.columns)
    assert set(frame.metric) == {"time_per_operation", "throughput", "fairness"} and (frame.value > 0).all()
    assert set(frame.process) == {0, 1} and set(frame["sample"]) == {0, 1}
    assert run.end.cells["total"] == len(run.log.trials[0].samples) // 2
