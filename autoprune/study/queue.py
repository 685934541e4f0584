"""Own the hand-over of trials between processes: claiming one, giving it back, re-queueing those of the dead.

Before: `SearchStudy` calls these with an Optuna study; after: the trial runs, or waits under its own number.
This file and `views` alone reach below Optuna's public interface, since that has no way to take a trial back.

    trial = claim_trial(study, target=60, lease=this_process())     # None where all 60 exist
    requeue_trial(study, trial.number)
"""

from __future__ import annotations

import datetime
import time

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from autoprune.study.leases import Lease, is_alive

LEASE = "lease"

CLAIM_S = 0.3
"""Longer than a claim takes from taking a trial to writing its lease."""


def claim_trial(study: optuna.Study, *, target: int, lease: Lease) -> Trial | None:
    """Take the first waiting trial, or create one while the study has fewer than `target`; None otherwise.

    A new trial and its lease are stored in one step, so that no kill leaves a trial that nobody can claim.
    """
    storage, study_id = study._storage, study._study_id
    study._thread_local.cached_all_trials = (
        None  # as Study.ask does: one consistent look at the storage a trial
    )
    waiting = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.WAITING,))
    for trial in waiting:
        if _claim_waiting(study, trial, lease):
            return Trial(study, trial._trial_id)
    if storage.get_n_trials(study_id) >= target:
        return None
    template = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={LEASE: lease.to_json()})
    template.datetime_start = datetime.datetime.now()
    return Trial(study, storage.create_new_trial(study_id, template))


def _claim_waiting(study: optuna.Study, trial: FrozenTrial, lease: Lease) -> bool:
    """Take a waiting trial unless another process was faster; only the one that gets it writes its lease."""
    storage = study._storage
    try:
        if not storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            return False
        storage.set_trial_user_attr(trial._trial_id, LEASE, lease.to_json())
    except UpdateFinishedTrialError:
        return False
    return True


def requeue_trial(study: optuna.Study, number: int) -> None:
    """Send a running trial back to the queue under its own number.

    What samplers shared about its proposal is cleared: it would be read as that of a running trial.
    """
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    for key in storage.get_trial_system_attrs(trial_id):
        if ":relative_params" in key:
            storage.set_trial_system_attr(trial_id, key, "")
    storage.set_trial_user_attr(trial_id, LEASE, None)
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def running_trials(study: optuna.Study) -> dict[int, Lease | None]:
    """Return {number: lease} of the trials that count as running."""
    return {trial.number: _lease_of(trial) for trial in _running(study)}


def foreign_trials(study: optuna.Study) -> dict[int, str]:
    """Return {number: host} of the running trials that other hosts hold, dead or alive."""
    return {
        number: lease.host
        for number, lease in running_trials(study).items()
        if lease is not None and is_alive(lease) is None
    }


def dead_trials(study: optuna.Study, *, other_hosts: bool) -> list[int]:
    """Return the running trials whose process is dead; those of other hosts only where the caller says so.

    Looks twice, since a process that claims a waiting trial writes its lease a moment after.
    """
    first = _seem_dead(study, other_hosts)
    if not first:
        return []
    time.sleep(CLAIM_S)
    return sorted(number for number, _ in first & _seem_dead(study, other_hosts))


def _seem_dead(study: optuna.Study, other_hosts: bool) -> set[tuple[int, datetime.datetime | None]]:
    """Return (number, start) of the running trials without a living process; each claim starts anew."""
    return {
        (trial.number, trial.datetime_start)
        for trial in _running(study)
        if (alive := is_alive(_lease_of(trial))) is False or (alive is None and other_hosts)
    }


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _lease_of(trial: FrozenTrial) -> Lease | None:
    return Lease.from_json(trial.user_attrs.get(LEASE))


def store_score(study: optuna.Study, number: int, step: int, score: float) -> None:
    """Store an intermediate value, also over the one that a killed attempt at the trial left behind."""
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    study._storage.set_trial_intermediate_value(trial_id, step, score)
