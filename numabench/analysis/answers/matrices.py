"""Answers about whole matrices: between nodes, between CPUs."""

from __future__ import annotations

from ...model import Answer
from ...units import format_number, format_quantity, plural
from ..declared import against_declared
from ..neighbours import latency_matrix, levels
from ..weights import interleave_weights
from .evidence import Data, Found, main_cells, matching
from .firmware import verdict


def firmware(data: Data, answer: Answer) -> Found:
    """Distances that the firmware claims between nodes against a measured matrix (`firmware.py`)."""
    metric = data.metric(answer.metric)
    rows = matching(main_cells(data, answer), answer.where)
    if len(rows) < 2:
        return Found(problem="fewer than two cells with valid samples", usable=False)
    rho, said, problem = verdict(data.topology, rows, metric.polarity, metric.unit)
    return Found(value=rho, unit="1", value_text=format_number(rho, 2), interval_text=said, problem=problem)


def weights(data: Data, answer: Answer) -> Found:
    """Small whole numbers in proportion to the bandwidths of the memory nodes (`weights.py`)."""
    rows = matching(main_cells(data, answer), answer.where)
    cells = {(int(r["cpu_node"]), int(r["memory_node"])): r["value"] for r in rows.to_dict("records")}
    if len({memory for _, memory in cells}) < 2:
        return Found(problem="fewer than two nodes with valid samples", usable=False)
    found, off = interleave_weights(cells)
    said = ", ".join(f"node {node}: {weight}" for node, weight in found.items())
    return Found(value_text=said, verdict=(said,), interval_text=f"at most {off:.0%} from the measured proportions")


def structure(data: Data, answer: Answer) -> Found:
    """Groups of near CPUs in a measured matrix, held against those that the machine declares (`neighbours.py`, `declared.py`)."""
    rows = matching(main_cells(data, answer), answer.where)
    cpus = tuple(sorted({*map(int, rows["cpu_a"]), *map(int, rows["cpu_b"])})) if "cpu_a" in rows else ()
    if len(cpus) < 3:
        return Found(
            problem=f"groups need three CPUs, and {len(cpus) or 'none'} have valid samples",
            usable=False,
        )
    matrix = latency_matrix(rows, cpus)
    try:
        found = levels(matrix, cpus)
    except ValueError:
        return Found(problem=f"not every two of {len(cpus)} CPUs have valid samples", usable=False)
    unit = data.metric(answer.metric).unit
    said = "; ".join(
        f"{plural(len(level.groups), 'group')} of up to {level.size} CPUs: {format_quantity(level.inside, unit)} inside, "
        f"at least {format_quantity(level.fastest_outside, unit)} outside"
        for level in found
    )
    confirmed, contradicted = against_declared(found, matrix, cpus, data.topology)
    return Found(
        value=float(len(found)),
        unit="level",
        value_text=plural(len(found), "level"),
        verdict=(plural(len(found), "level"),),
        interval_text="; ".join(filter(None, (said or "no groups: all pairs are alike", confirmed))),
        problem=f"contradicted: {'; '.join(contradicted)}" if contradicted else "",
    )
