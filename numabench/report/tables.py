"""Estimates, contrasts and verdicts as tables of text: every value with its interval and its design."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from ..analysis import answers
from ..analysis.answers import says_nothing
from ..model import Axis, BenchmarkRecord, Contrast
from ..units import format_number, plural, shared_prefix
from .scales import better, format_value, in_order, plain

if TYPE_CHECKING:
    import pandas as pd

RATIO_PLACES = 3  # decimals of ratios between 0.1 and 10: 3 % is the question
LONG = 14  # rows from which on a table is folded: the figure above it says the same at a glance
MOST_HALF = 10.0  # relative half-width that is said: beyond ten times the value it is of too few
MOST_ROWS = 3_500  # of all tables of a page, for each machine of a report: one takes 200 bytes, of a comparison 300
MOST = 1_000  # rows that a page lists: of 64 CPUs a matrix has 4,032 for each metric, of 512 no browser makes a table

#: Reason codes of the analysis in words.
REASONS = {
    "one_session": "one session only: how much this machine changes from visit to visit is not known",
    "few_processes": "too few processes for a narrow interval",
    "few_blocks": "fewer than six pairs: no interval",
    "disturbed": "the value or the verdict depends on disturbed samples",
    "failed_proofs": "over a fifth of the samples failed a proof: they were somewhere else, or something else",
    "precision_not_reached": "interval wider than the target",
    "other_distances": "also measured at another distance of the CPUs (own row)",
    "not_positive": "some values are zero or below: averaged as they are",
    "these_machines": "about these machines, not about their models",
    "page_size": "the sides got pages of different size",
    "distance": "no common distance of the CPUs",
    "only_base": "measured in base only",
    "only_new": "measured in new only",
    "no_valid_samples_base": "base has no undisturbed sample",
    "no_valid_samples_new": "new has no undisturbed sample",
    "failed_trials_base": "trials failed in base",
    "failed_trials_new": "trials failed in new",
    "polarity_unknown": "neither direction is better, or which one is not recorded",
}

SEEN = {"precision_not_reached", "other_distances"}  # what the half-width and the rows of a table say without words

VERDICTS = {
    "faster": "new is better by more than chance and the interval leaves out “no change”",
    "slower": "new is worse by more than chance and the interval leaves out “no change”",
    "same": "two one-sided tests at 5 % put the ratio inside the band of practical equality",
    "unresolved": "the evidence decides neither way: not the same as “no difference”",
    "incomparable": "not the same quantity, or measured on one side only",
    "failed": "one side has no usable measurement",
}


@dataclass(frozen=True)
class Cell:
    """Text of one table cell, what it sorts by (its text, where empty), and its CSS class."""

    text: str
    sort: object = ""
    kind: str = ""
    detail: str = ""

    @property
    def html(self) -> Markup:
        """Short, since a page has thousands: a class where one is looked for, and what it sorts by where the text does not say it."""
        sort = f"{self.sort:.6g}" if isinstance(self.sort, float) else str(self.sort)
        said = f"{escape(self.text)}"
        if self.kind == "value":
            said += f" <i>({escape(self.detail)})</i>"
        elif self.kind.startswith("verdict"):
            said = f"<b>{said}</b>"
        of = f' class="{escape(self.kind)}"' if self.kind not in ("", "value") else ""
        by = f' data-sort="{escape(sort)}"' if sort not in ("", self.text) else ""
        return Markup(f"<td{of}{by}>{said}</td>")


@dataclass(frozen=True)
class Table:
    caption: str
    columns: tuple[tuple[str, bool], ...]  # heading, numeric
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def folded(self) -> bool:
        return len(self.rows) > LONG


def reason_text(codes: Iterable[str], skip: Sequence[str] = ()) -> str:
    """Codes in words; unknown ones as they are."""
    return "; ".join(REASONS.get(c, c.replace("_", " ")) for c in codes if c not in skip)


def remarks(codes: Iterable[str], skip: Collection[str] = ()) -> str:
    """Codes as short marks, which the note of the table explains: `few processes, disturbed`."""
    return ", ".join(code.replace("_", " ") for code in codes if code not in skip)


def explained(rows: pd.DataFrame, skip: Collection[str] = ()) -> str:
    """What the remarks of these rows mean."""
    codes = sorted(set().union(*rows["reasons"].unique()) - set(skip)) if len(rows) else []
    return " ".join(f"{remarks([code]).capitalize()}: {REASONS[code]}." for code in codes if code in REASONS)


def digits_for(value: float, low: float, high: float) -> int:
    """Significant digits so that the ends of the interval differ: 3 to 5."""
    width = high - low
    if not (math.isfinite(width) and width > 0 and value):
        return 3
    return max(3, min(5, math.ceil(math.log10(abs(value) / width)) + 1))


def interval_text(value: float, low: float, high: float, unit: str) -> tuple[str, str]:
    """(`27.1 ns`, `26.8–27.4`) in one common prefix; the second says so when there is no interval."""
    digits = digits_for(value, low, high)
    if unit == "×":
        factor, suffix, places = 1.0, "×", RATIO_PLACES if 0.1 <= value < 10 else None
    else:
        factor, prefixed = shared_prefix(unit, [value])
        suffix, places = f" {prefixed}".rstrip(), None
    if places is None:  # as many decimals for the ends as for the value, so that they line up
        places = max(0, digits - 1 - math.floor(math.log10(abs(value / factor)))) if value and math.isfinite(value) else 3
    if 0 < abs(value) < high - low:  # close to zero: the interval decides what is worth showing
        places = max(0, math.ceil(-math.log10((high - low) / factor)) + 1)
    if not math.isfinite(value):
        return "not measured", "no interval"

    def text(number: float) -> str:
        shown = f"{number / factor:.{places}f}" if places < 7 else format_number(number / factor, digits)
        return shown.replace("-", "−") if float(shown) else shown.lstrip("-")

    if not (math.isfinite(low) and math.isfinite(high)):
        return text(value) + suffix, "no interval"
    return text(value) + suffix, f"{text(low)}–{text(high)}" if low >= 0 else f"{text(low)} to {text(high)}"


def value_cell(value: float, low: float, high: float, unit: str, visits: int = 0) -> Cell:
    """Of an estimate from so many `visits`, what is missing where its interval says nothing."""
    quantity, interval = interval_text(float(value), float(low), float(high), unit)
    if not math.isfinite(value):
        return Cell(quantity)
    if visits and says_nothing(low, high):
        interval = answers.interval_text(low, high, unit, visits)
    return Cell(quantity, float(value) if math.isfinite(value) else "", "value", interval)


def split_axes(rows: pd.DataFrame, descriptor: BenchmarkRecord) -> tuple[list[Axis], str]:
    """Axes that vary in `rows` (they become columns) and a sentence about those that do not."""
    varying, fixed = [], []
    for axis in descriptor.axes:
        values = [plain(v) for v in rows[axis.name].dropna().unique()] if axis.name in rows else []
        if len(values) > 1:
            varying.append(axis)
        elif values:
            fixed.append(f"{axis.name.replace('_', ' ')} {format_value(values[0], axis.unit)}")
    return varying, f"In every row: {', '.join(fixed)}." if fixed else ""


def sorted_rows(rows: pd.DataFrame, axes: Sequence[Axis]) -> pd.DataFrame:
    """Rows in the order that the descriptor gives its values, slowest axis first, main distance class first."""
    keys = {}
    for axis in axes:
        rank = {v: i for i, v in enumerate(in_order(axis, [plain(v) for v in rows[axis.name].dropna().unique()]))}
        keys[axis.name] = rows[axis.name].map(lambda v, rank=rank: rank.get(plain(v), -1)).to_numpy(dtype=float, na_value=-1)
    frame = rows.assign(**{f"_{n}": k for n, k in keys.items()})
    frame = frame.assign(_main=~frame["main"].astype(bool) if "main" in frame else False)
    return frame.sort_values([f"_{n}" for n in keys] + ["_main", "distance"], kind="stable")


def listed(rows: pd.DataFrame, most: int | None = None) -> tuple[pd.DataFrame, str]:
    """The first rows, as many as a page lists, and where the others are."""
    most = min(MOST, most or MOST)
    if len(rows) <= most:
        return rows, ""
    return rows.iloc[:most], f"The first {most:,} of {len(rows):,} rows; all of them: numabench export."


def sizes(estimates: pd.DataFrame, contrasts: pd.DataFrame) -> list[int]:
    """How many rows each table of a page would have."""
    told = estimates[estimates["main"].to_numpy(dtype=bool) | estimates["value"].notna().to_numpy()]
    found = told.groupby(["machine_id", "benchmark", "metric"]).size().tolist()
    if len(contrasts):
        paired = contrasts[contrasts["difference"].notna()]
        found += paired.groupby(["machine_id", "benchmark", "axis", "metric", "control"], dropna=False).size().tolist()
    return found


def fair_share(sizes: Iterable[int], most: int) -> int:
    """How many rows each table may have for all of them to have `most` together: those that have fewer leave theirs to the others."""
    left, waiting = most, sorted(sizes)
    for place, size in enumerate(waiting):
        if size * (len(waiting) - place) > left:
            return left // (len(waiting) - place)
        left -= size
    return MOST


def _axis_cells(row: object, axes: Sequence[Axis]) -> list[Cell]:
    cells = []
    for axis in axes:
        value = plain(row[axis.name])
        cells.append(Cell(format_value(value, axis.unit), value if value is not None else ""))
    return cells


def _headings(axes: Sequence[Axis], rows: pd.DataFrame) -> list[tuple[str, bool]]:
    return [
        (a.name.replace("_", " "), not any(isinstance(plain(v), str) for v in rows[a.name].dropna().unique()[:1])) for a in axes
    ]


def _distance_cell(distance: str, main: bool) -> Cell:
    return Cell(f"{distance}{'' if main else ' (other)'}" if distance else "–", kind="" if main else "other")


def estimate_table(estimates: pd.DataFrame, descriptor: BenchmarkRecord, metric: str, most: int | None = None) -> Table | None:
    """The cells of one metric of one machine, `most` at most: value (interval), relative half-width, processes, distance, remarks."""
    rows = estimates[(estimates["benchmark"] == descriptor.name) & (estimates["metric"] == metric)]
    rows = rows[rows["main"] | rows["value"].notna()]  # of another distance without a value there is nothing to say
    if rows.empty:
        return None
    axes, fixed = split_axes(rows, descriptor)
    sessions = sorted(set(rows["sessions"].astype(int)))
    distances = sorted(set(rows["distance"].dropna()) - {""})
    everywhere = set.intersection(*map(set, rows["reasons"].unique())) - SEEN
    told = everywhere | SEEN
    shown, more = listed(sorted_rows(rows, axes), most)
    table = []
    for row in shown.to_dict("records"):
        half = float(row["half_width"])
        cells = [
            *_axis_cells(row, axes),
            value_cell(row["value"], row["low"], row["high"], row["unit"], row["sessions"]),
            Cell(f"±{half * 100:.1f} %", 100 * half) if half <= MOST_HALF else Cell("–"),
            Cell(str(int(row["processes"]))),
        ]
        if len(sessions) > 1:
            cells.append(Cell(str(int(row["sessions"]))))
        if len(distances) > 1:
            cells.append(_distance_cell(row["distance"], bool(row["main"])))
        table.append((*cells, Cell(remarks(row["reasons"], told), kind="remark")))
    columns = [
        *_headings(axes, rows),
        (f"{metric.replace('_', ' ')} (95 % interval)", True),
        ("half-width", True),
        ("processes", True),
    ]
    columns += [("sessions", True)] if len(sessions) > 1 else []
    columns += [("distance", False)] if len(distances) > 1 else []
    note = [
        fixed,
        f"Sessions: {sessions[0]}." if len(sessions) == 1 else "",
        f"Distance of the CPUs: {distances[0]}." if len(distances) == 1 else "",
        f"In every row: {reason_text(sorted(everywhere))}." if everywhere else "",
        explained(shown, told),
        more,
    ]
    return _without_empty(
        Table(metric.replace("_", " "), (*columns, ("remarks", False)), tuple(table), " ".join(filter(None, note)))
    )


def _without_empty(table: Table) -> Table:
    """Without a last column that says nothing."""
    if any(row[-1].text for row in table.rows):
        return table
    return Table(table.caption, table.columns[:-1], tuple(row[:-1] for row in table.rows), table.note)


def contrast_table(
    contrasts: pd.DataFrame, descriptor: BenchmarkRecord, contrast: Contrast, most: int | None = None
) -> Table | None:
    """Ratio and difference to the control, each with the interval of its paired sign test, and the number of pairs; of points that have any."""
    if not len(contrasts):
        return None
    rows = contrasts[
        (contrasts["benchmark"] == descriptor.name)
        & (contrasts["axis"] == contrast.axis)
        & (contrasts["metric"] == contrast.metric)
        & (contrasts["control"].map(plain) == contrast.control)
        & (contrasts["main"].astype(bool) | contrasts["difference"].notna())
    ]
    paired = rows["difference"].notna()
    alone, rows = int((~paired).sum()), rows[paired]
    if rows.empty:
        return None
    axes, fixed = split_axes(rows, descriptor)
    axis = next((a for a in descriptor.axes if a.name == contrast.axis), None)
    if axis and axis not in axes:
        axes = [*axes, axis]
    distances = sorted(set(rows["distance"].dropna()) - {""})
    everywhere = set.intersection(*map(set, rows["reasons"].unique()))
    shown, more = listed(sorted_rows(rows, axes), most)
    table = []
    for row in shown.to_dict("records"):
        cells = [
            *_axis_cells(row, axes),
            value_cell(row["ratio"], row["ratio_low"], row["ratio_high"], "×"),
            value_cell(row["difference"], row["difference_low"], row["difference_high"], row["unit"]),
            Cell(str(int(row["blocks"]))),
        ]
        if len(distances) > 1:
            cells.append(_distance_cell(row["distance"], bool(row.get("main", True))))
        table.append((*cells, Cell(remarks(row["reasons"], everywhere), kind="remark")))
    control = f"{contrast.axis.replace('_', ' ')} {format_value(contrast.control, axis.unit if axis else '')}"
    columns = [*_headings(axes, rows), ("ratio (95 % interval)", True), ("difference (95 % interval)", True), ("pairs", True)]
    columns += [("distance", False)] if len(distances) > 1 else []
    note = [
        fixed,
        f"Distance of the CPUs: {distances[0]}." if len(distances) == 1 else "",
        f"In every row: {reason_text(sorted(everywhere))}." if everywhere else "",
        explained(shown, everywhere),
        f"Without a pair: {plural(alone, 'point')}." if alone else "",
        more,
    ]
    return _without_empty(
        Table(
            f"{contrast.metric.replace('_', ' ')} against {control}, measured side by side in the same processes",
            (*columns, ("remarks", False)),
            tuple(table),
            " ".join(filter(None, note)),
        )
    )


def verdict_table(cells: pd.DataFrame, descriptor: BenchmarkRecord | None, metric: str, most: int | None = None) -> Table:
    """Cells of one benchmark and metric of a comparison, `most` at most: both sides, ratio, verdict and its reasons."""
    rows = cells[cells["metric"] == metric]
    axes, fixed = split_axes(rows, descriptor) if descriptor else ([], "")
    shown, more = listed(sorted_rows(rows, axes), most)
    table = []
    for row in shown.to_dict("records"):
        distance = " / ".join(
            dict.fromkeys(str(d) for d in (row["distance"], row.get("distance_new", "")) if isinstance(d, str) and d)
        )
        lead = _axis_cells(row, axes) if descriptor else [Cell(str(row["case"]))]
        table.append(
            (
                *lead,
                value_cell(row["base"], row["base_low"], row["base_high"], row["unit"]),
                value_cell(row["new"], row["new_low"], row["new_high"], row["unit"]),
                value_cell(row["ratio"], row["low"], row["high"], "×"),
                Cell(row["verdict"], kind=f"verdict {row['verdict']}"),
                Cell(distance or "–"),
                Cell(remarks(row["reasons"]), kind="remark", detail=" ".join(row["reasons"])),
            )
        )
    lead = _headings(axes, rows) if descriptor else [("case", False)]
    columns = [
        *lead,
        ("base (95 % interval)", True),
        ("new (95 % interval)", True),
        ("new ÷ base (95 % interval)", True),
        ("verdict", False),
        ("distance", False),
        ("reasons", False),
    ]
    polarity = rows["polarity"].iloc[0] if len(rows) else ""
    note = " ".join(filter(None, (fixed, better(polarity), explained(shown), more)))
    return Table(metric.replace("_", " "), tuple(columns), tuple(table), note)
