"""Timing: models run side by side, in turn, until the intervals of their ratios are narrow enough."""

from __future__ import annotations

from autoprune.latency.timing._exported import FILES, FileInput, OpenedFile, open_model
from autoprune.latency.timing._measurement import Measurement, Ratio, median_interval, undisturbed
from autoprune.latency.timing._placement import check_device, check_threads, placed_copy, random_inputs
from autoprune.latency.timing._rounds import Progress, Timed, Timings, time_in_turn
from autoprune.latency.timing._side_by_side import MeasureBeside, beside, measure_beside

__all__ = [
    "FILES",
    "FileInput",
    "MeasureBeside",
    "Measurement",
    "OpenedFile",
    "Progress",
    "Ratio",
    "Timed",
    "Timings",
    "beside",
    "check_device",
    "check_threads",
    "measure_beside",
    "median_interval",
    "open_model",
    "placed_copy",
    "random_inputs",
    "time_in_turn",
    "undisturbed",
]
