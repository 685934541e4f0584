"""Several processes that re-queue the trials of a dead one at the same time."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from autoprune.study._queue import claim_trial, requeue_trial, revive_trial
from autoprune.support.leases import this_process


def test_a_trial_that_is_claimed_as_two_processes_revive_it_stays_with_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study()
    dead = claim_trial(study, target=1, lease=this_process())
    assert dead is not None
    (seen,) = study.get_trials()
    write = study._storage.set_trial_system_attr

    def overtaken(trial_id: int, key: str, value: Any) -> None:
        """Write as this process does, while another process revives the trial and a third one claims it."""
        monkeypatch.setattr(study._storage, "set_trial_system_attr", write)
        write(trial_id, key, value)
        requeue_trial(study, seen.number)
        assert claim_trial(study, target=1, lease=this_process()) is not None
        claimed.extend(study.get_trials())

    claimed: list[optuna.trial.FrozenTrial] = []
    monkeypatch.setattr(study._storage, "set_trial_system_attr", overtaken)
    assert not revive_trial(study, seen)
    assert study.get_trials() == claimed
