"""Bands of physics on made-up runs: prices of an interrupt that agree, one that does not, and what nobody can tell."""

from __future__ import annotations

import random

import msgspec
import pytest
from synthetic import latency, make_log

from numabench.analysis.bands import BROKEN, CALLS, HOLDS, NOT_MEASURED, OPEN, Band, interrupt_bands, on_a_page
from numabench.cli.report import print_bands
from numabench.model import Sample, TrialRecord
from numabench.report.page import render_report
from numabench.runlog.read import RunLog

SENTINEL, ALONE = 2500.0, 900.0  # ns
SIGNAL, MEMBARRIER = "signal", "membarrier"


def visit(price=lambda name: 1.0, alone=lambda name: ALONE, processes=12, sd=0.02, sentinel=lambda process: SENTINEL, valid=True):
    """A run in which a thread that runs adds `price` times the sentinel's time to each call. Pages: both cases in one process; others: in processes of their own."""
    log, rng = make_log(processes=1, samples=1, benchmarks=(latency,)), random.Random(1)
    trials = []

    def trial(benchmark: str, block: str, process: int, samples: list[Sample]) -> None:
        trials.append(
            TrialRecord(
                run=log.headers[0].run, session="s", benchmark=benchmark, block=block, process=process, started="", duration=1.0,
                startup=0.1, status="ok", samples=tuple(samples),
            )
        )  # fmt: skip

    def sample(call, where, value, extra) -> Sample:
        placement = {} if "placement" in where else {"placement": "l3"}
        return Sample(
            case=call.name, index=0, parameters={**where, **placement}, metrics={call.metric: value}, valid=valid, extra=extra
        )

    for call in (*CALLS, *(on_a_page("munmap", who) for who in ("sleeping", "process"))):
        name = call.runs.get("bystander", call.name) if call.name == "munmap" else call.name
        for process in range(processes):
            own, beside = alone(name) * rng.gauss(1, sd), sentinel(process)
            quiet = sample(call, call.alone, own, {})
            runs = sample(call, call.runs, own + price(name) * beside * rng.gauss(1, sd), {"interrupt_ns": beside})
            if call.benchmark == "address_space":
                trial(call.benchmark, name, process, [quiet, runs])
            else:
                trial(call.benchmark, f"{name} alone", process, [quiet])
                trial(call.benchmark, name, process, [runs])
    return msgspec.structs.replace(log, trials=(*log.trials, *trials))


def prices(name: str, others: float = 1.0, of=None):
    """One call has a price of its own; who sleeps and who is elsewhere adds nothing."""
    of = of or {}
    return lambda each: of.get(each, {"sleeping": 0.0, "process": 0.0}.get(each, others)) if each != name else of[name]


def found(log: RunLog) -> dict[str, Band]:
    ((machine, bands),) = interrupt_bands(log).items()
    assert machine == "id-toy"
    return {band.name: band for band in bands}


def verdicts(log: RunLog) -> dict[str, str]:
    return {name: band.verdict for name, band in found(log).items()}


AGREE = "largest price of an interrupt / least"


def test_prices_that_agree_hold_whatever_the_machine_does_meanwhile():
    log = visit(prices(""), sentinel=lambda process: SENTINEL * (1 + process % 3))  # other machines, by what an interrupt takes
    bands = found(log)
    assert set(verdicts(log).values()) == {HOLDS}
    assert len(bands) == len(CALLS) + 1 + 2
    assert bands["interrupt of mprotect / sentinel"].value == pytest.approx(1.0, abs=0.05)
    assert bands["another process adds to munmap / sentinel"].value == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("name", ["mprotect", "dontneed", MEMBARRIER, SIGNAL])
@pytest.mark.parametrize("factor", [0.5, 1.7])
def test_one_that_does_not_is_a_contradiction(name, factor):
    said = verdicts(visit(prices(name, of={name: factor})))
    assert [band for band, verdict in said.items() if verdict == BROKEN] == [f"interrupt of {name} / sentinel", AGREE]


def test_all_may_agree_with_each_other_and_not_with_the_sentinel():
    said = verdicts(visit(prices("", others=1.6)))
    assert said[AGREE] == HOLDS and [v for k, v in said.items() if k.startswith("interrupt of")] == [BROKEN] * len(CALLS)


@pytest.mark.parametrize("who", ["sleeping", "process"])
def test_who_is_not_interrupted_adds_nothing(who):
    said = verdicts(visit(prices(who, of={who: 0.9})))
    assert [verdict for name, verdict in said.items() if name.endswith("adds to munmap / sentinel")].count(BROKEN) == 1


def test_what_the_intervals_leave_open_is_no_contradiction():
    said = verdicts(visit(prices("dontneed", of={"dontneed": 1.25}), sd=0.15))
    assert said["interrupt of dontneed / sentinel"] == OPEN
    few = verdicts(visit(prices("dontneed", of={"dontneed": 3.0}), processes=5))  # no interval of so few
    assert set(few.values()) == {OPEN}


def test_what_was_not_measured_or_was_disturbed_has_no_band():
    assert interrupt_bands(make_log(benchmarks=(latency,))) == {}
    assert interrupt_bands(visit(prices(""), valid=False)) == {}
    log = visit(prices(""))
    less = tuple(t for t in log.trials if t.block != f"{SIGNAL} alone")  # and nothing that it could be held against
    bands = found(msgspec.structs.replace(log, trials=less))
    assert f"interrupt of {SIGNAL} / sentinel" not in bands and bands[AGREE].verdict == HOLDS
    only = tuple(t for t in log.trials if MEMBARRIER in t.block)
    assert AGREE not in found(msgspec.structs.replace(log, trials=only)), "one alone agrees with nobody"


@pytest.mark.parametrize(("reasons", "counts"), [(("frequency_changed",), True), (("frequency_changed", "run_delay"), False)])
def test_a_clock_that_changed_did_so_for_both_sides(reasons, counts):
    log = visit(prices(""), valid=False)
    trials = tuple(
        msgspec.structs.replace(t, samples=tuple(msgspec.structs.replace(s, reasons=reasons) for s in t.samples))
        for t in log.trials
    )
    assert bool(interrupt_bands(msgspec.structs.replace(log, trials=trials))) == counts


def test_who_shares_a_cpu_does_not_run_meanwhile():
    log = visit(prices(""))

    def crowded(sample: Sample) -> Sample:
        shared = sample.parameters.get("target") == "other_running"
        return msgspec.structs.replace(sample, parameters={**sample.parameters, "placement": "same_cpu"}) if shared else sample

    trials = tuple(msgspec.structs.replace(t, samples=tuple(map(crowded, t.samples))) for t in log.trials)
    assert f"interrupt of {SIGNAL} / sentinel" not in found(msgspec.structs.replace(log, trials=trials))


def test_an_interval_decides_a_band_that_has_one():
    for interval, verdict in (((0.8, 1.2), HOLDS), ((0.7, 1.2), OPEN), ((1.3, 1.5), BROKEN), ((float("nan"),) * 2, OPEN)):
        assert Band(name="", value=1.0, low=0.75, high=1.25, interval=interval).verdict == verdict
    assert Band(name="", value=None, low=0.75, interval=(2.0, 3.0)).verdict == NOT_MEASURED


def test_the_page_and_the_console_say_so(monkeypatch, capsys):
    for log, contradicts in ((visit(prices("")), False), (visit(prices(SIGNAL, of={SIGNAL: 2.0})), True)):
        page = render_report(log)
        assert "interrupt of signal / sentinel" in page and ("A contradiction" in page) == contradicts
        print_bands(log)
        said = capsys.readouterr().out
        assert said.count("interrupt of") == len(CALLS) and (BROKEN in said) == contradicts
    plain = make_log(benchmarks=(latency,))
    print_bands(plain)
    assert capsys.readouterr().out == "" and "Prices that must agree" not in render_report(plain)
