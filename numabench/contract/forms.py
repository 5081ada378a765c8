"""The form of a run log's lines: of this version from the records themselves, of versions before from what was frozen; and decoders of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Union

import msgspec

from ..model import Frozen, Header, Record
from ..runlog import MINOR, SCHEMA
from ..runlog.check import MachineFacts, PlanFacts

DIALECT = "https://json-schema.org/draft/2020-12/schema"
HERE = files(__package__)
Form = dict[str, Any]  # a JSON Schema (2020-12)
#: What says why a document is refused, or nothing.
Decoder = Callable[[Any], str]


class Version(Frozen):
    """A frozen form. `phase` is one of PHASES; `sha256` that of its file."""

    version: str
    phase: str
    since: str  # the day it was frozen
    sha256: str
    summary: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    @property
    def file(self) -> str:
        return f"run-log-{self.version}.json"


PRESENT = f"{SCHEMA}.{MINOR}"


def registry() -> tuple[Version, ...]:
    """All frozen versions, oldest first."""
    return msgspec.json.decode(HERE.joinpath("registry.json").read_bytes(), type=tuple[Version, ...])


def content(version: Version) -> bytes:
    """Of its file."""
    return HERE.joinpath(version.file).read_bytes()


def frozen(version: Version) -> Form:
    return json.loads(content(version))


def present() -> Form:
    """The form of what this numabench writes, with that of the machine's facts and the plan's in it."""
    (lines, machine, plan), parts = msgspec.json.schema_components(
        (Record, MachineFacts, PlanFacts), ref_template="#/$defs/{name}"
    )
    parts["Header"]["properties"] |= {"machine": machine, "plan": plan}
    return json.loads(
        json.dumps({"$schema": DIALECT, "title": f"numabench run log {PRESENT}: one line", **lines, "$defs": parts})
    )


def text_of(form: Form) -> str:
    """As it stands in a file."""
    return json.dumps(form, indent=1, ensure_ascii=False) + "\n"


# -- decoders -----------------------------------------------------------------------------------------------------------


def decoder(form: Form) -> Decoder:
    """What says how a decoder of this form finds a document: one that msgspec makes of the types that the form describes."""
    kind = _Types(form).of(form)
    return lambda document: _refusal(document, kind)


def reader(document: Any) -> str:
    """Why this numabench refuses a document as a line of a log; nothing where it reads it."""
    refusal = _refusal(document, Record)
    if refusal or document.get("record") != "header":
        return refusal
    header = msgspec.convert(document, Header)
    machine, plan = _refusal(header.machine, MachineFacts), _refusal(header.plan, PlanFacts)
    return machine.replace("`$", "`$.machine") or plan.replace("`$", "`$.plan")


def _refusal(document: Any, kind: Any) -> str:
    try:
        msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


class _Types:
    """Types for msgspec, of the part of JSON Schema that msgspec writes."""

    def __init__(self, form: Form):
        self.parts: dict[str, Form] = form.get("$defs", {})
        self.tags = {place: tag for tag, place in form.get("discriminator", {}).get("mapping", {}).items()}
        self.field: str = form.get("discriminator", {}).get("propertyName", "")
        self.made = cache(self._struct)

    def of(self, form: Form) -> Any:
        if "$ref" in form:
            return self.made(form["$ref"])
        if "anyOf" in form:
            return Union[tuple(self.of(each) for each in form["anyOf"])]  # noqa: UP007 (of a tuple)
        if "enum" in form:
            return Literal[tuple(form["enum"])]
        kind = form.get("type")
        if kind == "array":
            if "prefixItems" in form:
                return tuple[tuple(self.of(each) for each in form["prefixItems"])]
            return list[self.of(form["items"])] if form.get("items") else list[Any]
        if kind == "object":
            more = form.get("additionalProperties")
            return dict[str, self.of(more)] if more else dict[str, Any]
        return {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}.get(str(kind), Any)

    def _struct(self, place: str) -> Any:
        name = place.rpartition("/")[2]
        form, tag = self.parts[name], self.tags.get(place)
        if "properties" not in form:
            return self.of(form)
        needed = form.get("required", [])
        fields: list[Any] = []
        for field, each in form["properties"].items():
            if tag is not None and field == self.field:
                continue
            kind = self.of(each)
            absent = kind if kind is Any else Union[kind, msgspec.UnsetType]  # noqa: UP007 (a kind made here)
            fields.append((field, kind) if field in needed else (field, absent, msgspec.UNSET))
        return msgspec.defstruct(name, fields, kw_only=True, tag=tag, tag_field=self.field if tag else None)
