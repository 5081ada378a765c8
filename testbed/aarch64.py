"""A machine of aarch64 as QEMU's `virt`: its command line, and its firmware, a device tree to which the caches are added that QEMU leaves out."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .devicetree import Node, pack, parse
from .errors import SimulationError
from .machine import MIB, Machine
from .packages import Tools
from .packages_aarch64 import bytecode
from .qemu import KERNEL_OPTIONS, node_options, share_options

CONSOLE = "ttyAMA0"
#: With and without the atomic instructions of Armv8.1. Pointer authentication and long vectors, which are slow to emulate and which no kernel needs, are
#: off; the counter ticks once per ns on both.
PROCESSOR = {True: "max,pauth=off,sve=off,sme=off", False: "cortex-a35,cntfrq=1000000000"}
MACHINE = "virt,gic-version=3,its=off,acpi=off,dtb-randomness=off"
#: level, kind, bytes, ways: what the tree says of caches, as QEMU says on x86-64; that of the highest level is shared by a die. They are names: what a cache costs is in [timing].
FIRST = (32 << 10, 8)
SECOND, THIRD = (4 << 20, 16), (16 << 20, 16)
FREE_PHANDLE = 0x10000  # QEMU counts from 0x8000
TREE_TIMEOUT = 60.0  # s; one on a quiet machine


def base_command(machine: Machine, tools: Tools) -> list[str]:
    """What the tree depends on."""
    smp = f"cpus={machine.cpus},sockets={machine.sockets},clusters={machine.dies},cores={machine.cores},threads={machine.threads}"
    firmware = [word for folder in tools.firmware if folder.exists() for word in ("-L", str(folder))]
    return [
        *(str(tools.qemu), *firmware, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", PROCESSOR[machine.lse], "-smp", smp),
        *("-m", f"{sum(node.memory for node in machine.nodes) // MIB}M"),
        *node_options(machine),
    ]


def command(machine: Machine, tools: Tools, initrd: Path, console: Path, shared: Path) -> list[str]:
    """QEMU with `machine`, the guest's system and this machine's files read-only, and `shared` as /out. `tree` beside the initrd is the firmware."""
    options = KERNEL_OPTIONS.replace("ttyS0", CONSOLE)
    return [
        *base_command(machine, tools),
        *("-machine", MACHINE, "-dtb", str(write_tree(machine, tools, initrd.parent))),
        *("-kernel", str(tools.kernel), "-initrd", str(initrd), "-append", options),
        *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
        *share_options("system", tools.system, ",readonly=on,multidevs=remap"),
        *share_options("root", Path("/"), ",readonly=on,multidevs=remap"),
        *share_options("out", shared),
        *share_options("bytecode", bytecode()),
    ]


def write_tree(machine: Machine, tools: Tools, folder: Path) -> Path:
    """The device tree that QEMU makes, with caches."""
    path = folder / "tree"
    words = [*base_command(machine, tools), "-machine", f"{MACHINE},dumpdtb={path}"]
    environment = {"LD_LIBRARY_PATH": tools.libraries}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=TREE_TIMEOUT, check=False)
    if done.returncode:
        raise SimulationError(f"QEMU makes no device tree: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    tree = parse(path.read_bytes())
    add_caches(tree, machine)
    path.write_bytes(pack(tree))
    return path


def add_caches(tree: Node, machine: Machine) -> None:
    """Two levels of each core, and a third of each die."""
    cpus = next(node for node in tree.children if node.name == "cpus")
    line = machine.timing.line if machine.timing else 64
    processors = sorted((node for node in cpus.children if node.name.startswith("cpu@")), key=lambda node: int(node.name[4:], 16))
    thirds = [cache(f"l3-cache{number}", 3, THIRD, line) for number in range(len(machine.groups("die")))]
    seconds = [cache(f"l2-cache{number}", 2, SECOND, line) for number in range(len(machine.groups("smt")))]
    for number, node in enumerate([*thirds, *seconds]):
        node.properties["phandle"] = cell(FREE_PHANDLE + number)
    for number, group in enumerate(machine.groups("die")):
        for cpu in group:
            second = seconds[cpu // machine.threads]
            second.properties["next-level-cache"] = thirds[number].properties["phandle"]
            size, ways = FIRST
            for kind in ("d", "i"):
                processors[cpu].properties |= described(f"{kind}-cache", size, ways, line)
            processors[cpu].properties["next-level-cache"] = second.properties["phandle"]
    cpus.children += [*seconds, *thirds]


def cache(name: str, level: int, size_and_ways: tuple[int, int], line: int) -> Node:
    properties = {"compatible": b"cache\0", "cache-level": cell(level), "cache-unified": b""}
    return Node(name, properties | described("cache", *size_and_ways, line), [])


def described(prefix: str, size: int, ways: int, line: int) -> dict[str, bytes]:
    return {f"{prefix}-size": cell(size), f"{prefix}-line-size": cell(line), f"{prefix}-sets": cell(size // ways // line)}


def cell(value: int) -> bytes:
    return value.to_bytes(4, "big")
