"""Kernels that a launch compiles once and sends: what a machine takes, what it refuses, and that nothing else is ever loaded."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from synthetic import make_log
from test_launch import hosts, launch, needs_sshd, states, there  # noqa: F401
from test_runlog import write

from numabench import kernel as abi
from numabench.analysis.identity import refusals
from numabench.benchmarks import find
from numabench.cli import command
from numabench.errors import MachineError
from numabench.host import pushed
from numabench.host.cache import cache_folder
from numabench.host.objects import DIGITS, PARCEL, content_hash
from numabench.launch import remote
from numabench.measure import parcel as packing
from numabench.measure.parcel import pack
from numabench.model import KernelFacts
from numabench.runlog.read import load

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sent() -> pushed.Parcel:
    """The kernels of one benchmark and what runs beside them."""
    return pack([find("fences")])


@pytest.fixture
def node(tmp_path, monkeypatch) -> Path:
    """Another machine: an empty cache, and no compiler."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(abi, "COMPILERS", ())
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache" / "numabench" / "pushed"


def taken(sent: pushed.Parcel, stream: bytes | None = None, objects=None, machine: str | None = None) -> list[str]:
    """What was asked for."""
    asked: list[str] = []
    objects = [*sent.objects] if objects is None else objects
    source = io.BytesIO() if stream is None else io.BytesIO(stream)

    def lack(wanted: list[str]) -> None:
        asked.extend(wanted)
        if stream is None:
            source.write(sent.stream(wanted))
            source.seek(0)

    pushed.take(sent.name, machine or sent.listed.machine, objects, source, lack)
    return asked


def test_a_machine_without_a_compiler_measures_the_same_objects(sent, node, monkeypatch):
    with pytest.raises(MachineError, match="no C compiler"):
        abi.build("fences")
    assert sorted(taken(sent)) == sorted(sent.objects) and taken(sent) == []
    monkeypatch.setenv(PARCEL, sent.name)
    own = {piece.kernel: piece for piece in sent.listed.pieces}
    assert set(own) == {"sentinel", "crew", "transfer_unit", "fences"}
    built = abi.build("fences", line_bytes=64)
    assert built.pushed and abi.object_hash(built.target) == own["fences"].content[:16]
    assert (built.compiler, built.flags) == (own["fences"].compiler, [*own["fences"].flags])
    assert abi.Kernel(built.target).name == "fences" and built.target.parent == node


def test_what_is_there_is_not_sent_again(sent, node):
    taken(sent)
    (damaged,) = node.glob("crew-*.so")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    (gone,) = node.glob("sentinel-*.so")
    gone.unlink()
    assert sorted(taken(sent)) == sorted(piece.content for piece in sent.listed.pieces if piece.kernel in ("crew", "sentinel"))
    old = [node / f"fences-{'0' * 16}-{'0' * DIGITS}.so", node / f"{'0' * DIGITS}.json"]
    for path in old:
        path.write_bytes(b"")
        os.utime(path, (1, 1))
    taken(sent)
    assert not any(path.exists() for path in old), "what no launch has used for long goes"


def packed(*members: tuple[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return b"%d\n%b" % (made.tell(), made.getvalue())


def test_what_arrives_is_looked_at_before_it_is_kept(sent, node):
    stream, listed = sent.stream(sent.objects), msgspec.json.encode(sent.listed)
    some, content = next(iter(sent.objects.items()))
    flipped = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
    rest = [(name, each) for name, each in sent.objects.items() if name != some]
    for wrong, words in (
        (b"", "ended before they came"),
        (stream[: len(stream) // 2], "before all of them came"),
        (b"99999999999\n", "what came is none"),
        (b"numabench: error\n", "what came is none"),
        (b"9\nno gzip..", "cannot be unpacked"),
        (packed((pushed.LIST, listed), (some, flipped), *rest), "damaged"),
        (packed((pushed.LIST, listed), *rest), "not all of them came"),
        (packed((pushed.LIST, listed.replace(b"cc", b"ccc"))), "not what it is called"),
        (packed(*rest), "not what it is called"),
    ):
        with pytest.raises(MachineError, match=words):
            taken(sent, wrong)
        assert not (node / f"{some}.so").exists() and not [*node.glob(f"*{some}*")]
    taken(sent, stream + b"what follows is not read")


def test_a_list_that_leads_elsewhere_is_none(node):
    for kernel in ("../../evil", "a/b", "", "a\n", "-rf"):
        piece = pushed.Piece(
            kernel=kernel, sources="0" * 32, told=(), flags=(), compiler="", libc="glibc 2.0", content=content_hash(b"x")
        )
        listed = pushed.Listed(machine=os.uname().machine, pieces=(piece,))
        with pytest.raises(MachineError, match="no object"):
            taken(pushed.Parcel(listed, {piece.content: b"x"}))
    assert not [*node.glob("*")]


def test_objects_of_another_machine_are_never_loaded(sent, node, monkeypatch):
    with pytest.raises(MachineError, match="they are for riscv64"):
        taken(sent, machine="riscv64")
    taken(sent)
    monkeypatch.setenv(PARCEL, sent.name)

    def refused(words: str, **changes) -> None:
        """Why the parcel with these changes is not used, where there is no compiler either."""
        pieces = tuple(
            msgspec.structs.replace(piece, **{k: v for k, v in changes.items() if k != "machine"}) for piece in sent.listed.pieces
        )
        other = pushed.Parcel(
            msgspec.structs.replace(sent.listed, pieces=pieces, machine=changes.get("machine", sent.listed.machine)), sent.objects
        )
        (node / f"{other.name}.json").write_bytes(msgspec.json.encode(other.listed))
        monkeypatch.setenv(PARCEL, other.name)
        with pytest.raises(MachineError, match=f"no C compiler.*of those that were sent here none can be used: .*{words}"):
            abi.build("fences")

    refused("they are for aarch64x", machine="aarch64x")
    refused(r"needs glibc 99\.1, and here is glibc", libc="glibc 99.1")
    refused("that of fences is of other sources", sources="0" * 32)
    refused("none of fences is there", told=("-DNB_LINE=128",))
    with pytest.raises(MachineError, match="none of fences is for -DNB_LINE=256"):
        monkeypatch.setenv(PARCEL, sent.name)
        abi.build("fences", line_bytes=256)
    for name in ("0" * DIGITS, "../../x", ""):
        with pytest.raises(MachineError, match="there is no parcel|no C compiler"):
            monkeypatch.setenv(PARCEL, name)
            abi.build("fences")
    monkeypatch.setenv(PARCEL, sent.name)
    (held,) = node.glob("fences-*.so")
    held.write_bytes(b"\x7fELF" + held.read_bytes()[4:-1] + b"x")
    with pytest.raises(MachineError, match="not what was compiled"):
        abi.build("fences")


def test_what_does_not_fit_is_compiled_where_there_is_a_compiler(sent, node, monkeypatch):
    monkeypatch.setattr(abi, "COMPILERS", ("cc", "gcc", "clang"))
    monkeypatch.setenv(PARCEL, "0" * DIGITS)
    built = abi.build("sentinel")
    assert not built.pushed and built.target.parent == cache_folder("kernels")


def test_other_users_may_not_put_anything_there(sent, node):
    taken(sent)
    node.chmod(0o777)
    with pytest.raises(MachineError, match="others may write"):
        taken(sent)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="-march=x86-64-v3 is of x86_64")
def test_what_is_compiled_for_one_processor_is_not_sent(monkeypatch):
    for flags in ("-march=x86-64-v3", "-msse3", "-O2 -mavx512f"):
        monkeypatch.setenv("CFLAGS", flags)
        with pytest.raises(MachineError, match=r"uses \w+, which not every x86_64 has"):
            pack([])
    monkeypatch.setenv("CFLAGS", "-O1 -mtune=native")
    assert packing.baked_in(abi.source_of("sentinel")) == ""


def test_the_same_object_is_the_same_build_whoever_compiled_it(tmp_path):
    log = load(write(tmp_path / "log", make_log("n1", processes=1, samples=1)))

    def compiled(compiler: str, held: str):
        records = tuple(
            msgspec.structs.replace(
                record,
                kernel=KernelFacts(name=record.name, version=1, abi=abi.ABI, object_hash=held, compiler=compiler, flags=compiler),
            )
            for record in log.benchmarks
        )
        return msgspec.structs.replace(log, benchmarks=records)

    assert not refusals(compiled("cc 12", "a" * 16), compiled("gcc 12", "a" * 16))
    assert all(
        "object hash" in why and "compiler" in why
        for _, why in refusals(compiled("cc 12", "a" * 16), compiled("gcc 12", "b" * 16))
    )


# -- by ssh and Slurm -----------------------------------------------------------------------------------------------------

#: With what the real one would measure fences.
BUILDS = """\
import sys
from numabench import errors, kernel
try:
    built = kernel.build("fences", line_bytes=64)
    kernel.Kernel(built.target)
    print(built.pushed, kernel.object_hash(built.target))
except errors.NumabenchError as error:
    sys.exit(f"numabench: error: {error}")
"""
TOOLS = ("sed", "cat", "mkdir", "basename", "dirname", "grep", "head", "sleep", "cut")


@pytest.fixture
def nodes(hosts):  # noqa: F811
    """The hosts of test_launch, with a `numabench take` that is the real one."""
    (hosts.folder / "tools").mkdir()
    for name in TOOLS:
        (hosts.folder / "tools" / name).symlink_to(shutil.which(name))
    for number in range(2, 9):
        hosts.door(f"127.0.0.{number}", f"export XDG_CACHE_HOME=$here/cache-{number}")
    python = f"PATH=$here/tools CC= PYTHONPATH={ROOT} {sys.executable}"
    hosts.program("builds.py", BUILDS)
    (hosts.folder / "take").write_text(f'{python} -m numabench "$@"; exit\n')
    for number in range(2, 9):
        hosts.do(f"127.0.0.{number}", f'{python} $here/builds.py >"$here/built-$alias" || exit 3; whole')
    return hosts


@needs_sshd
def test_kernels_go_through_the_connection_that_is_there(nodes, sent, tmp_path):
    nodes.door("127.0.0.3", "export XDG_CACHE_HOME=$here/cache-3; echo '0 lack'; printf 'noise without end'")
    found = launch("--ssh", "127.0.0.2,127.0.0.3,127.0.0.4", "-o", tmp_path / "runs", "fences", kernels=())
    assert set(states(found).values()) == {"measured"} and not any(each["why"] for each in found.values()), found
    own = next(piece for piece in sent.listed.pieces if piece.kernel == "fences").content[:16]
    assert {(nodes.folder / f"built-127.0.0.{n}").read_text() for n in (2, 3, 4)} == {f"True {own}\n"}


@needs_sshd
def test_each_host_that_cannot_take_them_says_why(nodes, tmp_path):
    """Without a compiler: one of another architecture, one whose files may not grow, one whose connection breaks while they come; and one of another architecture with a compiler."""
    real = (nodes.folder / "take").read_text()
    other = 'nonce=$2 parcel=$3; shift 4; set -- take $nonce $parcel riscv64 "$@";;'
    (nodes.folder / "take").write_text(
        f"""case $XDG_CACHE_HOME in
  *-3) {other}
  *-4) ulimit -f 8;;
  *-5) echo "$2 lack $5"; head -c 10; kill -9 $(cut -d' ' -f4 /proc/$PPID/stat);;
  *-6) {other}
esac
{real}"""
    )
    nodes.do("127.0.0.6", "whole")
    names = ",".join(f"127.0.0.{n}" for n in range(2, 7))
    words = ("--ssh", names, "-o", tmp_path / "runs", "fences")
    found = launch(*words, kernels=(), code=5)
    assert [each.rpartition(".")[2] for each in found] == ["2", "3", "4", "5", "6"]
    assert [*states(found).values()] == ["measured", "compiler missing", "compiler missing", "connection lost", "measured"], found
    for host, said in {
        3: "they are for riscv64",
        4: "they cannot be kept: File too large",
        6: f"{remote.OWN_KERNELS}: they are for riscv64",
    }.items():
        assert said in found[f"127.0.0.{host}"]["why"], found
    (nodes.folder / "take").write_text(real)
    again = launch(*words, kernels=())
    assert set(states(again).values()) == {"measured"}
    assert {(nodes.folder / f"built-127.0.0.{n}").read_text()[:5] for n in (2, 3, 4, 5)} == {"True "}


def test_slurm_finds_them_in_the_folder_that_all_nodes_see(there, tmp_path, monkeypatch):  # noqa: F811
    there.ssh()
    there.slurm("n1|idle|none\nn2|idle|none\n")
    monkeypatch.setenv("PATH", f"{there.folder / 'bin'}:{os.environ['PATH']}")
    python = f"XDG_CACHE_HOME=$here/cache CC=none PYTHONPATH={ROOT} {sys.executable}"
    there.program("builds.py", BUILDS)
    (there.folder / "take").write_text(f'{python} -m numabench "$@"; exit\n')
    for name in ("n1", "n2"):
        there.do(name, f'{python} $here/builds.py >"$here/built-$alias" || exit 3; whole')
    found = launch("--slurm", "batch", "-o", tmp_path / "runs", "fences", kernels=())
    assert states(found) == {"n1": "measured", "n2": "measured"}, found
    assert {(there.folder / f"built-{name}").read_text()[:5] for name in ("n1", "n2")} == {"True "}
    assert not (tmp_path / "runs" / ".launch").exists()


def test_where_nothing_can_be_compiled_each_machine_does(there, tmp_path, monkeypatch):  # noqa: F811
    there.ssh()
    monkeypatch.setenv("PATH", f"{there.folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CC", "no-such-compiler")
    done = CliRunner().invoke(command, ["launch", "--ssh", "n1", "--with", "fakebench", "-o", str(tmp_path / "runs"), "fences"])
    assert (
        "kernels are not sent, each machine compiles its own: no C compiler" in done.output
        and "1 host: 1 measured" in done.output
    )


#: Writes the template's records as a run does, and says what a run would.
WRITES = """\
import sys
from pathlib import Path
from numabench.errors import NumabenchError
from numabench.runlog.read import read_log
from numabench.runlog.write import Journal
try:
    with Journal(Path(sys.argv[2])) as journal:
        for record in read_log(sys.argv[1]):
            journal.append(record)
except NumabenchError as error:
    print(f"numabench: error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@needs_sshd
def test_a_disk_that_is_really_full_is_said(nodes, tmp_path):
    """Three hosts with file systems of their own: no room for the folder of the log, for the log itself, and for the kernels that are sent."""
    own = ["unshare", "-m", *(["-r"] if os.getuid() else []), "sh", "-c"]
    if subprocess.run([*own, f"mount -t tmpfs none {tmp_path}"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: a full disk is not tried")
    nodes.program("writes.py", WRITES)
    enter = '[ -n "$INSIDE" ] || INSIDE=1 exec ' + " ".join(own) + ' "$0"'  # the door once more, in a namespace of mounts
    for number, room in ((2, "nr_inodes=2"), (3, "size=8k"), (4, "size=8k")):
        place = "$here/cache-4" if number == 4 else "$here/home"
        nodes.door(
            f"127.0.0.{number}",
            f"export XDG_CACHE_HOME=$here/cache-{number}; mkdir -p -m 700 {place}\n{enter}\nmount -t tmpfs -o mode=700,{room} none {place}",
        )
    nodes.do("127.0.0.3", f'PYTHONPATH={ROOT} {sys.executable} $here/writes.py $here/template "$log" || exit $?; whole')
    found = launch("--ssh", ",".join(f"127.0.0.{n}" for n in range(2, 6)), "-o", tmp_path / "runs", "fences", kernels=(), code=5)
    assert [*states(found).values()] == ["disk full", "disk full", "disk full", "measured"], found
    for host, said in {2: "cannot create directory", 3: "cannot append to the run log", 4: "they cannot be kept"}.items():
        assert said in found[f"127.0.0.{host}"]["why"] and "make room there" in found[f"127.0.0.{host}"]["why"], found
