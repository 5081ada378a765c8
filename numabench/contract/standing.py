"""Whether this numabench, and a log, are as the contract says; freezing a version; old logs as new ones."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from ..errors import LogError, MachineError, UsageError
from ..files import write_whole
from ..model import STABLE, Frozen, Header
from ..runlog import MINOR, SCHEMA
from ..runlog.read import KINDS, MARK, bytes_of, cleaned, load, pieces, read_log
from ..runlog.write import Journal
from ..text import in_shell, printable
from .changes import Change, changes
from .forms import PRESENT, Version, content, decoder, frozen, present, reader, registry, text_of

NEXT_MINOR, NEXT_MAJOR = f"{SCHEMA}.{MINOR + 1}", f"{SCHEMA + 1}.0"
ADD = "numabench contract add"
SAID = {"title", "description"}  # parts of a form that no reader depends on
UNORDERED = {"required", "enum", "anyOf"}


class Standing(Frozen):
    """How the form of this numabench stands to those that are frozen. `problem` and `mend` are empty where it is one of them."""

    version: str
    versions: tuple[str, ...]  # that it was held against
    broken: dict[str, tuple[Change, ...]]  # version -> what breaks
    problem: str = ""
    mend: str = ""


class Drift(Frozen):
    """A line that is not what its log claims to be."""

    log: str
    line: int
    pointer: str
    problem: str
    mend: str


def standing(form: dict[str, Any] | None = None, version: str = PRESENT) -> Standing:
    """Held against all versions of this major, both ways. `form`: another one than that of this numabench."""
    mine = present() if form is None else form
    major = int(version.partition(".")[0])
    every = [each for each in registry() if each.major == major]
    for each in every:
        if hashlib.sha256(content(each)).hexdigest() != each.sha256:
            return Standing(
                version=version,
                versions=(each.version,),
                broken={},
                problem=f"{each.file} is not what was frozen on {each.since}",
                mend=f"take it back as it was: {in_shell('git', 'checkout', '--', f'numabench/contract/{each.file}')}",
            )
    found = {each.version: tuple(changes(frozen(each), mine, reader if form is None else None)) for each in every}
    broken = {name: those for name, those in found.items() if those}
    own = next((each for each in every if each.version == version), None)
    problem = mend = ""
    if broken:
        problem = f"it breaks {', '.join(broken)}"
        mend = f"keep what was there beside what is new; or begin {NEXT_MAJOR} (SCHEMA in runlog/__init__.py), and let runlog/read.py read {major} as well; then {ADD}"
    elif own is None:
        problem, mend = f"{version} is not frozen", ADD
    elif bare(frozen(own)) != bare(mine):
        problem = f"it is no longer {version}, and breaks nothing"
        mend = f"call it {NEXT_MINOR} (MINOR in runlog/__init__.py), then {ADD}"
    return Standing(version=version, versions=tuple(each.version for each in every), broken=broken, problem=problem, mend=mend)


def bare(form: Any) -> Any:
    """A form without what is said in it, and without an order where none counts."""
    if isinstance(form, list):
        return [bare(each) for each in form]
    if not isinstance(form, dict):
        return form
    fields = {name: bare(each) for name, each in form.items() if not (name in SAID and isinstance(each, str))}
    return {
        name: sorted(each, key=str) if name in UNORDERED and isinstance(each, list) else each for name, each in fields.items()
    }


def freeze(summary: str, folder: Path) -> Version:
    """Adds the present form to the registry in `folder`, that of a checkout. Raises UsageError where it is there already or breaks what is."""
    now = standing()
    if now.mend != ADD:
        raise UsageError(now.problem or f"{PRESENT} is frozen already, and this numabench writes it", now.mend or None)
    text = text_of(present())
    version = Version(
        version=PRESENT,
        phase=STABLE,
        since=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        summary=summary,
    )
    try:
        write_whole(folder / version.file, text)
        listed = json.dumps(msgspec.to_builtins((*registry(), version)), indent=1, ensure_ascii=False)
        write_whole(folder / "registry.json", listed + "\n")
    except OSError as error:
        raise MachineError(
            f"cannot write the registry in {folder}: {error.strerror}", "call it in a checkout that you may write"
        ) from error
    return version


def drift(path: Path) -> list[Drift]:
    """The lines of a log that are not of the version that its header claims. Of versions that were never frozen, those that no reader could read.

    Raises LogError where the file is no log at all."""
    name, found = printable(str(path)), []
    frozen_ones = {each.version: each for each in registry()}
    judge, claimed = reader, ""
    for number, line, last in pieces(bytes_of(path).removeprefix(MARK)):
        try:
            document = cleaned(json.loads(line))
        except (ValueError, RecursionError) as error:
            if not last:  # a cut line is left out by every reader
                found.append(
                    Drift(
                        log=name,
                        line=number,
                        pointer="",
                        problem=f"it is no JSON: {printable(str(error))}",
                        mend="leave the line out",
                    )
                )
            continue
        if isinstance(document, dict) and document.get("record") == "header":
            claimed = f"{document.get('schema', SCHEMA)}.{document.get('minor', 0)}"
            judge = decoder(frozen(frozen_ones[claimed])) if claimed in frozen_ones else reader
        if judge is reader and isinstance(document, dict) and document.get("record") not in KINDS:
            continue  # of a version that was never frozen, or comes later: readers leave it out
        refusal = judge(document) if isinstance(document, dict) else "Expected `object`"
        if refusal:
            what, _, place = refusal.partition(" - at `$")
            pointer = place.rstrip("`").replace("[...]", "/*").replace("[", "/").replace("]", "").replace(".", "/")
            mend = f"write what {claimed or PRESENT} says there, or call the log what it is (schema and minor of its header)"
            found.append(Drift(log=name, line=number, pointer=printable(pointer), problem=printable(what), mend=mend))
    return found


def migrate(path: Path, folder: Path) -> Path:
    """The same log in the present form, in `folder` under its name; its headers keep what it was and the SHA-256 of its file.

    Raises LogError for what is no log, and UsageError where there is a file of that name or the log is of a later version."""
    target = folder / (path.name.removesuffix(".gz"))
    if target.exists():
        raise UsageError(f"{printable(str(target))} is there already", "choose another folder with --output")
    digest = hashlib.sha256(bytes_of(path)).hexdigest()
    left_out: list[str] = []
    records = read_log(path, left_out)
    newer = [record for record in records if isinstance(record, Header) and (record.schema, record.minor) > (SCHEMA, MINOR)]
    if newer or any("does not know" in said for said in left_out):
        raise UsageError(
            f"{printable(str(path))} says more than this numabench of run logs {PRESENT} knows, which would be lost",
            "pip install --upgrade numabench",
        )
    with Journal(target) as journal:
        for record in records:
            if isinstance(record, Header) and (record.schema, record.minor) != (SCHEMA, MINOR):
                was = {"from": f"{record.schema}.{record.minor}", "sha256": digest}
                record = msgspec.structs.replace(record, schema=SCHEMA, minor=MINOR, migrated=record.migrated or was)
            journal.append(record)
    return target


def check_logs(paths: list[Path]) -> list[Drift]:
    """Raises LogError where a file is no log, or where what all of them say together does not fit."""
    found = [each for path in paths for each in drift(path)]
    if not found:
        try:
            load(*paths)
        except LogError as error:
            return [Drift(log="", line=0, pointer="", problem=error.message, mend=error.fix or "")]
    return found
