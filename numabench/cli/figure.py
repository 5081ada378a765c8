"""`numabench figure`: one figure of a report as files."""

from __future__ import annotations

from pathlib import Path

import click

from ..text import printable
from . import say
from .logs import read_visits, visit_options

KINDS = ("png", "svg", "pdf")
SHARPNESS = 160  # pixels an inch of a PNG


@click.command("figure")
@click.argument("benchmark")
@click.argument("paths", nargs=-1, metavar="[LOG|FOLDER]...")
@click.option(
    "--view", default="0", metavar="TITLE|N", help="Which of the benchmark's figures: how its title begins, or its number."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file (.png, .svg or .pdf); of several panels FILE-1, FILE-2 and so on [default: BENCHMARK.svg].",
)
@visit_options
def command(benchmark: str, paths: tuple[str, ...], view: str, output: Path | None, last: bool, without: tuple[str, ...]) -> None:
    """Write a figure of BENCHMARK as it stands in the report, for a document of your own.

    Without paths: all runs of this machine in results/<alias>/.

    \b
    Examples:
      numabench figure memory_latency -o latency.svg
      numabench figure contention --view Fairness results/sample -o fairness.png
    """
    from ..errors import UsageError
    from ..report.plot import plot
    from .report import write_page

    import matplotlib  # isort: skip (behind what says how)

    output = output or Path(f"{benchmark}.svg")
    kind = output.suffix.lstrip(".").lower()
    if kind not in KINDS:
        raise UsageError(
            f"a figure is no {output.suffix or 'file without an ending'}", f"give a name that ends with .{', .'.join(KINDS)}"
        )
    matplotlib.use("Agg")  # no window, wherever this runs
    axes = plot(read_visits(paths, last, without), benchmark, int(view) if view.isdecimal() else view)
    for number, ax in enumerate(axes, 1):
        target = output if len(axes) == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")
        write_page(drawn(ax.figure, kind), target)
        say(f"figure: {printable(str(target))}")


def drawn(figure, kind: str) -> bytes:
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=SHARPNESS)
    return buffer.getvalue()
