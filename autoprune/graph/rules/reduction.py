"""Rules of operators that reduce or normalise along axes: sums, means, norms, softmax."""

from __future__ import annotations

from autoprune.graph.context import LayerRule, OpContext, Value
from autoprune.graph.labels import LabelVector
from autoprune.graph.rules.elementwise import broadcast, elementwise

_NORMS = ("linalg_vector_norm", "norm", "linalg_norm", "linalg_matrix_norm")

_KEEPS_FUNCTION = {"sum", "nansum", "any", "count_nonzero", *_NORMS, "cumsum"}
"""Reductions whose result does not change if a channel of zeros is dropped."""

_FINDS = {"max", "min", "median", "nanmedian", "mode", "cummax", "cummin"}
"""Operators whose second output is the position of the first."""

_POSITION = "its second result is the position of a channel; use its first alone"


def reduce(op: OpContext) -> list[Value]:
    """Drop the labels of the reduced axes, which are crossed unless a channel of zeros adds nothing."""
    source = op.tensors()[0]
    if "other" in op.arguments:
        return elementwise(op)
    reduced = _reduced(op, source)
    for axis in reduced:
        if not _keeps_function(op):
            op.cross(source.labels[axis])
        if _finds_position(op):
            op.freeze(source.labels[axis], _POSITION)
    kept = len(op.shapes[0]) == len(source.shape)
    labels = [
        None if axis in reduced else vector
        for axis, vector in enumerate(source.labels)
        if kept or axis not in reduced
    ]
    return [op.output(labels, position) for position in range(len(op.shapes))]


def matrix_norm(op: OpContext) -> list[Value]:
    """Reduce two axes. Freeze them unless the norm is Frobenius', which treats all positions equally."""
    source = op.tensors()[0]
    reduced = _reduced(op, source)
    order = op.arguments.get("ord")
    if len(reduced) == 2 and order not in (None, "fro"):
        for axis in reduced:
            op.freeze(source.labels[axis], "a norm of matrices other than Frobenius' has no rule")
    return reduce(op)


def quantile(op: OpContext) -> list[Value]:
    """Reduce one axis to one quantile."""
    wanted = op.optional("q")
    if wanted is not None and wanted.shape:
        return op.unsupported("has no rule for several quantiles")
    return reduce(op)


def paired(op: OpContext) -> Value:
    """Tie two tensors and drop the labels of the axis along which they are compared."""
    operands = op.tensors()
    met = broadcast(op, operands, max(len(value.shape) for value in operands))
    dropped = op.integer("dim", -1) % len(met)
    if op.operator == "pairwise_distance":
        # torch adds a small number to every difference, so even a channel of zeros changes the distance.
        op.cross(met[dropped])
    kept: list[LabelVector | None] = [None] if len(op.shapes[0]) == len(met) else []
    return op.output([*met[:dropped], *kept, *met[dropped + 1 :]])


def along(op: OpContext) -> list[Value]:
    """Carry all labels through an operator that mixes the positions of one axis (softmax, cumsum)."""
    source = op.tensors()[0]
    for axis in op.axes("dim", len(source.shape)):
        if op.operator not in _KEEPS_FUNCTION:
            op.cross(source.labels[axis])
        if _finds_position(op):
            op.freeze(source.labels[axis], _POSITION)
    return [op.output(source.labels, position) for position in range(len(op.shapes))]


def _reduced(op: OpContext, source: Value) -> tuple[int, ...]:
    if "dim" not in op.arguments:
        return tuple(range(len(source.shape)))
    return op.axes("dim", len(source.shape))


def _finds_position(op: OpContext) -> bool:
    return op.operator in _FINDS and 1 in op.read


def _keeps_function(op: OpContext) -> bool:
    if op.operator in _NORMS:
        order = op.arguments.get("ord", op.arguments.get("p"))
        # Norms of negative order (the smallest entry, sums of reciprocals) change with a channel of zeros.
        return not isinstance(order, int | float) or order > 0
    return op.operator in _KEEPS_FUNCTION


REDUCTION_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(
        (
            *("sum", "mean", "amax", "amin", "max", "min", "aminmax", "prod", "median", "nanmedian", "mode"),
            *("var", "std", "var_mean", "std_mean", "logsumexp", "nansum", "nanmean"),
            *("any", "all", "count_nonzero", "linalg_vector_norm", "norm"),
        ),
        reduce,
    ),
    **dict.fromkeys(("linalg_norm", "linalg_matrix_norm"), matrix_norm),
    **dict.fromkeys(("quantile", "nanquantile"), quantile),
    **dict.fromkeys(("cosine_similarity", "pairwise_distance", "linalg_vecdot"), paired),
    **dict.fromkeys(
        (
            *("softmax", "log_softmax", "_softmax", "_log_softmax"),
            *("cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"),
        ),
        along,
    ),
}
