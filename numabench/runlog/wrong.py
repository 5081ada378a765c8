"""What makes a record one that no reader can use."""

from __future__ import annotations


class Wrong(Exception):
    """What is wrong with a record, and what mends it."""

    def __init__(self, what: str, fix: str = "give the log as numabench wrote it, or leave this record out"):
        super().__init__(what)
        self.what, self.fix = what, fix
