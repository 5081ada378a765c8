"""Litmus tests: what may be seen against two machines that enumerate it, and the kernel's own counts."""

from __future__ import annotations

import ctypes
import os
import platform

import pytest
from synthetic import litmus, make_log
from test_kernels import PROBES, broken_kernel, enter, native

from numabench import kernel as abi
from numabench.analysis.answers import answers
from numabench.benchmarks import find
from numabench.benchmarks.memory_ordering import (
    ALLOWED,
    BYTES,
    INSTANCES,
    IRIW,
    LB,
    MP,
    ORDERINGS,
    READS,
    SB,
    TESTS,
    THREADS,
    WEAK,
    allowed,
)

#: Per test and thread its accesses in order: (write or read, word). Reads have their number by thread and place, as in the kernel.
PROGRAMS = {
    SB: ["Wx Ry", "Wy Rx"],
    MP: ["Wx Wy", "Ry Rx"],
    LB: ["Rx Wy", "Ry Wx"],
    IRIW: ["Wx", "Wy", "Rx Ry", "Ry Rx"],
}


def outcomes(test: str, buffered: bool, fenced: bool) -> set[int]:
    """All outcomes of a test on a machine that interleaves the threads: with a store buffer for each (x86-TSO), or without (sequential
    consistency). `fenced`: a thread's second access waits until its buffer is empty."""
    programs = [words.split() for words in PROGRAMS[test]]
    first_read = [sum(word[0] == "R" for p in programs[:k] for word in p) for k in range(len(programs))]
    found, seen = set(), set()

    def go(places: tuple, buffers: tuple, memory: frozenset, read: int) -> None:
        state = places, buffers, memory, read
        if state in seen:
            return
        seen.add(state)
        if all(place == len(p) for place, p in zip(places, programs, strict=True)):
            found.add(read)
        for k, (place, program) in enumerate(zip(places, programs, strict=True)):
            if buffers[k]:
                go(places, replace(buffers, k, buffers[k][1:]), memory | {buffers[k][0]}, read)
            if place == len(program) or (fenced and place and buffers[k]):
                continue
            (kind, word), after = program[place], replace(places, k, place + 1)
            if kind == "W" and buffered:
                go(after, replace(buffers, k, (*buffers[k], word)), memory, read)
            elif kind == "W":
                go(after, buffers, memory | {word}, read)
            else:
                number = first_read[k] + sum(w[0] == "R" for w in program[:place])
                go(after, buffers, memory, read | (word in memory or word in buffers[k]) << number)

    go((0,) * len(programs), ((),) * len(programs), frozenset(), 0)
    return found


def replace(values: tuple, index: int, value) -> tuple:
    return (*values[:index], value, *values[index + 1 :])


@pytest.mark.parametrize("test", TESTS)
def test_the_weak_outcome_is_the_only_one_that_no_interleaving_explains(test):
    assert outcomes(test, buffered=False, fenced=False) == set(range(1 << READS[test])) - {WEAK[test]}
    assert len(PROGRAMS[test]) == THREADS[test]


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("ordering", ORDERINGS)
def test_what_x86_allows_is_what_its_store_buffers_explain(test, ordering):
    reached = outcomes(test, buffered=ordering != "seq_cst", fenced=ordering == "fence")
    assert (WEAK[test] in reached) == allowed(test, ordering, "x86_64")


def test_stronger_machines_and_orderings_allow_no_more():
    for test in TESTS:
        assert not any(allowed(test, ordering, machine) for ordering in ("fence", "seq_cst") for machine in (*ALLOWED, "riscv64"))
        for ordering in ORDERINGS:
            assert all(allowed(test, ordering, machine) <= allowed(test, ordering, "riscv64") for machine in ALLOWED)


@pytest.fixture(scope="module")
def kernel():
    return abi.Kernel(abi.build("memory_ordering").target)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("ordering", ORDERINGS)
def test_every_trial_has_one_outcome(kernel, test, ordering):
    p, benchmark = {"test": test, "ordering": ordering}, find("memory_ordering")
    found = enter(kernel, benchmark.arguments(p, PROBES), threads=THREADS[test], size=BYTES, samples=3)
    assert benchmark.check(p, found) == ""
    metrics, extra = benchmark.metrics(p, found, PROBES), benchmark.extra(p, PROBES, found)
    assert sum(extra.values()) == metrics["trials"] == found.threads[0].operations and metrics["trials"] % INSTANCES == 0
    assert extra["outcome_" + "0" * READS[test]] / metrics["trials"] * 1e8 == pytest.approx(metrics["all_old"])


def test_a_forbidden_outcome_and_a_wrong_count_fail(kernel):
    p, benchmark = {"test": MP, "ordering": "plain"}, find("memory_ordering")
    found = enter(kernel, benchmark.arguments(p, PROBES), threads=2, size=BYTES)
    thread = found.threads[0]
    thread.value[0b11] += 1
    assert "thread 1 counted other outcomes" in benchmark.check(p, found)
    found.threads[1].value[0b11] += 1
    assert "outcomes of" in benchmark.check(p, found)
    for each in found.threads:
        each.value[0b11] -= 2
        each.value[WEAK[MP]] += 1
    assert allowed(MP, "plain", platform.machine()) or "forbids in 1 of" in benchmark.check(p, found)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU orders everything")
def test_a_fence_that_does_nothing_is_seen(tmp_path):
    kernel = broken_kernel(tmp_path, "memory_ordering", "memory_ordering.c", "nb_full_fence();", ";")
    p, benchmark = {"test": SB, "ordering": "fence"}, find("memory_ordering")
    for _ in range(20):  # on a busy machine the two may not run at the same time
        found = enter(kernel, benchmark.arguments(p, PROBES), threads=2, size=BYTES, samples=20)
        if found.threads[0].value[WEAK[SB]]:
            break
    assert found.threads[0].value[WEAK[SB]] > 0 and "forbids in" in benchmark.check(p, found)


def test_threads_that_never_met_show_nothing():
    benchmark, p = find("memory_ordering"), {"test": SB, "ordering": "plain"}
    if platform.machine() == "x86_64":
        assert "did not meet" in benchmark.physics(p, {"weak": 0.0})
    assert benchmark.physics(p, {"weak": 5.0}) == "" == benchmark.physics(p | {"ordering": "fence"}, {"weak": 0.0})


def test_what_was_never_seen_has_a_limit_by_the_trials():
    log = make_log(processes=8, samples=3, sd=(0.0, 0.0, 0.0), benchmarks=(litmus,))
    often, never = answers(log)
    assert often.text.startswith("Seen in 2,000 of 10^8 trials (2,000 to 2,000, 8 processes")
    assert never.text.startswith("Seen in none of 24,000,000 trials (under 12.5 of 10^8, 8 processes, 1 session)")
    assert (never.value, never.low, never.high) == (0.0, 0.0, pytest.approx(12.5)) and never.ok


@pytest.fixture(scope="module")
def stirred(tmp_path_factory):
    """stirred(seed, thread, rounds): of each round the delay, bytes from x to y, and the order of the instances."""
    library = native("stirred.c", tmp_path_factory.mktemp("stirred"))

    def rounds_of(seed: int, thread: int, rounds: int):
        delay, beside, order = ((ctypes.c_uint64 * n)() for n in (rounds, rounds, rounds * INSTANCES))
        library.stirred(ctypes.c_uint64(seed), thread, ctypes.c_uint64(rounds), delay, beside, order)
        return list(delay), list(beside), [tuple(order[k : k + INSTANCES]) for k in range(0, len(order), INSTANCES)]

    return rounds_of


def test_rounds_are_stirred(stirred):
    """Delays are as often short as long, threads agree on where x and y are, and differ in the order of some rounds."""
    rounds = 4000
    (delay, beside, order), (other_delay, other_beside, other_order) = (stirred(5, thread, rounds) for thread in (0, 1))
    octaves = [sum(d.bit_length() == k for d in delay) for k in range(14)]
    assert max(delay) < 8192 and all(abs(count - rounds / 14) < rounds / 28 for count in octaves)
    assert beside == other_beside and set(beside) == {8, 64 * 320} and 0.08 < beside.count(8) / rounds < 0.17
    assert all(sorted(each) == list(range(INSTANCES)) for each in order) and len(set(order)) > 1000
    same = sum(a == b for a, b in zip(order, other_order, strict=True)) / rounds
    assert 0.7 < same < 0.8 and sum(a == b for a, b in zip(delay, other_delay, strict=True)) < rounds / 5
    assert stirred(5, 0, 100) == (delay[:100], beside[:100], order[:100]) and stirred(6, 0, 100)[0] != delay[:100]


def test_the_seed_is_the_case_s():
    assert find("memory_ordering").seed_argument(77) == {"seed": 77}
