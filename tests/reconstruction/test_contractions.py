from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from autoprune.reconstruction._contractions import as_contraction, from_matrices, to_matrices

GEOMETRIES: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3": (functional.conv2d, (2, 4, 7, 6), (6, 4, 3, 3), {}),
    "strided": (functional.conv2d, (2, 4, 9, 8), (6, 4, 3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    "dilated": (functional.conv2d, (2, 4, 9, 9), (6, 4, 3, 3), {"dilation": 2, "padding": 2}),
    "same": (functional.conv2d, (2, 4, 8, 7), (6, 4, 4, 3), {"padding": "same"}),
    "valid": (functional.conv2d, (2, 4, 8, 7), (6, 4, 4, 3), {"padding": "valid"}),
    "grouped": (functional.conv2d, (2, 4, 7, 7), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": (functional.conv2d, (2, 4, 7, 7), (8, 1, 3, 3), {"groups": 4, "stride": 2}),
    "1d": (functional.conv1d, (2, 4, 9), (6, 4, 3), {"stride": 2, "padding": 1}),
    "3d": (functional.conv3d, (2, 3, 4, 5, 4), (5, 3, 2, 3, 2), {"padding": (0, 1, 1)}),
    "transposed": (functional.conv_transpose2d, (2, 4, 4, 5), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    "transposed, grouped, dilated": (
        functional.conv_transpose2d,
        (2, 4, 4, 4),
        (4, 3, 3, 2),
        {"stride": 2, "groups": 2, "dilation": (2, 1), "output_padding": 1},
    ),
    "transposed 1d": (functional.conv_transpose1d, (2, 4, 5), (4, 3, 4), {"stride": 3}),
    "linear": (functional.linear, (5, 7), (3, 7), {}),
    "linear on tokens": (functional.linear, (2, 5, 7), (3, 7), {}),
}


@pytest.mark.parametrize("sampled", [False, True], ids=["all positions", "some positions"])
@pytest.mark.parametrize("kind", GEOMETRIES)
def test_rows_times_the_matrix_are_the_outputs(kind: str, sampled: bool) -> None:
    function, inputs_shape, weight_shape, options = GEOMETRIES[kind]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(inputs_shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(weight_shape, generator=generator, dtype=torch.float64)
    output: Tensor = function(inputs, weight, **options)
    call = as_contraction(function, (inputs, weight), options)
    assert call is not None
    places = call.places(output, 3 if sampled else 10**6, generator)
    assert (places is None) == (not sampled or kind == "linear")
    rows = call.rows(output.shape, places)
    product = torch.einsum("rgp,gop->rgo", rows, call.matrix(weight)).flatten(1)
    torch.testing.assert_close(product, call.taken(output, places), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_matrices_become_the_weight_again(kind: str) -> None:
    _, _, shape, options = GEOMETRIES[kind]
    weight = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
    transposed, groups = "transposed" in kind, options.get("groups", 1)
    matrices = to_matrices(weight, groups, transposed=transposed)
    assert torch.equal(from_matrices(matrices, weight, transposed=transposed), weight)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (functional.relu, (torch.zeros(1, 2),)),
        (functional.linear, (torch.zeros(3), torch.zeros(2, 3))),
        (functional.conv2d, (torch.zeros(3, 4, 4), torch.zeros(2, 3, 1, 1))),
    ],
    ids=["no contraction", "a vector", "an image without a batch"],
)
def test_calls_without_a_batch_are_no_contractions(function: Any, args: tuple[Tensor, ...]) -> None:
    assert as_contraction(function, args, {}) is None
