"""The badges of README.md, from what the tree itself records: `python tools/badges.py` writes docs/badges/*.svg.

They need no service: what they say stands in the certificate and in pyproject.toml, and tests/test_documents.py says when it no longer does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import anybadge

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "badges"
GREEN, RED, BLUE = "#2e7d32", "#c62828", "#1f5f99"


def badges() -> dict[str, str]:
    """File name -> SVG."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    verdict, right, all_of_them = re.search(
        r"\*\*(GREEN|RED): (\d+) of (\d+) findings", (ROOT / "docs" / "certificate.md").read_text(encoding="utf-8")
    ).groups()
    said = {
        "certificate": (f"{right} of {all_of_them} findings right", GREEN if verdict == "GREEN" else RED),
        "python": (project["requires-python"].removeprefix(">=") + " or newer", BLUE),
        "license": (project["license"], BLUE),
    }
    drawn = {label: anybadge.Badge(label, value, default_color=colour).badge_svg_text for label, (value, colour) in said.items()}
    return {f"{label}.svg": re.sub(r"anybadge_\d+", "outline", svg) for label, svg in drawn.items()}  # numbered by process


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, svg in badges().items():
        (FOLDER / name).write_text(svg, encoding="utf-8")
