"""What numabench is asked to do on a machine for the certificate, and what it brings back."""

from __future__ import annotations

import compileall
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from numabench.benchmarks.padded_counters import PADDED
from numabench.extras import REPORT
from numabench.host.objects import PARCEL

from .defects import CHECKOUT
from .errors import GuestError, SimulationError
from .expected import relation
from .guest import Result, patience, run
from .kernels_aarch64 import arm_parcel
from .machine import ARM, X86, Machine
from .packages import folder

STRIDES = (8, 32, 64, 128, 256, 512, PADDED)
COMPARED_STRIDES = (8, PADDED)  # shared and apart; those between are for the knee
#: Small windows and few processes, since virtual time passes slowly; the method is the one of every run. Contrasts need six
#: processes. Spacing 400: the work between two accesses takes longer than a line from any core to any other.
SETTINGS = {
    "node_latency": {"size": "8M", "page_size": "thp"},  # four times the largest cache of the machines shipped, and more
    "padded_counters": {
        "operation": "atomic_add",
        "spacing": "400",
        "threads": "2",
        "readers": "0",
        "offset": "0",
    },
    "contention": {"primitive": "atomic_add", "critical_section": "0", "threads": "2", "read_share": "0"},
}
BENCHMARKS = tuple(SETTINGS)
PROCESSES = 6
OPTIONS = ("--window", "1ms", "--samples", "2", "--budget", "20m")
#: A run of its own: one process, of few CPUs, since many that spin take long, and `operation` is also a parameter of the counters. Of single operations
#: only those on modified lines: flushes, by which the other states are prepared, are not modelled.
CORES = (
    *("run", "core_to_core", "single_operations", "--set", "operation=cas,load,add", "--set", "state=modified"),
    *("--window", "1ms", "--budget", "20m", "--processes", "1"),
)
KERNELS = ("memory_latency", "padded_counters", "contention", "core_to_core", "single_operations", "sentinel", "crew")
LINES = (64, 128, 256)  # bytes for which they are compiled: what numabench finds on the machines that come with the testbed
TIMEOUT = 900.0
MOST_ROWS = 8  # nodes with CPUs whose latencies are measured: of more the first, the middle and the last
#: numabench in a guest, as `pip install numabench` gives it: what reads logs is not imported, which takes half a minute there and measures nothing,
#: nor is py-cpuinfo, which asks an emulated processor for ten seconds. The logs are read here. A process may be silent for long: its processors wait for this machine's.
SILENT = 600.0  # s
CALL = (
    f"import sys; sys.modules.update(dict.fromkeys({(*REPORT, 'cpuinfo')!r})); "
    f"from numabench.measure import runner; runner.TIMEOUT_LEAST = {SILENT}; from numabench.cli import main; main()"
)
NUMABENCH = shlex.join([sys.executable, "-c", CALL])
ARM_NUMABENCH = shlex.join(["/usr/bin/python3", "-c", CALL])  # the guest's own
SLOWER = 1.1  # what the comparison has to find


@dataclass(frozen=True)
class Visit:
    """One boot of one machine. `log` is the run log, `topology` what `numabench machine --format json` printed, `cores` the log of
    what few CPUs are to each other, `alone` those of single CPUs whose memory is another one than their node's; all but the first only
    of a boot that looked at the machine."""

    machine: Machine
    log: Path
    topology: Path
    cores: Path
    alone: dict[int, Path]
    boot: float
    seconds: float


def slower_machine(machine: Machine) -> tuple[Machine, tuple[int, int]]:
    """The same machine with its longest memory latency 10 % longer, under another name; and which one that is."""
    memory = [list(row) for row in machine.timing.memory]
    cells = [(c, m) for c in machine.cpu_nodes for m in machine.memory_nodes]
    c, m = max(cells, key=lambda cell: (memory[cell[0]][cell[1]], cell))
    memory[c][m] *= SLOWER
    timing = replace(machine.timing, memory=tuple(map(tuple, memory)))
    return replace(machine, name=f"{machine.name}-slower", timing=timing), (c, m)


def numabench_command(
    benchmarks: tuple[str, ...] = BENCHMARKS, processes: int = PROCESSES, strides: tuple[int, ...] = STRIDES
) -> list[str]:
    """The run, as a user would type it."""
    values = {name: value for benchmark in benchmarks for name, value in SETTINGS[benchmark].items()}
    if "padded_counters" in benchmarks:
        values["stride"] = ",".join(map(str, strides))
    settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    return ["run", *benchmarks, *settings, *OPTIONS, "--processes", str(processes)]


def measured_rows(machine: Machine) -> tuple[int, ...]:
    """The nodes with CPUs whose latencies are measured."""
    nodes = machine.cpu_nodes
    return nodes if len(nodes) <= MOST_ROWS else (nodes[0], nodes[len(nodes) // 2], nodes[-1])


def core_cpus(machine: Machine) -> list[int]:
    """The first CPU, and the first one of each other relation to it."""
    nearest: dict[str, int] = {}
    for cpu in range(1, len(machine.node_of)):
        nearest.setdefault(relation(machine, 0, cpu), cpu)
    return [0, *nearest.values()]


def visit(
    machine: Machine, shared: Path, tree: Path = CHECKOUT, look: bool = True, words: list[str] | None = None, more: str = ""
) -> Visit:
    """Boot `machine`, let numabench of `tree` measure it (and `look` at it before), leave everything in `shared`.

    `words`: another run than that of the certificate. `more`: lines for the guest's shell after it.
    """
    shutil.rmtree(shared, ignore_errors=True)
    cpus = ",".join(map(str, core_cpus(machine)))
    words = words or numabench_command()
    if measured_rows(machine) != machine.cpu_nodes:
        words = [*words, "--set", f"cpu_node={','.join(map(str, measured_rows(machine)))}"]
    alone = {cpu: f"cpu{cpu}" for cpu, _ in machine.timing.cpu_memory} if look else {}
    lines = [
        *(
            [
                f"{numabench_on(machine)} machine --format json > /out/machine.json",
                measuring(machine, [*CORES, "--cpus", cpus], "cores"),
                *(
                    measuring(machine, [*numabench_command(("node_latency",), processes=1), "--cpus", str(cpu)], name)
                    for cpu, name in alone.items()
                ),
            ]
            if look
            else []
        ),
        measuring(machine, words, "results"),
    ]
    script = guest_script(tree, *(f"{line} || exit" for line in lines), more, arch=machine.arch)
    found = run(machine, script, shared=shared, timeout=TIMEOUT * patience(machine))
    return Visit(
        machine=machine,
        log=logs_of(found, machine, ["results"])["results"],
        topology=shared / "machine.json",
        cores=shared / "cores",
        alone={cpu: shared / name for cpu, name in alone.items()},
        boot=found.boot,
        seconds=found.seconds,
    )


def measure(
    machine: Machine,
    runs: dict[str, Sequence[str]],
    shared: Path,
    tree: Path,
    kernels: tuple[str, ...],
    *,
    line_sizes: tuple[int, ...] = LINES,
    timeout: float = TIMEOUT,
    any_status: bool = False,
) -> tuple[Result, dict[str, Path]]:
    """One boot of `machine` in which numabench of `tree` is run with the words of each of `runs`, one after the other; and the log of each by its name."""
    shutil.rmtree(shared, ignore_errors=True)
    lines = [f"{measuring(machine, words, name)} || exit" for name, words in runs.items()]
    found = run(machine, guest_script(tree, *lines, kernels=kernels, line_sizes=line_sizes), shared=shared, timeout=timeout)
    return found, logs_of(found, machine, runs, any_status)


def logs_of(found: Result, machine: Machine, names: Iterable[str], any_status: bool = False) -> dict[str, Path]:
    """The newest log in each of these folders of the shared one. GuestError, with numabench's last words, where one is missing or, unless `any_status`, the command failed."""
    logs = {name: sorted(found.shared.glob(f"{name}/*/*.jsonl"))[-1:] for name in names}
    if (found.status and not any_status) or not all(logs.values()):
        said = (found.stderr.strip() or found.stdout.strip() or "nothing").splitlines()[-1]
        raise GuestError(
            f"numabench ended with exit code {found.status} on {machine.name}: {said}",
            "look at the console",
            found.console[-2000:],
        )
    return {name: path for name, (path,) in logs.items()}


def numabench_on(machine: Machine) -> str:
    return ARM_NUMABENCH if machine.arch == ARM else NUMABENCH


def measuring(machine: Machine, words: Sequence[str], folder: str) -> str:
    """The line for the guest's shell that runs numabench with `words` and leaves its log in `folder` of the shared one."""
    return f"{numabench_on(machine)} {shlex.join([*words, '--alias', machine.name, '--output', f'/out/{folder}', '--quiet'])}"


def guest_script(
    tree: Path, *lines: str, kernels: tuple[str, ...] = KERNELS, line_sizes: tuple[int, ...] = LINES, arch: str = X86
) -> str:
    """Lines for the guest's shell, with numabench of `tree` and its compiled kernels at hand."""
    if arch == ARM:
        parcel = arm_parcel(tree, kernels, line_sizes)
        cache, lines = parcel.parent.parent.parent, (f"export {PARCEL}={parcel.stem}", *lines)
    else:
        cache = compiled(tree, kernels, line_sizes)
    return "\n".join(
        (
            f"export PYTHONPATH={shlex.quote(str(tree))} XDG_CACHE_HOME=/run/cache COLUMNS=120",
            f"mkdir -p /run/cache && cp -r {shlex.quote(str(cache))}/numabench /run/cache/ && chmod -R go-rwx /run/cache",
            "cd /out",
            *lines,
        )
    )


def compiled(tree: Path, kernels: tuple[str, ...], line_sizes: tuple[int, ...]) -> Path:
    """The cache with `kernels` of `tree`, compiled here, as its modules are: the guest's processor is emulated, and would take minutes.

    The guest has the same compiler, the same Python and the same files, so that numabench finds what it would have made."""
    cache = folder() / "kernels"
    code = (
        f"from numabench import kernel\nkernel.build('transfer_unit')\n"
        f"for name in {kernels!r}:\n    for line in {line_sizes!r}: kernel.build(name, line_bytes=line)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(tree)}
    cache.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=cache, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SimulationError(
            f"the kernels of {tree} do not compile: {done.stderr.strip().splitlines()[-1]}", "make bench PROFILE=quick"
        )
    compileall.compile_dir(tree / "numabench", quiet=2)
    return cache
