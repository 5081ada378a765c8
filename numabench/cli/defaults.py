"""What stands in for options that are not given: variables of the environment, and the project's file in the working folder.

An option counts before a variable (`NUMABENCH_RUN_PROFILE`), a variable before the file, the file before what is built in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..text import near, printable

PROJECT_FILE = "numabench.toml"
MOST_BYTES = 1 << 20  # of a project's file


def option_name(option: click.Parameter) -> str:
    """`require-precision` of `--require-precision`: what it is called in the project's file."""
    return max(option.opts, key=len).lstrip("-")


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {option_name(p): p for p in command.params if isinstance(p, click.Option)}


def variable(verb: str, name: str) -> str:
    return f"NUMABENCH_{verb}_{name}".upper().replace("-", "_")


def take_variables(verb: str, command: click.Command) -> None:
    """Lets each option be given by its variable. Raises UsageError for a variable of this verb that belongs to no option."""
    known = {}
    for name, option in options_of(command).items():
        option.envvar = variable(verb, name)
        known[option.envvar] = option
    for name in os.environ:
        if name.startswith(variable(verb, "")) and name not in known:
            raise UsageError(f"the variable {printable(name)} belongs to no option of {verb}{near(name, known)}", f"unset {name}")


def project_defaults(verbs: Iterable[str], whole: click.Group, folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """click's `default_map` by verb and parameter, from the project's file; empty where there is none. Raises UsageError for what no verb has."""
    path = (folder or Path()) / PROJECT_FILE
    if not path.is_file():
        return {}
    tables = read_tables(path)
    context = click.Context(whole)
    found: dict[str, dict[str, Any]] = {}
    for verb, table in tables.items():
        command = whole.get_command(context, verb)
        if command is None:
            raise wrong(f"there is no command {verb!r}{near(verb, verbs)}")
        if not isinstance(table, dict):
            raise wrong(f"{verb} has to be a table", f"write [{verb}] and its options below")
        options = options_of(command)
        for name, value in table.items():
            if name not in options:
                raise wrong(f"{verb} has no option {name!r}{near(name, options)}", f"numabench {verb} --help shows them")
            found.setdefault(verb, {})[str(options[name].name)] = checked(verb, name, options[name], value)
    return found


def read_tables(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise wrong(f"it has over {MOST_BYTES:,} bytes")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise wrong(f"it cannot be read: {error.strerror}", "check its permissions, or remove it") from error
    except (ValueError, RecursionError) as error:
        raise wrong(f"it is no TOML: {printable(str(error))}") from error


def checked(verb: str, name: str, option: click.Option, value: Any) -> Any:
    """The value as click takes it, looked at now: later the error would name an option that nobody gave."""
    if option.is_flag and not isinstance(value, bool):
        raise wrong(f"{verb} {name} is {value!r}", "write true or false")
    if option.multiple and isinstance(value, str):
        value = [value]
    several = value if option.multiple and isinstance(value, list) else [value]
    if any(not isinstance(each, (str, int, float)) or (isinstance(each, bool) and not option.is_flag) for each in several):
        raise wrong(f"{verb} {name} is {value!r}", "write one value, as after the option" + ", or a list" * option.multiple)
    try:
        option.type_cast_value(click.Context(click.Command(verb)), value)
    except click.BadParameter as error:
        raise wrong(f"{verb} {name}: {error.message}") from error
    return value


def wrong(what: str, fix: str = "") -> UsageError:
    return UsageError(f"{PROJECT_FILE} in this folder: {what}", fix or f"mend or remove {PROJECT_FILE} (docs/commands.md)")
