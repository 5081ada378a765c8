"""What a contributor meets: the files of a new benchmark, and what is broken in one and must not break the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from numabench import kernel
from numabench.cli import new
from numabench.errors import MachineError, UsageError
from numabench.measure.runner import Progress
from numabench.measure.visit import Request, Visit

ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a benchmark is made of."""
    for name in ("kernels", "numabench", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "tests"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    return tmp_path


def inside(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words], cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)} | environment,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_a_new_benchmark_keeps_to_the_contract_and_measures_something_true(checkout):
    assert inside(checkout, "-m", "numabench", "new", "my_chain").returncode == 0
    assert "| [my_chain](docs/benchmarks/my_chain.md) |" in (checkout / "README.md").read_text()
    done = inside(checkout, "-m", "pytest", "-q", "tests/test_contract.py", "-k", "[my_chain]", CHECKED="my_chain")
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout
    assert "is there already" in inside(checkout, "-m", "numabench", "new", "my_chain").stderr
    text = (checkout / "kernels" / "my_chain.c").read_text()
    (checkout / "kernels" / "my_chain.c").write_text(text.replace("number *= factor", "number += factor"))
    (checkout / "docs" / "benchmarks" / "my_chain.md").unlink()
    first = inside(checkout, "-m", "pytest", "-q", "tests/test_contract.py", "-k", "[my_chain]", CHECKED="my_chain").stdout
    assert "write docs/benchmarks/my_chain.md with" in first and "check:after" in first


@pytest.mark.parametrize("name", ["My", "a-b", "x__y", "../x", ""])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UsageError, match="is no name of a benchmark"):
        new.command.callback(name)


def test_an_installed_copy_gets_no_benchmark(tmp_path, monkeypatch):
    monkeypatch.setattr(new, "__file__", str(tmp_path / "numabench" / "cli" / "new.py"))
    with pytest.raises(UsageError, match="an installed copy"):
        new.command.callback("my_chain")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("x = 1\n", "no attribute"),
        ("1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_broken_module_breaks_no_other(checkout, text, why):
    (checkout / "numabench" / "benchmarks" / "my_chain.py").write_text(text)
    listed = inside(checkout, "-m", "numabench", "list")
    assert listed.returncode == 0 and "padded_counters" in listed.stdout and "my_chain cannot be loaded" in listed.stdout
    one = inside(checkout, "-m", "numabench", "run", "my_chain", "--plan-only")
    assert one.returncode == 2 and why in one.stderr and one.stderr.count("\n") == 1
    every = inside(checkout, "-m", "numabench", "run", "--plan-only", "--profile", "quick")
    assert every.returncode == 0 and "my_chain cannot be loaded" in every.stdout
    assert "my_chain" not in inside(checkout, "-m", "numabench", "run", "fences", "--plan-only").stdout


class Told(Progress):
    def __init__(self):
        self.said = []

    def left_out(self, what):
        self.said.append(what)


def test_a_kernel_that_does_not_compile_takes_no_other_along(monkeypatch):
    real = kernel.build

    def build(name, *rest, **options):
        if name == "fences":
            raise MachineError("cc cannot compile fences.c", "mend it")
        return real(name, *rest, **options)

    monkeypatch.setattr(kernel, "build", build)
    line, told = Visit(Request(benchmarks=("cores",), profile="quick")), Told()
    built = line.compile(type("Line", (), {"bytes": 64}), told)
    assert (
        "contention" in built
        and "fences" not in built
        and told.said == ["fences: cc cannot compile fences.c. To mend it: mend it"]
    )
    assert (
        all(block.benchmark != "fences" for block in line.plan.blocks)
        and "fences: cc cannot compile fences.c" in line.plan.skipped
    )
    with pytest.raises(MachineError, match="cannot compile"):
        Visit(Request(benchmarks=("cores", "fences"), profile="quick")).compile(type("Line", (), {"bytes": 64}), told)


@pytest.mark.parametrize(
    ("source", "fix"),
    [("int nb_run(void) { return x; }\n", "mend that line"), ('#include "no_such_header.h"\n', "apt-get install")],
)
def test_a_mistake_in_a_source_is_not_mended_by_installing_a_compiler(tmp_path, monkeypatch, source, fix):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.c").write_text(source)
    with pytest.raises(MachineError) as caught:
        kernel.build("mine", folder=tmp_path)
    assert fix in caught.value.fix and "mine.c:1" in caught.value.message
