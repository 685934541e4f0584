"""Keeps learners in memory between trials, so that they learn from a trial once and not at every proposal.

Example:
    learner = learnt(context, history.outcomes, "ddpg", make)      # make() -> a new learner

The state of a learner depends on the sequence that it absorbed, and on nothing else. So a resumed process
replays all trials once, and then has the same learner as an uninterrupted one.
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
        """Learn from the next trial, in the order in which trials finished."""


L = TypeVar("L", bound=Learner)


@dataclass(eq=False)
class _Kept(Generic[L]):
    """A learner, and the outcomes that it has absorbed."""

    learner: L
    absorbed: list[Outcome] = field(default_factory=list)


def learnt(context: SamplerContext, outcomes: Sequence[Outcome], name: str, make: Callable[[], L]) -> L:
    """Return the learner that has absorbed all outcomes. One from memory absorbs the new outcomes only.

    If the outcomes do not begin with those that the learner in memory absorbed, a new learner absorbs them
    all. This happens if a user adds trials: they come before those that the study counted.

    Args:
        context: whose memory keeps the learner.
        outcomes: in the order in which the trials finished.
        name: of the learner in the context's memory.
        make: makes a new learner. It is called if memory holds none that fits.
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
