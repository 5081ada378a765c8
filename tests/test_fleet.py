"""Which of many machines are unlike: rates of error on simulated fleets, facts and causes, and the command on logs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from synthetic import make_log
from test_runlog import write

from numabench.analysis import cohorts, collect, digest, fleet
from numabench.cli import command
from numabench.errors import LogError, UsageError
from numabench.model import Header

BENCHMARKS = np.repeat(np.arange(9), 22)
CELLS = len(BENCHMARKS)
PLANTED = 7


class Simulated:
    """Machines, benchmarks and cells that differ a little, visits that differ too, processes with 0.3 to 5 %: all with heavy tails (t of 5 degrees)."""

    def __init__(self, seed: int, machines: int, planted: bool):
        self.rng = np.random.default_rng(seed)
        self.machines = machines
        self.truth = 0.004 * self.noise(machines, 1) + 0.004 * self.by_benchmark(machines) + 0.003 * self.noise(machines, CELLS)
        self.process = np.exp(self.rng.permutation(np.linspace(math.log(0.003), math.log(0.05), CELLS)))
        if planted:  # a channel, slow modules, the clock, no huge pages, a link, microcode, a neighbour
            for machine, (cells, shift) in enumerate(
                (
                    (slice(0, 20), -0.12),
                    (slice(20, 50), -0.08),
                    (slice(0, CELLS), 0.07),
                    (slice(60, 66), 0.08),
                    (slice(70, 72), 0.15),
                    (slice(80, 90), 0.06),
                    (slice(100, 110), 0.05),
                )
            ):
                self.truth[machine, cells] += shift

    def noise(self, *shape: int) -> np.ndarray:
        return self.rng.standard_t(5, shape) / math.sqrt(5 / 3)

    def by_benchmark(self, rows: int) -> np.ndarray:
        return self.noise(rows, 9)[:, BENCHMARKS]

    def visit(self, machines) -> np.ndarray:
        rows = len(machines)
        own = 0.006 * self.by_benchmark(rows) + 0.004 * self.noise(rows, CELLS)
        return self.truth[machines] + own + self.process * self.noise(rows, CELLS, 5).mean(axis=-1)

    def judged(self) -> tuple[list[fleet.Judged], int]:
        """After two more visits to each suspect; how many these were."""
        machine = np.arange(self.machines)
        values = self.visit(machine)
        suspects = np.array([one.machine for one in fleet.look(values, machine) if one.state == fleet.SUSPECT], dtype=np.int64)
        values = np.vstack([values, self.visit(suspects), self.visit(suspects)])
        return fleet.look(values, np.concatenate([machine, suspects, suspects])), len(suspects)

    def off(self, one: fleet.Judged) -> np.ndarray:
        """By how much the cells that are claimed of a machine really are off."""
        cells = list(one.cells)
        return np.abs(self.truth[one.machine, cells] - np.median(self.truth[:, cells], axis=0))


def rates(machines: int, planted: bool, times: int) -> dict[str, float]:
    """Means over so many fleets: planted machines found, machines of which no claimed cell is 1 % off, share of claimed cells that are not."""
    found = wrong = cells = false = suspects = 0
    for seed in range(times):
        simulated = Simulated(seed, machines, planted)
        judged, more = simulated.judged()
        suspects += more
        for one in judged:
            if one.state == fleet.DIFFERS:
                off = simulated.off(one)
                found += planted and one.machine < PLANTED
                wrong += off.max() < 0.01
                cells += len(off)
                false += int((off < 0.01).sum())
    return {"found": found / times, "wrong": wrong / times, "false": false / max(1, cells), "suspects": suspects / times}


def by_one_threshold(values: np.ndarray) -> int:
    """Machines that a threshold for each cell names: over 3.5 MADs and 3 % from the median (Iglewicz and Hoaglin 1993)."""
    centre, scale = fleet.centre_and_scale(values)
    away = np.abs(values - centre)
    return int(((away > 3.5 * scale) & (away > math.log1p(0.03))).any(axis=1).sum())


def test_planted_faults_among_500_are_found_and_hardly_another():
    found = rates(500, True, 12)
    assert found["found"] >= 6.9 and found["false"] <= 0.01 and found["wrong"] <= 0.1


def test_a_healthy_fleet_is_left_in_peace_and_one_threshold_would_not():
    found = rates(500, False, 12)
    assert found["wrong"] <= 0.1 and found["suspects"] < 50
    assert by_one_threshold(Simulated(0, 500, False).visit(np.arange(500))) > 100


@pytest.mark.parametrize("machines", [30, 100])
def test_fewer_machines_find_less_and_claim_nothing_wrong(machines):
    found = rates(machines, True, 10)
    assert found["found"] >= 6.0 and found["wrong"] <= 0.1


@pytest.mark.parametrize("machines", [8, 12, 30, 500])
def test_p_values_know_how_well_so_many_machines_tell_a_scale(machines):
    """Of machines alike (normal) 5 % are under 5 %, and 0.1 % under 0.1 %: the table's own rate."""
    rng = np.random.default_rng(machines)
    cells = 400_000 // machines
    others = rng.standard_normal((machines - 1, cells))
    centre = np.median(others, axis=0)
    scale = fleet.MAD_TO_SD * np.median(np.abs(others - centre), axis=0)
    p = fleet.p_values((rng.standard_normal(cells) - centre) / scale, machines)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.012) and (p < 0.5).mean() == pytest.approx(0.5, abs=0.03)
    ends = fleet.p_values(np.array([np.nan, 0.0, 500.0, np.inf]), machines)
    assert np.isnan(ends[0]) and ends[1] == pytest.approx(1.0) and 0 < ends[2] == ends[3] < 1e-3


def test_the_least_of_many_p_values():
    p = np.array([[0.04, 0.5, 0.9], [0.03, 0.03, 0.03], [np.nan, 0.2, np.nan], [np.nan] * 3])
    assert fleet.simes(p) == pytest.approx([0.12, 0.03, 0.2, np.nan], nan_ok=True)


def test_a_second_look_that_finds_nothing_clears_a_suspect():
    rng = np.random.default_rng(0)
    values = 0.005 * rng.standard_normal((40, 50))
    values[3, :5] += 0.2
    machine = np.arange(40)
    first = fleet.look(values, machine)
    assert [one.machine for one in first if one.state == fleet.SUSPECT] == [3] and set(first[3].cells) == set(range(5))
    calm, again = 0.005 * rng.standard_normal((2, 50)), 0.005 * rng.standard_normal((2, 50))
    again[:, :5] += 0.2
    half = again.copy()
    half[1] = calm[1]
    for more, state in ((calm, fleet.ALIKE), (half, fleet.ALIKE), (again, fleet.DIFFERS), (-again, fleet.SUSPECT)):
        assert fleet.look(np.vstack([values, more]), np.append(machine, [3, 3]))[3].state == state


def test_what_goes_wrong_after_a_first_visit_is_seen():
    rng = np.random.default_rng(0)
    values, more = 0.005 * rng.standard_normal((40, 50)), 0.005 * rng.standard_normal((4, 50))
    more[:, :5] += 0.2
    for visits, state in ((0, fleet.ALIKE), (1, fleet.SUSPECT), (2, fleet.SUSPECT), (3, fleet.DIFFERS), (4, fleet.DIFFERS)):
        judged = fleet.look(np.vstack([values, more[:visits]]), np.append(np.arange(40), [7] * visits))
        assert (judged[7].state, judged[7].visits) == (state, 1 + visits)


def test_cells_that_few_machines_have_are_judged_by_so_few():
    """Nine of two hundred have further cells, whose median and MAD nine tell badly."""
    suspects = 0
    for seed in range(6):
        values = 0.01 * np.random.default_rng(seed).standard_normal((200, 400))
        values[9:, 200:] = np.nan
        suspects += sum(one.state == fleet.SUSPECT for one in fleet.look(values, np.arange(200)))
    assert suspects <= 2


def test_a_faulty_batch_is_named_machine_by_machine():
    values = 0.005 * np.random.default_rng(0).standard_normal((3, 24, 50))
    values[:, :4, :10] += 0.26
    judged = fleet.look(values.reshape(72, 50), np.tile(np.arange(24), 3))
    assert fleet.split(values[0]) is None and [one.machine for one in judged if one.state == fleet.DIFFERS] == [0, 1, 2, 3]


def test_few_machines_and_missing_cells_are_not_judged():
    values = np.random.default_rng(0).normal(0, 0.01, (7, 5))
    assert {one.state for one in fleet.look(values, np.arange(7))} == {fleet.UNJUDGED}
    values = np.random.default_rng(0).normal(0, 0.01, (12, 5))
    values[4], values[:, 2] = np.nan, np.nan
    judged = fleet.look(values, np.arange(12))
    assert judged[4].state == fleet.UNJUDGED and {one.state for one in judged} == {fleet.UNJUDGED, fleet.ALIKE}
    assert fleet.look(np.zeros((0, 3)), np.zeros(0, dtype=int)) == []


def test_two_kinds_of_machines_are_said_and_no_list_of_outliers():
    rng = np.random.default_rng(0)
    values = 0.004 * rng.standard_normal((60, 40))
    assert fleet.split(values) is None
    odd = values.copy()
    odd[:3, :10] += 0.2
    assert fleet.split(odd) is None, "three of sixty are outliers"
    values[::3, :10] += 0.06
    second = fleet.split(values)
    assert second is not None and set(np.flatnonzero(second)) == set(range(0, 60, 3))


def test_facts_that_one_machine_alone_has():
    usual = {"bios": "1.2", "memory": 256_000_000_000, "smt": 2, "kernel": "6.1"}
    facts = [usual | {"memory": 256_000_000_000 + 50_000_000 * number, "kernel": f"6.{number % 3}"} for number in range(20)]
    facts[4] = facts[4] | {"bios": "1.1", "memory": 224_000_000_000}
    facts[9] = facts[9] | {"smt": None}
    odd = fleet.odd_facts(facts)
    assert set(odd[4]) == {"bios", "memory"} and odd[4]["bios"] == ("1.1", "1.2")
    assert not any(odd[number] for number in range(20) if number != 4)
    assert fleet.odd_facts(facts[:7]) == [{}] * 7
    shared = [
        usual | {"memory": 128_000_000_000 + number, "swap": "on"} if number < 3 else usual | {"swap": "off"}
        for number in range(40)
    ]
    assert not any(fleet.odd_facts(shared)), "three of forty are no odd one"


# -- logs ---------------------------------------------------------------------------------------------------------------


def machine(alias: str, **changes) -> dict:
    node = {"id": 0, "cpus": "0-1", "memory_bytes": changes.pop("memory", 64 << 30)}
    condition = {"firmware": {"version": changes.pop("firmware", "1.2")}, "product": {"vendor": "Maker", "name": "Server 1"}}
    return {
        "hardware": {"family": "25", "model": "17", "packages": 1} | changes,
        "condition": condition,
        "topology": {"cpus": "0-1", "nodes": [node]},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Twelve machines, one of them slow in all and of another firmware, one with a slow benchmark; two more visits to these."""
    folder = tmp_path_factory.mktemp("fleet")
    scales = {"n03": lambda b, p: 1.15, "n07": lambda b, p: 1.2 if b == "toy_latency" else 1.0}

    def visit(alias: str, seed: int) -> None:
        more = {"scale": scales[alias]} if alias in scales else {}
        facts = machine(alias, firmware="1.1" if alias == "n03" else "1.2")
        log = make_log(alias, processes=6, samples=1, seed=seed, sd=(0.004, 0.004, 0.004), machine=facts, **more)
        write(folder / alias / f"{seed}.jsonl", log)

    for number in range(12):
        visit(f"n{number:02}", 0)
    for seed in (1, 2):
        for alias in scales:
            visit(alias, seed)
    (folder / "broken.jsonl").write_text("no log\n")
    return folder


def said(*words) -> tuple[int, str]:
    done = CliRunner().invoke(command, ["fleet", *map(str, words)])
    return done.exit_code, done.stdout


def test_unlike_machines_are_named_with_their_cause(runs):
    code, text = said(runs)
    assert code == 1 and "12 machines (Toy CPU, family 25, model 17, Maker Server 1): 10 alike, 2 differ." in text
    lines = text.splitlines()
    for alias, cause in (("n03", "fact: firmware version is 1.1 (1.2 on 11)"), ("n07", "no fact differs")):
        (place,) = (number for number, line in enumerate(lines) if line.startswith(f"{alias}  differs"))
        assert cause in lines[place + 1]
    assert "broken.jsonl" in text
    assert said(runs, "--format", "hostlist") == (1, "n03,n07\n")


def test_every_format_says_the_same(runs, tmp_path):
    document = json.loads(said(runs, "--format", "json")[1])
    schema = json.loads((Path(__file__).parent.parent / "docs" / "output.schema.json").read_text())
    jsonschema.validate({"fleet": document}, schema | {"additionalProperties": False})
    states = {member["alias"]: member["state"] for cohort in document["cohorts"] for member in cohort["members"]}
    rows = list(csv.DictReader(said(runs, "--format", "csv")[1].splitlines()))
    assert {row["machine"]: row["state"] for row in rows} == states
    assert {alias for alias, state in states.items() if state == "differs"} == {"n03", "n07"}
    assert {(row["benchmark"], row["metric"], row["unit"]) for row in rows if row["machine"] == "n07"} == {
        ("toy_latency", "latency", "ns")
    }
    code, _ = said(runs, "--format", "csv", "-o", tmp_path / "fleet.csv")
    assert code == 1 and list(csv.DictReader((tmp_path / "fleet.csv").open())) == rows


def test_one_visit_makes_suspects_alone(runs):
    first = [runs / f"n{number:02}" / "0.jsonl" for number in range(12)]
    code, text = said(*first)
    assert code == 0 and "2 suspect" in text and "twice more on each" in text
    assert said(*first, "--require-all")[0] == 5


def test_a_fact_can_part_cohorts(runs):
    code, text = said(runs, "--cohort", "condition.firmware.version")
    assert "11 machines" in text and "1 machine (" in text and "Too few" in text and code == 1
    with pytest.raises(UsageError, match="no machine has a fact 'colour'"):
        CliRunner().invoke(command, ["fleet", str(runs), "--cohort", "colour"], catch_exceptions=False)


def test_few_machines_and_no_log_at_all(runs, tmp_path):
    code, text = said(*(runs / f"n{number:02}" for number in range(4)))
    assert code == 4 and "Too few" in text
    (tmp_path / "x.jsonl").write_text("nothing\n")
    with pytest.raises(LogError, match="none of 1 logs can be read"):
        CliRunner().invoke(command, ["fleet", str(tmp_path)], catch_exceptions=False)


def visit(alias: str, shift: float = 0.0, **changes) -> digest.Visit:
    rng = np.random.default_rng(int.from_bytes(f"{alias}{shift}{changes}".encode(), "big") % 2**32)
    facts = machine(alias, firmware=changes.pop("firmware", "1.2")) | {"alias": alias, "hostname": changes.pop("hostname", alias)}
    header = Header(
        schema=3, run=f"{alias}{rng.random()}", session="s", started="2026-01-01", numabench="0", machine=facts | changes, plan={}
    )
    return digest.Visit(
        header=header,
        status="complete",
        samples=9,
        undisturbed=1.0,
        cells=tuple(NODES),
        values=tuple(4.0 + shift + 0.004 * rng.standard_normal(len(NODES))),
    )


def test_two_kinds_are_named_with_the_fact_that_parts_them():
    visits = [
        visit(f"n{n:02}", 0.2 if n % 3 == 0 else 0.0, id=f"m{n}", firmware="2.0" if n % 3 == 0 else "1.2") for n in range(30)
    ]
    found = cohorts.judge_fleet(visits)
    (groups,) = (cohort.groups for cohort in found.cohorts)
    assert groups.sizes == (20, 10) and set(groups.smaller) == {f"n{n:02}" for n in range(0, 30, 3)}
    assert groups.parting == ("firmware version is 1.2 on one kind and 2.0 on the other",)
    from numabench.cli.fleet import as_text, exit_code

    assert exit_code(found, False) == 1 and "Two kinds of machines, 20 and 10" in as_text(found)


def test_odd_facts_and_visits_hide_nobody(tmp_path):
    """Facts of other types, no id, a copy that was cut, a log without a sample: the rest is judged as without them."""
    calm = [visit(f"n{n:02}", id=f"m{n}") for n in range(12)]
    odd = {"condition": {"memory_errors": 5, "throttled": [1]}, "topology": {"nodes": None}, "hardware": {}}
    for extra in (visit("x", 0.0, id="x", **odd), visit("y")):
        found = cohorts.judge_fleet([*calm, extra])
        assert len(found.of(fleet.ALIKE)) >= 12
    without = msgspec.structs.replace(visit("z", id="z"), samples=0, undisturbed=None, cells=(), values=())
    assert [m.alias for m in cohorts.judge_fleet([*calm, without]).of(fleet.UNJUDGED)] == ["z"]
    log = make_log("n1", processes=4, samples=1)
    write(tmp_path / "a.jsonl", log)
    write(tmp_path / "b.jsonl", msgspec.structs.replace(log, trials=log.trials[:1]))
    again = msgspec.structs.replace(log.headers[0], started="2026-03-01T00:00:00Z")  # a resume
    write(tmp_path / "c.jsonl", msgspec.structs.replace(log, headers=(*log.headers, again), trials=log.trials[:2]))
    (kept,), unread, _ = collect.read_fleet([tmp_path])
    assert kept.samples == sum(len(trial.samples) for trial in log.trials) and not unread


@pytest.mark.parametrize(
    ("hosts", "what"), [(("-x", "b"), "'-x' is no name"), (("a,b", "c"), "is no name"), (("a", "a"), "several machines")]
)
def test_a_list_of_hosts_is_one_or_an_error(hosts, what):
    from numabench.cli.fleet import hostlist

    members = tuple(
        cohorts.Member(id=str(n), alias="m", hostname=host, state="differs", visits=3) for n, host in enumerate(hosts)
    )
    found = cohorts.Fleet(cohorts=(cohorts.Cohort(name="c", members=members, cells=1),), unread={})
    with pytest.raises(UsageError, match=what):
        hostlist(found)
    fine = msgspec.structs.replace(found.cohorts[0], members=members[1:])
    assert hostlist(msgspec.structs.replace(found, cohorts=(fine,))) == f"{hosts[1]}\n"


def cell(benchmark: str, unit: str, **parameters) -> digest.Cell:
    return digest.Cell(
        benchmark=benchmark, title=benchmark, metric="m", unit=unit, polarity="lower", parameters=parameters, quantity="1"
    )


NODES = [cell("node_latency", "ns", cpu_node=a, memory_node=b) for a in range(3) for b in range(3)]
STREAMS = [cell("bandwidth", "GB/s", threads=n, page_size=size) for n in (1, 2) for size in ("4k", "thp")]
HUGE_ALONE = [cell("far", "ns", cpu_node=a, memory_node=b, page_size="thp") for a in range(2) for b in range(2)]
PAIRS = [cell("core_to_core", "ns", cpu_a=a, cpu_b=a + 1, home=a) for a in (0, 2)]
TIMES = [cell("fences", "ns", fence=name) for name in ("load", "store", "full")]


@pytest.mark.parametrize(
    ("moved", "shift", "pattern"),
    [
        (NODES + TIMES, 0.07, "all times alike"),
        ([NODES[1], NODES[3]], 0.15, "the link between them"),
        ([NODES[2], NODES[5], NODES[8]], 0.12, "memory of node 2 alone"),
        (STREAMS, -0.12, "bandwidth alone"),
        ([c for c in STREAMS if c.parameters["page_size"] == "thp"], -0.08, "huge pages"),
        ([HUGE_ALONE[1], HUGE_ALONE[3]], 0.12, "memory of node 1 alone"),  # small pages were not measured there
        ([NODES[1], NODES[3], PAIRS[0]], 0.15, "nodes 0 and 1 alone: the link"),
        ([NODES[1], NODES[3], *PAIRS], 0.15, ""),
        ([TIMES[0], STREAMS[0]], 0.1, ""),
    ],
)
def test_what_moved_together_says_what_may_move_it(moved, shift, pattern):
    member = cohorts.Member(id="1", alias="a", state="differs", visits=3, cells=tuple(moved), change=(shift,) * len(moved))
    usual = NODES + STREAMS + TIMES
    found = cohorts.pattern_of(member, [*usual, *(each for each in moved if each not in usual)])
    assert (pattern in found) if pattern else found == ""


def test_a_fact_that_healthy_machines_share_is_no_cause():
    def member(number: int, state: str, **odd) -> cohorts.Member:
        facts = {name: (value, "usual") for name, value in odd.items()}
        return cohorts.Member(
            id=str(number), alias=str(number), state=state, visits=3, odd=facts, cells=(TIMES[0],), change=(0.1,)
        )

    unlike, healthy = member(1, "differs", bios="1.1", swap="on"), member(2, "alike", bios="1.1")
    every = [unlike, healthy, *(member(number, "alike") for number in range(3, 20))]
    assert cohorts.explained(unlike, every, TIMES).cause.startswith("swap is on")
    alone = member(1, "differs", bios="1.1")
    assert cohorts.explained(alone, [alone, healthy], TIMES).grade != "fact"


def test_a_formula_of_a_spreadsheet_stays_text():
    from numabench.cli.fleet import safe

    assert [safe(each) for each in ("=1+1", "-2.5", "@x", "n1", 3)] == ["'=1+1", "-2.5", "'@x", "n1", 3]
