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
X86_PATTERN = re.compile(r"lock [a-z]+|\bxchg\b(?=.*\()|[msl]fence|clflush|call|mov[a-z]* +(?=[^ ]*\(%r(?:di|si)\))|mov[a-z]* +(?=.*,\(%rdi\))")
ARM_PATTERN = re.compile(r"^(?:(?:dmb|dsb)\s+\w+|(?:ld|st|swp|cas)\w*|isb|bl|dc\s+\w+)")


def toolchains() -> list:
    found = [(f"x86-64 {name}", command, "objdump", flags) for name, command in X86.items() for flags in ([], ["-O3"])]
    variants = ([], ["-DNB_LSE"], ["-O3"], ["-O3", "-DNB_LSE", "-march=armv8.4-a"])
    found += [(f"aarch64 {name}", command, "aarch64-linux-gnu-objdump", flags) for name, command in ARM.items() for flags in variants]
    return [pytest.param(*each, id=" ".join([each[0], *each[3]])) for each in found]


def compiled(target: Path, command: list[str], source: Path, flags: list[str]) -> Path:
    if shutil.which(command[0]) is None or ("aarch64" in " ".join(command) and not Path(CROSS_HEADERS).is_dir()):
        pytest.skip(f"{command[0]} or its headers are missing: apt-get install clang gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    if command[0] == "gcc" and platform.machine() != "x86_64":
        pytest.skip("gcc makes code for this machine, which is no x86-64")
    if command == ["clang"]:
        command = ["clang", "--target=x86_64-linux-gnu"]
    warnings = ["-Wextra", "-Werror"]
    subprocess.run([*command, *FLAGS, *flags, *warnings, f"-I{abi.source_folder()}", "-c", "-o", str(target), str(source)], check=True)
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


@cache
def wanted(architecture: str, lse: bool) -> dict[str, list[str]]:
    """The table of kernels/nb_atomic.h, spelled out."""
    x86 = architecture == "x86-64"
    table: dict[str, list[str]] = {}
    for order, a, l in (("", "a", "l"), ("_relaxed", "", ""), ("_acquire", "a", ""), ("_release", "", "l")):
        for size in ("", "32"):
            pair = [f"ld{a}xr", f"st{l}xr"]
            add, swap, cas = (["lock xadd"], ["xchg"], ["lock cmpxchg"]) if x86 else (pair, pair, pair)
            if lse and not x86:
                add, swap, cas = [f"ldadd{a}{l}"], [f"swp{a}{l}"], [f"cas{a}{l}"]
            table |= {f"{name}{size}{order}": add for name in ("add", "add_0", "add_unread")}
            table |= {f"swap{size}{order}": swap, f"cas{size}{order}": cas}
    for size in ("", "32"):
        table |= {f"load{size}{order}": ["mov"] if x86 else ["ldr" if order == "_relaxed" else "ldar"] for order in ("", "_acquire", "_relaxed")}
        table |= {f"store{size}{order}": ["mov"] if x86 else ["str" if order == "_relaxed" else "stlr"] for order in ("_release", "_relaxed")}
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
    assert {name: [code.rstrip("lq") if code.startswith("lock") else code.removesuffix("q").removesuffix("l") if code[:3] == "mov" else code
                   for code in found[name]] for name in table} == table


#: What each loop of the fences is made of.
FENCES = {
    "mfence": ["mfence"], "sfence": ["sfence"], "lfence": ["lfence"], "lock_or": ["lock or"], "xchg": ["xchg"], "mov_mfence": ["mfence"],
    "dmb_ish": ["dmb ish"], "dmb_ishld": ["dmb ishld"], "dmb_ishst": ["dmb ishst"], "dsb_ish": ["dsb ish"], "isb": ["isb"], "stlr": ["stlr"],
    "ldar": ["ldar"], "stlr_ldar": ["stlr", "ldar"], "ldapr": ["ldapr"], "stlr_ldapr": ["stlr", "ldapr"],
}  # fmt: skip
ORDERING = re.compile(r"lock|xchg|[msl]fence|dmb|dsb|isb|swp|cas|ldadd|lda|stl|ldx|stx|ldax|ldapr|bl$|call")


@pytest.mark.parametrize(("name", "command", "objdump", "flags"), toolchains())
def test_a_fence_is_the_instruction_that_its_name_says(tmp_path, name, command, objdump, flags):
    found = functions(compiled(tmp_path / "fences.o", command, abi.source_folder() / "fences.c", flags), objdump)
    here = OWN["sse2"] if name.startswith("x86") else (*OWN["neon"], *EXTENSIONS["lrcpc"])
    swp = {"swp": ["swpal"] if "-DNB_LSE" in flags else ["ldaxr", "stlxr"]}
    for fence in here:
        ordering = {code.rstrip("lq") if code.startswith("lock") else code for code in found[fence] if ORDERING.match(code)}
        assert ordering == set((FENCES | swp)[fence]), fence
    assert not [code for code in found["no_fence"] if ORDERING.match(code)]


@pytest.mark.parametrize(("name", "command", "objdump", "flags"), toolchains())
@pytest.mark.parametrize("kernel", KERNELS)
def test_no_kernel_leaves_an_atomic_operation_to_the_compiler(tmp_path, kernel, name, command, objdump, flags):
    """Compiled without a warning; nothing calls a function for it; what a compiler likes to make of it is not there."""
    if objdump.startswith("aarch64") and "clang" in command and kernel in STREAMS:
        pytest.skip("clang 14 has no streams of SVE without its flag")
    target = compiled(tmp_path / "kernel.o", command, abi.source_folder() / f"{kernel}.c", flags)
    found = functions(target, objdump)
    symbols = subprocess.run([objdump, "-t", str(target)], capture_output=True, text=True, check=True).stdout
    assert "__aarch64_" not in symbols and "__atomic_" not in symbols and "__sync_" not in symbols
    codes = [code for each in found.values() for code in each]
    if kernel in MEASURED:
        allowed = ORDERED_X86 if name.startswith("x86") else ORDERED_LSE if "-DNB_LSE" in flags else ORDERED_PAIRS
        unlike = {code.rstrip("lq") if code.startswith("lock") else code for code in codes if ORDERING.match(code)} - allowed
        assert not {code for code in unlike if not code.startswith(("call", "bl"))}, unlike
    assert "ldapr" not in codes or kernel == "fences"  # of a litmus test it would be another one
