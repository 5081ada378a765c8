"""What a run needs of the kernel, tried here: the NUMA calls, pinning to each CPU, and the files that it reads.

A refusal has its cause and the remedy that helps there: a filter of system calls (containers), a kernel without NUMA, a CPU set.
"""

from __future__ import annotations

import ctypes as c
import errno
import json
import mmap
import os
import re

from ..errors import MachineError
from ..units import format_cpus
from . import calls
from .findings import Finding, Host
from .maps import NUMA_MAPS
from .memory import BIND, FIRST_TOUCH, ONE_NODE, POLICIES, Placing
from .pages import base_page, transparent_offered
from .placement import refused_cpus
from .sysfs import Tree
from .topology import Topology

_IMPOSSIBLE_MODE = 0x7FFF  # of set_mempolicy: a kernel that may be asked answers EINVAL, and nothing changes
_BY_CAPABILITY = {
    "mbind",
    "set_mempolicy",
    "get_mempolicy",
}  # moby, profiles/seccomp/default.json: allowed with CAP_SYS_NICE; move_pages with none
_ROOM = "how much memory may be used is unknown: sizes are not held against it"
#: Files that are read while measuring, and what is not known without them.
_READ = {
    NUMA_MAPS: "where the pages of large memory are is asked page by page, where that is allowed",
    "/proc/self/smaps": "whether huge pages were obtained is unknown",
    "/proc/thread-self/schedstat": "how long threads waited for their CPU is unknown",
    "/proc/stat": "time stolen by a hypervisor is unknown",
    "/proc/interrupts": "interrupts on measured CPUs are unknown",
    "/proc/meminfo": _ROOM,
}


def refused_calls(node: int = 0) -> dict[str, int]:
    """Those of `calls.NAMES` that this process may not use, with the error number that each was answered with."""
    page = mmap.mmap(-1, base_page())
    page[0] = 1
    view = c.c_char.from_buffer(page)
    addresses, status = (c.c_uint64 * 1)(c.addressof(view)), (c.c_int * 1)()
    answers = {
        "mbind": calls.mbind(addresses[0], base_page(), POLICIES["preferred"], (node,), 0),
        "set_mempolicy": calls.set_mempolicy(_IMPOSSIBLE_MODE, (node,)),
        "get_mempolicy": calls.get_mempolicy(),
        "move_pages": calls.where_pages_are(addresses, status),
    }
    del view
    page.close()
    return {name: code for name, code in answers.items() if code in (errno.EPERM, errno.EACCES, errno.ENOSYS)}


def find_placing(topology: Topology) -> Placing:
    """How memory can be brought to its node here. MachineError where several nodes have memory, and nothing tells which of them holds a page."""
    nodes = topology.memory_nodes()
    refused = refused_calls(*nodes[:1])
    here = {"refused": tuple(refused), "transparent": transparent_offered()}
    if not topology.numa or len(nodes) < 2:
        return Placing(how=ONE_NODE, **here)
    if "mbind" not in refused:
        return Placing(how=BIND, **here)
    if "move_pages" in refused and not readable(NUMA_MAPS):
        raise MachineError(
            f"this machine has memory on nodes {format_cpus(nodes)}, and neither may memory be bound nor may be asked where it is",
            remedy(refused),
        )
    usable = {node.id: [cpu for cpu in node.cpus if cpu in topology.allowed_cpus] for node in topology.nodes}
    return Placing(how=FIRST_TOUCH, touchers={node: usable[node][0] for node in nodes if usable[node]}, **here)


def readable(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def filtered() -> bool:
    """Whether a filter of system calls holds for this process (seccomp(2), mode 2)."""
    found = re.search(r"^Seccomp:\s*(\d)", Tree("/").read("proc/self/status") or "", re.MULTILINE)
    return bool(found and found[1] == "2")


def container() -> str:
    """`kubernetes`, `podman`, `docker`, or nothing where no sign of either is there."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    return "docker" if os.path.exists("/.dockerenv") else ""


def profile_entry(names: dict[str, int] | tuple[str, ...]) -> str:
    """What a seccomp profile needs in its list `syscalls` so that exactly these are allowed."""
    return json.dumps({"names": list(names), "action": "SCMP_ACT_ALLOW"})


def remedy(refused: dict[str, int]) -> str:
    """What allows these calls here, in one line."""
    if not filtered():
        if errno.ENOSYS in refused.values():
            return "none on this kernel: it was built without CONFIG_NUMA, or stands in for Linux (gVisor)"
        return "none that is known here: no filter of system calls holds for this process"
    where, entry = container(), profile_entry(tuple(refused))
    if where == "kubernetes":
        return f"securityContext.seccompProfile of type Localhost, with {entry} in it (docs/containers.md)"
    start = where or "docker"
    ability = f"{start} run --cap-add SYS_NICE; or " if set(refused) <= _BY_CAPABILITY else ""
    return f"{ability}{start} run --security-opt seccomp=numabench.json, a profile with {entry} in it (docs/containers.md)"


def numa_calls(host: Host) -> Finding | None:
    if not host.tree.live:
        return None
    nodes = host.topology.memory_nodes()
    refused = refused_calls(*nodes[:1])
    if not refused:
        return Finding("calls", "ok", f"{', '.join(calls.NAMES)} are allowed")
    text = f"{', '.join(refused)} refused ({', '.join(sorted({os.strerror(code) for code in refused.values()}))})"
    if not host.topology.numa or len(nodes) < 2:
        why = "measured all the same: there is one memory, and where pages are is read from numa_maps"
        return Finding("calls", "note", text, why, remedy(refused))
    try:
        placing = find_placing(host.topology)
    except MachineError as error:
        return Finding("calls", "fatal", text, error.message, error.fix or "")
    if placing.how == BIND:
        return Finding(
            "calls", "note", text, "benchmarks that call it themselves are skipped; all others are measured", remedy(refused)
        )
    why = "memory is placed by first touch: nodes without CPUs, policies and moved pages are skipped, and other runs are not compared"
    return Finding("calls", "warn", text, why, remedy(refused))


def pinning(host: Host) -> Finding | None:
    """Each CPU that the files allow is tried: what a set of CPUs is refused for is seen, and not guessed."""
    if not host.tree.live or not host.topology.allowed_cpus:
        return None
    failed = refused_cpus(host.topology.allowed_cpus)
    if not failed:
        return Finding("pinning", "ok", "a thread can be pinned to each of them")
    answers = ", ".join(sorted({error.strerror for error in failed.values()}))
    refused = {error.errno for error in failed.values()} & {errno.EPERM, errno.ENOSYS}
    return Finding(
        "pinning",
        "fatal" if len(failed) == len(host.topology.allowed_cpus) else "warn",
        f"no thread can be pinned to CPUs {format_cpus(failed)} ({answers})",
        "what is measured on them would be measured somewhere",
        remedy({"sched_setaffinity": errno.EPERM})
        if refused
        else f"numabench run --cpus {format_cpus(set(host.topology.allowed_cpus) - set(failed)) or 'LIST'}",
    )


def unread(topology: Topology) -> dict[str, str]:
    """Files that a run reads and that cannot be read here, with what is not known without them."""
    nodes = topology.memory_nodes() if topology.numa else ()
    rooms = {f"/sys/devices/system/node/node{node}/meminfo": _ROOM for node in nodes} if len(nodes) > 1 else {}
    return {path: lost for path, lost in (_READ | rooms).items() if not readable(path)}


def unknowns(topology: Topology) -> tuple[str, ...]:
    """What a run on this machine will not know, and for want of which files: one line for each thing."""
    lines: dict[str, list[str]] = {}
    for path, lost in unread(topology).items():
        lines.setdefault(lost, []).append(path)
    return tuple(f"{lost} (cannot be read: {', '.join(paths)})" for lost, paths in lines.items())


def files(host: Host) -> Finding | None:
    if not host.tree.live:
        return None
    missing = unread(host.topology)
    if not missing:
        return Finding("reading", "ok", "all files that a run reads are there")
    return Finding(
        "reading",
        "note",
        f"cannot be read: {', '.join(missing)}",
        "; ".join(dict.fromkeys(missing.values())),
        "none: measured without, and recorded as unknown",
    )
