"""What `numabench run` shows: the plan before, progress while it measures, a summary after.

The display is drawn between processes only. A screen refreshed while a process measures would take time from a CPU
that measures.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median_high, stdev
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..measure.runner import WAITED, Progress
from ..text import in_shell
from ..units import format_quantity, format_seconds, plural, plus_minus
from .readiness import said

if TYPE_CHECKING:
    from pathlib import Path

    from ..measure.plan import Block, Plan
    from ..measure.visit import Visit
    from ..model import BenchmarkRecord, EndRecord, TrialRecord


#: Student's t at 97.5 % by the number of processes: how far their mean may be off, in standard errors. Fewer than three say nothing, more are as good as ten.
STUDENT = {3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
MOST_REASONS = 2  # why cases are less precise than asked; the page has all


def print_plan(console: Console, visit: Visit) -> None:
    """What will be measured and how long it will take."""
    plan = visit.plan
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("benchmark")
    for title in ("cases", "a process takes"):
        table.add_column(title, justify="right")
    for name in dict.fromkeys(block.benchmark for block in plan.blocks):
        blocks = [block for block in plan.blocks if block.benchmark == name]
        table.add_row(
            name,
            str(sum(len(b.cases) for b in blocks)),
            format_seconds(sum(b.seconds for b in blocks)),
        )
    processes = (
        f"{plan.looks[0]} to {plan.looks[-1]} processes each, target ±{100 * plan.target:g} %"
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


class StatusLine:
    """One line of a terminal that is rewritten, and taken away at the end; elsewhere nothing. A reader who has gone is none."""

    def __init__(self, console: Console, quiet: bool = False):
        self.console, self.quiet = console, quiet

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.write("")

    def write(self, text: str, keep: bool = False) -> None:
        """`keep`: whatever comes after it."""
        if self.quiet or not self.console.is_terminal:
            return
        try:
            self.console.file.write(f"\r\x1b[K{text[: self.console.width - 1]}" + ("\n" if keep else ""))
            self.console.file.flush()
        except OSError:  # a terminal that was closed: what is done does not depend on who is told
            self.quiet = True


class Rendering(StatusLine):
    """What a page that is rendered, or another `task`, has come to, and how long it will still take."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic, task: str = "rendering the page"):
        super().__init__(console)
        self.clock, self.began, self.task = clock, clock(), task
        self.write(f"{task}: reading what was measured")

    def __call__(self, what: str, done: int, of: int) -> None:
        """`what` comes next, `done` parts of `of` are there; none of none are counted."""
        now = self.clock()
        if not done:
            self.began = now
        left = f", {max(1, round((now - self.began) / done * (of - done)))} s left" if done else ""
        self.write(f"{self.task}{left}: {what}" + (f" ({done + 1} of {of})" if of else ""))


class RunDisplay(StatusLine, Progress):
    """One line that is rewritten after each process on a terminal, one after every tenth process elsewhere."""

    def __init__(self, console: Console, plan: Plan, quiet: bool):
        super().__init__(console, quiet)
        self.plan = plan
        self.disturbed = self.waited = self.samples = self.processes = 0
        self.failed_checks: Counter[str] = Counter()
        self.records: dict[str, BenchmarkRecord] = {}
        self.widths: dict[str, float] = {}
        self.medians: dict[str, list[float]] = {}  # by case: of each process, as far as they are above zero

    def described(self, records: Sequence[BenchmarkRecord]) -> None:
        self.records = {record.name: record for record in records}

    def left_out(self, what: str) -> None:
        self.console.print(f"left out: {what}", style="yellow", soft_wrap=True)

    def looked(self, widths: dict[str, float]) -> None:
        self.widths = widths

    def started(self, block: Block, process: int) -> None:
        if not self.processes:  # until there is an estimate
            title = self.records[block.benchmark].title if block.benchmark in self.records else block.benchmark
            self.show_line(f"{title}: first process of {plural(len(block.cases), 'case')}")

    def finished(self, block: Block, trial: TrialRecord, remaining: float) -> None:
        self.processes += 1
        self.samples += len(trial.samples)
        self.disturbed += sum(not s.valid for s in trial.samples)
        self.waited += sum(not WAITED.isdisjoint(s.reasons) for s in trial.samples)
        for case in {s.case for s in trial.samples}:
            if (value := first_median(trial, case)) > 0:
                self.medians.setdefault(case, []).append(value)
        wrong = (r.removeprefix("check:") for s in trial.samples for r in s.reasons if r.startswith("check:"))
        self.failed_checks.update(f"{trial.benchmark}: {reason}" for reason in wrong)
        if trial.status == "failed":
            self.show_line(f"{block.name}: process {trial.process} failed: {trial.reasons[0]}", keep=True)
        share = self.disturbed / self.samples if self.samples else 0.0
        self.show_line(f"{self.estimate(trial)}, {format_seconds(remaining)} left ({share * 100:.0f} % of samples disturbed)")

    def estimate(self, trial: TrialRecord) -> str:
        """`memory 97.1 ns ±3 %`: the last sample that has a name on the card, else the last one; as it stands in this process, and as sure as it was at the last look, or before the first one as the processes so far make it."""
        record = self.records.get(trial.benchmark)
        if not trial.samples or record is None:
            return f"{record.title if record else trial.benchmark}: no sample"
        named = [(s, name) for s in trial.samples if (name := called(record, s.parameters))]
        sample, name = named[-1] if named else (trial.samples[-1], f"{record.title}:")
        metric = next(iter(sample.metrics))
        unit = next((m.unit for m in record.metrics if m.name == metric), "")
        if unit == "1":  # an outcome, or a share: a number that says nothing by itself
            return name.removesuffix(":")
        width = self.widths.get(sample.case) or half_width(self.medians.get(sample.case, ()))
        return f"{name} {format_quantity(first_median(trial, sample.case), unit)} {plus_minus(width)}".rstrip()

    def show_line(self, text: str, keep: bool = False) -> None:
        """Where nothing can be rewritten, every tenth is shown."""
        if self.console.is_terminal:
            self.write(text, keep)
        elif not self.quiet and (keep or self.processes % 10 == 1):
            try:
                self.console.print(text, markup=False)
            except OSError:  # a full disk
                self.quiet = True


def first_median(trial: TrialRecord, case: str) -> float:
    """Of a case's first metric."""
    taken = [sample for sample in trial.samples if sample.case == case]
    metric = next(iter(taken[0].metrics))
    return median_high(sample.metrics[metric] for sample in taken if metric in sample.metrics)


def half_width(values: Sequence[float]) -> float:
    """Of the mean of positive `values`, relative, at 95 %; infinite of too few."""
    if len(values) < min(STUDENT):
        return math.inf
    return STUDENT[min(len(values), max(STUDENT))] * stdev(map(math.log, values)) / math.sqrt(len(values))


def called(record: BenchmarkRecord, parameters: Mapping[str, object]) -> str:
    """What the card calls the first metric of a case; empty where it has no name for it."""
    for price in record.card.prices:
        answer = price.answer
        if answer.kind == "cell" and answer.metric == record.metrics[0].name and answer.where.items() <= parameters.items():
            return answer.text
    return ""


def print_given_up(console: Console, path: Path, display: RunDisplay) -> None:
    """A run on CPUs that others use: what disturbed it, what was kept, what to try."""
    who = said(time.sleep).removeprefix("; ")
    share = f"{display.waited / max(1, display.samples) * 100:.0f} %"
    console.print(
        f"Given up: in {share} of {plural(display.samples, 'sample')} a thread had to wait for its CPU{f' ({who})' if who else ''}.",
        style="red",
        soft_wrap=True,
    )
    console.print(f"Kept: {path}, marked, so that no report takes it for a calm visit.", soft_wrap=True)
    later = in_shell("numabench", "run", "--resume", path, "--wait", "10m")
    console.print(f"Try: {later}; or free CPUs (--cpus LIST), or insist (--processes 8).", soft_wrap=True)


def print_summary(console: Console, path: Path, end: EndRecord) -> None:
    cells = end.cells
    status = {"complete": "plan complete", "budget": "budget used up", "busy": "given up", "interrupted": "interrupted"}[
        end.status
    ]
    console.print(
        f"Measured {format_seconds(end.elapsed)} ({status}): {cells['reached']} of {plural(cells['total'], 'case')} as precise as asked."
    )
    for why, count in Counter(cells["why"].values()).most_common(MOST_REASONS):
        console.print(f"  {count} less precise: {why}")
    console.print(f"Run log: {path}", soft_wrap=True)
