"""The user's cache folder. What lies in it is executed, so that nobody else may be able to write anywhere along its path."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

from ..errors import MachineError
from ..text import in_shell

_ELSEWHERE = "set XDG_CACHE_HOME to a folder of yours"
COMPILING = ".compiling-"  # what temporary folders begin with
FRESH_S = 60.0
_MOST_LINKS = 40  # as many as Linux follows in one path
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def cache_places() -> list[Path]:
    """Where the cache may be, the first best: in $XDG_CACHE_HOME and nowhere else; else in ~/.cache, and for accounts without a home, or whose
    home cannot be written to, in a folder for temporary files, under the user's number."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return [Path(os.getcwd(), base, "numabench")]
    temporary = Path(tempfile.gettempdir(), f"numabench-{os.getuid()}")
    try:
        return [Path(os.getcwd(), Path.home(), ".cache", "numabench"), temporary]
    except RuntimeError:  # no HOME, and no entry for this user: a container's user that is a mere number
        return [temporary]


def cache_folder(*names: str) -> Path:
    """The folder `names` in the cache, made where it is missing, with mode 0700 whatever the umask; raises MachineError where somebody else could
    put something there. It stays what it is: whoever could exchange a part of the path would have been able to write to the one before."""
    refused = None
    for place in cache_places():
        path = place.joinpath(*names)
        try:
            os.close(open_trusted(path, own=1 + len(names)))
        except OSError as error:
            refused = refused or MachineError(f"cannot use the cache {path}: {error.strerror}", _ELSEWHERE)
        else:
            return path
    raise refused


def open_trusted(path: Path, own: int = 0) -> int:
    """A descriptor of folder `path`, each part opened below the one before and looked at; the last `own` parts are the user's alone.
    Links are followed by hand, since the path that they stand for must be trusted as well."""
    place, here = os.open("/", _OPEN), Path("/")
    rest, links = list(reversed(path.parts[1:])), 0
    try:
        check_folder(os.fstat(place), here)
        while rest:
            name = rest.pop()
            try:
                facts = os.lstat(name, dir_fd=place)
            except FileNotFoundError:
                make_folder(name, place)
                facts = os.lstat(name, dir_fd=place)
            if stat.S_ISLNK(facts.st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(0, "too many symbolic links")
                check_owner(facts, here / name)
                target = Path(os.readlink(name, dir_fd=place))
                if target.is_absolute():
                    os.close(place)
                    place, here = os.open("/", _OPEN), Path("/")
                rest += reversed(target.parts[1 if target.is_absolute() else 0 :])
                continue
            below = os.open(name, _OPEN, dir_fd=place)
            os.close(place)
            place, here = below, here.parent if name == ".." else here / name
            if len(rest) < own:
                check_own_folder(place, here)
            else:
                check_folder(os.fstat(place), here)
        return place
    except BaseException:
        os.close(place)
        raise


def make_folder(name: str, place: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=place)
        os.chmod(name, 0o700, dir_fd=place)  # a umask may take even the user's own bits away
    except FileExistsError:  # another run was faster
        pass


def check_owner(facts: os.stat_result, path: Path) -> None:
    """The user's, root's, or of whoever owns `/`, who could do anything anyway (in a user namespace that is nobody)."""
    if facts.st_uid not in (os.getuid(), 0, os.stat("/").st_uid):
        raise MachineError(
            f"{path}, on the way to the cache, belongs to another user (uid {facts.st_uid}), who could put code there", _ELSEWHERE
        )


def check_folder(facts: os.stat_result, path: Path) -> None:
    """Of a folder on the way. One that is sticky (/tmp) may be written to by all: what others own there is refused a step later."""
    check_owner(facts, path)
    if others_write(facts) and not facts.st_mode & stat.S_ISVTX:
        raise MachineError(
            f"others may write to {path}, on the way to the cache, and could put code there",
            f"{in_shell('chmod', 'go-w', path)}, or {_ELSEWHERE}",
        )


def check_own_folder(place: int, path: Path) -> None:
    facts = os.fstat(place)
    if facts.st_uid != os.getuid():
        raise MachineError(
            f"the cache {path} belongs to another user (uid {facts.st_uid}); its code is not to be trusted", _ELSEWHERE
        )
    if others_write(facts):
        raise MachineError(
            f"others may write to the cache {path}; its code is not to be trusted",
            f"{in_shell('rm', '-r', path)} and run again",
        )
    if stat.S_IMODE(facts.st_mode) != 0o700:
        os.fchmod(place, 0o700)


def others_write(facts: os.stat_result) -> bool:
    """Access control lists show in the group's bits. A group of the user alone is the user: with such groups umask 002 is usual."""
    return bool(facts.st_mode & stat.S_IWOTH or (facts.st_mode & stat.S_IWGRP and not is_private(facts.st_gid)))


def is_private(group: int) -> bool:
    """Whether a group is the user's own one, with the same name and no other member, as most distributions make one for each user."""
    import grp
    import pwd

    try:
        user, found = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return 0 != group == user.pw_gid and found.gr_name == user.pw_name and not set(found.gr_mem) - {user.pw_name}


@contextmanager
def workplace(folder: Path):
    """A temporary folder in `folder` for files that are not whole yet. What a killed run leaves of one, the next one removes: a lock tells that it is
    in use, which the kernel drops with the process, however that ends."""
    sweep(folder)
    with tempfile.TemporaryDirectory(prefix=COMPILING, dir=folder) as path, opened(path) as handle:
        lock(handle)
        yield path


@contextmanager
def opened(path: Path | str):
    handle = os.open(path, _OPEN)
    try:
        yield handle
    finally:
        os.close(handle)


def lock(handle: int) -> bool:
    """Whether this process has the lock; a file system without locks has none to give."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(folder: Path) -> None:
    """Remove the temporary folders of runs that were killed. A fresh one may not have been locked yet."""
    import shutil
    import time

    for each in folder.glob(f"{COMPILING}*"):
        try:
            old = time.time() - each.lstat().st_mtime > FRESH_S
            with opened(each) as handle:
                if old and lock(handle):
                    shutil.rmtree(each, ignore_errors=True)
        except OSError:  # it has gone meanwhile
            continue
