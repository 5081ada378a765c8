"""Advice from made-up logs with a known knee, and the command as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess

import msgspec
import pytest
from click.testing import CliRunner
from synthetic import counters, make_log

from numabench.analysis.advice import padding
from numabench.cli.advise import command, header
from numabench.errors import UsageError
from numabench.model import Answer, BenchmarkRecord, Contrast
from numabench.runlog.write import Journal

CACHES = {"topology": {"cpus": "0-1", "caches": [{"level": 1, "line_bytes": 64}, {"level": 2, "line_bytes": 128}]}}


def padded(run: str) -> BenchmarkRecord:
    """Toy counters under the real name: free from 64 bytes on; the effect stands in for that of adjacent lines."""
    where = {"spacing": 0, "threads": 2, "placement": "l3"}
    thresholds = tuple(
        Answer(
            kind="threshold",
            metric="time_per_operation",
            axis="stride",
            where={**where, "operation": operation},
            text=f"{operation}: free from {{value}} on",
        )
        for operation in ("increment", "atomic_add")
    )
    effect = Answer(
        kind="effect",
        metric="time_per_operation",
        where={**where, "operation": "increment", "stride": 64},
        against={"stride": 128},
        tolerance=0.03,
        text="Pairs: {value}",
    )
    return msgspec.structs.replace(
        counters(run),
        name="padded_counters",
        contrasts=(*counters(run).contrasts, Contrast(axis="stride", control=128, metric="time_per_operation")),
        answers=(*thresholds, effect),
    )


def log(scale=lambda *_: 1.0, alias="toy", sd=0.001, processes=12, machine=CACHES):
    return make_log(
        alias, processes=processes, sd=(0.0, sd, sd), benchmarks=(padded,), machine=machine, scale=lambda _, p: scale(p)
    )


def test_the_padding_is_where_all_operations_are_free():
    (found,) = padding(log())
    assert (found.padding_bytes, found.measured, found.declared_line_bytes, found.missing) == (64, True, 128, "")
    assert found.adjacent_lines == "no effect" and len(found.evidence) == 3 and all(each.resolved for each in found.evidence)


def test_the_worst_operation_decides():
    (found,) = padding(log(lambda p: 1.5 if p["operation"] == "atomic_add" and p["stride"] == 64 else 1.0))
    assert found.padding_bytes == 128 and found.measured


def test_lines_that_are_coupled_need_a_pair():
    (found,) = padding(log(lambda p: 1.04 if p["stride"] == 64 else 1.0))
    assert found.padding_bytes == 128 and found.adjacent_lines == "effect"
    assert "an effect, 1.04×" in found.evidence[-1].text


def test_what_is_open_is_said_and_the_declared_line_stands_in():
    (found,) = padding(log(sd=0.3, processes=6))
    assert (
        not found.measured
        and found.padding_bytes == 128
        and "2 of 2 thresholds are unresolved, or no stride measured is free: numabench run padded_counters" in found.missing
    )
    assert found.adjacent_lines == "unresolved" and found.evidence[0].value is None
    (bare,) = padding(log(sd=0.3, processes=6, machine={}))
    assert bare.padding_bytes == 128 and bare.declared_line_bytes is None


@pytest.mark.parametrize(("at_64", "bytes_apart"), [(1.0, 64), (1.5, 128)])
def test_intervals_too_wide_for_no_difference_still_tell_where_the_cliff_is(at_64, bytes_apart):
    """That it costs no more than 0.1 % is more than twelve processes of such a spread can say; that it is far under what a shared line costs is not."""
    change = msgspec.structs.replace
    made = log(lambda p: at_64 if p["stride"] == 64 else 1.0, sd=0.01)
    asked = tuple(change(a, tolerance=0.001) if a.kind == "threshold" else a for a in made.benchmarks[0].answers)
    (found,) = padding(change(made, benchmarks=tuple(change(b, answers=asked) for b in made.benchmarks)))
    assert not found.evidence[0].resolved and found.measured
    assert found.padding_bytes == bytes_apart and 0 < found.within < 0.05


def test_every_machine_gets_its_own():
    one, other = log(), log(lambda p: 1.5 if p["stride"] == 64 else 1.0, alias="other")
    both = msgspec.structs.replace(
        one, **{name: getattr(one, name) + getattr(other, name) for name in ("headers", "benchmarks", "trials", "ends")}
    )
    assert {each.machine: each.padding_bytes for each in padding(both)} == {"toy": 64, "other": 128}


def test_without_counters_the_command_that_measures_them_is_named():
    with pytest.raises(UsageError, match="numabench run padded_counters"):
        padding(make_log())


@pytest.mark.parametrize("compiler", [["cc", "-std=c11", "-xc"], ["c++", "-xc++"]])
def test_the_header_compiles(tmp_path, compiler):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is missing: apt-get install g++")
    (advice,) = padding(log(alias="odd */ name"))
    (tmp_path / "padding.h").write_text(header(advice))
    program = '#include "padding.h"\n#include "padding.h"\nint counter[2 * NUMABENCH_DESTRUCTIVE_INTERFERENCE_SIZE == 128 && NUMABENCH_PADDING_MEASURED ? 1 : -1];\n'
    subprocess.run([*compiler, "-Wall", "-Werror", f"-I{tmp_path}", "-fsyntax-only", "-"], input=program, text=True, check=True)


def test_the_command_writes_all_three_forms(tmp_path):
    path = tmp_path / "run.jsonl"
    made = log()
    with Journal(path) as journal:
        for record in (*made.headers, *made.benchmarks, *made.trials, *made.ends):
            journal.append(record)
    text = CliRunner().invoke(command, [str(path)])
    assert text.exit_code == 0 and text.output.startswith(
        "toy: put 64 bytes between what two threads write (measured: at most 0.2% over counters far apart at every relation measured; the machine declares lines of 128 B)"
    )
    found = json.loads(CliRunner().invoke(command, [str(path), "--format", "json"]).output)
    assert found[0]["padding_bytes"] == 64 and found[0]["evidence"][0]["unit"] == "B"
    CliRunner().invoke(command, [str(path), "--format", "c-header", "-o", str(tmp_path / "padding.h")])
    assert "#define NUMABENCH_DESTRUCTIVE_INTERFERENCE_SIZE 64\n" in (tmp_path / "padding.h").read_text()


def test_without_a_sample_the_declared_line_stands_in():
    whole = log()
    for trials in ((), whole.trials[:1]):
        (found,) = padding(msgspec.structs.replace(whole, trials=trials))
        assert not found.measured and found.missing and found.padding_bytes > 0
