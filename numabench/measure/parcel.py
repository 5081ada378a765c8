"""The kernels of some benchmarks, compiled once for machines like this one: what a launch sends to each, so that they need no compiler and all measure the same objects."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import kernel as abi
from ..benchmarks import Benchmark
from ..errors import MachineError
from ..host.objects import content_hash, read_object
from ..host.pushed import Parcel, Piece, libc_of, make_parcel, sources_hash
from ..host.topology import read_topology
from .transfer_unit import plausible
from .visit import TOOLS

USUAL_LINE = 64  # bytes
BESIDE = (*TOOLS, "transfer_unit")
#: What a compiler defines where it may use instructions that not every processor of the architecture has.
BEYOND = {
    "x86_64": r"__(SSE3|SSSE3|SSE4\w*|AVX\w*|FMA\w*|XOP|BMI2?|LZCNT|POPCNT|TBM|MOVBE|F16C|ADX|RDRND|RDSEED|AES|VAES|PCLMUL|VPCLMULQDQ|SHA\w*|GFNI|SM[34]|AMX\w*|APX\w*|"
    r"LAHF_SAHF|FSGSBASE|XSAVE\w*|CLFLUSHOPT|CLWB|MOVDIR\w*|WAITPKG|CMPCCXADD|RAOINT|USERMSR)__",
    "aarch64": r"__ARM_FEATURE_(ATOMICS|LSE\w*|CRC32|CRYPTO|AES|SHA\w*|SM[34]|QRDMX|DOTPROD|FP16\w*|BF16\w*|COMPLEX|JCVT|RCPC\w*|SVE\w*|SME\w*|MATMUL\w*|MEMORY_TAGGING|LS64|FRINT|RNG|MOPS|TME)",
}
ASK_S = 20.0


def pack(benchmarks: Iterable[Benchmark], told: Callable[[int, int], object] = lambda done, of: None) -> Parcel:
    """The kernels of these and what runs beside them, for lines of 64 bytes and of what this machine declares. Raises MachineError where nothing can be compiled here, or what is
    compiled fits this processor alone. A kernel that cannot be compiled is left out: machines that want it compile it, or say why they cannot."""
    sources = [abi.source_of(name) for name in BESIDE]
    sources += [abi.source_of(b.kernel, b.kernel_folder) for b in benchmarks]
    sources = [*dict.fromkeys(sources)]
    if found := baked_in(sources[0]):
        raise MachineError(
            f"what is compiled here uses {found}, which not every {os.uname().machine} has",
            "unset CFLAGS, or name another compiler with CC",
        )
    lines = {USUAL_LINE, plausible(read_topology().largest_line_bytes()) or USUAL_LINE}
    atomics = (False, True) if os.uname().machine == "aarch64" else (False,)
    machine = [abi.machine_flags(line, each) for line in sorted(lines) for each in atomics]
    wanted = [(source, flags) for source in sources for flags in machine]
    made: list[tuple[Piece, bytes]] = []
    error: MachineError | None = None
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as several:
        for done, each in enumerate(several.map(lambda one: compiled(*one), wanted)):
            told(done, len(wanted))
            if isinstance(each, MachineError):
                error = error or each
            else:
                made.append(each)
    if not made and error:
        raise error
    return make_parcel(made)


def compiled(source: Path, told: tuple[str, ...]) -> tuple[Piece, bytes] | MachineError:
    try:
        built = abi.compiled(source, told)
        content = read_object(built.target)
        piece = Piece(
            kernel=source.stem,
            sources=sources_hash(source),
            told=told,
            flags=tuple(built.flags),
            compiler=built.compiler,
            libc=libc_of(content),
            content=content_hash(content),
        )
    except MachineError as error:
        return error
    return piece, content


def baked_in(source: Path) -> str:
    """An instruction set that objects compiled here may use and that others of the architecture may lack, as its compiler calls it; empty where there is none."""
    pattern = BEYOND.get(os.uname().machine)
    if pattern is None:
        raise MachineError(f"which instructions every {os.uname().machine} has is not known here")
    build = abi.Build(source)
    shown = abi.ask_compiler([*build.command, *build.flags, "-dM", "-E", "-x", "c", "/dev/null"], ASK_S)
    if shown.code:
        raise MachineError(f"{build.command[0]} does not say what it compiles for: {shown.errors[:200]}")
    found = re.search(rf"#define ({pattern})\s", shown.output)
    return found[1].strip("_").removeprefix("ARM_FEATURE_") if found else ""
