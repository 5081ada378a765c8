"""CPUs numbered in another order than they lie in: the firmware's list of processors (ACPI MADT) in that order, for the guest's kernel to take instead of QEMU's.

Linux numbers CPUs as that list names them. QEMU's own list counts through sockets, dies, cores and threads; real servers name the threads of all cores first and
their siblings behind, and some deal out numbers to the sockets in turn. A kernel takes tables in its first files (Documentation/admin-guide/acpi/initrd_table_override.rst)
for those of the firmware that have the same names.
"""

from __future__ import annotations

import struct

from .machine import PARTS, Machine

MADT = "kernel/firmware/acpi/madt.aml"  # where a kernel looks for tables
OEM = b"BOCHS " + b"BXPC    "  # QEMU's, whose table is replaced
NEWER = 2  # revision: one that is not higher than that of the firmware is left alone
LOCAL_APIC, IO_APIC = 0xFEE00000, 0xFEC00000
ISA_LEVEL = (5, 9, 10, 11)  # lines that QEMU's `pc` gives to PCI: active high, level-triggered (0xd)


def processor_list(machine: Machine) -> bytes | None:
    """The table; None where QEMU's own is right."""
    if machine.numbered == PARTS:
        return None
    body = struct.pack("<II", LOCAL_APIC, 1)
    for position in machine.positions:
        body += struct.pack("<BBBBI", 0, 8, position, apic_id(machine, position), 1)
    body += struct.pack("<BBBBII", 1, 12, 0, 0, IO_APIC, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)  # the timer
    for line in ISA_LEVEL:
        body += struct.pack("<BBBBIH", 2, 10, 0, line, line, 0xD)
    body += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    head = struct.pack("<4sIBB14sI4sI", b"APIC", 36 + len(body), 3, 0, OEM, NEWER, b"BXPC", 1)
    table = bytearray(head + body)
    table[9] = -sum(table) & 0xFF  # all bytes add up to zero
    return bytes(table)


def apic_id(machine: Machine, position: int) -> int:
    """Of the CPU at a position: each part has bits of its own (Intel's rule, as QEMU counts them)."""
    found, shift = 0, 0
    for part in PARTS:
        size = getattr(machine, part)
        position, digit = divmod(position, size)
        found |= digit << shift
        shift += (size - 1).bit_length()
    return found
