"""Which machines were to be visited, and what became of each: `launch.state` beside the logs, JSON Lines that only grow.

Whoever judges a fleet has to know who is missing in it. One record says what was asked of which hosts, one what became of a host; the last of each counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..errors import LogError
from ..model import Frozen
from ..text import in_shell
from .check import MOST_FACTS
from .read import cleaned

STATE_FILE = "launch.state"
MEASURED, PENDING = "measured", "pending"
MOST_BYTES = 1 << 28  # of a state file; 1,000 hosts have some 200 KB for each visit


class Asked(Frozen, tag_field="record", tag="launch"):
    """What was asked for. `words`: those of `numabench run`; `again`: of them those that a resume takes; `program`: numabench there."""

    launch: str
    engine: str  # ssh | slurm
    hosts: tuple[str, ...]
    words: tuple[str, ...]
    at: str
    again: tuple[str, ...] = ()
    program: tuple[str, ...] = ("numabench",)
    partition: str = ""
    limit: float = 0.0  # s that a visit may take
    compile_there: bool = False  # kernels; else those compiled here are sent


class Ended(Frozen, tag_field="record", tag="host"):
    """What became of a visit to a host; `log` below the folder."""

    launch: str
    host: str
    state: str
    at: str
    why: str = ""
    run: str = ""
    log: str = ""


State = Asked | Ended


def read_states(folder: Path) -> list[State]:
    """All records of a folder's state file; none where there is no file. A line that was cut is left out. Raises LogError for what is no such file."""
    path = folder / STATE_FILE
    found: list[State] = []
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return found
    mend = f"{in_shell('mv', path, f'{path}.old')}; logs that are there stay, and all hosts are visited anew"
    if len(content) > MOST_BYTES:
        raise LogError(f"{path} has over {MOST_BYTES:,} bytes, and is no state of launches", mend)
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip() or line.endswith(b"\0"):  # a writer that was killed, mended by the next one
            continue
        try:
            record = msgspec.convert(cleaned(msgspec.json.decode(line)), State)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
            if number > content.count(b"\n"):  # cut
                continue
            raise LogError(f"{path} line {number} is no state of a launch ({error})", mend) from error
        if isinstance(record, Asked) and len(record.hosts) > MOST_FACTS:
            raise LogError(f"{path} line {number} names over {MOST_FACTS:,} hosts", mend)
        found.append(record)
    return found


def unmeasured(paths: Iterable[str | Path]) -> dict[str, str]:
    """Host -> `state: why` of those that were to be visited, by the state files in these folders, and of which there is no log."""
    expected: dict[str, str] = {}
    measured = set()
    for path in map(Path, paths):
        for file in sorted(path.rglob(STATE_FILE)) if path.is_dir() else ():
            for record in read_states(file.parent):
                if isinstance(record, Asked):
                    expected |= {host: PENDING for host in record.hosts if host not in expected}
                elif record.state == MEASURED:
                    measured.add(record.host)
                else:
                    expected[record.host] = f"{record.state}: {record.why}" if record.why else record.state
    return {host: said for host, said in expected.items() if host not in measured}
