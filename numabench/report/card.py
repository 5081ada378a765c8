"""The machine's card as a picture (1,200 by 630 pixels, as links show it) and as the first screen of a page."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ..analysis.answers import says_nothing
from ..analysis.card import MOST_TILES, MachineCard, Price, Tile
from ..units import format_quantity, shared_prefix
from . import panels, theme
from .figures import frames
from .heatmaps import colour_scale, draw_map, matrix
from .scales import log_ticks
from .selection import Source, drawable, select, value_label

SIZE = WIDTH, HEIGHT = 1200, 630
MARGIN = 40
PRICES, TILE = 540, 142  # CSS pixels: width of the ladder, height of a tile
FIGURES = 84  # of a price's figure beside its bar
MOST_ROOM, LADDER = 400, 270  # CSS pixels of a page's matrix beside the ladder, and height of that
MAP, LONE_MAP = 220, 350  # CSS pixels of a matrix's longer side: beside the ladder, and where there is none
LEFT, RIGHT = MARGIN, 660  # where the two columns of the lower half begin
BESIDE_MAP, BELOW_MAP = 154, 62  # CSS pixels of the names and the colour bar beside a matrix, and of the names below it
MARK_FONT, MARKED = 11, 454  # CSS pixels: height of a mark's name, width of the curve that has it
BAR_SHARE = 0.11  # of the room of a matrix: what its colour bar takes
TOPIC_COLOURS = {"memory": 0, "cores": 1, "runtime": 2}  # series of the theme; topics of plug-ins share the next
OTHER_TOPIC = 3
LEAST_BAR = 0.04  # of the scale: the shortest bar can be seen


def topic_style(topic: str) -> int:
    return TOPIC_COLOURS.get(topic, OTHER_TOPIC)


def letter(topic: str) -> str:
    """Beside a bar for those who do not see its colour."""
    return topic[:1].upper()


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale from a little below the cheapest price to the dearest one."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        if not value > 0:
            return 0.0
        return min(1.0, max(0.0, math.log(value / self.low) / math.log(self.high / self.low)))

    def extent(self, price: Price) -> tuple[float, float, float]:
        """How long a price's bar is, and where its interval begins and ends: both at 0 where there is none."""
        known = math.isfinite(price.low) and math.isfinite(price.high) and not says_nothing(price.low, price.high)
        ends = (self.share(price.low), self.share(price.high)) if known else (0.0, 0.0)
        return max(LEAST_BAR, self.share(price.value)), *ends


def scale_of(prices: tuple[Price, ...]) -> Scale:
    most = max(max(price.value, price.high if price.high <= 2 * price.value else 0.0) for price in prices)
    return Scale(min(price.value for price in prices) / 1.6, most)


def price_key(card: MachineCard) -> str:
    """What lengths, lines and letters of the bars mean."""
    topics = dict.fromkeys(price.topic for price in card.prices)
    pale = ["pale: over ±5 %"] if any(price.mark for price in card.prices) else []
    return ", ".join(["log scale", *pale, *(f"{letter(topic)} {topic}" for topic in topics if topic)])


def bars(card: MachineCard) -> list[dict]:
    """For a page: each price with the lengths of its bar and of its interval in percent."""
    if not card.prices:
        return []
    scale, rows = scale_of(card.prices), []
    for price in card.prices:
        length, low, high = scale.extent(price)
        rows.append(
            {
                "name": price.name,
                "text": price.text,
                "interval": price.interval,
                "mark": price.mark,
                "style": topic_style(price.topic),
                "letter": letter(price.topic),
                "topic": price.topic,
                "length": 100 * length,
                "from": 100 * low,
                "span": 100 * (high - low),
            }
        )
    return rows


def picture_svg(card: MachineCard, prefix: str) -> Markup:
    """The card's figure for a page; empty without one."""
    if card.picture is None:
        return Markup("")
    wide, high = map_size(card) if is_map(card) else (540 - BESIDE_MAP, 290 - BELOW_MAP)
    with matplotlib.rc_context(theme.RC):
        figure, ax = panels.blank(wide + BESIDE_MAP, high + BELOW_MAP)
        draw_picture(figure, ax, card)
        return panels.to_svg(figure, prefix, f"{card.finding}. {card.picture.view.title}.")


def is_map(card: MachineCard) -> bool:
    return card.picture is not None and card.picture.view.kind == "heatmap"


def is_lone_map(card: MachineCard) -> bool:
    """A matrix is all that there is, as where it was published: it has the room of the ladder and of the tiles that are not there."""
    return is_map(card) and not card.prices and len(card.tiles) <= 2


def map_cells(card: MachineCard) -> tuple[int, int]:
    """Columns and rows of the card's matrix."""
    view = card.picture.view
    return (len(view.both),) * 2 if view.both else (card.cells[view.x].nunique(), card.cells[view.y].nunique())


def map_side(card: MachineCard) -> float:
    """CSS pixels of a cell of the card's matrix."""
    return (LONE_MAP if is_lone_map(card) else MAP) / max(map_cells(card))


def map_size(card: MachineCard) -> tuple[float, float]:
    """CSS pixels of its cells together: as wide as high for each, so that nothing is free between it and its colour bar."""
    columns, rows = map_cells(card)
    return max(60, columns * map_side(card)), max(100, rows * map_side(card))


def map_room(card: MachineCard) -> float:
    """CSS pixels of a page's width that its matrix takes with all that stands beside it: no higher than the ladder, which would push the card off the first screen."""
    if not is_map(card):
        return 0
    wide, high = map_size(card)
    most, tall = (500, math.inf) if is_lone_map(card) else (MOST_ROOM, LADDER - 20 * len(card.groups))
    return min(most, tall * (wide + BESIDE_MAP) / (high + BELOW_MAP))


def picture(card: MachineCard, kind: str) -> bytes | str:
    """The whole card as `png` (bytes) or `svg` (text)."""
    with matplotlib.rc_context(theme.RC):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
        figure.patch.set(facecolor=theme.PAPER)
        FigureCanvasAgg(figure)
        draw_words(figure, card)
        if card.prices:
            draw_prices(figure.add_axes(box(MARGIN, 324, PRICES, 264)), card.prices)
        if card.picture:
            left, top = picture_corner(card)
            wide, high = map_size(card) if is_map(card) else (MARKED * (1 - BAR_SHARE), 218)
            draw_picture(figure, figure.add_axes(box(left + 46, top + 12, wide / (1 - BAR_SHARE), high)), card)
        if kind == "svg":
            return panels.to_svg(figure, "card", f"{card.title}: what one operation costs here") + "\n"
        theme.recolour(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=72, facecolor=theme.LIGHT["paper"], metadata={"Software": None})
        return buffer.getvalue()


def picture_corner(card: MachineCard) -> tuple[float, float]:
    """Where the heading of the card's figure begins."""
    return (RIGHT, 166) if is_lone_map(card) else (RIGHT if card.prices else LEFT, 314)


def box(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    """CSS pixels from the upper left corner as shares of the figure from the lower left one."""
    return left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT


def draw_words(figure: Figure, card: MachineCard) -> None:
    """Title, facts, trust, tiles and headings."""

    def text(x: float, y: float, words: str, size: float, **style) -> None:
        figure.text(x / WIDTH, 1 - y / HEIGHT, words, fontsize=size, va="baseline", **({"color": theme.INK} | style))

    text(MARGIN, 52, fit(card.title, 1120, 25), 25, weight="bold")
    text(MARGIN, 80, fit(f"{card.facts} · {card.visits}".strip(" ·"), 1120, 15), 15, color=theme.MUTED)
    tone = theme.SAME if card.trust.good else theme.series_colour(1)
    figure.patches.append(panel(figure, MARGIN, 98, WIDTH - 2 * MARGIN, 34, tone, 0.13))
    text(MARGIN + 14, 121, f"{card.trust.word}.", 15, weight="bold")
    trust, room = card.trust, 1080 - 9.8 * len(card.trust.word)
    said = (f"{trust.reasons} {trust.next_step}".rstrip(), trust.reasons, f"{trust.why}.")
    text(MARGIN + 26 + 9.8 * len(trust.word), 121, next((s for s in said if fits(s, room, 15)), fit(said[-1], room, 15)), 15)
    each = (WIDTH - 2 * MARGIN + 14) / max(MOST_TILES, len(card.tiles))
    for position, tile in enumerate(card.tiles):
        left = MARGIN + position * each
        figure.patches.append(panel(figure, left, 146, each - 14, TILE, theme.GRID, 0.5))
        figure.patches.append(panel(figure, left, 146, 5, TILE, theme.series_colour(topic_style(tile.topic)), 1.0))
        text(left + 18, 178, tile.value, 25, weight="bold")
        room = each - 44
        words = textwrap.wrap(tile.words, int(room / 7.2))[:3]
        for line, said in enumerate(words):
            text(left + 18, 200 + 17 * line, said, 14)
        for line, said in enumerate(small_lines(tile, int(room / 6.2), 6 - len(words))):
            text(left + 18, 203 + 17 * len(words) + 14 * line, said, 11.5, color=theme.MUTED)
    if card.prices:
        text(MARGIN + 272, 314, fit(price_key(card), 330, 11.5), 11.5, color=theme.MUTED)
        text(MARGIN, 314, "What one operation costs here", 15, weight="bold")
    if card.picture:
        text(*picture_corner(card), fit(card.finding, 500, 15), 15, weight="bold")
    if card.groups and not card.prices:
        left, top = (LEFT, 326) if is_lone_map(card) else (RIGHT, 314)
        text(left, top, "Groups of near CPUs", 15, weight="bold")
        for line, group in enumerate(card.groups):
            text(left, top + 30 + 26 * line, group.value, 15, weight="bold")
            text(left + 90, top + 30 + 26 * line, group.words, 15)
    text(MARGIN, 612, card.source, 12, color=theme.MUTED)


def small_lines(tile: Tile, width: int, most: int) -> list[str]:
    """What belongs to a tile in lines of so many characters: as many of its parts as these have room for, and no part of one."""
    parts = tile.small.split(" · ")
    lines = (textwrap.wrap(together(" · ".join(parts[:count])), width) for count in range(len(parts), -1, -1))
    return next(found for found in lines if len(found) <= most)


def fits(words: str, room: float, size: float) -> bool:
    """Whether they take no more than about `room` CSS pixels."""
    return len(words) <= int(room / (panels.GLYPH * size))


def fit(words: str, room: float, size: float) -> str:
    """Cut to about `room` CSS pixels."""
    return words if fits(words, room, size) else words[: int(room / (panels.GLYPH * size)) - 1] + "…"


def together(text: str) -> str:
    """No line ends between a number and its unit."""
    return re.sub(r"(?<=[0-9]) (?=[A-Za-zµ%])", "\u00a0", text)


def unbroken(text: str) -> str:
    """Nor inside of an interval, where a browser could."""
    return re.sub(r"(?<=[0-9])–(?=[0-9])", "\u2060–\u2060", together(text))


def panel(figure: Figure, left: float, top: float, width: float, height: float, colour: str, alpha: float) -> FancyBboxPatch:
    x, y, w, h = box(left, top, width, height)
    return FancyBboxPatch(
        (x, y),
        w,
        h,
        boxstyle="square,pad=0",
        facecolor=colour,
        alpha=alpha,
        linewidth=0,
        transform=figure.transFigure,
        figure=figure,
    )


def draw_prices(ax, prices: tuple[Price, ...]) -> None:
    """Bars with names at the left and figures at the right, cheapest first."""
    scale, names = scale_of(prices), 34 + 6.9 * max(len(price.name) for price in prices)
    room = PRICES - names - FIGURES
    gap = 7 / room
    for place, price in enumerate(prices):
        length, low, high = scale.extent(price)
        style = theme.series_colour(topic_style(price.topic))
        ax.barh(place, length, height=0.62, color=style, alpha=0.45 if price.mark else 0.9)
        ax.plot([low, high], [place, place], color=theme.INK, linewidth=1.4, solid_capstyle="butt")
        figure = f"{price.text} {price.mark}".rstrip()
        ax.text(max(length, high) + gap, place, figure, va="center", fontsize=13, weight="bold", color=theme.INK)
        name = f"{price.name}  {letter(price.topic)}"
        ax.text(-gap, place, name, va="center", ha="right", fontsize=12.5, color=theme.INK)
    ax.set(xlim=(-names / room, 1 + FIGURES / room), ylim=(max(len(prices), 8) - 0.5, -0.5))
    ax.axis("off")


def draw_picture(figure: Figure, ax, card: MachineCard) -> None:
    """The card's figure on axes: a curve with its marks, or a matrix."""
    view, record = card.picture.view, card.record
    selection = select(view, record, [Source(drawable(card.cells), topology=card.topology)])
    if selection is None:
        ax.axis("off")
        return
    if view.kind == "heatmap":
        columns, lines = (list(view.both),) * 2 if view.both else (selection.values(view.x), selection.values(view.y))
        grid = matrix(card.cells, view.x, view.y, columns, lines)
        if view.both:
            grid = np.where(np.isfinite(grid), grid, grid.T)
        scale = colour_scale(grid[np.isfinite(grid)].tolist(), False)
        draw_map(
            figure,
            ax,
            grid,
            lines,
            columns,
            selection,
            f"{value_label(selection)} ({selection.unit})",
            scale,
            map_side(card),
        )
        ax.set_anchor("NW")
        return
    for _, frame, curves in frames(selection)[0][:1]:
        panels.draw_lines(ax, frame, curves)
        factor, unit = shared_prefix(frame.unit, frame.all_values)[0], frame.unit  # that the axis is in
        low, high = frame.low / factor, frame.high / factor
        ax.set_ylabel("")
        ax.yaxis.set_major_locator(FixedLocator(log_ticks(low, high) if frame.log else ax.get_yticks()))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(partial(tick_quantity, factor=factor, unit=unit)))
        ax.xaxis.set_minor_formatter(NullFormatter())
        if len(ax.get_legend_handles_labels()[0]) > 1:
            ax.legend(frameon=False, fontsize=MARK_FONT, labelcolor=theme.INK)
        draw_marks(ax, card.marks)


def tick_quantity(value: float, _: int, factor: float, unit: str) -> str:
    """A tick of an axis whose values were divided by `factor`."""
    return format_quantity(value * factor, unit, 1 if value * factor < 10 else 2)


def draw_marks(ax, marks: Sequence[tuple[float, str]]) -> None:
    """Lines across a curve with their names, each beside its own and before the next one."""
    ax.get_xlim()  # scales the axis to its data, without which nothing has a place
    places = [ax.transAxes.inverted().transform(ax.transData.transform((value, 1.0)))[0] for value, _ in marks]
    for number, (value, text) in enumerate(marks):
        room = min((place - places[number] for place in places if place > places[number]), default=1.0)
        taken = (panels.GLYPH * MARK_FONT * len(text) + 8) / MARKED
        left = room < taken < places[number]
        ax.axvline(value, color=theme.series_colour(1), linestyle=(0, (3, 2)), linewidth=1.2)
        ax.annotate(
            text,
            (value, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if left else 4, 4 + 14 * (number % 2)),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom",
            fontsize=MARK_FONT,
            color=theme.INK,
        )
