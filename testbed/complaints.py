"""What is wrong with a machine file, in the words of who wrote it: the decoder names types of Python and paths of JSON."""

from __future__ import annotations

import difflib
import re

import msgspec

KINDS = {
    "str": "a text in quotes",
    "int": "a whole number",
    "float": "a number",
    "array": "a list in brackets",
    "object": "a table",
}
PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


def in_words(error: Exception, file: type[msgspec.Struct]) -> str:
    """`error` as one line; `file`: the structure that a machine file has."""
    said = getattr(error, "message", None) or str(error)
    place = PLACE.search(said)
    where, said = (place["path"].replace("[...]", "") if place else ""), PLACE.sub("", said)
    table = f"[{where}]" if where else "the file"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", said):
        keys = keys_of(file, where)
        near = difflib.get_close_matches(unknown[1], keys, 1)
        return f"{table} has no key {unknown[1]}" + (f" ({near[0]}?)" if near else f"; there are {', '.join(keys)}")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", said):
        return f"{table} lacks {missing[1]}"
    if kind := re.fullmatch(r"Expected `(.*)`, got `(.*)`", said):
        wanted = [KINDS.get(word, word) for word in kind[1].split(" | ") if word != "null"]
        return f"{where} must be {' or '.join(wanted)}"
    return said


def keys_of(structure: type[msgspec.Struct], path: str) -> list[str]:
    """The keys of the table at a path such as `nodes[1]`."""
    for name in filter(None, re.sub(r"\[\d*\]", "", path).split(".")):
        kind = next((field.type for field in msgspec.structs.fields(structure) if field.name == name), None)
        inner = [kind, *getattr(kind, "__args__", ())]
        structure = next((each for each in inner if isinstance(each, type) and issubclass(each, msgspec.Struct)), None)
        if structure is None:
            return []
    return [field.name for field in msgspec.structs.fields(structure)]
