"""The certificate's runs: every machine three times (twice as it is, once with a slower memory), and what has answers of its own (known/); and what they show."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from numabench.units import plural

from .beside import Job, beside
from .guest import temporary_share
from .judgement import TOLERANCE, Finding, judge_comparison, judge_visit
from .known import Known
from .machine import Machine
from .packages import find_tools
from .touched import changed_since, touching
from .visits import COMPARED_STRIDES, numabench_command, slower_machine, visit

CHANGED = " with changes"  # of a checkout that is not what its commit says
VISIT_SECONDS = 70.0  # of a boot, expected before the first one has been seen,
FEW_CPUS = 16  # on a machine with no more than these


class Certification:
    """`machines`: those to visit, and fleets of them. `findings`: every cell, machine by machine. `broken`: machine -> what kept it from being measured.
    `commits`: machine -> where it was certified; `untouched`: those that `since` left out.

    `parts`: a folder that keeps what each machine gave, for a later certification to take where nothing that touches the machine has changed since. `since`: a commit;
    what no change since then touches, and is not in `parts`, is left out."""

    def __init__(
        self,
        machines: Sequence[Machine | Known],
        tree: Path,
        with_comparison: bool,
        parts: Path | None = None,
        since: str | None = None,
    ):
        self.machines, self.tree, self.with_comparison, self.parts, self.since = machines, tree, with_comparison, parts, since
        self.findings: list[Finding] = []
        self.broken: dict[str, str] = {}
        self.commits: dict[str, str] = {}
        self.untouched: list[str] = []
        self.seconds = 0.0

    @cached_property
    def versions(self) -> dict[str, str]:
        return find_tools().versions

    @property
    def green(self) -> bool:
        return not self.broken and bool(self.findings or self.untouched) and all(finding.right for finding in self.findings)

    @property
    def figures(self) -> list[Finding]:
        """The findings that are numbers with something to divide by."""
        return [f for f in self.findings if isinstance(f.expected, float) and f.expected]

    @property
    def worst(self) -> Finding:
        """The figure that deviates most; one that was not found at all deviates most of all."""
        return max(self.figures, key=lambda f: math.inf if math.isnan(f.deviation) else abs(f.deviation))

    def run(self, console, jobs: int = 1) -> None:
        """Visit all machines, `jobs` beside each other, with progress on a rich `console`. A machine that fails is `broken`; the others go on."""
        left = self.left_to_visit(console)
        forecast = Forecast({machine.name: self.expected_seconds(machine) for machine in left}, jobs)
        if jobs > 1:
            left.sort(key=lambda machine: -forecast.expected[machine.name])  # so that none is left alone for long at the end
        if left:
            self.visit_all(left, jobs, forecast, console)

    def left_to_visit(self, console) -> list[Machine | Known]:
        """The machines of which nothing can be taken from `parts`, and which `since` does not leave out."""
        changed = changed_since(self.tree, self.since) if self.since else None
        left = []
        for machine in self.machines:
            found = self.kept(machine)
            if found is not None:
                self.findings += found
                console.print(*report_lines(machine, found), sep="\n", soft_wrap=True)
            elif changed is not None and not touching(machine, changed, self.tree):
                self.untouched.append(machine.name)
                console.print(f"left    {machine.name}: nothing that touches it has changed since {self.since}", soft_wrap=True)
            else:
                left.append(machine)
        return left

    def visit_all(self, left: Sequence[Machine | Known], jobs: int, forecast: Forecast, console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        boots, over = sum(map(self.boots, left)), 0
        together = min(jobs, len(left))
        console.print(
            f"{plural(boots, 'boot')}{f', {together} machines beside each other' if together > 1 else ''}: about {minutes(forecast.left())}",
            soft_wrap=True,
        )
        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("about {task.fields[left]} left")
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=boots, left=minutes(forecast.left()))

            def tell(running: Sequence[Job]) -> None:
                steps = " · ".join(job.step for job in running)
                done = over + sum(job.boots for job in running)
                progress.update(bar, completed=done, description=steps, left=minutes(forecast.left(running)))

            for job in beside(self.certify_machine, left, jobs, tell):
                machine, over = job.subject, over + self.boots(job.subject)
                forecast.ended(job)
                if isinstance(job.result, str):
                    self.broken[machine.name] = job.result
                    console.print(f"[red]broken[/]  {machine.name}: {job.result}", soft_wrap=True)
                else:
                    self.keep(machine, job.result, job.seconds)
                    self.findings += job.result
                    console.print(*report_lines(machine, job.result), sep="\n", soft_wrap=True)

    def boots(self, machine: Machine | Known) -> int:
        return (3 if self.with_comparison else 1) if isinstance(machine, Machine) else machine.boots

    def expected_seconds(self, machine: Machine | Known) -> float:
        """What the machine took before, whenever that was; or what boots take, which is more with many CPUs."""
        cpus = machine.cpus if isinstance(machine, Machine) else 1
        return self.part_of(machine).get("seconds") or self.boots(machine) * VISIT_SECONDS * max(1.0, cpus / FEW_CPUS)

    def part_of(self, machine: Machine | Known) -> dict:
        """What an earlier certification kept of the machine; empty where there was none, or one that was cut off."""
        try:
            return json.loads(self.part(machine).read_text()) if self.parts else {}
        except (FileNotFoundError, ValueError):
            return {}

    def kept(self, machine: Machine | Known) -> list[Finding] | None:
        """What an earlier certification found on the machine; None where there was none, with other words or tools, or where something that touches the machine has changed since."""
        kept = self.part_of(machine)
        if kept.get("of") != self.subject(machine) or kept["commit"].endswith(CHANGED):
            return None
        changed = changed_since(self.tree, kept["commit"])
        if changed is None or touching(machine, changed, self.tree):
            return None
        self.seconds += kept["seconds"]
        self.commits[machine.name] = kept["commit"]
        return [Finding(**finding) for finding in kept["findings"]]

    def keep(self, machine: Machine | Known, found: list[Finding], seconds: float) -> None:
        self.seconds += seconds
        self.commits[machine.name] = commit(self.tree)
        if self.parts:
            self.parts.mkdir(parents=True, exist_ok=True)
            kept = {
                "of": self.subject(machine),
                "commit": self.commits[machine.name],
                "seconds": seconds,
                "findings": [dataclasses.asdict(finding) for finding in found],
            }
            self.part(machine).write_text(json.dumps(kept))

    def part(self, machine: Machine | Known) -> Path:
        return self.parts / f"{machine.name}.json"

    def subject(self, machine: Machine | Known) -> dict:
        """What the part of a machine is of, beside a commit."""
        return {
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
        broken = [f"{name} could not be measured: {why}" for name, why in self.broken.items()]
        left_out = [f"left out, since no change touches them: {', '.join(self.untouched)}"] if self.untouched else []
        if not self.findings:
            return "; ".join(["Nothing was certified", *broken, *left_out])
        right = sum(f.right for f in self.findings)
        said = [f"{'GREEN' if self.green else 'RED'}: {right} of {len(self.findings)} findings are right"]
        if self.figures:
            inside, worst = sum(abs(f.deviation) <= TOLERANCE for f in self.figures), self.worst
            said += [
                f"{inside} of {len(self.figures)} figures ({inside / len(self.figures):.1%}) are within 2 % of what was given",
                f"the worst: {worst.machine}, {worst.what} {worst.where}, "
                + (f"{worst.deviation:+.2%}" if math.isfinite(worst.deviation) else f"{worst.found}"),
            ]
        return "; ".join([*said, *broken, *left_out])


def commit(tree: Path) -> str:
    """The commit of a checkout, and whether it has changes."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=tree, capture_output=True, text=True, check=False).stdout.strip()

    return f"{git('rev-parse', '--short=12', 'HEAD') or 'unknown'}{CHANGED if git('status', '--porcelain', '-uno') else ''}"


@dataclasses.dataclass
class Forecast:
    """How long it will take. `expected`: seconds of each machine that has not ended; `paces`: what those that have took of theirs."""

    expected: dict[str, float]
    jobs: int
    paces: list[float] = dataclasses.field(default_factory=list)

    def ended(self, job: Job) -> None:
        self.paces.append(job.seconds / self.expected.pop(job.subject.name))

    def left(self, running: Sequence[Job] = ()) -> float:
        pace = sum(self.paces) / len(self.paces) if self.paces else 1.0
        spent = sum(min(job.seconds, pace * self.expected[job.subject.name]) for job in running)
        return (pace * sum(self.expected.values()) - spent) / min(self.jobs, max(1, len(self.expected)))


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else "a minute"


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
