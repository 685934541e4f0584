"""Own the rules of operators that reduce or normalise along axes: pooling, sums, means, softmax."""

from __future__ import annotations

from autoprune.graph.context import LayerRule, OpContext, Value
from autoprune.graph.rules.elementwise import elementwise

_NORMS = ("linalg_vector_norm", "norm")

_KEEPS_FUNCTION = {"sum", *_NORMS, "cumsum"}
"""Reductions to which a channel of zeros adds nothing."""


def pooling(op: OpContext) -> list[Value]:
    """Carry the channels; the spatial axes may not hold any."""
    source = op.tensors()[0]
    spatial = int(op.operator.rstrip("d")[-1]) if op.operator.endswith("d") else len(source.shape) - 2
    keep = len(source.shape) - spatial
    for vector in source.labels[keep:]:
        op.freeze(vector, "channels lie on a spatial axis that is pooled or resized")
    labels = (*source.labels[:keep], *(None,) * spatial)
    return [op.output(labels, position) for position in range(len(op.shapes))]


def reduce(op: OpContext) -> list[Value]:
    """Drop the reduced axes; unless zeros add nothing, the function depends on their number."""
    source = op.tensors()[0]
    if "other" in op.arguments:
        return elementwise(op)
    reduced = op.axes("dim", len(source.shape)) if "dim" in op.arguments else tuple(range(len(source.shape)))
    if op.operator not in _KEEPS_FUNCTION:
        for axis in reduced:
            op.cross(source.labels[axis])
    kept = len(op.shapes[0]) == len(source.shape)
    labels = [
        None if axis in reduced else vector
        for axis, vector in enumerate(source.labels)
        if kept or axis not in reduced
    ]
    return [op.output(labels, position) for position in range(len(op.shapes))]


def along(op: OpContext) -> Value:
    """Carry all labels through an operator that mixes the positions of one axis (softmax, cumsum)."""
    source = op.tensors()[0]
    if op.operator not in _KEEPS_FUNCTION:
        for axis in op.axes("dim", len(source.shape)):
            op.cross(source.labels[axis])
    return op.output(source.labels)


REDUCTION_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(
        (
            *(f"{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)),
            *(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)),
            *(f"max_pool{n}d_with_indices" for n in (2, 3)),
            *(f"upsample_nearest{n}d" for n in (1, 2, 3)),
            *("upsample_bilinear2d", "upsample_bicubic2d"),
            *("_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "lp_pool2d"),
        ),
        pooling,
    ),
    **dict.fromkeys(
        ("sum", "mean", "amax", "amin", "max", "min", "var", "std", "logsumexp", *_NORMS),
        reduce,
    ),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum"), along),
}
