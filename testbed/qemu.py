"""A machine as QEMU's command line and as the simulator's configuration."""

from __future__ import annotations

from pathlib import Path

from .events import event_lines
from .machine import ARM, MIB, Machine
from .packages import Tools
from .timing import PAGES, PREFETCHERS, VICTIM

#: `-machine pc` keeps the addresses between LOW_END and 4 GiB for devices: if there is more memory than fits below
#: LOW_LIMIT, what is beyond LOW_END goes above 4 GiB. Modules that can be taken out follow at whole GiB.
LOW_LIMIT, LOW_END, HIGH_BEGIN, GIB = 0xE0000000, 3 << 30, 4 << 30, 1 << 30
ARM_BEGIN = 1 << 30  # `-machine virt` has all memory in one piece from here on
#: The guest's kernel: clock and scheduler as quiet as they get; pages stay where they were put.
KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=-1 nokaslr tsc=reliable no_timer_check random.trust_cpu=on mitigations=off nowatchdog audit=0 "
    "apparmor=0 selinux=0 cryptomgr.notests rcupdate.rcu_cpu_stall_suppress=1 numa_balancing=disable memhp_default_state=online_movable"
)
CPU = "max,la57=off,vendor=GenuineIntel,min-level=0x20"  # no five-level page tables, which are slow; Linux shows dies of this vendor alone, from leaf 0x1f


def memory_ranges(machine: Machine) -> list[tuple[int, int, int, int]]:
    """(begin, end, offset in all memory, node) of the guest-physical memory, as `-machine pc` (on aarch64 `virt`) lays it out."""
    fixed = sum(machine.nodes[number].memory for number in machine.fixed_nodes)
    low = fixed if fixed < LOW_LIMIT else LOW_END
    found, offset = [], 0
    if machine.arch == ARM:
        for number in machine.memory_nodes:
            begin, offset = offset, offset + machine.nodes[number].memory
            found.append((ARM_BEGIN + begin, ARM_BEGIN + offset, begin, number))
        return found
    for number in machine.fixed_nodes:
        begin, offset = offset, offset + machine.nodes[number].memory
        if begin < min(offset, low):
            found.append((begin, min(offset, low), begin, number))
        if offset > low:
            first = max(begin, low)
            found.append((first - low + HIGH_BEGIN, offset - low + HIGH_BEGIN, first, number))
    address = HIGH_BEGIN + whole_gib(fixed - low)
    for number in machine.module_nodes:
        size = machine.nodes[number].memory
        found.append((address, address + size, offset, number))
        address, offset = address + whole_gib(size), offset + size
    return found


def whole_gib(size: int) -> int:
    return -(-size // GIB) * GIB


def configuration(machine: Machine, timed: bool, spinners: int) -> str:
    """`key value...` lines for the simulator (simulator/configuration.c), which knows CPUs by QEMU's numbers."""

    def row(key: str, values) -> str:
        return " ".join([key, *(f"{value:g}" if isinstance(value, float) else str(value) for value in values)])

    lines = [
        row("timed", [int(timed)]),
        row("spinners", [spinners]),
        row("cpus", [machine.cpus]),
        row("node_of", [machine.node_of[cpu] for cpu in machine.by_position]),
    ]
    lines += [row("range", values) for values in memory_ranges(machine)]
    timing = machine.timing
    if timing and timed:
        for place, cpu in enumerate(machine.by_position):
            lines.append(row("memory_from", [place, *machine.memory_from(cpu)]))
            lines.append(row("core_to_core", [place, *(timing.core_to_core[cpu][other] for other in machine.by_position)]))
        lines.append(row("occupancy", timing.occupancy))
        lines += [row(key, [getattr(timing, key)]) for key in ("line", "cache", "hit", "atomic", "instruction", "pause")]
        lines.append(row("misses", [timing.misses]))
        if timing.link:
            lines += [row("link", [number, *values]) for number, values in enumerate(timing.link)]
            lines.append(row("limited", [1]))
        lines.append(row("prefetch", [PREFETCHERS.index(timing.prefetch)]))
        lines += cache_lines(machine)
        lines.append(row("stores", [timing.store_buffer]))
        lines += [
            row("tlb", [tlb.level, sum(1 << PAGES.index(page) for page in tlb.pages), tlb.entries, tlb.ways, tlb.latency])
            for tlb in timing.tlb
        ]
        lines += [row("walk", timing.walk)] if timing.tlb else []
        lines += event_lines(machine)
    return "\n".join(lines) + "\n"


def cache_lines(machine: Machine) -> list[str]:
    """The levels of caches, if the machine has any: sets, ways, latency, what comes along."""
    caches, line = machine.timing.caches, machine.timing.line
    if not caches:
        return []
    group_of = {cpu: group for group, cpus in enumerate(machine.groups("die")) for cpu in cpus}
    return [
        *(
            f"level {cache.size // line // cache.ways} {cache.ways} {cache.latency:g} {PREFETCHERS.index(cache.prefetch)}"
            for cache in caches
        ),
        f"victim {int(caches[-1].kind == VICTIM)}",
        f"group_of {' '.join(str(group_of[cpu]) for cpu in machine.by_position)}",
    ]


def places(machine: Machine, cpus: tuple[int, ...]) -> tuple[int, ...]:
    """QEMU's numbers of these CPUs."""
    return tuple(sorted(machine.positions[cpu] for cpu in cpus))


def cpu_ranges(cpus: tuple[int, ...]) -> list[str]:
    """(0, 1, 2, 5) as `0-2`, `5`."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return [str(a) if a == b else f"{a}-{b}" for a, b in runs]


def node_options(machine: Machine) -> list[str]:
    """Nodes, distances and heterogeneous memory attributes."""
    options = []
    first = machine.cpu_nodes[0]
    for number, node in enumerate(machine.nodes):
        words = [f"node,nodeid={number}", *(f"cpus={cpus}" for cpus in cpu_ranges(places(machine, node.cpus)))]
        if node.memory:
            options += ["-object", f"memory-backend-ram,id=memory{number},size={node.memory // MIB}M"]
        if number in machine.fixed_nodes:
            words.append(f"memdev=memory{number}")
        if machine.hmat:
            initiator = node.initiator if node.initiator is not None else first
            words.append(f"initiator={number if node.cpus else initiator}")
        options += ["-numa", ",".join(words)]
    for i, row in enumerate(machine.distances):
        for j, distance in enumerate(row):
            options += ["-numa", f"dist,src={i},dst={j},val={distance}"]
    for matrix, kind, value in (
        (machine.hmat_latency, "access-latency", "latency={:.0f}"),
        (machine.hmat_bandwidth, "access-bandwidth", "bandwidth={:.0f}M"),
    ):
        for i in machine.cpu_nodes if matrix else ():
            for j in machine.memory_nodes:
                where = f"hmat-lb,initiator={i},target={j},hierarchy=memory,data-type={kind}"
                options += ["-numa", f"{where},{value.format(matrix[i][j])}"]
    return options


def module_options(machine: Machine) -> list[str]:
    """Memory that the guest's kernel can take offline, as it can an expander's."""
    begins = {number: begin for begin, _, _, number in memory_ranges(machine)}
    found = []
    for number in machine.module_nodes:
        found += ["-device", f"pc-dimm,id=module{number},memdev=memory{number},node={number},addr={begins[number]:#x}"]
    return found


def memory_size(machine: Machine) -> str:
    fixed = sum(machine.nodes[number].memory for number in machine.fixed_nodes)
    modules = [whole_gib(machine.nodes[number].memory) for number in machine.module_nodes]
    room = f",slots={len(modules)},maxmem={(fixed + sum(modules)) // MIB}M" if modules else ""
    return f"{fixed // MIB}M{room}"


def command(machine: Machine, tools: Tools, initrd: Path, console: Path, shared: Path) -> list[str]:
    """QEMU with `machine`, this machine's files read-only, and `shared` as /out."""
    smp = f"cpus={machine.cpus},sockets={machine.sockets},dies={machine.dies},cores={machine.cores},threads={machine.threads}"
    firmware = [word for folder in tools.firmware if folder.exists() for word in ("-L", str(folder))]
    return [
        *(str(tools.qemu), *firmware, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "pc,usb=off,vmport=off,acpi=on" + (",hmat=on" if machine.hmat else "")),
        *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", CPU, "-smp", smp),
        *("-m", memory_size(machine)),
        *node_options(machine),
        *module_options(machine),
        *("-kernel", str(tools.kernel), "-initrd", str(initrd), "-append", KERNEL_OPTIONS),
        *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
        *share_options("root", Path("/"), ",readonly=on,multidevs=remap"),
        *share_options("out", shared),
    ]


def share_options(tag: str, folder: Path, more: str = "") -> list[str]:
    """A folder of this machine that the guest can mount by its tag."""
    path = str(folder).replace(",", ",,")  # as QEMU wants it
    return [
        "-fsdev",
        f"local,id={tag},path={path},security_model=none{more}",
        "-device",
        f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
    ]
