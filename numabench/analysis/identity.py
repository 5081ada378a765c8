"""What may be compared at all, and what else differs: everything that a run log says about who measured, how and where.

Refused always: another kernel version, unit, polarity, parameter set or method. Refused on one and the same machine, shown
between machines: the kernel's object, compiler, flags and the clock source (METHODOLOGY: what may be compared).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..model import ALPHA, BenchmarkRecord, KernelFacts
from ..runlog.read import RunLog

Difference = tuple[str, str, str]  # what, in base, in new

#: A method's entries that belong to the machine rather than to the quantity that is measured.
MACHINE_BOUND_FACTS = frozenset(("clock", "clock_source", "clocksource"))
INSTRUCTIONS = "instructions"  # what atomic operations are made of: `architecture: variant`
MACHINE_BOUND_METHOD = MACHINE_BOUND_FACTS | {INSTRUCTIONS}
#: Facts of a machine that never say what it is: names, digests of facts shown one by one, and what changes by itself.
NOT_IDENTITY = frozenset(
    (
        "id",
        "alias",
        "hostname",
        "hardware_key",
        "configuration_key",
        "topology",
        "marks",
        "shared_id",
        "modules",  # summed up in memory_modules
        "memory_errors",
        "throttled",
        "warnings",
        "uptime",
        "load",
        "load_average",
        "clock_jitter",
        "time",
        "memory_available",
        "memory_free",
        "free_memory",
    )
)
PARTS = re.compile(r"^(?:configuration|hardware|condition)\.")  # of a machine's facts, which need not be said
HUGE_SHARE = 0.95  # of the bytes, as for every proof of placement (METHODOLOGY: below 95 % a trial is not valid)


def _text(values: Iterable[Any]) -> str:
    """Several values of one side as text, `–` for none."""
    return ", ".join(sorted({"–" if v is None else str(v) for v in values})) or "–"


def flatten(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts with dotted names, without those that are no part of a machine's identity."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if name in NOT_IDENTITY:
            continue
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def machine_ids(log: RunLog) -> frozenset[str]:
    return frozenset(h.machine_id for h in log.headers)


def machines(log: RunLog) -> list[dict[str, Any]]:
    """One entry per machine of a side: id, alias, brand, sessions, runs, profiles, last (day of the last visit), in order of appearance."""
    found: dict[str, dict[str, Any]] = {}
    for header in log.headers:
        name = header.machine_id
        entry = found.setdefault(
            name,
            {
                "id": name,
                "alias": header.machine.get("alias", "unknown"),
                "brand": header.machine.get("brand", ""),
                "sessions": [],
                "runs": [],
                "profiles": [],
                "last": "",
            },
        )
        entry["sessions"] = [*dict.fromkeys([*entry["sessions"], header.session])]
        entry["runs"] = [*dict.fromkeys([*entry["runs"], header.run])]
        entry["profiles"] = [*dict.fromkeys([*entry["profiles"], str(header.plan.get("profile"))])]
        entry["last"] = max(entry["last"], header.started[:10])
    return list(found.values())


def other_differences(base: RunLog, new: RunLog) -> list[Difference]:
    """What else differs between the sides, apart from what was measured: facts, versions, profile, kernels' objects."""
    sides = []
    for log in (base, new):
        facts: dict[str, set[str]] = {}
        for header in log.headers:
            entries = {"numabench": header.numabench, "profile": header.plan.get("profile"), **flatten(header.machine)}
            for name, value in entries.items():
                facts.setdefault(PARTS.sub("", name), set()).add(_text([value]))
        for benchmark in log.benchmarks:
            for name, value in {**_kernel_facts(benchmark.kernel), **_bound_method(benchmark)}.items():
                facts.setdefault(f"{benchmark.name} {name}", set()).add(_text([value]))
        sides.append(facts)
    rows = [
        (name, _text(sides[0].get(name, ())), _text(sides[1].get(name, ()))) for name in dict.fromkeys([*sides[0], *sides[1]])
    ]
    return [row for row in rows if row[1] != row[2]]


def _kernel_facts(kernel: KernelFacts | None) -> dict[str, Any]:
    return {} if kernel is None else {"object hash": kernel.object_hash, "compiler": kernel.compiler, "flags": kernel.flags}


def _bound_method(benchmark: BenchmarkRecord) -> dict[str, Any]:
    return {f"method {k}": v for k, v in benchmark.method.items() if k in MACHINE_BOUND_METHOD}


def _quantity(benchmark: BenchmarkRecord) -> dict[str, Any]:
    """What makes two results of a benchmark the same quantity, by reason."""
    return {
        "kernel version": None if benchmark.kernel is None else (benchmark.kernel.name, benchmark.kernel.version),
        "parameter set": tuple(sorted(a.name for a in benchmark.axes)),
        "method": {k: v for k, v in benchmark.method.items() if k not in MACHINE_BOUND_METHOD},
    }


def quantity_text(benchmark: BenchmarkRecord) -> str:
    """Two results of one name are the same quantity where this is the same."""
    return msgspec.json.encode(_quantity(benchmark), order="sorted").decode()


def _say(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in sorted(value.items())) or "none"
    return " ".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


def _disagreement(name: str, base: list[Any], new: list[Any]) -> str | None:
    """`kernel version: foo 1 against foo 2` unless both sides say one and the same."""
    sides = [list({msgspec.json.encode(v, order="sorted"): v for v in side}.values()) for side in (base, new)]
    encoded = [sorted(msgspec.json.encode(v, order="sorted") for v in side) for side in sides]
    if encoded[0] == encoded[1] and len(encoded[0]) == 1:
        return None
    left, right = (" and ".join(sorted(map(_say, side))) for side in sides)
    return f"{name}: {left} against {right}" if left != right else f"{name}: each side mixes {left}"


def refusals(base: RunLog, new: RunLog, across_builds: bool = False) -> list[tuple[str, str]]:
    """(benchmark, reason) for each benchmark of both sides whose results are not the same quantity; all reasons in one. `across_builds`: another
    object of a kernel of the same version is none."""
    shared_machines = machine_ids(base) & machine_ids(new)
    refused = []
    for name in dict.fromkeys(b.name for b in base.benchmarks):
        left, right = ([b for b in log.benchmarks if b.name == name] for log in (base, new))
        if not right:
            continue
        found = [
            _disagreement(key, [_quantity(b)[key] for b in left], [_quantity(b)[key] for b in right])
            for key in _quantity(left[0])
        ]
        found += [*_metric_disagreements(left, right), _instructions_disagreement(left, right)]
        if ALPHA in {b.phase for b in (*left, *right)}:
            found.append(
                _disagreement("alpha, of numabench", *(_written_by(log, side) for log, side in ((base, left), (new, right))))
            )
        for machine in sorted(shared_machines):
            bound = [
                [_bound_facts(log, b, across_builds) for b in side if _machine_of(log, b) == machine]
                for log, side in ((base, left), (new, right))
            ]
            if len({facts.get("object hash") for side in bound for facts in side}) == 1:  # one object, whoever compiled it
                bound = [[{k: v for k, v in facts.items() if k not in ("compiler", "flags")} for facts in side] for side in bound]
            if all(bound):
                found += [
                    _disagreement(f"{key} on the same machine", [f.get(key) for f in bound[0]], [f.get(key) for f in bound[1]])
                    for key in dict.fromkeys(k for side in bound for f in side for k in f)
                ]
        reasons = [*dict.fromkeys(filter(None, found))]
        if reasons:
            refused.append((name, "; ".join(reasons)))
    return refused


def reason_codes(reason: str) -> list[str]:
    """`kernel_version`, `unit`, `object_hash` ... of a text from `refusals`."""
    names = (part.split(":")[0].split(" of ")[0].split(" on ")[0] for part in reason.split("; "))
    return [*dict.fromkeys(name.replace(" ", "_") for name in names)]


def _metric_disagreements(left: list[BenchmarkRecord], right: list[BenchmarkRecord]) -> list[str | None]:
    """Unit and polarity of every metric that both sides have."""
    found = []
    metrics = [{m.name for b in side for m in b.metrics} for side in (left, right)]
    for metric in sorted(metrics[0] & metrics[1]):
        for key in ("unit", "polarity"):
            values = [[getattr(m, key) for b in side for m in b.metrics if m.name == metric] for side in (left, right)]
            found.append(_disagreement(f"{key} of {metric}", *values))
    return found


def _instructions_disagreement(left: list[BenchmarkRecord], right: list[BenchmarkRecord]) -> str | None:
    """Two variants of one architecture are two methods; what two architectures have is theirs, and a log that does not say is not held against."""
    sides: list[dict[str, set[str]]] = [{}, {}]
    for side, records in zip(sides, (left, right), strict=True):
        for said in (str(b.method[INSTRUCTIONS]) for b in records if INSTRUCTIONS in b.method):
            side.setdefault(said.partition(":")[0], set()).add(said)
    unlike = [name for name in sorted({*sides[0]} & {*sides[1]}) if len(sides[0][name] | sides[1][name]) > 1]
    found = (
        _disagreement(
            "method", [{INSTRUCTIONS: v} for v in sorted(sides[0][name])], [{INSTRUCTIONS: v} for v in sorted(sides[1][name])]
        )
        for name in unlike
    )
    return next(found, None)


def _written_by(log: RunLog, records: list[BenchmarkRecord]) -> list[Any]:
    return [header.numabench for header in log.headers if header.run in {b.run for b in records}]


def _machine_of(log: RunLog, benchmark: BenchmarkRecord) -> str:
    return next((h.machine_id for h in log.headers if h.run == benchmark.run), "unknown")


def _bound_facts(log: RunLog, benchmark: BenchmarkRecord, across_builds: bool) -> dict[str, Any]:
    """What one machine must keep for two of its own results to be comparable."""
    facts = {**({} if across_builds else _kernel_facts(benchmark.kernel)), **_bound_method(benchmark)}
    facts.pop(f"method {INSTRUCTIONS}", None)  # unlike ones are refused on all machines, and a log need not name them
    for header in log.headers:
        if header.run == benchmark.run:
            facts |= {k: v for k, v in flatten(header.machine).items() if k.rsplit(".", 1)[-1] in MACHINE_BOUND_FACTS}
    return facts


def page_kinds(log: RunLog) -> dict[tuple[str, str], frozenset[str]]:
    """(benchmark, case) -> pages that the valid samples really had: `4096`, `4096+huge` or `4096+mixed`."""
    found: dict[tuple[str, str], set[str]] = {}
    for trial in log.trials:
        for sample in trial.samples:
            memory = sample.memory
            if memory is None or not sample.valid or memory.bytes <= 0 or memory.huge_bytes is None:
                continue  # a kernel that does not say which pages were huge is held against none
            share = memory.huge_bytes / memory.bytes
            kind = "+huge" if share >= HUGE_SHARE else "" if share <= 1 - HUGE_SHARE else "+mixed"
            found.setdefault((trial.benchmark, sample.case), set()).add(f"{memory.page_bytes}{kind}")
    return {key: frozenset(kinds) for key, kinds in found.items()}


def failed_benchmarks(log: RunLog) -> frozenset[str]:
    """Benchmarks of which a trial failed."""
    return frozenset(t.benchmark for t in log.trials if t.status == "failed")
