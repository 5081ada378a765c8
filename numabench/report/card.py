"""The machine's card as a picture (1,200 by 630 pixels, as links show it) and as the first screen of a page."""

from __future__ import annotations

import io
import math
import textwrap
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ..analysis.card import MOST_TILES, MachineCard, Price
from ..units import format_quantity
from . import panels, theme
from .figures import frames
from .heatmaps import colour_scale, draw_map, matrix
from .scales import log_ticks
from .selection import Source, select, value_label

SIZE = WIDTH, HEIGHT = 1200, 630
MARGIN = 40
PRICES, TILE = 540, 142  # CSS pixels: width of the ladder, height of a tile
FIGURES = 84  # of a price's figure beside its bar
MAP = 220  # CSS pixels of a matrix's longer side
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
        known = math.isfinite(price.low) and math.isfinite(price.high)
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
    with matplotlib.rc_context(theme.RC):
        figure, ax = panels.blank(400 if card.picture.view.kind == "heatmap" else 540, 290)
        draw_picture(figure, ax, card)
        return panels.to_svg(figure, prefix, f"{card.finding}. {card.picture.view.title}.")


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
            left, map_ = 660 if card.prices else MARGIN, card.picture.view.kind == "heatmap"
            room = 380 if map_ else 500  # a map is square, and beside one that stands alone are its groups
            draw_picture(figure, figure.add_axes(box(left + 46, 326, room - 46, 222 if map_ else 218)), card)
        if kind == "svg":
            return panels.to_svg(figure, "card", f"{card.title}: what one operation costs here") + "\n"
        theme.recolour(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=72, facecolor=theme.LIGHT["paper"], metadata={"Software": None})
        return buffer.getvalue()


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
    text(MARGIN + 26 + 9.8 * len(card.trust.word), 121, fit(card.trust.why, 1000, 15), 15)
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
        for line, said in enumerate(textwrap.wrap(tile.small, int(room / 6.2))[: 6 - len(words)]):
            text(left + 18, 203 + 17 * len(words) + 14 * line, said, 11.5, color=theme.MUTED)
    if card.prices:
        text(MARGIN + 272, 314, fit(price_key(card), 330, 11.5), 11.5, color=theme.MUTED)
        text(MARGIN, 314, "What one operation costs here", 15, weight="bold")
    if card.picture:
        text(660 if card.prices else MARGIN, 314, fit(card.finding, 500, 15), 15, weight="bold")
    for line, (value, words) in enumerate(() if card.prices else card.groups):
        text(470, 340 + 26 * line, f"{value:>9}", 15, weight="bold")
        text(560, 340 + 26 * line, words, 15)
    text(MARGIN, 612, card.source, 12, color=theme.MUTED)


def fit(words: str, room: float, size: float) -> str:
    """Cut to about `room` CSS pixels."""
    most = int(room / (panels.GLYPH * size))
    return words if len(words) <= most else words[: most - 1] + "…"


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
    selection = select(view, record, [Source(card.cells, topology=card.topology)])
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
            MAP / max(grid.shape),
        )
        ax.set_anchor("NW")
        return
    for _, frame, curves in frames(selection)[0][:1]:
        panels.draw_lines(ax, frame, curves)
        ax.set_ylabel("")
        ax.yaxis.set_major_locator(FixedLocator(log_ticks(frame.low, frame.high) if frame.log else ax.get_yticks()))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _, unit=frame.unit: format_quantity(value, unit, 1 if value < 10 else 2))
        )
        ax.xaxis.set_minor_formatter(NullFormatter())
        for place, (value, text) in enumerate(card.marks):
            ax.axvline(value, color=theme.series_colour(1), linestyle=(0, (3, 2)), linewidth=1.2)
            ax.annotate(
                text,
                (value, 0.0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 4 + 14 * (place % 2)),
                textcoords="offset points",
                va="bottom",
                fontsize=11,
                color=theme.INK,
            )
