from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import LatencyError
from autoprune.latency import LatencySetting
from autoprune.latency.probes.function import user_function

IMAGES = torch.zeros(1, 3, 8, 8)
SETTING = LatencySetting("mypkg.board:probe", batch=3, dtype="bfloat16")


def test_the_function_gets_a_copy_and_the_inputs() -> None:
    dense = nn.Conv2d(3, 4, 3).train()

    def measure(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
        assert model is not dense
        assert not model.training
        assert not torch.is_grad_enabled()
        (images,) = inputs
        return float(model(images).numel())

    with user_function(measure, dense, IMAGES, SETTING) as timed:
        assert timed() == 3 * 4 * 6 * 6


def test_numbers_of_any_kind_will_do() -> None:
    for found in (2, "2.0", torch.tensor(2.0)):
        with user_function(lambda model, inputs, found=found: found, nn.ReLU(), IMAGES, SETTING) as timed:
            assert timed() == 2.0


def give(found: object, model: nn.Module, inputs: Any) -> object:
    return found


@pytest.mark.parametrize("found", [None, 0, -1.5, float("inf"), "fast", [1.0, 2.0], torch.ones(2)])
def test_what_is_no_milliseconds_is_refused(found: object) -> None:
    with (
        user_function(partial(give, found), nn.ReLU(), IMAGES, SETTING) as timed,
        pytest.raises(LatencyError, match=r'latency\.probe: "mypkg\.board:probe" returned .*, expected'),
    ):
        timed()


def test_a_function_that_fails_is_named() -> None:
    def broken(model: nn.Module, inputs: Any) -> float:
        raise KeyError("no board")

    with (
        user_function(broken, nn.ReLU(), IMAGES, SETTING) as timed,
        pytest.raises(LatencyError, match=r'"mypkg\.board:probe" failed: KeyError: \'no board\''),
    ):
        timed()
