"""The crew in C: who is called, who is left alone, what comes back. No test looks at a duration."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from numabench import kernel as abi
from numabench.errors import MachineError
from numabench.measure.crew import SENTINELS, Crew, Step, load

CPUS = sorted(os.sched_getaffinity(0))
HERE = Path(__file__).parent
HEAD = """
#include "nb.h"
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static const struct nb_parameter parameters[] = {{"x", NULL, "any", 0, 0, 1 << 20}};
static const struct nb_metric metrics[] = {{"time", "ns", "none", NB_LOWER_IS_BETTER}};
NB_DESCRIBE("probe", 1, "for tests", parameters, metrics);
"""
#: Counts its entries, meets the others at a gate, touches as many fresh pages as its index, and cannot do what parameter 0 numbers.
PROBE = """
int nb_run(struct nb_thread *t)
{
    uint8_t *pages = mmap(NULL, 512 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(pages, 512 * 4096, MADV_NOHUGEPAGE);
    for (uint32_t i = 0; i < t->index; i++)
        pages[i * 4096] = 1;
    munmap(pages, 512 * 4096);
    t->value[0] = nb_gate(t);
    t->begin_ns = nb_now();
    t->value[1] = (uint64_t)gettid();
    t->cpu_begin = sched_getcpu();
    t->check++;
    return t->shared->parameter[0] == (int64_t)t->index + 1 && t->check == 2 ? NB_UNSUPPORTED : NB_OK;
}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> abi.Kernel:
    folder = tmp_path_factory.mktemp("probe") / "kernels"
    shutil.copytree(abi.source_folder(), folder)
    (folder / "probe.c").write_text(HEAD + PROBE)
    return abi.Kernel(abi.build("probe", folder=folder).target)


@pytest.fixture
def crew_of():
    crews = []

    def make(cpus: list[int], groups: tuple[int, ...] | None = None) -> Crew:
        crews.append(Crew(len(cpus)))
        crews[-1].place(tuple(cpus), groups or tuple(range(len(cpus))))
        return crews[-1]

    yield make
    for crew in crews:
        crew.close()
    os.sched_setaffinity(0, CPUS)


def cycled(threads: int) -> list[int]:
    return [CPUS[i % len(CPUS)] for i in range(threads)]


@pytest.mark.parametrize("threads", [1, 2, 3, 9, 10, 73, 74, 200])
def test_all_enter_once_each_where_it_was_put(probe, crew_of, threads):
    cpus = cycled(threads)
    crew = crew_of(cpus)
    crew.case.phase = abi.MEASURE
    (found,) = crew.follow([Step(probe, crew.case, range(threads))])
    assert [one.thread.index for one in found] == [one.thread.group for one in found] == list(range(threads))
    assert [one.thread.check for one in found] == [1] * threads == [block.check for block in crew.blocks]
    assert [one.thread.cpu_begin for one in found] == cpus and len({one.thread.value[1] for one in found}) == threads
    assert found[0].thread.value[1] == threading.get_native_id(), "the caller is member 0"
    assert len({one.thread.value[0] for one in found}) == 1, "one time is named for all"
    assert all(one.thread.begin_ns >= one.thread.value[0] for one in found), "a begin is the thread's own clock"
    assert all(one.faults >= one.thread.index for one in found)


def test_steps_follow_each_other_and_the_sentinels_block_is_another(probe, crew_of):
    crew = crew_of(cycled(20))
    apart = sorted({cpu: member for member, cpu in reversed(list(enumerate(cycled(20))))}.values())
    other = crew.cases[1]
    steps = [Step(probe, other, apart, SENTINELS), *[Step(probe, crew.case, range(20)), Step(probe, other, apart, SENTINELS)] * 3]
    found = crew.follow(steps)
    assert [[one.thread.check for one in each] for each in found] == [
        [1] * len(apart), [1] * 20, [2] * len(apart), [2] * 20, [3] * len(apart), [3] * 20, [4] * len(apart),
    ]  # fmt: skip
    ids = [one.thread.value[1] for one in found[1]]
    assert [one.thread.value[1] for one in found[0]] == [ids[member] for member in apart], "some of them are the same threads"
    assert crew.case.crowded == (len(CPUS) < 20)


@pytest.mark.parametrize("who", [0, 1, 13])
def test_steps_end_where_one_thread_cannot(probe, crew_of, who):
    crew = crew_of(cycled(14))
    crew.case.parameter[0] = who + 1
    found = crew.follow([Step(probe, crew.case, range(14))] * 4)
    assert [[one.status for one in each].count(abi.UNSUPPORTED) for each in found] == [0, 1]
    assert found[1][who].status == abi.UNSUPPORTED
    again = crew.follow([Step(probe, crew.case, range(14))] * 2)
    assert [{one.status for one in each} for each in again] == [{abi.OK}] * 2, "nothing of it is left"


@pytest.mark.parametrize("members", [[0], [0, 5], [0, 3, 4, 9], [0, 7, 2]])
def test_others_are_not_called(probe, crew_of, members):
    crew = crew_of(cycled(10))
    crew.follow([Step(probe, crew.case, members)] * 5)
    assert [member for member in range(10) if crew.blocks[member].check] == sorted(members)
    assert all(crew.blocks[member].check == 5 for member in members)


def test_cpus_that_cannot_be_pinned_are_told_one_by_one(probe, crew_of):
    crew = crew_of(cycled(6))
    cpus = cycled(6)
    cpus[2], cpus[5] = 4094, 4095
    for _ in range(2):  # not taken for done the second time
        with pytest.raises(MachineError, match="cannot run on CPU 4094: Invalid argument"):
            crew.place(tuple(cpus), (0,) * 6)
        assert crew.lost == {4094, 4095}
    crew.place(tuple(cycled(6)), (0,) * 6)
    assert not crew.lost
    (found,) = crew.follow([Step(probe, crew.case, range(6))])
    assert [one.thread.cpu_begin for one in found] == cycled(6)


def test_sets_of_cpus_are_as_large_as_the_number_asks_for(tmp_path):
    """The fixed set of the C library ends at 1,023."""
    program = tmp_path / "cpu_set"
    subprocess.run(
        ["cc", "-std=gnu11", f"-I{abi.source_folder()}", str(HERE / "cpu_set.c"), "-o", str(program), "-pthread"], check=True
    )
    cpus = [0, 63, 64, 1023, 1024, 4099]
    told = subprocess.run([program, *map(str, cpus)], capture_output=True, text=True, check=True).stdout
    assert [line.split()[2:] for line in told.splitlines()] == [[str(cpu)] for cpu in cpus]
    assert [int(line.split()[1]) for line in told.splitlines()] == [(cpu // 64 + 1) * 8 for cpu in cpus]


def test_threads_end_and_new_ones_can_be_made(probe, crew_of):
    def running() -> int:
        return len(os.listdir("/proc/self/task"))

    before = running()
    crew = crew_of(cycled(300))
    assert running() == before + 299
    crew.follow([Step(probe, crew.case, range(300))])
    crew.close()
    assert running() == before
    crew.close()
    del crew


def test_too_few_threads_say_what_to_raise():
    code = (
        "import resource, os\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\n"  # of addresses: root has no limit on processes
        "from numabench.measure.crew import Crew\nfrom numabench.errors import MachineError\n"
        "try: Crew(2000)\nexcept MachineError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot create 2000 threads, only" in done.stdout and "ulimit -u" in done.stdout


def test_signals_are_the_callers(crew_of):
    """Were they a member's, it would stop in the middle of a window."""
    crew_of(cycled(4))
    for task in os.listdir("/proc/self/task"):
        if int(task) != threading.get_native_id():
            status = Path(f"/proc/self/task/{task}/status").read_text()
            blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
            if "python" in status.splitlines()[0] and blocked:
                assert blocked >> (signal.SIGINT - 1) & 1 and blocked >> (signal.SIGTERM - 1) & 1
                return
    pytest.fail("no thread of the crew was found")


def test_another_layout_is_refused(tmp_path):
    folder = shutil.copytree(abi.source_folder(), tmp_path / "kernels")
    text = (folder / "crew.c").read_text()
    (folder / "crew.c").write_text(text.replace("uint32_t pad;\n};", "uint32_t pad, more, most;\n};", 1))
    with pytest.raises(MachineError, match="layout.*compiles it anew"):
        load(abi.build("crew", folder=folder).target)
    (folder / "crew.c").write_text("int nothing;\n")
    with pytest.raises(MachineError, match="cannot load .*nb_crew_layout"):
        load(abi.build("crew", folder=folder).target)


def test_a_gate_names_a_time_that_grows_with_the_threads(tmp_path):
    """By a clock that stands still while the last one arrives."""
    source = tmp_path / "gate.c"
    source.write_text(
        "#define NB_CLOCK still\n#include <stdint.h>\nstatic uint64_t now;\nuint64_t still(void) { return now += 1000000; }\n"
        '#include "nb.h"\n#include <stdio.h>\n'
        "int main(void) { for (uint32_t n = 1; n <= 1024; n *= 4) { static struct nb_case c; struct nb_thread t = {.shared = &c};\n"
        "c = (struct nb_case){.threads = n, .arrived = n - 1}; now = 0; printf(\"%d \", (int)(nb_gate(&t) - 1000000)); } }\n"
    )  # fmt: skip
    subprocess.run(["cc", "-std=gnu11", f"-I{abi.source_folder()}", str(source), "-o", str(tmp_path / "gate")], check=True)
    told = subprocess.run([tmp_path / "gate"], capture_output=True, text=True, check=True).stdout.split()
    assert list(map(int, told)) == [5000 + 50 * n for n in (1, 4, 16, 64, 256, 1024)]


def test_a_member_finds_settings_of_its_own_step(probe, crew_of):
    crew = crew_of(cycled(2))
    crew.case.threads, crew.case.arrived = 99, 7
    ctypes.memset(ctypes.addressof(crew.case.opens), 1, ctypes.sizeof(crew.case.opens))
    entries = crew.enter(probe, abi.MEASURE, [0, 1])
    assert [e.status for e in entries] == [abi.OK] * 2 and crew.case.threads == 2
