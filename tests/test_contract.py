"""What every benchmark keeps to, before anything long is run. `make check NAME=foo` asks it of one."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import numabench as nb
from numabench import kernel as abi
from numabench.analysis.answers import FINDERS
from numabench.benchmarks import TOPICS, Probes, broken, discover
from numabench.host.topology import read_topology
from numabench.measure.profiles import PROFILES
from numabench.runlog.columns import SOFT

ROOT = Path(__file__).parent.parent
BENCHMARKS = discover()
PROBES = Probes(frequency=3e9, multiply=1e-9)
BUSY = {"overlap", "distance_changed"}  # what other programs on the CPUs do to proofs, beside what is SOFT

every = pytest.mark.parametrize("name", BENCHMARKS)


def test_every_module_is_loaded():
    assert not broken(), "mend these modules"


@every
def test_it_has_a_page(name):
    page = ROOT / "docs" / "benchmarks" / f"{name}.md"
    axes = ", ".join(f"`{axis.name}`" for axis in BENCHMARKS[name].axes)
    assert page.exists(), (
        f"write docs/benchmarks/{name}.md with the question, a table of the parameters ({axes}), what theory expects, and pitfalls"
    )
    text = page.read_text()
    lacking = [f"`{axis.name}`" for axis in BENCHMARKS[name].axes if f"`{axis.name}`" not in text]
    assert not lacking, f"docs/benchmarks/{name}.md does not name the parameters {', '.join(lacking)}"


@every
def test_the_readme_lists_it(name):
    row = f"| [{name}](docs/benchmarks/{name}.md) | {BENCHMARKS[name].question.rstrip('?').lower()} |"
    assert f"(docs/benchmarks/{name}.md)" in (ROOT / "README.md").read_text(), f"add to README.md, The benchmarks: {row}"


@every
def test_its_description_is_complete(name):
    benchmark = BENCHMARKS[name]
    assert benchmark.topic in TOPICS, f"topic is {benchmark.topic!r}: one of {TOPICS}"
    assert benchmark.title and benchmark.question.endswith("?") and benchmark.expected, (
        "title, question (with its ?) and expected"
    )
    assert benchmark.method, "method: what makes two results the same quantity"
    axes = {axis.name: axis for axis in benchmark.axes}
    assert all(axis.summary for axis in benchmark.axes), "each axis says in `summary` what it is"
    for contrast in benchmark.contrasts:
        assert contrast.axis in axes, f"the contrast of {contrast.axis} has no such axis"
    topology = read_topology()
    for profile in PROFILES.values():
        for sweep in profile.sweeps(benchmark, topology):
            assert set(sweep) == set(axes), f"sweep of {profile.name} names {sorted(sweep)}, the axes are {sorted(axes)}"


@every
def test_its_kernel_compiles_without_a_warning_and_speaks_its_metrics(name):
    benchmark = BENCHMARKS[name]
    source = abi.source_folder() / f"{benchmark.kernel}.c"
    assert source.exists(), f"write kernels/{benchmark.kernel}.c (see kernels/fences.c)"
    done = subprocess.run(
        [*abi.find_compiler(), *abi.FLAGS, *abi.machine_flags(), "-Werror", "-o", "/dev/null", str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    kernel = abi.Kernel(abi.build(benchmark.kernel).target)
    assert kernel.metrics and kernel.version >= 1 and kernel.summary
    said = {v.metric for v in benchmark.views} | {c.metric for c in benchmark.contrasts} | {*benchmark.reports, *benchmark.most}
    assert said <= set(kernel.metrics), f"the kernel has no metric {', '.join(said - set(kernel.metrics))}"


@every
def test_its_cases_can_be_placed_asked_about_and_given_to_the_kernel(name):
    """On this machine; a benchmark that has no place here says what it needs."""
    benchmark, topology, kernel = BENCHMARKS[name], read_topology(), abi.Kernel(abi.build(BENCHMARKS[name].kernel).target)
    points = [
        dict(zip(sweep, values, strict=True))
        for sweep in benchmark.sweep(topology, "quick")
        for values in itertools.islice(itertools.product(*sweep.values()), 2000)
    ]
    cases = [point for point in points if benchmark.keep(point, topology) and benchmark.place(point, topology)]
    assert cases or benchmark.needs, "no case has a place on this machine: say in `needs` what it lacks"
    for point in cases[:200]:
        kernel.encode(benchmark.arguments(point, PROBES))
    for answer in benchmark.asked(topology, cases):
        assert answer.kind in FINDERS, f"there is no kind of answer {answer.kind!r}: one of {', '.join(sorted(FINDERS))}"
        assert answer.metric in kernel.metrics, f"{answer.text}: there is no metric {answer.metric!r}"
        assert set(answer.where) <= {axis.name for axis in benchmark.axes}
    for view in benchmark.figures(topology, cases):
        assert view.metric in kernel.metrics, f"the view {view.title!r} has no metric {view.metric!r}"


@pytest.mark.parametrize("name", [os.environ["CHECKED"]] if os.environ.get("CHECKED") else [])
def test_its_samples_prove_themselves(name, tmp_path):
    """Measured, which only `make check` does: no proof fails but those of a busy machine."""
    run = nb.run(name, profile="quick", processes=2, samples=1, window="2ms", budget="20s", output=tmp_path)
    samples = [sample for trial in run.log.trials for sample in trial.samples]
    assert samples, "nothing was measured"
    failed = Counter(reason for sample in samples for reason in {*sample.reasons} - SOFT - BUSY)
    assert not failed, f"proofs failed, by samples: {dict(failed)} (METHODOLOGY.md says what they are)"
