"""What short visits to one machine say of the judge: the same is measured again and again, so that every difference found is a false alarm, and one that was put in is to be found."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from ..errors import UsageError
from ..model import HIGHER, LOWER, Frozen, Sample
from ..runlog.read import RunLog
from .answers import answers
from .bands import Band, bands
from .compare import compare

FOLDER, RESULT = "selftest", "selftest.json"  # where they are kept, in a folder for each machine and visit
#: By how much all operations of one visit are made slower, one effect for each pair of visits in turn.
EFFECTS = (1.02, 1.03, 1.05, 1.08, 1.12, 1.2, 1.3, 1.5)
FOUND = 0.9  # share of cells in which an effect must be found to count as one that this machine resolves
#: The most of cells that may be called changed where nothing did: the false discovery rate that claims are corrected for.
MOST_CLAIMED = 0.05


class Resolved(Frozen):
    """The smallest effect (a factor) that is found in FOUND of a benchmark's cells, as are all larger ones; None where not even the largest is."""

    benchmark: str
    cells: int  # of one pair of visits that can be judged
    effect: float | None


class SelfTest(Frozen):
    """Shares are of the cells of all pairs of visits that were judged."""

    machine: str
    recorded: str  # begin of the first visit
    visits: int
    pairs: int
    cells: int
    claimed: float  # called faster or slower
    raw: float  # p under 5 %, before the correction for many comparisons
    covered: float  # whose 95 % interval of the ratio includes 1
    same: float  # called the same
    headlines: int  # of all visits together
    settled: float  # share of these
    resolved: tuple[Resolved, ...]
    bands: tuple[Band, ...]  # of the visit in the middle

    @property
    def smallest(self) -> str:
        """`5 % in fences, over 50 % in contention`: what one visit a side would find."""
        return ", ".join(
            f"{f'{each.effect - 1:.0%}' if each.effect else f'over {EFFECTS[-1] - 1:.0%}'} in {each.benchmark}"
            for each in self.resolved
        )

    @property
    def sound(self) -> bool:
        """Whether it says nothing against the judge: few false alarms, and no band is broken."""
        return self.claimed <= MOST_CLAIMED and not any(band.verdict == "BROKEN" for band in self.bands)


def self_test(logs: Sequence[RunLog]) -> SelfTest:
    """Three visits or more, each a log of its own. Raises UsageError where they have no cell in common that can be judged."""
    pairs = list(itertools.combinations(logs, 2))
    cells = pd.concat([judged(base, new) for base, new in pairs], ignore_index=True)
    if cells.empty:
        raise UsageError(
            "these visits were too short: no cell of theirs has the processes that a comparison takes", "add --budget 2m or more"
        )
    said = [answer for log in logs for answer in answers(log) if answer.headline]
    header = logs[0].headers[0]
    return SelfTest(
        machine=header.alias,
        recorded=header.started,
        visits=len(logs),
        pairs=len(pairs),
        cells=len(cells),
        claimed=float(cells["verdict"].isin(("faster", "slower")).mean()),
        raw=float((cells["p"] < 0.05).mean()),
        covered=float(((cells["low"] <= 1) & (cells["high"] >= 1)).mean()),
        same=float((cells["verdict"] == "same").mean()),
        headlines=len(said),
        settled=sum(answer.ok for answer in said) / max(1, len(said)),
        resolved=tuple(smallest_effects(list(itertools.pairwise(logs)))),
        bands=tuple(bands(logs[len(logs) // 2])),
    )


def newest(folder: Path, machine: str) -> SelfTest | None:
    """The last one of a machine in a folder of results; None where there is none that can be read."""
    for path in sorted((folder / FOLDER / machine).glob("*/" + RESULT), reverse=True):
        try:
            return msgspec.json.decode(path.read_bytes(), type=SelfTest)
        except (OSError, msgspec.DecodeError):
            continue
    return None


def judged(base: RunLog, new: RunLog) -> pd.DataFrame:
    """The main cells that were compared."""
    cells = compare(base, new).cells
    return cells[cells["main"] & cells["p"].notna()]


def smallest_effects(pairs: Sequence[tuple[RunLog, RunLog]]) -> list[Resolved]:
    """By each benchmark's first metric: the others are the same in other words, or tails that no short visit knows."""
    first = {(b.name, b.metrics[0].name) for base, _ in pairs for b in base.benchmarks if b.metrics}
    found: dict[str, dict[float, tuple[int, int]]] = {}
    for effect, (base, new) in zip(EFFECTS, itertools.cycle(pairs), strict=False):
        cells = judged(base, slower(new, effect))
        cells = cells[np.array([key in first for key in zip(cells["benchmark"], cells["metric"], strict=True)], dtype=bool)]
        for name, rows in cells.groupby("benchmark", sort=False):
            found.setdefault(str(name), {})[effect] = int((rows["verdict"] == "slower").sum()), len(rows)
    return [
        Resolved(benchmark=name, cells=max(n for _, n in shares.values()), effect=smallest(shares))
        for name, shares in found.items()
    ]


def smallest(shares: dict[float, tuple[int, int]]) -> float | None:
    """The smallest effect from which on all are found; `shares`: effect -> (found, of so many)."""
    least = None
    for effect in sorted(shares, reverse=True):
        hits, cells = shares[effect]
        if hits < FOUND * cells:
            break
        least = effect
    return least


def slower(log: RunLog, factor: float) -> RunLog:
    """`log` of a machine on which everything takes `factor` times as long."""
    directions = {(b.name, m.name): m.polarity for b in log.benchmarks for m in b.metrics}
    by = {LOWER: factor, HIGHER: 1 / factor}

    def change(benchmark: str, sample: Sample) -> Sample:
        metrics = {name: value * by.get(directions.get((benchmark, name), ""), 1.0) for name, value in sample.metrics.items()}
        return msgspec.structs.replace(sample, metrics=metrics)

    trials = tuple(
        msgspec.structs.replace(t, samples=tuple(change(t.benchmark, s) for s in t.samples), rounds=()) for t in log.trials
    )
    return msgspec.structs.replace(log, trials=trials)
