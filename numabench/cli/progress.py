"""What `numabench run` shows: the plan before, progress while it measures, a summary after.

The display is drawn between processes only. A screen refreshed while a process measures would take time from a CPU
that measures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..measure.runner import Progress
from ..units import format_quantity, format_seconds, plural

if TYPE_CHECKING:
    from pathlib import Path

    from ..measure.plan import Block, Plan
    from ..measure.visit import Visit
    from ..model import BenchmarkRecord, EndRecord, TrialRecord


def print_plan(console: Console, visit: Visit) -> None:
    """What will be measured and how long it will take."""
    plan = visit.plan
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("benchmark")
    for title in ("cases", "blocks", "per process"):
        table.add_column(title, justify="right")
    for name in dict.fromkeys(block.benchmark for block in plan.blocks):
        blocks = [block for block in plan.blocks if block.benchmark == name]
        table.add_row(
            name,
            str(sum(len(b.cases) for b in blocks)),
            str(len(blocks)),
            format_seconds(sum(b.seconds for b in blocks)),
        )
    processes = (
        f"{plan.looks[0]} to {plan.looks[-1]} processes each, target ±{plan.target:.1%}"
        if len(plan.looks) > 1
        else f"{plural(plan.looks[0], 'process')} each"
    )
    console.print(
        Text.assemble(
            ("Plan", "bold"),
            f" profile {plan.profile}, {plural(plan.cases, 'case')} on {plural(len(visit.topology.allowed_cpus), 'CPU')}, {processes}",
        )
    )
    console.print(table)
    least, most = (min(seconds, plan.budget) for seconds in (plan.least_seconds, plan.most_seconds))
    until = f" to {format_seconds(most)}" if least < most else " (all of the budget)" if most == plan.budget else ""
    console.print(f"Expected time: about {format_seconds(least)}{until}")
    for note in visit.unknown:
        console.print(f"measured all the same: {note}", style="yellow")
    for note in plan.skipped[:5]:
        console.print(f"left out: {note}", style="yellow", soft_wrap=True)
    if len(plan.skipped) > 5:
        console.print(f"left out: {plural(len(plan.skipped) - 5, 'more reason')}, which the run log names", style="yellow")
    console.print()


class RunDisplay(Progress):
    """One line that is rewritten after each process on a terminal, a line per minute elsewhere."""

    def __init__(self, console: Console, plan: Plan, quiet: bool):
        self.console, self.plan, self.quiet = console, plan, quiet
        self.disturbed = self.samples = self.processes = 0
        self.failed_checks: Counter[str] = Counter()
        self.records: dict[str, BenchmarkRecord] = {}

    def described(self, records: Sequence[BenchmarkRecord]) -> None:
        self.records = {record.name: record for record in records}

    def left_out(self, what: str) -> None:
        self.console.print(f"left out: {what}", style="yellow", soft_wrap=True)

    def __enter__(self) -> RunDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.quiet and self.console.is_terminal:
            self.console.file.write("\r\x1b[K")

    def started(self, block: Block, process: int) -> None:
        if not self.processes:  # until there is an estimate
            self.show_line(f"{self.title(block.benchmark)}: first process of {plural(len(block.cases), 'case')}")

    def finished(self, block: Block, trial: TrialRecord, remaining: float) -> None:
        self.processes += 1
        self.samples += len(trial.samples)
        self.disturbed += sum(not s.valid for s in trial.samples)
        wrong = (r.removeprefix("check:") for s in trial.samples for r in s.reasons if r.startswith("check:"))
        self.failed_checks.update(f"{trial.benchmark}: {reason}" for reason in wrong)
        if trial.status == "failed":
            self.show_line(f"{block.name}: process {trial.process} failed: {trial.reasons[0]}", keep=True)
        share = self.disturbed / self.samples if self.samples else 0.0
        self.show_line(
            f"{format_seconds(remaining):>12} left  {self.title(trial.benchmark)}: {self.estimate(trial)}, {share:.0%} disturbed".replace(
                "%", " %"
            )
        )

    def title(self, benchmark: str) -> str:
        return self.records[benchmark].title if benchmark in self.records else benchmark

    def estimate(self, trial: TrialRecord) -> str:
        """The last case measured with its first metric, as it stands in this process."""
        if not trial.samples:
            return "no sample"
        last = trial.samples[-1]
        name = next(iter(last.metrics))
        values = sorted(s.metrics[name] for s in trial.samples if s.case == last.case and name in s.metrics)
        record = self.records.get(trial.benchmark)
        unit = next((m.unit for m in record.metrics if m.name == name), "") if record else ""
        return format_quantity(values[len(values) // 2], unit)

    def show_line(self, text: str, keep: bool = False) -> None:
        if self.quiet:
            return
        try:
            if self.console.is_terminal:
                width = self.console.width - 1
                self.console.file.write(f"\r\x1b[K{text[:width]}" + ("\n" if keep else ""))
                self.console.file.flush()
            elif keep or self.processes % 10 == 1:
                self.console.print(text, markup=False)
        except OSError:  # a terminal that was closed, a full disk: what is measured does not depend on who is told
            self.quiet = True


def print_summary(console: Console, path: Path, end: EndRecord) -> None:
    cells = end.cells
    overhead = 1 - end.measured / end.elapsed if end.elapsed else 0.0
    status = {"complete": "plan complete", "budget": "budget used up", "busy": "given up", "interrupted": "interrupted"}[
        end.status
    ]
    console.print(
        f"{cells['reached']} of {cells['total']} cells reached the target precision ({status}); "
        f"{format_seconds(end.elapsed)}, {overhead:.0%} of it outside measured windows."
    )
    for why, count in Counter(cells["why"].values()).most_common():
        console.print(f"  {count} did not: {why}")
    console.print(f"Run log: {path}", soft_wrap=True)
