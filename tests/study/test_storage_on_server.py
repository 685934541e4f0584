"""Storages on a real PostgreSQL server: a database that is made again, or refuses its user."""

from __future__ import annotations

import time

import optuna
import pytest

from autoprune.errors import StudyError
from autoprune.study._storage import open_storage
from autoprune.study._storage_errors import storage_errors
from experiments.scale.server import USER, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def values_after(url: str, value: float) -> list[float]:
    """Make a study with one trial, and return the values that its storage shows."""
    study = optuna.create_study(storage=open_storage(url, create=True), study_name="toy")
    study.add_trial(optuna.trial.create_trial(value=value))
    return [trial.values[0] for trial in study.get_trials()]


def test_a_database_that_is_made_again_shows_no_trials_of_the_former_one(server: Server) -> None:
    url = server.new_database("again")
    assert values_after(url, 0.1) == [0.1]
    server.sql("DROP DATABASE again WITH (FORCE)")
    server.new_database("again")
    assert values_after(url, 0.2) == [0.2]


def test_a_user_that_may_not_log_in_any_more_is_not_waited_for(server: Server) -> None:
    url = server.new_database("refused")
    storage = open_storage(url, create=True)
    server.sql(f"ALTER ROLE {USER} NOLOGIN")
    try:
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'refused'")
        began = time.monotonic()
        with pytest.raises(StudyError, match="not permitted to log in"), storage_errors(url):
            storage.get_all_studies()
        assert time.monotonic() - began < 10
    finally:
        server.sql(f"ALTER ROLE {USER} LOGIN")
