"""Latency: how long a model takes where it will run, measured so that a noisy machine cancels out.

Before: a rebuilt model; after: the search judges it by what was measured.

    small, dense, ratio = measure_beside(candidate, model, torch.zeros(1, 3, 32, 32), LatencySetting("onnx"))
"""

from __future__ import annotations

from autoprune.latency.beside import MeasureBeside, beside, measure_beside
from autoprune.latency.fingerprint import Fingerprint, device_fingerprint
from autoprune.latency.measurement import Measurement, Ratio
from autoprune.latency.probes import PROBES, Probe, prepare
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Timed, Timings, time_in_turn

__all__ = [
    "PROBES",
    "Fingerprint",
    "LatencySetting",
    "MeasureBeside",
    "Measurement",
    "Probe",
    "Ratio",
    "Timed",
    "Timings",
    "beside",
    "device_fingerprint",
    "measure_beside",
    "prepare",
    "time_in_turn",
]
