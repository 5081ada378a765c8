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
from numabench.cli.compared import as_markdown
from numabench.model import Answer, Card, Price
from numabench.report import brief, figures, heatmaps, ratios, versus
from numabench.report.dumbbell import dumbbell
from numabench.report.page import render_comparison
from numabench.report.selection import Room


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
    assert page.headings[0] == "beta against alpha"
    line = re.search(r'<p class="verdict-line">(.*?)</p>', html)[1].replace("\u00a0", " ")
    assert line == brief.sentence(comparison) and line == "beta is 26 % slower in padding and equal in everything else (4 of 5)."
    assert (
        html.index("verdict-line")
        < html.index("<h2>The verdict")
        < html.index("<h2>All cells")
        < html.index("<h2>What else differs")
    )
    assert f"of {comparison.comparisons} comparisons" in html and "24 slower" in html


def test_cells_say_verdict_and_reasons(html, comparison):
    cells = check_page(html).cells
    verdicts = [text for kind, text in cells if kind.startswith("verdict")][len(comparison.rows) :]
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
    assert "Not the same quantity" in page and "method" in dict(found.refused)["toy_latency"]
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
    maps = versus.overlays(matrix("r"), matrix("r").views, estimates, "x", Room(1))
    assert len(scales) == 2 and scales[0] is scales[1] and [p.title for p in maps[0].panels] == ["base (alpha)", "new (beta)"]
    curves = versus.overlays(latency("r"), latency("r").views, estimates, "y", Room(1))[0]
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
    assert "26 % slower" in done.stdout and "Else differs: kernel 6.1 → 6.5" in done.stdout and "one_session" not in done.stdout
    assert done.stdout.splitlines()[-2] == "exit code 1: worse in padding"
    every = numabench("compare", *files, "--cells", env={"PATH": "/usr/bin:/bin", "COLUMNS": "120"}).stdout
    assert "one_session" in every and len(every.splitlines()) > len(done.stdout.splitlines())
    check_page((tmp_path / "page.html").read_text())


def test_verdict_survives_a_closed_pipe(files):
    script = f"{sys.executable} -m numabench compare {files[0]} {files[0]} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "are equal" in done.stdout and "Traceback" not in done.stderr


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
    assert max(map(len, shown.splitlines())) <= 80 and len(shown.splitlines()) <= 23 and re.search(r"\bsame\b", shown)


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


# ---- rows, on the page and in the terminal ------------------------------------------------------------------------------


def test_the_page_opens_with_the_machines_cards():
    sides = [make_log(alias, benchmarks=(many,), processes=3) for alias in "ab"]
    page = render_comparison(compare(*sides), *sides)
    check_page(page)
    assert [side.split()[0] for side in re.findall('<p class="side">([^<]*)', page)] == ["BASE", "NEW"], (
        "cards of equal machines look alike"
    )
    assert page.count('<article class="card"') == 2 and page.index('class="card"') < page.index("<h2>The verdict")


def test_the_page_has_a_dumbbell(html, comparison):
    drawn = dumbbell(comparison)
    on_page = [picture for picture in svgs(html) if picture.get("aria-label") == drawn.alt]
    text, *others = (
        ["".join(e.itertext()) for e in picture.iter("{http://www.w3.org/2000/svg}text")]
        for picture in (*svgs(drawn.panels[0].svg), *on_page)
    )
    for line in brief.lines(comparison):
        assert line.quantity in text and f"{line.change}, {line.verdict}" in text and line.quantity in html
    assert [name for name, _ in drawn.legend] == ["worse", "same"] and "alpha is 100 %" in drawn.caption
    assert others == [text] and "padding: 26 % slower, worse" in drawn.alt


def test_a_group_has_no_two_cards():
    base, new = (
        merged(*(make_log(f"{s}{n}", processes=3, samples=1, benchmarks=(latency,), seed=n) for n in range(3))) for s in "ab"
    )
    assert 'class="card"' not in render_comparison(compare(base, new), base, new)


@pytest.mark.parametrize("change", [1e-9, 30.0])
def test_a_dumbbell_of_any_length_stays_inside(comparison, change):
    import dataclasses

    rows = comparison.rows.assign(change=change, low=change * 0.9, high=change * 1.1, verdict="worse")
    drawn = dumbbell(dataclasses.replace(comparison, rows=rows))
    ticks = [t for t in re.findall(r"([0-9]+) %", drawn.panels[0].svg) if int(t) > 1000]
    assert drawn.panels[0].svg.count("<text") >= len(rows) * 2 and len(ticks) <= len(rows) * 2


def many(run):
    """More quantities than a screen has rows, with long names and several cells."""
    record = latency(run)
    sizes = record.axes[0].values
    prices = tuple(
        Price(
            answer=Answer(
                kind="cell",
                metric="latency",
                where={"size": size, "order": order},
                text=f"a load of {size} B, {order} order, alone",
            )
        )
        for size in sizes
        for order in ("group", "random")
    )
    return msgspec.structs.replace(record, card=Card(prices=prices))


@pytest.fixture(scope="module")
def many_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    options = {"benchmarks": (many,), "sd": (0.001, 0.002, 0.001)}
    facts = {"configuration": {f"fact_{n}": f"a long value of fact number {n}" for n in range(9)}}
    sides = (
        make_log("a-machine-with-a-name", **options),
        make_log("another", seed=1, scale=lambda *_: 1.2, machine=facts, **options),
    )
    return [write_log(log, folder / f"{n}.jsonl") for n, log in enumerate(sides)]


def test_one_screen_whatever_there_is_to_say(many_files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = invoke(*many_files).stdout.splitlines()
    assert len(lines) <= 23 and max(map(len, lines)) <= 80 and "\x1b" not in "".join(lines)
    assert lines[0].startswith("another is worse in 18 quantities (up to ") and lines[-1].startswith(
        "exit code 1: 18 rows are worse"
    )
    assert sum(line.rstrip().endswith("worse") for line in lines) >= 5 and any(
        "a-machi…" in line or "a-machin…" in line for line in lines
    )
    assert len(invoke(*many_files, "--cells").stdout.splitlines()) > 40


def test_markdown_is_a_table(files):
    shown = invoke(*files, "--format", "markdown").stdout
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {7} and len(rows) == 2 + 5
    assert shown.startswith("**beta is 26 % slower in padding") and "| **worse** |" in rows[2] and "exit code 1" in shown


def test_markdown_escapes_what_names_hold(comparison):
    import dataclasses

    rows = comparison.rows.assign(quantity="a|b<c")
    assert "a\\|b&lt;c" in as_markdown(dataclasses.replace(comparison, rows=rows), 0, "exit code 0", ())


def test_json_says_what_the_screen_says(files, comparison):
    found = json.loads(invoke(*files, "--format", "json", "--fail-if", "time_per_operation > 5%").stdout)
    assert found["sentence"] == brief.sentence(comparison) and found["exit_code"] == 1
    assert found["fail_if"] == [{"condition": "time_per_operation > 5%", "failed": ["padding"], "matched": 1, "compared": 1}]
    assert [row["verdict"] for row in found["rows"]] == ["worse", *["same"] * 4]
    assert sum(found["row_counts"].values()) == len(found["rows"]) and sum(found["cell_counts"].values()) == len(found["cells"])


@pytest.mark.parametrize(
    ("conditions", "code", "reason"),
    [
        (["latency > 5%"], 0, "none of 4 compared is beyond"),
        (["toy_counters > 30%"], 0, "none of 1 compared"),
        (["toy_counters > 5%", "latency > 5%"], 1, "toy_counters > 5% (padding)"),
        (["padding < -1%"], 0, "none of 1 compared"),
    ],
)
def test_conditions_decide_the_exit_code_alone(files, conditions, code, reason):
    options = [part for text in conditions for part in ("--fail-if", text)]
    result = invoke(*files, *options)
    assert result.return_value == code or result.exit_code == code
    assert f"exit code {code}: {reason}" in " ".join(result.stdout.split())


def test_a_condition_on_nothing_comparable_does_not_pass(tmp_path):
    other = msgspec.structs.replace(latency("r"), method={"clock": "monotonic", "order": "x"})
    logs = make_log(benchmarks=(latency,)), make_log("b", benchmarks=(lambda run: msgspec.structs.replace(other, run=run),))
    paths = [write_log(log, tmp_path / f"{n}.jsonl") for n, log in enumerate(logs)]
    done = numabench("compare", *paths, "--fail-if", "latency > 10%")
    assert done.returncode == 4 and "nothing that --fail-if names could be compared" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fail-if", "latenzy > 5%"], "did you mean latency"),
        (["--fail-if", "latency more"], "write NAME > N%"),
        (["--only", "toy_latenci"], "did you mean toy latency"),
        (["--prices", "alfa=1,beta=2"], "did you mean alpha?"),
        (["--prices", "alpha=1"], "NEW has no price"),
        (["--prices", "alpha=cheap,beta=2"], "is no price"),
        (["--prices", "alpha=0,beta=2"], "must be above 0"),
    ],
)
def test_slips_are_answered_with_what_was_meant(files, options, words):
    done = numabench("compare", *files, *options)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_prices_by_alias_or_by_side(files):
    rows = [
        json.loads(invoke(*files, "--format", "json", "--prices", text).stdout)["rows_per_price"]
        for text in ("alpha=0.5,beta=1", "BASE=0.5,NEW=1")
    ]
    assert rows[0] == rows[1] and rows[0][0]["verdict"] == "worse" and rows[0][0]["change"] == pytest.approx(-0.60, abs=0.01)
    shown = invoke(*files, "--prices", "alpha=1,beta=0.5").stdout
    assert shown.startswith("For the same money, beta is better in 5 quantities") and "per price" in shown


def test_only_takes_lists(files):
    found = json.loads(invoke(*files, "--format", "json", "--only", "toy_latency,toy_nodes").stdout)
    assert {row["benchmark"] for row in found["rows"]} == {"toy_latency", "toy_nodes"} and found["exit_code"] == 0
