"""`latency > 10%`: conditions under which a comparison fails, as users write them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

import pandas as pd

from ..errors import UsageError
from ..model import Frozen
from ..text import near
from .rows import UNKNOWN

GATE = re.compile(r"\s*(?P<name>.*?\S)\s*(?P<sign>[<>])\s*(?P<limit>[+\-−]?\d+(\.\d+)?)\s*%\s*")
DOUBTS = {"disturbed", "failed_proofs"}  # reasons for which no interval is believed


class Gate(Frozen):
    """What `--fail-if` asks: whether the change of what is called `name` is beyond `limit` (a share)."""

    text: str
    name: str
    above: bool
    limit: float


class Gated(Frozen):
    """What came of it: names of the rows that fail, and how many rows there are of that name and could be compared."""

    gate: Gate
    failed: tuple[str, ...]
    matched: int
    compared: int


def parse_gate(text: str) -> Gate:
    """Raises UsageError on what is no condition."""
    match = GATE.fullmatch(text)
    if not match:
        raise UsageError(
            f"{text!r} is no condition",
            "write NAME > N% or NAME < N%, such as 'latency > 10%' or 'bandwidth < -5%': by how much NEW's figure is above or below BASE's",
        )
    limit = float(match["limit"].replace("−", "-")) / 100
    return Gate(text=text.strip(), name=match["name"], above=match["sign"] == ">", limit=limit)


def apply_gate(gate: Gate, rows: pd.DataFrame, topics: Mapping[str, str], q: float) -> Gated:
    """A row fails where its whole interval is beyond the limit, and the change is one by the corrected test. `topics`: benchmark -> topic.

    Raises UsageError where nothing is called so, with the nearest names."""
    names = {at: row_names(row, topics) for at, row in rows.iterrows()}
    asked = plain(gate.name)
    mine = rows.loc[[at for at, own in names.items() if asked in own]]
    if mine.empty:
        known = list(dict.fromkeys(name for own in names.values() for name in own))
        unknown(gate.name, known, f"in {gate.text!r}")
    beyond = mine["low"] > gate.limit if gate.above else mine["high"] < gate.limit
    sure = (mine["p_adjusted"] <= q) & mine["reasons"].map(DOUBTS.isdisjoint).astype(bool)
    return Gated(
        gate=gate,
        failed=tuple(mine.loc[beyond & sure, "quantity"]),
        matched=len(mine),
        compared=int(((mine["verdict"] != UNKNOWN) | mine["low"].notna()).sum()),
    )


def row_names(row: pd.Series, topics: Mapping[str, str]) -> list[str]:
    """What a row answers to: its quantity, benchmark, topic and metric."""
    return [plain(n) for n in (row["quantity"], row["benchmark"], row["metric"], topics.get(row["benchmark"], "")) if n]


def plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def chosen(names: Sequence[str], benchmarks: Collection[str], topics: Mapping[str, str]) -> frozenset[str]:
    """The benchmarks among those measured that are called so or are of that topic. Raises UsageError where a name is neither."""
    found: set[str] = set()
    for name in names:
        mine = {b for b in benchmarks if plain(name) in (plain(b), plain(topics.get(b, "")))}
        if not mine:
            unknown(name, [*benchmarks, *dict.fromkeys(topics.get(b, "") for b in benchmarks)], "in --only")
        found |= mine
    return frozenset(found)


def unknown(name: str, known: Collection[str], where: str) -> NoReturn:
    known = sorted({plain(each) for each in known if each})
    raise UsageError(
        f"nothing here is called {name!r} {where}{near(plain(name), known)}", f"these logs have {', '.join(known) or 'nothing'}"
    )
