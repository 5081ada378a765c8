"""What can be installed besides the core, which measures, checks and shows machines with click, msgspec and rich alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def loading() -> Iterator[None]:
    """Around imports of REPORT: an interrupt that meets such a library while it is loaded ends in an ImportError or a SIGSEGV of its own. It waits until
    all are there."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears interrupts
        yield
        return
    heard: list[int] = []
    heeded = [each for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(each))]
    previous = {each: signal.signal(each, lambda number, _: heard.append(number)) for each in heeded}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
    if heard:
        signal.raise_signal(heard[0])
