"""The command as a user types it: outputs, exit codes, and errors of one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = ("--processes", "2", "--samples", "1", "--window", "1ms")


def numabench(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "numabench", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"COLUMNS": "120"} | environment,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def complaint(done: subprocess.CompletedProcess) -> str:
    """The error: one line."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_help_teaches():
    text = numabench("--help").stdout
    for word in ("run", "report", "compare", "check", "First steps", "Exit codes"):
        assert word in text
    assert "Examples" in numabench("run", "--help").stdout


@pytest.mark.parametrize("verb", ["run", "list", "machine", "check", "report", "compare", "export"])
def test_every_verb_has_help(verb):
    assert "Usage: " in numabench(verb, "--help").stdout


def test_list_shows_all_and_one():
    assert "padded_counters" in numabench("list").stdout
    text = numabench("list", "contention").stdout
    assert "mutex_adaptive" in text and "critical_section" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["runn"], 2, "did you mean run"),
        (["list", "padded_counter"], 2, "did you mean padded_counters"),
        (["run", "memory_latncy"], 2, "did you mean memory_latency"),
        (["run", "--profile", "quik"], 2, "did you mean quick"),
        (["run", "padded_counters", "--set", "strid=8"], 2, "did you mean stride"),
        (["run", "padded_counters", "--set", "operation=stor"], 2, "did you mean store"),
        (["run", "--target", "much"], 2, "write it as 2%"),
        (["run", "memory_latency", "--budget", "10ms"], 2, "is shorter than any process"),
        (["run", "--root", str(ROOT)], 2, "can be planned for, not measured"),
        (["run", "--budget", "long"], 2, "write it as 10ms, 90s or 5m"),
        (["run", "--budget", "1.2.3"], 2, "write it as 10ms, 90s or 5m"),
        (["run", "--window", "."], 2, "write it as 10ms, 90s or 5m"),
        (["run", "memory_latency", "--set", "size=1.2.3k"], 2, "write it as 4096, 4k or 2MiB"),
        (["run", "memory_latency", "--set", f"size={'9' * 400}"], 2, "write it as 4096, 4k or 2MiB"),
        (["run", "--cpus", "4000"], 2, "CPU 4000 cannot be used"),
        (["run", "--cpus", "a-b"], 2, "write it as 0-3,8"),
        (["run", "--no-such-option"], 2, "No such option"),
        (["run", "memory_latency", "--set", "size=64T"], 3, "of memory"),
        (
            ["run", "padded_counters", "--set", "placement=cross_package", "--set", "threads=4000"],
            3,
            "nothing is left to measure",
        ),
        (["run", "--resume", "nowhere.jsonl"], 2, "no such run log"),
        (["report", "nowhere.jsonl"], 2, "no such run log"),
        (["compare", "nowhere.jsonl", "nowhere.jsonl"], 2, "no such run log"),
        (["export", "nowhere.jsonl"], 2, "no such run log"),
        (["report", str(ROOT / "Makefile")], 2, "is not a run log record"),
        (["machine", "--root", "/nonexistent"], 2, "/nonexistent"),
    ],
)
def test_bad_input_is_one_line_with_its_exit_code(arguments, code, words):
    assert words in complaint(numabench(*arguments, code=code))


def test_a_missing_compiler_is_exit_code_3(tmp_path):
    line = complaint(numabench("run", "padded_counters", *TINY, "-o", str(tmp_path), code=3, CC="no-such-cc"))
    assert "no-such-cc" in line and not list(tmp_path.rglob("*.jsonl"))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "--output" in complaint(numabench("run", "padded_counters", *TINY, "-o", str(tmp_path / "file"), code=3))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device. To mend it: make room"),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied. To mend it: check the permissions"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/a',\n '/b']"), "['/a', '/b']. To mend it: set TMPDIR"),
        (OSError("odd"), "odd. To mend it: "),
    ],
)
def test_what_the_system_refuses_is_one_line_with_exit_code_3(monkeypatch, capsys, error, words):
    from numabench import cli

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(cli.command, "main", refuse)
    with pytest.raises(SystemExit) as caught:
        cli.main(["list"])
    said = capsys.readouterr().err
    assert caught.value.code == 3 and words in said and said.count("\n") == 1


def test_debconf_asks_nothing_through_sudo(tmp_path):
    """sudo drops the environment, so the variable is set behind it."""
    stubs(
        tmp_path,
        {
            "id": "echo 1000",
            "sudo": 'while [ "$1" = -n ]; do shift; done\nexec env -u DEBIAN_FRONTEND "$@"',
            "apt-get": f'echo "$DEBIAN_FRONTEND $*" >>{tmp_path}/calls',
        },
    )
    done = system_packages(tmp_path, "cc", CC="false")
    assert "noninteractive install -y -qq --no-install-recommends gcc libc6-dev" in (tmp_path / "calls").read_text()
    assert done.returncode == 3 and "cannot do: cc" in done.stderr  # it was tried again, and not believed


def stubs(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


def system_packages(folder: Path, *words: str, only: bool = False, **environment: str) -> subprocess.CompletedProcess:
    path = str(folder) if only else f"{folder}:{os.environ['PATH']}"
    command = [shutil.which("sh"), str(ROOT / "tools" / "system-packages"), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | {"PATH": path} | environment)


def test_what_a_system_can_do_is_tried_whatever_its_packages_are_called(tmp_path):
    stubs(tmp_path, {"dpkg-query": "exit 1", "apt-get": "exit 1", "apk": "exit 1", "my-cc": f'exec {shutil.which("cc")} "$@"'})
    done = system_packages(tmp_path, "cc", "venv", CC="my-cc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        ("apk", "sudo apk add build-base linux-headers numactl"),
        ("dnf", "sudo dnf install -y gcc glibc-devel kernel-headers numactl"),
        ("zypper", "sudo zypper install -y gcc glibc-devel kernel-headers numactl"),
        ("pacman", "sudo pacman -S --needed gcc linux-api-headers numactl"),
        (None, "Debian's packages are: gcc libc6-dev numactl"),
    ],
)
def test_what_a_system_cannot_do_is_named_with_its_own_command(tmp_path, manager, words):
    stubs(
        tmp_path, {"id": "echo 1000", "mktemp": f"echo {tmp_path}/object", "rm": ":", **({manager: "exit 1"} if manager else {})}
    )
    done = system_packages(tmp_path, "cc", "numactl", only=True)
    assert done.returncode == 3 and "cannot do: cc numactl" in done.stderr and words in done.stderr
    assert system_packages(tmp_path, "--optional", "numactl", only=True).returncode == 0


def test_a_package_that_a_release_does_not_have_takes_no_other_with_it(tmp_path):
    asked = f'echo "$*" >>{tmp_path}/asked; case "$*" in *libclang-rt-dev*) exit 100; esac'
    stubs(
        tmp_path,
        {
            "id": "echo 0",
            "apt-get": asked,
            "clang": "exit 1",
            "mktemp": f"echo {tmp_path}/object",
            "rm": ":",
            "env": 'shift; exec "$@"',
        },
    )
    done = system_packages(tmp_path, "--optional", "clang", "numactl", only=True)
    lines = (tmp_path / "asked").read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines if "install" in line][-3:] == ["clang", "libclang-rt-dev", "numactl"], done
    assert "cannot do: clang numactl" in done.stderr and done.returncode == 0


def test_a_plan_is_printed_and_nothing_measured(tmp_path):
    done = numabench("run", "--plan-only", "-o", str(tmp_path))
    assert "padded_counters" in done.stdout and "Expected time" in done.stdout and not list(tmp_path.iterdir())


def test_run_report_export_compare(tmp_path):
    """The whole path on this machine, with as little measuring as possible."""
    settings = ("--set", "stride=8,1024", "--set", "spacing=0", "--set", "operation=increment")
    for side in ("base", "new"):
        done = numabench(
            "run", "padded_counters", "--profile", "quick", *settings, *TINY, "-o", str(tmp_path / side), "--alias", side
        )
        assert "Run log: " in done.stdout and "Plan" in done.stdout
    log = next((tmp_path / "base" / "base").glob("*.jsonl"))
    shown = numabench("report", str(log), "-o", str(tmp_path / "report.html")).stdout
    assert str(tmp_path / "report.html") in shown.replace("\n", "") and "<html" in (tmp_path / "report.html").read_text()
    rows = numabench("export", str(log), "-b", "padded_counters", "--format", "csv").stdout.splitlines()
    assert rows[0].startswith("run,machine,benchmark,metric,unit,session,process,sample,value,valid,operation,stride,spacing")
    assert len(rows) > 6
    done = subprocess.run(
        [sys.executable, "-m", "numabench", "compare", str(tmp_path / "base"), str(tmp_path / "new")],
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1, 4) and "Traceback" not in done.stderr and "exit code " in done.stdout


def test_precision_can_be_required(tmp_path):
    numabench(
        "run",
        "padded_counters",
        "--profile",
        "quick",
        "--set",
        "stride=1024",
        "--set",
        "spacing=0",
        *TINY,
        "--target",
        "0.0001%",
        "--require-precision",
        "-o",
        str(tmp_path),
        code=5,
    )


def test_make_compare_without_sides_says_how():
    done = subprocess.run(["make", "-s", "compare"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "make compare BASE=" in done.stderr
