"""Programs that are asked something: for so long and no longer, whatever they answer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import NamedTuple


class Answer(NamedTuple):
    """The exit code, None where the time was up, and lines of printable text."""

    code: int | None
    output: str
    errors: str


def ask(command: list[str], timeout: float, environment: dict[str, str] | None = None) -> Answer:
    """Raises OSError where there is no such program. When the time is up all of its processes go: of a script that waits for another program,
    ending the script alone would leave one that holds the pipes open, for which everybody would wait."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    code = None
    try:
        output, errors = child.communicate(timeout=timeout)
        code = child.returncode
    except subprocess.TimeoutExpired:
        output = errors = b""
    finally:
        if code is None:
            with contextlib.suppress(ProcessLookupError):  # interrupted, `communicate` waits a moment: it may have ended by then
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for pipe in (child.stdout, child.stderr):
            pipe.close()
    return Answer(code, printable(output), printable(errors))


def printable(text: bytes) -> str:
    """Text in any encoding, without what a terminal would take for commands."""
    lines = text.decode(errors="replace").splitlines()
    return "\n".join("".join(sign if sign.isprintable() else " " for sign in line) for line in lines)
