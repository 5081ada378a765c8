"""Store buffers of the simulated machine: the model itself, compiled for this machine and driven without QEMU, against an independent simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from testbed_model import played

import testbed.known.stores
from numabench.benchmarks import Found
from numabench.benchmarks.single_operations import BENCHMARK
from testbed import qemu
from testbed.errors import MachineFileError
from testbed.expected import ATOMIC, READ, WRITE, stores
from testbed.expected.stores import FENCE, RUN, Step, Stores
from testbed.judgement import TOLERANCE
from testbed.known.stores import SLACK, known
from testbed.machine import Machine, load_machine

LINE, FAR = 64, 1 << 16


def machine_with(places: int, **more) -> Machine:
    machine = known().of
    return replace(machine, timing=replace(machine.timing, store_buffer=places, **more))


#: On own lines and lines that others want, back to back and spaced, forwarded, fenced, and with a full buffer.
PROGRAMS: dict[str, dict[int, list[Step]]] = {
    "back to back": {0: [(RUN, 1), (WRITE, 0)]},
    "many lines": {0: [step for k in range(40) for step in ((RUN, 1), (WRITE, k * LINE))]},
    "forwarded": {0: [(RUN, 2), (WRITE, FAR), (RUN, 1), (READ, FAR + 8), (RUN, 1), (READ, 0), (RUN, 1), (WRITE, 8)]},
    "fenced": {0: [(RUN, 1), (WRITE, 0), (RUN, 1), (WRITE, LINE), (RUN, 1), (FENCE, 0), (RUN, 3)]},
    "locked": {0: [(RUN, 1), (WRITE, 0), (RUN, 1), (WRITE, LINE), (RUN, 1), (ATOMIC, FAR), (RUN, 3)]},
    "two write one line": {0: [(RUN, 1), (WRITE, 0)], 2: [(RUN, 1), (WRITE, 8)]},
    "two spaced": {0: [(RUN, 800), (WRITE, 0)], 2: [(RUN, 900), (WRITE, 8)]},
    "two increments": {0: [(RUN, 1), (READ, 0), (RUN, 2), (WRITE, 0)], 1: [(RUN, 1), (READ, 8), (RUN, 2), (WRITE, 8)]},
    "behind another's line": {
        0: [(RUN, 9), (WRITE, 0), (WRITE, FAR), (RUN, 9), (READ, FAR)],
        2: [(RUN, 1), (ATOMIC, 0), (RUN, 4)],
    },
}


@pytest.mark.parametrize("places", [1, 3, 8])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_model_and_the_independent_simulation_agree_on_every_turn(tmp_path, name, places):
    machine, programs = machine_with(places), PROGRAMS[name]
    assert played(machine, programs, 60, tmp_path) == Stores(machine).play(programs, 60)


def test_by_hand_a_store_is_paid_for_by_what_waits_for_it():
    """`hit` is 3 ns, an instruction 0.25: back to back the buffer's draining is what counts, with a fence behind it the store and the four instructions around the two."""
    machine = known().of
    timing = machine.timing
    assert stores.fence(machine, "none", after_store=True) == timing.hit  # a full buffer
    assert stores.fence(machine, "mfence", after_store=True) == timing.hit + 4 * timing.instruction
    assert stores.fence(machine, "lock_or", after_store=True) == timing.hit + timing.atomic + timing.hit + 4 * timing.instruction
    for weak in ("sfence", "lfence"):  # wait for no store: what the buffer's draining hides
        assert stores.fence(machine, weak, after_store=True) == timing.hit
    for other in (1, 2):
        hop = timing.core_to_core[0][other]
        assert stores.counters(machine, [0, other], "store", 8, 0) == pytest.approx(2 * hop)  # each waits for the other's
        spaced = [stores.counters(machine, [0, other], "store", stride, 400) for stride in (8, 512)]
        assert spaced[0] == spaced[1]  # while it works, its store drains
        assert stores.single_store(machine, False, 0, other) == pytest.approx(hop, rel=1e-3)  # one after the other
        assert stores.single_store(machine, True, 0, other) > hop + timing.atomic


NO_WAIT: tuple[Step, ...] = ((RUN, 2),)  # an sfence and an lfence


@pytest.mark.parametrize("holder", [None, 1, 2])
def test_a_fence_that_does_not_wait_is_refused_and_when_blind_shows(holder):
    """defects.py, "fence-without-wait": by numabench's own proof where another CPU has the lines, by the figure everywhere."""
    machine = known().of
    right, wrong = (stores.single_store(machine, True, 0, holder, drain) for drain in (stores.DRAIN, NO_WAIT))
    assert abs(wrong - right) > 2 * (TOLERANCE * right + SLACK)
    if holder is not None:
        hop = machine.timing.core_to_core[0][holder]
        thread = SimpleNamespace(value=[round(wrong * 1000), 0, 1, round(wrong * 128000), 1000, 128])
        p = {"operation": "store_drained", "state": "modified"}
        said = BENCHMARK.doubts(p, Found([thread, thread]), {"latency": wrong}, SimpleNamespace(hop=hop / 1e9))
        assert said and said[0].startswith("physics:")
        assert not BENCHMARK.doubts(p, Found([thread, thread]), {"latency": right}, SimpleNamespace(hop=hop / 1e9))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("buffer = 0", "timing.stores.buffer = 0: 1 to 256 places"),
        ("buffer = 257", "timing.stores.buffer = 257"),
        ('buffer = "8"', "timing.stores.buffer must be a whole number"),
        ("depth = 8", "has no key depth"),
        ("", "[timing.stores] lacks buffer"),
    ],
)
def test_a_store_buffer_that_cannot_be_is_one_line_that_says_what(tmp_path, table, said):
    text = Path(testbed.known.stores.__file__).with_suffix(".toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("stores.buffer = 64", f"[timing.stores]\n{table}"))
    with pytest.raises(MachineFileError) as error:
        load_machine(path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_simulator_is_told_of_the_places_and_machines_without_them_have_none():
    assert "stores 64" in qemu.configuration(known().of, timed=True, spinners=2)
    assert "stores 0" in qemu.configuration(load_machine("two-socket"), timed=True, spinners=2)
