"""One visit to a machine from question to run log: plan, kernels, header, runner. The command and the API share it."""

from __future__ import annotations

import math
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import msgspec

from .. import __version__
from .. import kernel as abi
from ..benchmarks import TOPICS, Benchmark, broken, choose
from ..errors import LogError, MachineError, UsageError
from ..host.claim import claimed
from ..host.machine import read_machine
from ..host.memory import FIRST_TOUCH, Placing
from ..host.objects import DIGITS, PARCEL
from ..host.pages import reserved_bytes
from ..host.placement import refused_cpus
from ..host.room import available_bytes
from ..host.topology import Topology, read_topology
from ..host.trials import find_placing, unknowns
from ..model import Axis, BenchmarkRecord, EndRecord, Frozen, Header, KernelFacts, Sample, TrialRecord, tolerating
from ..runlog import MINOR, SCHEMA, utc_now
from ..runlog.read import STANDARD_INPUT, load
from ..runlog.twins import contradict
from ..runlog.write import Journal
from ..text import in_shell
from ..units import format_cpus, parse_cpus
from .executor import Executor, ProcessExecutor
from .kinds import CORE_KIND, by_kind
from .plan import TARGET, Block, Plan, make_blocks, make_plan, parse_selection, plan_cases
from .profiles import find_profile
from .ready import why_nothing
from .runner import UNFINISHED, Judge, Progress, Runner
from .transfer_unit import Line, find_line, recorded_line

SESSION_GAP = 600.0  # s: a resume later than this is another session (METHODOLOGY: sessions are apart in time)
LEAST_WINDOW, MOST_WINDOW = 0.0005, 10.0  # s: fifty looks at the clock; ten seconds
TOOLS = ("sentinel", "crew")  # what is compiled and loaded beside the kernels
MEMORY_SHARE = 0.8  # of what is available that a working set may take


class Request(Frozen):
    """What was asked for; the header keeps it, so that a resume asks for the same."""

    benchmarks: tuple[str, ...] = ()  # names and topics; empty: all
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


class Resumed(Frozen):
    """What an interrupted log has already, and what must be the same for going on with it."""

    run: str
    session: str
    trials: tuple[TrialRecord, ...]
    numabench: str
    plan_key: str
    complete: bool  # it ended by itself, by its looks or its budget
    objects: dict[str, str]  # benchmark -> hash of its compiled kernel
    line: Line | None = None  # that the kernels were compiled for


class Visit:
    """A planned visit. `root` other than `/` plans for a snapshot of another machine and can measure nothing."""

    def __init__(self, request: Request, root: str = "/"):
        self.request, self.root = request, root
        self.topology = restrict(read_topology(root), request.cpus, root == "/")
        self.profile = find_profile(request.profile)
        chosen = self._chosen()
        self.selection = parse_selection(by_kind(chosen, self.topology), request.settings)
        self.benchmarks = by_kind(chosen, self.topology, self.selection.pop(CORE_KIND, ()), self.profile.every_kind)
        self.placing = find_placing(self.topology) if root == "/" else Placing()
        self.unknown = unknowns(self.topology) if root == "/" else ()
        self.plan = self._plan()
        self.settled: set[str] = (
            set()
        )  # benchmarks refined by another one's points: once, since its medians move from look to look

    def _chosen(self) -> list[Benchmark]:
        """What was asked for, as far as this profile has it. Raises UsageError for a benchmark that was named and has no part in it."""
        chosen = choose(self.request.benchmarks)
        parts = [benchmark for benchmark in chosen if self.profile.has(benchmark, self.topology)]
        if without := sorted(self.named - {benchmark.name for benchmark in parts}):
            raise UsageError(
                f"{', '.join(without)} has no part in profile {self.profile.name}",
                f"choose another --profile, or among {', '.join(b.name for b in choose(()) if self.profile.has(b, self.topology))}",
            )
        return parts

    def _plan(self) -> Plan:
        request = self.request
        if not 0 < request.target < 1:
            raise UsageError(
                f"a precision of {request.target:g} cannot be reached", "choose a --target between 0% and 100%, such as 2%"
            )
        if request.budget is not None and request.budget <= 0:
            raise UsageError(f"a budget of {request.budget:g} s measures nothing", "choose one such as --budget 90s")
        if request.window is not None and not LEAST_WINDOW <= request.window <= MOST_WINDOW:
            raise UsageError(
                f"a window of {request.window:g} s is not possible", f"choose {LEAST_WINDOW * 1e3:g}ms to {MOST_WINDOW:g}s"
            )
        changes = {name: value for name, value in (("samples", request.samples), ("window", request.window)) if value is not None}
        unloaded = () if self.named else tuple(f"{module} cannot be loaded: {why}" for module, why in broken().items())
        room = available_bytes() if self.root == "/" else installed_bytes(self.topology)
        plan = make_plan(
            self.benchmarks,
            self.topology,
            profile=request.profile,
            selection=self.selection,
            seed=request.seed,
            budget=request.budget,
            target=request.target,
            processes=request.processes,
            memory=None if room is None else int(room * MEMORY_SHARE),
            **self._supplies(),
            **changes,
        )
        return msgspec.structs.replace(plan, skipped=(*unloaded, *plan.skipped)) if unloaded else plan

    @property
    def named(self) -> set[str]:
        """Benchmarks that were asked for by their own names."""
        return set(self.request.benchmarks) - set(TOPICS)

    def _supplies(self) -> dict:
        """What this machine has of memory by kind and by node, and how it gets there; of a snapshot nothing is known."""
        if self.root != "/":
            return {}
        several = len(self.topology.memory_nodes()) > 1  # else the machine's own count is the node's, and nothing is bound
        return {"reserved": reserved_bytes, "free": node_room if several else None, "placing": self.placing}

    def measure(
        self,
        path: Path,
        judge: Callable[[tuple[BenchmarkRecord, ...]], Judge],
        progress: Progress | None = None,
        executor: Executor | None = None,
        resume: Resumed | None = None,
    ) -> EndRecord:
        """Execute the plan and append everything to `path`. Raises MachineError when not one sample could be taken, or another run has the CPUs."""
        if self.root != "/":
            raise UsageError(
                f"a snapshot ({self.root}) can be planned for, not measured", "add --plan-only, or leave --root away"
            )
        with claimed(self.topology.allowed_cpus):
            line = resume.line if resume and resume.line else find_line(self.topology)
            kernels = {name: abi.build(name, line_bytes=line.bytes) for name in TOOLS}
            kernels |= self.compile(line, progress)
            run = resume.run if resume else uuid.uuid4().hex[:12]
            session = resume.session if resume else run
            records = tuple(
                self.describe(benchmark, kernels[benchmark.name], run)
                for benchmark in self.benchmarks
                if any(block.benchmark == benchmark.name for block in self.plan.blocks)
            )
            if resume:
                self.check_resumed(resume, records, path)
            if progress:
                progress.described(records)
            judging = judge(records)  # before there is a log: what it needs may be missing
            with Journal(path) as journal, ProcessExecutor() as processes:
                journal.append(self.header(run, session, line, kernels))
                for record in records:
                    journal.append(record)
                runner = Runner(
                    self.plan,
                    self.topology,
                    kernels,
                    {b.name: b for b in self.benchmarks},
                    executor or processes,
                    journal,
                    judging,
                    run,
                    session,
                    progress,
                    resume.trials if resume else (),
                    None
                    if self.request.settings or not self.profile.refines
                    else lambda trials: self.refine(trials, kernels, run),
                    first=[record.name for record in records if record.card.tiles],
                )
                end = runner.run()
        if end.status != "interrupted" and not any(trial.samples for trial in runner.trials):
            silent = "no process returned a sample" if runner.trials else "no process fits into the budget"
            reason = next((reason for trial in runner.trials for reason in trial.reasons), silent)
            cause, mend = why_nothing(reason)
            raise MachineError(f"nothing could be measured: {cause} (all reasons: {path})", mend)
        return end

    def compile(self, line: Line, progress: Progress | None) -> dict[str, abi.Build]:
        """The kernels by benchmark. One that cannot be compiled takes none of the others along, unless it was asked for by name or is alone."""
        built: dict[str, abi.Build] = {}
        wrong: dict[str, MachineError] = {}
        for benchmark in self.benchmarks:
            try:
                built[benchmark.name] = abi.build(benchmark.kernel, folder=benchmark.kernel_folder, line_bytes=line.bytes)
            except MachineError as error:
                wrong[benchmark.name] = error
        for name, error in wrong.items():
            if name in self.named or not built:
                raise error
            if progress:
                progress.left_out(f"{name}: {error}")
        if wrong:
            self.benchmarks = [b for b in self.benchmarks if b.name in built]
            self.plan = msgspec.structs.replace(
                self.plan,
                blocks=tuple(block for block in self.plan.blocks if block.benchmark in built),
                skipped=(*self.plan.skipped, *(f"{name}: {error.message}" for name, error in wrong.items())),
            )
        return built

    def check_resumed(self, resume: Resumed, records: Sequence[BenchmarkRecord], path: Path) -> None:
        """Refuse to mix what another version, kernel or plan measured with what this one would."""
        objects = {record.name: record.kernel.object_hash for record in records}
        if resume.numabench != __version__:
            what = f"numabench {resume.numabench} recorded it, this is {__version__}"
        elif any(objects.get(name, found) != found for name, found in resume.objects.items()):
            what = "its kernels were compiled otherwise (compiler, flags or sources)"
        elif resume.plan_key != self.plan.key:
            what = "the machine now allows another plan (CPUs or memory)"
        else:
            return
        raise LogError(f"{path} cannot be gone on with: {what}", "start a run of its own: numabench run")

    def header(self, run: str, session: str, line: Line, kernels: dict[str, abi.Build]) -> Header:
        plan, machine = self.plan, read_machine(alias=self.request.alias)
        pushed, parcel = sorted(name for name, build in kernels.items() if build.pushed), os.environ.get(PARCEL)
        return Header(
            schema=SCHEMA,
            minor=MINOR,
            run=run,
            session=session,
            started=utc_now(),
            numabench=__version__,
            machine=msgspec.to_builtins(machine)
            | {"warnings": [*machine.warnings, *self.unknown]}
            | {"line_declared": line.declared, "line_measured": line.measured},
            plan={
                "profile": plan.profile,
                "budget": plan.budget,
                "target": plan.target,
                "looks": plan.looks,
                "seed": plan.seed,
                "cases": plan.cases,
                "key": plan.key,
                "timing": msgspec.to_builtins(plan.timing),
                "skipped": plan.skipped,
                "placing": plan.placing.how,
            }
            | (
                {"parcel": parcel[:DIGITS], "pushed": pushed} if parcel else {}
            ),  # whose kernels came from the machine that launched
            arguments=msgspec.to_builtins(self.request) | {"command": in_shell("numabench", *sys.argv[1:])},
        )

    def refine(
        self, trials: Iterable[TrialRecord], kernels: dict[str, abi.Build], run: str
    ) -> tuple[list[Block], list[BenchmarkRecord]]:
        """Blocks of the points that the benchmarks want besides, by what was found so far; the plan has them as well from now on."""
        found: dict[str, dict[str, list[Sample]]] = {}
        for trial in trials:
            for sample in trial.samples:
                if sample.valid:
                    found.setdefault(trial.benchmark, {}).setdefault(sample.case, []).append(sample)
        added = []
        for benchmark in self.benchmarks:
            if not benchmark.refined or benchmark.name in self.settled:
                continue
            cases = found.get(benchmark.refined_by or benchmark.name, {}).values()
            curve = [(case[0].parameters, median(s.metrics[benchmark.refined] for s in case)) for case in cases]
            points = benchmark.refine(curve, self.topology)
            planned, _ = plan_cases(benchmark, points, self.topology, self.plan.timing, **self._supplies())
            first = sum(block.benchmark == benchmark.name for block in self.plan.blocks)
            added += make_blocks(benchmark, planned, self.topology, first)
            if benchmark.refined_by and planned:
                self.settled.add(benchmark.name)
        self.plan = msgspec.structs.replace(self.plan, blocks=(*self.plan.blocks, *added))
        names = {block.benchmark for block in added}
        return added, [self.describe(b, kernels[b.name], run) for b in self.benchmarks if b.name in names]

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
            metrics=tuple(
                msgspec.structs.replace(m, most=benchmark.most.get(m.name))
                for m in loaded.metrics.values()
                if not benchmark.reports or m.name in benchmark.reports
            ),
            method=benchmark.method
            | ({"placement": FIRST_TOUCH} if self.placing.how == FIRST_TOUCH else {})
            | ({"instructions": loaded.instructions} if benchmark.topic == "cores" else {}),  # of which these are made
            contrasts=benchmark.contrasts,
            views=benchmark.figures(self.topology, cases),
            answers=tolerating(benchmark.asked(self.topology, cases), benchmark.tolerates),
            card=benchmark.carded(self.topology, cases),
            phase=benchmark.phase,
            topic=benchmark.topic,
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


def node_room(node: int) -> int | None:
    """Bytes of a node that a working set may take; None where the kernel does not say."""
    room = available_bytes(node)
    return None if room is None else int(room * MEMORY_SHARE)


def installed_bytes(topology: Topology) -> int | None:
    """Memory of all nodes of a snapshot, whose kernel can no longer say what is available; None where it does not say."""
    sizes = [node.memory_bytes for node in topology.nodes]
    return None if None in sizes else sum(sizes)


def measured_axis(axis: Axis, values: Iterable) -> Axis:
    """The axis with the values that occur: in the declared order, numbers ascending."""
    seen = list(dict.fromkeys(values))
    order = {value: i for i, value in enumerate(axis.values)}
    numeric = all(isinstance(v, (int, float)) for v in seen)
    seen.sort(key=(lambda v: v) if numeric else lambda v: order.get(v, len(order)))
    return msgspec.structs.replace(axis, values=tuple(seen))


def restrict(topology: Topology, cpus: str, live: bool) -> Topology:
    """The topology with `cpus` (a list such as 0-3,8) as the only allowed ones: on this machine those that threads can be pinned to, whether
    or not the affinity that it inherited has them; of a snapshot its allowed and its isolated ones."""
    if not cpus:
        return topology
    wanted = parse_cpus(cpus)
    if not wanted:
        raise UsageError("the list of CPUs is empty", f"--cpus {format_cpus(topology.allowed_cpus)}")
    others = set(wanted) - set(topology.allowed_cpus)
    absent, there = others - set(topology.cpus), others & set(topology.cpus)
    refused = refused_cpus(sorted(there)) if live else dict.fromkeys(there - set(topology.isolated))
    if forbidden := sorted(absent | set(refused)):
        answers = {error.strerror for error in refused.values() if error}
        why = "offline or absent" if not refused else ", ".join(sorted(answers)) or "not among those allowed in this snapshot"
        raise UsageError(
            f"CPU {format_cpus(forbidden)} cannot be used: {why}{' or absent' if absent and refused else ''}",
            f"choose among {format_cpus(topology.allowed_cpus)}",
        )
    return msgspec.structs.replace(topology, allowed_cpus=wanted)


def log_path(folder: Path, alias: str) -> Path:
    """`results/<alias>/<UTC time>.jsonl`, a name that does not exist yet."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    names = (folder / alias / f"{stamp}{suffix}.jsonl" for suffix in ("", *(f"-{n}" for n in range(2, 100))))
    return next(name for name in names if not name.exists())


def idle_since(moment: str) -> float:
    """Seconds; infinite where a log that somebody has changed names no moment."""
    try:
        idle = datetime.now(timezone.utc) - datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except (ValueError, TypeError):  # TypeError: one without a zone
        return math.inf
    return idle.total_seconds()


def open_resume(path: Path) -> tuple[Request, Resumed]:
    """What an interrupted log asked for, and what it has. Refuses another machine's log, and what cannot be appended to."""
    if path.suffix == ".gz" or str(path) == STANDARD_INPUT:
        raise LogError(f"{path} cannot be appended to", "unpack it into a file of its own (gunzip), and resume that")
    log = load(path)
    header = log.headers[-1]
    here = read_machine(alias=header.machine.get("alias"))
    if header.machine.get("id") != here.id or contradict(header.machine, msgspec.to_builtins(here)):
        other = f", this is {here.id}" if header.machine.get("id") != here.id else ", and this is another one of that image"
        raise LogError(
            f"{path} was recorded on machine {header.machine.get('alias')} ({header.machine.get('id')}){other}",
            "resume it there, or start a run of its own here: numabench run",
        )
    try:
        request = msgspec.convert(header.arguments, Request, strict=False)
    except msgspec.ValidationError as error:
        raise LogError(f"{path} does not say what was asked for ({error})", "start a run of its own: numabench run") from error
    last = max((t.started for t in log.trials), default=header.started)
    session = uuid.uuid4().hex[:12] if idle_since(last) > SESSION_GAP else header.session
    return request, Resumed(
        run=header.run,
        session=session,
        trials=tuple(t for t in log.trials if t.run == header.run),
        numabench=header.numabench,
        plan_key=header.plan.get("key", ""),
        complete=any(e.run == header.run and e.status not in UNFINISHED for e in log.ends),
        objects={b.name: b.kernel.object_hash for b in log.benchmarks if b.run == header.run and b.kernel},
        line=recorded_line(header.machine),
    )
