"""One run from boot to clean-up with a stand-in for QEMU, so that it takes a second: what comes back, what is stopped when, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed import guest, packages
from testbed.errors import GuestError
from testbed.guest import NOTHING, run
from testbed.machine import load_machine
from testbed.own_time import LOOK, OwnTime

STAND_IN = f"""#!{sys.executable}
import os, re, sys, time
shared = next(re.search("path=([^,]*)", word)[1] for word in sys.argv if word.startswith("local,id=out"))
console = next(word.split("path=")[1] for word in sys.argv if word.startswith("file,id=console"))
leave = lambda name, text: open(f"{{shared}}/.testbed-{{name}}", "w").write(text)
open(console, "w").write("Kernel panic - not syncing: sysrq")
"""
BOOTED = "leave('started', '')\n"


@pytest.fixture
def boot(tmp_path, monkeypatch):
    """A folder of tools whose QEMU is a program of Python that knows `shared`, `console` and `leave(name, text)`."""
    programs, tools = packages.folder() / "programs", tmp_path / "tools"  # the simulator is compiled once
    programs.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv(packages.FOLDER_VARIABLE, str(tools))
    made = {name: tools / "root" / name for name in ("usr/bin/qemu-system-x86_64", "boot/vmlinuz-1", "bin/busybox")}
    for path in (*made.values(), *(tools / f"root/lib/{module}.ko" for module in packages.NEEDED)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tools / "programs").symlink_to(programs)
    (tools / "versions").write_text("kernel 1\n")
    qemu = made["usr/bin/qemu-system-x86_64"]

    def program(text: str) -> Path:
        qemu.write_text(STAND_IN + text)
        qemu.chmod(0o755)
        return tools

    return program


def left_behind(tools: Path) -> list[str]:
    processes = subprocess.run(["pgrep", "-f", str(tools / "root/usr/bin/qemu")], capture_output=True, text=True, check=False)
    return [*processes.stdout.split(), *(path.name for path in (tools / "runs").glob("*"))]


def plainly(shared: Path, **words):
    return run(load_machine("two-socket"), "true", shared=shared, timed=NOTHING, **words)


def test_what_the_command_printed_wrote_and_ended_with_comes_back(boot, tmp_path):
    tools = boot(BOOTED + "leave('stdout', 'out é'); leave('stderr', 'err'); open(f'{shared}/file', 'w'); leave('status', '7')")
    pieces = []
    found = plainly(tmp_path / "shared", output=lambda *piece: pieces.append(piece))
    assert (found.status, found.stdout, found.stderr) == (7, "out é", "err")
    assert pieces == [("stdout", "out é"), ("stderr", "err")]
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["file"] and left_behind(tools) == []


def test_a_command_that_takes_too_long_is_stopped_and_its_last_words_are_said(boot, tmp_path):
    tools = boot(BOOTED + "leave('stdout', 'first\\nwaiting'); time.sleep(100)")
    for words in ({"wall": True}, {}):
        with pytest.raises(GuestError, match="did not end within 2 s; its last line: waiting") as error:
            plainly(tmp_path / "shared", timeout=2.0, **words)
        assert error.value.exit_code == 124 and left_behind(tools) == []


def test_a_guest_that_does_not_boot_is_stopped_and_its_console_shown(boot, tmp_path, monkeypatch):
    tools = boot("time.sleep(100)")
    monkeypatch.setattr(guest, "BOOT_TIMEOUT", 1.5)
    with pytest.raises(GuestError, match="did not boot within 2 s of its own") as error:
        plainly(tmp_path / "shared")
    assert "Kernel panic" in error.value.console and left_behind(tools) == []


@pytest.mark.parametrize(("begins", "said"), [(BOOTED, "while the command ran"), ("", "before the command began")])
def test_a_guest_that_goes_down_is_an_error(boot, tmp_path, begins, said):
    tools = boot(begins + "time.sleep(0.3)")
    with pytest.raises(GuestError, match=f"went down {said}") as error:
        plainly(tmp_path / "shared")
    assert "Kernel panic" in error.value.console and left_behind(tools) == []


def test_qemu_that_crashes_is_started_once_more(boot, tmp_path):
    once = tmp_path / "once"
    tools = boot(
        BOOTED
        + f"new = not os.path.exists({str(once)!r}); open({str(once)!r}, 'w')\nif new: os.kill(os.getpid(), 11)\nleave('status', '0')"
    )
    assert plainly(tmp_path / "shared").status == 0 and left_behind(tools) == []
    boot("os.kill(os.getpid(), 11)")
    with pytest.raises(GuestError, match="exit code -11"):
        plainly(tmp_path / "shared")
    assert left_behind(tools) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_however_it_ends(boot, how):
    tools = boot(BOOTED + "leave('stdout', 'started\\n'); time.sleep(100)")
    words = [sys.executable, "-m", "testbed", "run", "--machine", "two-socket", "--plain", "--", "true"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    process.send_signal(how)
    errors = process.communicate(timeout=60)[1]
    if how == signal.SIGKILL:  # QEMU dies with its parent; the next run sweeps its files away
        time.sleep(0.5)
        assert not [name for name in left_behind(tools) if name.isdigit()]
        boot(BOOTED + "leave('status', '0')")
        assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    else:
        assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    assert left_behind(tools) == []


# -- patience: (thread: seconds that it ran, and that it waited for a CPU) at each look ------------------------------------


@pytest.mark.parametrize(
    ("threads", "cpus", "counted"),
    [
        ({1: (0.0, 0.0)}, 2, 10.0),  # it slept
        ({1: (10.0, 0.0)}, 2, 10.0),  # it had a CPU to itself
        ({1: (2.0, 8.0)}, 2, 2.0),  # it had a fifth of one
        ({1: (1.0, 0.0), 2: (0.5, 4.5)}, 2, 2.5),  # a quarter of what it could have used
        ({1: (5.0, 5.0), 2: (5.0, 5.0), 3: (5.0, 5.0), 4: (5.0, 5.0)}, 2, 10.0),  # both CPUs: its threads waited for each other
        ({}, 2, 10.0),  # Linux does not say
    ],
)
def test_time_counts_as_far_as_a_guest_could_run(threads, cpus, counted):
    now, seen = (
        [100.0],
        [dict.fromkeys(threads, (50.0, 60.0)), {t: (50 + ran, 60 + waited) for t, (ran, waited) in threads.items()}],
    )
    own = OwnTime(1, cpus, lambda: now[0], lambda process: seen[len(seen) > 1 and now[0] > 100.0])
    now[0] += LOOK / 2
    assert own.passed() == 0.0
    now[0] = 110.0
    assert own.passed() == pytest.approx(counted)


def test_linux_says_how_long_threads_ran():
    own = OwnTime(os.getpid())
    assert own.seen and all(ran >= 0 and waited >= 0 for ran, waited in own.seen.values())
