"""What holds for all tests: they measure whether or not a run goes on beside them, of the same user on the same CPUs, and whatever the load is."""

from __future__ import annotations

import os

import pytest

from numabench.host.cache import cache_folder

os.environ["NUMABENCH_RUN_ANYWAY"] = "1"  # tests hold on a loaded machine


@pytest.fixture(scope="session", autouse=True)
def cache_of_their_own(tmp_path_factory):
    """Claims on CPUs stand in the cache; the kernels in it are those of everyday."""
    kernels, folder = cache_folder("kernels"), tmp_path_factory.mktemp("cache")
    (folder / "numabench").mkdir(mode=0o700)
    (folder / "numabench" / "kernels").symlink_to(kernels)
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
