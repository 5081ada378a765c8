"""How the CPUs of a matrix lie to each other: by what the machine declares or, where it declares nothing, by measured groups."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..model import Frozen
from ..units import parse_cpus
from .declared import declared_groups, declares, group_sets, together
from .neighbours import levels

INSIDE = {
    "cores": "same core",
    "clusters": "same L2 or cluster",
    "L3 groups": "same L3",
    "nodes": "same node",
    "packages": "same package",
}  # two CPUs of one group of a declared level
BETWEEN_PACKAGES, BETWEEN_GROUPS = "between packages", "between groups"

Shape = int | tuple["Shape", ...]


class Arrangement(Frozen):
    """Levels of groups from the nearest on, what two CPUs of one group are to each other, and what those are that share no group."""

    groups: tuple[tuple[frozenset[int], ...], ...]
    inside: tuple[str, ...]
    outside: str

    @property
    def relations(self) -> tuple[str, ...]:
        return (*self.inside, self.outside)

    def relation_indices(self, cpus: tuple[int, ...]) -> np.ndarray:
        """Index into `relations` of every two of `cpus`, shape (n, n); -1 on the diagonal."""
        found = np.full((len(cpus), len(cpus)), len(self.groups))
        for index in reversed(range(len(self.groups))):
            found[together(cpus, self.groups[index])] = index
        np.fill_diagonal(found, -1)
        return found

    def placed(self, cpus: frozenset[int], rank: Mapping[int, float]) -> tuple[Shape, tuple[int, ...]]:
        """(shape, CPUs in place): groups within groups, the larger first, else the one that holds the first CPU by `rank`; machines of one shape
        have CPUs of the same kind at the same place, whatever their numbers."""
        return _placed(cpus, self.groups[::-1], rank)


def _placed(cpus: frozenset[int], groups: tuple, rank: Mapping[int, float]) -> tuple[Shape, tuple[int, ...]]:
    if not groups:
        return len(cpus), tuple(sorted(cpus, key=rank.__getitem__))
    parts = [part for group in groups[0] if (part := group & cpus)]
    alone = cpus - frozenset().union(*parts)
    inner = [_placed(part, groups[1:], rank) for part in (*parts, *(frozenset((cpu,)) for cpu in alone))]
    inner.sort(key=lambda part: (-len(part[1]), str(part[0]), rank[part[1][0]]))
    return tuple(shape for shape, _ in inner), tuple(cpu for _, order in inner for cpu in order)


def declared_arrangement(topology: dict, cpus: tuple[int, ...]) -> Arrangement:
    found, wanted = declared_groups(topology, cpus), set(cpus)
    whole = [name for name, sets in group_sets(topology).items() if any(wanted <= set(parse_cpus(each)) for each in sets)]
    return Arrangement(
        groups=tuple(tuple(parts) for parts in found.values()),
        inside=tuple(INSIDE[name] for name in found),
        outside=INSIDE[whole[0]] if whole else BETWEEN_PACKAGES,
    )


def measured_arrangement(matrix: np.ndarray, cpus: tuple[int, ...]) -> Arrangement:
    """Of a symmetric `matrix`, shape (n, n); one without structure, or with a pair missing, has no groups."""
    try:
        found = levels(matrix, cpus)
    except ValueError:
        found = []
    return Arrangement(
        groups=tuple(tuple(map(frozenset, level.groups)) for level in found),
        inside=tuple(f"measured groups, level {number}" for number in range(1, len(found) + 1)),
        outside=BETWEEN_GROUPS if found else "all pairs",
    )


def arrangement(topology: dict, matrix: np.ndarray, cpus: tuple[int, ...]) -> Arrangement:
    return declared_arrangement(topology, cpus) if declares(topology) else measured_arrangement(matrix, cpus)
