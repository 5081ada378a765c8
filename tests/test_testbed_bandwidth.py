"""Overlap and bandwidth of the simulated machine without booting it: instructions are given to its C files one by one, and what they take is held against arithmetic."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from testbed.errors import MachineFileError
from testbed.expected import bandwidth as expected
from testbed.known import bandwidth as known
from testbed.machine import Machine, load_machine
from testbed.programs import MODEL
from testbed.qemu import configuration, memory_ranges

HERE = Path(__file__).resolve().parent
FILE = HERE.parent / "testbed/known/bandwidth.toml"
GIVEN = load_machine(FILE)
STREAMS = replace(GIVEN, timing=replace(GIVEN.timing, cache=1 << 16))  # soon full
NONE, READ, WRITE, UPDATE = 0, 1, 2, 3
Instruction = tuple[str, int, int, int]  # bytes of it, what it does to memory, address, bytes
CHASE = "488b00"  # mov (%rax),%rax
VECTOR_LOAD, VECTOR_STORE, VECTOR_PAST = "c5fd6f06", "c5fd7f07", "c5fde707"  # vmovdqa (%rsi),%ymm0 and back by %rdi; vmovntdq
SFENCE, MFENCE, LFENCE, RDTSCP = "0faef8", "0faef0", "0faee8", "0f01f9"
STEP = 32  # bytes of a vector

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.so"
    flags = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
    subprocess.run(["gcc", *flags, "-o", path, HERE / "memory_model.c", *MODEL], check=True)
    return path


class Model:
    """A machine whose CPUs execute what they are given: always the one whose clock is least."""

    def __init__(self, library: Path, machine: Machine, folder: Path):
        own = folder / f"{machine.name}.so"  # the model's state is the library's: one each
        shutil.copy(library, own)
        text = folder / "configuration"
        text.write_text(configuration(machine, True, 2))
        self.machine, self.c = machine, ctypes.CDLL(str(own))
        self.c.now.restype, self.c.execute.restype, self.c.go_on_executing.restype = ctypes.c_int64, ctypes.c_bool, ctypes.c_bool
        self.c.execute.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_int)
        self.c.decoded.restype = ctypes.c_uint64
        assert self.c.begin(str(text).encode())
        self.begins = {node: begin for begin, _, _, node in reversed(memory_ranges(machine))}

    def start(self, cpu: int, code: str, kind: int = NONE, address: int = 0, size: int = 8) -> bool:
        """Whether the instruction is done; otherwise it waits for its turn."""
        return self.c.execute(cpu, bytes.fromhex(code).ljust(16, b"\0"), kind, address, size)

    def execute(self, cpu: int, *instruction) -> float:
        """ns of the CPU's clock after the instruction, alone."""
        done = self.start(cpu, *instruction)
        while not done:
            done = self.c.go_on_executing(cpu)
        return self.now(cpu)

    def now(self, cpu: int) -> float:
        return self.c.now(cpu) / 1000

    def play(self, programs: dict[int, Iterator[Instruction]], until: float) -> dict[int, int]:
        """Instructions that each CPU has executed by then."""
        done, waiting = dict.fromkeys(programs, 0), set()
        while (least := min((self.now(cpu), cpu) for cpu in programs))[0] < until:
            cpu = least[1]
            if self.c.go_on_executing(cpu) if cpu in waiting else self.start(cpu, *next(programs[cpu])):
                done[cpu] += 1
                waiting.discard(cpu)
            else:
                waiting.add(cpu)
        return done


@pytest.fixture
def model(library, tmp_path):
    count = iter(range(1000))

    def make(machine: Machine = STREAMS) -> Model:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return Model(library, machine, folder)

    return make


def stream(model: Model, node: int, kernel: str, part: int, size: int = 1 << 20) -> Iterator[Instruction]:
    """What a thread of memory_bandwidth executes on its part of a node's memory, round and round; arrays a MiB apart."""
    kind, past = kernel.removesuffix("_nt"), kernel.endswith("_nt")
    loads = {"read": 1, "write": 0, "copy": 1, "triad": 2}[kind]
    first = model.begins[node] + part * 4 * size
    while True:
        for at in range(0, size, STEP):
            for array in range(loads):
                yield VECTOR_LOAD, READ, first + (array + 1) * size + at, STEP
            if kind != "read":
                yield VECTOR_PAST if past else VECTOR_STORE, WRITE, first + at, STEP


# -- machine files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("misses = 10", "misses = 0", "timing.overlap.misses = 0: 1 to 256"),
        ("misses = 10", "misses = 1000", "timing.overlap.misses = 1000"),
        ("misses = 10", "loads = 10", "[timing.overlap] has no key loads; there are misses"),
        ("[15, 10, 5]", "[15, 10]", "one number per node is needed"),
        ("[15, 10, 5]", "[15, 10, -5]", "timing.bandwidth.controller[2] = -5"),
        ("[15, 10, 5]", "[15, 10, inf]", "timing.bandwidth.controller[2] = inf"),
        ("[0, 8, 3]", "[1, 8, 3]", "a node has no link to itself"),
        ("[0, 8, 3], ", "", "timing.bandwidth.link is no 3 x 3 matrix"),
        ("[0, 8, 3]", "[0, 8, 1e9]", "timing.bandwidth.link[0][2] = 1000000000.0"),
        (
            "[timing.overlap]",
            "[timing.stores]\nbuffer = 8\n[timing.overlap]",
            "a store takes a place in a buffer or one of the misses",
        ),
        ("[timing]", "[timing]\noccupancy = [1, 1, 1]", "one of them says how long a line takes"),
    ],
)
def test_an_impossible_bus_is_one_line_that_says_what(tmp_path, old, new, said):
    text = FILE.read_text()
    assert text.count(old) == 1
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(MachineFileError) as error:
        load_machine(path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_bandwidths_become_the_time_of_a_line():
    assert STREAMS.timing.occupancy == (64 / 15, 6.4, 12.8) and STREAMS.timing.link[2] == (25.6, 64 / 6, 0.0)
    assert "limited 1" in configuration(STREAMS, True, 2) and "misses 10" in configuration(STREAMS, True, 2)
    plain = load_machine("two-socket")
    assert "limited" not in configuration(plain, True, 2) and "misses 0" in configuration(plain, True, 2)


# -- overlap --------------------------------------------------------------------------------------------------------------


def chains(model: Model, node: int, count: int, spilled: bool = False) -> Iterator[Instruction]:
    """Chases that take turns, in registers or, as kernels/memory_latency.c has more of them than registers, by places in memory."""
    at = [model.begins[node] + (k << 18) for k in range(count)]
    places = model.begins[node] + (200 << 20)
    while True:
        for k in range(count):
            register = k if k != 4 else 15  # %rsp is none of them, and 12 and 13 have other forms
            if spilled:
                yield "488b17", READ, places + 8 * k, 8  # mov (%rdi),%rdx
                yield "488b12", READ, at[k], 8  # mov (%rdx),%rdx
                yield "488917", WRITE, places + 8 * k, 8  # mov %rdx,(%rdi)
            else:
                low = register & 7
                yield f"{0x4D if register > 7 else 0x48:02x}8b{low << 3 | low:02x}", READ, at[k], 8
            at[k] += 64 * 67


@pytest.mark.parametrize(
    ("count", "spilled"), [(1, False), (2, False), (4, False), (8, False), (12, False), (4, True), (10, True), (32, True)]
)
def test_chases_at_the_same_time_overlap_as_little_says(model, count, spilled):
    m = model()
    span = 20_000.0
    lines = m.play({0: chains(m, 0, count, spilled)}, span)[0] / (3 if spilled else 1)
    assert span / lines == pytest.approx(expected.time_per_line(STREAMS, 0, 0, count), rel=0.02)


def test_a_load_waits_for_its_address_alone(model):
    timing = replace(STREAMS.timing, occupancy=(0.0,) * 3)  # so that two lines at once do not wait for each other
    m, step = model(replace(STREAMS, timing=timing)), timing.instruction
    at = m.begins[0]
    assert m.execute(0, CHASE, READ, at) == step  # goes on at once
    assert m.execute(0, "488b18", READ, at + 8192) == step + 100  # mov (%rax),%rbx: not before the line is there
    assert m.execute(0, VECTOR_LOAD, READ, at + 16384) == 2 * step + 100 and m.execute(0, SFENCE) == pytest.approx(2 * step + 200)


@pytest.mark.parametrize(
    ("between", "waits"),
    [
        (["4889c3", "488d5b08", "4883c310"], True),  # mov %rax,%rbx; lea 8(%rbx),%rbx; add $16,%rbx
        (["48c7c300000000"], False),  # mov $0,%rbx
        (["4831db"], False),  # xor %rbx,%rbx
        (["480fafd8"], True),  # imul %rax,%rbx
        (["480f44d8"], True),  # cmove %rax,%rbx
        (["c4e2f9f7d9"], True),  # shlx %rax,%rcx,%rbx
        (["85c0", "7400"], False),  # test, je: branches are predicted
    ],
)
def test_readiness_goes_from_register_to_register(model, between, waits):
    m, step = model(), STREAMS.timing.instruction
    m.execute(0, CHASE, READ, m.begins[0])
    for code in between:
        m.execute(0, code)
    after = m.execute(0, "488b1b", READ, m.begins[0] + 8192)  # mov (%rbx),%rbx
    assert after == pytest.approx(100 + step if waits else (2 + len(between)) * step)


RAX, RCX, RDX, RBX, RSI, R8, R12, R13, R15 = (1 << n for n in (0, 1, 2, 3, 6, 8, 12, 13, 15))
ATOMIC, MEMORY, UPDATES, PAST, FENCE, UNKNOWN = (1 << n for n in range(6))


@pytest.mark.parametrize(
    ("code", "form"),  # address, source, target, flags
    [
        ("4b8b44a508", (R12 | R13, 0, RAX, MEMORY)),  # mov 8(%r13,%r12,4),%rax
        ("488b042510000000", (0, 0, RAX, MEMORY)),  # mov 16,%rax
        ("488b0510000000", (0, 0, RAX, MEMORY)),  # mov 16(%rip),%rax
        ("480130", (RAX, RSI, 0, MEMORY | UPDATES)),  # add %rsi,(%rax)
        ("8a20", (RAX, RAX, RAX, MEMORY)),  # mov (%rax),%ah: a part of %rax
        ("f0480fb10b", (RBX, RAX | RCX, RAX, ATOMIC | MEMORY | UPDATES)),  # lock cmpxchg %rcx,(%rbx)
        ("488703", (RBX, RAX, RAX, ATOMIC | MEMORY | UPDATES)),  # xchg %rax,(%rbx)
        ("4c0fc338", (RAX, R15, 0, MEMORY | PAST)),  # movnti %r15,(%rax)
        ("660fe700", (RAX, 0, 0, MEMORY | PAST)),  # movntdq %xmm0,(%rax)
        ("62f17d48e700", (RAX, 0, 0, MEMORY | PAST)),  # vmovntdq %zmm0,(%rax)
        ("c5fdd400", (RAX, 0, 0, MEMORY)),  # vpaddq (%rax),%ymm0,%ymm0
        ("c4e27d9014c8", (RAX, 0, 0, MEMORY)),  # a gather: the index is a vector
        ("66480f7ec0", (0, 0, RAX, 0)),  # movq %xmm0,%rax: vectors are ready
        ("48f7e1", (0, RAX | RCX | RDX, RAX | RDX, 0)),  # mul %rcx
        ("490fb600", (R8, 0, RAX, MEMORY)),  # movzbq (%r8),%rax
        ("0f1f440000", (0, 0, 0, 0)),  # nopl
        ("0f01f9", (0, 0, RAX | RCX | RDX, FENCE)),
        ("0f05", (0, 0, 0, UNKNOWN)),  # syscall
    ],
)
def test_instructions_are_read_as_the_manual_says(model, code, form):
    word = model().c.decoded(bytes.fromhex(code).ljust(16, b"\0"))
    assert tuple(word >> 16 * k & 0xFFFF for k in range(4)) == form


def test_a_register_that_goes_through_memory_is_as_late_there(model):
    m, step = model(), STREAMS.timing.instruction
    stack = m.begins[0] + (4 << 20)
    m.execute(0, "488b0424", READ, stack)  # mov (%rsp),%rax: its line is there after this
    m.execute(0, MFENCE)
    began = m.now(0)
    m.execute(0, CHASE, READ, m.begins[0])
    m.execute(0, "50", WRITE, stack)  # push %rax
    m.execute(0, "5b", READ, stack)  # pop %rbx
    assert m.execute(0, "488b1b", READ, m.begins[0] + 8192) == pytest.approx(began + 100 + step)


@pytest.mark.parametrize("code", [SFENCE, MFENCE, LFENCE, RDTSCP, "0fa2", "f3a4"])  # and what is not known: cpuid, rep movsb
def test_fences_clocks_and_what_is_unknown_wait_for_all(model, code):
    m = model()
    m.execute(0, VECTOR_LOAD, READ, m.begins[0])
    assert m.execute(0, code) == pytest.approx(100 + STREAMS.timing.instruction)


def test_a_locked_instruction_waits_for_all_and_blocks(model):
    m, step = model(), STREAMS.timing.instruction
    m.execute(0, VECTOR_LOAD, READ, m.begins[0])
    took = m.execute(0, "f0480fc118", UPDATE, m.begins[0] + 8192)  # lock xadd %rbx,(%rax)
    assert took == pytest.approx(step + 100 + STREAMS.timing.atomic + 100)


def test_what_another_cache_gives_blocks(model):
    m, step = model(), STREAMS.timing.instruction
    m.execute(0, VECTOR_STORE, WRITE, m.begins[0], STEP)
    m.c.wait_for(1, ctypes.c_int64(1_000_000))
    assert m.execute(1, CHASE, READ, m.begins[0]) == 1000 + step + 40


def test_without_the_keys_everything_blocks_as_before(model):
    m = model(load_machine("two-socket"))
    assert m.execute(0, VECTOR_LOAD, READ, m.begins[0]) == 90.25 and m.execute(0, VECTOR_PAST, WRITE, m.begins[0]) == 91.5


# -- bandwidth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", list(expected.STREAMS))
@pytest.mark.parametrize(
    ("node", "home", "threads"), [(0, 0, 1), (0, 0, 2), (0, 0, 3), (1, 1, 3), (0, 1, 3), (1, 0, 2), (0, 2, 3), (1, 2, 1)]
)
def test_streams_get_what_controllers_and_links_have(model, kernel, node, home, threads):
    m = model()
    cpus = STREAMS.nodes[node].cpus[:threads]
    programs = {cpu: stream(m, home, kernel, part) for part, cpu in enumerate(cpus)}
    warm = 30_000.0  # until written lines go back as fast as others come
    m.play(programs, warm)
    begin = {cpu: m.now(cpu) for cpu in cpus}
    done = m.play(programs, warm + 60_000.0)
    found = sum(done[cpu] * STEP / (m.now(cpu) - begin[cpu]) for cpu in cpus)
    assert found == pytest.approx(expected.node_bandwidth(STREAMS, node, home, kernel, threads), rel=0.03)


def test_with_limits_alone_each_access_blocks(model):
    m = model(replace(STREAMS, timing=replace(STREAMS.timing, misses=0)))
    assert m.execute(0, VECTOR_LOAD, READ, m.begins[0]) == 100.25
    assert (
        m.execute(0, VECTOR_PAST, WRITE, m.begins[0] + 4096) == 200.5
        and m.execute(0, VECTOR_PAST, WRITE, m.begins[0] + 4128) == 200.75
    )


def test_a_machine_of_few_misses_is_bound_by_them(model):
    few = replace(STREAMS, timing=replace(STREAMS.timing, misses=3))
    m = model(few)
    done = m.play({0: stream(m, 0, "read", 0)}, 50_000.0)[0]
    assert done * STEP / 50_000.0 == pytest.approx(3 * 64 / 100, rel=0.01)


def loader(m: Model, cpu: int, node: int, part: int, interval: float, offset: float, draw) -> Iterator[Instruction]:
    """Bursts of a page at their times: waits with the clock, then loads."""
    at = m.begins[node] + (part << 24)
    burst = 0
    while True:
        yield LFENCE, NONE, 0, 0
        m.c.wait_for(cpu, ctypes.c_int64(int(1000 * (offset + interval * (burst + draw() / 2)))))
        for line in range(128):
            yield VECTOR_LOAD, READ, at + (burst << 12) + 32 * line, STEP
        burst += 1


@pytest.mark.parametrize("rate", [2.0, 4.0, 6.0, 8.0])
def test_a_chase_beside_streams_waits_as_the_queue_says(model, rate):
    import random

    m, draw = model(), random.Random(7).random
    interval = 2 * 4096 / rate
    programs = {cpu: loader(m, cpu, 1, cpu, interval, interval * k / 2, draw) for k, cpu in enumerate((4, 5))}
    programs[3] = chains(m, 1, 1)
    span = 200_000.0
    latency = span / m.play(programs, span)[3]
    wanted = sum(expected.LoadedChase(STREAMS, 1, 2, rate, seed).play()[0] for seed in range(3)) / 3
    assert latency == pytest.approx(wanted, rel=0.02)


# -- the certificate ------------------------------------------------------------------------------------------------------


def cells(name: str) -> list[tuple[dict, dict]]:
    """(parameters, metrics) of every cell of a run, as given."""
    found = []
    if name == "chases":
        for chains in known.given(name, "chains", int):
            found.append(({"chains": chains}, {"time_per_line": expected.time_per_line(GIVEN, 0, 0, chains)}))
    for kernel in known.given(name, "kernel") if name in ("streams", "nodes") else ():
        share = expected.bus_share(kernel)
        for threads in known.given(name, "threads", int) if name == "streams" else ():
            value = expected.memory_bandwidth(GIVEN, range(threads), kernel) * 1e9
            found.append(({"kernel": kernel, "threads": threads}, {"bandwidth": value, "bus_bandwidth": value * share}))
        for c, m in ((c, m) for c in GIVEN.cpu_nodes for m in GIVEN.memory_nodes if name == "nodes"):
            value = expected.node_bandwidth(GIVEN, c, m, kernel, 3) * 1e9
            found.append(({"kernel": kernel, "cpu_node": c, "memory_node": m}, {"bandwidth": value}))
    for rate in known.given(name, "rate") if name == "loaded" else ():
        latency, load = expected.loaded(GIVEN, known.LOADED_NODE, 2, None if rate == "max" else float(rate))
        found.append(({"rate": rate}, {"latency": latency, "load": load * 1e9}))
    return found


def judged(monkeypatch, name: str, factor: float = 1.0, said: tuple = ()) -> list:
    rows = [
        {**p, "metric": m, "value": v * factor, "low": v, "high": v, "main": True}
        for p, all_ in cells(name)
        for m, v in all_.items()
    ]
    run = SimpleNamespace(estimates=lambda: pd.DataFrame(rows), log=None)
    monkeypatch.setattr(known.numabench, "load", lambda path: run)
    monkeypatch.setattr(known, "answers", lambda log: said)
    return known.judge(GIVEN, {name: Path(name)})


SAID = (
    SimpleNamespace(kind="saturation", text="Read (avx2) from memory is saturated by 3 threads", value=3.0),
    SimpleNamespace(kind="weights", text="Weights by what all cores read: node 0: 3, node 1: 2, node 2: 1", value=0.0),
)


@pytest.mark.parametrize(("name", "wrong"), [("chases", 1.03), ("streams", 0.96), ("nodes", 1.04), ("loaded", 0.94)])
def test_what_is_given_is_right_and_what_is_beyond_its_tolerance_is_not(monkeypatch, name, wrong):
    assert [f for f in judged(monkeypatch, name, said=SAID) if not f.right] == []
    assert not any(f.right for f in judged(monkeypatch, name, wrong))


def test_the_defects_of_bandwidth_are_beyond_every_tolerance():
    """A stream of hits is bound by instructions alone, a chase that is measured by itself waits for nobody: by figures."""
    instructions = expected.LINE_INSTRUCTIONS * GIVEN.timing.instruction
    assert GIVEN.timing.line / instructions > 2 * expected.memory_bandwidth(GIVEN, range(1), "read")
    idle, loaded = (expected.loaded(GIVEN, known.LOADED_NODE, 2, rate)[0] for rate in (0.0, 8.0))
    assert loaded / idle > 1 + 2 * known.METRICS["latency"][0]
