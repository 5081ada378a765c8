"""The certificate's runs: every machine three times (twice as it is, once with a slower memory), and what has a module in known/; and what they show."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .errors import SimulationError
from .guest import temporary_share
from .judgement import TOLERANCE, Finding, judge_comparison, judge_visit
from .known import Known
from .machine import Machine
from .packages import find_tools
from .visits import COMPARED_STRIDES, numabench_command, slower_machine, visit

CHANGED = " with changes"  # of a checkout that is not what its commit says
VISIT_SECONDS = 70.0  # expected, before the first one has been seen


class Certification:
    """`machines`: those to visit, and fleets of them. `findings`: every cell, machine by machine. `broken`: machine -> what kept it from being measured.

    `parts`: a folder that keeps what each machine gave, for a later certification of the same commit to take: one that was interrupted, or others beside it."""

    def __init__(self, machines: list[Machine | Known], tree: Path, with_comparison: bool, parts: Path | None = None):
        self.machines, self.tree, self.with_comparison, self.parts = machines, tree, with_comparison, parts
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

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=sum(map(self.boots, self.machines)))

            def step(text: str) -> None:
                progress.update(bar, description=text)

            for machine in self.machines:
                found = self.kept(machine)
                if found is None:
                    began = time.monotonic()
                    try:
                        found = self.certify_machine(machine, step, lambda: progress.advance(bar))
                    except SimulationError as error:
                        self.broken[machine.name] = str(error)
                        console.print(f"[red]broken[/]  {machine.name}: {error}", soft_wrap=True)
                        continue
                    self.keep(machine, found, time.monotonic() - began)
                self.findings += found
                console.print(*report_lines(machine, found), sep="\n", soft_wrap=True)

    def boots(self, machine: Machine | Known) -> int:
        return (3 if self.with_comparison else 1) if isinstance(machine, Machine) else machine.boots

    def kept(self, machine: Machine | Known) -> list[Finding] | None:
        """What an earlier certification of this commit found on the machine; None where there was none, of another commit, or with other words."""
        try:
            kept = json.loads(self.part(machine).read_text()) if self.parts else {}
        except (FileNotFoundError, ValueError):  # none, or one that was cut off
            return None
        if kept.get("of") != self.subject(machine) or kept["of"]["commit"].endswith(CHANGED):
            return None
        self.seconds += kept["seconds"]
        return [Finding(**finding) for finding in kept["findings"]]

    def keep(self, machine: Machine | Known, found: list[Finding], seconds: float) -> None:
        self.seconds += seconds
        if self.parts:
            self.parts.mkdir(parents=True, exist_ok=True)
            kept = {
                "of": self.subject(machine),
                "seconds": seconds,
                "findings": [dataclasses.asdict(finding) for finding in found],
            }
            self.part(machine).write_text(json.dumps(kept))

    def part(self, machine: Machine | Known) -> Path:
        return self.parts / f"{machine.name}.json"

    def subject(self, machine: Machine | Known) -> dict:
        """What the part of a machine is of."""
        return {
            "commit": commit(self.tree),
            "machine": repr(machine),
            "compared": self.with_comparison,
            "versions": self.versions,
        }

    def certify_machine(self, machine: Machine | Known, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        with temporary_share() as shared:
            if not isinstance(machine, Machine):
                return machine.certify(shared, self.tree, step, done)
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


def commit(tree: Path) -> str:
    """The commit of a checkout, and whether it has changes."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=tree, capture_output=True, text=True, check=False).stdout.strip()

    return f"{git('rev-parse', '--short=12', 'HEAD') or 'unknown'}{CHANGED if git('status', '--porcelain', '-uno') else ''}"


def report_lines(machine: Machine | Known, findings: list[Finding]) -> list[str]:
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
