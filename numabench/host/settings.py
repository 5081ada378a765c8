"""Checks of how the machine is set up: clock, threads, pages, background work of the kernel."""

from __future__ import annotations

import re

from ..text import in_shell
from ..units import format_cpus
from . import configuration
from .findings import Finding, Host
from .processor import arch_of

_MM = "sys/kernel/mm"
SELF_PROFILING_PARANOID = 2  # perf_event_paranoid up to 2 lets a process count its own user-space events (sysctl doc)
# Counters of the CPU itself, which user space reads without entering the kernel.
_GOOD_CLOCKS = ("tsc", "arch_sys_counter", "timebase", "riscv_clocksource", "tod", "stick", "itc")


def governor(host: Host) -> Finding | None:
    name = configuration.governors(host.tree)
    if name is None:
        return None
    if name == "performance":
        return Finding("governor", "ok", name)
    return Finding(
        "governor",
        "warn",
        f"frequency governor {name}",
        "the clock ramps during the first samples",
        "sudo cpupower frequency-set -g performance",
    )


def turbo(host: Host) -> Finding | None:
    state = configuration.turbo(host.tree)
    if state is None:
        return None
    if not state:
        return Finding("turbo", "ok", "off")
    intel = host.tree.read("sys/devices/system/cpu/intel_pstate/no_turbo") is not None
    return Finding(
        "turbo",
        "note",
        "on",
        "the clock depends on how many cores work and how warm they are",
        "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo"
        if intel
        else "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost",
    )


def smt(host: Host) -> Finding | None:
    width = host.topology.smt
    if width is None:
        return None
    if width == 1:
        return Finding("smt", "ok", "one thread per core")
    return Finding(
        "smt",
        "note",
        f"{width} threads per core",
        "work on a sibling takes half of a core; the suite uses one thread per core first",
        "echo off | sudo tee /sys/devices/system/cpu/smt/control",
    )


def kinds(host: Host) -> Finding | None:
    kinds = host.topology.kinds
    if not kinds:
        return None
    text = "; ".join(f"{kind.name}: {format_cpus(kind.cpus)}" for kind in kinds)
    return Finding(
        "hybrid",
        "note",
        f"{len(kinds)} kinds of core ({text})",
        "results differ by kind of core: each kind is measured on its own, the biggest alone in profile quick; only core_to_core pairs them",
        f"{in_shell('numabench', 'run', '--set', 'core_kind=' + host.topology.own_kinds()[0].name)} measures one of them alone",
    )


def numa_balancing(host: Host) -> Finding | None:
    state = host.tree.number("proc/sys/kernel/numa_balancing")
    if state is None or len(host.topology.nodes) < 2:
        return None
    if state == 0:
        return Finding("numa_balancing", "ok", "off")
    return Finding(
        "numa_balancing",
        "warn",
        f"automatic NUMA balancing is on ({state})",
        "the kernel unmaps pages to see who uses them, and moves them",
        "echo 0 | sudo tee /proc/sys/kernel/numa_balancing",
    )


def thp(host: Host) -> Finding | None:
    state = configuration.selected(host.tree, f"{_MM}/transparent_hugepage/enabled")
    if state is None:
        return None
    if state == "never":
        return Finding(
            "thp",
            "note",
            "transparent huge pages: never",
            "most memory is then measured in small pages, and what counts huge ones is skipped",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )
    if state != "always":
        return Finding("thp", "ok", f"transparent huge pages: {state}")
    return Finding(
        "thp",
        "note",
        "transparent huge pages: always",
        "page size depends on how fragmented memory is",
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )


def khugepaged(host: Host) -> Finding | None:
    thp = configuration.selected(host.tree, f"{_MM}/transparent_hugepage/enabled")
    if thp in (None, "never") or host.tree.number(f"{_MM}/transparent_hugepage/khugepaged/defrag") != 1:
        return None
    return Finding(
        "khugepaged",
        "note",
        "khugepaged merges pages in the background",
        "pages move under a running measurement",
        "echo 0 | sudo tee /sys/kernel/mm/transparent_hugepage/khugepaged/defrag",
    )


def ksm(host: Host) -> Finding | None:
    state = host.tree.number(f"{_MM}/ksm/run")
    if state is None:
        return None
    if state != 1:
        return Finding("ksm", "ok", "off")
    return Finding(
        "ksm",
        "warn",
        "KSM merges equal pages",
        "it scans memory and write-protects what it merges",
        "echo 2 | sudo tee /sys/kernel/mm/ksm/run",
    )


def damon(host: Host) -> Finding | None:
    modules = [f"sys/module/{name}/parameters/enabled" for name in ("damon_reclaim", "damon_lru_sort")]
    kdamonds = f"{_MM}/damon/admin/kdamonds"
    states = [host.tree.read(f"{kdamonds}/{name}/state") for name in host.tree.names(kdamonds) if name.isdigit()]
    module = next((path for path in modules if host.tree.read(path) == "Y"), None)
    if "on" not in states and module is None:
        return None
    return Finding(
        "damon",
        "warn",
        "DAMON watches memory accesses",
        "it clears accessed bits and reclaims pages",
        f"echo N | sudo tee /{module}" if module else "sudo sh -c 'echo off | tee /sys/kernel/mm/damon/admin/kdamonds/*/state'",
    )


def clocksource(host: Host) -> Finding | None:
    name = host.tree.read("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if name is None:
        return None
    if name in _GOOD_CLOCKS:
        return Finding("clocksource", "ok", name)
    mild = name in ("kvm-clock", "hyperv_clocksource_tsc_page", "xen")
    return Finding(
        "clocksource",
        "note" if mild else "warn",
        f"clock source {name}",
        "reading it costs more and steps more coarsely than the CPU's own counter: each process measures both, and batches and windows get as long as that needs",
        "boot with clocksource=tsc tsc=reliable if the counter is sound",
    )


def irqbalance(host: Host) -> Finding | None:
    tasks = (name for name in host.tree.names("proc") if name.isdigit())
    if not any(host.tree.read(f"proc/{task}/comm") == "irqbalance" for task in tasks):
        return None
    return Finding(
        "irqbalance", "note", "irqbalance is running", "it moves interrupts onto measured CPUs", "sudo systemctl stop irqbalance"
    )


def isolation(host: Host) -> Finding:
    topology = host.topology
    if unused := set(topology.isolated) - set(topology.allowed_cpus):
        return Finding(
            "isolation",
            "note",
            f"CPUs {format_cpus(unused)} are isolated: nothing else is put there, and nowhere is measuring quieter",
            "a process has to ask for them: they are not in the affinity that it inherits",
            f"numabench run --cpus {format_cpus(unused)}",
        )
    if topology.isolated or topology.nohz_full:
        return Finding(
            "isolation",
            "ok",
            f"isolated: {format_cpus(topology.isolated) or 'none'}, without tick: {format_cpus(topology.nohz_full) or 'none'}",
        )
    return Finding(
        "isolation",
        "note",
        "no CPU is isolated or without tick",
        "the scheduler's tick interrupts every CPU 100 to 1000 times a second",
        "boot with isolcpus=… nohz_full=… for the last per cent",
    )


def mitigations(host: Host) -> Finding | None:
    states = configuration.mitigations(host.tree)
    active = [name for name, state in states.items() if state.startswith("Mitigation")]
    if not states:
        return None
    if not active:
        return Finding("mitigations", "ok", "none active")
    return Finding(
        "mitigations",
        "note",
        f"active against {', '.join(active)}",
        "system calls and context switches cost more; compare only machines set up alike",
        "none: it is recorded as part of the configuration",
    )


def microcode(host: Host) -> Finding | None:
    if arch_of(host.processor) != "x86_64":
        return None
    version = host.processor.get("microcode")
    if version and re.fullmatch(r"0x[0-9a-f]+", version) and int(version, 16) not in (0, 0xFFFFFFFF):
        return Finding("microcode", "ok", version)
    return Finding(
        "microcode",
        "note",
        "microcode version is unknown",
        "two runs may differ by it without a trace",
        "none: a hypervisor hides it",
    )


def perf(host: Host) -> Finding | None:
    level = host.tree.number("proc/sys/kernel/perf_event_paranoid")
    if level is None or level <= SELF_PROFILING_PARANOID:
        return None
    return Finding(
        "perf",
        "note",
        f"perf_event_paranoid is {level}",
        "hardware counters cannot confirm a result",
        f"sudo sysctl kernel.perf_event_paranoid={SELF_PROFILING_PARANOID}",
    )


def topology_warnings(host: Host) -> Finding | None:
    warnings = host.topology.warnings
    if not warnings:
        return None
    return Finding(
        "topology",
        "note",
        f"odd files: {'; '.join(warnings)}",
        "placement follows what the files say",
        "numabench machine shows what was understood",
    )
