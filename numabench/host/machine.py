"""What a host is (hardware), how it is set up (configuration), and two short keys that say when these are the same.

Nothing that changes by itself is part of a key: no clock rate, load, free memory or uptime. Facts that no file holds
(compiler, libc, Python, page size, brand from CPUID) are read only on the live machine, never beside another root.
"""

from __future__ import annotations

import os
import re
from collections import Counter

import msgspec

from .condition import read_condition
from .configuration import read_configuration
from .marks import read_marks, read_names
from .processor import arch_of, brand_of, flags_of, read_processor
from .programs import digest, read_programs
from .sysfs import Tree
from .topology import Topology, read_topology, to_json_dict

_GIB = 1 << 30
# Instruction-set and clock features that decide which kernels run or how memory is timed.
_RELEVANT_FLAGS = frozenset(
    (
        "constant_tsc",
        "nonstop_tsc",
        "tsc_known_freq",
        "rdtscp",
        "ht",
        "hypervisor",
        "lm",
        "la57",
        "pdpe1gb",
        "pcid",
        "invpcid",
        "cx16",
        "clflush",
        "clflushopt",
        "clwb",
        "clzero",
        "cldemote",
        "movdiri",
        "movdir64b",
        "waitpkg",
        "erms",
        "fsrm",
        "sse2",
        "avx",
        "avx2",
        "avx512f",
        "rtm",
        "atomics",
        "lrcpc",
        "sve",
        "sve2",
        "dcpop",
        "dcpodp",
        "uscat",
        "ilrcpc",
        "mte",
    )
)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`condition` is part of no key. `id` stays while CPUs are offline, `hardware_key` is equal for hosts of one model, `configuration_key` for hosts set up alike."""

    id: str
    alias: str
    hostname: str | None
    brand: str | None
    arch: str | None
    flags: tuple[str, ...]
    hardware_key: str
    hardware: dict
    configuration_key: str
    configuration: dict
    condition: dict
    topology: dict
    marks: dict = {}  # of this machine alone (marks.py)
    warnings: tuple[str, ...] = ()


def read_machine(root: str = "/", alias: str | None = None, facts: bool = True, topology: Topology | None = None) -> Machine:
    """Errors as `read_topology`. `facts=False` leaves out what needs another program (py-cpuinfo, the compiler): the
    id and the hardware key stay the same, the configuration key does not."""
    topology = topology or read_topology(root)
    tree = Tree(root)
    processor = read_processor(tree)
    own_brand = brand_of(processor)  # goes into the keys, because py-cpuinfo may fail one day and work another
    brand, flags = own_brand, frozenset(flags_of(processor))
    programs = {}
    if facts and tree.live:
        programs = read_programs(tree, processor)
        brand, flags = programs.get("brand") or brand, flags or frozenset(programs.get("flags") or ())
    arch = os.uname().machine if tree.live else arch_of(processor)
    hostname = os.uname().nodename if tree.live else tree.read("proc/sys/kernel/hostname") or tree.read("etc/hostname")
    hardware = _read_hardware(topology, processor, own_brand, arch, _memory_bytes(tree, topology))
    configuration = read_configuration(tree, topology, processor, programs.get("compiler"))
    hardware_key = digest(hardware)
    names = read_names(tree, hostname)
    marks = read_marks(tree, names)
    return Machine(
        id=digest([*names, _read_lasting(topology, hardware)]),
        alias=sanitised(alias or hostname or os.path.basename(os.path.normpath(tree.root))),
        hostname=hostname,
        brand=brand,
        arch=arch,
        flags=tuple(sorted(flags & _RELEVANT_FLAGS)),
        hardware_key=hardware_key,
        hardware=hardware,
        configuration_key=digest(configuration),
        configuration=configuration,
        condition=read_condition(tree, topology),
        topology=to_json_dict(topology),
        marks=marks,
        warnings=tuple(tree.warnings),
    )


def _read_lasting(topology: Topology, hardware: dict) -> dict:
    """What stays the same while CPUs go offline and come back, with which their caches, cores, packages and nodes go and come."""
    names = ("arch", "brand", "family", "model", "stepping", "memory_gib")
    return {name: hardware[name] for name in names} | {"cpus": len({*topology.cpus, *topology.offline})}


def sanitised(name: str) -> str:
    """A name that is a folder's and no path, whatever was given."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "machine"


def _memory_bytes(tree: Tree, topology: Topology) -> int | None:
    """Of the whole machine, from proc/meminfo; without that the sum of the nodes."""
    if match := re.search(r"^MemTotal:\s*(\d+)", tree.read("proc/meminfo") or "", re.MULTILINE):
        return int(match[1]) * 1024
    sizes = [node.memory_bytes for node in topology.nodes]
    return None if None in sizes else sum(sizes)


def _read_hardware(
    topology: Topology, processor: dict[str, str], brand: str | None, arch: str | None, memory: int | None
) -> dict:
    """Components of the hardware key. Memory is rounded to GiB, because the kernel's own share of it varies by boots,
    and is that of the machine: the MemTotal of a node grows after boot where the kernel initialises pages lazily."""
    caches = Counter((f"L{each.level} {each.type}", each.size_bytes, each.line_bytes) for each in topology.caches)
    return {
        "arch": arch,
        "brand": brand,
        "family": processor.get("cpu family") or processor.get("family") or processor.get("CPU implementer"),
        "model": processor.get("model") or processor.get("CPU part"),
        "stepping": processor.get("stepping") or processor.get("CPU revision"),
        "packages": len(topology.packages) or None,
        "cores": len(topology.cores) or None,
        "smt": topology.smt,
        "cpus": len(topology.cpus),
        "caches": [
            {"cache": name, "size_bytes": size, "line_bytes": line, "count": count}
            for (name, size, line), count in sorted(caches.items(), key=lambda item: str(item))
        ],
        "nodes": len(topology.nodes) if topology.numa else None,
        "memory_nodes": sum(node.memory_bytes != 0 for node in topology.nodes) if topology.numa else None,
        "memory_gib": None if memory is None else round(memory / _GIB),
    }
