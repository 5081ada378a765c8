"""Pairs of CPUs: rounds of a tournament, what company changes, and the structure of matrices."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_sysfs import SyntheticTree

from numabench.analysis.declared import against_declared, declared_groups
from numabench.analysis.neighbours import levels, partition, symmetric
from numabench.benchmarks import find
from numabench.benchmarks.core_to_core import OPERATIONS, CoreToCore
from numabench.cli.heatmap import draw, fitted
from numabench.host.topology import read_topology, to_json_dict
from numabench.measure.plan import job_cases, make_plan
from numabench.measure.worker import alone
from numabench.units import parse_cpus

SHARED = Path(os.environ.get("NUMABENCH_SHARED", Path(__file__).parent.parent.parent / "shared"))
MATRICES = SHARED / "c2c_matrices"
BENCHMARK: CoreToCore = find("core_to_core")


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Two packages of two L3 groups of two cores with two threads: 16 CPUs on two nodes."""
    tree = SyntheticTree(tmp_path_factory.mktemp("tree"), packages=2, nodes=1, l3s=2, cores=2, smt=2)
    return read_topology(str(tree.root))


def point(a: int, b: int, company: int = 1, operation: str = "cas") -> dict:
    return {"cpu_a": a, "cpu_b": b, "operation": operation, "home": 0, "company": company}


# -- rounds ---------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 40), st.integers(2, 20))
def test_every_two_cpus_meet_once_in_as_few_rounds_as_there_can_be(count, company):
    pairs = list(itertools.combinations(range(count), 2))
    rounds = BENCHMARK.rounds([point(a, b, company) for a, b in pairs])
    played: dict = {}
    for pair, key in zip(pairs, rounds, strict=True):
        played.setdefault(key, []).append(pair)
    for together in played.values():
        cpus = [cpu for pair in together for cpu in pair]
        assert len(set(cpus)) == len(cpus) and len(together) <= company
    if company >= count // 2:
        assert len(played) == count - 1 + count % 2


def test_what_differs_in_more_than_its_cpus_is_not_measured_together():
    cases = [point(0, 1, 2), point(2, 3, 2), point(2, 3, 2, "load_store"), point(3, 2, 2), point(0, 1)]
    first, second, other, reverse, lonely = BENCHMARK.rounds(cases)
    assert len({first, other, reverse}) == 3 and lonely is None and second is not None


def test_a_plan_measures_pairs_of_a_round_in_one_entry(machine):
    plan = make_plan([BENCHMARK], machine)
    (block,) = plan.blocks
    cases = {c.case.hash: c.case.parameters for c in block.cases}
    inside, across = 2 * 8 * 7 // 2, 2 * 8 * 8  # two nodes: between them both ways, for the line's home
    assert plan.cases == len(cases) == inside + across + len(machine.relations())
    jobs = job_cases(block, 0, 1, machine)
    assert sorted(one.case for job in jobs for one, _ in alone(job)) == sorted(cases)
    for job in jobs:
        assert len(set(job.cpus)) == len(job.cpus) and job.size == 4096 * max(1, len(job.company))
        for one, own in alone(job):
            p = cases[one.case]
            assert one.parameters == p and job.cpus[own] == (p["cpu_a"], p["cpu_b"])
        if job.company:
            homes = tuple(machine.node_of(cases[one.case]["cpu_a"]) for one in job.company)
            assert job.parts == homes
    assert block.seconds < 1.0  # 15 rounds each way and a few pairs alone, not 190 pairs one by one


def test_one_cpu_has_no_pair(tmp_path):
    topology = read_topology(str(SyntheticTree(tmp_path, cores=1).root))
    assert make_plan([BENCHMARK, find("memory_latency")], topology, profile="quick").cases > 0
    assert all(not sweep["cpu_b"] for sweep in BENCHMARK.sweep(topology, "standard"))


def test_company_that_disturbs_is_reduced(machine):
    pairs = list(itertools.combinations(range(16), 2))
    calm = [(point(a, b, 8), 50.0) for a, b in pairs] + [(point(0, 1), 50.5)]
    assert BENCHMARK.refine(calm, machine) == []
    loud = [(point(a, b, 8), 60.0) for a, b in pairs] + [(point(0, 1), 50.0)]
    again = BENCHMARK.refine(loud, machine)
    assert len(again) == len(pairs) and {p["company"] for p in again} == {2}
    assert BENCHMARK.refine(loud + [(p, 60.0) for p in again], machine) == []  # no fewer than two at a time


def test_the_matrix_is_that_of_the_least_company(machine):
    cases = [p for sweep in BENCHMARK.sweep(machine, "standard") for p in expand(sweep)]
    (view,) = BENCHMARK.figures(machine, cases)
    assert view.where["company"] == 8 and set(view.both) == set(machine.allowed_cpus)
    assert [machine.node_of(cpu) for cpu in view.both] == [0] * 8 + [1] * 8 and len(view.borders) == 3
    fewer = [{**p, "company": 2} for p in cases if p["company"] == 8]
    assert BENCHMARK.figures(machine, cases + fewer)[0].where["company"] == 2


def expand(sweep: dict) -> list[dict]:
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def test_check_values_and_metrics():
    threads = [
        SimpleNamespace(check=6400, executed=6400, value=[50_000 + 100 * line for line in range(16)]),
        SimpleNamespace(check=6400, executed=6400, value=[50_700, 61_000, 16] + [0] * 13),
    ]
    found = SimpleNamespace(threads=threads)
    assert BENCHMARK.check(point(0, 1), found) == ""
    metrics = BENCHMARK.metrics(point(0, 1), found, None)
    assert metrics == pytest.approx({"latency": 50.75, "latency_p50": 50.7, "latency_p99": 61.0, "line_spread": 1.5})
    threads[1].executed = 6800
    assert "thread 1 made 6800" in BENCHMARK.check(point(0, 1), found)


# -- structure --------------------------------------------------------------------------------------------------------------


def known() -> dict:
    if not MATRICES.is_dir():
        return {}
    structures = json.loads((MATRICES / "structures.json").read_text())
    return {name: facts for name, facts in structures.items() if facts["group"] != "bad"}


def published(name: str, count: int) -> np.ndarray:
    return symmetric(np.genfromtxt(MATRICES / f"{name}.csv", delimiter=",")[:count, :count])


@pytest.mark.skipif(not known(), reason=f"no published matrices in {MATRICES}")
@pytest.mark.parametrize("name", known() or ["none"])
def test_published_matrices_have_the_structure_that_their_machines_have(name):
    facts = known()[name]
    count = facts["n"]
    found = [partition(level.groups) for level in levels(published(name, count), tuple(range(count)))]
    wanted = []
    for level, groups in (("core", "cores"), ("cache_group", "cache_groups"), ("socket", "sockets")):
        if facts["separability_auc"][level] == 1.0:
            groups = partition(parse_cpus(group) for group in facts["structure"][groups])
            wanted += [groups] if groups not in wanted else []
    assert found == wanted


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 1 << 30))
def test_groups_that_were_put_in_are_found_whatever_the_order(groups, size, seed):
    rng = np.random.default_rng(seed)
    count = groups * size
    owner = rng.permutation(np.repeat(np.arange(groups), size))
    matrix = np.where(owner[:, None] == owner[None, :], 30.0, 100.0) * rng.uniform(0.97, 1.03, (count, count))
    (level,) = levels(symmetric(matrix), tuple(range(count)))
    assert partition(level.groups) == {frozenset(np.flatnonzero(owner == group).tolist()) for group in range(groups)}
    assert level.slowest_inside < 31.5 and level.fastest_outside > 96 and level.size == size


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 40), st.floats(0.0, 2.0), st.integers(0, 1 << 30))
def test_a_mesh_without_structure_has_none(count, spread, seed):
    places = np.random.default_rng(seed).permutation(np.linspace(0, 1, count))
    matrix = 40.0 * (1 + spread * np.abs(places[:, None] - places[None, :]))
    assert levels(symmetric(matrix), tuple(range(count))) == []


def test_a_missing_pair_is_said():
    matrix = np.full((4, 4), 50.0)
    matrix[0, 1] = matrix[1, 0] = np.nan
    with pytest.raises(ValueError, match="a pair is missing"):
        levels(symmetric(matrix), (0, 1, 2, 3))


def matrix_of(topology, far: dict[str, float]) -> np.ndarray:
    cpus = topology.allowed_cpus
    return np.array([[far.get(topology.relation(a, b), np.nan) for b in cpus] for a in cpus])


TRUE = {"smt": 8.0, "l3": 25.0, "node": 90.0, "package": 90.0, "cross_package": 200.0}


def test_what_the_machine_declares_is_confirmed(machine):
    matrix, cpus = matrix_of(machine, TRUE), machine.allowed_cpus
    said, wrong = against_declared(levels(matrix, cpus), matrix, cpus, to_json_dict(machine))
    assert said == "cores, L3 groups, nodes as declared" and wrong == []


def test_declared_groups_that_are_not_near_are_contradicted(machine):
    matrix, cpus = matrix_of(machine, {**TRUE, "l3": 90.0}), machine.allowed_cpus
    said, wrong = against_declared(levels(matrix, cpus), matrix, cpus, to_json_dict(machine))
    assert said == "cores, nodes as declared" and len(wrong) == 1 and wrong[0].startswith("L3 groups are declared")


def test_a_machine_that_declares_nothing_is_not_contradicted(machine):
    matrix, cpus = matrix_of(machine, TRUE), machine.allowed_cpus
    assert against_declared(levels(matrix, cpus), matrix, cpus, {"cpus": "0-15"}) == ("", [])


def rising(count: int) -> np.ndarray:
    return np.where(np.eye(count, dtype=bool), np.nan, np.arange(count * count).reshape(count, count) + 1.0)


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("count", [2, 3, 16, 17, 64, 192, 512])
def test_a_matrix_fits_the_terminal(count, width, colour):
    drawn = draw(rising(count), tuple(range(count)), width, borders=(count // 2,), colour=colour, order="CPUs in some order")
    texts = [line.plain for line in drawn]
    assert max(map(len, texts)) <= width and "CPUs in some order" in "\n".join(texts)
    assert any("ns" in text for text in texts) and any("┼" in text for text in texts)
    assert colour or not any(span.style not in ("dim", "") for line in drawn for span in line.spans)


def test_without_colours_shades_tell_near_from_far():
    owner = np.repeat([0, 1], 16)
    matrix = np.where(owner[:, None] == owner, 20.0, 100.0)
    np.fill_diagonal(matrix, np.nan)
    head, *lines = [line.plain for line in draw(matrix, tuple(range(32)), 80, borders=(16,), colour=False)]
    assert lines[0][6:] == "··" + "  " * 15 + "│" + "██" * 16 and lines[16].count("─") == 64 and len(lines[17]) == len(lines[0])
    for label in ("0", "8", "16", "24"):  # above its cell
        place = 6 + 2 * int(label) + (int(label) >= 16)
        assert head[place:].startswith(label) and head[place - 1] == " "
    assert "[  ] to" in lines[33] and "[██] to 100" in lines[33]


@pytest.mark.parametrize(
    ("sizes", "room", "each"), [((16, 16), 40, 1), ((16, 16), 32, 2), ((16,) * 32, 37, 16), ((16,) * 32, 20, 32), ((3, 5), 7, 2)]
)
def test_no_cell_holds_parts_of_two_groups(sizes, room, each):
    ends = [sum(sizes[:n]) for n in range(len(sizes) + 1)]
    cells, most = fitted(list(itertools.pairwise(ends)), room, 1)
    flat = [span for group in cells for span in group]
    assert most == each and flat[0][0] == 0 and flat[-1][1] == ends[-1] and len(flat) <= room
    for (start, end), (after, _) in itertools.pairwise(flat):
        assert end == after
        inside = [border for border in ends if start < border < end]
        assert not inside or (start in ends and end in ends)


def test_groups_too_small_for_a_cell_are_said_to_share_it():
    drawn = draw(rising(512), tuple(range(512)), 60, borders=tuple(range(0, 512, 8)), colour=False)
    assert "up to 24 CPUs, 3 groups to a cell" in " ".join(line.plain.strip() for line in drawn)


def test_the_plan_of_512_cpus_takes_under_five_minutes(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, nodes=4, l3s=4, cores=8, smt=2, memory_gib=64)
    plan = make_plan([BENCHMARK], read_topology(str(tree.root)))
    assert not plan.skipped and plan.cases > 512 * 511 // 2
    assert plan.least_seconds < 300


class Counted(tuple):
    """CPUs that count how often somebody goes through them."""

    walks = 0

    def __iter__(self):
        Counted.walks += 1
        return super().__iter__()

    def __contains__(self, cpu):
        Counted.walks += 1
        return super().__contains__(cpu)


def test_no_pair_goes_through_all_cpus(tmp_path, monkeypatch):
    """Which of 2,048 CPUs would be 4 thousand million steps in the two million pairs of a plan."""
    walks = []
    for cores in (4, 8):
        topology = read_topology(
            str(SyntheticTree(tmp_path / str(cores), packages=2, nodes=2, l3s=2, cores=cores, memory_gib=64).root)
        )
        counted = msgspec.structs.replace(topology, cpus=Counted(topology.cpus), allowed_cpus=Counted(topology.allowed_cpus))
        monkeypatch.setattr(Counted, "walks", 0)
        assert make_plan([BENCHMARK], counted).cases > len(topology.cpus) * (len(topology.cpus) - 1) // 2
        walks.append(Counted.walks)
    few, many = walks
    assert many - few < len(topology.cpus)  # each CPU may look once more; four times as many pairs may not


def test_groups_that_nobody_declared_are_named(machine):
    topology = to_json_dict(machine)
    flat = {**topology, "caches": [c for c in topology["caches"] if c["level"] == 1], "clusters": []}
    matrix, cpus = matrix_of(machine, TRUE), machine.allowed_cpus
    said, wrong = against_declared(levels(matrix, cpus), matrix, cpus, flat)
    assert said == "cores, nodes as declared" and len(wrong) == 1 and "are not declared" in wrong[0] and "and 1 more" in wrong[0]
    assert set(declared_groups(flat, cpus)) == {"cores", "nodes"}


def test_operations_are_those_of_the_kernel():
    assert BENCHMARK.axes[2].values == OPERATIONS
