"""Own the rules of operators that move elements without changing them: view, permute, slice, cat, roll.

A layout operator is applied to the labels as it is to the data. An output whose labels vary along
several axes (channels split into heads x width) stays rectangular only if they are tied: the rule
keeps the last of these axes free and ties the others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.graph.context import LayerRule, OpContext, Value
from autoprune.graph.labels import FIXED, LabelVector


def layout(op: OpContext) -> list[Value]:
    """Apply the operator to the labels of each labelled axis of its first operand."""
    source, *indices = op.tensors()
    if any(index.constant is None for index in indices):
        op.freeze_all(source, "its positions are picked by values that are not known before the model runs")
        return op.fixed_output()
    outputs: list[list[LabelVector | None]] = [[None] * len(shape) for shape in op.shapes]
    for axis, vector in enumerate(source.labels):
        if vector is None:
            continue
        if _picks_by_position(op, axis, len(source.shape)):
            op.freeze(vector, "moves or picks channels by their positions")
        shape = [1] * len(source.shape)
        shape[axis] = len(vector)
        spread = torch.from_numpy(vector).view(shape).expand(source.shape)
        results = _apply(op, spread)
        for result, labels in zip(results, outputs, strict=True):
            found = _rectangular(op, result.numpy())
            if found is None:
                continue
            place, labelled = found
            if labels[place] is not None:
                op.freeze(labels[place], "two labelled axes merge into one")
                op.freeze(labelled, "two labelled axes merge into one")
            labels[place] = labelled
    return [op.output(labels, position) for position, labels in enumerate(outputs)]


def _picks_by_position(op: OpContext, axis: int, ndim: int) -> bool:
    """Whether the channels that remain of fewer would be others than those that the labels name."""
    if op.operator == "roll":
        return axis in op.axes("dims", ndim)
    return op.operator == "slice" and op.integer("step", 1) != 1 and op.integer("dim") % ndim == axis


def channel_shuffle(op: OpContext) -> list[Value]:
    """Interleave the groups; all must keep the same positions, so that their number stays."""
    source, groups = op.tensor("self"), op.integer("groups", 1)
    channels = source.labels[1]
    if channels is not None and groups > 1:
        blocks = channels.reshape(groups, -1)
        op.tie(np.tile(blocks[0], groups - 1), blocks[1:].ravel())
    return layout(op)


def equal_parts(op: OpContext) -> list[Value]:
    """Tie the parts of chunk and split with one size: all must shrink alike to stay as many."""
    parts = layout(op)
    source = op.tensors()[0]
    axis = op.integer("dim") % len(source.shape)
    sizes = {part.shape[axis] for part in parts}
    for part in parts[1:]:
        if len(sizes) == 1:
            op.tie(parts[0].labels[axis], part.labels[axis])
        else:
            op.freeze(source.labels[axis], f"is cut into unequal parts {[p.shape[axis] for p in parts]}")
    return parts


def cat(op: OpContext) -> Value:
    """Join the labels along one axis; along the others tie the operands."""
    parts = [value for value in op.tensors() if len(value.shape) == len(op.shapes[0])]
    axis = op.integer("dim") % len(op.shapes[0])
    labels: list[LabelVector | None] = []
    for place in range(len(op.shapes[0])):
        vectors = [part.labels[place] for part in parts]
        if place == axis:
            joined = [
                np.full(part.shape[place], FIXED, np.int64) if vector is None else vector
                for part, vector in zip(parts, vectors, strict=True)
            ]
            labels.append(None if all(vector is None for vector in vectors) else np.concatenate(joined))
        else:
            shared = next((vector for vector in vectors if vector is not None), None)
            for part, vector in zip(parts, vectors, strict=True):
                op.tie(shared, vector, part)
            labels.append(shared)
    return op.output(labels)


def stack(op: OpContext) -> Value:
    """Tie the operands; the new axis is fixed."""
    parts = op.tensors()
    labels: list[LabelVector | None] = []
    for place in range(len(parts[0].shape)):
        shared = next((part.labels[place] for part in parts if part.labels[place] is not None), None)
        for part in parts:
            op.tie(shared, part.labels[place], part)
        labels.append(shared)
    labels.insert(op.integer("dim") % (len(labels) + 1), None)
    return op.output(labels)


def expand_as(op: OpContext) -> Value:
    """Carry the operand's labels, and the other's where the operand is broadcast."""
    source, other = op.tensors()
    labels: list[LabelVector | None] = list(other.labels)
    for axis in range(1, len(source.shape) + 1):
        if source.shape[-axis] > 1:
            op.tie(source.labels[-axis], other.labels[-axis], other)
            labels[-axis] = source.labels[-axis]
    return op.output(labels)


def pad(op: OpContext) -> list[Value]:
    """Pad with a constant: the new positions are fixed. Other modes only along fixed axes."""
    source = op.tensors()[0]
    widths = op.arguments["pad"]
    amounts = list(widths) if isinstance(widths, list | tuple) else []
    labels: list[LabelVector | None] = list(source.labels)
    for pair in range(len(amounts) // 2):
        axis = len(source.shape) - 1 - pair
        vector, (before, after) = labels[axis], (amounts[2 * pair], amounts[2 * pair + 1])
        if vector is None or (before == 0 and after == 0):
            continue
        if op.arguments.get("mode", "constant") != "constant" or min(before, after) < 0:
            op.freeze(vector, "its channels are padded with copies of themselves, or cropped")
            labels[axis] = None
        else:
            labels[axis] = np.pad(vector, (before, after), constant_values=FIXED)
    return [op.output(labels)]


def _apply(op: OpContext, spread: Tensor) -> list[Tensor]:
    function = getattr(torch.ops.aten, _COPYING.get(op.operator, op.operator))
    arguments: dict[str, object] = {}
    replaced = False
    for name, value in op.arguments.items():
        if isinstance(value, Value):
            arguments[name] = value.constant if replaced else spread
            replaced = True
        elif isinstance(value, list | tuple):
            arguments[name] = [v.constant if isinstance(v, Value) else v for v in value]
        else:
            arguments[name] = value
    if op.operator in _COPYING:
        arguments = {"self": spread, "shape": arguments["size"]}
    result = function(**arguments)
    return [result] if isinstance(result, Tensor) else list(result)


def _rectangular(op: OpContext, labels: LabelVector) -> tuple[int, LabelVector] | None:
    """Reduce element labels to one axis; returns (axis, labels along it)."""
    varying = [
        axis
        for axis in range(labels.ndim)
        if labels.shape[axis] > 1 and (labels != labels.take([0], axis=axis)).any()
    ]
    if not varying:
        if labels.size:
            op.freeze(labels.ravel()[:1], "picks one channel by its position")
        return None
    free = _FREE_AXIS.get(op.operator, varying[-1]) % labels.ndim
    # Collapse the axes along which nothing varies; the free axis comes last.
    kept = [axis for axis in varying if axis != free]
    table = np.moveaxis(labels, [*kept, free], range(-len(kept) - 1, 0))
    table = table[(0,) * (labels.ndim - len(kept) - 1)].reshape(-1, labels.shape[free])
    for row in table[1:]:
        op.tie(table[0], row)
    return free, np.ascontiguousarray(table[0])


# Labels are spread with stride 0, which a view of the same sizes may not accept.
_FREE_AXIS = {"pixel_shuffle": -3}
"""Where not the last of several labelled axes of the output is the one of the channels."""

_COPYING = {"view": "reshape", "_unsafe_view": "reshape"}

LAYOUT_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(
        (
            *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t"),
            *("swapaxes", "swapdims", "movedim", "moveaxis", "numpy_T", "squeeze", "unsqueeze", "expand"),
            *("slice", "select", "narrow", "split_with_sizes", "unbind", "roll", "flip", "repeat"),
            *("repeat_interleave", "tile", "unfold", "index", "index_select"),
            *("pixel_shuffle", "pixel_unshuffle"),
        ),
        layout,
    ),
    "chunk": equal_parts,
    "split": equal_parts,
    "tensor_split": equal_parts,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "cat": cat,
    "concat": cat,
    "stack": stack,
    "expand_as": expand_as,
    "pad": pad,
    "constant_pad_nd": pad,
}
