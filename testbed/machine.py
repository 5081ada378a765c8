"""The description of a machine in one TOML file: what it is made of, what its firmware says, and what it really costs.

`testbed/machines/*.toml` are the machines shipped; docs/testbed.md explains every key. Times are ns, sizes bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec

from numabench.errors import UsageError
from numabench.units import parse_bytes, parse_cpus

from .checks import Impossible, check_matrix, demand, frozen
from .complaints import in_words
from .errors import MachineFileError
from .events import Event, EventFile, build_events
from .timing import LEVELS, LINES, MOST_CACHE, RELATIONS, Timing, TimingFile, build_timing

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a host's name
SHIPPED = Path(__file__).resolve().parent / "machines"
MOST_CPUS, MOST_NODES = 64, 16  # as in simulator/simulator.h
LEAST_MEMORY = 384 << 20  # what the guest needs to run Python
MIB = 1 << 20
LEAST_NODE = 32 << 20
MOST_MEMORY = 64 << 30  # a node's; the host has to have what is touched
MOST_LATENCY = 60_000.0  # ns: an HMAT entry of 16 bits holds no more
MOST_BANDWIDTH = 60_000_000.0  # MB/s
MODULE = 128 << 20  # what Linux takes offline at a time
PARTS = ("threads", "cores", "dies", "sockets")  # from the smallest
X86, ARM = "x86-64", "aarch64"
BASE_PAGES = {X86: ("4K",), ARM: ("4K", "16K")}  # of the kernels that Debian has
#: What the simulator reads from instructions and registers of x86-64 alone.
X86_TIMING = ("caches", "stores", "tlb", "walk", "overlap", "bandwidth")


class _Cpus(msgspec.Struct, forbid_unknown_fields=True):
    sockets: int = 1
    dies: int = 1
    cores: int = 1
    threads: int = 1
    numbered: tuple[str, ...] = PARTS


class _Node(msgspec.Struct, forbid_unknown_fields=True):
    cpus: str = ""
    memory: str = "0"
    initiator: int | None = None


class _Hmat(msgspec.Struct, forbid_unknown_fields=True):
    latency: list[list[float]] | None = None
    bandwidth: list[list[float]] | None = None


class _Firmware(msgspec.Struct, forbid_unknown_fields=True):
    caches: dict[str, str] = {}
    line: int | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    summary: str
    cpus: _Cpus
    nodes: list[_Node]
    timing: TimingFile | None = None
    events: list[EventFile] = []
    distances: list[list[int]] | None = None
    hmat: _Hmat | None = None
    firmware: _Firmware | None = None
    arch: str = X86
    lse: bool | None = None
    page: str = "4K"


@dataclass(frozen=True)
class Node:
    """`memory` bytes, 0 for a node of CPUs only; `initiator`: the CPU node that the firmware names for a node without CPUs."""

    cpus: tuple[int, ...]
    memory: int
    initiator: int | None


@dataclass(frozen=True)
class Machine:
    name: str
    summary: str
    sockets: int
    dies: int  # of a socket; a die is what shares an L3
    cores: int  # of a die
    threads: int  # of a core
    nodes: tuple[Node, ...]
    distances: tuple[tuple[int, ...], ...]
    hmat_latency: tuple[tuple[float, ...], ...] | None
    hmat_bandwidth: tuple[tuple[float, ...], ...] | None
    timing: Timing | None
    numbered: tuple[str, ...] = PARTS  # of PARTS, by how soon the next number is another one of it
    said_caches: tuple[tuple[int, int], ...] = ()  # (level, bytes) that the firmware claims instead of the processor
    said_line: int | None = None
    arch: str = X86
    lse: bool = False  # of aarch64: whether there are the atomic instructions of Armv8.1
    page: str = "4K"  # the smallest that the kernel has
    events: tuple[Event, ...] = ()

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """Where each CPU is, counted through sockets, dies, cores and threads: QEMU's number of it."""
        found = []
        for cpu in range(self.cpus):
            digits = {}
            for part in self.numbered:
                cpu, digits[part] = divmod(cpu, getattr(self, part))
            place = 0
            for part in reversed(PARTS):
                place = place * getattr(self, part) + digits[part]
            found.append(place)
        return tuple(found)

    @cached_property
    def by_position(self) -> tuple[int, ...]:
        """The CPU at each position."""
        return tuple(sorted(range(self.cpus), key=self.positions.__getitem__))

    def memory_from(self, cpu: int) -> tuple[float, ...]:
        """What a line from each node's memory costs this CPU."""
        return dict(self.timing.cpu_memory).get(cpu, self.timing.memory[self.node_of[cpu]])

    @cached_property
    def cpus(self) -> int:
        return self.sockets * self.dies * self.cores * self.threads

    @cached_property
    def node_of(self) -> tuple[int, ...]:
        """The node of each CPU."""
        found = {cpu: number for number, node in enumerate(self.nodes) for cpu in node.cpus}
        return tuple(found[cpu] for cpu in range(self.cpus))

    @property
    def cpu_nodes(self) -> tuple[int, ...]:
        return tuple(number for number, node in enumerate(self.nodes) if node.cpus)

    @property
    def memory_nodes(self) -> tuple[int, ...]:
        return tuple(number for number, node in enumerate(self.nodes) if node.memory)

    @property
    def module_nodes(self) -> tuple[int, ...]:
        """The last node if it is of memory alone: a module that can be taken offline. QEMU's firmware tables give all modules to the
        last node, so that other nodes of memory alone have memory that stays; a device tree knows no modules."""
        last = len(self.nodes) - 1
        return () if self.nodes[last].cpus or self.arch == ARM else (last,)

    @property
    def fixed_nodes(self) -> tuple[int, ...]:
        return tuple(number for number in self.memory_nodes if number not in self.module_nodes)

    @property
    def hmat(self) -> bool:
        return self.hmat_latency is not None or self.hmat_bandwidth is not None

    def relation(self, a: int, b: int) -> str:
        """The smallest part that holds both CPUs."""
        sizes = (self.threads, self.cores * self.threads, self.dies * self.cores * self.threads)
        a, b = self.positions[a], self.positions[b]
        return next((name for name, size in zip(RELATIONS, sizes, strict=False) if a // size == b // size), RELATIONS[-1])

    def groups(self, relation: str) -> tuple[tuple[int, ...], ...]:
        """The CPUs of each core (`smt`), die or socket."""
        size = {"smt": self.threads, "die": self.threads * self.cores, "socket": self.cpus // self.sockets}[relation]
        return tuple(sorted(tuple(sorted(self.by_position[first : first + size])) for first in range(0, self.cpus, size)))


def shipped() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_machine(name: str | Path) -> Machine:
    """A machine by the path of its file, or by name if it is shipped."""
    path = Path(name)
    if not path.is_file():
        path = SHIPPED / f"{name}.toml"
    if not path.is_file():
        raise MachineFileError(f"there is no machine file {name}", f"one of {', '.join(shipped())}, or the path of your own file")
    try:
        demand(bool(NAME.fullmatch(path.stem)), "the file's name is the machine's: letters, digits, '-', '_' and '.' alone")
        return build_machine(path.stem, msgspec.toml.decode(path.read_bytes(), type=_File))
    except (msgspec.DecodeError, UnicodeDecodeError, UsageError, Impossible) as error:
        raise MachineFileError(f"{path}: {in_words(error, _File)}", "docs/testbed.md explains every key") from error


def build_machine(name: str, file: _File) -> Machine:
    parts = file.cpus
    for part in ("sockets", "dies", "cores", "threads"):
        demand(getattr(parts, part) >= 1, f"cpus.{part} = {getattr(parts, part)}: at least 1 is needed")
    count = parts.sockets * parts.dies * parts.cores * parts.threads
    demand(
        sorted(parts.numbered) == sorted(PARTS),
        f"cpus.numbered = {parts.numbered}: {', '.join(PARTS)} are needed, each once, what changes first from CPU to CPU first",
    )
    demand(count <= MOST_CPUS, f"{count} CPUs are more than the {MOST_CPUS} that can be simulated")
    demand(1 <= len(file.nodes) <= MOST_NODES, f"{len(file.nodes)} nodes: 1 to {MOST_NODES} can be simulated")
    nodes = tuple(build_node(number, node) for number, node in enumerate(file.nodes))
    check_nodes(nodes, count)
    check_architecture(file)
    size = len(nodes)
    distances = file.distances or [[10 if i == j else 20 for j in range(size)] for i in range(size)]
    check_distances(distances, size)
    hmat = file.hmat or _Hmat()
    for key in ("latency", "bandwidth"):
        if getattr(hmat, key) is not None:
            most = MOST_LATENCY if key == "latency" else MOST_BANDWIDTH
            check_matrix(f"hmat.{key}", getattr(hmat, key), nodes, most)
    machine = Machine(
        name=name,
        summary=file.summary,
        sockets=parts.sockets,
        dies=parts.dies,
        cores=parts.cores,
        threads=parts.threads,
        nodes=nodes,
        distances=frozen(distances),
        hmat_latency=hmat.latency and frozen(hmat.latency),
        hmat_bandwidth=hmat.bandwidth and frozen(hmat.bandwidth),
        timing=None,
        numbered=parts.numbered,
        **said_of_caches(file.firmware or _Firmware()),
        arch=file.arch,
        lse=file.arch == ARM and file.lse is not False,
        page=file.page,
    )
    machine = replace(machine, timing=build_timing(machine, file.timing)) if file.timing else machine
    complete = bool(machine.timing and machine.timing.caches) or len(machine.said_caches) == len(LEVELS)
    demand(
        file.firmware is None or complete,
        f"firmware.caches: {', '.join(LEVELS)} are needed where [[timing.caches]] does not say them",
    )
    return replace(machine, events=build_events(machine, file.events))


def check_architecture(file: _File) -> None:
    demand(file.arch in BASE_PAGES, f"arch = {file.arch}: one of {', '.join(BASE_PAGES)} is possible")
    arm, pages = file.arch == ARM, BASE_PAGES[file.arch]
    demand(
        arm or file.lse is None, f"lse says which atomic instructions a processor of {ARM} has, and this one is of {file.arch}"
    )
    demand(file.page in pages, f"page = {file.page}: Debian's kernels for {file.arch} have pages of {' or '.join(pages)}")
    demand(
        not arm or not file.hmat, f"hmat is a table of ACPI; the firmware of a machine of {ARM} is a device tree, which has none"
    )
    demand(
        not arm or (not file.firmware and file.cpus.numbered == _Cpus().numbered),
        f"firmware and cpus.numbered are of {X86} alone",
    )
    for key in X86_TIMING:
        demand(not arm or not file.timing or not getattr(file.timing, key), f"timing.{key} is modelled on {X86} alone")


def build_node(number: int, node: _Node) -> Node:
    try:
        return Node(cpus=parse_cpus(node.cpus), memory=parse_bytes(node.memory), initiator=node.initiator)
    except UsageError as error:
        raise Impossible(f"node {number}: {error}") from error


def check_nodes(nodes: tuple[Node, ...], count: int) -> None:
    owned = sorted(cpu for node in nodes for cpu in node.cpus)
    twice = sorted({cpu for cpu in owned if owned.count(cpu) > 1})
    demand(not twice, f"CPU {', '.join(map(str, twice))} is in two nodes")
    strange = [cpu for cpu in owned if cpu >= count]
    demand(not strange, f"nodes name CPU {', '.join(map(str, strange))}, but [cpus] makes {count} (0 to {count - 1})")
    missing = sorted(set(range(count)) - set(owned))
    demand(not missing, f"CPU {', '.join(map(str, missing))} is in no node")
    for number, node in enumerate(nodes):
        demand(bool(node.cpus or node.memory), f"node {number} has neither CPUs nor memory")
        demand(node.memory <= MOST_MEMORY, f"node {number}: at most {MOST_MEMORY >> 30} GiB of memory can be simulated")
        demand(
            not node.memory or node.memory >= LEAST_NODE,
            f"node {number}: memory must be 0 or at least {LEAST_NODE // MIB} MiB, of which the kernel takes its share",
        )
        demand(
            not node.cpus or all(before.cpus for before in nodes[:number]),
            f"node {number}: nodes with CPUs come first, since Linux numbers them so",
        )
        unit = MIB if node.cpus else MODULE
        demand(
            node.memory % unit == 0,
            f"node {number}: memory must be a multiple of {unit // MIB} MiB{'' if node.cpus else ' where there are no CPUs'}",
        )
        if node.initiator is not None:
            demand(
                0 <= node.initiator < len(nodes) and bool(nodes[node.initiator].cpus),
                f"node {number}: initiator = {node.initiator} is no node with CPUs",
            )
    total = sum(node.memory for node in nodes if node.cpus)
    demand(
        total >= LEAST_MEMORY, f"{total // MIB} MiB at nodes with CPUs: the guest needs {LEAST_MEMORY // MIB} MiB to run Python"
    )


def check_distances(distances: list[list[int]], size: int) -> None:
    demand(
        len(distances) == size and all(len(row) == size for row in distances),
        f"distances is no {size} x {size} matrix; one row and one column per node are needed",
    )
    for i, row in enumerate(distances):
        demand(row[i] == 10, f"distances[{i}][{i}] = {row[i]}: a node is at distance 10 from itself")
        for j, value in enumerate(row):
            demand(i == j or 10 < value <= 254, f"distances[{i}][{j}] = {value}: 11 to 254 are possible between nodes")


def said_of_caches(firmware: _Firmware) -> dict:
    """What the firmware claims of caches, as fields of a Machine."""
    unknown = sorted(set(firmware.caches) - set(LEVELS))
    demand(not unknown, f"firmware.caches names {', '.join(unknown)}; the levels are {', '.join(LEVELS)}")
    demand(
        firmware.line is None or firmware.line in LINES,
        f"firmware.line = {firmware.line}: one of {', '.join(map(str, LINES))} is possible",
    )
    found = []
    for level, text in firmware.caches.items():
        size = parse_bytes(text)
        demand(
            0 < size <= MOST_CACHE and size % 1024 == 0,
            f"firmware.caches.{level} = {text}: whole KiB up to {MOST_CACHE >> 30} GiB are possible",
        )
        found.append((LEVELS.index(level) + 1, size))
    return {"said_caches": tuple(found), "said_line": firmware.line}
