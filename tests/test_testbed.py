"""The simulated machine without booting it: machine files, QEMU's command line, expected answers, defects, certificate."""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from click.testing import CliRunner

from numabench.analysis.answers.firmware import verdict
from testbed import defects, expected, packages, qemu
from testbed.certify import Certification
from testbed.cli import command
from testbed.errors import MachineFileError, SimulationError, UnavailableError
from testbed.firmware import cache_files
from testbed.guest import sweep, unfinished
from testbed.initrd import archive
from testbed.judgement import Finding, contradicted, judge_topology, named
from testbed.machine import MIB, Machine, load_machine, shipped
from testbed.numbering import apic_id, processor_list
from testbed.page import page_lines, write_certificate
from testbed.picture import draw
from testbed.visits import STRIDES, measured_rows, slower_machine

GOOD = """
summary = "a machine"
distances = [[10, 20], [20, 10]]
[cpus]
sockets = 2
cores = 2
[[nodes]]
cpus = "0-1"
memory = "256M"
[[nodes]]
cpus = "2-3"
memory = "256M"
[timing]
memory = [[90, 150], [160, 95]]
core_to_core = { die = 40, cross = 110 }
"""


def written(tmp_path, text: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


# -- machine files ------------------------------------------------------------------------------------------------------


def test_the_machines_of_the_issue_are_shipped():
    assert shipped() == [
        *(
            "alternating",
            "arm-two-node",
            "arm-wide-line",
            "cxl",
            "eight-ccx",
            "false-tables",
            "four-node-mesh",
            "inclusive-l3",
            "large-claims",
            "line-128",
        ),
        *("line-256", "memoryless", "memoryless-middle", "neighbours", "remote-faster", "sixteen-nodes", "sixty-four"),
        *("small-claims", "smt", "two-socket", "uniform", "unlike-cpus", "victim-l3", "wide-line"),
    ]
    machines = {name: load_machine(name) for name in shipped()}
    assert all(machine.timing and machine.summary for machine in machines.values())
    assert machines["cxl"].memory_nodes == (0, 1, 2) and machines["cxl"].cpu_nodes == (0, 1) and machines["cxl"].hmat
    assert machines["memoryless"].memory_nodes == (0, 1) and machines["memoryless"].cpu_nodes == (0, 1, 2)
    assert len(machines["eight-ccx"].groups("die")) == 8 and len(machines["eight-ccx"].nodes) == 2
    assert machines["sixty-four"].cpus == 64 and len(machines["sixty-four"].nodes) == 4
    assert machines["wide-line"].timing.line == 128 and machines["smt"].threads == 2
    assert [machines[f"line-{line}"].timing.line for line in (128, 256)] == [128, 256]
    assert {machines[name].timing.prefetch for name in shipped()} == {"none", "pair", "next"}
    holding = [name for name in shipped() if machines[name].timing.cache >= 1 << 20]  # a group of the chase, four times
    assert holding == ["line-128", "line-256", "neighbours", "small-claims"]
    assert len({d for row in machines["four-node-mesh"].distances for d in row}) > 2


def test_a_machine_file_becomes_a_machine(tmp_path):
    machine = load_machine(written(tmp_path, GOOD))
    assert machine.name == "mine" and machine.cpus == 4 and machine.node_of == (0, 0, 1, 1)
    assert machine.timing.core_to_core[0] == (0.0, 40.0, 110.0, 110.0)
    assert machine.groups("socket") == ((0, 1), (2, 3))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('cpus = "2-3"', 'cpus = "1-3"', "CPU 1 is in two nodes"),
        ('cpus = "2-3"', 'cpus = "2"', "CPU 3 is in no node"),
        ('cpus = "2-3"', 'cpus = "2-4"', "nodes name CPU 4"),
        ('cpus = "2-3"', 'cpus = "two"', "not a CPU list"),
        ('memory = "256M"', 'memory = "64M"', "the guest needs 384 MiB"),
        ('memory = "256M"', 'memory = "lots"', "not a size"),
        ("[[10, 20], [20, 10]]", "[[10, 20], [20, 11]]", "distance 10 from itself"),
        ("[[10, 20], [20, 10]]", "[[10, 9], [20, 10]]", "distances[0][1] = 9"),
        ("[[10, 20], [20, 10]]", "[[10]]", "no 2 x 2 matrix"),
        ("[[90, 150], [160, 95]]", "[[90, 150], [0, 95]]", "timing.memory[1][0] = 0"),
        ("[[90, 150], [160, 95]]", "[[90, 150]]", "timing.memory is no 2 x 2 matrix"),
        ("die = 40, ", "", "lacks die"),
        ("die = 40", "dye = 40", "names dye"),
        ("{ die = 40, cross = 110 }", "[[0, 1], [1, 0]]", "no 4 x 4 matrix"),
        ("sockets = 2", "sockets = 0", "cpus.sockets = 0"),
        ("sockets = 2", "sockets = 40", "more than the 64"),
        ("sockets = 2", "sockets = 2\nchips = 1", "[cpus] has no key chips; there are sockets, dies, cores, threads"),
        ("[timing]", "[timing]\nline = 96", "timing.line = 96"),
        ("[timing]", '[timing]\ncache = "64"', "at least 8 lines"),
        ("[timing]", '[timing]\nprefetch = "all"', "one of none, pair, next"),
        ("[timing]", "[timing]\nhit = 0", "timing.hit = 0"),
        ("[timing]", "[timing]\nocupancy = [1, 1]", "[timing] has no key ocupancy (occupancy?)"),
        ("core_to_core = { die = 40, cross = 110 }", "", "[timing] lacks core_to_core"),
        ("memory = [[90, 150], [160, 95]]", 'memory = "90"', "timing.memory must be a list in brackets"),
        ('cpus = "0-1"', 'cpu = "0-1"', "[nodes[0]] has no key cpu (cpus?)"),
        ("cores = 2", 'cores = 2\nnumbered = ["sockets"]', "threads, cores, dies, sockets are needed, each once"),
        ("[timing]", '[firmware]\ncaches = { L4 = "1M" }\n[timing]', "firmware.caches names L4; the levels are L1, L2, L3"),
        ("[timing]", '[firmware]\ncaches = { L1 = "100" }\n[timing]', "firmware.caches.L1 = 100: whole KiB"),
        ("[timing]", "[firmware]\nline = 96\n[timing]", "firmware.line = 96"),
        ("[timing]", "[firmware]\nline = 128\n[timing]", "L1, L2, L3 are needed where [[timing.caches]] does not say them"),
        (
            "cross = 110 }",
            'cross = 110 }\n[[timing.cpu_memory]]\ncpus = "7"\nmemory = [1, 1]',
            "cpu_memory names CPU 7",
        ),
        ("cross = 110 }", 'cross = 110 }\n[[timing.cpu_memory]]\ncpus = "0,0"\nmemory = [1]', "has 1 numbers"),
        ("cross = 110 }", 'cross = 110 }\n[[timing.cpu_memory]]\ncpus = "0"\nmemory = [1, 0]', "CPU 0[0][1] = 0"),
        ("[timing]", "[timing]\nhit = inf", "timing.hit = inf"),
        ("[timing]", '[timing]\ncache = "100G"', "at most 1 GiB"),
        ("[[90, 150], [160, 95]]", "[[90, 1e30], [160, 95]]", "at most 1e+06"),
        ("[timing]", "[hmat]\nlatency = [[900000, 1], [1, 1]]\n[timing]", "at most 60000"),
        ('memory = "256M"', 'memory = "900G"', "at most 64 GiB"),
        ('memory = "256M"', 'memory = "1M"', "0 or at least 32 MiB"),
        ("[timing]", "[timing]\noccupancy = [1]", "one number (0 to 1e+06) per node"),
        ('summary = "a machine"', "summary = 7", "summary must be a text in quotes"),
        ('summary = "a machine"', "summary = ", "mine.toml"),
    ],
)
def test_an_impossible_machine_is_one_line_that_says_what(tmp_path, old, new, said):
    text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(MachineFileError) as error:
        load_machine(written(tmp_path, text))
    assert said in str(error.value) and "mine.toml" in str(error.value) and "\n" not in str(error.value)


def test_a_node_with_nothing_and_a_wrong_initiator_are_refused(tmp_path):
    empty = GOOD.replace("[timing]", "[[nodes]]\n[timing]").replace(
        "[[10, 20], [20, 10]]", "[[10, 20, 20], [20, 10, 20], [20, 20, 10]]"
    )
    with pytest.raises(MachineFileError, match="neither CPUs nor memory"):
        load_machine(written(tmp_path, empty))
    with pytest.raises(MachineFileError, match="initiator = 7"):
        load_machine(
            written(tmp_path, empty.replace("[[nodes]]\n[timing]", '[[nodes]]\nmemory = "128M"\ninitiator = 7\n[timing]'))
        )


def test_nodes_of_memory_alone_come_last(tmp_path):
    """Linux numbers nodes with CPUs first, whatever the firmware's numbers are."""
    text = GOOD.replace("[[nodes]]", '[[nodes]]\nmemory = "128M"\n[[nodes]]', 1)
    text = text.replace("[[10, 20], [20, 10]]", "[[10, 20, 20], [20, 10, 20], [20, 20, 10]]")
    with pytest.raises(MachineFileError, match="node 1: nodes with CPUs come first"):
        load_machine(written(tmp_path, text))


@pytest.mark.parametrize("name", ["my machine.toml", "(new).toml", "-x.toml"])
def test_a_machine_s_name_is_one_that_a_host_can_have(tmp_path, name):
    path = tmp_path / name
    path.write_text(GOOD)
    with pytest.raises(MachineFileError, match="letters, digits"):
        load_machine(path)


def test_a_folder_of_that_name_does_not_hide_a_shipped_machine(tmp_path, monkeypatch):
    (tmp_path / "cxl").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_machine("cxl").name == "cxl"


def test_the_examples_machines_are_those_of_their_page_and_their_programs_compile(tmp_path):
    page = (defects.CHECKOUT / "docs/testbed-examples.md").read_text()
    files = sorted((defects.CHECKOUT / "examples").iterdir())
    assert len(files) == 6
    for path in files:
        if path.suffix == ".toml":
            assert load_machine(path).summary and path.read_text() in page
        else:
            words = ["gcc", "-O2", "-pthread", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / path.stem), str(path)]
            assert subprocess.run(words, check=False).returncode == 0 and f"../examples/{path.name}" in page


# -- QEMU ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(512, 512), (2048, 2048), (4096, 512, 1024), (3000, 500, 500)])
@pytest.mark.parametrize("modules", [False, True])
def test_memory_ranges_hold_every_byte_of_every_node_once(sizes, modules):
    base = load_machine("two-socket")
    cpus = [() if modules and number else (number,) for number in range(len(sizes))]
    nodes = [replace(base.nodes[0], cpus=own, memory=size * MIB) for own, size in zip(cpus, sizes, strict=True)]
    ranges = qemu.memory_ranges(replace(base, nodes=tuple(nodes)))
    held = [0] * len(sizes)
    for begin, end, offset, node in ranges:
        assert begin < end and offset == sum(sizes[:node]) * MIB + held[node]
        assert end <= qemu.LOW_LIMIT or begin >= qemu.HIGH_BEGIN  # nothing where devices are
        held[node] += end - begin
    assert held == [size * MIB for size in sizes]
    spans = sorted((begin, end) for begin, end, *_ in ranges)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    if modules:
        assert all(begin % qemu.GIB == 0 and begin >= qemu.HIGH_BEGIN for begin, _, _, node in ranges if node == len(sizes) - 1)


def test_qemu_is_told_of_distances_initiators_and_attributes():
    options = " ".join(qemu.node_options(load_machine("cxl")))
    assert "node,nodeid=2,initiator=1" in options and "pc-dimm,id=module2,memdev=memory2,node=2" in " ".join(
        qemu.module_options(load_machine("cxl"))
    )
    assert "dist,src=0,dst=2,val=24" in options
    assert "initiator=1,target=2,hierarchy=memory,data-type=access-latency,latency=250" in options
    assert "initiator=0,target=2,hierarchy=memory,data-type=access-bandwidth,bandwidth=8000M" in options
    assert "initiator=2," not in options.replace("nodeid=2,initiator=1", "")  # nothing starts from a node without CPUs


def test_cpus_are_numbered_as_the_file_says_and_lie_where_qemu_puts_them(tmp_path):
    """By hand, of two sockets of two cores with two threads: sockets in turn, then cores, then threads."""
    text = GOOD.replace("cores = 2", 'cores = 2\nthreads = 2\nnumbered = ["sockets", "cores", "dies", "threads"]')
    text = text.replace('"0-1"', '"0,2,4,6"').replace('"2-3"', '"1,3,5,7"').replace("die = 40,", "smt = 14, die = 40,")
    machine = load_machine(written(tmp_path, text))
    assert machine.positions == (0, 4, 2, 6, 1, 5, 3, 7)
    assert machine.groups("socket") == ((0, 2, 4, 6), (1, 3, 5, 7)) and machine.groups("smt") == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert [machine.relation(0, other) for other in (4, 2, 1)] == ["smt", "die", "cross"]
    assert [word for word in qemu.node_options(machine) if "nodeid=0" in word] == ["node,nodeid=0,cpus=0-3,memdev=memory0"]
    lines = qemu.configuration(machine, timed=True, spinners=2).splitlines()
    assert "node_of 0 0 0 0 1 1 1 1" in lines and "core_to_core 0 0 14 40 40 110 110 110 110" in lines
    table = processor_list(machine)
    assert sum(table) % 256 == 0 and len(table) == int.from_bytes(table[4:8], "little")
    entries = [table[at : at + 8] for at in range(44, 44 + 8 * 8, 8)]
    assert [(entry[0], entry[2], entry[3]) for entry in entries] == [(0, place, place) for place in machine.positions]
    assert processor_list(load_machine("smt")) is None  # as QEMU numbers them
    three = replace(machine, cores=3)
    assert [apic_id(three, place) for place in range(12)] == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]  # three cores take two bits


def test_what_the_firmware_claims_of_caches_is_put_over_the_processor_s():
    said = cache_files(load_machine("small-claims"))
    assert [said[f"cpu1/index{index}/size"] for index in range(3)] == ["16K\n", "64K\n", "128K\n"]
    assert said["cpu0/index2/coherency_line_size"] == "128\n" and said["cpu0/index2/shared_cpu_list"] == "0\n"
    assert cache_files(load_machine("cxl")) == {}
    levels = load_machine("inclusive-l3")
    lying = cache_files(replace(levels, said_caches=((3, 64 << 20),)))
    assert lying["cpu0/index2/size"] == "65536K\n" and lying["cpu0/index1/size"] == f"{levels.timing.caches[1].size >> 10}K\n"


def test_a_cpu_with_a_memory_of_its_own_is_told_so():
    machine = load_machine("unlike-cpus")
    assert machine.memory_from(0) == (90, 180) and machine.memory_from(1) == (135, 230)
    lines = qemu.configuration(machine, timed=True, spinners=2).splitlines()
    assert "memory_from 0 90 180" in lines and "memory_from 1 135 230" in lines
    assert expected.node_latency(machine, 0, 1) == 180.25 and expected.cpu_latency(machine, 1, 1) == 230.25


def test_plain_mode_tells_the_simulator_no_timing():
    text = qemu.configuration(load_machine("two-socket"), timed=False, spinners=2)
    assert "timed 0" in text and "core_to_core" not in text and text.count("range ") == 2
    timed = qemu.configuration(load_machine("two-socket"), timed=True, spinners=2)
    assert "core_to_core 3 120 125 45 0" in timed and "prefetch 0" in timed
    assert "prefetch 1" in qemu.configuration(load_machine("neighbours"), timed=True, spinners=2)


def test_the_first_files_are_an_archive_that_others_can_read(tmp_path):
    if not any(os.access(f"{folder}/cpio", os.X_OK) for folder in os.environ["PATH"].split(":")):
        busybox = packages.folder() / "root/bin/busybox"
        if not busybox.exists():
            pytest.skip("no cpio and no busybox here: python -m testbed prepare")
        reader = [str(busybox), "cpio"]
    else:
        reader = ["cpio"]
    packed = archive([("dir", 0o40755, b""), ("dir/five", 0o100644, b"12345"), ("odd-name", 0o100755, b"x" * 4097)])
    subprocess.run([*reader, "-idm"], input=packed, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "dir/five").read_bytes() == b"12345"
    assert (tmp_path / "odd-name").read_bytes() == b"x" * 4097 and os.access(tmp_path / "odd-name", os.X_OK)


def test_what_is_missing_is_said_with_the_command_that_fetches_it(tmp_path, monkeypatch):
    monkeypatch.setenv(packages.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UnavailableError, match="python -m testbed prepare"):
        packages.find_tools()
    found = CliRunner().invoke(command, ["run", "--machine", "two-socket", "--", "true"])
    assert isinstance(found.exception, UnavailableError) and found.exception.exit_code == 3


@pytest.mark.parametrize(
    ("piece", "held"),
    [(b"", 0), (b"ab", 0), ("é".encode(), 0), ("é".encode()[:1], 1), (b"a" + "€".encode()[:2], 2), (b"\xff", 1)],
)
def test_a_character_is_shown_when_all_of_it_has_come(piece, held):
    assert unfinished(piece) == held


def test_files_of_a_killed_run_are_swept_away_and_those_of_a_living_one_kept(tmp_path, monkeypatch):
    monkeypatch.setenv(packages.FOLDER_VARIABLE, str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f"{gone.pid}-abc", f"{os.getpid()}-abc"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    sweep()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [f"{os.getpid()}-abc"]


# -- expected answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["two-socket", "smt", "eight-ccx", "memoryless"])
def test_where_lines_are_dear_a_hop_and_an_atomic_are_transfers(name):
    """By hand: two CPUs that want one line get it in turn, so that each waits for two transfers."""
    machine = load_machine(name)
    for other in range(1, machine.cpus):
        transfer = machine.timing.core_to_core[0][other]
        assert expected.hop(machine, 0, other) == pytest.approx(transfer, rel=1e-6)
        assert expected.contended_atomic(machine, [0, other]) == pytest.approx(2 * transfer, rel=1e-6)
        assert expected.false_sharing_penalty(machine, 0, other) == transfer - machine.timing.hit
        near, far = (expected.single_operation(machine, expected.READ, 0, *holder) for holder in ((), (other,)))
        assert far - near == pytest.approx(transfer - machine.timing.hit)


def test_alone_an_atomic_is_its_own_price():
    machine = load_machine("two-socket")
    timing = machine.timing
    alone = timing.atomic + timing.hit + expected.LOOP_INSTRUCTIONS * timing.instruction
    assert expected.contended_atomic(machine, [0]) == pytest.approx(alone)


def test_the_knee_is_the_line_unless_lines_cost_nothing():
    for name in shipped():
        machine = load_machine(name)
        knees = {expected.knee(machine, list(STRIDES), 0, other) for other in range(1, machine.cpus)}
        assert knees == {min(STRIDES) if name == "uniform" else machine.timing.line}


def test_a_node_is_as_far_as_its_memory_whatever_a_line_or_a_cache_holds():
    for name in shipped():
        machine = load_machine(name)
        for c, m in itertools.product(machine.cpu_nodes, machine.memory_nodes):
            assert expected.node_latency(machine, c, m) == machine.timing.memory[c][m] + machine.timing.instruction


def test_what_contradicts_the_firmware_is_told_from_the_given_latencies():
    found = {name: expected.contradictions(load_machine(name)) for name in shipped()}
    assert found["false-tables"] == ["from 0: 2, 1 reversed", "from 1: 0, 2 not equal", "from 0: 2, 0 reversed"]
    assert found["uniform"] == ["from 0: 0, 1 equal", "from 1: 1, 0 equal"]
    assert found["remote-faster"] == ["from 0: 0, 1 reversed", "from 1: 1, 0 reversed"]
    assert found["cxl"] == ["from 1: 2, 0 reversed"] and len(found["four-node-mesh"]) == 3
    assert sum(map(bool, found.values())) == 5


@pytest.mark.parametrize("name", shipped())
def test_numabench_contradicts_the_firmware_where_the_given_latencies_do(name):
    """Without a boot: its verdict on a matrix that is as given, against what is told from the machine file."""
    machine = load_machine(name)
    cells = [(c, m, expected.node_latency(machine, c, m)) for c in machine.cpu_nodes for m in machine.memory_nodes]
    rows = pd.DataFrame([{"cpu_node": c, "memory_node": m, "value": ns, "low": ns - 0.1, "high": ns + 0.1} for c, m, ns in cells])
    initiators = [number if node.cpus else node.initiator or 0 for number, node in enumerate(machine.nodes)]
    shown = [
        {
            "id": node,
            "distances": dict(enumerate(machine.distances[node])),
            "access": {"access0": {"initiators": [i], "read_latency_ns": machine.hmat_latency[i][node]}} if machine.hmat else {},
        }
        for node, i in enumerate(initiators)
    ]
    assert not expected.undecided(machine)
    assert contradicted(verdict({"nodes": shown}, rows, "lower", "ns")[2]) == named(expected.contradictions(machine))


def test_of_many_nodes_three_rows_are_measured():
    assert measured_rows(load_machine("sixteen-nodes")) == (0, 8, 15) and measured_rows(load_machine("cxl")) == (0, 1)


def test_relations_have_numabench_s_names():
    ccx, smt = load_machine("eight-ccx"), load_machine("smt")
    assert [expected.relation(ccx, 0, b) for b in (1, 2, 8)] == ["l3", "node", "cross_package"]
    assert [expected.relation(smt, 0, b) for b in (1, 2, 4)] == ["smt", "l3", "cross_package"]


def test_the_slower_machine_differs_in_one_latency_and_in_its_name():
    machine = load_machine("cxl")
    slower, (c, m) = slower_machine(machine)
    assert (c, m) == (0, 2) and slower.timing.memory[0][2] == pytest.approx(341) and slower.name != machine.name
    changed = [
        [a != b for a, b in zip(x, y, strict=True)] for x, y in zip(machine.timing.memory, slower.timing.memory, strict=True)
    ]
    assert sum(map(sum, changed)) == 1 and slower.timing.core_to_core == machine.timing.core_to_core


# -- defects, certificate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", defects.names())
def test_each_defect_fits_the_code_and_still_compiles(name, tmp_path, monkeypatch):
    monkeypatch.setenv(packages.FOLDER_VARIABLE, str(tmp_path))
    tree = defects.defective_tree(name)
    code = "import numabench.kernel as k, numabench.measure.worker, numabench.host.memory, numabench.measure.crew; print(k.source_folder())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tree)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tree / "kernels")
    for source in sorted((tree / "kernels").glob("*.c")):
        subprocess.run(["cc", "-std=gnu11", "-fsyntax-only", str(source)], check=True)


def test_a_defect_that_no_longer_fits_is_an_error_and_no_silence(tmp_path, monkeypatch):
    monkeypatch.setenv(packages.FOLDER_VARIABLE, str(tmp_path))
    stale = replace(defects.DEFECTS["missing-pin"], mistake=(("kernels/nb.h", "what nobody wrote", ""),))
    monkeypatch.setitem(defects.DEFECTS, "missing-pin", stale)
    with pytest.raises(SimulationError, match="does not fit"):
        defects.defective_tree("missing-pin")


def certified(*findings: Finding, parts: Path | None = None) -> Certification:
    certification = Certification([load_machine("two-socket")], defects.CHECKOUT, with_comparison=False, parts=parts)
    certification.findings, certification.versions, certification.seconds = list(findings), {}, 60.0
    return certification


RIGHT = Finding("two-socket", "node latency", "0 to 0", 90.0, 91.0, 1.8, 90.5, 91.5, "ns")
WRONG = Finding("two-socket", "node latency", "0 to 1", 150.0, 154.0, 3.0, 153.0, 155.0, "ns")
MISSING = Finding("two-socket", "node latency", "1 to 0", 160.0, "no valid sample", 3.2, unit="ns")
WORDS = Finding("two-socket", "line size", "CPUs 0, 1", "64 B", "128 B")


def test_a_certification_goes_on_with_what_an_earlier_one_found(tmp_path, monkeypatch):
    """Never with what was found of changed files, with other words, of a machine that was described otherwise, or with half a file."""
    commits = ["0123"]
    monkeypatch.setattr("testbed.certify.commit", lambda tree: commits[-1])
    monkeypatch.setattr("testbed.certify.changed_since", lambda tree, commit: set())
    first, second = certified(parts=tmp_path / "parts"), certified(parts=tmp_path / "parts")
    machine = first.machines[0]
    first.keep(machine, [RIGHT, WRONG, MISSING, WORDS], 30.0)
    assert repr(second.kept(machine)) == repr([RIGHT, WRONG, MISSING, WORDS]) and second.seconds == 90.0
    assert second.commits == {"two-socket": "0123"}
    assert second.kept(load_machine("cxl")) is None and certified().kept(machine) is None
    assert second.kept(replace(machine, summary="another")) is None
    second.part(load_machine("cxl")).write_text('{"of"')
    assert second.kept(load_machine("cxl")) is None
    second.with_comparison = True
    assert second.kept(machine) is None
    second.with_comparison = False
    commits.append("0123 with changes")
    assert second.kept(machine)
    first.keep(machine, [RIGHT], 30.0)
    assert second.kept(machine) is None


def test_a_finding_is_right_within_its_slack_or_to_the_letter():
    assert RIGHT.right and not WRONG.right and not MISSING.right and not WORDS.right
    assert replace(WORDS, found="64 B").right and math.isnan(MISSING.deviation)
    assert replace(RIGHT, expected=0.0, found=0.5, slack=4.0).right


def test_the_certificate_shows_what_is_wrong_and_hides_nothing(tmp_path):
    green, red = certified(RIGHT), certified(RIGHT, WRONG, MISSING, WORDS)
    assert green.green and not red.green
    assert green.summary().startswith("GREEN: 1 of 1") and "+1.11%" in green.summary()
    assert red.summary().startswith("RED: 1 of 4") and "1 of 3 figures" in red.summary() and "no valid sample" in red.summary()
    page = "\n".join(page_lines(red, "broken-chain"))
    assert "--no-compare" in page and page.count("**WRONG**") == 3 and "+2.67%" in page and "wrong on purpose" in page
    (tmp_path / "certificate").mkdir()
    (tmp_path / "certificate" / "gone.svg").touch()
    written = write_certificate(red, tmp_path)
    assert [path.name for path in written] == ["certificate.md", "two-socket.svg", "certificate.svg"]
    assert all(path.stat().st_size > 500 for path in written) and not (tmp_path / "certificate" / "gone.svg").exists()
    assert all(f"]({path.relative_to(tmp_path)})" in page for path in written[1:])


def test_a_picture_shows_every_figure_with_its_band_and_what_is_wrong_otherwise(tmp_path):
    assert not draw({"line size": [WORDS], "node latency": [MISSING]}, tmp_path / "none.svg", "none")
    assert draw(
        {"node latency": [RIGHT, WRONG, MISSING], "hop": [replace(RIGHT, what="hop")], "line size": [WORDS]},
        tmp_path / "a.svg",
        "<&",
    )
    text = (tmp_path / "a.svg").read_text()
    (root,) = [element for element in ElementTree.fromstring(text).iter() if element.get("role") == "img"]
    assert root.get("aria-label") == "<&" and "prefers-color-scheme: dark" in text and "node latency (ns)" in text
    assert "line size" not in text
    marks = Counter(
        re.search(r"var\(--nb-(\w+)", use.get("style"))[1]
        for use in root.iter("{http://www.w3.org/2000/svg}use")
        if "nb-s" in use.get("style", "")
    )
    assert marks == {"s0": 4, "s1": 2}  # each figure on both sides; wrong ones in another colour


def test_a_machine_that_cannot_be_measured_is_red():
    broken = certified(RIGHT)
    broken.broken["cxl"] = "the guest did not boot"
    assert not broken.green and "cxl could not be measured" in broken.summary()
    assert not certified().green


def test_a_wrong_topology_is_named_part_by_part():
    machine: Machine = load_machine("smt")
    found = {
        "cpus": "0-7",
        "packages": [{"cpus": "0-3"}, {"cpus": "4-7"}],
        "dies": ["0-3", "4-7"],
        "cores": ["0-1", "2-3", "4-5", "6-7"],
        "smt": 2,
        "caches": [{"level": 3, "cpus": "0-3"}, {"level": 3, "cpus": "4-7"}],
        "nodes": [
            {"id": i, "cpus": cpus, "memory_bytes": 480 * MIB, "distances": {"0": a, "1": b}, "access": {}}
            for i, (cpus, a, b) in enumerate((("0-3", 10, 21), ("4-7", 21, 10)))
        ],
    }
    assert judge_topology(machine, found)[0].right
    found["cores"][0] = "0,4"
    found["nodes"][1]["memory_bytes"] = 100 * MIB
    (finding,) = judge_topology(machine, found)
    assert not finding.right and "cores" in finding.found and "memory of node 1" in finding.found


def test_numabench_knows_nothing_of_where_it_runs():
    for path in sorted((defects.CHECKOUT / "numabench").rglob("*.py")) + sorted((defects.CHECKOUT / "kernels").glob("*")):
        assert "testbed" not in path.read_text() and "simulat" not in path.read_text().lower(), path


# -- the command --------------------------------------------------------------------------------------------------------


def test_help_and_lists_teach():
    runner = CliRunner()
    assert "run --machine cxl" in runner.invoke(command, ["--help"]).output
    listed = runner.invoke(command, ["list"]).output
    assert all(name in listed for name in shipped())
    named = runner.invoke(command, ["certify", "--defect", "list"]).output
    assert all(name in named for name in defects.names())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "--machine", "nowhere", "--", "true"], 2, "there is no machine file nowhere"),
        (["run", "--machine", "cxl"], 2, "COMMAND"),
        (["run", "--machine", "cxl", "--", "build/no-such"], 2, "there is no file build/no-such here: compile it first"),
        (["certify", "--defect", "no-such"], 1, "there is no defect no-such"),
        (["certify", "--since", "no-such", "--machine", "cxl"], 2, "git knows no commit no-such"),
        (["certify", "--jobs", "0"], 2, "--jobs"),
        (["fly"], 2, "No such command"),
    ],
)
def test_wrong_words_are_one_line_and_an_exit_code(words, code, said):
    done = subprocess.run([sys.executable, "-m", "testbed", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
