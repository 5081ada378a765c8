"""`numabench help`: what `--help` says, for those who type it as a verb."""

from __future__ import annotations

import click

from . import say


@click.command("help", short_help="Explain numabench, or one of its verbs.")
@click.argument("verb", required=False)
@click.pass_context
def command(context: click.Context, verb: str | None) -> None:
    """Explain numabench, or one of its verbs with its options and examples."""
    from . import command as whole

    parent = context.parent or click.Context(whole, info_name="numabench")
    if verb is None:
        say(whole.get_help(parent))
        return
    name, found, _ = whole.resolve_command(parent, [verb])
    if found is not None:
        say(found.get_help(click.Context(found, info_name=name, parent=parent)))
