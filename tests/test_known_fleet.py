"""The known-answer fleet without booting it: one recorded visit to the simulated machine, as each machine of the fleet would have given it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from pages import write_log

from numabench.analysis.fleet import ALIKE, DIFFERS
from numabench.runlog.read import RunLog, load
from testbed.certify import Certification, report_lines
from testbed.errors import GuestError
from testbed.known import fleet
from testbed.known.fleet import MACHINES, KnownFleet
from testbed.known.fleet import known as known_fleet
from testbed.machine import Machine
from testbed.page import page_lines

RECORDED = load(Path(__file__).parent / "simulated-visit.jsonl.gz")  # `testbed.known.fleet.WORDS` on two-socket
SCATTER = 2e-4  # as of two boots with other seeds


def given(machine: Machine, p: dict) -> float:
    """ns that the simulator charges at a point."""
    if "cpu_node" in p:
        return machine.timing.memory[p["cpu_node"]][p["memory_node"]]
    return machine.timing.core_to_core[p["cpu_a"]][p["cpu_b"]]


def visited(machine: Machine, seed: int) -> RunLog:
    """What the recorded visit would have found on `machine`."""
    base, rng = known_fleet().of, np.random.default_rng(seed)
    (header,) = RECORDED.headers
    run, started = f"run-{machine.name}-{seed}", f"2026-11-28T{seed // 60:02}:{seed % 60:02}:00Z"
    named = {"id": machine.name, "alias": machine.name, "hostname": machine.name}

    def scaled(sample):
        factor = given(machine, sample.parameters) / given(base, sample.parameters) * np.exp(SCATTER * rng.standard_normal())
        return msgspec.structs.replace(sample, metrics={name: float(v * factor) for name, v in sample.metrics.items()})

    return msgspec.structs.replace(
        RECORDED,
        headers=(msgspec.structs.replace(header, run=run, session=run, started=started, machine=header.machine | named),),
        benchmarks=tuple(msgspec.structs.replace(b, run=run) for b in RECORDED.benchmarks),
        trials=tuple(
            msgspec.structs.replace(t, run=run, session=run, samples=tuple(map(scaled, t.samples))) for t in RECORDED.trials
        ),
        ends=tuple(msgspec.structs.replace(e, run=run, session=run) for e in RECORDED.ends),
    )


@pytest.fixture
def boots(monkeypatch):
    """The names of machines that were visited, with the log that each would have given instead of a boot."""
    made: list[str] = []

    def visit(machine, shared, tree, look, words):
        made.append(machine.name)
        return SimpleNamespace(log=write_log(visited(machine, int(words[-1])), shared / "visit.jsonl"))

    monkeypatch.setattr(fleet, "visit", visit)
    return made


def certified(known: KnownFleet, tmp_path) -> Certification:
    certification = Certification([known], tmp_path, with_comparison=True)
    certification.versions, certification.seconds = {}, 60.0
    certification.findings = certification.certify_machine(known, lambda text: None, lambda: None)
    return certification


def test_both_faults_are_named_and_only_they(boots, tmp_path):
    found = certified(known_fleet(), tmp_path)
    assert found.findings and all(f.right for f in found.findings)
    states = {f.where: f.found for f in found.findings if f.what == "state"}
    assert len(states) == MACHINES and {name for name, state in states.items() if state == DIFFERS} == {"fleet-11", "fleet-12"}
    assert boots[MACHINES:] == ["fleet-11", "fleet-12"] * 2, "a second look at the suspects alone"
    assert found.boots(found.machines[0]) == len(boots)
    page = "\n".join(page_lines(found, None))
    assert "## fleet" in page and "15% slower on fleet-11" in page and "| state | fleet-12 | differs | differs |" in page


def test_two_logs_that_were_swapped_turn_it_red(boots, tmp_path, monkeypatch):
    """A planted bug: machines 3 and 11 boot under each other's name."""
    known = known_fleet()
    machines = list(known.machines)
    machines[2], machines[10] = (replace(machines[b], name=machines[a].name) for a, b in ((2, 10), (10, 2)))
    monkeypatch.setitem(known.__dict__, "machines", tuple(machines))
    found = certified(known, tmp_path)
    wrong = {(f.what, f.where): f.found for f in found.findings if not f.right}
    about = {("state", "fleet-03"): DIFFERS, ("state", "fleet-11"): ALIKE}
    assert wrong == about | {("what moved", "fleet-11"): "0 cells: ", ("cause", "fleet-11"): ""}
    assert not found.green and any("RED" in line for line in report_lines(known, found.findings))


def test_a_fault_of_another_kind_turns_it_red(boots, tmp_path, monkeypatch):
    """Both differ, and each is said to have what the other has."""
    known = known_fleet()
    *healthy, node, link = known.machines
    swapped = (*healthy, replace(link, name=node.name), replace(node, name=link.name))
    monkeypatch.setitem(known.__dict__, "machines", swapped)
    wrong = [(f.what, f.where) for f in certified(known, tmp_path).findings if not f.right]
    assert wrong == [(what, name) for name in ("fleet-11", "fleet-12") for what in ("what moved", "cause")]


def test_a_first_look_alone_accuses_nobody(boots, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "SECOND_LOOKS", 0)
    wrong = {f.where: f.found for f in certified(known_fleet(), tmp_path).findings if not f.right and f.what == "state"}
    assert wrong == {"fleet-11": "suspect", "fleet-12": "suspect"}


def test_a_boot_that_fails_is_no_verdict(tmp_path, monkeypatch):
    def visit(*_, **__):
        raise GuestError("the guest did not boot", "run less beside it")

    monkeypatch.setattr(fleet, "visit", visit)
    with pytest.raises(GuestError):
        certified(known_fleet(), tmp_path)
