"""Containers and odd kernels: the check names the cause, and a run measures all the same. Real filters, real processes."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import environments
import pytest
from synthetic_sysfs import SyntheticTree

from numabench.errors import MachineError
from numabench.host import calls, memory, trials
from numabench.host.memory import BIND, FIRST_TOUCH, ONE_NODE, Placing
from numabench.host.topology import read_topology
from numabench.measure import ready
from numabench.runlog.read import load

ONE = len(read_topology().memory_nodes()) < 2
HAS_NUMA = Path("/sys/devices/system/node/node0").exists()
one_memory = pytest.mark.skipif(not ONE, reason="several nodes have memory here")


def inside(folder: Path, names: list[str], *command: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, environments.__file__, *names, "--", sys.executable, "-m", "numabench", *command],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"ENVIRONMENT_FOLDER": str(folder), "COLUMNS": "300"},
    )
    assert done.returncode in codes, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def checked(folder: Path, names: list[str]) -> dict[str, dict]:
    """By its name each finding; the exit code is 3 where this machine is too busy as well."""
    findings = json.loads(inside(folder, names, "check", "--format", "json", codes=(0, 3)).stdout)["findings"]
    return {each["check"]: each for each in findings}


@pytest.mark.parametrize(
    ("names", "check", "words", "fix"),
    [
        (
            ["docker"],
            "calls",
            "mbind, set_mempolicy, get_mempolicy, move_pages refused",
            '"move_pages"], "action": "SCMP_ACT_ALLOW"',
        ),
        (["podman"], "calls", "Function not implemented", "--security-opt seccomp="),
        (["kubernetes"], "calls", "Operation not permitted", "seccompProfile of type Localhost"),
        (["sys_nice"], "calls", "move_pages refused", '{"names": ["move_pages"]'),
        (["no_binding"], "calls", "mbind, set_mempolicy, get_mempolicy refused", "--cap-add SYS_NICE; or"),
        (["no_numa_maps"], "reading", "/proc/self/numa_maps", "recorded as unknown"),
        (["no_smaps", "no_statistics"], "reading", "/proc/stat", "recorded as unknown"),
        (["no_nodes"], "topology", "no NUMA nodes", ""),
        (["locked"], "reading", "/proc/meminfo", "recorded as unknown"),
    ],
)
@one_memory
def test_the_check_names_the_cause_and_what_helps_there(tmp_path, names, check, words, fix):
    finding = checked(tmp_path, names)[check]
    assert words in finding["found"] and fix in finding["fix"] and finding["severity"] == "note"
    if check == "calls":
        alone = "SYS_NICE" in finding["fix"]
        assert alone == (names == ["no_binding"])  # moby's profile allows move_pages with no capability


@pytest.mark.parametrize(
    "names",
    [
        ["docker"],
        ["podman"],
        ["kubernetes"],
        ["sys_nice"],
        ["no_binding"],
        ["bare_path"],
        ["no_nodes"],
        ["no_nodes", "podman"],
        ["no_numa_maps"],
        ["no_numa_maps", "docker"],
        ["no_smaps", "no_statistics"],
        ["locked"],
        ["odd"],
        ["wsl1"],
    ],
    ids="+".join,
)
@one_memory
def test_a_run_measures_in_each_environment(tmp_path, names):
    settings = ("--set", "size=64k,32M", "--set", "order=group", "--set", "page_size=4k,thp")
    inside(
        tmp_path,
        names,
        "run",
        "memory_latency",
        *settings,
        "--processes",
        "1",
        "--window",
        "1ms",
        "--budget",
        "60s",
        "-o",
        str(tmp_path),
    )
    (path,) = tmp_path.rglob("*.jsonl")
    samples = [sample for trial in load(path).trials for sample in trial.samples]
    assert len(samples) >= 4 and not [t.reasons for t in load(path).trials if t.status == "failed"]
    assert not [r for s in samples for r in s.reasons if r.startswith(("pages", "check", "cpu_moved"))]
    ways = {sample.memory.by for sample in samples}
    if "no_numa_maps" in names:
        assert ways == ({"one_node"} if "docker" in names else {"move_pages"})
    elif {"docker", "podman", "kubernetes", "sys_nice"} & {*names}:
        assert ways == {"numa_maps"}
    else:
        assert ways == {"move_pages", "numa_maps"}  # few pages are asked for, of many the kernel's count is read
    for sample in samples:
        least = sample.memory.bytes // sample.memory.page_bytes
        assert sum(sample.memory.pages.values()) >= least and set(sample.memory.pages) == {"0"}
        asked = sample.memory.page_size == "thp" or sample.memory.bytes >= 2 << 20
        assert (sample.memory.huge_bytes is None) == (bool({"no_smaps", "locked", "odd"} & {*names}) and asked)
    log = load(path)
    warnings = log.headers[0].machine["warnings"]
    assert len([each for each in warnings if "/proc/stat" in each]) == bool({"no_statistics", "locked"} & {*names})
    assert all(("steal" in trial.interference) != bool({"no_statistics", "locked", "odd"} & {*names}) for trial in log.trials)


def test_without_pinning_nothing_is_measured_and_the_check_knows_why(tmp_path):
    finding = checked(tmp_path, ["no_pinning"])["pinning"]
    assert finding["severity"] == "fatal" and "sched_setaffinity" in finding["fix"]
    done = inside(tmp_path, ["no_pinning"], "run", "padded_counters", "--processes", "1", "-o", str(tmp_path), codes=(3,))
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "may not choose its CPUs" in line and "numabench check" in line


# -- how memory gets to its node -----------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    return read_topology(str(SyntheticTree(tmp_path, packages=2, nodes=2, cores=2).root))


@pytest.mark.parametrize(
    ("refused", "how"),
    [
        ((), BIND),
        (("move_pages",), BIND),
        (("set_mempolicy", "get_mempolicy"), BIND),
        (calls.NAMES, FIRST_TOUCH),
        (("mbind",), FIRST_TOUCH),
    ],
)
def test_several_nodes_are_bound_to_or_touched_first(monkeypatch, machine, refused, how):
    monkeypatch.setattr(trials, "refused_calls", lambda node: dict.fromkeys(refused, errno.EPERM))
    placing = trials.find_placing(machine)
    assert placing.how == how and placing.refused == refused
    if how == FIRST_TOUCH:
        assert {machine.node_of(cpu): cpu for cpu in placing.touchers.values()} == placing.touchers
        assert set(placing.touchers) == set(machine.memory_nodes())


def test_several_nodes_of_which_nothing_tells_are_refused(monkeypatch, machine):
    monkeypatch.setattr(trials, "refused_calls", lambda node: dict.fromkeys(calls.NAMES, errno.EPERM))
    monkeypatch.setattr(trials, "readable", lambda path: False)
    with pytest.raises(MachineError, match="neither may memory be bound nor may be asked where it is"):
        trials.find_placing(machine)


def test_one_node_needs_no_call(monkeypatch, tmp_path):
    monkeypatch.setattr(trials, "refused_calls", lambda *node: dict.fromkeys(calls.NAMES, errno.ENOSYS))
    assert trials.find_placing(read_topology(str(SyntheticTree(tmp_path, cores=2).root))).how == ONE_NODE


def test_a_kernel_without_numa_has_no_remedy(monkeypatch):
    monkeypatch.setattr(trials, "filtered", lambda: False)
    assert "CONFIG_NUMA" in trials.remedy(dict.fromkeys(calls.NAMES, errno.ENOSYS))


@pytest.mark.skipif(not HAS_NUMA, reason="no node to touch")
def test_memory_is_touched_first_by_a_thread_of_its_node(monkeypatch):
    """Every second range is a mapping of its own, which numa_maps counts by itself."""
    touched = []
    real = memory.touch_from
    cpu = min(os.sched_getaffinity(0))
    monkeypatch.setattr(memory, "touch_from", lambda cpu, address, size: touched.append((cpu, size)) or real(cpu, address, size))
    monkeypatch.setattr(memory, "_placing", Placing(how=FIRST_TOUCH, touchers={0: cpu, 1: cpu}))
    monkeypatch.setattr(memory, "FEW_PAGES", 0)
    monkeypatch.setattr(memory.calls, "mbind", lambda *_: pytest.fail("nothing may be bound"))
    buffer = memory.Buffer(8 << 20, "4k", 0, parts=(0, 0, 1, 0))
    try:
        assert touched == [(cpu, 4 << 20), (cpu, 2 << 20), (cpu, 2 << 20)]
        whole, parts = buffer.prove(), buffer.prove_parts()
        assert whole.by == "numa_maps" and whole.misplaced == 512 and whole.pages == {"0": 2048}  # node 1 is not there
        assert [part.misplaced for part in parts] == [0, 0, 512, 0] and all(part.pages == {"0": 512} for part in parts)
    finally:
        buffer.close()


# -- why nothing was measured -----------------------------------------------------------------------------------------


def test_a_remedy_is_one_that_helps(monkeypatch):
    from numabench.host.findings import Finding

    said = "crashed: exit code 1: numabench.errors.MachineError: cannot load x. To mend it: rm x"
    assert ready.why_nothing(said) == ("cannot load x.", "rm x")
    monkeypatch.setattr(ready, "check_all", lambda: [Finding("calls", "note", "no mbind", "why", "unused")])
    cause, mend = ready.why_nothing("crashed: killed by SIGSYS")
    assert cause == "crashed: killed by SIGSYS" and "finds no cause" in mend
    monkeypatch.setattr(ready, "check_all", lambda: [Finding("pinning", "fatal", "no CPU", "why", "allow it")])
    assert ready.why_nothing("crashed") == ("crashed; here is no CPU: why", "allow it")


def test_a_cache_without_execution_has_its_remedy(monkeypatch, tmp_path):
    from numabench import kernel as abi

    def refuse(path):
        raise OSError(f"{path}: failed to map segment from shared object")

    built = abi.build("sentinel")
    monkeypatch.setattr(abi.c, "CDLL", refuse)
    monkeypatch.setattr(abi, "build", lambda name: built)
    finding = ready.kernels()
    assert finding.severity == "fatal" and "XDG_CACHE_HOME" in finding.fix


NOEXEC = """
mount -t tmpfs -o noexec,mode=700 none "$1" || exit 77
export XDG_CACHE_HOME="$1"; shift
"$@" check --format json; "$@" run fences --processes 1 --samples 1 --window 1ms -q -o "$RESULTS" 1>&2
"""


def on_noexec(tmp_path, *names: str) -> tuple[dict[str, dict], subprocess.CompletedProcess]:
    """The findings, and the run, of numabench whose cache is on a file system without execution."""
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare, by which one's own file systems are mounted")
    (tmp_path / "cache").mkdir()
    program = [sys.executable, environments.__file__, *names, "--", sys.executable, "-m", "numabench"]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", NOEXEC, "sh", str(tmp_path / "cache"), *program],
        capture_output=True, text=True, timeout=300, env=os.environ | {"ENVIRONMENT_FOLDER": str(tmp_path), "RESULTS": str(tmp_path / "results")},
    )  # fmt: skip
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no file system of its own: {done.stderr.strip()}")
    return {each["check"]: each for each in json.loads(done.stdout)["findings"]}, done


def test_a_cache_without_execution_holds_what_is_loaded_from_memory(tmp_path):
    found, done = on_noexec(tmp_path)
    assert found["kernels"]["severity"] == "ok" and done.returncode == 0, done.stderr
    assert [*tmp_path.glob("results/*/*.jsonl")]


def test_where_memory_holds_no_programs_either_the_cache_is_named(tmp_path):
    found, done = on_noexec(tmp_path, "no_memory_files")
    kernels, said = found["kernels"], done.stderr
    assert kernels["severity"] == "fatal" and "mounted without noexec" in kernels["fix"] and "XDG_CACHE_HOME" in kernels["fix"]
    assert done.returncode == 3 and "XDG_CACHE_HOME" in said and "Traceback" not in said and said.count("\n") == 1


# -- first contact ----------------------------------------------------------------------------------------------------------


def test_a_checkout_that_is_not_installed_measures_with_its_own_worker(tmp_path):
    """Beside another numabench that may be installed. The copy's worker gives itself away."""
    root = Path(__file__).parent.parent
    for part in ("numabench", "kernels"):
        shutil.copytree(root / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    worker = tmp_path / "numabench" / "measure" / "worker.py"
    worker.write_text(worker.read_text().replace("def main() -> None:\n", "def main() -> None:\n    sys.exit('own worker')\n"))
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "numabench", "run", "fences", "--processes", "1", "-o", "out", "-q"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 3 and "own worker" in done.stderr


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (None, 0, "No such file or directory"),
        ("#!/bin/sh\n", 0o644, "Permission denied"),
        ("no program", 0o755, "Exec format error"),
        ("#!/bin/sh\necho torn out >&2; exit 7\n", 0o755, "exit code 7: torn out"),
        ("", None, "sys.executable is empty"),
    ],
)
def test_a_python_that_does_not_start_is_found_before_anything_is_measured(tmp_path, monkeypatch, text, mode, why):
    program = tmp_path / "Jane's python"
    if text is not None:
        program.write_text(text)
        program.chmod(mode or 0o644)
    monkeypatch.setattr(sys, "executable", "" if mode is None else str(program))
    found = ready.processes()
    assert found.severity == "fatal" and why in found.found and "python3 -m numabench" in found.fix
    assert mode is None or shlex.quote(str(program)) in found.fix


def test_a_python_that_starts_is_left_when_it_has():
    before = len(os.listdir("/proc/self/fd"))
    assert ready.processes().severity == "ok" and len(os.listdir("/proc/self/fd")) == before
