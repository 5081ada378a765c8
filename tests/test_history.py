"""When a machine's figures changed: the statistic, its rate of false alarms and its power, and what is said of visits and facts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from pages import write_log
from synthetic import latency, make_log, matrix

from numabench.analysis import digest, history, steps
from numabench.analysis.collect import read_fleet
from numabench.analysis.history import judge_history
from numabench.cli.history import command
from numabench.errors import UsageError

GROUP = np.repeat(np.arange(10), 20)  # 200 cells of ten benchmarks


def tailed(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_t(5, shape) / np.sqrt(5 / 3)


def series(seed: int, units: int) -> np.ndarray:
    """Cells that move together from visit to visit, and by benchmark, and by themselves, with heavy tails."""
    rng = np.random.default_rng(seed)
    own = 0.004 * np.exp(0.7 * rng.standard_normal(200))
    together = np.repeat(tailed(rng, units, 10), 20, axis=1)
    return 0.006 * tailed(rng, units, 1) + 0.004 * together + own * tailed(rng, units, 200)


def stepped(seed: int, units: int, share: float, at: int, cells: slice = slice(0, 20)) -> np.ndarray:
    values = series(seed, units)
    values[at:, cells] += np.log1p(share)
    return values


# -- the test -----------------------------------------------------------------------------------------------------------


def test_the_statistic_is_the_squared_distance_of_the_means():
    z = steps.scaled(series(1, 14))
    order = np.random.default_rng(2).permutation(14)
    alike = np.stack([z[:, number == GROUP] @ z[:, number == GROUP].T for number in range(10)])
    found = steps._statistics(alike, order[None])[0]
    for number, before in itertools.product((0, 7), (3, 7, 11)):
        rows = z[order][:, number == GROUP]
        apart = rows[:before].mean(axis=0) - rows[before:].mean(axis=0)
        assert found[number, before - steps.LEAST_SIDE] == pytest.approx((apart**2).sum() * before * (14 - before) / 14)


@pytest.mark.parametrize("units", [12, 20])
def test_one_machine_in_twenty_is_called_changed_that_is_not(units, monkeypatch):
    monkeypatch.setattr(steps, "ORDERS", steps.FEW_ORDERS)
    alarms = [steps.find_steps(series(seed, units), GROUP).p <= 0.05 for seed in range(200)]
    assert 0.02 <= np.mean(alarms) <= 0.09


def test_a_step_of_three_per_cent_is_found_where_it_is(monkeypatch, units=20):
    monkeypatch.setattr(steps, "ORDERS", steps.FEW_ORDERS)
    found = [steps.find_steps(stepped(seed, units, 0.03, units - 8, slice(0, 12)), GROUP) for seed in range(30)]
    assert np.mean([bool(one.steps) for one in found]) >= 0.8
    placed = [one.steps[0].at for one in found if one.steps]
    assert np.mean([abs(at - (units - 8)) <= 1 for at in placed]) >= 0.8
    assert np.mean([one.steps[0].groups == (0,) for one in found if one.steps]) >= 0.7


def test_single_spikes_are_no_change(monkeypatch):
    monkeypatch.setattr(steps, "ORDERS", steps.FEW_ORDERS)

    def spiked(seed: int) -> np.ndarray:
        values = series(seed, 24)
        values[seed % 20 + 2, :40] += 0.5
        return values

    assert np.mean([bool(steps.find_steps(spiked(seed), GROUP).steps) for seed in range(40)]) <= 0.15


def test_two_steps_are_told_apart():
    values = stepped(4, 48, 0.06, 16)
    values[32:, 40:60] += np.log(0.92)
    found = steps.find_steps(values, GROUP)
    assert [step.at for step in found.steps] == [16, 32] and [step.groups for step in found.steps] == [(0,), (2,)]
    assert steps.bounds(found.steps, 0, 48) == (0, 32) and steps.bounds(found.steps, 1, 48) == (16, 48)
    assert np.expm1(np.median(steps.change_at(values, 32, 16, 48)[40:60])) == pytest.approx(-0.08, abs=0.01)


def test_what_is_missing_says_nothing():
    values = stepped(5, 24, 0.08, 12)
    rng = np.random.default_rng(5)
    values[rng.random(values.shape) < 0.2] = np.nan
    assert [step.at for step in steps.find_steps(values, GROUP).steps] == [12]
    values[:, 30] = np.nan
    assert [step.at for step in steps.find_steps(values, GROUP).steps] == [12]
    still = np.zeros((20, 200))  # figures that do not vary at all
    assert steps.find_steps(still, GROUP).p == 1.0


def test_p_is_as_small_as_many_machines_ask_for():
    values = stepped(6, 16, 0.1, 8)
    assert steps.find_steps(values, GROUP).p == pytest.approx(0.001)
    assert steps.find_steps(values, GROUP, more=True).p < 0.0005


def test_the_smallest_step_is_one_that_is_found():
    values = series(7, 20)
    share = steps.smallest_step(values, GROUP, 3)
    assert share in steps.TRIED[1:-1]
    found = steps.find_steps(values + np.log1p(4 * share) * ((np.arange(20)[:, None] >= 10) & (GROUP == 3)), GROUP)
    assert any(3 in step.groups for step in found.steps)


# -- visits and facts ---------------------------------------------------------------------------------------------------


def visit(folder: Path, alias: str, number: int, factor: float = 1.0, hour: int = 8, day: int | None = None, **facts) -> None:
    day = number if day is None else day
    machine = {"configuration": {"kernel": "6.1"} | facts}
    changed = {"toy_latency": factor}
    log = make_log(
        alias, 1, 6, 1, number, sd=(0.005, 0.003, 0.002), benchmarks=(latency, matrix), machine=machine,
        scale=lambda name, p: changed.get(name, 1.0),
    )  # fmt: skip
    started = f"2026-{1 + day // 28:02}-{day % 28 + 1:02}T{hour:02}:00:00Z"
    headers = tuple(msgspec.structs.replace(header, started=started) for header in log.headers)
    write_log(msgspec.structs.replace(log, headers=headers), folder / alias / f"{number}.jsonl")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """web became slow with a kernel on its 15th day (and was noted in another zone on one day), db did not, new has four visits."""
    folder = tmp_path_factory.mktemp("history")
    for number in range(22):
        slow = number >= 14
        visit(
            folder, "web", number, 1.08 if slow else 1.0, kernel="6.8" if slow else "6.1", zone="odd" if number == 3 else "usual"
        )
        visit(folder, "db", number)
    for number in range(4):
        visit(folder, "new", number)
    (folder / "broken.jsonl").write_text("no log\n")
    return folder


def invoke(*arguments: str):
    return CliRunner().invoke(command, list(map(str, arguments)), env={"COLUMNS": "200"})


def test_a_change_is_told_with_its_day_its_size_and_the_facts_that_changed(runs):
    done = invoke(runs)
    assert done.exit_code == 1, done.output
    web, db, new, broken = (
        next(line for line in done.output.splitlines() if name in line) for name in ("web:", "db:", "new:", "broken")
    )
    assert "22 visits on 22 days, 2026-01-01 to 2026-01-22" in web and "no change; a step of" in db and "8 days more" in new
    assert "  since 2026-01-15  p " in done.output and "run web-14-0" in done.output
    assert "    worse   Toy latency, latency +8" in done.output and "18 of 18 cells" in done.output
    assert "    changed with it: kernel 6.1 → 6.8\n" in done.output and "zone" not in done.output
    assert broken.startswith("not read: ") and "matrix" not in done.output


def test_one_machine_by_its_alias_or_id(runs):
    for name in ("db", "id-db"):
        done = invoke(runs, name)
        assert done.exit_code == 0 and "web" not in done.output and "no change" in done.output
    assert invoke(runs, "new").exit_code == 4
    done = invoke(runs, "wed")
    assert isinstance(done.exception, UsageError) and "did you mean web" in str(done.exception)


def test_smaller_than_asked_for_is_told_and_fails_nothing(runs):
    done = invoke(runs, "web", "--same", "20%")
    assert done.exit_code == 0 and "worse   Toy latency" in done.output


def test_json_is_as_its_schema_says(runs, tmp_path):
    done = invoke(runs, "--format", "json", "-o", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    schema = json.loads((Path(__file__).parent.parent / "docs" / "output.schema.json").read_text())
    jsonschema.validate(found, schema | {"$ref": schema["properties"]["history"]["$ref"]})
    (changed,) = [one for one in found["machines"] if one.get("changes")]
    (change,) = changed["changes"]
    assert changed["alias"] == "web" and change["facts"] == {"kernel": ["6.1", "6.8"]} and done.exit_code == 1
    assert (
        change["moved"][0]["verdict"] == "worse"
        and change["moved"][0]["low"] <= change["moved"][0]["change"] <= change["moved"][0]["high"]
    )


def test_visits_of_one_day_are_one(tmp_path):
    """Nine days of two visits each are nine units; each by itself there are enough."""
    for number in range(18):
        visit(tmp_path, "m", number, day=number // 2, hour=6 + number % 2)
    assert "18 visits on 9 days" in invoke(tmp_path).output and "3 days more" in invoke(tmp_path).output
    done = invoke(tmp_path, "--by", "visit")
    assert done.exit_code == 0 and "m: 18 visits, " in done.output and "no change" in done.output


def test_noisy_visits_are_left_out_and_better_is_no_regression(tmp_path):
    for number in range(20):
        visit(tmp_path, "m", number, 0.9 if number >= 10 else 1.0)
    visited, unread, notes = read_fleet([tmp_path])
    noisy = [msgspec.structs.replace(v, undisturbed=0.1) if place in (2, 5) else v for place, v in enumerate(visited)]
    found = judge_history(noisy, unread, notes)
    (one,) = found.machines
    assert (one.visits, one.units, one.noisy) == (20, 18, 2) and [c.since[:10] for c in one.changes] == ["2026-01-11"]
    assert one.changes[0].moved[0].verdict == "better" and not history.worse(found, 0.03) and one.changes[0].facts == {}


def test_another_kernel_is_another_series(tmp_path):
    """A benchmark that is measured otherwise is no machine that has changed."""
    for number in range(24):
        visit(tmp_path, "m", number, 1.5 if number >= 12 else 1.0)
    visited, _, _ = read_fleet([tmp_path])

    def anew(v):
        cells = tuple(
            msgspec.structs.replace(cell, quantity="another kernel") if cell.benchmark == "toy_latency" else cell
            for cell in v.cells
        )
        return msgspec.structs.replace(v, cells=cells)

    found = judge_history([anew(v) if place >= 12 else v for place, v in enumerate(visited)])
    assert found.machines[0].p > 0.05 and not found.machines[0].changes


def test_of_many_machines_few_are_named_that_did_not_change(monkeypatch):
    """Each by itself, one in twenty would be."""
    own = [history.Chronicle(id=str(n), alias=str(n), visits=20, units=20, first="", last="", cells=1, benchmarks=1, p=p, changes=(
        history.Change(since="", run="", p=p, moved=(), facts={}),) if p <= 0.05 else ()) for n, p in enumerate(np.linspace(0.02, 1, 50))]  # fmt: skip
    made = iter([*own, msgspec.structs.replace(own[0], id="x", p=0.00005)])
    monkeypatch.setattr(history, "_chronicle", lambda *_: next(made))
    visits = [type("V", (), {"header": type("H", (), {"machine_id": str(n)}), "machine": {}})() for n in range(51)]
    found = judge_history(visits)
    assert [one.id for one in found.machines if one.changes] == ["x"]


def test_what_is_carried_over_is_carried_over_in_every_order():
    """By hand: what each unit adds of its own in another order, and the units made of it again."""
    z, share, units = steps.scaled(series(3, 15)), 0.4, 15
    own = z - share * np.vstack([np.zeros(200), z[:-1]])
    own[0] *= np.sqrt(1 - share**2)
    order = np.random.default_rng(3).permutation(units)
    made = [own[order[0]] / np.sqrt(1 - share**2)]
    for number in order[1:]:
        made.append(share * made[-1] + own[number])
    again = np.array(made) - np.mean(made, axis=0)
    alike = np.stack([z[:, number == GROUP] @ z[:, number == GROUP].T for number in range(10)])
    found = steps._statistics(alike, order[None], share)[0]
    for number, before in itertools.product((0, 7), (3, 7, 12)):
        rows = again[:, number == GROUP]
        apart = rows[:before].mean(axis=0) - rows[before:].mean(axis=0)
        assert found[number, before - steps.LEAST_SIDE] == pytest.approx((apart**2).sum() * before * (units - before) / units)


@pytest.mark.parametrize(("true", "low", "high"), [(0.0, 0.0, 0.12), (0.5, 0.4, 0.6)])
def test_how_much_is_carried_over_is_estimated_also_where_there_is_a_step(true, low, high):
    found = []
    for seed in range(12):
        values = series(seed, 60)
        for unit in range(1, 60):
            values[unit] = true * values[unit - 1] + np.sqrt(1 - true**2) * values[unit]
        values[30:] += 0.05
        z = steps.scaled(values)
        alike = np.stack([z[:, number == GROUP] @ z[:, number == GROUP].T for number in range(10)])
        place = steps._statistics(alike, np.arange(60)[None]).argmax(axis=2)[0] + steps.LEAST_SIDE
        found.append(steps.carried(alike, place))
    assert low <= np.mean(found) <= high


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("depends on the day before (0.3)", 0.0, 0.14), ("three times noisier in the later half", 0.05, 0.3)],
)
def test_units_that_are_not_alike_raise_more_alarms(kind, low, high, monkeypatch):
    """As METHODOLOGY says: a permutation test asks whether what each day adds could stand in any order. With nothing carried over, 34 % of those that depend are called changed."""
    monkeypatch.setattr(steps, "ORDERS", steps.FEW_ORDERS)

    def odd(seed: int) -> np.ndarray:
        values = series(seed, 24)
        if "noisier" in kind:
            values[12:] *= 3
        else:
            for unit in range(1, 24):
                values[unit] = 0.3 * values[unit - 1] + np.sqrt(1 - 0.3**2) * values[unit]
        return values

    assert low <= np.mean([steps.find_steps(odd(seed), GROUP).p <= 0.05 for seed in range(100)]) <= high


def test_a_benchmark_that_came_later_or_went_is_a_series_of_its_own():
    """Half of what is known in a block of days was called a change in 12 of 100 machines."""
    alarms = []
    for seed in range(40):
        values = series(seed, 28)
        values[:14, :100] = np.nan
        cells = [
            digest.Cell(
                benchmark=str(n), title=str(n), metric="m", unit="ns", polarity="lower", parameters={"k": k}, quantity="q"
            )
            for k, n in enumerate(GROUP)
        ]
        spans = history._series(cells, values)
        assert sorted(spans) == [(0, 28), (14, 28)] and sorted(spans[14, 28]) == list(range(100))
        ps = [
            steps.find_steps(values[begin:end, columns], GROUP[columns] - GROUP[columns].min()).p
            for (begin, end), columns in spans.items()
        ]
        alarms.append(min(ps) * 2 <= 0.05)
    assert np.mean(alarms) <= 0.13


def test_another_method_begins_another_series(tmp_path):
    """26 days by one method and 18 by another, slower by half in the last nine: neither is a change of the machine but the last."""
    for number in range(40):
        visit(tmp_path, "m", number, 1.5 if number >= 31 else 1.0)
    visited, _, _ = read_fleet([tmp_path])

    def anew(v, factor):
        cells = tuple(
            msgspec.structs.replace(cell, quantity="another kernel") if cell.benchmark == "toy_latency" else cell
            for cell in v.cells
        )
        values = [value + np.log(factor) * (cell.benchmark == "toy_latency") for cell, value in zip(cells, v.values, strict=True)]
        return msgspec.structs.replace(v, cells=cells, values=values)

    (one,) = judge_history([anew(v, 3.0) if place >= 22 else v for place, v in enumerate(visited)]).machines
    assert [change.run for change in one.changes] == ["m-31-0"] and one.changes[0].moved[0].change == pytest.approx(0.5, abs=0.03)
    (one,) = judge_history([anew(v, 3.0) if place >= 33 else v for place, v in enumerate(visited)]).machines
    assert one.short == ("Toy latency",) and not [c for c in one.changes if c.run == "m-33-0"]


def test_days_without_anything_in_common_need_more():
    cells = [
        digest.Cell(benchmark=str(n), title=str(n), metric="m", unit="ns", polarity="lower", parameters={}, quantity="q")
        for n in range(2)
    ]
    values = np.full((14, 2), np.nan)
    values[:8, 0], values[8:, 1] = 1.0, 1.0
    assert sorted(history._series(cells, values)) == [(0, 8), (8, 14)]
