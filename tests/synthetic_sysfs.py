"""Made-up /sys and /proc trees: regular machines from a few numbers, and odd ones by overwriting single files."""

from __future__ import annotations

from pathlib import Path

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"
GIB_KB = 1 << 20


def as_list(cpus) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))


def as_mask(cpus) -> str:
    value = sum(1 << cpu for cpu in cpus)
    groups = []
    while value or not groups:
        groups.append(f"{value & 0xFFFFFFFF:08x}")
        value >>= 32
    return ",".join(reversed(groups))


class SyntheticTree:
    """A tree under `root`; `write` and `remove` make it odd. CPU numbers run over all cores, then over siblings."""

    def __init__(
        self,
        root: Path,
        packages=1,
        nodes=1,
        l3s=1,
        cores=2,
        smt=1,
        numbers=None,
        offline=(),
        l2_cores=1,
        node_ids=None,
        memory_gib=4,
        distance=None,
    ):
        """`nodes` per package, `l3s` per node, `cores` per L3, `l2_cores` per L2; `numbers` maps CPU numbers."""
        self.root = root
        self.offline = frozenset(offline)
        total = packages * nodes * l3s * cores
        numbers = list(range(total * smt)) if numbers is None else list(numbers)
        self.cores = [[numbers[thread * total + core] for thread in range(smt)] for core in range(total)]
        self.cpus = sorted(cpu for core in self.cores for cpu in core)
        self.l2 = self._joined(self.cores, l2_cores)
        self.l3 = self._joined(self.cores, cores)
        self.nodes = self._joined(self.l3, l3s)
        self.packages = self._joined(self.nodes, nodes)
        self.node_ids = list(range(len(self.nodes))) if node_ids is None else list(node_ids)
        self._write_cpus()
        self._write_nodes(memory_gib, distance or (lambda a, b: 10 if a == b else 21))
        self.write(
            "proc/cpuinfo",
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\n"
            "model name\t: Synthetic CPU @ 2.00GHz\nstepping\t: 4\nmicrocode\t: 0x2006e05\n"
            "flags\t\t: lm ht avx2 constant_tsc\n\nprocessor\t: 1\n",
        )
        self.write(
            "proc/meminfo",
            f"MemTotal: {memory_gib * GIB_KB * len(self.nodes)} kB\nMemAvailable: 99999999 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
        )

    @staticmethod
    def _joined(sets, count):
        return [[cpu for part in sets[at : at + count] for cpu in part] for at in range(0, len(sets), count)]

    def write(self, path: str, text) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")

    def remove(self, pattern: str) -> None:
        found = list(self.root.glob(pattern))
        assert found, f"nothing to remove at {pattern}"
        for path in found:
            path.unlink()

    def _set(self, path: str, name: str, cpus, list_name: str | None = None) -> None:
        online = set(cpus) - self.offline
        self.write(f"{path}/{name}", as_mask(online))
        self.write(f"{path}/{list_name or name + '_list'}", as_list(online))

    def _write_cpus(self) -> None:
        online = set(self.cpus) - self.offline
        self.write(f"{CPU}/online", as_list(online))
        self.write(f"{CPU}/present", as_list(self.cpus))
        self.write(f"{CPU}/possible", f"0-{max(self.cpus) + 64}")
        self.write(f"{CPU}/isolated", "")
        self.write(f"{CPU}/nohz_full", "(null)")
        for cpu in self.cpus:
            path = f"{CPU}/cpu{cpu}"
            self.write(f"{path}/online", int(cpu in online))
            if cpu in online:
                self._write_cpu(path, cpu)

    def _write_cpu(self, path: str, cpu: int) -> None:
        def own(sets):
            return next(each for each in sets if cpu in each)

        self.write(f"{path}/topology/physical_package_id", self.packages.index(own(self.packages)))
        self.write(f"{path}/topology/core_id", 0)  # as on Magny-Cours: worthless as a key
        self._set(f"{path}/topology", "core_cpus", own(self.cores))
        self._set(f"{path}/topology", "thread_siblings", own(self.cores))
        for index, (level, kind, size, line, sets) in enumerate(
            (
                (1, "Data", "32K", 64, self.cores),
                (1, "Instruction", "32K", 64, self.cores),
                (2, "Unified", "1024K", 64, self.l2),
                (3, "Unified", "16M", 128, self.l3),
            )
        ):
            cache = f"{path}/cache/index{index}"
            for name, value in (("level", level), ("type", kind), ("size", size), ("coherency_line_size", line)):
                self.write(f"{cache}/{name}", value)
            self._set(cache, "shared_cpu_map", own(sets), "shared_cpu_list")

    def _write_nodes(self, memory_gib: int, distance) -> None:
        for node, cpus in zip(self.node_ids, self.nodes, strict=True):
            self.add_node(node, cpus, memory_gib)
        self.write_distances(distance)

    def add_node(self, node: int, cpus=(), memory_gib: int | None = 4) -> None:
        path = f"{NODE}/node{node}"
        self._set(path, "cpumap", cpus, "cpulist")
        if memory_gib is not None:
            self.write(f"{path}/meminfo", f"\nNode {node} MemTotal:  {memory_gib * GIB_KB} kB")
        if node not in self.node_ids:
            self.node_ids = sorted([*self.node_ids, node])

    def write_distances(self, distance) -> None:
        self.write(f"{NODE}/online", as_list(self.node_ids))
        for node in self.node_ids:
            self.write(f"{NODE}/node{node}/distance", " ".join(str(distance(node, to)) for to in self.node_ids))
