from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.latency import LatencySetting, side_by_side
from tests.latency.nets import TWO_INPUTS, TwoInputs


@pytest.mark.parametrize("probe", ["eager", "onnx"])
def test_a_model_of_a_hundredth_of_the_work_is_faster(probe: str) -> None:
    small, dense = (nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 3)) for width in (4, 400))
    images = torch.zeros(1, 3, 48, 48)
    with side_by_side(dense, images, LatencySetting(probe), tolerance=0.1, limit_seconds=2) as measure:
        measured, whole, ratio = measure(small)
    assert ratio.interval[0] <= ratio.ratio <= ratio.interval[1] < 0.8
    assert measured.median_ms < whole.median_ms
    assert measured.runs >= whole.runs >= 6


def test_inputs_by_keyword() -> None:
    model = TwoInputs()
    with side_by_side(model, TWO_INPUTS, LatencySetting(batch=3), tolerance=0.5, limit_seconds=1) as measure:
        measured, whole, _ = measure(model)
    assert min(measured.median_ms, whole.median_ms) > 0


@pytest.mark.parametrize("probe", ["eager", "onnx"])
def test_candidates_of_all_sizes_side_by_side_with_one_dense_model(probe: str) -> None:
    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 3))

    images = torch.zeros(1, 3, 48, 48)
    with side_by_side(net(96), images, LatencySetting(probe), tolerance=0.1, limit_seconds=2) as measure:
        ratios = [measure(net(width))[2] for width in (4, 1200)]
    assert ratios[0].interval[1] < 1 < ratios[1].interval[0]
