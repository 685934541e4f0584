"""Rules of operators that work on height and width, and on each channel separately.

These are pooling, resizing, sampling, unfold and fold.
"""

from __future__ import annotations

import math

import numpy as np

from autoprune.graph.context import LayerRule, OpContext, Value

_SPATIAL = "channels lie on a spatial axis that is pooled, resized or sampled"


def pooling(op: OpContext) -> list[Value]:
    """Carry the channels and freeze channels that lie on spatial axes."""
    source = op.tensors()[0]
    # The digit in its name is the number of spatial axes: 2 in max_pool2d.
    dimensions = [int(letter) for letter in op.operator if letter.isdigit()]
    spatial = dimensions[-1] if dimensions else len(source.shape) - 2
    keep = len(source.shape) - spatial
    for vector in source.labels[keep:]:
        op.freeze(vector, _SPATIAL)
    labels = (*source.labels[:keep], *(None,) * spatial)
    return [op.output(labels, position) for position in range(len(op.shapes))]


def unpooling(op: OpContext) -> list[Value]:
    """Carry the channels of the values and tie them to those of the indices."""
    outputs = pooling(op)
    indices = op.tensor("indices")
    keep = len(indices.shape) - (3 if op.operator.endswith("3d") else 2)
    for axis, vector in enumerate(indices.labels):
        if axis < keep:
            op.tie(outputs[0].labels[axis], vector, indices)
        else:
            op.freeze(vector, _SPATIAL)
    return outputs


def fractional(op: OpContext) -> list[Value]:
    """Carry the channels and tie the random numbers that place the regions, one set for each channel."""
    samples = op.tensor("random_samples")
    outputs = pooling(op)
    if samples.shape[1] > 1:
        channels = outputs[0].labels[-3 if op.operator.endswith("2d") else -4]
        op.tie(channels, samples.labels[1], samples)
    return outputs


def sampling(op: OpContext) -> Value:
    """Carry the channels of the map and freeze the grid, whose axes hold coordinates."""
    source, grid = op.tensor("input"), op.tensor("grid")
    op.freeze_all(grid, "holds the coordinates at which a map is sampled")
    for vector in source.labels[2:]:
        op.freeze(vector, _SPATIAL)
    return op.output((*source.labels[:2], *(None,) * (len(source.shape) - 2)))


def regions(op: OpContext) -> list[Value]:
    """Carry the channels of the map into the regions cut from it (roi_align, roi_pool)."""
    source = op.tensor("input")
    op.freeze_all(op.tensor("rois"), "holds the corners of regions")
    for vector in (source.labels[0], *source.labels[2:]):
        op.freeze(vector, _SPATIAL)
    return [op.output((None, source.labels[1], None, None), place) for place in range(len(op.shapes))]


def unfold(op: OpContext) -> Value:
    """Repeat each channel for every position of the kernel."""
    source = op.tensor("self")
    for vector in source.labels[-2:]:
        op.freeze(vector, _SPATIAL)
    channels = source.labels[-3]
    runs = None if channels is None else np.repeat(channels, op.shapes[0][-2] // len(channels))
    return op.output((*source.labels[:-3], runs, None))


def fold(op: OpContext) -> Value:
    """Tie the positions that become one channel, one for every position of the kernel."""
    source = op.tensor("self")
    op.freeze(source.labels[-1], _SPATIAL)
    runs = source.labels[-2]
    kernel = op.arguments["kernel_size"]
    places = math.prod(kernel) if isinstance(kernel, list | tuple) else 1
    channels = None
    if runs is not None:
        table = runs.reshape(-1, places)
        channels = np.ascontiguousarray(table[:, 0])
        op.tie(np.repeat(channels, places), runs, source)
    return op.output((*source.labels[:-2], channels, None, None))


SPATIAL_RULES: dict[str, LayerRule] = {
    **dict.fromkeys(
        (
            *(f"{kind}_pool{n}d" for kind in ("avg", "max", "lp") for n in (1, 2, 3)),
            *(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)),
            *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
            *(f"upsample_nearest{n}d" for n in (1, 2, 3)),
            *(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
            *("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
            *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa"),
        ),
        pooling,
    ),
    **dict.fromkeys(("max_unpool2d", "max_unpool3d"), unpooling),
    **dict.fromkeys(("fractional_max_pool2d", "fractional_max_pool3d"), fractional),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), sampling),
    **dict.fromkeys(("torchvision::roi_align", "torchvision::roi_pool"), regions),
    "im2col": unfold,
    "col2im": fold,
}
