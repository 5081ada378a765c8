"""One visit to a machine from question to run log: plan, kernels, header, runner. The command and the API share it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from .. import __version__
from .. import kernel as abi
from ..benchmarks import Benchmark, discover, find
from ..errors import LogError, UsageError
from ..host.machine import read_machine
from ..host.memory import available_bytes
from ..host.placement import numactl_command
from ..host.topology import Topology, read_topology
from ..model import Axis, BenchmarkRecord, EndRecord, Frozen, Header, KernelFacts, TrialRecord
from ..runlog import SCHEMA
from ..runlog.read import load
from ..runlog.write import Journal
from ..units import parse_cpus
from .executor import Executor, ProcessExecutor
from .plan import TARGET, Plan, make_plan, parse_selection
from .runner import Judge, Progress, Runner, utc_now

SESSION_GAP = 600.0  # s: a resume later than this is another session (METHODOLOGY: sessions are apart in time)
MEMORY_SHARE = 0.8  # of what is available that a working set may take


class Request(Frozen):
    """What was asked for; the header keeps it, so that a resume asks for the same."""

    benchmarks: tuple[str, ...] = ()  # empty: all
    profile: str = "standard"
    settings: tuple[str, ...] = ()  # axis=value,value
    cpus: str = ""  # empty: all allowed ones
    budget: float | None = None
    target: float = TARGET
    seed: int = 1
    samples: int | None = None
    window: float | None = None
    processes: int | None = None
    alias: str | None = None


class Visit:
    """A planned visit. `root` other than `/` plans for a snapshot of another machine and can measure nothing."""

    def __init__(self, request: Request, root: str = "/"):
        self.request, self.root = request, root
        self.topology = restrict(read_topology(root), request.cpus)
        self.benchmarks = [find(name) for name in request.benchmarks] or list(discover().values())
        self.plan = self._plan()

    def _plan(self) -> Plan:
        request = self.request
        changes = {name: value for name, value in (("samples", request.samples), ("window", request.window)) if value is not None}
        room = available_bytes() if self.root == "/" else None
        return make_plan(
            self.benchmarks,
            self.topology,
            profile=request.profile,
            selection=parse_selection(self.benchmarks, request.settings),
            seed=request.seed,
            budget=request.budget,
            target=request.target,
            processes=request.processes,
            memory=None if room is None else int(room * MEMORY_SHARE),
            **changes,
        )

    def measure(
        self,
        path: Path,
        judge: Callable[[tuple[BenchmarkRecord, ...]], Judge],
        progress: Progress | None = None,
        executor: Executor | None = None,
        resume: tuple[str, str, Sequence[TrialRecord]] | None = None,
    ) -> EndRecord:
        """Execute the plan and append everything to `path`. `resume` is (run, session, trials) of an interrupted one."""
        if self.root != "/":
            raise UsageError(
                f"a snapshot ({self.root}) can be planned for, not measured", "add --plan-only, or leave --root away"
            )
        numactl_command((), 0 if self.topology.numa else None)  # fails early, and once
        kernels = {benchmark.name: abi.build(benchmark.kernel) for benchmark in self.benchmarks}
        kernels["sentinel"] = abi.build("sentinel")
        run, session, trials = resume or (*(2 * (uuid.uuid4().hex[:12],)), ())
        records = tuple(
            self.describe(benchmark, kernels[benchmark.name], run)
            for benchmark in self.benchmarks
            if any(block.benchmark == benchmark.name for block in self.plan.blocks)
        )
        with Journal(path) as journal:
            journal.append(self.header(run, session))
            for record in records:
                journal.append(record)
            runner = Runner(
                self.plan,
                self.topology,
                kernels,
                {b.name: type(b).__module__ for b in self.benchmarks},
                executor or ProcessExecutor(),
                journal,
                judge(records),
                run,
                session,
                progress,
                trials,
            )
            return runner.run()

    def header(self, run: str, session: str) -> Header:
        plan = self.plan
        return Header(
            schema=SCHEMA,
            run=run,
            session=session,
            started=utc_now(),
            numabench=__version__,
            machine=msgspec.to_builtins(read_machine(alias=self.request.alias)),
            plan={
                "profile": plan.profile,
                "budget": plan.budget,
                "target": plan.target,
                "looks": plan.looks,
                "seed": plan.seed,
                "cases": plan.cases,
                "timing": msgspec.to_builtins(plan.timing),
                "skipped": plan.skipped,
            },
            arguments=msgspec.to_builtins(self.request) | {"command": " ".join(["numabench", *sys.argv[1:]])},
        )

    def describe(self, benchmark: Benchmark, build: abi.Build, run: str) -> BenchmarkRecord:
        """The descriptor that travels with the log: axes with the values measured, metrics as the kernel declares them."""
        loaded = abi.Kernel(build.target)
        cases = [c.case.parameters for block in self.plan.blocks if block.benchmark == benchmark.name for c in block.cases]
        axes = tuple(measured_axis(axis, [c[axis.name] for c in cases]) for axis in benchmark.axes)
        return BenchmarkRecord(
            run=run,
            name=benchmark.name,
            title=benchmark.title,
            question=benchmark.question,
            axes=axes,
            metrics=tuple(loaded.metrics.values()),
            method=benchmark.method,
            contrasts=benchmark.contrasts,
            views=benchmark.views,
            answers=benchmark.answers(self.topology, cases),
            expected=benchmark.expected,
            notes=benchmark.notes,
            cases=len(cases),
            kernel=KernelFacts(
                name=loaded.name,
                version=loaded.version,
                abi=abi.ABI,
                object_hash=abi.object_hash(build.target),
                compiler=build.compiler,
                flags=" ".join(build.flags),
            ),
        )


def measured_axis(axis: Axis, values: Iterable) -> Axis:
    """The axis with the values that occur: in the declared order, numbers ascending."""
    seen = list(dict.fromkeys(values))
    order = {value: i for i, value in enumerate(axis.values)}
    numeric = all(isinstance(v, (int, float)) for v in seen)
    seen.sort(key=(lambda v: v) if numeric else lambda v: order.get(v, len(order)))
    return msgspec.structs.replace(axis, values=tuple(seen))


def restrict(topology: Topology, cpus: str) -> Topology:
    """The topology with `cpus` (a list such as 0-3,8) as the only allowed ones."""
    if not cpus:
        return topology
    wanted = parse_cpus(cpus)
    forbidden = sorted(set(wanted) - set(topology.allowed_cpus))
    if forbidden or not wanted:
        raise UsageError(
            f"CPU {', '.join(map(str, forbidden)) or 'list is empty'} cannot be used: offline, absent or forbidden by the cgroup or affinity",
            f"choose among {','.join(map(str, topology.allowed_cpus))}",
        )
    return msgspec.structs.replace(topology, allowed_cpus=wanted)


def log_path(folder: Path, alias: str) -> Path:
    """`results/<alias>/<UTC time>.jsonl`, a name that does not exist yet."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    names = (folder / alias / f"{stamp}{suffix}.jsonl" for suffix in ("", *(f"-{n}" for n in range(2, 100))))
    return next(name for name in names if not name.exists())


def open_resume(path: Path) -> tuple[Request, tuple[str, str, Sequence[TrialRecord]]]:
    """What an interrupted log asked for, and its run, session and trials. Refuses another machine's log."""
    log = load(path)
    header = log.headers[-1]
    here = read_machine(alias=header.machine.get("alias"))
    if header.machine.get("id") != here.id:
        raise LogError(
            f"{path} was recorded on machine {header.machine.get('alias')} ({header.machine.get('id')}), this is {here.id}",
            "resume it there, or start a run of its own here: numabench run",
        )
    request = msgspec.convert(header.arguments, Request, strict=False)
    last = max((t.started for t in log.trials), default=header.started)
    idle = datetime.now(timezone.utc) - datetime.fromisoformat(last.replace("Z", "+00:00"))
    later = idle.total_seconds() > SESSION_GAP
    session = uuid.uuid4().hex[:12] if later else header.session
    return request, (header.run, session, [t for t in log.trials if t.run == header.run])
