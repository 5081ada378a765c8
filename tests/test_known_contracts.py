"""The certificate of the runtime's contracts without booting it: what it makes of a log."""

from __future__ import annotations

import msgspec
from synthetic import latency, make_log

from numabench.benchmarks import choose
from numabench.runlog.read import RunLog
from testbed.certify import Certification
from testbed.defects import CHECKOUT
from testbed.known.contracts import HELD, TOPIC, judge
from testbed.known.contracts import known as known_contracts
from testbed.page import page_lines
from testbed.visits import measuring

NAMES = [benchmark.name for benchmark in choose([TOPIC])]


def measured(**changes) -> RunLog:
    """A log of all benchmarks of the topic, each with the samples of one; `changes` of the first one's trial."""
    log = make_log(processes=1, benchmarks=(latency,))
    (record,), (trial,) = log.benchmarks, log.trials
    cases = len({sample.case for sample in trial.samples})
    records = tuple(msgspec.structs.replace(record, name=name, topic=TOPIC, cases=cases) for name in NAMES)
    trials = [msgspec.structs.replace(trial, benchmark=name) for name in NAMES]
    trials[0] = msgspec.structs.replace(trials[0], **changes)
    return msgspec.structs.replace(log, benchmarks=records, trials=tuple(trials))


def wrong(log: RunLog) -> dict[str, str]:
    return {finding.where: finding.found for finding in judge(log) if not finding.right}


def test_each_benchmark_has_a_finding_and_all_hold():
    findings = judge(measured())
    assert [finding.where for finding in findings] == NAMES and all(finding.right for finding in findings)
    assert {finding.expected for finding in findings} == {HELD}


def test_what_did_not_hold_is_named():
    samples = measured().trials[0].samples
    lied = tuple(
        msgspec.structs.replace(sample, valid=False, reasons=("run_delay", "check:bytes were copied")) for sample in samples
    )
    assert wrong(measured(samples=lied)) == {NAMES[0]: f"check:bytes were copied, and {len(lied) - 1} more"}
    slow = tuple(msgspec.structs.replace(sample, valid=False, reasons=("frequency_changed", "run_delay")) for sample in samples)
    assert wrong(measured(samples=slow, status="disturbed", reasons=("run_delay",))) == {}
    assert wrong(measured(samples=(), status="failed", reasons=("crashed",))) == {NAMES[0]: "crashed"}
    cases = {sample.case for sample in samples}
    first = [sample for sample in samples if sample.case != min(cases)]
    assert wrong(measured(samples=tuple(first))) == {NAMES[0]: f"{len(cases) - 1} of {len(cases)} cases"}


def test_what_was_not_measured_is_named():
    log = measured()
    less = msgspec.structs.replace(log, benchmarks=log.benchmarks[1:])
    assert wrong(less) == {NAMES[0]: "not measured"}


def test_its_page_and_its_command():
    known = known_contracts()
    assert TOPIC in known.summary and known.boots == 1 and "numabench" in measuring(known.of, ["run", TOPIC], "results")
    certification = Certification([known], CHECKOUT, with_comparison=True)
    certification.findings, certification.versions = judge(measured()), {}
    assert certification.summary() == f"GREEN: {len(NAMES)} of {len(NAMES)} findings are right"  # no figure among them
    assert f"| contract | {NAMES[0]} | as predicted | as predicted |" in "\n".join(page_lines(certification, None))
