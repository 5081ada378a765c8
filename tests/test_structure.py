"""Distance classes: one quantity per class, whatever the order and scale of the hops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_log

from numabench.analysis.segments import Ordered, group_codes, moments, partners
from numabench.analysis.structure import (
    CLASS_FACTOR,
    class_medians,
    distance_classes,
    label_hop,
    light,
    match_classes,
    parameter_columns,
    with_circumstances,
)
from numabench.runlog.export import samples

hops = st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=40)


def test_three_distances_of_a_virtual_machine():
    labels = distance_classes(np.array([27.1, 107.0, 10.1, np.nan, 26.8, 110.0, 9.9]))
    assert list(labels) == ["27 ns", "110 ns", "10 ns", "", "27 ns", "110 ns", "10 ns"]


def test_labels_keep_two_digits():
    assert list(distance_classes(np.array([2.71, 99.7, 1234.0]))) == ["2.7 ns", "100 ns", "1200 ns"]
    assert label_hop("2.7 ns") == 2.7 and label_hop("") == 0.0


@pytest.mark.parametrize("bad", [np.nan, 0.0, -3.0, np.inf])
def test_no_hop_has_no_class(bad):
    assert list(distance_classes(np.array([bad, 27.0]))) == ["", "27 ns"]
    assert list(distance_classes(np.array([bad]))) == [""]


@given(hops)
def test_classes_split_exactly_at_gaps(values):
    array = np.array(values)
    labels = distance_classes(array)
    order = np.argsort(array)
    ratios = array[order][1:] / array[order][:-1]
    clear = np.abs(ratios - CLASS_FACTOR) > 1e-9
    split = labels[order][1:] != labels[order][:-1]
    assert (split == (ratios > CLASS_FACTOR))[clear].all()


@given(hops, st.randoms())
def test_order_does_not_matter(values, random):
    shuffled = values[:]
    random.shuffle(shuffled)
    by_hop = dict(zip(values, distance_classes(np.array(values)), strict=True))
    assert [by_hop[v] for v in shuffled] == list(distance_classes(np.array(shuffled)))


def of_samples(hops, **columns):
    """A frame of one sample for each hop."""
    shared = dict.fromkeys(("run", "session", "benchmark", "block", "process", "case", "cpus"), "")
    default = {**shared, "machine_id": "m", "core_width": 4.0, "frequency_ghz": 3.0, "valid": True, "sample": range(len(hops))}
    return pd.DataFrame({**default, "hop_ns": hops, **columns})


def test_a_disturbed_sample_founds_no_class():
    frame = of_samples([27.0, 27.2, 52.0, 107.0], valid=[True, True, False, True])
    assert list(with_circumstances(frame)["distance"]) == ["27 ns", "27 ns", "27 ns", "110 ns"]


def test_without_valid_samples_all_of_them_define_classes():
    frame = of_samples([27.0, 107.0], valid=False)
    assert list(with_circumstances(frame)["distance"]) == ["27 ns", "110 ns"]


def test_siblings_of_one_core_are_a_class_of_their_own_at_any_hop():
    """Two threads with half a core each, at nearly the hop of two cores (24 against 28 ns: seen)."""
    frame = of_samples([28.0, 28.2, 24.0, 24.2, 28.1], core_width=[4.7, 4.6, 2.6, 2.7, 3.7])
    assert list(with_circumstances(frame).distance) == ["28 ns", "28 ns", "24 ns shared core", "24 ns shared core", "28 ns"]
    assert label_hop("24 ns shared core") == 24.0
    assert match_classes({"28 ns": 28.0, "24 ns shared core": 24.0}, {"26 ns": 26.0}) == {"26 ns": "28 ns"}


def test_machines_have_their_own_classes():
    frame = of_samples([27.0, 31.0], machine_id=["a", "b"])
    assert list(with_circumstances(frame)["distance"]) == ["27 ns", "31 ns"]


def test_classes_pool_over_benchmarks_and_leave_one_thread_alone():
    frame = with_circumstances(samples(make_log(processes=2)))
    assert set(frame["distance"][frame["benchmark"] == "toy_counters"]) == {"27 ns"}
    assert set(frame["distance"][frame["benchmark"] == "toy_latency"]) == {""}
    assert with_circumstances(frame) is frame
    assert class_medians(frame) == pytest.approx({"27 ns": 27.0})


def test_match_takes_the_nearest_within_the_factor():
    assert match_classes({"27 ns": 27.0, "110 ns": 107.0}, {"29 ns": 29.0, "10 ns": 10.0, "33 ns": 33.0}) == {"29 ns": "27 ns"}


def test_parameters_are_what_nothing_else_claims():
    frame = samples(make_log(processes=1))
    assert parameter_columns(with_circumstances(frame)) == [
        "operation",
        "stride",
        "spacing",
        "threads",
        "placement",
        "size",
        "order",
        "cpu_node",
        "memory_node",
    ]


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), min_size=1, max_size=40))
def test_segment_reductions_equal_pandas(rows):
    frame = pd.DataFrame(rows, columns=["group", "x"])
    codes, first = group_codes(frame, ["group"])
    grouped = frame.groupby("group", sort=False)["x"]
    n, mean, variance = moments(frame["x"].to_numpy(), codes, len(first))
    assert list(frame["group"].iloc[first]) == list(grouped.size().index)
    assert list(n) == list(grouped.size())
    np.testing.assert_allclose(mean, grouped.mean(), atol=1e-6)
    np.testing.assert_allclose(variance, grouped.var(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(Ordered(frame["x"].to_numpy(), codes, len(first)).median(), grouped.median(), atol=1e-9)


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_partners_are_all_pairs_of_equal_codes(left, right):
    expected = []
    for at, code in enumerate(left):
        expected += [(at, other) for other, same in enumerate(right) if same == code] or [(at, -1)]
    assert [*zip(*(x.tolist() for x in partners(np.array(left, dtype=int), np.array(right, dtype=int))), strict=True)] == expected


def test_light_rows_are_the_same_rows():
    table = pd.DataFrame({"words": ["a", None], "whole": pd.array([1, None], dtype="Int64"), "x": [0.5, np.nan]}, index=[3, 7])
    found = light(table)
    assert [*found["words"]] == ["a", None] and [*found["whole"]] == [1, None] and found["x"].equals(table["x"])
    assert {*found.dtypes} == {np.dtype(object), np.dtype(float)} and [*found.index] == [3, 7] and found.columns.dtype == object


def test_missing_parameters_form_one_group():
    codes, first = group_codes(pd.DataFrame({"a": [1, None, None, 1], "b": ["x", None, None, "y"]}), ["a", "b"])
    assert list(codes) == [0, 1, 1, 2] and list(first) == [0, 1, 3]


def test_threads_with_half_a_core_at_the_hop_of_two_cores_have_a_neighbour_and_are_no_siblings():
    """Seen on a guest: 88 ns, and 86 with half the width, where siblings would be at a third of it."""
    frame = of_samples([88.0, 88.2, 86.0, 87.0, 27.0], core_width=[4.7, 4.6, 2.6, 2.7, 2.6])
    assert list(with_circumstances(frame).distance) == ["88 ns"] * 4 + ["27 ns shared core"]
