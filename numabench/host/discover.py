"""Reads what a `Topology` holds below a root directory.

Source of every field: Documentation/ABI/{stable,testing}/sysfs-devices-{system-cpu,node} of the kernel. CPU sets are
cut to the CPUs that are online. What the files do not say is None (or missing from its list), never a guess, and every
oddity is a warning.
"""

from __future__ import annotations

import os
import re

from ..errors import MachineError, UsageError
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
    online = _read_online(tree, directories)
    if not online:
        if tree.live:
            raise MachineError("/sys/devices/system/cpu shows no CPU", "run on Linux with /sys mounted")
        raise UsageError(f"no CPU below {tree.root}{_CPU}", "give a directory that holds sys/ and proc/ of a machine")
    described = {cpu: path for cpu, path in directories.items() if cpu in online}
    cores, dies, clusters = read_levels(tree, described, online)
    caches = read_caches(tree, described, online, cores)
    nodes, numa = read_nodes(tree, online)
    packages = read_packages(tree, described, online)
    warn_of_odd_sharing(tree, packages, cores, caches)
    present = tree.cpu_list(f"{_CPU}/present")
    cpus, mems = _read_limits(tree, online, frozenset(node.id for node in nodes))
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


def _read_online(tree: Tree, directories: dict[int, str]) -> CpuSet:
    """cpu/online; without it every cpuN whose `online` is not 0 (CPU 0 and old kernels have no such file)."""
    online = tree.cpu_list(f"{_CPU}/online")
    if online:
        return online
    return frozenset(cpu for cpu, path in directories.items() if tree.read(f"{path}/online") != "0")


def _read_limits(tree: Tree, online: CpuSet, nodes: CpuSet) -> tuple[CpuSet, CpuSet]:
    """CPUs and memory nodes that cgroups, the task's masks and (live) its affinity leave to this process."""
    limits = {"cpus": online, "mems": nodes}
    status = tree.read("proc/self/status") or ""
    for noun, key in (("cpus", "Cpus_allowed_list"), ("mems", "Mems_allowed_list")):
        limit = cgroup_limit(tree, noun)
        listed = re.search(rf"^{key}:\s*(\S+)", status, re.MULTILINE)
        mask = tree.understood(listed[1], parse_list, "proc/self/status") if listed else None
        for extra in (limit, mask):
            if extra is not None:
                limits[noun] &= extra
    if tree.live:
        limits["cpus"] &= frozenset(os.sched_getaffinity(0))
    if not limits["cpus"]:
        tree.warn("cgroup and affinity leave no online CPU to this process")
    return limits["cpus"], limits["mems"]
