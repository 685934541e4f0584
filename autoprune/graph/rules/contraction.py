"""Rules of layers that contract channels with a weight: convolution, linear, bilinear, embedding.

Convolutions and linear layers also count their MACs. Products of two tensors are in `products`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autoprune.graph.context import Factor, LayerRule, OpContext, Value, axis_factor
from autoprune.graph.labels import FIXED, LabelVector
from autoprune.graph.orientation import keeps_groups


def convolution(op: OpContext) -> Value:
    """Tie the input channels to axis 1 of the weight. The output carries axis 0.

    For a transposed convolution it is the reverse.
    """
    source, weight, bias = op.tensor("input"), op.tensor("weight"), op.optional("bias")
    transposed = op.operator.startswith("conv_transpose")
    spatial = len(weight.shape) - 2
    batch = source.shape[: -spatial - 1]  # empty if the input is a single sample
    place = len(batch)
    groups = op.integer("groups", 1)
    for vector in source.labels[:place]:
        op.freeze(vector, "channels lie on a batch axis of a convolution")
    spread = [_spatial_labels(op, source, weight, axis) for axis in range(2, 2 + spatial)]
    for vector in weight.labels[2:]:
        op.structural(vector)
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    if groups == 1:
        op.tie(source.labels[place], weight.labels[in_axis], source)
        channels, out_factor = weight.labels[out_axis], axis_factor(weight, out_axis)
    else:
        channels = _tie_conv_groups(op, source, weight, groups, in_axis)
        out_factor = Factor(op.shapes[0][place], channels)
    if bias is not None:
        op.tie(bias.labels[0], channels, source)
    # The kernel is applied at every output position, or at every input position if it is transposed.
    sizes = source.shape[-spatial:] if transposed else op.shapes[0][-spatial:]
    positions = (Factor(size, labels) for size, labels in zip(sizes, spread, strict=True))
    per_position: tuple[Factor | int, ...] = (*batch, *positions, *weight.shape[2:])
    if transposed:
        op.count(axis_factor(source, place), axis_factor(weight, 1), *per_position)
    else:
        op.count(out_factor, axis_factor(weight, 1), *per_position)
    return op.produced((*(None,) * place, channels, *spread))


def _spatial_labels(op: OpContext, source: Value, weight: Value, axis: int) -> LabelVector | None:
    """Return the output labels of a spatial axis. It may hold channels if no position is lost or added.

    ECA-Net's attention is such a convolution over the channels. A kernel wider than 1 mixes neighbours, so
    the axis is marked as crossed. `axis` is the number of the axis in the weight.
    """
    vector = source.labels[axis - len(weight.shape)]
    kernel = weight.shape[axis]
    stride, dilation = (_setting(op, name, axis - 2) or 1 for name in ("stride", "dilation"))
    padding = _setting(op, "padding", axis - 2)
    same = padding == "same" or (isinstance(padding, int) and 2 * padding == dilation * (kernel - 1))
    if vector is None or not same or stride != 1 or op.operator.startswith("conv_transpose"):
        op.freeze(vector, "channels lie on a spatial axis of a convolution")
        return None
    if kernel > 1:
        op.cross(vector)
    return vector


def _setting(op: OpContext, name: str, place: int) -> Any:
    """Return the value of a setting for one spatial axis. A list of one entry holds for all axes."""
    value: Any = op.arguments.get(name, 0)
    return value[place % len(value)] if isinstance(value, list | tuple) and value else value


def _tie_conv_groups(op: OpContext, source: Value, weight: Value, groups: int, in_axis: int) -> LabelVector:
    """Tie the channels of a grouped convolution so that its groups stay equal. Return the output labels."""
    place = len(source.shape) - len(weight.shape) + 1
    wide, inner = weight.labels[0], weight.labels[1]
    if wide is None:
        wide = np.full(weight.shape[0], FIXED, np.int64)
    blocks = wide.reshape(groups, -1)
    if keeps_groups(groups, source.shape[place] // groups):
        return _tie_positions(op, source, blocks, inner, in_axis)
    op.structural(inner)
    # Each group acts as one channel: its inputs and outputs are kept or dropped together.
    _tie_rows(op, blocks)
    if in_axis == 0:
        op.tie(source.labels[place], wide, source)
        return np.repeat(blocks[:, 0], weight.shape[1])
    op.tie(source.labels[place], np.repeat(blocks[:, 0], source.shape[place] // groups), source)
    return wide


def _tie_positions(
    op: OpContext, source: Value, blocks: LabelVector, inner: LabelVector | None, in_axis: int
) -> LabelVector:
    """Tie position i of all groups, once for the inputs and once for the outputs."""
    groups, place = len(blocks), len(source.shape) - len(op.tensor("weight").shape) + 1
    op.tie(np.tile(blocks[0], groups - 1), blocks[1:].ravel())
    repeated = np.full(groups, FIXED, np.int64) if inner is None else np.tile(inner, groups)
    entering, leaving = (blocks.ravel(), repeated) if in_axis == 0 else (repeated, blocks.ravel())
    op.tie(source.labels[place], entering, source)
    return leaving


def _tie_rows(op: OpContext, blocks: LabelVector) -> None:
    if blocks.shape[1] > 1:
        op.tie(np.repeat(blocks[:, :1], blocks.shape[1] - 1, axis=1).ravel(), blocks[:, 1:].ravel())


def linear(op: OpContext) -> Value:
    """Tie the last axis of the input to axis 1 of the weight. The output carries axis 0."""
    source, weight, bias = op.tensor("input"), op.tensor("weight"), op.optional("bias")
    op.tie(source.labels[-1], weight.labels[1], source)
    if bias is not None:
        op.tie(bias.labels[0], weight.labels[0], source)
    leading = [axis_factor(source, axis) for axis in range(len(source.shape) - 1)]
    op.count(*leading, axis_factor(weight, 0), axis_factor(weight, 1))
    return op.produced((*source.labels[:-1], weight.labels[0]))


def embedding(op: OpContext) -> Value:
    """Append axis 1 of the table to the axes of the indices."""
    weight = op.tensor("weight")
    op.structural(weight.labels[0])
    leading = len(op.shapes[0]) - 1
    return op.output((*(None,) * leading, weight.labels[1]))


def embedding_bag(op: OpContext) -> list[Value]:
    """Carry axis 1 of the table. The other outputs are positions in the table."""
    weight = op.tensor("weight")
    op.structural(weight.labels[0])
    for value in op.tensors():
        if value is not weight:
            op.freeze_all(value, "channels lie on an axis of its indices")
    first = op.output((None, weight.labels[1]))
    return [first, *op.fixed_output()[1:]]


def bilinear(op: OpContext) -> Value:
    """Tie the last axes of both inputs to axes 1 and 2 of the weight. The output carries axis 0."""
    first, second = op.tensor("input1"), op.tensor("input2")
    weight, bias = op.tensor("weight"), op.optional("bias")
    op.tie(first.labels[-1], weight.labels[1], first)
    op.tie(second.labels[-1], weight.labels[2], second)
    if bias is not None:
        op.tie(bias.labels[0], weight.labels[0], first)
    leading = list(first.labels[:-1])
    for axis, vector in enumerate(second.labels[:-1]):
        op.tie(leading[axis], vector, second)
        leading[axis] = vector if leading[axis] is None else leading[axis]
    return op.output((*leading, weight.labels[0]))


def deformable(op: OpContext) -> list[Value]:
    """Tie channels as a convolution does, with fixed offsets and masks. torch counts no MACs for it."""
    source, weight, bias = op.tensor("input"), op.tensor("weight"), op.tensor("bias")
    if op.integer("groups") != 1 or op.integer("offset_groups") != 1:
        return op.unsupported("has no rule for several groups")
    for name in ("offset", "mask"):
        op.freeze_all(op.tensor(name), "has one channel for each kernel position")
    for vector in weight.labels[2:]:
        op.structural(vector)
    op.tie(source.labels[1], weight.labels[1], source)
    op.tie(bias.labels[0], weight.labels[0], source)
    return [op.output((None, weight.labels[0], None, None))]


CONTRACTION_RULES: dict[str, LayerRule] = {
    **{f"conv{n}d": convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": convolution for n in (1, 2, 3)},
    "linear": linear,
    "bilinear": bilinear,
    "embedding": embedding,
    "embedding_bag": embedding_bag,
    "torchvision::deform_conv2d": deformable,
}
