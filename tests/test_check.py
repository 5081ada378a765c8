"""What `numabench check` finds on made-up trees."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from synthetic_sysfs import CPU, SyntheticTree

from numabench.cli.check import command
from numabench.host.health import Finding, check
from numabench.measure import ready

MM = "sys/kernel/mm"
IDLE = [0, 0, 0, 20, 0, 0, 0, 0]


def stat(rows):
    return "cpu  0 0\n" + "\n".join(f"cpu{cpu} {' '.join(map(str, ticks))} 0 0" for cpu, ticks in rows.items())


def add_program(tree, name):
    tree.write(f"usr/bin/{name}", "#!")
    (tree.root / f"usr/bin/{name}").chmod(0o755)


@pytest.fixture
def tree(tmp_path):
    """A machine on which nothing is wrong."""
    made = SyntheticTree(tmp_path, packages=2, cores=2)
    add_program(made, "gcc")
    made.write("proc/stat", stat(dict.fromkeys(range(4), [0] * 8)))
    made.write("proc/loadavg", "0.10 0.10 0.10 1/100 1")
    made.write(f"{MM}/transparent_hugepage/enabled", "always [madvise] never")
    made.write("proc/sys/kernel/numa_balancing", 0)
    made.write(f"{CPU}/isolated", "2-3")
    made.write(f"{CPU}/cpufreq/policy0/scaling_governor", "performance")
    made.write("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
    return made


def run(tree, ticks=None, **options):
    """{check: finding}; `ticks` are spent on each CPU while the check waits."""
    spent = dict.fromkeys(range(4), IDLE) | (ticks or {})
    findings = check(str(tree.root), wait=lambda _: tree.write("proc/stat", stat(spent)), **options)
    assert all(isinstance(each, Finding) and (each.severity in ("ok", "fatal") or each.why) for each in findings)
    ranks = [("fatal", "warn", "note", "ok").index(each.severity) for each in findings]
    assert ranks == sorted(ranks)
    return {each.check: each for each in findings}


def test_a_good_machine(tree):
    found = run(tree)
    assert {name for name, each in found.items() if each.severity != "ok"} == set()
    assert {"compiler", "cpus", "load", "governor", "clocksource"} <= set(found)


@pytest.mark.parametrize(
    ("path", "text", "name", "severity"),
    [
        (f"{CPU}/cpufreq/policy0/scaling_governor", "powersave", "governor", "warn"),
        (f"{CPU}/intel_pstate/no_turbo", "0", "turbo", "note"),
        (f"{CPU}/cpufreq/boost", "1", "turbo", "note"),
        ("proc/sys/kernel/numa_balancing", "1", "numa_balancing", "warn"),
        (f"{MM}/transparent_hugepage/enabled", "[always] madvise never", "thp", "note"),
        (f"{MM}/transparent_hugepage/enabled", "always madvise [never]", "thp", "note"),
        (f"{MM}/transparent_hugepage/khugepaged/defrag", "1", "khugepaged", "note"),
        (f"{MM}/ksm/run", "1", "ksm", "warn"),
        (f"{MM}/damon/admin/kdamonds/0/state", "on", "damon", "warn"),
        ("sys/module/damon_reclaim/parameters/enabled", "Y", "damon", "warn"),
        ("proc/meminfo", "SwapTotal: 9000000 kB\nSwapFree: 1000000 kB", "swap", "warn"),
        ("proc/meminfo", "MemAvailable: 50000 kB", "memory", "warn"),
        ("proc/sys/vm/overcommit_memory", "2", "overcommit", "note"),
        ("proc/self/limits", "Max locked memory  65536  65536  bytes", "memlock", "note"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "clocksource", "warn"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock", "clocksource", "note"),
        ("proc/4711/comm", "irqbalance", "irqbalance", "note"),
        (f"{CPU}/isolated", "", "isolation", "note"),
        (f"{CPU}/vulnerabilities/spectre_v2", "Mitigation: Retpolines", "mitigations", "note"),
        ("proc/cpuinfo", "processor : 0\nflags : lm\nmicrocode : 0xffffffff", "microcode", "note"),
        ("proc/cpuinfo", "processor : 0\nflags : lm hypervisor", "hypervisor", "note"),
        ("proc/cpuinfo", "processor : 0\nmodel name : QEMU TCG CPU version 2.5+", "emulation", "fatal"),
        ("proc/sys/kernel/perf_event_paranoid", "3", "perf", "note"),
        ("proc/self/status", "Cpus_allowed_list: 1", "cpus", "warn"),
        ("proc/self/status", "Cpus_allowed_list: 0-2", "cpus", "note"),
        ("proc/self/status", "Cpus_allowed_list: 99", "cpus", "fatal"),
        ("proc/loadavg", "3.5 1 1 1/1 1", "load", "note"),
        ("sys/devices/cpu_core/cpus", "0-1", "hybrid", None),
    ],
)
def test_one_thing_wrong(tree, path, text, name, severity):
    tree.write(path, text)
    found = run(tree)
    assert (found[name].severity if name in found else None) == severity


def test_a_missing_compiler_is_fatal_and_mended(tree):
    tree.remove("usr/bin/gcc")
    add_program(tree, "apt-get")
    finding = run(tree)["compiler"]
    assert finding.severity == "fatal" and "apt-get install" in finding.fix


def test_balancing_does_not_matter_on_one_node(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    tree.write("proc/sys/kernel/numa_balancing", 1)
    assert "numa_balancing" not in {each.check for each in check(str(tmp_path), wait=lambda _: None)}


def test_busy_cpus(tree):
    busy = [18, 0, 0, 2, 0, 0, 0, 0]
    one = run(tree, {2: busy})["load"]
    assert one.severity == "warn" and "CPUs 2 are" in one.found
    tree.write("proc/stat", stat(dict.fromkeys(range(4), [0] * 8)))
    all_busy = {cpu: [20, 0, 0, 0, 0, 0, 0, 0] for cpu in range(4)}
    assert run(tree, all_busy)["load"].severity == "warn", "one moment is not a load"
    tree.write("proc/stat", stat(dict.fromkeys(range(4), [0] * 8)))
    tree.write("proc/loadavg", "4.1 4 4 1/1 1")
    assert run(tree, all_busy)["load"].severity == "fatal"


def test_waiting_for_a_disk_is_not_busy(tree):
    assert run(tree, {0: [0, 0, 0, 0, 20, 0, 0, 0]})["load"].severity == "ok"


def test_steal(tree):
    assert run(tree, {0: [0, 0, 0, 10, 0, 0, 0, 10]})["steal"].severity == "warn"


def test_without_proc_stat_nothing_is_said_and_nobody_waits(tree):
    tree.remove("proc/stat")
    found = check(str(tree.root), wait=lambda _: pytest.fail("waited"))
    assert "load" not in {each.check for each in found}


V2 = "none /sys/fs/cgroup cgroup2 rw 0 0"


@pytest.mark.parametrize(
    ("mount", "own", "files", "severity"),
    [
        (V2, "0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, "warn"),
        (V2, "0::/a/b", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "150000 100000"}, "warn"),
        (V2, "0::/a", {"a/cpu.max": "800000 100000"}, "note"),
        (V2, "0::/a", {"a/cpu.max": "max 100000"}, None),
        (
            "none /sys/fs/cgroup cgroup rw,cpu,cpuacct 0 0",
            "3:cpu,cpuacct:/a",
            {"a/cpu.cfs_quota_us": "50000", "a/cpu.cfs_period_us": "100000"},
            "warn",
        ),
        ("none /sys/fs/cgroup cgroup rw,cpu 0 0", "3:cpu:/", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_quota(tree, mount, own, files, severity):
    tree.write("proc/mounts", mount)
    tree.write("proc/self/cgroup", own)
    for path, text in files.items():
        tree.write(f"sys/fs/cgroup/{path}", text)
    found = run(tree)
    assert (found["quota"].severity if "quota" in found else None) == severity


def test_odd_topology_is_a_note(tree):
    tree.write(f"{CPU}/cpu0/topology/physical_package_id", -1)
    assert "package" in run(tree)["topology"].found


# --- the command ----------------------------------------------------------------------------------------------------


def command_with(monkeypatch, findings, *arguments):
    monkeypatch.setattr(ready, "check_all", lambda folder: findings)
    return CliRunner(env={"COLUMNS": "80"}).invoke(command, arguments)


BAD = Finding("compiler", "fatal", "no compiler", "measuring needs it", "sudo apt-get install gcc " + "x" * 90)
FINE = Finding("smt", "ok", "one thread per core")


def test_exit_code_says_whether_measuring_makes_sense(monkeypatch):
    assert command_with(monkeypatch, [FINE]).exit_code == 0
    assert command_with(monkeypatch, [BAD, FINE]).exit_code == 3
    result = command_with(monkeypatch, [BAD], "--format", "json")
    document = json.loads(result.output)
    assert result.exit_code == 3 and document["fatal"] is True
    assert document["findings"][0]["check"] == "compiler" and set(document["findings"][0]) == {
        "check",
        "severity",
        "found",
        "why",
        "fix",
    }


def test_text_has_reason_and_a_command_on_one_line(monkeypatch):
    output = command_with(monkeypatch, [BAD, FINE]).output
    assert "measuring needs it" in output and BAD.fix in output and "one thread per core" in output
    assert "1 ok, 0 note, 0 warn, 1 fatal" in output


def test_live_machine():
    result = CliRunner().invoke(command, ["--format", "json"])
    assert result.exit_code in (0, 3) and json.loads(result.output)["findings"]
