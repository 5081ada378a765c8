"""A seeded few of the faults of `make faults`, and what they once found, without the chance of a moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import faults
import pytest

from numabench import kernel as abi
from numabench.api import JUDGE_BYTES, judge
from numabench.cli.run import interruptible
from numabench.errors import MachineError
from numabench.extras import loading
from numabench.host import room
from numabench.host.commands import ask
from numabench.measure import transfer_unit
from numabench.runlog.read import load

RUN = [
    sys.executable,
    "-m",
    "numabench",
    "run",
    "memory_latency",
    "--set",
    "size=16k",
    "--samples",
    "1",
    "--window",
    "1ms",
    "--processes",
    "3",
]
FEW = 8
SLOW = ("all_workers_killed", "killed_while_compiling", "worker_hangs")  # ten seconds each


def test_a_few_faults():
    numbers = [number for number, name in enumerate(faults.plan(500, 1)) if name not in SLOW][:FEW]
    rows = list(faults.inject(500, 1, numbers))
    assert len(rows) == FEW
    assert not [row["detail"] for row in rows if row["faults"]], faults.summary(rows)


def test_each_kind_is_among_them():
    names = faults.plan(500, 1)
    assert len(names) == 500 and set(names) == set(faults.KINDS) and names == faults.plan(500, 1)


def test_whoever_reads_along_may_go(tmp_path):
    """`numabench run | head`: measured to the end all the same."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*RUN, "-o", str(tmp_path)], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    log = load(tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and log.ends[0].status == "complete" and len(log.trials) == 3


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_interrupts_unless_that_is_ignored(tmp_path, ignored):
    """nohup has it ignored."""
    heed = signal.SIG_IGN if ignored else signal.SIG_DFL
    command = [*RUN[:-1], "40", "-o", str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGHUP, heed))
    assert faults.wait_for(lambda: any(faults.trials_in(path.read_bytes()) for path in tmp_path.rglob("*.jsonl")), 60)
    child.send_signal(signal.SIGHUP)
    said = child.communicate(timeout=120)[0]
    assert child.returncode == (0 if ignored else 130), said
    assert load(tmp_path).ends[0].status == ("complete" if ignored else "interrupted")


def test_where_memory_is_limited_the_run_says_what_it_takes(monkeypatch):
    """pandas and scipy hang in a limited address space, or end the process with 1."""
    monkeypatch.setattr(room, "address_room", lambda: JUDGE_BYTES - 1)
    with pytest.raises(MachineError, match="640 MiB. To mend it: ulimit -v unlimited"):
        judge(())
    monkeypatch.setattr(room, "address_room", lambda: JUDGE_BYTES)
    assert judge(())
    monkeypatch.setattr(room, "address_room", lambda: 12345)
    assert room.available_bytes() == 12345


DROPPING = """
import os, signal, sys, time
from numabench.cli.run import interruptible

class Odd:
    def __del__(self):
        os.kill(os.getpid(), number)
        for _ in range(1000):  # the interrupt comes here, where Python drops it
            pass

number = int(sys.argv[1])
with interruptible():
    Odd()
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_interrupt_that_python_drops_comes_again(number):
    as_in_a_terminal = "for each in (signal.SIGHUP, signal.SIGTERM): signal.signal(each, signal.SIG_DFL)"  # whoever starts the tests may ignore them
    code = f"import signal\n{as_in_a_terminal}\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{DROPPING}"
    done = subprocess.run([sys.executable, "-c", code, str(int(number))], capture_output=True, text=True, timeout=50)
    assert "KeyboardInterrupt" in done.stderr and "ignored" not in done.stderr and done.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    "became", [ImportError("initialization failed"), OSError(3, "No such process"), MachineError("no compiler")]
)
def test_what_an_interrupt_became_is_an_interrupt(became):
    """As pybind11 has it while a library is loaded, and what cleans up where that fails as well."""
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise became  # noqa: B904
    with pytest.raises(type(became)), interruptible():
        raise type(became)("without one")


def test_what_a_program_is_asked_can_be_interrupted_when_it_has_just_ended(monkeypatch):
    def interrupted(child, timeout):
        child.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask([sys.executable, "-c", ""], 10)


def test_an_interrupt_waits_for_libraries_that_are_loaded():
    there = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), loading():
        os.kill(os.getpid(), signal.SIGINT)
        there.append(True)
    assert there and signal.getsignal(signal.SIGINT) is before
    thread = threading.Thread(target=lambda: there.append(loading().__enter__()))  # of a program that uses the API
    thread.start()
    thread.join(10)
    assert len(there) == 2


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_a_thread_that_cannot_be_is_waited_for_by_nobody(monkeypatch, error):
    """The first of two would wait for the second for ever, and Python for the first."""
    real, calls = threading.Thread.start, []

    def refuse(thread):
        calls.append(thread)
        if len(calls) == 2:
            raise error
        real(thread)

    kernel = abi.Kernel(abi.build("transfer_unit").target)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises((MachineError, KeyboardInterrupt), match="cannot create a thread.*ulimit -u|^$"):
        transfer_unit.enter(kernel, (0, 0))
    calls[0].join(10)
    assert not calls[0].is_alive()
