"""The penalties, whose gradients or proximal steps drive channels to zero during a training.

A penalty is a function from a `PenaltyInput` to a scalar tensor. Its gradient is autograd's.

    bn_l1(given)     # the sum of |scale| over all BatchNorms that scale a searchable group
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.graph import ChannelGroup


@dataclass(frozen=True, eq=False)
class PenaltyInput:
    """The input of a penalty at one step of a training.

    Attributes:
        model: the model in training.
        groups: its searchable channel groups.
        scales: for each BatchNorm that scales such groups, the scales [channels] of their channels.
        progress: share of the training that is over, in [0, 1).
        going: {group name: int64 indices of the channels that will be cut}, if a plan was given.
    """

    model: nn.Module
    groups: tuple[ChannelGroup, ...]
    scales: tuple[Tensor, ...]
    progress: float
    going: Mapping[str, NDArray[np.int64]]


Penalty: TypeAlias = Callable[..., Tensor]
"""(PenaltyInput, options by name) -> scalar tensor. Gradients flow to parameters of the model."""


def bn_l1(given: PenaltyInput) -> Tensor:
    """Sum the absolute scales. Their subgradient at 0 is 0.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    section 3, equation 1.
    """
    return torch.cat(given.scales).abs().sum()


def polarization(given: PenaltyInput, t: float = 1.4) -> Tensor:
    """Sum t |scale| - | |scale| - mean |scale| |, which pulls scales apart, towards 0 or up.

    Args:
        given: the scales.
        t: weight of the l1 part. The larger it is, the more scales shrink, those below the mean faster.

    Reference: Zhuang et al., Neuron-level Structured Pruning using Polarization Regularizer, NeurIPS 2020,
    section 3.2, equation 2. It keeps scales in [0, a]. Here scales may be negative, and count by their size.
    """
    sizes = torch.cat(given.scales).abs()
    return t * sizes.sum() - (sizes - sizes.mean()).abs().sum()


def group_lasso(given: PenaltyInput, alpha: float = 4.0) -> Tensor:
    """Sum the norms of all channels, each over all parameters of its group, weighted by how small they are.

    The weight of a channel is 2^(alpha (max - norm) / (max - min)) within its group: 1 for the largest. Equal
    norms weigh 1.

    Args:
        given: the groups.
        alpha: 0 weighs all channels the same.

    Reference: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, section 3.3. Differs: it sums
    squared norms, which never reach zero. Here the norm itself is summed, as in the group lasso of Yuan and
    Lin, 2006.
    """
    sizes = ChannelSizes(given.model)
    total = sizes.zero
    for group in given.groups:
        norms = sizes.norms(group)
        # The weights of the norms are constants, through which no gradient flows.
        fixed = norms.detach()
        spread = (fixed.max() - fixed.min()).clamp(min=torch.finfo(fixed.dtype).tiny)
        total = total + (norms * 2 ** (alpha * (fixed.max() - fixed) / spread)).sum()
    return total


def growing(given: PenaltyInput, rise: float = 0.75) -> Tensor:
    """Sum half the squares of the channels that will be cut, with a weight that grows linearly from 0 to 1.

    All parameters of a channel count, on the sides that write and that read it. With SGD the highest
    learning rate times the strength must stay well below 1.

    Args:
        given: the groups, and the channels that will be cut.
        rise: share of the training in which the weight grows.

    Reference: Wang et al., Neural Pruning via Growing Regularization, ICLR 2021, section 3.2 (GReg-1). It
    raises the weight in steps. Here it rises at every step.
    """
    sizes = ChannelSizes(given.model)
    total = sizes.zero
    for group in given.groups:
        if group.name in given.going:
            going = torch.from_numpy(given.going[group.name]).to(total.device)
            total = total + sizes.squares(group)[going].sum()
    return 0.5 * total * min(1.0, given.progress / rise if rise > 0 else 1.0)


def soft_threshold(scale: Tensor, amount: float) -> Tensor:
    """Shrink values towards 0 by an amount, and no further: the proximal step of the l1 norm.

    It has no momentum. With SGD of momentum 0.9 a gradient of the same strength moves scales about ten times
    as far. With Adam a scale moves by about the learning rate whatever the strength of a gradient is, and the
    proximal step alone depends on the strength.
    """
    return scale.sign() * (scale.abs() - amount).clamp(min=0)


class ChannelSizes:
    """The sums of squares of channels over all parameters of their groups, differentiably.

    The squares of each axis of a parameter are summed once, since many groups may share an axis.

    Args:
        model: the model in training.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._sums: dict[tuple[str, int], Tensor] = {}
        self.zero = torch.zeros((), device=next(iter(self._parameters.values())).device)

    def squares(self, group: ChannelGroup) -> Tensor:
        """Return the sum of squares [width] of each channel."""
        total = self.zero.expand(group.width)
        for member in group.members:
            if member.parameter in self._parameters:
                index = torch.from_numpy(member.index).to(total.device)
                total = total + self._sum(member.parameter, member.axis)[index].sum(1)
        return total

    def norms(self, group: ChannelGroup) -> Tensor:
        """Return the norm [width] of each channel. At 0 its gradient is 0."""
        squares = self.squares(group)
        alive = squares > 0
        # At 0 the slope of the root is infinite, and infinity times 0 is NaN. So it is taken of 1 there.
        return torch.where(alive, squares, 1.0).sqrt() * alive

    def _sum(self, name: str, axis: int) -> Tensor:
        """Return the sums of squares over all axes but one."""
        if (name, axis) not in self._sums:
            squares = self._parameters[name].square().movedim(axis, 0)
            self._sums[name, axis] = squares.reshape(len(squares), -1).sum(1)
        return self._sums[name, axis]
