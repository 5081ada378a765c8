"""`make sanitize` turns red: kernels with a fault of each kind, under the sanitizer that is there for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sanitize import KERNELS, MEMORY, NATIVE, SIZES, THREAD, Parameter, compilers, look, runs_of
from test_kernels import SOURCES

pytestmark = pytest.mark.skipif(not compilers(), reason="neither gcc nor clang is here")


def broken(tmp_path: Path, file: str, right: str, wrong: str) -> Path:
    folder = shutil.copytree(KERNELS, tmp_path / "kernels")
    text = (folder / file).read_text()
    assert right in text
    (folder / file).write_text(text.replace(right, wrong))
    return folder


@pytest.mark.parametrize(
    ("sanitizer", "kernel", "right", "wrong", "says"),
    [
        (
            MEMORY,
            "publication",
            "memset(c->buffer, 0, c->buffer_bytes);",
            "memset(c->buffer, 0, c->buffer_bytes + 1);",
            "use-after-poison",
        ),
        (NATIVE, "card_marking", "memset(own, 0, OBJECT);", "memset(own, 0, OBJECT + (1 << 20));", "AddressSanitizer"),
        (MEMORY, "padded_counters", "if ((c->parameter[OFFSET] | c->parameter[STRIDE]) % 8 || ", "if (", "misaligned address"),
        (THREAD, "card_marking", "t->index * PAGE", "0 * PAGE", "data race"),
    ],
)
def test_a_fault_is_found(tmp_path, sanitizer, kernel, right, wrong, says):
    found = look(kernel, compilers()[0], sanitizer, broken(tmp_path, f"{kernel}.c", right, wrong))
    assert any(says in finding for finding in found.findings), found


def test_a_kernel_that_does_not_compile_is_a_finding(tmp_path):
    folder = broken(tmp_path, "fences.c", "int nb_run(", "int nb_run(,")
    (finding,) = look("fences", compilers()[0], MEMORY, folder).findings
    assert "does not compile" in finding


def test_every_value_has_its_run():
    parameters = [
        Parameter("operation", 0, 0, 2, 3),
        Parameter("spacing", 0, 0, 100_000, 0),
        Parameter("seed", 1, 0, 2**63 - 1, 0),
    ]
    runs = runs_of("x", parameters)
    assert {run.values[0] for run in runs} == {0, 1, 2} and {run.values[1] for run in runs} == {0, 1, 999, 1000}
    assert {0, 1, 2**63 - 2, 2**63 - 1} == {run.values[2] for run in runs}
    assert {run.size for run in runs} == set(SIZES) and {run.threads for run in runs} == {1, 2, 3}
    assert runs == runs_of("x", parameters)


@pytest.mark.parametrize("name", SOURCES)
def test_kernels_are_clean_as_they_are_by_default(name):
    """A few runs of each, so that not only `make sanitize` sees them."""
    found = look(name, compilers()[0], MEMORY, most=0)
    assert found.findings == []
