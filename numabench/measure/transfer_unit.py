"""How many bytes travel together between two caches, by measuring: what the firmware declares can be wrong, and kernels that then keep apart
too little measure sharing where they say that there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from statistics import median

from .. import kernel as abi
from ..benchmarks import MOST_LINE
from ..errors import NumabenchError
from ..host.findings import Finding
from ..host.memory import Buffer
from ..host.placement import pin_thread, start
from ..host.topology import Topology, read_topology
from ..model import Frozen

DISTANCES = tuple(8 << k for k in range(9))
SLOTS, ROUNDS, SLOT_BYTES = 2 * len(DISTANCES) + 1, 11, 16384  # as in kernels/transfer_unit.c
SIZE = SLOTS * SLOT_BYTES + 8192
SLOT_NS = 12_000  # some two hundred increments of two threads on one line, and seldom a tick of the timer
LEAST_ROUNDS = 5  # undisturbed ones, of which the median counts
LEAST_PRICE = 0.25  # of an increment: less than that, and these two CPUs share a cache that has no transfers
SHARED, FREE = 0.6, 0.3  # of the price of one line: neighbours that a prefetcher couples cost less, and are then not told
ENTRIES, AGREE = 30, 2  # tries, 3 ms each on CPUs with nothing else to do; those that must tell the same
LEAST_LINE = 16
MOST_PAIRS = 3  # nearest and farthest relations among them


class Line(Frozen):
    """Bytes of a cache line: the largest that the machine declares, and the unit that travelled; None where not told."""

    declared: int | None = None
    measured: int | None = None

    @property
    def bytes(self) -> int | None:
        """What kernels keep apart must be as far apart as the larger one says."""
        return max((size for size in (self.declared, self.measured) if size), default=None)

    @property
    def surprising(self) -> bool:
        """Whether more travels than is declared."""
        return bool(self.measured) and self.measured > (self.declared or 0)


def plausible(size: object) -> int | None:
    """`size` where it can be that of a line; None for what firmware, or a log that somebody has changed, says otherwise."""
    return size if isinstance(size, int) and LEAST_LINE <= size <= MOST_LINE and size & (size - 1) == 0 else None


def recorded_line(machine: dict) -> Line | None:
    """What the header of a log says of the line that its kernels were compiled for; None where it says nothing."""
    if not {"line_declared", "line_measured"} <= set(machine):
        return None
    return Line(declared=plausible(machine["line_declared"]), measured=plausible(machine["line_measured"]))


def find_line(topology: Topology) -> Line:
    """The line of the machine that this is. Takes some 10 ms for each pair of CPUs; nothing that goes wrong with it stops a visit."""
    declared = plausible(topology.largest_line_bytes())
    pairs = pairs_of(topology)
    if not pairs:
        return Line(declared=declared)
    kernel = abi.Kernel(abi.build("transfer_unit").target)
    try:
        return Line(
            declared=declared, measured=largest(agreed(measure_pair(kernel, pair) for _ in range(ENTRIES)) for pair in pairs)
        )
    except NumabenchError:  # a CPU that went offline, no memory: whoever needs them says so
        return Line(declared=declared)


def largest(units: Iterable[int | None]) -> int | None:
    return max((unit for unit in units if unit), default=None)


def pairs_of(topology: Topology) -> list[tuple[int, int]]:
    """Two CPUs of each relation, those of one core apart, whose first cache is one; where relations are many the nearest and the farthest."""
    found = [topology.choose_cpus(relation, 2) for relation in topology.relations() if relation != "smt"]
    pairs = [(pair[0], pair[1]) for pair in found if pair]
    return pairs if len(pairs) <= MOST_PAIRS else [*pairs[: MOST_PAIRS - 1], pairs[-1]]


def agreed(units: Iterable[int | None]) -> int | None:
    """The first unit that AGREE of the entries tell; no more entries are made than that takes."""
    told: dict[int, int] = {}
    for unit in units:
        if unit:
            told[unit] = told.get(unit, 0) + 1
            if told[unit] == AGREE:
                return unit if len(told) == 1 else None
    return None


def measure_pair(kernel: abi.Kernel, cpus: tuple[int, int]) -> int | None:
    """The unit by one entry into the kernel on two CPUs."""
    return unit_of(*enter(kernel, cpus))


def enter(kernel: abi.Kernel, cpus: tuple[int, int]) -> list[list[int]]:
    """What each of two threads of their own noted, on these CPUs. Raises MachineError where one of them cannot be had."""
    memory, case = Buffer(SIZE), abi.CaseBlock()
    blocks, errors = (abi.ThreadBlock(), abi.ThreadBlock()), []
    case.threads, case.buffer, case.buffer_bytes, case.window_ns = 2, memory.address, SIZE, SLOT_NS
    for slot, value in enumerate(kernel.encode({})):
        case.parameter[slot] = value
    ready = threading.Barrier(2)  # both are where they should be before one enters: it would wait for the other in C

    def follow(index: int) -> None:
        block = blocks[index]
        block.shared, block.index, block.schedstat = abi.c.pointer(case), index, -1
        try:
            pin_thread(cpus[index])
            ready.wait()
            for phase in (abi.PREPARE, abi.MEASURE):
                if index == 0:
                    case.phase = phase
                ready.wait()
                kernel.run(block)
                ready.wait()
        except threading.BrokenBarrierError:
            pass
        except NumabenchError as error:
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=follow, args=(index,), daemon=True) for index in (0, 1)]
    try:
        for thread in threads:
            start(thread)
    except BaseException:
        if threads[1].ident is None:  # nobody waits for one that is not there; once there are two they end by themselves
            ready.abort()
        raise
    for thread in threads:
        thread.join()
    memory.close()
    if errors:
        raise errors[0]
    if any(block.check != block.executed for block in blocks):
        raise AssertionError(f"increments were lost: {[(block.check, block.executed) for block in blocks]}")
    return [list(block.histogram[: SLOTS * ROUNDS]) for block in blocks]


def unit_of(first: Sequence[int], second: Sequence[int]) -> int | None:
    """The smallest distance from which on two counters disturb each other no more, by what two threads noted for each round and slot (in ps,
    0 where one was disturbed); None where they never do, always do, or where that is not clear."""
    times = []
    for slot in range(SLOTS):
        pairs = [(first[k], second[k]) for k in range(slot, SLOTS * ROUNDS, SLOTS)]
        both = [(one + other) / 2 for one, other in pairs if one and other]
        if len(both) < LEAST_ROUNDS:
            return None
        times.append(median(both))
    *near, control = times
    price = near[0] - control
    if price < LEAST_PRICE * control:
        return None
    shares = [(max(near[2 * k], near[2 * k + 1]) - control) / price for k in range(len(DISTANCES))]
    shared = [distance for distance, share in zip(DISTANCES, shares, strict=True) if share >= SHARED]
    free = [distance for distance, share in zip(DISTANCES, shares, strict=True) if share <= FREE]
    if not shared or not free or len(shared) + len(free) < len(DISTANCES) or max(shared) > min(free):
        return None
    return min(free)


def line_finding() -> Finding | None:
    """What `numabench check` says of the line; nothing where no kernel can be compiled, which is a finding of its own."""
    try:
        line = find_line(read_topology())
    except NumabenchError:
        return None
    if line.surprising:
        said = f"{line.declared} are declared" if line.declared else "no size is declared"
        return Finding(
            "cache line",
            "note",
            f"{line.measured} bytes travel together where {said}",
            "numabench keeps apart what the larger size asks for; programs that pad to the declared one share lines",
            f"alignas({line.measured}) for what several threads write",
        )
    return Finding("cache line", "ok", f"{line.bytes or 'unknown'} bytes, {'measured' if line.measured else 'as declared'}")
