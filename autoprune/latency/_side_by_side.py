"""Own the measurement of candidates beside their dense model, which is how every candidate is judged.

Before: `probes` and `timing`; after: the search, the report.

    with beside(model, torch.zeros(1, 3, 32, 32), LatencySetting("onnx")) as measure:
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
from autoprune.latency.timing import Measurement, Ratio, time_in_turn

MeasureBeside: TypeAlias = Callable[[nn.Module], tuple[Measurement, Measurement, Ratio]]
"""Times a candidate and the dense model in turn: their times, and the ratio of the two."""


@contextlib.contextmanager
def beside(
    dense: nn.Module,
    example_inputs: object,
    setting: LatencySetting,
    *,
    tolerance: float = 0.02,
    limit_seconds: float = 10.0,
) -> Iterator[MeasureBeside]:
    """Make the dense model ready once, to measure any number of candidates beside it.

    Args:
        dense: the baseline; neither it nor a candidate is changed.
        example_inputs: of all of them: a Tensor, a tuple of inputs or a dict of keyword inputs, the batch on
            axis 0.
        setting: how they are run.
        tolerance: half-width of the ratio's interval, as a share of the ratio, at which to stop.
        limit_seconds: when to stop otherwise.

    Raises:
        ConfigError: no such probe or device.
        LatencyError: a model does not run there.
    """
    with prepare(dense, example_inputs, setting) as whole:

        def measure(model: nn.Module) -> tuple[Measurement, Measurement, Ratio]:
            with prepare(model, example_inputs, setting) as small:
                timings = time_in_turn(
                    {"model": small, "dense": whole},
                    baseline="dense",
                    tolerance=tolerance,
                    limit_seconds=limit_seconds,
                )
            return timings.measurements["model"], timings.measurements["dense"], timings.ratios["model"]

        yield measure
