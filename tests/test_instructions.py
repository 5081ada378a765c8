"""What is measured is the instruction that its name says, whichever compiler made it: read from the objects."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from numabench import kernel as abi
from numabench.benchmarks.fences import EXTENSIONS, OWN

HERE = Path(__file__).parent
CROSS_HEADERS = "/usr/aarch64-linux-gnu/include"
X86 = {"gcc": ["gcc"], "clang": ["clang"]}
ARM = {"gcc": ["aarch64-linux-gnu-gcc"], "clang": ["clang", "--target=aarch64-linux-gnu", f"-isystem{CROSS_HEADERS}"]}
FLAGS = [flag for flag in abi.FLAGS if flag != "-shared"]
KERNELS = sorted(path.stem for path in abi.source_folder().glob("*.c"))
#: Whatever touches memory that others see, or orders.
X86_PATTERN = re.compile(
    r"lock [a-z]+|\bxchg\b(?=.*\()|[msl]fence|clflush|call|mov[a-z]* +(?=[^ ]*\(%r(?:di|si)\))|mov[a-z]* +(?=.*,\(%rdi\))"
)
ARM_PATTERN = re.compile(r"^(?:(?:dmb|dsb)\s+\w+|(?:ld|st|swp|cas)\w*|isb|bl|dc\s+\w+)")


def toolchains() -> list:
    found = [(f"x86-64 {name}", command, "objdump", flags) for name, command in X86.items() for flags in ([], ["-O3"])]
    variants = ([], ["-DNB_LSE"], ["-O3"], ["-O3", "-DNB_LSE", "-march=armv8.4-a"])
    found += [
        (f"aarch64 {name}", command, "aarch64-linux-gnu-objdump", flags) for name, command in ARM.items() for flags in variants
    ]
    return [pytest.param(*each, id=" ".join([each[0], *each[3]])) for each in found]


def compiled(target: Path, command: list[str], source: Path, flags: list[str]) -> Path:
    if shutil.which(command[0]) is None or ("aarch64" in " ".join(command) and not Path(CROSS_HEADERS).is_dir()):
        pytest.skip(f"{command[0]} or its headers are missing: apt-get install clang gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    if command[0] == "gcc" and platform.machine() != "x86_64":
        pytest.skip("gcc makes code for this machine, which is no x86-64")
    if command == ["clang"]:
        command = ["clang", "--target=x86_64-linux-gnu"]
    warnings = ["-Wextra", "-Werror"]
    subprocess.run(
        [*command, *FLAGS, *flags, *warnings, f"-I{abi.source_folder()}", "-c", "-o", str(target), str(source)], check=True
    )
    return target


def functions(target: Path, objdump: str) -> dict[str, list[str]]:
    """Of each function what it does to memory that others see, in the order of the code."""
    if shutil.which(objdump) is None:
        pytest.skip(f"{objdump} is missing: apt-get install binutils gcc-aarch64-linux-gnu")
    text = subprocess.run([objdump, "-d", "--no-show-raw-insn", str(target)], capture_output=True, text=True, check=True).stdout
    pattern = ARM_PATTERN if objdump.startswith("aarch64") else X86_PATTERN
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if name := re.match(r"[0-9a-f]+ <(.+)>:", line):
            current = found.setdefault(name[1], [])
        elif code := re.match(r"\s+[0-9a-f]+:\s+(.*)", line):
            said = pattern.search(code[1])
            current += [re.sub(r"\s+", " ", said[0]).strip()] if said else []
    return found


def bare(code: str) -> str:
    """Without the suffix by which objdump names the size."""
    return re.sub(r"^(lock \w+?|mov)[lqwb]?$", lambda m: m[1], code) if code.startswith(("lock", "mov")) else code


@cache
def wanted(architecture: str, lse: bool) -> dict[str, list[str]]:
    """The table of kernels/nb_atomic.h, spelled out."""
    x86 = architecture == "x86-64"
    table: dict[str, list[str]] = {}
    for order, acquire, release in (("", "a", "l"), ("_relaxed", "", ""), ("_acquire", "a", ""), ("_release", "", "l")):
        for size in ("", "32"):
            pair = [f"ld{acquire}xr", f"st{release}xr"]
            add, swap, cas = (["lock xadd"], ["xchg"], ["lock cmpxchg"]) if x86 else (pair, pair, pair)
            if lse and not x86:
                add, swap, cas = [f"ldadd{acquire}{release}"], [f"swp{acquire}{release}"], [f"cas{acquire}{release}"]
            table |= {f"{name}{size}{order}": add for name in ("add", "add_0", "add_unread")}
            table |= {f"swap{size}{order}": swap, f"cas{size}{order}": cas}
    for size in ("", "32"):
        table |= {
            f"load{size}{order}": ["mov"] if x86 else ["ldr" if order == "_relaxed" else "ldar"]
            for order in ("", "_acquire", "_relaxed")
        }
        table |= {
            f"store{size}{order}": ["mov"] if x86 else ["str" if order == "_relaxed" else "stlr"]
            for order in ("_release", "_relaxed")
        }
        table[f"store{size}"] = ["xchg"] if x86 else ["stlr"]
    if x86:
        fences = {"full_fence": ["lock or"], "acquire_fence": [], "release_fence": [], "drain": ["lock or", "lfence"]}
        return table | fences | {"flush": ["clflush"], "flushed": ["mfence", "lfence"]}
    fences = {"full_fence": ["dmb ish"], "acquire_fence": ["dmb ishld"], "release_fence": ["dmb ish"], "drain": ["dsb ish"]}
    return table | fences | {"flush": ["dc civac"], "flushed": ["dsb ish"]}


@pytest.mark.parametrize(("name", "command", "objdump", "flags"), toolchains())
def test_operations_are_the_instructions_of_the_table(tmp_path, name, command, objdump, flags):
    found = functions(compiled(tmp_path / "instructions.o", command, HERE / "instructions.c", flags), objdump)
    table = wanted(name.split()[0], "-DNB_LSE" in flags)
    assert {function: [bare(code) for code in found[function]] for function in table} == table


#: What each loop of the fences is made of.
FENCES = {
    "mfence": ["mfence"], "sfence": ["sfence"], "lfence": ["lfence"], "lock_or": ["lock or"], "xchg": ["xchg"], "mov_mfence": ["mfence"],
    "dmb_ish": ["dmb ish"], "dmb_ishld": ["dmb ishld"], "dmb_ishst": ["dmb ishst"], "dsb_ish": ["dsb ish"], "isb": ["isb"], "stlr": ["stlr"],
    "ldar": ["ldar"], "stlr_ldar": ["stlr", "ldar"], "ldapr": ["ldapr"], "stlr_ldapr": ["stlr", "ldapr"],
}  # fmt: skip
ORDERING = re.compile(r"lock|xchg|[msl]fence|dmb|dsb|isb|swp|cas|ldadd|ldset|lda|stl|ldx|stx")


@pytest.mark.parametrize(("name", "command", "objdump", "flags"), toolchains())
def test_a_fence_is_the_instruction_that_its_name_says(tmp_path, name, command, objdump, flags):
    found = functions(compiled(tmp_path / "fences.o", command, abi.source_folder() / "fences.c", flags), objdump)
    here = OWN["sse2"] if name.startswith("x86") else (*OWN["neon"], *EXTENSIONS["lrcpc"])
    swp = {"swp": ["swpal"] if "-DNB_LSE" in flags else ["ldaxr", "stlxr"]}
    for fence in here:
        ordering = {bare(code) for code in found[fence] if ORDERING.match(code)}
        assert ordering == set((FENCES | swp)[fence]), fence
    assert not [code for code in found["no_fence"] if ORDERING.match(code)]


#: Of the kernels that measure them, what may be in the object at all.
MEASURED = (
    "card_marking",
    "contention",
    "core_to_core",
    "memory_ordering",
    "padded_counters",
    "publication",
    "sentinel",
    "single_operations",
)
SOME_PAIRS = {"ldxr", "stxr", "ldaxr", "stlxr", "ldaxrh", "stlxrh"}
COMMON = {"ldar", "stlr", "dmb ish", "dmb ishld", "dsb ish", "isb", "ldarb", "stlrb"}
LSE = {f"{operation}{order}" for operation in ("ldadd", "swp", "cas") for order in ("", "a", "l", "al")} | {"swpalh", "ldseta"}
ORDERED = {
    "x86-64": {"lock xadd", "lock cmpxchg", "lock or", "lock bts", "xchg", "lfence", "mfence"},
    "aarch64, LSE": COMMON | LSE,
    "aarch64, LL/SC": COMMON | SOME_PAIRS,
}


def variants() -> list:
    """Every compiler, and each of the other flags once."""
    wanted = ("x86-64 gcc", "x86-64 clang", "aarch64 gcc", "aarch64 clang -DNB_LSE", "aarch64 gcc -O3 -DNB_LSE -march=armv8.4-a")
    return [each for each in toolchains() if each.id in wanted]


@pytest.mark.parametrize(("name", "command", "objdump", "flags"), variants())
@pytest.mark.parametrize("kernel", KERNELS)
def test_no_kernel_leaves_an_atomic_operation_to_the_compiler(tmp_path, kernel, name, command, objdump, flags):
    """Compiled without a warning; nothing calls a function for it; what a compiler likes to make of it is not there."""
    target = compiled(tmp_path / "kernel.o", command, abi.source_folder() / f"{kernel}.c", flags)
    symbols = subprocess.run([objdump, "-t", str(target)], capture_output=True, text=True, check=True).stdout
    assert not re.findall(r"__(?:aarch64|atomic|sync)_\w+", symbols)
    if kernel not in MEASURED:
        return
    architecture = "x86-64" if name.startswith("x86") else "aarch64, LSE" if "-DNB_LSE" in flags else "aarch64, LL/SC"
    codes = {bare(code) for each in functions(target, objdump).values() for code in each}
    assert {code for code in codes if ORDERING.match(code)} <= ORDERED[
        architecture
    ]  # no ldapr, of which a litmus test is another one


#: What must be in a function of a kernel, with x86-64, LSE and LL/SC.
ADD = {"x86-64": "lock xadd", "aarch64, LSE": "ldadd", "aarch64, LL/SC": "ldxr"}
ADD_ORDERED = {"x86-64": "lock xadd", "aarch64, LSE": "ldaddal", "aarch64, LL/SC": "ldaxr"}
SWAP_ORDERED = {"x86-64": "xchg", "aarch64, LSE": "swpal", "aarch64, LL/SC": "ldaxr"}
CAS_ORDERED = {"x86-64": "lock cmpxchg", "aarch64, LSE": "casal", "aarch64, LL/SC": "ldaxr"}
DRAIN = {"x86-64": "lfence", "aarch64, LSE": "dsb ish", "aarch64, LL/SC": "dsb ish"}
INSIDE = {
    ("padded_counters", "atomic_add"): [ADD],
    ("padded_counters", "atomic_add_spaced"): [ADD],
    ("card_marking", "unconditional_locked"): [ADD_ORDERED],
    ("publication", "write_seq_cst_exchange"): [SWAP_ORDERED],
    ("core_to_core", ""): [ADD_ORDERED, CAS_ORDERED],
    ("sentinel", ""): [CAS_ORDERED],
    ("single_operations", ""): [ADD_ORDERED, SWAP_ORDERED, CAS_ORDERED, DRAIN],
    ("memory_bandwidth", ""): [DRAIN],
    ("loaded_latency", ""): [DRAIN],
}


@pytest.mark.parametrize(("name", "command", "objdump", "flags"), variants())
def test_the_loops_that_are_measured_have_their_instruction(tmp_path, name, command, objdump, flags):
    architecture = "x86-64" if name.startswith("x86") else "aarch64, LSE" if "-DNB_LSE" in flags else "aarch64, LL/SC"
    for kernel in dict.fromkeys(kernel for kernel, _ in INSIDE):
        target = compiled(tmp_path / f"{kernel}.o", command, abi.source_folder() / f"{kernel}.c", flags)
        found = functions(target, objdump)
        for function, needed in ((function, needed) for (of, function), needed in INSIDE.items() if of == kernel):
            inside = [code for name, codes in found.items() if name.startswith(function) for code in map(bare, codes)]
            assert {each[architecture] for each in needed} <= set(inside), (kernel, function)
            if kernel == "padded_counters" and function == "atomic_add":
                assert inside.count(ADD[architecture]) >= 64
            if kernel == "core_to_core":  # an add of 0 that has become a fence and a load polls, and never takes the line
                assert not {"mfence", "dmb ish"} & set(inside)
