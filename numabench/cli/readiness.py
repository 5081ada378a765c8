"""What `numabench run` does before it measures: what makes that pointless is said first, and busy CPUs are waited for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ..errors import MachineError
from ..units import format_seconds

if TYPE_CHECKING:
    from rich.console import Console

    from ..host.findings import Finding
    from ..host.topology import Topology

AGAIN_S = 5.0  # between two looks at CPUs that are waited for
LONGEST_S = 3600.0  # that a person who chose to wait waits


def ensure_ready(
    console: Console,
    topology: Topology,
    patience: float | None = None,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Returns when the CPUs of `topology` can be measured on. Raises MachineError for what `numabench check` finds fatal; busy CPUs are
    waited for, for `patience` seconds: without it, who sits at a terminal is asked."""
    from ..host.health import check

    def fatal() -> list[Finding]:
        return [finding for finding in check(wait=sleep, topology=topology) if finding.severity == "fatal"]

    found = fatal()
    for finding in found:
        if finding.check != "load":
            raise MachineError(f"{finding.found}: {finding.why}", f"{finding.fix}; or measure all the same with --anyway")
    if not found:
        return
    who = said(sleep)
    if patience is None and console.is_terminal and sys.stdin.isatty():
        console.print(f"{found[0].found}{who}", style="yellow")
        answer = click.prompt(
            "Wait until one is free, measure anyway, or quit?",
            type=click.Choice(["w", "m", "q"]),
            default="w",
            err=console.stderr,
        )
        if answer == "m":
            return
        patience = LONGEST_S if answer == "w" else 0.0
    end = clock() + (patience or 0.0)
    while found and clock() < end:
        console.print(f"waiting: {found[0].found}{who}; {format_seconds(end - clock())} left", style="dim")
        sleep(AGAIN_S)
        found, who = fatal(), said(sleep)
    if found:
        raise MachineError(
            f"{found[0].found}{who}: little would be settled",
            "stop these, choose other CPUs (--cpus), wait for them (--wait 10m), or measure all the same (--anyway)",
        )


def said(sleep: Callable[[float], object]) -> str:
    """`; busiest: cc1 98 %, python3 60 %`."""
    from ..host.rivals import rivals

    busiest = ", ".join(f"{name} {share * 100:.0f} %" for name, share in rivals(sleep))
    return f"; busiest: {busiest}" if busiest else ""
