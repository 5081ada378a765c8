"""A launch: what was asked of which hosts, what is left to do, and what became of each, in a file that the same line goes on with."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from ..errors import LogError, MachineError
from ..host.machine import sanitised
from ..host.pushed import Parcel
from ..runlog import utc_now
from ..runlog.expected import MEASURED, PENDING, STATE_FILE, Asked, Ended, State, read_states
from ..runlog.write import Journal
from .hosts import bare
from .keep import keep
from .remote import FAILED, GO_ON, INTERRUPTED, Answer, Visit, prepare

NO_NAME = "no name of a host"


class Launching:
    """The visits of one launch into `folder`. One at a time: the state file is locked. `told` hears what became of a host."""

    def __init__(self, folder: Path, asked: Asked, told: Callable[[Ended], None] = lambda ended: None):
        self.folder, self.told = folder, told
        self.parcel: Parcel | None = None  # kernels for hosts that lack them
        states = read_states(folder)
        self.asked = self.joined(asked, states)
        measured = [each for each in states if isinstance(each, Ended) and each.state == MEASURED]
        self.counts = Counter(each.host for each in measured)
        self.own = Counter(each.host for each in measured if each.launch == self.asked.launch)
        self.known = {each.run: each.host for each in states if isinstance(each, Ended) and each.run}
        self.states = {each.host: each for each in states if isinstance(each, Ended) and each.launch == self.asked.launch}
        self.last = {each.host: each for each in measured}
        self.measured = {*self.own}
        self.at_work: dict[str, Visit] = {}
        self.lock = threading.Lock()  # of no event loop: each look has its own
        try:
            self.journal = Journal(folder / STATE_FILE)
        except MachineError as error:
            raise MachineError(error.message, "wait until that launch ends, or choose another folder with --output") from error
        if self.asked not in states:
            self.append(self.asked)

    @staticmethod
    def joined(asked: Asked, states: Sequence[State]) -> Asked:
        """`asked` as it goes on with what the file has of the same words; hosts are those of now."""
        for each in reversed(states):
            if isinstance(each, Asked) and each == msgspec.structs.replace(
                asked, **{name: getattr(each, name) for name in ("launch", "hosts", "at", "limit", "compile_there")}
            ):
                same = set(asked.hosts) <= set(each.hosts)
                return (
                    msgspec.structs.replace(each, limit=asked.limit, compile_there=asked.compile_there)
                    if same
                    else msgspec.structs.replace(asked, launch=each.launch)
                )
        return msgspec.structs.replace(asked, launch=uuid.uuid4().hex[:12])

    def __enter__(self) -> Launching:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def append(self, record: State) -> None:
        try:
            self.journal.append(record)  # type: ignore[arg-type]
        except MachineError as error:
            raise MachineError(error.message, f"make room; {GO_ON}") from error

    @property
    def shared(self) -> Path:
        """Where jobs leave what they have, below the folder that all nodes see."""
        return (self.folder / ".launch").absolute()

    def next_visit(self, host: str) -> Visit:
        shared = str(self.shared) if self.asked.engine == "slurm" else ""
        self.at_work[host] = visit = prepare(self.asked, host, self.counts[host] + 1, shared, self.parcel)
        return visit

    async def settle(self, visit: Visit, answer: Answer) -> Answer:
        """Keeps a log that came, and says what became of the host; the answer as it is after that."""
        run = log = ""
        if answer.packed:
            try:
                run, log = await asyncio.to_thread(self.kept, visit.host, answer.packed)
            except LogError as error:
                answer = Answer(FAILED, f"what it sent is not taken: {error.message} (it is in its folder {visit.mark} still)")
        self.at_work.pop(visit.host, None)
        self.ended(visit.host, answer, run, log)
        if run:
            self.measured.add(visit.host)
            self.last[visit.host] = self.states[visit.host]
            self.counts[visit.host] += 1
            self.own[visit.host] += 1
        return answer

    def kept(self, host: str, packed: bytes) -> tuple[str, str]:
        with self.lock:
            return keep(self.folder, host, packed, self.known)

    def ended(self, host: str, answer: Answer, run: str = "", log: str = "") -> None:
        record = Ended(launch=self.asked.launch, host=host, state=answer.state, at=utc_now(), why=answer.why, run=run, log=log)
        self.append(record)
        self.states[host] = record
        self.told(record)

    def halfway(self) -> list[str]:
        """Hosts with one visit of a second look, which has two: a launch itself makes one."""
        return [host for host, visits in self.own.items() if visits % 2 == 0]

    def interrupted(self) -> None:
        """Whoever launched goes: what each host at work is left in."""
        stays = "its job stays in the queue" if self.asked.engine == "slurm" else "the run there is asked to end"
        for host in [*self.at_work]:
            self.ended(host, Answer(INTERRUPTED, f"by Ctrl-C here: {stays}; {GO_ON}"))

    def outcome(self, hosts: Iterable[str]) -> dict[str, Ended]:
        """What became of each host; one that was never reached is pending."""
        nothing = Ended(launch=self.asked.launch, host="", state=PENDING, at=self.asked.at, why=GO_ON)
        return {host: self.states.get(host) or msgspec.structs.replace(nothing, host=host) for host in hosts}


def hosts_called(aliases: Iterable[str], hosts: Iterable[str]) -> list[str]:
    """The hosts whose machines reports call so."""
    wanted = set(aliases)
    return [host for host in hosts if sanitised(bare(host)) in wanted]
