"""What the firmware says of the caches of a machine with [[timing.caches]] or with claims. QEMU has sizes of its own alone: these lie over its kernel's in /sys."""

from __future__ import annotations

from numabench.units import format_cpus

from .machine import Machine
from .timing import LEVELS

CACHES = "caches"  # in the guest's first files; one folder in it lies over the `cache` folder of each CPU
LINE = 64  # what firmware says where the machine file claims nothing else
WAYS = 8  # of caches that are only claimed


def cache_files(machine: Machine) -> dict[str, str]:
    """Path below CACHES -> content, as Linux shows caches in /sys/devices/system/cpu/cpuN/cache; empty without levels and claims."""
    files, line = {}, machine.said_line or LINE
    groups = {cpu: group for group in machine.groups("die") for cpu in group}
    for cpu in range(machine.cpus):
        for index, (size, ways) in enumerate(shown(machine)):
            level, sharing = index + 1, groups[cpu] if index + 1 == len(LEVELS) else (cpu,)
            content = {
                "coherency_line_size": line,
                "level": level,
                "number_of_sets": max(size // line // ways, 1),
                "physical_line_partition": 1,
                "shared_cpu_list": format_cpus(sharing),
                "shared_cpu_map": format_mask(sharing),
                "size": f"{size >> 10}K",
                "type": "Data" if level == 1 else "Unified",
                "ways_of_associativity": ways,
            }
            files |= {f"cpu{cpu}/index{index}/{name}": f"{value}\n" for name, value in content.items()}
    return files


def shown(machine: Machine) -> list[tuple[int, int]]:
    """(bytes, ways) of each level, nearest first: as claimed, else as they are."""
    said = dict(machine.said_caches)
    real = [(cache.size, cache.ways) for cache in machine.timing.caches] if machine.timing else []
    return [(said.get(level, size), ways) for level, (size, ways) in enumerate(real or [(0, WAYS)] * len(said), 1)]


def format_mask(cpus: tuple[int, ...]) -> str:
    """As the kernel prints a set of CPUs: words of 32 bits, the highest first."""
    mask = sum(1 << cpu for cpu in cpus)
    return f"{mask >> 32:08x},{mask & 0xFFFFFFFF:08x}"
