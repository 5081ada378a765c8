"""How figures look: colours as CSS variables, so that one SVG reads well in light, dark and print.

matplotlib draws with sentinel colours; `finish` turns each into `var(--nb-NAME, FALLBACK)`. The page's style sheet
gives the variables their values (`style_variables`); an SVG on its own shows the light fallbacks.
"""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from matplotlib.colors import to_hex, to_rgba, to_rgba_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito, "Color Universal Design" (2008), in an order whose first members differ most in lightness too.
#: Orange and sky blue are darkened on white until they stand out by 3:1 (WCAG 2.1, 1.4.11), blue is lightened on black.
SERIES_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b65c90", "#b87f00", "#2f94cf", "#5b5b5b")
SERIES_DARK = ("#4aa3e0", "#f0803c", "#1fc49a", "#df9cc3", "#e6a520", "#8accf3", "#c4c4c4")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

LIGHT = {"ink": "#1c2126", "muted": "#59636e", "grid": "#e3e7eb", "paper": "#ffffff", "edge": "#9aa4ae", "same": "#009e73"}
DARK = {"ink": "#e8ebee", "muted": "#a5afb9", "grid": "#30373e", "paper": "#1a1f24", "edge": "#68727c", "same": "#1fc49a"}

_NAMES = (*LIGHT, *(f"s{i}" for i in range(len(SERIES_LIGHT))))
_SENTINELS = {name: f"#0001{number:02x}" for number, name in enumerate(_NAMES, 1)}
_FALLBACKS = LIGHT | {f"s{i}": colour for i, colour in enumerate(SERIES_LIGHT)}

INK, MUTED, GRID, PAPER, EDGE, SAME = (_SENTINELS[n] for n in ("ink", "muted", "grid", "paper", "edge", "same"))

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', 'DejaVu Sans', Arial, sans-serif"
LARGEST = 1.35  # a panel grows up to this multiple of its natural width
FONT_SIZE = 12.0  # CSS pixels in a panel shown at its natural width

RC = {
    "text.parse_math": False,  # names and texts come from logs
    "svg.fonttype": "none",  # real text: any font serves, readers can select and search it, and the page stays small
    "svg.hashsalt": "numabench",  # ids repeat from run to run
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE - 1,
    "ytick.labelsize": FONT_SIZE - 1,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": EDGE,
    "xtick.color": EDGE,
    "ytick.color": EDGE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "hatch.color": EDGE,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "image.interpolation": "none",
    "image.composite_image": False,
    "axes.unicode_minus": True,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
}


def series_colour(index: int) -> str:
    return _SENTINELS[f"s{index % len(SERIES_LIGHT)}"]


def series_style(index: int) -> dict:
    """Colour, marker and dash of the series with this number: no two of the first 28 share all three."""
    return {
        "color": series_colour(index),
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index // len(SERIES_LIGHT) % len(DASHES)],
    }


def style_variables(dark: bool) -> str:
    """The CSS declarations of one theme."""
    values = (DARK if dark else LIGHT) | {f"s{i}": c for i, c in enumerate(SERIES_DARK if dark else SERIES_LIGHT)}
    return " ".join(f"--nb-{name}: {value};" for name, value in values.items())


def recolour(figure: Figure) -> None:
    """Gives a matplotlib figure of sentinel colours its real ones, for pixels: an SVG gets them from `finish`."""
    real = {sentinel: _FALLBACKS[name] for name, sentinel in _SENTINELS.items()}
    for artist in figure.findobj():
        for part in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            ask, give = getattr(artist, f"get_{part}", None), getattr(artist, f"set_{part}", None)
            if ask is None or give is None:
                continue
            try:
                colours = to_rgba_array(ask())
            except (TypeError, ValueError):  # "auto", "none", a colour map
                continue
            if any(to_hex(colour) in real for colour in colours):
                fixed = [to_rgba(real.get(to_hex(colour), colour), colour[3]) for colour in colours]
                give(fixed if len(fixed) > 1 else fixed[0])


def themed(svg: str) -> str:
    """With the colours of the page that it stands in, and the light ones elsewhere."""
    for name, sentinel in _SENTINELS.items():
        svg = svg.replace(sentinel, f"var(--nb-{name}, {_FALLBACKS[name]})")
    return svg


def short(svg: str) -> str:
    """Without what nobody sees: digits of places below a hundredth of a pixel, spaces in paths, turns by nothing, what is neither filled nor drawn, groups of one."""
    svg = re.sub(r' (?:d|x|y|width|height)="[^"]+"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), svg)
    svg = re.sub(r' d="[^"]+"', lambda m: re.sub(r"\s*([A-Za-z]) ?", r"\1", m[0][4:-1]).strip().join((' d="', '"')), svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"|<path d="[^"]*" style="fill: none"/>|; text-anchor: start', "", svg)
    while (fewer := re.sub(r"<g>\s*(<[^<>]*/>|<text[^<>]*>[^<]*</text>|)\s*</g>|<g/>", r"\1", svg)) != svg:
        svg = fewer
    return svg


STYLED = re.compile(r'(<(?:path|use|text|g|image|rect)(?: [^<>]*?)?) style="([^"]*)"')


def lean(page: str) -> str:
    """A page without what its figures and tables repeat: they leave to its style sheet what they say themselves where they stand alone, and to
    every browser (HTML, 13.1.2.4) where cells and rows end."""
    page = re.sub(r"var\((--nb-[a-z0-9]+), #[0-9a-f]{6}\)", r"var(\1)", page).replace(f' font-family="{FONT}"', "")
    page = re.sub(r'(<text style="[^"]*); fill: var\(--nb-ink\)"', r'\1"', page).replace(' xlink:href="#', ' href="#')
    names = {
        style: f"y{n}" for n, (style, many) in enumerate(Counter(s for _, s in STYLED.findall(page)).most_common()) if many > 1
    }
    rules = "\n".join(f".plot .{name} {{ {style} }}" for style, name in names.items())
    page = STYLED.sub(lambda m: f'{m[1]} class="{names[m[2]]}"' if m[2] in names else m[0], page)
    return re.sub(r"</td>|</tr>(?=\n)", "", page.replace("</style>", f"{rules}\n</style>", 1))


def finish(svg: str, prefix: str, alt: str) -> str:
    """An SVG of matplotlib as a fragment for a page: themed, without ids that clash, with a text for those who cannot see it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # a `*` rule that would leak into the page; page.css has it
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = themed(svg)
    used = {name: f"{prefix}-{n}" for n, name in enumerate(dict.fromkeys(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg)))}
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{used[m[1]]}"' if m[1] in used else "", svg)
    svg = short(re.sub(r"(url\(#|href=\"#)([^\")]+)", lambda m: m[1] + used[m[2]], svg))
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]+", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]+;? ?", "", svg)
    box = re.search(r'viewBox="([^"]+)"', svg)[1]
    natural = float(box.split()[2])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
        f'style="max-width: {natural * LARGEST:.0f}px" class="plot" role="img" aria-label="{escape(alt, quote=True)}" font-family="{FONT}">'
    )
    return re.sub(r"\s*\n\s*", "\n", head + svg[svg.index(">") + 1 :]).strip()
