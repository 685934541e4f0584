"""Settings of every test: one thread for each of pytest's workers, temporary folders in memory.

With more threads the workers fight over the cores, and spin while they wait.
"""

from __future__ import annotations

import compileall
import contextlib
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from experiments.scale.server import Server

# torch reads it as it is imported, which no test module has done yet. Processes of tests inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

# A trial writes to its study some 45 times, and a disk takes 5 ms for each to be safe. Memory takes none.
MEMORY = Path("/dev/shm")
if os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free > 2 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# Tests start a hundred processes that import the package. Without its .pyc files each compiles it again.
if sys.dont_write_bytecode and "PYTEST_XDIST_WORKER" not in os.environ:
    compileall.compile_dir(Path(__file__).parents[1] / "autoprune", quiet=1)

# A full garbage collection looks at the 700,000 objects of modules, and frees none. Without this the tests
# spend a sixth of their time on that.
gc.disable()
gc.set_threshold(10_000)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


FullDisk = Callable[[int], AbstractContextManager[None]]


@pytest.fixture(scope="session", autouse=True)
def _own_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the key that signs studies out of the home of the person who runs the tests."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("configuration"))


@pytest.fixture(scope="session", autouse=True)
def _no_exports() -> None:
    """Leave out the ONNX file that follows a finetune by default, which takes seconds and few tests read."""
    from autoprune.run._results import artefact

    artefact.DEFAULT_FORMATS = ()


@pytest.fixture
def full_disk() -> FullDisk:
    """Return a context in which no file of this process can grow beyond a size: writes fail half-way."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def hang_ups() -> Iterator[None]:
    """Give SIGHUP its usual effect. Under nohup it is ignored, in the processes that a test starts too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a PostgreSQL server of the test's module, or skip the test if none is installed."""
    pytest.importorskip("psycopg")
    from experiments.scale.server import Unavailable, postgresql

    try:
        with postgresql() as made:
            yield made
    except Unavailable as reason:
        pytest.skip(str(reason))
