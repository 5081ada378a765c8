"""What a check of the machine looks at, and what it answers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from typing import Literal

import msgspec

from .processor import read_processor
from .room import read_meminfo
from .sysfs import Tree
from .topology import Topology

Severity = Literal["ok", "note", "warn", "fatal"]

SAMPLE_S = 0.2  # 20 ticks of the 100 Hz in which proc/stat counts: a resolution of 5 %


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
        self.processor = read_processor(tree)
        first = _cpu_ticks(tree)
        if first:
            wait(SAMPLE_S)
        second = _cpu_ticks(tree) if first else {}
        measured = [cpu for cpu in topology.allowed_cpus if cpu in first and cpu in second]
        deltas = {cpu: [b - a for a, b in zip(first[cpu], second[cpu], strict=True)] for cpu in measured}
        self.ticks = {cpu: delta for cpu, delta in deltas.items() if sum(delta) > 0}
        self.meminfo = read_meminfo(tree)

    def program(self, name: str) -> str | None:
        if self.tree.live:
            return shutil.which(name)
        places = [f"{self.tree.root}{place}" for place in ("usr/local/bin", "usr/bin", "bin")]
        return shutil.which(name, path=os.pathsep.join(places))


def _cpu_ticks(tree: Tree) -> dict[int, list[int]]:
    """{cpu: [user, nice, system, idle, iowait, irq, softirq, steal]} (proc_stat(5); guest is part of user)."""
    rows = re.findall(r"^cpu(\d+) ([\d ]+)$", tree.read("proc/stat") or "", re.MULTILINE)
    return {int(cpu): ([int(word) for word in words.split()] + [0] * 8)[:8] for cpu, words in rows}
