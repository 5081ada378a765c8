"""The JSON Schema of run logs, made from the records themselves: `python -m numabench.runlog.schema` prints it."""

from __future__ import annotations

import json

import msgspec

from ..model import Record
from . import SCHEMA


def schema() -> dict:
    """JSON Schema (2020-12) of one line of a run log."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"numabench run log, schema {SCHEMA}: one line",
        **msgspec.json.schema(Record),
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
