"""Tables: they read back equal, and are refused elsewhere. Predictions are monotone and fast."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import LatencyError
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting
from autoprune.latency.fingerprint import Fingerprint
from autoprune.latency.table import (
    LatencyPredictor,
    LatencyTable,
    load_table,
    measure_table,
    narrowed,
    table_of_json,
)
from autoprune.zoo import make_model
from tests.conftest import FullDisk
from tests.latency.table.told import told_table
from tests.support.test_files import SPECIAL

SETTING = LatencySetting("onnx", batch=8)


def traced(classes: int = 10) -> Prunable:
    torch.manual_seed(0)
    return autoprune.trace(make_model("digits_resnet", classes, 1).eval(), torch.zeros(1, 1, 8, 8))


@pytest.fixture(scope="module")
def prunable() -> Prunable:
    return traced()


@pytest.fixture(scope="module")
def table(prunable: Prunable) -> LatencyTable:
    return told_table(prunable, SETTING, levels=3)


def random_widths(prunable: Prunable, count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    widths = np.array([[group.width for group in prunable.groups]] * count, dtype=np.int64)
    for group in prunable.searchable:
        widths[:, prunable.position[group.name]] = rng.integers(1, group.width + 1, count)
    return widths


def test_a_table_that_was_measured_reads_back_equal_and_never_falls(tmp_path: Path) -> None:
    layers = (nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    small = autoprune.trace(nn.Sequential(*layers).eval(), torch.zeros(1, 1, 8, 8))
    measured = measure_table(small, SETTING, limit_seconds=0.0, levels=2)
    test_a_table_reads_back_equal(small, measured, tmp_path)
    test_predictions_never_fall_if_a_width_grows(small, measured)


def test_a_table_reads_back_equal(prunable: Prunable, table: LatencyTable, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.json"
    table.save(path)
    widths = random_widths(prunable, 50)
    for again in (load_table(path), table_of_json(json.loads(json.dumps(table.to_json())))):
        np.testing.assert_array_equal(LatencyPredictor(again)(widths), LatencyPredictor(table)(widths))
        assert again.calibration == table.calibration
        again.require(prunable, SETTING)


def test_predictions_never_fall_if_a_width_grows(prunable: Prunable, table: LatencyTable) -> None:
    predict = LatencyPredictor(table)
    widths = random_widths(prunable, 400)
    wider = np.maximum(widths, random_widths(prunable, 400, seed=1))
    assert (predict(wider) >= predict(widths) - 1e-12).all()
    assert (predict(widths) > 0).all()


def test_many_candidates_are_predicted_as_one_by_one_and_fast(
    prunable: Prunable, table: LatencyTable
) -> None:
    predict = LatencyPredictor(table)
    widths = random_widths(prunable, 10_000)
    started = time.process_time()
    together = predict(widths)
    assert time.process_time() - started < 5.0  # some 0.1 s alone
    np.testing.assert_allclose(together[:20], [predict(row[None])[0] for row in widths[:20]])


def test_a_table_is_refused_for_another_model_setting_or_device(
    prunable: Prunable, table: LatencyTable
) -> None:
    with pytest.raises(LatencyError, match="measured for another model than this ResNet"):
        table.require(traced(classes=7), SETTING)
    with pytest.raises(LatencyError, match=r"another setting \(batch: got 8, expected 1\)"):
        table.require(prunable, LatencySetting("onnx"))
    facts = {**table.device.facts, "cpu": "Other"}
    elsewhere = dataclasses.replace(table, device=Fingerprint(facts))
    with pytest.raises(LatencyError, match=r"another device \(cpu: .+ here, Other in the table\)"):
        elsewhere.require(prunable, SETTING)


def test_files_that_are_no_table_get_one_line(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    with pytest.raises(LatencyError, match=r"table\.json: cannot be read as a latency table"):
        load_table(path)
    path.write_text("{}")
    with pytest.raises(LatencyError, match="not one that autoprune wrote"):
        load_table(path)
    for text in ("[]", "3"):
        path.write_text(text)
        with pytest.raises(LatencyError, match="not one that autoprune wrote"):
            load_table(path)
    path.write_text('{"format": 99}')
    with pytest.raises(LatencyError, match="got format 99, expected 3"):
        load_table(path)


def test_values_of_another_kind_get_one_line(table: LatencyTable) -> None:
    values = table.to_json() | {"surfaces": []}  # a list has no items
    with pytest.raises(LatencyError, match="not one that autoprune wrote"):
        table_of_json(values)


def test_a_file_is_replaced_only_when_the_new_one_is_whole(
    table: LatencyTable, tmp_path: Path, full_disk: FullDisk
) -> None:
    path = tmp_path / "table.json"
    table.save(path)
    before = path.read_bytes()
    message = r"table\.json: cannot be written \(File too large\)"
    with pytest.raises(LatencyError, match=message), full_disk(len(before) // 2):
        dataclasses.replace(table, dense_ms=1.0).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def by_parameters(model: nn.Module, inputs: object) -> float:
    """Take a millisecond and a microsecond a parameter."""
    return 1.0 + sum(parameter.numel() for parameter in model.parameters()) / 1000


@pytest.mark.slow
def test_a_probe_that_times_whole_models_gets_a_table_too(prunable: Prunable) -> None:
    setting = LatencySetting(f"{__name__}:by_parameters")
    table = measure_table(prunable, setting, limit_seconds=0.0, levels=5)
    assert table.dense_ms == pytest.approx(by_parameters(prunable.model, None))
    assert table.calibration.error < 1e-6
    widths = random_widths(prunable, 20)
    exact = [by_parameters(narrowed(prunable, row), None) for row in widths]
    np.testing.assert_allclose(LatencyPredictor(table).expected(widths), exact, rtol=1e-6)


def mutated(values: Any, path: Sequence[str | int], value: Any) -> Any:
    """Return a copy of JSON values with another value at a path; "first" is any key of a mapping."""
    if not path:
        return value
    key, *rest = path
    if isinstance(values, list):
        assert isinstance(key, int)
        return [*values[:key], mutated(values[key], rest, value), *values[key + 1 :]]
    key = next(iter(values)) if key == "first" else key
    return {**values, key: mutated(values.get(key), rest, value)}


DAMAGES: list[tuple[tuple[str | int, ...], Any]] = [
    (("format",), None),
    (("format",), 10**30),
    (("setting",), []),
    (("setting", "batch"), 0),
    (("setting", "unknown"), 1),
    (("device",), None),
    (("device", "first"), 3),
    (("model",), 1),
    (("groups",), "3"),
    (("groups",), 10**12),
    (("groups",), 0),
    (("dense_ms",), math.nan),
    (("dense_ms",), 0),
    (("dense_ms",), 10**400),
    (("calibration",), {}),
    (("calibration", "constant_ms"), math.inf),
    (("operators",), {}),
    (("operators", 0, "signature"), "none"),
    (("operators", 0, "sizes"), [{"constant": 1, "times": {}}] * 3),
    (("operators", 0, "sizes", 0, "times"), {"x": 1}),
    (("operators", 0, "sizes", 0, "times"), {"100": 1}),
    (("operators", 0, "sizes", 0, "constant"), 10**30),
    (("surfaces",), []),
    (("surfaces", "first", "grains", 0, "step"), 0),
    (("surfaces", "first", "grains"), []),
    (("surfaces", "first", "knots", 0), []),
    (("surfaces", "first", "knots", 0), [3.0, 1.0]),
    (("surfaces", "first", "ms"), [[[[1.0]]]]),
    (("surfaces", "first", "ms", 0), [[[1.0], [1.0, 2.0]]]),
    (("surfaces", "first", "ms", 0, 0, 0, 0), math.nan),
    (("surfaces", "first", "observed"), [[True]]),
]


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_a_damaged_table_is_one_line(table: LatencyTable, tmp_path: Path, number: int) -> None:
    path, value = DAMAGES[number]
    file = tmp_path / "table.json"
    file.write_text(json.dumps(mutated(table.to_json(), path, value)), "utf-8")
    with pytest.raises(LatencyError, match=r"table\.json: latency table: ") as caught:
        load_table(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "[" * 100_000, "\x00", "1" + "0" * 10_000])
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.json").write_text(text, "utf-8")
    with pytest.raises(LatencyError, match=r"table\.json: "):
        load_table(tmp_path / "table.json")


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_table_that_is_no_file_is_refused_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = SPECIAL[kind]
    make(Path("table.json"))
    with pytest.raises(LatencyError, match=message):
        load_table("table.json")
