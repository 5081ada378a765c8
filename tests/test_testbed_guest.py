"""Simulated machines that really boot: what comes back, what stays behind, placement seen from both sides, and the physics."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import numabench
from numabench.benchmarks.padded_counters import PADDED
from testbed import defects
from testbed.errors import GuestError, UnavailableError
from testbed.guest import COMMAND, NOTHING, run
from testbed.judgement import judge_topology, judge_visit
from testbed.known import defects as known_defects
from testbed.machine import load_machine
from testbed.packages import find_tools, folder, locked
from testbed.programs import compile_programs
from testbed.visits import NUMABENCH, guest_script, measuring, numabench_command, visit


@pytest.fixture(scope="module", autouse=True)
def ready():
    """QEMU, the kernel and the compiled simulator, or a skip that says how to get them. Who is fetching them (make test) is waited for."""
    folder().mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder() / "lock"):
            pass
        find_tools()
        compile_programs()
    except UnavailableError as error:
        pytest.skip(f"no simulated machine: {error}")


def left_behind() -> list[str]:
    """QEMU processes and files of runs."""
    processes = subprocess.run(["pgrep", "-f", f"{folder()}/root/usr/bin/qemu"], capture_output=True, text=True, check=False)
    return [*processes.stdout.split(), *(path.name for path in (folder() / "runs").glob("*"))]


# -- a run (tests/test_testbed_run.py has what needs no guest) ------------------------------------------------------------


def test_output_exit_code_and_files_come_back_and_nothing_else_stays(tmp_path):
    pieces = []
    machine = load_machine("memoryless")
    script = f"echo out; echo err >&2; echo kept > /out/file; echo gone > /root/gone; hostname; {NUMABENCH} machine --format json > /out/machine; exit 7"
    found = run(machine, script, shared=tmp_path, timed=NOTHING, output=lambda *piece: pieces.append(piece))
    assert (found.status, found.stdout, found.stderr) == (7, "out\nmemoryless\n", "err\n")
    assert "".join(text for stream, text in pieces if stream == "stdout") == found.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "machine"] and not Path("/root/gone").exists()
    assert judge_topology(machine, json.loads((tmp_path / "machine").read_text()))[0].right
    assert left_behind() == []


def test_a_guest_whose_kernel_panics_goes_down(tmp_path):
    with pytest.raises(GuestError, match="went down while the command ran") as error:
        run(load_machine("two-socket"), "echo c > /proc/sysrq-trigger; sleep 20", shared=tmp_path, timed=NOTHING)
    assert "sysrq triggered crash" in error.value.console and left_behind() == []


# -- placement, in plain mode -------------------------------------------------------------------------------------------

SIZE = 1 << 20
RUN = "run node_latency --set size=1M --set page_size=thp --window 20ms --samples 1 --processes 1 --quiet"
SPREAD = 2 << 20  # and what is measured after that; no other section is of SIZE
SHORT = "--window 20ms --samples 1 --processes 1 --quiet --alias m"
WEIGHTS = "/sys/kernel/mm/mempolicy/weighted_interleave"
OFFLINE = f"""
(while ! grep -q trial /out/offline/m/*.jsonl 2>/dev/null; do sleep 0.2; done
 echo 0 > /sys/devices/system/cpu/cpu2/online
 for state in /sys/devices/system/node/node2/memory*/state; do echo offline > $state; done
 cat /sys/devices/system/cpu/online > /out/online; cat /sys/devices/system/node/has_memory >> /out/online) &
{NUMABENCH} {RUN.replace("--processes 1", "--processes 6")} --alias m --output /out/offline > /out/offline.txt 2>&1; echo $? >> /out/offline.txt
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One boot of `cxl` without timing: numabench under a policy in a cpuset, what moves pages, and while parts go offline."""
    shared = tmp_path_factory.mktemp("plain")
    group = "/sys/fs/cgroup"
    script = guest_script(
        defects.CHECKOUT,
        f"{NUMABENCH} machine --format json > /out/machine.json",
        f"mkdir -p {group}; mount -t cgroup2 none {group}; echo +cpuset > {group}/cgroup.subtree_control; mkdir {group}/part",
        f"echo 2-3 > {group}/part/cpuset.cpus; echo 1-2 > {group}/part/cpuset.mems",
        f"(sh -c 'echo $PPID > {group}/part/cgroup.procs'; numactl --interleave=all {NUMABENCH} {RUN} --alias m --output /out/confined)",
        f"echo 3 > {WEIGHTS}/node0; echo 1 > {WEIGHTS}/node1; echo 1 > {WEIGHTS}/node2",
        f"{NUMABENCH} run memory_policy --set size=2M --set kernel=read --set page_size=4k --set cpu_node=0 {SHORT} --output /out/spread",
        f"{NUMABENCH} run page_migration --set size=2M --set page_size=4k {SHORT} --output /out/moved",
        "echo 1 > /proc/sys/kernel/numa_balancing",
        f"{NUMABENCH} run numa_balancing --set size=2M {SHORT} --output /out/repaired",
        "echo 0 > /proc/sys/kernel/numa_balancing",
        OFFLINE,
    )
    return run(load_machine("cxl"), script, shared=shared, timed=NOTHING)


def log_of(shared: Path, name: str):
    (path,) = shared.glob(f"{name}/m/*.jsonl")
    return numabench.load(path).log


def measured(log) -> list:
    return [sample for trial in log.trials for sample in trial.samples]


def test_the_firmware_s_attributes_are_found(plain):
    assert judge_topology(load_machine("cxl"), json.loads((plain.shared / "machine.json").read_text()))[0].right


def test_every_page_is_where_the_plan_says_seen_from_inside_and_from_outside(plain):
    whole = log_of(plain.shared, "offline").trials[0].samples  # before anything goes away
    samples = [*measured(log_of(plain.shared, "confined")), *whole]
    sections = [section for section in plain.sections if section["bytes"] == SIZE]
    cells = [(sample.parameters["cpu_node"], sample.parameters["memory_node"]) for sample in samples]
    every = [(c, m) for c in (0, 1) for m in (0, 1, 2)]
    assert sorted(cells) == sorted([*every, (1, 1), (1, 2)])  # no place outside the cpuset
    assert len(sections) >= len(samples)
    for sample, section in zip(samples, sections, strict=False):
        node, cpu = sample.parameters["memory_node"], sample.threads[0].cpu
        assert set(sample.memory.pages) == {str(node)}  # numabench's own proof
        assert section["pages"] == {str(node): SIZE // 4096}  # what the simulator saw: every page, and none elsewhere
        assert set(section["accesses"]) == {f"{cpu}/{node}"} and load_machine("cxl").node_of[cpu] == sample.parameters["cpu_node"]


def test_pages_are_dealt_out_as_the_policy_says_seen_from_inside_and_from_outside(plain):
    samples = measured(log_of(plain.shared, "spread"))
    sections = [section for section in plain.sections if section["bytes"] == SPREAD]
    assert {sample.parameters["policy"] for sample in samples} == {"bind", "preferred", "interleave", "weighted"}
    assert len(sections) >= len(samples)
    for sample, section in zip(samples, sections, strict=False):
        policy = sample.parameters["policy"]
        shares = {"interleave": [1, 1, 1], "weighted": [3, 1, 1]}.get(policy, [1, 0, 0])
        assert "pages" not in sample.reasons and sample.memory.misplaced == 0 and sample.memory.policy == policy
        assert sum(sample.memory.pages.values()) == SPREAD // 4096
        for pages in (sample.memory.pages, section["pages"]):  # numabench's own proof, and what the simulator saw
            touched = sum(pages.values())  # from outside: on a slow machine a window's sweep need not reach the end
            wanted = [touched * share / sum(shares) for share in shares]
            assert touched > 0 and [pages.get(str(node), 0) for node in range(3)] == pytest.approx(wanted, abs=3)


def test_pages_move_between_all_nodes_and_come_home(plain):
    moved = measured(log_of(plain.shared, "moved"))
    assert {(s.parameters["from_node"], s.parameters["to_node"]) for s in moved} == {
        (a, b) for a in range(3) for b in range(3)
    } - {(n, n) for n in range(3)}
    repaired = measured(log_of(plain.shared, "repaired"))
    assert len(repaired) == 1 and repaired[0].metrics["repair_time"] >= repaired[0].metrics["reaction_time"] > 0
    for sample in [*moved, *repaired]:
        assert not [reason for reason in sample.reasons if reason.startswith(("check", "pages"))]


def test_a_cpu_and_a_node_that_go_away_are_named_and_the_rest_is_measured(plain):
    assert (plain.shared / "online").read_text().splitlines() == ["0-1,3", "0-1"]
    text = (plain.shared / "offline.txt").read_text()
    assert text.splitlines()[-1] == "0" and "Traceback" not in text
    trials = log_of(plain.shared, "offline").trials
    reasons = " ".join(reason for trial in trials for reason in trial.reasons)
    assert "cannot run on CPU 2" in reasons and "to node 2" in reasons
    last = {(s.parameters["cpu_node"], s.parameters["memory_node"]) for s in trials[-1].samples}
    assert {(0, 0), (0, 1)} <= last and not {m for _, m in last} & {2}


# -- the examples of docs/testbed-examples.md ---------------------------------------------------------------------------

EXAMPLES = defects.CHECKOUT / "docs" / "testbed-examples.md"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"[\d.]+(?= ns| MB/s)")
WORKED = [section for section in EXAMPLES.read_text().split("\n## ")[1:] if "```text" in section]


@pytest.mark.parametrize("section", WORKED, ids=lambda section: section.splitlines()[0])
def test_an_example_s_commands_print_what_its_page_says(section):
    """As a reader would type them, in the checkout. Measured figures within 6 % and 2: what a thread waits for its start differs a little from boot to boot."""
    (commands,), (shown,), (machine,) = (
        [text for own, text in FENCED.findall(section) if own == kind] for kind in ("", "text", "toml")
    )
    printed = ""
    for line in commands.splitlines():
        words = line.replace(".venv/bin/python", shlex.quote(sys.executable))
        done = subprocess.run(words, shell=True, cwd=defects.CHECKOUT, capture_output=True, text=True, check=False)
        printed += done.stdout
        assert done.returncode == 0, done.stderr
    assert (defects.CHECKOUT / re.search(r"examples/\w+\.toml", commands)[0]).read_text() == machine
    assert MEASURED.sub("#", printed).split() == MEASURED.sub("#", shown).split()
    found, promised = ([float(figure) for figure in MEASURED.findall(text)] for text in (printed, shown))
    assert found == pytest.approx(promised, rel=0.06, abs=2)


# -- physics, with timing -----------------------------------------------------------------------------------------------


def test_a_memory_controller_serves_one_line_after_the_other(tmp_path):
    """Occupancy by hand: alone a thread waits for the controller instead of the memory, two wait for each other."""
    machine = load_machine("two-socket")
    machine = replace(machine, timing=replace(machine.timing, occupancy=(170.0, 0.0)))
    program = tmp_path / "loads"
    source = Path(__file__).with_name("guest_loads.c")
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", program, source], check=True)
    found = run(machine, ["/out/loads"], shared=tmp_path, timed=COMMAND, timeout=120)
    assert found.status == 0, found.stderr
    figures = {tuple(line.split()[:2]): float(line.split()[2]) for line in found.stdout.splitlines()}
    assert figures["1", "0"] == pytest.approx(170, rel=0.02)
    assert figures["2", "0"] == pytest.approx(340, rel=0.03)
    assert figures["1", "1"] == pytest.approx(150, rel=0.02)


STRIDES = (8, 64, 128, PADDED)  # where the firmware says that a line ends, where it does, and beyond
BROKEN = "broken-chain"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smallest certificate: one boot of one machine, a figure of each kind; and in the same boot one wrong benchmark that only figures can tell."""
    shared = tmp_path_factory.mktemp("smoke")
    machine = load_machine("wide-line")
    wrong = measuring(machine, numabench_command(("node_latency",), processes=1), BROKEN)
    script = guest_script(defects.defective_tree(BROKEN + defects.BLIND), wrong, kernels=("memory_latency", "sentinel", "crew"))
    return visit(machine, shared, words=numabench_command(strides=STRIDES), more=script)


def test_numabench_is_right_on_a_machine_with_wide_lines(smoke):
    findings = judge_visit(smoke)
    assert len(findings) == 32 and {f.what for f in findings} >= {
        "node latency",
        "remote / local",
        "firmware",
        "hop",
        "core to core",
        "line size",
        "contended atomic_add",
        "false-sharing penalty",
        "load of a modified line",
        "add of a modified line",
        "cas of a modified line",
    }
    assert [f for f in findings if not f.right] == []


def test_the_figures_of_a_wrong_benchmark_turn_red(smoke):
    (log,) = smoke.topology.parent.glob(f"{BROKEN}/*/*.jsonl")
    (figures, *_) = known_defects.judge(smoke.machine, {BROKEN + defects.BLIND: numabench.load(log)})
    assert figures.right and figures.found == known_defects.RED
