"""What a host is (hardware), how it is set up (configuration), and two short keys that say when these are the same.

Nothing that changes by itself is part of a key: no clock rate, load, free memory or uptime. Facts that no file holds
(compiler, libc, Python, page size, brand from CPUID) are read only on the live machine, never beside another root.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec

from .sysfs import Tree
from .topology import Topology, read_topology, to_json_dict

_CPU = "sys/devices/system/cpu"
_MM = "sys/kernel/mm"
_GIB = 1 << 30
_ID_DIGITS = 12  # 48 bits: two of a million machines share an id with a chance of 0.2 %
_PROGRAM_TIMEOUT_S = 10
# Instruction-set and clock features that decide which kernels run or how memory is timed.
_RELEVANT_FLAGS = frozenset((
    "constant_tsc", "nonstop_tsc", "tsc_known_freq", "rdtscp", "ht", "hypervisor", "lm", "la57", "pdpe1gb", "pcid",
    "invpcid", "cx16", "clflush", "clflushopt", "clwb", "clzero", "cldemote", "movdiri", "movdir64b", "waitpkg",
    "erms", "fsrm", "sse2", "avx", "avx2", "avx512f", "rtm", "atomics", "lrcpc", "sve", "sve2", "dcpop", "dcpodp",
    "uscat", "ilrcpc", "mte",
))
# Options of the command line that only say where a system lies: they differ between twins and may name hosts.
_PLACE_OPTIONS = ("BOOT_IMAGE", "root", "rootflags", "resume", "resume_offset", "initrd", "ip", "nfsroot", "console")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`hardware_key` is equal for hosts of one model, `configuration_key` for hosts set up alike."""

    id: str
    alias: str
    hostname: str | None
    brand: str | None
    arch: str | None
    flags: tuple[str, ...]
    hardware_key: str
    hardware: dict
    configuration_key: str
    configuration: dict
    topology: dict
    warnings: tuple[str, ...] = ()


def read_machine(
    root: str = "/", alias: str | None = None, facts: bool = True, topology: Topology | None = None
) -> Machine:
    """Errors as `read_topology`. `facts=False` leaves out what needs another program (py-cpuinfo, the compiler): the
    id and the hardware key stay the same, the configuration key does not."""
    topology = topology or read_topology(root)
    tree = Tree(root)
    processor = read_processor(tree)
    own_brand = brand_of(processor)  # goes into the keys, because py-cpuinfo may fail one day and work another
    brand, flags = own_brand, frozenset(flags_of(processor))
    programs = {}
    if facts and tree.live:
        programs = _read_programs(tree, processor)
        brand, flags = programs.get("brand") or brand, flags or frozenset(programs.get("flags") or ())
    arch = os.uname().machine if tree.live else arch_of(processor)
    hostname = os.uname().nodename if tree.live else tree.read("proc/sys/kernel/hostname") or tree.read("etc/hostname")
    hardware = _read_hardware(topology, processor, own_brand, arch, memory_bytes(tree, topology))
    configuration = _read_configuration(tree, topology, processor, programs.get("compiler"))
    hardware_key = _digest(hardware)
    own = tree.read("etc/machine-id") or tree.read("sys/class/dmi/id/product_uuid")
    if tree.live and not own:
        tree.warn("no machine-id and no product_uuid: the id of this machine is made from its host name")
    return Machine(
        id=_digest([own or hostname, hardware_key]),
        alias=_sanitised(alias or hostname or os.path.basename(os.path.normpath(tree.root))),
        hostname=hostname,
        brand=brand,
        arch=arch,
        flags=tuple(sorted(flags & _RELEVANT_FLAGS)),
        hardware_key=hardware_key,
        hardware=hardware,
        configuration_key=_digest(configuration),
        configuration=configuration,
        topology=to_json_dict(topology),
        warnings=tuple(tree.warnings),
    )


def _digest(value) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:_ID_DIGITS]


def _sanitised(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "machine"


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
    """Model name as /proc/cpuinfo of this architecture spells it."""
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


def memory_bytes(tree: Tree, topology: Topology) -> int | None:
    """Of the whole machine, from proc/meminfo; without that the sum of the nodes."""
    if match := re.search(r"^MemTotal:\s*(\d+)", tree.read("proc/meminfo") or "", re.MULTILINE):
        return int(match[1]) * 1024
    sizes = [node.memory_bytes for node in topology.nodes]
    return None if None in sizes else sum(sizes)


def _read_hardware(
    topology: Topology, processor: dict[str, str], brand: str | None, arch: str | None, memory: int | None
) -> dict:
    """Components of the hardware key. Memory is rounded to GiB, because the kernel's own share of it varies by boots,
    and is that of the machine: the MemTotal of a node grows after boot where the kernel initialises pages lazily."""
    caches = Counter((f"L{each.level} {each.type}", each.size_bytes, each.line_bytes) for each in topology.caches)
    return {
        "arch": arch,
        "brand": brand,
        "family": processor.get("cpu family") or processor.get("family") or processor.get("CPU implementer"),
        "model": processor.get("model") or processor.get("CPU part"),
        "stepping": processor.get("stepping") or processor.get("CPU revision"),
        "packages": len(topology.packages) or None,
        "cores": len(topology.cores) or None,
        "smt": topology.smt,
        "cpus": len(topology.cpus),
        "caches": [
            {"cache": name, "size_bytes": size, "line_bytes": line, "count": count}
            for (name, size, line), count in sorted(caches.items(), key=lambda item: str(item))
        ],
        "nodes": len(topology.nodes) if topology.numa else None,
        "memory_nodes": sum(node.memory_bytes != 0 for node in topology.nodes) if topology.numa else None,
        "memory_gib": None if memory is None else round(memory / _GIB),
    }


def _read_configuration(tree: Tree, topology: Topology, processor: dict[str, str], compiler: str | None) -> dict:
    meminfo = tree.read("proc/meminfo") or ""
    swap = re.search(r"^SwapTotal:\s*(\d+)", meminfo, re.MULTILINE)
    live = tree.live
    return {
        "kernel": tree.read("proc/sys/kernel/osrelease"),
        "command_line": _command_line(tree),
        "microcode": processor.get("microcode"),
        "governor": governors(tree),
        "frequency_driver": tree.read(f"{_CPU}/cpufreq/policy0/scaling_driver"),
        "turbo": turbo(tree),
        "thp_enabled": selected(tree, f"{_MM}/transparent_hugepage/enabled"),
        "thp_defrag": selected(tree, f"{_MM}/transparent_hugepage/defrag"),
        "hugepages": _hugepages(tree),
        "numa_balancing": tree.number("proc/sys/kernel/numa_balancing"),
        "mitigations": mitigations(tree),
        "smt_control": tree.read(f"{_CPU}/smt/control"),
        "hypervisor": hypervisor(tree, processor),
        "nodes_per_package": _nodes_per_package(topology),
        "clocksource": tree.read("sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "swap_bytes": int(swap[1]) * 1024 if swap else None,
        "page_bytes": os.sysconf("SC_PAGE_SIZE") if live else None,
        "compiler": compiler,
        "libc": os.confstr("CS_GNU_LIBC_VERSION") if live and "CS_GNU_LIBC_VERSION" in os.confstr_names else None,
        "python": ".".join(map(str, sys.version_info[:3])) if live else None,
    }


def _command_line(tree: Tree) -> str | None:
    text = tree.read("proc/cmdline")
    if text is None:
        return None
    words = text.partition(" -- ")[0].split()  # after "--" come the arguments of init
    return " ".join(word for word in words if word.partition("=")[0] not in _PLACE_OPTIONS)


def selected(tree: Tree, path: str) -> str | None:
    """The word in brackets of `always [madvise] never`."""
    match = re.search(r"\[(\S+)\]", tree.read(path) or "")
    return match[1] if match else None


def governors(tree: Tree) -> str | None:
    """`performance`, or several joined by a comma when CPUs differ; None without frequency scaling."""
    policies = tree.numbered(f"{_CPU}/cpufreq", "policy").values()
    paths = [*policies] or [f"{path}/cpufreq" for path in tree.numbered(_CPU, "cpu").values()]
    found = {tree.read(f"{path}/scaling_governor") for path in paths} - {None}
    return ",".join(sorted(found)) or None


def turbo(tree: Tree) -> bool | None:
    """Whether the clock may rise above its nominal rate; None when the kernel does not say."""
    no_turbo = tree.number(f"{_CPU}/intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == 0
    boost = tree.number(f"{_CPU}/cpufreq/boost")
    return None if boost is None else boost == 1


def mitigations(tree: Tree) -> dict[str, str]:
    """{vulnerability: state} of those that affect this CPU."""
    path = f"{_CPU}/vulnerabilities"
    states = {name: tree.read(f"{path}/{name}") for name in tree.names(path)}
    return {name: state for name, state in states.items() if state and state != "Not affected"}


def hypervisor(tree: Tree, processor: dict[str, str]) -> str | None:
    """Name of the hypervisor, "unnamed" when only the CPU flag tells, "none" on bare x86, None when nothing tells."""
    if kind := tree.read("sys/hypervisor/type"):
        return kind
    flags = flags_of(processor)
    sources = (tree.read("sys/devices/system/clocksource/clocksource0/available_clocksource") or "",
               tree.read("sys/class/dmi/id/sys_vendor") or "", tree.read("sys/class/dmi/id/product_name") or "")
    text = " ".join((*sources, brand_of(processor) or "")).lower()
    names = (("kvm", "kvm"), ("vmware", "vmware"), ("hyperv", "hyperv"), ("virtualbox", "virtualbox"),
             ("bochs", "qemu"), ("qemu", "qemu"), ("amazon ec2", "nitro"), ("google", "google"))
    if "hypervisor" in flags:
        return next((name for sign, name in names if sign in text), "unnamed")
    if "vcpu" in text or "qemu" in text:
        return "qemu"
    return "none" if flags and arch_of(processor) == "x86_64" else None


def _hugepages(tree: Tree) -> dict[str, int]:
    """{bytes of a page: pages reserved}."""
    path = f"{_MM}/hugepages"
    sizes = [match for name in tree.names(path) if (match := re.fullmatch(r"hugepages-(\d+)kB", name))]
    counts = {str(int(size[1]) * 1024): tree.number(f"{path}/{size[0]}/nr_hugepages") for size in sizes}
    return {size: count for size, count in counts.items() if count is not None}


def _nodes_per_package(topology: Topology) -> int | None:
    """NPS (AMD) or SNC (Intel) mode: the most nodes with CPUs that one package holds."""
    if not topology.numa or not topology.packages:
        return None
    return max(len({topology.node_of(cpu) for cpu in package.cpus} - {None}) for package in topology.packages)


def _read_programs(tree: Tree, processor: dict[str, str]) -> dict:
    """{brand, flags, compiler} from programs that take up to a second, kept in the user's cache directory.

    The cache is valid for one kind of processor and one compiler binary; a cache that cannot be written is a warning.
    """
    volatile = ("cpu MHz", "bogomips", "BogoMIPS", "processor")
    compiler = compiler_path()
    stamp = [compiler, os.stat(compiler).st_mtime_ns if compiler else None]
    stable = {key: value for key, value in processor.items() if key not in volatile}
    path = _cache_directory() / f"cpuinfo-{_digest([stable, os.uname().machine])}.json"
    known = _read_cache(tree, path)
    if known.get("compiler_stamp") == stamp and "brand" in known:
        return known
    cpu = {key: known[key] for key in ("brand", "flags") if key in known} or _ask_cpuinfo(tree)
    facts = {**cpu, "compiler": _ask_compiler(tree, compiler), "compiler_stamp": stamp}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_bytes(msgspec.json.encode(facts))
        partial.replace(path)
    except OSError as error:
        tree.warn(f"cannot keep processor facts in {path}: {error.strerror}")
    return facts


def _cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "numabench"


def _read_cache(tree: Tree, path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict)
    except (OSError, msgspec.DecodeError) as error:
        tree.warn(f"cannot use {path}: {error}")
        return {}


def _ask_cpuinfo(tree: Tree) -> dict:
    """Brand and flags from py-cpuinfo, which runs CPUID itself; nothing (and a warning) when it fails."""
    try:
        import cpuinfo

        info = cpuinfo.get_cpu_info()
    except Exception as error:  # py-cpuinfo raises bare Exception for any architecture or output it does not know
        tree.warn(f"py-cpuinfo failed ({error}): brand and flags are those of /proc/cpuinfo")
        return {}
    return {"brand": info.get("brand_raw") or None, "flags": info.get("flags") or []}


def compiler_path() -> str | None:
    """The program that $CC names (without its arguments), else cc, gcc or clang."""
    words = os.environ.get("CC", "").split()[:1]
    return next((path for name in (*words, "cc", "gcc", "clang") if (path := shutil.which(name))), None)


def _ask_compiler(tree: Tree, compiler: str | None) -> str | None:
    if compiler is None:
        return None
    try:
        done = subprocess.run(
            [compiler, "--version"], capture_output=True, text=True, timeout=_PROGRAM_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        tree.warn(f"{compiler} --version failed: {error}")
        return None
    return next(iter(done.stdout.splitlines()), None)
