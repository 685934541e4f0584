"""The state of a search that runs, races, was killed, or has ended, as another process sees it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune.errors import StudyError
from autoprune.run import Counted, Event, Stage, StudyStatus, TrialDone, _status, follow, status_of
from autoprune.samplers import fact_key
from autoprune.study import SearchStudy, open_study
from autoprune.study._processes import PROCESS
from autoprune.support.leases import Lease
from tests.run.trials.test_race import resume, search, storage_in

DEAD = Lease(socket.gethostname(), 999_999_999, "boot:1")
ELSEWHERE = Lease("elsewhere", 7, "boot:1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that has no race yet."""
    found = tmp_path_factory.mktemp("status")
    search(found)
    return found


COUNTS: list[Counted] = []
"""The counts that the search of `seen` reported."""


@pytest.fixture(scope="module")
def seen(folder: Path) -> dict[str, list[StudyStatus]]:
    """What a watcher sees after each trial and each step of the race of a search that is resumed."""
    found: dict[str, list[StudyStatus]] = {"trials": [], "race": []}

    def look(event: Event) -> None:
        if isinstance(event, Counted):
            COUNTS.append(event)
        kind = "trials" if isinstance(event, TrialDone) else "race"
        is_step = isinstance(event, Stage) and event.text.startswith("race: trial")
        if kind == "trials" or is_step:
            found[kind].append(status_of(open_study(storage_in(folder), "own")))

    resume(folder, "search.trials=11", watch=look)
    return found


def copied(folder: Path, tmp_path: Path) -> str:
    """Return the storage of a copy of the study, which a test may change."""
    log = Path(storage_in(folder).removeprefix("journal:///"))
    (tmp_path / "study.log").write_bytes(log.read_bytes())
    return f"journal:///{tmp_path}/study.log"


def test_a_running_search_shows_its_trials_its_pace_and_this_process(
    seen: dict[str, list[StudyStatus]],
) -> None:
    status = seen["trials"][0]
    assert (status.done, status.trials, status.is_finished, status.race) == (10, 11, False, None)
    (worker,) = status.workers
    assert (worker.host, worker.pid, worker.phase, worker.is_alive) == (
        socket.gethostname(),
        os.getpid(),
        "trials",
        True,
    )
    assert status.per_hour is not None
    assert status.left_s == pytest.approx(3600 / status.per_hour)
    assert status.reached["calibrate"] >= status.reached["1 step"] > 0
    assert status.heard_s is not None
    assert status.summary.best is not None


def test_a_race_shows_its_entrants_and_the_time_left(seen: dict[str, list[StudyStatus]]) -> None:
    first, last = seen["race"][0].race, seen["race"][-1].race
    assert first is not None
    assert last is not None
    assert len(first.entrants) == 1
    assert len(last.entrants) == last.expected > 1
    assert last.entrants[0].epochs == last.ends[-1]
    assert first.left_s is not None
    assert last.left_s is not None
    assert last.left_s < first.left_s
    assert {worker.phase for worker in seen["race"][-1].workers} == {"race"}


def test_a_search_counts_its_trials_from_the_start_and_the_epochs_of_its_race(
    seen: dict[str, list[StudyStatus]],
) -> None:
    assert seen
    phases = [count for count in COUNTS if count.level == 0]
    assert [(count.what, count.done, count.total) for count in phases[:1]] == [("searching", 9, 11)]
    race = [count for count in phases if count.what != "searching"]
    assert [count.done for count in race] == sorted(count.done for count in race)
    assert [count.done < count.total for count in race] == [*[True] * (len(race) - 1), False]


def test_watching_writes_nothing_and_ends_with_the_search(
    folder: Path, seen: dict[str, list[StudyStatus]]
) -> None:
    before = Path(storage_in(folder).removeprefix("journal:///")).read_bytes()
    (status,) = follow("own", storage_in(folder), sleep=lambda seconds: pytest.fail("it had ended"))
    assert (status.is_finished, status.workers, status.resume, status.race) == (True, (), "", None)
    assert Path(storage_in(folder).removeprefix("journal:///")).read_bytes() == before
    assert seen


def test_a_killed_search_has_a_dead_worker_and_the_command_that_resumes_it(
    folder: Path, seen: dict[str, list[StudyStatus]], tmp_path: Path
) -> None:
    url = copied(folder, tmp_path)
    study = open_study(url, "own")
    for key in study.noted(PROCESS):
        study.store_note(key, None)
    study.store_note(f"{PROCESS}dead", {**DEAD.to_json(), "phase": "trials", "since": 0.0})
    assert study.ask(12) is not None
    trial = study.optuna.get_trials()[11]
    study.optuna._storage.set_trial_system_attr(trial._trial_id, fact_key("lease"), DEAD.to_json())
    status = status_of(open_study(url, "own"))
    assert [(worker.is_alive, list(worker.trials)) for worker in status.workers] == [(False, [11])]
    assert (status.at_work, status.is_finished) == ((), False)
    assert status.resume == f"autoprune resume own --storage {url}"
    study.store_note(f"{PROCESS}dead", {**ELSEWHERE.to_json(), "phase": "trials", "since": 0.0})
    status = status_of(open_study(url, "own"))
    assert {worker.is_alive for worker in status.workers} == {False, None}
    assert status.resume.endswith(" --take-over")


def test_a_study_of_an_earlier_version_ends_without_notes(
    folder: Path, seen: dict[str, list[StudyStatus]], tmp_path: Path
) -> None:
    url = copied(folder, tmp_path)
    study = open_study(url, "own")
    for key in study.noted(PROCESS):
        study.store_note(key, None)
    assert status_of(study).is_finished
    study.store_note("autoprune:race", None)
    assert not status_of(study).is_finished


@pytest.fixture
def unended(folder: Path, tmp_path: Path) -> SearchStudy:
    """A copy of the study on which no process works, with something left to do."""
    study = open_study(copied(folder, tmp_path), "own")
    for key in study.noted(PROCESS):
        study.store_note(key, None)
    study.enqueue({}, "l1")
    return study


def test_the_storage_stays_open_and_is_opened_again_after_it_was_away(
    unended: SearchStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []

    def opening(url: str, name: str) -> SearchStudy:
        opened.append((url, name))
        return open_study(url, name)

    monkeypatch.setattr(_status, "open_study", opening)
    log, away = tmp_path / "study.log", tmp_path / "away"
    search = {**unended.config["search"], "trials": 50}
    steps: list[Callable[[], object]] = [
        lambda: unended.store_config({**unended.config, "search": search}),
        lambda: log.rename(away),
        lambda: away.rename(log),
    ]

    def sleep(seconds: float) -> None:
        steps.pop(0)()

    statuses = follow("own", unended.url, sleep=sleep)
    before, *after = (next(statuses).trials for _ in range(3))
    assert (before < 50, after, steps) == (True, [50, 50], [])
    assert opened == [(unended.url, "own")] * 2


def test_a_storage_that_is_gone_ends_the_watch(unended: SearchStudy, tmp_path: Path) -> None:
    statuses = follow("own", unended.url, sleep=lambda seconds: None)
    assert next(statuses).done > 0
    (tmp_path / "study.log").unlink()
    with pytest.raises(StudyError, match=r"there is no such file, so no study to open"):
        next(statuses)
