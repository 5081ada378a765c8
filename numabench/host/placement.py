"""Starting processes where a plan wants them, and making sure that none outlives its parent."""

from __future__ import annotations

import ctypes as c
import os
import signal
from collections.abc import Iterable

from ..errors import MachineError

_PR_SET_PDEATHSIG = 1


def numactl_command(cpus: Iterable[int], node: int | None) -> list[str]:
    """The prefix that starts a process on `cpus` with heap, stacks and page tables on `node`.

    Without NUMA support in the kernel (`node` None) there is one memory, and affinity alone is set by the worker.
    """
    if node is None:
        return []
    import shutil

    if not shutil.which("numactl"):
        raise MachineError(
            "numactl is not installed; a worker's heap and page tables could be on any node", "sudo apt-get install numactl"
        )
    return ["numactl", f"--physcpubind={','.join(map(str, sorted(cpus)))}", f"--preferred={node}", "--"]


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent goes, however it goes; checks that it has not gone already."""
    c.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent process is gone")


def cannot_pin(cpu: int, code: int) -> MachineError:
    """Why no thread can be on this CPU."""
    return MachineError(
        f"cannot run on CPU {cpu}: {os.strerror(code)}; it is offline or not allowed here",
        "see allowed_cpus in: numabench machine --format json",
    )
