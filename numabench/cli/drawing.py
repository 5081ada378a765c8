"""The drawing of `numabench machine`: packages, nodes, caches and cores as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.text import Text
from rich.tree import Tree

from ..host.topology import Node, Topology
from ..units import format_bytes, format_cpus

_MAX_CPU_TEXT = 26  # characters of a CPU list before it is abbreviated
_MEMORY_TOLERANCE = 0.1  # the kernel takes its own share from some nodes and not from others
_SHOWN_SETS = 2  # CPU sets named for a group of equal parts


@dataclass(frozen=True)
class Part:
    """A part of the drawing: a noun with a name (id) and details, its CPUs, the parts inside it and its memory."""

    noun: str
    name: str
    detail: str
    cpus: tuple[int, ...]
    parts: Sequence[Part] = ()
    memory: int | None = None

    def is_like(self, other: Part) -> bool:
        """Whether the two differ in nothing but names, CPU numbers and a little memory."""
        amounts = (self.memory or 0, other.memory or 0)
        return (
            (self.noun, self.detail, len(self.cpus), len(self.parts))
            == (other.noun, other.detail, len(other.cpus), len(other.parts))
            and max(amounts) - min(amounts) <= _MEMORY_TOLERANCE * max(amounts)
            and all(own.is_like(its) for own, its in zip(self.parts, other.parts, strict=True))
        )


def draw(title: str, topology: Topology) -> Tree:
    tree = Tree(Text(title, style="bold"))
    _grow(tree, _parts(topology))
    return tree


def _grow(branch, parts: Sequence[Part], each: bool = False) -> None:
    """Add parts to a rich tree. Of parts that look alike only the first is drawn, without names and CPU numbers of
    what is inside it, because these are other ones in the other parts."""
    groups: list[list[Part]] = []
    for part in parts:
        group = next((group for group in groups if group[0].is_like(part)), None)
        if group:
            group.append(part)
        else:
            groups.append([part])
    for group in groups:
        _grow(branch.add(Text(_label(group, each))), group[0].parts, each or len(group) > 1)


def _label(group: list[Part], each: bool) -> str:
    first, several = group[0], len(group) > 1
    label = f"{len(group)} {first.noun}s" if several else first.noun
    names = ",".join(part.name for part in group if part.name)
    if names and not each:
        label += f" {names if len(names) <= _MAX_CPU_TEXT else f'{group[0].name}, … {group[-1].name}'}"
    details = [text for text in (_amount(group), first.detail) if text]
    if details:
        label += f": {', '.join(details)}"
    if each:
        return f"each {label}"
    if first.noun != "core" and first.cpus:
        sets = [brief(part.cpus) for part in group[:_SHOWN_SETS]] + ["…"] * (len(group) > _SHOWN_SETS)
        label += f"  [CPUs {' | '.join(sets)}]"
    return label


def _amount(group: list[Part]) -> str:
    """Memory of each part: `63 GiB`, or `62 GiB to 63 GiB`."""
    amounts = sorted(part.memory for part in group if part.memory is not None)
    texts = [memory_text(amount) for amount in (amounts[:1] + amounts[-1:])]
    return " to ".join(dict.fromkeys(texts))


def brief(cpus: Iterable[int]) -> str:
    """A CPU list that fits into a line: `0-3,8`, or `0,2,4,…,110` with the number of CPUs."""
    ordered = sorted(cpus)
    text = format_cpus(ordered)
    if len(text) <= _MAX_CPU_TEXT:
        return text
    ranges = text.split(",")
    return f"{','.join(ranges[:2])},…,{ranges[-1]} ({len(ordered)})"


def memory_text(size: int | None) -> str:
    if size is None:
        return "unknown"
    gib = size / (1 << 30)
    return f"{gib:.0f} GiB" if gib >= 10 else format_bytes(size)


def _parts(topology: Topology) -> list[Part]:
    placed = {cpu for package in topology.packages for cpu in package.cpus}
    rest = tuple(cpu for cpu in topology.cpus if cpu not in placed)
    parts = [Part("package", str(each.id), "", each.cpus, _node_parts(topology, each.cpus)) for each in topology.packages]
    if rest:
        parts += _node_parts(topology, rest)
    return parts + [_memory_part(topology, node) for node in topology.nodes if not node.cpus]


def _memory_part(topology: Topology, node: Node) -> Part:
    nearest = topology.nearest_cpu_nodes(node.id)
    detail = "no CPU" + (f", nearest to node {','.join(map(str, nearest))}" if nearest else "")
    return Part("node", str(node.id), detail, (), (), node.memory_bytes)


def _node_parts(topology: Topology, cpus: tuple[int, ...]) -> list[Part]:
    by_node: dict[int | None, list[int]] = {}
    for cpu in cpus:
        by_node.setdefault(topology.node_of(cpu), []).append(cpu)
    nodes = {node.id: node for node in topology.nodes}
    parts = []
    for number, members in sorted(by_node.items(), key=lambda item: item[1]):
        inside = _l3_parts(topology, tuple(members))
        if number is None:
            parts.append(Part("group without node", "", "", tuple(members), inside))
        elif topology.numa:
            parts.append(Part("node", str(number), "", tuple(members), inside, nodes[number].memory_bytes))
        else:
            parts += inside
    return parts


def _l3_parts(topology: Topology, cpus: tuple[int, ...]) -> list[Part]:
    left, parts = list(cpus), []
    for cache in topology.caches:
        members = tuple(cpu for cpu in cache.cpus if cpu in left)
        if cache.level != 3 or not cache.holds_data or not members:
            continue
        size = format_bytes(cache.size_bytes) if cache.size_bytes else "size unknown"
        wider = set(cache.cpus) - set(cpus)
        detail = f"{size}, shared with CPUs outside" if wider else size
        parts.append(Part("L3", "", detail, members, _core_parts(topology, members)))
        left = [cpu for cpu in left if cpu not in members]
    return parts + _core_parts(topology, tuple(left))


def _core_parts(topology: Topology, cpus: tuple[int, ...]) -> list[Part]:
    """One part per core, described by its threads and private caches."""
    chosen, parts = set(cpus), []
    kinds = {cpu: kind.name for kind in topology.kinds for cpu in kind.cpus if not kind.source.startswith("cache")}
    caches: dict[int, list] = {}
    for cache in topology.caches:
        for cpu in cache.cpus if cache.level < 3 else ():
            caches.setdefault(cpu, []).append(cache)
    known = {cpu for core in topology.cores for cpu in core}
    for core in (*topology.cores, *((cpu,) for cpu in cpus if cpu not in known)):
        members = tuple(cpu for cpu in core if cpu in chosen)
        if not members:
            continue
        texts = []
        for cache in caches.get(members[0], ()):
            size = format_bytes(cache.size_bytes) if cache.size_bytes else "?"
            shared = f" by {len(cache.cpus)} CPUs" if set(cache.cpus) - set(core) else ""
            texts.append(f"{cache.name} {size}{shared}")
        threads = [f"{len(members)} thread{'s' if len(members) > 1 else ''}"] if topology.smt != 1 else []
        kind = [kinds[members[0]]] if members[0] in kinds else []
        parts.append(Part("core", "", ", ".join([*kind, *threads, *texts]), members))
    return parts
