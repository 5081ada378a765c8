"""What can be installed besides the core, which measures, checks and shows machines with click, msgspec and rich alone."""

from __future__ import annotations

from importlib.util import find_spec

from .errors import MachineError

INSTALL = "pip install 'numabench[report]'"
#: What reading logs takes: estimates, answers, comparisons, figures and pages.
REPORT = ("numpy", "pandas", "scipy", "matplotlib", "jinja2")


def lacking() -> list[str]:
    """Which of REPORT are not installed."""
    return [name for name in REPORT if find_spec(name) is None]


def need_report() -> None:
    """Raises MachineError, which names the extra, unless all of REPORT is there."""
    if missing := lacking():
        raise MachineError(
            f"reading logs needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed", INSTALL
        )
