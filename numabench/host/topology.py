"""Packages, dies, clusters, cores, caches, NUMA nodes and limits of a Linux machine, from /sys and /proc.

Source of every field: Documentation/ABI/{stable,testing}/sysfs-devices-{system-cpu,node} of the kernel. CPU sets are
cut to the CPUs that are online. What the files do not say is None (or missing from its list), never a guess, and every
oddity is a line in `Topology.warnings`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

import msgspec

from ..errors import MachineError, UsageError
from .sysfs import CpuSet, Tree, cgroup_limit, format_list, parse_list, parse_size

Cpus = tuple[int, ...]

_CPU = "sys/devices/system/cpu"
_NODE = "sys/devices/system/node"
_UNKNOWN_IDS = (-1, 65535)  # die_id and cluster_id where the firmware is silent; 65535 is -1 in an u16 of Arm PPTT
_LETTERS = {"Data": "d", "Instruction": "i"}  # as in L1d; a unified cache has no letter
_KIB = 1024  # meminfo: "kB" means KiB
_MEMORY_SLACK = 0.1  # nodes and proc/meminfo count some pages differently; more than a tenth is another matter

# From the closest to the farthest. The levels are nested: two CPUs are "l3" only inside one node, "node" only inside
# one package, so that an L3 which sysfs shows across two sub-NUMA nodes does not hide the step between these nodes.
RELATIONS = ("same", "smt", "cluster", "l3", "node", "package", "cross_package")
_DEPTHS = {"cross_package": 0, "package": 1, "node": 2, "l3": 3, "cluster": 4, "smt": 5}
_NAMES = {depth: name for name, depth in _DEPTHS.items()}


class Package(msgspec.Struct, frozen=True):
    id: int
    cpus: Cpus


class Cache(msgspec.Struct, frozen=True):
    """`type` is Data, Instruction or Unified, as in sysfs."""

    level: int
    type: str | None
    size_bytes: int | None
    line_bytes: int | None
    cpus: Cpus


class AccessClass(msgspec.Struct, frozen=True):
    """What the firmware's HMAT promises for memory of a node, seen from its best initiators (ns, MB/s)."""

    name: str
    initiators: tuple[int, ...]
    targets: tuple[int, ...]
    read_latency_ns: int | None
    write_latency_ns: int | None
    read_bandwidth_mb_per_s: int | None
    write_bandwidth_mb_per_s: int | None


class MemorySideCache(msgspec.Struct, frozen=True):
    """Memory in front of slower memory (DRAM before Optane): not a CPU cache."""

    level: int
    size_bytes: int | None
    line_bytes: int | None


class Node(msgspec.Struct, frozen=True):
    """`memory_bytes` 0: no memory; None: unknown. `distances` is empty when unknown. `cpu_access` names the
    access class that holds for CPUs (access0 may belong to another initiator)."""

    id: int
    cpus: Cpus
    memory_bytes: int | None
    distances: dict[int, int] = {}
    access: tuple[AccessClass, ...] = ()
    cpu_access: str | None = None
    memory_side_caches: tuple[MemorySideCache, ...] = ()

    def access_for_cpus(self) -> AccessClass | None:
        return next((each for each in self.access if each.name == self.cpu_access), None)


class CoreKind(msgspec.Struct, frozen=True):
    """One kind of core of a hybrid machine; `source` says which files tell the kinds apart."""

    name: str
    cpus: Cpus
    source: str


class Topology(msgspec.Struct, frozen=True, dict=True, kw_only=True):
    """`cpus` are the online ones. `numa` is False when the kernel shows no nodes: then `nodes` is one stand-in."""

    cpus: Cpus
    allowed_cpus: Cpus
    allowed_mems: tuple[int, ...]
    packages: tuple[Package, ...]
    dies: tuple[Cpus, ...]
    clusters: tuple[Cpus, ...]
    cores: tuple[Cpus, ...]
    smt: int | None
    caches: tuple[Cache, ...]
    nodes: tuple[Node, ...]
    numa: bool
    kinds: tuple[CoreKind, ...]
    possible: Cpus | None
    present: Cpus | None
    offline: Cpus
    isolated: Cpus
    nohz_full: Cpus
    warnings: tuple[str, ...]

    @cached_property
    def _places(self) -> dict[int, tuple[int | None, ...]]:
        """{cpu: (package, node, l3, cluster, core)}: numbers that are equal inside a domain, None where unknown."""
        packages = _owners([package.cpus for package in self.packages])
        l3 = _owners([cache.cpus for cache in self.caches if cache.level == 3 and cache.type != "Instruction"])
        cores = _owners(self.cores)
        core_sets = set(self.cores)
        l3_sets = [set(cache.cpus) for cache in self.caches if cache.level == 3]
        l2 = [cache.cpus for cache in self.caches if cache.level == 2 and cache.type != "Instruction"]
        # A kernel cluster as wide as the L3 (GB10) or as one core (x86 with private L2) adds no level.
        inner = [each for each in self.clusters if not any(one <= set(each) for one in l3_sets)]
        clusters = _owners([each for each in (*l2, *inner) if len(each) > 1 and each not in core_sets])
        return {
            cpu: (
                packages.get(cpu),
                self.node_of(cpu),
                l3.get(cpu),
                clusters.get(cpu),
                cores.get(cpu, len(self.cores) + cpu),
            )
            for cpu in self.cpus
        }

    @cached_property
    def _nodes_by_cpu(self) -> dict[int, int]:
        nested = sorted(self.nodes, key=lambda node: (-len(node.cpus), -node.id))
        return {cpu: node.id for node in nested for cpu in node.cpus}

    def node_of(self, cpu: int) -> int | None:
        """Where nodes overlap: the smallest that holds the CPU, of equal ones the first."""
        return self._nodes_by_cpu.get(cpu)

    def relation(self, a: int, b: int) -> str:
        """The closest of `RELATIONS` that holds. CPUs of which no shared package is known are cross_package."""
        if a == b:
            return "same"
        try:
            first, second = self._places[a], self._places[b]
        except KeyError as missing:
            raise UsageError(f"CPU {missing} is not online", f"choose among {format_list(self.cpus)}") from None
        depth = 0
        while depth < len(first) and first[depth] == second[depth]:
            depth += 1
        while depth and first[depth - 1] is None:
            depth -= 1
        return _NAMES[depth]

    def relations(self, cpus: Iterable[int] | None = None) -> list[str]:
        """The relations that two different CPUs of `cpus` (default: the allowed ones) can have, nearest first."""
        chosen = self.allowed_cpus if cpus is None else tuple(cpus)
        return [name for name in RELATIONS[1:] if any(len(parts) > 1 for parts in self._domains(name, chosen))]

    def choose_cpus(self, relation: str, n: int) -> Cpus | None:
        """`n` allowed CPUs inside one domain of `relation`, dealt in turn to the parts of the next closer level, so
        that the first two (and where possible any two neighbours) have exactly this relation.

        Every core gets one CPU before any gets a second. The first domain with enough cores is taken, else the first
        with enough CPUs, else the answer is None. cross_package alternates between packages.
        """
        if relation not in RELATIONS or n < 1:
            raise UsageError(f"no {n} CPUs of relation {relation!r}", f"use 1 or more of {', '.join(RELATIONS)}")
        if relation == "same":
            return self.order_cpus()[:1] if n == 1 and self.allowed_cpus else None
        domains = [parts for parts in self._domains(relation, self.allowed_cpus) if len(parts) > 1]
        large = [parts for parts in domains if sum(map(len, parts)) >= n]
        ranks = self._ranks
        roomy = [parts for parts in large if sum(ranks[cpu] == 0 for part in parts for cpu in part) >= n]
        parts = next(iter(roomy or large), None)
        return None if parts is None else tuple(self._dealt(parts)[:n])

    def _dealt(self, parts: list[list[int]]) -> list[int]:
        """CPUs of the parts in turn: first one CPU per core, then the second ones."""
        ranks, dealt = self._ranks, []
        for rank in range(max(ranks.values()) + 1):
            hands = [[cpu for cpu in part if ranks[cpu] == rank] for part in parts]
            for turn in range(max(map(len, hands))):
                dealt += [hand[turn] for hand in hands if turn < len(hand)]
        return dealt

    def _domains(self, relation: str, cpus: Iterable[int]) -> list[list[list[int]]]:
        """Every domain of the level as a list of its parts (those of the next closer known level)."""
        depth, places = _DEPTHS[relation], self._places
        domains: dict[tuple, dict[tuple, list[int]]] = {}
        for cpu in sorted(cpus, key=self._order_key):
            place = (*places[cpu], cpu)
            if depth and place[depth - 1] is None:
                continue
            inner = next(d for d in range(depth, len(place)) if place[d] is not None)
            domains.setdefault(place[:depth], {}).setdefault(place[: inner + 1], []).append(cpu)
        return [list(parts.values()) for parts in domains.values()]

    @cached_property
    def _ranks(self) -> dict[int, int]:
        """{cpu: how many allowed CPUs of its core come before it}; CPUs that are not allowed come last."""
        seen: Counter = Counter()
        ranks = {}
        allowed = set(self.allowed_cpus)
        for cpu in sorted(self.cpus, key=lambda each: (each not in allowed, each)):
            core = self._places[cpu][-1]
            ranks[cpu] = seen[core]
            seen[core] += 1
        return ranks

    def _order_key(self, cpu: int) -> tuple:
        return (self._ranks[cpu], *(-1 if each is None else each for each in self._places[cpu]), cpu)

    def order_cpus(self) -> Cpus:
        """Allowed CPUs, one per core, filling an L3, then the L3s of a node, nodes, packages; SMT siblings last."""
        return tuple(sorted(self.allowed_cpus, key=self._order_key))

    def cpu_nodes(self) -> tuple[int, ...]:
        """Nodes with allowed CPUs; of overlapping nodes those that `node_of` answers."""
        return tuple(sorted({self.node_of(cpu) for cpu in self.allowed_cpus} - {None}))

    def memory_nodes(self) -> tuple[int, ...]:
        """Allowed nodes that have memory or do not say."""
        allowed = set(self.allowed_mems)
        return tuple(node.id for node in self.nodes if node.id in allowed and node.memory_bytes != 0)

    def nearest_cpu_nodes(self, node_id: int) -> tuple[int, ...]:
        """Nodes with CPUs nearest to a node: itself, else the initiators of its access class, else the smallest
        SLIT distance; empty when nothing tells them apart."""
        node = next(each for each in self.nodes if each.id == node_id)
        with_cpus = {each.id for each in self.nodes if each.cpus}
        if node.cpus:
            return (node_id,)
        access = node.access_for_cpus()
        if access and with_cpus.intersection(access.initiators):
            return tuple(sorted(with_cpus.intersection(access.initiators)))
        known = {other: far for other, far in node.distances.items() if other in with_cpus}
        nearest = tuple(other for other, far in known.items() if far == min(known.values()))
        return nearest if len(nearest) < len(with_cpus) or len(with_cpus) == 1 else ()

    def last_level_caches(self) -> tuple[Cache, ...]:
        """For each CPU its data or unified cache of the highest level, each once."""
        last: dict[int, Cache] = {}
        for cache in sorted((each for each in self.caches if each.type != "Instruction"), key=lambda each: each.level):
            last.update(dict.fromkeys(cache.cpus, cache))
        return tuple({id(cache): cache for cache in last.values()}.values())

    def llc_bytes_total(self) -> int | None:
        """Sum over the last-level caches of the online CPUs (allowed or not), without memory-side caches."""
        sizes = [cache.size_bytes for cache in self.last_level_caches()]
        return sum(sizes) if sizes and None not in sizes else None

    def largest_line_bytes(self) -> int | None:
        return max((cache.line_bytes for cache in self.caches if cache.line_bytes), default=None)


def _owners(sets: Iterable[Cpus]) -> dict[int, int]:
    """{cpu: position of its set, by first CPU}; of overlapping sets the smallest."""
    ordered = sorted(set(sets))
    by_width = sorted(enumerate(ordered), key=lambda item: -len(item[1]))
    return {cpu: position for position, cpus in by_width for cpu in cpus}


def read_topology(root: str = "/") -> Topology:
    """The machine whose /sys and /proc lie below `root`. UsageError for another root without sys/devices/system/cpu,
    MachineError for this machine without it."""
    tree = Tree(root)
    directories = tree.numbered(_CPU, "cpu")
    online = _read_online(tree, directories)
    if not online:
        if tree.live:
            raise MachineError("/sys/devices/system/cpu shows no CPU", "run on Linux with /sys mounted")
        raise UsageError(f"no CPU below {tree.root}{_CPU}", "give a directory that holds sys/ and proc/ of a machine")
    described = {cpu: path for cpu, path in directories.items() if cpu in online}
    cores, dies, clusters = _read_levels(tree, described, online)
    caches = _read_caches(tree, described, online, cores)
    nodes, numa = _read_nodes(tree, online)
    packages = _read_packages(tree, described, online)
    _warn_compute_units(tree, cores, caches)
    _warn_wide_caches(tree, packages, caches)
    present = tree.cpu_list(f"{_CPU}/present")
    cpus, mems = _read_limits(tree, online, frozenset(node.id for node in nodes))
    kinds = _read_kinds(tree, described, online, caches)
    possible = tree.cpu_list(f"{_CPU}/possible")
    return Topology(
        cpus=_tuple(online),
        allowed_cpus=_tuple(cpus),
        allowed_mems=_tuple(mems),
        packages=packages,
        dies=dies,
        clusters=clusters,
        cores=cores,
        smt=max(map(len, cores), default=None),
        caches=caches,
        nodes=nodes,
        numa=numa,
        kinds=kinds,
        possible=None if possible is None else _tuple(possible),
        present=None if present is None else _tuple(present),
        offline=_tuple((frozenset(directories) if present is None else present) - online),
        isolated=_tuple((tree.cpu_list(f"{_CPU}/isolated") or frozenset()) & online),
        nohz_full=_tuple((tree.cpu_list(f"{_CPU}/nohz_full") or frozenset()) & online),
        warnings=tuple(tree.warnings),
    )


def _tuple(cpus: Iterable[int]) -> Cpus:
    return tuple(sorted(cpus))


def _read_online(tree: Tree, directories: dict[int, str]) -> CpuSet:
    """cpu/online; without it every cpuN whose `online` is not 0 (CPU 0 and old kernels have no such file)."""
    online = tree.cpu_list(f"{_CPU}/online")
    if online:
        return online
    return frozenset(cpu for cpu, path in directories.items() if tree.read(f"{path}/online") != "0")


def _read_set(tree: Tree, path: str, *names: str) -> CpuSet | None:
    """The first that exists of several names of one set (core_cpus was thread_siblings before Linux 5.3)."""
    sets = (tree.cpu_set(f"{path}/{name}", f"{path}/{name}_list") for name in names)
    return next((cpus for cpus in sets if cpus is not None), None)


def _distinct(tree: Tree, sets: Iterable[CpuSet], noun: str) -> tuple[Cpus, ...]:
    """Each set once, by first CPU; a CPU in two of them is a warning."""
    unique = sorted({_tuple(cpus) for cpus in sets})
    counts = Counter(cpu for cpus in unique for cpu in cpus)
    twice = [cpu for cpu, count in counts.items() if count > 1]
    if twice:
        tree.warn(f"CPUs {format_list(twice)} are in more than one {noun}: sharing is not symmetric in sysfs")
    return tuple(unique)


def _read_levels(tree: Tree, directories: dict[int, str], online: CpuSet):
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
        tree.warn(f"CPUs {format_list(silent)} are online without core information in sysfs")
    return tuple(_distinct(tree, sets, noun) for sets, noun in ((cores, "core"), (dies, "die"), (clusters, "cluster")))


def _read_packages(tree: Tree, directories: dict[int, str], online: CpuSet) -> tuple[Package, ...]:
    """By physical_package_id (core_siblings can stop at a node). -1 means unknown and makes no package."""
    members: dict[int, list[int]] = {}
    for cpu, directory in directories.items():
        number = tree.number(f"{directory}/topology/physical_package_id")
        if number is not None and number != -1:
            members.setdefault(number, []).append(cpu)
    unknown = online.difference(*members.values()) if members else online
    if unknown:
        tree.warn(f"the package of CPUs {format_list(unknown)} is unknown (physical_package_id missing or -1)")
    return tuple(Package(number, _tuple(cpus)) for number, cpus in sorted(members.items()))


def _read_caches(tree: Tree, directories: dict[int, str], online: CpuSet, cores) -> tuple[Cache, ...]:
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
            found[level, kind, size or None, line or None, _tuple(shared & online)] = None
    if unshared:
        tree.warn(f"{', '.join(sorted(unshared))}: no CPU set that holds its own CPU; taken as one per core")
    if without:
        tree.warn(f"CPUs {format_list(without)} show no caches")
    caches = sorted((Cache(*each) for each in found), key=lambda each: (each.level, each.type or "", each.cpus))
    for level, kind in sorted({(each.level, each.type or "") for each in caches}):
        same = [frozenset(each.cpus) for each in caches if (each.level, each.type or "") == (level, kind)]
        _distinct(tree, same, f"L{level} {kind} cache")
    return tuple(caches)


def _warn_compute_units(tree: Tree, cores: tuple[Cpus, ...], caches: tuple[Cache, ...]) -> None:
    """AMD family 15h: sysfs and lscpu pair integer cores as threads, hwloc counts them as cores. sysfs is followed."""
    l1 = _owners([cache.cpus for cache in caches if cache.level == 1 and cache.type == "Data"])
    split = [core for core in cores if len({l1[cpu] for cpu in core if cpu in l1}) > 1]
    if split:
        tree.warn(f"{len(split)} cores have threads with an L1d each: sysfs pairs compute units, hwloc splits them")


def _warn_wide_caches(tree: Tree, packages: tuple[Package, ...], caches: tuple[Cache, ...]) -> None:
    """Phones number their clusters as packages."""
    package_of = {cpu: package.id for package in packages for cpu in package.cpus}
    if any(len({package_of[cpu] for cpu in cache.cpus if cpu in package_of}) > 1 for cache in caches):
        tree.warn("a cache is shared across packages: these package ids are not sockets")


def _read_nodes(tree: Tree, online: CpuSet) -> tuple[tuple[Node, ...], bool]:
    """Node directories, ascending (has_cpu and has_memory are stale or empty on many machines and not read)."""
    directories = tree.numbered(_NODE, "node")
    if not directories:
        tree.warn("the kernel shows no NUMA nodes: one node stands for the whole machine")
        memory = tree.parsed("proc/meminfo", _parse_total)
        return (Node(0, _tuple(online), memory),), False
    cpus = {number: _read_node_cpus(tree, number, path) for number, path in directories.items()}
    strangers = frozenset().union(*cpus.values()) - online
    if strangers:
        tree.warn(f"node maps name CPUs that are not online: {format_list(strangers)}")
    cpus = {number: members & online for number, members in cpus.items()}
    counts = Counter(cpu for members in cpus.values() for cpu in members)
    if any(count > 1 for count in counts.values()):
        repeated = format_list(cpu for cpu, count in counts.items() if count > 1)
        tree.warn(f"CPUs {repeated} are in more than one NUMA node: the smallest, then the first node counts")
    if online - set(counts):
        tree.warn(f"CPUs {format_list(online - set(counts))} are in no NUMA node")
    with_cpus = {number for number, members in cpus.items() if members}
    nodes = [_read_node(tree, number, path, cpus[number], directories, with_cpus)
             for number, path in directories.items()]
    _warn_memory(tree, [node.memory_bytes for node in nodes])
    return tuple(nodes), True


def _warn_memory(tree: Tree, sizes: list[int | None]) -> None:
    total = tree.parsed("proc/meminfo", _parse_total)
    if total and None not in sizes and abs(sum(sizes) - total) > _MEMORY_SLACK * total:
        tree.warn(f"the nodes sum up to {sum(sizes) >> 20} MiB of memory, proc/meminfo says {total >> 20} MiB")


def _read_node_cpus(tree: Tree, number: int, path: str) -> CpuSet:
    members = tree.cpu_set(f"{path}/cpumap", f"{path}/cpulist")
    if members is not None:
        return members
    tree.warn("a node has neither cpumap nor cpulist: its cpuN links are taken", f"node {number}")
    return frozenset(tree.numbered(path, "cpu"))


def _read_node(tree: Tree, number: int, path: str, members: CpuSet, directories, with_cpus: set[int]) -> Node:
    names = tree.names(path)
    access = tuple(_read_access(tree, f"{path}/{name}", name) for name in names if re.fullmatch(r"access\d+", name))
    caches = tree.numbered(f"{path}/memory_side_cache", "index") if "memory_side_cache" in names else {}
    return Node(
        id=number,
        cpus=_tuple(members),
        memory_bytes=tree.parsed(f"{path}/meminfo", _parse_total),
        distances=_read_distances(tree, number, path, directories),
        access=access,
        cpu_access=_choose_access(access, with_cpus),
        memory_side_caches=tuple(
            MemorySideCache(
                level, tree.parsed(f"{each}/size", parse_size), tree.number(f"{each}/line_size") or None
            )
            for level, each in caches.items()
        ),
    )


def _parse_total(text: str) -> int:
    match = re.search(r"MemTotal:\s*(\d+)\s*kB", text)
    if not match:
        raise ValueError("no MemTotal")
    return int(match[1]) * _KIB


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
    if not usable and "access1" in by_name and _has_values(by_name["access1"]):
        return "access1"
    return next((name for name in usable if _has_values(by_name[name])), usable[0] if usable else None)


def _has_values(access: AccessClass) -> bool:
    return any(msgspec.structs.astuple(access)[3:])


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


def _read_kinds(tree: Tree, directories: dict[int, str], online: CpuSet, caches) -> tuple[CoreKind, ...]:
    """Kinds of core, from the first source that tells at least two apart; empty when all are alike or unknown."""
    for source, found in (
        ("sys/devices/cpu_*/cpus", lambda: _kinds_from_pmus(tree)),
        ("proc/cpuinfo CPU part", lambda: _kinds_from_parts(tree)),
        ("cpu_capacity", lambda: _kinds_from_capacity(tree, directories)),
        ("cache sizes and base_frequency", lambda: _kinds_from_caches(tree, directories, caches)),
    ):
        kinds = {name: _tuple(frozenset(cpus) & online) for name, cpus in found().items()}
        kinds = {name: cpus for name, cpus in kinds.items() if cpus}
        if len(kinds) > 1:
            ordered = sorted(kinds.items(), key=lambda item: item[1])
            return tuple(CoreKind(name, cpus, source) for name, cpus in ordered)
    return ()


def _group(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for name, cpu in pairs:
        groups.setdefault(name, []).append(cpu)
    return groups


def _kinds_from_pmus(tree: Tree) -> dict[str, CpuSet]:
    """Intel hybrid: the performance monitors cpu_core, cpu_atom, cpu_lowpower name their CPUs."""
    pmus = [name for name in tree.names("sys/devices") if name.startswith("cpu_")]
    found = {name[len("cpu_") :]: tree.cpu_list(f"sys/devices/{name}/cpus") for name in pmus}
    return {name: cpus for name, cpus in found.items() if cpus}


def _kinds_from_parts(tree: Tree) -> dict[str, list[int]]:
    """Arm: implementer and part. cpu_capacity has more values than there are kinds (binning of single cores)."""
    pairs, fields = [], {}
    for line in (tree.read("proc/cpuinfo") or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor":
            fields = {key: value}
        fields[key] = value
        if key == "CPU part" and fields.get("processor", "").isdigit():
            pairs.append((f"{fields.get('CPU implementer', '?')}/{value}", int(fields["processor"])))
    return _group(pairs)


def _kinds_from_capacity(tree: Tree, directories: dict[int, str]) -> dict[str, list[int]]:
    capacities = ((tree.number(f"{path}/cpu_capacity"), cpu) for cpu, path in directories.items())
    return _group((f"capacity {capacity}", cpu) for capacity, cpu in capacities if capacity is not None)


def _kinds_from_caches(tree: Tree, directories: dict[int, str], caches: tuple[Cache, ...]) -> dict[str, list[int]]:
    """Both must differ: base frequencies differ between equal cores (Intel Speed Select), cache lists have gaps."""
    sizes: dict[int, dict[str, int]] = {}
    for cache in caches:
        if cache.level <= 2 and cache.size_bytes:
            name = f"L{cache.level}{_LETTERS.get(cache.type, '')}"
            for cpu in cache.cpus:
                sizes.setdefault(cpu, {})[name] = cache.size_bytes // _KIB
    signatures = {tuple(sorted(each.items())) for each in sizes.values()}
    names = {tuple(name for name, _ in signature) for signature in signatures}
    frequencies = {cpu: tree.number(f"{directories[cpu]}/cpufreq/base_frequency") for cpu in sizes}
    if len(signatures) < 2 or len(names) > 1 or None in frequencies.values() or len(set(frequencies.values())) < 2:
        return {}
    telling = [name for name in sorted(*names, reverse=True) if len({dict(each)[name] for each in signatures}) > 1]
    enough = next((telling[:count] for count in range(1, len(telling))
                   if len({tuple(dict(each)[name] for name in telling[:count]) for each in signatures})
                   == len(signatures)), telling)
    return _group((", ".join(f"{name} {each[name]} KiB" for name in enough), cpu)
                  for cpu, each in sorted(sizes.items()))


def to_json_dict(topology: Topology) -> dict:
    """Plain data for JSON: CPU sets as ascending list strings, unknown as None. Packages are ordered by id, nodes by
    id, caches by level, type and first CPU, all other lists by first CPU."""

    def optional(cpus: Cpus | None) -> str | None:
        return None if cpus is None else format_list(cpus)

    return {
        "cpus": format_list(topology.cpus),
        "allowed_cpus": format_list(topology.allowed_cpus),
        "packages": [{"id": each.id, "cpus": format_list(each.cpus)} for each in topology.packages],
        "cores": [format_list(core) for core in topology.cores],
        "nodes": [_node_json(topology, node) for node in topology.nodes],
        "caches": [{**msgspec.structs.asdict(each), "cpus": format_list(each.cpus)} for each in topology.caches],
        "smt": topology.smt,
        "warnings": list(topology.warnings),
        "allowed_nodes": format_list(topology.allowed_mems),
        "numa": topology.numa,
        "dies": [format_list(each) for each in topology.dies],
        "clusters": [format_list(each) for each in topology.clusters],
        "kinds": [{**msgspec.structs.asdict(each), "cpus": format_list(each.cpus)} for each in topology.kinds],
        "possible": optional(topology.possible),
        "present": optional(topology.present),
        "offline": format_list(topology.offline),
        "isolated": format_list(topology.isolated),
        "nohz_full": format_list(topology.nohz_full),
    }


def _access_json(access: AccessClass) -> dict:
    values = msgspec.structs.asdict(access)
    del values["name"]
    return {**values, "initiators": list(access.initiators), "targets": list(access.targets)}


def _node_json(topology: Topology, node: Node) -> dict:
    return {
        "id": node.id,
        "cpus": format_list(node.cpus),
        "memory_bytes": node.memory_bytes,
        "distances": {str(other): far for other, far in node.distances.items()},
        "access": {each.name: _access_json(each) for each in node.access},
        "cpu_access": node.cpu_access,
        "nearest_cpu_nodes": list(topology.nearest_cpu_nodes(node.id)),
        "memory_side_caches": [msgspec.to_builtins(each) for each in node.memory_side_caches],
    }
