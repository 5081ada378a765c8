"""What is compiled on this machine for the simulated one: the simulator and what runs in the guest. Kept by content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .errors import UnavailableError
from .packages import folder, locked

HERE = Path(__file__).resolve().parent
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra")
#: The simulator without QEMU: memory and what waits for it. `order.c` keeps CPUs together that are threads.
MODEL = tuple(
    HERE / f"simulator/{name}.c"
    for name in ("bandwidth", "caches", "configuration", "decode", "levels", "memory", "overlap", "stores", "translation")
)
LIBRARY = ("-fPIC", "-shared", "-fvisibility=hidden")


@dataclass(frozen=True)
class Programs:
    """`simulator`: QEMU's plug-in; `switch`: preloaded into numabench in the guest; `model`: the same switch as a command."""

    simulator: Path
    switch: Path
    model: Path


def compile_programs() -> Programs:
    """Compile what is not compiled yet. UnavailableError without a compiler."""
    simulator = sorted((HERE / "simulator").glob("*.c"))
    return Programs(
        simulator=compiled("simulator.so", simulator, LIBRARY),
        switch=compiled("switch.so", [HERE / "guest/switch.c"], LIBRARY),
        model=compiled("model", [HERE / "guest/model.c"], ("-static",)),
    )


def compiled(name: str, sources: list[Path], flags: tuple[str, ...]) -> Path:
    compiler = os.environ.get("CC", "gcc").split()
    if not shutil.which(compiler[0]):
        raise UnavailableError(f"the compiler {compiler[0]} is missing", "sudo apt-get install gcc libc6-dev")
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
                raise UnavailableError(f"{compiler[0]} cannot compile {name}: {complaint}", "sudo apt-get install gcc libc6-dev")
            partial.replace(target)
    return target
