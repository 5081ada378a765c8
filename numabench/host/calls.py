"""The C library, and through it the kernel's NUMA system calls, called directly: nothing has to be installed for them.

Imported by worker processes: the standard library only. Each answers 0 or what `errno` was.
"""

from __future__ import annotations

import ctypes as c
import errno
import os

NAMES = ("mbind", "set_mempolicy", "get_mempolicy", "move_pages")
_GENERIC = (235, 237, 236, 239)  # include/uapi/asm-generic/unistd.h
_NUMBERS = {  # arch/*/entry/syscalls/syscall*.tbl
    "x86_64": (237, 238, 239, 279),
    "ppc64": (259, 261, 260, 301),
    "ppc64le": (259, 261, 260, 301),
    "s390x": (268, 270, 269, 310),
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
    "loongarch64": _GENERIC,
}
_LONG = 8 * c.sizeof(c.c_ulong)

libc = c.CDLL(None, use_errno=True)
libc.syscall.restype = c.c_long
libc.mmap.restype = c.c_void_p
libc.mmap.argtypes = [c.c_void_p, c.c_size_t, c.c_int, c.c_int, c.c_int, c.c_long]
libc.munmap.argtypes = [c.c_void_p, c.c_size_t]
libc.madvise.argtypes = [c.c_void_p, c.c_size_t, c.c_int]
MAP_FAILED = c.c_void_p(-1).value  # what mmap answers where it cannot


def _call(name: str, *arguments) -> int:
    numbers = _NUMBERS.get(os.uname().machine) if c.sizeof(c.c_void_p) == 8 else None
    if numbers is None:
        return errno.ENOSYS
    c.set_errno(0)
    failed = libc.syscall(c.c_long(numbers[NAMES.index(name)]), *arguments) < 0
    return c.get_errno() if failed else 0


def _mask(nodes: tuple[int, ...]) -> tuple[c.Array, c.c_ulong]:
    """Nodes as a bit mask, and the number of its bits as the kernel wants it: one more."""
    words = max(nodes) // _LONG + 1
    mask = (c.c_ulong * words)()
    for node in nodes:
        mask[node // _LONG] |= 1 << node % _LONG
    return mask, c.c_ulong(words * _LONG + 1)


def mbind(address: int, size: int, mode: int, nodes: tuple[int, ...], flags: int) -> int:
    mask, bits = _mask(nodes)
    return _call("mbind", c.c_void_p(address), c.c_ulong(size), c.c_long(mode), mask, bits, c.c_ulong(flags))


def set_mempolicy(mode: int, nodes: tuple[int, ...]) -> int:
    """Of the calling thread, and of those that it will start."""
    mask, bits = _mask(nodes)
    return _call("set_mempolicy", c.c_long(mode), mask, bits)


def get_mempolicy() -> int:
    """Whether a thread may ask for its own policy."""
    mode = c.c_int()
    return _call("get_mempolicy", c.byref(mode), None, c.c_ulong(0), None, c.c_ulong(0))


def where_pages_are(addresses: c.Array, status: c.Array, process: int = 0) -> int:
    """Fills `status` with the node of each page (an array of pointers) of a process (0: this one), or minus an error number: move_pages(2) without moving."""
    return _call("move_pages", c.c_long(process), c.c_ulong(len(addresses)), addresses, None, status, c.c_long(0))
