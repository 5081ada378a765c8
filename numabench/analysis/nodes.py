"""What was measured of a machine, and between its nodes."""

from __future__ import annotations

import pandas as pd

from ..errors import UsageError
from ..runlog.export import samples
from ..runlog.read import RunLog
from .estimate import estimate_cells
from .structure import with_circumstances


def one_machine(log: RunLog) -> dict:
    """What the log says of its only machine. Raises UsageError where there are several."""
    machines = {str(header.machine.get("id")): header.machine for header in log.headers}
    if len(machines) != 1:
        raise UsageError(f"these logs hold {len(machines)} machines", "export the logs of one at a time")
    return next(iter(machines.values()))


def valid_cells(log: RunLog, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """The estimates that have a value, each at its main distance. `frame`: the log's samples, where they are at hand."""
    estimates = estimate_cells(with_circumstances(samples(log) if frame is None else frame))
    return estimates[estimates["main"] & estimates["value"].notna()]


def caution(estimates: pd.DataFrame, *benchmarks: str) -> str:
    """How many cells of these benchmarks have no interval, or depend on disturbed samples; empty where all are resolved."""
    rows = estimates[estimates["benchmark"].isin(benchmarks)]
    doubtful = int(
        (
            rows["low"].isna() | rows["reasons"].map(lambda reasons: bool({"disturbed", "failed_proofs"}.intersection(reasons)))
        ).sum()
    )
    return f"{doubtful} of {len(rows)} figures are not fully resolved: numabench report says which, and why" if doubtful else ""


def matrix_of(estimates, benchmark: str, metric: str, where: dict, unit: int) -> dict[tuple[int, int], int]:
    """(CPU node, memory node) -> value in `unit`s of the metric's, rounded; of all cores of the node where that was measured, else of one; in huge pages likewise."""
    rows = estimates[(estimates["benchmark"] == benchmark) & (estimates["metric"] == metric)]
    for name, value in where.items():
        rows = rows[rows[name] == value] if name in rows else rows.iloc[:0]
    if rows.empty:
        return {}
    for name, preferred in (("cores", "all"), ("page_size", "thp")):
        if name in rows and (rows[name] == preferred).any():
            rows = rows[rows[name] == preferred]
    return {
        (int(a), int(b)): round(value / unit)
        for a, b, value in zip(rows["cpu_node"], rows["memory_node"], rows["value"], strict=True)
    }
