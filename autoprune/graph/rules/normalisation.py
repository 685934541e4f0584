"""Rules of normalisation layers, whose scales, shifts and statistics follow the channels."""

from __future__ import annotations

import numpy as np

from autoprune.graph.context import LayerRule, OpContext, Value


def per_channel(op: OpContext) -> Value:
    """Tie scale, shift and running statistics to axis 1 (BatchNorm, InstanceNorm, PReLU).

    Without running statistics the layer normalises over the axes behind it. If it standardises a weight,
    those are the weight's inputs.
    """
    source = op.tensors()[0]
    axis = min(1, len(source.shape) - 1)
    channels = source.labels[axis]
    for name in ("weight", "bias", "running_mean", "running_var"):
        parameter = op.optional(name)
        if parameter is not None and parameter.shape[0] > 1:
            op.tie(parameter.labels[0], channels, source)
            if channels is None:
                channels = parameter.labels[0]
    if op.operator != "prelu" and op.optional("running_mean") is None:
        for vector in source.labels[axis + 1 :]:
            op.cross(vector)
    return op.output((*source.labels[:axis], channels, *source.labels[axis + 1 :]))


def layer_norm(op: OpContext) -> Value:
    """Tie scale and shift to the last axes, over which the layer normalises."""
    source = op.tensor("input")
    sizes = op.arguments["normalized_shape"]
    count = len(sizes) if isinstance(sizes, list | tuple) else 1
    weight, bias = op.optional("weight"), op.optional("bias")
    for axis in range(-count, 0):
        vector = source.labels[axis]
        op.cross(vector)
        for parameter in (weight, bias):
            if parameter is not None:
                op.tie(parameter.labels[axis], vector, source)
        if weight is None:
            op.freeze(
                vector, "its normalized_shape follows no parameter; elementwise_affine=True gives it one"
            )
    return op.output(source.labels)


def group_norm(op: OpContext) -> Value:
    """Tie the norm groups to each other. All keep the same channels, because their number is fixed."""
    source, groups = op.tensor("input"), op.integer("num_groups", 1)
    channels = source.labels[1]
    for name in ("weight", "bias"):
        parameter = op.optional(name)
        if parameter is not None:
            op.tie(parameter.labels[0], channels, source)
    if channels is not None:
        blocks = channels.reshape(groups, -1)
        # The number of norm groups is fixed, so a group of one channel cannot lose it.
        if blocks.shape[1] == 1:
            op.freeze(channels, "one channel a norm group cannot become fewer")
        elif groups > 1:
            op.tie(np.tile(blocks[0], groups - 1), blocks[1:].ravel())
        op.cross(channels)
    return op.output(source.labels)


def weight_norm(op: OpContext) -> Value:
    """Tie the lengths to their axis of the directions. The operator normalises over the other axes."""
    direction, length = op.tensor("v"), op.tensor("g")
    for axis, vector in enumerate(direction.labels):
        if len(length.shape) == len(direction.shape) and length.shape[axis] > 1:
            op.tie(vector, length.labels[axis], length)
        else:
            op.cross(vector)
    return op.output(direction.labels)


NORMALISATION_RULES: dict[str, LayerRule] = {
    "batch_norm": per_channel,
    "instance_norm": per_channel,
    "prelu": per_channel,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
    "group_norm": group_norm,
    "_weight_norm": weight_norm,
}
