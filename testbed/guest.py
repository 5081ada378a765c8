"""Boot a machine, run one command in it, bring back what it printed and wrote. Nothing stays behind."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import aarch64
from .errors import GuestError, UnavailableError
from .initrd import write_initrd
from .machine import ARM, Machine
from .own_time import OwnTime
from .packages import Tools, find_tools, folder
from .packages_aarch64 import find_arm_tools
from .programs import Programs, compile_programs
from .qemu import command as qemu_command
from .qemu import configuration

BOOT_TIMEOUT = 180.0  # s that the guest had (own_time.py); 5 on a quiet machine
POLL = 0.05  # s between looks at the guest
CONSOLE_LINES = 12
EXCHANGED = tuple(f".testbed-{name}" for name in ("command", "started", "status", "stdout", "stderr"))  # in the shared folder
KERNELS, COMMAND, NOTHING = "kernels", "command", "nothing"  # what is timed
TIMED = (KERNELS, COMMAND, NOTHING)
spinners = 0  # threads of virtual CPUs that may wait by spinning; 0: one for each CPU that this process may use
#: Of a guest with a system of its own.
ARM_VARIABLES = {"PATH": "/usr/sbin:/usr/bin", "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": "/bytecode"}
ATTEMPTS = 2  # QEMU with a plug-in crashed once in some hundred runs; a wrong figure is never tried again


@dataclass(frozen=True)
class Result:
    """`status` is the command's exit code; `shared` the folder that it saw as /out. Times are seconds of this machine.

    `sections`: what the simulator saw each time that kernels measured: {"bytes", "accesses": {"cpu/node": n}, "pages": {"node": n}}
    of the measured buffer; CPUs by QEMU's numbers (Machine.positions). `statistics`: the simulator's counters.
    """

    status: int
    stdout: str
    stderr: str
    shared: Path
    boot: float
    seconds: float
    console: str
    statistics: dict[str, int] = field(default_factory=dict)
    sections: list[dict] = field(default_factory=list)


def run(
    machine: Machine,
    command: list[str] | str,
    *,
    shared: Path,
    timed: str = KERNELS,
    timeout: float = 600.0,
    wall: bool = False,
    environment: dict[str, str] | None = None,
    output: Callable[[str, str], None] | None = None,
) -> Result:
    """Run `command` (a list of words, or a text for the shell) on `machine`.

    `timed`: the model runs while numabench's kernels measure, during the whole command, or never (the machine has no timing
    or none is wanted: plain mode). In plain mode the simulator still records where accesses go. `timeout`: seconds that the guest had, or (`wall`) that
    passed. `output` gets each piece of what the command prints, as ("stdout" or "stderr", text). Raises GuestError on a time-out, a panic or a crash.
    """
    tools = find_arm_tools(machine.page) if machine.arch == ARM else find_tools()
    programs = compile_programs(machine.arch)
    if machine.timing is None and timed != NOTHING:
        raise UnavailableError(f"{machine.name} has no [timing]", "--plain, or give it one (docs/testbed.md)")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with Guest(machine, tools, programs, Path(shared), timed) as guest:
                return guest.execute(command, timeout, wall, environment or {}, output)
        except Crash as crash:
            if attempt == ATTEMPTS:
                raise
            if output:
                output("stderr", f"testbed: {crash.problem}; once more, from the beginning\n")
    raise AssertionError("unreachable")


def patience(machine: Machine) -> float:
    """How much longer than usual a guest of so many CPUs may take."""
    return max(1.0, machine.cpus / 16)


class Crash(GuestError):
    """QEMU itself crashed; what the command had written to the shared folder is still there."""


class Guest:
    """One QEMU process and its files, from entry to exit of the context."""

    def __init__(self, machine: Machine, tools: Tools, programs: Programs, shared: Path, timed: str):
        self.machine, self.tools, self.programs, self.shared, self.timed = machine, tools, programs, shared, timed
        self.process: subprocess.Popen | None = None
        self.work: Path | None = None

    def __enter__(self) -> Guest:
        sweep()
        runs = folder() / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        self.shared.mkdir(parents=True, exist_ok=True)
        self.clear()  # of a run that was killed: the next one would take them for its own
        self.work = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=runs))
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.work, ignore_errors=True)
        self.clear()

    def clear(self) -> None:
        for name in EXCHANGED:
            (self.shared / name).unlink(missing_ok=True)

    def execute(
        self,
        command: list[str] | str,
        timeout: float,
        wall: bool,
        environment: dict[str, str],
        output: Callable[[str, str], None] | None,
    ) -> Result:
        self.write_files(command, environment)
        began = time.monotonic()
        self.start()
        started = self.wait(timeout, wall, output)
        ended = time.monotonic()
        status = self.read(".testbed-status").strip()
        if not status:
            where = "while the command ran" if started else "before the command began"
            code = self.process.returncode
            kind = Crash if code < 0 else GuestError  # killed by a signal, or the guest's own doing
            raise kind(f"the guest went down {where} (QEMU's exit code {code})", "what the console says", self.tail())
        return Result(
            status=int(status),
            stdout=self.read(".testbed-stdout"),
            stderr=self.read(".testbed-stderr"),
            shared=self.shared,
            boot=(started or ended) - began,
            seconds=ended - (started or ended),
            console=self.console(),
            statistics={k: int(v) for k, v in (line.split() for line in self.lines("statistics"))},
            sections=[json.loads(line) for line in self.lines("sections")],
        )

    def write_files(self, command: list[str] | str, environment: dict[str, str]) -> None:
        text = command if isinstance(command, str) else shlex.join(command)
        variables = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMABENCH_RUN_ANYWAY": "1",  # a processor that is emulated is what is wanted here
            "OPENBLAS_NUM_THREADS": "1",  # its spinning threads would take minutes
            **(ARM_VARIABLES if self.machine.arch == ARM else {}),
            **environment,
        }
        if self.timed != COMMAND:  # in plain mode, the simulator records while kernels measure
            variables["LD_PRELOAD"] = str(self.programs.switch)
            if self.machine.timing and self.machine.timing.caches:
                variables["TESTBED_CACHES"] = "1"  # a preparation of one thread is timed, too
        model = self.programs.model
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        lines += [f"cd {shlex.quote(os.getcwd())}"]
        lines += [f"{model} on", text, "status=$?", f"{model} off", "exit $status"] if self.timed == COMMAND else [text]
        (self.shared / ".testbed-command").write_text("\n".join(lines) + "\n")
        write_initrd(self.work / "initrd", self.tools, self.machine)
        (self.work / "machine").write_text(
            configuration(self.machine, self.timed != NOTHING, spinners or len(os.sched_getaffinity(0)))
        )

    def start(self) -> None:
        make = aarch64.command if self.machine.arch == ARM else qemu_command
        words = make(self.machine, self.tools, self.work / "initrd", self.work / "console", self.shared.resolve())
        options = ",".join(f"{name}={self.work / name}" for name in ("machine", "statistics", "sections"))
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": self.tools.libraries,
            "LD_PRELOAD": str(self.programs.simulator),
        }
        with (self.work / "errors").open("wb") as errors:
            self.process = subprocess.Popen(
                [*words, "-plugin", f"{self.programs.simulator},{options}"],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def wait(self, timeout: float, wall: bool, output: Callable[[str, str], None] | None) -> float | None:
        """Until QEMU ends; returns when the command began."""
        started, shown, own = None, {"stdout": 0, "stderr": 0}, OwnTime(self.process.pid)
        while True:
            ended = self.process.poll() is not None
            if output:
                for name in shown:
                    shown[name] += self.show(name, shown[name], output)
            if ended:
                return started
            now = time.monotonic()
            if started is None and (self.shared / ".testbed-started").exists():
                started, own = now, OwnTime(self.process.pid)
            if started is None and own.passed() > BOOT_TIMEOUT * patience(self.machine):
                raise GuestError(
                    f"the guest did not boot within {BOOT_TIMEOUT * patience(self.machine):.0f} s of its own",
                    "what the console says",
                    self.tail(),
                )
            if started is not None and (now - started if wall else own.passed()) > timeout:
                last = (self.read(".testbed-stdout") + self.read(".testbed-stderr")).strip().splitlines()[-1:]
                said = f"; its last line: {last[0]}" if last else ""
                raise GuestError(f"the command did not end within {timeout:.0f} s{said}", "a longer --timeout", self.tail())
            time.sleep(POLL)

    def show(self, name: str, offset: int, output: Callable[[str, str], None]) -> int:
        path = self.shared / f".testbed-{name}"
        if not path.exists() or path.stat().st_size <= offset:
            return 0
        with path.open("rb") as file:
            file.seek(offset)
            piece = file.read()
        whole = len(piece) - unfinished(piece)
        output(name, piece[:whole].decode(errors="replace"))
        return whole

    def read(self, name: str) -> str:
        path = self.shared / name
        return path.read_text(errors="replace") if path.exists() else ""

    def lines(self, name: str) -> list[str]:
        path = self.work / name
        return path.read_text().splitlines() if path.exists() else []

    def console(self) -> str:
        path = self.work / "console"
        return path.read_text(errors="replace") if path.exists() else ""

    def tail(self) -> str:
        """QEMU's and the console's last words; a panic from where it says why."""
        console = self.console().splitlines()
        panic = next((number for number, line in enumerate(console) if "Kernel panic" in line), len(console) - CONSOLE_LINES)
        shown = console[max(panic, 0) :][:CONSOLE_LINES]
        return "\n".join([*self.lines("errors")[-CONSOLE_LINES:], *shown])


def unfinished(piece: bytes) -> int:
    """How many bytes at the end are the beginning of a character whose rest has not come yet."""
    for back in range(1, min(3, len(piece)) + 1):
        lead = piece[-back]
        if lead & 0xC0 != 0x80:  # no continuation: where a character begins
            length = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
            return back if length > back else 0
    return 0


def die_with_parent() -> None:
    """In the child before it becomes QEMU: it goes when this process goes, however it goes (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def sweep() -> None:
    """Remove the files of runs whose process was killed before it could."""
    for path in (folder() / "runs").glob("*-*"):
        owner = path.name.split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def temporary_share() -> Iterator[Path]:
    """A folder for /out that goes with the run."""
    runs = folder() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=runs))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
