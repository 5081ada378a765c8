"""A comparison for programs: JSON, a table for a pull request, test results for a CI system."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

from ..analysis.rows import UNKNOWN, worse
from ..errors import REGRESSION
from ..report import brief


def as_json(comparison: Any, code: int, reason: str, gated: Sequence[Any]) -> str:
    """The comparison as JSON (docs/commands.md): missing is null."""

    def records(frame: Any) -> list[dict[str, Any]]:
        return json.loads(frame.to_json(orient="records", double_precision=12))

    return json.dumps(
        {
            "exit_code": code,
            "exit_reason": reason,
            "sentence": brief.sentence(comparison),
            "rows": records(comparison.rows),
            "rows_per_price": None if comparison.priced is None else records(comparison.priced),
            "row_counts": brief.counts(comparison.rows["verdict"]),
            "cell_counts": brief.cell_counts(comparison),
            "smallest_changes": brief.smallest(comparison),
            "steps": [step._asdict() for step in brief.steps(comparison)],
            "fail_if": [
                {"condition": g.gate.text, "failed": list(g.failed), "matched": g.matched, "compared": g.compared} for g in gated
            ],
            "summary": comparison.summary,
            "comparisons": comparison.comparisons,
            "same": comparison.same,
            "q": comparison.q,
            "same_machine": comparison.same_machine,
            "base": comparison.base_machines,
            "new": comparison.new_machines,
            "differs": [dict(zip(("what", "base", "new"), row, strict=True)) for row in comparison.differs],
            "notes": list(comparison.notes),
            "refused": [dict(zip(("benchmark", "reason"), row, strict=True)) for row in comparison.refused],
            "means": records(comparison.means),
            "cells": records(comparison.cells),
        },
        indent=1,
    )


def as_markdown(comparison: Any, code: int, reason: str, gated: Sequence[Any]) -> str:
    """The rows as a table for a pull request."""

    def escaped(text: str) -> str:
        text = re.sub(r"([\\|`*\[\]])", r"\\\1", text)
        return text.replace("<", "&lt;").replace("@", "&#64;").replace("\n", " ")

    base, new = brief.side_names(comparison)
    what = "per price" if comparison.priced is not None else "quantity"
    heads = (what, base, new, "change", "95 % interval", "verdict")
    lines = [f"**{escaped(brief.sentence(comparison))}**", ""]
    lines += ["| " + " | ".join(map(escaped, heads)) + " |", "|---|--:|--:|--:|--:|---|"]
    for line in brief.lines(comparison):
        verdict = f"**{line.verdict}**" if line.verdict in ("worse", "better") else line.verdict
        lines.append("| " + " | ".join([*map(escaped, line[:5]), verdict]) + " |")
    told = [*brief.side_lines(comparison), *brief.closing_lines(comparison), brief.seen(comparison), reason]
    return "\n".join([*lines, "", *(f"* {escaped(text)}" for text in told)])


def as_junit(comparison: Any, code: int, reason: str, gated: Sequence[Any]) -> str:
    """A test case for each row: a failure where it is worse (of conditions, where it fails one), skipped where it is not known. There is a failure or an error
    where the exit code is not 0, and nowhere else."""
    failed = {name for g in gated for name in g.failed}
    suite = ElementTree.Element("testsuite", name="numabench compare")

    def case(benchmark: str, name: str, kind: str = "", message: str = "", text: str = "") -> None:
        one = ElementTree.SubElement(suite, "testcase", classname=f"numabench.{benchmark}", name=name)
        if kind:
            ElementTree.SubElement(one, kind, message=message).text = text

    regressed = set() if comparison.priced is not None else set(worse(comparison.rows, comparison.least)["quantity"])
    for (_, row), line in zip(
        brief.shown_rows(comparison).iterrows(), brief.lines(comparison, len(comparison.rows)), strict=True
    ):
        said = f"{line.base} → {line.new}: {line.change} (95 %: {line.interval})"
        if line.quantity in failed if gated else line.quantity in regressed:
            case(row["benchmark"], line.quantity, "failure", line.change, said)
        elif line.verdict == UNKNOWN:
            case(row["benchmark"], line.quantity, "skipped", f"not known: {line.why}", said)
        else:
            case(row["benchmark"], line.quantity)
    for text in brief.one_sided(comparison):
        case("compare", text, "skipped", text)
    told = "\n".join([*brief.side_lines(comparison), *brief.closing_lines(comparison), brief.seen(comparison)])
    if code and suite.find("testcase/failure") is None:
        case("compare", "all", "failure" if code == REGRESSION else "error", reason, told)
    for kind, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(plural, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite)))
    ElementTree.SubElement(suite, "system-out").text = f"{brief.sentence(comparison)}\n{told}\n{reason}"
    ElementTree.indent(suite)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suite, encoding="unicode")}'


WRITERS: dict[str, Callable[[Any, int, str, Sequence[Any]], str]] = {"json": as_json, "markdown": as_markdown, "junit": as_junit}
