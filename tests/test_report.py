"""The report page: what it says, how it draws, how it looks in a browser, and the verb that writes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pages import browse, check_page, measure, needs_browser, numabench, picture, svgs, write_log
from synthetic import counters, latency, loaded, make_log, matrix

from numabench.analysis.estimate import contrast_cells, estimate_cells
from numabench.analysis.structure import with_circumstances
from numabench.model import Axis, View
from numabench.report import facts, heatmaps, panels, scales, tables, theme
from numabench.report.figures import draw, figure, value_scales
from numabench.report.page import environment, merge_descriptors, page_style, render_report
from numabench.report.selection import Source, select, view_rows
from numabench.runlog.export import samples
from numabench.runlog.read import load

HOSTILE = "<script>alert('x')</script>&\"'"


def sparse_log(**options):
    """As `make_log`, with a second distance class in a third of the processes and cells that were never measured."""
    log = make_log(processes=9, disturbed=0.05, **options)

    def change(trial):
        kept = [
            s
            for s in trial.samples
            if not (s.parameters.get("stride") == 8 and s.parameters.get("spacing") == 0)
            and (s.parameters.get("cpu_node"), s.parameters.get("memory_node")) != (1, 2)
        ]
        if trial.process % 3 == 2:
            kept = [msgspec.structs.replace(s, hop=(107e-9, 107e-9)) if s.hop else s for s in kept]
        return msgspec.structs.replace(trial, samples=tuple(kept))

    return msgspec.structs.replace(log, trials=tuple(map(change, log.trials)))


@pytest.fixture(scope="module")
def log():
    return sparse_log()


@pytest.fixture(scope="module")
def html(log):
    return render_report(log)


@pytest.fixture(scope="module")
def tidy(log):
    frame = with_circumstances(samples(log))
    return estimate_cells(frame), contrast_cells(frame, log.benchmarks)


def test_page_is_self_contained(html):
    check_page(html)
    assert html.lstrip().lower().startswith("<!doctype html>")


def test_page_is_deterministic(log, html):
    assert render_report(log) == html


def test_answers_come_first(html):
    page = check_page(html)
    quality = "Quality: what was asked, and how far it was reached"
    assert page.headings == [
        "toy",
        "Toy CPU, 2 CPUs",
        "Cores, cache lines and locks",
        "Memory, caches and NUMA",
        quality,
        "The machine",
        "Glossary: how to read this",
    ]
    head = html[: html.index('id="quality"')]
    assert "Sharing a line costs" in head and "processes" in head


def test_every_value_has_its_interval(html, tidy):
    values = [text for kind, text in check_page(html).cells if kind.startswith("value")]
    estimates, contrasts = tidy
    assert len(values) == len(estimates) + 2 * len(contrasts)
    assert all(re.search(r"\((.+–.+|.+ to .+|no interval)\)$", " ".join(v.split())) for v in values)
    assert sum("no interval" in v for v in values) <= len(values) / 4


def test_table_holds_the_estimates(html, tidy):
    estimates = tidy[0]
    row = estimates[(estimates["metric"] == "latency") & (estimates["benchmark"] == "toy_latency")].iloc[0]
    quantity, interval = tables.interval_text(row["value"], row["low"], row["high"], "ns")
    assert f"{quantity} <i>({interval})</i>" in html


def test_hostile_words_are_escaped():
    hostile = make_log(
        HOSTILE,
        processes=2,
        samples=1,
        benchmarks=(latency,),
        machine={
            "brand": HOSTILE,
            "warnings": [HOSTILE],
            "configuration": {"kernel": HOSTILE, HOSTILE: HOSTILE},
            "topology": {"cpus": HOSTILE, "nodes": [{"id": HOSTILE}]},
        },
    )
    views = tuple(msgspec.structs.replace(v, title=HOSTILE) for v in hostile.benchmarks[0].views)
    evil = msgspec.structs.replace(
        hostile.benchmarks[0],
        title=HOSTILE,
        question=HOSTILE,
        expected=HOSTILE,
        notes=(HOSTILE,),
        method={HOSTILE: HOSTILE},
        views=views,
    )
    page = render_report(msgspec.structs.replace(hostile, benchmarks=(evil,), warnings=(HOSTILE,)))
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    check_page(page)


def test_one_cell_of_one_process():
    tiny = make_log(processes=1, samples=1, nodes=1, benchmarks=(matrix,))
    page = render_report(tiny)
    check_page(page)
    assert "single cell" in page and "no interval" in page
    assert "1</b><span>processes per cell" in page


def test_nothing_measured_is_said():
    empty = make_log(processes=0)
    page = render_report(empty)
    assert "No sample" in page and "0 of 0" in page


def test_sessions_and_design(html):
    two = render_report(make_log(sessions=2, processes=3, samples=1, benchmarks=(matrix,)))
    assert "<b>2</b><span>sessions" in two and "All figures come from one session" not in two
    assert "All figures come from one session" in html
    assert "switched (" in html  # what disturbed samples


def test_two_machines_on_one_page():
    one, other = (
        make_log("alpha", processes=2, samples=1, benchmarks=(matrix,)),
        make_log("beta", processes=2, samples=1, benchmarks=(matrix,)),
    )
    both = msgspec.structs.replace(
        one, **{f: getattr(one, f) + getattr(other, f) for f in ("paths", "headers", "benchmarks", "trials", "ends")}
    )
    page = render_report(both)
    check_page(page)
    assert page.count("<h3>alpha</h3>") == page.count("<h3>beta</h3>") == 3  # the first figure, all the rest, and the machine


def test_runs_of_other_values_are_merged():
    small, large = latency("a"), latency("b")
    small = msgspec.structs.replace(small, axes=(msgspec.structs.replace(small.axes[0], values=(1024, 4096)), small.axes[1]))
    merged = merge_descriptors([small, large])[0].axes[0].values
    assert merged == tuple(sorted({1024, 4096, *large.axes[0].values}))


# ---- figures ----------------------------------------------------------------------------------------------------------


def texts(svg) -> list[str]:
    return ["".join(e.itertext()).strip() for e in svg.iter("{http://www.w3.org/2000/svg}text")]


def ticks_x(svg, labels) -> list[float]:
    """Horizontal positions of tick labels in an SVG of matplotlib."""
    found = {}
    for element in svg.iter("{http://www.w3.org/2000/svg}text"):
        where = re.search(r"translate\(([-0-9.]+)", element.get("transform", "")) or re.search(r"()", "")
        found["".join(element.itertext()).strip()] = float(element.get("x") or where[1])
    return [found[label] for label in labels]


def test_strides_are_evenly_spaced_and_named(tidy):
    drawn = figure(counters("r").views[0], counters("r"), *tidy)
    svg = svgs(drawn.panels[0].svg)[0]
    steps = np.diff(ticks_x(svg, ["0 B", "8 B", "32 B", "64 B", "128 B", "256 B"]))
    assert steps.min() > 0 and np.ptp(steps) < 1
    assert [p.title for p in drawn.panels] == ["spacing 0", "spacing 200"]
    assert any(t.startswith("time per operation (ns") for t in texts(svg))


def test_other_distances_are_named_and_lighter(tidy):
    drawn = figure(counters("r").views[0], counters("r"), *tidy)
    names = [name for name, _ in drawn.legend]
    assert names[:2] == ["increment", "atomic_add"] and any("another distance, 110 ns" in n for n in names)
    assert f"opacity: {panels.LIGHTER:g}" in drawn.panels[0].svg


def test_missing_cells_are_marked(tidy):
    drawn = figure(counters("r").views[0], counters("r"), *tidy)
    assert "not measured for some series" in [n for n, _ in drawn.legend]
    assert ["var(--nb-muted" in p.svg for p in drawn.panels] == [True, False]  # the crosses
    heat = figure(matrix("r").views[0], matrix("r"), *tidy)
    assert "Hatched: not measured" in heat.caption
    complete = make_log(processes=2, samples=1, benchmarks=(matrix,))
    assert (
        "Hatched" not in figure(matrix("r").views[0], matrix("r"), estimate_cells(with_circumstances(samples(complete)))).caption
    )


def test_ratio_view_has_a_line_at_one_and_leaves_the_control_out(tidy):
    drawn = figure(counters("r").views[1], counters("r"), *tidy)
    svg = svgs(drawn.panels[0].svg)[0]
    assert "256 B" not in texts(svg) and any(t.startswith("ratio to stride 256 B") for t in texts(svg))
    assert "1" in texts(svg)


def test_sizes_get_binary_ticks(tidy):
    shown = texts(svgs(figure(latency("r").views[0], latency("r"), *tidy).panels[0].svg)[0])
    assert "2 KiB" in shown and any(t.endswith("MiB") for t in shown) and "latency (ns, log scale)" in shown


def test_bars_carry_figures(tidy):
    view = View(title="Bars", metric="throughput", kind="bar", x="operation", where={"stride": 64, "spacing": 0})
    drawn = figure(view, counters("r"), *tidy)
    shown = texts(svgs(drawn.panels[0].svg)[0])
    assert {"increment", "atomic_add"} <= set(shown) and any(re.fullmatch(r"1\.\d\d", t) for t in shown)


def test_view_of_nothing_is_none(tidy):
    view = View(title="none", metric="latency", kind="line", x="size", where={"order": "unheard of"})
    assert figure(view, latency("r"), *tidy) is None


@pytest.mark.parametrize("nodes, annotated", [(1, True), (16, True), (17, False), (64, False)])
def test_heat_maps_of_every_size(nodes, annotated):
    descriptor = matrix("r", nodes)
    grid = pd.DataFrame(
        [
            {
                "benchmark": "toy_nodes",
                "metric": "latency",
                "cpu_node": i,
                "memory_node": j,
                "distance": "",
                "main": True,
                "value": 95.0 + (i != j) * 40.25,
                "low": 90.0,
                "high": 150.0,
            }
            for i in range(nodes)
            for j in range(nodes)
        ]
    )
    drawn = figure(descriptor.views[0], descriptor, grid)
    svg = svgs(drawn.panels[0].svg)[0]
    assert ("95.0" in texts(svg)) == annotated
    assert len(drawn.panels[0].svg) < 400_000 and f"{nodes} by {nodes} cells" in drawn.panels[0].svg


def test_common_colour_scale_covers_all():
    scale = heatmaps.colour_scale([95, 150, float("nan")], ratio=False)
    assert (scale.vmin, scale.vmax) == (95, 150)
    ratio = heatmaps.colour_scale([0.5, 1.1], ratio=True)
    assert ratio(1.0) == pytest.approx(0.5)


def test_a_curve_goes_over_what_was_reached():
    log = make_log(benchmarks=(loaded,))
    frame = with_circumstances(samples(log))
    drawn = figure(log.benchmarks[0].views[0], log.benchmarks[0], estimate_cells(frame))
    assert len(drawn.panels) == 1 and [label for label, _ in drawn.legend] == ["mix 1:0", "mix 1:1"]
    svg = drawn.panels[0].svg
    assert "load (GB/s)" in svg and "latency (ns)" in svg and re.search(r"at 1[01]\.\d GB/s", svg)
    assert "Diamond" in drawn.caption


def test_curves_of_both_sides_of_a_comparison():
    base, new = make_log("a", benchmarks=(loaded,)), make_log("b", benchmarks=(loaded,), scale=lambda *_: 1.2)
    record, frames = base.benchmarks[0], [estimate_cells(with_circumstances(samples(log))) for log in (base, new)]
    view = record.views[0]
    sources = [
        Source(view_rows(view, record, f, None), side, n) for n, (side, f) in enumerate(zip(("base", "new"), frames, strict=True))
    ]
    drawn = draw(select(view, record, sources), "x")
    assert [label for label, _ in drawn.legend] == ["base, mix 1:0", "base, mix 1:1", "new, mix 1:0", "new, mix 1:1"]


def test_scales_of_panels():
    def curves(*values):
        return [panels.Curve("", 0, tuple((v, v, v) for v in values))]

    shared, own = value_scales([curves(1, 30), curves(2, 25)], ratio=False)
    assert not own and shared[0] == shared[1] and shared[0][2]  # logarithmic above a factor of 20
    _, own = value_scales([curves(1, 30), curves(160, 190)], ratio=False)
    assert own
    assert scales.limits([10, 100])[:1] == (0.0,) and not scales.limits([10, 100])[2]
    low, high, _ = scales.limits([100, 101])
    assert 0 < low < 100 and high - low > 5  # noise stays small


@pytest.mark.parametrize(
    "axis, values, kind",
    [
        (Axis(name="stride", summary="", values=(), unit="B"), [0, 8, 16, 256], "category"),
        (Axis(name="size", summary="", values=(), unit="B", log=True), [2**k for k in range(11, 28)], "log2"),
        (Axis(name="threads", summary="", values=()), [1, 2, 3], "linear"),
        (Axis(name="order", summary="", values=()), ["group", "random"], "category"),
        (Axis(name="size", summary="", values=(), unit="B", log=True), [4096], "category"),
    ],
)
def test_axis_kinds(axis, values, kind):
    assert scales.axis_kind(axis, values) == kind


def test_no_two_series_look_alike():
    looks = {tuple(map(str, theme.series_style(i).values())) for i in range(28)}
    assert len(looks) == 28


@pytest.mark.parametrize("colours, paper", [(theme.SERIES_LIGHT, theme.LIGHT["paper"]), (theme.SERIES_DARK, theme.DARK["paper"])])
def test_series_stand_out_from_the_paper(colours, paper):
    def luminance(colour):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))

    for colour in colours:
        light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


# ---- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, expected",
    [
        ((27.1, 26.8, 27.4, "ns"), ("27.1 ns", "26.8–27.4")),
        ((27.123, 27.1, 27.15, "ns"), ("27.12 ns", "27.10–27.15")),
        ((7.1e7, 7.0e7, 7.2e7, "operation/s"), ("71.0 M op/s", "70.0–72.0")),
        ((1.0512, 1.01, 1.09, "×"), ("1.051×", "1.010–1.090")),
        ((-0.0009, -0.03, 0.0008, "ns"), ("−0.001 ns", "−0.030 to 0.001")),
        ((98.0, float("nan"), float("nan"), "ns"), ("98.0 ns", "no interval")),
        ((float("nan"), float("nan"), float("nan"), "ns"), ("not measured", "no interval")),
    ],
)
def test_interval_text(given, expected):
    assert tables.interval_text(*given) == expected


def test_reasons_are_words():
    assert "one session only" in tables.reason_text(("one_session",))
    assert tables.reason_text(("never_heard_of",)) == "never heard of"


def test_machine_facts_survive_anything():
    for topology in (
        {},
        {"cpus": "0-127", "caches": [{}, None], "nodes": [{"id": 1, "memory_bytes": 0, "cpus": ""}], "smt": None},
        {"cpus": None},
    ):
        found = facts.machine_facts({"topology": topology})
        assert found["alias"] == "unknown" and isinstance(found["topology"], list)
    rows = dict(
        facts.topology_rows(
            {
                "cpus": "0-3",
                "cores": ["0,2", "1,3"],
                "packages": [{}],
                "smt": 2,
                "nodes": [{"id": 0, "memory_bytes": 0, "cpus": "0-3"}],
            },
            {},
        )
    )
    assert rows["processors"] == "1 package, 2 cores, 4 CPUs, 2 hardware threads per core" and "no memory" in rows["NUMA nodes"]


def test_unknown_names_in_templates_are_errors():
    assert environment().undefined.__name__ == "StrictUndefined" and environment().autoescape is True


# ---- in a browser -----------------------------------------------------------------------------------------------------


@needs_browser
def test_page_looks_right_in_a_browser(html, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(html)
    light = picture(page, tmp_path)
    dark = picture(page, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert light.std() > 10 and dark.std() > 10, "blank"
    assert np.median(light) > 200 and np.median(dark) < 60, "does not follow prefers-color-scheme"


@needs_browser
@pytest.mark.parametrize("width", [375, 1400])
def test_nothing_overflows(html, tmp_path, width):
    seen = measure(html, width, tmp_path)
    assert seen["width"] <= width, "the page scrolls sideways"
    assert not seen["clipped"], "texts leave their figure"
    assert seen["buttons"] > 10 and seen["sorted"] == "ascending"


@needs_browser
def test_what_is_left_out_of_figures_nobody_sees(log, tidy, tmp_path, monkeypatch):
    """Lines, bars, maps and a table, with all that matplotlib writes and each cell says, and without: the same picture."""
    estimates = tidy[0]
    views = [View(title="Bars", metric="throughput", kind="bar", x="operation", where={"spacing": 0})]
    shown = [(view, log.benchmarks[0]) for view in (*log.benchmarks[0].views[:1], *views)]
    shown += [(view, b) for b in log.benchmarks for view in b.views if view.kind == "heatmap"][:1]

    rows = tables.estimate_table(estimates, log.benchmarks[0], "throughput").rows[:6]
    listed = "".join(f"<tr>{''.join(cell.html for cell in row)}</tr>\n" for row in rows)

    def page(name: str, shorten: Callable[[str], str]) -> Path:
        drawn = [figure(view, record, estimates, prefix=f"f{n}") for n, (view, record) in enumerate(shown)]
        body = "".join(panel.svg for one in drawn for panel in one.panels) + "".join(
            svg for one in drawn for _, svg in one.legend
        )
        target = tmp_path / f"{name}.html"
        target.write_text(shorten(f"<style>{page_style()}</style><body><table><tbody>{listed}</tbody></table>{body}"))
        return target

    lean = page("lean", theme.lean)
    monkeypatch.setattr(theme, "short", lambda svg: svg)
    whole = page("whole", str)
    assert lean.stat().st_size < 0.6 * whole.stat().st_size
    seen = [picture(path, tmp_path, size="700,2600").astype(int) for path in (whole, lean)]
    apart = np.abs(seen[0] - seen[1])  # edges of letters move by a hundredth of a pixel
    assert seen[0].std() > 10 and apart.max() < 100 and (apart > 8).mean() < 1e-3


def test_what_places_an_image_stays_exact():
    """256 cells of 0.8671875 pixels are 222 pixels wide; of 0.86 they would be 220."""
    image = '<image transform="matrix(0.8671875 0 0 0.8671875 3.125 4.5)" width="256" height="256"/>'
    assert theme.short(image) == image and theme.short('<use x="1.23456" y="2"/>') == '<use x="1.23" y="2"/>'


def test_cells_of_a_table_say_no_more_than_they_must():
    assert tables.Cell("4k").html == "<td>4k</td>" and tables.Cell("7", "7").html == "<td>7</td>"
    assert tables.Cell("32 MiB", 33554432).html == '<td data-sort="33554432">32 MiB</td>'
    value = tables.value_cell(1709.2615280585164, 1623.0, 1800.0, "ns")
    assert value.html == '<td data-sort="1709.26">1709 ns <i>(1623–1800)</i></td>'
    assert tables.value_cell(*[float("nan")] * 3, "ns").html == "<td>not measured</td>"
    assert (
        tables.Cell(HOSTILE, HOSTILE + "x").html.count("<") == 2
        and tables.Cell("worse", kind="verdict slower").html.count("<b>") == 1
    )


@needs_browser
def test_long_names_fit(tmp_path):
    wordy = make_log(processes=2, samples=1, benchmarks=(counters,))
    axes = tuple(
        msgspec.structs.replace(a, values=("atomic_add_per_node_and_shard", "a_mutex_that_spins_adaptively"))
        if a.name == "operation"
        else a
        for a in wordy.benchmarks[0].axes
    )
    rename = dict(zip(("increment", "atomic_add"), axes[0].values, strict=True))
    views = (
        View(title="Bars", metric="throughput", kind="bar", x="operation", where={"spacing": 0, "stride": 8}),
        View(title="Lines", metric="throughput", kind="line", x="operation", series="stride"),
        View(title="Map", metric="throughput", kind="heatmap", x="operation", y="stride"),
    )
    trials = tuple(
        msgspec.structs.replace(
            t,
            samples=tuple(
                msgspec.structs.replace(s, parameters=s.parameters | {"operation": rename[s.parameters["operation"]]})
                for s in t.samples
            ),
        )
        for t in wordy.trials
    )
    record = msgspec.structs.replace(wordy.benchmarks[0], axes=axes, views=views)
    page = render_report(msgspec.structs.replace(wordy, benchmarks=(record,), trials=trials))
    assert not measure(page, 1200, tmp_path)["clipped"]


@needs_browser
def test_a_recorded_run_is_printed_on_about_ten_sheets(tmp_path):
    page, target = tmp_path / "report.html", tmp_path / "report.pdf"
    page.write_text(render_report(load(Path(report_root()) / "results" / "sample" / "first.jsonl")))
    check_page(page.read_text())
    browse(page, tmp_path / "profile", f"--print-to-pdf={target}", "--no-pdf-header-footer")
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) <= 11


# ---- the verb ---------------------------------------------------------------------------------------------------------


def test_report_as_a_user_types_it(log, tmp_path):
    path = write_log(log, tmp_path / "results" / "toy" / "one.jsonl")
    done = numabench("report", path, env={"PATH": "/usr/bin:/bin", "COLUMNS": "120"})
    assert done.returncode == 0 and "Traceback" not in done.stderr
    target = path.parent / "report.html"
    assert str(target) in done.stdout.replace("\n", "") and "L1 hit" in done.stdout and "numabench report --all" in done.stdout
    check_page(target.read_text())


def test_report_without_paths_reads_this_machine(log, tmp_path, monkeypatch):
    from numabench.cli import logs
    from numabench.cli.report import command

    monkeypatch.chdir(tmp_path)
    write_log(log, tmp_path / "results" / "toy" / "one.jsonl")
    monkeypatch.setattr(logs, "default_folder", lambda: logs.Path("results/toy"))
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0 and (tmp_path / "results" / "toy" / "report.html").exists()
    result = CliRunner().invoke(command, ["results/toy", "-o", "elsewhere/page.html"])
    assert result.exit_code == 0 and (tmp_path / "elsewhere" / "page.html").exists()


@pytest.mark.parametrize("arguments, words", [(["no-such-file"], "no such run log"), (["."], "no run log")])
def test_report_of_nothing_is_one_line(tmp_path, arguments, words):
    done = numabench("report", *arguments, cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(report_root())})
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


def test_unwritable_target_is_one_line(log, tmp_path):
    path = write_log(log, tmp_path / "one.jsonl")
    (tmp_path / "file").write_text("")
    done = numabench("report", path, "-o", tmp_path / "file" / "page.html")
    assert done.returncode == 2 and "cannot write the page" in done.stderr and "Traceback" not in done.stderr


def report_root():
    import numabench as package

    return package.__path__[0].rsplit("/", 1)[0]


def test_intervals_of_rare_distances_do_not_stretch_the_axis():
    import pandas as pd

    from numabench.report.selection import drawable

    cells = pd.DataFrame({"main": [True, False, False], "processes": [3, 2, 9], "low": [1.0, 1e-9, 2.0], "high": [2.0, 1e9, 3.0]})
    assert drawable(cells)["low"].isna().tolist() == [False, True, False] == drawable(cells)["high"].isna().tolist()
    assert cells["low"].notna().all()
