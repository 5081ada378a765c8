"""`--open`: what a verb wrote, in the browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from . import say

_ASKED = "numabench.open"  # in the context: whether a page is to be opened


def _keep(context: click.Context, parameter: click.Parameter, asked: bool) -> bool:
    context.meta[_ASKED] = asked
    return asked


opens_page: Callable = click.option(
    "--open", is_flag=True, expose_value=False, callback=_keep, help="Open the page in the browser when it is written."
)


def opened(target: Path) -> None:
    """Opens what was written where the verb was called with --open. Where no browser starts (a server), says how to see it."""
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get(_ASKED):
        return
    import webbrowser

    address = target.resolve().as_uri()
    if not webbrowser.open(address):
        say(f"no browser could be started here; open {address}", err=True)
