"""Exact outcomes as words: one row for what ends alike, and no word for what ends otherwise each time."""

from __future__ import annotations

import pandas as pd
import pytest

from numabench.model import Answer, Axis, BenchmarkRecord, Metric, View
from numabench.report.outcomes import TORN, matrix_table, merged, outcome_table, words_of

WORDS = Metric(name="outcome", unit="1", polarity="neither", summary="1000 copied|1001 shared|22 refused (EINVAL)")
CLAIM = Metric(name="claim", unit="1", polarity="neither", summary="0 refuted|1 true")
RECORD = BenchmarkRecord(
    run="r",
    name="b",
    title="B",
    question="?",
    axes=(
        Axis(name="method", summary="m", values=("write", "send")),
        Axis(name="target", summary="t", values=("tcp", "pipe")),
        Axis(name="source", summary="s", values=("x", "y")),
    ),
    metrics=(WORDS, CLAIM),
    method={},
    views=(View(title="v", metric="outcome", kind="heatmap", x="target", y="method"),),
    answers=(
        Answer(
            kind="outcome", metric="claim", where={"method": "send", "target": "tcp", "source": "x"}, text="{value}: it shares"
        ),
        Answer(
            kind="outcome", metric="claim", where={"method": "send", "target": "pipe", "source": "x"}, text="{value}: it copies"
        ),
    ),
)


def cells(metric: str, *found: tuple[str, str, str, float]) -> pd.DataFrame:
    rows = [
        {"benchmark": "b", "metric": metric, "main": True, "value": value, "distance": "", "method": m, "target": t, "source": s}
        for m, t, s, value in found
    ]
    return pd.DataFrame(rows)


def texts(table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def test_rows_that_end_alike_are_one_and_what_was_not_measured_is_said():
    estimates = cells(
        "outcome",
        ("send", "pipe", "y", 1001.0),
        ("write", "tcp", "x", 1000.0000000001),
        ("write", "tcp", "y", 1000.0),
        ("send", "tcp", "x", 22.0),
        ("send", "pipe", "x", 1001.0),
        ("send", "tcp", "y", 1000.4),
    )
    table = matrix_table(estimates, RECORD, WORDS)
    assert [name for name, _ in table.columns] == ["method", "source", "tcp", "pipe"]
    assert texts(table) == [
        ["write", "x, y", "copied", "–"],
        ["send", "x", "refused (EINVAL)", "shared"],
        ["send", "y", TORN, "shared"],
    ]


def test_lines_of_two_axes_are_joined_where_all_else_is_alike():
    lines = [(((a,), (b,)), ("same",)) for a in "ab" for b in "xy"]
    assert merged(lines, 2) == [((("a", "b"), ("x", "y")), ("same",))]
    lines[3] = (lines[3][0], ("other",))
    assert [said for _, said in merged(lines, 2)] == [("same",), ("same",), ("other",)]


def test_what_is_said_stands_beside_what_was_found():
    table = outcome_table(cells("claim", ("send", "tcp", "x", 0.0), ("send", "pipe", "y", 1.0)), RECORD, CLAIM)
    assert texts(table) == [["it shares", "refuted", "method send, target tcp, source x"]]


def test_a_yes_or_no_has_no_matrix_and_a_quantity_no_words():
    found = cells("claim", ("send", "tcp", "x", 0.0))
    assert matrix_table(found, RECORD, CLAIM) is None
    for summary in ("share of bytes", "95 % of them", ""):
        assert words_of(Metric(name="m", unit="1", polarity="lower", summary=summary)) == {}


@pytest.mark.parametrize("value", [5.0, 1002.0])
def test_a_value_without_a_word_is_a_number(value):
    assert texts(matrix_table(cells("outcome", ("send", "tcp", "x", value)), RECORD, WORDS))[0][-1] in ("5.00", "1002")
