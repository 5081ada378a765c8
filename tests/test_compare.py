"""Comparisons: Welch against scipy, verdicts, refusals, A/A false positives and injected effects."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from synthetic import counters, latency, make_log, matrix, merged, set_aside, with_samples

from numabench.analysis.compare import ASSUMED_SESSION_SD, LEAST_SESSION_SD, VERDICTS, compare
from numabench.analysis.estimate import cell_means, process_medians
from numabench.analysis.identity import reason_codes
from numabench.analysis.judging import welch
from numabench.model import Axis, KernelFacts, MemoryProof, TrialRecord
from numabench.runlog.export import samples
from numabench.runlog.read import RunLog

FACTS = {"name": "toy", "version": 1, "abi": 1, "object_hash": "aa", "compiler": "gcc 14", "flags": "-O2"}
LATENCY = (latency,)


def with_records(log: RunLog, **changes) -> RunLog:
    return msgspec.structs.replace(log, benchmarks=tuple(msgspec.structs.replace(b, **changes) for b in log.benchmarks))


def with_kernel(log: RunLog, **changes) -> RunLog:
    return with_records(log, kernel=KernelFacts(**(FACTS | changes)))


def small(alias="toy", sessions=3, processes=3, seed=0, factor=1.0, benchmarks=LATENCY, **more) -> RunLog:
    return make_log(alias, sessions, processes, 1, seed, benchmarks=benchmarks, scale=lambda name, p: factor, **more)


def test_welch_is_scipys():
    rng = np.random.default_rng(0)
    for a, b in ((3, 5), (8, 8), (2, 20)):
        x, y = rng.normal(0, 1, a), rng.normal(0.5, 3, b)
        expected = stats.ttest_ind(y, x, equal_var=False)
        interval = expected.confidence_interval(0.95)
        zero = (np.zeros(1), np.zeros(1))
        got = welch(
            (np.array([x.mean()]), np.array([y.mean()])),
            (np.array([x.var(ddof=1) / a]), np.array([y.var(ddof=1) / b])),
            (np.array([a - 1]), np.array([b - 1])),
            zero,
        )
        assert tuple(float(g[0]) for g in got) == pytest.approx(
            (y.mean() - x.mean(), interval.low, interval.high, expected.pvalue)
        )


def test_welch_without_any_spread():
    def arrays(*x):
        return tuple(np.array([v]) for v in x)

    assert [float(g[0]) for g in welch(arrays(1.0, 1.0), arrays(0.0, 0.0), arrays(3, 3), arrays(0.0, 0.0))] == [0, 0, 0, 1]
    assert [float(g[0]) for g in welch(arrays(1.0, 2.0), arrays(0.0, 0.0), arrays(3, 3), arrays(0.0, 0.0))] == [1, 1, 1, 0]
    assert np.isnan(welch(arrays(1.0, 2.0), arrays(np.nan, 0.0), arrays(0, 3), arrays(0.0, 0.0))[3]).all()


def test_cells_of_sessions_are_welch_on_session_means():
    base, new = small(sessions=4, seed=1), small("other", sessions=3, seed=2, factor=1.1)
    result = compare(base, new)
    row = result.cells.iloc[0]
    logs = []
    for log in (base, new):
        frame = samples(log)
        frame = frame[frame["case"] == row["case"]]
        logs.append(np.log(frame["value"]).groupby(frame["session"]).mean())
    expected = stats.ttest_ind(logs[1], logs[0], equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["ratio"], row["low"], row["high"]) == pytest.approx(
        tuple(np.exp([logs[1].mean() - logs[0].mean(), interval.low, interval.high]))
    )
    np.testing.assert_allclose(result.cells["p_adjusted"], stats.false_discovery_control(result.cells["p"]))
    assert row["reasons"] == ("these_machines",) and result.comparisons == len(result.cells) == 18


def test_false_discoveries_are_controlled_by_hand():
    """Benjamini and Hochberg's own rule: the largest k with p_(k) <= k q / m, and everything below it."""
    cells = compare(small(seed=1), small(seed=2, factor=1.03)).cells
    p = np.sort(cells["p"])
    under = np.flatnonzero(p <= 0.05 * np.arange(1, len(p) + 1) / len(p))
    rejected = under[-1] + 1 if len(under) else 0
    assert (cells["p_adjusted"] <= 0.05).sum() == rejected


@pytest.mark.parametrize(
    ("processes", "spread", "verdict"), [(7, ASSUMED_SESSION_SD, "unresolved"), (8, LEAST_SESSION_SD, "slower")]
)
def test_one_session_has_a_session_spread(processes, spread, verdict):
    """The least one where its quarters agree, an assumed one where they are too small to tell."""
    sharp = {"sessions": 1, "processes": processes, "sd": (0.0, 0.0002, 0.0)}
    result = compare(small(**sharp, seed=1), small(**sharp, seed=2, factor=1.025))
    assert {r for reasons in result.cells["reasons"] for r in reasons} == {"one_session"}
    width = np.log(result.cells["high"] / result.cells["low"]) / 2
    np.testing.assert_allclose(width, 1.96 * np.sqrt(2) * spread, rtol=0.02)
    assert set(result.cells["verdict"]) == {verdict}


def test_one_process_resolves_nothing():
    result = compare(small(sessions=1, processes=1), small(sessions=1, processes=1, seed=1, factor=2))
    assert set(result.cells["verdict"]) == {"unresolved"} and result.comparisons == 0
    assert all("few_processes" in r for r in result.cells["reasons"]) and result.cells["low"].isna().all()


@pytest.mark.parametrize(("factor", "verdict", "code"), [(1.5, "slower", 1), (0.5, "faster", 0)])
def test_injected_effects_are_found_with_their_polarity(factor, verdict, code):
    shape = {"sessions": 4, "benchmarks": (counters, latency)}
    result = compare(small(**shape, seed=1), small(**shape, seed=2, factor=factor))
    assert set(result.cells["verdict"]) == {verdict} and result.exit_code == code and result.summary[verdict] == len(result.cells)
    means = result.means.set_index("metric")
    assert means.loc["latency", "ratio"] == pytest.approx(factor, rel=0.02)
    assert means.loc["throughput", "ratio"] == pytest.approx(1 / factor, rel=0.02)
    assert means["cells"].to_dict() == {"time_per_operation": 24, "throughput": 24, "latency": 18}


def test_same_wins_over_a_sharp_small_difference():
    sharp = {"sessions": 5, "sd": (0.0005, 0.0005, 0.0)}
    result = compare(small(**sharp, seed=1), small(**sharp, seed=2, factor=1.01))
    assert (result.cells["p_adjusted"] < 0.05).all() and set(result.cells["verdict"]) == {"same"} and result.exit_code == 0
    strict = compare(small(**sharp, seed=1), small(**sharp, seed=2, factor=1.01), same=0.001)
    assert set(strict.cells["verdict"]) == {"slower"}


OPPOSITE = {"faster": "slower", "slower": "faster"}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.8, 1.25), st.integers(1, 4), st.integers(1, 4))
def test_swapping_the_sides_inverts(seed, factor, one, other):
    a = small("a", one, 4, seed)
    b = small("b", other, 4, seed, factor=factor)
    there, back = compare(a, b), compare(b, a)
    for left, right in (("ratio", "ratio"), ("low", "high"), ("high", "low")):
        np.testing.assert_allclose(there.cells[left], 1 / back.cells[right], rtol=1e-9)
    np.testing.assert_allclose(there.cells["p"], back.cells["p"], rtol=1e-9)
    np.testing.assert_array_equal(there.cells["base"], back.cells["new"])
    edge = np.min(np.abs(np.log(np.r_[there.cells["low"], there.cells["high"]])[:, None] - np.log([[1.03, 1 / 1.03, 1]])))
    assume(edge > 1e-9)
    assert [OPPOSITE.get(v, v) for v in there.cells["verdict"]] == list(back.cells["verdict"])
    assert list(there.cells["reasons"]) == list(back.cells["reasons"])


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False), st.floats(0.01, 1000))
def test_order_of_records_and_scale_change_nothing(random, factor):
    base, new = small(seed=3), small("b", seed=4, factor=1.1)
    expected = compare(base, new).cells.set_index("case").sort_index()

    def changed(log):
        trials = list(log.trials)
        random.shuffle(trials)
        log = msgspec.structs.replace(log, trials=tuple(trials))
        return with_samples(log, lambda s, p: msgspec.structs.replace(s, metrics={k: v * factor for k, v in s.metrics.items()}))

    got = compare(changed(base), changed(new)).cells.set_index("case").sort_index()
    np.testing.assert_allclose(
        got[["ratio", "low", "high", "p"]].astype(float), expected[["ratio", "low", "high", "p"]].astype(float), rtol=1e-6
    )
    np.testing.assert_allclose(got["base"], expected["base"] * factor)
    assert ((got["low"] <= got["ratio"]) & (got["ratio"] <= got["high"])).all() and list(got["verdict"]) == list(
        expected["verdict"]
    )


def test_a_against_itself_is_exactly_one():
    result = compare(small(), small())
    assert (result.cells["ratio"] == 1).all() and (result.cells["p"] == 1).all() and result.differs == [] and result.same_machine


@pytest.mark.parametrize(("sessions", "processes", "between"), [(4, 5, 0.01), (1, 12, LEAST_SESSION_SD)])
def test_a_against_a_on_whole_logs(sessions, processes, between):
    """Raw p below 5 % in 3-8 % of cells with replicated sessions, or where these differ no more than is granted; hardly any claim survives the correction."""
    p, claims, cells = [], 0, 0
    for seed in range(12):
        spread = {"sd": (between, 0.01, 0.005), "benchmarks": (latency, matrix)}
        sides = [make_log("toy", sessions, processes, 1, 100 * seed + k, **spread) for k in (1, 2)]
        result = compare(*sides)
        p += list(result.cells["p"])
        claims += result.summary["faster"] + result.summary["slower"]
        cells += len(result.cells)
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.08 and claims <= 0.01 * cells


def test_a_against_a_of_the_test_itself():
    """10,000 comparisons of 4 sessions with 5 processes a side; a 1 % session effect."""
    rng = np.random.default_rng(5)
    x = (rng.normal(0, 0.01, (2, 10_000, 4, 1)) + rng.normal(0, 0.01, (2, 10_000, 4, 5))).mean(axis=3)
    variance, df = x.var(axis=2, ddof=1) / 4, np.full(10_000, 3.0)
    p = welch(tuple(x.mean(axis=2)), tuple(variance), (df, df), (np.zeros(10_000),) * 2)[3]
    assert 0.03 <= np.mean(p < 0.05) <= 0.06


def test_single_sessions_stay_honest_where_the_assumption_holds():
    rng = np.random.default_rng(6)
    x = rng.normal(0, 0.01, (2, 10_000, 1)) + rng.normal(0, 0.01, (2, 10_000, 12))
    variance, df = x.var(axis=2, ddof=1) / 12, np.full(10_000, 11.0)
    known = np.full(10_000, ASSUMED_SESSION_SD**2)
    args = tuple(x.mean(axis=2)), tuple(variance), (df, df)
    assert 0.03 <= np.mean(welch(*args, (known, known))[3] < 0.05) <= 0.08
    assert np.mean(welch(*args, (known * 0, known * 0))[3] < 0.05) > 0.3


REFUSED_ALWAYS = [
    ("kernel_version", lambda log: with_kernel(log, version=2)),
    ("method", lambda log: with_records(with_kernel(log), method={"clock": "monotonic", "order": "random"})),
    (
        "unit",
        lambda log: with_records(
            with_kernel(log), metrics=tuple(msgspec.structs.replace(m, unit="us") for m in log.benchmarks[0].metrics)
        ),
    ),
    (
        "polarity",
        lambda log: with_records(
            with_kernel(log), metrics=tuple(msgspec.structs.replace(m, polarity="higher") for m in log.benchmarks[0].metrics)
        ),
    ),
    (
        "parameter_set",
        lambda log: with_records(with_kernel(log), axes=(*log.benchmarks[0].axes, Axis(name="more", summary="", values=(1,)))),
    ),
]


@pytest.mark.parametrize("alias", ["toy", "other"])
@pytest.mark.parametrize(("code", "change"), REFUSED_ALWAYS, ids=[code for code, _ in REFUSED_ALWAYS])
def test_another_quantity_is_refused(alias, code, change):
    result = compare(with_kernel(small()), change(small(alias, seed=1)))
    assert result.exit_code == 4 and result.comparisons == 0 and result.means.empty
    ((name, reason),) = result.refused
    assert name == "toy_latency" and reason_codes(reason) == [code] and " against " in reason
    assert set(result.cells["verdict"]) == {"incomparable"} and set(result.cells["reasons"]) == {(code,)}
    assert result.cells["ratio"].isna().all() and result.cells["base"].notna().all()


BOUND = [
    (("object_hash",), {"object_hash": "bb"}),
    (("object_hash", "compiler"), {"object_hash": "bb", "compiler": "clang 19"}),
    (("object_hash", "flags"), {"object_hash": "bb", "flags": "-O3"}),
]


@pytest.mark.parametrize(("codes", "change"), BOUND)
def test_the_object_binds_one_machine_and_is_shown_between_machines(codes, change):
    base = with_kernel(small())
    result = compare(base, with_kernel(small(seed=1), **change))
    assert result.exit_code == 4 and {c for _, r in result.refused for c in reason_codes(r)} == {*codes}
    between = compare(base, with_kernel(small("other", seed=1), **change))
    assert between.exit_code == 0 and between.refused == []
    assert {*between.differs} == {(f"toy_latency {code.replace('_', ' ')}", FACTS[code], change[code]) for code in codes}


@pytest.mark.parametrize("change", [{"compiler": "clang 19"}, {"flags": "-O3"}])
def test_one_object_is_one_build_whoever_compiled_it(change):
    """Kernels that were pushed from another machine name its compiler."""
    assert compare(with_kernel(small()), with_kernel(small(seed=1), **change)).refused == []


def test_the_clock_binds_one_machine_and_is_shown_between_machines():
    clock = {"method": {"clock": "tsc"}}
    assert compare(small(), with_records(small(seed=1), **clock)).exit_code == 4
    between = compare(small(), with_records(small("other", seed=1), **clock))
    assert between.exit_code == 0 and between.differs == [("toy_latency method clock", "monotonic", "tsc")]


def test_two_variants_of_one_architecture_are_two_methods():
    """LSE and LL/SC differ several-fold under contention; what another architecture has is shown, and an older log does not say."""

    def made_of(log, instructions: str | None):
        return with_records(log, method={"clock": "monotonic"} | ({"instructions": instructions} if instructions else {}))

    pairs, lse, x86 = "aarch64: LL/SC", "aarch64: LSE", "x86-64: lock prefix"
    for alias in ("toy", "other"):
        base, said = made_of(small(), pairs), made_of(small(alias, seed=1), lse)
        result = compare(base, said)
        assert result.exit_code == 4 and reason_codes(result.refused[0][1]) == ["method"]
        assert result.refused[0][1] == f"method: instructions={pairs} against instructions={lse}"
        mixed = merged(made_of(small(alias, seed=1), pairs), made_of(small(alias, seed=2), lse))
        assert compare(base, mixed).exit_code == 4
        for fine in (pairs, x86, None):
            assert compare(base, made_of(small(alias, seed=1), fine)).exit_code == 0
    shown = compare(made_of(small(), x86), made_of(small("other", seed=1), lse)).differs
    assert shown == [("toy_latency method instructions", x86, lse)]


def test_a_side_that_mixes_versions_is_refused():
    mixed = merged(with_kernel(small()), with_kernel(small(seed=1), version=2))
    result = compare(mixed, mixed)
    assert result.exit_code == 4 and "each side mixes" in result.refused[0][1]


def test_one_refused_benchmark_leaves_the_others():
    base = small(benchmarks=(latency, matrix))
    new = small(seed=1, benchmarks=(latency, matrix))
    new = msgspec.structs.replace(
        new,
        benchmarks=tuple(
            msgspec.structs.replace(b, method={"clock": "monotonic", "order": "x"}) if b.name == "toy_nodes" else b
            for b in new.benchmarks
        ),
    )
    result = compare(base, new)
    assert [name for name, _ in result.refused] == ["toy_nodes"] and result.exit_code == 0
    assert set(result.cells.query("benchmark == 'toy_nodes'")["verdict"]) == {"incomparable"} and result.comparisons == 18
    assert list(result.means["benchmark"]) == ["toy_latency"]


def test_what_else_differs_is_listed_and_jitter_is_not():
    new = small(
        "b", machine={"configuration": {"kernel": "6.2", "mitigations": {"mds": "off"}}, "uptime": 5, "load": 3, "brand": "Toy 2"}
    )
    assert sorted(compare(small(), new).differs) == [
        ("brand", "Toy CPU", "Toy 2"),
        ("kernel", "6.1", "6.2"),
        ("mitigations.mds", "–", "off"),
    ]


def test_cells_of_one_side_only_are_incomparable():
    base, new = small(), small(seed=1)
    new = with_samples(new, lambda s, p: None if s.parameters["order"] == "random" else s)
    for sides, code in (((base, new), "only_base"), ((new, base), "only_new")):
        result = compare(*sides)
        rows = result.cells[result.cells["order"] == "random"]
        assert set(rows["verdict"]) == {"incomparable"} and set(rows["reasons"]) == {(code,)}
        assert result.means["cells"].tolist() == [9] and result.summary["incomparable"] == 9


def test_failed_trials_make_missing_cells_failed():
    base, new = small(), small(seed=1)
    failed = TrialRecord(
        run=new.trials[0].run,
        session=new.trials[0].session,
        benchmark="toy_latency",
        block="0",
        process=9,
        started="",
        duration=1.0,
        startup=0.1,
        status="failed",
        reasons=("crashed",),
    )
    new = with_samples(new, lambda s, p: None if s.parameters["order"] == "random" else s)
    result = compare(base, msgspec.structs.replace(new, trials=(*new.trials, failed)))
    assert set(result.cells[result.cells["order"] == "random"]["verdict"]) == {"failed"} and result.summary["failed"] == 9
    nothing = compare(base, small(seed=1, disturbed=1.1))
    assert set(nothing.cells["verdict"]) == {"failed"} and nothing.exit_code == 4
    assert set(nothing.cells["reasons"]) == {("no_valid_samples_new",)}


def test_different_benchmarks_have_nothing_in_common():
    result = compare(small(), small(benchmarks=(matrix,)))
    assert result.exit_code == 4 and set(result.cells["verdict"]) == {"incomparable"} and list(result.summary) == list(VERDICTS)


@pytest.mark.parametrize(
    ("reason", "first", "verdict", "why"),
    [
        ("pages", 3, "unresolved", "failed_proofs"),
        ("pages", 2, "slower", ""),
        ("pages run_delay", 3, "unresolved", "failed_proofs"),
        ("run_delay", 8, "slower", ""),
        ("gaps frequency_changed", 8, "slower", ""),
    ],
)
def test_failed_proofs_resolve_nothing_and_doubtful_samples_only_what_hangs_on_them(reason, first, verdict, why):
    """`first` of ten processes are set aside. What they measured is like the rest."""
    new = small(processes=10, seed=1, factor=2)
    marked = with_samples(new, lambda s, p: set_aside(s, *reason.split()) if p < first else s)
    result = compare(small(processes=10), marked)
    assert set(result.cells["verdict"]) == {verdict} and all((why in r) or not why for r in result.cells["reasons"])


@pytest.mark.parametrize(
    ("factor", "slowness", "hangs"), [(0.8, 1e3, True), (0.8, 1.001, False), (1.0, 1.4, True), (1.0, 1.001, False)]
)
@pytest.mark.parametrize(("reason", "counts"), [("run_delay", True), ("physics:too fast", False)])
def test_a_verdict_that_hangs_on_the_disturbed_samples_is_none(factor, slowness, hangs, reason, counts):
    """One of seven processes a session, too few for the odd ones to be left out, is set aside, and took `slowness` times as long: a proof that failed says nothing, a doubt may be the truth."""

    def slow_ones_set_aside(sample, process):
        slow = msgspec.structs.replace(sample, metrics={k: v * slowness for k, v in sample.metrics.items()})
        return sample if process else set_aside(slow, reason)

    new = with_samples(small(processes=7, seed=1, factor=factor, sd=(0.0, 0.002, 0.001)), slow_ones_set_aside)
    result = compare(small(processes=7, sd=(0.0, 0.002, 0.001)), new)
    if hangs and counts:
        assert set(result.cells["verdict"]) == {"unresolved"} and all(r == ("disturbed",) for r in result.cells["reasons"])
    else:
        assert set(result.cells["verdict"]) == {"same" if factor == 1 else "faster"}


def memory_of(huge: int) -> MemoryProof:
    return MemoryProof(bytes=2**21, page_size="thp", node=0, pages={"0": 512}, huge_bytes=huge, page_bytes=4096)


def test_pages_really_obtained_are_part_of_the_method():
    def paged(log, huge):
        return with_samples(log, lambda s, p: msgspec.structs.replace(s, memory=memory_of(huge)))

    assert compare(paged(small(), 2**21), paged(small(seed=1), 2**21)).exit_code == 0
    result = compare(paged(small(), 2**21), paged(small("other", seed=1), 0))
    assert result.exit_code == 4 and set(result.cells["reasons"]) == {("page_size",)}


def counted(alias="toy", hop=27.0, seed=0, **more):
    return small(alias, seed=seed, benchmarks=(counters,), hop_ns=hop, **more)


def test_distances_of_one_machine_match_within_the_factor_only():
    near = compare(counted(), counted(hop=30.0, seed=1))
    assert set(near.cells["distance"]) == {"27 ns"} and set(near.cells["distance_new"]) == {"30 ns"} and near.exit_code == 0
    far = compare(counted(), counted(hop=107.0, seed=1))
    assert far.exit_code == 4 and set(far.cells["reasons"]) == {("distance",)} and len(far.cells) == 96
    machines = compare(counted(), counted("other", hop=107.0, seed=1))
    assert machines.exit_code == 0 and len(machines.cells) == 48 and set(machines.cells["distance_new"]) == {"110 ns"}


def test_one_machine_is_compared_class_by_class():
    both = [merged(counted(seed=k), counted(hop=107.0, seed=k + 10, factor=3.0)) for k in (1, 2)]
    result = compare(*both)
    assert len(result.cells) == 96 and set(result.cells["distance"]) == {"27 ns", "110 ns"} and result.cells["main"].sum() == 48
    assert result.cells["ratio"].between(0.9, 1.1).all() and result.summary["incomparable"] == 0


def group(aliases, seed=0, factor=1.0, **more):
    return merged(*(small(alias, seed=seed, factor=factor, **more) for alias in aliases))


def test_in_groups_the_machine_is_the_unit():
    base, new = group("abc"), group("defg", factor=1.5)
    result = compare(base, new)
    row = result.cells.iloc[0]
    logs = []
    for log in (base, new):
        means = cell_means(process_medians(samples(log)))
        logs.append(means[means["case"] == row["case"]]["mean"].to_numpy())
    expected = stats.ttest_ind(logs[1], logs[0], equal_var=False)
    assert row["p"] == pytest.approx(expected.pvalue) and row["reasons"] == () and row["verdict"] == "slower"
    assert len(result.base_machines) == 3 and len(result.new_machines) == 4


def test_groups_of_single_sessions_need_no_assumption():
    sides = group("abc", sessions=1), group("def", sessions=1)
    row = compare(*sides).cells.iloc[0]
    means = [cell_means(process_medians(samples(log))).query(f"case == '{row['case']}'")["mean"] for log in sides]
    assert row["p"] == pytest.approx(stats.ttest_ind(means[1], means[0], equal_var=False).pvalue) and row["reasons"] == ()


def test_two_machines_are_these_machines():
    result = compare(group("ab"), group("cde"))
    assert set(result.cells["reasons"]) == {("these_machines",)}
    row = result.cells.iloc[0]
    variances = []
    for log, n in ((group("ab"), 2), (group("cde"), 3)):
        means = cell_means(process_medians(samples(log)))
        own = means[means["case"] == row["case"]]["variance"].to_numpy() / n**2
        variances.append((own.sum(), (own**2 / 2).sum()))
    total, fourth = map(sum, zip(*variances, strict=True))
    half = stats.t.ppf(0.975, total**2 / fourth) * np.sqrt(total)
    assert np.log(row["high"] / row["ratio"]) == pytest.approx(half)


def test_empty_logs_are_not_comparable():
    result = compare(small(processes=0), small(processes=0))
    assert result.exit_code == 4 and result.cells.empty and result.comparisons == 0 and result.means.empty


def test_large_logs_are_quick():
    """2 x (300 cells, 20 processes, 3 samples). Generous (0.7 s in practice): holds against loops over groups."""
    logs = [make_log(alias, 1, 20, 3, benchmarks=(matrix,), nodes=18) for alias in "ab"]
    begin = time.perf_counter()
    result = compare(*logs)
    assert len(result.cells) == 324 and time.perf_counter() - begin < 8
    assert isinstance(result.cells, pd.DataFrame)
