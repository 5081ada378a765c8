"""Translation on a machine with a small TLB: what each level reaches and costs, small and huge pages, and what the order of a chase makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numabench
from numabench.analysis.answers import answers

from ..expected import translation as expected
from ..judgement import Finding
from ..machine import Machine, load_machine
from ..visits import measure

NAME = "translation"
FILE = Path(__file__).with_name("translation.toml")
LINES = (16, 64, 192, 3072, 6144)  # none nearly as many as a level holds, where the benchmark's own few pages decide what is left
SIZE = 8 << 20  # bytes: 2,048 small pages or four huge ones, in 32 groups
PAGE_SIZES = ("4k", "thp")
ORDERS = ("group", "random")
PROCESSES = 6  # an order each; fewer, and the report says nothing of a contrast
TOLERANCE = 0.01
BEYOND = 0.1  # of a load in a level: it costs more where that level does not hold all pages
SIGMAS = 3.0  # of chance, where random orders of few pages differ in what they find
#: Of memory_latency one case of each order and page; of tlb_latency all lines in both layouts.
WORDS = (
    *("run", "tlb_latency", "memory_latency", "--set", f"lines={','.join(map(str, LINES))}", "--set", f"size={SIZE}"),
    *("--set", f"order={','.join(ORDERS)}", "--set", f"page_size={','.join(PAGE_SIZES)}", "--set", "chains=1", "--set", "laps=1"),
    *("--window", "500us", "--samples", "1", "--processes", str(PROCESSES), "--budget", "20m"),
)
KERNELS = ("memory_latency", "sentinel", "crew")
READ = "all page tables read"


@dataclass(frozen=True)
class KnownTranslation:
    of: Machine
    name: str = NAME
    boots: int = 1
    uses: tuple[str, ...] = ("tlb_latency", "memory_latency")

    @property
    def summary(self) -> str:
        return (
            f"{self.of.summary} (testbed/known/{FILE.name}). `tlb_latency` and two orders of `memory_latency` with small and huge pages: figures within "
            f"{TOLERANCE:.0%} and {SIGMAS:g} standard deviations of what random orders make of them"
        )

    def certify(self, shared: Path, tree: Path, step: Callable[[str], None], done: Callable[[], None]) -> list[Finding]:
        step(f"{self.name}: measuring")
        found, logs = measure(self.of, {"results": WORDS}, shared, tree, KERNELS, line_sizes=(64,))
        done()
        unread = found.statistics.get("unread", 0) if found.statistics.get("walks") else "no walk"
        said = READ if unread == 0 else f"{unread} not read"
        return [Finding(NAME, "page walks", "", READ, said), *judge(self.of, logs["results"])]


def known() -> KnownTranslation:
    return KnownTranslation(load_machine(FILE))


def judge(machine: Machine, log: Path) -> list[Finding]:
    """Every figure of the run, the pages that were obtained, and the reach of each level."""
    visit = numabench.load(log)
    rows = visit.estimates()
    rows = rows[rows["main"] & (rows["metric"] == "latency")]
    findings = [obtained(visit.log, page_size) for page_size in PAGE_SIZES]
    for page_size in PAGE_SIZES:
        for layout in ("packed", "spread"):
            for lines in LINES:
                wanted, chance = expected.tlb_latency(machine, lines, layout, page_size)
                where = {"lines": lines, "layout": layout, "page_size": page_size}
                findings.append(figure(rows, "tlb_latency", where, wanted, chance))
        findings += reaches(machine, rows, page_size)
        for order in ORDERS:
            where = {"size": SIZE, "order": order, "page_size": page_size}
            findings.append(figure(rows, "memory_latency", where, expected.memory_latency(machine, SIZE, order, page_size), 0.0))
        findings.append(difference(machine, rows, page_size))
        findings += report(machine, visit.log, page_size)
    return findings


def obtained(log, page_size: str) -> Finding:
    """Whether all measured memory had pages of the size that was asked for, of what is large enough for one."""
    proofs = [s.memory for trial in log.trials for s in trial.samples if s.parameters["page_size"] == page_size]
    shares = {proof.huge_bytes / proof.bytes for proof in proofs if proof.bytes >= expected.BYTES["2M"]}
    wanted = "all huge" if page_size == "thp" else "all small"
    found = {(1.0,): "all huge", (0.0,): "all small"}.get(tuple(shares), f"shares of huge pages {sorted(shares)}")
    return Finding(NAME, "pages obtained", page_size, wanted, found)


def selected(rows, benchmark: str, where: dict) -> list:
    rows = rows[(rows["benchmark"] == benchmark) & rows["value"].notna()]
    return [row for _, row in rows.iterrows() if all(row.get(name) == value for name, value in where.items())]


def figure(rows, benchmark: str, where: dict, wanted: float, chance: float) -> Finding:
    """A latency, which may be off by the tolerance and by chance."""
    found, slack = selected(rows, benchmark, where), slack_of(wanted, chance)
    place = ", ".join(f"{value}" if name != "lines" else f"{value} lines" for name, value in where.items())
    if len(found) != 1:
        return Finding(NAME, benchmark, place, wanted, "no valid sample", slack, unit="ns")
    (row,) = found
    return Finding(NAME, benchmark, place, wanted, float(row["value"]), slack, float(row["low"]), float(row["high"]), "ns")


def difference(machine: Machine, rows, page_size: str) -> Finding:
    """What `random` costs more than `group`: translation alone. Each of the two may be off by the tolerance."""
    wanted = [expected.memory_latency(machine, SIZE, order, page_size) for order in ORDERS]
    cells = [selected(rows, "memory_latency", {"size": SIZE, "order": order, "page_size": page_size}) for order in ORDERS]
    found = float(cells[1][0]["value"] - cells[0][0]["value"]) if all(len(cell) == 1 for cell in cells) else "no valid sample"
    return Finding(NAME, "random - group", page_size, wanted[1] - wanted[0], found, TOLERANCE * max(wanted), unit="ns")


def reaches(machine: Machine, rows, page_size: str) -> list[Finding]:
    """The most lines at which a load costs no more than a hit in each level does: the last one of the sweep that the level holds."""
    findings = []
    for level, (pages, price) in enumerate(expected.levels(machine, page_size), 1):
        cells = {
            lines: selected(rows, "tlb_latency", {"lines": lines, "layout": "spread", "page_size": page_size}) for lines in LINES
        }
        within = [lines for lines, cell in cells.items() if len(cell) == 1 and cell[0]["value"] <= (1 + BEYOND) * price]
        findings.append(
            Finding(NAME, f"reach of level {level}", page_size, f"{most_within(pages)} lines", f"{max(within, default=0)} lines")
        )
    return findings


def report(machine: Machine, log, page_size: str) -> list[Finding]:
    """What the report says: with how many pages translation is free, and what it costs with the most."""
    record = next((record for record in log.benchmarks if record.name == "tlb_latency"), None)
    said = [answer for answer in answers(log) if answer.benchmark == "tlb_latency"]
    asked = [(answer.kind, answer.where["page_size"]) for answer in (record.answers if record else ())]
    values = {key: answer.value for key, answer in zip(asked, said, strict=True)}
    (pages, _), *_ = expected.levels(machine, page_size)
    free, cost = values.get(("reach", page_size), math.nan), values.get(("difference", page_size), math.nan)
    (spread, chance), (packed, _) = (
        expected.tlb_latency(machine, LINES[-1], layout, page_size) for layout in ("spread", "packed")
    )
    return [
        Finding(NAME, "report: free up to", page_size, f"{most_within(pages)} pages", f"{free:g} pages"),
        Finding(NAME, "report: cost of translation", page_size, spread - packed, cost, slack_of(spread, chance), unit="ns"),
    ]


def most_within(pages: int) -> int:
    """The last number of lines of the sweep that so many pages hold."""
    return max(lines for lines in LINES if lines <= pages)


def slack_of(wanted: float, chance: float) -> float:
    """Orders differ by `chance`: those that were measured, and those that were played."""
    return TOLERANCE * wanted + SIGMAS * chance * (1 / PROCESSES + 1 / expected.SEEDS) ** 0.5
