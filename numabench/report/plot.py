"""The page's figures as matplotlib's own, for notebooks and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ..errors import UsageError
from ..model import BenchmarkRecord, View
from ..runlog.export import samples
from ..runlog.read import RunLog
from ..runlog.select import check_benchmark
from ..text import in_shell, near
from . import theme
from .figures import figure
from .page import merge_descriptors
from .panels import collecting
from .selection import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(log: RunLog, benchmark: str, view: str | int = 0) -> list[Axes]:
    """The axes of a view's panels, those of each machine in turn, each in a figure of pyplot's with its title and legend.

    Raises UsageError for a benchmark or view that there is none of, and where none of its cells was measured.
    """
    from ..analysis.estimate import contrast_cells, estimate_cells

    check_benchmark(log, benchmark)
    descriptor = next(d for d in merge_descriptors(log.benchmarks) if d.name == benchmark)
    chosen = choose_view(descriptor, view)
    frame = samples(log, benchmark)
    estimates, contrasts = drawable(estimate_cells(frame)), contrast_cells(frame, log.benchmarks)
    headers = log.by_machine()
    found: list[Axes] = []
    for machine, own in headers.items():
        mine, pairs = (table[table["machine_id"] == machine] for table in (estimates, contrasts))
        with collecting() as axes:
            drawn = figure(chosen, descriptor, mine, pairs, topology=own[-1].machine.get("topology"))
        for ax, panel in zip(axes, drawn.panels if drawn else (), strict=True):
            alias = str(own[-1].machine.get("alias", "")) if len(headers) > 1 else ""
            assert isinstance(ax.figure, Figure)  # and no part of one
            ax.figure.draw_without_rendering()  # ticks and their labels are made only then
            theme.recolour(ax.figure)
            ax.figure.set_facecolor(theme.LIGHT["paper"])
            ax.tick_params(color=theme.LIGHT["edge"], labelcolor=theme.LIGHT["ink"], grid_color=theme.LIGHT["grid"])
            ax.set_title(", ".join(filter(None, (alias, chosen.title, panel.title))), color=theme.LIGHT["ink"], wrap=True)
            if len(ax.get_legend_handles_labels()[0]) > 1:
                ax.legend(frameon=False, labelcolor=theme.LIGHT["ink"])
        found += axes
    if not found:
        raise UsageError(
            f"nothing of {benchmark} that belongs to {chosen.title!r} was measured", in_shell("numabench", "run", benchmark)
        )
    return found


def choose_view(descriptor: BenchmarkRecord, view: str | int) -> View:
    """By number, or by a title that only has to begin so."""
    titles = [each.title for each in descriptor.views]
    if isinstance(view, int) and -len(titles) <= view < len(titles):
        return descriptor.views[view]
    for title, each in zip(titles, descriptor.views, strict=True):
        if isinstance(view, str) and view and title.lower().startswith(view.lower()):
            return each
    raise UsageError(
        f"{descriptor.name} has no view {view!r}{near(view, titles) if isinstance(view, str) else ''}",
        f"choose among {', '.join(f'{number}: {title}' for number, title in enumerate(titles))}" if titles else None,
    )
