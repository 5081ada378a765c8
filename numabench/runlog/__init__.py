"""Run logs: append-only JSON Lines, the only thing that crosses from measuring to reading.

Imports are lazy for the sake of start-up time: `write` needs msgspec alone, `read` and `export` pandas when asked.
"""

SCHEMA = 1  # version of the record layout; readers refuse newer ones
