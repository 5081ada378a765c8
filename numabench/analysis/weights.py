"""Weights for the kernel's weighted interleave from measured bandwidths.

The kernel (6.9 and newer, MPOL_WEIGHTED_INTERLEAVE) has one weight of 1 to 255 for each memory node, the same for all CPUs: how many pages in a row
the node gets. In proportion to the bandwidths all nodes finish at the same time. Each node counts with what the CPU node that reads it fastest gets
from it, which is also what the kernel itself takes from the firmware's figures.
"""

from __future__ import annotations

from ..errors import UsageError
from ..runlog.read import RunLog
from .nodes import caution, matrix_of, one_machine, valid_cells

MOST = 32  # larger weights deal so many pages to one node at a time that short accesses see one controller only
OFF = 0.05  # a weight that is this far from the measured proportion is close enough


def interleave_weights(cells: dict[tuple[int, int], float]) -> tuple[dict[int, int], float]:
    """({memory node: weight}, largest relative distance from the measured proportions) of (CPU node, memory node) -> bandwidth.

    The smallest weights whose shares of all pages are within `OFF` of the bandwidths' shares; else the best up to `MOST`."""
    best = {memory: max(v for (_, m), v in cells.items() if m == memory) for _, memory in sorted(cells, key=lambda cell: cell[1])}
    total, largest = sum(best.values()), max(best.values())
    chosen, least = {}, float("inf")
    for most in range(1, MOST + 1):
        weights = {node: max(1, round(most * value / largest)) for node, value in best.items()}
        whole = sum(weights.values())
        off = max(abs(weights[node] / whole / (value / total) - 1) for node, value in best.items())
        if off < least:
            chosen, least = weights, off
        if least <= OFF:
            break
    return chosen, least


def weight_commands(log: RunLog) -> str:
    """Shell commands that set the weights measured in `log`. Raises UsageError for several machines, or without a matrix of two nodes."""
    one_machine(log)
    estimates = valid_cells(log)
    cells = matrix_of(estimates, "node_bandwidth", "bandwidth", {"kernel": "read"}, 1)
    if len({memory for _, memory in cells}) < 2:
        raise UsageError(
            "these logs hold no read bandwidth of two memory nodes",
            "measure it on a machine with several: numabench run node_bandwidth",
        )
    weights, off = interleave_weights(cells)
    head = f"# Weights by measured read bandwidth, at most {off:.0%} from its proportions. As root, on Linux 6.9 and newer; then numactl --weighted-interleave=all PROGRAM\n"
    if said := caution(estimates, "node_bandwidth"):
        head += f"# {said}\n"
    return head + "".join(
        f"echo {weight} > /sys/kernel/mm/mempolicy/weighted_interleave/node{node}\n" for node, weight in weights.items()
    )
