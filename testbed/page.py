"""The certificate as a document and a figure."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from pathlib import Path

from numabench import __version__
from numabench.report.theme import MARKERS, SERIES_LIGHT

from .certify import Certification, commit, text
from .defects import CHECKOUT
from .judgement import HOP_SLACK, SAME, TOLERANCE, Finding

KINDS = (
    "node latency",
    "remote / local",
    "hop",
    "core to core",
    "contended atomic_add",
    "false-sharing penalty",
    "single operation",
)
BAND = "#009e73"
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # ns


def write_certificate(certification: Certification, output: Path, defect: str | None = None) -> list[Path]:
    """certificate.md and certificate.png in `output`."""
    output.mkdir(parents=True, exist_ok=True)
    page, figure = output / "certificate.md", output / "certificate.png"
    page.write_text("\n".join(page_lines(certification, defect)) + "\n")
    draw(certification, figure)
    return [page, figure]


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
        f"| made | {datetime.now(timezone.utc):%Y-%m-%d}, in {certification.seconds / 60:.0f} minutes |",
        "",
        f"A figure is right within {TOLERANCE:.0%} of what was given; a hop (`core to core` as well), a penalty and a single operation within {TOLERANCE:.0%} + {HOP_SLACK:g} ns. A topology, a line size "
        f"and a verdict must be exact. Verdicts are those of `numabench compare --same {SAME:.0%}` between one run each: one visit a side carries an assumed "
        "1 % between visits, so that no interval could be narrow enough for the usual ±3 %.",
        "",
        "![Recovered against given](certificate.png)",
    ]
    for machine in certification.machines:
        found = [f for f in certification.findings if f.machine == machine.name]
        lines += ["", f"## {machine.name}", "", f"{machine.summary}."]
        if machine.name in certification.broken:
            lines += ["", f"**Could not be measured**: {certification.broken[machine.name]}"]
            continue
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


def kind_of(f: Finding) -> str:
    return KINDS[-1] if f.what.endswith("of a modified line") else f.what


def draw(certification: Certification, path: Path) -> None:
    """Left: recovered against given. Right: the deviations, machine by machine, with the band of 2 %."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures = [f for f in certification.figures if math.isfinite(f.deviation)]
    shown = {f.machine for f in figures}  # of a fleet there are words alone
    names = [machine.name for machine in certification.machines if machine.name in shown]
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), width_ratios=(1, 1.25), layout="constrained")
        latencies = [f for f in figures if f.unit == "ns"]
        limits = [0.8 * min(f.expected for f in latencies), 1.25 * max(f.expected for f in latencies)] if latencies else [1, 10]
        left.plot(limits, limits, color="#9aa4ae", linewidth=1, zorder=1)
        for number, kind in enumerate(KINDS):
            colour, marker = SERIES_LIGHT[number], MARKERS[number]
            mine = [f for f in latencies if kind_of(f) == kind]
            style = {"s": 34, "color": colour, "marker": marker, "alpha": 0.75, "linewidths": 0, "zorder": 3}
            left.scatter([f.expected for f in mine], [f.found for f in mine], **style)
            shift = (number - (len(KINDS) - 1) / 2) * 0.1
            mine = [f for f in figures if kind_of(f) == kind]
            right.scatter([100 * f.deviation for f in mine], [names.index(f.machine) + shift for f in mine], label=kind, **style)
        left.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal", title="Latencies: found against given")
        left.set(xlabel="given (ns)", ylabel="found (ns)")
        ticks = [tick for tick in TICKS if limits[0] <= tick <= limits[1]]
        left.set(xticks=ticks, yticks=ticks)
        for axis in (left.xaxis, left.yaxis):
            axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        widest = max([100 * abs(f.deviation) for f in figures], default=1)
        right.axvspan(-100 * TOLERANCE, 100 * TOLERANCE, color=BAND, alpha=0.12, zorder=0)
        right.axvline(0, color="#9aa4ae", linewidth=1, zorder=1)
        if widest > 12:  # of a defect
            right.set_xscale("symlog", linthresh=3)
        else:
            right.set_xlim(-max(2.5, 1.15 * widest), max(2.5, 1.15 * widest))
        right.set(
            yticks=range(len(names)),
            yticklabels=names,
            ylim=(len(names) - 0.4, -0.6),
            xlabel="deviation (%)",
            title="Deviation, with the band of 2 %",
        )
        figure.legend(loc="outside lower center", ncols=len(KINDS), frameon=False, fontsize=9)
        figure.savefig(path, dpi=120)
        plt.close(figure)
