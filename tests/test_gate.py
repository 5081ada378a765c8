"""A visit against the history of its machine: which visits count, what their own scatter says, and test results for a CI system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from pages import write_log
from scipy import optimize, special, stats
from synthetic import latency, make_log, matrix, merged
from test_documents import fenced

import numabench as nb
from numabench.analysis.compare import LEAST_SESSION_SD, LEAST_VISITS, as_told, compare
from numabench.analysis.discoveries import discoveries
from numabench.analysis.past import before, load_history
from numabench.cli.compare import command
from numabench.errors import IncomparableError, UsageError
from numabench.report import brief
from numabench.runlog.read import RunLog
from numabench.runlog.twins import told_apart
from numabench.runlog.visits import BUSY, visits


def history(alias: str = "toy", count: int = 8, seed: int = 1, factor: float = 1.0, between: float = 0.01) -> RunLog:
    options = {"sd": (between, 0.004, 0.003), "benchmarks": (latency, matrix)}
    return make_log(alias, count, 9, 1, seed, scale=lambda name, p: factor if name == "toy_latency" else 1.0, **options)


def dated(log: RunLog, day: int) -> RunLog:
    headers = tuple(msgspec.structs.replace(h, started=f"2026-02-{day:02}T00:00:00Z") for h in log.headers)
    return msgspec.structs.replace(log, headers=headers)


def later(factor: float = 1.0, seed: int = 2, between: float = 0.01) -> RunLog:
    return dated(history("toy", 1, seed, factor, between), 1)


# -- how far one visit may be off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 9])
def test_one_visit_against_many_is_students_t_on_visits(count):
    base, new = history(count=count, between=0.02), later(between=0.02)
    cells = compare(base, new).cells
    for at in (0, 3, len(cells) - 1):
        means = [
            [
                np.mean(
                    [
                        np.log(s.metrics["latency"])
                        for t in log.trials
                        if t.run == h.run
                        for s in t.samples
                        if s.case == cells.case[at]
                    ]
                )
                for h in log.headers
            ]
            for log in (base, new)
        ]  # nine processes are trimmed by one at either end
        half = stats.t.ppf(0.975, count - 1) * np.std(means[0], ddof=1) * np.sqrt(1 + 1 / count)
        shown = (np.log(cells.high[at]) - np.log(cells.low[at])) / 2
        assert shown == pytest.approx(half, rel=0.08)
    assert not any("one_session" in reasons for reasons in cells["reasons"])


def test_a_machine_against_its_own_history():
    """Raw p below 5 % in 3-8 % of cells, hardly a claim; a step of 6 % in a benchmark is found. Without a history the drift of one visit says too little here."""
    p, claims, found, blind = [], 0, 0, 0
    for seed in range(6):
        base, new = history(seed=10 * seed), later(seed=10 * seed + 1)
        result = compare(base, new)
        p += list(result.cells["p"])
        claims += result.summary["faster"] + result.summary["slower"]
        found += (compare(base, later(1.06, 10 * seed + 1)).rows["verdict"] == "worse").any()
        blind += (compare(history(count=1, seed=10 * seed), new).cells["p"] < 0.05).mean() / 6
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.08 and claims <= 0.01 * len(p)
    assert found == 6 and blind > 0.2


def side(means: list[float], variances: list[float], sessions: int, processes: int = 8) -> pd.DataFrame:
    cells = [{"benchmark": "b", "case": str(n), "metric": "m", "match": ""} for n in range(len(means))]
    return pd.DataFrame(cells).assign(
        mean=means,
        variance=variances,
        variance_kept=variances,
        df=sessions - 1.0,
        df_kept=sessions - 1.0,
        sessions=sessions,
        processes=processes * sessions,
    )


def test_what_the_visits_tell():
    base, new = as_told([side([0.0, 0.0, 0.0], [0.0001, 0.0, 0.0001], 5), side([0.1, 0.1, 0.1], [0.000001, 0.0, 0.01], 1)])
    assert list(base["told"]) == [True] * 3
    assert new["variance"].tolist() == pytest.approx([0.0005, LEAST_SESSION_SD**2, 0.01])  # worse by itself: it stays so
    total, each = base["variance"] + new["variance"], base["variance"] ** 2 / base["df"] + new["variance"] ** 2 / new["df"]
    assert list(total**2 / each) == pytest.approx([4.0] * 3)  # one estimate, and no more degrees of freedom than it has


@pytest.mark.parametrize(
    ("sessions", "told"), [((4, 1), False), ((5, 1), True), ((3, 3), True), ((2, 2), False), ((5, 5), False)]
)
def test_few_visits_tell_nothing_and_many_on_both_sides_speak_for_themselves(sessions, told):
    sides = [side([0.0], [0.0001], count) for count in sessions]
    found = as_told(sides)
    assert [list(one["told"]) for one in found] == [[told]] * 2 and LEAST_VISITS == 5
    assert told or all(one["variance"].equals(own["variance"]) for one, own in zip(found, sides, strict=True))


@pytest.mark.parametrize(("processes", "told"), [(8, True), (5, True), (4, False), (1, False), (20, False)])
def test_visits_of_many_processes_tell_nothing_of_one_of_few(processes, told):
    """One of a single process was called slower by the scatter of visits of twenty."""
    found = as_told([side([0.0], [0.0001], 9), side([0.1], [np.nan if processes == 1 else 0.0001], 1, processes)])
    assert [list(one["told"]) for one in found] == [[told]] * 2


def test_other_machines_tell_nothing_of_this_one():
    cells = compare(history("other"), later()).cells
    assert all("one_session" in reasons for reasons in cells["reasons"])


def smyth(variance: np.ndarray, df: int, prior: float) -> tuple[np.ndarray, float]:
    """Variances of cells pulled towards those of all of them, which count for at most `prior` degrees of freedom (Smyth 2004, section 6.2)."""
    logs = np.log(variance) - special.digamma(df / 2) + np.log(df / 2)
    spread = logs.var(ddof=1) - special.polygamma(1, df / 2)
    among = prior
    if spread > special.polygamma(1, prior / 2):
        among = optimize.brentq(lambda d: special.polygamma(1, d / 2) - spread, 1e-3, prior)
    typical = np.exp(logs.mean() + special.digamma(among / 2) - np.log(among / 2))
    return (among * typical + df * variance) / (among + df), among + df


def moving(rng: np.random.Generator, count: int) -> np.ndarray:
    """Shape (visits, benchmarks, cells), in logs."""

    def tailed(*shape: int) -> np.ndarray:
        return rng.standard_t(5, shape) / np.sqrt(5 / 3)

    own = 0.004 * np.exp(0.7 * rng.standard_normal((10, 20)))
    return 0.006 * tailed(count, 1, 1) + 0.004 * tailed(count, 10, 1) + own * tailed(count, 10, 20)


def test_pooled_over_cells_visits_would_claim_more_than_they_know():
    """200 cells of ten benchmarks that move together from visit to visit, with heavy tails; five visits, then one: nothing has changed (METHODOLOGY)."""
    rng = np.random.default_rng(1)
    found = {"own": [], "pooled": []}
    for _ in range(400):
        visited = moving(rng, 6)
        off, variance = np.abs(visited[5] - visited[:5].mean(axis=0)), visited[:5].var(axis=0, ddof=1)
        for rule, (known, df) in {
            "own": (variance, 4),
            "pooled": tuple(map(np.array, zip(*(smyth(cells, 4, 6.0) for cells in variance), strict=True))),
        }.items():
            df = np.broadcast_to(np.reshape(df, (-1, 1)), off.shape)
            error = np.sqrt(known * 1.2)
            claims = discoveries(2 * special.stdtr(df, -off / error).ravel()) <= 0.05
            found[rule].append((np.median(special.stdtrit(df, 0.975) * error), claims.any()))
    (width, false), (pooled_width, pooled_false) = (np.mean(found[rule], axis=0) for rule in ("own", "pooled"))
    assert (width, pooled_width) == pytest.approx((0.0237, 0.0202), abs=0.0005)
    assert (false, pooled_false) == pytest.approx((0.06, 0.21), abs=0.02)


@pytest.mark.parametrize("count", [5, 8, 20])
def test_a_gate_of_rows_is_hardly_ever_red_for_nothing(count):
    """The same cells, and twelve rows: six of a cell each, six means of twenty. Of all cells one in fifteen gates of twenty visits would call one slower."""
    rng = np.random.default_rng(2)
    red, red_cells = 0, 0
    for _ in range(500):
        visited = moving(rng, count + 1)
        off, error = visited[count] - visited[:count].mean(axis=0), np.sqrt(visited[:count].var(axis=0, ddof=1) * (1 + 1 / count))
        rows = np.r_[off[:6, 0], off[4:].mean(axis=1)], np.r_[error[:6, 0], error[4:].mean(axis=1)]
        p = [2 * special.stdtr(count - 1, -np.abs(shift) / spread).ravel() for shift, spread in (rows, (off, error))]
        claims = discoveries(np.concatenate(p)) <= 0.05
        red += (claims[:12] & (rows[0] >= np.log(1.03))).any()
        red_cells += (claims[12:] & (off.ravel() > 0)).any()
    assert red <= 0.02 * 500 and (count < 20 or red_cells >= 0.05 * 500)


# -- which visits count -------------------------------------------------------------------------------------------------


def runs(log: RunLog) -> list[str]:
    return [visit.run for visit in visits(log)]


def test_the_last_visits_before_it_to_its_machine():
    new = dated(history(count=1, seed=3), 5)
    after = dated(history(count=1, seed=4), 9)
    every = merged(history(count=6), history("other", 3), new, after)
    assert runs(before(every, new, 4)) == ["toy-1-2", "toy-1-3", "toy-1-4", "toy-1-5"]
    busy = msgspec.structs.replace(
        every, ends=tuple(msgspec.structs.replace(e, status=BUSY) if e.run == "toy-1-4" else e for e in every.ends)
    )
    assert runs(before(busy, new, 2)) == ["toy-1-3", "toy-1-5"]
    found = before(every, new, 2)
    assert {trial.run for trial in found.trials} == {record.run for record in found.benchmarks} == {"toy-1-4", "toy-1-5"}


@pytest.mark.parametrize(
    ("every", "why"),
    [
        (lambda new: history("other", 2), "no visit to this machine (to other)"),
        (lambda new: new, "every visit to this machine in the history is in NEW as well"),
        (lambda new: dated(history(count=1, seed=9), 20), "all 1 visit to this machine in the history are dated after this one"),
    ],
)
def test_without_a_visit_before_it_nothing_can_be_compared(every, why):
    new = later()
    with pytest.raises(IncomparableError) as error:
        before(every(new), new, 5)
    assert why in str(error.value) and error.value.exit_code == 4


def method(log: RunLog, order: str) -> RunLog:
    """As if its benchmark of latency had been measured in another way."""
    benchmarks = tuple(
        msgspec.structs.replace(b, method={"order": order}) if b.name == "toy_latency" else b for b in log.benchmarks
    )
    return msgspec.structs.replace(log, benchmarks=benchmarks)


def test_visits_by_another_method_do_not_count_for_that_benchmark():
    """Mixed with those by the same method they made the whole benchmark incomparable, and a regression passed."""
    old, same, new = history(count=6), history(count=6, seed=3), later(1.2)
    same = msgspec.structs.replace(
        same, headers=tuple(msgspec.structs.replace(h, started=h.started.replace("-01-", "-01-1")) for h in same.headers)
    )
    every = merged(method(old, "old"), method(same, "new"))
    found = before(every, method(new, "new"), 20)
    assert len(visits(found)) == 12 and {b.run for b in found.benchmarks if b.name == "toy_latency"} == {
        b.run for b in same.benchmarks
    }
    assert compare(found, method(new, "new"), least=0.03).exit_code == 1
    alone = {"benchmarks": (latency,), "sd": (0.01, 0.004, 0.003)}
    base, new = method(make_log("toy", 6, 9, 1, 1, **alone), "old"), method(dated(make_log("toy", 1, 9, 1, 2, **alone), 1), "new")
    nothing = compare(before(base, new, 4), new)
    assert nothing.exit_code == 4 and nothing.refused and len(nothing.base_machines[0]["runs"]) == 4


def test_machines_of_one_image_keep_their_own_history():
    """Told apart twice, the third of them was compared with the second."""

    def marked(log: RunLog, uuid: str) -> RunLog:
        return msgspec.structs.replace(
            log,
            headers=tuple(msgspec.structs.replace(h, machine=h.machine | {"marks": {"product_uuid": uuid}}) for h in log.headers),
        )

    every = [marked(history(count=4, seed=seed), uuid) for seed, uuid in ((1, "a"), (2, "b"), (3, "c"))]
    (headers,), _ = told_apart([merged(*every).headers])
    told = msgspec.structs.replace(merged(*every), headers=headers)
    for seed, uuid in ((1, "a"), (2, "b"), (3, "c")):
        found = before(told, marked(later(seed=9), uuid), 20)
        assert {run.split("-")[1] for run in runs(found)} == {str(seed)}
    with pytest.raises(IncomparableError):
        before(told, marked(later(seed=9), "d"), 20)


def test_a_visit_is_to_one_machine():
    with pytest.raises(UsageError, match="NEW has 2"):
        before(history(), merged(later(), dated(history("other", 1), 2)), 5)


def test_small_changes_fail_no_gate():
    """However sure they are."""
    base, new = history(between=0.0005), later(1.015, between=0.0005)
    assert compare(base, new, same=0.005).exit_code == 1
    found = compare(base, new, same=0.005, least=0.03)
    assert (
        found.exit_code == 0
        and found.summary["slower"] > 0
        and brief.exit_reason(found, 0) == "exit code 0: no row is worse by 3.0 % or more"
    )


def test_a_history_with_a_broken_log_is_read(files):
    (Path(files[0]) / "broken.jsonl").write_text("nothing\n")
    assert invoke(*files, "--last", "20").exit_code == 1
    (log,) = [load_history(files[0])]
    assert any("broken.jsonl" in warning for warning in log.warnings)


# -- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """A folder with the visits to two machines, and a slower visit, which lies in it as well."""
    for alias in ("toy", "other"):
        write_log(history(alias), tmp_path / "runs" / f"{alias}.jsonl")
    write_log(later(1.1), tmp_path / "runs" / "new.jsonl")
    return str(tmp_path / "runs"), str(tmp_path / "runs" / "new.jsonl")


def invoke(*arguments: str):
    return CliRunner().invoke(command, arguments)


def test_the_gate_says_what_it_can_see(files):
    done = invoke(*files, "--last", "20")
    assert done.exit_code == 1 and "8 visits" in done.output and "1 visit," in done.output
    assert "The smallest change that would likely be seen: " in done.output and len(done.output.splitlines()) <= 23
    found = msgspec.json.decode(invoke(*files, "--last", "20", "--format", "json").output)
    seen = found["smallest_changes"]
    assert 0 < seen["least"] <= seen["median"] <= seen["most"] and len(found["base"][0]["sessions"]) == 8
    assert "smallest change" in invoke(*files, "--last", "3", "--format", "markdown").output


def test_python_has_the_gate(files):
    assert nb.compare(*files, last=8).summary["slower"] > 0
    with pytest.raises(IncomparableError):
        nb.compare(files[1], files[1], last=8)


def test_an_empty_history_is_none_that_can_be_compared(files, tmp_path):
    (tmp_path / "empty").mkdir()
    done = invoke(str(tmp_path / "empty"), files[1], "--last", "5")
    assert isinstance(done.exception, IncomparableError) and "yet" in str(done.exception)


def junit(*arguments: str) -> tuple[int, ElementTree.Element]:
    done = invoke(*arguments, "--format", "junit")
    return done.exit_code, ElementTree.fromstring(done.output.encode())


@pytest.mark.parametrize(
    ("more", "code", "kinds"),
    [
        ((), 1, {"failure"}),
        (("--fail-if", "latency > 30%"), 0, set()),
        (("--fail-if", "latency > 2%"), 1, {"failure"}),
        (("--only", "toy_nodes"), 0, set()),
    ],
)
def test_test_results_fail_as_the_exit_code_does(files, more, code, kinds):
    got, suite = junit(*files, "--last", "20", *more)
    cases = suite.findall("testcase")
    assert got == code and {child.tag for case in cases for child in case} - {"skipped"} == kinds
    assert int(suite.get("tests")) == len(cases) and int(suite.get("failures")) == len(suite.findall("testcase/failure"))
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    for failure in suite.iter("failure"):
        assert "slower" in failure.get("message") and "95 %" in failure.text


def test_what_is_not_precise_or_cannot_be_compared_is_an_error_of_the_suite(tmp_path):
    log = later()
    path = str(write_log(log, tmp_path / "one.jsonl"))
    got, suite = junit(path, path, "--same", "0.1%", "--require-precision")
    assert got == 5 and (suite.get("errors"), suite.get("failures")) == ("1", "0") and suite.findall("testcase/skipped")
    other = tuple(msgspec.structs.replace(b, method={"order": "another"}) for b in log.benchmarks)
    far = str(write_log(msgspec.structs.replace(log, benchmarks=other), tmp_path / "far.jsonl"))
    got, suite = junit(path, far)
    assert got == 4 and suite.get("errors") == "1" and "nothing could be compared" in suite.find("testcase/error").get("message")


# -- the recipes of docs/tutorials/ci.md -----------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "tutorials" / "ci.md"
GITHUB, GITLAB = map(yaml.safe_load, fenced(PAGE, "yaml"))
#: `numabench run` brings the next recorded visit, and nothing is installed; all else is as it is typed.
SHIM = f"""#!/bin/sh
if [ "$1" = run ]; then mkdir -p visit/toy; cp "$NEXT" visit/toy/; else exec {sys.executable} -m numabench "$@"; fi
"""


def github(branch: str) -> list[str]:
    """The shell lines of the steps that run on this branch, each in a shell of its own."""
    steps = GITHUB["jobs"]["gate"]["steps"]
    assert steps[-1]["if"] == "github.ref == 'refs/heads/main'" and not any("if" in step for step in steps[:-1])
    return [step["run"] for step in steps if "if" not in step or branch == "main"]


def gitlab(branch: str) -> list[str]:
    return ["\n".join(GITLAB["memory"]["script"])]


@pytest.mark.parametrize("recipe", [github, gitlab])
def test_a_pipeline_passes_fails_and_keeps_what_passed(tmp_path, recipe):
    (tmp_path / "bin").mkdir()
    for name, text in (("numabench", SHIM), ("python3", "#!/bin/sh\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    own = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HISTORY": str(tmp_path / "history"), "CI_DEFAULT_BRANCH": "main"}

    def pipeline(number: int, log: RunLog, branch: str = "main") -> tuple[int, str]:
        folder = tmp_path / "workspace"  # which a runner of one's own keeps
        folder.mkdir(exist_ok=True)
        for left in ("summary.md", "gate.xml"):
            (folder / left).unlink(missing_ok=True)
        more = {"NEXT": str(write_log(log, tmp_path / f"visit{number}.jsonl")), "CI_COMMIT_BRANCH": branch}
        for lines in recipe(branch):
            env = os.environ | own | more | {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
            done = subprocess.run(["bash", "-e", "-c", lines], cwd=folder, env=env, capture_output=True, text=True)
            if done.returncode:
                break
        told = [file.read_text() for file in (folder / "summary.md", folder / "gate.xml") if file.exists()]
        return done.returncode, "".join(told)

    def kept() -> int:
        return len([*(tmp_path / "history").rglob("*.jsonl")])

    assert pipeline(0, history(count=5)) == (0, "") and kept() == 1  # the first visits: nothing to compare with
    code, told = pipeline(1, later())
    assert code == 0 and "smallest change that would likely be seen" in told and kept() == 2
    code, told = pipeline(2, dated(later(1.1, seed=5), 2))
    assert code == 1 and "slower" in told and kept() == 2
    code, told = pipeline(3, dated(later(seed=6), 3), "topic")
    assert code == 0 and kept() == 2
