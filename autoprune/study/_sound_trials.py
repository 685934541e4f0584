"""Hides the damaged trials of a study from everything that reads trials, and reports each of them once.

Example:
    view = sound_view(study, objectives=1)      # an Optuna study over the same storage
    view.get_trials(deepcopy=False)

Reports, samplers, pruners and the queue all read trials through this view. It shows trials of the earlier
layout in the layout of today.
"""

from __future__ import annotations

import copy
import logging

import optuna
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import StudyError
from autoprune.samplers import view_study
from autoprune.study._trial_attributes import TrialAttributes, read_attributes

_log = logging.getLogger(__name__)


def sound_view(study: optuna.Study, objectives: int) -> optuna.Study:
    """Return a study over the same storage that lists only the trials whose attributes can be read."""
    inspector = _Inspector(objectives)
    return view_study(
        study,
        lambda trial: inspector.shown(trial) is not None,
        shown_as=lambda trial: inspector.shown(trial) or trial,
    )


class _Inspector:
    """Checks trials. Those that have ended are checked once, since they no longer change."""

    def __init__(self, objectives: int) -> None:
        self._objectives = objectives
        self._ended: dict[int, FrozenTrial | None] = {}
        self._reported: set[int] = set()

    def shown(self, trial: FrozenTrial) -> FrozenTrial | None:
        """Return a trial in the layout of today, or None if it is damaged."""
        if trial.number in self._ended:
            return self._ended[trial.number]
        shown = self._inspect(trial)
        if trial.state.is_finished():
            self._ended[trial.number] = shown
        return shown

    def _inspect(self, trial: FrozenTrial) -> FrozenTrial | None:
        try:
            attributes = read_attributes(trial, self._objectives)
        except StudyError as error:
            if trial.number not in self._reported:
                self._reported.add(trial.number)
                _log.warning("%s", error)
            return None
        return _as_pruned(trial, attributes) if _is_of_earlier_layout(trial, attributes) else trial


def _is_of_earlier_layout(trial: FrozenTrial, attributes: TrialAttributes) -> bool:
    """Return whether a pruned trial is stored as complete, with the value that samplers were shown for it."""
    return trial.state == TrialState.COMPLETE and attributes.outcome.stopped


def _as_pruned(trial: FrozenTrial, attributes: TrialAttributes) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.state = TrialState.PRUNED
    shown.values = [attributes.scores[-1].score] if attributes.scores else None
    return shown
