"""Time candidates side by side with their dense model.

Example:
    with side_by_side(model, torch.zeros(1, 3, 32, 32), LatencySetting("onnx")) as measure:
        small, dense, ratio = measure(candidate)
    ratio.ratio, ratio.interval
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from torch import nn

from autoprune.latency.probes import prepare
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Measurement, Ratio, time_interleaved

MeasureSideBySide: TypeAlias = Callable[[nn.Module], tuple[Measurement, Measurement, Ratio]]
"""candidate -> (its time, the dense model's time, the ratio of the two), from interleaved timing."""


@contextlib.contextmanager
def side_by_side(
    dense: nn.Module,
    example_inputs: object,
    setting: LatencySetting,
    *,
    tolerance: float = 0.02,
    limit_seconds: float = 10.0,
) -> Iterator[MeasureSideBySide]:
    """Make the dense model ready once, and yield a function that times a candidate side by side with it.

    Args:
        dense: the baseline. It is not changed, and neither are the candidates.
        example_inputs: inputs of all models, as a Tensor, a tuple of inputs or a dict of keyword inputs, with
            the batch on axis 0.
        setting: how the models are run.
        tolerance: timing stops when the half-width of the ratio's interval, as a share of the ratio, is at
            most this.
        limit_seconds: timing stops after this time at the latest.

    Raises:
        ConfigError: there is no such probe or device.
        LatencyError: a model does not run under the setting.
    """
    with prepare(dense, example_inputs, setting) as whole:

        def measure(model: nn.Module) -> tuple[Measurement, Measurement, Ratio]:
            with prepare(model, example_inputs, setting) as small:
                timings = time_interleaved(
                    {"model": small, "dense": whole},
                    baseline="dense",
                    tolerance=tolerance,
                    limit_seconds=limit_seconds,
                )
            return timings.measurements["model"], timings.measurements["dense"], timings.ratios["model"]

        yield measure
