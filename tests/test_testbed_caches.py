"""Levels of caches of the simulated machine, without booting it: its C code driven directly, against an independent simulation and by hand."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from functools import cache
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed import defects, qemu
from testbed.errors import MachineFileError
from testbed.expected import ATOMIC, READ
from testbed.expected import caches as expected
from testbed.firmware import cache_files
from testbed.known import caches as known
from testbed.machine import load_machine
from testbed.programs import FLAGS, LIBRARY, MODEL
from testbed.timing import VICTIM

SMALL = """
summary = "caches of a few lines"
[cpus]
sockets = 2
dies = {dies}
cores = 2
[[nodes]]
cpus = "0-{last}"
memory = "384M"
[[nodes]]
cpus = "{next}-{end}"
memory = "32M"
[timing]
memory = [[100, 200], [150, 90]]
core_to_core = {{ die = 30, socket = 70, cross = 130 }}
occupancy = [{occupancy}, 0]
[[timing.caches]]
size = "256"
ways = 2
latency = 1
prefetch = "{prefetches[0]}"
[[timing.caches]]
size = "512"
ways = 2
latency = 5
prefetch = "{prefetches[1]}"
[[timing.caches]]
size = "1536"
ways = {ways}
latency = 20
kind = "{kind}"
prefetch = "{prefetches[2]}"
"""
LINE, GROUP = 64, 256 << 10
EPOCHS = itertools.count(1e6, 1e6)  # ns: when a sequence begins, since controllers remember when they are free


def written(tmp_path, text: str, name: str = "mine"):
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    return path


def small(tmp_path, kind="inclusive", prefetches=("none", "none", "none"), ways=3, dies=2, occupancy=0):
    last = 2 * dies - 1
    text = SMALL.format(
        kind=kind, prefetches=prefetches, ways=ways, dies=dies, occupancy=occupancy, last=last, next=last + 1, end=2 * last + 1
    )
    return load_machine(written(tmp_path, text))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The simulator's memory, compiled for this machine with the chase of a checkout."""
    folder = tmp_path_factory.mktemp("simulator")

    @cache
    def compiled(tree=defects.CHECKOUT):
        target = folder / f"{tree.name}.so"
        driver = defects.CHECKOUT / "tests/host_simulator.c"
        subprocess.run(
            ["gcc", *FLAGS, *LIBRARY, f"-I{tree / 'kernels'}", "-DNB_LINE=64", "-o", target, driver, *MODEL], check=True
        )
        loaded = ctypes.CDLL(str(target))
        loaded.prepare.argtypes, loaded.prepare.restype = [ctypes.c_char_p], ctypes.c_bool
        loaded.serve_access.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_uint64, ctypes.c_int]
        loaded.serve_access.restype = ctypes.c_int64
        loaded.flush.argtypes = [ctypes.c_int64, ctypes.c_uint64]
        loaded.chase.argtypes, loaded.chase.restype = [ctypes.c_uint64] * 3, ctypes.c_double
        return loaded

    return compiled


def prepared(library, machine, tmp_path):
    path = tmp_path / "machine"
    path.write_text(qemu.configuration(machine, timed=True, spinners=1))
    assert library.prepare(str(path).encode())
    return library


# -- against the independent simulation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inclusive", "victim"])
@pytest.mark.parametrize("prefetches", [("none", "none", "none"), ("none", "pair", "none"), ("none", "none", "next")])
def test_the_simulator_and_the_expected_answers_agree_on_any_sequence(library, tmp_path, kind, prefetches):
    """Every access of every CPU, whenever it comes: reads, writes, flushes; with a controller that is busy with what is written back, too."""
    machine = small(tmp_path, kind, prefetches, occupancy=13)
    loaded = prepared(library(), machine, tmp_path)

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, machine.cpus - 1), st.integers(0, 70), st.sampled_from(["read", "read", "write", "flush"])),
            min_size=1,
            max_size=200,
        )
    )
    def same(sequence):
        begin = next(EPOCHS)
        loaded.forget_all()
        caches, clocks = expected.Caches(machine), [begin] * machine.cpus
        caches.controller = begin
        for cpu, line, what in sequence:
            if what == "flush":
                loaded.flush(round(1000 * clocks[cpu]), line * LINE)
                caches.flush(line, clocks[cpu])
                continue
            found = loaded.serve_access(cpu, round(1000 * clocks[cpu]), line * LINE, what == "write")
            clocks[cpu] = caches.access(cpu, clocks[cpu], line, what == "write")
            assert found == pytest.approx(1000 * clocks[cpu], abs=0.5)

    same()


# -- by hand --------------------------------------------------------------------------------------------------------------


def test_what_leaves_an_inclusive_l3_leaves_its_cpus_and_what_leaves_a_victim_s_does_not(library, tmp_path):
    """CPU 0 has line 0 in L1. Its neighbour reads as many other lines of the same set of L3 (8 sets) as that has ways."""
    for kind, again in (("inclusive", 100), ("victim", 1)):
        loaded = prepared(library(), small(tmp_path, kind), tmp_path)
        begin = round(1000 * next(EPOCHS))
        assert loaded.serve_access(0, begin, 0, 0) - begin == 100_000
        for number in range(1, 4):
            loaded.serve_access(1, begin, number * 8 * LINE, 0)
        begin += 10**9
        assert loaded.serve_access(0, begin, 0, 0) - begin == 1000 * again


@pytest.mark.parametrize(
    ("kind", "near", "far", "other_node"),
    [("inclusive", 20, 70, 150), ("victim", 30, 70, 150)],  # by the L3; from the neighbour's own caches
)
def test_a_clean_line_of_another_cpu(library, tmp_path, kind, near, far, other_node):
    machine = small(tmp_path, kind)
    loaded = prepared(library(), machine, tmp_path)
    for cpu, ns in ((1, near), (2, far), (4, other_node)):
        loaded.forget_all()
        begin = round(1000 * next(EPOCHS))
        loaded.serve_access(0, begin, 0, 0)
        begin += 10**9
        assert loaded.serve_access(cpu, begin, 0, 0) - begin == 1000 * ns


def test_a_flushed_line_is_in_no_cache_and_what_was_written_keeps_its_controller_busy(library, tmp_path):
    loaded = prepared(library(), small(tmp_path, occupancy=40), tmp_path)
    for write, waits in ((0, 0), (1, 40)):
        begin = round(1000 * next(EPOCHS))
        loaded.serve_access(0, begin, 0, write)
        begin += 10**9
        loaded.flush(begin, 0)
        assert loaded.serve_access(0, begin, 0, 0) - begin == 1000 * (100 + waits)


@pytest.mark.parametrize(
    ("state", "cpu", "load", "add"),
    [
        ("modified", None, 1.25, 1.25),
        ("exclusive", None, 1.25, 1.25),
        ("invalid", None, 92, 92),
        ("modified", 1, 34, 34),
        ("exclusive", 1, 17, 34),  # L3 has it; a write has to reach the other
        ("shared", 1, 1.25, 34),
        ("owned", 1, 1.25, 34),
        ("modified", 2, 125, 125),
        ("exclusive", 2, 92, 125),  # memory is as good
        ("shared", 2, 1.25, 125),
    ],
)
def test_single_operations_by_state(state, cpu, load, add):
    machine = load_machine("inclusive-l3")
    own = 9 * 0.25 + 1.25  # the turn, and the table of addresses
    assert expected.single_operation(machine, READ, state, 0, cpu) == own + load
    assert expected.single_operation(machine, ATOMIC, state, 0, cpu) == own + 5 + add


# -- the chase of numabench -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", known.OF)
def test_the_chase_finds_every_plateau_and_leaves_it_behind_its_end(library, tmp_path, name):
    machine = load_machine(name)
    loaded = prepared(library(), machine, tmp_path)
    reached = 1
    for size in known.sizes(machine):
        found, level = machine.timing.instruction + loaded.chase(size, GROUP, 1) / 1000, known.level_of(machine, size)
        if level:
            assert found == pytest.approx(expected.plateau(machine, level), rel=0.01), size
        else:  # most of the way to the next one
            assert found > (expected.plateau(machine, reached) * expected.plateau(machine, reached + 1)) ** 0.5, size
        reached = level or reached
    assert reached == 4


def test_a_chase_that_a_prefetcher_helps_is_far_from_what_is_given(library, tmp_path):
    """On a machine with L2 and L3 as on one with a single cache: half of the lines come along with others."""
    machine = load_machine("victim-l3")
    memory, size = machine.timing.memory[0][0], known.LARGEST
    right = prepared(library(), machine, tmp_path)
    assert right.chase(size, GROUP, 1) / 1000 == pytest.approx(memory, rel=0.01)
    wrong = prepared(library(defects.defective_tree("neighbours-together-blind")), machine, tmp_path)
    assert wrong.chase(size, GROUP, 1) / 1000 < 0.7 * memory


# -- machine files and firmware -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('size = "256"\nways = 2', 'size = "256"\nways = 0', "L1: ways = 0"),
        ('size = "256"', 'size = "64"', "L1: size = 64: at least 2 lines"),
        ('size = "512"', 'size = "544"', "L2: size = 544: it must be a multiple of ways times line (128 bytes)"),
        ('size = "512"', 'size = "128"', "L2: size = 128: an inclusive one holds at least the 256 bytes"),
        ('size = "1536"', 'size = "768"', "L3: size = 768: an inclusive one holds at least the 1024 bytes"),
        ("latency = 5", "latency = 1", "L2: latency = 1: longer than"),
        ("latency = 5", "latency = inf", "L2: latency = inf"),
        ('kind = "inclusive"', 'kind = "exclusive"', "L3: kind = exclusive: one of inclusive, victim"),
        ("latency = 5", 'latency = 5\nkind = "victim"', "L2: kind = victim: L3 alone"),
        ('latency = 5\nprefetch = "none"', 'latency = 5\nprefetch = "all"', "L2: prefetch = all"),
        ('prefetch = "none"', 'prefetch = "pair"', "prefetch in L1 and L2 and L3: one level"),
        ('[[timing.caches]]\nsize = "512"\nways = 2\nlatency = 5\nprefetch = "none"\n', "", "has 2 tables: L1, L2 and L3"),
        ("[timing]", '[timing]\ncache = "64K"', "timing.cache is that of a machine without timing.caches"),
        ("[timing]", "[timing]\nhit = 1", "timing.hit is that of a machine without"),
        ("[timing]", '[timing]\nprefetch = "none"', "timing.prefetch is that of a machine without"),
    ],
)
def test_impossible_caches_are_one_line_that_says_what(tmp_path, old, new, said):
    text = SMALL.format(kind="inclusive", prefetches=("none",) * 3, ways=3, dies=1, occupancy=0, last=1, next=2, end=3)
    changed = text.replace(old, new)
    assert changed != text and load_machine(written(tmp_path, text))
    with pytest.raises(MachineFileError) as error:
        load_machine(written(tmp_path, changed))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_firmware_shows_the_caches_of_such_a_machine_alone(tmp_path):
    assert cache_files(load_machine("two-socket")) == {}
    files = cache_files(small(tmp_path))
    assert len(files) == 8 * 3 * 9
    shown = {path.rpartition("/")[2]: text for path, text in files.items() if path.startswith("cpu5/index2/")}
    assert shown == {
        "coherency_line_size": "64\n",
        "level": "3\n",
        "number_of_sets": "8\n",
        "physical_line_partition": "1\n",
        "shared_cpu_list": "4-5\n",
        "shared_cpu_map": "00000000,00000030\n",
        "size": "1K\n",
        "type": "Unified\n",
        "ways_of_associativity": "3\n",
    }


def test_the_simulator_is_told_of_caches_only_where_there_are_any(tmp_path):
    plain, machine = load_machine("two-socket"), small(tmp_path, kind=VICTIM, prefetches=("none", "pair", "none"))
    words = ("level", "victim", "group_of")
    assert not [line for line in qemu.configuration(plain, True, 1).splitlines() if line.startswith(words)]
    assert [line for line in qemu.configuration(machine, True, 1).splitlines() if line.startswith(words)] == [
        "level 2 2 1 0",
        "level 4 2 5 1",
        "level 8 3 20 0",
        "victim 1",
        "group_of 0 0 1 1 2 2 3 3",
    ]


# -- what is certified ----------------------------------------------------------------------------------------------------


def rows_of(machine, wrong: str = "") -> pd.DataFrame:
    """Estimates of a numabench that finds what was given, but for one thing."""
    rows = [
        {"benchmark": "memory_latency", "size": size, "value": expected.plateau(machine, known.level_of(machine, size) or 3)}
        for size in known.sizes(machine)
        if not (wrong == "size" and size == known.LARGEST)
    ]
    for placement, cpus in PLACES.items():
        for state, operation in itertools.product(known.STATES, known.OPERATIONS):
            value = expected.single_operation(machine, known.OPERATIONS[operation], state, *cpus)
            value += 8 * (wrong == "state" and (placement, state, operation) == ("l3", "exclusive", "load"))
            rows.append(
                {"benchmark": "single_operations", "placement": placement, "state": state, "operation": operation, "value": value}
            )
    table = pd.DataFrame(rows).assign(low=0.0, high=0.0)
    if wrong == "level":  # L2 as near as L1
        table.loc[table["size"] == machine.timing.caches[1].size // 2, "value"] = expected.plateau(machine, 1)
    return table


PLACES = {"alone": (0,), "l3": (0, 1), "cross_package": (0, 2)}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("", []),
        ("level", ["64 KiB (L2)"]),
        ("size", ["4 MiB (memory)"]),
        ("state", ["CPUs 0, 1 (l3)"]),
        ("capacity", ["L3"]),
        ("silence", ["L1", "L2", "L3"]),
    ],
)
def test_what_is_certified_turns_red_for_each_wrong_figure(monkeypatch, wrong, named):
    machine = load_machine("inclusive-l3")
    ends = [expected.capacity(machine, level) * (4 if wrong == "capacity" and level == 3 else 1) for level in (1, 2, 3)]
    said = [
        SimpleNamespace(
            kind="capacity", text=f"L{level}, so much by the firmware, holds", value=end, low=0.75 * end, high=1.25 * end
        )
        for level, end in enumerate(ends, 1)
    ]
    monkeypatch.setattr(known, "answers_of", lambda log, name: [] if wrong == "silence" else said)
    monkeypatch.setattr(known, "places_of", lambda log: PLACES)
    table = rows_of(machine, wrong)
    findings = [
        *known.judge_loads(machine, table[table["benchmark"] == "memory_latency"]),
        *known.judge_capacities(machine, None),
        *known.judge_states(machine, None, table),
    ]
    assert len(findings) == 7 + 3 + 2 * 3 + 2 * (2 + 4)
    assert [finding.where for finding in findings if not finding.right] == named
