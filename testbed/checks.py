"""What no machine can be, and how that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .machine import Node


class Impossible(ValueError):
    """What no machine can be."""


def demand(fine: bool, problem: str) -> None:
    if not fine:
        raise Impossible(problem)


def frozen(matrix: list[list]) -> tuple[tuple, ...]:
    return tuple(map(tuple, matrix))


def check_matrix(name: str, matrix: list[list[float]], nodes: tuple[Node, ...], most: float) -> None:
    size = len(nodes)
    demand(
        len(matrix) == size and all(len(row) == size for row in matrix),
        f"{name} is no {size} x {size} matrix; one row and one column per node are needed (0 where there is nothing)",
    )
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            real = nodes[i].cpus and nodes[j].memory
            demand(
                0 < value <= most if real else value == 0 or 0 < value <= most,
                f"{name}[{i}][{j}] = {value}: from node {i} to the memory of node {j} it must be positive and at most {most:g}",
            )
