"""Criteria that read gradients of the loss: taylor, fisher.

Gradients are taken on functional calls with copies of the buffers, so that the dense model keeps its own and
gets no `.grad`.

Example:
    taylor(given)["layer1.0.conv1"]     # float64 [width]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.criteria._base import CriterionInput, Importance, LossFunction, channel_slices, is_input_side
from autoprune.criteria.feature_maps import FeatureMaps, Place
from autoprune.criteria.weights import with_norms
from autoprune.errors import DataError, a_kind
from autoprune.execution.detour import Detour
from autoprune.support.structures import arguments, moved
from autoprune.support.usercode import call_plain, guarded

TAYLOR_BATCHES = 10
"""Number of batches over which "taylor" averages: the first of the data, or all if there are fewer."""

FISHER_IMAGES = 64
"""Number of images of "fisher": the first of the data, or all if there are fewer."""

_FAILED = 'criterion "{}": the gradient of the loss failed on a batch'
_ADVICE = "Expected batches (inputs, targets) that model and loss take, and a loss that is one number."


def taylor(given: CriterionInput) -> Importance:
    """Sum (weight x gradient)^2 over a channel's parameters, averaged over `TAYLOR_BATCHES` batches.

    The parameters of a channel are its filters, biases and normalisation scales and shifts in all layers that
    write into the group, not the weights that read it. The loss is cross-entropy if none is given.

    Raises:
        PlanError: no data is given.
        DataError: the data holds no batch, or other things than (inputs, targets), or a batch from which
            model or loss give no gradient.

    Reference: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, section 3.1,
    equations 7 and 8. Differs in the model's mode: eval, so that BatchNorm's statistics stay.
    """
    if not given.groups:
        return {}
    parameters = dict(given.model.named_parameters(remove_duplicate=False))
    members = {
        group.name: [
            member
            for member in group.members
            if member.parameter in parameters
            and not is_input_side(given.model, member, parameters[member.parameter].ndim)
        ]
        for group in given.groups
    }
    wanted = {id(parameters[member.parameter]) for listed in members.values() for member in listed}
    result = {group.name: np.zeros(group.width) for group in given.groups}
    batches = 0
    for gradients in _gradients(
        given.model, wanted, given.images("taylor"), given.loss or functional.cross_entropy
    ):
        batches += 1
        for group_name, listed in members.items():
            for member in listed:
                parameter = parameters[member.parameter]
                product = parameter.detach().double() * gradients[id(parameter)]
                squares = channel_slices(product, member).square().sum(dim=1)
                result[group_name] += squares.cpu().numpy()
    if batches == 0:
        raise DataError('criterion "taylor": the data gave no batch. Give a loader that is not empty.')
    return {name: total / batches for name, total in result.items()}


def fisher(given: CriterionInput) -> Importance:
    """Average the squared change of an image's loss if a channel is removed, to first order.

    The importance of a channel is 1/(2N) sum_n (sum a dL_n/da)^2. Here a are its activations at all positions
    of all its feature maps, and L_n is the loss of image n. The inner sum is the gradient of L_n with respect
    to a gate of value 1 that multiplies all maps of the channel. The loss is cross-entropy if none is given.
    A group that no tensor holds is ranked by the l2 norm of its filters.

    Raises:
        PlanError: no data is given.
        DataError: the data holds no image, or other things than (inputs, targets), or an image from which
            model or loss give no gradient.

    Reference: Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning, arXiv 1801.05787,
    2018, section 2. One gate serves all maps of a residual group, as in Liu et al., Group Fisher Pruning,
    ICML 2021.
    """
    maps = FeatureMaps.of(given, "fisher", FISHER_IMAGES)
    if not maps.places:
        return with_norms(given, {})
    device = next((parameter.device for parameter in given.model.parameters()), torch.device("cpu"))
    ones = {
        name: torch.ones(len(places[0].index), dtype=torch.float64, device=device)
        for name, places in maps.places.items()
    }
    totals = {name: torch.zeros_like(each) for name, each in ones.items()}
    loss = given.loss or functional.cross_entropy
    for sample in maps.samples:
        if len(sample.rest) != 1:
            raise DataError(
                'criterion "fisher": the data gave no targets, expected batches (inputs, targets).'
            )
        gates = {name: each.clone().requires_grad_() for name, each in ones.items()}
        failed = guarded(_FAILED.format("fisher"), DataError, advice=_ADVICE, memory_passes=True)
        with failed, torch.enable_grad():
            # One image at a time, because the square of a batch's mean gradient is another value.
            outputs = maps.run(sample, partial(_gate, gates))
            lost = call_plain(loss, outputs, moved(sample.rest[0], device))
            gradients = torch.autograd.grad(lost, list(gates.values()), allow_unused=True)
        for name, gradient in zip(gates, gradients, strict=True):
            if gradient is not None:
                totals[name] += gradient.square() / (2 * len(maps.samples))
    return with_norms(given, totals)


def _gate(gates: Mapping[str, Tensor], place: Place, tensor: Tensor) -> Tensor:
    return place.scaled(tensor, gates[place.group])


def _gradients(
    model: nn.Module, wanted: set[int], data: Iterable[Any], loss: LossFunction
) -> Iterator[Mapping[int, Tensor]]:
    """Yield {id of wanted parameter: gradient of the loss} for each of the first batches."""
    state = {name: tensor.detach() for name, tensor in model.named_parameters()}
    names = {name: id(tensor) for name, tensor in model.named_parameters() if id(tensor) in wanted}
    leaves = {name: state[name].clone().requires_grad_() for name in names}
    device = next((tensor.device for tensor in state.values()), torch.device("cpu"))
    for batch in itertools.islice(data, TAYLOR_BATCHES):
        inputs, targets = _unpack(batch, device)
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        positional, named = arguments(inputs)
        failed = guarded(_FAILED.format("taylor"), DataError, advice=_ADVICE, memory_passes=True)
        # No compute setting is known here, so nothing has tested yet whether this machine
        # computes gradients correctly. `Detour` avoids the known fault.
        with failed, torch.enable_grad(), Detour():
            tensors = {**state, **buffers, **leaves}
            outputs = torch.func.functional_call(model, tensors, positional, named)
            lost = call_plain(loss, outputs, targets)
            gradients = torch.autograd.grad(lost, list(leaves.values()), allow_unused=True)
        yield {
            names[name]: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
        }


def _unpack(batch: Any, device: torch.device) -> tuple[Any, Any]:
    """Split a batch into (inputs, targets), both on the model's device."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise DataError(
            f'criterion "taylor": the data gave {a_kind(batch)}, expected batches (inputs, targets).'
        )
    inputs, targets = (moved(part, device) for part in batch)
    return inputs, targets
