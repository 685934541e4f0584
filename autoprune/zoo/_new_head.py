"""Finds the last layers of a model in its traced graph, and replaces them for another number of classes.

Example:
    replace_heads(model, torch.zeros(1, 3, 224, 224), classes=4)     # ("fc",)
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.graph.labels import OUTPUT
from autoprune.tracing import trace


def find_heads(model: nn.Module, example_inputs: Tensor) -> tuple[str, ...]:
    """Return the names of the layers that write the outputs of a model, auxiliary outputs included.

    Raises:
        ConfigError: an output is not written by a layer of its own, e.g. because other layers read it too.
        TraceError: the model cannot be traced.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    heads: dict[str, None] = {}
    for group in trace(model, example_inputs, watch=None).groups:
        if group.frozen != OUTPUT:
            continue
        for member in group.members:
            name, _, leaf = member.parameter.rpartition(".")
            layer = model.get_submodule(name)
            is_whole = member.axis == 0 and len(parameters.get(member.parameter, ())) == group.width
            if leaf not in ("weight", "bias") or not (is_whole and _is_replaceable(layer)):
                raise ConfigError(
                    f"model.new_head: {name} ({type(layer).__name__}) takes part in the output of "
                    f"{type(model).__name__}, expected a Linear or a convolution that no other layer "
                    "follows. Give a model.factory that makes the model for the classes of the data."
                )
            heads[name] = None
    if not heads:
        raise ConfigError(
            f"model.new_head: no layer of {type(model).__name__} writes its output directly. Give a "
            "model.factory that makes the model for the classes of the data."
        )
    return tuple(heads)


def replace_heads(model: nn.Module, example_inputs: Tensor, classes: int) -> tuple[str, ...]:
    """Replace the last layers of a model, in place, by new ones with `classes` outputs.

    Their weights are drawn from torch's global random state.

    Returns:
        The names of the layers.

    Raises:
        ConfigError: the last layers cannot be found, or are of another kind than Linear and convolutions.
    """
    heads = find_heads(model, example_inputs)
    for name in heads:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _resized(model.get_submodule(name), classes))
    return heads


def _is_replaceable(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and layer.groups == 1
    )


def _resized(layer: nn.Module, classes: int) -> nn.Module:
    """Return a copy of a layer with other outputs and new weights. Its other attributes stay."""
    made = copy.deepcopy(layer)
    setattr(made, "out_features" if isinstance(layer, nn.Linear) else "out_channels", classes)
    for name, parameter in list(made.named_parameters(recurse=False)):
        shape = (classes, *parameter.shape[1:])
        made.register_parameter(name, nn.Parameter(torch.empty(shape, dtype=parameter.dtype)))
    made.reset_parameters()  # type: ignore[operator]  # Linear and convolutions have it
    return made
