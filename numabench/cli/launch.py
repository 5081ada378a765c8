"""`numabench launch`: one visit to each of many machines."""

from __future__ import annotations

import asyncio
import copy
import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import IMPRECISE, MACHINE, OK, MachineError, UsageError
from ..text import in_shell, printable
from ..units import format_seconds, parse_seconds, plural
from . import say
from .outputs import Launched, json_option, write
from .run import command as run_command
from .run import interruptible

if TYPE_CHECKING:
    from ..host.pushed import Parcel
    from ..launch.launching import Launching
    from ..launch.remote import Answer
    from ..runlog.expected import Asked, Ended

TO_RUN = ("profile", "settings", "budget", "processes", "patience", "anyway")  # options that numabench run takes there
TO_RESUME = ("patience", "anyway")
SPARE_S = 600.0  # that a visit may take besides what it measures: kernels are compiled, CPUs waited for
LOOKS = 2  # visits of the second look
MOST_NAMED = 40  # hosts that the end names
MOST_OWN = 4  # hosts that took no kernels, by name
MOST_INPUT = 1 << 24  # bytes of a list of hosts


def passed_on(command: click.Command) -> click.Command:
    """Those options of `numabench run` that are handed on to it, as they are there."""
    own = [copy.copy(option) for option in run_command.params if option.name in TO_RUN]
    command.params[1:1] = own
    return command


@passed_on
@click.command("launch")
@click.argument("benchmarks", nargs=-1, metavar="[BENCHMARK | TOPIC]...")
@click.option("--ssh", "hosts", metavar="HOSTS", help="By your ssh: a file of names, n1,n2, or - for standard input.")
@click.option("--slurm", "partition", metavar="PARTITION", help="By Slurm: an exclusive job for each node, pinned to it.")
@click.option("--nodes", metavar="LIST", help="With --slurm: only these nodes, such as n[001-500].")
@click.option(
    "--suspects",
    type=click.Path(path_type=Path),
    metavar="RUNS",
    help="The second look: two more visits to those that numabench fleet suspects.",
)
@click.option("--apart", default="10m", show_default=True, metavar="TIME", help="With --suspects: so far are visits apart.")
@click.option(
    "--with", "program", default="numabench", show_default=True, metavar="PATH", help="numabench on the other machines."
)
@click.option(
    "--at-once", default=256, show_default=True, type=click.IntRange(1), metavar="N", help="With --ssh: so many hosts at once."
)
@click.option(
    "--compile-there", is_flag=True, help="Each machine compiles its kernels itself; else those compiled here are sent to it."
)
@click.option("--limit", metavar="TIME", help="Of a visit: twice its budget and ten minutes.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder for run logs."
)
@json_option
@click.pass_context
@interruptible()
def command(
    ctx: click.Context,
    hosts: str | None,
    partition: str | None,
    nodes: str | None,
    suspects: Path | None,
    apart: str,
    program: str,
    at_once: int,
    compile_there: bool,
    limit: str | None,
    output: Path,
    form: str,
    **options,
) -> int:
    """Measure on each of many machines, once, and bring the run logs here.

    Each host ends in a state with its reason (measured, unreachable, host key changed, busy, drained ...); the others are measured all the same. The same line
    again goes on with what is not measured, also after Ctrl-C, and measures nothing twice. Another visit to all: another folder.
    numabench has to be installed there, in this version. It needs no compiler there: kernels are compiled here, once, and each machine with this one's architecture
    gets those that it lacks (in its cache), so that all measure the same objects. Nothing else stays there.

    \b
    Examples:
      numabench launch --ssh hosts.txt --profile accept -o runs
      numabench launch --ssh n1,n2,me@n3 --with /shared/venv/bin/numabench memory
      numabench launch --slurm batch --nodes 'n[001-500]' -o runs
      numabench launch --suspects runs           the second look that numabench fleet asks for
      numabench fleet runs                       who is unlike the others, and who was not measured

    Ctrl-C ends the runs on hosts reached by ssh (what they measured stays there, and is gone on with); jobs of Slurm stay in their queue, and are collected.
    Exit code: 0 all measured, 5 some not, 3 none.
    """
    if sum(each is not None for each in (hosts, partition, suspects)) != 1:
        raise UsageError("launch takes one of --ssh HOSTS, --slurm PARTITION and --suspects RUNS", "numabench launch --help")
    from ..launch.hosts import checked
    from ..launch.remote import Answer
    from ..launch.slurm import nodes_of

    if suspects is not None:
        fixed = (*TO_RUN, "benchmarks", "nodes", "program", "limit", "output", "compile_there")
        given = [name for name in fixed if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
        if given:
            raise UsageError(f"--suspects measures as before; {', '.join(given)} cannot change", "leave it away")
        return second_look(suspects, parse_seconds(apart), at_once, form)
    impossible: dict[str, Answer] = {}
    if hosts is not None:
        names, twice, odd = checked(read_hosts(hosts))
        for name in twice:
            say(f"listed twice, visited once: {printable(name)}", err=True)
        impossible = {printable(name): Answer("no name of a host", no_name(name)) for name in odd}
    else:
        found = nodes_of(partition or "", nodes)
        names, impossible = [*found], {name: answer for name, answer in found.items() if answer}
    if not names and not impossible:
        raise UsageError("the list of hosts is empty", "one name a line")
    asked = make_request(
        ctx, "ssh" if hosts is not None else "slurm", [*names, *(i for i in impossible if i not in names)], limit
    )
    with Show(output, asked, form) as show:
        show.visit([name for name in names if name not in impossible], at_once, impossible)
        return show.end()


def no_name(name: str) -> str:
    if "[" in name and "://" not in name:
        return f"it looks like several: {in_shell('scontrol', 'show', 'hostnames', name)} lists them"
    return "letters, digits and . _ - : @ make one"


def read_hosts(given: str) -> list[str]:
    """The names of `--ssh`: standard input, a file, or a list with commas."""
    from ..launch.hosts import listed

    try:
        if given == "-":
            text = sys.stdin.read(MOST_INPUT)
        elif Path(given).exists() and not Path(given).is_dir():  # a pipe, too: <(sinfo ...)
            with open(given, encoding="utf-8-sig", errors="replace") as file:
                text = file.read(MOST_INPUT)
        elif "/" in given:
            raise UsageError(f"there is no file {printable(given)}", "one name a line; or --ssh n1,n2")
        else:
            text = given
    except OSError as error:
        raise UsageError(f"cannot read {printable(given)}: {error.strerror}", "check its permissions") from error
    return listed(text)


def make_request(ctx: click.Context, engine: str, hosts: Sequence[str], limit: str | None) -> Asked:
    """What is asked of each host, in the words of `numabench run`. Options that nobody could use are refused here, once."""
    import shlex

    from ..benchmarks import choose
    from ..measure.profiles import find_profile
    from ..runlog import utc_now
    from ..runlog.expected import Asked

    values = ctx.params
    choose(values["benchmarks"])
    profile = find_profile(values["profile"])
    budget = parse_seconds(values["budget"]) if values["budget"] else profile.most_budget
    patience = parse_seconds(values["patience"]) if values["patience"] else 0.0
    words = {}
    for option in ctx.command.params:
        value = values.get(option.name or "")
        if option.name in TO_RUN and value:
            each = value if isinstance(value, (list, tuple)) else [value]
            words[option.name] = [w for v in each for w in ((option.opts[0],) if v is True else (option.opts[0], str(v)))]
    try:
        program = tuple(shlex.split(values["program"]))
    except ValueError as error:
        raise UsageError(f"--with {values['program']!r} cannot be split into words ({error})", "quote it in pairs") from error
    if not program or program[0].startswith("-"):
        raise UsageError(f"--with {values['program']!r} is no program", "such as --with /shared/venv/bin/numabench")
    passed = (*values["benchmarks"], *(word for name in TO_RUN for word in words.get(name, ())))
    for word in (*passed, *program, str(values["output"])):
        if not word.isprintable():  # the other shell may know no sign for it
            raise UsageError(f"{printable(word)!r} has control characters", "leave them away")
    return Asked(
        launch="",
        engine=engine,
        hosts=tuple(hosts),
        words=passed,
        again=tuple(word for name in TO_RESUME for word in words.get(name, ())),
        program=program,
        partition=values["partition"] or "",
        limit=parse_seconds(limit) if limit else 2 * budget + patience + SPARE_S,
        compile_there=values["compile_there"],
        at=utc_now(),
    )


class Show:
    """A launch on a terminal: how far it is, and how each host ended."""

    def __init__(self, folder: Path, asked: Asked, form: str):
        from ..launch.launching import Launching
        from .console import Terminal
        from .progress import StatusLine

        self.form = form
        self.line = StatusLine(Terminal(outlives_reader=True, stderr=True))
        self.launching: Launching = Launching(folder, asked, self.told)
        self.hosts: dict[str, None] = {}
        self.began, self.total, self.ended, self.failed, self.slots = time.monotonic(), 0, 0, 0, 1

    def __enter__(self) -> Show:
        return self

    def __exit__(self, *_: object) -> None:
        self.line.write("")
        self.launching.__exit__()

    def visit(self, hosts: Sequence[str], at_once: int, impossible: dict[str, Answer] | None = None, again: bool = False) -> None:
        """All hosts that are not measured (`again`: all), and those on which nothing can be measured in their states."""
        from ..launch import slurm, ssh

        launching, asked = self.launching, self.launching.asked
        self.hosts |= dict.fromkeys([*hosts, *(impossible or ())])
        for host, answer in (impossible or {}).items():
            if host not in launching.measured:
                launching.ended(host, answer)
        if again:
            launching.measured -= set(hosts)
        wanted = [host for host in hosts if host not in launching.measured]
        if len(wanted) < len(hosts):
            say(f"measured before: {len(hosts) - len(wanted)} of {plural(len(hosts), 'host')}", err=True)
        if wanted and not asked.compile_there and launching.parcel is None:
            launching.parcel = self.packed(asked)
        self.began, self.total, self.ended, self.failed, self.slots = (
            time.monotonic(),
            len(wanted),
            0,
            0,
            min(at_once, len(wanted)) or 1,
        )
        visits = [partial(launching.next_visit, host) for host in wanted]
        self.progress()
        try:
            if asked.engine == "slurm":
                asyncio.run(slurm.visit_all(visits, launching.settle, asked, launching.shared, launching.parcel))
            else:
                asyncio.run(ssh.visit_all(visits, launching.settle, at_once, asked.limit))
        except KeyboardInterrupt:
            self.total = 0
            launching.interrupted()
            self.end()
            raise

    def packed(self, asked: Asked) -> Parcel | None:
        """The kernels of what is asked for, compiled here; None, and said why, where that cannot be."""
        from ..benchmarks import choose
        from ..measure.parcel import pack

        names = [*itertools.takewhile(lambda word: not word.startswith("-"), asked.words)]
        try:
            return pack(choose(names), lambda done, of: self.line.write(f"compiling kernels: {done} of {of}"))
        except MachineError as error:
            say(f"kernels are not sent, each machine compiles its own: {error}", err=True)
            return None
        finally:
            self.line.write("")

    def wait(self, hosts: Sequence[str], apart: float) -> None:
        """Until the last visits to these hosts are so far back."""
        before = max(
            (seconds_since(each.at) for each in [self.launching.last[h] for h in hosts if h in self.launching.last]), default=0.0
        )
        end = time.monotonic() + apart - before
        while (left := end - time.monotonic()) > 0:
            self.line.write(
                f"{plural(len(hosts), 'suspect')}: {format_seconds(left)} until the next visit, since visits are to be apart"
            )
            time.sleep(min(left, 1.0))

    def told(self, ended: Ended) -> None:
        from ..runlog.expected import MEASURED

        self.ended += 1
        self.failed += ended.state != MEASURED
        self.progress()

    def progress(self) -> None:
        """`412 of 500 hosts, about 3 min left`: a host takes as long as those before it."""
        left = self.total - self.ended
        took = time.monotonic() - self.began
        rest = f", about {format_seconds(took / self.ended * left)} left" if self.ended > self.slots / 2 and left > 0 else ""
        if self.total:
            failed = f" ({self.failed} not measured)" if self.failed else ""
            self.line.write(f"{self.ended} of {plural(self.total, 'host')}{failed}{rest}")

    def end(self) -> int:
        from ..launch.remote import OWN_KERNELS
        from ..runlog.expected import MEASURED

        self.line.write("")
        asked, states = self.launching.asked, self.launching.outcome(self.hosts)
        measured = {host for host in states if host in self.launching.measured}
        missing = {host: each for host, each in states.items() if host not in measured}
        code = IMPRECISE if missing and measured else MACHINE if missing else OK
        if self.form == "json":
            parts = {h: {"state": MEASURED if h in measured else e.state, "why": e.why, "log": e.log} for h, e in states.items()}
            write(Launched(folder=str(self.launching.folder), exit_code=code, hosts=parts))
            return code
        counts = Counter(MEASURED if host in measured else each.state for host, each in states.items())
        say(f"{plural(len(states), 'host')}: {', '.join(f'{n} {state}' for state, n in counts.most_common())}.")
        for host, each in [*missing.items()][:MOST_NAMED]:
            say(f"{host}  {each.state}: {each.why}")
        own = [host for host in measured if OWN_KERNELS in states[host].why]
        if own:
            say(
                f"{plural(len(own), 'host')} did not take the kernels that were sent ({', '.join(own[:MOST_OWN])}{' ...' if own[MOST_OWN:] else ''}): {states[own[0]].why.rpartition(': ')[2]}"
            )
        if len(missing) > MOST_NAMED:
            say(f"and {len(missing) - MOST_NAMED} more: {in_shell('numabench', 'fleet', self.launching.folder)} names all")
        if self.launching.at_work and asked.engine == "slurm":
            from ..launch.slurm import job_name

            say(f"To take its jobs out of the queue: {in_shell('scancel', '-n', job_name(asked.launch))}")
        if measured:
            say(
                f"Logs: {printable(str(self.launching.folder))}. Who is unlike: {in_shell('numabench', 'fleet', self.launching.folder)}"
            )
        return code


def seconds_since(moment: str) -> float:
    from datetime import datetime, timezone

    return (datetime.now(timezone.utc) - datetime.fromisoformat(moment.replace("Z", "+00:00"))).total_seconds()


def second_look(folder: Path, apart: float, at_once: int, form: str) -> int:
    """Two more visits to the suspects alone, by the engine that visited them; those that have one of them already, since it was interrupted, get the other."""
    from ..analysis.cohorts import judge_fleet
    from ..analysis.collect import read_fleet
    from ..analysis.fleet import SUSPECT
    from ..launch.hosts import checked
    from ..launch.launching import hosts_called
    from ..runlog.expected import STATE_FILE, Asked, read_states

    every = [each for each in read_states(folder) if isinstance(each, Asked)]
    if not every:
        raise UsageError(f"{folder} has no {STATE_FILE}: no launch measured there", "numabench launch --ssh HOSTS -o FOLDER")
    known, *_ = checked(host for each in every for host in each.hosts)
    with Show(folder, every[-1], form) as show:
        members = {member.alias for member in judge_fleet(*read_fleet([folder])).of(SUSPECT)}
        hosts = hosts_called(members, known)
        if len(members) > len(hosts):
            say(f"{plural(len(members) - len(hosts), 'suspect')} of no launch: numabench run there, twice more", err=True)
        hosts += [host for host in show.launching.halfway() if host not in hosts]
        for _ in range(LOOKS):
            if hosts:
                show.wait(hosts, apart)
                show.visit(hosts, at_once, again=True)
            hosts = show.launching.halfway()
        if not show.hosts:
            say("No machine is suspect: nothing is left to decide.", err=form == "json")
        return show.end()
