"""The topology reader against made-up trees (always) and against snapshots of real machines (where they are)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_sysfs import CPU, NODE, SyntheticTree, as_list, as_mask

from numabench.errors import UsageError
from numabench.host.sysfs import Tree, parse_list, parse_mask, parse_size
from numabench.host.topology import RELATIONS, read_topology, to_json_dict
from numabench.units import format_cpus

REPOSITORY = Path(__file__).resolve().parent.parent
SNAPSHOTS = Path(os.environ.get("NUMABENCH_SHARED", REPOSITORY.parent / "shared")) / "topologies"
TRUTHS = sorted(SNAPSHOTS.glob("*.truth.json"))
GIB = 1 << 30


# --- sets -----------------------------------------------------------------------------------------------------------


@given(st.frozensets(st.integers(0, 400)))
def test_sets_survive_every_notation(cpus):
    assert parse_list(format_cpus(cpus)) == cpus
    assert parse_mask(as_mask(cpus)) == cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", set()),
        ("(null)", set()),
        ("0-3,8", {0, 1, 2, 3, 8}),
        ("7", {7}),
        ("0-1,0", {0, 1}),
    ],
)
def test_list_notation(text, cpus):
    assert parse_list(text) == cpus


def test_short_top_group_of_a_mask():
    assert parse_mask("1,00000000") == {32}
    assert parse_mask("f") == {0, 1, 2, 3}
    assert parse_mask("") == set()


@pytest.mark.parametrize("text", ["3-1", "x", "0-", "1,two"])
def test_nonsense_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_list(text)


def test_sizes():
    assert [parse_size(text) for text in ("32K", "16M", "103079215104")] == [32768, 16 << 20, 96 << 30]


# --- regular machines -----------------------------------------------------------------------------------------------


@pytest.fixture
def epyc(tmp_path):
    """2 packages, 2 nodes each, 2 L3 each, 2 cores each, 2 threads: 32 CPUs."""
    return SyntheticTree(tmp_path, packages=2, nodes=2, l3s=2, cores=2, smt=2)


def read(tree):
    return read_topology(str(tree.root))


def test_regular_machine(epyc):
    form = to_json_dict(read(epyc))
    assert form["cpus"] == form["allowed_cpus"] == "0-31"
    assert form["packages"] == [{"id": 0, "cpus": "0-7,16-23"}, {"id": 1, "cpus": "8-15,24-31"}]
    assert form["cores"][:2] == ["0,16", "1,17"] and len(form["cores"]) == 16
    assert form["smt"] == 2 and form["warnings"] == []
    node = form["nodes"][1]
    assert (node["id"], node["cpus"], node["memory_bytes"]) == (1, "4-7,20-23", 4 * GIB)
    assert node["distances"] == {"0": 21, "1": 10, "2": 21, "3": 21}
    l3 = [cache for cache in form["caches"] if cache["level"] == 3]
    assert l3[0] == {"level": 3, "type": "Unified", "size_bytes": 16 << 20, "line_bytes": 128, "cpus": "0-1,16-17"}
    assert len(l3) == 8 and len(form["caches"]) == 3 * 16 + 8
    json.dumps(form)


def test_relations_from_near_to_far(epyc):
    topology = read(epyc)
    expected = {0: "same", 16: "smt", 1: "l3", 17: "l3", 2: "node", 4: "package", 8: "cross_package"}
    assert {cpu: topology.relation(0, cpu) for cpu in expected} == expected
    assert topology.relations() == ["smt", "l3", "node", "package", "cross_package"]
    assert topology.relations([0, 1, 8]) == ["l3", "cross_package"]
    with pytest.raises(UsageError):
        topology.relation(0, 99)


def test_order_fills_cores_before_siblings(epyc):
    order = read(epyc).order_cpus()
    assert order == tuple(range(32))


def test_chosen_cpus_are_dealt_to_the_next_closer_level(epyc):
    topology = read(epyc)
    assert topology.choose_cpus("smt", 2) == (0, 16)
    assert topology.choose_cpus("l3", 4) == (0, 1, 16, 17)
    assert topology.choose_cpus("node", 4) == (0, 2, 1, 3)
    assert topology.choose_cpus("package", 4) == (0, 4, 1, 5)
    assert topology.choose_cpus("cross_package", 5) == (0, 8, 1, 9, 2)
    assert topology.choose_cpus("node", 6) == (0, 2, 1, 3, 16, 18)


def test_impossible_choices(epyc):
    topology = read(epyc)
    assert topology.choose_cpus("smt", 3) is None
    assert topology.choose_cpus("cluster", 2) is None
    assert topology.choose_cpus("cross_package", 33) is None
    assert topology.choose_cpus("same", 2) is None and topology.choose_cpus("same", 1) == (0,)
    with pytest.raises(UsageError):
        topology.choose_cpus("socket", 2)
    with pytest.raises(UsageError):
        topology.choose_cpus("l3", 0)


@pytest.mark.parametrize(
    "shape",
    [
        {"packages": 2, "nodes": 2, "l3s": 2, "cores": 2, "smt": 2},
        {"cores": 8, "l2_cores": 4},
        {"packages": 4, "cores": 3},
        {"nodes": 3, "l3s": 1, "cores": 2, "smt": 4},
        {"packages": 2, "l3s": 3, "cores": 1},
    ],
)
def test_choices_keep_their_promise(tmp_path, shape):
    topology = read(SyntheticTree(tmp_path, **shape))
    for relation in topology.relations():
        parts = []
        for n in range(2, len(topology.cpus) + 1):
            chosen = topology.choose_cpus(relation, n)
            if chosen is None:
                continue
            parts.append(n)
            assert len(set(chosen)) == n and set(chosen) <= set(topology.allowed_cpus)
            assert topology.relation(*chosen[:2]) == relation
            widest = max(RELATIONS.index(topology.relation(chosen[0], cpu)) for cpu in chosen)
            assert RELATIONS[widest] == relation
            cores = [next(core for core in topology.cores if cpu in core) for cpu in chosen]
            if relation != "smt" and n == 2:
                assert len(set(cores)) == n
        assert parts[0] == 2


def test_neighbours_in_a_choice_have_the_relation(epyc):
    topology = read(epyc)
    chosen = topology.choose_cpus("cross_package", 32)
    assert all(topology.relation(a, b) == "cross_package" for a, b in pairwise(chosen))


def test_a_domain_with_enough_cores_is_preferred(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=4, smt=2, offline=(2, 3))
    assert read(tree).choose_cpus("l3", 4) == (0, 1, 10, 11)
    tree.write("proc/self/status", "Cpus_allowed_list: 0,8,4-7")
    assert read(tree).choose_cpus("l3", 2) == (4, 5)


def test_uneven_parts_use_up_cores_before_siblings(tmp_path):
    tree = SyntheticTree(tmp_path, l3s=2, cores=3, smt=2)
    tree.write("proc/self/status", "Cpus_allowed_list: 0-3,6-9")
    assert read(tree).choose_cpus("node", 5) == (0, 3, 1, 2, 6)


def test_shared_l2_and_narrow_kernel_clusters_are_clusters(tmp_path):
    assert read(SyntheticTree(tmp_path / "l2", cores=4, l2_cores=2)).relations() == ["cluster", "l3"]
    tree = SyntheticTree(tmp_path / "kernel", cores=4)
    for cpu in range(4):
        tree.write(f"{CPU}/cpu{cpu}/topology/cluster_id", cpu // 2)
        tree._set(f"{CPU}/cpu{cpu}/topology", "cluster_cpus", (0, 1) if cpu < 2 else (2, 3))
    assert read(tree).clusters == ((0, 1), (2, 3))
    assert read(tree).relation(0, 1) == "cluster" and read(tree).relation(1, 2) == "l3"
    for cpu in range(4):
        tree._set(f"{CPU}/cpu{cpu}/topology", "cluster_cpus", range(4))
    assert read(tree).relations() == ["l3"], "a cluster as wide as the L3 adds no level"
    for cpu in range(4):
        tree.write(f"{CPU}/cpu{cpu}/topology/cluster_id", 65535)
    assert read(tree).clusters == ()


def test_l3_across_sub_numa_nodes_does_not_hide_the_node(tmp_path):
    tree = SyntheticTree(tmp_path, nodes=2, cores=2)
    for cpu in range(4):
        tree._set(f"{CPU}/cpu{cpu}/cache/index3", "shared_cpu_map", range(4), "shared_cpu_list")
    topology = read(tree)
    assert (topology.relation(0, 1), topology.relation(0, 2)) == ("l3", "package")
    assert topology.llc_bytes_total() == 16 << 20


def test_sizes_and_lines(epyc):
    topology = read(epyc)
    assert topology.llc_bytes_total() == 8 * (16 << 20)
    assert topology.largest_line_bytes() == 128


# --- numbers with holes ---------------------------------------------------------------------------------------------


def test_sparse_and_offline_cpus(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=2, smt=2, numbers=[6, 7, 10, 11, 14, 15, 40, 41], offline=(6, 40))
    topology = read(tree)
    assert topology.cpus == (7, 10, 11, 14, 15, 41)
    assert topology.cores == ((7, 15), (10,), (11, 41), (14,))
    assert topology.offline == (6, 40) and topology.smt == 2
    assert topology.choose_cpus("cross_package", 2) == (7, 10)


def test_maps_that_name_offline_cpus_are_cut(tmp_path):
    tree = SyntheticTree(tmp_path, cores=4, offline=(3,))
    tree.write(f"{NODE}/node0/cpumap", "ff")
    tree.write(f"{NODE}/node0/cpulist", "0-7")
    tree.write(f"{CPU}/cpu0/cache/index3/shared_cpu_map", "f")
    topology = read(tree)
    assert topology.nodes[0].cpus == (0, 1, 2)
    assert [cache.cpus for cache in topology.caches if cache.level == 3] == [(0, 1, 2)]
    assert any("not online" in warning for warning in topology.warnings)


def test_without_cpu_online_the_cpus_say_it_themselves(tmp_path):
    tree = SyntheticTree(tmp_path, cores=4, offline=(2,))
    tree.remove(f"{CPU}/online")
    tree.remove(f"{CPU}/cpu0/online")
    tree.write(f"{CPU}/cpu1/online", "")
    assert read(tree).cpus == (0, 1, 3)


def test_quirks_of_text(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.write(f"{CPU}/online", "0-1\n\0")
    tree.write(f"{CPU}/isolated", "1\0")
    topology = read(tree)
    assert topology.cpus == (0, 1) and topology.isolated == (1,) and topology.nohz_full == ()
    tree.write(f"{CPU}/isolated", "managed_irq,1")
    assert any("isolated" in warning for warning in read(tree).warnings)


# --- packages and cores ---------------------------------------------------------------------------------------------


def test_unknown_packages_are_not_counted(tmp_path):
    tree = SyntheticTree(tmp_path, nodes=2, cores=2)
    for cpu in tree.cpus:
        tree.write(f"{CPU}/cpu{cpu}/topology/physical_package_id", -1)
    topology = read(tree)
    assert topology.packages == () and any("package" in warning for warning in topology.warnings)
    assert topology.relation(0, 1) == "l3" and topology.relation(0, 2) == "cross_package"
    assert topology.choose_cpus("cross_package", 2) == (0, 2)


def test_huge_package_ids(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=1)
    tree.write(f"{CPU}/cpu0/topology/physical_package_id", 983297)
    assert [package.id for package in read(tree).packages] == [1, 983297]


def test_older_names_of_the_sibling_sets(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2, smt=2)
    tree.remove(f"{CPU}/cpu*/topology/core_cpus*")
    assert read(tree).cores == ((0, 2), (1, 3))
    tree.remove(f"{CPU}/cpu*/topology/thread_siblings")
    assert read(tree).cores == ((0, 2), (1, 3))
    tree.remove(f"{CPU}/cpu*/topology/thread_siblings_list")
    topology = read(tree)
    assert topology.cores == () and topology.smt is None
    assert topology.order_cpus() == (0, 2, 1, 3), "what shares an L2 stays together"


def test_dies_repeat_their_ids_per_package(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=2)
    for cpu in tree.cpus:
        tree.write(f"{CPU}/cpu{cpu}/topology/die_id", cpu % 2)
        tree._set(f"{CPU}/cpu{cpu}/topology", "die_cpus", (cpu,))
    assert read(tree).dies == ((0,), (1,), (2,), (3,))


def test_compute_units_are_reported(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2, smt=2)
    for cpu in tree.cpus:
        tree._set(f"{CPU}/cpu{cpu}/cache/index0", "shared_cpu_map", (cpu,), "shared_cpu_list")
    topology = read(tree)
    assert topology.smt == 2 and any("L1d each" in warning for warning in topology.warnings)


# --- caches ---------------------------------------------------------------------------------------------------------


def test_mask_wins_over_list(tmp_path):
    tree = SyntheticTree(tmp_path, cores=4)
    for cpu in (0, 1):
        tree.write(f"{CPU}/cpu{cpu}/cache/index3/shared_cpu_list", "0")
    topology = read(tree)
    assert [cache.cpus for cache in topology.caches if cache.level == 3] == [(0, 1, 2, 3)]
    assert [warning for warning in topology.warnings if "disagree" in warning and "1 more" in warning]


def test_asymmetric_sharing_is_kept_and_reported(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.write(f"{CPU}/cpu1/cache/index3/shared_cpu_map", "2")
    tree.write(f"{CPU}/cpu1/cache/index3/shared_cpu_list", "1")
    topology = read(tree)
    assert [cache.cpus for cache in topology.caches if cache.level == 3] == [(0, 1), (1,)]
    assert any("not symmetric" in warning for warning in topology.warnings)


def test_empty_sharing_map(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2, smt=2)
    tree.remove(f"{CPU}/cpu*/cache/index3/shared_cpu_list")
    for cpu in tree.cpus:
        tree.write(f"{CPU}/cpu{cpu}/cache/index3/shared_cpu_map", "00000000,00000000")
    topology = read(tree)
    assert [cache.cpus for cache in topology.caches if cache.level == 3] == [(0, 2), (1, 3)]
    assert any("L3" in warning for warning in topology.warnings)


def test_caches_without_size_and_line(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.remove(f"{CPU}/cpu*/cache/index*/size")
    tree.remove(f"{CPU}/cpu*/cache/index*/coherency_line_size")
    topology = read(tree)
    assert topology.llc_bytes_total() is None and topology.largest_line_bytes() is None
    assert {cache.size_bytes for cache in topology.caches} == {None}


def test_no_caches_at_all(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.remove(f"{CPU}/cpu*/cache/index*/*")
    for path in sorted(tmp_path.glob(f"{CPU}/cpu*/cache/index*")):
        path.rmdir()
    topology = read(tree)
    assert topology.caches == () and topology.relations() == ["node"] and topology.llc_bytes_total() is None


# --- NUMA -----------------------------------------------------------------------------------------------------------


def test_node_without_cpus_and_node_without_memory(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=2, node_ids=[0, 8])
    tree.add_node(4, memory_gib=64)
    tree.add_node(9, memory_gib=0)
    tree.write_distances(lambda a, b: 10 if a == b else 17 if {a, b} == {4, 8} else 28)
    topology = read(tree)
    assert [node.id for node in topology.nodes] == [0, 4, 8, 9]
    assert topology.nodes[2].distances == {0: 28, 4: 17, 8: 10, 9: 28}, "positional over sparse ids"
    assert topology.cpu_nodes() == (0, 8) and topology.memory_nodes() == (0, 4, 8)
    assert topology.nearest_cpu_nodes(4) == (8,) and topology.nearest_cpu_nodes(9) == ()
    assert topology.nodes[3].memory_bytes == 0
    tree.remove(f"{NODE}/node9/meminfo")
    assert read(tree).nodes[3].memory_bytes is None


@pytest.mark.parametrize("empty", ["", "\n", "00000000,00000000"])
def test_spellings_of_no_cpu(tmp_path, empty):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.add_node(3)
    tree.write(f"{NODE}/node3/cpumap", empty)
    assert read(tree).nodes[1].cpus == ()


def test_without_numa_one_node_stands_for_the_machine(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2, memory_gib=8)
    for path in sorted((tmp_path / NODE).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    topology = read(tree)
    assert not topology.numa and len(topology.nodes) == 1
    assert topology.nodes[0].cpus == (0, 1) and topology.nodes[0].memory_bytes == 8 * GIB
    assert topology.nodes[0].distances == {} and topology.node_of(1) == 0


def test_distances_missing_too_long_and_flat(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=1)
    tree.remove(f"{NODE}/node0/distance")
    tree.write(f"{NODE}/node1/distance", "10 10 10")
    topology = read(tree)
    assert topology.nodes[0].distances == {}
    assert topology.nodes[1].distances == {0: 10, 1: 10}
    assert any("3 values for 2 nodes" in warning for warning in topology.warnings)
    assert any("near from far" in warning for warning in topology.warnings)


def test_cpu_in_several_nodes_and_in_none(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=2)
    tree._set(f"{NODE}/node0", "cpumap", (0, 1, 2), "cpulist")
    tree._set(f"{NODE}/node1", "cpumap", (2,), "cpulist")
    topology = read(tree)
    assert topology.node_of(2) == 1 and topology.node_of(3) is None
    assert any("more than one NUMA node" in warning for warning in topology.warnings)
    assert any("in no NUMA node" in warning for warning in topology.warnings)
    assert topology.order_cpus() == (0, 1, 3, 2)


def write_access(tree, node, name, initiators, **values):
    path = f"{NODE}/node{node}/{name}/initiators"
    for initiator in initiators:
        (tree.root / path / f"node{initiator}").mkdir(parents=True)
    for key, value in values.items():
        tree.write(f"{path}/{key}", value)


def test_access_class_for_cpus(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=1)
    tree.add_node(2)
    tree.add_node(5)
    write_access(tree, 2, "access0", [5], read_latency=90, read_bandwidth=900)
    write_access(tree, 2, "access1", [1], read_latency=120, write_latency=0, read_bandwidth=200)
    write_access(tree, 5, "access0", [0], read_latency=0, write_latency=0, read_bandwidth=0, write_bandwidth=0)
    _, _, far, unknown = read(tree).nodes
    access = far.access_for_cpus()
    assert (far.cpu_access, access.initiators, access.read_latency_ns, access.write_latency_ns) == ("access1", (1,), 120, None)
    assert access.read_bandwidth_mb_per_s == 200
    assert unknown.cpu_access == "access0" and unknown.access_for_cpus().read_latency_ns is None
    assert read(tree).nearest_cpu_nodes(2) == (1,)
    form = to_json_dict(read(tree))
    assert form["nodes"][2]["access"]["access0"]["read_latency_ns"] == 90
    write_access(tree, 1, "access0", [5], read_latency=90)
    assert read(tree).nodes[1].cpu_access is None
    write_access(tree, 0, "access0", [0], read_latency=90)
    write_access(tree, 0, "access1", [0], read_latency=91)
    assert read(tree).nodes[0].cpu_access == "access1"


def test_memory_side_cache_is_not_a_cpu_cache(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.write(f"{NODE}/node0/memory_side_cache/index1/size", 96 * GIB)
    tree.write(f"{NODE}/node0/memory_side_cache/index1/line_size", 64)
    topology = read(tree)
    assert topology.nodes[0].memory_side_caches[0].size_bytes == 96 * GIB
    assert topology.llc_bytes_total() == 16 << 20


# --- limits ---------------------------------------------------------------------------------------------------------


def limit_v1(tree):
    tree.write("proc/mounts", "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0")
    tree.write("proc/self/cgroup", "4:cpuset:/job/step\n0::/elsewhere")
    tree.write("sys/fs/cgroup/cpuset/job/cpuset.cpus", "0-2")
    tree.write("sys/fs/cgroup/cpuset/job/step/cpuset.cpus", "1-2")
    tree.write("sys/fs/cgroup/cpuset/job/step/cpuset.mems", "1")


def limit_v1_without_prefix(tree):
    tree.write("proc/mounts", "none /dev/cpuset cpuset rw 0 0")
    tree.write("proc/self/cpuset", "/job")
    tree.write("dev/cpuset/job/cpus", "1-2,77")
    tree.write("dev/cpuset/job/mems", "1")


def limit_v2(tree):
    tree.write("proc/mounts", "none /cgroup/unified cgroup2 rw 0 0")
    tree.write("proc/self/cgroup", "0::/job/step")
    tree.write("cgroup/unified/job/cpuset.cpus.effective", "1-2")
    tree.write("cgroup/unified/job/cpuset.mems.effective", "1")
    tree.write("cgroup/unified/cpuset.cpus.effective", "0-3")


@pytest.mark.parametrize("limit", [limit_v1, limit_v1_without_prefix, limit_v2])
def test_cgroup_limits(tmp_path, limit):
    tree = SyntheticTree(tmp_path, packages=2, cores=2)
    limit(tree)
    topology = read(tree)
    assert topology.allowed_cpus == (1, 2) and topology.allowed_mems == (1,)
    assert topology.memory_nodes() == (1,) and topology.cpu_nodes() == (0, 1)
    assert topology.choose_cpus("l3", 2) is None and topology.choose_cpus("cross_package", 2) == (1, 2)
    tree.write("proc/self/status", "Name: x\nCpus_allowed_list:\t2-3\nMems_allowed_list:\t0-1")
    assert read(tree).allowed_cpus == (2,)


def test_limits_that_cannot_be_read_do_not_limit(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.write("proc/self/status", "Cpus_allowed_list:\tall")
    topology = read(tree)
    assert topology.allowed_cpus == (0, 1) and any("'all'" in warning for warning in topology.warnings)


def test_limits_that_leave_nothing(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.write("proc/self/status", "Cpus_allowed_list:\t9")
    topology = read(tree)
    assert topology.allowed_cpus == () and topology.choose_cpus("l3", 2) is None and topology.order_cpus() == ()
    assert topology.choose_cpus("same", 1) is None
    assert any("no online CPU" in warning for warning in topology.warnings)


# --- hybrid ---------------------------------------------------------------------------------------------------------


def test_kinds_from_performance_monitors(tmp_path):
    tree = SyntheticTree(tmp_path, cores=4)
    tree.write("sys/devices/cpu_core/cpus", "0-1")
    tree.write("sys/devices/cpu_atom/cpus", "2-3")
    assert [(kind.name, kind.cpus) for kind in read(tree).kinds] == [("core", (0, 1)), ("atom", (2, 3))]


def test_part_numbers_beat_binned_capacities(tmp_path):
    tree = SyntheticTree(tmp_path, cores=4)
    for cpu in range(4):
        tree.write(f"{CPU}/cpu{cpu}/cpu_capacity", 700 + cpu)
    assert len(read(tree).kinds) == 4
    parts = "\n".join(f"processor : {cpu}\nCPU implementer : 0x41\nCPU part : {hex(0xD85 + cpu // 2)}\n" for cpu in range(4))
    tree.write("proc/cpuinfo", parts)
    assert [kind.cpus for kind in read(tree).kinds] == [(0, 1), (2, 3)]


def test_kinds_from_caches_need_both_signs(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.write(f"{CPU}/cpu1/cache/index2/size", "2048K")
    assert read(tree).kinds == ()
    tree.write(f"{CPU}/cpu0/cpufreq/base_frequency", 2200000)
    tree.write(f"{CPU}/cpu1/cpufreq/base_frequency", 1600000)
    assert [kind.name for kind in read(tree).kinds] == ["L2 1024 KiB", "L2 2048 KiB"]
    tree.write(f"{CPU}/cpu1/cache/index2/size", "1024K")
    assert read(tree).kinds == (), "Speed Select alone makes no kinds"


# --- errors and imports ---------------------------------------------------------------------------------------------


def test_root_without_machine(tmp_path):
    with pytest.raises(UsageError, match="no CPU below"):
        read_topology(str(tmp_path))


def test_files_that_cannot_be_read_are_warnings(tmp_path):
    tree = Tree(str(tmp_path))
    (tmp_path / "directory").mkdir()
    assert tree.read("directory") is None and tree.read("missing") is None
    assert len(tree.warnings) == 1


def test_worker_does_not_pay_for_heavy_modules():
    code = (
        "import sys, numabench.host.topology; "
        "print([name for name in ('numpy', 'pandas', 'rich', 'cpuinfo') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


# --- snapshots of real machines -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory):
    extracted = {}

    def extract(name):
        if name not in extracted:
            target = tmp_path_factory.mktemp("snapshot")
            with tarfile.open(SNAPSHOTS / f"{name}.tar.gz") as archive:
                archive.extractall(target, filter="data")
            extracted[name] = str(target / name)
        return extracted[name]

    return extract


def test_snapshots_are_there():
    if not TRUTHS:
        pytest.skip(
            f"no snapshots of real machines: {SNAPSHOTS}/*.truth.json is missing (NUMABENCH_SHARED names "
            "the directory above topologies)"
        )


@pytest.mark.parametrize("path", TRUTHS, ids=lambda path: path.name.removesuffix(".truth.json"))
def test_snapshot(path, snapshot):
    truth = json.loads(path.read_text())
    kernel, hwloc, disagreements = truth["kernel"], truth["hwloc"], truth["disagreements"]
    topology = read_topology(snapshot(truth["machine"]))
    form = to_json_dict(topology)
    assert form["cpus"] == kernel["online"]
    assert form["allowed_cpus"] == hwloc["allowed_cpus"]
    known = [package for package in kernel["packages"] if package["ids"] != ["-1"]]
    assert [{"ids": [str(each["id"])], "cpus": each["cpus"]} for each in form["packages"]] == sorted(
        known, key=lambda each: int(each["ids"][0])
    )
    assert (form["cores"], form["dies"], form["clusters"]) == (kernel["cores"], kernel["dies"], kernel["clusters"])
    assert form["smt"] == max(len(parse_list(core)) for core in kernel["cores"])
    if not any("cores:" in each for each in disagreements):
        assert form["smt"] == hwloc["smt_max"]
    check_nodes(form, kernel, topology)
    check_caches(form, kernel)
    if any(each.startswith("[real]") for each in disagreements):
        assert form["warnings"]
    for relation in topology.relations():
        assert topology.relation(*topology.choose_cpus(relation, 2)) == relation
    assert sorted(topology.order_cpus()) == list(topology.allowed_cpus)


def check_nodes(form, kernel, topology):
    if not kernel["nodes"]:
        assert not topology.numa and len(form["nodes"]) == 1 and form["nodes"][0]["cpus"] == form["cpus"]
        return
    ids = [node["os_index"] for node in kernel["nodes"]]
    expected = [
        (node["os_index"], node["cpus"], node["memory_bytes"], dict(zip(map(str, ids), node["distance"] or (), strict=False)))
        for node in kernel["nodes"]
    ]
    assert [(node["id"], node["cpus"], node["memory_bytes"], node["distances"]) for node in form["nodes"]] == expected
    for own, node in zip(form["nodes"], kernel["nodes"], strict=True):
        for name, access in node.get("access", {}).items():
            mine = own["access"][name]
            assert mine["initiators"] == access["initiators"] and mine["targets"] == access["targets"]
            assert mine["read_bandwidth_mb_per_s"] == (access["read_bandwidth"] or None)
            assert mine["read_latency_ns"] == (access["read_latency"] or None)


def check_caches(form, kernel):
    letters = {"Data": "d", "Instruction": "i", "Unified": ""}
    mine = [
        (f"L{each['level']}{letters[each['type']]}", each["size_bytes"], each["line_bytes"], each["cpus"])
        for each in form["caches"]
    ]
    theirs = [
        (each["cache"], each["size"], each["line_size"], cpus)
        for each in kernel["caches"]
        for cpus in each["cpusets"]
        if not cpus.endswith(":empty")
    ]
    assert set(theirs) <= set(mine)
    if not any(cpus.endswith(":empty") for each in kernel["caches"] for cpus in each["cpusets"]):
        assert sorted(map(str, theirs)) == sorted(map(str, mine))


def test_a_list_text_is_what_the_kernel_prints():
    assert format_cpus([8, 3, 2, 1, 0]) == "0-3,8" and as_list([2, 1]) == "1,2"


# --- what the kernel itself answers -----------------------------------------------------------------------------------


def test_files_made_for_a_container_do_not_hide_what_may_be_used(tmp_path):
    """lxcfs counts the CPUs of a container from 0, while the kernel grants others."""
    tree = SyntheticTree(tmp_path, packages=2, nodes=1, cores=16)
    tree.write(f"{CPU}/online", "0")
    tree.write("proc/self/status", "Cpus_allowed_list:\t4-27")
    topology = read(tree)
    assert topology.allowed_cpus == tuple(range(4, 28)) and topology.cpus == (0, *range(4, 28))
    assert any("cpu/online does not name CPUs 4-27" in warning for warning in topology.warnings)
    assert topology.relation(4, 27) == "cross_package"


def test_a_mask_that_names_cpus_that_are_not_there_adds_none(tmp_path):
    tree = SyntheticTree(tmp_path, cores=4, offline=(3,))
    tree.write("proc/self/status", "Cpus_allowed_list:\t0-127")
    topology = read(tree)
    assert topology.cpus == topology.allowed_cpus == (0, 1, 2) and not topology.warnings


@pytest.mark.parametrize(
    ("granted", "online", "expected"), [({24}, "0", (24,)), ({0, 1}, "0-3", (0, 1)), ({2, 3}, "0-3", (2, 3))]
)
def test_on_this_machine_the_affinity_has_all_limits_in_it(tmp_path, monkeypatch, granted, online, expected):
    """A cgroup's file, a mask and a list that say otherwise are not asked; a CPU that the folder does not list may still have its own files."""
    tree = SyntheticTree(tmp_path, cores=32)
    tree.write(f"{CPU}/online", online)
    tree.write("proc/self/status", "Cpus_allowed_list:\t5")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: granted)
    real, listed = Tree.__init__, Tree.names
    monkeypatch.setattr(Tree, "__init__", lambda self, root="/": (real(self, root), setattr(self, "live", True))[0])
    monkeypatch.setattr(Tree, "names", lambda self, path: [n for n in listed(self, path) if path != CPU or n != "cpu24"])
    topology = read(tree)
    assert topology.allowed_cpus == expected
    if granted == {24}:
        assert topology.cpus == (0, 24) and len(topology.cores) == 2


def test_isolated_cpus_may_be_asked_for(tmp_path):
    from numabench.measure.visit import restrict

    tree = SyntheticTree(tmp_path, cores=8)
    tree.write(f"{CPU}/isolated", "6-7")
    tree.write("proc/self/status", "Cpus_allowed_list:\t0-5")
    topology = read(tree)
    assert topology.allowed_cpus == (0, 1, 2, 3, 4, 5)
    assert restrict(topology, "5-7", live=False).allowed_cpus == (5, 6, 7)
    with pytest.raises(UsageError, match="CPU 8-9 cannot be used: offline or absent"):
        restrict(topology, "6-9", live=False)


def test_what_a_set_is_refused_for_is_the_kernels_word(tmp_path, monkeypatch):
    from numabench.measure import visit

    topology = read(SyntheticTree(tmp_path, cores=4))
    topology = msgspec.structs.replace(topology, allowed_cpus=(0, 1))
    monkeypatch.setattr(visit, "refused_cpus", lambda cpus: {cpu: OSError(22, "Invalid argument") for cpu in cpus if cpu == 3})
    assert visit.restrict(topology, "1-2", live=True).allowed_cpus == (1, 2)
    with pytest.raises(UsageError, match="CPU 3 cannot be used: Invalid argument"):
        visit.restrict(topology, "0-3", live=True)
    with pytest.raises(UsageError, match="CPU 3-4 cannot be used: Invalid argument or absent"):
        visit.restrict(topology, "3-4", live=True)


def test_each_cpu_is_tried_and_the_affinity_is_as_before():
    from numabench.host.placement import refused_cpus

    before = os.sched_getaffinity(0)
    assert set(refused_cpus([*before, 999])) == {999} and os.sched_getaffinity(0) == before
    try:
        os.sched_setaffinity(0, {min(before)})  # an affinity is no limit
        assert refused_cpus(before) == {} and os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("nodes", "crossed"),
    [
        ([range(0, 4), range(4, 8)], []),  # one of each package
        ([range(0, 2), range(2, 4), range(4, 8)], []),
        ([range(8)], []),  # nodes interleaved by the firmware: both packages, whole
        ([range(0, 3), range(3, 8)], [1]),  # the second one has a CPU of the first package, and all of its own
        ([(0, 1, 4, 5), (2, 3, 6, 7)], [0, 1]),
        ([range(0, 8), ()], []),
    ],
)
def test_nodes_that_cut_across_packages_are_told_of(tmp_path, nodes, crossed):
    tree = SyntheticTree(tmp_path, packages=2, cores=4)
    for node in tree.node_ids[:]:
        tree.remove(f"{NODE}/node{node}/cpu*")
    for node, cpus in enumerate(nodes):
        tree.add_node(node, cpus)
    for node in tree.node_ids[len(nodes) :]:
        tree.add_node(node)
    tree.write_distances(lambda a, b: 10 if a == b else 20)
    warnings = [each for each in read(tree).warnings if "cuts across" in each]
    assert len(warnings) == bool(crossed)
    if crossed:
        more = f" and {len(crossed) - 1} more" if len(crossed) > 1 else ""
        assert warnings[0].endswith(f"(node {crossed[0]}{more})")
