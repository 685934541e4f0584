"""Optuna's pruners by name, one row of PRUNERS each. A verdict depends on the storage and the trial alone.

Example:
    early = EarlyStopping(study, make_pruner("median", rungs=3))
    early.should_stop(7, scores=[0.71])      # trial 7 after rung 0
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import a_kind
from autoprune.samplers import view_study
from autoprune.study import is_warm_start, took_scores
from autoprune.support.rows import Row, find_row, guarding

REDUCTION = 3
"""Halving keeps the best third of each rung. Steps are powers of 3, so that Optuna's rungs are ours."""


class WarmStartsClimb(BasePruner):
    """Lets a pruner judge all trials except warm starts, which always climb all rungs.

    The result of a search is never worse than its warm starts. That holds only if they are scored to the end.

    Args:
        pruner: judges all other trials.
        name: the pruner's name in the config, for errors of a user's own pruner.
    """

    def __init__(self, pruner: BasePruner, name: str = "") -> None:
        self.pruner = pruner
        self._name = name

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial that has just reported should stop."""
        with guarding(self._name, "search.pruner"):
            return not is_warm_start(trial) and bool(self.pruner.prune(study, trial))


class AmongSampled(BasePruner):
    """Lets a pruner compare a trial with all others that the sampler proposed, pruned or complete.

    Optuna's median and percentile pruners compare with complete trials only. Good warm starts would fill that
    list before the sampler's first trial, and a pruned trial never joins the list. So hardly any trial would
    pass the first rung. A trial that took another's scores is left out, because it is no second measurement.

    The pruner sees the last score of the trial only. Optuna's pruners compare the trial's best score on any
    rung with the other trials' scores on this rung. If a finetune costs accuracy, they would prune nothing
    after it.

    Args:
        pruner: judges. Its start-up trials are counted among those that the sampler proposed.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial that has just reported should stop."""
        latest = copy.copy(trial)
        latest.intermediate_values = dict([max(trial.intermediate_values.items())])
        return bool(self._pruner.prune(view_study(study, _is_sampled, shown_as=_complete_if_pruned), latest))


def _complete_if_pruned(trial: FrozenTrial) -> FrozenTrial:
    if trial.state == TrialState.PRUNED:
        trial = copy.copy(trial)
        trial.state = TrialState.COMPLETE
    return trial


def _is_sampled(trial: FrozenTrial) -> bool:
    """Return whether the sampler proposed a trial, with widths that were new."""
    return not is_warm_start(trial) and not took_scores(trial)


class ByScores(BasePruner):
    """Lets Optuna's halving compare a trial with the scores of all others, whichever pruner judged those.

    Optuna's halving reads marks that it left on the other trials, `completed_rung_0` and so on. Other pruners
    leave no marks, and Hyperband counts from the first rung of a bracket. After a change of the pruner, a
    recalibrated model would be ranked among finetuned ones, or alone. So the marks of the other trials are
    computed again from their scores.

    Args:
        pruner: judges. It is halving, or Hyperband, which compares trials of one bracket only.
    """

    def __init__(self, pruner: BasePruner) -> None:
        self._pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial that has just reported should stop."""
        judged = sum(name.startswith(_MARK) for name in trial.system_attrs)
        first = len(trial.intermediate_values) - 1 - judged  # the rung at which its bracket begins

        def marked(other: FrozenTrial) -> FrozenTrial:
            other = copy.copy(other)
            scores = [score for _, score in sorted(other.intermediate_values.items())][first:]
            other.system_attrs = {f"{_MARK}{rung}": score for rung, score in enumerate(scores)}
            return other

        def is_other(other: FrozenTrial) -> bool:
            return other.number != trial.number and _has_scores(other)

        return bool(self._pruner.prune(view_study(study, is_other, shown_as=marked), trial))


_MARK = "completed_rung_"


def _has_scores(trial: FrozenTrial) -> bool:
    """Return whether a trial has scores of its own: it neither failed nor waits, and reused no scores."""
    climbed = trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return climbed and not took_scores(trial)


def _median(rungs: int) -> BasePruner:
    return AmongSampled(MedianPruner(n_startup_trials=5))


def _percentile(rungs: int) -> BasePruner:
    return AmongSampled(PercentilePruner(25.0, n_startup_trials=8))


def _halving(rungs: int) -> BasePruner:
    return ByScores(SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION))


def _hyperband(rungs: int) -> BasePruner:
    most = rung_step(rungs - 1) + 1
    return ByScores(HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=REDUCTION))


def _none(rungs: int) -> BasePruner:
    return NopPruner()


@dataclass(frozen=True)
class PrunerSpec(Row):
    """A row of PRUNERS.

    Attributes:
        make: from the number of rungs to a pruner of Optuna's.
        prunes: whether it can stop a trial.
    """

    make: Callable[[int], BasePruner]
    prunes: bool = True


PRUNERS: dict[str, PrunerSpec] = {
    "none": PrunerSpec(_none, prunes=False, about="every trial climbs all rungs"),
    "median": PrunerSpec(
        _median, about="the better half climbs on, judged among the trials that the sampler proposed"
    ),
    "percentile": PrunerSpec(_percentile, about="the best quarter climbs on, judged like median"),
    "halving": PrunerSpec(
        _halving, about="the best third of each rung climbs on, judged among warm starts as well"
    ),
    "asha": PrunerSpec(_halving, about="another name of halving, which is asynchronous"),
    "hyperband": PrunerSpec(_hyperband, about="halving in several brackets, which begin at different rungs"),
}
"""{name: pruner}. Each ranks a trial among all trials that reached its rung, pruned ones too.

Hyperband assigns trial n to a bracket by a hash of the study's name and n, so a resumed trial stays in its
bracket. Unlike in `Study.optimize`, the sampler learns from all brackets, because each holds few trials.
"""


def find_pruner(name: str) -> PrunerSpec:
    """Return a row of PRUNERS, or the user's own from "package.module:function".

    Raises:
        ConfigError: there is no such row (the nearest is suggested), or no such function.
    """
    return find_row(name, PRUNERS, "search.pruner", PrunerSpec)


def make_pruner(name: str, rungs: int) -> BasePruner:
    """Make a pruner by name.

    Raises:
        ConfigError: the name is unknown (the nearest is suggested), or a user's own function makes no pruner.
    """
    spec = find_pruner(name)
    with guarding(name, "search.pruner"):
        pruner: object = spec.make(rungs)
        if not isinstance(pruner, BasePruner):
            raise TypeError(f"it gave {a_kind(pruner)}, expected a pruner of Optuna's")
    return WarmStartsClimb(pruner, name)


def rung_step(index: int) -> int:
    """Return the step under which rung `index` is reported to Optuna: 1, 3, 9, ..."""
    return int(REDUCTION**index)


class EarlyStopping:
    """Judges running trials after each rung.

    The pruner sees the scores of the present attempt at the trial, without those that a killed attempt left
    in the storage (Optuna cannot delete them). It sees all other trials as stored. So a resumed trial gets
    the same verdicts.
    """

    def __init__(self, study: optuna.Study, pruner: BasePruner) -> None:
        self._study = study
        self.pruner = pruner
        self._marks: dict[int, dict[str, Any]] = {}

    def should_stop(self, number: int, scores: Sequence[float]) -> bool:
        """Return whether trial `number` should stop after the last of its scores, which begin at rung 0."""
        if len(scores) == 1:
            self._marks[number] = {}
        marks = self._marks[number]
        trials = self._study.get_trials(deepcopy=False)
        attempt = copy.copy(next(trial for trial in trials if trial.number == number))
        attempt.intermediate_values = {rung_step(index): score for index, score in enumerate(scores)}
        attempt.system_attrs = dict(marks)
        others = view_study(self._study, lambda other: other.number != number, marks)
        return bool(self.pruner.prune(others, attempt))
