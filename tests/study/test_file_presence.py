"""A storage that is lost or full during a search: the search ends with one clear line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune.engines import TrialEvent, run_search
from autoprune.errors import StudyError
from autoprune.study import open_study
from tests.conftest import FullDisk
from tests.engines.toy import make_toy, new_study, toy_runner
from tests.records import comparable


def delete(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


EVENTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "delete": (delete, "it was deleted or moved while it was in use"),
    "replace": (replace, "another file has taken its place while it was in use"),
    "empty": (empty, r"it was cut from [\d,]+ to 0 bytes while it was in use"),
    "cut": (cut, r"it was cut from [\d,]+ to [\d,]+ bytes while it was in use"),
}


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
@pytest.mark.parametrize("event", EVENTS)
def test_a_storage_that_is_lost_ends_the_search(scheme: str, event: str, tmp_path: Path) -> None:
    happen, message = EVENTS[event]
    path = tmp_path / "study.db"
    ended: list[int] = []

    def note(seen: TrialEvent) -> None:
        if seen.kind == "finished":
            ended.append(seen.number)
            if len(ended) == 2:
                happen(path)

    study = new_study(f"{scheme}:///{path}")
    runner = toy_runner(study, "random", trials=6, pruner="none", on_event=note)
    with pytest.raises(StudyError, match=message) as caught:
        run_search("serial", runner, make_toy)
    assert "Put the former file back" in str(caught.value)
    assert ended == [0, 1]
    if event == "delete":
        assert list(tmp_path.iterdir()) == []  # nothing was made in its place


@pytest.mark.parametrize(
    ("growth", "scheme"),
    [
        (0, "sqlite"),
        pytest.param(3_000, "sqlite", marks=pytest.mark.slow),
        pytest.param(30_000, "sqlite", marks=pytest.mark.slow),
        (0, "journal"),
        (3_000, "journal"),
        (30_000, "journal"),
    ],
)
def test_a_search_on_a_full_disk_ends_in_one_line_and_goes_on_later(
    scheme: str, growth: int, tmp_path: Path, full_disk: FullDisk
) -> None:
    trials = 12 if growth else 6
    whole, path = new_study(f"{scheme}:///{tmp_path}/whole.db"), tmp_path / "study.db"
    run_search("serial", toy_runner(whole, "tpe", trials=trials), make_toy)
    study = new_study(f"{scheme}:///{path}")
    size = max(each.stat().st_size for each in tmp_path.glob("study.db*") if not each.name.endswith("shm"))
    with (
        pytest.raises(StudyError, match=r"study\.db: the disk (is full|cannot be written)") as caught,
        full_disk(size + growth),
    ):
        run_search("serial", toy_runner(study, "tpe", trials=trials), make_toy)
    assert "then run the same command again" in str(caught.value)
    again = open_study(f"{scheme}:///{path}", "toy")
    again.requeue_dead()
    held = [trial.number for trial in again.optuna.get_trials() if trial.state.name == "RUNNING"]
    for number in held:  # of this process, which lives
        again.requeue(number)
    run_search("serial", toy_runner(again, "tpe", trials=trials), make_toy)
    assert [comparable(each) for each in again.records()] == [comparable(each) for each in whole.records()]
