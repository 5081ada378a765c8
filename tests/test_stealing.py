"""stealing: each task is taken once, whoever wants it; and a deque that only pretends is found out by what its tasks add up to, or by going through every order of accesses."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import pytest
from test_kernels import PROBES, broken_kernel, enter, native

from numabench import kernel as abi
from numabench.benchmarks import Probes, discover
from numabench.benchmarks.stealing import ACTIONS, BYTES, DEQUES, LATE, LINES, POP, RACED, SLOTS, STEAL, WON

BENCHMARK = discover()["stealing"]
SIZE = BYTES + DEQUES * SLOTS * max(LINES) * 320
#: Tasks that are there, pushes and pops of the owner, steals of the thief.
PLAYS = {"the last task": (1, 0, 1, 1), "two tasks": (2, 0, 1, 2), "a new task": (0, 1, 1, 1), "all of them": (2, 0, 2, 1)}

two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")


def measured(kernel: abi.Kernel, action: str, lines: int = 1, samples: int = 2):
    """What was found, and what the check says of it."""
    parameters = {"action": action, "lines": lines, "placement": "any"}
    found = enter(kernel, BENCHMARK.arguments(parameters, PROBES), threads=1 + (action == STEAL), size=SIZE, samples=samples)
    metrics = BENCHMARK.metrics(parameters, found, PROBES)
    assert metrics["take"] > 0 and ("line" in metrics) == (lines > 0)
    return found, BENCHMARK.check(parameters, found)


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("stealing").target)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("lines", LINES)
def test_each_task_is_taken_once_with_its_lines(kernel, action, lines):
    found, wrong = measured(kernel, action, lines)
    assert wrong == ""
    assert found.threads[-1].operations > 0


def test_in_the_race_each_task_is_one_of_the_two_s(kernel):
    owner, thief = measured(kernel, STEAL)[0].threads
    assert owner.value[RACED] == owner.value[WON] + thief.value[WON] == 2 * 1500
    assert thief.value[LATE] <= 2 * 1500 - thief.value[WON]


def test_a_steal_is_told_in_hops(kernel):
    p = {"action": STEAL, "lines": 0, "placement": "any"}
    found = measured(kernel, STEAL, 0)[0]
    metrics = BENCHMARK.metrics(p, found, Probes(frequency=3e9, hop=50e-9))
    assert metrics["hops"] == pytest.approx(metrics["take"] / 50)


@pytest.mark.parametrize(
    ("action", "file", "right", "wrong", "said"),
    [
        (POP, "nb_deque.h", "nb_store_relaxed(&d->bottom, bottom);\\n    nb_full", "nb_full", "add up to"),
        (STEAL, "nb_deque.h", "nb_cas(&d->top, &top, top + 1) ? task", "d->top == top ? task", "add up to"),
        (STEAL, "nb_deque.h", "d->task[top % NB_DEQUE_PLACES]", "d->task[(bottom - 1) % NB_DEQUE_PLACES]", "add up to"),
        (STEAL, "stealing.c", "update(c, p, tasks[i], last)", "update(c, p, tasks[0], last)", "the lines of all"),
        (
            STEAL,
            "stealing.c",
            "last = update(c, p, tasks[i], last)",
            "last = i ? update(c, p, tasks[i], last) : 0",
            "the lines of all",
        ),
    ],
)
def test_who_only_pretends_is_found_out(tmp_path, action, file, right, wrong, said):
    """A pop that leaves the task where it is, steals that leave it or take the newest, lines that are not touched."""
    broken = broken_kernel(tmp_path, "stealing", file, right.replace("\\n", "\n"), wrong)
    assert said in measured(broken, action)[1]


@two_cpus
def test_an_owner_who_takes_the_last_task_unasked_loses_the_race_s_count(tmp_path):
    broken = broken_kernel(
        tmp_path,
        "stealing",
        "nb_deque.h",
        "if (left == 0 && !nb_cas(&d->top, &top, top + 1))",
        "if (left == 0 && nb_cas(&d->top, &top, top + 1) > 1)",
    )
    # on a busy machine the two may not have met in one entry
    assert any("in the race" in measured(broken, STEAL)[1] for _ in range(100))


def orders(library: ctypes.CDLL, play: str) -> tuple[int, int]:
    """How many there are, and how many of them take a task twice or lose one."""
    found = (ctypes.c_uint64 * 2)()
    library.explore(*PLAYS[play], found)
    return found[0], found[1]


@pytest.fixture(scope="module")
def deque(tmp_path_factory) -> ctypes.CDLL:
    return native("deque.c", tmp_path_factory.mktemp("deque"))


@pytest.mark.parametrize("play", PLAYS)
def test_no_order_of_accesses_takes_a_task_twice(deque, play):
    count, wrong = orders(deque, play)
    assert count > 100 and wrong == 0


@pytest.mark.parametrize(
    ("right", "wrong", "play"),
    [
        ("if (left == 0 && !nb_cas(&d->top, &top, top + 1))", "if (0)", "the last task"),
        ("    nb_full_fence(); /* whoever", "    /* whoever", "two tasks"),
        (
            "return nb_cas(&d->top, &top, top + 1) ? task : NB_ABORTED;",
            "nb_store_relaxed(&d->top, top + 1); return task;",
            "the last task",
        ),
        ("if (left > 0)", "if (left >= 0)", "the last task"),
        (
            "nb_store_relaxed(&d->task[bottom % NB_DEQUE_PLACES], task);\n    nb_release_fence();\n    nb_store_relaxed(&d->bottom, bottom + 1);",
            "nb_store_relaxed(&d->bottom, bottom + 1);\n    nb_store_relaxed(&d->task[bottom % NB_DEQUE_PLACES], task);",
            "a new task",
        ),
    ],
    ids=[
        "owner without compare-and-swap",
        "no fence",
        "thief without compare-and-swap",
        "off by one",
        "published before it is there",
    ],
)
def test_without_one_of_its_parts_some_order_does(tmp_path, right, wrong, play):
    """The fence among them, whose absence no run shows for days."""
    headers = Path(shutil.copytree(abi.source_folder(), tmp_path / "kernels"))
    text = (headers / "nb_deque.h").read_text()
    assert right in text
    (headers / "nb_deque.h").write_text(text.replace(right, wrong))
    count, bad = orders(native("deque.c", tmp_path, headers), play)
    assert 0 < bad < count
