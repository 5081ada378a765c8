"""`numabench runs`: the visits that logs hold."""

from __future__ import annotations

import click

from .logs import read_logs
from .outputs import json_option, write


@click.command("runs")
@click.argument("paths", nargs=-1, metavar="[LOG|FOLDER]...")
@json_option
def command(paths: tuple[str, ...], form: str) -> None:
    """List visits: when each was, of which profile, how it ended, and how much of it was undisturbed.

    Without paths: all runs of this machine in results/<alias>/.

    \b
    Examples:
      numabench runs
      numabench runs results                     of all machines
      numabench report --last                    of the last visit alone
      numabench report --without 1e7e3e13        of all but that one
    """
    from rich.table import Table

    from ..runlog.visits import BUSY, CUT, visits
    from .console import Terminal

    found = visits(read_logs(paths))
    if form == "json":
        write(found)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "machine", "started (UTC)", "profile", "ended"):
        table.add_column(title, no_wrap=True)
    for title in ("samples", "undisturbed"):
        table.add_column(title, justify="right")
    for visit in found:
        calm = "–" if visit.undisturbed is None else f"{visit.undisturbed * 100:.0f} %"
        style = "yellow" if visit.status in (BUSY, CUT, "interrupted") else ""
        started = visit.started.replace("T", " ")[:16]
        table.add_row(visit.run, visit.machine, started, visit.profile, visit.status, str(visit.samples), calm, style=style)
    Terminal().print(table)
