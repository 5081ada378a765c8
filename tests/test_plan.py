"""Plans: what is measured, with whom, and in which order."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from synthetic_sysfs import SyntheticTree

from numabench.benchmarks import ALONE, CROWDED, SAME_CPU, Found, Placement, Probes, choose, find, place_threads
from numabench.benchmarks.contention import HOME
from numabench.benchmarks.loaded_latency import rates
from numabench.benchmarks.memory_bandwidth import TEMPORAL
from numabench.benchmarks.memory_latency import BEYOND_L2, MAIN, effective_cache, level_sets, memory_size, own_caches
from numabench.benchmarks.padded_counters import PADDED
from numabench.errors import MachineError, UsageError
from numabench.host.pages import base_page
from numabench.host.topology import read_topology
from numabench.measure import plan
from numabench.measure.plan import case_seconds, expand, in_rounds, job_cases, make_plan, order_cases, parse_selection
from numabench.measure.profiles import PROFILES
from numabench.measure.visit import Request, Visit
from numabench.model import Sample


def all_benchmarks():
    return choose(())


@pytest.fixture
def two_sockets(tmp_path):
    return read_topology(str(SyntheticTree(tmp_path, packages=2, nodes=2, l3s=2, cores=4, smt=2).root))


@pytest.fixture
def two_cpus(tmp_path):
    return read_topology(str(SyntheticTree(tmp_path, cores=2).root))


def test_each_thread_has_its_price_and_more_where_it_shares_a_cpu():
    benchmark, timing = find("contention"), PROFILES["quick"].timing
    samples = benchmark.samples(timing.samples)
    alone, many, crowded = (case_seconds(benchmark, timing, 1.0, cpus) for cpus in ((0,), tuple(range(64)), (0, 1) * 32))
    assert many - alone == pytest.approx(63 * (samples * plan.SAMPLE_THREAD + plan.CASE_THREAD))
    assert crowded - many == pytest.approx(31 * samples * plan.TURN), "all of them have their turn before the last one begins"


def test_what_else_is_looked_at_around_each_sample_has_its_price(monkeypatch):
    benchmark, timing = find("fences"), PROFILES["standard"].timing
    plain = case_seconds(benchmark, timing)
    monkeypatch.setattr(type(benchmark), "needs_interrupt", True)
    assert case_seconds(benchmark, timing) - plain == pytest.approx((timing.samples + 1) * plan.PROBE)
    monkeypatch.setattr(type(benchmark), "needs_work", True)
    assert case_seconds(benchmark, timing) - plain == pytest.approx((2 * timing.samples + 3) * plan.PROBE), "and once beforehand"


def test_a_chain_is_no_longer_than_its_memory():
    """A page, and room for other things than an order."""
    where = Placement(cpus=(0,), node=0, size=4096, scratch=1 << 20)
    assert plan.preparation_seconds(where) == pytest.approx(4096 * (plan.CHAIN_OVERHEAD + plan.FILL_OVERHEAD))


def test_a_round_costs_what_each_of_its_pairs_does(tmp_path):
    def seconds(cores: int) -> tuple[float, float]:
        tree = SyntheticTree(tmp_path / str(cores), cores=cores)
        (block,) = make_plan([find("core_to_core")], read_topology(str(tree.root)), profile="quick").blocks
        together = in_rounds(block.cases)
        company = sum(2 * len(each) for each in together if len(each) > 1)
        threads = 2 * max(map(len, together))
        each_alone = sum(each[0].seconds for each in together)
        return block.seconds, plan.PROCESS_OVERHEAD + threads * plan.PROCESS_THREAD + each_alone + company * plan.ROUND_THREAD

    for cores in (8, 32):
        planned, wanted = seconds(cores)
        assert planned == pytest.approx(wanted, rel=0.01), "touching a page a pair is nothing"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_case_is_placed_on_cpus_that_are_there(two_sockets, profile):
    plan = make_plan(all_benchmarks(), two_sockets, profile=profile)
    assert plan.cases > 20
    hashes = [c.case.hash for block in plan.blocks for c in block.cases]
    assert len(hashes) == len(set(hashes))
    for block in plan.blocks:
        for planned in block.cases:
            assert set(planned.placement.cpus) <= set(two_sockets.allowed_cpus)
            wanted = planned.case.parameters.get("threads")
            if planned.case.parameters.get("placement") == CROWDED:
                wanted = 4
            if wanted is None and (
                block.benchmark in ("loaded_latency", "memory_policy") or planned.case.parameters.get("cores") == "all"
            ):
                wanted = 8  # the cores of a node
            if block.benchmark == "single_operations":
                wanted = 1 if planned.case.parameters["placement"] == ALONE else 2
            if block.benchmark == "publication":
                wanted = planned.case.parameters["readers"] + 1
            if block.benchmark in ("core_to_core", "memory_ordering"):
                wanted = 4 if planned.case.parameters.get("test") == "iriw" else 2
            assert len(set(planned.placement.cpus)) == (wanted or 1)


def test_placements_have_the_relation_they_name(two_sockets):
    plan = make_plan(all_benchmarks(), two_sockets, profile="standard")
    seen = set()
    for block in plan.blocks:
        for planned in block.cases:
            if planned.case.parameters.get("threads") == 2:
                if "placement" not in planned.case.parameters:
                    continue
                seen.add(planned.case.parameters["placement"])
                assert two_sockets.relation(*planned.placement.cpus) == planned.case.parameters["placement"]
    assert seen == set(two_sockets.relations()) and len(seen) >= 4


def test_memory_goes_where_the_case_says(two_sockets):
    plan = make_plan([find("node_latency")], two_sockets)
    cells = {(c.case.parameters["cpu_node"], c.case.parameters["memory_node"]): c.placement for b in plan.blocks for c in b.cases}
    assert set(cells) == {(a, b) for a in range(4) for b in range(4)}
    for (cpu_node, memory), placement in cells.items():
        assert placement.node == memory and two_sockets.node_of(placement.cpus[0]) == cpu_node
        assert placement.size >= 4 * two_sockets.llc_bytes_total(placement.cpus)


def test_threads_stream_through_memory_of_their_own_node(two_sockets):
    plan = make_plan([find("memory_bandwidth")], two_sockets, profile="full")
    placements = {(c.case.parameters["threads"], c.placement) for b in plan.blocks for c in b.cases}
    assert {threads for threads, _ in placements} == {1, 2, 4, 8, 16, 32, 64}
    for threads, placement in placements:
        nodes = tuple(two_sockets.node_of(cpu) for cpu in placement.cpus)
        assert placement.parts == (nodes if len(set(nodes)) > 1 else ())
        assert placement.size % (threads * 4096) == 0 and placement.node == nodes[0]


def test_threads_are_packed_into_an_l3_or_spread_over_all(two_sockets):
    """Two packages, four nodes of one L3 each, eight cores of two threads in each."""
    plan = make_plan([find("memory_bandwidth")], two_sockets)
    cells = [c for b in plan.blocks for c in b.cases if c.case.parameters["kernel"] == "read"]
    cpus = {(c.case.parameters["filling"], c.case.parameters["threads"]): c.placement.cpus for c in cells}
    packed, spread = ({n: found for (filling, n), found in cpus.items() if filling == name} for name in ("packed", "spread"))
    assert set(packed) == {1, 2, 4, 8, 16, 32, 64} and set(spread) == {2, 4, 8, 16}, "the same CPUs are measured once"
    for n, chosen in spread.items():
        nodes = [two_sockets.node_of(cpu) for cpu in chosen]
        assert {nodes.count(node) for node in nodes} == {-(-n // 4)} and len(set(nodes)) == min(n, 4)
        assert len({core for core in two_sockets.cores if set(core) & set(chosen)}) == n
    assert len({two_sockets.node_of(cpu) for cpu in packed[8]}) == 1
    (answer,) = (
        a for a in find("memory_bandwidth").answers(two_sockets, [c.case.parameters for c in cells]) if a.kind == "saturation"
    )
    assert answer.where["filling"] == "packed" and answer.against == {"filling": "spread"} and "{other} spread" in answer.text


def test_on_one_l3_packed_and_spread_are_one(tmp_path):
    topology = read_topology(str(SyntheticTree(tmp_path, cores=8, memory_gib=64).root))
    cells = [c.case.parameters for b in make_plan([find("memory_bandwidth")], topology).blocks for c in b.cases]
    assert {p["filling"] for p in cells} == {"packed"}
    answers = [a for a in find("memory_bandwidth").answers(topology, cells) if a.kind == "saturation"]
    assert answers and not any(a.against or "spread" in a.text for a in answers)


def test_bandwidth_of_nodes_is_measured_by_one_core_and_by_all(two_sockets):
    plan = make_plan([find("node_bandwidth")], two_sockets)
    cells = {
        tuple(c.case.parameters[k] for k in ("cpu_node", "memory_node", "kernel", "cores")): c
        for b in plan.blocks
        for c in b.cases
    }
    assert len(cells) == 4 * 4 * 2 * 2
    for (cpu_node, memory, _, cores), planned in cells.items():
        assert planned.placement.node == memory and len(planned.placement.cpus) == (8 if cores == "all" else 1)
        assert {two_sockets.node_of(cpu) for cpu in planned.placement.cpus} == {cpu_node}
        assert len({core for core in two_sockets.cores for cpu in planned.placement.cpus if cpu in core}) == len(
            planned.placement.cpus
        )


def test_a_curve_under_load_is_one_block_and_prepared_once(two_sockets):
    plan = make_plan([find("loaded_latency")], two_sockets, budget=36000)
    curves = {}
    for number, block in enumerate(plan.blocks):
        for planned in block.cases:
            p = planned.case.parameters
            curves.setdefault((p["mix"], p["chase_node"], p["load_node"]), set()).add(
                (number, planned.placement, planned.preparation)
            )
            half = len(planned.placement.parts) // 2
            wanted = () if p["chase_node"] == p["load_node"] else (p["chase_node"],) * half + (p["load_node"],) * half
            assert planned.placement.parts == wanted and planned.placement.node == p["chase_node"]
    assert all(len(found) == 1 for found in curves.values())
    assert {(chase, load) for _, chase, load in curves} == {(n, n) for n in range(4)}


def test_one_core_has_none_for_the_load(two_cpus):
    alone = msgspec.structs.replace(two_cpus, allowed_cpus=(0,))
    plan = make_plan([find("loaded_latency"), find("memory_parallelism")], alone)
    assert plan.skipped == (
        "loaded_latency: needs two cores of one node, of which one chases and the others load, and nodes with memory",
    )
    with pytest.raises(MachineError, match="nothing is left to measure: loaded_latency: needs two cores"):
        make_plan([find("loaded_latency")], alone)


def test_reserved_pages_that_are_not_there_are_said_with_the_command_that_reserves_them(two_cpus):
    selection = {"page_size": ("4k", "2m"), "size": (16 << 20,), "order": ("group",)}
    plan = make_plan([find("memory_latency")], two_cpus, selection=selection, reserved=lambda size, node: 3 << 21)
    assert {c.case.parameters["page_size"] for b in plan.blocks for c in b.cases} == {"4k"}
    assert len(plan.skipped) == 1 and "needs 8, 3 are free; echo 8 | sudo tee" in plan.skipped[0]
    plenty = make_plan([find("memory_latency")], two_cpus, selection=selection, reserved=lambda size, node: 8 << 21)
    assert plenty.cases == 2 and not plenty.skipped


@pytest.mark.parametrize("loaders", [1, 3, 15, 127])
def test_rates_are_about_a_dozen_from_idle_to_the_most(loaders):
    chosen = rates(loaders)
    assert chosen[0] == "0" and chosen[-1] == "max" and 5 <= len(chosen) <= 13
    numbers = [int(rate) for rate in chosen[:-1]]
    assert numbers == sorted(numbers) and numbers[-1] <= 16 * loaders


def test_a_node_without_cpus_is_a_column_and_one_without_memory_a_row(tmp_path):
    tree = SyntheticTree(tmp_path, packages=2, cores=2)
    tree.write("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: 0 kB")
    tree.write("sys/devices/system/node/node2/cpulist", "")
    tree.write("sys/devices/system/node/node2/cpumap", "0")
    tree.write("sys/devices/system/node/node2/meminfo", "Node 2 MemTotal: 4194304 kB")
    tree.write("sys/devices/system/node/online", "0-2")
    plan = make_plan([find("node_latency")], read_topology(str(tree.root)))
    cells = {(c.case.parameters["cpu_node"], c.case.parameters["memory_node"]) for b in plan.blocks for c in b.cases}
    assert cells == {(0, 0), (0, 2), (1, 0), (1, 2)}


def test_a_kernel_without_numa_gets_one_cell_and_no_binding(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2)
    shutil.rmtree(tree.root / "sys/devices/system/node")
    plan = make_plan(all_benchmarks(), read_topology(str(tree.root)), profile="quick")
    assert all(c.placement.node is None for b in plan.blocks for c in b.cases)


def test_one_cpu_plans_what_one_cpu_can_do(tmp_path):
    plan = make_plan(all_benchmarks(), read_topology(str(SyntheticTree(tmp_path, cores=1).root)))
    threads = {c.case.parameters.get("threads", 1) for b in plan.blocks for c in b.cases}
    assert threads == {1}


def test_contrasts_stay_in_one_process(two_sockets):
    plan = make_plan(all_benchmarks(), two_sockets, profile="standard")
    homes: dict[tuple, set] = {}
    for block in plan.blocks:
        for planned in block.cases:
            homes.setdefault((block.benchmark, planned.group), set()).add(block.name)
    assert all(len(blocks) == 1 for blocks in homes.values())
    padded = [c for b in plan.blocks for c in b.cases if b.benchmark == "padded_counters" and c.case.parameters["threads"] == 2]
    for planned in padded:  # the control of each case is in its group
        assert any(
            other.group == planned.group and other.case.parameters == planned.case.parameters | {"stride": PADDED}
            for other in padded
        )


def test_each_case_has_each_position_once_per_turn(two_cpus):
    """The cyclic Latin square: over as many processes as a group has cases, position and case meet once."""
    plan = make_plan([find("padded_counters")], two_cpus)
    block = plan.blocks[0]
    group = block.cases[0].group
    size = sum(c.group == group for c in block.cases)
    meetings = Counter()
    for process in range(size):
        ordered = [c.case.hash for c in order_cases(block, process, seed=1) if c.group == group]
        meetings.update((position, case) for position, case in enumerate(ordered))
    assert set(meetings.values()) == {1} and len(meetings) == size * size


def test_order_and_chains_depend_on_the_seed_alone(two_cpus):
    block = make_plan([find("memory_latency")], two_cpus, profile="quick").blocks[0]
    assert job_cases(block, 3, 1, two_cpus) == job_cases(block, 3, 1, two_cpus)
    assert job_cases(block, 3, 1, two_cpus) != job_cases(block, 3, 2, two_cpus)
    seeds = [c.seed for process in range(4) for c in job_cases(block, process, 1, two_cpus)]
    assert len(set(seeds)) == len(seeds)


def test_a_selection_replaces_the_profiles_values(two_cpus):
    benchmark = find("padded_counters")
    chosen = parse_selection([benchmark], ["stride=8,4k", "spacing=200", "operation=increment", "threads=2"])
    points = expand(benchmark, two_cpus, PROFILES["standard"], chosen)
    assert [p["stride"] for p in points if not p["readers"] and not p["offset"]] == [8, 4096]
    assert {p["spacing"] for p in points} == {200} and {p["readers"] for p in points} == {0, 1}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stride", "write it as"),
        ("strid=8", "did you mean stride"),
        ("operation=inkrement", "did you mean increment"),
        ("stride=12", "steps of 8"),
        ("stride=9000", "0 to 4096"),
        ("threads=zero", "whole numbers"),
        ("placement=l4", "did you mean l3"),
        ("stride=x", "not a size"),
    ],
)
def test_a_wrong_setting_names_the_nearest_right_one(setting, message):
    with pytest.raises(UsageError, match=message):
        parse_selection([find("padded_counters")], [setting])


def test_unknown_names_are_answered_with_near_ones(two_cpus):
    with pytest.raises(UsageError, match="did you mean padded_counters"):
        find("padded_counter")
    with pytest.raises(UsageError, match="did you mean standard"):
        make_plan(all_benchmarks(), two_cpus, profile="standart")


def test_too_little_memory_skips_a_default_and_refuses_a_wish(two_cpus):
    plan = make_plan([find("memory_latency")], two_cpus, memory=1 << 20)
    assert plan.skipped and all(c.placement.size < 1 << 20 for b in plan.blocks for c in b.cases)
    with pytest.raises(MachineError, match=r"needs 1.1 GiB of memory, 1 MiB may be used"):
        make_plan([find("memory_latency")], two_cpus, selection={"size": (1 << 30,)}, memory=1 << 20)


def test_what_this_machine_lacks_is_an_error_of_the_machine(two_cpus):
    with pytest.raises(MachineError, match="nothing is left to measure"):
        make_plan([find("padded_counters")], two_cpus, selection={"placement": ("cross_package",)})


def test_only_what_is_measured_is_asked(two_cpus):
    benchmark = find("padded_counters")

    def kinds(*settings):
        cases = expand(benchmark, two_cpus, PROFILES["quick"], parse_selection([benchmark], settings))
        return [a.kind for a in benchmark.asked(two_cpus, cases)]

    assert {"difference", "ratio", "threshold"} <= set(kinds())
    assert "ratio" not in kinds("spacing=200") and "difference" in kinds("spacing=200")  # nothing is measured back to back
    assert kinds("stride=8,64") == []  # nothing without the padded control


def test_a_crowd_is_on_all_cpus_in_turn(two_cpus):
    plan = make_plan([find("contention")], two_cpus, profile="full")
    crowd = [c for b in plan.blocks for c in b.cases if c.case.parameters["placement"] == CROWDED]
    assert crowd and all(c.placement.cpus == (0, 1, 0, 1) for c in crowd)
    usual = next(c for b in plan.blocks for c in b.cases if c.case.parameters["threads"] == 2)
    assert crowd[0].seconds > 5 * usual.seconds
    assert place_threads(two_cpus, CROWDED, 2) == (0, 0) and place_threads(two_cpus, CROWDED, 1) is None


def test_records_of_locks_are_on_the_nodes_of_their_owners(two_sockets):
    """What all share on the first thread's node; then a page for each thread, node or CPU, each on its own."""
    benchmark, page = find("contention"), base_page()
    at = {"critical_section": 0, "think_time": 0, "read_share": 0, "placement": "cross_package", "threads": 6}
    for primitive in benchmark.axes[0].values:
        where = benchmark.place({**at, "primitive": primitive}, two_sockets)
        nodes = [two_sockets.node_of(cpu) for cpu in where.cpus]
        owners = {
            "rseq_sharded": [two_sockets.node_of(cpu) for cpu in two_sockets.cpus],
            **dict.fromkeys(("atomic_add_per_node", "hbo", "cohort"), sorted(set(nodes))),
        }.get(primitive, nodes)
        assert len(set(nodes)) > 1 and where.parts == (*[nodes[0]] * HOME, *owners), primitive
        assert where.size == page * len(where.parts) and where.node == nodes[0]
    alone = benchmark.place({**at, "primitive": "mcs", "placement": ALONE, "threads": 1}, two_sockets)
    assert alone.parts == () and alone.size == page * (HOME + 1)


def test_windows_grow_with_a_crowd_at_one_lock():
    benchmark = find("contention")
    assert [benchmark.stretch({"threads": n, "placement": "node"}) for n in (1, 2, 64, 128, 512)] == [1, 1, 1, 2, 8]


@pytest.mark.parametrize(
    ("asked", "hop", "used"),
    [
        (200, 28e-9, 200),
        (200, 101e-9, 400),
        (200, 350e-9, 800),
        (60, 350e-9, 60),
        (0, 350e-9, 0),
        (200, None, 200),
        (400, 300e-9, 800),
    ],
)
def test_spacing_takes_two_hops(asked, hop, used):
    """Told at what was asked for: 101 ns apart, 200 multiplies of 1 ns are doubled, and the 200 ns more are taken off again."""
    benchmark, probes = find("padded_counters"), Probes(frequency=3e9, multiply=1e-9, hop=hop)
    p = {"operation": "increment", "stride": 8, "spacing": asked}
    arguments = benchmark.arguments(p, probes)
    assert arguments["spacing"] == used
    thread = SimpleNamespace(operations=1000, begin_ns=0, end_ns=1_000_000, value=[0] * 6 + [used])
    metrics = benchmark.metrics(p, Found([thread, thread]), probes)
    assert metrics["time_per_operation"] == pytest.approx(1000 - (used - asked))
    assert benchmark.extra(arguments, probes, Found([thread])) == {"spacing": used, "spacing_ns": pytest.approx(used)}
    assert benchmark.doubts(p, Found([thread, thread]), metrics, probes) == []


def test_what_is_taken_off_at_a_wrong_price_is_said():
    """400 multiplies of 1 ns and a hop, of which the 200 beyond those asked for were thought to take 3 ns each: a time below zero."""
    benchmark, probes = find("padded_counters"), Probes(frequency=1e9, multiply=3e-9, hop=500e-9)
    p = {"operation": "increment", "stride": 8, "spacing": 200}
    found = Found([SimpleNamespace(operations=1000, begin_ns=0, end_ns=500_000, value=[0] * 6 + [400])])
    metrics = benchmark.metrics(p, found, probes)
    assert metrics["time_per_operation"] == pytest.approx(-100)
    assert benchmark.doubts(p, found, metrics, probes) == ["physics:200 multiplies of 3 ns in -100 ns"]
    assert benchmark.doubts({**p, "spacing": 400}, found, benchmark.metrics({**p, "spacing": 400}, found, probes), probes) == []


def test_a_budget_below_any_process_is_refused(two_cpus):
    with pytest.raises(UsageError, match=r"a budget of 100.0 ms is shorter than any process: .*--budget \d+s at least"):
        make_plan([find("memory_latency")], two_cpus, budget=0.1)


def test_what_is_lacking_is_named(two_cpus):
    one_cpu = msgspec.structs.replace(two_cpus, allowed_cpus=(0,))
    with pytest.raises(MachineError, match="core_to_core: needs two CPUs"):
        make_plan([find("core_to_core")], one_cpu)
    with pytest.raises(MachineError, match=r"threads=99 .* other cases: no such place; usable here are 2 CPUs \(0-1\)"):
        make_plan([find("contention")], two_cpus, selection={"threads": (99,), "placement": ("l3",)})


def test_only_those_cases_are_said_to_lack_something_that_do(two_cpus):
    """Named by the axis that tells them from the others; where none does, by the first and how many more."""
    one_cpu = msgspec.structs.replace(two_cpus, allowed_cpus=(0,))
    (said,) = make_plan([find("address_space")], one_cpu, profile="quick").skipped
    assert said == "address_space bystander=sleeping,spinning: needs a CPU for each bystander"
    benchmark = find("stealing")
    cases = [{"action": action, "lines": lines, "placement": "l3"} for action in ("pop", "steal") for lines in (0, 64)]
    assert plan.apart(benchmark, cases[2:], cases[:2]) == "stealing action=steal"
    assert plan.apart(benchmark, cases[:3], cases[3:]) == "stealing action=pop lines=0 placement=l3 and 2 other cases"


def test_the_largest_set_is_called_memory_only_where_no_cache_holds_it(two_cpus):
    memory = memory_size(two_cpus, (0,))
    for size, words in ((memory, "(memory)"), (memory // 4, "(memory and caches: only")):
        cases = [{"size": size, "order": "group", "page_size": "thp", "chains": 1, "laps": 1}]
        assert words in find("memory_latency").answers(two_cpus, cases)[-1].text


def curve(levels: dict[int, float], memory: int) -> list[tuple[dict, float]]:
    """Latencies of the main curve at every power of two up to `memory`: those of the smallest level that holds it."""
    sizes = [1 << k for k in range(11, memory.bit_length())]
    return [({**MAIN, "size": size}, next((ns for held, ns in levels.items() if size <= held), 100.0)) for size in sizes]


def test_what_neighbours_leave_of_a_cache_is_measured_too(tmp_path):
    tree = SyntheticTree(tmp_path, cores=2, memory_gib=64)
    topology = read_topology(str(tree.root))
    caches = own_caches(topology)
    memory = memory_size(topology, topology.order_cpus()[:1])
    l3 = caches[3]
    small, whole = (curve({caches[1]: 1.0, caches[2]: 4.0, held: 30.0}, memory) for held in (l3 // 4, l3))
    assert effective_cache(small, topology) == pytest.approx(l3 // 4 * 2**0.5, rel=0.5)
    bandwidth = find("memory_bandwidth")
    added = bandwidth.refine(small, topology)
    assert {p["kernel"] for p in added} == set(TEMPORAL) and {p["threads"] for p in added} == {1, 2}
    assert all(caches[2] < p["size"] < l3 // 4 and bandwidth.place(p, topology) for p in added)
    assert bandwidth.refine(whole, topology) == []  # as the firmware says: the sweep has that half
    tiny = curve({caches[1]: 1.0, caches[2]: 4.0, 3 * caches[2] // 2: 30.0}, memory)
    assert bandwidth.refine(tiny, topology) == []  # L2 would hold half of that
    assert bandwidth.refine([], topology) == bandwidth.refine(small[:-3], topology) == []  # memory was not seen


def test_points_by_another_benchmark_are_added_once(tmp_path, monkeypatch):
    root = str(SyntheticTree(tmp_path, cores=2, memory_gib=64).root)
    visit = Visit(Request(benchmarks=("memory_latency", "memory_bandwidth")), root)
    monkeypatch.setattr(visit, "describe", lambda *_: None)
    caches = own_caches(visit.topology)
    memory = memory_size(visit.topology, visit.topology.order_cpus()[:1])
    added = []
    for held in (caches[3] // 4, caches[3] // 8):  # medians move from one look to the next
        points = curve({caches[1]: 1.0, caches[2]: 4.0, held: 30.0}, memory)
        samples = tuple(
            Sample(case=str(p["size"]), index=0, parameters=p, valid=True, metrics={"latency": ns}) for p, ns in points
        )
        trial = SimpleNamespace(benchmark="memory_latency", samples=samples)
        blocks, _ = visit.refine([trial], dict.fromkeys(("memory_latency", "memory_bandwidth")), "r")
        added.append([block for block in blocks if block.benchmark == "memory_bandwidth"])
    assert added[0] and not added[1]


def test_a_level_is_named_by_a_set_that_is_surely_within_it(tmp_path):
    topology = read_topology(str(SyntheticTree(tmp_path, cores=2).root))
    caches = own_caches(topology)
    sizes = [1 << k for k in range(11, 32)]
    sets = {level: size for level, size, _ in level_sets(sizes, topology)}
    assert sets["L1"] <= caches[1] // 2 and sets["L2"] <= caches[2] // 2
    assert caches[2] < sets["L3"] <= min(BEYOND_L2 * caches[2], caches[3] // 2)


@pytest.mark.parametrize("profile", PROFILES)
def test_contracts_of_runtimes_are_placed_and_fit_their_budget(two_sockets, two_cpus, profile):
    """Those of the topic `runtime`: some put two threads on one CPU."""
    if not any(PROFILES[profile].has(benchmark, two_cpus) for benchmark in choose(["runtime"])):
        return
    for topology in (two_sockets, two_cpus):
        plan = make_plan(choose(["runtime"]), topology, profile=profile)
        planned = [case for block in plan.blocks for case in block.cases]
        assert {block.benchmark for block in plan.blocks} == {benchmark.name for benchmark in choose(["runtime"])}
        assert len({each.case.hash for each in planned}) == len(planned) > 100
        for each in planned:
            assert set(each.placement.cpus) <= set(topology.allowed_cpus)
            assert 1 <= len(set(each.placement.cpus)) <= len(each.placement.cpus)
    assert profile != "quick" or plan.least_seconds <= plan.budget <= 60
    assert profile != "standard" or plan.least_seconds <= plan.budget <= 300


@pytest.mark.parametrize("word", ["same_cpu", "l3", ALONE, CROWDED])
def test_a_placement_is_a_relation_or_one_of_the_benchmark_s_own(word):
    assert parse_selection([find("channels")], [f"placement={word}"]) == {"placement": (word,)}
    if word == "same_cpu":
        with pytest.raises(UsageError, match="same_cpu"):
            parse_selection([find("contention")], [f"placement={word}"])


def test_threads_are_alone_or_related(two_cpus):
    assert place_threads(two_cpus, ALONE, 1) == (0,)
    assert place_threads(two_cpus, SAME_CPU, 3) == (0, 0, 0)
    assert place_threads(two_cpus, ALONE, 2) is None and place_threads(two_cpus, "l3", 1) is None


def test_the_standard_plan_fits_its_budget_on_two_cpus(two_cpus):
    plan = make_plan(all_benchmarks(), two_cpus, profile="standard")
    assert plan.least_seconds <= plan.budget <= 600
    quick = make_plan(all_benchmarks(), two_cpus, profile="quick")
    assert quick.least_seconds <= quick.budget <= 90
    exact = make_plan(all_benchmarks(), two_cpus, processes=40)
    assert exact.budget > exact.most_seconds > 20 * 60  # as many as were asked for, however long


@pytest.mark.parametrize(
    ("benchmark", "setting"),
    [
        ("node_latency", "memory_node=7"),
        ("node_bandwidth", "memory_node=7"),
        ("first_touch", "memory_node=7"),
        ("loaded_latency", "load_node=7"),
        ("page_migration", "to_node=7"),
        ("core_to_core", "home=7"),
    ],
)
def test_a_node_without_memory_is_left_out_by_name_and_never_another_taken(two_sockets, benchmark, setting):
    found = find(benchmark)
    with pytest.raises(MachineError, match=f"nothing is left to measure: {benchmark}"):
        make_plan([found], two_sockets, selection=parse_selection([found], [setting]))
    name = setting.partition("=")[0]
    plan = make_plan([found], two_sockets, selection=parse_selection([found], [f"{name}=0,1,7"]))
    assert plan.cases and any(skipped.startswith(benchmark) for skipped in plan.skipped)
    assert 7 not in {c.case.parameters[name] for block in plan.blocks for c in block.cases}


SHAPES = {
    "two CPUs": {"cores": 2},
    "a desktop": {"cores": 8, "smt": 2, "memory_gib": 64},
    "two sockets": {"packages": 2, "cores": 16, "smt": 2, "memory_gib": 256},
    "eight nodes": {"packages": 2, "nodes": 4, "l3s": 2, "cores": 8, "smt": 2, "memory_gib": 96},
    "64 nodes": {"packages": 8, "nodes": 8, "cores": 2, "smt": 2},
}


def accepted(root, **request) -> Visit:
    return Visit(Request(profile="accept", **request), str(root))


@pytest.mark.parametrize("shape", SHAPES)
def test_one_visit_of_three_minutes_fits_any_machine(tmp_path, shape):
    planned = accepted(SyntheticTree(tmp_path, **SHAPES[shape]).root).plan
    assert planned.looks == (5,) and planned.skipped == ()
    assert planned.most_seconds <= planned.budget == 180, "all of it fits, on the estimate"
    assert 60 <= planned.cases <= 420
    assert {block.benchmark for block in planned.blocks} == {
        *("node_latency", "node_bandwidth", "memory_latency", "memory_bandwidth", "tlb_latency"),
        *("core_to_core", "padded_counters", "contention", "fences"),
    }


def test_256_cpus_of_eight_nodes_take_some_200_cells_and_every_link(tmp_path):
    planned = accepted(SyntheticTree(tmp_path, **SHAPES["eight nodes"]).root).plan
    points = [c.case.parameters | {"benchmark": block.benchmark} for block in planned.blocks for c in block.cases]
    assert 180 <= len(points) <= 260
    links = {(p["cpu_node"], p["memory_node"]) for p in points if p["benchmark"] == "node_latency"}
    assert links == {(a, b) for a in range(8) for b in range(8)}
    streams = {(p["cpu_node"], p["memory_node"]) for p in points if p["benchmark"] == "node_bandwidth"}
    assert {(n, n) for n in range(8)} < streams and len(streams) == 32
    pairs = [(p["cpu_a"] // 16 % 8, p["cpu_b"] // 16 % 8) for p in points if p["benchmark"] == "core_to_core"]
    assert {frozenset(pair) for pair in pairs} >= {frozenset((a, b)) for a in range(8) for b in range(a)}, "each two nodes"
    assert {p["company"] for p in points if p["benchmark"] == "core_to_core"} == {1}


def test_more_nodes_have_fewer_links_each_and_none_is_left_out(tmp_path):
    planned = accepted(SyntheticTree(tmp_path, **SHAPES["64 nodes"]).root, benchmarks=("node_latency", "core_to_core")).plan
    points = [c.case.parameters for block in planned.blocks for c in block.cases]
    assert [(p["cpu_node"], p["memory_node"]) for p in points if "cpu_node" in p] == [(n, n) for n in range(64)]
    across = [p for p in points if "cpu_a" in p and p["cpu_a"] // 2 % 64 != p["cpu_b"] // 2 % 64]
    assert len(across) == 64, "each node with the next one"


def test_equal_machines_have_the_same_cells_whatever_is_busy(two_sockets):
    """A cell that others lack says nothing of a machine: with memory in use some are left out by name, and the others stay as they are."""
    benchmarks = [b for b in all_benchmarks() if PROFILES["accept"].has(b, two_sockets)]

    def cells(**room) -> tuple[set[str], tuple[str, ...]]:
        planned = make_plan(benchmarks, two_sockets, profile="accept", **room)
        return {c.case.hash for block in planned.blocks for c in block.cases}, planned.skipped

    every, skipped = cells()
    assert cells(memory=1 << 34) == (every, ()) and not skipped
    fewer, named = cells(memory=100 << 20)
    assert fewer < every and named
    assert not PROFILES["accept"].refines, "points are not added by what was found"


def test_the_biggest_cores_alone_are_accepted(tmp_path):
    from test_kinds import small_first

    visit = accepted(small_first(tmp_path).root, benchmarks=("fences", "memory_latency"))
    assert {c.case.parameters["core_kind"] for block in visit.plan.blocks for c in block.cases} == {"core"}


def test_a_benchmark_without_a_part_in_it_is_named(two_cpus, tmp_path):
    root = SyntheticTree(tmp_path / "tree", cores=2).root
    with pytest.raises(UsageError, match=r"card_marking has no part in profile accept. .* among padded_counters, "):
        accepted(root, benchmarks=("card_marking", "fences"))
    assert {block.benchmark for block in accepted(root, benchmarks=("cores",)).plan.blocks} == {
        *("padded_counters", "contention", "core_to_core", "fences")
    }
    with pytest.raises(UsageError, match="there is no profile .acept.*did you mean accept"):
        Visit(Request(profile="acept"), str(root))


def test_every_profile_is_said_in_the_help_and_the_documents():
    from click.testing import CliRunner

    from numabench.cli import command

    said = CliRunner().invoke(command, ["run", "--help"]).output
    documented = (Path(__file__).parents[1] / "docs/commands.md").read_text()
    (row,) = (line for line in documented.splitlines() if line.startswith("| `--profile` |"))
    for name in PROFILES:
        assert name in said and f"`{name}`" in row
