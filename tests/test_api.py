"""The Python API as a data scientist and an editor meet it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

import numabench as nb

matplotlib.use("Agg")
ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "results" / "sample" / "first.jsonl"


@pytest.fixture(scope="module")
def run() -> nb.Run:
    return nb.load(SAMPLE)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda run: run.samples("memory_latncy"), "did you mean memory_latency"),
        (lambda run: run.estimates("memory_latency", "latncy"), "did you mean latency"),
        (lambda run: run.estimates(metric="latncy"), "did you mean latency"),
        (lambda run: run.contrasts("padded_counters", strid=8), "did you mean stride"),
        (lambda run: run.estimates("padded_counters", stride=9), "choose among 8, "),
        (lambda run: run.estimates("padded_counters", operation="incremnt"), "did you mean increment"),
        (lambda run: run.answers("fence"), "did you mean fences"),
        (lambda run: run.plot("memory_latncy"), "did you mean memory_latency"),
        (lambda run: run.plot("memory_latency", "Latncy by working set"), "or Latency by working set"),
        (lambda run: run.plot("memory_latency", 99), "choose among 0: "),
        (lambda run: nb.run("memory_latency", budgt="10s"), "did you mean budget"),
        (lambda run: nb.compare(run, run, sam=0.1), "did you mean same"),
    ],
)
def test_a_mistyped_name_is_an_error_that_says_what_it_should_be(run, ask, said):
    with pytest.raises(nb.UsageError) as caught:
        ask(run)
    assert said in str(caught.value)


def test_tables_are_narrowed_by_benchmark_metric_and_parameters(run):
    for table in (run.samples, run.estimates, run.contrasts):
        whole, part = table("padded_counters"), table("padded_counters", "time_per_operation", spacing=200, operation="increment")
        wanted = whole[(whole.metric == "time_per_operation") & (whole.spacing == 200) & (whole.operation == "increment")]
        assert 0 < len(part) == len(wanted) < len(whole)
        assert part.equals(wanted.reset_index(drop=True))


def test_what_was_not_measured_together_is_said(run):
    """Both values are there, never at one time."""
    with pytest.raises(nb.UsageError, match="nothing was measured at "):
        run.estimates("single_operations", state="shared", placement="alone")


@pytest.mark.parametrize("table", ["samples", "estimates", "contrasts", "answers"])
def test_docstrings_list_every_column(run, table):
    parameters = {axis.name for b in run.log.benchmarks for axis in b.axes}
    frame = getattr(run, table)()
    lacking = [name for name in frame if name not in parameters and name not in getattr(nb.Run, table).__doc__]
    assert not lacking


def test_answers_are_a_table(run):
    frame = run.answers()
    assert len(frame) > 10 and frame.headline.any() and set(frame.benchmark) <= {b.name for b in run.log.benchmarks}


@pytest.mark.parametrize("benchmark", ["memory_latency", "padded_counters", "core_to_core", "loaded_latency", "contention"])
def test_plots_are_axes_of_matplotlib_in_its_own_colours(run, benchmark):
    from matplotlib import pyplot
    from matplotlib.colors import to_hex

    from numabench.report.theme import _SENTINELS

    try:
        axes = run.plot(benchmark)
        assert axes and all(ax.figure.number in pyplot.get_fignums() for ax in axes)
        view = next(b for b in run.log.benchmarks if b.name == benchmark).views[0]
        assert all(view.title in ax.get_title() for ax in axes)
        for ax in axes:
            ax.figure.canvas.draw()
            for line in ax.get_lines():
                assert to_hex(line.get_color()) not in _SENTINELS.values()
                assert to_hex(line.get_markerfacecolor()) not in _SENTINELS.values()
            assert not {to_hex(text.get_color()) for text in ax.get_xticklabels()} & set(_SENTINELS.values())
    finally:
        pyplot.close("all")


def test_a_page_drawn_after_a_plot_still_is_svg(run):
    from matplotlib import pyplot

    run.plot("core_to_core")
    pyplot.close("all")
    from numabench.report.page import render_report

    log = run.log
    assert "<svg" in render_report(log) and not pyplot.get_fignums()


def test_checkers_and_editors_see_the_api(tmp_path):
    assert (ROOT / "numabench" / "py.typed").exists() and set(nb.__all__) <= set(dir(nb))
    (tmp_path / "use.py").write_text(
        "import numabench as nb\n"
        "run = nb.load('x')\n"
        "reveal_type(run.answers())\n"
        "run.plot('fences')[0].set_title('mine')\n"
        "run.sampels()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", str(tmp_path / "use.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "DataFrame" in done.stdout and '"Run" has no attribute "sampels"' in done.stdout and "Found 1 error" in done.stdout


def test_the_public_api_is_typed():
    done = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, cwd=ROOT)
    assert not done.returncode, done.stdout + done.stderr
