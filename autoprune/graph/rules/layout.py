"""Rules of operators that move elements without changing them: view, permute, slice, cat, roll.

A layout operator is applied to the labels in the same way as to the data. If the labels of an output vary
along several axes (channels split into heads x width), dropping single channels would leave gaps. The rule
then keeps the last of these axes free and ties the labels along the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from autoprune.graph.context import LayerRule, OpContext, Value
from autoprune.graph.labels import FIXED, LabelVector


def layout(op: OpContext) -> list[Value]:
    """Apply the operator to the labels of each labelled axis of its first operand."""
    source = op.tensors()[0]
    if "dtype" in op.arguments:
        return op.unsupported("takes the bytes of a tensor for another type")
    outputs: list[list[LabelVector | None]] = [[None] * len(shape) for shape in op.shapes]
    for axis, vector in enumerate(source.labels):
        if vector is None:
            continue
        op.freeze(_picked_by_position(op, axis, vector), "moves or picks channels by their positions")
        shape = [1] * len(source.shape)
        shape[axis] = len(vector)
        # Expanded with stride 0, so the labels of one axis take the shape of the tensor without its memory.
        spread = torch.from_numpy(vector).view(shape).expand(source.shape)
        results = _apply(op, spread)
        for result, labels in zip(results, outputs, strict=True):
            found = _rectangular(op, result.numpy())
            if found is None:
                reason = "holds one channel only" if (vector == vector[0]).all() else _PICKS_ONE
                op.freeze(torch.unique(result).numpy(), reason)
                continue
            place, labelled = found
            # Of two labelled axes that merge, the inner one stays free: a head's channels, not the heads.
            op.freeze(labels[place], "its channels lie on an axis that merges with another's")
            labels[place] = labelled
    return [op.output(labels, position) for position, labels in enumerate(outputs)]


def _picked_by_position(op: OpContext, axis: int, vector: LabelVector) -> LabelVector | None:
    """Return the labels of channels that must stay, because the operator counts positions along `axis`.

    After a channel is dropped, `x[:, ::2]` or `x[:, 3]` would pick other channels than in the dense model.
    """
    ndim = len(op.tensors()[0].shape)
    if op.operator == "roll":
        return vector if axis in op.axes("dims", ndim) or not op.arguments.get("dims") else None
    if op.integer("dim") % ndim != axis:
        return None
    if op.operator == "slice" and op.integer("step", 1) != 1:
        return vector
    if op.operator == "select":
        place = op.integer("index")
        return vector[: place + 1] if place >= 0 else vector[place:]
    return None


def indexed(op: OpContext) -> list[Value]:
    """Freeze the axes that indices pick from and carry the others as a layout operator does."""
    source = op.tensors()[0]
    if not all(isinstance(size, int) for shape in op.shapes for size in shape):
        return op.unsupported(
            "picks positions by a mask, so that the output's size is not known before it runs"
        )
    listed = op.arguments.get("indices")
    entries = list(listed) if isinstance(listed, list | tuple) else []
    labels: list[LabelVector | None] = list(source.labels)
    stand_ins: dict[int, Value] = {}
    for axis, index in enumerate(entries):
        if isinstance(index, Value):
            op.freeze_all(index, "its channels lie on an axis of an index")
            op.freeze(labels[axis], _BY_INDEX)
            labels[axis] = None
            # The values of the index do not matter for the labels of the other axes.
            stand_ins[id(index)] = replace(index, constant=torch.zeros(index.shape, dtype=torch.long))
    stand_ins[id(source)] = replace(source, labels=tuple(labels))
    arguments = {name: _replaced(value, stand_ins) for name, value in op.arguments.items()}
    return layout(replace(op, arguments=arguments))


def selected(op: OpContext) -> Value:
    """Freeze the axis that the index picks from. The output carries the labels of the index there.

    So a channel selection, whose index is a buffer, can be narrowed: its index and its readers lose positions
    together, and the tensor that it reads stays whole.
    """
    source, index = op.tensor("self"), op.tensor("index")
    axis = op.integer("dim") % len(source.shape)
    op.freeze(source.labels[axis], _BY_INDEX)
    labels = list(source.labels)
    labels[axis] = index.labels[0] if index.shape else None
    return op.output(labels)


def _replaced(argument: object, stand_ins: Mapping[int, Value]) -> object:
    if isinstance(argument, list | tuple):
        return [stand_ins.get(id(item), item) for item in argument]
    return stand_ins.get(id(argument), argument)


def shaped_as(op: OpContext) -> list[Value]:
    """Reshape to the shape of another tensor, and tie the axes to those of that tensor."""
    source, other = op.tensors()
    arguments = {"self": source, "shape": list(op.shapes[0])}
    outputs = layout(replace(op, operator="reshape", arguments=arguments))
    for axis, vector in enumerate(other.labels):
        op.tie(outputs[0].labels[axis], vector, other)
    return outputs


def channel_shuffle(op: OpContext) -> list[Value]:
    """Interleave the groups. All keep the same positions, because their number is fixed."""
    source, groups = op.tensor("self"), op.integer("groups", 1)
    channels = source.labels[1]
    if channels is not None and groups > 1:
        blocks = channels.reshape(groups, -1)
        op.tie(np.tile(blocks[0], groups - 1), blocks[1:].ravel())
    return layout(op)


def gated(op: OpContext) -> Value:
    """Tie the gated half of the channels to the gating half (glu)."""
    source = op.tensor("self")
    (axis,) = op.axes("dim", len(source.shape))
    labels = list(source.labels)
    vector = labels[axis]
    if vector is not None:
        half = len(vector) // 2
        op.tie(vector[:half], vector[half:])
        labels[axis] = vector[:half]
    return op.output(labels)


def equal_parts(op: OpContext) -> list[Value]:
    """Tie the parts of a chunk or split: they must stay equal, because their number is fixed."""
    parts = layout(op)
    source = op.tensors()[0]
    axis = _SPLIT_AXIS.get(op.operator, op.integer("dim")) % len(source.shape)
    sizes = {part.shape[axis] for part in parts}
    for part in parts[1:]:
        if len(sizes) == 1:
            op.tie(parts[0].labels[axis], part.labels[axis])
        else:
            op.freeze(source.labels[axis], f"is cut into unequal parts {[p.shape[axis] for p in parts]}")
    return parts


def cat(op: OpContext) -> Value:
    """Concatenate the labels along one axis and tie the operands along all others."""
    parts = [value for value in op.tensors() if len(value.shape) == len(op.shapes[0])]
    axis = _JOINED_AXIS.get(op.operator, op.integer("dim")) % len(op.shapes[0])
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


def named_cat(op: OpContext) -> list[Value]:
    """Concatenate tensors that already have the axis (hstack, vstack, dstack)."""
    if any(len(value.shape) != len(op.shapes[0]) for value in op.tensors()):
        return op.unsupported("joins tensors of fewer axes, which has no rule")
    return [cat(op)]


def stack(op: OpContext) -> Value:
    """Tie the operands and insert a fixed axis."""
    parts = op.tensors()
    labels: list[LabelVector | None] = []
    for place in range(len(parts[0].shape)):
        shared = next((part.labels[place] for part in parts if part.labels[place] is not None), None)
        for part in parts:
            op.tie(shared, part.labels[place], part)
        labels.append(shared)
    labels.insert(op.integer("dim") % (len(labels) + 1), None)
    return op.output(labels)


def expand(op: OpContext) -> list[Value]:
    """Carry the operand's labels. A broadcast axis gets new ones, because its size may follow a width.

    If that size is a number in the code, the shape check freezes the axis later.
    """
    (carried,) = layout(op)
    source = op.tensors()[0]
    labels = list(carried.labels)
    for axis in range(1, len(labels) + 1):
        if len(source.shape) < axis or source.shape[-axis] == 1 < carried.shape[-axis]:
            labels[-axis] = op.store.fresh(carried.shape[-axis])
    return [op.output(labels)]


def expand_as(op: OpContext) -> Value:
    """Carry the operand's labels, and those of the other tensor along broadcast axes."""
    source, other = op.tensors()
    labels: list[LabelVector | None] = list(other.labels)
    for axis in range(1, len(source.shape) + 1):
        if source.shape[-axis] > 1:
            op.tie(source.labels[-axis], other.labels[-axis], other)
            labels[-axis] = source.labels[-axis]
    return op.output(labels)


def pad(op: OpContext) -> list[Value]:
    """Pad with a constant, at fixed positions. Freeze axes that are padded in another mode, or cropped."""
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
    """Reduce element labels to (axis, labels along it). Return None if all labels are equal."""
    varying = [
        axis
        for axis in range(labels.ndim)
        if labels.shape[axis] > 1 and (labels != labels.take([0], axis=axis)).any()
    ]
    if not varying:
        return None
    free = _FREE_AXIS.get(op.operator, varying[-1]) % labels.ndim
    # Collapse the axes along which nothing varies and move the free axis to the end.
    kept = [axis for axis in varying if axis != free]
    table = np.moveaxis(labels, [*kept, free], range(-len(kept) - 1, 0))
    table = table[(0,) * (labels.ndim - len(kept) - 1)].reshape(-1, labels.shape[free])
    for row in table[1:]:
        op.tie(table[0], row)
    return free, np.ascontiguousarray(table[0])


_PICKS_ONE = "picks one channel by its position"

_BY_INDEX = "picks positions by an index"

_FREE_AXIS = {"pixel_shuffle": -3}
"""{operator: axis of the output's channels}, if that is not the last axis along which labels vary."""

_JOINED_AXIS = {"hstack": 1, "column_stack": 1, "vstack": 0, "dstack": 2}

_SPLIT_AXIS = {"hsplit": 1, "vsplit": 0, "dsplit": 2}

# Labels are expanded with stride 0, and view refuses some of these tensors.
_COPYING = {"view": "reshape", "_unsafe_view": "reshape", "view_copy": "reshape"}

LAYOUT_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(
        (
            *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "ravel"),
            *("swapaxes", "swapdims", "movedim", "moveaxis", "numpy_T", "squeeze", "unsqueeze"),
            *(
                "t",
                "mT",
                "mH",
                "matrix_H",
                "adjoint",
                "broadcast_to",
                "atleast_1d",
                "atleast_2d",
                "atleast_3d",
            ),
            *("slice", "select", "narrow", "split_with_sizes", "unbind", "roll", "repeat", "flip", "fliplr"),
            *("flipud", "rot90", "repeat_interleave", "tile", "unfold", "pixel_shuffle", "pixel_unshuffle"),
            *("unsafe_split_with_sizes", "split_with_sizes_copy", "unbind_copy", "select_copy", "slice_copy"),
            *("view_copy", "permute_copy", "transpose_copy", "squeeze_copy", "unsqueeze_copy"),
        ),
        layout,
    ),
    **dict.fromkeys(("index", "_unsafe_index"), indexed),
    "index_select": selected,
    **dict.fromkeys(("view_as", "reshape_as"), shaped_as),
    **dict.fromkeys(("chunk", "split", "tensor_split", "unsafe_chunk", "unsafe_split"), equal_parts),
    **dict.fromkeys(_SPLIT_AXIS, equal_parts),
    **dict.fromkeys(_JOINED_AXIS, named_cat),
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
    "stack": stack,
    **dict.fromkeys(("expand", "expand_copy", "broadcast_to"), expand),
    "expand_as": expand_as,
    "glu": gated,
    "pad": pad,
    "constant_pad_nd": pad,
}
