"""What a change of form breaks. Two forms are held against each other both ways: logs that one writes, and the other's reader.

All of it is one question: is there a document that one form allows and the other does not? Then a field has become required, a type narrower, a word is
no longer known, or a tuple has another length. Readers ignore fields and leave out records that they do not know, so that more of these break nothing
for them. Whatever breaks is proved by such a document, which one side's decoder accepts and the other's refuses; a changed default by one that both
accept and read differently. What cannot be judged counts as broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..model import ALPHA, DEPRECATED, STABLE, Frozen
from ..runlog import utc_now
from .forms import Decoder, Form, decoder

BACKWARD, FORWARD = "backward", "forward"  # old logs and the new reader; new logs and old readers
REQUIRED, NARROWER, WORD, LENGTH = (
    "a field is required",
    "a type is narrower",
    "a word is not known",
    "a tuple has another length",
)
DEFAULT, GONE, KIND = "a default is another", "a field is gone that was not deprecated", "a kind of record is not read"
UNJUDGED = "this is not judged"
READ_OTHERWISE = (DEFAULT, GONE)  # both sides accept the document
JUDGED = {"title", "description", "default", "discriminator", "$defs", "$schema"} | {
    *(
        "$ref",
        "anyOf",
        "enum",
        "type",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "properties",
        "required",
        "additionalProperties",
    )
}
#: A value of each type that a form can name; `another` is in no enumeration.
VALUES = {"null": None, "boolean": True, "integer": 1, "number": 0.5, "string": "another", "array": [], "object": {}}
NOTHING = object()
LAST_DAY = "9999-12-31"
DEEPEST = 24  # levels; the deepest line has 9, and a form that refers to itself has no end


class Change(Frozen):
    """Something that breaks. `witness`: the document that proves it, None where this could not be judged; `refusal`: what the decoder says of it,
    nothing where it reads it as something else."""

    path: str  # a JSON pointer into a line, `*` for any element
    rule: str
    direction: str
    witness: Any = None
    refusal: str = ""


class Flaw(NamedTuple):
    """A value at `path`, which one form allows and the other does not, or reads as another; `field`: that of the form in which it is."""

    path: str
    field: str
    rule: str
    value: Any


def changes(old: Form, new: Form, reads: Decoder | None = None) -> list[Change]:
    """What breaks between two versions. `reads`: the new side's own decoder, where there is one beside its form."""
    try:
        ours, theirs = decoder(new), decoder(old)
    except (RecursionError, TypeError):  # no decoder can be made: what refers to itself, records within records of several kinds
        return [Change(path="", rule=UNJUDGED, direction=direction) for direction in (BACKWARD, FORWARD)]
    ours = reads or ours
    return [*_broken(old, new, theirs, ours, BACKWARD), *_broken(new, old, ours, theirs, FORWARD)]


def _broken(written: Form, read: Form, writes: Decoder, reads: Decoder, direction: str) -> Iterator[Change]:
    seen = set()
    for flaw in Comparison(written, read, direction).lines():
        if (flaw.rule, flaw.field) in seen:  # answers, for one, stand in several places of a line
            continue
        seen.add((flaw.rule, flaw.field))
        change = Change(path=flaw.path, rule=flaw.rule, direction=direction)
        if flaw.rule == UNJUDGED or writes(flaw.value):
            yield change
        elif (refusal := reads(flaw.value)) or flaw.rule in READ_OTHERWISE:
            yield Change(path=flaw.path, rule=flaw.rule, direction=direction, witness=flaw.value, refusal=refusal)
        else:
            yield change


class Comparison:
    """Of what one form allows with another one, which should allow it as well."""

    def __init__(self, one: Form, other: Form, direction: str):
        self.forms, self.direction = (one, other), direction
        self.parts = one.get("$defs", {}), other.get("$defs", {})

    def lines(self) -> Iterator[Flaw]:
        """Record by record. New kinds of records are left out by readers; one that is no longer read was of use."""
        mine, theirs = (form.get("discriminator", {}).get("mapping", {}) for form in self.forms)
        if not mine or not theirs:
            yield from self.flaws(*self.forms, "", "")
            return
        for tag, place in mine.items():
            if tag in theirs:
                yield from self.flaws({"$ref": place}, {"$ref": theirs[tag]}, "", "")
            elif self.direction == BACKWARD:
                yield Flaw("/record", tag, KIND, self.example({"$ref": place}))

    def flaws(self, one: Form, other: Form, path: str, field: str) -> Iterator[Flaw]:
        """What `one` allows at `path` and `other` does not."""
        mine, theirs = self.alternatives(one, 0), self.alternatives(other, 1)
        strange = {key for form in (*mine, *theirs) for key in form if not key.startswith("x-")} - JUDGED
        strange |= {
            "closed" for form in (*mine, *theirs) if form.get("additionalProperties") is False
        }  # readers ignore what they do not know
        if strange or path.count("/") > DEEPEST:
            yield Flaw(path, field, UNJUDGED, None)
            return
        kinds = {kind for form in theirs for kind in kinds_of(form)}
        if not all(theirs):  # anything
            return
        for form in mine:
            if not form:
                known = kinds | ({"integer"} if "number" in kinds else set())
                free = [value for kind, value in VALUES.items() if kind not in known]
                yield Flaw(path, field, NARROWER, free[0]) if free else Flaw(path, field, UNJUDGED, None)
                continue
            alike = [each for each in theirs if kinds_of(each) & kinds_of(form)] or theirs
            found = [list(self.of_one(form, each, path, field)) for each in alike]
            yield from min(found, key=len)

    def of_one(self, one: Form, other: Form, path: str, field: str) -> Iterator[Flaw]:
        """As `flaws`, of two forms without alternatives."""
        if "enum" in one:
            wide = kinds_of(other) | ({"integer"} if "number" in kinds_of(other) else set())
            allowed = other.get("enum", one["enum"] if kinds_of(one) <= wide else [])
            yield from (Flaw(path, field, WORD, word) for word in one["enum"] if word not in allowed)
        elif "enum" in other:
            beyond = [VALUES[one["type"]], max((w for w in other["enum"] if isinstance(w, int)), default=0) + 1]
            yield Flaw(path, field, NARROWER, next((value for value in beyond if value not in other["enum"]), None))
        elif one["type"] != other["type"]:
            if (one["type"], other["type"]) != ("integer", "number"):
                yield Flaw(path, field, NARROWER, self.example(one))
        elif one["type"] == "array":
            yield from self.of_arrays(one, other, path, field)
        elif one["type"] == "object":
            yield from self.of_objects(one, other, path, field)

    def of_arrays(self, one: Form, other: Form, path: str, field: str) -> Iterator[Flaw]:
        mine, theirs = one.get("prefixItems"), other.get("prefixItems")
        if mine is None and theirs is None:
            if any(one.get(end) != other.get(end) for end in ("minItems", "maxItems")):
                yield Flaw(path, field, UNJUDGED, None)
            for flaw in self.flaws(one.get("items") or {}, other.get("items") or {}, f"{path}/*", field):
                yield flaw._replace(value=[flaw.value])
        elif mine is None or (theirs is not None and len(mine) != len(theirs)):
            yield Flaw(path, field, LENGTH, self.example(one))
        else:
            usual = self.example(one)
            for place, form in enumerate(mine):
                beside = theirs[place] if theirs is not None else other.get("items") or {}
                for flaw in self.flaws(form, beside, f"{path}/{place}", field):
                    yield flaw._replace(value=[*usual[:place], flaw.value, *usual[place + 1 :]])

    def of_objects(self, one: Form, other: Form, path: str, field: str) -> Iterator[Flaw]:
        mine, theirs = one.get("properties"), other.get("properties")
        if mine is None and theirs is None:
            for flaw in self.flaws(
                one.get("additionalProperties") or {}, other.get("additionalProperties") or {}, f"{path}/*", field
            ):
                yield flaw._replace(value={"any": flaw.value})
            return
        usual, any_of_mine, any_of_theirs = (
            self.example(one),
            one.get("additionalProperties") or {},
            other.get("additionalProperties") or {},
        )
        for name in mine or theirs:
            within = f"{one.get('title', other.get('title', ''))}/{name}"
            if theirs is not None and name not in theirs:  # readers ignore what they do not know
                if self.direction == BACKWARD and mine is not None and not dispensable(mine[name]):
                    yield Flaw(f"{path}/{name}", within, GONE, {**usual, name: self.example(mine[name])})
                continue
            beside = any_of_theirs if theirs is None else theirs[name]
            form = any_of_mine if mine is None else mine[name]
            for flaw in self.flaws(form, beside, f"{path}/{name}", within):
                yield flaw._replace(value={**usual, name: flaw.value})
            absent = mine and theirs and name not in (*one.get("required", ()), *other.get("required", ()))
            if absent and form.get("default", NOTHING) != beside.get("default", NOTHING):
                yield Flaw(f"{path}/{name}", within, DEFAULT, usual)
        for name in other.get("required", ()):
            if name not in one.get("required", ()):
                yield Flaw(f"{path}/{name}", f"{other.get('title', '')}/{name}", REQUIRED, usual)

    def alternatives(self, form: Form, side: int) -> list[Form]:
        """The forms that a value may have, none of which refers to another; `{}`: any."""
        if "$ref" in form:
            return self.alternatives(self.parts[side][form["$ref"].rpartition("/")[2]], side)
        if "anyOf" in form:
            return [each for part in form["anyOf"] for each in self.alternatives(part, side)]
        return [form if form.keys() & {"type", "enum"} or form.keys() - JUDGED else {}]

    def example(self, form: Form) -> Any:
        """A value that the first of the two forms allows, with no more than it must have."""
        first = self.alternatives(form, 0)[0]
        if "enum" in first:
            return first["enum"][0]
        if "prefixItems" in first:
            return [self.example(each) for each in first["prefixItems"]]
        if "properties" in first:
            return {name: self.example(first["properties"][name]) for name in first.get("required", ())}
        return VALUES[first.get("type", "object")]


def phase_of(form: Form) -> str:
    """Of a field; what says nothing is stable."""
    return str(form.get("x-phase", STABLE))


def dispensable(form: Form) -> bool:
    """Whether a field may go: one that nobody may rely on, or whose time is over."""
    over = str(form.get("x-removed-after", "")) or LAST_DAY
    return phase_of(form) == ALPHA or (phase_of(form) == DEPRECATED and over < utc_now()[: len(LAST_DAY)])


def kinds_of(form: Form) -> set[str]:
    """The types that a form without alternatives allows."""
    if "enum" in form:
        return {
            {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}[type(word)]
            for word in form["enum"]
        }
    return {form["type"]} if "type" in form else set()
