"""One visit to each of many machines: hosts are addresses of this one behind a real sshd, and what measures there is a script that writes a log at once."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner
from faked_hosts import DOOR, There
from synthetic import make_log
from test_runlog import write

from numabench import __version__
from numabench.cli import command
from numabench.errors import LogError, MachineError, UsageError
from numabench.launch import keep as keeping
from numabench.launch import remote, slurm, ssh
from numabench.launch.hosts import bare, checked, listed
from numabench.launch.launching import Launching
from numabench.runlog.expected import Asked, Ended, read_states, unmeasured
from numabench.runlog.read import find_logs, load
from numabench.text import printable

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None, reason="there is no sshd here (Debian: openssh-server): no visit by a real ssh is tried"
)


@pytest.fixture
def there(tmp_path):
    (tmp_path / "there").mkdir()
    return There(tmp_path / "there")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def hosts(there, monkeypatch):
    """sshd of the present user on all addresses 127.0.0.x, with keys and a configuration of its own; `ssh` is the user's with another one."""
    folder, port = there.folder, free_port()
    for name in ("hostkey", "otherkey", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    door = there.program("door", DOOR)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 0.0.0.0\nHostKey {folder}/hostkey\nAuthorizedKeysFile {folder}/id.pub\nStrictModes no\nUsePAM no\n"
        f"KbdInteractiveAuthentication no\nPasswordAuthentication no\nPidFile none\nForceCommand {door}\n"
        "Match LocalAddress 127.0.0.66\n  PubkeyAuthentication no\n  PasswordAuthentication yes\n"
    )
    key = (folder / "hostkey.pub").read_text()
    other = (folder / "otherkey.pub").read_text()
    known = [f"[127.0.0.{n}]:{port} {other if n == 67 else key}" for n in range(2, 100) if n != 68]
    (folder / "known").write_text("".join(known))
    (folder / "ssh_config").write_text(
        f"Host 127.0.0.69\n  Port {free_port()}\nHost *\n  Port {port}\n  IdentityFile {folder}/id\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
    )
    there.program("bin/ssh", f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    with subprocess.Popen([SSHD, "-D", "-f", folder / "sshd_config", "-E", folder / "sshd.log"]) as daemon:
        for _ in range(100):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield there
        daemon.terminate()


@pytest.fixture
def faked(there, monkeypatch):
    """Without sshd and Slurm: both are scripts."""
    there.ssh()
    monkeypatch.setenv("PATH", f"{there.folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL_S", 0.05)
    return there


def launch(
    *words: object, program: str = "fakebench", code: int = 0, kernels: tuple = ("--compile-there",)
) -> dict[str, dict[str, str]]:
    """What became of each host."""
    done = CliRunner().invoke(
        command,
        ["launch", "--format", "json", "--with", program, *kernels, *map(str, words)],
        catch_exceptions=False,
        standalone_mode=False,
    )
    assert (done.return_value, done.exit_code) == (code, 0), done.output
    return json.loads(done.stdout)["hosts"]


def states(hosts: dict[str, dict[str, str]]) -> dict[str, str]:
    return {host: each["state"] for host, each in hosts.items()}


@needs_sshd
def test_each_host_ends_in_a_named_state_and_the_same_line_goes_on(hosts, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh, "ALIVE_S", 2)
    monkeypatch.setattr(ssh, "ALIVE_TIMES", 3)
    monkeypatch.setattr(ssh, "CONNECT_S", 12)
    folder = hosts.folder
    hosts.door("127.0.0.2", "echo welcome; echo numabench: error: none >&2; printf 'a line end \\033[31m comes\\n'")
    hosts.program("date", '#!/bin/sh\n[ -z "$AHEAD" ] || { echo $(($(/bin/date +%s) + AHEAD)); exit; }\nexec /bin/date "$@"\n')
    hosts.door("127.0.0.10", "export AHEAD=7300")
    hosts.door("127.0.0.11", "export FAKE_VERSION=0.0.9")
    hosts.door("127.0.0.12", "export PATH=/usr/bin:/bin")
    (folder / "old").mkdir()
    hosts.program("old/python3", "#!/bin/sh\necho Python 3.8.10\n")
    hosts.door("127.0.0.13", f"export PATH={folder}/old:/usr/bin:/bin")
    hosts.door("127.0.0.14", "exit 0")
    hosts.do(
        "127.0.0.20",
        "echo 'numabench: error: another run measures on CPUs 0-1: process 7. To mend it: wait until it ends' >&2; exit 3",
    )
    hosts.do("127.0.0.21", "part; echo 'numabench: error: cannot append to the run log: No space left on device' >&2; exit 3")
    hosts.do("127.0.0.22", "part; exit 5")
    hosts.do("127.0.0.23", 'whole; sed -i \'s/"started":"2026/"started":"\\\\u001b]0;x/\' "$log"')
    hosts.do("127.0.0.24", "part; trap 'echo >\"$here/ended\"; exit 130' TERM; kill -9 $(connection); sleep 40 & wait")
    hosts.do("127.0.0.25", 'part; connection >"$here/stopped"; kill -STOP $(connection); sleep 40 & wait')
    hosts.do("127.0.0.26", "whole; exit 1")
    hosts.do("127.0.0.27", "part; sleep 60")
    hosts.do("127.0.0.28", "echo nothing known >&2; exit 77")
    hosts.do("127.0.0.29", "alias=127.0.0.2; whole")
    wanted = {
        "measured": [2, 3, 4, 26],
        "clock wrong": [10],
        "other version": [11],
        "numabench missing": [12],
        "Python too old": [13],
        "busy": [20, 22],
        "disk full": [21],
        "failed": [14, 23, 28, 29],
        "connection lost": [24, 25],
        "time up": [27],
        "password wanted": [66],
        "host key changed": [67],
        "host key unknown": [68],
        "unreachable": [69],
    }
    names = [f"127.0.0.{number}" for numbers in wanted.values() for number in numbers]
    (tmp_path / "hosts.txt").write_text("# all\n" + "\n".join([*names, names[0], "-oProxyCommand=touch${IFS}x", "a;b"]))
    words = ("--ssh", tmp_path / "hosts.txt", "-o", tmp_path / "runs", "--limit", "15s", "memory")
    try:
        found = launch(*words, code=5)
    finally:
        os.kill(int((folder / "stopped").read_text()), signal.SIGKILL)
    assert {host: each for host, each in states(found).items() if host.startswith("127")} == {
        f"127.0.0.{number}": state for state, numbers in wanted.items() for number in numbers
    }, found
    assert found["-oProxyCommand=touch${IFS}x"]["state"] == found["a;b"]["state"] == "no name of a host"
    for host, words_of in {
        "127.0.0.10": "2 h 1 min ahead",
        "127.0.0.11": f"pipx install numabench=={__version__}",
        "127.0.0.13": "Python 3.8 there",
        "127.0.0.23": "what it sent is not taken",
        "127.0.0.26": "failed their check",
        "127.0.0.28": "ended with 77 there: nothing known",
        "127.0.0.29": "is that of 127.0.0.2",
        "127.0.0.66": "ssh-copy-id 127.0.0.66",
        "127.0.0.67": "ssh-keygen -R 127.0.0.67",
    }.items():
        assert words_of in found[host]["why"], found[host]
    assert all(each["why"].isprintable() and (each["why"] or each["state"] == "measured") for each in found.values())
    logs = sorted((tmp_path / "runs").rglob("*.jsonl.gz"))
    assert {log.parent.name for log in logs} == {"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.26"}
    assert {header.alias for header in load(*logs).headers} == {log.parent.name for log in logs}
    assert set(unmeasured([tmp_path])) == set(found) - {log.parent.name for log in logs}
    give_up = time.monotonic() + 60
    while not (folder / "ended").exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert (folder / "ended").exists(), "the run there did not hear that nobody listens any more"
    for path in (*(folder / "do").iterdir(), *(folder / "doors").iterdir()):
        path.unlink()
    before = {log: log.read_bytes() for log in logs}
    again = launch(*words, code=5)
    impossible = {"127.0.0.66", "127.0.0.67", "127.0.0.68", "127.0.0.69", "-oProxyCommand=touch${IFS}x", "a;b"}
    assert {host for host, state in states(again).items() if state != "measured"} == impossible
    assert all(log.read_bytes() == content for log, content in before.items())
    runs = [header.run for log in (tmp_path / "runs").rglob("*.jsonl.gz") for header in load(log).headers]
    assert len(runs) == len(set(runs)) == len([state for state in states(again).values() if state == "measured"])
    assert [hosts.measured().count(f"127.0.0.{n}") for n in (3, 4, 26)] == [1, 1, 1]
    assert not [*(folder / "home" / ".local" / "state" / "numabench" / "launch").rglob("*.jsonl")], (
        "what was brought here goes there"
    )


@needs_sshd
def test_ctrl_c_ends_the_runs_there_and_the_same_line_goes_on(hosts, tmp_path):
    hosts.do("127.0.0.3", 'trap \'echo >"$here/ended"; exit 130\' TERM; part; echo >"$here/begun"; sleep 30 & wait')
    words = [
        sys.executable,
        "-m",
        "numabench",
        "launch",
        "--ssh",
        "127.0.0.2,127.0.0.3",
        "--at-once",
        "1",
        "--with",
        "fakebench",
        "--compile-there",
    ]
    with subprocess.Popen(
        [*words, "-o", tmp_path / "runs"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        for _ in range(200):
            if (hosts.folder / "begun").exists():
                break
            time.sleep(0.05)
        with pytest.raises(MachineError, match="wait until that launch ends"):
            launch("--ssh", "127.0.0.2", "-o", tmp_path / "runs")
        started.send_signal(signal.SIGINT)
        output, errors = started.communicate(timeout=20)
    assert started.returncode == 130 and "1 interrupted" in output and "the run there is asked to end" in output, output + errors
    (hosts.folder / "do" / "127.0.0.3").unlink()
    found = launch("--ssh", "127.0.0.2,127.0.0.3", "-o", tmp_path / "runs")
    assert states(found) == {"127.0.0.2": "measured", "127.0.0.3": "measured"} and (hosts.folder / "ended").exists()
    assert sorted(hosts.measured()) == ["127.0.0.2", "127.0.0.3"]
    assert len([*(tmp_path / "runs").rglob("*.jsonl.gz")]) == 2


# -- without sshd, with scripts in the place of ssh and of Slurm: Slurm 22.05 itself was tried by hand -----------------------------------------------------------------------------------------------


def test_each_node_has_a_job_of_its_own_or_a_reason(faked, tmp_path):
    faked.slurm(
        "n1|idle|none\nn2|drained*|memory errors\nn3|down|no power\nn4|mixed|none\nn5|idle|none\nn6|allocated|none\nn7|idle~|none\n"
    )
    (faked.folder / "jobs" / "n4").write_text(
        'head -n 5 >"$out"; echo "slurmstepd: *** JOB 4 ON n4 CANCELLED DUE TO TIME LIMIT ***" >>"$out"; state=TIMEOUT'
    )
    (faked.folder / "jobs" / "n5").write_text("state=CANCELLED")
    (faked.folder / "jobs" / "n6").write_text("exit 1")
    words = ("--slurm", "batch", "-o", tmp_path / "runs", "--nodes", "n1,n2,n3,n4,n5,n6,n7,n8")
    found = launch(*words, code=5)
    assert states(found) == {
        "n1": "measured",
        "n2": "drained",
        "n3": "down",
        "n4": "time up",
        "n5": "cancelled",
        "n6": "failed",
        "n7": "measured",
        "n8": "unknown",
    }
    assert "memory errors" in found["n2"]["why"] and set(unmeasured([tmp_path])) == {"n2", "n3", "n4", "n5", "n6", "n8"}
    faked.slurm(
        "n1|idle|none\nn2|idle|none\nn3|down|no power\nn4|idle|none\nn5|idle|none\nn6|idle|none\nn7|idle|none\nn8|idle|none\n"
    )
    for path in (faked.folder / "jobs").iterdir():
        path.unlink()
    assert {host for host, state in states(launch(*words, code=5)).items() if state != "measured"} == {"n3"}
    assert sorted(faked.measured()) == ["n1", "n2", "n4", "n5", "n6", "n7", "n8"] and not [
        *(tmp_path / "runs" / ".launch").glob("*")
    ]
    with pytest.raises(UsageError, match="has no nodes"):
        faked.slurm("")
        launch("--slurm", "none")


def test_a_job_that_stays_in_the_queue_is_collected_and_not_submitted_again(faked, tmp_path):
    faked.slurm("n1|idle|none\n")
    (faked.folder / "jobs" / "n1").write_text('cat >"$there/job"; echo "$out" >"$there/out"; state=RUNNING; kill -INT $PPID')
    words = ("--slurm", "batch", "-o", tmp_path / "runs")
    done = CliRunner().invoke(
        command, ["launch", "--with", "fakebench", "--compile-there", *map(str, words)], standalone_mode=False
    )
    assert isinstance(done.exception, click.Abort) and "scancel -n numabench-" in done.output
    environment = {"HOME": str(faked.folder / "home"), "PATH": f"{faked.folder}:{os.environ['PATH']}"}
    with open((faked.folder / "out").read_text().strip(), "wb") as out:
        subprocess.run(["sh", faked.folder / "job"], env=environment, stdout=out, stderr=out, check=True)
    assert [*(tmp_path / "runs" / ".launch").rglob("*.jsonl")]
    with pytest.raises(LogError, match="no run log"):
        find_logs([tmp_path / "runs"])  # what has not been looked at is in nobody's fleet
    queued = (faked.folder / "queue").read_text()
    (faked.folder / "queue").write_text(queued.replace("RUNNING", "COMPLETED"))
    (faked.folder / "jobs" / "n1").unlink()
    assert states(launch(*words)) == {"n1": "measured"} and faked.measured() == ["n1"]
    assert (faked.folder / "queue").read_text().count("\n") == 1


def test_the_second_look_visits_suspects_alone_and_fleet_decides(faked, tmp_path):
    names = [f"n{number:02}" for number in range(12)]
    for name in names:
        slow = {"scale": lambda benchmark, p: 1.3} if name == "n03" else {}
        for visit in range(3):
            log = make_log(name, processes=6, samples=1, seed=visit, sd=(0.004, 0.004, 0.004), **slow)
            write(faked.folder / f"{name}-{visit}", log)
        faked.do(
            name,
            f'n=$(grep -c "^{name} " "$here/measured" 2>/dev/null); cp "$here/{name}-${{n:-0}}" "$log"; echo "{name} x" >>"$here/measured"',
        )
    runs = tmp_path / "runs"
    (tmp_path / "hosts").write_text("\n".join([*names, "gone;"]))
    launch("--ssh", tmp_path / "hosts", "-o", runs, code=5)
    done = CliRunner().invoke(command, ["fleet", str(runs), "--format", "json"])
    found = json.loads(done.stdout)
    (cohort,) = found["cohorts"]
    assert [member["alias"] for member in cohort["members"] if member["state"] == "suspect"] == ["n03"] and list(
        found["unmeasured"]
    ) == ["gone;"]
    words = ["launch", "--suspects", str(runs), "--apart", "10ms"]
    do = faked.folder / "do" / "n03"
    whole = do.read_text()
    do.write_text(whole + '; [ "$n" != 2 ] || exit 130')
    done = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 3 and "n03  interrupted" in done.output and faked.measured().count("n03") == 3
    do.write_text(whole)
    done = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 0 and "1 host: 1 measured" in done.output, done.output
    assert faked.measured().count("n03") == 4 and len(faked.measured()) == 15
    done = CliRunner().invoke(command, ["fleet", str(runs)])
    assert "n03  differs" in done.output and "gone;  not measured: no name of a host" in done.output
    assert "gone;,," in CliRunner().invoke(command, ["fleet", str(runs), "--format", "csv"]).output
    done = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 0 and "No machine is suspect" in done.output


ASKED = Asked(launch="a", engine="ssh", hosts=("n1",), words=("memory", "--profile", "quick"), at="2026-01-01T00:00:00Z")


def test_names_are_names_and_no_options():
    names = listed("n1, n2 n3 # n4\n\nme@n5\nssh://me@n6:22\n2001:db8::1 ssh://[fe80::1%eth0]:22 n1")
    bad = [
        ".launch",
        "..",
        "n[01-20]",
        "[x",
        "-l",
        "n;x",
        "$(x)",
        "a b",
        "n\x1b",
        "me@-oProxyCommand=x",
        "-n@h",
        "",
        "x" * 256,
        "`x`",
        "a/b",
        "ssh://-x",
    ]
    hosts, twice, odd = checked([*names, *bad])
    assert (
        hosts == ["n1", "n2", "n3", "me@n5", "ssh://me@n6:22", "2001:db8::1", "ssh://[fe80::1%eth0]:22"]
        and twice == ["n1"]
        and odd == bad
    )
    assert [bare(name) for name in hosts[:-1]] == ["n1", "n2", "n3", "n5", "n6", "2001:db8::1"]


def test_what_is_asked_is_quoted_for_the_shell(tmp_path):
    evil = ("memory", "--set", "size='$(touch x)'; touch y")
    asked = ASKED.__class__(
        **{name: getattr(ASKED, name) for name in ("launch", "engine", "hosts", "at")}, words=evil, program=("~/a b",)
    )
    program = tmp_path / "a b"
    program.write_text(
        f'#!/bin/sh\ncase $1 in -V) echo numabench {__version__};; *) printf \'%s\\n\' "$@" >"$HOME/given"; exit 3;; esac\n'
    )
    program.chmod(0o755)
    visit = remote.prepare(asked, "me@n1", 1, str(tmp_path / "a $(touch z)"))
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(["sh"], input=visit.script.encode(), env=environment, cwd=tmp_path, capture_output=True, check=True)
    assert remote.whole(visit, done.stdout), done.stderr
    assert remote.read_answer(visit, done.stdout, "", 0).state == "failed"
    given = (tmp_path / "given").read_text()
    assert given.startswith("run\n-q\n" + "\n".join(evil) + "\n--alias\nn1\n-o\n")
    assert {p.name for p in tmp_path.iterdir()} == {
        "a $(touch z)",
        "a b",
        "given",
    }


@pytest.mark.parametrize(
    ("data", "errors", "state", "words"),
    [
        ("N begin\nN folder\n", "mkdir: cannot create directory '/h': No space left on device", "disk full", "make room there"),
        ("N begin\nN folder\n", "mkdir: cannot create directory '/h': Permission denied", "failed", "Permission denied"),
        ("N begin\nN end 2\n", "numabench: error: there is no kernel x", "failed", "there is no kernel x"),
        ("N begin\nN end 137\n", "Killed", "failed", "was killed"),
        ("N begin\nN end 130\n", "", "interrupted", "goes on"),
        ("N begin\nN end 0\n", "", "failed", "ended with 0"),
        ("N begin\nN version Traceback: SyntaxError\n", "", "numabench missing", "does not start"),
        ("N begin\nN version numabench needs Python 3.9\n", "", "Python too old", "3.9"),
        ("N begin\nN clock -400\n", "", "clock wrong", "behind"),
        ("N begin\nN clock x\n", "", "clock wrong", "0 s"),
        ("", "kex_exchange_identification: Connection closed by remote host", "unreachable", "--at-once"),
        ("", "ssh: Could not resolve hostname n1: Name or service not known", "unreachable", "is its name right"),
        ("", "ssh: connect to host n1 port 22: No route to host", "unreachable", "is it up"),
        ("", "Permission denied (publickey).", "no access", "ssh -v n1"),
        ("", "\x1b]0;evil", "failed", "ran nothing"),
        ("N begin\nN end abc\n", "", "connection lost", "in the middle"),
        ("N begin\nN end 99999999999999999999\n", "", "connection lost", "in the middle"),
        ("N begin\nN end 3\n", "numabench: error: a \u202e b\u2066", "failed", "a \ufffd b\ufffd"),
    ],
)
def test_what_a_host_says_becomes_a_state_and_a_line(data, errors, state, words):
    visit = remote.prepare(ASKED, "n1", 1)
    answer = remote.read_answer(visit, data.replace("N ", f"{visit.nonce} ").encode(), errors, 255)
    assert answer.state == state and words in answer.why and answer.why == printable(answer.why)


def test_what_arrives_is_bounded(tmp_path, monkeypatch):
    log = write(tmp_path / "log", make_log("n1", processes=2, samples=1)).read_bytes()
    packed = gzip.compress(log)
    for wrong, words in (
        (packed[:-9], "is cut"),
        (packed + b"x", "something behind"),
        (log, "cannot be unpacked"),
        (gzip.compress(log[: log.rindex(b"\n", 0, -1) + 1]), "came to its end"),
        (gzip.compress(log + log.replace(b"n1-0-0", b"n1-0-1")), "not that of one visit"),
    ):
        with pytest.raises(LogError, match=words):
            keeping.keep(tmp_path / "runs", "n1", wrong, {})
    with pytest.raises(LogError, match="n2 sent"):
        keeping.keep(tmp_path / "runs", "n1", packed, {"n1-0-0": "n2"})
    with pytest.raises(LogError, match="that of n1"):
        keeping.keep(tmp_path / "runs", "../n3", packed, {})
    assert not (tmp_path / "runs").exists()
    kept = [keeping.keep(tmp_path / "runs", "me@n1", packed, known) for known in ({}, {"n1-0-0": "me@n1"})]
    assert (
        kept == [("n1-0-0", "n1/20260101T000000Z-n1-0-0.jsonl.gz")] * 2
        and (tmp_path / "runs" / kept[0][1]).read_bytes() == packed
    )
    monkeypatch.setattr(keeping, "MOST_UNPACKED", 1 << 12)
    with pytest.raises(LogError, match="over 0 MiB"):
        keeping.keep(tmp_path / "runs", "n1", packed, {})


def test_hosts_that_are_called_like_files_of_a_launch(faked, tmp_path):
    found = launch("--ssh", "n1,launch.state,index.sqlite", "-o", tmp_path / "runs", code=5)
    assert states(found) == {"n1": "measured", "launch.state": "failed", "index.sqlite": "failed"}, found
    assert "is a file of a launch's folder" in found["launch.state"]["why"]


def test_hosts_come_from_a_pipe_or_a_file_of_another_system(faked, tmp_path):
    (tmp_path / "hosts").write_bytes(b"\xef\xbb\xbfn1\r\nn2\r\n")
    assert states(launch("--ssh", tmp_path / "hosts", "-o", tmp_path / "a")) == {"n1": "measured", "n2": "measured"}
    reads, writes = os.pipe()
    os.write(writes, b"n3\n")
    os.close(writes)
    assert states(launch("--ssh", f"/dev/fd/{reads}", "-o", tmp_path / "b")) == {"n3": "measured"}
    os.close(reads)
    found = launch("--ssh", "n[01-20]", "-o", tmp_path / "c", code=3)
    assert "scontrol show hostnames 'n[01-20]'" in found["n[01-20]"]["why"]


def test_the_second_look_connects_to_no_name_that_the_first_one_refused(faked, tmp_path, monkeypatch):
    write_state(tmp_path, msgspec.structs.replace(ASKED, hosts=("a;b", "-oProxyCommand=x", "n1")))
    looked = []
    monkeypatch.setattr("numabench.launch.launching.hosts_called", lambda members, hosts: looked.extend(hosts) or [])
    monkeypatch.setattr("numabench.analysis.collect.read_fleet", lambda paths: ([], {}, []))
    done = CliRunner().invoke(command, ["launch", "--suspects", str(tmp_path)], catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 0 and looked == ["n1"]


def test_a_state_file_that_was_cut_or_is_none(tmp_path):
    write_state(tmp_path, ASKED, Ended(launch="a", host="n1", state="busy", at="", why="x"))
    path = tmp_path / "launch.state"
    path.write_text(path.read_text() + '{"record":"host","lau')
    assert [each.__class__ for each in read_states(tmp_path)] == [Asked, Ended]
    path.write_text(path.read_text() + '\0\n{"record":"host","launch":"a","host":"n2\\u001b","state":"x","at":""}\n')
    assert read_states(tmp_path)[-1].host == "n2\N{REPLACEMENT CHARACTER}" and unmeasured([tmp_path])["n1"] == "busy: x"
    path.write_text("nothing\n")
    with pytest.raises(LogError, match="line 1 is no state of a launch"):
        read_states(tmp_path)


def test_two_looks_at_several_hosts_are_kept_one_after_the_other(tmp_path):
    packed = {
        (host, look): gzip.compress(
            write(tmp_path / f"{host}{look}", make_log(host, processes=1, samples=1, seed=look)).read_bytes()
        )
        for host in ("n1", "n2", "n3")
        for look in (0, 1)
    }
    with Launching(tmp_path / "runs", ASKED) as launching:
        for look in (0, 1):

            async def every(look=look):
                answers = ((host, remote.Answer("measured", "", packed[host, look])) for host in ("n1", "n2", "n3"))
                await asyncio.gather(*(launching.settle(launching.next_visit(host), answer) for host, answer in answers))

            asyncio.run(every())
            assert sorted(launching.halfway()) == ["n1", "n2", "n3"][: 3 * look]
    assert len([*(tmp_path / "runs").rglob("*.jsonl.gz")]) == 6


def write_state(folder: Path, *records) -> None:
    from numabench.runlog.expected import STATE_FILE
    from numabench.runlog.write import Journal

    with Journal(folder / STATE_FILE) as journal:
        for record in records:
            journal.append(record)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "takes one of"),
        (["--ssh", "a", "--slurm", "b"], "takes one of"),
        (["--ssh", ","], "list of hosts is empty"),
        (["--ssh", "no/such"], "there is no file"),
        (["--ssh", "a", "--profile", "x"], "there is no profile"),
        (["--ssh", "a", "nothing"], "nothing"),
        (["--ssh", "a", "--with", "'"], "cannot be split"),
        (["--ssh", "a", "--set", "size=\n1"], "control characters"),
        (["--suspects", "."], "no launch measured there"),
        (["--suspects", ".", "--profile", "full"], "measures as before; profile"),
    ],
)
def test_what_cannot_be_asked(words, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=what):
        CliRunner().invoke(command, ["launch", *words], catch_exceptions=False)


# -- recipes ------------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "launch.md"


def recipe(kind: str, has: str) -> str:
    (text,) = (
        block for block in re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL) if has in block
    )
    return text


@pytest.fixture
def elsewhere(there, tmp_path, monkeypatch):
    """A numabench in the path that writes a log at once; runs one line of a shell with which a recipe's file is started, and gives the logs that are then there."""
    there.program(
        "numabench", (there.folder / "fakebench").read_text().replace("shift\ndone", "shift\ndone\nalias=${alias:-here}")
    )
    monkeypatch.setenv("PATH", f"{there.folder}:{os.environ['PATH']}")

    def run(kind: str, has: str, name: str, line: str) -> list[Path]:
        program = line.split()[0]
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here: this recipe is not tried")
        text = (
            recipe(kind, has).replace("/shared/runs", str(tmp_path / "runs")).replace("/var/tmp/numabench", str(tmp_path / "far"))
        )
        (tmp_path / name).write_text(text)
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        return [*(tmp_path / "runs").rglob("*.jsonl")]

    return run


def test_recipe_dask(elsewhere):
    beside = [Path(program).with_name("python") for program in (shutil.which("dask"), sys.executable) if program]
    tried = ([python, "-c", "import distributed"] for python in beside)
    python = next((words[0] for words in tried if subprocess.run(words, capture_output=True).returncode == 0), None)
    if python is None:
        pytest.skip("there is no Dask (distributed) here: this recipe is not tried")
    assert len(elsewhere("python", "dask", "visit.py", f"{python} visit.py")) == 1


def test_recipe_mpi(elsewhere, monkeypatch):
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    assert len(elsewhere("sh", "mpirun", "visit.sh", "mpirun --version && sh visit.sh")) == 1


def test_recipe_ansible(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (log,) = elsewhere(
        "yaml",
        "gather_facts",
        "visit.yml",
        f"ansible-playbook -i localhost, -c local -e ansible_python_interpreter={sys.executable} visit.yml",
    )
    assert log.parent.name == "localhost" and not (tmp_path / "far").exists()


def test_recipe_reframe(elsewhere):
    assert len(elsewhere("python", "reframe", "visit.py", "reframe -c visit.py -r --prefix rfm")) == 1


def test_recipe_kubernetes_has_the_form_of_a_job():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(recipe("yaml", "kind: Job"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job") and job["spec"]["completions"] == job["spec"]["parallelism"]
    pod = job["spec"]["template"]["spec"]
    (term,) = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == {"job-name": job["metadata"]["name"]} and pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName" and "$NODE" in container["command"][2]
