"""The recorded sample is of today's kernels, and notebooks run on it from top to bottom."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import numabench as nb
from numabench import kernel

ROOT = Path(__file__).parent.parent


def test_the_sample_is_of_todays_kernels():
    """The README's card, the notebook and many tests are made of it."""
    for record in nb.load(ROOT / "results" / "sample").log.benchmarks:
        now = kernel.Kernel(kernel.build(record.kernel.name).target).version
        assert record.kernel.version == now, (
            f"{record.name} is of version {record.kernel.version}, the kernel of {now}: make sample"
        )
        assert record.topic, "logs have no card: make sample"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert any("image/png" in o.get("data", {}) for o in outputs)
