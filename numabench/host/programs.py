"""Facts of the live machine that only other programs know (py-cpuinfo, the compiler), kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import msgspec

from ..errors import MachineError
from .cache import cache_folder, sweep, workplace
from .commands import ask
from .sysfs import Tree

_DIGITS = 12  # 48 bits: two of a million machines share an id with a chance of 0.2 %
_TIMEOUT_S = 10


def digest(value) -> str:
    """A short name for whatever JSON can hold."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:_DIGITS]


def read_programs(tree: Tree, processor: dict[str, str]) -> dict:
    """{brand, flags, compiler} from programs that take up to a second, kept in the user's cache directory.

    The cache is valid for one kind of processor and one compiler binary; a cache that cannot be written is a warning.
    """
    volatile = ("cpu MHz", "bogomips", "BogoMIPS", "processor")
    compiler = compiler_path()
    stamp = [compiler, os.stat(compiler).st_mtime_ns if compiler else None, find_spec("cpuinfo") is not None]
    stable = {key: value for key, value in processor.items() if key not in volatile}
    name = f"cpuinfo-{digest([stable, os.uname().machine])}.json"
    try:
        cache = cache_folder()
    except MachineError as error:
        tree.warn(f"cannot keep processor facts: {error.message}")
        return {**_ask_cpuinfo(tree), "compiler": _ask_compiler(tree, compiler)}
    sweep(cache)
    path = cache / name
    known = _read_cache(tree, path)
    if known.get("compiler_stamp") == stamp and "brand" in known:
        return known
    cpu = {key: known[key] for key in ("brand", "flags") if key in known} or _ask_cpuinfo(tree)
    facts = {**cpu, "compiler": _ask_compiler(tree, compiler), "compiler_stamp": stamp}
    try:
        with workplace(cache) as folder:
            partial = Path(folder, name)
            partial.write_bytes(msgspec.json.encode(facts))
            partial.replace(path)
    except OSError as error:
        tree.warn(f"cannot keep processor facts in {path}: {error.strerror}")
    return facts


def _read_cache(tree: Tree, path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict)
    except (OSError, msgspec.DecodeError) as error:
        tree.warn(f"cannot use {path}: {error}")
        return {}


def _ask_cpuinfo(tree: Tree) -> dict:
    """Brand and flags from py-cpuinfo, which runs CPUID itself; nothing without it, and with a warning when it fails."""
    if not find_spec("cpuinfo"):
        return {"brand": None, "flags": []}
    try:
        import cpuinfo

        info = cpuinfo.get_cpu_info()
    except Exception as error:  # py-cpuinfo raises bare Exception for any architecture or output it does not know
        tree.warn(f"py-cpuinfo failed ({error}): brand and flags are those of /proc/cpuinfo")
        return {}
    return {"brand": info.get("brand_raw") or None, "flags": info.get("flags") or []}


def compiler_path() -> str | None:
    """The program that $CC names (without its arguments), else cc, gcc or clang."""
    words = os.environ.get("CC", "").split()[:1]
    return next((path for name in (*words, "cc", "gcc", "clang") if (path := shutil.which(name))), None)


def _ask_compiler(tree: Tree, compiler: str | None) -> str | None:
    if compiler is None:
        return None
    try:
        answer = ask([compiler, "--version"], _TIMEOUT_S)
    except OSError as error:
        tree.warn(f"{compiler} --version failed: {error}")
        return None
    if answer.code:
        tree.warn(f"{compiler} --version ended with exit code {answer.code}")
    elif answer.code is None:
        tree.warn(f"{compiler} --version did not end within {_TIMEOUT_S} s")
    return None if answer.code != 0 else next(iter(answer.output.splitlines()), None)
