"""numabench: what a machine's memory system really costs, with proof.

import numabench as nb
run = nb.run("padded_counters", profile="quick")
run.samples()                      # a tidy DataFrame
nb.compare("results/a", "results/b").cells
"""

__version__ = "0.1.0"

_API = ("Run", "check", "compare", "list_benchmarks", "load", "machine", "resume", "run", "topology")
__all__ = [*_API, "__version__"]


def __getattr__(name: str):
    """The API is imported at first use: workers and `--help` must not pay for pandas."""
    if name in _API:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_API])
