"""`numabench completion`: the script that lets a shell complete verbs, options, benchmarks, parameters and logs."""

from __future__ import annotations

import click

from . import say

SHELLS = ("bash", "zsh", "fish")
EPILOG = """\b
Examples:
  eval "$(numabench completion bash)"                             in ~/.bashrc
  eval "$(numabench completion zsh)"                              in ~/.zshrc, after compinit
  numabench completion fish > ~/.config/fish/completions/numabench.fish"""


@click.command("completion", epilog=EPILOG, short_help="Let your shell complete what you type.")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script by which bash, zsh or fish completes verbs, options, benchmarks, profiles, parameters with their values, and logs."""
    from . import COMPLETE
    from . import command as whole
    from .completing import CLASSES

    say(CLASSES[shell](whole, {}, "numabench", COMPLETE).source())
