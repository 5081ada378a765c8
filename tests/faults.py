"""Faults put into runs that go on: `make faults`.

Each fault is one short `numabench run` of real processes, something that happens to it at a random moment, and a resume. What happens comes from
a seed and the fault's number alone (`--seed 1 --only 47 --all` repeats it); when exactly it meets the run is up to the machine.

Promised, and looked at after each: the exit code that the contract has for it, no traceback, errors in one line, an end within the time limit,
no process, shared memory or temporary file left behind, every trial that was in the log still in it, and a `--resume` after which the log has the
plan, trials and cases of a run that nothing happened to.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from numabench.host.cache import COMPILING
from numabench.host.sysfs import parse_list
from numabench.runlog.read import load

HERE = Path(__file__).resolve().parent
NUMABENCH = [sys.executable, "-m", "numabench"]
WORKER = "numabench.measure.forks"
TOKEN = "NUMABENCH_FAULT"  # a variable by which the processes of one fault are found, whoever their parent is
LIMIT = 90.0  # s that a run may take: ten times what the longest takes, and over what it grants a process that hangs
GRACE = 3.0  # s in which processes that were killed are gone
HUNG_BUDGET = "3s"
DISK = 1 << 20  # bytes of a full disk
PROCESSES = 4
SELECTIONS = (  # little of each, of one thread and of two
    ("memory_latency", "--set", "size=16k,64k"),
    ("padded_counters", "--set", "stride=8,1024", "--set", "spacing=0,200"),
    ("single_operations", "--set", "state=owned"),
    ("fences",),
)
SHORT = ("--samples", "1", "--window", "1ms", "--processes", str(PROCESSES))
COMPLAINT = re.compile(r"Traceback|Exception ignored|Fatal Python|Warning:|core dumped")
# -SIGINT is 130 to a shell: CPython ends itself that way once an interrupt has met code that it compiles at run time, whoever caught it.
OK, REFUSED, INTERRUPTED = {0}, {0, 3}, {130, -signal.SIGINT}


# --- processes ------------------------------------------------------------------------------------------------------


def marked(token: str) -> list[int]:
    """Processes of a fault that have not ended."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if f"{TOKEN}={token}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(int(pid))
    return found


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def threads_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(thread) for thread in os.listdir(f"/proc/{pid}/task")]
    return []


def wait_for(condition: Callable[[], object], seconds: float, step: float = 0.005) -> object:
    until = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(step)
    return found


# --- one fault ------------------------------------------------------------------------------------------------------


class Scene:
    """The folders of one fault, its run, and what was seen of it."""

    def __init__(self, rng: random.Random, number: int, folder: Path, references: dict):
        self.rng, self.folder, self.references = rng, folder, references
        self.token = f"{os.getpid()}-{number}"
        self.selection = rng.choice(SELECTIONS)
        self.results, self.tmp, self.cache = folder / "results", folder / "tmp", folder / "cache"
        self.environment = os.environ | {TOKEN: self.token, "TMPDIR": str(self.tmp), "XDG_CACHE_HOME": str(self.cache)}
        self.environment["NUMABENCH_RUN_ANYWAY"] = "1"  # a busy machine is no fault of a run's
        self.options: tuple[str, ...] = ()
        self.shown = () if rng.random() < 0.2 else ("-q",)  # plan, progress and answers, which take longer than the run
        self.wrapped: dict = {}  # how the run's process is started
        self.mounts: list[Path] = []
        self.log: int | None = None  # the log as it was found, open: whatever happens to its name, what it held can be read
        self.before = 0  # trials in it when the fault came
        self.faults: list[str] = []
        self.said: list[str] = []
        for path in (self.results, self.tmp, self.cache / "numabench"):
            path.mkdir(parents=True, mode=0o700)

    def compiled(self) -> None:
        """The cache as runs of this selection before it leave it."""
        self.reference()
        shutil.copytree(self.warm, self.cache, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))

    @property
    def warm(self) -> Path:
        return self.folder.parent / "warm"

    def small_disk(self, path: Path) -> bool:
        """Whether `path` is now a disk of its own, of DISK bytes."""
        content = [*path.rglob("*")] if path == self.cache else []
        kept = self.folder / "kept"
        if content:
            shutil.copytree(path, kept)
        size = DISK + sum(each.stat().st_size for each in content if each.is_file())
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", path], capture_output=True)
        if done.returncode:
            shutil.rmtree(kept, ignore_errors=True)
            return False
        self.mounts.append(path)
        if content:
            shutil.copytree(kept, path, dirs_exist_ok=True)
            shutil.rmtree(kept)
        return True

    def start(self, arguments: tuple[str, ...] = (), name: str = "run") -> subprocess.Popen:
        arguments = arguments or (*self.selection, *SHORT, *self.shown, "--budget", "60s", *self.options, "-o", str(self.results))
        with open(self.folder / f"{name}.out", "wb") as out, open(self.folder / f"{name}.err", "wb") as err:
            child = subprocess.Popen(
                [*NUMABENCH, "run", *arguments],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=self.folder,
                **{"stdout": out, "stderr": err, "env": self.environment} | (self.wrapped if name == "run" else {}),
            )
        # Until its own modules are there it is Python's interpreter that answers.
        wait_for(lambda: child.poll() is not None or self.begun(child.pid), LIMIT)
        return child

    def begun(self, pid: int) -> bool:
        try:
            return b"msgspec" in Path(f"/proc/{pid}/maps").read_bytes()
        except OSError:
            return True

    def pause(self, most: float) -> None:
        time.sleep(self.rng.uniform(0, most))

    def workers(self) -> list[int]:
        return [pid for pid in marked(self.token) if WORKER in command_of(pid)]

    def find_log(self) -> None:
        """The log as it is now: what happens from here on may lose nothing of it."""
        found = sorted(self.results.rglob("*.jsonl"))
        if found and self.log is None:
            with contextlib.suppress(OSError):
                self.log = os.open(found[0], os.O_RDONLY | os.O_CLOEXEC)
        self.before = len(trials_in(self.content()))

    def content(self) -> bytes:
        """Of the log that was found, under whatever name."""
        if self.log is None:
            return b""
        return os.pread(self.log, 1 << 30, 0)

    def ended(self) -> bool:
        """Whether all was written before the fault came."""
        return b'"record":"end"' in self.content()

    def wrong(self, what: str) -> None:
        self.faults.append(what)

    # -- what is looked at ------------------------------------------------------------------------------------------

    def finish(self, child: subprocess.Popen, codes: set[int], name: str = "run") -> int:
        """Waits for the run and looks at how it ended."""
        try:
            code = child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.wrong("hang")
            for pid in marked(self.token):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            code = child.wait()
        out, err = ((self.folder / f"{name}.{kind}").read_text(errors="replace") for kind in ("out", "err"))
        self.said.append(f"{name}: {code}\n{out[-1500:]}{err[-3000:]}")
        if code not in codes and "hang" not in self.faults:
            self.wrong(f"exit code {code}")
        if COMPLAINT.search(out + err):
            self.wrong("traceback")
        lines = [line for line in err.splitlines() if line.strip() and not line.startswith("<jemalloc>")]  # pyarrow's own word
        if code in (2, 3, 70) and (len(lines) != 1 or not lines[0].startswith("numabench: error: ")):
            self.wrong("not one line")
        if wait_for(lambda: not marked(self.token), GRACE) is False:
            self.wrong("process left")
            for pid in marked(self.token):
                self.said.append(f"left: {pid} {command_of(pid)}")
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        return code

    def look_at_files(self, killed: bool) -> None:
        left = [str(path.relative_to(self.folder)) for path in self.tmp.rglob("*")]
        left += [str(path) for path in self.results.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
        if not killed:  # what a kill leaves in the middle of compiling, a later run removes
            left += [str(path) for path in self.cache.rglob(f"{COMPILING}*")]
        if left:
            self.wrong("file left")
            self.said.append(f"left: {left}")
        if any("numabench" in name for name in os.listdir("/dev/shm")):
            self.wrong("shared memory left")

    def resume(self, may_lack: bool = False) -> None:
        """Goes on with the log that is there until all trials are, and compares with a run that nothing happened to. `may_lack`: trials may have
        failed for what happened, and others have taken away what the log had."""
        logs = sorted(path for path in self.folder.rglob("*.jsonl"))
        if not logs:
            if self.before and not may_lack:
                self.wrong("log lost")
            return
        log = max(logs, key=lambda path: path.stat().st_size)
        if not is_log(log.read_bytes()):
            if self.before and not may_lack:
                self.wrong("log lost")
            child = self.start(("--resume", str(log), "-q"), "resume")
            self.finish(child, {2})
            return
        trials = trials_in(log.read_bytes())
        if len(trials) < self.before and not may_lack:
            self.wrong("trial lost")
        wanted = self.reference()
        for attempt in range(2):
            if len(trials_in(log.read_bytes())) >= len(wanted["trials"]) and attempt:
                break
            child = self.start(("--resume", str(log), "-q", "--budget", "60s"), f"resume{attempt}")
            self.finish(child, {0}, f"resume{attempt}")
        self.compare(log, wanted, may_lack)

    def compare(self, path: Path, wanted: dict, may_lack: bool) -> None:
        try:
            log = load(path)
        except Exception as error:
            self.wrong("log not valid")
            self.said.append(repr(error))
            return
        found = facts(log)
        if found["plan"] != wanted["plan"]:
            self.wrong("another plan")
        doubled = [pair for pair, count in Counter((t.block, t.process) for t in log.trials).items() if count > 1]
        if doubled or found["trials"] != wanted["trials"]:
            self.wrong("other trials")
            self.said.append(f"trials {sorted(found['trials'])} doubled {doubled} not {sorted(wanted['trials'])}")
        failed = any(trial.status == "failed" for trial in log.trials)
        if found["cases"] != wanted["cases"] and not (found["cases"] < wanted["cases"] and failed and may_lack):
            self.wrong("other cases")
        if log.ends[-1].status not in ("complete", "budget"):
            self.wrong("not complete")
        if log.ends[-1].cells["total"] != wanted["cells"]:
            self.wrong("other cells")
        if [said for said in log.warnings if "was cut off" not in said and "NUL" not in said]:
            self.wrong("log warns")
            self.said += log.warnings

    def reference(self) -> dict:
        """Of a run of this selection that nothing happens to."""
        if self.selection not in self.references:
            quiet = Scene(random.Random(0), 0, self.folder.parent / "reference", self.references)
            quiet.selection = self.selection
            quiet.environment["XDG_CACHE_HOME"] = str(self.warm)
            if quiet.finish(quiet.start(), OK):
                raise RuntimeError("\n".join(quiet.said))
            self.references[self.selection] = facts(load(quiet.results))
            quiet.close()
        return self.references[self.selection]

    def close(self) -> None:
        if self.log is not None:
            os.close(self.log)
        for path in self.mounts:
            subprocess.run(["umount", path], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def is_log(content: bytes) -> bool:
    """Whether its header is whole: without it nothing can be gone on with."""
    return any(b'"record":"header"' in line for line in content.split(b"\n")[:-1])


def trials_in(content: bytes) -> list[bytes]:
    """Whole lines that are trials."""
    return [line for line in content.split(b"\n")[:-1] if b'"record":"trial"' in line]


def facts(log) -> dict:
    return {
        "plan": log.headers[-1].plan["key"],
        "trials": {(t.block, t.process) for t in log.trials},
        "cases": {(t.benchmark, s.case) for t in log.trials for s in t.samples},
        "cells": log.ends[-1].cells["total"],
    }


# --- kinds ----------------------------------------------------------------------------------------------------------
# Each starts the run, lets something happen to it, waits for its end with the codes that are right then, and says
# whether trials may lack and whether something was killed, so that it could not clean up.

RUN_TIME = 1.6  # s that a run takes on a quiet machine: moments are drawn from it


class Aftermath(NamedTuple):
    may_lack: bool = False
    killed: bool = False
    resume: bool = True


KINDS: dict[str, tuple[Callable[[Scene], Aftermath], int]] = {}


def kind(weight: int = 4) -> Callable:
    def add(function: Callable[[Scene], Aftermath]) -> Callable:
        KINDS[function.__name__] = function, weight
        return function

    return add


def started(scene: Scene, most: float = RUN_TIME) -> subprocess.Popen:
    """A run at a random moment of it, with what its log has by then."""
    child = scene.start()
    scene.pause(most)
    scene.find_log()
    return child


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def a_worker(scene: Scene, child: subprocess.Popen) -> list[int]:
    """A worker that runs now, or the next one; none where the run has ended."""
    found = wait_for(lambda: child.poll() is not None or scene.workers(), 20)
    return found if isinstance(found, list) else []


@kind(8)
def parent_killed(scene: Scene) -> Aftermath:
    child = started(scene)
    send(child.pid, signal.SIGKILL)
    scene.finish(child, {0, -signal.SIGKILL})
    return Aftermath(killed=True)


@kind(8)
def worker_killed(scene: Scene) -> Aftermath:
    child = started(scene)
    for pid in a_worker(scene, child):
        send(pid, signal.SIGKILL)
    scene.finish(child, OK)
    return Aftermath(may_lack=True)


@kind(2)
def all_workers_killed(scene: Scene) -> Aftermath:
    """One after the other, as the kernel does when memory is short."""
    child = started(scene, 0.8)
    while child.poll() is None:
        for pid in a_worker(scene, child):
            send(pid, signal.SIGKILL)
        time.sleep(0.01)
    scene.finish(child, REFUSED)
    return Aftermath(may_lack=True, killed=True)


@kind(3)
def killed_while_compiling(scene: Scene) -> Aftermath:
    """The run, or its compiler."""
    shutil.rmtree(scene.cache / "numabench")
    child = scene.start()
    scene.pause(0.6)
    if scene.rng.random() < 0.5:
        send(child.pid, signal.SIGKILL)
        scene.finish(child, {0, -signal.SIGKILL})
        return Aftermath(killed=True)
    found = wait_for(lambda: child.poll() is not None or [p for p in marked(scene.token) if p != child.pid], 20)
    for pid in found if isinstance(found, list) else []:
        if WORKER not in command_of(pid):
            send(pid, signal.SIGKILL)
    scene.finish(child, REFUSED)
    return Aftermath(may_lack=True)


@kind(6)
def stopped_and_continued(scene: Scene) -> Aftermath:
    """The run, its worker, or both."""
    child = started(scene)
    which = scene.rng.choice(("run", "worker", "both"))
    pids = [child.pid] if which != "worker" else []
    pids += a_worker(scene, child) if which != "run" else []
    for pid in pids:
        send(pid, signal.SIGSTOP)
    scene.pause(0.8)
    for pid in pids:
        send(pid, signal.SIGCONT)
    scene.finish(child, OK)
    return Aftermath()


@kind(1)
def worker_hangs(scene: Scene) -> Aftermath:
    scene.options = ("--budget", HUNG_BUDGET)
    child = started(scene, 0.6)
    for pid in a_worker(scene, child):
        send(pid, signal.SIGSTOP)
    scene.finish(child, REFUSED)
    return Aftermath(may_lack=True)


def signalled(scene: Scene, numbers: list[int], codes: set[int]) -> Aftermath:
    child = started(scene)
    for number in numbers:
        send(child.pid, number)
        scene.pause(0.1)
    scene.finish(child, codes | OK)
    return Aftermath()


@kind(6)
def hung_up(scene: Scene) -> Aftermath:
    """SIGHUP ends a process that has nothing to keep yet, or nothing any more."""
    return signalled(scene, [signal.SIGHUP], INTERRUPTED | {-signal.SIGHUP})


@kind(6)
def terminated(scene: Scene) -> Aftermath:
    return signalled(scene, [signal.SIGTERM], INTERRUPTED | {-signal.SIGTERM})


@kind(6)
def interrupted(scene: Scene) -> Aftermath:
    return signalled(scene, [signal.SIGINT], INTERRUPTED)


@kind(3)
def interrupted_twice(scene: Scene) -> Aftermath:
    return signalled(scene, [signal.SIGINT] * scene.rng.choice((2, 3)), INTERRUPTED)


def disk_full(scene: Scene, path: Path) -> Aftermath:
    """A disk of its own that is full from a random moment on; without the right to mount, files that may not grow."""
    mounted = scene.small_disk(path)
    child = scene.start()
    scene.pause(RUN_TIME)
    scene.find_log()
    filler = path / "filler"
    if mounted:
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
    else:
        limit_files(scene, child)
    scene.finish(child, REFUSED)
    filler.unlink(missing_ok=True)
    return Aftermath(may_lack=True)


@kind(6)
def disk_of_the_log_full(scene: Scene) -> Aftermath:
    return disk_full(scene, scene.results)


@kind(4)
def disk_of_temporary_files_full(scene: Scene) -> Aftermath:
    return disk_full(scene, scene.tmp)


@kind(3)
def disk_of_the_cache_full(scene: Scene) -> Aftermath:
    if scene.rng.random() < 0.5:
        shutil.rmtree(scene.cache / "numabench" / "kernels")
    return disk_full(scene, scene.cache)


def limit_files(scene: Scene, child: subprocess.Popen) -> None:
    most = len(scene.content()) + scene.rng.randrange(30_000)
    for pid in marked(scene.token):
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


@kind(5)
def files_may_not_grow(scene: Scene) -> Aftermath:
    child = started(scene)
    limit_files(scene, child)
    scene.finish(child, REFUSED)
    return Aftermath(may_lack=True)


@kind(2)
def no_descriptors(scene: Scene) -> Aftermath:
    child = started(scene)
    most = scene.rng.randrange(3, 14)
    for pid in marked(scene.token):
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    scene.finish(child, REFUSED)
    return Aftermath(may_lack=True)


def log_harmed(scene: Scene, harm: Callable[[Path], object], may_lack: bool = False) -> Aftermath:
    """A run that was told so by its next append; one that had written all before is fine."""
    child = started(scene)
    there = scene.log is not None
    ended = scene.ended()
    if there:
        with contextlib.suppress(FileNotFoundError):
            harm(next(scene.results.rglob("*.jsonl"), Path("/nonexistent")))
    code = scene.finish(child, REFUSED)
    late = ended or scene.ended()  # the last record was written before
    if there and not code and not late:
        scene.wrong("success without a log")
    return Aftermath(may_lack=may_lack or late)


@kind(5)
def log_deleted(scene: Scene) -> Aftermath:
    return log_harmed(scene, Path.unlink)


@kind(4)
def log_renamed(scene: Scene) -> Aftermath:
    return log_harmed(scene, lambda path: path.rename(scene.folder / "renamed.jsonl"))


@kind(4)
def log_cut(scene: Scene) -> Aftermath:
    return log_harmed(scene, lambda path: os.truncate(path, scene.rng.randrange(path.stat().st_size + 1)), may_lack=True)


@kind(3)
def log_written_by_another(scene: Scene) -> Aftermath:
    def add(path: Path) -> None:
        with open(path, "ab") as file:
            file.write(scene.rng.choice((b"garbage", b'{"record":"trial"', b"\0" * 600, b"\n\n")))

    return log_harmed(scene, add, may_lack=True)


@kind(4)
def folder_removed(scene: Scene) -> Aftermath:
    return log_harmed(scene, lambda path: shutil.rmtree(scene.results))


@kind(3)
def folder_renamed(scene: Scene) -> Aftermath:
    return log_harmed(scene, lambda path: path.parent.rename(scene.folder / "renamed"))


@kind(6)
def cpus_taken(scene: Scene) -> Aftermath:
    """By taskset of all that runs, or by a cgroup where one may be made."""
    cpus = sorted(os.sched_getaffinity(0))
    known = {"cpus": ",".join(map(str, cpus)), "mems": "0"}
    group = own_group(scene, "cpuset", **known) if scene.rng.random() < 0.5 else None
    child = scene.start()
    wait_for(lambda: child.poll() is not None or [*scene.results.rglob("*.jsonl")], 20)  # fewer before it plans are another plan
    scene.pause(1.0)
    scene.find_log()
    kept = {scene.rng.choice(cpus)}
    if group:
        enter(group, marked(scene.token))
        (group / "cpuset.cpus").write_text(str(min(kept)))
    else:
        for pid in marked(scene.token):
            for thread in threads_of(pid):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(thread, kept)
    if scene.rng.random() < 0.4:
        scene.pause(0.5)
        if group:
            (group / "cpuset.cpus").write_text(known["cpus"])
    scene.finish(child, REFUSED)
    if group:
        leave(group)
    return Aftermath(may_lack=True)


def own_group(scene: Scene, controller: str, **settings: str) -> Path | None:
    """A cgroup (version 1 or 2), or None where it may not be made."""
    for root in (Path("/sys/fs/cgroup") / controller, Path("/sys/fs/cgroup")):
        group = root / f"numabench-faults-{scene.token}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name, value in settings.items():
                (group / f"{controller}.{name}").write_text(value)
            return group
        except OSError:
            group.rmdir()
    return None


def enter(group: Path, pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            (group / "cgroup.procs").write_text(str(pid))


def leave(group: Path) -> None:
    wait_for(lambda: not (group / "cgroup.procs").read_text(), GRACE)
    group.rmdir()


@kind(6)
def memory_limited(scene: Scene) -> Aftermath:
    """From the start on, or, once it measures, to little more than each process has: while libraries are loaded their own answer is a hang."""
    if scene.rng.random() < 0.4:
        most = scene.rng.choice((64, 128, 256, 400, 700, 1000)) << 20
        scene.wrapped = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))}
        scene.finish(scene.start(), REFUSED)
        scene.wrapped = {}
        return Aftermath(may_lack=True)
    child = scene.start()
    a_worker(scene, child)
    scene.pause(1.0)
    scene.find_log()
    for pid in marked(scene.token):
        with contextlib.suppress(OSError, IndexError, ValueError):
            used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            most = used + scene.rng.choice((0, 1 << 16, 1 << 20, 8 << 20, 64 << 20))
            resource.prlimit(pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    scene.finish(child, REFUSED)
    return Aftermath(may_lack=True)


@kind(4)
def processes_limited(scene: Scene) -> Aftermath:
    """By a cgroup, which holds for root as well, or for this user's processes."""
    child = started(scene)
    if group := own_group(scene, "pids"):
        enter(group, marked(scene.token))
        (group / "pids.max").write_text(str(scene.rng.choice((1, 2, 3))))
    else:
        for pid in marked(scene.token):
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_NPROC, (scene.rng.choice((0, 1, 2)), resource.RLIM_INFINITY))
    scene.finish(child, REFUSED)
    if group:
        leave(group)
    return Aftermath(may_lack=True)


@functools.cache
def clock_jump(folder: Path) -> Path:
    target = folder / "clock_jump.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", target, HERE / "clock_jump.c", "-ldl"], check=True)
    return target


@kind(5)
def clock_stepped(scene: Scene) -> Aftermath:
    """The time of day, forwards or backwards, by a second to ten days."""
    by = scene.rng.choice((-1, 1)) * scene.rng.choice((1, 40, 3600, 864_000))
    at = time.clock_gettime(time.CLOCK_MONOTONIC) + scene.rng.uniform(0, RUN_TIME)
    jump = {"LD_PRELOAD": str(clock_jump(scene.folder.parent)), "CLOCK_JUMP_AT": str(at), "CLOCK_JUMP_BY": str(by)}
    scene.wrapped = {"env": scene.environment | jump}
    child = started(scene)
    if scene.rng.random() < 0.5:
        send(child.pid, signal.SIGINT)
    scene.finish(child, OK | INTERRUPTED)
    scene.wrapped = {}
    return Aftermath()


@kind(6)
def two_at_once(scene: Scene) -> Aftermath:
    """A second run, or a resume of the log that is being written."""
    child = started(scene)
    [*logs] = scene.results.rglob("*.jsonl")
    again = ("--resume", str(logs[0]), "-q") if logs and scene.rng.random() < 0.5 else ()
    ran = child.poll() is None
    second = scene.start(again, "second")
    met = ran and child.poll() is None
    code = scene_wait(scene, second, {0, 2, 3} if again else REFUSED)
    measured = "Run log: " in (scene.folder / "second.out").read_text(errors="replace")
    if met and code == 0 and measured and child.poll() is None:
        scene.wrong("both measured")
    scene.finish(child, OK)
    for path in scene.results.rglob("*.jsonl"):
        if len(logs) and path != logs[0] and code == 3:
            scene.wrong("a refused run left a log")
        if path != (logs[0] if logs else path) and code == 0:
            path.unlink()  # it came after the first: a run of its own
    return Aftermath()


def scene_wait(scene: Scene, second: subprocess.Popen, codes: set[int]) -> int:
    """The code of a run beside which another goes on."""
    code = second.wait(LIMIT)
    err = (scene.folder / "second.err").read_text(errors="replace")
    scene.said.append(f"second: {code}\n{err}")
    if code not in codes or COMPLAINT.search(err):
        scene.wrong(f"second: exit code {code}")
    return code


@kind(3)
def output_closed(scene: Scene) -> Aftermath:
    """Whoever read what is printed has gone: `numabench run | head`."""
    reading, writing = os.pipe()
    scene.wrapped, scene.shown = {"stdout": writing}, ()
    child = scene.start()
    os.close(writing)
    scene.pause(RUN_TIME)
    scene.find_log()
    os.close(reading)
    scene.finish(child, OK)
    if not scene.results.exists() or not any(b'"record":"end"' in p.read_bytes() for p in scene.results.rglob("*.jsonl")):
        scene.wrong("success without a log")
    scene.wrapped = {}
    return Aftermath()


# --- all of them ----------------------------------------------------------------------------------------------------


def plan(count: int, seed: int) -> list[str]:
    """The kinds of so many faults, each by its weight, in a random order; where there is room each at least once."""
    total = sum(weight for _, weight in KINDS.values())
    names = [name for name, (_, weight) in KINDS.items() for _ in range(max(1, round(count * weight / total)))]
    rng = random.Random(seed)
    rng.shuffle(names)
    while len(names) < count:
        names.append(rng.choice(sorted(KINDS)))
    return names[:count]


def one(name: str, number: int, seed: int, folder: Path, references: dict) -> dict:
    scene = Scene(random.Random(f"{seed}/{number}"), number, folder / f"f{number}", references)
    began = time.monotonic()
    try:
        scene.compiled()
        after = KINDS[name][0](scene)
        scene.look_at_files(after.killed)
        scene.resume(after.may_lack)
    except Exception as error:
        import traceback

        scene.wrong(f"driver: {error!r}")
        scene.said.append(traceback.format_exc())
    finally:
        for pid in marked(scene.token):
            send(pid, signal.SIGKILL)
        scene.close()
    return {
        "number": number,
        "kind": name,
        "faults": scene.faults,
        "seconds": time.monotonic() - began,
        "detail": f"{' '.join(scene.selection)}\n" + "\n".join(scene.said),
    }


def inject(count: int, seed: int = 1, only: Collection[int] = ()) -> Iterator[dict]:
    """A row for each fault, or for those of these numbers."""
    references: dict = {}
    with tempfile.TemporaryDirectory(prefix="numabench-faults-") as folder:
        for number, name in enumerate(plan(count, seed)):
            if not only or number in only:
                yield one(name, number, seed, Path(folder), references)


def summary(rows: list[dict]) -> str:
    """A line per kind: how many, how many with faults, and which."""
    by_kind: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row)
    lines = [f"{'kind':<30}{'faults':>7}{'wrong':>7}{'s each':>8}"]
    for name in sorted(by_kind):
        of = by_kind[name]
        found = Counter(fault for row in of for fault in row["faults"])
        told = ", ".join(f"{number} {fault}" for fault, number in found.most_common())
        wrong = sum(bool(row["faults"]) for row in of)
        lines.append(f"{name:<30}{len(of):>7}{wrong:>7}{sum(r['seconds'] for r in of) / len(of):>8.1f}  {told}".rstrip())
    wrong = sum(bool(row["faults"]) for row in rows)
    lines.append(f"{'all':<30}{len(rows):>7}{wrong:>7}{sum(r['seconds'] for r in rows) / max(1, len(rows)):>8.1f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=parse_list, default=(), metavar="LIST", help="those of these numbers, such as 47 or 0-249")
    parser.add_argument("--all", action="store_true", help="tell what was said where nothing was wrong as well")
    arguments = parser.parse_args()
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # what runs is ended and unmounted; started in the background, it would ignore Ctrl-C
        signal.signal(number, signal.default_int_handler)
    rows, began, count = [], time.monotonic(), len(arguments.only) or arguments.faults
    for row in inject(arguments.faults, arguments.seed, arguments.only):
        rows.append(row)
        if row["faults"] or arguments.all:
            print(f"--- {row['number']} {row['kind']}: {', '.join(row['faults']) or 'fine'}\n{row['detail']}", flush=True)
        left = (time.monotonic() - began) / len(rows) * (count - len(rows))
        if len(rows) % 10 == 0:
            wrong = sum(bool(each["faults"]) for each in rows)
            print(f"{len(rows)} of {count}, {wrong} wrong, {left / 60:.0f} min left", flush=True)
    print(summary(rows))
    return 1 if any(row["faults"] for row in rows) or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
