"""The latency table: the milliseconds of every operator of a model on one device, as a function of its sizes.

A table is kept in a JSON file and in the study. It is refused on another device, under another setting or for
another model.

Example:
    table = measure_table(prunable, LatencySetting("onnx"))
    table.save("resnet50.latency.json")
    table = load_table("resnet50.latency.json")
    table.require(prunable, setting)               # LatencyError if it was measured elsewhere
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.cost.polynomial import Size
from autoprune.errors import AutopruneError, ConfigError, LatencyError, abridged, reason_of
from autoprune.graph import Prunable
from autoprune.latency.fingerprint import Fingerprint, device_fingerprint
from autoprune.latency.setting import LatencySetting
from autoprune.latency.table._alignment import Alignment
from autoprune.latency.table._operators import Operator
from autoprune.latency.table._surfaces import Surface
from autoprune.latency.table._table_schema import check_table
from autoprune.support.atomic import saving
from autoprune.support.files import read_json

_FORMAT = 3


@dataclass(frozen=True)
class Calibration:
    """How the latency of a whole forward pass follows from its operators.

    Candidates are timed as shares of the dense model's time and converted to milliseconds by `dense_ms`. So
    predictions are comparable with the medians of `time_interleaved`.

    Attributes:
        constant_ms: milliseconds of a pass in addition to its operators.
        error: mean absolute relative error on a fifth of the candidates, which took no part in the fit or in
            the choice of its form. Afterwards the table was fitted again on all.
        candidates: number of candidates measured.
        seconds: duration of the measurement.
    """

    constant_ms: float
    error: float
    candidates: int
    seconds: float


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """The latencies of one model's operators.

    Attributes:
        setting: the setting of the measurement.
        device: fingerprint of the device of the measurement.
        model: fingerprint of the traced model.
        groups: number of groups of the model.
        operators: the operators of the model.
        surfaces: {signature of an operator: its milliseconds over its sizes}.
        calibration: from operators to whole passes.
        dense_ms: measured latency of the dense model, a median of `time_interleaved` like those of finalists.
            All other milliseconds are in proportion to it.
    """

    setting: LatencySetting
    device: Fingerprint
    model: str
    groups: int
    operators: tuple[Operator, ...]
    surfaces: Mapping[str, Surface]
    calibration: Calibration
    dense_ms: float

    def require(self, prunable: Prunable, setting: LatencySetting) -> None:
        """Check that the table was measured on this device, under this setting, for this model.

        Raises:
            LatencyError: it was not. The message names the differences.
        """
        advice = "Leave latency.table out to measure a new one, or name the table of this device and model."
        if self.model != prunable.fingerprint:
            name = type(prunable.model).__name__
            raise LatencyError(f"latency table: measured for another model than this {name}. {advice}")
        got, expected = dataclasses.asdict(self.setting), dataclasses.asdict(setting)
        del expected["command_seconds"]
        differing = [
            f"{key}: got {got[key]}, expected {value}" for key, value in expected.items() if got[key] != value
        ]
        if differing:
            raise LatencyError(
                f"latency table: measured under another setting ({'; '.join(differing)}). {advice}"
            )
        differing = device_fingerprint(setting).differences(self.device, there="in the table")
        if differing:
            raise LatencyError(
                f"latency table: measured on another device ({'; '.join(differing)}). {advice}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        return {
            "format": _FORMAT,
            "setting": dataclasses.asdict(self.setting),
            "device": dict(self.device.facts),
            "model": self.model,
            "groups": self.groups,
            "dense_ms": self.dense_ms,
            "calibration": dataclasses.asdict(self.calibration),
            "operators": [
                {
                    "name": operator.name,
                    "signature": operator.signature,
                    "sizes": [_size_json(size) for size in operator.sizes],
                }
                for operator in self.operators
            ],
            "surfaces": {
                signature: {
                    "grains": [dataclasses.asdict(alignment) for alignment in surface.alignments],
                    "knots": [knots.tolist() for knots in surface.knots],
                    "ms": surface.ms.tolist(),
                    "observed": surface.observed.tolist(),
                }
                for signature, surface in self.surfaces.items()
            },
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a JSON file, which appears or replaces an older one only when it is complete.

        Raises:
            LatencyError: the file cannot be written.
        """
        with saving(Path(path), "latency table", LatencyError) as partial:
            partial.write_text(json.dumps(self.to_json()), "utf-8")


def table_of_json(values: Mapping[str, Any]) -> LatencyTable:
    """Make a table from the values that `to_json` returned.

    Raises:
        LatencyError: the values are not a table, or have another format version.
    """
    form = values.get("format") if isinstance(values, Mapping) else None
    if isinstance(form, int) and form != _FORMAT:
        raise LatencyError(
            f"latency table: got format {abridged(form)}, expected {_FORMAT}. Measure it again."
        )
    check_table(values)
    try:
        groups = int(values["groups"])
        return LatencyTable(
            setting=LatencySetting(**values["setting"]),
            device=Fingerprint(dict(values["device"])),
            model=str(values["model"]),
            groups=groups,
            operators=tuple(
                Operator(
                    each["name"], each["signature"], tuple(_size_of(size, groups) for size in each["sizes"])
                )
                for each in values["operators"]
            ),
            surfaces={
                signature: Surface(
                    (Alignment(**each["grains"][0]), Alignment(**each["grains"][1])),
                    (np.array(each["knots"][0]), np.array(each["knots"][1])),
                    np.array(each["ms"], dtype=np.float64),
                    np.array(each["observed"], dtype=np.bool_),
                )
                for signature, each in values["surfaces"].items()
            },
            calibration=Calibration(**values["calibration"]),
            dense_ms=float(values["dense_ms"]),
        )
    except (ConfigError, TypeError, ValueError, OverflowError) as error:
        raise LatencyError(f"latency table: not one that autoprune wrote ({reason_of(error)}).") from error


def load_table(path: str | os.PathLike[str]) -> LatencyTable:
    """Read a table from a file.

    Raises:
        LatencyError: the file is missing or is not a table.
    """
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise LatencyError(f"{path}: cannot be read as a latency table ({reason_of(error)}).") from error
    try:
        return table_of_json(values)
    except AutopruneError as error:
        raise LatencyError(f"{path}: {error}") from error


def _size_json(size: Size) -> dict[str, Any]:
    moving = {str(place): time for place, time in enumerate(size.times) if time}
    return {"constant": size.constant, "times": moving}


def _size_of(values: Mapping[str, Any], groups: int) -> Size:
    times = [0] * groups
    for place, time in values["times"].items():
        times[int(place)] = int(time)
    return Size(int(values["constant"]), tuple(times))
