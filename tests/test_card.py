"""The machine's card: what it finds in a log, how it is shown, and what every benchmark offers for it."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree

import msgspec
import pytest
from pages import measure, needs_browser, numabench, write_log
from pretended import visit_to
from synthetic import counters, latency, make_log, matrix, with_samples
from synthetic_sysfs import SyntheticTree

from numabench.analysis.answers import MISSING, ROUGH, SETTLED, Answered, circumstances, inside
from numabench.analysis.answers.evidence import place_text
from numabench.analysis.card import DOUBTFUL, MOST_PRICES, USABLE, cards, machine_title, trust
from numabench.analysis.card import Price as CardPrice
from numabench.benchmarks import discover
from numabench.cli.card import LEAST_PRICES, PRICES, markdown, show
from numabench.cli.console import Terminal
from numabench.model import Answer, Axis, BenchmarkRecord, Card, Metric, Picture, Price, Sample, Tile, View, case_hash
from numabench.report.card import together
from numabench.report.page import CardView, environment
from numabench.runlog.check import check_benchmark
from numabench.units import format_number

ON_CARDS = (
    "padded_counters",
    "contention",
    "core_to_core",
    "memory_latency",
    "node_latency",
    "memory_bandwidth",
    "single_operations",
    "tlb_latency",
    "first_touch",
)
HEADER = 45  # CSS pixels above the card of a report


@pytest.fixture(scope="module")
def log():
    return make_log(processes=9, benchmarks=(counters, latency, matrix))


@pytest.fixture(scope="module")
def card(log):
    (found,) = cards(log)
    return found


def with_card(log, name: str, change):
    """`log` with the card of one benchmark changed."""
    records = tuple(msgspec.structs.replace(b, card=change(b.card)) if b.name == name else b for b in log.benchmarks)
    return msgspec.structs.replace(log, benchmarks=records)


def test_prices_ascend_and_have_intervals(card):
    assert [price.name for price in card.prices] == ["L1 hit", "L2 hit", "memory"]
    assert [p.value for p in card.prices] == sorted(p.value for p in card.prices)
    assert all(p.low <= p.value <= p.high and p.topic == "memory" and p.grade == SETTLED and not p.mark for p in card.prices)


def test_of_prices_called_alike_the_first_that_has_a_figure_stands(log):
    def change(card):
        (first, *rest) = card.prices
        other = msgspec.structs.replace(
            first, answer=msgspec.structs.replace(first.answer, where={"size": 1, "order": "group"}), rank=1
        )
        lost = Price(answer=msgspec.structs.replace(other.answer, text="TLB miss"), rank=2)
        return msgspec.structs.replace(card, prices=(other, first, *rest, lost))

    (found,) = cards(with_card(log, "toy_latency", change))
    assert [p.name for p in found.prices] == ["L1 hit", "L2 hit", "memory"] and found.missing == ("TLB miss",)


def test_the_lowest_ranks_stay(log):
    def change(card):
        (first, *_) = card.prices
        many = (Price(answer=msgspec.structs.replace(first.answer, text=f"price {rank}"), rank=rank) for rank in range(30, 0, -1))
        return msgspec.structs.replace(card, prices=tuple(many))

    (found,) = cards(with_card(log, "toy_latency", change))
    assert {p.name for p in found.prices} == {f"price {rank}" for rank in range(1, MOST_PRICES + 1)} and not found.missing


def test_tiles_say_differences_with_their_sign_and_notes(card):
    padding, memory = card.tiles
    assert padding.value.startswith("+") and padding.notes == ("pad to 64 B",) and "–" in padding.interval
    assert memory.words == "a load from memory" and memory.value.endswith(" ns") and memory.topic == "memory"


def test_a_tile_without_a_figure_says_why_unless_another_has_one(log):
    def lost(card):
        tile = msgspec.structs.replace(
            card.tiles[0], answer=msgspec.structs.replace(card.tiles[0].answer, where={"size": 1, "order": "group"}), rank=1
        )
        return msgspec.structs.replace(card, tiles=(tile,)), tile

    (found,) = cards(with_card(log, "toy_latency", lambda card: lost(card)[0]))
    tile = next(t for t in found.tiles if t.words == "a load from memory")
    assert tile.grade == MISSING and tile.value == "–" and tile.small == MISSING
    (found,) = cards(
        with_card(log, "toy_latency", lambda card: msgspec.structs.replace(card, tiles=(lost(card)[1], *card.tiles)))
    )
    assert [t.grade for t in found.tiles if t.words == "a load from memory"] == [SETTLED]


def test_the_picture_of_lowest_rank_that_has_figures(log, card):
    assert card.picture.view.kind == "heatmap" and card.finding.startswith("Memory by node: ")
    empty = msgspec.structs.replace(log, trials=tuple(t for t in log.trials if t.benchmark != "toy_nodes"))
    (found,) = cards(empty)
    assert found.picture.view.kind == "line" and found.finding.startswith("A load takes ")


def answered(benchmark: str, grade: str) -> Answered:
    return Answered(
        machine="toy",
        machine_id="toy",
        benchmark=benchmark,
        kind="cell",
        text="",
        value=1.0,
        low=1.0,
        high=1.0,
        unit="ns",
        ok=grade == SETTLED,
        headline=True,
        grade=grade,
    )


def test_trust_counts_calm_samples_and_settled_answers(log):
    from numabench.analysis.structure import with_circumstances
    from numabench.runlog.export import samples

    frame = with_circumstances(samples(log))
    asked = [answered("one", SETTLED), answered("two", "rough")]
    found = trust(log.headers, asked, frame)
    assert found.word == USABLE and "1 of 2 answers is settled" in found.why and found.remedy == "numabench run two"
    assert not trust(log.headers, asked[:1], frame).remedy and "visit" not in found.why
    surer = [asked[0], msgspec.structs.replace(asked[1], alone="one of them alone says 1.0 ns")]
    assert "1 of 2 answers is settled (1 more by one visit alone)" in trust(log.headers, surer, frame).why
    half = make_log(processes=9, benchmarks=(latency,), disturbed=0.8)
    found = trust(half.headers, asked, with_circumstances(samples(half)))
    assert found.word == DOUBTFUL and not found.good and found.remedy == "numabench check"
    open_ones = [answered(f"one_{number}", "rough") for number in range(6)]
    alpha = [
        msgspec.structs.replace(log.benchmarks[0], name=each.benchmark, phase="alpha", topic="runtime") for each in open_ones
    ]
    assert (
        trust(log.headers, open_ones, frame, [msgspec.structs.replace(a, phase="beta") for a in alpha]).remedy == "numabench run"
    )
    assert trust(log.headers, open_ones, frame, alpha).remedy == "numabench run runtime"  # not among those measured by default


def judged(log):
    from numabench.analysis.structure import with_circumstances
    from numabench.runlog.export import samples

    return trust(log.headers, [], with_circumstances(samples(log)))


def clocked(log, clocks, reasons=(), unit=None):
    """`log` with these clocks in turn (GHz), with these things said against every sample, and with metrics of this unit."""
    turn = itertools.cycle(clocks)

    def change(sample, process):
        clock = next(turn) * 1e9
        return msgspec.structs.replace(sample, frequency=(clock, clock), valid=not reasons, reasons=reasons)

    found = with_samples(log, change)
    if unit is None:
        return found
    records = (
        msgspec.structs.replace(b, metrics=tuple(msgspec.structs.replace(m, unit=unit) for m in b.metrics))
        for b in found.benchmarks
    )
    return msgspec.structs.replace(found, benchmarks=tuple(records))


def test_trust_says_at_which_clock_the_figures_are():
    log = make_log(processes=9, benchmarks=(latency,))
    assert not judged(log).clock  # where the log has none
    assert judged(clocked(log, [2.6])).clock == "clock 2.6 GHz" == judged(clocked(log, [2.61, 2.6, 2.64])).clock
    wandering = judged(clocked(log, [2.6] * 8 + [1.4, 2.7]))
    assert wandering.clock == "clock 2.6 GHz (1.4–2.7)" and wandering.reasons.endswith("; clock 2.6 GHz (1.4–2.7).")
    assert judged(clocked(log, [2.6] * 38 + [0.8, 0.9])).clock == "clock 2.6 GHz"  # nine of ten samples are there


def test_a_change_of_the_clock_alone_is_calm_where_it_is_taken_off():
    log = make_log(processes=9, benchmarks=(latency,))
    assert judged(clocked(log, [2.6], ("frequency_changed",))).why.startswith("100 % of ")
    assert judged(clocked(log, [2.6], ("frequency_changed",), "1")).why.startswith("0 % of ")  # a share follows no clock
    both = judged(clocked(log, [2.6], ("frequency_changed", "run_delay")))
    assert both.why.startswith("0 % of ") and both.word == DOUBTFUL


def test_the_clock_stands_on_terminal_page_and_picture(log):
    from numabench.report.card import picture
    from numabench.report.page import render_report

    wandering = clocked(log, [2.6] * 8 + [1.4, 2.7])
    (found,) = cards(wandering)
    assert "clock 2.6 GHz (1.4–2.7)" in " ".join(shown(found)) and max(map(len, shown(found))) <= 80
    assert "clock 2.6 GHz (1.4–2.7)" in markdown(found)
    assert "clock 2.6 GHz (1.4–2.7)" in "".join(ElementTree.fromstring(picture(found, "svg")).itertext())
    page, steady = (render_report(each).replace("\u2060", "").replace("\u00a0", " ") for each in (wandering, clocked(log, [2.6])))
    assert page.count("2.6 GHz (1.4") == 2 and "where nine of ten samples had theirs" in page
    assert steady.count("2.6 GHz.") == 2 and "nine of ten" not in steady


def test_an_interval_of_too_few_is_no_whisker():
    from numabench.report.card import Scale

    (found,) = cards(make_log(processes=2, benchmarks=(latency,), sd=(0, 0.6, 0.001), seed=3))
    lost = [price for price in found.prices if price.high > 100 * price.low]
    assert lost and {price.interval for price in lost} == {"too few processes"} and "too few processes" in markdown(found)
    assert {Scale(0.1, 1e4).extent(price)[1:] for price in lost} == {(0.0, 0.0)}


def test_figures_on_cells_have_an_ink_of_their_own(card):
    """An SVG leaves out black, and a page in the dark would put its own light ink on a light cell."""
    from numabench.report.card import picture_svg

    inside = [
        text.get("style")
        for text in ElementTree.fromstring(picture_svg(card, "c")).iter("{http://www.w3.org/2000/svg}text")
        if (text.text or "").strip() in {format_number(value) for value in card.cells["value"]}
    ]
    inside = [style for style in inside if "--nb-ink" not in style]  # a tick of the colour bar may be called alike
    assert len(inside) == 16 and {re.search("fill: (#[0-9a-f]+)", style)[1] for style in inside} == {"#010101", "#ffffff"}


def test_without_colours_the_cpus_of_each_group_are_named():
    """32 CPUs are more than shades show: four groups of eight, and two of sixteen."""
    from numabench.analysis.card import Group
    from numabench.cli.card import listed

    record = pairs_of(32)
    (found,) = cards(record)
    assert [group.members for group in found.groups] == [("0-7", "8-15", "16-23", "24-31"), ("0-15", "16-31")]
    lines = shown(found, no_color=True)
    assert "            CPUs 0-7 | 8-15 | 16-23 | 24-31" in lines and "            CPUs 0-15 | 16-31" in lines
    assert isinstance(found.groups[0], Group) and max(map(len, lines)) <= 80
    many = [f"{n},{n + 64}" for n in range(64)]
    assert listed(many, 40) == "CPUs 0,64 | 1,65 | 2,66, 61 more groups" and listed(["0-1", "2-3"], 40) == "CPUs 0-1 | 2-3"


def pairs_of(cpus: int):
    """A visit whose one benchmark is a matrix of CPUs: 20 ns inside eight, 60 inside sixteen, 150 beyond."""
    axes = tuple(Axis(name=name, summary="CPU", values=tuple(range(cpus))) for name in ("cpu_a", "cpu_b"))
    view = View(title="Core to core", metric="latency", kind="heatmap", x="cpu_b", y="cpu_a", both=tuple(range(cpus)))
    finding = Answer(kind="spread", metric="latency", where={}, text="Core to core: {value}")
    record = BenchmarkRecord(
        run="toy-0-0",
        name="toy_pairs",
        title="Pairs",
        question="How far?",
        axes=axes,
        metrics=(Metric(name="latency", unit="ns", polarity="lower"),),
        views=(view,),
        card=Card(pictures=(Picture(view=view, finding=finding, rank=1),)),
        method={},
    )
    points = [{"cpu_a": a, "cpu_b": b} for a in range(cpus) for b in range(a + 1, cpus)]
    taken = tuple(
        Sample(case=case_hash("toy_pairs", p), index=0, parameters=p, valid=True, metrics={"latency": far(**p)}) for p in points
    )
    log = make_log(processes=1, benchmarks=(latency,))
    trial = msgspec.structs.replace(log.trials[0], benchmark="toy_pairs", samples=taken)
    return msgspec.structs.replace(log, benchmarks=(record,), trials=(trial,))


def far(cpu_a: int, cpu_b: int) -> float:
    return 20.0 if cpu_a // 8 == cpu_b // 8 else 60.0 if cpu_a // 16 == cpu_b // 16 else 150.0


def shown(card, width: int = 80, **options) -> list[str]:
    text = io.StringIO()
    show(Terminal(file=text, width=width, force_terminal=False, **options), card)
    return text.getvalue().splitlines()


def many_prices(log):
    def change(card):
        (first, *_) = card.prices
        rows = [msgspec.structs.replace(first.answer, text=f"line from another core, same L3, {n:2}") for n in range(14)]
        return msgspec.structs.replace(card, prices=tuple(Price(answer=a, rank=n) for n, a in enumerate(rows)))

    (found,) = cards(with_card(log, "toy_latency", change))
    return found


@needs_browser
@pytest.mark.parametrize(("width", "height"), [(420, 1.3 * 900), (1300, 680)])
def test_the_card_is_the_first_screen_of_a_page(log, tmp_path, width, height):
    """With as much on it as a card holds: fourteen prices, five tiles with notes, a curve."""
    found = many_prices(log)
    tile = msgspec.structs.replace(found.tiles[0], words="as many operations by atomic add as by mutex, 2 threads (same L3)")
    tile = msgspec.structs.replace(
        tile, interval="4.01–4.49×", notes=("each: sharded 2.13 ns", "atomic 9.26 ns", "mutex 39.7 ns")
    )
    found = dataclasses.replace(found, tiles=(*(found.tiles * 3)[:4], tile))
    html = environment().get_template("cards.html.j2").render(title="card", cards=[CardView(found, 0)])
    seen = measure(html, width, tmp_path)
    assert seen["card"] <= height - HEADER and seen["width"] <= width and not seen["clipped"]


@needs_browser
@pytest.mark.parametrize("machine", ["eight-ccx", "memoryless", "line-256"])
def test_cards_of_machines_with_several_nodes_fit_their_screens(tmp_path, machine):
    """By what their benchmarks declare: many relations, a node without memory, words that are long."""
    (found,) = cards(visit_to(machine, "quick", ON_CARDS, processes=6))
    html = environment().get_template("cards.html.j2").render(title="card", cards=[CardView(found, 0)])
    for width, height in ((420, 1.3 * 900), (1300, 680)):
        seen = measure(html, width, tmp_path)
        assert seen["card"] <= height - HEADER and seen["width"] <= width and not seen["clipped"], (width, seen)


def test_a_number_stays_with_its_unit():
    assert (
        together("pad to 64 B · one core 28.2 GB/s · 2 threads") == "pad to 64\u00a0B · one core 28.2\u00a0GB/s · 2\u00a0threads"
    )


def test_a_terminal_of_24_lines_and_80_columns_is_enough(log):
    found = many_prices(log)
    lines = shown(found)
    assert len(lines) <= 24 and max(map(len, lines)) <= 80, "\n".join(lines)
    assert sum("line from another core" in line for line in lines) >= LEAST_PRICES
    alone = shown(dataclasses.replace(found, picture=None, cells=None))
    assert len(alone) <= 24 and sum("line from another core" in line for line in alone) == PRICES


@pytest.mark.parametrize("nodes", [2, 4, 8])
def test_a_matrix_between_nodes_and_the_ladder_share_the_screen(nodes):
    """Two lines say where the page is and how to see all, and one is the prompt's."""
    log = make_log(processes=5, nodes=nodes, benchmarks=(counters, latency, matrix))
    (card,) = cards(with_card(log, "toy_latency", lambda card: msgspec.structs.replace(card, pictures=())))
    prices = tuple(msgspec.structs.replace(card.prices[n % 3], name=f"price {n}", rank=n) for n in range(14))
    lines = shown(dataclasses.replace(card, prices=prices, missing=("what is not there",)))
    assert len(lines) <= 24 - 4 and max(map(len, lines)) <= 80, "\n".join(lines)
    assert sum("from node" in line for line in lines) == nodes
    assert sum("price" in line for line in lines) >= 3


def test_a_sentence_goes_on_below_its_words(card):
    words = "as many operations by one way as by another one, which is called by a long name"
    lines = shown(dataclasses.replace(card, tiles=(msgspec.structs.replace(card.tiles[0], words=words),)))
    (at,) = (number for number, line in enumerate(lines) if "as many operations" in line)
    assert lines[at + 1].startswith(" " * 12) and lines[at + 1].endswith("long name")


def test_a_curve_says_its_unit_whatever_it_is_drawn_in():
    """Wide intervals take an axis to µs: a load of 1 ns is no 0.001 ns for that."""
    from numabench.report.card import picture_svg

    (card,) = cards(make_log(benchmarks=(latency,)))
    wide = card.cells.assign(high=card.cells["value"] * 1e5)
    ticks = [
        float(text.split()[0])
        for text in texts_of(picture_svg(dataclasses.replace(card, cells=wide), "c"))
        if text.endswith(" ns")
    ]
    assert ticks and min(ticks) > 0.1


def test_a_mark_is_named_before_the_next_one():
    """Two capacities that are near to each other: the first one's name is on the side that is free."""
    from matplotlib.figure import Figure

    from numabench.report.card import draw_marks

    ax = Figure().add_subplot()
    ax.set_xscale("log", base=2)
    ax.plot([2**12, 2**26], [1, 100])
    draw_marks(ax, [(2**15, "L1 32 KiB"), (2**20, "L2 1 MiB"), (2**21, "L3 2 MiB")])
    assert [text.get_ha() for text in ax.texts] == ["left", "right", "left"]


def texts_of(svg: str) -> list[str]:
    return [(text.text or "").strip() for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_leaves_out_whole_notes(card):
    from numabench.report.card import small_lines

    notes = ("same node: 90.7 ns", "other package: 181 ns", "sibling thread: 9.98 ns")
    tile = msgspec.structs.replace(card.tiles[0], interval="24.7–25.2 ns", notes=notes)
    assert small_lines(tile, 30, 9)[-1].endswith("9.98\u00a0ns")
    assert [line.replace("\u00a0", " ") for line in small_lines(tile, 30, 2)] == ["24.7–25.2 ns · same node:", "90.7 ns"]
    assert small_lines(tile, 30, 0) == []


def test_a_kind_of_core_is_said_once(log):
    def named(card):
        prices = (
            msgspec.structs.replace(p, answer=msgspec.structs.replace(p.answer, text=f"{p.answer.text} (core cores)"))
            for p in card.prices
        )
        return msgspec.structs.replace(card, prices=tuple(prices))

    (found,) = cards(with_card(log, "toy_latency", named))
    assert [p.name for p in found.prices] == ["L1 hit", "L2 hit", "memory"] and found.facts.endswith(
        "core cores unless others are named"
    )
    (plain,) = cards(log)
    assert "unless" not in plain.facts


def test_a_narrow_terminal_has_no_bars_and_no_overflow(card):
    assert max(map(len, shown(card, width=44))) <= 44


def test_a_table_and_data_to_paste(card):
    text = markdown(card)
    assert text.startswith("### ") and text.count("\n| ") == 2 + len(card.prices) + len(card.tiles) - 1


@pytest.mark.parametrize("kind", ["png", "svg", "md", "txt"])
def test_the_card_as_a_user_types_it(log, tmp_path, kind):
    path = write_log(log, tmp_path / "log.jsonl")
    target = tmp_path / f"card.{kind}"
    done = numabench("card", path, "-o", target)
    assert done.returncode == 0 and target.stat().st_size > 500, done.stderr
    if kind == "png":
        from PIL import Image

        picture = Image.open(target)
        assert picture.size == (1200, 630)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
        assert (0, 1, 1) not in [
            colour for _, colour in picture.convert("RGB").getcolors(1 << 20)
        ]  # a colour that `finish` knows
    if kind == "svg":
        words = "".join(ElementTree.fromstring(target.read_text()).itertext())
        assert "L1 hit" in words and "Memory by node" in words


def test_the_card_as_data(log, tmp_path):
    done = numabench("card", write_log(log, tmp_path / "log.jsonl"), "--format", "json")
    (row,) = json.loads(done.stdout)
    assert row["machine"] == "toy" and [p["name"] for p in row["prices"]] == ["L1 hit", "L2 hit", "memory"]
    assert row["trust"]["word"] == USABLE and row["finding"].startswith("Memory by node: ")


def test_what_is_no_card_is_said(log, tmp_path):
    path = write_log(log, tmp_path / "log.jsonl")
    done = numabench("card", path, "-o", tmp_path / "card.gif")
    assert done.returncode == 2 and "ends with .png" in done.stderr and not (tmp_path / "card.gif").exists()
    plain = msgspec.structs.replace(log, benchmarks=tuple(msgspec.structs.replace(b, card=Card()) for b in log.benchmarks))
    done = numabench("card", write_log(plain, tmp_path / "old.jsonl"))
    assert done.returncode == 2 and "numabench report" in done.stderr


def test_report_shows_the_card_and_all_the_rest_if_asked(log, tmp_path):
    path = write_log(log, tmp_path / "log.jsonl")
    short, long = (numabench("report", path, *more, "-o", tmp_path / "page.html").stdout for more in ((), ("--all",)))
    assert "L1 hit" in short and "Sharing a line costs" not in short and len(short.splitlines()) <= 26
    assert "L1 hit" in long and "Sharing a line costs" in long
    page = (tmp_path / "page.html").read_text()
    assert page.index('class="card"') < page.index('class="topic"') and "og:title" in page


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("A load stays below twice idle (1:0, node 0) up to {value} GB/s", "1:0, node 0"),
        ("For two threads (a, b), sharing is free from {value} on", "For two threads (a, b)"),
        ("One thread, nothing inside: a mutex does {value}", "One thread, nothing inside"),
        ("{value} a load", ""),
        ("No figure at all", ""),
    ],
)
def test_circumstances_of_a_sentence(template, found):
    assert circumstances(template) == found


def test_a_name_keeps_its_letters_inside_a_sentence():
    assert [inside(text) for text in ("CPUs that share", "L3 of 32 MiB", "A load", "Back to back")] == [
        "CPUs that share",
        "L3 of 32 MiB",
        "a load",
        "back to back",
    ]


def test_a_point_is_told_by_what_varies_and_in_its_unit():
    record = latency("r")
    assert place_text(record, {"size": 2**25, "order": "group"}) == "size 32 MiB, order group"
    one = msgspec.structs.replace(record, axes=tuple(msgspec.structs.replace(a, values=a.values[:1]) for a in record.axes[1:]))
    assert (
        place_text(msgspec.structs.replace(one, axes=(record.axes[0], *one.axes)), {"size": 2048, "order": "group"})
        == "size 2 KiB"
    )


def test_a_machine_is_called_by_what_it_is():
    assert (
        machine_title({"brand": "AMD EPYC", "topology": {"cpus": "0-1"}, "configuration": {"hypervisor": "kvm"}})
        == "AMD EPYC, 2 CPUs of a virtual machine"
    )
    assert machine_title({"alias": "x", "topology": {"cpus": "?"}}) == "x"
    assert machine_title({}) == "unknown machine"


SHAPES = {
    "one CPU": {"cores": 1},
    "two CPUs": {},
    "siblings": {"cores": 2, "smt": 2},
    "four nodes": {"packages": 2, "nodes": 2, "l3s": 2, "cores": 2, "smt": 2},
}


@pytest.mark.parametrize("profile", ["quick", "standard", "full"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_benchmarks_offer_can_be_read_and_has_one_unit(tmp_path, shape, profile):
    """Each is asked of points that are measured, in names that are declared; prices are times."""
    from numabench.host.topology import read_topology

    SyntheticTree(tmp_path, **SHAPES[shape])
    topology = read_topology(str(tmp_path))
    names: dict[str, set] = {}
    for benchmark in discover().values():
        points = [
            dict(zip(sweep, point, strict=True))
            for sweep in benchmark.sweep(topology, profile)
            for point in itertools.product(*sweep.values())
        ]
        points = [p for p in points if benchmark.keep(p, topology) and benchmark.place(p, topology)]
        points = [p for p in points if set(p) == {axis.name for axis in benchmark.axes}]
        if not points:
            continue
        offered = benchmark.carded(topology, points)
        metrics = {a.metric for a in offered.answers}
        check_benchmark(
            BenchmarkRecord(
                run="r",
                name=benchmark.name,
                title=benchmark.title,
                question=benchmark.question,
                axes=benchmark.axes,
                metrics=tuple(Metric(name=name, unit="ns", polarity="lower") for name in metrics),
                method={},
                contrasts=(),
                card=offered,
                topic=benchmark.topic,
            )
        )
        for entry in (*offered.prices, *offered.tiles):
            assert "{" not in entry.answer.text and len(entry.answer.text) <= 75
            assert entry.answer.kind in ("cell", "difference", "ratio", "best", "spread")
        for note in (note for tile in offered.tiles for note in tile.notes):
            assert "{value}" in note.text
        for price in offered.prices:
            names.setdefault(price.answer.text, set()).add(benchmark.topic)
    assert len(names) >= 8 and all(len(topics) == 1 for topics in names.values())
    assert ("memory, own node" in names) == (shape == "four nodes")


def test_a_card_keeps_what_was_measured():
    known = Answer(kind="cell", metric="m", where={"a": 1}, text="x")
    other = Answer(kind="cell", metric="m", where={"a": 2}, text="y")
    card = Card(
        prices=(Price(answer=known), Price(answer=other)),
        tiles=(Tile(subject="s", answer=known, notes=(known, other)), Tile(subject="t", answer=other)),
    )
    found = card.only(lambda answer: answer.where == {"a": 1})
    assert [p.answer for p in found.prices] == [known] and [t.notes for t in found.tiles] == [(known,)]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_figure_as_a_user_types_it(log, tmp_path, kind):
    path = write_log(log, tmp_path / "log.jsonl")
    done = numabench("figure", "toy_latency", path, "-o", tmp_path / f"latency.{kind}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"latency.{kind}").read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


def test_panels_are_files_of_their_own_and_names_are_checked(log, tmp_path):
    path = write_log(log, tmp_path / "log.jsonl")
    done = numabench("figure", "toy_counters", path, "--view", "Ratio", "-o", tmp_path / "x.svg")
    assert done.returncode == 0 and {p.name for p in tmp_path.glob("x*.svg")} == {"x-1.svg", "x-2.svg"}, done.stderr
    assert "did you mean toy_latency" in numabench("figure", "toy_latncy", path).stderr
    assert "no view 'Fair'" in numabench("figure", "toy_latency", path, "--view", "Fair").stderr
    assert "ends with .png" in numabench("figure", "toy_latency", path, "-o", tmp_path / "x.gif").stderr


def card_of(name: str, topology, cases: list[dict]) -> Card:
    return discover()[name].carded(topology, cases)


def topology_of(tmp_path, **shape):
    from numabench.host.topology import read_topology

    SyntheticTree(tmp_path, **shape)
    return read_topology(str(tmp_path))


def measured(benchmark, topology, profile="quick") -> list[dict]:
    points = [
        dict(zip(s, point, strict=True)) for s in benchmark.sweep(topology, profile) for point in itertools.product(*s.values())
    ]
    return [p for p in points if benchmark.keep(p, topology) and benchmark.place(p, topology)]


@pytest.mark.parametrize("name", ["core_to_core", "padded_counters", "contention"])
def test_siblings_of_a_core_are_no_headline(tmp_path, name):
    topology = topology_of(tmp_path, cores=4, smt=2)
    benchmark = discover()[name]
    card = benchmark.carded(topology, measured(benchmark, topology, "standard"))
    first = min(card.tiles, key=lambda tile: tile.rank)
    assert "same L3" in first.answer.text and "sibling" not in first.answer.text


def test_memory_of_one_node_is_never_far(tmp_path):
    topology = topology_of(tmp_path, cores=2)
    benchmark = discover()["node_latency"]
    cases = [{**p, "size": size} for p in measured(benchmark, topology, "standard") for size in (p["size"], 2 * p["size"])]
    card = benchmark.carded(topology, cases)
    assert [p.answer.text for p in card.prices] == ["memory"] and not card.pictures


def test_some_of_the_cores_are_not_all(tmp_path):
    topology = topology_of(tmp_path, cores=8)
    benchmark = discover()["memory_bandwidth"]
    cases = [{**p, "threads": n} for p in measured(benchmark, topology) if p["threads"] == 1 for n in (1, 2)]
    (tile,) = benchmark.carded(topology, cases).tiles
    assert tile.answer.text == "read from memory by 2 threads"


def test_a_card_shows_one_kind_of_core_and_names_it(tmp_path):
    card = card_of("memory_latency", topology := topology_of(tmp_path, cores=2), measured(discover()["memory_latency"], topology))
    found = card.of_kind("core_kind", "atom")
    assert all(a.where["core_kind"] == "atom" for a in found.answers)
    assert all(price.answer.text.endswith(" (atom cores)") for price in found.prices)
    assert found.pictures[0].view.where["core_kind"] == "atom"


def test_a_map_of_nothing_is_no_picture(log):
    """What was measured elsewhere does not make a picture of a point at which nothing is valid."""
    lost = tuple(
        msgspec.structs.replace(t, samples=tuple(msgspec.structs.replace(s, valid=False, reasons=("pages",)) for s in t.samples))
        if t.benchmark == "toy_nodes"
        else t
        for t in log.trials
    )
    (found,) = cards(msgspec.structs.replace(log, trials=lost))
    assert found.picture.view.kind == "line"
    assert shown(found)


def test_maps_of_a_card_are_of_cpus_or_nodes():
    record = matrix("r")
    picture = record.card.pictures[0]
    odd = msgspec.structs.replace(picture, view=msgspec.structs.replace(picture.view, x="memory_node", y="memory_node"))
    with pytest.raises(Exception, match="neither of CPUs nor of nodes"):
        check_benchmark(msgspec.structs.replace(record, card=Card(pictures=(odd,))))


def test_markdown_shows_texts_as_they_are(card):
    hostile = dataclasses.replace(card, title="EPYC | <img src=x> ![x](http://e.vil) @all `code`")
    text = markdown(hostile).splitlines()[0]
    assert r"\|" in text and r"\<img" in text and r"\!\[x\]" in text and r"\@all" in text and r"\`code\`" in text


def test_a_wide_interval_does_not_squeeze_the_bars(card):
    from numabench.report.card import scale_of

    wide = msgspec.structs.replace(card.prices[0], low=1e-4, high=1e8)
    assert scale_of((wide, *card.prices[1:])).high == scale_of(card.prices).high


@pytest.mark.parametrize(
    ("low", "high", "grade", "mark"),
    [(0.99, 1.01, SETTLED, ""), (0.99, 1.01, ROUGH, ROUGH), (0.91, 1.09, ROUGH, "±9 %"), (1e-5, 300.0, ROUGH, ROUGH)],
)
def test_a_mark_says_how_far_a_value_reaches_where_that_says_anything(low, high, grade, mark):
    price = CardPrice(name="L2 hit", topic="memory", value=1.0, low=low, high=high, grade=grade, rank=1)
    assert price.mark == mark
