"""A published matrix of core-to-core latencies as the records of a run log, for the same figures and answers as one's own."""

from __future__ import annotations

import hashlib

import numpy as np

from .. import __version__
from ..model import (
    Answer,
    Axis,
    BenchmarkRecord,
    Card,
    EndRecord,
    Header,
    Metric,
    Picture,
    Record,
    Sample,
    Tile,
    TrialRecord,
    View,
    case_hash,
)
from ..runlog import MINOR, SCHEMA, utc_now
from ..units import format_cpus
from .neighbours import Level, levels, symmetric

NAME = "core_to_core"
PUBLISHED = "published"  # the profile of an imported matrix: one figure a cell, and nothing was asked of it
PAIR = "Between CPUs {cpu_a} and {cpu_b}, the only two, a line takes {value} one way by {operation}"


def matrix_records(
    matrix: list[list[float | None]], alias: str, operation: str, source: str, cpus: tuple[int, ...] | None = None
) -> list[Record]:
    """Records of a log with one trial. A figure of 0 is below what its tool could resolve: it counts as half of the smallest other one, and
    its sample's `extra` says so. `source` is what the header keeps as the command, `cpus` are the CPUs' numbers where they do not count from 0."""
    values = np.array([[np.nan if value is None else value for value in row] for row in matrix])
    least = values[values > 0].min(initial=np.inf) / 2
    found = levels(symmetric(np.where(values == 0, least, values)), tuple(range(len(matrix))))
    order, borders = in_groups(len(matrix), found)
    run = hashlib.sha256(values.tobytes() + alias.encode()).hexdigest()[:12]
    now = utc_now()
    cpus = tuple(range(len(matrix))) if cpus is None else cpus
    order, borders = (tuple(cpus[place] for place in places) for places in (order, borders))
    where = {"operation": operation}
    samples = tuple(
        sample({"cpu_a": cpus[a], "cpu_b": cpus[b], **where}, float(values[a, b]), float(least))
        for a, b in zip(*np.nonzero(np.isfinite(values)), strict=True)
        if a != b
    )
    view = View(
        title=f"One way between CPUs by {operation}",
        metric="latency",
        kind="heatmap",
        x="cpu_b",
        y="cpu_a",
        where=where,
        both=order,
        borders=borders,
    )

    def spread(text: str) -> Answer:
        return Answer(kind="spread", metric="latency", where=where, text=text)

    return [
        Header(
            schema=SCHEMA,
            minor=MINOR,
            run=run,
            session=run,
            started=now,
            numabench=__version__,
            machine={"id": run, "alias": alias, "topology": {"cpus": format_cpus(cpus)}},
            plan={"profile": PUBLISHED, "cases": len(samples)},
            arguments={"command": source},
        ),
        BenchmarkRecord(
            run=run,
            name=NAME,
            title="Core to core (published)",
            question="How long does a cache line take from one CPU to another, and which CPUs are near each other?",
            axes=(
                Axis(name="cpu_a", summary="one CPU: a row", values=tuple(sorted(cpus))),
                Axis(name="cpu_b", summary="the other: a column", values=tuple(sorted(cpus))),
                Axis(name="operation", summary="as in core_to_core", values=(operation,)),
            ),
            metrics=(Metric(name="latency", unit="ns", summary="one way, half of a round trip", polarity="lower"),),
            method={"one way": "half of a round trip", "source": "published"},
            views=(view,),
            answers=(
                Answer(kind="structure", metric="latency", where=where, text="Groups of near CPUs: {value}")
                if len(matrix) > 2
                else Answer(kind="cell", metric="latency", where=dict(samples[0].parameters), text=PAIR),
            ),
            card=Card(
                tiles=(Tile(subject="core to core", answer=spread("a cache line from core to core"), rank=10),),
                pictures=(Picture(view=view, finding=spread("Core to core: {value}"), rank=20),),
            ),
            topic="cores",
            notes=(
                "Published figures: one value for each pair, without placement, intervals or proof; the CPUs are in measured groups.",
            ),
            cases=len(samples),
        ),
        TrialRecord(
            run=run,
            session=run,
            benchmark=NAME,
            block=f"{NAME}/0",
            process=0,
            started=now,
            duration=0.0,
            startup=0.0,
            status="ok",
            samples=samples,
        ),
        EndRecord(run=run, session=run, ended=now, status="complete", measured=0.0, elapsed=0.0),
    ]


def farthest_directions(matrix: list[list[float | None]]) -> tuple[int, int, float] | None:
    """(a, b, share): the pair whose two directions are farthest apart, the slower one by this share of the faster; None where no two differ."""
    values = np.array([[np.nan if value is None else value for value in row] for row in matrix])
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where((values > 0) & (values.T > 0), values / values.T - 1, 0.0)
    np.fill_diagonal(apart, 0.0)
    a, b = np.unravel_index(np.argmax(apart), apart.shape)
    return (int(a), int(b), float(apart[a, b])) if apart[a, b] > 0 else None


def sample(parameters: dict, value: float, least: float) -> Sample:
    return Sample(
        case=case_hash(NAME, parameters),
        index=0,
        parameters=parameters,
        metrics={"latency": value or least},
        valid=True,
        extra={} if value else {"published": 0.0},
    )


def in_groups(count: int, found: list[Level]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(CPUs with those of each group next to each other, from the largest groups down; the first CPU of each group but the first
    of the nearest level whose groups have more than two CPUs)."""

    def place(cpu: int) -> tuple[int, ...]:
        return (*(next(min(group) for group in level.groups if cpu in group) for level in reversed(found)), cpu)

    order = tuple(sorted(range(count), key=place))
    coarse = [level for level in found if level.size > 2]
    firsts = [next(cpu for cpu in order if cpu in group) for group in coarse[0].groups] if coarse else []
    return order, tuple(cpu for cpu in firsts if cpu != order[0])
