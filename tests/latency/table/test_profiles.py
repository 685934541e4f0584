"""Profiles: the times of a pass's operators, from a runtime's own notes or from PyTorch's dispatch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import LatencyError
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting
from autoprune.latency.table._onnx_template import OnnxTemplate
from autoprune.latency.table._profiles import _read_events, make_profiler

TEMPLATE = OnnxTemplate(
    graph=onnx.ModelProto(),
    arrays={},
    axes={},
    values={},
    attributes={},
    nodes=("node_conv_0", "node_relu_0", "node_conv_1", "node_mean"),
    outputs={"conv_0": "node_conv_0", "relu_0": "node_relu_0", "conv_1": "node_conv_1", "mean": "node_mean"},
    calls=(),
)
OF_NODE = {"node_conv_0": 0, "node_relu_0": 0, "node_conv_1": 1, "node_mean": 2}


def kernel(name: str, index: int, microseconds: int) -> dict[str, Any]:
    args = {"node_index": str(index), "op_name": "Any"}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": args}


def one_pass(*microseconds: int) -> list[dict[str, Any]]:
    """Return the notes of a pass: an input is reordered, a ReLU fused into its convolution, outputs too."""
    reorder_in, fused, conv, reorder_out, mean = microseconds
    return [
        {"cat": "Session", "name": "model_run", "dur": 999},
        kernel("ReorderInput", 7, reorder_in),
        {"cat": "Node", "name": "relu_0_nchwc_fence_before", "dur": 500, "args": {"node_index": "8"}},
        kernel("relu_0_nchwc", 8, fused),  # bears the name of the tensor that it writes
        kernel("node_conv_1", 9, conv),  # that of a node
        kernel("ReorderOutput", 10, reorder_out),
        kernel("node_mean", 3, mean),
    ]


def test_the_notes_of_onnxruntime_are_added_up() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 12345},
        *one_pass(10, 200, 300, 40, 5),
        *one_pass(11, 210, 310, 41, 6),
    ]
    profile = _read_events(events, TEMPLATE, OF_NODE, 4)
    # What comes before any operator counts to the first, what comes between two to the one before.
    np.testing.assert_allclose(profile.ms, [[0.210, 0.340, 0.005, 0.0], [0.221, 0.351, 0.006, 0.0]])
    np.testing.assert_array_equal(profile.events, [2, 2, 1, 0])


def test_the_notes_of_a_single_pass() -> None:
    profile = _read_events(one_pass(10, 200, 300, 40, 5), TEMPLATE, OF_NODE, 3)
    np.testing.assert_allclose(profile.ms, [[0.210, 0.340, 0.005]])


def traced(model: nn.Module) -> Prunable:
    return autoprune.trace(model.eval(), torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize("probe", ["eager", "onnx"])
def test_every_pass_is_profiled_at_any_widths(probe: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 3))
    prunable = traced(model)
    profiler = make_profiler(
        prunable, LatencySetting(probe, batch=16)
    )  # no operator takes less than the clock shows
    assert profiler.times_operators
    assert [operator.name for operator in profiler.found.operators] == ["0", "3"]
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    narrow = full.copy()
    narrow[[prunable.position[group.name] for group in prunable.searchable]] = 5
    for widths in (full, narrow):
        with profiler.open(widths) as opened:
            assert opened.profiled is not None
            assert opened.profile is not None
            runs = [opened.profiled() for _ in range(3)]
            profile = opened.profile()
            assert opened.timed() > 0
        assert profile.ms.shape[1] == 2
        assert (profile.ms > 0).all()
        assert (profile.events >= 1).all()
        assert (profile.ms[-3:].sum(axis=1) <= runs).all()


def test_probes_that_time_models_whole_tell_no_operators() -> None:
    profiler = make_profiler(traced(nn.Conv2d(3, 4, 3)), LatencySetting(f"{__name__}:a_millisecond"))
    assert not profiler.times_operators
    with profiler.open(np.array([group.width for group in traced(nn.Conv2d(3, 4, 3)).groups])) as opened:
        assert opened.timed() == 1.0
        assert opened.profile is None


def a_millisecond(model: nn.Module, inputs: object) -> float:
    return 1.0


class OnlyFloat32(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.float32:
            raise RuntimeError("no kernel here")
        return self.conv(images)  # type: ignore[no-any-return]  # modules return Any


def test_a_model_that_does_not_run_under_the_setting_is_named() -> None:
    prunable = traced(OnlyFloat32())
    profiler = make_profiler(prunable, LatencySetting(dtype="bfloat16"))
    full = np.array([group.width for group in prunable.groups])
    with pytest.raises(
        LatencyError, match=r'OnlyFloat32 does not run .* "eager" on cpu in bfloat16: no kern'
    ):
        profiler.open(full).__enter__()
