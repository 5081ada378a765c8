"""`numabench export`: exactly tidy columns, three formats, helpful errors."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import msgspec
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pages import numabench, write_log
from synthetic import make_log, node_bandwidth, node_latency
from synthetic_sysfs import SyntheticTree

from numabench.analysis.hwloc import bitmap, memory_attributes
from numabench.analysis.weights import interleave_weights, weight_commands
from numabench.cli.export import command
from numabench.errors import MachineError, UsageError
from numabench.host.topology import read_topology, to_json_dict
from numabench.runlog.export import COLUMNS, DETAILS, write_table

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


# -- memory attributes for hwloc ----------------------------------------------------------------------------------------


@pytest.fixture
def four_nodes(tmp_path):
    """A log of both node matrices on a machine of two packages with two nodes each."""
    tree = SyntheticTree(tmp_path / "tree", packages=2, nodes=2, l3s=1, cores=2, smt=2)
    topology = to_json_dict(read_topology(str(tree.root)))
    return make_log(benchmarks=(node_latency, node_bandwidth), sd=(0.0, 0.0, 0.0), machine={"topology": topology})


def test_memory_attributes_hold_what_was_measured(four_nodes):
    root = ElementTree.fromstring(memory_attributes(four_nodes))
    nodes = {e.get("gp_index"): e for e in root.iter("object") if e.get("type") == "NUMANode"}
    assert sorted(int(e.get("os_index")) for e in nodes.values()) == [0, 1, 2, 3]
    assert len([e for e in root.iter("object") if e.get("type") == "PU"]) == 16
    attributes = {e.get("name"): e for e in root.iter("memattr")}
    assert {name: e.get("flags") for name, e in attributes.items()} == {
        "Bandwidth": "5",
        "ReadBandwidth": "5",
        "WriteBandwidth": "5",
        "Latency": "6",
        "ReadLatency": "6",
    }
    for name, local, remote in (("Latency", 95, 150), ("ReadBandwidth", 44151, 27962)):
        values = list(attributes[name])
        assert len(values) == 16
        for value in values:
            node = nodes[value.get("target_obj_gp_index")]
            wanted = local if node.get("cpuset") == value.get("initiator_cpuset") else remote
            assert int(value.get("value")) == pytest.approx(wanted, abs=1)


@pytest.mark.parametrize("absent", ["packages", "cpus", "cores", "caches"])
def test_what_a_log_does_not_say_is_left_out_of_a_topology(four_nodes, absent):
    machine = four_nodes.headers[0].machine
    topology = {name: part for name, part in machine["topology"].items() if name != absent}
    header = msgspec.structs.replace(four_nodes.headers[0], machine=machine | {"topology": topology})
    root = ElementTree.fromstring(memory_attributes(msgspec.structs.replace(four_nodes, headers=(header,))))
    assert len([e for e in root.iter("object") if e.get("type") == "NUMANode"]) == 4 and len(list(root.iter("memattr"))) == 5


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), "0x00000000"),
        ((0, 1), "0x00000003"),
        ((31, 32), "0x00000001,0x80000000"),
        ((64,), "0x00000001,0x00000000,0x00000000"),
    ],
)
def test_bitmaps_are_hwloc_s(numbers, text):
    assert bitmap(numbers) == text


def test_hwloc_itself_reads_the_attributes(four_nodes, tmp_path):
    lstopo = shutil.which("lstopo-no-graphics") or shutil.which("lstopo")
    if lstopo is None:
        pytest.skip("hwloc is missing: apt-get install hwloc-nox")
    path = tmp_path / "machine.xml"
    path.write_text(memory_attributes(four_nodes))
    shown = subprocess.run([lstopo, "--input", str(path), "--memattrs"], capture_output=True, text=True, check=True)
    assert "ReadLatency" in shown.stdout and "= 150" in shown.stdout and "= 95" in shown.stdout and not shown.stderr


def test_weights_are_in_proportion_and_small():
    assert interleave_weights({(0, 0): 100.0, (0, 1): 50.0}) == ({0: 2, 1: 1}, 0.0)
    assert interleave_weights({(0, 0): 100.0, (1, 0): 40.0, (0, 1): 30.0, (1, 1): 99.0})[0] == {0: 1, 1: 1}
    weights, off = interleave_weights({(0, 0): 200.0, (0, 2): 64.0})
    assert weights == {0: 3, 2: 1} and 0 < off <= 0.05
    weights, off = interleave_weights({(0, 0): 1e12, (0, 1): 1e9})
    assert weights[1] == 1 and weights[0] <= 32 and off > 0.05  # said, not hidden


@given(st.lists(st.floats(1e9, 30e9), min_size=2, max_size=8))
def test_weights_are_within_what_is_said(bandwidths):
    weights, off = interleave_weights({(0, node): value for node, value in enumerate(bandwidths)})
    shares = [weight / sum(weights.values()) for weight in weights.values()]
    wanted = [value / sum(bandwidths) for value in bandwidths]
    assert max(abs(a / b - 1) for a, b in zip(shares, wanted, strict=True)) == pytest.approx(off)
    assert all(1 <= weight <= 32 for weight in weights.values())


def test_the_command_writes_weights_that_a_shell_takes(four_nodes, tmp_path):
    write_log(four_nodes, tmp_path / "run.jsonl")
    done = CliRunner().invoke(command, [str(tmp_path / "run.jsonl"), "--format", "interleave-weights"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("#") and lines[1:] == [
        f"echo 1 > /sys/kernel/mm/mempolicy/weighted_interleave/node{node}" for node in range(4)
    ]
    assert subprocess.run(["sh", "-n"], input=done.output, text=True, check=False).returncode == 0
    one = make_log(benchmarks=(node_latency,))
    with pytest.raises(UsageError, match="no read bandwidth of two memory nodes"):
        weight_commands(one)


def test_several_machines_or_no_matrix_are_one_line(four_nodes):
    with pytest.raises(UsageError, match="no valid matrix between nodes"):
        memory_attributes(msgspec.structs.replace(four_nodes, trials=()))
    with pytest.raises(UsageError, match="hold 2 machines"):
        other = make_log("other", benchmarks=(node_latency,))
        memory_attributes(msgspec.structs.replace(four_nodes, headers=four_nodes.headers + other.headers))


def test_the_command_writes_memory_attributes(four_nodes, tmp_path):
    write_log(four_nodes, tmp_path / "run.jsonl")
    target = tmp_path / "machine.xml"
    done = CliRunner().invoke(command, [str(tmp_path / "run.jsonl"), "--format", "hwloc-memattrs", "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert "memattr_value" in target.read_text()


@pytest.mark.parametrize("numbers", [[10**30, 10**30 + 1], [1, -(10**400)]])
def test_numbers_of_more_than_64_bits_are_words_of_parquet(tmp_path, numbers):
    write_table(pd.DataFrame({"size": pd.Series(numbers, dtype=object)}), "parquet", tmp_path / "x.parquet")
    assert pd.read_parquet(tmp_path / "x.parquet")["size"].tolist() == [str(number) for number in numbers]
