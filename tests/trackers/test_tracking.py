"""Trackers get each event once, in order, and neither their errors nor their slowness stop a search."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprune.errors import ConfigError
from autoprune.trackers import (
    TRACKERS,
    CurvePoint,
    FileWritten,
    Result,
    StudyClosed,
    StudyOpened,
    Tracker,
    TrackerEvent,
    Tracking,
    TrialEnded,
    check_trackers,
    find_tracker,
)
from autoprune.trackers._mlflow import MLflow

RUN = "0123456789abcdef"
POINTS = [CurvePoint("finetune of trial 3", epoch, {"loss": 1 / epoch}) for epoch in (1, 2, 3)]


def opened(folder: Path) -> StudyOpened:
    return StudyOpened("toy", RUN, folder, {"search.trials": 3}, is_new=True)


def tracking(
    folder: Path, tracker: Tracker, warnings: list[str] | None = None, *, wait_s: float = 10.0
) -> Tracking:
    told: list[str] = [] if warnings is None else warnings
    return Tracking("mine", lambda: tracker, opened(folder), told.append, wait_s=wait_s)


def test_events_arrive_in_order_and_once_in_all_verbs_of_a_study(tmp_path: Path) -> None:
    events: list[TrackerEvent] = []
    for points in (POINTS[:2], POINTS):
        with tracking(tmp_path, events.append) as log:
            for point in (*points, *points):
                log.log(point)
    first, *rest = events
    assert first == opened(tmp_path)
    again = StudyOpened("toy", RUN, tmp_path, {"search.trials": 3}, is_new=False)
    assert rest == [*POINTS[:2], StudyClosed(), again, POINTS[2], StudyClosed()]


def test_an_event_that_was_not_logged_is_logged_later_and_the_error_is_one_warning(tmp_path: Path) -> None:
    events: list[TrackerEvent] = []
    warnings: list[str] = []

    def fails_at_the_second(event: TrackerEvent) -> None:
        if event == POINTS[1]:
            raise ConnectionError("no server\nat all")
        events.append(event)

    with tracking(tmp_path, fails_at_the_second, warnings) as log:
        for point in POINTS:
            log.log(point)
    assert warnings == [
        "warning: tracker mine stopped: ConnectionError: no server at all. The next command on this study "
        "logs the rest"
    ]
    with tracking(tmp_path, events.append) as log:
        for point in POINTS:
            log.log(point)
    assert [event for event in events if isinstance(event, CurvePoint)] == POINTS


@pytest.mark.parametrize("error", [SystemExit(3), OSError(28, "No space left on device")])
def test_a_tracker_that_cannot_be_made_is_one_warning(tmp_path: Path, error: BaseException) -> None:
    def make() -> Tracker:
        raise error

    warnings: list[str] = []
    with Tracking("mine", make, opened(tmp_path), warnings.append) as log:
        log.log(POINTS[0])
    (warning,) = warnings
    assert warning.startswith(f"warning: tracker mine stopped: {type(error).__name__}")


def test_a_tracker_that_hangs_does_not_hold_the_search_up(tmp_path: Path) -> None:
    release = threading.Event()
    warnings: list[str] = []
    started = time.monotonic()

    def hang(event: TrackerEvent) -> None:
        release.wait(30)

    with tracking(tmp_path, hang, warnings, wait_s=0.2) as log:
        log.log(POINTS[0])
    assert time.monotonic() - started < 5
    assert "has not logged all events in time" in warnings[0]
    release.set()


def test_two_processes_do_not_log_one_study_at_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    begun = threading.Event()
    with tracking(tmp_path, lambda event: begun.set()) as log:
        log.log(POINTS[0])
        assert begun.wait(10)
        with tracking(tmp_path, lambda event: None, warnings):
            pass
    assert "another process logs this study" in warnings[0]


def test_a_process_that_starts_while_another_ends_logs_nothing_twice(tmp_path: Path) -> None:
    events: list[TrackerEvent] = []
    with tracking(tmp_path, events.append) as first:
        later = tracking(tmp_path, events.append)
        first.log(POINTS[0])
    with later:
        later.log(POINTS[0])
    assert [event for event in events if isinstance(event, CurvePoint)] == POINTS[:1]
    assert [event.is_new for event in events if isinstance(event, StudyOpened)] == [True, False]


@pytest.mark.parametrize("is_folder", [False, True])
def test_nothing_is_written_through_a_link(is_folder: bool, tmp_path: Path) -> None:
    with tracking(tmp_path, lambda event: None) as log:
        log.log(POINTS[0])
    (ledger,) = (tmp_path / "trackers").iterdir()
    link, mine = ledger.parent if is_folder else ledger, tmp_path / "mine"
    link.rename(mine)
    link.symlink_to(mine)
    warnings: list[str] = []
    with tracking(tmp_path, lambda event: None, warnings) as log:
        log.log(POINTS[1])
    assert "is a link, expected a" in warnings[0]
    assert POINTS[1].key not in (mine / ledger.name if is_folder else mine).read_text()


@pytest.mark.slow
def test_mlflow_finishes_a_trial_whose_logging_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracker = MLflow()
    tracker(opened(tmp_path))
    trial = TrialEnded(3, "uniform", "complete", "", 0.5, {}, {"macs": 10.0}, {}, {}, {"conv": 4}, None)
    with monkeypatch.context() as patch:
        patch.setattr(tracker._client, "set_terminated", broken)
        with pytest.raises(ConnectionError):
            tracker(trial)
    for _ in range(2):
        tracker(trial)
    runs = tracker._client.search_runs([tracker._experiment], "tags.`autoprune.trial` = '3'")
    assert [(each.info.status, each.data.metrics["macs"]) for each in runs] == [("FINISHED", 10.0)]


def broken(*_: object) -> None:
    raise ConnectionError("killed here")


def test_a_changed_file_and_a_changed_result_are_logged_again(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    events: list[TrackerEvent] = []
    for text, score in (("one", 0.5), ("one", 0.5), ("three", 0.75)):
        if not report.exists() or report.read_text() != text:
            report.write_text(text)
        with tracking(tmp_path, events.append) as log:
            log.log(FileWritten(report))
            log.log(Result("best score", score))
            log.log(FileWritten(tmp_path / "gone"))
    files = [event for event in events if isinstance(event, FileWritten)]
    assert files == [FileWritten(report)] * 2
    assert [event.value for event in events if isinstance(event, Result)] == [0.5, 0.75]


def test_names_are_checked_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(["tests.trackers.test_tracking:Counter"])
    assert isinstance(find_tracker("tests.trackers.test_tracking:Counter").make(), Counter)
    with pytest.raises(ConfigError, match=r'report.trackers: unknown name "mlfow". Did you mean "mlflow"'):
        check_trackers(["mlfow"])
    find_spec: Callable[..., Any] = lambda name: None  # noqa: E731
    monkeypatch.setattr("autoprune.trackers.importlib.util.find_spec", find_spec)
    for name in TRACKERS:
        message = rf'report.trackers: "{name}" needs the package .*: pip install "autoprune\[{name}\]", or'
        with pytest.raises(ConfigError, match=message):
            check_trackers([name])


class Counter:
    """A tracker of a user's own, which counts events."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: TrackerEvent) -> None:
        self.count += 1
