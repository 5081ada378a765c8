"""Sizes of pages: the base page is the system's (4, 16 or 64 KiB), whatever the name `4k` says; huge ones that the kernel offers.

Imported by worker processes: the standard library only.
"""

from __future__ import annotations

import os

BASE = "4k"  # how a case asks for base pages: the name is older than machines with others
THP = "thp"
HUGETLB = {"64k": 16, "2m": 21, "1g": 30}  # binary logarithms of the sizes that are reserved beforehand
RESERVED = "hugepages/hugepages-{}kB"  # below /sys/kernel/mm and below a node
USUAL_THP = 2 << 20  # of x86-64 and of aarch64 with base pages of 4 KiB; with 16 KiB it is 32 MiB, with 64 KiB 512 MiB
_TRANSPARENT = "/sys/kernel/mm/transparent_hugepage"


def base_page() -> int:
    return os.sysconf("SC_PAGESIZE")


def transparent_page() -> int:
    """Bytes of a transparent huge page; the usual size where the kernel has none or does not say."""
    try:
        with open(f"{_TRANSPARENT}/hpage_pmd_size") as file:
            return int(file.read())
    except (OSError, ValueError):
        return USUAL_THP


def transparent_offered() -> bool:
    """Whether the kernel gives transparent huge pages to who asks for them."""
    try:
        with open(f"{_TRANSPARENT}/enabled") as file:
            return "[never]" not in file.read()
    except OSError:
        return False


def page_bytes(kind: str) -> int:
    """Bytes of a page as a case asks for it by name."""
    return base_page() if kind == BASE else transparent_page() if kind == THP else 1 << HUGETLB[kind]


def page_words(kind: str) -> str:
    """`64 KiB`, `2 MiB (transparent)`: a page as sentences say it, by the size that it has here."""
    size = page_bytes(kind)
    shift = (size.bit_length() - 1) // 10
    return f"{size >> 10 * shift} {'KMG'[shift - 1]}iB{' (transparent)' if kind == THP else ''}"


def reserve_command(size: int, kind: str) -> str:
    """The command that reserves huge pages for `size` bytes."""
    pages, folder = -(-size >> HUGETLB[kind]), RESERVED.format(1 << HUGETLB[kind] - 10)
    return f"echo {pages} | sudo tee /sys/kernel/mm/{folder}/nr_hugepages"


def reserved_bytes(kind: str, node: int | None = None) -> int:
    """Bytes of a node (None: of all) in reserved huge pages that are free. The kernel keeps the count by size: what it does not know is 0."""
    above = "/sys/kernel/mm" if node is None else f"/sys/devices/system/node/node{node}"
    try:
        with open(f"{above}/{RESERVED.format(1 << HUGETLB[kind] - 10)}/free_hugepages") as file:
            return int(file.read()) << HUGETLB[kind]
    except (OSError, ValueError):
        return 0
