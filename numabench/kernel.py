"""Kernels: compiled on this machine with its own compiler, loaded with ctypes, checked against the ABI.

Imported by worker processes: the standard library and msgspec only, and what only compiling needs where it compiles.
"""

from __future__ import annotations

import ctypes as c
import os
import sys
from typing import TYPE_CHECKING

from .errors import MachineError, UsageError
from .host.objects import DIGITS, PARCEL, content_hash, load_object, read_object
from .model import HIGHER, LOWER, NEITHER, Metric
from .text import in_shell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .host.commands import Answer
    from .host.pushed import Piece

ABI = 5
PREPARE, MEASURE = 0, 1
OK, UNSUPPORTED = 0, 1
FLAGS = ("-std=gnu11", "-O2", "-falign-loops=32", "-g0", "-fPIC", "-shared", "-pthread", "-Wall")
COMPILERS = ("cc", "gcc", "clang")
VERSION_S, COMPILE_S = (
    20.0,
    300.0,
)  # for which a compiler may be busy: an emulated processor needs half a minute for what takes one second
VALUES, BINS, PARAMETERS, GATES, DESCRIPTORS = 16, 640, 12, 8, 8
BINS_PER_OCTAVE = 16
#: Of `value` (kernels/nb_window.h).
BATCH_SLOT, SHORTEST_SLOT, MEDIAN_PS_SLOT, LONGEST_SLOT, USUAL_SLOT, MEAN_PS_SLOT = range(6)
P99 = 0.99
FINE_BINS = 256  # of the histogram of batches, per usual duration; from twice that on BINS_PER_OCTAVE
HWCAP_ATOMICS = 1 << 8  # of aarch64's AT_HWCAP: the processor has the atomic instructions of Armv8.1


class _Parameter(c.Structure):
    _fields_ = [
        ("name", c.c_char_p),
        ("choices", c.c_char_p),
        ("summary", c.c_char_p),
        ("initial", c.c_int64),
        ("least", c.c_int64),
        ("most", c.c_int64),
    ]


class _Metric(c.Structure):
    _fields_ = [("name", c.c_char_p), ("unit", c.c_char_p), ("summary", c.c_char_p), ("polarity", c.c_int64)]


class _Descriptor(c.Structure):
    _fields_ = [
        ("abi", c.c_uint32),
        ("version", c.c_uint32),
        ("name", c.c_char_p),
        ("summary", c.c_char_p),
        ("parameters", c.POINTER(_Parameter)),
        ("metrics", c.POINTER(_Metric)),
        ("n_parameters", c.c_uint32),
        ("n_metrics", c.c_uint32),
    ]


class CaseBlock(c.Structure):
    """`struct nb_case`: one entry into a kernel, shared by its threads."""

    _fields_ = [
        ("threads", c.c_uint32),
        ("phase", c.c_uint32),
        ("crowded", c.c_uint32),
        ("reserved", c.c_uint32),
        ("warmup_ns", c.c_uint64),
        ("window_ns", c.c_uint64),
        ("batch_ns", c.c_uint64),
        ("buffer", c.c_void_p),
        ("scratch", c.c_void_p),
        ("buffer_bytes", c.c_uint64),
        ("scratch_bytes", c.c_uint64),
        ("parameter", c.c_int64 * PARAMETERS),
        ("descriptor", c.c_int32 * DESCRIPTORS),
        ("pad0", c.c_uint8 * 1024),
        ("arrived", c.c_uint32),
        ("pad1", c.c_uint8 * 1020),
        ("opens", c.c_uint64 * GATES),
        ("pad2", c.c_uint8 * 960),
    ]


class ThreadBlock(c.Structure):
    """`struct nb_thread`: what one thread is told and what it found."""

    _fields_ = [
        ("shared", c.POINTER(CaseBlock)),
        ("index", c.c_uint32),
        ("group", c.c_uint32),
        ("gates", c.c_uint32),
        ("gaps", c.c_uint32),
        ("cpu_begin", c.c_int32),
        ("cpu_end", c.c_int32),
        ("schedstat", c.c_int32),
        ("binned", c.c_int32),
        ("begin_ns", c.c_uint64),
        ("end_ns", c.c_uint64),
        ("operations", c.c_uint64),
        ("executed", c.c_uint64),
        ("check", c.c_uint64),
        ("gap_ns", c.c_uint64),
        ("cursor", c.c_uint64),
        ("run_delay_ns", c.c_uint64),
        ("value", c.c_uint64 * VALUES),
        ("histogram", c.c_uint32 * BINS),
    ]


_LAYOUT = (
    c.sizeof(_Parameter),
    c.sizeof(_Metric),
    c.sizeof(_Descriptor),
    c.sizeof(CaseBlock),
    c.sizeof(ThreadBlock),
    _Descriptor.n_metrics.offset,
    CaseBlock.parameter.offset,
    CaseBlock.descriptor.offset,
    CaseBlock.arrived.offset,
    CaseBlock.opens.offset,
    ThreadBlock.begin_ns.offset,
    ThreadBlock.value.offset,
    ThreadBlock.histogram.offset,
)


class Kernel:
    """A loaded kernel: its descriptor as plain attributes, and `run`, to be entered by every thread."""

    def __init__(self, path: Path | str):
        library = load_object(path)
        try:
            layout = (c.c_uint32 * len(_LAYOUT)).in_dll(library, "nb_layout")
            descriptor = _Descriptor.in_dll(library, "nb_descriptor")
            instructions = c.c_char_p(c.addressof(c.c_char.in_dll(library, "nb_instructions")))
            self.run = library.nb_run
        except ValueError as error:
            raise MachineError(
                f"{path} is not a kernel: {error}", "export nb_descriptor, nb_layout and nb_run (see kernels/nb.h)"
            ) from error
        except AttributeError as error:
            raise MachineError(f"{path} is not a kernel: it has no nb_run", "define nb_run (see kernels/nb.h)") from error
        if descriptor.abi != ABI or tuple(layout) != _LAYOUT:
            raise MachineError(
                f"kernel {path} has ABI {descriptor.abi} and layout {list(layout)}; this numabench speaks ABI {ABI} "
                f"and {list(_LAYOUT)}",
                f"rebuild it: {in_shell('rm', path)} and run again; for a plug-in, use the nb.h of this version",
            )
        self.run.argtypes, self.run.restype = [c.POINTER(ThreadBlock)], c.c_int
        self.path = path
        self.instructions = instructions.value.decode()
        self.name, self.version, self.summary = descriptor.name.decode(), descriptor.version, descriptor.summary.decode()
        self.parameters = {p.name.decode(): p for p in descriptor.parameters[: descriptor.n_parameters]}
        self.metrics = {
            m.name.decode(): Metric(
                name=m.name.decode(),
                unit=m.unit.decode(),
                summary=m.summary.decode(),
                polarity=(NEITHER, HIGHER, LOWER)[m.polarity],
            )
            for m in descriptor.metrics[: descriptor.n_metrics]
        }

    def encode(self, arguments: dict[str, str | int]) -> list[int]:
        """Values in the kernel's own order; what is not named keeps its default."""
        unknown = set(arguments) - set(self.parameters)
        if unknown:
            raise UsageError(
                f"kernel {self.name} has no parameter {', '.join(sorted(unknown))}", f"it has {', '.join(self.parameters)}"
            )
        values = []
        for name, parameter in self.parameters.items():
            value = arguments.get(name, parameter.initial)
            if isinstance(value, str):
                choices = parameter.choices.decode().split("|") if parameter.choices else []
                if value not in choices:
                    raise UsageError(
                        f"kernel {self.name} has no {name}={value}", f"choose one of {', '.join(choices) or 'numbers'}"
                    )
                value = choices.index(value)
            if not parameter.least <= value <= parameter.most:
                raise UsageError(f"kernel {self.name}: {name}={value} is outside {parameter.least} to {parameter.most}")
            values.append(value)
        return values


def source_folder() -> Path:
    """Where the C files are: beside the package in a checkout, inside it once installed."""
    from pathlib import Path

    here = Path(__file__).resolve().parent
    for folder in (here / "kernels", here.parent / "kernels"):
        if (folder / "nb.h").exists():
            return folder
    raise MachineError(f"the kernels' sources are missing beside {here}", "pip install --force-reinstall numabench")


def machine_flags(line_bytes: int | None = None, atomics: bool | None = None) -> tuple[str, ...]:
    """What a kernel is told of the machine that it is compiled for: bytes of a cache line (64 unless said otherwise) and, on
    aarch64, whether there are atomic instructions (None: those of this machine), which the compiler would leave to a function called at run time."""
    flags = [f"-DNB_LINE={line_bytes}"] if line_bytes and line_bytes != 64 else []
    if atomics is None:
        atomics = os.uname().machine == "aarch64" and bool(c.CDLL(None).getauxval(16) & HWCAP_ATOMICS)
    return (*flags, *(["-DNB_LSE"] if atomics else []))


def words_of(variable: str) -> list[str]:
    """The words of an environment variable, split as a shell would."""
    import shlex

    value = os.environ.get(variable, "")
    try:
        return shlex.split(value)
    except ValueError as error:
        raise UsageError(
            f"{variable} cannot be split into words ({error}): {value!r}", f"quote it in pairs, or: unset {variable}"
        ) from error


def find_compiler() -> list[str]:
    """$CC, else the first of cc, gcc, clang."""
    import shutil

    from .host.install import install_compiler

    wanted = words_of("CC")
    candidates = [wanted] if wanted else [[name] for name in COMPILERS]
    for command in candidates:
        if shutil.which(command[0]):
            return command
    raise MachineError(
        f"no C compiler ({' '.join(wanted) if wanted else ', '.join(COMPILERS)} not found); "
        "kernels are compiled on the machine that they measure",
        "unset CC, or set it to a compiler that exists" if wanted else install_compiler(),
    )


def ask_compiler(command: list[str], timeout: float, folder: Path | None = None) -> Answer:
    """What a compiler answers; in `folder` it has its own temporary files."""
    from .host.commands import ask

    try:
        answer = ask(command, timeout, os.environ | {"TMPDIR": str(folder)} if folder else None)
    except OSError as error:
        raise MachineError(f"the compiler {command[0]} cannot be called: {error.strerror}", "set CC to one that works") from error
    if answer.code is None:
        raise MachineError(
            f"the compiler did not end within {timeout:g} s and was stopped: {in_shell(*command)}", "set CC to one that works"
        )
    return answer


def compiler_version(command: list[str]) -> str:
    shown = ask_compiler([*command, "--version"], VERSION_S).output
    return shown.splitlines()[0] if shown else command[0]


class Build:
    """What one kernel is compiled with, and the object once there is one; `told`: what it is told of the machine, and whatever else it is compiled with.
    `pushed`: it came from the machine that launches."""

    target: Path
    pushed = False

    def __init__(self, source: Path, told: tuple[str, ...] = ()):
        import hashlib

        self.source, folder = source, source.parent
        self.command = find_compiler()
        self.compiler = compiler_version(self.command)
        self.flags = [*FLAGS, *told, *words_of("CFLAGS")]
        # A cache in a shared home is used by several machines: by another architecture never, and by another processor only
        # without -march=native or its like. The host's name stands for the processor, which uname does not know.
        system = os.uname()
        machine = [system.machine, *([system.nodename] if any("native" in flag for flag in self.flags) else [])]
        key = hashlib.sha256()
        for part in (*machine, self.compiler, *self.command, *self.flags, *sorted(folder.glob("*.h")), self.source):
            key.update(part.encode() if isinstance(part, str) else part.read_bytes())
            key.update(b"\0")
        self.stem = f"{source.stem}-{key.hexdigest()[:16]}"  # of the object's name; the hash of what was compiled follows


class Pushed(Build):
    """What a launch has sent, compiled where it was launched."""

    pushed = True

    def __init__(self, source: Path, piece: Piece, target: Path):
        self.source, self.target = source, target
        self.compiler, self.flags = piece.compiler, [*piece.flags]


def source_of(name: str, folder: Path | None = None) -> Path:
    source = (folder or source_folder()).resolve() / f"{name}.c"
    if not source.exists():
        raise MachineError(f"kernel source {source} is missing", "git checkout kernels, or reinstall numabench")
    return source


def build(name: str, extra: tuple[str, ...] = (), folder: Path | None = None, line_bytes: int | None = None) -> Build:
    """Kernel `name` for this machine, whose cache lines have `line_bytes`: what a launch sent, where there is one and it fits, else compiled."""
    if c.sizeof(c.c_void_p) != 8:
        raise MachineError(
            f"kernels need 64-bit addresses and arithmetic, and this is a 32-bit Python on {os.uname().machine}",
            "use a 64-bit Python; a 32-bit processor can only read logs",
        )
    source, told = source_of(name, folder), (*machine_flags(line_bytes), *extra)
    parcel = os.environ.get(PARCEL)
    if not parcel:
        return compiled(source, told)
    from .host.pushed import find

    try:
        return Pushed(source, *find(parcel, source, told))
    except MachineError as error:
        why = error.message
    try:
        return compiled(source, told)
    except MachineError as error:
        raise MachineError(f"{error.message}; of those that were sent here none can be used: {why}", error.fix) from error


def compiled(source: Path, told: tuple[str, ...] = ()) -> Build:
    """Compile a kernel unless the cache has it, whole. Raises MachineError with the compiler's first complaint."""
    from .host.cache import cache_folder

    plan, cache = Build(source, told), cache_folder("kernels")
    try:
        plan.target = known_object(cache, plan.stem) or compile_into(cache, plan)
    except OSError as error:
        raise MachineError(
            f"cannot keep a compiled kernel in {cache}: {error.strerror}",
            "set XDG_CACHE_HOME to a folder with room that can be written to",
        ) from error
    return plan


def known_object(cache: Path, stem: str) -> Path | None:
    """What was compiled before. One that was cut since, by a full disk or a crash, goes: mapped as it is, it would be a bus error."""
    for found in sorted(cache.glob(f"{stem}-{'[0-9a-f]' * DIGITS}.so")):
        try:
            read_object(found)
        except MachineError:
            found.unlink(missing_ok=True)
        else:
            return found
    return None


def compile_into(cache: Path, plan: Build) -> Path:
    """The new object in the cache. All files that compiling needs are in a folder of its own: what a killed run leaves, the next one removes."""
    from .host.cache import workplace

    with workplace(cache) as folder:
        made = f"{folder}/{plan.source.stem}.so"
        answer = ask_compiler([*plan.command, *plan.flags, "-o", made, str(plan.source)], COMPILE_S, folder)
        if answer.code:
            complaint = next(
                (line for line in answer.errors.splitlines() if "error" in line), answer.errors.strip() or "no message"
            )
            raise MachineError(f"{plan.command[0]} cannot compile {plan.source}: {complaint}", compile_fix(plan, complaint))
        content = read_object(made)
        target = cache / f"{plan.stem}-{content_hash(content)}.so"
        os.chmod(made, 0o700)
        os.replace(made, target)
    return target


def compile_fix(plan: Build, complaint: str) -> str:
    """What mends it: the source where the compiler points into it, and what is installed only where a header or the compiler itself is wrong."""
    from .host.install import mend_compiler

    if complaint.startswith(f"{plan.source.parent}/") and "No such file" not in complaint and "not found" not in complaint:
        return f"mend that line of the source; numabench's own: {in_shell('git', 'checkout', plan.source.parent.name)}, or reinstall numabench"
    return mend_compiler(plan.command[0])


def object_hash(path: Path) -> str:
    return content_hash(read_object(path))[:16]


def fastest_batch(block: ThreadBlock) -> float:
    """Nanoseconds of one operation in the fastest batch of a thread's window: for operations that all take the same, what the core does while nothing is in its way."""
    return block.value[SHORTEST_SLOT] / block.value[BATCH_SLOT]


def median_batch(block: ThreadBlock) -> float:
    """Nanoseconds of one operation in the median batch of a thread's window: what a window costs without its interruptions."""
    return block.value[MEDIAN_PS_SLOT] / block.value[BATCH_SLOT] / 1000


def mean_batch(block: ThreadBlock) -> float:
    """Nanoseconds of one operation in the mean batch of a thread's window, trimmed by 1 % at either end, one at least of eight and more (nb_mean_batch)."""
    return block.value[MEAN_PS_SLOT] / block.value[BATCH_SLOT] / 1000


def batch_middle(index: int) -> float:
    """The middle of a bin of the histogram of batches, in usual durations (nb_batch_middle)."""
    if index < 2 * FINE_BINS:
        return (index + 0.5) / FINE_BINS
    octave, step = divmod(index - 2 * FINE_BINS, BINS_PER_OCTAVE)
    return 2.0 ** (octave + 1) * (1 + (step + 0.5) / BINS_PER_OCTAVE)


def batch_quantile(block: ThreadBlock, share: float) -> float:
    """Nanoseconds of one operation in the batch that `share` of a window's batches do not exceed: within 0.4 % up to twice the
    usual duration, within 3 % up to 512 times that; infinite beyond, where the histogram ends."""
    wanted, seen = share * sum(block.histogram), 0
    for index, count in enumerate(block.histogram):
        seen += count
        if count and seen >= wanted:
            last = index == BINS - 1
            return float("inf") if last else batch_middle(index) * block.value[USUAL_SLOT] / block.value[BATCH_SLOT]
    return float("nan")


def octave_shares(bins: Sequence[int]) -> dict[int, float]:
    """The least whole ns of each octave of a log2 histogram (0, 1, 2, 4 ...) -> its share of all; those that have none are left out."""
    total, found = sum(bins), {}
    for index, count in enumerate(bins):
        if count:
            octave = 1 << index.bit_length() >> 1 if index < BINS_PER_OCTAVE else 1 << index // BINS_PER_OCTAVE + 3
            found[octave] = found.get(octave, 0) + count
    return {octave: count / total for octave, count in found.items()}


def add_histograms(blocks: Sequence[ThreadBlock]) -> list[int]:
    """The sums of all threads' bins. Two bins at a time in integers as long as a histogram: bin by bin, those of 512 threads take 93 ms."""
    numbers = [int.from_bytes(block.histogram, sys.byteorder) for block in blocks]
    lower = int.from_bytes(b"".join([((1 << 32) - 1).to_bytes(8, sys.byteorder)] * (BINS // 2)), sys.byteorder)
    halves = [sum(number & lower for number in numbers), sum(number >> 32 & lower for number in numbers)]
    low, high = (memoryview(half.to_bytes(4 * BINS, sys.byteorder)).cast("Q") for half in halves)
    pairs = zip(low, high, strict=True) if sys.byteorder == "little" else zip(high, low, strict=True)
    return [count for pair in pairs for count in pair]


def has_tail(events: int, share: float) -> bool:
    """Whether one of so many events lies beyond their quantile `share`: that of fewer is only the longest of them, which grows with the window."""
    return events * (1 - share) >= 1


def tail(block: ThreadBlock, name: str) -> dict[str, float]:
    """The metric `name`: ns that 99 of 100 single events of a window (nb_each.h) do not exceed. None where they were too few, or it lies beyond the end of the histogram."""
    found = batch_quantile(block, P99) if has_tail(block.operations, P99) else float("inf")
    return {name: found} if found < float("inf") else {}


def histogram_quantile(bins: list[int], share: float) -> float:
    """The `share` quantile in ns of a log2 histogram with 16 bins per octave; the middle of its bin (within 3 %)."""
    wanted, seen = share * sum(bins), 0
    for index, count in enumerate(bins):
        seen += count
        if count and seen >= wanted:
            if index < BINS_PER_OCTAVE:
                return float(index)
            octave, step = index // BINS_PER_OCTAVE + 3, index % BINS_PER_OCTAVE
            return 2.0 ** (octave - 4) * (BINS_PER_OCTAVE + step + 0.5)
    return float("nan")
