"""Find the layers that read a group's channels, with the moments of their inputs.

Example:
    readers = Readers(model, moments)
    eliminate(readers.of(group), group.width).order
"""

from __future__ import annotations

import torch
from torch import nn

from autoprune.graph import ChannelGroup, Member
from autoprune.graph.orientation import output_axis, owner_of
from autoprune.reconstruction._contractions import to_matrices
from autoprune.reconstruction._elimination import Reader
from autoprune.reconstruction._layer_moments import LayerMoments
from autoprune.reconstruction._second_moments import Moments


class Readers:
    """Finds the measured layers that read a group's channels.

    The mean square of a layer's output is computed only once, even if the layer reads several groups.

    Args:
        model: the dense model.
        moments: moments of its layers.
    """

    def __init__(self, model: nn.Module, moments: Moments) -> None:
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._moments = moments
        self._powers: dict[str, float] = {}

    def of(self, group: ChannelGroup) -> list[Reader]:
        """Return the readers of a channel group. A convolution with groups gives one reader for each of them.

        The error of a reader is a share of the whole layer's output. So a convolution with groups counts no
        more than another one. A layer that reads several concatenated groups counts for each in proportion to
        the part that it reads of it. Inputs from other groups do not compensate for removed channels.
        """
        readers: list[Reader] = []
        for member in self._members(group):
            name, layer = member.parameter, self._moments.layers[member.parameter]
            weight = self._parameters[name].detach()
            matrices = to_matrices(weight.double().cpu(), layer.groups, transposed=layer.transposed)
            kernel = weight[0, 0].numel()
            index = torch.from_numpy(member.index)[..., None] * kernel + torch.arange(kernel)
            positions = index.reshape(group.width, -1)[:, :: layer.span] // layer.span
            matrices = layer.pooled(matrices)
            if name not in self._powers:
                self._powers[name] = layer.power(matrices)
            flat = positions.flatten()
            readers.extend(
                Reader(moment, matrix, torch.arange(len(flat)).reshape(positions.shape), self._powers[name])
                for moment, matrix in zip(layer.part(flat), matrices[:, :, flat], strict=True)
            )
        return readers

    def names(self, group: ChannelGroup) -> list[str]:
        """Return the names of the readers' weights, each once."""
        return list(dict.fromkeys(member.parameter for member in self._members(group)))

    def _members(self, group: ChannelGroup) -> list[Member]:
        """Return the members of a group that are inputs of measured layers."""
        found = []
        for member in group.members:
            layer = self._moments.layers.get(member.parameter)
            if layer is not None and member.axis == _input_axis(layer) and not _loses_groups(layer):
                found.append(member)
        return found


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
