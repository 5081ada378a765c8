"""The guest's first files: busybox, the kernel modules for shared folders, and its first process (guest/init.sh)."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

from .firmware import CACHES, cache_files
from .machine import Machine
from .numbering import MADT, processor_list
from .packages import MODULES, Tools

FOLDERS = ("bin", "modules", "proc", "sys", "dev", "host", "written", "guest")
_DIRECTORY, _PROGRAM, _FILE = 0o40755, 0o100755, 0o100644


def write_initrd(path: Path, tools: Tools, machine: Machine) -> None:
    """A cpio archive; the machine's name is the guest's host name and makes its machine-id."""
    modules = [module for module in MODULES if module in tools.modules]
    init = (Path(__file__).resolve().parent / "guest/init.sh").read_text()
    for word, text in (
        ("@MODULES@", " ".join(modules)),
        ("@NAME@", machine.name),
        ("@IDENTITY@", hashlib.sha256(machine.name.encode()).hexdigest()[:32]),
    ):
        init = init.replace(word, text)
    entries = [(folder, _DIRECTORY, b"") for folder in (*FOLDERS, *(["system"] if tools.system else []))]
    entries += [("bin/busybox", _PROGRAM, tools.busybox.read_bytes()), ("init", _PROGRAM, init.encode())]
    entries += [(f"modules/{module}.ko", _FILE, unpacked(tools.modules[module])) for module in modules]
    caches = {f"{CACHES}/{path}": text for path, text in cache_files(machine).items()}
    folders = {str(folder) for file in caches for folder in Path(file).parents} - {"."}
    entries += [(folder, _DIRECTORY, b"") for folder in sorted(folders)]
    entries += [(file, _FILE, text.encode()) for file, text in caches.items()]
    if table := processor_list(machine):
        entries += [(str(folder), _DIRECTORY, b"") for folder in reversed(Path(MADT).parents[:-1])] + [(MADT, _FILE, table)]
    path.write_bytes(archive(entries))


def unpacked(module: Path) -> bytes:
    return lzma.decompress(module.read_bytes()) if module.suffix == ".xz" else module.read_bytes()


def archive(entries: list[tuple[str, int, bytes]]) -> bytes:
    """(name, mode, content) as the kernel takes them: cpio in the new ASCII format (cpio(5), "newc")."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        encoded = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        for part in (b"070701" + "".join(f"{field:08X}" for field in fields).encode() + encoded, content):
            out += part + b"\0" * (-len(part) % 4)
    return bytes(out)
