"""What reading the clock costs and how finely it steps, and how long batches and windows must be for that."""

from __future__ import annotations

from ..errors import MachineError
from ..model import Frozen
from ..units import format_seconds

READINGS = 200  # that a batch is as long as: looking at the clock once is then half a per cent of it, and so is one of its steps
LEAST_BATCHES = 50  # of a window whose batches have grown: their mean without the outermost 1 % needs some
WORST = 20e-6  # s: beyond, a window of 50 batches would take a fifth of a second


class Clock(Frozen):
    """Seconds that one reading takes, and by which two readings differ at least."""

    cost: float = 0.0
    step: float = 0.0

    @property
    def least_batch(self) -> float:
        return READINGS * max(self.cost, self.step)

    def suit(self, window: float, batch: float, batches: int = LEAST_BATCHES) -> tuple[float, float]:
        """Window and batch as asked for, or as long as this clock needs them: windows of so many batches at least."""
        if self.least_batch <= batch:
            return window, batch
        return max(window, batches * self.least_batch), self.least_batch

    def refuse_the_worst(self) -> None:
        """Raises MachineError where nothing can be timed in a reasonable time."""
        if max(self.cost, self.step) > WORST:
            raise MachineError(
                f"the clock takes {format_seconds(self.cost)} to read and advances by {format_seconds(self.step)}: too coarse to time memory by",
                "numabench check names the clock source; boot with one that programs can read without a system call",
            )
