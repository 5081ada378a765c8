"""Machines of one image can have one id: by the marks that their logs keep they are told apart, so that they are not taken for one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..model import Header

SHARED_ID = "shared_id"  # of a machine: its id, where others have it too


def contradict(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether the marks of two headers' machines are those of two machines. A card may come or go: of those known on both sides one must be shared."""
    a, b = (each.get("marks") if isinstance(each.get("marks"), Mapping) else {} for each in (a, b))
    if a.get("product_uuid") and b.get("product_uuid"):
        return a["product_uuid"] != b["product_uuid"]
    cards = [{str(card) for card in each["cards"]} if isinstance(each.get("cards"), list) else set() for each in (a, b)]
    return all(cards) and not cards[0] & cards[1]


def told_apart(sides: Sequence[Sequence[Header]]) -> tuple[list[tuple[Header, ...]], list[str]]:
    """The headers of several logs with an id of its own for each machine, and a line for each id that several machines share."""
    groups: dict[str, list[list[dict[str, Any]]]] = {}
    found = []
    for headers in sides:
        told = []
        for header in headers:
            name = str(header.machine.get(SHARED_ID, header.machine_id))  # as it was, where it has been told apart before
            known = groups.setdefault(name, [])
            number = next(
                (
                    n
                    for n, group in enumerate(known)
                    if all(one is header.machine or not contradict(header.machine, one) for one in group)
                ),
                len(known),
            )
            if number == len(known):
                known.append([])
            if not any(header.machine.get("marks") == one.get("marks") for one in known[number]):
                known[number].append(header.machine)
            own = f"{name}-{number + 1}" if number else name
            if own != header.machine_id:
                header = msgspec.structs.replace(header, machine=header.machine | {"id": own, SHARED_ID: name})
            told.append(header)
        found.append(tuple(told))
    warnings = [
        f"{len(known)} machines have the id {name}, as those of one image have: they are told apart by their firmware or network cards"
        for name, known in groups.items()
        if len(known) > 1
    ]
    return found, warnings
