"""Run logs as tidy tables: one row per sample and metric."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MachineError, UsageError
from ..files import write_whole
from ..model import Metric
from ..units import format_cpus
from .columns import COLUMNS, DETAILS
from .read import RunLog

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "json", "parquet")
EACH = ("metric", "value", "unit", "polarity", "least", "most")  # columns that the metrics of a sample do not share
UNKNOWN = Metric(name="", unit="", polarity="", least=None)  # of which a log says nothing


@lru_cache(maxsize=4096)
def pinned_to(cpus: tuple[int, ...]) -> str:
    """The CPUs of a sample's threads in words, the least first."""
    return format_cpus({*cpus})


def samples(log: RunLog, benchmark: str | None = None) -> pd.DataFrame:
    """Tidy samples: `COLUMNS`, then one column per parameter, then `DETAILS`.

    `process` numbers a case's processes within its session; `cpus` are those that its threads were pinned to (`0-3`); `hop_ns` is the one-way CAS hop measured around the
    sample (mean of before and after; NaN with one thread) and `core_width` how many independent operations a cycle the
    widest thread had; `least` and `most` are what the metric's values cannot leave (NaN: there is no end); `reasons` says why a sample is not `valid`.
    Parameters that a benchmark does not have are empty (NaN or None).
    """
    import numpy as np
    import pandas as pd

    descriptors = {(b.run, b.name): b for b in log.benchmarks}
    machines = {h.run: h.machine for h in log.headers}
    taken, many, measured = [], [], []  # of each sample what its metrics share, and how many they are; of each metric its own
    parameters: dict[str, None] = {}
    for trial in log.trials:
        if benchmark is not None and trial.benchmark != benchmark:
            continue
        descriptor = descriptors.get((trial.run, trial.benchmark))
        metrics = {m.name: m for m in descriptor.metrics} if descriptor else {}
        machine = machines.get(trial.run, {})
        for sample in trial.samples:
            parameters.update(dict.fromkeys(sample.parameters))
            if not sample.metrics:
                continue
            shared = {
                "run": trial.run,
                "machine": machine.get("alias", "unknown"),
                "machine_id": machine.get("id", "unknown"),
                "benchmark": trial.benchmark,
                "session": trial.session,
                "block": trial.block,
                "process": trial.process,
                "sample": sample.index,
                "case": sample.case,
                "valid": sample.valid,
                "reasons": " ".join(sample.reasons),
                "cpus": pinned_to(tuple(thread.cpu for thread in sample.threads)),
                "hop_ns": sum(sample.hop) / 2 * 1e9 if sample.hop else float("nan"),
                "core_width": sum(sample.width) / 2 if sample.width else float("nan"),
                "frequency_ghz": sum(sample.frequency) / 2 / 1e9 if sample.frequency else float("nan"),
                **sample.parameters,
            }
            taken.append(shared)
            many.append(len(sample.metrics))
            for name, value in sample.metrics.items():
                metric = metrics.get(name, UNKNOWN)
                measured.append((name, value, metric.unit, metric.polarity, *metric.range))
    every = [*COLUMNS, *parameters, *DETAILS]
    each = pd.DataFrame(measured, columns=[*EACH])
    shared_by = pd.DataFrame(taken, columns=[name for name in every if name not in EACH])
    frame = shared_by.take(np.repeat(np.arange(len(taken)), many)).reset_index(drop=True)
    frame = pd.concat([frame, each], axis=1)[every]
    return frame.astype({name: frame[name].convert_dtypes().dtype for name in parameters})  # whole numbers stay whole


def one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with columns that hold words here and numbers there (a parameter of two benchmarks), or numbers of more than 64 bits, as words: parquet
    has one kind a column."""

    def kind(value: object) -> str:
        return (
            "words"
            if isinstance(value, str)
            else "large"
            if isinstance(value, int) and not -(2**63) <= value < 2**63
            else "other"
        )

    mixed = [
        name
        for name in frame
        if frame[name].dtype == object and {*frame[name].dropna().map(kind)} not in ({"words"}, {"other"}, set())
    ]
    return frame.assign(**{name: frame[name].map(str, na_action="ignore") for name in mixed})


def write_table(frame: pd.DataFrame, form: str, target: Path | None) -> str | None:
    """`frame` as csv, json (records) or parquet to `target`; text is returned when there is no target."""
    if form not in FORMATS:
        raise UsageError(f"unknown format {form!r}", f"choose one of {', '.join(FORMATS)}")
    if form == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise MachineError("parquet needs pyarrow, which is not installed", "pip install 'numabench[fleet]'") from error
        if target is None:
            raise UsageError("parquet is binary and needs a file", "add --output FILE.parquet")
        content = io.BytesIO()
        one_kind(frame).to_parquet(content, index=False)
        write_whole(target, content.getvalue())
        return None
    text = frame.to_csv(index=False) if form == "csv" else frame.to_json(orient="records", lines=False, indent=1)
    if target is None:
        return text
    write_whole(target, text)
    return None
