"""Events that only the kernel's tracepoints count, by the program perf: for root, or whom root allows it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import MachineError
from .commands import ask

#: Name -> perf's words for it. 4 is TLB_REMOTE_SEND_IPI (include/linux/mm_types.h): what is asked of other CPUs, and not what happens on them.
EVENTS = {
    "system_calls": ("-e", "raw_syscalls:sys_enter"),
    "shootdowns": ("-e", "tlb:tlb_flush", "--filter", "reason==4"),
}
TRIAL_S = 10.0
NEEDS = "as root (sudo -E), with perf (Debian: linux-perf) and tracefs, or leave --hardware away"
_CONTROL, _ANSWER = "control", "answer"


class Counting:
    """Counts of a process and what it starts from now on."""

    def __init__(self, perf: str, folder: Path):
        self.perf, self.folder = perf, folder
        self.process: int | None = None
        for name in (_CONTROL, _ANSWER):
            os.mkfifo(folder / name, 0o600)

    def start(self, number: int) -> None:
        """Returns when it counts."""
        fifos = ",".join(str(self.folder / name) for name in (_CONTROL, _ANSWER))
        command = [*_stat(self.perf, self.folder / "counts"), "-D", "-1", "--control", f"fifo:{fifos}", "-p", str(number)]
        with contextlib.ExitStack() as opened:
            control, answer = (os.open(self.folder / name, os.O_RDWR) for name in (_CONTROL, _ANSWER))
            for descriptor in (control, answer):
                opened.callback(os.close, descriptor)
            quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1, 2)]
            # in a session of its own: a Ctrl-C is for the program
            self.process = os.posix_spawn(self.perf, command, os.environ, file_actions=quiet, setsigmask=(), setsid=True)
            os.write(control, b"enable\n")
            if not select.select([answer], [], [], TRIAL_S)[0]:
                raise MachineError("perf does not begin to count", NEEDS)

    def finish(self) -> dict[str, int]:
        """{name: how often}, once."""
        if self.process is None:
            return {}
        os.kill(self.process, signal.SIGINT)
        os.waitpid(self.process, 0)
        self.process = None
        return _counts((self.folder / "counts").read_text())


@contextlib.contextmanager
def counting() -> Iterator[Counting]:
    """MachineError where nothing of EVENTS can be counted."""
    perf = shutil.which("perf")
    if perf is None:
        raise MachineError("there is no perf here, which counts the kernel's events", NEEDS)
    with tempfile.TemporaryDirectory(prefix="numabench-") as name:
        folder = Path(name)
        tried = ask([*_stat(perf, folder / "trial"), "--", "true"], TRIAL_S)
        if tried.code or not (folder / "trial").exists() or _counts((folder / "trial").read_text()).keys() != EVENTS.keys():
            why = next(iter(tried.errors.splitlines()), "it cannot count these events")
            raise MachineError(f"perf cannot be used here: {why}", NEEDS)
        found = Counting(perf, folder)
        try:
            yield found
        finally:
            found.finish()


def offers_counters() -> bool:
    """Whether the processor's own counters can be asked for at all: virtual machines often have none."""
    with contextlib.suppress(OSError):
        return any(name.startswith(("cpu", "armv")) for name in os.listdir("/sys/bus/event_source/devices"))
    return False


def _stat(perf: str, output: Path) -> list[str]:
    return [perf, "stat", "-x,", "-o", str(output), *(word for words in EVENTS.values() for word in words)]


def _counts(text: str) -> dict[str, int]:
    """Of lines such as `3000,,tlb:tlb_flush,22437029,100.00,,`."""
    rows = [line.split(",") for line in text.splitlines()]
    found = {row[2]: int(row[0]) for row in rows if len(row) > 2 and row[0].isdigit()}
    return {name: found[words[1]] for name, words in EVENTS.items() if words[1] in found}
