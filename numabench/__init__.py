"""numabench: what a machine's memory system really costs, with proof.

import numabench as nb
run = nb.run("padded_counters", profile="quick")
run.samples()                      # a tidy DataFrame
run.answers()                      # what the report says, a row each
run.plot("padded_counters")        # matplotlib
nb.compare("results/a", "results/b").cells
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # what checkers and editors see; the same names are imported at first use
    from .api import Run, check, compare, list_benchmarks, load, machine, resume, run, topology
    from .errors import LogError, MachineError, NumabenchError, UsageError

_API = ("Run", "check", "compare", "list_benchmarks", "load", "machine", "resume", "run", "topology")
_ERRORS = ("LogError", "MachineError", "NumabenchError", "UsageError")
__all__ = [
    "LogError",
    "MachineError",
    "NumabenchError",
    "Run",
    "UsageError",
    "__version__",
    "check",
    "compare",
    "list_benchmarks",
    "load",
    "machine",
    "resume",
    "run",
    "topology",
]


def __getattr__(name: str) -> object:
    """The API is imported at first use: workers and `--help` must not pay for pandas."""
    if name in _API:
        from . import api

        return getattr(api, name)
    if name in _ERRORS:
        from . import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
