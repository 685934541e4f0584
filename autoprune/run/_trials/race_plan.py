"""The plan of a race: when its stages end, which trials enter, and which go on after a stage.

Example:
    stage_ends(20)                                                    # (1, 5, 20)
    scores = {3: (0.5, 0.91), 7: (0.6, 0.93), 0: (0.7, 0.9)}
    survivors(scores, (100, 195), 1, uniform=0)                       # [7, 0]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from autoprune.run._measuring.heuristics import family_of
from autoprune.run._measuring.warm_starts import TRIALS_PER_WARM_START
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.retraining import COOL_DOWN
from autoprune.study import SearchStudy, TrialRecord

FACTOR = 4
"""Each stage has this many times the epochs of the one before."""

STAGES = 3

UNIFORM = "uniform"
"""The warm start that is the yardstick: it trains to the end."""


class RaceStage(NamedTuple):
    """A stage as a job of a race carries it.

    Attributes:
        end: the epoch after which it ends.
        learning_rate: the highest one of the training, or None for finetune.learning_rate.
    """

    end: int
    learning_rate: float | None = None

    def __str__(self) -> str:
        return f"{self.end}" if self.learning_rate is None else f"{self.end}-{self.learning_rate:g}"


def stage_ends(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which the stages of a schedule end.

    A stage is at least an epoch long, so that short schedules have fewer stages.
    """
    shares = (FACTOR**stage for stage in range(STAGES))
    return tuple(sorted({max(1, round(epochs / share)) for share in shares}))


def learning_rates(spec: RunSpec) -> tuple[float | None, ...]:
    """Return the learning rates of a race. The first is None, which stands for finetune.learning_rate."""
    known = spec.finetune.learning_rate
    others = dict.fromkeys(rate for rate in spec.race.learning_rates if rate != known)
    return (None, *others) if len(stage_ends(spec.finetune.epochs)) > 1 else (None,)


def places(entrants: int, stages_left: int) -> int:
    """Return how many entrants, without uniform, take part in a stage.

    Args:
        entrants: number at the start of the race, without uniform.
        stages_left: number of stages after this one.
    """
    return 1 if stages_left == 0 else math.ceil(entrants / 2)


def survivors(
    scores: Mapping[int, Sequence[float]], steps: Sequence[float], count: int, *, uniform: int | None
) -> list[int]:
    """Return the trials that go on: the best `count`, and uniform.

    The order is that of the mean rank over all scores so far, since each of them is noisy. The ranks of a
    score weigh as much as the steps of its training, because longer trainings predict better. On a small data
    set the rungs train longer than the first stage. Of equal ranks the last score counts, then the earlier
    trial.

    Args:
        scores: {trial: its scores after the last rung and after each stage}.
        steps: length of the training before each score.
        count: how many go on in addition to uniform.
        uniform: number of the trial with one keep ratio for all groups, or None if it does not take part.
    """
    others = [number for number in scores if number != uniform]
    so_far = np.array([scores[number] for number in others]).reshape(len(others), len(steps))
    ranks = rankdata(-so_far, axis=0) @ np.array(steps)
    order = {number: (rank, -scores[number][-1], number) for number, rank in zip(others, ranks, strict=True)}
    best = sorted(others, key=order.__getitem__)[:count]
    return best if uniform is None or uniform not in scores else [*best, uniform]


def trained_steps(spec: RunSpec, ends: Iterable[int], per_epoch: int) -> list[float]:
    """Return the steps that an entrant has trained at the last rung, and at the end of each stage.

    Args:
        spec: the settings.
        ends: the epochs after which the stages end.
        per_epoch: batches of an epoch.
    """
    on_rungs = sum((rung.steps or 0) + (rung.epochs or 0) * per_epoch for rung in spec.rungs)
    return [on_rungs, *((1 + COOL_DOWN) * end * per_epoch for end in ends)]


def race_epochs(epochs: int, entrants: int, *, uniform: bool, rates: int = 1) -> float:
    """Return the epochs that all trainings of a race have in sum, with the cool-downs.

    Args:
        epochs: length of the whole schedule.
        entrants: number of entrants without uniform.
        uniform: whether uniform takes part as well.
        rates: number of learning rates that are compared. The first one is assumed to go on.
    """
    ends = stage_ends(epochs)
    total, before = float(epochs if uniform else 0), 0
    for stage, end in enumerate(ends):
        count = entrants if stage == 0 else places(entrants, len(ends) - 1 - stage)
        total += count * (end - before)
        total += (count + uniform) * COOL_DOWN * end if end < epochs else 0.0
        # Learning rates are compared after the last stage but one. A race of a single stage compares none.
        if end == ends[-2:][0] < epochs:
            total += (rates - 1) * (count + uniform) * (1 + COOL_DOWN) * end
        before = end
    return total


def expected_epochs(spec: RunSpec) -> float:
    """Return the epochs that the race of a search will have in sum, if no trials coincide."""
    if not spec.has_race:
        return 0
    search = spec.search
    starts = search.warm_starts[: search.trials // TRIALS_PER_WARM_START]
    families = {family_of(name) for name in starts} - {UNIFORM}
    entrants = min(spec.race.entrants + len(families), search.trials)
    rates = len(learning_rates(spec))
    return race_epochs(spec.finetune.epochs, entrants, uniform=UNIFORM in starts, rates=rates)


def entrants_of(study: SearchStudy, most: int) -> list[TrialRecord]:
    """Return the trials of a study that enter a race.

    Heuristics that were not measured to be surely within the latency budget stay out.

    Args:
        study: a study with a complete trial.
        most: how many of the best trials enter.
    """
    finished = study.finished()
    within = [each for each in finished if each.measured is None or each.measured.keeps_surely]
    return choose_entrants(study.contenders(), within, most)


def choose_entrants(
    contenders: Iterable[TrialRecord], finished: Iterable[TrialRecord], most: int
) -> list[TrialRecord]:
    """Return the trials that enter a race, by number: the best ones, and the best of each heuristic family.

    Trials with equal widths and criteria enter once.

    Args:
        contenders: the trials that may be the best one.
        finished: all trials that climbed every rung.
        most: how many of the best trials enter.
    """
    best = _distinct(contenders)[:most]
    families: dict[str, TrialRecord] = {}
    for record in _distinct(finished):
        for name in record.origin.split(", ") if record.is_warm_start else ():
            families.setdefault(family_of(name), record)
    return sorted(_distinct([*best, *families.values()]), key=lambda record: record.number)


def uniform_of(entrants: Iterable[TrialRecord]) -> int | None:
    """Return the number of the trial with one keep ratio for all groups, or None if it did not enter."""
    return next((each.number for each in entrants if UNIFORM in each.origin.split(", ")), None)


def _distinct(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the records of different candidates, the best score first, of equals the earliest.

    If workers scored a candidate more than once, a warm start stands for it, because its origin counts.
    """
    found: dict[tuple[object, ...], TrialRecord] = {}
    for record in sorted(records, key=lambda record: (-(record.score or 0.0), record.number)):
        key = (*record.widths.values(), *record.criteria.values())
        known = found.setdefault(key, record)
        if record.is_warm_start and not known.is_warm_start:
            found[key] = record
    return list(found.values())
