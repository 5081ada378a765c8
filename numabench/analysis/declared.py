"""Groups of CPUs that the machine declares, held against the levels of structure that were measured. Virtual machines lie."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..units import format_cpus, parse_cpus
from .neighbours import MARGIN, Level, partition

SHOWN = 3  # groups named in a sentence


def declares(topology: dict) -> bool:
    """Whether it says how CPUs lie; that of a published matrix does not."""
    return any(topology.get(part) for part in ("packages", "nodes", "cores", "caches"))


def group_sets(topology: dict) -> dict[str, Iterable[str]]:
    """Name -> CPU lists, from the nearest relation on."""
    shared = {level: [c["cpus"] for c in topology.get("caches", ()) if c["level"] == level] for level in (2, 3)}
    return {
        "cores": topology.get("cores", ()),
        "clusters": [*topology.get("clusters", ()), *shared[2]],
        "L3 groups": shared[3],
        "nodes": [node["cpus"] for node in topology.get("nodes", ())],
        "packages": [package["cpus"] for package in topology.get("packages", ())],
    }


def declared_groups(topology: dict, cpus: Iterable[int]) -> dict[str, set[frozenset[int]]]:
    """Name -> groups of at least two of `cpus`, from the nearest relation on; levels that have none, or the same as a nearer one, are left out."""
    wanted = frozenset(cpus)
    found: dict[str, set[frozenset[int]]] = {}
    for name, groups in group_sets(topology).items():
        parts = partition(frozenset(parse_cpus(group)) & wanted for group in groups)
        parts = {part for part in parts if part != wanted}
        if parts and parts not in found.values():
            found[name] = parts
    return found


def together(cpus: tuple[int, ...], groups: Iterable[frozenset[int]]) -> np.ndarray:
    """Which two of `cpus` are in one group: booleans, shape (n, n)."""
    owner = {cpu: number for number, group in enumerate(groups) for cpu in group}
    labels = np.array([owner.get(cpu, -1 - place) for place, cpu in enumerate(cpus)])
    return labels[:, None] == labels[None, :]


def against_declared(found: list[Level], matrix: np.ndarray, cpus: tuple[int, ...], topology: dict) -> tuple[str, list[str]]:
    """(which declared groups were measured as such, what contradicts the declaration).

    A declared level contradicts the matrix where its groups are not near: its own pairs (those of no nearer level) take as long as those that the
    next level adds. A measured level contradicts the declaration where nothing declared is like it."""
    if not declares(topology):
        return "", []
    declared = declared_groups(topology, cpus)
    confirmed, wrong = [], []
    shared = [np.eye(len(cpus), dtype=bool), *(together(cpus, groups) for groups in declared.values())]
    shared.append(np.ones_like(shared[0]))
    for number, (name, groups) in enumerate(declared.items(), 1):
        nearer, own, farther = shared[number - 1 : number + 2]
        inside, outside = (middle(matrix[pairs]) for pairs in (own & ~nearer, farther & ~own))
        if any(partition(level.groups) == groups for level in found):
            confirmed.append(name)
        elif not outside > MARGIN * inside and np.isfinite(outside):
            wrong.append(
                f"{name} are declared, and pairs inside one ({inside:.3g} ns) are no nearer than pairs of two ({outside:.3g} ns)"
            )
    for level in found:
        groups = partition(level.groups)
        if groups not in declared.values():
            some = " / ".join(format_cpus(group) for group in sorted(groups, key=min)[:SHOWN])
            more = f" and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
            wrong.append(f"measured groups {some}{more} are not declared")
    return f"{', '.join(confirmed)} as declared" if confirmed else "", wrong


def middle(values: np.ndarray) -> float:
    """The median of what is known; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
