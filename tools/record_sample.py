"""Records results/sample anew: two small sessions of this machine, for tests and the notebook (`make sample`).

Small on purpose: few processes and cells, so that the files stay readable and quick to load.
"""

from __future__ import annotations

from pathlib import Path

import numabench as nb

FOLDER = Path(__file__).parent.parent / "results" / "sample"
SESSIONS = ("first", "second")


def main() -> None:
    for old in FOLDER.rglob("*.jsonl"):
        old.unlink()
    for number, name in enumerate(SESSIONS):
        run = nb.run(profile="quick", processes=8, samples=2, alias="sample", seed=number + 1, output=FOLDER.parent)
        path = Path(run.log.paths[0])
        FOLDER.mkdir(parents=True, exist_ok=True)
        path.rename(FOLDER / f"{name}.jsonl")
        print(
            f"{FOLDER / name}.jsonl: {run.end.cells['reached']} of {run.end.cells['total']} cells precise, {run.end.elapsed:.0f} s"
        )


if __name__ == "__main__":
    main()
