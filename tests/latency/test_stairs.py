from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.latency import Curve, LatencySetting, Stairs, measure_stairs
from autoprune.latency._stair_blocks import Block
from autoprune.latency._stairs import choose_divisor

FINE, COARSE = range(1, 65), (16, 24, 32, 33, 34, 36, 37, 38, 40, 44, 45, 46, 48, 52, 53, 54, 56, 60, 62, 64)


def curve(
    time: Callable[[int], float], widths: Iterable[int] = FINE, error: float = 0.01, seed: int = 0
) -> Curve:
    """Return a curve as it would be measured: with noise within the 95% interval."""
    rng = np.random.default_rng(seed)
    exact = np.array([time(width) for width in widths])
    noisy = exact * (1 + error / 1.96 * rng.standard_normal(len(exact)))
    return Curve(tuple(widths), tuple(noisy.tolist()), tuple((error * exact).tolist()))


def steps(of: int, overhead: float = 0.0) -> Callable[[int], float]:
    return lambda width: overhead + -(-width // of) * of


@pytest.mark.parametrize("widths", [FINE, COARSE], ids=["fine", "coarse"])
@pytest.mark.parametrize("overhead", [0.0, 40.0])
@pytest.mark.parametrize("divisor", [2, 4, 8, 16, 32])
def test_true_stairs_give_their_step(divisor: int, overhead: float, widths: Iterable[int]) -> None:
    curves = [curve(steps(divisor, overhead), widths, 0.005, seed) for seed in range(3)]
    assert choose_divisor(curves) == divisor


@pytest.mark.parametrize("widths", [FINE, COARSE], ids=["fine", "coarse"])
@pytest.mark.parametrize("overhead", [0.0, 40.0])
def test_without_stairs_every_width_will_do(overhead: float, widths: Iterable[int]) -> None:
    assert choose_divisor([curve(lambda width: overhead + width, widths)]) == 1
    assert choose_divisor([curve(lambda width: overhead + width**1.5, widths)]) == 1


def test_widths_that_miss_a_multiple_may_be_slower_than_the_multiple() -> None:
    """As onnxruntime's convolutions: blocks of 16, and a slow kernel for what is no multiple of 4."""

    def time(width: int) -> float:
        return 1.5 * width if width % 4 else -(-width // 16) * 16

    assert choose_divisor([curve(time)]) == 16
    assert choose_divisor([curve(time, COARSE)]) == 16


def test_steps_that_rise_a_little_are_steps() -> None:
    """As those of eager convolutions on a CPU, which a third of the growth lies between."""
    rising = curve(lambda width: 0.3 * width + 0.7 * steps(16)(width))
    assert choose_divisor([rising, curve(steps(16))]) == 16


def test_what_noise_may_have_made_is_no_stair() -> None:
    assert choose_divisor([curve(steps(8), error=0.005)]) == 8
    assert choose_divisor([curve(steps(8), COARSE, error=0.5)]) == 1


def test_flat_curves_say_nothing() -> None:
    assert choose_divisor([curve(lambda width: 10 + width / 1000)]) == 1
    assert choose_divisor([curve(lambda width: 10 + width / 1000), curve(steps(8))]) == 8
    assert choose_divisor([Curve((4,), (1.0,), (0.0,))]) == 1
    assert choose_divisor([]) == 1


def test_all_curves_count() -> None:
    assert choose_divisor([curve(steps(8)), curve(steps(8), range(1, 17)), curve(steps(16))]) == 8


def test_stairs_survive_json() -> None:
    stairs = Stairs(8, "onnx", {"conv": curve(steps(8)), "fc": curve(steps(4), COARSE)})
    assert Stairs.from_json(json.loads(json.dumps(stairs.to_json()))) == stairs


def stepped(model: nn.Module, inputs: object) -> float:
    """Act as a runtime with stairs of 8: milliseconds by the width of the first layer alone."""
    return float(-(-len(model.get_parameter("0.weight")) // 8))


def test_blocks_are_timed_through_the_probe() -> None:
    def make(width: int) -> tuple[nn.Module, object]:
        return nn.Sequential(nn.Linear(4, width)), torch.zeros(1, 4)

    blocks = [Block("wide", 256, make), Block("narrow", 16, make)]
    told: list[tuple[int, int]] = []
    stairs = measure_stairs(
        blocks,
        LatencySetting("tests.latency.test_stairs:stepped"),
        limit_seconds=5,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 30) for done in range(1, 31)]
    assert stairs.divisor == 8
    assert stairs.runtime.endswith(":stepped, cpu, batch 1, 1 thread, float32")
    assert stairs.curves["wide"].widths == COARSE
    assert stairs.curves["narrow"].widths == (1, 2, 4, 5, 6, 8, 12, 13, 14, 16)
    assert stairs.curves["wide"].milliseconds == tuple(float(-(-width // 8)) for width in COARSE)
    assert set(stairs.curves["wide"].errors) == {0.0}


def test_eager_blocks_are_timed_at_every_width() -> None:
    def make(width: int) -> tuple[nn.Module, object]:
        return nn.Sequential(nn.Linear(4, width)), torch.zeros(1, 4)

    stairs = measure_stairs([Block("fc", 5, make)], LatencySetting(), tolerance=0.5, limit_seconds=1)
    assert stairs.curves["fc"].widths == (1, 2, 3, 4, 5)
    assert all(value > 0 for value in stairs.curves["fc"].milliseconds)


def test_an_unknown_probe_is_named() -> None:
    with pytest.raises(ConfigError, match=r'latency\.probe: unknown name "egaer"'):
        measure_stairs(
            [Block("fc", 2, lambda width: (nn.Linear(2, width), torch.zeros(1, 2)))], LatencySetting("egaer")
        )
