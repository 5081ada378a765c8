"""The certificate of wrong benchmarks without booting it: what it makes of logs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from numabench.api import Run
from numabench.runlog.read import load
from testbed import defects
from testbed.known.defects import GREEN, IN_NODES, RED, REFUSED, judge, judge_orders, known
from testbed.machine import load_machine
from testbed.touched import uses

RECORDED = load(Path(__file__).parent / "simulated-visit.jsonl.gz")  # node_latency among others, on two-socket
MISTAKE, BLIND = "broken-chain", "broken-chain" + defects.BLIND


def changed(cell: tuple[int, int], factor: float = 1.0, valid: bool = True) -> Run:
    """The recorded visit with other samples of one cell."""

    def other(sample):
        p = sample.parameters
        if (p.get("cpu_node"), p.get("memory_node")) != cell:
            return sample
        metrics = {name: value * factor for name, value in sample.metrics.items()}
        return msgspec.structs.replace(
            sample, metrics=metrics, valid=valid, reasons=sample.reasons if valid else ("check:chain",)
        )

    trials = tuple(msgspec.structs.replace(t, samples=tuple(map(other, t.samples))) for t in RECORDED.trials)
    return Run(msgspec.structs.replace(RECORDED, trials=trials))


@pytest.mark.parametrize(
    ("name", "run", "found", "right"),
    [
        (BLIND, changed((0, 0)), GREEN, False),  # a defect that changes nothing
        (BLIND, changed((1, 0), 0.5), RED, True),
        (BLIND, changed((1, 0), 1.03), RED, True),
        (BLIND, changed((1, 0), valid=False), GREEN, False),  # what was refused is no figure
        (MISTAKE, changed((0, 0)), "nothing is refused", False),
        (MISTAKE, changed((0, 1), 0.5), "a wrong figure is left", False),
        (MISTAKE, changed((0, 1), 0.5, valid=False), REFUSED, True),
    ],
)
def test_a_wrong_benchmark_is_refused_or_turns_figures_red(name, run, found, right):
    (finding,) = judge(load_machine("two-socket"), {name: run})
    assert (finding.found, finding.right, finding.where) == (found, right, MISTAKE)


@pytest.mark.parametrize(("adjacent", "near", "right"), [(50.8, 0.5, True), (100.3, 0.0, False), (50.8, 0.4, False)])
def test_neighbours_have_to_come_along(adjacent, near, right):
    """By hand: memory takes 100 ns, the cache 1 ns, an instruction 0.25 ns."""
    figures = {"group": (100.3, 0.0), "adjacent": (adjacent, near)}
    samples = [
        SimpleNamespace(parameters={"order": order}, metrics={"latency": latency}, extra={"under_half": half})
        for order, (latency, half) in figures.items()
    ]
    measured = SimpleNamespace(log=SimpleNamespace(trials=[SimpleNamespace(samples=samples)]))
    found = judge_orders(load_machine("neighbours"), measured)
    assert len(found) == 4 and all(f.right for f in found) == right


def test_every_defect_of_nodes_has_its_boot():
    assert {defects.DEFECTS[name].machine for name in IN_NODES} == set(known().machines) <= set(uses(known()))
    assert known().boots == len(known().machines) + 1 and {"broken-chain", "wrong-touch", "missing-pin"} <= set(IN_NODES)
