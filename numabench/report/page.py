"""Pages: one self-contained HTML file for the results of one or more machines, one for a comparison.

Nothing on a page comes from anywhere else: style sheet, script and figures are inside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import msgspec
from markupsafe import Markup, escape

from ..analysis.answers import MISSING, ROUGH, SETTLED
from ..analysis.card import MachineCard, Reading
from ..analysis.structure import light, own_columns
from ..model import HIGHER, LOWER, BenchmarkRecord, Header
from ..runlog.read import RunLog
from . import card as card_parts
from . import facts, figures, tables, theme
from .outcomes import outcome_table
from .selection import FIGURE_PANELS, Room, drawable

if TYPE_CHECKING:
    import pandas as pd


NOTHING_MEASURED = "nothing of it was measured"
NO_ROOM = "this page shows no more than what was measured can fill (numabench figure draws it)"
MOST_FIRST = 3  # answers of a benchmark that are read at once
TEMPLATES = Path(__file__).parent / "templates"


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Templates with everything escaped that is not marked as safe; an unknown name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(code=marked, together=card_parts.unbroken)
    made.globals.update(
        style=page_style,
        script=Markup((TEMPLATES / "page.js").read_text()),
        words=facts.words,
        directions=(LOWER, HIGHER),
        style_of=card_parts.topic_style,
    )
    return made


def marked(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def page_style() -> Markup:
    light, dark = theme.style_variables(dark=False), theme.style_variables(dark=True)
    return Markup((TEMPLATES / "page.css").read_text().replace("/*LIGHT*/", light).replace("/*DARK*/", dark))


def merge_descriptors(records: Sequence[BenchmarkRecord]) -> list[BenchmarkRecord]:
    """One record per benchmark: the last one, with the axis values of all runs in their declared order."""
    merged: dict[str, BenchmarkRecord] = {}
    for record in records:
        before = merged.get(record.name)
        if before is not None:
            known = {a.name: a.values for a in before.axes}
            axes = tuple(msgspec.structs.replace(a, values=_union(known.get(a.name, ()), a.values)) for a in record.axes)
            record = msgspec.structs.replace(record, axes=axes)
        merged[record.name] = record
    return list(merged.values())


def _union(first: tuple, second: tuple) -> tuple:
    """Both, sorted when numeric; words keep the order of the longer one and what it lacks follows."""
    both = dict.fromkeys((*first, *second) if len(first) >= len(second) else (*second, *first))
    return tuple(both) if any(isinstance(v, str) for v in both) else tuple(sorted(both))


Tell = Callable[
    [str, int, int], object
]  # what comes next, how many parts are drawn, and of how many; of none before the first one


def untold(what: str, done: int, of: int) -> None: ...


def render_report(log: RunLog, target: float | None = None, reading: Reading | None = None, tell: Tell = untold) -> str:
    """The report of every machine and benchmark in `log` as HTML. `target` is the half-width asked for (default: the plan's);
    `reading` is of that log, where it is at hand; `tell` hears of each part before it is drawn."""
    from ..analysis.estimate import contrasts_of, estimates_of, process_medians

    reading = reading or Reading(log)
    descriptors = merge_descriptors(log.benchmarks)
    tell("the samples", 0, 0)
    frame = reading.frame
    tell("the answers", 0, 0)
    said, shown = reading.said, reading.cards
    tell("the tables", 0, 0)
    plans = [h.plan for h in log.headers]
    target = target or next((float(p["target"]) for p in plans if p.get("target")), 0.02)
    medians = light(process_medians(frame))
    estimates = estimates_of(medians, target)
    contrasts = contrasts_of(medians, log.benchmarks)
    headers = log.by_machine()
    machines = [facts.machine_facts(headers[m][-1].machine) for m in headers]
    many = len(machines) > 1
    sections, room = [], Room(len(headers))
    rows = tables.fair_share(tables.sizes(estimates, contrasts), tables.MOST_ROWS * len(headers))
    for number, descriptor in enumerate(descriptors):
        tell(descriptor.title, number, len(descriptors))
        later = len(descriptors) - number - 1
        sections.append(_section(number, descriptor, headers, estimates, contrasts, said, many, room, later, rows))
    return theme.lean(
        environment()
        .get_template("report.html.j2")
        .render(
            title=page_title(shown) or "numabench: " + ", ".join(m["alias"] for m in machines),
            summary=page_summary(shown),
            cards=[CardView(card, number) for number, card in enumerate(shown)],
            topics=by_topic(sections),
            machines=machines,
            many=many,
            unsettled=[(d, a) for d in descriptors for a in said if a.benchmark == d.name and a.headline and a.grade != SETTLED],
            asked=sum(a.headline for a in said),
            design=facts.design(log, frame, estimates, target),
            self_tests=facts.self_tests(log),
            interrupts=facts.interrupts(log),
            warnings=log.warnings,
            footer=facts.footer(log),
            reasons=tables.REASONS,
            phases=PHASES,
        )
    )


#: What is said of a benchmark that is not stable.
PHASES = {
    "alpha": "Alpha: it may change any day, and is compared within one version of numabench alone.",
    "beta": "Beta: how it measures may still change.",
    "deprecated": "Deprecated: its results are read, and numabench no longer measures it.",
}
#: Topics as people search for them; a plug-in's own is called as it is.
TOPIC_TITLES = {
    "memory": "Memory, caches and NUMA",
    "cores": "Cores, cache lines and locks",
    "runtime": "Runtimes",
    "": "Measured",
}


def by_topic(sections: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(title, sections) of each topic, in the order in which they come first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for section in sections:
        found.setdefault(section["descriptor"].topic, []).append(section)
    return [(TOPIC_TITLES.get(topic, topic.replace("_", " ").capitalize()), own) for topic, own in found.items()]


class CardView:
    """A card with what its template draws; of a comparison with the `side` that it shows."""

    def __init__(self, card: MachineCard, number: int, side: str = ""):
        self.side = side
        self.card, self.bars, self.key = card, card_parts.bars(card), card_parts.price_key(card)
        self.picture = card_parts.picture_svg(card, f"c{number}")
        self.room = card_parts.map_room(card)


def cards_html(shown: Sequence[MachineCard]) -> str:
    """The cards alone as a page of their own, in a frame whose styles stay inside: what notebooks show."""
    template = environment().get_template("cards.html.j2")
    page = template.render(title=page_title(shown), cards=[CardView(card, number) for number, card in enumerate(shown)])
    return f'<iframe srcdoc="{escape(page)}" style="width:100%;height:{720 * len(shown)}px;border:0" title="numabench"></iframe>'


def page_title(shown: Sequence[MachineCard]) -> str:
    """What a tab and a link say: the machine, and two figures where it is one."""
    if len(shown) != 1:
        return ", ".join(card.title for card in shown)
    figures = [
        f"{tile.words.partition(',')[0].partition(' (')[0]} {tile.value}" for tile in shown[0].tiles if tile.grade != MISSING
    ]
    return ": ".join(filter(None, (shown[0].title, ", ".join(figures[:2]))))


def page_summary(shown: Sequence[MachineCard]) -> str:
    """The description that a link shows."""
    return "; ".join(f"{tile.value} {tile.words}" for card in shown for tile in card.tiles if tile.grade != MISSING)


def _section(
    number: int,
    descriptor: BenchmarkRecord,
    headers: dict[str, list[Header]],
    estimates: pd.DataFrame,
    contrasts: pd.DataFrame,
    said: Sequence[Any],
    many: bool,
    room: Room,
    later: int,
    most: int,
) -> dict[str, Any]:
    """One benchmark: its answers, and per machine its figures and tables. `later`: benchmarks that come after it; `most`: rows of a table."""
    results = []
    for position, (machine, own) in enumerate(headers.items()):
        mine, pairs = (
            own_columns(table[(table["machine_id"] == machine) & (table["benchmark"] == descriptor.name)])
            for table in (estimates, contrasts)
        )
        if mine.empty:
            continue
        drawn, undrawn = [], []
        for n, view in enumerate(descriptor.views):
            waiting = later * len(headers) if n else 0
            why = NOTHING_MEASURED if room.left(waiting) else NO_ROOM
            make = partial(figures.figure, view, descriptor, drawable(mine), pairs, prefix=f"f{number}-{position}-{n}")
            more = {"topology": own[-1].machine.get("topology"), "most": FIGURE_PANELS}
            figure = room.drawn(partial(make, **more), waiting)
            if figure:
                drawn.append(figure)
            else:
                undrawn.append((view.title, why))
        outcomes = {m.name: outcome_table(mine, descriptor, m) for m in descriptor.metrics}
        results.append(
            {
                "alias": own[-1].machine.get("alias", "unknown"),
                "figures": drawn,
                "undrawn": undrawn,
                "outcomes": list(filter(None, outcomes.values())),
                "tables": [
                    t
                    for m in descriptor.metrics
                    if not outcomes[m.name] and (t := tables.estimate_table(mine, descriptor, m.name, most))
                ],
                "contrasts": [t for c in descriptor.contrasts if (t := tables.contrast_table(pairs, descriptor, c, most))],
            }
        )
    return {
        "id": f"b{number}",
        "descriptor": descriptor,
        "results": results,
        "many": many,
        **ranked_answers([a for a in said if a.benchmark == descriptor.name]),
    }


def ranked_answers(own: Sequence[Any]) -> dict[str, Any]:
    """The answers that come `first`, headlines and settled ones before others, and the `rest` in their order."""
    order = {SETTLED: 0, ROUGH: 1, MISSING: 2}
    first = sorted(own, key=lambda a: (not a.headline, order[a.grade]))[:MOST_FIRST]
    return {"first": first, "rest": [a for a in own if a not in first]}


def headlines(log: RunLog) -> RunLog:
    """Only what is asked first is counted on a card."""
    first = (msgspec.structs.replace(b, answers=tuple(a for a in b.answers if a.headline)) for b in log.benchmarks)
    return msgspec.structs.replace(log, benchmarks=tuple(first))


def render_comparison(comparison: Any, base: RunLog | None = None, new: RunLog | None = None, tell: Tell = untold) -> str:
    """The comparison as HTML. With both logs also the cards of two machines, and curves and heat maps of both sides on common scales.
    `tell` hears of each part before it is drawn."""
    from .versus import comparison_context

    sides = comparison.base_machines, comparison.new_machines
    logs = {"BASE": base, "NEW": new} if [len(side) for side in sides] == [1, 1] else {}
    shown = [(f"{name} {card.alias}", card) for name, log in logs.items() if log for card in Reading(headlines(log)).cards]
    context = comparison_context(comparison, base, new, tell)
    views = [CardView(card, number, side) for number, (side, card) in enumerate(shown)]
    return theme.lean(environment().get_template("comparison.html.j2").render(**context, cards=views))
