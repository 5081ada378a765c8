"""What will disturb a measurement on this machine: findings with a reason and a remedy. Nothing is changed.

Every check is a function of `Host` that answers a Finding, or None when the kernel does not say. All files are read
below a root, so that a made-up tree can be checked; `proc/stat` is read twice to see which CPUs are busy now.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from . import needs, settings, trials
from .findings import Finding, Host
from .sysfs import Tree
from .topology import Topology, read_topology

CHECKS = (
    needs.compiler,
    needs.emulated,
    needs.allowed,
    trials.pinning,
    trials.numa_calls,
    trials.files,
    needs.load,
    needs.quota,
    needs.hypervisor,
    settings.governor,
    settings.turbo,
    settings.smt,
    settings.kinds,
    settings.numa_balancing,
    settings.thp,
    settings.khugepaged,
    settings.ksm,
    settings.damon,
    needs.swap,
    needs.memory,
    needs.overcommit,
    needs.memlock,
    settings.clocksource,
    settings.irqbalance,
    settings.isolation,
    settings.mitigations,
    settings.microcode,
    settings.perf,
    settings.topology_warnings,
)


def check(root: str = "/", wait: Callable[[float], object] = time.sleep, topology: Topology | None = None) -> list[Finding]:
    """All findings, the worst first. Errors as `read_topology`; takes `findings.SAMPLE_S` seconds. `topology`: with the CPUs that are
    meant, where these are not all that may be used."""
    host = Host(Tree(root), topology or read_topology(root), wait)
    findings = [finding for one in CHECKS if (finding := one(host))]
    findings += [Finding("files", "note", text, "what it says could not be checked") for text in host.tree.warnings]
    return worst_first(findings)


def worst_first(findings: list[Finding]) -> list[Finding]:
    order = ("fatal", "warn", "note", "ok")
    return sorted(findings, key=lambda finding: order.index(finding.severity))
