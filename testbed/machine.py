"""The description of a machine in one TOML file: what it is made of, what its firmware says, and what it really costs.

`testbed/machines/*.toml` are the machines shipped; docs/testbed.md explains every key. Times are ns, sizes bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec

from numabench.errors import UsageError
from numabench.units import parse_bytes, parse_cpus

from .complaints import in_words
from .errors import MachineFileError
from .events import MOST_GHZ, Event, EventFile, build_events

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a host's name
SHIPPED = Path(__file__).resolve().parent / "machines"
MOST_CPUS, MOST_NODES = 64, 16  # as in simulator/simulator.h
LEAST_MEMORY = 384 << 20  # what the guest needs to run Python
MIB = 1 << 20
LEAST_NODE = 32 << 20
MOST_MEMORY = 64 << 30  # a node's; the host has to have what is touched
MOST_LATENCY = 60_000.0  # ns: an HMAT entry of 16 bits holds no more
MOST_TIME = 1e6  # ns, of anything that the model charges
MOST_CACHE = 1 << 30
MOST_BANDWIDTH = 60_000_000.0  # MB/s
MOST_STORES = 256  # places of a store buffer, as in simulator/simulator.h
LEAST_RATE, MOST_RATE = 0.01, 10_000.0  # bytes/ns
MOST_MISSES = 256  # as in simulator/overlap.c
MODULE = 128 << 20  # what Linux takes offline at a time
CACHE, HIT = "64K", 1.0  # bytes and ns of the one cache where nothing is said
LINES = (32, 64, 128, 256, 512, 1024)
PREFETCHERS = ("none", "pair", "next")  # what comes along with a line from memory, as in simulator/simulator.h
KINDS = INCLUSIVE, VICTIM = ("inclusive", "victim")  # of an L3: it holds what the other levels hold, or what left them
MOST_WAYS = 64
PAGES = ("4K", "2M")  # sizes that a TLB tells apart, as in simulator/simulator.h
MOST_TLBS = 8  # structures, as in simulator/simulator.h
MOST_ENTRIES = 1 << 16
PARTS = ("threads", "cores", "dies", "sockets")  # from the smallest
LEVELS = ("L1", "L2", "L3")  # of caches that hold data, as the firmware of the simulated processor has them
X86, ARM = "x86-64", "aarch64"
BASE_PAGES = {X86: ("4K",), ARM: ("4K", "16K")}  # of the kernels that Debian has
#: What the simulator reads from instructions and registers of x86-64 alone.
X86_TIMING = ("caches", "stores", "tlb", "walk", "overlap", "bandwidth")
RELATIONS = ("smt", "die", "socket", "cross")  # nearest common part of two CPUs: core, die, socket, none


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


class _Cache(msgspec.Struct, forbid_unknown_fields=True):
    size: str
    ways: int
    latency: float
    kind: str = INCLUSIVE
    prefetch: str = "none"


class _Stores(msgspec.Struct, forbid_unknown_fields=True):
    buffer: int


class _Tlb(msgspec.Struct, forbid_unknown_fields=True):
    level: int
    entries: int
    pages: tuple[str, ...] = PAGES
    ways: int | None = None
    latency: float = 0.0


class _Overlap(msgspec.Struct, forbid_unknown_fields=True):
    misses: int


class _Bandwidth(msgspec.Struct, forbid_unknown_fields=True):
    controller: list[float] | None = None
    link: list[list[float]] | None = None


class _Firmware(msgspec.Struct, forbid_unknown_fields=True):
    caches: dict[str, str] = {}
    line: int | None = None


class _CpuMemory(msgspec.Struct, forbid_unknown_fields=True):
    cpus: str
    memory: list[float]


class _Timing(msgspec.Struct, forbid_unknown_fields=True):
    memory: list[list[float]]
    core_to_core: list[list[float]] | dict[str, float]
    line: int = 64
    cache: str | None = None
    hit: float | None = None
    atomic: float = 5.0
    instruction: float = 0.25
    pause: float = 10.0
    prefetch: str | None = None
    occupancy: list[float] | None = None
    caches: list[_Cache] | None = None
    stores: _Stores | None = None
    tlb: list[_Tlb] = []
    walk: dict[str, float] = {}
    overlap: _Overlap | None = None
    bandwidth: _Bandwidth | None = None
    cpu_memory: list[_CpuMemory] = []
    clock: float | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    summary: str
    cpus: _Cpus
    nodes: list[_Node]
    timing: _Timing | None = None
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
class Cache:
    """One level: `latency` of a load that it serves; of `kind` one of KINDS, of `prefetch` one of PREFETCHERS, which this level and those beyond get."""

    size: int
    ways: int
    latency: float
    kind: str
    prefetch: str


@dataclass(frozen=True)
class Tlb:
    """One structure of each CPU's TLB: `entries` in sets of `ways`, for `pages` (of PAGES); `latency`: what a hit in it adds."""

    level: int
    pages: tuple[str, ...]
    entries: int
    ways: int
    latency: float


@dataclass(frozen=True)
class Timing:
    """What the simulator charges. `memory[c][m]`: from CPU node c to memory node m; `core_to_core[a][b]`: a line from b's cache."""

    memory: tuple[tuple[float, ...], ...]
    core_to_core: tuple[tuple[float, ...], ...]
    occupancy: tuple[float, ...]
    line: int
    cache: int
    hit: float
    atomic: float
    instruction: float
    pause: float
    prefetch: str  # one of PREFETCHERS
    caches: tuple[Cache, ...] = ()  # L1, L2 and L3 instead of the one; `cache` and `hit` are then those of L1
    store_buffer: int = 0  # places of each CPU's; 0: stores block
    tlb: tuple[Tlb, ...] = ()  # nearest level first; none: translation costs nothing
    walk: tuple[float, ...] = (0.0, 0.0)  # a page walk, by PAGES
    misses: int = 0  # lines that a CPU can have on their way; 0: every access blocks
    link: tuple[tuple[float, ...], ...] | None = (
        None  # [a][b]: ns for which a line keeps the link from node a to node b busy; None: no [timing.bandwidth]
    )
    cpu_memory: tuple[tuple[int, tuple[float, ...]], ...] = ()  # (CPU, its own row of `memory`)
    clock: float | None = None  # GHz at which instruction, hit, atomic and pause take what they take; only events ask for it


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


class Impossible(ValueError):
    """What no machine can be."""


def demand(fine: bool, problem: str) -> None:
    if not fine:
        raise Impossible(problem)


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


def frozen(matrix: list[list]) -> tuple[tuple, ...]:
    return tuple(map(tuple, matrix))


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


def check_matrix(name: str, matrix: list[list[float]], nodes: tuple[Node, ...], most: float) -> None:
    size = len(nodes)
    demand(
        len(matrix) == size and all(len(row) == size for row in matrix),
        f"{name} is no {size} x {size} matrix; one row and one column per node are needed (0 where there is nothing)",
    )
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            real = nodes[i].cpus and nodes[j].memory
            demand(
                0 < value <= most if real else value == 0 or 0 < value <= most,
                f"{name}[{i}][{j}] = {value}: from node {i} to the memory of node {j} it must be positive and at most {most:g}",
            )


def build_timing(machine: Machine, file: _Timing) -> Timing:
    check_matrix("timing.memory", file.memory, machine.nodes, MOST_TIME)
    demand(file.line in LINES, f"timing.line = {file.line}: one of {', '.join(map(str, LINES))} is possible")
    caches = build_caches(machine, file)
    cache = caches[0].size if caches else parse_bytes(file.cache or CACHE)
    demand(
        bool(caches) or 8 * file.line <= cache <= MOST_CACHE,
        f"timing.cache = {file.cache}: at least 8 lines ({8 * file.line} bytes) and at most {MOST_CACHE >> 30} GiB are needed",
    )
    hit = caches[0].latency if caches else HIT if file.hit is None else file.hit
    for key, value in (("hit", hit), *((key, getattr(file, key)) for key in ("atomic", "instruction", "pause"))):
        demand(0 < value <= MOST_TIME, f"timing.{key} = {value}: it must be positive and at most {MOST_TIME:g}")
    prefetch = file.prefetch or PREFETCHERS[0]
    demand(prefetch in PREFETCHERS, f"timing.prefetch = {prefetch}: one of {', '.join(PREFETCHERS)} is possible")
    occupancy = file.occupancy or [0.0] * len(machine.nodes)
    check_occupancy("timing", occupancy, machine)
    demand(file.clock is None or 0 < file.clock <= MOST_GHZ, f"timing.clock = {file.clock}: GHz, at most {MOST_GHZ:g}")
    places = file.stores.buffer if file.stores else 0
    demand(
        not file.stores or 1 <= places <= MOST_STORES, f"timing.stores.buffer = {places}: 1 to {MOST_STORES} places are possible"
    )
    demand(
        not (file.stores and file.overlap),
        "timing.stores and timing.overlap: a store takes a place in a buffer or one of the misses, not both",
    )
    if file.overlap:
        demand(
            1 <= file.overlap.misses <= MOST_MISSES,
            f"timing.overlap.misses = {file.overlap.misses}: 1 to {MOST_MISSES} lines can be on their way",
        )
    demand(
        not (file.bandwidth and file.occupancy), "timing.occupancy and timing.bandwidth: one of them says how long a line takes"
    )
    busy = busy_times(machine, file.bandwidth, file.line) if file.bandwidth else None
    return Timing(
        memory=frozen(file.memory),
        core_to_core=core_to_core(machine, file.core_to_core),
        occupancy=busy.controller if busy else tuple(occupancy),
        line=file.line,
        cache=cache,
        hit=hit,
        atomic=file.atomic,
        instruction=file.instruction,
        pause=file.pause,
        prefetch=prefetch,
        caches=caches,
        store_buffer=places,
        tlb=build_tlb(file),
        walk=tuple(file.walk.get(page, 0.0) for page in PAGES),
        misses=file.overlap.misses if file.overlap else 0,
        link=busy.link if busy else None,
        cpu_memory=cpu_rows(machine, file),
        clock=file.clock,
    )


def cpu_rows(machine: Machine, file: _Timing) -> tuple[tuple[int, tuple[float, ...]], ...]:
    """(CPU, its own row of `memory`) of each CPU that has one."""
    found: dict[int, tuple[float, ...]] = {}
    for each in file.cpu_memory:
        for cpu in parse_cpus(each.cpus):
            demand(
                cpu < machine.cpus,
                f"timing.cpu_memory names CPU {cpu}, but [cpus] makes {machine.cpus} (0 to {machine.cpus - 1})",
            )
            demand(cpu not in found, f"timing.cpu_memory names CPU {cpu} twice")
            rows = [list(row) for row in file.memory]
            rows[machine.node_of[cpu]] = each.memory
            check_row = f"timing.cpu_memory of CPU {cpu}"
            demand(
                len(each.memory) == len(machine.nodes),
                f"{check_row} has {len(each.memory)} numbers: one per node is needed (0 where there is nothing)",
            )
            check_matrix(check_row, rows, machine.nodes, MOST_TIME)
            found[cpu] = tuple(each.memory)
    return tuple(sorted(found.items()))


class Busy(NamedTuple):
    """For how many ns a line keeps each controller and each link busy."""

    controller: tuple[float, ...]
    link: tuple[tuple[float, ...], ...]


def busy_times(machine: Machine, file: _Bandwidth, line: int) -> Busy:
    size = len(machine.nodes)
    controller = file.controller or [0.0] * size
    link = file.link or [[0.0] * size for _ in range(size)]
    demand(
        len(controller) == size,
        f"timing.bandwidth.controller = {controller}: one number per node is needed (bytes/ns; 0: no limit)",
    )
    demand(
        len(link) == size and all(len(row) == size for row in link),
        f"timing.bandwidth.link is no {size} x {size} matrix; one row and one column per node are needed (bytes/ns from row to column; 0: no limit)",
    )
    named = [(f"controller[{node}]", value) for node, value in enumerate(controller)]
    named += [(f"link[{a}][{b}]", value) for a, row in enumerate(link) for b, value in enumerate(row)]
    for name, value in named:
        demand(
            value == 0 or LEAST_RATE <= value <= MOST_RATE,
            f"timing.bandwidth.{name} = {value}: 0 (no limit) or {LEAST_RATE:g} to {MOST_RATE:g} bytes/ns (GB/s) are possible",
        )
    for node in range(size):
        demand(
            link[node][node] == 0,
            f"timing.bandwidth.link[{node}][{node}] = {link[node][node]}: a node has no link to itself; give 0",
        )

    def busy(value: float) -> float:
        return line / value if value else 0.0

    return Busy(tuple(map(busy, controller)), tuple(tuple(map(busy, row)) for row in link))


def build_tlb(file: _Timing) -> tuple[Tlb, ...]:
    unknown = sorted({*file.walk, *(page for tlb in file.tlb for page in tlb.pages)} - {*PAGES})
    demand(not unknown, f"timing.tlb or timing.walk names pages of {', '.join(unknown)}; {' and '.join(PAGES)} are possible")
    demand(len(file.tlb) <= MOST_TLBS, f"{len(file.tlb)} of timing.tlb are more than the {MOST_TLBS} that can be simulated")
    demand(bool(file.tlb) or not file.walk, "timing.walk without timing.tlb: nothing would say which accesses walk")
    for tlb in file.tlb:
        said, ways = f"level {tlb.level} of timing.tlb", tlb.entries if tlb.ways is None else tlb.ways
        demand(1 <= tlb.entries <= MOST_ENTRIES, f"{said} has {tlb.entries} entries: 1 to {MOST_ENTRIES} are possible")
        whole = 1 <= ways <= tlb.entries and tlb.entries % ways == 0
        demand(whole, f"{said} has {tlb.entries} entries in sets of {ways}: whole sets are needed")
        demand(0 <= tlb.latency <= MOST_TIME, f"{said} has latency = {tlb.latency}: it must be 0 to {MOST_TIME:g}")
    for page in PAGES if file.tlb else ():
        levels = sorted(tlb.level for tlb in file.tlb for held in tlb.pages if held == page)
        once = bool(levels) and levels == [*range(1, len(levels) + 1)]
        demand(once, f"timing.tlb holds pages of {page} in levels {levels}: each level from 1 on is needed once")
        price = file.walk.get(page, 0.0)
        demand(0 < price <= MOST_TIME, f"timing.walk.{page} = {price}: it must be positive and at most {MOST_TIME:g}")
    return tuple(
        Tlb(tlb.level, tlb.pages, tlb.entries, tlb.ways or tlb.entries, tlb.latency)
        for tlb in sorted(file.tlb, key=lambda tlb: tlb.level)
    )


def build_caches(machine: Machine, file: _Timing) -> tuple[Cache, ...]:
    """L1, L2 and L3, or none."""
    if file.caches is None:
        return ()
    for key in ("cache", "hit", "prefetch"):
        demand(
            getattr(file, key) is None, f"timing.{key} is that of a machine without timing.caches, whose tables have their own"
        )
    demand(
        len(file.caches) == len(LEVELS), f"timing.caches has {len(file.caches)} tables: L1, L2 and L3 are needed, in this order"
    )
    caches = []
    for level, given in enumerate(file.caches, 1):
        name, size = f"timing.caches: L{level}", parse_bytes(given.size)
        demand(1 <= given.ways <= MOST_WAYS, f"{name}: ways = {given.ways}: 1 to {MOST_WAYS} are possible")
        way = given.ways * file.line
        demand(
            way <= size <= MOST_CACHE,
            f"{name}: size = {given.size}: at least {given.ways} lines ({way} bytes), at most {MOST_CACHE >> 30} GiB",
        )
        demand(size % way == 0, f"{name}: size = {given.size}: it must be a multiple of ways times line ({way} bytes)")
        demand(given.kind in KINDS, f"{name}: kind = {given.kind}: one of {', '.join(KINDS)} is possible")
        demand(given.kind == INCLUSIVE or level == len(LEVELS), f"{name}: kind = {given.kind}: L3 alone can be that")
        demand(given.prefetch in PREFETCHERS, f"{name}: prefetch = {given.prefetch}: one of {', '.join(PREFETCHERS)} is possible")
        nearer = caches[-1] if caches else None
        demand(
            0 < given.latency <= MOST_TIME, f"{name}: latency = {given.latency:g}: it must be positive and at most {MOST_TIME:g}"
        )
        demand(
            not nearer or given.latency > nearer.latency,
            f"{name}: latency = {given.latency:g}: longer than that of the level before it",
        )
        sharing = machine.cores * machine.threads if level == len(LEVELS) else 1
        if nearer and given.kind == INCLUSIVE:
            least = sharing * nearer.size
            demand(
                size >= least,
                f"{name}: size = {given.size}: an inclusive one holds at least the {least} bytes of the level before it",
            )
        caches.append(Cache(size, given.ways, given.latency, given.kind, given.prefetch))
    several = [level for level, cache in enumerate(caches, 1) if cache.prefetch != PREFETCHERS[0]]
    demand(len(several) <= 1, f"timing.caches: prefetch in L{' and L'.join(map(str, several))}: one level can have it")
    return tuple(caches)


def check_occupancy(of: str, occupancy: list[float], machine: Machine) -> None:
    demand(
        len(occupancy) == len(machine.nodes) and all(0 <= value <= MOST_TIME for value in occupancy),
        f"{of}.occupancy = {occupancy}: one number (0 to {MOST_TIME:g}) per node is needed",
    )


def core_to_core(
    machine: Machine, given: float | list[list[float]] | dict[str, float], of: str = "timing"
) -> tuple[tuple[float, ...], ...]:
    """The matrix, written out or made from one latency per relation; or from one for all."""
    cpus = range(machine.cpus)
    if isinstance(given, float):
        given = dict.fromkeys(RELATIONS, given)
    if isinstance(given, dict):
        unknown = sorted(set(given) - set(RELATIONS))
        demand(not unknown, f"{of}.core_to_core names {', '.join(unknown)}; the relations are {', '.join(RELATIONS)}")
        needed = {machine.relation(a, b) for a in cpus for b in cpus if a != b}
        missing = [name for name in RELATIONS if name in needed and name not in given]
        demand(not missing, f"{of}.core_to_core lacks {', '.join(missing)}: two CPUs of this machine are so related")
        given = [[0.0 if a == b else given[machine.relation(a, b)] for b in cpus] for a in cpus]
    demand(
        len(given) == machine.cpus and all(len(row) == machine.cpus for row in given),
        f"{of}.core_to_core is no {machine.cpus} x {machine.cpus} matrix; one row and one column per CPU are needed",
    )
    for a in cpus:
        for b in cpus:
            demand(
                a == b or 0 < given[a][b] <= MOST_TIME,
                f"{of}.core_to_core[{a}][{b}] = {given[a][b]}: it must be positive and at most {MOST_TIME:g}",
            )
    return frozen(given)
