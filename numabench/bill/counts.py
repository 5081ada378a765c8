"""What a program did, from readings of the kernel's counts."""

from __future__ import annotations

from collections.abc import Mapping

from ..host.accounts import Reading, Task
from ..host.watch import Watched
from ..model import Frozen


class Counts(Frozen):
    """Of a program and all that it started. Times in s; None where the kernel does not say.

    `whole`: CPU time, switches and faults are the kernel's own sums from begin to end. What only readings of living threads show (`migrations`, `waited`, and
    without `whole` the switches) is at least so much: `seen` is the share of the CPU time in which the readings saw who spent it."""

    wall: float
    cpu: float
    whole: bool
    seen: float
    threads: int  # at once, at most
    minor: int
    major: int
    voluntary: int
    involuntary: int
    migrations: int | None
    waited: float | None
    calls: int | None
    cpus: tuple[int, ...]  # that it may have run on
    tlb: int | None  # interrupts of these, whoever caused them
    system_calls: int | None = None  # by tracepoints, where they were asked for
    shootdowns: int | None = None  # that it asked other CPUs for


class Ledger:
    """Adds readings up. `whole`: the program began under watch, so that all its counts began at 0."""

    def __init__(self, whole: bool):
        self.whole = whole
        self.before: dict[tuple[int, int, int], Task] = {}  # who lived at the first reading
        self.last: dict[tuple[int, int, int], Task] = {}
        self.sums: list[float] | None = None
        self.grown = [0.0, 0, 0, 0]  # CPU time, minor and major faults, calls
        self.tells_calls = True
        self.most_threads = 1
        self.visited: set[int] = set()

    def take(self, reading: Reading) -> None:
        if not reading.processes:
            return
        now = {(p.number, task.number, task.began): task for p in reading.processes for task in p.tasks}
        if self.sums is None and not self.whole:
            self.before = dict(now)
        self.last |= now
        self.most_threads = max(self.most_threads, len(now))
        self.visited |= {task.cpu for task in now.values()}
        self.tells_calls &= all(p.calls is not None for p in reading.processes)
        self._grow(reading)

    def _grow(self, reading: Reading) -> None:
        """What all together have more than at the last reading. A process that is waited for hands its counts to its parent, so that their sum stays;
        with one that nobody waits for its counts are lost, and what was added before is kept."""
        sums = [sum(each) for each in zip(*((p.cpu, p.minor, p.major, p.calls or 0) for p in reading.processes), strict=True)]
        before = self.sums or ([0.0] * len(sums) if self.whole else sums)
        self.grown = [had + max(0, new - old) for had, new, old in zip(self.grown, sums, before, strict=True)]
        self.sums = sums

    def counts(self, watched: Watched, events: Mapping[str, int] | None = None) -> Counts:
        usage = watched.usage
        ran, waited, migrations = (self._more(name) for name in ("ran", "waited", "migrations"))
        cpu = usage.cpu if usage else max(self.grown[0], ran or 0.0)  # the kernel's sums are in ticks
        cpus = tuple(sorted(self.visited.union(watched.cpus)))
        return Counts(
            wall=watched.wall,
            cpu=cpu,
            whole=usage is not None,
            seen=min(1.0, (ran or 0.0) / cpu) if cpu else 1.0,
            threads=self.most_threads,
            minor=usage.minor if usage else int(self.grown[1]),
            major=usage.major if usage else int(self.grown[2]),
            voluntary=usage.voluntary if usage else int(self._more("voluntary") or 0),
            involuntary=usage.involuntary if usage else int(self._more("involuntary") or 0),
            migrations=None if migrations is None else int(migrations),
            waited=waited,
            calls=int(self.grown[3]) if self.tells_calls else None,
            cpus=cpus,
            tlb=None if watched.tlb is None else sum(watched.tlb.get(cpu, 0) for cpu in cpus),
            **(events or {}),
        )

    def _more(self, name: str) -> float | None:
        """What a count of all threads grew by; None where the kernel does not say."""
        total = 0.0
        for key, task in self.last.items():
            value = getattr(task, name)
            if value is None:
                return None
            total += value - (getattr(self.before[key], name) if key in self.before else 0)
        return total
