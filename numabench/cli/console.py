"""The one console of the command: text is text, and a reader who has gone is told of."""

from __future__ import annotations

from rich.console import Console


class Terminal(Console):
    """Text from logs, files and names never is rich's markup or an emoji's name; what is styled says so with `style` or `Text`."""

    def __init__(self, **options):
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        """rich itself would exit with 1, which here means a regression."""
        raise BrokenPipeError
