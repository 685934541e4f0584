"""NSGA-II on several objectives: it moves the front, further than chance does."""

from __future__ import annotations

import math

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from autoprune.samplers import distributions, make_sampler
from tests.samplers.search import space_of

SPACE = space_of(5)
TRIALS = 60


def run(name: str) -> optuna.Study:
    """A search for high scores at a low share of the first layers; every ninth trial fails."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = make_sampler(name, seed=3, trials=TRIALS, space=SPACE, objectives=2)
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    study = optuna.create_study(directions=directions, sampler=sampler)
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


def test_two_objectives_move_the_front() -> None:
    assert hypervolume(run("nsga2")) > hypervolume(run("random"))
