"""What tests of pages share: logs on disk, a parser that sees what a browser sees, and a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from numabench.runlog.write import Journal

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None,
    reason="NO BROWSER: chromium is not installed, so pages are NOT tested as a reader sees them (apt-get install chromium)",
)


def write_log(log, path: Path) -> Path:
    with Journal(path) as journal:
        for record in (*log.headers, *log.benchmarks, *log.trials, *log.ends):
            journal.append(record)
    return path


def numabench(*arguments: object, **options) -> subprocess.CompletedProcess:
    """The command as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "numabench", *map(str, arguments)], capture_output=True, text=True, timeout=60, **options
    )


class Page(HTMLParser):
    """Ids, references, addresses, and the cells of tables by class."""

    def __init__(self, html: str):
        super().__init__()
        self.ids, self.addresses, self.cells, self.headings, self.tags = [], [], [], [], []
        self._cell, self._heading = None, None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append((tag, given))
        if "id" in given:
            self.ids.append(given["id"])
        self.addresses += [v for k, v in attributes if k in ("href", "src", "xlink:href", "action", "srcset", "data", "poster")]
        self.addresses += [u for v in given.values() for u in re.findall(r"url\(([^)]*)\)", v or "")]
        if tag in ("td", "tr"):
            self._close_cell()
        if tag == "td":
            self._cell = [given.get("class", ""), ""]
        if tag == "i" and self._cell is not None:  # an interval is in cells of values alone
            self._cell[0] = self._cell[0] or "value"
        if tag in ("h1", "h2"):
            self._heading = ""

    def _close_cell(self):
        """Where the next one or its row begins, or the table ends: pages leave out `</td>`, as HTML allows."""
        if self._cell is not None:
            self.cells.append((self._cell[0], self._cell[1].strip()))
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell[1] += data
        if self._heading is not None:
            self._heading += data

    def handle_endtag(self, tag):
        if tag == "tbody":
            self._close_cell()
        if tag in ("h1", "h2") and self._heading is not None:
            self.headings.append(self._heading)
            self._heading = None


def svgs(html: str) -> list[ElementTree.Element]:
    """Every SVG, parsed as XML."""
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def check_page(html: str) -> Page:
    """What every page must keep: nothing from outside, valid SVG, unique ids whose references resolve."""
    page = Page(html)
    outside = [a for a in page.addresses if a and not a.startswith(("#", "data:"))]
    assert not outside, f"addresses outside the page: {outside[:3]}"
    plain = html.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", plain), "an address in the page's text"
    assert "@import" not in html
    assert svgs(html), "no figure"
    assert len(set(page.ids)) == len(page.ids), "ids clash"
    missing = {a[1:] for a in page.addresses if a and a.startswith("#")} - set(page.ids)
    assert not missing, f"references to nothing: {missing}"
    return page


def browse(path: Path, profile: Path, *flags: str) -> str:
    """Runs the browser on a file; its standard output (the DOM with --dump-dom)."""
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, path.as_uri()], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def picture(path: Path, folder: Path, *flags: str, size: str = "1400,1600"):
    """A screenshot as an array of shape (height, width, 3)."""
    import numpy as np
    from PIL import Image

    target = folder / f"shot{len(list(folder.glob('shot*')))}.png"
    browse(path, folder / "profile", f"--screenshot={target}", f"--window-size={size}", *flags)
    return np.asarray(Image.open(target).convert("RGB"))


#: Runs inside a page of a given width and writes what it measures into an attribute of the wrapper.
MEASURE = """<!doctype html><body><iframe id="inner" style="width:WIDTHpx;height:900px;border:0"></iframe><script>
const frame = document.getElementById("inner");
frame.onload = () => {
  const page = frame.contentDocument, wide = page.documentElement.scrollWidth, out = [];
  page.querySelectorAll("svg.plot").forEach(svg => {
    const box = svg.getBoundingClientRect();
    svg.querySelectorAll("text").forEach(text => {
      const b = text.getBoundingClientRect();
      if (b.left < box.left - 3 || b.right > box.right + 3 || b.top < box.top - 3 || b.bottom > box.bottom + 3) out.push(text.textContent);
    });
  });
  document.body.dataset.result = JSON.stringify({width: wide, card: page.querySelector(".card")?.offsetHeight, clipped: out, buttons: page.querySelectorAll("th button").length,
    sorted: (b => { if (!b) return null; b.click(); return b.parentNode.getAttribute("aria-sort"); })(page.querySelector("th button"))});
};
frame.srcdoc = new TextDecoder().decode(Uint8Array.from(atob("BODY"), c => c.charCodeAt(0)));
</script></body>"""


def measure(html: str, width: int, folder: Path) -> dict:
    """Layout facts of a page `width` CSS pixels wide: scroll width, height of its first card, texts that leave their figure, sortable headings."""
    import base64
    import json
    from html import unescape

    wrapper = folder / f"frame{width}.html"
    wrapper.write_text(MEASURE.replace("WIDTH", str(width)).replace("BODY", base64.b64encode(html.encode()).decode()))
    found = re.search(r'data-result="([^"]*)"', browse(wrapper, folder / "profile", "--dump-dom", "--virtual-time-budget=4000"))
    assert found, "the page did not load in the browser"
    return json.loads(unescape(found[1]))
