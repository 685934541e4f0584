"""Own the hand-over of trials between processes: claiming one, giving it back, re-queueing those of the dead.

Before: `SearchStudy` calls these with an Optuna study; after: the trial runs, or waits under its own number.
This file reaches below Optuna's public interface, since that has no way to take a trial back; so do
`study.tables`, `samplers.attributes`, `samplers.views` and `samplers.gp`, and nothing else does.

    trial = claim_trial(study, target=60, lease=this_process())     # None where all 60 exist
    requeue_trial(study, trial.number)

Several processes may do this at once, and no step of several writes is atomic. What holds all the same: each
claim is named by its lease, the last one written counts, and whoever finds another in its place lets go.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Container

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from autoprune.samplers import ENDED_BEFORE, OUTCOME
from autoprune.study._leases import Lease, is_alive
from autoprune.study._trial_attributes import INTERRUPTIONS, LEASE, ORIGIN, PROPOSAL

CLAIM_S = 0.3
"""Longer than a claim usually takes from taking a trial to writing its lease.

After a slower one the trial may be queued again, and one of the two attempts at it is dropped.
"""

MAX_INTERRUPTIONS = 2
"""A trial whose process died so often while it ran has failed: it may be what kills the process."""

_log = logging.getLogger(__name__)


def claim_trial(study: optuna.Study, *, target: int, lease: Lease) -> Trial | None:
    """Take the first waiting trial, or create one while the study has fewer than `target`; None otherwise.

    A new trial and its lease are stored in one step, so that no kill leaves a trial that nobody can claim.
    Counting trials and creating one are two: processes that do so at the same moment may create one each, so
    a study can end with more than `target` trials, at most one for every further process.
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


def is_taken_over(study: optuna.Study, number: int, claim: str | None) -> bool:
    """Tell whether a trial waits again, or goes by another claim than the given one, ended or not."""
    trial = _read(study, number)
    return trial.state == TrialState.WAITING or _claim_of(trial) != claim


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


def give_back(study: optuna.Study, seen: FrozenTrial) -> bool:
    """Re-queue a trial that was seen running; False where it was claimed anew, or has ended, since."""
    with contextlib.suppress(UpdateFinishedTrialError):
        if _attempt(_read(study, seen.number)) == _attempt(seen):
            requeue_trial(study, seen.number)
            return True
    return False


def revive_trial(study: optuna.Study, seen: FrozenTrial) -> bool:
    """Re-queue a trial of a dead process as `give_back` does, or fail it where that died too often.

    Returns:
        Whether it waits now.
    """
    storage, trial_id = study._storage, seen._trial_id
    died = int(seen.user_attrs.get(INTERRUPTIONS, 0)) + (_lease_of(seen) is not None)
    with contextlib.suppress(UpdateFinishedTrialError):
        if _attempt(_read(study, seen.number)) != _attempt(seen):
            return False
        storage.set_trial_user_attr(trial_id, INTERRUPTIONS, died)
        if died < MAX_INTERRUPTIONS:
            requeue_trial(study, seen.number)
            return True
        reason = f"its process died {died} times while it ran."
        _log.warning("trial %d failed: %s", seen.number, reason)
        outcome = {"failure": reason, ENDED_BEFORE: count_ended(study)}
        storage.set_trial_user_attr(trial_id, OUTCOME, outcome)
        storage.set_trial_user_attr(trial_id, LEASE, None)
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
    return False


def held_trials(study: optuna.Study, claims: Container[str | None]) -> list[FrozenTrial]:
    """Return the running trials that go by one of these claims."""
    return [trial for trial in _running(study) if _claim_of(trial) in claims]


def foreign_trials(study: optuna.Study) -> dict[int, str]:
    """Return {number: host} of the running trials that other hosts hold, dead or alive."""
    leases = {trial.number: _lease_of(trial) for trial in _running(study)}
    return {
        number: lease.host
        for number, lease in leases.items()
        if lease is not None and is_alive(lease) is None
    }


def unended_trials(study: optuna.Study) -> dict[int, Lease | None]:
    """Return {number: lease} of the trials that run or wait; None for those that no process holds."""
    states = (TrialState.RUNNING, TrialState.WAITING)
    return {trial.number: _lease_of(trial) for trial in study.get_trials(deepcopy=False, states=states)}


def dead_trials(study: optuna.Study, *, other_hosts: bool) -> list[FrozenTrial]:
    """Return the running trials whose process is dead; those of other hosts only where the caller says so.

    Looks twice, since a process that claims a waiting trial writes its lease a moment after.
    """
    first = {_attempt(trial) for trial in _seem_dead(study, other_hosts)}
    if not first:
        return []
    time.sleep(CLAIM_S)
    return [trial for trial in _seem_dead(study, other_hosts) if _attempt(trial) in first]


def _seem_dead(study: optuna.Study, other_hosts: bool) -> list[FrozenTrial]:
    """Return the running trials of ours without a living process."""
    return [
        trial
        for trial in _running(study)
        if _is_ours(trial)
        and ((alive := is_alive(_lease_of(trial))) is False or (alive is None and other_hosts))
    ]


def _is_ours(trial: FrozenTrial) -> bool:
    """Tell a running trial of autoprune's from one that `optuna.Study.ask` began elsewhere.

    A new trial of ours has a lease from its creation on. One that waited, and whose process died after taking
    it and before writing the lease, has an origin (warm starts) or the traces of an earlier attempt. Only one
    that a user queued with `optuna.Study.enqueue_trial` has none of these then: it cannot be told from one
    that somebody else's `ask` took from the queue, and is left alone.
    """
    return any(key in trial.user_attrs for key in (LEASE, PROPOSAL, ORIGIN))


def _attempt(trial: FrozenTrial) -> tuple[int, TrialState, datetime.datetime | None, str | None]:
    """Return what tells one attempt at a trial from another: each claim sets a start, then a lease."""
    return trial.number, trial.state, trial.datetime_start, _claim_of(trial)


def _read(study: optuna.Study, number: int) -> FrozenTrial:
    storage = study._storage
    return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _lease_of(trial: FrozenTrial) -> Lease | None:
    return Lease.from_json(trial.user_attrs.get(LEASE))


def _claim_of(trial: FrozenTrial) -> str | None:
    lease = _lease_of(trial)
    return None if lease is None else lease.claim


def count_left(study: optuna.Study, target: int) -> int:
    """Return how many trials have not ended, with those that a study of `target` trials still has to make.

    Damaged ones are not among them: they can neither run nor wait.
    """
    unended = tuple(state for state in TrialState if not state.is_finished())
    present = len(study.get_trials(deepcopy=False, states=unended))
    return present + max(0, target - study._storage.get_n_trials(study._study_id))


def count_ended(study: optuna.Study) -> int:
    """Return how many trials have ended, however they did."""
    ended = tuple(state for state in TrialState if state.is_finished())
    return len(study.get_trials(deepcopy=False, states=ended))


def store_score(study: optuna.Study, number: int, step: int, score: float) -> None:
    """Store an intermediate value, also over the one that a killed attempt at the trial left behind."""
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    study._storage.set_trial_intermediate_value(trial_id, step, score)
