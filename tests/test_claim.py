"""Two runs at once: who has a CPU is named, and nobody has one who has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from numabench.cli.run import command
from numabench.errors import MachineError
from numabench.host import claim
from numabench.host.claim import claimed

HOLD = "from numabench.host.claim import claimed; import sys, time\nwith claimed(map(int, sys.argv[2:])), open(sys.argv[1], 'w'): print(flush=True); time.sleep(600)"


@pytest.fixture
def holding(tmp_path, monkeypatch):
    """Starts another process that has these CPUs and writes a log."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    started = []

    def hold(*cpus: int) -> subprocess.Popen:
        child = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "other.jsonl"), *map(str, cpus)], stdout=subprocess.PIPE
        )
        started.append(child)
        assert child.stdout.readline()
        return child

    yield hold
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_second_run_is_told_who_has_its_cpus(holding, tmp_path):
    other = holding(0, 1, 2, 7, 300)
    for wanted, named in (((2, 3), "CPU 2"), ((0, 1, 5), "CPUs 0-1"), (range(6, 400), "CPU 7"), ((300,), "CPU 300")):
        with pytest.raises(MachineError) as caught, claimed(wanted):
            pass
        said = str(caught.value)
        assert f"another run measures on {named}: process {other.pid}, begun " in said
        assert f"writes {tmp_path / 'other.jsonl'}" in said and f"(kill {other.pid})" in said and "--cpus" in said
    with claimed((3, 4, 5, 6, 301)):
        pass


def test_a_claim_ends_with_its_process_however_that_ends(holding):
    other = holding(0)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with claimed((0,)):
        pass
    with claimed((0,)):  # and with its block
        pass


def test_since_when_is_a_moment_of_the_clock(holding):
    before = time.time()
    began = claim.holder(holding(0).pid).split("begun ")[1].split(",")[0]
    assert abs(time.mktime(time.strptime(began, "%Y-%m-%d %H:%M:%S")) - before) < 60
    assert claim.holder(0) == "a process that cannot be seen from here" and claim.holder(1 << 22) == f"process {1 << 22}"


def test_nobody_claims_what_a_link_leads_to(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with claimed((0,)):
        pass
    [file] = (tmp_path / "cache" / "numabench" / "runs").iterdir()
    file.unlink()
    file.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), claimed((0,)):
        pass
    assert not (tmp_path / "precious").exists()


def test_without_locks_it_is_measured_all_the_same(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fcntl, "lockf", refuse)
    with claimed((0,)):
        pass


def test_a_run_on_cpus_of_another_ends_with_3_and_leaves_nothing(holding, tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    holding(cpus[-1])
    ask = [sys.executable, "-m", "numabench", "run", "memory_latency", "--set", "size=16k", "--processes", "1", "--window", "1ms"]
    done = subprocess.run([*ask, "-q", "-o", str(tmp_path / "results")], capture_output=True, text=True)
    assert done.returncode == 3 and f"another run measures on CPU {cpus[-1]}" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()
    assert CliRunner().invoke(command, ["memory_latency", "--plan-only"]).exit_code == 0
