"""Where pages are asked for and proven: sizes of pages, room on nodes, what cannot be placed."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import msgspec
import pytest
from synthetic_sysfs import SyntheticTree
from test_kernels import PROBES, enter, loaded  # noqa: F401 (a fixture)

from numabench.benchmarks import discover, find
from numabench.host import maps, memory, pages
from numabench.host.memory import FIRST_TOUCH, ONE_NODE, Buffer, Placing
from numabench.host.topology import read_topology
from numabench.measure.plan import job_cases, make_plan, plan_cases
from numabench.measure.profiles import PROFILES
from numabench.measure.protocol import Timing

GIB = 1 << 30
HAS_NUMA = Path("/sys/devices/system/node/node0").exists()


@pytest.fixture
def two_nodes(tmp_path):
    return read_topology(str(SyntheticTree(tmp_path, packages=2, nodes=2, l3s=2, cores=4, smt=2).root))


# -- all pages ------------------------------------------------------------------------------------------------------------

MAPS = """\
00400000 default file=/bin/x mapped=2 N0=2 kernelpagesize_kB=4
7f0000000000 bind:0 anon=8 dirty=8 N0=7 N1=1 kernelpagesize_kB=4
7f0000008000 bind:0 anon=4 dirty=4 N0=4 kernelpagesize_kB=4
7f0000010000 default
7f0000200000 bind:1 huge anon=2 dirty=2 N1=2 kernelpagesize_kB=2048
7f0000600000 bind:1 anon=512 dirty=512 active=0 N1=512 kernelpagesize_kB=4
"""


@pytest.fixture
def numa_maps(monkeypatch, tmp_path):
    def write(text: str | None) -> None:
        monkeypatch.setattr(maps, "NUMA_MAPS", str(tmp_path / ("maps" if text is not None else "absent")))
        (tmp_path / "maps").write_text(text or "")

    write(MAPS)
    return write


def test_numa_maps_counts_every_page_of_each_range(numa_maps):
    small, hole, huge = (0x7F0000000000, 0xC000), (0x7F0000010000, 0x1000), (0x7F0000200000, 4 << 20)
    assert maps.mapped_pages([small, hole, huge]) == [{"0": 11, "1": 1}, {}, {"1": 2}]  # a range in two mappings is one
    assert maps.mapped_pages([(0x7F0000600000, 2 << 20)]) == [{"1": 512}]


def test_a_range_that_begins_inside_a_mapping_is_not_told(numa_maps):
    assert maps.mapped_pages([(0x7F0000004000, 0x4000)]) is None
    assert maps.mapped_pages([(0x7F0000000000, 0x8000), (0x7F0000700000, 0x1000)]) is None
    numa_maps(None)
    assert maps.mapped_pages([(0x7F0000000000, 0x8000)]) is None


@pytest.mark.skipif(not HAS_NUMA, reason="a kernel without NUMA has no numa_maps")
@pytest.mark.parametrize("page_size", ["4k", "thp"])
@pytest.mark.parametrize("way", ["numa_maps", "move_pages"])
def test_one_page_that_was_never_touched_is_found(monkeypatch, page_size, way):
    """Of 20,000 pages, where every fifth was looked at."""
    size = 20_000 * pages.base_page()
    monkeypatch.setattr(memory, "mapped_pages" if way == "move_pages" else "asked_pages", lambda *_: None)
    buffer = Buffer(size, page_size, 0)
    try:
        ctypes.memset(buffer.address, 1, size)
        whole = buffer.prove()
        assert whole.by == way and whole.misplaced == 0 and whole.pages["0"] >= 20_000
        if page_size == "4k":
            memory.calls.libc.madvise(buffer.address + 12_345 * pages.base_page(), pages.base_page(), 4)  # MADV_DONTNEED
            proof = buffer.prove()
            assert proof.misplaced == 1 and proof.pages == {"0": 19_999, "untouched": 1}
    finally:
        buffer.close()


@pytest.mark.skipif(not HAS_NUMA, reason="a kernel without NUMA has no numa_maps")
def test_neighbouring_buffers_are_not_counted_together():
    buffers = [Buffer(5 << 20, "4k", 0) for _ in range(6)]
    try:
        for number, buffer in enumerate(buffers):
            ctypes.memset(buffer.address, 1, buffer.size if number % 2 else 1)
        counted = [maps.mapped_pages([(b.address, b.size)])[0] for b in buffers]
        assert counted == [{"0": b.size // pages.base_page() if k % 2 else 1} for k, b in enumerate(buffers)]
    finally:
        for buffer in buffers:
            buffer.close()


def test_what_nothing_tells_is_said(monkeypatch):
    monkeypatch.setattr(memory, "mapped_pages", lambda *_: None)
    monkeypatch.setattr(memory.calls, "where_pages_are", lambda *_: errno.EPERM)
    monkeypatch.setattr(memory.calls, "mbind", lambda *_: 0)
    buffer = Buffer(8192, node=0)
    ctypes.memset(buffer.address, 1, 8192)
    assert (buffer.prove().by, buffer.prove().pages) == ("not_told", {})
    monkeypatch.setattr(memory, "_placing", Placing(how=ONE_NODE))
    assert (buffer.prove().by, buffer.prove().pages) == ("one_node", {"0": 8192 // pages.base_page()})
    buffer.close()


# -- sizes of pages -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[16384, 65536])
def large_pages(monkeypatch, request):
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: request.param if name == "SC_PAGESIZE" else real(name))
    return request.param


@pytest.mark.parametrize("profile", PROFILES)
def test_no_two_nodes_share_a_page(two_nodes, large_pages, profile):
    """mbind refuses an address that is no multiple of the page."""
    parted = set()
    plan = make_plan(list(discover().values()), two_nodes, profile=profile, budget=1e9)
    for block in plan.blocks:
        for case in job_cases(block, 0, 1, two_nodes):
            if len(set(case.parts)) > 1 and case.policy == "bind":
                parted.add(block.benchmark)
                assert case.size // len(case.parts) % large_pages == 0, case
    one_by_one = {"core_to_core"} if profile == "accept" else set()
    assert {"core_to_core", "memory_bandwidth"} - one_by_one <= parted


def test_sixteen_pairs_have_sixteen_pages(two_nodes, large_pages):
    (block, *_) = make_plan([find("core_to_core")], two_nodes).blocks
    for case in job_cases(block, 0, 1, two_nodes):
        assert case.size == large_pages * max(1, len(case.company))


@pytest.mark.parametrize("benchmark", ["first_touch", "page_migration", "numa_balancing", "node_latency", "tlb_latency"])
def test_sentences_name_the_page_that_was_obtained(two_nodes, large_pages, benchmark):
    words = f"{large_pages >> 10} KiB"
    asked = find(benchmark)
    cases = [c.case.parameters for b in make_plan([asked], two_nodes).blocks for c in b.cases]
    texts = [a.text for a in asked.answers(two_nodes, cases) if a.where.get("page_size") == "4k"]
    assert texts and all("4 KiB" not in text.replace(words, "") for text in texts) and any(words in text for text in texts)


def test_kernels_touch_and_move_each_page_once(loaded, large_pages):  # noqa: F811
    touch = find("first_touch")
    p = {"page_size": "4k", "threads": 1}
    found = enter(loaded["first_touch"], touch.arguments(p, PROBES))
    assert touch.check(p, found) == "" and found.threads[0].operations % ((1 << 20) // large_pages) == 0
    metrics = touch.metrics(p, found, PROBES)
    assert metrics["time_per_page"] * metrics["rate"] == pytest.approx(large_pages * 1e9)
    move = find("page_migration")
    p = {"page_size": "4k", "size": 1 << 20, "from_node": 0, "to_node": 0}
    arguments = move.arguments(p, PROBES)
    assert arguments["page_bytes"] == large_pages
    if HAS_NUMA:
        found = enter(loaded["page_migration"], arguments)
        assert move.check(p, found) == "" and found.threads[0].operations % ((1 << 20) // large_pages) == 0


def test_pairs_on_pages_of_their_own_count_every_way(loaded, large_pages):  # noqa: F811
    benchmark = find("core_to_core")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a pair needs two CPUs")
    found = enter(loaded["core_to_core"], {"operation": "cas"}, threads=2, size=large_pages, samples=2)
    assert benchmark.check({"cpu_a": 0, "cpu_b": 1, "operation": "cas"}, found) == ""


def test_spread_lines_lie_in_pages_of_their_own(two_nodes, large_pages, loaded):  # noqa: F811
    benchmark = find("tlb_latency")
    p = {"lines": 64, "layout": "spread", "page_size": "4k"}
    assert benchmark.place(p, two_nodes).size == 64 * large_pages
    arguments = benchmark.arguments(p, PROBES)
    assert arguments["line_bytes"] == large_pages
    assert benchmark.check(p, enter(loaded["memory_latency"], arguments, size=64 * large_pages)) == ""


def test_a_page_is_named_by_its_size(monkeypatch, large_pages):
    monkeypatch.setattr(pages, "transparent_page", lambda: 512 << 20)
    assert pages.page_words("4k") == f"{large_pages >> 10} KiB" and pages.page_words("thp") == "512 MiB (transparent)"
    assert [pages.page_words(kind) for kind in ("64k", "2m", "1g")] == ["64 KiB", "2 MiB", "1 GiB"]


# -- room -----------------------------------------------------------------------------------------------------------------


def planned(name: str, topology, profile: str = "quick", **supplies):
    benchmark = find(name)
    from numabench.measure.plan import expand

    return plan_cases(benchmark, expand(benchmark, topology, PROFILES[profile], {}), topology, Timing(), **supplies)


def test_a_full_node_is_refused_by_name(two_nodes):
    cases, skipped = planned("node_latency", two_nodes, free=lambda node: GIB >> 20 if node == 1 else GIB << 10)
    assert cases and all(case.placement.node != 1 for case in cases)
    assert skipped and all("on node 1, of which 1 KiB may be used" in text for text in skipped)
    assert planned("node_latency", two_nodes, free=lambda node: None)[1] == []


def test_parts_ask_each_node_for_what_they_want_there(two_nodes):
    wanted = planned("memory_bandwidth", two_nodes)[0]
    parted = [case for case in wanted if len(set(case.placement.parts)) > 1]
    least = max(case.placement.size for case in parted) // len(two_nodes.memory_nodes())
    cases, skipped = planned("memory_bandwidth", two_nodes, free=lambda node: least)
    assert {case.case.hash for case in parted} <= {case.case.hash for case in cases}
    cases, skipped = planned("memory_bandwidth", two_nodes, free=lambda node: least - 1 if node == 3 else GIB << 10)
    assert len(cases) < len(wanted) and all("on node 3" in text for text in skipped)


def test_reserved_pages_are_counted_on_each_node(two_nodes):
    benchmark = find("memory_bandwidth")
    p = {"kernel": "read", "vector": "portable", "page_size": "2m", "size": 64 << 20, "threads": 32, "filling": "packed"}
    assert len(set(benchmark.place(p, two_nodes).parts)) == 4

    def skipped(there: dict[int, int]) -> list[str]:
        return plan_cases(benchmark, [p], two_nodes, Timing(), reserved=lambda kind, node: there[node] << 21)[1]

    assert skipped(dict.fromkeys(range(4), 8)) == []
    (text,) = skipped({0: 32, 1: 8, 2: 7, 3: 8})
    assert "needs 8 on node 2, 7 are free" in text and "nr_hugepages" in text
    (text,) = plan_cases(benchmark, [p | {"page_size": "1g"}], two_nodes, Timing(), reserved=lambda kind, node: GIB << 10)[1]
    assert "no multiple of a page" in text


# -- first touch in place of binding --------------------------------------------------------------------------------------


@pytest.fixture
def first_touch(two_nodes):
    touchers = {node: two_nodes.node_cores(node)[0] for node in two_nodes.memory_nodes() if node != 3}
    return Placing(how=FIRST_TOUCH, touchers=touchers, refused=("mbind", "move_pages", "get_mempolicy", "set_mempolicy"))


def test_what_first_touch_cannot_place_is_skipped_by_name(two_nodes, first_touch):
    cases, skipped = planned("node_latency", two_nodes, placing=first_touch)
    assert (
        {case.placement.node for case in cases} == {0, 1, 2}
        and skipped
        and all("memory of node 3 needs mbind" in s for s in skipped)
    )
    cases, skipped = planned("memory_policy", two_nodes, placing=first_touch)
    assert {case.placement.policy for case in cases} == {"bind"}
    assert {word for s in skipped for word in ("preferred", "interleave", "weighted") if word in s} == {
        "preferred",
        "interleave",
        "weighted",
    }
    cases, skipped = planned("first_touch", two_nodes, "standard", placing=first_touch)
    assert cases and all(two_nodes.node_of(case.placement.cpus[0]) == case.placement.node for case in cases) and skipped
    cases, skipped = planned("page_migration", two_nodes, "standard", placing=first_touch)
    assert not cases and all("calls move_pages" in s for s in skipped)


def test_binding_with_a_call_refused_skips_what_makes_it(two_nodes):
    cases, skipped = planned("page_migration", two_nodes, placing=Placing(refused=("move_pages",)))
    assert not cases and skipped
    assert planned("node_latency", two_nodes, placing=Placing(refused=("move_pages",)))[1] == []


def test_figures_per_page_need_the_pages(two_nodes):
    cases, skipped = planned("first_touch", two_nodes, placing=Placing(transparent=False))
    assert {case.placement.page_size for case in cases} == {"4k"} and all("no transparent huge pages" in s for s in skipped)


def test_first_touch_is_part_of_the_method_and_of_the_plan(monkeypatch, tmp_path, two_nodes, first_touch):
    from numabench import kernel as abi
    from numabench.measure import visit

    monkeypatch.setattr(visit, "read_topology", lambda root: two_nodes)
    monkeypatch.setattr(visit, "find_placing", lambda topology: first_touch)
    monkeypatch.setattr(visit, "available_bytes", lambda node=None: GIB << 10)
    found = visit.Visit(visit.Request(benchmarks=("node_latency",), profile="quick"))
    assert found.plan.placing == first_touch and "needs mbind" in " ".join(found.plan.skipped)
    (benchmark,) = found.benchmarks
    assert found.describe(benchmark, abi.build(benchmark.kernel), "r").method["placement"] == "first_touch"
    other = msgspec.structs.replace(found.plan, placing=Placing())
    assert other.key != found.plan.key
