"""Reads what a `Topology` holds below a root directory.

Source of every field: Documentation/ABI/{stable,testing}/sysfs-devices-{system-cpu,node} of the kernel. CPU sets are
cut to the CPUs that are online. What the files do not say is None (or missing from its list), never a guess, and every
oddity is a warning.
"""

from __future__ import annotations

import os
import re

from ..errors import MachineError, UsageError
from ..units import format_cpus
from .cores import read_caches, read_levels, read_packages, warn_of_odd_sharing
from .kinds import read_kinds
from .nodes import read_nodes
from .parts import ascending
from .processor import extensions_of, read_processor, vectors_of
from .sysfs import CpuSet, Tree, cgroup_limit, parse_list

_CPU = "sys/devices/system/cpu"


def discover(root: str) -> dict:
    """The fields of a `Topology`; errors as `read_topology`."""
    tree = Tree(root)
    directories = tree.numbered(_CPU, "cpu")
    granted = _read_affinity(tree)
    directories |= {cpu: f"{_CPU}/cpu{cpu}" for cpu in sorted(granted - set(directories))}
    online = _read_online(tree, directories, granted)
    if not online:
        if tree.live:
            raise MachineError("/sys/devices/system/cpu shows no CPU", "run on Linux with /sys mounted")
        raise UsageError(f"no CPU below {tree.root}{_CPU}", "give a directory that holds sys/ and proc/ of a machine")
    described = {cpu: path for cpu, path in directories.items() if cpu in online}
    cores, dies, clusters = read_levels(tree, described, online)
    caches = read_caches(tree, described, online, cores)
    nodes, numa = read_nodes(tree, online)
    packages = read_packages(tree, described, online)
    warn_of_odd_sharing(tree, packages, cores, caches, nodes)
    present = tree.cpu_list(f"{_CPU}/present")
    cpus, mems = _read_limits(tree, online, granted, frozenset(node.id for node in nodes))
    kinds = read_kinds(tree, described, online, caches)
    possible = tree.cpu_list(f"{_CPU}/possible")
    return {
        "cpus": ascending(online),
        "allowed_cpus": ascending(cpus),
        "allowed_mems": ascending(mems),
        "packages": packages,
        "dies": dies,
        "clusters": clusters,
        "cores": cores,
        "smt": max(map(len, cores), default=None),
        "caches": caches,
        "nodes": nodes,
        "numa": numa,
        "kinds": kinds,
        "possible": None if possible is None else ascending(possible),
        "present": None if present is None else ascending(present),
        "offline": ascending((frozenset(directories) if present is None else present) - online),
        "isolated": ascending((tree.cpu_list(f"{_CPU}/isolated") or frozenset()) & online),
        "nohz_full": ascending((tree.cpu_list(f"{_CPU}/nohz_full") or frozenset()) & online),
        "vectors": vectors_of(read_processor(tree)),
        "extensions": extensions_of(read_processor(tree)),
        "warnings": tuple(tree.warnings),
    }


def _read_affinity(tree: Tree) -> CpuSet:
    """CPUs that the kernel itself says this process may use, all of them online. A snapshot has the task's mask, which may name CPUs that are
    not there: of those that are described."""
    if tree.live:
        return frozenset(os.sched_getaffinity(0))
    found = _read_mask(tree, "Cpus_allowed_list") or frozenset()
    return frozenset(
        cpu for cpu in found if tree.names(f"{_CPU}/cpu{cpu}/topology") and tree.read(f"{_CPU}/cpu{cpu}/online") != "0"
    )


def _read_mask(tree: Tree, key: str) -> CpuSet | None:
    listed = re.search(rf"^{key}:\s*(\S+)", tree.read("proc/self/status") or "", re.MULTILINE)
    return tree.understood(listed[1], parse_list, "proc/self/status") if listed else None


def _read_online(tree: Tree, directories: dict[int, str], granted: CpuSet) -> CpuSet:
    """cpu/online; without it every cpuN whose `online` is not 0 (CPU 0 and old kernels have no such file). Containers are shown files of
    another making (lxcfs counts from 0): what the kernel grants counts as well."""
    online = tree.cpu_list(f"{_CPU}/online")
    if not online:
        online = frozenset(cpu for cpu, path in directories.items() if tree.read(f"{path}/online") != "0")
    if unnamed := granted - online:
        tree.warn(
            f"cpu/online does not name CPUs {format_cpus(unnamed)}, which this process may use: the kernel's own answer counts"
        )
    return online | granted


def _read_limits(tree: Tree, online: CpuSet, granted: CpuSet, nodes: CpuSet) -> tuple[CpuSet, CpuSet]:
    """CPUs and memory nodes that are left to this process: by its affinity, which has all limits in it; of a snapshot by its cgroups and masks."""
    limits = {"cpus": online & granted if tree.live else online, "mems": nodes}
    for noun, key in (
        (("mems", "Mems_allowed_list"),) if tree.live else (("cpus", "Cpus_allowed_list"), ("mems", "Mems_allowed_list"))
    ):
        for limit in (cgroup_limit(tree, noun), _read_mask(tree, key)):
            if limit is not None:
                limits[noun] &= limit
    if not limits["cpus"]:
        tree.warn("cgroup and affinity leave no online CPU to this process")
    return limits["cpus"], limits["mems"]
