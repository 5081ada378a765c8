"""Machines of one image: what their ids are made of, and that logs of two of them are not taken for one machine's."""

from __future__ import annotations

import msgspec
import pytest
from synthetic import latency, make_log
from synthetic_sysfs import SyntheticTree

from numabench.analysis.compare import compare
from numabench.errors import LogError
from numabench.host.machine import read_machine
from numabench.host.marks import read_marks
from numabench.host.sysfs import Tree
from numabench.measure import visit
from numabench.runlog.export import samples
from numabench.runlog.read import load
from numabench.runlog.twins import contradict, told_apart
from numabench.runlog.write import Journal

UUID = "sys/class/dmi/id/product_uuid"


def machine(folder, hostname="box", machine_id="a" * 32, uuid=None, cards=()):
    tree = SyntheticTree(folder, cores=2)
    for path, text in (("proc/sys/kernel/hostname", hostname), ("etc/machine-id", machine_id), (UUID, uuid)):
        if text is not None:
            tree.write(path, text)
    for number, (address, kind) in enumerate(cards):
        tree.write(f"sys/class/net/eth{number}/address", address)
        tree.write(f"sys/class/net/eth{number}/addr_assign_type", kind)
    return read_machine(str(tree.root))


def test_machines_of_one_image_differ_by_their_names(tmp_path):
    one, two = (machine(tmp_path / name, hostname=name) for name in ("node17", "node18"))
    assert one.id != two.id and one.hardware_key == two.hardware_key
    assert machine(tmp_path / "again", hostname="node17").id == one.id
    assert machine(tmp_path / "other", hostname="node17", machine_id="b" * 32).id != one.id
    assert machine(tmp_path / "bare", "node17", "uninitialized").id == machine(tmp_path / "barer", "node17", None).id


def test_the_id_is_the_same_for_whoever_may_read_more(tmp_path):
    user, root = machine(tmp_path / "user"), machine(tmp_path / "root", uuid="4C4C4544-0042")
    assert user.id == root.id and user.marks == {} and set(root.marks) == {"product_uuid"}
    assert machine(tmp_path / "lower", uuid="4c4c4544-0042").marks == root.marks
    assert "4C4C4544" not in str(root) and "02:00" not in str(machine(tmp_path / "card", cards=[("02:00:00:00:00:09", 0)]))


def test_addresses_that_are_drawn_anew_are_no_marks(tmp_path):
    cards = [("00:00:00:00:00:00", 0), ("da:00:45:9f:8f:b3", 1), ("02:fc:00:00:00:01", 0), ("02:42:00:00:00:01", 3)]
    assert len(machine(tmp_path, cards=cards).marks["cards"]) == 1


@pytest.mark.parametrize(
    ("names", "files", "warned"),
    [
        (["a", "box"], {}, False),
        (["a", "localhost"], {}, True),
        (["a", "ubuntu.local"], {}, True),
        (["a", "ubuntu-node7"], {}, False),
        ([None, "box"], {}, True),
        ([None, "box"], {UUID: "1-2"}, False),
        (["a", "localhost"], {"sys/class/net/e/address": "02:00:00:00:00:01", "sys/class/net/e/addr_assign_type": "0"}, False),
    ],
)
def test_an_id_that_may_not_be_unique_says_so(tmp_path, names, files, warned):
    tree = SyntheticTree(tmp_path)
    for path, text in files.items():
        tree.write(path, text)
    read = Tree(str(tmp_path))
    read.live = True
    read_marks(read, names)
    assert any("is not unique" in each and "hostnamectl" in each for each in read.warnings) == warned


@pytest.mark.parametrize(
    ("a", "b", "two"),
    [
        ({}, {}, False),
        ({"product_uuid": "u"}, {"cards": ["x"]}, False),
        ({"product_uuid": "u", "cards": ["x"]}, {"product_uuid": "u", "cards": ["y"]}, False),
        ({"product_uuid": "u"}, {"product_uuid": "v"}, True),
        ({"cards": ["x", "dock"]}, {"cards": ["x"]}, False),
        ({"cards": ["x"]}, {"cards": ["y"]}, True),
        ({"cards": "x"}, {"cards": ["y"]}, False),
        ("words", {"cards": ["y"]}, False),
    ],
)
def test_marks_of_two_machines(a, b, two):
    assert contradict({"marks": a}, {"marks": b}) == contradict({"marks": b}, {"marks": a}) == two


def side(alias, card, seed=0):
    return make_log(alias, 1, 3, 1, seed, benchmarks=(latency,), machine={"id": "image", "marks": {"cards": [card]}})


def test_logs_of_two_machines_of_one_id_are_two_machines(tmp_path):
    for name, log in (("a", side("a", "x")), ("b", side("b", "y")), ("c", side("a", "x", seed=1))):
        with Journal(tmp_path / f"{name}.jsonl") as journal:
            for record in (*log.headers, *log.benchmarks, *log.trials, *log.ends):
                journal.append(record)
    log = load(tmp_path)
    assert [header.machine["id"] for header in log.headers] == ["image", "image-2", "image"]
    assert set(samples(log)["machine_id"]) == {"image", "image-2"}
    (warning,) = log.warnings
    assert "2 machines have the id image" in warning


def test_two_sides_of_a_comparison_are_told_apart_as_well():
    (_, new), warnings = told_apart([side("a", "x").headers, side("b", "y").headers])
    assert new[0].machine["id"] == "image-2" and warnings
    assert any("2 machines have the id" in note for note in compare(side("a", "x"), side("b", "y")).notes)
    assert not any("machines have" in note for note in compare(side("a", "x"), side("a", "x", seed=1)).notes)


def test_a_twins_log_is_not_gone_on_with(tmp_path, monkeypatch):
    here = machine(tmp_path / "here", cards=[("02:00:00:00:00:01", 0)])
    twin = machine(tmp_path / "twin", cards=[("02:00:00:00:00:02", 0)])
    assert here.id == twin.id
    log = make_log("a", 1, 2, 1, benchmarks=(latency,), machine={"id": twin.id, "marks": twin.marks})
    with Journal(tmp_path / "log.jsonl") as journal:
        for record in (*log.headers, *log.benchmarks):
            journal.append(record)
    monkeypatch.setattr(visit, "read_machine", lambda alias: here)
    with pytest.raises(LogError, match="another one of that image"):
        visit.open_resume(tmp_path / "log.jsonl")


def test_every_card_that_a_machine_has_had_tells_it_apart():
    """One whose cards came and went is known by all of them: (a, b), then (b, c), which a machine with (a) alone contradicts."""

    def header(run, *cards):
        log = make_log("x", processes=1, samples=1, benchmarks=(latency,), machine={"marks": {"cards": list(cards)}})
        return msgspec.structs.replace(log.headers[0], run=run)

    (told,), warnings = told_apart([[header("1", "a", "b"), header("2", "b", "c"), header("3", "b", "c"), header("4", "a")]])
    assert [each.machine_id for each in told] == ["id-x", "id-x", "id-x", "id-x-2"] and len(warnings) == 1
