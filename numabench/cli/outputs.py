"""What verbs write with `--format json`, and its JSON Schema: `python -m numabench.cli.outputs` prints docs/output.schema.json."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec

from ..host.findings import Finding
from ..model import Axis

NOTE = "What `numabench VERB --format json` writes, by verb. Fields may be added; null stands for a figure that there is none of."


class Output(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Version(Output):
    numabench: str
    python: str
    schema: int  # of run logs
    abi: int  # of kernels


class Listed(Output):
    """A benchmark, as `list` shows it."""

    name: str
    kernel: str  # its C file in kernels/
    topic: str
    title: str
    question: str
    expected: str
    parameters: tuple[Axis, ...]
    notes: tuple[str, ...]


class Checked(Output):
    """`fatal`: a measurement makes no sense here."""

    fatal: bool
    findings: tuple[Finding, ...]


class Imported(Output):
    log: str
    cpus: tuple[int, ...]
    latencies: int
    zeros: int  # of these; below what the tool could resolve


class Recorded(Output):
    """A visit that `run` measured."""

    log: str
    report: str | None
    status: str  # complete | budget | busy | interrupted
    exit_code: int
    cells: dict[str, Any]  # total, reached, why
    measured: float  # s inside measured windows
    elapsed: float  # s
    failed_checks: dict[str, int]  # what was wrong -> samples


json_option = click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="For people, or for programs.",
)


def write(document: Any) -> None:
    """One JSON document; numpy's numbers as Python's."""
    encoded = msgspec.json.encode(document, enc_hook=lambda number: number.item())
    click.echo(msgspec.json.format(encoded, indent=1).decode())


def schemas() -> dict[str, Any]:
    """JSON Schema (2020-12): one definition per verb, and those of their parts."""
    from ..analysis.advice import Padding
    from ..analysis.answers import Answered
    from ..analysis.card import Shown
    from ..analysis.selftest import SelfTest
    from ..model import Value

    parts = [("report", str), ("answers", tuple[Answered, ...]), ("warnings", tuple[str, ...])]
    verbs = {
        "advise": list[Padding],
        "card": list[Shown],
        "check": Checked,
        "export": list[dict[str, Value | bool | None]],
        "import": Imported,
        "list": list[Listed],
        "machine": dict[str, Any],
        "report": msgspec.defstruct("Reported", parts),
        "run": Recorded,
        "selftest": SelfTest,
        "version": Version,
    }
    found, used = msgspec.json.schema_components(verbs.values(), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "numabench: output as JSON",
        "description": NOTE,
        "properties": dict(zip(verbs, _nullable(list(found)), strict=True)),
        "$defs": _nullable(used),
    }


def _nullable(part: Any) -> Any:
    """A figure that there is none of is written as null."""
    if isinstance(part, list):
        return [_nullable(each) for each in part]
    if isinstance(part, dict):
        return {
            name: ["number", "null"] if name == "type" and each == "number" else _nullable(each) for name, each in part.items()
        }
    return part


if __name__ == "__main__":
    click.echo(json.dumps(schemas(), indent=1))
