"""Published core-to-core matrices: read, refused in one line, and reported like a run of one's own."""

from __future__ import annotations

import random

import numpy as np
import pytest
from click.testing import CliRunner
from pages import numabench
from test_core_to_core import MATRICES, known

import numabench as nb
from numabench.cli.import_ import command
from numabench.errors import LogError
from numabench.report import tables
from numabench.runlog.matrix import read_matrix


def write(path, rows) -> str:
    path.write_text("\n".join(",".join("" if value is None else str(value) for value in row) for row in rows) + "\n")
    return str(path)


def two_groups(count: int, seed: int = 1) -> tuple[list[list[float | None]], np.ndarray]:
    """A lower triangle of 30 ns inside each of two groups in random order and 100 ns between; and who is in which."""
    rng = random.Random(seed)
    owner = rng.sample([0, 1] * (count // 2), count)
    rows = [
        [None if b >= a else (30.0 if owner[a] == owner[b] else 100.0) * rng.uniform(0.98, 1.02) for b in range(count)]
        for a in range(count)
    ]
    return rows, np.array(owner)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Num cores: 2\nround trips\n", "line 1, column 1: 'Num' is no latency"),
        ("1,2,3\n4,5,6\n", "no square matrix: 2 lines of 3 columns"),
        ("1,2\n4\n", "no square matrix: 2 lines of 1 or 2 columns"),
        (",\n-3,\n", "line 2, column 1: '-3'"),
        (",\nnan,\n", "no figure above 0"),
        (",,\n10,,\n,12,\n", "no figure for CPUs 0 and 2"),
        ("0,0\n0,0\n", "no figure above 0"),
        ("7,0\n0,7\n", "no figure above 0"),
        ("", "no square matrix: 0 lines"),
        ("5\n", "no square matrix: 1 lines of 1 columns"),
    ],
)
def test_what_is_no_matrix_is_said_with_its_place(tmp_path, text, said):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(LogError, match=said.replace("(", r"\(")):
        read_matrix(path)
    done = numabench("import", path, "-o", tmp_path / "out")
    assert done.returncode == LogError.exit_code and done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_matrix_becomes_a_run_log_that_is_reported(tmp_path):
    rows, owner = two_groups(12)
    source = write(tmp_path / "toy.csv", rows)
    done = numabench("import", source, "-o", tmp_path / "out", "--alias", "toy")
    assert done.returncode == 0 and "66 latencies between 12 CPUs" in done.stdout, done.stderr
    run = nb.load(tmp_path / "out" / "toy" / "toy.jsonl")
    estimates = run.estimates()
    assert len(estimates) == 66 and estimates["value"].notna().all()
    (answer,) = run.answers().itertuples()
    assert answer.value == 1 and "2 groups of up to 6 CPUs: 30" in answer.text
    view = run.log.benchmarks[0].views[0]
    assert [owner[cpu] for cpu in view.both] == [owner[view.both[0]]] * 6 + [1 - owner[view.both[0]]] * 6
    assert view.borders == (view.both[6],)
    page = numabench("report", tmp_path / "out" / "toy", "-o", tmp_path / "page.html")
    assert page.returncode == 0, page.stderr
    said = (tmp_path / "page.html").read_text()
    assert "Heat map of 12 by 12 cells" in said
    assert "Where the figures are from" in said and "Published figures come without intervals" in said
    assert "reached the target" not in said and "processes per cell" not in said  # nothing was asked of it
    again = numabench("import", source, "-o", tmp_path / "out", "--alias", "toy")
    assert again.returncode == 2 and "is there already" in again.stderr


def test_both_directions_and_zeros(tmp_path):
    rows = [[None, 20, 50, 0], [22, None, 52, 54], [50, 52, None, 20], [54, 50, 0, None]]
    done = CliRunner().invoke(command, [write(tmp_path / "full.csv", rows), "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "12 latencies between 4 CPUs" in done.output and "2 of them are 0" in done.output
    samples = nb.load(tmp_path / "full" / "full.jsonl").samples()
    assert samples["value"].min() == 10.0 and len(samples) == 12


def test_an_alias_is_a_name_and_no_path(tmp_path):
    rows, _ = two_groups(4)
    done = numabench("import", write(tmp_path / "toy.csv", rows), "-o", tmp_path / "out", "--alias", "../../x")
    assert done.returncode == 0 and (tmp_path / "out" / "x" / "toy.jsonl").exists(), done.stderr


def test_directions_that_differ_are_said_and_kept(tmp_path):
    rows = [[None, 20, 50], [25, None, 52], [50, 52, None]]
    done = numabench("import", write(tmp_path / "both.csv", rows), "-o", tmp_path)
    assert "up to 25% apart (CPUs 1 and 0: 25 and 20 ns)" in done.stdout and "keeps both" in done.stdout
    assert {20.0, 25.0} < set(nb.load(tmp_path / "both").samples()["value"])
    once = numabench("import", write(tmp_path / "once.csv", [[None, 20], [20, None]]), "-o", tmp_path)
    assert "apart" not in once.stdout


def test_two_cpus_have_a_latency_and_no_groups(tmp_path):
    numabench("import", write(tmp_path / "two.csv", [[None, None], [55, None]]), "-o", tmp_path)
    (answer,) = nb.load(tmp_path / "two").answers().itertuples()
    assert answer.kind == "cell" and round(answer.value, 9) == 55 and answer.text.startswith("Between CPUs 1 and 0, the only two")


def test_levels_are_counted_and_not_measured(tmp_path):
    rows, _ = two_groups(40)
    numabench("import", write(tmp_path / "toy.csv", rows), "-o", tmp_path)
    (answer,) = nb.load(tmp_path / "toy").answers().itertuples()
    assert answer.value == 1 and "1 level" in answer.text
    short, shown = (numabench("report", tmp_path / "toy", *more).stdout for more in ((), ("--all",)))
    assert "inside 2 groups of up to 20 CPUs" in short and "██│" not in short and len(short.splitlines()) < 24
    assert "CPUs in the order of measured groups" in shown and "██│" in shown and "[██] to" in shown
    page = (tmp_path / "toy" / "report.html").read_text()
    assert "Latencies by relation: measured groups, level 1: 380 measured" in page and "between groups: 400 measured" in page


def test_a_page_lists_no_more_rows_than_a_browser_shows(tmp_path, monkeypatch):
    rows, _ = two_groups(12)
    numabench("import", write(tmp_path / "toy.csv", rows), "-o", tmp_path)
    run = nb.load(tmp_path / "toy")
    monkeypatch.setattr(tables, "MOST", 50)
    table = tables.estimate_table(run.estimates(), run.log.benchmarks[0], "latency")
    assert len(table.rows) == 50 and "The first 50 of 66 rows; all of them: numabench export." in table.note


@pytest.mark.skipif(not known(), reason=f"no published matrices in {MATRICES}")
def test_the_largest_published_matrix_keeps_its_structure(tmp_path):
    done = CliRunner().invoke(command, [str(MATRICES / "amd-epyc7742-2s-256.csv"), "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (answer,) = nb.load(tmp_path / "amd-epyc7742-2s-256").answers().itertuples()
    assert answer.value == 2 and "32 groups of up to 8 CPUs" in answer.text
    text = CliRunner().invoke(command, [str(MATRICES / "bad-ppc970-text.csv"), "-o", str(tmp_path)])
    assert isinstance(text.exception, LogError)
