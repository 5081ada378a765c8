"""What the rows of a tidy frame are: which columns are parameters, which distance class a sample belongs to, and how slow its clock was.

A sample's key is (machine_id, benchmark, case, metric, distance). On a virtual machine two CPUs are sometimes siblings
of one core, sometimes on two sockets, and move without a sign: values of different classes are different quantities.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..runlog.columns import RESERVED
from .clock import behind
from .segments import group_codes

if TYPE_CHECKING:
    import pandas as pd

#: Two consecutive sorted hops that differ by more than this factor belong to different distance classes. Measured
#: classes are a factor 2.7 and 4 apart (10, 27, 107 ns on Zen 4), the spread inside one is 1-5 % (METHODOLOGY).
CLASS_FACTOR = 1.3

#: Threads that issue less than this share of what the machine's cores can do have a sibling on their core: siblings get
#: about half (0.56 on Zen 5), an unseen neighbour takes up to a quarter.
SHARED_CORE = 0.7
SHARED = " shared core"  # suffix of the class of threads that share one core

#: Threads with half a core each, as far apart as those with a whole one, do not share a core: neighbours that nobody sees took a part of both (86 and 88 ns on a guest;
#: the nearest that siblings and cores were seen is 24 and 28 ns).
SAME_HOP = 1.1

#: Rows from which on a table's room counts for more than how fast rows are chosen from it: a matrix of 512 CPUs has 261,632, and few questions.
MANY = 100_000


SAMPLE = ["run", "session", "benchmark", "block", "process", "case", "sample"]  # what the rows of one sample share


def each_sample(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each sample of a frame that has one for each sample and metric."""
    return frame.drop_duplicates(SAMPLE)


def parameter_columns(frame: pd.DataFrame) -> list[str]:
    """The columns of a samples, estimates, contrasts or comparison table that are benchmark parameters."""
    return [name for name in frame.columns if name not in RESERVED]


def own_columns(table: pd.DataFrame) -> pd.DataFrame:
    """One benchmark's rows without the parameters of the others, which would be carried through every selection; as in `light`, columns of one kind are together."""
    asked = parameter_columns(table)
    known = table[asked].notna().to_numpy().any(axis=0)
    own = table.drop(columns=[name for name, there in zip(asked, known, strict=True) if not there])
    return own if len(own) > MANY else own.copy()  # a copy has its columns of one kind in one block


def light(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows, up to MANY, with Python's own words and numbers (None: missing) in the columns of pandas' own types, each of which is chosen from by a
    call of its own: columns of one kind are one block, and rows are chosen some thousand times to answer all questions."""
    if len(table) > MANY:
        return table
    import pandas as pd

    columns = {
        name: table[name] if isinstance(of, np.dtype) else table[name].to_numpy(dtype=object, na_value=None)
        for name, of in table.dtypes.items()
    }
    found = pd.DataFrame({name: pd.Series(column, table.index, dtype=column.dtype) for name, column in columns.items()})
    return found.set_axis(pd.Index([*columns], dtype=object), axis=1)


def class_label(hops_ns: np.ndarray) -> str:
    """`27 ns`, `110 ns`, `2.7 ns`: the median with two significant digits."""
    median = float(np.median(hops_ns))
    digits = 1 - math.floor(math.log10(median))
    rounded = round(median, digits)
    return f"{rounded:.{max(0, 1 - math.floor(math.log10(rounded)))}f} ns"


def label_hop(label: str) -> float:
    """The hop in ns that a label names; 0.0 for the empty label (no second thread, hence no distance)."""
    return float(label.split()[0]) if label else 0.0


def _cluster(hops: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(edges, labels): classes of positive `hops`; edges are the logs halfway across each gap."""
    logs = np.sort(np.log(hops))
    split = np.flatnonzero(np.diff(logs) > math.log(CLASS_FACTOR))
    edges = (logs[split] + logs[split + 1]) / 2
    return edges, [class_label(np.exp(part)) for part in np.split(logs, split + 1)]


def distance_classes(hops_ns: np.ndarray, learn: np.ndarray | None = None) -> np.ndarray:
    """Labels (shape of `hops_ns`, object) by one-dimensional gap clustering (single linkage) on logs.

    `learn` marks the values that define the classes (default: all); the others join the class on their side of the gap.
    NaN and values that are not positive get the label "".
    """
    hops = np.asarray(hops_ns, dtype=float)
    known = np.isfinite(hops) & (hops > 0)
    labels = np.full(hops.shape, "", dtype=object)
    teachers = known if learn is None or not (known & learn).any() else known & learn
    if known.any():
        edges, names = _cluster(hops[teachers])
        labels[known] = np.array(names, dtype=object)[np.searchsorted(edges, np.log(hops[known]))]
    return labels


def with_circumstances(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` (samples) with two columns more. `distance`: classes per machine over all its valid samples, all benchmarks pooled; `slow`: log(usual clock / clock) of the
    CPUs that the sample ran on, over all samples that its session has on them (`clock.behind`).

    A disturbed sample joins the nearest class: its hop may be halfway between two and must not found a third. Threads that
    share a core are classes of their own, since a hop between siblings can be as long as one between cores.
    """
    if {"distance", "slow"} <= {*frame.columns}:
        return frame
    import pandas as pd

    distance = np.full(len(frame), "", dtype=object)
    hops, widths = (frame[name].to_numpy(dtype=float) for name in ("hop_ns", "core_width"))
    valid = frame["valid"].to_numpy(dtype=bool)
    machines = pd.factorize(frame["machine_id"], use_na_sentinel=False)[0]
    for machine in range(machines.max(initial=-1) + 1):
        rows = machines == machine
        distance[rows] = distances(hops[rows], widths[rows], valid[rows])
    places, _ = group_codes(frame, ("machine_id", "session", "cpus"))
    clock = frame["frequency_ghz"].to_numpy(dtype=float)
    return frame.assign(distance=distance, slow=behind(clock, places, ~frame.duplicated(SAMPLE).to_numpy()))


def distances(hops: np.ndarray, widths: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The label of each sample of one machine (object)."""
    found = np.full(len(hops), "", dtype=object)
    shared = shared_core(widths, valid)
    found[~shared] = distance_classes(hops[~shared], valid[~shared])
    found[shared] = distance_classes(hops[shared], valid[shared])
    apart = {label: np.median(hops[~shared & (found == label)]) for label in {*found[~shared]} if label}
    for label in {*found[shared]} - {""}:
        own = shared & (found == label)
        hop = np.median(hops[own])
        nearest = min(apart, key=lambda other: abs(math.log(apart[other] / hop)), default=None)
        found[own] = nearest if nearest and abs(math.log(apart[nearest] / hop)) < math.log(SAME_HOP) else label + SHARED
    return found


def mains(cells: np.ndarray, processes: np.ndarray, samples: np.ndarray, hop: np.ndarray) -> np.ndarray:
    """Which of a cell's distance classes is its main one: that with most processes, then samples, then the shorter hop. `cells`: the number of each class's."""
    order = np.lexsort((hop, -samples, -processes, cells))
    main = np.zeros(len(cells), dtype=bool)
    main[order[np.unique(cells[order], return_index=True)[1]]] = True
    return main


def shared_core(widths: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Which samples have threads that share a core: less than SHARED_CORE of the width that a tenth of `reference` has."""
    known = widths[reference & np.isfinite(widths)]
    return (
        np.isfinite(widths) & (widths < SHARED_CORE * np.quantile(known, 0.9))
        if known.size
        else np.zeros(widths.shape, dtype=bool)
    )


def class_medians(frame: pd.DataFrame) -> dict[str, float]:
    """Median hop in ns of the valid samples of each class of `frame` (one machine, with `distance`)."""
    rows = frame[(frame["distance"] != "") & frame["valid"]]
    return {str(label): float(hop) for label, hop in rows.groupby("distance")["hop_ns"].median().items()}


def match_classes(base: dict[str, float], new: dict[str, float]) -> dict[str, str]:
    """Label in `new` -> label in `base` for classes of one machine whose medians are within CLASS_FACTOR, nearest first."""
    candidates = sorted((abs(math.log(hop / other)), label, name) for label, hop in new.items() for name, other in base.items())
    matched: dict[str, str] = {}
    for gap, label, name in candidates:
        if (
            gap <= math.log(CLASS_FACTOR)
            and label.endswith(SHARED) == name.endswith(SHARED)
            and label not in matched
            and name not in matched.values()
        ):
            matched[label] = name
    return matched
