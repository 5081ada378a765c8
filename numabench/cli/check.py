"""`numabench check`: what will disturb a measurement here, why, and what mends it."""

from __future__ import annotations

import click

_STYLES = {"ok": "green", "note": "cyan", "warn": "yellow", "fatal": "bold red"}
_MAX_WIDTH = 100  # longer lines are hard to read; the terminal may be narrower


@click.command("check")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for a person, or one JSON object.",
)
@click.option(
    "--root", default="/", metavar="DIR", help="Look at a snapshot of another machine (DIR/sys, DIR/proc, or a .tar.gz of them)."
)
@click.pass_context
def command(context: click.Context, form: str, root: str) -> None:
    """Look for what will disturb a measurement on this machine. Changes nothing.

    Exit code 3 when a measurement makes no sense here, else 0.
    """
    from ..errors import MACHINE
    from ..measure.ready import check_all
    from .roots import opened_root

    with opened_root(root) as folder:
        findings = check_all(folder)
    fatal = any(finding.severity == "fatal" for finding in findings)
    if form == "json":
        from .outputs import Checked, write

        write(Checked(fatal=fatal, findings=tuple(findings)))
    else:
        _print_text(findings)
    if fatal:
        context.exit(MACHINE)


def _print_text(findings) -> None:
    """Findings with their reason and remedy, then the good ones in one paragraph."""
    from rich.padding import Padding
    from rich.text import Text

    from .console import Terminal

    console = Terminal()
    console.width = min(console.width, _MAX_WIDTH)
    for finding in findings:
        if finding.severity == "ok":
            continue
        head = Text.assemble((f"{finding.severity:<6}", _STYLES[finding.severity]), (f"{finding.check}: ", "bold"), finding.found)
        console.print(head)
        if finding.why:
            console.print(Padding(Text.assemble(("why:  ", "dim"), finding.why), (0, 0, 0, 6), expand=False))
        if finding.fix:  # never wrapped: it is there to be copied
            console.print(Text.assemble(("      mend: ", "dim"), finding.fix), soft_wrap=True)
    fine = [f"{finding.check} ({finding.found})" for finding in findings if finding.severity == "ok"]
    if fine:
        console.print(Text.assemble(("ok    ", _STYLES["ok"]), ", ".join(fine)))
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _STYLES}
    console.print(Text(", ".join(f"{count} {severity}" for severity, count in counts.items()), style="bold"))
