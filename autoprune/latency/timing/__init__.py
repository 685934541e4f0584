"""Time models side by side with interleaved timing, until the confidence intervals are narrow enough."""

from __future__ import annotations

from autoprune.latency.timing._measurement import Measurement, Ratio, median_interval, undisturbed
from autoprune.latency.timing._placement import check_device, check_threads, placed_copy, random_inputs
from autoprune.latency.timing._rounds import Progress, Timed, Timings, time_interleaved

__all__ = [
    "Measurement",
    "Progress",
    "Ratio",
    "Timed",
    "Timings",
    "check_device",
    "check_threads",
    "median_interval",
    "placed_copy",
    "random_inputs",
    "time_interleaved",
    "undisturbed",
]
