"""A storage whose server goes away, also between a commit and its confirmation. No real server is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from autoprune.errors import StudyError
from autoprune.study import TakenOverError, _server_storage
from autoprune.study._queue import claim_trial, dead_trials, revive_trial
from autoprune.study._server_storage import ServerAwayError, ServerStorage
from autoprune.study._storage_errors import storage_errors
from autoprune.support.leases import this_process

URL = "postgresql://me:secret@host/db"


class Flaky:
    """Lets methods of a storage fail: each first does its work if `done`, then reports a lost connection."""

    def __init__(self, backend: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> None:
        self._backend, self._monkeypatch = backend, monkeypatch
        self.calls = 0

    def lose(self, name: str, *, times: int, done: bool) -> None:
        method: Callable[..., Any] = getattr(self._backend, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls > times:
                return method(*arguments, **options)
            if done:
                method(*arguments, **options)
            raise ServerAwayError("connection refused")

        self._monkeypatch.setattr(self._backend, name, call)


@pytest.fixture
def backend() -> RDBStorage:
    return RDBStorage("sqlite://")


@pytest.fixture
def flaky(backend: RDBStorage, monkeypatch: pytest.MonkeyPatch) -> Flaky:
    monkeypatch.setattr(_server_storage, "_FIRST_PAUSE_S", 0.001)
    return Flaky(backend, monkeypatch)


@pytest.fixture
def study(backend: RDBStorage) -> Iterator[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = ServerStorage(backend, "postgresql://me:***@host/db")
    yield optuna.create_study(storage=storage, study_name="toy")
    backend.remove_session()


@pytest.mark.parametrize("done", [False, True])
def test_a_trial_is_created_once_and_warnings_say_that_the_server_is_awaited(
    study: optuna.Study, flaky: Flaky, caplog: pytest.LogCaptureFixture, done: bool
) -> None:
    flaky.lose("_create_new_trial", times=1 if done else 3, done=done)
    lease = this_process()
    with caplog.at_level(logging.WARNING):
        trial = claim_trial(study, target=1, lease=lease)
    assert trial is not None
    assert trial.suggest_float("x", 0.25, 0.25) == 0.25
    assert [each.number for each in study.get_trials()] == [0]
    assert claim_trial(study, target=1, lease=this_process()) is None
    messages = [record.getMessage() for record in caplog.records]
    expected = [] if done else ["connection refused. Waiting up to 300 s", "the server is back after "]
    assert [part in message for part, message in zip(expected, messages, strict=True)] == [True] * len(
        expected
    )
    assert "secret" not in caplog.text


def test_queued_trials_are_created_once_and_equal_ones_of_others_are_no_sign_of_it(
    study: optuna.Study, flaky: Flaky
) -> None:
    study.add_trial(optuna.trial.create_trial(value=1.0))
    flaky.lose("_create_new_trial", times=1, done=False)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    flaky.calls = 0
    study.enqueue_trial({"x": 0.5}, user_attrs={"origin": "uniform"})
    assert [trial.state.name for trial in study.get_trials()] == ["COMPLETE", "COMPLETE", "WAITING"]


def test_the_end_of_a_trial_that_was_stored_before_the_connection_broke_counts(
    study: optuna.Study, flaky: Flaky
) -> None:
    first, second = (claim_trial(study, target=2, lease=this_process()) for _ in range(2))
    assert first is not None
    assert second is not None
    flaky.lose("set_trial_state_values", times=1, done=True)
    study.tell(first.number, 0.5)
    assert study.trials[0].value == 0.5
    study.tell(second.number, state=TrialState.FAIL)
    with pytest.raises(TakenOverError, match="Another process ended it"), storage_errors(URL):
        study._storage.set_trial_state_values(second._trial_id, TrialState.COMPLETE, [0.1])


def test_the_end_of_a_trial_by_another_process_is_not_taken_for_the_own_one(
    study: optuna.Study, backend: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = claim_trial(study, target=1, lease=this_process())
    assert trial is not None
    end = backend.set_trial_state_values

    def lose(trial_id: int, state: TrialState, values: list[float]) -> bool:
        monkeypatch.setattr(backend, "set_trial_state_values", end)
        end(trial_id, state, [0.9])
        raise ServerAwayError("connection refused")

    monkeypatch.setattr(backend, "set_trial_state_values", lose)
    with pytest.raises(TakenOverError, match="Another process ended it"), storage_errors(URL):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.1])
    assert study.trials[0].value == 0.9


def test_a_waiting_trial_that_is_claimed_as_the_server_stops_is_queued_again(
    study: optuna.Study, flaky: Flaky
) -> None:
    study.enqueue_trial({"x": 0.5}, user_attrs={"origin": "uniform"})
    flaky.lose("set_trial_state_values", times=1, done=True)
    assert claim_trial(study, target=1, lease=this_process()) is None
    (lost,) = dead_trials(study, other_hosts=False)
    assert revive_trial(study, lost)
    trial = claim_trial(study, target=1, lease=this_process())
    assert trial is not None
    assert trial.number == 0


def test_a_server_that_stays_away_ends_the_search_and_no_later_call_waits_again(
    study: optuna.Study, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server_storage, "WAIT_S", 0.3)
    flaky.lose("get_study_user_attrs", times=1000, done=False)
    message = (
        r"^postgresql://me:\*\*\*@host/db: its server has been away for \d s \(connection refused\)\. When "
        "it is back, run the same command again, or `autoprune resume` after a search.$"
    )
    with pytest.raises(StudyError, match=message), storage_errors(URL):
        study.user_attrs  # noqa: B018
    calls = flaky.calls
    assert calls >= 3
    with pytest.raises(StudyError, match="has been away for"), storage_errors(URL):
        study.user_attrs  # noqa: B018
    assert flaky.calls == calls + 2  # it is repeated at once, since only the connection may be lost
    flaky.calls = 1000
    assert study.user_attrs == {}
    flaky.calls = 998
    assert study.user_attrs == {}  # a later outage is waited for


@pytest.mark.parametrize("refused", [0, 1])
def test_after_an_interrupt_nothing_waits(
    study: optuna.Study, backend: RDBStorage, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    before, after = ([ServerAwayError("refused") for _ in range(times)] for times in (refused, 2))
    errors = iter([*before, KeyboardInterrupt(), *after])

    def lose(study_id: int) -> None:
        raise next(errors)

    monkeypatch.setattr(backend, "get_study_user_attrs", lose)
    with pytest.raises(KeyboardInterrupt):
        study.user_attrs  # noqa: B018
    with pytest.raises(ServerAwayError, match="has been away for"):
        study.user_attrs  # noqa: B018


@pytest.mark.parametrize(
    "error",
    [
        (1045, "Access denied for user 'me'@'host' (using password: YES)"),
        (1049, "Unknown database 'db'"),
        ('connection to server at "host" failed: FATAL:  password authentication failed for user "me"',),
        ('connection to server at "host" failed: FATAL:  database "db" does not exist',),
    ],
)
def test_a_refused_password_or_database_is_not_waited_for(error: tuple[object, ...]) -> None:
    assert _server_storage._is_refused(OSError(*error))


@pytest.mark.parametrize(
    "error",
    [
        (2003, "Can't connect to MySQL server on 'host' (Connection refused)"),
        ('connection to server at "host" failed: FATAL:  the database system is starting up',),
        ('connection to server on socket "/tmp/1" failed: No such file or directory',),
    ],
)
def test_a_server_that_is_away_or_starts_is_waited_for(error: tuple[object, ...]) -> None:
    assert not _server_storage._is_refused(OSError(*error))
