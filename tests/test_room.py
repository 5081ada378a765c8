"""How much memory may be used, as kernels, cgroups and containers say it: what can be given up counts, and what nobody says is no zero."""

from __future__ import annotations

import pytest
from synthetic_sysfs import NODE, SyntheticTree

from numabench.host.health import check
from numabench.host.room import available_bytes
from numabench.host.sysfs import Tree
from numabench.host.topology import read_topology

KIB, MIB = 1 << 10, 1 << 20
V1 = "none /sys/fs/cgroup/memory cgroup rw,memory 0 0"
V2 = "none /sys/fs/cgroup cgroup2 rw 0 0"


@pytest.fixture
def tree(tmp_path):
    return SyntheticTree(tmp_path, nodes=2, cores=2)


def room(tree, node=None):
    return available_bytes(node, Tree(str(tree.root)))


@pytest.mark.parametrize(
    ("text", "kib"),
    [
        ("MemTotal: 900 kB\nMemFree: 100 kB\nMemAvailable: 300 kB\nCached: 700 kB", 300),
        ("MemTotal: 900 kB\nMemFree: 100 kB\nMemAvailable: 0 kB", 0),
        ("MemTotal: 16658952 kB\nMemFree: 8413652 kB\nBuffers: 34032 kB\nCached: 188576 kB", 8413652 + 34032 + 188576),  # WSL1
        ("MemFree: 100 kB\nBuffers: 5 kB\nCached: 90 kB\nActive(file): 30 kB\nInactive(file): 20 kB\nSReclaimable: 7 kB", 157),
        ("MemTotal: 900 kB", None),
        ("MemTotal: 900 kB\nMemAvailable: lots", None),
        ("", None),
    ],
)
def test_of_a_machine(tree, text, kib):
    tree.write("proc/meminfo", text)
    assert room(tree) == (None if kib is None else kib * KIB)


def test_without_the_file_nothing_is_known(tree):
    tree.remove("proc/meminfo")
    assert room(tree) is None and room(tree, 0) is None
    assert "memory" not in {finding.check for finding in check(str(tree.root), wait=lambda _: None)}


def test_a_nodes_cache_of_files_counts(tree):
    tree.write(
        f"{NODE}/node1/meminfo",
        "\nNode 1 MemTotal: 900 kB\nNode 1 MemFree: 100 kB\nNode 1 Active(file): 30 kB\nNode 1 Inactive(file): 20 kB",
    )
    assert room(tree, 1) == 150 * KIB and room(tree) == 99999999 * KIB
    tree.remove(f"{NODE}/node0/meminfo")
    assert room(tree, 0) == 99999999 * KIB


@pytest.mark.parametrize(
    ("mount", "own", "files", "mib"),
    [
        (V2, "0::/a", {"memory.max": 1000 * MIB, "memory.current": 900 * MIB, "memory.stat": f"anon 1\nactive_file {200 * MIB}\ninactive_file {300 * MIB}\nslab_reclaimable {50 * MIB}"}, 650),
        (V2, "0::/a", {"memory.max": 1000 * MIB, "memory.current": 900 * MIB}, 100),
        (V2, "0::/a", {"memory.max": "max", "memory.high": 500 * MIB, "memory.current": 100 * MIB}, 400),
        (V2, "0::/a", {"memory.max": 100 * MIB, "memory.high": "max", "memory.current": 300 * MIB}, 0),  # lowered since
        (V2, "0::/a", {"memory.max": "max", "memory.current": 900 * MIB}, None),
        (V2, "0::/a", {"memory.max": 1000 * MIB}, None),
        (V1, "4:memory:/a", {"memory.limit_in_bytes": 1000 * MIB, "memory.usage_in_bytes": 900 * MIB, "memory.stat": f"inactive_file 1\ntotal_active_file {100 * MIB}\ntotal_inactive_file {300 * MIB}"}, 500),
        (V1, "4:memory:/a", {"memory.limit_in_bytes": 9223372036854771712, "memory.usage_in_bytes": 900 * MIB}, (9223372036854771712 - 900 * MIB) / MIB),
    ],
)  # fmt: skip
def test_of_a_cgroup(tree, mount, own, files, mib):
    tree.remove("proc/meminfo")
    tree.write("proc/mounts", mount)
    tree.write("proc/self/cgroup", own)
    for name, text in files.items():
        tree.write(f"{mount.split()[1].strip('/')}/a/{name}", text)
    assert room(tree) == (None if mib is None else mib * MIB)


def test_the_tightest_of_all_groups_above_counts(tree):
    tree.write("proc/mounts", V2)
    tree.write("proc/self/cgroup", "0::/a/b")
    for path, limit in (("a/b", 800), ("a", 300)):
        tree.write(f"sys/fs/cgroup/{path}/memory.max", limit * MIB)
        tree.write(f"sys/fs/cgroup/{path}/memory.current", 100 * MIB)
    assert room(tree) == 200 * MIB
    finding = next(each for each in check(str(tree.root), wait=lambda _: None) if each.check == "memory")
    assert finding.found.startswith("200 MiB available")


@pytest.mark.parametrize(("kib", "words"), [(100 << 20, None), (7 << 20, "a container's share"), (8 << 20, None)])
def test_nodes_that_hold_less_than_the_machine_are_no_alarm(tree, kib, words):
    """Two nodes of 4 GiB: of a machine to which memory was added, of a container that is shown less, of an ordinary one."""
    tree.write("proc/meminfo", f"MemTotal: {kib} kB")
    warnings = [each for each in read_topology(str(tree.root)).warnings if "sum up" in each]
    assert bool(warnings) == (words is not None) and all(words in each for each in warnings)
