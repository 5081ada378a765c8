"""What holds for all tests: they measure whether or not a run goes on beside them, of the same user on the same CPUs, and whatever the load is."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from numabench.host.cache import cache_folder

os.environ["NUMABENCH_RUN_ANYWAY"] = "1"  # tests hold on a loaded machine
settings.register_profile("loaded", deadline=None)
settings.load_profile("loaded")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # they start numabench a few hundred times: it is compiled once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Simulated machines after a tenth of the others: by then what they need is being fetched (make test), for which they wait, and what is left takes as long as they do."""
    guests = [item for item in items if item.path.stem == "test_testbed_guest"]
    others = [item for item in items if item.path.stem != "test_testbed_guest"]
    paths = [item.path for item in others]
    tenth = paths.index(paths[len(paths) // 10]) if paths else 0  # where a file begins
    items[:] = [*others[:tenth], *guests, *others[tenth:]]


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
