"""What will disturb a measurement on this machine: findings with a reason and a remedy. Nothing is changed.

Every check is a function of `Host` that answers a Finding, or None when the kernel does not say. All files are read
below a root, so that a made-up tree can be checked; `proc/stat` is read twice to see which CPUs are busy now.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from ..units import format_bytes
from . import machine
from .sysfs import Tree, cgroup_directories, format_list
from .topology import Topology, read_topology

Severity = Literal["ok", "note", "warn", "fatal"]

_MM = "sys/kernel/mm"
SAMPLE_S = 0.2  # 20 ticks of the 100 Hz in which proc/stat counts: a resolution of 5 %
BUSY = 0.15  # three ticks of a sample: more than the noise of one tick at both ends
SATURATED = 0.9  # two ticks of a sample: a CPU that gives a newcomer only half of its time
STEAL = 0.01  # 1 % lost to other guests shifts a median by as much as the comparisons want to resolve
LLC_FACTOR = 4  # DRAM is measured with a buffer of 4 last-level caches (STREAM's rule for its arrays)
SWAP_USED_BYTES = 64 << 20  # less is what an idle system parks for good
SELF_PROFILING_PARANOID = 2  # perf_event_paranoid up to 2 lets a process count its own user-space events (sysctl doc)
# Counters of the CPU itself, which user space reads without entering the kernel.
_GOOD_CLOCKS = ("tsc", "arch_sys_counter", "timebase", "riscv_clocksource", "tod", "stick", "itc")
_LIBNUMA_PLACES = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib")


class Finding(msgspec.Struct, frozen=True):
    check: str
    severity: Severity
    found: str
    why: str = ""
    fix: str = ""


class Host:
    """The files, topology and two readings of proc/stat that the checks look at."""

    def __init__(self, tree: Tree, topology: Topology, wait: Callable[[float], object]):
        self.tree, self.topology = tree, topology
        self.processor = machine.read_processor(tree)
        first = _cpu_ticks(tree)
        if first:
            wait(SAMPLE_S)
        second = _cpu_ticks(tree) if first else {}
        pairs = {cpu: (first[cpu], second[cpu]) for cpu in topology.allowed_cpus if cpu in first and cpu in second}
        deltas = {cpu: [b - a for a, b in zip(*pair, strict=True)] for cpu, pair in pairs.items()}
        self.ticks = {cpu: delta for cpu, delta in deltas.items() if sum(delta) > 0}
        self.meminfo = {
            key: int(value) * 1024
            for key, value in re.findall(r"^(\w+):\s*(\d+) kB", tree.read("proc/meminfo") or "", re.MULTILINE)
        }

    def program(self, name: str) -> str | None:
        if self.tree.live:
            return shutil.which(name)
        places = [f"{self.tree.root}{place}" for place in ("usr/local/bin", "usr/bin", "bin")]
        return shutil.which(name, path=os.pathsep.join(places))


def _cpu_ticks(tree: Tree) -> dict[int, list[int]]:
    """{cpu: [user, nice, system, idle, iowait, irq, softirq, steal]} (proc_stat(5); guest is part of user)."""
    rows = re.findall(r"^cpu(\d+) ([\d ]+)$", tree.read("proc/stat") or "", re.MULTILINE)
    return {int(cpu): ([int(word) for word in words.split()] + [0] * 8)[:8] for cpu, words in rows}


def check(
    root: str = "/", topology: Topology | None = None, wait: Callable[[float], object] = time.sleep
) -> list[Finding]:
    """All findings, the worst first. Errors as `read_topology`; takes SAMPLE_S seconds."""
    host = Host(Tree(root), topology or read_topology(root), wait)
    findings = [finding for one in CHECKS if (finding := one(host))]
    findings += [Finding("files", "note", text, "what it says could not be checked") for text in host.tree.warnings]
    order = ("fatal", "warn", "note", "ok")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _compiler(host: Host) -> Finding:
    names = ("cc", "gcc", "clang")
    path = machine.compiler_path() if host.tree.live else next(filter(None, map(host.program, names)), None)
    if path:
        return Finding("compiler", "ok", path)
    return Finding("compiler", "fatal", "no C compiler ($CC, cc, gcc, clang)", "kernels are compiled on this machine",
                   "sudo apt-get install gcc libc6-dev")


def _numactl(host: Host) -> Finding:
    if path := host.program("numactl"):
        return Finding("numactl", "ok", path)
    return Finding("numactl", "fatal", "no numactl", "measuring processes are started and placed by it",
                   "sudo apt-get install numactl")


def _libnuma(host: Host) -> Finding:
    name = "libnuma.so.1"
    if host.tree.live:
        try:
            ctypes.CDLL(name)
            present = True
        except OSError:
            present = False
    else:
        triplets = [f"usr/lib/{each}" for each in host.tree.names("usr/lib") if "-linux-" in each]
        present = any(name in host.tree.names(place) for place in (*_LIBNUMA_PLACES, *triplets))
    if present:
        return Finding("libnuma", "ok", name)
    return Finding("libnuma", "fatal", f"no {name}", "memory cannot be bound to nodes, nor its place be proven",
                   "sudo apt-get install libnuma1")


def _emulated(host: Host) -> Finding | None:
    brand = machine.brand_of(host.processor) or ""
    if "TCG" in brand:
        return Finding("emulation", "fatal", f"the CPU is emulated in software: {brand}",
                       "its caches and latencies are those of a program, not of a machine", "run on hardware or KVM")
    return None


def _hypervisor(host: Host) -> Finding | None:
    name = machine.hypervisor(host.tree, host.processor)
    steal = sum(ticks[7] for ticks in host.ticks.values())
    share = steal / sum(map(sum, host.ticks.values())) if host.ticks else 0.0
    if share > STEAL:
        return Finding("steal", "warn", f"other guests took {share:.0%} of the CPU time just now",
                       "stolen time lengthens single samples", "use a host of your own, or measure at a quiet hour")
    if name in (None, "none"):
        return Finding("hypervisor", "ok", "no hypervisor seen") if name else None
    return Finding("hypervisor", "note", f"runs under a hypervisor ({name})",
                   "it may invent topology, move virtual CPUs and hide nodes", "pin virtual CPUs on the host")


def _allowed(host: Host) -> Finding:
    allowed, online = host.topology.allowed_cpus, host.topology.cpus
    text = f"CPUs {format_list(allowed)} of {format_list(online)} may be used"
    if not allowed:
        return Finding("cpus", "fatal", "no online CPU may be used", "cgroup and affinity masks do not meet",
                       "leave the cpuset, or start with taskset -c 0")
    if len(allowed) == 1:
        return Finding("cpus", "warn", text, "nothing between two CPUs can be measured", "widen the cpuset or taskset")
    if allowed != online:
        return Finding("cpus", "note", text, "the rest of the machine stays unmeasured", "widen the cpuset or taskset")
    if len(allowed) == 2:
        return Finding("cpus", "note", "two CPUs only", "the suite itself and the system share them with a measurement")
    return Finding("cpus", "ok", f"all {len(online)} online CPUs may be used")


def _load(host: Host) -> Finding | None:
    if not host.ticks:
        return None
    busy = {cpu: 1 - (ticks[3] + ticks[4]) / sum(ticks) for cpu, ticks in host.ticks.items()}
    load = host.tree.parsed("proc/loadavg", lambda text: float(text.partition(" ")[0])) or 0.0
    loaded = [cpu for cpu, share in busy.items() if share > BUSY]
    why, fix = "other work shares caches, memory channels and the clock budget", "stop other jobs (top -H), then repeat"
    if min(busy.values()) >= SATURATED and load >= len(busy):
        return Finding("load", "fatal", f"no allowed CPU is free (load {load:g} on {len(busy)} CPUs)", why, fix)
    if loaded:
        return Finding("load", "warn", f"CPUs {format_list(loaded)} are busy now (load {load:g})", why, fix)
    if load > len(busy) / 2:
        return Finding("load", "note", f"idle now, but the load of the last minute is {load:g}", why, fix)
    return Finding("load", "ok", f"all allowed CPUs are idle (load {load:g})")


def _quota(host: Host) -> Finding | None:
    """The tightest cpu.max (v2) or cfs quota (v1) between this process and the root."""
    quotas = []
    for directories, version2 in cgroup_directories(host.tree, "cpu"):
        for path in directories:
            if version2:
                words = (host.tree.read(f"{path}/cpu.max") or "").split()
            else:
                words = [host.tree.read(f"{path}/cpu.cfs_{part}_us") or "" for part in ("quota", "period")]
            if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
                quotas.append(int(words[0]) / int(words[1]))
    if not quotas:
        return None
    severity = "warn" if min(quotas) < len(host.topology.allowed_cpus) else "note"
    return Finding("quota", severity, f"the cgroup may use {min(quotas):.3g} CPUs' worth of time",
                   "threads above it are stopped for milliseconds in the middle of a sample",
                   "systemd-run --scope -p CPUQuota= …, or start the container without --cpus")


def _governor(host: Host) -> Finding | None:
    name = machine.governors(host.tree)
    if name is None:
        return None
    if name == "performance":
        return Finding("governor", "ok", name)
    return Finding("governor", "warn", f"frequency governor {name}", "the clock ramps during the first samples",
                   "sudo cpupower frequency-set -g performance")


def _turbo(host: Host) -> Finding | None:
    state = machine.turbo(host.tree)
    if state is None:
        return None
    if not state:
        return Finding("turbo", "ok", "off")
    intel = host.tree.read("sys/devices/system/cpu/intel_pstate/no_turbo") is not None
    return Finding("turbo", "note", "on", "the clock depends on how many cores work and how warm they are",
                   "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo" if intel
                   else "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost")


def _smt(host: Host) -> Finding | None:
    width = host.topology.smt
    if width is None:
        return None
    if width == 1:
        return Finding("smt", "ok", "one thread per core")
    return Finding("smt", "note", f"{width} threads per core", "work on a sibling takes half of a core; the suite uses "
                   "one thread per core first", "echo off | sudo tee /sys/devices/system/cpu/smt/control")


def _kinds(host: Host) -> Finding | None:
    kinds = host.topology.kinds
    if not kinds:
        return None
    text = "; ".join(f"{kind.name}: {format_list(kind.cpus)}" for kind in kinds)
    return Finding("hybrid", "note", f"{len(kinds)} kinds of core ({text})", "results differ by kind of core",
                   "measure one kind at a time: taskset -c <its CPUs> numabench …")


def _thp(host: Host) -> Finding | None:
    state = machine.selected(host.tree, f"{_MM}/transparent_hugepage/enabled")
    if state is None:
        return None
    if state != "always":
        return Finding("thp", "ok", f"transparent huge pages: {state}")
    return Finding("thp", "note", "transparent huge pages: always", "page size depends on how fragmented memory is",
                   "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")


def _khugepaged(host: Host) -> Finding | None:
    thp = machine.selected(host.tree, f"{_MM}/transparent_hugepage/enabled")
    if thp in (None, "never") or host.tree.number(f"{_MM}/transparent_hugepage/khugepaged/defrag") != 1:
        return None
    return Finding("khugepaged", "note", "khugepaged merges pages in the background",
                   "pages move under a running measurement",
                   "echo 0 | sudo tee /sys/kernel/mm/transparent_hugepage/khugepaged/defrag")


def _numa_balancing(host: Host) -> Finding | None:
    state = host.tree.number("proc/sys/kernel/numa_balancing")
    if state is None or len(host.topology.nodes) < 2:
        return None
    if state == 0:
        return Finding("numa_balancing", "ok", "off")
    return Finding("numa_balancing", "warn", f"automatic NUMA balancing is on ({state})",
                   "the kernel unmaps pages to see who uses them, and moves them",
                   "echo 0 | sudo tee /proc/sys/kernel/numa_balancing")


def _ksm(host: Host) -> Finding | None:
    state = host.tree.number(f"{_MM}/ksm/run")
    if state is None:
        return None
    if state != 1:
        return Finding("ksm", "ok", "off")
    return Finding("ksm", "warn", "KSM merges equal pages", "it scans memory and write-protects what it merges",
                   "echo 2 | sudo tee /sys/kernel/mm/ksm/run")


def _damon(host: Host) -> Finding | None:
    modules = [f"sys/module/{name}/parameters/enabled" for name in ("damon_reclaim", "damon_lru_sort")]
    kdamonds = f"{_MM}/damon/admin/kdamonds"
    states = [host.tree.read(f"{kdamonds}/{name}/state") for name in host.tree.names(kdamonds) if name.isdigit()]
    if "on" not in states and not any(host.tree.read(path) == "Y" for path in modules):
        return None
    return Finding("damon", "warn", "DAMON watches memory accesses", "it clears accessed bits and reclaims pages",
                   "echo off | sudo tee /sys/kernel/mm/damon/admin/kdamonds/*/state")


def _swap(host: Host) -> Finding | None:
    total, free = host.meminfo.get("SwapTotal"), host.meminfo.get("SwapFree")
    if total is None or free is None:
        return None
    if total - free <= SWAP_USED_BYTES:
        return Finding("swap", "ok", f"{format_bytes(total - free)} in use")
    return Finding("swap", "warn", f"{format_bytes(total - free)} of swap in use", "a page fault costs milliseconds",
                   "sudo swapoff -a")


def _memory(host: Host) -> Finding | None:
    available, llc = host.meminfo.get("MemAvailable"), host.topology.llc_bytes_total()
    if available is None or llc is None:
        return None
    if available >= LLC_FACTOR * llc:
        return Finding("memory", "ok", f"{format_bytes(available)} available")
    return Finding("memory", "warn", f"only {format_bytes(available)} available with {format_bytes(llc)} of last-level "
                   "cache", f"main memory needs buffers of {LLC_FACTOR} times the cache", "stop what fills memory")


def _overcommit(host: Host) -> Finding | None:
    if host.tree.number("proc/sys/vm/overcommit_memory") != 2:
        return None
    return Finding("overcommit", "note", "strict overcommit (vm.overcommit_memory=2)", "large buffers may be refused",
                   "sudo sysctl vm.overcommit_memory=0")


def _memlock(host: Host) -> Finding | None:
    match = re.search(r"^Max locked memory\s+(\S+)", host.tree.read("proc/self/limits") or "", re.MULTILINE)
    llc = host.topology.llc_bytes_total()
    if not match or not match[1].isdigit() or llc is None or int(match[1]) >= LLC_FACTOR * llc:
        return None
    return Finding("memlock", "note", f"only {format_bytes(int(match[1]))} can be locked",
                   "buffers cannot be held in memory by mlock", "ulimit -l unlimited")


def _clocksource(host: Host) -> Finding | None:
    name = host.tree.read("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if name is None:
        return None
    if name in _GOOD_CLOCKS:
        return Finding("clocksource", "ok", name)
    mild = name in ("kvm-clock", "hyperv_clocksource_tsc_page", "xen")
    return Finding("clocksource", "note" if mild else "warn", f"clock source {name}",
                   "reading it costs more and steps more coarsely than the CPU's own counter",
                   "boot with clocksource=tsc tsc=reliable if the counter is sound")


def _irqbalance(host: Host) -> Finding | None:
    tasks = (name for name in host.tree.names("proc") if name.isdigit())
    if not any(host.tree.read(f"proc/{task}/comm") == "irqbalance" for task in tasks):
        return None
    return Finding("irqbalance", "note", "irqbalance is running", "it moves interrupts onto measured CPUs",
                   "sudo systemctl stop irqbalance")


def _isolation(host: Host) -> Finding:
    topology = host.topology
    if topology.isolated or topology.nohz_full:
        return Finding("isolation", "ok", f"isolated: {format_list(topology.isolated) or 'none'}, "
                       f"without tick: {format_list(topology.nohz_full) or 'none'}")
    return Finding("isolation", "note", "no CPU is isolated or without tick",
                   "the scheduler's tick interrupts every CPU 100 to 1000 times a second",
                   "boot with isolcpus=… nohz_full=… for the last per cent")


def _mitigations(host: Host) -> Finding | None:
    states = machine.mitigations(host.tree)
    active = [name for name, state in states.items() if state.startswith("Mitigation")]
    if not states:
        return None
    if not active:
        return Finding("mitigations", "ok", "none active")
    return Finding("mitigations", "note", f"active against {', '.join(active)}",
                   "system calls and context switches cost more; compare only machines set up alike",
                   "none: it is recorded as part of the configuration")


def _microcode(host: Host) -> Finding | None:
    if machine.arch_of(host.processor) != "x86_64":
        return None
    version = host.processor.get("microcode")
    if version and re.fullmatch(r"0x[0-9a-f]+", version) and int(version, 16) not in (0, 0xFFFFFFFF):
        return Finding("microcode", "ok", version)
    return Finding("microcode", "note", "microcode version is unknown", "two runs may differ by it without a trace",
                   "none: a hypervisor hides it")


def _perf(host: Host) -> Finding | None:
    level = host.tree.number("proc/sys/kernel/perf_event_paranoid")
    if level is None or level <= SELF_PROFILING_PARANOID:
        return None
    return Finding("perf", "note", f"perf_event_paranoid is {level}", "hardware counters cannot confirm a result",
                   f"sudo sysctl kernel.perf_event_paranoid={SELF_PROFILING_PARANOID}")


def _topology_warnings(host: Host) -> Finding | None:
    warnings = host.topology.warnings
    if not warnings:
        return None
    return Finding("topology", "note", f"odd files: {'; '.join(warnings)}",
                   "placement follows what the files say", "numabench machine shows what was understood")


CHECKS = (
    _compiler, _numactl, _libnuma, _emulated, _allowed, _load, _quota, _hypervisor, _governor, _turbo, _smt, _kinds,
    _numa_balancing, _thp, _khugepaged, _ksm, _damon, _swap, _memory, _overcommit, _memlock, _clocksource, _irqbalance,
    _isolation, _mitigations, _microcode, _perf, _topology_warnings,
)
