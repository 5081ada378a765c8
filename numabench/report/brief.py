"""A comparison in few words: one sentence, a row of text for each headline quantity, what else differs, what would settle the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..analysis.published import PUBLISHED
from ..analysis.rows import BETTER, ROW_VERDICTS, SAME, UNKNOWN, WORSE, worse
from ..model import HIGHER, LOWER
from ..text import measure_again
from ..units import format_number, plural, prefixed
from .tables import REASONS, reason_text

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 12
NAMED = 2  # quantities that the sentence names on either side
MOST_NAMED = 4  # benchmarks in a sentence
MINUS = "−"
TIMES = ("ns", "us", "µs", "ms", "s")
BUILDS = ("object_hash", "compiler", "flags")  # reasons that --across-builds puts aside
OTHER_METHOD = ("kernel_version", "method", "parameter_set", "unit", "polarity")
MISSING = {  # reason -> the side on which it is to be measured
    **dict.fromkeys(("only_base", "no_valid_samples_new", "failed_trials_new"), "NEW"),
    **dict.fromkeys(("only_new", "no_valid_samples_base", "failed_trials_base"), "BASE"),
}


class Line(NamedTuple):
    """A row as text."""

    quantity: str
    base: str
    new: str
    change: str  # `12 % slower`
    interval: str  # `+10…+14 %`
    verdict: str
    why: str  # of what is not known


class Step(NamedTuple):
    """What would settle so many quantities, and the command."""

    quantities: int
    where: str  # BASE, NEW or both
    what: str
    command: str

    @property
    def text(self) -> str:
        return f"{plural(self.quantities, 'row')}: {self.what}, {self.command}"


def side_names(comparison: Any) -> tuple[str, str]:
    """Aliases of base and new; BASE and NEW where these are not one machine each, or are called alike."""
    sides = [[m["alias"] for m in side] for side in (comparison.base_machines, comparison.new_machines)]
    if [len(side) for side in sides] == [1, 1] and sides[0] != sides[1]:
        return sides[0][0], sides[1][0]
    return "BASE", "NEW"


def shown_rows(comparison: Any) -> pd.DataFrame:
    """Those per price where prices were given."""
    return comparison.rows if comparison.priced is None else comparison.priced


def percent(share: float) -> str:
    """`4.2 %`, `12 %` of a share; without its sign."""
    size = abs(share) * 100
    return f"{size:.1f} %" if size < 9.95 else f"{size:.0f} %"


def change_text(row: Any, priced: bool) -> str:
    """What NEW is against BASE: `12 % slower` takes 12 % more time, `12 % faster` 12 % less; rates and money are more or less."""
    if not math.isfinite(row["change"]):
        return "–"
    if percent(row["change"]) == "0.0 %":
        return "no change"
    up = row["change"] > 0
    words = ("more", "less") if priced or row["polarity"] == HIGHER else ("higher", "lower")
    if not priced and row["polarity"] == LOWER and row["unit"] in TIMES:
        words = ("slower", "faster")
    return f"{percent(row['change'])} {words[0] if up else words[1]}"


def interval_text(low: float, high: float) -> str:
    """`+10…+14 %`, `−1.2…+2.0 %`: of the change."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "–"
    places = 1 if high - low < 0.1 else 0
    return "…".join(f"{100 * x:+.{places}f}".replace("-", MINUS) for x in (low, high)) + " %"


def value_texts(row: Any) -> tuple[str, str]:
    """Both values in one unit, which the second one has."""
    base, new = float(row["base"]), float(row["new"])
    factor, unit = prefixed(max(x for x in (base, new, 0.0) if math.isfinite(x)), row["unit"])
    texts = [format_number(x / factor) if math.isfinite(x) else "–" for x in (base, new)]
    if texts[1] == "–":
        return (f"{texts[0]} {unit}" if texts[0] != "–" else "–"), "–"
    return texts[0], f"{texts[1]} {unit}"


def line(row: Any, priced: bool = False) -> Line:
    base, new = value_texts(row)
    why = reason_text(row["reasons"], ("one_session", "these_machines")) if row["verdict"] == UNKNOWN else ""
    if row["verdict"] == UNKNOWN and not why:
        why = "the interval decides neither way"
    return Line(
        quantity=row["quantity"],
        base=base,
        new=new,
        change=change_text(row, priced),
        interval=interval_text(row["low"], row["high"]),
        verdict=row["verdict"],
        why=why,
    )


def lines(comparison: Any, most: int = MOST_ROWS) -> list[Line]:
    """The first rows, worse first."""
    return [line(row, comparison.priced is not None) for _, row in shown_rows(comparison).head(most).iterrows()]


def inside(row: Any) -> str:
    """`15: 2 worse, 13 not known`: the verdicts of the cells that a row is made of."""
    parts = ((verdict, int(row[verdict.replace(" ", "_")])) for verdict in ROW_VERDICTS)
    return f"{row['cells']}: " + ", ".join(f"{n} {verdict}" for verdict, n in parts if n)


def counts(verdicts: Iterable[str]) -> dict[str, int]:
    """Verdict of a row -> how many; they sum up to all."""
    found = dict.fromkeys(ROW_VERDICTS, 0)
    for verdict in verdicts:
        found[verdict] += 1
    return found


def cell_counts(comparison: Any) -> dict[str, int]:
    """The same of cells."""
    own = comparison.summary
    judged = {WORSE: own.get("slower", 0), BETTER: own.get("faster", 0), SAME: own.get("same", 0)}
    return {**judged, UNKNOWN: sum(own.values()) - sum(judged.values())}


def counts_sentence(comparison: Any) -> str:
    """`21 rows: 1 worse, 20 not known; 675 cells: 38 same, 637 not known`: the parts are the whole."""
    found = (("row", counts(shown_rows(comparison)["verdict"])), ("cell", cell_counts(comparison)))
    parts = ((plural(sum(n.values()), noun), ", ".join(f"{k} {verdict}" for verdict, k in n.items() if k)) for noun, n in found)
    return "; ".join(f"{whole}: {words}" if words else whole for whole, words in parts)


def phrase(row: Any, priced: bool) -> str:
    """`12 % slower in memory`, `has 5 % less bandwidth`: with its verb where that is not `is`."""
    change = change_text(row, priced)
    if priced:
        return f"does {change} in {quoted(row['quantity'])}"
    if change.endswith(("more", "less")):
        return f"has {change} {quoted(row['quantity'])}"
    return f"is {change} in {quoted(row['quantity'])}"


def sentence(comparison: Any) -> str:
    """For who reads nothing else: what is worse, what is better, and how much of the rest is known to be the same."""
    base, new = side_names(comparison)
    rows, priced = shown_rows(comparison), comparison.priced is not None
    found = counts(rows["verdict"])
    total, open_ = len(rows), found[UNKNOWN]
    if not total or not (rows["change"].notna().any() or comparison.comparisons):
        return f"Nothing of {new} and {base} could be compared: {obstacle(comparison)}."
    rest = f"; {open_} of {total} {'is' if open_ == 1 else 'are'} not known" if open_ else ""
    parts = []
    for verdict in (WORSE, BETTER):
        mine = [row for _, row in rows[rows["verdict"] == verdict].iterrows()]
        if len(mine) <= NAMED:
            parts += [phrase(row, priced) for row in mine]
        else:
            most = f"up to {change_text(mine[0], priced)}: {mine[0]['quantity']}"
            parts.append(f"is {verdict} in {len(mine)} quantities ({most})")
    money = "For the same money, " if priced else ""
    if not parts:
        if not found[SAME]:
            what = "its only quantity is not" if total == 1 else f"none of {total} quantities is"
            return f"{money}{new} is not known to differ from {base}: {what} decided."
        judged = "the one" if found[SAME] == 1 else f"all {found[SAME]}"
        return f"{money}{new} and {base} are equal (within ±{comparison.same * 100:g} %) in {judged} that could be judged{rest}."
    if found[SAME]:
        everything = "everything else" if not open_ else "everything else that could be judged"
        parts.append(f"is equal in {everything} ({found[SAME]} of {total})")
        rest = ""
    else:
        rest = rest and ("; the other one is not known" if open_ == 1 else f"; the other {open_} are not known")
    return f"{money}{new} {joined(parts)}{rest}."


def quoted(name: str) -> str:
    """A name of several parts as one."""
    return f"“{name}”" if "," in name else name


def joined(parts: Sequence[str]) -> str:
    """With commas and `and`, and a verb only where it changes."""
    said, verb = [], ""
    for part in parts:
        own, _, words = part.partition(" ")
        said.append(words if own == verb else part)
        verb = own
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def obstacle(comparison: Any) -> str:
    """Why nothing is compared."""
    if comparison.refused:
        return f"all {len(comparison.refused)} benchmarks are of other kernels"
    if comparison.rows.empty:
        return "they have no benchmark in common"
    reasons = comparison.cells["reasons"].map(lambda codes: codes[0] if codes else "")
    return REASONS.get(next(iter(reasons.mode()), ""), "no cell has enough samples")


def differences(comparison: Any) -> list[str]:
    """`kernel 6.1 → 6.5`: what else differs, facts of many kernels as one."""
    said, many = [], {}
    for what, base, new in comparison.differs:
        _, _, fact = what.partition(" ")
        if fact in ("object hash", "compiler", "flags") or fact.startswith("method "):
            key = (fact, "", "") if fact == "object hash" else (fact.removeprefix("method "), base, new)
            many[key] = many.get(key, 0) + 1
        else:
            said.append(f"{what.replace('_', ' ')} {_short(base)} → {_short(new)}")
    for (fact, base, new), n in many.items():
        said.append(
            f"{plural(n, 'kernel')} built anew" if fact == "object hash" else f"{fact} {_short(base)} → {_short(new)} ({n}×)"
        )
    return said


def _short(text: str, longest: int = 24) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def steps(comparison: Any) -> list[Step]:
    """What would settle what is not known: the more quantities the sooner."""
    rows = comparison.rows[comparison.rows["verdict"] == UNKNOWN]
    profiles = {p for side in (comparison.base_machines, comparison.new_machines) for m in side for p in m["profiles"]}
    if PUBLISHED in profiles:  # nobody measures these again
        return []
    more = ["--profile", profiles.pop()] if len(profiles) == 1 and profiles != {"standard"} else []

    def command(mine: pd.DataFrame, *options: str) -> str:
        names = list(dict.fromkeys(mine["benchmark"]))
        return measure_again(names, *more, *options)

    lead = rows["reasons"].map(lambda codes: next(iter(codes), ""))
    found = []
    processes = rows[rows["processes"].notna()]
    if len(processes):
        most = int(processes["processes"].max())
        found.append(Step(len(processes), "both", f"{most} processes on both", command(processes, "--processes", str(most))))
    visits = rows[rows["visits"].notna()]
    if len(visits):
        most = int(visits["visits"].max())
        found.append(Step(len(visits), "both", f"{most} visits of both", command(visits)))
    far = rows[(lead == "distance").to_numpy()]
    if len(far):
        found.append(Step(len(far), "both", "further visits, as the CPUs lay otherwise", command(far)))
    for side in ("BASE", "NEW"):
        mine = rows[lead.map(lambda code, side=side: MISSING.get(code) == side).to_numpy(dtype=bool)]
        if len(mine):
            found.append(Step(len(mine), side, f"measure on {side}", command(mine)))
    old = rows[lead.isin(OTHER_METHOD).to_numpy()]
    if len(old):
        found.append(Step(len(old), "both", "measure both with one version", command(old)))
    built = rows[lead.isin(BUILDS).to_numpy()]
    if len(built):
        found.append(Step(len(built), "", "compare what was built anew", "--across-builds"))
    return sorted(found, key=lambda step: -step.quantities)


def smallest(comparison: Any) -> dict[str, float] | None:
    """The changes (shares) that four of five such comparisons would find: `median`, `least` and `most` of the rows; None without any."""
    found = shown_rows(comparison)["seen"].dropna()
    return None if found.empty else {"median": float(found.median()), "least": float(found.min()), "most": float(found.max())}


def seen(comparison: Any) -> str:
    """`The smallest change that would likely be seen: 2.5 % in half of the rows (1.1 % to 8.0 %)`."""
    found = smallest(comparison)
    if found is None:
        return "No row has an interval: no change could be seen"
    middle, least, most = (percent(found[name]) for name in ("median", "least", "most"))
    every = f" in half of the rows ({least} to {most})" if least != most else ""
    return f"The smallest change that would likely be seen: {middle}{every}"


def exit_reason(comparison: Any, code: int, gated: Sequence[Any] = ()) -> str:
    """`exit code 1: memory is worse`."""
    if gated:
        failed = [
            f"{g.gate.text} ({', '.join(g.failed[:NAMED])}{'' if len(g.failed) <= NAMED else ' …'})" for g in gated if g.failed
        ]
        if failed:
            return f"exit code {code}: {'; '.join(failed)}"
        if code == 4:
            return f"exit code {code}: nothing that --fail-if names could be compared"
        compared, matched = (sum(getattr(g, name) for g in gated) for name in ("compared", "matched"))
        return f"exit code {code}: none of {compared} compared is beyond what --fail-if allows ({matched} named)"
    if code == 1:
        rows = list(worse(comparison.rows, comparison.least)["quantity"])
        if rows:
            return (
                f"exit code 1: worse in {rows[0]}"
                if len(rows) == 1
                else f"exit code 1: {len(rows)} rows are worse, first {rows[0]}"
            )
        slow = comparison.cells[comparison.cells["verdict"] == "slower"]
        first = f"{slow['benchmark'].iloc[0]} {slow['metric'].iloc[0].replace('_', ' ')}"
        return f"exit code 1: no row is worse, but {plural(len(slow), 'cell')} {'is' if len(slow) == 1 else 'are'} slower ({first}): --cells"
    if code == 4:
        return "exit code 4: nothing could be compared"
    if code == 5:
        return "exit code 5: --require-precision, and not everything is known"
    if comparison.least is not None:
        return f"exit code 0: no row is worse by {percent(comparison.least)} or more"
    return "exit code 0: no cell is slower"


def side_lines(comparison: Any) -> list[str]:
    """`BASE a: AMD EPYC, 2 visits, 2026-11-27`."""
    said = []
    for side, machines in (("BASE", comparison.base_machines), ("NEW ", comparison.new_machines)):
        each = [
            f"{m['alias']}: {m['brand'] or 'processor unknown'}, {plural(len(m['sessions']), 'visit')}, {m['last']}"
            for m in machines
        ]
        more = f"; and {len(each) - 2} machines more" if len(each) > 2 else ""
        said.append(f"{side} {'; '.join(each[:2])}{more}")
    return said


def refusal_line(comparison: Any) -> str:
    """What is not compared, and why: `Another version in contention; built anew and of the same version: the other 12 (--across-builds compares them)`."""
    codes = {
        name: next(iter(codes), "") for name, codes in zip(comparison.rows["benchmark"], comparison.rows["reasons"], strict=True)
    }
    refused = [name for name, _ in comparison.refused]
    built = [name for name in refused if codes.get(name) in BUILDS]
    other = [name for name in refused if name not in built]
    said = [f"Not the same quantity (another version or method): {', '.join(other)}"] if other else []
    if built:
        which = f"the other {len(built)}" if len(built) + len(other) == len(codes) and other else ", ".join(built[:MOST_NAMED])
        which += f" and {len(built) - MOST_NAMED} more" if len(built) > MOST_NAMED and not which.startswith("the other") else ""
        said.append(f"of one version, but built anew: {which} (--across-builds compares them)")
    return f"{'; '.join(said)}." if said else ""


def one_sided(comparison: Any) -> list[str]:
    """Which benchmarks one side has alone."""
    cells, rows = comparison.cells, set(comparison.rows["benchmark"])
    said = []
    for side, column in (("BASE", "base"), ("NEW", "new")):
        has = set(cells.loc[cells[column].notna(), "benchmark"])
        other = set(cells.loc[cells["new" if side == "BASE" else "base"].notna(), "benchmark"])
        if alone := sorted(has - other - rows):
            more = f" and {len(alone) - MOST_NAMED} more" if len(alone) > MOST_NAMED else ""
            said.append(f"Measured on {side} alone: {', '.join(alone[:MOST_NAMED])}{more}")
    return said


def closing_lines(comparison: Any) -> list[str]:
    """How many got which verdict, what is not compared, what else differs, what would settle the rest."""
    found = sorted(differences(comparison), key=lambda fact: ("–" in fact, len(fact)))
    shown = [fact for n, fact in enumerate(found) if sum(len(f) + 2 for f in found[: n + 1]) <= FACTS_WIDTH] or found[:1]
    more = f"; {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    differs = f"Else differs: {'; '.join(shown)}{more}" if found else "Nothing else that was recorded differs"
    told = [
        step for step in steps(comparison) if step.command.startswith("numabench") and not step.what.startswith("measure both")
    ]
    said = [counts_sentence(comparison), *comparison.notes, refusal_line(comparison), *one_sided(comparison), differs]
    return [*filter(None, said), *(f"To settle {step.text}" for step in told[:MOST_STEPS])]


FACTS_WIDTH, MOST_STEPS = 58, 1  # characters of a line that tell of facts
