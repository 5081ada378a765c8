"""The certificate as a page with pictures."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from pathlib import Path

from numabench import __version__

from .certify import Certification, commit, text
from .defects import CHECKOUT
from .judgement import HOP_SLACK, SAME, TOLERANCE, Finding
from .picture import draw

PAGE, PICTURE, PICTURES = "certificate.md", "certificate.svg", "certificate"  # of all machines; the folder of one for each


def write_certificate(certification: Certification, output: Path, defect: str | None = None) -> list[Path]:
    """The page and its pictures in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    for old in (output / PICTURES).glob("*.svg"):
        old.unlink()
    names = [machine.name for machine in certification.machines]
    rows = {name: rows_of(certification, name) for name in names}
    pictures = {output / PICTURES / f"{name}.svg": rows[name] for name in names}
    pictures[output / PICTURE] = {name: [f for figures in rows[name].values() for f in figures] for name in names}
    written = [path for path, of in pictures.items() if draw(of, path, f"{path.stem}: given against found")]
    page = output / PAGE
    page.write_text("\n".join(page_lines(certification, defect)) + "\n")
    return [page, *written]


def page_lines(certification: Certification, defect: str | None) -> list[str]:
    versions = certification.versions
    lines = [
        "# Certificate: what numabench finds on machines whose answers are given",
        "",
        f"**{certification.summary()}.**",
        "",
        *([f"This is a numabench that is wrong on purpose (`--defect {defect}`).", ""] if defect else []),
        *(
            []
            if certification.with_comparison
            else [
                "Made with `--no-compare`: without the two further boots of each machine for the verdicts of `numabench compare`.",
                "",
            ]
        ),
        "Written by `python -m testbed certify` (`make certify` for all of it); [testbed.md](testbed.md) says how the machines work, what they do not model, and how to describe another.",
        "",
        "| | |",
        "|---|---|",
        f"| numabench | {__version__}, commit {commit(CHECKOUT)} |",
        f"| guest's kernel | {versions.get('kernel', 'unknown')} |",
        f"| QEMU | {versions.get('qemu-system-x86', 'unknown')} |",
        f"| made | {datetime.now(timezone.utc):%Y-%m-%d}, in {certification.seconds / 60:.0f} minutes of all machines together |",
        "",
        f"A figure is right within {TOLERANCE:.0%} of what was given; a hop (`core to core` as well), a penalty and a single operation within {TOLERANCE:.0%} + {HOP_SLACK:g} ns. A topology, a line size "
        f"and a verdict must be exact. Verdicts are those of `numabench compare --same {SAME:.0%}` between one run each: one visit a side carries an assumed "
        "1 % between visits, so that no interval could be narrow enough for the usual ±3 %.",
        "",
        f"![All machines: given against found, and how far off each figure is]({PICTURE})",
    ]
    for machine in certification.machines:
        found = [f for f in certification.findings if f.machine == machine.name]
        lines += ["", f"## {machine.name}", "", f"{machine.summary}."]
        if machine.name in certification.broken:
            lines += ["", f"**Could not be measured**: {certification.broken[machine.name]}"]
            continue
        if machine.name in certification.untouched:
            lines += ["", f"Not certified here: nothing that touches it has changed since {certification.since}."]
            continue
        lines += ["", f"Certified at commit {certification.commits.get(machine.name, 'unknown')}."]
        if rows_of(certification, machine.name):
            lines += ["", f"![{machine.name}: given against found]({PICTURES}/{machine.name}.svg)"]
        lines += ["", "| what | where | given | found | 95 % interval | deviation | |", "|---|---|--:|--:|--:|--:|---|"]
        lines += [row(finding) for finding in found]
    return lines


def row(f: Finding) -> str:
    interval = f"{f.low:.4g} to {f.high:.4g}" if math.isfinite(f.low) and math.isfinite(f.high) else ""
    deviation = f"{f.deviation:+.2%}" if math.isfinite(f.deviation) else ""
    verdict = "right" if f.right else "**WRONG**"
    return (
        f"| {f.what} | {f.where} | {text(f.expected, f.unit)} | {text(f.found, f.unit)} | {interval} | {deviation} | {verdict} |"
    )


def rows_of(certification: Certification, name: str) -> dict[str, list[Finding]]:
    """The figures of a machine by what they are."""
    rows: dict[str, list[Finding]] = {}
    for f in certification.findings:
        if f.machine == name and isinstance(f.expected, float):
            rows.setdefault(f.what, []).append(f)
    return rows
