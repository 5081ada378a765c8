"""Visits: what a list of them says, and which a report is made of."""

from __future__ import annotations

import json

import msgspec
import pytest
from pages import numabench, write_log
from synthetic import latency, make_log, merged

from numabench.errors import UsageError
from numabench.runlog.read import RunLog
from numabench.runlog.visits import CUT, MOST_MACHINES, chosen, visits


def visit(seed: int, status: str, started: str, alias: str = "toy", disturbed: float = 0.0) -> RunLog:
    log = make_log(alias, processes=2, samples=2, benchmarks=(latency,), seed=seed, disturbed=disturbed)
    ends = tuple(msgspec.structs.replace(end, status=status) for end in log.ends) if status != CUT else ()
    headers = tuple(msgspec.structs.replace(h, started=started) for h in log.headers)
    return msgspec.structs.replace(log, ends=ends, headers=headers)


@pytest.fixture(scope="module")
def log():
    return merged(
        visit(1, "complete", "2026-01-03T00:00:00Z"),
        visit(2, "busy", "2026-01-01T00:00:00Z", disturbed=0.9),
        visit(3, CUT, "2026-01-02T00:00:00Z"),
        visit(4, "busy", "2026-01-04T00:00:00Z", alias="other"),
    )


def runs(log: RunLog) -> list[str]:
    return [v.run.split("-")[1] for v in visits(log)]


def test_visits_by_time_with_how_they_ended(log):
    found = visits(log)
    assert [(v.run.split("-")[1], v.status) for v in found] == [("2", "busy"), ("3", CUT), ("1", "complete"), ("4", "busy")]
    assert found[0].undisturbed < 0.5 < found[2].undisturbed and all(v.samples == 72 and v.benchmarks == 1 for v in found)


def test_busy_visits_are_left_out_where_there_are_others(log):
    kept = chosen(log)
    assert runs(kept) == ["3", "1", "4"] and "given up on busy CPUs" in kept.warnings[-1]
    assert {t.run for t in kept.trials} == {h.run for h in kept.headers} == {b.run for b in kept.benchmarks}
    assert runs(chosen(log, busy=True)) == ["2", "3", "1", "4"]


def test_the_last_and_all_but_one(log):
    assert runs(chosen(log, last=True)) == ["1", "4"]
    assert runs(chosen(log, without=["toy-1-0"])) == ["3", "4"]
    with pytest.raises(UsageError, match="no run 'toy-9'.*numabench runs"):
        chosen(log, without=["toy-9"])
    with pytest.raises(UsageError, match="no visit is left"):
        chosen(log, without=["toy", "other"])


def test_no_more_machines_than_are_read_side_by_side():
    """1,500 machines of one sample each made a page of 9 MB, in a minute."""
    many = merged(*(visit(n, CUT, f"2026-01-{1 + n % 28:02}T00:00:{n:02}Z", alias=f"m{n}") for n in range(MOST_MACHINES + 6)))
    left = chosen(many)
    assert {v.machine for v in visits(left)} == {v.machine for v in visits(many)[6:]}
    assert "left out: 6 machines" in left.warnings[-1] and "numabench fleet" in left.warnings[-1]
    few = merged(*(visit(n, "complete", f"2026-01-{n + 1:02}T00:00:00Z", alias=f"m{n}") for n in range(3)))
    assert chosen(few) is few


def test_runs_as_a_user_types_it(log, tmp_path):
    path = write_log(log, tmp_path / "log.jsonl")
    shown = numabench("runs", path).stdout
    assert shown.count("busy") == 2 and "2026-01-03 00:00" in shown and CUT in shown
    assert [row["status"] for row in json.loads(numabench("runs", path, "--format", "json").stdout)] == [
        "busy",
        CUT,
        "complete",
        "busy",
    ]
    done = numabench("report", path, "--last", "-o", tmp_path / "page.html")
    assert (
        done.returncode == 0
        and "left out: the visit toy-2-0" in done.stderr
        and (tmp_path / "page.html").read_text().count("toy-3-0") == 1  # in the note
    )
