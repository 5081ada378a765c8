"""The Python API: everything that the command can do, as functions that return records and DataFrames."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import MachineError
from .files import write_whole
from .model import BenchmarkRecord, EndRecord, Value
from .runlog.read import RunLog
from .runlog.read import load as load_log

if TYPE_CHECKING:
    import pandas as pd

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

    def samples(self, benchmark: str | None = None) -> pd.DataFrame:
        """One row per sample and metric (see `runlog.export.samples`)."""
        from .runlog.export import samples

        return samples(self.log, benchmark)

    def estimates(self, benchmark: str | None = None) -> pd.DataFrame:
        """One row per cell: value, 95 % interval, design (see `analysis.estimate.estimate_cells`)."""
        from .analysis.estimate import estimate_cells

        return estimate_cells(self.samples(benchmark))

    def contrasts(self, benchmark: str | None = None) -> pd.DataFrame:
        """Paired ratios and differences to each contrast's control (see `analysis.estimate.contrast_cells`)."""
        from .analysis.estimate import contrast_cells

        return contrast_cells(self.samples(benchmark), self.log.benchmarks)

    def answers(self) -> list:
        """The sentences that the report says (see `analysis.answers.answers`)."""
        from .analysis.answers import answers

        return answers(self.log)

    def report(self, path: str | Path) -> Path:
        """Write the HTML report to `path`."""
        from .report.page import render_report

        path = Path(path)
        write_whole(path, render_report(self.log))
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
    **request,
) -> Run:
    """Measure benchmarks (all, if none is named) on this machine and return the evidence.

    `settings` replaces axis values of the profile ({"stride": [8, 64]}); `request` takes what `measure.visit.Request` has:
    cpus, budget and window (seconds or "90s"), target, seed, samples, processes, alias. The log goes to `output/<alias>/<UTC time>.jsonl`.
    """
    from .host.machine import read_machine
    from .measure.visit import Request, Visit, log_path
    from .units import parse_seconds

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


def judge(benchmarks: tuple[BenchmarkRecord, ...]) -> Judge:
    """The adaptive stop's view of a running session. MachineError where there is no room for what it needs: such libraries then hang, or end with 1."""
    from .host.memory import address_room
    from .units import format_bytes

    room = address_room()
    if room is not None and room < JUDGE_BYTES:
        raise MachineError(
            f"this process may map {format_bytes(room)} more (ulimit -v), and judging what is measured takes {format_bytes(JUDGE_BYTES)}",
            "ulimit -v unlimited",
        )
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each of its threads maps 40 MB, and nothing here uses them
    from .analysis.stopping import Stopping

    return Stopping(benchmarks)


def compare(base: Run | str | Path, new: Run | str | Path, **options) -> Comparison:
    """Two machines or groups (see `analysis.compare.compare`); paths are loaded."""
    from .analysis.compare import compare as compare_logs

    sides = [side if isinstance(side, Run) else load(side) for side in (base, new)]
    return compare_logs(sides[0].log, sides[1].log, **options)


def list_benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name."""
    from .benchmarks import discover

    return discover()


def topology(root: str = "/") -> Topology:
    from .host.topology import read_topology

    return read_topology(root)


def machine(root: str = "/") -> Machine:
    from .host.machine import read_machine

    return read_machine(root)
