"""Rounds: whatever samples are packed, the same come back, in a form that is short."""

from __future__ import annotations

import json
import random
import string

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from synthetic import make_log
from test_runlog import write

from numabench.contract.forms import present
from numabench.errors import LogError
from numabench.model import (
    Axis,
    BenchmarkRecord,
    Header,
    MemoryProof,
    Metric,
    Sample,
    ThreadProof,
    TrialRecord,
    case_hash,
    together,
)
from numabench.runlog.read import load, read_log
from numabench.runlog.rounds import LEAST, MANY, pack_trial, unpack_trial
from numabench.runlog.write import Journal

times = st.one_of(st.integers(0, 10**10).map(lambda ns: ns * 1e-9), st.floats(0, 100), st.just(0.0))
numbers = st.one_of(st.integers(0, 3), st.integers(0, 2**53))
floats = st.one_of(  # one zero
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0), st.integers(-(10**6), 10**6).map(lambda n: n / 100)
)
values = st.one_of(st.integers(-5, 600), floats, st.sampled_from(("cas", "far", "")), st.just(1))
names = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=3), unique=True, max_size=3)
around = st.one_of(st.none(), st.tuples(times, times))


@st.composite
def alike(draw) -> list[Sample]:
    """Samples of one shape out of a few values, some of them the same in all, with what follows from others and without."""
    shared = {"index": draw(st.integers(0, 2)), "hop": draw(around), "frequency": draw(around), "width": draw(around)}
    called = {kind: draw(names) for kind in ("parameters", "metrics", "extra")}
    some = {
        kind: draw(st.lists(each, min_size=1, max_size=4))
        for kind, each in (("time", times), ("number", numbers), ("value", values), ("float", floats))
    }
    count, chance = draw(st.integers(0, 3)), random.Random(draw(st.integers(0, 2**32)))

    def any_of(kind: str):
        return chance.choice(some[kind])

    def thread() -> ThreadProof:
        given = {name: any_of("time") for name in ("begin", "end", "run_delay", "gap_time")}
        given |= {name: any_of("number") for name in ("cpu", "cpu_begin", "cpu_end", "operations", "switches")}
        return ThreadProof(**given, faults=chance.choice((0, 0, 0, 1)))

    def proof() -> MemoryProof:
        return MemoryProof(
            bytes=any_of("number"),
            page_size="4k",
            node=chance.choice((None, 0, 1)),
            pages={"0": any_of("number")},
            huge_bytes=0,
            page_bytes=4096,
        )

    samples = []
    for _ in range(draw(st.one_of(st.integers(1, 20), st.integers(MANY, MANY + 3)))):
        held = {kind: {name: any_of("value" if kind == "parameters" else "float") for name in called[kind]} for kind in called}
        proven = tuple(thread() for _ in range(count))
        follows = chance.random() < 0.5 and max((t.end for t in proven), default=0.0) > 0
        samples.append(
            Sample(
                case=case_hash("b", held["parameters"]) if follows else chance.choice("abc"),
                valid=chance.random() < 0.5,
                reasons=chance.choice(((), (), ("gaps",), ("gaps", "overlap"))),
                threads=proven,
                memory=chance.choice((None, proof(), proof())),
                overlap=together([t.end for t in proven], [t.begin for t in proven]) if follows else any_of("time"),
                start_skew=max(t.begin for t in proven) if follows else any_of("time"),
                **shared,
                **held,
            )
        )
    return samples


def trial_of(samples) -> TrialRecord:
    return TrialRecord(
        run="r", session="s", benchmark="b", block="b/0", process=0, started="2026-01-01T00:00:00Z", duration=1.0, startup=0.1,
        status="ok", samples=tuple(samples),
    )  # fmt: skip


def written(trial: TrialRecord) -> TrialRecord:
    """As a reader has it before it expands anything."""
    return msgspec.json.decode(msgspec.json.encode(pack_trial(trial)), type=TrialRecord)


@settings(deadline=None)
@given(st.lists(alike(), max_size=3))
def test_what_is_packed_is_expanded_to_the_same(groups):
    trial = trial_of(sample for group in groups for sample in group)
    again = unpack_trial(written(trial))
    assert again == trial and repr(again) == repr(trial)  # a number of another type is equal, and not the same


def pairs(count: int, seed: int = 0) -> list[Sample]:
    """A round as `core_to_core` finds it among 512 CPUs."""
    samples = []
    for k in range(count):
        a, b = (7 * k + seed) % 512, (7 * k + 3 * seed + 255) % 512
        parameters = {"cpu_a": a, "cpu_b": b, "operation": "cas", "home": a // 64, "company": 256}
        ns = 27 + (k * 37 % 2000) / 10
        operations = min(8, int(5e6 / (16 * 400 * ns)) + 1) * 6400
        skew = k * 7919 % 97
        ends = [round(operations * ns) + skew, round(operations * ns) + k * 31 % 400]
        ways = [
            ThreadProof(cpu=cpu, cpu_begin=cpu, cpu_end=cpu, begin=begin * 1e-9, end=end * 1e-9, operations=operations)
            for cpu, begin, end in zip((a, b), (skew, 0), ends, strict=True)
        ]
        samples.append(
            Sample(
                case=case_hash("b", parameters),
                index=0,
                parameters=parameters,
                metrics={
                    "latency": round(ns, 2),
                    "latency_p50": round(ns * 1.01, 2),
                    "latency_p99": round(ns * 1.2, 2),
                    "line_spread": 3.25,
                },
                valid=k % 100 != 0,
                reasons=("gaps",) if k % 100 == 0 else (),
                threads=tuple(ways),
                memory=MemoryProof(
                    bytes=4096, page_size="4k", node=a // 64, pages={str(a // 64): 1}, huge_bytes=0, page_bytes=4096
                ),
                overlap=together([t.end for t in ways], [t.begin for t in ways]),
                start_skew=max(t.begin for t in ways),
                frequency=(3.1e9, 3.2e9),
                width=(4.5, 4.4),
            )
        )
    return samples


def test_a_pair_of_a_round_takes_some_forty_bytes():
    """100 MB for eight processes of the 245,509 pairs of 512 CPUs would be 50."""
    trial = trial_of(pairs(256))
    size = len(msgspec.json.encode(pack_trial(trial))) / 256
    assert size < 42 < 600 < len(msgspec.json.encode(trial)) / 256
    assert unpack_trial(written(trial)) == trial


def test_samples_between_rounds_keep_their_place():
    lone = [s for n in (3, 5) for s in pairs(LEAST - 1, n)]
    trial = trial_of([lone[0], *pairs(8), *lone[1:3], *[msgspec.structs.replace(s, index=1) for s in pairs(9)], lone[3]])
    packed = pack_trial(trial)
    assert [(r.before, r.count) for r in packed.rounds] == [(0, 11), (11, 9)]
    assert packed.samples == (lone[3],)
    assert unpack_trial(packed) == trial and packed.rounds and unpack_trial(trial) == trial


@pytest.fixture
def log_of_rounds(tmp_path):
    """Three trials of a benchmark `b` behind the records of an ordinary log."""
    path, log = write(tmp_path / "one.jsonl", make_log(processes=3)), make_log("other")
    metrics = tuple(Metric(name=name, unit="ns", polarity="lower") for name in pairs(1)[0].metrics)
    axes = tuple(Axis(name=name, summary="", values=(value,)) for name, value in pairs(1)[0].parameters.items())
    with Journal(path) as journal:
        journal.append(msgspec.structs.replace(log.headers[0], run="r"))
        journal.append(
            BenchmarkRecord(run="r", name="b", title="B", question="?", axes=axes, metrics=metrics, method={"lines": 16})
        )
        for seed in range(3):
            journal.append(msgspec.structs.replace(trial_of(pairs(40, seed)), process=seed))
    return path


def test_a_log_of_rounds_is_read_cut_and_counted_once(log_of_rounds, tmp_path):
    path = log_of_rounds
    lines = path.read_bytes().splitlines()
    validator = Draft202012Validator(present())
    for line in lines:
        validator.validate(json.loads(line))
    assert sum(b'"rounds"' in line for line in lines) == 3 and b'"samples"' not in lines[-1]
    assert [len(t.samples) for t in load(path).trials[-3:]] == [40] * 3 and isinstance(read_log(path)[0], Header)
    assert list(load(path).trials[-1].samples) == pairs(40, 2)
    (tmp_path / "copy.jsonl").write_bytes(path.read_bytes())
    assert load(tmp_path).trials == load(path).trials
    path.write_bytes(path.read_bytes()[:-500])
    log = load(path)
    assert len(log.trials) == 11 and any("cut off" in warning for warning in log.warnings)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b'"count":40', b'"count":4000000000'),
        (b'"count":40', b'"count":41'),
        (b'"count":40', b'"count":-1'),
        (b'"digits":"', b'"digits":"!'),
        (b'"digits":"', b'"digits":"0'),
        (b'"parts":100', b'"parts":0'),
        (b'"threads":2', b'"threads":3'),
        (b'"than":"threads.0.cpu"', b'"than":"threads.7.cpu"'),
        (b'"parameters":["cpu_a",', b'"parameters":["cpu_x",'),
        (b'"threads.1.begin":0.0', b'"threads.1.begin":"now"'),
        (b'"frequency":[3100000000.0,3200000000.0]', b'"frequency":"fast"'),
        (b'"derived":["case",', b'"derived":["cast",'),
        (b'"metrics.line_spread":3.25', b'"metrics.line_spread":[3.25]'),
    ],
)
def test_a_round_that_is_none_is_said_in_one_line(log_of_rounds, right, wrong):
    data = log_of_rounds.read_bytes()
    assert right in data
    log_of_rounds.write_bytes(data.replace(right, wrong, 1))
    with pytest.raises(LogError, match=r"line \d+") as caught:
        load(log_of_rounds)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [1, LEAST - 1])
def test_what_was_measured_alone_is_written_as_it_is(count):
    trial = trial_of(pairs(count))
    assert pack_trial(trial) is trial
