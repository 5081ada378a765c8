"""The unit in which caches exchange memory: what is made of two threads' times, and the kernel that takes them."""

from __future__ import annotations

import json
import os
from itertools import chain, repeat

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from synthetic_sysfs import SyntheticTree

from numabench import kernel as abi
from numabench.api import judge
from numabench.cli.check import command
from numabench.errors import MachineError
from numabench.host.topology import read_topology
from numabench.measure import transfer_unit
from numabench.measure.protocol import Job
from numabench.measure.transfer_unit import DISTANCES, ROUNDS, SLOTS, Line, agreed, enter, pairs_of, recorded_line, unit_of
from numabench.measure.visit import Request, Visit, open_resume
from numabench.runlog.read import load

ALONE, TOGETHER = 36_000, 86_000  # ps of an increment on a line of one's own, and on a shared one
UNITS = (16, 32, 64, 128, 256, 512, 1024, 2048)


def times(unit: int, price: int = TOGETHER - ALONE, coupled: float = 0.0) -> list[int]:
    """What a thread notes where `unit` bytes travel together, by the addresses of the two counters; `coupled`: the share of the price that
    the other unit of an aligned pair costs."""
    row = []
    for slot in range(SLOTS):
        distance = DISTANCES[slot // 2] if slot < SLOTS - 1 else 8192
        first = slot % 2 * distance
        second = first + distance
        share = 1.0 if first // unit == second // unit else coupled if first // (2 * unit) == second // (2 * unit) else 0.0
        row.append(int(ALONE + share * price))
    return row * ROUNDS


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_is_the_smallest_distance_that_is_free(unit):
    assert unit_of(times(unit), times(unit)) == unit
    assert unit_of(times(unit, coupled=0.2), times(unit, coupled=0.2)) == unit


@given(st.sampled_from(UNITS), st.integers(0, 2**32))
def test_noise_does_not_change_it(unit, seed):
    """Half of the rounds are disturbed: some by half of what sharing costs, some so much that the thread says so."""
    import random

    rng = random.Random(seed)
    rows = [list(times(unit)), list(times(unit))]
    for row in rows:
        for k in range(len(row)):
            row[k] = int(row[k] * rng.uniform(0.97, 1.03))
            if k // SLOTS < 3:
                row[k] = rng.choice((0, row[k] + 25_000, 10 * row[k]))
    assert unit_of(*rows) == unit


@pytest.mark.parametrize(
    "row",
    [
        times(4096),  # never free: two threads on one CPU, or a neighbour all the time
        times(64, price=5_000),  # siblings of one core: their first cache is one
        times(64, price=-5_000),
        times(64, coupled=0.45),  # neither shared nor free
        [0] * SLOTS * ROUNDS,
        [*times(64)[: 4 * SLOTS], *[0] * SLOTS * (ROUNDS - 4)],  # too few rounds that nothing disturbed
    ],
)
def test_what_is_not_clear_is_not_told(row):
    assert unit_of(row, row) is None


def test_a_distance_that_is_free_between_two_that_are_not_is_not_told():
    row = times(64)
    for k in range(0, len(row), SLOTS):
        row[k + 2 * DISTANCES.index(512)] = TOGETHER
    assert unit_of(row, row) is None


def test_a_thread_that_was_disturbed_makes_the_round_void_for_both():
    """The other one was alone on the line then, and saw nothing of the sharing."""
    row = times(128)
    disturbed, alone = list(row), list(row)
    for k in range(6 * SLOTS):
        disturbed[k], alone[k] = 0, ALONE
    assert unit_of(disturbed, alone) == 128


def test_entries_must_agree():
    def told(*units):
        entries = chain(iter(units), repeat(None, 3))
        return agreed(entries), sum(1 for _ in entries)

    assert told(64, 64, 128) == (64, 4)  # no more entries than that takes
    assert told(None, 128, None, 128) == (128, 3)
    assert told(64, 128, 128)[0] is None and told(64)[0] is None and told()[0] is None


def test_kernels_keep_apart_what_the_larger_says():
    assert Line(declared=64, measured=128).bytes == 128 and Line(declared=128, measured=64).bytes == 128
    assert Line(declared=64).bytes == 64 and Line(measured=128).bytes == 128 and Line().bytes is None
    assert [Line(declared=d, measured=m).surprising for d, m in ((64, 128), (64, 64), (128, 64), (64, None), (None, 64))] == [
        True,
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("odd", [0, -64, 7, 96, 1 << 40, "64", 64.0, None, [64]])
def test_what_no_line_has_is_not_taken(odd):
    assert recorded_line({"line_declared": odd, "line_measured": 128}) == Line(measured=128)
    assert recorded_line({"line_declared": 64}) is None


def test_pairs_are_of_different_cores(tmp_path):
    tree = SyntheticTree(tmp_path / "wide", packages=2, nodes=2, l3s=2, cores=2, smt=2, l2_cores=2)
    topology = read_topology(str(tree.root))
    pairs = pairs_of(topology)
    cores = {cpu: core for core, cpus in enumerate(topology.cores) for cpu in cpus}
    assert len(pairs) == transfer_unit.MOST_PAIRS and all(cores[a] != cores[b] for a, b in pairs)
    package = {cpu: each.id for each in topology.packages for cpu in each.cpus}
    assert [package[a] != package[b] for a, b in pairs] == [False, False, True]
    siblings = read_topology(str(SyntheticTree(tmp_path / "one", cores=1, smt=2).root))
    assert pairs_of(siblings) == [] and transfer_unit.find_line(siblings) == Line(declared=siblings.largest_line_bytes())


# -- on this machine ------------------------------------------------------------------------------------------------


CPUS = sorted(os.sched_getaffinity(0))
two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="two threads need two CPUs")


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("transfer_unit").target)


@two_cpus
def test_both_threads_note_every_slot_and_lose_no_increment(kernel):
    rows = enter(kernel, (CPUS[0], CPUS[1]))
    assert [len(row) for row in rows] == [SLOTS * ROUNDS] * 2
    assert os.sched_getaffinity(0) == set(CPUS)  # threads of their own were pinned, and not this one


@two_cpus
def test_a_lost_increment_is_noticed(tmp_path):
    from test_kernels import broken_kernel

    broken = broken_kernel(tmp_path, "transfer_unit", "transfer_unit.c", "done += TURNS;", "done += TURNS + 1;")
    with pytest.raises(AssertionError, match="increments were lost"):
        enter(broken, (CPUS[0], CPUS[1]))


def test_a_cpu_that_is_not_there_holds_nobody_up(kernel):
    with pytest.raises(MachineError, match="cannot run on CPU 4095"):
        enter(kernel, (CPUS[0], 4095))
    assert transfer_unit.largest([None, 64, 128, None]) == 128 and transfer_unit.largest([None]) is None


class Nothing:
    """An executor that notes its jobs, and that is all."""

    def __init__(self):
        self.jobs: list[Job] = []

    def execute(self, job, timeout):
        self.jobs.append(job)
        raise KeyboardInterrupt


@pytest.mark.parametrize("line", [Line(declared=64, measured=128), Line(declared=64, measured=64), Line(declared=64)])
def test_a_visit_builds_for_what_was_measured_and_says_so(tmp_path, monkeypatch, line):
    monkeypatch.setattr("numabench.measure.visit.find_line", lambda _: line)
    path, executor = tmp_path / "log.jsonl", Nothing()

    def measure(resume=None):
        Visit(Request(benchmarks=("padded_counters",), profile="quick")).measure(path, judge, executor=executor, resume=resume)

    measure()
    log = load(path)
    machine, flags = log.headers[0].machine, log.benchmarks[0].kernel.flags
    assert (machine["line_declared"], machine["line_measured"]) == (line.declared, line.measured)
    assert ("-DNB_LINE=128" in flags) == (line.bytes == 128)
    assert executor.jobs[0].kernel == str(abi.build("padded_counters", line_bytes=line.bytes).target)
    assert executor.jobs[0].sentinel == str(abi.build("sentinel", line_bytes=line.bytes).target)
    monkeypatch.setattr("numabench.measure.visit.find_line", lambda _: pytest.fail("a resumed run keeps the line of its kernels"))
    resumed = open_resume(path)[1]
    assert resumed.line == line
    measure(resumed)
    assert executor.jobs[1].kernel == executor.jobs[0].kernel


def finding(monkeypatch, line) -> dict | None:
    def found(_):
        if isinstance(line, Exception):
            raise line
        return line

    monkeypatch.setattr(transfer_unit, "find_line", found)
    done = CliRunner().invoke(command, ["--format", "json"])
    return next((each for each in json.loads(done.output)["findings"] if each["check"] == "cache line"), None)


def test_a_check_says_what_travels_together(monkeypatch):
    wide = finding(monkeypatch, Line(declared=64, measured=128))
    assert wide["severity"] == "note" and wide["found"] == "128 bytes travel together where 64 are declared"
    assert "alignas(128)" in wide["fix"]
    assert finding(monkeypatch, Line(declared=64, measured=64))["found"] == "64 bytes, measured"
    assert finding(monkeypatch, Line(declared=64))["found"] == "64 bytes, as declared"
    assert "no size is declared" in finding(monkeypatch, Line(measured=64))["found"]
    assert finding(monkeypatch, MachineError("cc cannot compile it", "apt-get install gcc")) is None
