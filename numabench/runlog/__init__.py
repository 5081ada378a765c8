"""Run logs: append-only JSON Lines, the only thing that crosses from measuring to reading.

Imports are lazy for the sake of start-up time: `write` needs msgspec alone, `read` and `export` pandas when asked.
"""

from __future__ import annotations

#: Of logs that have more fields than those before, which older readers do not miss.
MINOR = 0
SCHEMA = 3  # version of the record layout; readers refuse newer ones. 2: samples that were measured together are rounds. 3: columns of digits


def utc_now() -> str:
    """The moment as records hold it: `2026-01-01T12:00:00Z`."""
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
