"""The tutorials' commands exist, and the site is built from the tree without a link that leads nowhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from numabench import cli
from numabench.cli.defaults import project_defaults

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "docs" / "tutorials").glob("*.md")), ROOT / "README.md"]


def fenced(page: Path, kind: str) -> list[str]:
    return [text for own, text in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL) if own == kind]


def commands(page: Path) -> list[list[str]]:
    """The words of each numabench command in a page's code, without variables before and comments behind."""
    found = []
    for line in "".join(fenced(page, "")).splitlines():
        for part in re.split(r"&&|\|", line):
            words = shlex.split(part, comments=True) if "$(" not in part else []
            while words and ("=" in words[0] or words[0] in ("uvx", "--from", "numabench[report]")):
                words = words[1:]
            if words[:1] == ["numabench"] and words[1:]:
                found.append(words[1:])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_understood(page):
    every = commands(page)
    assert every
    context = click.Context(cli.command, info_name="numabench")
    for verb, *arguments in every:
        command = cli.command.get_command(context, verb)
        assert command is not None, verb
        command.make_context(verb, arguments, parent=context)


@pytest.mark.parametrize("page", [*PAGES[:-1], ROOT / "docs" / "commands.md"], ids=lambda page: page.stem)
def test_project_files_are_understood(page, tmp_path):
    for text in fenced(page, "toml"):
        (tmp_path / "numabench.toml").write_text(text)
        assert project_defaults(cli.VERBS, cli.command, tmp_path)


def test_the_site_is_built_from_the_tree(tmp_path):
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "tools/docs_site.py", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    gallery = (tmp_path / "site" / "docs" / "gallery.html").read_text()
    figures = re.findall(r'src="(gallery-[a-z_]+\.svg)"', gallery)
    assert len(figures) >= 6 and all("<svg" in (tmp_path / "site" / "docs" / figure).read_text() for figure in figures)
    assert (tmp_path / "site" / "index.html").exists()


def test_badges_say_what_the_tree_records():
    pytest.importorskip("anybadge")
    spec = importlib.util.spec_from_file_location("badges", ROOT / "tools" / "badges.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    kept = {path.name: path.read_text() for path in (ROOT / "docs" / "badges").iterdir()}
    assert tool.badges() == kept, "write them anew: .venv/bin/python tools/badges.py"
    assert {f"docs/badges/{name}" for name in kept} == set(re.findall(r"docs/badges/\w+\.svg", (ROOT / "README.md").read_text()))
