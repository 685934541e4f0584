"""Own grains: how a runtime treats the sizes of an operator, along its in size and along its out size.

Runtimes have stairs. Sizes that are multiples of some number run through faster kernels, these kernels round
up to a step, and small sizes may be exempt from both. Before: nothing; after: `surfaces` are fitted on the
sizes that count, `fits` finds the grain that explains what was measured.

    grain = Grain(align=4, step=16, free=16)       # ONNX Runtime's blocked convolutions, along the in size
    grain.on(np.array([13, 20, 22]))               # [True, True, False]
    grain.rounded(np.array([13, 20]))              # [13, 32]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprune.support.arrays import BoolArray, IntArray


@dataclass(frozen=True)
class Grain:
    """How a runtime treats sizes along one axis.

    Attributes:
        align: sizes that are multiples of it run through other kernels than the rest; 1: all are alike.
        step: these kernels round sizes up to a multiple of it.
        free: sizes up to it run through these kernels whatever they are, and are not rounded.
    """

    align: int = 1
    step: int = 1
    free: int = 0

    def on(self, sizes: IntArray) -> BoolArray:
        """Tell which sizes run through the kernels of aligned sizes."""
        aligned: BoolArray = (sizes % self.align == 0) | (sizes <= self.free)
        return aligned

    def rounded(self, sizes: IntArray) -> IntArray:
        """Return the sizes that these kernels work on."""
        return np.where(sizes <= self.free, sizes, -(-sizes // self.step) * self.step)

    def nearest(self, sizes: IntArray, *, aligned: bool) -> IntArray:
        """Return the smallest sizes from the given ones on that are aligned, or that are not.

        Raises:
            ValueError: sizes that are not aligned are asked for, where all are.
        """
        if aligned:
            return np.where(self.on(sizes), sizes, -(-sizes // self.align) * self.align)
        if self.align == 1:
            raise ValueError(f"{self}: all sizes are aligned.")
        above: IntArray = np.maximum(sizes, self.free + 1)
        return np.where(above % self.align == 0, above + 1, above)


Grains = tuple[Grain, Grain]
"""Along the in size and along the out size."""


def on_both(grains: Grains, sizes: IntArray) -> BoolArray:
    """Tell [n, 2] which of the sizes [n, 2] are aligned, axis by axis."""
    return np.stack([grain.on(sizes[:, axis]) for axis, grain in enumerate(grains)], axis=1)


def effective(grains: Grains, sizes: IntArray) -> tuple[BoolArray, IntArray]:
    """Return which of the sizes [n, 2] are aligned, and what they count as: rounded only where both are.

    Returns:
        bool [n, 2], as `on_both` gives it; int64 [n, 2].
    """
    on = on_both(grains, sizes)
    rounded = np.stack([grain.rounded(sizes[:, axis]) for axis, grain in enumerate(grains)], axis=1)
    return on, np.where((on[:, 0] & on[:, 1])[:, None], rounded, sizes)
