"""What the firmware says of the caches of a machine with [[timing.caches]]. QEMU has sizes of its own alone: these lie over its kernel's in /sys."""

from __future__ import annotations

from numabench.units import format_cpus

from .machine import LEVELS, Machine

CACHES = "caches"  # in the guest's first files; one folder in it lies over the `cache` folder of each CPU
LINE = 64  # what all firmware here says


def cache_files(machine: Machine) -> dict[str, str]:
    """Path below CACHES -> content, as Linux shows caches in /sys/devices/system/cpu/cpuN/cache; empty without levels."""
    files = {}
    groups = {cpu: group for group in machine.groups("die") for cpu in group}
    for cpu in range(machine.cpus):
        for index, cache in enumerate(machine.timing.caches if machine.timing else ()):
            level, sharing = index + 1, groups[cpu] if index + 1 == len(LEVELS) else (cpu,)
            content = {
                "coherency_line_size": LINE,
                "level": level,
                "number_of_sets": cache.size // LINE // cache.ways,
                "physical_line_partition": 1,
                "shared_cpu_list": format_cpus(sharing),
                "shared_cpu_map": format_mask(sharing),
                "size": f"{cache.size >> 10}K",
                "type": "Data" if level == 1 else "Unified",
                "ways_of_associativity": cache.ways,
            }
            files |= {f"cpu{cpu}/index{index}/{name}": f"{value}\n" for name, value in content.items()}
    return files


def format_mask(cpus: tuple[int, ...]) -> str:
    """As the kernel prints a set of CPUs: words of 32 bits, the highest first."""
    mask = sum(1 << cpu for cpu in cpus)
    return f"{mask >> 32:08x},{mask & 0xFFFFFFFF:08x}"
