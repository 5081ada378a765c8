"""Matrices of two machines compared by the place of their CPUs, or by relation, whatever their numbers."""

from __future__ import annotations

import itertools
import json

import msgspec
import numpy as np
import pytest
from pages import numabench
from synthetic_sysfs import SyntheticTree
from test_import import two_groups, write

from numabench.analysis.align import aligned
from numabench.analysis.compare import compare
from numabench.analysis.places import declared_arrangement, measured_arrangement
from numabench.benchmarks import find
from numabench.host.topology import read_topology, to_json_dict
from numabench.model import BenchmarkRecord, EndRecord, Header, Metric, Sample, TrialRecord, case_hash
from numabench.runlog.matrix import read_matrix
from numabench.runlog.read import RunLog, load
from numabench.runlog.write import Journal

BENCHMARK = find("core_to_core")
LATENCY = {"smt": 9.0, "l3": 25.0, "node": 80.0, "package": 90.0, "cross_package": 200.0}
SIBLINGS_APART = None  # 0-7 on the first threads, 8-15 on the second: the tree's own numbers
SIBLINGS_BESIDE = [2 * core + thread for thread in range(2) for core in range(8)]
BACKWARDS = list(range(15, -1, -1))


def topology_of(path, numbers=None, **shape):
    shape = {"packages": 2, "l3s": 2, "cores": 2, "smt": 2} | shape
    return read_topology(str(SyntheticTree(path, numbers=numbers, **shape).root))


def log_of(topology, machine: str, factor: float = 1.0, processes: int = 6) -> RunLog:
    """A run in which a pair takes what its places say: all pairs of the tree's k-th CPUs take as long, whatever these are called."""
    first = topology.cpus_in_place()
    kth = {cpu: first.index(min(core)) for core in topology.cores for cpu in core}  # siblings alike
    points = [dict(zip(s, v, strict=True)) for s in BENCHMARK.sweep(topology, "standard") for v in itertools.product(*s.values())]

    def latency(p: dict, process: int) -> float:
        a, b = sorted((kth[p["cpu_a"]], kth[p["cpu_b"]]))
        return factor * LATENCY[topology.relation(p["cpu_a"], p["cpu_b"])] * (1 + 0.02 * a + 0.001 * b) * (1 + 0.0005 * process)

    trials = tuple(
        TrialRecord(
            run=machine,
            session=machine,
            benchmark="core_to_core",
            block="core_to_core/0",
            process=process,
            started="2026-01-01T00:00:00Z",
            duration=1.0,
            startup=0.0,
            status="ok",
            samples=tuple(
                Sample(
                    case=case_hash("core_to_core", p), index=0, parameters=p, metrics={"latency": latency(p, process)}, valid=True
                )
                for p in points
            ),
        )
        for process in range(processes)
    )
    record = BenchmarkRecord(
        run=machine,
        name="core_to_core",
        title=BENCHMARK.title,
        question=BENCHMARK.question,
        axes=BENCHMARK.axes,
        metrics=(Metric(name="latency", unit="ns", polarity="lower"),),
        method=BENCHMARK.method,
        views=BENCHMARK.figures(topology, points),
        cases=len(points),
    )
    facts = {"id": machine, "alias": machine, "topology": to_json_dict(topology)}
    header = Header(
        schema=1,
        run=machine,
        session=machine,
        started="2026-01-01T00:00:00Z",
        numabench="0",
        machine=facts,
        plan={},
        arguments={},
    )
    end = EndRecord(run=machine, session=machine, ended="2026-01-01T00:00:00Z", status="complete", measured=1.0, elapsed=1.0)
    return RunLog(paths=(), headers=(header,), benchmarks=(record,), trials=trials, ends=(end,))


@pytest.mark.parametrize("numbers", [SIBLINGS_BESIDE, BACKWARDS])
def test_renumbered_machines_are_the_same_place_by_place(tmp_path, numbers):
    base = log_of(topology_of(tmp_path / "a"), "base")
    new = log_of(topology_of(tmp_path / "b", numbers), "new")
    found = compare(base, new)
    assert set(found.cells["verdict"]) == {"same"} and len(found.cells) == len(base.trials[0].samples)
    assert found.cells["ratio"].to_numpy() == pytest.approx(1.0)
    assert len(found.notes) == 1 and "by place" in found.notes[0] and " is where " in found.notes[0]


def test_a_pair_is_one_pair_whichever_cpu_came_first(tmp_path):
    base, new = (log_of(topology_of(tmp_path / name, numbers), name) for name, numbers in (("a", None), ("b", SIBLINGS_BESIDE)))
    node = {cpu: cpu // 8 for cpu in range(16)}  # siblings beside each other: the first eight are on one node

    def flipped(sample: Sample) -> Sample:
        p = sample.parameters
        p = {**p, "cpu_a": p["cpu_b"], "cpu_b": p["cpu_a"]} if node[p["cpu_a"]] == node[p["cpu_b"]] else p
        return msgspec.structs.replace(sample, parameters=p, case=case_hash("core_to_core", p))

    trials = tuple(msgspec.structs.replace(t, samples=tuple(map(flipped, t.samples))) for t in new.trials)
    found = compare(base, msgspec.structs.replace(new, trials=trials))
    assert set(found.cells["verdict"]) == {"same"} and len(found.cells) == len(base.trials[0].samples)


def test_a_slower_machine_is_slower_at_every_place(tmp_path):
    base, new = (
        log_of(topology_of(tmp_path / name, numbers), name, factor)
        for name, numbers, factor in (("a", None, 1.0), ("b", SIBLINGS_BESIDE, 1.2))
    )
    found = compare(base, new)
    assert set(found.cells["verdict"]) == {"slower"} and found.cells["ratio"].to_numpy() == pytest.approx(1.2)


def test_equal_numbers_are_left_alone(tmp_path):
    base, new = (log_of(topology_of(tmp_path / name), name) for name in ("a", "b"))
    assert aligned(base, new) == (base, new, ())


def test_other_shapes_are_compared_by_relation(tmp_path):
    base = log_of(topology_of(tmp_path / "a"), "base")
    new = log_of(topology_of(tmp_path / "b", l3s=4), "new")
    found = compare(base, new)
    assert "by relation and not CPU by CPU" in found.notes[0] and "2 nodes, 4 L3 groups, 8 cores, 16 CPUs" in found.notes[0]
    relations = ["same core", "same L3", "same node", "between packages"]
    assert sorted(found.cells["relation"]) == sorted(relations) and not found.refused
    assert set(found.cells["verdict"]) <= {"same", "slower", "faster"}  # every relation is there on both sides


def test_relations_are_those_that_the_machine_declares(tmp_path):
    one = topology_of(tmp_path / "one", packages=1, l3s=1, cores=4, smt=1)
    arranged = declared_arrangement(to_json_dict(one), one.allowed_cpus)
    assert arranged.relations == ("same L3",)
    two = topology_of(tmp_path / "two")
    arranged, cpus = declared_arrangement(to_json_dict(two), two.allowed_cpus), two.allowed_cpus
    names = {"smt": "same core", "l3": "same L3", "node": "same node", "cross_package": "between packages"}
    index = arranged.relation_indices(cpus)
    for (i, a), (j, b) in itertools.permutations(enumerate(cpus), 2):
        assert arranged.relations[index[i, j]] == names[two.relation(a, b)]


def test_a_matrix_without_structure_is_one_relation():
    flat = np.where(np.eye(4, dtype=bool), np.nan, 50.0)
    assert measured_arrangement(flat, (0, 1, 2, 3)).relations == ("all pairs",)


# -- published matrices ------------------------------------------------------------------------------------------------------


def renumbered(rows, seed: int):
    full = np.array([[np.nan if v is None else v for v in row] for row in rows])
    full = np.where(np.isfinite(full), full, full.T)
    order = np.random.default_rng(seed).permutation(len(rows))
    return [[None if a == b else float(full[a, b]) for b in order] for a in order]


def test_a_renumbered_published_matrix_shows_no_difference(tmp_path):
    rows, _ = two_groups(40)
    for name, matrix in (("one", rows), ("other", renumbered(rows, 5))):
        done = numabench("import", write(tmp_path / f"{name}.csv", matrix), "-o", tmp_path)
        assert done.returncode == 0, done.stderr
    done = numabench("compare", tmp_path / "one", tmp_path / "other", "--format", "json")
    found = json.loads(done.stdout)
    assert {cell["relation"]: cell["verdict"] for cell in found["cells"]} == {
        "measured groups, level 1": "same",
        "between groups": "same",
    }
    assert done.returncode == 0 and "one figure for each pair" in found["notes"][0]
    page = numabench("compare", tmp_path / "one", tmp_path / "other", "-o", tmp_path / "page.html")
    assert page.returncode == 0 and "one figure for each pair" in (tmp_path / "page.html").read_text(), page.stderr


def test_a_published_matrix_is_compared_with_a_measured_one(tmp_path):
    topology = topology_of(tmp_path / "tree", SIBLINGS_BESIDE)
    own, cpus = log_of(topology, "own"), topology.cpus_in_place()
    rows = [[None if a == b else LATENCY[topology.relation(a, b)] for b in cpus] for a in cpus]
    assert numabench("import", write(tmp_path / "table.csv", rows), "-o", tmp_path).returncode == 0
    assert len(read_matrix(tmp_path / "table.csv")) == 16
    found = compare(own, load(tmp_path / "table"))
    assert not found.refused and "table is a published matrix" in found.notes[0]
    levels = [*(f"measured groups, level {n}" for n in (1, 2, 3)), "between groups"]
    assert sorted(found.cells["relation"]) == sorted(levels)
    assert "incomparable" not in set(found.cells["verdict"])


def test_a_log_with_renumbered_cpus_compares_on_the_command_line(tmp_path):
    for name, numbers in (("a", None), ("b", SIBLINGS_BESIDE)):
        log = log_of(topology_of(tmp_path / f"tree-{name}", numbers), name)
        with Journal(tmp_path / f"{name}.jsonl") as journal:
            for record in (*log.headers, *log.benchmarks, *log.trials, *log.ends):
                journal.append(record)
    done = numabench("compare", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert done.returncode == 0 and "compared by place" in done.stdout and "b and a are equal" in done.stdout, done.stdout
