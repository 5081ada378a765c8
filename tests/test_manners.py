"""The command among other commands: completion, manual, variables, the project's file, packed logs and pipes."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from test_cli import complaint, numabench

from numabench import __version__, cli
from numabench.cli.man import page
from numabench.cli.outputs import schemas
from numabench.errors import LogError, UsageError
from numabench.runlog import read
from numabench.units import parse_seconds

SAMPLE = Path(__file__).parent.parent / "results" / "sample" / "first.jsonl"
SCHEMA = SAMPLE.parent.parent.parent / "docs" / "output.schema.json"


def completions(words: list[str], cwd: Path | None = None) -> list[str]:
    """What bash is answered for the last of `words`, as it cuts them."""
    cut = [part for word in words for part in re.split("(=)", word) if part or word == ""]
    place = len(cut) - 1
    environment = {"_NUMABENCH_COMPLETE": "bash_complete", "COMP_WORDS": "\n".join(cut), "COMP_CWORD": str(place)}
    done = subprocess.run(
        [sys.executable, "-m", "numabench"], env=os.environ | environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["numabench", "compl"], {"completion"}),
        (["numabench", "run", "memory_l"], {"memory_latency"}),
        (["numabench", "run", "co"], {"core_to_core", "contention", "cores"}),
        (
            ["numabench", "run", "memory_latency", "memory_"],
            {"memory_bandwidth", "memory_policy", "memory_ordering", "memory_parallelism"},
        ),
        (["numabench", "list", "fen"], {"fences"}),
        (["numabench", "run", "--profile", ""], {"accept", "quick", "standard", "full"}),
        (["numabench", "run", "padded_counters", "--set", "s"], {"stride=", "spacing="}),
        (["numabench", "run", "padded_counters", "--set", "operation="], {"store", "increment", "atomic_add"}),
        (["numabench", "run", "padded_counters", "--set", "operation=inc"], {"increment"}),
        (["numabench", "run", "padded_counters", "--set", "operation=store,inc"], {"store,increment"}),
        (["numabench", "run", "padded_counters", "--set=operation=inc"], {"increment"}),
        (["numabench", "completion", ""], {"bash", "zsh", "fish"}),
        (["numabench", "help", "ma"], {"machine", "man"}),
    ],
)
def test_bash_is_told_what_can_stand_there(words, offered):
    assert set(completions(words)) == offered


def test_logs_are_completed(tmp_path):
    for name in ("20260101T000000Z.jsonl", "20260102T000000Z.jsonl.gz", "report.html"):
        (tmp_path / "results" / "mine").mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / "mine" / name).touch()
    found = completions(["numabench", "report", "res"], tmp_path)
    assert found == ["results/mine", "results/mine/20260102T000000Z.jsonl.gz", "results/mine/20260101T000000Z.jsonl"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_takes_its_script(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    script = numabench("completion", shell).stdout
    (tmp_path / "script").write_text(script)
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True)
    assert not done.returncode and not done.stderr and "_NUMABENCH_COMPLETE" in script


def test_the_manual_page_names_every_verb_and_option():
    text = page(cli.command)
    context = click.Context(cli.command, info_name="numabench")
    for verb in cli.VERBS:
        assert f".SS numabench {verb}" in text
        for parameter in cli.command.get_command(context, verb).params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert option.replace("-", "\\-") in text, f"{verb} {option}"
    assert not [line for line in text.splitlines() if line.startswith("'") or re.match(r"\.(?![A-Z]|[nf]f$|fi$)", line)]
    assert "\b" not in text


def test_help_and_version_are_verbs():
    assert numabench("help").stdout == numabench("--help").stdout
    assert numabench("help", "list").stdout == numabench("list", "--help").stdout
    assert "did you mean report" in complaint(numabench("help", "reprot", code=2))
    assert numabench("-V").stdout == numabench("--version").stdout == f"numabench {__version__}\n"
    assert numabench("version").stdout.startswith(f"numabench {__version__} (Python ")


def plan(tmp_path, *arguments, **environment):
    """The plan of a run in `tmp_path`, which says its profile and budget."""
    return subprocess.run(
        [sys.executable, "-m", "numabench", "run", "fences", "--plan-only", *arguments],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"COLUMNS": "200"} | environment, check=False,
    )  # fmt: skip


def test_an_option_counts_before_a_variable_and_a_variable_before_the_file(tmp_path):
    (tmp_path / "numabench.toml").write_text('[run]\nprofile = "fule"\n')
    assert "did you mean full" in plan(tmp_path).stderr
    assert "did you mean quick" in plan(tmp_path, NUMABENCH_RUN_PROFILE="quik").stderr
    assert plan(tmp_path, "--profile", "quick", NUMABENCH_RUN_PROFILE="quik").returncode == 0
    (tmp_path / "numabench.toml").write_text('[run]\nset = "ordr=1"\n')
    assert "has a parameter 'ordr'" in plan(tmp_path).stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[runn]\n", "did you mean run"),
        ('[run]\nprofle = "quick"\n', "did you mean profile"),
        ("run = 1\n", "has to be a table"),
        ("[run]\nquiet = 1\n", "write true or false"),
        ("[run]\nseed = [1]\n", "write one value"),
        ('[run]\nprocesses = "many"\n', "run processes: 'many' is not a valid integer"),
        ('[compare]\nsame = "wide"\n', "compare same: 'wide' is not a share"),
        ("[run\n", "it is no TOML"),
    ],
)
def test_what_no_verb_has_is_refused_in_the_projects_file(tmp_path, text, said):
    (tmp_path / "numabench.toml").write_text(text)
    done = plan(tmp_path)
    assert done.returncode == 2 and said in done.stderr and "numabench.toml in this folder" in done.stderr


def test_a_variable_that_belongs_to_no_option_is_refused():
    line = complaint(numabench("run", "--plan-only", code=2, NUMABENCH_RUN_PROFLE="quick"))
    assert "did you mean NUMABENCH_RUN_PROFILE" in line


def test_a_duration_is_asked_for_its_unit():
    assert "5s, 5m or 5ms" in complaint(numabench("run", "--budget", "5", code=2))
    with pytest.raises(UsageError):
        parse_seconds("0.5")


def test_packed_logs_and_standard_input_are_read_like_files(tmp_path):
    content = SAMPLE.read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content[:50_000]) + gzip.compress(content[50_000:]))
    plain, packed = read.load(SAMPLE), read.load(tmp_path)
    assert (packed.headers, packed.trials) == (plain.headers, plain.trials) and packed.paths == (str(tmp_path / "a.jsonl.gz"),)
    runner = CliRunner()
    for given in (content, gzip.compress(content)):
        done = runner.invoke(cli.command, ["export", "-", "-b", "fences"], input=given)
        assert done.exit_code == 0 and done.output.startswith("run,machine,benchmark")
    assert "no run log header" in str(runner.invoke(cli.command, ["export", "-"], input=b"").exception)


def test_a_packed_log_that_was_cut_is_a_shorter_log(tmp_path):
    whole = gzip.compress(SAMPLE.read_bytes())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) * 3 // 4])
    found = read.load(tmp_path)
    assert 0 < len(found.trials) < len(read.load(SAMPLE).trials) and found.warnings


def test_what_is_packed_cannot_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "LEAST_UNPACKED", 1 << 20)
    bomb = gzip.compress(b"\0" * (64 << 20))
    for content in (bomb, gzip.compress(b"x" * 2000) * 30_000):
        (tmp_path / "a.jsonl.gz").write_bytes(content)
        if content is bomb:
            import tracemalloc

            tracemalloc.start()
            with pytest.raises(LogError, match="unpacks to over"):
                read.load(tmp_path)
            assert tracemalloc.get_traced_memory()[1] < 48 << 20
            tracemalloc.stop()
        else:
            with pytest.raises(LogError):
                read.load(tmp_path)


@pytest.mark.parametrize("damage", [10, 5000, -6])
def test_a_damaged_packed_log_is_an_error(tmp_path, damage):
    content = bytearray(gzip.compress(SAMPLE.read_bytes()))
    content[damage] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(LogError):
        read.load(tmp_path)


def test_a_packed_log_is_not_gone_on_with(tmp_path):
    shutil.copy(SAMPLE, tmp_path / "a.jsonl.gz")
    assert "gunzip" in complaint(numabench("run", "--resume", str(tmp_path / "a.jsonl.gz"), code=2))


MATRIX = "0,20,30\n20,0,25\n30,25,0\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["version"],
        ["list"],
        ["list", "fences"],
        ["machine"],
        ["advise", str(SAMPLE)],
        ["export", str(SAMPLE), "-b", "fences"],
        ["report", str(SAMPLE), "-o", "page.html"],
        ["import", "matrix.csv"],
        ["contract", "check"],
        ["claims", "go"],
        ["compare", str(SAMPLE), str(SAMPLE), "--prices", "BASE=1,NEW=2", "--fail-if", "latency > 5%"],
    ],
)
def test_json_is_as_its_schema_says(tmp_path, monkeypatch, arguments):
    import jsonschema

    monkeypatch.chdir(tmp_path)
    Path("matrix.csv").write_text(MATRIX)
    done = CliRunner().invoke(cli.command, [*arguments, "--format", "json"], catch_exceptions=False)
    assert done.exit_code == 0
    schema = json.loads(SCHEMA.read_text())
    verb = arguments[0]
    jsonschema.validate({verb: json.loads(done.stdout)}, schema | {"additionalProperties": False})


def test_the_schema_of_json_is_the_codes():
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schemas())), (
        "python -m numabench.cli.outputs > docs/output.schema.json"
    )


@pytest.mark.parametrize("starts", [True, False])
def test_a_page_is_opened_where_that_was_asked(tmp_path, monkeypatch, starts):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or starts)
    page_file = tmp_path / "a page.html"
    small = str(Path(__file__).with_name("golden") / "run-log-3.0.jsonl.gz")
    command = ["report", small, "-o", str(page_file), "--format", "json"]
    assert CliRunner().invoke(cli.command, command).exit_code == 0 and not opened
    done = CliRunner().invoke(cli.command, [*command, "--open"])
    assert opened == [page_file.as_uri()] and ("no browser" in done.stderr) == (not starts)
