"""`numabench export`: run logs as one tidy table, for pandas, R, a spreadsheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import say

if TYPE_CHECKING:
    from ..runlog.read import RunLog

HWLOC, WEIGHTS, TRACE = "hwloc-memattrs", "interleave-weights", "chrome-trace"
EPILOG = """\b
Examples:
  numabench export results/sample > samples.csv
  numabench export run.jsonl -b padded_counters -o counters.csv
  numabench export results/mine --format json | jq '.[0]'
  numabench export results/* --format parquet -o all.parquet
  numabench export results/mine --format hwloc-memattrs -o mine.xml && lstopo --input mine.xml --memattrs
  numabench export results/mine --format interleave-weights | sudo sh
  numabench export run.jsonl --format chrome-trace -o run.json     open it in ui.perfetto.dev, speedscope.app, chrome://tracing
\b
Columns: run, machine, benchmark, metric, unit, session, process, sample, value, valid; then one per parameter; then
case, block, polarity, least, most, machine_id, hop_ns, frequency_ghz, reasons. Keep the rows with valid = True, take the median per
process, and go on with the medians: samples inside one process are not independent."""


@click.command(
    "export", epilog=EPILOG, short_help="Samples as csv, json or parquet; node matrices for hwloc; the timeline for a viewer."
)
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@click.option("-b", "--benchmark", metavar="NAME", help="Only this benchmark, with only its parameters as columns.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("csv", "json", "parquet", HWLOC, WEIGHTS, TRACE)),
    default="csv",
    show_default=True,
    help="parquet needs pyarrow (pip install 'numabench[fleet]'); hwloc-memattrs is a topology with measured memory attributes; "
    "interleave-weights are shell commands for the kernel's weighted interleave; chrome-trace is the run's timeline: a row for each CPU, thread and process.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write there instead of to standard output."
)
def command(logs: tuple[str, ...], benchmark: str | None, form: str, output: Path | None) -> None:
    """Write one row per sample and metric of LOG..., files or folders; or, for hwloc and the kernel, what was measured between nodes; or the timeline."""
    from ..errors import UsageError
    from ..runlog.export import samples, write_table
    from ..runlog.read import load
    from ..runlog.select import check_benchmark
    from ..text import printable

    log = load(*logs)
    if form == HWLOC:
        from ..analysis.hwloc import memory_attributes

        write_text(memory_attributes(log), output)
        return
    if form == WEIGHTS:
        from ..analysis.weights import weight_commands

        write_text(weight_commands(log), output)
        return
    if benchmark is not None:
        check_benchmark(log, benchmark)
    if form == TRACE:
        write_timeline(log, benchmark, output)
        return
    frame = samples(log, benchmark)
    try:
        text = write_table(frame, form, output)
    except OSError as error:
        raise UsageError(
            f"cannot write {printable(str(output))}: {error.strerror}", "choose another file with --output"
        ) from error
    if text is not None:
        say(text, nl=not text.endswith("\n"))
    else:
        say(f"{len(frame)} rows: {printable(str(output))}", err=True)


def write_timeline(log: RunLog, benchmark: str | None, output: Path | None) -> None:
    from ..runlog.timeline import chrome_trace

    timeline = chrome_trace(log, benchmark)
    if timeline.left_out:
        say(f"for want of room {timeline.left_out}; --benchmark NAME shows one with more", err=True)
    write_text(timeline.content.decode(), output)


def write_text(text: str, output: Path | None) -> None:
    from ..errors import UsageError
    from ..files import write_whole
    from ..text import printable

    if output is None:
        say(text, nl=False)
        return
    try:
        write_whole(output, text)
    except OSError as error:
        raise UsageError(
            f"cannot write {printable(str(output))}: {error.strerror}", "choose another file with --output"
        ) from error
    say(f"written: {printable(str(output))}", err=True)
