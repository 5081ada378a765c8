"""Sentences: right figures, an interval and a design in each, and plain words where data is missing or unresolved."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import LOADS, counters, latency, loaded, make_log, matrix, node_bandwidth, set_aside, truth, with_samples

from numabench.analysis.answers import FINDERS, ROUGH, SETTLED, answers, design_text, interval_text
from numabench.analysis.answers.cells import _chain
from numabench.analysis.answers.curves import _place
from numabench.analysis.estimate import contrast_cells, estimate_cells
from numabench.model import Answer, tolerating
from numabench.runlog.export import samples

QUIET = {"processes": 20, "sd": (0.0, 0.002, 0.001)}
LATENCY = "latency"


def asked(log, *questions: Answer, benchmark="toy_counters"):
    benchmarks = tuple(msgspec.structs.replace(b, answers=questions) for b in log.benchmarks if b.name == benchmark)
    return answers(msgspec.structs.replace(log, benchmarks=benchmarks))


def question(kind, metric="time_per_operation", text="It is {value}.", **more) -> Answer:
    return Answer(kind=kind, metric=metric, text=text, **{"where": {"operation": "increment", "spacing": 0}, **more})


def scaled(by):
    """A log whose cells at a stride are `by` times as slow as their truth."""
    return make_log(**QUIET, benchmarks=(counters,), scale=lambda name, p: by.get(p["stride"], 1.0))


def test_every_declared_answer_is_given_with_its_design():
    found = answers(make_log(**QUIET))
    assert [(a.benchmark, a.kind, a.ok) for a in found] == [
        ("toy_counters", "difference", True),
        ("toy_counters", "threshold", True),
        ("toy_counters", "ranking", True),
        ("toy_latency", "cell", True),
    ]
    assert all("20 processes, 1 session" in a.text and a.machine == "toy" and a.headline for a in found)
    assert all("hop 27 ns" in a.text for a in found[:3]) and "hop" not in found[3].text
    assert not any("{" in a.text or "nan" in a.text for a in found)


def test_cell_is_the_estimate():
    log = make_log()
    found = answers(log)[-1]
    row = estimate_cells(samples(log)).query("benchmark == 'toy_latency' and order == 'group'").set_index("size").loc[2**27]
    assert (found.value, found.low, found.high, found.unit) == (row["value"], row["low"], row["high"], "ns")
    assert (
        found.text
        == f"Memory is {row['value']:.1f} ns away ({interval_text(row['low'], row['high'], 'ns')}, 8 processes, 1 session)."
    )


@pytest.mark.parametrize("kind", ["difference", "ratio"])
def test_pairs_are_the_contrasts(kind):
    log = make_log(**QUIET)
    where = {"operation": "atomic_add", "spacing": 0, "stride": 8}
    (found,) = asked(log, question(kind, where=where, against={"stride": 256}))
    table = contrast_cells(samples(log), log.benchmarks)
    row = table[(table["operation"] == "atomic_add") & (table["spacing"] == 0) & (table["stride"] == 8)].iloc[0]
    assert (found.value, found.low, found.high) == (row[kind], row[f"{kind}_low"], row[f"{kind}_high"])
    assert found.value == pytest.approx({"difference": 27.0, "ratio": 6.4}[kind], rel=0.01)
    assert found.unit == {"difference": "ns", "ratio": "×"}[kind] and found.ok and found.text.count(found.unit) >= 2


@pytest.mark.parametrize(
    ("text", "more", "less"),
    [
        ("It takes {value} more.", "It takes 27.0 ns more", "It takes 27.0 ns less"),
        ("Sharing adds {value}.", "Sharing adds 27.0 ns", "Sharing takes 27.0 ns off"),
        ("The difference is {value}.", "The difference is 27.0 ns", "The difference is -27.0 ns"),
    ],
)
def test_a_difference_below_zero_is_said_in_the_other_direction(text, more, less):
    log = make_log(processes=20, sd=(0.0, 0.0, 0.0))
    where = {"operation": "atomic_add", "spacing": 0, "stride": 8}
    (above,) = asked(log, question("difference", text=text, where=where, against={"stride": 256}))
    slow = make_log(
        processes=20,
        sd=(0.0, 0.0, 0.0),
        scale=lambda name, p: {8: 5 / 32, 256: 32 / 5}.get(p.get("stride"), 1.0),
    )
    (below,) = asked(slow, question("difference", text=text, where=where, against={"stride": 256}))
    assert above.value > 0 > below.value and above.text.startswith(more) and below.text.startswith(less), (above.text, below.text)
    assert "-" in below.text.partition("(")[2] or "difference is" not in text


@pytest.mark.parametrize("kind", ["difference", "ratio"])
@pytest.mark.parametrize(
    ("sd", "tolerance", "said"),
    [
        ((0.0, 0.01, 0.01), 0.03, "No difference beyond "),
        ((0.0, 0.1, 0.01), 0.03, "Unresolved: the interval includes no difference, and one of "),
    ],
)
def test_no_difference_is_a_verdict_where_the_interval_is_inside_of_the_tolerance(kind, sd, tolerance, said):
    """From eight pairs."""
    where = {"operation": "increment", "spacing": 0, "stride": 128}
    (found,) = asked(make_log(sd=sd), question(kind, where=where, against={"stride": 256}, tolerance=tolerance))
    assert found.low <= (kind == "ratio") <= found.high and said in found.text
    assert found.ok == said.startswith("No")
    if found.ok:
        beyond = float(found.text.partition("beyond ")[2].rstrip("%."))
        assert 0 < beyond <= 100 * tolerance


def test_few_pairs_are_unresolved():
    where = {"operation": "increment", "spacing": 0, "stride": 8}
    (found,) = asked(make_log(processes=5), question("ratio", where=where, against={"stride": 256}))
    assert not found.ok and math.isnan(found.low) and "5 pairs, at least 6" in found.text


def test_pairs_of_different_distances_are_missing():
    log = make_log()
    trials = tuple(
        msgspec.structs.replace(
            t,
            samples=tuple(
                msgspec.structs.replace(s, hop=(1e-7, 1e-7)) if s.parameters.get("stride") == 8 else s for s in t.samples
            ),
        )
        for t in log.trials
    )
    (found,) = asked(
        msgspec.structs.replace(log, trials=trials),
        question("ratio", where={"operation": "increment", "spacing": 0, "stride": 8}, against={"stride": 256}),
    )
    assert not found.ok and math.isnan(found.value) and "at one distance" in found.text


@pytest.mark.parametrize("kind", ["cell", "difference", "ratio", "threshold", "ranking"])
def test_missing_data_is_named(kind):
    (found,) = asked(make_log(processes=2), question(kind, where={"operation": "store"}, against={"stride": 256}, axis="stride"))
    assert not found.ok and "operation store" in found.text and "time per operation" in found.text and math.isnan(found.value)


def test_an_unknown_kind_is_no_crash():
    (found,) = asked(make_log(processes=2), question("poem"))
    assert not found.ok and "poem" in found.text


def threshold(log, **more):
    (found,) = asked(log, question("threshold", axis="stride", text="Free from {value} on.", **more))
    return found


def test_threshold_is_the_smallest_free_value():
    found = threshold(scaled({}))
    assert (found.value, found.unit, found.ok) == (64, "B", True) and found.text.startswith(
        "Free from 64 B on (at 64 B the ratio to 256 B is 1.00"
    )


def test_threshold_needs_every_larger_value_free():
    found = threshold(scaled({128: 1.2}))
    assert found.ok and "no value below the control is free" in found.text and "128 B" in found.text and math.isnan(found.value)


def test_threshold_never_takes_one_counter_for_all():
    found = threshold(scaled(dict.fromkeys((0, 8, 32), 1.2 / 28.2)))
    assert (found.value, found.ok) == (8, True)


def test_threshold_with_an_unresolved_neighbour_says_so():
    found = threshold(scaled({32: 1.2 * 1.03 / 28.2}))
    assert (found.value, found.ok) == (64, False) and "It may be less, which is unresolved: at 32 B" in found.text


def test_threshold_of_a_noisy_log_is_unresolved():
    found = threshold(make_log(sd=(0.0, 0.2, 0.0)))
    assert not found.ok and "unresolved" in found.text


def test_threshold_knows_polarity():
    log = scaled({})
    contrasts = (msgspec.structs.replace(log.benchmarks[0].contrasts[0], metric="throughput"),)
    log = msgspec.structs.replace(log, benchmarks=(msgspec.structs.replace(log.benchmarks[0], contrasts=contrasts),))
    assert threshold(log, metric="throughput").value == 64


@pytest.mark.parametrize(("metric", "sign"), [("throughput", ">"), ("time_per_operation", "<")])
def test_ranking_is_best_first(metric, sign):
    (found,) = asked(
        make_log(**QUIET),
        question("ranking", metric, "Best first: {ranking}.", where={"stride": 8, "spacing": 0}, axis="operation"),
    )
    assert found.ok and f"] {sign} atomic_add " in found.text and found.text.index("increment") < found.text.index("atomic_add")


def test_ranking_joins_what_is_not_resolved():
    (found,) = asked(make_log(**QUIET), question("ranking", text="Fast: {ranking}.", axis="stride"))
    ranked = found.text.split(" (95 %")[0]
    assert ranked.count("≈") == 4 and ranked.count(" < ") == 1 and found.ok
    assert {part.split()[0] for part in ranked.removeprefix("Fast: ").split(" < ")[0].split(" ≈ ")} == {"64", "128", "256"}


def test_axes_left_open_are_held_at_their_first_value():
    (found,) = asked(make_log(**QUIET), question("cell", LATENCY, where={"size": 2**27}), benchmark="toy_latency")
    assert found.value == pytest.approx(98, rel=0.02)


def test_placeholders():
    text = "At {size}: {value} | {interval} | {distance} | {unheard_of}."
    (found,) = asked(
        make_log(**QUIET), question("cell", LATENCY, text, where={"size": 2**27, "order": "group"}), benchmark="toy_latency"
    )
    assert (
        found.text.startswith("At 134217728: 98.")
        and found.text.endswith("| no distance | {unheard_of}.")
        and "(" not in found.text
    )


def test_cells_of_failed_proofs_are_unresolved():
    found = answers(make_log(disturbed=0.4, benchmarks=(latency,)))
    assert not found[0].ok and "failed a proof" in found[0].text


@pytest.mark.parametrize(
    ("reason", "said"),
    [("run_delay", "each of its 60 samples was delayed, interrupted"), ("pages", "60 of them for a proof that failed")],
)
def test_where_nothing_is_valid_it_is_said_what_set_all_aside(reason, said):
    log = with_samples(make_log(**QUIET, benchmarks=(latency,)), lambda s, p: set_aside(s, reason))
    (found, *_) = answers(log)
    assert not found.ok and said in found.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s, p: set_aside(s, "run_delay") if (s.parameters.get("stride") == 8) == (p % 2 == 0) else s, "of 20 processes that measured both"),
        (lambda s, p: msgspec.structs.replace(s, hop=(90e-9, 90e-9)) if s.parameters.get("stride") == 8 else s, "at one distance"),
    ],
)  # fmt: skip
def test_where_no_pair_is_left_it_is_said_why(change, said):
    where = {"operation": "atomic_add", "spacing": 0, "stride": 8}
    (found,) = asked(with_samples(make_log(**QUIET), change), question("difference", where=where, against={"stride": 256}))
    assert not found.ok and said in found.text


def test_sides_that_no_process_measured_both_are_no_pair():
    log, where = make_log(**QUIET), {"operation": "atomic_add", "spacing": 0, "stride": 8}
    trials = tuple(
        msgspec.structs.replace(
            t, samples=tuple(s for s in t.samples if (s.parameters.get("stride") == 8) == (t.process % 2 == 0))
        )
        for t in log.trials
    )
    question_of_both = question("difference", where=where, against={"stride": 256})
    (found,) = asked(msgspec.structs.replace(log, trials=trials), question_of_both)
    assert not found.ok and "its two sides were not measured in one process" in found.text


@pytest.mark.parametrize(("times", "settled"), [(1.0, True), (3.0, False)])
@pytest.mark.parametrize("reason", ["run_delay", "gaps"])
def test_an_answer_is_settled_where_it_is_the_same_with_the_doubtful_samples(times, settled, reason):
    """In twelve of twenty processes everything but the operation back to back at 64 bytes was disturbed, and slow by `times`: threshold, difference and ranking hang on it or not."""

    def doubtful(sample, process):
        if process >= 12 or sample.parameters.get("stride") != 64:
            return sample
        slow = msgspec.structs.replace(sample, metrics={k: v * times for k, v in sample.metrics.items()})
        return set_aside(slow, reason)

    log = make_log(**QUIET, benchmarks=(counters,))
    before, after = answers(log), answers(with_samples(log, doubtful))
    threshold = next(k for k, a in enumerate(before) if a.kind == "threshold")
    assert before[threshold].ok and before[threshold].value == 64
    assert after[threshold].ok == settled
    assert settled or "disturbed" in after[threshold].text


@pytest.mark.parametrize(
    ("low", "high", "unit", "text"),
    [
        (26.8, 27.4, "ns", "26.8–27.4 ns"),
        (-0.2, 0.3, "ns", "-0.200 to 0.300 ns"),
        (71.3e6, 72.5e6, "operation/s", "71.3–72.5 M op/s"),
        (0.9e6, 1.1e6, "operation/s", "900 k op/s–1.10 M op/s"),
        (1.021, 1.049, "×", "1.02–1.05×"),
        (27.121, 27.123, "ns", "27.121–27.123 ns"),
        (9.9962, 10.0041, "ns", "9.996–10.00 ns"),
        (17302, 1.76e6, "ns", "17.3–1760 µs"),
        (9990, 12.1e6, "ns", "9990 ns–12.1 ms"),
        (float("nan"), 1, "ns", "no interval"),
        (0.99, 0.995, "", "0.990–0.995"),
    ],
)
def test_interval_text(low, high, unit, text):
    assert interval_text(low, high, unit) == text


@given(st.floats(1e-2, 1e5), st.floats(1.001, 2))
def test_interval_text_keeps_ends_apart(low, factor):
    def ns(text: str) -> float:
        number, _, unit = text.partition(" ")
        return float(number) * {"ns": 1, "µs": 1e3}[unit]

    one, other = interval_text(low, low * factor, "ns").split("–")
    assert ns(one if " " in one else f"{one} {other.partition(' ')[2]}") < ns(other)


def test_design_text_counts_in_words():
    assert design_text(1, 1, "") == "1 process, 1 session" and design_text(8, 2, "27 ns") == "8 processes, 2 sessions, hop 27 ns"


def test_a_knee_is_the_last_value_before_the_bend():
    knee, saturation = answers(make_log(**QUIET, benchmarks=(loaded,)))
    assert knee.ok and "up to 8 GB/s" in knee.text and "120 ns" in knee.text and "300 ns" in knee.text
    assert saturation.ok and saturation.text.startswith("Saturated at 16 (11.0 GB/s")


def test_a_curve_without_a_bend_has_no_knee():
    flat = make_log(**QUIET, benchmarks=(loaded,), scale=lambda _, p: 1 / 3 if p["rate"] in ("16", "max") else 1.0)
    knee = answers(flat)[0]
    assert knee.ok and "no knee among the values of rate" in knee.text and math.isnan(knee.value)


def test_what_only_the_last_value_reaches_is_not_saturated():
    growing = make_log(**QUIET, benchmarks=(loaded,), scale=lambda _, p: 2.0 if p["rate"] == "max" else 1.0)
    saturation = answers(growing)[1]
    assert saturation.ok and "not saturated by any rate measured" in saturation.text and math.isnan(saturation.value)


def test_saturation_of_two_curves_is_said_in_one_sentence():
    """What the second curve lacks it shares with the first: where both are the same threads, one was measured."""
    log = make_log(
        **QUIET, benchmarks=(loaded,), scale=lambda _, p: {"16": 0.1, "4": 2.75}.get(p["rate"], 1) if p["mix"] == "1:1" else 1
    )

    def without(*rates: str):
        def kept(trial):
            left = [s for s in trial.samples if s.parameters["mix"] == "1:0" or s.parameters["rate"] not in rates]
            return msgspec.structs.replace(trial, samples=tuple(left))

        return msgspec.structs.replace(log, trials=tuple(map(kept, log.trials)))

    both = question(
        "saturation",
        "load",
        "By {value} packed, by {other} spread",
        axis="rate",
        where={"mix": "1:0"},
        against={"mix": "1:1"},
        tolerance=0.05,
    )
    for log_ in (log, without("0", "8", "max")):
        (found,) = asked(log_, both, benchmark="toy_loaded")
        assert found.ok and found.text.startswith("By 16 packed, by 4 spread ("), found.text
        assert found.value == 16
    (found,) = asked(without(*LOADS), both, benchmark="toy_loaded")
    assert found.ok and found.text.startswith("By 16 packed, by 16 spread ("), "all points are shared"
    growing = make_log(**QUIET, benchmarks=(loaded,), scale=lambda _, p: 2.0 if p == {"mix": "1:0", "rate": "max"} else 1.0)
    (found,) = asked(growing, both, benchmark="toy_loaded")
    assert found.ok and "By over 8 packed, by 16 spread" in found.text and "not saturated" in found.text


def gained(by: dict, **more):
    where = {"operation": "atomic_add", "spacing": 0, "stride": 0}
    return asked(scaled(by), question("gain", axis="stride", where=where, text="{value} as many", **more))[0]


def test_a_gain_is_that_of_the_best_value_and_open_while_the_last_step_gains():
    level = gained({})
    assert level.ok and level.value == pytest.approx(6.4, rel=0.02) and not level.text.startswith("At least")
    assert "20 processes" in level.text and level.low <= level.value <= level.high and level.unit == "×"
    going_on = gained({256: 0.5})
    assert going_on.value == pytest.approx(12.8, rel=0.02) and going_on.text.startswith("at least 12.8× as many")
    over = gained({64: 0.4, 256: 0.9})  # the last step gains, and another value is the best all the same
    assert over.value == pytest.approx(16, rel=0.02) and not over.text.startswith("at least") and "at 64 stride" in over.text
    assert not gained({256: 0.98}).text.startswith("at least")  # within the tolerance


def test_a_merged_answer_says_where_one_visit_alone_is_surer():
    """What two visits that differ leave open, one of them by itself would not."""
    asked_for = question("cell", where={"operation": "increment", "stride": 8, "spacing": 0})
    found = {
        sd: asked(make_log(sessions=2, processes=8, sd=sd, benchmarks=(counters,)), asked_for)[0]
        for sd in ((0.1, 0.001, 0.001), (0.001, 0.001, 0.001), (0.0, 0.5, 0.001))  # visits, processes, samples differ by
    }
    apart, alike, noisy = found.values()
    assert apart.grade == ROUGH and alike.grade == SETTLED and noisy.grade == ROUGH
    assert "interval covers how 2 visits differ; one of them alone says " in apart.alone and apart.alone[1:] in apart.text
    assert not alike.alone and not noisy.alone, "nothing is surer of one visit alone"


def test_a_figure_by_itself_is_settled_within_what_its_answer_tolerates():
    """Eight processes that differ by 10 % tell it within 8 %."""
    log = make_log(processes=8, sd=(0.0, 0.1, 0.001), benchmarks=(counters,))
    figure = question("cell", where={"operation": "increment", "stride": 8, "spacing": 0})
    rank = question("ranking", axis="stride")
    wide, stubborn = tolerating((figure, rank), 0.15)
    assert wide.tolerance == 0.15 and stubborn == rank and tolerating((wide,), 0.1) == (wide,)
    assert [asked(log, each)[0].grade for each in (figure, wide)] == [ROUGH, SETTLED]


def test_a_gain_knows_polarity():
    where = {"operation": "atomic_add", "spacing": 0, "stride": 0}
    (found,) = asked(scaled({}), question("gain", "throughput", axis="stride", where=where))
    assert found.value == pytest.approx(6.4, rel=0.02)


def test_what_is_saved_is_a_share_of_the_other_cell():
    log = make_log(**QUIET, benchmarks=(latency,), scale=lambda name, p: 0.69 if p["order"] == "random" else 1.0)
    base = make_log(**QUIET, benchmarks=(latency,))
    where, against = {"size": 2**27, "order": "random"}, {"order": "group"}
    ratio = [
        asked(each, question("ratio", LATENCY, where=where, against=against), benchmark="toy_latency")[0] for each in (base, log)
    ]
    (found,) = asked(
        log, question("saving", LATENCY, "Along: {value} of it", where=where, against=against), benchmark="toy_latency"
    )
    assert found.value == pytest.approx(1 - ratio[1].value, abs=0.01) and ratio[1].value == pytest.approx(
        0.69 * ratio[0].value, rel=0.01
    )
    assert found.low < found.value < found.high and f"Along: {found.value:.0%} of it" in found.text and " ns for " in found.text
    (none,) = asked(log, question("saving", LATENCY, where=where | {"size": 3}, against=against), benchmark="toy_latency")
    assert not none.ok and "nothing was measured" in none.text


def test_a_doubtful_knee_is_unresolved():
    noisy = make_log(
        processes=6, sd=(0.0, 0.3, 0.01), benchmarks=(loaded,), scale=lambda _, p: 0.52 if p["rate"] == "16" else 1.0
    )
    assert "nresolved" in answers(noisy)[0].text


def reached(ratios: dict, sd: float = 0.001):
    """Up to which spacing stride 8 is free; `ratios`: spacing -> how many times what stride 256 costs."""

    def scale(name, p):
        return (ratios[p["spacing"]] if p["stride"] == 8 else 1.0) / truth(name, p)

    log = make_log(processes=12, sd=(0.0, sd, sd), benchmarks=(counters,), scale=scale)
    where = {"operation": "increment", "stride": 8}
    return asked(log, question("reach", axis="spacing", where=where, tolerance=0.1, text="Free up to {value}"))[0]


def test_a_reach_is_that_of_one_distance():
    """Two of twelve processes were farther apart, where nothing is free: too few for an interval, and another curve."""

    def farther(sample, process):
        if process >= 2:
            return sample
        times = 3.0 if sample.parameters["stride"] == 8 else 1.0
        return msgspec.structs.replace(sample, hop=(1.1e-7,) * 2, metrics={k: v * times for k, v in sample.metrics.items()})

    def scale(name, p):
        return (2.0 if p["spacing"] and p["stride"] == 8 else 1.0) / truth(name, p)

    made = make_log(processes=12, sd=(0.0, 0.001, 0.001), benchmarks=(counters,), scale=scale)
    where = {"operation": "increment", "stride": 8}
    (found,) = asked(
        with_samples(made, farther), question("reach", axis="spacing", where=where, tolerance=0.1, text="Free up to {value}")
    )
    assert found.ok and found.value == 0 and "10 processes" in found.text and "hop 27 ns" in found.text


def test_a_reach_ends_before_what_costs_more():
    found = reached({0: 1.0, 200: 2.0})
    assert found.ok and found.value == 0 and found.text.startswith("Free up to 0 (at 0 the ratio is ")
    assert "none of the values is free: at 0 the ratio is 2.00" in reached({0: 2.0, 200: 2.0}).text
    beyond = reached({0: 1.0, 200: 1.0})
    assert beyond.ok and "beyond the range measured: no spacing costs more than 10%" in beyond.text and math.isnan(beyond.value)


def test_a_reach_that_the_intervals_leave_open_is_unresolved():
    found = reached({0: 1.0, 200: 3.0}, sd=1.0)
    assert not found.ok and "unresolved: at " in found.text and "costs more than" not in found.text


def crossed(ratios: dict, sd: float = 0.001):
    """Who is ahead along the stride: `ratios` says how many times the throughput of an atomic add an increment has at each."""

    def scale(name, p):
        return (1 / ratios[p["stride"]] if p["operation"] == "increment" else 1.0) / truth(name, p)

    log = make_log(processes=12, sd=(0.0, sd, sd), benchmarks=(counters,), scale=scale)
    where = {"operation": "increment", "spacing": 0}
    against = {"operation": "atomic_add"}
    return asked(log, question("crossover", metric="throughput", axis="stride", where=where, against=against, text="{value}"))[0]


def test_a_crossover_lies_where_the_ratio_is_one():
    """On logs: from e to 1/e between 32 and 64 the turn is halfway."""
    found = crossed({0: 3.0, 8: 3.0, 32: math.e, 64: 1 / math.e, 128: 0.3, 256: 0.3})
    assert found.ok and found.value == pytest.approx(48, abs=0.2) and found.low < found.value < found.high and found.unit == "B"
    assert found.text.startswith("increment is ahead up to 48 B, then atomic_add (48 B to 48 B, ")
    other = crossed({0: 0.3, 8: 0.3, 32: 1 / math.e, 64: math.e, 128: 3.0, 256: 3.0})
    assert other.ok and other.text.startswith("atomic_add is ahead up to 48 B, then increment")


def test_places_on_an_axis_of_bytes_are_sizes():
    assert [_place(*each) for each in ((262144.0, "B"), (2457.6, "B"), (63.7, "B"), (2457.6, "ns"))] == [
        "256 KiB",
        "2.4 KiB",
        "64 B",
        "2458 ns",
    ]


def test_without_a_crossover_one_is_ahead_everywhere():
    found = crossed(dict.fromkeys((0, 8, 32, 64, 128, 256), 2.0))
    assert (
        found.ok
        and not math.isfinite(found.value)
        and "increment is ahead of atomic_add at every stride from 0 B to 256 B" in found.text
    )


def test_a_crossover_within_the_noise_is_unresolved():
    assert "nresolved" in crossed(dict.fromkeys((0, 8, 32, 64, 128, 256), 1.01), sd=0.3).text


def nodes(distances, hmat: dict | None = None) -> dict:
    """A machine's facts with these SLIT distances; `hmat`: node -> latency that its access class claims."""
    return {
        "topology": {
            "nodes": [
                {
                    "id": a,
                    "distances": {str(b): far for b, far in enumerate(row)},
                    "nearest_cpu_nodes": [a],
                    "access": {"access0": {"read_latency_ns": hmat[a], "initiators": [a]}} if hmat and a in hmat else {},
                }
                for a, row in enumerate(distances)
            ]
        }
    }


FIRMWARE = Answer(kind="firmware", metric="latency", where={}, text="The firmware")


def firmware(distances, scale=lambda *_: 1.0, **more):
    log = make_log(processes=12, sd=(0.0, 0.002, 0.001), benchmarks=(matrix,), machine=nodes(distances, **more), scale=scale)
    return asked(log, FIRMWARE, benchmark="toy_nodes")[0]


def test_a_firmware_that_is_right_is_not_contradicted():
    found = firmware([[10 if a == b else 20 for b in range(4)] for a in range(4)], hmat={0: 90, 2: 300})
    assert found.ok and found.value == pytest.approx(1.0) and "rank correlation 1.0 over 16 cells" in found.text
    assert "node 0 90.0 ns for 9" in found.text and "node 2 300 ns for 9" in found.text


def test_attributes_that_are_the_wrong_way_round_are_named():
    """HMAT has one figure a node: only those that the same CPUs are nearest to can be held against each other."""
    distances = [[10 if a == b else 20 for b in range(4)] for a in range(4)]
    machine = nodes(distances, hmat={0: 90, 1: 95, 2: 60, 3: 300})
    machine["topology"]["nodes"][2]["access"]["access0"]["initiators"] = [0]
    log = make_log(processes=12, sd=(0.0, 0.002, 0.001), benchmarks=(matrix,), machine=machine)
    found = asked(log, FIRMWARE, benchmark="toy_nodes")[0]
    assert not found.ok and found.text.count("other way round") == 1
    assert "from node 0, node 2 (HMAT 60.0 ns, 150 ns) and node 0 (HMAT 90.0 ns, 9" in found.text


def test_distances_that_are_the_wrong_way_round_are_named():
    found = firmware(
        [[10 if a == b else 40 - 10 * (b == 3) for b in range(4)] for a in range(4)],
        scale=lambda _, p: 1.5 if p["memory_node"] == 3 else 1.0,
    )
    assert (
        not found.ok
        and "from node 0, node 3 (distance 30, 225 ns) and node 1 (distance 40, 150 ns) are the other way round" in found.text
    )


def test_a_firmware_that_claims_differences_where_there_are_none_is_contradicted():
    found = firmware(
        [[10 if a == b else 40 for b in range(4)] for a in range(4)],
        scale=lambda _, p: 95 / 150 if p["cpu_node"] != p["memory_node"] else 1.0,
    )
    assert not found.ok and "no ranks to correlate" in found.text
    assert "differ by the firmware and are the same as measured" in found.text and "; and 6 more" in found.text


def test_a_firmware_that_claims_equality_where_there_is_none_is_contradicted():
    found = firmware([[10] * 4 for _ in range(4)])
    assert not found.ok and "are equal by the firmware and not as measured" in found.text


def capacity(first: int, last: int, **more) -> Answer:
    where = {"size": first, "order": "group"}
    return Answer(
        kind="capacity", metric="latency", axis="size", where=where, against={"size": last}, text="Holds {value}", **more
    )


def test_a_capacity_lies_between_the_sizes_around_the_step():
    """The truth steps up beyond 32 KiB, 1 MiB and 16 MiB; measured are 2 KiB, 8 KiB, ... 128 MiB."""
    log = make_log(**QUIET, benchmarks=(latency,))
    l1, l2, l3 = asked(log, capacity(2**13, 2**19), capacity(2**17, 2**23), capacity(2**23, 2**27), benchmark="toy_latency")
    assert (l1.low, l1.high) == (2**15, 2**17) and l1.low < l1.value < l1.high and "32 KiB to 128 KiB" in l1.text
    assert (l2.low, l2.high) == (2**19, 2**21) and (l3.low, l3.high) == (2**23, 2**25)


def test_a_log_without_samples_answers_what_is_missing():
    log = make_log(**QUIET, benchmarks=(latency,))
    empty = msgspec.structs.replace(log, trials=())
    questions = [
        Answer(kind=kind, metric="latency", axis="size", where={"size": 2**13}, against={"size": 2**19}, text="It is {value}")
        for kind in FINDERS
        if kind != "agreement"
    ]
    found = asked(empty, *questions, benchmark="toy_latency")
    assert len(found) == len(questions) and not any(answer.ok or "{" in answer.text for answer in found)


def test_without_a_step_there_is_no_capacity():
    log = make_log(**QUIET, benchmarks=(latency,))
    flat, missing = asked(log, capacity(2**17, 2**19), capacity(2**10, 2**27), benchmark="toy_latency")
    assert not flat.ok and "too few" in flat.text
    assert not missing.ok and "too few" in missing.text
    level = make_log(**QUIET, benchmarks=(latency,), scale=lambda _, p: 1 / 3 if p["size"] > 2**20 else 1.0)
    assert "no step" in asked(level, capacity(2**17, 2**23), benchmark="toy_latency")[0].text


def agreement(log, tolerance: float = 0.0) -> list:
    """Whether the local cell of the node matrix and memory in the latency curve agree."""
    against = {"benchmark": "toy_latency", "metric": "latency", "size": 2**27, "order": "group"}
    question = Answer(
        kind="agreement",
        metric="latency",
        where={"cpu_node": 0, "memory_node": 0},
        against=against,
        tolerance=tolerance,
        text="Local memory",
    )
    records = tuple(msgspec.structs.replace(b, answers=(question,) if b.name == "toy_nodes" else ()) for b in log.benchmarks)
    return answers(msgspec.structs.replace(log, benchmarks=records))


@pytest.mark.parametrize(("factor", "agrees"), [(98 / 95, True), (1.2, False)])
def test_two_benchmarks_of_one_quantity_agree_or_contradict(factor, agrees):
    log = make_log(
        processes=12,
        sd=(0.0, 0.004, 0.002),
        benchmarks=(latency, matrix),
        scale=lambda name, _: factor if name == "toy_nodes" else 1.0,
    )
    (found,) = agreement(log)
    assert found.ok == agrees and ("a contradiction" in found.text.lower()) != agrees
    assert "by toy_latency" in found.text


def test_benchmarks_that_contradict_each_other_over_several_visits_are_said_to():
    """What one visit alone would say is of its own benchmark, and an agreement has two."""
    scale = {"toy_nodes": 1.3}
    log = make_log(sessions=2, processes=12, benchmarks=(latency, matrix), scale=lambda name, _: scale.get(name, 1.0))
    (found,) = agreement(log)
    assert "a contradiction" in found.text.lower() and not found.alone


def test_an_agreement_with_what_was_not_measured_is_not_said():
    assert agreement(make_log(benchmarks=(matrix,))) == []


@pytest.mark.parametrize(("factor", "tolerance", "agrees"), [(1.2, 0.3, True), (1.2, 0.05, False)])
def test_an_agreement_has_the_tolerance_that_is_asked_for(factor, tolerance, agrees):
    log = make_log(
        processes=12,
        sd=(0.0, 0.004, 0.002),
        benchmarks=(latency, matrix),
        scale=lambda name, _: factor if name == "toy_nodes" else 1.0,
    )
    (found,) = agreement(log, tolerance=tolerance)
    assert found.ok == agrees and (f"by more than {tolerance:.0%}" in found.text) != agrees


def test_weights_for_interleaving_are_said():
    question = Answer(kind="weights", metric="bandwidth", where={"kernel": "read", "cores": "all"}, text="Weights: {value}")
    log = make_log(benchmarks=(node_bandwidth,), sd=(0.0, 0.0, 0.0), scale=lambda _, p: 2.0 if p["memory_node"] == 3 else 1.0)
    (found,) = asked(log, question, benchmark="node_bandwidth")
    assert (
        found.ok
        and found.text == "Weights: node 0: 2, node 1: 2, node 2: 2, node 3: 1 (at most 0% from the measured proportions)."
    )
    (missing,) = asked(log, msgspec.structs.replace(question, where={"kernel": "copy"}), benchmark="node_bandwidth")
    assert not missing.ok and "fewer than two nodes" in missing.text


def test_a_ranking_has_one_scale():
    """A billion a second and thirty million: both in millions, and their unit is said once."""
    log = make_log(processes=9, benchmarks=(counters,), sd=(0, 0.001, 0.001))
    (found,) = asked(
        log, question("ranking", "throughput", "{ranking}", where={"spacing": 0, "operation": "increment"}, axis="stride")
    )
    assert found.text.count("op/s") == 1 and " M op/s" in found.text and " 16" in found.text and " 71" in found.text, found.text


def test_an_interval_that_says_nothing_is_called_by_what_is_missing():
    assert interval_text(1e-2, 1e4, "ns", 1) == "too few processes" and interval_text(1e-2, 1e4, "ns", 2) == "too few visits"
    assert interval_text(1.0, 99.0, "ns", 1) == "1.00–99.0 ns"
    assert interval_text(1.0, 200.0, "ns") == "1.00–200 ns"  # what several cells span
    two = make_log(processes=2, benchmarks=(latency,), sd=(0, 0.6, 0.001), seed=3)
    (found,) = asked(
        two, msgspec.structs.replace(latency("r").answers[0], where={"size": 2**27, "order": "group"}), benchmark="toy_latency"
    )
    assert "too few processes, 2 processes" in found.text and "–" not in found.text, found.text


def test_a_long_ranking_names_the_first_and_the_last():
    parts = [part for n in range(9) for part in (f"v{n} {n}.0 [{n}.0–{n}.5]", " < ")][:-1]
    assert _chain(parts, "ns") == (
        "v0 0.0 [0.0–0.5] < v1 1.0 [1.0–1.5] < v2 2.0 [2.0–2.5] < v3 3.0 [3.0–3.5] < v4 4.0 [4.0–4.5] < v5 5.0 [5.0–5.5] ns, "
        "then 2 more and v8 8.0 [8.0–8.5] ns"
    )
    assert _chain(parts[:13], "ns").endswith("v5 5.0 [5.0–5.5] < v6 6.0 [6.0–6.5] ns") and "more" not in _chain(parts[:13], "ns")
