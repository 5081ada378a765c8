"""`numabench new`: the files of a benchmark and its row in the README, which measure something true as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import click

from ..text import in_shell
from . import say

EPILOG = """\b
Examples:
  numabench new store_forwarding     kernels/, numabench/benchmarks/ and docs/benchmarks/ get a file each
  make check NAME=store_forwarding   does it keep to the contract? half a minute"""

TEMPLATES = Path(__file__).parent / "templates"
#: What is written where, by the template that it is made of.
FILES = {"kernel.c.txt": "kernels/{}.c", "benchmark.py.txt": "numabench/benchmarks/{}.py", "page.md.txt": "docs/benchmarks/{}.md"}


@click.command("new", epilog=EPILOG, short_help="Begin a benchmark: kernel, description, page.")
@click.argument("name")
def command(name: str) -> None:
    """Write the kernel, the description and the page of a benchmark NAME into this checkout, and list it in the README.

    They compile, keep to the contract and measure what dependent additions and multiplications take: change them from there.
    """
    from ..errors import UsageError

    root = checkout()
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise UsageError(
            f"{name!r} is no name of a benchmark", "write it as store_forwarding: small letters, digits and single underscores"
        )
    targets = {template: root / where.format(name) for template, where in FILES.items()}
    there = [str(target.relative_to(root)) for target in targets.values() if target.exists()]
    if there:
        raise UsageError(f"{', '.join(there)} is there already", "choose another name")
    words = {
        "@NAME@": name,
        "@TITLE@": name.replace("_", " ").capitalize(),
        "@CLASS@": "".join(p.capitalize() for p in name.split("_")),
    }
    for template, target in targets.items():
        text = (TEMPLATES / template).read_text()
        for mark, word in words.items():
            text = text.replace(mark, word)
        target.write_text(text)
        say(f"written: {target.relative_to(root)}")
    if list_in_readme(root / "README.md", name):
        say("listed: README.md")
    say(
        f"Try it: {in_shell('numabench', 'run', name, '--profile', 'quick')}. Check it: {in_shell('make', 'check', f'NAME={name}')}. What to change: CONTRIBUTING.md"
    )


def list_in_readme(readme: Path, name: str) -> bool:
    """A row below the other benchmarks'; nothing where there is no such table."""
    lines = readme.read_text().splitlines(keepends=True)
    rows = [number for number, line in enumerate(lines) if line.startswith("| [") and "](docs/benchmarks/" in line]
    if not rows:
        return False
    last = next(row for row in rows if row + 1 not in rows)  # of the first table
    lines.insert(
        last + 1,
        f"| [{name}](docs/benchmarks/{name}.md) | what an addition and a multiplication take that wait for the one before |\n",
    )
    readme.write_text("".join(lines))
    return True


def checkout() -> Path:
    """The checkout that this numabench runs from. Raises UsageError where it is an installed copy, which the next update would overwrite."""
    from ..errors import UsageError

    root = Path(__file__).resolve().parents[2]
    if not (root / "kernels" / "nb.h").exists() or not (root / "docs" / "benchmarks").is_dir():
        raise UsageError(
            "benchmarks are added to a checkout, and this numabench is an installed copy",
            "clone the repository, then there: make lint && .venv/bin/numabench new NAME; CONTRIBUTING.md says how a package of its own adds one",
        )
    return root
