"""Measure the latency of models in the runtime that will run them.

A candidate and its dense model are timed side by side, so that other load on the machine cancels out.

Example:
    with side_by_side(model, torch.zeros(1, 3, 32, 32), LatencySetting("onnx")) as measure:
        small, dense, ratio = measure(candidate)
"""

from __future__ import annotations

from autoprune.latency._exported import FILES, FileInput, OpenedFile, open_model
from autoprune.latency._side_by_side import MeasureSideBySide, side_by_side
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
    time_interleaved,
)

__all__ = [
    "FILES",
    "PROBES",
    "Curve",
    "FileInput",
    "Fingerprint",
    "LatencySetting",
    "MeasureSideBySide",
    "Measurement",
    "OpenedFile",
    "Probe",
    "Ratio",
    "Stairs",
    "Timed",
    "Timings",
    "device_fingerprint",
    "heavy_blocks",
    "measure_stairs",
    "open_model",
    "prepare",
    "side_by_side",
    "time_interleaved",
]
