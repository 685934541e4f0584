"""Latency: how long a model takes where it will run, measured so that a noisy machine cancels out.

with beside(model, torch.zeros(1, 3, 32, 32), LatencySetting("onnx")) as measure:
small, dense, ratio = measure(candidate)
"""

from __future__ import annotations

from autoprune.latency._exported import FILES, FileInput, OpenedFile, open_model
from autoprune.latency._side_by_side import MeasureBeside, beside
from autoprune.latency._stair_blocks import heavy_blocks
from autoprune.latency._stairs import Curve, Stairs, measure_stairs
from autoprune.latency.fingerprint import Fingerprint, device_fingerprint
from autoprune.latency.probes import PROBES, Probe, prepare
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import (
    Measurement,
    Ratio,
    Timed,
    Timings,
    time_in_turn,
)

__all__ = [
    "FILES",
    "PROBES",
    "Curve",
    "FileInput",
    "Fingerprint",
    "LatencySetting",
    "MeasureBeside",
    "Measurement",
    "OpenedFile",
    "Probe",
    "Ratio",
    "Stairs",
    "Timed",
    "Timings",
    "beside",
    "device_fingerprint",
    "heavy_blocks",
    "measure_stairs",
    "open_model",
    "prepare",
    "time_in_turn",
]
