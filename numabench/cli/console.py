"""The one console of the command: text is text, and a reader who has gone is told of."""

from __future__ import annotations

from rich.console import Console

from . import abandon


class Terminal(Console):
    """Text from logs, files and names never is rich's markup or an emoji's name; what is styled says so with `style` or `Text`.

    `outlives_reader`: whoever reads along may go (`numabench run | head`); the work, and its exit code, stay what they are."""

    def __init__(self, outlives_reader: bool = False, **options):
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        self.outlives_reader = outlives_reader

    def on_broken_pipe(self) -> None:
        """rich itself would exit with 1, which here means a regression."""
        if not self.outlives_reader:
            raise BrokenPipeError
        abandon(self.file)
