"""Wrong benchmarks on purpose: the certificate has to turn red for each.

A defect is an exact replacement in a copy of numabench. Each comes twice: as somebody would write it by mistake, where numabench's
own proof already refuses the samples; and with that proof blinded as well, where only the given latencies can tell.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .errors import SimulationError
from .packages import folder

CHECKOUT = Path(__file__).resolve().parent.parent
PARTS = ("numabench", "kernels")
BLIND = "-blind"

Change = tuple[str, str, str]  # file, old text (there exactly once), new text


@dataclass(frozen=True)
class Defect:
    """`mistake` makes numabench wrong, `blinding` takes away the check that would notice; `shows`: which figures turn red, on `machine`."""

    summary: str
    mistake: tuple[Change, ...]
    blinding: tuple[Change, ...]
    shows: str
    machine: str = "two-socket"  # that tells, or what is certified besides machines


DEFECTS = {
    "broken-chain": Defect(
        summary="the chase's chain is not one cycle: it returns to its beginning after 256 lines",
        mistake=(("kernels/nb_chase.h", "order[i + 1 < c->lines ? i + 1 : 0]", "order[(i + 1) % 256 ? i + 1 : i - 255]"),),
        blinding=(
            (
                "numabench/benchmarks/memory_latency.py",
                "if (at - steps) % lines == 0 and steps >= thread.operations:",
                "if True:",
            ),
        ),
        shows="node latency",
    ),
    "wrong-touch": Defect(
        summary="memory is not bound before its first touch, and a thread on another CPU touches it",
        mistake=(
            (
                "numabench/host/memory.py",
                "            self._bind(nodes, first, length)\n",
                "            pass\n",
            ),
            (
                "numabench/measure/worker.py",
                "        for member in members:\n            block = self.crew.blocks[member]\n",
                "        home = os.sched_getaffinity(0)\n"
                "        os.sched_setaffinity(0, {os.cpu_count() - 1})\n"
                "        ctypes.memset(self.buffer.address, 0, self.buffer.size)\n"
                "        os.sched_setaffinity(0, home)\n"
                "        for member in members:\n            block = self.crew.blocks[member]\n",
            ),
        ),
        blinding=(("numabench/measure/worker.py", 'return ["pages"] if', 'return ["pages"] if False and'),),
        shows="node latency",
    ),
    "missing-pin": Defect(
        summary="threads are not pinned: each runs where the scheduler puts it",
        mistake=(
            ("kernels/crew.c", "    m->error = nb_pin(m->wanted);\n", "    m->error = 0;\n"),
            ("numabench/measure/forks.py", "            os.sched_setaffinity(0, {cpu})\n", "            pass\n"),
        ),
        blinding=(
            ("numabench/measure/worker.py", "if t.cpu_begin != t.cpu or t.cpu_end != t.cpu:", "if False:"),
            ("numabench/measure/worker.py", '        reasons.append("distance_changed")', "        pass"),
        ),
        shows="node latency or hop",
    ),
    "neighbours-together": Defect(
        summary="the chase visits lines soon after their neighbours, which a prefetcher has brought with them",
        mistake=(
            (
                "kernels/nb_chase.h",
                "return line_bytes < NB_APART ? NB_APART / line_bytes : 1;",
                "return line_bytes / line_bytes;",
            ),
        ),
        blinding=(("numabench/benchmarks/memory_latency.py", 'return "cached" if', 'return "cached" if False and'),),
        shows="node latency",
        machine="neighbours",
    ),
    "huge-for-small": Defect(
        summary="memory that is asked for in base pages is advised to be huge",
        mistake=(
            ("numabench/host/memory.py", "_MADV_HUGEPAGE if self.page_size == THP else _MADV_NOHUGEPAGE", "_MADV_HUGEPAGE"),
        ),
        blinding=(("numabench/measure/worker.py", "return proof.page_size == BASE and", "return False and"),),
        shows="tlb_latency",
        machine="translation",
    ),
    "cached-stream": Defect(
        summary="a stream goes round in the first 32 KiB of its part: what it counts are hits in its own cache",
        mistake=(
            (
                "kernels/memory_bandwidth.c",
                "const uint64_t lines = (array_bytes(c) - (turned ? SHIFT : 0)) / LINE;",
                "const uint64_t whole = (array_bytes(c) - (turned ? SHIFT : 0)) / LINE, lines = whole < 512 ? whole : 512;",
            ),
        ),
        blinding=(("numabench/benchmarks/memory_bandwidth.py", "if thread.check != wanted:", "if False:"),),
        shows="memory bandwidth",
        machine="bandwidth",
    ),
    "late-chase": Defect(
        summary="the chase of loaded latency begins when the loaders have ended: it is measured outside of the common window",
        mistake=(
            (
                "kernels/loaded_latency.c",
                "{\n    t->cursor = (uint64_t)(uintptr_t)nb_chase((uint64_t *)(uintptr_t)t->cursor, n);\n",
                "{\n    const uint64_t gate = t->shared->opens[(t->gates - 1) % NB_GATES];\n"
                "    while (nb_now() < gate + 2 * (t->shared->warmup_ns + t->shared->window_ns))\n        nb_relax();\n"
                "    t->cursor = (uint64_t)(uintptr_t)nb_chase((uint64_t *)(uintptr_t)t->cursor, n);\n",
            ),
        ),
        blinding=(("numabench/measure/worker.py", '            reasons.append("overlap")', "            pass"),),
        shows="loaded latency",
        machine="bandwidth",
    ),
    "moved-samples": Defect(
        summary="a sample counts although its CPUs were moved in it, and when blind distances are averaged",
        mistake=(("numabench/measure/worker.py", "HOP_CHANGE = 1.25 ", "HOP_CHANGE = 125.0 "),),
        blinding=(
            ("numabench/measure/worker.py", "WIDTH_CHANGE = 1.4 ", "WIDTH_CHANGE = 140.0 "),
            ("numabench/analysis/structure.py", "CLASS_FACTOR = 1.3\n", "CLASS_FACTOR = 130.0\n"),
        ),
        shows="samples that were moved",
        machine="calibration",
    ),
    "uncorrected-claims": Defect(
        summary="a comparison does not correct its claims for how many they are",
        mistake=(
            (
                "numabench/analysis/judging.py",
                "discoveries(np.array([*p[finite], *family]))[: finite.sum()]",
                "p[finite]",
            ),
        ),
        blinding=(("numabench/analysis/selftest.py", "MOST_CLAIMED = 0.05\n", "MOST_CLAIMED = 1.0\n"),),
        shows="a machine compared with itself",
        machine="calibration",
    ),
    "fence-without-wait": Defect(
        summary="what drains stores is an sfence, which orders them and waits for none",
        mistake=(("kernels/nb_cpu.h", r'"lock orq $0, (%%rsp)\n\tlfence"', r'"sfence\n\tlfence"'),),
        blinding=(("numabench/benchmarks/single_operations.py", 'and metrics["latency"] < LEAST_HOPS * hop', "and False"),),
        shows="store_drained",
        machine="stores",
    ),
}


def names() -> list[str]:
    return [name + suffix for name in DEFECTS for suffix in ("", BLIND)]


def defective_tree(name: str) -> Path:
    """A copy of numabench with defect `name`; raises when its replacements no longer fit the code."""
    if name not in names():
        raise SimulationError(f"there is no defect {name}", f"one of {', '.join(names())}")
    defect = DEFECTS[name.removesuffix(BLIND)]
    changes = defect.mistake + (defect.blinding if name.endswith(BLIND) else ())
    tree = folder() / "defects" / name
    shutil.rmtree(tree, ignore_errors=True)
    for part in PARTS:
        shutil.copytree(CHECKOUT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in changes:
        text = (tree / file).read_text()
        if text.count(old) != 1:
            raise SimulationError(
                f"defect {name} does not fit {file} any more: {old.strip()!r} is there {text.count(old)} times",
                "mend testbed/defects.py",
            )
        (tree / file).write_text(text.replace(old, new))
    return tree
