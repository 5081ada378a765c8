"""Reading run logs: forgiving about where a log ends, strict about what it says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..errors import LogError
from ..model import BenchmarkRecord, EndRecord, Frozen, Header, Record, TrialRecord
from . import SCHEMA
from .rounds import unpack_trial

_decoder = msgspec.json.Decoder(Record)


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

    def header(self, run: str) -> Header:
        return next(h for h in self.headers if h.run == run)


def find_logs(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are; folders are searched for `*.jsonl`, sorted by path."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(path.rglob("*.jsonl"))
            if not inside:
                raise LogError(f"no run log (*.jsonl) in folder {path}", "record one with: numabench run")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise LogError(f"no such run log: {path}", "list what is there with: ls results/*")
    return list(dict.fromkeys(found))


def _ends_too_early(error: Exception, line: bytes, last: bool) -> bool:
    """Whether a line was cut off: the last one has no line end, and one in the middle (mended by a resume) stops inside JSON.

    A line of whole JSON, or one with bytes that are no text, was not cut: it is wrong.
    """
    if not isinstance(error, msgspec.DecodeError) or isinstance(error, msgspec.ValidationError):
        return False
    at = re.search(r"\(byte (\d+)\)$", str(error))  # cut inside a number, as in `1.`: malformed, but only at its very end
    return last or "truncated" in str(error) or (at is not None and int(at[1]) >= len(line))


def _decode_line(line: bytes, path: Path, number: int, last: bool = False) -> Record | None:
    """The record of a line; None if the line was cut off."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if _ends_too_early(error, line, last):
            return None
        try:
            probe = _probe.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            probe = None
        if probe and probe.record == "header" and (probe.schema or 0) > SCHEMA:
            raise LogError(
                f"{path} line {number} is of schema {probe.schema}; this numabench reads up to {SCHEMA}",
                "pip install --upgrade numabench",
            ) from error
        raise LogError(
            f"{path} line {number} is not a run log record ({error})", "give a .jsonl file that numabench run wrote"
        ) from error


def read_log(path: str | Path, warnings: list[str] | None = None) -> list[Record]:
    """All records of one file in order, trials with all of their samples. A line that was cut off is left out, which is added to `warnings`."""
    return [unpack_trial(record) if isinstance(record, TrialRecord) else record for record in read_records(path, warnings)]


def read_records(path: str | Path, warnings: list[str] | None = None) -> list[Record]:
    """All records as they are in the file."""
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror}", "check its name and permissions") from error
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = _decode_line(line, path, number, last=number == len(lines))
        if record is None:
            if not records:
                raise LogError(
                    f"{path} line {number} is not a run log record (it is no whole line of JSON)",
                    "give a .jsonl file that numabench run wrote",
                )
            if warnings is not None:
                warnings.append(f"{path} line {number} was cut off and is left out; the records around it are used")
            continue
        if isinstance(record, Header) and record.schema > SCHEMA:
            raise LogError(
                f"{path} is of schema {record.schema}; this numabench reads up to {SCHEMA}", "pip install --upgrade numabench"
            )
        records.append(record)
    if not any(isinstance(r, Header) for r in records):
        raise LogError(
            f"{path} holds no run log header; it is empty or not a run log", "give a .jsonl file that numabench run wrote"
        )
    return records


def load(*paths: str | Path) -> RunLog:
    """One RunLog from files and folders; a record that appears twice (copied logs) counts once."""
    files = find_logs(paths)
    seen: dict[bytes, Record] = {}
    warnings: list[str] = []
    for path in files:
        for record in read_records(path, warnings):
            mark = hashlib.sha256(msgspec.json.encode(record)).digest()  # the text of a large matrix would take as much again as its samples
            if mark not in seen:
                seen[mark] = unpack_trial(record) if isinstance(record, TrialRecord) else record
    records = list(seen.values())

    def of(kind: type) -> tuple:
        return tuple(r for r in records if isinstance(r, kind))

    ended = {(e.run, e.session) for e in of(EndRecord)}
    for header in of(Header):
        if (header.run, header.session) not in ended:
            warnings.append(f"run {header.run} has no end record: it was cut short; what it holds is used")
    return RunLog(
        paths=tuple(map(str, files)),
        headers=of(Header),
        benchmarks=of(BenchmarkRecord),
        trials=of(TrialRecord),
        ends=of(EndRecord),
        warnings=tuple(warnings),
    )
