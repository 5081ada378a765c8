"""Answers about whole matrices between nodes."""

from __future__ import annotations

from ...model import Answer
from ...units import format_number
from ..weights import interleave_weights
from .evidence import Data, Found, main_cells, matching, point_text
from .firmware import verdict


def firmware(data: Data, answer: Answer) -> Found:
    """Distances that the firmware claims between nodes against a measured matrix (`firmware.py`)."""
    metric = data.metric(answer.metric)
    rows = matching(main_cells(data, answer), answer.where)
    if len(rows) < 2:
        return Found(problem=f"fewer than two cells with valid samples at {point_text(answer.where)}", usable=False)
    rho, said, problem = verdict(data.topology, rows, metric.polarity, metric.unit)
    return Found(value=rho, unit="1", value_text=format_number(rho, 2), interval_text=said, problem=problem)


def weights(data: Data, answer: Answer) -> Found:
    """Small whole numbers in proportion to the bandwidths of the memory nodes (`weights.py`)."""
    rows = matching(main_cells(data, answer), answer.where)
    cells = {(int(r["cpu_node"]), int(r["memory_node"])): r["value"] for r in rows.to_dict("records")}
    if len({memory for _, memory in cells}) < 2:
        return Found(problem=f"fewer than two nodes with valid samples at {point_text(answer.where)}", usable=False)
    found, off = interleave_weights(cells)
    said = ", ".join(f"node {node}: {weight}" for node, weight in found.items())
    return Found(value_text=said, interval_text=f"at most {off:.0%} from the measured proportions")
