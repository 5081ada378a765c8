"""What `numabench check` tells: the machine's findings, whether a kernel can be compiled and loaded and a process started here, and what cache lines are."""

from __future__ import annotations

import time
from collections.abc import Callable

from .. import kernel as abi
from ..errors import NumabenchError
from ..host.findings import Finding
from ..host.health import check, worst_first
from . import crew, executor
from .transfer_unit import line_finding


def check_all(root: str = "/", wait: Callable[[float], object] = time.sleep) -> list[Finding]:
    """All findings, the worst first; errors as `read_topology`. A snapshot can compile nothing."""
    findings = check(root, wait)
    return worst_first([*findings, *filter(None, (kernels(), processes(), line_finding()))]) if root == "/" else findings


def kernels() -> Finding:
    """What every run needs beside its kernels is compiled, or found in the cache, and loaded."""
    try:
        built = abi.build("sentinel")
        abi.Kernel(built.target)
        crew.load(abi.build("crew").target)
    except NumabenchError as error:
        return Finding("kernels", "fatal", error.message, "nothing is measured without compiled kernels", error.fix or "")
    return Finding("kernels", "ok", f"compiled and loaded ({built.target.parent})")


def processes() -> Finding:
    """A process is started as each run starts them."""
    try:
        executor.try_start()
    except NumabenchError as error:
        return Finding("processes", "fatal", error.message, "each case is measured in a process of its own", error.fix or "")
    return Finding("processes", "ok", "the Python that measures starts")


def why_nothing(reason: str) -> tuple[str, str]:
    """Why a run measured nothing, by the first reason that its processes gave, and what mends it: what they said themselves, else what
    a check finds fatal here; a check that finds nothing is no remedy."""
    said, has_remedy, remedy = reason.partition(" To mend it: ")
    if has_remedy:
        return said.rpartition("MachineError: ")[2], remedy
    for finding in check_all():
        if finding.severity == "fatal":
            return f"{reason}; here is {finding.found}: {finding.why}", finding.fix
    return reason, "numabench check finds no cause for it: please report it with this log"
