"""Which of many machines that should be equal are not: two looks, so that few healthy machines are suspected and hardly one is accused.

First look: one visit to each machine. A cell's robust z (from the median, in MADs; both of the cohort) becomes a p-value that knows how well so many
machines tell a median and a MAD; a machine's p-values become one (Simes 1986), and machines whose one passes Benjamini and Hochberg at SUSPECTED are
suspects. Second look: visits made after that, to suspects alone. What is claimed rests on these: in the direction of the first look, corrected over the
machine's own cells at CLAIMED, and at least half of what counts in practice. A single look at thresholds for each cell (as 3.5 MADs) flags a fifth of a
healthy fleet, since it asks a hundred thousand questions.

Pure functions on arrays: values are logs of a metric, shape (visits, cells), NaN where a visit has no such cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypeGuard

import numpy as np
from scipy import special

from ..model import Frozen
from .discoveries import discoveries

SUSPECTED, CLAIMED = (
    0.05,
    0.05,
)  # false discovery rates: of suspects, which only cost two visits more; of a machine's cells that are claimed
LEAST_MACHINES = 8  # of fewer a median and a MAD say too little
MAD_TO_SD = 1.4826
LEAST_SCALE = 1e-4  # in logs: figures that all agree to less are equal
#: Draws of medians and MADs for the table of tails; of few machines more, since what is rare decides. Tables are made for these numbers of machines: the next lower one's tails are longer.
FEW, FEW_DRAWS, DRAWS, SEED = 32, 40_000, 4_000, 1
COUNTS = np.array([*range(8, 33), 40, 50, 64, 80, 100, 150, 200, 300, 500, 1_000])
STEP, FARTHEST = 0.25, 60.0  # of the table, in z
NEAR = 0.01  # of numbers that are facts: what is within it is equal
RECENT = 3  # visits of a machine that count: the first of them is its first look, those after it its second
#: Two groups and no outliers: each has this share of the machines at least, they lie so many of their own scales apart, and so do they in this share of cells.
LEAST_SHARE, LEAST_GAP, SPLIT_CELLS = 0.10, 6.0, 0.02
AGREE = 0.95  # of machines, which two cells split alike


class Judged(Frozen):
    """What was found of one machine. `state`: alike, suspect (one look alone), differs, or not judged. `cells`: numbers of those that are claimed, or that made it a
    suspect; `away` from the median, in logs."""

    machine: int
    state: str
    p: float | None
    cells: tuple[int, ...] = ()
    away: tuple[float, ...] = ()
    visits: int = 0


ALIKE, SUSPECT, DIFFERS, UNJUDGED = "alike", "suspect", "differs", "not judged"


@cache
def tails(machines: int) -> np.ndarray:
    """P(|z| > k STEP) of a machine like the others, whose median and MAD are known from `machines` - 1 others: a normal tail over what these can be."""
    draws = np.random.default_rng(SEED).standard_normal((FEW_DRAWS if machines <= FEW else DRAWS, max(2, machines - 1)))
    median = np.median(draws, axis=1)
    scale = MAD_TO_SD * np.median(np.abs(draws - median[:, None]), axis=1)
    steps = np.arange(0.0, FARTHEST + STEP, STEP)
    return np.array([(special.ndtr(median - z * scale) + special.ndtr(-median - z * scale)).mean() for z in steps])


def p_values(z: np.ndarray, machines: np.ndarray | int) -> np.ndarray:
    """Two-sided; NaN where z is. `machines` that a cell's median and MAD are of, one number or one for each column."""
    known = np.broadcast_to(np.asarray(machines), z.shape[-1:])
    found = np.full(z.shape, np.nan)
    for count in np.unique(known[known >= LEAST_MACHINES]):
        logs = np.log(np.maximum(tails(int(COUNTS[count >= COUNTS].max())), np.finfo(float).tiny))
        part = z[..., known == count]
        at = np.minimum(np.abs(np.nan_to_num(part, posinf=FARTHEST, neginf=-FARTHEST)) / STEP, len(logs) - 1.001)
        low = at.astype(np.int64)
        p = np.exp(logs[low] + (at - low) * (logs[low + 1] - logs[low]))
        found[..., known == count] = np.where(np.isnan(part), np.nan, p)
    return found


def centre_and_scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and MAD (as a standard deviation) of each column, and NaN where fewer than LEAST_MACHINES have a value."""
    known = np.isfinite(values).sum(axis=0) >= LEAST_MACHINES
    centre, scale = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    centre[known] = np.nanmedian(values[:, known], axis=0)
    scale[known] = np.maximum(MAD_TO_SD * np.nanmedian(np.abs(values[:, known] - centre[known]), axis=0), LEAST_SCALE)
    return centre, scale


def simes(p: np.ndarray) -> np.ndarray:
    """One p-value for each row: of the hypothesis that none of its cells is unlike (Simes 1986); NaN for a row without any."""
    ordered = np.sort(p, axis=1)  # NaN last
    known = np.isfinite(ordered).sum(axis=1, keepdims=True)
    ranks = np.arange(1, p.shape[1] + 1)
    with np.errstate(invalid="ignore"):
        scaled = np.where(ranks <= known, ordered * known / ranks, np.inf)
    least = scaled.min(axis=1, initial=np.inf)
    return np.where(np.isfinite(least), np.minimum(least, 1.0), np.nan)


def claimed(p: np.ndarray, rate: float) -> np.ndarray:
    """Which of these claims stand at this rate of false discoveries; none of those that are NaN."""
    found, known = np.zeros(len(p), dtype=bool), np.isfinite(p)
    found[known] = discoveries(p[known]) <= rate if known.any() else False
    return found


def rows_of(machine: np.ndarray) -> list[np.ndarray]:
    """The rows of each machine, in their order; `machine`: the number of each row's, of which none is left out."""
    number = machine.astype(np.int64)
    return np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1]) if len(number) else []


def look(values: np.ndarray, machine: np.ndarray, practical: float = 0.03) -> list[Judged]:
    """What each machine is found to be. `machine`: the number of each visit's, in the order of time. Of a machine's RECENT visits the first is its first look,
    those after it are its second; its last one by itself can make it a suspect again, so that what went wrong later is seen.

    `practical`: the share from which on a difference is claimed; half of it is a reason to look again.
    """
    every = rows_of(machine)
    recent = [rows[-RECENT:] for rows in every]
    first, last = (np.array([rows[place] for rows in recent], dtype=np.int64) for place in (0, -1))
    begun = _screen(values[first], practical)
    ended = begun if np.array_equal(first, last) else _screen(values[last], practical)
    found = []
    for number, rows in enumerate(recent):
        visits = len(every[number])
        if not np.isfinite(begun.whole[number]):
            found.append(Judged(machine=number, state=UNJUDGED, p=None, visits=visits))
            continue
        state, cells, away = ALIKE, np.zeros(0, dtype=np.int64), begun.off[number]
        if begun.suspected[number] and len(rows) > 1:
            cells, away = _confirmed(begun, number, values[rows[1:]], practical)
            state = DIFFERS if len(cells) else ALIKE
        if state == ALIKE and ended.suspected[number]:
            state, away = SUSPECT, ended.off[number]
            cells = np.flatnonzero(claimed(ended.p[number], SUSPECTED))
        found.append(
            Judged(
                machine=number,
                state=state,
                p=float(begun.whole[number]),
                cells=tuple(map(int, cells)),
                away=tuple(map(float, away[cells])),
                visits=visits,
            )
        )
    return found


def by_part(values: np.ndarray, part: np.ndarray, practical: float = 0.03) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one visit to each machine, part by part of its cells (`part`: the number of each cell's), shape (machines, parts): p (Simes; NaN where nothing can be
    said), the cell that is least like the others', and how far that is away from the median, in logs."""
    screened = _screen(values, practical)
    shape = len(values), int(part.max(initial=-1)) + 1
    p, farthest = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
    for number in range(shape[1]):
        columns = np.flatnonzero(part == number)
        p[:, number] = simes(screened.p[:, columns])
        away = np.abs(np.nan_to_num(screened.off[:, columns] / screened.scale[columns]))
        counts = np.nan_to_num(screened.p[:, columns], nan=1.0) < 1  # what is under half the practical size is not told
        farthest[:, number] = columns[np.argmax(np.where(counts, away, -1.0), axis=1)]
    return p, farthest, np.take_along_axis(screened.off, farthest, axis=1)


class _Screened(NamedTuple):
    """One visit to each machine, shape (machines, cells), and what it says."""

    centre: np.ndarray
    scale: np.ndarray
    known: np.ndarray  # machines that have a cell
    off: np.ndarray
    p: np.ndarray
    whole: np.ndarray
    suspected: np.ndarray


def _screen(values: np.ndarray, practical: float) -> _Screened:
    centre, scale = centre_and_scale(values)
    known, off = np.isfinite(values).sum(axis=0), values - centre
    p = p_values(off / scale, known)
    p = np.where(np.abs(off) < np.log1p(practical) / 2, np.where(np.isnan(p), np.nan, 1.0), p)
    whole = simes(p)
    return _Screened(centre, scale, known, off, p, whole, claimed(whole, SUSPECTED))


def _confirmed(screened: _Screened, number: int, after: np.ndarray, practical: float) -> tuple[np.ndarray, np.ndarray]:
    """(cells that each of these new visits by itself shows, how far those are off that show least), in the first look's direction."""
    sign = np.sign(screened.off[number])
    further = sign * (after - screened.centre)
    shown = np.where(np.isfinite(further), further, np.inf).min(axis=0, initial=np.inf)
    shown = np.where(np.isfinite(shown), shown, np.nan)
    p = np.where(shown >= np.log1p(practical), p_values(shown / screened.scale, screened.known) / 2, 1.0)
    return np.flatnonzero(claimed(np.where(np.isnan(shown), np.nan, p), CLAIMED)), sign * shown


def smallest_shown(values: np.ndarray, practical: float = 0.03, share: float = 0.0) -> float:
    """The least difference (a share) that makes a machine a suspect every other time, in one cell of median scale, or in a `share` of all at once; NaN where none
    does. `values`: one visit each, shape (machines, cells)."""
    scale = centre_and_scale(values)[1]
    cells = int(np.isfinite(scale).sum())
    if not cells:
        return float("nan")
    table = tails(int(COUNTS[len(values) >= COUNTS].max()))
    unlikely = np.flatnonzero(table <= SUSPECTED / len(values) / cells * max(1, int(share * cells)))
    needed = max(unlikely[0] * STEP * np.nanmedian(scale), np.log1p(practical) / 2) if len(unlikely) else np.nan
    return float(np.expm1(needed))


def split(values: np.ndarray) -> np.ndarray | None:
    """Which machines are of a second group, where there are two and no outliers; `values`: one visit each, shape (machines, cells).

    A cell splits them where the largest gap between neighbours lies between two groups of LEAST_SHARE and is LEAST_GAP times the scale within these. The
    split that most cells share is it, where they are SPLIT_CELLS of all, and two at least.
    """
    count, cells = values.shape
    least = max(LEAST_MACHINES, int(np.ceil(LEAST_SHARE * count)))  # fewer are outliers, which are named one by one
    if count < 2 * least:
        return None
    found: list[np.ndarray] = []
    for column in values.T:
        known = int(np.isfinite(column).sum())
        if known < max(2 * least, AGREE * count):
            continue
        order = np.argsort(column)[:known]  # NaN last
        gaps = np.diff(column[order])[least - 1 : known - least]
        at = int(np.argmax(gaps)) + least
        halves = column[order[:at]], column[order[at:]]
        within = max(MAD_TO_SD * float(np.median(np.abs(half - np.median(half)))) for half in halves)
        if np.median(halves[1]) - np.median(halves[0]) >= LEAST_GAP * max(within, LEAST_SCALE) and gaps.max() >= max(
            within, LEAST_SCALE
        ):
            second = np.zeros(count, dtype=bool)
            second[order[at:]] = True
            found.append(second if second.sum() <= count - second.sum() else ~second)
    best: list[np.ndarray] = []
    for one in found:
        alike = [other for other in found if (one == other).mean() >= AGREE]
        best = max(best, alike, key=len)
    return np.mean(best, axis=0) > 0.5 if len(best) >= max(2, SPLIT_CELLS * cells) else None


def odd_facts(
    facts: Sequence[dict[str, object]], rare: float = 0.05, usual: float = 0.90
) -> list[dict[str, tuple[object, object]]]:
    """Of each machine what it alone, or with few others, has: name -> (its value, that of most). A value of under `rare` of the machines, or of one, where
    `usual` of them agree on another; of numbers those within 1 % are equal."""
    found: list[dict[str, tuple[object, object]]] = [{} for _ in facts]
    for name in dict.fromkeys(name for each in facts for name in each):
        values = [each.get(name) for each in facts]
        known = [value for value in values if value is not None]
        if len(known) < LEAST_MACHINES:
            continue
        most = most_have(known)
        same = sum(equal(value, most) for value in known)
        if same < usual * len(known):
            continue
        numbers = np.array([value for value in known if is_number(value)], dtype=float)
        words = Counter(value for value in known if not is_number(value))
        for number, value in enumerate(values):
            if value is None or equal(value, most):
                continue
            holders = words[value]
            if is_number(value):
                holders += int((np.abs(numbers - value) <= NEAR * np.maximum(np.abs(numbers), abs(value))).sum())
            if holders <= max(1, rare * len(known)):
                found[number][name] = (value, most)
    return found


def most_have(known: Sequence[object]) -> object:
    """The value that most have: of numbers, which scatter, the median."""
    numbers = sorted(value for value in known if is_number(value))
    return numbers[len(numbers) // 2] if 2 * len(numbers) > len(known) else Counter(known).most_common(1)[0][0]


def equal(one: object, other: object) -> bool:
    """Whether two values of a fact are the same; numbers within 1 %."""
    if is_number(one) and is_number(other):
        return abs(one - other) <= NEAR * max(abs(one), abs(other))
    return one == other


def is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
