"""A failed trial is shown with the worst score before it, and that never changes."""

from __future__ import annotations

import datetime

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.samplers import ENDED_BEFORE, OUTCOME
from autoprune.samplers._failed_trials import as_worst

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE


def ended(number: int, values: list[float] | None, state: TrialState, before: int) -> FrozenTrial:
    """A trial that ended when `before` others had."""
    trial = create_trial(state=state, values=values, user_attrs={OUTCOME: {ENDED_BEFORE: before}})
    trial.number = number
    trial.datetime_complete = datetime.datetime(2026, 1, 1)
    return trial


def complete(number: int, values: list[float], before: int) -> FrozenTrial:
    return ended(number, values, TrialState.COMPLETE, before)


def failed(number: int, before: int) -> FrozenTrial:
    return ended(number, None, TrialState.FAIL, before)


def test_a_failure_is_worth_the_worst_of_each_objective_before_it() -> None:
    trials = [
        complete(0, [0.5, 9.0], 0),
        complete(1, [0.8, 4.0], 1),
        failed(2, 2),
        complete(3, [0.1, 99.0], 3),
    ]
    shown = as_worst([UP, DOWN], trials)
    assert {number: trial.values for number, trial in shown.items()} == {2: [0.5, 9.0]}
    assert shown[2].state == TrialState.COMPLETE
    assert trials[2].state == TrialState.FAIL


def test_before_means_by_the_order_of_ends_whatever_the_numbers() -> None:
    trials = [failed(0, 2), complete(1, [0.5], 1), complete(2, [0.7], 0), complete(3, [0.2], 3)]
    assert as_worst([UP], trials)[0].values == [0.5]
    assert as_worst([UP], trials[::-1])[0].values == [0.5]


def test_a_failure_before_any_success_is_not_shown() -> None:
    assert as_worst([UP], [failed(0, 0), complete(1, [0.5], 1)]) == {}


def test_pruned_and_running_trials_are_not_failed() -> None:
    running = create_trial(state=TrialState.RUNNING)
    trials = [complete(0, [0.5], 0), ended(1, [0.1], TrialState.PRUNED, 1), running]
    assert as_worst([UP], trials) == {}
