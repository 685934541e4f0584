"""The layers that read a group's channels, with the moments of their inputs.

readers = readers_of(model, group, moments)
eliminate(readers, group.width).order
"""

from __future__ import annotations

import torch
from torch import nn

from autoprune.graph import ChannelGroup
from autoprune.reconstruction.contractions import to_matrices
from autoprune.reconstruction.elimination import Reader
from autoprune.reconstruction.second_moments import LayerMoments, Moments


def readers_of(model: nn.Module, group: ChannelGroup, moments: Moments) -> list[Reader]:
    """Return the measured layers that read a group's channels; a grouped layer gives one for each group."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    readers: list[Reader] = []
    for member in group.members:
        layer = moments.layers.get(member.parameter)
        if layer is None or member.axis != _input_axis(layer) or (layer.transposed and layer.groups > 1):
            continue
        weight = parameters[member.parameter].detach()
        matrices = to_matrices(weight.double().cpu(), layer.groups, transposed=layer.transposed)
        kernel = weight[0, 0].numel()
        index = torch.from_numpy(member.index)[..., None] * kernel + torch.arange(kernel)
        positions = index.reshape(group.width, -1)
        readers.extend(
            Reader(covariance, matrix, positions)
            for covariance, matrix in zip(layer.covariance, matrices, strict=True)
        )
    return readers


def _input_axis(layer: LayerMoments) -> int:
    return 0 if layer.transposed else 1
