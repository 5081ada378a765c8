"""`numabench version`: what runs here, for a report of a fault."""

from __future__ import annotations

import platform

import click

from . import say
from .outputs import json_option


@click.command("version", short_help="Show the version, and what it runs on.")
@json_option
def command(form: str) -> None:
    """Show numabench's version, Python's, the schema of run logs that it reads and writes, and the ABI of its kernels."""
    from .. import __version__
    from ..kernel import ABI
    from ..runlog import SCHEMA
    from .outputs import Version, write

    python = platform.python_version()
    if form == "json":
        write(Version(numabench=__version__, python=python, schema=SCHEMA, abi=ABI))
    else:
        say(f"numabench {__version__} (Python {python}, run logs of schema {SCHEMA}, kernels of ABI {ABI})")
