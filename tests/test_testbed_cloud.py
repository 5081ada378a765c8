"""A guest whose host moves it about, without booting it: events of a machine file, answers by distance, the calibration and what turns it red."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from testbed import defects, qemu
from testbed.errors import MachineFileError
from testbed.expected.cloud import answer, at_distance, at_hop, clocks, hops
from testbed.judgement import Finding
from testbed.known import calibration
from testbed.known.cloud import judge_samples
from testbed.known.cloud import known as known_cloud
from testbed.machine import load_machine
from testbed.noise import HOPS, Noise, visit
from testbed.programs import FLAGS

ROOT = Path(__file__).resolve().parents[1]
GUEST = known_cloud().of
GOOD = """
summary = "a guest"
[cpus]
cores = 2
[[nodes]]
cpus = "0-1"
memory = "512M"
[timing]
memory = [[90]]
core_to_core = { die = 27 }
clock = 3.7
[[events]]
at = 5
every = 100
core_to_core = 107
[[events]]
at = 8.5
clock = 3.3
steal = { cpu = 1, time = 3 }
occupancy = [12.8]
"""


def written(tmp_path, text: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


# -- events -------------------------------------------------------------------------------------------------------------


def test_a_script_becomes_lines_for_the_simulator(tmp_path):
    machine = load_machine(written(tmp_path, GOOD))
    lines = qemu.configuration(machine, True, 2).splitlines()
    assert lines[lines.index("event 5000000 100000000 0") :] == [
        "event 5000000 100000000 0",
        "event_core_to_core 0 0 107",
        "event_core_to_core 1 107 0",
        "event 8500000 0 1.121212121",
        "event_steal 1 3000000",
        "event_occupancy 12.8",
    ]
    assert not any(line.startswith("event") for line in qemu.configuration(machine, False, 2).splitlines())
    assert not load_machine("two-socket").events and not any(
        line.startswith("event") for line in qemu.configuration(load_machine("two-socket"), True, 2).splitlines()
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("at = 5", "at = -1", r"events\[0\].at = -1.0: ms from the boot on"),
        ("every = 100", "every = -1", r"events\[0\].every = -1.0"),
        ("core_to_core = 107", "", r"events\[0\] changes nothing"),
        ("core_to_core = 107", "core_to_core = 0", r"events\[0\].core_to_core\[0\]\[1\] = 0.0: it must be positive"),
        ("core_to_core = 107", "core_to_core = { smt = 10 }", r"events\[0\].core_to_core lacks die"),
        ("clock = 3.3", "clock = 0", r"events\[1\].clock = 0.0: GHz"),
        ("clock = 3.7", "", r"events\[1\].clock: timing.clock has to say"),
        ("clock = 3.7", "clock = 1000", "timing.clock = 1000.0: GHz, at most 100"),
        ("cpu = 1", "cpu = 2", r"events\[1\].steal.cpu = 2: there are 2 CPUs"),
        ("time = 3", "time = 0", r"events\[1\].steal.time = 0.0: ms"),
        ("at = 8.5", "at = 8.5\nevery = 2", "every 2.0 ms the CPU would be away for 3.0"),
        ("[12.8]", "[1, 2]", r"events\[1\].occupancy = \[1.0, 2.0\]: one number"),
        ("occupancy", "occupation", "has no key occupation"),
    ],
)
def test_an_impossible_event_is_one_line_that_says_what(tmp_path, old, new, said):
    assert old in GOOD
    with pytest.raises(MachineFileError, match=said):
        load_machine(written(tmp_path, GOOD.replace(old, new, 1)))


def test_events_need_a_timing_and_are_not_too_many(tmp_path):
    head, events = GOOD.split("[timing]")[0], GOOD[GOOD.index("[[events]]") :]
    with pytest.raises(MachineFileError, match="there is none"):
        load_machine(written(tmp_path, head + events))
    with pytest.raises(MachineFileError, match="66 events are more than the 64"):
        load_machine(written(tmp_path, GOOD.split("[[events]]")[0] + 33 * events))


def test_what_happens_when_by_direct_calls(tmp_path):
    """Each line: ns at which a CPU's clock is put, the CPU, where its clock then is, ps of an instruction, of a hop and of a line at the controller."""
    program = tmp_path / "events"
    subprocess.run(["cc", *FLAGS, "-o", program, ROOT / "tests/events.c", ROOT / "testbed/simulator/events.c"], check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        "999 0 999 270 0 0",
        "1000 0 1000 270 107000 0",
        "2000 1 2000 303 107000 0",
        "2600 0 2600 303 107000 12800",
        "2950 1 2950 303 107000 12800",
        "3000 0 3000 303 107000 12800",
        "3010 1 3800 303 107000 12800",
        "3010 0 3010 303 107000 12800",
        "3900 1 3900 303 27000 12800",
        "1900 0 1900 303 27000 12800",
        "2100 0 2100 303 107000 12800",
    ]


# -- answers ------------------------------------------------------------------------------------------------------------


def test_answers_are_by_distance_and_clock():
    assert hops(GUEST) == (10, 27, 107) == HOPS and clocks(GUEST) == (3.3, 3.7)
    far = at_hop(GUEST, 107.0)
    assert far.timing.core_to_core == ((0.0, 107.0), (107.0, 0.0)) and not far.events
    given = {"time": 20.0, "rate": 50.0}
    assert at_distance(given, "time", 1, 4.0) == 80 and at_distance(given, "rate", -1, 4.0) == 12.5
    assert [answer(kind, 6.0, 2.0) for kind in ("cell", "difference", "ratio")] == [6, 4, 3]


@pytest.fixture(scope="module")
def noise() -> Noise:
    return Noise(calibration.load(ROOT / "results/sample" / f"{name}.jsonl") for name in calibration.RECORDED)


@pytest.fixture(scope="module")
def taken(noise):
    return visit(noise, 3)


def test_what_scatters_is_what_was_recorded_around_what_is_given(noise):
    assert (
        0 < noise.moves < 0.3
        and 0 < noise.changes < 0.1
        and noise.places[1] == max(noise.places)
        and sum(noise.places) == pytest.approx(1)
    )
    for recorded in noise.of.values():
        shared = np.concatenate(recorded.shared)
        for drawn in recorded.drawn.values():
            own = np.array([rest for rest, reasons in drawn if not reasons])
            assert np.median(np.add.outer(shared, own)) == pytest.approx(0, abs=1e-9) and len(own) >= 8


def test_a_visit_is_planned_and_stopped_by_numabench_and_says_the_same_again(noise, taken):
    log, off = taken
    again, _ = visit(noise, 3)
    assert [t.samples for t in log.trials] == [t.samples for t in again.trials]
    assert set(off) == {t.benchmark for t in log.trials} == set(noise.of)
    reasons = {reason for t in log.trials for s in t.samples for reason in s.reasons}
    assert {"distance_changed", "frequency_changed", "run_delay"} <= reasons
    found = [*calibration.judged_answers(noise, log, off)]
    assert len(found) > 25 and sum(each.holds for each in found) >= 0.8 * len(found)
    wrong = [*calibration.judged_answers(noise, log, dict.fromkeys(off, 0.2))]  # of another machine
    assert sum(each.holds for each in wrong if each.kind == "cell") < 0.3 * len(wrong)


def test_shares_are_held_against_what_is_promised():
    inside, outside = (calibration.Judged("cell", given, 9.0, 11.0) for given in (10.0, 12.0))
    assert calibration.coverage([inside] * 95 + [outside] * 5, 3).right
    assert (
        not calibration.coverage([inside] * 92 + [outside] * 8, 3).right
        and not calibration.coverage([inside] * 98 + [outside] * 2, 3).right
    )
    assert calibration.at_least("", "", 80, 100).right and not calibration.at_least("", "", 60, 100).right
    assert calibration.within(0.05, 12) == 3 and calibration.within(0.05, 1) == 1


@pytest.mark.parametrize("name", ["moved-samples", "moved-samples-blind"])
def test_the_calibration_sees_a_filter_that_lets_moved_samples_pass(name, tmp_path):
    found = calibration.KnownCalibration(visits=2).certify(
        tmp_path, defects.defective_tree(name), lambda text: None, lambda: None
    )
    moved = next(finding for finding in found if finding.what == "samples that were moved")
    assert not moved.right and int(moved.found.split()[0]) > 5


def test_samples_of_a_boot_are_judged_by_what_happened_in_them(taken):
    log, _ = taken
    found = {f.what: f for f in judge_samples(GUEST, log)}
    assert found["clocks"].right and all(finding.right for finding in found.values())
    lied = [
        msgspec.structs.replace(t, samples=tuple(msgspec.structs.replace(s, valid=True) for s in t.samples)) for t in log.trials
    ]
    wrong = {f.what: f for f in judge_samples(GUEST, msgspec.structs.replace(log, trials=tuple(lied)))}
    assert isinstance(wrong["samples that were moved"], Finding) and not wrong["samples that were moved"].right
    assert not {f.what: f for f in judge_samples(replace(GUEST, events=GUEST.events[:3] + GUEST.events[5:]), log)}["clocks"].right


ALIKE = """
import itertools
from synthetic import latency, make_log, matrix
from testbed.known.calibration import alike, sides
logs = [make_log(seed=seed, processes=5, samples=1, sd=(0.03, 0.02, 0.0), benchmarks=(latency, matrix)) for seed in range(12)]
found = alike(list(itertools.combinations(sides(logs, 3), 2)), "of visits that are alike")
print(found.right, found.found)
"""


@pytest.mark.parametrize("name", ["", "uncorrected-claims", "uncorrected-claims-blind"])
def test_the_calibration_sees_a_comparison_that_does_not_correct_its_claims(name, tmp_path):
    """On made-up visits, which take no time, and vary too much to be called the same: six comparisons of 34 cells."""
    tree = defects.defective_tree(name) if name else ROOT
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tree, ROOT, ROOT / "tests")))}
    done = subprocess.run(
        [sys.executable, "-c", ALIKE], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("True" if not name else "False"), done.stdout
