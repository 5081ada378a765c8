"""Checks of what a measurement needs: programs, real CPUs with time to spare, memory."""

from __future__ import annotations

import re

from ..units import format_bytes, format_cpus
from . import configuration
from .findings import Finding, Host
from .install import install_compiler
from .placement import refused_cpus
from .processor import brand_of
from .programs import compiler_path
from .room import available_bytes
from .sysfs import cgroup_directories

BUSY = 0.15  # three ticks of a sample: more than the noise of one tick at both ends
SATURATED = 0.9  # two ticks of a sample: a CPU that gives a newcomer only half of its time
STEAL = 0.01  # 1 % lost to other guests shifts a median by as much as the comparisons want to resolve
LLC_FACTOR = 4  # DRAM is measured with a buffer of 4 last-level caches (STREAM's rule for its arrays)
SWAP_USED_BYTES = 64 << 20  # less is what an idle system parks for good


def compiler(host: Host) -> Finding:
    names = ("cc", "gcc", "clang")
    path = compiler_path() if host.tree.live else next(filter(None, map(host.program, names)), None)
    if path:
        return Finding("compiler", "ok", path)
    return Finding(
        "compiler",
        "fatal",
        "no C compiler ($CC, cc, gcc, clang)",
        "kernels are compiled on this machine",
        install_compiler(host.program),
    )


def emulated(host: Host) -> Finding | None:
    brand = brand_of(host.processor) or ""
    if "TCG" in brand:
        return Finding(
            "emulation",
            "fatal",
            f"the CPU is emulated in software: {brand}",
            "its caches and latencies are those of a program, not of a machine",
            "run on hardware or KVM",
        )
    return None


def allowed(host: Host) -> Finding:
    allowed, online = host.topology.allowed_cpus, host.topology.cpus
    text = f"CPUs {format_cpus(allowed)} of {format_cpus(online)} may be used"
    if not allowed:
        return Finding(
            "cpus",
            "fatal",
            "no online CPU may be used",
            "cgroup and affinity masks do not meet",
            "leave the cpuset, or start with taskset -c 0",
        )
    if allowed != online:
        others = set(online) - set(allowed)
        free = others - set(refused_cpus(sorted(others))) if host.tree.live else others & set(host.topology.isolated)
        widen = f"numabench run --cpus {format_cpus({*allowed, *free})}" if free else "widen the cpuset"
        if len(allowed) == 1:
            return Finding("cpus", "warn", text, "nothing between two CPUs can be measured", widen)
        return Finding("cpus", "note", text, "the rest of the machine stays unmeasured", widen)
    if len(allowed) == 1:
        return Finding("cpus", "warn", text, "nothing between two CPUs can be measured", "use a machine with more")
    if len(allowed) == 2:
        return Finding("cpus", "note", "two CPUs only", "the suite itself and the system share them with a measurement")
    return Finding("cpus", "ok", f"all {len(online)} online CPUs may be used")


def load(host: Host) -> Finding | None:
    if not host.ticks:
        return None
    busy = {cpu: 1 - (ticks[3] + ticks[4]) / sum(ticks) for cpu, ticks in host.ticks.items()}
    load = host.tree.parsed("proc/loadavg", lambda text: float(text.partition(" ")[0])) or 0.0
    loaded = [cpu for cpu, share in busy.items() if share > BUSY]
    why, fix = "other work shares caches, memory channels and the clock budget", "stop other jobs (top -H), then repeat"
    if min(busy.values()) >= SATURATED and load >= len(busy):
        return Finding("load", "fatal", f"no allowed CPU is free (load {load:g} on {len(busy)} CPUs)", why, fix)
    if loaded:
        return Finding("load", "warn", f"CPUs {format_cpus(loaded)} are busy now (load {load:g})", why, fix)
    if load > len(busy) / 2:
        return Finding("load", "note", f"idle now, but the load of the last minute is {load:g}", why, fix)
    return Finding("load", "ok", f"all allowed CPUs are idle (load {load:g})")


def quota(host: Host) -> Finding | None:
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
    return Finding(
        "quota",
        severity,
        f"the cgroup may use {min(quotas):.3g} CPUs' worth of time",
        "threads above it are stopped for milliseconds in the middle of a sample",
        "systemd-run --scope -p CPUQuota= …, or start the container without --cpus",
    )


def hypervisor(host: Host) -> Finding | None:
    name = configuration.hypervisor(host.tree, host.processor)
    steal = sum(ticks[7] for ticks in host.ticks.values())
    share = steal / sum(map(sum, host.ticks.values())) if host.ticks else 0.0
    if share > STEAL:
        return Finding(
            "steal",
            "warn",
            f"other guests took {share:.0%} of the CPU time just now",
            "stolen time lengthens single samples",
            "use a host of your own, or measure at a quiet hour",
        )
    if name in (None, "none"):
        return Finding("hypervisor", "ok", "no hypervisor seen") if name else None
    return Finding(
        "hypervisor",
        "note",
        f"runs under a hypervisor ({name})",
        "it may invent topology, move virtual CPUs and hide nodes",
        "pin virtual CPUs on the host",
    )


def swap(host: Host) -> Finding | None:
    total, free = host.meminfo.get("SwapTotal"), host.meminfo.get("SwapFree")
    if total is None or free is None:
        return None
    if total - free <= SWAP_USED_BYTES:
        return Finding("swap", "ok", f"{format_bytes(total - free)} in use")
    return Finding(
        "swap", "warn", f"{format_bytes(total - free)} of swap in use", "a page fault costs milliseconds", "sudo swapoff -a"
    )


def memory(host: Host) -> Finding | None:
    available, llc = available_bytes(tree=host.tree), host.topology.llc_bytes_total()
    if available is None or llc is None:
        return None
    if available >= LLC_FACTOR * llc:
        return Finding("memory", "ok", f"{format_bytes(available)} available")
    return Finding(
        "memory",
        "warn",
        f"only {format_bytes(available)} available with {format_bytes(llc)} of last-level cache",
        f"main memory needs buffers of {LLC_FACTOR} times the cache",
        "stop what fills memory, or raise the memory limit of this container or job",
    )


def overcommit(host: Host) -> Finding | None:
    if host.tree.number("proc/sys/vm/overcommit_memory") != 2:
        return None
    return Finding(
        "overcommit",
        "note",
        "strict overcommit (vm.overcommit_memory=2)",
        "large buffers may be refused",
        "sudo sysctl vm.overcommit_memory=0",
    )


def memlock(host: Host) -> Finding | None:
    match = re.search(r"^Max locked memory\s+(\S+)", host.tree.read("proc/self/limits") or "", re.MULTILINE)
    llc = host.topology.llc_bytes_total()
    if not match or not match[1].isdigit() or llc is None or int(match[1]) >= LLC_FACTOR * llc:
        return None
    return Finding(
        "memlock",
        "note",
        f"only {format_bytes(int(match[1]))} can be locked",
        "buffers cannot be held in memory by mlock",
        "ulimit -l unlimited",
    )
