"""numabench's kernels for a guest of aarch64, compiled on this machine: as a launch packs them for machines without a compiler (numabench/host/pushed.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .errors import SimulationError
from .machine import ARM
from .packages_aarch64 import home
from .programs import ARM_COMPILER, COMPILER_PACKAGES

#: Run by a Python of its own, with the checkout that is wanted. `uname` says for which architecture objects are kept apart and a parcel is.
CODE = """
import os, sys
here = os.uname()
os.uname = lambda: os.uname_result((here.sysname, here.nodename, here.release, here.version, "aarch64"))
import msgspec
from numabench import kernel
from numabench.host.cache import cache_folder
from numabench.host.pushed import FOLDER, make_parcel
from numabench.measure.parcel import compiled
kernels, lines = {kernels!r}, {lines!r}
wanted = [(kernel.source_of(name), kernel.machine_flags(line, lse)) for name in kernels for line in lines for lse in (False, True)]
pieces = [compiled(*one) for one in dict.fromkeys(wanted)]
for piece in pieces:
    if isinstance(piece, Exception):
        raise piece
parcel, folder = make_parcel(pieces), cache_folder(FOLDER)
for piece in parcel.listed.pieces:
    (folder / piece.file).write_bytes(parcel.objects[piece.content])
(folder / (parcel.name + ".json")).write_bytes(msgspec.json.encode(parcel.listed))
print(folder / (parcel.name + ".json"))
"""


def arm_parcel(tree: Path, kernels: tuple[str, ...], lines: tuple[int, ...]) -> Path:
    """The list of the parcel with `kernels` of `tree`, in a cache of its own, for lines of these sizes, with and without atomic instructions."""
    cache = home() / "kernels"
    cache.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(tree), "CC": ARM_COMPILER}
    code = CODE.format(kernels=(*kernels, "transfer_unit"), lines=lines)
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=cache, capture_output=True, text=True, check=False)
    if done.returncode:
        complaint = (done.stderr.strip() or "no message").splitlines()[-1]
        raise SimulationError(
            f"the kernels of {tree} do not compile for {ARM}: {complaint}", f"apt-get install {COMPILER_PACKAGES[ARM]}"
        )
    return Path(done.stdout.strip().splitlines()[-1])
