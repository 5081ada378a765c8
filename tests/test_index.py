"""Digests of logs, which are what tables of samples say, and the index that keeps them: whatever happens to it, a fleet is read as without one."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from synthetic import make_log, matrix, set_aside
from test_runlog import write

from numabench.analysis import collect, index
from numabench.analysis.digest import Cell, Visit, digest
from numabench.analysis.estimate import cell_means, process_medians
from numabench.analysis.identity import quantity_text
from numabench.analysis.index import NAME, Damaged, Entry, Index, Joining, Pieces
from numabench.analysis.structure import with_circumstances
from numabench.errors import LogError
from numabench.model import NEITHER, Header
from numabench.runlog.export import samples
from numabench.runlog.read import load
from numabench.runlog.visits import visits
from numabench.text import printable

ROOT = Path(__file__).parent.parent
LOGS = [*sorted((ROOT / "results" / "sample").glob("*.jsonl")), *sorted((ROOT / "tests" / "golden").glob("*.jsonl.gz"))]
HOUR = 3_600_000_000_000


# -- digests --------------------------------------------------------------------------------------------------------------


def by_tables(log) -> dict[str, dict[tuple, tuple[Cell, float]]]:
    """Run -> cells and their means, as the tables of reports and comparisons say."""
    first = {b.name: b.metrics[0] for b in log.benchmarks if b.metrics and b.metrics[0].polarity != NEITHER}
    records = {(b.run, b.name): b for b in log.benchmarks}
    points = {sample.case: sample.parameters for trial in log.trials for sample in trial.samples}
    frame = samples(log)
    frame = with_circumstances(
        frame[frame["metric"] == frame["benchmark"].map({name: metric.name for name, metric in first.items()})]
    )
    means = cell_means(process_medians(frame.assign(machine_id=frame["run"])))  # each visit like a machine of its own
    means = means[means["main"] & np.isfinite(means["mean"]) & ~means["linear"]]
    found: dict[str, dict[tuple, tuple[Cell, float]]] = {}
    for run, name, case, mean in zip(means["machine_id"], means["benchmark"], means["case"], means["mean"], strict=True):
        record, metric = records[run, name], first[name]
        cell = Cell(
            benchmark=name,
            title=record.title,
            metric=metric.name,
            unit=metric.unit,
            polarity=metric.polarity,
            parameters=points[case],
            quantity=quantity_text(record),
        )
        found.setdefault(run, {})[cell.key] = cell, float(mean)
    return found


def said(visit: Visit) -> dict[tuple, tuple[Cell, float]]:
    assert len(visit.cells) == len(visit.values)
    return {cell.key: (cell, value) for cell, value in zip(visit.cells, visit.values, strict=True)}


def is_same(log) -> int:
    """Cells that were compared: figures are the same to the last bit."""
    digested, expected = digest(log), by_tables(log)
    assert {visit.header.run: said(visit) for visit in digested if visit.cells} == expected
    for visit, visited in zip(digested, visits(log), strict=True):
        assert (visit.header.run, visit.status, visit.samples, visit.undisturbed) == (
            visited.run,
            visited.status,
            visited.samples,
            visited.undisturbed,
        )
    return sum(map(len, expected.values()))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_a_digest_says_what_tables_say(path):
    assert is_same(load(path)) > 20


def test_a_digest_of_several_visits_and_of_a_resumed_one():
    assert is_same(load(*LOGS[:2])) > 100
    log = make_log(sessions=3, processes=9)
    assert is_same(log) == 3 * 58
    resumed = with_run(log, lambda run: "one")  # a run of three sessions
    assert is_same(resumed) == 58 and digest(resumed)[0].header.started == log.headers[-1].started


def with_run(log, change):
    parts = {
        name: tuple(msgspec.structs.replace(record, run=change(record.run)) for record in getattr(log, name))
        for name in ("headers", "benchmarks", "trials", "ends")
    }
    return msgspec.structs.replace(log, **parts)


@pytest.mark.parametrize("seed", range(6))
def test_a_digest_of_whatever_samples_there_are(seed):
    """Disturbed ones, hops of several classes, cores that are shared, metrics that are missing or zero, and machines of the same name."""
    rng = random.Random(seed)
    log = make_log(
        sessions=2, processes=rng.choice((1, 4, 12)), samples=rng.choice((1, 3)), seed=seed, disturbed=rng.choice((0, 0.3, 0.9))
    )
    levels = {
        session.session: hops for session, hops in zip(log.headers, ((2e-8, 3.1e-8), (2.5e-8,)), strict=True)
    }  # of one machine one class

    def changed(trial, sample):
        place = rng.random()
        metrics = {} if place < 0.05 else dict.fromkeys(sample.metrics, 0.0) if rng.random() > 0.98 else sample.metrics
        level = rng.choice(levels[trial.session])
        hop = rng.choice((None, (level, level), (level, level), (9e-8, 1e-7), (0.0, 0.0)))
        width = rng.choice((None, (2.0, 2.2), (4.0, 4.0), (4.0, 4.1)))
        sample = msgspec.structs.replace(sample, metrics=metrics, hop=hop, width=width)
        return None if place < 0.02 else set_aside(sample, "run_delay") if place > 0.9 else sample

    trials = [
        msgspec.structs.replace(trial, samples=tuple(filter(None, (changed(trial, sample) for sample in trial.samples))))
        for trial in log.trials
    ]
    log = msgspec.structs.replace(log, trials=tuple(trials))
    if seed % 2:
        headers = tuple(msgspec.structs.replace(h, machine=h.machine | {"id": f"m{n}"}) for n, h in enumerate(log.headers))
        log = msgspec.structs.replace(log, headers=headers)
    is_same(log)


def test_a_log_without_a_sample_is_a_visit_without_cells():
    log = msgspec.structs.replace(make_log(), trials=())
    (visit,) = digest(log)
    assert (visit.cells, list(visit.values), visit.undisturbed) == ((), [], None)


def test_what_a_digest_says_is_of_its_version():
    """Where this fails, digests that are kept say something else than new ones: index.VERSION has to be another."""
    (visit,) = digest(load(LOGS[-1]))
    text = repr([(cell.key, cell.title, round(value, 6)) for cell, value in zip(visit.cells, visit.values, strict=True)])
    assert (index.VERSION, zlib.crc32(text.encode())) == (2, 3052798566)


# -- the index ------------------------------------------------------------------------------------------------------------


def one(alias: str, seed: int = 0, facts: dict | None = None):
    """A short log of a machine whose facts are in part long, and in part those of others."""
    long = {"configuration": {"kernel": "6.1", "command_line": "quiet " * 60, "own": f"{alias} " * 200}}
    return make_log(alias, processes=2, samples=1, seed=seed, benchmarks=(matrix,), machine=long | (facts or {}))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six visits to three machines, one log that is none, and one that was cut."""
    for number in range(6):
        aged(write(tmp_path / "runs" / f"n{number % 3}" / f"{number}.jsonl", one(f"n{number % 3}", number)))
    (tmp_path / "runs" / "broken.jsonl").write_text("no log\n")
    cut = (tmp_path / "runs" / "n0" / "0.jsonl").read_bytes()
    (tmp_path / "runs" / "cut.jsonl").write_bytes(cut[: len(cut) * 2 // 3])
    for name in ("broken", "cut"):
        aged(tmp_path / "runs" / f"{name}.jsonl")
    return tmp_path / "runs"


def aged(path: Path, hours: int = 1) -> Path:
    """Changed some hours ago: of what changed just now the time is not believed."""
    then = os.stat(path).st_mtime_ns // HOUR * HOUR - hours * HOUR
    os.utime(path, ns=(then, then))
    return path


@pytest.fixture
def count(monkeypatch):
    """The logs that are really read."""
    found = []
    monkeypatch.setattr(collect, "load", lambda path: found.append(Path(path).name) or load(path))
    return found


def read(folder: Path):
    """(what every visit says, what could not be read, notes)"""
    found, unread, notes = collect.read_fleet([folder])
    return [(visit.header, visit.status, visit.samples, visit.undisturbed, said(visit)) for visit in found], unread, notes


def test_a_log_is_read_once(folder, count):
    first = read(folder)
    assert len(first[0]) == 6 and set(first[1]) == {str(folder / "broken.jsonl")} and first[2] == []
    assert len(count) == 8
    count.clear()
    assert read(folder) == first and count == []
    expected = {
        visit.header.run: (visit.header, said(visit)) for path in sorted(folder.glob("n*/*")) for visit in digest(load(path))
    }
    assert {header.run: (header, cells) for header, *_, cells in first[0]} == expected


def test_visits_share_what_is_the_same(folder):
    for _ in range(2):  # new, and of the index
        found, *_ = collect.read_fleet([folder])
        assert len({id(visit.cells) for visit in found}) == 1 and len({id(visit.machine) for visit in found}) == 3
        assert len({id(visit.machine["configuration"]["command_line"]) for visit in found}) == 1
    with sqlite3.connect(folder / NAME) as database:
        pieces = [content for (content,) in database.execute("SELECT content FROM piece")]
    assert [sum(text in content for content in pieces) for text in (b"quiet quiet", b"n1 n1 n1", b'"toy_nodes"')] == [1, 1, 16]


def test_a_log_that_changed_is_read_again_and_one_that_is_gone_forgotten(folder, count):
    read(folder)
    count.clear()
    aged(write(folder / "n0" / "0.jsonl", one("n0", 9)))  # added to
    aged(write(folder / "new.jsonl", one("n7", 9)))
    (folder / "broken.jsonl").unlink()
    aged(write(folder / "broken.jsonl", one("n8", 9)))
    (folder / "n1" / "1.jsonl").unlink()
    after = read(folder)
    assert sorted(count) == ["0.jsonl", "broken.jsonl", "new.jsonl"] and not after[1]
    assert {header.alias for header, *_ in after[0]} == {"n0", "n1", "n2", "n7", "n8"}
    with sqlite3.connect(folder / NAME) as database:
        assert {os.fsdecode(path) for (path,) in database.execute("SELECT path FROM log")} == {
            str(path.relative_to(folder)) for path in folder.rglob("*.jsonl")
        }
    count.clear()
    assert read(folder) == after and count == []


def test_pieces_that_no_log_has_any_more_go(folder):
    read(folder)
    shutil.rmtree(folder / "n1")
    shutil.rmtree(folder / "n2")
    read(folder)
    with sqlite3.connect(folder / NAME) as database:
        left = b"".join(content for (content,) in database.execute("SELECT content FROM piece"))
    assert b"id-n0" in left and b"id-n1" not in left and b"n1 n1" not in left
    assert read(folder)[2] == []


def test_the_time_of_change_is_not_all(folder, count):
    path = folder / "n0" / "0.jsonl"
    read(folder)
    before = os.stat(path)

    def again() -> list[str]:
        count.clear()
        read(folder)
        return list(count)

    content = path.read_bytes()
    path.write_bytes(content.replace(b'"status":"complete"', b'"status":"budget"'))  # within the same tick of the clock
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert again() == ["0.jsonl"] and again() == []
    shutil.copyfile(path, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)
    aged(path, 3)  # copied: the same content with another time
    assert again() == [] and again() == []
    path.touch()
    assert again() == [] and again() == [], "what changed just now is told by its content"
    path.write_bytes(path.read_bytes().replace(b'"brand":"Toy', b'"brand":"Boy'))
    assert again() == ["0.jsonl"]


def test_a_log_of_a_moment_ago_may_change_within_the_same_tick(folder, count):
    path = write(folder / "new.jsonl", one("n5"))
    read(folder)
    when, content = os.stat(path).st_mtime_ns, path.read_bytes()
    path.write_bytes(content.replace(b'"alias":"n5"', b'"alias":"n6"'))
    os.utime(path, ns=(when, when))
    assert os.stat(path).st_size == len(content) and "n6" in {header.alias for header, *_ in read(folder)[0]}


def test_a_folder_that_moves_keeps_its_index(folder, count):
    before = read(folder)
    shutil.move(folder, folder.parent / "moved")
    count.clear()
    after = read(folder.parent / "moved")
    assert after[0] == before[0] and count == [] and "moved" in next(iter(after[1].values()))


def test_what_could_not_be_opened_is_tried_again(folder, count, monkeypatch):
    def unreadable(path):
        try:
            raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise LogError(f"cannot read {path}: Permission denied", "check its name and permissions") from error

    with monkeypatch.context() as patch:
        patch.setattr(collect, "load", lambda path: unreadable(path) if path.endswith("0.jsonl") else load(path))
        assert len(read(folder)[1]) == 2
    assert len(read(folder)[1]) == 1


def test_without_a_folder_nothing_is_kept(folder, count):
    logs = sorted(folder.glob("n*/*.jsonl"))
    for _ in range(2):
        found, *_ = collect.read_fleet(logs)
    assert len(found) == 6 and len(count) == 12 and not list(folder.rglob(f"*{NAME}*"))
    for left in (10, 1):  # of each folder its own index, whichever is named first, and of a file by itself none
        count.clear()
        found, *_ = collect.read_fleet([logs[0], folder, folder / "n0"])
        assert len(found) == 6 and len(count) == left + (left > 1)


def test_many_logs_are_read_by_processes(folder, monkeypatch):
    alone = read(folder)
    (folder / NAME).unlink()
    monkeypatch.setattr(collect, "MANY", 2)
    monkeypatch.setattr(collect, "CHUNK", 3)
    monkeypatch.setattr(collect.os, "sched_getaffinity", lambda who: {0, 1})
    told = []
    found, *_ = collect.read_fleet([folder], lambda done, of: told.append((done, of)))
    assert told == [(done, 8) for done in range(8)]
    assert read(folder) == alone and len(found) == 6


def test_where_processes_die_logs_are_read_all_the_same(folder, monkeypatch):
    def dying(chunks, workers):
        yield collect.read_logs(chunks[0])
        raise collect.BrokenProcessPool

    monkeypatch.setattr(collect, "MANY", 2)
    monkeypatch.setattr(collect, "CHUNK", 3)
    monkeypatch.setattr(collect.os, "sched_getaffinity", lambda who: {0, 1})
    monkeypatch.setattr(collect, "_by_processes", dying)
    assert len(read(folder)[0]) == 6


def test_an_interrupt_keeps_what_was_read(folder, count):
    def interrupt(done: int, of: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect.read_fleet([folder], interrupt)
    count.clear()
    assert len(read(folder)[0]) == 6 and len(count) == 4


# -- whatever happens to it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "error"),
    [("mkstemp", PermissionError(13, "Permission denied")), ("replace", OSError(28, "No space left on device"))],
)
def test_where_nothing_can_be_written_logs_are_read_all_the_same(folder, monkeypatch, what, error):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr({"mkstemp": index.tempfile, "replace": index.os}[what], what, fail)
        found, _, notes = read(folder)
    assert len(found) == 6 and len(notes) == 1 and error.strerror in notes[0]
    assert {path.name for path in folder.iterdir()} == {"n0", "n1", "n2", "broken.jsonl", "cut.jsonl"}


def test_a_folder_that_may_only_be_read_has_an_index_that_is_used(folder, count):
    before = read(folder)
    count.clear()
    folder.chmod(0o555)
    try:
        assert read(folder) == before and count == []
    finally:
        folder.chmod(0o755)


def test_a_damaged_index_is_made_anew(folder, count):
    """Bytes anywhere are others, or missing: nothing that it says is believed unless it is what was written."""
    truth = read(folder)
    whole = (folder / NAME).read_bytes()
    rng = random.Random(1)
    used = [place for place in range(len(whole)) if whole[place]]  # most of a page is empty
    anew = 0
    for trial in range(60):
        broken = bytearray(whole)
        for _ in range(rng.choice((1, 1, 5, 200))):
            broken[rng.choice(used)] ^= rng.randrange(1, 256)
        if trial % 10 == 9:
            del broken[rng.randrange(len(broken)) :]
        (folder / NAME).write_bytes(broken)
        for _ in range(2):
            found, unread, notes = read(folder)
            assert (found, unread) == truth[:2] and len(notes) <= 1
        anew += bool(notes)
        (folder / NAME).unlink()
    assert anew < 30


@pytest.mark.parametrize("kind", ["text", "database", "folder", "pipe", "link"])
def test_what_is_not_ours_is_left_alone(folder, kind, tmp_path):
    target = folder / NAME
    if kind == "text":
        target.write_text("my own notes\n")
    elif kind == "database":
        with sqlite3.connect(target) as database:
            database.execute("CREATE TABLE mine (a)")
    elif kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(tmp_path / "elsewhere")
    before = target.read_bytes() if target.is_file() else None
    found, _, notes = read(folder)
    assert len(found) == 6 and len(notes) == 1 and "nothing is kept" in notes[0]
    assert (target.read_bytes() if before is not None else None) == before and not (tmp_path / "elsewhere").exists()


def test_an_index_of_another_version_is_made_anew(folder, count, monkeypatch):
    first = read(folder)
    monkeypatch.setattr(index, "_MADE_BY", 7)
    count.clear()
    found, unread, notes = read(folder)
    assert (found, unread) == first[:2] and len(count) == 8 and "another version" in notes[0] and len(notes) == 1
    count.clear()
    assert read(folder) == first and count == []


def test_a_trigger_or_a_view_makes_it_another_database(folder, count):
    first = read(folder)
    with sqlite3.connect(folder / NAME) as database:
        database.execute("CREATE TRIGGER t AFTER INSERT ON piece BEGIN DELETE FROM log; END")
    count.clear()
    assert read(folder)[:2] == first[:2] and len(count) == 8


def test_of_two_who_write_the_second_adds(folder, count):
    """Both opened it before either had written."""
    two = [Index(folder), Index(folder)]
    for mine, name in zip(two, ("n0/0.jsonl", "n1/1.jsonl"), strict=True):
        (found,), pieces = collect.read_logs([collect.Job(str(folder / name), b"")])
        mine.keep(name.encode(), found.entry, pieces, True)
    for mine in two:
        mine.save()
        mine.close()
    count.clear()
    assert len(read(folder)[0]) == 6 and "1.jsonl" not in count and "0.jsonl" not in count and len(count) == 6


def test_two_processes_at_once_say_the_same(folder):
    code = "import sys; from numabench.analysis.collect import read_fleet; print(sum(sum(v.values) for v in read_fleet(sys.argv[1:])[0]))"
    both = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said_by = [process.communicate() for process in both]
    assert said_by[0] == said_by[1] and said_by[0][0] and not said_by[0][1]
    assert read(folder)[2] == [] and not list(folder.glob("*.part")) and not list(folder.glob(".*"))


HOSTILE = "'); DROP TABLE log;-- \"\\ %s \u202e \U0001f600 ?1 :a NULL"


def test_hostile_names_are_names(folder, count):
    facts = {"alias": HOSTILE, "id": HOSTILE[:40], "hostname": HOSTILE, HOSTILE: {HOSTILE: HOSTILE * 20}}
    for name in (f"{HOSTILE[:20]}.jsonl".replace("/", "_"), "line\nend?mode=rwc#x%41.jsonl"):
        aged(write(folder / name, one("x", len(name), facts)))
    odd = os.fsencode(folder) + b"/\xff\xfe.jsonl"
    aged(Path(os.fsdecode(shutil.copyfile(folder / "n0" / "0.jsonl", os.fsdecode(odd)))))
    first = read(folder)
    count.clear()
    assert read(folder) == first and count == [] and printable(HOSTILE) in {header.alias for header, *_ in first[0]}
    (folder / "a?b#c%41\n").mkdir()
    shutil.move(folder / "n0", folder / "a?b#c%41\n" / "n0")
    for _ in range(2):
        assert len(read(folder / "a?b#c%41\n")[0]) == 2


def rebuilt(described: Header, **changes) -> list[Visit]:
    """What comes of a visit in pieces that somebody else made."""
    pieces = Pieces()
    (visit,) = digest(one("n1"))
    kept = pieces.kept(msgspec.structs.replace(visit, header=described))
    entry = Entry(size=1, mtime_ns=1, visits=(msgspec.structs.replace(kept, **changes),))
    return Joining(pieces.__getitem__).visits(entry)


def test_an_index_from_elsewhere_is_checked_like_a_log():
    header = one("n1").headers[0]
    (visit,) = rebuilt(
        msgspec.structs.replace(header, machine=header.machine | {"alias": "\x1b]0;title\x07", "x": "\x1b[2J" * 100}),
        status="\x1b",
    )
    assert visit.header.alias == "\ufffd]0;title\ufffd" and visit.header.machine["x"].isprintable() and visit.status.isprintable()
    deep: dict = {}
    for _ in range(200):
        deep = {"a": deep}
    for bad in ({"topology": {"nodes": [1]}}, {"x": deep}, {"alias": 5}):
        with pytest.raises(Damaged):
            rebuilt(msgspec.structs.replace(header, machine=header.machine | bad))
    for changes in (
        {"values": b"1234567"},
        {"values": bytes(8)},
        {"values": np.full(16, np.nan).tobytes()},
        {"values": np.full(16, np.inf).tobytes()},
        {"undisturbed": float("nan")},
        {"cells": b"x" * 16},
        {"header": b"[]"},
        {"header": b"{}"},
    ):
        with pytest.raises(Damaged):
            rebuilt(header, **changes)


def test_whatever_a_log_may_hold_is_kept(folder, count):
    """Texts that are long together, whole numbers beyond 64 bits, backslashes."""
    log = one("n9", 9, {"x": 10**40, "y": "C:\\new\\bin \u2028"})
    method = {f"text {number}": "\\n" * 9_000 for number in range(3)} | {"clock": "monotonic"}
    described = tuple(msgspec.structs.replace(record, method=method) for record in log.benchmarks)
    aged(write(folder / "odd.jsonl", msgspec.structs.replace(log, benchmarks=described)))
    first = read(folder)
    count.clear()
    assert read(folder) == first and not count and len(first[0]) == 7


def test_facts_come_back_in_their_order(folder):
    machine = {
        "b": 1,
        "hardware": {"z": "x" * 300, "a": 2**70, "list": [[1, {"k": None}]] * 40},
        "a": {},
        "text": "y" * 300,
        "none": None,
    }
    pieces = Pieces()
    joined = Joining(pieces.__getitem__)
    again = joined._once(joined._facts, pieces.facts(machine))
    assert msgspec.json.encode(again) == msgspec.json.encode(machine)


def test_the_index_may_be_read_by_whom_the_logs_may(folder):
    mask = os.umask(0o022)
    try:
        read(folder)
        assert stat.S_IMODE(os.stat(folder / NAME).st_mode) == 0o644
    finally:
        os.umask(mask)
