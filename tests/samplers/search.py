"""A search on a synthetic score whose process can be killed, for the tests of every sampler."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from autoprune.samplers import SCORES, MovingBudget, PerTrialSampler, distributions, make_sampler
from autoprune.space import SHARE, Budget, ChoiceSpace, SearchSpace, ShareSpace, SpaceSpec, build_space
from autoprune.study._queue import claim_trial, requeue_trial, store_score
from autoprune.support.leases import this_process
from tests.space.costs import chain, dense_macs

Proposals = list[dict[str, float]]
Score = Callable[[dict[str, float]], float]


@functools.cache
def space_of(variables: int) -> SearchSpace:
    """A chain of convolutions at half its MACs, widths of 24 and 32."""
    net = chain([24 + 8 * (i % 2) for i in range(variables)])
    return build_space(*net, Budget(macs=dense_macs(net) // 2), SpaceSpec())


@functools.cache
def shared_space_of(variables: int) -> ShareSpace:
    """The same net, and the share of its MACs is searched."""
    net = chain([24 + 8 * (i % 2) for i in range(variables)])
    return ShareSpace(build_space(*net, Budget(macs=dense_macs(net)), SpaceSpec()), ["macs"])


def moving_of(space: SearchSpace, trials: int) -> MovingBudget:
    """Look for the smallest share at which a plan scores -1, from plans of one ratio and of narrow ends."""
    ends = np.linspace(1.0, 0.2, len(space.keep_ratios.variables))
    plans = {}
    for name, ratios in (("uniform", np.full(len(ends), 0.5)), ("narrow ends", ends)):
        widths = [part.decode(ratios) for _, part in space.spread(16)]
        plans[name] = space.ladder.of_ratios(space.encode(np.array(widths)))
    return MovingBudget(space, least=-1.0, plans=plans, trials=trials)


def statistic(space: SearchSpace) -> dict[str, float]:
    return {variable.name: float(i % 5) for i, variable in enumerate(space.variables)}


def waves(params: dict[str, float]) -> float:
    return sum(math.sin(5 * ratio + i) for i, ratio in enumerate(params.values()))


def upside_down(params: dict[str, float]) -> float:
    return -waves(params)


class Search:
    """A search whose process can be killed: `restart` keeps nothing but the storage.

    Every seventh trial fails. Every fifth is pruned, or fails too if `stops` is off. With
    several objectives, the score and the MACs, none is pruned. The ratios in `queued` come first, as warm
    starts do. If there are criteria, each keep ratio gets a choice of them.
    """

    def __init__(
        self,
        sampler: str,
        variables: int,
        trials: int,
        seed: int = 3,
        *,
        score: Score = waves,
        stops: bool = True,
        several: bool = False,
        moves: bool = False,
        queued: Sequence[dict[str, float]] = (),
        storage: BaseStorage | None = None,
        criteria: Sequence[str] = (),
    ) -> None:
        self.sampler, self.trials, self.seed = sampler, trials, seed
        self.score, self.stops, self.several = score, stops and not moves, several
        problem = shared_space_of(variables) if several or moves else space_of(variables)
        self.problem: SearchSpace = ChoiceSpace(problem, criteria) if criteria else problem
        self.moving = moving_of(self.problem, trials) if moves else None
        self.space = distributions(self.problem.variables)
        self.storage = storage or InMemoryStorage()
        directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * several]
        optuna.create_study(study_name="s", storage=self.storage, directions=directions)
        self.restart()
        for ratios in queued:
            self.study.enqueue_trial(ratios)

    def restart(self) -> None:
        sampler = make_sampler(
            self.sampler,
            seed=self.seed,
            trials=self.trials,
            space=self.problem,
            statistics={name: statistic(self.problem) for name in ("importance", "kl")},
            objectives=1 + self.several,
            rungs=2,
            moving=self.moving,
        )
        self.study = optuna.load_study(study_name="s", storage=self.storage, sampler=sampler)

    @property
    def wrapper(self) -> PerTrialSampler:
        assert isinstance(self.study.sampler, PerTrialSampler)
        return self.study.sampler

    def ask(self) -> Trial:
        trial = claim_trial(self.study, target=10_000, lease=this_process())
        assert trial is not None
        return trial

    def suggest(self, trial: Trial, count: int | None = None) -> None:
        for name, distribution in list(self.space.items())[:count]:
            trial.suggest_float(name, distribution.low, distribution.high)

    def tell(self, trial: Trial) -> None:
        stopped = trial.number % 5 == 4 and not self.several
        if trial.number % 7 == 3 or (stopped and not self.stops):
            self.study.tell(trial, state=TrialState.FAIL)
        elif stopped:
            self.store_scores(trial, self.score(trial.params))
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            values = self.values(trial.params)
            self.store_scores(trial, values[0], values[0] + 1)
            self.study.tell(trial, values)

    def store_scores(self, trial: Trial, *scores: float) -> None:
        """Store the scores of the rungs that a trial climbed, as an engine does."""
        for rung, score in enumerate(scores):
            store_score(self.study, trial.number, rung + 1, score)
        trial.set_user_attr(SCORES, [{"score": score} for score in scores])

    def values(self, params: dict[str, float]) -> list[float]:
        """The score, which grows with the share, and the MACs."""
        if self.moving is not None:
            plan = {name: ratio for name, ratio in params.items() if name != SHARE}
            return [self.score(plan) / 10 + math.log(params[SHARE])]
        if not self.several:
            return [self.score(params)]
        macs = self.problem.cost(self.problem.decode(np.array(list(params.values())))).macs
        return [self.score(params) + 2 * params[SHARE], float(np.ravel(macs)[0])]

    def run(self, disturb: Callable[[Search, int], None] = lambda search, n: None) -> Proposals:
        for n in range(self.trials):
            disturb(self, n)
            trial = self.ask()
            assert trial.number == n
            self.suggest(trial)
            self.tell(trial)
        return self.proposals()

    def filled(self, proposals: Proposals) -> NDArray[np.float64]:
        """How much of the budget, or of the share of it that was proposed, each proposal uses."""
        ratios = np.array([list(proposal.values()) for proposal in proposals])
        usage = self.problem.usage(self.problem.decode(ratios))
        if isinstance(self.problem, ShareSpace):
            usage = usage / self.problem.shares[self.problem.ladder.of_ratios(ratios)[:, 0]]
        return usage

    def proposals(self) -> Proposals:
        return [trial.params for trial in self.study.get_trials(deepcopy=False)]


def kill_somewhere(search: Search, n: int) -> None:
    """Kill trial n once: before its proposal, after some of its parameters, or after its first score."""
    trial = search.ask()
    stage = n % (len(search.space) + 2)
    if stage:
        search.suggest(trial, stage)
    if stage == len(search.space) + 1:
        store_score(search.study, n, 1, 0.5)
    search.restart()
    requeue_trial(search.study, n)
