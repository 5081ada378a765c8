"""`numabench export --format chrome-trace`: the form that viewers take, times that are those of the log, rows whose bars nest."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import numabench, write_log
from synthetic import make_log

from numabench.errors import UsageError
from numabench.model import Header, Sample, ThreadProof, TrialRecord
from numabench.runlog import timeline
from numabench.runlog.read import load
from numabench.runlog.timeline import DETAILS, MOST_BYTES, chrome_trace, placed

SAMPLE = Path(__file__).parent.parent / "results" / "sample" / "first.jsonl"
RUN = "r"


def thread(cpu: int, begin: float = 0.0, end: float = 0.01, **more) -> ThreadProof:
    return ThreadProof(cpu=cpu, cpu_begin=cpu, cpu_end=cpu, begin=begin, end=end, operations=7, **more)


def sample(*threads: ThreadProof, stride: int = 8, **more) -> Sample:
    return Sample(
        case=f"c{stride}", index=0, parameters={"stride": stride}, metrics={"latency": 5.0}, valid=True, threads=threads, **more
    )


def trial(
    *samples: Sample, started: str = "2026-01-01T00:00:00Z", duration: float = 0.1, process: int = 0, **more
) -> TrialRecord:
    more = {"session": RUN, "startup": 0.02, "run": RUN, **more}
    return TrialRecord(
        benchmark="toy", block="toy/0", process=process, started=started, duration=duration, status="ok", samples=samples, **more
    )


def log_of(*trials: TrialRecord, **headers: str):
    """A log of these trials; `headers`: session -> when its visit began."""
    base = make_log(processes=1, samples=1)
    begun = headers or {RUN: "2026-01-01T00:00:00Z"}
    made = [msgspec.structs.replace(base.headers[0], run=RUN, session=session, started=at) for session, at in begun.items()]
    return msgspec.structs.replace(base, headers=tuple(made), trials=trials)


def events(log, **options) -> list[dict]:
    return json.loads(chrome_trace(log, **options).content)["traceEvents"]


def bars(found: list[dict], kind: str) -> list[dict]:
    return [event for event in found if event["ph"] == "X" and event["cat"] == kind]


def assert_well_formed(found: list[dict]) -> None:
    """What Chrome's form asks of complete events, counters and names; and bars of a row nest as viewers add them up: each ends before the next begins, or inside what holds it."""
    names, rows = {}, {}
    for event in found:
        assert event["ph"] in ("X", "C", "M") and event["pid"] > 0 and event["tid"] > 0 and isinstance(event["name"], str)
        if event["ph"] == "M":
            names[event["name"], event["pid"], event["tid"]] = event["args"]
            continue
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, (int, float)) for value in event["args"].values()) and event["args"]
        else:
            assert event["dur"] >= 0
            rows.setdefault((event["pid"], event["tid"]), []).append(event)
    for (group, row), own in rows.items():
        assert names["thread_name", group, row]["name"] and names["process_name", group, group]["name"]
        open_ends: list[float] = []
        for event in sorted(own, key=lambda each: (each["ts"], -each["dur"])):
            end = event["ts"] + event["dur"]
            while open_ends and open_ends[-1] <= event["ts"]:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], (event, open_ends)
            open_ends.append(end)


@pytest.mark.parametrize("most", [MOST_BYTES, 2_600_000, 2_050_000])
def test_a_recorded_run_is_well_formed_and_whole(most):
    log = load(SAMPLE)
    found = events(log, most=most)
    assert_well_formed(found)
    samples = [each for each in log.trials for each in each.samples]
    assert len(bars(found, "cpu")) == sum(len({t.cpu for t in s.threads}) for s in samples)
    assert len([bar for bar in bars(found, "process") if bar["name"] != "start"]) == len(log.trials)
    named = {event["args"]["name"] for event in found if event["name"] == "thread_name"}
    assert {"processes", "CPU 0", "CPU 1"} <= named
    counters = {event["name"] for event in found if event["ph"] == "C"}
    assert {"clock", "hop", "run delay", "core width"} <= counters


def test_times_are_those_of_the_log():
    """100 ms, of which 20 go by until it begins and 2 x 10 in windows: the other 60 are dealt out in three equal parts."""
    log = log_of(trial(sample(thread(0)), sample(thread(0), thread(1, 0.002), stride=16), started="2026-01-01T00:00:05Z"))
    found = events(log)
    (process,) = [bar for bar in bars(found, "process") if bar["name"] == "toy/0, process 0"]
    assert (process["ts"], process["args"]["uncertain_ms"]) == (5.5e6, 500.0)  # some time in the sixth second
    first, second = bars(found, "sample")
    assert (first["ts"], second["ts"]) == (5.54e6, 5.57e6) and first["dur"] == pytest.approx(10e3, abs=0.01)
    assert [(bar["ts"], round(bar["dur"], 1)) for bar in bars(found, "cpu")] == [(5.54e6, 1e4), (5.57e6, 1e4), (5.572e6, 8e3)]
    assert [bar["args"]["cpu"] for bar in bars(found, "thread")] == [0, 0, 1]
    assert first["name"] == "stride=8" and first["args"]["latency"] == 5.0


def test_processes_narrow_each_other_down():
    """Ten of 0.3 s, three or four in each second: none begins where another still runs, and that tells their begins to 0.15 s."""
    begins = [0.05 + 0.3 * number for number in range(10)]
    trials = [trial(started=f"2026-01-01T00:00:{int(at):02d}Z", duration=0.3, process=number) for number, at in enumerate(begins)]
    origin = timeline.moment("2026-01-01T00:00:00Z")
    for (_, at, uncertain), true in zip(placed(trials, origin), begins, strict=True):
        assert abs(at - true * 1e9) <= uncertain + 1 and uncertain <= 0.15e9


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 5)), min_size=1, max_size=30), st.floats(0, 1))
def test_a_begin_is_as_exact_as_is_said(steps, offset):
    trials, true, at = [], [], offset
    for pause, length in steps:
        at += pause
        true.append(at)
        trials.append(trial(started=f"2026-01-01T00:{int(at) // 60:02d}:{int(at) % 60:02d}Z", duration=length))
        at += length
    last = 0
    for (one, begin, uncertain), when in zip(placed(trials, timeline.moment("2026-01-01T00:00:00Z")), true, strict=True):
        assert abs(begin - when * 1e9) <= uncertain + len(trials) and begin >= last
        last = begin + timeline.duration(one)


def test_a_clock_that_was_set_back_makes_no_bars_overlap():
    trials = [trial(sample(thread(0)), started=f"2026-01-01T00:00:{at}Z", duration=5.0) for at in ("40", "10", "20", "21")]
    assert_well_formed(events(log_of(*trials)))


def test_what_is_impossible_makes_no_bars_overlap():
    """Windows longer than their process, ends before begins, endless times."""
    odd = [
        sample(thread(0, 0.0, 3.0)),
        sample(thread(0, 0.5, 0.1)),
        sample(thread(0, -1.0, 1e40)),
        sample(thread(0, 0.0, float("nan"))),
    ]
    assert_well_formed(events(log_of(trial(*odd, duration=0.001), trial(*odd, duration=-1.0, startup=1e50))))


def test_threads_of_one_cpu_share_its_bar():
    found = events(log_of(trial(sample(thread(3, 0.0, 0.006), thread(3, 0.004, 0.01)))))
    assert_well_formed(found)
    (bar,) = bars(found, "cpu")
    assert round(bar["dur"]) == 10_000 and bar["args"] == {"threads": 2} and len(bars(found, "thread")) == 2


def test_cases_of_a_round_stand_beside_each_other():
    around = {"frequency": (3e9, 3.1e9), "width": (4.0, 4.0)}
    first, second = (sample(thread(cpu), thread(cpu + 1), stride=cpu, **around) for cpu in (0, 2))
    found = events(log_of(trial(first, second)))
    assert_well_formed(found)
    assert [bar["name"] for bar in bars(found, "sample")] == ["2 cases at once"]
    assert len({bar["ts"] for bar in bars(found, "cpu")}) == 1 and len({bar["tid"] for bar in bars(found, "thread")}) == 4
    with_hops = [msgspec.structs.replace(each, hop=(1e-8, 1e-8)) for each in (first, second)]
    assert len(bars(events(log_of(trial(*with_hops))), "sample")) == 2  # a hop is measured of what is alone


def test_counters_are_what_was_found_before_and_after():
    one = sample(
        thread(0, run_delay=2e-6),
        thread(1),
        frequency=(3e9, 3.5e9),
        hop=(27e-9, 28e-9),
        width=(4.0, 4.0),
        extra={"interrupt_ns": 14_000.0},
    )
    found = [event for event in events(log_of(trial(one, interference={"steal": 0.03}))) if event["ph"] == "C"]
    said = [(event["name"], event["args"]) for event in found]
    assert said == [
        ("steal", {"ms": 30.0}),
        ("clock", {"GHz": 3.0}),
        ("hop", {"ns": 27.0}),
        ("core width", {"per cycle": 4.0}),
        ("interrupt", {"us": 14.0}),
        ("run delay", {"us": 2.0}),
        ("clock", {"GHz": 3.5}),
        ("hop", {"ns": 28.0}),
        ("run delay", {"us": 0.0}),
    ]
    assert [event["ts"] for event in found] == sorted(event["ts"] for event in found)


def test_what_went_wrong_is_said():
    bad = msgspec.structs.replace(sample(thread(0)), valid=False, reasons=("run_delay", "gaps"))
    moved = msgspec.structs.replace(thread(0), cpu_end=1)
    found = events(log_of(trial(bad, sample(moved), reasons=("run_delay",))))
    assert (
        bars(found, "sample")[0]["args"]["invalid"] == "run_delay gaps"
        and bars(found, "process")[0]["args"]["reasons"] == "run_delay"
    )
    assert bars(found, "thread")[1]["args"] == {"cpu": 0, "operations": 7, "began_on": 0, "ended_on": 1}


def test_each_visit_begins_at_its_own_start():
    late = {"started": "2026-02-01T00:00:00Z", "session": "later"}
    log = log_of(
        trial(sample(thread(0))), trial(sample(thread(0)), **late), **{RUN: "2026-01-01T00:00:00Z", "later": late["started"]}
    )
    found = events(log)
    assert_well_formed(found)
    assert len({bar["pid"] for bar in bars(found, "cpu")}) == 2 and max(bar["ts"] for bar in bars(found, "cpu")) < 1e6


def test_a_large_run_says_what_is_left_out():
    log = load(SAMPLE)
    sizes = []
    for detail in DETAILS:
        made = chrome_trace(log, most=sizes[-1] - 1 if sizes else MOST_BYTES)
        assert made.left_out == ("" if detail == DETAILS[0] else detail)
        sizes.append(len(made.content))
    with pytest.raises(UsageError, match="--benchmark"):
        chrome_trace(log, most=sizes[-1] - 1)
    assert sizes == sorted(sizes, reverse=True)


def test_logs_without_times_are_one_line(tmp_path):
    path = write_log(make_log(processes=1, samples=1), tmp_path / "imported.jsonl")
    done = numabench("export", path, "--format", "chrome-trace")
    assert done.returncode == 2 and "hold no time" in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_the_command_writes_a_timeline(tmp_path):
    target = tmp_path / "run.json"
    done = numabench("export", SAMPLE, "--format", "chrome-trace", "-b", "fences", "-o", target)
    assert done.returncode == 0, done.stderr
    whole = json.loads(target.read_text())
    assert set(whole) == {"displayTimeUnit", "otherData", "traceEvents"} and "uncertain_ms" in whole["otherData"]["numabench"]
    assert {bar["args"]["benchmark"] for bar in bars(whole["traceEvents"], "process") if bar["name"] != "start"} == {"fences"}
    assert target.stat().st_size < MOST_BYTES


def test_headers_of_other_runs_do_not_matter():
    log = log_of(trial(sample(thread(0))))
    other = Header(schema=3, run="x", session="x", started="2020-01-01T00:00:00Z", numabench="0.1", machine={}, plan={})
    assert events(msgspec.structs.replace(log, headers=(other, *log.headers))) == events(log)
