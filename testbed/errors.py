"""What can go wrong with the simulated machine: one line that says what, and the command that mends it."""

from __future__ import annotations


class SimulationError(Exception):
    """`remedy` is what to do about it; `console` holds the last lines of the guest's console where there are any."""

    exit_code = 1

    def __init__(self, problem: str, remedy: str = "", console: str = ""):
        super().__init__(f"{problem}. Try: {remedy}" if remedy else problem)
        self.problem, self.remedy, self.console = problem, remedy, console


class MachineFileError(SimulationError):
    """A machine file describes what cannot be."""

    exit_code = 2


class UnavailableError(SimulationError):
    """QEMU, the kernel or the compiler is missing and may not be fetched."""

    exit_code = 3


class GuestError(SimulationError):
    """The guest did not boot, went down or took too long."""

    exit_code = 124
