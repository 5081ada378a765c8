"""What a change touches: the machines that have to be certified again. Whatever is unsure touches all of them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from numabench import list_benchmarks

from .known import NAMES, Known
from .machine import Machine
from .visits import BENCHMARKS, CORES

#: What neither measures nor judges, nor is simulated with (tests/test_testbed_beside.py sees that none of it is imported).
APART = (
    *("docs/", "tests/", "tools/", "results/", "notebooks/"),
    *("numabench/report/", "numabench/bill/", "numabench/launch/"),
    *("testbed/cli.py", "testbed/page.py", "testbed/picture.py", "testbed/touched.py"),
)
KERNELS, DESCRIPTIONS, KNOWN, MACHINES = "kernels", "numabench/benchmarks", "testbed/known", "testbed/machines"


def changed_since(tree: Path, commit: str) -> set[str] | None:
    """Files of a checkout that are not as in `commit`, also those that are not committed or not known to git; None where git does not know."""
    found: set[str] = set()
    for words in (("diff", "--name-only", "--no-renames", commit, "--"), ("ls-files", "--others", "--exclude-standard")):
        done = subprocess.run(["git", *words], cwd=tree, capture_output=True, text=True, check=False)
        if done.returncode:
            return None
        found.update(done.stdout.splitlines())
    return found


def uses(machine: Machine | Known) -> tuple[str, ...] | None:
    """Names of benchmarks, machines and others of `testbed/known` that it is certified with; None: any."""
    if isinstance(machine, Machine):
        return (machine.name, *BENCHMARKS, *(word for word in CORES if word in list_benchmarks()))
    named = getattr(machine, "uses", None)
    return None if named is None else (machine.name, *named)


def touching(machine: Machine | Known, changed: Iterable[str], tree: Path) -> list[str]:
    """Those of the files `changed` that touch a machine."""
    names = uses(machine)
    return sorted(file for file in changed if touches(file, names, tree))


def touches(file: str, names: tuple[str, ...] | None, tree: Path) -> bool:
    folder, _, name = file.rpartition("/")
    if file.startswith(APART) or (not folder and name.endswith(".md")):
        return False
    users = users_of(folder, name, tree)
    return names is None or not users or bool(users & set(names))


def users_of(folder: str, name: str, tree: Path) -> set[str]:
    """The benchmarks, machines or others whose alone a file is; none where it is everybody's."""
    stem, _, kind = name.rpartition(".")
    known = list_benchmarks()
    if folder == MACHINES:
        return {stem}
    if folder == KERNELS and kind == "c":
        return {benchmark for benchmark in known if known[benchmark].kernel == stem}
    if folder in (DESCRIPTIONS, KNOWN):
        return {user for user in (known if folder == DESCRIPTIONS else NAMES) if stem in imported(tree / folder, user)}
    return set()


def imported(folder: Path, name: str) -> set[str]:
    """The modules of a folder that one of them is made of: itself, and those that they import of each other."""
    found, left = set(), [name]
    while left:
        name = left.pop()
        path = folder / f"{name}.py"
        if name not in found and path.is_file():
            found.add(name)
            left += imports_of(path)
    return found


@cache
def imports_of(path: Path) -> list[str]:
    """The modules beside it that a module imports, wherever in it."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.level == 1]
    return [each for node in nodes for each in ([node.module] if node.module else [alias.name for alias in node.names])]
