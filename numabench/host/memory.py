"""Measured memory: mapped, aligned, bound to a node before its first touch, and proven.

Imported by worker processes: the standard library and msgspec only.
"""

from __future__ import annotations

import copy
import ctypes as c
import errno
import itertools
import os
from collections.abc import Iterator

from ..errors import MachineError
from ..model import MemoryProof

ALIGN = 2 << 20  # the huge page of x86-64 and of aarch64 with 4 KiB granules
PROOF_PAGES = 4096  # pages looked at per proof: a 1 GiB buffer needs 262,144 look-ups otherwise
HUGETLB = {"64k": 16, "2m": 21, "1g": 30}  # binary logarithms of the sizes that are reserved beforehand
RESERVED = "hugepages/hugepages-{}kB"  # below /sys/kernel/mm and below a node

_PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS = 3, 0x22
_MAP_HUGETLB, _MAP_HUGE_SHIFT = 0x40000, 26
_MADV_HUGEPAGE, _MADV_NOHUGEPAGE = 14, 15
_MPOL_MF_STRICT = 1
POLICIES = {"bind": 2, "preferred": 1, "interleave": 3, "weighted": 6}  # modes of mbind(2)
IN_TURN = ("interleave", "weighted")  # those that deal pages to several nodes
WEIGHTS = "/sys/kernel/mm/mempolicy/weighted_interleave"
SAMPLING = 5.0  # standard deviations that the share of a node may be off where not every page is looked at
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

    `parts`: a node for each of so many equal parts (of whole pages) instead of one for all; by the policies `interleave` and
    `weighted` the nodes that get pages in turn.
    Nothing is touched here: the thread that will use the memory does that.
    """

    def __init__(
        self, size: int, page_size: str = "4k", node: int | None = None, parts: tuple[int, ...] = (), policy: str = "bind"
    ):
        self.size, self.page_size, self.node, self.parts, self.policy = size, page_size, node, parts, policy
        huge = HUGETLB.get(page_size)
        self._span = -(-size // ALIGN) * ALIGN if page_size == "thp" else size  # whole huge pages, or the kernel gives small ones
        self._length = self._span + ALIGN if huge is None else -(-size >> huge) << huge
        flags = _MAP_PRIVATE_ANONYMOUS | (0 if huge is None else _MAP_HUGETLB | huge << _MAP_HUGE_SHIFT)
        base = _libc.mmap(None, self._length, _PROT_READ_WRITE, flags, -1, 0)
        if base == _MAP_FAILED:
            raise cannot_map(self._length, page_size)
        self._base = base
        self.address = -(-base // ALIGN) * ALIGN if huge is None else base
        if huge is None:
            self._advise()
        for nodes, first, length in self._ranges():
            self._bind(nodes, first, length)

    def _advise(self) -> None:
        advice = _MADV_HUGEPAGE if self.page_size == "thp" else _MADV_NOHUGEPAGE
        _libc.madvise(self.address, self._span, advice)  # EINVAL without THP: the proof shows what was obtained

    @property
    def _part(self) -> int:
        return self.size // (len(self.parts) or 1)

    def _ranges(self) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """(nodes, offset, bytes) of what is to be bound: all of it, or neighbouring parts on one node."""
        if self.policy in IN_TURN or not self.parts:
            if self.parts or self.node is not None:
                yield self.parts or (self.node,), 0, self._span
            return
        first = 0
        for where, run in itertools.groupby(self.parts):
            length = len(list(run)) * self._part
            yield (where,), first, length
            first += length

    def _bind(self, nodes: tuple[int, ...], offset: int, size: int) -> None:
        words = max(nodes) // 64 + 1
        mask = (c.c_uint64 * words)()
        for node in nodes:
            mask[node // 64] |= 1 << node % 64
        if _libnuma().mbind(self.address + offset, size, POLICIES[self.policy], mask, words * 64 + 1, _MPOL_MF_STRICT):
            code = c.get_errno()
            self.close()
            if self.policy == "weighted" and not os.path.exists(WEIGHTS):
                raise MachineError("this kernel has no weighted interleave", "use Linux 6.9 or newer")
            forbidden = code in (errno.EPERM, errno.ENOSYS)  # what seccomp filters answer
            raise MachineError(
                f"cannot {self.policy} {size} bytes to node {', '.join(map(str, nodes))}: {os.strerror(code)}",
                "allow the system call mbind (containers: --cap-add SYS_NICE)"
                if forbidden
                else "numactl --hardware shows the nodes allowed",
            )

    def serves(self, size: int, page_size: str, node: int | None, parts: tuple[int, ...], policy: str) -> bool:
        """Whether its beginning is memory as asked for; where pages are dealt out, only all of it is."""
        enough = self.size == size if parts else self.size >= size
        return enough and (self.page_size, self.node, self.parts, self.policy) == (page_size, node, parts, policy)

    def beginning(self, size: int) -> Buffer:
        """Its first `size` bytes, which live as long as this."""
        found = copy.copy(self)
        found.size, found._base = size, 0  # nothing of its own to close
        return found

    def prove(self, part: int | None = None) -> MemoryProof:
        """Where the touched pages are now; of one part, or of all."""
        page = os.sysconf("SC_PAGESIZE")
        size, begin = (self.size, self.address) if part is None else (self._part, self.address + part * self._part)
        total = -(-size // page)
        step = -(-total // PROOF_PAGES)
        jump = self.policy in IN_TURN  # every second page would all be of one node
        places = (i + i * 7919 % step if jump else i for i in range(0, total, step))
        addresses = [begin + min(place, total - 1) * page for place in places]
        count = len(addresses)
        status = (c.c_int * count)()
        pages: dict[str, int] = {}
        misplaced = 0
        if self.node is not None or self.parts:
            if _libnuma().move_pages(0, count, (c.c_void_p * count)(*addresses), None, status, 0):
                raise MachineError(
                    f"cannot ask where pages are: {os.strerror(c.get_errno())}",
                    "allow the system call move_pages (containers: --cap-add SYS_NICE)",
                )
            for address, where in zip(addresses, status, strict=True):
                name = str(where) if where >= 0 else os.strerror(-where)
                pages[name] = pages.get(name, 0) + 1
                if not jump:
                    misplaced += where != (self.parts[(address - self.address) // self._part] if self.parts else self.node)
            if jump:
                whole = 1 << HUGETLB[self.page_size] if self.page_size in HUGETLB else ALIGN if self.page_size == "thp" else page
                shares = dict(zip(self.parts, weights(self.parts, self.policy), strict=True))
                misplaced = beyond_shares(pages, shares, count * whole / size)
        return MemoryProof(
            bytes=size,
            page_size=self.page_size,
            node=self.node if part is None else self.parts[part],
            pages=pages,
            parts=self.parts if part is None else (),
            policy=self.policy,
            misplaced=misplaced,
            page_bytes=page if self.page_size not in HUGETLB else 1 << HUGETLB[self.page_size],
            huge_bytes=round(size * huge_share(self.address))
            if self.page_size == "thp" or (size >= ALIGN and self.page_size not in HUGETLB)
            else 0,
        )

    def close(self) -> None:
        if self._base:
            _libc.munmap(self._base, self._length)
            self._base = 0


def weights(nodes: tuple[int, ...], policy: str) -> list[int]:
    """How many pages in a row the kernel gives to each of `nodes` when it deals them out."""
    if policy != "weighted":
        return [1] * len(nodes)
    found = []
    for node in nodes:
        with open(f"{WEIGHTS}/node{node}") as file:
            found.append(int(file.read()))
    return found


def beyond_shares(pages: dict[str, int], wanted: dict[int, int], unit: float) -> int:
    """Pages on other nodes than wanted, and those that a node has beyond its share by more than chance and one more turn (`unit`: pages
    looked at of each that is dealt out) give it."""
    total, whole, beyond = sum(pages.values()), sum(wanted.values()), 0
    for name, count in pages.items():
        share = wanted.get(int(name), 0) / whole if name.isdigit() else 0.0
        slack = SAMPLING * (total * share * (1 - share)) ** 0.5 + unit * wanted.get(int(name), 0) if share else 0.0
        beyond += max(0, round(count - total * share - slack))
    return beyond


def cannot_map(size: int, page_size: str) -> MachineError:
    """Why there is no memory of `size`, and what helps."""
    reason = os.strerror(c.get_errno())
    if page_size not in HUGETLB:
        return MachineError(f"cannot map {size} bytes: {reason}", "choose a smaller size")
    return MachineError(
        f"cannot map {size} bytes in reserved huge pages of {page_size}: {reason}", reserve_command(size, page_size)
    )


def reserve_command(size: int, page_size: str) -> str:
    """The command that reserves huge pages for `size` bytes."""
    pages, folder = -(-size >> HUGETLB[page_size]), RESERVED.format(1 << HUGETLB[page_size] - 10)
    return f"echo {pages} | sudo tee /sys/kernel/mm/{folder}/nr_hugepages"


def reserved_bytes(page_size: str, node: int | None = None) -> int:
    """Bytes of a node (None: of all) in reserved huge pages that are free. The kernel keeps the count by size: what it does not know is 0."""
    above = "/sys/kernel/mm" if node is None else f"/sys/devices/system/node/node{node}"
    try:
        with open(f"{above}/{RESERVED.format(1 << HUGETLB[page_size] - 10)}/free_hugepages") as file:
            return int(file.read()) << HUGETLB[page_size]
    except OSError:
        return 0


def huge_share(address: int) -> float:
    """How much of what is touched of the mapping that holds `address` is in transparent huge pages, from /proc/self/smaps."""
    inside, touched = False, 0
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            first = line.split(" ", 1)[0]
            if "-" in first and not first.endswith(":"):
                low, high = (int(part, 16) for part in first.split("-"))
                inside = low <= address < high
            elif inside and first == "Rss:":
                touched = int(line.split()[1])
            elif inside and first == "AnonHugePages:":
                return int(line.split()[1]) / touched if touched else 0.0
    return 0.0


def require_balancing() -> None:
    """MachineError unless the kernel moves pages to the nodes that use them (bit 0: NUMA balancing as it always was)."""
    try:
        with open("/proc/sys/kernel/numa_balancing") as file:
            setting = file.read().strip()
    except OSError:
        raise MachineError("this kernel has no NUMA balancing", "use one with CONFIG_NUMA_BALANCING") from None
    if not int(setting) & 1:
        raise MachineError(f"NUMA balancing is off (kernel.numa_balancing={setting})", "sudo sysctl kernel.numa_balancing=1")


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
