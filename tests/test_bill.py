"""The bill: counts with known answers, prices from a log whose truth is known, and sums that cannot be true."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import random
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from synthetic_sysfs import SyntheticTree
from test_cli import numabench

from numabench.bill.bill import BOUND, CPU, WAIT, make_bill, not_seen, product, share_of
from numabench.bill.counts import Counts, Ledger
from numabench.bill.prices import CATALOGUE, Price, Span, applicable, prices
from numabench.bill.transfers import COPIED, Tally, strace_command
from numabench.cli import main
from numabench.errors import IncomparableError, MachineError
from numabench.host.accounts import Process, Reading, Task, read_process, read_tree
from numabench.host.perf import counting
from numabench.host.state import SAMPLE, State, sample_pages
from numabench.host.tracing import traced, usable_strace
from numabench.host.watch import Usage, Watched, watch_command, watch_process
from numabench.measure.visit import Request, Visit
from numabench.model import BenchmarkRecord, Header, Metric, Sample, TrialRecord
from numabench.runlog import SCHEMA
from numabench.runlog.read import RunLog

N = 400
STARTS = 8  # of whatever is counted, that a C program does before and after what it is asked for: it maps its libraries, and waits for its files
MOST_TRIES = 20  # until a thread is left alone for N calls, which take some milliseconds
HERE = Path(__file__).parent
BARE = {"command": ("x",), "process": None, "code": 0, "watching": 0.0, "not_seen": ()}
SAMPLE_LOG = HERE.parent / "results" / "sample" / "first.jsonl"
CONFIGURATION = {"kernel": "6.1", "mitigations": {"spectre_v2": "Retpolines"}, "microcode": "0x1"}


# --- counts: programs whose answers are known -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def victims(tmp_path_factory) -> str:
    target = str(tmp_path_factory.mktemp("victims") / "victims")
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", HERE / "victims.c", "-o", target], check=True)
    return target


@pytest.fixture
def counted(capfd):
    """Runs a program: its counts, and the numbers that it printed."""

    def run(*command: str) -> tuple[Counts, list[int]]:
        ledger = Ledger(whole=True)
        counts = ledger.counts(watch_command(command, ledger.take))
        return counts, [int(word) for word in capfd.readouterr().out.split() if word.lstrip("-").isdigit()]

    return run


@pytest.fixture
def two_cpus():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")


def test_moves_are_counted_exactly(counted, victims, two_cpus):
    counts, (before, after) = counted(victims, "moves", str(N))
    if after < 0:
        pytest.skip("this kernel does not say how often a thread was moved")
    assert after - before == N and counts.migrations == after
    assert len(counts.cpus) >= 2


def test_sleeps_are_counted_as_the_kernel_does(counted, victims, two_cpus):
    counts, (slept,) = counted(victims, "parks", str(N))
    assert slept >= N  # both sleep, except where one is preempted before it can
    assert slept <= counts.voluntary <= slept + STARTS


def test_faults_and_interrupts(counted, victims, two_cpus):
    """Faults exactly; interrupts from above, since other programs cause some."""
    counts, (faults, interrupts) = counted(victims, "gives", str(N))
    assert N <= faults <= counts.minor <= faults + 4 * STARTS  # where it ends and is taken apart
    assert counts.tlb is None or counts.tlb >= interrupts


SENDER = """
import os, socket, sys
file, there, back = os.memfd_create("x"), *socket.socketpair()
os.truncate(file, 1 << 16)
out, into = os.pipe()
for i in range(12):
    there.send(os.pread(file, 4096, 0)); back.recv(4096)
for i in range(7):
    os.sendfile(there.fileno(), file, 0, 4096); back.recv(4096)
for i in range(5):
    there.send(bytes(4096)); back.recv(4096)
for i in range(3):
    os.write(into, os.pread(file, 4096, 0)); os.read(out, 4096)
"""


def test_transfers_are_told_by_their_path():
    try:
        strace = usable_strace(strace_command)
    except MachineError as error:
        pytest.skip(str(error))
    tally, ledger = Tally(), Ledger(whole=True)
    with traced(tally.add) as trace:
        seen = watch_command([*strace_command(strace, trace.path), sys.executable, "-S", "-c", SENDER], ledger.take)
        assert trace.finish(30) and seen.code == 0
    found = {(each.path, each.source, each.target): (each.calls, each.bytes) for each in tally.found}
    assert found[COPIED, "file", "unix"] == (12, 12 * 4096)
    assert found["sendfile", "file", "unix"] == (7, 7 * 4096)
    assert found["sendto", "memory", "unix"] == (5, 5 * 4096)
    assert found[COPIED, "file", "pipe"] == (3, 3 * 4096)
    bill = make_bill(ledger.counts(seen), {}, tally, **BARE)
    assert {line.name: line.count for line in bill.lines if "copies" in line.name} == {"copies to unix": 12, "copies to pipe": 3}
    assert not {"sleeps", "migrations"} & {line.name for line in bill.lines}  # which the tracer causes, too


def test_shoot_downs_are_counted_by_who_asks_for_them(victims, two_cpus):
    """One for each page that is given back, unless the other thread is kept from running: then there is nothing to shoot down."""
    counts = None
    for _ in range(MOST_TRIES):
        ledger = Ledger(whole=True)
        try:
            with counting() as count:
                seen = watch_command([victims, "gives", str(N)], ledger.take, count.start)
                counts = ledger.counts(seen, count.finish())
        except MachineError as error:
            pytest.skip(str(error))
        assert seen.code == 0 and counts.shootdowns <= N + 4 * STARTS
        assert N < counts.system_calls < N + 300  # begin and end, and that of the shell
        if counts.shootdowns >= N:
            break
    assert counts.shootdowns >= N
    names = {line.name for line in make_bill(counts, {}, **BARE).lines}
    assert {"system calls", "shoot-downs"} <= names and not {"calls", "flushes"} & names


def test_what_a_program_starts_is_on_its_bill(counted):
    """Also of processes that live for less than a reading."""
    counts, _ = counted("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do cat /dev/null; done; exec true")
    alone, _ = counted("true")
    assert counts.minor > 9 * alone.minor / 2 and counts.whole


# --- a command has its terminal, streams and signals ----------------------------------------------------------------


def test_streams_and_exit_code_are_the_commands(tmp_path):
    words = ["-o", str(tmp_path / "bill"), "--no-prices", "--"]
    done = subprocess.run(
        [sys.executable, "-m", "numabench", "bill", *words, "sh", "-c", "cat; echo wrong >&2; echo $0; exit 37", "--traceback"],
        input="given", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 37 and done.stdout == "given--traceback\n" and done.stderr.startswith("wrong\n")
    assert "ended with 37" in " ".join((tmp_path / "bill").read_text().split())


HEARS = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: print("heard", flush=True))
print("here", flush=True)
time.sleep(0.5)
sys.exit(9)
"""


def test_a_terminal_interrupts_the_command_alone():
    """Ctrl-C, which the terminal itself sends to both: numabench prints its bill, and the command hears it once."""
    child, terminal = pty.fork()
    if child == 0:
        words = [sys.executable, "-m", "numabench", "bill", "--no-prices", "--", sys.executable, "-S", "-c", HEARS]
        os.execv(words[0], words)
    text = b""
    while b"here" not in text:
        text += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(terminal, 4096):
            text += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert text.count(b"heard\r\n") == 1 and b"Bill of" in text


def test_a_signal_that_ends_it_is_said_as_shells_do():
    done = numabench("bill", "--no-prices", "--", "sh", "-c", "kill -USR1 $$", code=128 + signal.SIGUSR1)
    assert "ended with" in done.stderr and not done.stdout


def started(*words: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "numabench", "bill", "--no-prices", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


WAITS = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); print('here', flush=True); time.sleep(60)"
)


def test_signals_reach_the_command_and_the_bill_is_printed():
    """A kill is handed on; an interrupt of the terminal reaches the whole group."""
    with started("--", sys.executable, "-c", WAITS) as process:
        process.stdout.readline()
        process.terminate()
        assert process.wait(30) == 5 and "Bill of" in process.stderr.read()
    with started("--", sys.executable, "-c", WAITS, start_new_session=True) as process:
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT and "Bill of" in process.stderr.read()


def test_what_python_ignores_its_children_do_not(capfd):
    assert watch_command(["grep", "^Sig[BI]", "/proc/self/status"], lambda _: None).code == 0
    masks = dict(line.split() for line in capfd.readouterr().out.splitlines())
    assert not int(masks["SigBlk:"], 16) and not int(masks["SigIgn:"], 16) & 1 << signal.SIGPIPE - 1
    assert watch_command(["sh", "-c", "kill -PIPE $$"], lambda _: None).code == 128 + signal.SIGPIPE


def test_a_process_that_runs_already(tmp_path):
    """For so long, or until it ends; what it did before is not on the bill."""
    program = "import time, sys; [bytearray(1 << 22) for _ in range(64)]; print('here', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        done = numabench("bill", "--pid", str(process.pid), "--for", "300ms", "--no-prices", "--format", "json")
        bill = json.loads(done.stdout)
        assert bill["counts"]["minor"] < 64 and bill["counts"]["wall"] >= 0.3 and not bill["counts"]["whole"]
        assert bill["process"] == process.pid and bill["code"] is None
        if bill["pages"]:
            assert sum(span["value"] for span in bill["pages"].values()) == pytest.approx(1)
        ended = watch_process(process.pid, None, lambda _: process.kill())  # at the first reading
        assert not ended.interrupted and ended.code is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "name a command"),
        (("--pid", "1", "--", "true"), 2, "name a command"),
        (("--for", "1s", "--", "true"), 2, "--for goes with --pid"),
        (("--transfers", "--hardware", "--", "true"), 2, "two runs"),
        (("--transfers", "--pid", "1"), 2, "--transfers goes with a command"),
        (("--no-prices", "--", "no-such-program"), 2, "cannot be started"),
        (("--no-prices", "--pid", "4194304"), 2, "there is no process"),
        (("--no-prices", "-o", "/nowhere/bill", "--", "true"), 2, "no folder"),
        (("--", "true"), 4, "numabench run runtime"),
        (("--prices", str(SAMPLE_LOG), "--", "true"), 4, "the prices are of another machine"),
    ],
)
def test_what_cannot_be_billed(words, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["bill", *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == code and said in line


# --- readings -------------------------------------------------------------------------------------------------------


def task(number: int = 1, **counts) -> Task:
    usual = {"ran": 0.0, "waited": 0.0, "voluntary": 0, "involuntary": 0, "migrations": 0, "cpu": 0}
    return Task(number=number, began=number, **usual | counts)


def process(*tasks: Task, number: int = 1, **counts) -> Process:
    return Process(
        number=number, began=number, **{"cpu": 0.0, "minor": 0, "major": 0, "calls": 0, "resident": 0, "tasks": tasks} | counts
    )


def watched(**facts) -> Watched:
    usual = {
        "wall": 1.0,
        "code": None,
        "usage": None,
        "interrupted": False,
        "state": None,
        "cpus": (0, 3),
        "tlb": {0: 5, 1: 7, 2: 100},
        "spent": 0.0,
    }
    return Watched(**usual | facts)


def test_threads_that_come_and_go():
    ledger = Ledger(whole=False)
    ledger.take(Reading(at=0, processes=(process(task(1, ran=5.0, voluntary=100, migrations=7), cpu=9.0, minor=1000, calls=50),)))
    ledger.take(
        Reading(
            at=1,
            processes=(
                process(
                    task(1, ran=5.5, voluntary=110, migrations=8, cpu=1),
                    task(2, ran=0.2, voluntary=3),
                    cpu=9.7,
                    minor=1100,
                    calls=55,
                ),
            ),
        )
    )
    ledger.take(
        Reading(at=2, processes=(process(task(1, ran=6.0, voluntary=120, migrations=8, cpu=1), cpu=10.5, minor=1200, calls=60),))
    )
    ledger.take(Reading(at=3, processes=()))
    counts = ledger.counts(watched())
    assert (counts.voluntary, counts.migrations, counts.minor, counts.calls, counts.threads) == (23, 1, 200, 10, 2)
    assert counts.cpu == pytest.approx(1.5) and counts.seen == pytest.approx(1.2 / 1.5)
    assert counts.cpus == (0, 1, 3) and counts.tlb == 12


def test_a_process_that_is_waited_for_is_counted_once():
    ledger = Ledger(whole=False)
    parent, child = process(task(1), minor=10), process(task(2), number=2, minor=500)
    ledger.take(Reading(at=0, processes=(parent,)))
    ledger.take(Reading(at=1, processes=(parent, child)))
    ledger.take(Reading(at=2, processes=(process(task(1), minor=520),)))
    assert ledger.counts(watched()).minor == 510
    lost = Ledger(whole=False)
    for processes in ((parent,), (parent, child), (parent,), (process(task(1), minor=15),)):
        lost.take(Reading(at=0, processes=processes))
    assert lost.counts(watched()).minor == 505  # nobody waited for it: what was seen is kept


def test_one_reads_oneself_as_others():
    mine = read_tree(os.getppid()).processes
    assert os.getpid() not in {each.number for each in mine}
    assert mine[0].tasks and mine[0].minor > 0


def test_the_counts_of_a_thread_are_those_of_the_kernel():
    """As getrusage(2) has them, which is read before and after."""
    begin, whole = resource.getrusage(resource.RUSAGE_THREAD), resource.getrusage(resource.RUSAGE_SELF)
    mine = read_process(os.getpid())
    end, then = resource.getrusage(resource.RUSAGE_THREAD), resource.getrusage(resource.RUSAGE_SELF)
    thread = next(each for each in mine.tasks if each.number == threading.get_native_id())
    assert begin.ru_nvcsw <= thread.voluntary <= end.ru_nvcsw and begin.ru_nivcsw <= thread.involuntary <= end.ru_nivcsw
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert whole.ru_minflt <= mine.minor - children.ru_minflt <= then.ru_minflt
    assert whole.ru_majflt <= mine.major - children.ru_majflt <= then.ru_majflt
    used = sum(each.ru_utime + each.ru_stime for each in (whole, children))
    assert used - 0.1 <= mine.cpu <= used + 0.1  # in ticks
    if mine.calls is not None:
        for _ in range(50):
            HERE.joinpath("single.c").read_bytes()
        assert read_process(os.getpid()).calls >= mine.calls + 50


def test_pages_are_drawn_from_those_that_are_there():
    found = sample_pages(os.getpid(), random.Random(1))
    if found is None:
        pytest.skip("move_pages is not allowed here")
    assert 0 < sum(found.values()) <= SAMPLE and min(found) >= 0


# --- what strace writes ---------------------------------------------------------------------------------------------


def test_lines_of_a_tracer():
    tally = Tally()
    for line in (
        '10 read(5</srv/a b>, ""..., 65536) = 65536',
        '11 write(1</dev/null>, ""..., 9) = 9',  # another thread
        '10 write(4<TCP:[127.0.0.1:1->127.0.0.1:2]>, ""..., 65536 <unfinished ...>',
        "11 sendfile(4<TCPv6:[::1:1->::1:2]>, 5</srv/a>, [0] => [100], 100) = 100",
        "10 <... write resumed>) = 65536",
        '10 write(4<TCP:[127.0.0.1:1->127.0.0.1:2]>, ""..., 65536) = 65536',  # it comes from nowhere: memory
        "10 splice(5</memfd:x>(deleted), NULL, 7<pipe:[9]>, NULL, 5, 0) = 5",
        "10 read(5</srv/a>, 0x1, 5) = -1 EINTR (Interrupted)",
        '12 read(5</srv/a>, ""..., 100) = 100',
        '12 write(7<pipe:[9]>, ""..., 40) = 40',  # not what it has just read
        "10 +++ exited with 0 +++",
    ):
        tally.add(line)
    assert {(m.path, m.source, m.target): (m.calls, m.bytes) for m in tally.found} == {
        (COPIED, "file", "tcp"): (1, 65536),
        ("read", "file", "memory"): (2, 65636),
        ("write", "memory", "pipe"): (1, 40),
        ("write", "memory", "tcp"): (1, 65536),
        ("write", "memory", "device"): (1, 9),
        ("sendfile", "file", "tcp"): (1, 100),
        ("splice", "file", "pipe"): (1, 5),
    }
    assert tally.copies == {("tcp", 65536): 1} and tally.traced == 9


# --- prices: a log whose truth is known ------------------------------------------------------------------------------


def truth(benchmark: str, metric: str, parameters: dict) -> float:
    """ns, another one for each cell."""
    return 100.0 + random.Random(repr((benchmark, metric, sorted(parameters.items())))).random() * 900


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> RunLog:
    """What a quick visit with a perfect clock would bring."""
    tree = SyntheticTree(tmp_path_factory.mktemp("host"), packages=1, nodes=1, l3s=1, cores=2, smt=1)
    metrics = {}
    for source in (source for sources in CATALOGUE.values() for source in sources):
        metrics.setdefault(source.benchmark, set()).add(source.metric)
    visit = Visit(Request(benchmarks=tuple(metrics), profile="quick"), str(tree.root))
    facts = {"id": "me", "alias": "me", "configuration": CONFIGURATION | {"seccomp_filters": 0}, "topology": {}}
    header = Header(schema=SCHEMA, run="r1", session="s1", started="2026-01-01T00:00:00Z", numabench="0", machine=facts, plan={})
    records, trials = [], []
    for benchmark in visit.benchmarks:
        cases = [each.case for block in visit.plan.blocks if block.benchmark == benchmark.name for each in block.cases]
        own = tuple(Metric(name=name, unit="ns", polarity="lower") for name in metrics[benchmark.name])
        records.append(
            BenchmarkRecord(run="r1", name=benchmark.name, title="", question="", axes=benchmark.axes, metrics=own, method={})
        )
        for number in range(8):
            samples = tuple(
                Sample(
                    case=case.hash,
                    index=0,
                    parameters=case.parameters,
                    valid=True,
                    metrics={
                        name: truth(benchmark.name, name, case.parameters) * (1 + number / 1000)
                        for name in metrics[benchmark.name]
                    },
                )
                for case in cases
            )
            trials.append(
                TrialRecord(run="r1", session="s1", benchmark=benchmark.name, block="0", process=number, started=header.started, duration=1.0, startup=0.1, status="ok", samples=samples)
            )  # fmt: skip
    return RunLog(paths=("x.jsonl",), headers=(header,), benchmarks=tuple(records), trials=tuple(trials), ends=())


def cell(log: RunLog, benchmark: str, metric: str, where: dict) -> float:
    (found,) = {
        truth(benchmark, metric, s.parameters)
        for t in log.trials
        if t.benchmark == benchmark
        for s in t.samples
        if where.items() <= s.parameters.items()
    }
    return found


def test_a_quick_visit_has_every_price(log):
    """Each is the one cell, or the difference of the two cells, that it names."""
    found = prices(log)
    assert found.keys() == CATALOGUE.keys()
    for name, price in found.items():
        source = CATALOGUE[name][0]
        wanted = cell(log, source.benchmark, source.metric, source.where)
        if source.against:
            wanted -= cell(log, source.benchmark, source.metric, {**source.where, **source.against})
        assert price.of == source.words and price.span.value == pytest.approx(wanted, rel=0.01, abs=2)
        assert price.span.low <= price.span.value <= price.span.high


def visited(log: RunLog, run: str, started: str, **configuration) -> RunLog:
    """The same once more, at another time and otherwise set up."""
    machine = log.headers[0].machine | {"configuration": CONFIGURATION | configuration}
    return msgspec.structs.replace(
        log,
        headers=(msgspec.structs.replace(log.headers[0], run=run, started=started, machine=machine),),
        benchmarks=tuple(msgspec.structs.replace(b, run=run) for b in log.benchmarks),
        trials=tuple(msgspec.structs.replace(t, run=run) for t in log.trials),
    )


def together(*logs: RunLog) -> RunLog:
    parts = {
        name: tuple(each for log in logs for each in getattr(log, name))
        for name in ("paths", "headers", "benchmarks", "trials", "ends")
    }
    return RunLog(**parts)


@pytest.mark.parametrize("fact", ["machine", "kernel", "mitigations", "microcode"])
def test_prices_of_what_it_is_not_any_more_are_refused(log, fact):
    identity, now = "me", dict(CONFIGURATION)
    if fact == "machine":
        identity = "other"
    else:
        now[fact] = {"spectre_v2": "Vulnerable"} if fact == "mitigations" else "another"
    with pytest.raises(IncomparableError, match=fact):
        applicable(log, identity, now)
    _, tariff = applicable(log, identity, now, any_prices=True)
    assert tariff.differs.keys() == {fact}


def test_the_last_visit_that_fits_has_the_prices(log):
    later, updated = visited(log, "r2", "2026-02-01T00:00:00Z"), visited(log, "r3", "2026-03-01T00:00:00Z", kernel="6.2")
    part = msgspec.structs.replace(later, trials=tuple(t for t in later.trials if t.benchmark == "wake_up"))
    kept, tariff = applicable(together(updated, part, log), "me", CONFIGURATION)
    assert tariff.runs == ("r1", "r2") and not tariff.differs
    assert {t.run for t in kept.trials if t.benchmark == "wake_up"} == {"r2"}
    assert {t.run for t in kept.trials if t.benchmark != "wake_up"} == {"r1"}
    assert applicable(together(updated, log), "me", CONFIGURATION | {"kernel": "6.2"})[1].runs == ("r3",)


# --- sums -----------------------------------------------------------------------------------------------------------


COUNTS = Counts(
    wall=2.0, cpu=1.0, whole=True, seen=1.0, threads=2, minor=1000, major=3, voluntary=10_000, involuntary=100, migrations=50, waited=0.25, calls=4000, cpus=(0, 1), tlb=10,
)  # fmt: skip


def priced(**ns: float) -> dict[str, Price]:
    return {
        name: Price(span=Span(value=value, low=value / 1.1, high=value * 1.2), of=name, run="r") for name, value in ns.items()
    }


def bill_of(counts: Counts = COUNTS, tally: Tally | None = None, **ns: float):
    return make_bill(counts, priced(**ns), tally, **BARE)


def test_lines_are_counts_times_prices():
    bill = bill_of(wake=3000, fault=1000, call=200, move=30_000, flush=14_000, wake_elsewhere=25_000)
    lines = {line.name: line for line in bill.lines}
    assert lines["sleeps"].total.value == pytest.approx(0.03) and lines["sleeps"].share == pytest.approx(0.03)
    assert lines["sleeps"].total.low == pytest.approx(0.03 / 1.1) and lines["sleeps"].total.high == pytest.approx(0.03 * 1.2)
    assert bill.cpu.value == pytest.approx(0.03 + 0.001 + 0.0008) and bill.cpu_applies and not bill.verdict
    assert lines["migrations"].kind == WAIT and lines["migrations"].share == pytest.approx(50 * 30e-6 / 4)
    assert lines["run delay"].total.value == 0.25 and lines["run delay"].count is None
    assert lines["refetches"].total is None and lines["flushes"].kind == BOUND


def test_no_sum_is_above_the_time_that_was_used():
    bill = bill_of(wake=95_000, fault=60_000)  # 0.95 s and 0.06 s of 1 s
    assert bill.cpu is None and not bill.cpu_applies and "do not apply" in bill.verdict[0] and "sleeps" in bill.verdict[0]
    assert not [line for line in bill.lines if line.kind == CPU and line.total]
    near = bill_of(wake=95_000)
    assert near.cpu.value == pytest.approx(0.95) and near.cpu.high == 1.0  # nor the end of an interval


def test_waits_are_no_longer_than_all_threads_together():
    bill = bill_of(wake_elsewhere=400_000)  # 4 s, and a quarter of a second for CPUs, of 2 threads in 2 s
    assert not bill.waits_apply and "waits" in bill.verdict[0] and bill.cpu_applies
    assert [line.name for line in bill.lines if line.kind == WAIT and line.total] == ["run delay"]  # which was measured


def test_a_wait_that_was_measured_is_none_of_the_others():
    crowded = msgspec.structs.replace(COUNTS, waited=3.9)
    bill = bill_of(crowded, wake_elsewhere=20_000)  # 0.2 s of 4 s, of which 0.1 s is left
    assert not bill.waits_apply and bill.verdict
    assert bill_of(msgspec.structs.replace(COUNTS, waited=4.5)).waits_apply  # nothing is multiplied


def test_a_bound_above_the_time_used_says_nothing():
    assert next(line for line in bill_of(flush=2e8).lines if line.name == "flushes").total is None


@pytest.mark.parametrize("wide", [1.0, 1.3])
def test_intervals_add_up_in_logs(wide):
    count, price = Span(value=100, low=100 / wide, high=100 * wide), Span(value=7.0, low=7 / 1.2, high=7 * 1.2)
    found = product(count, price)
    factor = math.exp(math.hypot(math.log(wide), math.log(1.2)))
    assert (found.value, found.low, found.high) == pytest.approx((700, 700 / factor, 700 * factor))
    assert math.isnan(product(count, Span(value=7.0, low=-1.0, high=9.0)).low)


def test_files_of_several_sizes_are_copied_at_their_own_prices():
    tally = Tally()
    for size in (100, 100, 60_000, 60_000):
        tally.add(f'1 read(5</a>, ""..., {size}) = {size}')
        tally.add(f'1 write(4<pipe:[1]>, ""..., {size}) = {size}')
    line = next(
        line
        for line in bill_of(tally=tally, **{"copy pipe 64": 100.0, "copy pipe 65536": 3000.0}).lines
        if line.name == "copies to pipe"
    )
    assert line.count == 4 and line.price.value == pytest.approx(1550) and line.total.value == pytest.approx(6.2e-6)
    part = next(line for line in bill_of(tally=tally, **{"copy pipe 64": 100.0}).lines if line.name == "copies to pipe")
    assert part.total is None and part.count == 4


def test_a_price_that_is_missing_says_why(log):
    alone = msgspec.structs.replace(
        log,
        benchmarks=tuple(b for b in log.benchmarks if b.name != "fibers"),
        trials=tuple(t for t in log.trials if t.benchmark != "fibers"),
    )
    found = prices(alone)
    assert found["switch"] == "fibers was not measured" and isinstance(found["wake"], Price)
    line = next(line for line in make_bill(COUNTS, found, **BARE).lines if line.name == "preemptions")
    assert line.price is None and line.of == found["switch"]
    other = msgspec.structs.replace(alone, benchmarks=tuple(b for b in alone.benchmarks if b.name != "user_faults"))
    assert prices(other)["fault"].of.startswith("first_touch")


def test_what_was_not_seen_widens_the_line():
    line = next(line for line in bill_of(msgspec.structs.replace(COUNTS, seen=0.5), move=1000).lines if line.name == "migrations")
    assert line.how == "at least" and line.count == 50 and line.total.high > 2 * line.total.value > 2 * line.total.low
    whole = next(line for line in bill_of(wake=1000).lines if line.name == "sleeps")
    assert whole.how == "exact"
    attached = next(
        line for line in bill_of(msgspec.structs.replace(COUNTS, whole=False), wake=1000).lines if line.name == "sleeps"
    )
    assert attached.how == "at least"


def test_copies_cost_what_sendfile_saves():
    tally = Tally()
    for _ in range(3):
        tally.add('1 read(5</a>, ""..., 60000) = 60000')
        tally.add('1 write(4<TCP:[a->b]>, ""..., 60000) = 60000')
    bill = bill_of(tally=tally, **{"copy tcp 65536": 2000.0, "stop": 10_000.0})
    line = next(line for line in bill.lines if line.name == "copies to tcp")
    assert (line.count, line.kind) == (3, CPU) and line.total.value == pytest.approx(6e-6)
    assert bill.tracing == pytest.approx(6 * 10e-6) and bill.traced == 6
    dearer = next(line for line in bill_of(tally=tally, **{"copy tcp 65536": -500.0}).lines if line.name == "copies to tcp")
    assert dearer.total is None and not dearer.remedy and "no less" in dearer.note


def test_what_a_program_has_otherwise_is_said(log):
    _, tariff = applicable(log, "me", CONFIGURATION)
    state = State(process=1, resident=1 << 20, pages={0: 660, 1: 340}, huge=0, scheduling="fifo", slack_ns=50_000, filters=2)
    bill = make_bill(COUNTS, {}, None, state, tariff, **BARE)
    assert ["seccomp" in text for text in bill.verdict] == [True]  # the class of who measured is not known
    assert bill.pages["1"].low == pytest.approx(0.311, abs=0.001)
    assert not make_bill(COUNTS, {}, Tally(), state, tariff, **BARE).verdict  # the tracer's own


def test_shares_stay_between_none_and_all():
    assert share_of(0, 1000).low == 0 < share_of(0, 1000).high < 0.005
    third = share_of(340, 1000)
    assert third.low == pytest.approx(0.311, abs=0.001) and third.high == pytest.approx(0.370, abs=0.001)


def test_what_no_count_shows_is_said():
    said = " ".join(not_seen(counters=False, transfers=False, hardware=False))
    assert "false sharing" in said and "HITM" in said and "another node" in said and "this system has none" in said
    assert "perf c2c" in not_seen(True, True, True)[0]


def test_a_child_that_ends_at_once_has_its_usage():
    usage = Usage(cpu=0.5, minor=7, major=1, voluntary=3, involuntary=2)
    counts = Ledger(whole=True).counts(watched(usage=usage, cpus=(0,), tlb=None))
    assert (counts.cpu, counts.minor, counts.voluntary, counts.cpus, counts.tlb) == (0.5, 7, 3, (0,), None)
