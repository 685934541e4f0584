"""The layers that read a group's channels, with the moments of their inputs.

readers = readers_of(model, group, moments)
eliminate(readers, group.width).order
"""

from __future__ import annotations

import torch
from torch import nn

from autoprune.graph import ChannelGroup
from autoprune.graph.orientation import output_axis, owner_of
from autoprune.reconstruction.contractions import to_matrices
from autoprune.reconstruction.elimination import Reader
from autoprune.reconstruction.layer_moments import LayerMoments
from autoprune.reconstruction.second_moments import Moments


def readers_of(model: nn.Module, group: ChannelGroup, moments: Moments) -> list[Reader]:
    """Return the measured layers that read a group's channels; a grouped layer gives one for each group.

    The error of each is a share of the whole layer's output. So a convolution with groups counts no more than
    another, and a layer that reads several concatenated groups counts for the part that it reads of each.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    readers: list[Reader] = []
    for member in group.members:
        layer = moments.layers.get(member.parameter)
        if layer is None or member.axis != _input_axis(layer) or _loses_groups(layer):
            continue
        weight = parameters[member.parameter].detach()
        matrices = to_matrices(weight.double().cpu(), layer.groups, transposed=layer.transposed)
        kernel = weight[0, 0].numel()
        index = torch.from_numpy(member.index)[..., None] * kernel + torch.arange(kernel)
        positions = index.reshape(group.width, -1)[:, :: layer.span] // layer.span
        covariance, matrices = layer.covariance.cpu(), layer.pooled(matrices)
        total = float(((matrices @ covariance) * matrices).sum())
        readers.extend(
            Reader(moment, matrix, positions, total)
            for moment, matrix in zip(covariance, matrices, strict=True)
        )
    return readers


def unmeasured_readers(model: nn.Module, group: ChannelGroup, moments: Moments) -> dict[str, str]:
    """Return {weight: why it has no moments} of the other layers that read a group's channels."""
    found: dict[str, str] = {}
    for member in group.members:
        reason = moments.left_out.get(member.parameter)
        path, attribute = owner_of(member.parameter)
        layer = moments.layers.get(member.parameter)
        if layer is not None and _loses_groups(layer):
            reason = "it is a transposed convolution with groups"
        if reason is None or not attribute.endswith("weight"):
            continue
        if member.axis != output_axis(model.get_submodule(path)):
            found[member.parameter] = reason
    return found


def _input_axis(layer: LayerMoments) -> int:
    return 0 if layer.transposed else 1


def _loses_groups(layer: LayerMoments) -> bool:
    return layer.transposed and layer.groups > 1
