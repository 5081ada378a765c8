"""Measured latency and bandwidth between nodes as memory attributes of hwloc, for every program that asks hwloc where to put its data.

A topology in hwloc's XML (version 2) with what the run log says of the machine: packages, nodes, cores, CPUs. Read it with
HWLOC_XMLFILE, `lstopo --input` or hwloc_topology_set_xml. Source: hwloc's documentation of memory attributes (hwloc/memattrs.h):
bandwidth in MiB/s (flags: higher first, per initiator), latency in ns (lower first, per initiator).
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

from ..errors import UsageError
from ..runlog.read import RunLog
from ..units import parse_cpus
from .nodes import caution, matrix_of, one_machine, valid_cells

MIB = 1 << 20
HIGHER_FIRST, LOWER_FIRST, NEED_INITIATOR = 1, 2, 4  # hwloc_memattr_flag_e
#: hwloc's name, flags, benchmark, metric, parameters, and what one unit of hwloc is in the metric's.
ATTRIBUTES = (
    ("Bandwidth", HIGHER_FIRST, "node_bandwidth", "bandwidth", {"kernel": "read"}, MIB),
    ("ReadBandwidth", HIGHER_FIRST, "node_bandwidth", "bandwidth", {"kernel": "read"}, MIB),
    ("WriteBandwidth", HIGHER_FIRST, "node_bandwidth", "bandwidth", {"kernel": "write"}, MIB),
    ("Latency", LOWER_FIRST, "node_latency", "latency", {}, 1),
    ("ReadLatency", LOWER_FIRST, "node_latency", "latency", {}, 1),
)


def memory_attributes(log: RunLog) -> str:
    """The XML for the one machine of `log`. Raises UsageError for several machines, or without a node matrix."""
    topology = one_machine(log).get("topology") or {}
    if not topology.get("nodes"):
        raise UsageError("these logs do not say which nodes the machine has", "run numabench node_latency node_bandwidth on it")
    tree = Tree(topology)
    estimates = valid_cells(log)
    found = [tree.attribute(*attribute[:2], matrix_of(estimates, *attribute[2:])) for attribute in ATTRIBUTES]
    if not any(found):
        raise UsageError(
            "these logs hold no valid matrix between nodes", "measure it first: numabench run node_latency node_bandwidth"
        )
    ElementTree.indent(tree.root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE topology SYSTEM "hwloc2.dtd">\n'
    if said := caution(estimates, "node_bandwidth", "node_latency"):
        head += f"<!-- {said} -->\n"
    return head + ElementTree.tostring(tree.root, encoding="unicode") + "\n"


def bitmap(numbers: Iterable[int]) -> str:
    """hwloc's text form: words of 32 bits, the highest first."""
    value = sum(1 << number for number in set(numbers))
    words = []
    while value or not words:
        words.append(f"0x{value & 0xFFFFFFFF:08x}")
        value >>= 32
    return ",".join(reversed(words))


class Tree:
    """The topology as hwloc wants it: NUMA nodes are memory children of what holds their CPUs."""

    def __init__(self, topology: dict):
        self.topology = topology
        self.nodes = {int(node["id"]): parse_cpus(node.get("cpus") or "") for node in topology["nodes"]}
        packages = topology.get("packages") or []  # what a log does not say is left out
        self.index: dict[int, int] = {}  # node -> gp_index
        self.last = 0
        self.root = ElementTree.Element("topology", version="2.0")
        cpus = parse_cpus(topology.get("cpus") or "")
        machine = self.add(self.root, "Machine", cpus, self.nodes, os_index="0")
        for node, own in self.nodes.items():
            if not own or not any(set(own) <= set(parse_cpus(p["cpus"])) for p in packages):
                self.add_node(machine, node, own or cpus)
        placed: set[int] = set()
        for number, package in enumerate(packages):
            placed |= self.add_package(machine, package, number)
        self.add_cores(machine, [cpu for cpu in cpus if cpu not in placed])

    def add(self, parent, what: str, cpus: Iterable[int], nodes: Iterable[int], **attributes: str):
        self.last += 1
        sets = {
            "cpuset": bitmap(cpus),
            "complete_cpuset": bitmap(cpus),
            "nodeset": bitmap(nodes),
            "complete_nodeset": bitmap(nodes),
        }
        if what == "Machine":
            sets |= {"allowed_cpuset": bitmap(cpus), "allowed_nodeset": bitmap(nodes)}
        return ElementTree.SubElement(parent, "object", type=what, **attributes, **sets, gp_index=str(self.last))

    def add_node(self, parent, node: int, cpus: Iterable[int]) -> None:
        memory = next(each.get("memory_bytes") for each in self.topology["nodes"] if int(each["id"]) == node)
        found = self.add(parent, "NUMANode", cpus, (node,), os_index=str(node), local_memory=str(memory or 0))
        ElementTree.SubElement(found, "page_type", size="4096", count=str((memory or 0) // 4096))
        self.index[node] = self.last

    def nodes_near(self, cpus: set[int]) -> list[int]:
        """Nodes of these CPUs, and those without any: hwloc counts both as near."""
        return [node for node, own in self.nodes.items() if not own or set(own) & cpus]

    def add_package(self, machine, package: dict, number: int) -> set[int]:
        cpus = parse_cpus(package["cpus"])
        inside = [(node, own) for node, own in self.nodes.items() if own and set(own) <= set(cpus)]
        found = self.add(
            machine,
            "Package",
            cpus,
            self.nodes_near(set(cpus)),
            os_index=str(number if package.get("id") is None else package["id"]),
        )
        placed: set[int] = set()
        for node, own in inside:
            parent = found
            if set(own) != set(cpus):
                parent = self.add(found, "Group", own, self.nodes_near(set(own)), kind="0", subkind="0")
            self.add_node(parent, node, own)
            self.add_cores(parent, own)
            placed |= set(own)
        self.add_cores(found, [cpu for cpu in cpus if cpu not in placed])
        return set(cpus)

    def add_cores(self, parent, cpus: Iterable[int]) -> None:
        left = set(cpus)
        cores = [set(parse_cpus(core)) & left for core in self.topology.get("cores") or ()]
        for number, core in enumerate(cores):
            if core:
                holder = self.add(parent, "Core", core, self.nodes_near(core), os_index=str(number))
                for cpu in sorted(core):
                    self.add(holder, "PU", (cpu,), self.nodes_near({cpu}), os_index=str(cpu))
                left -= core
        for cpu in sorted(left):
            self.add(parent, "PU", (cpu,), self.nodes_near({cpu}), os_index=str(cpu))

    def attribute(self, name: str, flags: int, values: dict[tuple[int, int], int]) -> bool:
        """Add the values; whether there were any."""
        values = {(a, b): value for (a, b), value in values.items() if a in self.index and b in self.index}
        if not values:
            return False
        element = ElementTree.SubElement(self.root, "memattr", name=name, flags=str(flags | NEED_INITIATOR))
        for (cpu_node, memory_node), value in sorted(values.items(), key=lambda item: item[0][::-1]):
            ElementTree.SubElement(
                element,
                "memattr_value",
                target_obj_gp_index=str(self.index[memory_node]),
                target_obj_type="NUMANode",
                value=str(value),
                initiator_cpuset=bitmap(self.nodes[cpu_node]),
            )
        return True
