"""What makes a sample invalid, reason by reason, and a worker that has lost its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import msgspec
import pytest
from test_measure import execute, job, workers_of

from numabench import kernel as abi
from numabench.benchmarks import Found, Probes, find
from numabench.benchmarks.memory_latency import VISITED_SLOT
from numabench.measure.crew import Entry
from numabench.measure.protocol import JobCase, Timing, Took, encode
from numabench.measure.worker import Worker, memory_reasons, probe_reasons, waited
from numabench.model import MemoryProof, ThreadProof

FINE = {"cpu": 1, "cpu_begin": 1, "cpu_end": 1, "begin": 0.0, "end": 0.01, "operations": 100}
CALM = Probes(frequency=3e9, hop=27e-9, width=4.5)


def reasons(may_sleep: bool = False, judges_gaps: bool = True, judges_delay: bool = True, **changes) -> list[str]:
    judges = {"judges_gaps": judges_gaps, "judges_delay": judges_delay, "judges_overlap": True}
    worker = SimpleNamespace(benchmark=SimpleNamespace(may_sleep=may_sleep, **judges))
    return Worker.thread_reasons(worker, (ThreadProof(**FINE), ThreadProof(**FINE | changes)))


def test_a_thread_that_nothing_disturbed_has_no_reason():
    assert reasons() == []
    assert reasons(switches=1, run_delay=0.00005) == []  # a switch that cost half a per cent does no harm


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cpu_begin": 0}, "cpu_moved"),
        ({"cpu_end": 0}, "cpu_moved"),
        ({"run_delay": 0.0002}, "run_delay"),
        ({"gap_time": 0.0003}, "gaps"),
    ],
)
def test_each_disturbance_has_its_reason(changes, reason):
    assert reasons(**changes) == [reason]


def test_where_threads_sleep_by_design_waiting_is_judged_leniently():
    assert reasons(may_sleep=True, judges_gaps=False, run_delay=0.0002, gap_time=0.005) == []
    assert reasons(may_sleep=True, judges_gaps=False, run_delay=0.001) == ["run_delay"]


def test_where_outcomes_are_counted_waiting_is_not_judged():
    assert reasons(judges_delay=False, run_delay=0.009) == []


def test_a_wait_that_the_kernel_does_not_tell_of_is_unknown_and_no_zero():
    assert (
        waited(SimpleNamespace(schedstat=-1, run_delay_ns=0)) is None
        and waited(SimpleNamespace(schedstat=3, run_delay_ns=0)) == 0.0
    )
    assert reasons(run_delay=None) == []
    assert msgspec.json.decode(msgspec.json.encode(ThreadProof(**FINE, run_delay=None)), type=ThreadProof).run_delay is None


def proof(node: int | None, **pages: int) -> MemoryProof:
    elsewhere = sum(count for where, count in pages.items() if where != str(node))
    return MemoryProof(bytes=8192, page_size="4k", node=node, pages=pages, misplaced=elsewhere, huge_bytes=0, page_bytes=4096)


def test_one_page_elsewhere_is_a_reason():
    assert memory_reasons(proof(1, **{"1": 2}), proof(None)) == []
    assert memory_reasons(proof(1, **{"1": 1, "0": 1})) == ["pages"]
    assert memory_reasons(proof(1, **{"1": 2}), proof(1, **{"0": 1})) == ["pages"]
    assert memory_reasons(proof(1)) == ["pages"]


def test_huge_pages_that_nobody_asked_for_are_a_reason_and_those_that_were_not_given_are_none():
    grown = msgspec.structs.replace(proof(1, **{"1": 2}), huge_bytes=8192)
    assert memory_reasons(grown) == memory_reasons(proof(1, **{"1": 2}), grown) == ["pages"]
    assert memory_reasons(msgspec.structs.replace(grown, huge_bytes=None)) == []
    wished = msgspec.structs.replace(grown, page_size="thp")
    assert memory_reasons(wished) == memory_reasons(msgspec.structs.replace(wished, huge_bytes=0)) == []


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (CALM, []),
        (Probes(frequency=3.06e9, hop=29e-9, width=4.0), []),
        (Probes(frequency=3.2e9, hop=27e-9, width=4.5), ["frequency_changed"]),
        (Probes(frequency=3e9, hop=107e-9, width=4.5), ["distance_changed"]),
        (Probes(frequency=3e9, hop=27e-9, width=2.5), ["distance_changed"]),
    ],
)
def test_what_changed_around_a_sample_is_a_reason(after, expected):
    assert probe_reasons(CALM, after) == expected == probe_reasons(after, CALM)
    assert probe_reasons(CALM, after, clock=False, distance=False) == []


def test_a_worker_whose_parent_is_gone_stops():
    code = "from numabench.host.placement import die_with_parent; die_with_parent(1 << 30); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and "still here" not in done.stdout


def test_a_worker_in_the_middle_of_a_long_window_dies_with_its_parent(tmp_path):
    """Without the kernel's help it would measure on for half a minute."""
    command = [sys.executable, "-m", "numabench", "run", "memory_latency", "--set", "size=16k", "--set", "order=group"]
    parent = subprocess.Popen(
        [*command, "--set", "page_size=4k", "--window", "10s", "--processes", "1", "--budget", "10m", "-o", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"RUN_OF_A_TEST": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while not workers_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = workers_of(tmp_path)
    assert workers
    time.sleep(0.5)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{w}") for w in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [w for w in workers if os.path.exists(f"/proc/{w}")]


def test_a_quantile_beyond_the_end_of_its_histogram_is_left_out_and_said():
    """60 of 1,000 blocks took over 512 usual ones: the slowest twentieth is longer than any bin."""
    worker = Worker.__new__(Worker)
    worker.benchmark, worker.kernel, worker.measured = find("loaded_latency"), abi.Kernel(abi.build("loaded_latency").target), 0.0
    threads = [
        abi.ThreadBlock(end_ns=25_000_000, operations=1000, check=1000, executed=1000, cpu_begin=k, cpu_end=k) for k in (0, 1)
    ]
    for slot, value in ((abi.BATCH_SLOT, 100), (abi.USUAL_SLOT, 10_000), (abi.MEAN_PS_SLOT, 10_000_000), (VISITED_SLOT, 64)):
        threads[0].value[slot] = value
    threads[0].histogram[abi.FINE_BINS], threads[0].histogram[abi.BINS - 1] = 940, 60
    parameters = {"rate": "4", "mix": "1:0", "size": 1 << 20}
    case = JobCase(
        case="c", parameters=parameters, cpus=(0, 1), groups=(0, 0), node=None, size=1 << 21, scratch=0, page_size="4k", seed=1
    )
    entries, around = [Entry(status=0, switches=0, faults=0)] * 2, Probes(frequency=3e9, hop=3e-8, width=4.0)
    sample = worker.judge(case, 0, {}, Found(threads), entries, (proof(None), proof(None)), around, around)
    assert "clipped" in sample.reasons and not sample.valid
    assert set(sample.metrics) == {"latency", "latency_p50", "load"}
    assert json.loads(encode(Took(sample=sample)))
    threads[0].histogram[abi.BINS - 1], threads[0].histogram[abi.BINS - 2] = 0, 60
    sample = worker.judge(case, 0, {}, Found(threads), entries, (proof(None), proof(None)), around, around)
    assert "clipped" not in sample.reasons and sample.metrics["latency_p99"] > 40_000


GROWING = """
import sys
from numabench.benchmarks.padded_counters import BENCHMARK
from numabench.measure import worker
attempt, run, seen = worker.Worker.attempt, worker.Worker.run, []

def attempt_and_look(self, case):
    attempt(self, case)
    seen.append(sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(("RssAnon", "VmPTE"))))

def run_and_tell(self):
    run(self)
    raise SystemExit(f"{seen[29]} {seen[-1]}")  # the failure's last line

worker.Worker.attempt, worker.Worker.run = attempt_and_look, run_and_tell
"""


@pytest.mark.parametrize("failing", [False, True])
def test_the_memory_of_a_worker_does_not_grow_with_its_cases(failing, tmp_path, monkeypatch):
    """Nothing collects garbage in a worker: a cycle per case would stay, as would a mapping that nobody closes. In kB after 30 and after 130 cases."""
    work = job("padded_counters", {"operation": "store", "stride": 8, "spacing": 0})
    case = work.cases[0]
    cases = [msgspec.structs.replace(case, case=f"c{k}", cpus=(1 << 15,) if failing and k % 2 else case.cpus) for k in range(130)]
    work = msgspec.structs.replace(work, cases=tuple(cases), timing=Timing(window=0.0002, warmup=0.0, samples=2))
    (tmp_path / "growing.py").write_text(GROWING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    outcome = execute(msgspec.structs.replace(work, benchmark="growing"), 300)
    early, late = map(int, outcome.failure.rpartition(": ")[2].split())
    assert len(outcome.failed_cases) == (65 if failing else 0) and early > 1000
    assert late - early < 500  # 5 kB a case; threads in Python took 32 to 40
