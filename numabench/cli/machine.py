"""`numabench machine`: what this machine (or a copy of another one's /sys and /proc) looks like."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator

import click

_MAX_WIDTH = 100  # longer lines are hard to read; the terminal may be narrower
_MAX_ROWS = 16  # nodes drawn one by one: more do not fit on a screen, and their distances not in 80 columns
_MAX_CPU_TEXT = 26  # characters of a CPU list before it is abbreviated
_MEMORY_TOLERANCE = 0.1  # the kernel takes its own share from some nodes and not from others
_SHOWN_SETS = 2  # CPU sets named for a group of equal parts


@click.command("machine")
@click.option("--root", default="/", show_default=True, metavar="DIR",
              help="Directory (or .tar.gz of one) that holds sys/ and proc/ of a machine.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="A drawing for a person, or one JSON object.")
def command(root: str, form: str) -> None:
    """Show packages, NUMA nodes, caches and cores, and what this process may use of them."""
    import msgspec

    from ..host.machine import read_machine
    from ..host.topology import read_topology, to_json_dict

    with _opened(root) as directory:
        topology = read_topology(directory)
        machine = read_machine(directory, topology=topology)
    if form == "json":
        facts = msgspec.to_builtins(machine)
        document = {**to_json_dict(topology), "machine": {key: facts[key] for key in facts if key != "topology"}}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
    else:
        _print_text(machine, topology)


@contextlib.contextmanager
def _opened(root: str) -> Iterator[str]:
    """The directory with sys/: `root` itself, the only directory in it, or either inside a tar file."""
    import tarfile
    import tempfile

    from ..errors import UsageError

    fix = "give a directory that holds sys/ and proc/ of a machine"
    if not os.path.exists(root):
        raise UsageError(f"{root} does not exist", fix)
    if os.path.isdir(root):
        yield _with_sys(root, fix)
        return
    if not os.access(root, os.R_OK) or not tarfile.is_tarfile(root):
        raise UsageError(f"{root} is neither a directory nor a readable tar file", fix)
    if not hasattr(tarfile, "data_filter"):
        raise UsageError("this Python cannot extract tar files safely", f"tar -xf {root}, then give the directory")
    with tempfile.TemporaryDirectory(prefix="numabench-") as directory:
        try:
            with tarfile.open(root) as archive:
                archive.extractall(directory, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise UsageError(f"cannot extract {root}: {error}", f"tar -xf {root}, then give the directory") from error
        yield _with_sys(directory, fix)


def _with_sys(directory: str, fix: str) -> str:
    from ..errors import UsageError

    inner = [entry.path for entry in os.scandir(directory) if entry.is_dir()]
    for candidate in (directory, *(inner if len(inner) == 1 else ())):
        if os.path.isdir(os.path.join(candidate, "sys")):
            return candidate
    raise UsageError(f"{directory} holds no sys/", fix)


class Part:
    """A part of the drawing: a noun with a name (id) and details, its CPUs, its memory and the parts inside it."""

    def __init__(self, noun: str, name: str, detail: str, cpus: tuple[int, ...], parts: list[Part], memory=None):
        self.noun, self.name, self.detail, self.cpus, self.parts = noun, name, detail, cpus, parts
        self.memory: int | None = memory

    def is_like(self, other: Part) -> bool:
        """Whether the two differ in nothing but names, CPU numbers and a little memory."""
        amounts = (self.memory or 0, other.memory or 0)
        return (
            (self.noun, self.detail, len(self.cpus), len(self.parts))
            == (other.noun, other.detail, len(other.cpus), len(other.parts))
            and max(amounts) - min(amounts) <= _MEMORY_TOLERANCE * max(amounts)
            and all(own.is_like(its) for own, its in zip(self.parts, other.parts, strict=True))
        )


def _print_text(machine, topology) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    console = Console(highlight=False)
    console.width = min(console.width, _MAX_WIDTH)
    title = f"{machine.alias}: {machine.brand or 'processor of unknown brand'}"
    drawing = Tree(Text(title, style="bold"))
    _grow(drawing, _parts(topology))
    console.print(drawing)
    console.print(_listing(_facts(machine, topology), "dim"))
    for table in (_node_table(topology), _distance_table(topology), _access_table(topology)):
        if table:
            console.print(table)
    warnings = (*topology.warnings, *machine.warnings)
    console.print(_listing([("warning", warning) for warning in warnings], "yellow"), end="")


def _listing(lines: list[tuple[str, str]], style: str):
    """Labels on the left, texts that may wrap on the right."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style=style, no_wrap=True, min_width=10)
    grid.add_column()
    for label, text in lines:
        grid.add_row(label, Text(text))
    return grid


def _grow(branch, parts: list[Part], each: bool = False) -> None:
    """Add parts to a rich tree. Of parts that look alike only the first is drawn, without names and CPU numbers of
    what is inside it, because these are other ones in the other parts."""
    from rich.text import Text

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
    texts = [_memory(amount) for amount in (amounts[:1] + amounts[-1:])]
    return " to ".join(dict.fromkeys(texts))


def brief(cpus: Iterable[int]) -> str:
    """A CPU list that fits into a line: `0-3,8`, or `0,2,4,…,110` with the number of CPUs."""
    from ..host.sysfs import format_list

    ordered = sorted(cpus)
    text = format_list(ordered)
    if len(text) <= _MAX_CPU_TEXT:
        return text
    ranges = text.split(",")
    return f"{','.join(ranges[:2])},…,{ranges[-1]} ({len(ordered)})"


def _parts(topology) -> list[Part]:
    packages = [(f"{package.id}", package.cpus) for package in topology.packages]
    placed = {cpu for _, cpus in packages for cpu in cpus}
    rest = tuple(cpu for cpu in topology.cpus if cpu not in placed)
    parts = [Part("package", name, "", cpus, _node_parts(topology, cpus)) for name, cpus in packages]
    if rest:
        parts += _node_parts(topology, rest)
    return parts + [_memory_part(topology, node) for node in topology.nodes if not node.cpus]


def _memory_part(topology, node) -> Part:
    nearest = topology.nearest_cpu_nodes(node.id)
    detail = "no CPU" + (f", nearest to node {','.join(map(str, nearest))}" if nearest else "")
    return Part("node", str(node.id), detail, (), [], node.memory_bytes)


def _memory(size: int | None) -> str:
    from ..units import format_bytes

    if size is None:
        return "unknown"
    gib = size / (1 << 30)
    return f"{gib:.0f} GiB" if gib >= 10 else format_bytes(size)


def _node_parts(topology, cpus: tuple[int, ...]) -> list[Part]:
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


def _l3_parts(topology, cpus: tuple[int, ...]) -> list[Part]:
    from ..units import format_bytes

    left, parts = list(cpus), []
    for cache in topology.caches:
        members = tuple(cpu for cpu in cache.cpus if cpu in left)
        if cache.level != 3 or cache.type == "Instruction" or not members:
            continue
        size = format_bytes(cache.size_bytes) if cache.size_bytes else "size unknown"
        wider = set(cache.cpus) - set(cpus)
        detail = f"{size}, shared with CPUs outside" if wider else size
        parts.append(Part("L3", "", detail, members, _core_parts(topology, members)))
        left = [cpu for cpu in left if cpu not in members]
    return parts + _core_parts(topology, tuple(left))


def _core_parts(topology, cpus: tuple[int, ...]) -> list[Part]:
    """One part per core, described by its threads and private caches."""
    from ..units import format_bytes

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
            letter = {"Data": "d", "Instruction": "i"}.get(cache.type, "")
            size = format_bytes(cache.size_bytes) if cache.size_bytes else "?"
            shared = f" by {len(cache.cpus)} CPUs" if set(cache.cpus) - set(core) else ""
            texts.append(f"L{cache.level}{letter} {size}{shared}")
        threads = [f"{len(members)} thread{'s' if len(members) > 1 else ''}"] if topology.smt != 1 else []
        kind = [kinds[members[0]]] if members[0] in kinds else []
        parts.append(Part("core", "", ", ".join([*kind, *threads, *texts]), members, []))
    return parts


def _facts(machine, topology) -> list[tuple[str, str]]:
    """(label, text) lines below the drawing; only what is known and worth a line."""
    from ..host.sysfs import format_list

    configuration = machine.configuration
    cores = f", {len(topology.cores)} cores" if topology.cores else ""
    lines = [("CPUs", f"{len(topology.cpus)} online ({brief(topology.cpus)}){cores}, {machine.arch or 'unknown arch'}")]
    if topology.allowed_cpus != topology.cpus:
        lines.append(("may use", f"CPUs {format_list(topology.allowed_cpus) or 'none'}"))
    if topology.allowed_mems != tuple(node.id for node in topology.nodes):
        lines.append(("", f"memory of nodes {format_list(topology.allowed_mems) or 'none'}"))
    for label, cpus in (("offline", topology.offline), ("isolated", topology.isolated)):
        if cpus:
            lines.append((label, f"CPUs {brief(cpus)}"))
    if topology.kinds:
        lines.append(("kinds", "; ".join(f"{kind.name}: {format_list(kind.cpus)}" for kind in topology.kinds)))
    lines.append(("cache line", _line_sizes(topology)))
    setup = {"kernel": "kernel", "hypervisor": "hypervisor", "governor": "governor", "thp_enabled": "THP"}
    shown = [f"{name} {configuration[key]}" for key, name in setup.items() if configuration[key] not in (None, "none")]
    if shown:
        lines.append(("set up", ", ".join(shown)))
    lines.append(("keys", f"id {machine.id}, hardware {machine.hardware_key}, "
                          f"configuration {machine.configuration_key}"))
    return lines


def _line_sizes(topology) -> str:
    levels: dict[int, set[str]] = {}
    for cache in topology.caches:
        if cache.line_bytes:
            levels.setdefault(cache.line_bytes, set()).add(f"L{cache.level}")
    if not levels:
        return "size unknown"
    if len(levels) == 1:
        return f"{next(iter(levels))} bytes at every level"
    return ", ".join(f"{size} bytes ({'/'.join(sorted(names))})" for size, names in sorted(levels.items()))


def _table(*headings: str, caption: str | None = None):
    """An empty table of right-aligned columns."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=caption, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _node_table(topology):
    """CPUs and memory of every node; None for one node and for more than fit on a screen."""
    nodes = topology.nodes
    if not 1 < len(nodes) <= _MAX_ROWS:
        return None
    side = any(node.memory_side_caches for node in nodes)
    table = _table("node", "memory", *(["cached by"] if side else []))
    table.add_column("CPUs")
    for node in nodes:
        cached = [_side_caches(node)] if side else []
        table.add_row(str(node.id), _memory(node.memory_bytes), *cached, brief(node.cpus) or "–")
    return table


def _distance_table(topology):
    """The SLIT; of many nodes the number of pairs at each distance."""
    nodes = [node for node in topology.nodes if node.distances]
    if len(nodes) < 2:
        return None
    if len(nodes) > _MAX_ROWS:
        table = _table("distance", "pairs of nodes")
        counts = Counter(far for node in nodes for far in node.distances.values())
        for far, count in sorted(counts.items()):
            table.add_row(str(far), str(count))
        return table
    table = _table("node", *(str(node.id) for node in nodes), caption="distances (SLIT)")
    for node in nodes:
        table.add_row(str(node.id), *(str(node.distances.get(other.id, "–")) for other in nodes))
    return table


def _side_caches(node) -> str:
    from ..units import format_bytes

    return ", ".join(format_bytes(cache.size_bytes) if cache.size_bytes else "?" for cache in node.memory_side_caches)


def _access_table(topology):
    """What the firmware's HMAT promises CPUs of each node's memory; None when it promises nothing."""
    rows = [(node, node.access_for_cpus()) for node in topology.nodes]
    rows = [(node, access) for node, access in rows if access and any(_access_values(access))]
    if not rows:
        return None
    table = _table("node", "from node", "read ns", "write ns", "read MB/s", "write MB/s",
                   caption="promised by the firmware (HMAT), not measured")
    for node, access in rows[:_MAX_ROWS]:
        values = ("–" if value is None else str(value) for value in _access_values(access))
        table.add_row(str(node.id), ",".join(map(str, access.initiators)) or "–", *values)
    return table


def _access_values(access) -> tuple[int | None, ...]:
    return (access.read_latency_ns, access.write_latency_ns, access.read_bandwidth_mb_per_s,
            access.write_bandwidth_mb_per_s)
