"""Measured memory: mapped, aligned, bound to a node before its first touch, and proven.

Imported by worker processes: the standard library and msgspec only.
"""

from __future__ import annotations

import ctypes as c
import errno
import os

from ..errors import MachineError
from ..model import MemoryProof

ALIGN = 2 << 20  # the huge page of x86-64 and of aarch64 with 4 KiB granules
PROOF_PAGES = 4096  # pages looked at per proof: a 1 GiB buffer needs 262,144 look-ups otherwise
PAGE_SIZES = ("4k", "thp")

_PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS = 3, 0x22
_MADV_HUGEPAGE, _MADV_NOHUGEPAGE = 14, 15
_MPOL_BIND, _MPOL_MF_STRICT = 2, 1
_MAP_FAILED = c.c_void_p(-1).value

_libc = c.CDLL(None, use_errno=True)
_libc.mmap.restype = c.c_void_p
_libc.mmap.argtypes = [c.c_void_p, c.c_size_t, c.c_int, c.c_int, c.c_int, c.c_long]
_libc.munmap.argtypes = [c.c_void_p, c.c_size_t]
_libc.madvise.argtypes = [c.c_void_p, c.c_size_t, c.c_int]


def _libnuma() -> c.CDLL:
    try:
        library = c.CDLL("libnuma.so.1", use_errno=True)
    except OSError as error:
        raise MachineError(
            "libnuma.so.1 is missing; memory could neither be bound to a node nor be proven to be there",
            "sudo apt-get install numactl",
        ) from error
    library.mbind.argtypes = [c.c_void_p, c.c_ulong, c.c_int, c.c_void_p, c.c_ulong, c.c_uint]
    library.move_pages.argtypes = [c.c_int, c.c_ulong, c.c_void_p, c.c_void_p, c.c_void_p, c.c_int]
    library.mbind.restype = library.move_pages.restype = c.c_long
    return library


class Buffer:
    """`size` bytes at a 2 MiB boundary, on `node` (None: wherever the first touch puts them), in pages of `page_size`.

    Nothing is touched here: the thread that will use the memory does that.
    """

    def __init__(self, size: int, page_size: str = "4k", node: int | None = None):
        self.size, self.page_size, self.node = size, page_size, node
        self._length = size + ALIGN
        base = _libc.mmap(None, self._length, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        if base == _MAP_FAILED:
            raise MachineError(f"cannot map {self._length} bytes: {os.strerror(c.get_errno())}", "choose a smaller size")
        self._base = base
        self.address = -(-base // ALIGN) * ALIGN
        self._advise()
        if node is not None:
            self._bind(node)

    def _advise(self) -> None:
        advice = _MADV_HUGEPAGE if self.page_size == "thp" else _MADV_NOHUGEPAGE
        _libc.madvise(self.address, self.size, advice)  # EINVAL without THP: the proof shows what was obtained

    def _bind(self, node: int) -> None:
        words = node // 64 + 1
        mask = (c.c_uint64 * words)()
        mask[node // 64] = 1 << node % 64
        if _libnuma().mbind(self.address, self.size, _MPOL_BIND, mask, words * 64 + 1, _MPOL_MF_STRICT):
            code = c.get_errno()
            self.close()
            forbidden = code in (errno.EPERM, errno.ENOSYS)  # what seccomp filters answer
            raise MachineError(
                f"cannot bind {self.size} bytes to node {node}: {os.strerror(code)}",
                "allow the system call mbind (containers: --cap-add SYS_NICE)"
                if forbidden
                else "numactl --hardware shows the nodes allowed",
            )

    def prove(self) -> MemoryProof:
        """Where the touched pages are now."""
        page = os.sysconf("SC_PAGESIZE")
        total = -(-self.size // page)
        step = -(-total // PROOF_PAGES)
        addresses = [self.address + i * page for i in range(0, total, step)]
        count = len(addresses)
        status = (c.c_int * count)()
        pages: dict[str, int] = {}
        if self.node is not None:
            if _libnuma().move_pages(0, count, (c.c_void_p * count)(*addresses), None, status, 0):
                raise MachineError(
                    f"cannot ask where pages are: {os.strerror(c.get_errno())}",
                    "allow the system call move_pages (containers: --cap-add SYS_NICE)",
                )
            for where in status:
                name = str(where) if where >= 0 else os.strerror(-where)
                pages[name] = pages.get(name, 0) + 1
        return MemoryProof(
            bytes=self.size,
            page_size=self.page_size,
            node=self.node,
            pages=pages,
            page_bytes=page,
            huge_bytes=huge_bytes(self.address) if self.size >= ALIGN else 0,
        )

    def close(self) -> None:
        if self._base:
            _libc.munmap(self._base, self._length)
            self._base = 0


def huge_bytes(address: int) -> int:
    """Bytes in transparent huge pages of the mapping that holds `address`, from /proc/self/smaps."""
    inside = False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            first = line.split(" ", 1)[0]
            if "-" in first and not first.endswith(":"):
                low, high = (int(part, 16) for part in first.split("-"))
                inside = low <= address < high
            elif inside and line.startswith("AnonHugePages:"):
                return int(line.split()[1]) * 1024
    return 0


def available_bytes(node: int | None = None) -> int | None:
    """Memory that a buffer may take: the least of MemAvailable, the node's free memory and the cgroup's room."""
    limits = [_meminfo("/proc/meminfo", "MemAvailable:"), _cgroup_room()]
    if node is not None:
        limits.append(_meminfo(f"/sys/devices/system/node/node{node}/meminfo", "MemFree:", "Inactive(file):"))
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _meminfo(path: str, *names: str) -> int | None:
    if not os.path.exists(path):
        return None
    total = 0
    with open(path) as file:
        for words in map(str.split, file):
            total += sum(int(words[words.index(name) + 1]) * 1024 for name in names if name in words)
    return total


def _cgroup_room() -> int | None:
    """Limit minus use, the least over this process's memory cgroup and its parents (version 2 or 1)."""
    from .sysfs import Tree, cgroup_directories

    tree, rooms = Tree("/"), []
    for directories, version2 in cgroup_directories(tree, "memory"):
        names = ("memory.max", "memory.current") if version2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        for directory in directories:
            limit, use = (tree.number(f"{directory}/{name}") for name in names)
            if limit is not None and use is not None:
                rooms.append(limit - use)
    return min(rooms) if rooms else None
