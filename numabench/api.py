"""The Python API: everything that the command can do, as functions that return records and DataFrames.

What is asked for by a name that does not exist (benchmark, metric, parameter, view, option) is a UsageError that says what it should be.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MachineError, UsageError
from .extras import lacking, loading, need_report
from .files import write_whole
from .model import BenchmarkRecord, EndRecord, Value
from .runlog.read import RunLog
from .runlog.read import load as load_log
from .runlog.select import check_benchmark, narrowed
from .text import near

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from .analysis.card import MachineCard
    from .analysis.compare import Comparison
    from .benchmarks import Benchmark
    from .host.findings import Finding
    from .host.machine import Machine
    from .host.topology import Topology
    from .measure.executor import Executor
    from .measure.runner import Judge, Progress


JUDGE_BYTES = 640 << 20  # pandas and scipy map 450 MiB with one thread of OpenBLAS


class Run:
    """The evidence of one or several run logs, ready to tabulate, judge and draw."""

    def __init__(self, log: RunLog, end: EndRecord | None = None):
        self.log, self.end = log, end

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(b.name for b in self.log.benchmarks))
        return f"Run({names}; {len(self.log.trials)} trials from {', '.join(self.log.paths)})"

    def samples(self, benchmark: str | None = None, metric: str | None = None, **where: Value) -> pd.DataFrame:
        """One row per sample and metric; of one benchmark, one metric, at some values of its parameters (`stride=64`).

        Columns: run, machine, benchmark, metric, unit, session, process, sample, value (in the unit), valid; then one per
        parameter; then case, block, polarity (lower, higher or neither is better), least and most (what the metric's values cannot leave), machine_id, cpus (that its threads were pinned to, `0-3`), hop_ns (one-way distance of
        the CPUs around the sample), core_width (independent operations a cycle), frequency_ghz, reasons (why it is not valid).
        """
        need_report()
        from .runlog.export import samples

        if benchmark is not None:
            check_benchmark(self.log, benchmark)
        return narrowed(samples(self.log, benchmark), self.log, benchmark, metric, where)

    def estimates(self, benchmark: str | None = None, metric: str | None = None, **where: Value) -> pd.DataFrame:
        """One row per cell and distance class, chosen as in `samples`; `main` is true for the class with most processes.

        Columns: machine, machine_id, benchmark, case, metric, unit, polarity, distance; one per parameter; value, low, high (95 %, in
        the unit), half_width (relative), sessions, processes, samples, disturbed (a share), scope (session: holds for that
        visit; machine: also for other visits), reasons, main.
        """
        need_report()
        from .analysis.estimate import estimate_cells

        return narrowed(estimate_cells(self.samples(benchmark)), self.log, benchmark, metric, where)

    def contrasts(self, benchmark: str | None = None, metric: str | None = None, **where: Value) -> pd.DataFrame:
        """Paired comparisons with each contrast's control, chosen as in `samples`.

        Columns: machine, machine_id, benchmark, axis, control, metric, unit, polarity, case, distance; one per parameter; ratio
        (value / control), ratio_low, ratio_high, difference (value - control, in the unit), difference_low, difference_high
        (95 %, exact sign test over pairs of one process; NaN below six pairs), blocks, sessions, reasons, main.
        """
        need_report()
        from .analysis.estimate import contrast_cells

        return narrowed(contrast_cells(self.samples(benchmark), self.log.benchmarks), self.log, benchmark, metric, where)

    def answers(self, benchmark: str | None = None) -> pd.DataFrame:
        """One row per sentence that the report says.

        Columns: machine, machine_id, benchmark, kind, text, value, low, high (95 %, in `unit`; NaN where there is none), unit, ok (false where data is
        missing or nothing is resolved: the text says which), headline (one of the first questions of its benchmark),
        grade (settled, rough or not measured), alone (what one visit by itself says where several leave it open; else empty).
        """
        need_report()
        import pandas as pd

        from .analysis.answers import Answered, answers

        names = Answered.__struct_fields__
        frame = pd.DataFrame([[getattr(answer, name) for name in names] for answer in answers(self.log)], columns=[*names])
        return narrowed(frame, self.log, benchmark, None, {})

    def card(self) -> Cards:
        """What one operation costs on each machine, as a notebook shows it."""
        need_report()
        from .analysis.card import cards

        return Cards(cards(self.log))

    def _repr_html_(self) -> str | None:
        return None if lacking() else self.card()._repr_html_()

    def plot(self, benchmark: str, view: str | int = 0) -> list[Axes]:
        """A view of a benchmark with matplotlib, by its title or number: the axes of its panels, each in a figure of its own.

        They belong to pyplot: notebooks show them, `plt.show()` does, and `axes[0].figure.savefig("x.png")` keeps one.
        """
        need_report()
        from .report.plot import plot

        return plot(self.log, benchmark, view)

    def report(self, path: str | Path) -> Path:
        """Write the HTML report to `path`."""
        need_report()
        from .report.page import render_report

        path = Path(path)
        write_whole(path, render_report(self.log))
        return path


class Cards(list["MachineCard"]):
    """Cards of machines (`analysis.card.MachineCard`), which notebooks and terminals show."""

    def _repr_html_(self) -> str:
        from .report.page import cards_html

        return cards_html([card for card in self if not card.empty])

    def save(self, path: str | Path) -> Path:
        """The picture of the first one, 1,200 by 630 pixels: `.png` or `.svg`."""
        from .report.card import picture

        path = Path(path)
        write_whole(path, picture(self[0], path.suffix.lstrip(".").lower()))
        return path


def load(*paths: str | Path) -> Run:
    """Run logs from files and folders. Raises LogError on what is no run log."""
    return Run(load_log(*paths))


def run(
    *names: str,
    profile: str = "standard",
    output: str | Path = "results",
    progress: Progress | None = None,
    executor: Executor | None = None,
    settings: dict[str, Value | Iterable[Value]] | None = None,
    **request: Any,
) -> Run:
    """Measure benchmarks (all, if none is named) on this machine and return the evidence.

    `settings` replaces axis values of the profile ({"stride": [8, 64]}); `request` takes what `measure.visit.Request` has:
    cpus, budget and window (seconds or "90s"), target, seed, samples, processes, alias. The log goes to `output/<alias>/<UTC time>.jsonl`.
    """
    from .host.machine import read_machine
    from .measure.visit import Request, Visit, log_path
    from .units import parse_seconds

    check_options(request, set(Request.__struct_fields__) - {"benchmarks", "settings"})
    pairs = tuple(
        f"{k}={','.join(map(str, [v] if isinstance(v, (str, int, float)) else v))}" for k, v in (settings or {}).items()
    )
    request |= {name: parse_seconds(request[name]) for name in ("budget", "window") if isinstance(request.get(name), str)}
    visit = Visit(Request(benchmarks=names, profile=profile, settings=pairs, **request))
    path = log_path(Path(output), read_machine(alias=request.get("alias")).alias)
    end = visit.measure(path, judge, progress, executor)
    return Run(load_log(path), end)


def resume(path: str | Path, progress: Progress | None = None) -> Run:
    """Go on with an interrupted run log (see `measure.visit.open_resume` for what is refused)."""
    from .measure.visit import Visit, open_resume

    request, state = open_resume(Path(path))
    end = Visit(request).measure(Path(path), judge, progress, resume=state)
    return Run(load_log(path), end)


def check(root: str = "/") -> list[Finding]:
    """What will disturb a measurement on this machine, worst first (see `measure.ready.check_all`)."""
    from .measure.ready import check_all as look

    return look(root)


def check_options(given: Iterable[str], known: Iterable[str]) -> None:
    """Raises UsageError for an option of a function that it does not have."""
    known = sorted(known)
    for name in given:
        if name not in known:
            raise UsageError(f"there is no option {name!r}{near(name, known)}", f"choose among {', '.join(known)}")


def judge(benchmarks: tuple[BenchmarkRecord, ...]) -> Judge:
    """The adaptive stop's view of a running session. Without what reading logs takes nothing is judged: the run uses its budget.

    MachineError where there is no room for what it needs: such libraries then hang, or end with 1.
    """
    if lacking():
        from .measure.runner import NoJudge

        return NoJudge()
    from .host.room import address_room
    from .units import format_bytes

    room = address_room()
    if room is not None and room < JUDGE_BYTES:
        raise MachineError(
            f"this process may map {format_bytes(room)} more (ulimit -v), and judging what is measured takes {format_bytes(JUDGE_BYTES)}",
            "ulimit -v unlimited",
        )
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each of its threads maps 40 MB, and nothing here uses them
    with loading():
        from .analysis import answers  # noqa: F401 (which the judge comes to only when it is asked)
        from .analysis.stopping import Stopping

    return Stopping(benchmarks)


def compare(base: Run | str | Path, new: Run | str | Path, *, last: int | None = None, **options: Any) -> Comparison:
    """Two machines or groups (see `analysis.compare.compare` for the options and what is returned); paths are loaded. `last`: `base` is a history, of which the last
    so many visits to `new`'s machine before it are taken, itself left out; IncomparableError where there is none."""
    need_report()
    from inspect import signature

    from .analysis.compare import compare as compare_logs
    from .analysis.past import before

    check_options(options, ["last", *[*signature(compare_logs).parameters][2:]])
    sides = [side if isinstance(side, Run) else load(side) for side in (base, new)]
    history, log = (side.log for side in sides)
    return compare_logs(before(history, log, last, options.get("across_builds", False)) if last else history, log, **options)


def list_benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name."""
    from .benchmarks import discover

    return discover()


def topology(root: str = "/") -> Topology:
    """CPUs, caches and memory of this machine, or of a snapshot below `root`."""
    from .host.topology import read_topology

    return read_topology(root)


def machine(root: str = "/") -> Machine:
    """Who this machine is: identity, processor, kernel, settings (of a snapshot below `root`)."""
    from .host.machine import read_machine

    return read_machine(root)
