"""Profiles: how thoroughly a visit asks, and how long it may take. This table is all that a profile is."""

from __future__ import annotations

from ..benchmarks import Benchmark, Sweep
from ..errors import UsageError
from ..host.topology import Topology
from ..model import Frozen
from ..text import near
from .protocol import Timing

ACCEPTANCE = "acceptance"  # a breadth: what benchmarks give as `acceptance`, and no sweep


class Profile(Frozen):
    """`breadth`: how much of its question a benchmark asks, a word that `Benchmark.sweep` knows, or ACCEPTANCE. `least_budget`, `most_budget`: wall-clock seconds
    on a small machine, and the most that they grow to on a large one. `processes`: exactly so many; None: by precision. `every_kind`: of core, or the biggest
    alone. `refines`: points are added by what was found, which differs from machine to machine and from day to day."""

    name: str
    breadth: str
    least_budget: float
    most_budget: float
    timing: Timing
    processes: int | None = None
    every_kind: bool = True
    refines: bool = True

    def has(self, benchmark: Benchmark, topology: Topology) -> bool:
        """Whether a benchmark has a part in this profile."""
        return self.breadth != ACCEPTANCE or benchmark.acceptance(topology) is not None

    def sweeps(self, benchmark: Benchmark, topology: Topology) -> list[Sweep]:
        """What a benchmark measures; nothing where it has no part."""
        return (benchmark.acceptance(topology) or []) if self.breadth == ACCEPTANCE else benchmark.sweep(topology, self.breadth)


PROFILES: dict[str, Profile] = {
    each.name: each
    for each in (
        # one visit to each of many machines: the same cells on equal ones, whatever is found, and few of them on a large one
        Profile(
            name="accept",
            breadth=ACCEPTANCE,
            least_budget=180.0,
            most_budget=180.0,
            timing=Timing(),
            processes=5,
            every_kind=False,
            refines=False,
        ),
        # processes differ more than samples: what three of a process take is better spent on more processes
        Profile(
            name="quick",
            breadth="quick",
            least_budget=40.0,
            most_budget=120.0,
            timing=Timing(window=0.008, samples=1),
            every_kind=False,
            refines=False,
        ),
        Profile(name="standard", breadth="standard", least_budget=240.0, most_budget=1200.0, timing=Timing(window=0.025)),
        Profile(name="full", breadth="full", least_budget=3600.0, most_budget=4 * 3600.0, timing=Timing(window=0.025)),
    )
}


def find_profile(name: str) -> Profile:
    """Raises UsageError for a name that is none, with the nearest that is."""
    if name not in PROFILES:
        raise UsageError(f"there is no profile {name!r}{near(name, PROFILES)}", f"choose among {', '.join(PROFILES)}")
    return PROFILES[name]
