"""The self-test on made-up visits, with and without a difference among them, and the command as a user types it."""

from __future__ import annotations

import json
import math
from functools import partial
from types import SimpleNamespace

import msgspec
import pytest
from click.testing import CliRunner
from synthetic import counters, latency, make_log, with_samples

from numabench.analysis.bands import Band
from numabench.analysis.selftest import EFFECTS, self_test, slower, smallest
from numabench.cli.selftest import command
from numabench.errors import UsageError
from numabench.measure.visit import Visit
from numabench.report.page import render_report
from numabench.runlog.read import load
from numabench.runlog.write import Journal


def visits(count=5, sd=0.004, processes=8, scale=lambda visit: 1.0):
    return [
        make_log(
            processes=processes,
            seed=visit,
            sd=(0.0, sd, sd / 2),
            benchmarks=(latency, counters),
            scale=partial(lambda factor, *_: factor, scale(visit)),
        )
        for visit in range(count)
    ]


def test_visits_that_are_alike_raise_no_alarm_and_show_what_would_be_found():
    found = self_test(visits())
    assert (found.visits, found.pairs) == (5, 10) and found.cells > 100
    assert found.claimed <= 0.01 and found.covered >= 0.95 and found.same > 0.9 and found.sound
    assert {each.benchmark for each in found.resolved} == {"toy_latency", "toy_counters"}
    assert all(
        1.02 < each.effect <= 1.08 for each in found.resolved
    )  # 1 % is assumed between visits: 3 to 5 % is what can be told
    assert 0 < found.settled <= 1


def test_a_visit_that_differs_is_an_alarm():
    found = self_test(visits(scale=lambda visit: 1.3 if visit == 2 else 1.0))
    assert found.claimed == pytest.approx(0.4, abs=0.05) and not found.sound  # four of ten pairs have it


def test_visits_that_were_too_short_are_said_to_be_so():
    with pytest.raises(UsageError, match="too short.*--budget"):
        self_test(visits(3, processes=1))
    found = self_test([*visits(3), *visits(1, processes=1)])  # one that was cut short: its pairs judge nothing
    assert found.pairs == 6 and found.cells == self_test(visits(3)).cells and found.claimed == 0


def test_what_varies_more_resolves_less():
    calm, wild = (self_test(visits(sd=sd)) for sd in (0.004, 0.08))
    least = [min(each.effect or math.inf for each in found.resolved) for found in (calm, wild)]
    assert least[0] < least[1]


@pytest.mark.parametrize(
    ("found", "effect"),
    [
        ((0, 0, 0, 0, 0, 0, 0, 0), None),
        ((0, 0, 0, 0, 0, 0, 0, 10), 1.5),
        ((0, 0, 9, 10, 9, 10, 10, 10), 1.05),
        ((10, 0, 9, 10, 8, 10, 10, 10), 1.2),  # one that is found by luck is not resolved while a larger one is missed
    ],
)
def test_the_smallest_effect_is_one_from_which_on_all_are_found(found, effect):
    assert smallest({e: (hits, 10) for e, hits in zip(EFFECTS, found, strict=True)}) == effect


def test_slower_is_slower_in_both_directions():
    log = make_log(processes=2, samples=1, benchmarks=(counters,))
    metrics = {m.name: m.polarity for m in log.benchmarks[0].metrics}
    for before, after in zip(log.trials[0].samples, slower(log, 1.25).trials[0].samples, strict=True):
        for name, polarity in metrics.items():
            times = {"lower": 1.25, "higher": 0.8}.get(polarity, 1.0)
            assert after.metrics[name] == pytest.approx(before.metrics[name] * times)


@pytest.mark.parametrize(("value", "verdict"), [(1.0, "holds"), (2.0, "BROKEN"), (None, "not measured")])
def test_a_band_holds_is_broken_or_was_not_measured(value, verdict):
    assert Band(name="", value=value, low=0.9, high=1.1).verdict == verdict


@pytest.mark.parametrize(("odd", "status", "code"), [(1.0, "budget", 0), (1.3, "budget", 1), (1.0, "busy", 5)])
def test_the_command_measures_compares_and_keeps_what_it_found(tmp_path, monkeypatch, odd, status, code):
    made = iter(visits(3, scale=lambda visit: odd if visit == 1 else 1.0))

    def measure(self, path, judge, progress):
        with Journal(path) as journal:
            log = with_samples(next(made), lambda sample, process: sample)
            for record in (*log.headers, *log.benchmarks, *log.trials, *log.ends):
                journal.append(record)
        return SimpleNamespace(status=status)

    monkeypatch.setattr(Visit, "measure", measure)
    options = ["fences", "--visits", "3", "--budget", "9s", "-o", str(tmp_path)]
    result = CliRunner().invoke(command, options)
    assert result.exit_code == code, result.output
    kept = list(tmp_path.rglob("selftest.json"))
    if code == 5:
        assert "other programs have the CPUs" in result.output and not kept
        return
    assert "called faster or slower" in result.output and "toy_latency" in result.output
    told = json.loads(kept[0].read_text())
    assert told["visits"] == 3 and told["pairs"] == 3 and (told["claimed"] > 0.05) == (code == 1)
    assert len(list(tmp_path.rglob("visit-*.jsonl"))) == 3
    runs = tmp_path / "toy"
    runs.mkdir()
    (runs / "run.jsonl").write_bytes(next(tmp_path.rglob("visit-1.jsonl")).read_bytes())
    kept[0].parent.parent.rename(tmp_path / "selftest" / "toy")  # this machine's, as if it were that of the log
    page = render_report(load(runs))
    assert "Self-test" in page and "called faster or slower" in page and ("doubt this machine" in page) == (code == 1)
    (tmp_path / "selftest" / "toy" / kept[0].parent.name / "selftest.json").write_text("{")
    assert "Self-test" not in render_report(load(runs))


def test_json_is_all_that_standard_output_gets(tmp_path, monkeypatch, capsys):
    made = iter(visits(3))

    def measure(self, path, judge, progress):
        with Journal(path) as journal:
            log = next(made)
            for record in (*log.headers, *log.benchmarks, *log.trials, *log.ends):
                journal.append(record)
        return SimpleNamespace(status="budget")

    monkeypatch.setattr(Visit, "measure", measure)
    code = command.main(["--visits", "3", "--format", "json", "-o", str(tmp_path)], standalone_mode=False)
    assert not code and msgspec.json.decode(capsys.readouterr().out)["visits"] == 3
