"""The input and output of every criterion, and the slices of parameters that belong to a channel.

A criterion is a plain function from a `CriterionInput` to one importance a channel:

    for filters in filter_slices(given.model, group):     # float64 [width, n], one a convolution or linear
        total += filters.abs().sum(dim=1)
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.errors import PlanError
from autoprune.graph import Prunable
from autoprune.graph.groups import ChannelGroup, Member
from autoprune.graph.orientation import output_axis
from autoprune.reconstruction import Moments
from autoprune.support.modes import draws_kept, modes_kept, set_training

Importance: TypeAlias = dict[str, NDArray[np.float64]]
"""{group name: float64 [width]}. Channels of higher importance are kept first."""

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]
"""(outputs of the model in eval mode, targets) -> scalar tensor."""


@runtime_checkable
class TracedModel(Protocol):
    """The part of a `Prunable` that criteria and plans read."""

    @property
    def model(self) -> nn.Module:
        """The dense model."""
        ...

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """Its channel groups."""
        ...


def nothing_done(groups: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class CriterionInput:
    """The input of a criterion, which changes none of it.

    Attributes:
        model: the dense model, in eval mode.
        groups: the groups to rank, without the frozen ones.
        data: batches (inputs, targets), or None.
        loss: the loss to lower, or None.
        seed: of every draw. torch, numpy and random are seeded with it.
        moments: returns the moments of the layers' inputs, which it may measure at the first call. If it is
            None, a criterion that needs moments measures `data`.
        prunable: the traced model with its graph, or None if groups were stated without one.
        widths: {group name: channels that will be kept}, or None if one ranking serves several widths.
        done: called with (groups done, all groups) by a criterion that goes from group to group.
    """

    model: nn.Module
    groups: tuple[ChannelGroup, ...]
    data: Iterable[Any] | None
    loss: LossFunction | None
    seed: int
    moments: Callable[[], Moments] | None = None
    prunable: Prunable | None = None
    widths: Mapping[str, int] | None = None
    done: Callable[[int, int], None] = nothing_done

    def images(self, criterion: str) -> Iterable[Any]:
        """Return the data, for a criterion that reads the images alone.

        Raises:
            PlanError: there is no data. The message names `criterion`.
        """
        if self.data is None:
            raise PlanError(f'criterion "{criterion}": needs images. Give make_plan(..., data=loader).')
        return self.data


Criterion: TypeAlias = Callable[[CriterionInput], Importance]
"""Computes the importance of every channel of every group in `CriterionInput.groups`."""


def channel_slices(tensor: Tensor, member: Member) -> Tensor:
    """Cut a tensor into the part of each channel: float64 [width, n], n = m times the other axes' sizes."""
    index, parts = member.index.reshape(-1), tensor.detach()
    if not np.array_equal(index, np.arange(tensor.shape[member.axis])):
        parts = parts.index_select(member.axis, torch.from_numpy(index).to(tensor.device))
    parts = parts.movedim(member.axis, 0)
    return parts.reshape(member.index.shape[0], -1).double()


def filter_slices(model: nn.Module, group: ChannelGroup) -> list[Tensor]:
    """Cut the weights that compute the group's channels into filters, each float64 [width, n].

    These are the weights of convolutions, linears and their like on their output side (axis 0, or 1 for a
    transposed convolution and an embedding). The only side of a depthwise convolution counts as output.
    Biases, scales and buffers do not count. A weight under a parametrization (weight norm) counts as the
    module uses it. A group without such weights gives the slices of all its parameters.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    filters: list[tuple[Tensor, Member]] = []
    others: list[tuple[Tensor, Member]] = []
    for member in group.members:
        stored = parameters.get(member.parameter)
        if stored is None:
            continue
        module, attribute = locate(model, member.parameter)
        weight = getattr(module, attribute)
        # A parametrization may hold parameters that are no weight, such as the norms of weight norm.
        if weight.numel() != stored.numel():
            continue
        is_filter = _is_weight(attribute, weight) and not is_input_side(model, member, weight.ndim)
        (filters if is_filter else others).append((weight, member))
    return [channel_slices(weight, member) for weight, member in filters or others]


def locate(model: nn.Module, parameter: str) -> tuple[nn.Module, str]:
    """Find the module and the attribute that a parameter serves, also through a parametrization."""
    path, _, attribute = parameter.rpartition(".")
    owner, parametrized, name = path.rpartition("parametrizations.")
    if parametrized:
        return model.get_submodule(owner.rstrip(".")), name
    return model.get_submodule(path), attribute


def is_input_side(model: nn.Module, member: Member, ndim: int) -> bool:
    """Return whether a member is the side of a weight that reads the channels, rather than computes them."""
    module, attribute = locate(model, member.parameter)
    if ndim < 2 or not attribute.endswith("weight"):
        return False
    return member.axis != output_axis(module)


@contextlib.contextmanager
def undisturbed(model: nn.Module, seed: int) -> Iterator[None]:
    """Put the model in eval mode and seed torch, numpy and random inside the block. Restore all after it."""
    python, numpy = random.getstate(), np.random.get_state()
    with modes_kept(model), draws_kept(model):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            set_training(model, False)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _is_weight(attribute: str, tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and attribute.endswith("weight")
