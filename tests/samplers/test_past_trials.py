"""The history: order of finishing, plans in place of proposals, and who counts."""

from __future__ import annotations

import datetime

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.samplers import ENDED_BEFORE, OUTCOME, SamplerContext, distributions
from autoprune.samplers._past_trials import feasible, read_history
from tests.samplers.search import space_of

SPACE = space_of(3)


def context() -> SamplerContext:
    return SamplerContext(seed=0, search_seed=0, trials=10, space=SPACE)


def add(
    study: optuna.Study,
    place: float,
    minute: int,
    state: TrialState = TrialState.COMPLETE,
    ended_before: int | None = None,
) -> None:
    names = distributions(SPACE.variables)
    params = {name: each.low + place * (each.high - each.low) for name, each in names.items()}
    trial = create_trial(
        params=params,
        distributions=dict(names),
        value=place if state == TrialState.COMPLETE else None,
        state=state,
        user_attrs={} if ended_before is None else {OUTCOME: {ENDED_BEFORE: ended_before}},
    )
    trial.datetime_complete = datetime.datetime(2026, 1, 1, 0, minute)
    study.add_trial(trial)


def next_trial(study: optuna.Study) -> FrozenTrial:
    return create_trial(state=TrialState.WAITING) if not study.trials else study.trials[-1]


def test_outcomes_come_in_the_order_of_finishing_and_ties_by_number() -> None:
    study = optuna.create_study(direction="maximize")
    for place, minute in ((0.1, 30), (0.2, 10), (0.3, 20), (0.4, 20)):
        add(study, place, minute)
    study.ask()
    history = read_history(context(), study, next_trial(study))
    assert [outcome.score for outcome in history.outcomes] == [0.2, 0.3, 0.4, 0.1]


def test_the_studys_count_of_ends_is_believed_before_the_clocks_of_machines() -> None:
    study = optuna.create_study(direction="maximize")
    for place, minute, ended_before in ((0.1, 30, 1), (0.2, 10, 2), (0.3, 20, None), (0.4, 40, 0)):
        add(study, place, minute, ended_before=ended_before)
    study.ask()
    history = read_history(context(), study, next_trial(study))
    assert [outcome.score for outcome in history.outcomes] == [0.3, 0.4, 0.1, 0.2]


def test_outcomes_hold_the_plans_that_were_scored() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, 0.9, 1)
    history = read_history(context(), study, next_trial(study))
    plan = history.outcomes[0].ratios
    asked = np.array(list(study.trials[0].params.values()))
    assert (plan != asked).any()
    np.testing.assert_array_equal(SPACE.decode(plan), SPACE.decode(asked))


def test_failed_and_pruned_trials_teach_nothing_but_are_known() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, 0.2, 1, TrialState.FAIL)
    add(study, 0.5, 2, TrialState.PRUNED)
    add(study, 0.8, 3)
    study.ask()
    history = read_history(context(), study, next_trial(study))
    assert [outcome.score for outcome in history.outcomes] == [0.8]
    plans = feasible(context(), np.array([list(trial.params.values()) for trial in study.trials[:3]]))
    assert history.seen == {plan.tobytes() for plan in plans}


def test_scores_are_higher_for_better_if_the_study_minimises() -> None:
    study = optuna.create_study(direction="minimize")
    add(study, 0.3, 1)
    assert read_history(context(), study, next_trial(study)).outcomes[0].score == -0.3
