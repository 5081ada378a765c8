"""What fleets need of logs, kept beside them: `index.sqlite` in a folder of logs. A cache: whoever deletes it waits once more.

The file is never changed in place: a changed copy takes its place at once, whole. So nothing locks, file systems of clusters without locks will do, whoever
reads has what was there when they began, and of two who write at once the later one adds to what the earlier one left. Logs are told by path below the
folder, size and time of change; where the time alone is another, or was too near to tell, by their SHA-256.

What visits share (facts of machines, cells) are pieces, each of which is called by the hash of its content, and once there. What is read is checked like a log: the
file may be damaged, or come from elsewhere together with the logs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import zlib
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .. import __version__
from ..files import umask
from ..model import Frozen, Header
from ..runlog import SCHEMA
from ..runlog.check import LARGEST, LONGEST_NAME, check_facts, check_machine, check_moment, check_plan, check_text, check_values
from ..runlog.read import decoded
from ..runlog.wrong import Wrong
from ..text import printable
from .digest import Cell, Visit

NAME = "index.sqlite"
#: Of what a digest holds: another number makes all of them anew, as another numabench, which may read other logs, and another order of bytes do.
VERSION = 2
_MADE_BY = zlib.crc32(f"{VERSION} {SCHEMA} {__version__} {sys.byteorder}".encode()) & 0x7FFFFFFF
_OURS = 0x6E756D61  # application_id: "numa"
_TABLES = (
    "CREATE TABLE log (path BLOB PRIMARY KEY, seal BLOB, content BLOB) WITHOUT ROWID",
    "CREATE TABLE piece (id BLOB PRIMARY KEY, content BLOB) WITHOUT ROWID",
)
_SECONDS = 2.0  # of a log that changed so recently the time does not tell whether it changed again: file systems count in up to two seconds
_LARGE = 200  # bytes of facts from which on they are a piece of their own
_FAULTS = (sqlite3.Error, msgspec.MsgspecError, Wrong, ValueError, TypeError, LookupError, RecursionError, OverflowError)


class Kept(Frozen, array_like=True):
    """A visit in pieces. `header`: without what is in these."""

    header: bytes
    facts: tuple[bytes, bytes, bytes]  # of machine, plan, arguments
    status: str
    samples: int
    undisturbed: float | None
    cells: bytes
    values: bytes


class Entry(Frozen, array_like=True):
    """What is known of a log. `mtime_ns` is -1 where it tells nothing; `sha256` is empty and `why` is said where it cannot be read, with HERE for its name."""

    size: int
    mtime_ns: int
    sha256: bytes = b""
    why: str = ""
    visits: tuple[Kept, ...] = ()


HERE = "\0"
FACTS = ("machine", "plan", "arguments")
CHECKS = check_machine, check_plan, check_facts  # of these
_entries = msgspec.msgpack.Decoder(Entry)
_header, _cell, _facts, _any = (msgspec.json.Decoder(kind) for kind in (Header, Cell, dict[str, Any], Any))
_split = msgspec.msgpack.Decoder(tuple[bytes, list[tuple[list[str], bytes]]])
_ids = msgspec.msgpack.Decoder(list[bytes])


def named(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


# -- a log in pieces ------------------------------------------------------------------------------------------------------


class Pieces(dict[bytes, bytes]):
    """Name -> content."""

    def add(self, content: bytes) -> bytes:
        name = named(content)
        self[name] = content
        return name

    def kept(self, visit: Visit) -> Kept:
        parts = tuple(self.facts(getattr(visit.header, name)) for name in FACTS)
        return Kept(
            header=msgspec.json.encode(msgspec.structs.replace(visit.header, machine={}, plan={}, arguments={})),
            facts=parts,
            status=visit.status,
            samples=visit.samples,
            undisturbed=visit.undisturbed,
            cells=self.add(msgspec.msgpack.encode([self.add(msgspec.json.encode(cell)) for cell in visit.cells])),
            values=array("d", visit.values).tobytes(),
        )

    def facts(self, facts: Mapping[str, Any]) -> bytes:
        """What is large in them, two levels deep, is a piece of its own: most of what one machine's facts say another's or the last visit's say as well."""
        small: dict[str, Any] = {}
        large: list[tuple[list[str], bytes]] = []
        for name, value in facts.items():
            if isinstance(value, dict):
                inner = small[name] = {}
                for part, own in value.items():
                    self._part(inner, part, own, [name, part], large)
            else:
                self._part(small, name, value, [name], large)
        return self.add(msgspec.msgpack.encode((msgspec.json.encode(small), large)))

    def _part(self, into: dict[str, Any], name: str, value: Any, path: list[str], large: list[tuple[list[str], bytes]]) -> None:
        content = msgspec.json.encode(value) if isinstance(value, (str, list, dict)) else b""
        into[name] = value if len(content) < _LARGE else None
        if len(content) >= _LARGE:
            large.append((path, self.add(content)))


class Damaged(Exception):
    """A piece is not what its name says, or nothing that a log could hold."""


class Joining:
    """Visits of pieces; what is the same is one object. `piece` gives the content of a name, or raises LookupError."""

    def __init__(self, piece: Callable[[bytes], bytes]):
        self.piece = piece
        self.made: dict[tuple[Callable, bytes], Any] = {}
        self.looked: set[tuple[Callable, bytes]] = set()  # at facts by a check: most are those of many visits

    def visits(self, entry: Entry) -> list[Visit]:
        """Raises Damaged."""
        try:
            return [self._visit(kept) for kept in entry.visits]
        except _FAULTS as error:
            raise Damaged from error

    def _visit(self, kept: Kept) -> Visit:
        header = decoded(kept.header, _header)
        check_moment(header.started)
        check_text("the name of a visit", header.run, header.session, header.numabench, most=LONGEST_NAME)
        machine, plan, arguments = (self._once(self._facts, name) for name in kept.facts)
        for look, name, facts in zip(CHECKS, kept.facts, (machine, plan, arguments), strict=True):
            if (look, name) not in self.looked:
                look(facts)
                self.looked.add((look, name))
        header = msgspec.structs.replace(header, machine=machine, plan=plan, arguments=arguments)
        cells = self._once(self._cells, kept.cells)
        values = array("d", kept.values)
        share = kept.undisturbed
        if len(values) != len(cells) or not (np.abs(values) <= LARGEST).all():
            raise Wrong("values that are none")
        if share is not None and not 0 <= share <= 1:
            raise Wrong("a share that is none")
        return Visit(
            header=header, status=printable(kept.status), samples=kept.samples, undisturbed=share, cells=cells, values=values
        )

    def _once(self, make: Callable[[bytes], Any], name: bytes) -> Any:
        known = self.made.get((make, name))
        if known is None:
            content = self.piece(name)
            if named(content) != name:
                raise Wrong("a piece that is another")
            known = self.made[make, name] = make(content)
        return known

    def _facts(self, content: bytes) -> dict[str, Any]:
        small, large = _split.decode(content)
        facts = decoded(small, _facts)
        for path, name in large:
            within = facts
            for part in path[:-1]:
                within = within[part]
            within[path[-1]] = self._once(self._fact, name)
        return facts

    def _fact(self, content: bytes) -> Any:
        return decoded(content, _any)

    def _cells(self, content: bytes) -> tuple[Cell, ...]:
        return tuple(self._once(self._cell, name) for name in _ids.decode(content))

    def _cell(self, content: bytes) -> Cell:
        cell = decoded(content, _cell)
        check_values("a cell", cell.parameters.values())
        return cell


# -- the file -------------------------------------------------------------------------------------------------------------


class Stamp(Frozen):
    size: int
    mtime_ns: int


def stamp_of(path: str | Path) -> Stamp | None:
    """None where there is no such file any more."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Stamp(size=found.st_size, mtime_ns=found.st_mtime_ns)


def telling(stamp: Stamp, read_at: float) -> int:
    """The time of change of a log that was read then, or -1 where it may have changed later and still have this time."""
    return stamp.mtime_ns if stamp.mtime_ns < (read_at - _SECONDS) * 1e9 else -1


class Index:
    """The digests of the logs in `folder`; without one only what is kept while the process runs. `note`: why it was not used, or was made anew."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.path = folder / NAME if folder else None
        self.note = ""
        self.fresh: dict[bytes, Entry] = {}  # by path below the folder
        self.pieces = Pieces()  # of these
        self.outdated: set[bytes] = set()
        self.usable = folder is not None  # it may be written,
        self.sound = True  # and what is there added to
        self.old: sqlite3.Connection | None = self._opened() if self.path else None
        self.joining = Joining(self._piece)

    def _opened(self) -> sqlite3.Connection | None:
        try:
            known = os.lstat(self.path)
            if not stat.S_ISREG(known.st_mode):
                return self._foreign("is no file")
            if not known.st_size:
                return None
            if not is_ours(self.path):
                return self._foreign("is none of numabench's")
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._foreign(f"cannot be read ({error.strerror})")
        try:
            database = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            if not fits(database):
                database.close()
                return self._anew("another version of numabench made it")
            return database
        except _FAULTS as error:
            return self._anew(f"it is damaged ({printable(str(error))[:80]})")

    def _foreign(self, why: str) -> None:
        self.usable = False
        self.note = f"{printable(str(self.path))} {why}: all logs are read, and nothing is kept; remove it to have an index there"

    def _anew(self, why: str) -> None:
        self.sound = False
        self.note = f"{printable(str(self.path))} is made anew: {why}"

    def known(self, stamps: Mapping[bytes, Stamp]) -> tuple[dict[bytes, tuple[str, list[Visit]]], dict[bytes, bytes]]:
        """(path -> why it cannot be read, visits) of these logs, and (path -> SHA-256) of those of which the time of change alone is another. A damaged file is given up."""
        found: dict[bytes, tuple[str, list[Visit]]] = {}
        hashes: dict[bytes, bytes] = {}
        if self.old is None:
            return found, hashes
        try:
            for path, seal, content in self.old.execute("SELECT path, seal, content FROM log"):
                if named(path + b"\0" + content) != seal:
                    raise Damaged("a seal is broken")
                stamp = stamps.get(path)
                if stamp is None:
                    self.outdated.add(path)
                    continue
                entry = _entries.decode(content)
                if (entry.size, entry.mtime_ns) == (stamp.size, stamp.mtime_ns):
                    found[path] = HERE.join(map(printable, entry.why.split(HERE))), self.joining.visits(entry)
                elif entry.size == stamp.size and entry.sha256:
                    hashes[path] = entry.sha256
        except (*_FAULTS, Damaged) as error:
            self.old.close()
            self.old = None
            self.outdated.clear()
            self.joining = Joining(self._piece)
            self._anew(f"it is damaged ({printable(str(error.__cause__ or error))[:80]})")
            return {}, {}
        return found, hashes

    def again(self, path: bytes, mtime_ns: int) -> list[Visit]:
        """The visits of a log of which the time of change alone is another. Raises Damaged."""
        try:
            (content,) = self.old.execute("SELECT content FROM log WHERE path = ?", (path,)).fetchone()
            entry = msgspec.structs.replace(_entries.decode(content), mtime_ns=mtime_ns)
            visits = self.joining.visits(entry)
        except _FAULTS as error:
            raise Damaged from error
        self.fresh[path] = entry
        return visits

    def keep(self, path: bytes, entry: Entry, pieces: Mapping[bytes, bytes], lasting: bool) -> list[Visit]:
        """The visits of a log that was read; remembered where it is `lasting`."""
        self.pieces.update(pieces)
        if lasting:
            self.fresh[path] = entry
        return self.joining.visits(entry)

    def _piece(self, name: bytes) -> bytes:
        content = self.pieces.get(name)
        if content is None and self.old is not None:
            row = self.old.execute("SELECT content FROM piece WHERE id = ?", (name,)).fetchone()
            content = row and row[0]
        if not isinstance(content, bytes):
            raise LookupError("a piece is missing")
        return content

    def close(self) -> None:
        if self.old is not None:
            self.old.close()

    def save(self) -> None:
        """Puts what is new, and not what is gone, into the file. Where that cannot be done, `note` says so."""
        if not self.usable or not (self.fresh or self.outdated):
            return
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{NAME}.", suffix=".part", dir=self.folder)
            os.close(handle)
            self._write(temporary)
            os.chmod(temporary, 0o666 & ~umask())
            os.replace(temporary, self.path)
            self.fresh, self.outdated, self.sound = {}, set(), True
        except (OSError, sqlite3.OperationalError) as error:  # no room, or no permission
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.note = f"no index is kept in {printable(str(self.folder))} ({why}): next time all new logs are read again"
        except _FAULTS:  # a part of it that was not looked at
            with contextlib.suppress(OSError):
                if is_ours(self.path):
                    os.unlink(self.path)
            self.note = f"{printable(str(self.path))} is damaged: all logs are read again the next time"
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def _write(self, target: str) -> None:
        """Adds to what is there now, which another process may have written meanwhile."""
        if self.sound:
            with contextlib.suppress(OSError):
                shutil.copyfile(self.path, target)
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA page_size = 65536")  # a row is some 2 KB: in small pages most would take two
            if not fits(database):
                for table in _TABLES:
                    database.execute(table)
                database.execute(f"PRAGMA application_id = {_OURS}")
                database.execute(f"PRAGMA user_version = {_MADE_BY}")
            database.execute("BEGIN")
            database.executemany("INSERT OR IGNORE INTO piece VALUES (?, ?)", self.pieces.items())
            database.executemany("DELETE FROM log WHERE path = ?", ((path,) for path in self.outdated))
            database.executemany("INSERT OR REPLACE INTO log VALUES (?, ?, ?)", map(_row, self.fresh.items()))
            if self.outdated:
                _tidy(database)
            database.execute("COMMIT")
        with open(target, "rb") as file:
            os.fsync(file.fileno())


def is_ours(path: Path) -> bool:
    with open(path, "rb") as file:
        begin = file.read(100)
    return begin.startswith(b"SQLite format 3\0") and begin[68:72] == _OURS.to_bytes(4, "big")


def fits(database: sqlite3.Connection) -> bool:
    """Whether it is laid out as this version does: with no table, view or trigger more."""
    (made_by,) = database.execute("PRAGMA user_version").fetchone()
    return made_by == _MADE_BY and sorted(sql for (sql,) in database.execute("SELECT sql FROM sqlite_master")) == sorted(_TABLES)


def _row(kept: tuple[bytes, Entry]) -> tuple[bytes, bytes, bytes]:
    path, entry = kept
    content = msgspec.msgpack.encode(entry)
    return path, named(path + b"\0" + content), content


def _tidy(database: sqlite3.Connection) -> None:
    """Leaves out the pieces that no log has any more."""
    used: set[bytes] = set()
    for (content,) in database.execute("SELECT content FROM log"):
        for kept in _entries.decode(content).visits:
            used |= {*kept.facts, kept.cells}
    for name in [*used]:
        (content,) = database.execute("SELECT content FROM piece WHERE id = ?", (name,)).fetchone()
        with contextlib.suppress(msgspec.MsgspecError):
            used.update(_ids.decode(content))
        with contextlib.suppress(msgspec.MsgspecError):
            used.update(part for _, part in _split.decode(content)[1])
    gone = [(name,) for (name,) in database.execute("SELECT id FROM piece") if name not in used]
    database.executemany("DELETE FROM piece WHERE id = ?", gone)
