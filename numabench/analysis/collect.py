"""The visits of a fleet: what the indexes of the folders that are named know of their logs, and what the others say, read by several processes where these are many."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path

import msgspec

from ..errors import LogError
from ..runlog.read import find_logs, load
from ..runlog.twins import told_apart
from ..text import printable
from .digest import Visit, digest
from .index import HERE, Damaged, Entry, Index, Pieces, stamp_of, telling

Tell = Callable[[int, int], None]  # logs that were read, of how many
MANY = 64  # logs: of fewer, starting processes takes as long as reading them
CHUNK = 4  # logs that a process reads at a time: an interrupt waits for some of these
MOST_PROCESSES = 8
SAVED_EVERY = 60.0  # seconds: what is lost where the process is killed
NEW, SAME, PASSING = (
    "new",
    "same",
    "passing",
)  # what was found of a log: a digest, that it has not changed, or what need not be so the next time


class Job(msgspec.Struct, array_like=True):
    """A log to read. `sha256` of what it was when it was read before, if it was; None where nothing is kept."""

    path: str
    sha256: bytes | None


class Found(msgspec.Struct, array_like=True):
    state: str
    entry: Entry


def read_fleet(paths: Iterable[str | Path], tell: Tell = lambda done, of: None) -> tuple[list[Visit], dict[str, str], list[str]]:
    """(visits by time, logs that cannot be read and why, notes). A visit that lies in two logs counts once. Raises LogError where no log can be read."""
    found: dict[str, Visit] = {}
    unread: dict[str, str] = {}
    notes: list[str] = []
    seen: set[Path] = set()
    for path in dict.fromkeys(map(Path, paths)):
        logs = find_logs([path])
        seen.update(logs)
        with contextlib.closing(Index(path if path.is_dir() else None)) as index:
            said = {log: (why, visits) for log, why, visits in _of_folder(index, logs, tell)}
        for log in logs:  # in their own order, whatever the index knew
            why, visits = said[log]
            if why:
                unread[str(log)] = why
            for visit in visits:
                known = found.get(visit.header.run)
                if known is None or known.samples < visit.samples:  # a copy that was cut says less
                    found[visit.header.run] = visit
        notes += [index.note] if index.note else []
    if not found:
        raise LogError(
            f"none of {len(seen)} logs can be read: {next(iter(unread.values()), 'they hold no visit')}",
            "numabench contract check LOG",
        )
    ordered = sorted(found.values(), key=lambda visit: visit.header.started)
    (told,), shared = told_apart([[visit.header for visit in ordered]])
    return (
        [msgspec.structs.replace(visit, header=header) for visit, header in zip(ordered, told, strict=True)],
        unread,
        [*notes, *shared],
    )


def _of_folder(index: Index, logs: list[Path], tell: Tell) -> Iterator[tuple[Path, str, list[Visit]]]:
    """(log, why it cannot be read, its visits). What is new is in the index, however this ends."""
    kept = index.folder is not None
    begin = len(os.path.join(index.folder, "")) if kept and index.folder != Path() else 0
    names = {os.fsencode(str(log)[begin:]): log for log in logs}
    stamps = {name: stamp for name, log in names.items() if kept and (stamp := stamp_of(log)) is not None}
    with uncollected():
        known, hashes = index.known(stamps)
    for name, (why, visits) in known.items():
        yield names[name], why.replace(HERE, printable(str(names[name]))), visits
    left = [(name, log) for name, log in names.items() if name not in known]
    jobs = [Job(str(log), hashes.get(name, b"") if kept else None) for name, log in left]
    saved = time.monotonic()
    try:
        for done, ((name, log), (found, pieces)) in enumerate(zip(left, read_all(jobs), strict=True)):
            tell(done, len(left))
            visits = None
            if found.state == SAME:
                try:
                    visits = index.again(name, found.entry.mtime_ns)
                except Damaged:
                    found, pieces = next(read_all([Job(str(log), b"")]))
            if visits is None:
                visits = index.keep(name, found.entry, pieces, found.state == NEW)
            yield log, found.entry.why.replace(HERE, printable(str(log))), visits
            if time.monotonic() - saved > SAVED_EVERY:
                index.save()
                saved = time.monotonic()
    finally:
        index.save()


# -- reading --------------------------------------------------------------------------------------------------------------


def read_all(jobs: list[Job]) -> Iterator[tuple[Found, Pieces]]:
    """What each log says, in order; where that is worth it by several processes."""
    workers = min(MOST_PROCESSES, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    done = 0
    if len(jobs) >= MANY and workers > 1:
        chunks = [jobs[at : at + CHUNK] for at in range(0, len(jobs), CHUNK)]
        try:
            for found, pieces in _by_processes(chunks, workers):
                done += len(found)
                yield from ((each, pieces) for each in found)
        except (BrokenProcessPool, ImportError, OSError):  # no processes here, or one was killed: slower, then
            pass
    for job in jobs[done:]:
        (found,), pieces = read_logs([job])
        yield found, pieces


def _by_processes(chunks: list[list[Job]], workers: int) -> Iterator[tuple[list[Found], Pieces]]:
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        yield from pool.map(read_logs, chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A reading process: Ctrl-C is its parent's, and it ends with that, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        parent_process().join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Records hold no circles: to look for some takes a third of the time that reading them does."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_logs(jobs: list[Job]) -> tuple[list[Found], Pieces]:
    pieces = Pieces()
    with uncollected():
        return [read_one(job, pieces) for job in jobs], pieces


def read_one(job: Job, pieces: Pieces) -> Found:
    began, stamp = time.time(), stamp_of(job.path)
    size, mtime_ns = (stamp.size, telling(stamp, began)) if stamp else (-1, -1)
    if job.sha256 and _hash(job.path) == job.sha256:
        return Found(SAME, Entry(size=size, mtime_ns=mtime_ns))
    try:
        visits = digest(load(job.path))
    except LogError as error:
        lasting = stamp is not None and not isinstance(error.__cause__, OSError)
        why = error.message.replace(printable(job.path), HERE)
        return Found(NEW if lasting else PASSING, Entry(size=size, mtime_ns=mtime_ns, why=why))
    content = b"" if job.sha256 is None else _hash(job.path)
    kept = tuple(pieces.kept(visit) for visit in visits)
    state = NEW if stamp is not None and stamp_of(job.path) == stamp else PASSING  # else it was written to meanwhile
    return Found(state, Entry(size=size, mtime_ns=mtime_ns, sha256=content, visits=kept))


def _hash(path: str) -> bytes:
    """Empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).digest()
    except OSError:
        return b""
