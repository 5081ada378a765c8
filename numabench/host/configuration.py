"""How a host is set up: kernel, clock, pages, mitigations, hypervisor, tools."""

from __future__ import annotations

import os
import re
import sys

from .processor import arch_of, brand_of, flags_of
from .sysfs import Tree
from .topology import Topology

_CPU = "sys/devices/system/cpu"
_MM = "sys/kernel/mm"
_CLOCKS = "sys/devices/system/clocksource/clocksource0"
#: Beginnings of kernel options that move a measurement; all others (root, console, init) say where a machine stands.
_MOVING_OPTIONS = (
    "amd_pstate",
    "audit",
    "clocksource",
    "cpuidle",
    "default_hugepagesz",
    "hugepages",
    "idle",
    "intel_idle",
    "intel_pstate",
    "irqaffinity",
    "isolcpus",
    "kpti",
    "l1tf",
    "maxcpus",
    "mds",
    "mitigations",
    "nmi_watchdog",
    "no_hz",
    "nohz",
    "nopti",
    "nosmt",
    "nospec",
    "nospectre",
    "nowatchdog",
    "nr_cpus",
    "numa",
    "preempt",
    "processor.",
    "pti",
    "rcu_nocb",
    "retbleed",
    "skew_tick",
    "spec_",
    "spectre",
    "threadirqs",
    "transparent_hugepage",
    "tsc",
    "tsx",
)


def read_configuration(tree: Tree, topology: Topology, processor: dict[str, str], compiler: str | None) -> dict:
    """What two hosts must share to be set up alike. What no file says is None for another root."""
    swap = re.search(r"^SwapTotal:\s*(\d+)", tree.read("proc/meminfo") or "", re.MULTILINE)
    live = tree.live
    return {
        "kernel": tree.read("proc/sys/kernel/osrelease"),
        "command_line": _command_line(tree),
        "microcode": processor.get("microcode"),
        "governor": governors(tree),
        "frequency_driver": tree.read(f"{_CPU}/cpufreq/policy0/scaling_driver"),
        "turbo": turbo(tree),
        "thp_enabled": selected(tree, f"{_MM}/transparent_hugepage/enabled"),
        "thp_defrag": selected(tree, f"{_MM}/transparent_hugepage/defrag"),
        "hugepages": _hugepages(tree),
        "numa_balancing": tree.number("proc/sys/kernel/numa_balancing"),
        "mitigations": mitigations(tree),
        "smt_control": tree.read(f"{_CPU}/smt/control"),
        "hypervisor": hypervisor(tree, processor),
        "nodes_per_package": _nodes_per_package(topology),
        "clocksource": tree.read(f"{_CLOCKS}/current_clocksource"),
        "swap_bytes": int(swap[1]) * 1024 if swap else None,
        "page_bytes": os.sysconf("SC_PAGE_SIZE") if live else None,
        "compiler": compiler,
        "libc": os.confstr("CS_GNU_LIBC_VERSION") if live and "CS_GNU_LIBC_VERSION" in os.confstr_names else None,
        "python": ".".join(map(str, sys.version_info[:3])) if live else None,
        **(process_state(tree) if live else {}),
    }


def process_state(tree: Tree, process: int | None = None) -> dict[str, str | int | None]:
    """What a process (None: this one) has inherited, and what it starts will: a real-time class switches timer slack off, and a filter is part of each system call."""
    folder = f"proc/{'self' if process is None else process}"
    classes = {getattr(os, f"SCHED_{name}", None): name.lower() for name in ("OTHER", "FIFO", "RR", "BATCH", "IDLE")}
    try:
        scheduling = classes.get(os.sched_getscheduler(process or 0), "another")
    except OSError:  # some sandboxes answer none of these calls
        scheduling = None
    filters = re.search(r"^Seccomp_filters:\s*(\d+)", tree.read(f"{folder}/status") or "", re.MULTILINE)  # since Linux 5.9
    return {
        "scheduling": scheduling,
        "timer_slack_ns": tree.number(f"{folder}/timerslack_ns"),
        "seccomp_filters": int(filters[1]) if filters else None,
    }


def _command_line(tree: Tree) -> str | None:
    text = tree.read("proc/cmdline")
    if text is None:
        return None
    words = text.partition(" -- ")[0].split()  # after "--" come the arguments of init
    return " ".join(word for word in words if word.startswith(_MOVING_OPTIONS))


def selected(tree: Tree, path: str) -> str | None:
    """The word in brackets of `always [madvise] never`."""
    match = re.search(r"\[(\S+)\]", tree.read(path) or "")
    return match[1] if match else None


def governors(tree: Tree) -> str | None:
    """`performance`, or several joined by a comma when CPUs differ; None without frequency scaling."""
    policies = tree.numbered(f"{_CPU}/cpufreq", "policy").values()
    paths = [*policies] or [f"{path}/cpufreq" for path in tree.numbered(_CPU, "cpu").values()]
    found = {tree.read(f"{path}/scaling_governor") for path in paths} - {None}
    return ",".join(sorted(found)) or None


def turbo(tree: Tree) -> bool | None:
    """Whether the clock may rise above its nominal rate; None when the kernel does not say."""
    no_turbo = tree.number(f"{_CPU}/intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == 0
    boost = tree.number(f"{_CPU}/cpufreq/boost")
    return None if boost is None else boost == 1


def mitigations(tree: Tree) -> dict[str, str]:
    """{vulnerability: state} of those that affect this CPU."""
    path = f"{_CPU}/vulnerabilities"
    states = {name: tree.read(f"{path}/{name}") for name in tree.names(path)}
    return {name: state for name, state in states.items() if state and state != "Not affected"}


def hypervisor(tree: Tree, processor: dict[str, str]) -> str | None:
    """Name of the hypervisor, "unnamed" when only the CPU flag tells, "none" on bare x86, None when nothing tells."""
    if kind := tree.read("sys/hypervisor/type"):
        return kind
    flags = flags_of(processor)
    sources = (
        tree.read(f"{_CLOCKS}/available_clocksource") or "",
        tree.read("sys/class/dmi/id/sys_vendor") or "",
        tree.read("sys/class/dmi/id/product_name") or "",
    )
    text = " ".join((*sources, brand_of(processor) or "")).lower()
    names = (
        ("kvm", "kvm"),
        ("vmware", "vmware"),
        ("hyperv", "hyperv"),
        ("virtualbox", "virtualbox"),
        ("bochs", "qemu"),
        ("qemu", "qemu"),
        ("amazon ec2", "nitro"),
        ("google", "google"),
    )
    if "hypervisor" in flags:
        return next((name for sign, name in names if sign in text), "unnamed")
    if "vcpu" in text or "qemu" in text:
        return "qemu"
    return "none" if flags and arch_of(processor) == "x86_64" else None


def _hugepages(tree: Tree) -> dict[str, int]:
    """{bytes of a page: pages reserved}."""
    path = f"{_MM}/hugepages"
    sizes = [match for name in tree.names(path) if (match := re.fullmatch(r"hugepages-(\d+)kB", name))]
    counts = {str(int(size[1]) * 1024): tree.number(f"{path}/{size[0]}/nr_hugepages") for size in sizes}
    return {size: count for size, count in counts.items() if count is not None}


def _nodes_per_package(topology: Topology) -> int | None:
    """NPS (AMD) or SNC (Intel) mode: the most nodes with CPUs that one package holds."""
    if not topology.numa or not topology.packages:
        return None
    return max(len({topology.node_of(cpu) for cpu in package.cpus} - {None}) for package in topology.packages)
