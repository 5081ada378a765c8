"""The house rules that a machine can hold: who imports whom, who prints, how long a file is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "numabench"
MODULES = sorted(PACKAGE.rglob("*.py"))

BASE = {"model", "errors", "extras", "crossing", "units", "text", "files", "__version__", ""}
#: What a part may import of the package, beside itself.
MAY_IMPORT = {
    "model": {"errors", "units"},
    "errors": set(),
    "extras": {"errors"},
    "units": {"errors"},
    "crossing": set(),
    "text": set(),
    "files": set(),
    "runlog": BASE,
    "contract": BASE | {"runlog"},
    "analysis": BASE | {"runlog"},
    "report": BASE | {"runlog", "analysis"},
    "host": BASE,
    "kernel": BASE | {"host"},
    "benchmarks": BASE | {"host", "kernel"},
    "measure": BASE | {"host", "kernel", "benchmarks", "runlog"},
    "launch": BASE | {"runlog", "host"},
    "bill": BASE | {"runlog", "analysis", "host"},
    "api": BASE | {"runlog", "analysis", "report", "host", "benchmarks", "measure"},
    "cli": BASE
    | {"runlog", "contract", "analysis", "report", "host", "kernel", "benchmarks", "measure", "launch", "bill", "api"},
    "__main__": {"cli"},
    "__init__": {"api", "errors"},
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """First-level parts of numabench that a module imports, wherever in it."""
    parts = set()
    package = ["numabench", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            full = [*base, *(node.module.split(".") if node.module else [])]
            if full[:1] == ["numabench"]:
                parts |= {full[1]} if len(full) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            parts |= {name.name.split(".")[1] for name in node.names if name.name.startswith("numabench.")}
    return parts


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    part = part_of(path)
    assert imported_parts(path) - {part} <= MAY_IMPORT[part]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_prints_or_exits(path):
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    main = "__main__" in path.read_text()
    if part_of(path) != "cli" and not main:
        ends_itself = {"os._exit"} if path.name == "forks.py" else set()  # a forked process has nothing of its parent's to end
        assert not called & ({"print", "sys.exit", "exit", "quit", "os._exit"} - ends_itself)


def test_all_that_is_printed_goes_one_way():
    """`say`, or the one console: both know what a terminal obeys."""
    for path in (PACKAGE / "cli").glob("*.py"):
        text = path.read_text()
        assert text.count("click.echo(") == (path.name == "__init__.py") and "click.secho" not in text, path
        assert not re.search(r"\bConsole\(", text) or path.name == "console.py", path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_host_reads_proc_and_sys(path):
    if part_of(path) == "host":
        return
    strings = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [s for s in strings if s.startswith(("/proc/", "/sys/"))]


def test_a_worker_imports_nothing_heavy():
    def loaded_by(*modules: str) -> set[str]:
        code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
        return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())

    own = loaded_by("numabench.measure.worker", "numabench.benchmarks.contention", "numabench.benchmarks.node_latency")
    # msgspec imports uuid, with which Python 3.10 brings subprocess
    assert not (own - loaded_by("uuid")) & {"numpy", "pandas", "scipy", "matplotlib", "rich", "click", "jinja2", "subprocess"}


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["run", "--help"]])
def test_the_command_starts_light(arguments):
    code = f"import sys\nfrom numabench.cli import main\ntry:\n main({arguments!r})\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split())
    assert not loaded & {"numpy", "pandas", "scipy", "matplotlib", "jinja2", "cpuinfo"}


def test_the_abi_fits_on_its_page():
    assert len((ROOT / "kernels" / "nb.h").read_text().splitlines()) <= 124


def test_every_verb_and_option_is_documented():
    import click

    from numabench.cli import VERBS, command

    readme = "\n".join(p.read_text() for p in (ROOT / "README.md", ROOT / "docs" / "commands.md"))
    context = click.Context(command)
    for verb in VERBS:
        assert f"numabench {verb}" in readme
        for parameter in command.get_command(context, verb).params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert option in readme, f"{verb} {option}"
