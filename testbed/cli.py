"""The command `python -m testbed`. Only this module prints or exits."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from .errors import SimulationError

INTERRUPTED = 130
CPUS_PER_GUEST = 2  # of this machine: with fewer, two guests beside each other take as long as one after the other


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Try numabench, or any program, on a NUMA machine that you describe in a file.

    \b
    First steps:
      python -m testbed prepare                                        fetch QEMU and a kernel (once, 120 MB)
      python -m testbed list                                           the machines that come with it
      python -m testbed run --machine cxl -- numactl --hardware        any command on one of them
      python -m testbed certify --machine cxl                          is what numabench finds there right?

    \b
    Exit codes: that of the command for `run`; 1 a wrong figure, 2 usage or an impossible machine, 3 QEMU or the kernel
    is missing, 124 the guest took too long or went down, 130 interrupted.
    """


@command.command()
@click.option(
    "--arch",
    default="x86-64",
    show_default=True,
    type=click.Choice(["x86-64", "aarch64"]),
    help="For machines of this architecture; aarch64 takes another 220 MB.",
)
def prepare(arch: str) -> None:
    """Fetch QEMU 10 and a kernel from the Debian mirror, unpack them beside the project, compile the simulator."""
    from . import packages_aarch64
    from .machine import ARM
    from .packages import folder
    from .packages import prepare as fetch
    from .programs import compile_programs

    tools = packages_aarch64.prepare(click.echo) if arch == ARM else fetch(click.echo)
    compile_programs(arch)
    version = tools.versions.get("qemu-system-arm" if arch == ARM else "qemu-system-x86", "of unknown version")
    click.echo(f"ready in {folder()}: QEMU {version}, {tools.versions.get('kernel')}")


@command.command("list")
def list_machines() -> None:
    """Show the machines that come with the project.

    Each is a name for `--machine` of `run` and `certify`, and a file to begin one of your own with: copy it, change it, and give its path.

    \b
    Example:
      cp testbed/machines/cxl.toml mine.toml
      python -m testbed run --machine mine.toml --plain -- numactl --hardware
    """
    from rich.console import Console
    from rich.table import Table

    from .machine import SHIPPED, load_machine, shipped

    table = Table(box=None, pad_edge=False)
    for name in ("machine", "CPUs", "nodes", "what it is"):
        table.add_column(name, justify="right" if name in ("CPUs", "nodes") else "left")
    for name in shipped():
        machine = load_machine(name)
        table.add_row(name, str(machine.cpus), str(len(machine.nodes)), machine.summary)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\nTheir files: {SHIPPED}; docs/testbed.md explains every key.", soft_wrap=True)


@command.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--machine", "name", required=True, metavar="MACHINE.toml", help="A machine file, or the name of a shipped machine."
)
@click.option("--plain", is_flag=True, help="Without the timing: quick, for placement; clocks are the host's.")
@click.option(
    "--time",
    "timed",
    type=click.Choice(["kernels", "command"]),
    default="kernels",
    show_default=True,
    help="What the model times: numabench's kernels while they measure, or the whole command.",
)
@click.option("--timeout", default="10m", show_default=True, metavar="TIME", help="Stop the guest when the command takes longer.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder that the command sees as /out."
)
@click.argument("words", nargs=-1, required=True, metavar="COMMAND")
def run(name: str, plain: bool, timed: str, timeout: str, out: Path | None, words: tuple[str, ...]) -> int:
    """Boot MACHINE and run COMMAND in it.

    The command sees this machine's files read-only, with changes kept in memory until the guest ends; what it writes to
    /out stays in --out. One word is taken as a line for the shell. Options stand before the --.

    \b
    What is it for?
      where pages go: policies, cpusets, nodes that lack memory     --plain
      what a program of yours would take there                      --time command
      what numabench finds there                                    neither: its kernels are timed

    \b
    Examples (docs/testbed-examples.md has three that are worked out):
      python -m testbed run --machine two-socket -- .venv/bin/numabench machine
      python -m testbed run --machine cxl --plain -- numactl --membind=2 ./my-program
      python -m testbed run --machine mine.toml --time command -- ./my-benchmark
      python -m testbed run --machine smt --out results -- '.venv/bin/numabench run -o /out'
    """
    from contextlib import nullcontext

    from numabench.units import parse_seconds

    from .guest import COMMAND, KERNELS, NOTHING, temporary_share
    from .guest import run as run_guest
    from .machine import load_machine

    machine, limit = load_machine(name), parse_seconds(timeout)
    if len(words) > 1 or " " not in words[0]:
        demand_program(words[0])
    if limit <= 0:
        raise click.BadParameter(f"{timeout!r}: it must be positive", param_hint="--timeout")
    if machine.timing is None and not plain:
        click.echo(f"{machine.name} has no [timing]: booted plain, with the host's clocks", err=True)
    mode = NOTHING if plain or machine.timing is None else COMMAND if timed == "command" else KERNELS
    nodes = len(machine.nodes)
    click.echo(f"booting {machine.name} ({machine.cpus} CPUs, {nodes} node{'s' if nodes > 1 else ''}) ...", err=True)
    with nullcontext(out) if out else temporary_share() as shared:
        found = run_guest(
            machine,
            words[0] if len(words) == 1 else list(words),
            shared=shared,
            timed=mode,
            timeout=limit,
            wall=True,
            output=lambda stream, text: click.echo(text, nl=False, err=stream == "stderr"),
        )
    if mode == KERNELS and not found.statistics.get("accesses"):
        click.echo(
            "nothing was timed: numabench's kernels are, while they measure; a program of yours with --time command", err=True
        )
    click.echo(
        f"{machine.name}: exit code {found.status}, {found.boot:.1f} s to boot, {found.seconds:.1f} s for the command", err=True
    )
    return found.status


def demand_program(word: str) -> None:
    """What the guest runs is a file of this machine: better said before it boots."""
    if "/" in word and not word.startswith("/out") and not Path(word).is_file():
        raise click.BadParameter(
            f"there is no file {word} here: compile it first; the guest runs this machine's files", param_hint="COMMAND"
        )


@command.command()
@click.option(
    "--machine",
    "machines",
    multiple=True,
    metavar="MACHINE.toml",
    help="Certify this one, or one of testbed/known, such as `fleet`. Repeatable. [all of them]",
)
@click.option("--defect", metavar="NAME", help="Use a numabench that is wrong on purpose; `--defect list` names them.")
@click.option(
    "--compare/--no-compare",
    "with_comparison",
    default=True,
    show_default=True,
    help="Boot each machine twice more for the verdicts of numabench compare.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write certificate.md and its pictures here.",
)
@click.option(
    "--parts",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Keep what each machine gave here, and take what is there of machines that nothing has touched since: to go on after an interruption, or after a change.",
)
@click.option(
    "--since",
    metavar="COMMIT",
    help="Leave out machines that no change since COMMIT touches, committed or not (docs/testbed.md says what touches which).",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Certify N machines beside each other. [one for every two CPUs]",
)
def certify(
    machines: tuple[str, ...],
    defect: str | None,
    with_comparison: bool,
    output: Path | None,
    parts: Path | None,
    since: str | None,
    jobs: int | None,
) -> int:
    """Run numabench on machines whose answers are known, and hold what it finds against them.

    Exit code 0 when every figure is right, 1 when one is wrong. All shipped machines take an hour and more on two CPUs, one takes a minute or two
    with --no-compare.

    \b
    Examples:
      python -m testbed certify --machine cxl --no-compare                                   the latencies, hops and lines of one machine
      python -m testbed certify --machine mine.toml                                          of your own, and the verdicts of numabench compare
      python -m testbed certify --machine two-socket --no-compare --defect broken-chain      a wrong numabench: must be red
      python -m testbed certify --no-compare --since main                                    what my changes touch
      python -m testbed certify --parts build/certificate --output docs                      all, going on where it was interrupted
    """
    from rich.console import Console

    from .certify import Certification
    from .defects import CHECKOUT, DEFECTS, defective_tree, names
    from .known import NAMES, known
    from .machine import Machine, load_machine, shipped
    from .page import write_certificate
    from .touched import changed_since

    console = Console(highlight=False)
    if defect == "list":
        for name in names():
            console.print(
                f"{name:22}{DEFECTS[name.removesuffix('-blind')].summary}{', and the check for it is off' if name.endswith('-blind') else ''}",
                soft_wrap=True,
            )
        return 0
    tree = defective_tree(defect) if defect else CHECKOUT
    chosen = [known(name) if name in NAMES else load_machine(name) for name in machines or [*shipped(), *NAMES]]
    for machine in chosen:
        if isinstance(machine, Machine) and machine.timing is None:
            raise click.BadParameter(
                f"{machine.name} has no [timing]: nothing is given to certify against", param_hint="--machine"
            )
        if isinstance(machine, Machine) and machine.events:
            raise click.BadParameter(
                f"{machine.name} is another machine after each of its events; `cloud` is certified so", param_hint="--machine"
            )
    if since and changed_since(CHECKOUT, since) is None:
        raise click.BadParameter(f"git knows no commit {since} in {CHECKOUT}", param_hint="--since")
    certification = Certification(chosen, tree, with_comparison, None if defect else parts, None if defect else since)
    certification.run(console, jobs or max(1, len(os.sched_getaffinity(0)) // CPUS_PER_GUEST))
    if output:
        for path in write_certificate(certification, output, defect):
            console.print(f"written: {path}", soft_wrap=True)
    console.print(certification.summary(), style="bold" if certification.green else "bold red", soft_wrap=True)
    return 0 if certification.green else 1


def main(arguments: list[str] | None = None) -> None:
    """Run the command; an error becomes one line (and the guest's last words) and an exit code, never a traceback."""
    from numabench.errors import NumabenchError

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # a kill ends as cleanly as Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(command.main(arguments, prog_name="python -m testbed", standalone_mode=False) or 0)
    except SimulationError as error:
        fail(str(error), error.exit_code, error.console)
    except NumabenchError as error:
        fail(str(error), error.exit_code)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        fail(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted; nothing was left behind", INTERRUPTED)
    except OSError as error:
        fail(
            f"the system refused {error.filename or ''}: {error.strerror or error}. Try: df -h, and NUMABENCH_TESTBED for another folder",
            3,
        )


def fail(message: str, code: int, console: str = "") -> None:
    if console.strip():
        click.echo("\n".join(f"  console: {line}" for line in console.strip().splitlines()), err=True)
    click.echo(f"testbed: error: {message}", err=True)
    sys.exit(code)
