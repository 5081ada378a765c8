"""Visits by Slurm: a job of its own for each node, pinned and exclusive. An array would visit one node twice and never tell which one it missed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from ..errors import MachineError, UsageError
from ..files import write_whole
from ..host.pushed import Parcel
from ..runlog.expected import Asked
from ..text import printable
from .remote import FAILED, LONGEST_WHY, LOST, MOST_ERRORS, MOST_PACKED, Answer, Visit, begun, parcel_file, read_answer, whole
from .ssh import Settle

POLL_S = 5.0
SUBMITTED = 4  # at once: each waits for the controller
LATE = 3  # looks that a file may come later than the end of its job, through a file system that nodes share
ASK_S = 120.0
#: Of nodes that no job starts on.
GONE = re.compile(r"drain|down|fail|unk|maint|power|reboot|future|not_resp|.*\*", re.IGNORECASE)
ACTIVE = {
    "PENDING",
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "REQUEUED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
}
#: What Slurm writes into a job's output, or says of its end -> the state of the host, and why.
ENDS = (
    (
        r"DUE TO TIME LIMIT|TIMEOUT|DEADLINE",
        "time up",
        "its job came to its time limit; the same line again goes on, with a longer --limit",
    ),
    (r"NODE.FAIL", "down", "the node failed under its job; the same line again goes on"),
    (r"CANCELLED|PREEMPTED", "cancelled", "its job was cancelled; the same line again goes on"),
    (r"OUT_OF_ME|oom.kill", FAILED, "its job ran out of memory"),
)


def asked(*command: str, text: str | None = None) -> str:
    """What a program of Slurm answers. Raises MachineError."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, errors="replace", timeout=ASK_S)
    except FileNotFoundError as error:
        raise MachineError(
            f"there is no {command[0]} here", "launch where Slurm's commands are, such as its login node"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"{command[0]} does not answer", "sinfo shows whether its controller is up") from error
    if done.returncode:
        raise MachineError(f"{command[0]}: {printable(done.stderr.strip())[:LONGEST_WHY]}", "sinfo shows partitions and nodes")
    return done.stdout


def nodes_of(partition: str, nodes: str | None) -> dict[str, Answer | None]:
    """Node -> None, or why no job can start there; those of a partition, or of a list such as `n[001-500]`."""
    shown = asked("sinfo", "-h", "-N", "-p", partition, "-o", "%N|%T|%E")
    found: dict[str, Answer | None] = {}
    for line in shown.splitlines():
        name, state, reason = (*line.strip().split("|", 2), "", "")[:3]
        said = "" if reason in ("", "none") else f"Slurm's reason: {printable(reason)[:LONGEST_WHY]}"
        found[name] = Answer(printable(state.rstrip("*~#!%$@^-+")) or "down", said or "sinfo -R") if GONE.match(state) else None
    if not found:
        raise UsageError(f"the partition {partition} has no nodes", "sinfo -s shows partitions")
    if nodes is None:
        return found
    wanted = dict.fromkeys(asked("scontrol", "show", "hostnames", nodes).split())
    return {name: found.get(name, Answer("unknown", f"no node of partition {partition}")) for name in wanted}


def queue(name: str) -> dict[str, str]:
    """Mark of each visit that has a job of this name -> its state, of some that have ended as well; of one mark the last one's."""
    lines = [line.strip().split("|") for line in asked("squeue", "-h", "-t", "all", "-n", name, "-o", "%A|%k|%T").splitlines()]
    return {mark: state for _, mark, state in sorted((int(number), mark, state) for number, mark, state in lines)}


def submit(visit: Visit, name: str, partition: str, limit: float, shared: Path) -> None:
    for path in shared.glob(f"{visit.mark}.*.out"):  # of a job that measured nothing whole
        path.unlink(missing_ok=True)
    minutes = str(max(1, -(-int(limit) // 60)))
    output = shared / f"{visit.mark}.{visit.nonce}.out"
    pinned = ("-w", visit.host, "-N", "1", "--exclusive", "--no-requeue", "-p", partition, "-t", minutes)
    asked("sbatch", *pinned, "-J", name, "--comment", visit.mark, "-o", str(output), "-D", str(shared), text=visit.script)


def job_name(launch: str) -> str:
    return f"numabench-{launch}"


def left(visit: Visit, shared: Path) -> tuple[Visit, bytes]:
    """What the last job of a visit wrote, with the nonce that it has."""
    outputs = sorted(shared.glob(f"{visit.mark}.*.out"), key=lambda path: path.stat().st_mtime)
    if not outputs:
        return visit, b""
    with outputs[-1].open("rb") as file:
        return visit._replace(nonce=outputs[-1].name.split(".")[1]), file.read(MOST_PACKED + 1)


def read_output(visit: Visit, shared: Path, state: str) -> Answer:
    """What became of a job that has ended, by its output and what Slurm says of it."""
    visit, data = left(visit, shared)
    if len(data) > MOST_PACKED:
        return Answer(FAILED, f"its job wrote over {MOST_PACKED >> 20} MiB, which is no log")
    if whole(visit, data):
        return read_answer(visit, data, messages(data), None)
    said = f"{state} {messages(data)}"
    for pattern, name, why in ENDS:
        if re.search(pattern, said):
            return Answer(name, why)
    if begun(visit, data):
        found = read_answer(visit, data, messages(data), None)
        return found if found.state != LOST else Answer(FAILED, f"its job ended in the middle ({state or 'nobody says how'})")
    return Answer(
        FAILED, f"its job ran nothing ({state.lower() or 'it is gone from the queue'}): is {shared} there on all nodes?"
    )


def messages(data: bytes) -> str:
    """What was printed, without a log: it has no line of its own that is looked at."""
    return data[-MOST_ERRORS:].decode(errors="replace")


def tidy(visit: Visit, shared: Path) -> None:
    """The log has been kept: what the job left goes."""
    shutil.rmtree(shared / visit.mark, ignore_errors=True)
    for path in shared.glob(f"{visit.mark}.*.out"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        shared.rmdir()


async def visit_all(
    visits: list[Callable[[], Visit]], settle: Settle, request: Asked, shared: Path, parcel: Parcel | None = None
) -> None:
    """A job for each node that has none, then what each wrote. Jobs stay in the queue when this ends before them, and what they need with them."""
    shared.mkdir(parents=True, exist_ok=True)
    if parcel and visits:
        write_whole(shared / parcel_file(parcel), parcel.stream([*parcel.objects]))
    name = job_name(request.launch)
    awaited: dict[str, Visit] = {}
    before, some = await asyncio.to_thread(queue, name), asyncio.Semaphore(SUBMITTED)

    async def begin(visit: Visit) -> None:
        if before.get(visit.mark) not in ACTIVE and not read_output(visit, shared, "").packed:
            try:
                async with some:
                    await asyncio.to_thread(submit, visit, name, request.partition, request.limit, shared)
            except MachineError as error:
                await settle(visit, Answer(FAILED, error.message))
                return
        awaited[visit.mark] = visit

    await asyncio.gather(*(begin(prepare()) for prepare in visits))
    late: dict[str, int] = {}
    while awaited:
        states = await asyncio.to_thread(queue, name)
        for mark, visit in [*awaited.items()]:
            if states.get(mark) in ACTIVE:
                continue
            late[mark] = late.get(mark, 0) + 1
            if not whole(*left(visit, shared)) and late[mark] < LATE:
                continue
            del awaited[mark]
            if (await settle(visit, read_output(visit, shared, states.get(mark, "")))).packed:
                tidy(visit, shared)
        if awaited:
            await asyncio.sleep(POLL_S)
    for path in shared.glob("*.kernels"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        shared.rmdir()
