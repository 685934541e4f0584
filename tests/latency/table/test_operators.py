"""Operators: the calls that multiply matrices, and the message if the calls depend on the widths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import LatencyError
from autoprune.latency import LatencySetting
from autoprune.latency.table import Call
from autoprune.latency.table._operator_sizes import observe
from autoprune.latency.table._operators import make_operators
from autoprune.latency.table._profiles import make_profiler


@pytest.mark.parametrize(
    "name",
    [
        "aten.convolution.default",
        "aten.conv2d.default",
        "aten.mkldnn_convolution.default",
        "aten._convolution.default",
        "aten.linear.default",
        "aten.mkldnn_linear.default",
        "aten.addmm.default",
        "aten.mm.default",
        "aten.bmm.default",
        "aten.baddbmm.default",
        "aten.matmul.default",
        "aten._scaled_dot_product_flash_attention_for_cpu.default",
        "aten._scaled_dot_product_attention_math_for_mps.default",
        "aten._native_multi_head_attention.default",
        "aten.lstm.input",
        "aten.mkldnn_rnn_layer.default",
        "aten.gru.input",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "Einsum",
        "LSTM",
        "Attention",
    ],
)
def test_calls_that_multiply_matrices(name: str) -> None:
    assert Call(f"{name} [4, 4]", (), (), {}).contracts


@pytest.mark.parametrize(
    "name",
    [
        "aten.upsample_bilinear2d.vec",
        "aten.upsample_linear1d.default",
        "aten._upsample_bilinear2d_aa.default",
        "aten.relu.default",
        "aten.cumsum.default",
        "aten.native_layer_norm.default",
        "aten.clamp_min.default",
        "aten.add_.Tensor",
        "Relu",
        "LayerNormalization",
        "CumSum",
        "Resize",
    ],
)
def test_calls_that_do_not(name: str) -> None:
    assert not Call(f"{name} [4, 4]", (), (), {}).contracts


def test_an_upsampling_belongs_to_the_layer_before_it() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(8, 4, 3)
    )
    prunable = autoprune.trace(model.eval(), torch.zeros(1, 3, 8, 8))
    found = make_profiler(prunable, LatencySetting()).found
    assert [operator.name for operator in found.operators] == ["0", "2"]


def test_calls_that_depend_on_the_widths_are_refused_with_advice() -> None:
    sizes = observe(
        autoprune.trace(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)), torch.zeros(1, 3, 4, 4))
    )
    call = Call("aten.relu.default [1] 0", ((8,),), (), {})
    observed = [[call], *[[call, call]] * (len(sizes.widths) - 1)]
    with pytest.raises(
        LatencyError,
        match=r"got 2 operator calls in a narrowed model, expected the same 1 calls .*\. Freeze the",
    ):
        make_operators(observed, sizes)
