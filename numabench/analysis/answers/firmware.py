"""What the firmware claims of the distances between nodes, held against what was measured.

SLIT distances are relative (10 is local), HMAT figures are absolute and belong to a node's nearest initiators. A matrix is ranked row by
row: from one CPU node, which memory is nearer? Source of the correlation: Spearman 1904 (scipy.stats.spearmanr).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pandas as pd

from ...model import HIGHER, Frozen
from ...units import format_number, format_quantity

SAME = 0.03  # measured cells closer than this are not told apart (METHODOLOGY: the band of `same`)
SHOWN = 6  # contradictions named in a sentence


class Claim(Frozen):
    """One cell of the matrix: SLIT's distance, and the interval that was measured."""

    cpu_node: int
    memory_node: int
    distance: int
    value: float
    low: float
    high: float


def claims(topology: dict[str, Any], rows: pd.DataFrame) -> list[Claim]:
    """The cells that were measured and that the firmware speaks of."""
    distances = {
        (int(n["id"]), int(to)): far for n in topology.get("nodes", ()) for to, far in (n.get("distances") or {}).items()
    }
    found = []
    for row in rows.to_dict("records"):
        cell = int(row["cpu_node"]), int(row["memory_node"])
        if cell in distances and math.isfinite(row["value"]):
            low, value, high = interval(row)
            found.append(Claim(cpu_node=cell[0], memory_node=cell[1], distance=distances[cell], value=value, low=low, high=high))
    return found


def interval(row: dict[str, Any]) -> tuple[float, float, float]:
    """(low end, value, high end) of a cell; the value itself where an end is not known."""
    low, high = (row[end] if math.isfinite(row[end]) else row["value"] for end in ("low", "high"))
    return low, row["value"], high


def tied(values: list[float]) -> list[int]:
    """Each value's group: values within `SAME` of a group's least one count as equal, or noise would rank them."""
    groups, least, group = {}, 0.0, -1
    for value in sorted(values):
        if value > (1 + SAME) * least:
            least, group = value, group + 1
        groups[value] = group
    return [groups[value] for value in values]


def rank_correlation(cells: list[Claim], polarity: str) -> float:
    """Spearman's rho between distance and what was measured, so that 1 means that the farther is the worse; NaN where one side is constant."""
    from scipy.stats import spearmanr

    distances, values = [c.distance for c in cells], tied([c.value for c in cells])
    if len(set(distances)) < 2 or len(set(values)) < 2:
        return math.nan
    return float(spearmanr(distances, values).statistic) * (-1 if polarity == HIGHER else 1)


def contradictions(cells: list[Claim], polarity: str, unit: str) -> list[str]:
    """Pairs of one row whose intervals contradict the order of the distances, those claimed to differ and measured the same, and those
    claimed to be equal and measured apart."""
    found = []
    for node, row in itertools.groupby(
        sorted(cells, key=lambda c: (c.cpu_node, c.distance, c.memory_node)), key=lambda c: c.cpu_node
    ):
        for near, far in itertools.combinations(row, 2):
            low, high = sorted((near.value, far.value))
            apart = near.high < far.low or far.high < near.low
            what = (
                f"from node {node}, node {near.memory_node} (distance {near.distance}, {format_quantity(near.value, unit)}) "
                f"and node {far.memory_node} (distance {far.distance}, {format_quantity(far.value, unit)})"
            )
            worse = far.value < near.value if polarity != HIGHER else far.value > near.value
            if near.distance == far.distance:
                if apart and high > (1 + SAME) * low:
                    found.append(f"{what} are equal by the firmware and not as measured")
            elif high <= (1 + SAME) * low:
                found.append(f"{what} differ by the firmware and are the same as measured")
            elif apart and worse:
                found.append(f"{what} are the other way round")
    return found


class Promise(Frozen):
    """HMAT's figure of a node, in the metric's unit, and what was measured from its initiators: (interval's low end, value, high end) by node."""

    memory_node: int
    figure: float
    measured: dict[int, tuple[float, float, float]]


def promises(topology: dict[str, Any], rows: pd.DataFrame, key: str, scale: float) -> list[Promise]:
    """`scale`: the claim's unit in the metric's."""
    measured = {(int(r["cpu_node"]), int(r["memory_node"])): interval(r) for r in rows.to_dict("records")}
    found = []
    for node in topology.get("nodes", ()):
        access = (node.get("access") or {}).get("access1") or (node.get("access") or {}).get("access0") or {}
        figure, memory = access.get(key), int(node["id"])
        initiators = [int(i) for i in access.get("initiators") or ()] or list(node.get("nearest_cpu_nodes") or ())
        seen = {i: measured[(i, memory)] for i in initiators if (i, memory) in measured}
        if figure and seen:
            found.append(Promise(memory_node=memory, figure=figure * scale, measured=seen))
    return found


def attribute_lines(found: list[Promise], unit: str) -> list[str]:
    """HMAT's figure of each node beside the measured one: `node 2 250 ns for 251 ns`."""
    means = [(p, sum(value for _, value, _ in p.measured.values()) / len(p.measured)) for p in found]
    return [f"node {p.memory_node} {format_quantity(p.figure, unit)} for {format_quantity(mean, unit)}" for p, mean in means]


def broken_promises(found: list[Promise], polarity: str, unit: str) -> list[str]:
    """Pairs of memories that HMAT puts in one order for a node, and measurement in the other."""
    said = []
    for a, b in itertools.combinations(found, 2):
        for node in sorted(set(a.measured) & set(b.measured)):
            near, far = sorted((a, b), key=lambda p: p.figure, reverse=polarity == HIGHER)
            promised = max(a.figure, b.figure) > (1 + SAME) * min(a.figure, b.figure)
            (low, value, high), (far_low, far_value, far_high) = near.measured[node], far.measured[node]
            worse, apart = (value < far_value, high < far_low) if polarity == HIGHER else (value > far_value, low > far_high)
            if promised and worse and apart and max(value, far_value) > (1 + SAME) * min(value, far_value):
                each = [
                    f"node {p.memory_node} (HMAT {format_quantity(p.figure, unit)}, {format_quantity(p.measured[node][1], unit)})"
                    for p in (near, far)
                ]
                said.append(f"from node {node}, {' and '.join(each)} are the other way round")
    return said


def verdict(topology: dict[str, Any], rows: pd.DataFrame, polarity: str, unit: str) -> tuple[float, str, str]:
    """(rank correlation, sentence about it, problem: empty when nothing contradicts the firmware)."""
    cells = claims(topology, rows)
    rho = rank_correlation(cells, polarity)
    said = (
        f"rank correlation {format_number(rho, 2)} over {len(cells)} cells"
        if math.isfinite(rho)
        else f"no ranks to correlate in {len(cells)} cells"
    )
    key, scale = ("read_latency_ns", 1.0) if unit == "ns" else ("read_bandwidth_mb_per_s", 1e6)
    promised = promises(topology, rows, key, scale)
    attributes = attribute_lines(promised, unit)
    if attributes:
        said += f"; HMAT claims for measured: {', '.join(attributes)}"
    wrong = contradictions(cells, polarity, unit) + broken_promises(promised, polarity, unit)
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return rho, said, f"contradicted: {'; '.join(wrong[:SHOWN])}{more}" if wrong else ""
