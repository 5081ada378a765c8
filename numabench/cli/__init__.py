"""The `numabench` command: one module per verb, imported when it is called. Only this package prints or exits."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from keyword import iskeyword
from typing import IO

import click

from .. import __version__
from ..errors import INTERRUPTED, MACHINE, REGRESSION, UNFORESEEN, USAGE, NumabenchError
from ..extras import REPORT, need_report
from ..text import near, printable
from .defaults import project_defaults, take_variables

TRACEBACK = "--traceback"
COMPLETE = "_NUMABENCH_COMPLETE"  # set by a shell that asks what could be typed
MOST_SAID = 300  # characters of an unforeseen error

#: verb -> what `--help` says of it; the module of the same name (`import_` for Python's own word) holds `command`.
VERBS = {
    "run": "Measure this machine and write a run log.",
    "list": "Show the benchmarks, their parameters and metrics.",
    "machine": "Show this machine: packages, nodes, caches, cores, distances.",
    "check": "Show what will disturb a measurement here, and how to mend it.",
    "selftest": "Measure the same again and again: false alarms, and the smallest effect that is found here.",
    "card": "Show on one screen what operations cost here; as a picture, too.",
    "report": "Turn run logs into one HTML page and a table of answers.",
    "figure": "Write one figure of a report as PNG, SVG or PDF.",
    "runs": "List the visits that logs hold: when, how they ended, how undisturbed.",
    "compare": "Compare two machines, or two states of one, with verdicts.",
    "launch": "Measure on each of many machines, once, and bring the logs here.",
    "fleet": "Name the machines that are unlike the others of their kind, and why.",
    "history": "When a machine's figures changed for good, and what changed with them.",
    "bill": "What a program pays for silently: its counts, times this machine's prices.",
    "claims": "What is said of runtimes such as Go's and Java's, and whether it holds here.",
    "advise": "Say what padding to use, with the evidence for it.",
    "export": "Write the samples of run logs as CSV, JSON or Parquet, or the timeline.",
    "import": "Read a published core-to-core matrix into a run log.",
    "contract": "Hold this numabench, or logs, against the frozen versions of the run log.",
    "new": "Begin a benchmark: kernel, description, page.",
    "completion": "Let bash, zsh or fish complete what you type.",
    "man": "Write the manual page.",
    "version": "Show the version, and what it runs on.",
    "help": "Explain numabench, or one of its verbs.",
}
INNER = ("take",)  # verbs that numabench itself calls on other machines


class PipeClosed(Exception):
    """Nobody reads any more. click takes Python's own error for it and exits with 1, which here means a regression."""


class Verbs(click.Group):
    """A group that imports a verb's module only when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]  # `list` is a verb's module here

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS and name not in INNER:
            return None
        verb: click.Command = importlib.import_module(f".{name}{'_' * iskeyword(name)}", __package__).command
        if COMPLETE in os.environ:
            from .completing import attach

            attach(verb)
        else:
            take_variables(name, verb)
        return verb

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise PipeClosed from error
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in REPORT:
                need_report()  # says what to install
            raise

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and args[0] not in (*VERBS, *INNER) and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}{near(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*VERBS.items()])


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="numabench", message="%(prog)s %(version)s")
@click.option(TRACEBACK, is_flag=True, help="Show where an unforeseen error came from; anywhere on the line.")
def command(traceback: bool) -> None:
    """What a machine's memory system really costs, with proof.

    \b
    First steps:
      numabench check                    is this machine fit for measuring?
      numabench run --profile quick      a first run log within a minute
      numabench report                   the answers, and a page with figures
      numabench compare BASE NEW         is one machine faster than another?

    Exit codes: 0 fine, 1 a regression or failed claim, 2 usage, 3 this machine cannot do it, 4 not comparable,
    5 precision not reached, 70 an unforeseen error (a fault of numabench), 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error becomes one line and its exit code, never a traceback unless that was asked for."""
    arguments = [*(sys.argv[1:] if arguments is None else arguments)]  # `list` is a verb's module here
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments  # behind it are another program's
    told = TRACEBACK in own
    if told:
        arguments.remove(TRACEBACK)
    else:  # what nobody can catch, as for want of memory in a callback of a library, whose caller says what came of it
        sys.unraisablehook = lambda _: None
    open_streams()
    for stream in (sys.stdout, sys.stderr):  # what a terminal has no sign for is lost alone, and not the report
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        if COMPLETE in os.environ:
            importlib.import_module(".completing", __package__)  # bash's words are put together there
        defaults = {} if COMPLETE in os.environ else project_defaults(VERBS, command)
        code = command.main(arguments, prog_name="numabench", standalone_mode=False, default_map=defaults) or 0
        sys.stdout.flush()
        sys.exit(code)
    except NumabenchError as error:
        fail(str(error), error.exit_code)
    except click.exceptions.Exit as exit_:
        flush(exit_.exit_code)
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # since click 8.2
            say(error.format_message())
            sys.exit(USAGE)
        hint = f" (try: {error.ctx.command_path} --help)" if getattr(error, "ctx", None) else ""
        fail(error.format_message() + hint, error.exit_code if error.exit_code != REGRESSION else USAGE)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted", INTERRUPTED)
    except (PipeClosed, BrokenPipeError):  # `numabench export | head`: the reader has what it wanted
        abandon(sys.stdout)
        sys.exit(0)
    except OSError as error:
        fail(describe(error), MACHINE)
    except ImportError as error:
        fail(
            f"a library cannot be loaded: {' '.join(str(error).split())[-MOST_SAID:]}. To mend it: pip install --force-reinstall numabench, "
            "or allow more memory (ulimit -v)",
            MACHINE,
        )
    except MemoryError:
        fail("there is not enough memory for this. To mend it: give fewer logs at a time, or use a machine with more", MACHINE)
    except Exception as error:
        if told:
            raise
        what = f"{type(error).__name__}: {error}"
        fail(
            f"unforeseen, a fault of numabench itself: {what[:MOST_SAID]}. To mend it: report it with what {TRACEBACK} adds",
            UNFORESEEN,
        )


def open_streams() -> None:
    """Standard streams that whoever started this has closed (`>&-`, some daemons) lead nowhere, and no file that is opened gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one, since those below are open
            os.set_inheritable(handle, True)
            setattr(sys, name, os.fdopen(handle, "w" if number else "r", encoding="utf-8", errors="replace", closefd=False))


def flush(code: int) -> None:
    """Exit with `code`, whether or not anybody still reads."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        abandon(sys.stdout)
    sys.exit(code)


def abandon(stream: IO[str]) -> None:
    """Nothing more is written to a pipe that is closed, not at the interpreter's end either."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # no file of the system's: nothing to keep quiet
        return


def describe(error: OSError) -> str:
    """One line for what the system refused: where, why, and what mends it."""
    where = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = " ".join((error.strerror or str(error) or type(error).__name__).split())
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        fix = "make room on that disk, or set TMPDIR and --output to folders with room (df -h shows them)"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        fix = "check the permissions (ls -ld), or choose another folder with --output or TMPDIR"
    elif error.errno == errno.EAGAIN and not where:  # fork
        fix = "raise the limit on processes (ulimit -u; the pids limit of a container or unit)"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        fix = "allow more open files (ulimit -n 1024)"
    elif error.errno == errno.ENOMEM:
        fix = "allow more memory (ulimit -v, the limit of a container or unit), or end what uses it"
    elif "temporary directory" in what:
        fix = "set TMPDIR to a folder that exists, is yours and has room"
    else:
        fix = "check that the file or folder exists and is in order; TMPDIR and --output choose others"
    return str(NumabenchError(f"the system refused{f' {where}' if where else ''}: {what}", fix))


def say(text: str, nl: bool = True, err: bool = False) -> None:
    """Prints. To a terminal that has ASCII alone click itself would send UTF-8, some bytes of which such a terminal obeys."""
    stream = sys.stderr if err else sys.stdout
    click.echo(text, file=stream if stream.isatty() else None, nl=nl, err=err)


def fail(message: str, code: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        say(f"numabench: error: {printable(message)}", err=True)
    sys.exit(code)
