"""The life of mapped memory: its outcomes, liars among kernels and bystanders, and the count of interrupts."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
from types import SimpleNamespace

import pytest
from synthetic_sysfs import SyntheticTree
from test_kernels import Refused, broken_kernel, enter, native

from numabench import kernel as abi
from numabench.benchmarks import Found, Probes, address_space
from numabench.benchmarks.address_space import (
    AWAKE,
    BENCHMARK,
    BYSTANDERS,
    CLASSES,
    COUNTED,
    FEW,
    INTERRUPTS,
    OF_HUGE,
    OPERATIONS,
    SLEPT,
    SMALL,
    usual_interrupts,
)
from numabench.host.pages import BASE, THP, USUAL_THP, base_page, page_bytes, transparent_offered
from numabench.host.topology import read_topology

PROBES = Probes(frequency=3e9)


def case(operation: str, pages: int = 1, bystander: str = "none", page_size: str = BASE, bystanders: int = 1) -> dict:
    return {
        "operation": operation, "pages": pages, "page_size": page_size, "bystander": bystander, "bystanders": bystanders,
        "placement": "l3",
    }  # fmt: skip


def measured(kernel: abi.Kernel, p: dict, samples: int = 1) -> Found:
    """As a worker does it, on the CPUs that are there."""
    page = page_bytes(p["page_size"])
    size = (p["pages"] + 2) * page + p["bystanders"] * base_page()
    with contextlib.ExitStack() as opened:
        arguments, threads = BENCHMARK.arguments(p, PROBES), 1 if p["bystander"] == "none" else 1 + p["bystanders"]
        files = BENCHMARK.descriptors(p, opened)
        found = enter(kernel, arguments, threads=threads, size=size, samples=samples, descriptors=files)
    assert all(found.memory[place * page + 8] == 1 for place in range(1, p["pages"] + 1)), "all pages are there again"
    return found


@pytest.fixture(scope="module")
def kernel() -> abi.Kernel:
    return abi.Kernel(abi.build("address_space").target)


@pytest.mark.parametrize("bystander", BYSTANDERS)
@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if operation not in OF_HUGE])
def test_pages_are_as_each_operation_leaves_them(kernel, operation, bystander):
    p = case(operation, 8, bystander)
    if not BENCHMARK.keep(p, None):
        pytest.skip("there is nothing to read")
    found = measured(kernel, p, samples=2)
    assert BENCHMARK.check(p, found) == ""
    metrics = BENCHMARK.metrics(p, found, PROBES)
    assert metrics["time"] == pytest.approx(8 * metrics["time_per_page"]) and metrics["time"] > 0
    assert ("loss" in metrics) <= (bystander in AWAKE)
    assert set(metrics) <= set(kernel.metrics)


def test_a_range_in_two_page_tables_is_moved_whole(kernel):
    for operation in ("mremap", "munmap"):
        assert BENCHMARK.check(case(operation, 512), measured(kernel, case(operation, 512))) == ""


@pytest.mark.parametrize(
    ("operation", "right", "wrong"),
    [
        ("dontneed", "r->bytes, MADV_DONTNEED);\n    case FREE:", "r->bytes, MADV_NORMAL);\n    case FREE:"),
        ("mprotect", "PROT_READ);\n    case DONT", "PROT_READ | PROT_WRITE);\n    case DONT"),
        (
            "munmap",
            "return munmap(r->at, r->bytes);\n    case MREMAP",
            "return madvise(r->at, r->bytes, MADV_DONTNEED);\n    case MREMAP",
        ),
        ("free", "madvise(r->at, r->bytes, MADV_FREE)", "(memset(r->at, 1, r->bytes), 0)"),
        ("fault", "        touch(r, call);\n        return 0;", "        return 0;"),
        ("copy", "memcpy(r->elsewhere, r->at, r->bytes);", ";"),
    ],
)
def test_a_call_that_does_not_do_it_is_noticed(tmp_path, operation, right, wrong):
    liar = broken_kernel(tmp_path, "address_space", "nb_range.h", right, wrong)
    assert BENCHMARK.check(case(operation), measured(liar, case(operation)))


# -- what is planned ------------------------------------------------------------------------------------------------------------


def planned(topology, profile: str) -> list[dict]:
    points = [
        dict(zip(sweep, values, strict=True))
        for sweep in BENCHMARK.sweep(topology, profile)
        for values in itertools.product(*sweep.values())
    ]
    return [p for p in points if BENCHMARK.keep(p, topology) and BENCHMARK.place(p, topology)]


def test_as_many_bystanders_as_there_are_near_cpus(tmp_path):
    topology = read_topology(str(SyntheticTree(tmp_path, packages=2, nodes=2, l3s=2, cores=4, smt=2).root))
    cases = planned(topology, "standard")
    assert {p["bystanders"] for p in cases if p["bystander"] == "spinning"} == {1, 2, 4}  # eight CPUs share an L3
    for p in cases:
        cpus = BENCHMARK.place(p, topology).cpus
        assert len({*cpus}) == len(cpus) == (1 if p["bystander"] == "none" else 1 + p["bystanders"])
    assert {p["operation"] for p in cases} == {p["operation"] for p in planned(topology, "full")} == {*OPERATIONS}
    assert {p["page_size"] for p in planned(topology, "quick")} == {BASE}
    kinds = {
        (p["operation"], p["bystander"]): BENCHMARK.group(p)
        for p in cases
        if p["pages"] == 1 and p["page_size"] == BASE and p["placement"] == "l3"
    }
    assert kinds["copy", "none"] == kinds["mremap", "none"] == kinds["mremap", "spinning"] != kinds["munmap", "none"]
    said = [answer.text for answer in BENCHMARK.asked(topology, cases)]
    assert any("4 other threads of the process that run add" in text for text in said) and len(said) == len({*said})


def test_one_cpu_has_no_bystander(tmp_path):
    cases = planned(read_topology(str(SyntheticTree(tmp_path, cores=1).root)), "standard")
    assert {p["bystander"] for p in cases} == {"none"} and {p["operation"] for p in cases} == {*OPERATIONS}


# -- huge pages -----------------------------------------------------------------------------------------------------------------


def measured_huge(kernel: abi.Kernel, p: dict) -> Found:
    """Skipped where this machine gives no huge pages, or has none left."""
    if not transparent_offered() or page_bytes(THP) != USUAL_THP:
        pytest.skip("no transparent huge pages of 2 MiB")
    try:
        return measured(kernel, p)
    except Refused:
        pytest.skip("this machine has no huge page, or its kernel does not do that")


@pytest.mark.parametrize("bystander", ["none", "reading"])
@pytest.mark.parametrize("operation", [*OPERATIONS])
def test_huge_pages_are_as_each_operation_leaves_them(kernel, operation, bystander):
    p = case(operation, 2, bystander, THP)
    if not BENCHMARK.keep(p, None):
        pytest.skip("there is nothing to read")
    found = measured_huge(kernel, p)
    assert BENCHMARK.check(p, found) == ""
    assert found.threads[0].value[SMALL] * FEW <= found.threads[0].executed, "pages are huge ones, as smaps tells"


@pytest.mark.parametrize(
    ("operation", "right", "wrong"),
    [
        ("collapse", "return madvise(r->at, r->bytes, MADV_COLLAPSE);", "return 0;"),
        ("split", "r->unit / 2, r->base, MADV_DONTNEED)", "r->unit / 2, r->base, MADV_NORMAL)"),
    ],
)
def test_a_huge_page_that_does_not_come_or_go_is_noticed(tmp_path, operation, right, wrong):
    liar = broken_kernel(tmp_path, "address_space", "nb_range.h", right, wrong)
    p = case(operation, 1, "none", THP)
    assert "only 0 of" in BENCHMARK.check(p, measured_huge(liar, p))


def test_small_pages_instead_of_huge_ones_are_no_result(tmp_path):
    """As of a machine that has none left: before the first call, or while they are touched."""
    wanted = "r->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE"
    with pytest.raises(Refused):
        measured(
            broken_kernel(tmp_path / "1", "address_space", "nb_range.h", wanted, "MADV_NOHUGEPAGE"),
            case("dontneed", 1, "none", THP),
        )
    right = "return 0;\n        advise(r, r->at);\n        return 1;"
    late = broken_kernel(
        tmp_path / "2",
        "address_space",
        "nb_range.h",
        right,
        right.replace("advise(r, r->at)", "madvise(r->at, r->bytes, MADV_NOHUGEPAGE)"),
    )
    p = case("fault", 1, "none", THP)
    found = measured_huge(late, p)
    assert BENCHMARK.check(p, found) == "" and "small_pages" in BENCHMARK.doubts(p, found, {}, PROBES)


# -- bystanders -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bystander", ["sleeping", "spinning", "process"])
def test_several_bystanders_are_all_there(kernel, bystander):
    p = case("dontneed", 1, bystander, bystanders=2)
    found = measured(kernel, p)
    assert len(found.threads) == 3 and BENCHMARK.check(p, found) == ""
    assert ("loss" in BENCHMARK.metrics(p, found, PROBES)) <= (bystander in AWAKE)
    found.threads[2].value[SLEPT] = 0 if bystander == "sleeping" else found.threads[0].executed
    assert BENCHMARK.check(p, found), "the last of them is looked at as well"


LOOP = "turn = nb_load_acquire(&w->turn);\n        now"


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (LOOP, f"usleep(50);\n        {LOOP}", "slept"),  # it answers, and pretends to spin
        ("parameter[BYSTANDER] == SLEEPING)", "parameter[BYSTANDER] >= SLEEPING)", "only 0 of"),  # it is never there
    ],
)
def test_a_bystander_that_sleeps_where_it_should_spin_is_caught(tmp_path, right, wrong, said):
    liar = broken_kernel(tmp_path, "address_space", "nb_bystander.h", right, wrong)
    p = case("dontneed", 1, "spinning")
    assert said in BENCHMARK.check(p, measured(liar, p))


def test_one_that_spins_where_it_should_sleep_is_caught(kernel):
    p = case("dontneed", 1, "sleeping")
    found = measured(kernel, p)
    found.threads[1].value[SLEPT] = 0
    assert "did not" in BENCHMARK.check(p, found)


def judged(counts: tuple[int, ...], **what) -> list[str]:
    caller = SimpleNamespace(executed=100, value=[0] * 6 + [sum(counts), *counts] + [0] * 5)
    return BENCHMARK.doubts(case(**what), Found([caller]), {}, PROBES)


def test_interrupts_are_judged_by_most_of_the_calls(monkeypatch):
    monkeypatch.setattr(address_space, "may_flush_silently", lambda: False)
    for operation in ("mprotect", "dontneed", "free", "cold", "munmap", "mremap"):
        assert judged((1, 30, 2, 0), operation=operation, bystander="spinning") == []
        assert judged((32, 0, 0, 0), operation=operation, bystander="spinning") == ["interrupts:0 in most of 32 calls, and not 1"]
        assert judged((31, 1, 0, 0), operation=operation, bystander="sleeping") == []
    assert judged((32, 0, 0, 0), operation="munmap", bystander="process") == []
    assert judged((0, 32, 0, 0), operation="munmap", bystander="process") == ["interrupts:1 in most of 32 calls, and not 0"]
    assert judged((0, 0, 0, 32), operation="munmap", bystander="spinning", bystanders=3) == [
        "interrupts:another number in most of 32 calls, and not 1"
    ]
    for counts in ((0, 32, 0, 0), (0, 0, 32, 0), (0, 0, 0, 32)):  # as the kernel does it
        assert judged(counts, operation="split", bystander="spinning", page_size=THP) == []
    assert judged((32, 0, 0, 0), operation="split", bystander="spinning", page_size=THP) != []
    assert judged((0, 1, 31, 0), operation="mremap", bystander="reading", pages=base_page() // 8) == []
    assert judged((0, 32, 0, 0), operation="fault", bystander="spinning") == ["interrupts:1 in most of 32 calls, and not 0"]
    monkeypatch.setattr(address_space, "may_flush_silently", lambda: True)
    assert judged((32, 0, 0, 0), operation="munmap", bystander="spinning") == [], "by broadcast"
    assert judged((20, 12, 0, 0), operation="munmap", bystander="spinning") != []


COUNTER = """#include "address_space.c"
void count(uint32_t threads, uint64_t interrupts, uint64_t *value)
{
    static struct nb_case c;
    static struct nb_thread t;
    memset(&t, 0, sizeof t);
    c.threads = threads, t.shared = &c;
    count_interrupts(&t, interrupts);
    memcpy(value, t.value, sizeof t.value);
}
"""


def test_interrupts_of_a_call_are_counted_by_bystander(tmp_path):
    source = tmp_path / "count.c"
    source.write_text(COUNTER)
    library, value = native(source, tmp_path), (ctypes.c_uint64 * 16)()

    def counted(bystanders: int, interrupts: int) -> tuple[list[int], float]:
        library.count(bystanders + 1, ctypes.c_uint64(interrupts), value)
        assert value[COUNTED] == 1 and value[INTERRUPTS] == interrupts
        return list(value[CLASSES]).index(1), usual_interrupts(value, bystanders)

    assert counted(3, 0) == (0, 0.0) and counted(3, 3) == (1, 3.0) and counted(3, 6) == (2, 6.0)
    assert counted(3, 1) == (3, 1.0) and counted(3, 7) == (3, 7.0)
    assert counted(1, 1) == (1, 1.0) and counted(1, 8) == (3, 8.0)


def test_what_a_call_brings_to_several_is_told_together():
    value = [0] * 6 + [32, 1, 30, 0, 1, 93] + [0] * 4
    assert usual_interrupts(value, 3) == 3 and usual_interrupts(value, 1) == 1
    assert usual_interrupts([0] * 6 + [32, 0, 0, 0, 32, 160] + [0] * 4, 3) == 5


WRAPPER = """#include "nb_interrupts.h"
int look(int file, const char *row, int one, int other, uint64_t *count)
{
    struct nb_cpus cpus = {{0}, 0};
    nb_cpus_add(&cpus, one);
    nb_cpus_add(&cpus, other);
    return nb_interrupts(file, row, &cpus, count);
}
"""


def test_interrupts_are_read_in_the_column_of_their_cpu(tmp_path):
    source = tmp_path / "look.c"
    source.write_text(WRAPPER)
    look, count = native(source, tmp_path).look, ctypes.c_uint64()

    def said(text: str, cpu: int, row: bytes = b"TLB", other: int = -1) -> int | None:
        (tmp_path / "interrupts").write_text(text)
        with open(tmp_path / "interrupts") as file:
            return count.value if look(file.fileno(), row, cpu, other, ctypes.byref(count)) else None

    online = [cpu for cpu in range(700) if cpu % 3]  # the others are offline
    head = " " * 11 + " ".join(f"CPU{cpu:<7}" for cpu in online) + "\n"
    rows = "".join(
        f"{name:>3}: " + " ".join(f"{place * 10 + k:10}" for k in range(len(online))) + f"   {about}\n"
        for place, (name, about) in enumerate(
            {"24": "IO-APIC  TLB: edge", "CAL": "Function calls", "TLB": "TLB shootdowns"}.items()
        )
    )
    for text in (head + rows, head + rows.rstrip("\n")):
        assert [said(text, cpu) for cpu in (1, 2, 4, 698)] == [20, 21, 22, 20 + online.index(698)]
        assert said(text, 3) is None and said(text, 1, b"TL") is None and said(text, 4, b"CAL") == 12
        assert said(text, 698, other=1) == said(text, 1, other=698) == 40 + online.index(698)
        assert said(text, 4, other=4) == 22 and said(text, 4, other=3) is None, (
            "a CPU counts once, and one that is offline is missed"
        )
    assert said(head, 1) is None and said("", 1) is None and said(head + "ERR:          5\n", 1) is None
    assert said("     CPU0\nTLB:  18446744073709551615\n", 0) == 2**64 - 1
    assert not look(-1, b"TLB", 0, 0, ctypes.byref(count))
    assert said(head + rows, -1) is None, "of no CPU there is no count"


def test_without_the_file_there_is_no_such_metric(kernel, monkeypatch):
    def refuse() -> int:
        raise PermissionError

    monkeypatch.setattr(address_space, "open_interrupts", refuse)
    p = case("munmap", 1, "spinning")
    found = measured(kernel, p)
    assert "tlb_interrupts" not in BENCHMARK.metrics(p, found, PROBES) and BENCHMARK.check(p, found) == ""
    assert not [doubt for doubt in BENCHMARK.doubts(p, found, {}, PROBES) if doubt.startswith("interrupts")]
