"""The documents as a site: `python tools/docs_site.py [FOLDER]` builds it in build/site, or in FOLDER, from the tree alone.

Pages keep their places, so that a link that works in the tree works on the site; a link that does not is an error. The gallery is drawn
from results/sample by the commands that it names.
"""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import numabench as nb

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "results" / "sample"
#: What links in the pages lead to besides the pages themselves.
LINKED = ("LICENSE", "notebooks/explore.ipynb", "pyproject.toml")
#: Figures of the gallery: benchmark, its view.
SHOWN = (
    ("memory_latency", 0),
    ("padded_counters", 0),
    ("core_to_core", 0),
    ("contention", 0),
    ("loaded_latency", 0),
    ("memory_bandwidth", 0),
    ("single_operations", 0),
    ("tlb_latency", 0),
)

#: Topic -> what the navigation calls it, and behind which entry they all stand.
TOPICS = {"cores": "What cores cost each other", "memory": "Memory itself", "runtime": "What runtimes rely on"}
BEHIND = "Tutorials"


def copy_pages(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "docs", target / "docs", ignore=shutil.ignore_patterns("mkdocs.yml"))
    for page in ROOT.glob("*.md"):
        shutil.copy(page, target)
    shutil.copytree(ROOT / "examples", target / "examples")
    for name in LINKED:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)


def draw_gallery(folder: Path) -> None:
    """docs/gallery.md and its figures, each with the line that draws it."""
    from matplotlib import pyplot

    run = nb.load(SAMPLE)
    known = {benchmark.name: benchmark for benchmark in run.log.benchmarks}
    lines = [
        "# Gallery",
        "",
        'Two quick visits to a small virtual machine (`results/sample`), drawn with `import numabench as nb; run = nb.load("results/sample")`.',
    ]
    for name, view in SHOWN:
        axes = run.plot(name, view)
        axes[0].figure.savefig(folder / f"gallery-{name}.svg")
        pyplot.close("all")
        lines += [
            "",
            f"## {known[name].views[view].title}",
            "",
            known[name].question,
            "",
            f"![{known[name].title}](gallery-{name}.svg)",
            "",
        ]
        lines += [f'`run.plot("{name}")` · [{name}](benchmarks/{name}.md)']
    (folder / "gallery.md").write_text("\n".join(lines) + "\n")


def benchmarks() -> dict[str, list]:
    """The navigation's part of their pages, by topic."""
    known = nb.list_benchmarks()
    return {
        "Benchmarks": [
            {title: [{name: f"docs/benchmarks/{name}.md"} for name in known if known[name].topic == topic]}
            for topic, title in TOPICS.items()
        ]
    }


def main(site: Path) -> int:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    pages = site.parent / f"{site.name}-pages"
    copy_pages(pages)
    draw_gallery(pages / "docs")
    try:
        config = load_config(str(ROOT / "docs" / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(site), strict=True)
        config["nav"].insert(next(i for i, entry in enumerate(config["nav"], 1) if BEHIND in entry), benchmarks())
        build(config)
    except Abort as error:
        print(error, file=sys.stderr)
        return 1
    print(f"site: {site / 'index.html'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT / "build" / "site"))
