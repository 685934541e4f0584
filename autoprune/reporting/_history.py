"""The history of a search: its best score so far, and the warm starts against the sampler.

Example:
    best_so_far(summary)              # [(0, 0.766), (3, 0.899), (19, 0.930)]
    origins(summary.records)[0].best  # the best trial of the origin that reached the highest score
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoprune.reporting._summary import StudySummary
from autoprune.study import SAMPLER, TrialRecord


def is_partial(record: TrialRecord) -> bool:
    """Return whether a trial's score is that of a lower rung, because it was pruned or failed."""
    return record.state != "complete"


def score_floor(summary: StudySummary) -> float:
    """Return the lowest score to draw: scores of pruned trials far below would compress the others.

    The study must have a trial with a score.
    """
    scores = [record.score or 0.0 for record in summary.ranked()]
    whole = [record.score or 0.0 for record in summary.ranked() if not is_partial(record)]
    return floor_of(scores, whole or scores, summary.dense_score)


def floor_of(scores: Sequence[float], whole: Sequence[float], dense: float) -> float:
    """Return the lowest of some scores, but not far below those that a drawing is about.

    Args:
        scores: all scores.
        whole: the scores that the drawing is about.
        dense: the score of the dense model, which is drawn as well.
    """
    low, high = min(whole), max(*scores, dense)
    return max(min(scores), low - 0.2 * (high - low))


def best_so_far(summary: StudySummary) -> list[tuple[int, float]]:
    """Return the number and the score of each complete trial that was better than all before it."""
    found: list[tuple[int, float]] = []
    for record in sorted(summary.ranked(), key=lambda record: record.number):
        if not is_partial(record) and record.score is not None and (not found or record.score > found[-1][1]):
            found.append((record.number, record.score))
    return found


@dataclass(frozen=True)
class Origin:
    """A warm start or the sampler, with the trials that it proposed.

    Attributes:
        name: of the warm start, or "sampler".
        trials: its complete trials, the best first.
        others: how many more of its trials were pruned or failed.
    """

    name: str
    trials: tuple[TrialRecord, ...]
    others: int

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the highest score, or None if none is complete."""
        return self.trials[0] if self.trials else None

    @property
    def is_sampler(self) -> bool:
        """Whether it is the sampler rather than a warm start."""
        return self.name == SAMPLER


def origins(records: Iterable[TrialRecord]) -> list[Origin]:
    """Group trials by who proposed them, the origin with the best trial first.

    A trial that several warm starts proposed belongs to each of them.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        for name in record.origin.split(", "):
            groups.setdefault(name, []).append(record)
    found = []
    for name, group in groups.items():
        whole = sorted((each for each in group if each.is_whole), key=lambda each: -(each.score or 0.0))
        ended = sum(each.has_ended for each in group)
        found.append(Origin(name, tuple(whole), ended - len(whole)))
    return sorted(found, key=lambda each: math.inf if each.best is None else -(each.best.score or 0.0))


def origin_note(summary: StudySummary) -> str:
    """Return a sentence that compares the best trial of the sampler with the best warm start, or ""."""
    if len(summary.objectives) > 1 or summary.smallest is not None:
        return ""  # scores of different budgets do not compare
    found = origins(summary.records)
    sampled = next((each.best for each in found if each.is_sampler), None)
    warm = next((each for each in found if not each.is_sampler and each.best is not None), None)
    if sampled is None or warm is None or warm.best is None:
        return ""
    gain = (sampled.score or 0.0) - (warm.best.score or 0.0)
    error = sampled.error or 0.0
    doubt = ", within its standard error" if error and abs(gain) <= error else ""
    side = "above" if gain >= 0 else "below"
    return (
        f"The sampler's best, trial {sampled.number}, is {abs(gain):.4f} {side} the best warm start, "
        f"{warm.name} (trial {warm.best.number}){doubt}."
    )
