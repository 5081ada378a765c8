"""`numabench import`: a published matrix as a run log."""

from __future__ import annotations

from pathlib import Path

import click

from ..benchmarks.core_to_core import OPERATIONS
from ..errors import UsageError

EPILOG = """\b
Examples:
  numabench import epyc7713.csv
  numabench import epyc7713.csv --alias rome --operation load_store -o published
  numabench report results/epyc7713/*.jsonl
\b
The file: a line for each CPU, as many columns; ns one way; full, or one triangle. What core-to-core-latency (--csv) prints is that."""


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
def command(file: Path, alias: str | None, operation: str, output: Path) -> None:
    """Read a matrix of core-to-core latencies that another tool published, and write it as a run log: for its figure, its structure, and the
    tables of numabench."""
    from ..analysis.published import farthest_directions, matrix_records
    from ..host.machine import sanitised
    from ..runlog.matrix import read_matrix
    from ..runlog.write import Journal

    alias = sanitised(alias or file.stem)
    matrix = read_matrix(file)
    records = matrix_records(matrix, alias, operation, f"numabench import {file}")
    path = output / alias / f"{file.stem}.jsonl"
    if path.exists():
        raise UsageError(f"{path} is there already", "choose another --alias or --output")
    with Journal(path) as journal:
        for record in records:
            journal.append(record)
    click.echo(f"{len(records[2].samples)} latencies between {len(records[1].axes[0].values)} CPUs: {path}")
    zeros = sum(bool(sample.extra) for sample in records[2].samples)
    if zeros:
        click.echo(
            f"{zeros} of them are 0, below what their tool could resolve: each counts as half of the smallest other figure"
        )
    if found := farthest_directions(matrix):
        a, b, share = found
        click.echo(
            f"Two directions were given, up to {share:.0%} apart (CPUs {a} and {b}: {matrix[a][b]:g} and {matrix[b][a]:g} ns): the log keeps both, "
            "groups are found in their mean, and the page shows both"
        )
    click.echo(f"Its structure and heat map: numabench report {path}")
