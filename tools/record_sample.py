"""Records results/sample anew: two visits of a minute each to this machine, for tests, the notebook and the card in the README (`make sample`).

Whenever a kernel's version changes, a test asks for it. On a machine that nobody else uses.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numabench as nb

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "results" / "sample"
SESSIONS = ("first", "second")


def main() -> None:
    runs = []
    for number, name in enumerate(SESSIONS):
        runs.append(nb.run(profile="quick", budget="60s", alias="sample", seed=number + 1, output=ROOT / "build"))
        end = runs[-1].end
        if end.status == "busy":
            raise SystemExit("other programs have the CPUs (numabench check): the sample stays as it was")
        print(f"{name}: {end.cells['reached']} of {end.cells['total']} cells precise, {end.elapsed:.0f} s")
    for old in FOLDER.rglob("*.jsonl"):
        old.unlink()
    for run, name in zip(runs, SESSIONS, strict=True):
        shutil.move(run.log.paths[0], FOLDER / f"{name}.jsonl")
    print(
        nb.load(FOLDER / f"{SESSIONS[0]}.jsonl").card().save(ROOT / "docs" / "card.png")
    )  # two visits have one degree of freedom


if __name__ == "__main__":
    main()
