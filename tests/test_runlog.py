"""Run logs: whatever happens to a file, what was written before is read or a line says what is wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from synthetic import make_log

from numabench.contract.forms import present
from numabench.errors import LogError, MachineError
from numabench.model import Header, TrialRecord
from numabench.runlog.read import load, read_log
from numabench.runlog.write import Journal

ROOT = Path(__file__).parent.parent
SAMPLES = sorted((ROOT / "results" / "sample").rglob("*.jsonl"))


def write(path: Path, log) -> Path:
    with Journal(path) as journal:
        for record in (*log.headers, *log.benchmarks, *log.trials, *log.ends):
            journal.append(record)
    return path


@pytest.fixture
def recorded(tmp_path) -> Path:
    return write(tmp_path / "a" / "one.jsonl", make_log(processes=3))


def test_what_is_written_is_read(recorded):
    log, again = make_log(processes=3), load(recorded)
    assert (
        again.headers == log.headers
        and again.benchmarks == log.benchmarks
        and again.trials == log.trials
        and again.ends == log.ends
    )


@pytest.mark.parametrize("share", [0.999, 0.9, 0.6])
def test_a_log_cut_anywhere_is_a_shorter_log(recorded, share):
    data = recorded.read_bytes()
    recorded.write_bytes(data[: int(len(data) * share)])
    log = load(recorded)
    assert log.headers and 0 < len(log.trials) <= 9
    assert any("cut short" in w for w in log.warnings)


def test_a_log_mended_by_a_resume_keeps_both_sides(recorded):
    lines = recorded.read_bytes().splitlines(keepends=True)
    recorded.write_bytes(b"".join(lines[:6]) + lines[6][:1000])
    with Journal(recorded) as journal:
        journal.append(make_log(processes=3).ends[0])
    log = load(recorded)
    assert len(log.trials) == 2 and len(log.ends) == 1
    assert any("line 7 was cut off" in w for w in log.warnings)


def test_every_cut_point_of_a_line_is_read_and_said(tmp_path):
    """At the end of a file and mended in the middle: a cut after an inner `}` or inside a number is a cut too."""
    recorded = write(tmp_path / "one.jsonl", make_log(processes=3, samples=1))
    lines = recorded.read_bytes().splitlines(keepends=True)
    head, whole = b"".join(lines[:5]), lines[5]
    assert b"}" in whole[:-2] and b"." in whole and b":-" in whole.replace(b":0", b":-0.5", 1)
    whole = whole.replace(b'"value":', b'"value":-', 1)
    expected = read_log_of(recorded, head)
    for cut in range(1, len(whole) - 1):
        for tail in (b"", b"\n" + lines[-1]):
            warnings: list[str] = []
            recorded.write_bytes(head + whole[:cut] + tail)
            records = read_log(recorded, warnings)
            assert records[: len(expected)] == expected and len(records) == len(expected) + bool(tail), whole[:cut]
            assert len(warnings) == 1 and "line 6 was cut off" in warnings[0] and str(recorded) in warnings[0]


def read_log_of(path: Path, data: bytes) -> list:
    path.write_bytes(data)
    return read_log(path)


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize(
    "line", [b'{"record":"trial","run":"\xff\xfe"}', b'{"record":"\xff"}', b'{"record":"trial","nonsense":true}']
)
def test_a_whole_line_that_is_wrong_was_not_cut(recorded, line, end):
    recorded.write_bytes(recorded.read_bytes() + line + end)
    with pytest.raises(LogError, match=r"line \d+ is not a run log record") as caught:
        load(recorded)
    assert "\n" not in str(caught.value)


def test_a_log_has_one_writer(recorded):
    before = recorded.read_bytes()
    with Journal(recorded), pytest.raises(MachineError, match=f"another run is writing {recorded}"):
        Journal(recorded)
    assert recorded.read_bytes() == before
    Journal(recorded).close()


def test_a_file_system_without_locks_is_written(recorded, monkeypatch):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Journal(recorded) as journal:
        journal.append(make_log().ends[0])


def test_concatenation_is_merging_and_copies_count_once(tmp_path, recorded):
    other = write(tmp_path / "b.jsonl", make_log("other", processes=3))
    both = tmp_path / "both.jsonl"
    both.write_bytes(recorded.read_bytes() + other.read_bytes())
    merged = load(both)
    assert len(merged.headers) == 2 and len(merged.trials) == 18
    assert len(load(both, recorded, other).trials) == 18


def test_folders_are_searched(tmp_path, recorded):
    assert len(load(tmp_path).headers) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(LogError, match="no run log"):
        load(empty)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no run log header"),
        ("hello\n", "line 1 is not a run log record"),
        ('{"a": 1}\n', "line 1 is not a run log record"),
        ('{"record": "header", "schema": 99, "x": 1}\n', "schema 99.*reads up to"),
        ("\x00\x01\n", "is not a run log record"),
    ],
)
def test_what_is_no_run_log_is_said_in_one_line(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(LogError, match=message) as caught:
        read_log(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_garbage_in_the_middle_is_not_swallowed(recorded):
    lines = recorded.read_bytes().splitlines(keepends=True)
    recorded.write_bytes(b"".join([*lines[:5], b'{"record":"trial","nonsense":true}\n', *lines[5:]]))
    with pytest.raises(LogError, match="line 6"):
        load(recorded)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(LogError, match="no such run log"):
        load(tmp_path / "nowhere.jsonl")


def test_a_full_disk_says_where_and_how_to_go_on(tmp_path, monkeypatch, recorded):
    before = recorded.read_bytes()
    with Journal(recorded) as journal:
        import os

        def full(descriptor, data):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(MachineError, match=f"No space left.*--resume {recorded}"):
            journal.append(make_log().ends[0])
        monkeypatch.undo()
    assert recorded.read_bytes() == before


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="--output"):
        Journal(tmp_path / "file" / "log.jsonl")


def test_records_obey_the_schema(recorded):
    validator = Draft202012Validator(present())
    for line in recorded.read_text().splitlines():
        validator.validate(json.loads(line))
    with pytest.raises(Exception, match="is not valid"):
        validator.validate({"record": "trial", "run": 3})


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
def test_sample_logs_obey_the_schema(path):
    validator = Draft202012Validator(present())
    for line in path.read_text().splitlines():
        validator.validate(json.loads(line))
    kinds = [type(r) for r in read_log(path)]
    assert kinds[0] is Header and TrialRecord in kinds


# --- what others do to a log while it is written --------------------------------------------------------------------------


def removed(path: Path) -> None:
    path.unlink()


def removed_with_its_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def replaced(path: Path) -> None:
    path.unlink()
    path.write_text("another's\n")


@pytest.mark.parametrize(
    ("happens", "kept"), [(removed, "one.jsonl"), (removed_with_its_folder, "one.jsonl"), (replaced, "one.*.jsonl")]
)
def test_a_log_that_is_deleted_while_it_is_written_stands_there_again(tmp_path, happens, kept):
    path, log = tmp_path / "a b" / "one.jsonl", make_log(processes=3)
    with Journal(path) as journal:
        for record in (*log.headers, *log.benchmarks, *log.trials[:4]):
            journal.append(record)
        happens(path)
        with pytest.raises(MachineError, match="was deleted while it was written") as raised:
            journal.append(log.trials[4])
    [again] = path.parent.glob(kept)
    assert load(again).trials == log.trials[:5]
    assert f"numabench run --resume {shlex.quote(str(again))}" in str(raised.value)
    assert happens is not replaced or path.read_text() == "another's\n"


def test_a_log_that_is_moved_while_it_is_written_is_named(tmp_path):
    path, log = tmp_path / "one.jsonl", make_log(processes=3)
    with Journal(path) as journal:
        for record in (*log.headers, *log.benchmarks):
            journal.append(record)
        moved = path.rename(tmp_path / "two.jsonl")
        with pytest.raises(MachineError, match=f"it is {moved} now"):
            journal.append(log.trials[0])
    assert load(moved).trials == log.trials[:1]


@pytest.mark.parametrize(
    "change", [lambda file: file.truncate(100), lambda file: file.write(b"mo\xffre"), lambda file: file.write(b"more\n")]
)
def test_a_log_that_is_changed_while_it_is_written_is_no_success(tmp_path, change):
    path, log = tmp_path / "one.jsonl", make_log(processes=3)
    with Journal(path) as journal:
        for record in (*log.headers, *log.benchmarks):
            journal.append(record)
        with open(path, "ab") as file:
            change(file)
        with pytest.raises(MachineError, match="another program changed the run log"):
            journal.append(log.trials[0])
    if path.read_bytes().endswith(
        b"mo\xffre"
    ):  # nothing was put behind it, where it would have been lost, and no reader had gone on
        Journal(path).close()
        assert load(path).headers == log.headers


def test_a_line_stands_there_whole_or_not_at_all_when_interrupted(tmp_path, monkeypatch):
    path, log = tmp_path / "one.jsonl", make_log(processes=3)
    real = os.write

    def interrupted(descriptor, data):
        real(descriptor, data[:100])
        raise KeyboardInterrupt

    with Journal(path) as journal:
        for record in (*log.headers, *log.benchmarks):
            journal.append(record)
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append(log.trials[0])
        monkeypatch.setattr(os, "write", real)
        monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            journal.append(log.trials[1])
        monkeypatch.undo()
        journal.append(log.ends[0])
    assert load(path).trials == log.trials[1:2] and len(load(path).ends) == 1


@pytest.mark.parametrize("call", range(40))
def test_an_interrupted_append_is_no_other_programs(tmp_path, call):
    """Before any call that an append makes, as Python hears of signals: what stands there is whole, and the next append goes on."""
    path, log, calls = tmp_path / "one.jsonl", make_log(processes=2), []

    def interrupt(frame, event, _):
        if event in ("call", "c_call") and frame.f_code.co_filename.endswith("write.py"):
            calls.append(event)
            if len(calls) == call + 1:
                raise KeyboardInterrupt

    with Journal(path) as journal:
        for record in (*log.headers, *log.benchmarks):
            journal.append(record)
        sys.setprofile(interrupt)
        try:
            journal.append(log.trials[0])
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        journal.append(log.ends[0])
    assert calls and load(path).trials in ((), log.trials[:1]) and len(load(path).ends) == 1


@pytest.mark.parametrize("between", [b"\n", b"\n\n  \n", b"\r\n"])
def test_lines_keep_their_numbers_whatever_stands_between_them(tmp_path, between):
    """A file is decoded at once where all of its lines are plain, and line by line where one is not."""
    lines = write(tmp_path / "log", make_log(processes=2, samples=1)).read_bytes().splitlines()
    (tmp_path / "whole").write_bytes(between.join([*lines, b""]))
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "log")
    at = next(number for number, line in enumerate(lines) if b'"record":"trial"' in line)
    record = json.loads(lines[at]) | {"started": "some day"}
    (tmp_path / "odd").write_bytes(between.join([*lines[:at], json.dumps(record).encode(), *lines[at + 1 :], b""]))
    with pytest.raises(LogError, match=f"line {1 + at * between.count(bytes([10]))}: 'some day' is no moment"):
        load(tmp_path / "odd")
    broken = lines[1].replace(b',"', b',\n"', 1)  # one record over two lines was none before either
    (tmp_path / "broken").write_bytes(b"\n".join([lines[0], broken, *lines[2:], b""]))
    with pytest.raises(LogError, match="line [23] is not a run log record"):
        load(tmp_path / "broken")
