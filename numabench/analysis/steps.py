"""When the figures of one machine changed for good: change points over its visits, with a rate of false alarms that is known.

One test for the whole machine. Cells are scaled by their median and MAD and clipped, so that a single odd visit says little; a benchmark's statistic is the largest, over all
places where its visits can be parted, of the squared distance between the means of both parts, summed over its cells (as between groups in a multivariate analysis of
variance); benchmarks are made comparable by what their statistic is when the visits are in another order, and the largest of them counts (max-T: Westfall and Young 1993). The same orders give
its p-value: where nothing changed every order is as likely. Where something did, both parts are looked at again (binary segmentation: Vostrikova 1981).

Units that follow each other may be alike (a warm week, a neighbour that stays), of which other orders know nothing. How much of a unit is carried over to the next is estimated; what each
unit adds of its own is put in another order, and the carrying over done again (a sieve: Buhlmann 1997; the estimate is that of a chain of first order).

Pure functions on arrays: values are logs of a metric, shape (units, cells), in the order of time, NaN where a unit has no such cell. A unit is a day, or a visit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from ..model import Frozen
from .fleet import LEAST_SCALE, MAD_TO_SD

LEAST_UNITS = 12  # of fewer a step of several per cent is not found
LEAST_SIDE = 3  # units before and after a step: fewer are a spike
MOST_UNITS = 120  # the last ones: what was before is another machine by now
FALSE_ALARMS = 0.05
CLIP = 6.0
#: Orders that are tried; more where few were as far off, since many machines ask for small p-values; few where only 5 % is asked for.
ORDERS, MORE_ORDERS, FEW_ORDERS = (999,), (999, 19_999), (199,)
ENOUGH, SEED = 20, 1
TRIED = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)  # steps, smallest first
ROUNDING = 1e-9
MOST_CARRIED = 0.8  # of a unit: beyond that no step is told from wandering
ROOM = 32 << 20  # bytes that the orders of one go take


class Step(Frozen):
    """A change. `at`: the first unit after it; `p` of the machine's part that it was found in; `groups` that changed there."""

    at: int
    p: float
    groups: tuple[int, ...]


class Found(Frozen):
    """What one machine's values tell. `p`: of what was seen where nothing changed; `steps`, by time, where it is at most FALSE_ALARMS."""

    p: float
    steps: tuple[Step, ...]


class _Looked(Frozen):
    """A part of the units. `lead`: the group that says most of a step; `place`: of each group the first unit after its most likely step; `adjusted`: its p-value among all
    groups."""

    p: float
    lead: int
    place: np.ndarray
    adjusted: np.ndarray


def find_steps(values: np.ndarray, group: np.ndarray, more: bool = False) -> Found:
    """`group`: the number of each cell's benchmark, from 0. `more`: p-values as small as many machines ask for."""
    groups = int(group.max()) + 1 if len(group) else 0
    whole = _look(values, group, groups, MORE_ORDERS if more else ORDERS)
    steps = tuple(_parts(values, group, groups, 0, whole)) if whole.p <= FALSE_ALARMS else ()
    return Found(p=whole.p, steps=steps)


def smallest_step(values: np.ndarray, group: np.ndarray, number: int) -> float:
    """The first of TRIED (a share) that, put into the later half of this group's cells, is found; NaN where none is."""
    later = np.arange(len(values))[:, None] >= len(values) // 2
    for share in TRIED:
        changed = values + np.log1p(share) * (later & (group == number))
        looked = _look(changed, group, int(group.max()) + 1, FEW_ORDERS)
        if looked.adjusted[number] <= FALSE_ALARMS:
            return share
    return float("nan")


def _parts(values: np.ndarray, group: np.ndarray, groups: int, first: int, looked: _Looked) -> Iterator[Step]:
    """The steps in these units, of which the first has the number `first`, by time."""
    at = int(looked.place[looked.lead])
    moved = (looked.adjusted <= FALSE_ALARMS) & (np.abs(looked.place - at) < LEAST_SIDE)
    for part, begin in ((values[:at], first), (values[at:], first + at)):
        if begin == first + at:
            yield Step(at=first + at, p=looked.p, groups=tuple(map(int, np.flatnonzero(moved))))
        if len(part) >= LEAST_UNITS:
            again = _look(part, group, groups, ORDERS)
            if again.p <= FALSE_ALARMS:
                yield from _parts(part, group, groups, begin, again)


def scaled(values: np.ndarray) -> np.ndarray:
    """Values from their median in MADs, clipped, and their mean taken off. What is missing is like the rest."""
    centre = medians(values)
    scale = np.maximum(MAD_TO_SD * medians(np.abs(values - centre)), LEAST_SCALE)
    z = np.clip((values - centre) / scale, -CLIP, CLIP)
    known = np.isfinite(z)
    mean = np.nan_to_num(z).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, z - mean, 0.0)


def _look(values: np.ndarray, group: np.ndarray, groups: int, orders: Sequence[int]) -> _Looked:
    """By so many orders, of `orders` the next number where fewer than ENOUGH of them were as far off."""
    z = scaled(values)
    units = len(z)
    alike = np.stack([z[:, group == number] @ z[:, group == number].T for number in range(groups)])  # (groups, units, units)
    draws = np.random.default_rng(SEED)
    found = _statistics(alike, np.arange(units)[None])
    place = found.argmax(axis=2)[0] + LEAST_SIDE
    largest = found.max(axis=2)
    share = carried(alike, place)
    rows = max(1, ROOM // (8 * groups * units * units))  # orders at a time
    for count in orders:
        parts = [largest]
        for begin in range(len(largest) - 1, count, rows):
            shuffled = draws.permuted(np.tile(np.arange(units), (min(rows, count - begin), 1)), axis=1)
            parts.append(_statistics(alike, shuffled, share).max(axis=2))
        largest = np.concatenate(parts)
        mean, spread = largest.mean(axis=0), np.maximum(largest.std(axis=0), np.finfo(float).tiny)
        off = (largest - mean) / spread
        most = off.max(axis=1)
        as_far = (most >= most[0] - ROUNDING).sum()
        if as_far > ENOUGH:
            break
    adjusted = np.array([(most >= own - ROUNDING).mean() for own in off[0]])
    return _Looked(p=float(as_far / len(most)), lead=int(off[0].argmax()), place=place, adjusted=adjusted)


def carried(alike: np.ndarray, place: np.ndarray) -> float:
    """The correlation of a unit with the one before it, 0 to MOST_CARRIED, over the cells of all groups: next neighbours are so much farther apart than neighbours are. `place`: of
    each group its most likely step, across which nothing is compared, since a step is no dependence. Means of cells, which differences do not have, bias it by nothing."""
    near, far = (np.stack([_apart(each, lag) for each in alike]) for lag in (1, 2))
    spread = np.maximum(np.trace(alike, axis1=1, axis2=2), np.finfo(float).tiny)[:, None]  # groups count alike
    for number, at in enumerate(place):
        near[number, at - 1] = far[number, at - 2 : at] = np.nan
    one, two = (float(np.nanmean(each / spread)) for each in (near, far))
    return min(max(two / one - 1, 0.0), MOST_CARRIED) if one > 0 else 0.0


def _apart(products: np.ndarray, lag: int) -> np.ndarray:
    """The squared distance of each unit to that `lag` later."""
    own = np.diagonal(products)
    return own[:-lag] + own[lag:] - 2 * np.diagonal(products, lag)


def _statistics(alike: np.ndarray, orders: np.ndarray, share: float = 0.0) -> np.ndarray:
    """Shape (orders, groups, places): the squared distance between the means before and after each place, times what makes places comparable.

    With all means zero, that of the sums before a place is u' G u, G the products of units with units and u those that stand before it in this order. Where `share` of a unit is carried
    over to the next, what stands in this order is what each adds of its own, W x; the units are then W^-1 of that, and u is so much of each x.
    """
    groups, units = alike.shape[:2]
    before = np.arange(LEAST_SIDE, units - LEAST_SIDE + 1)
    stands = np.argsort(orders, axis=1)
    first = (np.arange(units)[:, None] < before).astype(float)
    if share:
        own = np.eye(units) - share * np.eye(units, k=-1)
        own[0, 0] = math.sqrt(1 - share**2)  # as if the chain had begun long before
        first = np.linalg.inv(own).T @ (first - before / units)  # the mean of units in another order is not zero any more
        first = np.einsum("vu,ovp->uop", own, first[stands]).reshape(units, -1)
    else:
        first = first[stands].transpose(1, 0, 2).reshape(units, -1)
    products = (alike.reshape(groups * units, units) @ first).reshape(groups, units, -1)
    sums = np.einsum("gup,up->gp", products, first).reshape(groups, len(orders), len(before))
    return sums.transpose(1, 0, 2) * units / (before * (units - before))


def medians(values: np.ndarray) -> np.ndarray:
    """Of each column; NaN where nothing of it is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(values, axis=0)


def change_at(values: np.ndarray, at: int, begin: int, end: int) -> np.ndarray:
    """How far the median of each cell after `at` is from that before it (in logs), within the units `begin` to `end`: between the steps before and after."""
    return medians(values[at:end]) - medians(values[begin:at])


def bounds(steps: Sequence[Step], number: int, units: int) -> tuple[int, int]:
    """The units between the step before `number` and the one after it."""
    before = steps[number - 1].at if number else 0
    return before, steps[number + 1].at if number + 1 < len(steps) else units
