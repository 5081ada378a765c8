"""Kinds of core of hybrid machines, from whatever file tells them apart."""

from __future__ import annotations

from collections.abc import Iterable

from .parts import Cache, CoreKind, Cpus, ascending
from .sysfs import CpuSet, Tree

FAVOURED = 1.15  # a few cores of a kind clock up to a tenth higher than the others; compact ones of the same design a third lower


def read_kinds(tree: Tree, directories: dict[int, str], online: CpuSet, caches: tuple[Cache, ...]) -> tuple[CoreKind, ...]:
    """Kinds of core, from the first source that tells at least two apart; empty when all are alike or unknown."""
    for source, found in (
        ("sys/devices/cpu_*/cpus", lambda: _kinds_from_pmus(tree)),
        ("proc/cpuinfo CPU part", lambda: _kinds_from_parts(tree)),
        ("cpu_capacity", lambda: _kinds_from_capacity(tree, directories)),
        ("cache sizes and base_frequency", lambda: _kinds_from_caches(tree, directories, caches)),
        ("cache sizes of L3", lambda: _kinds_from_l3(directories, caches)),
        ("cpuinfo_max_freq", lambda: _kinds_from_clock(tree, directories)),
    ):
        kinds = {name: ascending(frozenset(cpus) & online) for name, cpus in found().items()}
        kinds = {name: cpus for name, cpus in kinds.items() if cpus}
        if len(kinds) > 1:
            ordered = sorted(kinds.items(), key=lambda item: item[1])
            speeds = _speeds(tree, directories, kinds, caches)
            return tuple(CoreKind(name, cpus, source, speeds[name]) for name, cpus in ordered)
    return ()


def _speeds(tree: Tree, directories: dict[int, str], kinds: dict[str, Cpus], caches: tuple[Cache, ...]) -> dict[str, int]:
    """How big the cores of each kind are, by the first sign that tells all kinds apart: capacity, highest clock, first data cache."""
    first = {cpu: each.size_bytes or 0 for each in caches if each.level == 1 and each.holds_data for cpu in each.cpus}

    def number(cpu: int, file: str) -> int:
        return tree.number(f"{directories[cpu]}/{file}") or 0 if cpu in directories else 0

    for sign in (
        lambda cpu: number(cpu, "cpu_capacity"),
        lambda cpu: number(cpu, "cpufreq/cpuinfo_max_freq"),
        lambda cpu: first.get(cpu, 0),
    ):
        found = {name: max(map(sign, cpus)) for name, cpus in kinds.items()}
        if 0 not in found.values() and len(set(found.values())) == len(found):
            return found
    return dict.fromkeys(kinds, 0)


def _kinds_from_pmus(tree: Tree) -> dict[str, CpuSet]:
    """Intel hybrid: the performance monitors cpu_core, cpu_atom, cpu_lowpower name their CPUs."""
    pmus = [name for name in tree.names("sys/devices") if name.startswith("cpu_")]
    found = {name[len("cpu_") :]: tree.cpu_list(f"sys/devices/{name}/cpus") for name in pmus}
    return {name: cpus for name, cpus in found.items() if cpus}


def _kinds_from_parts(tree: Tree) -> dict[str, list[int]]:
    """Arm: implementer and part. cpu_capacity has more values than there are kinds (binning of single cores)."""
    pairs, fields = [], {}
    for line in (tree.read("proc/cpuinfo") or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor":
            fields = {key: value}
        fields[key] = value
        if key == "CPU part" and fields.get("processor", "").isdigit():
            pairs.append((f"{fields.get('CPU implementer', '?')}/{value}", int(fields["processor"])))
    return _group(pairs)


def _kinds_from_capacity(tree: Tree, directories: dict[int, str]) -> dict[str, list[int]]:
    capacities = ((tree.number(f"{path}/cpu_capacity"), cpu) for cpu, path in directories.items())
    return _group((f"capacity {capacity}", cpu) for capacity, cpu in capacities if capacity is not None)


def _kinds_from_caches(tree: Tree, directories: dict[int, str], caches: tuple[Cache, ...]) -> dict[str, list[int]]:
    """Both must differ: base frequencies differ between equal cores (Intel Speed Select), cache lists have gaps."""
    sizes: dict[int, dict[str, int]] = {}
    for cache in caches:
        if cache.level <= 2 and cache.size_bytes:
            for cpu in cache.cpus:
                sizes.setdefault(cpu, {})[cache.name] = cache.size_bytes >> 10
    signatures = {tuple(sorted(each.items())) for each in sizes.values()}
    names = {tuple(name for name, _ in signature) for signature in signatures}
    frequencies = {cpu: tree.number(f"{directories[cpu]}/cpufreq/base_frequency") for cpu in sizes}
    if len(signatures) < 2 or len(names) > 1 or None in frequencies.values() or len(set(frequencies.values())) < 2:
        return {}
    sets = [dict(each) for each in signatures]
    telling = [name for name in sorted(*names, reverse=True) if len({each[name] for each in sets}) > 1]
    enough = next(
        telling[:count]
        for count in range(1, len(telling) + 1)
        if len({tuple(each[name] for name in telling[:count]) for each in sets}) == len(sets)
    )
    return _group((", ".join(f"{name} {each[name]} KiB" for name in enough), cpu) for cpu, each in sorted(sizes.items()))


def _kinds_from_l3(directories: dict[int, str], caches: tuple[Cache, ...]) -> dict[str, list[int]]:
    """Dies of which one has more cache than another, and where compact cores have an L3 of their own."""
    sizes = {
        cpu: each.size_bytes for each in caches if each.level == 3 and each.holds_data and each.size_bytes for cpu in each.cpus
    }
    return _group((f"L3 {sizes[cpu] >> 10} KiB", cpu) for cpu in directories) if set(directories) <= set(sizes) else {}


def _kinds_from_clock(tree: Tree, directories: dict[int, str]) -> dict[str, list[int]]:
    """Highest clocks that are far apart; those of a few favoured cores are not."""
    highest = {cpu: tree.number(f"{path}/cpufreq/cpuinfo_max_freq") for cpu, path in directories.items()}
    if not highest or None in highest.values() or 0 in highest.values():
        return {}
    names, last, ends = {}, 0, 0
    for rate in sorted(set(highest.values()), reverse=True):
        ends = ends if last and last <= FAVOURED * rate else rate
        names[rate], last = f"up to {ends / 1e6:.2f} GHz", rate
    return _group((names[rate], cpu) for cpu, rate in highest.items())


def _group(pairs: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for name, cpu in pairs:
        groups.setdefault(name, []).append(cpu)
    return groups
