"""What a machine really costs: the tables of [timing] in its file, and their checks. Times are ns, sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from numabench.units import parse_bytes, parse_cpus

from .checks import check_matrix, demand, frozen

if TYPE_CHECKING:
    from .machine import Machine

MOST_GHZ = 100.0
MOST_TIME = 1e6  # ns, of anything that the model charges
MOST_CACHE = 1 << 30
MOST_STORES = 256  # places of a store buffer, as in simulator/simulator.h
LEAST_RATE, MOST_RATE = 0.01, 10_000.0  # bytes/ns
MOST_MISSES = 256  # as in simulator/overlap.c
CACHE, HIT = "64K", 1.0  # bytes and ns of the one cache where nothing is said
LINES = (32, 64, 128, 256, 512, 1024)
PREFETCHERS = ("none", "pair", "next")  # what comes along with a line from memory, as in simulator/simulator.h
KINDS = INCLUSIVE, VICTIM = ("inclusive", "victim")  # of an L3: it holds what the other levels hold, or what left them
MOST_WAYS = 64
PAGES = ("4K", "2M")  # sizes that a TLB tells apart, as in simulator/simulator.h
MOST_TLBS = 8  # structures, as in simulator/simulator.h
MOST_ENTRIES = 1 << 16
LEVELS = ("L1", "L2", "L3")  # of caches that hold data, as the firmware of the simulated processor has them
RELATIONS = ("smt", "die", "socket", "cross")  # nearest common part of two CPUs: core, die, socket, none


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


class _CpuMemory(msgspec.Struct, forbid_unknown_fields=True):
    cpus: str
    memory: list[float]


class TimingFile(msgspec.Struct, forbid_unknown_fields=True):
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


def build_timing(machine: Machine, file: TimingFile) -> Timing:
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


def cpu_rows(machine: Machine, file: TimingFile) -> tuple[tuple[int, tuple[float, ...]], ...]:
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


def build_tlb(file: TimingFile) -> tuple[Tlb, ...]:
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


def build_caches(machine: Machine, file: TimingFile) -> tuple[Cache, ...]:
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
