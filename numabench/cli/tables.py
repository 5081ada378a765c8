"""What `numabench machine` says below its drawing: facts by label, and tables of nodes."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.table import Table
from rich.text import Text

from ..host.machine import Machine
from ..host.topology import Topology
from ..units import format_bytes, format_cpus
from .drawing import brief, memory_text

_MAX_ROWS = 16  # nodes drawn one by one: more do not fit on a screen, and their distances not in 80 columns


def listing(lines: list[tuple[str, str]], style: str) -> Table:
    """Labels on the left, texts that may wrap on the right."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style=style, no_wrap=True, min_width=10)
    grid.add_column()
    for label, text in lines:
        grid.add_row(label, Text(text))
    return grid


def facts(machine: Machine, topology: Topology) -> list[tuple[str, str]]:
    """(label, text) lines below the drawing; only what is known and worth a line."""
    configuration = machine.configuration
    cores = f", {len(topology.cores)} cores" if topology.cores else ""
    lines = [("CPUs", f"{len(topology.cpus)} online ({brief(topology.cpus)}){cores}, {machine.arch or 'unknown arch'}")]
    if topology.allowed_cpus != topology.cpus:
        lines.append(("may use", f"CPUs {format_cpus(topology.allowed_cpus) or 'none'}"))
    if topology.allowed_mems != tuple(node.id for node in topology.nodes):
        lines.append(("", f"memory of nodes {format_cpus(topology.allowed_mems) or 'none'}"))
    for label, cpus in (("offline", topology.offline), ("isolated", topology.isolated)):
        if cpus:
            lines.append((label, f"CPUs {brief(cpus)}"))
    if topology.kinds:
        lines.append(("kinds", "; ".join(f"{kind.name}: {format_cpus(kind.cpus)}" for kind in topology.kinds)))
    lines.append(("cache line", _line_sizes(topology)))
    setup = {"kernel": "kernel", "hypervisor": "hypervisor", "governor": "governor", "thp_enabled": "THP"}
    shown = [f"{name} {configuration[key]}" for key, name in setup.items() if configuration[key] not in (None, "none")]
    if shown:
        lines.append(("set up", ", ".join(shown)))
    lines += [(name, text) for name, text in condition_lines(machine.condition) if text]
    keys = f"id {machine.id}, hardware {machine.hardware_key}, configuration {machine.configuration_key}"
    return [*lines, ("keys", keys)]


def condition_lines(condition: dict) -> list[tuple[str, str]]:
    """(label, text) of what the machine is beyond its model, and of what would slow it; nothing where all is as usual."""
    firmware, board, product = (" ".join((condition[name] or {}).values()) for name in ("firmware", "board", "product"))
    errors, throttled = condition["memory_errors"] or {}, condition["throttled"] or {}
    unusual = [
        f"{errors['corrected']} corrected memory errors" if errors.get("corrected") else "",
        f"{errors['uncorrected']} uncorrected memory errors" if errors.get("uncorrected") else "",
        f"slowed for heat {max(throttled.values())} times" if any(throttled.values()) else "",
        f"idle states off: {', '.join(condition['idle_states_off'])}" if condition["idle_states_off"] else "",
    ]
    return [
        ("product", "; ".join(text for text in (product, f"board {board}" if board else "") if text)),
        ("firmware", firmware),
        ("modules", condition["memory_modules"] or ""),
        ("unusual", ", ".join(text for text in unusual if text)),
    ]


def _line_sizes(topology: Topology) -> str:
    levels: dict[int, set[str]] = {}
    for cache in topology.caches:
        if cache.line_bytes:
            levels.setdefault(cache.line_bytes, set()).add(f"L{cache.level}")
    if not levels:
        return "size unknown"
    if len(levels) == 1:
        return f"{next(iter(levels))} bytes at every level"
    return ", ".join(f"{size} bytes ({'/'.join(sorted(names))})" for size, names in sorted(levels.items()))


def node_table(topology: Topology) -> Table | None:
    """CPUs and memory of every node; None for one node and for more than fit on a screen."""
    nodes = topology.nodes
    if not 1 < len(nodes) <= _MAX_ROWS:
        return None
    cached = any(node.memory_side_caches for node in nodes)
    table = _table("node", "memory", *(["cached by"] if cached else []))
    table.add_column("CPUs")
    for node in nodes:
        sizes = (format_bytes(cache.size_bytes) if cache.size_bytes else "?" for cache in node.memory_side_caches)
        table.add_row(
            str(node.id), memory_text(node.memory_bytes), *([", ".join(sizes)] if cached else []), brief(node.cpus) or "–"
        )
    return table


def distance_table(topology: Topology) -> Table | None:
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


def access_table(topology: Topology) -> Table | None:
    """What the firmware's HMAT promises CPUs of each node's memory; None when it promises nothing."""
    rows = [(node, node.access_for_cpus()) for node in topology.nodes]
    rows = [(node, access) for node, access in rows if access and any(access.promises)]
    if not rows:
        return None
    table = _table(
        "node",
        "from node",
        "read ns",
        "write ns",
        "read MB/s",
        "write MB/s",
        caption="promised by the firmware (HMAT), not measured",
    )
    for node, access in rows[:_MAX_ROWS]:
        values = ("–" if value is None else str(value) for value in access.promises)
        table.add_row(str(node.id), ",".join(map(str, access.initiators)) or "–", *values)
    return table


def _table(*headings: str, caption: str | None = None) -> Table:
    """An empty table of right-aligned columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=caption, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
