"""How the CPUs, caches and NUMA nodes of a Linux machine lie to each other, and which CPUs to choose for a measurement.

What the kernel does not say is None (or missing from its list), never a guess; every oddity is a line in
`Topology.warnings`. `discover.py` reads it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

import msgspec

from ..errors import UsageError
from ..units import format_cpus
from .discover import discover
from .parts import AccessClass, Cache, CoreKind, Cpus, Node, Package, owners

# From the closest to the farthest. The levels are nested: two CPUs are "l3" only inside one node, "node" only inside
# one package, so that an L3 which sysfs shows across two sub-NUMA nodes does not hide the step between these nodes.
RELATIONS = ("same", "smt", "cluster", "l3", "node", "package", "cross_package")
_DEPTHS = {"cross_package": 0, "package": 1, "node": 2, "l3": 3, "cluster": 4, "smt": 5}
_NAMES = {depth: name for name, depth in _DEPTHS.items()}


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
    vectors: tuple[str, ...]  # instruction sets for streams, the widest last
    extensions: tuple[str, ...] = ()  # other instructions that some processors have, as /proc/cpuinfo calls them
    warnings: tuple[str, ...]

    @cached_property
    def _places(self) -> dict[int, tuple[int | None, ...]]:
        """{cpu: (package, node, l3, cluster, core)}: numbers that are equal inside a domain, None where unknown."""
        packages = owners([package.cpus for package in self.packages])
        l3 = owners([cache.cpus for cache in self.caches if cache.level == 3 and cache.holds_data])
        cores = owners(self.cores)
        core_sets = set(self.cores)
        l3_sets = [set(cache.cpus) for cache in self.caches if cache.level == 3]
        l2 = [cache.cpus for cache in self.caches if cache.level == 2 and cache.holds_data]
        # A kernel cluster as wide as the L3 (GB10) or as one core (x86 with private L2) adds no level.
        inner = [each for each in self.clusters if not any(one <= set(each) for one in l3_sets)]
        clusters = owners([each for each in (*l2, *inner) if len(each) > 1 and each not in core_sets])
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
            raise UsageError(f"CPU {missing} is not online", f"choose among {format_cpus(self.cpus)}") from None
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
        domains = self._allowed_domains[relation]
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

    @cached_property
    def _allowed_domains(self) -> dict[str, list[list[list[int]]]]:
        """{relation: its domains of allowed CPUs that have several parts}."""
        return {
            name: [parts for parts in self._domains(name, self.allowed_cpus) if len(parts) > 1]
            for name in RELATIONS
            if name != "same"
        }

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

    @cached_property
    def _ordered(self) -> Cpus:
        return tuple(sorted(self.allowed_cpus, key=self._order_key))

    @cached_property
    def _cores_by_node(self) -> dict[int | None, Cpus]:
        """{node: its allowed CPUs in topology order, one per core}."""
        found: dict[int | None, list[int]] = {}
        for cpu in self._ordered:
            if self._ranks[cpu] == 0:
                found.setdefault(self.node_of(cpu), []).append(cpu)
        return {node: tuple(cpus) for node, cpus in found.items()}

    @cached_property
    def _nodes_with_memory(self) -> tuple[int, ...]:
        allowed = set(self.allowed_mems)
        return tuple(node.id for node in self.nodes if node.id in allowed and node.memory_bytes != 0)

    @cached_property
    def allowed_set(self) -> frozenset[int]:
        """`allowed_cpus` to look in: a plan does so for each pair of CPUs."""
        return frozenset(self.allowed_cpus)

    def order_cpus(self) -> Cpus:
        """Allowed CPUs, one per core, filling an L3, then the L3s of a node, nodes, packages; SMT siblings last."""
        return self._ordered

    def spread_cpus(self) -> Cpus:
        """Allowed CPUs, one per L3 in turn, the L3s of different nodes in turn; SMT siblings last. Where no L3 is known, nodes in turn."""
        groups: dict[tuple, dict[tuple, list[int]]] = {}
        for cpu in self.order_cpus():
            place = self._places[cpu]
            groups.setdefault(place[:2], {}).setdefault(place[:3], []).append(cpu)
        turns = itertools.zip_longest(*(node.values() for node in groups.values()))
        return tuple(self._dealt([group for turn in turns for group in turn if group])) if groups else ()

    def kind_of(self, cpu: int) -> str | None:
        """The name of its kind of core; None where all are alike."""
        return next((kind.name for kind in self.kinds if cpu in kind.cpus), None)

    def own_kinds(self) -> tuple[CoreKind, ...]:
        """Kinds of core with allowed CPUs, the biggest cores first; those of which nothing says so by the number of their CPUs."""
        allowed = set(self.allowed_cpus)
        here = [kind for kind in self.kinds if allowed.intersection(kind.cpus)]
        return tuple(sorted(here, key=lambda kind: (-kind.speed, -len(kind.cpus), kind.cpus)))

    def of_kind(self, name: str) -> Topology:
        """The machine with the allowed CPUs of one kind as the only allowed ones."""
        cpus = {cpu for kind in self.kinds if kind.name == name for cpu in kind.cpus}
        return msgspec.structs.replace(self, allowed_cpus=tuple(cpu for cpu in self.allowed_cpus if cpu in cpus))

    def cpus_in_place(self) -> Cpus:
        """Allowed CPUs as they lie: by package, node, L3, cluster and core, siblings next to each other."""
        return tuple(sorted(self.allowed_cpus, key=lambda cpu: self._order_key(cpu)[1:]))

    def node_cores(self, node: int) -> Cpus:
        """The node's allowed CPUs in topology order, one per core; without NUMA those of the machine."""
        if not self.numa:
            return tuple(cpu for cpu in self._ordered if self._ranks[cpu] == 0)
        return self._cores_by_node.get(node, ())

    def cpu_nodes(self) -> tuple[int, ...]:
        """Nodes with allowed CPUs; of overlapping nodes those that `node_of` answers."""
        return tuple(sorted({self.node_of(cpu) for cpu in self.allowed_cpus} - {None}))

    def memory_nodes(self) -> tuple[int, ...]:
        """Allowed nodes that have memory or do not say."""
        return self._nodes_with_memory

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
        for cache in sorted((each for each in self.caches if each.holds_data), key=lambda each: each.level):
            last.update(dict.fromkeys(cache.cpus, cache))
        return tuple({id(cache): cache for cache in last.values()}.values())

    def llc_bytes_total(self, cpus: Iterable[int] | None = None) -> int | None:
        """Sum over the last-level caches of `cpus` (default: all online ones, allowed or not), without memory-side caches."""
        wanted = set(self.cpus if cpus is None else cpus)
        sizes = [cache.size_bytes for cache in self.last_level_caches() if wanted.intersection(cache.cpus)]
        return sum(sizes) if sizes and None not in sizes else None

    def largest_line_bytes(self) -> int | None:
        return max((cache.line_bytes for cache in self.caches if cache.line_bytes), default=None)


def read_topology(root: str = "/") -> Topology:
    """The machine whose /sys and /proc lie below `root`. UsageError for another root without sys/devices/system/cpu,
    MachineError for this machine without it."""
    return Topology(**discover(root))


def to_json_dict(topology: Topology) -> dict:
    """Plain data for JSON: CPU sets as ascending list strings, unknown as None. Packages are ordered by id, nodes by
    id, caches by level, type and first CPU, all other lists by first CPU."""

    def optional(cpus: Cpus | None) -> str | None:
        return None if cpus is None else format_cpus(cpus)

    def plain(part: Package | Cache | CoreKind) -> dict:
        return {**msgspec.structs.asdict(part), "cpus": format_cpus(part.cpus)}

    return {
        "cpus": format_cpus(topology.cpus),
        "allowed_cpus": format_cpus(topology.allowed_cpus),
        "packages": [plain(each) for each in topology.packages],
        "cores": [format_cpus(core) for core in topology.cores],
        "nodes": [_node_json(topology, node) for node in topology.nodes],
        "caches": [plain(each) for each in topology.caches],
        "smt": topology.smt,
        "warnings": list(topology.warnings),
        "allowed_nodes": format_cpus(topology.allowed_mems),
        "numa": topology.numa,
        "dies": [format_cpus(each) for each in topology.dies],
        "clusters": [format_cpus(each) for each in topology.clusters],
        "kinds": [plain(each) for each in topology.kinds],
        "possible": optional(topology.possible),
        "present": optional(topology.present),
        "offline": format_cpus(topology.offline),
        "isolated": format_cpus(topology.isolated),
        "nohz_full": format_cpus(topology.nohz_full),
        "vectors": list(topology.vectors),
    }


def _node_json(topology: Topology, node: Node) -> dict:
    def plain(access: AccessClass) -> dict:
        values = {**msgspec.structs.asdict(access), "initiators": list(access.initiators), "targets": list(access.targets)}
        return {key: value for key, value in values.items() if key != "name"}

    return {
        "id": node.id,
        "cpus": format_cpus(node.cpus),
        "memory_bytes": node.memory_bytes,
        "distances": {str(other): far for other, far in node.distances.items()},
        "access": {each.name: plain(each) for each in node.access},
        "cpu_access": node.cpu_access,
        "nearest_cpu_nodes": list(topology.nearest_cpu_nodes(node.id)),
        "memory_side_caches": [msgspec.structs.asdict(each) for each in node.memory_side_caches],
    }
