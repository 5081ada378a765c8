"""`numabench import`: a published matrix as a run log."""

from __future__ import annotations

from pathlib import Path

import click

from ..benchmarks.core_to_core import OPERATIONS
from ..errors import UsageError
from ..text import in_shell
from . import say
from .outputs import Imported, json_option, write

EPILOG = """\b
Examples:
  numabench import epyc7713.csv
  numabench import epyc7713.csv --alias rome --operation load_store -o published
  numabench report results/epyc7713/*.jsonl
\b
The file: a line for each CPU, as many columns; ns one way; full, or one triangle. What core-to-core-latency (--csv), c2clat and pandas write is that;\nCPU numbers above and beside the figures are understood."""


@click.command("import", epilog=EPILOG, short_help="A published core-to-core matrix as a run log.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.csv")
@click.option("--alias", metavar="NAME", help="The machine's name in results and reports (the file's name).")
@click.option(
    "--operation",
    type=click.Choice(OPERATIONS),
    default=OPERATIONS[0],
    show_default=True,
    help="How the latencies were measured: different quantities.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder for the run log."
)
@json_option
def command(file: Path, alias: str | None, operation: str, output: Path, form: str) -> None:
    """Read a matrix of core-to-core latencies that another tool published, and write it as a run log: for its figure, its structure, and the
    tables of numabench."""
    import msgspec

    from ..analysis.published import farthest_directions, matrix_records
    from ..files import write_whole
    from ..host.machine import sanitised
    from ..runlog.matrix import read_labelled
    from ..text import printable
    from ..units import format_cpus

    alias = sanitised(alias or file.stem)
    cpus, matrix = read_labelled(file)
    records = matrix_records(matrix, alias, operation, in_shell("numabench", "import", file), cpus)
    path = output / alias / f"{sanitised(file.stem)}.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, b"".join(msgspec.json.encode(record) + b"\n" for record in records), exclusive=True)
    except FileExistsError as error:
        raise UsageError(f"{printable(str(path))} is there already", "choose another --alias or --output") from error
    zeros = sum(bool(sample.extra) for sample in records[2].samples)
    if form == "json":
        write(Imported(log=str(path), cpus=cpus, latencies=len(records[2].samples), zeros=zeros))
        return
    numbered = "" if cpus == tuple(range(len(cpus))) else f" ({format_cpus(cpus)})"
    say(f"{len(records[2].samples)} latencies between {len(cpus)} CPUs{numbered}: {printable(str(path))}")
    if zeros:
        say(f"{zeros} of them are 0, below what their tool could resolve: each counts as half of the smallest other figure")
    if found := farthest_directions(matrix):
        a, b, share = found
        say(
            f"Two directions were given, up to {share:.0%} apart (CPUs {cpus[a]} and {cpus[b]}: {matrix[a][b]:g} and {matrix[b][a]:g} ns): the log keeps both, "
            "groups are found in their mean, and the page shows both"
        )
    say(f"Its structure and heat map: {in_shell('numabench', 'report', path)}")
