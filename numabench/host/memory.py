"""Measured memory: mapped, aligned, bound to a node before its first touch, and proven.

Imported by worker processes: the standard library and msgspec only.
"""

from __future__ import annotations

import array
import copy
import ctypes as c
import errno
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator

from ..errors import MachineError
from ..model import Frozen, MemoryProof
from . import calls
from .maps import huge_share, mapped_pages
from .pages import BASE, HUGETLB, THP, base_page, page_bytes, reserve_command, transparent_page
from .placement import pin_thread, start

ALIGN = 2 << 20  # the huge page of x86-64 and of aarch64 with 4 KiB granules
FEW_PAGES = 4096  # up to here each is asked for, which takes less time than a walk over all that the process has mapped
MANY_PAGES = 1 << 16  # that are asked for by one call where there is no other way

_PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS = 3, 0x22
_MAP_HUGETLB, _MAP_HUGE_SHIFT = 0x40000, 26
_MADV_DONTFORK, _MADV_HUGEPAGE, _MADV_NOHUGEPAGE, _MADV_DONTDUMP = 10, 14, 15, 16
_MPOL_MF_STRICT = 1
POLICIES = {"bind": 2, "preferred": 1, "interleave": 3, "weighted": 6}  # modes of mbind(2)
IN_TURN = ("interleave", "weighted")  # those that deal pages to several nodes
WEIGHTS = "/sys/kernel/mm/mempolicy/weighted_interleave"
SAMPLING = (
    5.0  # standard deviations that the share of a node may be off: where huge pages are scarce, small ones are dealt among them
)

BIND, FIRST_TOUCH, ONE_NODE = "bind", "first_touch", "one_node"  # ways in which memory gets to its node
NUMA_MAPS, MOVE_PAGES, NOT_TOLD = "numa_maps", "move_pages", "not_told"  # ways in which that is proven, beside ONE_NODE


class Placing(Frozen):
    """How memory gets to its node on this machine: by mbind, by the first touch of a thread on a CPU of that node (`touchers`, by node),
    or by there being one node alone. `refused`: the system calls for it that this process may not use; `transparent`: whether there are
    huge pages for who asks."""

    how: str = BIND
    touchers: dict[int, int] = {}
    refused: tuple[str, ...] = ()
    transparent: bool = True


_placing = Placing()  # of this process: what it may call does not change while it lives


def place_by(placing: Placing) -> None:
    """Place all memory that is mapped from now on in this way."""
    global _placing
    _placing = placing


class Buffer:
    """`size` bytes at a 2 MiB boundary, on `node` (None: wherever the first touch puts them), in pages of `page_size`.

    `parts`: a node for each of so many equal parts (of whole pages) instead of one for all; by the policies `interleave` and
    `weighted` the nodes that get pages in turn.
    Nothing is touched here: the thread that will use the memory does that.
    """

    def __init__(
        self, size: int, page_size: str = BASE, node: int | None = None, parts: tuple[int, ...] = (), policy: str = "bind"
    ):
        self.size, self.page_size, self.node, self.parts, self.policy = size, page_size, node, parts, policy
        huge = HUGETLB.get(page_size)
        align = max(ALIGN, transparent_page()) if page_size == THP and size >= transparent_page() else ALIGN
        self._span = -(-size // align) * align if page_size == THP else size  # whole huge pages, or the kernel gives small ones
        self._length = self._span + align if huge is None else -(-size >> huge) << huge
        flags = _MAP_PRIVATE_ANONYMOUS | (0 if huge is None else _MAP_HUGETLB | huge << _MAP_HUGE_SHIFT)
        base = calls.libc.mmap(None, self._length, _PROT_READ_WRITE, flags, -1, 0)
        if base == calls.MAP_FAILED:
            raise cannot_map(self._length, page_size)
        self._base = base
        self.address = -(-base // align) * align if huge is None else base
        self._advise(huge is None)
        for nodes, first, length in self._ranges():
            self._bind(nodes, first, length)

    def _advise(self, huge: bool) -> None:
        """Each range that is to be on nodes of its own becomes a mapping of its own, which numa_maps names by itself: what neighbours in
        memory must not be alike in is a flag without a meaning here. EINVAL without THP: the proof shows what was obtained."""
        if huge:
            calls.libc.madvise(self.address, self._span, _MADV_HUGEPAGE if self.page_size == THP else _MADV_NOHUGEPAGE)
            calls.libc.madvise(self.address, self._span, _MADV_DONTDUMP)
        for number, (_, first, length) in enumerate(self._ranges()):
            if number % 2:
                calls.libc.madvise(self.address + first, length, _MADV_DONTFORK)

    @property
    def _part(self) -> int:
        return self.size // (len(self.parts) or 1)

    def _ranges(self) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """(nodes, offset, bytes) of what is to be placed: all of it, or neighbouring parts on one node."""
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
        if _placing.how == FIRST_TOUCH:
            touch_from(_placing.touchers[nodes[0]], self.address + offset, size)
        if _placing.how != BIND:
            return
        if code := calls.mbind(self.address + offset, size, POLICIES[self.policy], nodes, _MPOL_MF_STRICT):
            self.close()
            if self.policy == "weighted" and not os.path.exists(WEIGHTS):
                raise MachineError("this kernel has no weighted interleave", "use Linux 6.9 or newer")
            raise MachineError(
                f"cannot {self.policy} {size} bytes to node {', '.join(map(str, nodes))}: {os.strerror(code)}",
                "allow the system call mbind (docs/containers.md)"
                if code in (errno.EPERM, errno.ENOSYS)  # what seccomp filters answer
                else "numabench machine shows the nodes allowed",
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

    def prove(self) -> MemoryProof:
        """Where all of its pages are now."""
        ranges = list(self._ranges()) or [((), 0, self._span)]
        pages, by = self._count([(first, min(length, self.size - first)) for _, first, length in ranges])
        placed = [self._misplaced(nodes, found) for (nodes, _, _), found in zip(ranges, pages, strict=True)]
        return self._proof(sum(map(Counter, pages), Counter()), sum(placed), by, self.size, self.node, self.parts)

    def prove_parts(self) -> list[MemoryProof]:
        """The same of each part: a mapping that holds several is proven as one, and if a page of it is elsewhere that is said of all of them."""
        ranges = list(self._ranges())
        pages, by = self._count([(first, length) for _, first, length in ranges])
        proofs = []
        for (nodes, _, length), found in zip(ranges, pages, strict=True):
            wrong = self._misplaced(nodes, found)
            whole = {str(nodes[0]): -(-self._part // self._page)}
            one = self._proof(found if wrong or not found else whole, wrong, by, self._part, nodes[0], ())
            proofs += [one] * (length // self._part)
        return proofs

    @property
    def _page(self) -> int:
        """Bytes of the pages that are counted: of transparent huge ones the small ones that they consist of."""
        return base_page() if self.page_size in (BASE, THP) else page_bytes(self.page_size)

    def _count(self, ranges: list[tuple[int, int]]) -> tuple[list[dict[str, int]], str]:
        """{node: pages} of each (offset, bytes), with those that were never touched under `untouched`, and how that is known."""
        there = [(self.address + first, size) for first, size in ranges]
        wanted = [-(-size // self._page) for _, size in ranges]
        few = sum(wanted) <= FEW_PAGES
        ways = [(MOVE_PAGES, lambda: asked_pages(there, self._page)), (NUMA_MAPS, lambda: mapped_pages(there))]
        for by, way in ways if few else reversed(ways):
            if (found := way()) is not None:
                for pages, whole in zip(found, wanted, strict=True):
                    if (missing := whole - sum(pages.values())) > 0:
                        pages["untouched"] = missing
                return found, by
        if _placing.how == ONE_NODE and self.node is not None:
            return [{str(self.node): whole} for whole in wanted], ONE_NODE
        return [{} for _ in ranges], NOT_TOLD

    def _misplaced(self, nodes: tuple[int, ...], pages: dict[str, int]) -> int:
        if not nodes or not pages:
            return 0
        if self.policy not in IN_TURN:
            return sum(pages.values()) - pages.get(str(nodes[0]), 0)
        shares = dict(zip(nodes, weights(nodes, self.policy), strict=True))
        return beyond_shares(pages, shares, page_bytes(self.page_size) / self._page)

    def _proof(
        self, pages: dict[str, int], misplaced: int, by: str, size: int, node: int | None, parts: tuple[int, ...]
    ) -> MemoryProof:
        small = self.page_size not in HUGETLB
        share = huge_share(self.address) if small and (self.page_size == THP or size >= ALIGN) else 0.0
        return MemoryProof(
            bytes=size,
            page_size=self.page_size,
            node=node,
            pages=dict(pages),
            parts=parts,
            policy=self.policy,
            misplaced=misplaced,
            page_bytes=self._page,
            huge_bytes=None if share is None else round(size * share),
            by=by,
        )

    def close(self) -> None:
        if self._base:
            calls.libc.munmap(self._base, self._length)
            self._base = 0


def touch_from(cpu: int, address: int, size: int) -> None:
    """Write to fresh memory on a CPU, near which the kernel then finds pages for it."""
    failed: list[MachineError] = []

    def touch() -> None:
        try:
            pin_thread(cpu)
            c.memset(address, 0, size)
        except MachineError as error:
            failed.append(error)

    thread = threading.Thread(target=touch)
    start(thread)
    thread.join()
    if failed:
        raise failed[0]


def asked_pages(ranges: list[tuple[int, int]], page: int) -> list[dict[str, int]] | None:
    """{node: pages} of each (address, bytes) that are touched, each asked for by move_pages; None where that may not be called."""
    found = []
    for begin, size in ranges:
        counts: Counter[int] = Counter()
        for first in range(begin, begin + size, MANY_PAGES * page):
            addresses = array.array("Q", range(first, min(begin + size, first + MANY_PAGES * page), page))
            status = (c.c_int * len(addresses))()
            if calls.where_pages_are((c.c_uint64 * len(addresses)).from_buffer(addresses), status):
                return None
            counts.update(status)
        absent = -errno.ENOENT
        found.append({str(n) if n >= 0 else os.strerror(-n): count for n, count in sorted(counts.items()) if n != absent})
    return found


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


def require_balancing() -> None:
    """MachineError unless the kernel moves pages to the nodes that use them (bit 0: NUMA balancing as it always was)."""
    try:
        with open("/proc/sys/kernel/numa_balancing") as file:
            setting = int(file.read())
    except (OSError, ValueError):
        raise MachineError("this kernel has no NUMA balancing", "use one with CONFIG_NUMA_BALANCING") from None
    if not setting & 1:
        raise MachineError(f"NUMA balancing is off (kernel.numa_balancing={setting})", "sudo sysctl kernel.numa_balancing=1")
