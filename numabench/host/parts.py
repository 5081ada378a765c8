"""What a machine consists of: packages, caches, NUMA nodes and kinds of core, as records."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

Cpus = tuple[int, ...]

_LETTERS = {"Data": "d", "Instruction": "i"}  # as in L1d; a unified cache has no letter


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

    @property
    def name(self) -> str:
        return f"L{self.level}{_LETTERS.get(self.type, '')}"

    @property
    def holds_data(self) -> bool:
        return self.type != "Instruction"


class AccessClass(msgspec.Struct, frozen=True):
    """What the firmware's HMAT promises for memory of a node, seen from its best initiators (ns, MB/s)."""

    name: str
    initiators: tuple[int, ...]
    targets: tuple[int, ...]
    read_latency_ns: int | None
    write_latency_ns: int | None
    read_bandwidth_mb_per_s: int | None
    write_bandwidth_mb_per_s: int | None

    @property
    def promises(self) -> tuple[int | None, ...]:
        return (self.read_latency_ns, self.write_latency_ns, self.read_bandwidth_mb_per_s, self.write_bandwidth_mb_per_s)


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
    """One kind of core of a hybrid machine; `source` says which files tell the kinds apart. `speed`: the larger, the bigger the cores; in no unit that
    two machines share, 0 where the kernel does not say."""

    name: str
    cpus: Cpus
    source: str
    speed: int = 0


def ascending(cpus: Iterable[int]) -> Cpus:
    return tuple(sorted(cpus))


def owners(sets: Iterable[Cpus]) -> dict[int, int]:
    """{cpu: position of its set, by first CPU}; of overlapping sets the smallest."""
    ordered = sorted(set(sets))
    by_width = sorted(enumerate(ordered), key=lambda item: -len(item[1]))
    return {cpu: position for position, cpus in by_width for cpu in cpus}
