"""Reading run logs: forgiving about where a log ends, strict about what it says.

Logs come from elsewhere: whatever is in one, what is behind `load` sees records that `check.py` has looked at, and texts without control characters.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..errors import LogError
from ..model import DEPRECATED, BenchmarkRecord, EndRecord, Frozen, Header, Record, TrialRecord
from ..text import printable
from . import SCHEMA
from .check import MOST_BENCHMARKS, MOST_PARAMETERS, Samples, Wrong, check
from .rounds import unpack_trial
from .twins import told_apart

KINDS = ("header", "benchmark", "trial", "end")
LONGEST_LINE = 1 << 29  # bytes; one trial with all pairs of 1,024 CPUs has some 300 MB
MARK = b"\xef\xbb\xbf"  # some editors begin files of UTF-8 with it
STANDARD_INPUT = "-"
ENDINGS = (".jsonl", ".jsonl.gz")
PACKED = b"\x1f\x8b"  # what gzip's files begin with
#: Run logs shrink by 7 to 8 times, and what gzip packs by 1,030 at most: what grows more is no log. Small ones may.
MOST_RATIO, LEAST_UNPACKED = 200, 1 << 26
MOST_NAMED = 4  # runs
MOST_WARNINGS = 100  # that are kept of all logs together
MOST_INPUT = 1 << 31  # bytes of standard input
RECORDED = "give a .jsonl file that numabench run wrote"

_decoder = msgspec.json.Decoder(Record)
#: What a control character or half of a surrogate pair can look like in JSON.
_SUSPECT = re.compile(
    rb"\\[bfnrt]|\\u(?:00[0189]|007[fF]|202[89a-eA-E]|206[6-9]|[dD][89a-fA-F])|\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]"
)


class _Probe(msgspec.Struct):
    record: str | None = None
    schema: int | None = None


_probe = msgspec.json.Decoder(_Probe)


class RunLog(Frozen):
    """Everything that one or several run logs say. Records of different runs keep their `run` id."""

    paths: tuple[str, ...]
    headers: tuple[Header, ...]
    benchmarks: tuple[BenchmarkRecord, ...]
    trials: tuple[TrialRecord, ...]
    ends: tuple[EndRecord, ...]
    warnings: tuple[str, ...] = ()

    def by_machine(self) -> dict[str, list[Header]]:
        """Machine id -> its headers by time; the last one describes the machine as it is now."""
        found: dict[str, list[Header]] = {}
        for header in sorted(self.headers, key=lambda h: h.started):
            found.setdefault(header.machine_id, []).append(header)
        return found

    def header(self, run: str) -> Header:
        return next(h for h in self.headers if h.run == run)


def _inside(folder: str) -> Iterator[str]:
    """The logs in a folder and those below it that are not hidden; links to folders are not followed, and what cannot be looked into has none."""
    try:
        with os.scandir(folder) as entries:
            there = [*entries]
    except OSError:
        return
    for each in there:
        try:
            if each.is_dir(follow_symlinks=False):
                if not each.name.startswith("."):
                    yield from _inside(each.path)
            elif each.name.endswith(ENDINGS) and each.is_file():
                yield each.path
        except OSError:  # a link that leads in a circle
            continue


def find_logs(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are, `-` for standard input; folders are searched for `*.jsonl` and `*.jsonl.gz`, sorted by path,
    without those that are hidden (where a launch keeps what is not whole)."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [Path(name) for name in sorted(_inside(str(path)), key=lambda name: name.split(os.sep))]
            if not inside:
                raise LogError(f"no run log (*.jsonl) in folder {printable(str(path))}", "record one with: numabench run")
            found += inside
        elif str(path) == STANDARD_INPUT or path.exists():
            found.append(path)
        else:
            raise LogError(f"no such run log: {printable(str(path))}", "list what is there with: ls results/*")
    return list(dict.fromkeys(found))


def _ends_too_early(error: Exception, line: bytes, last: bool) -> bool:
    """Whether a line was cut off: the last one has no line end, and one in the middle (mended by a resume) stops inside JSON.

    A line of whole JSON, or one with bytes that are no text, was not cut: it is wrong.
    """
    if not isinstance(error, msgspec.DecodeError) or isinstance(error, msgspec.ValidationError):
        return False
    at = re.search(r"\(byte (\d+)\)$", str(error))  # cut inside a number, as in `1.`: malformed, but only at its very end
    return last or "truncated" in str(error) or (at is not None and int(at[1]) >= len(line))


def cleaned(value: Any) -> Any:
    """What JSON holds, its texts printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    if isinstance(value, dict):
        return {printable(name): cleaned(each) for name, each in value.items()}
    return value


def _is_suspect(text: bytes) -> bool:
    """Whether it may stand for a character that is not printable."""
    may = b"\\" in text or b"\x7f" in text
    if not may and not text.isascii():  # one byte is found in a tenth of the time that two take
        may = b"\xc2" in text or (b"\xe2" in text and (b"\xe2\x80" in text or b"\xe2\x81" in text))
    return may and _SUSPECT.search(text) is not None


def decoded(line: bytes, decoder: msgspec.json.Decoder = _decoder) -> Any:
    """The record of a line, or what another decoder makes of it, its texts printable."""
    if _is_suspect(line):
        return msgspec.convert(cleaned(msgspec.json.decode(line)), decoder.type)
    return decoder.decode(line)


def _decode_line(line: bytes, path: Path, number: int, last: bool = False) -> Record | str | None:
    """The record of a line; None if the line was cut off, and the name of its kind if this numabench knows no such records."""
    if len(line) > LONGEST_LINE:
        raise LogError(f"{printable(str(path))} line {number} has {len(line):,} bytes, over {LONGEST_LINE:,}", RECORDED)
    try:
        return decoded(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        if _ends_too_early(error, line, last):
            return None
        try:
            probe = _probe.decode(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
            probe = None
        if probe and probe.record is not None and probe.record not in KINDS:
            return printable(probe.record)[:60]
        if probe and probe.record == "header" and (probe.schema or 0) > SCHEMA:
            raise LogError(
                f"{printable(str(path))} line {number} is of schema {probe.schema}; this numabench reads up to {SCHEMA}",
                "pip install --upgrade numabench",
            ) from error
        what = "it is nested too deep" if isinstance(error, RecursionError) else printable(str(error))
        raise LogError(f"{printable(str(path))} line {number} is not a run log record ({what})", RECORDED) from error


def bytes_of(path: Path) -> bytes:
    """What a file or standard input holds, unpacked where it is compressed by gzip."""
    content = _standard_input() if str(path) == STANDARD_INPUT else _file_bytes(path)
    return _unpacked(content, path) if content.startswith(PACKED) else content


def _standard_input() -> bytes:
    content = sys.stdin.buffer.read(MOST_INPUT + 1)
    if len(content) > MOST_INPUT:
        raise LogError(f"standard input goes on beyond {MOST_INPUT >> 20:,} MiB", "write it into a file, and name that")
    return content


def _unpacked(content: bytes, path: Path) -> bytes:
    """All members of a gzip file. A few bytes can stand for gigabytes, which no run log's do: no more is unpacked than one could have."""
    most = max(LEAST_UNPACKED, MOST_RATIO * len(content))
    parts, size, rest = [], 0, content
    try:
        while rest.strip(b"\0"):
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                part = member.decompress(rest, most + 1 - size)
                size += len(part)
                if size > most:
                    raise LogError(
                        f"{printable(str(path))} unpacks to over {most >> 20:,} MiB, more than {MOST_RATIO} times its size",
                        RECORDED,
                    )
                parts.append(part)
                rest = member.unconsumed_tail
                if not part and not rest and not member.eof:  # cut: what there is, is used, as of any log
                    return b"".join(parts)
            rest = member.unused_data
    except zlib.error as error:
        raise LogError(f"{printable(str(path))} cannot be unpacked: {error}", RECORDED) from error
    return b"".join(parts)


def _file_bytes(path: Path) -> bytes:
    """A file's content; of what is no regular file (a pipe that nobody writes to, a device without an end) nothing is awaited."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise LogError(f"{printable(str(path))} is no regular file", "write what it gives into a file, and name that")
            return file.read()
    except OSError as error:
        raise LogError(f"cannot read {printable(str(path))}: {error.strerror}", "check its name and permissions") from error


def pieces(content: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """(line's number, bytes, whether they are the end of the file). Where a disk lost what was written there are NUL bytes: what stands before
    and after them are pieces of their own."""
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        pieces = line.split(b"\0") if b"\0" in line else [line]
        for place, piece in enumerate(pieces, 1):
            if piece.strip():
                yield number, piece, number == len(lines) or place < len(pieces)


def _plain(content: bytes) -> list[tuple[int, Record]] | None:
    """The records of a file of whole lines of known records and nothing that has to be cleaned, as nearly all are, which takes a third of the time; None for any other."""
    if len(content) > LONGEST_LINE or not content.endswith(b"\n") or _is_suspect(content):
        return None
    try:
        records = _decoder.decode_lines(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return None
    return [*enumerate(records, 1)] if len(records) == content.count(b"\n") else None  # else one has several lines, or none


def _one_by_one(content: bytes, path: Path) -> Iterator[tuple[int, Record | str | None]]:
    for number, line, last in pieces(content):
        yield number, _decode_line(line, path, number, last)


def numbered(path: Path, warnings: list[str] | None = None) -> list[tuple[int, Record]]:
    """All records of one file in order with their lines' numbers. What is left out is added to `warnings`."""
    name, said = printable(str(path)), [] if warnings is None else warnings
    records: list[tuple[int, Record]] = []
    unknown: dict[str, int] = {}
    content = bytes_of(path).removeprefix(MARK)
    for number, record in _plain(content) or _one_by_one(content, path):
        if record is None:
            if not records:
                raise LogError(f"{name} line {number} is not a run log record (it is no whole line of JSON)", RECORDED)
            said.append(f"{name} line {number} was cut off and is left out; the records around it are used")
            continue
        if isinstance(record, str):
            unknown[record] = unknown.get(record, 0) + 1
            continue
        if isinstance(record, Header) and record.schema > SCHEMA:
            raise LogError(
                f"{name} is of schema {record.schema}; this numabench reads up to {SCHEMA}", "pip install --upgrade numabench"
            )
        try:
            check(record)
        except Wrong as wrong:
            raise LogError(f"{name} line {number}: {wrong.what}", wrong.fix) from wrong
        records.append((number, record))
    if unknown:
        kinds = ", ".join(map(repr, sorted(unknown)[:5]))
        said.append(f"{name} has {sum(unknown.values())} records of kinds that this numabench does not know ({kinds}): left out")
    if not any(isinstance(record, Header) for _, record in records):
        raise LogError(f"{name} holds no run log header; it is empty or not a run log", RECORDED)
    return records


def read_log(path: str | Path, warnings: list[str] | None = None) -> list[Record]:
    """All records of one file in order, trials with all of their samples. A line that was cut off is left out, which is added to `warnings`."""
    return [_expanded(record, Path(path), number) for number, record in numbered(Path(path), warnings)]


def _expanded(record: Record, path: Path, number: int) -> Record:
    """A trial with all of its samples; any other record as it is."""
    try:
        return unpack_trial(record) if isinstance(record, TrialRecord) else record
    except Wrong as wrong:
        raise LogError(f"{printable(str(path))} line {number}: {wrong.what}", wrong.fix) from wrong


Origin = tuple[Path, int]


def _belonging(records: list[tuple[Origin, Record]], warnings: list[str]) -> list[Record]:
    """The records whose run has a header and, of trials, whose benchmark is described; trials are held against that description."""
    runs = {record.run for _, record in records if isinstance(record, Header)}
    described: dict[tuple[str, str], Samples] = {}
    for (path, number), record in records:
        if isinstance(record, BenchmarkRecord):
            found = Samples(record)
            before = described.setdefault((record.run, record.name), found)
            if (before.axes, before.metrics) != (found.axes, found.metrics):
                raise LogError(
                    f"{printable(str(path))} line {number} describes {record.name} of run {record.run} otherwise than a line before",
                    "give the logs of the two in two calls",
                )
    parameters = frozenset().union(*(found.axes for found in described.values()))
    if len(parameters) > MOST_PARAMETERS or len({name for _, name in described}) > MOST_BENCHMARKS:
        raise LogError(
            f"these logs describe over {MOST_BENCHMARKS} benchmarks, or over {MOST_PARAMETERS} parameters",
            "give fewer logs at a time",
        )
    kept, lost = [], {}
    for (path, number), record in records:
        if record.run not in runs:
            lost[f"run {record.run[:60]} has no header"] = lost.get(f"run {record.run[:60]} has no header", 0) + 1
            continue
        if isinstance(record, TrialRecord):
            samples = described.get((record.run, record.benchmark))
            if samples is None:
                what = f"{record.benchmark[:60]} of run {record.run[:60]} is not described"
                lost[what] = lost.get(what, 0) + 1
                continue
            try:
                samples.check(record)
            except Wrong as wrong:
                raise LogError(f"{printable(str(path))} line {number}: {wrong.what}", wrong.fix) from wrong
        kept.append(record)
    warnings += [f"{what}: {number} of its records are left out" for what, number in lost.items()]
    return kept


class _Seen:
    """Which records were there before. What they say is compared only where they are called alike: a digest of each would take longer than to decode it."""

    def __init__(self) -> None:
        self.first: dict[tuple, Record | None] = {}
        self.marks: set[bytes] = set()

    def is_new(self, record: Record) -> bool:
        name: tuple
        if isinstance(record, TrialRecord):
            name = record.run, record.session, record.benchmark, record.block, record.process
        else:
            name = type(record), record.run, getattr(record, "session", None), getattr(record, "name", None)
        if name not in self.first:
            self.first[name] = record
            return True
        if (before := self.first[name]) is not None:
            self.marks.add(self._mark(before))
            self.first[name] = None
        count = len(self.marks)
        self.marks.add(self._mark(record))
        return len(self.marks) > count

    @staticmethod
    def _mark(record: Record) -> bytes:
        return hashlib.sha256(msgspec.json.encode(record)).digest()


def _first(warnings: Iterable[str]) -> list[str]:
    """As many as a person reads."""
    found = list(warnings)
    return (
        found if len(found) <= MOST_WARNINGS else [*found[:MOST_WARNINGS], f"and {len(found) - MOST_WARNINGS:,} more like these"]
    )


def load(*paths: str | Path) -> RunLog:
    """One RunLog from files and folders; a record that appears twice (copied logs) counts once."""
    files = find_logs(paths)
    seen = _Seen()
    found: list[tuple[Origin, Record]] = []
    warnings: list[str] = []
    for path in files:
        for number, record in numbered(path, warnings):
            expanded = _expanded(record, path, number)
            if seen.is_new(expanded):
                found.append(((path, number), expanded))
    records = _belonging(found, warnings)

    def of(kind: type) -> tuple:
        return tuple(r for r in records if isinstance(r, kind))

    gone = dict.fromkeys(b.name for b in of(BenchmarkRecord) if b.phase == DEPRECATED)
    warnings += [f"{name} is deprecated: its results are read, and numabench no longer measures it" for name in gone]
    ended = {(e.run, e.session) for e in of(EndRecord)}
    cut = [header.run for header in of(Header) if (header.run, header.session) not in ended]
    if cut:
        named = ", ".join(cut[:MOST_NAMED]) + (f" and {len(cut) - MOST_NAMED:,} more" if len(cut) > MOST_NAMED else "")
        have, were = ("has", "it was") if len(cut) == 1 else ("have", "they were")
        warnings.append(
            f"{'run' if len(cut) == 1 else 'runs'} {named} {have} no end record: {were} cut short; what {'it holds' if len(cut) == 1 else 'they hold'} is used"
        )
    (headers,), shared = told_apart([of(Header)])
    return RunLog(
        paths=tuple(map(str, files)),
        headers=headers,
        benchmarks=of(BenchmarkRecord),
        trials=of(TrialRecord),
        ends=of(EndRecord),
        warnings=tuple(_first(dict.fromkeys((*warnings, *shared)))),
    )
