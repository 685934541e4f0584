"""Timing: models run side by side, in turn, until the intervals of their ratios are narrow enough."""

from __future__ import annotations

from autoprune.latency.timing._measurement import Measurement, Ratio, median_interval, undisturbed
from autoprune.latency.timing._placement import check_device, check_threads, placed_copy, random_inputs
from autoprune.latency.timing._rounds import Progress, Timed, Timings, time_in_turn

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
    "time_in_turn",
    "undisturbed",
]
