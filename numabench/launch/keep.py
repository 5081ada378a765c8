"""Logs that arrive from other machines: looked at as those of strangers, then written whole or not at all."""

from __future__ import annotations

import re
import tempfile
import zlib
from pathlib import Path

from ..errors import LogError
from ..files import write_whole
from ..host.machine import sanitised
from ..runlog.expected import STATE_FILE
from ..runlog.read import load
from .hosts import bare

TAKEN = (STATE_FILE, "index.sqlite")  # names in the folder of a launch
MOST_UNPACKED = 1 << 29  # bytes; a standard log has 7 MB


def keep(folder: Path, host: str, packed: bytes, known: dict[str, str]) -> tuple[str, str]:
    """(run, path below `folder`) of a log, written unless it is there. `known`: run -> host of what came before. Raises LogError for what is no log of a whole
    visit to this host; OSError where it cannot be written here."""
    bound(packed)
    with tempfile.NamedTemporaryFile(suffix=".jsonl.gz") as file:
        file.write(packed)
        file.flush()
        try:
            log = load(file.name)
        except LogError as error:
            raise LogError(error.message.replace(file.name, "its log"), error.fix) from error
    runs = {header.run for header in log.headers}
    if len(runs) != 1 or {end.run for end in log.ends} != runs:
        raise LogError("its log is not that of one visit that came to its end")
    run, header = runs.pop(), log.headers[0]
    if header.alias != sanitised(bare(host)):
        raise LogError(f"its log is that of {header.alias[:60]}; do several hosts share a home and a name?")
    if known.setdefault(run, host) != host:
        raise LogError(f"its log is the one that {known[run]} sent")
    name = f"{re.sub('[^0-9TZ]', '', header.started)[:20]}-{sanitised(run)[:40]}.jsonl.gz"
    target = folder / sanitised(bare(host))[:100] / name
    if target.parent.name in TAKEN:
        raise LogError(
            f"{target.parent.name} is a file of a launch's folder", "call the host otherwise: Host NAME in ssh's configuration"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():  # else a launch was ended between log and state
        write_whole(target, packed, exclusive=True)
    return run, str(target.relative_to(folder))


def bound(packed: bytes) -> None:
    """Raises LogError unless this is one whole file of gzip, within bounds."""
    unpacker, size, rest = zlib.decompressobj(wbits=31), 0, packed
    try:
        while not unpacker.eof and rest:
            size += len(unpacker.decompress(rest, 1 << 20))
            rest = unpacker.unconsumed_tail
            if size > MOST_UNPACKED:
                raise LogError(f"its log has over {MOST_UNPACKED >> 20} MiB")
    except zlib.error as error:
        raise LogError(f"its log cannot be unpacked: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise LogError("its log is cut, or has something behind it")
