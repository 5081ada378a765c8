"""The comparison's page and verb: the verdict first, in words; refusals; both sides on common scales; exit codes."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter

import msgspec
import pytest
from click.testing import CliRunner
from pages import check_page, measure, needs_browser, numabench, svgs, write_log
from synthetic import counters, latency, make_log, matrix

from numabench.analysis.compare import compare
from numabench.cli.compare import command, exit_code
from numabench.report import figures, heatmaps, ratios, versus
from numabench.report.page import render_comparison


def slower(benchmark, parameters):
    return 1.25 if parameters.get("operation") == "increment" else 1.0


@pytest.fixture(scope="module")
def sides():
    quiet = (0.001, 0.001, 0.001)
    return make_log("alpha", sd=quiet), make_log(
        "beta", seed=1, sd=quiet, scale=slower, machine={"configuration": {"kernel": "6.5"}}
    )


@pytest.fixture(scope="module")
def comparison(sides):
    return compare(*sides)


@pytest.fixture(scope="module")
def html(comparison, sides):
    return render_comparison(comparison, *sides)


@pytest.fixture(scope="module")
def files(sides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    return [write_log(log, folder / f"{name}.jsonl") for log, name in zip(sides, ("alpha", "beta"), strict=True)]


def merged(*logs):
    fields = ("paths", "headers", "benchmarks", "trials", "ends")
    return msgspec.structs.replace(logs[0], **{f: tuple(itertools.chain(*(getattr(x, f) for x in logs))) for f in fields})


def test_verdict_comes_first(html, comparison):
    page = check_page(html)
    assert page.headings[:3] == ["beta against alpha", "The verdict", "What else differs"]
    summary = re.search(r'<p class="verdict-line">(.*?)</p>', html)[1]
    assert f"of {comparison.comparisons} comparisons" in summary and "24 slower" in summary and "New is slower" in summary


def test_cells_say_verdict_and_reasons(html, comparison):
    cells = check_page(html).cells
    verdicts = [text for kind, text in cells if kind.startswith("verdict")]
    assert len(verdicts) == len(comparison.cells) and verdicts.count("slower") == comparison.summary["slower"]
    assert "one session only" in html and "6.5" in html and "Largest slowdowns" in html


def test_values_have_intervals(html):
    values = [" ".join(text.split()) for kind, text in check_page(html).cells if kind.startswith("value")]
    assert values and all(re.search(r"\(.+–.+\)$", v) for v in values)


def test_slowdowns_name_their_cells(comparison):
    descriptors = {"toy_counters": counters("r")}
    rows = versus.worst_rows(comparison.cells, descriptors)
    assert len(rows) == 8 and len({r["cell"].split(":")[1] for r in rows}) == 8  # each cell once, whichever metric
    assert all("operation increment" in r["cell"] for r in rows)
    options = {"benchmarks": (latency,), "sd": (0, 0.001, 0)}
    latencies = compare(make_log(**options), make_log("b", scale=lambda *_: 1.3, **options))
    assert "KiB" in str(versus.worst_rows(latencies.cells, {"toy_latency": latency("r")}))


@pytest.mark.parametrize(
    "counts, words",
    [
        ({"slower": 2, "same": 1}, "New is slower somewhere"),
        ({"slower": 1, "faster": 1}, "faster in some cells and slower in others"),
        ({"faster": 3}, "nowhere found slower"),
        ({"unresolved": 3, "same": 1}, "No cell is found faster or slower"),
        ({"same": 3}, "Every cell is the same"),
    ],
)
def test_summary_sentences(comparison, counts, words):
    import dataclasses

    said = versus.summary_sentence(dataclasses.replace(comparison, summary=counts, comparisons=3))
    assert words in said and "no difference" not in said


def test_refusals_are_shown_and_not_drawn(sides):
    other = msgspec.structs.replace(
        sides[1],
        benchmarks=tuple(
            msgspec.structs.replace(b, method={"clock": "monotonic", "order": "x"}) if b.name == "toy_latency" else b
            for b in sides[1].benchmarks
        ),
    )
    found = compare(sides[0], other)
    page = render_comparison(found, sides[0], other)
    check_page(page)
    assert "Refused: not the same quantity" in page and "method" in dict(found.refused)["toy_latency"]
    assert "Latency by working set" not in page and "Latency between nodes" in page


def test_nothing_comparable():
    found = compare(make_log(benchmarks=(latency,), processes=2), make_log("other", benchmarks=(matrix,), processes=2))
    page = render_comparison(found)
    assert found.exit_code == 4 and "Nothing could be compared" in page
    said = versus.obstacle_sentences(found, {})
    counts = Counter(found.cells["verdict"])
    assert sum(int(sentence.split()[0]) for sentence in said) == counts["incomparable"] + counts["failed"]
    assert any("incomparable: measured in base only, such as toy_latency, " in s for s in said)
    assert all(sentence.split(",")[0] in page for sentence in said)


def test_curves_share_axes_and_maps_one_colour_scale(sides, monkeypatch):
    scales, frames = [], []
    draw_map, draw_line = heatmaps.heatmap_panel, figures.panels.line_panel
    monkeypatch.setattr(heatmaps, "heatmap_panel", lambda *a: scales.append(a[5]) or draw_map(*a))
    monkeypatch.setattr(
        figures.panels, "line_panel", lambda frame, curves, *a: frames.append((frame, curves)) or draw_line(frame, curves, *a)
    )
    estimates = versus._side_estimates(*sides)
    maps = versus.overlays(matrix("r"), estimates, "x")
    assert len(scales) == 2 and scales[0] is scales[1] and [p.title for p in maps[0].panels] == ["base (alpha)", "new (beta)"]
    curves = versus.overlays(latency("r"), estimates, "y")[0]
    assert all({c.side for c in shown} == {"base", "new"} for _, shown in frames)
    assert len({(f.low, f.high, f.log) for f, _ in frames}) == 1
    assert [name for name, _ in curves.legend] == ["base", "new"]


def test_ratio_figure_has_the_band(comparison):
    drawn = ratios.ratio_figure(
        comparison.cells[comparison.cells["benchmark"] == "toy_counters"], counters("r"), "time_per_operation", 0.03, "p"
    )
    names = [name for name, _ in drawn.legend]
    assert "slower" in names and names[-1] == "band of practical equality, ±3 %"
    assert "left of 1 is better" in drawn.caption
    text = "".join("".join(e.itertext()) for e in svgs(drawn.panels[0].svg)[0].iter("{http://www.w3.org/2000/svg}text"))
    assert "increment · 0 B · spacing 0" in text


def test_many_cells_become_a_cloud():
    options = {"nodes": 20, "benchmarks": (matrix,), "processes": 3, "samples": 1}
    one = compare(make_log(**options), make_log("b", **options))
    drawn = ratios.ratio_figure(one.cells, matrix("r", 20), "latency", 0.03, "p")
    assert "in the order of the table" in drawn.caption and len(drawn.panels[0].svg) < 400_000


def test_groups_of_machines():
    base, new = (
        merged(*(make_log(f"{side}{n}", processes=3, samples=1, benchmarks=(latency,), seed=n) for n in range(3)))
        for side in "ab"
    )
    page = render_comparison(compare(base, new), base, new)
    check_page(page)
    assert "groups of 3 and 3 machines" in page and "base (a0)" in page and "new (b2)" in page


@needs_browser
@pytest.mark.parametrize("width", [375, 1400])
def test_page_in_a_browser(html, tmp_path, width):
    seen = measure(html, width, tmp_path)
    assert seen["width"] <= width and not seen["clipped"] and seen["buttons"] > 10


# ---- the verb ---------------------------------------------------------------------------------------------------------


def test_compare_as_a_user_types_it(files, tmp_path):
    done = numabench("compare", *files, "-o", tmp_path / "page.html", env={"PATH": "/usr/bin:/bin", "COLUMNS": "120"})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "slower" in done.stdout and "what else differs" in done.stdout and "one_session" not in done.stdout
    changes = [line for line in done.stdout.splitlines() if line.startswith(("slower ", "faster "))]
    assert changes and all("× (" in line for line in changes)
    every = numabench("compare", *files, "--cells", env={"PATH": "/usr/bin:/bin", "COLUMNS": "120"}).stdout
    assert "one_session" in every and len(every.splitlines()) > len(done.stdout.splitlines())
    check_page((tmp_path / "page.html").read_text())


def test_verdict_survives_a_closed_pipe(files):
    script = f"{sys.executable} -m numabench compare {files[0]} {files[0]} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "comparisons" in done.stdout and "Traceback" not in done.stderr


def invoke(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments)], standalone_mode=False)


def test_json_is_whole(files):
    result = invoke(*files, "--format", "json")
    assert result.return_value == 1 or result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["exit_code"] == 1 and len(found["cells"]) == sum(found["summary"].values())
    assert {"what", "base", "new"} == set(found["differs"][0]) and found["same"] == 0.03


def test_html_goes_to_standard_output(files):
    check_page(invoke(*files, "--format", "html").stdout)


def test_columns_fit_eighty(files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke(*files).stdout
    assert max(map(len, shown.splitlines())) <= 80 and re.search(r"\bunresolved|same\b", shown)


@pytest.mark.parametrize("text, share", [("3%", 0.03), ("5 %", 0.05), ("0.1", 0.1)])
def test_same_is_a_share(files, text, share):
    assert json.loads(invoke(*files, "--format", "json", "--same", text).stdout)["same"] == pytest.approx(share)


@pytest.mark.parametrize("text", ["three", "0", "150%"])
def test_bad_share_is_a_usage_error(files, text):
    result = CliRunner().invoke(command, [*map(str, files), "--same", text])
    assert result.exit_code == 2 and "3% or 0.03" in result.output


def test_exit_codes(comparison):
    import dataclasses

    def code(own, unresolved, required):
        return exit_code(dataclasses.replace(comparison, exit_code=own, summary={"unresolved": unresolved}), required)

    assert [code(0, 3, False), code(0, 3, True), code(0, 0, True), code(1, 3, True), code(4, 0, True)] == [0, 5, 0, 1, 4]


def test_missing_log_is_one_line(files):
    done = numabench("compare", files[0], "nowhere.jsonl")
    assert done.returncode == 2 and "nowhere.jsonl" in done.stderr and done.stderr.count("\n") == 1
