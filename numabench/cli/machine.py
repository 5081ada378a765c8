"""`numabench machine`: what this machine (or a copy of another one's /sys and /proc) looks like."""

from __future__ import annotations

import click

from . import say

_MAX_WIDTH = 100  # longer lines are hard to read; the terminal may be narrower


@click.command("machine")
@click.option(
    "--root",
    default="/",
    show_default=True,
    metavar="DIR",
    help="Directory (or .tar.gz of one) that holds sys/ and proc/ of a machine.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="A drawing for a person, or one JSON object.",
)
def command(root: str, form: str) -> None:
    """Show packages, NUMA nodes, caches and cores, and what this process may use of them."""
    import msgspec

    from ..host.machine import read_machine
    from ..host.topology import read_topology, to_json_dict
    from .roots import opened_root

    with opened_root(root) as directory:
        topology = read_topology(directory)
        machine = read_machine(directory, topology=topology)
    if form == "json":
        facts = msgspec.to_builtins(machine)
        document = {**to_json_dict(topology), "machine": {key: facts[key] for key in facts if key != "topology"}}
        say(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
    else:
        _print_text(machine, topology)


def _print_text(machine, topology) -> None:
    from . import tables
    from .console import Terminal
    from .drawing import draw

    console = Terminal()
    console.width = min(console.width, _MAX_WIDTH)
    console.print(draw(f"{machine.alias}: {machine.brand or 'processor of unknown brand'}", topology))
    console.print(tables.listing(tables.facts(machine, topology), "dim"))
    for table in (tables.node_table(topology), tables.distance_table(topology), tables.access_table(topology)):
        if table:
            console.print(table)
    warnings = (*topology.warnings, *machine.warnings)
    console.print(tables.listing([("warning", warning) for warning in warnings], "yellow"), end="")
