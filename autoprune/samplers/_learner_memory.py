"""Keeps learners in memory between trials, so that they learn from a trial once and not at every proposal.

    learner = learnt(context, history.outcomes, "ddpg", make)      # make() -> a learner that has seen nothing

A learner is a function of the sequence that it absorbed. So a process that resumes replays all trials once,
and has the learner that an uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._past_trials import Outcome


class Learner(Protocol):
    """An object that learns from one finished trial after the other, and from nothing else."""

    def absorb(self, outcome: Outcome) -> None:
        """Learn from a trial; those before it were absorbed in the order in which they finished."""


L = TypeVar("L", bound=Learner)


@dataclass(eq=False)
class _Kept(Generic[L]):
    """A learner, and the outcomes that it has absorbed."""

    learner: L
    absorbed: list[Outcome] = field(default_factory=list)


def learnt(context: SamplerContext, outcomes: Sequence[Outcome], name: str, make: Callable[[], L]) -> L:
    """Return the learner that has absorbed all outcomes: from memory, going on where it was.

    If memory holds another history (trials that others add come before those that the study counted),
    it begins again.

    Args:
        context: whose memory keeps the learner.
        outcomes: in the order in which the trials finished.
        name: of the learner in the context's memory.
        make: makes one that has absorbed nothing; called if memory has none that fits.
    """
    kept: _Kept[L] | None = context.memory.get(name)
    if kept is None or not _begins_with(outcomes, kept.absorbed):
        kept = context.memory[name] = _Kept(make())
    for outcome in outcomes[len(kept.absorbed) :]:
        kept.learner.absorb(outcome)
        kept.absorbed.append(outcome)
    return kept.learner


def _begins_with(outcomes: Sequence[Outcome], absorbed: Sequence[Outcome]) -> bool:
    """Return whether the absorbed outcomes are the first of a history."""
    return len(absorbed) <= len(outcomes) and all(
        mine.score == theirs.score
        and (mine.ratios is theirs.ratios or np.array_equal(mine.ratios, theirs.ratios))
        for mine, theirs in zip(absorbed, outcomes, strict=False)
    )
