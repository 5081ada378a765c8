"""What a run does before it measures: fatal findings stop it, busy CPUs are named and waited for."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from numabench.cli import readiness
from numabench.cli.console import Terminal
from numabench.errors import MachineError
from numabench.host import health, rivals
from numabench.host.findings import Finding

BUSY = Finding("load", "fatal", "no allowed CPU is free (load 6 on 2 CPUs)", "other work", "stop it")
BROKEN = Finding("compiler", "fatal", "no C compiler", "kernels are compiled here", "sudo apt-get install gcc")
FINE = Finding("load", "ok", "all allowed CPUs are idle (load 0)")


class Machine:
    """Findings one after the other, the last for ever, and a clock that only waiting moves."""

    def __init__(self, monkeypatch, *findings):
        self.findings, self.now, self.asked = list(findings), 0.0, []
        self.text = io.StringIO()
        monkeypatch.setattr(health, "check", self.check)
        monkeypatch.setattr(rivals, "rivals", lambda wait: [("cc1", 0.98), ("python3", 0.6)])

    def check(self, wait, topology):
        return [self.findings.pop(0) if len(self.findings) > 1 else self.findings[0]]

    def sleep(self, seconds):
        self.now += seconds

    def ready(self, patience=None, terminal=False):
        console = Terminal(file=self.text, width=200, force_terminal=terminal)
        readiness.ensure_ready(console, None, patience, self.sleep, lambda: self.now)


def test_a_machine_that_is_free_is_measured_at_once(monkeypatch):
    machine = Machine(monkeypatch, FINE)
    machine.ready()
    assert machine.now == 0 and not machine.text.getvalue()


def test_what_is_fatal_stops_with_its_remedy(monkeypatch):
    with pytest.raises(MachineError, match="no C compiler.*apt-get install gcc.*--anyway") as caught:
        Machine(monkeypatch, BROKEN).ready(patience=600.0)
    assert caught.value.exit_code == 3


def test_busy_cpus_are_named_where_nobody_can_be_asked(monkeypatch):
    with pytest.raises(MachineError, match="cc1 98 %, python3 60 %.*--wait 10m.*--anyway"):
        Machine(monkeypatch, BUSY).ready()


def test_busy_cpus_are_waited_for(monkeypatch):
    machine = Machine(monkeypatch, BUSY, BUSY, BUSY, FINE)
    machine.ready(patience=600.0)
    assert machine.now == 3 * readiness.AGAIN_S and machine.text.getvalue().count("waiting: no allowed CPU is free") == 3


def test_patience_ends(monkeypatch):
    machine = Machine(monkeypatch, BUSY)
    with pytest.raises(MachineError, match="no allowed CPU is free"):
        machine.ready(patience=21.0)
    assert 21 <= machine.now <= 21 + readiness.AGAIN_S


@pytest.mark.parametrize(("key", "waits", "runs"), [("m", False, True), ("w", True, True), ("q", False, False)])
def test_who_sits_at_a_terminal_is_asked(monkeypatch, key, waits, runs):
    machine = Machine(monkeypatch, BUSY, FINE)
    monkeypatch.setattr("sys.stdin", type("Keyboard", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("click.prompt", lambda *_, **__: key)
    if runs:
        machine.ready(terminal=True)
    else:
        with pytest.raises(MachineError):
            machine.ready(terminal=True)
    assert bool(machine.now) == waits and "busiest: cc1 98 %" in machine.text.getvalue()


def test_rivals_are_those_that_used_time(tmp_path: Path):
    def stat(pid: int, name: str, user: int, system: int) -> None:
        (tmp_path / str(pid)).mkdir(exist_ok=True)
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) R {' '.join(['0'] * 10)} {user} {system} 0 0\n")

    for pid, name in ((11, "a (b) c"), (12, "idle"), (13, "cc1")):
        stat(pid, name, 100, 0)
    (tmp_path / "14").mkdir()  # has ended
    (tmp_path / "self").mkdir()

    def later(seconds: float) -> None:
        stat(11, "a (b) c", 100, 10)
        stat(13, "cc1", 140, 5)
        stat(15, "new", 50, 0)

    import os

    share = 1 / os.sysconf("SC_CLK_TCK") / rivals.LOOK_S
    assert rivals.rivals(later, tmp_path) == [("cc1", 45 * share), ("a (b) c", 10 * share)]
    assert rivals.rivals(lambda _: None, tmp_path / "nowhere") == []
