"""`numabench run`: measure this machine and write a run log."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ..errors import IMPRECISE, INTERRUPTED, REGRESSION, UsageError
from ..extras import INSTALL, lacking
from ..text import in_shell
from ..units import parse_seconds, plural
from .opening import opens_page
from .outputs import Recorded, json_option, write

SOON = 0.02  # s
MOST_FAILURES = 5  # that are printed; the log has all


@contextmanager
def interruptible() -> Iterator[None]:
    """A kill and a terminal that closes end a run as cleanly as Ctrl-C; what was ignored before (nohup) stays so. Python drops an interrupt that
    comes while it cleans up behind its own modules: it is raised again a moment later. What an interrupt became on its way, an error of a library
    that was being loaded or of what cleaned up, is an interrupt again."""

    def again(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, SOON)
        else:
            before(dropped)

    heeded = [each for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM) if signal.getsignal(each) != signal.SIG_IGN]
    previous = {each: signal.signal(each, signal.default_int_handler) for each in heeded}
    before, sys.unraisablehook = sys.unraisablehook, again
    try:
        yield
    except Exception as error:
        if came_of_interrupt(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = before
        for each, handler in previous.items():
            signal.signal(each, handler)


def came_of_interrupt(error: BaseException | None) -> bool:
    """Whether an interrupt was being handled where an error was raised."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen and not isinstance(error, KeyboardInterrupt):
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return isinstance(error, KeyboardInterrupt)


@click.command("run")
@click.argument("benchmarks", nargs=-1, metavar="[BENCHMARK | TOPIC]...")
@click.option(
    "--profile",
    default="standard",
    show_default=True,
    help="quick (a look, 1 to 2 minutes), standard (about 10), full (hours), or accept (at most 3, one visit to each of many equal machines).",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PARAMETER=VALUE,...",
    help="Measure these values instead of the profile's. Repeatable.",
)
@click.option("--cpus", default="", metavar="LIST", help="Use only these CPUs, such as 0-3,8.")
@click.option("--budget", metavar="TIME", help="Wall-clock limit such as 90s or 5m; the profile has its own.")
@click.option(
    "--target", default="1.5%", show_default=True, help="Precision at which a cell is done: half-width of the 95 % interval."
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Exactly N processes per case (ratios and differences need 6), instead of 5 to 32 by precision.",
)
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Samples of a case in one process (3).")
@click.option("--window", metavar="TIME", help="Measured time of one sample, such as 15ms.")
@click.option("--seed", default=1, show_default=True, help="Of the order of cases and of the chains.")
@click.option("--alias", metavar="NAME", help="This machine's name in results and reports (its host name).")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Folder for run logs."
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="LOG", help="Go on with an interrupted run log.")
@click.option("--plan-only", is_flag=True, help="Print the plan and its expected time, measure nothing.")
@click.option(
    "--root", default="/", metavar="DIR", help="With --plan-only: plan for another machine's snapshot (DIR/sys, DIR/proc)."
)
@click.option("--require-precision", is_flag=True, help="Exit with 5 unless every cell reached the target.")
@opens_page
@json_option
@click.option("--report/--no-report", "with_report", default=False, help="Render the report beside the log as well.")
@click.option("--wait", "patience", metavar="TIME", help="Wait so long for busy CPUs to be free, such as 10m.")
@click.option("--anyway", is_flag=True, help="Measure on busy CPUs, or where a check finds that it makes no sense.")
@click.option("-q", "--quiet", is_flag=True, help="No plan and no progress display.")
@interruptible()
def command(
    resume: Path | None,
    output: Path,
    plan_only: bool,
    root: str,
    require_precision: bool,
    with_report: bool,
    quiet: bool,
    form: str,
    patience: str | None,
    anyway: bool,
    **options,
) -> int:
    """Measure this machine and write a run log.

    Each case is measured by several processes, each of which proves where its threads and pages were. Measuring goes on until
    every cell is known to the target precision, or the budget is used up. The topics `memory` and `cores` stand for all
    benchmarks of theirs (numabench list).

    \b
    Examples:
      numabench run --profile quick
      numabench run --profile accept             on each of many machines, then numabench fleet
      numabench run memory
      numabench run padded_counters --set stride=8,64,128 --set spacing=200
      numabench run memory_latency --set size=16k,1M,256M --processes 10
      numabench run --resume results/host/20260101T120000Z.jsonl
    """
    from ..api import judge
    from ..benchmarks import TOPICS
    from ..host.machine import read_machine
    from ..measure.visit import Visit, log_path, open_resume
    from .console import Terminal
    from .progress import RunDisplay, print_given_up, print_plan, print_summary
    from .readiness import ensure_ready
    from .roots import opened_root

    if root != "/" and not plan_only:
        raise UsageError(f"a snapshot ({root}) can be planned for, not measured", "add --plan-only, or leave --root away")
    console = Terminal(stderr=form == "json", outlives_reader=not plan_only)
    request, state = resume_request(*open_resume(resume), **options) if resume else (make_request(**options), None)
    if state and state.complete and not options["budget"]:
        console.print(f"{resume} is complete: nothing is left to measure. Another visit: numabench run", soft_wrap=True)
        return 0
    with opened_root(root) as folder:
        visit = Visit(request, folder)
    if plan_only or not quiet:
        print_plan(console, visit)
    if plan_only:
        return 0
    if not anyway:
        ensure_ready(console, visit.topology, parse_seconds(patience) if patience else None)
    path = resume or log_path(output, read_machine(alias=request.alias).alias)
    with RunDisplay(console, visit.plan, quiet) as display:
        end = visit.measure(path, judge, display, resume=state)
    if end.status != "busy":
        print_summary(console, path, end)

    def ended(code: int, page: Path | None = None) -> int:
        if form == "json":
            failed = dict(display.failed_checks)
            facts = {name: getattr(end, name) for name in ("status", "cells", "measured", "elapsed")}
            write(Recorded(log=str(path), report=str(page) if page else None, exit_code=code, failed_checks=failed, **facts))
        return code

    for what, count in display.failed_checks.most_common(MOST_FAILURES):
        console.print(f"failed its check ({plural(count, 'sample')}): {what}", style="red", markup=False)
    if end.status == "interrupted":
        console.print(
            f"Interrupted; what was measured is kept. Go on with: {in_shell('numabench', 'run', '--resume', path)}",
            soft_wrap=True,
        )
        return ended(INTERRUPTED)
    if end.status == "busy":
        print_given_up(console, path, display)
        return ended(IMPRECISE)
    page = path.with_name("report.html") if with_report else None
    if lacking():
        console.print(
            f"What was measured is kept. To read it: {INSTALL}, then {in_shell('numabench', 'report', path)}", soft_wrap=True
        )
        page = None
    elif with_report or not (quiet or form == "json"):
        from ..runlog.read import load
        from .report import show_results

        named = [b.name for b in visit.benchmarks] if set(request.benchmarks) - {*TOPICS} else ()
        show_results(load(path), page, named=named, form="none" if form == "json" else "text")
    if display.failed_checks:
        return ended(REGRESSION, page)
    precise = end.cells["reached"] == end.cells["total"]
    return ended(IMPRECISE if require_precision and not precise else 0, page)


def resume_request(request, state, budget, target, **options):
    """The resumed log's own request with a new budget or target, if given; anything else would be another run."""
    import msgspec

    context = click.get_current_context()
    given = [n for n in options if context.get_parameter_source(n) is click.core.ParameterSource.COMMANDLINE]
    if given:
        raise UsageError(
            f"--resume goes on with what the log asked for; {', '.join(given)} cannot change",
            "leave it away, or start a run of its own",
        )
    wanted = make_request(benchmarks=(), budget=budget, target=target, window=None, settings=())
    changes = {"budget": wanted.budget} if budget else {}
    if context.get_parameter_source("target") is click.core.ParameterSource.COMMANDLINE:
        changes["target"] = wanted.target
    return msgspec.structs.replace(request, **changes), state


def make_request(benchmarks, budget, target, window, settings, **plain):
    """Options as text into a Request."""
    from ..measure.visit import Request

    try:
        share = float(target.rstrip("%")) / (100 if target.endswith("%") else 1)
    except ValueError as error:
        raise UsageError(f"{target!r} is not a precision", "write it as 2% or 0.02") from error
    return Request(
        benchmarks=benchmarks,
        settings=settings,
        target=share,
        budget=parse_seconds(budget) if budget else None,
        window=parse_seconds(window) if window else None,
        **plain,
    )
