"""Hostile input: a seeded thousand of the mutants of `make fuzz`, one log of each kind that once went wrong, and what the rules are made of."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import fuzzing
import pytest
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text
from synthetic import make_log

from numabench.analysis.published import matrix_records
from numabench.cli import main
from numabench.cli.console import Terminal
from numabench.cli.roots import opened_root
from numabench.errors import LogError, UsageError
from numabench.files import write_whole
from numabench.host.sysfs import Tree, parse_list
from numabench.runlog.matrix import read_labelled
from numabench.runlog.read import load
from numabench.runlog.write import Journal
from numabench.text import fill, printable
from numabench.units import parse_cpus

REPOSITORY = Path(__file__).resolve().parent.parent
ATTACKS = Path(os.environ.get("NUMABENCH_SHARED", REPOSITORY.parent / "shared")) / "attack"
LOGS = sorted(ATTACKS.glob("*.jsonl"))


def test_a_thousand_mutants():
    rows = fuzzing.fuzz(1000, seed=18, jobs=min(4, os.cpu_count() or 1), minutes=10)
    assert len(rows) == 1000
    assert not [row for row in rows if row["faults"]], fuzzing.summary(rows)


@pytest.mark.skipif(not LOGS, reason=f"no logs that went wrong in {ATTACKS}: set NUMABENCH_SHARED")
@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_logs_that_went_wrong(path, tmp_path):
    for verb, arguments in fuzzing.log_verbs(path, path, tmp_path / "out"):
        code, out, err = fuzzing.run_verb(arguments)
        page = tmp_path / "out.html"
        written = page.read_text(encoding="utf-8") if page.exists() else ""
        assert not fuzzing.faults(verb, code, out, err, written, fuzzing.CODES.get(verb, fuzzing.OTHER_CODES)), (
            arguments,
            code,
            err,
        )


# --- logs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def records():
    return fuzzing.records_of(make_log(processes=2, samples=1))


def written(tmp_path, records) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_bytes(fuzzing.encoded(records))
    return path


def kind(records, name):
    return next(record for record in records if record["record"] == name)


def rename_axis(records):
    for record in records:
        for axis in record.get("axes", ()):
            axis["name"] = "distance" if axis["name"] == "stride" else axis["name"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: kind(r, "header").update(started="2026\n#define X 1"), "no moment"),
        (lambda r: kind(r, "header")["machine"].update(id=["x"]), r"machine: .*\$\.id"),
        (lambda r: kind(r, "header")["machine"].update(topology={"caches": ["L1"]}), r"machine: .*caches\[0\]"),
        (lambda r: kind(r, "header")["machine"].update(topology={"cpus": "0-4294967295"}), "which no machine has"),
        (lambda r: kind(r, "header")["machine"].update(configuration=[1]), r"machine: .*configuration"),
        (lambda r: kind(r, "header")["plan"].update(target="x"), "plan: "),
        (rename_axis, "'distance' cannot be a parameter's name"),
        (lambda r: kind(r, "benchmark")["answers"][0].update(metric="absent"), "speaks of 'absent'"),
        (lambda r: kind(r, "benchmark")["views"][0].update(series="absent"), "speaks of 'absent'"),
        (
            lambda r: kind(r, "benchmark")["axes"].extend({"name": f"p{k}", "summary": "", "values": [1]} for k in range(3000)),
            "axes, over",
        ),
        (lambda r: kind(r, "trial")["samples"][0]["metrics"].update(absent=1.0), "the metric 'absent'"),
        (lambda r: kind(r, "trial")["samples"][0]["metrics"].update(throughput=1e300), "beyond all measure"),
        (lambda r: kind(r, "trial")["samples"][0]["metrics"].update(throughput=1e-70), "beyond all measure"),
        (lambda r: kind(r, "trial")["samples"][0].update(hop=[-1e70, 1e-8]), "a proof of toy_counters is"),
        (lambda r: kind(r, "trial")["samples"][0]["parameters"].update(more=1), "differ in the parameter 'more'"),
        (lambda r: kind(r, "trial")["samples"][0].update(case="0" * 12), "is not that of"),
        (
            lambda r: kind(r, "trial")["samples"][-1].update(case=kind(r, "trial")["samples"][0]["case"]),
            "other parameters than before",
        ),
        (lambda r: kind(r, "benchmark")["answers"][0].update(kind="gain", axis=None), "names no axis"),
    ],
)
def test_a_wrong_record_is_named_with_its_line(tmp_path, records, change, said):
    change(records)
    path = written(tmp_path, records)
    with pytest.raises(LogError, match=said) as caught:
        load(path)
    assert f"{path} line " in str(caught.value) and "To mend it: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda header: header["arguments"].update(settings="size=1"), 2, "does not say what was asked for"),
        (lambda header: header["arguments"].update(cpus="0-4294967295"), 2, "CPU"),
        (lambda header: header["arguments"].update(budget=-1), 2, "a budget of -1 s measures nothing"),
        (lambda header: header["machine"].update(id="another"), 2, "was recorded on machine"),
        (lambda header: header.update(started="2026-13-45T99:99:99Z"), 0, ""),  # no moment of any clock: another session
    ],
)
def test_a_resume_asks_for_what_a_log_may_ask_for(tmp_path, change, code, said):
    records = fuzzing.resumable("memory_latency")
    change(kind(records, "header"))
    for record in records:
        if "started" in record:
            record["started"] = kind(records, "header")["started"]
    path = written(tmp_path, records)
    found, _, err = fuzzing.run_verb(["run", "--resume", str(path), "--plan-only"])
    assert found == code and said in err and err.count("\n") == (code != 0)


def test_what_is_nested_deep_is_no_record(tmp_path, records):
    for depth in (50, 5000):
        path = written(tmp_path, records)
        line = path.read_bytes().replace(
            b'"configuration": {', b'"configuration": {"a": ' + b"[" * depth + b"]" * depth + b", ", 1
        )
        path.write_bytes(line)
        with pytest.raises(LogError, match="line 1.*nested"):
            load(path)


def test_unknown_kinds_are_left_out_and_said_once(tmp_path, records):
    log = load(written(tmp_path, [*records, {"record": "comment", "x": 1}, {"record": "comment"}]))
    assert len(log.trials) == sum(r["record"] == "trial" for r in records)
    assert [w for w in log.warnings if "2 records of kinds that this numabench does not know ('comment')" in w]


def test_trials_without_header_or_description_are_said(tmp_path, records):
    trials = [r for r in records if r["record"] == "trial"]
    trials[0]["run"], trials[1]["benchmark"] = "zzz", "nobody"
    log = load(written(tmp_path, records))
    assert len(log.trials) == len(trials) - 2
    assert any("run zzz has no header: 1" in w for w in log.warnings) and any("nobody of run" in w for w in log.warnings)


@pytest.mark.parametrize("tail", [b"\0" * 600, b'{"record":"tri\xff@#', b"garbage", b"\0\0{"])
def test_a_resume_after_a_tail_of_garbage_leaves_a_log_that_is_read(tmp_path, records, tail):
    path = written(tmp_path, records[:-1])
    path.write_bytes(path.read_bytes() + tail)
    with Journal(path) as journal:
        journal.append(make_log(processes=2, samples=1).ends[0])
    log = load(path)
    assert len(log.ends) == 1 and len(log.trials) == sum(r["record"] == "trial" for r in records)


def test_texts_of_logs_cannot_steer_a_terminal(tmp_path, records):
    kind(records, "benchmark")["title"] = "a\x1b]0;owned\x07\x1b[2J\x9b2J\nb\u202ec\u2067d\u200fe"
    title = load(written(tmp_path, records)).benchmarks[0].title
    assert title == "a�]0;owned��[2J�2J b�c�d\u200fe" and printable(title) == title


def test_templates_are_filled_word_by_word():
    words = {"value": "3 ns"}
    assert (
        fill("{value} {value.__class__} {value:>9} {value!r} {0} { {absent}", words)
        == "3 ns {value.__class__} {value:>9} {value!r} {0} { {absent}"
    )


def test_a_header_of_c_holds_no_code_of_a_log():
    from numabench.cli.advise import harmless

    assert "*/" not in harmless("a */ int x; **// /*") and "\\" not in harmless("a \\") and "??/" not in harmless("??/")


def test_lists_of_cpus_are_bounded():
    for text in ("0-4294967295", "99999999999", "0-70000"):
        with pytest.raises(UsageError):
            parse_cpus(text)
        with pytest.raises(ValueError):
            parse_list(text)


def test_pipes_are_not_waited_for(tmp_path, records):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(LogError, match="no regular file"):
        load(tmp_path / "pipe.jsonl")
    path = written(tmp_path, records)
    assert load(tmp_path).paths == (str(path),)


# --- matrices -------------------------------------------------------------------------------------------------------

FIGURES = [[None, 26.5, 31.0], [26.5, None, 40.0], [31.0, 40.0, None]]
PLAIN = ",26.5,31\n26.5,,40\n31,40,\n"


@pytest.mark.parametrize(
    ("data", "cpus"),
    [
        (PLAIN.encode(), (0, 1, 2)),
        (b"\xef\xbb\xbf" + PLAIN.encode(), (0, 1, 2)),
        (PLAIN.encode("utf-16"), (0, 1, 2)),
        (PLAIN.replace(",", ";").replace(".", ",").encode(), (0, 1, 2)),
        (b"nan,26.5,31\n26.5,NaN,40\n31,40,nan\n", (0, 1, 2)),
        (b",0,1,2\n0,,26.5,31\n1,26.5,,40\n2,31,40,\n", (0, 1, 2)),
        (b",4,6,9\n4,,26.5,31.0\n6,26.5,,40.0\n9,31.0,40.0,\n", (4, 6, 9)),
        (b"CPU,cpu4,cpu6,cpu9\ncpu4,,26.5,31\ncpu6,26.5,,40\ncpu9,31,40,\n", (4, 6, 9)),
        (b"0,1,2\n,26.5,31\n26.5,,40\n31,40,\n", (0, 1, 2)),
        (b" CPU    4    6    9\n   4    -   26.5   31\n   6   26.5    -   40\n   9   31   40    -\n", (4, 6, 9)),
        (b"\t26.5\t31\r\n26.5\t\t40\r\n31\t40\t\r\n", (0, 1, 2)),
    ],
)
def test_matrices_of_other_shapes_are_understood(tmp_path, data, cpus):
    path = tmp_path / "m.csv"
    path.write_bytes(data)
    assert read_labelled(path) == (cpus, FIGURES)


def test_figures_alike_above_and_beside_are_no_labels(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(",26,31\n26,,40\n31,40,\n")
    assert read_labelled(path)[0] == (0, 1, 2)


def test_labels_are_the_names_of_cpus():
    records = matrix_records(FIGURES, "x", "compare_exchange", "x", (4, 6, 9))
    assert records[0].machine["topology"]["cpus"] == "4,6,9" and records[1].axes[0].values == (4, 6, 9)
    assert {(s.parameters["cpu_a"], s.parameters["cpu_b"]): s.metrics["latency"] for s in records[2].samples}[4, 9] == 31.0
    assert set(records[1].views[0].both) == {4, 6, 9}


@pytest.mark.parametrize("text", ["nan,1e400\n1e400,nan\n", ",1_0\n1_0,\n", ",99999999,99999999\n", ",5,5\n5,,7.5\n5,7.5,\n" * 2])
def test_matrices_that_are_none_are_refused(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(LogError):
        read_labelled(path)


# --- snapshots ------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_neither_left_nor_waited_for(tmp_path):
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys" / "link").symlink_to("/etc/passwd")
    (tmp_path / "sys" / "folder").symlink_to("/etc")
    (tmp_path / "sys" / "text").write_text("a\x1b[2J\nb\n")
    os.mkfifo(tmp_path / "sys" / "pipe")
    tree = Tree(str(tmp_path))
    assert tree.read("sys/link") is None and tree.read("sys/pipe") is None and tree.names("sys/folder") == []
    assert tree.read("sys/text") == "a�[2J\nb" and len(tree.warnings) == 2


def test_a_damaged_archive_is_refused(tmp_path):
    import tarfile

    (tmp_path / "sys").mkdir()
    for number in range(40):
        (tmp_path / "sys" / f"f{number}").write_text(f"{number}\n")
    whole = tmp_path / "whole.tar"
    with tarfile.open(whole, "w") as archive:
        archive.add(tmp_path / "sys", "sys")
    data = whole.read_bytes()
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data[:8192] + b"\xff" * 600 + data[8792:])  # the header of a member in the middle
    packed = tmp_path / "bad.tar.gz"
    compressed = gzip.compress(data)
    packed.write_bytes(compressed[:-8] + b"\0\0\0\0" + compressed[-4:])  # another checksum
    with opened_root(str(whole)) as folder:
        assert len(os.listdir(Path(folder) / "sys")) == 40
    for path in (bad, packed):
        with pytest.raises(UsageError, match="cannot extract"), opened_root(str(path)):
            pass


# --- outputs and exit codes -----------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_stays(tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    target.write_text("old")
    target.chmod(0o640)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_whole(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["page.html"]
    monkeypatch.undo()
    write_whole(target, "new \ud800")
    assert target.read_text() == "new ?" and stat.S_IMODE(target.stat().st_mode) == 0o640
    with pytest.raises(FileExistsError):
        write_whole(target, "more", exclusive=True)
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_pipe_is_written_to_where_somebody_reads(tmp_path):
    pipe, text = tmp_path / "pipe", "x" * 200_000  # more than a pipe holds
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="nobody reads from this pipe"):
        write_whole(pipe, text)
    with open(tmp_path / "read", "wb") as file:
        reader = subprocess.Popen(["cat", pipe], stdout=file)
    code = f"from numabench.files import write_whole; from pathlib import Path; write_whole(Path('/dev/stdout'), {text!r})"
    through = subprocess.run([sys.executable, "-c", code.replace(text, "y")], stdout=subprocess.PIPE, check=True, cwd=REPOSITORY)
    assert through.stdout == b"y"
    for _ in range(1000):
        try:
            write_whole(pipe, text)
            break
        except OSError:  # `cat` has not opened it yet
            time.sleep(0.01)
    assert reader.wait(30) == 0 and (tmp_path / "read").read_text() == text and stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(OSError, match="No space left"):
        write_whole(Path("/dev/full"), text)


def test_an_unforeseen_error_is_one_line_and_70(monkeypatch, capsys):
    monkeypatch.setattr("numabench.runlog.read.load", lambda *_: {}["x\x1b[2J"])
    with pytest.raises(SystemExit) as caught:
        main(["export", "x"])
    err = capsys.readouterr().err
    assert caught.value.code == 70 and err.count("\n") == 1 and "--traceback" in err and "\x1b" not in err
    with pytest.raises(KeyError):
        main(["export", "x", "--traceback"])


@pytest.mark.parametrize("verb", ["report", "compare", "export"])
def test_a_closed_pipe_is_no_regression(tmp_path, records, verb):
    path = written(tmp_path, records)
    arguments = {"report": [path], "compare": [path, path, "--cells"], "export": [path]}[verb]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "numabench", verb, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) in ((0, ""), (4, "")) or (verb == "report" and done.returncode == 0), done


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_with_few_signs_loses_signs_alone(tmp_path, records, encoding):
    kind(records, "benchmark")["title"] = "µ → 猫"
    path = written(tmp_path, records)
    output = tmp_path / "a[/b].html"
    done = subprocess.run(
        [sys.executable, "-m", "numabench", "report", "--all", path, "-o", output],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        check=False,
    )
    assert done.returncode == 0 and b"?" in done.stdout and "猫" in output.read_text(encoding="utf-8"), done.stderr
    assert b"a[/b].html" in done.stdout.replace(b"\n", b"")


def test_words_and_numbers_in_one_column_are_parquet(tmp_path, records):
    other = json.loads(json.dumps(records).replace("toy_counters", "toy_words").replace("stride", "order"))
    fuzzing.rehash(other)
    path = written(tmp_path, [*records, *(r for r in other if r.get("name") == "toy_words" or r.get("benchmark") == "toy_words")])
    with pytest.raises(SystemExit) as caught:
        main(["export", str(path), "--format", "parquet", "-o", str(tmp_path / "x.parquet")])
    assert caught.value.code == 0


def test_no_name_steers_a_terminal(capsys):
    """Names of files and programs come from elsewhere as well as what stands in logs."""
    bad = "a\x1b[2J\x9b2J\x07\rb"
    console = Terminal(width=200, color_system="truecolor", force_terminal=True)
    for shown in (bad, Text(bad), Text.assemble((bad, "bold")), Padding(bad, (0, 2)), Panel(bad, title=bad)):
        console.print(shown)
    console.print("two\nlines")
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)  # colours
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out) and "two\nlines\n" in out and out.count("b") >= 6


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_lead_nowhere(tmp_path, records, closed):
    path, output = written(tmp_path, records), tmp_path / "x.csv"

    def close():
        for number in closed:
            os.close(number)

    for arguments, code in ((["list"], 0), (["nonsense"], 2), (["export", path, "-o", output], 0), (["runs", "-"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "numabench", *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            preexec_fn=close,
            check=False,
        )
        assert done.returncode == code and b"unforeseen" not in done.stderr, (arguments, done)
    assert output.read_text().startswith("run,machine,")


def test_a_terminal_of_ascii_gets_ascii(tmp_path):
    """Some bytes of UTF-8 are what a terminal of eight bits obeys: 0x9b is the beginning of its commands."""
    import pty

    path = fuzzing.SAMPLE
    for verb in (["advise", path], ["man"], ["list"], ["no\u00dbsuch"]):
        own, terminal = pty.openpty()
        environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "TERM": "dumb"}
        child = subprocess.Popen([sys.executable, "-m", "numabench", *verb], stdout=terminal, stderr=terminal, env=environment)
        os.close(terminal)
        said = b""
        with contextlib.suppress(OSError):  # how a terminal ends whose other side has gone
            while chunk := os.read(own, 1 << 16):
                said += chunk
        os.close(own)
        assert child.wait(60) in (0, 2) and len(said) > 40 and said.isascii(), said[:500]
