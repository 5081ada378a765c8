"""`numabench export`: exactly tidy columns, three formats, helpful errors."""

from __future__ import annotations

import io
import itertools
import json
import sys

import pandas as pd
import pytest
from click.testing import CliRunner
from pages import numabench, write_log
from synthetic import make_log

from numabench.cli.export import command
from numabench.errors import MachineError, UsageError
from numabench.runlog.export import COLUMNS, DETAILS

PARAMETERS = {
    "toy_counters": ["operation", "stride", "spacing", "threads", "placement"],
    "toy_latency": ["size", "order"],
    "toy_nodes": ["cpu_node", "memory_node"],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_log(make_log(processes=2, samples=2, disturbed=0.2), tmp_path_factory.mktemp("logs") / "one.jsonl")


def invoke(*arguments):
    result = CliRunner().invoke(command, [*map(str, arguments)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


def test_columns_are_exactly_tidy(path):
    frame = pd.read_csv(io.StringIO(invoke(path).stdout))
    assert list(frame) == [*COLUMNS, *itertools.chain(*PARAMETERS.values()), *DETAILS]
    assert list(COLUMNS) == ["run", "machine", "benchmark", "metric", "unit", "session", "process", "sample", "value", "valid"]


@pytest.mark.parametrize("benchmark, cells, metrics", [("toy_counters", 24, 2), ("toy_latency", 18, 1), ("toy_nodes", 16, 1)])
def test_one_benchmark_has_only_its_parameters(path, benchmark, cells, metrics):
    frame = pd.read_csv(io.StringIO(invoke(path, "-b", benchmark).stdout))
    assert list(frame) == [*COLUMNS, *PARAMETERS[benchmark], *DETAILS]
    assert len(frame) == cells * metrics * 2 * 2 and set(frame["benchmark"]) == {benchmark}
    assert frame[PARAMETERS[benchmark]].notna().all().all()
    assert not frame.duplicated([*COLUMNS[:8], "case"]).any()  # one row per sample and metric


def test_whole_numbers_stay_whole(path):
    text = invoke(path).stdout
    row = next(line for line in text.splitlines() if ",toy_latency," in line).split(",")
    assert "2048" in row and "2048.0" not in row


def test_disturbed_samples_are_kept_and_marked(path):
    frame = pd.read_csv(io.StringIO(invoke(path, "-b", "toy_nodes").stdout))
    assert set(frame["valid"]) == {True, False} and set(frame.loc[~frame["valid"], "reasons"]) == {"switched"}


def test_json_records(path):
    rows = json.loads(invoke(path, "-b", "toy_nodes", "--format", "json").stdout)
    assert list(rows[0])[:10] == list(COLUMNS) and isinstance(rows[0]["valid"], bool)


def test_parquet_round_trip(path, tmp_path):
    pytest.importorskip("pyarrow")
    target = tmp_path / "all.parquet"
    invoke(path, "--format", "parquet", "-o", target)
    assert len(pd.read_parquet(target)) == len(pd.read_csv(io.StringIO(invoke(path).stdout)))


def test_parquet_without_pyarrow_says_what_to_install(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MachineError, match=r"numabench\[fleet\]"):
        invoke(path, "--format", "parquet", "-o", tmp_path / "x.parquet")


def test_parquet_needs_a_file(path):
    pytest.importorskip("pyarrow")
    with pytest.raises(UsageError, match="--output"):
        invoke(path, "--format", "parquet")


def test_unknown_benchmark_names_the_nearest(path):
    done = numabench("export", path, "-b", "toy_countres")
    assert done.returncode == 2 and "toy_counters" in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    with pytest.raises(UsageError, match="choose one of toy_counters, toy_latency, toy_nodes"):
        invoke(path, "-b", "zzz")


def test_export_as_a_user_types_it(path, tmp_path):
    target = tmp_path / "out.csv"
    done = numabench("export", path.parent, "-o", target)
    assert done.returncode == 0 and not done.stdout and "rows" in done.stderr
    assert list(pd.read_csv(target, nrows=1))[:10] == list(COLUMNS)
    assert numabench("export").returncode == 2
    assert "cannot write" in numabench("export", path, "-o", tmp_path / "no" / "where.csv").stderr


def test_same_text_to_file_and_to_the_console(path, tmp_path):
    invoke(path, "-o", tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == invoke(path).stdout
