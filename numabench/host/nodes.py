"""NUMA nodes: their CPUs, memory, distances and what the firmware promises, from sys/devices/system/node."""

from __future__ import annotations

import re
from collections import Counter

from ..units import format_cpus
from .parts import AccessClass, MemorySideCache, Node, ascending
from .sysfs import CpuSet, Tree, parse_size

_NODE = "sys/devices/system/node"
_KIB = 1024  # meminfo: "kB" means KiB
_MEMORY_SLACK = 0.1  # nodes and proc/meminfo count some pages differently; more than a tenth beyond is another matter


def read_nodes(tree: Tree, online: CpuSet) -> tuple[tuple[Node, ...], bool]:
    """Node directories, ascending (has_cpu and has_memory are stale or empty on many machines and not read)."""
    directories = tree.numbered(_NODE, "node")
    if not directories:
        tree.warn("the kernel shows no NUMA nodes: one node stands for the whole machine")
        memory = tree.parsed("proc/meminfo", _parse_total)
        return (Node(0, ascending(online), memory),), False
    cpus = {number: _read_node_cpus(tree, number, path) for number, path in directories.items()}
    strangers = frozenset().union(*cpus.values()) - online
    if strangers:
        tree.warn(f"node maps name CPUs that are not online: {format_cpus(strangers)}")
    cpus = {number: members & online for number, members in cpus.items()}
    counts = Counter(cpu for members in cpus.values() for cpu in members)
    if repeated := [cpu for cpu, count in counts.items() if count > 1]:
        tree.warn(f"CPUs {format_cpus(repeated)} are in more than one NUMA node: the smallest, then the first node counts")
    if online - set(counts):
        tree.warn(f"CPUs {format_cpus(online - set(counts))} are in no NUMA node")
    with_cpus = {number for number, members in cpus.items() if members}
    nodes = [_read_node(tree, number, path, cpus[number], directories, with_cpus) for number, path in directories.items()]
    _warn_memory(tree, [node.memory_bytes for node in nodes])
    return tuple(nodes), True


def _warn_memory(tree: Tree, sizes: list[int | None]) -> None:
    """Nodes with less than the whole are usual: what was added while the machine ran, or given to a balloon, is counted at different places."""
    total = tree.parsed("proc/meminfo", _parse_total)
    if total and None not in sizes and sum(sizes) > (1 + _MEMORY_SLACK) * total:
        tree.warn(
            f"the nodes sum up to {sum(sizes) >> 20} MiB of memory, proc/meminfo says {total >> 20} MiB: memory was taken away, or a container's share is shown"
        )


def _parse_total(text: str) -> int:
    match = re.search(r"MemTotal:\s*(\d+)\s*kB", text)
    if not match:
        raise ValueError("no MemTotal")
    return int(match[1]) * _KIB


def _read_node_cpus(tree: Tree, number: int, path: str) -> CpuSet:
    members = tree.cpu_set(f"{path}/cpumap", f"{path}/cpulist")
    if members is not None:
        return members
    tree.warn("a node has neither cpumap nor cpulist: its cpuN links are taken", f"node {number}")
    return frozenset(tree.numbered(path, "cpu"))


def _read_node(tree: Tree, number: int, path: str, members: CpuSet, directories: dict[int, str], with_cpus: set[int]) -> Node:
    names = tree.names(path)
    access = tuple(_read_access(tree, f"{path}/{name}", name) for name in names if re.fullmatch(r"access\d+", name))
    caches = tree.numbered(f"{path}/memory_side_cache", "index") if "memory_side_cache" in names else {}
    return Node(
        id=number,
        cpus=ascending(members),
        memory_bytes=tree.parsed(f"{path}/meminfo", _parse_total),
        distances=_read_distances(tree, number, path, directories),
        access=access,
        cpu_access=_choose_access(access, with_cpus),
        memory_side_caches=tuple(
            MemorySideCache(level, tree.parsed(f"{each}/size", parse_size), tree.number(f"{each}/line_size") or None)
            for level, each in caches.items()
        ),
    )


def _read_distances(tree: Tree, number: int, path: str, directories: dict[int, str]) -> dict[int, int]:
    """The row is positional over the online nodes, ascending; nodes without a directory are left out."""
    row = tree.parsed(f"{path}/distance", lambda text: [int(word) for word in text.split()])
    if not row:
        return {}
    candidates = (sorted(tree.cpu_list(f"{_NODE}/online") or ()), list(directories))
    ids = next((ids for ids in candidates if len(ids) == len(row)), None)
    if ids is None:
        tree.warn(f"a distance row has {len(row)} values for {len(directories)} nodes", f"node {number}")
        ids = list(directories)
    distances = {other: far for other, far in zip(ids, row, strict=False) if other in directories}
    if distances.get(number) != min(row):
        tree.warn("a node is not nearest to itself in its distance row", f"node {number}")
    elif len(directories) > 1 and len(set(row)) == 1:
        tree.warn(f"all distances are {row[0]}: the firmware does not tell near from far", f"node {number}")
    return distances


def _read_access(tree: Tree, path: str, name: str) -> AccessClass:
    """Documentation/admin-guide/mm/numaperf.rst: ns and MB/s; firmware without a value writes 0."""
    initiators = f"{path}/initiators"
    return AccessClass(
        name,
        tuple(tree.numbered(initiators, "node")),
        tuple(tree.numbered(f"{path}/targets", "node")),
        tree.number(f"{initiators}/read_latency") or None,
        tree.number(f"{initiators}/write_latency") or None,
        tree.number(f"{initiators}/read_bandwidth") or None,
        tree.number(f"{initiators}/write_bandwidth") or None,
    )


def _choose_access(access: tuple[AccessClass, ...], with_cpus: set[int]) -> str | None:
    """access1 is by definition for CPUs; access0 is for any initiator, so it counts only if one of its has CPUs."""
    by_name = {each.name: each for each in access}
    names = [name for name in ("access1", "access0") if name in by_name]
    usable = [name for name in names if with_cpus.intersection(by_name[name].initiators)]
    if not usable and "access1" in by_name and any(by_name["access1"].promises):
        return "access1"
    return next((name for name in usable if any(by_name[name].promises)), usable[0] if usable else None)
