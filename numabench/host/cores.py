"""Cores, dies, clusters, packages and CPU caches, from sys/devices/system/cpu/cpuN/{topology,cache}."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..units import format_cpus
from .parts import Cache, Cpus, Node, Package, ascending, owners
from .sysfs import CpuSet, Tree, parse_size

_UNKNOWN_IDS = (-1, 65535)  # die_id and cluster_id where the firmware is silent; 65535 is -1 in an u16 of Arm PPTT


def read_levels(tree: Tree, directories: dict[int, str], online: CpuSet):
    """Cores, dies and clusters as CPU sets. Cores are keyed by their set: core_id repeats inside packages."""
    cores, dies, clusters, silent = [], [], [], []
    for cpu, directory in directories.items():
        path = f"{directory}/topology"
        siblings = _read_set(tree, path, "core_cpus", "thread_siblings")
        if siblings is None:
            silent.append(cpu)
        elif cpu not in siblings:
            tree.warn("a CPU is missing from its own sibling set: taken as a core alone", f"CPU {cpu}")
            cores.append(frozenset((cpu,)))
        else:
            cores.append(siblings & online)
        for sets, noun in ((dies, "die"), (clusters, "cluster")):
            number = tree.number(f"{path}/{noun}_id")
            members = None if number in (None, *_UNKNOWN_IDS) else _read_set(tree, path, f"{noun}_cpus")
            if members and members & online:
                sets.append(members & online)
    silent += sorted(online - set(directories))
    if silent:
        tree.warn(f"CPUs {format_cpus(silent)} are online without core information in sysfs")
    return tuple(_distinct(tree, sets, noun) for sets, noun in ((cores, "core"), (dies, "die"), (clusters, "cluster")))


def _read_set(tree: Tree, path: str, *names: str) -> CpuSet | None:
    """The first that exists of several names of one set (core_cpus was thread_siblings before Linux 5.3)."""
    sets = (tree.cpu_set(f"{path}/{name}", f"{path}/{name}_list") for name in names)
    return next((cpus for cpus in sets if cpus is not None), None)


def _distinct(tree: Tree, sets: Iterable[CpuSet], noun: str) -> tuple[Cpus, ...]:
    """Each set once, by first CPU; a CPU in two of them is a warning."""
    unique = sorted({ascending(cpus) for cpus in sets})
    counts = Counter(cpu for cpus in unique for cpu in cpus)
    twice = [cpu for cpu, count in counts.items() if count > 1]
    if twice:
        tree.warn(f"CPUs {format_cpus(twice)} are in more than one {noun}: sharing is not symmetric in sysfs")
    return tuple(unique)


def read_packages(tree: Tree, directories: dict[int, str], online: CpuSet) -> tuple[Package, ...]:
    """By physical_package_id (core_siblings can stop at a node). -1 means unknown and makes no package."""
    members: dict[int, list[int]] = {}
    for cpu, directory in directories.items():
        number = tree.number(f"{directory}/topology/physical_package_id")
        if number is not None and number != -1:
            members.setdefault(number, []).append(cpu)
    unknown = online.difference(*members.values()) if members else online
    if unknown:
        tree.warn(f"the package of CPUs {format_cpus(unknown)} is unknown (physical_package_id missing or -1)")
    return tuple(Package(number, ascending(cpus)) for number, cpus in sorted(members.items()))


def read_caches(tree: Tree, directories: dict[int, str], online: CpuSet, cores) -> tuple[Cache, ...]:
    """By level, type and first CPU. An all-zero sharing map (ia64) is read as: shared by the threads of the core."""
    found: dict[tuple, None] = {}
    core_of = {cpu: frozenset(core) for core in cores for cpu in core}
    unshared = set()
    without = []
    for cpu, directory in directories.items():
        indexes = tree.numbered(f"{directory}/cache", "index")
        if not indexes:
            without.append(cpu)
        for path in indexes.values():
            level, kind = tree.number(f"{path}/level"), tree.read(f"{path}/type")
            if level is None:
                tree.warn("a cache does not say its level: ignored", path)
                continue
            shared = tree.cpu_set(f"{path}/shared_cpu_map", f"{path}/shared_cpu_list") or frozenset()
            if cpu not in shared:
                unshared.add(f"L{level} {kind}")
                shared = core_of.get(cpu, frozenset((cpu,)))
            size = tree.parsed(f"{path}/size", parse_size)
            line = tree.number(f"{path}/coherency_line_size")
            found[level, kind, size or None, line or None, ascending(shared & online)] = None
    if unshared:
        tree.warn(f"{', '.join(sorted(unshared))}: no CPU set that holds its own CPU; taken as one per core")
    if without:
        tree.warn(f"CPUs {format_cpus(without)} show no caches")
    caches = sorted((Cache(*each) for each in found), key=lambda each: (each.level, each.type or "", each.cpus))
    for level, kind in sorted({(each.level, each.type or "") for each in caches}):
        same = [frozenset(each.cpus) for each in caches if (each.level, each.type or "") == (level, kind)]
        _distinct(tree, same, f"L{level} {kind} cache")
    return tuple(caches)


def warn_of_odd_sharing(
    tree: Tree, packages: tuple[Package, ...], cores: tuple[Cpus, ...], caches: tuple[Cache, ...], nodes: tuple[Node, ...]
) -> None:
    _warn_compute_units(tree, cores, caches)
    _warn_wide_caches(tree, packages, caches)
    _warn_crossed_nodes(tree, packages, nodes)


def _warn_compute_units(tree: Tree, cores: tuple[Cpus, ...], caches: tuple[Cache, ...]) -> None:
    """AMD family 15h: sysfs and lscpu pair integer cores as threads, hwloc counts them as cores. sysfs is followed."""
    l1 = owners([cache.cpus for cache in caches if cache.level == 1 and cache.type == "Data"])
    split = [core for core in cores if len({l1[cpu] for cpu in core if cpu in l1}) > 1]
    if split:
        tree.warn(f"{len(split)} cores have threads with an L1d each: sysfs pairs compute units, hwloc splits them")


def _warn_wide_caches(tree: Tree, packages: tuple[Package, ...], caches: tuple[Cache, ...]) -> None:
    """Phones number their clusters as packages."""
    package_of = {cpu: package.id for package in packages for cpu in package.cpus}
    if any(len({package_of[cpu] for cpu in cache.cpus if cpu in package_of}) > 1 for cache in caches):
        tree.warn("a cache is shared across packages: these package ids are not sockets")


def _warn_crossed_nodes(tree: Tree, packages: tuple[Package, ...], nodes: tuple[Node, ...]) -> None:
    """Made-up nodes (numa=fake, a hypervisor's table) with a part of one package and CPUs of another: near and far are then no levels of each other."""
    sets = {package.id: set(package.cpus) for package in packages}
    for node in nodes:
        own = set(node.cpus)
        crossed = [number for number, cpus in sets.items() if own & cpus and own - cpus and cpus - own]
        if crossed:
            tree.warn(
                f"a node cuts across packages {format_cpus(crossed)}: what is called one package or one node here is not nested, "
                "and nodes are likely made up (numa=fake, a hypervisor)",
                f"node {node.id}",
            )
