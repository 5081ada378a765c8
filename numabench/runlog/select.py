"""Part of a log's tables by name. A name that is mistyped is an error that says what it should be: an empty table would look like an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from ..model import Value
from ..text import near
from .read import RunLog

if TYPE_CHECKING:
    import pandas as pd


def check_benchmark(log: RunLog, name: str) -> None:
    """Raises UsageError unless the logs hold benchmark `name`."""
    known = sorted({b.name for b in log.benchmarks} | {t.benchmark for t in log.trials})
    if name not in known:
        raise UsageError(
            f"there is no benchmark {name!r} in these logs{near(name, known)}",
            f"choose one of {', '.join(known) or 'none: the logs hold no benchmark'}",
        )


def check_metric(log: RunLog, name: str, benchmark: str | None) -> None:
    """Raises UsageError unless `benchmark` (None: any in the logs) has metric `name`."""
    known = dict.fromkeys(m.name for b in log.benchmarks if benchmark in (None, b.name) for m in b.metrics)
    if name not in known:
        whose = f"{benchmark} has no metric {name!r}" if benchmark else f"there is no metric {name!r} in these logs"
        raise UsageError(f"{whose}{near(name, known)}", f"choose one of {', '.join(known)}")


def check_parameters(log: RunLog, where: dict[str, Value], benchmark: str | None) -> None:
    """Raises UsageError unless `benchmark` (None: any in the logs) has these parameters and was measured at each of the values."""
    axes: dict[str, dict[Value, None]] = {}
    for record in log.benchmarks:
        for axis in record.axes if benchmark in (None, record.name) else ():
            axes.setdefault(axis.name, {}).update(dict.fromkeys(axis.values))
    for name, value in where.items():
        whose = benchmark or "no benchmark in these logs"
        if name not in axes:
            said = f"{whose} has no parameter {name!r}" if benchmark else f"{whose} has a parameter {name!r}"
            raise UsageError(f"{said}{near(name, axes)}", f"choose among {', '.join(axes) or 'none: there are no parameters'}")
        if value not in axes[name]:
            measured = list(map(str, axes[name]))
            raise UsageError(
                f"{name}={value!r} was not measured{near(str(value), measured) if isinstance(value, str) else ''}",
                f"choose among {', '.join(measured)}",
            )


def narrowed(
    frame: pd.DataFrame, log: RunLog, benchmark: str | None, metric: str | None, where: dict[str, Value]
) -> pd.DataFrame:
    """The rows of one of this log's tables that are of `benchmark` and `metric` (None: all) and at the parameters `where`.

    Raises UsageError for a name or value that the logs do not have, and where nothing was measured at all of `where` together.
    """
    if benchmark is not None:
        check_benchmark(log, benchmark)
        frame = frame[frame["benchmark"] == benchmark]
    if metric is not None:
        check_metric(log, metric, benchmark)
        frame = frame[frame["metric"] == metric]
    check_parameters(log, where, benchmark)
    chosen: pd.DataFrame = frame
    for name, value in where.items():
        chosen = chosen[(chosen[name] == value).fillna(False).astype(bool)]
    if len(frame) and not len(chosen):
        point = " ".join(f"{name}={value}" for name, value in where.items())
        raise UsageError(f"nothing was measured at {point}", "leave one of them away to see what was")
    chosen = chosen.reset_index(drop=True)
    return chosen
