"""Moves the budget between trials towards the smallest one whose plans reach a score.

Example:
    moving = MovingBudget(space, least=0.94, plans={"reconstruction": levels}, trials=60)
    step = moving.next(trials, number=7)         # of the trials before it
    step.level, step.plan                        # the level of the budget's share, and a plan or None

A trial passes if its score is at least `least`. First a bisection over the plans of the first heuristic finds
where they begin to pass. Then each other heuristic gets a trial just below this edge. Then the sampler
proposes plans a step below the smallest budget that passed. The step doubles after a success and halves after
a failure. It depends on the trials before alone, so that a resumed search makes the same steps.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from autoprune.samplers._past_trials import place_of_end
from autoprune.space import SHARE, SearchSpace
from autoprune.support.arrays import IntArray

PLANNED = "autoprune:planned"
"""The attribute of a trial: [heuristic, position of its plan], or None if the sampler proposed it."""

NEAR = 1.5
"""The sampler learns from trials whose share is within this factor of the one that it proposes for."""

WARM_SHARE = 3
"""At most one trial of this many gets the plan of a heuristic, apart from the bisection."""


@dataclass(frozen=True)
class Step:
    """The budget of one trial, and the plan of a heuristic for it.

    Attributes:
        level: of the share of the budget.
        planned: heuristic and position of its plan, or None if the sampler proposes a plan.
        plan: levels [k] of all variables, or None.
    """

    level: int
    planned: tuple[str, int] | None = None
    plan: IntArray | None = None


@dataclass(frozen=True, eq=False)
class MovingBudget:
    """Chooses the share of the budget for each trial.

    Attributes:
        space: whose first variable is the share.
        least: the smallest score that passes.
        plans: {heuristic: levels [m, k] of all variables, by ascending share}. The first one is bisected.
        trials: number of trials of the search.
    """

    space: SearchSpace
    least: float
    plans: Mapping[str, IntArray]
    trials: int

    def next(self, trials: Sequence[FrozenTrial], number: int) -> Step:
        """Return the step of trial `number`, which depends on the trials that began before it or ended."""
        known = [each for each in trials if each.state.is_finished() or each.number < number]
        known = [each for each in known if each.number != number and SHARE in each.params]
        return (
            self._bisect(known) or self._compare(known) or Step(max(0, self._edge(known) - self._step(known)))
        )

    def passes(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is complete and its score is high enough."""
        return bool(trial.state == TrialState.COMPLETE and trial.values[0] >= self.least)

    def level_of(self, trial: FrozenTrial) -> int:
        """Return the level of a trial's share, or the highest one if it has none yet."""
        share = trial.params.get(SHARE, self.space.shares[-1])
        return int(self.space.ladder.rows[0].of_ratio(np.array([share]))[0])

    def near(self, trials: Sequence[FrozenTrial], level: int) -> dict[int, FrozenTrial]:
        """Return {number: the trial as the sampler is shown it} for the trials near a level of the share.

        Of a complete trial, the score is shown as the distance to a line that is fitted to scores over the
        logarithm of the share. So the sampler learns which plans are better than others of their budget. The
        share itself is hidden.
        """
        near = [each for each in trials if self._is_near(each, level)]
        scored = [each for each in near if each.state == TrialState.COMPLETE]
        shares = np.log([each.params[SHARE] for each in scored])
        scores = np.array([each.values[0] for each in scored])
        # A line through two shares alone would leave no distances at all.
        degree = 1 if len(set(shares.tolist())) > 2 else 0
        fitted = np.polynomial.Polynomial.fit(shares, scores, degree)(shares) if len(scored) else scores
        above = dict(zip((each.number for each in scored), (scores - fitted).tolist(), strict=True))
        return {each.number: without_share(each, above.get(each.number)) for each in near}

    def _is_near(self, trial: FrozenTrial, level: int) -> bool:
        share = trial.params.get(SHARE)
        if share is None:  # it has no parameters yet
            return not trial.state.is_finished()
        here = float(self.space.shares[level])
        return bool(here / NEAR <= share <= here * NEAR)

    def _bisect(self, trials: Sequence[FrozenTrial]) -> Step | None:
        """Return the plan between the smallest that passes and the largest below that does not, if any."""
        if not self.plans:
            return None
        name = next(iter(self.plans))
        low, high, running = self._bracket(trials)
        # Plans that run now divide the gap as well, so that parallel workers try different ones.
        points = [low, *(place for place in running if low < place < high), high]
        gaps = [(after - before, -before) for before, after in itertools.pairwise(points)]
        # Of equal gaps the lowest one, because positions are negated.
        gap, start = max(gaps)
        return self._planned(name, -start + gap // 2) if gap > 1 else None

    def _bracket(self, trials: Sequence[FrozenTrial]) -> tuple[int, int, list[int]]:
        """Return the positions of the first heuristic's plans that enclose the edge, and those that run."""
        name = next(iter(self.plans))
        tried: dict[int, FrozenTrial] = {}
        for trial in trials:
            planned = self._planned_of(trial)
            if planned is not None and planned[0] == name:
                tried[planned[1]] = trial
        ended = {place: self.passes(each) for place, each in tried.items() if each.state.is_finished()}
        high = min((place for place, passed in ended.items() if passed), default=len(self.plans[name]))
        low = max((place for place, passed in ended.items() if not passed and place < high), default=-1)
        return low, high, sorted(tried.keys() - ended.keys())

    def _compare(self, trials: Sequence[FrozenTrial]) -> Step | None:
        """Return the plan of the next heuristic just below the edge of the first, if it may have a trial."""
        done = {planned[0] for each in trials if (planned := self._planned_of(each)) is not None}
        left = [name for name in self.plans if name not in done]
        tried = sum(self._planned_of(each) is not None for each in trials)
        if not left or tried >= self.trials // WARM_SHARE:
            return None
        _, high, _ = self._bracket(trials)
        return self._planned(left[0], min(max(high - 1, 0), len(self.plans[left[0]]) - 1))

    def _planned(self, name: str, place: int) -> Step:
        plan = self.plans[name][place]
        return Step(int(plan[0]), (name, place), plan)

    def _planned_of(self, trial: FrozenTrial) -> tuple[str, int] | None:
        """Return heuristic and position of a trial's plan, or None if the sampler proposed it."""
        kept = trial.system_attrs.get(PLANNED)
        if kept is None or kept[0] not in self.plans or not 0 <= kept[1] < len(self.plans[kept[0]]):
            return None
        return kept[0], kept[1]

    def _edge(self, trials: Sequence[FrozenTrial]) -> int:
        """Return the smallest level that passed, or one above the highest if none did."""
        return min(
            (self.level_of(each) for each in trials if self.passes(each)), default=len(self.space.shares)
        )

    def _step(self, trials: Sequence[FrozenTrial]) -> int:
        """Return by how many levels the next trial is below the edge."""
        ended = sorted((each for each in trials if each.state.is_finished()), key=place_of_end)
        step, edge = self._first_step(), len(self.space.shares)
        for trial in ended:
            gained = self.passes(trial) and self.level_of(trial) < edge
            # Only the sampler's proposals were placed by the step, so only they change it.
            if self._planned_of(trial) is None:
                step = 2 * step if gained else max(1, step // 2)
            edge = self.level_of(trial) if gained else edge
        return step

    def _first_step(self) -> int:
        """Return half of the mean distance of two plans of the bisection."""
        levels = next((plans[:, 0] for plans in self.plans.values()), np.arange(len(self.space.shares)))
        return max(1, int(np.ptp(levels)) // (2 * max(1, len(levels) - 1)))


def without_share(trial: FrozenTrial, value: float | None = None) -> FrozenTrial:
    """Return a copy without the share, and with another value unless that is None."""
    shown = copy.copy(trial)
    shown.distributions = {name: each for name, each in trial.distributions.items() if name != SHARE}
    shown.params = {name: each for name, each in trial.params.items() if name != SHARE}
    if value is not None:
        shown.values = [value]
    return shown
