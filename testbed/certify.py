"""The certificate's runs: every machine three times (twice as it is, once with a slower memory), and what they show."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from .errors import SimulationError
from .guest import temporary_share
from .judgement import TOLERANCE, Finding, judge_comparison, judge_visit
from .machine import Machine
from .packages import find_tools
from .visits import COMPARED_STRIDES, numabench_command, slower_machine, visit

VISIT_SECONDS = 70.0  # expected, before the first one has been seen


class Certification:
    """`findings`: every cell, machine by machine. `broken`: machine -> what kept it from being measured."""

    def __init__(self, machines: list[Machine], tree: Path, with_comparison: bool):
        self.machines, self.tree, self.with_comparison = machines, tree, with_comparison
        self.findings: list[Finding] = []
        self.broken: dict[str, str] = {}
        self.versions = find_tools().versions
        self.seconds = 0.0

    @property
    def green(self) -> bool:
        return not self.broken and bool(self.findings) and all(finding.right for finding in self.findings)

    @property
    def figures(self) -> list[Finding]:
        """The findings that are numbers with something to divide by."""
        return [f for f in self.findings if isinstance(f.expected, float) and f.expected]

    @property
    def worst(self) -> Finding:
        """The figure that deviates most; one that was not found at all deviates most of all."""
        return max(self.figures, key=lambda f: math.inf if math.isnan(f.deviation) else abs(f.deviation))

    def run(self, console) -> None:
        """Visit all machines, with progress on a rich `console`. A machine that fails is `broken`; the others go on."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        began = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            each = 3 if self.with_comparison else 1
            bar = progress.add_task("", total=each * len(self.machines))

            def step(text: str) -> None:
                progress.update(bar, description=text)

            for machine in self.machines:
                try:
                    found = self.certify_machine(machine, step, lambda: progress.advance(bar))
                except SimulationError as error:
                    self.broken[machine.name] = str(error)
                    console.print(f"[red]broken[/]  {machine.name}: {error}", soft_wrap=True)
                    continue
                self.findings += found
                console.print(*report_lines(machine, found), sep="\n", soft_wrap=True)
        self.seconds = time.monotonic() - began

    def certify_machine(self, machine: Machine, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        with temporary_share() as shared:
            step(f"{machine.name}: measuring")
            base = visit(machine, shared / "base", self.tree)
            done()
            found = judge_visit(base)
            if self.with_comparison:
                compared = numabench_command(strides=COMPARED_STRIDES)
                step(f"{machine.name}: another boot")
                again = visit(machine, shared / "again", self.tree, look=False, words=compared)
                done()
                step(f"{machine.name}: one memory 10 % slower")
                slower, changed = slower_machine(machine)
                other = visit(slower, shared / "slower", self.tree, look=False, words=compared)
                done()
                found += judge_comparison(base.log, again.log, machine, None)
                found += judge_comparison(base.log, other.log, machine, changed)
        return found

    def summary(self) -> str:
        """One sentence on all of it."""
        if not self.figures:
            return f"Nothing could be certified: {'; '.join(f'{name}: {why}' for name, why in self.broken.items())}"
        inside = sum(abs(f.deviation) <= TOLERANCE for f in self.figures)
        right = sum(f.right for f in self.findings)
        worst = self.worst
        return (
            f"{'GREEN' if self.green else 'RED'}: {right} of {len(self.findings)} findings are right; {inside} of {len(self.figures)} figures "
            f"({inside / len(self.figures):.1%}) are within 2 % of what was given; the worst: {worst.machine}, {worst.what} {worst.where}, "
            + (f"{worst.deviation:+.2%}" if math.isfinite(worst.deviation) else f"{worst.found}")
            + "".join(f"; {name} could not be measured" for name in self.broken)
        )


def report_lines(machine: Machine, findings: list[Finding]) -> list[str]:
    """A line for the machine, and one for each wrong finding."""
    wrong = [f for f in findings if not f.right]
    figures = [abs(f.deviation) for f in findings if math.isfinite(f.deviation)]
    worst = f", worst deviation {max(figures):.2%}" if figures else ""
    lines = [
        f"{'[green]green[/]' if not wrong else '[red]RED[/]  '}   {machine.name}: {len(findings) - len(wrong)} of {len(findings)} right{worst}"
    ]
    return lines + [
        f"        {f.what}, {f.where}: given {text(f.expected, f.unit)}, found {text(f.found, f.unit)}" for f in wrong
    ]


def text(value: float | str, unit: str = "") -> str:
    """A figure with four significant digits, or words as they are."""
    return f"{value:.4g} {unit}".strip() if isinstance(value, float) else str(value)
