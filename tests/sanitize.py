"""`make sanitize`: every kernel at the edges of its parameters under the address, undefined behaviour and thread sanitizers.

A program in C (driver.c) runs the kernels, so that no Python is in the process: its memory, threads and signals would be looked at as well.
What a kernel says it cannot do is fine; what it does must be clean. For ThreadSanitizer kernels are portable ones (-DNB_PORTABLE): it cannot see what
inline assembly does, and takes a lock made of it for none. For the others they are both: instruction sets are named in the one, all words are C in the other.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parent / "kernels"
FLAGS = (
    "-std=gnu11",
    "-O1",
    "-g",
    "-pthread",
    "-fno-omit-frame-pointer",
    "-Wno-tsan",
    "-Wno-unknown-warning-option",
)
MEMORY, NATIVE, THREAD = "address,undefined", "address,undefined (native)", "thread"
SANITIZERS = {
    MEMORY: ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DNB_PORTABLE"),
    NATIVE: ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    THREAD: ("-fsanitize=thread", "-DNB_PORTABLE"),
}
UNSUPPORTED, BUILD_S, RUN_S = 3, 600, 60
#: Bytes of the measured memory: parts of a page, pages, what is no multiple of anything, and enough for all kernels.
SIZES = (256, 1000, 4096, 5003, 12_345, 20_480, 65_536, 70_001, 400_003, 1 << 20)
THREADS = (1, 2, 3)  # two CPUs: each thread more waits for whole time slices of the others
OWN_THREADS = {
    "barriers": (1, 2),
    "channels": (2, 2, 2, 3),
    "address_space": (1, 2, 2, 3),
    "contention": (1, 2),
    "core_to_core": (1, 2, 2, 2),
    "fences": (1, 1, 1, 2),
    "fibers": (1, 2),
    "memory_latency": (1, 1, 1, 2),
    "memory_ordering": (1, 2, 2, 4),
    "migration": (1, 2, 2, 3, 3),
    "numa_balancing": (1, 1, 1, 2),
    "page_identity": (1, 1, 1, 2),
    "page_migration": (1, 1, 1, 2),
    "preemption": (1, 2, 2),
    "sentinel": (1, 2),
    "signals": (1, 2, 2),
    "sleeping": (1, 1, 1, 2),
    "transfer": (1, 1, 2, 2),
    "transfer_unit": (1, 2, 2, 2),
    "wake_up": (1, 2, 2, 2),
}
#: Kernels whose threads follow from their first parameter.
THREADS_BY_CHOICE = {"hand_off": (1, 2, 3), "stealing": (1, 2)}
#: Kernels whose threads hand something to and fro all the time: beside another one, each would wait for its partner's CPU.
ALONE = ("barriers", "core_to_core", "memory_ordering", "preemption", "sentinel", "signals", "stealing", "transfer_unit")
#: Kernels that can do nothing on some machines or under some sanitizer, and why: these may refuse all.
NEEDS = {
    "numa_balancing": "two nodes, between which the kernel moves pages",
    "fork_and_write": "a child in which the thread sanitizer has its own thread",
    "system_calls": "a task that the thread sanitizer can tell from the thread that made it",
}
#: Numbers whose most takes long and does nothing else than a thousand does: turns of a loop, seconds.
MOST = {
    "blocking": 1_000_000,
    "idle_gap": 1_000_000,
    "duration": 1_000_000,
    "slack": 1_000_000,
    "spacing": 1000,
    "critical_section": 1000,
    "think_time": 1000,
    "think": 1000,
    "service": 1000,
    "limit_s": 1,
    "longer": 20,
    "passes": 1000,
    "footprint": 100_000,
    "fibers": 100,
}
MOST_RUNS = 40  # of one kernel under one sanitizer, every value of every parameter among them
#: What races on purpose, by functions, with the reason; ThreadSanitizer is told.
RACES = {
    "padded_counters": {
        "store": "with stride 0 all threads write one counter: that is measured",
        "store_spaced": "the same",
        "increment": "the same",
        "increment_spaced": "the same",
        "load": "and may read it meanwhile",
        "load_spaced": "the same",
    },
}


class Parameter(NamedTuple):
    name: str
    initial: int
    least: int
    most: int
    choices: int

    @property
    def edges(self) -> list[int]:
        """All choices; of a number the ends, what lies beside them, and the default."""
        if self.choices:
            return list(range(self.choices))
        most = min(self.most, MOST.get(self.name, self.most))
        beside = {self.least, self.least + 1, self.initial, most - 1, most}
        return sorted(value for value in beside if self.least <= value <= most)


class Run(NamedTuple):
    threads: int
    size: int
    values: tuple[int, ...]

    def words(self) -> list[str]:
        return [str(each) for each in (self.threads, self.size, *self.values)]


def compilers() -> list[str]:
    return [name for name in ("gcc", "clang") if shutil.which(name)]


@functools.cache
def has(compiler: str, sanitizer: str) -> bool:
    """Whether its library is there: some systems have it in a package of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, *FLAGS, *SANITIZERS[sanitizer], "-x", "c", "-", "-o", f"{folder}/try"]
        return not subprocess.run(command, input=b"int main(void) { return 0; }", capture_output=True, check=False).returncode


def build(kernel: str, compiler: str, sanitizer: str, folder: Path, kernels: Path = KERNELS) -> Path:
    """The driver with the kernel linked in. Raises CalledProcessError."""
    program = folder / kernel
    sources = [str(HERE / "driver.c"), str(kernels / f"{kernel}.c")]
    command = [compiler, *FLAGS, *SANITIZERS[sanitizer], f"-I{kernels}", "-o", str(program), *sources]
    subprocess.run(command, check=True, capture_output=True, timeout=BUILD_S)
    return program


def environment(kernel: str, folder: Path) -> dict[str, str]:
    suppressions = folder / f"{kernel}.suppressions"
    suppressions.write_text("".join(f"race:^{function}$\n" for function in RACES.get(kernel, {})))
    return os.environ | {
        "ASAN_OPTIONS": "exitcode=99:detect_leaks=0:allow_user_poisoning=1",
        "UBSAN_OPTIONS": "exitcode=99:print_stacktrace=1",
        "TSAN_OPTIONS": f"exitcode=99:halt_on_error=1:suppressions={suppressions}",
    }


def without_random_addresses() -> list[str]:
    """ThreadSanitizers of some years ago do not start where the kernel chooses addresses from more bits than they know."""
    command = ["setarch", os.uname().machine, "-R"]
    able = shutil.which("setarch") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if able else []


def parameters_of(program: Path, prefix: list[str]) -> list[Parameter]:
    said = subprocess.run([*prefix, str(program)], capture_output=True, text=True, check=True, timeout=RUN_S).stdout
    found = []
    for line in said.splitlines()[1:]:
        name, initial, least, most, choices = line.split(" ", 4)
        found.append(Parameter(name, int(initial), int(least), int(most), 0 if choices == "-" else choices.count("|") + 1))
    return found


def runs_of(kernel: str, parameters: list[Parameter], most: int = MOST_RUNS) -> list[Run]:
    """Every value of every parameter, every size and number of threads; then combinations of them by chance, always the same ones."""
    threads = OWN_THREADS.get(kernel, THREADS)
    initial = tuple(min(p.initial, MOST.get(p.name, p.initial)) for p in parameters)
    rng = random.Random(kernel)

    def some(values: tuple[int, ...]) -> int:
        return THREADS_BY_CHOICE[kernel][values[0]] if kernel in THREADS_BY_CHOICE else rng.choice(threads)

    found = [Run(n, size, initial) for n, size in itertools.product(dict.fromkeys(threads), SIZES)]
    for k, p in enumerate(parameters):
        for value in p.edges:
            values = (*initial[:k], value, *initial[k + 1 :])
            found.append(Run(some(values), SIZES[-1], values))
    while len(found) < most:
        values = tuple(rng.choice(p.edges) for p in parameters)
        found.append(Run(some(values), rng.choice((*SIZES, *[SIZES[-1]] * len(SIZES))), values))
    return list(dict.fromkeys(found))


class Result(NamedTuple):
    """Of one kernel under one sanitizer: runs that were measured, those that the kernel refused, and what was found."""

    kernel: str
    what: str
    measured: int
    refused: int
    findings: list[str]


def look(kernel: str, compiler: str, sanitizer: str, kernels: Path = KERNELS, most: int = MOST_RUNS) -> Result:
    what = f"{compiler} {sanitizer}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            program = build(kernel, compiler, sanitizer, folder, kernels)
        except subprocess.CalledProcessError as error:
            return Result(
                kernel,
                what,
                0,
                0,
                [f"does not compile, exit code {error.returncode}: {error.stderr.decode(errors='replace')[-2000:]}"],
            )
        prefix = without_random_addresses()
        codes, findings = [], []
        for run in runs_of(kernel, parameters_of(program, prefix), most):
            code, said = execute([*prefix, str(program), *run.words()], environment(kernel, folder))
            codes.append(code)
            if code not in (0, UNSUPPORTED):
                findings.append(f"{kernel} {' '.join(run.words())}: {said}")
        return Result(kernel, what, codes.count(0), codes.count(UNSUPPORTED), findings)


def execute(command: list[str], surroundings: dict[str, str]) -> tuple[int | None, str]:
    """The exit code, None for one that did not end, and what says most of what was printed."""
    try:
        done = subprocess.run(command, env=surroundings, capture_output=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no end within {RUN_S} s"
    lines = done.stderr.decode(errors="replace").splitlines()
    start = next((k for k, line in enumerate(lines) if "ERROR" in line or "WARNING" in line or "runtime error" in line), 0)
    return done.returncode, f"exit code {done.returncode}\n    " + "\n    ".join(lines[start : start + 14])


def jobs(kernels: Iterable[str]) -> list[tuple[str, str, str]]:
    """Memory and undefined behaviour by one compiler, threads by all that can."""
    can = {sanitizer: [compiler for compiler in compilers() if has(compiler, sanitizer)] for sanitizer in SANITIZERS}
    return [
        (kernel, compiler, sanitizer)
        for kernel in kernels
        for sanitizer, chosen in ((MEMORY, can[MEMORY][:1]), (NATIVE, can[NATIVE][:1]), (THREAD, can[THREAD]))
        for compiler in chosen
    ]


def main(names: list[str]) -> int:
    before = time.monotonic()
    if not compilers():
        print("neither gcc nor clang is here: sudo apt-get install gcc", file=sys.stderr)
        return 3
    if lacking := [compiler for compiler in compilers() if not has(compiler, THREAD)]:
        print(
            f"left out: the thread sanitizer of {' and '.join(lacking)}, whose library is not here (sudo apt-get install libclang-rt-dev)"
        )
    if {sanitizer for _, _, sanitizer in jobs(["fences"])} < {*SANITIZERS}:
        print("no compiler here has all three sanitizers", file=sys.stderr)
        return 3
    wanted = names or sorted(path.stem for path in KERNELS.glob("*.c") if "NB_DESCRIBE" in path.read_text())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = list(pool.map(lambda job: look(*job), jobs(name for name in wanted if name not in ALONE)))
    results += [look(*job) for job in jobs(name for name in wanted if name in ALONE)]
    for result in results:
        if result.findings or (names and result.measured == 0):
            print(f"{result.kernel}, {result.what}: {len(result.findings)} findings")
            print("\n".join(f"  {finding}" for finding in result.findings[:4]))
    wrong = sum(len(result.findings) for result in results)
    idle = sorted({result.kernel for result in results if not result.measured and not result.findings})
    print(
        f"{len(wanted)} kernels, {len(results)} builds by {' and '.join(compilers())}: {sum(r.measured for r in results)} runs, "
        f"{sum(r.refused for r in results)} refused by the kernel, {wrong} findings, {time.monotonic() - before:.0f} s"
        + (f"; nothing ran of {', '.join(idle)}" if idle else "")
    )
    return 1 if wrong or set(idle) - set(NEEDS) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
