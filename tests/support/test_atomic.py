"""Files are written whole or not at all, by every module that keeps something, on a disk that is full."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.config import load_config
from autoprune.errors import AutopruneError, CheckpointError, ExportError
from autoprune.exporting import export, save_pruned
from autoprune.graph.plan import Plan
from autoprune.reconstruction import Moments, save_moments
from autoprune.reconstruction._layer_moments import LayerMoments
from autoprune.run import settle
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.seen_validation import save_dense
from autoprune.run._resolving.train import train_dense
from autoprune.support import atomic
from autoprune.support.atomic import replacing, saving
from autoprune.support.tensorfile import write_tensors
from autoprune.training._training_state import save_state
from tests.children import CONTEXT
from tests.conftest import FullDisk

LARGE = 1 << 18
LIMIT = 1 << 14


def layer() -> nn.Module:
    return nn.Linear(LARGE // 64, 16)


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.json"
    for text in ("first", "second"):
        before = path.read_text() if path.exists() else None
        with replacing(path) as partial:
            partial.write_text(text)
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, full_disk: FullDisk) -> None:
    path = tmp_path / "table.json"
    path.write_text("old")

    def write() -> None:
        with full_disk(LIMIT), replacing(path) as partial:
            try:
                partial.write_bytes(bytes(LARGE))
            finally:
                assert partial.stat().st_size == LIMIT

    with pytest.raises(OSError, match="File too large"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_no_folder_that_was_made_for_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        replacing(tmp_path / "new" / "a"),
        replacing(tmp_path / "new" / "b"),
    ):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with replacing(tmp_path / "new" / "a") as partial:
        partial.write_text("kept")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "new" / "b"):
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


def test_a_name_with_a_null_character_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="null character"), replacing(tmp_path / "a\0b"):
        pass


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as partial:
            partial.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def write_slowly(path: Path, text: str, meet: Callable[[], object]) -> None:
    with replacing(path) as partial:
        meet()
        partial.write_text(text)
        meet()


def test_two_processes_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    barrier = CONTEXT.Barrier(2, timeout=250)
    other = CONTEXT.Process(target=write_slowly, args=(path, "the other's, and longer", barrier.wait))
    other.start()
    write_slowly(path, "ours", barrier.wait)
    other.join()
    assert other.exitcode == 0
    assert path.read_text() in ("ours", "the other's, and longer")
    assert list(tmp_path.iterdir()) == [path]


def dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.parametrize(
    ("name", "age_s", "is_kept"),
    [
        (".table.json.{host}-{dead}.part", 0, False),
        (".another.{host}-{dead}.part.pt2", 0, False),
        (".table.json.{host}-{dead}0000000000000.part", 0, False),
        (".table.json.{host}-{alive}.part", 10**6, True),
        (".table.json.01234567-{dead}.part", 0, True),
        (".table.json.01234567-{dead}.part", 10**6, False),
        (".table.json.{dead}.part", 0, True),
        (".table.json.{dead}.part", 10**6, False),
        ("table.json.{host}-{dead}.part", 10**6, True),
        (".table.json.part", 10**6, True),
        (".part", 10**6, True),
    ],
)
def test_what_killed_processes_left_is_removed(
    tmp_path: Path, name: str, age_s: float, is_kept: bool
) -> None:
    """A file of another host may be in use there, so it is deleted only when it is old."""
    left = tmp_path / name.format(host=atomic._host(), dead=dead_process(), alive=os.getppid())
    left.touch()
    os.utime(left, (time.time() - age_s,) * 2)
    with replacing(tmp_path / "other.json") as partial:
        partial.write_text("new")
    assert left.exists() == is_kept
    assert (tmp_path / "other.json").read_text() == "new"


KILLED = """
import os, signal, sys
from pathlib import Path
from autoprune.support.atomic import replacing

with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with replacing(path) as partial:
        partial.write_text("whole")
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_follows_no_link(tmp_path: Path) -> None:
    """Who shares the folder knows the name that is written to first, and could put a link there."""
    (tmp_path / "mine").write_text("mine")
    path = tmp_path / "table.json"
    with replacing(path) as partial:
        pass
    partial.symlink_to(tmp_path / "mine")
    with replacing(path) as partial:
        partial.write_text("new")
    assert (path.read_text(), (tmp_path / "mine").read_text()) == ("new", "mine")
    assert not path.is_symlink()


def test_the_suffix_is_the_requested_one(tmp_path: Path) -> None:
    with replacing(tmp_path / "net", suffix=".pt2") as partial:
        assert partial.suffix == ".pt2"


def write_weights(path: Path) -> None:
    with saving(path, "supernet") as partial:
        write_tensors(layer().state_dict(), partial)


def large_moments() -> Moments:
    size = math.isqrt(LARGE)
    return Moments({"fc.weight": LayerMoments(torch.zeros(1, size, size), torch.zeros(1, size), 9)})


WRITERS: dict[str, tuple[Callable[[Path], object], type[AutopruneError]]] = {
    "dense": (lambda path: save_dense(layer(), path, {}), CheckpointError),
    "weights": (write_weights, CheckpointError),
    "moments": (lambda path: save_moments(large_moments(), path), CheckpointError),
    "state": (lambda path: save_state(path, {}, {"weight": torch.zeros(LARGE)}), CheckpointError),
    "onnx": (lambda path: export(layer(), path, "onnx", torch.zeros(1, LARGE // 64)), ExportError),
    "pt2": (lambda path: export(layer(), path, "pt2", torch.zeros(1, LARGE // 64)), ExportError),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_reports_a_full_disk_in_one_line(tmp_path: Path, full_disk: FullDisk, name: str) -> None:
    write, kind = WRITERS[name]
    path = tmp_path / f"file.{name}"  # an export replaces only its own format
    path.write_text("old")
    with (
        pytest.raises(kind, match=rf"file\.{name}: cannot be written \(.*File too large") as caught,
        full_disk(LIMIT),
    ):
        write(path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pruned_model_stays_if_the_next_does_not_fit(tmp_path: Path, full_disk: FullDisk) -> None:
    plan = Plan({})
    save_pruned(nn.Linear(2, 2), plan, tmp_path)
    held = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ExportError, match=r"cannot be written \(.*File too large"), full_disk(LIMIT):
        save_pruned(layer(), plan, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == held


def test_a_training_that_cannot_store_its_setting_reports_it(tmp_path: Path, full_disk: FullDisk) -> None:
    config = settle(load_config("digits", ["search.setting=float32 contiguous"]))
    message = r"setting\.json: cannot be written \(File too large\)\. Free some space"
    dense = load_dense(config, trained=False)
    with pytest.raises(CheckpointError, match=message), full_disk(1):
        train_dense(dense, config, tmp_path / "new" / "dense.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_do_not_fit_are_an_error_of_the_disk(tmp_path: Path, full_disk: FullDisk) -> None:
    with full_disk(LIMIT), pytest.raises(OSError, match="File too large"):
        write_tensors({"weight": torch.zeros(LARGE)}, tmp_path / "weights.safetensors")
