"""What will be measured, where, and in which order: blocks of cases, seeded shuffles, expected time."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property

import msgspec

from ..benchmarks import ALONE, CROWDED, Benchmark, Parameters, Placement
from ..errors import MachineError, UsageError
from ..host.memory import FIRST_TOUCH, IN_TURN, Placing
from ..host.pages import BASE, HUGETLB, THP, base_page, page_bytes, page_words, reserve_command
from ..host.topology import RELATIONS, Topology
from ..model import Axis, Case, Frozen, Value, judged_in_pairs
from ..text import near
from ..units import format_bytes, format_cpus, format_seconds, parse_bytes, plural
from .profiles import Profile, find_profile
from .protocol import Companion, JobCase, Timing

LOOKS = (5, 8, 12, 20, 32)  # planned looks: looking after each process would stop on luck
LEAST_PAIRED = 8  # processes where pairs are judged, which they are not before (analysis/estimate.py, LEAST_PAIRS)
TARGET = 0.015  # relative half-width of the 95 % interval: two sides that have it are told to be the same within 3 % in three of four comparisons
TRIAL_SECONDS = 10.0  # of one process: start-up and mapping large memory stay small in it, and no more is lost to a crash

# Prices for the first estimate, from the trials of runs on two machines (docs/performance.md, "Planned against real"); the runner then uses what it measured.
PROCESS_OVERHEAD = 0.012  # forked, told what to do and ended
CASE_OVERHEAD = 0.0015
SAMPLE_OVERHEAD = 0.0012  # the state of the CPUs looked at, judged and written
PROBE = 0.001  # of anything else that is looked at around each sample
SAMPLE_THREAD = 10e-6  # s per thread: called, gathered, copied and judged
ROUND_THREAD = 45e-6  # of a round: pinned and called too, each pair judged by itself (24 us) and written (18 us)
CASE_THREAD = 25e-6  # pinned, prepared
PROCESS_THREAD = 60e-6  # made and ended
TURN = 0.002  # s that a thread has its CPU before the next one gets it, where they are more than CPUs: all of them must begin
CHAIN_OVERHEAD = 0.3e-9  # s per byte of a chain's lines
FILL_OVERHEAD = 0.2e-9  # s per byte and thread that fills its own part
TOUCH_OVERHEAD = 0.15e-9  # s per byte and thread the first time in a process: up to 0.7 where a host has to give the memory first
LINES_PER_SCRATCH = 16  # bytes of lines for each byte that building their chain takes
GENEROSITY = 2.0  # of the budget for a given number of processes over their expected time


class PlannedCase(Frozen, gc=False):  # millions of pairs, and none in a cycle: the collector need not look at them
    case: Case
    placement: Placement
    group: tuple
    seconds: float  # that its samples are expected to take, without the preparation of its memory
    preparation: tuple | None = None  # cases of one block with the same one share memory
    round: Hashable | None = None  # cases of one block with the same one are measured at the same time


class Block(Frozen, dict=True):
    """Cases that one process executes: whole contrast groups, so that pairs stay in one process."""

    benchmark: str
    name: str
    cases: tuple[PlannedCase, ...]
    least: int = LOOKS[0]  # processes before anything of it can be judged

    @cached_property
    def seconds(self) -> float:
        """Expected duration of one process."""
        threads = max(sum(len(each.placement.cpus) for each in together) for together in in_rounds(self.cases))
        return PROCESS_OVERHEAD + threads * PROCESS_THREAD + cases_seconds(self.cases)


class Plan(Frozen):
    blocks: tuple[Block, ...]
    profile: str
    timing: Timing
    budget: float
    target: float
    looks: tuple[int, ...]
    seed: int
    skipped: tuple[str, ...] = ()
    placing: Placing = Placing()  # how memory gets to its node on this machine

    @property
    def cases(self) -> int:
        return sum(len(b.cases) for b in self.blocks)

    @property
    def key(self) -> str:
        """What two plans share when one can go on with what the other began: blocks, their cases, seed and timing."""
        text = [(b.name, [c.case.hash for c in b.cases]) for b in self.blocks], self.seed, repr(self.timing), self.placing.how
        return hashlib.sha256(repr(text).encode()).hexdigest()[:16]

    @property
    def least_seconds(self) -> float:
        """Expected time until everything can be judged for the first time."""
        return sum(min(b.least, self.looks[-1]) * b.seconds for b in self.blocks)

    @property
    def most_seconds(self) -> float:
        """Expected time of all processes that may be needed."""
        return self.looks[-1] * sum(b.seconds for b in self.blocks)


def cases_seconds(cases: Iterable[PlannedCase]) -> float:
    """Expected time of these cases in one process; memory that several share is prepared once, and a round takes as long as one of it
    and what each of its threads costs."""
    rounds = in_rounds(cases)
    company = sum(len(each.placement.cpus) for together in rounds if len(together) > 1 for each in together)
    cases = [each[0] for each in rounds]
    shared = {(c.preparation, c.placement): c for c in cases if c.preparation is not None}
    alone = [c for c in cases if c.preparation is None]
    touched: dict[tuple, float] = {}  # a process maps large memory once, for all cases that ask for the same kind
    for where in (c.placement for c in cases):
        kind = where.page_size, where.node, where.parts, where.policy
        touched[kind] = max(touched.get(kind, 0.0), where.size * TOUCH_OVERHEAD / len(where.cpus))
    prepared = sum(preparation_seconds(c.placement) for c in [*shared.values(), *alone])
    return sum(c.seconds for c in cases) + company * ROUND_THREAD + prepared + sum(touched.values())


def in_rounds(cases: Iterable[PlannedCase]) -> list[list[PlannedCase]]:
    """The cases in their order, those of one round together where the first of them is."""
    rounds: dict[Hashable, list[PlannedCase]] = {}
    for case in cases:
        rounds.setdefault(case.case.hash if case.round is None else (case.round,), []).append(case)
    return list(rounds.values())


def case_seconds(benchmark: Benchmark, timing: Timing, stretch: float = 1.0, cpus: Sequence[int] = (0,)) -> float:
    """Expected time of the samples of a case with threads on `cpus`, without the preparation of its memory."""
    crowd = -(-len(cpus) // len(set(cpus)))  # threads on one CPU
    sample = timing.window * stretch * benchmark.windows + benchmark.seconds + timing.warmup + SAMPLE_OVERHEAD
    sample += len(cpus) * SAMPLE_THREAD + (crowd - 1) * TURN
    samples = benchmark.samples(timing.samples)
    # what work costs is asked for beforehand as well
    probes = benchmark.needs_interrupt * (samples + 1) + benchmark.needs_work * (samples + 2)
    return samples * sample + probes * PROBE + CASE_OVERHEAD + len(cpus) * CASE_THREAD


def preparation_seconds(where: Placement) -> float:
    chain = min(where.scratch * LINES_PER_SCRATCH, where.size)  # scratch may hold other things than a chain's order
    return chain * CHAIN_OVERHEAD + where.size * FILL_OVERHEAD / len(where.cpus)


def parse_selection(benchmarks: Sequence[Benchmark], settings: Iterable[str]) -> dict[str, tuple[Value, ...]]:
    """`axis=value[,value...]` settings as values; each must name an axis of one of the benchmarks at least."""
    chosen: dict[str, tuple[Value, ...]] = {}
    axes: dict[str, list[Axis]] = {}
    for benchmark in benchmarks:
        for axis in benchmark.axes:
            axes.setdefault(axis.name, []).append(axis)
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not text:
            raise UsageError(f"{setting!r} is not a parameter setting", "write it as --set stride=8,64")
        if name not in axes:
            raise UsageError(
                f"no benchmark chosen here has a parameter {name!r}{near(name, axes)}", f"choose among {', '.join(axes)}"
            )
        values = [parse_any(axes[name], word.strip()) for word in text.split(",") if word.strip()]
        chosen[name] = tuple(dict.fromkeys([*chosen.get(name, ()), *values]))
    return chosen


def parse_any(axes: list[Axis], word: str) -> Value:
    """The value that `word` is on the first axis that takes it; the last refusal if none does."""
    for axis in axes[:-1]:
        try:
            return parse_value(axis, word)
        except UsageError:
            continue
    return parse_value(axes[-1], word)


def accepts(axis: Axis, value: Value) -> bool:
    """Whether an axis takes a value that some benchmark's axis of that name took."""
    try:
        return parse_value(axis, str(value)) == value
    except UsageError:
        return False


def named_values(axis: Axis) -> list[str]:
    """The words that an axis takes; empty where it takes numbers. A placement's own are those that it has beside the relations."""
    own = [v for v in axis.values if isinstance(v, str)]
    return [*dict.fromkeys((ALONE, *RELATIONS[1:], CROWDED, *own))] if axis.name == "placement" else own


def parse_value(axis: Axis, word: str) -> Value:
    if allowed := named_values(axis):
        if word not in allowed:
            raise UsageError(f"{axis.name} has no value {word!r}{near(word, allowed)}", f"choose among {', '.join(allowed)}")
        return word
    try:
        value = parse_bytes(word) if axis.unit == "B" else int(word)
    except ValueError as error:
        raise UsageError(
            f"{axis.name} takes whole numbers, not {word!r}",
            f"for example --set {axis.name}={axis.values[0] if axis.values else 1}",
        ) from error
    low, high = axis.least if axis.least is not None else 0, axis.most
    if value < low or (high is not None and value > high) or value % axis.step:
        rule = f"{low} to {high}" if high is not None else f"{low} and more"
        raise UsageError(
            f"{axis.name}={word} is not possible", f"choose {rule}" + (f" in steps of {axis.step}" if axis.step > 1 else "")
        )
    return value


def expand(
    benchmark: Benchmark, topology: Topology, profile: Profile, selection: dict[str, tuple[Value, ...]]
) -> list[Parameters]:
    """The pruned product of the profile's sweeps, with the selection's values in place of the profile's."""
    points: dict[tuple, Parameters] = {}
    names = [axis.name for axis in benchmark.axes]
    chosen = {a.name: [v for v in selection[a.name] if accepts(a, v)] for a in benchmark.axes if a.name in selection}
    for sweep in profile.sweeps(benchmark, topology):
        values = {name: chosen.get(name, sweep[name]) for name in names}
        for point in itertools.product(*(values[name] for name in names)):
            parameters = dict(zip(names, point, strict=True))
            if benchmark.keep(parameters, topology):
                points.setdefault(point, parameters)
    return list(points.values())


def make_plan(
    benchmarks: Sequence[Benchmark],
    topology: Topology,
    *,
    profile: str = "standard",
    selection: dict | None = None,
    seed: int = 1,
    budget: float | None = None,
    target: float = TARGET,
    processes: int | None = None,
    memory: int | None = None,
    reserved: Callable[[str, int | None], int] | None = None,
    free: Callable[[int], int | None] | None = None,
    placing: Placing | None = None,
    **timing_changes,
) -> Plan:
    """Plan `benchmarks` on a machine. `memory` bytes are what a buffer may take, `reserved` says how many there are in reserved
    huge pages of a size on a node, `free` how many bytes a node has, `placing` how memory gets there: cases beyond are skipped and named.
    `timing_changes` replace the profile's (see `Timing`).
    Raises MachineError when nothing is left."""
    chosen, selection = find_profile(profile), selection or {}
    timing = msgspec.structs.replace(chosen.timing, **timing_changes)
    blocks, skipped = [], []
    for benchmark in benchmarks:
        points = expand(benchmark, topology, chosen, selection)
        planned, left_out = plan_cases(benchmark, points, topology, timing, memory, reserved, free, placing)
        skipped += left_out
        blocks += make_blocks(benchmark, planned, topology)
    if not blocks:
        given = " ".join(f"{name}={','.join(map(str, values))}" for name, values in selection.items())
        why = f"no case has {given} beside the values of profile {profile}; set those that it goes with as well"
        raise MachineError(
            f"nothing is left to measure: {skipped[0] if skipped else why}",
            "numabench list NAME shows the parameters, numabench machine what is here",
        )
    exactly = processes or chosen.processes
    looks = (exactly,) if exactly else LOOKS
    wanted = sum((exactly or block.least) * block.seconds for block in blocks)
    if budget is None:  # a number of processes that was asked for is not cut short by an estimate that was too low
        budget = (
            max(GENEROSITY * wanted, chosen.least_budget)
            if processes
            else min(max(wanted, chosen.least_budget), chosen.most_budget)
        )
    if all(block.seconds > budget for block in blocks):
        least = min(blocks, key=lambda block: block.seconds)
        raise UsageError(
            f"a budget of {format_seconds(budget)} is shorter than any process: one of {least.benchmark} takes {format_seconds(least.seconds)}",
            f"--budget {math.ceil(least.seconds * looks[0])}s at least, or fewer values with --set",
        )
    blocks, dropped = fit_blocks(blocks, budget / min(looks[0], LOOKS[0]))
    if dropped:
        skipped.append(
            f"{plural(sum(len(b.cases) for b in dropped), 'case')} of {', '.join(dict.fromkeys(b.benchmark for b in dropped))}: the "
            f"budget of {format_seconds(budget)} is too short; all need --budget {math.ceil(wanted / 60)}m"
        )
    return Plan(
        blocks=tuple(blocks),
        profile=profile,
        timing=timing,
        budget=budget,
        target=target,
        looks=looks,
        seed=seed,
        skipped=tuple(dict.fromkeys(skipped)),
        placing=placing or Placing(),
    )


def plan_cases(
    benchmark: Benchmark,
    points: Iterable[Parameters],
    topology: Topology,
    timing: Timing,
    memory: int | None = None,
    reserved: Callable[[str, int | None], int] | None = None,
    free: Callable[[int], int | None] | None = None,
    placing: Placing | None = None,
) -> tuple[list[PlannedCase], list[str]]:
    """The points with their places, and why others have none (see `make_plan`)."""
    planned, skipped, nowhere, somewhere, points = [], [], [], [], list(points)
    if not points and benchmark.needs:
        skipped.append(f"{benchmark.name}: needs {benchmark.needs}")
    for parameters, together in zip(points, benchmark.rounds(points), strict=True):
        placement = benchmark.place(parameters, topology)
        case = Case(benchmark=benchmark.name, parameters=parameters)
        (nowhere if placement is None else somewhere).append(parameters)
        if placement is None:
            continue
        if missing := lacking_pages(placement, reserved):
            skipped.append(f"{benchmark.name} in reserved pages of {placement.page_size}: {missing}")
        elif obstacle := out_of_reach(benchmark, placement, placing or Placing(), topology):
            skipped.append(f"{benchmark.name}: {obstacle}")
        elif memory is not None and placement.size + placement.scratch > memory:
            skipped.append(
                f"{label(benchmark, parameters)}: needs {format_bytes(placement.size + placement.scratch)} of memory, "
                f"{format_bytes(memory)} may be used here"
            )
        elif crowded := full_node(placement, free):
            skipped.append(f"{label(benchmark, parameters)}: {crowded}")
        else:
            planned.append(
                PlannedCase(
                    case=case,
                    placement=placement,
                    group=benchmark.group(parameters),
                    seconds=case_seconds(benchmark, timing, benchmark.stretch(parameters), placement.cpus),
                    preparation=benchmark.preparation(parameters),
                    round=together,
                )
            )
    return planned, [*([without_place(benchmark, nowhere, somewhere, topology)] if nowhere else []), *skipped]


def without_place(benchmark: Benchmark, cases: list[Parameters], others: list[Parameters], topology: Topology) -> str:
    """Why this machine has no place for these cases, in one line for all; `others` have one."""
    if benchmark.needs:
        return f"{apart(benchmark, cases, others) if others else benchmark.name}: needs {benchmark.needs}"
    nodes = f", memory on {plural(len(found), 'node')} ({format_cpus(found)})" if (found := topology.memory_nodes()) else ""
    here = f"usable here are {plural(len(topology.allowed_cpus), 'CPU')} ({format_cpus(topology.allowed_cpus)}){nodes}"
    return f"{first_and_more(benchmark, cases)}: no such place; {here}"


def apart(benchmark: Benchmark, cases: list[Parameters], others: list[Parameters]) -> str:
    """`wake_up target=spinning`: cases by the first axis whose values tell all of them from the others; without such an axis the first one, and how many more."""
    for name in (axis.name for axis in benchmark.axes):
        values = dict.fromkeys(case[name] for case in cases)
        if values.keys().isdisjoint(case[name] for case in others):
            return label(benchmark, {name: ",".join(map(str, values))})
    return first_and_more(benchmark, cases)


def first_and_more(benchmark: Benchmark, cases: list[Parameters]) -> str:
    more = f" and {plural(len(cases) - 1, 'other case')}" if len(cases) > 1 else ""
    return f"{label(benchmark, cases[0])}{more}"


def label(benchmark: Benchmark, parameters: Parameters) -> str:
    """`memory_latency size=2 GiB order=group`: a case as people read it."""
    units = {axis.name: axis.unit for axis in benchmark.axes}
    words = (f"{name}={format_bytes(value) if units.get(name) == 'B' else value}" for name, value in parameters.items())
    return " ".join([benchmark.name, *words])


def bytes_by_node(placement: Placement) -> dict[int, int]:
    """What a case wants on each node: all on one, its parts, or a share of each that gets pages in turn (by weight: as if all were alike)."""
    nodes = placement.parts or (() if placement.node is None else (placement.node,))
    wanted: dict[int, int] = {}
    for node in nodes:
        wanted[node] = wanted.get(node, 0) + placement.size // len(nodes)
    return wanted


def lacking_pages(placement: Placement, reserved: Callable[[str, int | None], int] | None) -> str:
    """What reserved huge pages are missing, on which node, and the command that reserves them; empty where none are."""
    if placement.page_size not in HUGETLB:
        return ""
    page = page_bytes(placement.page_size)
    if placement.parts and placement.policy not in IN_TURN and placement.size // len(placement.parts) % page:
        return f"parts of {format_bytes(placement.size // len(placement.parts))} on several nodes are no multiple of a page"
    if reserved is None:
        return ""
    for node, size in (bytes_by_node(placement) or {None: placement.size}).items():
        there, needed = reserved(placement.page_size, node) // page, -(-size // page)
        if there < needed:
            where = f" on node {node}" if placement.parts else ""
            return f"needs {needed}{where}, {there} are free; {reserve_command(placement.size, placement.page_size)}"
    return ""


def full_node(placement: Placement, free: Callable[[int], int | None] | None) -> str:
    """The node that has no room for what is to be bound to it: the kernel would end some process to make it. Empty where all have, or do not say."""
    for node, size in bytes_by_node(placement).items() if free else ():
        room = free(node)
        if room is not None and size > room:
            return f"needs {format_bytes(size)} on node {node}, of which {format_bytes(room)} may be used"
    return ""


def out_of_reach(benchmark: Benchmark, placement: Placement, placing: Placing, topology: Topology) -> str:
    """Why this memory cannot be got on this machine, or not by the calls that are allowed here; empty where it can."""
    several = placement.parts and placement.policy not in IN_TURN and len({*placement.parts}) > 1
    if several and (each := placement.size // len(placement.parts)) % base_page():
        return f"parts of {format_bytes(each)} on several nodes are no multiple of a page of {page_words(BASE)}"
    if benchmark.counts_pages and placement.page_size == THP and not placing.transparent:
        return "this kernel gives no transparent huge pages (numabench check), and its figures are per page"
    if placing.refused and (missing := [call for call in benchmark.calls if call in placing.refused]):
        return f"calls {', '.join(missing)}, which may not be used here (numabench check)"
    if placing.how != FIRST_TOUCH or not (wanted := bytes_by_node(placement)):
        return ""
    if placement.policy != "bind":
        return f"the policy {placement.policy} needs mbind, which may not be used here (numabench check)"
    if far := sorted(set(wanted) - set(placing.touchers)):
        return f"memory of node {format_cpus(far)} needs mbind, which may not be used here: it has no CPU that could touch it first (numabench check)"
    if benchmark.touches_anew and {topology.node_of(cpu) for cpu in placement.cpus} != set(wanted):
        return f"fresh memory of node {format_cpus(wanted)} for CPUs of another needs mbind, which may not be used here (numabench check)"
    return ""


def fit_blocks(blocks: list[Block], seconds: float) -> tuple[list[Block], list[Block]]:
    """Blocks of which one round fits into `seconds`, benchmarks in turn, and the others. At least one always fits."""
    kept, used = set(), 0.0
    for number in sorted(range(len(blocks)), key=lambda number: int(blocks[number].name.rpartition("/")[2])):
        if not kept or used + blocks[number].seconds <= seconds:
            kept.add(number)
            used += blocks[number].seconds
    return [b for n, b in enumerate(blocks) if n in kept], [b for n, b in enumerate(blocks) if n not in kept]


def make_blocks(benchmark: Benchmark, planned: list[PlannedCase], topology: Topology, first: int = 0) -> list[Block]:
    """Whole groups, packed into blocks of about TRIAL_SECONDS, which are numbered from `first` on."""
    groups: dict[tuple, list[PlannedCase]] = {}
    for case in planned:
        groups.setdefault(case.group, []).append(case)
    packs: list[list[PlannedCase]] = []
    for group in groups.values():
        if not packs or cases_seconds([*packs[-1], *group]) > TRIAL_SECONDS:
            packs.append([])
        packs[-1] += group
    points = [case.case.parameters for case in planned]
    varied = [axis.name for axis in benchmark.axes if len({p[axis.name] for p in points}) > 1]
    paired = judged_in_pairs(benchmark.contrasts, benchmark.asked(topology, points), varied)
    return [
        Block(
            benchmark=benchmark.name,
            name=f"{benchmark.name}/{number}",
            cases=tuple(pack),
            least=LEAST_PAIRED if paired else LOOKS[0],
        )
        for number, pack in enumerate(packs, first)
    ]


def order_cases(block: Block, process: int, seed: int) -> list[PlannedCase]:
    """The order of one process: groups shuffled anew, cases within a group rotated through a cyclic Latin square whose
    permutation changes when each case has been in each position once."""
    groups: dict[tuple, list[PlannedCase]] = {}
    for case in block.cases:
        groups.setdefault(case.group, []).append(case)
    ordered = []
    for key, cases in groups.items():
        turn, shift = divmod(process, len(cases))
        shuffled = random.Random(f"{seed}/{block.name}/{key}/{turn}").sample(cases, len(cases))
        ordered.append(shuffled[shift:] + shuffled[:shift])
    random.Random(f"{seed}/{block.name}/{process}").shuffle(ordered)
    return [case for group in ordered for case in group]


def job_cases(block: Block, process: int, seed: int, topology: Topology) -> tuple[JobCase, ...]:
    """The block as a worker takes it. Each process gets chains and allocations of its own."""
    return tuple(job_case(planned, process, seed, topology) for planned in in_rounds(order_cases(block, process, seed)))


def job_case(planned: list[PlannedCase], process: int, seed: int, topology: Topology) -> JobCase:
    """A case, or a round of several, whose threads and parts of the memory follow each other."""
    first, where = planned[0], planned[0].placement
    cpus = tuple(cpu for each in planned for cpu in each.placement.cpus)
    nodes = [topology.node_of(cpu) for cpu in cpus]
    used = sorted({n for n in nodes if n is not None})
    homes = tuple(each.placement.node for each in planned)
    shared = first.case.parameters
    company = tuple(
        Companion(case=each.case.hash, parameters={k: v for k, v in each.case.parameters.items() if v != shared[k]})
        for each in planned
    )
    return JobCase(
        case=first.case.hash,
        parameters=first.case.parameters,
        cpus=cpus,
        groups=tuple(used.index(n) if n is not None else 0 for n in nodes),
        node=where.node,
        size=sum(each.placement.size for each in planned),
        scratch=where.scratch,
        page_size=where.page_size,
        parts=homes if len(planned) > 1 and None not in homes else where.parts,
        policy=where.policy,
        company=company if len(planned) > 1 else (),
        seed=random.Random(f"{seed}/{first.case.hash}/{process}").getrandbits(62),
    )
