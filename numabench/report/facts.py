"""What a run log says about machines, design and provenance, in words and rows for a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.bands import Band, interrupt_bands
from ..analysis.card import looked_at, usual_clock
from ..analysis.published import PUBLISHED
from ..analysis.selftest import SelfTest, newest
from ..runlog.read import RunLog
from ..text import in_shell
from ..units import count_cpus, format_bytes, format_seconds

if TYPE_CHECKING:
    import pandas as pd

#: Configuration that moves memory figures, with what a newcomer should know; shown first, in this order.
TELLING = {
    "hypervisor": "a virtual machine shares its cores and caches with others and does not see where it runs",
    "kernel": "",
    "governor": "anything but “performance” lets the clock ramp",
    "turbo": "",
    "thp_enabled": "transparent huge pages change what address translation costs",
    "numa_balancing": "1 moves pages between nodes while they are measured",
    "smt_control": "",
    "nodes_per_package": "NPS or SNC mode",
    "microcode": "",
    "mitigations": "",
    "clocksource": "",
    "seccomp_filters": "each is part of every system call",
    "scheduling": "",
    "timer_slack_ns": "by how much sleeping may be late",
    "compiler": "",
}


def words(name: str) -> str:
    return name.replace("_", " ")


def fact_text(value: Any) -> str:
    """A configuration value as text: nothing is `not known`, mappings and lists are joined."""
    if value is None or value == "":
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {fact_text(v)}" for k, v in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "; ".join(map(fact_text, value)) or "none"
    return str(value)


def machine_facts(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Rows for one machine: summary, the configuration that matters, the rest, warnings. Survives facts it does not know."""
    configuration = dict(machine.get("configuration") or {})
    telling = [
        (words(k), fact_text(configuration[k]), note) for k, note in TELLING.items() if configuration.get(k) not in (None, "", {})
    ]
    rest = [
        (words(k), fact_text(v))
        for k, v in configuration.items()
        if k not in dict(TELLING) or (configuration.get(k) in (None, "", {}))
    ]
    condition = machine.get("condition") or {}
    rest += [(words(k), fact_text(v)) for k, v in condition.items() if k != "modules" and v not in (None, "", {}, [])]
    topology = machine.get("topology") or {}
    warnings = [
        *(machine.get("warnings") or ()),
        *(topology.get("warnings") or () if isinstance(topology, Mapping) else ()),
        *(machine.get("health") or ()),
    ]
    return {
        "alias": str(machine.get("alias", "unknown")),
        "id": str(machine.get("id", "unknown")),
        "brand": str(machine.get("brand") or "unknown processor"),
        "topology": topology_rows(topology, machine.get("hardware") or {}),
        "telling": telling,
        "rest": rest,
        "digests": (machine.get("hardware_key"), machine.get("configuration_key")),
        "warnings": list(dict.fromkeys(_warning(w) for w in warnings if _matters(w))),
    }


def _matters(finding: Any) -> bool:
    return not (isinstance(finding, Mapping) and finding.get("severity") in ("ok", "note"))


def _warning(finding: Any) -> str:
    if not isinstance(finding, Mapping):
        return str(finding)
    what = finding.get("text") or finding.get("what") or finding.get("name") or ""
    return ". ".join(str(p) for p in (what, finding.get("why"), finding.get("fix")) if p)


def topology_rows(topology: Mapping[str, Any], hardware: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Processors, caches, nodes and memory as (name, text)."""
    rows = []
    cpus = count_cpus(topology.get("cpus"))
    counts = [(len(topology.get(k) or ()), one) for k, one in (("packages", "package"), ("cores", "core"))]
    parts = [f"{n} {one}{'s' if n != 1 else ''}" for n, one in counts if n] + (
        [f"{cpus} CPU{'s' if cpus != 1 else ''}"] if cpus else []
    )
    smt = topology.get("smt")
    parts += (
        [f"{smt} hardware threads per core" if smt > 1 else "one hardware thread per core"]
        if isinstance(smt, int) and smt
        else []
    )
    if parts:
        rows.append(("processors", ", ".join(parts)))
    allowed = topology.get("allowed_cpus")
    if allowed and allowed != topology.get("cpus"):
        rows.append(("CPUs allowed", f"{allowed} (of {topology.get('cpus')})"))
    caches = Counter(
        (c.get("level"), c.get("type"), c.get("size_bytes"), c.get("line_bytes"), count_cpus(c.get("cpus")))
        for c in topology.get("caches") or ()
        if isinstance(c, Mapping)
    )
    if caches:
        rows.append(
            ("caches", "; ".join(_cache(*key, number) for key, number in sorted(caches.items(), key=lambda i: str(i[0]))))
        )
    nodes = [n for n in topology.get("nodes") or () if isinstance(n, Mapping)]
    if nodes:
        rows.append(("NUMA nodes", f"{len(nodes)}: " + "; ".join(map(_node, nodes[:8])) + (" …" if len(nodes) > 8 else "")))
    elif hardware.get("memory_gib"):
        rows.append(("memory", f"{hardware['memory_gib']} GiB"))
    return rows


def _node(node: Mapping[str, Any]) -> str:
    size = node.get("memory_bytes")
    memory = format_bytes(size) if size else "no memory" if size == 0 else "memory not known"
    return f"node {node.get('id')}: {memory}, " + (f"CPUs {node['cpus']}" if node.get("cpus") else "no CPUs")


def _cache(level: Any, kind: Any, size: Any, line: Any, shared: int, number: int) -> str:
    name = f"L{level}{' ' + str(kind).lower() if kind and str(kind).lower() != 'unified' else ''}"
    return (
        f"{number} × {name} {format_bytes(size) if size else 'of unknown size'}"
        + (f", lines of {line} B" if line else "")
        + (f", shared by {shared} CPUs" if shared > 1 else "")
    )


def design(log: RunLog, frame: pd.DataFrame, estimates: pd.DataFrame, target: float) -> dict[str, Any]:
    """What was asked and how far it was reached: counts over first metrics, since the metrics of a sample share its fate."""
    first = {(b.name, b.metrics[0].name) for b in log.benchmarks if b.metrics}
    keep = [key in first for key in zip(estimates["benchmark"], estimates["metric"], strict=True)]
    cells = estimates[np.array(keep, dtype=bool) & estimates["main"].to_numpy(dtype=bool)]
    reached = cells["half_width"] <= target
    why: Counter[str] = Counter()
    for reasons in cells.loc[~reached, "reasons"]:
        why[
            "the value depends on disturbed samples"
            if "disturbed" in reasons
            else "over a fifth of the samples failed a proof"
            if "failed_proofs" in reasons
            else "fewer than five processes were run"
            if "few_processes" in reasons
            else "the processes differ too much for so few of them"
        ] += 1
    samples = looked_at(frame)
    invalid = samples.loc[~samples["calm"], "reasons"]
    failed = [t for t in log.trials if t.status == "failed"]
    ends = {(e.run, e.session): e for e in log.ends}
    visits = []
    for header in sorted(log.headers, key=lambda h: h.started):
        end, trials = ends.get((header.run, header.session)), [t for t in log.trials if t.run == header.run]
        published = header.plan.get("profile") == PUBLISHED  # how long that took is not known
        visits.append(
            {
                "header": header,
                "alias": header.machine.get("alias", "unknown"),
                "profile": header.plan.get("profile", "–"),
                "budget": _budget(header.plan),
                "trials": len(trials),
                "status": end.status if end else "cut short (no end record)",
                "elapsed": "–"
                if published
                else format_seconds(end.elapsed)
                if end
                else format_seconds(sum(t.duration for t in trials)),
                "measured": "–" if published else format_seconds(end.measured if end else sum(t.measured for t in trials)),
            }
        )
    counts = sorted(set(cells["processes"].astype(int)))
    return {
        "cells": len(cells),
        "reached": int(reached.sum()),
        "target": target,
        "published": all(h.plan.get("profile") == PUBLISHED for h in log.headers),
        "why": why.most_common(),
        "visits": visits,
        "sessions": len({(h.run, h.session) for h in log.headers}),
        "processes": _range(counts),
        "samples": len(samples),
        "trials": len(log.trials),
        "disturbed": len(invalid) / len(samples) if len(samples) else 0.0,
        "invalid": len(invalid),
        "clocks": list(dict.fromkeys(filter(None, (usual_clock(own) for _, own in samples.groupby("machine_id"))))),
        "taken_off": int((samples["calm"] & ~samples["valid"].astype(bool)).sum()),
        "disturbances": Counter(r for text in invalid for r in (str(text).split() or ["no reason recorded"])).most_common(6),
        "failed": len(failed),
        "failures": Counter(r for t in failed for r in t.reasons or ("no reason recorded",)).most_common(6),
    }


def self_tests(log: RunLog) -> list[SelfTest]:
    """The last self-test of each machine, where the logs lie in a folder of results that has one."""
    places = {(Path(path).resolve().parent.parent, str(h.machine.get("alias", ""))) for path in log.paths for h in log.headers}
    found = (newest(folder, alias) for folder, alias in sorted(places) if alias)
    return [each for each in found if each is not None]


def interrupts(log: RunLog) -> list[tuple[str, list[Band]]]:
    """Prices that must agree, by the machine's name."""
    headers = log.by_machine()
    return [(headers[machine][-1].alias, bands) for machine, bands in interrupt_bands(log).items() if machine in headers]


def _range(values: list[int]) -> str:
    return "0" if not values else str(values[0]) if values[0] == values[-1] else f"{values[0]}–{values[-1]}"


def _budget(plan: Mapping[str, Any]) -> str:
    value = plan.get("budget", plan.get("budget_seconds"))
    return format_seconds(value) if isinstance(value, (int, float)) else str(value) if value else "–"


def footer(log: RunLog) -> dict[str, Any]:
    """Versions, runs, and the commands that measure and render the same again."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("numabench")
    except PackageNotFoundError:
        installed = "not installed as a package"
    return {
        "measured_with": sorted({h.numabench for h in log.headers}),
        "rendered_with": installed,
        "runs": sorted({h.run for h in log.headers}),
        "paths": log.paths,
        "commands": list(dict.fromkeys(run_command(h.arguments, h.plan) for h in log.headers)),
        "render": in_shell("numabench", "report", *log.paths),
    }


def run_command(arguments: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """The recorded command line; without one, what the plan implies."""
    recorded = arguments.get("command") or arguments.get("argv")
    if isinstance(recorded, (list, tuple)):
        return in_shell(*recorded)
    return str(recorded) if recorded else in_shell("numabench", "run", "--profile", plan.get("profile", "standard"))
