"""`numabench take`: what a launch calls on the other machine, so that its kernels are there. No verb for people, and in no list."""

from __future__ import annotations

import os

import click

from ..errors import MACHINE, MachineError
from ..text import printable
from . import say


@click.command("take")
@click.argument("nonce")
@click.argument("parcel")
@click.argument("machine")
@click.argument("objects", nargs=-1)
def command(nonce: str, parcel: str, machine: str, objects: tuple[str, ...]) -> int:
    """Have PARCEL with these OBJECTS in the cache. Prints `NONCE lack OBJECT...` where some are wanted, and reads them."""
    from ..host.pushed import take

    def lack(wanted: list[str]) -> None:
        say(" ".join((nonce, "lack", *wanted)))

    try:
        with os.fdopen(os.dup(0), "rb", buffering=0) as stream:
            take(parcel, machine, objects, stream, lack)
    except MachineError as error:
        say(f"numabench: kernels not taken: {printable(error.message)}", err=True)
        return MACHINE
    return 0
