"""Own the rules of operators that work on a map's height and width and leave each channel to itself.

Pooling, resizing, sampling, and patches cut from maps (unfold) or laid back into them (fold).
"""

from __future__ import annotations

import math

import numpy as np

from autoprune.graph.context import LayerRule, OpContext, Value

_SPATIAL = "channels lie on a spatial axis that is pooled, resized or sampled"


def pooling(op: OpContext) -> list[Value]:
    """Carry the channels; the spatial axes may not hold any."""
    source = op.tensors()[0]
    dimensions = [int(letter) for letter in op.operator if letter.isdigit()]
    spatial = dimensions[-1] if dimensions else len(source.shape) - 2
    keep = len(source.shape) - spatial
    for vector in source.labels[keep:]:
        op.freeze(vector, _SPATIAL)
    labels = (*source.labels[:keep], *(None,) * spatial)
    return [op.output(labels, position) for position in range(len(op.shapes))]


def unpooling(op: OpContext) -> list[Value]:
    """Carry the channels of the values, tied to those of the indices."""
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
    """Carry the channels; the random numbers that place the regions come one set a channel."""
    samples = op.tensor("random_samples")
    outputs = pooling(op)
    if samples.shape[1] > 1:
        channels = outputs[0].labels[-3 if op.operator.endswith("2d") else -4]
        op.tie(channels, samples.labels[1], samples)
    return outputs


def sampling(op: OpContext) -> Value:
    """Carry the channels of the map; those of the grid are its coordinates."""
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
    """Give every channel a run of positions, one a place in the kernel."""
    source = op.tensor("self")
    for vector in source.labels[-2:]:
        op.freeze(vector, _SPATIAL)
    channels = source.labels[-3]
    runs = None if channels is None else np.repeat(channels, op.shapes[0][-2] // len(channels))
    return op.output((*source.labels[:-3], runs, None))


def fold(op: OpContext) -> Value:
    """Make one channel of each run of positions: all of it goes or stays."""
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
