"""`numabench bill`: what a program does that runtimes silently pay for, times what that costs on this machine."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import INTERRUPTED, IncomparableError, UsageError
from ..text import in_shell, printable
from ..units import format_bytes, format_cpus, format_quantity, format_seconds, parse_seconds, plural
from . import say
from .logs import named_or_own, read_visits
from .outputs import as_json, json_option

if TYPE_CHECKING:
    from ..bill.bill import Bill, Line
    from ..bill.counts import Ledger
    from ..bill.prices import Span, Tariff
    from ..bill.transfers import Tally
    from ..host.perf import Counting
    from ..host.state import State
    from ..host.watch import Watched
    from ..runlog.read import RunLog
    from .console import Terminal

EPILOG = """\b
Examples:
  numabench run runtime --profile quick              first: the prices of this machine
  numabench bill -- python3 server.py                until it ends, or Ctrl-C ends it
  numabench bill --pid 4711 --for 10s                what runs already
  numabench bill --transfers -- ./server             how bytes reach sockets and pipes, too (strace)
  numabench bill --no-prices -- make                 the counts alone
The command has this terminal, its streams and its signals, and numabench ends with its exit code (128 and the signal's number where one ended it). The bill goes to standard
error, of a process that runs already to standard output."""

WORTH_A_REMEDY = 0.01  # share of a line from which on what to do is printed: below nothing is gained
LINGERS = 1.0  # s after the end of the command until what it left running is named
MOST_PATHS = 8  # of transfers that are printed
LEAST_SHARE = 0.001  # that is printed as a figure
LONGEST_COMMAND = 120  # signs
SIGNS = {"exact": "", "at least": "≥ ", "at most": "≤ "}
TITLES = {"cpu": "CPU time", "wait": "Waits, of wall clock times threads", "bound": "At most, in no sum"}


@click.command(
    "bill",
    epilog=EPILOG,
    short_help="What a program pays for silently, by this machine's prices.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND]...")
@click.option("--pid", type=click.IntRange(1), metavar="PID", help="Watch this process and what it starts, instead of a command.")
@click.option("--for", "duration", metavar="TIME", help="With --pid: for so long, such as 10s; else until it ends or Ctrl-C.")
@click.option("--transfers", is_flag=True, help="Tell transfers by their path (strace; of a command alone, which it slows down).")
@click.option("--hardware", is_flag=True, help="Count all system calls and shoot-downs, too (perf; as root).")
@click.option(
    "--prices",
    "paths",
    multiple=True,
    type=click.Path(path_type=str),
    metavar="LOG|FOLDER",
    help="Prices from these logs. Repeatable. [default: this machine's]",
)
@click.option("--any-prices", is_flag=True, help="Also prices of another machine, kernel, microcode or other mitigations.")
@click.option("--no-prices", is_flag=True, help="Counts alone.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the bill there.")
@json_option
def command(
    program: tuple[str, ...],
    pid: int | None,
    duration: str | None,
    transfers: bool,
    hardware: bool,
    paths: tuple[str, ...],
    any_prices: bool,
    no_prices: bool,
    output: Path | None,
    form: str,
) -> int:
    """Count what a program does that runtimes silently pay for, and multiply each count by what it costs on this machine.

    Counts are the kernel's own (switches, faults, migrations, calls, waits for a CPU), read once a second and without root; prices come from the last
    visits to this machine that measured the topic `runtime`.
    """
    from ..bill.bill import make_bill, not_seen
    from ..bill.counts import Ledger
    from ..bill.prices import prices
    from ..bill.transfers import Tally
    from ..host.perf import counting, offers_counters
    from ..host.watch import watch_process

    if bool(program) == (pid is not None):
        raise UsageError("name a command, or a process with --pid", "numabench bill -- COMMAND, or numabench bill --pid PID")
    if duration and pid is None:
        raise UsageError("--for goes with --pid: a command is watched until it ends", "leave --for away")
    if transfers and pid is not None:
        raise UsageError("--transfers goes with a command, which strace has to begin", "numabench bill --transfers -- COMMAND")
    if transfers and hardware:
        raise UsageError(
            "--transfers and --hardware are for two runs: who traces makes system calls of its own", "leave one of them away"
        )
    if output and not output.parent.is_dir():
        raise UsageError(f"there is no folder {printable(str(output.parent))}", "choose another file with --output")
    seconds = parse_seconds(duration) if duration else None
    found = None if no_prices else find_prices(paths, any_prices)
    ledger, tally = Ledger(whole=pid is None), Tally() if transfers else None
    with ExitStack() as opened:
        count = opened.enter_context(counting()) if hardware else None
        if pid is None:
            watched = watch(program, ledger, tally, count, opened)
        else:
            watched = watch_process(pid, seconds, ledger.take, count.start if count else None)
        events = count.finish() if count else None
    bill = make_bill(
        ledger.counts(watched, events),
        prices(found[0]) if found else {},
        tally,
        watched.state,
        found[1] if found else None,
        command=program,
        process=pid,
        code=watched.code,
        watching=watched.spent,
        not_seen=not_seen(offers_counters(), transfers, hardware),
    )
    deliver(bill, form, output, to_errors=pid is None)
    if watched.code is not None:
        return watched.code
    return INTERRUPTED if watched.interrupted and seconds else 0


def find_prices(paths: tuple[str, ...], any_prices: bool) -> tuple[RunLog, Tariff]:
    """Before the program begins: without prices it would run in vain."""
    from ..bill.prices import MEASURE, applicable
    from ..extras import need_report
    from ..host.machine import read_machine

    need_report()
    here = read_machine(facts=False)
    try:
        paths = named_or_own(paths)
    except UsageError as error:
        raise IncomparableError(error.message, MEASURE) from error
    return applicable(read_visits(paths, False, ()), here.id, here.configuration, any_prices)


def watch(program: tuple[str, ...], ledger: Ledger, tally: Tally | None, count: Counting | None, opened: ExitStack) -> Watched:
    from ..bill.transfers import strace_command
    from ..host.tracing import traced, usable_strace
    from ..host.watch import watch_command

    if (tally or count) and shutil.which(program[0]) is None:  # else another program would say so in words of its own
        raise UsageError(f"{program[0]!r} cannot be started: No such file or directory", "name a program, as in a shell")
    if tally is None:
        return watch_command(program, ledger.take, count.start if count else None)
    strace = usable_strace(strace_command)
    trace = opened.enter_context(traced(tally.add))
    watched = watch_command([*strace_command(strace, trace.path), *program], ledger.take)
    if not trace.finish(LINGERS):
        say("waiting for what the command left running, which strace follows (without it their transfers would fail)", err=True)
        trace.finish()
    return watched


def deliver(bill: Bill, form: str, output: Path | None, to_errors: bool) -> None:
    from .console import Terminal
    from .export import write_text

    if form == "json":
        text = as_json(bill)
        if output or not to_errors:
            write_text(text, output)
        else:
            say(text, nl=False, err=True)
        return
    if output:
        import io

        page = io.StringIO()
        console = Terminal(file=page, width=100, no_color=True, force_terminal=False)
        show(console, bill)
        write_text(page.getvalue(), output)
        return
    show(Terminal(stderr=to_errors, outlives_reader=True), bill)


def show(console: Terminal, bill: Bill) -> None:
    """Lines by kind, dearest first, each with its count and price; what to do about those that matter; what is not on the bill."""
    from textwrap import shorten

    from rich.padding import Padding
    from rich.table import Table

    whose = in_shell(*bill.command) if bill.command else f"process {bill.process}"
    console.print(f"Bill of {shorten(whose, LONGEST_COMMAND)}", style="bold")
    for text in head(bill):
        console.print(text)
    for kind, title in TITLES.items():
        lines = sorted(
            (line for line in bill.lines if line.kind == kind), key=lambda line: -(line.total.value if line.total else 0.0)
        )
        if not lines:
            continue
        console.print(f"\n{title}", style="bold")
        table = Table(box=None, pad_edge=False, show_header=False)
        for justify in ("right", "right", "right", "left"):
            table.add_column(justify=justify, no_wrap=justify == "right")
        for line in lines:
            table.add_row(amount(line.total), share_text(line.share), count_text(line), line.what)
        if kind == "cpu" and bill.cpu and sum(line.total is not None for line in lines) > 1:
            used = bill.counts.cpu
            table.add_row(
                amount(bill.cpu),
                share_text(bill.cpu.value / used),
                "",
                f"together ({interval(bill.cpu)}), of {format_seconds(used)}",
            )
        console.print(table)
    for line in bill.lines:
        if line.remedy and line.total and line.share is not None and line.share >= WORTH_A_REMEDY:
            console.print(f"\n{line.what[0].upper()}{line.what[1:]}: {amount(line.total)}", style="bold")
            for text in explained(line):
                console.print(Padding(text, (0, 0, 0, 2)))
    console.print()
    for text in foot(bill):
        console.print(text)


def explained(line: Line) -> Iterator[str]:
    """What a line is made of, and what to do about it."""
    if line.price and line.total:
        yield f"price {format_quantity(line.price.value, 'ns')} ({interval(line.price, 1.0)}): {line.of}; total {interval(line.total)}"
    if line.note:
        yield line.note
    yield f"remedy: {line.remedy}"
    yield f"proof: {line.experiment}"


def head(bill: Bill) -> Iterator[str]:
    counts = bill.counts
    ended = f", ended with {bill.code}" if bill.code is not None else ""
    yield f"{format_seconds(counts.wall)} of wall clock, {format_seconds(counts.cpu)} of CPU time, up to {plural(counts.threads, 'thread')} seen at once, allowed on CPUs {format_cpus(counts.cpus)}{ended}"
    if bill.tariff:
        runs = f"{'run' if len(bill.tariff.runs) == 1 else 'runs'} {', '.join(bill.tariff.runs)}"
        yield f"Prices: {printable(bill.tariff.machine)}, {runs}, {bill.tariff.measured[:10]}"
        for name, text in bill.tariff.differs.items():
            yield f"Prices are those of another {name}: {printable(text)}"
    else:
        yield "No prices: counts alone."
    if any(line.how == "at least" for line in bill.lines):
        yield f"≥: of threads that were seen, which spent {counts.seen:.0%} of the CPU time. ≤: other programs cause some of them."
    yield from bill.verdict


def foot(bill: Bill) -> Iterator[str]:
    for line in bill.lines:
        if line.count and not line.price and line.of:
            yield f"No price of {line.what}: {line.of}"
    yield f"Not priced: {plural(bill.unpriced['major_faults'], 'fault')} that waited for a disk"
    if bill.state:
        yield f"The largest process ({bill.state.process}): {'; '.join(state_texts(bill.state, bill.pages))}"
    if bill.transfers is not None:
        took = f", some {format_seconds(bill.tracing)} of the wall clock" if bill.tracing is not None else ""
        yield f"Traced calls, each of which stopped the program twice: {bill.traced:,}{took}. Switches and moves are not on this bill: the tracer causes them, too."
        for moved in bill.transfers[:MOST_PATHS]:
            yield f"  {moved.path}, {moved.source} to {moved.target}: {moved.calls:,} of together {format_bytes(moved.bytes)}"
    yield f"Watching took {format_seconds(bill.watching)} of CPU time."
    for text in bill.not_seen:
        yield f"Not seen: {text}"


def state_texts(state: State, pages: dict[str, Span]) -> Iterator[str]:
    shares = [
        f"node {node} {100 * span.value:.0f} % ({100 * span.low:.0f}–{100 * span.high:.0f} %)" for node, span in pages.items()
    ]
    yield f"pages by node, by a sample: {', '.join(shares) or 'not told'}"
    if state.huge is not None and state.resident:
        yield f"{min(1.0, state.huge / state.resident):.0%} of {format_bytes(state.resident)} in huge pages"
    if state.filters:
        yield f"each system call passes {plural(state.filters, 'seccomp filter')}"
    if state.slack_ns is not None:
        yield f"timer slack {format_quantity(state.slack_ns, 'ns')}"
    if state.scheduling:
        yield f"scheduling class {state.scheduling}"


def amount(span: Span | None) -> str:
    """Of seconds; nothing where there is none."""
    return "" if span is None else format_quantity(span.value * 1e9, "ns")


def interval(span: Span, in_ns: float = 1e9) -> str:
    """`11.2 ms–14.0 ms`; how many ns one of its unit is, `in_ns`, says what unit it has."""
    if not (math.isfinite(span.low) and math.isfinite(span.high)):
        return "no interval"
    return "–".join(format_quantity(end * in_ns, "ns") for end in (span.low, span.high))


def share_text(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %" if share >= LEAST_SHARE else f"<{100 * LEAST_SHARE:.1f} %"


def count_text(line: Line) -> str:
    """`≥ 1,203 × 28.0 µs`."""
    if line.count is None:
        return "measured"
    price = format_quantity(line.price.value, "ns") if line.price else "no price"
    return f"{SIGNS[line.how]}{line.count:,} × {price}"
