"""The message at the end of a search about trials that other processes still run."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from autoprune.run import Event, Stage
from autoprune.run._other_processes import report_unended
from autoprune.samplers import fact_key
from autoprune.study import SearchStudy, open_study
from autoprune.support.leases import Lease
from tests.engines.toy import new_study


@pytest.fixture
def study(tmp_path: Path) -> SearchStudy:
    return new_study(f"journal:///{tmp_path}/study.log")


def told(study: SearchStudy) -> list[str]:
    events: list[Event] = []
    report_unended(study, events.append)
    return [event.text for event in events if isinstance(event, Stage)]


def hold(study: SearchStudy, number: int, lease: Lease) -> None:
    assert study.ask(number + 1) is not None
    trial = study.optuna.get_trials()[number]
    study.optuna._storage.set_trial_system_attr(trial._trial_id, fact_key("lease"), lease.to_json())


def test_nothing_is_reported_if_every_trial_has_ended(study: SearchStudy) -> None:
    assert told(study) == []


def test_a_trial_that_another_process_runs_is_named_with_the_command_that_goes_on(study: SearchStudy) -> None:
    hold(study, 0, Lease(socket.gethostname(), 4711, "boot:1"))
    (line,) = told(open_study(study.url, "toy"))
    assert f"trial 0 (process 4711 on {socket.gethostname()}) had not ended" in line
    assert line.endswith(f"run `autoprune resume toy --storage {study.url}`")


def test_trials_of_other_hosts_are_to_be_taken_over_and_waiting_ones_are_named(study: SearchStudy) -> None:
    hold(study, 0, Lease("elsewhere", 7, "boot:1"))
    assert study.ask(2) is not None
    study.requeue(1)
    (line,) = told(study)
    assert "trials 0 (process 7 on elsewhere), 1 (waiting) had not ended" in line
    assert line.endswith(" --take-over`")
