"""Identity and configuration of machines, and the drawing of `numabench machine`."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tarfile
import types
from importlib.machinery import ModuleSpec

import pytest
from click.testing import CliRunner
from synthetic_sysfs import CPU, NODE, SyntheticTree

from numabench.cli.machine import command
from numabench.errors import MachineError, UsageError
from numabench.host import machine as module
from numabench.host import programs
from numabench.host.configuration import hypervisor
from numabench.host.machine import read_machine
from numabench.host.processor import brand_of, read_processor
from numabench.host.sysfs import Tree
from numabench.host.topology import read_topology


def read(tree, **options):
    return read_machine(str(tree.root), **options)


@pytest.fixture
def tree(tmp_path):
    made = SyntheticTree(tmp_path / "box", packages=2, nodes=2, cores=2, smt=2)
    made.write("etc/machine-id", "0123456789abcdef")
    made.write("proc/sys/kernel/hostname", "node 17/a")
    made.write("proc/sys/kernel/osrelease", "6.1.0")
    made.write("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=42 ro mitigations=off isolcpus=3 -- --secret=x")
    made.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
    made.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 12)
    made.write(f"{CPU}/cpufreq/policy0/scaling_governor", "performance")
    made.write(f"{CPU}/cpufreq/policy1/scaling_governor", "powersave")
    made.write(f"{CPU}/intel_pstate/no_turbo", 1)
    made.write(f"{CPU}/vulnerabilities/meltdown", "Not affected")
    made.write(f"{CPU}/vulnerabilities/spectre_v1", "Mitigation: barriers")
    return made


def test_facts_of_a_copy_of_another_machine(tree):
    machine = read(tree)
    assert machine.brand == "Synthetic CPU @ 2.00GHz" and machine.arch == "x86_64"
    assert machine.alias == "node-17-a" and machine.flags == ("avx2", "constant_tsc", "ht", "lm")
    assert machine.hardware["packages"] == 2 and machine.hardware["memory_gib"] == 16
    configuration = machine.configuration
    assert configuration["command_line"] == "mitigations=off isolcpus=3"
    assert configuration["governor"] == "performance,powersave" and configuration["turbo"] is False
    assert configuration["thp_enabled"] == "madvise" and configuration["hugepages"] == {"2097152": 12}
    assert configuration["mitigations"] == {"spectre_v1": "Mitigation: barriers"}
    assert configuration["nodes_per_package"] == 2 and configuration["microcode"] == "0x2006e05"
    json.dumps(machine.hardware), json.dumps(machine.configuration), json.dumps(machine.topology)


def test_no_live_fact_enters_a_copy(tree, monkeypatch):
    monkeypatch.setattr(module, "read_programs", lambda *_: pytest.fail("asked a program about another machine"))
    configuration = read(tree).configuration
    assert {configuration[name] for name in ("compiler", "libc", "python", "page_bytes")} == {None}


def test_keys_ignore_what_changes_by_itself(tree):
    before = read(tree)
    tree.write("proc/uptime", "1.0 1.0")
    tree.write("proc/loadavg", "9 9 9 1/1 1")
    cpuinfo = (tree.root / "proc/cpuinfo").read_text()
    tree.write("proc/cpuinfo", cpuinfo.replace("stepping", "cpu MHz : 1234.5\nstepping"))
    tree.write("proc/meminfo", f"MemTotal: {16 * (1 << 20) - 9999} kB\nMemFree: 1 kB\nSwapTotal: 0 kB")
    tree.write(f"{NODE}/node0/meminfo", "Node 0 MemTotal: 777 kB")
    after = read(tree)
    assert (after.id, after.hardware_key, after.configuration_key) == (before.id, before.hardware_key, before.configuration_key)


@pytest.mark.parametrize("offline", [(4,), (2, 3, 6, 7), (1, 2, 3, 4, 5, 6, 7)])
def test_a_machine_with_cpus_offline_is_the_same(tmp_path, offline):
    """One thread of a core, a package with its node, all but one CPU."""

    def made(name: str, cores: int = 2, **changes):
        tree = SyntheticTree(tmp_path / name, packages=2, cores=cores, smt=2, **changes)
        tree.write("etc/machine-id", "0123456789abcdef")
        return read(tree)

    whole, less = made("whole"), made("less", offline=offline)
    assert (whole.hardware["cpus"], less.hardware["cpus"]) == (8, 8 - len(offline))
    assert less.id == whole.id and less.hardware_key != whole.hardware_key
    assert made("smaller", cores=1).id != whole.id


@pytest.mark.parametrize("limit", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_machine_that_cannot_be_read_is_no_other_one(tmp_path, monkeypatch, limit):
    """From whichever file on there are no more descriptors."""
    tree = SyntheticTree(tmp_path / "box")
    tree.write("etc/machine-id", "0123456789abcdef")
    whole, left = read(tree), [0]

    def fails(real):
        def called(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(limit, os.strerror(limit))
            return real(*arguments, **options)

        return called

    monkeypatch.setattr(os, "open", fails(os.open))
    monkeypatch.setattr(os, "listdir", fails(os.listdir))
    for files in range(1000):
        left[0] = files
        try:
            machine = read(tree)
        except MachineError as error:
            assert "another" in str(error) and "ulimit" in str(error)
            continue
        assert machine == whole
        break
    assert files > 20 and left[0] >= 0


def test_configuration_changes_one_key_and_hardware_the_others(tree):
    before = read(tree)
    tree.write("proc/sys/kernel/numa_balancing", 1)
    other_setup = read(tree)
    assert other_setup.configuration_key != before.configuration_key
    assert (other_setup.id, other_setup.hardware_key) == (before.id, before.hardware_key)
    tree.write("etc/machine-id", "fedcba9876543210")
    twin = read(tree)
    assert twin.id != before.id and twin.hardware_key == before.hardware_key
    for cpu in tree.cpus:
        tree.write(f"{CPU}/cpu{cpu}/cache/index3/size", "32M")
    assert read(tree).hardware_key != before.hardware_key


@pytest.mark.parametrize(
    ("cpuinfo", "brand", "arch"),
    [
        ("processor : 0\ncpu : POWER7 (architected)\n", "POWER7 (architected)", "ppc64"),
        (
            "processor : 0\nCPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd0c\n",
            "Arm implementer 0x41 part 0xd0c",
            "aarch64",
        ),
        ("vendor_id : IBM/S390\nprocessor 1: version = 00, machine = 2817\n", "IBM/S390 machine 2817", "s390x"),
        ("processor : 0\nmodel name : \n", None, None),
        ("", None, None),
    ],
)
def test_brand_of_other_architectures(tree, cpuinfo, brand, arch):
    tree.write("proc/cpuinfo", cpuinfo)
    machine = read(tree)
    assert (machine.brand, machine.arch) == (brand, arch)


@pytest.mark.parametrize(
    ("flags", "clocks", "name"),
    [
        ("lm", "tsc hpet", "none"),
        ("lm hypervisor", "tsc kvm-clock", "kvm"),
        ("lm hypervisor", "tsc", "unnamed"),
        ("", "tsc", None),
    ],
)
def test_hypervisor(tree, flags, clocks, name):
    tree.write("proc/cpuinfo", f"processor : 0\nflags : {flags}")
    tree.write("sys/devices/system/clocksource/clocksource0/available_clocksource", clocks)
    files = Tree(str(tree.root))
    assert hypervisor(files, read_processor(files)) == name


def fake_cpuinfo(monkeypatch, answer):
    calls = []

    def get_cpu_info():
        calls.append(1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = types.SimpleNamespace(get_cpu_info=get_cpu_info, __spec__=ModuleSpec("cpuinfo", None))
    monkeypatch.setitem(sys.modules, "cpuinfo", found)
    return calls


def test_programs_are_asked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = fake_cpuinfo(monkeypatch, {"brand_raw": "Brand of CPUID", "flags": ["avx2"]})
    first, second = read_machine(alias="here"), read_machine(alias="here")
    assert first.brand == second.brand == "Brand of CPUID" and len(calls) == 1
    assert first == second and first.alias == "here"
    monkeypatch.setattr(programs, "_ask_compiler", lambda *_: pytest.fail("asked the compiler again"))
    assert read_machine(alias="here") == first
    bare = read_machine(facts=False)
    assert (bare.id, bare.hardware_key) == (first.id, first.hardware_key)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = fake_cpuinfo(monkeypatch, {"brand_raw": "Brand of CPUID", "flags": ["avx2"]})
    assert len(list((tmp_path / "numabench").glob("cpuinfo-*.json"))) == 1
    next((tmp_path / "numabench").glob("*.json")).write_text("not JSON")
    third = read_machine()
    assert third.brand == "Brand of CPUID" and len(calls) == 1 and any("cannot use" in each for each in third.warnings)


def test_failing_py_cpuinfo_falls_back(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake_cpuinfo(monkeypatch, Exception("unknown architecture"))
    machine = read_machine()
    files = Tree()
    assert machine.brand == brand_of(read_processor(files))
    assert any("py-cpuinfo failed" in warning for warning in machine.warnings)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fake_cpuinfo(monkeypatch, {"brand_raw": "B"})
    assert any("cannot keep" in warning for warning in read_machine().warnings)


def test_without_facts_no_program_is_asked(monkeypatch):
    monkeypatch.setattr(module, "read_programs", lambda *_: pytest.fail("asked a program"))
    assert read_machine(facts=False).configuration["compiler"] is None


# --- the command ----------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner(env={"COLUMNS": "80"}).invoke(command, arguments)


def test_json_of_a_copy(tree):
    result = run("--root", str(tree.root), "--format", "json")
    form = json.loads(result.output)
    assert list(form)[:8] == ["cpus", "allowed_cpus", "packages", "cores", "nodes", "caches", "smt", "warnings"]
    assert form["machine"]["alias"] == "node-17-a" and "topology" not in form["machine"]


def test_drawing_is_short_and_groups_what_is_alike(tree):
    result = run("--root", str(tree.root))
    assert result.exit_code == 0, result.output
    assert "2 packages 0,1" in result.output and "each 2 nodes: 4 GiB" in result.output
    assert "distances (SLIT)" in result.output and "64 bytes (L1/L2), 128 bytes (L3)" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_drawing_of_a_large_machine_fits_on_a_screen(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, nodes=4, l3s=2, cores=8, smt=2)
    tree.write("proc/self/status", "Cpus_allowed_list: 0-9")
    lines = run("--root", str(tree.root)).output.splitlines()
    assert len(lines) < 40 and any("CPUs 0-9" in line for line in lines)


def test_drawing_of_odd_machines(tmp_path):
    tree = SyntheticTree(tmp_path, nodes=18, cores=1)
    tree.add_node(30, memory_gib=None)
    tree.write(f"{CPU}/cpu0/topology/physical_package_id", -1)
    tree.write("proc/cpuinfo", "")
    output = run("--root", str(tree.root)).output
    assert "unknown brand" in output and "pairs of nodes" in output and "no CPU" in output and "warning" in output


def test_tar_file_as_root(tree, tmp_path):
    archive = tmp_path / "box.tar.gz"
    with tarfile.open(archive, "w:gz") as target:
        target.add(tree.root, arcname="box")
    form = json.loads(run("--root", str(archive), "--format", "json").output)
    assert form["cpus"] == "0-15"
    (tmp_path / "alone").mkdir()
    (tree.root).rename(tmp_path / "alone/box")
    assert run("--root", str(tmp_path / "alone")).exit_code == 0


@pytest.mark.parametrize("kind", ["empty", "missing", "file"])
def test_wrong_root_is_one_line(tmp_path, kind):
    root = tmp_path / kind
    if kind == "empty":
        root.mkdir()
    if kind == "file":
        root.write_text("no archive")
    result = run("--root", str(root))
    assert isinstance(result.exception, UsageError) and "\n" not in str(result.exception)
    assert str(root) in str(result.exception) and result.exception.fix


def test_live_machine():
    result = run("--format", "json")
    form = json.loads(result.output)
    assert form["cpus"] and form["machine"]["configuration"]["python"]
    assert read_topology().allowed_cpus


def test_what_a_process_has_inherited_is_part_of_the_configuration():
    """Scheduling class and timer slack, of which a real-time class knows none, and filters of system calls."""
    code = (
        "import ctypes, json, os; os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)); ctypes.CDLL(None).prctl(29, 77_000, 0, 0, 0); "
        "from numabench.host.configuration import process_state; from numabench.host.sysfs import Tree; print(json.dumps(process_state(Tree('/'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["scheduling"], found["timer_slack_ns"]) == ("batch", 77_000)
    assert found["seccomp_filters"] is None or found["seccomp_filters"] >= 0
    assert set(found) <= set(read_machine().configuration)
