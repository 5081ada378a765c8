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
            ends = [row[end] if math.isfinite(row[end]) else row["value"] for end in ("low", "high")]
            found.append(
                Claim(
                    cpu_node=cell[0], memory_node=cell[1], distance=distances[cell], value=row["value"], low=ends[0], high=ends[1]
                )
            )
    return found


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


def attribute_lines(topology: dict[str, Any], rows: pd.DataFrame, key: str, scale: float, unit: str) -> list[str]:
    """HMAT's figure of each node from its initiators beside the measured one: `node 2 250 ns for 251 ns`. `scale`: the claim's
    unit in the metric's."""
    measured = {(int(r["cpu_node"]), int(r["memory_node"])): r["value"] for r in rows.to_dict("records")}
    lines = []
    for node in topology.get("nodes", ()):
        access = (node.get("access") or {}).get("access1") or (node.get("access") or {}).get("access0") or {}
        claim = access.get(key)
        initiators = [int(i) for i in access.get("initiators") or ()] or list(node.get("nearest_cpu_nodes") or ())
        found = [measured[(i, int(node["id"]))] for i in initiators if (i, int(node["id"])) in measured]
        if claim and found:
            best = format_quantity(claim * scale, unit)
            lines.append(f"node {node['id']} {best} for {format_quantity(sum(found) / len(found), unit)}")
    return lines


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
    attributes = attribute_lines(topology, rows, key, scale, unit)
    if attributes:
        said += f"; HMAT claims for measured: {', '.join(attributes)}"
    wrong = contradictions(cells, polarity, unit)
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return rho, said, f"contradicted: {'; '.join(wrong[:SHOWN])}{more}" if wrong else ""
