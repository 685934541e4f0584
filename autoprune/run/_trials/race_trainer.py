"""Trains the entrants of a race to the end of a stage, in the process of the search or in workers.

Example:
    trainer = RaceTrainer(parts)
    next(trainer(widths, RaceStage(5))).score          # trains to epoch 5
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.config.rungs import RungScore
from autoprune.errors import TrialError
from autoprune.run._resolving.ranking import decode_ranking
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.race_plan import RaceStage
from autoprune.run._trials.retraining import cool_down, retrain, training_state
from autoprune.run._trials.scoring import ScoreParts, ScorerFactory, with_weights
from autoprune.score import cut_model, plan_of
from autoprune.study import Samples
from autoprune.support.events import Watcher, silent
from autoprune.support.memory import release_freed_memory
from autoprune.training import measure


@dataclass(frozen=True)
class StageScore(RungScore):
    """The score of an entrant at the end of a stage.

    Attributes:
        samples: the values of the samples after the last stage, if the metric is a mean over samples.
        failure: the reason if the training diverged. The score is NaN then.
        curve: epoch, loss and score of all epochs so far.
    """

    samples: Samples | None = None
    failure: str | None = None
    curve: tuple[tuple[int, float, float], ...] = ()


class RaceTrainer:
    """Trains candidates to the end of a stage. It is a scorer, which gives one score.

    Args:
        parts: model, data and settings.
        watch: called with an event for each epoch.
    """

    def __init__(self, parts: ScoreParts, watch: Watcher = silent) -> None:
        self._parts = parts
        self._cut_from = with_weights(parts.prunable, parts.supernet)
        self._importance = decode_ranking(parts.ranking)
        others = parts.others or {}
        self._rankings = {criterion: decode_ranking(each) for criterion, each in others.items()}
        self._watch = watch

    def __call__(self, widths: Mapping[str, int], stage: RaceStage) -> Iterator[RungScore]:
        """Yield the score after a stage.

        Args:
            widths: the candidate.
            stage: the epoch after which to stop, and the learning rate. The seed is that of [finetune].
        """
        release_freed_memory()
        started = time.perf_counter()
        until = stage.end
        try:
            score = self._train(widths, until, self._parts.spec.with_learning_rate(stage.learning_rate))
        except TrialError as error:
            yield StageScore(0, _name(until), float("nan"), time.perf_counter() - started, failure=str(error))
        else:
            yield score

    def _train(self, widths: Mapping[str, int], until: int, spec: RunSpec) -> StageScore:
        started = time.perf_counter()
        dense, setting = self._parts.dense, self._parts.setting
        plan = plan_of(self._parts.prunable, widths, self._importance, self._rankings)
        small = cut_model(self._cut_from, plan, self._parts.moments)
        state = training_state(spec, widths)
        trained = retrain(small, dense, spec, setting, state=state, until=until, watch=self._watch)
        record, samples = trained.records[until - 1], None
        if until == spec.finetune.epochs:
            found = measure(small, dense.data.val, dense.task, setting).samples
            samples = None if found is None else Samples.pack(found.numpy().astype(np.float64))
        elif not spec.finetune.ema and len(trained.records) == until:
            # The average of the weights needs no cool-down, and a finetune may have left later weights.
            best = max(each.score for each in trained.records)
            record = cool_down(small, dense, spec, setting, after=until, best_score=best)
        curve = tuple((each.epoch, each.loss, each.score) for each in trained.records[:until])
        seconds = time.perf_counter() - started
        error = record.standard_error
        return StageScore(0, _name(until), record.score, seconds, error, samples=samples, curve=curve)


@dataclass(frozen=True)
class RaceTrainerFactory:
    """Builds a trainer in a worker. All its attributes can be pickled."""

    scorer: ScorerFactory

    def __call__(self) -> RaceTrainer:
        """Load the parts, as the scorer of the search does, and build the trainer."""
        return RaceTrainer(self.scorer.load())


def _name(until: int) -> str:
    return f"{until} epochs"
