"""Compiled kernels that came from the machine that launches: called by what they hold, taken where they fit this machine, and looked at again whenever one is loaded.

A parcel is a list of objects with what each was made of, called by the hash of that list. Nothing in it is loaded but what `read_object` finds to be what the list says, for the
sources that are here: another version's kernel, a damaged file or another machine's object is never run.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import tarfile
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..errors import MachineError
from ..model import Frozen
from .cache import cache_folder, workplace
from .objects import DIGITS, content_hash, read_object

FOLDER, LIST = "pushed", "list"  # in the cache; the list's name in a stream
MOST_BYTES = 1 << 28  # unpacked; those of all benchmarks have a few MB
KEPT_S = 90 * 86_400  # after their last use
_GLIBC = re.compile(rb"\0GLIBC_(\d+)\.(\d+)[.\d]*(?=\0)")  # versions of symbols that an object needs


class Piece(Frozen):
    """An object and what it was made of. `sources`: hash of the C file and its headers; `told`: what it was told of a machine; `libc`: the oldest one that has all that it
    needs, such as `glibc 2.34`."""

    kernel: str
    sources: str
    told: tuple[str, ...]
    flags: tuple[str, ...]
    compiler: str
    libc: str
    content: str  # its hash

    @property
    def file(self) -> str:
        return f"{self.kernel}-{self.sources[:16]}-{self.content}.so"


class Listed(Frozen):
    """What is in a parcel. `machine`: its architecture, as uname calls it."""

    machine: str
    pieces: tuple[Piece, ...]


class Parcel:
    """What is sent. `objects`: by their hashes; `name`: the hash of the list."""

    def __init__(self, listed: Listed, objects: Mapping[str, bytes]):
        self.listed, self.objects = listed, objects
        self.name = content_hash(_bytes_of(listed))
        self._streams: dict[frozenset[str], bytes] = {}

    def stream(self, wanted: Iterable[str]) -> bytes:
        """A line with the number of bytes that follow, then the list and the wanted objects as tar, packed; the same bytes for all that want the same."""
        asked = frozenset(self.objects.keys() & set(wanted))
        if asked not in self._streams:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as tar:
                for name, content in ((LIST, _bytes_of(self.listed)), *((one, self.objects[one]) for one in sorted(asked))):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
            self._streams[asked] = b"%d\n%b" % (packed.tell(), packed.getvalue())
        return self._streams[asked]


def make_parcel(pieces: Iterable[tuple[Piece, bytes]]) -> Parcel:
    """Of objects that were compiled on this machine."""
    made = list(pieces)
    listed = Listed(machine=os.uname().machine, pieces=tuple(piece for piece, _ in made))
    return Parcel(listed, {piece.content: content for piece, content in made})


def _bytes_of(listed: Listed) -> bytes:
    return msgspec.json.encode(listed)


def libc_of(content: bytes) -> str:
    """The oldest glibc that has all that an object needs: what it wants of which version stands in it. Raises MachineError where it is another library's."""
    if not libc_here():
        raise MachineError("the C library here is not glibc, whose versions tell where an object can be loaded")
    return "glibc {}.{}".format(*max((tuple(map(int, each)) for each in _GLIBC.findall(content)), default=(2, 0)))


def libc_here() -> str:
    """`glibc 2.36`; empty where it is another one."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""


def check_machine(machine: str) -> None:
    """Raises MachineError where objects for this architecture cannot be loaded here."""
    here = os.uname().machine
    if machine != here:
        raise MachineError(f"they are for {machine}, and this is {here}")
    if not libc_here():
        raise MachineError("they are for glibc, and here is another C library")


def _version(libc: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", libc)[:2]))


# -- taking one -------------------------------------------------------------------------------------------------------


def take(name: str, machine: str, objects: Collection[str], stream: BinaryIO, lack: Callable[[list[str]], object]) -> None:
    """Has parcel `name` whole in the cache: `lack` is told which of its `objects` are wanted, and these are read from `stream`. Raises MachineError
    where they do not fit this machine, or are not what they are called."""
    check_machine(machine)
    try:
        folder = cache_folder(FOLDER)
        there = _whole(folder)
        wanted = [each for each in objects if each not in there]
        if wanted or listed_in(folder, name) is None:
            lack(wanted)
            _keep(folder, name, _unpacked(_received(stream)))
        used = listed_in(folder, name)
        if used is None or not {piece.content for piece in used.pieces} <= _whole(folder).keys():
            raise MachineError("not all of them came")
        _tidy(folder, {f"{name}.json", *(piece.file for piece in used.pieces)})
    except OSError as error:
        raise MachineError(f"they cannot be kept: {error.strerror}") from error


def _received(stream: BinaryIO) -> bytes:
    """Never more than was said, so that whoever reads on finds what follows."""
    line = stream.readline(32)
    if not re.fullmatch(rb"\d{1,10}\n", line) or int(line) > MOST_BYTES:
        raise MachineError("the connection ended before they came" if not line else "what came is none")
    content = bytearray()
    while len(content) < int(line):
        part = stream.read(int(line) - len(content))
        if not part:
            raise MachineError("the connection ended before all of them came")
        content += part
    return bytes(content)


def _unpacked(packed: bytes) -> dict[str, bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    found = {}
    try:
        content = unpacker.decompress(packed, MOST_BYTES)
        if not unpacker.eof:
            raise MachineError("what came is cut, or too much")
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                if member.isreg():
                    found[member.name] = tar.extractfile(member).read()
    except (zlib.error, tarfile.TarError, ValueError) as error:
        raise MachineError(f"what came cannot be unpacked ({error})") from error
    return found


def _keep(folder: Path, name: str, found: dict[str, bytes]) -> None:
    """Objects first and the list last: where there is a list its objects have been there."""
    content = found.pop(LIST, b"")
    if content_hash(content) != name:
        raise MachineError("their list is not what it is called")
    listed = _read_list(content)
    files = {piece.file: found[piece.content] for piece in listed.pieces if piece.content in found}
    if odd := [file for file, held in files.items() if content_hash(held) != file[-DIGITS - 3 : -3]]:
        raise MachineError(f"{odd[0]} is not what it is called: it came damaged")
    with workplace(folder) as temporary:
        for file, held in (*files.items(), (f"{name}.json", content)):
            made = os.path.join(temporary, file)
            with open(made, "wb") as target:
                target.write(held)
                target.flush()
                os.fsync(target.fileno())
            os.chmod(made, 0o700)
            os.replace(made, folder / file)


def _read_list(content: bytes) -> Listed:
    """Raises MachineError for what is none; names that would lead out of the folder are none."""
    try:
        listed = msgspec.json.decode(content, type=Listed)
    except msgspec.DecodeError as error:
        raise MachineError(f"their list is none ({error})") from error
    for piece in listed.pieces:
        if not re.fullmatch(rf"\w+-[0-9a-f]{{16}}-[0-9a-f]{{{DIGITS}}}\.so", piece.file, re.ASCII):
            raise MachineError("their list names what is no object")
    return listed


def listed_in(folder: Path, name: str) -> Listed | None:
    """The list of a parcel that is in the cache, and is what it is called."""
    try:
        content = (folder / f"{name}.json").read_bytes()
    except OSError:
        return None
    return _read_list(content) if content_hash(content) == name else None


def _whole(folder: Path) -> dict[str, Path]:
    """Hash -> file of the objects that are what they are called; a damaged one goes."""
    found = {}
    for path in folder.glob("*.so"):
        try:
            read_object(path)
        except MachineError:
            path.unlink(missing_ok=True)
        else:
            found[path.name[-DIGITS - 3 : -3]] = path
    return found


def _tidy(folder: Path, used: Collection[str]) -> None:
    """What no launch has used for long goes."""
    now = time.time()
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another run was faster
            if path.name in used:
                os.utime(path)
            elif path.suffix in (".so", ".json") and now - path.stat().st_mtime > KEPT_S:
                path.unlink()


# -- using one --------------------------------------------------------------------------------------------------------


def sources_hash(source: Path) -> str:
    """Of a C file and the headers beside it."""
    key = hashlib.sha256()
    for path in (*sorted(source.parent.glob("*.h")), source):
        key.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return key.hexdigest()[:DIGITS]


def find(parcel: str, source: Path, told: Collection[str]) -> tuple[Piece, Path]:
    """The object for this source in a parcel, looked at. Raises MachineError with why there is none that may be loaded."""
    folder = cache_folder(FOLDER)
    listed = listed_in(folder, parcel) if re.fullmatch(rf"[0-9a-f]{{{DIGITS}}}", parcel) else None
    if listed is None:
        raise MachineError(f"there is no parcel {parcel[:DIGITS]!r} of them here")
    check_machine(listed.machine)
    name = source.stem
    own = [piece for piece in listed.pieces if piece.kernel == name]
    alike = [piece for piece in own if piece.sources == sources_hash(source)]
    fitting = [piece for piece in alike if piece.told == tuple(told)]
    if not fitting:
        other = "is of other sources" if own and not alike else f"is for {' '.join(told)}" if own and told else "is there"
        raise MachineError(f"{'that' if own and not alike else 'none'} of {name} {other}")
    piece = fitting[0]
    if _version(piece.libc) > _version(libc_here()):
        raise MachineError(f"that of {name} needs {piece.libc}, and here is {libc_here()}")
    read_object(folder / piece.file)
    return piece, folder / piece.file
