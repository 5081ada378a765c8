"""The rows of a comparison: what they are of, their verdicts on planted effects, prices, gates, and what would settle the rest."""

from __future__ import annotations

import itertools
import random

import msgspec
import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import matrix, with_samples

from numabench.analysis.compare import compare
from numabench.analysis.gates import apply_gate, chosen, parse_gate
from numabench.analysis.quantities import quantities, shared_quantities
from numabench.analysis.rows import ROW_VERDICTS, UNKNOWN, in_order, needed
from numabench.errors import UsageError
from numabench.model import Answer, Card, KernelFacts, MemoryProof, Price, Tile
from numabench.report import brief

QUIET = {"sd": (0.001, 0.002, 0.001)}
SHARED = {"operation": "increment", "stride": 8, "spacing": 0}


def asks(metric="latency", text="memory", kind="cell", **answer) -> Answer:
    return Answer(kind=kind, metric=metric, text=text, **answer)


def carded(make, *prices: Answer, tiles: tuple[Tile, ...] = ()):
    def made(run, *more):
        card = Card(prices=tuple(Price(answer=a, rank=n) for n, a in enumerate(prices)), tiles=tiles)
        return msgspec.structs.replace(make(run, *more), card=card)

    return made


counters, latency = carded(synthetic.counters), carded(synthetic.latency)  # that declare nothing


def make_log(*arguments, benchmarks=(counters, latency, matrix), **options):
    return synthetic.make_log(*arguments, benchmarks=benchmarks, **options)


def memory_at(size: int):
    return carded(latency, asks(where={"size": size, "order": "group"}))


def sharing(kind="difference"):
    return carded(counters, asks("time_per_operation", "sharing", kind, where=SHARED, against={"stride": 256}))


def merged(*logs):
    fields = ("headers", "benchmarks", "trials", "ends")
    parts = {f: tuple(itertools.chain.from_iterable(getattr(log, f) for log in logs)) for f in fields}
    return msgspec.structs.replace(logs[0], **parts)


def of(comparison, quantity: str):
    return comparison.rows.set_index("quantity").loc[quantity]


# ---- which rows there are ------------------------------------------------------------------------------------------------------------


def test_quantities_are_what_benchmarks_put_on_the_card():
    where = {"size": 2**27, "order": "group"}
    tiles = (
        Tile(subject="same again", answer=asks(where=where, text="a load from memory"), rank=1),
        Tile(subject="whole", answer=asks(where={}, kind="ratio", text="made of two"), rank=2),
        Tile(subject="best", answer=asks(where={"order": "group"}, kind="best", axis="size", text="fastest"), rank=3),
    )
    found = quantities([carded(latency, asks(where=where, text="memory (added)"), tiles=tiles)("r")])
    assert [(q.name, q.best) for q in found] == [("memory", False), ("best", True)]


def test_what_declares_nothing_is_one_row_of_its_first_metric():
    ((base, new),) = shared_quantities([counters("a")], [counters("b"), latency("b")])
    assert base == new and (base.name, base.metric, base.point) == ("toy counters", "time_per_operation", None)


def test_one_side_can_declare_for_both():
    log = make_log(benchmarks=(latency,), **QUIET)
    for sides in ((log, make_log("b", benchmarks=(memory_at(2**27),), **QUIET)),):
        for pair in (sides, sides[::-1]):
            assert list(compare(*pair).rows["quantity"]) == ["memory"]


# ---- verdicts ------------------------------------------------------------------------------------------------------------------------


def test_a_row_of_one_cell_is_that_cell():
    sides = [make_log(a, benchmarks=(memory_at(2**27), matrix), seed=n, scale=lambda *_, n=n: 1.2**n) for n, a in enumerate("ab")]
    result = compare(*sides)
    cell = result.cells.query("benchmark == 'toy_latency' and size == 2**27 and order == 'group'").iloc[0]
    row = of(result, "memory")
    for mine, its in (
        ("p", "p"),
        ("p_adjusted", "p_adjusted"),
        ("base", "base"),
        ("new_high", "new_high"),
        ("reasons", "reasons"),
    ):
        assert row[mine] == (pytest.approx(cell[its]) if mine != "reasons" else cell[its])
    assert (1 + row["change"], 1 + row["low"], 1 + row["high"]) == pytest.approx((cell["ratio"], cell["low"], cell["high"]))
    assert row["verdict"] == "worse" and cell["verdict"] == "slower" and row["cells"] == row["worse"] == 1


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "worse"), (0.9, "better"), (1.002, "same")])
def test_a_planted_effect_is_found_in_a_row_of_many_cells(factor, verdict):
    sides = [
        make_log(a, sessions=3, benchmarks=(matrix,), seed=n, scale=lambda *_, n=n: factor**n, **QUIET)
        for n, a in enumerate("ab")
    ]
    row = of(compare(*sides), "toy nodes")
    assert row["verdict"] == verdict and row["cells"] == 16
    assert row["low"] <= factor - 1 <= row["high"] and row["change"] == pytest.approx(factor - 1, abs=0.005)


def test_a_row_is_no_surer_than_its_cells_are_together():
    """Its standard deviation is the mean of theirs: with one cell less sure than another, between the two."""
    sides = [make_log(a, sessions=4, benchmarks=(latency,), seed=n) for n, a in enumerate("ab")]
    result = compare(*sides)
    width = np.log1p(of(result, "toy latency")["high"]) - np.log1p(of(result, "toy latency")["low"])
    assert width >= np.log(result.cells["high"] / result.cells["low"]).mean() * 0.9


def visits(alias: str, seed: int, sessions: int = 4):
    """A machine whose visits differ by 1 % in all cells together: what a hypervisor does."""
    rng = random.Random(f"{alias}{seed}")
    shifts = [2.718281828 ** rng.gauss(0, 0.01) for _ in range(sessions)]
    logs = [
        make_log(alias, 1, 3, 1, 100 * seed + n, benchmarks=(matrix,), scale=lambda *_, s=s: s, sd=(0.0, 0.002, 0.001))
        for n, s in enumerate(shifts)
    ]
    return merged(*logs)


def test_rows_of_machines_alike_are_seldom_called_different():
    """16 cells that move together: by the mean of independent ones' variance a third of these would be claims."""
    rows = [of(compare(visits("a", seed), visits("b", seed)), "toy nodes") for seed in range(40)]
    assert sum(row["p"] < 0.05 for row in rows) <= 5 and sum(row["verdict"] in ("worse", "better") for row in rows) <= 2
    assert sum(row["low"] <= 0 <= row["high"] for row in rows) >= 35


def test_rows_of_one_machine_measured_twice():
    claims = rows = 0
    for seed in range(8):
        sides = [make_log("toy", 1, 8, 1, 10 * seed + n, benchmarks=(sharing(), latency, matrix)) for n in (1, 2)]
        found = compare(*sides).rows
        claims, rows = claims + found["verdict"].isin(("worse", "better")).sum(), rows + len(found)
    assert rows == 24 and claims <= 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.8, 1.25))
def test_swapping_the_sides_inverts_rows(seed, factor):
    a = make_log("a", 2, 4, 1, seed, benchmarks=(memory_at(2**27), matrix))
    b = make_log("b", 2, 4, 1, seed + 1, benchmarks=(memory_at(2**27), matrix), scale=lambda *_: factor)
    there, back = (compare(*pair).rows.set_index("quantity") for pair in ((a, b), (b, a)))
    for name in there.index:
        one, other = there.loc[name], back.loc[name]
        assert (1 + one["change"]) * (1 + other["change"]) == pytest.approx(1) and one["p"] == pytest.approx(other["p"])
        assert (1 + one["low"]) * (1 + other["high"]) == pytest.approx(1)
        assert {"worse": "better", "better": "worse"}.get(one["verdict"], one["verdict"]) == other["verdict"]


def test_a_difference_is_compared_as_one():
    """30 % on the cost of sharing, of which the loop around it has no part: 27 ns of 28.2."""

    def slower(_, p):
        plain = 1.2
        return (
            (plain + 27 * 1.3) / (plain + 27)
            if p.get("operation") == "increment" and p["stride"] < 64 and not p["spacing"]
            else 1.0
        )

    sides = [
        make_log("a", benchmarks=(sharing(),), **QUIET),
        make_log("b", benchmarks=(sharing(),), scale=slower, seed=1, **QUIET),
    ]
    result = compare(*sides)
    row = of(result, "sharing")
    assert (
        row["base"] == pytest.approx(27, rel=0.01) and row["change"] == pytest.approx(0.3, abs=0.02) and row["verdict"] == "worse"
    )
    assert not result.cells["metric"].str.contains("-").any(), "a difference is no cell"


def pages(huge: int) -> MemoryProof:
    return MemoryProof(bytes=2**27, page_size="thp", node=0, pages={"0": 1}, huge_bytes=huge, page_bytes=4096)


def test_memory_is_memory_on_either_machine():
    """Each machine's own working set, under one name; its kernels must be of one version all the same."""

    def of_size(alias, size, factor=1.0, **more):
        log = make_log(alias, benchmarks=(memory_at(size),), seed=len(alias), scale=lambda *_: factor, **QUIET, **more)
        return with_samples(log, lambda s, p: s if s.parameters["size"] in (size, 2**11) else None)

    base, new = of_size("a", 2**25), of_size("bb", 2**27, 1.1)
    row = of(compare(base, new), "memory")
    assert row["points"] and row["verdict"] == "worse" and row["change"] == pytest.approx(0.1, abs=0.01)
    huge = with_samples(new, lambda s, p: msgspec.structs.replace(s, memory=pages(2**27)))
    assert (
        of(compare(with_samples(base, lambda s, p: msgspec.structs.replace(s, memory=pages(0))), huge), "memory")["verdict"]
        == UNKNOWN
    )
    other = msgspec.structs.replace(
        new, benchmarks=tuple(msgspec.structs.replace(b, method={"clock": "other", "order": "x"}) for b in new.benchmarks)
    )
    row = of(compare(base, other), "memory")
    assert row["verdict"] == UNKNOWN and row["reasons"] == ("method",) and np.isnan(row["change"]) and row["new"] > 90


def test_worse_first_and_the_parts_are_the_whole():
    def slower(name, p):
        return {"toy_counters": 1.2, "toy_latency": 0.7, "toy_nodes": 1.4}[name]

    result = compare(make_log(**QUIET), make_log("b", seed=1, scale=slower, **QUIET))
    assert list(result.rows["quantity"]) == ["toy nodes", "toy counters", "toy latency"]
    assert list(result.rows["verdict"]) == ["worse", "worse", "better"]
    assert sum(brief.counts(result.rows["verdict"]).values()) == len(result.rows) == 3
    assert sum(brief.cell_counts(result).values()) == len(result.cells)
    assert (result.rows[[v.replace(" ", "_") for v in ROW_VERDICTS]].sum(axis=1) == result.rows["cells"]).all()
    assert in_order(result.rows.iloc[::-1])["quantity"].tolist() == result.rows["quantity"].tolist()


def test_few_processes_decide_nothing_and_it_is_said_how_many_would():
    options = {"benchmarks": (memory_at(2**27),), "processes": 5, "sd": (0.0, 0.03, 0.001)}
    result = compare(make_log(**options), make_log("b", seed=1, scale=lambda *_: 1.05, **options))
    row = of(result, "memory")
    assert row["verdict"] == UNKNOWN and (row["processes"] > 5 or row["visits"] >= 2)
    assert "numabench run toy_latency" in brief.steps(result)[0].command
    one = {**options, "processes": 1}
    assert of(compare(make_log(**one), make_log("b", **one)), "memory")["processes"] == 8


@pytest.mark.parametrize(("effect", "spread"), [(1.09, 0.03), (1.0, 0.02)])
def test_what_would_settle_a_row_does(effect, spread):
    """So many processes or visits as it asks for, of machines that differ by what it saw, are enough in most comparisons."""

    def row_of(processes, sessions, seed):
        options = {"benchmarks": (memory_at(2**27),), "sessions": sessions, "processes": processes, "samples": 1}
        options["sd"] = (0.0 if sessions == 1 else 0.01, spread, 0.001)
        return of(compare(make_log(seed=seed, **options), make_log(seed=seed + 1, scale=lambda *_: effect, **options)), "memory")

    side = {"variance": spread**2 / 6, "df": 5.0, "assumed": 0.01**2, "single": 1.0, "group": 0.0}
    seen = pd.Series(
        {f"{name}_{end}": x for name, x in side.items() for end in ("base", "new")}
        | {"mean_base": 0.0, "mean_new": np.log(effect)}
    )
    processes, visits = needed(seen, UNKNOWN, 0.03)
    assert np.isfinite(processes) == (effect > 1) and np.isfinite(visits) == (effect == 1)
    design = (int(processes), 1) if effect > 1 else (6, int(visits))
    settled = np.mean([row_of(*design, 2 * seed)["verdict"] != UNKNOWN for seed in range(20)])
    assert settled >= 0.6, f"{design}: {settled:.0%}"


# ---- kernels built anew ----------------------------------------------------------------------------------------------------------------


def built(log, version=1, digest="aa"):
    facts = KernelFacts(name="toy", version=version, abi=1, object_hash=digest, compiler="gcc 14", flags="-O2")
    return msgspec.structs.replace(log, benchmarks=tuple(msgspec.structs.replace(b, kernel=facts) for b in log.benchmarks))


def test_of_another_version_it_is_said_what_can_be_compared():
    names = {"toy_counters": 2}
    base = built(make_log(**QUIET))
    new = built(make_log(seed=1, **QUIET), digest="bb")
    changed = (
        msgspec.structs.replace(b, kernel=msgspec.structs.replace(b.kernel, version=names.get(b.name, 1))) for b in new.benchmarks
    )
    new = msgspec.structs.replace(new, benchmarks=tuple(changed))
    strict, across = compare(base, new), compare(base, new, across_builds=True)
    assert strict.exit_code == 4 and set(strict.rows["verdict"]) == {UNKNOWN}
    said = brief.refusal_line(strict)
    assert "another version or method): toy_counters" in said and "the other 2 (--across-builds compares them)" in said
    assert across.exit_code == 0 and dict(across.rows[["quantity", "verdict"]].values)["toy latency"] == "same"
    assert of(across, "toy counters")["reasons"] == ("kernel_version",) and "--across-builds" not in brief.refusal_line(across)


# ---- prices ------------------------------------------------------------------------------------------------------------------------------


def test_prices_turn_times_and_rates_into_work_for_the_money():
    rate = carded(counters, asks("time_per_operation", "time", where=SHARED), asks("throughput", "rate", where=SHARED))
    sides = [make_log(a, benchmarks=(rate,), seed=n, scale=lambda *_, n=n: 1.1**n, **QUIET) for n, a in enumerate("ab")]
    result = compare(*sides, prices=(0.2, 0.1))
    plain, priced = result.rows.set_index("quantity"), result.priced.set_index("quantity")
    assert list(plain["verdict"]) == ["worse", "worse"] and list(priced["verdict"]) == ["better", "better"]
    for name in ("time", "rate"):  # 1.1 times as long, at half the price: 1.82 times the work
        assert priced.loc[name, "change"] == pytest.approx(2 / 1.1 - 1, rel=0.01)
        assert priced.loc[name, "low"] < priced.loc[name, "change"] < priced.loc[name, "high"]
    assert result.exit_code == 1, "a price does not make a machine faster"
    assert brief.sentence(result).startswith("For the same money, b does 8")


# ---- conditions ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slower():
    def scale(name, p):
        return 1.2 if name == "toy_latency" else 1.0

    benchmarks = (memory_at(2**27), counters)
    sides = [
        make_log(a, benchmarks=benchmarks, seed=n, scale=scale if n else lambda *_: 1.0, **QUIET) for n, a in enumerate("ab")
    ]
    return compare(*sides)


TOPICS = {"toy_latency": "memory", "toy_counters": "cores"}


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("latency > 10%", ("memory",)),
        ("memory>10 %", ("memory",)),
        ("toy_latency > 10.5%", ("memory",)),
        ("Toy Latency > 19.5%", ()),  # the interval reaches below it
        ("latency > 25%", ()),
        ("latency < -5%", ()),
        ("cores > 1%", ()),
        ("time_per_operation < −1%", ()),
    ],
)
def test_conditions_need_the_whole_interval(slower, text, failed):
    found = apply_gate(parse_gate(text), slower.rows, TOPICS, slower.q)
    assert found.failed == failed and found.compared == found.matched == 1


@pytest.mark.parametrize("text", ["latency", "latency > 10", "> 10%", "latency >= 10%", "latency > ten%", ""])
def test_what_is_no_condition_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="latency > 10%"):
        parse_gate(text)


def test_unknown_names_are_answered_with_near_ones(slower):
    with pytest.raises(UsageError, match="did you mean memory"):
        apply_gate(parse_gate("memry > 1%"), slower.rows, TOPICS, slower.q)
    with pytest.raises(UsageError, match="did you mean toy latency"):
        chosen(["toy_latncy"], TOPICS, TOPICS)
    assert chosen(["memory", "Toy Counters"], TOPICS, TOPICS) == {"toy_latency", "toy_counters"}


def test_a_doubtful_row_fails_no_condition(slower):
    rows = slower.rows.copy()
    rows["reasons"] = [("disturbed",)] * len(rows)
    assert apply_gate(parse_gate("latency > 1%"), rows, TOPICS, slower.q).failed == ()


def test_only_some_benchmarks():
    sides = make_log(**QUIET), make_log("b", seed=1, **QUIET)
    whole, some = compare(*sides), compare(*sides, only=("toy_latency",))
    assert list(some.rows["quantity"]) == ["toy latency"] and set(some.cells["benchmark"]) == {"toy_latency"}
    mine = whole.cells[whole.cells["benchmark"] == "toy_latency"]
    np.testing.assert_allclose(some.cells["ratio"], mine["ratio"])


# ---- words ---------------------------------------------------------------------------------------------------------------------------------


def test_a_change_is_said_in_one_direction(slower):
    row = dict(of(slower, "memory"))
    for change, polarity, unit, said in (
        (0.123, "lower", "ns", "12 % slower"),
        (-0.042, "lower", "ns", "4.2 % faster"),
        (1.4, "lower", "s", "140 % slower"),
        (0.05, "higher", "B/s", "5.0 % more"),
        (-0.5, "higher", "operation/s", "50 % less"),
        (0.3, "lower", "per 10^8", "30 % higher"),
        (0.0001, "lower", "ns", "no change"),
        (float("nan"), "lower", "ns", "–"),
    ):
        assert brief.change_text({**row, "change": change, "polarity": polarity, "unit": unit}, False) == said
    assert brief.interval_text(0.1, 0.14) == "+10.0…+14.0 %" and brief.interval_text(-0.2, 0.31) == "−20…+31 %"


def test_the_sentence_for_who_reads_nothing_else(slower):
    assert (
        brief.sentence(slower) == "b is 20 % slower in memory and is equal in everything else (1 of 2)."
        or brief.sentence(slower) == "b is 20 % slower in memory and equal in everything else (1 of 2)."
    )
    alike = compare(make_log(**QUIET), make_log("b", seed=1, **QUIET))
    assert brief.sentence(alike) == "b and toy are equal (within ±3 %) in all 3 that could be judged."
    nothing = compare(make_log(benchmarks=(latency,)), make_log("b", benchmarks=(matrix,)))
    assert brief.sentence(nothing) == "Nothing of b and toy could be compared: they have no benchmark in common."
