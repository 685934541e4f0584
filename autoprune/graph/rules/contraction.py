"""Own the rules of operators that contract channels: convolutions, linear, matrix products, attention.

These are the operators whose MACs are counted, so each rule also states its count.
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
    if len(source.shape) != spatial + 2:
        return _fixed(op, "an input without a batch axis has no rule")
    groups = op.integer("groups", 1)
    for vector in (source.labels[0], *source.labels[2:]):
        op.freeze(vector, "channels lie on a batch or spatial axis of a convolution")
    for vector in weight.labels[2:]:
        op.structural(vector)
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    if groups == 1:
        op.tie(source.labels[1], weight.labels[in_axis], source)
        channels, out_factor = weight.labels[out_axis], axis_factor(weight, out_axis)
    else:
        channels = _tie_conv_groups(op, source, weight, groups, in_axis)
        out_factor = Factor(op.shapes[0][1], channels)
    if bias is not None:
        op.tie(bias.labels[0], channels, source)
    # Positions at which the kernel is applied: of the output, or of the input where transposed.
    positions = source.shape[2:] if transposed else op.shapes[0][2:]
    per_position = (source.shape[0], *positions, *weight.shape[2:])
    if transposed:
        op.count(axis_factor(source, 1), axis_factor(weight, 1), *per_position)
    else:
        op.count(out_factor, axis_factor(weight, 1), *per_position)
    return op.output((None, channels, *(None,) * spatial))


def _tie_conv_groups(op: OpContext, source: Value, weight: Value, groups: int, in_axis: int) -> LabelVector:
    """Make each convolution group one channel: its inputs and outputs are kept or dropped together.

    So a grouped convolution loses whole groups, and keeps the width of a group; a depthwise one is the
    case of one input a group.
    """
    wide = weight.labels[0]
    if wide is None:
        wide = np.full(weight.shape[0], -1, np.int64)
    op.structural(weight.labels[1])
    if in_axis == 0:
        # Transposed: axis 0 holds the inputs; the outputs repeat the label of their group.
        op.tie(source.labels[1], wide, source)
        blocks = wide.reshape(groups, -1)
        _tie_rows(op, blocks)
        return np.repeat(blocks[:, 0], weight.shape[1])
    blocks = wide.reshape(groups, -1)
    _tie_rows(op, blocks)
    op.tie(source.labels[1], np.repeat(blocks[:, 0], source.shape[1] // groups), source)
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
    return op.output((*source.labels[:-1], weight.labels[0]))


def matmul(op: OpContext) -> Value:
    """Tie the contracted axes of a matrix product and its broadcast batch axes."""
    first, second = _product_operands(op)
    if len(first.shape) < 2 or len(second.shape) < 2:
        return _fixed(op, "a product with a vector has no rule")
    rank = max(len(first.shape), len(second.shape))
    batch = [chr(ord("a") + axis) for axis in range(rank - 2)]
    left = "".join(batch[rank - len(first.shape) :]) + "xk"
    right = "".join(batch[rank - len(second.shape) :]) + "ky"
    return op.output(contract(op, (first, second), (left, right), "".join(batch) + "xy"))


def addmm(op: OpContext) -> Value:
    """A matrix product with a tensor added to it."""
    product = matmul(op)
    added = op.tensor("self")
    for axis in range(-1, -len(added.shape) - 1, -1):
        if added.shape[axis] > 1:
            op.tie(added.labels[axis], product.labels[axis], added)
    return product


def einsum(op: OpContext) -> Value:
    """Tie the axes that share a letter."""
    equation = str(op.arguments["equation"]).replace(" ", "")
    operands = op.tensors()
    left, arrow, out = equation.partition("->")
    subscripts = tuple(left.split(","))
    if "." in equation or not arrow or len(operands) > 2 or any(len(set(s)) < len(s) for s in subscripts):
        return _fixed(op, f"the equation {equation} has no rule")
    return op.output(contract(op, tuple(operands), subscripts, out))


def attention(op: OpContext) -> Value:
    """Tie queries to keys, and the sequence of keys to that of values (scaled dot product attention)."""
    query, key, value = op.tensor("query"), op.tensor("key"), op.tensor("value")
    if op.arguments.get("enable_gqa"):
        return _fixed(op, "heads that share keys have no rule")
    batch = "".join(chr(ord("a") + axis) for axis in range(len(query.shape) - 2))
    scores = contract(op, (query, key), (batch + "le", batch + "se"), batch + "ls")
    weights = Value((*query.shape[:-1], key.shape[-2]), scores, query.note)
    mask = op.optional("attn_mask")
    for vector in scores[-2:]:
        op.cross(vector)
    if mask is not None:
        op.freeze_all(mask, "channels lie on an axis of the attention mask")
    if op.arguments.get("scale") is None:
        # The default scale is 1 / sqrt(width of a head): a narrower head scales its scores otherwise.
        op.cross(query.labels[-1])
    return op.output(contract(op, (weights, value), (batch + "ls", batch + "sv"), batch + "lv"))


def embedding(op: OpContext) -> Value:
    """Carry axis 1 of the table behind the axes of the indices."""
    weight = op.tensor("weight")
    op.structural(weight.labels[0])
    leading = len(op.shapes[0]) - 1
    return op.output((*(None,) * leading, weight.labels[1]))


def contract(
    op: OpContext, operands: tuple[Value, ...], subscripts: tuple[str, ...], out: str
) -> tuple[LabelVector | None, ...]:
    """Tie the axes that share a letter, count the product of all letters, return the labels of `out`."""
    letters: dict[str, list[tuple[Value, int]]] = {}
    for operand, subscript in zip(operands, subscripts, strict=True):
        for axis, letter in enumerate(subscript):
            letters.setdefault(letter, []).append((operand, axis))
    labels: dict[str, LabelVector | None] = {}
    factors = []
    contracted = False
    for letter, places in letters.items():
        wide = [(operand, axis) for operand, axis in places if operand.shape[axis] > 1]
        labels[letter] = next((o.labels[a] for o, a in wide if o.labels[a] is not None), None)
        for operand, axis in wide:
            op.tie(labels[letter], operand.labels[axis], operand)
        if letter in out or len(wide) == len(operands):
            size = max(operand.shape[axis] for operand, axis in places)
            factors.append(Factor(size, labels[letter]))
            contracted |= letter not in out
    # A letter of one operand alone is summed before the product; without contraction it is elementwise.
    if len(operands) > 1 and (contracted or op.operator != "einsum"):
        op.count(*factors)
    return tuple(labels[letter] for letter in out)


def _product_operands(op: OpContext) -> tuple[Value, Value]:
    for first, second in (("mat1", "mat2"), ("batch1", "batch2"), ("self", "mat2"), ("self", "other")):
        if first in op.arguments and second in op.arguments:
            return op.tensor(first), op.tensor(second)
    raise TypeError(f"{op.where}: no operands found in {sorted(op.arguments)}")


def _fixed(op: OpContext, reason: str) -> Value:
    for value in op.tensors():
        op.freeze_all(value, reason)
    return op.fixed_output(f"the output of {op.where}: {reason}")[0]


CONTRACTION_RULES: dict[str, LayerRule] = {
    **{f"conv{n}d": convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": convolution for n in (1, 2, 3)},
    "linear": linear,
    "matmul": matmul,
    "mm": matmul,
    "bmm": matmul,
    "addmm": addmm,
    "baddbmm": addmm,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "embedding": embedding,
}
