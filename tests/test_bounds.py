"""Logs of a few bytes that ask for much: what is made of them is in proportion, or they are refused. Memory and steps are counted, never time."""

from __future__ import annotations

import json

import fuzzing
import msgspec
import pytest
from synthetic import latency, make_log

from numabench.analysis.estimate import estimate_cells
from numabench.analysis.structure import with_circumstances
from numabench.errors import LogError
from numabench.model import Axis, BenchmarkRecord, Metric, Sample, View, case_hash
from numabench.report import heatmaps, selection, tables
from numabench.report.figures import figure
from numabench.report.page import NO_ROOM, render_report
from numabench.report.selection import FIRST_PANELS, MOST_BARS, MOST_CURVES, Room
from numabench.report.tables import fair_share
from numabench.runlog.export import samples
from numabench.runlog.read import MOST_WARNINGS, load

MOST_PANELS, PAGE_PANELS = 3, 5
PLENTY = 20_000  # samples, one character each


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Each panel takes its time."""
    for module in (selection, heatmaps):
        monkeypatch.setattr(module, "MOST_PANELS", MOST_PANELS)
    monkeypatch.setattr(selection, "PAGE_PANELS", PAGE_PANELS)


def toy(axes: dict[str, tuple], *views: View) -> BenchmarkRecord:
    return BenchmarkRecord(
        run="toy-0-0",
        name="toy",
        title="Toy",
        question="?",
        axes=tuple(Axis(name=name, summary="", values=tuple(values)) for name, values in axes.items()),
        metrics=(Metric(name="latency", unit="ns", polarity="lower"),),
        method={},
        views=views,
    )


def log_of(record: BenchmarkRecord, points: list[dict], **facts):
    """A visit with one sample of each of these points."""
    log = make_log(processes=1, benchmarks=(latency,))
    taken = tuple(
        Sample(case=case_hash("toy", p), index=0, parameters=p, metrics={"latency": 10.0 + n % 7}, valid=True, **facts)
        for n, p in enumerate(points)
    )
    trial = msgspec.structs.replace(log.trials[0], benchmark="toy", samples=taken)
    return msgspec.structs.replace(log, benchmarks=(record,), trials=(trial,))


def drawn(record: BenchmarkRecord, points: list[dict], **facts):
    estimates = estimate_cells(with_circumstances(samples(log_of(record, points, **facts))))
    return figure(record.views[0], record, estimates)


def test_panels_are_those_of_points_that_were_measured():
    """Of 24 axes with two values each there are 16 million points."""
    axes = {f"p{n}": (0, 1) for n in range(24)}
    points = [{name: n >> place & 1 for place, name in enumerate(axes)} for n in range(7, 100, 13)]
    shown = drawn(toy(axes, View(title="t", metric="latency", kind="line", x="p0")), points)
    assert 0 < len(shown.panels) <= MOST_PANELS and f"The first {MOST_PANELS} of" in shown.caption
    shown = drawn(toy(axes, View(title="t", metric="latency", kind="heatmap", x="p0", y="p1")), points[:2])
    assert 0 < len(shown.panels) <= 2 and "The first" not in shown.caption


MANY = 900


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ({"kind": "line", "x": "b", "series": "a"}, f"The first {MOST_CURVES} of {MANY} curves"),
        ({"kind": "bar", "x": "a"}, f"The first {MOST_BARS} of {MANY} bars"),
        ({"kind": "line", "x": "b", "facet": "a"}, f"The first {MOST_PANELS} of {MANY} panels"),
        ({"kind": "line", "x": "a"}, None),
    ],
)
def test_a_figure_shows_what_can_be_seen_and_says_so(view, said):
    axes = {"a": tuple(f"w{n}" for n in range(MANY)), "b": (0, 1)}
    shown = drawn(toy(axes, View(title="t", metric="latency", **view)), [{"a": word, "b": 0} for word in axes["a"]])
    assert len(shown.panels) <= MOST_PANELS and (said in shown.caption if said else "The first" not in shown.caption)
    assert sum(len(panel.svg) for panel in shown.panels) < 3_000_000


@pytest.mark.parametrize("kind", ["line", "heatmap"])
def test_distances_are_no_way_round(kind):
    """Each of 200 pairs is at a distance of its own."""
    axes = {"a": tuple(range(200)), "b": (0, 1)}
    view = View(title="t", metric="latency", kind=kind, x="a", y="b" if kind == "heatmap" else None)
    record = toy(axes, view)
    log = log_of(record, [{"a": n, "b": 0} for n in axes["a"]])
    estimates = estimate_cells(with_circumstances(samples(log))).assign(distance=[f"{n} ns" for n in range(200)], main=False)
    shown = figure(view, record, estimates)
    assert 0 < len(shown.panels) <= MOST_PANELS + 1 and "distances; the tables have all" in shown.caption


def test_a_page_has_room_for_what_was_measured():
    room = Room()
    room.panels = 2
    one = drawn(toy({"a": (0, 1)}, View(title="t", metric="latency", kind="line", x="a")), [{"a": 0}, {"a": 1}])
    assert [bool(room.drawn(lambda: one)) for _ in range(3)] == [True, True, False]
    room.panels = 2 * FIRST_PANELS
    assert [bool(room.drawn(lambda: one, later)) for later in (2, 1)] == [
        False,
        True,
    ]  # of two sections that follow, each has its first figure
    assert Room(3).panels == 3 * PAGE_PANELS
    axes = {"a": (0, 1, 2), "b": (0, 1)}
    views = [View(title=f"v{n}", metric="latency", kind="line", x="b", facet="a") for n in range(4)]
    page = render_report(log_of(toy(axes, *views), [{"a": n, "b": 0} for n in axes["a"]]))
    assert page.count(NO_ROOM) == 2


def expanding(**round_) -> list[dict]:
    records = fuzzing.records_of(log_of(toy({"a": (0, 1)}), [{"a": 0}]))
    same = {"parameters.a": 0, "metrics.latency": 1.0, "valid": True}
    common = {
        "before": 0,
        "threads": 0,
        "parameters": ["a"],
        "metrics": ["latency"],
        "same": same,
        "derived": ["case", "overlap", "start_skew"],
    }
    trial = next(r for r in records if r["record"] == "trial")
    trial.update(samples=[], rounds=[common | round_])
    return records


DIGITS = {"index": {"digits": "0" * PLENTY}}


@pytest.mark.parametrize(
    "round_",
    [
        {"count": 1, "threads": 10**9, "columns": {"index": {"values": [0]}}},
        {"count": PLENTY, "extra": [f"e{n}" for n in range(2000)], "columns": DIGITS | {f"extra.e{n}": {"than": "index"} for n in range(2000)}},
        {"count": PLENTY, "threads": 500, "columns": DIGITS},
        {"count": PLENTY, "columns": DIGITS | {"reasons": {"digits": "0" * PLENTY, "of": [["r"] * 3000]}}},
        {"count": PLENTY, "columns": DIGITS | {"reasons": {"digits": "0" * PLENTY, "of": [["r" * 9000]]}}},
    ],
    ids=["threads", "fields", "both", "reasons", "long reasons"],
)  # fmt: skip
def test_few_bytes_do_not_ask_for_any_number_of_values(tmp_path, round_):
    path = tmp_path / "log.jsonl"
    path.write_bytes(fuzzing.encoded(expanding(**round_)))
    with pytest.raises(LogError, match="says anything of|reasons"):
        load(path)


def changed(change) -> list[dict]:
    records = fuzzing.records_of(log_of(toy({"a": (0, 1)}), [{"a": 0}]))
    change({r["record"]: r for r in records}, records)
    fuzzing.rehash(records)
    return records


def many_benchmarks(count: int, named: bool):
    def change(first, records):
        text = json.dumps(first["benchmark"])
        more = (text.replace('"toy"', f'"toy{n}"') for n in range(count))
        records += [json.loads(t.replace('"name": "a"', f'"name": "a{n}"') if named else t) for n, t in enumerate(more)]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (many_benchmarks(300, named=False), "describe over 256 benchmarks"),
        (lambda first, records: first["header"]["machine"].update(topology={"cores": ["0-9999"] * 200}), "over 1,000,000 times"),
        (lambda first, records: first["header"]["machine"].update(alias="x" * 5000), "a name of the machine"),
        (lambda first, records: first["benchmark"]["metrics"][0].update(unit="x" * 5000), "a unit"),
        (lambda first, records: first["benchmark"]["axes"][0].update(values=["x" * 5000]), "a is a text"),
        (
            lambda first, records: first["benchmark"].update(
                views=[{"title": "", "metric": "latency", "kind": "heatmap", "x": "a", "y": "a", "both": [*range(5000)]}]
            ),
            "5,000 rows, over 4,096",
        ),
    ],
)
def test_what_is_made_of_every_row_has_bounds(tmp_path, change, said):
    path = tmp_path / "log.jsonl"
    path.write_bytes(fuzzing.encoded(changed(change)))
    with pytest.raises(LogError, match=said):
        load(path)


def test_parameters_of_all_logs_are_counted_together(tmp_path):
    def change(first, records):
        for n in range(200):
            text = json.dumps(first["benchmark"]).replace('"toy"', f'"toy{n}"')
            record = json.loads(text)
            record["axes"] = [record["axes"][0] | {"name": f"a{n}_{k}"} for k in range(3)]
            records.append(record)

    path = tmp_path / "log.jsonl"
    path.write_bytes(fuzzing.encoded(changed(change)))
    with pytest.raises(LogError, match="over 512 parameters. To mend it: give fewer logs"):
        load(path)


def test_warnings_are_as_many_as_are_read(tmp_path):
    path = tmp_path / "log.jsonl"
    orphans = [{"record": "end", "run": f"x{n}", "session": "s", "ended": "2026-01-01T00:00:00Z", "status": "complete", "measured": 1, "elapsed": 1} for n in range(3000)]  # fmt: skip
    path.write_bytes(fuzzing.encoded([*changed(lambda *_: None), *orphans]))
    warnings = load(path).warnings
    assert len(warnings) == MOST_WARNINGS + 1 and warnings[-1] == "and 2,900 more like these"


def test_tables_share_the_rows_of_a_page():
    """Those that have few leave theirs to the others; and of a table of more the first rows are shown, and how many there are is said."""
    assert (
        fair_share([10, 500, 500], 310) == 150 and fair_share([10, 20], 310) == tables.MOST and fair_share([], 5) == tables.MOST
    )
    assert fair_share([9, 9, 9], 9) == 3
    record = toy({"a": tuple(range(50))})
    estimates = estimate_cells(with_circumstances(samples(log_of(record, [{"a": n} for n in range(50)]))))
    assert sum(tables.sizes(estimates, estimates.iloc[:0])) == 50
    table = tables.estimate_table(estimates, record, "latency", 20)
    assert len(table.rows) == 20 and "The first 20 of 50 rows" in table.note
