"""Own the slicer: tensors cut to the kept positions of their axes, with little traffic through memory.

`rebuild` cuts every tensor of a model with one slicer, so that positions which many tensors share are made
ready once.

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
"""Rows that are cut at a time along two axes: they stay in the cache until their columns are taken."""

_SMALL_BYTES = 1 << 16
"""Up to so many a tensor and its rows fit the innermost cache: what counts there is calls, not traffic."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""{bytes: what stands for an element of as many in NumPy, which knows no bfloat16}."""


class Slicer:
    """Cut tensors; positions that come as one array are made ready once.

    Call it without gradients, and keep the arrays of positions alive as long as the slicer.
    """

    def __init__(self) -> None:
        self._indices: dict[int, Tensor] = {}
        self._scratch = np.empty(0, np.uint8)

    def cut(self, tensor: Tensor, axes: Mapping[int, Kept]) -> Tensor:
        """Return a copy of the tensor with only the positions (sorted) of each axis, in the same layout.

        Args:
            tensor: a parameter (its class and requires_grad are kept) or another tensor.
            axes: {axis: positions}; axes left out are kept whole.
        """
        small = self._cut(tensor, axes)
        if type(tensor) is nn.Parameter and type(small) is Tensor:
            # As lazy modules do: nn.Parameter() would make a second tensor, for as long as the cut itself.
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
        # index_select forgets a layout such as channels_last: cut the axes as they lie in memory.
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
        if len(indices) == 2 and 0 in indices and tensor.nbytes > _SMALL_BYTES and _in_reach(tensor):
            return self._select_two(tensor, indices[0].numpy(), max(indices), indices[max(indices)].numpy())
        # The axis that loses most goes first, so that the rest moves less memory.
        for axis in sorted(indices, key=lambda axis: len(indices[axis]) / tensor.shape[axis]):
            tensor = tensor.index_select(axis, indices[axis])
        return tensor

    def _select_two(self, tensor: Tensor, rows: Kept, axis: int, columns: Kept) -> Tensor:
        """Cut by rows and one more axis, some rows at a time.

        What is cut by rows only goes to one scratch array: fresh memory would take more time than the cut,
        and leave holes in the heap between the tensors that stay. NumPy writes to a given array in half the
        time of index_select.
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
            # "clip", as "raise" would write to a copy of the target first.
            source.take(some, 0, half, "clip")
            half.take(columns, axis, target[start : start + step], "clip")
        return small


def _in_reach(tensor: Tensor) -> bool:
    """Tell whether NumPy can work on the tensor's memory."""
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
