"""NSGA-II: its Pareto front is better than chance, and it crosses trials that it did not propose."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from autoprune.samplers import distributions, make_sampler
from tests.samplers.search import space_of

SPACE = space_of(5)
TRIALS = 60
POPULATION = 12


def study_of(name: str, objectives: int) -> optuna.Study:
    """The first objective is maximised, the second is not."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = make_sampler(name, seed=3, trials=TRIALS, space=SPACE, objectives=objectives)
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][:objectives]
    return optuna.create_study(directions=directions, sampler=sampler)


def run(name: str) -> optuna.Study:
    """A search for high scores at a low share of the first layers; every ninth trial fails."""
    study = study_of(name, 2)
    for n in range(TRIALS):
        trial = study.ask(dict(distributions(SPACE.variables)))
        ratios = np.array(list(trial.params.values()))
        if n % 9 == 5:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, [float(np.sin(3 * ratios).sum()), float((ratios**2).sum())])
    return study


def hypervolume(study: optuna.Study) -> float:
    """The area between the front and the corner (score 0, cost 5)."""
    front = sorted((cost, score) for score, cost in (trial.values for trial in study.best_trials))
    costs = [*(cost for cost, _ in front[1:]), 5.0]
    return math.fsum(score * (after - cost) for (cost, score), after in zip(front, costs, strict=True))


def test_two_objectives_improve_the_pareto_front() -> None:
    assert hypervolume(run("nsga2")) > hypervolume(run("random"))


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("warm", [3, POPULATION, 2 * POPULATION])
def test_warm_starts_count_to_the_first_generation(warm: int, objectives: int) -> None:
    """Children hold the ratios of parents but for mutations, one in five; parents are the best so far."""
    study = study_of("nsga2", objectives)
    rng = np.random.default_rng(0)
    space = distributions(SPACE.variables)
    for _ in range(warm):
        study.enqueue_trial({name: rng.uniform(each.low, each.high) for name, each in space.items()})
    first = max(warm, POPULATION)
    for n in range(first + POPULATION):
        trial = study.ask(dict(space))
        study.tell(trial, [float(-n), float(n)][:objectives])  # each is worse than the one before
    ratios = [set(trial.params.values()) for trial in study.get_trials(deepcopy=False)]
    elite, others = set().union(*ratios[:POPULATION]), set().union(*ratios[POPULATION:first])
    assert len(elite) == POPULATION * len(space)
    children = [ratio for child in ratios[first:] for ratio in child]
    assert np.mean([ratio in elite for ratio in children]) > 0.6
    assert not others & set(children)


def test_a_trial_that_others_add_later_has_children_in_the_next_generation() -> None:
    study = study_of("nsga2", 1)
    space = distributions(SPACE.variables)
    star = {name: each.low + 0.01 * i for i, (name, each) in enumerate(space.items(), 1)}
    added = POPULATION + 3
    for n in range(3 * POPULATION - 1):
        if n == added:
            study.add_trial(create_trial(params=star, distributions=dict(space), value=9.0))
        study.tell(study.ask(dict(space)), 0.0)
    heirs = {trial.number for trial in study.trials if {*star.values()} & {*trial.params.values()}} - {added}
    assert min(heirs) >= 2 * POPULATION
    assert len(heirs) > 1
