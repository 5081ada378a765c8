"""Machines whose cores are of several kinds: which are measured, where, and that keys and sentences name them."""

from __future__ import annotations

import itertools

import pytest
from synthetic_sysfs import CPU, SyntheticTree
from test_topology import SNAPSHOTS, snapshot  # noqa: F401

from numabench import kernel as abi
from numabench.benchmarks import find
from numabench.host.topology import read_topology
from numabench.measure.kinds import CORE_KIND, ByKind
from numabench.measure.visit import Request, Visit

HYBRIDS = {  # snapshot: its kinds, the biggest cores first
    "intel-alderlake-16pu-hybrid": ("core", "atom"),
    "intel-raptorlake-1370p-20pu-hybrid": ("L2 1280 KiB", "L2 2048 KiB"),
    "nvidia-gb10-20pu-hybrid": ("0x41/0xd85", "0x41/0xd87"),
    "edge-arm-phone-8pu-3kinds": (),
}


def small_first(tmp_path, **more) -> SyntheticTree:
    """CPUs 0 and 1 are small, 2 to 5 big, as on many Arm machines."""
    tree = SyntheticTree(tmp_path, cores=6, memory_gib=64, **more)
    tree.write("sys/devices/cpu_atom/cpus", "0-1")
    tree.write("sys/devices/cpu_core/cpus", "2-5")
    for cpu in range(6):
        tree.write(f"{CPU}/cpu{cpu}/cpu_capacity", 400 if cpu < 2 else 1024)
    return tree


def planned(root, *names: str, profile: str = "standard", settings: tuple[str, ...] = (), cpus: str = ""):
    visit = Visit(Request(benchmarks=names, profile=profile, settings=settings, cpus=cpus), str(root))
    return visit, [case for block in visit.plan.blocks for case in block.cases]


def test_the_biggest_cores_come_first_whatever_their_number(tmp_path):
    topology = read_topology(str(small_first(tmp_path).root))
    assert [kind.name for kind in topology.own_kinds()] == ["core", "atom"]
    assert topology.kind_of(0) == "atom" and topology.of_kind("core").order_cpus() == (2, 3, 4, 5)


def test_each_kind_is_measured_on_its_own_and_named_in_key_and_sentence(tmp_path):
    visit, cases = planned(small_first(tmp_path).root, "memory_bandwidth", "padded_counters", "node_latency")
    of = {"core": {2, 3, 4, 5}, "atom": {0, 1}}
    for name in ("memory_bandwidth", "padded_counters", "node_latency"):
        kinds = {c.case.parameters[CORE_KIND] for c in cases if c.case.benchmark == name}
        assert kinds == {"core", "atom"}, name
    for case in cases:
        assert set(case.placement.cpus) <= of[case.case.parameters[CORE_KIND]], "no case mixes kinds"
    assert {
        c.case.parameters["threads"]
        for c in cases
        if c.case.parameters.get(CORE_KIND) == "atom" and "kernel" in c.case.parameters
    } == {1, 2}
    for block in visit.plan.blocks:
        for group in {c.group for c in block.cases}:
            assert len({c.case.parameters[CORE_KIND] for c in block.cases if c.group == group}) == 1
    for benchmark in visit.benchmarks:
        points = [c.case.parameters for c in cases if c.case.benchmark == benchmark.name]
        answers, figures = benchmark.asked(visit.topology, points), benchmark.figures(visit.topology, points)
        assert {a.where[CORE_KIND] for a in answers} == {v.where[CORE_KIND] for v in figures} == {"core", "atom"}
        assert all(a.text.startswith(f"Cores of kind {a.where[CORE_KIND]}: ") for a in answers)
        assert all(a.against.get(CORE_KIND) == a.where[CORE_KIND] for a in answers if a.against)


def test_the_record_of_a_benchmark_has_the_kinds_as_an_axis(tmp_path):
    visit, cases = planned(small_first(tmp_path).root, "memory_bandwidth")
    (benchmark,) = visit.benchmarks
    record = visit.describe(benchmark, abi.build(benchmark.kernel), "r")
    assert next(axis.values for axis in record.axes if axis.name == CORE_KIND) == ("core", "atom") and record.cases == len(cases)
    assert record.answers and all(answer.where[CORE_KIND] for answer in record.answers)


def test_a_quick_look_is_at_the_biggest_cores_unless_others_are_asked_for(tmp_path):
    root = small_first(tmp_path).root
    _, cases = planned(root, "memory_latency", profile="quick")
    assert {c.case.parameters[CORE_KIND] for c in cases} == {"core"} and all(c.placement.cpus == (2,) for c in cases)
    _, cases = planned(root, "memory_latency", profile="quick", settings=("core_kind=atom",))
    assert {c.placement.cpus for c in cases} == {(0,)} and {c.case.parameters[CORE_KIND] for c in cases} == {"atom"}
    _, cases = planned(root, "memory_latency", cpus="0-1")
    assert {c.case.parameters[CORE_KIND] for c in cases} == {"atom"}, "a kind that is alone is named as well"


def test_points_that_are_added_and_contradictions_stay_within_their_kind(tmp_path):
    visit, cases = planned(small_first(tmp_path).root, "memory_latency")
    (benchmark,) = visit.benchmarks
    assert isinstance(benchmark, ByKind)
    points = [c.case.parameters for c in cases]
    curve = [(p, float(p["size"]) if p[CORE_KIND] == "atom" else 1.0) for p in points]
    added = benchmark.refine(curve, visit.topology)
    assert added and {p[CORE_KIND] for p in added} == {"atom"}, "the other's curve is flat"
    assert all(benchmark.place(p, visit.topology).cpus == (0,) for p in added)
    order = sorted((c.case.parameters for c in cases if c.case.parameters["order"] == "group"), key=lambda p: p["size"])
    falling = [(p, {"latency": 500.0 - 400 * (i == len(order) - 1), "cycles": 5.0}) for i, p in enumerate(order)]
    alone = benchmark.benchmark.contradictions
    seen = []
    benchmark.benchmark.contradictions = lambda found, topology: seen.append((found, topology.allowed_cpus)) or []
    try:
        benchmark.contradictions(falling, visit.topology)
    finally:
        benchmark.benchmark.contradictions = alone
    assert {cpus for _, cpus in seen} == {(2, 3, 4, 5), (0, 1)} and sum(len(found) for found, _ in seen) == len(falling)


def test_pairs_of_two_kinds_have_a_relation_of_their_own(tmp_path):
    visit, cases = planned(small_first(tmp_path).root, "core_to_core")
    (benchmark,) = visit.benchmarks
    points = [c.case.parameters for c in cases]
    assert {frozenset((p["cpu_a"], p["cpu_b"])) for p in points} == set(map(frozenset, itertools.combinations(range(6), 2)))
    texts = [a.text for a in benchmark.asked(visit.topology, points) if a.kind == "cell"]
    assert len(texts) == 3
    assert sum("both of kind core" in t for t in texts) == sum("both of kind atom" in t for t in texts) == 1
    assert sum("one of kind atom and one of kind core" in t for t in texts) == 1


def test_a_machine_of_one_kind_is_as_before(tmp_path):
    visit, cases = planned(SyntheticTree(tmp_path, cores=4, memory_gib=64).root, "memory_latency", "core_to_core")
    assert not any(isinstance(b, ByKind) for b in visit.benchmarks)
    assert not any(CORE_KIND in c.case.parameters for c in cases)


def test_cores_that_differ_by_their_l3_alone_are_kinds(tmp_path):
    """Two dies of which one has more cache on top."""
    tree = SyntheticTree(tmp_path, l3s=2, cores=4, memory_gib=64)
    for cpu in range(4):
        tree.write(f"{CPU}/cpu{cpu}/cache/index3/size", "98304K")
    topology = read_topology(str(tree.root))
    assert [(kind.name, kind.cpus) for kind in topology.kinds] == [("L3 98304 KiB", (0, 1, 2, 3)), ("L3 16384 KiB", (4, 5, 6, 7))]
    _, cases = planned(tree.root, "memory_bandwidth")
    assert max(c.case.parameters["threads"] for c in cases) == 4


@pytest.mark.parametrize(("rates", "kinds"), [((3.3, 5.1), 2), ((5.1, 5.3), 1), ((3.3, 3.5, 5.1, 5.3), 2)])
def test_cores_that_differ_by_their_clock_alone_are_kinds_and_favoured_ones_are_not(tmp_path, rates, kinds):
    tree = SyntheticTree(tmp_path, cores=8, memory_gib=64)
    for cpu in range(8):
        tree.write(f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq", int(rates[cpu % len(rates)] * 1e6))
    topology = read_topology(str(tree.root))
    assert len(topology.kinds) == (kinds if kinds > 1 else 0)
    if kinds > 1:
        first = topology.own_kinds()[0]
        assert first.name == f"up to {rates[-1]:.2f} GHz" and len(first.cpus) == 4


@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrid_machines_are_measured_by_kind(name, snapshot):  # noqa: F811
    found = next((path for path in SNAPSHOTS.glob(f"{name}.truth.json")), None)
    if found is None:
        pytest.skip(f"no snapshot {name} in {SNAPSHOTS}")
    root = snapshot(found.name.removesuffix(".truth.json"))
    topology = read_topology(root)
    kinds = topology.own_kinds()
    assert len(kinds) >= 2
    if HYBRIDS[name]:
        assert tuple(kind.name for kind in kinds) == HYBRIDS[name]
    assert kinds[0].speed >= kinds[-1].speed
    _, cases = planned(root, "memory_latency", "padded_counters", "memory_bandwidth", profile="full")
    for case in cases:
        assert len({topology.kind_of(cpu) for cpu in case.placement.cpus}) == 1
        assert case.case.parameters[CORE_KIND] == topology.kind_of(case.placement.cpus[0])
    assert next(c for c in cases).case.parameters[CORE_KIND] == kinds[0].name
    assert find("core_to_core").examples(topology, topology.order_cpus())
