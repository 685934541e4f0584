"""Own the measurement of a candidate beside its dense model, which is how every candidate is judged.

Before: `probes` and `timing`; after: the search, the report.

    small, dense, ratio = measure_beside(candidate, model, torch.zeros(1, 3, 32, 32), LatencySetting("onnx"))
    ratio.ratio, ratio.interval
"""

from __future__ import annotations

from torch import nn

from autoprune.latency.measurement import Measurement, Ratio
from autoprune.latency.probes import prepare
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import time_in_turn


def measure_beside(
    model: nn.Module,
    dense: nn.Module,
    example_inputs: object,
    setting: LatencySetting,
    tolerance: float = 0.02,
    limit_seconds: float = 10.0,
) -> tuple[Measurement, Measurement, Ratio]:
    """Time a model and its baseline in turn; neither is changed.

    Args:
        model: the candidate.
        dense: the baseline.
        example_inputs: of both: a Tensor, a tuple of inputs or a dict of keyword inputs, the batch on axis 0.
        setting: how both are run.
        tolerance: half-width of the ratio's interval, as a share of the ratio, at which to stop.
        limit_seconds: when to stop otherwise.

    Returns:
        The candidate's time, the baseline's, and their ratio.

    Raises:
        ConfigError: no such probe or device.
        LatencyError: a model does not run there.
    """
    with prepare(model, example_inputs, setting) as small, prepare(dense, example_inputs, setting) as whole:
        timings = time_in_turn(
            {"model": small, "dense": whole},
            baseline="dense",
            tolerance=tolerance,
            limit_seconds=limit_seconds,
        )
    return timings.measurements["model"], timings.measurements["dense"], timings.ratios["model"]
