"""Errors that a person reads: what happened, where, why it matters, and the command that mends it.

Exit codes are part of the contract (ARCHITECTURE: exit codes): every error class carries its own.
"""

OK, REGRESSION, USAGE, MACHINE, INCOMPARABLE, IMPRECISE, UNFORESEEN, INTERRUPTED = 0, 1, 2, 3, 4, 5, 70, 130


class NumabenchError(Exception):
    """Base of all errors meant for the user; `fix` is a command or a short instruction."""

    exit_code = USAGE

    def __init__(self, message: str, fix: str | None = None):
        super().__init__(message)
        self.message, self.fix = message, fix

    def __str__(self) -> str:
        if not self.fix:
            return self.message
        end = "" if self.message.endswith(("?", ".")) else "."
        return f"{self.message}{end} To mend it: {self.fix}"


class UsageError(NumabenchError):
    """An unknown name, a bad value, a missing file: the caller's words are off."""


class LogError(UsageError):
    """A file that is not a readable run log."""


class IncomparableError(NumabenchError):
    """There is nothing that could be compared with."""

    exit_code = INCOMPARABLE


class MachineError(NumabenchError):
    """This machine cannot do what was asked: no compiler, too little memory."""

    exit_code = MACHINE
