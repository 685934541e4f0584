"""Hands trials over between processes: claims one, gives it back, and re-queues those of dead processes.

Example:
    trial = claim_trial(study, target=60, lease=this_process())     # None if all 60 exist
    requeue_trial(study, trial.number)

This file reaches below Optuna's public interface, which has no way to take a trial back. So do
`_database_tables` here, and `_attributes`, `_study_view` and `gp` of the samplers, and nothing else.

Several processes may do this at once, and no sequence of several writes is atomic. Two rules make it safe:
each claim is identified by its lease, and the last lease written counts. A process that reads another lease
than its own lets go of the trial.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import random
import time
from collections.abc import Container
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from autoprune.samplers import ENDED_BEFORE, OUTCOME, fact_key, fact_of, has_fact
from autoprune.study._trial_attributes import INTERRUPTIONS, LEASE, ORIGIN, PROPOSAL
from autoprune.support.leases import CLAIM_S, Lease, is_alive

MAX_INTERRUPTIONS = 2
"""A trial fails after its process has died so often: the trial itself may kill the process."""

_log = logging.getLogger(__name__)


def claim_trial(study: optuna.Study, *, target: int, lease: Lease) -> Trial | None:
    """Take the first waiting trial, or create one if the study has fewer than `target` trials.

    Counting trials and creating one are two steps. Processes that do both at the same moment may create one
    trial each. So a study can end with more than `target` trials: one more for every further process at most.

    Returns:
        The trial, or None if none waits and the study has `target` trials.
    """
    storage, study_id = study._storage, study._study_id
    # As Study.ask does: the sampler sees the trials of one moment while it proposes.
    study._thread_local.cached_all_trials = None
    waiting = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.WAITING,))
    for trial in waiting:
        if _claim_waiting(study, trial, lease):
            return Trial(study, trial._trial_id)
    if storage.get_n_trials(study_id) >= target:
        return None
    # The trial and its lease are stored in one step: a kill leaves no running trial without a lease.
    template = optuna.trial.create_trial(
        state=TrialState.RUNNING, system_attrs={fact_key(LEASE): lease.to_json()}
    )
    template.datetime_start = datetime.datetime.now()
    return Trial(study, storage.create_new_trial(study_id, template))


def _claim_waiting(study: optuna.Study, trial: FrozenTrial, lease: Lease) -> bool:
    """Take a waiting trial unless another process was faster. Only the one that gets it writes a lease."""
    storage = study._storage
    try:
        if not storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            return False
        storage.set_trial_system_attr(trial._trial_id, fact_key(LEASE), lease.to_json())
    except UpdateFinishedTrialError:
        return False
    return True


def is_taken_over(study: optuna.Study, number: int, claim: str | None) -> bool:
    """Return whether a trial waits again, or has another claim than the given one. It may have ended."""
    trial = _read(study, number)
    return trial.state == TrialState.WAITING or _claim_of(trial) != claim


def requeue_trial(study: optuna.Study, number: int) -> None:
    """Send a running trial back to the queue under its own number."""
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    # Samplers read the proposals of running trials from these attributes, which cannot be deleted.
    for key in storage.get_trial_system_attrs(trial_id):
        if ":relative_params" in key:
            storage.set_trial_system_attr(trial_id, key, "")
    storage.set_trial_system_attr(trial_id, fact_key(LEASE), None)
    # The state is written last: from then on another process may claim the trial and write its own lease.
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def give_back(study: optuna.Study, seen: FrozenTrial) -> bool:
    """Re-queue a trial that was seen running. Return False if it has been claimed again, or has ended."""
    with contextlib.suppress(UpdateFinishedTrialError):
        if _attempt(_read(study, seen.number)) == _attempt(seen):
            requeue_trial(study, seen.number)
            return True
    return False


def revive_trial(study: optuna.Study, seen: FrozenTrial) -> bool:
    """Re-queue a trial of a dead process as `give_back` does, or fail it if its process died too often.

    Returns:
        Whether the trial waits now.
    """
    storage, trial_id = study._storage, seen._trial_id
    # Without a lease, the process died while it claimed the trial: that is not the trial's fault.
    died = int(fact_of(seen, INTERRUPTIONS, 0)) + (_lease_of(seen) is not None)
    with contextlib.suppress(UpdateFinishedTrialError):
        if _attempt(_read(study, seen.number)) != _attempt(seen):
            return False
        storage.set_trial_system_attr(trial_id, fact_key(INTERRUPTIONS), died)
        # Another process may have re-queued it since, and a third one have claimed it.
        if _attempt(_read(study, seen.number)) != _attempt(seen):
            return False
        if died < MAX_INTERRUPTIONS:
            requeue_trial(study, seen.number)
            return True
        # The state is written last, because a trial that has ended takes no attributes.
        reason = f"its process died {died} times while it ran."
        _log.warning("trial %d failed: %s", seen.number, reason)
        outcome: Any = {"failure": reason, ENDED_BEFORE: count_ended(study)}
        storage.set_trial_system_attr(trial_id, fact_key(OUTCOME), outcome)
        storage.set_trial_system_attr(trial_id, fact_key(LEASE), None)
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
    return False


def held_trials(study: optuna.Study, claims: Container[str | None]) -> list[FrozenTrial]:
    """Return the running trials with one of these claims."""
    return [trial for trial in _running(study) if _claim_of(trial) in claims]


def foreign_trials(study: optuna.Study) -> dict[int, str]:
    """Return {number: host} of the running trials of other hosts, whose processes may live or be dead."""
    leases = {trial.number: _lease_of(trial) for trial in _running(study)}
    return {
        number: lease.host
        for number, lease in leases.items()
        if lease is not None and is_alive(lease) is None
    }


def unended_trials(study: optuna.Study) -> dict[int, Lease | None]:
    """Return {number: lease} of the trials that run or wait. A trial that no process holds has None."""
    states = (TrialState.RUNNING, TrialState.WAITING)
    return {trial.number: _lease_of(trial) for trial in study.get_trials(deepcopy=False, states=states)}


def dead_trials(study: optuna.Study, *, other_hosts: bool) -> list[FrozenTrial]:
    """Return the running trials whose process is dead.

    Args:
        study: of Optuna.
        other_hosts: whether the processes of other hosts count as dead.
    """
    first = {_attempt(trial) for trial in _seem_dead(study, other_hosts)}
    if not first:
        return []
    # A process that claims a waiting trial writes its lease a moment later: look again after that moment.
    # Its length is random, so that waiting processes do not re-queue the same trials at the same time.
    time.sleep(CLAIM_S * random.Random().uniform(1, 2))  # it leaves Python's own generator as it is
    return [trial for trial in _seem_dead(study, other_hosts) if _attempt(trial) in first]


def _seem_dead(study: optuna.Study, other_hosts: bool) -> list[FrozenTrial]:
    """Return the running trials of autoprune that have no live process."""
    return [
        trial
        for trial in _running(study)
        if _is_ours(trial)
        and ((alive := is_alive(_lease_of(trial))) is False or (alive is None and other_hosts))
    ]


def _is_ours(trial: FrozenTrial) -> bool:
    """Return whether autoprune runs a trial, rather than another program through `optuna.Study.ask`.

    A trial that autoprune creates has a lease from the start. A trial that waited has none if its process
    died between taking it and writing the lease. It has an origin then if it is a warm start, or a proposal
    if it ran before. A trial that a user queued with `optuna.Study.enqueue_trial` has neither. It looks like
    a trial that another program took from the queue, and is left alone.
    """
    return ORIGIN in trial.user_attrs or any(has_fact(trial, name) for name in (LEASE, PROPOSAL))


def _attempt(trial: FrozenTrial) -> tuple[int, TrialState, datetime.datetime | None, str | None]:
    """Return values that differ between two attempts at a trial: each claim sets a start, then a lease."""
    return trial.number, trial.state, trial.datetime_start, _claim_of(trial)


def _read(study: optuna.Study, number: int) -> FrozenTrial:
    storage = study._storage
    return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _lease_of(trial: FrozenTrial) -> Lease | None:
    return Lease.from_json(fact_of(trial, LEASE))


def _claim_of(trial: FrozenTrial) -> str | None:
    lease = _lease_of(trial)
    return None if lease is None else lease.claim


def count_left(study: optuna.Study, target: int) -> int:
    """Return how many trials have not ended, and how many are still to be made up to `target`, in sum.

    Damaged trials do not count, since they can neither run nor wait.
    """
    unended = tuple(state for state in TrialState if not state.is_finished())
    present = len(study.get_trials(deepcopy=False, states=unended))
    return present + max(0, target - study._storage.get_n_trials(study._study_id))


def count_ended(study: optuna.Study) -> int:
    """Return how many trials have ended: complete, pruned or failed."""
    ended = tuple(state for state in TrialState if state.is_finished())
    return len(study.get_trials(deepcopy=False, states=ended))


def store_score(study: optuna.Study, number: int, step: int, score: float) -> None:
    """Store an intermediate value. It replaces the value of an earlier attempt that was killed."""
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    study._storage.set_trial_intermediate_value(trial_id, step, score)
