"""The run log as a contract: what a change breaks and for whom, frozen versions, logs of every version, drift, migration."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import numabench as nb
from numabench.analysis.identity import refusals
from numabench.cli import command
from numabench.contract import forms, standing
from numabench.contract.changes import (
    BACKWARD,
    DEFAULT,
    FORWARD,
    GONE,
    KIND,
    LENGTH,
    NARROWER,
    REQUIRED,
    UNJUDGED,
    WORD,
    changes,
)
from numabench.contract.standing import drift, migrate
from numabench.errors import UsageError
from numabench.report.page import PHASES, render_report
from numabench.runlog.read import read_log

GOLDEN = sorted(Path(__file__).with_name("golden").glob("*.jsonl.gz"))
#: Of each version for ever: trials, rows of samples, and what the values add up to.
READ = {"1.0": (4, 264, 79532279438.49881), "2.0": (8, 296, 84288902697.47632), "3.0": (8, 132, 5312408609.685968)}
LINES = [json.loads(line) for line in gzip.decompress(GOLDEN[-1].read_bytes()).splitlines()]


def form_of(*kinds: type) -> forms.Form:
    return msgspec.json.schema(Union[kinds] if len(kinds) > 1 else kinds[0])  # noqa: UP007 (of a tuple)


def kind(tag: str = "a", **fields: Any) -> type:
    """A kind of record; a field is a type, or (type, default)."""
    given = [(name, *each) if isinstance(each, tuple) else (name, each) for name, each in fields.items()]
    return msgspec.defstruct(tag.upper(), given, tag=tag, tag_field="record", kw_only=True)


Point = msgspec.defstruct("Point", [("x", int), ("y", int, 0)])
Closed = msgspec.defstruct("Point", [("x", int), ("y", int, 0)], forbid_unknown_fields=True)
Farther = msgspec.defstruct("Point", [("x", float), ("y", int, 0)])
ALPHA = Annotated[int, msgspec.Meta(extra_json_schema={"x-phase": "alpha"})]
OVER, NOT_YET = (
    Annotated[int, msgspec.Meta(extra_json_schema={"x-phase": "deprecated", "x-removed-after": day})]
    for day in ("2020-01-01", "9998-01-01")
)


class Tree(msgspec.Struct):
    within: list[Tree] = []


EDITS = {
    "nothing": (kind(x=int), kind(x=int), set()),
    "an optional field more": (kind(x=int), kind(x=int, y=(int, 0)), set()),
    "a required field more": (kind(x=int), kind(x=int, y=int), {(BACKWARD, REQUIRED)}),
    "a required field is optional": (kind(x=int), kind(x=(int, 0)), {(FORWARD, REQUIRED)}),
    "an optional field is gone": (kind(x=int, y=(int, 0)), kind(x=int), {(BACKWARD, GONE)}),
    "a required field is gone": (kind(x=int, y=int), kind(x=int), {(BACKWARD, GONE), (FORWARD, REQUIRED)}),
    "a field of alpha is gone": (kind(x=int, y=(ALPHA, 0)), kind(x=int), set()),
    "a field of alpha of another type": (
        kind(x=int, y=(ALPHA, 0)),
        kind(x=int, y=(Annotated[str, msgspec.Meta(extra_json_schema={"x-phase": "alpha"})], "")),
        {(BACKWARD, NARROWER), (FORWARD, NARROWER), (BACKWARD, DEFAULT), (FORWARD, DEFAULT)},
    ),
    "a form that refers to itself": (kind(x=list[Tree]), kind(x=list[Tree]), {(BACKWARD, UNJUDGED), (FORWARD, UNJUDGED)}),
    "numbers of a list": (kind(x=Literal[1, 2]), kind(x=float), {(FORWARD, NARROWER)}),
    "a closed object": (kind(x=Point), kind(x=Closed), {(BACKWARD, UNJUDGED), (FORWARD, UNJUDGED)}),
    "a deprecated field is gone": (kind(x=int, y=(OVER, 0)), kind(x=int), set()),
    "a deprecated field is gone too early": (kind(x=int, y=(NOT_YET, 0)), kind(x=int), {(BACKWARD, GONE)}),
    "a wider number": (kind(x=int), kind(x=float), {(FORWARD, NARROWER)}),
    "a narrower number": (kind(x=float), kind(x=int), {(BACKWARD, NARROWER)}),
    "another type": (kind(x=int), kind(x=str), {(BACKWARD, NARROWER), (FORWARD, NARROWER)}),
    "nothing is allowed": (kind(x=int), kind(x=int | None), {(FORWARD, NARROWER)}),
    "any is allowed": (kind(x=int), kind(x=Any), {(FORWARD, NARROWER)}),
    "a word more": (kind(x=Literal["a", "b"]), kind(x=Literal["a", "b", "c"]), {(FORWARD, WORD)}),
    "a word less": (kind(x=Literal["a", "b"]), kind(x=Literal["a"]), {(BACKWARD, WORD)}),
    "any word": (kind(x=Literal["a"]), kind(x=str), {(FORWARD, NARROWER)}),
    "a longer tuple": (kind(x=tuple[int, int]), kind(x=tuple[int, int, int]), {(BACKWARD, LENGTH), (FORWARD, LENGTH)}),
    "a tuple of any length": (kind(x=tuple[int, int]), kind(x=tuple[int, ...]), {(FORWARD, LENGTH)}),
    "elements": (kind(x=list[int]), kind(x=list[float]), {(FORWARD, NARROWER)}),
    "values by name": (kind(x=dict[str, int]), kind(x=dict[str, str]), {(BACKWARD, NARROWER), (FORWARD, NARROWER)}),
    "values by name of any type": (kind(x=dict[str, int]), kind(x=dict[str, Any]), {(FORWARD, NARROWER)}),
    "a part of it": (kind(x=Point), kind(x=Farther), {(FORWARD, NARROWER)}),
    "a part for any names": (kind(x=dict[str, Any]), kind(x=Point), {(BACKWARD, NARROWER), (BACKWARD, REQUIRED)}),
    "another default": (kind(x=(int, 1)), kind(x=(int, 2)), {(BACKWARD, DEFAULT), (FORWARD, DEFAULT)}),
    "a kind of record more": ((kind(x=int), kind("b")), (kind(x=int), kind("b"), kind("c")), set()),
    "a kind of record less": ((kind(x=int), kind("b"), kind("c")), (kind(x=int), kind("b")), {(BACKWARD, KIND)}),
    "a limit": (
        kind(x=int),
        kind(x=Annotated[int, msgspec.Meta(ge=0)]),
        {(BACKWARD, UNJUDGED), (FORWARD, UNJUDGED)},
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_an_edit_breaks_and_for_whom_with_a_proof_of_each(name):
    *sides, expected = EDITS[name]
    old, new = (form_of(*side) if isinstance(side, tuple) else form_of(side) for side in sides)
    found = changes(old, new)
    assert {(change.direction, change.rule) for change in found} == expected
    for change in found:
        if change.rule == UNJUDGED:
            assert change.witness is None
            continue
        writes, reads = (forms.decoder(each) for each in ((old, new) if change.direction == BACKWARD else (new, old)))
        assert writes(change.witness) == "" and reads(change.witness) == change.refusal
        assert bool(change.refusal) == (change.rule not in (DEFAULT, GONE))


def places(form: Any, found: list | None = None) -> list[dict]:
    """Every form within a form that describes an object with named fields."""
    found = [] if found is None else found
    for each in form.values() if isinstance(form, dict) else form if isinstance(form, list) else ():
        places(each, found)
    if isinstance(form, dict) and form.get("type") == "object" and form.get("properties"):
        found.append(form)
    return found


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_that_is_called_compatible_refuses_a_line_of_a_real_log(data):
    """Random edits of the present form: what a decoder of the edited form refuses was found to break."""
    old, new = forms.present(), copy.deepcopy(forms.present())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.sampled_from(places(new)))
        name = data.draw(st.sampled_from(sorted(where["properties"])))
        how = data.draw(st.sampled_from(("remove", "require", "type", "optional")))
        if name == "record":
            continue
        if how == "remove":
            where["properties"].pop(name)
            where["required"] = [each for each in where.get("required", []) if each != name]
        elif how == "require":
            where["required"] = sorted({*where.get("required", []), name})
        elif how == "optional":
            where["required"] = [each for each in where.get("required", []) if each != name]
        else:
            where["properties"][name] = {"type": data.draw(st.sampled_from(("string", "integer", "number", "boolean")))}
        if not where["properties"]:
            return  # what has no fields is any object
    broken = {change.direction for change in changes(old, new)}
    ours, theirs = forms.decoder(old), forms.decoder(new)
    assert not any(map(ours, LINES))
    if BACKWARD not in broken:
        assert not any(map(theirs, LINES))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_form_and_the_records_refuse_the_same(data):
    """A line in which one value is another: JSON Schema decides nothing else than the decoder that reads logs."""
    line = copy.deepcopy(data.draw(st.sampled_from(LINES)))
    at, depth = line, data.draw(st.integers(0, 5))
    for _ in range(depth):
        inner = [each for each in (at.values() if isinstance(at, dict) else at) if isinstance(each, (dict, list)) and each]
        if not inner:
            break
        at = data.draw(st.sampled_from(inner))
    key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    at[key] = data.draw(st.sampled_from((None, True, 1, 0.5, "word", [], {}, [1], {"a": 1})))
    assert bool(forms.decoder(forms.present())(line)) == bool(forms.reader(line))


# -- the registry -------------------------------------------------------------------------------------------------------


def test_this_numabench_is_as_frozen():
    found = standing.standing()
    assert found.problem == "", f"numabench contract check says: {found.problem}. {found.mend}"


def test_a_log_of_every_version_is_read():
    assert {path.name.removeprefix("run-log-").removesuffix(".jsonl.gz") for path in GOLDEN} == set(READ)
    assert {each.version for each in forms.registry()} <= set(READ), "a version that is frozen needs a golden log"
    for path, known in zip(GOLDEN, READ.values(), strict=True):
        run = nb.load(path)
        values = run.samples()["value"]
        assert (len(run.log.trials), len(values), run.log.warnings) == (*known[:2], ())
        assert values.sum() == pytest.approx(known[2])


def edited(how) -> forms.Form:
    form = forms.present()
    how(form["$defs"]["Sample"])
    return form


def without_case(sample: forms.Form) -> None:
    sample["properties"].pop("case")
    sample["required"].remove("case")


def test_what_is_to_be_done_is_said():
    more = standing.standing(edited(lambda sample: sample["properties"].update(light={"type": "string", "default": ""})))
    assert (more.broken, "breaks nothing" in more.problem, "MINOR" in more.mend) == ({}, True, True)
    less = standing.standing(edited(without_case))
    assert set(less.broken) == {"3.0"} and "SCHEMA" in less.mend
    next_one = standing.standing(edited(lambda sample: None), "3.1")
    assert (next_one.problem, next_one.mend) == ("3.1 is not frozen", standing.ADD)
    words = standing.standing(edited(lambda sample: sample.update(description="said otherwise")))
    assert words.problem == ""


def test_a_frozen_file_that_was_edited_is_found(monkeypatch):
    monkeypatch.setattr(standing, "content", lambda version: forms.content(version) + b" ")
    assert "is not what was frozen" in standing.standing().problem


def test_a_version_is_frozen_once_and_only_where_nothing_breaks(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="frozen already"):
        standing.freeze("again", tmp_path)
    monkeypatch.setattr(standing, "PRESENT", "3.1")
    monkeypatch.setattr(standing.standing, "__defaults__", (None, "3.1"))
    version = standing.freeze("more", tmp_path)
    listed = json.loads((tmp_path / "registry.json").read_text())
    assert [each["version"] for each in listed] == ["3.0", "3.1"] and (tmp_path / version.file).exists()
    monkeypatch.setattr(standing, "present", lambda: edited(without_case))
    monkeypatch.setattr(standing, "reader", None)
    with pytest.raises(UsageError, match="it breaks 3.0"):
        standing.freeze("less", tmp_path)


# -- logs ---------------------------------------------------------------------------------------------------------------


def log_with(tmp_path: Path, change) -> Path:
    """The golden log with one record changed."""
    lines = copy.deepcopy(LINES)
    change(lines)
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_drift_is_named_by_line_place_and_both_forms(tmp_path):
    def wrong(lines):
        lines[0]["machine"]["topology"]["packages"][0]["cpus"] = 7
        lines[1]["axes"][0]["log"] = "yes"
        lines[-1]["status"] = "tired"

    found = drift(log_with(tmp_path, wrong))
    assert [(each.line, each.pointer, each.problem) for each in found] == [
        (1, "/machine/topology/packages/0/cpus", "Expected `str`, got `int`"),
        (2, "/axes/0/log", "Expected `bool`, got `str`"),
        (len(LINES), "/status", "Invalid enum value 'tired'"),
    ]
    assert all("3.0" in each.mend for each in found)


def test_texts_that_readers_clean_are_no_drift(tmp_path):
    assert drift(log_with(tmp_path, lambda lines: lines[0]["machine"].update(alias="a\ud800\x1b[2J"))) == []


def test_a_cut_line_and_an_unknown_version_are_no_drift_and_garbage_is(tmp_path):
    path = log_with(tmp_path, lambda lines: lines[0].update(schema=2))
    whole = path.read_text()
    path.write_text(whole[: len(whole) - 40])
    assert drift(path) == []
    path.write_text(whole.replace('"record": "end"', '"record" "end"'))
    assert [(each.line, each.problem.startswith("it is no JSON")) for each in drift(path)] == [(len(LINES), True)]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_an_old_log_in_the_present_form_says_the_same(path, tmp_path):
    before = path.read_bytes()
    new = migrate(path, tmp_path)
    assert drift(new) == [] and path.read_bytes() == before
    ours, theirs = (nb.load(each).samples() for each in (new, path))
    assert ours.equals(theirs)
    header = read_log(new)[0]
    was = path.name.removeprefix("run-log-").removesuffix(".jsonl.gz")
    assert header.schema == 3 and header.migrated.get("from") == (None if was == "3.0" else was)
    with pytest.raises(UsageError, match="there already"):
        migrate(path, tmp_path)


def test_what_a_later_version_says_is_no_drift_and_not_migrated_away(tmp_path):
    def later(lines):
        lines[0] |= {"minor": 1}
        lines.insert(1, {"record": "weather", "run": lines[0]["run"]})

    path = log_with(tmp_path, later)
    assert drift(path) == []
    with pytest.raises(UsageError, match="says more than this numabench"):
        migrate(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command(tmp_path):
    def said(*words):
        done = CliRunner().invoke(command, ["contract", *map(str, words)])
        return done.exit_code, done.output

    assert said("check")[0] == 0 and "3.0" in said("check")[1]
    assert said("check", *GOLDEN) == (0, "3 logs are as the contract says.\n")
    code, text = said("check", log_with(tmp_path, lambda lines: lines[-1].update(status="tired")))
    assert code == 1 and "/status: Invalid enum value 'tired'" in text
    assert said("migrate", GOLDEN[0], "-o", tmp_path / "new") == (0, f"{tmp_path}/new/run-log-1.0.jsonl\n")
    for words in (("add",), ("migrate", GOLDEN[0]), ("check", "-o", tmp_path)):
        with pytest.raises(UsageError):
            CliRunner().invoke(command, ["contract", *map(str, words)], catch_exceptions=False)


def test_an_alpha_is_compared_within_one_version_and_other_phases_are_said(tmp_path):
    def phase(name: str, numabench: str):
        def change(lines):
            lines[0] |= {"numabench": numabench}
            lines[1] |= {"phase": name}

        folder = tmp_path / f"{name}-{numabench}"
        folder.mkdir(exist_ok=True)
        return nb.load(log_with(folder, change)).log

    name = LINES[1]["name"]
    alpha = phase("alpha", "0.1.0")
    assert dict(refusals(alpha, phase("alpha", "0.1.0"))) == {}
    assert dict(refusals(alpha, phase("alpha", "0.2.0"))) == {name: "alpha, of numabench: 0.1.0 against 0.2.0"}
    assert dict(refusals(phase("beta", "0.1.0"), phase("beta", "0.2.0"))) == {}
    assert phase("deprecated", "0.1.0").warnings == (
        f"{name} is deprecated: its results are read, and numabench no longer measures it",
    )
    shown = {each: render_report(phase(each, "0.3.0")).count(words) for each, words in PHASES.items()}
    assert shown == dict.fromkeys(PHASES, 1)
