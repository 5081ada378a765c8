"""The one console of the command: text is text, and a reader who has gone is told of."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ..text import REPLACEMENT, UNPRINTABLE
from . import abandon


class Terminal(Console):
    """Text from logs, files and names never is rich's markup or an emoji's name, nor does a terminal obey it; what is styled says so with `style` or `Text`.

    `outlives_reader`: whoever reads along may go (`numabench run | head`); the work, and its exit code, stay what they are."""

    def __init__(self, outlives_reader: bool = False, **options):
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        self.outlives_reader = outlives_reader

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                text = UNPRINTABLE.sub(lambda sign: sign[0] if sign[0] == "\n" else REPLACEMENT, segment.text)
                yield Segment(text, segment.style)

    def on_broken_pipe(self) -> None:
        """rich itself would exit with 1, which here means a regression."""
        if not self.outlives_reader:
            raise BrokenPipeError
        abandon(self.file)
