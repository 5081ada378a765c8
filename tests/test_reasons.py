"""No benchmark fails its own proofs on any machine: reasons that load cannot cause must be rare in what each of them measures.

Only pages and check values are looked at. They say the same on a busy machine as on a quiet one; what a neighbour can cause (waiting, moved
clocks, distances, bands of physics) is not counted.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest

from numabench import kernel as abi
from numabench.benchmarks import discover, memory_node
from numabench.host.topology import read_topology
from numabench.host.trials import find_placing
from numabench.measure import plan as planning
from numabench.measure.executor import ProcessExecutor
from numabench.measure.profiles import find_profile
from numabench.measure.protocol import Job, Timing

MOST = 0.2  # of a benchmark's samples
SIZE = 8 << 20  # bytes of a case that has a size: what is proven is the same in larger ones
CASES = 24  # of a benchmark, spread over its plan
SAME_ANYWHERE = ("pages", "check")
TOPOLOGY = read_topology()
PLACING = find_placing(TOPOLOGY)


def deterministic(reason: str) -> str:
    """The kind of a reason, without the numbers in it; empty where load may have caused it."""
    kind = reason.partition(":")[0]
    return kind if kind in SAME_ANYWHERE else ""


def too_many(samples: list[tuple[str, ...]]) -> dict[str, int]:
    """Kinds of reasons that over a fifth of these samples have, by how many do."""
    counts = Counter(kind for reasons in samples for kind in {*map(deterministic, reasons)} - {""})
    return {kind: count for kind, count in counts.items() if count > MOST * len(samples)}


def test_what_a_fifth_of_the_samples_have_in_common_is_seen():
    assert too_many([("pages",), ("pages", "gaps"), (), (), ()]) == {"pages": 2}
    assert too_many([("check:5 of 6",), ("check:7 of 9",), ()]) == {"check": 2}  # one kind, whatever the numbers
    assert too_many([("pages",), (), (), (), ()]) == {} == too_many([("gaps", "cpu_moved", "physics:x")] * 5)


@pytest.mark.parametrize("name", sorted(discover()))
def test_no_benchmark_fails_its_own_proofs(name):
    benchmark = discover()[name]
    timing = Timing(window=0.002, samples=2)
    points = planning.expand(benchmark, TOPOLOGY, find_profile("quick"), {"size": (SIZE,)})
    planned, _ = planning.plan_cases(benchmark, points, TOPOLOGY, timing, placing=PLACING)
    if not planned:
        pytest.skip("this machine has no place for a case of it")
    block = planning.Block(benchmark=name, name=f"{name}/0", cases=tuple(planned[:: -(-len(planned) // CASES)]))
    cases = planning.job_cases(block, 0, 1, TOPOLOGY)
    line = TOPOLOGY.largest_line_bytes()
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    job = Job(
        benchmark=benchmark.module,
        kernel=str(abi.build(benchmark.kernel, line_bytes=line).target),
        sentinel=str(abi.build("sentinel", line_bytes=line).target),
        crew=str(abi.build("crew").target),
        cases=cases,
        timing=timing,
        home=memory_node(TOPOLOGY, TOPOLOGY.node_of(cases[0].cpus[0])),
        spawned=now,
        until=now + 600,
        placing=PLACING,
    )
    with ProcessExecutor() as executor:
        outcome = executor.execute(job, 600)
    assert outcome.failure == "" and outcome.failed_cases == {}
    samples = [sample.reasons for sample in outcome.samples]
    assert len(samples) >= len(cases) and too_many(samples) == {}, Counter(r for reasons in samples for r in reasons).most_common(
        3
    )
