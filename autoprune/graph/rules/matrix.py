"""Rules of operators that treat each position of an axis differently, such as triangles and diagonals.

These axes are frozen, all others stay free.
"""

from __future__ import annotations

from autoprune.graph.context import LayerRule, OpContext, Value
from autoprune.graph.labels import LabelVector
from autoprune.graph.rules.elementwise import elementwise

_BY_POSITION = "treats each position of the axis differently"


def triangle(op: OpContext) -> Value:
    """Freeze the rows and columns of a triangular matrix."""
    source = op.tensors()[0]
    for vector in source.labels[-2:]:
        op.freeze(vector, _BY_POSITION)
    return op.output(source.labels)


def diagonal(op: OpContext) -> Value:
    """Freeze two axes. Their diagonal becomes the last axis."""
    source = op.tensors()[0]
    axes = (op.integer("dim1", 0) % len(source.shape), op.integer("dim2", 1) % len(source.shape))
    for axis in axes:
        op.freeze(source.labels[axis], _BY_POSITION)
    return op.output([*(v for axis, v in enumerate(source.labels) if axis not in axes), None])


def difference(op: OpContext) -> Value:
    """Freeze the axis along which neighbours are subtracted."""
    source = op.tensors()[0]
    if op.optional("prepend") or op.optional("append"):
        return op.unsupported("has no rule for prepended or appended values")[0]
    (along,) = op.axes("dim", len(source.shape))
    op.freeze(source.labels[along], _BY_POSITION)
    return op.output([None if axis == along else vector for axis, vector in enumerate(source.labels)])


def written(op: OpContext) -> Value:
    """Freeze the axis along which a part is written into a tensor. Tie the others."""
    target, part = op.tensor("self"), op.tensor("src")
    (along,) = op.axes("dim", len(target.shape))
    op.freeze(target.labels[along], _BY_POSITION)
    labels: list[LabelVector | None] = list(part.labels)
    if len(labels) == len(target.shape):
        op.freeze(labels.pop(along), _BY_POSITION)
    for vector, other in zip((*target.labels[:along], *target.labels[along + 1 :]), labels, strict=True):
        op.tie(vector, other, part)
    return op.output(target.labels)


def cross(op: OpContext) -> list[Value]:
    """Tie two fields of vectors and freeze the axis of their three entries."""
    outputs = elementwise(op)
    (along,) = op.axes("dim", len(op.shapes[0]))
    op.freeze(outputs[0].labels[along], _BY_POSITION)
    return outputs


def freeze_inputs(op: OpContext) -> list[Value]:
    """Freeze all inputs of an operator that needs every position of them."""
    return op.unsupported(_WHOLE[op.operator])


_WHOLE = {
    "as_strided": "reads memory by strides that are numbers in the code",
    "affine_grid_generator": "computes coordinates",
    **dict.fromkeys(
        (
            *("matrix_exp", "linalg_matrix_exp", "linalg_inv", "inverse", "linalg_svd", "linalg_svdvals"),
            *("linalg_qr", "linalg_eigh", "linalg_solve", "linalg_cholesky", "linalg_householder_product"),
            *("linalg_pinv", "linalg_det", "trace"),
        ),
        "is a function of a whole matrix, of which rows and columns cannot be dropped",
    ),
}
"""{operator: why every axis of its inputs is frozen}."""

MATRIX_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(("tril", "triu"), triangle),
    **dict.fromkeys(("diagonal", "linalg_diagonal"), diagonal),
    **dict.fromkeys(("select_scatter", "slice_scatter"), written),
    "diff": difference,
    "linalg_cross": cross,
    **dict.fromkeys(_WHOLE, freeze_inputs),
}
