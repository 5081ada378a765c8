"""Visits by the user's own ssh: its configuration, jump hosts, agents and known hosts. A connection is one visit; with its end a run ends."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Awaitable, Callable

from ..errors import MachineError
from ..text import in_shell
from ..units import format_seconds
from .remote import MOST_ERRORS, MOST_NOISE, MOST_PACKED, Answer, Visit, begun, lacking, read_answer, whole

CONNECT_S, ALIVE_S, ALIVE_TIMES = 20, 15, 4  # a minute without a sign of life
#: Connections that are not through the door yet: sshd, and a jump host's, turns some away from 10 on (MaxStartups).
AT_THE_DOOR = 9
LONGEST_SAID = 1 << 14  # bytes of a line that a host says
LAST_S = 5.0  # that ssh takes to end
FILES = 4  # of each connection

#: Takes what a host answered, keeps its log, and returns the answer as it is after that: only then the other machine may remove its log.
Settle = Callable[[Visit, Answer], Awaitable[Answer]]


def command(host: str) -> list[str]:
    """No terminal, agent or display goes there, nothing asks, and no connection stays behind for others."""
    alive = (f"ConnectTimeout={CONNECT_S}", f"ServerAliveInterval={ALIVE_S}", f"ServerAliveCountMax={ALIVE_TIMES}")
    options = [word for each in ("BatchMode=yes", "ControlMaster=no", *alive) for word in ("-o", each)]
    return ["ssh", "-T", "-a", "-x", *options, "--", host, "exec sh"]


def allow_files(at_once: int) -> None:
    """Raises MachineError where so many connections may not be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = FILES * at_once + 100
    if soft != resource.RLIM_INFINITY and soft < need:
        if hard != resource.RLIM_INFINITY and hard < need:
            raise MachineError(
                f"{at_once} connections need {need} open files, {hard} are allowed", f"--at-once {(hard - 100) // FILES}"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


async def visit_all(visits: list[Callable[[], Visit]], settle: Settle, at_once: int, limit: float) -> None:
    """All visits, so many at once, each for `limit` seconds at most. What cannot be settled ends all."""
    allow_files(at_once)
    places, door = asyncio.Semaphore(at_once), asyncio.Semaphore(AT_THE_DOOR)

    async def one(prepare: Callable[[], Visit]) -> None:
        async with places:
            await visit_one(prepare, settle, door, limit)

    tasks = [asyncio.ensure_future(one(each)) for each in visits]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def visit_one(prepare: Callable[[], Visit], settle: Settle, door: asyncio.Semaphore, limit: float) -> None:
    await door.acquire()  # its time begins behind that
    connection = Connection(door)
    try:
        await asyncio.wait_for(connection.open(prepare), limit + CONNECT_S)
    except asyncio.TimeoutError:
        late = (
            f"not ended after {format_seconds(limit)}; the run there is asked to end, and the same line again goes on (--limit)"
        )
        await settle(connection.visit, Answer("time up", late))
    else:
        if (await settle(connection.visit, connection.answer())).packed:
            await connection.kept()
    finally:
        connection.end()


class Connection:
    """One ssh and what came through it."""

    def __init__(self, door: asyncio.Semaphore):
        self.door, self.waits = door, True
        self.data, self.errors = bytearray(), bytearray()

    async def open(self, prepare: Callable[[], Visit]) -> None:
        self.visit = prepare()  # now: it holds the time
        pipe = asyncio.subprocess.PIPE
        try:
            self.process = await asyncio.create_subprocess_exec(
                *command(self.visit.host), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except FileNotFoundError as error:
            raise MachineError("there is no ssh here", "install OpenSSH's client (openssh-client)") from error
        self.process.stdin.write(self.visit.script.encode())
        self.listener = asyncio.ensure_future(self.listen())
        await self.read()
        if not self.answer().packed:  # all that it has to say, then
            self.process.stdin.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.process.wait(), LAST_S)
            await asyncio.wait({self.listener}, timeout=LAST_S)

    async def read(self) -> None:
        started = sent = False
        while len(self.data) <= (MOST_PACKED if started else MOST_NOISE):
            part = await self.process.stdout.read(1 << 16)
            self.data += part
            if not part or whole(self.visit, self.data):
                return
            end = self.data[-len(part) - LONGEST_SAID :]  # all of it each time would take long, byte by byte
            if not started and begun(self.visit, end):
                started = True
                self.through()
            if self.visit.parcel and not sent and (wanted := lacking(self.visit, end)) is not None:
                sent = True
                self.process.stdin.write(self.visit.parcel.stream(wanted))

    async def listen(self) -> None:
        while part := await self.process.stderr.read(1 << 12):
            self.errors = (self.errors + part)[-MOST_ERRORS:]

    def answer(self) -> Answer:
        if len(self.data) > MOST_NOISE and not begun(self.visit, self.data):
            return Answer("failed", f"its login shell prints without end: ssh {in_shell(self.visit.host)} true")
        if len(self.data) > MOST_PACKED:
            return Answer("failed", f"it sends over {MOST_PACKED >> 20} MiB, which is no log")
        return read_answer(self.visit, self.data, self.errors.decode(errors="replace"), self.process.returncode)

    async def kept(self) -> None:
        """Lets the other machine remove its log."""
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            self.process.stdin.write(b"kept\n")
            self.process.stdin.close()
            await asyncio.wait_for(self.process.wait(), LAST_S)

    def through(self) -> None:
        if self.waits:
            self.waits = False
            self.door.release()

    def end(self) -> None:
        self.through()
        if process := getattr(self, "process", None):
            self.listener.cancel()
            process._transport.close()  # kills it where it runs; `kill` alone leaves its pipes to a loop that is gone after Ctrl-C
