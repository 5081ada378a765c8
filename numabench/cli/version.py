"""`numabench version`: what runs here, for a report of a fault."""

from __future__ import annotations

import platform

import click


@click.command("version", short_help="Show the version, and what it runs on.")
@click.option(
    "--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True, help="A line, or one JSON object."
)
def command(form: str) -> None:
    """Show numabench's version, Python's, the schema of run logs that it reads and writes, and the ABI of its kernels."""
    import json

    from .. import __version__
    from ..kernel import ABI
    from ..runlog import SCHEMA

    if form == "json":
        click.echo(
            json.dumps({"numabench": __version__, "python": platform.python_version(), "schema": SCHEMA, "abi": ABI}, indent=1)
        )
    else:
        click.echo(
            f"numabench {__version__} (Python {platform.python_version()}, run logs of schema {SCHEMA}, kernels of ABI {ABI})"
        )
