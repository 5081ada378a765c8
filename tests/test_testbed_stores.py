"""Store buffers of the simulated machine: the model itself, compiled for this machine and driven without QEMU, against an independent simulation."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from testbed import qemu
from testbed.errors import UnavailableError
from testbed.expected import ATOMIC, READ, WRITE
from testbed.expected.stores import FENCE, RUN, Step, Stores
from testbed.known.stores import known
from testbed.machine import Machine
from testbed.programs import HERE, MODEL, compiled

LINE, FAR = 64, 1 << 16


@pytest.fixture(scope="module")
def model():
    sources = [Path(__file__).parent / "testbed_model.c", *MODEL, HERE / "simulator/order.c"]
    try:
        return compiled("model-alone", sources, ("-pthread", "-DQUANTUM=0"))  # each access in its order
    except UnavailableError as error:
        pytest.skip(str(error))


def played(model: Path, machine: Machine, programs: dict[int, list[Step]], turns: int, tmp_path: Path) -> dict[int, list[float]]:
    """When the simulator lets each CPU end each of its turns, in ns."""
    path = tmp_path / "machine"
    path.write_text(qemu.configuration(machine, timed=True, spinners=2))
    text = "".join(f"{cpu} {' '.join(f'{kind} {value}' for kind, value in steps)}\n" for cpu, steps in programs.items())
    done = subprocess.run([model, path, str(turns)], input=text, capture_output=True, text=True, check=True, timeout=60)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {int(cpu): [int(ended) / 1000 for ended in ends] for cpu, *ends in lines}


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
def test_the_model_and_the_independent_simulation_agree_on_every_turn(model, tmp_path, name, places):
    machine, programs = machine_with(places), PROGRAMS[name]
    assert played(model, machine, programs, 60, tmp_path) == Stores(machine).play(programs, 60)
