"""Where two threads must see each other's stores, is it fences on both sides or membarrier on the rare one that costs less?"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence
from contextlib import ExitStack

from ..errors import MachineError
from ..model import ALPHA, Answer, Axis, Contrast, View
from . import (
    ALONE,
    KERNEL_PRICE,
    MOST_APART,
    MOST_LINE,
    RELATION_WORDS,
    Benchmark,
    Found,
    Parameters,
    Placement,
    Probes,
    Sweep,
    memory_node,
    place_threads,
)

NONE, FENCE, MEMBARRIER, GLOBAL = METHODS = ("none", "fence", "membarrier", "membarrier_global")
FAST_SLOT, SLOW_SLOT, PASSED_SLOT, LEFT_SLOT, TRIALS_SLOT, WEAK_SLOT = 6, 7, 8, 9, 10, 11  # of `value`, as in kernels/barriers.c
MEDIAN_SLOT = 2  # of nb_each: ps of the median turn
PER = 100_000_000  # trials that counts are told for
INSTANCES = 64  # of the two words, as in kernels/barriers.c
BYTES = 2 * INSTANCES * (MOST_APART + MOST_LINE) + 16 * MOST_APART  # and what the threads tell each other
#: The number of membarrier(2), its query, and the bits of it that say what there is (linux/membarrier.h).
CALL = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
QUERY, COMMANDS = 0, {MEMBARRIER: 1 << 3, GLOBAL: 1 << 0}
#: Fast passes for each slow one: 64 to 16,384, between which membarrier begins to pay on machines that are known.
FEWEST, GROWTH, STEPS = 64, 4, 5


class Barriers(Benchmark):
    name = kernel = "barriers"
    rank = 31
    topic = "runtime"
    phase = ALPHA
    title = "Asymmetric barriers"
    question = "Where two threads must see each other's stores, is it fences on both sides or membarrier on the rare one that costs less?"
    expected = (
        "A full fence after a store takes 5 to 20 ns of each pass. With membarrier the fast side has none, and the slow one makes the kernel interrupt every CPU that runs the process: below 1 µs where there is none, 1 to 3 µs and "
        "some for each CPU where one runs, 10 and more in virtual machines. It pays from some hundred to ten thousand fast passes for each slow one. Neither lets both sides read the old value; without any barrier they do."
    )
    axes = (
        Axis(name="method", summary="what stands between a store and the read that follows it", values=METHODS),
        Axis(name="passes", summary="fast passes for each slow one", values=(), log=True, least=FEWEST, most=1 << 20),
        Axis(
            name="placement",
            summary="alone: no other thread of the process runs; else one does, and this is the relation of the CPUs",
            values=(),
        ),
    )
    contrasts = (Contrast(axis="method", control=FENCE, metric="time"),)
    views = (
        View(
            title="Time of a fast pass and its share of the slow one",
            metric="time",
            kind="line",
            x="passes",
            series="method",
            facet="placement",
        ),
        View(title="Time of a slow barrier", metric="slow", kind="bar", x="placement", series="method"),
    )
    method = {
        "pass": "a store, the barrier, a read, on lines of the thread's own",
        "membarrier": "private expedited; global: any process",
        "figures": "medians",
    }
    notes = (
        "What the interrupted thread loses is not in these figures: see `signals` and `address_space`.",
        "An outcome that the barriers forbid fails its sample, and the run. That none was seen is no proof that none can be.",
    )
    judges_gaps = False  # the other thread is interrupted on purpose
    most_samples = 1  # processes differ more than samples of one
    tolerates = KERNEL_PRICE
    judges_clock = False
    judges_overlap = False  # it begins with the first turn of the window
    needs_interrupt = True

    def sweep(self, topology, profile: str) -> list[Sweep]:
        relations = topology.relations()
        counts = tuple(FEWEST * GROWTH**step for step in range(STEPS))
        if profile == "quick":
            relations = relations[:1]
        if not relations:
            return [{"method": (FENCE, MEMBARRIER), "passes": counts, "placement": (ALONE,)}]
        others = (NONE,) if profile == "quick" else (NONE, GLOBAL)
        return [
            {"method": (FENCE, MEMBARRIER), "passes": counts, "placement": relations},
            {"method": (MEMBARRIER,), "passes": counts[:1], "placement": (ALONE,)},
            {"method": others, "passes": counts[:1], "placement": relations},
        ]

    def place(self, p: Parameters, topology) -> Placement | None:
        cpus = place_threads(topology, p["placement"], 1 if p["placement"] == ALONE else 2)
        return cpus and Placement(cpus=cpus, node=memory_node(topology, topology.node_of(cpus[0])), size=BYTES)

    def answers(self, topology, cases: list[Parameters]) -> tuple[Answer, ...]:
        found = []
        for placement in dict.fromkeys(p["placement"] for p in cases):
            at = {"passes": FEWEST, "placement": placement}
            alone = placement == ALONE
            while_ = "no other thread of the process runs" if alone else f"one runs ({RELATION_WORDS[placement]})"
            for method, words in ((MEMBARRIER, "A membarrier"), (GLOBAL, "A membarrier for all processes")):
                found.append(
                    Answer(
                        kind="cell",
                        metric="slow",
                        where={"method": method, **at},
                        headline=method == MEMBARRIER,
                        text=f"{words} takes {{value}} while {while_}",
                    )
                )
            found.append(
                Answer(
                    kind="crossover",
                    metric="time",
                    axis="passes",
                    where={"method": FENCE, "placement": placement},
                    against={"method": MEMBARRIER},
                    headline=not alone,
                    text=f"By fast passes for each slow one, while {while_}: {{value}}",
                )
            )
            if not alone:
                found += [
                    Answer(
                        kind="occurrence",
                        metric="weak",
                        where={"method": method, **at},
                        headline=method != GLOBAL,
                        text=f"With {words} between, both sides ({RELATION_WORDS[placement]}) read the old value {{value}}",
                    )
                    for method, words in (
                        (NONE, "nothing"),
                        (FENCE, "fences"),
                        (MEMBARRIER, "membarrier"),
                        (GLOBAL, "membarrier for all processes"),
                    )
                ]
        fast = [
            Answer(
                kind="difference",
                metric="fast",
                where={"method": FENCE, "passes": passes, "placement": placement},
                against={"method": MEMBARRIER},
                text="On the side that passes often a fence takes {value} more than membarrier, which needs none there",
            )
            for passes, placement in sorted({(p["passes"], p["placement"]) for p in cases})[:1]
        ]
        return (*fast, *found)

    def descriptors(self, p: Parameters, opened: ExitStack) -> Sequence[int]:
        """None; whether the kernel has what the case needs is asked here, where the answer can be said."""
        number, command = CALL.get(platform.machine()), COMMANDS.get(p["method"])
        if number is None or command is None:
            return ()
        can = ctypes.CDLL(None, use_errno=True).syscall(number, QUERY, 0, 0)
        if can < 0:
            why = os.strerror(ctypes.get_errno())
            raise MachineError(f"membarrier is refused ({why})", "run it where no filter of system calls forbids membarrier")
        if not can & command:
            raise MachineError(f"this kernel's membarrier has no {p['method']}", "Linux 4.14 has it, without nohz_full CPUs")
        return ()

    def arguments(self, p: Parameters, probes: Probes) -> dict[str, str | int]:
        return {"method": p["method"], "passes": p["passes"]}

    def metrics(self, p: Parameters, found: Found, probes: Probes) -> dict[str, float]:
        first, passes = found.threads[0], p["passes"]
        figures = {"time": first.value[MEDIAN_SLOT] / passes / 1000, "fast": first.value[FAST_SLOT] / passes / 1000}
        if p["method"] in (MEMBARRIER, GLOBAL):
            figures["slow"] = first.value[SLOW_SLOT] / 1000
        if trials := first.value[TRIALS_SLOT]:
            figures |= {"weak": first.value[WEAK_SLOT] / trials * PER, "trials": float(trials)}
        return figures

    def check(self, p: Parameters, found: Found) -> str:
        """Every pass stored and read; both sides were played against each other, and with a barrier neither missed the other."""
        first = found.threads[0]
        passed, trials, weak = (first.value[slot] for slot in (PASSED_SLOT, TRIALS_SLOT, WEAK_SLOT))
        if first.check != first.executed or passed != first.executed * p["passes"]:
            return f"{first.executed - first.check} of {first.executed} turns did not leave what their {p['passes']} passes are to leave"
        if len(found.threads) > 1 and not trials:
            return "the two sides were not played against each other"
        if p["method"] != NONE and weak:
            return f"both sides read the old value in {weak} of {trials} trials, which the barriers forbid"
        return ""


BENCHMARK = Barriers()
