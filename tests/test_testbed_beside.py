"""Machines beside each other, and what a change touches, without a boot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from numabench import list_benchmarks
from testbed.beside import beside
from testbed.certify import Certification, Forecast
from testbed.defects import CHECKOUT
from testbed.errors import GuestError
from testbed.judgement import Finding
from testbed.known import NAMES
from testbed.known import known as known_of
from testbed.machine import load_machine, shipped
from testbed.page import page_lines
from testbed.touched import APART, changed_since, imported, touching, uses

PATIENCE = 60.0  # s: a process is slow to start beside others


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


# -- work, in processes of their own: (what it is to do, where) --------------------------------------------------------------


def work(subject, step, done):
    what, folder = subject
    step(f"{what}: measuring")
    (folder / what).touch()
    if what in ("a", "b"):  # each waits for the other
        wait_for(folder / ("b" if what == "a" else "a"))
    if what == "broken":
        raise GuestError("it did not boot", "again")
    if what == "dead":
        os._exit(3)
    if what.startswith("long"):
        try:
            time.sleep(PATIENCE)
        finally:
            (folder / f"{what}-ended").touch()
    done()
    return [f"found on {what}", os.getpid()]


def test_two_run_beside_each_other_in_processes_of_their_own(tmp_path):
    told = []
    jobs = list(
        beside(work, [("a", tmp_path), ("b", tmp_path)], 2, lambda running: told.extend((job.step, job.boots) for job in running))
    )
    assert sorted(job.result[0] for job in jobs) == ["found on a", "found on b"]
    assert len({job.result[1] for job in jobs} | {os.getpid()}) == 3 and all(job.boots == 1 for job in jobs)
    assert ("a: measuring", 0) in told


def test_what_fails_is_named_and_the_others_go_on(tmp_path):
    jobs = list(beside(work, [(what, tmp_path) for what in ("broken", "dead", "c")], 1, lambda running: None))
    results = {job.subject[0]: job.result for job in jobs}
    assert list(results) == ["broken", "dead", "c"]  # in their order
    assert results["broken"] == "it did not boot. Try: again" and results["dead"] == "its process ended with exit code 3"
    assert results["c"][0] == "found on c"


def test_all_that_run_clean_up_when_it_is_left_early(tmp_path):
    def interrupt(running):
        if all((tmp_path / what).exists() for what in ("long-1", "long-2")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(beside(work, [("long-1", tmp_path), ("long-2", tmp_path)], 2, interrupt))
    assert all((tmp_path / f"{what}-ended").exists() for what in ("long-1", "long-2"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_reaches_them_once_and_they_die_with_their_parent(tmp_path, how):
    code = (
        "from pathlib import Path; from test_testbed_beside import work; from testbed.beside import beside; from testbed.cli import fail\n"
        f"if __name__ == '__main__':\n    list(beside(work, [('long', Path({str(tmp_path)!r}))], 1, lambda running: None))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "tests")])}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "long")
    (child,) = (
        int(pid)
        for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does: to all of them
        parent.wait(PATIENCE)
        assert (tmp_path / "long-ended").exists()
    else:
        parent.kill()
        parent.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while Path(f"/proc/{child}").exists() and time.monotonic() < end:
            time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


# -- a certification -------------------------------------------------------------------------------------------------------


def figure(machine: str) -> Finding:
    return Finding(machine, "node latency", "0 to 0", 90.0, 91.0, 1.8, unit="ns")


@pytest.fixture
def visited(monkeypatch):
    """The machines that were visited; each takes no time and gives one finding."""
    made = []

    def at_once(work, subjects, jobs, tell):
        for subject in subjects:
            made.append(subject.name)
            tell([SimpleNamespace(subject=subject, step=f"{subject.name}: measuring", seconds=1.0, boots=0)])
            yield SimpleNamespace(subject=subject, result=[figure(subject.name)], seconds=1.0)

    monkeypatch.setattr("testbed.certify.beside", at_once)
    return made


def certified(machines, tmp_path=None, jobs=1, **words) -> tuple[Certification, str]:
    certification = Certification([load_machine(name) for name in machines], CHECKOUT, False, tmp_path, **words)
    certification.versions = {}
    console = Console(record=True, width=200, file=StringIO())
    certification.run(console, jobs)
    return certification, console.export_text()


def test_it_says_how_long_it_will_take_and_begins_with_what_takes_longest(visited, tmp_path):
    found, said = certified(["cxl", "sixty-four"], tmp_path, jobs=2)
    assert visited == ["sixty-four", "cxl"] and found.green and "2 boots, 2 machines beside each other: about 3 min" in said
    certified(["cxl"], tmp_path / "other")
    (tmp_path / "cxl.json").write_text((tmp_path / "cxl.json").read_text().replace('"seconds": 1.0', '"seconds": 1200.0'))
    assert found.expected_seconds(load_machine("cxl")) == 1200.0  # what it took the last time


def test_what_is_left_goes_by_what_has_ended():
    forecast = Forecast({"a": 100.0, "b": 100.0, "c": 300.0}, jobs=2)

    def job(name, seconds):
        return SimpleNamespace(subject=SimpleNamespace(name=name), seconds=seconds)

    assert forecast.left() == 250.0 and forecast.left([job("c", 50.0)]) == 225.0
    forecast.ended(job("a", 200.0))  # twice as long as expected
    assert forecast.left([job("c", 100.0)]) == (2 * 400 - 100) / 2
    forecast.ended(job("b", 200.0))
    assert forecast.left([job("c", 700.0)]) == 0.0  # one alone, later than expected


@pytest.fixture
def changes(monkeypatch):
    """Commit -> the files that have changed since."""
    since: dict[str, set[str]] = {}
    monkeypatch.setattr("testbed.certify.changed_since", lambda tree, commit: since.get(commit))
    monkeypatch.setattr("testbed.certify.commit", lambda tree: "0123")
    return since


def test_parts_are_taken_where_nothing_that_touches_them_has_changed(visited, changes, tmp_path):
    certified(["cxl", "smt"], tmp_path)
    changes["0123"] = {"testbed/machines/smt.toml", "docs/testbed.md", "kernels/fences.c"}
    found, _ = certified(["cxl", "smt"], tmp_path)
    assert visited == ["cxl", "smt", "smt"] and found.green and len(found.findings) == 2 and found.seconds == 2.0
    changes["0123"] = {"kernels/memory_latency.c"}
    certified(["cxl", "smt"], tmp_path)
    assert visited[3:] == ["cxl", "smt"]
    del changes["0123"]  # git does not know the commit any more
    certified(["cxl"], tmp_path)
    assert visited[5:] == ["cxl"]


def test_since_leaves_out_what_no_change_touches_and_says_so(visited, changes):
    changes["main"] = {"testbed/machines/smt.toml"}
    found, said = certified(["cxl", "smt"], since="main")
    assert (
        visited == ["smt"]
        and found.untouched == ["cxl"]
        and found.green
        and "nothing that touches it has changed since main" in said
    )
    assert "left out, since no change touches them: cxl" in found.summary()
    page = "\n".join(page_lines(found, None))
    assert "Not certified here: nothing that touches it has changed since main." in page and "Certified at commit 0123." in page
    changes["main"] = set()
    found, _ = certified(["cxl", "smt"], since="main")
    assert found.green and found.summary() == "Nothing was certified; left out, since no change touches them: cxl, smt"


# -- what a change touches -------------------------------------------------------------------------------------------------


def touched(*files: str) -> set[str]:
    every = [*map(load_machine, shipped()), *map(known_of, NAMES)]
    return {machine.name for machine in every if touching(machine, files, CHECKOUT)}


ALL = {*shipped(), *NAMES}
SAID = {*shipped(), "fleet", "contracts", "bandwidth", "stores", "threads", "defects"}


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("README.md", set()),
        ("docs/benchmarks/node_latency.md", set()),
        ("numabench/report/page.py", set()),
        ("kernels/memory_latency.c", ALL - {"contracts", "stores", "threads"}),
        ("kernels/system_calls.c", {"contracts"}),
        ("kernels/crew.c", ALL),
        ("kernels/nb_chase.h", ALL),
        (
            "numabench/benchmarks/memory_latency.py",
            ALL - {"stores", "threads"},
        ),  # node_latency is made of it, and so is fork_and_write
        ("numabench/benchmarks/padded_counters.py", {*shipped(), "stores", "threads"}),
        ("numabench/benchmarks/_ends.py", {"contracts"}),
        ("numabench/benchmarks/__init__.py", ALL),
        ("numabench/measure/worker.py", ALL),
        ("testbed/machines/cxl.toml", {"cxl"}),
        ("testbed/machines/two-socket.toml", {"two-socket", "fleet", "contracts", "defects"}),
        ("testbed/known/fleet.py", {"fleet"}),
        ("testbed/known/bandwidth.py", {"bandwidth", "defects"}),
        ("testbed/known/bandwidth.toml", {"bandwidth", "defects"}),
        ("testbed/known/__init__.py", ALL),
        ("testbed/judgement.py", ALL),
        ("testbed/simulator/order.c", ALL),
        ("something/new.txt", ALL),
    ],
)
def test_what_a_file_touches(file, names):
    assert touched(file) & SAID == names & SAID


@pytest.mark.parametrize("name", NAMES)
def test_what_is_measured_is_among_what_is_used(name):
    words = set(re.findall(r"""["']([a-z_]+)["']""", (CHECKOUT / "testbed" / "known" / f"{name}.py").read_text()))
    named = uses(known_of(name))
    assert named is None or words & set(list_benchmarks()) <= set(named)


def test_whoever_does_not_say_what_it_uses_is_touched_by_all_but_what_touches_none():
    silent = SimpleNamespace(name="silent")
    assert touching(silent, ["kernels/fences.c", "testbed/machines/cxl.toml", "README.md"], CHECKOUT) == [
        "kernels/fences.c",
        "testbed/machines/cxl.toml",
    ]


def test_what_touches_none_is_not_imported_where_it_is_measured_and_judged():
    modules = ", ".join(["testbed.visits", "testbed.judgement", "testbed.guest", *(f"testbed.known.{name}" for name in NAMES)])
    measuring = "numabench.cli.run, numabench.cli.machine, numabench.measure.worker, numabench.measure.visit"
    for names in (modules, measuring):
        code = f"import sys, {names}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        files = [module.replace(".", "/") for module in done.stdout.split()]
        assert not [file for file in files if f"{file}.py".startswith(APART) or f"{file}/".startswith(APART)]


def test_modules_that_import_each_other_are_one(tmp_path):
    for name, text in {"a": "from .b import x", "b": "from . import c", "c": "", "d": ""}.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert imported(tmp_path, "a") == {"a", "b", "c"} and imported(tmp_path, "d") == {"d"}


def test_git_says_what_has_changed_committed_or_not(tmp_path):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for name in ("kept", "changed", "moved"):
        (tmp_path / name).write_text(name)
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "moved").rename(tmp_path / "there")
    git("add", "-A")
    git("commit", "-m", "second")
    (tmp_path / "changed").write_text("otherwise")
    (tmp_path / "new").write_text("")
    assert changed_since(tmp_path, "HEAD~1") == {"moved", "there", "changed", "new"}
    assert changed_since(tmp_path, "HEAD") == {"changed", "new"} and changed_since(tmp_path, "no-such") is None
