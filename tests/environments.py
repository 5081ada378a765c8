"""Environments in which numabench has to run, made for one command: `python environments.py NAME... -- COMMAND...`.

Filters of system calls are real ones (seccomp(2), inherited by everything that the command starts). Files that a kernel does not have are
hidden from Python's own doors to them, by a module that each new Python process imports first (`sitecustomize`).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import struct
import sys
from pathlib import Path

X86_64, AARCH64 = 0xC000003E, 0xC00000B7  # AUDIT_ARCH_* (linux/audit.h)
CALLS = {
    "x86_64": {
        "mbind": 237,
        "set_mempolicy": 238,
        "get_mempolicy": 239,
        "move_pages": 279,
        "sched_setaffinity": 203,
        "memfd_create": 319,
    },
    "aarch64": {
        "mbind": 235,
        "get_mempolicy": 236,
        "set_mempolicy": 237,
        "move_pages": 239,
        "sched_setaffinity": 122,
        "memfd_create": 279,
    },
}
NUMA = ("mbind", "set_mempolicy", "get_mempolicy", "move_pages")

#: name -> calls that are refused and the answer. Docker's, podman's and containerd's default profiles allow mbind, set_mempolicy and
#: get_mempolicy with CAP_SYS_NICE alone, and move_pages not at all; what differs is the answer.
FILTERS = {
    "docker": (NUMA, errno.EPERM),
    "podman": (NUMA, errno.ENOSYS),
    "kubernetes": (NUMA, errno.EPERM),
    "sys_nice": (("move_pages",), errno.EPERM),
    "no_binding": (NUMA[:3], errno.EPERM),
    "no_pinning": (("sched_setaffinity",), errno.EPERM),
    "no_memory_files": (("memfd_create",), errno.EPERM),
}
#: name -> beginnings of paths that are not there.
HIDDEN = {
    "no_nodes": ("/sys/devices/system/node",),
    "no_numa_maps": ("/proc/self/numa_maps",),
    "no_smaps": ("/proc/self/smaps",),
    "no_statistics": ("/proc/stat", "/proc/interrupts", "/proc/thread-self/schedstat"),
}
#: name -> beginnings of paths that are there and may not be read (hardened hosts, Android).
LOCKED = {
    "locked": ("/proc/stat", "/proc/interrupts", "/proc/self/smaps", "/proc/meminfo", "/sys/devices/system/node/node0/meminfo"),
}
#: name -> path and what stands in it instead.
ODD = {
    "wsl1": {
        "/proc/meminfo": "MemTotal:       16658952 kB\nMemFree:         8413652 kB\nBuffers:           34032 kB\nCached:           188576 kB\n"
    },
    "odd": {
        "/proc/stat": "cpu  1 2 3\ncpu0 - - - - - - - -\ncpu1\n",
        "/proc/interrupts": "  CPU0 total\n 1: 2 3\n",
        "/proc/meminfo": "MemTotal: lots\n",
        "/proc/self/smaps": "7f00-7f01 rw-p\nRss: many kB\nAnonHugePages: none\n",
    },
}
SIGNS = {"kubernetes": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}}
NAMES = (*FILTERS, *HIDDEN, *LOCKED, *ODD, "bare_path")  # bare_path: nothing but a compiler in PATH

HIDING = """
import builtins, errno, io, os
import json
_files = json.loads(os.environ["HIDDEN_PATHS"])
_hidden, _locked = tuple(_files["hidden"]), tuple(_files["locked"])
def _hiding(real):
    def call(path, *arguments, **named):
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if name.startswith(_hidden):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if name.startswith(_locked):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(_files["odd"].get(name, path), *arguments, **named)
    return call
builtins.open = io.open = _hiding(builtins.open)
os.open, os.listdir, os.stat = _hiding(os.open), _hiding(os.listdir), _hiding(os.stat)
"""


def refuse(calls: tuple[str, ...], answer: int) -> None:
    """From now on these system calls answer `answer` to this process and to all that it starts."""
    machine = platform.machine()
    step = struct.Struct("HBBI")  # struct sock_filter
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    allow, fail = 0x7FFF0000, 0x00050000 | answer
    program = [(load, 0, 0, 4), (equal, 1, 0, X86_64 if machine == "x86_64" else AARCH64), (give, 0, 0, allow), (load, 0, 0, 0)]
    for call in calls:
        program += [(equal, 0, 1, CALLS[machine][call]), (give, 0, 0, fail)]
    program.append((give, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(step.pack(*each) for each in program))
    header = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(code)))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    for arguments in ((no_new_privileges, 1, 0, 0, 0), (set_seccomp, filter_mode, ctypes.addressof(header), 0, 0)):
        if libc.prctl(*map(ctypes.c_ulong, arguments)):
            raise OSError(ctypes.get_errno(), "prctl")


def enter(names: list[str], folder: Path) -> dict[str, str]:
    """Makes the environments called `names` for this process; `folder` is for what they need. The variables of what it starts."""
    variables = dict(os.environ)
    hidden, locked = ([path for name in names for path in kind.get(name, ())] for kind in (HIDDEN, LOCKED))
    odd = {}
    for number, (path, text) in enumerate(file for name in names for file in ODD.get(name, {}).items()):
        odd[path] = str(folder / f"odd{number}")
        Path(odd[path]).write_text(text)
    if hidden or locked or odd:
        hidden += [path.replace("/proc/self/", f"/proc/{os.getpid()}/") for path in hidden]
        (folder / "sitecustomize.py").write_text(HIDING)
        files = {"hidden": hidden, "locked": locked, "odd": odd}
        variables |= {
            "HIDDEN_PATHS": json.dumps(files),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
        }
    if "bare_path" in names:
        import shutil

        tools = folder / "bin"
        tools.mkdir(exist_ok=True)
        for tool in ("cc", "as", "ld"):
            (tools / tool).symlink_to(shutil.which(tool))
        variables["PATH"] = str(tools)
    for name in names:
        variables |= SIGNS.get(name, {})
        if name in FILTERS:
            refuse(*FILTERS[name])
    return variables


if __name__ == "__main__":
    import tempfile

    cut = sys.argv.index("--")
    place = Path(tempfile.mkdtemp(dir=os.environ.get("ENVIRONMENT_FOLDER")))
    os.execvpe(sys.argv[cut + 1], sys.argv[cut + 1 :], enter(sys.argv[1:cut], place))
