"""fibers: who switches as it says it does is an outcome and no time."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from test_kernels import PROBES, broken_kernel, enter, toolchains

from numabench import kernel as abi
from numabench.benchmarks import Found, discover
from numabench.benchmarks.fibers import LINES, OTHER_CPU, OWN, OWN_FP, SAME_CPU, SWAPCONTEXT, SWITCHES, THREADS, asleep
from numabench.host.topology import read_topology

BENCHMARK = discover()["fibers"]
SIZE = 1 << 20
TOPOLOGY = read_topology()


def measured(kernel: abi.Kernel, switch: str, fibers: int = 2, lines: int = 1):
    """What was found, and what the check says of it."""
    parameters = {"switch": switch, "fibers": fibers, "lines": lines}
    placement = BENCHMARK.place(parameters, TOPOLOGY)
    if placement is None:
        pytest.skip(f"this machine has no {switch}")
    assert placement.size <= SIZE
    cpus = os.sched_getaffinity(0)
    if switch == SAME_CPU:  # where `enter` puts both threads
        os.sched_setaffinity(0, placement.cpus)
    try:
        found = enter(kernel, BENCHMARK.arguments(parameters, PROBES), threads=len(placement.cpus), size=SIZE)
    finally:
        os.sched_setaffinity(0, cpus)
    assert all(t.operations > 0 and t.end_ns > t.begin_ns for t in found.threads)
    assert BENCHMARK.metrics(parameters, found, PROBES)["time"] > 0
    return found, BENCHMARK.check(parameters, found)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("fibers").target)


@pytest.mark.parametrize(
    ("switch", "fibers", "lines"),
    [*itertools.product((OWN, OWN_FP, SWAPCONTEXT), (2, 3, 100), LINES), *((switch, 2, 1) for switch in THREADS)],
)
def test_each_task_has_its_turns_and_finds_what_it_left(kernel, switch, fibers, lines):
    found, wrong = measured(kernel, switch, fibers, lines)
    assert wrong == ""
    if switch in THREADS:
        assert 0 <= asleep(found) <= 1
        assert (found.threads[0].cpu_begin == found.threads[1].cpu_begin) == (switch == SAME_CPU)


@pytest.mark.parametrize(
    ("switch", "file", "right", "wrong", "said"),
    [
        (OWN, "fibers.c", "own->next = fiber_of(c, (i + 1) % count);", "own->next = fiber_of(c, (i + 1) % (count - 1));", "were asked for"),
        (SWAPCONTEXT, "fibers.c", "ring->left = turns;", "ring->left = turns / 2;", "were asked for"),
        (OWN, "fibers.c", "line[k * WORDS]++;", "line[0] += 0;", "in 4 lines counted"),
        (OWN, "nb_fibers.h", "callq *%rdx\\n\\tpopq %rdi", "callq *%rdx\\n\\tpopq %rdi\\n\\txorl %r15d, %r15d", "their registers"),
        (OWN_FP, "nb_fibers.h", "ldmxcsr (%rsp)\\n\\tfldcw 4(%rsp)", "ldmxcsr (%rsp)", "rounding"),
        (OTHER_CPU, "fibers.c", "futex(&p->bed[own].word, FUTEX_WAIT_PRIVATE, 0, &deaf);", "nb_relax();", "woke the other 0 times"),
        (SAME_CPU, "fibers.c", "n -= 2) {\n        p->task[FIRST].turns++;\n        give(p, SECOND);\n        await(p, FIRST);",
         "n -= 2) {\n        p->task[FIRST].turns++, p->task[SECOND].turns++;", "gave its CPU away"),
    ],
)  # fmt: skip
def test_who_only_pretends_is_found_out(tmp_path, switch, file, right, wrong, said):
    if file == "nb_fibers.h" and os.uname().machine != "x86_64":
        pytest.skip("what is broken are instructions of x86-64")
    fibers, lines = (5, 4) if switch not in THREADS else (2, 1)
    assert said in measured(broken_kernel(tmp_path, "fibers", file, right, wrong), switch, fibers, lines)[1]


@pytest.mark.parametrize(("compiler", "emulators"), toolchains())
def test_other_processors_switch_as_exactly(tmp_path, compiler, emulators):
    emulator = next((e for e in emulators if shutil.which(e)), None)
    if shutil.which(compiler[0]) is None or (emulators and emulator is None):
        pytest.skip(f"{compiler[0]} or {' / '.join(emulators)} is missing")
    program, folder = tmp_path / "driver", abi.source_folder()
    sources = [os.path.join(os.path.dirname(__file__), "driver.c"), str(folder / "fibers.c")]
    flags = [flag for flag in abi.FLAGS if flag not in ("-shared", "-fPIC")]
    subprocess.run([*compiler, *flags, "-static", f"-I{folder}", "-o", str(program), *sources], check=True)
    own = "-DNB_PORTABLE" not in compiler and (emulators or os.uname().machine in ("x86_64", "aarch64"))
    for switch in (*((OWN,) if own else ()), SWAPCONTEXT):
        parameters = {"switch": switch, "fibers": 3, "lines": 4}
        words = [str(SWITCHES.index(switch)), "3", "4", "8192"]
        command = [*((emulator,) if emulator else ()), str(program), "1", str(1 << 16), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        executed, _, check, _, _, _, *value = map(int, done.stdout.splitlines()[1].split())
        found = Found([SimpleNamespace(executed=executed, check=check, value=value)])
        assert executed > 0 and BENCHMARK.check(parameters, found) == ""
