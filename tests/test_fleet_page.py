"""The page of a fleet: what it says, that texts of logs stay texts, its size, and how it looks in a browser."""

from __future__ import annotations

import gzip
import json

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from pages import browse, check_page, measure, needs_browser, picture
from test_fleet import BENCHMARKS, PLANTED, Simulated, runs  # noqa: F401

from numabench.analysis import cohorts, digest, fleet
from numabench.cli import command
from numabench.model import Header
from numabench.report.fleet import MOST_ROWS, bands, in_order, render_fleet

NAMES = (
    *("Memory bandwidth", "Memory latency", "Latency between NUMA nodes", "Translation of addresses", "Core to core"),
    *("Padded counters", "Mutex, atomic and what lies between", "Fences", "Bandwidth between NUMA nodes"),
)
CELLS = tuple(
    digest.Cell(
        benchmark=f"benchmark_{b}",
        title=NAMES[b],
        metric="latency",
        unit="GB/s" if "andwidth" in NAMES[b] else "ns",
        polarity="higher" if "andwidth" in NAMES[b] else "lower",
        parameters={"size": int(cell), "cpu_node": int(cell) % 4},
        quantity="1",
    )
    for cell, b in enumerate(BENCHMARKS)
)


def simulated(machines: int, planted: bool = True) -> cohorts.Fleet:
    """A fleet with seven planted faults, each suspect of which was visited twice more, a machine that was busy and a log that cannot be read."""
    made = Simulated(1, machines, planted)
    everyone = np.arange(machines)
    values = made.visit(everyone)
    suspects = np.array([one.machine for one in fleet.look(values, everyone) if one.state == fleet.SUSPECT], dtype=np.int64)
    of = [*everyone, *suspects[suspects < PLANTED], *suspects[suspects < PLANTED]]
    visits = []
    for turn, (machine, row) in enumerate(zip(of, [*values, *made.visit(np.array(of[machines:], dtype=np.int64))], strict=True)):
        version = "1.1" if machine == 1 else "1.2"
        facts = {
            "id": f"m{machine}",
            "alias": f"n{machine + 1:03}",
            "brand": "AMD EPYC 9654",
            "condition": {"firmware": {"version": version}},
        }
        header = Header(schema=3, run=f"r{turn}", session="s", started=f"{turn:06}", numabench="0", machine=facts, plan={})
        visits.append(digest.Visit(header=header, status="complete", samples=9, undisturbed=1.0, cells=CELLS, values=tuple(row)))
    busy = msgspec.structs.replace(visits[0].header, run="busy", machine={**visits[0].machine, "id": "busy", "alias": "n999"})
    visits.append(msgspec.structs.replace(visits[0], header=busy, status="busy"))
    found = cohorts.judge_fleet(visits, {"runs/n388/x.jsonl": "not a run log"}, ["three machines have one id"])
    return msgspec.structs.replace(found, unmeasured={"n402": "unreachable: connection timed out"})


@pytest.fixture(scope="module")
def large() -> tuple[cohorts.Fleet, str]:
    found = simulated(500)
    return found, render_fleet(found)


def test_the_page_names_who_is_unlike_why_and_what_to_do(large):
    found, html = large
    page = check_page(html)
    unlike = found.of(fleet.DIFFERS)
    assert len(unlike) >= PLANTED - 1 and all(f">{member.alias}<" in html for member in unlike)
    assert page.headings[0] == f"Fleet of 501 machines: {len(unlike)} differ"
    assert f"{len(unlike)} of 500 machines are unlike the others of their kind" in html
    assert "firmware version is 1.1 (1.2 on 499)" in html and "<b>fact</b>" in html and "<b>unknown</b>" in html
    assert (
        "n999: other programs had its CPUs" in html and "1 log could not be read" in html and "three machines have one id" in html
    )
    assert "1 host was not measured" in html and "n402: unreachable: connection timed out" in html
    assert "What it would have shown every other time: " in html
    assert "numabench run benchmark_0" in html


def test_a_page_of_500_machines_is_small(large):
    assert len(gzip.compress(large[1].encode())) < 60_000 and len(large[1]) < 300_000


def test_marks_are_where_the_machines_stand(large):
    found, html = large
    (cohort,) = found.cohorts
    members = sorted((m for m in cohort.members if m.state != cohorts.NOISY), key=lambda m: in_order(m.alias))
    drawn = list(bands(members, cohort.benchmarks))
    assert drawn[0].title == "n001 to n100 (100 machines)" and len(drawn) == 5
    assert {line.name for line in drawn[0].lines} == {"state", *NAMES}
    dark = {(mark.x, line.name, mark.side) for line in drawn[0].lines for mark in line.marks if mark.shade == 3}
    assert {(0, "Memory bandwidth", "worse"), (2, "Memory latency", "worse"), (2, "Core to core", "worse")} <= dark
    assert "<title>n001, Memory bandwidth: -1" in html
    others = [mark for band in drawn[1:] for line in band.lines[1:] for mark in line.marks if mark.shade == 3]
    assert len(others) < 20, "400 healthy machines of nine benchmarks are pale"


def test_names_sort_as_people_count():
    assert sorted(["n10", "n2", "n", "2", "n2b"], key=in_order) == ["2", "n", "n2", "n2b", "n10"]


HOSTILE = "</script><script>alert(1)</script><svg onload=alert(2)>\"'{{ 7*7 }}&"


def test_texts_of_logs_stay_texts():
    found = simulated(12)
    (cohort,) = found.cohorts

    def bad(cell: digest.Cell) -> digest.Cell:
        return msgspec.structs.replace(cell, title=HOSTILE, benchmark=HOSTILE, parameters={HOSTILE: HOSTILE})

    members = tuple(
        msgspec.structs.replace(
            member,
            alias=HOSTILE,
            cause=HOSTILE,
            odd={HOSTILE: (HOSTILE, HOSTILE)},
            cells=tuple(map(bad, member.cells)),
            standing=dict.fromkeys([HOSTILE], cohorts.Standing(change=0.1, worse=True, p=1e-9)),
        )
        for member in cohort.members
    )
    groups = cohorts.Groups(sizes=(8, 4), smaller=(HOSTILE,), parting=(HOSTILE,))
    hostile = msgspec.structs.replace(cohort, name=HOSTILE, members=members, benchmarks=(HOSTILE,), groups=groups)
    html = render_fleet(
        cohorts.Fleet(cohorts=(hostile,), unread={HOSTILE: HOSTILE}, notes=(HOSTILE,), unmeasured={HOSTILE: HOSTILE})
    )
    page = check_page(html)
    assert html.count("<script>") == 1 and "{{ 7*7 }}" in html
    assert not [given for _, given in page.tags if any(name.startswith("on") for name in given)]
    assert "<svg onload" not in html and "&lt;svg onload" in html


def test_long_lists_end(large):
    found, _ = large
    (cohort,) = found.cohorts
    (unlike, *_) = cohort.of(fleet.DIFFERS)
    many = tuple(msgspec.structs.replace(unlike, id=str(n), alias=f"x{n}") for n in range(MOST_ROWS + 7))
    html = render_fleet(cohorts.Fleet(cohorts=(msgspec.structs.replace(cohort, members=many),), unread={}))
    assert "7 more are unlike" in html and "x299" in html and ">x300<" not in html


def test_few_machines_and_healthy_ones_have_a_page():
    few = msgspec.structs.replace(
        simulated(12).cohorts[0], members=(cohorts.Member(id="1", alias="a", state="not judged", visits=1),)
    )
    html = render_fleet(cohorts.Fleet(cohorts=(few,), unread={}))
    assert "None of 1 machine could be judged" in html and "a: too few to tell" in html
    check_page(render_fleet(simulated(40, planted=False)))


def test_the_command_writes_it_by_the_files_name(runs, tmp_path):  # noqa: F811
    target = tmp_path / "fleet.html"
    done = CliRunner().invoke(command, ["fleet", str(runs), "-o", str(target)])
    assert done.exit_code == 1 and check_page(target.read_text()).headings[0] == "Fleet of 12 machines: 2 differ"
    assert CliRunner().invoke(command, ["fleet", str(runs), "--format", "html"]).stdout == target.read_text()
    CliRunner().invoke(command, ["fleet", str(runs), "-o", str(tmp_path / "fleet.json")])
    assert json.loads((tmp_path / "fleet.json").read_text())["cohorts"]


@needs_browser
def test_it_fits_a_desk_and_a_telephone_and_asks_nobody(large, tmp_path):
    for width in (1300, 420):
        seen = measure(large[1], width, tmp_path)
        assert seen["width"] <= width, "nothing is cut off at the right"
    path = tmp_path / "fleet.html"
    path.write_text(large[1])
    assert "Unlike the others" in browse(path, tmp_path / "profile", "--dump-dom")
    light = picture(path, tmp_path, size="1300,900")
    dark = picture(path, tmp_path, "--force-dark-mode", "--blink-settings=preferredColorScheme=0", size="1300,900")
    assert light.mean() > 200 > 100 > dark.mean()


@needs_browser
def test_names_without_a_blank_widen_no_page(tmp_path):
    found = simulated(12)
    long = {"h" * 250: "unreachable: " + "w" * 300, "https://x.example/" + "y" * 200: "\u202e\u2066 turned"}
    members = tuple(msgspec.structs.replace(m, alias="n" + m.alias * 40, cause="c" * 200) for m in found.cohorts[0].members)
    cohort = msgspec.structs.replace(found.cohorts[0], name="Z" * 200, members=members)
    html = render_fleet(msgspec.structs.replace(found, cohorts=(cohort,), unread=long, unmeasured=long, notes=("N" * 300,)))
    for width in (1300, 420):
        assert measure(html, width, tmp_path)["width"] <= width
