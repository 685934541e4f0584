"""Own the supernet: the dense model's weights, trained so that the sub-nets of a search space share them.

Before: a traced model, the ranking of its channels and a search space; after: `train.fit` trains a copy of
the dense model with the sub-nets along, and `score` cuts candidates from it that need no finetune any more.

    subnets = SandwichSampler(prunable, ranking, space, random=2)
    fit(shared, data, schedule, setting, task, seed=0, subnets=subnets)     # shared: a copy of the dense one
    small = rebuild(with_model(prunable, shared), plan)                     # then recalibrate and evaluate

A sub-net keeps the best channels of the ranking, so that the narrower of two lies inside the wider.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.criteria import Importance, plan_from_importance
from autoprune.graph import Prunable
from autoprune.graph.positions import KeepPositions
from autoprune.rebuilding import keep_positions, narrow_to
from autoprune.space import SearchSpace

Widths = Mapping[str, int]

CHUNK = 64
"""Steps whose sub-nets are drawn at once: filling a budget takes a batch of proposals as fast as a few."""


class SandwichSampler:
    """Chooses the sub-nets of every training step: the smallest of the space, then random ones.

    With the whole model, which `train.Trainer` runs first, on the labels, these are the sandwich rule's; the
    trainer distills them in place. What a step draws follows from seed and step alone.

    Reference: Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, on
    the sandwich rule and in-place distillation. It departs from the paper: every group has a
    width of its own, as the search will ask for, where the paper scales all layers alike; some of the draws
    fill the budget, since those are what a search scores; channels are kept by rank, not by position; the
    training begins with the dense model's weights, not afresh.

    Args:
        prunable: the traced dense model.
        importance: per group, an importance per channel.
        space: what the smallest and the random sub-nets are drawn from.
        random: how many random ones a step has.
        budget_share: share of those that fill the budget, as a random sampler of the search would propose
            them; the others lie anywhere from the smallest to the widest.
        seed: of the draws.
    """

    def __init__(
        self,
        prunable: Prunable,
        importance: Importance,
        space: SearchSpace,
        *,
        random: int = 2,
        budget_share: float = 0.5,
        seed: int = 0,
    ) -> None:
        self._prunable = prunable
        self._importance = importance
        self._space = space
        self._random = random
        self._budget_share = budget_share
        self._seed = seed
        self._low, self._high = space.ladder.low, space.ladder.high
        self._drawn: tuple[int, NDArray[np.int64]] | None = None

    @property
    def identity(self) -> str:
        """A fingerprint of everything that decides which sub-nets a step has."""
        space = self._space
        facts = [
            space.groups,
            [(each.name, each.groups, each.low, each.high) for each in space.variables],
            space.budget.limits,
            space.snap(self._low).tolist(),
            {name: np.argsort(-values, kind="stable").tolist() for name, values in self._importance.items()},
            (self._random, self._budget_share, self._seed),
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def widths_at(self, step: int) -> list[Widths]:
        """Return the widths of a step's sub-nets: the smallest, then the random ones."""
        chunk, place = divmod(step, CHUNK)
        if self._drawn is None or self._drawn[0] != chunk:
            self._drawn = (chunk, self._draw(chunk))
        rows = [self._space.snap(self._low), *self._drawn[1][place]]
        return [dict(zip(self._space.groups, map(int, row), strict=True)) for row in rows]

    def at(self, model: nn.Module, step: int) -> Iterator[nn.Module]:
        """Yield the sub-nets of a step, cut from `model`; after each, its gradients are added to the model's.

        Args:
            model: the supernet, of the traced model's architecture.
            step: of the training, from 0.
        """
        for widths in self.widths_at(step):
            plan = plan_from_importance(self._prunable, widths, self._importance)
            small = narrow_to(model, self._prunable, plan)
            yield small
            add_gradients(model, small, keep_positions(self._prunable, plan))

    def _draw(self, chunk: int) -> NDArray[np.int64]:
        """Draw the widths [CHUNK, random, groups] of the random sub-nets of a chunk of steps.

        Those without a budget draw every ratio from a random interval of their own: were the interval the
        whole range, the sizes of sub-nets of many groups would all be about the same.
        """
        rng = np.random.default_rng([self._seed, chunk])
        count, variables = CHUNK * self._random, len(self._low)
        ends = np.sort(rng.random((count, 2)), axis=1)
        own = rng.random((count, variables))
        to_fill = rng.random(count) < self._budget_share
        shares = np.where(to_fill[:, None], own, ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * own)
        ratios = self._low + (self._high - self._low) * shares
        widths = self._space.snap(ratios)
        if to_fill.any():
            widths[to_fill] = self._space.decode(ratios[to_fill])
        return widths.reshape(CHUNK, self._random, len(self._space.groups))


@torch.no_grad()
def add_gradients(model: nn.Module, small: nn.Module, positions: KeepPositions) -> None:
    """Add a sub-net's gradients to those of the model that it was cut from, at the positions it keeps."""
    for (name, parameter), (_, cut) in zip(model.named_parameters(), small.named_parameters(), strict=True):
        if cut.grad is None:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        _add_at(parameter.grad, cut.grad, positions.get(name, {}))


def _add_at(whole: Tensor, part: Tensor, axes: Mapping[int, NDArray[np.int64]]) -> None:
    """Add `part` to `whole`, in place, at the given positions of each axis."""
    if not axes:
        whole.add_(part)
        return
    outer, *inner = sorted(axes)
    for axis in inner:
        index = torch.from_numpy(axes[axis]).to(part.device)
        shape = [*part.shape[:axis], whole.shape[axis], *part.shape[axis + 1 :]]
        part = part.new_zeros(shape).index_copy_(axis, index, part)
    whole.index_add_(outer, torch.from_numpy(axes[outer]).to(part.device), part)


def with_model(prunable: Prunable, model: nn.Module) -> Prunable:
    """Return the prunable over other weights: a model of the traced one's architecture in its place."""
    return dataclasses.replace(prunable, model=model)
