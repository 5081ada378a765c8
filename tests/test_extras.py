"""The light core: what measures does without pandas, scipy and matplotlib, and says what reading takes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from numabench.extras import REPORT

ROOT = Path(__file__).parent.parent
WITHOUT = f"import sys\nfor name in {(*REPORT, 'cpuinfo', 'markupsafe')!r}: sys.modules[name] = None\n"


def core(code: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, cwd=cwd, timeout=300, check=False
    )


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return core(f"from numabench.cli import main; main({list(arguments)!r})", cwd)


@pytest.mark.parametrize("arguments", [["list"], ["list", "fences"], ["machine"], ["run", "--plan-only"], ["man"], ["version"]])
def test_what_needs_no_figures_works_without_what_reads_logs(arguments, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout and not done.stderr


def test_a_run_is_measured_and_says_what_reading_it_takes(tmp_path):
    tiny = ("--samples", "1", "--window", "1ms", "--processes", "1")
    done = command("run", "fences", "--profile", "quick", *tiny, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    log = next(tmp_path.rglob("*.jsonl"))
    assert "pip install 'numabench[report]', then numabench report results/" in done.stdout.replace("\n", " ")
    read = command("report", str(log), cwd=tmp_path)
    assert read.returncode == 3 and read.stderr.count("\n") == 1 and "pip install 'numabench[report]'" in read.stderr


def test_the_api_names_the_extra(tmp_path):
    log = ROOT / "results" / "sample" / "first.jsonl"
    code = (
        f"import numabench as nb\nrun = nb.load({str(log)!r})\n"
        "for ask in (run.samples, run.estimates, run.contrasts, run.answers, lambda: run.plot('fences'), lambda: run.report('x.html'), lambda: nb.compare(run, run)):\n"
        "    try: ask()\n    except nb.MachineError as error: print(error.fix)\n"
    )
    done = core(code, tmp_path)
    assert done.stdout.splitlines() == ["pip install 'numabench[report]'"] * 7, done.stderr


def test_a_wheel_carries_the_kernels_sources(tmp_path):
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    if "No module named 'hatchling'" in done.stderr:
        pytest.skip("hatchling is not installed")
    assert not done.returncode, done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    sources = {f"numabench/kernels/{path.name}" for path in (ROOT / "kernels").iterdir()}
    assert sources <= names and "numabench/py.typed" in names and "numabench/report/templates/page.css" in names


def test_the_citation_is_of_this_version():
    from numabench import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
