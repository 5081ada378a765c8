"""Translation without booting: the simulator's C against a simulation that shares nothing with it, answers by hand, what is made of a log, and refusals."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import write_log

from numabench.runlog.read import load
from testbed import defects, packages, qemu
from testbed.errors import MachineFileError
from testbed.expected import translation as expected
from testbed.judgement import Finding
from testbed.known import translation
from testbed.known.translation import SIZE, judge
from testbed.machine import Machine, load_machine
from testbed.programs import FLAGS, HERE, LIBRARY
from testbed.timing import PAGES, Tlb

FILE = HERE / "known/translation.toml"
#: Numbers of pages, the same for both sizes: they lie elsewhere, and in a structure for both only their size tells them apart.
FIRST, PAGES_USED = 0x3FC00, 10
SHIFTS = {"4K": 12, "2M": 21}


@pytest.fixture(scope="module")
def machine() -> Machine:
    return load_machine(FILE)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("translation") / "translation.so"
    sources = [Path(__file__).with_name("translation.c"), HERE / "simulator/translation.c"]
    subprocess.run(["gcc", *FLAGS, *LIBRARY, "-fvisibility=default", "-o", path, *sources], check=True)
    found = ctypes.CDLL(str(path))
    for name in ("access_at", "walks", "unread"):
        getattr(found, name).restype = ctypes.c_int64
    return found


def begin(library, timing) -> None:
    """The C code with the TLB of a machine, as its configuration tells the simulator of it."""
    rows = [
        (t.level, sum(1 << PAGES.index(page) for page in t.pages), t.entries, t.ways, round(t.latency * 1000)) for t in timing.tlb
    ]
    walk = [ctypes.c_int64(round(ns * 1000)) for ns in timing.walk]
    assert library.begin(len(rows), (ctypes.c_int64 * 5 * len(rows))(*rows), *walk)


def access(library, virtual: int, physical: int) -> float:
    return library.access_at(ctypes.c_uint64(virtual), ctypes.c_uint64(physical)) / 1000


@st.composite
def tlbs(draw) -> tuple[Tlb, ...]:
    """One to three levels, each of which has a structure for both sizes of page, one for each, or one for small ones alone."""
    found = []
    for level in range(1, draw(st.integers(1, 3)) + 1):
        for pages in draw(st.sampled_from([(PAGES,), (PAGES[:1], PAGES[1:]), *([(PAGES[:1],)] if level > 1 else [])])):
            ways, sets = draw(st.integers(1, 4)), draw(st.integers(1, 3))
            found.append(Tlb(level, pages, ways * sets, ways, draw(st.integers(0, 9)) * 1.0))
    return tuple(found)


@given(structures=tlbs(), seed=st.integers(0, 1 << 32))
def test_the_simulator_charges_what_a_sequential_simulation_does(library, machine, structures, seed):
    """Accesses to a few pages, near ones more often; a page moves elsewhere, and the model comes on anew."""
    timing, among = replace(machine.timing, tlb=structures), random.Random(seed)
    begin(library, timing)
    other = expected.Translator(timing)
    moved = dict.fromkeys(itertools.product(PAGES, range(PAGES_USED)), 0)
    for page, number in moved:
        library.map(ctypes.c_uint64(FIRST + number << SHIFTS[page]), SHIFTS[page])
    for step in range(400):
        page, number = among.choice(PAGES), min(among.randrange(PAGES_USED), among.randrange(PAGES_USED))
        if step % 150 == 149:
            library.empty_translation()
            other = expected.Translator(timing)
        if among.random() < 0.05:
            moved[page, number] += 1
        inside, physical = among.randrange(1 << SHIFTS[page]), number + PAGES_USED * moved[page, number]
        addresses = [(frame << SHIFTS[page]) + inside for frame in (FIRST + number, physical)]
        assert access(library, *addresses) == other.cost(*addresses, page), step
    assert library.unread() == 0


def test_a_walk_finds_the_size_of_the_page_and_a_page_of_1_gib_is_pieces_of_2_mib(library, machine):
    begin(library, machine.timing)
    library.map(ctypes.c_uint64(0x1000), 12)
    library.map(ctypes.c_uint64(0x40000000), 30)
    assert [access(library, address, address) for address in (0x1008, 0x1010)] == [30, 0]
    assert [access(library, address, address) for address in (0x40000000, 0x401FFFF8, 0x40200000)] == [20, 0, 20]
    assert (library.walks(), library.unread()) == (3, 0)
    assert access(library, 0x7000_0000_0000, 0) == 30 and library.unread() == 1  # no page of the guest's tables


def test_a_machine_without_a_tlb_pays_nothing(library, machine):
    begin(library, replace(machine.timing, tlb=()))
    assert access(library, 0x1000, 0x1000) == 0 and library.walks() == 0
    plain = qemu.configuration(load_machine("two-socket"), timed=True, spinners=2)
    assert "tlb" not in plain and "walk" not in plain
    assert "tlb 2 2 8 8 8" in qemu.configuration(machine, timed=True, spinners=2)


def test_answers_by_hand(machine):
    """One line in each page, over and over: of a set with more pages than ways none is found again, whatever the order. A look at the clock after n loads
    costs 110 ns, and what its seven pages add."""
    held, hit, walk = 1.25, 6.25, 31.25
    wanted = {48: hit + (110 + 7 * 5) / 2048, 192: walk + (110 + 7 * 30) / 512, 3072: walk + (110 + 7 * 30) / 512}
    assert {lines: expected.tlb_latency(machine, lines, "spread", "4k") for lines in wanted} == {
        lines: (pytest.approx(ns), 0) for lines, ns in wanted.items()
    }
    alone = (pytest.approx(held + 110 / 8192), 0)
    assert [expected.tlb_latency(machine, lines, "packed", "4k") for lines in (24, 192)] == [alone] * 2
    assert expected.tlb_latency(machine, 512, "spread", "thp") == alone
    assert expected.levels(machine, "4k") == [(32, held), (128, hit)]
    assert expected.levels(machine, "thp") == [(1024, held), (4096, 9.25)]
    mean, chance = expected.tlb_latency(
        machine, 6144, "spread", "thp"
    )  # of 12 huge pages 2 are found in the first level, 6 in the second
    assert mean == pytest.approx(held + 6 / 12 * 8 + 4 / 12 * 20 + 110 / 1024, abs=4 * chance) and 0 < chance < 0.2


def test_a_group_shows_memory_without_most_of_its_translation(machine):
    """By hand: of the 64 small pages of a group 32 are in the first level and the others in the second, after a walk of each when the group begins; of all
    2,048 pages next to none are in a level. Looks come after 2,048 and after 512 loads."""
    found = {order: expected.memory_latency(machine, 8 << 20, order, "4k") - 1.25 for order in ("group", "random")}
    assert found["group"] == pytest.approx(0.5 * 5 + 64 / 1024 * 30 + (110 + 7 * 5) / 2048, abs=0.3)
    assert found["random"] == pytest.approx(96 / 2048 * 5 + 1920 / 2048 * 30 + (110 + 7 * 30) / 512, abs=0.3)


GOOD = FILE.read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("level = 1", "level = 2", "holds pages of 4K in levels [2, 2]"),
        ('pages = ["2M"]', 'pages = ["1G"]', "names pages of 1G"),
        ('pages = ["2M"]', "pages = []", "holds pages of 2M in levels [2]"),
        ('pages = ["4K"]', 'pages = ["4K", "4K"]', "holds pages of 4K in levels [1, 1, 2]"),
        ("entries = 32", "entries = 0", "has 0 entries"),
        ("ways = 4", "ways = 5", "32 entries in sets of 5"),
        ("ways = 4", "ways = 0", "32 entries in sets of 0"),
        ("latency = 5", "latency = -5", "latency = -5"),
        ("4K = 30\n", "", "timing.walk.4K = 0.0"),
        ("2M = 20", "2M = inf", "timing.walk.2M = inf"),
        ("2M = 20", "2M = 20\n1G = 9", "names pages of 1G"),
        ("[timing.walk]", "sets = 4\n[timing.walk]", "has no key sets"),
        (GOOD[GOOD.index("[[timing.tlb]]") : GOOD.index("[timing.walk]")], "", "timing.walk without timing.tlb"),
        (
            "[timing.walk]",
            "[[timing.tlb]]\nlevel = 3\nentries = 1\n" * 5 + "[timing.walk]",
            "9 of timing.tlb are more than the 8",
        ),
    ],
)
def test_an_impossible_tlb_is_one_line_that_says_what(tmp_path, old, new, said):
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(MachineFileError) as error:
        load_machine(tmp_path / "mine.toml")
    assert said in str(error.value) and "\n" not in str(error.value)


# -- what is made of a log ----------------------------------------------------------------------------------------------

RECORDED = (
    Path(__file__).parent / "simulated-translation.jsonl.gz"
)  # `testbed.known.translation.WORDS` on its machine, with these numbers of lines
LINES = (24, 96, 192, 3072, 6144)


@pytest.fixture(autouse=True)
def lines(monkeypatch):
    monkeypatch.setattr(translation, "LINES", LINES)


def judged(machine: Machine, tmp_path, change=lambda sample: sample) -> dict[tuple[str, str], Finding]:
    """The findings of the recorded visit, with each sample as `change` makes it."""
    log = load(RECORDED)
    trials = [msgspec.structs.replace(t, samples=tuple(map(change, t.samples))) for t in log.trials]
    path = write_log(msgspec.structs.replace(log, trials=tuple(trials)), tmp_path / "visit.jsonl")
    return {(finding.what, finding.where): finding for finding in judge(machine, path)}


def scaled(sample, factor: float):
    return msgspec.structs.replace(sample, metrics={name: value * factor for name, value in sample.metrics.items()})


def test_the_recorded_visit_is_right(machine, tmp_path):
    found = judged(machine, tmp_path)
    assert len(found) == 36 and [f for f in found.values() if not f.right] == []


def test_a_second_level_that_reaches_or_costs_otherwise_turns_it_red(machine, tmp_path):
    def changed(sample):
        p = sample.parameters
        return scaled(sample, 1.03 if (p.get("lines"), p.get("layout"), p["page_size"]) == (96, "spread", "4k") else 1)

    assert {key for key, f in judged(machine, tmp_path, changed).items() if not f.right} == {
        ("tlb_latency", "96 lines, spread, 4k")
    }
    first, second, third, fourth = machine.timing.tlb
    smaller = replace(machine, timing=replace(machine.timing, tlb=(first, second, replace(third, entries=32), fourth)))
    wrong = {key for key, f in judged(smaller, tmp_path).items() if not f.right}
    assert {("reach of level 2", "4k"), ("tlb_latency", "96 lines, spread, 4k")} <= wrong


def test_huge_pages_for_who_asks_for_small_ones_turn_it_red(machine, tmp_path):
    """As the defect `huge-for-small` makes it where its check is off."""
    huge = {
        tuple(p.items()): s for t in load(RECORDED).trials for s in t.samples if (p := {**s.parameters})["page_size"] == "thp"
    }

    def changed(sample):
        p = sample.parameters
        if p["page_size"] == "thp" or sample.memory.bytes < 2 << 20:
            return sample
        other = huge[tuple({**p, "page_size": "thp"}.items())]
        return msgspec.structs.replace(
            sample, metrics=other.metrics, memory=msgspec.structs.replace(other.memory, page_size="4k")
        )

    wrong = {key for key, f in judged(machine, tmp_path, changed).items() if not f.right}
    assert wrong >= {
        ("pages obtained", "4k"),
        ("tlb_latency", "3072 lines, spread, 4k"),
        ("memory_latency", f"{SIZE}, random, 4k"),
        ("random - group", "4k"),
    }
    assert not {key for key in wrong if "thp" in key[1]}


@pytest.mark.parametrize(("suffix", "said"), [("", "['pages']"), (defects.BLIND, "[]")])
def test_the_defect_is_refused_unless_it_is_blind(suffix, said, tmp_path, monkeypatch):
    """On this machine, which has huge pages to give as the simulated one has."""
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("no transparent huge pages here")
    monkeypatch.setenv(packages.FOLDER_VARIABLE, str(tmp_path))
    tree = defects.defective_tree(f"huge-for-small{suffix}")
    code = (
        "import ctypes\nfrom numabench.host.memory import Buffer\nfrom numabench.measure.worker import memory_reasons\n"
        "buffer = Buffer(8 << 20, '4k'); ctypes.memset(buffer.address, 1, buffer.size); print(memory_reasons(buffer.prove()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == said, done.stderr
