"""The latency tables of the experiments, measured once a model and setting, and stored in tables/.

Example:
    predict = predictor_of("resnet50", prunable, LatencySetting("onnx"))
"""

from __future__ import annotations

from pathlib import Path

from autoprune.graph import Prunable
from autoprune.latency import LatencySetting
from autoprune.latency.table import LatencyPredictor, load_table, measure_table

TABLES = Path(__file__).parent / "tables"


def path_of(name: str, setting: LatencySetting) -> Path:
    """Return the file of a table."""
    model = name.replace("/", "-")
    return TABLES / f"{model}-{setting.probe}-{setting.batch}.json"


def predictor_of(name: str, prunable: Prunable, setting: LatencySetting) -> LatencyPredictor:
    """Read a model's table, or measure it and keep it.

    Raises:
        LatencyError: the table that is there was measured elsewhere.
    """
    path = path_of(name, setting)
    if not path.exists():
        measure_table(prunable, setting).save(path)
    table = load_table(path)
    table.require(prunable, setting)
    return LatencyPredictor(table)
