"""Cut tensors to the kept positions of their axes, with little memory traffic.

Example:
    with torch.no_grad():
        small = Slicer().cut(weight, {0: np.array([0, 2]), 1: np.array([1])})
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Kept = NDArray[np.int64]
"""Sorted positions along an axis."""

_SCRATCH_BYTES = 1 << 20
"""Size of the block of rows that is cut at a time. It stays in the cache until its columns are taken."""

_SMALL_BYTES = 1 << 16
"""A tensor up to this size fits in the innermost cache, where the number of calls costs more than traffic."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""{element size in bytes: integer type of that size}. Floats are cut as integers: NumPy has no bfloat16."""


class Slicer:
    """Cuts the tensors of one model, and converts each array of positions only once.

    Call it without gradients. Arrays are recognised by identity, so keep them alive as long as the slicer.
    """

    def __init__(self) -> None:
        self._indices: dict[int, Tensor] = {}
        self._scratch = np.empty(0, np.uint8)

    def cut(self, tensor: Tensor, axes: Mapping[int, Kept]) -> Tensor:
        """Return a copy of the tensor that keeps only the given positions, in the same memory layout.

        Args:
            tensor: a parameter, whose class and requires_grad are kept, or another tensor.
            axes: {axis: sorted positions}. An axis that is not named stays whole.
        """
        small = self._cut(tensor, axes)
        if type(tensor) is nn.Parameter and type(small) is Tensor:
            # As in lazy modules: nn.Parameter() would make a second tensor, which takes as long as the cut.
            small.__class__ = nn.Parameter
        elif isinstance(tensor, nn.Parameter):
            return type(tensor)(small, requires_grad=tensor.requires_grad)
        if tensor.requires_grad:
            small.requires_grad = True
        return small

    def _cut(self, tensor: Tensor, axes: Mapping[int, Kept]) -> Tensor:
        if not axes:
            return tensor.clone()
        indices = {axis: self._index(kept, tensor.device) for axis, kept in axes.items()}
        if tensor.is_contiguous():
            return self._select(tensor, indices)
        # index_select loses layouts such as channels_last, so the axes are cut in their order in memory.
        order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
        inverse = [order.index(axis) for axis in range(tensor.ndim)]
        small = self._select(tensor.permute(order), {inverse[axis]: i for axis, i in indices.items()})
        return small.permute(inverse)

    def _index(self, kept: Kept, device: torch.device) -> Tensor:
        known = self._indices.get(id(kept))
        if known is None or known.device != device:
            known = self._indices[id(kept)] = torch.from_numpy(kept).to(device)
        return known

    def _select(self, tensor: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
        if len(indices) == 2 and 0 in indices and tensor.nbytes > _SMALL_BYTES and _is_numpy_readable(tensor):
            return self._select_two(tensor, indices[0].numpy(), max(indices), indices[max(indices)].numpy())
        # The axis that loses most is cut first, so that the next cuts move less memory.
        for axis in sorted(indices, key=lambda axis: len(indices[axis]) / tensor.shape[axis]):
            tensor = tensor.index_select(axis, indices[axis])
        return tensor

    def _select_two(self, tensor: Tensor, rows: Kept, axis: int, columns: Kept) -> Tensor:
        """Cut along axis 0 and one more axis, one block of rows at a time.

        The rows of a block go to a scratch array that is used again. Allocating memory would take longer than
        the cut and fragment the heap. NumPy's `take` into a given array needs half the time of index_select.
        """
        shape = tensor.shape
        small = tensor.new_empty((len(rows), *shape[1:axis], len(columns), *shape[axis + 1 :]))
        source, target = _array(tensor), _array(small)
        row_bytes = source[:1].nbytes
        step = max(1, _SCRATCH_BYTES // row_bytes)
        if len(self._scratch) < step * row_bytes:
            self._scratch = np.empty(max(_SCRATCH_BYTES, row_bytes), np.uint8)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            half = self._scratch[: len(some) * row_bytes].view(source.dtype).reshape(len(some), *shape[1:])
            # The mode "raise" would write to a copy of the target first.
            source.take(some, 0, half, "clip")
            half.take(columns, axis, target[start : start + step], "clip")
        return small


def _is_numpy_readable(tensor: Tensor) -> bool:
    """Return whether NumPy can read the tensor's memory."""
    return (
        tensor.device.type == "cpu"
        and type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.is_floating_point()
    )


def _array(tensor: Tensor) -> NDArray[np.generic]:
    if tensor.dtype is not torch.float32:
        tensor = tensor.view(_INTEGERS[tensor.element_size()])
    array: NDArray[np.generic] = tensor.numpy()
    return array
