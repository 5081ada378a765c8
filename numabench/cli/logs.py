"""The logs that a verb reads: those named, or this machine's, and which of their visits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import say

if TYPE_CHECKING:
    from ..runlog.read import RunLog


def default_folder() -> Path:
    """Where this machine's runs are: `results/<alias>/`."""
    from ..errors import UsageError
    from ..host.machine import read_machine

    folder = Path("results") / read_machine().alias
    if not folder.is_dir():
        raise UsageError(
            f"this machine has no runs yet: there is no folder {folder}", "numabench run --profile quick, or name logs to read"
        )
    return folder


def named_or_own(paths: tuple[str, ...]) -> tuple[str, ...]:
    return paths or (str(default_folder()),)


def read_logs(paths: tuple[str, ...]) -> RunLog:
    """All visits in these logs, or to this machine."""
    from ..runlog.read import load

    return load(*named_or_own(paths))


def read_visits(paths: tuple[str, ...], last: bool, without: tuple[str, ...]) -> RunLog:
    """Those that `visit_options` leave."""
    from ..runlog.visits import chosen

    return chosen(read_logs(paths), last, without)


def visit_options(command: click.Command) -> click.Command:
    """`--last` and `--without` of a verb that reads the visits of a machine together."""
    command = click.option("--without", multiple=True, metavar="RUN", help="Leave this visit out (numabench runs). Repeatable.")(
        command
    )
    return click.option("--last", is_flag=True, help="Only the last visit of each machine.")(command)


def say_notes(log: RunLog) -> None:
    for warning in log.warnings:
        say(f"note: {warning}", err=True)
