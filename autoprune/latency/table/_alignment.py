"""Alignment: how a runtime treats the sizes of an operator along its input or its output channels.

Sizes that are multiples of some number run through faster kernels. These kernels round sizes up to a step.
Small sizes may be exempt from both.

Example:
    alignment = Alignment(align=4, step=16, free=16)       # input channels of ONNX Runtime's convolutions
    alignment.is_aligned(np.array([13, 20, 22]))           # [True, True, False]
    alignment.rounded(np.array([13, 20]))                  # [13, 32]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprune.support.arrays import BoolArray, IntArray


@dataclass(frozen=True)
class Alignment:
    """How a runtime treats sizes along one axis.

    Attributes:
        align: multiples of this number are aligned and run through faster kernels. With 1 all sizes are.
        step: the kernels of aligned sizes round a size up to a multiple of this number.
        free: sizes up to this number are aligned too, and are not rounded.
    """

    align: int = 1
    step: int = 1
    free: int = 0

    def is_aligned(self, sizes: IntArray) -> BoolArray:
        """Return which sizes run through the kernels of aligned sizes."""
        aligned: BoolArray = (sizes % self.align == 0) | (sizes <= self.free)
        return aligned

    def rounded(self, sizes: IntArray) -> IntArray:
        """Return the sizes to which the kernels of aligned sizes round up."""
        return np.where(sizes <= self.free, sizes, -(-sizes // self.step) * self.step)

    def nearest(self, sizes: IntArray, *, aligned: bool) -> IntArray:
        """Return for each size the smallest size, at least as large, that is aligned or that is not.

        Raises:
            ValueError: `aligned` is False and all sizes are aligned.
        """
        if aligned:
            return np.where(self.is_aligned(sizes), sizes, -(-sizes // self.align) * self.align)
        if self.align == 1:
            raise ValueError(f"{self}: all sizes are aligned, so none is the nearest that is not.")
        above: IntArray = np.maximum(sizes, self.free + 1)
        return np.where(above % self.align == 0, above + 1, above)


Alignments = tuple[Alignment, Alignment]
"""Along the input channels and along the output channels of an operator."""


def aligned_axes(alignments: Alignments, sizes: IntArray) -> BoolArray:
    """Return bool [n, 2], which of the sizes [n, 2] are aligned along their axis."""
    return np.stack(
        [alignment.is_aligned(sizes[:, axis]) for axis, alignment in enumerate(alignments)], axis=1
    )


def effective_sizes(alignments: Alignments, sizes: IntArray) -> tuple[BoolArray, IntArray]:
    """Return which of the sizes [n, 2] are aligned, and the sizes on which the kernels work.

    Only the kernels of operators with both sizes aligned round them up.

    Returns:
        bool [n, 2], as `aligned_axes` returns it, and int64 [n, 2].
    """
    aligned = aligned_axes(alignments, sizes)
    rounded = np.stack(
        [alignment.rounded(sizes[:, axis]) for axis, alignment in enumerate(alignments)], axis=1
    )
    return aligned, np.where((aligned[:, 0] & aligned[:, 1])[:, None], rounded, sizes)
