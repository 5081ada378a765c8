"""The simulator's model without QEMU: compiled for this machine, a thread for each CPU (testbed_model.c)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from testbed import qemu
from testbed.errors import UnavailableError
from testbed.machine import Machine
from testbed.programs import HERE, MODEL, compiled

Steps = list[tuple[str, int]]  # `run` and a number of instructions; `read`, `write`, `atomic` and an address; `fence` and 0


def played(
    machine: Machine, programs: dict[int, Steps], turns: int, folder: Path, begin: dict[int, int] | None = None
) -> dict[int, list[float]]:
    """When the model lets each CPU end each of its turns, in ns. `begin`: instructions that a CPU executes before its first one."""
    sources = [Path(__file__).with_suffix(".c"), *MODEL, HERE / "simulator/order.c"]
    try:
        model = compiled("model-alone", sources, ("-pthread", "-DQUANTUM=0"))  # each access in its order
    except UnavailableError as error:
        pytest.skip(str(error))
    path = folder / "machine"
    path.write_text(qemu.configuration(machine, timed=True, spinners=2))
    lines = [
        f"{cpu} {(begin or {}).get(cpu, 0)} {' '.join(f'{kind} {value}' for kind, value in steps)}\n"
        for cpu, steps in programs.items()
    ]
    done = subprocess.run(
        [model, path, str(turns)], input="".join(lines), capture_output=True, text=True, check=True, timeout=120
    )
    ended = [line.split() for line in done.stdout.splitlines()]
    return {int(cpu): [int(at) / 1000 for at in ends] for cpu, *ends in ended}
