"""What is certified besides single machines, each with answers of its own: one module each, whose `known()` makes it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol

from ..judgement import Finding

#: Modules of this package, in the order in which they are certified.
NAMES = ("fleet", "contracts", "caches", "translation", "bandwidth", "stores", "threads", "cloud", "calibration", "defects")


class Known(Protocol):
    """What is certified besides single machines, with answers of its own. It may name what it `uses` (../touched.py): benchmarks, machines and others of NAMES; without,
    every change touches it."""

    name: str

    @property
    def summary(self) -> str: ...

    @property
    def boots(self) -> int: ...

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]: ...


def known(name: str) -> Known:
    """The one of NAMES that is called so."""
    return import_module(f".{name}", __name__).known()
