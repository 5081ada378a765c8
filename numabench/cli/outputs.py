"""What verbs write with `--format json`, and its JSON Schema: `python -m numabench.cli.outputs` prints docs/output.schema.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from ..claims import Evidence, Result
from ..host.findings import Finding
from ..model import Axis
from ..text import printable
from . import say

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
    phase: str  # alpha | beta | stable | deprecated
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


def as_json(document: Any) -> str:
    """One JSON document; numpy's numbers as Python's."""
    encoded = msgspec.json.encode(document, enc_hook=lambda number: number.item())
    return msgspec.json.format(encoded, indent=1).decode() + "\n"


def write(document: Any) -> None:
    say(as_json(document), nl=False)


def deliver(text: str, form: str, output: str | None) -> None:
    """What a verb says in this form: to a file, which is then named, or printed."""
    if output:
        from .report import write_page

        write_page(text, Path(output))
        say(f"{form}: {printable(output)}", err=form != "text")
    else:
        say(text, nl=False)


class Launched(Output):
    """What `launch` brought: host -> its `state`, `why`, and its `log` below `folder`."""

    folder: str
    exit_code: int
    hosts: dict[str, dict[str, str]]


class ComparedRow(Output):
    """A headline quantity; values and their intervals in `unit`, `change` = new / base - 1 (per price: of the work for the same money)."""

    quantity: str
    benchmark: str
    metric: str
    unit: str
    polarity: str  # lower | higher: which is better
    base: float
    base_low: float
    base_high: float
    new: float
    new_low: float
    new_high: float
    change: float
    low: float
    high: float
    p: float
    p_adjusted: float
    verdict: str  # worse | better | same | not known
    reasons: tuple[str, ...]
    points: bool  # the sides have it at other parameters
    cells: int
    worse: int
    better: int
    same: int
    not_known: int
    processes: float  # that would likely settle it; visits, where no number of processes would
    visits: float
    seen: float  # the change that four of five such comparisons would find


class Settling(Output):
    """What would settle so many quantities."""

    quantities: int
    where: str  # BASE | NEW | both, or nothing
    what: str
    command: str


class Condition(Output):
    """One --fail-if: how many rows it names, how many of these could be compared, and which fail."""

    condition: str
    failed: tuple[str, ...]
    matched: int
    compared: int


class Compared(Output):
    """Rows and cells of both sides; `row_counts` and `cell_counts` sum up to them."""

    exit_code: int
    exit_reason: str
    sentence: str
    rows: tuple[ComparedRow, ...]
    rows_per_price: tuple[ComparedRow, ...] | None
    row_counts: dict[str, int]
    cell_counts: dict[str, int]
    smallest_changes: dict[str, float] | None  # of the rows' `seen`: median, least, most
    steps: tuple[Settling, ...]
    fail_if: tuple[Condition, ...]
    summary: dict[str, int]
    comparisons: int
    same: float
    q: float
    same_machine: bool
    base: tuple[dict[str, Any], ...]
    new: tuple[dict[str, Any], ...]
    differs: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    refused: tuple[dict[str, str], ...]
    means: tuple[dict[str, Any], ...]
    cells: tuple[dict[str, Any], ...]


class Claimed(Output):
    """A claim about a runtime as it is recorded: `path` is what it says, `found` the system calls that were seen."""

    name: str
    runtime: str
    says: str
    call: str
    verdict: str  # holds | refuted
    path: tuple[str, ...]
    found: tuple[str, ...]
    common: bool  # widely believed
    instead: str
    since: str  # the first version of which it is said, and the first of which it no longer is; empty: any
    before: str
    versions: str  # with which it was seen
    date: str
    seen: tuple[Evidence, ...]
    tested: bool  # whether --check can


class Claims(Output):
    claims: tuple[Claimed, ...]
    checked: tuple[Result, ...]  # by --check
    exit_code: int


def schemas() -> dict[str, Any]:
    """JSON Schema (2020-12): one definition per verb, and those of their parts."""
    from ..analysis.advice import Padding
    from ..analysis.answers import Answered
    from ..analysis.card import Shown
    from ..analysis.cohorts import Fleet
    from ..analysis.history import History
    from ..analysis.selftest import SelfTest
    from ..bill.bill import Bill
    from ..contract.standing import Drift, Standing
    from ..model import Value
    from ..runlog.visits import Visited

    parts = [("report", str), ("answers", tuple[Answered, ...]), ("warnings", tuple[str, ...])]
    contract = [("standing", Standing | None), ("drift", tuple[Drift, ...]), ("written", tuple[str, ...])]
    verbs = {
        "advise": list[Padding],
        "bill": Bill,
        "card": list[Shown],
        "check": Checked,
        "claims": Claims,
        "compare": Compared,
        "contract": msgspec.defstruct("Contract", contract),
        "export": list[dict[str, Value | bool | None]],
        "fleet": Fleet,
        "history": History,
        "import": Imported,
        "launch": Launched,
        "list": list[Listed],
        "machine": dict[str, Any],
        "report": msgspec.defstruct("Reported", parts),
        "run": Recorded,
        "runs": list[Visited],
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
    say(json.dumps(schemas(), indent=1))
