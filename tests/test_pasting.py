"""Commands that are printed can be pasted: quoted, on one line, for this system, whatever files are called."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from numabench.cli import VERBS
from numabench.errors import MachineError, UsageError
from numabench.host import cache, install, objects
from numabench.report.facts import run_command
from numabench.text import in_shell

PACKAGE = Path(__file__).parent.parent / "numabench"
ODD = [
    "Jane Doe",
    "it's",
    'say "so"',
    "a[/b]",
    "[red]x",
    "$HOME",
    "`id`",
    "a;rm b",
    "-rf",
    "*?",
    "tab\there",
    "two\nlines",
    "\x1b[2J",
    "ü",
    "a\\b",
]


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash to paste into")
@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_shell_reads_what_was_meant(name):
    line = in_shell("printf", "%s|", name, Path("/tmp") / name)
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.decode() == f"{name}|/tmp/{name}|"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_a_command_is_one_line(name):
    line = in_shell("rm", name)
    assert line.isprintable() and (not name.isprintable() or shlex.split(line) == ["rm", name])


SHOWN = re.compile(
    r"(?:^|[ (:])(?:rm|rm -r|chmod \S+|tar -\S+|fuser|ls|cat|numabench (?:VERBS)(?: --?[a-z-]+| [A-Z]+)*|--resume|--root|-o) $".replace(
        "VERBS", "|".join(VERBS)
    )
)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_commands_with_names_in_them_come_from_one_function(path):
    """Words of numabench's own (numbers of CPUs, names of its benchmarks) need no quotes; those of files do."""
    tree = ast.parse(path.read_text())
    if path.name != "text.py":
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) in ("shlex.quote", "shlex.join")]
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for before, after in zip(node.values, node.values[1:], strict=False):
                if isinstance(before, ast.Constant) and isinstance(after, ast.FormattedValue) and SHOWN.search(before.value):
                    assert ast.unparse(after.value).startswith(("in_shell(", "format_cpus(", "BENCHMARK")), ast.unparse(node)


@pytest.mark.parametrize("name", ["Jane Doe", "a[/b]", "it's"])
def test_a_folder_to_remove_is_the_one_that_is_meant(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    folder = cache.cache_folder()
    folder.chmod(0o777)
    with pytest.raises(MachineError) as raised:
        cache.cache_folder()
    (line,) = re.findall(r"(rm -r .*) and run again", raised.value.fix)
    assert shlex.split(line) == ["rm", "-r", str(folder)]
    with pytest.raises(MachineError) as raised:
        objects.read_object(tmp_path / name / "absent.so")
    assert shlex.split(raised.value.fix.partition(" and run")[0]) == ["rm", str(tmp_path / name / "absent.so")]


def test_the_recorded_command_is_one_that_runs_again():
    assert run_command({"command": ["numabench", "run", "-o", "my runs", "--alias", "it's"]}, {}) == in_shell(
        "numabench", "run", "-o", "my runs", "--alias", "it's"
    )


def test_the_name_of_a_tar_file_is_quoted(tmp_path):
    from numabench.cli.machine import command

    broken = tmp_path / "my [red]box.tar"
    with tarfile.open(broken, "w") as archive:
        archive.add(__file__, "sys/x")
        archive.add(__file__, "sys/y")

    broken.write_bytes(broken.read_bytes()[: 512 + 1024])  # in the middle of the first file
    result = CliRunner().invoke(command, ["--root", str(broken)])
    assert isinstance(result.exception, UsageError)
    assert shlex.split(result.exception.fix.partition(", then")[0]) == ["tar", "-xf", str(broken)]


# -- for this system -----------------------------------------------------------------------------------------------------


def tools(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("names", "user", "words"),
    [
        (["apt-get", "sudo"], 1000, "sudo apt-get install -y gcc libc6-dev"),
        (["apt-get"], 0, "apt-get install -y gcc libc6-dev"),
        (["apk"], 1000, "su -c 'apk add build-base linux-headers'"),
        (["dnf", "yum", "sudo"], 1000, "sudo dnf install -y gcc glibc-devel kernel-headers"),
        (["pacman", "sudo"], 1000, "sudo pacman -S --needed gcc linux-api-headers"),
        (["apt-get", "sudo", "conda"], 1000, "sudo apt-get install"),  # it is there, and no environment of it is active
        ([], 0, "install gcc and the headers"),
    ],
)
def test_what_is_missing_is_installed_as_it_is_here(tmp_path, monkeypatch, names, user, words):
    tools(tmp_path, *names)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert install.install_compiler().startswith(words)


def test_conda_has_its_own(tmp_path, monkeypatch):
    tools(tmp_path, "conda", "apt-get", "cc")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path))
    assert install.install_compiler().startswith("conda install -y -c conda-forge c-compiler")
    monkeypatch.setattr(install, "SYSTEM_COMPILERS", (str(tmp_path / "absent"), "/bin/sh"))
    assert install.mend_compiler("cc") == "export CC=/bin/sh"  # conda's headers do not suffice, and the system has a compiler
    monkeypatch.setattr(install, "SYSTEM_COMPILERS", ())
    assert install.mend_compiler("cc").startswith("conda install")
