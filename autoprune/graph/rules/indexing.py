"""Rules of operators that pick or write positions by values which are known only when the model runs.

These are gather, scatter, sort, top-k, argmax and indexing by computed indices. The indexed axis is frozen,
all other axes stay free.
"""

from __future__ import annotations

from autoprune.graph.context import LayerRule, OpContext, Value
from autoprune.graph.labels import LabelVector

_BY_VALUE = "picks or orders positions by values that are not known before the model runs"
_FEWER = "covers a part of the axis only, by its positions"


def ordered(op: OpContext) -> list[Value]:
    """Freeze the axis that is sorted or searched and carry the others (sort, topk, argsort, argmax)."""
    source = op.tensors()[0]
    if op.operator in ("argmax", "argmin") and op.arguments.get("dim") is None:
        op.freeze_all(source, _BY_VALUE)
        return op.fixed_output()
    (along,) = op.axes("dim", len(source.shape)) if source.shape else (0,)
    op.freeze(source.labels[along] if source.shape else None, _BY_VALUE)
    labels: list[LabelVector | None] = list(source.labels)
    if source.shape and len(op.shapes[0]) == len(source.shape):
        labels[along] = None
    elif source.shape:
        del labels[along]
    return [op.output(labels, position) for position in range(len(op.shapes))]


def gather(op: OpContext) -> Value:
    """Freeze the axis that is picked from. Tie input and index along all other axes."""
    source, index = op.tensor("self"), op.tensor("indices" if "indices" in op.arguments else "index")
    (along,) = op.axes("dim", len(source.shape))
    op.freeze(source.labels[along], _BY_VALUE)
    labels: list[LabelVector | None] = list(index.labels)
    for axis, size in enumerate(op.shapes[0]):
        if axis != along:
            labels[axis] = _meet(op, source, index, axis, size)
    return op.output(labels)


def _meet(op: OpContext, source: Value, index: Value, axis: int, size: int) -> LabelVector | None:
    """Tie one axis of input and index, of which one may be broadcast. Return its labels."""
    wide = [value for value in (source, index) if value.shape[axis] > 1 or size == 1]
    if any(value.shape[axis] != size for value in wide):
        for value in wide:
            op.freeze(value.labels[axis], _FEWER)
        return None
    for value in wide[1:]:
        op.tie(wide[0].labels[axis], value.labels[axis], value)
    return next((value.labels[axis] for value in wide if value.labels[axis] is not None), None)


def scatter(op: OpContext) -> Value:
    """Freeze the axis that is written to. Tie input, index and source along all other axes."""
    target = op.tensor("self")
    (along,) = op.axes("dim", len(target.shape))
    for value in op.tensors():
        if len(value.shape) == len(target.shape):
            op.freeze(value.labels[along], _BY_VALUE)
            if value is not target:
                _tie_around(op, target, value, along)
    return op.output(target.labels)


def along_list(op: OpContext) -> Value:
    """Freeze the axis along which a list of positions is written. Tie the others to the source's."""
    target = op.tensor("self")
    (along,) = op.axes("dim", len(target.shape))
    op.freeze(target.labels[along], _BY_VALUE)
    op.freeze_all(op.tensor("index"), _BY_VALUE)
    source = op.optional("source")
    if source is not None and len(source.shape) == len(target.shape):
        op.freeze(source.labels[along], _BY_VALUE)
        _tie_around(op, target, source, along)
    return op.output(target.labels)


def _tie_around(op: OpContext, target: Value, other: Value, along: int) -> None:
    for axis, size in enumerate(target.shape):
        if axis == along:
            continue
        if other.shape[axis] == size:
            op.tie(target.labels[axis], other.labels[axis], other)
        else:
            op.freeze(target.labels[axis], _FEWER)
            op.freeze(other.labels[axis], _FEWER)


def put(op: OpContext) -> Value:
    """Tie a mask that covers all elements to the target. Freeze axes that are indexed."""
    target, values = op.tensor("self"), op.tensor("values")
    indices = op.arguments["indices"]
    listed = list(indices) if isinstance(indices, list | tuple) else []
    given = [(axis, index) for axis, index in enumerate(listed) if isinstance(index, Value)]
    if len(given) != 1:
        return op.unsupported("has no rule for several indices at once")[0]
    axis, index = given[0]
    single = all(size == 1 for size in values.shape)
    if index.shape == target.shape and single:  # only a mask has the shape of what it masks
        for place, vector in enumerate(index.labels):
            op.tie(target.labels[place], vector, index)
        return op.output(target.labels)
    if not single and len(index.shape) != 1:
        return op.unsupported("has no rule for writing several values by an index of several axes")[0]
    op.freeze_all(index, _BY_VALUE)
    for vector in target.labels[axis : axis + max(1, len(index.shape))]:
        op.freeze(vector, _BY_VALUE)
    _tie_written(op, target, values, axis)
    return op.output(target.labels)


def _tie_written(op: OpContext, target: Value, values: Value, axis: int) -> None:
    """Tie the written values to the other axes of the target. The values are aligned at the right."""
    for place in range(len(target.shape) - len(values.shape), len(target.shape)):
        own = place - len(target.shape)
        if place == axis:
            op.freeze(values.labels[own], _BY_VALUE)
        elif values.shape[own] > 1:
            op.tie(target.labels[place], values.labels[own], values)


def searched(op: OpContext) -> Value:
    """Carry the labels of the values that are looked up in a list of borders."""
    source = op.tensor("self")
    borders = op.optional("boundaries") or op.optional("sorted_sequence")
    if borders is not None and len(borders.shape) > 1:
        return op.unsupported("has no rule for several lists of borders")[0]
    for value in op.tensors():
        if value is not source:
            op.freeze_all(value, "holds the borders between bins")
    return op.output(source.labels)


def one_hot(op: OpContext) -> Value:
    """Carry all axes and append the axis of the classes."""
    return op.output((*op.tensor("self").labels, None))


INDEXING_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(("sort", "argsort", "topk", "kthvalue", "argmax", "argmin"), ordered),
    **dict.fromkeys(("gather", "take_along_dim"), gather),
    **dict.fromkeys(("scatter", "scatter_add", "scatter_reduce"), scatter),
    **dict.fromkeys(("index_add", "index_copy", "index_fill", "index_reduce"), along_list),
    **dict.fromkeys(("index_put", "_unsafe_index_put"), put),
    **dict.fromkeys(("bucketize", "searchsorted"), searched),
    "one_hot": one_hot,
}
