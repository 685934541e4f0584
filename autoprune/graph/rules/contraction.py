"""Own the rules of layers that contract channels with a weight: convolutions, linear, bilinear, embeddings.

Their MACs are counted, so each rule also states its count. Products of two tensors are in `products`.
"""

from __future__ import annotations

import numpy as np

from autoprune.graph.context import Factor, LayerRule, OpContext, Value, axis_factor
from autoprune.graph.labels import LabelVector


def convolution(op: OpContext) -> Value:
    """Tie the input channels to axis 1 of the weight; the output carries axis 0 (transposed: the reverse)."""
    source, weight, bias = op.tensor("input"), op.tensor("weight"), op.optional("bias")
    transposed = op.operator.startswith("conv_transpose")
    spatial = len(weight.shape) - 2
    batch = source.shape[: -spatial - 1]  # none where a single sample is given
    place = len(batch)
    groups = op.integer("groups", 1)
    for vector in (*source.labels[:place], *source.labels[place + 1 :]):
        op.freeze(vector, "channels lie on a batch or spatial axis of a convolution")
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
    # Positions at which the kernel is applied: of the output, or of the input where transposed.
    positions = source.shape[-spatial:] if transposed else op.shapes[0][-spatial:]
    per_position = (*batch, *positions, *weight.shape[2:])
    if transposed:
        op.count(axis_factor(source, place), axis_factor(weight, 1), *per_position)
    else:
        op.count(out_factor, axis_factor(weight, 1), *per_position)
    return op.produced((*(None,) * place, channels, *(None,) * spatial))


def _tie_conv_groups(op: OpContext, source: Value, weight: Value, groups: int, in_axis: int) -> LabelVector:
    """Make each convolution group one channel: its inputs and outputs are kept or dropped together.

    So a grouped convolution loses whole groups, and keeps the width of a group; a depthwise one is the
    case of one input a group.
    """
    wide, place = weight.labels[0], len(source.shape) - len(weight.shape) + 1
    if wide is None:
        wide = np.full(weight.shape[0], -1, np.int64)
    op.structural(weight.labels[1])
    if in_axis == 0:
        # Transposed: axis 0 holds the inputs; the outputs repeat the label of their group.
        op.tie(source.labels[place], wide, source)
        blocks = wide.reshape(groups, -1)
        _tie_rows(op, blocks)
        return np.repeat(blocks[:, 0], weight.shape[1])
    blocks = wide.reshape(groups, -1)
    _tie_rows(op, blocks)
    op.tie(source.labels[place], np.repeat(blocks[:, 0], source.shape[place] // groups), source)
    return wide


def _tie_rows(op: OpContext, blocks: LabelVector) -> None:
    if blocks.shape[1] > 1:
        op.tie(np.repeat(blocks[:, :1], blocks.shape[1] - 1, axis=1).ravel(), blocks[:, 1:].ravel())


def linear(op: OpContext) -> Value:
    """Tie the last axis of the input to axis 1 of the weight; the output carries axis 0."""
    source, weight, bias = op.tensor("input"), op.tensor("weight"), op.optional("bias")
    op.tie(source.labels[-1], weight.labels[1], source)
    if bias is not None:
        op.tie(bias.labels[0], weight.labels[0], source)
    leading = [axis_factor(source, axis) for axis in range(len(source.shape) - 1)]
    op.count(*leading, axis_factor(weight, 0), axis_factor(weight, 1))
    return op.produced((*source.labels[:-1], weight.labels[0]))


def embedding(op: OpContext) -> Value:
    """Carry axis 1 of the table behind the axes of the indices."""
    weight = op.tensor("weight")
    op.structural(weight.labels[0])
    leading = len(op.shapes[0]) - 1
    return op.output((*(None,) * leading, weight.labels[1]))


def embedding_bag(op: OpContext) -> list[Value]:
    """Carry axis 1 of the table; what else comes out are positions in it."""
    weight = op.tensor("weight")
    op.structural(weight.labels[0])
    for value in op.tensors():
        if value is not weight:
            op.freeze_all(value, "channels lie on an axis of its indices")
    first = op.output((None, weight.labels[1]))
    return [first, *op.fixed_output()[1:]]


def bilinear(op: OpContext) -> Value:
    """Tie the last axes of both inputs to axes 1 and 2 of the weight; the output carries axis 0."""
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
    """A convolution whose offsets and masks are fixed; torch counts no MACs for it."""
    source, weight, bias = op.tensor("input"), op.tensor("weight"), op.tensor("bias")
    if op.integer("groups") != 1 or op.integer("offset_groups") != 1:
        return op.unsupported("has no rule for several groups")
    for name in ("offset", "mask"):
        op.freeze_all(op.tensor(name), "takes one channel a kernel position")
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
