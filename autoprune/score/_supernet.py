"""The supernet: dense weights that are trained so that all sub-nets of a search space can share them.

Candidates that are cut from a supernet need no finetune. A sub-net keeps the most important channels, so a
narrow sub-net is contained in a wider one.

    subnets = SandwichSampler(prunable, importance, space, random=2)
    supernet = copy.deepcopy(prunable.model)
    fit(supernet, data, schedule, setting, task, seed=0, subnets=subnets)
    small = rebuild(with_model(prunable, supernet), plan)     # then recalibrate and evaluate
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
"""Steps whose sub-nets are drawn at once. Filling a budget takes as long for many proposals as for a few."""


class SandwichSampler:
    """Choose the sub-nets of each training step by the sandwich rule: the smallest one and random ones.

    The widest one is the whole model, which `Trainer` trains on the labels. It then distills the sub-nets in
    place. The sub-nets of a step depend on the seed and the step only.

    Args:
        prunable: the traced dense model.
        importance: {group name: importance of each channel}.
        space: the search space of the sub-nets.
        random: number of random sub-nets in each step.
        budget_share: share of the random sub-nets that fill the budget, as those of a random search do. The
            others have any size from the smallest to the widest.
        seed: seed of the random sub-nets.

    Reference:
        Yu and Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, sandwich
        rule and in-place distillation. Differences: each group has its own width, whereas the paper scales
        all layers by one factor. Some sub-nets fill the budget, because a search scores those. Channels are
        kept by importance, not by position. Training starts from the dense weights.
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
        """A hash of everything that determines the sub-nets of each step."""
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
        """Yield the sub-nets of a step, cut from `model`. After each, add its gradients to the model's.

        Args:
            model: the supernet, a model of the traced architecture.
            step: the training step, counted from 0.
        """
        for widths in self.widths_at(step):
            plan = plan_from_importance(self._prunable, widths, self._importance)
            small = narrow_to(model, self._prunable, plan)
            yield small
            add_gradients(model, small, keep_positions(self._prunable, plan))

    def _draw(self, chunk: int) -> NDArray[np.int64]:
        """Draw the widths [CHUNK, random, groups] of the random sub-nets of a chunk of steps.

        A sub-net that does not fill the budget draws its ratios from a random interval of its own. With the
        whole range for all, the sizes of sub-nets with many groups would be nearly equal.
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
    """Add a sub-net's gradients to the model's, at the positions that the sub-net keeps."""
    small_parameters = dict(small.named_parameters())  # without those of dropped blocks
    for name, parameter in model.named_parameters():
        cut = small_parameters.get(name)
        if cut is None or cut.grad is None:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        _add_at(parameter.grad, cut.grad, positions.get(name, {}))


def _add_at(whole: Tensor, part: Tensor, axes: Mapping[int, NDArray[np.int64]]) -> None:
    """Add `part` to `whole`, in place, at the given positions of each axis."""
    if not axes:
        whole.add_(part)
        return
    # index_add_ takes one axis. Along the others, the part is first spread over zeros to the full size.
    outer, *inner = sorted(axes)
    for axis in inner:
        index = torch.from_numpy(axes[axis]).to(part.device)
        shape = [*part.shape[:axis], whole.shape[axis], *part.shape[axis + 1 :]]
        part = part.new_zeros(shape).index_copy_(axis, index, part)
    whole.index_add_(outer, torch.from_numpy(axes[outer]).to(part.device), part)


def with_model(prunable: Prunable, model: nn.Module) -> Prunable:
    """Return a copy of the prunable that holds `model`, which must have the traced architecture."""
    return dataclasses.replace(prunable, model=model)
