"""What is said while something goes on: of a run, of a page that is rendered, and where a run is given up."""

from __future__ import annotations

import io
import math
from pathlib import Path

import msgspec
import pytest
from synthetic import latency, make_log

from numabench.cli.console import Terminal
from numabench.cli.progress import Rendering, RunDisplay, StatusLine, half_width, print_given_up
from numabench.measure.plan import Block
from numabench.report.page import render_report

LOG = make_log(processes=2, benchmarks=(latency,))


def terminal(**options) -> Terminal:
    return Terminal(file=io.StringIO(), force_terminal=True, width=80, **options)


def lines(console) -> list[str]:
    """Each text that the line had."""
    return [text for text in console.file.getvalue().split("\r\x1b[K") if text]


@pytest.fixture
def display():
    shown = RunDisplay(terminal(), plan=None, quiet=False)
    shown.described(LOG.benchmarks)
    return shown


def block() -> Block:
    return Block(name="toy_latency/0", benchmark="toy_latency", cases=())


def test_progress_names_what_the_card_names(display):
    """The last case of a process that is on the card, in its words and unit, as sure as it was at the last look."""
    trial = LOG.trials[0]
    memory = LOG.benchmarks[0].card.prices[-1].answer
    case = next(s.case for s in trial.samples if memory.where.items() <= s.parameters.items())
    alone = msgspec.structs.replace(trial, samples=tuple(s for s in trial.samples if s.case == case))
    display.finished(block(), alone, 120.0)
    display.looked({case: 0.031})
    display.finished(block(), alone, 60.0)
    display.looked({case: 0.004})
    display.finished(block(), alone, 30.0)
    before, sure, surer = lines(display.console)
    assert before.startswith(f"{memory.text} ") and " ns, 2 min 0 s left (0 % of samples disturbed)" in before
    assert " ns ±3 %, 60 s left" in sure and " ns ±0.4 %, 30 s left" in surer


def test_progress_has_an_interval_before_the_first_look(display):
    """From three processes on, by how far they are apart."""
    for trial in LOG.trials * 2:
        display.finished(block(), trial, 60.0)
    assert ["±" in line for line in lines(display.console)] == [False, False, True, True]
    assert half_width([1.0, 1.1, 0.9]) == pytest.approx(4.30 * 0.1008 / 3**0.5, rel=0.01) and half_width([1.0, 2.0]) == math.inf


def test_progress_of_what_is_not_on_the_card_has_the_title(display):
    record = msgspec.structs.replace(LOG.benchmarks[0], card=msgspec.structs.replace(LOG.benchmarks[0].card, prices=()))
    display.described((record,))
    display.finished(block(), LOG.trials[0], 1.5)
    display.finished(block(), msgspec.structs.replace(LOG.trials[0], samples=()), 1.0)
    assert [line.partition(",")[0].rstrip("0123456789. ns") for line in lines(display.console)] == [
        f"{record.title}:",
        f"{record.title}: no sample",
    ]


def test_progress_of_an_outcome_has_no_number(display):
    record = LOG.benchmarks[0]
    metrics = tuple(msgspec.structs.replace(metric, unit="1") for metric in record.metrics)
    card = msgspec.structs.replace(record.card, prices=())
    display.described((msgspec.structs.replace(record, metrics=metrics, card=card),))
    display.finished(block(), LOG.trials[0], 1.5)
    assert lines(display.console)[0].startswith(f"{record.title}, 1.5 s left")


def test_the_page_is_told_of_part_by_part():
    now, console = [0.0], terminal()
    with Rendering(console, lambda: now[0]) as line:
        line("the answers", 0, 0)
        now[0] = 3.0
        line("Memory", 0, 4)
        now[0] = 6.0
        line("Fences", 1, 4)
    assert lines(console) == [
        "rendering the page: reading what was measured",
        "rendering the page: the answers",
        "rendering the page: Memory (1 of 4)",
        "rendering the page, 9 s left: Fences (2 of 4)",
    ]
    heard = []
    render_report(LOG, tell=lambda *part: heard.append(part))
    before = [(what, 0, 0) for what in ("the samples", "the answers", "the tables")]
    assert heard == [*before, (LOG.benchmarks[0].title, 0, 1)]


def test_a_line_is_for_terminals_and_outlives_them():
    quiet = Terminal(file=io.StringIO(), force_terminal=False)
    with StatusLine(quiet) as line:
        line.write("nobody sees this")
    assert not quiet.file.getvalue()

    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "gone")

    with StatusLine(Terminal(file=Gone(), force_terminal=True)) as line:
        line.write("x")
    assert line.quiet


def test_a_run_that_is_given_up_says_so_in_three_lines(display, monkeypatch):
    monkeypatch.setattr("numabench.cli.progress.said", lambda sleep: "; busiest: cc1 98 %")
    display.samples, display.waited = 120, 110
    console = Terminal(file=io.StringIO(), width=80)
    print_given_up(console, Path("results/vm/log.jsonl"), display)
    what, kept, remedy = console.file.getvalue().splitlines()
    assert what == "Given up: in 92 % of 120 samples a thread had to wait for its CPU (busiest: cc1 98 %)."
    assert kept.startswith("Kept: results/vm/log.jsonl")
    assert "numabench run --resume results/vm/log.jsonl --wait 10m" in remedy
