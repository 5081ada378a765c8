"""What is compiled on this machine for the simulated one: the simulator and what runs in the guest. Kept by content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import UnavailableError
from .machine import ARM, X86
from .packages import folder, locked

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra")
#: The simulator without QEMU: memory and what waits for it. `order.c` keeps CPUs together that are threads.
MODEL = tuple(
    HERE / f"simulator/{name}.c"
    for name in (
        "bandwidth",
        "caches",
        "configuration",
        "decode",
        "events",
        "levels",
        "memory",
        "overlap",
        "stores",
        "translation",
    )
)
ARM_COMPILER = "aarch64-linux-gnu-gcc"
COMPILER_PACKAGES = {X86: "gcc libc6-dev", ARM: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"}
LIBRARY = ("-fPIC", "-shared", "-fvisibility=hidden")


@dataclass(frozen=True)
class Programs:
    """`simulator`: QEMU's plug-in; `switch`: preloaded into numabench in the guest; `model`: the same switch as a command."""

    simulator: Path
    switch: Path
    model: Path


def compile_programs(arch: str = X86) -> Programs:
    """Compile what is not compiled yet, for a guest of this architecture. UnavailableError without a compiler."""
    simulator = sorted((HERE / "simulator").glob("*.c"))
    return Programs(
        simulator=compiled("simulator.so", simulator, LIBRARY),
        switch=compiled("switch.so", [HERE / "guest/switch.c"], LIBRARY, arch),
        model=compiled("model", [HERE / "guest/model.c"], ("-static",), arch),
    )


def compiled(name: str, sources: list[Path], flags: tuple[str, ...], arch: str = X86) -> Path:
    compiler, packages = [ARM_COMPILER] if arch == ARM else os.environ.get("CC", "gcc").split(), COMPILER_PACKAGES[arch]
    if not shutil.which(compiler[0]):
        raise UnavailableError(f"the compiler {compiler[0]} is missing", f"sudo apt-get install {packages}")
    command = [*compiler, *FLAGS, *flags]
    headers = [*sorted({header for source in sources for header in source.parent.glob("*.h")}), HERE.parent / "kernels/nb.h"]
    key = hashlib.sha256("\0".join(command).encode())
    for path in (*sources, *headers):
        key.update(path.read_bytes())
    target = folder() / "programs" / key.hexdigest()[:16] / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_suffix(".lock")):
        if not target.exists():
            partial = target.with_suffix(".partial")
            done = subprocess.run([*command, "-o", partial, *sources], capture_output=True, text=True, check=False)
            if done.returncode:
                complaint = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
                raise UnavailableError(f"{compiler[0]} cannot compile {name}: {complaint}", f"sudo apt-get install {packages}")
            partial.replace(target)
    return target
