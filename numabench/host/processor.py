"""Brand, flags and architecture of the processor, as /proc/cpuinfo of each architecture spells them."""

from __future__ import annotations

import re

from .sysfs import Tree


def read_processor(tree: Tree) -> dict[str, str]:
    """Keys of proc/cpuinfo up to the second processor; a key that repeats keeps its first filled value."""
    fields: dict[str, str] = {}
    for line in (tree.read("proc/cpuinfo") or "").splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and key in fields:
            break
        if colon and value:
            fields.setdefault(key, value)
    return fields


def brand_of(processor: dict[str, str]) -> str | None:
    if name := processor.get("model name") or processor.get("cpu") or processor.get("Model"):
        return " ".join(name.split())
    if "CPU part" in processor:
        return f"Arm implementer {processor.get('CPU implementer')} part {processor['CPU part']}"
    if "IBM/S390" in processor.get("vendor_id", ""):
        machine = re.search(r"machine = (\w+)", " ".join(processor.values()))
        return f"IBM/S390 machine {machine[1]}" if machine else "IBM/S390"
    if "family" in processor and "vendor" in processor:  # ia64
        return f"{processor['vendor']} {processor['family']} model {processor.get('model')}"
    if "isa" in processor:
        return f"RISC-V {processor['isa']} vendor {processor.get('mvendorid')}"
    return None


def flags_of(processor: dict[str, str]) -> list[str]:
    return (processor.get("flags") or processor.get("Features") or "").split()


def arch_of(processor: dict[str, str]) -> str | None:
    """Architecture of a snapshot, told by the keys that its /proc/cpuinfo uses."""
    signs = (
        ("x86_64", "lm" in flags_of(processor)),
        ("aarch64", processor.get("CPU architecture") == "8"),
        ("s390x", "IBM/S390" in processor.get("vendor_id", "")),
        ("ia64", processor.get("arch") == "IA-64"),
        ("ppc64", processor.get("cpu", "").startswith("POWER")),
        ("riscv64", processor.get("isa", "").startswith("rv64")),
        ("sparc64", processor.get("type", "").startswith("sun4")),
    )
    return next((arch for arch, holds in signs if holds), None)


def extensions_of(processor: dict[str, str]) -> tuple[str, ...]:
    """Instructions that kernels/nb_fence.h has a form for, and not every processor of its architecture has."""
    return tuple(name for name in ("lrcpc",) if name in flags_of(processor))


def vectors_of(processor: dict[str, str]) -> tuple[str, ...]:
    """Instruction sets that kernels/nb_stream.h has a form for, the widest last."""
    flags = set(flags_of(processor))
    needs = {"sse2": {"lm", "sse2"}, "avx2": {"avx2", "fma"}, "avx512": {"avx512f"}, "neon": {"asimd"}, "sve": {"sve"}}
    return ("portable", *(name for name, needed in needs.items() if needed <= flags))
