"""Measure a latency table once before a search, and predict candidates' latencies from it.

Example:
    table = measure_table(prunable, LatencySetting("onnx"))
    LatencyPredictor(table)(widths)               # float64 [n] milliseconds for int64 widths [n, groups]
"""

from __future__ import annotations

from autoprune.latency.table._candidates import narrowed
from autoprune.latency.table._latency_table import LatencyTable, load_table, table_of_json
from autoprune.latency.table._measure import measure_table
from autoprune.latency.table._operator_sizes import Observations
from autoprune.latency.table._operators import Call
from autoprune.latency.table._predictor import LatencyPredictor

__all__ = [
    "Call",
    "LatencyPredictor",
    "LatencyTable",
    "Observations",
    "load_table",
    "measure_table",
    "narrowed",
    "table_of_json",
]
