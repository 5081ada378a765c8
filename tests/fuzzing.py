"""Mutants of run logs, matrices and machine trees, put through the verbs that read them or go on with them: `make fuzz`.

A mutant is a well-formed input with one to three faults of its own structure: a fact of another type, a text with escape sequences, an axis too
many, a line cut off, a CPU list to the moon. Every mutant comes from a seed and its number alone, so that a failure can be looked at again:
`python tests/fuzzing.py --seed 1 --only 4711`.

Promised, and looked at after each: no traceback (exit code 70), no exit code that the contract does not have, errors in one line,
nothing over the time and memory limits, no control character in anything that is printed or written, no text of a log as markup of a page.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

from synthetic import latency, loaded, make_log, matrix
from synthetic_sysfs import SyntheticTree

from numabench.model import Axis, Metric, case_hash
from numabench.runlog.rounds import pack_trial

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "results" / "sample" / "first.jsonl"

LIMIT = 10.0  # seconds of processor time for one mutant: the slowest seed takes under one
BLOCKED = 60.0  # seconds on the clock: what waits for a pipe takes no processor time
TIMERS = ((signal.SIGPROF, signal.ITIMER_PROF, LIMIT), (signal.SIGALRM, signal.ITIMER_REAL, BLOCKED))
MEMORY = 3 << 30  # bytes of address space beyond what a worker has when it starts
MARK = "<script>mark()</script>"  # never on a page as it is
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # nothing but line ends and tabs
#: 1: something is slower, unlike or not as claimed; 3 and 5 need options that are not given here.
CODES = {"compare": (0, 1, 2, 4), "fleet": (0, 1, 2, 4), "history": (0, 1, 2, 4), "contract": (0, 1, 2)}
OTHER_CODES = (0, 2)
ROOT_CODES = (0, 2, 3)

HOSTILE_TEXTS = (
    "",
    " ",
    "\x1b]0;owned\x07\x1b[2J",
    "\x9b2J",
    "a\rb\nnumabench: error: c",
    "[/b]",
    "[bold red]x[/]",
    ":smile:",
    MARK,
    "<svg onload=mark()>",
    '"><img src=x onerror=mark()>',
    "\u202etxet",
    "*/ int evil; /*",
    "\\\n#define EVIL 1",
    "{value.__class__}",
    "{value:>3000000000}",
    "{value!r:x}",
    "{0}",
    "{",
    "}",
    "{where[operation]}",
    "$x^{2}$",
    "$\\frac{",
    "%s%n",
    "nan",
    "inf",
    "0-4294967295",
    "3-1",
    "1e400",
    "../../etc/passwd",
    "distance",
    "unit",
    "value",
    "log_value",
    "\ud800",
    "\u0000",
    "x" * 5000,
    "é" * 40,
    "2026-13-45T99:99:99Z",
    "=cmd|' /C calc'!A0",
)
HOSTILE_NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, 10**30, 10**400, 1e30, 1e300, 1.7e308, -1e308, 5e-324, 0.1, True, False)
HOSTILE_SHAPES = (None, [], {}, [[]], {"a": {}}, [None], ["x"], [1, "2"], {"": ""}, "x", 7)

Records = list[dict]


# --- run logs -------------------------------------------------------------------------------------------------------


def records_of(log, packed: Callable = lambda trial: trial) -> Records:
    return [json.loads(msgspec.json.encode(r)) for r in (*log.headers, *log.benchmarks, *map(packed, log.trials), *log.ends)]


def trimmed(name: str, trials: int, samples: int) -> Records:
    """A benchmark of the recorded sample with a few of its trials, which have `samples` at most."""
    lines = [json.loads(line) for line in SAMPLE.read_bytes().splitlines()]
    kept, taken = [], 0
    for record in lines:
        kind = record["record"]
        if kind == "trial":
            if record["benchmark"] != name or taken >= trials:
                continue
            taken += 1
            record["samples"] = record["samples"][:samples]
        elif kind == "benchmark" and record["name"] != name:
            continue
        kept.append(record)
    return kept


def published(cpus: int = 4) -> Records:
    from numabench.analysis.published import matrix_records

    values = [[0.0 if a == b else 30.0 + 60 * (a // 2 != b // 2) for b in range(cpus)] for a in range(cpus)]
    return [json.loads(msgspec.json.encode(r)) for r in matrix_records(values, "published", "compare_exchange", "made up")]


def small(make: Callable) -> Callable:
    """The descriptor with fewer values on its long axes: figures are drawn faster."""

    def made(run: str, *rest):
        record = make(run, *rest)
        axes = tuple(msgspec.structs.replace(a, values=a.values[-3:]) for a in record.axes)
        return msgspec.structs.replace(record, axes=axes)

    return made


def seed_logs() -> list[Records]:
    return [
        trimmed("padded_counters", 2, 12),
        trimmed("contention", 2, 10),
        trimmed("memory_latency", 2, 24),
        trimmed("node_latency", 7, 4),
        published(),
        records_of(make_log(processes=6, samples=1, benchmarks=(small(latency),))),
        records_of(make_log(processes=2, samples=1, benchmarks=(small(loaded),))),
        records_of(make_log(processes=2, samples=1, nodes=2, benchmarks=(matrix,))),
        records_of(make_log(processes=2, samples=1, nodes=4, benchmarks=(matrix,)), pack_trial),
    ]


def places(node, path: tuple = ()) -> list[tuple]:
    """Paths of everything below a record."""
    found = [path] if path else []
    if isinstance(node, dict):
        for key, value in node.items():
            found += places(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node[:40]):
            found += places(value, (*path, index))
    return found


def parent(record: dict, path: tuple):
    for key in path[:-1]:
        record = record[key]
    return record


def a_place(rng: random.Random, records: Records) -> tuple[dict, tuple]:
    """A record and a path in it; headers and descriptors are as likely as the many samples."""
    kind = rng.choice(("header", "header", "benchmark", "benchmark", "trial", "end"))
    record = rng.choice([r for r in records if r.get("record") == kind] or records)
    return record, rng.choice(places(record) or [("record",)])


def hostile(rng: random.Random):
    return copy.deepcopy(rng.choice(rng.choice((HOSTILE_TEXTS, HOSTILE_NUMBERS, HOSTILE_SHAPES))))


def replace_value(rng, records):
    record, path = a_place(rng, records)
    parent(record, path)[path[-1]] = hostile(rng)


def replace_text(rng, records):
    """A text by a hostile one: the type stays right."""
    record = rng.choice(records)
    texts = [p for p in places(record) if isinstance(parent(record, p)[p[-1]], str) and p != ("record",)]
    if texts:
        path = rng.choice(texts)
        holder = parent(record, path)
        holder[path[-1]] = rng.choice(HOSTILE_TEXTS) + (holder[path[-1]] if rng.random() < 0.5 else "")


def replace_text_everywhere(rng, records):
    """A name by a hostile one wherever it stands: the log stays consistent."""
    record, path = a_place(rng, records)
    old = parent(record, path)[path[-1]]
    if not isinstance(old, str) or not old or path == ("record",):
        return
    new = rng.choice(HOSTILE_TEXTS)

    def renamed(node):
        if isinstance(node, dict):
            return {renamed(k): renamed(v) for k, v in node.items()}
        if isinstance(node, list):
            return [renamed(v) for v in node]
        return new if node == old else node

    records[:] = [renamed(r) | {"record": r.get("record")} for r in records]
    rehash(records)


def replace_number(rng, records):
    record = rng.choice(records)
    numbers = [p for p in places(record) if isinstance(parent(record, p)[p[-1]], (int, float))]
    if numbers:
        path = rng.choice(numbers)
        parent(record, path)[path[-1]] = rng.choice(HOSTILE_NUMBERS)


def delete_key(rng, records):
    record, path = a_place(rng, records)
    del parent(record, path)[path[-1]]


def add_key(rng, records):
    record, path = a_place(rng, records)
    holder = parent(record, path)
    if isinstance(holder, dict):
        holder[rng.choice(HOSTILE_TEXTS)] = hostile(rng)
    else:
        holder.insert(0, hostile(rng))


def swap_values(rng, records):
    (one, here), (other, there) = a_place(rng, records), a_place(rng, records)
    with contextlib.suppress(KeyError, IndexError, TypeError):
        a, b = copy.deepcopy(parent(one, here)[here[-1]]), copy.deepcopy(parent(other, there)[there[-1]])
        parent(one, here)[here[-1]], parent(other, there)[there[-1]] = b, a


def nest(rng, records):
    record, path = a_place(rng, records)
    value = None
    for _ in range(rng.choice((20, 90, 400))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    parent(record, path)[path[-1]] = value


def drop_record(rng, records):
    del records[rng.randrange(len(records))]


def repeat_record(rng, records):
    records.insert(rng.randrange(len(records)), copy.deepcopy(rng.choice(records)))


def shuffle(rng, records):
    rng.shuffle(records)


def rename_record(rng, records):
    rng.choice(records)["record"] = rng.choice(("trial", "end", "header", "benchmark", "pairs", "comment", "", None))


def rename_run(rng, records):
    record = rng.choice(records)
    record[rng.choice([k for k in ("run", "session", "benchmark", "name") if k in record] or ["run"])] = rng.choice(HOSTILE_TEXTS)


def repeat_visit(rng, records):
    """A second visit to the same machine, or to another that is called the same."""
    again = copy.deepcopy(records)
    for record in again:
        record["run"] = record["session"] = "again"
        if record.get("record") == "header" and isinstance(record.get("machine"), dict) and rng.random() < 0.5:
            record["machine"]["id"] = "another"
        record.pop("session" if record.get("record") == "benchmark" else "", None)
    records += again


def rehash(records):
    """Cases by what their samples say: such a log is consistent, whatever its names are."""
    for trial in records:
        if isinstance(trial.get("samples"), list):
            for sample in trial["samples"]:
                with contextlib.suppress(Exception):
                    sample["case"] = case_hash(trial["benchmark"], sample["parameters"])


def add_axis(rng, records):
    """A parameter more in descriptor and samples: of a reserved name, of a metric's, of any."""
    number = rng.choice((1, 1, 2, 12, 3000))
    names = [rng.choice((*HOSTILE_TEXTS, "distance", "unit", "machine", "latency", "case", "main"))] if number == 1 else []
    names = names or [f"p{k}" for k in range(number)]
    value = rng.choice((0, "a", 10**30, True, None, "", 0.5))
    for record in records:
        if isinstance(record.get("axes"), list):
            record["axes"] += [
                json.loads(msgspec.json.encode(Axis(name=n, summary="", values=()))) | {"values": [value]} for n in names
            ]
        if isinstance(record.get("samples"), list):
            for place, sample in enumerate(record["samples"]):
                if isinstance(sample, dict) and isinstance(sample.get("parameters"), dict):
                    sample["parameters"].update(dict.fromkeys(names, place % 2 if number > 2 else value))
    rehash(records)


def add_metric(rng, records):
    name = rng.choice((*HOSTILE_TEXTS, "distance", "stride", "trials"))
    for record in records:
        if isinstance(record.get("metrics"), list) and rng.random() < 0.7:
            record["metrics"].append(
                json.loads(msgspec.json.encode(Metric(name=name, unit="ns", polarity=rng.choice(("lower", "up")))))
            )
        if isinstance(record.get("samples"), list):
            for sample in record["samples"]:
                if isinstance(sample, dict) and isinstance(sample.get("metrics"), dict):
                    sample["metrics"][name] = 1.0


def change_answers(rng, records):
    kinds = ("cell", "difference", "ratio", "effect", "threshold", "saturation", "knee", "reach", "agreement", "capacity", "firmware",
             "weights", "structure", "ranking", "occurrence", "crossover", "gain", "saving", "outcome", "nonsense")  # fmt: skip
    for record in records:
        for answer in record.get("answers", ()) if isinstance(record.get("answers"), list) else ():
            if not isinstance(answer, dict):
                continue
            if rng.random() < 0.5:
                answer["kind"] = rng.choice(kinds)
            if rng.random() < 0.3:
                answer["text"] = rng.choice(HOSTILE_TEXTS) + "{value}"
            axes = [a.get("name") for a in record["axes"] if isinstance(a, dict)] if isinstance(record.get("axes"), list) else []
            if axes and rng.random() < 0.5:
                answer["axis"] = rng.choice((*axes, None, "absent"))
            if rng.random() < 0.3:
                answer["tolerance"] = rng.choice((0, -1, 1e300, 0.5))


def change_views(rng, records):
    for record in records:
        axes = (
            [a.get("name") for a in record.get("axes", ()) if isinstance(a, dict)] if isinstance(record.get("axes"), list) else []
        )
        for view in record.get("views", ()) if isinstance(record.get("views"), list) else ():
            if isinstance(view, dict):
                key = rng.choice(("kind", "x", "y", "series", "facet", "along", "both", "borders", "ratio_to", "metric", "where"))
                view[key] = rng.choice(
                    ("line", "bar", "heatmap", "curve", *axes, None, [0, 1, 2], [1, "a"], 64, {}, {"absent": 1})
                )


def change_values(rng, records):
    """The figures of all samples: constant, zero, negative, tiny, huge, or of very different size."""
    choose = rng.choice(
        (lambda: 0.0, lambda: -1.0, lambda: 5e-324, lambda: 1e308, lambda: 10 ** rng.uniform(-300, 300), lambda: 7.0)
    )
    for record in records:
        for sample in record.get("samples", ()) if isinstance(record.get("samples"), list) else ():
            if isinstance(sample, dict) and isinstance(sample.get("metrics"), dict):
                sample["metrics"] = {name: choose() for name in sample["metrics"]}


def change_proof(rng, records):
    """Hops, widths, frequencies and validity: what distance classes are made from."""
    for record in records:
        for sample in record.get("samples", ()) if isinstance(record.get("samples"), list) else ():
            if isinstance(sample, dict):
                key = rng.choice(("hop", "width", "frequency", "valid"))
                sample[key] = rng.random() < 0.5 if key == "valid" else [rng.choice((0, -1, 1e-320, 1e300, 1e-8, 4e-8))] * 2


def change_topology(rng, records):
    for record in records:
        machine = record.get("machine")
        if isinstance(machine, dict) and isinstance(machine.get("topology"), dict) and machine["topology"]:
            topology = machine["topology"]
            key = rng.choice(list(topology))
            topology[key] = rng.choice((hostile(rng), "0-4294967295", ["0-99999999999"], [{"id": 0}], [{"id": "x", "cpus": 3}]))


RECORD_MUTATORS = (
    replace_value, replace_value, replace_text, replace_text, replace_text_everywhere, replace_number, replace_number, delete_key, add_key,
    swap_values, nest, drop_record, repeat_record, shuffle, rename_record, rename_run, repeat_visit, add_axis, add_metric, change_answers,
    change_views, change_values, change_proof, change_topology,
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Faults below the records: cuts, flipped bits, NULs, marks of encodings, depth, width."""
    at = rng.randrange(len(data) + 1)
    kind = rng.randrange(12)
    if kind == 0:
        return data[:at]
    if kind == 1:  # cut in the middle, as a resume leaves it
        return data[:at] + b"\n" + data[data.find(b"\n", at) + 1 :]
    if kind == 2:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == 3:
        return data[:at] + b"\0" * rng.choice((1, 600)) + rng.choice((b"", b"\n" + data))
    if kind == 4:
        return data + rng.choice((b"\xff\xfe\xfd", b"garbage", b'{"record":"tri', b"\0\0\n", b"[" * 5000, b"\n\n\n"))
    if kind == 5:
        return b"\xef\xbb\xbf" + data
    if kind == 6:
        return data.decode("utf-8", "replace").encode("utf-16")
    if kind == 7:
        return data.replace(b"\n", b"\r\n")
    if kind == 8:
        return data + b'{"record":"header","x":' + b"[" * 100_000 + b"\n"
    if kind == 9:
        return data[:at] + rng.choice((b"1e999", b"-", b"NaN", b"Infinity", b"0" * 4000, b"9" * 5000)) + data[at:]
    if kind == 10:
        return data[:at] + data[at : at + 40] * rng.choice((2, 50)) + data[at + 40 :]
    return data + b'{"record":"trial","run":"' + b"x" * 3_000_000 + b'"}\n'


def encoded(records: Records) -> bytes:
    return b"".join(json.dumps(r).encode("ascii") + b"\n" for r in records)


def log_mutant(rng: random.Random, seeds: list[Records], mutators: Sequence[Callable] = RECORD_MUTATORS) -> tuple[bytes, str]:
    records = copy.deepcopy(rng.choice(seeds))
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        mutator = rng.choice(mutators)
        done.append(mutator.__name__)
        with contextlib.suppress(
            KeyError, IndexError, TypeError, AttributeError, ValueError
        ):  # an earlier fault took its place away
            mutator(rng, records)
    data = encoded(records)
    if rng.random() < 0.15:
        data = mutate_bytes(rng, data)
        done.append("mutate_bytes")
    return data, "+".join(done)


# --- what a resume goes on with -------------------------------------------------------------------------------------

#: Words of a request, right and wrong ones; any hostile value comes besides.
REQUESTS = {
    "benchmarks": (["memory_latency"], ["memory"], ["cores"], [], ["absent"], ["core_to_core", "core_to_core"], "memory_latency", [""]),
    "profile": ("quick", "full", "absent", ""),
    "settings": (["size=16k"], ["size=1e400"], ["size=" + "9" * 5000], ["stride=0-4294967295"], ["size"], ["=,="], ["size=,"], "size=1", ["absent=1"], ["size=-1"]),
    "cpus": ("0", "0-4294967295", "3-1", "99999", ",", "\ud800"),
    "budget": (None, 1, 1e-300, 1e300, -1, "60s", float("nan")),
    "target": (0.02, 0, 1, -1, 1e-300, "2%"),
    "seed": (1, -1, 2**63, 2**64, 0.5, "1"),
    "samples": (1, 0, -1, 2**31, 10**30),
    "window": (0.001, 0, 1e-9, 1e9, "15ms"),
    "processes": (2, 0, -1, 2**31, 10**30),
    "alias": ("here", "../../x", "/etc/passwd", "", "\x1b[2J"),
}  # fmt: skip


def resumable(name: str) -> Records:
    """A log of a run on this machine that was interrupted."""
    from numabench.host.machine import read_machine
    from numabench.measure.visit import Request

    records = [record for record in trimmed(name, 2, 6) if record["record"] != "end"]
    for record in records:
        if record["record"] == "header":
            record["machine"] = json.loads(msgspec.json.encode(read_machine())) | {"line_declared": 64, "line_measured": 64}
            record["arguments"] = json.loads(msgspec.json.encode(Request(benchmarks=(name,), profile="quick")))
    return records


def change_request(rng, records):
    for record in records:
        if record.get("record") == "header":
            name = rng.choice(list(REQUESTS))
            record["arguments"][name] = rng.choice(REQUESTS[name]) if rng.random() < 0.7 else hostile(rng)


def change_header(rng, records):
    """Anything in a header but what says which machine it was."""
    record = rng.choice([r for r in records if r.get("record") == "header"])
    path = rng.choice([p for p in places(record) if p not in (("record",), ("machine",), ("machine", "id"))])
    parent(record, path)[path[-1]] = hostile(rng)


def resume_mutant(rng: random.Random, seeds: list[Records]) -> tuple[bytes, str]:
    mutators = (change_request,) * 8 + (change_header,) * 8 + RECORD_MUTATORS
    return log_mutant(rng, seeds, mutators)


# --- matrices -------------------------------------------------------------------------------------------------------


def csv_mutant(rng: random.Random) -> tuple[bytes, str]:
    n = rng.choice((2, 3, 4, 8))
    cells = [["" if a == b else f"{rng.uniform(20, 200):.1f}" for b in range(n)] for a in range(n)]
    if rng.random() < 0.3:
        cells = [[text if b < a else "" for b, text in enumerate(row)] for a, row in enumerate(cells)]
    separator, done = ",", []
    for _ in range(rng.choice((1, 2, 3))):
        kind = rng.randrange(13)
        done.append(str(kind))
        row = rng.choice(cells) if cells else []
        if kind == 0 and row:
            row[rng.randrange(len(row))] = str(rng.choice((*HOSTILE_TEXTS, *HOSTILE_NUMBERS)))
        elif kind == 1:
            numbers = rng.sample(range(rng.choice((n, 70000, 2**40))), min(n, 8)) if rng.random() < 0.6 else list(range(n))
            cells = [["", *map(str, numbers)], *([str(numbers[k % len(numbers)]), *r] for k, r in enumerate(cells))]
        elif kind == 2:
            separator = rng.choice((";", "\t", " ", "|"))
        elif kind == 3:
            cells = [[text.replace(".", ",") for text in r] for r in cells]
            separator = ";"
        elif kind == 4 and row:
            row.pop()
        elif kind == 5 and row:
            row.append(row[-1])
        elif kind == 6 and cells:
            cells.pop(rng.randrange(len(cells)))
        elif kind == 7:
            cells = [[text or rng.choice(("nan", "NaN", "NA", "-")) for text in r] for r in cells]
        elif kind == 8:
            cells = [["CPU", *map(str, range(n))], *([str(k), *r] for k, r in enumerate(cells))]
        elif kind == 9:
            cells = [r * rng.choice((1, 300)) for r in cells]
        elif kind == 10:
            cells.insert(rng.randrange(len(cells) + 1), [rng.choice(HOSTILE_TEXTS)])
        elif kind == 11:
            cells = [[f'"{text}"' for text in r] for r in cells]
        else:
            cells = [[text.replace("1", rng.choice(("1e", "-1", "1_"))) for text in r] for r in cells]
    data = ("\n".join(separator.join(r) for r in cells) + "\n").encode("utf-8", "surrogatepass")
    kind = rng.randrange(12)
    if kind == 0:
        data = b"\xef\xbb\xbf" + data
    elif kind == 1:
        data = data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-16-le", "utf-32")))
    elif kind == 2:
        data = mutate_bytes(rng, data)
    return data, "csv " + "+".join(done)


# --- trees of /sys and /proc ----------------------------------------------------------------------------------------

TREE_TEXTS = ("", "\n", "0-4294967295\n", "0-99999999999999\n", "3-1\n", "-1\n", "x\n", "\x1b[2J\n", "\0\0\0\n", "f" * 100_000 + "\n", "1," * 50_000 + "\n",
              "99999999999999999999999999K\n", "10 20 x\n", "0\n", "1\n", "65535\n", "max\n", "[always madvise never\n", "\xff\xfe\n", "0-1:2/4\n", "(null)\n",
              "9" * 5000 + "\n", "model name : [/b]" + MARK + "\n", "0::/../../..\n")  # fmt: skip


def tree_seeds(folder: Path) -> list[Path]:
    shapes = (
        {"cores": 2},
        {"packages": 2, "nodes": 2, "l3s": 1, "cores": 2, "smt": 2},
        {"packages": 2, "cores": 2, "offline": (3,)},
    )
    found = []
    for number, shape in enumerate(shapes):
        SyntheticTree(folder / f"tree{number}", **shape)
        found.append(folder / f"tree{number}")
    return found


def tree_mutant(rng: random.Random, seeds: list[Path], target: Path) -> str:
    shutil.copytree(rng.choice(seeds), target, symlinks=True)
    done = []
    for _ in range(rng.choice((1, 2, 4))):
        files = sorted(p for p in target.rglob("*") if p.is_file() and not p.is_symlink())
        if not files:
            break
        path = rng.choice(files)
        kind = rng.randrange(8)
        done.append(f"{kind} {path.relative_to(target)}")
        if kind < 4:
            path.write_bytes(rng.choice(TREE_TEXTS).encode("latin-1"))
        elif kind == 4:
            path.unlink()
        elif kind == 5:
            path.unlink()
            os.mkfifo(path)
        elif kind == 6:
            path.unlink()
            path.symlink_to(rng.choice(("/etc/passwd", "/dev/zero", "../" * 12 + "etc/passwd", path.name, "/dev/stdin")))
        elif rng.random() < 0.5:
            path.unlink()
            path.mkdir()
        else:
            name = rng.choice(("cpu9", "cpu99999999", "node7", "cpu", "node4294967296"))
            with contextlib.suppress(shutil.Error, OSError):  # onto itself, or onto a file
                shutil.copytree(path.parent, path.parent.parent / name, symlinks=True, dirs_exist_ok=True)
    return "tree " + "; ".join(done)


# --- one mutant -----------------------------------------------------------------------------------------------------


class Hang(BaseException):
    """Over the time limit: no `except Exception` on the way may take it for an error of its own."""


def run_verb(arguments: list[str]) -> tuple[int | str, str, str]:
    """(exit code, or the traceback as text; standard output; standard error) of `numabench ARGUMENTS` in this process."""
    from numabench.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict") for _ in range(2))

    def ring(*_):
        raise Hang

    for which, timer, limit in TIMERS:
        signal.signal(which, ring)
        signal.setitimer(timer, limit, 1.0)
    code: int | str = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
    except SystemExit as exit_:
        code = exit_.code if exit_.code is not None else 0
    except Hang:
        code = "hang"
    except BaseException:
        code = traceback.format_exc()
    finally:
        for _, timer, _ in TIMERS:
            signal.setitimer(timer, 0)
    with contextlib.suppress(ValueError):
        out.flush(), err.flush()
    return code, *(stream.detach().getvalue().decode("utf-8", "replace") for stream in (out, err))


def faults(verb: str, code: int | str, out: str, err: str, written: str, codes: tuple[int, ...]) -> list[str]:
    """What is wrong with an outcome; empty if nothing is."""
    if code == "hang":
        return ["hang"]
    if isinstance(code, str) or code == 70:
        return ["traceback"]
    found = [] if code in codes else ["wrong code"]
    if code not in (0, 1, 4) and verb not in ("check",) and len([line for line in err.splitlines() if line.strip()]) != 1:
        found.append("not one line")
    if "Warning" in err or "Traceback" in err:
        found.append("warning of a library")
    if CONTROL.search(out) or CONTROL.search(err) or CONTROL.search(written):
        found.append("control character")
    if MARK in written and verb in ("report", "compare"):
        found.append("markup")
    if verb == "advise" and out.startswith("/*") and (out.count("*/") != 1 or "#define EVIL" in out.partition("*/")[2]):
        found.append("code in header")
    return found


def log_verbs(path: Path, other: Path, output: Path) -> list[tuple[str, list[str]]]:
    log, clean = str(path), str(other)
    return [
        ("report", ["report", log, "-o", f"{output}.html"]),
        ("compare", ["compare", clean, log, "-o", f"{output}.html"]),
        ("compare", ["compare", log, clean, "--format", "json"]),
        ("compare", ["compare", log, log, "--cells"]),
        ("card", ["card", log]),
        ("card", ["card", log, "-o", f"{output}.md"]),
        ("export", ["export", log]),
        ("export", ["export", log, "--format", "json"]),
        ("export", ["export", log, "--format", "parquet", "-o", f"{output}.parquet"]),
        ("export", ["export", log, "--format", "hwloc-memattrs"]),
        ("export", ["export", log, "--format", "interleave-weights"]),
        ("export", ["export", log, "--format", "chrome-trace", "-o", f"{output}.json"]),
        ("advise", ["advise", log]),
        ("advise", ["advise", log, "--format", "c-header"]),
        ("advise", ["advise", log, "--format", "json"]),
        ("fleet", ["fleet", log, clean]),
        ("fleet", ["fleet", log, clean, "--format", "csv"]),
        ("history", ["history", log, "--by", "visit"]),
        ("compare", ["compare", clean, log, "--last", "3", "--format", "junit"]),
        ("contract", ["contract", "check", log]),
        ("contract", ["contract", "migrate", log, "-o", f"{output}.new"]),
    ]


class Bench:
    """Seeds in a folder of their own, and the mutants made from them one after the other."""

    def __init__(self, seed: int, folder: Path):
        self.seed, self.folder = seed, folder
        self.logs = seed_logs()
        self.interrupted = [resumable(name) for name in ("padded_counters", "memory_latency", "contention")]
        self.trees = tree_seeds(folder)
        self.clean = []
        for number, records in enumerate(self.logs):
            self.clean.append(folder / f"clean{number}.jsonl")
            self.clean[-1].write_bytes(encoded(records))

    def mutant(self, number: int) -> tuple[str, str, list[str], str]:
        """(verb, what was done, faults, detail) of one mutant."""
        rng = random.Random(f"{self.seed}/{number}")
        place = self.folder / f"m{number}"
        place.mkdir()
        output, codes = place / "out", OTHER_CODES
        kind = number % 10
        if kind == 6:
            data, done = resume_mutant(rng, self.interrupted)
            path = place / "mutant.jsonl"
            path.write_bytes(data)
            verb, arguments, codes = "resume", ["run", "--resume", str(path), "--plan-only"], ROOT_CODES
        elif kind < 6:
            data, done = log_mutant(rng, self.logs)
            path = place / "mutant.jsonl"
            path.write_bytes(data)
            # Pages take the longest, by far: one mutant in four goes to one.
            verbs = log_verbs(path, rng.choice(self.clean), output)
            verb, arguments = rng.choice(verbs[:2] if rng.random() < 0.25 else verbs[2:])
            codes = CODES.get(verb, OTHER_CODES)
        elif kind < 9:
            data, done = csv_mutant(rng)
            path = place / rng.choice(("mutant.csv", "mu[bold]tant.csv", "m\x1b[2Jt.csv"))
            path.write_bytes(data)
            verb, arguments = "import", ["import", str(path), "-o", str(output)]
        else:
            done = tree_mutant(rng, self.trees, place / "root")
            verb = rng.choice(("machine", "check"))
            arguments, codes = [verb, "--root", str(place / "root"), "--format", rng.choice(("text", "json"))], ROOT_CODES
        code, out, err = run_verb(arguments)
        written = ""
        for path in sorted(place.glob("out*")) if kind < 6 else ():
            if path.suffix == ".html":
                written += path.read_text(encoding="utf-8")
        found = faults(verb, code, out, err, written, codes)
        if verb == "import" and code == 0 and not found:  # what was understood is a log like any other
            [log] = output.rglob("*.jsonl")
            code, out, err = run_verb(["export", str(log)])
            found = faults("export", code, out, err, "", OTHER_CODES)
        shutil.rmtree(place, ignore_errors=True)
        return verb, done, found, f"numabench {' '.join(arguments)}\n{code}\n{err[-1500:]}"


def work(seed: int, numbers: range, until: float, channel: int) -> None:
    """A worker's share of the mutants, one line of JSON each through `channel`."""
    warnings.simplefilter("default")
    with tempfile.TemporaryDirectory(prefix="numabench-fuzz-") as folder, os.fdopen(channel, "w") as answers:
        os.environ["MPLCONFIGDIR"] = folder
        bench = Bench(seed, Path(folder))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        for number in numbers:
            if time.monotonic() > until:
                break
            began = time.monotonic()
            verb, done, found, detail = bench.mutant(number)
            row = {"number": number, "verb": verb, "done": done, "faults": found, "seconds": time.monotonic() - began}
            answers.write(json.dumps(row | ({"detail": detail} if found else {})) + "\n")
            answers.flush()


def fuzz(count: int, seed: int = 1, jobs: int = 2, minutes: float = 10.0, first: int = 0) -> list[dict]:
    """A row for each mutant that was tried. A worker that dies is itself a fault of the mutant it was at."""
    until, rows, children = time.monotonic() + 60 * minutes, [], []
    for job in range(jobs):
        numbers = range(first + job, first + count, jobs)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                os.close(reading)
                work(seed, numbers, until, writing)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        children.append((child, reading, numbers))
    for child, reading, numbers in children:
        with os.fdopen(reading) as answers:
            own = [json.loads(line) for line in answers]
        rows += own
        if os.waitpid(child, 0)[1]:
            rows.append({"number": numbers[len(own)], "verb": "?", "done": "?", "faults": ["died"], "seconds": 0.0, "detail": ""})
    return sorted(rows, key=lambda row: row["number"])


def summary(rows: list[dict]) -> str:
    kinds = Counter(fault for row in rows for fault in row["faults"])
    slowest = max(rows, key=lambda row: row["seconds"], default={"seconds": 0.0, "number": "-"})
    return (
        f"{len(rows)} mutants, {sum(bool(row['faults']) for row in rows)} with faults"
        + (f" ({', '.join(f'{number} {kind}' for kind, number in kinds.most_common())})" if kinds else "")
        + f"; by verb {dict(Counter(row['verb'] for row in rows))}; the slowest took {slowest['seconds']:.1f} s (number {slowest['number']})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after this long")
    parser.add_argument("--only", type=int, help="one mutant, with all that it said")
    parser.add_argument("--show", type=int, default=20, help="faults told in full")
    arguments = parser.parse_args()
    if arguments.only is not None:
        rows = fuzz(1, arguments.seed, 1, first=arguments.only)
    else:
        rows = fuzz(arguments.mutants, arguments.seed, arguments.jobs, arguments.minutes)
    bad = [row for row in rows if row["faults"]]
    for row in itertools.islice(bad, arguments.show):
        print(f"--- {row['number']} {row['faults']} {row['done']}\n{row['detail']}")
    print(summary(rows))
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
