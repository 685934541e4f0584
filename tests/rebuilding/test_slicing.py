"""Slicing: what `index_select` gives, in the layout, type and class of the tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.rebuilding import _slicing as slicing
from autoprune.rebuilding._slicing import Kept, Slicer

AXES: list[dict[int, list[int]]] = [
    {},
    {0: [0, 2]},
    {1: [1, 2, 5]},
    {0: [1], 1: [0, 5]},
    {0: [0, 3], 3: [2]},
    {1: [0], 2: [1]},
    {0: [0, 1], 1: [1, 4], 2: [2]},
]
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.bool,
    torch.complex64,
]


@pytest.fixture(autouse=True, params=["by calls", "by traffic"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small tensors both as what they are and as if they were large."""
    if request.param == "by traffic":
        monkeypatch.setattr(slicing, "_SMALL_BYTES", 0)


def cut(tensor: Tensor, axes: dict[int, list[int]]) -> Tensor:
    with torch.no_grad():
        return Slicer().cut(tensor, {axis: np.array(kept) for axis, kept in axes.items()})


def expected(tensor: Tensor, axes: dict[int, list[int]]) -> Tensor:
    for axis, kept in axes.items():
        tensor = tensor.index_select(axis, torch.tensor(kept))
    return tensor


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_are_those_of_index_select(dtype: torch.dtype, axes: dict[int, list[int]]) -> None:
    tensor = torch.randn(4, 6, 3, 3).mul(9).to(dtype)
    small = cut(tensor, axes)
    assert small.dtype == dtype
    assert torch.equal(small, expected(tensor, axes))
    assert small.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_the_layout_stays(axes: dict[int, list[int]]) -> None:
    tensor = torch.randn(4, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    small = cut(tensor, axes)
    assert small.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(small, expected(tensor, axes))


def test_strides_that_no_order_of_axes_makes_dense() -> None:
    tensor = torch.randn(8, 12)[::2, ::3]
    assert torch.equal(cut(tensor, {0: [1, 3], 1: [0, 2]}), tensor[[1, 3]][:, [0, 2]])


@pytest.mark.parametrize("columns", [5, 3000, 300_000])
def test_rows_of_any_length(columns: int) -> None:
    tensor = torch.randn(max(4, 900_000 // columns), columns)
    rows, kept = np.arange(0, len(tensor), 3), np.arange(0, columns, 2)
    with torch.no_grad():
        small = Slicer().cut(tensor, {0: rows, 1: kept})
    assert torch.equal(small, tensor[::3, ::2])


def test_one_slicer_cuts_tensors_of_many_sizes_and_types() -> None:
    slicer = Slicer()
    kept: Kept = np.array([0, 2])
    tensors = [
        torch.randn(3, 3),
        torch.randn(3, 3, 9).double(),
        torch.randn(3, 3, 400_000),
        torch.randn(3, 3),
    ]
    with torch.no_grad():
        for tensor in tensors:
            assert torch.equal(slicer.cut(tensor, {0: kept, 1: kept}), tensor[[0, 2]][:, [0, 2]])


def test_parameters_stay_parameters() -> None:
    class Named(nn.Parameter):
        """A class of the user's own."""

    for made in (nn.Parameter(torch.randn(4, 3)), Named(torch.randn(4, 3))):
        for requires_grad in (True, False):
            made.requires_grad_(requires_grad)
            for axes in ({}, {0: [1]}, {0: [1, 2], 1: [0]}):
                small = cut(made, axes)
                assert type(small) is type(made)
                assert isinstance(small, nn.Parameter)
                assert small.requires_grad is requires_grad
                assert small.is_leaf


def test_meta_tensors_have_shapes_only() -> None:
    small = cut(torch.empty(4, 6, device="meta"), {0: [1, 2]})
    assert small.is_meta
    assert small.shape == (2, 6)
