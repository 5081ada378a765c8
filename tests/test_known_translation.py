"""Translation without booting: the simulator's C against a simulation that shares nothing with it, answers by hand, what is made of a log, and refusals."""

from __future__ import annotations

import ctypes
import itertools
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import qemu
from testbed.errors import MachineFileError
from testbed.expected import translation as expected
from testbed.machine import PAGES, Machine, Tlb, load_machine
from testbed.programs import FLAGS, HERE, LIBRARY

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
    pages next to none are in a level. The look comes after 128 loads."""
    found = {order: expected.memory_latency(machine, 8 << 20, order, "4k") - 100.25 - 110 / 128 for order in ("group", "random")}
    assert found["group"] == pytest.approx(0.5 * 5 + 64 / 1024 * 30 + 7 * 5 / 128, abs=0.4)
    assert found["random"] == pytest.approx(96 / 2048 * 5 + 1920 / 2048 * 30 + 7 * 30 / 128, abs=0.8)


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
        ("[timing.walk]", "sets = 4\n[timing.walk]", "unknown field `sets`"),
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
