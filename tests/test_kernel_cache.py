"""The cache of compiled kernels: what may lie there, who may have put it there, and compilers that behave badly."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from numabench import kernel as abi
from numabench.errors import MachineError, UsageError
from numabench.host import cache, programs
from numabench.host.commands import ask
from numabench.host.objects import load_object
from numabench.measure import crew, ready

OTHER = 54321  # a user and a group that nobody here is
LOADED = {"sentinel": abi.Kernel, "crew": crew.load}  # what a worker loads, each by its own door


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    return tmp_path / "my cache"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def as_another(path: Path, monkeypatch) -> None:
    """Makes `path` somebody else's, by who owns it or, where this user cannot give things away, by who this process says it is."""
    if os.getuid() == 0:
        os.chown(path, OTHER, OTHER)
    else:
        monkeypatch.setattr(os, "getuid", lambda: OTHER)


# -- the folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077, 0o777])
def test_the_cache_is_made_for_the_user_alone_whatever_the_umask(home, umask):
    before = os.umask(umask)
    try:
        made = cache.cache_folder("kernels")
    finally:
        os.umask(before)
    assert made == home / "numabench" / "kernels"
    assert [mode(folder) for folder in (home, made.parent, made)] == [0o700] * 3
    assert cache.cache_folder("kernels") == made


def test_facts_of_programs_do_not_spoil_the_cache(home):
    """They are kept in the same folder and may be the first to make it."""
    before = os.umask(0o002)
    try:
        programs.read_programs(SimpleNamespace(warn=pytest.fail), {"model name": "x"})
        assert list((home / "numabench").glob("cpuinfo-*.json"))
        assert abi.build("sentinel").target.parent == home / "numabench" / "kernels"
    finally:
        os.umask(before)


def test_facts_that_a_killed_run_was_writing_are_removed_by_the_next_one(home):
    place = (
        "import os, sys; from numabench.host.cache import *; from pathlib import Path\nwith workplace(cache_folder()) as folder: "
    )
    killed = f"{place}Path(folder, 'cpuinfo-1.json').write_text('{{'); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", killed], cwd=Path(abi.__file__).parent.parent).returncode == -signal.SIGKILL
    [litter] = (home / "numabench").iterdir()
    for _ in range(2):  # facts are written, and then only read
        old = time.time() - 2 * cache.FRESH_S
        os.utime(litter, (old, old))
        programs.read_programs(SimpleNamespace(warn=pytest.fail), {"model name": "x"})
        [facts] = (home / "numabench").iterdir()
        assert facts.suffix == ".json"
        litter.mkdir()


def test_what_others_may_write_to_is_refused(home):
    folder = cache.cache_folder("kernels")
    for each in (folder, folder.parent):
        each.chmod(0o777)
        with pytest.raises(MachineError, match=f"others may write to the cache {each};.*rm -r '{each}'"):
            abi.build("sentinel")
        each.chmod(0o755)  # readable does no harm, and is taken away
        abi.build("sentinel")
        assert mode(each) == 0o700


def test_a_parent_that_others_may_write_to_is_refused_unless_it_is_sticky(home):
    cache.cache_folder()
    home.chmod(0o777)
    with pytest.raises(MachineError, match=f"others may write to {home}, on the way.*chmod go-w '{home}', or set XDG_CACHE_HOME"):
        cache.cache_folder("kernels")
    home.chmod(0o1777)
    cache.cache_folder("kernels")


@pytest.mark.parametrize("part", ["parent", "outer", "inner"])
def test_what_belongs_to_another_user_is_refused(home, monkeypatch, part):
    inner = cache.cache_folder("kernels")
    as_another({"parent": home, "outer": inner.parent, "inner": inner}[part], monkeypatch)
    with pytest.raises(MachineError, match=f"belongs to another user.*{OTHER if os.getuid() == 0 else ''}.*set XDG_CACHE_HOME"):
        cache.cache_folder("kernels")


def test_links_are_followed_to_what_may_be_trusted(home, monkeypatch, tmp_path):
    real, bad = tmp_path / "real", tmp_path / "bad"
    real.mkdir()
    bad.mkdir(mode=0o700)
    home.symlink_to("./nowhere/../real")  # what a link names is made as well
    (tmp_path / "nowhere").mkdir()
    assert cache.cache_folder("kernels") == home / "numabench" / "kernels" and (real / "numabench" / "kernels").is_dir()
    home.unlink()
    home.symlink_to(bad)
    bad.chmod(0o777)
    with pytest.raises(MachineError, match=f"others may write to {bad}"):
        cache.cache_folder()
    home.unlink()
    home.symlink_to(home)
    with pytest.raises(MachineError, match="too many symbolic links"):
        cache.cache_folder()
    home.unlink()
    home.write_text("a file")
    with pytest.raises(MachineError, match="Not a directory.*set XDG_CACHE_HOME"):
        cache.cache_folder()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a link away")
def test_another_users_link_in_a_sticky_folder_is_refused(home, tmp_path):
    tmp_path.chmod(0o1777)
    home.symlink_to(tmp_path / "real")
    os.lchown(home, OTHER, OTHER)
    with pytest.raises(MachineError, match=f"{home}, on the way to the cache, belongs to another user"):
        cache.cache_folder()


def test_a_group_of_the_user_alone_may_write(home, monkeypatch):
    """With umask 002, ~/.cache of most accounts is 775 and its group is the account's own one."""
    cache.cache_folder()
    home.chmod(0o775)
    account = SimpleNamespace(pw_name="jane", pw_gid=home.stat().st_gid or OTHER)
    group = SimpleNamespace(gr_name="jane", gr_mem=[])
    if os.getuid() == 0:
        os.chown(home, -1, OTHER)
    monkeypatch.setattr("pwd.getpwuid", lambda _: account)
    monkeypatch.setattr("grp.getgrgid", lambda _: group)
    cache.cache_folder("kernels")
    for changed in ({"gr_name": "staff"}, {"gr_mem": ["jane", "joe"]}):
        monkeypatch.setattr("grp.getgrgid", lambda _, changed=changed: SimpleNamespace(**(vars(group) | changed)))
        with pytest.raises(MachineError, match="others may write"):
            cache.cache_folder("kernels")


def test_root_s_group_is_nobodys_own(monkeypatch):
    """A container's user that is a mere number has group 0."""
    monkeypatch.setattr("pwd.getpwuid", lambda _: SimpleNamespace(pw_name="root", pw_gid=0))
    monkeypatch.setattr("grp.getgrgid", lambda _: SimpleNamespace(gr_name="root", gr_mem=[]))
    assert not cache.is_private(0)


@pytest.mark.parametrize("home", [None, "/proc/nowhere", "/dev/null/home"], ids=str)
def test_an_account_without_a_home_has_its_cache_among_temporary_files(monkeypatch, tmp_path, home):
    """No HOME and no entry of its number; one that is not there; a file instead. The folder is the user's alone all the same."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o1777)

    def unknown(_):
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    if home:
        monkeypatch.setenv("HOME", home)
    made = tmp_path / f"numabench-{os.getuid()}"
    assert abi.build("sentinel").target.parent == made / "kernels" and mode(made) == mode(made / "kernels") == 0o700
    said = []
    assert "compiler" in programs.read_programs(SimpleNamespace(warn=said.append), {}) and not said
    made.chmod(0o777)
    with pytest.raises(MachineError, match="others may write to the cache"):
        cache.cache_folder("kernels")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache.cache_folder("kernels") == tmp_path / "here" / "numabench" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # what was asked for is not answered with another one
    with pytest.raises(MachineError, match="cannot use the cache /proc/nowhere.*set XDG_CACHE_HOME"):
        cache.cache_folder("kernels")


# -- the objects ----------------------------------------------------------------------------------------------------


def test_an_object_is_known_by_its_hash(home):
    target = abi.build("sentinel").target
    assert abi.object_hash(target) in target.name and mode(target) == 0o700
    assert abi.build("sentinel").target == target


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "flipped"])
def test_a_damaged_object_is_compiled_anew_and_never_loaded(home, damage):
    target = abi.build("sentinel").target
    whole = target.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    target.write_bytes(
        {"cut": whole[:4096], "empty": b"", "other": b"\x7fELF" + whole[4:] + b"x", "flipped": bytes(flipped)}[damage]
    )
    with pytest.raises(MachineError, match="not what was compiled.*rm '.*' and run again"):
        abi.Kernel(target)
    again = abi.build("sentinel").target
    assert again.read_bytes() == whole and abi.Kernel(again).name == "sentinel"


@pytest.mark.parametrize("name", LOADED)
def test_a_folder_that_was_exchanged_gives_no_other_code(home, tmp_path, name):
    """A path is all that a worker is given; by it, it knows what it must find there."""
    target = abi.build(name).target
    evil = tmp_path / "evil" / target.name
    evil.parent.mkdir()
    shutil.copy(abi.build("fences").target, evil)
    home.rename(tmp_path / "away")
    (home / "numabench").mkdir(parents=True)
    evil.parent.rename(home / "numabench" / "kernels")
    with pytest.raises(MachineError, match="exchanged"):
        LOADED[name](target)


def test_a_loaded_object_is_not_the_file_any_more(home):
    """Mapped from the file, the first page that is touched after it was cut would be a bus error."""
    target = abi.build("sentinel").target
    loaded = load_object(target)
    os.truncate(target, 0)
    assert loaded.nb_run and abi.c.c_uint32.in_dll(loaded, "nb_descriptor").value == abi.ABI
    members = crew.load(abi.build("crew").target)
    os.truncate(abi.build("crew").target, 0)
    assert members.nb_crew_follow


def test_an_object_is_loaded_where_memory_holds_no_programs(home, monkeypatch):
    target = abi.build("sentinel").target

    def refused(name):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", refused)
    assert abi.Kernel(target).name == "sentinel"
    monkeypatch.delattr(os, "memfd_create")
    assert abi.Kernel(target).name == "sentinel"


def test_a_cache_that_cannot_be_written_to_is_said(home, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(MachineError, match="No space left on device.*set XDG_CACHE_HOME to a folder with room"):
        abi.build("sentinel")


# -- the compiler ---------------------------------------------------------------------------------------------------


def compiler(folder: Path, monkeypatch, *lines: str) -> Path:
    """A compiler that is a script; `"$@"` are the words that it is given."""
    path = folder / "odd cc"
    path.write_text("\n".join(("#!/bin/sh", '[ "$1" = --version ] && echo odd 1.0 && exit 0', *lines, "")))
    path.chmod(0o755)
    monkeypatch.setenv("CC", f"'{path}'")
    return path


@pytest.mark.parametrize("variable", ["CC", "CFLAGS"])
def test_unbalanced_quotes_are_one_line(home, monkeypatch, variable):
    monkeypatch.setenv(variable, "gcc '-O2")
    with pytest.raises(UsageError, match=f"{variable} cannot be split into words .*No closing quotation.*gcc '-O2"):
        abi.build("sentinel")


def test_a_compiler_that_hangs_is_stopped_with_all_that_it_started(home, tmp_path, monkeypatch):
    path = compiler(tmp_path, monkeypatch, f"sleep 1000 & echo $! > '{tmp_path}/child'; wait")
    monkeypatch.setattr(abi, "COMPILE_S", 0.5)
    with pytest.raises(MachineError, match=f"did not end within 0.5 s and was stopped: '{path}'"):
        abi.build("sentinel")
    assert gone(int((tmp_path / "child").read_text()))
    assert list((home / "numabench" / "kernels").iterdir()) == []


def gone(process: int) -> bool:
    """Whether a process has ended, or does so within some seconds (one that nobody waits for may stay as a zombie)."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_compiler_that_does_not_tell_its_version_is_stopped(home, tmp_path, monkeypatch):
    path = tmp_path / "cc"
    path.write_text("#!/bin/sh\nsleep 1000\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    monkeypatch.setattr(abi, "VERSION_S", 0.3)
    with pytest.raises(MachineError, match="did not end within 0.3 s"):
        abi.build("sentinel")
    monkeypatch.setattr(programs, "_TIMEOUT_S", 0.3)
    said = []
    assert programs._ask_compiler(SimpleNamespace(warn=said.append), str(path)) is None
    assert said == [f"{path} --version did not end within 0.3 s"]


def test_what_a_compiler_says_is_text(home, tmp_path, monkeypatch):
    compiler(tmp_path, monkeypatch, r"printf 'x.c: \351rror: error \033[2J bad \377\n' >&2; exit 1")
    with pytest.raises(MachineError) as found:
        abi.build("sentinel")
    assert "rror: error  [2J bad" in found.value.message and found.value.message.isprintable()
    path = tmp_path / "latin"
    path.write_text("#!/bin/sh\nprintf 'Comp\\351 1.0\\033]0;x\\n'\n")
    path.chmod(0o755)
    assert abi.compiler_version([str(path)]) == "Comp� 1.0 ]0;x"
    assert programs._ask_compiler(SimpleNamespace(warn=pytest.fail), str(path)) == "Comp� 1.0 ]0;x"


def test_a_compiler_that_cannot_be_called(home, tmp_path, monkeypatch):
    path = tmp_path / "cc"
    path.write_bytes(b"\x7fELF no program")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    with pytest.raises(MachineError, match="cannot be called: Exec format error"):
        abi.build("sentinel")


def test_a_compiler_that_makes_nothing(home, tmp_path, monkeypatch):
    compiler(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(MachineError, match="cannot load .*No such file"):
        abi.build("sentinel")


def test_a_compiler_has_its_temporary_files_where_they_are_removed(home, tmp_path, monkeypatch):
    compiler(tmp_path, monkeypatch, f'touch "$TMPDIR/ccABCDEF.s"; ls -d "$TMPDIR" > "{tmp_path}/where"; exec cc "$@"')
    assert abi.build("sentinel").target.exists()
    where = Path((tmp_path / "where").read_text().strip())
    assert where.parent == home / "numabench" / "kernels" and not where.exists()


def test_what_a_killed_run_leaves_is_removed_by_the_next_one(home, tmp_path, monkeypatch):
    compiler(tmp_path, monkeypatch, f'touch "$TMPDIR/part.o"; echo $$ > "{tmp_path}/child"; sleep 1000')
    script = "from numabench import kernel; kernel.build('sentinel')"
    run = subprocess.Popen([sys.executable, "-c", script], cwd=Path(abi.__file__).parent.parent)
    try:
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text().strip():
            time.sleep(0.02)
            assert run.poll() is None
        kernels = home / "numabench" / "kernels"
        (litter,) = kernels.iterdir()
        assert (litter / "part.o").exists()
        old = time.time() - 1000
        os.utime(litter, (old, old))
        monkeypatch.delenv("CC")
        first = abi.build("sentinel").target
        assert litter.exists()  # its run goes on
    finally:
        run.kill()
        run.wait()
        os.killpg(int((tmp_path / "child").read_text()), signal.SIGKILL)
    os.utime(litter, (old, old))
    second = abi.build("fences").target
    assert sorted(kernels.iterdir()) == sorted([first, second])


def test_a_folder_that_was_only_just_made_is_left_alone(home):
    folder = cache.cache_folder("kernels")
    fresh = folder / f"{cache.COMPILING}x"
    fresh.mkdir()
    cache.sweep(folder)
    assert fresh.exists()
    old = time.time() - 2 * cache.FRESH_S
    os.utime(fresh, (old, old))
    with cache.opened(fresh) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        cache.sweep(folder)
        assert fresh.exists()
    cache.sweep(folder)
    assert not fresh.exists()


def test_a_program_that_leaves_one_behind_is_not_waited_for():
    before = time.monotonic()
    answer = ask(["sh", "-c", "sleep 1000 & exit 3"], 0.5)
    assert answer.code is None and time.monotonic() - before < 60


def test_machines_that_share_a_cache_have_their_own_kernels(monkeypatch):
    def stem(machine: str, nodename: str, *flags: str):
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine, nodename=nodename))
        return abi.Build(abi.source_of("sentinel"), flags).stem

    assert stem("x86_64", "a") == stem("x86_64", "b") != stem("aarch64", "a")
    assert stem("x86_64", "a", "-march=native") != stem("x86_64", "b", "-march=native")


def test_32_bits_are_refused_in_words(home, monkeypatch):
    real = abi.c.sizeof
    monkeypatch.setattr(abi.c, "sizeof", lambda kind: 4 if kind is abi.c.c_void_p else real(kind))
    with pytest.raises(MachineError, match="32-bit Python"):
        abi.build("sentinel")
    finding = ready.kernels()
    assert finding.severity == "fatal" and "32-bit Python" in finding.found and "64-bit Python" in finding.fix
