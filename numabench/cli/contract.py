"""`numabench contract`: whether this numabench, or logs, are as the contract of run logs says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import OK, REGRESSION, UsageError
from . import say
from .outputs import json_option, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..contract.standing import Drift, Standing

CHECK, ADD, MIGRATE = ACTIONS = ("check", "add", "migrate")
MOST_WITNESS = 400  # characters of a document


@click.command("contract")
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("paths", nargs=-1, metavar="[LOG|FOLDER]...")
@click.option("--output", "-o", metavar="FOLDER", help="Where migrate writes; nothing there is replaced.")
@click.option("--summary", metavar="TEXT", help="What is new in the version that add freezes, in a sentence.")
@json_option
def command(action: str, paths: tuple[str, ...], output: str | None, summary: str | None, form: str) -> None:
    """Hold this numabench, or logs, against the frozen versions of the run log.

    \b
    check        whether what this numabench writes and reads is the version that it names, and breaks none of
                 that major, in either direction; what breaks is proved by a document (exit code 1)
    check LOG    whether each line is of the version that the log's header claims (exit code 1 where not)
    add          freezes the form of this numabench as the version that it names, in a checkout
    migrate LOG  writes old logs anew in the present form; the originals stay as they are

    \b
    Examples:
      numabench contract check
      numabench contract check results
      numabench contract migrate old.jsonl -o results/mine
    """
    takes = {CHECK: ("paths",), ADD: ("summary",), MIGRATE: ("paths", "output")}[action]
    for name, given in (("paths", paths), ("output", output), ("summary", summary)):
        if given and name not in takes:
            raise UsageError(
                f"contract {action} takes no {'logs' if name == 'paths' else f'--{name}'}", "numabench contract --help"
            )
    if action == ADD:
        code = add(summary, form)
    elif action == MIGRATE:
        code = rewrite(paths, output, form)
    else:
        code = check_logs(paths, form) if paths else check(form)
    raise SystemExit(code)


def check(form: str) -> int:
    from ..contract.standing import standing

    found = standing()
    if form == "json":
        told(standing=found)
    else:
        say_standing(found)
    return REGRESSION if found.problem else OK


def told(standing: Standing | None = None, drift: Sequence[Drift] = (), written: Sequence[str] = ()) -> None:
    write({"standing": standing, "drift": drift, "written": written})


def say_standing(found: Standing) -> None:
    import json

    from ..contract.changes import BACKWARD

    if not found.problem:
        say(f"{found.version}: what this numabench writes and reads is as frozen; nothing breaks {', '.join(found.versions)}.")
        return
    say(f"{found.version}: {found.problem}.")
    for version, broken in found.broken.items():
        for change in broken:
            who = f"logs of {version} here" if change.direction == BACKWARD else f"new logs for readers of {version}"
            say(f"  {change.path}: {change.rule} ({who})")
            if change.witness is None:
                say("    could not be judged, and so counts as broken")
                continue
            told = json.dumps(change.witness)
            say(f"    proof: {told[:MOST_WITNESS]}{'…' if len(told) > MOST_WITNESS else ''}")
            say(f"    {change.refusal or 'both read it, each as something else'}")
    say(f"To mend it: {found.mend}")


def check_logs(paths: tuple[str, ...], form: str) -> int:
    from ..contract import standing
    from ..runlog.read import find_logs

    logs = find_logs(paths)
    found = standing.check_logs(logs)
    if form == "json":
        told(drift=found)
    for each in found if form != "json" else ():
        place = f"{each.log} line {each.line}{f', {each.pointer}' if each.pointer else ''}: " if each.log else ""
        say(f"{place}{each.problem}. To mend it: {each.mend}")
    if not found and form != "json":
        say(f"{len(logs)} {'log is' if len(logs) == 1 else 'logs are'} as the contract says.")
    return REGRESSION if found else OK


def add(summary: str | None, form: str) -> int:
    from ..contract import standing

    if not summary:
        raise UsageError("what is new in this version is to be said", "numabench contract add --summary 'What is new'")
    version = standing.freeze(summary, Path(standing.__file__).parent)
    if form == "json":
        told(written=[version.file])
    else:
        say(f"{version.version} is frozen in {version.file}")
    return OK


def rewrite(paths: tuple[str, ...], output: str | None, form: str) -> int:
    from ..contract.standing import migrate
    from ..runlog.read import find_logs

    if not paths or not output:
        raise UsageError("migrate needs logs, and a folder for what it writes", "numabench contract migrate LOG -o FOLDER")
    written = [str(migrate(path, Path(output))) for path in find_logs(paths)]
    if form == "json":
        told(written=written)
    else:
        say("\n".join(written))
    return OK
